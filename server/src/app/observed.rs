//! What a decided change means to whoever watches from outside: a run that ended, a release that moved on. Found before the
//! change is stored, told after it was. Not here: what is made of it (`metrics`).

use pipelines::{
    approval::{Approval, ApprovalState},
    release::Release,
    rollout::{Rollout, judge},
    run::{Run, RunState},
    time::UnixMs,
    train::{Change, Records},
};

/// One thing that a change does.
#[derive(Clone, Debug)]
pub(crate) enum Observed {
    /// A runner took a run.
    RunStarted(Box<Run>),
    /// A run is over.
    RunEnded(Box<Run>),
    /// A release came to another state; before: none where it has just begun.
    ReleaseMoved {
        /// As it was.
        before: Option<Box<Release>>,
        /// As it is.
        release: Box<Release>,
    },
    /// The testers' decision is over.
    ApprovalEnded(Box<Approval>),
    /// A rollout is over.
    RolloutEnded(Box<Rollout>),
    /// The judge looked at a stage.
    Judged(judge::Outcome),
}

/// What `change` does to what `records` has. A record that cannot be read counts as new: the change itself decides whether
/// anything is stored.
pub(super) fn observed(records: &dyn Records, change: &Change, at: UnixMs) -> Vec<Observed> {
    let mut all = Vec::new();
    for run in change.runs.values() {
        let before = records.run(&run.id).ok().flatten();
        let was = |is: fn(&RunState) -> bool| before.as_ref().is_some_and(|before| is(&before.state));
        let is_running: fn(&RunState) -> bool = |state| matches!(state, RunState::Running { .. });
        if is_running(&run.state) && !was(is_running) {
            all.push(Observed::RunStarted(Box::new(run.clone())));
        }
        if run.state.is_final() && !was(RunState::is_final) {
            all.push(Observed::RunEnded(Box::new(run.clone())));
        }
    }
    for release in change.releases.values() {
        let before = records.release(&release.id).ok().flatten();
        if before.as_ref().is_none_or(|before| before.state.word() != release.state.word()) {
            all.push(Observed::ReleaseMoved { before: before.map(Box::new), release: Box::new(release.clone()) });
        }
    }
    for approval in change.approvals.values() {
        let before = records.approval(&approval.release).ok().flatten();
        let was_open = before.is_some_and(|before| before.state == ApprovalState::Open);
        if was_open && approval.state != ApprovalState::Open {
            all.push(Observed::ApprovalEnded(Box::new(approval.clone())));
        }
    }
    for rollout in change.rollouts.values() {
        let before = records.rollout(&rollout.id).ok().flatten();
        if rollout.state.is_final() && before.is_none_or(|before| !before.state.is_final()) {
            all.push(Observed::RolloutEnded(Box::new(rollout.clone())));
        }
        let last = rollout.samples.last().filter(|sample| sample.at == at);
        let judged = last.filter(|sample| rollout.stages.get(sample.stage).is_some_and(|stage| stage.judged));
        all.extend(judged.map(|sample| Observed::Judged(sample.judgement.outcome)));
    }
    all
}
