//! A runner on a machine of its own: its process and its folder. What it is tried with lives with the tests.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::{
    Windlass,
    process::{Process, Stop},
};

use crate::{api::text, world::World};

const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A runner's process with its folder.
#[derive(Debug)]
pub(crate) struct Runner {
    /// Its name at the server.
    pub(crate) name: String,
    folder: PathBuf,
    server: String,
    engine: String,
    labels: &'static str,
    process: Option<Process>,
}

impl Runner {
    fn binary() -> Result<PathBuf> {
        let binary = Windlass::binary()?.with_file_name("windlass-runner");
        ensure!(binary.is_file(), "windlass-runner is not built: cargo build -p runner --bin windlass-runner");
        Ok(binary)
    }

    /// A runner of this world that reaches the server at `server`; not registered yet.
    pub(crate) fn new(world: &World, server: &str) -> Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", world.runner(), MADE.fetch_add(1, Ordering::Relaxed));
        let folder = world.folder().join(&name);
        fs::create_dir_all(&folder)?;
        let (server, engine) = (server.to_owned(), world.engine.host().to_owned());
        Ok(Self { name, folder, server, engine, labels: "", process: None })
    }

    /// With labels, such as `gpu=true`.
    pub(crate) fn labelled(mut self, labels: &'static str) -> Self {
        self.labels = labels;
        self
    }

    fn command(&self, verb: &str) -> Result<Command> {
        let mut command = Command::new(Self::binary()?);
        command.args([verb, "--server", &self.server, "--parallel-runs", "1", "--folder"]).arg(&self.folder);
        command.args(["--docker-host", &self.engine]);
        if !self.labels.is_empty() {
            command.args(["--labels", self.labels]);
        }
        Ok(command)
    }

    /// Registers it with a token; gives the exit code and what it said.
    pub(crate) fn register(&self, token: &str) -> Result<(Option<i32>, String)> {
        let file = self.folder.join("token");
        fs::write(&file, token)?;
        let mut command = self.command("register")?;
        let done = command.args(["--name", &self.name, "--token-file"]).arg(&file).output()?;
        Ok((done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned()))
    }

    /// Registers it with a token of its own, and starts it.
    pub(crate) async fn at_work(world: &World, server: &str) -> Result<Self> {
        Self::new(world, server)?.begin(world).await
    }

    /// As [`Self::at_work`], of one that was made.
    pub(crate) async fn begin(mut self, world: &World) -> Result<Self> {
        let token = token(world).await?;
        let (code, said) = self.register(&token)?;
        ensure!(code == Some(0), "it was not registered: {said}");
        self.start()?;
        Ok(self)
    }

    /// Starts it, also again.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = self.folder.join("runner.log");
        let command = self.command("run")?;
        self.process = Some(Process::spawn("windlass-runner", command, &log, Stop::Term { within: STOP_WITHIN })?);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.process = None;
    }

    /// Waits until it has ended by itself; gives its exit code.
    pub(crate) async fn ended(&mut self) -> Result<Option<i32>> {
        let process = self.process.as_mut().context("it does not run")?;
        for _ in 0..600 {
            if let Some(status) = process.exit_status()? {
                return Ok(status.code());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("it does not end: {}", process.log_tail())
    }

    /// The end of what it wrote.
    pub(crate) fn log_tail(&self) -> String {
        tests::process::tail(&self.folder.join("runner.log"), 16 << 10)
    }
}

/// A token that registers one runner.
pub(crate) async fn token(world: &World) -> Result<String> {
    let token = world.api.post("runner-tokens", json!({ "label": "test" })).await?;
    Ok(text(&token, "token")?.to_owned())
}
