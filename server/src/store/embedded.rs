//! The [`Store`] on an embedded engine: which noun lies in which table under which key, and which records one change
//! writes together. Values are JSON in a versioned envelope. Not here: files and flushes (`engine`).

mod forget;
mod generations;
mod journal;
mod runners;
mod secrets;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pipelines::{
    approval::Approval,
    effect::{Effect, PendingEffect},
    ids::{Digest, ReleaseId, RolloutId, RunId, RunnerName, SecretName, ServiceName},
    journal::{
        Entry,
        chain::{Head, Mark, Misfit, Walked},
    },
    release::Release,
    rollout::Rollout,
    run::Run,
    service::Service,
    train::Train,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use generations::Generations;

use super::{
    Account, CommitTimes, Delivery, DeliveryId, DeliveryState, EffectsChanged, Forget, NamedSecret, NewDelivery,
    NewEntry, Page, Recorded, RunnerRecord, RunnerToken, SealedAnew, SealedSecrets, SecretScope, SecretUse, SeenRef,
    Session, Store, StoreError, Stored, Token, TrainChange, audit,
    engine::{Batch, Direction, Engine, KeyRange, Table},
    tables::{
        ACCOUNTS, APPROVALS, DELIVERIES, DELIVERIES_BY_FORGE_ID, DELIVERIES_BY_SERVICE, EFFECTS, IMAGES, JOURNAL,
        JOURNAL_HEAD, REFS, RELEASES, ROLLOUTS, RUNNER_TOKENS, RUNS, SECRETS, SERVICES, SESSIONS, TOKENS, TRAINS,
    },
    versions::{self, STORE_VERSION},
};

/// More than this many of anything are not listed at once.
const LIST_MAX: usize = 100_000;

#[derive(Serialize)]
struct EnvelopeOut<'a, T> {
    v: u32,
    d: &'a T,
}

#[derive(Deserialize)]
struct EnvelopeIn<T> {
    v: u32,
    d: T,
}

pub(super) fn pack<T: Serialize>(table: Table, record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&EnvelopeOut { v: STORE_VERSION, d: record })
        .map_err(|error| StoreError::Record { table: table.name(), why: error.to_string() })
}

pub(super) fn unpack<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    let wrong = |why: String| StoreError::Record { table: table.name(), why };
    let envelope: EnvelopeIn<T> = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if envelope.v > STORE_VERSION {
        return Err(wrong(format!("it was written by a newer Windlass (record version {})", envelope.v)));
    }
    Ok(envelope.d)
}

/// `service`, a zero byte (which no service name holds), and the rest: so that one service's keys lie together.
pub(super) fn under(service: &ServiceName, rest: &[u8]) -> Vec<u8> {
    let mut key = service.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(rest);
    key
}

pub(super) fn numbered(service: &ServiceName, number: u32) -> Vec<u8> {
    under(service, &number.to_be_bytes())
}

/// The store on an engine.
#[derive(Debug)]
pub struct EmbeddedStore {
    engine: Arc<dyn Engine>,
    /// Counts changes: what asked for an effect is known by it.
    last_change: AtomicU64,
    last_delivery: AtomicU64,
    generations: Generations,
}

impl EmbeddedStore {
    /// Opens the store on `engine`; an older one is brought to the present version first.
    ///
    /// # Errors
    /// When it cannot be read; [`StoreError::Newer`], and then nothing of it was changed.
    pub fn open(engine: Arc<dyn Engine>) -> Result<Self, StoreError> {
        versions::bring_up(&*engine)?;
        let last = |table| -> Result<u64, StoreError> {
            let newest = engine.scan(table, &KeyRange::all(), Direction::Backward, 1)?;
            Ok(newest.first().and_then(|(key, _)| key.as_slice().try_into().ok()).map_or(0, u64::from_be_bytes))
        };
        let last_delivery = last(DELIVERIES)?;
        // While an effect that a change asked for is pending, no other asking may have its number: the outcome of the one
        // would count for the other.
        let mut last_change = audit::begin(&*engine)?.seq;
        for (_, bytes) in engine.scan(EFFECTS, &KeyRange::all(), Direction::Forward, LIST_MAX)? {
            last_change = last_change.max(unpack::<PendingEffect>(EFFECTS, &bytes)?.asked_by);
        }
        Ok(Self {
            engine,
            last_change: last_change.into(),
            last_delivery: last_delivery.into(),
            generations: Generations::default(),
        })
    }

