//! The answers of the gateway itself: which service did not answer and why, as text or as a page.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::Answer;

/// Marks an answer that the gateway itself gave, with the reason in one word.
pub(super) const REASON: HeaderName = HeaderName::from_static("x-windlass-gateway");

/// Why the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    NoHost,
    UnknownHost,
    NothingLive,
    MethodRefused,
    BodyTooLarge,
    ClientStalled,
    ClientBroken,
    Unreachable,
    ConnectTimeout,
    BrokenAnswer,
    AnswerTimeout,
}

impl Reason {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::NoHost => (S::BAD_REQUEST, "no-host", "The request does not say which host it is for."),
            Self::UnknownHost => (S::NOT_FOUND, "unknown-host", "No service has this host name here."),
            Self::NothingLive => {
                (S::SERVICE_UNAVAILABLE, "nothing-live", "The service is known, and no version of it is live yet.")
            }
            Self::MethodRefused => (S::METHOD_NOT_ALLOWED, "method-refused", "Tunnels by CONNECT are not offered."),
            Self::BodyTooLarge => {
                (S::PAYLOAD_TOO_LARGE, "body-too-large", "The body of the request is larger than the gateway takes.")
            }
            Self::ClientStalled => (S::REQUEST_TIMEOUT, "client-stalled", "The rest of the request did not come."),
            Self::ClientBroken => (S::BAD_REQUEST, "client-broken", "The body of the request broke off."),
            Self::Unreachable => (S::BAD_GATEWAY, "unreachable", "The service does not accept connections."),
            Self::ConnectTimeout => {
                (S::GATEWAY_TIMEOUT, "connect-timeout", "The service did not accept a connection in time.")
            }
            Self::BrokenAnswer => {
                (S::BAD_GATEWAY, "broken-answer", "The service closed the connection without a whole answer.")
            }
            Self::AnswerTimeout => (S::GATEWAY_TIMEOUT, "answer-timeout", "The service did not answer in time."),
        }
    }
}

/// The answer for `reason`. `host` and `request_id` come from outside and are escaped.
pub(super) fn answer(reason: Reason, host: &str, request_id: &str, request: &HeaderMap) -> Response<Answer> {
    let (status, word, sentence) = reason.parts();
    let title = status.canonical_reason().unwrap_or("Error");
    let html = wants_html(request);
    let text = if html {
        page(status, title, sentence, host, request_id)
    } else if host.is_empty() {
        format!("{} {title}: {sentence} Request {request_id}.\n", status.as_u16())
    } else {
        let code = status.as_u16();
        format!("{code} {title}: {host}: {sentence} Request {request_id}.\n")
    };
    let mut response = Response::new(Answer::Own(Some(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = if html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (REASON, word),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn wants_html(request: &HeaderMap) -> bool {
    request
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("text/html"))
}

fn page(status: StatusCode, title: &str, sentence: &str, host: &str, request_id: &str) -> String {
    let (code, host, id) = (status.as_u16(), escape(host), escape(request_id));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>{code} {title}</title>\
<style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;\
margin:15vh auto;padding:0 1rem}}small{{opacity:.8}}</style></head>\
<body><main><h1>{title}</h1><p><strong>{host}</strong></p><p>{sentence}</p>\
<p><small>{code} · request {id}</small></p></main></body></html>\n"
    )
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: Response<Answer>) -> String {
        match response.into_body() {
            Answer::Own(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            other => panic!("not a page of our own: {other:?}"),
        }
    }

    #[test]
    fn a_browser_gets_a_page_and_a_program_a_line() {
        let mut head = HeaderMap::new();
        let plain = answer(Reason::Unreachable, "shop", "id1", &head);
        assert_eq!(plain.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(plain.headers()[REASON], "unreachable");
        assert_eq!(text(plain), "502 Bad Gateway: shop: The service does not accept connections. Request id1.\n");
        head.insert(header::ACCEPT, HeaderValue::from_static("text/html,*/*"));
        let page = text(answer(Reason::Unreachable, "shop", "id1", &head));
        assert!(page.starts_with("<!doctype html>") && page.contains("<strong>shop</strong>"));
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let mut head = HeaderMap::new();
        head.insert(header::ACCEPT, HeaderValue::from_static("text/html"));
        let page = text(answer(Reason::UnknownHost, "<script>\"'&", "<i>", &head));
        assert!(page.contains("&lt;script&gt;&quot;&#39;&amp;") && page.contains("&lt;i&gt;"));
        assert!(!page.contains("<script") && !page.contains("<i>"));
    }
}
