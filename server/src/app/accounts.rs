//! Accounts and bearer tokens. Passwords are hashed with Argon2id, tokens are kept as digests only.
//! Not here: signed-in browsers (`sessions`), headers (`http`).

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use pipelines::{
    journal::{Changed, Channel, Origin},
    protocol::Secret,
    time::UnixMs,
};
use sha2::{Digest as _, Sha256};

use super::{App, AppError};
use crate::{
    random::{self, KEY_BYTES},
    store::{Account, NewEntry, Role, Token},
};

/// Name of the account that the first start makes.
pub const FIRST_ADMIN: &str = "admin";
/// Bytes of randomness in its first password.
const FIRST_PASSWORD_BYTES: usize = 18;
/// Characters that a password has at least.
pub const PASSWORD_CHARS_MIN: usize = 10;
/// Bytes that a password has at most: hashing more is an attack.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// Passwords that are hashed at the same time: each takes 19 MiB.
pub(super) const HASHING_PARALLEL_MAX: usize = 4;
/// Characters of a token's id.
const TOKEN_ID_CHARS: usize = 12;
/// What proved who somebody is, where it was their password.
pub(super) const PASSWORD_PROOF: &str = "password";
/// How every bearer token begins, so that scanners of leaked secrets know it.
pub const TOKEN_PREFIX: &str = "wlt_";

/// Who makes a request, and what they may do.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The account.
    pub account: Account,
    /// What they may do by this way: the account's role, or less by a token's scope.
    pub role: Role,
    /// By which way they came.
    pub channel: Channel,
    /// Only reads.
    pub read_only: bool,
    /// The address that they come from; empty where it is not known.
    pub remote: String,
    /// What proves who they are, by its id: `token 4f1a…`.
    pub proof: String,
}

impl Caller {
    /// The origin of what they do.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(&self.account.name, self.channel).from_place(&self.remote).proved_by(&self.proof)
    }

    /// Whether they may do what `role` may.
    #[must_use]
    pub fn may(&self, role: Role) -> bool {
        self.role >= role
    }
}

pub(super) fn digest_of(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// The id of a bearer token, by which it is listed and ended: the start of its digest.
#[must_use]
pub fn token_id(token: &str) -> String {
    short(&digest_of(token))
}

/// What is shown of something that opens: the start of its digest.
pub(super) fn short(digest: &str) -> String {
    digest.chars().take(TOKEN_ID_CHARS).collect()
}

fn hash_password(password: &Secret) -> Result<String, AppError> {
    let password = password.expose();
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(AppError::Invalid(format!("the password is shorter than {PASSWORD_CHARS_MIN} characters")));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(AppError::Invalid(format!("the password is longer than {PASSWORD_BYTES_MAX} bytes")));
    }
    match Argon2::default().hash_password(password.as_bytes()) {
        Ok(hash) => Ok(hash.to_string()),
        Err(error) => Err(AppError::Invalid(format!("the password cannot be hashed: {error}"))),
    }
}

fn is_password(password: &Secret, hash: &str) -> bool {
    password.expose().len() <= PASSWORD_BYTES_MAX
        && PasswordHash::new(hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok())
}

/// Whether a token is still good after what ends the sessions of its account: only those that a password gave end too.
fn is_of_now(account: &Account, token: &Token) -> bool {
    token.session_epoch.is_none_or(|epoch| epoch == account.session_epoch)
}

/// An account may have no address.
fn check_email(email: &str) -> Result<(), AppError> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control();
    if !email.is_empty() && (!email.contains('@') || email.len() > 254 || email.chars().any(is_odd)) {
        return Err(AppError::Invalid("the mail address is not one".into()));
    }
    Ok(())
}

