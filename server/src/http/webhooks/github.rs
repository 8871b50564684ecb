//! The headers of GitHub's hooks: <https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries>.

use axum::http::HeaderMap;

use super::{Envelope, header_text};

/// Reads the headers. The older header with SHA-1 is never looked at.
pub(super) fn envelope(headers: &HeaderMap) -> Option<Envelope> {
    Some(Envelope {
        forge: "github",
        event: header_text(headers, "x-github-event")?,
        id: header_text(headers, "x-github-delivery"),
        signature: header_text(headers, "x-hub-signature-256")
            .and_then(|value| value.strip_prefix("sha256=").map(str::to_owned)),
    })
}
