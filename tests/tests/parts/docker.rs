//! The engine client on a real Docker Engine and real registries: steps, builds, pushes, deployments, health. What the
//! runner makes of it is tested beside this.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::stream;
use integrations::docker::{
    BuildLine, BuildRequest, ContainerState, DeployContainer, DockerError, Engine, EngineConfig, Health, HealthCheck,
    Limits, LogCursor, LogPiece, LogStream, Mount, OnDifference, RegistryAuth, RestartRule, StepContainer, StepEnd,
    StepExit,
};
use tests::{DockerEngine, Part, Registry, require};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "busybox:1.36";

/// A client of the shared engine, and a prefix for names; removes what carries it at the end.
struct Bench {
    shared: &'static DockerEngine,
    engine: Engine,
    prefix: String,
    images: Mutex<Vec<String>>,
}

impl Bench {
    async fn new() -> Result<Self> {
        let shared = DockerEngine::shared().await?;
        let config = EngineConfig { host: shared.host().to_owned(), ..EngineConfig::default() };
        let engine = Engine::connect(config).await?;
        let prefix = format!("wldocker-{}-{}", std::process::id(), tests::free_port());
        Ok(Self { shared, engine, prefix, images: Mutex::default() })
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Removes this image at the end.
    fn forget(&self, image: &str) {
        self.images.lock().expect("no test panics with it").push(image.to_owned());
    }

    fn labels(&self) -> BTreeMap<String, String> {
        [("wldocker.test".to_owned(), self.prefix.clone())].into()
    }

    fn step(&self, name: &str, commands: &[&str]) -> StepContainer {
        StepContainer {
            name: self.name(name),
            image: IMAGE.to_owned(),
            commands: commands.iter().map(|text| (*text).to_owned()).collect(),
            env: BTreeMap::new(),
            mounts: Vec::new(),
            workdir: "/".to_owned(),
            network: None,
            limits: limits(),
            file_bytes_max: 1 << 30,
            user: None,
            labels: self.labels(),
            timeout: Duration::from_secs(60),
            stop_grace: Duration::from_secs(1),
        }
    }

    async fn run(&self, step: &StepContainer) -> Result<(StepEnd, Vec<LogPiece>), DockerError> {
        self.run_behind(step, None, &CancellationToken::new()).await
    }

    async fn run_behind(
        &self,
        step: &StepContainer,
        after: Option<LogCursor>,
        cancel: &CancellationToken,
    ) -> Result<(StepEnd, Vec<LogPiece>), DockerError> {
        let (sender, mut receiver) = mpsc::channel(4);
        let collect = async {
            let mut pieces = Vec::new();
            while let Some(piece) = receiver.recv().await {
                pieces.push(piece);
            }
            pieces
        };
        let run = async {
            let end = self.engine.run_step(step, after, &sender, cancel).await;
            drop(sender);
            end
        };
        let (end, pieces) = tokio::join!(run, collect);
        Ok((end?, pieces))
    }

    async fn build(&self, request: &BuildRequest, files: &[(&str, &str)]) -> (Result<String, DockerError>, String) {
        let (sender, receiver) = mpsc::channel(16);
        let context = stream::iter([Ok(tar_of(files))]);
        let build = async {
            let built = self.engine.build_image(request, context, &sender).await;
            drop(sender);
            built.map(|image| image.id)
        };
        tokio::join!(build, text_of(receiver))
    }

    fn request(&self, tag: &str) -> BuildRequest {
        BuildRequest {
            dockerfile: "Dockerfile".to_owned(),
            args: BTreeMap::new(),
            labels: self.labels(),
            cache_from: Vec::new(),
            tag: tag.to_owned(),
            target: None,
            network: None,
            limits: limits(),
            auth: Vec::new(),
        }
    }

    fn service(&self, name: &str, image: &str, script: &str) -> DeployContainer {
        DeployContainer {
            name: self.name(name),
            image: image.to_owned(),
            env: [("GREETING".to_owned(), "hello".to_owned())].into(),
            port: 8080,
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            limits: limits(),
            labels: self.labels(),
            restart: RestartRule::UnlessStopped,
            read_only: false,
            network: None,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = self.shared.remove_labelled(&format!("wldocker.test={}", self.prefix)) {
            eprintln!("{}: not cleaned up: {error:#}", self.prefix);
        }
        for image in self.images.lock().expect("no test panics with it").drain(..) {
            // It may be gone already.
            self.shared.docker(&["rmi", "--no-prune", &image]).ok();
        }
    }
}

fn limits() -> Limits {
    Limits { memory_bytes: 64 << 20, cpu_millis: 1000, pids: 64 }
}

fn tar_of(files: &[(&str, &str)]) -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).expect("memory takes it");
    }
    tar.into_inner().expect("memory takes it").into()
}

