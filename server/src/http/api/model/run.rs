//! Runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Commit, Why};

/// One execution of the pipeline.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Of which service.
    pub service: String,
    /// Its number there.
    pub number: u32,
    /// `held`, `queued`, `running`, `cancelling`, `succeeded`, `passed`, `failed`, `cancelled`, `declined`.
    pub state: String,
    /// Whether the state is the last one.
    pub finished: bool,
    /// Why it is held, declined or failed, or what was said when it was cancelled.
    pub reason: Option<String>,
    /// Whose failure it is: `code` or `infrastructure`.
    pub blame: Option<String>,
    /// The commit.
    pub commit: Commit,
    /// The whole ref: `refs/heads/main`.
    pub git_ref: String,
    /// What made it: `push`, `tag`, `pull_request`, `manual`.
    pub trigger: String,
    /// Who said so: `hook`, `poll`, `person`.
    pub trigger_source: String,
    /// Number of the pull request.
    pub pull_request: Option<u64>,
    /// Who asked for it.
    pub requested_by: Option<String>,
    /// Whether its image may become a release.
    pub may_release: bool,
    /// When it was recorded, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When a runner took it.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
    /// How long runs of this service usually take, in milliseconds.
    pub usual_ms: Option<u64>,
    /// Which runner has it, or had it last.
    pub runner: Option<String>,
    /// How often a runner has taken it. The log of a step in an earlier attempt is that of `STEP+ATTEMPT`.
    #[serde(default)]
    pub attempt: u32,
    /// Runners that were lost with it.
    #[serde(default)]
    pub lost: Vec<String>,
    /// Its place among the runs that wait.
    pub queue: Option<QueuePlace>,
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// Digest of the image, as the test registry says.
    pub digest: Option<String>,
    /// Tag of the image.
    pub tag: Option<String>,
    /// The run whose image was taken instead of a new build.
    pub reused_from: Option<u32>,
    /// The run that this one repeats.
    pub rerun_of: Option<u32>,
    /// Number of the release that it made.
    pub release: Option<u32>,
    /// Whether its commit comes from a fork: then it runs only when a person allows it, and pushes nothing.
    #[serde(default)]
    pub from_fork: bool,
    /// Who allowed it.
    pub allowed_by: Option<String>,
    /// What it would do, for a held run whose commit was looked at.
    pub proposal: Option<Proposal>,
    /// Where the forge shows all that it changes.
    pub comparison_url: Option<String>,
    /// What it is doing, or why its release is not live yet.
    pub why: Why,
}

/// What a held run would do, as its commit says it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Proposal {
    /// The pipeline file that the commit has.
    pub pipeline_file: Option<String>,
    /// Whether the release branch has another one, or none.
    pub file_changed: bool,
    /// Lines of the difference between the two files; each begins with `+`, `-` or a space.
    pub diff: Vec<String>,
    /// The steps that would run.
    pub steps: Vec<ProposedStep>,
    /// Files that differ from the release branch.
    pub files_changed: u64,
    /// Why less is known than should be.
    pub problem: Option<String>,
}

/// A step that would run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProposedStep {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its commands.
    pub commands: Vec<String>,
}

/// Refuses a held run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Decline {
    /// Why.
    pub reason: String,
}

/// A place among the runs that wait.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueuePlace {
    /// From 1.
    pub position: usize,
    /// How many wait.
    pub of: usize,
}

/// One step of a run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// `waiting`, `running`, `passed`, `skipped`, `failed`, `cancelled`.
    pub state: String,
    /// Why it was skipped or failed.
    pub reason: Option<String>,
    /// Whose failure it is: `code` or `infrastructure`.
    pub blame: Option<String>,
    /// Its exit code.
    pub exit_code: Option<i64>,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
}

/// Asks for a run by hand.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewRun {
    /// Branch or tag; without it the release branch.
    pub git_ref: Option<String>,
}

/// Stops a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cancel {
    /// Why.
    pub reason: String,
}
