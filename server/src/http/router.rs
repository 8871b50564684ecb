//! All routes, with what each asks of its caller. A route cannot be added without saying so.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

use super::{
    access::{Access, admit, identify},
    problem::Problem,
    webhooks,
};
use crate::app::App;

/// One line of the table of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Path with its parameters.
    pub path: String,
    /// Method.
    pub method: String,
    /// What it asks of its caller.
    pub access: Access,
}

/// Routes under construction, with their table.
pub struct Routes {
    app: Arc<App>,
    router: Router<Arc<App>>,
    /// What is there so far.
    pub table: Vec<Endpoint>,
}

impl Routes {
    /// No routes yet.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { app, router: Router::new(), table: Vec::new() }
    }

    /// Adds one method of one path.
    #[must_use]
    pub fn add(mut self, method: Method, path: &str, access: Access, handler: MethodRouter<Arc<App>>) -> Self {
        let guarded = handler.layer(from_fn_with_state((Arc::clone(&self.app), access), admit));
        self.router = self.router.route(path, guarded);
        self.table.push(Endpoint { path: path.to_owned(), method: method.to_string(), access });
        self
    }
}

/// Every route of the server.
#[must_use]
pub fn routes(app: Arc<App>) -> Routes {
    use Access::{Proof, Public};
    let hook_limit = DefaultBodyLimit::max(app.config.bounds.hook_body_bytes_max);
    Routes::new(app).add(Method::GET, "/healthz", Public, get(async || "ok")).add(
        Method::POST,
        "/hooks/{service}",
        Proof,
        post(webhooks::receive_hook).layer(hook_limit),
    )
}

/// The server's router, with everything around the routes.
pub fn router(app: Arc<App>) -> Router {
    let limit = DefaultBodyLimit::max(app.config.bounds.request_body_bytes_max);
    routes(Arc::clone(&app))
        .router
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing under this address"))
        .layer(limit)
        .layer(from_fn_with_state(Arc::clone(&app), identify))
        .layer(fixed(
            "content-security-policy",
            "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'",
        ))
        .layer(fixed("x-content-type-options", "nosniff"))
        .layer(fixed("referrer-policy", "no-referrer"))
        .layer(fixed("cross-origin-opener-policy", "same-origin"))
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(super::request_id::number_request))
        .with_state(app)
}

fn fixed(name: &'static str, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(HeaderName::from_static(name), HeaderValue::from_static(value))
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "the server made a mistake; nothing was changed")
        .next("look for the request id in the server's log")
        .into_response()
}