impl App {
    async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, AppError> {
        let failed = |error: String| AppError::Invalid(format!("hashing ended early: {error}"));
        let _room = self.hashing.acquire().await.map_err(|error| failed(error.to_string()))?;
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(error.to_string()))
    }

    fn account_entry(&self, name: &str, word: &'static str, origin: Origin) -> NewEntry {
        NewEntry::new(self.now(), origin, format!("account {name}"), word)
    }

    /// At the first start: makes an admin and gives its password, which is shown once and stored nowhere.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn account_first(&self) -> Result<Option<Secret>, AppError> {
        if !self.store.accounts()?.is_empty() {
            return Ok(None);
        }
        let password = Secret::new(random::text(FIRST_PASSWORD_BYTES));
        self.account_create(FIRST_ADMIN, "", Role::Admin, password.clone(), Origin::server()).await?;
        Ok(Some(password))
    }

    /// All accounts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn accounts(&self) -> Result<Vec<Account>, AppError> {
        Ok(self.store.accounts()?)
    }

    /// An account.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn account(&self, name: &str) -> Result<Account, AppError> {
        self.store.account(name)?.ok_or_else(|| AppError::NotFound { what: "account", id: name.to_owned() })
    }

    /// Makes an account.
    ///
    /// # Errors
    /// When the name is taken, or name, address or password are not good.
    pub async fn account_create(
        &self,
        name: &str,
        email: &str,
        role: Role,
        password: Secret,
        origin: Origin,
    ) -> Result<Account, AppError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=64).contains(&name.len()) || !name.chars().all(is_name) {
            return Err(AppError::Invalid("an account's name is 1 to 64 of a-z, A-Z, 0-9, - _ and .".into()));
        }
        check_email(email)?;
        if self.store.account(name)?.is_some() {
            return Err(AppError::Exists(format!("account {name}")));
        }
        let password_hash = self.hashing(move || hash_password(&password)).await??;
        let account = Account {
            name: name.to_owned(),
            email: email.to_owned(),
            role,
            password_hash,
            disabled: false,
            created_at: self.now(),
            session_epoch: 0,
        };
        let fields = [Changed::of("role", "", role.word()), Changed::of("address", "", email)];
        let entry = self.account_entry(name, "account_created", origin).changed(fields);
        self.store.account_put(&account, entry).await?;
        Ok(account)
    }

    /// Changes role, address, password or whether it may sign in; what is `None` stays.
    ///
    /// # Errors
    /// When there is none of this name, or it is the last admin that would lose its role.
    pub async fn account_update(
        &self,
        name: &str,
        role: Option<Role>,
        email: Option<String>,
        password: Option<Secret>,
        disabled: Option<bool>,
        origin: Origin,
    ) -> Result<Account, AppError> {
        let mut account = self.account(name)?;
        let is_admin = |account: &Account| account.role == Role::Admin && !account.disabled;
        let was_admin = is_admin(&account);
        let before = account.clone();
        let mut password_is_new = None;
        // Whoever is signed in signs in again: a session is good for the role and the password that it began with.
        if role.is_some_and(|role| role != account.role) || password.is_some() || disabled == Some(true) {
            account.session_epoch = account.session_epoch.wrapping_add(1);
        }
        if let Some(role) = role {
            account.role = role;
        }
        if let Some(email) = email {
            check_email(&email)?;
            account.email = email;
        }
        if let Some(password) = password {
            account.password_hash = self.hashing(move || hash_password(&password)).await??;
            password_is_new = Changed::of("password", "set", "set anew");
        }
        if let Some(disabled) = disabled {
            account.disabled = disabled;
        }
        let other_admin = self.accounts()?.iter().any(|other| other.name != name && is_admin(other));
        if was_admin && !is_admin(&account) && !other_admin {
            return Err(AppError::Invalid(format!("{name} is the last admin; make another one first")));
        }
        let fields = [
            Changed::of("role", before.role.word(), account.role.word()),
            Changed::of("address", before.email, &account.email),
            password_is_new,
            Changed::of("disabled", before.disabled, account.disabled),
        ];
        let entry = self.account_entry(name, "account_changed", origin).changed(fields);
        self.store.account_put(&account, entry).await?;
        Ok(account)
    }

    /// Signs a program in: gives a bearer token of the account's whole role, and until when it is good.
    ///
    /// # Errors
    /// As [`App::sign_in_from`].
    pub async fn login(
        &self,
        remote: &str,
        name: &str,
        password: Secret,
        label: String,
    ) -> Result<(Secret, Account, UnixMs), AppError> {
        let account = self.check_password(remote, name, password, Channel::Api).await?;
        let expires_at = self.now().plus_ms(self.config.bounds.login_token_life_ms);
        let role = account.role;
        let (remote, proof) = (remote.to_owned(), PASSWORD_PROOF.to_owned());
        let caller = Caller { account: account.clone(), role, channel: Channel::Api, read_only: false, remote, proof };
        let epoch = Some(account.session_epoch);
        let token = self.token_add(&caller, label, (role, false), Some(expires_at), epoch).await?;
        Ok((token, account, expires_at))
    }

    /// Changes the caller's own password: browsers and command lines that are signed in have to sign in again. With
    /// `end_tokens` the tokens that were made for programs end too.
    ///
    /// # Errors
    /// When the present password is wrong, was tried too often, or the new one is not good.
    pub async fn password_change(
        &self,
        remote: &str,
        caller: &Caller,
        present: Secret,
        new: Secret,
        end_tokens: bool,
    ) -> Result<(), AppError> {
        let name = &caller.account.name;
        self.check_password(remote, name, present, caller.channel).await?;
        self.account_update(name, None, None, Some(new), None, caller.origin()).await?;
        if end_tokens {
            self.tokens_end(name, caller.origin()).await?;
        }
        Ok(())
    }

    pub(super) async fn check_password(
        &self,
        remote: &str,
        name: &str,
        password: Secret,
        channel: Channel,
    ) -> Result<Account, AppError> {
        self.throttles.sign_in(remote, name, self.now())?;
        let account = self.store.account(name)?.filter(|account| !account.disabled);
        // Without an account a password is hashed all the same, so that the time does not tell which names exist.
        let hash = account.as_ref().map(|account| account.password_hash.clone());
        let is_right = self
            .hashing(move || match hash {
                Some(hash) => is_password(&password, &hash),
                None => hash_password(&Secret::new("no such account")).is_err(),
            })
            .await?;
        let known = account.as_ref().map(|account| account.name.clone());
        let Some(account) = account.filter(|_| is_right) else {
            self.sign_in_failed(remote, known, channel).await;
            return Err(AppError::WrongPassword);
        };
        self.throttles.signed_in(remote, name);
        Ok(account)
    }

    /// Makes a bearer token; it is shown once.
    ///
    /// # Errors
    /// When the scope is above the account's own role.
    pub async fn token_create(
        &self,
        caller: &Caller,
        label: String,
        scope: Role,
        read_only: bool,
        expires_at: Option<UnixMs>,
    ) -> Result<Secret, AppError> {
        self.token_add(caller, label, (scope, read_only), expires_at, None).await
    }

    async fn token_add(
        &self,
        caller: &Caller,
        label: String,
        (scope, read_only): (Role, bool),
        expires_at: Option<UnixMs>,
        session_epoch: Option<u32>,
    ) -> Result<Secret, AppError> {
        if scope > caller.role {
            return Err(AppError::Forbidden(format!("your role does not reach {}", scope.word())));
        }
        let key = format!("{TOKEN_PREFIX}{}", random::text(KEY_BYTES));
        let token = Token {
            label: label.chars().take(100).collect(),
            account: caller.account.name.clone(),
            scope,
            read_only,
            created_at: self.now(),
            expires_at,
            session_epoch,
        };
        let digest = digest_of(&key);
        let entry = self.bearer_entry(&digest, &token, "token_created", caller.origin()).changed([
            Changed::of("scope", "", scope.word()),
            Changed::of("only reads", "", read_only),
            Changed::of("ends", "", expires_at.map(super::audit::moment_of).unwrap_or_default()),
        ]);
        self.store.token_put(&digest, &token, entry).await?;
        Ok(Secret::new(key))
    }

    /// Takes a bearer token back, by its id (the start of its digest).
    ///
    /// # Errors
    /// When there is none, or it is somebody else's and the caller is no admin.
    pub async fn token_delete(&self, caller: &Caller, id: &str) -> Result<(), AppError> {
        let found =
            self.store.tokens()?.into_iter().find(|(digest, _)| id.len() >= TOKEN_ID_CHARS && digest.starts_with(id));
        let Some((digest, token)) = found else {
            return Err(AppError::NotFound { what: "token", id: id.to_owned() });
        };
        if token.account != caller.account.name && !caller.may(Role::Admin) {
            return Err(AppError::Forbidden("the token is somebody else's".into()));
        }
        self.token_end(&digest, &token, caller.origin()).await
    }

    fn bearer_entry(&self, digest: &str, token: &Token, word: &'static str, origin: Origin) -> NewEntry {
        let detail = format!("of {}: {}", token.account, token.label);
        NewEntry::new(self.now(), origin, format!("token {}", short(digest)), word).detail(detail)
    }

    async fn token_end(&self, digest: &str, token: &Token, origin: Origin) -> Result<(), AppError> {
        let entry = self.bearer_entry(digest, token, "token_deleted", origin);
        Ok(self.store.token_delete(digest, entry).await?)
    }

    /// Takes back every bearer token of an account; gives how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tokens_end(&self, account: &str, origin: Origin) -> Result<usize, AppError> {
        let tokens: Vec<_> = self.store.tokens()?.into_iter().filter(|(_, token)| token.account == account).collect();
        for (digest, token) in &tokens {
            self.token_end(digest, token, origin.clone()).await?;
        }
        Ok(tokens.len())
    }

    /// The tokens of an account with their ids; not those that ended with the password that gave them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn tokens_of(&self, account: &str) -> Result<Vec<(String, Token)>, AppError> {
        let record = self.store.account(account)?;
        let is_of = |account: &Account, token: &Token| token.account == account.name && is_of_now(account, token);
        let tokens = self.store.tokens()?.into_iter();
        let tokens = tokens.filter(|(_, token)| record.as_ref().is_some_and(|account| is_of(account, token)));
        Ok(tokens.map(|(digest, token)| (short(&digest), token)).collect())
    }

    /// Who has this bearer token; none if it is not good.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn caller_of_token(&self, key: &str) -> Result<Option<Caller>, AppError> {
        if !key.starts_with(TOKEN_PREFIX) {
            return Ok(None);
        }
        let Some(token) = self.store.token(&digest_of(key))? else { return Ok(None) };
        if token.expires_at.is_some_and(|end| self.now() >= end) {
            return Ok(None);
        }
        let account = self.store.account(&token.account)?;
        let account = account.filter(|account| !account.disabled && is_of_now(account, &token));
        Ok(account.map(|account| Caller {
            role: account.role.min(token.scope),
            account,
            channel: Channel::Api,
            read_only: token.read_only,
            remote: String::new(),
            proof: format!("token {}", token_id(key)),
        }))
    }
}
