//! What the API takes and gives, as JSON. Both sides of the wire use these: the server's handlers and the command line.
//! Records of their own, apart from the domain's types, because programs of others depend on them.
//! Not here: how they are made from the domain (`convert`).

mod account;
mod audit;
mod board;
mod load;
mod log;
mod release;
mod rollout;
mod run;
mod runner;
mod secret;
mod service;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use account::{
    Account, AccountChange, Login, LoginToken, NewAccount, NewToken, Session, Token, TokenSecret, Whoami,
};
pub use audit::{AuditChange, AuditEntry, AuditHead, AuditLog};
pub use board::{BackupInput, BoardRow, Finding, Health, PendingEffect, Server, Station};
pub use load::{Queue, QueueOfService};
pub use log::{Event, LogHit, LogLine, LogSearch, LogWindow};
pub use release::{Approval, Change, Claim, Decide, Decision, NextReminder, Release, Rollback, Undelivered};
pub use rollout::{Check, Judgement, Measured, Rollout, RolloutAct, RolloutVerb, Sample, Share, Stage};
pub use run::{Cancel, Decline, NewRun, Proposal, ProposedStep, QueuePlace, Run, Step};
pub use runner::{NewRunnerToken, Runner, RunnerToken, RunnerTokenSecret, WaitingRun};
pub use secret::{NamedSecret, SecretInput};
pub use service::{Credential, CredentialKind, Delivery, Diagnostic, Lint, LintReport, Service, ServiceInput};

/// The version of these shapes. A change that would break a program makes a new one.
pub const API_VERSION: &str = "windlass/v1";

/// What kind of thing an answer is.
pub trait Kind {
    /// The word for it.
    fn kind() -> String;
}

macro_rules! kinds {
    ($($name:ident),* $(,)?) => { $(impl Kind for $name { fn kind() -> String { stringify!($name).to_owned() } })* };
}

kinds!(
    Account,
    Approval,
    AuditHead,
    AuditLog,
    BoardRow,
    Delivery,
    Health,
    LintReport,
    LogSearch,
    LogWindow,
    LoginToken,
    NamedSecret,
    PendingEffect,
    Queue,
    Release,
    Rollout,
    Run,
    Runner,
    RunnerToken,
    RunnerTokenSecret,
    Server,
    Service,
    Session,
    Token,
    TokenSecret,
    WaitingRun,
    Whoami,
);

/// Every answer: its version and kind, and beside them the thing itself.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Answer<T> {
    /// [`API_VERSION`].
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Which kind of thing it is: `Run`, `RunList`, …
    pub kind: String,
    /// The thing.
    #[serde(flatten)]
    pub it: T,
}

impl<T: Kind> Answer<T> {
    /// Wraps it.
    #[must_use]
    pub fn new(it: T) -> Self {
        Self { api_version: API_VERSION.to_owned(), kind: T::kind(), it }
    }
}

/// Several of a kind.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// They.
    pub items: Vec<T>,
    /// Where there may be more: what to give as `before` to get them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
}

impl<T> List<T> {
    /// All there are.
    #[must_use]
    pub fn all(items: Vec<T>) -> Self {
        Self { items, next_before: None }
    }
}

impl<T: Kind> Kind for List<T> {
    fn kind() -> String {
        format!("{}List", T::kind())
    }
}

/// The answer to "why is it not live yet?".
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The reason in one word: `awaiting_decision`, `fault`, `canary`, `live`, …
    pub word: String,
    /// The reason in one sentence, with the person and the next action.
    pub text: String,
    /// What is next.
    pub next: String,
    /// Who acts next.
    pub person: Person,
    /// Until when the present state lasts at most, or the person has time, in milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// The infrastructure is in the way, not the code.
    pub fault: Option<Fault>,
}

/// Who acts next.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Person {
    /// `nobody`, `author`, `testers`, `named`, `anyone`, `release_manager`, `operator`.
    pub kind: String,
    /// Their names or mail addresses, where they are known.
    pub names: Vec<String>,
}

/// The infrastructure does not let something happen; it is tried again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Where: `git`, `engine`, `mail`, `registries`, `gateway`, `runner`, `store`.
    pub party: String,
    /// What the last try said.
    pub error: String,
    /// Tries so far.
    pub tries: u32,
    /// When it is tried again, in milliseconds since 1970.
    pub next_at_ms: u64,
}

/// A commit.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Commit {
    /// The whole id.
    pub sha: String,
    /// First line of its message; empty before it was checked out.
    pub subject: String,
    /// Its author's name.
    pub author: String,
    /// Its author's mail address.
    pub author_email: String,
}

/// What a change did, where nothing else is to say.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// What was done, in one sentence.
    pub done: String,
}

impl Kind for Done {
    fn kind() -> String {
        "Done".to_owned()
    }
}