    /// What it stands on.
    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.engine.get(table, key)?.map(|bytes| unpack(table, &bytes)).transpose()
    }

    fn list<T: DeserializeOwned>(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<T>, StoreError> {
        let records = self.engine.scan(table, range, direction, limit.min(LIST_MAX))?;
        records.iter().map(|(_, bytes)| unpack(table, bytes)).collect()
    }

    fn newest<T: DeserializeOwned>(
        &self,
        table: Table,
        service: &ServiceName,
        page: Page,
    ) -> Result<Vec<T>, StoreError> {
        let mut range = KeyRange::prefix(&under(service, &[]));
        if let Some(before) = page.before {
            range = range.before(&numbered(service, before));
        }
        self.list(table, &range, Direction::Backward, page.limit)
    }

    fn put<T: Serialize>(batch: &mut Batch, table: Table, key: &[u8], record: &T) -> Result<(), StoreError> {
        batch.put(table, key, pack(table, record)?);
        Ok(())
    }

    fn next_change(&self) -> u64 {
        self.last_change.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn add_effect(
        batch: &mut Batch,
        changed: &mut EffectsChanged,
        effect: &Effect,
        asked_by: u64,
        at: pipelines::time::UnixMs,
    ) -> Result<(), StoreError> {
        let key = effect.key();
        let pending = PendingEffect {
            effect: effect.clone(),
            asked_by,
            asked_at: at,
            failures: 0,
            not_before: effect.due_at(),
            last_error: None,
        };
        Self::put(batch, EFFECTS, key.as_bytes(), &pending)?;
        changed.gone.retain(|gone| *gone != key);
        changed.pending.retain(|(other, _)| *other != key);
        changed.pending.push((key, pending));
        Ok(())
    }

    fn drop_effect(batch: &mut Batch, changed: &mut EffectsChanged, key: &str) {
        batch.delete(EFFECTS, key.as_bytes());
        changed.pending.retain(|(other, _)| other != key);
        changed.gone.push(key.to_owned());
    }

    fn send<T: Send + 'static>(&self, batch: Result<(Batch, T), StoreError>) -> Stored<T> {
        match batch.and_then(|(batch, answer)| Ok((self.engine.submit(batch)?, answer))) {
            Ok((pending, answer)) => Box::pin(async move {
                pending.await?;
                Ok(answer)
            }),
            Err(error) => Box::pin(async move { Err(error) }),
        }
    }

    fn service_batch(
        &self,
        service: &Service,
        secrets: Option<&SealedSecrets>,
        ask: &[Effect],
        entry: NewEntry,
        create: bool,
    ) -> Result<(Batch, EffectsChanged), StoreError> {
        let mut batch = Batch::new();
        let mut changed = EffectsChanged::default();
        let key = service.name.as_str().as_bytes();
        let at = entry.at;
        batch.count(self.generations.of(&service.name)).count(self.generations.of_services());
        if create {
            batch.expect_absent(SERVICES, key);
            Self::put(&mut batch, TRAINS, key, &Train::new(service.name.clone()))?;
        }
        Self::put(&mut batch, SERVICES, key, service)?;
        if let Some(secrets) = secrets {
            Self::put(&mut batch, SECRETS, key, secrets)?;
        }
        Self::add_entry(&mut batch, entry.of_service(Some(&service.name)), None);
        let asked_by = self.next_change();
        for effect in ask {
            Self::add_effect(&mut batch, &mut changed, effect, asked_by, at)?;
        }
        Ok((batch, changed))
    }

    fn train_batch(&self, change: TrainChange) -> Result<(Batch, EffectsChanged), StoreError> {
        let TrainChange { at, origin, service, changes, finished_effect, ask, delivery, also, refs, service_record } =
            change;
        let mut batch = Batch::new();
        let mut changed = EffectsChanged::default();
        // A hook that asks for nothing changes nothing that is shown.
        if !changes.is_empty() || service_record.is_some() {
            batch.count(self.generations.of(&service));
        }
        if let Some(key) = &finished_effect {
            Self::drop_effect(&mut batch, &mut changed, key);
        }
        for change in changes {
            // Names the change for the effects it asks for.
            let asked_by = self.next_change();
            for note in change.notes {
                let entry = NewEntry::new(at, origin.clone(), note.subject, note.word).detail(note.detail);
                let states = note.change.map(|(before, after)| (before.to_owned(), after.to_owned()));
                Self::add_entry(&mut batch, entry.of_service(Some(&service)), states);
            }
            Self::put(&mut batch, TRAINS, service.as_str().as_bytes(), &change.train)?;
            for (number, run) in &change.runs {
                Self::put(&mut batch, RUNS, &numbered(&service, *number), run)?;
                if let (Some(inputs), Some(digest), None) = (&run.inputs, run.digest(), &run.reused_from) {
                    let key = under(&service, inputs.as_str().as_bytes());
                    Self::put(&mut batch, IMAGES, &key, &(&run.id, digest))?;
                }
            }
            for (number, release) in &change.releases {
                Self::put(&mut batch, RELEASES, &numbered(&service, *number), release)?;
            }
            for (number, approval) in &change.approvals {
                Self::put(&mut batch, APPROVALS, &numbered(&service, *number), approval)?;
            }
            for (number, rollout) in &change.rollouts {
                Self::put(&mut batch, ROLLOUTS, &numbered(&service, *number), rollout)?;
            }
            for key in &change.withdraw {
                Self::drop_effect(&mut batch, &mut changed, key);
            }
            for effect in &change.ask {
                Self::add_effect(&mut batch, &mut changed, effect, asked_by, at)?;
            }
        }
        let asked_by = self.next_change();
        for effect in &ask {
            Self::add_effect(&mut batch, &mut changed, effect, asked_by, at)?;
        }
        for (key, ..) in &also {
            Self::drop_effect(&mut batch, &mut changed, key);
        }
        for (id, state) in delivery.into_iter().chain(also.into_iter().map(|(_, id, state)| (id, state))) {
            if let Some(mut delivery) = self.delivery(id)? {
                delivery.state = state;
                Self::put(&mut batch, DELIVERIES, &id.to_be_bytes(), &delivery)?;
            }
        }
        for (name, seen) in refs {
            let key = under(&service, name.as_bytes());
            match seen {
                Some(seen) => Self::put(&mut batch, REFS, &key, &seen)?,
                None => {
                    batch.delete(REFS, key);
                }
            }
        }
        if let Some(record) = service_record {
            Self::put(&mut batch, SERVICES, service.as_str().as_bytes(), &record)?;
        }
        Ok((batch, changed))
    }

    fn delivery_batch(&self, new: NewDelivery) -> Result<(Batch, (Recorded, EffectsChanged)), StoreError> {
        let mut batch = Batch::new();
        let mut changed = EffectsChanged::default();
        let forge_key = under(&new.service, format!("{}\0{}", new.forge, new.forge_id).as_bytes());
        // A refused hook is listed, but takes nobody's id: whoever guesses an id must not be able to block the real one.
        if new.content.is_ok()
            && let Some(id) = self.get::<DeliveryId>(DELIVERIES_BY_FORGE_ID, &forge_key)?
            && let Some(mut delivery) = self.delivery(id)?
        {
            delivery.repeats = delivery.repeats.saturating_add(1);
            Self::put(&mut batch, DELIVERIES, &id.to_be_bytes(), &delivery)?;
            return Ok((batch, (Recorded::Repeat(id), changed)));
        }
        let id = self.last_delivery.fetch_add(1, Ordering::SeqCst) + 1;
        let (content, state) = match new.content {
            Ok(content) => (Some(content), DeliveryState::Received),
            Err(reason) => (None, DeliveryState::Refused { reason }),
        };
        if content.is_some() {
            batch.expect_absent(DELIVERIES_BY_FORGE_ID, &forge_key);
            Self::put(&mut batch, DELIVERIES_BY_FORGE_ID, &forge_key, &id)?;
            let effect = Effect::ProcessDelivery { delivery: id, service: new.service.clone() };
            Self::add_effect(&mut batch, &mut changed, &effect, 0, new.at)?;
        }
        batch.put(DELIVERIES_BY_SERVICE, under(&new.service, &id.to_be_bytes()), Vec::new());
        let delivery = Delivery {
            id,
            service: new.service,
            forge: new.forge.to_owned(),
            forge_id: new.forge_id,
            event: new.event,
            at: new.at,
            remote: new.remote,
            repeats: 0,
            content,
            state,
        };
        Self::put(&mut batch, DELIVERIES, &id.to_be_bytes(), &delivery)?;
        Ok((batch, (Recorded::New(id), changed)))
    }

    fn by_name<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>, StoreError> {
        let records = self.engine.scan(table, &KeyRange::all(), Direction::Forward, LIST_MAX)?;
        let name = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        records.iter().map(|(key, bytes)| Ok((name(key), unpack(table, bytes)?))).collect()
    }

    fn put_with_entry<T: Serialize>(&self, table: Table, key: &str, record: &T, entry: NewEntry) -> Stored<()> {
        let mut batch = Batch::new();
        let made = Self::put(&mut batch, table, key.as_bytes(), record);
        Self::add_entry(&mut batch, entry, None);
        self.send(made.map(|()| (batch, ())))
    }
}

