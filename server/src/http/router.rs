//! All routes, with what each asks of its caller. A route cannot be added without saying so.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};
use tracing::Instrument;
use utoipa_axum::{router::UtoipaMethodRouter, routes as docs};

use super::{
    access::{Access, admit, identify, is_https},
    agents,
    api::{
        accounts, audit, backup, board, load, login, logs, releases, rollouts, runners, runs, secrets, server,
        services, support,
    },
    events, metrics, openapi, pages,
    problem::Problem,
    remote::locate,
    ui::assets,
    webhooks,
};
use crate::app::{App, Role};

// The words of the table below.
const GET: Method = Method::GET;
const POST: Method = Method::POST;
/// Everybody with an account.
const ALL: Access = Access::Role(Role::Developer);
const MANAGER: Access = Access::Role(Role::ReleaseManager);
const OPERATOR: Access = Access::Role(Role::Operator);
const ADMIN: Access = Access::Role(Role::Admin);

/// What an answer may do in a browser that says nothing of its own: nothing.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// For how long a browser that came over HTTPS comes no other way: a year.
const TRANSPORT: &str = "max-age=31536000";

/// A handler with its description.
pub type Documented = UtoipaMethodRouter<Arc<App>>;

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
    /// The description of those that belong to the API.
    pub description: utoipa::openapi::OpenApi,
}

impl Routes {
    /// No routes yet.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { app, router: Router::new(), table: Vec::new(), description: openapi::base() }
    }

    /// Adds one method of one path.
    #[must_use]
    pub fn add(self, method: Method, path: &str, access: Access, handler: MethodRouter<Arc<App>>) -> Self {
        let limit = Duration::from_millis(self.app.config.bounds.request_timeout_ms);
        let whole = self.guarded(access, handler).layer(from_fn_with_state(limit, finish));
        self.route(method, path, access, whole)
    }

    /// Adds one method of one path whose answer may go on for ever.
    #[must_use]
    pub fn stream(self, method: Method, path: &str, access: Access, handler: MethodRouter<Arc<App>>) -> Self {
        // A stream says of itself that it may be kept and asked about again.
        let no_store = SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let guarded = self.guarded(access, handler).layer(no_store);
        self.route(method, path, access, guarded)
    }

    /// Adds one that says what it asks and asks nothing: what the test of the table has to find.
    #[cfg(test)]
    pub(super) fn unguarded(self, method: Method, path: &str, access: Access, handler: MethodRouter<Arc<App>>) -> Self {
        self.route(method, path, access, handler)
    }

    fn guarded(&self, access: Access, handler: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
        handler.layer(from_fn_with_state((Arc::clone(&self.app), access), admit))
    }

    fn route(mut self, method: Method, path: &str, access: Access, handler: MethodRouter<Arc<App>>) -> Self {
        self.router = self.router.route(path, handler);
        self.table.push(Endpoint { path: path.to_owned(), method: method.to_string(), access });
        self
    }

    /// Adds one method of one path of the API, with its description. Method and path stand here to be seen; a test
    /// compares them with what the handler's description says.
    #[must_use]
    pub fn api(self, method: Method, path: &str, access: Access, documented: Documented) -> Self {
        let (routes, handler) = self.describe(access, documented);
        routes.add(method, path, access, handler)
    }

    /// As [`Routes::api`], for an answer that may go on for ever.
    #[must_use]
    pub fn api_stream(self, method: Method, path: &str, access: Access, documented: Documented) -> Self {
        let (routes, handler) = self.describe(access, documented);
        routes.stream(method, path, access, handler)
    }

    fn describe(mut self, access: Access, (schemas, mut paths, handler): Documented) -> (Self, MethodRouter<Arc<App>>) {
        for item in paths.paths.values_mut() {
            for (_, operation) in openapi::operations(item) {
                openapi::complete(operation, access);
            }
        }
        for (path, item) in paths.paths {
            match self.description.paths.paths.get_mut(&path) {
                Some(known) => known.merge_operations(item),
                None => drop(self.description.paths.paths.insert(path, item)),
            }
        }
        self.description.components.get_or_insert_default().schemas.extend(schemas);
        (self, handler)
    }
}

