//! The agent: asks for work, does several runs at once, and cleans up what nobody owns. How one run is done lives in
//! `job`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use charts::catalog::Catalog;
use integrations::docker::{DockerError, Engine, EngineConfig};
use pipelines::ids::{Digest, RunId, RunnerName};
use pipelines::labels::Labels;
use pipelines::protocol::{Job, PROTOCOL_VERSION, RunnerAbout, RunnerLink, RunnerRequest, ServerReply};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::folder::{RunFolder, runs_on_disk};
use crate::job;
use crate::link::{Dismissed, Patience, RunLink, Server};

/// Label of everything that a runner makes on the engine; its value is the runner's own.
pub(crate) const RUNNER_LABEL: &str = "windlass.runner";
/// Label with the run that a container or network belongs to.
pub(crate) const RUN_LABEL: &str = "windlass.run";

/// Where a runner works, and its bounds.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Its name at the server.
    pub name: RunnerName,
    /// Folder for mirrors of repositories and for the runs at work. It belongs to this runner alone.
    pub state_dir: PathBuf,
    /// The engine that steps and builds run on. It must be on this machine: steps mount folders of it.
    pub engine: EngineConfig,
    /// The base configs.
    pub catalog: Arc<Catalog>,
    /// Its labels: a run that asks for others is left to another runner.
    pub labels: Labels,
    /// Runs at the same time.
    pub parallel_runs: usize,
    /// Time between two signs of life of a run, in milliseconds; the server answers them with a cancel.
    pub heartbeat_ms: u64,
    /// First pause before an unanswered question is asked again, in milliseconds; it doubles.
    pub retry_first_ms: u64,
    /// Longest such pause, in milliseconds.
    pub retry_max_ms: u64,
    /// Time between the signal and the kill of a step that is stopped, in milliseconds.
    pub stop_grace_ms: u64,
    /// How often a transient failure of a registry or git server is tried, the first time included.
    pub attempts: u32,
}

impl AgentConfig {
    /// A runner with the defaults.
    pub fn new(name: RunnerName, state_dir: PathBuf, engine: EngineConfig, catalog: Arc<Catalog>) -> Self {
        Self {
            name,
            state_dir,
            engine,
            catalog,
            labels: Labels::default(),
            parallel_runs: 2,
            heartbeat_ms: 2_000,
            retry_first_ms: 250,
            retry_max_ms: 10_000,
            stop_grace_ms: 10_000,
            attempts: 4,
        }
    }
}

/// Why an agent cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The folder cannot be made.
    #[error("make the runner's folder {}", .path.display())]
    Folder {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// What all runs of an agent share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: AgentConfig,
    /// Tells this runner's things on the engine from those of another server on the same machine.
    pub(crate) instance: String,
}

/// Executes runs, one after the other and some at once.
#[derive(Debug)]
pub struct Agent<L> {
    server: Server<L>,
    shared: Arc<Shared>,
}

