//! One gateway process after another without a refused connection: the successor gets the listening
//! sockets themselves (SCM_RIGHTS), so nobody in their queues is lost, and the predecessor finishes
//! what it has in flight.
//!
//! Over one connection of the Unix socket `handover.sock`: the predecessor sends its sockets and
//! takes no more configurations; the successor accepts and says [`READY`]; the predecessor stops
//! accepting, gives the folder up and says [`YOURS`]. The end of the connection is the end of the
//! predecessor. Until `READY` either side may vanish and the predecessor goes on as before.
//!
//! SO_REUSEPORT was not taken: connections in the queue of the socket that closes are reset.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// The most sockets, as many as a configuration may name.
const MAX_SOCKETS: usize = 16;
const MAX_LIST_BYTES: usize = 4_096;
/// Time for the other side's next word.
const PATIENCE: Duration = Duration::from_secs(10);

const READY: u8 = b'r';
const YOURS: u8 = b'y';

/// A predecessor that has sent its sockets.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
}

/// Sockets, and the addresses that the configuration gives them.
pub(super) type Sockets = Vec<(SocketAddr, OwnedFd)>;

impl Predecessor {
    /// Asks the process that has the folder for its sockets. Blocks.
    pub(super) fn ask(socket: &Path) -> io::Result<(Self, Sockets)> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let sockets = receive(&mut stream)?;
        Ok((Self { stream }, sockets))
    }

    /// Says that we accept; when this returns the predecessor does not, and the folder is ours.
    /// Blocks.
    pub(super) fn relieve(&mut self) -> io::Result<()> {
        self.stream.write_all(&[READY])?;
        expect(&mut self.stream, YOURS)
    }

    /// Waits until the predecessor has ended.
    pub(super) async fn ended(self) {
        let Ok(()) = self.stream.set_nonblocking(true) else {
            return;
        };
        let Ok(mut stream) = tokio::net::UnixStream::from_std(self.stream) else {
            return;
        };
        // Nothing more is said: whatever ends the reading, the other side is gone.
        let mut nothing = [0; 1];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut nothing).await;
    }
}

/// Sends the sockets to a successor and waits until it accepts on them. Blocks.
pub(super) fn give(stream: &mut UnixStream, sockets: &Sockets) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(stream, sockets)?;
    expect(stream, READY)
}

/// Tells the successor that the folder is its own. Blocks.
pub(super) fn leave(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(&[YOURS])
}

fn expect(stream: &mut UnixStream, word: u8) -> io::Result<()> {
    let mut heard = [0; 1];
    stream.read_exact(&mut heard)?;
    if heard[0] == word {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the other process said something else"))
    }
}

fn send(stream: &mut UnixStream, sockets: &Sockets) -> io::Result<()> {
    let mut list: String = sockets.iter().map(|(a, _)| format!("{a} ")).collect();
    list.push('\n');
    let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("more sockets than can be sent"));
    }
    let bytes = list.as_bytes();
    let sent = sendmsg(&*stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(&bytes[sent..])
}

fn receive(stream: &mut UnixStream) -> io::Result<Sockets> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; MAX_LIST_BYTES];
    let received = recvmsg(&*stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            fds.extend(sent);
        }
    }
    let mut length = received.bytes;
    while !buffer[..length].ends_with(b"\n") {
        match stream.read(&mut buffer[length..])? {
            0 => return Err(wrong("the list of sockets broke off")),
            more => length += more,
        }
    }
    let list = std::str::from_utf8(&buffer[..length]).map_err(|_| wrong("the list is no text"))?;
    let addresses: Vec<SocketAddr> = list
        .split_whitespace()
        .map(|address| address.parse().map_err(|_| wrong("the list has no address")))
        .collect::<io::Result<_>>()?;
    if addresses.len() != fds.len() {
        return Err(wrong("there are not as many sockets as addresses"));
    }
    Ok(addresses.into_iter().zip(fds).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_handed_over_is_the_same_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let local = listener.local_addr().expect("an address");
        // In the queue before the handover, and never accepted by the giver.
        let mut client = std::net::TcpStream::connect(local).expect("connects");
        let (mut giver, mut taker) = UnixStream::pair().expect("a pair");
        let giving = std::thread::spawn(move || give(&mut giver, &vec![(local, listener.into())]).map(|()| giver));
        let sockets = receive(&mut taker).expect("receives");
        assert_eq!(sockets.len(), 1);
        assert_eq!(sockets[0].0, local);
        taker.write_all(&[READY]).expect("says it");
        drop(giving.join().expect("no panic").expect("gives"));
        for (_, fd) in sockets {
            let (mut stream, _) = std::net::TcpListener::from(fd).accept().expect("accepts");
            client.write_all(b"x").expect("writes");
            let mut heard = [0; 1];
            stream.read_exact(&mut heard).expect("reads");
            assert_eq!(&heard, b"x");
        }
    }

    #[test]
    fn a_successor_that_vanishes_is_an_error_for_the_giver() {
        let (mut giver, taker) = UnixStream::pair().expect("a pair");
        drop(taker);
        assert!(give(&mut giver, &Vec::new()).is_err());
    }
}
