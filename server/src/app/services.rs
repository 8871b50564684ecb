//! Registering services and changing what is registered. Secrets go in and never come out.

use pipelines::{
    effect::Effect,
    ids::ServiceName,
    journal::{Changed, Origin},
    protocol::{GitAccess, OutgoingRules, Repository, Secret},
    repository::RepositoryAddress,
    service::{CredentialKind, Service},
    time::UnixMs,
};

use super::{App, AppError};
use crate::store::{NewEntry, SealedSecrets};

/// The shortest time between two polls of one repository, in milliseconds.
pub const POLL_INTERVAL_MIN_MS: u64 = 1_000;
/// The usual time between two polls, in milliseconds.
pub const POLL_INTERVAL_MS: u64 = 60_000;
/// Bytes of a credential.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// A credential as a person gives it.
#[derive(Clone, Debug)]
pub enum NewCredential {
    /// None is needed.
    None,
    /// User and token.
    Token {
        /// User name.
        user: String,
        /// Token or password.
        token: Secret,
    },
    /// A private key in OpenSSH's format.
    SshKey(Secret),
}

/// What a person gives to register or change a service. On a change, what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct ServiceInput {
    /// Where its source is.
    pub repository_url: Option<String>,
    /// What opens it.
    pub credential: Option<NewCredential>,
    /// Secret of its hooks; empty takes it away.
    pub hook_secret: Option<Secret>,
    /// Take hooks without a signature.
    pub allow_unsigned_hooks: Option<bool>,
    /// Time between two polls, in milliseconds; 0: none.
    pub poll_interval_ms: Option<u64>,
    /// The release branch; empty: the repository's default branch.
    pub release_branch: Option<String>,
    /// Whether authors may approve their own commits.
    pub allow_self_approval: Option<bool>,
    /// Host keys for ssh.
    pub known_hosts: Option<Vec<String>>,
    /// Certificate authority, PEM.
    pub ca_pem: Option<String>,
}

impl App {
    /// Registers a service; its repository is polled at once.
    ///
    /// # Errors
    /// When the name is taken or something given is not good.
    pub async fn service_create(
        &self,
        name: ServiceName,
        input: ServiceInput,
        origin: Origin,
    ) -> Result<Service, AppError> {
        self.room_for_new_work()?;
        self.room_for_effects()?;
        let Some(repository_url) = input.repository_url.clone().filter(|url| !url.trim().is_empty()) else {
            return Err(AppError::Invalid("the repository's address is missing".into()));
        };
        let at = self.now();
        let mut service = Service {
            name,
            repository_url,
            credential: CredentialKind::None,
            known_hosts: Vec::new(),
            ca_pem: None,
            allow_unsigned_hooks: false,
            poll_interval_ms: POLL_INTERVAL_MS,
            release_branch: None,
            default_branch: None,
            allow_self_approval: false,
            created_at: at,
            created_by: origin.actor.clone(),
        };
        let mut secrets = SealedSecrets::default();
        self.take_input(&mut service, &mut secrets, input, at)?;
        let fields = differences(None, (&service, &secrets));
        let entry = service_entry(&service, "service_created", origin, at).changed(fields);
        let effects = self.store.service_create(&service, &secrets, &poll_now(&service, at), entry).await?;
        self.queue.take(effects);
        self.tell(&service.name, "service".into());
        Ok(service)
    }

    /// Changes a service.
    ///
    /// # Errors
    /// When there is none of this name or something given is not good.
    pub async fn service_update(
        &self,
        name: &ServiceName,
        input: ServiceInput,
        origin: Origin,
    ) -> Result<Service, AppError> {
        let lock = self.lock_of(name);
        let _held = lock.lock().await;
        let at = self.now();
        let mut service = self.service(name)?;
        let mut secrets = self.store.service_secrets(name)?.unwrap_or_default();
        let before = (service.clone(), secrets.clone());
        self.take_input(&mut service, &mut secrets, input, at)?;
        let fields = differences(Some((&before.0, &before.1)), (&service, &secrets));
        let entry = service_entry(&service, "service_changed", origin, at).changed(fields);
        let effects = self.store.service_update(&service, Some(&secrets), &poll_now(&service, at), entry).await?;
        self.queue.take(effects);
        self.tell(name, "service".into());
        Ok(service)
    }

