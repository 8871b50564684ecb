//! The binary under test, as an operator runs it: arguments, environment, a folder. It knows nothing of the product
//! but its outside.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::process::{Process, Stop, pid_alive, send_signal};

const STOP_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A running `windlass`, which can be killed and started again with the same arguments.
#[derive(Debug)]
pub struct Windlass {
    process: Process,
    dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Windlass {
    /// The binary: `WINDLASS_BIN`, or the one that cargo built beside the test.
    ///
    /// # Errors
    /// When it is not there; the message says how to build it.
    pub fn binary() -> Result<PathBuf> {
        if let Some(path) = env::var_os("WINDLASS_BIN") {
            return Ok(path.into());
        }
        // A test lies in target/PROFILE/deps, the binary in target/PROFILE.
        let test = env::current_exe()?;
        let binary = test.parent().and_then(Path::parent).map(|profile| profile.join("windlass"));
        binary
            .filter(|path| path.is_file())
            .context("the binary windlass is not built: cargo build -p server --bin windlass, or set WINDLASS_BIN")
    }

    /// Starts it in `dir`, which it may use as it likes; its log is `dir/windlass.log`.
    ///
    /// # Errors
    /// When the binary is missing or cannot be started.
    pub fn start(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        let environment: Vec<_> = environment.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        let process = launch(dir, &arguments, &environment)?;
        Ok(Self { process, dir: dir.to_owned(), arguments, environment })
    }

    /// Its process: pid, signals, readiness.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has written, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("windlass.log")).unwrap_or_default()
    }

    /// Waits until its output holds `marker` and gives what follows it in the line.
    ///
    /// # Errors
    /// When it does not come in time or the process ends.
    pub async fn printed(&mut self, marker: &str, within: Duration) -> Result<String> {
        let file = self.dir.join("windlass.log");
        let probe = || async {
            let text = fs::read_to_string(&file).ok()?;
            let (_, rest) = text.split_once(marker)?;
            let (line, _) = rest.split_once('\n')?;
            Some(line.trim().to_owned())
        };
        self.process.ready(within, probe).await.with_context(|| format!("windlass did not print {marker:?}"))
    }

    /// The gateways that its lives have started and that run: they outlive it.
    #[must_use]
    pub fn gateways(&self) -> Vec<u32> {
        gateways_of(&self.dir)
    }

    /// Stops the server as an operator does, and then its gateways.
    pub fn stop(&mut self) {
        self.process.stop();
        let gateways = self.gateways();
        for (within, signal) in [(STOP_WITHIN, libc::SIGTERM), (STOP_WITHIN, libc::SIGKILL)] {
            let left = || gateways.iter().copied().filter(|pid| pid_alive(*pid) && self.gateways().contains(pid));
            left().for_each(|pid| send_signal(pid, signal));
            let started = Instant::now();
            while left().next().is_some() && started.elapsed() < within {
                std::thread::sleep(POLL_EVERY);
            }
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again with the same arguments, environment and folder; kills it first when it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(&self.dir, &self.arguments, &self.environment)?;
        Ok(())
    }
}

impl Drop for Windlass {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The gateways that servers in this folder have started and that run.
#[must_use]
pub fn gateways_of(dir: &Path) -> Vec<u32> {
    let folder = dir.to_string_lossy().into_owned();
    let is_ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split('\0').skip(1);
        words.next() == Some("gateway") && words.any(|word| word.starts_with(&folder))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

fn launch(dir: &Path, arguments: &[String], environment: &[(String, String)]) -> Result<Process> {
    let mut command = Command::new(Windlass::binary()?);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).current_dir(dir);
    Process::spawn("windlass", command, &dir.join("windlass.log"), Stop::Term { within: STOP_WITHIN })
}
