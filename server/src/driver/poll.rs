//! Asks a repository where its refs are: regularly, and where a hook of a pull request may be late.

use std::collections::BTreeMap;

use integrations::{
    git::{GitCredential, GitOptions, HostKeyPolicy, RemoteListing, ls_remote},
    outgoing::Outgoing,
};
use pipelines::{
    ids::ServiceName,
    protocol::{GitAccess, OutgoingRules, Repository},
    repository::RepositoryAddress,
};
use secrecy::SecretString;

use super::{Drivers, Performed, TryAgain};
use crate::app::{DeliveryId, deliveries::Listed};

/// The longest a poll may take, in milliseconds.
const POLL_TIMEOUT_MS: u64 = 60_000;
/// Refs of one repository that are watched; a repository with more is refused with a word.
const REFS_MAX: usize = 20_000;

pub(super) async fn process_delivery(drivers: &Drivers, name: &ServiceName, id: DeliveryId) -> Performed {
    let app = &drivers.app;
    let now_at = if app.delivery_asks(name, id)? {
        let listing = listing(drivers, name).await?;
        listing.refs.iter().map(|found| (found.name.clone(), found.commit().clone())).collect()
    } else {
        BTreeMap::new()
    };
    Ok(app.delivery_outcome(name, id, &now_at)?)
}

async fn listing(drivers: &Drivers, name: &ServiceName) -> Result<RemoteListing, TryAgain> {
    let app = &drivers.app;
    let service = app.service(name)?;
    let repository = app.service_repository(&service)?;
    let rules = app.outgoing_rules()?;
    tokio::task::spawn_blocking(move || list(&repository, &rules))
        .await
        .map_err(|error| TryAgain(format!("a poll ended early: {error}")))?
}

pub(super) async fn poll_repository(drivers: &Drivers, name: &ServiceName) -> Performed {
    let app = &drivers.app;
    let listing = listing(drivers, name).await?;
    if listing.refs.len() > REFS_MAX {
        return Err(TryAgain(format!("the repository has {} refs, more than {REFS_MAX}", listing.refs.len())));
    }
    let refs: BTreeMap<_, _> = listing
        .refs
        .iter()
        .filter(|found| found.branch().is_some() || found.tag().is_some())
        .map(|found| (found.name.clone(), found.commit().clone()))
        .collect();
    let listed = Listed { refs, default_branch: listing.default_branch };
    Ok(app.poll_outcome(name, &listed, listing.learned_host_key)?)
}

fn list(repository: &Repository, rules: &OutgoingRules) -> Result<RemoteListing, TryAgain> {
    let failed = |error: integrations::git::GitError| TryAgain::from_error(&error);
    let url: RepositoryAddress = repository
        .url
        .parse()
        .map_err(|error| TryAgain(format!("the repository's address cannot be followed: {error}")))?;
    let credential = credential_of(repository);
    let options = GitOptions {
        total_timeout_ms: POLL_TIMEOUT_MS,
        ca_pem: repository.ca_pem.clone(),
        outgoing: Outgoing::new(rules).map_err(|error| TryAgain(error.to_string()))?,
        host_keys: HostKeyPolicy::from_lines(&repository.known_hosts).map_err(failed)?,
        ..GitOptions::default()
    };
    ls_remote(&url, &credential, &options).map_err(failed)
}

/// What opens a repository, as the git client takes it.
pub(super) fn credential_of(repository: &Repository) -> GitCredential {
    match &repository.credential {
        GitAccess::None => GitCredential::None,
        GitAccess::Token { user, token } => {
            GitCredential::Token { user: user.clone(), secret: SecretString::from(token.expose()) }
        }
        GitAccess::SshKey { key } => {
            GitCredential::SshKey { private_key_openssh: SecretString::from(key.expose()), passphrase: None }
        }
    }
}
