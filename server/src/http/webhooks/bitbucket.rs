//! Bitbucket Cloud's hooks: <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/>. Not here: those of
//! Bitbucket Data Center, which share a header and nothing else (`bitbucket_server`).

use axum::http::HeaderMap;
use serde_json::Value;

use super::{Envelope, Proof, bounded, change, commit_of, header_text, prefixed_hex, several, text};
use crate::app::HookContent;

/// Reads the headers. Only the Cloud names its hook and request by a UUID.
pub(super) fn envelope(headers: &HeaderMap) -> Option<Envelope> {
    let event = header_text(headers, "x-event-key")?;
    let id = header_text(headers, "x-request-uuid");
    if id.is_none() && !headers.contains_key("x-hook-uuid") {
        return None;
    }
    let proof = prefixed_hex(headers, "x-hub-signature").map(Proof::Hmac);
    Some(Envelope { forge: "bitbucket", event, id, proof, read: content })
}

fn content(event: &str, payload: &Value) -> Result<HookContent, String> {
    match event {
        "repo:push" => several(payload.pointer("/push/changes"), push),
        // It names the first 12 characters of the commit only, and Bitbucket keeps no ref for a pull request.
        "pullrequest:created" | "pullrequest:updated" => Ok(HookContent::Nothing {
            reason: "a pull request of Bitbucket Cloud names no whole commit: the push of its branch made the run, \
                     and a fork's is not run"
                .into(),
        }),
        other => Ok(HookContent::Nothing { reason: format!("the event {} makes no run", bounded(other)) }),
    }
}

fn push(payload: &Value) -> Result<HookContent, String> {
    let git_ref = |side: &str| {
        let name = text(payload, &format!("/{side}/name"))?;
        match text(payload, &format!("/{side}/type")).as_deref() {
            Some("tag" | "annotated_tag") => Some(format!("refs/tags/{name}")),
            Some("branch" | "named_branch") => Some(format!("refs/heads/{name}")),
            _ => None,
        }
    };
    if payload.get("new").is_none_or(Value::is_null) {
        return Ok(HookContent::Deleted { git_ref: git_ref("old").ok_or("the push names no ref")? });
    }
    let git_ref = git_ref("new").ok_or("the push names no ref")?;
    let commit = commit_of(payload, "/new/target/hash")?;
    // `Name <mail>`, as git has it.
    let raw = text(payload, "/new/target/author/raw").unwrap_or_default();
    let (name, email) = raw.split_once('<').unwrap_or((&raw, ""));
    Ok(change(&git_ref, commit, commit_of(payload, "/old/target/hash").ok(), |trigger| {
        trigger.subject = text(payload, "/new/target/message").unwrap_or_default();
        trigger.author = name.trim().to_owned();
        trigger.author_email = email.trim_end().trim_end_matches('>').to_owned();
    }))
}
