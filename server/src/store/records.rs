//! Records that belong to the server and not to the delivery domain: hooks, refs, accounts, sessions, tokens, runners,
//! sealed secrets. Not here: how they are stored.

use pipelines::{
    ids::{CommitSha, RunId, RunnerName, SecretName, ServiceName},
    labels::Labels,
    protocol::RunnerAbout,
    time::UnixMs,
    trigger::Trigger,
};
use serde::{Deserialize, Serialize};

/// Place of a hook among all hooks, counted from 1.
pub type DeliveryId = u64;

/// A hook as it comes in, verified (or refused) and read.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// For which service.
    pub service: ServiceName,
    /// `github`, `gitea`, `forgejo`, `gitlab`, `bitbucket`, `bitbucket-server`.
    pub forge: &'static str,
    /// The forge's id of it; a repeat has the same.
    pub forge_id: String,
    /// The forge's word for the event.
    pub event: String,
    /// When it came.
    pub at: UnixMs,
    /// From where.
    pub remote: String,
    /// What it asks for; or why it was refused.
    pub content: Result<HookContent, String>,
}

/// What a hook says, whatever the forge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are triggers, and they are short-lived")]
pub enum HookContent {
    /// A ref moved or appeared, or a pull request did.
    Trigger {
        /// What to run.
        trigger: Trigger,
        /// Where the ref was before, as far as the forge says.
        #[serde(default)]
        from: Option<CommitSha>,
    },
    /// A ref is gone.
    Deleted {
        /// Which.
        git_ref: String,
    },
    /// A ref moved, and the hook does not name its commit.
    Moved {
        /// Which.
        git_ref: String,
    },
    /// Several refs moved at once.
    Several {
        /// What happened to each.
        all: Vec<Self>,
    },
    /// Nothing to do: a ping, a comment, an event that makes no run.
    Nothing {
        /// Why.
        reason: String,
    },
}

/// What became of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum DeliveryState {
    /// Recorded, not looked at yet.
    Received,
    /// It made this run.
    Ran {
        /// Number of the run.
        run: u32,
    },
    /// It made none; says why.
    Ignored {
        /// Why.
        reason: String,
    },
    /// It was refused; says why.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A hook that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Delivery {
    /// Its place.
    pub id: DeliveryId,
    /// For which service.
    pub service: ServiceName,
    /// Which forge.
    pub forge: String,
    /// The forge's id of it.
    pub forge_id: String,
    /// The forge's word for the event.
    pub event: String,
    /// When it came first.
    pub at: UnixMs,
    /// From where.
    pub remote: String,
    /// How often it came again.
    pub repeats: u32,
    /// What it says; none: it was refused unread.
    pub content: Option<HookContent>,
    /// What became of it.
    pub state: DeliveryState,
}

/// The secrets of a service, each sealed (XChaCha20-Poly1305); nobody reads them back but the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SealedSecrets {
    /// User name that goes with a token.
    pub git_user: Option<String>,
    /// Token or SSH key of the repository.
    pub git_secret: Option<Sealed>,
    /// Secret of the hook.
    pub hook_secret: Option<Sealed>,
}

/// One sealed text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Sealed {
    /// Nonce, base64.
    pub nonce: String,
    /// Cipher text with its tag, base64.
    pub text: String,
    /// When it was set.
    pub set_at: UnixMs,
}

/// Who a secret is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "scope")]
pub enum SecretScope {
    /// The runs of one service.
    Service {
        /// Which.
        service: ServiceName,
    },
    /// The runs of all services, or of those that the secret names.
    Shared,
}

impl SecretScope {
    /// The service, if it is for one.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service { service } => Some(service),
            Self::Shared => None,
        }
    }
}

/// A secret that steps can name. Only the server opens it, and only for a run that may have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NamedSecret {
    /// Who it is for.
    pub scope: SecretScope,
    /// Its name.
    pub name: SecretName,
    /// A shared one: for which services, sorted; empty: for all.
    #[serde(default)]
    pub services: Vec<ServiceName>,
    /// Its value, and when it was set.
    pub sealed: Sealed,
    /// Who set it.
    pub set_by: String,
}

/// When a secret was handed out last. A record of its own: it changes while the secret is being set anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SecretUse {
    /// To which run.
    pub run: RunId,
    /// When.
    pub at: UnixMs,
}

/// What an account may do. Each role may do what the ones before it may.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything, starts and stops runs.
    Developer,
    /// Also decides on releases.
    Tester,
    /// Also moves rollouts.
    ReleaseManager,
    /// Also registers services.
    Operator,
    /// Also manages accounts and tokens.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Developer, Self::Tester, Self::ReleaseManager, Self::Operator, Self::Admin];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::Tester => "tester",
            Self::ReleaseManager => "release_manager",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Somebody who can sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Account {
    /// Name to sign in with.
    pub name: String,
    /// Mail address; the rule that authors do not approve their own commits goes by it.
    pub email: String,
    /// What it may do.
    pub role: Role,
    /// Argon2id hash of the password.
    pub password_hash: String,
    /// Switched off, but kept for the journal.
    pub disabled: bool,
    /// When it was created.
    pub created_at: UnixMs,
    /// Counts what ends all its sessions: another role, another password, a lock.
    #[serde(default)]
    pub session_epoch: u32,
}

/// A signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Session {
    /// Of which account.
    pub account: String,
    /// When it began.
    pub created_at: UnixMs,
    /// When it was last used, to the minute.
    pub used_at: UnixMs,
    /// The account's count when it began.
    #[serde(default)]
    pub epoch: u32,
    /// The address that it began from.
    #[serde(default)]
    pub remote: String,
    /// How the browser described itself.
    #[serde(default)]
    pub agent: String,
}

/// A bearer token; only its digest is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Token {
    /// What it is for.
    pub label: String,
    /// Of which account.
    pub account: String,
    /// What it may do at most, below the account's own role.
    pub scope: Role,
    /// Only reads.
    pub read_only: bool,
    /// When it was created.
    pub created_at: UnixMs,
    /// When it ends by itself.
    pub expires_at: Option<UnixMs>,
    /// Of a token that a password gave: what [`Account::session_epoch`] was. It ends with the sessions of then.
    #[serde(default)]
    pub session_epoch: Option<u32>,
}

/// Whether a runner is given work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunnerState {
    /// It is.
    Active,
    /// It finishes what it has and gets nothing new.
    Draining,
    /// It was removed and is let in no more.
    Gone,
}

impl RunnerState {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

/// A runner that the server knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunnerRecord {
    /// Its name.
    pub name: RunnerName,
    /// What it said of itself last.
    pub about: RunnerAbout,
    /// Whether it is given work.
    pub state: RunnerState,
    /// Whether it is part of the server.
    pub embedded: bool,
    /// Digest of what it proves itself with; none: the embedded one, or removed.
    pub credential: Option<String>,
    /// When it was registered.
    pub registered_at: UnixMs,
    /// By whose token.
    pub registered_by: String,
    /// When it was last heard of, to the minute.
    pub heard_at: UnixMs,
}

impl RunnerRecord {
    /// What it has, for runs that ask for labels.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.about.labels
    }
}

/// A token that registers runners; only its digest is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunnerToken {
    /// What it is for.
    pub label: String,
    /// How many runners it may still register.
    pub uses_left: u32,
    /// When it was made.
    pub created_at: UnixMs,
    /// By whom.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: UnixMs,
}
