//! The messages between server and runner. A runner calls, the server answers; the embedded runner calls in memory, one
//! of its own over HTTP with the same messages. Wire types of their own, apart from the state machines. Whatever a runner
//! says of a run carries the number of the attempt that it was given: what an earlier attempt says is refused.
//! Not here: the transport.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CommitSha, Digest, RunId, RunnerName, SecretName},
    labels::Labels,
    plan::DeliveryPlan,
    secret::{GivenSecret, Withheld},
    time::UnixMs,
    trigger::Trigger,
};

/// Version of these messages; a server refuses a runner that speaks another one.
pub const PROTOCOL_VERSION: u32 = 2;
/// The HTTP header that carries it in every message.
pub const PROTOCOL_HEADER: &str = "windlass-protocol";
/// How the address of every message begins; `register`, `rotate`, `lease` or `call` follows.
pub const AGENTS_PATH: &str = "/agents/v1";
/// Kind of the problem that a runner is told whose credential is not good (any more).
pub const REVOKED_PROBLEM: &str = "runner-unknown";
/// Kind of the problem that a runner of another protocol version is told.
pub const INCOMPATIBLE_PROBLEM: &str = "protocol-mismatch";
/// How every credential of a runner begins; its name follows, then [`CREDENTIAL_MARK`] and what it alone knows.
pub const CREDENTIAL_PREFIX: &str = "wlr_";
/// Between a runner's name and its secret: no name holds it.
pub const CREDENTIAL_MARK: char = '~';

/// What a runner sends to be registered. Its secret is made by itself, so that a repeat after a lost answer is the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// The token that an operator made.
    pub token: Secret,
    /// The name that it wants.
    pub name: RunnerName,
    /// What it alone knows from now on: 32 random bytes in base64url.
    pub secret: Secret,
    /// What it says of itself.
    pub about: RunnerAbout,
}

/// What a runner sends to have another secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// What it alone knows from now on.
    pub secret: Secret,
}

/// The answer to both.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// Its name.
    pub name: RunnerName,
}

/// The credential of a runner with this secret.
#[must_use]
pub fn credential_of(name: &RunnerName, secret: &Secret) -> Secret {
    Secret::new(format!("{CREDENTIAL_PREFIX}{name}{CREDENTIAL_MARK}{}", secret.expose()))
}

/// A text that no log, error or debug print shows. On the wire it is plain: the transport is trusted and encrypted.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: call it where it is used, nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What a runner asks of the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum RunnerRequest {
    /// Gives me work; held open until there is some or the server's waiting time is over. A runner that restarted is
    /// given its own unfinished runs again.
    Lease {
        /// [`PROTOCOL_VERSION`].
        protocol: u32,
        /// What the runner is now.
        about: RunnerAbout,
        /// Runs that it already works on; they are not given again.
        busy_with: Vec<RunId>,
    },
    /// Still at work; the answer says whether to go on.
    Heartbeat {
        /// On which run.
        run: RunId,
        /// In which attempt.
        attempt: u32,
    },
    /// What happened; safe to repeat.
    Report {
        /// On which run.
        run: RunId,
        /// In which attempt.
        attempt: u32,
        /// What.
        report: Report,
    },
    /// Asks whether an image of the same inputs is there already.
    Inputs {
        /// For which run.
        run: RunId,
        /// In which attempt.
        attempt: u32,
        /// Digest over tree, steps, base config, base image and arguments.
        inputs: Digest,
    },
    /// Gives me the values of the secrets that the steps of the run name. The server alone decides which ones it gets.
    Secrets {
        /// For which run.
        run: RunId,
        /// In which attempt.
        attempt: u32,
        /// Which.
        names: Vec<SecretName>,
    },
    /// Up to which line the server has the log of a step.
    LogPosition {
        /// Of which run.
        run: RunId,
        /// In which attempt.
        attempt: u32,
        /// Of which step.
        step: String,
    },
    /// Lines of a step's log; safe to repeat.
    Log {
        /// Of which run.
        run: RunId,
        /// In which attempt.
        attempt: u32,
        /// Of which step.
        step: String,
        /// Number of the first line, counted from 0 within the step.
        first_line: u64,
        /// The lines, masked and bounded already.
        lines: Vec<LogLine>,
    },
}

