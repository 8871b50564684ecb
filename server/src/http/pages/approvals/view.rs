//! What the approval page shows to whom.

use pipelines::{
    approval::{Approval, ApprovalRefusal, ApprovalState, CODE_LIFE_MS, Decision, Reminder, WRONG_CODES_MAX},
    ids::ReleaseId,
    protocol::StepOutcome,
    release::{Release, ReleaseState},
};

use crate::{
    app::{App, AppError, Role, accounts::Caller, addresses, board::is_decider},
    http::{
        pages::{
            Visit,
            convert::{is_mine, page_ms, plan, span, train, version},
        },
        problem::Problem,
        ui::{
            Disabled,
            approval::{
                ApprovalState as PageState, ApprovalView, AskedAs, Asking, Commit, DecideForm, DecideProblem, Health,
                TestSite,
            },
            links,
            mail::Reminder as PageReminder,
        },
    },
};

/// Commits that the page lists.
const COMMITS_MAX: usize = 10;

/// Who looks at the page.
#[derive(Clone, Copy)]
pub(super) enum Who<'a> {
    /// Whoever has a tester's link.
    Link {
        /// The tester.
        tester: &'a str,
        /// What opens it.
        token: &'a str,
    },
    /// Somebody who is signed in.
    Account(&'a Caller),
}

impl<'a> Who<'a> {
    fn email(self) -> &'a str {
        match self {
            Self::Link { tester, .. } => tester,
            Self::Account(caller) => &caller.account.email,
        }
    }

    fn name(self) -> &'a str {
        match self {
            Self::Link { tester, .. } => tester,
            Self::Account(caller) => &caller.account.name,
        }
    }

    /// Behind a link there is no account: the tester may have none.
    fn account_name(self) -> &'a str {
        match self {
            Self::Link { .. } => "",
            Self::Account(caller) => &caller.account.name,
        }
    }

    fn is(self, name: &str) -> bool {
        match self {
            Self::Link { tester, .. } => name.eq_ignore_ascii_case(tester),
            Self::Account(caller) => is_mine(name, caller),
        }
    }

    fn may_act(self, approval: &Approval) -> bool {
        match self {
            Self::Link { .. } => true,
            Self::Account(caller) => is_decider(approval, caller),
        }
    }

    /// Wrong codes that are left before the link is locked.
    pub(super) fn tries_left(self, approval: &Approval) -> u32 {
        WRONG_CODES_MAX.saturating_sub(approval.link(self.email()).wrong_codes)
    }

    /// Whether the link is locked.
    pub(super) fn is_locked(self, approval: &Approval) -> bool {
        matches!(self, Self::Link { .. }) && self.tries_left(approval) == 0
    }
}

