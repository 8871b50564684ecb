//! One run from lease to report: checkout, definition, steps, image, push. Each station lives in a file of its own; how
//! the server is reached and how logs are kept is next door.
//!
//! Everything here may be done again after a restart: what is there already is found by its name or by a note in the
//! run's folder, and the server takes a repeated report as the first.

mod base;
mod checkout;
mod image;
mod inputs;
mod push;
mod secrets;
mod station;
mod steps;

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use integrations::docker::{DockerError, Engine, RegistryAuth, StepExit};
use integrations::outgoing::Outgoing;
use integrations::registry::{Credentials, RegistryClient, RegistryConfig, RegistryError};
use pipelines::definition::Definition;
pub(crate) use pipelines::errors::chain;
use pipelines::ids::RunId;
use pipelines::labels::Labels;
use pipelines::protocol::{Blame, Job, Report, RunnerLink, StepOutcome};

use crate::agent::{RUN_LABEL, RUNNER_LABEL, Shared};
use crate::folder::RunFolder;
use crate::link::{RunLink, StopReason};
use crate::log::now;
use crate::mask::Secrets;

/// Note: which attempt at the run this is.
const ATTEMPT_NOTE: &str = "attempt.json";
/// Note: when this runner began with the run.
const BEGAN_NOTE: &str = "began.json";
/// Stations beside the steps of the file.
const CHECKOUT: &str = "checkout";
const IMAGE: &str = "image";
const PUSH: &str = "push";

/// What every station needs.
#[derive(Debug)]
struct Work<'a, L> {
    job: &'a Job,
    link: &'a RunLink<L>,
    engine: &'a Engine,
    shared: &'a Shared,
    folder: RunFolder,
    /// What is hidden in logs; it grows when the run gets its secrets.
    masks: RwLock<Secrets>,
}

/// How a run ends well.
#[derive(Debug)]
enum End {
    /// With an image in the registry.
    Pushed(push::Pushed),
    /// With none, because it may not push.
    Passed,
}

/// Why a run does not go on.
#[derive(Debug)]
enum Halt {
    /// It failed. The reason is one sentence for the page, the details are lines for the log.
    Failed { blame: Blame, reason: String, details: String },
    /// The engine went away in the middle, and may be back in a moment.
    EngineAway { reason: String },
    /// It was stopped, or is not ours any more.
    Stopped,
    /// It asks for labels that this runner does not have.
    Unfit(Labels),
}

impl Halt {
    fn of(blame: Blame, reason: impl Into<String>) -> Self {
        Self::Failed { blame, reason: reason.into(), details: String::new() }
    }

    fn code(reason: impl Into<String>) -> Self {
        Self::of(Blame::Code, reason)
    }

    fn infrastructure(reason: impl Into<String>) -> Self {
        Self::of(Blame::Infrastructure, reason)
    }

    fn with_details(self, lines: String) -> Self {
        match self {
            Self::Failed { blame, reason, details: _ } => Self::Failed { blame, reason, details: lines },
            other => other,
        }
    }

    fn docker(error: &DockerError) -> Self {
        let reason = format!("failed to {}", chain(error));
        if error.is_engine_away() {
            return Self::EngineAway { reason };
        }
        if error.is_infrastructure() { Self::infrastructure(reason) } else { Self::code(reason) }
    }

    fn io(doing: &str, error: &std::io::Error) -> Self {
        Self::infrastructure(format!("failed to {doing}: {error}"))
    }

    /// As the outcome of the station in which it happened.
    fn outcome(&self) -> StepOutcome {
        match self {
            Self::Failed { blame, reason, .. } => {
                StepOutcome::Failed { blame: *blame, exit_code: None, reason: reason.clone() }
            }
            Self::EngineAway { reason } => {
                StepOutcome::Failed { blame: Blame::Infrastructure, exit_code: None, reason: reason.clone() }
            }
            Self::Stopped | Self::Unfit(_) => StepOutcome::Cancelled,
        }
    }
}

/// Does a run and tells the server how it ended. Returns when the end is confirmed and everything is cleaned up, or when
/// the run is not ours any more.
pub(crate) async fn execute<L: RunnerLink + 'static>(job: Job, link: &RunLink<L>, engine: &Engine, shared: &Shared) {
    let folder = RunFolder::of(&shared.config.state_dir, &job.run);
    let masks = match Secrets::new(&secrets_of(&job)) {
        Ok(masks) => RwLock::new(masks),
        Err(error) => {
            link.report(Report::Failed { blame: Blame::Infrastructure, reason: error.to_string() }).await;
            return;
        }
    };
    let work = Work { job: &job, link, engine, shared, folder, masks };
    let heartbeat = link.heartbeat(Duration::from_millis(shared.config.heartbeat_ms.max(100)));
    let all = async {
        let end = work.run().await;
        if !link.control.lost.is_cancelled() {
            link.report(work.last_report(end)).await;
        }
    };
    tokio::select! {
        () = all => {}
        // A station that does not heed its token must not keep a run that another runner may have.
        () = async { heartbeat.await; tokio::time::sleep(LOST_GRACE).await } => {}
    }
    work.clean_up().await;
}

