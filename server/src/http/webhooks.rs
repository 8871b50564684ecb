//! Hooks of forges: verified over the raw bytes in constant time, recorded, answered 202; what they ask for happens
//! afterwards. Not here: what follows from one (`app::deliveries`).

mod gitea;
mod github;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use hmac::{Hmac, KeyInit, Mac};
use pipelines::{
    ids::{CommitSha, ServiceName},
    protocol::Secret,
    trigger::{Trigger, TriggerKind, TriggerSource},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{problem::Problem, remote::Remote};
use crate::app::{App, AppError, HookContent, NewDelivery, Recorded, throttle::WrongProof};

/// Characters of a forge's words that are kept: an id, an event, a subject.
const WORDS_CHARS_MAX: usize = 200;

/// What the headers of a hook say.
struct Envelope {
    forge: &'static str,
    event: String,
    id: Option<String>,
    /// The signature, hex.
    signature: Option<String>,
}

/// Takes a hook.
pub async fn receive_hook(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    Remote(remote): Remote,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match receive(&app, &service, remote, &headers, body).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

/// The same words for a service that does not exist and a signature that is wrong: nobody learns names by asking.
fn refused(app: &App, remote: &str) -> Problem {
    if let Err(error) = app.wrong_proof(WrongProof::Signature, remote) {
        return error.into();
    }
    Problem::new(StatusCode::FORBIDDEN, "bad-signature", "there is no such hook, or its signature is wrong")
        .next("compare the hook's secret at the forge with the one of the service")
}

/// What is said before the signature is good depends on the request alone, never on whether the service exists.
async fn receive(
    app: &Arc<App>,
    service: &str,
    remote: String,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let envelope = gitea::envelope(headers).or_else(|| github::envelope(headers)).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "unknown-hook", "the hook is of no forge that Windlass knows")
            .next("use a hook of GitHub, Gitea or Forgejo")
    })?;
    let service = match service.parse::<ServiceName>().map(|name| app.service(&name)) {
        Ok(Ok(service)) => Some(service),
        Ok(Err(AppError::NotFound { .. })) | Err(_) => None,
        Ok(Err(error)) => return Err(error.into()),
    };
    let delivery = service.as_ref().map(|service| NewDelivery {
        service: service.name.clone(),
        forge: envelope.forge,
        forge_id: bounded(envelope.id.as_deref().unwrap_or_default()),
        event: bounded(&envelope.event),
        at: app.now(),
        remote: remote.clone(),
        content: Err(String::new()),
    });
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let limit = app.config.bounds.hook_body_bytes_max;
            let detail = format!("the hook's body is larger than {limit} bytes or broke off");
            refuse(app, delivery, detail.clone());
            return Err(Problem::new(rejection.status(), "too-large", detail));
        }
    };
    let signature = envelope.signature.as_deref();
    let (Some(service), Some(mut delivery)) = (service, delivery) else {
        // As much work as for a service that exists, so that the time does not tell either.
        let _ = verify(Some(&Secret::new("no such service")), false, signature, &body);
        return Err(refused(app, &remote));
    };
    if delivery.forge_id.is_empty() {
        delivery.forge_id = format!("body {}", hex::encode(Sha256::digest(&body)));
    }
    let secret = app.service_hook_secret(&service.name)?;
    if let Err(reason) = verify(secret.as_ref(), service.allow_unsigned_hooks, signature, &body) {
        refuse(app, Some(delivery), reason.to_owned());
        return Err(refused(app, &remote));
    }
    match read_body(headers, &body).and_then(|payload| content(&envelope, &payload)) {
        Ok(content) => delivery.content = Ok(content),
        Err(why) => {
            refuse(app, Some(delivery), why.clone());
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-hook", why));
        }
    }
    let (id, repeat) = match app.delivery_record(delivery).await? {
        Recorded::New(id) => (id, false),
        Recorded::Repeat(id) => (id, true),
    };
    Ok((StatusCode::ACCEPTED, Json(json!({ "delivery": id, "repeat": repeat }))).into_response())
}

/// Has a refused hook listed. Beside the answer, which is not to take longer for a service that exists; and not each one,
/// because anybody can send them.
fn refuse(app: &Arc<App>, delivery: Option<NewDelivery>, reason: String) {
    let Some(delivery) = delivery.filter(|delivery| app.may_list_refused(&delivery.service)) else { return };
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let refused = NewDelivery { content: Err(reason), ..delivery };
        if let Err(error) = app.delivery_record(refused).await {
            tracing::warn!(%error, "a refused hook was not listed");
        }
    });
}

