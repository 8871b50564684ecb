//! What pages and API show of a service at one glance: the release or run that matters now, why it is not live yet, and
//! what the infrastructure keeps from happening. Reading only. Not here: how it is shown.

mod facts;
#[cfg(test)]
mod tests;

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    sync::Arc,
};

use pipelines::{
    approval::{Approval, ApprovalState, Claim, Reminder},
    effect::{Effect, PendingEffect},
    ids::{ReleaseId, RunId, ServiceName},
    labels::Labels,
    release::{Release, ReleaseState},
    rollout::Rollout,
    run::{Run, RunState},
    service::Service,
    train::Train,
    why::{BackCause, FAULT_TRIES_BEFORE_A_PERSON, Fault, Party, ReleaseFacts, RunFacts, Why, why_release, why_run},
};

use self::facts::{Facts, OfRelease, OfRun};
use super::{App, AppError, accounts::Caller, queue::Work, room::NoRoom};
use crate::store::{Page, Role};
pub(super) use facts::Known;

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
    pub service: Arc<Service>,
    /// What moves on it.
    pub train: Arc<Train>,
    /// Which of the following the row is about.
    pub subject: Subject,
    /// The newest run that may release (of the service, if none may); with a release as subject: the run of it.
    pub run: Option<Arc<Run>>,
    /// The release that matters now: on its way, or the newest.
    pub release: Option<Arc<Release>>,
    /// Its approval.
    pub approval: Option<Arc<Approval>>,
    /// Its rollout: the one that runs, or the one that was rolled back.
    pub rollout: Option<Arc<Rollout>>,
    /// Number of the last rollout of the release.
    pub release_rollout: Option<u32>,
    /// The release that has the traffic.
    pub live: Option<Arc<Release>>,
    /// Its approval.
    pub live_approval: Option<Arc<Approval>>,
    /// Number of its last rollout.
    pub live_rollout: Option<u32>,
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

/// What is looked at once for all rows of a board, and only where a row asks for it.
struct Look<'a> {
    app: &'a App,
    no_room: OnceCell<Option<NoRoom>>,
    /// The work for runners.
    work: OnceCell<Arc<Work>>,
    /// Whether a runner that is there has these labels.
    runners: RefCell<BTreeMap<Labels, bool>>,
}

impl<'a> Look<'a> {
    fn new(app: &'a App) -> Self {
        Self { app, no_room: OnceCell::new(), work: OnceCell::new(), runners: RefCell::default() }
    }

    fn no_room(&self) -> Option<NoRoom> {
        *self.no_room.get_or_init(|| self.app.no_room())
    }

    fn place(&self, id: &RunId) -> (usize, usize) {
        let work = self.work.get_or_init(|| self.app.queue.work());
        (work.place(id).unwrap_or(1), work.waiting.len().max(1))
    }

    fn has_runner(&self, labels: &Labels) -> bool {
        let known = self.runners.borrow().get(labels).copied();
        known.unwrap_or_else(|| {
            // A store that cannot be read is told elsewhere.
            let found = self.app.runner_for(labels).unwrap_or(true);
            self.runners.borrow_mut().insert(labels.clone(), found);
            found
        })
    }
}

impl App {
    /// All services, each at one glance, by name.
    ///
    /// # Errors
    /// When the store cannot be read; so for all here.
    pub fn board(&self) -> Result<Vec<ServiceRow>, AppError> {
        let look = Look::new(self);
        let names = self.service_names()?;
        names.iter().map(|name| self.row_of(&*self.facts_of(name)?, &look)).collect()
    }

    /// One service at one glance.
    ///
    /// # Errors
    /// Also when there is none of this name.
    pub fn service_row(&self, name: &ServiceName) -> Result<ServiceRow, AppError> {
        self.row_of(&*self.facts_of(name)?, &Look::new(self))
    }

