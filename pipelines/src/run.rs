//! A run: one execution of the pipeline for one commit. It ends in a pushed digest, or not.
//! Not here: what becomes of the digest (`release`).

use serde::{Deserialize, Serialize};

use crate::{
    effect::Effect,
    hold::{HoldBounds, HoldEnd, Proposal},
    ids::{Digest, RunId, RunnerName},
    labels::Labels,
    plan::DeliveryPlan,
    protocol::{Blame, CommitInfo, Report, StepOutcome},
    time::UnixMs,
    train::IllegalTransition,
    trigger::Trigger,
};

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// Waits for a person's word: the reason says why (a pull request from a fork).
    Held {
        /// Why.
        reason: String,
    },
    /// Waits for a runner.
    Queued,
    /// A runner has it.
    Running {
        /// Which.
        runner: RunnerName,
    },
    /// A person asked to stop it; the runner has not confirmed yet.
    Cancelling {
        /// Which runner has it.
        runner: RunnerName,
    },
    /// The image is in the test registry under this digest.
    Succeeded {
        /// As the registry says.
        digest: Digest,
    },
    /// It ended without an image.
    Failed {
        /// Whose failure it is.
        blame: Blame,
        /// One sentence.
        reason: String,
    },
    /// A person stopped it.
    Cancelled,
    /// It was held, and is not run: a person declined it, or nobody allowed it in time.
    Declined {
        /// Who or what said so.
        reason: String,
    },
    /// It ended well and pushed nothing, because it has no right to (a pull request from a fork).
    Passed,
}

impl RunState {
    /// The word for it in API and command line.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Held { .. } => "held",
            Self::Queued => "queued",
            Self::Running { .. } => "running",
            Self::Cancelling { .. } => "cancelling",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Declined { .. } => "declined",
            Self::Passed => "passed",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Held { .. } | Self::Queued | Self::Running { .. } | Self::Cancelling { .. } => false,
            Self::Succeeded { .. } | Self::Failed { .. } | Self::Cancelled | Self::Declined { .. } | Self::Passed => {
                true
            }
        }
    }
}

/// One step as the page's tree shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StepRecord {
    /// Its name.
    pub name: String,
    /// When it began.
    pub started_at: Option<UnixMs>,
    /// When it ended.
    pub finished_at: Option<UnixMs>,
    /// How it ended.
    pub outcome: Option<StepOutcome>,
}

impl StepRecord {
    fn new(name: String) -> Self {
        Self { name, started_at: None, finished_at: None, outcome: None }
    }
}

/// One execution of the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Why it exists.
    pub trigger: Trigger,
    /// Whether the registered bounds let it become a release.
    pub may_release: bool,
    /// Where it stands.
    pub state: RunState,
    /// When it was created.
    pub created_at: UnixMs,
    /// When a runner took it.
    pub started_at: Option<UnixMs>,
    /// When it ended.
    pub finished_at: Option<UnixMs>,
    /// What git says of the commit, once it is checked out.
    pub commit: Option<CommitInfo>,
    /// The steps, once the pipeline file is read; `checkout` before.
    pub steps: Vec<StepRecord>,
    /// What delivering needs, once the pipeline file is read.
    pub plan: Option<DeliveryPlan>,
    /// Whether the pipeline file lets it become a release.
    pub file_releases: bool,
    /// The tag of the pushed image.
    pub tag: Option<String>,
    /// Digest over all inputs of the image.
    pub inputs: Option<Digest>,
    /// The run that built the image, if it was not built again.
    pub reused_from: Option<RunId>,
    /// The run that this one repeats.
    pub rerun_of: Option<RunId>,
    /// What the person said who stopped it.
    pub cancel_reason: Option<String>,
    /// What a held run would do, once its commit was looked at.
    #[serde(default)]
    pub proposal: Option<Proposal>,
    /// Who allowed a held run.
    #[serde(default)]
    pub allowed_by: Option<String>,
    /// How often a runner has taken it: the number of its attempt. What an earlier one says no longer counts.
    #[serde(default)]
    pub attempt: u32,
    /// Who took it last.
    #[serde(default)]
    pub runner: Option<RunnerName>,
    /// Who had it before and was lost, in that order.
    #[serde(default)]
    pub lost: Vec<RunnerName>,
    /// What its pipeline file asks of a runner, once one has read it and did not have it.
    #[serde(default)]
    pub labels: Labels,
}

