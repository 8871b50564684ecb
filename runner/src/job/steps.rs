//! The steps of the pipeline file: in the order of their dependencies, each in a container, all in one workspace.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use integrations::docker::{
    DockerError, Limits, LogPiece, LogStream, Mount, RegistryAuth, StepContainer, StepEnd, StepExit,
};
use pipelines::definition::{Definition, OnFailure, Step};
use pipelines::protocol::{Blame, CommitInfo, JobBounds, LogStream as Stream, RunnerLink, StepOutcome, ci_environment};
use pipelines::time::UnixMs;
use tokio::sync::mpsc;

use super::secrets::Given;
use super::station::Station;
use super::{Halt, Work, is_transient, network_name};
use crate::disk::{Usage, usage};
use crate::log::{Numbering, now};

/// Where the workspace is inside of every step.
pub(super) const WORKSPACE: &str = "/windlass/workspace";
/// Pieces of output that may wait for the masker.
const OUTPUT_QUEUE: usize = 256;

/// Why a step has no end of its own.
#[derive(Debug)]
enum Stop {
    Docker(DockerError),
    /// It was not begun.
    Refused(Halt),
}

impl From<DockerError> for Stop {
    fn from(error: DockerError) -> Self {
        Self::Docker(error)
    }
}

/// How far the steps are.
#[derive(Debug, Default)]
struct Progress {
    /// Passed, skipped by their `when`, or failed where that is ignored.
    done: BTreeSet<String>,
    begun: BTreeSet<String>,
    /// The first failure that counts.
    failed: Option<Halt>,
}

impl<L: RunnerLink + 'static> Work<'_, L> {
    /// Whether a step runs for this trigger at all.
    pub(super) fn applies(&self, step: &Step) -> bool {
        step.when.as_ref().is_none_or(|when| when.holds(&self.job.trigger))
    }

    /// Runs all steps. After the first failure nothing new begins; what runs beside it runs to its end.
    pub(super) async fn run_steps(
        &self,
        definition: &Definition,
        given: &Given,
        commit: &CommitInfo,
    ) -> Result<(), Halt> {
        if definition.steps.is_empty() {
            return Ok(());
        }
        self.unless_stopped(self.steadily(|| self.ensure_network())).await?;
        let parallel = usize::try_from(self.job.bounds.parallel_steps_max).unwrap_or(usize::MAX).max(1);
        let mut progress = Progress::default();
        let run = |step: usize| async move {
            let step = &definition.steps[step];
            (step, self.run_one(step, given, commit).await)
        };
        let mut running = FuturesUnordered::new();
        loop {
            let stopped = self.link.control.stop.is_cancelled();
            for (number, step) in definition.steps.iter().enumerate() {
                let name = step.name.as_str();
                let ready = step.depends_on.iter().all(|other| progress.done.contains(other.as_str()));
                if !ready || progress.begun.contains(name) || progress.failed.is_some() || stopped {
                    continue;
                }
                if !self.applies(step) {
                    progress.begun.insert(name.to_owned());
                    progress.done.insert(name.to_owned());
                    self.skip(name, "its `when` does not fit this run").await;
                } else if running.len() < parallel {
                    progress.begun.insert(name.to_owned());
                    running.push(run(number));
                }
            }
            match running.next().await {
                Some((step, outcome)) => take_outcome(&mut progress, step, outcome),
                // What was skipped may have made others ready.
                None if progress.begun.len() < definition.steps.len() && progress.failed.is_none() && !stopped => {
                    let ready = definition.steps.iter().any(|step| {
                        !progress.begun.contains(step.name.as_str())
                            && step.depends_on.iter().all(|other| progress.done.contains(other.as_str()))
                    });
                    if !ready {
                        return Err(Halt::code("the steps wait for each other"));
                    }
                }
                None => break,
            }
        }
        if let Some(halt) = progress.failed {
            for step in definition.steps.iter().filter(|step| !progress.begun.contains(step.name.as_str())) {
                self.skip(step.name.as_str(), "an earlier step failed").await;
            }
            return Err(halt);
        }
        self.go_on()
    }

