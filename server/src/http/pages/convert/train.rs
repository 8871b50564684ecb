//! The train of stations of a run and its release. One arm for each state, so that every state has its station.

use pipelines::{
    approval::Approval,
    plan::Strategy,
    protocol::{Blame, StepOutcome},
    release::{Release, ReleaseState},
    rollout::{ABORTED_BY, Pause, Rollout, RolloutState},
    run::{Run, RunState, StepRecord},
    time::UnixMs,
    trigger::TriggerKind,
    why::Why,
};

use super::{is_mine, may_decide, page_ms, version};
use crate::{
    app::{
        accounts::Caller,
        board::{ServiceRow, Subject},
    },
    http::ui::{
        links,
        train::{Station, StationState as S, Train, Word},
    },
};

/// What a train is made of.
#[derive(Clone, Copy)]
pub(in crate::http::pages) struct Facts<'a> {
    /// The run.
    pub run: Option<&'a Run>,
    /// The release that it made.
    pub release: Option<&'a Release>,
    /// Its approval.
    pub approval: Option<&'a Approval>,
    /// Its last rollout.
    pub rollout: Option<&'a Rollout>,
    /// The release that has the traffic.
    pub live: Option<&'a Release>,
    /// The infrastructure is in the way.
    pub fault: bool,
    /// Who looks.
    pub caller: Option<&'a Caller>,
    /// Whether the stations lead to pages: not behind a mailed link.
    pub linked: bool,
}

impl<'a> Facts<'a> {
    /// Those of a row.
    pub(in crate::http::pages) fn of(row: &'a ServiceRow, caller: Option<&'a Caller>) -> Self {
        Self {
            run: row.run.as_deref(),
            release: row.release.as_deref().filter(|_| row.subject == Subject::Release),
            approval: row.approval.as_deref(),
            rollout: row.rollout.as_deref(),
            live: row.live.as_deref(),
            fault: matches!(row.why, Why::Fault(_) | Why::MailWaits { .. }),
            caller,
            linked: true,
        }
    }
}

/// The train.
pub(in crate::http::pages) fn train(facts: &Facts<'_>) -> Train {
    let mut train = Train::waiting(last(facts));
    let Some(run) = facts.run else { return linked(train, facts) };
    train.stations[0] = commit(run);
    train.stations[1] = build(run);
    if let (RunState::Succeeded { .. }, Some(at)) = (&run.state, run.finished_at) {
        train.stations[2] = at_done(Word::Stored, at);
    }
    if let Some(release) = facts.release {
        train.stations[3] = test(release, facts);
        train.stations[4] = approval(release, facts);
        train.stations[5] = promotion(release, facts);
        train.stations[6] = rollout(release, facts);
    }
    linked(train, facts)
}

fn at(state: S, word: Word, since: UnixMs) -> Station {
    Station::at(state, word, page_ms(since))
}

fn at_done(word: Word, since: UnixMs) -> Station {
    at(S::Done, word, since)
}

fn commit(run: &Run) -> Station {
    let word = match run.trigger.kind {
        TriggerKind::Push => Word::Pushed,
        TriggerKind::Tag => Word::Tagged,
        TriggerKind::PullRequest => Word::PullRequest,
        TriggerKind::Manual => Word::Started,
    };
    at_done(word, run.created_at)
}

fn build(run: &Run) -> Station {
    let began = run.started_at.unwrap_or(run.created_at);
    let ended = run.finished_at.unwrap_or(began);
    match &run.state {
        RunState::Held { .. } => at(S::Hold, Word::Held, run.created_at),
        RunState::Queued => at(S::Wait, Word::Queued, run.created_at),
        RunState::Running { .. } => at(S::Move, working(run), began),
        RunState::Cancelling { .. } => at(S::Hold, working(run), began),
        RunState::Cancelled | RunState::Declined { .. } => at(S::Hold, Word::Cancelled, ended),
        RunState::Failed { blame: Blame::Code, .. } => at(S::Fail, failed(run), ended),
        RunState::Failed { blame: Blame::Infrastructure, .. } => at(S::Fault, failed(run), ended),
        RunState::Succeeded { .. } if run.reused_from.is_some() => at_done(Word::Reused, ended),
        RunState::Succeeded { .. } | RunState::Passed => at_done(Word::Built, ended),
    }
}