/// Words of the container that empties a workspace; nobody reads them.
const TIDY_OUTPUT: usize = 64;
/// How long an engine that went away is waited for, and the pause between two looks.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);
const ENGINE_PAUSE: Duration = Duration::from_millis(250);
/// How long the stations may take to leave a run that is not ours any more.
const LOST_GRACE: Duration = Duration::from_secs(30);

impl<L: RunnerLink + 'static> Work<'_, L> {
    async fn run(&self) -> Result<End, Halt> {
        self.own_folder().await?;
        let began = match self.folder.note(BEGAN_NOTE).map_err(|error| Halt::io("read a note", &error))? {
            Some(began) => began,
            None => {
                let began = now();
                self.folder.take_note(BEGAN_NOTE, &began).map_err(|error| Halt::io("take a note", &error))?;
                began
            }
        };
        let gone = now().since_ms(began);
        let left = Duration::from_millis(self.job.bounds.run_timeout_ms.saturating_sub(gone));
        let stations = self.stations();
        tokio::pin!(stations);
        tokio::select! {
            end = &mut stations => return end,
            () = tokio::time::sleep(left) => self.link.control.stop(StopReason::TimedOut),
        }
        stations.await
    }

    /// Makes the run's folder. One of an earlier attempt holds what counts no more; its containers go too.
    async fn own_folder(&self) -> Result<(), Halt> {
        let read = |error| Halt::io("read a note", &error);
        let earlier = self.folder.note::<u32>(ATTEMPT_NOTE).map_err(read)?;
        if earlier.is_some_and(|attempt| attempt != self.job.attempt) {
            self.clean_up().await;
        }
        self.folder.make().map_err(|error| Halt::io("make the run's folder", &error))?;
        self.folder.take_note(ATTEMPT_NOTE, &self.job.attempt).map_err(|error| Halt::io("take a note", &error))
    }

    async fn stations(&self) -> Result<End, Halt> {
        let checkout::Prepared { commit, tree_id, definition, base, releases } = self.check_out().await?;
        if !definition.labels.fit(&self.shared.config.labels) {
            return Err(Halt::Unfit(definition.labels));
        }
        let mut names = vec![CHECKOUT.to_owned()];
        names.extend(definition.steps.iter().map(|step| step.name.to_string()));
        names.push(IMAGE.to_owned());
        if self.may_push() {
            names.push(PUSH.to_owned());
        }
        let plan = Box::new(base.plan.clone());
        self.link.report(Report::Prepared { steps: names, plan, releases }).await;
        self.go_on()?;

        let inputs = self.unless_stopped(self.steadily(|| self.inputs(&definition, &base, &tree_id))).await?;
        if let Some(reused) = self.unless_stopped(self.reuse(&inputs, &commit)).await? {
            self.skip_all(&definition, &reused.reason).await;
            return Ok(End::Pushed(reused.pushed));
        }
        let given = self.unless_stopped(self.steadily(|| self.given_secrets(&definition))).await?;
        self.run_steps(&definition, &given, &commit).await?;
        let built = self.build(&definition, &base, &inputs, &commit).await?;
        if !self.may_push() {
            return Ok(End::Passed);
        }
        self.push(&built, &inputs, &commit).await.map(End::Pushed)
    }

    /// What a stranger wrote ends without a push, leaves no image that others might use, and takes none of theirs.
    fn may_push(&self) -> bool {
        self.job.trigger.may_push()
    }

