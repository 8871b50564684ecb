//! The typed pipeline file: every key, what it means, and the default where it is left out. The descriptions here are
//! those of the published JSON Schema. How the keys are read and checked lives in `lint`.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::base::BaseRef;
use super::names::{Call, Glob, HostName, HttpPath, ImageName, MailAddress, RepoPath, StepName, VariableName};
use super::units::{AtLeast, AtMost, Share, TimeSpan, Weight};
use crate::ids::{SecretName, ServiceName};
use crate::labels::Labels;
use crate::plan;

/// A service's pipeline file: what is built, how it is tested, and how it goes live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Windlass pipeline file", deny_unknown_fields)]
pub struct Definition {
    /// The name under which the service is registered: lower-case letters, digits and hyphens, at most 53.
    pub service: ServiceName,
    /// The base config that the service is built on, such as `static-site@1`.
    pub base: BaseRef,
    /// What makes a release. Left out: pushes to the release branch. It narrows what is registered and never widens it;
    /// everything else only runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<On>,
    /// What the runner of every run must have, such as `{gpu: "true"}`. Left out: every runner will do.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schemars(schema_with = "text_map")]
    pub labels: Labels,
    /// Who reaches the service and whom it calls.
    #[serde(default)]
    pub network: Network,
    /// Steps before the image, each in a container, all in one workspace.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Overrides of the base config's image build.
    #[serde(default)]
    pub image: ImageBuild,
    /// Overrides of the base config's chart values; what is allowed is in the base config's own schema.
    #[serde(default)]
    pub values: serde_json::Map<String, serde_json::Value>,
    /// Who tests a release before it goes live, and until when.
    #[serde(default)]
    pub test: Test,
    /// How a release goes live.
    #[serde(default)]
    pub production: Production,
}

/// What makes a release, within what is registered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct On {
    /// Patterns of branches. Left out beside `tags`: no branch makes a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "one_or_many")]
    pub branches: Option<Vec<Glob>>,
    /// Patterns of tags. Left out: no tag makes a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "one_or_many")]
    pub tags: Option<Vec<Glob>>,
}

/// Who reaches the service and whom it calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Network {
    /// The port on which the container answers HTTP. Left out: the base config's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The host name in production. Left out: `<service>.` and the domain of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Other services, or `https://host` for the outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "one_or_many")]
    pub calls: Vec<Call>,
    /// How to see that the service is well.
    #[serde(default)]
    pub health: Health,
}

/// How to see that the service is well: a GET on the path answers 2xx or 3xx. (Windlass's own key.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Health {
    /// The path. Left out: the base config's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<HttpPath>,
    /// How long a new container may take until it is well. Left out: `30s`.
    #[serde(default = "default_health_timeout")]
    pub timeout: TimeSpan,
}

fn default_health_timeout() -> TimeSpan {
    TimeSpan::from_secs(30)
}

impl Default for Health {
    fn default() -> Self {
        Health { path: None, timeout: default_health_timeout() }
    }
}

/// One step before the image: commands in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Step {
    /// The name, unique in the file.
    pub name: StepName,
    /// The image in which the commands run, such as `node:22`; mirrors apply.
    pub image: ImageName,
    /// The commands, run by one shell that stops at the first that fails.
    #[schemars(schema_with = "one_or_many")]
    pub commands: Vec<String>,
    /// Environment of the commands, besides the `CI_*` variables. A value can be `{from_secret: NAME}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "environment_map")]
    pub environment: BTreeMap<VariableName, String>,
    /// The secrets that the commands get as variables, and no other step: `NAME`, or `{name: NAME, as: VARIABLE}`. They
    /// are set on the server, never in the file. The run of a pull request from a fork gets none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "secret_uses")]
    pub secrets: Vec<SecretUse>,
    /// How long it may take. Left out: the runner's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimeSpan>,
    /// When it runs at all. Left out: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// The steps that must have passed before. Left out: the step written before this one; `[]`: none.
    #[serde(default)]
    #[schemars(schema_with = "one_or_many")]
    pub depends_on: Vec<StepName>,
    /// What its failure means. Left out: `fail`.
    #[serde(default)]
    pub failure: OnFailure,
}

