//! What the handlers of pages have in common: who visits in which language and theme, the fields of a form, and how a
//! written page becomes an answer.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts},
    response::{Html, IntoResponse, Redirect, Response},
};
use jiff::tz::TimeZone;

use super::convert::{page_ms, page_role};
use crate::{
    app::{
        App, AppError, Role,
        accounts::Caller,
        board::{Group, ServiceRow},
        room,
    },
    http::{
        access::{self, Csrf, MaybeSigned},
        problem::Problem,
        remote::Remote,
        request_id::RequestId,
        ui::{
            NoRoom, PAGE_POLICY, PageContext, RenderError, Theme, UserBadge,
            text::{Clock, Lang},
        },
    },
};

/// The cookie of the chosen language.
pub(super) const LANGUAGE_COOKIE: &str = "windlass-language";
/// The cookie of the chosen theme.
pub(super) const THEME_COOKIE: &str = "windlass-theme";
/// Fields that a form may have.
const FIELDS_MAX: usize = 200;

/// Somebody visits a page.
pub(in crate::http) struct Visit {
    /// The application.
    pub(super) app: Arc<App>,
    /// Who is signed in.
    pub(super) caller: Option<Caller>,
    /// The board as the visit found it, if the store could be read: every page says how much of it waits for the visitor.
    pub(super) board: Option<Vec<ServiceRow>>,
    /// What every page shows.
    pub(super) ctx: PageContext,
    /// Only the content of `<main>` is wanted.
    pub(super) fragment: bool,
    /// The id of the request.
    pub(super) request_id: String,
    /// The address that the request comes from.
    pub(super) remote: String,
}

impl FromRequestParts<Arc<App>> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        let MaybeSigned(caller) = MaybeSigned::from_request_parts(parts, app).await?;
        let Csrf(csrf) = Csrf::from_request_parts(parts, app).await?;
        let (path, fragment) = without_fragment(&parts.uri);
        // A page is shown also while the store cannot be read; what it is about says so.
        let board = caller.as_ref().and_then(|_| app.board().ok());
        let waits = |row: &&ServiceRow| row.group(caller.as_ref()) == Group::NeedsYou;
        let needs_you = board.as_ref().map_or(0, |rows| rows.iter().filter(waits).count() as u64);
        let ctx = PageContext {
            lang: language(&parts.headers),
            theme: access::cookie(&parts.headers, THEME_COOKIE).map(Theme::from_tag).unwrap_or_default(),
            clock: Clock { now_ms: page_ms(app.now()), zone: TimeZone::system() },
            user: caller
                .as_ref()
                .map(|caller| UserBadge { name: caller.account.name.clone(), roles: vec![page_role(caller.role)] }),
            csrf,
            needs_you,
            path,
            base_url: app.config.public_url.clone(),
            shows_secrets: caller.as_ref().is_some_and(|caller| caller.may(Role::Operator)),
            shows_accounts: caller.as_ref().is_some_and(|caller| caller.may(Role::Admin)),
            shows_audit: caller.as_ref().is_some_and(|caller| caller.may(Role::ReleaseManager)),
            shows_mailbox: app.config.mail.folder.is_some()
                && caller.as_ref().is_some_and(|caller| caller.may(Role::Operator)),
            // Who comes by a mailed link or from nowhere learns nothing of the machine.
            no_room: caller.as_ref().and_then(|_| app.no_room()).map(|no| match no {
                room::NoRoom::Low { free_bytes, min_bytes } => {
                    NoRoom::Low { free_mib: free_bytes >> 20, min_mib: min_bytes >> 20 }
                }
                room::NoRoom::ReadOnly => NoRoom::ReadOnly,
                room::NoRoom::Refused => NoRoom::Refused,
            }),
        };
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        let Ok(Remote(remote)) = Remote::from_request_parts(parts, app).await;
        Ok(Self { app: Arc::clone(app), caller, board, ctx, fragment, request_id, remote })
    }
}

