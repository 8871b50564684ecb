//! Looks at the whole store: every record reads and lies under its own key, what it refers to is there, the indexes agree
//! with what they are of. Changes nothing; holds a bounded part in memory. Not here: the engine's pages, which the engine
//! checks itself.

use std::collections::BTreeMap;

use pipelines::{
    approval::Approval,
    effect::PendingEffect,
    ids::{Digest, ReleaseId, RolloutId, RunId, ServiceName},
    journal::{Entry, chain::Head},
    release::{Release, ReleaseState},
    rollout::Rollout,
    run::Run,
    service::Service,
    train::Train,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Account, Delivery, DeliveryId, NamedSecret, RunnerRecord, RunnerToken, SealedSecrets, SecretUse, SeenRef, Session,
    StoreError, Token, audit,
    embedded::{EmbeddedStore, numbered, under, unpack},
    engine::{Direction, KeyRange, Table},
    tables::{
        ACCOUNTS, APPROVALS, DELIVERIES, DELIVERIES_BY_FORGE_ID, DELIVERIES_BY_SERVICE, EFFECTS, IMAGES, JOURNAL,
        JOURNAL_BY_SERVICE, JOURNAL_HEAD, NAMED_SECRETS, REFS, RELEASES, ROLLOUTS, RUNNER_TOKENS, RUNNERS, RUNS,
        SECRET_USES, SECRETS, SERVER, SERVICES, SESSIONS, TOKENS, TRAINS,
    },
};

/// Records that are held at once.
const CHUNK_RECORDS: usize = 200;
/// Problems that are told; the rest is counted.
const PROBLEMS_MAX: usize = 20;

/// What a look at the whole store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many records each table has.
    pub records: BTreeMap<&'static str, u64>,
    /// What is wrong, the first of it in words.
    pub problems: Vec<String>,
    /// How much is wrong.
    pub problem_count: u64,
}

impl Checked {
    /// All records together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.records.values().sum()
    }

    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }
}

impl EmbeddedStore {
    /// Looks at everything. Damage of the engine's file is an error; a record that is wrong is a problem in the answer.
    ///
    /// # Errors
    /// When the engine finds its file damaged or cannot read it.
    pub fn check(&self) -> Result<Checked, StoreError> {
        self.engine().check()?;
        let mut look = Look { store: self, found: Checked::default() };
        look.services()?;
        look.deliveries_of_trains()?;
        look.effects()?;
        look.journal()?;
        look.hooks()?;
        look.people()?;
        Ok(look.found)
    }
}

struct Look<'a> {
    store: &'a EmbeddedStore,
    found: Checked,
}

