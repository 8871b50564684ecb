//! Incoming hooks: recorded first, looked at afterwards; and what polling found. Both end in the same events.
//! Not here: reading a forge's JSON and checking its signature (`http::webhooks`).

use std::collections::BTreeMap;

use pipelines::{
    effect::Effect,
    ids::{CommitSha, ServiceName, TraceParent},
    journal::{Channel, Origin},
    service::Service,
    time::UnixMs,
    train::Event,
    trigger::{HookNews, Trigger, TriggerKind, TriggerSource, hook_news, settled},
};

use super::{
    App, AppError,
    trains::{Extras, Outcome},
};
use crate::store::{
    Delivery, DeliveryId, DeliveryState, NewDelivery, Recorded, SeenRef, StoreError, engine::EngineError,
    records::HookContent,
};

/// Why a hook made no run, where only the repository knows whether there is something to run.
pub const ASKED: &str = "the repository was asked where the branch is now";

/// Hooks that are looked at together at most.
const HOOKS_AT_ONCE: usize = 64;

/// What a hook told that was not known.
#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    refs: Vec<(String, Option<SeenRef>)>,
    /// Why it makes no run, as far as it makes none.
    reasons: Vec<String>,
    /// Only the repository knows what it means.
    asks: bool,
}

impl Heard {
    fn is_nothing(&self) -> bool {
        self.events.is_empty() && self.refs.is_empty() && !self.asks
    }

    fn state(&self) -> DeliveryState {
        if self.events.is_empty() {
            return DeliveryState::Ignored { reason: self.reasons.join("; ") };
        }
        // The number is filled in when the run is made.
        DeliveryState::Ran { run: 0 }
    }
}

/// What `ls-remote` told.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Branches and tags with the commits they are at (of an annotated tag: the commit it points to).
    pub refs: BTreeMap<String, CommitSha>,
    /// The branch that the repository calls its default.
    pub default_branch: Option<String>,
}

impl App {
    /// Records a hook.
    ///
    /// # Errors
    /// When the store does not take it: the forge must be told that it was not taken.
    pub async fn delivery_record(&self, delivery: NewDelivery) -> Result<Recorded, AppError> {
        if delivery.content.is_ok() {
            self.room_for_new_work()?;
        }
        let service = delivery.service.clone();
        let answer = match self.store.delivery_record(delivery.clone()).await {
            // The same delivery came twice at once, and the other one was first: now it is known as a repeat.
            Err(StoreError::Engine(EngineError::Conflict { .. })) => self.store.delivery_record(delivery).await?,
            answer => answer?,
        };
        let (recorded, effects) = answer;
        self.queue.take(effects);
        self.tell(&service, "delivery".into());
        Ok(recorded)
    }

    /// Whether one more refused hook of this service is to be listed: anybody can send them, so only so many are.
    #[must_use]
    pub fn may_list_refused(&self, service: &ServiceName) -> bool {
        self.throttles.refused_hooks.count(service.as_str(), self.now()).is_ok()
    }

    /// Hooks of a service, newest first, with a place below `before`.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn deliveries(
        &self,
        service: &ServiceName,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, AppError> {
        self.service(service)?;
        Ok(self.store.deliveries(service, before, limit)?)
    }

    fn delivery_changes(&self, id: DeliveryId) -> Result<Vec<HookContent>, AppError> {
        let content = self.store.delivery(id)?.and_then(|delivery| delivery.content);
        Ok(match content {
            Some(HookContent::Several { all }) => all,
            one => one.into_iter().collect(),
        })
    }