/// Lets a change go to its end when its caller goes away: half of it may be stored already. Whoever waits too long is told.
async fn finish(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let work = next.run(request);
    let answer = if reads {
        tokio::time::timeout(limit, work).await.ok()
    } else {
        let task = tokio::spawn(work.in_current_span());
        match tokio::time::timeout(limit, task).await {
            Ok(Ok(response)) => Some(response),
            Ok(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
            Err(_) => None,
        }
    };
    answer.unwrap_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-slow", "the server took too long; it may still be done")
            .next("look whether it was done before you try again")
            .into_response()
    })
}

/// Every route of the server.
#[must_use]
pub fn routes(app: Arc<App>) -> Routes {
    let routes = agent_routes(delivery_pages(public_routes(Routes::new(app))));
    let routes = people_pages(routes);
    let routes = delivery_api(routes);
    let routes = runner_api(people_api(routes));
    let text = openapi::text(&routes.description);
    routes.add(GET, openapi::PATH, Access::Public, get(async move || openapi::served(text)))
}

/// What needs no account: health, hooks, the link of a mail, signing in, and what pages are made of.
fn public_routes(routes: Routes) -> Routes {
    use Access::{Proof, Public};
    routes
        .add(GET, "/healthz", Public, get(async || "ok"))
        .add(GET, "/readyz", Public, get(server::show_readiness))
        .add(GET, "/schema/windlass.json", Public, get(server::show_schema))
        .add(POST, "/hooks/{service}", Proof, post(webhooks::receive_hook))
        .add(GET, "/assets/{version}/{name}", Public, get(assets::show_asset))
        .add(GET, "/sign-in", Public, get(pages::session::show_sign_in))
        .add(POST, "/sign-in", Public, post(pages::session::sign_in))
        .add(POST, "/settings/language", Public, post(pages::session::set_language))
        .add(POST, "/settings/theme", Public, post(pages::session::set_theme))
        .add(GET, "/approve/{service}/{number}/{token}", Proof, get(pages::approvals::show_by_link))
        .add(POST, "/approve/{service}/{number}/{token}/{verb}", Proof, post(pages::approvals::act_by_link))
}

/// What runners on machines of their own call.
fn agent_routes(routes: Routes) -> Routes {
    use Access::{Proof, Runner};
    let limit = DefaultBodyLimit::max(routes.app.config.bounds.runner_message_bytes_max);
    routes
        .add(POST, "/agents/v1/register", Proof, post(agents::register).layer(limit))
        .add(POST, "/agents/v1/rotate", Runner, post(agents::rotate).layer(limit))
        .add(POST, "/agents/v1/call", Runner, post(agents::call).layer(limit))
        // Waits longer than a request may take, and ends when the runner hangs up.
        .stream(POST, "/agents/v1/lease", Runner, post(agents::lease).layer(limit))
}