    /// All services, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn services(&self) -> Result<Vec<Service>, AppError> {
        Ok(self.store.services()?)
    }

    fn take_input(
        &self,
        service: &mut Service,
        secrets: &mut SealedSecrets,
        input: ServiceInput,
        at: UnixMs,
    ) -> Result<(), AppError> {
        if let Some(url) = input.repository_url {
            let url = url.trim().to_owned();
            // The words never repeat the address, which may hold a password.
            let address = url.parse::<RepositoryAddress>();
            address.map_err(|error| AppError::Invalid(format!("the repository's address cannot be taken: {error}")))?;
            service.repository_url = url;
        }
        match input.credential {
            None => {}
            Some(NewCredential::None) => {
                service.credential = CredentialKind::None;
                secrets.git_user = None;
                secrets.git_secret = None;
            }
            Some(NewCredential::Token { user, token }) => {
                secrets.git_secret = Some(self.seal(service, "git", &token, at)?);
                secrets.git_user = Some(user);
                service.credential = CredentialKind::Token;
            }
            Some(NewCredential::SshKey(key)) => {
                if !key.expose().contains("PRIVATE KEY") {
                    return Err(AppError::Invalid("the SSH key is not a private key in OpenSSH's format".into()));
                }
                secrets.git_secret = Some(self.seal(service, "git", &key, at)?);
                secrets.git_user = None;
                service.credential = CredentialKind::SshKey;
            }
        }
        if let Some(secret) = input.hook_secret {
            secrets.hook_secret =
                if secret.expose().is_empty() { None } else { Some(self.seal(service, "hook", &secret, at)?) };
        }
        if let Some(allow) = input.allow_unsigned_hooks {
            service.allow_unsigned_hooks = allow;
        }
        if let Some(interval) = input.poll_interval_ms {
            if interval != 0 && interval < POLL_INTERVAL_MIN_MS {
                return Err(AppError::Invalid(format!("the polling interval is below {POLL_INTERVAL_MIN_MS} ms")));
            }
            service.poll_interval_ms = interval;
        }
        if let Some(branch) = input.release_branch {
            let branch = branch.trim();
            service.release_branch = (!branch.is_empty()).then(|| branch.to_owned());
        }
        if let Some(allow) = input.allow_self_approval {
            service.allow_self_approval = allow;
        }
        if let Some(lines) = input.known_hosts {
            service.known_hosts = lines.into_iter().filter(|line| !line.trim().is_empty()).collect();
        }
        if let Some(pem) = input.ca_pem {
            service.ca_pem = (!pem.trim().is_empty()).then_some(pem);
        }
        Ok(())
    }

    fn seal(
        &self,
        service: &Service,
        what: &str,
        secret: &Secret,
        at: UnixMs,
    ) -> Result<crate::store::records::Sealed, AppError> {
        if secret.expose().len() > SECRET_BYTES_MAX {
            return Err(AppError::Invalid(format!("the secret is longer than {SECRET_BYTES_MAX} bytes")));
        }
        Ok(self.keys.seal(&place(&service.name, what), secret, at)?)
    }

    /// Where calls may lead: what is set, and the hosts of all registered repositories.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn outgoing_rules(&self) -> Result<OutgoingRules, AppError> {
        let mut rules = self.config.outgoing.clone();
        for service in self.services()? {
            // An address that is none any more leads nowhere.
            let Ok(address) = service.repository_url.parse::<RepositoryAddress>() else { continue };
            let host = address.host_and_port();
            if address.as_http().is_some() && !rules.hosts.contains(&host) {
                rules.hosts.push(host);
            }
        }
        Ok(rules)
    }

    /// The source of a service with what opens it: for drivers and runners only.
    ///
    /// # Errors
    /// When there is no such service or a secret does not open.
    pub fn service_repository(&self, service: &Service) -> Result<Repository, AppError> {
        let secrets = self.store.service_secrets(&service.name)?.unwrap_or_default();
        let secret = secrets
            .git_secret
            .as_ref()
            .map(|sealed| self.keys.open(&place(&service.name, "git"), sealed))
            .transpose()?
            .unwrap_or_default();
        let credential = match service.credential {
            CredentialKind::None => GitAccess::None,
            CredentialKind::Token => GitAccess::Token { user: secrets.git_user.unwrap_or_default(), token: secret },
            CredentialKind::SshKey => GitAccess::SshKey { key: secret },
        };
        Ok(Repository {
            url: service.repository_url.clone(),
            credential,
            known_hosts: service.known_hosts.clone(),
            ca_pem: service.ca_pem.clone(),
        })
    }

    /// The secret of a service's hooks, if it has one: for verifying only.
    ///
    /// # Errors
    /// When it does not open.
    pub fn service_hook_secret(&self, name: &ServiceName) -> Result<Option<Secret>, AppError> {
        let secrets = self.store.service_secrets(name)?.unwrap_or_default();
        Ok(secrets.hook_secret.as_ref().map(|sealed| self.keys.open(&place(name, "hook"), sealed)).transpose()?)
    }

    /// Since when the service's secrets are set: git, hook. The page shows their age, never them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn service_secret_ages(&self, name: &ServiceName) -> Result<(Option<UnixMs>, Option<UnixMs>), AppError> {
        let secrets = self.store.service_secrets(name)?.unwrap_or_default();
        Ok((secrets.git_secret.map(|sealed| sealed.set_at), secrets.hook_secret.map(|sealed| sealed.set_at)))
    }

    /// Asks the repository now instead of at its time.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn service_poll_now(&self, name: &ServiceName) -> Result<(), AppError> {
        self.service(name)?;
        self.queue.hurry(&Effect::PollRepository { service: name.clone(), due_at: UnixMs(0) }.key(), self.now());
        Ok(())
    }
}

