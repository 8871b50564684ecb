//! Applying events to a train: read, decide by the domain, store with effects in one transaction, tell.
//! The one way by which runs, releases, approvals and rollouts change.

use pipelines::{
    approval::Approval,
    effect::{Effect, EffectKind, PendingEffect},
    ids::{ReleaseId, RolloutId, RunId, ServiceName},
    journal::Origin,
    release::Release,
    rollout::Rollout,
    run::{Run, RunEvent, RunState},
    service::Service,
    time::UnixMs,
    train::{Change, Event, Records, Refusal, Train, decide},
};

use super::{
    App, AppError,
    agents::is_last,
    observed::{Observed, observed},
};
use crate::{
    crash,
    store::{DeliveryId, DeliveryState, SeenRef, Store, TrainChange},
};

/// The store seen through changes that are decided and not stored yet.
struct Overlay<'a> {
    store: &'a dyn Store,
    decided: &'a [Change],
}

macro_rules! read_through {
    ($self:ident, $map:ident, $read:ident, $id:ident) => {{
        if let Some(record) = $self.decided.iter().rev().find_map(|change| change.$map.get(&$id.number)) {
            return Ok(Some(record.clone()));
        }
        $self.store.$read($id).map_err(|error| Refusal::Lookup(Box::new(error)))
    }};
}

impl Records for Overlay<'_> {
    fn run(&self, id: &RunId) -> Result<Option<Run>, Refusal> {
        read_through!(self, runs, run, id)
    }

    fn release(&self, id: &ReleaseId) -> Result<Option<Release>, Refusal> {
        read_through!(self, releases, release, id)
    }

    fn approval(&self, id: &ReleaseId) -> Result<Option<Approval>, Refusal> {
        read_through!(self, approvals, approval, id)
    }

    fn rollout(&self, id: &RolloutId) -> Result<Option<Rollout>, Refusal> {
        read_through!(self, rollouts, rollout, id)
    }
}

/// What is stored together with the events of one input.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The effect whose outcome this is.
    pub finished_effect: Option<String>,
    /// Further effects.
    pub ask: Vec<Effect>,
    /// What became of a delivery; a run's number is filled in where the events made one.
    pub delivery: Option<(DeliveryId, DeliveryState)>,
    /// Further deliveries that ask for nothing and end with it, with their effects and what became of them.
    pub also: Vec<(String, PendingEffect, DeliveryId, DeliveryState)>,
    /// Refs as they were seen.
    pub refs: Vec<(String, Option<SeenRef>)>,
    /// The service's record, where it changed too.
    pub service: Option<Service>,
    /// Who asked for what a driver reports; none: the server itself.
    pub origin: Option<Origin>,
}

/// What an input did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Runs that it made.
    pub runs: Vec<RunId>,
}

/// What a driver says when it has performed an effect.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// These things happened on the train; with what is stored beside them. No event: it is just done.
    Done(Vec<Event>, Box<Extras>),
    /// The world did not let it; try again later.
    Retry(String),
}

impl Outcome {
    /// One event happened.
    #[must_use]
    pub fn event(event: Event) -> Self {
        Self::Done(vec![event], Box::default())
    }

    /// It is done, and nothing else follows.
    #[must_use]
    pub fn done() -> Self {
        Self::Done(Vec::new(), Box::default())
    }
}

