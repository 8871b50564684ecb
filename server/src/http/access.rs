//! Who may call what: the session cookie, the bearer token, the role that a route asks for, and the defence of forms
//! against other sites. Not here: accounts and passwords (`app::accounts`).

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pipelines::protocol::CREDENTIAL_PREFIX;
use subtle::ConstantTimeEq;

use super::{
    agents::{OfRunner, unknown_runner},
    metrics::PATH as METRICS,
    problem::Problem,
    remote::Remote,
};
use crate::app::{App, Role, accounts::Caller, sessions::SeenFrom, throttle::WrongProof};

/// Name of the form field and of the header that prove that a form comes from our page.
pub const CSRF_FIELD: &str = "_csrf";
/// The header for scripts.
pub const CSRF_HEADER: &str = "x-csrf-token";

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Anybody: health, sign-in, assets, the schema.
    Public,
    /// Anybody who proves it by the request itself: a hook by its signature, a tester by their link and code.
    Proof,
    /// A runner, by its credential; no person, whatever their role.
    Runner,
    /// Somebody signed in whose role reaches this one.
    Role(Role),
}

impl Access {
    /// The word for it in the table of endpoints.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Proof => "proof",
            Self::Runner => "runner",
            Self::Role(role) => role.word(),
        }
    }
}

/// The key of the caller's session; none where a token was used.
#[derive(Clone, Debug)]
struct SessionKey(String);

/// The caller of a route that asks for a role.
#[derive(Clone, Debug)]
pub struct Signed(pub Caller);

impl<S: Sync> FromRequestParts<S> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Caller>().cloned().map(Signed).ok_or_else(Problem::not_signed_in)
    }
}

/// The caller, if there is one: for pages that everybody sees and that greet whoever is signed in.
#[derive(Clone, Debug)]
pub struct MaybeSigned(pub Option<Caller>);

impl<S: Sync> FromRequestParts<S> for MaybeSigned {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Caller>().cloned()))
    }
}

/// The key of the session that asks; none for a stranger and for who comes with a token.
#[derive(Clone, Debug)]
pub struct ThisSession(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for ThisSession {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<SessionKey>().map(|key| key.0.clone())))
    }
}

/// From where a browser signs in.
#[derive(Clone, Debug)]
pub struct Browser(pub SeenFrom);

impl<S: Sync> FromRequestParts<S> for Browser {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Ok(Remote(remote)) = Remote::from_request_parts(parts, state).await;
        let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Self(SeenFrom { remote, agent: agent.to_owned() }))
    }
}

/// The token that the forms of the caller's pages carry; empty without a session.
#[derive(Clone, Debug)]
pub struct Csrf(pub String);

impl FromRequestParts<Arc<App>> for Csrf {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let key = parts.extensions.get::<SessionKey>();
        Ok(Self(key.map(|key| csrf_of(app, &key.0)).unwrap_or_default()))
    }
}

/// The form token that belongs to a secret of the reader: their session's key, or their link.
#[must_use]
pub fn csrf_of(app: &App, secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(app.keys().mac("csrf", &[secret.as_bytes()]))
}

/// Whether `given` is that token, in constant time.
#[must_use]
pub fn is_csrf(app: &App, secret: &str, given: &str) -> bool {
    csrf_of(app, secret).as_bytes().ct_eq(given.as_bytes()).into()
}

/// The name of the session's cookie. Over HTTPS its prefix has browsers refuse it from anywhere else.
#[must_use]
pub fn cookie_name(app: &App) -> &'static str {
    if is_https(app) { "__Host-windlass" } else { "windlass" }
}

/// Whether people reach the server over HTTPS.
pub(super) fn is_https(app: &App) -> bool {
    app.config.public_url.starts_with("https://")
}

/// The header that sets the session's cookie; without a key it takes it away.
#[must_use]
pub fn session_cookie(app: &App, key: Option<&str>) -> String {
    let secure = if is_https(app) { "; Secure" } else { "" };
    let life_s = key.map_or(0, |_| app.config.bounds.session_life_ms / 1_000);
    let value = key.unwrap_or_default();
    format!("{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={life_s}{secure}", cookie_name(app))
}

/// A cookie of a request.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().split_once('=').filter(|(found, _)| *found == name).map(|(_, value)| value))
}

