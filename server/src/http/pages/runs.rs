//! The page of a run: its steps, its log, and what can be done to it.

mod follow;
mod log;
mod stream;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use pipelines::{
    release::Release,
    run::{Run, RunState},
};
use serde::Deserialize;

use super::{
    Fields, Visit,
    convert::{page_ms, page_role, run as convert, span, train, version, why::Reader},
    see, show,
};
use crate::{
    app::{App, AppError, Page, Role},
    http::{
        extract::OfRun,
        problem::Problem,
        ui::{
            Disabled, Press, links,
            run::{AskView, RunView},
        },
    },
};

pub(in crate::http) use follow::Follows;
pub(in crate::http) use stream::stream_run;

/// Runs before this one that the usual times are taken from.
const MEDIAN_RUNS: usize = 20;
/// Characters of a reason to stop a run.
const REASON_CHARS_MAX: usize = 200;

/// What the page of a run is asked with.
#[derive(Debug, Default, Deserialize)]
pub struct RunQuery {
    /// Shows the log of this step.
    step: Option<String>,
    /// From this line on.
    from: Option<u64>,
    /// Searches the logs.
    q: Option<String>,
}

/// The page of a run.
pub(in crate::http) async fn show_run(
    visit: Visit,
    OfRun(id): OfRun,
    Query(query): Query<RunQuery>,
) -> Result<Response, Problem> {
    let run = visit.app.run(&id)?;
    let log = log::log(&visit.app, &run, &query).await?;
    let view = run_view(&visit, &run, log)?;
    Ok(show!(visit, view))
}

fn release_of(app: &App, run: &Run) -> Result<Option<Release>, AppError> {
    match app.release(&run.id.release()) {
        Ok(release) => Ok(Some(release)),
        Err(AppError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn run_view(visit: &Visit, run: &Run, log: crate::http::ui::log::LogView) -> Result<RunView, Problem> {
    let app = &visit.app;
    let (service, number) = (run.id.service.as_str(), u64::from(run.id.number));
    let now = app.now();
    let before = app.runs(&run.id.service, Page { before: Some(run.id.number), limit: MEDIAN_RUNS })?;
    let before: Vec<Run> = before.into_iter().filter(|run| run.digest().is_some()).collect();
    let release = release_of(app, run)?;
    let live = app.release_live(&run.id.service)?;
    let approval = release.as_ref().map(|release| app.approval_maybe(&release.id)).transpose()?.flatten();
    let rollout = release.as_ref().map(|release| app.rollout_of(&release.id)).transpose()?.flatten();
    let reason = app.run_why(run)?;
    let facts = train::Facts {
        run: Some(run),
        release: release.as_ref(),
        approval: approval.as_ref(),
        rollout: rollout.as_ref(),
        live: live.as_ref(),
        fault: matches!(reason, pipelines::why::Why::Fault(_)),
        caller: visit.caller.as_ref(),
        linked: true,
    };
    let reader = Reader { caller: visit.caller.as_ref(), approval: approval.as_ref(), now_ms: visit.ctx.clock.now_ms };
    let position = match &reason {
        pipelines::why::Why::RunQueued { position, of } => (*position as u64, *of as u64),
        _ => (1, 1),
    };
    let ended = convert::ended_at(run);
    let ask = ask_view(visit, run)?;
    let cannot_rerun = match ended {
        None => Some(Disabled::RunNotEnded),
        Some(_) => None,
    };
    Ok(RunView {
        service: service.to_owned(),
        run: number,
        commit: run.trigger.commit.short().to_owned(),
        subject: run.trigger.subject.clone(),
        ref_name: run.trigger.ref_name(),
        by: convert::started_by(run),
        trigger: convert::trigger(run),
        at_ms: page_ms(run.created_at),
        took_ms: convert::took_ms(run, now),
        state: convert::state(run, position),
        why: Some(reader.why(run.id.number, &reason)),
        stays_live: live.as_ref().map(version),
        ask,
        // The runner writes them into the log of the step that read the file.
        problems: Vec::new(),
        digest: run.digest().map(ToString::to_string),
        train: release.as_ref().map(|_| train::train(&facts)),
        steps: convert::steps(run, &before, now),
        median_over: before.len() as u64,
        log,
        rerun: Press::to(links::run_verb(service, number, "rerun")).unless(cannot_rerun),
        cancel: Press::to(links::run_verb(service, number, "cancel"))
            .unless(ended.map(|at_ms| Disabled::RunEnded { at_ms })),
    })
}

/// The question about a held run.
fn ask_view(visit: &Visit, run: &Run) -> Result<Option<AskView>, Problem> {
    if !matches!(run.state, RunState::Held { .. }) {
        return Ok(None);
    }
    let may = visit.caller.as_ref().is_some_and(|caller| caller.may(Role::ReleaseManager));
    let not_allowed = (!may).then_some(Disabled::NotAllowed { role: page_role(Role::ReleaseManager) });
    let (service, number) = (run.id.service.as_str(), u64::from(run.id.number));
    let press = |verb| Press::to(links::run_verb(service, number, verb)).unless(not_allowed.clone());
    Ok(Some(AskView {
        allow: press("allow"),
        decline: press("decline"),
        compare_href: visit.app.run_comparison(run)?,
        proposal: run.proposal.clone(),
    }))
}

/// The logs of all steps as plain text, one after the other, read piece by piece.
pub(in crate::http) async fn show_log(State(app): State<Arc<App>>, OfRun(id): OfRun) -> Result<Response, Problem> {
    app.run(&id)?;
    let body = Body::from_stream(log::whole(app, id));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
    Ok(response)
}

/// Runs the commit once more.
pub(in crate::http) async fn rerun_run(visit: Visit, OfRun(id): OfRun) -> Result<Response, Problem> {
    let again = visit.app.run_rerun(&id, visit.caller()?.origin(), None).await?;
    Ok(see(&links::run(id.service.as_str(), u64::from(again.number))))
}

/// Lets a held run go on.
pub(in crate::http) async fn allow_run(visit: Visit, OfRun(id): OfRun) -> Result<Response, Problem> {
    visit.app.run_allow(&id, visit.caller()?.origin()).await?;
    Ok(see(&links::run(id.service.as_str(), u64::from(id.number))))
}

/// Refuses a held run.
pub(in crate::http) async fn decline_run(visit: Visit, OfRun(id): OfRun, fields: Fields) -> Result<Response, Problem> {
    let reason = fields.trimmed("reason").chars().take(REASON_CHARS_MAX).collect();
    visit.app.run_decline(&id, reason, visit.caller()?.origin()).await?;
    Ok(see(&links::run(id.service.as_str(), u64::from(id.number))))
}

/// Stops the run.
pub(in crate::http) async fn cancel_run(visit: Visit, OfRun(id): OfRun, fields: Fields) -> Result<Response, Problem> {
    let reason = fields.trimmed("reason").chars().take(REASON_CHARS_MAX).collect();
    visit.app.run_cancel(&id, reason, visit.caller()?.origin()).await?;
    Ok(see(&links::run(id.service.as_str(), u64::from(id.number))))
}

/// How long something is, for the log's groups.
fn took(first_ms: u64, last_ms: u64) -> i64 {
    span(last_ms.saturating_sub(first_ms))
}
