//! A rollout: the move of traffic from the live revision to the new one, stage by stage, under a judge.
//! Not here: how containers start and how a gateway or a mesh takes its weights (drivers), and the judge's arithmetic
//! ([`judge`]).

pub mod judge;

use serde::{Deserialize, Serialize};

use crate::{
    effect::Effect,
    ids::{ReleaseId, RevisionId, RolloutId},
    plan::{JudgePolicy, ProductionPlan, Strategy},
    rollout::judge::{Judgement, Outcome, RevisionStats, judge},
    time::UnixMs,
    train::IllegalTransition,
};

/// Samples that a rollout keeps for its plots; when there are more, every second one of the older half goes.
pub const SAMPLES_MAX: usize = 400;
/// The longest time between two looks at the metrics, in milliseconds.
pub const MEASURE_EVERY_MAX_MS: u64 = 10_000;
/// The shortest time between two looks at the metrics, in milliseconds.
pub const MEASURE_EVERY_MIN_MS: u64 = 500;

/// How the reason of a rollout begins that a person sent back; their name follows, then a colon if they said why.
pub const ABORTED_BY: &str = "aborted by ";

/// One stage: a share of the traffic, held for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Stage {
    /// Share of the new revision in percent.
    pub weight_percent: u8,
    /// How long it is held, in milliseconds.
    pub hold_ms: u64,
    /// Whether the judge decides at its end.
    pub judged: bool,
}

const ALL: Stage = Stage { weight_percent: 100, hold_ms: 0, judged: false };

/// The stages of a strategy. Without a stable revision there is nothing to take traffic from: one stage.
#[must_use]
pub fn stages(plan: &ProductionPlan, replicas: u32, has_stable: bool) -> Vec<Stage> {
    if !has_stable {
        return vec![ALL];
    }
    match &plan.strategy {
        Strategy::Rolling => (1..=replicas.clamp(1, 100))
            .map(|done| {
                let share = done * 100 / replicas.clamp(1, 100);
                Stage { weight_percent: u8::try_from(share).unwrap_or(100), ..ALL }
            })
            .collect(),
        Strategy::BlueGreen { preview_ms, keep_ms } => vec![
            Stage { weight_percent: 0, hold_ms: *preview_ms, judged: false },
            // At 100 % there is nothing left to compare with: only fixed limits are judged.
            Stage { weight_percent: 100, hold_ms: *keep_ms, judged: *keep_ms > 0 && !plan.judge.checks.is_empty() },
        ],
        Strategy::Canary { steps } => steps
            .iter()
            .map(|step| Stage { weight_percent: step.weight_percent, hold_ms: step.hold_ms, judged: true })
            .chain([ALL])
            .collect(),
    }
}

/// Why a rollout exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Cause {
    /// A release was promoted.
    Promotion,
    /// A person wants an older release back.
    Rollback {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// Why a rollout stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Pause {
    /// A person said so.
    Person {
        /// Who.
        by: String,
    },
    /// Too few requests to judge, for longer than the policy waits.
    Insufficient,
}

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RolloutState {
    /// The new revision starts; no traffic yet.
    Starting,
    /// The traffic of a stage is being set; not acknowledged yet.
    Shifting {
        /// Index of the stage.
        stage: usize,
    },
    /// The traffic of a stage is in force, and time passes.
    Holding {
        /// Index of the stage.
        stage: usize,
        /// When the traffic was acknowledged: only what came after is judged.
        since: UnixMs,
        /// When the stage is over.
        until: UnixMs,
        /// Why it does not go on.
        paused: Option<Pause>,
    },
    /// All traffic is on the new revision; the old one finishes what it has.
    Draining,
    /// All traffic is on the new revision. The end.
    Completed,
    /// Traffic is being moved back.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// Traffic is back; the new revision finishes what it has.
    DrainingBack {
        /// Why.
        reason: String,
    },
    /// Traffic is back. The end.
    RolledBack {
        /// Why.
        reason: String,
    },
}

impl RolloutState {
    /// The word for it in API and command line.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Shifting { .. } => "shifting",
            Self::Holding { paused: None, .. } => "holding",
            Self::Holding { paused: Some(_), .. } => "paused",
            Self::Draining => "draining",
            Self::Completed => "completed",
            Self::RollingBack { .. } => "rolling_back",
            Self::DrainingBack { .. } => "draining_back",
            Self::RolledBack { .. } => "rolled_back",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack { .. })
    }
}

/// The revision that has the traffic before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Stable {
    /// Number of its release.
    pub release: u32,
    /// Its revision.
    pub revision: RevisionId,
}

