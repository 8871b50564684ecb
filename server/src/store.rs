//! What Windlass remembers, in nouns: services, runs, releases, approvals, rollouts, effects, deliveries, the journal,
//! accounts and runners. No key-value call is made above this trait. Beneath it: [`embedded`] on an [`engine`]; logs of steps lie
//! outside the key-value store, in [`logs`].

mod audit;
pub mod backup;
pub mod check;
pub mod embedded;
pub mod engine;
pub mod logs;
pub mod records;
mod tables;
pub mod versions;

use std::{future::Future, pin::Pin};

use pipelines::{
    approval::Approval,
    effect::PendingEffect,
    ids::{Digest, ReleaseId, RolloutId, RunId, RunnerName, SecretName, ServiceName},
    journal::{
        Changed, Entry, Origin,
        chain::{Head, Mark, Misfit, Walked},
    },
    release::Release,
    rollout::Rollout,
    run::Run,
    service::Service,
    time::UnixMs,
    train::{Change, Train},
};

pub use engine::CommitTimes;
pub use pipelines::trigger::SeenRef;
pub use records::{
    Account, Delivery, DeliveryId, DeliveryState, NamedSecret, NewDelivery, Role, RunnerRecord, RunnerState,
    RunnerToken, SealedSecrets, SecretScope, SecretUse, Session, Token,
};

/// Why the store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The engine refused or failed.
    #[error("the store did not take the change")]
    Engine(#[from] engine::EngineError),
    /// A record cannot be read.
    #[error("a record of {table} cannot be read: {why}")]
    Record {
        /// Which table.
        table: &'static str,
        /// What the reader said.
        why: String,
    },
    /// Something with this name is there already.
    #[error("{0} exists already")]
    Exists(String),
    /// It was written by a newer Windlass; nothing of it was changed.
    #[error(
        "the store is of version {found}, and this windlass knows versions up to {known}; start the newer windlass again, \
         or restore a backup that was made before it"
    )]
    Newer {
        /// Its version.
        found: u32,
        /// The newest version that is known here.
        known: u32,
    },
    /// It is of an older version and could not be brought to the present one. The next start goes on with it.
    #[error("the store could not be brought from version {from} to version {to}")]
    Migration {
        /// Its version.
        from: u32,
        /// The version that comes next.
        to: u32,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
}

/// An answer that comes when the change is on disk.
pub type Stored<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// A page of a listing: newest first, at most `limit`, only numbers below `before`.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only what has a smaller number.
    pub before: Option<u32>,
    /// How many at most.
    pub limit: usize,
}

impl Page {
    /// The newest `limit`.
    #[must_use]
    pub fn newest(limit: usize) -> Self {
        Self { before: None, limit }
    }
}

/// One change of a train and all that is stored with it, in one transaction.
#[derive(Clone, Debug)]
pub struct TrainChange {
    /// When.
    pub at: UnixMs,
    /// Who, how.
    pub origin: Origin,
    /// Of which service.
    pub service: ServiceName,
    /// What the domain decided; several where one input made several events.
    pub changes: Vec<Change>,
    /// The effect whose outcome this is: it is no longer pending afterwards.
    pub finished_effect: Option<String>,
    /// An effect to ask for besides those of the changes (a poll asks for the next one).
    pub ask: Vec<pipelines::effect::Effect>,
    /// What became of a delivery.
    pub delivery: Option<(DeliveryId, DeliveryState)>,
    /// Further deliveries that ended with it: their effects, and what became of them.
    pub also: Vec<(String, DeliveryId, DeliveryState)>,
    /// Refs as they were seen; none: gone.
    pub refs: Vec<(String, Option<SeenRef>)>,
    /// The service's record, where it changed too.
    pub service_record: Option<Service>,
}

