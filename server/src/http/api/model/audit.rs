//! Shapes of the audit log.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of the audit log, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditLog {
    /// The entries.
    pub items: Vec<AuditEntry>,
    /// Where there may be more: what to give as `before` to get them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
    /// How many entries were looked at for this page.
    pub looked_at: usize,
}

/// One entry of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its place.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Of which service.
    pub service: Option<String>,
    /// Who.
    pub actor: String,
    /// By which way: `page`, `api`, `mail_link`, `hook`, `runner`, `server`, `machine`.
    pub channel: String,
    /// From which address; empty where there is none.
    pub place: String,
    /// What proved who it was: `token 4f1a…`, `session 09bc…`. Its id opens nothing.
    pub proof: String,
    /// What it is about: `run shop/7`.
    pub subject: String,
    /// What happened.
    pub word: String,
    /// State before.
    pub before: Option<String>,
    /// State after.
    pub after: Option<String>,
    /// Fields that changed.
    pub changed: Vec<AuditChange>,
    /// More, in a few words.
    pub detail: String,
    /// The digest of the entry before it.
    pub previous: Option<String>,
    /// Its own digest.
    pub digest: Option<String>,
}

/// A field that changed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditChange {
    /// Which.
    pub field: String,
    /// What it was; empty: nothing.
    pub before: String,
    /// What it is; empty: nothing.
    pub after: String,
}

/// Where the chain of the audit log is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// The last entry's place and digest in one: what to keep elsewhere.
    pub mark: String,
    /// The last entry's place; 0: there is none.
    pub seq: u64,
    /// The last entry's digest.
    pub digest: String,
    /// What the first entry names as its predecessor.
    pub genesis: String,
    /// How many entries there are.
    pub entries: u64,
    /// Entries up to this place were there before the chain began.
    pub adopted: u64,
    /// When the server last walked along the whole of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at_ms: Option<u64>,
    /// What it found wrong then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
