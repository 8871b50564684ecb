//! The Docker Engine of a test, spoken to through the `docker` program: a second opinion beside the product's own
//! client. Base images come from a file, because nothing can be pulled.

use std::{
    env, fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::{
    parts::{busybox_rootfs, program},
    process::{Process, Stop, free_port, is_root, output, pid_alive},
    registry::Registry,
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(50);
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const OWN_PREFIX: &str = "windlass-engine-";
/// With a port number behind it, at most the 15 characters that Linux allows.
const BRIDGE_PREFIX: &str = "wl-test-";

/// The base image that [`DockerEngine::load_base_images`] brings.
pub const BASE_IMAGE: &str = "busybox:1.36";

/// A Docker Engine that answers.
#[derive(Debug)]
pub struct DockerEngine {
    host: String,
    own: Option<Own>,
}

/// What an engine of the test's own consists of.
#[derive(Debug)]
struct Own {
    process: Mutex<Process>,
    arguments: Vec<String>,
    dir: PathBuf,
    bridge: Option<String>,
    /// Of an engine that may die: what supervises its containers is another's child, as where both are services.
    containerd: Option<Process>,
}

impl DockerEngine {
    /// The engine of this test process: that of `DOCKER_HOST`, else the machine's own, else one that is started now
    /// and ends with the process. Base images are loaded.
    ///
    /// # Errors
    /// When none answers and none can be started.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<DockerEngine> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| async {
                let engine = match existing_host() {
                    Some(host) => Self { host, own: None },
                    None => Self::start().await?,
                };
                engine.load_base_images()?;
                Ok(engine)
            })
            .await
    }

    /// Starts an engine of its own, with a folder of its own, beside any other. Without images.
    ///
    /// # Errors
    /// When `dockerd` is missing, this is not root, or it does not become ready.
    pub async fn start() -> Result<Self> {
        let bridge = add_bridge(free_port())?;
        let arguments = ["--bridge", &bridge, "--default-address-pool", "base=198.19.0.0/16,size=24"];
        let arguments = arguments.map(str::to_owned).to_vec();
        Self::start_with(arguments, Some(bridge), false).await
    }

    /// Starts one whose containers outlive it (live-restore), on the usual bridge: this process must have a network
    /// namespace of its own, see [`crate::process::in_own_network`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_to_die() -> Result<Self> {
        // Without the proxy, published ports are the kernel's, and do not die with the engine.
        Self::start_with(["--live-restore", "--userland-proxy=false"].map(str::to_owned).to_vec(), None, true).await
    }

    async fn start_with(mut arguments: Vec<String>, bridge: Option<String>, may_die: bool) -> Result<Self> {
        remove_leftovers();
        // Not below target/: the path of a socket may have 108 bytes.
        let number = bridge.as_deref().and_then(|name| name.strip_prefix(BRIDGE_PREFIX));
        let number = number.map_or_else(|| free_port().to_string(), str::to_owned);
        let dir = env::temp_dir().join(format!("{OWN_PREFIX}{}-{number}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let host = format!("unix://{}", dir.join("docker.sock").display());
        let mut containerd = None;
        if may_die {
            let socket = dir.join("containerd.sock");
            arguments.extend(["--containerd".to_owned(), socket.display().to_string()]);
            let mut process = launch_containerd(&dir, &socket)?;
            process.ready(READY_WITHIN, || async { UnixStream::connect(&socket).ok() }).await?;
            containerd = Some(process);
        }
        let process = Mutex::new(launch(&dir, &arguments)?);
        let own = Own { process, arguments, dir, bridge, containerd };
        let engine = Self { host, own: Some(own) };
        engine.ready().await?;
        Ok(engine)
    }

    async fn ready(&self) -> Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let began = Instant::now();
        while !answers(&self.host) {
            {
                let mut process = own.process.lock().unwrap_or_else(PoisonError::into_inner);
                let may_come = process.alive() && began.elapsed() < READY_WITHIN;
                ensure!(may_come, "dockerd is not ready:\n{}", process.log_tail());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// Kills an engine of the test's own: connections are refused until [`Self::revive`].
    pub fn die(&self) {
        if let Some(own) = &self.own {
            own.process.lock().unwrap_or_else(PoisonError::into_inner).kill();
        }
    }

    /// Starts it again as it was; [`Self::answers`] says when it is there.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn revive(&self) -> Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        *own.process.lock().unwrap_or_else(PoisonError::into_inner) = launch(&own.dir, &own.arguments)?;
        Ok(())
    }

    /// The end of the log of an engine of the test's own.
    #[must_use]
    pub fn own_log(&self) -> String {
        let Some(own) = &self.own else { return String::new() };
        own.process.lock().unwrap_or_else(PoisonError::into_inner).log_tail()
    }

    /// Whether it answers now.
    #[must_use]
    pub fn answers(&self) -> bool {
        answers(&self.host)
    }

    /// Its address, as `DOCKER_HOST` takes it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Runs `docker` with these arguments and gives its standard output without the last line end.
    ///
    /// # Errors
    /// When the program fails; the message holds its outputs.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let done = output(self.command().args(arguments))?;
        Ok(done.trim_end().to_owned())
    }

    /// A `docker` command that speaks to this engine, for streams and other special cases.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.host).env_remove("DOCKER_CONTEXT");
        command
    }

    /// Brings `busybox:1.36`, made of Debian's static busybox with all its names, unless it is there.
    ///
    /// # Errors
    /// When the file of `make parts` is missing or the import fails.
    pub fn load_base_images(&self) -> Result<()> {
        if self.docker(&["image", "inspect", BASE_IMAGE]).is_ok() {
            return Ok(());
        }
        let rootfs = busybox_rootfs();
        ensure!(rootfs.exists(), "{} is missing: run `make parts`", rootfs.display());
        let rootfs = rootfs.to_string_lossy();
        self.docker(&["import", "-c", "CMD [\"/bin/sh\"]", "-c", "ENV PATH=/bin", &rootfs, BASE_IMAGE])?;
        Ok(())
    }

    /// Tags a local image as `repository:tag` of a registry, pushes it and gives the digest that the registry states.
    ///
    /// # Errors
    /// When the push fails or the registry does not know the tag afterwards.
    pub async fn push(&self, image: &str, registry: &Registry, repository: &str, tag: &str) -> Result<String> {
        let target = format!("{}/{repository}:{tag}", registry.host_port());
        self.docker(&["tag", image, &target])?;
        let config = registry_login(registry)?;
        output(self.command().arg("--config").arg(config.path()).args(["push", "--quiet", &target]))?;
        self.docker(&["rmi", "--no-prune", &target])?;
        registry.digest(repository, tag).await?.with_context(|| format!("the registry does not know {target}"))
    }

    /// The ids of the containers, running or not, with this label (`name` or `name=value`).
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn containers(&self, label: &str) -> Result<Vec<String>> {
        let ids = self.docker(&["ps", "-aq", "--no-trunc", "--filter", &format!("label={label}")])?;
        Ok(ids.lines().map(str::to_owned).collect())
    }

    /// Removes the containers, networks and volumes with this label, running or not.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn remove_labelled(&self, label: &str) -> Result<()> {
        let filter = format!("label={label}");
        let kinds: [(&[&str], &[&str]); 3] = [
            (&["ps", "-aq"], &["rm", "-f", "-v"]),
            (&["network", "ls", "-q"], &["network", "rm"]),
            (&["volume", "ls", "-q"], &["volume", "rm", "-f"]),
        ];
        for (list, remove) in kinds {
            let found = self.docker(&[list, &["--filter", &filter]].concat())?;
            for id in found.lines() {
                self.docker(&[remove, &[id]].concat())?;
            }
        }
        Ok(())
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        if self.own.is_none() {
            return;
        }
        // Only an engine that lives can end its containers.
        let began = Instant::now();
        if !self.answers() && self.revive().is_ok() {
            while !self.answers() && began.elapsed() < READY_WITHIN {
                std::thread::sleep(POLL_EVERY);
            }
        }
        if let Ok(ids) = self.docker(&["ps", "-q"]) {
            // Containers first: the engine's own stop leaves those of a killed containerd behind.
            for id in ids.lines() {
                let _ = self.docker(&["kill", id]);
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.process.get_mut().unwrap_or_else(PoisonError::into_inner).stop();
        if let Some(containerd) = &mut self.containerd {
            containerd.stop();
        }
        if let Some(bridge) = &self.bridge {
            remove_bridge(bridge);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn launch_containerd(dir: &Path, socket: &Path) -> Result<Process> {
    let config = dir.join("containerd.toml");
    fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
    let mut command = Command::new(program("containerd").context("the program containerd is missing")?);
    command.arg("--config").arg(config).arg("--address").arg(socket);
    command.arg("--root").arg(dir.join("containerd")).arg("--state").arg(dir.join("containerd-state"));
    Process::spawn("containerd", command, &dir.join("containerd.log"), Stop::Term { within: STOP_WITHIN })
}

fn launch(dir: &Path, arguments: &[String]) -> Result<Process> {
    let mut command = Command::new(program("dockerd").context("the program dockerd is missing")?);
    command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
    command.arg("-p").arg(dir.join("pid")).args(["-H", &format!("unix://{}", dir.join("docker.sock").display())]);
    command.args(arguments);
    Process::spawn("dockerd", command, &dir.join("log"), Stop::Term { within: STOP_WITHIN })
}

/// What is missing for an engine on this machine.
pub(crate) fn lack() -> Option<String> {
    if program("docker").is_none() {
        return Some("the program docker is missing: run `make parts`".into());
    }
    if existing_host().is_some() {
        return None;
    }
    if program("dockerd").is_none() {
        return Some("no Docker Engine answers and dockerd is missing: run `make parts`".into());
    }
    (!is_root()).then(|| "no Docker Engine answers and only root may start one: set DOCKER_HOST".into())
}

fn existing_host() -> Option<String> {
    let hosts = env::var("DOCKER_HOST").ok().into_iter().chain([format!("unix://{DEFAULT_SOCKET}")]);
    hosts.into_iter().find(|host| answers(host))
}

fn answers(host: &str) -> bool {
    let mut command = Command::new("docker");
    command.args(["version", "--format", "{{.Server.APIVersion}}"]).env("DOCKER_HOST", host);
    output(&mut command).is_ok()
}

/// The configuration folder of a `docker` that is signed in to this registry.
fn registry_login(registry: &Registry) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let auths = match registry.auth() {
        Some((user, password)) => {
            let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
            serde_json::json!({ registry.host_port(): { "auth": auth } })
        }
        None => serde_json::json!({}),
    };
    fs::write(dir.path().join("config.json"), serde_json::json!({ "auths": auths }).to_string())?;
    Ok(dir)
}

/// The folder of a shared engine outlives its test process: nothing runs after the last test. The next start clears it.
fn remove_leftovers() {
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix(OWN_PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok()) else {
            continue;
        };
        if !pid_alive(owner) && !engine_alive(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
            if let Some((_, number)) = name.rsplit_once('-') {
                remove_bridge(&format!("{BRIDGE_PREFIX}{number}"));
            }
        }
    }
}

/// A bridge of the engine's own: two engines on docker0 would give two containers one address. Its network is of the
/// range for benchmarks (RFC 2544), which no real network has.
fn add_bridge(number: u16) -> Result<String> {
    let name = format!("{BRIDGE_PREFIX}{number}");
    let address = format!("198.18.{}.1/24", number % 256);
    output(Command::new("ip").args(["link", "add", "name", &name, "type", "bridge"]))?;
    output(Command::new("ip").args(["address", "add", &address, "dev", &name]))?;
    output(Command::new("ip").args(["link", "set", &name, "up"]))?;
    Ok(name)
}

fn remove_bridge(name: &str) {
    // Fails only when it is gone already.
    let _ = output(Command::new("ip").args(["link", "delete", name]));
}

fn engine_alive(dir: &Path) -> bool {
    let pid = fs::read_to_string(dir.join("pid")).ok().and_then(|text| text.trim().parse().ok());
    pid.is_some_and(pid_alive)
}
