//! The stations of a row, in one word each, for programs. One arm for each state, so that every state has its station.
//! Not here: the stations of the pages, which say more.

use pipelines::{
    protocol::Blame,
    release::{Release, ReleaseState as S},
    run::{Run, RunState},
    time::UnixMs,
    why::Why,
};

use super::super::model::Station;
use crate::app::board::{ServiceRow, Subject};

const NAMES: [&str; 8] =
    ["commit", "build", "test_registry", "test", "approval", "production_registry", "rollout", "live"];

/// A state's word and when it was reached.
type At = (&'static str, Option<UnixMs>);

const TO_COME: At = ("to_come", None);

pub(super) fn stations(row: &ServiceRow) -> Vec<Station> {
    let mut found = [TO_COME; 8];
    if let Some(run) = &row.run {
        found[0] = ("done", Some(run.created_at));
        found[1] = build(run);
        found[2] = run.digest().map_or(TO_COME, |_| ("done", run.finished_at));
    }
    if let Some(release) = row.release.as_deref().filter(|_| row.subject == Subject::Release) {
        let is_fault = matches!(row.why, Why::Fault(_));
        found[3..].copy_from_slice(&[
            test(release, is_fault),
            approval(release),
            promotion(release, is_fault),
            rollout(release, is_fault),
            live(release),
        ]);
    }
    let named = NAMES.into_iter().zip(found);
    named
        .map(|(name, (state, at))| Station { name: name.into(), state: state.into(), at_ms: at.map(|at| at.0) })
        .collect()
}

fn build(run: &Run) -> At {
    match &run.state {
        RunState::Queued => ("waiting", Some(run.created_at)),
        RunState::Running { .. } | RunState::Cancelling { .. } => ("moving", run.started_at),
        RunState::Succeeded { .. } | RunState::Passed => ("done", run.finished_at),
        RunState::Failed { blame: Blame::Code, .. } => ("failed", run.finished_at),
        RunState::Failed { blame: Blame::Infrastructure, .. } => ("fault", run.finished_at),
        RunState::Held { .. } | RunState::Declined { .. } | RunState::Cancelled => ("stopped", run.finished_at),
    }
}

fn moving(is_fault: bool, release: &Release) -> At {
    (if is_fault { "fault" } else { "moving" }, Some(release.changed_at))
}

fn test(release: &Release, is_fault: bool) -> At {
    match (&release.state, release.tested_at) {
        (S::WaitingForTest { .. }, _) => ("waiting", Some(release.changed_at)),
        (S::DeployingTest, _) => moving(is_fault, release),
        (S::TestFailed { .. }, _) => ("failed", Some(release.changed_at)),
        (_, Some(at)) => ("done", Some(at)),
        (_, None) => ("stopped", Some(release.changed_at)),
    }
}

fn approval(release: &Release) -> At {
    let changed = Some(release.changed_at);
    match (&release.state, &release.approved) {
        (_, Some((at, _))) => ("done", Some(*at)),
        (S::AwaitingApproval, None) => ("waiting", changed),
        (S::Rejected { .. }, None) => ("failed", changed),
        (S::Expired, None) => ("stopped", changed),
        (S::Superseded { .. }, None) if release.tested_at.is_some() => ("stopped", changed),
        (_, None) => TO_COME,
    }
}

fn promotion(release: &Release, is_fault: bool) -> At {
    match (&release.state, release.promoted_at) {
        (S::Promoting, _) => moving(is_fault, release),
        (_, Some(at)) => ("done", Some(at)),
        (_, None) => TO_COME,
    }
}

fn rollout(release: &Release, is_fault: bool) -> At {
    let changed = Some(release.changed_at);
    match release.state {
        S::WaitingForRollout => ("waiting", changed),
        S::RollingOut => moving(is_fault, release),
        S::RolledBack { .. } => ("failed", changed),
        S::Superseded { .. } if release.promoted_at.is_some() => ("stopped", changed),
        S::Live | S::Retired { .. } => ("done", release.live_at),
        _ => TO_COME,
    }
}

fn live(release: &Release) -> At {
    match release.state {
        S::Live => ("done", release.live_at),
        S::Retired { .. } => ("stopped", Some(release.changed_at)),
        _ => TO_COME,
    }
}
