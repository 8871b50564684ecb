//! What survives a crash: the records of one service and its pending effects, changed as `server::store` changes them:
//! a whole input in one step, the finished effect out, the withdrawn ones out, the new ones in by key. Not here: who asks.

use std::collections::BTreeMap;

use pipelines::{
    approval::Approval,
    effect::{Effect, PendingEffect},
    ids::{CommitSha, ReleaseId, RolloutId, RunId},
    release::Release,
    rollout::Rollout,
    run::Run,
    service::Service,
    time::UnixMs,
    train::{Change, Event, Records, Refusal, Train, decide},
    trigger::{SeenRef, Trigger},
};

use crate::{
    machines::{Machine, train_event_word, train_word},
    stats::Pair,
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

#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) service: Service,
    pub(crate) train: Train,
    pub(crate) runs: BTreeMap<u32, Run>,
    pub(crate) releases: BTreeMap<u32, Release>,
    pub(crate) approvals: BTreeMap<u32, Approval>,
    pub(crate) rollouts: BTreeMap<u32, Rollout>,
    pub(crate) effects: BTreeMap<String, PendingEffect>,
    pub(crate) refs: BTreeMap<String, SeenRef>,
    /// What each hook says, and from where the ref came.
    pub(crate) deliveries: BTreeMap<u64, (Trigger, Option<CommitSha>)>,
    /// Which event met which state.
    pub(crate) reached: BTreeMap<Pair, u64>,
    last_entry: u64,
    last_journalled: u64,
    /// Where nothing is flushed: what the disk has.
    on_disk: Option<Box<Store>>,
    flushes: bool,
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
    pub(crate) fn new(service: Service, flushes: bool) -> Self {
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
            reached: BTreeMap::new(),
            last_entry: 1,
            last_journalled: 1,
            on_disk: None,
            flushes,
        };
        store.add_effect(poll, 1, UnixMs(0));
        store
    }

    /// The server starts anew: numbers that were given to changes without a line in the journal are given again, but for
    /// those of effects that are pending. What was not flushed may be lost.
    pub(crate) fn reopen(&mut self, lost: bool) {
        if let Some(on_disk) = self.on_disk.take().filter(|_| lost) {
            *self = *on_disk;
        }
        let asked_by = self.effects.values().map(|pending| pending.asked_by).max().unwrap_or_default();
        self.last_entry = self.last_journalled.max(asked_by);
    }

    /// Before something is written without being flushed.
    fn not_flushed(&mut self) {
        if !self.flushes {
            self.on_disk = None;
            self.on_disk = Some(Box::new(self.clone()));
        }
    }

    fn decide(&self, train: &Train, decided: &[Change], event: &Event, at: UnixMs) -> Result<Change, Refusal> {
        decide(&self.service, train, &Overlay { store: self, decided }, event, at)
    }

    /// Decides and stores an input whole, or nothing of it.
    pub(crate) fn apply(&mut self, at: UnixMs, input: &Input) -> Result<(), Refusal> {
        let mut train = self.train.clone();
        let mut decided: Vec<Change> = Vec::with_capacity(input.events.len());
        for event in &input.events {
            let met = self.meeting(&train, &decided, event);
            let change = self.decide(&train, &decided, event, at);
            if let Some(met) = met {
                *self.reached.entry(met).or_default() += 1;
            }
            let change = change?;
            train.clone_from(&change.train);
            decided.push(change);
        }
        self.not_flushed();
        self.keep(at, decided, input);
        Ok(())
    }

    /// What two events come to that are decided on the same state, each without knowing of the other.
    pub(crate) fn apply_at_once(&mut self, at: UnixMs, events: [&Event; 2]) {
        let changes = events.map(|event| self.decide(&self.train, &[], event, at));
        for change in changes.into_iter().flatten() {
            self.keep(at, vec![change], &Input::default());
        }
    }

    /// Whether `event` would change anything.
    pub(crate) fn would_change(&self, event: &Event, at: UnixMs) -> bool {
        let Ok(change) = self.decide(&self.train, &[], event, at) else { return false };
        change.train != self.train
            || change.runs.iter().any(|(number, record)| self.runs.get(number) != Some(record))
            || change.releases.iter().any(|(number, record)| self.releases.get(number) != Some(record))
            || change.approvals.iter().any(|(number, record)| self.approvals.get(number) != Some(record))
            || change.rollouts.iter().any(|(number, record)| self.rollouts.get(number) != Some(record))
    }

    /// Notes that `event` meets what it is for.
    pub(crate) fn note_meeting(&mut self, event: &Event) {
        if let Some(met) = self.meeting(&self.train, &[], event) {
            *self.reached.entry(met).or_default() += 1;
        }
    }

    /// Which state the event meets, if there is what it is for.
    fn meeting(&self, train: &Train, decided: &[Change], event: &Event) -> Option<Pair> {
        macro_rules! state {
            ($map:ident, $number:ident) => {
                decided
                    .iter()
                    .rev()
                    .find_map(|change| change.$map.get($number))
                    .or_else(|| self.$map.get($number))
                    .map(|record| record.state.word())
            };
        }
        Some(match event {
            Event::Run { number, event } => (Machine::Run, state!(runs, number)?, event.word()),
            Event::Release { number, event } => (Machine::Release, state!(releases, number)?, event.word()),
            Event::Approval { number, event } => (Machine::Approval, state!(approvals, number)?, event.word()),
            Event::Rollout { number, event } => (Machine::Rollout, state!(rollouts, number)?, event.word()),
            own => {
                let rollout = train.rollout.and_then(|number| {
                    let decided = decided.iter().rev().find_map(|change| change.rollouts.get(&number));
                    decided.or_else(|| self.rollouts.get(&number))
                });
                (Machine::Train, train_word(train, rollout), train_event_word(own)?)
            }
        })
    }

    /// What follows within one change: the machines that moved because another did.
    fn note_moves(&mut self, change: &Change) {
        let mut met = |pair: Pair| *self.reached.entry(pair).or_default() += 1;
        for note in &change.notes {
            let Some((before, _)) = note.change.filter(|(before, _)| !before.is_empty()) else { continue };
            if note.subject.starts_with("release ") {
                met((Machine::Release, before, note.word));
            } else if note.subject.starts_with("rollout ") && note.word == "rollout_abort" {
                met((Machine::Rollout, before, note.word));
            }
        }
        for (number, approval) in &change.approvals {
            let Some(before) = self.approvals.get(number).map(|approval| approval.state.word()) else { continue };
            match approval.state.word() {
                "superseded" if before != "superseded" => met((Machine::Approval, before, "approval_superseded")),
                "open" if before == "expired" => met((Machine::Approval, before, "approval_reopened")),
                _ => {}
            }
        }
    }

    fn keep(&mut self, at: UnixMs, decided: Vec<Change>, input: &Input) {
        if let Some(key) = &input.finished {
            self.effects.remove(key);
        }
        let mut seq = self.next_entry();
        for change in decided {
            self.note_moves(&change);
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
    }

    /// A hook, recorded before it is answered.
    pub(crate) fn record_delivery(&mut self, trigger: Trigger, from: Option<CommitSha>, at: UnixMs) {
        self.not_flushed();
        let id = self.deliveries.len() as u64 + 1;
        self.deliveries.insert(id, (trigger, from));
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
