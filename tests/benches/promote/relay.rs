//! A TCP relay that adds to the round trip: what a network between two houses does, where the kernel cannot.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};

/// What one read takes, and how many such pieces are on their way: 16 MB in each direction, so that the delay costs
/// time and not throughput.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 256;

/// Ends with its last connection when dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Leads to `target`; half of `added` is spent in each direction.
    pub(crate) async fn start(target: &str, added: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, target) = (listener.local_addr()?, target.to_owned());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    // A connection takes a round trip to open: the first bytes wait for it as any others do.
                    let Ok(far) = TcpStream::connect(&target).await else { return };
                    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
                        return;
                    }
                    tokio::time::sleep(added).await;
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(pass(near_in, far_out, added / 2), pass(far_in, near_out, added / 2));
                });
            }
        });
        Ok(Self { address, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes on what comes, each piece `delay` after it came.
async fn pass(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, delay: Duration) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let read = async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            match from.read_buf(&mut piece).await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
            if sender.send((Instant::now() + delay, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The end of one direction is an end there, too.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