/// A secret that a step gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SecretUse {
    /// The name under which it is set on the server.
    pub name: SecretName,
    /// The variable that holds it. Left out: one of the secret's own name.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub variable: Option<VariableName>,
}

impl SecretUse {
    /// The variable that holds it.
    pub fn variable(&self) -> &str {
        self.variable.as_ref().map_or(self.name.as_str(), VariableName::as_str)
    }
}

/// When a step runs: every key that is there must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct When {
    /// One of these events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "one_or_many_events")]
    pub event: Option<Vec<Event>>,
    /// A branch that fits one of these patterns; a tag or a pull request never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "one_or_many")]
    pub branch: Option<Vec<Glob>>,
    /// A tag that fits one of these patterns; a branch or a pull request never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "one_or_many")]
    pub tag: Option<Vec<Glob>>,
}

/// What a step's `when` can ask for; the words of `CI_PIPELINE_EVENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Event {
    /// A branch moved.
    Push,
    /// A tag appeared.
    Tag,
    /// A pull request was opened or moved.
    PullRequest,
    /// A person asked.
    Manual,
}

/// What the failure of a step means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnFailure {
    /// The run fails.
    #[default]
    Fail,
    /// It is shown, and the run goes on.
    Ignore,
}

/// Overrides of the base config's image build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ImageBuild {
    /// The folder that the build sees. Left out: the root of the repository.
    #[serde(default = "default_context")]
    pub context: RepoPath,
    /// The Dockerfile, from the root of the repository; only for the base config `dockerfile`. Left out: `Dockerfile` in
    /// the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<RepoPath>,
    /// Build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text_map")]
    pub args: BTreeMap<VariableName, String>,
}

fn default_context() -> RepoPath {
    RepoPath::root()
}

impl Default for ImageBuild {
    fn default() -> Self {
        ImageBuild { context: default_context(), dockerfile: None, args: BTreeMap::new() }
    }
}

/// Who tests a release before it goes live, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Test {
    /// Mail addresses of the testers. Left out: nobody gets a mail, and somebody who signs in has to decide.
    #[serde(default)]
    #[schemars(schema_with = "one_or_many")]
    pub testers: Vec<MailAddress>,
    /// How many different people must approve; whoever wrote the commit is none of them. Left out: 1.
    #[serde(default = "default_approvals")]
    #[schemars(range(min = 1, max = 100))]
    pub approvals: u32,
    /// How long they have. At half of it those who have not decided are reminded, at 75 % the deputies are asked, at 90 %
    /// is the last call. Then nothing is approved and nothing fails, and anybody can ask again. Left out: `72h`.
    #[serde(default = "default_expires")]
    pub expires: TimeSpan,
    /// Mail addresses of those who stand in for the testers: asked at 75 % of the time. Left out: nobody does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "one_or_many")]
    pub deputies: Vec<MailAddress>,
}

fn default_approvals() -> u32 {
    1
}

fn default_expires() -> TimeSpan {
    TimeSpan::from_secs(72 * 3600)
}

impl Default for Test {
    fn default() -> Self {
        Test { testers: Vec::new(), approvals: default_approvals(), expires: default_expires(), deputies: Vec::new() }
    }
}

/// How a release goes live.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Production {
    /// The way traffic moves. Left out: `rolling`.
    #[serde(default)]
    pub strategy: Strategy,
    /// Canary: the shares of the traffic, growing; all of it comes after the last. Left out: 10 % and 50 %, for `2m` and
    /// `5m`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<CanaryStep>,
    /// Canary and blue-green: the limits that the new version must keep. Left out: a success rate of at least 99 %.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Canary and blue-green: how the checks are judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judge>,
    /// Blue-green: how long the new version can be looked at under its preview address before it takes the traffic. Left
    /// out: `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<TimeSpan>,
    /// Blue-green: how long the old version stays ready for an instant switch back, and the checks go on. Left out: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<TimeSpan>,
}

impl Production {
    /// The canary's steps where the file names none.
    pub fn default_steps() -> Vec<CanaryStep> {
        let step =
            |percent, secs| Weight::new(percent).map(|weight| CanaryStep { weight, hold: TimeSpan::from_secs(secs) });
        [step(10, 120), step(50, 300)].into_iter().flatten().collect()
    }

