//! Services, their hooks and pipeline files.

use pipelines::protocol::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Fault;

/// A registered service. Secrets never come back: only since when they are set.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where its source is.
    pub repository_url: String,
    /// What opens it.
    pub credential: CredentialKind,
    /// Since when the credential is set, in milliseconds since 1970.
    pub credential_set_at_ms: Option<u64>,
    /// Since when the secret of its hooks is set, in milliseconds since 1970.
    pub hook_secret_set_at_ms: Option<u64>,
    /// The address that a forge calls.
    pub hook_url: String,
    /// Hooks without a signature are taken.
    pub allow_unsigned_hooks: bool,
    /// Time between two polls, in milliseconds; 0: none.
    pub poll_interval_ms: u64,
    /// The release branch that was set.
    pub release_branch: Option<String>,
    /// The branch that the repository calls its default, once it is known.
    pub default_branch: Option<String>,
    /// Whether authors may approve their own commits.
    pub allow_self_approval: bool,
    /// Host keys for ssh.
    pub known_hosts: Vec<String>,
    /// Certificate authority, PEM.
    pub ca_pem: Option<String>,
    /// When it was registered, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Who registered it.
    pub created_by: String,
    /// The repository cannot be asked at present.
    pub poll_fault: Option<Fault>,
}

/// Which kind of credential opens a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// None is needed.
    None,
    /// User and token.
    Token,
    /// A private key.
    SshKey,
}

/// A credential as it is set.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Credential {
    /// None is needed.
    None,
    /// User and token.
    Token {
        /// User name.
        user: String,
        /// Token or password.
        #[schema(value_type = String, write_only)]
        token: Secret,
    },
    /// A private key.
    SshKey {
        /// In OpenSSH's format.
        #[schema(value_type = String, write_only)]
        key: Secret,
    },
}

/// What is set of a service. On a change, what is left out stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceInput {
    /// Its name: when it is registered, and not again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where its source is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_url: Option<String>,
    /// What opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The secret of its hooks; empty takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, write_only)]
    pub hook_secret: Option<Secret>,
    /// Take hooks without a signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_unsigned_hooks: Option<bool>,
    /// Time between two polls, in milliseconds; 0: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_interval_ms: Option<u64>,
    /// The release branch; empty: the repository's default branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_branch: Option<String>,
    /// Whether authors may approve their own commits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_self_approval: Option<bool>,
    /// Host keys for ssh, as in a `known_hosts` file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<Vec<String>>,
    /// Certificate authority, PEM; empty: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// A hook that came in, and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Its place among all hooks.
    pub id: u64,
    /// Which forge sent it.
    pub forge: String,
    /// The forge's id of it.
    pub forge_id: String,
    /// What it tells of.
    pub event: String,
    /// When it came, in milliseconds since 1970.
    pub at_ms: u64,
    /// From where.
    pub remote: String,
    /// How often it came again.
    pub repeats: u32,
    /// `received`, `ran`, `ignored`, `refused`.
    pub state: String,
    /// The run that it made.
    pub run: Option<u32>,
    /// Why it was ignored or refused.
    pub reason: Option<String>,
}

/// A pipeline file to be checked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lint {
    /// Its name, for the report.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// All that is wrong with a pipeline file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LintReport {
    /// Whether it can be used.
    pub ok: bool,
    /// What is wrong, in the order of the file.
    pub problems: Vec<Diagnostic>,
}

/// One thing that is wrong with a pipeline file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Diagnostic {
    /// `error` or `warning`.
    pub severity: String,
    /// Which rule: `unknown-key`, `wrong-type`, …
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Why that is wrong.
    pub why: Option<String>,
    /// What to write instead.
    pub help: Option<String>,
    /// Which file.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}
