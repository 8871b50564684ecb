//! One Windlass with everything around it, all real: a forge, two registries that ask who comes, a mail server that does
//! too, the container engine. What was started ends with it, the containers as well.

use std::{
    collections::BTreeSet,
    fs,
    ops::Deref,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    DockerEngine, Gitea, Part, Registry, Repo, Smtp, SmtpOptions, SmtpTls, Windlass, docker::BASE_IMAGE, free_port,
    gitea::GiteaRepo, http_client, process::tail,
};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use crate::{
    api::{Api, text},
    sample::Version,
    visitors::{Plan, Visitors},
};

/// What every test of this binary needs.
pub(crate) const PARTS: [Part; 5] = [Part::Docker, Part::Registry, Part::Gitea, Part::Git, Part::Smtp];
/// Of the server's log, when a test fails.
const LOG_BYTES: u64 = 32 << 10;
const START_WITHIN: Duration = Duration::from_secs(60);
const MAIL_THINKS_MS: u64 = 50;
const REGISTRY_LOGIN: (&str, &str) = ("windlass", "password-of-the-registries");
const MAIL_LOGIN: (&str, &str) = ("windlass", "password-of-the-mail-server");

/// Windlass and what it works with.
#[derive(Debug)]
pub(crate) struct World {
    /// A program that is signed in as the administrator.
    pub(crate) api: Api,
    /// The server's process.
    pub(crate) windlass: Arc<Mutex<Windlass>>,
    /// The forge.
    pub(crate) gitea: Gitea,
    /// The mail server.
    pub(crate) smtp: Smtp,
    /// Where runs push to.
    pub(crate) test: Registry,
    /// Where promotions go to.
    pub(crate) production: Registry,
    /// The container engine.
    pub(crate) engine: Held,
    /// Where Windlass is: `http://host:port`.
    pub(crate) base: String,
    /// Where the gateway is: `http://host:port/`.
    pub(crate) gateway: String,
    runner: String,
    held: AtomicBool,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// The container engine: the one of this process, or the world's own.
#[derive(Debug)]
pub(crate) enum Held {
    Shared(&'static DockerEngine),
    Own(Box<DockerEngine>),
}

impl Deref for Held {
    type Target = DockerEngine;

    fn deref(&self) -> &DockerEngine {
        match self {
            Held::Shared(engine) => engine,
            Held::Own(engine) => engine,
        }
    }
}

/// One world at a time: what is counted against the clock is not to wait for another test.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: AsyncMutex<()> = AsyncMutex::const_new(());
    ALONE.lock().await
}

/// A registered service with its repository.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// The developer's working copy.
    pub(crate) repo: Repo,
    /// Where it is pushed to.
    pub(crate) remote: GiteaRepo,
    /// The secret of its hooks.
    pub(crate) secret: String,
}

/// Where the digest of a release is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    /// In the test registry, by the release's tag.
    pub(crate) test: String,
    /// In the production registry, by the release's tag.
    pub(crate) production: String,
    /// What the service's containers in production run, as the engine says.
    pub(crate) running: BTreeSet<String>,
}

impl World {
    /// Starts everything, with `environment` for Windlass alone.
    pub(crate) async fn start(environment: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(environment, |_| {}).await
    }

    /// As [`Self::start`], with other settings.
    pub(crate) async fn start_with(environment: &[(&str, &str)], change: impl FnOnce(&mut Value)) -> Result<Self> {
        let alone = alone().await;
        let engine = Held::Shared(DockerEngine::shared().await?);
        Self::start_on(engine, alone, environment, change).await
    }

    /// As [`Self::start_with`], on an engine of its own that may be killed; see `in_own_network`.
    pub(crate) async fn start_to_die(environment: &[(&str, &str)], change: impl FnOnce(&mut Value)) -> Result<Self> {
        let alone = alone().await;
        let engine = DockerEngine::start_to_die().await?;
        engine.load_base_images()?;
        Self::start_on(Held::Own(Box::new(engine)), alone, environment, change).await
    }

