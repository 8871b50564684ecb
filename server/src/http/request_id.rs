//! Numbers requests: the id is in every log line of the request, in the answer's header and in every error.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pipelines::ids::TraceParent;
use rand::RngCore;
use tracing::Instrument;

use super::problem::Problem;
use crate::app::{App, metrics::Surface};

/// Characters of an incoming id that is kept.
const ID_CHARS_MAX: usize = 64;

/// The header that carries the id.
pub const REQUEST_ID: &str = "x-request-id";

/// The id of a request, among its extensions.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// Gives the request an id and puts it into the answer; a problem gets it into its body too. Whoever sends a sane one finds
/// it again, here and in the log: a proxy in front, or the command line.
pub async fn number_request(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| is_sane(id));
    let id = given.map_or_else(fresh, str::to_owned);
    // Paths of approval links hold what opens them: only the first two parts of a path are logged.
    let path: String = request.uri().path().split('/').take(3).collect::<Vec<_>>().join("/");
    let surface = surface(request.uri().path());
    let began = Instant::now();
    let span = tracing::info_span!("request", id, method = %request.method(), path);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).instrument(span).await;
    app.metrics().request(surface, response.status().as_u16(), began.elapsed());
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let headers = response.headers().clone();
        let status = response.status();
        response = Json(Problem { request_id: Some(id.clone()), ..problem }).into_response();
        *response.status_mut() = status;
        for (name, value) in &headers {
            if name != header::CONTENT_LENGTH {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The span of the caller's trace, where they named one (W3C Trace Context); what is not one counts as none.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut all = headers.get_all("traceparent").iter();
    // Two of them say nothing, as the specification has it.
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    one.to_str().ok()?.trim().parse().ok()
}

fn fresh() -> String {
    let mut bytes = [0; 8];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// It goes into log lines, pages and headers: a word of letters, digits, `-`, `_` and `.`, and not a long one.
fn is_sane(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (8..=ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(plain)
}

fn surface(path: &str) -> Surface {
    match path.split('/').nth(1).unwrap_or_default() {
        "api" => Surface::Api,
        "hooks" => Surface::Hook,
        "approve" => Surface::Link,
        "assets" => Surface::Asset,
        "healthz" | "readyz" | "metrics" => Surface::Probe,
        _ => Surface::Page,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_be_anything_else_is_not_kept() {
        for good in ["0123456789abcdef", "01J9Z-web_1.2", "7f4df8e0-1f0a-4c4e-9a53-0a4a35d7b9d2"] {
            assert!(is_sane(good), "{good}");
        }
        for bad in [
            "",
            "short",
            "has space in it",
            "<script>alert(1)</script>",
            "line\nbreak-here",
            &"a".repeat(65),
            "zürich-zürich",
        ] {
            assert!(!is_sane(bad), "{bad}");
        }
        assert!(is_sane(&fresh()));
    }
}