impl RunnerRequest {
    /// The run that it is about, with the attempt; none: it asks for work.
    #[must_use]
    pub fn subject(&self) -> Option<(&RunId, u32)> {
        match self {
            Self::Lease { .. } => None,
            Self::Heartbeat { run, attempt }
            | Self::Report { run, attempt, .. }
            | Self::Inputs { run, attempt, .. }
            | Self::Secrets { run, attempt, .. }
            | Self::LogPosition { run, attempt, .. }
            | Self::Log { run, attempt, .. } => Some((run, *attempt)),
        }
    }
}

/// What a runner says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunnerAbout {
    /// Its version.
    pub version: String,
    /// Its labels: a run that asks for others is not given to it.
    pub labels: Labels,
    /// Runs at the same time.
    pub capacity: u32,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub at: UnixMs,
    /// By whom.
    pub stream: LogStream,
    /// The text without its line end; may hold ANSI sequences.
    pub text: String,
}

/// Where a line of a log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// The step's standard output.
    Stdout,
    /// The step's standard error.
    Stderr,
    /// Windlass itself.
    System,
}

/// What the server answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum ServerReply {
    /// Work.
    Job(Box<Job>),
    /// No work now; ask again.
    NoJob,
    /// Taken; go on.
    Continue,
    /// Taken; stop the run.
    Cancel {
        /// What the person said.
        reason: String,
    },
    /// The run is not this runner's (any more): drop it and clean up.
    NotYours,
    /// An image of these inputs exists: do not build.
    Reuse {
        /// Its digest in the test registry.
        digest: Digest,
        /// The run that built it.
        built_by: RunId,
    },
    /// No image of these inputs: build.
    Build,
    /// The secrets of the run.
    Secrets {
        /// Those that exist; the others do not.
        given: Vec<GivenSecret>,
        /// Set where the run gets none at all.
        withheld: Option<Withheld>,
    },
    /// The next line that the server wants of the step.
    LogNext {
        /// Its number.
        line: u64,
    },
}

/// How a runner reaches the server.
///
/// Concurrency: calls may overlap, also for one run. Order: for one run, a [`Report`] is sent after the log lines that it
/// rests on were acknowledged. Every call may be repeated; the server treats a repeat as the first.
pub trait RunnerLink: Send + Sync {
    /// Sends `request`, waits for the answer.
    ///
    /// # Errors
    /// [`LinkError`]: after [`LinkError::NoAnswer`] the runner waits and asks again, for ever.
    fn call(&self, request: RunnerRequest) -> impl Future<Output = Result<ServerReply, LinkError>> + Send;
}

/// No answer from the server, or one that is none.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// It may come later: ask again.
    #[error("{0}")]
    NoAnswer(String),
    /// The server does not know this runner (any more): what it has is no longer its own, and asking again is in vain.
    #[error("{0}")]
    Revoked(String),
    /// Server and runner do not speak the same version; the text says which to upgrade. What the runner has stays its own.
    #[error("{0}")]
    Incompatible(String),
}

/// Everything a runner needs to execute a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The run.
    pub run: RunId,
    /// Which attempt at it this is, from 1: whoever had an earlier one was lost.
    pub attempt: u32,
    /// The server gives the run to somebody else when it hears nothing of it for so long, in milliseconds.
    pub lease_ms: u64,
    /// When it was created, for image tags and logs.
    pub created_at: UnixMs,
    /// Why it runs.
    pub trigger: Trigger,
    /// The registered release branch; with the trigger it bounds what may release.
    pub release_branch: String,
    /// Where the source is.
    pub repository: Repository,
    /// Where the image goes.
    pub registry: RegistryAccess,
    /// Repository inside the registry, such as `checkout`.
    pub image_repository: String,
    /// The last image of the service: its layers are the cache.
    pub cache_from: Option<Digest>,
    /// The commit that is live now: what the changes are counted from.
    pub live_commit: Option<CommitSha>,
    /// Base images → where to fetch them instead.
    pub mirrors: Vec<MirrorRule>,
    /// Texts that must not appear in the log.
    pub masks: Vec<Secret>,
    /// The address of the run's page.
    pub page_url: String,
    /// Limits.
    pub bounds: JobBounds,
    /// Where calls may lead besides.
    #[serde(default)]
    pub outgoing: OutgoingRules,
}

