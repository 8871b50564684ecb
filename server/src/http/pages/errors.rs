//! Problems as pages: what a program gets as problem+json, a browser gets in its language.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::{Visit, page_of, see, visit::own_path};
use crate::{
    app::App,
    http::{
        problem::Problem,
        ui::error::{ErrorKind, ErrorView},
    },
};

/// Writes a problem as a page where a browser asked. Programs and scripts that name JSON get what they name.
pub async fn write_problems(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_for_programs = ["/api/", "/hooks/"].iter().any(|start| path.starts_with(start));
    if is_for_programs || !wants_page(request.headers()) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let mut asked = parts.clone();
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let Ok(visit) = Visit::from_request_parts(&mut asked, &app).await;
    if problem.status() == StatusCode::UNAUTHORIZED && asked.method != Method::GET {
        // The session ended while the form was open.
        return see("/sign-in?ended=1");
    }
    write_problem(&visit, &problem, response)
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.into_iter().any(|value| value.contains("text/html"))
}

fn write_problem(visit: &Visit, problem: &Problem, answered: Response) -> Response {
    let view = ErrorView {
        kind: kind(problem),
        status: problem.status,
        detail: Some(match &problem.next {
            Some(next) => format!("{}\n→ {next}", problem.detail),
            None => problem.detail.clone(),
        }),
        request_id: visit.request_id.clone(),
    };
    let mut response = page_of(problem.status(), view.render(&visit.ctx));
    if let Some(after) = answered.headers().get(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, after.clone());
    }
    response
}

fn kind(problem: &Problem) -> ErrorKind {
    match (problem.status, problem.r#type.as_str()) {
        (_, "bad-form" | "other-site") => ErrorKind::StaleForm,
        (404, _) => ErrorKind::NotFound,
        (401 | 403, _) => ErrorKind::Forbidden,
        (409 | 410 | 423, _) => ErrorKind::Conflict,
        (413, _) => ErrorKind::TooLarge,
        (429, _) => ErrorKind::TooManyRequests,
        (503, _) => ErrorKind::Unavailable,
        (400..=499, _) => ErrorKind::BadRequest,
        _ => ErrorKind::Internal,
    }
}

/// The page of a path that a form was sent from.
pub(super) fn back_to(path: &str) -> Response {
    see(own_path(path))
}