impl App {
    /// A service.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn service(&self, name: &ServiceName) -> Result<Service, AppError> {
        self.store.service(name)?.ok_or_else(|| AppError::NotFound { what: "service", id: name.to_string() })
    }

    /// What moves on a service.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn train(&self, name: &ServiceName) -> Result<Train, AppError> {
        self.store.train(name)?.ok_or_else(|| AppError::NotFound { what: "service", id: name.to_string() })
    }

    /// Applies one event.
    ///
    /// # Errors
    /// When the domain refuses it or the store does not take it; then nothing has changed.
    pub async fn train_event(&self, service: &ServiceName, origin: Origin, event: Event) -> Result<Applied, AppError> {
        let lock = self.lock_of(service);
        let _held = lock.lock().await;
        self.apply_locked(service, origin, vec![event], Extras::default()).await
    }

    /// Several events of one input, in one transaction; `make` sees the train as it is when it is their turn.
    ///
    /// # Errors
    /// As [`App::train_event`].
    pub async fn train_input(
        &self,
        service: &ServiceName,
        origin: Origin,
        make: impl FnOnce(&dyn Store) -> Result<(Vec<Event>, Extras), AppError>,
    ) -> Result<Applied, AppError> {
        let lock = self.lock_of(service);
        let _held = lock.lock().await;
        let (events, extras) = make(&*self.store)?;
        self.apply_locked(service, origin, events, extras).await
    }

    /// Stores what a driver says of an effect. If the effect is no longer wanted as it was asked for, what it says is
    /// dropped: the asking that replaced it will be performed by itself.
    ///
    /// # Errors
    /// When the store does not take it: the effect stays pending and will be performed again.
    pub async fn effect_outcome(&self, key: &str, pending: &PendingEffect, outcome: Outcome) -> Result<(), AppError> {
        let service = pending.effect.service().clone();
        let lock = self.lock_of(&service);
        let _held = lock.lock().await;
        if !self.queue.is_wanted(key, pending) {
            tracing::info!(effect = key, "no longer wanted, its outcome is dropped");
            return Ok(());
        }
        match outcome {
            Outcome::Retry(error) => self.effect_retry(key, pending, error).await,
            Outcome::Done(events, extras) => {
                let mut extras = Extras { finished_effect: Some(key.to_owned()), ..*extras };
                extras.also.retain(|(key, pending, ..)| self.queue.is_wanted(key, pending));
                let origin = extras.origin.clone().unwrap_or_else(Origin::server);
                match self.apply_locked(&service, origin, events, extras).await {
                    // It came too late for the state: the effect is over all the same.
                    Err(AppError::Refused(refusal)) if !matches!(refusal, Refusal::Lookup(_)) => {
                        tracing::info!(effect = key, %refusal, "the outcome came too late");
                        let extras = Extras { finished_effect: Some(key.to_owned()), ..Extras::default() };
                        self.apply_locked(&service, Origin::server(), Vec::new(), extras).await.map(|_| ())
                    }
                    answer => answer.map(|_| ()),
                }
            }
        }
    }

    async fn effect_retry(&self, key: &str, pending: &PendingEffect, error: String) -> Result<(), AppError> {
        let bounds = &self.config.bounds;
        let doubled = bounds.retry_first_ms.saturating_mul(1 << pending.failures.min(20));
        let next = PendingEffect {
            failures: pending.failures.saturating_add(1),
            not_before: self.now().plus_ms(doubled.min(bounds.retry_max_ms)),
            last_error: Some(error.chars().take(1_000).collect()),
            ..pending.clone()
        };
        tracing::warn!(effect = key, failures = next.failures, error = next.last_error, "will be tried again");
        self.store.effect_retry(key, &next).await?;
        self.queue.retry(key, next);
        self.tell(pending.effect.service(), "effect".into());
        Ok(())
    }

    async fn apply_locked(
        &self,
        service: &ServiceName,
        origin: Origin,
        events: Vec<Event>,
        extras: Extras,
    ) -> Result<Applied, AppError> {
        if events.iter().any(|event| matches!(event, Event::Triggered { .. })) {
            self.room_for_new_work()?;
        }
        let at = self.now();
        let mut applied = Applied::default();
        let mut seen: Vec<Observed> = Vec::new();
        // Most outcomes of hooks and polls ask for nothing: then nothing is read for a decision.
        let decided = if events.is_empty() {
            Vec::new()
        } else {
            self.decide_all(service, extras.service.as_ref(), &events, at, &mut applied, &mut seen)?
        };
        let delivery = extras.delivery.map(|(id, state)| match (state, applied.runs.first()) {
            (DeliveryState::Ran { .. }, Some(run)) => (id, DeliveryState::Ran { run: run.number }),
            (state, _) => (id, state),
        });
        let mut told = changed_things(&decided, delivery.is_some() || extras.service.is_some());
        if extras.finished_effect.as_deref().is_some_and(|key| key.starts_with("send-")) {
            told.push("mail".into());
        }
        let traced = self.traces.touched(service, &decided);
        let waits_again =
            decided.iter().flat_map(|change| change.runs.values()).any(|run| run.state == RunState::Queued);
        let mut change = TrainChange::new(service.clone(), origin, at);
        change.changes = decided;
        change.finished_effect = extras.finished_effect;
        change.ask = extras.ask;
        change.delivery = delivery;
        change.also = extras.also.into_iter().map(|(key, _, id, state)| (key, id, state)).collect();
        change.refs = extras.refs;
        change.service_record = extras.service;
        if let Some(key) = change.finished_effect.as_deref().and_then(|key| key.split('/').next()) {
            crash::point(key, "storing");
        }
        // A runner's effect ends with its last report.
        if events.iter().any(ends_run) {
            crash::point(EffectKind::ExecuteRun.word(), "storing");
        }
        let effects = self.store.train_change(change).await?;
        self.queue.take(effects);
        seen.iter().for_each(|seen| self.metrics.observed(seen));
        self.traces.note(traced, at);
        if waits_again {
            self.work_for_runners.notify_waiters();
        }
        for what in told {
            self.tell(service, what);
        }
        Ok(applied)
    }

    fn decide_all(
        &self,
        service: &ServiceName,
        changed: Option<&Service>,
        events: &[Event],
        at: UnixMs,
        applied: &mut Applied,
        seen: &mut Vec<Observed>,
    ) -> Result<Vec<Change>, AppError> {
        let record = changed.map_or_else(|| self.service(service), |changed| Ok(changed.clone()))?;
        let mut train = self.train(service)?;
        let mut decided: Vec<Change> = Vec::with_capacity(events.len());
        for event in events {
            let overlay = Overlay { store: &*self.store, decided: &decided };
            let change = decide(&record, &train, &overlay, event, at)?;
            if matches!(event, Event::Triggered { .. }) {
                // The new one has the last number; others may have made room for it.
                applied.runs.extend(change.runs.values().next_back().map(|run| run.id.clone()));
            }
            train = change.train.clone();
            seen.extend(observed(&overlay, &change, at));
            decided.push(change);
        }
        Ok(decided)
    }

    /// When the effect may next be tried, with what went wrong: for the pages.
    #[must_use]
    pub fn effect_trouble(&self, effect: &Effect) -> Option<(String, UnixMs)> {
        let pending = self.queue.get(&effect.key())?;
        pending.last_error.map(|error| (error, pending.not_before))
    }
}

fn ends_run(event: &Event) -> bool {
    matches!(event, Event::Run { event: RunEvent::Reported { report, .. }, .. } if is_last(report))
}

fn changed_things(decided: &[Change], service_too: bool) -> Vec<String> {
    let mut things = Vec::new();
    for change in decided {
        things.extend(change.runs.keys().map(|number| format!("run/{number}")));
        things.extend(change.releases.keys().map(|number| format!("release/{number}")));
        things.extend(change.approvals.keys().map(|number| format!("release/{number}")));
        things.extend(change.rollouts.keys().map(|number| format!("rollout/{number}")));
    }
    if service_too {
        things.push("service".into());
    }
    things.sort();
    things.dedup();
    things
}
