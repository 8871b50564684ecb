//! A real `windlass serve` without an engine, as a forge and a person see it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Response;
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tests::{GitHttp, GitHttpOptions, Repo, Windlass, free_port, http_client};

const READY_WITHIN: Duration = Duration::from_secs(120);
const SECRET: &str = "the secret of the hooks";

/// The server, and the service `shop` with its repository.
pub(crate) struct Server {
    pub(crate) windlass: Windlass,
    pub(crate) door: Door,
    /// The commit of the repository.
    pub(crate) head: String,
    _git: GitHttp,
    _dir: TempDir,
}

/// How the server is reached, dead or alive.
#[derive(Clone)]
pub(crate) struct Door {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Server {
    pub(crate) async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let git = GitHttp::start(GitHttpOptions::default()).await?;
        let repo = Repo::init()?;
        repo.write(".windlass.yaml", "service: shop\nbase: static-site@1\ntest: {testers: [qa@example.com]}\n")?;
        let head = repo.commit("dev@example.com", "a shop")?;
        tests::git_http::publish(&repo, &git, "shop.git")?;
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let config = json!({
            "state_dir": dir.path().join("state"), "listen": format!("127.0.0.1:{port}"), "public_url": url,
            "gateway": {"listen": format!("127.0.0.1:{}", free_port()), "supervise": false},
            "registries": {
                "test": {"host": "registry-test.example.com"}, "production": {"host": "registry.example.com"},
            },
            "mail": {"from": "Windlass <windlass@example.com>", "folder": dir.path().join("mails")},
            "runner": {"parallel_runs": 0},
        });
        let file = dir.path().join("windlass.yaml");
        std::fs::write(&file, config.to_string())?;
        let file = file.to_str().context("the folder is no text")?;
        let mut windlass = Windlass::start(dir.path(), &["serve", "--config", file], &[])?;
        let password = windlass.printed("sign in as admin with the password ", READY_WITHIN).await?;
        let mut door = Door { http: http_client(), url, token: String::new() };
        door.open(&mut windlass).await?;
        let login = json!({"name": "admin", "password": password});
        let given: Value = door.post("/api/v1/login", &login).await?.error_for_status()?.json().await?;
        door.token = given["token"].as_str().context("there is no token")?.to_owned();
        let service = json!({"name": "shop", "repository_url": git.url("shop.git"), "hook_secret": SECRET});
        door.post("/api/v1/services", &service).await?.error_for_status()?;
        Ok(Self { windlass, door, head, _git: git, _dir: dir })
    }

    /// Kills it and starts it again; returns when it answers.
    pub(crate) async fn kill_and_restart(&mut self) -> Result<()> {
        self.windlass.kill();
        self.windlass.restart()?;
        self.door.open(&mut self.windlass).await
    }

    /// That it lives and has not panicked.
    pub(crate) fn is_well(&mut self) -> Result<()> {
        let log = self.windlass.log();
        ensure!(self.windlass.process().alive(), "it has ended:\n{log}");
        ensure!(!log.contains("panicked"), "it panicked:\n{log}");
        Ok(())
    }
}

impl Door {
    async fn open(&self, windlass: &mut Windlass) -> Result<()> {
        let url = format!("{}/healthz", self.url);
        let answers = || async { self.http.get(&url).send().await.ok()?.error_for_status().ok() };
        windlass.process().ready(READY_WITHIN, answers).await.map(drop)
    }

    /// Posts to the API.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Response> {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token);
        Ok(request.json(body).send().await?)
    }

    /// The first page of a list of the API, as long as it may be.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let request = self.http.get(format!("{}{path}?limit=100", self.url)).bearer_auth(&self.token);
        let page: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(page["items"].as_array().cloned().unwrap_or_default())
    }

    /// Sends a hook of Gitea as the forge signs it.
    pub(crate) async fn hook(&self, event: &str, id: &str, body: Vec<u8>) -> Result<Response> {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
        mac.update(&body);
        let request = self.http.post(format!("{}/hooks/shop", self.url));
        let request = request.header("x-gitea-event", event).header("x-gitea-delivery", id);
        let request = request.header("x-gitea-signature", hex::encode(mac.finalize().into_bytes()));
        Ok(request.header("content-type", "application/json").body(body).send().await?)
    }
}

/// What a forge says of a push.
pub(crate) fn push(commit: &str) -> Value {
    json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": commit, "created": false, "deleted": false,
        "forced": false, "repository": {"full_name": "dev/shop", "default_branch": "main"},
        "pusher": {"name": "mei", "email": "mei@example.com"},
        "head_commit": {"id": commit, "message": "a shop", "author": {"name": "Mei", "email": "mei@example.com"}},
    })
}

/// What a forge says of a pull request.
pub(crate) fn pull_request(commit: &str) -> Value {
    let side = |name: &str| json!({"ref": name, "sha": commit, "repo": {"full_name": "dev/shop"}});
    json!({"action": "opened", "number": 7, "pull_request": {
        "number": 7, "title": "a basket", "user": {"login": "mei"}, "head": side("basket"), "base": side("main")}})
}
