//! The audit log, which is the journal: read with a filter, exported whole, its chain walked along, its head told once a
//! day. Not here: writing entries, which each change does in its own transaction; the files of an export ([`file`]).

pub mod file;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pipelines::{
    ids::ServiceName,
    journal::{
        Channel, Entry, Origin,
        chain::{Head, Mark, Misfit, Walked},
    },
    time::UnixMs,
};
use tokio_util::sync::CancellationToken;

use super::{App, AppError, accounts::PASSWORD_PROOF, throttle::Throttle};
use crate::{config::Bounds, store::NewEntry};

/// How often the chain is walked along and its head told.
const CHECK_EVERY: Duration = Duration::from_secs(86_400);
/// The time within which [`Bounds::audit_failed_sign_ins_max`] counts, in milliseconds.
const FAILED_WINDOW_MS: u64 = 3_600_000;
/// Entries that are read at once.
const CHUNK_ENTRIES: usize = 500;
/// Whoever tried to sign in under a name that is no account's: what they typed may be a password.
const NOBODY: &str = "(no account)";

/// What is known of the log beside the store.
#[derive(Debug)]
pub(super) struct Audit {
    failed: Throttle,
    /// Failed tries that were not written, because there were too many.
    left_out: AtomicU64,
    checked: Mutex<Option<AuditCheck>>,
}

impl Audit {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let failed = Throttle::new(bounds.audit_failed_sign_ins_max, FAILED_WINDOW_MS);
        Self { failed, left_out: AtomicU64::new(0), checked: Mutex::default() }
    }
}

/// When the chain was walked along last, and what came of it.
#[derive(Clone, Debug)]
pub struct AuditCheck {
    /// When.
    pub at: UnixMs,
    /// How far it fits, or the first entry that does not.
    pub result: Result<Walked, Misfit>,
}

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// In the actor's name, or how the address begins; in any case.
    pub who: Option<String>,
    /// In the word, the subject or the detail; in any case.
    pub what: Option<String>,
    /// Of this service.
    pub service: Option<ServiceName>,
    /// By this way.
    pub channel: Option<Channel>,
    /// Not before.
    pub from: Option<UnixMs>,
    /// Before.
    pub until: Option<UnixMs>,
    /// Only entries about services: for whom the rest is not meant.
    pub of_services: bool,
}

impl AuditFilter {
    /// Whether it leaves out nothing.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it lets the entry through.
    #[must_use]
    pub fn lets(&self, entry: &Entry) -> bool {
        let has = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        let (origin, who, what) = (&entry.origin, self.who.as_deref(), self.what.as_deref());
        who.is_none_or(|who| has(&origin.actor, who) || origin.place.starts_with(who))
            && what.is_none_or(|it| has(&entry.word, it) || has(&entry.subject, it) || has(&entry.detail, it))
            && self.service.as_ref().is_none_or(|service| entry.service.as_ref() == Some(service))
            && self.channel.is_none_or(|channel| origin.channel == channel)
            && self.from.is_none_or(|from| entry.at >= from)
            && self.until.is_none_or(|until| entry.at < until)
            && (!self.of_services || entry.service.is_some())
    }
}

/// A page of entries, newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditPage {
    /// They.
    pub entries: Vec<Entry>,
    /// Where it goes on, if there may be more.
    pub next_before: Option<u64>,
    /// How many entries were looked at: as many as are looked at at once, where there is more and little was found.
    pub looked_at: usize,
}

impl App {
    /// Entries of a service (or of all), newest first, with a place below `before`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn journal(
        &self,
        service: Option<&ServiceName>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Entry>, AppError> {
        Ok(self.store.journal(service, before, limit)?)
    }

    /// Entries that the filter lets through, newest first, with a place below `before`. Looks at a bounded number of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit_page(
        self: &Arc<Self>,
        filter: AuditFilter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<AuditPage, AppError> {
        let app = Arc::clone(self);
        blocking(move || app.audit_page_now(&filter, before, limit)).await
    }

