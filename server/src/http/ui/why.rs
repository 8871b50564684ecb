//! Why a release is not live yet: one value for every moment of a release, which the catalogue says in one sentence with its
//! cause first, then the person and the next action. Not here: how it is found out.

/// An outside party or part of the installation that a fault is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the party that it names")]
pub enum Party {
    Git,
    TestRegistry,
    ProductionRegistry,
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

/// The answer to "why is it not live yet?", or to "what is it doing?" for a run that makes no release.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are the figures and people of the sentence; times in ms UTC, spans in ms")]
pub enum Why {
    Queued { position: u64, of: u64, behind: Option<(String, u64)> },
    Running { phase: Phase, elapsed_ms: i64, usual_ms: Option<i64> },
    StepFailed { step: String, exit_code: i64, line: Option<u64>, told: Option<String> },
    StepTimedOut { step: String, limit_ms: i64, told: Option<String> },
    ImageFailed { line: Option<u64>, told: Option<String> },
    FileInvalid { file: String, problems: u64 },
    CommitGone { commit: String },
    RunCancelled { by: String, reason: String },
    NoRelease { ref_name: String },
    Fault { party: Party, answer: Answer, attempt: u32, next_in_ms: i64 },
    FaultGaveUp { party: Party, answer: Answer, attempts: u32 },
    MailWaits { answer: Answer, next_in_ms: i64 },
    DeployingToTest { build: u64 },
    UnhealthyInTest { detail: String, told: Option<String> },
    YouMayDecide { build: u64, until_ms: i64 },
    YouAreTesting { build: u64, since_ms: i64, until_ms: i64 },
    TestersMayDecide { testers: Vec<String>, until_ms: i64 },
    SomeoneIsTesting { who: String, since_ms: i64, until_ms: i64 },
    MoreApprovals { have: u32, need: u32, testers: Vec<String>, until_ms: i64 },
    BehindClaim { build: u64, who: String, until_ms: i64 },
    Rejected { by: String, at_ms: i64, comment: String },
    Expired { at_ms: i64 },
    Superseded { build: u64, by: String },
    Promoting { done: u64, of: u64 },
    WaitsForRollout { version: String },
    Canary { percent: u32, step: usize, of: usize, next_percent: Option<u32>, next_in_ms: i64 },
    Preview { switches_in_ms: Option<i64> },
    Rolling { ready: u32, of: u32 },
    TooFewRequests { have: u64, need: u64, until_ms: Option<i64> },
    Paused { by: String, at_ms: i64, comment: String },
    RollingBack { to: String },
    RolledBack { percent: u32, measure: Measure, value: Figure, limit: Limit, requests: u64, to: String, at_ms: i64 },
    RolloutFailed { detail: String, to: String, at_ms: i64 },
    Aborted { by: String, to: String, at_ms: i64 },
    Live { version: String, since_ms: i64 },
}

/// A sentence: its cause in bold, then the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// What it is about, with its closing mark.
    pub cause: String,
    /// Who and when, beginning with a space where the language has one.
    pub rest: String,
}
