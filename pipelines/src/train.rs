//! The train of a service: how its runs, releases, approvals and rollouts move together. One event in, one [`Change`]
//! out: every record that it touches, the effects it asks for and those it withdraws, to be stored in one transaction.
//! Not here: the states of each machine (their own modules), the reactions themselves ([`step`]) and the store.

mod step;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    approval::{Approval, ApprovalEvent, ApprovalRefusal},
    effect::Effect,
    hold::HoldBounds,
    ids::{ReleaseId, RevisionId, RolloutId, RunId, ServiceName},
    release::{Release, ReleaseEvent},
    rollout::{Rollout, RolloutEvent},
    run::{Run, RunEvent},
    service::Service,
    time::UnixMs,
    train::step::Step,
    trigger::Trigger,
};

/// An event that does not fit the state of the machine it is for. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject} is {state} and cannot take {event}")]
pub struct IllegalTransition {
    /// Which machine, such as `checkout/412`.
    pub subject: String,
    /// Its state.
    pub state: &'static str,
    /// The event.
    pub event: &'static str,
}

impl IllegalTransition {
    pub(crate) fn new(subject: &impl fmt::Display, state: &'static str, event: &'static str) -> Self {
        Self { subject: subject.to_string(), state, event }
    }
}

/// Why an event was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It does not fit the state.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The act of a person on an approval was refused.
    #[error(transparent)]
    Approval(#[from] ApprovalRefusal),
    /// There is no such thing.
    #[error("there is no {what} {id}")]
    NotFound {
        /// Run, release, approval or rollout.
        what: &'static str,
        /// Which.
        id: String,
    },
    /// What a person asked for makes no sense now; says why.
    #[error("{0}")]
    NotNow(String),
    /// The store could not be read.
    #[error("the store could not be read")]
    Lookup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What moves on one service now. Finished things are not in it; they stay in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Train {
    /// Of which service.
    pub service: ServiceName,
    /// Number of the last run.
    pub last_run: u32,
    /// Runs that wait for a person's word, oldest first.
    #[serde(default)]
    pub held: Vec<u32>,
    /// Number of the last rollout.
    pub last_rollout: u32,
    /// The newest release there ever was.
    pub newest_release: Option<u32>,
    /// The newest release whose rollout began by promotion: an older one never overtakes it.
    pub newest_rolled_out: Option<u32>,
    /// The release for which the test environment was last used.
    pub testing: Option<u32>,
    /// The release that is healthy in the test environment, and so the one that its address shows.
    pub in_test: Option<u32>,
    /// The newest release that waits behind a claimed one.
    pub test_next: Option<u32>,
    /// The release that has the traffic.
    pub live: Option<u32>,
    /// The rollout that runs.
    pub rollout: Option<u32>,
    /// The approved release that waits for its end.
    pub rollout_next: Option<u32>,
    /// The release that a person wants back as soon as the running rollout has ended.
    pub rollback_next: Option<PendingRollback>,
}

/// A rollback that waits for the end of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PendingRollback {
    /// To which release.
    pub to: u32,
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Train {
    /// A train on which nothing moves yet.
    #[must_use]
    pub fn new(service: ServiceName) -> Self {
        Self {
            service,
            last_run: 0,
            held: Vec::new(),
            last_rollout: 0,
            newest_release: None,
            newest_rolled_out: None,
            testing: None,
            in_test: None,
            test_next: None,
            live: None,
            rollout: None,
            rollout_next: None,
            rollback_next: None,
        }
    }

    /// Every release that it names.
    pub fn releases(&self) -> impl Iterator<Item = u32> {
        // Taken apart, so that a field that is new is asked about here.
        let Self {
            service: _,
            last_run: _,
            last_rollout: _,
            held: _,
            newest_release,
            newest_rolled_out,
            testing,
            in_test,
            test_next,
            live,
            rollout: _,
            rollout_next,
            rollback_next,
        } = self;
        let back = rollback_next.as_ref().map(|back| back.to);
        [*newest_release, *newest_rolled_out, *testing, *in_test, *test_next, *live, *rollout_next, back]
            .into_iter()
            .flatten()
    }
}

/// Reads records while an event is decided.
pub trait Records {
    /// The run with this number.
    ///
    /// # Errors
    /// [`Refusal::Lookup`] when the store cannot be read; so for all of them.
    fn run(&self, id: &RunId) -> Result<Option<Run>, Refusal>;
    /// The release with this number.
    ///
    /// # Errors
    /// As above.
    fn release(&self, id: &ReleaseId) -> Result<Option<Release>, Refusal>;
    /// The approval of this release.
    ///
    /// # Errors
    /// As above.
    fn approval(&self, id: &ReleaseId) -> Result<Option<Approval>, Refusal>;
    /// The rollout with this number.
    ///
    /// # Errors
    /// As above.
    fn rollout(&self, id: &RolloutId) -> Result<Option<Rollout>, Refusal>;
}

/// Something that happened on a train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "on")]
pub enum Event {
    /// A ref moved, or a person asked for a run.
    Triggered {
        /// Why.
        trigger: Trigger,
        /// The run that it repeats.
        rerun_of: Option<RunId>,
        /// Bounds of the waiting, should it be held.
        #[serde(default)]
        hold: HoldBounds,
    },
    /// To a run.
    Run {
        /// Number of it.
        number: u32,
        /// What.
        event: RunEvent,
    },
    /// To a release.
    Release {
        /// Number of it.
        number: u32,
        /// What.
        event: ReleaseEvent,
    },
    /// To the approval of a release.
    Approval {
        /// Number of the release.
        number: u32,
        /// What.
        event: ApprovalEvent,
    },
    /// To a rollout.
    Rollout {
        /// Number of it.
        number: u32,
        /// What.
        event: RolloutEvent,
    },
    /// A person wants an older release back.
    Rollback {
        /// To which release.
        to: u32,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A person wants the waiting release to take over from the running rollout.
    Replace {
        /// Who.
        by: String,
    },
    /// A person wants the testers of an expired release asked once more.
    AskAgain {
        /// Which release.
        number: u32,
        /// Who.
        by: String,
    },
}

/// A line for the journal, without what only the store knows (place, time).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub subject: String,
    /// What happened.
    pub word: &'static str,
    /// State before and after.
    pub change: Option<(&'static str, &'static str)>,
    /// More, in a few words.
    pub detail: String,
}

/// Everything that one event changed; stored in one transaction or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The train afterwards.
    pub train: Train,
    /// Runs that changed, by number; so for the others.
    pub runs: BTreeMap<u32, Run>,
    /// Releases that changed.
    pub releases: BTreeMap<u32, Release>,
    /// Approvals that changed.
    pub approvals: BTreeMap<u32, Approval>,
    /// Rollouts that changed.
    pub rollouts: BTreeMap<u32, Rollout>,
    /// Effects asked for.
    pub ask: Vec<Effect>,
    /// Keys of effects that are no longer wanted.
    pub withdraw: Vec<String>,
    /// Lines for the journal.
    pub notes: Vec<Note>,
}

