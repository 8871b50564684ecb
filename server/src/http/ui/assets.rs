//! The stylesheet, the scripts and the mark, compiled in and served with a content hash in the address, so that a browser
//! keeps them for a year and never mixes two versions. Not here: templates.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// One embedded file.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Its name in the address.
    pub name: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub content: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $media_type:literal) => {
        Asset { name: $name, media_type: $media_type, content: include_bytes!(concat!("../../../assets/", $name)) }
    };
}

/// Every embedded file.
pub const ASSETS: [Asset; 6] = [
    asset!("windlass.css", "text/css; charset=utf-8"),
    asset!("windlass.js", "text/javascript; charset=utf-8"),
    asset!("live.js", "text/javascript; charset=utf-8"),
    asset!("log.js", "text/javascript; charset=utf-8"),
    asset!("keys.js", "text/javascript; charset=utf-8"),
    asset!("mark.svg", "image/svg+xml"),
];

/// The version in the addresses: a hash over every file, taken when the server is built. One version for all, because the
/// scripts import each other by relative address.
pub const VERSION: [u8; 16] = hex(fingerprint());

/// FNV-1a, 64 bits: it tells versions apart and protects nothing.
const fn fingerprint() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < ASSETS.len() {
        let content = ASSETS[i].content;
        let mut j = 0;
        while j < content.len() {
            hash = (hash ^ content[j] as u64).wrapping_mul(0x0100_0000_01b3);
            j += 1;
        }
        i += 1;
    }
    hash
}

const fn hex(n: u64) -> [u8; 16] {
    let mut text = [0; 16];
    let mut i = 0;
    while i < 16 {
        let digit = ((n >> (60 - 4 * i)) & 15) as u8;
        text[i] = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        i += 1;
    }
    text
}

fn version() -> &'static str {
    // Only hexadecimal digits are in it.
    std::str::from_utf8(&VERSION).unwrap_or("0")
}

/// The address of a file.
pub fn url(name: &str) -> String {
    format!("/assets/{}/{name}", version())
}

/// Serves an asset.
pub(in crate::http) async fn show_asset(Path((asked, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // A page from before an upgrade asks for its own version: it gets what there is, and keeps it for no time.
    let keep = if asked == version() { "public, max-age=31536000, immutable" } else { "no-cache" };
    (
        [
            (header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
            (header::CACHE_CONTROL, HeaderValue::from_static(keep)),
            (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        ],
        asset.content,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn routes() -> axum::Router {
        axum::Router::new().route("/assets/{version}/{name}", axum::routing::get(show_asset))
    }

    const CSS_MAX_BYTES: usize = 12 * 1024;
    const JS_MAX_BYTES: usize = 15 * 1024;

    fn bytes_of(ending: &str) -> usize {
        ASSETS.iter().filter(|a| a.name.ends_with(ending)).map(|a| a.content.len()).sum()
    }

    #[test]
    fn assets_keep_to_their_budgets() {
        assert!(bytes_of(".css") <= CSS_MAX_BYTES, "windlass.css has {} bytes", bytes_of(".css"));
        assert!(bytes_of(".js") <= JS_MAX_BYTES, "the scripts have {} bytes", bytes_of(".js"));
    }

    #[tokio::test]
    async fn an_asset_is_kept_for_a_year_at_its_own_version_only() {
        for (path, keep) in [
            (url("windlass.css"), "public, max-age=31536000, immutable"),
            (String::from("/assets/0000000000000000/windlass.css"), "no-cache"),
        ] {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            let response = routes().oneshot(request).await.expect("a response");
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[header::CACHE_CONTROL], keep);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(&body[..], ASSETS[0].content);
        }
    }

    #[tokio::test]
    async fn an_unknown_asset_is_not_found() {
        for name in ["nothing.css", "..%2f..%2fCargo.toml"] {
            let request = Request::get(format!("/assets/x/{name}")).body(Body::empty()).expect("a request");
            let response = routes().oneshot(request).await.expect("a response");
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
        }
    }
}
