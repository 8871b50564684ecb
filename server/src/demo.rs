//! `windlass demo`: the whole train on this machine, from two pushes to live traffic, with everything it needs around it.
//! It uses Windlass only from outside: its process, its API, its approval page, the gateway.

mod api;
mod git;
mod ground;
mod report;
mod tester;
mod visitors;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, ensure};
use charts::catalog::Catalog;
use integrations::registry::Tag;
use serde_json::{Value, json};
use server::gateway::GatewayClient;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use self::{
    api::Api,
    git::{GitServer, git},
    ground::{Ground, Process, free_port},
    report::{Digests, Report, RolloutSeen},
    tester::Tester,
    visitors::Visitors,
};

pub(crate) use self::git::send_hooks;

const SERVICE: &str = "shop";
const BASE: &str = "static-site@1";
const TESTER: &str = "tester@example.com";
/// Requests that the visitors send at least.
const REQUESTS_WANTED: u64 = 2_200;

/// What is asked of the demo.
#[derive(Debug)]
pub(crate) struct DemoOptions {
    /// Where it keeps everything; none: a folder of its own that goes with it.
    pub(crate) folder: Option<PathBuf>,
    /// End when both releases are live.
    pub(crate) unattended: bool,
    /// Print the report as JSON.
    pub(crate) json: bool,
}

/// Runs the demo; whether everything held.
///
/// # Errors
/// When a part cannot be started or a station is not reached.
pub(crate) async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    let temporary = options.folder.is_none().then(tempfile::tempdir).transpose()?;
    let folder = match (&options.folder, &temporary) {
        (Some(folder), _) => std::path::absolute(folder)?,
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => unreachable!("one of the two is made above"),
    };
    std::fs::create_dir_all(&folder)?;
    let stop = stop_on_signal();
    let ground = Ground::start(&folder).await?;
    let outcome = on_the_ground(&ground, &folder, &options, &stop).await;
    let removed = remove_containers(&ground).await;
    ground.stop().await;
    let good = outcome?;
    removed?;
    Ok(good)
}

/// Cancelled by Ctrl-C or SIGTERM: what was started is ended in either case.
fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        crate::serve::wait_for_signal().await;
        stopping.cancel();
    });
    stop
}

async fn on_the_ground(
    ground: &Ground,
    folder: &Path,
    options: &DemoOptions,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let stage = Stage::set(ground, folder).await?;
    let outcome = tokio::select! {
        outcome = stage.play(options) => outcome,
        // A person has seen enough; a program has not.
        () = stop.cancelled() => Ok(!options.unattended),
    };
    stage.strike().await;
    outcome
}

/// Windlass, its git server and its first service, ready for a push.
struct Stage<'a> {
    ground: &'a Ground,
    folder: PathBuf,
    windlass: Process,
    git: GitServer,
    api: Api,
    tester: Tester,
    base: String,
    gateway: SocketAddr,
    password: String,
    git_password: String,
    clone: PathBuf,
}

impl<'a> Stage<'a> {
    async fn set(ground: &'a Ground, folder: &Path) -> anyhow::Result<Self> {
        let listen = usual_or_free(8000)?;
        let gateway = usual_or_free(8080)?;
        let base = format!("http://{listen}");
        let mails = folder.join("mails");
        std::fs::create_dir_all(&mails)?;
        let config = folder.join("windlass.yaml");
        // JSON is YAML.
        let settings = json!({
            "state_dir": folder.join("state"),
            "listen": listen,
            "public_url": base,
            "gateway": {"listen": gateway},
            "registries": {
                "test": {"host": ground.test, "plain_http": true},
                "production": {"host": ground.production, "plain_http": true},
            },
            "docker_host": ground.docker_host,
            "mirrors": ground::mirrors(&ground.test),
            "mail": {"from": "Windlass <windlass@example.com>", "folder": mails},
        });
        std::fs::write(&config, serde_json::to_vec_pretty(&settings)?)?;

        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--config").arg(&config);
        let mut windlass = Process::start("windlass serve", command, folder.join("windlass.log"))?;
        let client = reqwest::Client::new();
        let health = format!("{base}/healthz");
        windlass
            .until(|| async { client.get(&health).send().await.is_ok_and(|got| got.status().is_success()) })
            .await?;
        let said = std::fs::read_to_string(windlass.log())?;
        let password = said
            .lines()
            .find_map(|line| line.split_once("with the password ").map(|(_, password)| password.trim().to_owned()))
            .context("windlass did not print the first password")?;

        let api = Api::sign_in(&base, "admin", &password).await?;
        let git_password = server::random::text(12);
        let secret = server::random::text(server::random::KEY_BYTES);
        let git = GitServer::start(&folder.join("git"), "demo", &git_password).await?;
        let url = git.create(SERVICE, &format!("{base}/hooks/{SERVICE}"), &secret).await?;
        api.post(
            "services",
            json!({
                "name": SERVICE,
                "repository_url": url,
                "credential": {"kind": "token", "user": "demo", "token": git_password},
                "hook_secret": secret,
                "release_branch": "main",
            }),
        )
        .await?;
        let clone = folder.join("clone");
        let header = format!("http.extraHeader=Authorization: {}", git.authorization());
        git::git(folder, &["-c", &header, "clone", "--quiet", &url, "clone"]).await?;
        git::git(&clone, &["config", "http.extraHeader", &format!("Authorization: {}", git.authorization())]).await?;
        git::git(&clone, &["config", "user.name", "Demo"]).await?;
        git::git(&clone, &["config", "user.email", "demo@example.com"]).await?;
        let tester = Tester::new(mails)?;
        let folder = folder.to_owned();
        Ok(Self { ground, folder, windlass, git, api, tester, base, gateway, password, git_password, clone })
    }