fn verify(
    secret: Option<&Secret>,
    allow_unsigned: bool,
    signature: Option<&str>,
    body: &[u8],
) -> Result<(), &'static str> {
    match (secret, signature) {
        (Some(secret), Some(signature)) => {
            let given = hex::decode(signature).map_err(|_| "its signature is not hex")?;
            let mut mac =
                Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map_err(|_| "its key is not good")?;
            mac.update(body);
            mac.verify_slice(&given).map_err(|_| "its signature is wrong")
        }
        (Some(_), None) => Err("it carries no signature"),
        (None, _) if allow_unsigned => Ok(()),
        (None, _) => Err("the service has no hook secret, and does not take hooks without one"),
    }
}

fn read_body(headers: &HeaderMap, body: &[u8]) -> Result<Value, String> {
    let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parsed = if kind.starts_with("application/x-www-form-urlencoded") {
        let payload = url::form_urlencoded::parse(body).find(|(name, _)| name == "payload");
        let (_, payload) = payload.ok_or("the form has no field payload")?;
        serde_json::from_str(&payload)
    } else {
        serde_json::from_slice(body)
    };
    parsed.map_err(|error| format!("the body is not JSON: {error}"))
}

fn text(value: &Value, path: &[&str]) -> Option<String> {
    let found = path.iter().try_fold(value, |value, key| value.get(key))?;
    // Of a commit's message the first line.
    found.as_str().map(|text| bounded(text.lines().next().unwrap_or_default()))
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_CHARS_MAX).collect()
}

/// GitHub's payload, which Gitea and Forgejo share.
fn content(envelope: &Envelope, payload: &Value) -> Result<HookContent, String> {
    match envelope.event.as_str() {
        "push" => push(payload),
        "pull_request" => pull_request(payload),
        // A tag's creation and a branch's come as a push too.
        other => Ok(HookContent::Nothing { reason: format!("the event {} makes no run", bounded(other)) }),
    }
}

fn push(payload: &Value) -> Result<HookContent, String> {
    let git_ref = text(payload, &["ref"]).ok_or("the push names no ref")?;
    if !git_ref.starts_with("refs/heads/") && !git_ref.starts_with("refs/tags/") {
        return Ok(HookContent::Nothing { reason: format!("{git_ref} is neither branch nor tag") });
    }
    let after: CommitSha =
        text(payload, &["after"]).ok_or("the push names no commit")?.parse().map_err(|error| format!("{error}"))?;
    if after.is_null() || payload.get("deleted") == Some(&Value::Bool(true)) {
        return Ok(HookContent::Deleted { git_ref });
    }
    // An annotated tag's `after` is the tag; the commit it points to is the head commit.
    let head = text(payload, &["head_commit", "id"]).and_then(|id| id.parse().ok());
    let is_tag = git_ref.starts_with("refs/tags/");
    let commit = if is_tag { head.unwrap_or(after) } else { after };
    Ok(HookContent::Trigger {
        trigger: Trigger {
            kind: if is_tag { TriggerKind::Tag } else { TriggerKind::Push },
            source: TriggerSource::Hook,
            git_ref,
            commit,
            pull_request: None,
            from_fork: false,
            subject: text(payload, &["head_commit", "message"]).unwrap_or_default(),
            author: text(payload, &["head_commit", "author", "name"]).unwrap_or_default(),
            author_email: text(payload, &["head_commit", "author", "email"]).unwrap_or_default(),
            requested_by: None,
        },
    })
}

fn pull_request(payload: &Value) -> Result<HookContent, String> {
    let action = text(payload, &["action"]).unwrap_or_default();
    // GitHub says synchronize, Gitea and Forgejo synchronized.
    if !matches!(action.as_str(), "opened" | "reopened" | "synchronize" | "synchronized") {
        return Ok(HookContent::Nothing { reason: format!("the pull request was {action}: no new commit") });
    }
    let number = payload
        .get("number")
        .or_else(|| payload.pointer("/pull_request/number"))
        .and_then(Value::as_u64)
        .ok_or("the pull request has no number")?;
    let commit: CommitSha = text(payload, &["pull_request", "head", "sha"])
        .ok_or("the pull request names no commit")?
        .parse()
        .map_err(|error| format!("{error}"))?;
    let repository = |side: &str| text(payload, &["pull_request", side, "repo", "full_name"]);
    // A fork that was deleted since has no name: it is a fork all the same.
    let from_fork = match (repository("head"), repository("base")) {
        (Some(head), Some(base)) => head != base,
        _ => true,
    };
    Ok(HookContent::Trigger {
        trigger: Trigger {
            kind: TriggerKind::PullRequest,
            source: TriggerSource::Hook,
            git_ref: format!("refs/pull/{number}/head"),
            commit,
            pull_request: Some(number),
            from_fork,
            subject: text(payload, &["pull_request", "title"]).unwrap_or_default(),
            author: text(payload, &["pull_request", "user", "login"]).unwrap_or_default(),
            author_email: String::new(),
            requested_by: None,
        },
    })
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