    async fn start_on(
        engine: Held,
        alone: MutexGuard<'static, ()>,
        environment: &[(&str, &str)],
        change: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        let mail = SmtpOptions {
            auth: Some((MAIL_LOGIN.0.to_owned(), MAIL_LOGIN.1.to_owned())),
            tls: Some(SmtpTls::StartTls),
            // In the world whose parts die: long enough for somebody to die in between.
            thinks_ms: if matches!(engine, Held::Own(_)) { MAIL_THINKS_MS } else { 0 },
        };
        let (gitea, smtp, test, production) = tokio::try_join!(
            Gitea::start(),
            Smtp::start(mail),
            Registry::start(Some(REGISTRY_LOGIN)),
            Registry::start(Some(REGISTRY_LOGIN)),
        )?;
        engine.push(BASE_IMAGE, &test, "library/busybox", "1.36").await?;

        let folder = tempfile::tempdir()?;
        let (listen, gateway) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let base = format!("http://{listen}");
        let runner = format!("e2e-{}", listen.rsplit(':').next().unwrap_or_default());
        fs::write(folder.path().join("registry-password"), REGISTRY_LOGIN.1)?;
        fs::write(folder.path().join("mail-password"), MAIL_LOGIN.1)?;
        let registry = |registry: &Registry| {
            json!({
                "host": registry.host_port(),
                "plain_http": true,
                "user": REGISTRY_LOGIN.0,
                "password_file": folder.path().join("registry-password"),
            })
        };
        let mut settings = json!({
            "state_dir": folder.path().join("state"),
            "listen": listen,
            "public_url": base,
            "gateway": { "listen": gateway },
            "registries": { "test": registry(&test), "production": registry(&production) },
            "docker_host": engine.host(),
            "mirrors": [{ "from": BASE_IMAGE, "to": format!("{}/library/{BASE_IMAGE}", test.host_port()) }],
            "mail": {
                "from": "Windlass <windlass@example.com>",
                "smtp": {
                    "host": "localhost",
                    "port": smtp.port(),
                    "tls": "starttls",
                    "user": MAIL_LOGIN.0,
                    "password_file": folder.path().join("mail-password"),
                    "ca_file": smtp.ca_file(),
                },
            },
            "runner": { "name": runner, "parallel_runs": 2 },
            "bounds": { "retry_max_ms": 2_000, "lease_wait_ms": 3_000, "runner_lost_ms": 20_000 },
        });
        change(&mut settings);
        // JSON is YAML.
        fs::write(folder.path().join("windlass.yaml"), format!("{settings:#}"))?;

        let mut windlass = Windlass::start(folder.path(), &["serve", "--config", "windlass.yaml"], environment)?;
        let password = windlass.printed("with the password ", START_WITHIN).await?;
        let http = http_client();
        let health = format!("{base}/healthz");
        let answers = || async {
            let answer = http.get(&health).send().await.ok()?;
            (answer.status() == StatusCode::OK).then_some(())
        };
        windlass.process().ready(START_WITHIN, answers).await?;
        let api = Api::sign_in(&base, "admin", &password).await?;
        let gateway = format!("http://{gateway}/");
        let windlass = Arc::new(Mutex::new(windlass));
        Ok(Self {
            api,
            windlass,
            gitea,
            smtp,
            test,
            production,
            engine,
            base,
            gateway,
            runner,
            held: AtomicBool::new(false),
            folder,
            _alone: alone,
        })
    }

    /// The folder in which Windlass runs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The name of the embedded runner; names that begin with it are cleared away with the world.
    pub(crate) fn runner(&self) -> &str {
        &self.runner
    }

