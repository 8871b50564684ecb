//! GitLab's hooks: <https://docs.gitlab.com/user/project/integrations/webhook_events/>. With a secret token GitLab sends the
//! secret itself; with a signing token it signs as Standard Webhooks lay down
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use axum::http::HeaderMap;
use pipelines::trigger::TriggerKind;
use serde_json::Value;

use super::{Envelope, Proof, Stamp, bounded, change, commit_of, header_text, text};
use crate::app::HookContent;

/// Reads the headers. A signature says more than the secret token beside it, so it is the one that counts.
pub(super) fn envelope(headers: &HeaderMap) -> Option<Envelope> {
    let event = header_text(headers, "x-gitlab-event")?;
    let id = header_text(headers, "webhook-id");
    let proof = match header_text(headers, "webhook-signature") {
        Some(signatures) => Some(Proof::Stamped(Stamp {
            id: id.clone().unwrap_or_default(),
            timestamp: header_text(headers, "webhook-timestamp").unwrap_or_default(),
            signatures,
        })),
        None => header_text(headers, "x-gitlab-token").map(Proof::Secret),
    };
    // `X-Gitlab-Event-UUID` is shared by hooks that follow from each other, so it is no delivery's id.
    let id = header_text(headers, "idempotency-key").or(id);
    Some(Envelope { forge: "gitlab", event, id, proof, read: content })
}

fn content(event: &str, payload: &Value) -> Result<HookContent, String> {
    match text(payload, "/object_kind").as_deref() {
        Some("push" | "tag_push") => push(payload),
        Some("merge_request") => merge_request(payload),
        _ => Ok(HookContent::Nothing { reason: format!("the event {} makes no run", bounded(event)) }),
    }
}

fn push(payload: &Value) -> Result<HookContent, String> {
    let git_ref = text(payload, "/ref").ok_or("the push names no ref")?;
    let after = commit_of(payload, "/after")?;
    if after.is_null() {
        return Ok(HookContent::Deleted { git_ref });
    }
    // An annotated tag's `after` is the tag; `checkout_sha` is the commit it points to.
    let commit = commit_of(payload, "/checkout_sha").unwrap_or(after);
    // At most 20 commits are listed, the newest last; that may leave out the one.
    let commits = payload.get("commits").and_then(Value::as_array);
    let head = commits.and_then(|all| all.iter().find(|one| text(one, "/id").as_deref() == Some(commit.as_str())));
    let of_head = |path: &str| head.and_then(|head| text(head, path)).unwrap_or_default();
    Ok(change(&git_ref, commit.clone(), commit_of(payload, "/before").ok(), |trigger| {
        trigger.subject = of_head("/message");
        trigger.author = of_head("/author/name");
        trigger.author_email = of_head("/author/email");
    }))
}

fn merge_request(payload: &Value) -> Result<HookContent, String> {
    let action = text(payload, "/object_attributes/action").unwrap_or_default();
    // An update says where the source branch was before only when it has moved.
    let has_moved = action == "update" && text(payload, "/object_attributes/oldrev").is_some();
    if !has_moved && !matches!(action.as_str(), "open" | "reopen") {
        return Ok(HookContent::Nothing { reason: format!("the merge request had {action}: no new commit") });
    }
    let number = payload.pointer("/object_attributes/iid").and_then(Value::as_u64);
    let number = number.ok_or("the merge request has no number")?;
    let commit = commit_of(payload, "/object_attributes/last_commit/id")?;
    let project =
        |side: &str| payload.pointer(&format!("/object_attributes/{side}_project_id")).and_then(Value::as_u64);
    Ok(change(&format!("refs/merge-requests/{number}/head"), commit, None, |trigger| {
        trigger.kind = TriggerKind::PullRequest;
        trigger.pull_request = Some(number);
        trigger.from_fork = project("source").is_none() || project("source") != project("target");
        trigger.subject = text(payload, "/object_attributes/title").unwrap_or_default();
        trigger.author = text(payload, "/user/username").unwrap_or_default();
    }))
}
