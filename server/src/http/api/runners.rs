//! Runners, the tokens that register them, and what waits for one.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{
    Reply, convert,
    model::{self, Answer, Done, List},
    reply,
};
use crate::{
    app::{App, runners::NewRunnerToken},
    http::{
        access::Signed,
        extract::{Body, NamedRunner, OfToken},
        problem::Problem,
    },
};

/// Runs that wait for a runner, listed at once.
const WAITING_MAX: usize = 500;

/// All runners, by name.
#[utoipa::path(get, path = "/api/v1/runners", tag = "runners",
    responses((status = 200, body = Answer<List<model::Runner>>, description = "all that were not removed")))]
pub async fn list_runners(State(app): State<Arc<App>>) -> Reply<List<model::Runner>> {
    reply(List::all(app.runners()?.iter().map(convert::runner).collect()))
}

/// Runs that wait for a runner, in the order in which they are given out.
#[utoipa::path(get, path = "/api/v1/waiting-runs", tag = "runners",
    responses((status = 200, body = Answer<List<model::WaitingRun>>, description = "the first 500")))]
pub async fn list_waiting_runs(State(app): State<Arc<App>>) -> Reply<List<model::WaitingRun>> {
    reply(List::all(app.runs_waiting(WAITING_MAX)?.iter().map(convert::waiting_run).collect()))
}

/// Gives a runner nothing new; what it has it finishes.
#[utoipa::path(post, path = "/api/v1/runners/{runner}/drain", tag = "runners", params(("runner" = String, Path)),
    responses((status = 200, body = Answer<Done>, description = "it is draining")))]
pub async fn drain_runner(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    NamedRunner(name): NamedRunner,
) -> Reply<Done> {
    app.runner_drain(&name, true, caller.origin()).await?;
    reply(Done { done: format!("runner {name} finishes what it has and gets nothing new") })
}

/// Gives a runner work again.
#[utoipa::path(post, path = "/api/v1/runners/{runner}/resume", tag = "runners", params(("runner" = String, Path)),
    responses((status = 200, body = Answer<Done>, description = "it is given work")))]
pub async fn resume_runner(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    NamedRunner(name): NamedRunner,
) -> Reply<Done> {
    app.runner_drain(&name, false, caller.origin()).await?;
    reply(Done { done: format!("runner {name} is given work again") })
}

/// Takes a runner's credential away at once; its runs are given to others.
#[utoipa::path(delete, path = "/api/v1/runners/{runner}", tag = "runners", params(("runner" = String, Path)),
    responses((status = 200, body = Answer<Done>, description = "it is let in no more")))]
pub async fn remove_runner(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    NamedRunner(name): NamedRunner,
) -> Reply<Done> {
    app.runner_remove(&name, caller.origin()).await?;
    reply(Done { done: format!("runner {name} is removed, and its runs wait for another one") })
}

/// The tokens that register runners and are good.
#[utoipa::path(get, path = "/api/v1/runner-tokens", tag = "runners",
    responses((status = 200, body = Answer<List<model::RunnerToken>>, description = "without what opens anything")))]
pub async fn list_runner_tokens(State(app): State<Arc<App>>) -> Reply<List<model::RunnerToken>> {
    reply(List::all(app.runner_tokens()?.into_iter().map(|(id, token)| convert::runner_token(id, &token)).collect()))
}

/// Makes a token that registers runners.
#[utoipa::path(post, path = "/api/v1/runner-tokens", tag = "runners", request_body = model::NewRunnerToken,
    responses((status = 201, body = Answer<model::RunnerTokenSecret>, description = "the token, this once")))]
pub async fn create_runner_token(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(new): Body<model::NewRunnerToken>,
) -> Result<Response, Problem> {
    let new = NewRunnerToken { label: new.label, uses: new.uses, life_ms: new.life_ms };
    let (token, record) = app.runner_token_create(&caller, new).await?;
    let secret = model::RunnerTokenSecret { token, expires_at_ms: record.expires_at.0 };
    Ok((StatusCode::CREATED, reply(secret)).into_response())
}

/// Takes such a token back; the runners that it registered stay.
#[utoipa::path(delete, path = "/api/v1/runner-tokens/{id}", tag = "runners", params(("id" = String, Path)),
    responses((status = 200, body = Answer<Done>, description = "it registers nobody any more")))]
pub async fn delete_runner_token(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfToken(id): OfToken,
) -> Reply<Done> {
    app.runner_token_delete(&id, caller.origin()).await?;
    reply(Done { done: format!("the token {id} registers nobody any more") })
}
