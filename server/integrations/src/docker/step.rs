//! Containers of steps: a shell script in an image, with a workspace, limits and a time. Which steps run when is decided
//! by the runner.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::models::{ContainerCreateBody, HostConfig, ResourcesUlimits};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::logs::{LogCursor, LogPiece, Progress};
use super::{
    ContainerState, DockerError, Engine, KEPT_CAPABILITIES, Limits, check_name, environment, log_config, state_of,
};

/// The script is one argument of a process, and Linux takes 128 KiB of that.
const MAX_SCRIPT_BYTES: usize = 120 * 1024;
/// How much rather a step is killed than others when memory ends (proc(5), `oom_score_adj`).
const STEP_OOM_SCORE: i64 = 500;
/// Pause before a broken wait is taken up again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A folder of the host inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path on the engine's machine.
    pub host: PathBuf,
    /// Absolute path in the container.
    pub container: String,
    /// Whether the container may not write there.
    pub read_only: bool,
}

/// What one step needs.
#[derive(Debug, Clone)]
pub struct StepContainer {
    /// Made of run and step, so that the same step finds its container again after a restart.
    pub name: String,
    /// An image that the engine has (see [`Engine::ensure_image`]); it needs `/bin/sh`.
    pub image: String,
    /// Lines of shell. The first that fails ends the step; each is printed before it runs.
    pub commands: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Folders of the host, such as the workspace.
    pub mounts: Vec<Mount>,
    /// Where the commands run.
    pub workdir: String,
    /// Network of the run; without one the container has no network at all.
    pub network: Option<String>,
    /// Limits.
    pub limits: Limits,
    /// The largest file that it may write, in bytes.
    pub file_bytes_max: u64,
    /// User instead of the image's own.
    pub user: Option<String>,
    /// Labels, for finding it again.
    pub labels: BTreeMap<String, String>,
    /// Time for the commands, counted from the start of the container, also over restarts of ours.
    pub timeout: Duration,
    /// Time between the signal and the kill when it is stopped.
    pub stop_grace: Duration,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepExit {
    /// By itself.
    Exited {
        /// Exit code of the command that ended it.
        code: i64,
    },
    /// The kernel killed it for its memory.
    OutOfMemory,
    /// Its time was over.
    TimedOut,
    /// The token was cancelled.
    Cancelled,
}

/// The end of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepEnd {
    /// How it ended.
    pub exit: StepExit,
    /// Whether its container was there already.
    pub adopted: bool,
    /// When the container started, milliseconds since 1970.
    pub started_at_ms: i64,
    /// When the container ended, milliseconds since 1970.
    pub finished_at_ms: i64,
}

impl Engine {
    /// Runs a step to its end and hands over its output behind `after`. A container of that name that is there already
    /// is adopted, whether it runs or has ended, so after a restart the same call goes on. The container is **not**
    /// removed: call [`Engine::remove`] once the end and the output are stored.
    ///
    /// Dropping the future leaves the container running.
    ///
    /// # Errors
    /// [`DockerError::CannotStart`] and [`DockerError::InvalidSpec`] are the user's; all others are infrastructure.
    pub async fn run_step(
        &self,
        step: &StepContainer,
        after: Option<LogCursor>,
        output: &mpsc::Sender<LogPiece>,
        cancel: &CancellationToken,
    ) -> Result<StepEnd, DockerError> {
        let adopted = self.step_start(step).await?;
        self.attend_step(&step.name, step.timeout, step.stop_grace, after, output, cancel)
            .await
            .map(|end| StepEnd { adopted, ..end })
    }

