//! Processes that belong to a test: started by one thread, stopped when dropped, dead when the test process dies.
//! What each part is (flags, configuration, readiness) lives in the file of the part.

use std::{
    fs::{File, OpenOptions},
    future::Future,
    hash::{BuildHasher, RandomState},
    io::{Read, Seek, SeekFrom},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

const LOG_TAIL_BYTES: u64 = 4096;
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How a process is stopped, and what it gets when the test process dies without stopping it.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// SIGKILL at once: the process keeps nothing that matters after the test.
    Kill,
    /// SIGTERM, then SIGKILL when it is still there after so long: it has children or mounts to clear away.
    Term {
        /// Time until SIGKILL.
        within: Duration,
    },
}

/// A running process of the world, with its output in a log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    stop: Stop,
    ended: bool,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path, stop: Stop) -> Result<Self> {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("failed to open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Self::spawn_as_is(name, command, log, stop)
    }

    /// Starts `command` with the standard streams that it already has; `log` is only read for error messages.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn_as_is(name: &str, mut command: Command, log: &Path, stop: Stop) -> Result<Self> {
        let death_signal = match stop {
            Stop::Kill => libc::SIGKILL,
            Stop::Term { .. } => libc::SIGTERM,
        };
        die_with_parent(&mut command, death_signal);
        let child = spawn_on_lasting_thread(command).with_context(|| format!("failed to start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), stop, ended: false })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child with its pipes, for a part that talks to its process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether the process has not ended yet.
    pub fn alive(&mut self) -> bool {
        matches!(self.exit_status(), Ok(None))
    }

    /// The exit status, or `None` while it runs.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.ended |= status.is_some();
        Ok(status)
    }

    /// Waits until `probe` gives something, at most `within`.
    ///
    /// # Errors
    /// When the time is over or the process ends; the message holds the end of its log.
    pub async fn ready<T, F: Future<Output = Option<T>>>(
        &mut self,
        within: Duration,
        mut probe: impl FnMut() -> F,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(value) = probe().await {
                return Ok(value);
            }
            if let Some(status) = self.exit_status()? {
                bail!("{} ended before it was ready ({status}); the end of its log:\n{}", self.name, self.log_tail());
            }
            if started.elapsed() >= within {
                bail!("{} is not ready after {within:?}; the end of its log:\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// The end of the log, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log, LOG_TAIL_BYTES)
    }

    /// Sends SIGKILL and waits for the end: what a crash or `kill -9` does.
    pub fn kill(&mut self) {
        if !self.ended {
            // Fails only when it has ended already, which the wait then finds.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.ended = true;
        }
    }

    /// Stops it as its [`Stop`] says and waits for the end.
    pub fn stop(&mut self) {
        if let Stop::Term { within } = self.stop {
            self.signal(libc::SIGTERM);
            let started = Instant::now();
            while self.alive() && started.elapsed() < within {
                std::thread::sleep(POLL_EVERY);
            }
        }
        self.kill();
    }

    /// Sends a signal (`libc::SIGTERM`, `libc::SIGSTOP`, …) when the process still runs.
    pub fn signal(&mut self, signal: i32) {
        if self.alive() {
            send_signal(self.pid(), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port of 127.0.0.1 that is free now. It lies below the range of outgoing connections, so none of them takes it
/// before the part binds it.
///
/// # Panics
/// When no port of the range is free.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 17_000;
    for attempt in 0_u16..200 {
        let random = RandomState::new().hash_one(attempt);
        let port = FIRST + u16::try_from(random % u64::from(COUNT)).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// An HTTP client with bounded times and no proxy. Redirects are not followed: a test wants to see them.
///
/// # Panics
/// When the client cannot be built, which no input decides.
#[must_use]
pub fn http_client() -> reqwest::Client {
    static CRYPTO: OnceLock<()> = OnceLock::new();
    CRYPTO.get_or_init(|| {
        // An error means that another part of the process was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client without files or proxies can be built")
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or fails; the message holds both its outputs.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("failed to start {program}"))?;
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let stderr = String::from_utf8_lossy(&done.stderr);
        bail!("{program} {} failed ({}): {stdout}{stderr}", arguments.join(" "), done.status);
    }
    Ok(stdout)
}

/// Runs the test that calls this once more, alone, in a process with a network of its own, where nothing else starts or
/// ends (an engine's start changes the packet filter for all). Gives whether this is that process; in the other one the
/// test has passed when this returns.
///
/// # Errors
/// When it fails there, or cannot be started.
pub async fn in_own_network(test: &str) -> Result<bool> {
    const MARK: &str = "WINDLASS_OWN_NETWORK";
    if std::env::var_os(MARK).is_some() {
        output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        return Ok(true);
    }
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe()?).args(["--exact", test, "--include-ignored", "--nocapture"]);
    // The engine of the outer network cannot be used by what lives in the inner one.
    command.env(MARK, "1").env_remove("DOCKER_HOST").stdin(Stdio::null());
    let mut inner = Process::spawn_as_is(test, command, Path::new(""), Stop::Kill)?;
    loop {
        match inner.exit_status()? {
            Some(status) if status.success() => return Ok(false),
            Some(status) => bail!("{test} failed in its own network ({status}); its words stand above"),
            None => tokio::time::sleep(POLL_EVERY).await,
        }
    }
}

/// The last `bytes` of a file; empty when it cannot be read.
#[must_use]
pub fn tail(path: &Path, bytes: u64) -> String {
    fn read(path: &Path, bytes: u64) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut end = Vec::new();
        file.take(bytes).read_to_end(&mut end)?;
        Ok(end)
    }
    String::from_utf8_lossy(&read(path, bytes).unwrap_or_default()).into_owned()
}

/// Whether a process with this id exists.
#[must_use]
pub fn pid_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Lets the scheduler prefer the calling thread where that is allowed: whoever measures must not wait for those whom it
/// measures. Without the right to do so nothing changes.
#[expect(unsafe_code, reason = "setpriority has no safe form in std; 0 is the calling thread, and it keeps no memory")]
pub fn prefer_this_thread() {
    const NICE: i32 = -15;
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Whether the tests run as root.
#[must_use]
#[expect(unsafe_code, reason = "geteuid has no safe form in std; it reads a number and cannot fail")]
pub fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

/// `kill -9` for a process that somebody else has started.
pub fn kill_process(pid: u32) {
    send_signal(pid, libc::SIGKILL);
}

#[expect(
    unsafe_code,
    reason = "std sends only SIGKILL, and only to children; the callers have looked at the pid right before"
)]
pub(crate) fn send_signal(pid: u32, signal: i32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        unsafe { libc::kill(pid, signal) };
    }
}

/// A test that is killed cannot run its drops; the kernel then stops its parts.
#[expect(unsafe_code, reason = "PR_SET_PDEATHSIG must be set between fork and exec; prctl is async-signal-safe")]
fn die_with_parent(command: &mut Command, signal: i32) {
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == -1 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// The death signal comes when the *thread* that forked ends, not the process, and a test's thread ends with the
/// test. So one thread, which lasts as long as the process, forks for all.
fn spawn_on_lasting_thread(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The asker waits for the reply below.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    orders.send((command, reply)).map_err(|_| anyhow!("the thread that starts processes has ended"))?;
    Ok(answer.recv()??)
}