/// Where calls to git hosts, registries and the mail server may lead besides where they are made to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutgoingRules {
    /// Hosts (`host` or `host:port`) that a redirect of a git host, and the token service of a registry, may be on besides
    /// the very host that redirects. Hosts of registered repositories are among them by themselves. Credentials are not
    /// sent after a redirect to another host. Blobs of a registry may be fetched from any host, without credentials.
    pub hosts: Vec<String>,
    /// Addresses or networks that may be called although only a machine's own neighbourhood has them: link-local ones and
    /// the metadata services of clouds are refused otherwise.
    pub addresses: Vec<String>,
}

/// The source of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Repository {
    /// Where it is.
    pub url: String,
    /// What opens it.
    pub credential: GitAccess,
    /// Host keys to accept for ssh, as lines of a `known_hosts` file; empty: the first one seen is learnt.
    pub known_hosts: Vec<String>,
    /// Certificate authority to trust besides the system's, PEM.
    pub ca_pem: Option<String>,
}

/// What opens a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GitAccess {
    /// Nothing is needed.
    None,
    /// User and password or token over HTTP.
    Token {
        /// User name; many forges take any.
        user: String,
        /// The token.
        token: Secret,
    },
    /// A private key, OpenSSH format.
    SshKey {
        /// The key.
        key: Secret,
    },
}

/// An image registry and what opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegistryAccess {
    /// `host:port`.
    pub host: String,
    /// Speak HTTP, not HTTPS.
    pub plain_http: bool,
    /// User and password, if it asks for them.
    pub login: Option<(String, Secret)>,
    /// Certificate authority to trust besides the system's, PEM.
    pub ca_pem: Option<String>,
}

/// One rule of the mirror setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorRule {
    /// Image as the pipeline file names it, or a prefix that ends in `*`.
    pub from: String,
    /// What to fetch instead; a `*` at its end stands for the rest.
    pub to: String,
}

/// What a run may take at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobBounds {
    /// The whole run, in milliseconds.
    pub run_timeout_ms: u64,
    /// One step that names no time of its own, in milliseconds.
    pub step_timeout_ms: u64,
    /// Lines of log per step; what comes after is counted and dropped.
    pub log_lines_per_step_max: u64,
    /// Bytes of log per step.
    pub log_bytes_per_step_max: u64,
    /// Memory of a step, in bytes.
    pub step_memory_bytes: u64,
    /// CPU of a step, in thousandths of a core.
    pub step_cpu_milli: u32,
    /// Processes in a step.
    pub step_pids: u32,
    /// Bytes of all secrets that the steps of a run name.
    pub secret_bytes_per_run_max: usize,
    /// Bytes on the disk that a run's workspace and what a step writes into its container may take together. They are
    /// measured while the step runs, so a fast one gets a little further; a single file is cut at this size at once.
    pub step_disk_bytes: u64,
    /// Files and folders in a run's workspace.
    pub step_files_max: u64,
    /// Time between two such measurements, in milliseconds.
    pub step_disk_check_ms: u64,
    /// Bytes of a checked out tree.
    pub checkout_bytes_max: u64,
    /// Files in a checked out tree.
    pub checkout_files_max: u64,
    /// Steps of one run at the same time.
    pub parallel_steps_max: u32,
}

impl Default for JobBounds {
    fn default() -> Self {
        Self {
            run_timeout_ms: 60 * 60_000,
            step_timeout_ms: 30 * 60_000,
            log_lines_per_step_max: 200_000,
            log_bytes_per_step_max: 64 << 20,
            step_memory_bytes: 2 << 30,
            step_cpu_milli: 2_000,
            step_pids: 1_024,
            secret_bytes_per_run_max: 64 << 10,
            step_disk_bytes: 20 << 30,
            step_files_max: 1_000_000,
            step_disk_check_ms: 5_000,
            checkout_bytes_max: 2 << 30,
            checkout_files_max: 200_000,
            parallel_steps_max: 4,
        }
    }
}

