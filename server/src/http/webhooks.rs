//! Hooks of forges: verified over the raw bytes in constant time, recorded, answered 202; what they ask for happens
//! afterwards. Not here: what follows from one (`app::deliveries`).

mod bitbucket;
mod bitbucket_server;
mod body;
mod gitea;
mod github;
mod gitlab;
mod proof;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use pipelines::{
    ids::{CommitSha, ServiceName, TraceParent},
    protocol::Secret,
    time::UnixMs,
    trigger::{Trigger, TriggerKind, TriggerSource},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::body::Unread;
use self::proof::{Against, Proof, Stamp, verify};
use super::{problem::Problem, remote::Remote, request_id::traceparent};
use crate::app::{
    App, AppError, DeliveryId, HookContent, NewDelivery, Recorded, metrics::HookFate, throttle::WrongProof,
};

/// Characters of a forge's words that are kept: an id, an event, a subject.
const WORDS_CHARS_MAX: usize = 200;
/// Refs of one push that are looked at; polling finds the others.
const REFS_MAX: usize = 50;

/// What the headers of a hook say, and who reads its body.
struct Envelope {
    forge: &'static str,
    event: String,
    id: Option<String>,
    proof: Option<Proof>,
    /// Reads the body of an event.
    read: fn(&str, &Value) -> Result<HookContent, String>,
}

/// The forges. Gitea and Forgejo also send GitHub's headers, and Bitbucket Data Center has none of its own.
const FORGES: [fn(&HeaderMap) -> Option<Envelope>; 5] =
    [gitea::envelope, github::envelope, gitlab::envelope, bitbucket::envelope, bitbucket_server::envelope];

/// Takes a hook.
pub async fn receive_hook(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    Remote(remote): Remote,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let envelope = FORGES.iter().find_map(|forge| forge(&headers));
    let forge = envelope.as_ref().map_or("unknown", |envelope| envelope.forge);
    match receive(&app, &service, remote, &headers, body, envelope).await {
        Ok((id, repeat)) => {
            app.metrics().hook(forge, if repeat { HookFate::Repeat } else { HookFate::Recorded });
            (StatusCode::ACCEPTED, Json(json!({ "delivery": id, "repeat": repeat }))).into_response()
        }
        Err(problem) => {
            app.metrics().hook(forge, fate(&problem));
            problem.into_response()
        }
    }
}

fn fate(problem: &Problem) -> HookFate {
    match problem.status {
        403 => HookFate::Refused,
        429 | 503 => HookFate::Shed,
        500.. => HookFate::Failed,
        _ => HookFate::Unreadable,
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
    body: Body,
    envelope: Option<Envelope>,
) -> Result<(DeliveryId, bool), Problem> {
    // A server that has too much waiting reads nothing of it.
    app.room_for_hooks().inspect_err(|_| app.hook_refused_unread(service))?;
    let envelope = envelope.ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "unknown-hook", "the hook is of no forge that Windlass knows")
            .next("use a hook of GitHub, Gitea, Forgejo, GitLab or Bitbucket")
    })?;
    let service_word = service;
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
    let held = match body::read(app, body).await {
        Ok(held) => held,
        Err(unread) => {
            let problem = unread.problem(app);
            if unread == Unread::Full {
                app.hook_refused_unread(service_word);
            } else {
                refuse(app, delivery, problem.detail.clone());
            }
            return Err(problem);
        }
    };
    let body = &held.bytes;
    let nobody = Secret::new("no such service");
    let against = |secret, allow_unsigned| Against {
        secret,
        allow_unsigned,
        now: app.now(),
        clock_skew_ms: app.config.bounds.hook_clock_skew_ms,
    };
    let (Some(service), Some(mut delivery)) = (service, delivery) else {
        // As much work as for a service that exists, so that the time does not tell either.
        let _ = verify(&against(Some(&nobody), false), envelope.proof.as_ref(), body);
        return Err(refused(app, &remote));
    };
    if delivery.forge_id.is_empty() {
        delivery.forge_id = format!("body {}", hex::encode(Sha256::digest(body)));
    }
    let secret = app.service_hook_secret(&service.name)?;
    let against = against(secret.as_ref(), service.allow_unsigned_hooks);
    if let Err(reason) = verify(&against, envelope.proof.as_ref(), body) {
        refuse(app, Some(delivery), reason.to_owned());
        return Err(refused(app, &remote));
    }
    app.room_for_hooks_of(&service.name)?;
    match read_body(headers, body).and_then(|payload| (envelope.read)(&envelope.event, &payload)) {
        Ok(content) => delivery.content = Ok(heard(content, delivery.at, traceparent(headers).as_ref())),
        Err(why) => {
            refuse(app, Some(delivery), why.clone());
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-hook", why));
        }
    }
    Ok(match app.delivery_record(delivery).await? {
        Recorded::New(id) => (id, false),
        Recorded::Repeat(id) => (id, true),
    })
}

/// What a hook tells, with when it came in and in whose trace.
fn heard(content: HookContent, at: UnixMs, traceparent: Option<&TraceParent>) -> HookContent {
    match content {
        HookContent::Trigger { trigger, from } => {
            let trigger = Trigger { heard_at: Some(at), traceparent: traceparent.cloned(), ..trigger };
            HookContent::Trigger { trigger, from }
        }
        HookContent::Several { all } => {
            HookContent::Several { all: all.into_iter().map(|one| heard(one, at, traceparent)).collect() }
        }
        other => other,
    }
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

/// The text at a place of a body, of a message its first line.
fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(|text| bounded(text.lines().next().unwrap_or_default()))
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_CHARS_MAX).collect()
}

/// The commit at a place of a body.
fn commit_of(value: &Value, pointer: &str) -> Result<CommitSha, String> {
    let text = value.pointer(pointer).and_then(Value::as_str).ok_or("the hook names no commit")?;
    text.parse().map_err(|error| format!("{error}"))
}

/// A ref that is now at `commit`, and was at `from`; `tell` adds what else the forge says. As a push or a tag, unless
/// that makes it something else.
fn change(git_ref: &str, commit: CommitSha, from: Option<CommitSha>, tell: impl FnOnce(&mut Trigger)) -> HookContent {
    let mut trigger = Trigger::of_ref(git_ref, commit, TriggerSource::Hook);
    tell(&mut trigger);
    if trigger.kind == TriggerKind::Push && !git_ref.starts_with("refs/heads/") {
        return HookContent::Nothing { reason: format!("{git_ref} is neither branch nor tag") };
    }
    // A ref that is new was at the null commit, which is nowhere.
    HookContent::Trigger { trigger, from: from.filter(|from| !from.is_null()) }
}

/// All changes of one push.
fn several(
    changes: Option<&Value>,
    read: impl Fn(&Value) -> Result<HookContent, String>,
) -> Result<HookContent, String> {
    let changes = changes.and_then(Value::as_array).ok_or("the push names no changes")?;
    let mut all = changes.iter().take(REFS_MAX).map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(match all.len() {
        0 => HookContent::Nothing { reason: "nothing changed".into() },
        1 => all.remove(0),
        _ => HookContent::Several { all },
    })
}

/// A signature in the form `sha256=<hex>`; any other digest counts as none.
fn prefixed_hex(headers: &HeaderMap, name: &str) -> Option<String> {
    header_text(headers, name).and_then(|value| value.strip_prefix("sha256=").map(str::to_owned))
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
