//! The application: nouns and what can be done with them. It decides by the domain, stores, and tells who waits.
//! Not here: HTTP (`http`), and whatever touches the outside (`driver`).

pub mod accounts;
pub mod addresses;
pub mod agents;
pub mod approvals;
pub mod audit;
pub mod backup;
pub mod board;
pub mod deliveries;
pub mod health;
pub mod keys;
pub mod load;
pub mod log;
pub mod log_tail;
pub mod metrics;
mod observed;
pub mod queue;
pub mod releases;
pub mod retention;
pub mod rollouts;
pub mod room;
pub mod rotation;
pub mod runners;
pub mod runs;
pub mod secrets;
pub mod services;
pub mod sessions;
pub mod signals;
pub mod support;
pub mod throttle;
pub mod traces;
pub mod trains;
pub mod waiting;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use pipelines::{
    ids::{ReleaseId, ServiceName},
    time::UnixMs,
    train::Refusal,
};
use tokio::sync::{Notify, Semaphore};

pub use crate::store::{
    Account, Delivery, DeliveryId, DeliveryState, NewDelivery, Page, Recorded, Role, RunnerRecord, RunnerState,
    RunnerToken, StoreError, Token,
    backup::BackupError,
    engine::EngineError,
    logs::{self, LogError},
    records::HookContent,
};
use crate::{
    app::{keys::Keys, queue::EffectQueue},
    config::Config,
    store::{Store, logs::LogStore},
};

/// Why something asked of the application was not done.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The domain says no; the text is for the person who asked.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such thing.
    #[error("there is no {what} {id}")]
    NotFound {
        /// Which kind of thing.
        what: &'static str,
        /// Which.
        id: String,
    },
    /// What was given is not good; the text is for the person who gave it.
    #[error("{0}")]
    Invalid(String),
    /// It exists already.
    #[error("{0} exists already")]
    Exists(String),
    /// Who asked may not.
    #[error("{0}")]
    Forbidden(String),
    /// Who asked has not shown who they are.
    #[error("name or password are wrong")]
    WrongPassword,
    /// It was tried too often.
    #[error("{detail}")]
    TooMany {
        /// What, for the person who tried.
        detail: String,
        /// When it may be tried again, in seconds.
        retry_after_s: u32,
    },
    /// The store did not take or give it.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// A step's log could not be read or written.
    #[error("the log store failed")]
    Logs(#[source] LogError),
    /// As much of it waits as the configuration allows: it may be asked again when some of it is done.
    #[error("{detail}")]
    Full {
        /// What, for whoever asked.
        detail: String,
        /// Others are served all the same: it is one service that has too much waiting.
        of_service: bool,
        /// When it may be asked again, in seconds.
        retry_after_s: u32,
    },
    /// The disk is nearly full: nothing new begins, so that what is under way can end.
    #[error("only {} MiB are free under the state folder, and {} MiB are kept for finishing what has begun", .free_bytes >> 20, .min_bytes >> 20)]
    NoRoom {
        /// Free bytes.
        free_bytes: u64,
        /// Bytes that are kept.
        min_bytes: u64,
    },
    /// A backup was not made.
    #[error("the backup was not made")]
    Backup(#[source] BackupError),
    /// Sealing or opening a secret failed.
    #[error(transparent)]
    Keys(#[from] keys::KeyError),
}

impl AppError {
    /// Whether the same will be taken once there is room on the disk, or it is writable again.
    #[must_use]
    pub fn passes_with_room(&self) -> bool {
        matches!(
            self,
            Self::NoRoom { .. }
                | Self::Full { .. }
                | Self::Store(StoreError::Engine(EngineError::DiskFull | EngineError::ReadOnly | EngineError::Busy))
                | Self::Logs(LogError::DiskFull | LogError::ReadOnly)
        )
    }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Exists(what) => Self::Exists(what),
            other => Self::Store(other),
        }
    }
}