impl Store for EmbeddedStore {
    fn service(&self, name: &ServiceName) -> Result<Option<Service>, StoreError> {
        self.get(SERVICES, name.as_str().as_bytes())
    }

    fn generation(&self, service: &ServiceName) -> u64 {
        self.generations.now(service)
    }

    fn generation_of_services(&self) -> u64 {
        self.generations.of_services().load(Ordering::Acquire)
    }

    fn services(&self) -> Result<Vec<Service>, StoreError> {
        self.list(SERVICES, &KeyRange::all(), Direction::Forward, LIST_MAX)
    }

    fn service_create(
        &self,
        service: &Service,
        secrets: &SealedSecrets,
        ask: &[Effect],
        entry: NewEntry,
    ) -> Stored<EffectsChanged> {
        let name = service.name.to_string();
        let sent = self.send(self.service_batch(service, Some(secrets), ask, entry, true));
        Box::pin(async move {
            match sent.await {
                Err(StoreError::Engine(super::engine::EngineError::Conflict { .. })) => {
                    Err(StoreError::Exists(format!("service {name}")))
                }
                answer => answer,
            }
        })
    }

    fn service_update(
        &self,
        service: &Service,
        secrets: Option<&SealedSecrets>,
        ask: &[Effect],
        entry: NewEntry,
    ) -> Stored<EffectsChanged> {
        self.send(self.service_batch(service, secrets, ask, entry, false))
    }