/// Finds out who calls; lets everybody through. Runs before every route.
pub async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned);
    let session = cookie(request.headers(), cookie_name(&app)).map(str::to_owned);
    if let Some(credential) = bearer.as_deref().filter(|token| token.starts_with(CREDENTIAL_PREFIX)) {
        let remote = request.extensions().get::<Remote>().map(|remote| remote.0.clone()).unwrap_or_default();
        match app.runner_of_credential(credential, &remote) {
            Ok(Some((runner, origin))) => drop(request.extensions_mut().insert(OfRunner(runner, origin))),
            Ok(None) => return unknown_runner().into_response(),
            Err(error) => return Problem::from(error).into_response(),
        }
        return next.run(request).await;
    }
    let found = match (&bearer, &session) {
        (Some(token), _) => app.caller_of_token(token),
        (None, Some(key)) => app.caller_of_session(key),
        (None, None) => Ok(None),
    };
    match found {
        Ok(Some(mut caller)) => {
            caller.remote = request.extensions().get::<Remote>().map(|remote| remote.0.clone()).unwrap_or_default();
            request.extensions_mut().insert(caller);
            if let (None, Some(key)) = (bearer, session) {
                request.extensions_mut().insert(SessionKey(key));
            }
        }
        Ok(None) if bearer.is_some() => {
            let remote = request.extensions().get::<Remote>().map(|remote| remote.0.as_str()).unwrap_or_default();
            if let Err(error) = app.wrong_proof(WrongProof::Token, remote) {
                return Problem::from(error).into_response();
            }
            let problem =
                Problem::new(StatusCode::UNAUTHORIZED, "bad-token", "the bearer token is not good (any more)");
            return problem.next("windlass login").into_response();
        }
        Ok(None) => {}
        Err(error) => return Problem::from(error).into_response(),
    }
    next.run(request).await
}

/// Lets a request through if its caller may; changes by a cookie only with the form's token.
pub async fn admit(State((app, access)): State<(Arc<App>, Access)>, request: Request, next: Next) -> Response {
    match check(&app, access, request).await {
        Ok(request) => next.run(request).await,
        Err(response) => *response,
    }
}

async fn check(app: &App, access: Access, request: Request) -> Result<Request, Box<Response>> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let refuse = |problem: Problem| Box::new(problem.into_response());
    let by_cookie = request.extensions().get::<SessionKey>().cloned();
    if changes && access != Access::Proof && request.extensions().get::<Caller>().is_none_or(|_| by_cookie.is_some()) {
        check_site(app, request.headers()).map_err(refuse)?;
    }
    if access == Access::Runner {
        let is_runner = request.extensions().get::<OfRunner>().is_some();
        return if is_runner { Ok(request) } else { Err(refuse(unknown_runner())) };
    }
    let Access::Role(role) = access else { return Ok(request) };
    let Some(caller) = request.extensions().get::<Caller>() else {
        let path = request.uri().path();
        let is_for_programs = path.starts_with("/api/") || path == METRICS;
        let wants_page = request.method() == Method::GET && !is_for_programs;
        return Err(Box::new(if wants_page {
            let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let back: String = url::form_urlencoded::byte_serialize(back.as_bytes()).collect();
            Redirect::to(&format!("/sign-in?to={back}")).into_response()
        } else {
            Problem::not_signed_in().into_response()
        }));
    };
    if !caller.may(role) {
        let detail = format!("this needs the role {}; yours is {}", role.word(), caller.role.word());
        return Err(refuse(Problem::forbidden(detail)));
    }
    if changes && caller.read_only {
        return Err(refuse(Problem::forbidden("this token only reads")));
    }
    match by_cookie {
        Some(key) if changes => check_form(app, &key.0, request).await.map_err(refuse),
        _ => Ok(request),
    }
}

/// A browser says from which site a request comes; another one is refused.
fn check_site(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let other = || Problem::new(StatusCode::FORBIDDEN, "other-site", "the request comes from another site's page");
    if headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return Err(other());
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    // A page that gives no referrer gives no origin either; then the browser's own word counts.
    if origin == "null" && headers.contains_key("sec-fetch-site") {
        return Ok(());
    }
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let own = url::Url::parse(&app.config.public_url).map(|url| url.origin().ascii_serialization());
    if own.is_ok_and(|own| own == origin) || text(header::HOST) == Some(host) { Ok(()) } else { Err(other()) }
}

/// Reads the form's token out of the body (or the header) and gives the request back whole.
async fn check_form(app: &App, key: &str, request: Request) -> Result<Request, Problem> {
    let wrong = || {
        Problem::new(StatusCode::FORBIDDEN, "bad-form", "the form is from another session")
            .next("load the page again and send the form once more")
    };
    if let Some(given) = request.headers().get(CSRF_HEADER).and_then(|value| value.to_str().ok()) {
        return if is_csrf(app, key, given) { Ok(request) } else { Err(wrong()) };
    }
    let (parts, body) = request.into_parts();
    let bytes: Bytes = to_bytes(body, app.config.bounds.request_body_bytes_max).await.map_err(|_| {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the form is larger than the server takes")
    })?;
    let given = url::form_urlencoded::parse(&bytes).find(|(name, _)| name == CSRF_FIELD);
    if !given.is_some_and(|(_, given)| is_csrf(app, key, &given)) {
        return Err(wrong());
    }
    Ok(Request::from_parts(parts, Body::from(bytes)))
}
