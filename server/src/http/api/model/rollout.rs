//! Rollouts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Why;

/// A move of traffic from the live revision to a new one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// Of which service.
    pub service: String,
    /// Its number there.
    pub number: u32,
    /// Number of the release that gets the traffic.
    pub release: u32,
    /// Its revision.
    pub revision: String,
    /// Number of the release that had the traffic before.
    pub stable_release: Option<u32>,
    /// Why it exists: `promotion` or `rollback`.
    pub cause: String,
    /// Who asked for a rollback.
    pub requested_by: Option<String>,
    /// `rolling`, `blue-green`, `canary`.
    pub strategy: String,
    /// The stages, fixed at the start.
    pub stages: Vec<Stage>,
    /// Index of the present stage, from 0.
    pub stage: Option<usize>,
    /// `starting`, `shifting`, `holding`, `paused`, `draining`, `completed`, `rolling_back`, `draining_back`,
    /// `rolled_back`.
    pub state: String,
    /// Whether it is over.
    pub finished: bool,
    /// Why traffic goes or went back.
    pub reason: Option<String>,
    /// Why it stands still: `person` or `insufficient`.
    pub paused: Option<String>,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// The share of the new revision that is in force, in percent.
    pub weight_percent: u8,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// When the present stage is over.
    pub stage_until_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
    /// Whether it can be aborted now.
    pub can_abort: bool,
    /// When each share came into force.
    pub shares: Vec<Share>,
    /// What the judge last said.
    pub judgement: Option<Judgement>,
    /// Looks at the metrics, oldest first; left out of lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// The address under which a blue-green revision can be looked at before it has traffic.
    pub preview_url: Option<String>,
    /// Why its release is not live yet.
    pub why: Why,
}

/// A share of the traffic, held for a time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stage {
    /// Share of the new revision in percent.
    pub weight_percent: u8,
    /// How long it is held, in milliseconds.
    pub hold_ms: u64,
    /// Whether the judge decides at its end.
    pub judged: bool,
}

/// A share and when it came into force.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Share of the new revision in percent.
    pub weight_percent: u8,
}

/// What the judge said.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Judgement {
    /// `PASS`, `FAIL`, `INSUFFICIENT`.
    pub outcome: String,
    /// Requests to the new revision that it rests on.
    pub requests: u64,
    /// The checks, one by one.
    pub checks: Vec<Check>,
}

/// One check of the judge.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// `success_rate`, `latency_p50`, `latency_p95`, `latency_p99`, `errors_vs_stable`, `latency_vs_stable`.
    pub name: String,
    /// `PASS`, `FAIL`, `INSUFFICIENT`.
    pub outcome: String,
    /// The new revision's value: percent or milliseconds.
    pub value: Option<f64>,
    /// The stable revision's value.
    pub stable: Option<f64>,
    /// The limit, for fixed checks.
    pub limit: Option<f64>,
    /// Chance that the difference is luck, for comparisons.
    pub p_value: Option<f64>,
}

/// One look at the metrics.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Index of the stage.
    pub stage: usize,
    /// Share of the new revision in percent.
    pub weight_percent: u8,
    /// The new revision since the stage's share came into force.
    pub canary: Measured,
    /// The stable one over the same time.
    pub stable: Measured,
    /// What the judge said: `PASS`, `FAIL`, `INSUFFICIENT`.
    pub outcome: String,
}

/// What was measured of one revision.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Measured {
    /// Requests.
    pub requests: u64,
    /// Those answered with 5xx or not at all.
    pub errors: u64,
    /// Latency below which half of the requests lie, in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95 of 100.
    pub p95_ms: Option<f64>,
    /// 99 of 100.
    pub p99_ms: Option<f64>,
}

/// What a person does to a running rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutVerb {
    /// On to the next stage.
    Promote,
    /// All the way.
    PromoteFully,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Traffic back to the stable revision.
    Abort,
    /// Traffic back, and the waiting release takes over.
    Replace,
}

/// Steers a running rollout.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutAct {
    /// What to do.
    pub verb: RolloutVerb,
    /// Why, for an abort.
    #[serde(default)]
    pub reason: String,
}