async fn text_of(mut receiver: mpsc::Receiver<BuildLine>) -> String {
    let mut text = String::new();
    while let Some(line) = receiver.recv().await {
        text.push_str(&line.text);
        if line.ends_line {
            text.push('\n');
        }
    }
    text
}

fn lines(pieces: &[LogPiece], stream: LogStream) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in pieces.iter().filter(|piece| piece.stream == stream) {
        lines.last_mut().expect("never empty").push_str(&String::from_utf8_lossy(&piece.bytes));
        if piece.ends_line {
            lines.push(String::new());
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// A registry image of the base, by digest.
async fn service_image(bench: &Bench, registry: &Registry) -> Result<String> {
    let digest = bench.shared.push(IMAGE, registry, "service", "1").await?;
    let image = format!("{}/service@{digest}", registry.host_port());
    bench.forget(&image);
    Ok(image)
}

#[tokio::test]
async fn output_that_is_read_long_after_the_end_of_its_step_is_not_the_engines_silence() -> Result<()> {
    if !require(&[Part::Docker]) {
        return Ok(());
    }
    const SILENCE: Duration = Duration::from_millis(200);
    let mut bench = Bench::new().await?;
    let config = EngineConfig {
        host: bench.shared.host().to_owned(),
        drain_silence_ms: u64::try_from(SILENCE.as_millis())?,
        ..EngineConfig::default()
    };
    bench.engine = Engine::connect(config).await?;
    let step = bench.step("much", &["seq 1 1000"]);
    let (sender, mut receiver) = mpsc::channel(4);
    let run = async {
        let end = bench.engine.run_step(&step, None, &sender, &CancellationToken::new()).await;
        drop(sender);
        end
    };
    let read = async {
        // A server that is away: nothing is taken until long after the end.
        loop {
            match bench.engine.container_state(&step.name).await {
                Ok(Some(ContainerState::Exited { .. })) => break,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        tokio::time::sleep(4 * SILENCE).await;
        let mut lines = 0;
        while let Some(piece) = receiver.recv().await {
            // Not the shell's own echo of its commands.
            lines += usize::from(piece.bytes.iter().all(u8::is_ascii_digit));
        }
        lines
    };
    let (end, lines) = tokio::join!(run, read);
    ensure!(end?.exit == StepExit::Exited { code: 0 });
    ensure!(lines == 1000, "{lines} lines of 1000");
    Ok(())
}

#[tokio::test]
async fn a_step_gets_its_environment_workspace_and_limits_and_no_privileges() -> Result<()> {
    if !require(&[Part::Docker]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    let workspace = tempfile::tempdir()?;
    std::fs::write(workspace.path().join("in"), "from outside\n")?;
    let mut step = bench.step(
        "inside",
        &[
            "cat in && echo from inside > out",
            "echo var=$WORD",
            "echo to stderr >&2",
            "grep -E 'CapEff|NoNewPrivs' /proc/self/status",
            "if ls /var/run/docker.sock 2>/dev/null; then echo socket; fi",
            "if mknod /tmp/disk b 8 0 2>/dev/null; then echo device; fi",
            "ls /sys/class/net | tr '\\n' ' '",
        ],
    );
    step.env.insert("WORD".to_owned(), "a b'c\"$x".to_owned());
    step.mounts.push(Mount { host: workspace.path().to_owned(), container: "/work".to_owned(), read_only: false });
    step.workdir = "/work".to_owned();
    let (end, pieces) = bench.run(&step).await?;
    let out = lines(&pieces, LogStream::Stdout);
    assert_eq!(end.exit, StepExit::Exited { code: 0 }, "{out:?}");
    assert!(!end.adopted);
    assert!(end.finished_at_ms >= end.started_at_ms && end.started_at_ms > 1_600_000_000_000);
    assert_eq!(out[0], "+ cat in && echo from inside > out");
    assert_eq!(out[1], "from outside");
    assert!(out.contains(&"var=a b'c\"$x".to_owned()), "{out:?}");
    assert!(out.iter().any(|line| line.starts_with("NoNewPrivs") && line.ends_with('1')), "{out:?}");
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE: bits 0 1 3 4 5 6 7 10.
    assert!(out.iter().any(|line| line.ends_with("00000000000004fb")), "{out:?}");
    assert!(!out.iter().any(|line| line == "socket" || line == "device"), "{out:?}");
    assert_eq!(out.last().map(|line| line.trim()), Some("lo"), "without a network of the run there is none");
    assert_eq!(lines(&pieces, LogStream::Stderr), ["to stderr"]);
    assert_eq!(std::fs::read_to_string(workspace.path().join("out"))?, "from inside\n");
    let seen = bench.shared.docker(&[
        "inspect",
        "-f",
        "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.Privileged}}",
        &step.name,
    ])?;
    assert_eq!(seen, format!("{} 1000000000 64 false", 64 << 20));
    bench.engine.remove(&step.name).await?;
    bench.engine.remove(&step.name).await?;
    assert_eq!(bench.engine.container_state(&step.name).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_failing_a_hanging_and_a_greedy_step_are_told_apart() -> Result<()> {
    if !require(&[Part::Docker]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    let (end, pieces) = bench.run(&bench.step("fails", &["echo before", "exit 7", "echo after"])).await?;
    assert_eq!(end.exit, StepExit::Exited { code: 7 });
    assert_eq!(lines(&pieces, LogStream::Stdout), ["+ echo before", "before", "+ exit 7"]);

    let mut hangs = bench.step("hangs", &["echo begins", "sleep 600"]);
    hangs.timeout = Duration::from_secs(2);
    let start = Instant::now();
    let (end, pieces) = bench.run(&hangs).await?;
    assert_eq!(end.exit, StepExit::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(lines(&pieces, LogStream::Stdout).contains(&"begins".to_owned()));

    let mut greedy = bench.step("greedy", &["x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"]);
    greedy.limits.memory_bytes = 16 << 20;
    let (end, _) = bench.run(&greedy).await?;
    assert_eq!(end.exit, StepExit::OutOfMemory);

    let cancel = CancellationToken::new();
    let stubborn = bench.step("stubborn", &["trap '' TERM INT", "echo ready", "while true; do sleep 1; done"]);
    let (sender, mut receiver) = mpsc::channel::<LogPiece>(4);
    let watch = async {
        while let Some(piece) = receiver.recv().await {
            if &piece.bytes[..] == b"ready" {
                cancel.cancel();
            }
        }
    };
    let run = async {
        let end = bench.engine.run_step(&stubborn, None, &sender, &cancel).await;
        drop(sender);
        end
    };
    let (end, ()) = tokio::join!(run, watch);
    assert_eq!(end?.exit, StepExit::Cancelled);
    assert!(matches!(bench.engine.container_state(&stubborn.name).await?, Some(ContainerState::Exited { .. })));
    Ok(())
}

#[tokio::test]
async fn an_image_without_a_shell_and_a_missing_image_blame_the_user() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    let tag = format!("{}:1", bench.name("scratch"));
    let (built, _) =
        bench.build(&bench.request(&tag), &[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "x")]).await;
    built?;
    bench.forget(&tag);
    let mut step = bench.step("shell-less", &["true"]);
    step.image = tag.clone();
    let error = bench.run(&step).await.expect_err("there is no shell");
    assert!(matches!(error, DockerError::CannotStart { .. }), "{error:?}");
    assert!(!error.is_infrastructure());
    bench.engine.remove(&step.name).await?;

    let registry = Registry::start(None).await?;
    let missing = format!("{}/nobody/made/this:1", registry.host_port());
    let error = bench.engine.ensure_image(&missing, None, None).await.expect_err("it is missing");
    assert!(matches!(error, DockerError::ImageNotFound { .. }), "{error:?}");
    let error = bench.engine.ensure_image("127.0.0.1:1/x:1", None, None).await.expect_err("nobody listens");
    assert!(matches!(error, DockerError::RegistryUnavailable { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn after_a_restart_a_step_is_adopted_and_no_line_is_lost_or_doubled() -> Result<()> {
    if !require(&[Part::Docker]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    // Bursts, both streams, a line longer than the engine's own pieces, then a pause that outlives the first reader.
    let step = bench.step(
        "adopted",
        &[
            "i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done",
            "head -c 40000 /dev/zero | tr '\\0' x; echo",
            "sleep 3",
            "i=300; while [ $i -lt 400 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done",
        ],
    );
    let mut got = Vec::new();
    // The first reader dies in the middle of the burst, the second in the pause, the third reads to the end.
    for stop_at in [150, 600] {
        let (sender, mut receiver) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let after = got.last().map(|piece: &LogPiece| piece.cursor);
        let run = bench.engine.run_step(&step, after, &sender, &cancel);
        let read = async {
            while got.len() < stop_at {
                match receiver.recv().await {
                    Some(piece) => got.push(piece),
                    None => bail!("the output ended early"),
                }
            }
            Ok(())
        };
        tokio::select! {
            read = read => read?,
            end = run => bail!("the step ended early: {end:?}"),
        }
    }
    assert_eq!(bench.engine.container_state(&step.name).await?, Some(ContainerState::Running));
    let after = got.last().map(|piece| piece.cursor);
    let (end, rest) = bench.run_behind(&step, after, &CancellationToken::new()).await?;
    got.extend(rest);
    assert_eq!(end.exit, StepExit::Exited { code: 0 });
    assert!(end.adopted);
    let numbers = |stream, word: &str| -> Vec<u32> {
        let found = lines(&got, stream).into_iter().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok());
        found.collect()
    };
    let all: Vec<u32> = (0..400).collect();
    assert_eq!(numbers(LogStream::Stdout, "out"), all);
    assert_eq!(numbers(LogStream::Stderr, "err"), all);
    let long: Vec<_> = lines(&got, LogStream::Stdout).into_iter().filter(|line| line.starts_with("xx")).collect();
    assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [40_000]);

    // Once more, from the start, after the end: the same again.
    let (end, again) = bench.run(&step).await?;
    assert!(end.adopted && end.exit == StepExit::Exited { code: 0 });
    assert_eq!(again, got);
    Ok(())
}

#[tokio::test]
async fn containers_of_one_run_see_each_other_in_a_network_that_is_removed() -> Result<()> {
    if !require(&[Part::Docker]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    let network = bench.name("net");
    bench.engine.ensure_network(&network, &bench.labels()).await?;
    bench.engine.ensure_network(&network, &bench.labels()).await?;
    let found = bench.engine.list_networks(&bench.labels()).await?;
    assert_eq!(found, std::slice::from_ref(&network), "made once");
    let mut step = bench.step("net-step", &["ip -4 addr show dev eth0"]);
    step.network = Some(network.clone());
    let (end, _) = bench.run(&step).await?;
    assert_eq!(end.exit, StepExit::Exited { code: 0 });
    bench.engine.remove(&step.name).await?;
    bench.engine.remove_network(&network).await?;
    bench.engine.remove_network(&network).await?;
    assert!(bench.engine.list_networks(&bench.labels()).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_image_is_built_pushed_and_pulled_by_digest_with_credentials() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    // In base64 this password holds both letters in which the alphabets differ.
    let password = "??????>>>>>>";
    let registry = Registry::start(Some(("builder", password))).await?;
    let auth = RegistryAuth {
        host: registry.host_port(),
        username: "builder".to_owned(),
        password: password.to_owned().into(),
    };
    let tag = format!("{}/{}:v1", registry.host_port(), bench.prefix);
    let mut request = bench.request(&tag);
    request.args.insert("WHO".to_owned(), "world".to_owned());
    request.labels.insert("org.opencontainers.image.revision".to_owned(), "abc".to_owned());
    let dockerfile = format!("FROM {IMAGE}\nARG WHO\nCOPY page /page\nRUN echo hello $WHO | tee /greeting\n");
    let files = [("Dockerfile", dockerfile.as_str()), ("page", "a page")];
    let (id, output) = bench.build(&request, &files).await;
    let id = id.with_context(|| output.clone())?;
    assert!(output.contains("hello world\n"), "{output}");
    let info = bench.engine.inspect_image(&tag).await?.context("it was built")?;
    assert_eq!(info.id, id);
    assert_eq!(info.labels.get("org.opencontainers.image.revision").map(String::as_str), Some("abc"));
    let (again, output) = bench.build(&request, &files).await;
    assert_eq!(again?, id, "the second build comes out of the cache");
    assert!(output.contains("Using cache"), "{output}");

    let error = bench.engine.push(&tag, None, None).await.expect_err("without credentials");
    assert!(matches!(error, DockerError::RegistryRefused { .. }), "{error:?}");
    let (sender, mut progress) = mpsc::channel(1000);
    bench.engine.push(&tag, Some(&auth), Some(&sender)).await?;
    assert!(progress.try_recv().is_ok(), "progress was told");
    let digest = registry.digest(&bench.prefix, "v1").await?.context("it was pushed")?;
    let by_digest = format!("{}/{}@{digest}", registry.host_port(), bench.prefix);
    assert_eq!(bench.engine.image_digests(&tag).await?, std::slice::from_ref(&by_digest));

    bench.engine.remove_image(&tag).await?;
    bench.engine.remove_image(&by_digest).await?;
    assert_eq!(bench.engine.inspect_image(&by_digest).await?, None);
    let error = bench.engine.pull_by_digest(&by_digest, None).await.expect_err("without credentials");
    assert!(matches!(error, DockerError::RegistryRefused { .. }), "{error:?}");
    let pulled = bench.engine.pull_by_digest(&by_digest, Some(&auth)).await?;
    assert_eq!(pulled.id, id);
    assert_eq!(pulled.digests_in(&format!("{}/{}", registry.host_port(), bench.prefix)), [digest.as_str()]);
    let other = format!("{}/{}:other", registry.host_port(), bench.prefix);
    bench.engine.tag(&by_digest, &other).await?;
    bench.engine.remove_image(&other).await?;
    bench.engine.remove_image(&by_digest).await?;
    Ok(())
}

#[tokio::test]
async fn a_broken_dockerfile_and_a_broken_infrastructure_are_told_apart() -> Result<()> {
    if !require(&[Part::Docker]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    let tag = format!("{}:never", bench.prefix);
    let users = [
        (
            "a command fails",
            format!("FROM {IMAGE}\nRUN echo connection refused; exit 3\n"),
            "returned a non-zero code: 3",
        ),
        ("a file is missing", format!("FROM {IMAGE}\nCOPY nope /\n"), "nope"),
        ("an unknown instruction", format!("FROM {IMAGE}\nRUNN x\n"), "RUNN"),
        ("an empty file", String::new(), "cannot be empty"),
        ("a shell that is not there", format!("FROM {IMAGE}\nRUN [\"/bin/nope\"]\n"), "nope"),
        ("a user that is not there", format!("FROM {IMAGE}\nUSER nobody-here\nRUN id\n"), "nobody-here"),
    ];
    for (what, dockerfile, words) in users {
        let (built, output) = bench.build(&bench.request(&tag), &[("Dockerfile", &dockerfile)]).await;
        let error = built.err().with_context(|| format!("{what}: it was built: {output}"))?;
        assert!(!error.is_infrastructure(), "{what}: {error:?}");
        assert!(error.to_string().contains(words), "{what}: {error}");
    }
    let (built, _) = bench.build(&bench.request(&tag), &[("Other", "FROM scratch")]).await;
    let error = built.expect_err("there is no Dockerfile");
    assert!(!error.is_infrastructure(), "{error:?}");

    let (built, _) = bench.build(&bench.request(&tag), &[("Dockerfile", "FROM 127.0.0.1:1/x:1\n")]).await;
    let error = built.expect_err("nobody listens");
    assert!(matches!(error, DockerError::RegistryUnavailable { .. }), "{error:?}");

    let missing = EngineConfig { host: "unix:///nonexistent/docker.sock".to_owned(), ..EngineConfig::default() };
    let error = Engine::connect(missing).await.expect_err("no engine there");
    assert!(matches!(error, DockerError::Unreachable { .. }) && error.is_infrastructure(), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_build_ends_when_its_client_goes_away() -> Result<()> {
    if !require(&[Part::Docker]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    let marker = bench.name("marker");
    let tag = format!("{}:dropped", bench.prefix);
    let dockerfile = format!("FROM {IMAGE}\nRUN echo {marker}; sleep 600\n");
    let (sender, mut receiver) = mpsc::channel::<BuildLine>(16);
    let context = stream::iter([Ok(tar_of(&[("Dockerfile", &dockerfile)]))]);
    let request = bench.request(&tag);
    let runs = || -> Result<bool> {
        let running = bench.shared.docker(&["ps", "--no-trunc", "--format", "{{.Command}}"])?;
        Ok(running.contains(&marker))
    };
    {
        let build = bench.engine.build_image(&request, context, &sender);
        let saw = async {
            while receiver.recv().await.context("the output ended")?.text != marker {}
            // The engine lists a container a moment after its first output.
            while !runs()? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            built = build => bail!("it ended: {built:?}"),
            saw = tokio::time::timeout(Duration::from_secs(30), saw) => saw??,
        }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while runs()? {
        ensure!(Instant::now() < deadline, "the build goes on without its client");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_is_deployed_once_and_its_digest_is_the_registrys() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    let registry = Registry::start(None).await?;
    let image = service_image(&bench, &registry).await?;
    let script = "mkdir -p /www && echo $GREETING > /www/index.html && exec httpd -f -p 8080 -h /www";
    let spec = bench.service("web", &image, script);
    let first = bench.engine.deploy(&spec, OnDifference::Fail, None).await?;
    assert!(!first.adopted && first.address.ip().is_loopback());
    let health = bench.engine.wait_healthy(&check(&spec, first.address)).await?;
    assert!(matches!(health, Health::Healthy { .. }), "{health:?}");
    let body = tests::http_client().get(format!("http://{}/", first.address)).send().await?.text().await?;
    assert_eq!(body, "hello\n");

    let second = bench.engine.deploy(&spec, OnDifference::Fail, None).await?;
    assert!(second.adopted && second.id == first.id && second.address == first.address);
    // Stopped by hand: the same call brings the same container back at the same address.
    bench.engine.stop(&spec.name, Duration::from_secs(2)).await?;
    let third = bench.engine.deploy(&spec, OnDifference::Fail, None).await?;
    assert!(!third.adopted && third.id == first.id && third.address == first.address);
    let listed = bench.engine.list(&bench.labels()).await?;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].running), (spec.name.as_str(), true));
    assert_eq!(listed[0].address, Some(first.address));

    let mut changed = spec.clone();
    changed.env.insert("GREETING".to_owned(), "bye".to_owned());
    let error = bench.engine.deploy(&changed, OnDifference::Fail, None).await.expect_err("it differs");
    assert!(matches!(error, DockerError::Different { .. }), "{error:?}");
    let replaced = bench.engine.deploy(&changed, OnDifference::Replace, None).await?;
    assert_ne!(replaced.id, first.id);

    let running = bench.engine.running_digest(&spec.name).await?.context("it runs")?;
    let digest = registry.digest("service", "1").await?.context("it is in the registry")?;
    assert_eq!(running.digest.map(|digest| digest.to_string()), Some(digest));
    assert!(running.running);
    let mut tagged = spec.clone();
    tagged.image = format!("{}/service:1", registry.host_port());
    let error = bench.engine.deploy(&tagged, OnDifference::Replace, None).await.expect_err("a tag may move");
    assert!(matches!(error, DockerError::InvalidSpec { .. }), "{error:?}");
    bench.engine.remove(&spec.name).await?;
    assert_eq!(bench.engine.running_digest(&spec.name).await?, None);
    Ok(())
}

#[tokio::test]
async fn an_unhealthy_service_says_what_is_wrong() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry]) {
        return Ok(());
    }
    let bench = Bench::new().await?;
    let registry = Registry::start(None).await?;
    let image = service_image(&bench, &registry).await?;
    let find = async |name: &str, script: &str| -> Result<Health> {
        let spec = bench.service(name, &image, script);
        let deployed = bench.engine.deploy(&spec, OnDifference::Fail, None).await?;
        let health = bench.engine.wait_healthy(&check(&spec, deployed.address)).await?;
        bench.engine.remove(&spec.name).await?;
        Ok(health)
    };
    let health = find("crash", "echo cannot find the database >&2; exit 4").await?;
    let Health::Exited { code: 4, out_of_memory: false, log_tail } = &health else { bail!("{health:?}") };
    assert_eq!(log_tail.last().map(String::as_str), Some("cannot find the database"));

    let health = find("deaf", "sleep 600").await?;
    assert_eq!(health, Health::Refuses);

    let answer = "HTTP/1.1 500 Internal Server Error\\r\\nContent-Length: 6\\r\\n\\r\\nbroken";
    let health = find("ill", &format!("while true; do printf '{answer}' | nc -l -p 8080; done")).await?;
    assert_eq!(health, Health::Answers { status: 500, body_start: "broken".to_owned() });

    let health = find("slow", "exec nc -ll -p 8080 -e /bin/sleep 600").await?;
    assert_eq!(health, Health::Silent);
    Ok(())
}

fn check(spec: &DeployContainer, address: std::net::SocketAddr) -> HealthCheck {
    HealthCheck {
        container: spec.name.clone(),
        address,
        host: "localhost".to_owned(),
        path: "/".to_owned(),
        deadline: Duration::from_secs(4),
        interval: Duration::from_millis(100),
        attempt_timeout: Duration::from_secs(1),
        required_successes: 2,
    }
}
