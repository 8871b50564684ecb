//! The headers of Gitea's and Forgejo's hooks. Both also send GitHub's, so they are looked for first. Their bodies are
//! GitHub's (`github`).

use axum::http::HeaderMap;

use super::{Envelope, Proof, github, header_text};

/// Reads the headers: the signature is bare hex.
pub(super) fn envelope(headers: &HeaderMap) -> Option<Envelope> {
    [("forgejo", "x-forgejo"), ("gitea", "x-gitea")].into_iter().find_map(|(forge, prefix)| {
        Some(Envelope {
            forge,
            event: header_text(headers, &format!("{prefix}-event"))?,
            id: header_text(headers, &format!("{prefix}-delivery")),
            proof: header_text(headers, &format!("{prefix}-signature")).map(Proof::Hmac),
            read: github::content,
        })
    })
}