    fn service_secrets(&self, name: &ServiceName) -> Result<Option<SealedSecrets>, StoreError> {
        self.get(SECRETS, name.as_str().as_bytes())
    }

    fn secret(&self, scope: &SecretScope, name: &SecretName) -> Result<Option<NamedSecret>, StoreError> {
        self.named_secret(scope, name)
    }

    fn secrets(&self, scope: &SecretScope) -> Result<Vec<NamedSecret>, StoreError> {
        self.named_secrets(scope)
    }

    fn secret_use(&self, scope: &SecretScope, name: &SecretName) -> Result<Option<SecretUse>, StoreError> {
        self.named_secret_use(scope, name)
    }

    fn secret_put(&self, secret: &NamedSecret, entry: NewEntry) -> Stored<()> {
        self.send(self.named_secret_put(secret, entry))
    }

    fn secret_delete(&self, scope: &SecretScope, name: &SecretName, entry: NewEntry) -> Stored<()> {
        self.send(self.named_secret_delete(scope, name, entry))
    }

    fn secrets_used(&self, secrets: &[(SecretScope, SecretName)], last: &SecretUse) -> Stored<()> {
        self.send(self.named_secrets_used(secrets, last))
    }

    fn seal_anew(&self, sealed: &SealedAnew) -> Stored<()> {
        self.send(self.sealed_anew(sealed))
    }

    fn instance(&self) -> Result<Option<String>, StoreError> {
        self.own_instance()
    }

    fn instance_set(&self, instance: &str) -> Stored<()> {
        self.send(self.own_instance_put(instance))
    }

