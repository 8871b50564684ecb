//! Hooks as Gitea sends and signs them, and what one says of a push. Not here: what others say.

use anyhow::Result;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sha2::Sha256;

/// The signature of a body: HMAC-SHA256 with the service's secret, in hex
/// (<https://docs.gitea.com/usage/repository/webhooks>).
///
/// # Errors
/// When the secret is no key, which none is known to be.
pub fn sign_hook(secret: &str, body: &[u8]) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(body);
    Ok(hex::encode(mac.finalize().into_bytes()))
}

/// One hook: its event, the forge's id of it, its body.
#[derive(Clone, Debug)]
pub struct Hook<'a> {
    /// `push`, `pull_request`.
    pub event: &'a str,
    /// The forge's id of this delivery: the same one again is a repeat.
    pub id: &'a str,
    /// JSON.
    pub body: Vec<u8>,
}

/// What a forge says of a push of `commit` to the branch main.
#[must_use]
pub fn push_body(commit: &str) -> Value {
    json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": commit, "created": false, "deleted": false,
        "forced": false, "repository": {"full_name": "dev/shop", "default_branch": "main"},
        "pusher": {"name": "mei", "email": "mei@example.com"},
        "head_commit": {"id": commit, "message": "a shop", "author": {"name": "Mei", "email": "mei@example.com"}},
    })
}

impl Hook<'_> {
    /// The request to `url` (`…/hooks/{service}`); without a signature where there is none.
    pub fn request(&self, http: &Client, url: &str, signature: Option<&str>) -> RequestBuilder {
        let request = http.post(url).header("x-gitea-event", self.event).header("x-gitea-delivery", self.id);
        let request = request.header("content-type", "application/json");
        match signature {
            Some(signature) => request.header("x-gitea-signature", signature),
            None => request,
        }
        .body(self.body.clone())
    }

    /// The same, signed with the service's secret.
    ///
    /// # Errors
    /// As [`sign_hook`].
    pub fn signed(&self, http: &Client, url: &str, secret: &str) -> Result<RequestBuilder> {
        Ok(self.request(http, url, Some(&sign_hook(secret, &self.body)?)))
    }
}
