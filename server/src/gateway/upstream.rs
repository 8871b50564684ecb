//! Connections to backends: made, kept, lent and given back. Which backend a request goes to, and
//! whether it is tried again, is decided in `proxy`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::Outgoing;
use super::config::Limits;
use super::workers;

/// How long a connection whose answer has ended may take to become usable again.
const READY_AGAIN: Duration = Duration::from_secs(1);

/// One backend and the connections to it that nobody uses.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    /// For each worker, so that a connection stays where it was made; the longest unused first.
    idle: Vec<Mutex<VecDeque<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// Which kept connections a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Any: the request may be sent again.
    Any,
    /// One used a moment ago: a backend that is about to close an unused one is unlikely to do it
    /// just now, and the request must not be sent twice.
    Recent,
    /// None: a kept one has just failed.
    Never,
}

/// Why there is no connection. Nothing was sent.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("connect to the backend")]
    Refused(#[source] std::io::Error),
    #[error("connect to the backend in {0:?}")]
    Timeout(Duration),
    #[error("begin HTTP on a new connection")]
    Handshake(#[source] hyper::Error),
}

/// A connection lent to one request.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) sender: SendRequest<Outgoing>,
    pub(super) kept: bool,
    backend: Arc<Backend>,
    max_idle: usize,
}

impl Backend {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, idle: (0..workers::count()).map(|_| Mutex::default()).collect() }
    }

    /// Those of this worker. There is always one: threads are numbered below `workers::count`.
    fn idle(&self) -> Option<MutexGuard<'_, VecDeque<Idle>>> {
        self.idle.get(workers::here()).map(|idle| idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lends a connection: a kept one if there is one of the wanted kind, else a new one.
    pub(super) async fn lease(self: &Arc<Self>, limits: &Limits, reuse: Reuse) -> Result<Lease, ConnectError> {
        let oldest = match reuse {
            Reuse::Any => Some(Duration::from_millis(limits.backend_idle_timeout_ms)),
            Reuse::Recent => Some(Duration::from_millis(limits.unsafe_reuse_idle_ms)),
            Reuse::Never => None,
        };
        let kept = oldest.and_then(|oldest| self.take(oldest));
        let (sender, kept) = match kept {
            Some(sender) => (sender, true),
            None => (self.connect(limits).await?, false),
        };
        Ok(Lease { sender, kept, backend: Arc::clone(self), max_idle: limits.max_idle_per_backend })
    }

    fn take(&self, oldest: Duration) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.idle()?;
        while let Some(last) = idle.back() {
            if last.since.elapsed() >= oldest {
                return None;
            }
            let last = idle.pop_back()?;
            if last.sender.is_ready() && !last.sender.is_closed() {
                return Some(last.sender);
            }
        }
        None
    }

    async fn connect(&self, limits: &Limits) -> Result<SendRequest<Outgoing>, ConnectError> {
        let within = limits.connect_timeout();
        let stream = timeout(within, TcpStream::connect(self.address))
            .await
            .map_err(|_| ConnectError::Timeout(within))?
            .map_err(ConnectError::Refused)?;
        // Without it a small request waits for the acknowledgement of the one before. A socket
        // that refuses the option is about to fail anyway, and says so then.
        let _ = stream.set_nodelay(true);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(limits.max_header_bytes);
        if limits.max_headers != Limits::default().max_headers {
            // Costs a heap allocation per answer, so only where it differs from hyper's own.
            builder.max_headers(limits.max_headers);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(ConnectError::Handshake)?;
        // Ends when its sender is dropped and nothing is under way on it.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a backend ended");
            }
        });
        Ok(sender)
    }

    /// Closes what was unused for too long, or was closed by the backend.
    pub(super) fn sweep(&self, limits: &Limits) {
        let oldest = Duration::from_millis(limits.backend_idle_timeout_ms);
        for idle in &self.idle {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < oldest);
        }
    }

    fn put(&self, sender: SendRequest<Outgoing>, max_idle: usize) {
        let (count, here) = (self.idle.len().max(1), workers::here());
        // All workers together keep as many as are allowed.
        let most = max_idle / count + usize::from(here < max_idle % count);
        let Some(mut idle) = self.idle().filter(|_| most > 0 && !sender.is_closed()) else { return };
        if idle.len() >= most {
            idle.pop_front();
        }
        idle.push_back(Idle { sender, since: Instant::now() });
    }
}

impl Lease {
    /// Keeps the connection for a later request. Call it when the whole answer was read.
    pub(super) fn give_back(self) {
        let Self { mut sender, backend, max_idle, .. } = self;
        if sender.is_ready() {
            backend.put(sender, max_idle);
            return;
        }
        // The answer has ended a moment before its connection knows that it is free. Should the
        // request still be on its way (the backend answered early), it is not waited for.
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(READY_AGAIN, sender.ready()).await {
                backend.put(sender, max_idle);
            }
        });
    }
}
