//! Runners, the tokens that register them, and what waits for one.

use std::collections::BTreeMap;

use pipelines::protocol::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A runner.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Runner {
    /// Its name.
    pub name: String,
    /// `active`, or `draining`: it gets nothing new.
    pub state: String,
    /// Whether it is part of the server.
    pub embedded: bool,
    /// Whether it was heard of lately.
    pub there: bool,
    /// When it was last heard of, in milliseconds since 1970.
    pub heard_at_ms: u64,
    /// Its version.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Runs that it takes at the same time.
    pub capacity: u32,
    /// Runs that it has: `service/number`.
    pub runs: Vec<String>,
    /// When it was registered.
    pub registered_at_ms: u64,
    /// By whose token.
    pub registered_by: String,
}

/// A run that waits for a runner.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WaitingRun {
    /// Of which service.
    pub service: String,
    /// Its number.
    pub number: u32,
    /// Its place, from 1.
    pub position: usize,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// The labels that it asks for.
    pub labels: BTreeMap<String, String>,
    /// Why it waits.
    pub reason: String,
    /// Runners that were lost with it before.
    pub lost: Vec<String>,
}

/// A token to be made that registers runners.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRunnerToken {
    /// What it is called.
    #[serde(default)]
    pub label: String,
    /// How many runners it registers; without it one.
    #[serde(default = "one")]
    pub uses: u32,
    /// How long it is good, in milliseconds; without it as configured.
    #[serde(default)]
    pub life_ms: Option<u64>,
}

fn one() -> u32 {
    1
}

/// The token. It is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunnerTokenSecret {
    /// The token.
    #[schema(value_type = String)]
    pub token: Secret,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// A token that registers runners, without what opens anything.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunnerToken {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub label: String,
    /// How many runners it still registers.
    pub uses_left: u32,
    /// When it was made.
    pub created_at_ms: u64,
    /// By whom.
    pub created_by: String,
    /// Until when it is good.
    pub expires_at_ms: u64,
}