fn working(run: &Run) -> Word {
    let running = |step: &StepRecord| step.started_at.is_some() && step.finished_at.is_none();
    let Some(index) = run.steps.iter().position(running) else { return Word::CheckingOut };
    match run.steps[index].name.as_str() {
        "checkout" => Word::CheckingOut,
        "image" => Word::BuildingImage,
        "push" => Word::Pushing,
        _ => Word::StepOf { n: index + 1, of: run.steps.len() },
    }
}

fn failed(run: &Run) -> Word {
    let failed = run.steps.iter().find(|step| matches!(step.outcome, Some(StepOutcome::Failed { .. })));
    match failed.map(|step| step.name.as_str()) {
        Some("image") => Word::ImageFailed,
        Some(step) => Word::StepFailed { step: step.to_owned() },
        // It was checked out, and the file that says what to do then was not good.
        None if run.plan.is_none() && run.commit.is_some() => Word::FileInvalid,
        None => Word::StepFailed { step: "checkout".into() },
    }
}

fn test(release: &Release, facts: &Facts<'_>) -> Station {
    let since = release.changed_at;
    match (&release.state, release.tested_at) {
        (ReleaseState::WaitingForTest { .. }, _) => at(S::Wait, Word::Queued, since),
        (ReleaseState::DeployingTest, _) if facts.fault => at(S::Fault, Word::Retrying, since),
        (ReleaseState::DeployingTest, _) => at(S::Move, Word::Deploying, since),
        (ReleaseState::TestFailed { .. }, _) => at(S::Fail, Word::Unhealthy, since),
        (_, Some(tested)) => at_done(Word::Healthy, tested),
        (ReleaseState::Superseded { .. }, None) => at(S::Hold, Word::Superseded, since),
        (_, None) => Station::todo(),
    }
}

fn approval(release: &Release, facts: &Facts<'_>) -> Station {
    let since = release.changed_at;
    match (&release.state, &release.approved) {
        (ReleaseState::AwaitingApproval, _) => awaiting(facts, since),
        (ReleaseState::Rejected { .. }, _) => at(S::Fail, Word::Rejected, since),
        (ReleaseState::Expired, _) => at(S::Hold, Word::Expired, since),
        (_, Some((approved, _))) => at_done(Word::Approved, *approved),
        (ReleaseState::Superseded { .. }, None) if release.tested_at.is_some() => at(S::Hold, Word::Superseded, since),
        (_, None) => Station::todo(),
    }
}

fn awaiting(facts: &Facts<'_>, since: UnixMs) -> Station {
    let of = facts.approval.filter(|approval| approval.needed > 1).map(|approval| (approval.have(), approval.needed));
    match (facts.approval.and_then(Approval::covering_claim), facts.caller, of) {
        (Some(claim), Some(caller), _) if is_mine(&claim.by, caller) => at(S::You, Word::Yours, claim.at),
        (Some(claim), _, None) => at(S::Wait, Word::WaitsFor { who: claim.by.clone() }, claim.at),
        (None, caller, None) if may_decide(facts.approval, caller) => at(S::You, Word::NeedsYou, since),
        (None, _, None) => at(S::Wait, Word::AwaitingTesters, since),
        (None, caller, Some((have, need))) if may_decide(facts.approval, caller) => {
            at(S::You, Word::NeedsYouToo { have, need }, since)
        }
        (_, _, Some((have, need))) => at(S::Wait, Word::ApprovedOf { have, need }, since),
    }
}

fn promotion(release: &Release, facts: &Facts<'_>) -> Station {
    match (&release.state, release.promoted_at) {
        (ReleaseState::Promoting, _) if facts.fault => at(S::Fault, Word::Retrying, release.changed_at),
        (ReleaseState::Promoting, _) => at(S::Move, Word::Copying, release.changed_at),
        (_, Some(promoted)) => at_done(Word::Promoted, promoted),
        (_, None) => Station::todo(),
    }
}

