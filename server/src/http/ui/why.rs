//! Why a release is not live yet: one value for every moment of a release, which the catalogue says in one sentence with its
//! cause first, then the person and the next action. Not here: how it is found out.

/// An outside party or part of the installation that a fault is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the party that it names")]
pub enum Party {
    Git,
    TestRegistry,
    ProductionRegistry,
    Registries,
    Engine,
    Mail,
    Gateway,
    Runner,
    Store,
}

/// What a party answered, or did not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the answer that it names")]
pub enum Answer {
    /// An HTTP or SMTP status.
    Status(u16),
    Refused,
    Unreachable,
    TimedOut,
    CutOff,
    WantsCredential,
    LostHeartbeat,
    Full,
    /// In the party's own words: data.
    Said(String),
}

/// The part of a run that works or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The commit is fetched.
    Checkout,
    /// A step of the pipeline file, by its name.
    Step(String),
    /// The image is built.
    Image,
    /// The image is pushed to the test registry.
    Push,
}

/// A figure that a check gives or is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Figure {
    /// A share in per cent.
    Percent(f64),
    /// A time in milliseconds.
    Ms(f64),
    /// A probability, of a comparison.
    Probability(f64),
}

/// What a check measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the measure that it names")]
pub enum Measure {
    SuccessRate,
    LatencyP50,
    LatencyP95,
    LatencyP99,
    ErrorsAgainstStable,
    LatencyAgainstStable,
}

/// A limit: at least, or at most, a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The figure must be at least this; else at most.
    pub at_least: bool,
    /// The bound.
    pub figure: Figure,
}

/// The check that a new version failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailedCheck {
    /// What it measures.
    pub measure: Measure,
    /// The new version's figure.
    pub value: Figure,
    /// What it was held to.
    pub against: Against,
}

/// What a figure was held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Against {
    /// A fixed limit.
    Limit(Limit),
    /// The stable version's figure over the same time.
    Stable(Figure),
}

/// The answer to "why is it not live yet?", or to "what is it doing?" for a run that makes no release.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are the figures and people of the sentence; times in ms UTC, spans in ms")]
pub enum Why {
    NothingPushed,
    RunHeld { reason: String },
    RunDeclined { reason: String },
    Cancelling { reason: String },
    CodeFailed { step: Option<String>, reason: String },
    RunFault { step: Option<String>, reason: String },
    Queued { position: u64, of: u64, behind: Option<(String, u64)> },
    NoRunner { labels: String },
    Running { phase: Phase, elapsed_ms: i64, usual_ms: Option<i64> },
    StepFailed { step: String, exit_code: i64, line: Option<u64>, told: Option<String> },
    StepTimedOut { step: String, limit_ms: i64, told: Option<String> },
    ImageFailed { line: Option<u64>, told: Option<String> },
    FileInvalid { file: String, problems: u64 },
    CommitGone { commit: String },
    RunCancelled { by: Option<String>, reason: String },
    NoRelease { ref_name: String },
    Fault { party: Party, answer: Answer, attempt: u32, next_in_ms: i64 },
    FaultLasts { party: Party, answer: Answer, attempts: u32, next_in_ms: i64 },
    MailWaits { to: Vec<String>, others: Vec<String>, answer: Answer, next_in_ms: i64 },
    DeployingToTest { build: u64 },
    UnhealthyInTest { detail: String, told: Option<String> },
    YouMayDecide { build: u64, have: u32, need: u32, until_ms: i64 },
    YouAreTesting { build: u64, since_ms: i64, until_ms: i64 },
    TestersMayDecide { testers: Vec<String>, short: bool, until_ms: i64 },
    SomeoneIsTesting { who: String, since_ms: i64, until_ms: i64 },
    MoreApprovals { have: u32, need: u32, testers: Vec<String>, short: bool, until_ms: i64 },
    BehindClaim { build: u64, who: Option<String>, until_ms: Option<i64> },
    Rejected { by: String, at_ms: i64, comment: String },
    Expired { at_ms: i64, have: u32, need: u32 },
    Superseded { build: u64, by: Option<String> },
    Promoting { bytes: Option<(u64, u64)> },
    WaitsForRollout { version: Option<String> },
    Canary { percent: u32, step: usize, of: usize, next_percent: Option<u32>, next_in_ms: Option<i64> },
    Starting,
    Preview { switches_in_ms: Option<i64> },
    Keeping { until_ms: Option<i64> },
    Draining,
    Rolling { ready: u32, of: u32 },
    TooFewRequests { have: u64, need: u64, until_ms: Option<i64> },
    Paused { by: String },
    RollingBack { to: Option<String> },
    RolledBack { percent: u32, failed: FailedCheck, requests: u64, to: Option<String>, at_ms: i64 },
    RolloutFailed { detail: String, to: Option<String>, at_ms: i64 },
    Aborted { by: String, to: Option<String>, at_ms: i64 },
    Live { version: String, since_ms: i64 },
    Retired { version: String },
}

/// A sentence: its cause in bold, then the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// What it is about, with its closing mark.
    pub cause: String,
    /// Who and when, beginning with a space where the language has one.
    pub rest: String,
}