    /// Makes the container of a step and starts it, or finds it. Returns whether it was there.
    ///
    /// # Errors
    /// As [`Engine::run_step`].
    pub async fn step_start(&self, step: &StepContainer) -> Result<bool, DockerError> {
        check_name(&step.name)?;
        let adopted = match self.container_state(&step.name).await? {
            None => {
                self.create_step(step).await?;
                false
            }
            // Made, but we died before it was started: it has no output yet.
            Some(ContainerState::Created) => false,
            Some(_) => return Ok(true),
        };
        let started = self.docker.start_container(&step.name, None::<StartContainerOptions>).await;
        started.map_err(|error| DockerError::start(&self.config.host, "start the container", &step.name, error))?;
        Ok(adopted)
    }

    /// Follows the container of a step that was started before, to its end.
    ///
    /// # Errors
    /// [`DockerError::NotFound`] when there is no such container; else as [`Engine::run_step`].
    pub async fn attend_step(
        &self,
        name: &str,
        timeout: Duration,
        stop_grace: Duration,
        after: Option<LogCursor>,
        output: &mpsc::Sender<LogPiece>,
        cancel: &CancellationToken,
    ) -> Result<StepEnd, DockerError> {
        let (started_at_ms, _) = self.step_times(name).await?;
        let left = left_of(timeout, started_at_ms);
        let progress = Progress::default();
        let follow = self.follow_with(name, after, output, &progress);
        // Stops the container at most once; the output is followed on meanwhile. The reason stands before the stop
        // begins, because the container's end is seen before the answer to the stop.
        let why = OnceLock::new();
        let control = async {
            let reason = tokio::select! {
                () = cancel.cancelled() => StepExit::Cancelled,
                () = tokio::time::sleep(left) => StepExit::TimedOut,
            };
            why.get_or_init(|| reason);
            self.stop(name, stop_grace).await
        };
        let wait = self.wait_for_end(name);
        tokio::pin!(follow, control, wait);
        let mut stopped = false;
        let mut followed = false;
        let mut ended = false;
        while !ended {
            tokio::select! {
                done = &mut wait => { done?; ended = true; }
                done = &mut follow, if !followed => { done?; followed = true; }
                done = &mut control, if !stopped => {
                    done?;
                    stopped = true;
                }
            }
        }
        let silence = Duration::from_millis(self.config.drain_silence_ms);
        while !followed {
            let before = progress.pieces();
            match tokio::time::timeout(silence, &mut follow).await {
                Ok(done) => {
                    done?;
                    followed = true;
                }
                // Much output takes its time, and a receiver that is away is no fault of the engine.
                Err(_) if progress.pieces() != before || progress.waits_for_receiver() => {}
                Err(_) => return Err(DockerError::TimedOut { action: "read the rest of the output" }),
            }
        }
        let state = self.container_state(name).await?;
        let (started_at_ms, finished_at_ms) = self.step_times(name).await?;
        let exit = match (why.get().copied(), state) {
            // It may have ended by itself while it was being stopped; its own word counts only if it succeeded.
            (Some(_), Some(ContainerState::Exited { code: 0, .. }))
                if finished_before(timeout, started_at_ms, finished_at_ms) && !cancel.is_cancelled() =>
            {
                StepExit::Exited { code: 0 }
            }
            (Some(why), _) => why,
            (None, Some(ContainerState::Exited { code, out_of_memory: true })) if code != 0 => StepExit::OutOfMemory,
            (None, Some(ContainerState::Exited { code, .. })) => {
                self.check_started(name, code).await?;
                StepExit::Exited { code }
            }
            (None, other) => {
                return Err(DockerError::Engine {
                    action: "learn how the container ended",
                    message: format!("its state is {other:?}"),
                });
            }
        };
        Ok(StepEnd { exit, adopted: true, started_at_ms, finished_at_ms })
    }

    /// The environment that the container of a step was made with; none where there is no such container. After a restart
    /// it says which values the step was given, whatever they are by now.
    ///
    /// # Errors
    /// Infrastructure only.
    pub async fn step_environment(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, DockerError> {
        let Some(found) = self.inspect(name).await? else { return Ok(None) };
        let variables = found.config.and_then(|config| config.env).unwrap_or_default();
        let split =
            |variable: String| variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Some(variables.into_iter().filter_map(split).collect()))
    }