impl TrainChange {
    /// A change of nothing yet.
    #[must_use]
    pub fn new(service: ServiceName, origin: Origin, at: UnixMs) -> Self {
        Self {
            at,
            origin,
            service,
            changes: Vec::new(),
            finished_effect: None,
            ask: Vec::new(),
            delivery: None,
            also: Vec::new(),
            refs: Vec::new(),
            service_record: None,
        }
    }
}

/// What a stored change did to the pending effects, for whoever keeps them in memory.
#[derive(Clone, Debug, Default)]
pub struct EffectsChanged {
    /// Now pending, by key.
    pub pending: Vec<(String, PendingEffect)>,
    /// No longer pending.
    pub gone: Vec<String>,
}

/// What Windlass remembers.
///
/// Concurrency: any number of readers; changes of one service are made one after the other by the caller (it holds the
/// service's lock from reading the train to the stored change), changes of different services at the same time. A change
/// is stored whole or not at all, and is on disk when its future is ready. A crash before that loses it whole.
pub trait Store: Send + Sync {
    /// A registered service.
    ///
    /// # Errors
    /// When the store cannot be read; so for all that read.
    fn service(&self, name: &ServiceName) -> Result<Option<Service>, StoreError>;
    /// A number that is another one after each change of what the board shows of a service: its record, its train, its runs,
    /// releases, approvals, rollouts and what the journal says of them. It changes when the change can be read, before
    /// whoever made it is told. What was read after one look at the number is good as long as the number stays.
    fn generation(&self, service: &ServiceName) -> u64;
    /// The same of which services there are.
    fn generation_of_services(&self) -> u64;
    /// All services, by name.
    ///
    /// # Errors
    /// As above.
    fn services(&self) -> Result<Vec<Service>, StoreError>;
    /// Registers a service with its train; with its sealed secrets.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where the name is taken.
    fn service_create(
        &self,
        service: &Service,
        secrets: &SealedSecrets,
        ask: &[pipelines::effect::Effect],
        entry: NewEntry,
    ) -> Stored<EffectsChanged>;
    /// Changes a service; its secrets too, where given.
    ///
    /// # Errors
    /// Those of storing.
    fn service_update(
        &self,
        service: &Service,
        secrets: Option<&SealedSecrets>,
        ask: &[pipelines::effect::Effect],
        entry: NewEntry,
    ) -> Stored<EffectsChanged>;
    /// The sealed secrets of a service.
    ///
    /// # Errors
    /// As above.
    fn service_secrets(&self, name: &ServiceName) -> Result<Option<SealedSecrets>, StoreError>;

    /// A secret that steps can name.
    ///
    /// # Errors
    /// As above.
    fn secret(&self, scope: &SecretScope, name: &SecretName) -> Result<Option<NamedSecret>, StoreError>;
    /// The secrets of a scope, by name.
    ///
    /// # Errors
    /// As above.
    fn secrets(&self, scope: &SecretScope) -> Result<Vec<NamedSecret>, StoreError>;
    /// When a secret was handed out last; none: never, since it is there.
    ///
    /// # Errors
    /// As above.
    fn secret_use(&self, scope: &SecretScope, name: &SecretName) -> Result<Option<SecretUse>, StoreError>;
    /// Creates a secret or sets it anew.
    ///
    /// # Errors
    /// Those of storing.
    fn secret_put(&self, secret: &NamedSecret, entry: NewEntry) -> Stored<()>;
    /// Takes a secret away, with the memory of its last use.
    ///
    /// # Errors
    /// Those of storing.
    fn secret_delete(&self, scope: &SecretScope, name: &SecretName, entry: NewEntry) -> Stored<()>;
    /// Remembers that secrets were handed to a run.
    ///
    /// # Errors
    /// Those of storing.
    fn secrets_used(&self, secrets: &[(SecretScope, SecretName)], last: &SecretUse) -> Stored<()>;
    /// Replaces what was sealed by the same sealed anew, in one transaction. Only while nobody else has the store open.
    ///
    /// # Errors
    /// Those of storing.
    fn seal_anew(&self, sealed: &SealedAnew) -> Stored<()>;
    /// What tells this server from another one on the same engine, once it was set.
    ///
    /// # Errors
    /// As above.
    fn instance(&self) -> Result<Option<String>, StoreError>;
    /// Sets that, once and for all.
    ///
    /// # Errors
    /// Those of storing.
    fn instance_set(&self, instance: &str) -> Stored<()>;