    async fn play(&self, options: &DemoOptions) -> anyhow::Result<bool> {
        let mut report = Report::default();
        // Visitors come before there is anything to see, and stay to the end.
        let visitors = self.visitors()?;
        self.commit("1", json!({"strategy": "rolling"})).await?;
        self.deliver(1, &mut report).await?;
        let canary = json!({
            "strategy": "canary",
            "steps": [{"weight": 20, "hold": "3s"}, {"weight": 50, "hold": "3s"}],
            "checks": [{"success_rate": ">= 99%"}, {"latency_p99": "<= 2s"}],
            // The first requests of a new container on a small machine are slow: that is no news of the version.
            "judge": {"min_requests": 20, "compare": false},
        });
        self.commit("2", canary).await?;
        self.deliver(2, &mut report).await?;
        visitors.sent_at_least(REQUESTS_WANTED).await;
        report.requests = visitors.stop().await;
        report.digest = self.digests(2).await?;
        report.mails = self.tester.approval_mails().len();

        let broken = report.broken();
        if options.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            self.tell(&report);
        }
        for line in &broken {
            eprintln!("windlass: demo: {line}");
        }
        if !options.unattended {
            self.invite();
            // What is pushed from now on is judged by traffic too.
            let _visitors = self.visitors()?;
            std::future::pending::<()>().await;
        }
        Ok(broken.is_empty())
    }

    fn visitors(&self) -> anyhow::Result<Visitors> {
        Visitors::start(format!("http://{}/", self.gateway), format!("{SERVICE}.localhost"))
    }

    /// Writes the sample of the base config `static-site` as version `version`, and pushes it.
    async fn commit(&self, version: &str, production: Value) -> anyhow::Result<()> {
        let catalog = Catalog::builtin()?;
        let base = catalog.resolve(&BASE.parse()?)?;
        for (path, bytes) in &base.sample {
            let file = self.clone.join(path);
            std::fs::create_dir_all(file.parent().context("a file without a folder")?)?;
            let text = String::from_utf8_lossy(bytes).replace("It works.", &format!("Version {version} works."));
            std::fs::write(file, text)?;
        }
        std::fs::write(self.clone.join("version"), format!("{version}\n"))?;
        let pipeline = json!({
            "service": SERVICE,
            "base": BASE,
            "network": {"port": 8080},
            "steps": [{"name": "check", "image": ground::BASE_IMAGE, "commands": ["test -s version", "cat version"]}],
            "test": {"testers": [TESTER], "approvals": 1, "expires": "72h"},
            "production": production,
        });
        std::fs::write(self.clone.join(".windlass.yaml"), serde_saphyr::to_string(&pipeline)?)?;
        git(&self.clone, &["add", "--all"]).await?;
        git(&self.clone, &["commit", "--quiet", "--message", &format!("Version {version}")]).await?;
        git(&self.clone, &["push", "--quiet", "origin", "HEAD:main"]).await?;
        Ok(())
    }

    /// Follows a release from its push to the end of its rollout.
    async fn deliver(&self, number: u32, report: &mut Report) -> anyhow::Result<()> {
        let mut since = Instant::now();
        let run = format!("services/{SERVICE}/runs/{number}");
        self.api.until(&run, "the run", |_| Ok(Some(()))).await?;
        report.station("push", number, "received", &mut since);
        let state = self.api.until(&run, "the end of the run", |run| finished(run, "finished")).await?;
        report.station("run", number, &state, &mut since);
        ensure!(state == "succeeded", "run {number} ended as {state}");

        let path = format!("services/{SERVICE}/releases/{number}");
        self.api.until(&path, "the test environment", |release| Ok(release["tested_at_ms"].as_u64())).await?;
        report.station("test", number, "healthy", &mut since);
        self.tester.asked(SERVICE, number).await?;
        report.station("mail", number, "sent", &mut since);
        let approved = self.tester.approve(SERVICE, number).await?;
        report.approvals += 1;
        report.station("approval", number, "approved", &mut since);
        let release = self.api.get(&path).await?;
        ensure!(release["digest"] == approved, "the page asked about {approved}, the release is {}", release["digest"]);
        self.api.until(&path, "the promotion", |release| Ok(release["promoted_at_ms"].as_u64())).await?;
        report.station("promotion", number, "copied", &mut since);
        let rollout = self.api.until(&path, "the rollout", |release| Ok(release["rollout"].as_u64())).await?;
        let path = format!("services/{SERVICE}/rollouts/{rollout}");
        let outcome = self.api.until(&path, "the end of the rollout", |rollout| finished(rollout, "finished")).await?;
        report.station("rollout", number, &outcome, &mut since);
        let rollout = self.api.get(&path).await?;
        let steps = rollout["shares"].as_array().map(Vec::as_slice).unwrap_or_default();
        report.rollouts.push(RolloutSeen {
            strategy: rollout["strategy"].as_str().unwrap_or_default().to_owned(),
            outcome,
            steps: steps.iter().filter_map(|share| share["weight_percent"].as_u64()).collect(),
        });
        Ok(())
    }

    /// The digest of a release as the registries and the engine name it.
    async fn digests(&self, number: u32) -> anyhow::Result<Digests> {
        let release = self.api.get(&format!("services/{SERVICE}/releases/{number}")).await?;
        let tag: Tag = release["tag"].as_str().context("the release has no tag")?.parse()?;
        let repository = SERVICE.parse()?;
        let test = ground::registry_client(&self.ground.test)?.resolve(&repository, &tag).await?;
        let production = ground::registry_client(&self.ground.production)?.resolve(&repository, &tag).await?;
        let engine = self.ground.engine().await?;
        let labels = BTreeMap::from([("windlass.environment".to_owned(), "production".to_owned())]);
        let mut running = Vec::new();
        for container in engine.list(&labels).await? {
            if container.image.starts_with(&format!("{}/", self.ground.production)) {
                let image = engine.running_digest(&container.name).await?;
                running.push(image.and_then(|image| image.digest).map(|digest| digest.to_string()).unwrap_or_default());
            }
        }
        running.sort();
        running.dedup();
        Ok(Digests { test: test.to_string(), production: production.to_string(), running: running.join(" ") })
    }

    fn tell(&self, report: &Report) {
        for station in &report.stations {
            println!(
                "  {:>7.2} s  release {}  {:<10} {}",
                station.seconds, station.release, station.name, station.state
            );
        }
        let Report { digest, requests, .. } = report;
        println!("  test       {}\n  production {}\n  running    {}", digest.test, digest.production, digest.running);
        println!("  {} requests of visitors, {} failed", requests.sent, requests.failed);
    }

    fn invite(&self) {
        let (base, gateway) = (&self.base, self.gateway);
        println!("\nWindlass is open at  {base}   user admin, password {}", self.password);
        println!("Mails                {base}/mailbox");
        println!("The service          http://{SERVICE}.localhost:{}/", gateway.port());
        println!(
            "Push to it           git clone http://demo:{}@{}/{SERVICE}.git",
            self.git_password,
            self.git.address()
        );
        println!("Everything it keeps  {}", self.folder.display());
        println!("Ctrl-C ends it and removes what it started.");
    }

    /// Ends what was started, and the gateway, which outlives the server.
    async fn strike(self) {
        let gateway = GatewayClient::new(&self.folder.join("state/gateway")).health().await;
        self.windlass.stop().await;
        if let Ok(gateway) = gateway {
            let _ = Command::new("kill").arg("-TERM").arg(gateway.pid.to_string()).status().await;
        }
        self.git.stop();
    }
}

/// The state of a thing that is over.
fn finished(thing: &Value, mark: &str) -> anyhow::Result<Option<String>> {
    let state = thing["state"].as_str().context("there is no state")?;
    Ok(thing[mark].as_bool().unwrap_or_default().then(|| state.to_owned()))
}

/// The usual port if it is free, or any.
fn usual_or_free(port: u16) -> anyhow::Result<SocketAddr> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpListener::bind(usual).is_ok() {
        return Ok(usual);
    }
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// Removes the containers of this demo's images; an engine that was there before keeps everything else.
async fn remove_containers(ground: &Ground) -> anyhow::Result<()> {
    let engine = ground.engine().await?;
    let labels = BTreeMap::from([("windlass.service".to_owned(), SERVICE.to_owned())]);
    for container in engine.list(&labels).await? {
        let mine =
            [&ground.test, &ground.production].iter().any(|host| container.image.starts_with(&format!("{host}/")));
        if mine {
            engine.stop(&container.name, std::time::Duration::from_secs(5)).await?;
            engine.remove(&container.name).await?;
        }
    }
    Ok(())
}