/// What can happen to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum RunEvent {
    /// A runner took it (or took it again after a restart).
    Leased {
        /// Which.
        runner: RunnerName,
        /// After how long a silence it counts as lost, in milliseconds.
        lease_ms: u64,
    },
    /// The runner tells something.
    Reported {
        /// Which.
        runner: RunnerName,
        /// In which attempt.
        attempt: u32,
        /// What.
        report: Report,
    },
    /// Nothing was heard of the run for too long, or its runner was removed: another one may have it.
    RunnerLost {
        /// In which attempt.
        attempt: u32,
        /// Runners that may be lost with one run, before it is given up.
        lost_max: u32,
        /// What happened to the runner, such as `was not heard of for 60 s`.
        reason: String,
    },
    /// A person wants it stopped.
    CancelRequested {
        /// What they say.
        reason: String,
    },
    /// The commit of a held run was looked at.
    Inspected {
        /// What it would do.
        proposal: Box<Proposal>,
    },
    /// A person lets a held run go on.
    Allowed {
        /// Who.
        by: String,
    },
    /// A person refuses a held run.
    Declined {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The waiting of a held run is over without a person.
    HoldEnded {
        /// How.
        end: HoldEnd,
    },
}

impl RunEvent {
    /// The word for it in journal and errors.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Leased { .. } => "run_leased",
            Self::CancelRequested { .. } => "run_cancel_requested",
            Self::Inspected { .. } => "run_inspected",
            Self::Allowed { .. } => "run_allowed",
            Self::Declined { .. } => "run_declined",
            Self::HoldEnded { .. } => "run_hold_ended",
            Self::RunnerLost { .. } => "run_runner_lost",
            Self::Reported { report, .. } => match report {
                Report::CheckedOut { .. } => "run_checked_out",
                Report::Prepared { .. } => "run_prepared",
                Report::StepStarted { .. } => "run_step_started",
                Report::StepFinished { .. } => "run_step_finished",
                Report::Succeeded { .. } => "run_succeeded",
                Report::Failed { .. } => "run_failed",
                Report::Passed => "run_passed",
                Report::Cancelled => "run_cancelled",
                Report::Unfit { .. } => "run_unfit",
            },
        }
    }
}

impl Run {
    /// A run that waits for a runner, or is held where the trigger comes from a fork.
    #[must_use]
    pub fn new(id: RunId, trigger: Trigger, may_release: bool, rerun_of: Option<RunId>, at: UnixMs) -> Self {
        let state = if trigger.from_fork {
            RunState::Held { reason: "a pull request from a fork runs only when a person allows it".into() }
        } else {
            RunState::Queued
        };
        Self {
            id,
            trigger,
            may_release,
            state,
            created_at: at,
            started_at: None,
            finished_at: None,
            commit: None,
            steps: vec![StepRecord::new("checkout".into())],
            plan: None,
            file_releases: false,
            tag: None,
            inputs: None,
            reused_from: None,
            rerun_of,
            cancel_reason: None,
            proposal: None,
            allowed_by: None,
            attempt: 0,
            runner: None,
            lost: Vec::new(),
            labels: Labels::default(),
        }
    }

    /// The effects that a new run asks for.
    #[must_use]
    pub fn first_effects(&self, hold: &HoldBounds) -> Vec<Effect> {
        match self.state {
            RunState::Queued => vec![Effect::ExecuteRun { run: self.id.clone() }],
            RunState::Held { .. } => {
                let due_at = self.created_at.plus_ms(hold.expires_ms);
                vec![Effect::InspectRun { run: self.id.clone() }, Effect::ExpireHold { run: self.id.clone(), due_at }]
            }
            _ => Vec::new(),
        }
    }

    /// Whether its digest becomes a release.
    #[must_use]
    pub fn releases(&self) -> bool {
        self.may_release && self.file_releases && self.plan.is_some()
    }

