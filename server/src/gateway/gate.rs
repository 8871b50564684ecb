//! What all connections share, and the life of one client connection. Listening sockets are in
//! `listen`, requests in `proxy`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::proxy;
use super::stall::WriteStall;
use super::table::Table;
use super::workers::Workers;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) table: Table,
    pub(super) slots: Arc<Slots>,
    pub(super) workers: Workers,
    /// Client connections and tunnels.
    pub(super) tasks: TaskTracker,
    /// Stopping, first: answers tell their client to close.
    pub(super) closing: CancellationToken,
    /// Stopping, second: unused client connections are closed.
    pub(super) leaving: CancellationToken,
    /// Stopping, last: what is still there is cut.
    pub(super) cut: CancellationToken,
}

impl Gate {
    pub(super) fn new(table: Table, workers: Workers) -> Self {
        Self {
            table,
            workers,
            slots: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            leaving: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Serves one client connection, which must not block, in a task of its own on one of the workers.
    pub(super) fn welcome(self: &Arc<Self>, stream: std::net::TcpStream, peer: SocketAddr, slot: Slot) {
        let (gate, place) = (Arc::clone(self), self.workers.place());
        let runtime = place.runtime.clone();
        let task = async move {
            // Here, so that the worker is told of what comes.
            match TcpStream::from_std(stream) {
                Ok(stream) => gate.converse(stream, peer).await,
                Err(error) => tracing::warn!(%error, %peer, "a client connection could not be served"),
            }
            drop((slot, place));
        };
        self.tasks.spawn_on(task, &runtime);
    }

    async fn converse(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let limits = self.table.limits();
        // A socket that refuses the option is about to fail anyway, and says so then.
        let _ = stream.set_nodelay(true);
        let stream = WriteStall::new(stream, Duration::from_millis(limits.client_write_timeout_ms));
        let service = service_fn(|request| {
            let gate = Arc::clone(self);
            async move { Ok::<_, Infallible>(proxy::serve(gate, peer, request).await) }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(limits.header_read_timeout_ms))
            .max_buf_size(limits.max_header_bytes)
            .max_header_size(limits.max_header_bytes);
        if limits.max_headers != super::config::Limits::default().max_headers {
            // Costs a heap allocation per request, so only where it differs from hyper's own.
            builder.max_headers(limits.max_headers);
        }
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.cut.cancelled() => return,
            () = self.leaving.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    result = connection.as_mut() => result,
                    () = self.cut.cancelled() => return,
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, %peer, "a client connection ended");
        }
    }
}

/// How many client connections are open, and who waits for one to end.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: AtomicUsize,
    freed: Notify,
}

/// One open client connection.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits until there are fewer than the table allows.
    pub(super) async fn take(self: &Arc<Self>, table: &Table) -> Slot {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let most = table.limits().max_connections;
            let one_more = |taken: usize| (taken < most).then_some(taken + 1);
            if self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok() {
                return Slot(Arc::clone(self));
            }
            freed.await;
        }
    }

    /// A connection that is there already: it counts, however many there are.
    pub(super) fn take_anyway(self: &Arc<Self>) -> Slot {
        self.taken.fetch_add(1, Ordering::AcqRel);
        Slot(Arc::clone(self))
    }

    /// The bound may have changed.
    pub(super) fn look_again(&self) {
        self.freed.notify_waiters();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_waiters();
    }
}