impl<L: RunnerLink + 'static> Agent<L> {
    /// An agent that works for the server behind `link`.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn new(link: L, config: AgentConfig) -> Result<Self, AgentError> {
        let failed = |source| AgentError::Folder { path: config.state_dir.clone(), source };
        std::fs::create_dir_all(&config.state_dir).map_err(failed)?;
        let state_dir = config.state_dir.canonicalize().map_err(failed)?;
        let instance = instance_of(&config.name, &state_dir);
        let patience = Patience {
            min: Duration::from_millis(config.retry_first_ms.max(1)),
            max: Duration::from_millis(config.retry_max_ms.max(1)),
        };
        let config = AgentConfig { state_dir, ..config };
        Ok(Self { server: Server::new(link, patience), shared: Arc::new(Shared { config, instance }) })
    }

    /// Works until `shutdown`. Runs that are under way then are left as they are: their steps go on in their containers,
    /// and whoever runs this agent's folder next takes them up again.
    ///
    /// # Errors
    /// When the server wants this runner no more.
    pub async fn run_forever(&self, shutdown: CancellationToken) -> Result<(), Dismissed> {
        let incompatible = async {
            loop {
                self.server.end.cancelled().await;
                match self.server.dismissed() {
                    Some(why @ Dismissed::Incompatible(_)) => return why,
                    // What it has is cleaned up first.
                    _ => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            why = incompatible => Err(why),
            why = self.work() => Err(why),
        }
    }

    /// What this runner says of itself.
    fn about(&self) -> RunnerAbout {
        RunnerAbout {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: self.shared.config.labels.clone(),
            capacity: u32::try_from(self.shared.config.parallel_runs.max(1)).unwrap_or(u32::MAX),
        }
    }

    /// Works until the server refuses this runner.
    async fn work(&self) -> Dismissed {
        let engine = self.engine().await;
        let mut runs: JoinSet<RunId> = JoinSet::new();
        let mut busy: Vec<RunId> = Vec::new();
        let mut swept = false;
        loop {
            if let Some(why) = self.server.dismissed() {
                while runs.join_next().await.is_some() {}
                self.sweep(&engine, &[]).await;
                return why;
            }
            let lease = async {
                if busy.len() >= self.shared.config.parallel_runs.max(1) {
                    return std::future::pending().await;
                }
                self.wait_for_engine(&engine).await;
                self.lease(&busy).await
            };
            tokio::select! {
                // Some heartbeat was told that nobody here is wanted: the question for work may still wait.
                () = self.server.end.cancelled() => {}
                // A lease that was granted while it is dropped is granted again: the run is known to be ours.
                Some(done) = runs.join_next() => match done {
                    Ok(run) => busy.retain(|other| *other != run),
                    // Which one is not said; the server gives those again that are not in the list.
                    Err(error) => {
                        tracing::error!(%error, "the work on a run broke off");
                        runs.abort_all();
                        while runs.join_next().await.is_some() {}
                        busy.clear();
                    }
                },
                job = lease => match job {
                    Some(job) => {
                        let run = job.run.clone();
                        busy.push(run.clone());
                        runs.spawn(self.start(job, engine.clone()));
                    }
                    // Everything that is ours was given to us before the server has no more.
                    None if self.server.end.is_cancelled() => {}
                    None if !swept => {
                        swept = true;
                        self.sweep(&engine, &busy).await;
                    }
                    None => {}
                },
            }
        }
    }

    fn start(&self, job: Job, engine: Engine) -> impl Future<Output = RunId> + Send + use<L> {
        let lease = Duration::from_millis(job.lease_ms);
        let link = RunLink::new(self.server.clone(), job.run.clone(), job.attempt, lease);
        let shared = self.shared.clone();
        async move {
            let run = job.run.clone();
            tracing::info!(%run, attempt = job.attempt, "run taken");
            job::execute(job, &link, &engine, &shared).await;
            tracing::info!(%run, "run left");
            run
        }
    }

    async fn lease(&self, busy: &[RunId]) -> Option<Job> {
        let request =
            RunnerRequest::Lease { protocol: PROTOCOL_VERSION, about: self.about(), busy_with: busy.to_vec() };
        match self.server.ask(request).await {
            ServerReply::Job(job) => Some(*job),
            ServerReply::NoJob => None,
            ServerReply::NotYours if self.server.end.is_cancelled() => None,
            other => {
                tracing::error!(?other, "the server answered something else than work");
                tokio::time::sleep(Duration::from_millis(self.shared.config.retry_max_ms)).await;
                None
            }
        }
    }

    /// Connects to the engine, however long it takes to come.
    async fn engine(&self) -> Engine {
        loop {
            match Engine::connect(self.shared.config.engine.clone()).await {
                Ok(engine) => return engine,
                Err(error) => self.rest(&error).await,
            }
        }
    }

    /// No run is taken while the engine is away: it would fail for nothing.
    async fn wait_for_engine(&self, engine: &Engine) {
        while let Err(error) = engine.ping().await {
            self.rest(&error).await;
        }
    }

    async fn rest(&self, error: &DockerError) {
        tracing::warn!(error = %job::chain(error), "failed to {error}; no run is taken until it is there");
        tokio::time::sleep(Duration::from_millis(self.shared.config.retry_max_ms)).await;
    }

    /// Removes what runs left behind that ended while this agent was away.
    async fn sweep(&self, engine: &Engine, busy: &[RunId]) {
        let labels = [(RUNNER_LABEL.to_owned(), self.shared.instance.clone())].into();
        match engine.list(&labels).await {
            Ok(containers) => {
                for container in containers {
                    let run = container.labels.get(RUN_LABEL).and_then(|run| run.parse::<RunId>().ok());
                    if run.is_none_or(|run| !busy.contains(&run)) {
                        job::tidied("container", engine.remove(&container.name).await);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "left containers were not looked for"),
        }
        let kept: Vec<_> = busy.iter().map(|run| job::network_name(&self.shared, run)).collect();
        for network in engine.list_networks(&labels).await.unwrap_or_default() {
            if !kept.contains(&network) {
                job::tidied("network", engine.remove_network(&network).await);
            }
        }
        for run in runs_on_disk(&self.shared.config.state_dir) {
            if !busy.contains(&run) {
                job::remove_folder(RunFolder::of(&self.shared.config.state_dir, &run)).await;
            }
        }
    }
}

/// The same for the same folder, another for another server's runner of the same name.
fn instance_of(name: &RunnerName, state_dir: &Path) -> String {
    let folder = Digest::of(state_dir.as_os_str().as_encoded_bytes());
    format!("{name}-{}", &folder.short()[..8])
}