    /// The digest, if it succeeded.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match &self.state {
            RunState::Succeeded { digest } => Some(digest),
            _ => None,
        }
    }

    /// Who has it in which attempt, or had it last.
    #[must_use]
    pub fn holder(&self) -> Option<(&RunnerName, u32)> {
        match &self.state {
            RunState::Running { runner } | RunState::Cancelling { runner } => Some((runner, self.attempt)),
            _ => self.runner.as_ref().map(|runner| (runner, self.attempt)),
        }
    }

    fn step(&mut self, name: &str) -> &mut StepRecord {
        let index = match self.steps.iter().position(|step| step.name == name) {
            Some(index) => index,
            None => {
                self.steps.push(StepRecord::new(name.to_owned()));
                self.steps.len() - 1
            }
        };
        &mut self.steps[index]
    }

    /// The only place where a run changes. A repeat of what already happened changes nothing.
    ///
    /// # Errors
    /// When the event does not fit the state.
    pub fn transition(&self, event: &RunEvent, at: UnixMs) -> Result<Self, IllegalTransition> {
        let mut next = self.clone();
        let refused = || IllegalTransition::new(&self.id, self.state.word(), event.word());
        // Two runners may believe that they have the run: only who took it last is heard.
        if let RunEvent::Reported { runner, attempt, .. } = event
            && self.holder() != Some((runner, *attempt))
        {
            return Err(refused());
        }
        match (&self.state, event) {
            (RunState::Queued, RunEvent::Leased { runner, .. }) => {
                next.state = RunState::Running { runner: runner.clone() };
                next.runner = Some(runner.clone());
                next.attempt += 1;
                next.started_at = Some(at);
            }
            // A runner that restarted takes its own run again; nobody takes another's.
            (
                RunState::Running { runner: owner } | RunState::Cancelling { runner: owner },
                RunEvent::Leased { runner, .. },
            ) if owner == runner => {}
            (
                RunState::Running { runner } | RunState::Cancelling { runner },
                RunEvent::RunnerLost { attempt, lost_max, reason },
            ) if *attempt == self.attempt => next.lose(runner, *lost_max, reason, at),
            (RunState::Queued | RunState::Held { .. }, RunEvent::CancelRequested { reason }) => {
                next.state = RunState::Cancelled;
                next.cancel_reason = Some(reason.clone());
                next.finished_at = Some(at);
            }
            (RunState::Running { runner }, RunEvent::CancelRequested { reason }) => {
                next.state = RunState::Cancelling { runner: runner.clone() };
                next.cancel_reason = Some(reason.clone());
            }
            (RunState::Cancelling { .. } | RunState::Cancelled, RunEvent::CancelRequested { .. }) => {}
            (RunState::Held { .. }, RunEvent::Inspected { proposal }) => next.proposal = Some((**proposal).clone()),
            (RunState::Held { .. }, RunEvent::Allowed { by }) => {
                next.state = RunState::Queued;
                next.allowed_by = Some(by.clone());
                next.finished_at = None;
            }
            (RunState::Held { .. }, RunEvent::Declined { by, reason }) => {
                let said = if reason.trim().is_empty() { String::new() } else { format!(": {}", reason.trim()) };
                next.state = RunState::Declined { reason: format!("{by} declined it{said}") };
                next.finished_at = Some(at);
            }
            (RunState::Held { .. }, RunEvent::HoldEnded { end }) => {
                next.state = RunState::Declined { reason: end.reason() };
                next.finished_at = Some(at);
            }
            // Somebody pressed twice.
            (RunState::Queued | RunState::Running { .. }, RunEvent::Allowed { .. }) if self.allowed_by.is_some() => {}
            (RunState::Declined { .. }, RunEvent::Declined { .. }) => {}
            (RunState::Running { .. } | RunState::Cancelling { .. }, RunEvent::Reported { report, .. })
                if self.may_report(report) =>
            {
                next.take_report(report, at);
            }
            // The runner repeats its last report because the answer was lost.
            (
                RunState::Succeeded { digest: known },
                RunEvent::Reported { report: Report::Succeeded { digest, .. }, .. },
            ) if known == digest => {}
            (RunState::Passed, RunEvent::Reported { report: Report::Passed, .. }) => {}
            (
                RunState::Failed { .. } | RunState::Cancelled,
                RunEvent::Reported { report: Report::Failed { .. } | Report::Cancelled, .. },
            ) => {}
            _ => return Err(refused()),
        }
        Ok(next)
    }

    /// A run that may not push never succeeds with a digest, whatever a runner says; all others never pass without one.
    fn may_report(&self, report: &Report) -> bool {
        match report {
            Report::Succeeded { .. } => self.trigger.may_push(),
            Report::Passed => !self.trigger.may_push(),
            _ => true,
        }
    }

    /// Its runner was lost: it waits for another one, from the beginning.
    fn lose(&mut self, runner: &RunnerName, lost_max: u32, reason: &str, at: UnixMs) {
        self.lost.push(runner.clone());
        if matches!(self.state, RunState::Cancelling { .. }) {
            self.state = RunState::Cancelled;
            self.end_steps(at);
        } else if u32::try_from(self.lost.len()).is_ok_and(|lost| lost < lost_max) {
            self.begin_anew();
        } else {
            let times = self.lost.len();
            let reason =
                format!("runner {runner} {reason}; {times} runners were lost with this run, and it is given up");
            self.state = RunState::Failed { blame: Blame::Infrastructure, reason };
            self.end_steps(at);
        }
    }

    /// What an attempt found out does not count for the next one.
    fn begin_anew(&mut self) {
        self.state = RunState::Queued;
        self.started_at = None;
        self.commit = None;
        self.steps = vec![StepRecord::new("checkout".into())];
        self.plan = None;
        self.file_releases = false;
    }

    fn take_report(&mut self, report: &Report, at: UnixMs) {
        match report {
            Report::CheckedOut { commit } => {
                self.trigger.subject = commit.message.lines().next().unwrap_or_default().to_owned();
                self.trigger.author.clone_from(&commit.author);
                self.trigger.author_email.clone_from(&commit.author_email);
                self.commit = Some(commit.clone());
            }
            Report::Prepared { steps, plan, releases } => {
                let known = std::mem::take(&mut self.steps);
                self.steps = steps
                    .iter()
                    .map(|name| {
                        known
                            .iter()
                            .find(|step| step.name == *name)
                            .cloned()
                            .unwrap_or_else(|| StepRecord::new(name.clone()))
                    })
                    .collect();
                self.plan = Some((**plan).clone());
                self.file_releases = *releases;
            }
            Report::StepStarted { step, at } => {
                let record = self.step(step);
                // Adopted after a restart: it began when it first began.
                record.started_at.get_or_insert(*at);
                record.finished_at = None;
                record.outcome = None;
            }
            Report::StepFinished { step, at, outcome } => {
                let record = self.step(step);
                record.finished_at = Some(*at);
                record.outcome = Some(outcome.clone());
            }
            Report::Succeeded { digest, tag, reused_from, inputs } => {
                // The push won the race against a cancel: the image is there, so the run says so.
                self.state = RunState::Succeeded { digest: digest.clone() };
                self.tag = Some(tag.clone());
                self.inputs = Some(inputs.clone());
                self.reused_from.clone_from(reused_from);
                self.finished_at = Some(at);
            }
            Report::Passed => {
                self.state = RunState::Passed;
                self.finished_at = Some(at);
            }
            Report::Failed { blame, reason } => {
                self.state = match self.state {
                    RunState::Cancelling { .. } => RunState::Cancelled,
                    _ => RunState::Failed { blame: *blame, reason: reason.clone() },
                };
                self.end_steps(at);
            }
            Report::Unfit { labels } if matches!(self.state, RunState::Cancelling { .. }) || *labels == self.labels => {
                self.state = match &self.state {
                    RunState::Cancelling { .. } => RunState::Cancelled,
                    // It was given to this one because it said that it has them.
                    _ => RunState::Failed {
                        blame: Blame::Infrastructure,
                        reason: format!("the runner was given the run and lacks the labels that it asks for: {labels}"),
                    },
                };
                self.end_steps(at);
            }
            Report::Unfit { labels } => {
                self.labels = labels.clone();
                self.begin_anew();
            }
            Report::Cancelled => {
                self.state = match &self.state {
                    RunState::Cancelling { .. } => RunState::Cancelled,
                    _ => RunState::Failed {
                        blame: Blame::Infrastructure,
                        reason: "the runner stopped the run, and nobody had asked for it".into(),
                    },
                };
                self.end_steps(at);
            }
        }
    }

    fn end_steps(&mut self, at: UnixMs) {
        self.finished_at = Some(at);
        for step in &mut self.steps {
            if step.started_at.is_some() && step.outcome.is_none() {
                step.finished_at = Some(at);
                step.outcome = Some(StepOutcome::Cancelled);
            }
        }
    }
}

#[cfg(test)]
mod tests;
