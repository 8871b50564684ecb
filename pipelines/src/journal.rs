//! The journal: what happened, in order, who did it and by which way. Records of their own, apart from the domain's
//! events, because they are kept for ever. Not here: where it is stored.

use serde::{Deserialize, Serialize};

use crate::{ids::ServiceName, time::UnixMs};

/// Version of [`Entry`] as it is written now.
pub const ENTRY_VERSION: u32 = 1;

/// By which way something was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A page, signed in.
    Page,
    /// The API or the command line.
    Api,
    /// The link in a mail.
    MailLink,
    /// A forge's hook.
    Hook,
    /// A runner.
    Runner,
    /// The server itself: a driver, a timer, the judge.
    Server,
}

/// Who did something and by which way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Origin {
    /// Account, mail address, runner, or `windlass`.
    pub actor: String,
    /// The way.
    pub channel: Channel,
}

impl Origin {
    /// The server itself.
    #[must_use]
    pub fn server() -> Self {
        Self { actor: "windlass".into(), channel: Channel::Server }
    }
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Entry {
    /// [`ENTRY_VERSION`] when it was written.
    pub version: u32,
    /// Its place: counted from 1 over the whole server.
    pub seq: u64,
    /// When.
    pub at: UnixMs,
    /// Which service, if it is about one.
    pub service: Option<ServiceName>,
    /// Who, how.
    pub origin: Origin,
    /// What it is about: `run checkout/412`, `account mei`.
    pub subject: String,
    /// What happened: `release_approved`.
    pub word: String,
    /// State before and after, where a state changed.
    pub change: Option<(String, String)>,
    /// More, in a few words: a reason, a comment, a digest. Never a secret.
    pub detail: String,
}
