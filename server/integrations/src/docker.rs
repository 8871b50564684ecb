//! The Docker Engine: containers of steps and of services, images, their way to and from registries. What a container
//! is for is decided by the callers; a digest is never taken from here where a registry can be asked.
//!
//! One [`Engine`] may be cloned and used by many tasks at once. Every call may be repeated: what exists already is
//! found by its name, and what is gone already is not missed.

mod build;
mod deploy;
mod error;
mod health;
mod image;
mod logs;
mod network;
mod step;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HostConfigLogConfig};
use bollard::query_parameters::{
    InspectContainerOptions, InspectContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use http::HeaderValue;
use secrecy::SecretString;

pub use build::{BuildLine, BuildRequest, BuiltImage, MAX_BUILD_MEMORY_BYTES};
pub use deploy::{ContainerSummary, DeployContainer, Deployed, OnDifference, RestartRule, RunningImage};
pub use error::DockerError;
pub use health::{Health, HealthCheck};
pub use image::{ImageInfo, TransferProgress};
pub use logs::{LogCursor, LogPiece, LogStream};
pub use network::bridge_name;
pub use step::{Mount, StepContainer, StepEnd, StepExit};

/// Capabilities that ordinary images need to install packages and to change to their own user. All others are
/// dropped, among them raw sockets and device nodes.
const KEPT_CAPABILITIES: [&str; 8] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];

/// Where the engine is and the bounds of everything that is asked of it.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// `unix://…` or `tcp://…`.
    pub host: String,
    /// Longest wait for the beginning of an answer.
    pub request_timeout_seconds: u64,
    /// Longest wait for the first line of a build, while the whole context goes over.
    pub build_start_seconds: u64,
    /// How long a container is followed on while the engine itself does not answer.
    pub engine_patience_seconds: u64,
    /// How long the engine may be silent while the rest of an output is read after its container has ended.
    pub drain_silence_ms: u64,
    /// Output of one step that the engine keeps; older output is dropped by the engine.
    pub step_log_bytes: u64,
    /// Output of one service container that the engine keeps.
    pub service_log_bytes: u64,
    /// Ports of the host that service containers are published on. Below the ports that the kernel gives to clients, so
    /// that a container finds its port again when it restarts.
    pub published_ports: RangeInclusive<u16>,
    /// Address of the host that service containers are published on.
    pub published_address: std::net::IpAddr,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            host: "unix:///var/run/docker.sock".to_owned(),
            request_timeout_seconds: 120,
            build_start_seconds: 600,
            engine_patience_seconds: 60,
            drain_silence_ms: 10_000,
            step_log_bytes: 128 << 20,
            service_log_bytes: 32 << 20,
            published_ports: 20_000..=29_999,
            published_address: std::net::Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// Credentials of one registry.
#[derive(Debug, Clone)]
pub struct RegistryAuth {
    /// Host and port of the registry, as in an image reference.
    pub host: String,
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: SecretString,
}

/// Limits of one container. Zero is refused, so nothing is unlimited by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    /// Memory; swap is not given on top of it.
    pub memory_bytes: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
}

impl Limits {
    /// Refuses what the engine would take for "unlimited", and memory that it would refuse.
    fn check(&self) -> Result<(), DockerError> {
        if self.memory_bytes < 6 << 20 || self.cpu_millis < 10 || self.pids == 0 {
            return Err(DockerError::InvalidSpec {
                reason: "a container needs at least 6 MiB of memory, 0.01 processors and 1 process".to_owned(),
            });
        }
        Ok(())
    }

    fn nano_cpus(&self) -> i64 {
        i64::from(self.cpu_millis) * 1_000_000
    }

    fn memory(&self) -> i64 {
        i64::try_from(self.memory_bytes).unwrap_or(i64::MAX)
    }
}

/// What a container does at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started yet.
    Created,
    /// Runs.
    Running,
    /// Ended, and the engine starts it again by its restart rule.
    Restarting,
    /// Ended.
    Exited {
        /// Exit code of its first process.
        code: i64,
        /// Whether the kernel killed a process of it for its memory.
        out_of_memory: bool,
    },
}

/// A client of one Docker Engine.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    config: Arc<EngineConfig>,
}