/// One look at the metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Sample {
    /// When.
    pub at: UnixMs,
    /// In which stage.
    pub stage: usize,
    /// Share of the new revision in percent.
    pub weight_percent: u8,
    /// The new revision since the stage's acknowledgement.
    pub canary: RevisionStats,
    /// The stable one over the same time.
    pub stable: RevisionStats,
    /// What the judge said.
    pub judgement: Judgement,
}

/// A move of traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// The release that gets the traffic.
    pub release: ReleaseId,
    /// Its revision.
    pub revision: RevisionId,
    /// The revision that had it before, if there is one.
    pub stable: Option<Stable>,
    /// Why.
    pub cause: Cause,
    /// Strategy and judge.
    pub plan: ProductionPlan,
    /// The stages, fixed at the start.
    pub stages: Vec<Stage>,
    /// Where it stands.
    pub state: RolloutState,
    /// Counts the traffic intents; an acknowledgement names the one it is for.
    pub intent: u32,
    /// The share that the last acknowledged intent gave the new revision, in percent.
    pub weight_percent: u8,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub finished_at: Option<UnixMs>,
    /// When each share came into force, for the staircase: time and percent.
    pub shares: Vec<(UnixMs, u8)>,
    /// The counters of both revisions when the present share came into force: only what came after is judged.
    pub baseline: (RevisionStats, RevisionStats),
    /// Looks at the metrics, oldest first.
    pub samples: Vec<Sample>,
}

/// What can happen to a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum RolloutEvent {
    /// The new revision's containers are all healthy.
    RevisionHealthy,
    /// They are not.
    RevisionUnhealthy {
        /// What was seen.
        reason: String,
    },
    /// An intent is in force everywhere.
    TrafficAcknowledged {
        /// Which.
        intent: u32,
        /// The counters of the new revision at this moment.
        canary: RevisionStats,
        /// Those of the stable one.
        stable: RevisionStats,
    },
    /// A look at the counters.
    Measured {
        /// In which stage they were taken.
        stage: usize,
        /// Those of the new revision.
        canary: RevisionStats,
        /// Those of the stable one.
        stable: RevisionStats,
    },
    /// The draining revision has no request left and its containers are gone.
    Drained,
    /// A person: on to the next stage now.
    Promote {
        /// Who.
        by: String,
        /// All the way.
        fully: bool,
    },
    /// A person: stand still.
    Pause {
        /// Who.
        by: String,
    },
    /// A person: go on.
    Resume {
        /// Who.
        by: String,
    },
    /// A person: traffic back to the stable revision.
    Abort {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

impl RolloutEvent {
    /// The word for it in journal and errors.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::RevisionHealthy => "rollout_revision_healthy",
            Self::RevisionUnhealthy { .. } => "rollout_revision_unhealthy",
            Self::TrafficAcknowledged { .. } => "rollout_traffic_acknowledged",
            Self::Measured { .. } => "rollout_measured",
            Self::Drained => "rollout_drained",
            Self::Promote { fully: false, .. } => "rollout_promote",
            Self::Promote { fully: true, .. } => "rollout_promote_fully",
            Self::Pause { .. } => "rollout_pause",
            Self::Resume { .. } => "rollout_resume",
            Self::Abort { .. } => "rollout_abort",
        }
    }
}

/// What moves, from where, and how: all that a rollout is made of.
#[derive(Clone, Debug)]
pub struct NewRollout {
    /// Its id.
    pub id: RolloutId,
    /// The release that gets the traffic.
    pub release: ReleaseId,
    /// Its revision.
    pub revision: RevisionId,
    /// The revision that has it now.
    pub stable: Option<Stable>,
    /// Why.
    pub cause: Cause,
    /// Strategy and judge.
    pub plan: ProductionPlan,
    /// Containers per revision.
    pub replicas: u32,
}

impl Rollout {
    /// A rollout that starts its revision, and the effects it asks for. A rollback does not go step by step: whoever
    /// asks for it wants the traffic away from what runs.
    #[must_use]
    pub fn begin(new: NewRollout, at: UnixMs) -> (Self, Vec<Effect>) {
        let stages = match new.cause {
            Cause::Promotion => stages(&new.plan, new.replicas, new.stable.is_some()),
            Cause::Rollback { .. } => vec![ALL],
        };
        let effects = vec![Effect::StartRevision { rollout: new.id.clone() }];
        let rollout = Self {
            id: new.id,
            release: new.release,
            revision: new.revision,
            stable: new.stable,
            cause: new.cause,
            plan: new.plan,
            stages,
            state: RolloutState::Starting,
            intent: 0,
            weight_percent: 0,
            started_at: at,
            finished_at: None,
            shares: vec![(at, 0)],
            baseline: (RevisionStats::default(), RevisionStats::default()),
            samples: Vec::new(),
        };
        (rollout, effects)
    }

