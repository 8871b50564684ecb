//! From records to the reason. One arm for each state, so that no state is without one.

use super::{BackCause, FailedCheck, Fault, Why};
use crate::{
    approval::{Approval, ApprovalState},
    plan::Strategy,
    protocol::{Blame, StepOutcome},
    release::{Release, ReleaseState},
    rollout::{ABORTED_BY, Cause, Pause, Rollout, RolloutState, judge::Outcome},
    run::{Run, RunState},
    time::UnixMs,
};

/// What the reason of a run rests on.
#[derive(Clone, Debug)]
pub struct RunFacts<'a> {
    /// The run.
    pub run: &'a Run,
    /// Its place among those that wait, from 1, and how many do.
    pub position: Option<(usize, usize)>,
    /// Whether a runner that is there could take it.
    pub has_runner: bool,
    /// How long runs of this service usually take, in milliseconds.
    pub usual_ms: Option<u64>,
    /// Who stopped it.
    pub cancelled_by: Option<String>,
}

/// What the reason of a release rests on.
#[derive(Clone, Debug)]
pub struct ReleaseFacts<'a> {
    /// The release.
    pub release: &'a Release,
    /// Its approval, once it has one.
    pub approval: Option<&'a Approval>,
    /// Its last rollout, once it has one.
    pub rollout: Option<&'a Rollout>,
    /// The release that the running rollout is of.
    pub rolling_out: Option<u32>,
    /// The approval of the release that it waits behind.
    pub behind: Option<&'a Approval>,
    /// Who wrote the commit of the release that took its place.
    pub superseded_by: Option<String>,
    /// What the infrastructure keeps from happening.
    pub fault: Option<Fault>,
    /// Those of the asked to whom no mail could be sent yet.
    pub unreached: Vec<String>,
    /// How far its promotion is, in bytes.
    pub promoted_bytes: Option<(u64, u64)>,
    /// Now.
    pub at: UnixMs,
}

/// The reason of a run.
#[must_use]
pub fn why_run(facts: &RunFacts<'_>) -> Why {
    let run = facts.run;
    let reason = || run.cancel_reason.clone().unwrap_or_default();
    match &run.state {
        RunState::Held { reason } => Why::RunHeld { reason: reason.clone() },
        RunState::Declined { reason } => Why::RunDeclined { reason: reason.clone() },
        RunState::Queued if !facts.has_runner => Why::NoRunner { labels: run.labels.clone() },
        RunState::Queued => {
            let (position, of) = facts.position.unwrap_or((1, 1));
            Why::RunQueued { position, of }
        }
        RunState::Running { .. } => Why::RunRunning {
            step: running_step(run),
            since: run.started_at.unwrap_or(run.created_at),
            usual_ms: facts.usual_ms,
        },
        RunState::Cancelling { .. } => Why::RunCancelling { reason: reason() },
        RunState::Cancelled => Why::RunCancelled { by: facts.cancelled_by.clone(), reason: reason() },
        RunState::Failed { blame: Blame::Code, reason } => {
            let (step, exit_code) = failed_step(run);
            Why::CodeFailed { step, exit_code, reason: reason.clone(), author: run.trigger.author.clone() }
        }
        RunState::Failed { blame: Blame::Infrastructure, reason } => {
            Why::RunFault { step: failed_step(run).0, reason: reason.clone() }
        }
        RunState::Succeeded { .. } | RunState::Passed => Why::NoRelease { ref_name: run.trigger.ref_name() },
    }
}

fn running_step(run: &Run) -> Option<String> {
    let running = |step: &&crate::run::StepRecord| step.started_at.is_some() && step.finished_at.is_none();
    run.steps.iter().find(running).map(|step| step.name.clone())
}

fn failed_step(run: &Run) -> (Option<String>, Option<i64>) {
    let failed = run.steps.iter().find_map(|step| match &step.outcome {
        Some(StepOutcome::Failed { exit_code, .. }) => Some((step.name.clone(), *exit_code)),
        _ => None,
    });
    failed.map_or((None, None), |(name, exit_code)| (Some(name), exit_code))
}

/// The reason of a release.
#[must_use]
pub fn why_release(facts: &ReleaseFacts<'_>) -> Why {
    let release = facts.release;
    let at = release.changed_at;
    match &release.state {
        ReleaseState::WaitingForTest { behind } => Why::BehindClaim {
            release: *behind,
            by: facts.behind.and_then(|approval| approval.claim.as_ref()).map(|claim| claim.by.clone()),
            until: facts.behind.map(|approval| approval.expires_at),
        },
        ReleaseState::DeployingTest => fault_or(facts, Why::DeployingToTest),
        ReleaseState::TestFailed { reason } => {
            Why::UnhealthyInTest { reason: reason.clone(), author: release.commit.author.clone() }
        }
        ReleaseState::AwaitingApproval => awaiting(facts),
        ReleaseState::Rejected { by, comment } => Why::Rejected { by: by.clone(), at, comment: comment.clone() },
        ReleaseState::Expired => {
            let (have, need) = facts.approval.map_or((0, 1), |approval| (approval.have(), approval.needed.max(1)));
            Why::Expired { at, have, need }
        }
        ReleaseState::Superseded { by } => Why::Superseded { release: *by, by: facts.superseded_by.clone() },
        ReleaseState::Promoting => fault_or(facts, Why::Promoting { bytes: facts.promoted_bytes }),
        ReleaseState::WaitingForRollout => Why::WaitsForRollout { release: facts.rolling_out },
        ReleaseState::RollingOut => match facts.rollout {
            Some(rollout) => fault_or(facts, why_rollout(rollout, facts.at)),
            None => fault_or(facts, Why::Starting),
        },
        ReleaseState::Live => Why::Live { since: release.live_at.unwrap_or(at) },
        ReleaseState::Retired { by } => Why::Retired { release: *by },
        ReleaseState::RolledBack { reason } => rolled_back(facts, reason),
    }
}

