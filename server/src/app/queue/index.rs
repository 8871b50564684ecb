//! What is pending, sorted so that whose turn it is costs the same whether ten effects wait or ten thousand. Not here:
//! locks and signals.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Bound,
};

use pipelines::{
    effect::{Effect, EffectKind, PendingEffect},
    ids::ServiceName,
    time::UnixMs,
};

use super::Waiting;

#[derive(Debug)]
pub(super) struct Index {
    per_service_max: usize,
    pending: BTreeMap<String, PendingEffect>,
    /// What is being performed.
    leased: BTreeMap<String, Lease>,
    /// The lanes of what is being performed.
    taken: HashSet<String>,
    services: BTreeMap<ServiceName, OfService>,
    /// What drivers perform and is not being performed: not due yet, or not yet seen to be due.
    later: BTreeSet<(UnixMs, String)>,
    /// Services with due effects.
    due: BTreeMap<ServiceName, Due>,
    /// Whose turn was last.
    last: Option<ServiceName>,
    kinds: BTreeMap<EffectKind, usize>,
    waiting: Waiting,
}

#[derive(Debug)]
struct Lease {
    service: ServiceName,
    lane: Option<String>,
}

#[derive(Debug, Default)]
struct OfService {
    keys: BTreeSet<String>,
    waiting: Waiting,
}

/// The due effects of a service: of each lane only the first can be next.
#[derive(Debug, Default)]
struct Due {
    lanes: BTreeMap<String, BTreeSet<String>>,
    free: BTreeSet<String>,
}

impl Due {
    fn add(&mut self, key: String, lane: Option<String>) {
        match lane {
            Some(lane) => self.lanes.entry(lane).or_default().insert(key),
            None => self.free.insert(key),
        };
    }