    /// The checks where the file names none.
    pub fn default_checks() -> Vec<Check> {
        vec![Check::SuccessRate(AtLeast(Share::from_percent(99)))]
    }

    /// The blue-green preview where the file names none.
    pub const DEFAULT_PREVIEW: TimeSpan = TimeSpan::from_secs(60);

    /// How long the old version stays where the file does not say.
    pub const DEFAULT_KEEP: TimeSpan = TimeSpan::from_secs(600);
}

/// The way traffic moves to a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Strategy {
    /// New containers take over one after the other.
    #[default]
    Rolling,
    /// The new version stands whole beside the old one and takes all traffic at once.
    BlueGreen,
    /// The new version gets a growing share, and a judge watches it.
    Canary,
}

/// One share of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CanaryStep {
    /// The share of the traffic, in percent. It grows from step to step; 100 comes by itself after the last.
    pub weight: Weight,
    /// How long the share is held and judged. Left out: `2m`.
    #[serde(default = "CanaryStep::default_hold")]
    pub hold: TimeSpan,
}

impl CanaryStep {
    /// How long a share is held where the file does not say.
    pub const fn default_hold() -> TimeSpan {
        TimeSpan::from_secs(120)
    }
}

/// One limit that the new version must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The share of requests that do not fail, such as `">= 99%"`.
    SuccessRate(AtLeast),
    /// Half of the requests are at most this slow, such as `"<= 50ms"`.
    LatencyP50(AtMost),
    /// 95 % of the requests are at most this slow, such as `"<= 200ms"`.
    LatencyP95(AtMost),
    /// 99 % of the requests are at most this slow, such as `"<= 500ms"`.
    LatencyP99(AtMost),
}

impl Check {
    /// What is measured.
    pub fn metric(&self) -> plan::Metric {
        match self {
            Check::SuccessRate(_) => plan::Metric::SuccessRate,
            Check::LatencyP50(_) => plan::Metric::LatencyP50,
            Check::LatencyP95(_) => plan::Metric::LatencyP95,
            Check::LatencyP99(_) => plan::Metric::LatencyP99,
        }
    }
}

/// How the checks are judged. (Windlass's own key.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Judge {
    /// Whether the new version is also compared with the stable one over the same time, so that what is equally bad is
    /// not blamed on it. Left out: `true`.
    #[serde(default = "default_compare")]
    pub compare: bool,
    /// Requests to the new version below which nothing is judged. Left out: 50.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1))]
    pub min_requests: u64,
    /// What happens below that. Left out: `hold`.
    #[serde(default)]
    pub insufficient: Insufficient,
    /// How long a step is held beyond its time for want of requests; then a person is asked. Left out: `30m`.
    #[serde(default = "default_insufficient_limit")]
    pub insufficient_limit: TimeSpan,
}

fn default_compare() -> bool {
    plan::JudgePolicy::default().compare_with_stable
}

fn default_min_requests() -> u64 {
    plan::JudgePolicy::default().min_requests
}

fn default_insufficient_limit() -> TimeSpan {
    TimeSpan::from_millis(plan::JudgePolicy::default().insufficient_limit_ms)
}

impl Default for Judge {
    fn default() -> Self {
        Judge {
            compare: default_compare(),
            min_requests: default_min_requests(),
            insufficient: Insufficient::default(),
            insufficient_limit: default_insufficient_limit(),
        }
    }
}

/// What happens where there were too few requests to judge. No data is never taken for good data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Insufficient {
    /// The step is held until there are enough, up to `insufficient_limit`.
    #[default]
    Hold,
}

fn one_or_many(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
}

fn one_or_many_events(generator: &mut SchemaGenerator) -> Schema {
    let event = generator.subschema_for::<Event>();
    json_schema!({ "anyOf": [event, { "type": "array", "items": event }] })
}

fn secret_uses(generator: &mut SchemaGenerator) -> Schema {
    let with_variable = generator.subschema_for::<SecretUse>();
    let one = json_schema!({ "anyOf": [{ "type": "string" }, with_variable] });
    json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": one }] })
}

fn environment_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "anyOf": [
        { "type": ["string", "number", "boolean"] },
        {
            "type": "object",
            "properties": { "from_secret": { "type": "string" } },
            "required": ["from_secret"],
            "additionalProperties": false,
        },
    ] } })
}

fn text_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
}
