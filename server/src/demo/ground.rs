//! What the demo stands on: a container engine, two image registries and a base image, all on this machine. What it
//! started itself ends with it.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use flate2::{Compression, write::GzEncoder};
use integrations::{
    docker::{Engine, EngineConfig},
    registry::{Manifest, RegistryClient, RegistryConfig},
};
use pipelines::ids::Digest;
use serde_json::json;
use tokio::process::{Child, Command};

/// The base image's name in pipeline files; a mirror rule says where it really is.
pub(super) const BASE_IMAGE: &str = "busybox:1.36";
const START_WITHIN: Duration = Duration::from_secs(30);

/// A process that ends with the demo.
pub(super) struct Process {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub(super) fn start(name: &'static str, mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let out = std::fs::File::create(&log).with_context(|| format!("failed to write {}", log.display()))?;
        let err = out.try_clone()?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(out))
            .stderr(Stdio::from(err))
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        Ok(Self { child, name, log })
    }

    /// Waits until `ready` says so, or the process ends, or the time is over.
    pub(super) async fn until<F: Future<Output = bool>>(&mut self, mut ready: impl FnMut() -> F) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + START_WITHIN;
        while !ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}; its last words: {}", self.name, self.last_words());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{} does not answer; its last words: {}", self.name, self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Ok(())
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
    }

    /// Asks it to end and waits for it.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            let asked = Command::new("kill").arg("-TERM").arg(pid.to_string()).status().await;
            if asked.is_ok() && tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await.is_ok() {
                return;
            }
        }
        let _ = self.child.kill().await;
    }
}

/// A port that is free now.
pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The engine: the one that is there, or one of the demo's own.
pub(super) struct Ground {
    /// Where the engine listens.
    pub(super) docker_host: String,
    /// `host:port` of the test registry.
    pub(super) test: String,
    /// `host:port` of the production registry.
    pub(super) production: String,
    processes: Vec<Process>,
}

impl Ground {
    /// Starts what is missing in `folder`.
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut processes = Vec::new();
        let docker_host = match find_engine().await {
            Some(host) => host,
            None => {
                let (host, process) = start_engine(&folder.join("docker")).await?;
                processes.push(process);
                host
            }
        };
        let mut registries = Vec::new();
        for name in ["test", "production"] {
            let (host, process) = start_registry(&folder.join(format!("registry-{name}"))).await?;
            registries.push(host);
            processes.push(process);
        }
        let [test, production] = <[String; 2]>::try_from(registries).map_err(|_| anyhow::anyhow!("no registries"))?;
        push_base_image(&test).await.context("failed to push the base image")?;
        Ok(Self { docker_host, test, production, processes })
    }

    /// The engine.
    pub(super) async fn engine(&self) -> anyhow::Result<Engine> {
        let host = self.docker_host.clone();
        Ok(Engine::connect(EngineConfig { host, ..EngineConfig::default() }).await?)
    }

    /// Ends what was started, last first.
    pub(super) async fn stop(self) {
        for process in self.processes.into_iter().rev() {
            process.stop().await;
        }
    }
}

async fn find_engine() -> Option<String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| EngineConfig::default().host);
    let engine = Engine::connect(EngineConfig { host: host.clone(), ..EngineConfig::default() }).await.ok()?;
    engine.ping().await.ok().map(|()| host)
}

/// The process of an engine that runs on this machine.
fn running_engine() -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        (name.trim() == "dockerd").then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

async fn start_engine(folder: &Path) -> anyhow::Result<(String, Process)> {
    // Two engines on one bridge give two containers the same address.
    if let Some(pid) = running_engine() {
        bail!(
            "start a Docker Engine: one runs here already (process {pid}), but not where DOCKER_HOST says; \
             set DOCKER_HOST to its socket, such as unix:///var/run/docker.sock"
        );
    }
    std::fs::create_dir_all(folder)?;
    let host = format!("unix://{}", folder.join("docker.sock").display());
    let mut command = Command::new("dockerd");
    command
        .arg("--data-root")
        .arg(folder.join("data"))
        .arg("--exec-root")
        .arg(folder.join("exec"))
        .arg("-p")
        .arg(folder.join("pid"))
        .arg("-H")
        .arg(&host);
    let mut process = Process::start("dockerd", command, folder.join("log")).context(
        "no container engine answers and none can be started here; install Docker Engine (Debian: docker.io)",
    )?;
    process
        .until(|| async {
            match Engine::connect(EngineConfig { host: host.clone(), ..EngineConfig::default() }).await {
                Ok(engine) => engine.ping().await.is_ok(),
                Err(_) => false,
            }
        })
        .await?;
    Ok((host, process))
}

