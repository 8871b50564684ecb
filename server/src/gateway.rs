//! The gateway: the process in front of the services of the docker target. It routes by host name
//! and weight, drains, counts, and keeps its last configuration, so that the server may stop, be
//! killed or be upgraded without losing a request of the services.
//!
//! The server tells it what to do through [`GatewayClient`]; it knows nothing of releases, stores or
//! Docker. **Architecture invariant**: nothing in here imports another module of this crate.

mod balance;
mod body;
mod client;
mod config;
mod control;
mod gate;
mod handover;
mod headers;
mod keep;
mod listen;
mod pages;
mod proxy;
pub(crate) mod stall;
mod stats;
mod table;
mod tunnel;
mod upstream;
mod workers;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pipelines::errors::chain;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::client::{ClientError, GatewayClient};
pub use self::config::{CONFIG_VERSION, GatewayConfig, Limits, RevisionConfig, RouteConfig, Share, WEIGHT_TOTAL};
pub use self::control::{DrainState, Drained, Health, InForce, Refusal};
pub use self::keep::{Generation, KeepError};
pub use self::listen::{ListenError, Listening};
pub use self::stats::{GatewayStats, LATENCY_BOUNDS_MS, RevisionStats};

use self::control::Control;
use self::gate::Gate;
use self::handover::Predecessor;
use self::keep::Keep;
use self::listen::Prepared;
use self::table::Table;
use self::workers::Workers;

/// How often unused connections to backends are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// Time for what was cut to notice.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a gateway is started.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Its folder, made if it is not there and for its owner only: the configuration, the control
    /// socket, and the lock that keeps a second gateway from serving the same configuration. The
    /// path must be short: a Unix socket's has at most 107 bytes.
    pub folder: PathBuf,
}

/// Why a gateway did not start, or not end well.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// Something in its folder refused.
    #[error("{action} {}", path.display())]
    Folder {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another gateway has the folder and did not hand over.
    #[error("take over from the gateway that has {}", folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// Why it did not.
        #[source]
        source: io::Error,
    },
    /// The kept configuration could not be read.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// An address of the kept configuration is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The threads that serve requests cannot be started.
    #[error("start the threads that serve requests")]
    Threads(#[source] io::Error),
    /// The operating system does not tell us of signals.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
}