    /// The share of the new revision that the present state wants in force, in percent.
    #[must_use]
    pub fn wanted_percent(&self) -> u8 {
        match &self.state {
            RolloutState::Starting
            | RolloutState::RollingBack { .. }
            | RolloutState::DrainingBack { .. }
            | RolloutState::RolledBack { .. } => 0,
            RolloutState::Shifting { stage } | RolloutState::Holding { stage, .. } => {
                self.stages.get(*stage).map_or(0, |stage| stage.weight_percent)
            }
            RolloutState::Draining | RolloutState::Completed => 100,
        }
    }

    /// Whether the new revision is to be reachable under its preview address.
    #[must_use]
    pub fn wants_preview(&self) -> bool {
        matches!(self.state, RolloutState::Shifting { .. } | RolloutState::Holding { .. })
            && matches!(self.plan.strategy, Strategy::BlueGreen { .. })
    }

    /// Whether a person can still send the traffic back by aborting.
    #[must_use]
    pub fn can_abort(&self) -> bool {
        matches!(self.state, RolloutState::Starting | RolloutState::Shifting { .. } | RolloutState::Holding { .. })
    }

    /// The last judgement, if there is one.
    #[must_use]
    pub fn judgement(&self) -> Option<&Judgement> {
        self.samples.last().map(|sample| &sample.judgement)
    }

    /// The present stage, if it is in one.
    #[must_use]
    pub fn stage(&self) -> Option<usize> {
        match self.state {
            RolloutState::Shifting { stage } | RolloutState::Holding { stage, .. } => Some(stage),
            _ => None,
        }
    }

    /// The only place where a rollout changes.
    ///
    /// # Errors
    /// When the event does not fit the state.
    pub fn transition(&self, event: &RolloutEvent, at: UnixMs) -> Result<(Self, Vec<Effect>), IllegalTransition> {
        use {RolloutEvent as E, RolloutState as S};
        let mut next = self.clone();
        let effects = match (&self.state, event) {
            (S::Starting, E::RevisionHealthy) => next.shift_to(0),
            (S::Starting, E::RevisionUnhealthy { reason }) => {
                next.roll_back(format!("the new revision did not become healthy: {reason}"))
            }
            (S::Shifting { stage }, E::TrafficAcknowledged { intent, canary, stable }) if *intent == self.intent => {
                next.baseline = (canary.clone(), stable.clone());
                next.hold(*stage, at)
            }
            (S::RollingBack { reason }, E::TrafficAcknowledged { intent, .. }) if *intent == self.intent => {
                next.in_force(0, at);
                next.state = S::DrainingBack { reason: reason.clone() };
                vec![Effect::DrainRevision { rollout: self.id.clone(), revision: self.revision.clone() }]
            }
            // An answer for an intent that is no longer wanted.
            (_, E::TrafficAcknowledged { intent, .. }) if *intent < self.intent => Vec::new(),
            (S::Holding { stage, .. }, E::Measured { stage: measured, canary, stable }) if stage == measured => {
                next.measured(&canary.since(&self.baseline.0), &stable.since(&self.baseline.1), at)
            }
            // Metrics of a stage that is over.
            (_, E::Measured { .. }) => Vec::new(),
            (S::Draining, E::Drained) => {
                next.state = S::Completed;
                next.finished_at = Some(at);
                Vec::new()
            }
            (S::DrainingBack { reason }, E::Drained) => {
                next.state = S::RolledBack { reason: reason.clone() };
                next.finished_at = Some(at);
                Vec::new()
            }
            (S::Holding { stage, .. }, E::Promote { fully, .. }) => {
                let last = self.stages.len().saturating_sub(1);
                let target = if *fully { last } else { stage + 1 };
                if *stage == last { next.finish(at) } else { next.shift_to(target) }
            }
            (S::Holding { stage, since, until, .. }, E::Pause { by }) => {
                next.state = S::Holding {
                    stage: *stage,
                    since: *since,
                    until: *until,
                    paused: Some(Pause::Person { by: by.clone() }),
                };
                Vec::new()
            }
            (S::Holding { stage, since, paused: Some(_), .. }, E::Resume { .. }) => {
                // The stage's time starts anew: what passed while it stood still was not meant as its hold.
                let hold_ms = self.stages.get(*stage).map_or(0, |stage| stage.hold_ms);
                next.state = S::Holding { stage: *stage, since: *since, until: at.plus_ms(hold_ms), paused: None };
                vec![next.measure_effect(*stage, at)]
            }
            (S::Starting | S::Shifting { .. } | S::Holding { .. }, E::Abort { by, reason }) => {
                let said = if reason.trim().is_empty() { String::new() } else { format!(": {}", reason.trim()) };
                next.roll_back(format!("{ABORTED_BY}{by}{said}"))
            }
            (state, event) => return Err(IllegalTransition::new(&self.id, state.word(), event.word())),
        };
        Ok((next, effects))
    }