impl Change {
    fn new(train: Train) -> Self {
        Self {
            train,
            runs: BTreeMap::new(),
            releases: BTreeMap::new(),
            approvals: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            ask: Vec::new(),
            withdraw: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Decides what `event` changes on `train`. Pure: reads records, writes nothing.
///
/// # Errors
/// [`Refusal`]; then nothing has changed.
pub fn decide(
    service: &Service,
    train: &Train,
    records: &dyn Records,
    event: &Event,
    at: UnixMs,
) -> Result<Change, Refusal> {
    let mut step = Step { service, records, at, change: Change::new(train.clone()) };
    match event {
        Event::Triggered { trigger, rerun_of, hold } => step.triggered(trigger, rerun_of.clone(), hold)?,
        Event::Run { number, event } => step.on_run(*number, event)?,
        Event::Release { number, event } => step.on_release(*number, event)?,
        Event::Approval { number, event } => step.on_approval(*number, event)?,
        Event::Rollout { number, event } => step.on_rollout(*number, event)?,
        Event::Rollback { to, by, reason } => step.rollback(*to, by, reason)?,
        Event::Replace { by } => step.replace(by)?,
        Event::AskAgain { number, by } => step.ask_again(*number, by)?,
    }
    // What one event both asks for and withdraws is not wanted.
    let Change { ask, withdraw, .. } = &mut step.change;
    ask.retain(|effect| !withdraw.contains(&effect.key()));
    Ok(step.change)
}

/// What the gateway is to do for one service in production, as the records want it: revisions with their share in
/// percent, and the revision under the preview address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductionTraffic {
    /// Release number, revision and share; the shares sum to 100 unless nothing is live.
    pub shares: Vec<(u32, RevisionId, u8)>,
    /// Release number and revision to preview.
    pub preview: Option<(u32, RevisionId)>,
}

/// The production traffic that `live` and a running `rollout` want.
#[must_use]
pub fn production_traffic(live: Option<&Release>, rollout: Option<&Rollout>) -> ProductionTraffic {
    let mut traffic = ProductionTraffic::default();
    let Some(rollout) = rollout.filter(|rollout| !rollout.state.is_final()) else {
        if let Some(live) = live {
            traffic.shares.push((live.id.number, live.revision(), 100));
        }
        return traffic;
    };
    let share = rollout.wanted_percent();
    if let Some(stable) = &rollout.stable
        && share < 100
    {
        traffic.shares.push((stable.release, stable.revision.clone(), 100 - share));
    }
    // Without a stable revision there is no traffic to withhold, only requests that nobody would answer.
    if share > 0 {
        traffic.shares.push((rollout.release.number, rollout.revision.clone(), share));
    }
    if rollout.wants_preview() {
        traffic.preview = Some((rollout.release.number, rollout.revision.clone()));
    }
    traffic
}
