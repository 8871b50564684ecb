//! A server with its runner, an engine, a registry and a repository.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    DockerEngine, GitHttp, GitHttpOptions, Hook, Registry, Repo, Windlass, docker::BASE_IMAGE, git_http::publish,
    http_client, push_body,
};

use crate::{
    running::Place,
    seed::{self, Far},
};

const HOOK_SECRET: &str = "the secret of the hooks";
/// Lines that the longest step prints, and some for the others.
pub(crate) const LINES_MAX: u64 = 1_000_100;

pub(crate) struct Yard {
    pub(crate) engine: &'static DockerEngine,
    pub(crate) git: GitHttp,
    pub(crate) repo: Repo,
    pub(crate) http: reqwest::Client,
    pub(crate) place: Place,
    pub(crate) token: String,
    pub(crate) windlass: Windlass,
    _registry: Registry,
}

impl Yard {
    pub(crate) async fn start() -> Result<Self> {
        let engine = DockerEngine::shared().await?;
        let registry = Registry::start(None).await?;
        engine.push(BASE_IMAGE, &registry, "library/busybox", "1.36").await?;
        let git = GitHttp::start(GitHttpOptions::default()).await?;
        let mirror = format!("{}/library/{BASE_IMAGE}", registry.host_port());
        let host = registry.host_port();
        let place = Place::with(|settings| {
            settings["registries"] = json!({
                "test": {"host": host, "plain_http": true}, "production": {"host": host, "prefix": "live", "plain_http": true},
            });
            settings["docker_host"] = json!(engine.host());
            settings["mirrors"] = json!([{"from": BASE_IMAGE, "to": mirror}]);
            settings["runner"] = json!({"name": "bench", "parallel_runs": 1});
            settings["job"] = json!({"log_lines_per_step_max": LINES_MAX, "log_bytes_per_step_max": 1_u64 << 30});
        })?;
        // Only for its administrator.
        seed::fill(&place.config, 0, 0, Far::RunsFailed).await?;
        let (windlass, _) = place.start().await?;
        let token = place.sign_in().await?;
        let (repo, http) = (Repo::init()?, http_client());
        let yard = Self { engine, git, repo, http, place, token, windlass, _registry: registry };
        yard.commit("echo hello; exit 1", 0)?;
        let service = json!({
            "name": "shop", "repository_url": yard.git.url("shop.git"), "hook_secret": HOOK_SECRET, "poll_interval_ms": 0,
        });
        let url = format!("{}/api/v1/services", yard.place.url);
        yard.http.post(url).bearer_auth(&yard.token).json(&service).send().await?.error_for_status()?;
        // The first poll makes a run of what is there already.
        while yard.idle().await? == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(yard)
    }

    /// Commits a pipeline whose only step runs `command`, where the server finds it; gives the commit.
    pub(crate) fn commit(&self, command: &str, number: u32) -> Result<String> {
        let pipeline = json!({
            "service": "shop", "base": "static-site@1",
            "steps": [{"name": "work", "image": BASE_IMAGE, "commands": [command]}],
            "test": {"testers": ["qa@example.com"]},
        });
        self.repo.write(".windlass.yaml", pipeline.to_string())?;
        self.repo.write("number", number.to_string())?;
        let commit = self.repo.commit("dev@example.com", &format!("change {number}"))?;
        let bare = self.git.root().join("shop.git");
        if bare.exists() {
            self.repo.push(bare.to_str().context("the folder is no text")?, "HEAD:refs/heads/main")?;
        } else {
            publish(&self.repo, &self.git, "shop.git")?;
        }
        Ok(commit)
    }

    /// Says, as a forge does, that `commit` was pushed.
    pub(crate) async fn hook(&self, commit: &str) -> Result<()> {
        let hook = Hook { event: "push", id: commit, body: push_body(commit).to_string().into_bytes() };
        let url = format!("{}/hooks/shop", self.place.url);
        hook.signed(&self.http, &url, HOOK_SECRET)?.send().await?.error_for_status()?;
        Ok(())
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Option<Value>> {
        let url = format!("{}/api/v1/services/shop/{path}", self.place.url);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.json().await?))
    }

    /// The newest run's number, and whether it is over.
    pub(crate) async fn newest_run(&self) -> Result<(u64, bool)> {
        let page = self.get("runs?limit=1").await?.context("there are no runs")?;
        let run = &page["items"][0];
        Ok((run["number"].as_u64().unwrap_or(0), run["finished"] == true))
    }

    /// Waits until nothing runs.
    pub(crate) async fn idle(&self) -> Result<u64> {
        let started = std::time::Instant::now();
        loop {
            let (number, over) = self.newest_run().await?;
            if over || number == 0 {
                return Ok(number);
            }
            ensure!(started.elapsed().as_secs() < 300, "run {number} does not end:\n{}", self.windlass.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
