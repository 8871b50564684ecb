//! A connection that changed its protocol (WebSocket): bytes both ways until either side ends it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until};

use super::body::Progress;
use super::gate::Gate;
use super::table::Ticket;

/// Joins the two sides as soon as both have changed. The ticket is held until the end, so that a
/// drain of the revision waits for it.
pub(super) fn start(gate: &Arc<Gate>, client: OnUpgrade, backend: OnUpgrade, ticket: Ticket, idle: Duration) {
    let cut = gate.cut.clone();
    // The client's connection ends its life as HTTP, and its slot with it.
    let slot = gate.slots.take_anyway();
    gate.tasks.spawn(async move {
        let joined = async {
            let (client, backend) = tokio::try_join!(client, backend)?;
            let moved = Arc::new(Progress::new());
            let mut client = Watched::new(TokioIo::new(client), &moved);
            let mut backend = Watched::new(TokioIo::new(backend), &moved);
            tokio::select! {
                // How a side ended its protocol is for the two of them to know.
                _ = copy_bidirectional(&mut client, &mut backend) => {}
                () = idle_for(&moved, idle) => {}
            }
            Ok::<(), hyper::Error>(())
        };
        tokio::select! {
            result = joined => if let Err(error) = result {
                tracing::debug!(%error, "an upgrade was not completed");
            },
            () = cut.cancelled() => {}
        }
        drop((ticket, slot));
    });
}

async fn idle_for(moved: &Progress, span: Duration) {
    loop {
        let until = moved.last() + span;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

/// A stream that notes when a byte came.
struct Watched<S> {
    stream: S,
    moved: Arc<Progress>,
}

impl<S> Watched<S> {
    fn new(stream: S, moved: &Arc<Progress>) -> Self {
        Self { stream, moved: Arc::clone(moved) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if result.is_ready() {
            this.moved.moved();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
