//! Why a release is not live yet: one value for every moment of a run and a release, with the person who acts next, what
//! they do, and until when. Pure: it reads records that somebody else has found.
//! Not here: finding them (`app::board` of the server) and the sentences of the pages, which speak two languages.

mod find;
mod say;
#[cfg(test)]
mod tests;

pub use find::{ReleaseFacts, RunFacts, why_release, why_run};

use crate::{effect::EffectKind, labels::Labels, time::UnixMs};

/// An outside party or part of the installation that a fault is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The service's repository.
    Git,
    /// The container engine.
    Engine,
    /// The mail server.
    Mail,
    /// One of the two registries: a promotion reads from one and writes to the other.
    Registries,
    /// The gateway.
    Gateway,
    /// A runner.
    Runner,
    /// What the server keeps.
    Store,
}

impl Party {
    /// The word for it in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::Engine => "engine",
            Self::Mail => "mail",
            Self::Registries => "registries",
            Self::Gateway => "gateway",
            Self::Runner => "runner",
            Self::Store => "store",
        }
    }

    /// Whom an effect of this kind needs.
    #[must_use]
    pub fn of(kind: EffectKind) -> Self {
        match kind {
            EffectKind::PollRepository | EffectKind::InspectRun => Self::Git,
            EffectKind::ProcessDelivery
            | EffectKind::RemindTesters
            | EffectKind::ExpireApproval
            | EffectKind::ExpireHold => Self::Store,
            EffectKind::ExecuteRun | EffectKind::ExpireLease => Self::Runner,
            EffectKind::DeployTest | EffectKind::StartRevision | EffectKind::DrainRevision => Self::Engine,
            EffectKind::SendApprovalMail | EffectKind::SendCodeMail => Self::Mail,
            EffectKind::Promote => Self::Registries,
            EffectKind::ApplyTraffic | EffectKind::Measure => Self::Gateway,
        }
    }
}

/// The infrastructure does not let something happen; it is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it is.
    pub party: Party,
    /// What the last try said.
    pub error: String,
    /// Tries so far.
    pub tries: u32,
    /// When it is tried again.
    pub next_at: UnixMs,
}

/// A check of the judge that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedCheck {
    /// Its name, as in [`crate::rollout::judge::CheckResult`].
    pub name: String,
    /// The new revision's value: percent or milliseconds.
    pub value: Option<f64>,
    /// The stable revision's value.
    pub stable: Option<f64>,
    /// The limit, for fixed checks.
    pub limit: Option<f64>,
    /// Chance that the difference is luck, for comparisons.
    pub p_value: Option<f64>,
}

/// Why traffic went back.
#[derive(Clone, Debug, PartialEq)]
pub enum BackCause {
    /// The judge said FAIL.
    Judge {
        /// The share that the new revision had, in percent.
        percent: u8,
        /// The first check that failed.
        check: FailedCheck,
        /// Requests to the new revision that it rests on.
        requests: u64,
    },
    /// A person aborted the rollout.
    Person {
        /// Who.
        by: String,
    },
    /// Something else: the revision did not become healthy, or a person went back to an older release later.
    Other,
}