    /// The test has come to its good end: nobody needs the server's log.
    pub(crate) fn all_held(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Makes a private repository with a signed hook and registers it.
    pub(crate) async fn service(&self, name: &str) -> Result<Service> {
        let remote = self.gitea.create_repo(name, true).await?;
        let secret = self.register(name, &remote, "main").await?;
        let registered = self.api.get(&format!("services/{name}")).await?;
        self.gitea.create_webhook(&remote, text(&registered, "hook_url")?, &secret).await?;
        Ok(Service { name: name.to_owned(), repo: Repo::init()?, remote, secret })
    }

    /// Registers a service of a repository whose hooks nobody sends yet; gives the secret that they need.
    pub(crate) async fn register(&self, name: &str, remote: &GiteaRepo, release_branch: &str) -> Result<String> {
        let secret = format!("secret-of-{name}");
        let (user, _) = self.gitea.admin();
        let service = json!({
            "name": name,
            "repository_url": remote.url,
            "credential": { "kind": "token", "user": user, "token": self.gitea.token() },
            "hook_secret": secret,
            "release_branch": release_branch,
            "poll_interval_ms": 0,
        });
        self.api.post("services", service).await?;
        Ok(secret)
    }

    /// Waits until a run has ended; gives it.
    pub(crate) async fn ended_run(&self, service: &str, number: u32) -> Result<Value> {
        let path = format!("services/{service}/runs/{number}");
        self.api.until(&path, "the end of the run", |run| ended(run, "finished")).await
    }

    /// Waits until a release is asked about; gives it.
    pub(crate) async fn asked(&self, service: &str, number: u32) -> Result<Value> {
        let run = self.ended_run(service, number).await?;
        ensure!(run["state"] == "succeeded", "run {service} {number} did not succeed: {run}");
        let path = format!("services/{service}/releases/{number}");
        let open = |release: &Value| (release["state"] == "awaiting_approval").then(|| release.clone());
        self.api.until(&path, "the question to the testers", open).await
    }

    /// Approves a release as a person who is signed in, when it asks for that.
    pub(crate) async fn approve(&self, service: &str, number: u32) -> Result<Value> {
        let release = self.asked(service, number).await?;
        let decision = json!({ "digest": release["digest"], "comment": "looked at it" });
        self.api.post(&format!("services/{service}/releases/{number}/approve"), decision).await
    }

    /// Waits until a release has a rollout; gives its number.
    pub(crate) async fn rollout_of(&self, service: &str, release: u32) -> Result<u32> {
        let path = format!("services/{service}/releases/{release}");
        let rollout = self.api.until(&path, "the rollout", |release| release["rollout"].as_u64()).await?;
        Ok(u32::try_from(rollout)?)
    }

    /// Waits until the last rollout of a release is over; gives it.
    pub(crate) async fn ended_rollout(&self, service: &str, release: u32) -> Result<Value> {
        let number = self.rollout_of(service, release).await?;
        let path = format!("services/{service}/rollouts/{number}");
        self.api.until(&path, "the end of the rollout", |rollout| ended(rollout, "finished")).await
    }

    /// Pushes a version, approves its release and waits for the end of its rollout; gives that.
    pub(crate) async fn deliver(&self, service: &Service, version: &Version, number: u32) -> Result<Value> {
        service.push(version)?;
        self.approve(&service.name, number).await?;
        self.ended_rollout(&service.name, number).await
    }

    /// Lets visitors come to a service.
    pub(crate) fn visitors(&self, service: &str, pace: Duration, same_dice: u64) -> Visitors {
        let host = format!("{service}.localhost");
        Visitors::start(Plan { url: self.gateway.clone(), host, pace, same_dice })
    }

    /// The digest of a release as both registries name it: test, then production.
    pub(crate) async fn released(&self, service: &str, number: u32) -> Result<(String, String)> {
        let release = self.api.get(&format!("services/{service}/releases/{number}")).await?;
        let tag = text(&release, "tag")?;
        let test = self.test.digest(service, tag).await?.context("the test registry lacks the tag")?;
        let production =
            self.production.digest(service, tag).await?.context("the production registry lacks the tag")?;
        Ok((test, production))
    }

    /// The digest of a release as both registries and the engine name it.
    pub(crate) async fn digests(&self, service: &str, number: u32) -> Result<Digests> {
        let (test, production) = self.released(service, number).await?;
        Ok(Digests { test, production, running: self.running(service)? })
    }

    /// What the containers of a service in production run, as the engine says.
    pub(crate) fn running(&self, service: &str) -> Result<BTreeSet<String>> {
        let prefix = format!("{}/{service}@", self.production.host_port());
        let mut digests = BTreeSet::new();
        for (id, image) in self.containers()? {
            if !image.starts_with(&prefix) {
                continue;
            }
            // Not what was asked for when it was made: what the engine knows of the image that it runs.
            let image = self.engine.docker(&["inspect", "--format", "{{.Image}}", &id])?;
            let known = self.engine.docker(&["inspect", "--format", "{{json .RepoDigests}}", &image])?;
            let known: Vec<String> = serde_json::from_str(&known)?;
            let mine = known.iter().find_map(|name| name.strip_prefix(&prefix));
            digests.insert(mine.with_context(|| format!("{id} runs {image}, known as {known:?}"))?.to_owned());
        }
        Ok(digests)
    }

    /// The containers that run images of this world's registries, or its steps.
    pub(crate) fn container_names(&self) -> Result<Vec<String>> {
        let name = |id: String| self.engine.docker(&["inspect", "--format", "{{.Name}} {{.State.Status}}", &id]);
        self.containers()?.into_iter().map(|(id, _)| name(id)).collect()
    }

    /// Id and image of each of them.
    fn containers(&self) -> Result<Vec<(String, String)>> {
        let listed = self.engine.docker(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Names}}"])?;
        let hosts = [&self.test, &self.production].map(|registry| format!("{}/", registry.host_port()));
        let step = format!("wl-{}-", self.runner);
        let of_this_world = |line: &&str| {
            let (image, name) = line.split_once(' ').and_then(|(_, rest)| rest.split_once(' ')).unwrap_or_default();
            hosts.iter().any(|host| image.starts_with(host)) || name.starts_with(&step)
        };
        let pair = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some((words.next()?, words.next()?))
        };
        Ok(listed.lines().filter(of_this_world).filter_map(pair).collect())
    }

    fn clear_away(&self) -> Result<()> {
        for (id, _) in self.containers()? {
            self.engine.docker(&["rm", "-f", "-v", &id])?;
        }
        let networks = self.engine.docker(&["network", "ls", "--format", "{{.Name}}"])?;
        for network in networks.lines().filter(|name| name.starts_with(&format!("wl-{}-", self.runner))) {
            self.engine.docker(&["network", "rm", network])?;
        }
        let format = "{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}";
        let images = self.engine.docker(&["image", "ls", "--digests", "--format", format])?;
        let hosts = [&self.test, &self.production].map(|registry| format!("{}/", registry.host_port()));
        let cache = format!("windlass-cache/{}-", self.runner);
        let mine = |name: &&str| name.starts_with(&cache) || hosts.iter().any(|host| name.starts_with(host));
        let is_name = |name: &&str| !name.ends_with("<none>");
        for name in images.split_whitespace().filter(mine).filter(is_name).collect::<BTreeSet<_>>() {
            // Fails where the image went with another of its names.
            let _ = self.engine.docker(&["rmi", name]);
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.windlass.lock().unwrap_or_else(PoisonError::into_inner).stop();
        if let Err(error) = self.clear_away() {
            eprintln!("failed to clear away what a test left on the engine: {error:#}");
        }
        if !self.held.load(Ordering::SeqCst) {
            eprintln!("the end of the server's log:\n{}", tail(&self.folder.path().join("windlass.log"), LOG_BYTES));
        }
    }
}

impl Service {
    /// Commits a version and pushes it; gives the commit.
    pub(crate) fn push(&self, version: &Version) -> Result<String> {
        let commit = version.commit(&self.repo)?;
        self.repo.push(&self.remote.url_with_credentials, "HEAD:refs/heads/main")?;
        Ok(commit)
    }
}

fn ended(thing: &Value, mark: &str) -> Option<Value> {
    (thing[mark] == true).then(|| thing.clone())
}
