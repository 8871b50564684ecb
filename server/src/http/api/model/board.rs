//! The board, and how the server itself is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Fault, Release, Rollout, Run, Why};

/// One service at one glance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BoardRow {
    /// The service.
    pub service: String,
    /// Where it stands on the caller's board: `needs_you`, `failing`, `moving`, `idle`.
    pub group: String,
    /// What the row is about: `release`, `run` or `nothing`.
    pub subject: String,
    /// The stations from commit to live, always the same eight.
    pub stations: Vec<Station>,
    /// The run that matters now.
    pub run: Option<Run>,
    /// The release that matters now.
    pub release: Option<Release>,
    /// Its rollout: the one that runs, or the one that went back.
    pub rollout: Option<Rollout>,
    /// The release that has the traffic.
    pub live: Option<Release>,
    /// The release that waits for the running rollout to end.
    pub waiting_release: Option<u32>,
    /// Why it is not live yet.
    pub why: Why,
    /// The repository cannot be asked at present.
    pub poll_fault: Option<Fault>,
}

/// A station of the train.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Station {
    /// `commit`, `build`, `test_registry`, `test`, `approval`, `production_registry`, `rollout`, `live`.
    pub name: String,
    /// `done`, `moving`, `waiting`, `failed` (the code), `fault` (the infrastructure), `stopped` or `to_come`.
    pub state: String,
    /// When it was reached, in milliseconds since 1970.
    pub at_ms: Option<u64>,
}

/// An effect that is still to be performed, or is being performed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PendingEffect {
    /// Its id.
    pub key: String,
    /// Its kind.
    pub effect: String,
    /// Of which service.
    pub service: String,
    /// When it was asked for, in milliseconds since 1970.
    pub asked_at_ms: u64,
    /// When it may be tried.
    pub not_before_ms: u64,
    /// Why its last try failed.
    pub fault: Option<Fault>,
}

/// How the server is, and all that it needs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The worst of the findings: `good`, `warning` or `bad`.
    pub state: String,
    /// The server's version.
    pub version: String,
    /// The server's time, in milliseconds since 1970.
    pub now_ms: u64,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// Something that was looked at.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What: `engine`, `test_registry`, `production_registry`, `mail`, `gateway`, `disk`, `store`, `git`.
    pub name: String,
    /// `good`, `warning` or `bad`.
    pub state: String,
    /// What was seen.
    pub evidence: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// What the server is set to: what a client needs to know of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// Its address.
    pub public_url: String,
    /// Its time, in milliseconds since 1970.
    pub now_ms: u64,
    /// Host of the test registry.
    pub test_registry: String,
    /// Host of the production registry.
    pub production_registry: String,
}

/// What a backup is to hold.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackupInput {
    /// The master key too: whoever has the file then opens every secret.
    pub with_key: bool,
}