    async fn create_step(&self, step: &StepContainer) -> Result<(), DockerError> {
        step.limits.check()?;
        let body = ContainerCreateBody {
            image: Some(step.image.clone()),
            entrypoint: Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script(&step.commands)?]),
            cmd: Some(Vec::new()),
            env: Some(environment(&step.env)?),
            working_dir: Some(step.workdir.clone()),
            user: step.user.clone(),
            labels: Some(step.labels.clone().into_iter().collect()),
            host_config: Some(HostConfig {
                binds: Some(binds(&step.mounts)?),
                network_mode: Some(step.network.clone().unwrap_or_else(|| "none".to_owned())),
                memory: Some(step.limits.memory()),
                memory_swap: Some(step.limits.memory()),
                nano_cpus: Some(step.limits.nano_cpus()),
                pids_limit: Some(i64::from(step.limits.pids)),
                ulimits: Some(vec![file_limit(step.file_bytes_max)]),
                ipc_mode: Some("private".to_owned()),
                // When the machine runs out of memory, a step goes before the server.
                oom_score_adj: Some(STEP_OOM_SCORE),
                init: Some(true),
                privileged: Some(false),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(KEPT_CAPABILITIES.map(str::to_owned).to_vec()),
                log_config: Some(log_config(self.config.step_log_bytes)),
                ..Default::default()
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&step.name).build();
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => Ok(()),
            Err(error) => Err(DockerError::start(&self.config.host, "make the container", &step.name, error)),
        }
    }

    /// The init process of the container, not the engine, finds that an image has no shell.
    async fn check_started(&self, name: &str, code: i64) -> Result<(), DockerError> {
        if code != 126 && code != 127 {
            return Ok(());
        }
        let tail = self.output_tail(name, 1).await?;
        match tail.last() {
            Some(line) if line.starts_with("[FATAL tini") => {
                Err(DockerError::CannotStart { name: name.to_owned(), message: line.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Waits until the container does not run, through restarts of the engine.
    async fn wait_for_end(&self, name: &str) -> Result<(), DockerError> {
        let patience = Duration::from_secs(self.config.engine_patience_seconds);
        let mut trouble_since = None;
        loop {
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let mut answers = Box::pin(self.docker.wait_container(name, Some(options)));
            let error = match answers.next().await {
                // The client makes an error of every exit code but 0.
                Some(Ok(_) | Err(BollardError::DockerContainerWaitError { .. })) => return Ok(()),
                Some(Err(error)) => self.failed("wait for the container")(error),
                None => DockerError::Engine { action: "wait for the container", message: "it hung up".to_owned() },
            };
            let since = *trouble_since.get_or_insert_with(tokio::time::Instant::now);
            if error.is_not_found() || since.elapsed() > patience {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Start and end of a container, milliseconds since 1970.
    async fn step_times(&self, name: &str) -> Result<(i64, i64), DockerError> {
        let Some(found) = self.inspect(name).await? else {
            return Err(DockerError::NotFound {
                action: "look at the container",
                message: format!("no such container: {name}"),
            });
        };
        if state_of(&found) == ContainerState::Created {
            return Err(DockerError::Engine {
                action: "follow the container",
                message: "it was never started".to_owned(),
            });
        }
        let state = found.state.unwrap_or_default();
        let ms = |text: Option<String>| {
            text.and_then(|text| text.parse::<jiff::Timestamp>().ok()).map_or(0, |time| time.as_millisecond())
        };
        let started_at_ms = ms(state.started_at);
        // The engine notes the start of a very short container after its end.
        Ok((started_at_ms, ms(state.finished_at).max(started_at_ms)))
    }
}

fn left_of(timeout: Duration, started_at_ms: i64) -> Duration {
    let gone = jiff::Timestamp::now().as_millisecond().saturating_sub(started_at_ms);
    timeout.saturating_sub(Duration::from_millis(u64::try_from(gone).unwrap_or(0)))
}

fn finished_before(timeout: Duration, started_at_ms: i64, finished_at_ms: i64) -> bool {
    u128::try_from(finished_at_ms.saturating_sub(started_at_ms)).is_ok_and(|took| took < timeout.as_millis())
}

fn binds(mounts: &[Mount]) -> Result<Vec<String>, DockerError> {
    mounts
        .iter()
        .map(|mount| {
            let host = mount.host.to_str().filter(|host| host.starts_with('/') && !host.contains(':'));
            let container = Some(mount.container.as_str()).filter(|path| path.starts_with('/') && !path.contains(':'));
            let (Some(host), Some(container)) = (host, container) else {
                return Err(DockerError::InvalidSpec { reason: format!("{mount:?} cannot be mounted") });
            };
            if host.ends_with("docker.sock") {
                return Err(DockerError::InvalidSpec { reason: "a step never gets the docker socket".to_owned() });
            }
            Ok(format!("{host}:{container}:{}", if mount.read_only { "ro" } else { "rw" }))
        })
        .collect()
}

/// The kernel cuts a file there, whoever writes it.
fn file_limit(bytes: u64) -> ResourcesUlimits {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    ResourcesUlimits { name: Some("fsize".to_owned()), soft: Some(bytes), hard: Some(bytes) }
}

/// Prints each command, then runs it; the first that fails ends the script.
fn script(commands: &[String]) -> Result<String, DockerError> {
    let mut script = String::from("set -e\n");
    for command in commands {
        if command.contains('\0') {
            return Err(DockerError::InvalidSpec { reason: "a command holds a zero byte".to_owned() });
        }
        for (n, line) in command.trim_end().lines().enumerate() {
            let mark = if n == 0 { "+ " } else { "> " };
            script.push_str(&format!("printf '%s\\n' {}\n", quote(&format!("{mark}{line}"))));
        }
        script.push_str(command);
        script.push('\n');
    }
    if script.len() > MAX_SCRIPT_BYTES {
        return Err(DockerError::InvalidSpec {
            reason: format!("the commands are longer than {} KiB together", MAX_SCRIPT_BYTES / 1024),
        });
    }
    Ok(script)
}

/// One word of a shell, whatever it holds.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(commands: &[&str]) -> (String, Option<i32>) {
        let commands: Vec<_> = commands.iter().map(|text| (*text).to_owned()).collect();
        let script = script(&commands).expect("a script");
        let output = std::process::Command::new("/bin/sh").arg("-c").arg(script).output().expect("a shell");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    }

    #[test]
    fn each_command_is_printed_and_the_first_failure_ends_the_script() {
        let (output, code) =
            run(&["echo 'it''s' $((1+1))", "for x in a b; do\n  echo $x\ndone", "(exit 3)", "echo never"]);
        assert_eq!(code, Some(3));
        assert_eq!(
            output,
            "+ echo 'it''s' $((1+1))\nits 2\n+ for x in a b; do\n>   echo $x\n> done\na\nb\n+ (exit 3)\n"
        );
    }

    #[test]
    fn a_script_is_bounded_and_holds_no_zero_byte() {
        assert!(script(&["x".repeat(MAX_SCRIPT_BYTES)]).is_err());
        assert!(script(&["a\0b".to_owned()]).is_err());
    }

    #[test]
    fn the_socket_and_relative_paths_cannot_be_mounted() {
        let mount = |host: &str, container: &str| Mount {
            host: host.into(),
            container: container.to_owned(),
            read_only: false,
        };
        assert!(binds(&[mount("/var/run/docker.sock", "/x")]).is_err());
        assert!(binds(&[mount("relative", "/x")]).is_err());
        assert!(binds(&[mount("/a:b", "/x")]).is_err());
        assert_eq!(binds(&[mount("/a", "/x")]).expect("fine"), ["/a:/x:rw"]);
    }
}