    /// Whether the repository has to be asked where a pull request is, before [`App::delivery_outcome`] can decide.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn delivery_asks(&self, service: &ServiceName, id: DeliveryId) -> Result<bool, AppError> {
        let known: BTreeMap<String, SeenRef> = self.store.refs(service)?.into_iter().collect();
        Ok(self.delivery_changes(id)?.iter().any(|one| match one {
            HookContent::Trigger { trigger, from } => {
                let news = hook_news(known.get(&trigger.git_ref), trigger, from.as_ref());
                trigger.kind == TriggerKind::PullRequest && news == HookNews::Unclear
            }
            _ => false,
        }))
    }

    /// Decides what a recorded hook asks for, for the driver. `now_at` is where the repository has the refs of pull
    /// requests, where it was asked. Hooks of the same service that came after it and ask for nothing end with it, up to
    /// the first one that asks for something: a flood of them costs one change for many.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn delivery_outcome(
        &self,
        service: &ServiceName,
        id: DeliveryId,
        now_at: &BTreeMap<String, CommitSha>,
    ) -> Result<Outcome, AppError> {
        let mut known: BTreeMap<String, SeenRef> = self.store.refs(service)?.into_iter().collect();
        let Some(heard) = self.heard(id, &mut known, Some(now_at))? else { return Ok(Outcome::done()) };
        // What the repository then says makes the run, if there is one to make.
        let ask = heard.asks.then(|| Effect::PollRepository { service: service.clone(), due_at: self.now() });
        let key = Effect::ProcessDelivery { delivery: id, service: service.clone() }.key();
        let mut also = Vec::new();
        for (key, pending) in self.queue.hooks_after(service, &key, HOOKS_AT_ONCE) {
            let Effect::ProcessDelivery { delivery, .. } = pending.effect else { break };
            // For those the repository was not asked: one that needs it is looked at by itself.
            match self.heard(delivery, &mut known, None)? {
                Some(next) if next.is_nothing() => also.push((key, pending, delivery, next.state())),
                _ => break,
            }
        }
        let (state, asks) = (heard.state(), ask.into_iter().collect());
        let delivery = Some((id, state));
        let origin = self.store.delivery(id)?.as_ref().map(hook_origin);
        let extras = Extras { delivery, refs: heard.refs, ask: asks, also, origin, ..Extras::default() };
        Ok(Outcome::Done(heard.events, Box::new(extras)))
    }

    /// What a recorded hook tells that is not in `known`, which then knows it; none: there is nothing of it.
    fn heard(
        &self,
        id: DeliveryId,
        known: &mut BTreeMap<String, SeenRef>,
        now_at: Option<&BTreeMap<String, CommitSha>>,
    ) -> Result<Option<Heard>, AppError> {
        let all = self.delivery_changes(id)?;
        if all.is_empty() {
            return Ok(None);
        }
        let mut heard = Heard::default();
        for one in all {
            match one {
                HookContent::Nothing { reason } => heard.reasons.push(reason),
                HookContent::Several { .. } => heard.reasons.push("a hook within a hook".into()),
                HookContent::Moved { .. } => heard.asks = true,
                HookContent::Deleted { git_ref } => {
                    heard.reasons.push(format!("{git_ref} was deleted"));
                    known.remove(&git_ref);
                    heard.refs.push((git_ref, None));
                }
                HookContent::Trigger { trigger, from } => {
                    let seen = known.get(&trigger.git_ref);
                    let at = now_at.and_then(|now_at| now_at.get(&trigger.git_ref));
                    let next = match hook_news(seen, &trigger, from.as_ref()) {
                        HookNews::Unclear if trigger.kind != TriggerKind::PullRequest || now_at.is_none() => {
                            heard.asks = true;
                            continue;
                        }
                        HookNews::Unclear => settled(seen, &trigger, at),
                        HookNews::Known => None,
                        HookNews::Next => Some(trigger.clone()),
                    };
                    let Some(trigger) = next else {
                        let at = at.unwrap_or(&trigger.commit);
                        heard.reasons.push(format!("{} at {} was seen before", trigger.ref_name(), at.short()));
                        continue;
                    };
                    let (git_ref, next) = moved(&trigger.git_ref, &trigger.commit, seen);
                    known.extend(next.clone().map(|next| (git_ref.clone(), next)));
                    heard.refs.push((git_ref, next));
                    heard.events.push(Event::Triggered { trigger, rerun_of: None, hold: self.config.hold });
                }
            }
        }
        if heard.asks {
            heard.reasons.push(ASKED.to_owned());
        }
        Ok(Some(heard))
    }

    /// Decides what a poll found, for the driver: new triggers, the refs as they are now, and the next poll. On the first
    /// poll only the release branch runs: nobody wants a run for each old branch and tag.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn poll_outcome(
        &self,
        name: &ServiceName,
        listed: &Listed,
        learnt_host_key: Option<String>,
    ) -> Result<Outcome, AppError> {
        let mut service = self.service(name)?;
        let mut service_changed = false;
        if listed.default_branch.is_some() && service.default_branch != listed.default_branch {
            service.default_branch.clone_from(&listed.default_branch);
            service_changed = true;
        }
        if let Some(line) = learnt_host_key.filter(|_| service.known_hosts.is_empty()) {
            service.known_hosts.push(line);
            service_changed = true;
        }
        let known: BTreeMap<String, SeenRef> = self.store.refs(name)?.into_iter().collect();
        let is_first = known.is_empty();
        let release_ref = format!("refs/heads/{}", service.effective_release_branch());
        let mut refs = Vec::new();
        let mut events = Vec::new();
        let runs_max = self.runs_at_once(name);
        let mut left_for_later = false;
        // The release branch first, so that no number of others keeps it waiting.
        let release = listed.refs.get_key_value(&release_ref);
        for (git_ref, commit) in release.into_iter().chain(listed.refs.iter().filter(|(name, _)| **name != release_ref))
        {
            let seen = known.get(git_ref);
            if seen.is_some_and(|seen| seen.commit == *commit) {
                continue;
            }
            if events.len() >= runs_max {
                // Not noted as seen: a later poll finds it again.
                left_for_later = true;
                break;
            }
            refs.push(moved(git_ref, commit, seen));
            if !is_first || *git_ref == release_ref {
                events.push(Event::Triggered {
                    trigger: Trigger::of_ref(git_ref, commit.clone(), TriggerSource::Poll),
                    rerun_of: None,
                    hold: self.config.hold,
                });
            }
        }
        let is_listed = |name: &str| name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
        refs.extend(
            known
                .keys()
                .filter(|name| is_listed(name) && !listed.refs.contains_key(*name))
                .map(|name| (name.clone(), None)),
        );
        let mut ask = next_poll(&service, self.now());
        if left_for_later && ask.is_empty() {
            let due_at = self.now().plus_ms(self.config.bounds.retry_max_ms);
            ask.push(Effect::PollRepository { service: name.clone(), due_at });
        }
        let extras = Extras { refs, ask, service: service_changed.then_some(service), ..Extras::default() };
        Ok(Outcome::Done(events, Box::new(extras)))
    }

    /// A person wants a run of a ref, now.
    ///
    /// # Errors
    /// When there is no such service, or the ref is not known from the last poll.
    pub async fn run_create(
        &self,
        name: &ServiceName,
        git_ref: Option<String>,
        origin: Origin,
        traceparent: Option<TraceParent>,
    ) -> Result<pipelines::ids::RunId, AppError> {
        let service = self.service(name)?;
        self.room_for_runs(name)?;
        let wanted = git_ref.unwrap_or_else(|| service.effective_release_branch().to_owned());
        let known: BTreeMap<String, SeenRef> = self.store.refs(name)?.into_iter().collect();
        let candidates = [wanted.clone(), format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}")];
        let found = candidates.iter().find_map(|candidate| known.get_key_value(candidate));
        let Some((git_ref, seen)) = found else {
            return Err(AppError::Invalid(format!(
                "{wanted} is not a branch or tag that Windlass has seen in the repository"
            )));
        };
        let trigger = Trigger {
            kind: TriggerKind::Manual,
            requested_by: Some(origin.actor.clone()),
            traceparent,
            ..Trigger::of_ref(git_ref, seen.commit.clone(), TriggerSource::Person)
        };
        let applied = self
            .train_event(name, origin, Event::Triggered { trigger, rerun_of: None, hold: self.config.hold })
            .await?;
        applied.runs.into_iter().next().ok_or_else(|| AppError::Invalid("no run was made".into()))
    }
}

/// The next poll of a service, unless polling is off.
#[must_use]
pub fn next_poll(service: &Service, now: UnixMs) -> Vec<Effect> {
    if service.poll_interval_ms == 0 {
        return Vec::new();
    }
    vec![Effect::PollRepository { service: service.name.clone(), due_at: now.plus_ms(service.poll_interval_ms) }]
}

/// The origin of what a hook does.
fn hook_origin(delivery: &Delivery) -> Origin {
    let proof = format!("delivery {}", delivery.id);
    Origin::new(&delivery.forge, Channel::Hook).from_place(&delivery.remote).proved_by(proof)
}

fn moved(git_ref: &str, commit: &CommitSha, seen: Option<&SeenRef>) -> (String, Option<SeenRef>) {
    let next = seen.map_or_else(|| SeenRef::first(commit.clone()), |seen| seen.moved(commit.clone()));
    (git_ref.to_owned(), Some(next))
}