/// The answer to "why is it not live yet?", and for a run that makes no release to "what is it doing?".
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// Nothing was pushed since the service was registered.
    NothingPushed,
    /// The run waits for a person's word.
    RunHeld {
        /// Why.
        reason: String,
    },
    /// The run was held and is not executed.
    RunDeclined {
        /// Who or what said so.
        reason: String,
    },
    /// The run waits for a runner.
    RunQueued {
        /// Its place, from 1.
        position: usize,
        /// How many wait.
        of: usize,
    },
    /// The run waits, and no runner that is there could take it.
    NoRunner {
        /// The labels that it asks for.
        labels: Labels,
    },
    /// A runner works on it.
    RunRunning {
        /// The step that runs, if one does.
        step: Option<String>,
        /// Since when the run runs.
        since: UnixMs,
        /// How long runs of this service usually take, in milliseconds.
        usual_ms: Option<u64>,
    },
    /// Somebody asked to stop it, and the runner has not confirmed yet.
    RunCancelling {
        /// What they said.
        reason: String,
    },
    /// Somebody stopped it.
    RunCancelled {
        /// Who, as far as it is known.
        by: Option<String>,
        /// What they said.
        reason: String,
    },
    /// The run failed, and the code, its tests or its files are the reason.
    CodeFailed {
        /// The step.
        step: Option<String>,
        /// Its exit code.
        exit_code: Option<i64>,
        /// One sentence.
        reason: String,
        /// Who wrote the commit.
        author: String,
    },
    /// The run failed, and the code is not the reason.
    RunFault {
        /// The step.
        step: Option<String>,
        /// One sentence.
        reason: String,
    },
    /// The run succeeded and makes no release.
    NoRelease {
        /// The ref: neither release branch nor release tag.
        ref_name: String,
    },
    /// The infrastructure is in the way.
    Fault(Fault),
    /// The mail to some or all who are asked could not be sent yet; they can decide all the same, signed in.
    MailWaits {
        /// What is wrong.
        fault: Fault,
        /// Who is not reached.
        to: Vec<String>,
        /// Who was reached and has not decided.
        others: Vec<String>,
        /// Until when they have time.
        until: UnixMs,
    },
    /// The test environment is kept for another release.
    BehindClaim {
        /// Which.
        release: u32,
        /// Who is testing it.
        by: Option<String>,
        /// Until when at the latest.
        until: Option<UnixMs>,
    },
    /// It is being deployed to the test environment.
    DeployingToTest,
    /// It did not become healthy there.
    UnhealthyInTest {
        /// What was seen.
        reason: String,
        /// Who wrote the commit.
        author: String,
    },
    /// The testers have it, and nobody has claimed it who could decide alone.
    AwaitingDecision {
        /// Who was asked and has not decided.
        testers: Vec<String>,
        /// How many have approved.
        have: u32,
        /// How many must.
        need: u32,
        /// Testers and deputies are too few: somebody else has to sign in and decide too.
        short: bool,
        /// Until when.
        until: UnixMs,
    },
    /// A tester is testing it.
    Claimed {
        /// Who.
        by: String,
        /// Since when.
        since: UnixMs,
        /// Until when they have to decide.
        until: UnixMs,
    },
    /// A tester said no.
    Rejected {
        /// Who.
        by: String,
        /// When.
        at: UnixMs,
        /// Why.
        comment: String,
    },
    /// Nobody decided in time.
    Expired {
        /// When the time was over.
        at: UnixMs,
        /// How many had approved.
        have: u32,
        /// How many must.
        need: u32,
    },
    /// A newer release took its place.
    Superseded {
        /// Which.
        release: u32,
        /// Who wrote its commit.
        by: Option<String>,
    },
    /// Its image is being copied to the production registry.
    Promoting {
        /// Bytes there and bytes in all, once they are known.
        bytes: Option<(u64, u64)>,
    },
    /// Another rollout runs.
    WaitsForRollout {
        /// Of which release.
        release: Option<u32>,
    },
    /// The containers of the new revision start.
    Starting,
    /// Containers take over one after the other.
    Rolling {
        /// How many have.
        ready: u32,
        /// Of how many.
        of: u32,
    },
    /// It has a share of the traffic.
    Canary {
        /// The share in percent.
        percent: u8,
        /// The step, from 1.
        step: usize,
        /// Of how many.
        of: usize,
        /// The next share; none: everything.
        next_percent: Option<u8>,
        /// When the step is over, once its share is in force.
        next_at: Option<UnixMs>,
    },
    /// It can be looked at under its preview address.
    Preview {
        /// When traffic switches.
        switches_at: Option<UnixMs>,
    },
    /// All traffic is on it, and the old revision is kept ready for an instant switch back.
    Keeping {
        /// Until when.
        until: Option<UnixMs>,
    },
    /// There is too little traffic to judge.
    TooFewRequests {
        /// Requests so far.
        have: u64,
        /// Requests needed.
        need: u64,
        /// When a person is asked if none come; none: a person is asked now.
        until: Option<UnixMs>,
    },
    /// A person paused the rollout.
    Paused {
        /// Who.
        by: String,
    },
    /// All traffic is on it; the old revision finishes what it has.
    Draining,
    /// Traffic is going back.
    RollingBack {
        /// Why.
        reason: String,
        /// To which release.
        to: Option<u32>,
    },
    /// Traffic went back.
    RolledBack {
        /// In words.
        reason: String,
        /// In figures and names.
        cause: BackCause,
        /// To which release.
        to: Option<u32>,
        /// When.
        at: UnixMs,
    },
    /// It is live.
    Live {
        /// Since when.
        since: UnixMs,
    },
    /// It was live until another release took over.
    Retired {
        /// Which.
        release: u32,
    },
}