/// Runs a gateway until SIGTERM, SIGINT or a successor ends it; requests in flight are finished
/// within the configured time.
///
/// # Errors
/// When it cannot start: another gateway keeps the folder, an address is taken, the folder is not
/// writable.
pub async fn run(options: GatewayOptions) -> Result<(), GatewayError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(GatewayError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(GatewayError::Signals)?;
    let gateway = Gateway::start(options).await?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("told to end"),
        _ = interrupt.recv() => tracing::info!("told to end"),
        () = gateway.succeeded() => tracing::info!("a successor took over"),
    }
    gateway.stop().await;
    Ok(())
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    control: Arc<Control>,
    lock: Arc<std::sync::Mutex<Option<File>>>,
    succeeded: CancellationToken,
    sockets: Vec<OwnSocket>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts a gateway with the configuration that its folder keeps. Where another one has the
    /// folder, it is relieved without a refused connection.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn start(options: GatewayOptions) -> Result<Self, GatewayError> {
        raise_descriptors();
        let folder = options.folder;
        let (lock, predecessor) = blocking({
            let folder = folder.clone();
            move || enter(&folder)
        })
        .await?;
        let keep = Keep::new(folder.join("gateway.json"));
        let kept = blocking({
            let keep = keep.clone();
            move || load(&keep)
        })
        .await?;
        let alone = CancellationToken::new();
        let control = Arc::new(Control {
            gate: Arc::new(Gate::new(
                Table::new(Generation { generation: 0, config: GatewayConfig::default() }),
                Workers::start().map_err(GatewayError::Threads)?,
            )),
            duty: tokio::sync::Mutex::default(),
            keep,
            instance: format!("{:016x}", rand::random::<u64>()),
            alone: alone.clone(),
        });
        let (shared, predecessor) = match predecessor {
            Some((predecessor, shared)) => (Prepared::adopt(shared)?, Some(predecessor)),
            None => (Prepared::default(), None),
        };
        let (control_listener, control_socket) = OwnSocket::bind(control_socket(&folder))?;
        let (handover_listener, handover_socket) = OwnSocket::bind(handover_socket(&folder))?;
        let mut duty = control.duty.lock().await;
        let prepared = duty.listeners.prepare(&kept.config.listen, shared)?;
        // Nothing can fail for want of something from here on, so the predecessor may go. Until we
        // accept, whoever comes waits in the queue.
        let lock = relieve(&folder, lock, predecessor, &alone).await?;
        control.enforce(&mut duty, kept, prepared).await;
        drop(duty);
        control_socket.publish()?;
        handover_socket.publish()?;
        let lock = Arc::new(std::sync::Mutex::new(Some(lock)));
        let succeeded = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(serve_control(control_listener, Arc::clone(&control))),
            tokio::spawn(serve_handover(handover_listener, Arc::clone(&control), Arc::clone(&lock), succeeded.clone())),
            tokio::spawn(sweep(Arc::clone(&control.gate))),
        ];
        tracing::info!(generation = control.gate.table.generation(), instance = control.instance, "the gateway serves");
        Ok(Self { control, lock, succeeded, sockets: vec![control_socket, handover_socket], tasks })
    }

    /// Where it accepts requests.
    pub async fn listening(&self) -> Vec<Listening> {
        self.control.duty.lock().await.listeners.listening()
    }

    /// Waits until another process has taken over.
    pub async fn succeeded(&self) {
        self.succeeded.cancelled().await;
    }

    /// Stops accepting, finishes what is in flight within the configured time, and ends.
    pub async fn stop(self) {
        let gate = &self.control.gate;
        let limits = gate.table.limits();
        gate.closing.cancel();
        {
            let mut duty = self.control.duty.lock().await;
            duty.ended = true;
            duty.listeners.close(gate, true).await;
        }
        drop(self.sockets);
        gate.tasks.close();
        let grace = Duration::from_millis(limits.close_grace_ms);
        let drain = Duration::from_millis(limits.drain_timeout_ms);
        // Clients that use their connection now are told to close it; closing it under them could
        // meet their next request half way.
        if timeout(grace, gate.tasks.wait()).await.is_err() {
            gate.leaving.cancel();
            if timeout(drain.saturating_sub(grace), gate.tasks.wait()).await.is_err() {
                tracing::warn!(left = gate.tasks.len(), "connections are cut");
                gate.cut.cancel();
                let _ = timeout(LAST_WORDS, gate.tasks.wait()).await;
            }
        }
        for task in &self.tasks {
            task.abort();
        }
        drop(self.lock);
        tracing::info!("the gateway ended");
    }
}

/// The control socket of the gateway with this folder.
fn control_socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

fn handover_socket(folder: &Path) -> PathBuf {
    folder.join("handover.sock")
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // It is never cancelled, so it panicked: so do we.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Has this process open as many files as it may: each connection needs a descriptor or two, and the usual soft bound is
/// 1024.
pub fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit { current: maximum, maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the bound on open files stays as it is");
    }
}

type Entered = (File, Option<(Predecessor, handover::Sockets)>);