    fn remove(&mut self, key: &str, lane: Option<&String>) {
        let Some(lane) = lane else {
            self.free.remove(key);
            return;
        };
        if let Some(keys) = self.lanes.get_mut(lane) {
            keys.remove(key);
            if keys.is_empty() {
                self.lanes.remove(lane);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.free.is_empty()
    }

    /// The first in the order of keys whose lane is not taken.
    fn next(&self, taken: &HashSet<String>) -> Option<String> {
        let lanes = self.lanes.iter().filter(|(lane, _)| !taken.contains(*lane));
        lanes.filter_map(|(_, keys)| keys.first()).chain(self.free.first()).min().cloned()
    }
}

impl Waiting {
    /// Counts an effect in, or out.
    fn count(&mut self, effect: &Effect, is_in: bool) {
        let step = |count: &mut usize| *count = if is_in { *count + 1 } else { count.saturating_sub(1) };
        step(&mut self.effects);
        match effect.kind() {
            EffectKind::ProcessDelivery => step(&mut self.hooks),
            EffectKind::ExecuteRun => step(&mut self.runs),
            EffectKind::SendApprovalMail | EffectKind::SendCodeMail => step(&mut self.mails),
            _ => {}
        }
    }
}

impl Index {
    pub(super) fn new(per_service_max: usize) -> Self {
        Self {
            per_service_max,
            pending: BTreeMap::new(),
            leased: BTreeMap::new(),
            taken: HashSet::new(),
            services: BTreeMap::new(),
            later: BTreeSet::new(),
            due: BTreeMap::new(),
            last: None,
            kinds: BTreeMap::new(),
            waiting: Waiting::default(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&PendingEffect> {
        self.pending.get(key)
    }

    pub(super) fn is_leased(&self, key: &str) -> bool {
        self.leased.contains_key(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &PendingEffect)> {
        self.pending.iter()
    }

    pub(super) fn kinds(&self) -> &BTreeMap<EffectKind, usize> {
        &self.kinds
    }

    pub(super) fn of_service(&self, service: &ServiceName) -> impl Iterator<Item = &PendingEffect> {
        let keys = self.services.get(service).into_iter().flat_map(|of| &of.keys);
        keys.filter_map(|key| self.pending.get(key))
    }

    pub(super) fn hooks_after(
        &self,
        service: &ServiceName,
        key: &str,
    ) -> impl Iterator<Item = (&String, &PendingEffect)> {
        let after = (Bound::Excluded(key), Bound::Unbounded);
        let keys = self.services.get(service).into_iter().flat_map(move |of| of.keys.range::<str, _>(after));
        let pending = keys.filter_map(|key| Some((key, self.pending.get(key)?)));
        pending.take_while(|(_, pending)| pending.effect.kind() == EffectKind::ProcessDelivery)
    }

    pub(super) fn waiting(&self) -> Waiting {
        self.waiting
    }

    pub(super) fn waiting_of(&self, service: &ServiceName) -> Waiting {
        self.services.get(service).map(|of| of.waiting).unwrap_or_default()
    }

    pub(super) fn fullest(&self, of: impl Fn(&Waiting) -> usize) -> Option<(ServiceName, usize)> {
        let counts = self.services.iter().map(|(name, service)| (name, of(&service.waiting)));
        counts
            .filter(|(_, count)| *count > 0)
            .max_by_key(|(_, count)| *count)
            .map(|(name, count)| (name.clone(), count))
    }

    /// Those of services that have runs which are not over.
    pub(super) fn of_runs(&self) -> impl Iterator<Item = &PendingEffect> {
        let services = self.services.iter().filter(|(_, service)| service.waiting.runs > 0);
        services.flat_map(|(name, _)| self.of_service(name))
    }

    pub(super) fn insert(&mut self, key: String, pending: PendingEffect) {
        self.remove(&key);
        let (effect, not_before) = (&pending.effect, pending.not_before);
        let service = self.services.entry(effect.service().clone()).or_default();
        service.keys.insert(key.clone());
        service.waiting.count(effect, true);
        self.waiting.count(effect, true);
        *self.kinds.entry(effect.kind()).or_default() += 1;
        if effect.kind() != EffectKind::ExecuteRun && !self.leased.contains_key(&key) {
            self.later.insert((not_before, key.clone()));
        }
        self.pending.insert(key, pending);
    }

    pub(super) fn remove(&mut self, key: &str) {
        let Some(pending) = self.pending.remove(key) else { return };
        let effect = &pending.effect;
        let name = effect.service();
        if let Some(service) = self.services.get_mut(name) {
            service.keys.remove(key);
            service.waiting.count(effect, false);
            if service.keys.is_empty() && service.waiting.performing == 0 {
                self.services.remove(name);
            }
        }
        self.waiting.count(effect, false);
        if let Some(count) = self.kinds.get_mut(&effect.kind()) {
            *count -= 1;
            if *count == 0 {
                self.kinds.remove(&effect.kind());
            }
        }
        self.later.remove(&(pending.not_before, key.to_owned()));
        self.drop_due(name, key, effect.lane().as_ref());
    }

    fn drop_due(&mut self, service: &ServiceName, key: &str, lane: Option<&String>) {
        let Some(due) = self.due.get_mut(service) else { return };
        due.remove(key, lane);
        if due.is_empty() {
            self.due.remove(service);
        }
    }

    pub(super) fn lease_due(&mut self, now: UnixMs, limit: usize) -> (Vec<(String, PendingEffect)>, Option<UnixMs>) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.later.pop_first() else { break };
            if let Some(pending) = self.pending.get(&key) {
                let lane = pending.effect.lane();
                self.due.entry(pending.effect.service().clone()).or_default().add(key, lane);
            }
        }
        let mut leased = Vec::new();
        let mut passed_over = 0;
        while leased.len() < limit && passed_over < self.due.len() {
            let Some(name) = self.next_service() else { break };
            self.last = Some(name.clone());
            match self.lease_of(&name) {
                Some(one) => {
                    leased.push(one);
                    passed_over = 0;
                }
                None => passed_over += 1,
            }
        }
        (leased, self.later.first().map(|(at, _)| *at))
    }

    /// The service with due effects that comes after the one whose turn was last.
    fn next_service(&self) -> Option<ServiceName> {
        let after = self
            .last
            .as_ref()
            .and_then(|last| self.due.range::<ServiceName, _>((Bound::Excluded(last), Bound::Unbounded)).next());
        after.or_else(|| self.due.iter().next()).map(|(name, _)| name.clone())
    }

    fn lease_of(&mut self, name: &ServiceName) -> Option<(String, PendingEffect)> {
        let service = self.services.get_mut(name)?;
        if service.waiting.performing >= self.per_service_max {
            return None;
        }
        let key = self.due.get(name)?.next(&self.taken)?;
        let pending = self.pending.get(&key)?.clone();
        service.waiting.performing += 1;
        self.waiting.performing += 1;
        let lane = pending.effect.lane();
        self.drop_due(name, &key, lane.as_ref());
        self.taken.extend(lane.clone());
        self.leased.insert(key.clone(), Lease { service: name.clone(), lane });
        Some((key, pending))
    }

    pub(super) fn release(&mut self, key: &str) {
        let Some(lease) = self.leased.remove(key) else { return };
        if let Some(lane) = &lease.lane {
            self.taken.remove(lane);
        }
        self.waiting.performing = self.waiting.performing.saturating_sub(1);
        if let Some(service) = self.services.get_mut(&lease.service) {
            service.waiting.performing = service.waiting.performing.saturating_sub(1);
            if service.keys.is_empty() && service.waiting.performing == 0 {
                self.services.remove(&lease.service);
            }
        }
        // Failed, or asked for anew meanwhile.
        if let Some(pending) = self.pending.get(key) {
            self.later.insert((pending.not_before, key.to_owned()));
        }
    }
}