impl From<LogError> for AppError {
    fn from(error: LogError) -> Self {
        Self::Logs(error)
    }
}

pub use signals::{Changed, Missed};

/// Gives the time. Tests give their own.
pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// The clock of the machine.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    })
}

/// The application.
pub struct App {
    /// What is set.
    pub config: Config,
    store: Arc<dyn Store>,
    logs: Arc<LogStore>,
    keys: Keys,
    instance: String,
    secrets_lock: tokio::sync::Mutex<()>,
    queue: EffectQueue,
    clock: Clock,
    signals: signals::Signals,
    throttles: throttle::Throttles,
    sessions: sessions::Sessions,
    crew: runners::Crew,
    audit: audit::Audit,
    hashing: Semaphore,
    load: load::Load,
    board_known: board::Known,
    looks: health::Looks,
    metrics: metrics::Metrics,
    traces: traces::Traces,
    log_tail: OnceLock<Arc<log_tail::LogTail>>,
    work_for_runners: Notify,
    locks: Mutex<HashMap<ServiceName, Arc<tokio::sync::Mutex<()>>>>,
    promotions: Mutex<HashMap<ReleaseId, (u64, u64)>>,
    backups: Arc<tokio::sync::Mutex<()>>,
    /// Services whose runs do not begin just now.
    quiet: Mutex<HashSet<ServiceName>>,
    swept: Mutex<Option<retention::Swept>>,
}

impl App {
    /// Builds the application and reads the pending effects.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        logs: Arc<LogStore>,
        keys: Keys,
        clock: Clock,
    ) -> Result<Self, AppError> {
        let queue = EffectQueue::new(store.effects()?, config.bounds.effects_per_service_parallel_max);
        let throttles = throttle::Throttles::new(&config.bounds);
        let load = load::Load::new(&config.bounds);
        let crew = runners::Crew::new(&config.bounds);
        let audit = audit::Audit::new(&config.bounds);
        let locks = Mutex::default();
        let instance = store.instance()?.unwrap_or_else(|| rotation::instance_of(&keys));
        let traces = traces::Traces::new(&config.tracing);
        Ok(Self {
            config,
            store,
            logs,
            keys,
            instance,
            secrets_lock: tokio::sync::Mutex::default(),
            queue,
            clock,
            signals: signals::Signals::new(),
            throttles,
            sessions: sessions::Sessions::default(),
            crew,
            audit,
            hashing: Semaphore::new(accounts::HASHING_PARALLEL_MAX),
            load,
            board_known: board::Known::default(),
            looks: health::Looks::default(),
            metrics: metrics::Metrics::default(),
            traces,
            log_tail: OnceLock::new(),
            work_for_runners: Notify::new(),
            locks,
            promotions: Mutex::default(),
            backups: Arc::default(),
            quiet: Mutex::default(),
            swept: Mutex::default(),
        })
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        (self.clock)()
    }

    /// What is remembered, for reading.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The logs of steps.
    #[must_use]
    pub fn logs(&self) -> &Arc<LogStore> {
        &self.logs
    }

    /// The pending effects.
    #[must_use]
    pub fn queue(&self) -> &EffectQueue {
        &self.queue
    }

    /// The server's keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Says where the last lines of the log are. Once.
    pub fn logs_into(&self, tail: Arc<log_tail::LogTail>) {
        tail.bound(self.config.bounds.log_tail_bytes);
        // A second one is a mistake of who builds the server, and the first stays good.
        let _ = self.log_tail.set(tail);
    }

    /// What the server counts of itself.
    #[must_use]
    pub fn metrics(&self) -> &metrics::Metrics {
        &self.metrics
    }

    /// What is to be told in traces.
    #[must_use]
    pub fn traces(&self) -> &traces::Traces {
        &self.traces
    }

    /// What tells this server from another one on the same engine; it outlives the key.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The lock of a service: whoever changes its train holds it from reading to the stored change.
    fn lock_of(&self, service: &ServiceName) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(service.clone()).or_default())
    }
}