/// Makes the folder and takes its lock, or asks who has it for its sockets. Blocks.
fn enter(folder: &Path) -> Result<Entered, GatewayError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| GatewayError::Folder { action, path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make", folder))?;
    let path = folder.join("gateway.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok((lock, None)),
        Err(TryLockError::WouldBlock) => {
            let asked = Predecessor::ask(&handover_socket(folder));
            let asked = asked.map_err(|source| GatewayError::Occupied { folder: folder.to_owned(), source })?;
            Ok((lock, Some(asked)))
        }
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

/// What the folder keeps. Something that cannot be understood is set aside: the server will send
/// its configuration again, and a gateway that does not start could not take it. Blocks.
fn load(keep: &Keep) -> Result<Generation, KeepError> {
    let nothing = Generation { generation: 0, config: GatewayConfig::default() };
    match keep.load() {
        Ok(kept) => Ok(kept.unwrap_or(nothing)),
        Err(error @ KeepError::Unreadable { .. }) => {
            let aside = keep.set_aside()?;
            tracing::error!(error = chain(&error), aside = %aside.display(), "serving nothing until the next configuration");
            Ok(nothing)
        }
        Err(error) => Err(error),
    }
}

/// Relieves the predecessor, if there is one, and holds the folder's lock.
async fn relieve(
    folder: &Path,
    lock: File,
    predecessor: Option<Predecessor>,
    alone: &CancellationToken,
) -> Result<File, GatewayError> {
    let Some(mut predecessor) = predecessor else {
        alone.cancel();
        return Ok(lock);
    };
    let occupied = {
        let folder = folder.to_owned();
        move |source| GatewayError::Occupied { folder, source }
    };
    let (predecessor, lock) = blocking(move || {
        predecessor.relieve()?;
        // It was unlocked before we were told.
        lock.try_lock().map_err(io::Error::from)?;
        Ok((predecessor, lock))
    })
    .await
    .map_err(occupied)?;
    let alone = alone.clone();
    tokio::spawn(async move {
        predecessor.ended().await;
        alone.cancel();
    });
    Ok(lock)
}

async fn serve_control(listener: UnixListener, control: Arc<Control>) {
    if let Err(error) = axum::serve(listener, control::router(control)).await {
        tracing::error!(%error, "the control socket failed");
    }
}

async fn serve_handover(
    listener: UnixListener,
    control: Arc<Control>,
    lock: Arc<std::sync::Mutex<Option<File>>>,
    succeeded: CancellationToken,
) {
    loop {
        let stream = match listener.accept().await.and_then(|(s, _)| s.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, "the handover socket failed");
                return;
            }
        };
        match hand_over(stream, &control, &lock).await {
            Ok(stream) => {
                succeeded.cancel();
                // Held until this task is aborted, when nothing is in flight any more: its end
                // tells the successor that this process serves no request.
                std::future::pending::<()>().await;
                drop(stream);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a successor did not take over, going on");
            }
        }
    }
}

async fn hand_over(
    mut stream: std::os::unix::net::UnixStream,
    control: &Control,
    lock: &std::sync::Mutex<Option<File>>,
) -> io::Result<std::os::unix::net::UnixStream> {
    // Held until the end: no configuration is taken that the successor does not read.
    let mut duty = control.duty.lock().await;
    let sockets = duty.listeners.share()?;
    let mut stream = blocking(move || {
        handover::give(&mut stream, &sockets)?;
        Ok::<_, io::Error>(stream)
    })
    .await?;
    duty.ended = true;
    duty.listeners.close(&control.gate, false).await;
    drop(lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    blocking(move || {
        handover::leave(&mut stream)?;
        Ok(stream)
    })
    .await
}

async fn sweep(gate: Arc<Gate>) {
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tick.tick().await;
        gate.table.sweep();
    }
}

/// A Unix socket in the folder that is removed at the end, unless a successor's is there by then.
#[derive(Debug)]
struct OwnSocket {
    path: PathBuf,
    fresh: PathBuf,
    inode: u64,
}

impl OwnSocket {
    /// Binds it for the owner only, under a name that nobody looks for yet.
    fn bind(path: PathBuf) -> Result<(UnixListener, Self), GatewayError> {
        let fresh = path.with_extension(format!("{:08x}", rand::random::<u32>()));
        let bound = UnixListener::bind(&fresh).and_then(|listener| {
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
            Ok((listener, std::fs::metadata(&fresh)?.ino()))
        });
        match bound {
            Ok((listener, inode)) => Ok((listener, Self { path, fresh, inode })),
            Err(source) => Err(GatewayError::Folder { action: "bind", path: fresh, source }),
        }
    }

    /// Replaces an older one in one step, so that a caller finds either.
    fn publish(&self) -> Result<(), GatewayError> {
        std::fs::rename(&self.fresh, &self.path).map_err(|source| GatewayError::Folder {
            action: "publish",
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        for path in [&self.path, &self.fresh] {
            if std::fs::metadata(path).is_ok_and(|found| found.ino() == self.inode) {
                // Left behind it does no harm: the next one replaces it.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