    /// The network that the steps and the build of this run have for themselves.
    pub(super) async fn ensure_network(&self) -> Result<(), Halt> {
        let network = network_name(self.shared, &self.job.run);
        let made = self.engine.ensure_network(&network, &self.labels()).await;
        made.map_err(|error| Halt::docker(&error))
    }

    async fn run_one(&self, step: &Step, given: &Given, commit: &CommitInfo) -> StepOutcome {
        let image = self.mirrored(step.image.as_str());
        let full = OnceLock::new();
        let mut left = self.shared.config.attempts;
        let (mut station, result) = loop {
            let mut station = Station::begin(self, step.name.as_str(), Numbering::Replay).await;
            // After a restart the same lines are read again from the container: nothing may be said here that depends
            // on the moment.
            station.say(&format!("image {image}")).await;
            let result = self.run_container(step, &image, given, commit, &full, &mut station).await;
            let is_away = matches!(&result, Err(Stop::Docker(error)) if error.is_engine_away());
            let may_wait = is_away && left > 1 && !self.link.control.stop.is_cancelled();
            if !may_wait || !self.engine_back().await {
                break (station, result);
            }
            // Taken up as after a restart: the container is found by its name.
            left -= 1;
        };
        station.log.finish().await;
        let (outcome, at) = match result {
            Err(Stop::Refused(halt)) => (halt.outcome(), now()),
            Ok(end) => (self.outcome_of(step, &end, full.get()), end_of(&end)),
            Err(_) if self.link.control.stop.is_cancelled() => (StepOutcome::Cancelled, now()),
            Err(Stop::Docker(error)) => (Halt::docker(&error).outcome(), now()),
        };
        match &outcome {
            StepOutcome::Failed { reason, .. } => station.say(reason).await,
            StepOutcome::Cancelled => station.say("stopped").await,
            StepOutcome::Passed | StepOutcome::Skipped { .. } => {}
        }
        station.close(outcome.clone(), at).await;
        outcome
    }

    async fn run_container(
        &self,
        step: &Step,
        image: &str,
        given: &Given,
        commit: &CommitInfo,
        full: &OnceLock<String>,
        station: &mut Station<'_, L>,
    ) -> Result<StepEnd, Stop> {
        let mut spec = self.container(step, image, commit);
        if integrations::crash::without("adopt") {
            self.engine.remove(&spec.name).await?;
        }
        if self.engine.container_state(&spec.name).await?.is_none() {
            spec.env.extend(given.environment(step).map_err(Stop::Refused)?);
            let auth = self.auth(image);
            tokio::select! {
                pulled = self.pull_quietly(image, auth.as_ref()) => pulled?,
                () = self.link.control.stop.cancelled() => return Err(DockerError::ReceiverGone.into()),
            }
        }
        let (sender, mut receiver) = mpsc::channel::<LogPiece>(OUTPUT_QUEUE);
        let stop = self.link.control.stop.child_token();
        let run = async {
            let end = self.engine.run_step(&spec, None, &sender, &stop).await;
            drop(sender);
            end
        };
        let write = async {
            let mut pieces = Vec::with_capacity(OUTPUT_QUEUE);
            loop {
                tokio::select! {
                    count = receiver.recv_many(&mut pieces, OUTPUT_QUEUE) => if count == 0 { return },
                    () = station.log.idle() => {
                        station.log.pause().await;
                        continue;
                    }
                }
                for piece in pieces.drain(..) {
                    let stream = match piece.stream {
                        LogStream::Stdout => Stream::Stdout,
                        LogStream::Stderr => Stream::Stderr,
                    };
                    let at = u64::try_from(piece.time_ms()).unwrap_or(0);
                    station.log.take(stream, &piece.bytes, piece.ends_line, at);
                }
                station.log.flush().await;
            }
        };
        let work = async { tokio::join!(run, write).0 };
        tokio::pin!(work);
        tokio::select! {
            end = &mut work => return Ok(end?),
            reason = self.disk_full(&spec.name) => {
                full.get_or_init(|| reason);
                stop.cancel();
            }
        }
        Ok(work.await?)
    }

