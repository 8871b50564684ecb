//! What waits, how much of it may wait, and what was refused because as much waited: one list for page, API and metrics. And
//! the refusing itself, and how what was refused is made up for. The bounds are in the configuration. Not here: the pending
//! effects themselves (`queue`), tries that are slowed (`throttle`), room on the disk (`room`).

mod heal;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pipelines::ids::ServiceName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{App, AppError, queue::Waiting};
use crate::config::Bounds;

/// After this many seconds a hook or a run that was refused may be sent again.
const RETRY_AFTER_S: u32 = 10;

/// What becomes of what comes when as much waits as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It is refused, and its sender told when to come again.
    Refused,
    /// It waits where it is.
    Waits,
}

macro_rules! queues {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $key:literal, $over:ident),* $(,)?) => {
        /// A bounded thing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum QueueKind {
            $($(#[$doc])* $name),*
        }

        impl QueueKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word for it in API and metrics.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// The key of its bound in the configuration.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key),* }
            }

            /// What becomes of what comes beyond the bound.
            #[must_use]
            pub const fn over(self) -> Over {
                match self { $(Self::$name => Over::$over),* }
            }
        }
    };
}

queues! {
    /// Connections to the server.
    Connections = "connections", "bounds.connections_max", Waits,
    /// Open streams of events and lines.
    Streams = "streams", "bounds.streams_max", Refused,
    /// Bytes of hooks that are being received.
    HookBytes = "hook_bytes", "bounds.hook_bytes_in_flight_max", Refused,
    /// Hooks that were taken and not looked at yet.
    Hooks = "hooks", "bounds.hooks_waiting_max", Refused,
    /// Runs that wait for a runner or are with one.
    Runs = "runs", "bounds.runs_waiting_max", Refused,
    /// Effects that wait or are being performed, those of hooks and runs too.
    Effects = "effects", "bounds.effects_waiting_max", Refused,
    /// Effects that are being performed by the server.
    Performing = "performing", "bounds.effects_parallel_max", Waits,
    /// Mails that the mail server has not taken yet; they are some of the effects.
    Mails = "mails", "bounds.effects_waiting_max", Refused,
    /// Changes that wait for the store's next flush.
    StoreChanges = "store_changes", "bounds.store_changes_waiting_max", Refused,
    /// Bytes of log lines that are being written down.
    LogBytes = "log_bytes", "bounds.log_bytes_in_flight_max", Waits,
    /// Connections of visitors to the gateway, as they were when the server last looked.
    GatewayConnections = "gateway_connections", "gateway.connections_max", Waits,
    /// Runs of which something is to be told in a trace.
    Traces = "traces", "tracing.queue_runs_max", Refused,
}

impl QueueKind {
    /// Whether it is counted in bytes.
    #[must_use]
    pub const fn is_bytes(self) -> bool {
        matches!(self, Self::HookBytes | Self::LogBytes)
    }
}

/// One bounded thing, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Which.
    pub kind: QueueKind,
    /// How much of it there is.
    pub length: u64,
    /// How much there may be.
    pub bound: u64,
    /// How often something was refused because as much was there, since the server started.
    pub refused: u64,
    /// The bound for each single service, where there is one.
    pub of_service: Option<OfService>,
}

/// The bound for each single service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfService {
    /// Its key in the configuration.
    pub key: &'static str,
    /// How much there may be.
    pub bound: u64,
    /// The service that has most, and how much.
    pub fullest: Option<(ServiceName, u64)>,
}

/// Room that is given out piece by piece.
#[derive(Debug)]
struct Pool {
    free: Arc<Semaphore>,
    max: usize,
}

impl Pool {
    fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max }
    }

    fn used(&self) -> u64 {
        self.max.saturating_sub(self.free.available_permits()) as u64
    }
}

