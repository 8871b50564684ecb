//! The work for runners: which runs wait, in which order they are given out, and who has which. Not here: giving them out
//! (`agents`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pipelines::{
    effect::{Effect, PendingEffect},
    ids::{RunId, RunnerName, ServiceName},
    time::UnixMs,
};

/// The work for runners.
#[derive(Debug, Default)]
pub struct Work {
    /// Runs that wait, in the order in which they are given out: of the service with the fewest runs under way the oldest.
    pub waiting: Vec<RunId>,
    /// Runs that a runner has.
    pub held: BTreeMap<RunId, RunnerName>,
    places: HashMap<RunId, usize>,
}

impl Work {
    pub(super) fn of<'a>(pending: impl Iterator<Item = &'a PendingEffect>) -> Self {
        let mut held = BTreeMap::new();
        let mut asked: Vec<(UnixMs, &RunId)> = Vec::new();
        for one in pending {
            match &one.effect {
                Effect::ExecuteRun { run } => asked.push((one.asked_at, run)),
                Effect::ExpireLease { run, runner, .. } => drop(held.insert(run.clone(), runner.clone())),
                _ => {}
            }
        }
        asked.sort();
        let mut under_way: BTreeMap<&ServiceName, usize> = BTreeMap::new();
        let mut queues: BTreeMap<&ServiceName, VecDeque<(UnixMs, &RunId)>> = BTreeMap::new();
        for (at, run) in asked {
            if held.contains_key(run) {
                *under_way.entry(&run.service).or_default() += 1;
            } else {
                queues.entry(&run.service).or_default().push_back((at, run));
            }
        }
        let mut waiting = Vec::new();
        let mut next: BTreeSet<(usize, UnixMs, &ServiceName)> = queues
            .iter()
            .filter_map(|(service, queue)| {
                Some((under_way.get(service).copied().unwrap_or(0), queue.front()?.0, *service))
            })
            .collect();
        while let Some((busy, _, service)) = next.pop_first() {
            let Some(queue) = queues.get_mut(service) else { continue };
            waiting.extend(queue.pop_front().map(|(_, run)| run.clone()));
            next.extend(queue.front().map(|(at, _)| (busy + 1, *at, service)));
        }
        let places = waiting.iter().enumerate().map(|(index, run)| (run.clone(), index + 1)).collect();
        Self { waiting, held, places }
    }

    /// The place of a run among those that wait, from 1.
    #[must_use]
    pub fn place(&self, run: &RunId) -> Option<usize> {
        self.places.get(run).copied()
    }
>>>>>>> cd32622 (runners: attempts, leases that expire, labels, fairness and capacity; records of runners)
}

/// The pending effects.
#[derive(Debug)]
pub struct EffectQueue {
    inner: Mutex<Index>,
    signal: Notify,
}

impl EffectQueue {
    /// A queue of what the store has. Drivers perform at most `per_service_max` effects of one service at the same time.
    #[must_use]
<<<<<<< HEAD
    pub fn new(pending: Vec<(String, PendingEffect)>, per_service_max: usize) -> Self {
        let mut index = Index::new(per_service_max.max(1));
        for (key, pending) in pending {
            index.insert(key, pending);
        }
        Self { inner: Mutex::new(index), signal: Notify::new() }
||||||| parent of cd32622 (runners: attempts, leases that expire, labels, fairness and capacity; records of runners)
    pub fn new(pending: Vec<(String, PendingEffect)>) -> Self {
        let inner = Inner { pending: pending.into_iter().collect(), leased: BTreeMap::new() };
        Self { inner: Mutex::new(inner), signal: Notify::new() }
=======
    pub fn new(pending: Vec<(String, PendingEffect)>) -> Self {
        let inner = Inner { pending: pending.into_iter().collect(), leased: BTreeMap::new(), work: None };
        Self { inner: Mutex::new(inner), signal: Notify::new() }
>>>>>>> cd32622 (runners: attempts, leases that expire, labels, fairness and capacity; records of runners)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a stored change did.
    pub fn take(&self, changed: EffectsChanged) {
        let mut inner = self.lock();
        inner.work = None;
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

<<<<<<< HEAD
    /// Runs that wait for a runner or are with one, in the order in which runners get them: the first of each service,
    /// oldest first, then the second of each, and so on. What a service has running counts, so that one with a hundred
    /// waiting runs takes no runner from another that has none running.
||||||| parent of cd32622 (runners: attempts, leases that expire, labels, fairness and capacity; records of runners)
    /// Runs that wait for a runner or are with one, oldest first.
=======
    /// The work for runners.
>>>>>>> cd32622 (runners: attempts, leases that expire, labels, fairness and capacity; records of runners)
    #[must_use]
<<<<<<< HEAD
    pub fn runs(&self) -> Vec<RunId> {
        let mut runs = self.lock().runs();
        runs.sort();
        runs.into_iter().map(|(_, _, run)| run).collect()
||||||| parent of cd32622 (runners: attempts, leases that expire, labels, fairness and capacity; records of runners)
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
=======
    pub fn work(&self) -> Arc<Work> {
        let mut inner = self.lock();
        let work = inner.work.take().unwrap_or_else(|| Arc::new(Work::of(&inner.pending)));
        inner.work = Some(Arc::clone(&work));
        work
>>>>>>> cd32622 (runners: attempts, leases that expire, labels, fairness and capacity; records of runners)
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
<<<<<<< HEAD
mod tests;
||||||| parent of cd32622 (runners: attempts, leases that expire, labels, fairness and capacity; records of runners)
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
=======
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

    #[test]
    fn runs_are_given_out_fairly_between_services() {
        let at = |effect: Effect, at: u64| (effect.key(), PendingEffect { asked_at: UnixMs(at), ..pending(effect).1 });
        let run = |text: &str| text.parse::<RunId>().unwrap();
        let asked = |text: &str, ms| at(Effect::ExecuteRun { run: run(text) }, ms);
        let held = |text: &str| {
            let runner = "r".parse().unwrap();
            pending(Effect::ExpireLease { run: run(text), runner, attempt: 1, due_at: UnixMs(0) })
        };
        let queue = EffectQueue::new(vec![
            asked("busy/1", 1),
            held("busy/1"),
            asked("busy/2", 2),
            asked("busy/3", 3),
            asked("calm/1", 9),
            asked("calm/2", 10),
        ]);
        let work = queue.work();
        let order: Vec<String> = work.waiting.iter().map(ToString::to_string).collect();
        assert_eq!(order, ["calm/1", "busy/2", "calm/2", "busy/3"]);
        assert_eq!((work.held.len(), work.place(&run("busy/2")), work.place(&run("busy/1"))), (1, Some(2), None));
        queue.take(EffectsChanged { gone: vec!["expire-lease/busy/1".into()], ..EffectsChanged::default() });
        assert_eq!(queue.work().waiting[0], run("busy/1"), "what was lost is first again");
    }
}
