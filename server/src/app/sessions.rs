//! Signed-in browsers: how a session begins, who has it, when it is over. Only the digest of a cookie is kept. Reading a
//! page changes nothing in the store: when a session was last used is kept in memory and written down by
//! [`App::sessions_keep`]. Not here: passwords (`accounts`), cookies and headers (`http`).

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pipelines::{
    journal::{Channel, Origin},
    protocol::Secret,
    time::UnixMs,
};
use tokio_util::sync::CancellationToken;

use super::{
    App, AppError,
    accounts::{Caller, PASSWORD_PROOF, digest_of},
};
use crate::{
    random::{self, KEY_BYTES},
    store::{Account, NewEntry, Session},
};

/// How often what is remembered of sessions is written down, and sessions that are over are taken away.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// Characters of a browser's own description that are kept.
const AGENT_CHARS_MAX: usize = 200;
/// Characters of a session's id in lists: the start of its digest.
const ID_CHARS: usize = 12;

/// A session that is good: its digest, what is stored of it, its last use.
type Live = (String, Session, UnixMs);

/// What is known of the sessions beside the store.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Held by whoever adds, renews or ends sessions: a session that is ended is not written down again.
    changing: tokio::sync::Mutex<()>,
    /// By digest: when it was last used. Holds only sessions that are in the store.
    uses: Mutex<HashMap<String, UnixMs>>,
}

impl Sessions {
    fn used_at(&self, digest: &str, session: &Session) -> UnixMs {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.get(digest).map_or(session.used_at, |used| (*used).max(session.used_at))
    }

    fn used(&self, digest: String, at: UnixMs) {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, at);
    }

    fn forget_all_but(&self, live: &HashSet<&str>) {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).retain(|digest, _| live.contains(digest.as_str()));
    }
}

/// From where somebody signs in, as the list of their sessions shows it.
#[derive(Clone, Debug, Default)]
pub struct SeenFrom {
    /// Address; empty where it is not known.
    pub remote: String,
    /// How the browser describes itself.
    pub agent: String,
}

/// A session as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSession {
    /// Its id: opens nothing.
    pub id: String,
    /// When it began.
    pub created_at: UnixMs,
    /// When it was last used.
    pub used_at: UnixMs,
    /// When it is over if it is not used any more.
    pub ends_at: UnixMs,
    /// The address that it began from.
    pub remote: String,
    /// How the browser described itself.
    pub agent: String,
    /// It is the one that asks.
    pub is_this: bool,
}

/// The id of a session: opens nothing.
fn id_of(digest: &str) -> String {
    digest.chars().take(ID_CHARS).collect()
}

/// As the journal names it.
fn session_name(digest: &str) -> String {
    format!("session {}", id_of(digest))
}

impl App {
    fn session_ends_at(&self, session: &Session, used_at: UnixMs) -> UnixMs {
        let bounds = &self.config.bounds;
        used_at.plus_ms(bounds.session_idle_ms).min(session.created_at.plus_ms(bounds.session_life_ms))
    }

    /// Whether it is over: by time, because its account is locked or gone, or because role or password changed since.
    fn session_is_over(&self, session: &Session, used_at: UnixMs, account: Option<&Account>) -> bool {
        self.now() > self.session_ends_at(session, used_at)
            || account.is_none_or(|account| account.disabled || account.session_epoch != session.epoch)
    }

    /// Signs in; gives the key for the browser's cookie. As [`App::sign_in_from`], from an unknown place.
    ///
    /// # Errors
    /// As there.
    pub async fn sign_in(&self, name: &str, password: Secret) -> Result<(String, Account), AppError> {
        self.sign_in_from(&SeenFrom::default(), None, name, password).await
    }

    /// Signs in; gives a new key for the browser's cookie. The session of the cookie that the browser had is over.
    ///
    /// # Errors
    /// When name or password are wrong: the same words for both, after the same time; or it was tried too often.
    pub async fn sign_in_from(
        &self,
        from: &SeenFrom,
        old_key: Option<&str>,
        name: &str,
        password: Secret,
    ) -> Result<(String, Account), AppError> {
        let account = self.check_password(&from.remote, name, password, Channel::Page).await?;
        let key = self.session_begin(&account, from, old_key).await?;
        Ok((key, account))
    }