fn fault_or(facts: &ReleaseFacts<'_>, otherwise: Why) -> Why {
    facts.fault.clone().map_or(otherwise, Why::Fault)
}

fn awaiting(facts: &ReleaseFacts<'_>) -> Why {
    let Some(approval) = facts.approval.filter(|approval| approval.state == ApprovalState::Open) else {
        let plan = &facts.release.plan.test;
        let (testers, need) = (plan.testers.clone(), plan.approvals.max(1));
        let until = facts.release.changed_at.plus_ms(plan.expires_ms);
        return Why::AwaitingDecision { testers, have: 0, need, short: false, until };
    };
    let until = approval.expires_at;
    match (approval.covering_claim(), &facts.fault) {
        (Some(claim), _) => Why::Claimed { by: claim.by.clone(), since: claim.at, until },
        (None, Some(fault)) => {
            let (to, others) = approval.undecided().into_iter().partition(|email| facts.unreached.contains(email));
            Why::MailWaits { fault: fault.clone(), to, others, until }
        }
        (None, None) => Why::AwaitingDecision {
            testers: approval.undecided(),
            have: approval.have(),
            need: approval.needed.max(1),
            short: approval.is_short_of_people(),
            until,
        },
    }
}

fn why_rollout(rollout: &Rollout, at: UnixMs) -> Why {
    let to = rollout.stable.as_ref().map(|stable| stable.release);
    match &rollout.state {
        RolloutState::Starting => Why::Starting,
        RolloutState::Shifting { stage } => why_stage(rollout, *stage, None),
        RolloutState::Holding { paused: Some(Pause::Person { by }), .. } => Why::Paused { by: by.clone() },
        RolloutState::Holding { stage, until, paused, .. } => {
            let have = rollout.samples.last().filter(|sample| {
                sample.stage == *stage
                    && sample.judgement.outcome == Outcome::Insufficient
                    && !sample.judgement.checks.is_empty()
            });
            let is_judged = rollout.stages.get(*stage).is_some_and(|stage| stage.judged);
            let is_over = at >= *until;
            match (have, paused) {
                (sample, Some(_)) => Why::TooFewRequests {
                    have: sample.map_or(0, |sample| sample.judgement.requests),
                    need: rollout.plan.judge.min_requests,
                    until: None,
                },
                (Some(sample), None) if is_judged && is_over => Why::TooFewRequests {
                    have: sample.judgement.requests,
                    need: rollout.plan.judge.min_requests,
                    until: Some(until.plus_ms(rollout.plan.judge.insufficient_limit_ms)),
                },
                _ => why_stage(rollout, *stage, Some(*until)),
            }
        }
        RolloutState::Draining | RolloutState::Completed => Why::Draining,
        RolloutState::RollingBack { reason }
        | RolloutState::DrainingBack { reason }
        | RolloutState::RolledBack { reason } => Why::RollingBack { reason: reason.clone(), to },
    }
}

fn why_stage(rollout: &Rollout, stage: usize, until: Option<UnixMs>) -> Why {
    let of = rollout.stages.len();
    let percent = rollout.stages.get(stage).map_or(0, |stage| stage.weight_percent);
    // A first rollout and a rollback move everything at once, whatever the strategy.
    let is_at_once = of <= 1 || matches!(rollout.cause, Cause::Rollback { .. });
    match &rollout.plan.strategy {
        Strategy::Canary { .. } if !is_at_once => Why::Canary {
            percent,
            step: stage + 1,
            of,
            next_percent: rollout.stages.get(stage + 1).map(|next| next.weight_percent).filter(|next| *next < 100),
            next_at: until,
        },
        Strategy::BlueGreen { .. } if !is_at_once && percent < 100 => Why::Preview { switches_at: until },
        Strategy::BlueGreen { .. } if !is_at_once => Why::Keeping { until },
        _ => {
            Why::Rolling { ready: u32::try_from(stage).unwrap_or(u32::MAX), of: u32::try_from(of).unwrap_or(u32::MAX) }
        }
    }
}

fn rolled_back(facts: &ReleaseFacts<'_>, reason: &str) -> Why {
    let rollout = facts.rollout.filter(|rollout| matches!(rollout.state, RolloutState::RolledBack { .. }));
    let by = reason.strip_prefix(ABORTED_BY).map(|rest| rest.split(':').next().unwrap_or(rest).to_owned());
    let failed =
        rollout.and_then(|rollout| rollout.samples.last()).filter(|sample| sample.judgement.outcome == Outcome::Fail);
    let check = failed.and_then(|sample| {
        let check = sample.judgement.checks.iter().find(|check| check.outcome == Outcome::Fail)?;
        Some((sample, check))
    });
    let cause = match (by, check) {
        (Some(by), _) => BackCause::Person { by },
        (None, Some((sample, check))) => BackCause::Judge {
            percent: sample.weight_percent,
            check: FailedCheck {
                name: check.name.clone(),
                value: check.value,
                stable: check.stable,
                limit: check.limit,
                p_value: check.p_value,
            },
            requests: sample.judgement.requests,
        },
        (None, None) => BackCause::Other,
    };
    let to = rollout.and_then(|rollout| rollout.stable.as_ref()).map(|stable| stable.release);
    Why::RolledBack { reason: reason.to_owned(), cause, to, at: facts.release.changed_at }
}
