//! A real `windlass serve` with nothing around it: no engine, no runner, no registries, no gateway. What it is asked for
//! stays in its queue, where it can be looked at. With it, the repository of a service that is not registered yet.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{GitHttp, GitHttpOptions, Repo, Windlass, free_port, git_http, http_client};

const READY_WITHIN: Duration = Duration::from_secs(120);

/// The configuration of a server below `dir` that listens on `address` and has nothing around it.
#[must_use]
pub fn lone_settings(dir: &Path, address: &str) -> Value {
    json!({
        "state_dir": dir.join("state"), "listen": address, "public_url": format!("http://{address}"),
        "gateway": {"listen": format!("127.0.0.1:{}", free_port()), "supervise": false},
        "registries": {
            "test": {"host": "registry-test.example.com"}, "production": {"host": "registry.example.com"},
        },
        "mail": {"from": "Windlass <windlass@example.com>", "folder": dir.join("mails")},
        "runner": {"parallel_runs": 0},
    })
}

/// The server, and a repository with one commit.
pub struct LoneServer {
    /// Its process.
    pub windlass: Windlass,
    /// A client of it.
    pub http: reqwest::Client,
    /// Its address.
    pub url: String,
    /// The password of `admin`.
    pub password: String,
    /// Where the repository of the service `shop` is.
    pub repository_url: String,
    /// The commit there.
    pub head: String,
    repo: Repo,
    /// Where the repository lies.
    bare: std::path::PathBuf,
    _git: GitHttp,
    _dir: TempDir,
}

impl LoneServer {
    /// Starts it; returns when it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start() -> Result<Self> {
        Self::start_as(&[], |_| {}).await
    }

    /// Starts it with other settings.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_with(change: impl FnOnce(&mut Value)) -> Result<Self> {
        Self::start_as(&[], change).await
    }

    /// Starts it with more environment and other settings.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_as(environment: &[(&str, &str)], change: impl FnOnce(&mut Value)) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let git = GitHttp::start(GitHttpOptions::default()).await?;
        let repo = Repo::init()?;
        repo.write(".windlass.yaml", "service: shop\nbase: static-site@1\ntest: {testers: [qa@example.com]}\n")?;
        let head = repo.commit("dev@example.com", "a shop")?;
        let bare = git_http::publish(&repo, &git, "shop.git")?;
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let mut config = lone_settings(dir.path(), &format!("127.0.0.1:{port}"));
        change(&mut config);
        let file = dir.path().join("windlass.yaml");
        std::fs::write(&file, config.to_string())?;
        let file = file.to_str().context("the folder is no text")?;
        let mut windlass = Windlass::start(dir.path(), &["serve", "--config", file], environment)?;
        let password = windlass.printed("sign in as admin with the password ", READY_WITHIN).await?;
        let (http, repository_url) = (http_client(), git.url("shop.git"));
        let mut server = Self { windlass, http, url, password, repository_url, head, repo, bare, _git: git, _dir: dir };
        server.answers().await?;
        Ok(server)
    }

    /// Pushes one more commit; gives its id.
    ///
    /// # Errors
    /// When `git` fails.
    pub fn push(&self, message: &str) -> Result<String> {
        self.repo.write("more", message)?;
        let commit = self.repo.commit("dev@example.com", message)?;
        self.repo.push(self.bare.to_str().context("the folder is no text")?, "HEAD:refs/heads/main")?;
        Ok(commit)
    }

    /// Signs `admin` in by the API; gives the token.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn admin_token(&self) -> Result<String> {
        let login = json!({"name": "admin", "password": self.password});
        let answer = self.http.post(format!("{}/api/v1/login", self.url)).json(&login).send().await?;
        let given: Value = answer.error_for_status()?.json().await?;
        Ok(given["token"].as_str().context("there is no token")?.to_owned())
    }

    /// Kills it and starts it again; returns when it answers.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.windlass.kill();
        self.windlass.restart()?;
        self.answers().await
    }

    /// That it lives and has not panicked.
    ///
    /// # Errors
    /// When it does not, with its log.
    pub fn is_well(&mut self) -> Result<()> {
        let log = self.windlass.log();
        ensure!(self.windlass.process().alive(), "it has ended:\n{log}");
        ensure!(!log.contains("panicked"), "it panicked:\n{log}");
        Ok(())
    }

    async fn answers(&mut self) -> Result<()> {
        let url = format!("{}/healthz", self.url);
        let http = &self.http;
        let answers = || async { http.get(&url).send().await.ok()?.error_for_status().ok() };
        self.windlass.process().ready(READY_WITHIN, answers).await.map(drop)
    }
}