async fn start_registry(folder: &Path) -> anyhow::Result<(String, Process)> {
    std::fs::create_dir_all(folder.join("data"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let config = json!({
        "version": "0.1",
        "log": { "level": "warn" },
        "storage": { "filesystem": { "rootdirectory": folder.join("data") }, "delete": { "enabled": true } },
        "http": { "addr": address.to_string() },
    });
    let file = folder.join("config.yml");
    std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&file);
    let mut process = Process::start("docker-registry", command, folder.join("log"))
        .context("the image registry is missing; install it (Debian: docker-registry)")?;
    process.until(|| async { tokio::net::TcpStream::connect(address).await.is_ok() }).await?;
    Ok((address.to_string(), process))
}

/// The client of a registry of the demo.
pub(super) fn registry_client(host: &str) -> anyhow::Result<RegistryClient> {
    Ok(RegistryClient::new(RegistryConfig::new(format!("http://{host}").parse()?))?)
}

/// Makes the base image out of the machine's static busybox and pushes it to the test registry, so that nothing has to
/// be fetched from the internet.
async fn push_base_image(registry: &str) -> anyhow::Result<()> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok());
    let busybox = busybox.context("busybox is missing; install it (Debian: busybox-static)")?;
    let listed = Command::new("busybox").arg("--list").output().await.context("busybox does not run")?;
    let applets = String::from_utf8(listed.stdout).context("busybox lists no applets")?;
    let layer = tokio::task::spawn_blocking(move || base_layer(&busybox, &applets)).await??;
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(&layer)?;
    let zipped = zipped.finish()?;

    let client = registry_client(registry)?;
    let repository = "library/busybox".parse()?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::to_vec(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).as_str()] },
    }))?;
    let media = |kind: &str| format!("application/vnd.oci.image.{kind}");
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": media("manifest.v1+json"),
        "config": { "mediaType": media("config.v1+json"), "digest": Digest::of(&config).as_str(), "size": config.len() },
        "layers": [{
            "mediaType": media("layer.v1.tar+gzip"), "digest": Digest::of(&zipped).as_str(), "size": zipped.len(),
        }],
    }))?;
    client.push_blob(&repository, zipped.into()).await?;
    client.push_blob(&repository, config.into()).await?;
    let manifest =
        Manifest { digest: Digest::of(&manifest), media_type: media("manifest.v1+json"), bytes: manifest.into() };
    client.put_manifest(&repository, &manifest, Some(&"1.36".parse()?)).await?;
    Ok(())
}

fn base_layer(busybox: &[u8], applets: &str) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, kind: tar::EntryType, data: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(0);
        match link {
            Some(target) => tar.append_link(&mut header, path, target),
            None => tar.append_data(&mut header, path, data),
        }
    };
    for (folder, mode) in
        [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("srv", 0o755), ("usr", 0o755)]
    {
        add(&format!("{folder}/"), mode, tar::EntryType::Directory, &[], None)?;
    }
    add("bin/busybox", 0o755, tar::EntryType::Regular, busybox, None)?;
    for applet in applets.lines().filter(|applet| !applet.is_empty() && *applet != "busybox") {
        add(&format!("bin/{applet}"), 0o777, tar::EntryType::Symlink, &[], Some("busybox"))?;
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    add("etc/passwd", 0o644, tar::EntryType::Regular, passwd, None)?;
    add("etc/group", 0o644, tar::EntryType::Regular, b"root:x:0:\nnogroup:x:65534:\n", None)?;
    tar.into_inner()
}

/// The mirror rules by which the base image is found.
pub(super) fn mirrors(test_registry: &str) -> Vec<BTreeMap<&'static str, String>> {
    vec![BTreeMap::from([("from", BASE_IMAGE.to_owned()), ("to", format!("{test_registry}/library/busybox:1.36"))])]
}
