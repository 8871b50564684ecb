//! What pages and API show of a service at one glance: the release or run that matters now, why it is not live yet, and
//! what the infrastructure keeps from happening. Reading only. Not here: how it is shown.

use pipelines::{
    approval::{Approval, ApprovalState, Claim, Reminder},
    effect::{Effect, PendingEffect},
    ids::{ReleaseId, RolloutId, RunId, ServiceName},
    release::{Release, ReleaseState},
    rollout::Rollout,
    run::{Run, RunState},
    service::Service,
    train::Train,
    why::{BackCause, FAULT_TRIES_BEFORE_A_PERSON, Fault, Party, ReleaseFacts, RunFacts, Why, why_release, why_run},
};

use super::{App, AppError, accounts::Caller};
use crate::store::{Page, Role};

/// Runs that are looked at for the newest one that may release, and for the usual time.
const RUNS_SEEN_MAX: usize = 20;
/// Rollouts that are looked at for the last one of a release.
const ROLLOUTS_SEEN_MAX: usize = 20;
/// Journal lines that are looked at for who stopped a run.
const ENTRIES_SEEN_MAX: usize = 200;

/// Which of its records a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// [`ServiceRow::release`].
    Release,
    /// [`ServiceRow::run`].
    Run,
    /// Nothing was pushed yet.
    Nothing,
}

/// The groups of the board, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Waits for this person.
    NeedsYou,
    /// Failed, or the infrastructure is in the way.
    Failing,
    /// On its way.
    Moving,
    /// Nothing is to come.
    Idle,
}

impl Group {
    /// The word for it in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NeedsYou => "needs_you",
            Self::Failing => "failing",
            Self::Moving => "moving",
            Self::Idle => "idle",
        }
    }
}

/// One service at one glance.
#[derive(Clone, Debug)]
pub struct ServiceRow {
    /// The service.
    pub service: Service,
    /// What moves on it.
    pub train: Train,
    /// Which of the following the row is about.
    pub subject: Subject,
    /// The newest run that may release (of the service, if none may); with a release as subject: the run of it.
    pub run: Option<Run>,
    /// The release that matters now: on its way, or the newest.
    pub release: Option<Release>,
    /// Its approval.
    pub approval: Option<Approval>,
    /// Its rollout: the one that runs, or the one that was rolled back.
    pub rollout: Option<Rollout>,
    /// The release that has the traffic.
    pub live: Option<Release>,
    /// Why the subject is not live.
    pub why: Why,
    /// The repository cannot be asked at present.
    pub poll_fault: Option<Fault>,
}

impl ServiceRow {
    /// Where the row stands on the board of `caller`.
    #[must_use]
    pub fn group(&self, caller: Option<&Caller>) -> Group {
        if self.needs(caller) {
            return Group::NeedsYou;
        }
        match &self.why {
            Why::CodeFailed { .. }
            | Why::RunFault { .. }
            | Why::Fault(_)
            | Why::UnhealthyInTest { .. }
            | Why::Rejected { .. }
            | Why::Expired { .. } => Group::Failing,
            Why::RolledBack { cause: BackCause::Judge { .. }, .. } => Group::Failing,
            // Where some were reached, the release goes on without the others.
            Why::MailWaits { others, .. } if others.is_empty() => Group::Failing,
            Why::NothingPushed
            | Why::RunHeld { .. }
            | Why::RunDeclined { .. }
            | Why::RunCancelled { .. }
            | Why::NoRelease { .. }
            | Why::Superseded { .. }
            | Why::RolledBack { .. }
            | Why::Live { .. }
            | Why::Retired { .. } => Group::Idle,
            _ => Group::Moving,
        }
    }

    /// Whether it waits for `caller`.
    fn needs(&self, caller: Option<&Caller>) -> bool {
        let Some(caller) = caller else { return false };
        match &self.why {
            Why::AwaitingDecision { .. } | Why::MailWaits { .. } | Why::Claimed { .. } | Why::Expired { .. } => {
                self.approval.as_ref().is_some_and(|approval| waits_for(approval, caller))
            }
            Why::RunHeld { .. } | Why::Paused { .. } | Why::TooFewRequests { until: None, .. } => {
                caller.may(Role::ReleaseManager)
            }
            _ => false,
        }
    }
}

