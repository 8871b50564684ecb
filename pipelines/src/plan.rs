//! What a run resolves out of the pipeline file and the base config: all that delivering the image needs, so that
//! nothing after the run reads the repository again. Not here: the pipeline file itself (`definition`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a release is to be deployed, tested and rolled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeliveryPlan {
    /// Base config and version, such as `static-site@1.0.0`.
    pub base: String,
    /// What the target needs to run the image.
    pub deploy: DeployPlan,
    /// How many of whom test, until when.
    pub test: TestPlan,
    /// How traffic moves in production.
    pub production: ProductionPlan,
}

/// What a target needs to run one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeployPlan {
    /// The port on which the container answers HTTP.
    pub port: u16,
    /// The host name in production, if the service names one of its own.
    pub host: Option<String>,
    /// Environment of the container.
    pub env: BTreeMap<String, String>,
    /// Path that answers 2xx or 3xx when the service is well.
    pub health_path: String,
    /// How long it may take until it is well, in milliseconds.
    pub health_timeout_ms: u64,
    /// Containers per revision in production.
    pub replicas: u32,
    /// Memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU limit in thousandths of a core.
    pub cpu_milli: Option<u32>,
    /// Command instead of the image's own, if any.
    pub command: Vec<String>,
}

/// How many of whom decide, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TestPlan {
    /// Mail addresses of the testers.
    pub testers: Vec<String>,
    /// How many people must approve.
    #[serde(default = "one")]
    pub approvals: u32,
    /// Mail addresses of those who are asked when the testers have not decided for long.
    #[serde(default)]
    pub deputies: Vec<String>,
    /// How long they have, in milliseconds.
    pub expires_ms: u64,
}

fn one() -> u32 {
    1
}

/// How traffic moves to a new revision, and who says no.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProductionPlan {
    /// The way it moves.
    pub strategy: Strategy,
    /// What the judge looks at.
    pub judge: JudgePolicy,
}

/// A way of moving traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Strategy {
    /// New containers take over one after the other.
    Rolling,
    /// The new revision stands whole beside the old one and takes all traffic at once.
    BlueGreen {
        /// How long it can be looked at under its preview address before it takes traffic, in milliseconds.
        preview_ms: u64,
        /// How long the old revision stays ready for an instant switch back, in milliseconds.
        keep_ms: u64,
    },
    /// The new revision gets a growing share.
    Canary {
        /// The shares, in order; after the last comes everything.
        steps: Vec<CanaryStep>,
    },
}

impl Strategy {
    /// The word for it in file, page and command line.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::BlueGreen { .. } => "blue-green",
            Self::Canary { .. } => "canary",
        }
    }
}

/// One share of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CanaryStep {
    /// Share of the requests in percent, 1 to 99.
    pub weight_percent: u8,
    /// How long the share is held and judged, in milliseconds.
    pub hold_ms: u64,
}

/// What the judge looks at and what it does without data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct JudgePolicy {
    /// Fixed limits.
    pub checks: Vec<Check>,
    /// Whether the new revision is compared with the stable one over the same time.
    pub compare_with_stable: bool,
    /// Requests to the new revision below which nothing is judged.
    pub min_requests: u64,
    /// How long a step is held beyond its time for want of requests, in milliseconds; then a person is asked.
    pub insufficient_limit_ms: u64,
}

impl Default for JudgePolicy {
    fn default() -> Self {
        Self { checks: Vec::new(), compare_with_stable: true, min_requests: 50, insufficient_limit_ms: 30 * 60_000 }
    }
}

/// One fixed limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Check {
    /// What is measured.
    pub metric: Metric,
    /// The limit: percent for rates, milliseconds for latencies.
    pub limit: f64,
}

/// What the judge can measure of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of requests that did not fail, in percent; the limit is a lower one.
    SuccessRate,
    /// Half of the requests are faster than this, in milliseconds; the limit is an upper one.
    LatencyP50,
    /// 95 % of the requests are faster than this, in milliseconds.
    LatencyP95,
    /// 99 % of the requests are faster than this, in milliseconds.
    LatencyP99,
}

impl Metric {
    /// The word for it in the pipeline file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::SuccessRate => "success_rate",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
        }
    }
}