    /// Measures the workspace that the steps have left: what grew between the last look and their end is seen here.
    pub(super) async fn check_disk(&self) -> Result<(), Halt> {
        let (workspace, files_max) = (self.folder.workspace(), self.job.bounds.step_files_max);
        let measured = tokio::task::spawn_blocking(move || usage(&workspace, files_max)).await;
        let usage = measured.map_err(|error| Halt::infrastructure(format!("failed to measure the disk: {error}")))?;
        too_much(usage, 0, &self.job.bounds).map_or(Ok(()), |took| Err(Halt::code(took)))
    }

    /// Measures while a step runs; returns when the run has taken more of the disk than it may, with what it took.
    async fn disk_full(&self, container: &str) -> String {
        let bounds = &self.job.bounds;
        let pause = Duration::from_millis(bounds.step_disk_check_ms.max(100));
        loop {
            let (workspace, files_max) = (self.folder.workspace(), bounds.step_files_max);
            let measured = tokio::task::spawn_blocking(move || usage(&workspace, files_max)).await;
            let written = self.engine.written_bytes(container).await;
            match (measured, written) {
                (Ok(usage), Ok(written)) => {
                    if let Some(reason) = too_much(usage, written, bounds) {
                        return reason;
                    }
                }
                (Err(error), _) => tracing::warn!(run = %self.job.run, %error, "the disk was not measured"),
                (_, Err(error)) => tracing::warn!(run = %self.job.run, %error, "the disk was not measured"),
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Pulls the image of a step, with tries as [`Work::retry`] has them, but without words in the log.
    async fn pull_quietly(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<(), DockerError> {
        let mut pause = Duration::from_millis(self.shared.config.retry_first_ms.max(1));
        for _ in 1..self.shared.config.attempts.max(1) {
            match self.engine.ensure_image(image, auth, None).await {
                Err(error) if is_transient(&error) => tracing::warn!(run = %self.job.run, %error, "trying again"),
                end => return end.map(drop),
            }
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
        self.engine.ensure_image(image, auth, None).await.map(drop)
    }

    /// The name of a step's container, by which it is found again.
    pub(super) fn container_name(&self, step: &Step) -> String {
        format!("{}-{}", network_name(self.shared, &self.job.run), step.name)
    }

    fn container(&self, step: &Step, image: &str, commit: &CommitInfo) -> StepContainer {
        let mut env = ci_environment(self.job, commit, WORKSPACE);
        env.insert("CI_STEP_NAME".to_owned(), step.name.to_string());
        env.extend(step.environment.iter().map(|(name, value)| (name.to_string(), value.clone())));
        let bounds = &self.job.bounds;
        let limit = Duration::from_millis(bounds.step_timeout_ms);
        StepContainer {
            name: self.container_name(step),
            image: image.to_owned(),
            commands: step.commands.clone(),
            env,
            mounts: vec![Mount { host: self.folder.workspace(), container: WORKSPACE.to_owned(), read_only: false }],
            workdir: WORKSPACE.to_owned(),
            network: Some(network_name(self.shared, &self.job.run)),
            limits: limits_of(bounds),
            file_bytes_max: bounds.step_disk_bytes,
            user: None,
            labels: self.labels(),
            timeout: step.timeout.map_or(limit, |span| span.as_duration().min(limit)),
            stop_grace: Duration::from_millis(self.shared.config.stop_grace_ms),
        }
    }

    fn outcome_of(&self, step: &Step, end: &StepEnd, full: Option<&String>) -> StepOutcome {
        let failed = |exit_code, reason| StepOutcome::Failed { blame: Blame::Code, exit_code, reason };
        match end.exit {
            StepExit::Cancelled if full.is_some() && !self.link.control.stop.is_cancelled() => {
                let took = full.map(String::as_str).unwrap_or_default();
                failed(None, format!("step {} was stopped: {took}", step.name))
            }
            StepExit::Exited { code: 0 } => StepOutcome::Passed,
            StepExit::Exited { code } => failed(Some(code), format!("step {} exited with code {code}", step.name)),
            StepExit::OutOfMemory => {
                let mib = self.job.bounds.step_memory_bytes >> 20;
                let words = format!("used more than its {mib} MiB of memory and was killed");
                failed(None, format!("step {} {words}; an operator can raise job.step_memory_bytes", step.name))
            }
            StepExit::TimedOut => {
                let limit = Duration::from_millis(self.job.bounds.step_timeout_ms);
                let limit = step.timeout.map_or(limit, |span| span.as_duration().min(limit));
                let words = format!("took longer than its {} s and was stopped", limit.as_secs());
                failed(None, format!("step {} {words}; see its timeout and job.step_timeout_ms", step.name))
            }
            StepExit::Cancelled => StepOutcome::Cancelled,
        }
    }
}

/// A container that empties the workspace with the rights that the steps had.
pub(super) fn tidy_container<L: RunnerLink + 'static>(work: &Work<'_, L>, name: &str, image: String) -> StepContainer {
    let bounds = &work.job.bounds;
    let host = work.folder.workspace();
    StepContainer {
        name: name.to_owned(),
        image,
        commands: vec!["rm -rf ./* ./.[!.]* ./..?*".to_owned()],
        env: std::collections::BTreeMap::new(),
        mounts: vec![Mount { host, container: WORKSPACE.to_owned(), read_only: false }],
        workdir: WORKSPACE.to_owned(),
        network: None,
        limits: limits_of(bounds),
        file_bytes_max: bounds.step_disk_bytes,
        user: Some("0".to_owned()),
        labels: work.labels(),
        timeout: Duration::from_secs(60),
        stop_grace: Duration::ZERO,
    }
}

pub(super) fn limits_of(bounds: &JobBounds) -> Limits {
    Limits { memory_bytes: bounds.step_memory_bytes, cpu_millis: bounds.step_cpu_milli, pids: bounds.step_pids }
}

/// What is more than a run may take of the disk, in words; none where all is within its bounds.
fn too_much(usage: Usage, written_bytes: u64, bounds: &JobBounds) -> Option<String> {
    let took = usage.bytes.saturating_add(written_bytes);
    if took > bounds.step_disk_bytes {
        let (took, may) = (took >> 20, bounds.step_disk_bytes >> 20);
        return Some(format!("the run took {took} MiB of the disk and may take {may} MiB (job.step_disk_bytes)"));
    }
    if usage.files > bounds.step_files_max {
        let may = bounds.step_files_max;
        return Some(format!("the workspace holds more than {may} files and folders (job.step_files_max)"));
    }
    usage.too_deep.then(|| "the workspace nests folders deeper than 128 levels".to_owned())
}

fn end_of(end: &StepEnd) -> UnixMs {
    u64::try_from(end.finished_at_ms).map_or_else(|_| now(), UnixMs)
}

fn take_outcome(progress: &mut Progress, step: &Step, outcome: StepOutcome) {
    let halt = match outcome {
        StepOutcome::Passed | StepOutcome::Skipped { .. } => None,
        // An infrastructure that fails is never ignored: nobody knows what the step would have said.
        StepOutcome::Failed { blame: Blame::Code, .. } if step.failure == OnFailure::Ignore => None,
        StepOutcome::Failed { blame, reason, .. } => Some(Halt::of(blame, reason)),
        StepOutcome::Cancelled => Some(Halt::Stopped),
    };
    match halt {
        None => {
            progress.done.insert(step.name.to_string());
        }
        Some(halt) => {
            progress.failed.get_or_insert(halt);
        }
    }
}
