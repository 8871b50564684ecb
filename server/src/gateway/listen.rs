//! The listening sockets: bound, given to a successor, closed without losing who is in the queue.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;

/// Connections that the kernel holds for us until we accept them.
const QUEUE: u32 = 1_024;

/// The pause after `accept` failed for want of memory or descriptors: nothing tells when there is
/// some again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// An address on which requests are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// As the configuration names it.
    pub wanted: SocketAddr,
    /// As it is: the port is known where the configuration left it open.
    pub local: SocketAddr,
}

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
#[error("listen on {address}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// All listening sockets.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    wanted: SocketAddr,
    socket: Socket,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

/// A socket that is bound, and on which nobody accepts yet.
#[derive(Debug, Clone)]
struct Socket {
    listener: Arc<TcpListener>,
    local: SocketAddr,
}

/// New sockets for a configuration that is not in force yet.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    sockets: Vec<(SocketAddr, Socket)>,
}

impl Listeners {
    pub(super) fn listening(&self) -> Vec<Listening> {
        let all = self.open.iter().map(|open| Listening { wanted: open.wanted, local: open.socket.local });
        all.collect()
    }

    /// Binds what `wanted` has and neither we nor `shared` have. Changes nothing that is open.
    pub(super) fn prepare(&self, wanted: &[SocketAddr], shared: Prepared) -> Result<Prepared, ListenError> {
        let mut have: Vec<SocketAddr> = self.open.iter().map(|open| open.wanted).collect();
        let mut prepared = shared;
        have.extend(prepared.sockets.iter().map(|(address, _)| *address));
        for address in wanted {
            if let Some(found) = have.iter().position(|one| one == address) {
                have.swap_remove(found);
                continue;
            }
            let socket = bind(*address).map_err(|source| ListenError { address: *address, source })?;
            prepared.sockets.push((*address, socket));
        }
        Ok(prepared)
    }

    /// Accepts on what was prepared, and closes what is not wanted any more.
    pub(super) async fn commit(&mut self, gate: &Arc<Gate>, wanted: &[SocketAddr], prepared: Prepared) {
        let mut wanted = wanted.to_vec();
        let mut unwanted = Vec::new();
        for open in std::mem::take(&mut self.open) {
            match wanted.iter().position(|one| *one == open.wanted) {
                Some(found) => {
                    wanted.swap_remove(found);
                    self.open.push(open);
                }
                None => unwanted.push(open),
            }
        }
        for (address, socket) in prepared.sockets {
            let stop = CancellationToken::new();
            let accepting = accept(Arc::clone(gate), Arc::clone(&socket.listener), stop.clone());
            self.open.push(Open { wanted: address, socket, accepting: tokio::spawn(accepting), stop });
        }
        for open in unwanted {
            open.close(gate, true).await;
        }
    }

    /// Stops accepting everywhere. `drain`: whoever is in a queue is still served; not so where a
    /// successor accepts on the same sockets.
    pub(super) async fn close(&mut self, gate: &Arc<Gate>, drain: bool) {
        for open in self.open.drain(..) {
            open.close(gate, drain).await;
        }
    }

    /// Copies of the sockets for a successor.
    pub(super) fn share(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        use std::os::fd::AsFd;
        let copies = self.open.iter().map(|open| {
            let copy = open.socket.listener.as_fd().try_clone_to_owned()?;
            Ok((open.wanted, copy))
        });
        copies.collect()
    }
}

impl Prepared {
    /// The sockets of a predecessor.
    pub(super) fn adopt(shared: Vec<(SocketAddr, OwnedFd)>) -> Result<Self, ListenError> {
        let adopt = |fd: OwnedFd| {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            Socket::new(TcpListener::from_std(listener)?)
        };
        let sockets = shared.into_iter().map(|(address, fd)| {
            let socket = adopt(fd).map_err(|source| ListenError { address, source })?;
            Ok((address, socket))
        });
        Ok(Self { sockets: sockets.collect::<Result<_, _>>()? })
    }
}

impl Socket {
    fn new(listener: TcpListener) -> io::Result<Self> {
        Ok(Self { local: listener.local_addr()?, listener: Arc::new(listener) })
    }
}

impl Open {
    async fn close(self, gate: &Arc<Gate>, drain: bool) {
        self.stop.cancel();
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, address = %self.wanted, "accepting ended by itself");
        }
        if drain {
            serve_queue(gate, &self.socket.listener);
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier process that wait out their time must not keep us from the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Socket::new(socket.listen(QUEUE)?)
}

async fn accept(gate: Arc<Gate>, listener: Arc<TcpListener>, stop: CancellationToken) {
    loop {
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            slot = gate.slots.take(&gate.table) => slot,
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))),
        };
        match accepted {
            Ok((stream, peer)) => gate.welcome(stream, peer, slot),
            Err(error) => {
                drop(slot);
                tracing::warn!(%error, "accepting a connection failed");
                // A client that went away in the queue is no reason to pause.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves those whom the kernel has accepted for us and who would be reset by closing the socket.
fn serve_queue(gate: &Arc<Gate>, listener: &TcpListener) {
    for _ in 0..QUEUE {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let Ok(fd) = accept_with(listener, flags) else {
            return;
        };
        let stream = std::net::TcpStream::from(fd);
        if let Ok(peer) = stream.peer_addr() {
            gate.welcome(stream, peer, gate.slots.take_anyway());
        }
    }
}