    /// What moves on a service.
    ///
    /// # Errors
    /// As above.
    fn train(&self, name: &ServiceName) -> Result<Option<Train>, StoreError>;
    /// A run.
    ///
    /// # Errors
    /// As above.
    fn run(&self, id: &RunId) -> Result<Option<Run>, StoreError>;
    /// Runs of a service, newest first.
    ///
    /// # Errors
    /// As above.
    fn runs(&self, service: &ServiceName, page: Page) -> Result<Vec<Run>, StoreError>;
    /// A release.
    ///
    /// # Errors
    /// As above.
    fn release(&self, id: &ReleaseId) -> Result<Option<Release>, StoreError>;
    /// Releases of a service, newest first.
    ///
    /// # Errors
    /// As above.
    fn releases(&self, service: &ServiceName, page: Page) -> Result<Vec<Release>, StoreError>;
    /// The approval of a release.
    ///
    /// # Errors
    /// As above.
    fn approval(&self, id: &ReleaseId) -> Result<Option<Approval>, StoreError>;
    /// A rollout.
    ///
    /// # Errors
    /// As above.
    fn rollout(&self, id: &RolloutId) -> Result<Option<Rollout>, StoreError>;
    /// Rollouts of a service, newest first.
    ///
    /// # Errors
    /// As above.
    fn rollouts(&self, service: &ServiceName, page: Page) -> Result<Vec<Rollout>, StoreError>;
    /// Stores what an event changed on a train.
    ///
    /// # Errors
    /// Those of storing; then nothing of it is stored.
    fn train_change(&self, change: TrainChange) -> Stored<EffectsChanged>;

    /// The run of this service that built an image of these inputs, and the image.
    ///
    /// # Errors
    /// As above.
    fn image_of_inputs(&self, service: &ServiceName, inputs: &Digest) -> Result<Option<(RunId, Digest)>, StoreError>;
    /// The refs of a service as they were last seen.
    ///
    /// # Errors
    /// As above.
    fn refs(&self, service: &ServiceName) -> Result<Vec<(String, SeenRef)>, StoreError>;

    /// All pending effects, by key.
    ///
    /// # Errors
    /// As above.
    fn effects(&self) -> Result<Vec<(String, PendingEffect)>, StoreError>;
    /// A try failed for an infrastructure reason: keeps the effect with its next time.
    ///
    /// # Errors
    /// Those of storing.
    fn effect_retry(&self, key: &str, effect: &PendingEffect) -> Stored<()>;