/// A mail about an open approval that the mail server has not taken yet.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// Whom it is for.
    pub to: String,
    /// What is wrong, and when it is tried again.
    pub fault: Fault,
}

/// Whether `caller` is one of those who decide: a tester by role, or one whom the pipeline file names and who was asked.
#[must_use]
pub fn is_decider(approval: &Approval, caller: &Caller) -> bool {
    caller.may(Role::Tester) || approval.is_asked(&caller.account.email)
}

/// Whether the decision on `approval` waits for `caller`: they may take it and have not, nobody else is testing who can
/// decide alone, it is not their own commit. An expired one waits for whoever could ask again.
#[must_use]
pub fn waits_for(approval: &Approval, caller: &Caller) -> bool {
    let (name, email) = (caller.account.name.as_str(), caller.account.email.as_str());
    let is_others = |claim: &Claim| claim.by != name && !claim.by.eq_ignore_ascii_case(email);
    let is_undecided = match approval.state {
        ApprovalState::Open => !approval.has_approved(name, email),
        ApprovalState::Expired => true,
        _ => false,
    };
    is_undecided
        && is_decider(approval, caller)
        && !approval.covering_claim().is_some_and(is_others)
        && !approval.is_barred(email)
}

impl App {
    /// All services, each at one glance, by name.
    ///
    /// # Errors
    /// When the store cannot be read; so for all here.
    pub fn board(&self) -> Result<Vec<ServiceRow>, AppError> {
        self.services()?.into_iter().map(|service| self.row_of(service)).collect()
    }

    /// One service at one glance.
    ///
    /// # Errors
    /// Also when there is none of this name.
    pub fn service_row(&self, name: &ServiceName) -> Result<ServiceRow, AppError> {
        self.row_of(self.service(name)?)
    }

    fn row_of(&self, service: Service) -> Result<ServiceRow, AppError> {
        let name = service.name.clone();
        let train = self.train(&name)?;
        let release_of = |number: Option<u32>| -> Result<Option<Release>, AppError> {
            number.map(|number| self.release(&ReleaseId::new(name.clone(), number))).transpose()
        };
        let newest = release_of(train.newest_release)?;
        let live = if train.live == train.newest_release { newest.clone() } else { release_of(train.live)? };
        let run = self.newest_run(&train)?;
        let running = train.rollout.map(|number| self.rollout(&RolloutId::new(name.clone(), number))).transpose()?;
        let is_under_way = |release: &Option<Release>| release.as_ref().is_some_and(|r| r.state.is_under_way());
        let newer_run = |run: &Run| train.newest_release.is_none_or(|newest| run.id.number > newest);
        // What is under way goes before a newer run, so that nobody who is waited for is hidden by a push.
        let (subject, release) = if is_under_way(&newest) {
            (Subject::Release, newest)
        } else if let Some(rollout) = &running {
            (Subject::Release, release_of(Some(rollout.release.number))?)
        } else if run.as_ref().is_some_and(|run| newer_run(run) && (run.may_release || newest.is_none())) {
            (Subject::Run, newest)
        } else if newest.is_some() {
            (Subject::Release, newest)
        } else {
            (Subject::Nothing, None)
        };
        let mut row = ServiceRow {
            service,
            train,
            subject,
            run,
            release,
            approval: None,
            rollout: None,
            live,
            why: Why::NothingPushed,
            poll_fault: self.poll_fault(&name),
        };
        match (row.subject, row.release.clone(), &row.run) {
            (Subject::Release, Some(release), _) => {
                if row.run.as_ref().is_none_or(|run| run.id != release.id.run()) {
                    row.run = self.store.run(&release.id.run())?;
                }
                row.approval = self.store.approval(&release.id)?;
                row.rollout = match running {
                    Some(rollout) if rollout.release == release.id => Some(rollout),
                    _ => self.rollout_for_why(&release)?,
                };
                row.why = self.why_of(&release, row.approval.as_ref(), row.rollout.as_ref(), &row.train)?;
            }
            (Subject::Run, _, Some(run)) => row.why = self.run_why(run)?,
            // Nobody knows whether something was pushed to a repository that does not answer.
            _ => row.why = row.poll_fault.clone().map_or(Why::NothingPushed, Why::Fault),
        }
        Ok(row)
    }