    fn row_of(&self, facts: &Facts, look: &Look<'_>) -> Result<ServiceRow, AppError> {
        let name = &facts.service.name;
        let poll_fault = self.poll_fault(name);
        let why = match (facts.subject, &facts.release, &facts.run) {
            (Subject::Release, Some(release), _) => {
                self.why_of(release, facts.approval.as_deref(), facts.rollout.as_deref(), &facts.of_release)
            }
            (Subject::Run, _, Some(run)) => self.why_of_run(run, &facts.of_run, look),
            // Nobody knows whether something was pushed to a repository that does not answer.
            _ => poll_fault.clone().map_or(Why::NothingPushed, Why::Fault),
        };
        Ok(ServiceRow {
            service: Arc::clone(&facts.service),
            train: Arc::clone(&facts.train),
            subject: facts.subject,
            run: facts.run.clone(),
            release: facts.release.clone(),
            approval: facts.approval.clone(),
            rollout: facts.rollout.clone(),
            release_rollout: facts.release_rollout,
            live: facts.live.clone(),
            live_approval: facts.live_approval.clone(),
            live_rollout: facts.live_rollout,
            why,
            poll_fault,
        })
    }

    /// Why the release that has the traffic of a row is where it is.
    ///
    /// # Errors
    /// As above.
    pub fn live_why(&self, row: &ServiceRow) -> Result<Option<Why>, AppError> {
        let Some(live) = &row.live else { return Ok(None) };
        let of_release = self.of_release(live, &row.train)?;
        Ok(Some(self.why_of(live, row.live_approval.as_deref(), self.rollout_for_why(live)?.as_ref(), &of_release)))
    }

    /// Why a release is not live, whichever it is.
    ///
    /// # Errors
    /// As above.
    pub fn release_why(&self, release: &Release) -> Result<Why, AppError> {
        let train = self.train(&release.id.service)?;
        let approval = self.store.approval(&release.id)?;
        let rollout = self.rollout_for_why(release)?;
        let of_release = self.of_release(release, &train)?;
        Ok(self.why_of(release, approval.as_ref(), rollout.as_ref(), &of_release))
    }

    fn why_of(
        &self,
        release: &Release,
        approval: Option<&Approval>,
        rollout: Option<&Rollout>,
        of_release: &OfRelease,
    ) -> Why {
        why_release(&ReleaseFacts {
            release,
            approval,
            rollout,
            rolling_out: of_release.rolling_out,
            behind: of_release.behind.as_ref(),
            superseded_by: of_release.superseded_by.clone(),
            fault: self.release_fault(release, approval),
            unreached: approval.map_or_else(Vec::new, |it| self.undelivered(it).into_iter().map(|it| it.to).collect()),
            promoted_bytes: self.promotion_of(&release.id),
            at: self.now(),
        })
    }

    /// The last rollout of a release, if it has had one among the service's last ones.
    ///
    /// # Errors
    /// As above.
    pub fn rollout_of(&self, id: &ReleaseId) -> Result<Option<Rollout>, AppError> {
        // Mostly it is the last one; each is large.
        let last = self.store.rollouts(&id.service, Page::newest(1))?;
        if last.is_empty() || last.iter().any(|rollout| rollout.release == *id) {
            return Ok(last.into_iter().next());
        }
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
        Ok(self.why_of_run(run, &self.of_run(run)?, &Look::new(self)))
    }

    fn why_of_run(&self, run: &Run, of_run: &OfRun, look: &Look<'_>) -> Why {
        let position = match run.state {
            RunState::Queued => {
                if let Some(no) = look.no_room() {
                    // Only a person makes room.
                    let (error, next_at) = (no.to_string(), self.now().plus_ms(self.config.bounds.lease_wait_ms));
                    let tries = FAULT_TRIES_BEFORE_A_PERSON;
                    return Why::Fault(Fault { party: Party::Store, error, tries, next_at });
                }
                Some(look.place(&run.id))
            }
            _ => None,
        };
        let (usual_ms, cancelled_by) = (of_run.usual_ms, of_run.cancelled_by.clone());
        let has_runner = run.state != RunState::Queued || look.has_runner(&run.labels);
        why_run(&RunFacts { run, position, has_runner, usual_ms, cancelled_by })
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