fn rollout(release: &Release, facts: &Facts<'_>) -> Station {
    let since = release.changed_at;
    match &release.state {
        ReleaseState::WaitingForRollout => at(S::Wait, Word::WaitsForRollout, since),
        ReleaseState::RollingOut if facts.fault => at(S::Fault, Word::Retrying, since),
        ReleaseState::RollingOut => facts.rollout.map_or_else(|| at(S::Move, Word::Deploying, since), rolling),
        ReleaseState::RolledBack { reason } if reason.starts_with(ABORTED_BY) => at(S::Back, Word::Aborted, since),
        ReleaseState::RolledBack { .. } => at(S::Back, Word::RolledBack, since),
        ReleaseState::Superseded { .. } if release.promoted_at.is_some() => at(S::Hold, Word::Superseded, since),
        ReleaseState::Live | ReleaseState::Retired { .. } => at_done(Word::RolledOut, release.live_at.unwrap_or(since)),
        _ => Station::todo(),
    }
}

fn rolling(rollout: &Rollout) -> Station {
    let since = rollout.shares.last().map_or(rollout.started_at, |(at, _)| *at);
    let percent = u32::from(rollout.wanted_percent());
    let stage = rollout.stage().unwrap_or_default();
    match &rollout.state {
        RolloutState::Starting => at(S::Move, Word::Deploying, rollout.started_at),
        RolloutState::Holding { paused: Some(Pause::Person { .. }), .. } => at(S::Hold, Word::Paused, since),
        RolloutState::Holding { paused: Some(Pause::Insufficient), .. } => at(S::Hold, Word::HeldAt { percent }, since),
        RolloutState::Shifting { .. } | RolloutState::Holding { .. } => {
            let of = u32::try_from(rollout.stages.len()).unwrap_or(u32::MAX);
            let word = match &rollout.plan.strategy {
                Strategy::Canary { .. } if of > 1 => Word::Canary { percent },
                Strategy::BlueGreen { .. } if of > 1 && percent == 0 => Word::Preview,
                Strategy::Rolling => Word::Rolling { ready: u32::try_from(stage).unwrap_or(u32::MAX), of },
                _ => Word::Canary { percent },
            };
            at(S::Move, word, since)
        }
        RolloutState::Draining | RolloutState::Completed => at(S::Move, Word::RolledOut, since),
        RolloutState::RollingBack { .. } | RolloutState::DrainingBack { .. } => at(S::Back, Word::RollingBack, since),
        RolloutState::RolledBack { .. } => at(S::Back, Word::RolledBack, since),
    }
}

/// The last station: this release is live, another one still is, or nothing.
fn last(facts: &Facts<'_>) -> Station {
    let Some(live) = facts.live else {
        return Station { state: S::Old, word: Some(Word::NothingLive), since_ms: None, href: None };
    };
    let since = live.live_at.unwrap_or(live.changed_at);
    if facts.release.is_some_and(|release| release.id == live.id && release.state == ReleaseState::Live) {
        at(S::Live, Word::Live, since)
    } else {
        at(S::Old, Word::Still { version: version(live) }, since)
    }
}

/// Each station that was reached leads to the page that shows more of it.
fn linked(mut train: Train, facts: &Facts<'_>) -> Train {
    let Some(run) = facts.run.filter(|_| facts.linked) else { return train };
    let service = run.id.service.as_str();
    let build = u64::from(run.id.number);
    let run_page = links::run(service, build);
    let rollout = facts.rollout.map(|rollout| links::rollout(service, u64::from(rollout.id.number)));
    let approval = facts.approval.map(|_| links::approval(service, build));
    let service_page = links::service(service);
    let pages = [
        Some(run_page.clone()),
        Some(run_page.clone()),
        Some(run_page),
        Some(service_page.clone()),
        approval.clone(),
        approval,
        rollout,
        Some(service_page),
    ];
    for (station, page) in train.stations.iter_mut().zip(pages) {
        if station.word.is_some() {
            station.href = page;
        }
    }
    train
}
