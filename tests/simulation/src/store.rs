//! What survives a crash: the records of one service and its pending effects, changed as `server::store` changes them:
//! a whole input in one step, the finished effect out, the withdrawn ones out, the new ones in by key. Not here: who asks.

use std::collections::BTreeMap;

use pipelines::{
    approval::Approval,
    effect::{Effect, PendingEffect},
    ids::{ReleaseId, RolloutId, RunId},
    release::Release,
    rollout::Rollout,
    run::Run,
    service::Service,
    time::UnixMs,
    train::{Change, Event, Records, Refusal, Train, decide},
    trigger::{SeenRef, Trigger},
};

/// What one input stores beside its events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    pub(crate) events: Vec<Event>,
    pub(crate) finished: Option<String>,
    pub(crate) ask: Vec<Effect>,
    pub(crate) refs: Vec<(String, SeenRef)>,
}

impl Input {
    pub(crate) fn event(event: Event) -> Self {
        Self { events: vec![event], ..Self::default() }
    }
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) service: Service,
    pub(crate) train: Train,
    pub(crate) runs: BTreeMap<u32, Run>,
    pub(crate) releases: BTreeMap<u32, Release>,
    pub(crate) approvals: BTreeMap<u32, Approval>,
    pub(crate) rollouts: BTreeMap<u32, Rollout>,
    pub(crate) effects: BTreeMap<String, PendingEffect>,
    pub(crate) refs: BTreeMap<String, SeenRef>,
    pub(crate) deliveries: BTreeMap<u64, Trigger>,
    last_entry: u64,
    last_journalled: u64,
}

/// The store seen through changes that are decided and not stored yet.
struct Overlay<'a> {
    store: &'a Store,
    decided: &'a [Change],
}

macro_rules! read_through {
    ($self:ident, $map:ident, $id:ident) => {{
        let decided = $self.decided.iter().rev().find_map(|change| change.$map.get(&$id.number));
        Ok(decided.or_else(|| $self.store.$map.get(&$id.number)).cloned())
    }};
}

impl Records for Overlay<'_> {
    fn run(&self, id: &RunId) -> Result<Option<Run>, Refusal> {
        read_through!(self, runs, id)
    }

    fn release(&self, id: &ReleaseId) -> Result<Option<Release>, Refusal> {
        read_through!(self, releases, id)
    }

    fn approval(&self, id: &ReleaseId) -> Result<Option<Approval>, Refusal> {
        read_through!(self, approvals, id)
    }

    fn rollout(&self, id: &RolloutId) -> Result<Option<Rollout>, Refusal> {
        read_through!(self, rollouts, id)
    }
}

impl Store {
    /// A service that was just registered: its first poll is pending.
    pub(crate) fn new(service: Service) -> Self {
        let poll = Effect::PollRepository { service: service.name.clone(), due_at: UnixMs(0) };
        let mut store = Self {
            train: Train::new(service.name.clone()),
            service,
            runs: BTreeMap::new(),
            releases: BTreeMap::new(),
            approvals: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            effects: BTreeMap::new(),
            refs: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            last_entry: 1,
            last_journalled: 1,
        };
        store.add_effect(poll, 1, UnixMs(0));
        store
    }

    /// The server starts anew: numbers that were given to changes without a line in the journal are given again.
    pub(crate) fn reopen(&mut self) {
        self.last_entry = self.last_journalled;
    }

    /// Decides and stores an input whole, or nothing of it.
    pub(crate) fn apply(&mut self, at: UnixMs, input: &Input) -> Result<(), Refusal> {
        let mut train = self.train.clone();
        let mut decided: Vec<Change> = Vec::with_capacity(input.events.len());
        for event in &input.events {
            let overlay = Overlay { store: self, decided: &decided };
            let change = decide(&self.service, &train, &overlay, event, at)?;
            train.clone_from(&change.train);
            decided.push(change);
        }
        if let Some(key) = &input.finished {
            self.effects.remove(key);
        }
        let mut seq = self.next_entry();
        for change in decided {
            for _ in &change.notes {
                seq = self.next_entry();
                self.last_journalled = seq;
            }
            self.train = change.train;
            self.runs.extend(change.runs);
            self.releases.extend(change.releases);
            self.approvals.extend(change.approvals);
            self.rollouts.extend(change.rollouts);
            for key in &change.withdraw {
                self.effects.remove(key);
            }
            for effect in change.ask {
                self.add_effect(effect, seq, at);
            }
        }
        for effect in &input.ask {
            self.add_effect(effect.clone(), seq, at);
        }
        self.refs.extend(input.refs.iter().cloned());
        Ok(())
    }

    /// A hook, recorded before it is answered.
    pub(crate) fn record_delivery(&mut self, trigger: Trigger, at: UnixMs) {
        let id = self.deliveries.len() as u64 + 1;
        self.deliveries.insert(id, trigger);
        self.add_effect(Effect::ProcessDelivery { delivery: id, service: self.service.name.clone() }, 0, at);
    }

    /// A try failed: the effect waits, twice as long each time.
    pub(crate) fn retry(&mut self, key: &str, pending: &PendingEffect, why: &str, at: UnixMs) {
        let wait_ms = 1_000_u64.saturating_mul(1 << pending.failures.min(20)).min(60_000);
        let next = PendingEffect {
            failures: pending.failures + 1,
            not_before: at.plus_ms(wait_ms),
            last_error: Some(why.to_owned()),
            ..pending.clone()
        };
        self.effects.insert(key.to_owned(), next);
    }

    pub(crate) fn running(&self) -> Option<&Rollout> {
        self.rollouts.get(&self.train.rollout?)
    }

    pub(crate) fn live(&self) -> Option<&Release> {
        self.releases.get(&self.train.live?)
    }

    fn next_entry(&mut self) -> u64 {
        self.last_entry += 1;
        self.last_entry
    }

    fn add_effect(&mut self, effect: Effect, asked_by: u64, at: UnixMs) {
        let not_before = effect.due_at();
        let pending = PendingEffect { asked_by, asked_at: at, failures: 0, not_before, last_error: None, effect };
        self.effects.insert(pending.effect.key(), pending);
    }
}
