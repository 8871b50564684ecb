//! Secrets that steps can name: set, listed, taken away by people; handed out to runs that may have them. Values go in and
//! come out for a runner alone. Not here: credentials of repositories (`services`), keys (`keys`).

#[cfg(test)]
mod tests;

use pipelines::{
    ids::{RunId, RunnerName, SecretName, ServiceName},
    journal::{Changed, Origin},
    protocol::{Blame, Secret, ServerReply},
    secret::{GivenSecret, Withheld, check_value},
    time::UnixMs,
};

use super::{App, AppError, keys::Keys};
use crate::store::{NamedSecret, NewEntry, records::Sealed};
pub use crate::store::{SecretScope, SecretUse};

/// What is shown of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretInfo {
    /// Who it is for.
    pub scope: SecretScope,
    /// Its name.
    pub name: SecretName,
    /// A shared one: for which services; empty: for all.
    pub services: Vec<ServiceName>,
    /// Since when it has its value.
    pub set_at: UnixMs,
    /// Who set it.
    pub set_by: String,
    /// When a run got it last.
    pub last_use: Option<SecretUse>,
}

/// What a person gives to set a secret. What is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct SecretInput {
    /// Its value; a new one needs it.
    pub value: Option<Secret>,
    /// A shared one: for which services; empty: for all, as without it when it is new.
    pub services: Option<Vec<ServiceName>>,
}