impl Engine {
    /// Connects and agrees on a version of the API.
    ///
    /// # Errors
    /// [`DockerError::Unreachable`] or [`DockerError::TimedOut`].
    pub async fn connect(config: EngineConfig) -> Result<Self, DockerError> {
        const ACTION: &str = "connect to the docker engine";
        let fail = |error| DockerError::engine(&config.host, ACTION, error);
        let seconds = config.request_timeout_seconds;
        let docker = if config.host.starts_with("unix://") {
            Docker::connect_with_unix(&config.host, seconds, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_host(&config.host)
        }
        .map_err(fail)?
        .with_timeout(Duration::from_secs(seconds))
        .with_request_modifier(repair_registry_headers);
        let docker = docker.negotiate_version().await.map_err(fail)?;
        Ok(Self { docker, config: Arc::new(config) })
    }

    /// Settings that this client was made with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Asks whether the engine is there.
    ///
    /// # Errors
    /// [`DockerError::Unreachable`] or [`DockerError::TimedOut`].
    pub async fn ping(&self) -> Result<(), DockerError> {
        self.docker.ping().await.map(drop).map_err(self.failed("ask the docker engine"))
    }

    /// The engine's version and that of its API, as `20.10.24` and `1.41`.
    ///
    /// # Errors
    /// [`DockerError::Unreachable`] or [`DockerError::TimedOut`].
    pub async fn version(&self) -> Result<(String, String), DockerError> {
        let found = self.docker.version().await.map_err(self.failed("ask the docker engine for its version"))?;
        Ok((found.version.unwrap_or_default(), found.api_version.unwrap_or_default()))
    }

    /// State of a container; `None` when there is no such container.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn container_state(&self, name: &str) -> Result<Option<ContainerState>, DockerError> {
        Ok(self.inspect(name).await?.map(|found| state_of(&found)))
    }

    /// What a container wrote beside its mounts, in bytes; 0 when there is no such container.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn written_bytes(&self, name: &str) -> Result<u64, DockerError> {
        let options = InspectContainerOptionsBuilder::new().size(true).build();
        match self.docker.inspect_container(name, Some(options)).await {
            Ok(found) => Ok(found.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)),
            Err(error) => match self.failed("measure the container")(error) {
                error if error.is_not_found() => Ok(0),
                error => Err(error),
            },
        }
    }

    /// Stops a container: a signal, a grace, a kill. A container that does not run or does not exist is fine.
    ///
    /// # Errors
    /// When the engine cannot do it.
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<(), DockerError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let patient =
            self.docker.clone().with_timeout(grace + Duration::from_secs(self.config.request_timeout_seconds));
        match patient.stop_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) => match self.failed("stop the container")(error) {
                error if error.is_not_found() => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Removes a container with its anonymous volumes, running or not. A container that does not exist is fine.
    ///
    /// # Errors
    /// When the engine cannot do it.
    pub async fn remove(&self, name: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) => match self.failed("remove the container")(error) {
                error if error.is_not_found() => Ok(()),
                // Someone else removes it at this moment.
                DockerError::Engine { message, .. } if message.contains("already in progress") => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, DockerError> {
        let answer = self.docker.inspect_container(name, None::<InspectContainerOptions>).await;
        match answer {
            Ok(found) => Ok(Some(found)),
            Err(error) => match self.failed("look at the container")(error) {
                error if error.is_not_found() => Ok(None),
                error => Err(error),
            },
        }
    }

    fn failed(&self, action: &'static str) -> impl Fn(bollard::errors::Error) -> DockerError + use<'_> {
        move |error| DockerError::engine(&self.config.host, action, error)
    }
}

/// The client writes credentials in the standard alphabet of base64, the engine reads the one for URLs, and both differ
/// in two letters: without this, some passwords are refused.
fn repair_registry_headers(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    for name in ["x-registry-auth", "x-registry-config"] {
        if let Some(value) = request.headers_mut().get_mut(name)
            && let Ok(text) = value.to_str()
            && let Ok(mut repaired) = HeaderValue::from_str(&text.replace('+', "-").replace('/', "_"))
        {
            repaired.set_sensitive(true);
            *value = repaired;
        }
    }
    request
}

fn state_of(found: &ContainerInspectResponse) -> ContainerState {
    let Some(state) = &found.state else {
        return ContainerState::Created;
    };
    match state.status {
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => ContainerState::Running,
        Some(ContainerStateStatusEnum::RESTARTING) => ContainerState::Restarting,
        Some(ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY) | None => ContainerState::Created,
        Some(_) => ContainerState::Exited {
            code: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed.unwrap_or(false),
        },
    }
}

/// Bounded files on the disk of the engine, which can be read again from the start.
fn log_config(bytes: u64) -> HostConfigLogConfig {
    const FILES: u64 = 2;
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(
            [
                ("max-size".to_owned(), (bytes / FILES).max(4096).to_string()),
                ("max-file".to_owned(), FILES.to_string()),
            ]
            .into(),
        ),
    }
}

/// Names of containers, networks and labels go into URLs of the engine.
fn check_name(name: &str) -> Result<(), DockerError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && name.len() <= 200 {
        return Ok(());
    }
    Err(DockerError::InvalidSpec { reason: format!("{name:?} is not a name for a container") })
}

/// `KEY=value` lines of the engine.
fn environment(variables: &std::collections::BTreeMap<String, String>) -> Result<Vec<String>, DockerError> {
    variables
        .iter()
        .map(|(key, value)| {
            let bad_key = key.is_empty() || key.contains(['=', '\0']);
            if bad_key || value.contains('\0') {
                return Err(DockerError::InvalidSpec {
                    reason: format!("{key:?} is not usable as an environment variable"),
                });
            }
            Ok(format!("{key}={value}"))
        })
        .collect()
}
