//! A service as it is registered: where its source is, who may release from it. Not here: its pipeline file.

use serde::{Deserialize, Serialize};

use crate::{ids::ServiceName, time::UnixMs};

/// What a person registered. What is registered bounds; the pipeline file only narrows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Where its source is.
    pub repository_url: String,
    /// The kind of the stored credential; the credential itself is sealed in a record of its own.
    pub credential: CredentialKind,
    /// Host keys to accept for ssh; a key that was learnt on first use is added here.
    pub known_hosts: Vec<String>,
    /// Certificate authority to trust besides the system's, PEM.
    pub ca_pem: Option<String>,
    /// Take hooks that carry no signature. Off unless a person says so.
    pub allow_unsigned_hooks: bool,
    /// Time between two polls, in milliseconds; 0 switches polling off.
    pub poll_interval_ms: u64,
    /// The release branch; none: the repository's default branch, learnt by polling.
    pub release_branch: Option<String>,
    /// The repository's default branch as it was last seen.
    pub default_branch: Option<String>,
    /// Whether the author of a commit may approve its release.
    pub allow_self_approval: bool,
    /// When it was registered.
    pub created_at: UnixMs,
    /// Who registered it.
    pub created_by: String,
}

impl Service {
    /// The branch whose pushes may release; `main` until the repository has told its own.
    #[must_use]
    pub fn effective_release_branch(&self) -> &str {
        self.release_branch.as_deref().or(self.default_branch.as_deref()).unwrap_or("main")
    }
}

/// Which kind of credential opens the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// None is needed.
    None,
    /// User and token.
    Token,
    /// SSH key.
    SshKey,
}
