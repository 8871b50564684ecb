//! The tester's page, from the mailed link or signed in. Not here: who may decide, which the caller checked.

use super::mail::Reminder;
use super::markup::icon;
use super::rollout::Strategy;
use super::text::Text;
use super::train::Train;
use super::{Disabled, Section, page};

/// Why this person sees the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the reason that it names")]
pub enum AskedAs {
    Tester,
    Deputy,
    ReleaseManager,
    Onlooker,
}

/// Health as the last check found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the state that it names")]
pub enum Health {
    Healthy,
    Unhealthy,
    Unknown,
}

/// The test environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestSite {
    /// Its address.
    pub url: String,
    /// Its health.
    pub health: Health,
    /// What the last check answered: status and milliseconds.
    pub answered: Option<(u16, u32)>,
    /// When it was checked.
    pub checked_at_ms: i64,
    /// It runs this approval's digest; else another release has the environment.
    pub runs_this: bool,
}

/// A commit of the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Abbreviated id.
    pub id: String,
    /// First line of the message.
    pub subject: String,
    /// Who wrote it.
    pub author: String,
}

/// A line of a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the kind that it names")]
pub enum DiffKind {
    Heading,
    Same,
    Added,
    Removed,
}

/// The difference to what is live, bounded by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Files changed.
    pub files: u64,
    /// Lines added.
    pub added: u64,
    /// Lines removed.
    pub removed: u64,
    /// The lines; may be cut.
    pub lines: Vec<(DiffKind, String)>,
    /// The lines were cut.
    pub cut: bool,
}

/// Where the approval stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the people and times of the state; times in ms UTC")]
pub enum ApprovalState {
    Open,
    YouAreTesting {
        since_ms: i64,
    },
    SomeoneIsTesting {
        who: String,
        since_ms: i64,
    },
    Approved {
        by: Vec<String>,
        at_ms: i64,
        href: String,
    },
    Rejected {
        by: String,
        at_ms: i64,
        comment: String,
    },
    Expired {
        at_ms: i64,
        have: u32,
        need: u32,
    },
    Superseded {
        build: u64,
        by: String,
        at_ms: i64,
        href: Option<String>,
    },
    NotYours {
        mailed_to: String,
        who_can: Vec<String>,
    },
    Locked,
    /// The link belongs to another digest.
    Stale,
}

/// Why there is no button to ask again, or what pressing it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the reason that it names")]
pub enum Asking {
    UnderWay,
    SignIn,
}

/// What was wrong with the last decision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the problem that it names")]
pub enum DecideProblem {
    WrongCode { tries_left: u32 },
    CodeExpired,
    CodeNeeded,
    CommentNeeded,
    CommentTooLong { max_chars: u64 },
    TooManyCodes,
    OwnCommit,
    AlreadyApproved { missing: u32 },
    ClaimedBy { who: String },
}

/// The decision's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecideForm {
    /// The page's own address, which opens the decision and so is never logged; the forms post to `…/decide`, `…/code`, `…/claim`, `…/release`, `…/ask-again`.
    pub base: String,
    /// A mailed code is the proof; else the person is signed in.
    pub needs_code: bool,
    /// When the last code was mailed.
    pub code_sent_at_ms: Option<i64>,
    /// How long a code is good.
    pub code_valid_ms: i64,
    /// How many wrong tries lock the link.
    pub code_tries: u32,
    /// What was wrong with the last decision.
    pub problem: Option<DecideProblem>,
    /// The comment as it was typed.
    pub comment: String,
    /// Why this person cannot approve.
    pub approve: Option<Disabled>,
}

/// How the release will go to production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The strategy.
    pub strategy: Strategy,
    /// The weights of a canary, the last 100.
    pub weights: Vec<u32>,
}

/// The approval page.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalView {
    /// The service.
    pub service: String,
    /// The build.
    pub build: u64,
    /// The version.
    pub version: String,
    /// Who pushed it.
    pub pushed_by: String,
    /// When.
    pub pushed_at_ms: i64,
    /// Why this person is asked.
    pub asked_as: AskedAs,
    /// The approval's id, for its topic.
    pub id: String,
    /// When it expires.
    pub until_ms: i64,
    /// Where the release is.
    pub train: Train,
    /// The test environment; none before it is deployed.
    pub test: Option<TestSite>,
    /// How to test it, from the pipeline file; data.
    pub how_to_test: Vec<String>,
    /// The version that is live; none before the first.
    pub live_version: Option<String>,
    /// What changed since then, the first ones.
    pub commits: Vec<Commit>,
    /// How many more commits changed.
    pub more_commits: u64,
    /// How many steps of the run passed.
    pub steps_passed: u64,
    /// The run's page; none behind a mailed link, which opens no other page.
    pub run_href: Option<String>,
    /// The difference to what is live.
    pub diff: Option<Diff>,
    /// The digest that is decided on.
    pub digest: String,
    /// Where the approval stands.
    pub state: ApprovalState,
    /// How many approvals are needed.
    pub needed: u32,
    /// Who has approved so far, and when.
    pub approved_by: Vec<(String, i64)>,
    /// Who was asked, may approve and has not.
    pub undecided: Vec<String>,
    /// What is mailed next, and when.
    pub next_reminder: Option<(Reminder, i64)>,
    /// Whom the mail server has not taken a mail for, and what it said; for people who are signed in.
    pub undelivered: Vec<(String, String)>,
    /// Who this person is.
    pub you: Option<String>,
    /// How it goes to production.
    pub plan: Plan,
    /// What is to be said of asking again.
    pub asking: Option<Asking>,
    /// The form, where this person can decide or ask for a code.
    pub form: Option<DecideForm>,
    /// The id of the request, for a page that says an error.
    pub request_id: Option<String>,
}

impl ApprovalView {
    fn title(&self, t: &Text<'_>) -> String {
        t.approval_title(self)
    }

    fn is_open(&self) -> bool {
        matches!(
            self.state,
            ApprovalState::Open | ApprovalState::YouAreTesting { .. } | ApprovalState::SomeoneIsTesting { .. }
        )
    }

    fn can_decide(&self) -> bool {
        self.is_open() && self.form.is_some()
    }

    fn shows_test(&self) -> bool {
        !matches!(self.state, ApprovalState::NotYours { .. } | ApprovalState::Stale)
    }

    fn state_icon(&self) -> Option<(super::markup::Markup, &'static str)> {
        let (name, class) = match self.state {
            ApprovalState::Open => return None,
            ApprovalState::YouAreTesting { .. } => ("you", "acc"),
            ApprovalState::SomeoneIsTesting { .. } | ApprovalState::NotYours { .. } => ("wait", "dim"),
            ApprovalState::Approved { .. } => ("pass", "ok"),
            ApprovalState::Rejected { .. } | ApprovalState::Locked => ("fail", "bad"),
            ApprovalState::Expired { .. } => ("hold", "warn"),
            ApprovalState::Superseded { .. } => ("skip", "dim"),
            ApprovalState::Stale => ("fault", "warn"),
        };
        Some((icon(name), class))
    }

    fn host(&self) -> &str {
        self.test.as_ref().map_or("", |test| {
            let url = test.url.trim_end_matches('/');
            url.split_once("://").map_or(url, |(_, host)| host)
        })
    }

    fn topic(&self) -> String {
        format!("approval:{}", self.id)
    }
}

// A mailed link opens no event stream: it is one page for one person, and reloads by hand.
page!(ApprovalView, ApprovalPage, "approval.html", Section::None, |v| {
    v.run_href.as_ref().map(|_| super::links::events(&[&v.topic()]))
});