    /// Records a hook, or says which earlier delivery it repeats.
    ///
    /// # Errors
    /// Those of storing.
    fn delivery_record(&self, delivery: NewDelivery) -> Stored<(Recorded, EffectsChanged)>;
    /// A delivery.
    ///
    /// # Errors
    /// As above.
    fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError>;
    /// Deliveries of a service, newest first, with a place below `before`.
    ///
    /// # Errors
    /// As above.
    fn deliveries(
        &self,
        service: &ServiceName,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// Journal entries of a service (or all), newest first, with a place below `before`.
    ///
    /// # Errors
    /// As above.
    fn journal(
        &self,
        service: Option<&ServiceName>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Journal entries with a place above `after`, oldest first.
    ///
    /// # Errors
    /// As above.
    fn journal_after(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError>;
    /// Where the journal's chain is.
    ///
    /// # Errors
    /// As above.
    fn journal_head(&self) -> Result<Head, StoreError>;
    /// Walks along the journal's chain up to where it is now. Blocks, and holds a bounded part in memory.
    ///
    /// # Errors
    /// As above. What does not fit is in the answer.
    fn journal_verify(&self, mark: Option<Mark>) -> Result<Result<Walked, Misfit>, StoreError>;

    /// An account.
    ///
    /// # Errors
    /// As above.
    fn account(&self, name: &str) -> Result<Option<Account>, StoreError>;
    /// All accounts, by name.
    ///
    /// # Errors
    /// As above.
    fn accounts(&self) -> Result<Vec<Account>, StoreError>;
    /// Creates or changes an account.
    ///
    /// # Errors
    /// Those of storing.
    fn account_put(&self, account: &Account, entry: NewEntry) -> Stored<()>;
    /// A session by the digest of its cookie.
    ///
    /// # Errors
    /// As above.
    fn session(&self, digest: &str) -> Result<Option<Session>, StoreError>;
    /// All sessions by the digests of their cookies.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn sessions(&self) -> Result<Vec<(String, Session)>, StoreError>;
    /// Creates or changes sessions and ends others, in one transaction, with the line for it where somebody did it.
    ///
    /// # Errors
    /// Those of storing.
    fn sessions_change(&self, put: &[(String, Session)], gone: &[String], entry: Option<NewEntry>) -> Stored<()>;
    /// A bearer token by its digest.
    ///
    /// # Errors
    /// As above.
    fn token(&self, digest: &str) -> Result<Option<Token>, StoreError>;
    /// All bearer tokens with their digests.
    ///
    /// # Errors
    /// As above.
    fn tokens(&self) -> Result<Vec<(String, Token)>, StoreError>;
    /// Creates or changes a bearer token.
    ///
    /// # Errors
    /// Those of storing.
    fn token_put(&self, digest: &str, token: &Token, entry: NewEntry) -> Stored<()>;
    /// Takes a bearer token back.
    ///
    /// # Errors
    /// Those of storing.
    fn token_delete(&self, digest: &str, entry: NewEntry) -> Stored<()>;

    /// Forgets records, in one transaction. An image that another run has built meanwhile stays.
    ///
    /// # Errors
    /// Those of storing; then nothing is forgotten.
    fn forget(&self, forget: Forget) -> Stored<()>;

    /// Writes a line into the journal that belongs to no other record.
    ///
    /// # Errors
    /// Those of storing.
    fn journal_note(&self, entry: NewEntry) -> Stored<()>;

    /// A runner, also one that was removed.
    ///
    /// # Errors
    /// As above.
    fn runner(&self, name: &RunnerName) -> Result<Option<RunnerRecord>, StoreError>;
    /// All runners, by name.
    ///
    /// # Errors
    /// As above.
    fn runners(&self) -> Result<Vec<RunnerRecord>, StoreError>;
    /// Changes a runner; with a line for the journal, where a person should know.
    ///
    /// # Errors
    /// Those of storing.
    fn runner_put(&self, runner: &RunnerRecord, entry: Option<NewEntry>) -> Stored<()>;
    /// Registers a runner by the token with this digest, which is used up by one.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where the token was used by somebody else since it was read; those of storing.
    fn runner_register(&self, digest: &str, token: &RunnerToken, runner: &RunnerRecord, entry: NewEntry) -> Stored<()>;
    /// All tokens that register runners, with their digests.
    ///
    /// # Errors
    /// As above.
    fn runner_tokens(&self) -> Result<Vec<(String, RunnerToken)>, StoreError>;
    /// Makes such a token.
    ///
    /// # Errors
    /// Those of storing.
    fn runner_token_put(&self, digest: &str, token: &RunnerToken, entry: NewEntry) -> Stored<()>;
    /// Takes such a token back.
    ///
    /// # Errors
    /// Those of storing.
    fn runner_token_delete(&self, digest: &str, entry: NewEntry) -> Stored<()>;

    /// Why changes are refused at present, if the last one was.
    fn trouble(&self) -> Option<String>;
    /// How many changes wait for the next flush.
    fn waiting(&self) -> engine::BatchesWaiting;
    /// Writes a copy of everything, as of one moment, into the folder `to`, while reads and changes go on. Blocks.
    ///
    /// # Errors
    /// Those of writing.
    fn copy_to(&self, to: &std::path::Path) -> Result<(), StoreError>;
    /// How many flushes there were since it was opened, and how long they took.
    fn commit_times(&self) -> CommitTimes;
    /// What it occupies on disk, in bytes.
    ///
    /// # Errors
    /// When that cannot be seen.
    fn size_bytes(&self) -> Result<u64, StoreError>;
}

/// Records of a service that are not needed any more. What refers to one of them must be in it too, or be gone.
#[derive(Clone, Debug)]
pub struct Forget {
    /// Of which service.
    pub service: ServiceName,
    /// Runs, with the release of the same number and its approval.
    pub runs: Vec<u32>,
    /// Rollouts.
    pub rollouts: Vec<u32>,
    /// Inputs whose image is not offered to a run any more.
    pub images: Vec<Digest>,
    /// Hooks.
    pub deliveries: Vec<DeliveryId>,
}

impl Forget {
    /// Nothing yet.
    #[must_use]
    pub fn of(service: ServiceName) -> Self {
        Self { service, runs: Vec::new(), rollouts: Vec::new(), images: Vec::new(), deliveries: Vec::new() }
    }
}

/// What was sealed anew with another key.
#[derive(Clone, Debug, Default)]
pub struct SealedAnew {
    /// The credentials of services.
    pub services: Vec<(ServiceName, SealedSecrets)>,
    /// Secrets that steps can name.
    pub secrets: Vec<NamedSecret>,
    /// The line for the journal, with the last of them.
    pub entry: Option<NewEntry>,
}

/// A line for the journal that the store gives its place.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// When.
    pub at: UnixMs,
    /// Of which service, if it is about one.
    pub service: Option<ServiceName>,
    /// Who, how.
    pub origin: Origin,
    /// What it is about.
    pub subject: String,
    /// What happened.
    pub word: &'static str,
    /// Fields before and after.
    pub changed: Vec<Changed>,
    /// More, in a few words.
    pub detail: String,
}

impl NewEntry {
    /// Something happened to a subject.
    #[must_use]
    pub fn new(at: UnixMs, origin: Origin, subject: impl Into<String>, word: &'static str) -> Self {
        let (changed, detail) = (Vec::new(), String::new());
        Self { at, service: None, origin, subject: subject.into(), word, changed, detail }
    }

    /// The same, of a service.
    #[must_use]
    pub fn of_service(mut self, service: Option<&ServiceName>) -> Self {
        self.service = service.cloned();
        self
    }

    /// The same, with these fields before and after.
    #[must_use]
    pub fn changed(mut self, changed: impl IntoIterator<Item = Option<Changed>>) -> Self {
        self.changed.extend(changed.into_iter().flatten());
        self
    }

    /// The same, with more to say.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// Walks along the journal's chain in the state folder of a server that is stopped; changes nothing of it.
///
/// # Errors
/// When the store cannot be read; [`engine::EngineError::Locked`] while a server has it open. What does not fit is in the
/// answer.
pub fn verify_journal(state: &std::path::Path, mark: Option<Mark>) -> Result<Result<Walked, Misfit>, StoreError> {
    let folder = state.join("store");
    if !folder.join("store.redb").is_file() {
        let why = format!("there is no store in {}", state.display());
        return Err(StoreError::Record { table: "journal", why });
    }
    let engine = engine::open(&folder, &engine::EngineConfig::default())?;
    audit::verify(&*engine, mark)
}

/// What became of an incoming hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is new.
    New(DeliveryId),
    /// It came before.
    Repeat(DeliveryId),
}