/// What a runner tells of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "report")]
pub enum Report {
    /// The commit is checked out.
    CheckedOut {
        /// The commit's first line, author, mail address, as git has them.
        commit: CommitInfo,
    },
    /// The pipeline file was read and is good: these stations come, in this order.
    Prepared {
        /// Names of the steps as the page lists them; `checkout` first, `image` and `push` last.
        steps: Vec<String>,
        /// What delivering needs.
        plan: Box<DeliveryPlan>,
        /// Whether the file lets this run become a release (within the registered bounds).
        releases: bool,
    },
    /// A step began (or was adopted after a restart).
    StepStarted {
        /// Its name.
        step: String,
        /// When.
        at: UnixMs,
    },
    /// A step ended.
    StepFinished {
        /// Its name.
        step: String,
        /// When.
        at: UnixMs,
        /// How.
        outcome: StepOutcome,
    },
    /// The run ended: image pushed, digest read back.
    Succeeded {
        /// As the test registry says.
        digest: Digest,
        /// The tag under which it was pushed.
        tag: String,
        /// The run that built it, where an earlier image of the same inputs was used.
        reused_from: Option<RunId>,
        /// Digest over all inputs.
        inputs: Digest,
    },
    /// The run ended well and pushed nothing, because it may not.
    Passed,
    /// The run ended without an image.
    Failed {
        /// Whose failure it is.
        blame: Blame,
        /// One sentence: what, in which step.
        reason: String,
    },
    /// The run was stopped because the server said so.
    Cancelled,
    /// The pipeline file asks for labels that this runner does not have: another one has to take the run.
    Unfit {
        /// The labels that it asks for.
        labels: Labels,
    },
}

/// What git says of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CommitInfo {
    /// The commit.
    pub sha: CommitSha,
    /// The whole message, cut to 4 KiB.
    pub message: String,
    /// Author's name.
    pub author: String,
    /// Author's mail address.
    pub author_email: String,
    /// When it was committed.
    pub committed_at: UnixMs,
    /// Commits since the one that was live when the run began, newest first, at most 10.
    pub changes: Vec<CommitChange>,
}

/// One commit of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CommitChange {
    /// Short id.
    pub short: String,
    /// The first line of its message.
    pub subject: String,
    /// Author's name.
    pub author: String,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum StepOutcome {
    /// Exit code 0.
    Passed,
    /// Its `when` did not hold, or an earlier step failed, or its work was already done.
    Skipped {
        /// Which.
        reason: String,
    },
    /// It failed.
    Failed {
        /// Whose failure it is.
        blame: Blame,
        /// Exit code, if it came so far.
        exit_code: Option<i64>,
        /// One sentence.
        reason: String,
    },
    /// It was stopped.
    Cancelled,
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The user's code, tests or files.
    Code,
    /// The machine, the network, a registry: trying again may help.
    Infrastructure,
}

/// Where the definition of a service may be: how the runner looks for it.
pub const PIPELINE_FILE: &str = ".windlass.yaml";

/// Environment variables for steps that do not change within a run, in the field's usual names (`CI_*`, GitLab's and
/// Jenkins's aliases).
#[must_use]
pub fn ci_environment(job: &Job, commit: &CommitInfo, workspace: &str) -> BTreeMap<String, String> {
    let number = job.run.number.to_string();
    let service = job.run.service.to_string();
    let branch = job.trigger.branch().unwrap_or_default().to_owned();
    let sha = commit.sha.to_string();
    let pairs = [
        ("CI", "true".to_owned()),
        ("CI_SYSTEM_NAME", "windlass".to_owned()),
        ("CI_REPO", service.clone()),
        ("CI_COMMIT_SHA", sha.clone()),
        ("CI_COMMIT_SHORT_SHA", commit.sha.short().to_owned()),
        ("CI_COMMIT_REF", job.trigger.git_ref.clone()),
        ("CI_COMMIT_BRANCH", branch.clone()),
        ("CI_COMMIT_TAG", job.trigger.tag().unwrap_or_default().to_owned()),
        ("CI_COMMIT_MESSAGE", commit.message.clone()),
        ("CI_COMMIT_AUTHOR", commit.author.clone()),
        ("CI_COMMIT_PULL_REQUEST", job.trigger.pull_request.map(|n| n.to_string()).unwrap_or_default()),
        ("CI_PIPELINE_NUMBER", number.clone()),
        ("CI_PIPELINE_ID", number.clone()),
        ("CI_PIPELINE_EVENT", job.trigger.kind.word().to_owned()),
        ("CI_PIPELINE_URL", job.page_url.clone()),
        ("CI_WORKSPACE", workspace.to_owned()),
        ("CI_JOB_ID", job.run.to_string()),
        ("BUILD_NUMBER", number),
        ("BUILD_URL", job.page_url.clone()),
        ("JOB_NAME", service),
        ("GIT_COMMIT", sha),
        ("GIT_BRANCH", branch.clone()),
        ("BRANCH_NAME", branch),
        ("WORKSPACE", workspace.to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
