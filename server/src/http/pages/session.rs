//! Signing in and out, and the two cookies that a page is written by: language and theme.

use axum::{
    extract::Query,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use pipelines::protocol::Secret;
use serde::Deserialize;

use super::{
    Fields, Visit,
    errors::back_to,
    see, show,
    visit::{LANGUAGE_COOKIE, THEME_COOKIE, own_path},
};
use crate::{
    app::{App, AppError},
    http::{
        access::{Browser, cookie, cookie_name, session_cookie},
        problem::Problem,
        ui::{
            Theme,
            accounts::{SignInProblem, SignInView},
            links,
            text::Lang,
        },
    },
};

/// How long a chosen language or theme is remembered, in seconds.
const CHOICE_LIFE_S: u64 = 365 * 86_400;

/// What the sign-in page is asked with.
#[derive(Debug, Default, Deserialize)]
pub struct SignInQuery {
    to: Option<String>,
    ended: Option<String>,
}

/// The sign-in page.
pub(in crate::http) async fn show_sign_in(visit: Visit, Query(query): Query<SignInQuery>) -> Response {
    let next = query.to.as_deref().map_or("/", own_path).to_owned();
    if visit.caller.is_some() {
        return see(&next);
    }
    let problem = query.ended.map(|_| SignInProblem::SessionEnded);
    show!(visit, SignInView { next, name: String::new(), problem })
}

/// Signs in.
pub(in crate::http) async fn sign_in(
    visit: Visit,
    Browser(from): Browser,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Problem> {
    let (name, next) = (fields.trimmed("name"), own_path(fields.get("next")));
    let old = cookie(&headers, cookie_name(&visit.app));
    let problem = match visit.app.sign_in_from(&from, old, name, Secret::new(fields.get("password"))).await {
        Ok((key, _)) => {
            let mut response = see(next);
            set_session(&mut response, &visit.app, Some(&key));
            return Ok(response);
        }
        Err(AppError::WrongPassword) => SignInProblem::WrongNameOrPassword,
        Err(AppError::TooMany { retry_after_s, .. }) => {
            SignInProblem::TooManyTries { wait_ms: i64::from(retry_after_s) * 1_000 }
        }
        Err(error) => return Err(error.into()),
    };
    let status = match problem {
        SignInProblem::TooManyTries { .. } => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let name = name.chars().take(100).collect();
    let mut response = show!(visit, status, SignInView { next: next.to_owned(), name, problem: Some(problem) });
    if let SignInProblem::TooManyTries { wait_ms } = problem {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_ms / 1_000));
    }
    Ok(response)
}

/// Signs out.
pub(in crate::http) async fn sign_out(visit: Visit, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(key) = cookie(&headers, cookie_name(&visit.app)) {
        visit.app.sign_out(key, &visit.remote).await?;
    }
    let mut response = see(links::SIGN_IN);
    set_session(&mut response, &visit.app, None);
    Ok(response)
}

/// Chooses the language.
pub(in crate::http) async fn set_language(visit: Visit, fields: Fields) -> Response {
    let lang = Lang::from_tag(fields.get("lang")).unwrap_or(visit.ctx.lang);
    choose(LANGUAGE_COOKIE, lang.tag(), fields.get("back"))
}

/// Chooses the theme.
pub(in crate::http) async fn set_theme(_visit: Visit, fields: Fields) -> Response {
    choose(THEME_COOKIE, Theme::from_tag(fields.get("theme")).tag(), fields.get("back"))
}

fn choose(name: &str, value: &str, back: &str) -> Response {
    let mut response = back_to(back);
    set_cookie(&mut response, &format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={CHOICE_LIFE_S}"));
    response
}

/// Gives the browser its session's cookie; without a key takes it away.
pub(super) fn set_session(response: &mut Response, app: &App, key: Option<&str>) {
    set_cookie(response, &session_cookie(app, key));
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}