    fn audit_page_now(
        &self,
        filter: &AuditFilter,
        mut before: Option<u64>,
        limit: usize,
    ) -> Result<AuditPage, AppError> {
        let mut page = AuditPage::default();
        let most = self.config.bounds.audit_scan_entries_max.max(1);
        loop {
            let wanted = CHUNK_ENTRIES.min(most - page.looked_at);
            let chunk = self.store.journal(filter.service.as_ref(), before, wanted)?;
            let is_last = chunk.len() < wanted;
            for entry in chunk {
                page.looked_at += 1;
                before = Some(entry.seq);
                if filter.lets(&entry) {
                    page.entries.push(entry);
                    if page.entries.len() >= limit {
                        page.next_before = before.filter(|seq| *seq > 1);
                        return Ok(page);
                    }
                }
            }
            if is_last || page.looked_at >= most {
                page.next_before = before.filter(|seq| !is_last && *seq > 1);
                return Ok(page);
            }
        }
    }

    /// The next entries of an export, oldest first: those with a place above `after` and not above `until`, of which the
    /// filter lets some through. With the place to go on from; none at the end.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit_export(
        self: &Arc<Self>,
        filter: AuditFilter,
        after: u64,
        until: u64,
    ) -> Result<(Vec<Entry>, Option<u64>), AppError> {
        let app = Arc::clone(self);
        blocking(move || {
            let mut entries = app.store.journal_after(after, CHUNK_ENTRIES)?;
            let last = entries.last().map(|entry| entry.seq).filter(|last| *last < until);
            entries.retain(|entry| entry.seq <= until && filter.lets(entry));
            Ok((entries, last))
        })
        .await
    }

    /// Where the chain is: what to keep elsewhere.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn audit_head(&self) -> Result<Head, AppError> {
        Ok(self.store.journal_head()?)
    }

    /// What the last walk along the chain found; none before the first.
    #[must_use]
    pub fn audit_checked(&self) -> Option<AuditCheck> {
        self.audit.checked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Walks along the whole chain, and tells the server's log where it is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit_check(self: &Arc<Self>, mark: Option<Mark>) -> Result<AuditCheck, AppError> {
        let app = Arc::clone(self);
        let check = blocking(move || {
            let result = app.store.journal_verify(mark)?;
            Ok(AuditCheck { at: app.now(), result })
        })
        .await?;
        match &check.result {
            Ok(Walked { entries, mark: Some(mark) }) => {
                tracing::info!(entries, head = %mark, "the audit log is whole; keep its head elsewhere");
            }
            Ok(_) => tracing::info!("the audit log is empty"),
            Err(misfit) => tracing::error!(%misfit, "the audit log is not what was written"),
        }
        *self.audit.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(check.clone());
        Ok(check)
    }

    /// Does so at the start and once a day, until `shutdown`.
    pub async fn audit_watch(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.audit_check(None).await {
                tracing::warn!(%error, "the audit log was not looked at");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(CHECK_EVERY) => {}
            }
        }
    }

    /// Writes down that the server began to run: what happened before was another life of it.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn audit_started(&self) -> Result<(), AppError> {
        let version = format!("version {}", env!("CARGO_PKG_VERSION"));
        let entry = NewEntry::new(self.now(), Origin::server(), "server", "server_started").detail(version);
        Ok(self.store.journal_note(entry).await?)
    }

    /// Writes down a failed try to sign in: so many an hour. That it cannot be written changes nothing for who tried.
    pub(super) async fn sign_in_failed(&self, remote: &str, account: Option<String>, channel: Channel) {
        if self.audit.failed.count("", self.now()).is_err() {
            self.audit.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let actor = account.unwrap_or_else(|| NOBODY.to_owned());
        let origin = Origin::new(&actor, channel).from_place(remote).proved_by(format!("a wrong {PASSWORD_PROOF}"));
        let left_out = self.audit.left_out.swap(0, Ordering::Relaxed);
        let detail = if left_out == 0 { String::new() } else { format!("{left_out} more before it were not written") };
        let entry = NewEntry::new(self.now(), origin, format!("account {actor}"), "sign_in_failed").detail(detail);
        if let Err(error) = self.store.journal_note(entry).await {
            self.audit.left_out.fetch_add(left_out + 1, Ordering::Relaxed);
            tracing::warn!(%error, "a failed try to sign in was not written down");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AppError> + Send + 'static,
) -> Result<T, AppError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => Err(AppError::Invalid(format!("reading the audit log ended early: {error}"))),
    }
}

/// Whoever gives a command on the server's own machine: the system's user, by number.
#[must_use]
pub fn machine_origin() -> Origin {
    Origin::new(format!("user {}", rustix::process::getuid().as_raw()), Channel::Machine)
}

/// A moment as an entry names it.
pub(super) fn moment_of(at: UnixMs) -> String {
    let moment = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| at.0.to_string(), |moment| moment.to_string())
}
