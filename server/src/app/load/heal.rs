//! How what refused hooks told is found all the same: their repositories are asked, soon and once for all of them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pipelines::{effect::Effect, ids::ServiceName, journal::Origin, time::UnixMs};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::app::{App, AppError, queue::Hurried, trains::Extras};

/// Names that are remembered: beyond it all services are asked.
const NAMES_MAX: usize = 1_000;
/// After this time the repository is asked of a service whose polling is off, where nobody knows who sent the hook.
const UNKNOWN_WAITS_MS: u64 = 60_000;

/// Services whose hooks were refused, and whether the hook was known to be theirs.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marked: Mutex<Marked>,
    signal: Notify,
}

#[derive(Debug, Default)]
struct Marked {
    names: BTreeMap<ServiceName, bool>,
    all: bool,
}

impl Marks {
    /// A hook was refused whose signature was good.
    pub(super) fn mark(&self, service: &ServiceName) {
        self.add(service, true);
    }

    /// A hook was refused before it was known whether it is one.
    pub(super) fn mark_unknown(&self, service: &ServiceName) {
        self.add(service, false);
    }

    fn add(&self, service: &ServiceName, is_known: bool) {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        if marked.names.len() >= NAMES_MAX && !marked.names.contains_key(service) {
            marked.all = true;
        } else {
            *marked.names.entry(service.clone()).or_default() |= is_known;
        }
        drop(marked);
        self.signal.notify_one();
    }

    fn take(&self) -> Marked {
        std::mem::take(&mut *self.marked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl App {
    /// A hook for this service, as its sender says, was refused before anything of it was read.
    pub fn hook_refused_unread(&self, service: &str) {
        if let Ok(service) = service.parse() {
            self.load.heal.mark_unknown(&service);
        }
    }

    /// Has the repositories asked whose hooks were refused, until `shutdown`.
    pub async fn hooks_heal(&self, shutdown: CancellationToken) {
        let wait = Duration::from_millis(self.config.bounds.hook_heal_ms);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.load.heal.signal.notified() => {}
            }
            // A flood goes on for a while: one poll for all that comes meanwhile.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if let Err(error) = self.heal_once().await {
                tracing::warn!(%error, "the repositories of refused hooks could not be asked; their usual polls will");
            }
        }
    }

    /// Asks for the polls.
    ///
    /// # Errors
    /// When the store cannot be read or does not take it.
    pub(super) async fn heal_once(&self) -> Result<(), AppError> {
        let Marked { mut names, all } = self.load.heal.take();
        if all {
            for service in self.services()? {
                names.entry(service.name).or_default();
            }
        }
        for (service, is_known) in names {
            // Anybody can name a service that there is not.
            if self.store.service(&service)?.is_some() {
                self.heal_service(&service, is_known).await?;
            }
        }
        Ok(())
    }

    async fn heal_service(&self, service: &ServiceName, is_known: bool) -> Result<(), AppError> {
        let key = Effect::PollRepository { service: service.clone(), due_at: UnixMs(0) }.key();
        let now = self.now();
        if !is_known {
            // A stranger must not have repositories asked at will: the usual poll does, or one in a while.
            if self.queue.get(&key).is_none() {
                self.poll_ask(service, now.plus_ms(UNKNOWN_WAITS_MS)).await?;
            }
            return Ok(());
        }
        match self.queue.hurry(&key, now) {
            Hurried::Due => Ok(()),
            // It may have listed the refs before the push.
            Hurried::Underway => {
                self.load.heal.mark(service);
                Ok(())
            }
            Hurried::Absent => self.poll_ask(service, now).await,
        }
    }

    async fn poll_ask(&self, service: &ServiceName, due_at: UnixMs) -> Result<(), AppError> {
        let ask = vec![Effect::PollRepository { service: service.clone(), due_at }];
        let extras = Extras { ask, ..Extras::default() };
        self.train_input(service, Origin::server(), |_| Ok((Vec::new(), extras))).await.map(drop)
    }
}