/// The pages of services, runs, releases and rollouts.
#[rustfmt::skip]
fn delivery_pages(routes: Routes) -> Routes {
    routes
        .add(GET, metrics::PATH, ALL, get(metrics::show_metrics))
        .add(GET, "/", ALL, get(pages::board::show_board))
        .add(GET, "/needs-you", ALL, get(pages::board::show_needs_you))
        .add(GET, "/search", ALL, get(pages::search::show_search))
        .add(GET, "/services", ALL, get(pages::services::show_services))
        .add(POST, "/services", OPERATOR, post(pages::services::create_service))
        .add(GET, "/services/new", OPERATOR, get(pages::services::show_service_form))
        .add(GET, "/services/{service}", ALL, get(pages::services::show_service))
        .add(GET, "/services/{service}/edit", OPERATOR, get(pages::services::show_service_edit))
        .add(POST, "/services/{service}/edit", OPERATOR, post(pages::services::update_service))
        .add(GET, "/services/{service}/secrets", ALL, get(pages::secrets::show_secrets))
        .add(POST, "/services/{service}/secrets", OPERATOR, post(pages::secrets::set_secret))
        .add(POST, "/services/{service}/secrets/{secret}/remove", OPERATOR, post(pages::secrets::remove_secret))
        .add(GET, "/secrets", OPERATOR, get(pages::secrets::show_shared_secrets))
        .add(POST, "/secrets", OPERATOR, post(pages::secrets::set_shared_secret))
        .add(POST, "/secrets/{secret}/remove", OPERATOR, post(pages::secrets::remove_shared_secret))
        .add(POST, "/services/{service}/runs", ALL, post(pages::services::start_run))
        .add(POST, "/services/{service}/rollback", MANAGER, post(pages::services::rollback_service))
        .add(GET, "/services/{service}/runs/{number}", ALL, get(pages::runs::show_run))
        .add(GET, "/services/{service}/runs/{number}/log", ALL, get(pages::runs::show_log))
        .stream(GET, "/services/{service}/runs/{number}/events", ALL, get(pages::runs::stream_run).layer(Extension(Arc::<pages::runs::Follows>::default())))
        .add(POST, "/services/{service}/runs/{number}/rerun", ALL, post(pages::runs::rerun_run))
        .add(POST, "/services/{service}/runs/{number}/cancel", ALL, post(pages::runs::cancel_run))
        .add(POST, "/services/{service}/runs/{number}/allow", MANAGER, post(pages::runs::allow_run))
        .add(POST, "/services/{service}/runs/{number}/decline", MANAGER, post(pages::runs::decline_run))
        .add(GET, "/services/{service}/approvals/{number}", ALL, get(pages::approvals::show_approval))
        .add(POST, "/services/{service}/approvals/{number}/{verb}", ALL, post(pages::approvals::act_on_approval))
        .add(GET, "/services/{service}/rollouts/{number}", ALL, get(pages::rollouts::show_rollout))
        .add(POST, "/services/{service}/rollouts/{number}", MANAGER, post(pages::rollouts::steer_rollout))
}

/// The pages about people, and the mails of a server that sends none.
#[rustfmt::skip]
fn people_pages(routes: Routes) -> Routes {
    routes
        .add(GET, "/load", ALL, get(pages::load::show_load))
        .add(GET, "/runners", ALL, get(pages::runners::show_runners))
        .add(POST, "/runners/tokens", OPERATOR, post(pages::runners::create_runner_token))
        .add(POST, "/runners/{runner}/{verb}", OPERATOR, post(pages::runners::steer_runner))
        .add(POST, "/sign-out", ALL, post(pages::session::sign_out))
        .add(GET, "/me", ALL, get(pages::accounts::show_me))
        .add(POST, "/me/tokens", ALL, post(pages::accounts::create_token))
        .add(POST, "/me/tokens/{id}/revoke", ALL, post(pages::accounts::revoke_token))
        .add(POST, "/me/password", ALL, post(pages::accounts::change_password))
        .add(POST, "/me/sessions/end-others", ALL, post(pages::accounts::end_other_sessions))
        .add(POST, "/me/sessions/{id}/end", ALL, post(pages::accounts::end_session))
        .add(GET, "/audit", MANAGER, get(pages::audit::show_audit))
        .add(GET, "/accounts", ADMIN, get(pages::accounts::show_accounts))
        .add(POST, "/accounts", ADMIN, post(pages::accounts::create_account))
        .add(POST, "/accounts/{account}", ADMIN, post(pages::accounts::change_account))
        // A mail holds a tester's code: it is for those who may read the server's folders anyway.
        .add(GET, "/mailbox", OPERATOR, get(pages::mailbox::show_mailbox))
        .add(GET, "/mailbox/{id}", OPERATOR, get(pages::mailbox::show_mail))
        .add(GET, "/mailbox/{id}/html", OPERATOR, get(pages::mailbox::show_mail_html))
}