impl Visit {
    /// Who is signed in; the route has asked for it.
    pub(super) fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or_else(Problem::not_signed_in)
    }

    /// The board, read again only where the visit could not read it.
    pub(super) fn take_board(&mut self) -> Result<Vec<ServiceRow>, AppError> {
        self.board.take().map_or_else(|| self.app.board(), Ok)
    }

    /// Whether the visitor may do what `role` may.
    pub(super) fn may(&self, role: Role) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.may(role))
    }
}

/// The language that a browser asks for: the chosen one, else the best that it accepts.
pub(super) fn language(headers: &HeaderMap) -> Lang {
    let chosen = access::cookie(headers, LANGUAGE_COOKIE).and_then(Lang::from_tag);
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    chosen.unwrap_or_else(|| accepted.map(Lang::from_accept_language).unwrap_or_default())
}

/// The path and query of a page without what asks for its fragment, and whether it is asked for.
fn without_fragment(uri: &Uri) -> (String, bool) {
    let query = uri.query().unwrap_or_default();
    let (asks, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("fragment="));
    let rest = rest.join("&");
    let path = if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{rest}", uri.path()) };
    (path, asks.contains(&"fragment=main"))
}

/// A written page as an answer.
pub(super) fn page_of(status: StatusCode, written: Result<String, RenderError>) -> Response {
    match written {
        Ok(html) => {
            let mut response = (status, Html(html)).into_response();
            let policy = HeaderValue::from_static(PAGE_POLICY);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            // Without a referrer a browser hides the origin of forms, and over plain HTTP nothing else says it.
            let referrer = HeaderValue::from_static("same-origin");
            response.headers_mut().insert(header::REFERRER_POLICY, referrer);
            response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Language, Cookie"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "the page could not be written").into_response()
        }
    }
}

/// Writes a view for a visit, whole or its fragment: `show!(visit, view)`, `show!(visit, status, view)`.
macro_rules! show {
    ($visit:expr, $view:expr) => {
        show!($visit, axum::http::StatusCode::OK, $view)
    };
    ($visit:expr, $status:expr, $view:expr) => {{
        let view = $view;
        let written = if $visit.fragment { view.fragment(&$visit.ctx) } else { view.render(&$visit.ctx) };
        $crate::http::pages::page_of($status, written)
    }};
}
pub(super) use show;

/// After a form: look there.
pub(super) fn see(path: &str) -> Response {
    Redirect::to(path).into_response()
}

/// A path of this server that somebody sent along; the board where it leads elsewhere.
pub(super) fn own_path(path: &str) -> &str {
    let is_own = path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
        && path.is_ascii()
        && path.len() <= 2_000;
    if is_own { path } else { "/" }
}

/// The fields of a form, in their order.
pub(in crate::http) struct Fields(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            Problem::new(rejection.status(), "too-large", "the form is larger than the server takes, or broke off")
        })?;
        Ok(Self(url::form_urlencoded::parse(&bytes).into_owned().take(FIELDS_MAX).collect()))
    }
}

impl Fields {
    /// A field; empty where it is missing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// A field without the space around it.
    pub(super) fn trimmed(&self, name: &str) -> &str {
        self.get(name).trim()
    }

    /// All fields of a name: boxes that are ticked.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_of_this_server_is_gone_back_to() {
        for own in ["/", "/services/a?x=1", "/approve/a/1/t"] {
            assert_eq!(own_path(own), own);
        }
        for elsewhere in ["", "https://example.com", "//example.com", "/\\example.com", "/a\r\nSet-Cookie: x", "/é"] {
            assert_eq!(own_path(elsewhere), "/", "{elsewhere:?}");
        }
    }

    #[test]
    fn a_page_knows_its_path_without_the_fragment() {
        let of = |text: &str| without_fragment(&text.parse().unwrap());
        assert_eq!(of("/a?from=3&fragment=main"), ("/a?from=3".into(), true));
        assert_eq!(of("/a?fragment=other"), ("/a".into(), false));
        assert_eq!(of("/a"), ("/a".into(), false));
    }
}