fn place(service: &ServiceName, what: &str) -> String {
    format!("service/{service}/{what}")
}

/// What is sealed of a service's credentials, each with its place.
pub(super) fn sealed_of<'a>(
    name: &ServiceName,
    secrets: &'a mut SealedSecrets,
) -> impl Iterator<Item = (String, &'a mut crate::store::records::Sealed)> {
    let git = secrets.git_secret.as_mut().map(|sealed| (place(name, "git"), sealed));
    let hook = secrets.hook_secret.as_mut().map(|sealed| (place(name, "hook"), sealed));
    git.into_iter().chain(hook)
}

/// One poll at once, also where polling is off: it learns the default branch and shows whether the credential is good.
fn poll_now(service: &Service, at: UnixMs) -> [Effect; 1] {
    [Effect::PollRepository { service: service.name.clone(), due_at: at }]
}

fn service_entry(service: &Service, word: &'static str, origin: Origin, at: UnixMs) -> NewEntry {
    NewEntry::new(at, origin, format!("service {}", service.name), word)
}

/// What the journal says of a service: of credentials and secrets only which there are, and since when.
fn fields_of(service: &Service, secrets: &SealedSecrets) -> [(&'static str, String); 9] {
    let credential = match service.credential {
        CredentialKind::None => "none".to_owned(),
        CredentialKind::Token => {
            format!("a token{}{}", of_user(secrets.git_user.as_deref()), since(secrets.git_secret.as_ref()))
        }
        CredentialKind::SshKey => format!("an SSH key{}", since(secrets.git_secret.as_ref())),
    };
    let hook_secret = secrets.hook_secret.as_ref().map(|sealed| format!("one{}", since(Some(sealed))));
    let authority = service.ca_pem.as_ref().map(|pem| pipelines::ids::Digest::of(pem.as_bytes()).short().to_owned());
    [
        ("repository", service.repository_url.clone()),
        ("credential", credential),
        ("hook secret", hook_secret.unwrap_or_else(|| "none".into())),
        ("unsigned hooks", service.allow_unsigned_hooks.to_string()),
        ("polling, ms", service.poll_interval_ms.to_string()),
        ("release branch", service.release_branch.clone().unwrap_or_else(|| "the default branch".into())),
        ("self-approval", service.allow_self_approval.to_string()),
        ("host keys", service.known_hosts.join("\n")),
        ("certificate authority", authority.unwrap_or_else(|| "none".into())),
    ]
}

fn of_user(user: Option<&str>) -> String {
    user.filter(|user| !user.is_empty()).map(|user| format!(" of {user}")).unwrap_or_default()
}

fn since(sealed: Option<&crate::store::records::Sealed>) -> String {
    sealed.map(|sealed| format!(" since {}", super::audit::moment_of(sealed.set_at))).unwrap_or_default()
}

fn differences(
    before: Option<(&Service, &SealedSecrets)>,
    (service, secrets): (&Service, &SealedSecrets),
) -> Vec<Option<Changed>> {
    let before = before.map(|(service, secrets)| fields_of(service, secrets).map(|(_, value)| value));
    let before = before.unwrap_or_default();
    let after = fields_of(service, secrets).into_iter();
    after.zip(before).map(|((field, after), before)| Changed::of(field, before, after)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::test_app;

    #[tokio::test]
    async fn an_address_with_a_credential_is_refused_in_words_that_do_not_repeat_it() {
        let stage = test_app();
        for address in
            ["https://me:hunter2@host/x", "https://hunter2@host/x", "me:hunter2@host:x", "hunter2", "ftp://h/?hunter2"]
        {
            let input = ServiceInput { repository_url: Some(address.into()), ..ServiceInput::default() };
            let made = stage.app.service_create("shop".parse().unwrap(), input, Origin::server()).await;
            let said = made.unwrap_err().to_string();
            assert!(said.contains("the repository's address") && !said.contains("hunter2"), "{said}");
        }
        assert!(stage.app.services().unwrap().is_empty());
    }
}