    /// What is hidden in logs by now.
    fn masks(&self) -> Secrets {
        self.masks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing new begins once the run was stopped.
    fn go_on(&self) -> Result<(), Halt> {
        if self.link.control.stop.is_cancelled() { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// For work that has nothing to tidy up when it is left.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Halt>>) -> Result<T, Halt> {
        tokio::select! {
            result = work => result,
            () = self.link.control.stop.cancelled() => Err(Halt::Stopped),
        }
    }

    async fn skip_all(&self, definition: &Definition, reason: &str) {
        let steps = definition.steps.iter().map(|step| step.name.as_str());
        for step in steps.chain([IMAGE, PUSH]) {
            self.skip(step, reason).await;
        }
    }

    async fn skip(&self, step: &str, reason: &str) {
        let outcome = StepOutcome::Skipped { reason: reason.to_owned() };
        self.link.report(Report::StepFinished { step: step.to_owned(), at: now(), outcome }).await;
    }

    fn last_report(&self, end: Result<End, Halt>) -> Report {
        match (end, self.link.control.reason()) {
            // The push won the race against a cancel.
            (Ok(End::Pushed(pushed)), _) => pushed.report(),
            (Ok(End::Passed), None) => Report::Passed,
            (Ok(End::Passed), Some(StopReason::Cancelled(_))) => Report::Cancelled,
            (Err(_), Some(StopReason::Cancelled(_))) => Report::Cancelled,
            (_, Some(StopReason::TimedOut)) => {
                let minutes = self.job.bounds.run_timeout_ms.div_ceil(60_000);
                let reason = format!("the run took longer than its limit of {minutes} minutes");
                Report::Failed { blame: Blame::Code, reason }
            }
            (Err(Halt::Failed { blame, reason, .. }), None) => {
                Report::Failed { blame, reason: self.masks().mask(&reason) }
            }
            (Err(Halt::Unfit(labels)), None) => Report::Unfit { labels },
            (Err(Halt::EngineAway { reason }), None) => {
                Report::Failed { blame: Blame::Infrastructure, reason: self.masks().mask(&reason) }
            }
            (Err(Halt::Stopped), None) => Report::Cancelled,
        }
    }

    async fn clean_up(&self) {
        self.engine_back().await;
        let labels = self.labels();
        let mut image = None;
        match self.engine.list(&labels).await {
            Ok(containers) => {
                for container in containers {
                    tidied("container", self.engine.remove(&container.name).await);
                    image = Some(container.image);
                }
            }
            Err(error) => tracing::warn!(run = %self.job.run, %error, "the run's containers were not removed"),
        }
        if let Some(image) = image {
            self.hand_back_workspace(image).await;
        }
        tidied("network", self.engine.remove_network(&network_name(self.shared, &self.job.run)).await);
        // The name of this run's image is done on the engine; the layers stay as cache.
        if let Ok((repository, tag)) = self.image_name(&self.job.trigger.commit) {
            let name = format!("{}/{repository}:{tag}", self.job.registry.host);
            tidied("image", self.engine.remove_image(&name).await);
        }
        remove_folder(self.folder.clone()).await;
    }

    /// Steps run as root, and a runner that is not root cannot remove what they made: a container does it then.
    async fn hand_back_workspace(&self, image: String) {
        if runs_as_root() {
            return;
        }
        let name = format!("{}.tidy", network_name(self.shared, &self.job.run));
        let container = steps::tidy_container(self, &name, image);
        let (output, _unread) = tokio::sync::mpsc::channel(TIDY_OUTPUT);
        let never = tokio_util::sync::CancellationToken::new();
        match self.engine.run_step(&container, None, &output, &never).await {
            Ok(end) if end.exit == (StepExit::Exited { code: 0 }) => {}
            Ok(end) => tracing::warn!(run = %self.job.run, ?end, "the workspace was not emptied"),
            Err(error) => tracing::warn!(run = %self.job.run, %error, "the workspace was not emptied"),
        }
        tidied("container", self.engine.remove(&name).await);
    }

    /// Labels of everything that the run makes on the engine.
    fn labels(&self) -> std::collections::BTreeMap<String, String> {
        [(RUNNER_LABEL.to_owned(), self.shared.instance.clone()), (RUN_LABEL.to_owned(), self.job.run.to_string())]
            .into()
    }

    /// `reference` as the mirror setting wants it.
    fn mirrored(&self, image: &str) -> String {
        charts::mirror::map_image(&self.job.mirrors, image)
    }

    /// The login for the registry of an image, where it is the job's.
    fn auth(&self, reference: &str) -> Option<RegistryAuth> {
        let host = reference.split('/').next()?;
        (host == self.job.registry.host).then(|| self.registry_auth()).flatten()
    }

    /// The login for the registry that the image goes to.
    fn registry_auth(&self) -> Option<RegistryAuth> {
        let (username, password) = self.job.registry.login.as_ref()?;
        Some(RegistryAuth {
            host: self.job.registry.host.clone(),
            username: username.clone(),
            password: password.expose().to_owned().into(),
        })
    }

    /// A client of the registry that the image goes to.
    fn registry(&self) -> Result<RegistryClient, Halt> {
        let access = &self.job.registry;
        let scheme = if access.plain_http { "http" } else { "https" };
        let settings = |why: String| Halt::infrastructure(format!("failed to use the test registry: {why}"));
        let endpoint = format!("{scheme}://{}", access.host);
        let endpoint = endpoint.parse().map_err(|error| settings(format!("{endpoint}: {error}")))?;
        let config = RegistryConfig {
            ca_pem: access.ca_pem.clone().map(String::into_bytes),
            credentials: access.login.as_ref().map(|(username, password)| Credentials {
                username: username.clone(),
                password: password.expose().to_owned().into(),
            }),
            outgoing: Outgoing::new(&self.job.outgoing).map_err(|error| settings(error.to_string()))?,
            ..RegistryConfig::new(endpoint)
        };
        RegistryClient::new(config).map_err(|error| settings(error.to_string()))
    }

    /// Waits for the engine for a while; whether it answers.
    async fn engine_back(&self) -> bool {
        let back = async {
            while self.engine.ping().await.is_err() {
                tokio::time::sleep(ENGINE_PAUSE).await;
            }
        };
        tokio::time::timeout(ENGINE_PATIENCE, back).await.is_ok()
    }

    /// Works at what asks the engine outside of a station, and again when it went away and is back. Who calls this leaves it
    /// when the run is stopped.
    async fn steadily<T, F: Future<Output = Result<T, Halt>>>(&self, work: impl Fn() -> F) -> Result<T, Halt> {
        for _ in 1..self.shared.config.attempts.max(1) {
            match work().await {
                Err(Halt::EngineAway { reason }) => {
                    tracing::warn!(run = %self.job.run, "{reason}; it is waited for");
                    if !self.engine_back().await {
                        return Err(Halt::EngineAway { reason });
                    }
                }
                end => return end,
            }
        }
        work().await
    }

    /// Whether a station whose engine went away is to be worked at again, now that it is back; `left` are the tries.
    async fn once_more<T>(&self, result: &Result<T, Halt>, left: &mut u32, log: &mut station::Station<'_, L>) -> bool {
        let Err(Halt::EngineAway { reason }) = result else { return false };
        *left = left.saturating_sub(1);
        if *left == 0 {
            return false;
        }
        log.log.finish().await;
        log.say(&format!("{reason}; it is waited for")).await;
        tokio::select! {
            back = self.engine_back() => back,
            () = self.link.control.stop.cancelled() => false,
        }
    }

    /// Tries what may succeed the next time; says so in between.
    async fn retry<T, E, F>(
        &self,
        log: &mut station::Station<'_, L>,
        transient: impl Fn(&E) -> bool,
        work: impl Fn() -> F,
    ) -> Result<T, E>
    where
        E: std::error::Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut pause = Duration::from_millis(self.shared.config.retry_first_ms.max(1));
        for attempt in 1.. {
            match work().await {
                Err(error) if attempt < self.shared.config.attempts && transient(&error) => {
                    log.say(&format!("failed to {}; trying again", chain(&error))).await;
                }
                end => return end,
            }
            tokio::select! {
                () = self.link.control.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause *= 4;
        }
        work().await
    }
}

/// Whether the same call to the engine may succeed a moment later.
fn is_transient(error: &DockerError) -> bool {
    matches!(error, DockerError::RegistryUnavailable { .. } | DockerError::TimedOut { .. })
}

fn registry_halt(error: &RegistryError) -> Halt {
    Halt::infrastructure(format!("failed to use the registry: {}", chain(error)))
}

/// Whether this process may remove everybody's files.
fn runs_as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Name of the network of a run.
pub(crate) fn network_name(shared: &Shared, run: &RunId) -> String {
    format!("wl-{}-{}-{}", shared.instance, run.service, run.number)
}

/// Reports what could not be removed; the next sweep tries again.
pub(crate) fn tidied(what: &str, result: Result<(), DockerError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a {what} was not removed");
    }
}

/// Removes the folder of a run.
pub(crate) async fn remove_folder(folder: RunFolder) {
    let path = folder.path().display().to_string();
    match tokio::task::spawn_blocking(move || folder.remove()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%path, %error, "the folder of a run was not removed"),
        Err(error) => tracing::error!(%path, %error, "the removal of a folder broke off"),
    }
}

/// All that must not be in the log: what the server says, and what the job itself carries.
fn secrets_of(job: &Job) -> Vec<pipelines::protocol::Secret> {
    use pipelines::protocol::GitAccess;
    let mut secrets = job.masks.clone();
    match &job.repository.credential {
        GitAccess::None => {}
        GitAccess::Token { token, .. } => secrets.push(token.clone()),
        GitAccess::SshKey { key } => secrets.push(key.clone()),
    }
    secrets.extend(job.registry.login.iter().map(|(_, password)| password.clone()));
    secrets
}