/// Who acts next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Person {
    /// Nobody has to: it goes on by itself, or it is over.
    Nobody,
    /// Whoever wrote the commit.
    Author(String),
    /// Any of these.
    Testers(Vec<String>),
    /// This one.
    Named(String),
    /// Anybody who may start runs.
    Anyone,
    /// A release manager.
    ReleaseManager,
    /// An operator.
    Operator,
}

impl Why {
    /// The word for it in the API.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NothingPushed => "nothing_pushed",
            Self::RunHeld { .. } => "run_held",
            Self::RunDeclined { .. } => "run_declined",
            Self::RunQueued { .. } => "run_queued",
            Self::NoRunner { .. } => "no_runner",
            Self::RunRunning { .. } => "run_running",
            Self::RunCancelling { .. } => "run_cancelling",
            Self::RunCancelled { .. } => "run_cancelled",
            Self::CodeFailed { .. } => "code_failed",
            Self::RunFault { .. } => "run_fault",
            Self::NoRelease { .. } => "no_release",
            Self::Fault(_) => "fault",
            Self::MailWaits { .. } => "mail_waits",
            Self::BehindClaim { .. } => "behind_claim",
            Self::DeployingToTest => "deploying_to_test",
            Self::UnhealthyInTest { .. } => "unhealthy_in_test",
            Self::AwaitingDecision { .. } => "awaiting_decision",
            Self::Claimed { .. } => "claimed",
            Self::Rejected { .. } => "rejected",
            Self::Expired { .. } => "expired",
            Self::Superseded { .. } => "superseded",
            Self::Promoting { .. } => "promoting",
            Self::WaitsForRollout { .. } => "waits_for_rollout",
            Self::Starting => "starting",
            Self::Rolling { .. } => "rolling",
            Self::Canary { .. } => "canary",
            Self::Preview { .. } => "preview",
            Self::Keeping { .. } => "keeping",
            Self::TooFewRequests { .. } => "too_few_requests",
            Self::Paused { .. } => "paused",
            Self::Draining => "draining",
            Self::RollingBack { .. } => "rolling_back",
            Self::RolledBack { .. } => "rolled_back",
            Self::Live { .. } => "live",
            Self::Retired { .. } => "retired",
        }
    }

    /// Who acts next.
    #[must_use]
    pub fn person(&self) -> Person {
        match self {
            Self::NothingPushed | Self::RunDeclined { .. } | Self::RunCancelled { .. } | Self::Expired { .. } => {
                Person::Anyone
            }
            Self::CodeFailed { author, .. } | Self::UnhealthyInTest { author, .. } => Person::Author(author.clone()),
            Self::NoRunner { .. } | Self::RunFault { .. } | Self::MailWaits { .. } => Person::Operator,
            // What goes wrong the first times often passes by itself.
            Self::Fault(fault) if fault.tries >= FAULT_TRIES_BEFORE_A_PERSON => Person::Operator,
            Self::AwaitingDecision { short: true, testers, .. } if testers.is_empty() => Person::ReleaseManager,
            Self::AwaitingDecision { testers, .. } => Person::Testers(testers.clone()),
            Self::Claimed { by, .. } => Person::Named(by.clone()),
            Self::BehindClaim { by: Some(by), .. } => Person::Named(by.clone()),
            Self::RunHeld { .. } | Self::Paused { .. } | Self::TooFewRequests { until: None, .. } => {
                Person::ReleaseManager
            }
            Self::Rejected { .. } | Self::RolledBack { .. } => Person::Anyone,
            _ => Person::Nobody,
        }
    }

    /// Until when the present state lasts at most, or the person has time.
    #[must_use]
    pub fn until(&self) -> Option<UnixMs> {
        match self {
            Self::Fault(fault) => Some(fault.next_at),
            Self::MailWaits { until, .. } | Self::AwaitingDecision { until, .. } | Self::Claimed { until, .. } => {
                Some(*until)
            }
            Self::BehindClaim { until, .. } | Self::Keeping { until } | Self::TooFewRequests { until, .. } => *until,
            Self::Canary { next_at, .. } => *next_at,
            Self::Preview { switches_at } => *switches_at,
            _ => None,
        }
    }
}

/// Failed tries after which a fault needs an operator.
pub const FAULT_TRIES_BEFORE_A_PERSON: u32 = 5;
