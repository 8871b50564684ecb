//! The pending effects in memory, a mirror of the store: which are due, which are being performed. A signal carries no
//! data; whoever gets it looks again. Not here: performing them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pipelines::{
    effect::{Effect, EffectKind, PendingEffect},
    ids::ServiceName,
    time::UnixMs,
};
use tokio::sync::Notify;

use crate::store::EffectsChanged;

#[derive(Debug, Default)]
struct Inner {
    pending: BTreeMap<String, PendingEffect>,
    /// What is being performed, with its lane.
    leased: BTreeMap<String, Option<String>>,
}

/// The pending effects.
#[derive(Debug)]
pub struct EffectQueue {
    inner: Mutex<Inner>,
    signal: Notify,
}

impl EffectQueue {
    /// A queue of what the store has.
    #[must_use]
    pub fn new(pending: Vec<(String, PendingEffect)>) -> Self {
        let inner = Inner { pending: pending.into_iter().collect(), leased: BTreeMap::new() };
        Self { inner: Mutex::new(inner), signal: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a stored change did.
    pub fn take(&self, changed: EffectsChanged) {
        let mut inner = self.lock();
        for key in changed.gone {
            inner.pending.remove(&key);
        }
        inner.pending.extend(changed.pending);
        drop(inner);
        self.signal.notify_one();
    }

    /// Waits until something may have become due.
    pub async fn changed(&self) {
        self.signal.notified().await;
    }

    /// Leases up to `limit` due effects that drivers perform (runs are leased by runners), and says when the next one is
    /// due. An effect that is being performed is not leased again, even if it was asked for anew: its performer is told
    /// by [`EffectQueue::release`]. Nor is one whose lane is taken.
    pub fn lease_due(&self, now: UnixMs, limit: usize) -> (Vec<(String, PendingEffect)>, Option<UnixMs>) {
        let mut inner = self.lock();
        let mut due = Vec::new();
        let mut next: Option<UnixMs> = None;
        let mut taken: BTreeSet<String> = inner.leased.values().flatten().cloned().collect();
        for (key, pending) in &inner.pending {
            if pending.effect.kind() == EffectKind::ExecuteRun || inner.leased.contains_key(key) {
                continue;
            }
            let lane = pending.effect.lane();
            if pending.not_before > now {
                next = Some(next.map_or(pending.not_before, |next| next.min(pending.not_before)));
            } else if due.len() < limit && lane.as_ref().is_none_or(|lane| !taken.contains(lane)) {
                taken.extend(lane);
                due.push((key.clone(), pending.clone()));
            }
        }
        for (key, pending) in &due {
            inner.leased.insert(key.clone(), pending.effect.lane());
        }
        (due, next)
    }

    /// The effect is no longer being performed.
    pub fn release(&self, key: &str) {
        self.lock().leased.remove(key);
        self.signal.notify_one();
    }

    /// Whether the effect is still wanted as it was asked for.
    #[must_use]
    pub fn is_wanted(&self, key: &str, asked: &PendingEffect) -> bool {
        self.lock().pending.get(key).is_some_and(|pending| pending.is_same_asking(asked))
    }

    /// Notes a failed try; the store has it already.
    pub fn retry(&self, key: &str, effect: PendingEffect) {
        let mut inner = self.lock();
        if inner.pending.get(key).is_some_and(|pending| pending.is_same_asking(&effect)) {
            inner.pending.insert(key.to_owned(), effect);
        }
    }

    /// The pending effect with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<PendingEffect> {
        self.lock().pending.get(key).cloned()
    }

    /// The first `limit` pending effects with their keys, those that wait longest first.
    #[must_use]
    pub fn all(&self, limit: usize) -> Vec<(String, PendingEffect)> {
        let inner = self.lock();
        let mut all: Vec<_> = inner.pending.iter().map(|(key, pending)| (key.clone(), pending.clone())).collect();
        drop(inner);
        all.sort_by_key(|(_, pending)| pending.asked_at);
        all.truncate(limit);
        all
    }

    /// Looks at each pending effect. Nobody else can meanwhile: `look` is to be short.
    pub fn each(&self, mut look: impl FnMut(&PendingEffect)) {
        self.lock().pending.values().for_each(&mut look);
    }

    /// Pending effects of a service.
    #[must_use]
    pub fn of_service(&self, service: &ServiceName) -> Vec<PendingEffect> {
        self.lock().pending.values().filter(|pending| pending.effect.service() == service).cloned().collect()
    }

    /// Runs that wait for a runner or are with one, oldest first.
    #[must_use]
    pub fn runs(&self) -> Vec<pipelines::ids::RunId> {
        let inner = self.lock();
        let mut runs: Vec<(UnixMs, pipelines::ids::RunId)> = inner
            .pending
            .values()
            .filter_map(|pending| match &pending.effect {
                Effect::ExecuteRun { run } => Some((pending.asked_at, run.clone())),
                _ => None,
            })
            .collect();
        runs.sort();
        runs.into_iter().map(|(_, run)| run).collect()
    }

    /// How many are pending, by kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<EffectKind, usize> {
        let mut counts = BTreeMap::new();
        for pending in self.lock().pending.values() {
            *counts.entry(pending.effect.kind()).or_default() += 1;
        }
        counts
    }

    /// Makes the effect due now, for "try again now".
    pub fn hurry(&self, key: &str, now: UnixMs) {
        if let Some(pending) = self.lock().pending.get_mut(key) {
            pending.not_before = now;
        }
        self.signal.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(effect: Effect) -> (String, PendingEffect) {
        let not_before = effect.due_at();
        let pending =
            PendingEffect { effect, asked_by: 1, asked_at: UnixMs(0), failures: 0, not_before, last_error: None };
        (pending.effect.key(), pending)
    }

    fn deploy(service: &str, number: u32) -> Effect {
        Effect::DeployTest { release: pipelines::ids::ReleaseId::new(service.parse().unwrap(), number) }
    }

    fn lease(queue: &EffectQueue) -> Vec<String> {
        queue.lease_due(UnixMs(5), 10).0.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_lane_is_performed_one_by_one_and_services_side_by_side() {
        let queue = EffectQueue::new([deploy("a", 1), deploy("a", 2), deploy("b", 1)].map(pending).to_vec());
        assert_eq!(lease(&queue), ["deploy-test/a/1", "deploy-test/b/1"]);
        // Withdrawn while it is being performed: what comes after it still waits for its end.
        queue.take(EffectsChanged { gone: vec!["deploy-test/a/1".into()], ..EffectsChanged::default() });
        assert_eq!(lease(&queue), [""; 0]);
        queue.release("deploy-test/a/1");
        assert_eq!(lease(&queue), ["deploy-test/a/2"]);
    }

    #[test]
    fn what_is_not_due_says_when_and_takes_no_lane() {
        let name: ServiceName = "a".parse().unwrap();
        let poll = Effect::PollRepository { service: name.clone(), due_at: UnixMs(9) };
        let hook = Effect::ProcessDelivery { delivery: 1, service: name };
        let queue = EffectQueue::new([poll, hook].map(pending).to_vec());
        let (due, next) = queue.lease_due(UnixMs(5), 10);
        assert_eq!((due.len(), next), (1, Some(UnixMs(9))));
    }
}