/// Services, runs, releases and rollouts, and what changes of them.
#[rustfmt::skip]
fn delivery_api(routes: Routes) -> Routes {
    routes
        .api(GET, "/api/v1/board", ALL, docs!(board::show_board))
        .api(GET, "/api/v1/services", ALL, docs!(services::list_services))
        .api(POST, "/api/v1/services", OPERATOR, docs!(services::create_service))
        .api(GET, "/api/v1/services/{service}", ALL, docs!(services::show_service))
        .api(Method::PATCH, "/api/v1/services/{service}", OPERATOR, docs!(services::change_service))
        .api(GET, "/api/v1/services/{service}/status", ALL, docs!(board::show_status))
        .api(POST, "/api/v1/services/{service}/poll", ALL, docs!(services::poll_service))
        .api(GET, "/api/v1/services/{service}/deliveries", ALL, docs!(services::list_deliveries))
        .api(GET, "/api/v1/services/{service}/secrets", ALL, docs!(secrets::list_secrets))
        .api(Method::PUT, "/api/v1/services/{service}/secrets/{secret}", OPERATOR, docs!(secrets::set_secret))
        .api(Method::DELETE, "/api/v1/services/{service}/secrets/{secret}", OPERATOR, docs!(secrets::remove_secret))
        .api(GET, "/api/v1/secrets", OPERATOR, docs!(secrets::list_shared_secrets))
        .api(Method::PUT, "/api/v1/secrets/{secret}", OPERATOR, docs!(secrets::set_shared_secret))
        .api(Method::DELETE, "/api/v1/secrets/{secret}", OPERATOR, docs!(secrets::remove_shared_secret))
        .api(POST, "/api/v1/lint", ALL, docs!(services::lint_pipeline))
        .api(GET, "/api/v1/services/{service}/runs", ALL, docs!(runs::list_runs))
        .api(POST, "/api/v1/services/{service}/runs", ALL, docs!(runs::start_run))
        .api(GET, "/api/v1/services/{service}/runs/{number}", ALL, docs!(runs::show_run))
        .api(POST, "/api/v1/services/{service}/runs/{number}/cancel", ALL, docs!(runs::cancel_run))
        .api(POST, "/api/v1/services/{service}/runs/{number}/rerun", ALL, docs!(runs::rerun_run))
        .api(POST, "/api/v1/services/{service}/runs/{number}/allow", MANAGER, docs!(runs::allow_run))
        .api(POST, "/api/v1/services/{service}/runs/{number}/decline", MANAGER, docs!(runs::decline_run))
        .api(GET, "/api/v1/services/{service}/runs/{number}/log/search", ALL, docs!(logs::search_log))
        .api(GET, "/api/v1/services/{service}/runs/{number}/steps/{step}/log", ALL, docs!(logs::show_log))
        .api_stream(GET, "/api/v1/services/{service}/runs/{number}/steps/{step}/log/stream", ALL, docs!(logs::stream_log))
        .api_stream(GET, "/api/v1/events", ALL, docs!(events::stream_events))
        .stream(GET, "/events", ALL, get(events::stream_topics))
        .api(GET, "/api/v1/services/{service}/releases", ALL, docs!(releases::list_releases))
        .api(GET, "/api/v1/services/{service}/releases/{number}", ALL, docs!(releases::show_release))
        .api(POST, "/api/v1/services/{service}/releases/{number}/approve", ALL, docs!(releases::approve_release))
        .api(POST, "/api/v1/services/{service}/releases/{number}/reject", ALL, docs!(releases::reject_release))
        .api(POST, "/api/v1/services/{service}/releases/{number}/claim", ALL, docs!(releases::claim_release))
        .api(POST, "/api/v1/services/{service}/releases/{number}/unclaim", ALL, docs!(releases::unclaim_release))
        .api(POST, "/api/v1/services/{service}/releases/{number}/ask-again", ALL, docs!(releases::ask_release_again))
        .api(POST, "/api/v1/services/{service}/releases/{number}/rollback", MANAGER, docs!(releases::roll_back_to_release))
        .api(GET, "/api/v1/services/{service}/rollouts", ALL, docs!(rollouts::list_rollouts))
        .api(GET, "/api/v1/services/{service}/rollouts/{number}", ALL, docs!(rollouts::show_rollout))
        .api(POST, "/api/v1/services/{service}/rollouts/{number}/act", MANAGER, docs!(rollouts::steer_rollout))
}