/// What was said to a form that failed, and what it held.
#[derive(Default)]
pub(super) struct Said {
    /// A form failed.
    pub(super) failed: bool,
    /// What was wrong.
    pub(super) problem: Option<DecideProblem>,
    /// The comment as it was typed.
    pub(super) comment: String,
    /// What the page says instead of the approval's state.
    pub(super) state: Option<fn(&Approval, Who<'_>) -> PageState>,
}

impl Said {
    /// The domain refused an act.
    pub(super) fn refuse(&mut self, refusal: ApprovalRefusal) {
        self.problem = match refusal {
            ApprovalRefusal::OwnCommit(_) => Some(DecideProblem::OwnCommit),
            ApprovalRefusal::AlreadyApproved { missing, .. } => Some(DecideProblem::AlreadyApproved { missing }),
            ApprovalRefusal::CommentMissing => Some(DecideProblem::CommentNeeded),
            ApprovalRefusal::NoCode => Some(DecideProblem::CodeExpired),
            ApprovalRefusal::TooManyCodes => Some(DecideProblem::TooManyCodes),
            ApprovalRefusal::ClaimedBy(who) => Some(DecideProblem::ClaimedBy { who }),
            ApprovalRefusal::StaleDigest => {
                self.state = Some(|_, _| PageState::Stale);
                None
            }
            ApprovalRefusal::NotATester(_) => {
                self.state = Some(|approval, who| PageState::NotYours {
                    mailed_to: who.name().to_owned(),
                    who_can: approval.undecided(),
                });
                None
            }
            // The state itself says it.
            ApprovalRefusal::NotOpen(_)
            | ApprovalRefusal::Late
            | ApprovalRefusal::Locked
            | ApprovalRefusal::NotClaimed
            | ApprovalRefusal::Illegal { .. } => None,
        };
    }
}

/// The page.
pub(super) fn approval_view(
    visit: &Visit,
    approval: &Approval,
    who: Who<'_>,
    said: Said,
) -> Result<ApprovalView, Problem> {
    let app = &visit.app;
    let release = app.release(&approval.release)?;
    let run = app.run(&approval.release.run())?;
    let service = &release.id.service;
    let build = u64::from(release.id.number);
    let live = app.release_live(service)?;
    let rollout = app.rollout_of(&release.id)?;
    let train_record = app.train(service)?;
    let caller = match who {
        Who::Account(caller) => Some(caller),
        Who::Link { .. } => None,
    };
    let facts = train::Facts {
        run: Some(&run),
        release: Some(&release),
        approval: Some(approval),
        rollout: rollout.as_ref(),
        live: live.as_ref(),
        fault: app.release_fault(&release, Some(approval)).is_some(),
        caller,
        linked: caller.is_some(),
    };
    let state = match said.state {
        Some(state) => state(approval, who),
        None => state_of(visit, approval, &release, who)?,
    };
    let passed = run.steps.iter().filter(|step| step.outcome == Some(StepOutcome::Passed)).count();
    let (commits, more_commits) = commits(&release);
    Ok(ApprovalView {
        service: service.to_string(),
        build,
        version: version(&release),
        pushed_by: release.commit.author.clone(),
        pushed_at_ms: page_ms(run.created_at),
        asked_as: asked_as(approval, who),
        id: format!("{service}:{build}"),
        until_ms: page_ms(approval.expires_at),
        train: train::train(&facts),
        test: release.tested_at.map(|tested| TestSite {
            url: format!("{}/", app.config.gateway.address(&addresses::test_host(&app.config.gateway, service))),
            health: Health::Healthy,
            answered: None,
            checked_at_ms: page_ms(tested),
            runs_this: train_record.in_test == Some(release.id.number),
        }),
        how_to_test: Vec::new(),
        live_version: live.as_ref().filter(|live| live.id != release.id).map(version),
        commits,
        more_commits,
        steps_passed: passed as u64,
        run_href: caller.map(|_| links::run(service.as_str(), build)),
        diff: None,
        digest: approval.digest.to_string(),
        form: form(visit, approval, &release, &state, who, &said),
        asking: asking(app, approval, &release, &state, who),
        state,
        needed: approval.needed.max(1),
        approved_by: approval.approved_by.iter().map(|one| (one.by.clone(), page_ms(one.at))).collect(),
        undecided: approval.undecided(),
        next_reminder: approval.next_reminder().map(|(reminder, at)| (reminder_word(reminder), page_ms(at))),
        // What a mail server said is for those who look after it, not for whoever has a link.
        undelivered: match caller {
            Some(_) => app.undelivered(approval).into_iter().map(|mail| (mail.to, mail.fault.error)).collect(),
            None => Vec::new(),
        },
        you: Some(who.name().to_owned()),
        plan: plan(&release.plan.production.strategy),
        request_id: said.failed.then(|| visit.request_id.clone()),
    })
}

fn asked_as(approval: &Approval, who: Who<'_>) -> AskedAs {
    match who {
        who if approval.is_tester(who.email()) => AskedAs::Tester,
        who if approval.is_asked(who.email()) => AskedAs::Deputy,
        Who::Link { .. } => AskedAs::Onlooker,
        Who::Account(caller) if caller.may(Role::ReleaseManager) => AskedAs::ReleaseManager,
        Who::Account(caller) if caller.may(Role::Tester) => AskedAs::Tester,
        Who::Account(_) => AskedAs::Onlooker,
    }
}

fn reminder_word(reminder: Reminder) -> PageReminder {
    match reminder {
        Reminder::HalfTime => PageReminder::HalfTime,
        Reminder::Deputies => PageReminder::Deputy,
        Reminder::LastCall => PageReminder::LastCall,
    }
}

fn state_of(visit: &Visit, approval: &Approval, release: &Release, who: Who<'_>) -> Result<PageState, AppError> {
    let service = release.id.service.as_str();
    let decided = |decision: &Decision| (decision.by.clone(), page_ms(decision.at));
    let expired = || {
        let (have, need) = (approval.have(), approval.needed.max(1));
        PageState::Expired { at_ms: page_ms(approval.expires_at), have, need }
    };
    Ok(match &approval.state {
        ApprovalState::Open if visit.app.now() >= approval.expires_at => expired(),
        ApprovalState::Open if who.is_locked(approval) => PageState::Locked,
        ApprovalState::Open => match &approval.claim {
            None => PageState::Open,
            Some(claim) if who.is(&claim.by) => PageState::YouAreTesting { since_ms: page_ms(claim.at) },
            Some(claim) => PageState::SomeoneIsTesting { who: claim.by.clone(), since_ms: page_ms(claim.at) },
        },
        ApprovalState::Approved { decision } => {
            let (last, at_ms) = decided(decision);
            let all: Vec<String> = approval.approved_by.iter().map(|one| one.by.clone()).collect();
            // Records from before each approval was kept have the last one alone.
            let by = if all.is_empty() { vec![last] } else { all };
            let rollout = visit.app.rollout_of(&release.id)?;
            let href = rollout.map_or_else(
                || links::service(service),
                |rollout| links::rollout(service, u64::from(rollout.id.number)),
            );
            PageState::Approved { by, at_ms, href }
        }
        ApprovalState::Rejected { decision } => {
            let (by, at_ms) = decided(decision);
            PageState::Rejected { by, at_ms, comment: decision.comment.clone() }
        }
        ApprovalState::Expired => expired(),
        ApprovalState::Superseded { by } => superseded(visit, release, *by, who)?,
    })
}

/// By which, and where that one can be decided.
fn superseded(visit: &Visit, release: &Release, by: u32, who: Who<'_>) -> Result<PageState, AppError> {
    let newer = ReleaseId::new(release.id.service.clone(), by);
    let (service, build) = (release.id.service.as_str(), u64::from(by));
    let approval = visit.app.approval_maybe(&newer)?;
    let href = match (&approval, who) {
        (None, _) => None,
        (Some(_), Who::Account(_)) => Some(links::approval(service, build)),
        (Some(approval), Who::Link { tester, .. }) if approval.is_asked(tester) => {
            let token = visit.app.keys().approval_token(approval, tester);
            Some(links::approval_by_link(service, build, &token))
        }
        (Some(_), Who::Link { .. }) => None,
    };
    let newer = visit.app.release(&newer)?;
    Ok(PageState::Superseded { build, by: newer.commit.author.clone(), at_ms: page_ms(newer.created_at), href })
}

/// What is to be said of asking again beside its button.
fn asking(app: &App, approval: &Approval, release: &Release, state: &PageState, who: Who<'_>) -> Option<Asking> {
    match state {
        PageState::Expired { .. } if release.state == ReleaseState::DeployingTest => Some(Asking::UnderWay),
        PageState::Expired { .. } if matches!(who, Who::Link { .. }) && !app.may_ask_by_link(approval) => {
            Some(Asking::SignIn)
        }
        _ => None,
    }
}

fn form(
    visit: &Visit,
    approval: &Approval,
    release: &Release,
    state: &PageState,
    who: Who<'_>,
    said: &Said,
) -> Option<DecideForm> {
    let service = approval.release.service.as_str();
    let build = u64::from(approval.release.number);
    let base = match who {
        Who::Link { token, .. } => links::approval_by_link(service, build, token),
        Who::Account(_) => links::approval(service, build),
    };
    let is_shown = match state {
        PageState::Open | PageState::YouAreTesting { .. } | PageState::SomeoneIsTesting { .. } => who.may_act(approval),
        PageState::Locked => true,
        // Asking again is for the newest release only.
        PageState::Expired { .. } => {
            let newest = visit.app.train(&approval.release.service).ok().and_then(|train| train.newest_release);
            let may_ask = match who {
                Who::Link { .. } => visit.app.may_ask_by_link(approval),
                Who::Account(_) => who.may_act(approval),
            };
            // While it is deployed anew, the testers are being asked already.
            let is_over = release.state == ReleaseState::Expired;
            may_ask && is_over && newest == Some(approval.release.number)
        }
        _ => false,
    };
    let link = approval.link(who.email());
    let has_approved = approval.has_approved(who.account_name(), who.email());
    is_shown.then(|| DecideForm {
        base,
        needs_code: matches!(who, Who::Link { .. }),
        code_sent_at_ms: (link.code_serial > 0 && !link.code_used).then(|| page_ms(link.code_at)),
        code_valid_ms: span(CODE_LIFE_MS),
        code_tries: who.tries_left(approval),
        problem: said.problem.clone(),
        comment: said.comment.clone(),
        approve: match approval.is_barred(who.email()) {
            true => Some(Disabled::OwnCommit),
            false => has_approved.then_some(Disabled::ApprovedAlready),
        },
    })
}

/// What changed since the live release; at least the commit itself.
fn commits(release: &Release) -> (Vec<Commit>, u64) {
    let commit = &release.commit;
    let commits: Vec<Commit> = commit
        .changes
        .iter()
        .take(COMMITS_MAX)
        .map(|one| Commit { id: one.short.clone(), subject: one.subject.clone(), author: one.author.clone() })
        .collect();
    let more = commit.changes.len().saturating_sub(commits.len()) as u64;
    if commits.is_empty() {
        let subject = commit.message.lines().next().unwrap_or_default().to_owned();
        let own = Commit { id: commit.sha.short().to_owned(), subject, author: commit.author.clone() };
        return (vec![own], 0);
    }
    (commits, more)
}