    /// Begins a session of somebody who has proved who they are; the one of `old_key` is over. Takes away what is over by
    /// itself, and of this account the ones that were not used for longest where there are too many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn session_begin(
        &self,
        account: &Account,
        from: &SeenFrom,
        old_key: Option<&str>,
    ) -> Result<String, AppError> {
        let _held = self.sessions.changing.lock().await;
        let (key, now) = (random::text(KEY_BYTES), self.now());
        let session = Session {
            account: account.name.clone(),
            created_at: now,
            used_at: now,
            epoch: account.session_epoch,
            remote: from.remote.clone(),
            agent: from.agent.chars().filter(|c| !c.is_control()).take(AGENT_CHARS_MAX).collect(),
        };
        let (live, mut gone) = self.sessions_live()?;
        let old = old_key.map(digest_of);
        let (replaced, mut own): (Vec<_>, Vec<_>) = live
            .into_iter()
            .filter(|(_, kept, _)| kept.account == account.name)
            .partition(|(digest, ..)| Some(digest) == old.as_ref());
        own.sort_by_key(|(_, _, used_at)| *used_at);
        let too_many = (own.len() + 1).saturating_sub(self.config.bounds.sessions_per_account_max.max(1));
        gone.extend(replaced.into_iter().chain(own.into_iter().take(too_many)).map(|(digest, ..)| digest));
        let digest = digest_of(&key);
        let origin = Origin::new(&account.name, Channel::Page).from_place(&from.remote).proved_by(PASSWORD_PROOF);
        let entry = NewEntry::new(now, origin, session_name(&digest), "session_began").detail(session.agent.clone());
        self.store.sessions_change(&[(digest, session)], &gone, Some(entry)).await?;
        Ok(key)
    }

    /// The sessions that are good, with their last use; and the digests of those that are over.
    fn sessions_live(&self) -> Result<(Vec<Live>, Vec<String>), AppError> {
        let accounts: HashMap<String, Account> =
            self.store.accounts()?.into_iter().map(|account| (account.name.clone(), account)).collect();
        let (mut live, mut gone) = (Vec::new(), Vec::new());
        for (digest, session) in self.store.sessions()? {
            let used_at = self.sessions.used_at(&digest, &session);
            if self.session_is_over(&session, used_at, accounts.get(&session.account)) {
                gone.push(digest);
            } else {
                live.push((digest, session, used_at));
            }
        }
        Ok((live, gone))
    }

    /// Ends a session, from this address.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sign_out(&self, key: &str, remote: &str) -> Result<(), AppError> {
        let _held = self.sessions.changing.lock().await;
        let digest = digest_of(key);
        let Some(session) = self.store.session(&digest)? else { return Ok(()) };
        let name = session_name(&digest);
        let origin = Origin::new(&session.account, Channel::Page).from_place(remote).proved_by(&name);
        let entry = NewEntry::new(self.now(), origin, name, "session_ended");
        Ok(self.store.sessions_change(&[], &[digest], Some(entry)).await?)
    }

    /// Who has this cookie; none if the session is over. Changes nothing in the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn caller_of_session(&self, key: &str) -> Result<Option<Caller>, AppError> {
        let digest = digest_of(key);
        let Some(session) = self.store.session(&digest)? else { return Ok(None) };
        let account = self.store.account(&session.account)?;
        if self.session_is_over(&session, self.sessions.used_at(&digest, &session), account.as_ref()) {
            return Ok(None);
        }
        self.sessions.used(digest.clone(), self.now());
        Ok(account.map(|account| Caller {
            role: account.role,
            account,
            channel: Channel::Page,
            read_only: false,
            remote: String::new(),
            proof: session_name(&digest),
        }))
    }

    /// The caller's sessions, last used first; `key` is the cookie of the one that asks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sessions_of(&self, caller: &Caller, key: Option<&str>) -> Result<Vec<SeenSession>, AppError> {
        let this = key.map(digest_of);
        let mut seen: Vec<SeenSession> = self
            .sessions_live()?
            .0
            .into_iter()
            .filter(|(_, session, _)| session.account == caller.account.name)
            .map(|(digest, session, used_at)| SeenSession {
                id: id_of(&digest),
                created_at: session.created_at,
                used_at,
                ends_at: self.session_ends_at(&session, used_at),
                is_this: Some(&digest) == this.as_ref(),
                remote: session.remote,
                agent: session.agent,
            })
            .collect();
        seen.sort_by_key(|session| std::cmp::Reverse((session.used_at, session.created_at)));
        Ok(seen)
    }

    /// Ends one of the caller's sessions, by its id.
    ///
    /// # Errors
    /// When the caller has none of this id.
    pub async fn session_end(&self, caller: &Caller, id: &str) -> Result<(), AppError> {
        self.sessions_end(caller, |digest| id.len() == ID_CHARS && digest.starts_with(id)).await.and_then(|ended| {
            let unknown = || AppError::NotFound { what: "session", id: id.chars().take(80).collect() };
            if ended == 0 { Err(unknown()) } else { Ok(()) }
        })
    }

    /// Ends all of the caller's sessions but the one of `key`; gives how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn session_end_others(&self, caller: &Caller, key: Option<&str>) -> Result<usize, AppError> {
        let this = key.map(digest_of);
        self.sessions_end(caller, |digest| Some(digest) != this.as_deref()).await
    }

    async fn sessions_end(&self, caller: &Caller, which: impl Fn(&str) -> bool) -> Result<usize, AppError> {
        let _held = self.sessions.changing.lock().await;
        let all = self.store.sessions()?.into_iter();
        let own = all.filter(|(digest, session)| session.account == caller.account.name && which(digest));
        let gone: Vec<String> = own.map(|(digest, _)| digest).collect();
        if !gone.is_empty() {
            let names: Vec<String> = gone.iter().map(|digest| id_of(digest)).collect();
            let subject = if let [one] = gone.as_slice() { session_name(one) } else { "sessions".to_owned() };
            let entry = NewEntry::new(self.now(), caller.origin(), subject, "session_ended").detail(names.join(", "));
            self.store.sessions_change(&[], &gone, Some(entry)).await?;
        }
        Ok(gone.len())
    }

    /// Writes down when sessions were last used, and takes away those that are over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sessions_keep(&self) -> Result<(), AppError> {
        let _held = self.sessions.changing.lock().await;
        let (live, gone) = self.sessions_live()?;
        self.sessions.forget_all_but(&live.iter().map(|(digest, ..)| digest.as_str()).collect());
        let used = live.into_iter().filter(|(_, session, used_at)| *used_at > session.used_at);
        let used: Vec<_> = used.map(|(digest, session, used_at)| (digest, Session { used_at, ..session })).collect();
        if !used.is_empty() || !gone.is_empty() {
            self.store.sessions_change(&used, &gone, None).await?;
        }
        Ok(())
    }

    /// Does so again and again until `shutdown`, and once at the end.
    pub async fn sessions_watch(&self, shutdown: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep(KEEP_EVERY) => false,
            };
            if let Err(error) = self.sessions_keep().await {
                tracing::warn!(%error, "the last uses of sessions were not written down");
            }
            if is_last {
                return;
            }
        }
    }
}