/// Runners and what waits for them.
#[rustfmt::skip]
fn runner_api(routes: Routes) -> Routes {
    routes
        .api(GET, "/api/v1/runners", ALL, docs!(runners::list_runners))
        .api(GET, "/api/v1/waiting-runs", ALL, docs!(runners::list_waiting_runs))
        .api(POST, "/api/v1/runners/{runner}/drain", OPERATOR, docs!(runners::drain_runner))
        .api(POST, "/api/v1/runners/{runner}/resume", OPERATOR, docs!(runners::resume_runner))
        .api(Method::DELETE, "/api/v1/runners/{runner}", OPERATOR, docs!(runners::remove_runner))
        .api(GET, "/api/v1/runner-tokens", OPERATOR, docs!(runners::list_runner_tokens))
        .api(POST, "/api/v1/runner-tokens", OPERATOR, docs!(runners::create_runner_token))
        .api(Method::DELETE, "/api/v1/runner-tokens/{id}", OPERATOR, docs!(runners::delete_runner_token))
}

/// Sign-in, accounts, tokens, the audit log and the server itself.
#[rustfmt::skip]
fn people_api(routes: Routes) -> Routes {
    routes
        .api(POST, "/api/v1/login", Access::Public, docs!(login::login))
        .api(GET, "/api/v1/whoami", ALL, docs!(login::show_caller))
        .api(GET, "/api/v1/accounts", ADMIN, docs!(accounts::list_accounts))
        .api(POST, "/api/v1/accounts", ADMIN, docs!(accounts::create_account))
        .api(Method::PATCH, "/api/v1/accounts/{account}", ADMIN, docs!(accounts::change_account))
        .api(GET, "/api/v1/tokens", ALL, docs!(accounts::list_tokens))
        .api(POST, "/api/v1/tokens", ALL, docs!(accounts::create_token))
        .api(Method::DELETE, "/api/v1/tokens/{id}", ALL, docs!(accounts::delete_token))
        .api(GET, "/api/v1/sessions", ALL, docs!(accounts::list_sessions))
        .api(Method::DELETE, "/api/v1/sessions/{id}", ALL, docs!(accounts::end_session))
        .api(GET, "/api/v1/audit", MANAGER, docs!(audit::list_audit))
        .api(GET, "/api/v1/audit/head", MANAGER, docs!(audit::show_audit_head))
        .api_stream(GET, "/api/v1/audit/export", MANAGER, docs!(audit::export_audit))
        .api(GET, "/api/v1/server", ALL, docs!(server::show_server))
        .api(GET, "/api/v1/health", ALL, docs!(server::show_health))
        .api(GET, "/api/v1/load", ALL, docs!(load::list_queues))
        .api(GET, "/api/v1/queue", ALL, docs!(server::list_queue))
        .api(POST, "/api/v1/support-bundle", OPERATOR, docs!(support::make_support_bundle))
        .api_stream(Method::POST, "/api/v1/backup", Access::Role(Role::Operator), docs!(backup::make_backup))
}

/// The server's router, with everything around the routes.
pub fn router(app: Arc<App>) -> Router {
    let routes = routes(Arc::clone(&app));
    surrounded(app, routes)
}

/// Routes with everything around them.
pub(super) fn surrounded(app: Arc<App>, routes: Routes) -> Router {
    let limit = DefaultBodyLimit::max(app.config.bounds.request_body_bytes_max);
    let router = routes
        .router
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing under this address"))
        .method_not_allowed_fallback(async || {
            let detail = "there is something under this address, but not for this method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "bad-method", detail)
        })
        .layer(limit)
        .layer(from_fn_with_state(Arc::clone(&app), pages::errors::write_problems))
        .layer(from_fn_with_state(Arc::clone(&app), identify))
        .layer(from_fn_with_state(Arc::clone(&app), locate))
        .layer(fixed("content-security-policy", POLICY))
        .layer(fixed("x-content-type-options", "nosniff"))
        .layer(fixed("referrer-policy", "no-referrer"))
        .layer(fixed("cross-origin-opener-policy", "same-origin"))
        .layer(fixed("cross-origin-resource-policy", "same-origin"))
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    let router = if is_https(&app) { router.layer(fixed("strict-transport-security", TRANSPORT)) } else { router };
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(&app), super::request_id::number_request))
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