    /// The newest run that may release, else the newest run.
    fn newest_run(&self, train: &Train) -> Result<Option<Run>, AppError> {
        if train.last_run == 0 {
            return Ok(None);
        }
        let newest = self.store.runs(&train.service, Page::newest(1))?;
        if newest.first().is_none_or(|run| run.may_release) {
            return Ok(newest.into_iter().next());
        }
        let runs = self.store.runs(&train.service, Page::newest(RUNS_SEEN_MAX))?;
        let best = runs.iter().find(|run| run.may_release).or(runs.first());
        Ok(best.cloned())
    }

    /// Why a release is not live, whichever it is.
    ///
    /// # Errors
    /// As above.
    pub fn release_why(&self, release: &Release) -> Result<Why, AppError> {
        let train = self.train(&release.id.service)?;
        let approval = self.store.approval(&release.id)?;
        let rollout = self.rollout_for_why(release)?;
        self.why_of(release, approval.as_ref(), rollout.as_ref(), &train)
    }

    fn why_of(
        &self,
        release: &Release,
        approval: Option<&Approval>,
        rollout: Option<&Rollout>,
        train: &Train,
    ) -> Result<Why, AppError> {
        let service = &release.id.service;
        let (mut behind, mut superseded_by, mut rolling_out) = (None, None, None);
        match release.state {
            ReleaseState::WaitingForTest { behind: number } => {
                behind = self.store.approval(&ReleaseId::new(service.clone(), number))?;
            }
            ReleaseState::Superseded { by } => {
                let newer = self.store.release(&ReleaseId::new(service.clone(), by))?;
                superseded_by = newer.map(|newer| newer.commit.author).filter(|author| !author.is_empty());
            }
            ReleaseState::WaitingForRollout => {
                if let Some(number) = train.rollout {
                    rolling_out = Some(self.rollout(&RolloutId::new(service.clone(), number))?.release.number);
                }
            }
            _ => {}
        }
        Ok(why_release(&ReleaseFacts {
            release,
            approval,
            rollout,
            rolling_out,
            behind: behind.as_ref(),
            superseded_by,
            fault: self.release_fault(release, approval),
            unreached: approval.map_or_else(Vec::new, |it| self.undelivered(it).into_iter().map(|it| it.to).collect()),
            promoted_bytes: self.promotion_of(&release.id),
            at: self.now(),
        }))
    }

    /// The last rollout of a release, if it has had one among the service's last ones.
    ///
    /// # Errors
    /// As above.
    pub fn rollout_of(&self, id: &ReleaseId) -> Result<Option<Rollout>, AppError> {
        let rollouts = self.store.rollouts(&id.service, Page::newest(ROLLOUTS_SEEN_MAX))?;
        Ok(rollouts.into_iter().find(|rollout| rollout.release == *id))
    }

    fn rollout_for_why(&self, release: &Release) -> Result<Option<Rollout>, AppError> {
        match release.state {
            ReleaseState::RollingOut | ReleaseState::RolledBack { .. } => self.rollout_of(&release.id),
            _ => Ok(None),
        }
    }

    /// Why a run has not made a release (yet).
    ///
    /// # Errors
    /// As above.
    pub fn run_why(&self, run: &Run) -> Result<Why, AppError> {
        if let Some(release) = self.store.release(&run.id.release())? {
            return self.release_why(&release);
        }
        if run.state == RunState::Queued
            && let Some(no) = self.no_room()
        {
            // Only a person makes room.
            let (error, next_at) = (no.to_string(), self.now().plus_ms(self.config.bounds.lease_wait_ms));
            return Ok(Why::Fault(Fault { party: Party::Store, error, tries: FAULT_TRIES_BEFORE_A_PERSON, next_at }));
        }
        let position = match run.state {
            RunState::Queued => Some(self.queue_place(&run.id)),
            _ => None,
        };
        let usual_ms = match run.state {
            RunState::Running { .. } => self.run_usual_ms(&run.id)?,
            _ => None,
        };
        let cancelled_by = match run.state {
            RunState::Cancelled => self.run_cancelled_by(&run.id)?,
            _ => None,
        };
        Ok(why_run(&RunFacts { run, position, usual_ms, cancelled_by }))
    }

