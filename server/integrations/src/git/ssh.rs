//! Git over ssh for libgit2: `git-upload-pack` in a channel of russh, with a key that stays in memory.
//! Not here: which host keys are trusted (host_key), the packets (libgit2).

use std::{
    borrow::Cow,
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Buf as _, Bytes};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use russh::{
    Channel, ChannelMsg, Preferred, client,
    keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate},
};

use super::{
    error::GitError,
    host_key::{HostKeyPolicy, described},
    session::Session,
};

/// How much of what the server says beside the protocol is kept, in bytes.
const SAID_MAX_BYTES: usize = 4096;
/// The number that marks standard error in a channel (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// One remote over ssh.
pub(super) struct SshTransport {
    session: Arc<Session>,
}

impl SshTransport {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session }
    }
}

impl SmartSubtransport for SshTransport {
    fn action(&self, _url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match action {
            // libgit2 keeps the stream of the refs for the pack.
            Service::UploadPackLs | Service::UploadPack => match SshStream::open(&self.session) {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(self.session.fail_git(error)),
            },
            Service::ReceivePackLs | Service::ReceivePack => Err(git2::Error::from_str("this client does not push")),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// Asks the policy about the server's key and keeps the answer, because russh carries only yes and no.
struct HostCheck {
    policy: HostKeyPolicy,
    host: String,
    port: u16,
    verdict: Arc<Mutex<Option<Verdict>>>,
}

enum Verdict {
    Known,
    Learned(String),
    Refused { offered: String, why: &'static str },
}

impl client::Handler for HostCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let key = offered.public_key();
        let verdict = match self.policy.verdict(&self.host, self.port, &key) {
            Ok(None) => Verdict::Known,
            Ok(Some(line)) => Verdict::Learned(line),
            Err(why) => Verdict::Refused { offered: described(&key), why },
        };
        let trusted = !matches!(verdict, Verdict::Refused { .. });
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        Ok(trusted)
    }
}

struct SshStream {
    session: Arc<Session>,
    channel: Option<Channel<client::Msg>>,
    /// Keeps the connection.
    handle: Option<client::Handle<HostCheck>>,
    rest: Bytes,
    anything_came: bool,
    said: Vec<u8>,
    ended: bool,
}

impl SshStream {
    fn open(session: &Arc<Session>) -> Result<Self, GitError> {
        let place = session.url.as_ssh().ok_or_else(|| session.protocol("the address is not ssh"))?;
        let key = session.credential.private_key()?;
        let key = key.ok_or_else(|| GitError::AuthenticationNeeded { host: session.host() })?;

        let mut handle = connect(session, &place.host, place.port)?;
        let stall_ms = session.options.stall_timeout_ms;
        let attempt = handle.authenticate_publickey(place.user.clone(), PrivateKeyWithHashAlg::new(key, None));
        let answer = session.wait("signing in", stall_ms, attempt)?.map_err(|error| session.unreachable(error))?;
        if !answer.success() {
            let words = format!("it does not know the key for user {}", place.user);
            return Err(GitError::AuthenticationRefused { host: session.host(), said: session.said(words.as_bytes()) });
        }
        let start = async {
            let channel = handle.channel_open_session().await?;
            channel.exec(true, format!("git-upload-pack {}", quoted(&place.path))).await?;
            Ok::<_, russh::Error>(channel)
        };
        let channel =
            session.wait("starting git-upload-pack", stall_ms, start)?.map_err(|error| session.unreachable(error))?;
        Ok(Self {
            session: Arc::clone(session),
            channel: Some(channel),
            handle: Some(handle),
            rest: Bytes::new(),
            anything_came: false,
            said: Vec::new(),
            ended: false,
        })
    }

    fn next_data(&mut self) -> Result<Option<Bytes>, GitError> {
        let session = Arc::clone(&self.session);
        while !self.ended {
            let Some(channel) = &mut self.channel else { break };
            match session.wait("reading from it", session.options.stall_timeout_ms, channel.wait())? {
                Some(ChannelMsg::Data { data }) => {
                    session.spend(data.len())?;
                    self.anything_came = true;
                    return Ok(Some(data));
                }
                Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                    let room = SAID_MAX_BYTES.saturating_sub(self.said.len());
                    self.said.extend_from_slice(&data[..data.len().min(room)]);
                }
                Some(ChannelMsg::Failure) => {
                    return Err(session.protocol("it does not run git-upload-pack"));
                }
                Some(ChannelMsg::Close) | None => self.ended = true,
                Some(_) => {}
            }
        }
        // libgit2 reads no further than it needs, so an end that it sees is an early one; the server may have said why.
        if !self.anything_came || !self.said.is_empty() {
            return Err(session.refusal(&self.said));
        }
        Ok(None)
    }
}

fn connect(session: &Session, host: &str, port: u16) -> Result<client::Handle<HostCheck>, GitError> {
    let connect_ms = session.options.connect_timeout_ms;
    let outgoing = session.options.outgoing.clone();
    let reach = async move {
        let addresses = outgoing.resolve(host, port).await?;
        tokio::net::TcpStream::connect(addresses.as_slice()).await
    };
    let socket = session.wait("connecting", connect_ms, reach)?.map_err(|error| session.unreachable(error))?;
    // Negotiation goes back and forth in small messages.
    socket.set_nodelay(true).map_err(|error| session.unreachable(error))?;

    let policy = &session.options.host_keys;
    let algorithms = policy.algorithms(host, port);
    if algorithms.is_empty() {
        let why = "no host key of a type that we can check (Ed25519, ECDSA) is pinned for it";
        return Err(GitError::HostKeyMismatch { host: session.host(), offered: "nothing yet".into(), why });
    }
    let config = client::Config {
        preferred: Preferred { key: Cow::Owned(algorithms), ..Preferred::default() },
        ..client::Config::default()
    };
    let verdict = Arc::new(Mutex::new(None));
    let check = HostCheck { policy: policy.clone(), host: host.to_owned(), port, verdict: Arc::clone(&verdict) };
    let greeting = client::connect_stream(Arc::new(config), socket, check);
    let connected = session.wait("greeting it", connect_ms, greeting)?;

    let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (connected, verdict) {
        (_, Some(Verdict::Refused { offered, why })) => {
            Err(GitError::HostKeyMismatch { host: session.host(), offered, why })
        }
        (Ok(handle), verdict) => {
            if let Some(Verdict::Learned(line)) = verdict {
                session.learn(line);
            }
            Ok(handle)
        }
        (Err(russh::Error::NoCommonAlgo { kind: russh::AlgorithmKind::Key, theirs, .. }), _) => {
            let why = "it has no host key of a type that is pinned or that we can check (Ed25519, ECDSA)";
            Err(GitError::HostKeyMismatch { host: session.host(), offered: theirs.join(", "), why })
        }
        (Err(error), _) => Err(session.unreachable(error)),
    }
}

impl Read for SshStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.next_data() {
                Ok(Some(data)) => self.rest = data,
                Ok(None) => return Ok(0),
                Err(error) => return Err(self.session.fail(error)),
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Write for SshStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Some(channel) = &self.channel else { return Err(io::ErrorKind::NotConnected.into()) };
        let sending = channel.data_bytes(data.to_vec());
        match self.session.wait("writing to it", self.session.options.stall_timeout_ms, sending) {
            Ok(Ok(())) => Ok(data.len()),
            Ok(Err(error)) => Err(self.session.fail(self.session.unreachable(error))),
            Err(error) => Err(self.session.fail(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SshStream {
    fn drop(&mut self) {
        // russh spawns while a channel is dropped, and panics outside of a runtime.
        let _context = self.session.runtime.enter();
        self.channel = None;
        self.handle = None;
    }
}

/// Quotes for a POSIX shell, which is what sshd hands the command to.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_quotes() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("x'; id; '"), "'x'\\''; id; '\\'''");
    }
}