/// What is in flight, and what was refused.
#[derive(Debug)]
pub struct Load {
    connections: Pool,
    streams: Pool,
    hook_bytes: Pool,
    log_bytes: Pool,
    gateway: AtomicU64,
    refused: [AtomicU64; QueueKind::ALL.len()],
    heal: heal::Marks,
}

impl Load {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let bytes = |max: u32| Pool::new(usize::try_from(max).unwrap_or(usize::MAX));
        Self {
            connections: Pool::new(bounds.connections_max),
            streams: Pool::new(bounds.streams_max),
            hook_bytes: bytes(bounds.hook_bytes_in_flight_max),
            log_bytes: bytes(bounds.log_bytes_in_flight_max),
            gateway: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            heal: heal::Marks::default(),
        }
    }

    /// Room for one more connection; waits for it.
    pub async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections.free).acquire_owned().await.ok()
    }

    /// Room for one more open stream; none where there are as many as the configuration allows.
    #[must_use]
    pub fn stream(&self) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.streams.free).try_acquire_owned().ok();
        self.told(QueueKind::Streams, room)
    }

    /// Room for so many more bytes of a hook; none where there is not so much.
    #[must_use]
    pub fn hook_bytes(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.hook_bytes.free).try_acquire_many_owned(bytes).ok();
        self.told(QueueKind::HookBytes, room)
    }

    /// Room for so many bytes of log lines; waits for it.
    pub async fn log_bytes(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // What is larger than all the room goes alone.
        let bytes = u32::try_from(bytes.min(self.log_bytes.max)).unwrap_or(u32::MAX);
        Arc::clone(&self.log_bytes.free).acquire_many_owned(bytes).await.ok()
    }

    /// What the gateway said of its connections.
    pub fn gateway_seen(&self, connections: u64) {
        self.gateway.store(connections, Ordering::Relaxed);
    }

    fn told<T>(&self, kind: QueueKind, room: Option<T>) -> Option<T> {
        if room.is_none() {
            self.count_refused(kind);
        }
        room
    }

    fn count_refused(&self, kind: QueueKind) {
        if let Some(count) = self.refused.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn refused(&self, kind: QueueKind) -> u64 {
        self.refused.get(kind as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl App {
    /// What is in flight.
    #[must_use]
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Everything that is bounded, as it is now, in the order of [`QueueKind::ALL`].
    #[must_use]
    pub fn queues(&self) -> Vec<Queue> {
        let waiting = self.queue.waiting();
        let store = self.store.waiting();
        let bounds = &self.config.bounds;
        let queue = |kind: QueueKind| {
            let pool = |pool: &Pool| (pool.used(), pool.max as u64);
            let counted = |length: usize, bound: usize| (length as u64, bound as u64);
            let (length, bound) = match kind {
                QueueKind::Connections => pool(&self.load.connections),
                QueueKind::Streams => pool(&self.load.streams),
                QueueKind::HookBytes => pool(&self.load.hook_bytes),
                QueueKind::LogBytes => pool(&self.load.log_bytes),
                QueueKind::Hooks => counted(waiting.hooks, bounds.hooks_waiting_max),
                QueueKind::Runs => counted(waiting.runs, bounds.runs_waiting_max),
                QueueKind::Effects => counted(waiting.effects, bounds.effects_waiting_max),
                QueueKind::Performing => counted(waiting.performing, bounds.effects_parallel_max),
                QueueKind::Mails => counted(waiting.mails, bounds.effects_waiting_max),
                QueueKind::StoreChanges => counted(store.waiting, store.max),
                QueueKind::GatewayConnections => {
                    (self.load.gateway.load(Ordering::Relaxed), self.config.gateway.connections_max as u64)
                }
                QueueKind::Traces => counted(self.traces.waiting(), self.config.tracing.queue_runs_max),
            };
            let refused = match kind {
                QueueKind::StoreChanges => store.refused,
                QueueKind::Traces => self.traces.dropped(),
                _ => self.load.refused(kind),
            };
            Queue { kind, length, bound, refused, of_service: self.queue_of_service(kind) }
        };
        QueueKind::ALL.iter().map(|kind| queue(*kind)).collect()
    }

    fn queue_of_service(&self, kind: QueueKind) -> Option<OfService> {
        let bounds = &self.config.bounds;
        type Of = fn(&Waiting) -> usize;
        let (key, bound, of): (_, _, Of) = match kind {
            QueueKind::Hooks => {
                ("bounds.hooks_waiting_per_service_max", bounds.hooks_waiting_per_service_max, |it| it.hooks)
            }
            QueueKind::Runs => {
                ("bounds.runs_waiting_per_service_max", bounds.runs_waiting_per_service_max, |it| it.runs)
            }
            QueueKind::Performing => {
                ("bounds.effects_per_service_parallel_max", bounds.effects_per_service_parallel_max, |it| it.performing)
            }
            _ => return None,
        };
        let fullest = self.queue.fullest(of).map(|(name, count)| (name, count as u64));
        Some(OfService { key, bound: bound as u64, fullest })
    }

    fn full(&self, kind: QueueKind, detail: String, of_service: bool) -> AppError {
        self.load.count_refused(kind);
        AppError::Full { detail, of_service, retry_after_s: RETRY_AFTER_S }
    }

    /// Whether one more effect may wait, of whatever kind.
    ///
    /// # Errors
    /// [`AppError::Full`] where as many wait as may.
    pub fn room_for_effects(&self) -> Result<(), AppError> {
        let waiting = self.queue.waiting().effects;
        if waiting < self.config.bounds.effects_waiting_max {
            return Ok(());
        }
        Err(self.full(QueueKind::Effects, format!("{waiting} pieces of work wait on this server already"), false))
    }

    /// Whether the server takes one more hook, whatever it is about: asked before anything of it is read.
    ///
    /// # Errors
    /// [`AppError::Full`] where it does not.
    pub fn room_for_hooks(&self) -> Result<(), AppError> {
        let waiting = self.queue.waiting().hooks;
        if waiting >= self.config.bounds.hooks_waiting_max {
            return Err(self.full(QueueKind::Hooks, format!("{waiting} hooks wait on this server already"), false));
        }
        self.room_for_effects()
    }

    /// Whether the server takes one more hook of this service; asked when it is known to be the service's. What a refused
    /// one told is found by a poll soon.
    ///
    /// # Errors
    /// [`AppError::Full`] where it does not.
    pub fn room_for_hooks_of(&self, service: &ServiceName) -> Result<(), AppError> {
        let waiting = self.queue.waiting_of(service).hooks;
        if waiting < self.config.bounds.hooks_waiting_per_service_max {
            return Ok(());
        }
        self.load.heal.mark(service);
        Err(self.full(QueueKind::Hooks, format!("{waiting} hooks of {service} wait already"), true))
    }

    /// Whether one more run of this service may wait.
    ///
    /// # Errors
    /// [`AppError::Full`] where as many wait as may, of the service or in all.
    pub fn room_for_runs(&self, service: &ServiceName) -> Result<(), AppError> {
        let bounds = &self.config.bounds;
        let (all, own) = (self.queue.waiting().runs, self.queue.waiting_of(service).runs);
        if own >= bounds.runs_waiting_per_service_max {
            return Err(self.full(QueueKind::Runs, format!("{own} runs of {service} wait or run already"), true));
        }
        if all >= bounds.runs_waiting_max {
            return Err(self.full(QueueKind::Runs, format!("{all} runs wait or run on this server already"), false));
        }
        self.room_for_effects()
    }

    /// How many runs what was found in the repository of this service may make now; one at least.
    pub(super) fn runs_at_once(&self, service: &ServiceName) -> usize {
        let waiting = self.queue.waiting_of(service).runs;
        self.config.bounds.runs_waiting_per_service_max.saturating_sub(waiting).max(1)
    }
}

#[cfg(test)]
mod tests;