impl Look<'_> {
    /// Every raw record of a table, in chunks.
    fn raw(
        &mut self,
        table: Table,
        mut look: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut range = KeyRange::all();
        loop {
            let records = self.store.engine().scan(table, &range, Direction::Forward, CHUNK_RECORDS)?;
            let Some((last, _)) = records.last() else { return Ok(()) };
            range = KeyRange::all().after(last);
            *self.found.records.entry(table.name()).or_default() += records.len() as u64;
            for (key, bytes) in &records {
                look(self, key, bytes)?;
            }
        }
    }

    /// Every record of a table that reads; one that does not is a problem.
    fn each<T: DeserializeOwned>(
        &mut self,
        table: Table,
        mut look: impl FnMut(&mut Self, &[u8], T) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.raw(table, |this, key, bytes| match unpack::<T>(table, bytes) {
            Ok(record) => look(this, key, record),
            Err(error) => {
                this.found.problem(format!("{}: {error}", shown(table, key)));
                Ok(())
            }
        })
    }

    fn key_is(&mut self, table: Table, key: &[u8], right: &[u8]) {
        if key != right {
            self.found.problem(format!("{} lies under another key than its own", shown(table, key)));
        }
    }

    /// `key` of `table` must be there, because `of` refers to it.
    fn refers(&mut self, of: &str, table: Table, key: &[u8]) -> Result<(), StoreError> {
        if self.store.engine().get(table, key)?.is_none() {
            self.found.problem(format!("{of} refers to {}, which is not there", shown(table, key)));
        }
        Ok(())
    }

    fn services(&mut self) -> Result<(), StoreError> {
        self.each::<Service>(SERVICES, |this, key, service| {
            this.key_is(SERVICES, key, service.name.as_str().as_bytes());
            this.refers(&format!("service {}", service.name), TRAINS, key)
        })?;
        self.each::<SealedSecrets>(SECRETS, |this, key, _| this.refers(&shown(SECRETS, key), SERVICES, key))?;
        self.each::<NamedSecret>(NAMED_SECRETS, |this, key, secret| match secret.scope.service() {
            Some(service) => this.refers(&shown(NAMED_SECRETS, key), SERVICES, service.as_str().as_bytes()),
            None => Ok(()),
        })?;
        self.each::<SecretUse>(SECRET_USES, |this, key, _| this.refers(&shown(SECRET_USES, key), NAMED_SECRETS, key))?;
        self.each::<String>(SERVER, |_, _, _| Ok(()))?;
        self.each::<Train>(TRAINS, |this, key, train| {
            let of = format!("the train of {}", train.service);
            this.key_is(TRAINS, key, train.service.as_str().as_bytes());
            this.refers(&of, SERVICES, key)?;
            for number in train.releases() {
                this.refers(&of, RELEASES, &numbered(&train.service, number))?;
            }
            train.rollout.map_or(Ok(()), |number| this.refers(&of, ROLLOUTS, &numbered(&train.service, number)))
        })
    }

    fn deliveries_of_trains(&mut self) -> Result<(), StoreError> {
        self.each::<Run>(RUNS, |this, key, run| {
            this.key_is(RUNS, key, &numbered(&run.id.service, run.id.number));
            this.refers(&format!("run {}", run.id), SERVICES, run.id.service.as_str().as_bytes())
        })?;
        self.each::<Release>(RELEASES, |this, key, release| {
            let own = numbered(&release.id.service, release.id.number);
            let of = format!("release {}", release.id);
            this.key_is(RELEASES, key, &own);
            this.refers(&of, RUNS, &own)?;
            if release.state == ReleaseState::AwaitingApproval { this.refers(&of, APPROVALS, &own) } else { Ok(()) }
        })?;
        self.each::<Approval>(APPROVALS, |this, key, approval| {
            let own = numbered(&approval.release.service, approval.release.number);
            this.key_is(APPROVALS, key, &own);
            this.refers(&format!("the approval of {}", approval.release), RELEASES, &own)
        })?;
        self.each::<Rollout>(ROLLOUTS, |this, key, rollout| {
            this.key_is(ROLLOUTS, key, &numbered(&rollout.id.service, rollout.id.number));
            let release = numbered(&rollout.release.service, rollout.release.number);
            this.refers(&format!("rollout {}", rollout.id), RELEASES, &release)
        })?;
        self.each::<(RunId, Digest)>(IMAGES, |this, key, (run, _)| {
            this.refers(&shown(IMAGES, key), RUNS, &numbered(&run.service, run.number))
        })?;
        self.each::<SeenRef>(REFS, |this, key, _| this.refers(&shown(REFS, key), SERVICES, service_part(key)))
    }

    fn effects(&mut self) -> Result<(), StoreError> {
        self.each::<PendingEffect>(EFFECTS, |this, key, pending| {
            let effect = &pending.effect;
            let of = format!("the effect {}", effect.key());
            this.key_is(EFFECTS, key, effect.key().as_bytes());
            this.refers(&of, SERVICES, effect.service().as_str().as_bytes())?;
            // By the names of its fields, so that a kind that is new is looked at too.
            let fields = serde_json::to_value(effect).unwrap_or_default();
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            let (run, release, rollout) = (text("run"), text("release"), text("rollout"));
            let referred = [
                run.and_then(|id| id.parse::<RunId>().ok()).map(|id| (RUNS, numbered(&id.service, id.number))),
                release
                    .and_then(|id| id.parse::<ReleaseId>().ok())
                    .map(|id| (RELEASES, numbered(&id.service, id.number))),
                rollout
                    .and_then(|id| id.parse::<RolloutId>().ok())
                    .map(|id| (ROLLOUTS, numbered(&id.service, id.number))),
                fields.get("delivery").and_then(Value::as_u64).map(|id| (DELIVERIES, id.to_be_bytes().to_vec())),
            ];
            referred.iter().flatten().try_for_each(|(table, key)| this.refers(&of, *table, key))
        })
    }

    fn journal(&mut self) -> Result<(), StoreError> {
        self.each::<Entry>(JOURNAL, |this, key, entry| {
            this.key_is(JOURNAL, key, &entry.seq.to_be_bytes());
            let Some(service) = &entry.service else { return Ok(()) };
            let index = under(service, &entry.seq.to_be_bytes());
            this.refers(&format!("entry {} of the journal", entry.seq), JOURNAL_BY_SERVICE, &index)
        })?;
        self.index_by_service(JOURNAL_BY_SERVICE, JOURNAL)?;
        self.each::<Head>(JOURNAL_HEAD, |_, _, _| Ok(()))?;
        match audit::verify(self.store.engine(), None) {
            Ok(Ok(_)) => {}
            Ok(Err(misfit)) => self.found.problem(format!("the journal's chain does not hold: {misfit}")),
            Err(StoreError::Record { table, why }) => self.found.problem(format!("{table}: {why}")),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn hooks(&mut self) -> Result<(), StoreError> {
        self.each::<Delivery>(DELIVERIES, |this, key, delivery| {
            let of = format!("delivery {}", delivery.id);
            this.key_is(DELIVERIES, key, &delivery.id.to_be_bytes());
            this.refers(&of, DELIVERIES_BY_SERVICE, &under(&delivery.service, &delivery.id.to_be_bytes()))?;
            if delivery.content.is_none() {
                return Ok(());
            }
            let forge_key = format!("{}\0{}", delivery.forge, delivery.forge_id);
            this.refers(&of, DELIVERIES_BY_FORGE_ID, &under(&delivery.service, forge_key.as_bytes()))
        })?;
        self.each::<DeliveryId>(DELIVERIES_BY_FORGE_ID, |this, key, id| {
            this.refers(&shown(DELIVERIES_BY_FORGE_ID, key), DELIVERIES, &id.to_be_bytes())
        })?;
        self.index_by_service(DELIVERIES_BY_SERVICE, DELIVERIES)
    }

    fn people(&mut self) -> Result<(), StoreError> {
        self.each::<Account>(ACCOUNTS, |this, key, account| {
            this.key_is(ACCOUNTS, key, account.name.as_bytes());
            Ok(())
        })?;
        self.each::<Session>(SESSIONS, |this, key, session| {
            this.refers(&shown(SESSIONS, key), ACCOUNTS, session.account.as_bytes())
        })?;
        self.each::<Token>(TOKENS, |this, key, token| {
            this.refers(&shown(TOKENS, key), ACCOUNTS, token.account.as_bytes())
        })?;
        self.each::<RunnerRecord>(RUNNERS, |this, key, runner| {
            this.key_is(RUNNERS, key, runner.name.as_str().as_bytes());
            Ok(())
        })?;
        self.each::<RunnerToken>(RUNNER_TOKENS, |_, _, _| Ok(()))
    }

    /// An index whose keys are a service and a number, and whose numbers are the keys of `of`.
    fn index_by_service(&mut self, index: Table, of: Table) -> Result<(), StoreError> {
        self.raw(index, |this, key, _| {
            let number = key.get(service_part(key).len() + 1..).unwrap_or_default().to_vec();
            this.refers(&shown(index, key), of, &number)
        })
    }
}

/// The name of the service that a key begins with.
fn service_part(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A record as people are told of it: of sessions and tokens no more than the table, for their keys are no names.
fn shown(table: Table, key: &[u8]) -> String {
    if [SESSIONS, TOKENS, RUNNER_TOKENS].contains(&table) {
        return format!("a record of {}", table.name());
    }
    let service = String::from_utf8_lossy(service_part(key)).into_owned();
    let is_name = service.parse::<ServiceName>().is_ok();
    let rest = key.get(service.len() + 1..).unwrap_or_default();
    match (is_name, rest.len()) {
        (true, 0) => format!("{service} in {}", table.name()),
        (true, 4) => format!("{service}/{} in {}", number(rest), table.name()),
        (true, _) => format!("{service} {} in {}", String::from_utf8_lossy(rest).escape_debug(), table.name()),
        (false, _) if key.len() == 8 => format!("number {} in {}", number(key), table.name()),
        (false, _) => format!("{} in {}", String::from_utf8_lossy(key).escape_debug(), table.name()),
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