    fn queue_place(&self, id: &RunId) -> (usize, usize) {
        let is_queued = |id: &RunId| matches!(self.store.run(id), Ok(Some(run)) if run.started_at.is_none());
        let waiting: Vec<RunId> = self.queue.runs().into_iter().filter(is_queued).collect();
        let position = waiting.iter().position(|other| other == id).map_or(1, |index| index + 1);
        (position, waiting.len().max(1))
    }

    /// How long the last successful runs before this one took: their median, in milliseconds.
    ///
    /// # Errors
    /// As above.
    pub fn run_usual_ms(&self, id: &RunId) -> Result<Option<u64>, AppError> {
        let earlier = self.store.runs(&id.service, Page { before: Some(id.number), limit: RUNS_SEEN_MAX })?;
        let mut times: Vec<u64> = earlier
            .iter()
            .filter(|run| run.digest().is_some())
            .filter_map(|run| Some(run.finished_at?.since_ms(run.started_at?)))
            .collect();
        times.sort_unstable();
        Ok(times.get(times.len() / 2).copied())
    }

    fn run_cancelled_by(&self, id: &RunId) -> Result<Option<String>, AppError> {
        let subject = format!("run {id}");
        let entries = self.store.journal(Some(&id.service), None, ENTRIES_SEEN_MAX)?;
        let asked = entries.into_iter().find(|entry| entry.subject == subject && entry.word == "run_cancel_requested");
        Ok(asked.map(|entry| entry.origin.actor))
    }

    /// What the infrastructure keeps from happening to a release.
    #[must_use]
    pub fn release_fault(&self, release: &Release, approval: Option<&Approval>) -> Option<Fault> {
        let id = &release.id;
        let failed = |effect: &Effect| self.queue.get(&effect.key()).as_ref().and_then(fault_of);
        match release.state {
            ReleaseState::DeployingTest => failed(&Effect::DeployTest { release: id.clone() }),
            ReleaseState::Promoting => failed(&Effect::Promote { release: id.clone() }),
            ReleaseState::AwaitingApproval => self.undelivered(approval?).into_iter().next().map(|mail| mail.fault),
            ReleaseState::RollingOut => self.queue.of_service(&id.service).iter().find_map(|pending| {
                let is_of_rollout = matches!(
                    pending.effect,
                    Effect::StartRevision { .. }
                        | Effect::ApplyTraffic { .. }
                        | Effect::Measure { .. }
                        | Effect::DrainRevision { .. }
                );
                is_of_rollout.then(|| fault_of(pending)).flatten()
            }),
            _ => None,
        }
    }

    /// Those of the asked to whom a mail could not be sent yet, the first such mail of each.
    #[must_use]
    pub fn undelivered(&self, approval: &Approval) -> Vec<Undelivered> {
        if approval.state != ApprovalState::Open {
            return Vec::new();
        }
        let fault_to = |tester: &String| {
            let (release, round) = (approval.release.clone(), approval.round);
            let reminders = [None].into_iter().chain(Reminder::ALL.map(Some));
            let mails = reminders.map(|reminder| {
                let (release, tester) = (release.clone(), tester.clone());
                Effect::SendApprovalMail { release, round, tester, reminder }
            });
            let serial = approval.link(tester).code_serial;
            let code = Effect::SendCodeMail { release: release.clone(), round, tester: tester.clone(), serial };
            mails.chain([code]).find_map(|mail| self.queue.get(&mail.key()).as_ref().and_then(fault_of))
        };
        let undecided = approval.undecided();
        undecided.into_iter().filter_map(|to| fault_to(&to).map(|fault| Undelivered { to, fault })).collect()
    }

    /// Why the repository of a service cannot be asked at present.
    #[must_use]
    pub fn poll_fault(&self, service: &ServiceName) -> Option<Fault> {
        let poll = Effect::PollRepository { service: service.clone(), due_at: pipelines::time::UnixMs(0) };
        self.queue.get(&poll.key()).as_ref().and_then(fault_of)
    }
}

/// What keeps a pending effect from being done, if its last try failed.
#[must_use]
pub fn fault_of(pending: &PendingEffect) -> Option<Fault> {
    pending.last_error.as_ref().map(|error| Fault {
        party: Party::of(pending.effect.kind()),
        error: error.clone(),
        tries: pending.failures,
        next_at: pending.not_before,
    })
}
