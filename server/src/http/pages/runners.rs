//! The page of the queue and the runners: what waits and why, who works on what, and the verbs of operators.

use axum::{extract::Path, http::StatusCode, response::Response};
use pipelines::ids::{RunId, RunnerName};

use super::{
    Fields, Visit,
    convert::{page_ms, why::Reader},
    see, show,
};
use crate::{
    app::{
        AppError, Role,
        runners::{NewRunnerToken, RunnerRow, WaitingRun},
    },
    http::{
        problem::Problem,
        ui::{
            Disabled, Press, Role as PageRole, links,
            runners::{RunLink, RunnerLine, RunnerState, RunnersView, WaitingLine},
        },
    },
};

/// Runs that wait, shown at once.
const WAITING_MAX: usize = 100;
/// Characters of a token's name.
const LABEL_CHARS_MAX: usize = 60;

fn run_link(run: &RunId) -> RunLink {
    RunLink { service: run.service.to_string(), number: u64::from(run.number) }
}

fn runner_line(row: &RunnerRow, forbidden: Option<&Disabled>) -> RunnerLine {
    let record = &row.record;
    let press = |verb: &str| Press::to(links::runner_verb(record.name.as_str(), verb)).unless(forbidden.cloned());
    let is_draining = record.state == crate::app::RunnerState::Draining;
    RunnerLine {
        name: record.name.to_string(),
        embedded: record.embedded,
        state: match (row.is_there, is_draining) {
            (false, _) => RunnerState::Silent,
            (true, true) => RunnerState::Draining,
            (true, false) => RunnerState::Active,
        },
        heard_at_ms: page_ms(record.heard_at),
        labels: record.labels().to_string(),
        capacity: u64::from(record.about.capacity),
        version: record.about.version.clone(),
        runs: row.runs.iter().map(run_link).collect(),
        steer: (if is_draining { "resume" } else { "drain" }, press(if is_draining { "resume" } else { "drain" })),
        remove: (!record.embedded).then(|| press("remove")),
    }
}

fn waiting_line(visit: &Visit, waiting: &WaitingRun) -> WaitingLine {
    WaitingLine {
        run: run_link(&waiting.run.id),
        position: waiting.position as u64,
        since_ms: page_ms(waiting.run.created_at),
        why: Reader { caller: visit.caller.as_ref(), approval: None, now_ms: visit.ctx.clock.now_ms }
            .why(waiting.run.id.number, &waiting.why),
        lost: waiting.run.lost.iter().map(ToString::to_string).collect(),
    }
}

fn view(visit: &Visit) -> Result<RunnersView, Problem> {
    let forbidden = (!visit.may(Role::Operator)).then_some(Disabled::NotAllowed { role: PageRole::Operator });
    let waiting = visit.app.runs_waiting(WAITING_MAX)?;
    Ok(RunnersView {
        waiting_in_all: visit.app.queue().work().waiting.len() as u64,
        waiting: waiting.iter().map(|waiting| waiting_line(visit, waiting)).collect(),
        runners: visit.app.runners()?.iter().map(|row| runner_line(row, forbidden.as_ref())).collect(),
        can_register: forbidden.is_none(),
        new_token: None,
        server_url: visit.app.config.public_url.clone(),
    })
}

/// The queue and the runners.
pub(in crate::http) async fn show_runners(visit: Visit) -> Result<Response, Problem> {
    let view = view(&visit)?;
    Ok(show!(visit, view))
}

/// Drains, resumes or removes a runner.
pub(in crate::http) async fn steer_runner(
    visit: Visit,
    Path((name, verb)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let unknown = |_| AppError::NotFound { what: "runner", id: name.chars().take(64).collect() };
    let name: RunnerName = name.parse().map_err(unknown)?;
    let origin = visit.caller()?.origin();
    match verb.as_str() {
        "drain" => visit.app.runner_drain(&name, true, origin).await?,
        "resume" => visit.app.runner_drain(&name, false, origin).await?,
        "remove" => visit.app.runner_remove(&name, origin).await?,
        _ => return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", "a runner has no such verb")),
    }
    Ok(see(links::RUNNERS))
}

/// Makes a token that registers one runner; it is shown this once.
pub(in crate::http) async fn create_runner_token(visit: Visit, fields: Fields) -> Result<Response, Problem> {
    let label = fields.trimmed("label").chars().take(LABEL_CHARS_MAX).collect();
    let new = NewRunnerToken { label, uses: 1, life_ms: None };
    let (token, record) = visit.app.runner_token_create(visit.caller()?, new).await?;
    let new_token = Some((token.expose().to_owned(), page_ms(record.expires_at)));
    let view = RunnersView { new_token, ..view(&visit)? };
    Ok(show!(visit, view))
}