impl App {
    /// The secrets that the runs of a service can have: its own, then the shared ones that none of its own hides.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn secrets_of_service(&self, name: &ServiceName) -> Result<Vec<SecretInfo>, AppError> {
        self.service(name)?;
        let own = self.store.secrets(&SecretScope::Service { service: name.clone() })?;
        let mut shared = self.store.secrets(&SecretScope::Shared)?;
        shared.retain(|secret| is_for(secret, name) && own.iter().all(|own| own.name != secret.name));
        own.into_iter().chain(shared).map(|secret| self.secret_info(secret)).collect()
    }

    /// The shared secrets.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn secrets_shared(&self) -> Result<Vec<SecretInfo>, AppError> {
        self.store.secrets(&SecretScope::Shared)?.into_iter().map(|secret| self.secret_info(secret)).collect()
    }

    fn secret_info(&self, secret: NamedSecret) -> Result<SecretInfo, AppError> {
        let last_use = self.store.secret_use(&secret.scope, &secret.name)?;
        let NamedSecret { scope, name, services, sealed, set_by } = secret;
        Ok(SecretInfo { scope, name, services, set_at: sealed.set_at, set_by, last_use })
    }

    /// Sets a secret, or changes for which services a shared one is.
    ///
    /// # Errors
    /// When its value cannot be one, there are too many, or a service that is named does not exist.
    pub async fn secret_set(
        &self,
        scope: SecretScope,
        name: SecretName,
        input: SecretInput,
        origin: Origin,
    ) -> Result<SecretInfo, AppError> {
        let SecretInput { value, services } = input;
        let _held = self.secrets_lock.lock().await;
        if let Some(service) = scope.service() {
            self.service(service)?;
        }
        if services.is_some() && scope.service().is_some() {
            return Err(AppError::Invalid(
                "a secret of one service names no services: share it, or leave them out".into(),
            ));
        }
        let mut services = services.map(|services| self.known_services(services)).transpose()?;
        let before = self.store.secret(&scope, &name)?;
        if let (None, Some(before)) = (&services, &before) {
            services = Some(before.services.clone());
        }
        let services = services.unwrap_or_default();
        let place = place(&scope, &services, &name);
        let (sealed, set_by) = match (value, &before) {
            (Some(value), _) => (self.seal_value(&place, &value)?, origin.actor.clone()),
            // Whom it is for is part of what it is sealed to, so that nobody widens it behind the server's back.
            (None, Some(before)) => (seal_again(&self.keys, &place, before)?, before.set_by.clone()),
            (None, None) => {
                return Err(AppError::Invalid(format!("the secret {name} does not exist yet: give its value")));
            }
        };
        if before.is_none() && self.store.secrets(&scope)?.len() >= self.config.bounds.secrets_per_scope_max {
            let max = self.config.bounds.secrets_per_scope_max;
            return Err(AppError::Invalid(format!(
                "there are {max} secrets already, and no more are allowed (bounds.secrets_per_scope_max); remove one first"
            )));
        }
        let secret = NamedSecret { scope, name, services, sealed, set_by };
        let word = if before.is_some() { "secret_changed" } else { "secret_set" };
        let since = |secret: &NamedSecret| super::audit::moment_of(secret.sealed.set_at);
        let fields = [
            Changed::of("value set", before.as_ref().map(since).unwrap_or_default(), since(&secret)),
            Changed::of("for", before.as_ref().map(for_whom).unwrap_or_default(), for_whom(&secret)),
        ];
        let entry = self.secret_entry(&secret.scope, &secret.name, word, origin).changed(fields);
        self.store.secret_put(&secret, entry).await?;
        self.secret_info(secret)
    }

    fn seal_value(&self, place: &str, value: &Secret) -> Result<Sealed, AppError> {
        check_value(value, self.config.bounds.secret_bytes_max)
            .map_err(|unfit| AppError::Invalid(format!("the secret was not set: {unfit}")))?;
        Ok(self.keys.seal(place, value, self.now())?)
    }

    fn known_services(&self, mut services: Vec<ServiceName>) -> Result<Vec<ServiceName>, AppError> {
        services.sort();
        services.dedup();
        services.iter().try_for_each(|service| self.service(service).map(drop))?;
        Ok(services)
    }

    /// Takes a secret away: steps that name it fail from now on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn secret_remove(&self, scope: SecretScope, name: SecretName, origin: Origin) -> Result<(), AppError> {
        let _held = self.secrets_lock.lock().await;
        if self.store.secret(&scope, &name)?.is_none() {
            return Err(AppError::NotFound { what: "secret", id: name.to_string() });
        }
        let entry = self.secret_entry(&scope, &name, "secret_removed", origin);
        Ok(self.store.secret_delete(&scope, &name, entry).await?)
    }

    fn secret_entry(&self, scope: &SecretScope, name: &SecretName, word: &'static str, origin: Origin) -> NewEntry {
        let of = scope.service().map_or_else(|| "shared".to_owned(), ToString::to_string);
        NewEntry::new(self.now(), origin, format!("secret {of}/{name}"), word).of_service(scope.service())
    }

    /// Hands a run the secrets that it asks for, as far as they exist and it may have them.
    /// The value of a secret, to look for it where it must not be; none where it does not open.
    pub(super) fn secret_value(&self, secret: &NamedSecret) -> Option<Secret> {
        self.keys.open(&place(&secret.scope, &secret.services, &secret.name), &secret.sealed).ok()
    }

    pub(super) async fn agent_secrets(
        &self,
        runner: &RunnerName,
        id: &RunId,
        attempt: u32,
        names: Vec<SecretName>,
    ) -> Result<ServerReply, AppError> {
        match self.agent_standing(runner, id, attempt)? {
            ServerReply::Continue => {}
            other => return Ok(other),
        }
        let withhold = |blame, reason: String| {
            tracing::info!(run = %id, reason, "the run gets no secrets");
            Ok(ServerReply::Secrets { given: Vec::new(), withheld: Some(Withheld { blame, reason }) })
        };
        if !self.run(id)?.trigger.is_trusted() {
            return withhold(
                Blame::Code,
                "and the run of a pull request from a fork gets none: with `when: {event: [push, tag, manual]}` the step \
                 is left out of pull requests"
                    .into(),
            );
        }
        let (mut given, mut used, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        for name in names {
            let Some(secret) = self.secret_for(&id.service, &name)? else { continue };
            let place = place(&secret.scope, &secret.services, &secret.name);
            let Ok(value) = self.keys.open(&place, &secret.sealed) else {
                let reason = format!("and {name} does not open with the server's key: set it anew");
                return withhold(Blame::Infrastructure, reason);
            };
            bytes = bytes.saturating_add(value.expose().len());
            used.push((secret.scope, secret.name));
            given.push(GivenSecret { name, value });
        }
        let max = self.config.job.secret_bytes_per_run_max;
        if bytes > max {
            let reason = format!(
                "and the secrets of the run have {bytes} bytes together: {max} are allowed (job.secret_bytes_per_run_max)"
            );
            return withhold(Blame::Code, reason);
        }
        // Remembered before they leave, so that none is used without a trace.
        if !used.is_empty() {
            self.store.secrets_used(&used, &SecretUse { run: id.clone(), at: self.now() }).await?;
        }
        Ok(ServerReply::Secrets { given, withheld: None })
    }

    /// The service's own secret of this name, or the shared one.
    fn secret_for(&self, service: &ServiceName, name: &SecretName) -> Result<Option<NamedSecret>, AppError> {
        let own = self.store.secret(&SecretScope::Service { service: service.clone() }, name)?;
        if own.is_some() {
            return Ok(own);
        }
        Ok(self.store.secret(&SecretScope::Shared, name)?.filter(|secret| is_for(secret, service)))
    }
}

fn is_for(secret: &NamedSecret, service: &ServiceName) -> bool {
    secret.services.is_empty() || secret.services.contains(service)
}

fn for_whom(secret: &NamedSecret) -> String {
    match secret.scope.service() {
        Some(service) => service.to_string(),
        None if secret.services.is_empty() => "all services".into(),
        None => secret.services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", "),
    }
}

/// What a secret is sealed to: moved to another scope, name or list of services, it does not open.
pub(super) fn place(scope: &SecretScope, services: &[ServiceName], name: &SecretName) -> String {
    match scope {
        SecretScope::Service { service } => format!("secret/service/{service}/{name}"),
        SecretScope::Shared => {
            let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
            format!("secret/shared/{}/{name}", names.join(","))
        }
    }
}

/// The same value, sealed with the current key for another place; its age stays.
pub(super) fn seal_again(keys: &Keys, new_place: &str, secret: &NamedSecret) -> Result<Sealed, super::keys::KeyError> {
    let value = keys.open(&place(&secret.scope, &secret.services, &secret.name), &secret.sealed)?;
    keys.seal(new_place, &value, secret.sealed.set_at)
}