    fn shift_to(&mut self, stage: usize) -> Vec<Effect> {
        self.state = RolloutState::Shifting { stage };
        self.intent += 1;
        vec![Effect::ApplyTraffic { rollout: self.id.clone(), intent: self.intent }]
    }

    fn roll_back(&mut self, reason: String) -> Vec<Effect> {
        self.state = RolloutState::RollingBack { reason };
        self.intent += 1;
        vec![Effect::ApplyTraffic { rollout: self.id.clone(), intent: self.intent }]
    }

    fn in_force(&mut self, percent: u8, at: UnixMs) {
        self.weight_percent = percent;
        self.shares.push((at, percent));
    }

    /// The traffic of `stage` is in force: hold it, or go on at once where there is nothing to hold.
    fn hold(&mut self, stage: usize, at: UnixMs) -> Vec<Effect> {
        let Some(&now) = self.stages.get(stage) else { return Vec::new() };
        self.in_force(now.weight_percent, at);
        let is_last = stage + 1 == self.stages.len();
        if now.hold_ms == 0 && !now.judged {
            return if is_last { self.finish(at) } else { self.shift_to(stage + 1) };
        }
        self.state = RolloutState::Holding { stage, since: at, until: at.plus_ms(now.hold_ms), paused: None };
        vec![self.measure_effect(stage, at)]
    }

    fn measure_effect(&self, stage: usize, at: UnixMs) -> Effect {
        let hold_ms = self.stages.get(stage).map_or(0, |stage| stage.hold_ms);
        let every_ms = (hold_ms / 4).clamp(MEASURE_EVERY_MIN_MS, MEASURE_EVERY_MAX_MS);
        Effect::Measure { rollout: self.id.clone(), stage, due_at: at.plus_ms(every_ms) }
    }

    /// All traffic is on the new revision for good.
    fn finish(&mut self, at: UnixMs) -> Vec<Effect> {
        match &self.stable {
            Some(stable) if stable.revision != self.revision => {
                self.state = RolloutState::Draining;
                vec![Effect::DrainRevision { rollout: self.id.clone(), revision: stable.revision.clone() }]
            }
            _ => {
                self.state = RolloutState::Completed;
                self.finished_at = Some(at);
                Vec::new()
            }
        }
    }

    fn measured(&mut self, canary: &RevisionStats, stable: &RevisionStats, at: UnixMs) -> Vec<Effect> {
        let RolloutState::Holding { stage, since, until, ref paused } = self.state else { return Vec::new() };
        let Some(&now) = self.stages.get(stage) else { return Vec::new() };
        let paused = paused.clone();
        let judgement = if now.judged {
            let policy = JudgePolicy {
                compare_with_stable: self.plan.judge.compare_with_stable && now.weight_percent < 100,
                ..self.plan.judge.clone()
            };
            judge(&policy, canary, stable)
        } else {
            Judgement::not_judged(canary.requests)
        };
        let outcome = judgement.outcome;
        let reason = judgement.reason();
        self.samples.push(Sample {
            at,
            stage,
            weight_percent: now.weight_percent,
            canary: canary.clone(),
            stable: stable.clone(),
            judgement,
        });
        thin_out(&mut self.samples);

        if outcome == Outcome::Fail {
            return self.roll_back(format!("the judge said FAIL at {} %: {reason}", now.weight_percent));
        }
        let go_on = paused.is_none() && at >= until && (outcome == Outcome::Pass || !now.judged);
        if go_on {
            return if stage + 1 == self.stages.len() { self.finish(at) } else { self.shift_to(stage + 1) };
        }
        let waited_enough = at >= until.plus_ms(self.plan.judge.insufficient_limit_ms);
        if paused.is_none() && outcome == Outcome::Insufficient && waited_enough {
            self.state = RolloutState::Holding { stage, since, until, paused: Some(Pause::Insufficient) };
        }
        vec![self.measure_effect(stage, at)]
    }
}

fn thin_out(samples: &mut Vec<Sample>) {
    if samples.len() > SAMPLES_MAX {
        let half = samples.len() / 2;
        let mut index = 0;
        samples.retain(|_| {
            index += 1;
            index > half || index % 2 == 0
        });
    }
}

#[cfg(test)]
mod tests;
