//! Runners on machines of their own: registration, and the messages of `pipelines::protocol` as JSON over POST. A body may
//! be packed with gzip; it is bounded packed and unpacked. Not here: what the messages mean (`app::agents`).

#[cfg(test)]
mod tests;

use std::{io::Read, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use pipelines::{
    ids::RunnerName,
    journal::Origin,
    protocol::{
        PROTOCOL_HEADER, PROTOCOL_VERSION, RegisterRequest, Registered, RotateRequest, RunnerRequest, ServerReply,
    },
};
use serde::de::DeserializeOwned;

use super::{problem::Problem, remote::Remote};
use crate::app::{App, agents::protocol_mismatch, runners::Registration};

/// A problem of this kind: nobody but the runner's operator can help.
const REVOKED: &str = pipelines::protocol::REVOKED_PROBLEM;

/// The runner that calls; it has shown its credential. And how the journal names it.
#[derive(Clone, Debug)]
pub(super) struct OfRunner(pub(super) RunnerName, pub(super) Origin);

impl<S: Sync> FromRequestParts<S> for OfRunner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unknown_runner)
    }
}

/// The answer to whoever shows no credential that is good.
pub(super) fn unknown_runner() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, REVOKED, "the credential is not one of a runner (any more)")
        .next("register the runner again: windlass-runner register")
}

/// Refuses a runner that speaks another version, before its message is read: it may not be readable.
fn check_protocol(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(PROTOCOL_HEADER).and_then(|value| value.to_str().ok());
    match given.and_then(|given| given.parse::<u32>().ok()) {
        Some(PROTOCOL_VERSION) => Ok(()),
        Some(other) => Err(incompatible(other)),
        None => {
            let detail = format!("the header {PROTOCOL_HEADER} with the version of the protocol is missing");
            Err(Problem::new(StatusCode::BAD_REQUEST, "bad-protocol", detail))
        }
    }
}

fn incompatible(version: u32) -> Problem {
    let kind = pipelines::protocol::INCOMPATIBLE_PROBLEM;
    Problem::new(StatusCode::UPGRADE_REQUIRED, kind, protocol_mismatch(version))
}

fn message<T: DeserializeOwned>(app: &App, headers: &HeaderMap, body: &Bytes) -> Result<T, Problem> {
    check_protocol(headers)?;
    let max = app.config.bounds.runner_message_bytes_max;
    let too_large = || {
        let detail = format!("the message is larger than {max} bytes (bounds.runner_message_bytes_max)");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    };
    let bad = |why: String| Problem::new(StatusCode::BAD_REQUEST, "bad-message", why);
    let unpacked = match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None => body.clone(),
        Some(b"gzip") => {
            let mut text = Vec::new();
            // One byte more than allowed shows that there is more.
            let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
            flate2::read::GzDecoder::new(body.as_ref())
                .take(limit)
                .read_to_end(&mut text)
                .map_err(|error| bad(format!("the message cannot be unpacked: {error}")))?;
            text.into()
        }
        Some(_) => return Err(bad("a message is plain or packed with gzip".into())),
    };
    if unpacked.len() > max {
        return Err(too_large());
    }
    serde_json::from_slice(&unpacked).map_err(|error| bad(format!("the message cannot be read: {error}")))
}

/// Registers a runner by a token.
pub(super) async fn register(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Registered>, Problem> {
    let RegisterRequest { token, name, secret, about } = message(&app, &headers, &body)?;
    let record = app.runner_register(&remote, Registration { token, name, secret, about }).await?;
    Ok(Json(Registered { name: record.name }))
}

/// Gives a runner another secret.
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    OfRunner(name, origin): OfRunner,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Registered>, Problem> {
    let RotateRequest { secret } = message(&app, &headers, &body)?;
    app.runner_rotate(&name, &secret, origin).await?;
    Ok(Json(Registered { name }))
}

/// Gives out work; waits for it. A runner that hangs up ends the question.
pub(super) async fn lease(
    State(app): State<Arc<App>>,
    OfRunner(name, origin): OfRunner,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    app.runner_asks(&name)?;
    match message(&app, &headers, &body)? {
        request @ RunnerRequest::Lease { .. } => answer(app.agent_request_by(&name, origin, request).await),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "bad-message", "only a question for work belongs here")),
    }
}

/// Takes what a runner tells of a run, and answers what it asks about one.
pub(super) async fn call(
    State(app): State<Arc<App>>,
    OfRunner(name, origin): OfRunner,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    match message(&app, &headers, &body)? {
        RunnerRequest::Lease { .. } => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "bad-message", "a question for work has an address of its own"))
        }
        request => answer(app.agent_request_by(&name, origin, request).await),
    }
}

fn answer(reply: Result<ServerReply, crate::app::AppError>) -> Result<Response, Problem> {
    Ok(Json(reply?).into_response())
}
