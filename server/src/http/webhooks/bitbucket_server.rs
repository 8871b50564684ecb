//! Bitbucket Data Center's hooks: <https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html>.

use axum::http::HeaderMap;
use pipelines::trigger::TriggerKind;
use serde_json::Value;

use super::{Envelope, Proof, bounded, change, commit_of, header_text, prefixed_hex, several, text};
use crate::app::HookContent;

/// Reads the headers; those of Bitbucket Cloud are looked for first.
pub(super) fn envelope(headers: &HeaderMap) -> Option<Envelope> {
    Some(Envelope {
        forge: "bitbucket-server",
        event: header_text(headers, "x-event-key")?,
        id: header_text(headers, "x-request-id"),
        proof: prefixed_hex(headers, "x-hub-signature").map(Proof::Hmac),
        read: content,
    })
}

fn content(event: &str, payload: &Value) -> Result<HookContent, String> {
    match event {
        "repo:refs_changed" => several(payload.get("changes"), |one| push(one, payload)),
        "pr:opened" | "pr:from_ref_updated" => pull_request(payload),
        other => Ok(HookContent::Nothing { reason: format!("the event {} makes no run", bounded(other)) }),
    }
}

fn push(one: &Value, payload: &Value) -> Result<HookContent, String> {
    let git_ref = text(one, "/refId").or_else(|| text(one, "/ref/id")).ok_or("the push names no ref")?;
    let after = commit_of(one, "/toHash")?;
    if after.is_null() || text(one, "/type").as_deref() == Some("DELETE") {
        return Ok(HookContent::Deleted { git_ref });
    }
    // Of an annotated tag `toHash` is the tag, and nothing names the commit.
    if git_ref.starts_with("refs/tags/") {
        return Ok(HookContent::Moved { git_ref });
    }
    // Newer versions also send the commit.
    let is_head = text(payload, "/toCommit/id").as_deref() == Some(after.as_str());
    let of_head = |path: &str| text(payload, path).filter(|_| is_head).unwrap_or_default();
    Ok(change(&git_ref, after.clone(), commit_of(one, "/fromHash").ok(), |trigger| {
        trigger.subject = of_head("/toCommit/message");
        trigger.author = of_head("/toCommit/author/name");
        trigger.author_email = of_head("/toCommit/author/emailAddress");
    }))
}

fn pull_request(payload: &Value) -> Result<HookContent, String> {
    let number = payload.pointer("/pullRequest/id").and_then(Value::as_u64).ok_or("the pull request has no number")?;
    let commit = commit_of(payload, "/pullRequest/fromRef/latestCommit")?;
    let repository =
        |side: &str| payload.pointer(&format!("/pullRequest/{side}/repository/id")).and_then(Value::as_u64);
    Ok(change(&format!("refs/pull-requests/{number}/from"), commit, None, |trigger| {
        trigger.kind = TriggerKind::PullRequest;
        trigger.pull_request = Some(number);
        trigger.from_fork = repository("fromRef").is_none() || repository("fromRef") != repository("toRef");
        trigger.subject = text(payload, "/pullRequest/title").unwrap_or_default();
        trigger.author = text(payload, "/pullRequest/author/user/name").unwrap_or_default();
    }))
}
