//! One operation against one server: its runtime, deadline, budget and failure, and how libgit2 finds it.
//! Not here: what is said over the connection (https, ssh).

use std::{
    cell::RefCell,
    error::Error,
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use git2::{ConfigLevel, ErrorClass, ErrorCode, transport};
use pipelines::repository::{GitTransport, RepositoryAddress};

use super::{
    GitOptions,
    credential::GitCredential,
    error::{GitError, Said},
    https::HttpTransport,
    ssh::SshTransport,
};

/// Addresses of our own, so that libgit2 neither takes its built-in HTTP client nor rewrites what we connect to.
const HTTP_SCHEME: &str = "windlass-http";
const SSH_SCHEME: &str = "windlass-ssh";

/// What a transport needs to know. libgit2 hands a transport no credentials and takes no typed error from it: both
/// travel here, beside it, in a thread-local that lives as long as the operation.
pub(super) struct Session {
    pub(super) url: RepositoryAddress,
    pub(super) credential: GitCredential,
    pub(super) options: GitOptions,
    /// Current-thread: the connection moves only while the operation waits for it, and ends with it.
    pub(super) runtime: tokio::runtime::Runtime,
    started: Instant,
    /// Bytes that may be received in all.
    budget_bytes: u64,
    received_bytes: AtomicU64,
    over_budget: &'static str,
    failure: Mutex<Option<GitError>>,
    learned_host_key: Mutex<Option<String>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Session>>> = const { RefCell::new(None) };
}

impl Session {
    pub(super) fn new(
        url: &RepositoryAddress,
        credential: &GitCredential,
        options: &GitOptions,
        budget_bytes: u64,
        over_budget: &'static str,
    ) -> Result<Arc<Self>, GitError> {
        prepare()?;
        credential.check(url)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| GitError::Setup { why: error.to_string() })?;
        Ok(Arc::new(Self {
            url: url.clone(),
            credential: credential.clone(),
            options: options.clone(),
            runtime,
            started: Instant::now(),
            budget_bytes,
            received_bytes: AtomicU64::new(0),
            over_budget,
            failure: Mutex::new(None),
            learned_host_key: Mutex::new(None),
        }))
    }

    /// Runs libgit2 with this session in reach of its transports, and turns what it says into our words.
    pub(super) fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> Result<T, git2::Error>) -> Result<T, GitError> {
        struct Leave(Option<Arc<Session>>);
        impl Drop for Leave {
            fn drop(&mut self) {
                let before = self.0.take();
                // Out of the cell first: a session that ends drops its runtime, which may come back here.
                let ended = CURRENT.with(|current| current.replace(before));
                drop(ended);
            }
        }
        self.check()?;
        let _leave = Leave(CURRENT.with(|current| current.replace(Some(Arc::clone(self)))));
        let done = work();
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (done, failure) {
            (Ok(value), _) => Ok(value),
            (Err(_), Some(failure)) => Err(failure),
            (Err(error), None) => Err(self.explain(error)),
        }
    }

    /// Waits for `work`: until it is done, nothing came for `limit_ms`, the whole took too long, or it was cancelled.
    pub(super) fn wait<T>(
        &self,
        doing: &'static str,
        limit_ms: u64,
        work: impl Future<Output = T>,
    ) -> Result<T, GitError> {
        let whole = Duration::from_millis(self.options.total_timeout_ms).saturating_sub(self.started.elapsed());
        let limit = whole.min(Duration::from_millis(limit_ms));
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.options.cancel.cancelled() => Err(GitError::Cancelled),
                done = work => Ok(done),
                () = tokio::time::sleep(limit) => {
                    let waited_ms = if limit == whole { self.options.total_timeout_ms } else { limit_ms };
                    Err(GitError::TimedOut { host: self.host(), doing, waited_ms })
                }
            }
        })
    }

    /// Counts what was received.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), GitError> {
        let before = self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.within_budget(before.saturating_add(bytes as u64))
    }

    fn within_budget(&self, bytes: u64) -> Result<(), GitError> {
        if bytes <= self.budget_bytes {
            return Ok(());
        }
        Err(GitError::TooLarge { what: self.over_budget, limit: self.budget_bytes, unit: "bytes" })
    }

    /// Whether the operation may go on; asked where libgit2 works without us waiting.
    pub(super) fn check(&self) -> Result<(), GitError> {
        if self.options.cancel.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        let waited_ms = self.options.total_timeout_ms;
        if self.started.elapsed() > Duration::from_millis(waited_ms) {
            return Err(GitError::TimedOut { host: self.host(), doing: "reading the repository", waited_ms });
        }
        Ok(())
    }

    /// For libgit2's progress callbacks: whether to go on.
    pub(super) fn goes_on(&self, received_bytes: usize) -> bool {
        // Folders of this machine do not come through a transport of ours, which would count.
        self.received_bytes.fetch_max(received_bytes as u64, Ordering::Relaxed);
        match self.check().and_then(|()| self.within_budget(received_bytes as u64)) {
            Ok(()) => true,
            Err(error) => {
                self.note(error);
                false
            }
        }
    }

    /// Keeps the first failure, and gives libgit2 something to carry up.
    pub(super) fn fail(&self, error: GitError) -> io::Error {
        let text = error.to_string();
        self.note(error);
        io::Error::other(text)
    }

    /// As [`Session::fail`], where libgit2 wants its own error.
    pub(super) fn fail_git(&self, error: GitError) -> git2::Error {
        git2::Error::new(ErrorCode::GenericError, ErrorClass::Net, self.fail(error).to_string().replace('\0', " "))
    }

    fn note(&self, error: GitError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(super) fn learn(&self, line: String) {
        *self.learned_host_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }

    pub(super) fn learned_host_key(&self) -> Option<String> {
        self.learned_host_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn host(&self) -> String {
        self.url.host_and_port()
    }

    pub(super) fn said(&self, words: &[u8]) -> Said {
        Said::new(words, &self.credential.secrets())
    }

    pub(super) fn unreachable(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> GitError {
        GitError::Unreachable { host: self.host(), source: source.into() }
    }

    /// What a server said in words (ssh's error stream, an `ERR` packet), sorted by what it means.
    pub(super) fn refusal(&self, words: &[u8]) -> GitError {
        let said = self.said(words);
        let lower = said.as_str().to_lowercase();
        let any = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
        if any(&[
            "not found",
            "cannot find",
            "could not find",
            "does not appear to be a git",
            "does not exist",
            "no such",
        ]) {
            GitError::NotFound { url: self.url.to_string(), said }
        } else if any(&["denied", "unauthori", "forbidden", "not allowed"]) {
            GitError::AuthenticationRefused { host: self.host(), said }
        } else {
            GitError::Protocol { host: self.host(), said }
        }
    }

    /// What libgit2 itself found wrong.
    fn explain(&self, error: git2::Error) -> GitError {
        let message = error.message();
        if let Some(words) = message.strip_prefix("remote error: ") {
            return self.refusal(words.as_bytes());
        }
        if self.url.transport() == GitTransport::File {
            return self.refusal(message.as_bytes());
        }
        let cut_short = error.code() == ErrorCode::Eof || message.starts_with("could not read");
        if cut_short { self.unreachable(error) } else { self.protocol(message) }
    }

    pub(super) fn protocol(&self, words: &str) -> GitError {
        GitError::Protocol { host: self.host(), said: self.said(words.as_bytes()) }
    }

    /// The address under which libgit2 finds the transport of this session.
    pub(super) fn remote_url(&self) -> String {
        match self.url.transport() {
            GitTransport::Http | GitTransport::Https => format!("{HTTP_SCHEME}://session"),
            GitTransport::Ssh => format!("{SSH_SCHEME}://session"),
            GitTransport::File => self.url.as_file().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

fn current() -> Result<Arc<Session>, git2::Error> {
    CURRENT
        .with_borrow(Clone::clone)
        .ok_or_else(|| git2::Error::from_str("this transport works only inside of an operation of this module"))
}

/// Sets up libgit2 once per process: our transports, and no configuration of the machine or of a user (a filter, an
/// `insteadOf` or a proxy from there would change what is fetched and written).
pub(super) fn prepare() -> Result<(), GitError> {
    // libgit2 and rustls keep this in globals of their own, so the "once" has to be one as well.
    static PREPARED: OnceLock<Result<(), String>> = OnceLock::new();
    PREPARED
        .get_or_init(|| {
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                // Lost races are fine: the other one installed it.
                let _ = rustls::crypto::ring::default_provider().install_default();
            }
            set_up_libgit2().map_err(|error| error.message().to_owned())
        })
        .clone()
        .map_err(|why| GitError::Setup { why })
}

#[expect(unsafe_code, reason = "libgit2's globals: called once, before any other use of it in this process")]
fn set_up_libgit2() -> Result<(), git2::Error> {
    // SAFETY: both kinds of call need to be synchronised with other users of libgit2's globals. The OnceLock above
    // runs this once, every operation of this module waits for it, and nothing else in the process uses libgit2.
    unsafe {
        for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
            git2::opts::set_search_path(level, "")?;
        }
        transport::register(HTTP_SCHEME, |remote| {
            transport::Transport::smart(remote, true, HttpTransport::new(current()?))
        })?;
        transport::register(SSH_SCHEME, |remote| {
            transport::Transport::smart(remote, false, SshTransport::new(current()?))
        })
    }
}
