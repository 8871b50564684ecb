//! The journal: what happened, in order, who did it and by which way. Records of their own, apart from the domain's
//! events, because they are kept for ever. It is the audit log: each entry names its predecessor by its digest ([`chain`]).
//! Not here: where it is stored.

pub mod chain;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    ids::{Digest, ServiceName},
    time::UnixMs,
};

/// Version of [`Entry`] as it is written now. The second one has a place, a proof, changed fields and digests.
pub const ENTRY_VERSION: u32 = 2;
/// How the text begins that an entry's digest is of, so that it is the digest of nothing else.
const DIGEST_OF: &str = "windlass-journal-1";

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
    /// A command on the server's own machine, on its files.
    Machine,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Page, Self::Api, Self::MailLink, Self::Hook, Self::Runner, Self::Server, Self::Machine];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Api => "api",
            Self::MailLink => "mail_link",
            Self::Hook => "hook",
            Self::Runner => "runner",
            Self::Server => "server",
            Self::Machine => "machine",
        }
    }

    /// The one with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.word() == word)
    }
}

/// Who did something, by which way and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Origin {
    /// Account, mail address, runner, or `windlass`.
    pub actor: String,
    /// The way.
    pub channel: Channel,
    /// The address that it came from; behind a trusted proxy the client's. Empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// What proved who it was, by its id, which opens nothing: `token 4f1a…`, `session 09bc…`. Empty where nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proof: String,
}

impl Origin {
    /// Somebody by this way, from nowhere that is known.
    #[must_use]
    pub fn new(actor: impl Into<String>, channel: Channel) -> Self {
        Self { actor: actor.into(), channel, place: String::new(), proof: String::new() }
    }

    /// The same, from this address.
    #[must_use]
    pub fn from_place(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// The same, proved by this.
    #[must_use]
    pub fn proved_by(mut self, proof: impl Into<String>) -> Self {
        self.proof = proof.into();
        self
    }

    /// The server itself.
    #[must_use]
    pub fn server() -> Self {
        Self::new("windlass", Channel::Server)
    }
}

/// A field that changed. Of a secret thing only that it changed, never what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Changed {
    /// Which field.
    pub field: String,
    /// What it was; empty: nothing.
    pub before: String,
    /// What it is now; empty: nothing.
    pub after: String,
}

impl Changed {
    /// What changed of a field; none where it is as it was.
    #[must_use]
    pub fn of(field: &str, before: impl ToString, after: impl ToString) -> Option<Self> {
        let (before, after) = (before.to_string(), after.to_string());
        (before != after).then(|| Self { field: field.to_owned(), before, after })
    }
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Entry {
    /// [`ENTRY_VERSION`] when it was written.
    pub version: u32,
    /// Its place: counted from 1 over the whole server. Entries of the first version leave out places.
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
    /// Fields before and after, where fields changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Changed>,
    /// More, in a few words: a reason, a comment, a digest. Never a secret.
    pub detail: String,
    /// The digest of the entry before it; of the first one the store's own beginning. None until it is in the chain.
    #[serde(default)]
    pub previous: Option<Digest>,
    /// The digest of [`Entry::canonical`]. None until it is in the chain.
    #[serde(default)]
    pub digest: Option<Digest>,
}

impl Entry {
    /// The text that the digest is of: everything but the digest itself, as one line of JSON without spaces whose order
    /// never changes, so that anybody can compute it from an export.
    #[must_use]
    pub fn canonical(&self) -> String {
        let changed: Vec<_> = self.changed.iter().map(|it| [&it.field, &it.before, &it.after]).collect();
        json!([
            DIGEST_OF,
            self.previous,
            self.version,
            self.seq,
            self.at.0,
            self.service,
            self.origin.actor,
            self.origin.channel.word(),
            self.origin.place,
            self.origin.proof,
            self.subject,
            self.word,
            self.change,
            changed,
            self.detail,
        ])
        .to_string()
    }

    /// The digest of what it says now.
    #[must_use]
    pub fn own_digest(&self) -> Digest {
        Digest::of(self.canonical().as_bytes())
    }
}
