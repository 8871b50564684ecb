//! Git servers and what is fetched from them: listing refs, fetching exact commits into mirrors, writing trees, reading
//! history, through libgit2 over https (reqwest) and ssh (russh), without OpenSSL and without the `git` program.
//! Not here: when something is fetched and what becomes of it; Git LFS and pushing.
//!
//! Every function that touches a disk or a network blocks: call it on `tokio::task::spawn_blocking`. Each is safe to
//! repeat, and any number may run at once, on one mirror too. An operation is stopped by its [`CancellationToken`] within
//! one message of the server or one step of libgit2.
//!
//! Proxies for http and https are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`), as the `git` program does; ssh
//! goes directly.
//!
//! A pack is bounded in bytes as received. Deltas in it may ask libgit2 for much more memory than that for a single
//! object, and libgit2 has no bound for it: whoever may push to a registered repository can make a fetch expensive.

mod checkout;
#[cfg(test)]
mod checkout_tests;
mod credential;
mod error;
mod history;
mod host_key;
mod https;
mod mirror;
mod pipeline;
mod remote;
mod session;
mod ssh;
mod tree;

use tokio_util::sync::CancellationToken;

use crate::outgoing::Outgoing;

pub use self::{
    checkout::{CheckoutInfo, CheckoutOptions, checkout},
    credential::GitCredential,
    error::{GitError, KeyProblem, Said, TreeProblem},
    history::{Changelog, CommitSummary, DiffStat, TreeFile, changelog, diff_stat, file_at, files_under, is_ancestor},
    host_key::{HostKeyPolicy, PinnedHostKeys},
    pipeline::{FoundFile, pipeline_file},
    remote::{Fetched, RemoteListing, RemoteRef, fetch_commit, ls_remote},
};

/// Bounds, trust and cancellation of an operation on a server.
#[derive(Clone, Debug)]
pub struct GitOptions {
    /// For a connection to be made and greeted, in milliseconds.
    pub connect_timeout_ms: u64,
    /// For anything to come from the server, in milliseconds. Servers count objects before they send some.
    pub stall_timeout_ms: u64,
    /// For the whole operation, in milliseconds.
    pub total_timeout_ms: u64,
    /// The most that a fetch receives for its pack, in bytes.
    pub max_pack_bytes: u64,
    /// The most that a list of refs may take, in bytes.
    pub max_refs_bytes: u64,
    /// How many redirects of https are followed.
    pub max_redirects: u8,
    /// Certificates, PEM, that are trusted for https besides the system's.
    pub ca_pem: Option<String>,
    /// Where redirects may lead, and which addresses are not called.
    pub outgoing: Outgoing,
    /// Which ssh servers are trusted.
    pub host_keys: HostKeyPolicy,
    /// Stops the operation. Clones of the options share it.
    pub cancel: CancellationToken,
}

impl Default for GitOptions {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 10_000,
            stall_timeout_ms: 60_000,
            total_timeout_ms: 15 * 60_000,
            max_pack_bytes: 2 << 30,
            max_refs_bytes: 32 << 20,
            max_redirects: 5,
            ca_pem: None,
            outgoing: Outgoing::default(),
            host_keys: HostKeyPolicy::default(),
            cancel: CancellationToken::new(),
        }
    }
}