    fn train(&self, name: &ServiceName) -> Result<Option<Train>, StoreError> {
        self.get(TRAINS, name.as_str().as_bytes())
    }

    fn run(&self, id: &RunId) -> Result<Option<Run>, StoreError> {
        self.get(RUNS, &numbered(&id.service, id.number))
    }

    fn runs(&self, service: &ServiceName, page: Page) -> Result<Vec<Run>, StoreError> {
        self.newest(RUNS, service, page)
    }

    fn release(&self, id: &ReleaseId) -> Result<Option<Release>, StoreError> {
        self.get(RELEASES, &numbered(&id.service, id.number))
    }

    fn releases(&self, service: &ServiceName, page: Page) -> Result<Vec<Release>, StoreError> {
        self.newest(RELEASES, service, page)
    }

    fn approval(&self, id: &ReleaseId) -> Result<Option<Approval>, StoreError> {
        self.get(APPROVALS, &numbered(&id.service, id.number))
    }

    fn rollout(&self, id: &RolloutId) -> Result<Option<Rollout>, StoreError> {
        self.get(ROLLOUTS, &numbered(&id.service, id.number))
    }

    fn rollouts(&self, service: &ServiceName, page: Page) -> Result<Vec<Rollout>, StoreError> {
        self.newest(ROLLOUTS, service, page)
    }

    fn train_change(&self, change: TrainChange) -> Stored<EffectsChanged> {
        self.send(self.train_batch(change))
    }

    fn image_of_inputs(&self, service: &ServiceName, inputs: &Digest) -> Result<Option<(RunId, Digest)>, StoreError> {
        self.get(IMAGES, &under(service, inputs.as_str().as_bytes()))
    }

    fn refs(&self, service: &ServiceName) -> Result<Vec<(String, SeenRef)>, StoreError> {
        let prefix = under(service, &[]);
        let records = self.engine.scan(REFS, &KeyRange::prefix(&prefix), Direction::Forward, LIST_MAX)?;
        let name = |key: &[u8]| String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned();
        records.iter().map(|(key, bytes)| Ok((name(key), unpack(REFS, bytes)?))).collect()
    }

    fn effects(&self) -> Result<Vec<(String, PendingEffect)>, StoreError> {
        let records = self.engine.scan(EFFECTS, &KeyRange::all(), Direction::Forward, LIST_MAX)?;
        let name = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        records.iter().map(|(key, bytes)| Ok((name(key), unpack(EFFECTS, bytes)?))).collect()
    }

    fn effect_retry(&self, key: &str, effect: &PendingEffect) -> Stored<()> {
        let mut batch = Batch::new();
        let made = Self::put(&mut batch, EFFECTS, key.as_bytes(), effect).map(|()| (batch, ()));
        self.send(made)
    }

    fn delivery_record(&self, delivery: NewDelivery) -> Stored<(Recorded, EffectsChanged)> {
        self.send(self.delivery_batch(delivery))
    }

    fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.get(DELIVERIES, &id.to_be_bytes())
    }

    fn deliveries(
        &self,
        service: &ServiceName,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let prefix = under(service, &[]);
        let mut range = KeyRange::prefix(&prefix);
        if let Some(before) = before {
            range = range.before(&under(service, &before.to_be_bytes()));
        }
        let keys = self.engine.scan(DELIVERIES_BY_SERVICE, &range, Direction::Backward, limit.min(LIST_MAX))?;
        let mut found = Vec::with_capacity(keys.len());
        for (key, _) in keys {
            if let Some(delivery) = self.get(DELIVERIES, key.get(prefix.len()..).unwrap_or_default())? {
                found.push(delivery);
            }
        }
        Ok(found)
    }

    fn journal(
        &self,
        service: Option<&ServiceName>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.journal_page(service, before, limit)
    }

    fn journal_after(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let range = KeyRange::all().after(&after.to_be_bytes());
        self.list(JOURNAL, &range, Direction::Forward, limit)
    }

    fn journal_head(&self) -> Result<Head, StoreError> {
        let missing = || StoreError::Record { table: JOURNAL_HEAD.name(), why: "it is missing".into() };
        audit::head(&*self.engine)?.ok_or_else(missing)
    }

    fn journal_verify(&self, mark: Option<Mark>) -> Result<Result<Walked, Misfit>, StoreError> {
        audit::verify(&*self.engine, mark)
    }

    fn account(&self, name: &str) -> Result<Option<Account>, StoreError> {
        self.get(ACCOUNTS, name.as_bytes())
    }

    fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.list(ACCOUNTS, &KeyRange::all(), Direction::Forward, LIST_MAX)
    }

    fn account_put(&self, account: &Account, entry: NewEntry) -> Stored<()> {
        self.put_with_entry(ACCOUNTS, &account.name, account, entry)
    }

    fn session(&self, digest: &str) -> Result<Option<Session>, StoreError> {
        self.get(SESSIONS, digest.as_bytes())
    }

    fn sessions(&self) -> Result<Vec<(String, Session)>, StoreError> {
        self.by_name(SESSIONS)
    }

    fn sessions_change(&self, put: &[(String, Session)], gone: &[String], entry: Option<NewEntry>) -> Stored<()> {
        let mut batch = Batch::new();
        if let Some(entry) = entry {
            Self::add_entry(&mut batch, entry, None);
        }
        for digest in gone {
            batch.delete(SESSIONS, digest.as_bytes());
        }
        let made =
            put.iter().try_for_each(|(digest, session)| Self::put(&mut batch, SESSIONS, digest.as_bytes(), session));
        self.send(made.map(|()| (batch, ())))
    }

    fn token(&self, digest: &str) -> Result<Option<Token>, StoreError> {
        self.get(TOKENS, digest.as_bytes())
    }

    fn tokens(&self) -> Result<Vec<(String, Token)>, StoreError> {
        self.by_name(TOKENS)
    }

    fn token_put(&self, digest: &str, token: &Token, entry: NewEntry) -> Stored<()> {
        self.put_with_entry(TOKENS, digest, token, entry)
    }

    fn token_delete(&self, digest: &str, entry: NewEntry) -> Stored<()> {
        let mut batch = Batch::new();
        batch.delete(TOKENS, digest.as_bytes());
        Self::add_entry(&mut batch, entry, None);
        self.send(Ok((batch, ())))
    }

    fn forget(&self, forget: Forget) -> Stored<()> {
        self.send(self.forget_batch(&forget).map(|batch| (batch, ())))
    }

    fn journal_note(&self, entry: NewEntry) -> Stored<()> {
        let mut batch = Batch::new();
        Self::add_entry(&mut batch, entry, None);
        self.send(Ok((batch, ())))
    }

    fn runner(&self, name: &RunnerName) -> Result<Option<RunnerRecord>, StoreError> {
        self.runner_record(name)
    }

    fn runners(&self) -> Result<Vec<RunnerRecord>, StoreError> {
        self.runner_records()
    }

    fn runner_put(&self, runner: &RunnerRecord, entry: Option<NewEntry>) -> Stored<()> {
        self.send(self.runner_record_put(runner, entry))
    }

    fn runner_register(&self, digest: &str, token: &RunnerToken, runner: &RunnerRecord, entry: NewEntry) -> Stored<()> {
        self.register_runner(digest, token, runner, entry)
    }

    fn runner_tokens(&self) -> Result<Vec<(String, RunnerToken)>, StoreError> {
        self.by_name(RUNNER_TOKENS)
    }

    fn runner_token_put(&self, digest: &str, token: &RunnerToken, entry: NewEntry) -> Stored<()> {
        self.put_with_entry(RUNNER_TOKENS, digest, token, entry)
    }

    fn runner_token_delete(&self, digest: &str, entry: NewEntry) -> Stored<()> {
        self.send(self.registration_token_delete(digest, entry))
    }

    fn trouble(&self) -> Option<String> {
        self.engine.trouble().map(|error| error.to_string())
    }

    fn waiting(&self) -> super::engine::BatchesWaiting {
        self.engine.waiting()
    }

    fn copy_to(&self, to: &std::path::Path) -> Result<(), StoreError> {
        Ok(self.engine.backup(to)?)
    }

    fn commit_times(&self) -> CommitTimes {
        self.engine.commit_times()
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.engine.size_bytes()?)
    }
}

#[cfg(test)]
mod tests;
