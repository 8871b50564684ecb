//! GitHub's hooks: <https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries>. Gitea and Forgejo send
//! the same bodies.

use axum::http::HeaderMap;
use pipelines::trigger::TriggerKind;
use serde_json::Value;

use super::{Envelope, Proof, bounded, change, commit_of, header_text, prefixed_hex, text};
use crate::app::HookContent;

/// Reads the headers. The older header with SHA-1 is never looked at.
pub(super) fn envelope(headers: &HeaderMap) -> Option<Envelope> {
    Some(Envelope {
        forge: "github",
        event: header_text(headers, "x-github-event")?,
        id: header_text(headers, "x-github-delivery"),
        proof: prefixed_hex(headers, "x-hub-signature-256").map(Proof::Hmac),
        read: content,
    })
}

/// Reads a body.
pub(super) fn content(event: &str, payload: &Value) -> Result<HookContent, String> {
    match event {
        "push" => push(payload),
        "pull_request" => pull_request(payload),
        // A tag's creation and a branch's come as a push too.
        other => Ok(HookContent::Nothing { reason: format!("the event {} makes no run", bounded(other)) }),
    }
}

fn push(payload: &Value) -> Result<HookContent, String> {
    let git_ref = text(payload, "/ref").ok_or("the push names no ref")?;
    let after = commit_of(payload, "/after")?;
    if after.is_null() || payload.get("deleted") == Some(&Value::Bool(true)) {
        return Ok(HookContent::Deleted { git_ref });
    }
    // An annotated tag's `after` is the tag; the commit it points to is the head commit.
    let head = text(payload, "/head_commit/id").and_then(|id| id.parse().ok());
    let commit = if git_ref.starts_with("refs/tags/") { head.unwrap_or(after) } else { after };
    Ok(change(&git_ref, commit, commit_of(payload, "/before").ok(), |trigger| {
        trigger.subject = text(payload, "/head_commit/message").unwrap_or_default();
        trigger.author = text(payload, "/head_commit/author/name").unwrap_or_default();
        trigger.author_email = text(payload, "/head_commit/author/email").unwrap_or_default();
    }))
}

fn pull_request(payload: &Value) -> Result<HookContent, String> {
    let action = text(payload, "/action").unwrap_or_default();
    // GitHub says synchronize, Gitea and Forgejo synchronized.
    if !matches!(action.as_str(), "opened" | "reopened" | "synchronize" | "synchronized") {
        return Ok(HookContent::Nothing { reason: format!("the pull request was {action}: no new commit") });
    }
    let number = payload.get("number").or_else(|| payload.pointer("/pull_request/number")).and_then(Value::as_u64);
    let number = number.ok_or("the pull request has no number")?;
    let commit = commit_of(payload, "/pull_request/head/sha")?;
    let head = text(payload, "/pull_request/head/repo/full_name");
    Ok(change(&format!("refs/pull/{number}/head"), commit, None, |trigger| {
        trigger.kind = TriggerKind::PullRequest;
        trigger.pull_request = Some(number);
        // A fork that was deleted since has no name: it is a fork all the same.
        trigger.from_fork = head.is_none() || head != text(payload, "/pull_request/base/repo/full_name");
        trigger.subject = text(payload, "/pull_request/title").unwrap_or_default();
        trigger.author = text(payload, "/pull_request/user/login").unwrap_or_default();
    }))
}
