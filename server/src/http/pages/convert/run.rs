//! A run and its steps as the page shows them. Not here: the log (`runs::log`).

use pipelines::{
    protocol::{Blame, StepOutcome},
    run::{Run, RunState, StepRecord},
    time::UnixMs,
    trigger::{TriggerKind, TriggerSource},
};

use super::{page_ms, span, why::phase};
use crate::http::ui::run::{RunState as PageState, StepState, StepView, Trigger};

/// The state of a run; `position` is its place among those that wait.
pub(in crate::http::pages) fn state(run: &Run, position: (u64, u64)) -> PageState {
    let running = |step: &&StepRecord| step.started_at.is_some() && step.finished_at.is_none();
    let failed = |step: &&StepRecord| matches!(step.outcome, Some(StepOutcome::Failed { .. }));
    let at = |step: Option<&StepRecord>| phase(step.map(|step| step.name.as_str()));
    match &run.state {
        RunState::Held { .. } => PageState::Held,
        RunState::Declined { .. } => PageState::Declined,
        RunState::Queued => PageState::Queued { position: position.0, of: position.1 },
        RunState::Running { .. } | RunState::Cancelling { .. } => {
            PageState::Running { phase: at(run.steps.iter().find(running)) }
        }
        RunState::Succeeded { .. } | RunState::Passed => PageState::Passed,
        RunState::Failed { blame: Blame::Infrastructure, .. } => {
            PageState::Fault { phase: at(run.steps.iter().find(failed)) }
        }
        RunState::Failed { .. } if run.plan.is_none() && run.commit.is_some() => PageState::FileInvalid,
        RunState::Failed { .. } => PageState::Failed { phase: at(run.steps.iter().find(failed)) },
        RunState::Cancelled => PageState::Cancelled,
    }
}

/// What started a run.
pub(in crate::http::pages) fn trigger(run: &Run) -> Trigger {
    match (run.rerun_of.is_some(), run.trigger.source, run.trigger.kind) {
        (true, ..) => Trigger::Rerun,
        (_, TriggerSource::Poll, _) => Trigger::Poll,
        (_, _, TriggerKind::Push) => Trigger::Push,
        (_, _, TriggerKind::Tag) => Trigger::Tag,
        (_, _, TriggerKind::PullRequest) => Trigger::PullRequest,
        (_, _, TriggerKind::Manual) => Trigger::Manual,
    }
}

/// Who pushed or started a run.
pub(in crate::http::pages) fn started_by(run: &Run) -> String {
    run.trigger.requested_by.clone().unwrap_or_else(|| run.trigger.author.clone())
}

/// The state of a step.
pub(in crate::http::pages) fn step_state(run: &Run, step: &StepRecord) -> StepState {
    match &step.outcome {
        Some(StepOutcome::Passed) => StepState::Passed,
        Some(StepOutcome::Skipped { .. }) if run.reused_from.is_some() => StepState::Reused,
        Some(StepOutcome::Skipped { .. }) => StepState::Skipped,
        Some(StepOutcome::Failed { blame: Blame::Code, .. }) => StepState::Failed,
        Some(StepOutcome::Failed { blame: Blame::Infrastructure, .. }) => StepState::Fault,
        Some(StepOutcome::Cancelled) => StepState::Cancelled,
        None if step.started_at.is_some() => StepState::Running,
        None if run.state.is_final() => StepState::NotReached,
        None => StepState::Waiting,
    }
}

/// How long a step took, or takes so far.
pub(in crate::http::pages) fn step_took_ms(step: &StepRecord, now: UnixMs) -> Option<i64> {
    let started = step.started_at?;
    Some(span(step.finished_at.unwrap_or(now).since_ms(started)))
}

/// How long a run took, or takes so far.
pub(in crate::http::pages) fn took_ms(run: &Run, now: UnixMs) -> Option<i64> {
    let started = run.started_at?;
    Some(span(run.finished_at.unwrap_or(now).since_ms(started)))
}

/// The steps with the medians of the runs before.
pub(in crate::http::pages) fn steps(run: &Run, before: &[Run], now: UnixMs) -> Vec<StepView> {
    run.steps
        .iter()
        .map(|step| StepView {
            name: step.name.clone(),
            state: step_state(run, step),
            took_ms: step_took_ms(step, now),
            usual_ms: usual_ms(&step.name, before),
        })
        .collect()
}

fn usual_ms(name: &str, before: &[Run]) -> Option<i64> {
    let mut times: Vec<u64> = before
        .iter()
        .filter_map(|run| run.steps.iter().find(|step| step.name == name && step.outcome == Some(StepOutcome::Passed)))
        .filter_map(|step| Some(step.finished_at?.since_ms(step.started_at?)))
        .collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().map(span)
}

/// When a run ended, for the button that can no longer be pressed.
pub(in crate::http::pages) fn ended_at(run: &Run) -> Option<i64> {
    run.state.is_final().then(|| page_ms(run.finished_at.unwrap_or(run.created_at)))
}
