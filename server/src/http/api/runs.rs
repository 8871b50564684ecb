//! Runs: listing, starting by hand, stopping, running again.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use pipelines::ids::RunId;

use super::{
    Paging, Reply, convert,
    model::{self, Answer, List},
    reply,
};
use crate::{
    app::App,
    http::{
        access::Signed,
        extract::{Ask, Body, OfRun, OfService},
        problem::Problem,
        request_id::traceparent,
    },
};

/// Runs of a service, newest first.
#[utoipa::path(get, path = "/api/v1/services/{service}/runs", tag = "runs",
    params(("service" = String, Path), Paging),
    responses((status = 200, body = Answer<List<model::Run>>, description = "a page of them")))]
pub async fn list_runs(
    State(app): State<Arc<App>>,
    OfService(name): OfService,
    Ask(paging): Ask<Paging>,
) -> Reply<List<model::Run>> {
    app.service(&name)?;
    let runs = app.runs(&name, paging.page())?;
    let items = runs.iter().map(|run| convert::run(&app, run)).collect::<Result<Vec<_>, _>>()?;
    reply(paging.list(items, |run| run.number.into()))
}

/// Starts a run of the newest commit of a ref.
#[utoipa::path(post, path = "/api/v1/services/{service}/runs", tag = "runs", params(("service" = String, Path)),
    request_body = model::NewRun,
    responses((status = 201, body = Answer<model::Run>, description = "it is recorded")))]
pub async fn start_run(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfService(name): OfService,
    headers: HeaderMap,
    Body(new): Body<model::NewRun>,
) -> Result<Response, Problem> {
    let id = app.run_create(&name, new.git_ref, caller.origin(), traceparent(&headers)).await?;
    created(&app, &id)
}

/// A run.
#[utoipa::path(get, path = "/api/v1/services/{service}/runs/{number}", tag = "runs",
    params(("service" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = Answer<model::Run>, description = "it")))]
pub async fn show_run(State(app): State<Arc<App>>, OfRun(id): OfRun) -> Reply<model::Run> {
    reply(convert::run(&app, &app.run(&id)?)?)
}

/// Stops a run. One that a runner has is stopped when the runner confirms.
#[utoipa::path(post, path = "/api/v1/services/{service}/runs/{number}/cancel", tag = "runs",
    params(("service" = String, Path), ("number" = u32, Path)), request_body = model::Cancel,
    responses((status = 200, body = Answer<model::Run>, description = "as it is now")))]
pub async fn cancel_run(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRun(id): OfRun,
    Body(cancel): Body<model::Cancel>,
) -> Reply<model::Run> {
    app.run_cancel(&id, cancel.reason, caller.origin()).await?;
    reply(convert::run(&app, &app.run(&id)?)?)
}

/// Lets a held run go on: a pull request from a fork.
#[utoipa::path(post, path = "/api/v1/services/{service}/runs/{number}/allow", tag = "runs",
    params(("service" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = Answer<model::Run>, description = "as it is now")))]
pub async fn allow_run(State(app): State<Arc<App>>, Signed(caller): Signed, OfRun(id): OfRun) -> Reply<model::Run> {
    app.run_allow(&id, caller.origin()).await?;
    reply(convert::run(&app, &app.run(&id)?)?)
}

/// Refuses a held run.
#[utoipa::path(post, path = "/api/v1/services/{service}/runs/{number}/decline", tag = "runs",
    params(("service" = String, Path), ("number" = u32, Path)), request_body = model::Decline,
    responses((status = 200, body = Answer<model::Run>, description = "as it is now")))]
pub async fn decline_run(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRun(id): OfRun,
    Body(decline): Body<model::Decline>,
) -> Reply<model::Run> {
    app.run_decline(&id, decline.reason, caller.origin()).await?;
    reply(convert::run(&app, &app.run(&id)?)?)
}

/// Runs the same commit once more.
#[utoipa::path(post, path = "/api/v1/services/{service}/runs/{number}/rerun", tag = "runs",
    params(("service" = String, Path), ("number" = u32, Path)),
    responses((status = 201, body = Answer<model::Run>, description = "the new run")))]
pub async fn rerun_run(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRun(id): OfRun,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = app.run_rerun(&id, caller.origin(), traceparent(&headers)).await?;
    created(&app, &id)
}

fn created(app: &App, id: &RunId) -> Result<Response, Problem> {
    Ok((StatusCode::CREATED, reply(convert::run(app, &app.run(id)?)?)).into_response())
}
