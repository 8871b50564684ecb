//! The pending effects in memory, a mirror of the store: which are due, which are being performed, and whose turn it is. A
//! signal carries no data; whoever gets it looks again. Not here: performing them.

mod index;
mod work;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pipelines::{
    effect::{EffectKind, PendingEffect},
    ids::ServiceName,
    time::UnixMs,
};
use tokio::sync::Notify;

use crate::store::EffectsChanged;
use index::Index;
pub use work::Work;

/// What waits, by what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Effects, whatever they are.
    pub effects: usize,
    /// Effects that are being performed by drivers.
    pub performing: usize,
    /// Hooks that were taken and not looked at yet.
    pub hooks: usize,
    /// Runs that wait for a runner or are with one.
    pub runs: usize,
    /// Mails that were not taken by the mail server yet.
    pub mails: usize,
}

/// What became of the wish to have an effect performed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurried {
    /// It is due.
    Due,
    /// It is being performed.
    Underway,
    /// It is not pending.
    Absent,
}

/// The pending effects.
#[derive(Debug)]
pub struct EffectQueue {
    inner: Mutex<Index>,
    /// The work for runners, until something changes; locked after `inner`.
    work: Mutex<Option<Arc<Work>>>,
    signal: Notify,
}

impl EffectQueue {
    /// A queue of what the store has. Drivers perform at most `per_service_max` effects of one service at the same time.
    #[must_use]
    pub fn new(pending: Vec<(String, PendingEffect)>, per_service_max: usize) -> Self {
        let mut index = Index::new(per_service_max.max(1));
        for (key, pending) in pending {
            index.insert(key, pending);
        }
        Self { inner: Mutex::new(index), work: Mutex::default(), signal: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a stored change did.
    pub fn take(&self, changed: EffectsChanged) {
        let mut inner = self.lock();
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = None;
        for key in changed.gone {
            inner.remove(&key);
        }
        for (key, pending) in changed.pending {
            inner.insert(key, pending);
        }
        drop(inner);
        self.signal.notify_one();
    }

    /// Waits until something may have become due.
    pub async fn changed(&self) {
        self.signal.notified().await;
    }

    /// Leases up to `limit` due effects that drivers perform (runs are leased by runners), and says when the next one is
    /// due. Services take turns: one that has a thousand due effects gets as many of these as any other that has some. An
    /// effect that is being performed is not leased again, even if it was asked for anew: its performer is told by
    /// [`EffectQueue::release`]. Nor is one whose lane is taken; in a lane they come in the order of their keys.
    pub fn lease_due(&self, now: UnixMs, limit: usize) -> (Vec<(String, PendingEffect)>, Option<UnixMs>) {
        self.lock().lease_due(now, limit)
    }

    /// The effect is no longer being performed.
    pub fn release(&self, key: &str) {
        self.lock().release(key);
        self.signal.notify_one();
    }

    /// Whether the effect is still wanted as it was asked for.
    #[must_use]
    pub fn is_wanted(&self, key: &str, asked: &PendingEffect) -> bool {
        self.lock().get(key).is_some_and(|pending| pending.is_same_asking(asked))
    }

    /// Notes a failed try; the store has it already.
    pub fn retry(&self, key: &str, effect: PendingEffect) {
        let mut inner = self.lock();
        if inner.get(key).is_some_and(|pending| pending.is_same_asking(&effect)) {
            inner.insert(key.to_owned(), effect);
        }
    }

    /// The pending effect with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<PendingEffect> {
        self.lock().get(key).cloned()
    }

    /// The first `limit` pending effects with their keys, those that wait longest first.
    #[must_use]
    pub fn all(&self, limit: usize) -> Vec<(String, PendingEffect)> {
        let inner = self.lock();
        let mut all: Vec<_> = inner.all().collect();
        all.sort_by_key(|(_, pending)| pending.asked_at);
        all.into_iter().take(limit).map(|(key, pending)| (key.clone(), pending.clone())).collect()
    }

    /// The first `limit` hooks of a service behind the one with this key, in the order in which they came.
    #[must_use]
    pub fn hooks_after(&self, service: &ServiceName, key: &str, limit: usize) -> Vec<(String, PendingEffect)> {
        let inner = self.lock();
        inner.hooks_after(service, key).take(limit).map(|(key, pending)| (key.clone(), pending.clone())).collect()
    }

    /// Looks at each pending effect. Nobody else can meanwhile: `look` is to be short.
    pub fn each(&self, mut look: impl FnMut(&PendingEffect)) {
        self.lock().all().for_each(|(_, pending)| look(pending));
    }

    /// Pending effects of a service.
    #[must_use]
    pub fn of_service(&self, service: &ServiceName) -> Vec<PendingEffect> {
        self.lock().of_service(service).cloned().collect()
    }

    /// The work for runners. What a service has under way counts, so that one with a hundred waiting runs takes no runner
    /// from another that has none under way.
    #[must_use]
    pub fn work(&self) -> Arc<Work> {
        let inner = self.lock();
        let mut known = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.get_or_insert_with(|| Arc::new(Work::of(inner.of_runs()))))
    }

    /// How many are pending, by kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<EffectKind, usize> {
        self.lock().kinds().clone()
    }

    /// What waits, of all services.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.lock().waiting()
    }

    /// What waits of one service.
    #[must_use]
    pub fn waiting_of(&self, service: &ServiceName) -> Waiting {
        self.lock().waiting_of(service)
    }

    /// The service with most of what `of` counts, and how many it has; none where nobody has any.
    #[must_use]
    pub fn fullest(&self, of: impl Fn(&Waiting) -> usize) -> Option<(ServiceName, usize)> {
        self.lock().fullest(of)
    }

    /// Makes the effect due now, for "try again now".
    pub fn hurry(&self, key: &str, now: UnixMs) -> Hurried {
        let mut inner = self.lock();
        let Some(pending) = inner.get(key).cloned() else { return Hurried::Absent };
        if inner.is_leased(key) {
            return Hurried::Underway;
        }
        inner.insert(key.to_owned(), PendingEffect { not_before: now, ..pending });
        drop(inner);
        self.signal.notify_one();
        Hurried::Due
    }
}

#[cfg(test)]
mod tests;
