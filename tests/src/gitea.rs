//! A Gitea of the test's own: users, repositories, signed webhooks, git over HTTP. What it answers is asked through
//! [`Gitea::api`], so that a test sees Gitea's own words.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    parts::gitea_home,
    process::{Process, Stop, free_port, http_client, output},
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const ADMIN: &str = "captain";
const PASSWORD: &str = "a-password-of-the-test";

/// A running Gitea with one administrator.
#[derive(Debug)]
pub struct Gitea {
    process: Process,
    dir: TempDir,
    port: u16,
    token: String,
    http: reqwest::Client,
}

/// A repository on the [`Gitea`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiteaRepo {
    /// `owner/name`.
    pub full_name: String,
    /// Its address over HTTP without credentials.
    pub url: String,
    /// Its address over HTTP with the owner's user name and password.
    pub url_with_credentials: String,
}

impl Gitea {
    /// Starts it with an empty database and creates the administrator.
    ///
    /// # Errors
    /// When it was not built by `make parts` or does not become ready.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = free_port();
        fs::create_dir_all(dir.path().join("home"))?;
        fs::write(dir.path().join("app.ini"), app_ini(dir.path(), port))?;
        output(gitea(dir.path()).arg("migrate"))?;
        let create = ["admin", "user", "create", "--admin", "--username", ADMIN, "--password", PASSWORD];
        let email = ["--email", "captain@example.com", "--must-change-password=false"];
        output(gitea(dir.path()).args(create).args(email))?;
        let token = ["admin", "user", "generate-access-token", "--username", ADMIN, "--scopes", "all", "--raw"];
        let printed = output(gitea(dir.path()).args(token))?;
        // Warnings come on the same stream before it.
        let token = printed.lines().last().context("gitea printed no token")?.to_owned();
        let mut web = gitea(dir.path());
        web.arg("web");
        let stop = Stop::Term { within: Duration::from_secs(10) };
        let process = Process::spawn("gitea", web, &dir.path().join("log"), stop)?;
        let mut gitea = Self { process, dir, port, token, http: http_client() };
        let (url, http) = (format!("{}/api/healthz", gitea.url()), gitea.http.clone());
        gitea
            .process
            .ready(READY_WITHIN, || async {
                let answer = http.get(&url).send().await.ok()?;
                answer.status().is_success().then_some(())
            })
            .await?;
        Ok(gitea)
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The administrator's user name and password.
    #[must_use]
    pub fn admin(&self) -> (&'static str, &'static str) {
        (ADMIN, PASSWORD)
    }

    /// The administrator's API token, with all scopes.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Creates an empty repository of the administrator with default branch `main`.
    ///
    /// # Errors
    /// When Gitea refuses.
    pub async fn create_repo(&self, name: &str, private: bool) -> Result<GiteaRepo> {
        let body = json!({ "name": name, "private": private, "default_branch": "main" });
        self.api(Method::POST, "user/repos", Some(body)).await?;
        Ok(self.repo(ADMIN, PASSWORD, name))
    }

    /// The addresses of a repository of `owner`.
    #[must_use]
    pub fn repo(&self, owner: &str, password: &str, name: &str) -> GiteaRepo {
        let full_name = format!("{owner}/{name}");
        GiteaRepo {
            url: format!("{}/{full_name}.git", self.url()),
            url_with_credentials: format!("http://{owner}:{password}@127.0.0.1:{}/{full_name}.git", self.port),
            full_name,
        }
    }

    /// Creates a user with the given password, for forks and other people's pull requests.
    ///
    /// # Errors
    /// When Gitea refuses.
    pub async fn create_user(&self, name: &str, password: &str) -> Result<()> {
        let email = format!("{name}@example.com");
        let body = json!({ "username": name, "password": password, "email": email, "must_change_password": false });
        self.api(Method::POST, "admin/users", Some(body)).await.map(drop)
    }

    /// Creates a webhook for pushes (of tags too) and pull requests, signed with `secret`; gives its id.
    ///
    /// # Errors
    /// When Gitea refuses.
    pub async fn create_webhook(&self, repo: &GiteaRepo, url: &str, secret: &str) -> Result<i64> {
        let config = json!({ "url": url, "content_type": "json", "secret": secret });
        let events = ["push", "pull_request", "pull_request_sync"];
        let body = json!({ "type": "gitea", "config": config, "events": events, "active": true });
        let hook = self.api(Method::POST, &format!("repos/{}/hooks", repo.full_name), Some(body)).await?;
        hook["id"].as_i64().context("the webhook has no id")
    }

    /// The statuses that were set on a commit, newest first.
    ///
    /// # Errors
    /// When Gitea refuses.
    pub async fn commit_statuses(&self, repo: &GiteaRepo, commit: &str) -> Result<Vec<Value>> {
        let statuses = self.api(Method::GET, &format!("repos/{}/statuses/{commit}", repo.full_name), None).await?;
        Ok(statuses.as_array().cloned().unwrap_or_default())
    }

    /// Calls `/api/v1/PATH` as the administrator; an empty answer is `null`.
    ///
    /// # Errors
    /// When the answer is not a success; its body is in the message.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}/api/v1/{path}", self.url()));
        request = request.header("authorization", format!("token {}", self.token));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("gitea answered {status} for {path}: {text}");
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// The folder of everything it keeps.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

fn gitea(dir: &Path) -> Command {
    let mut command = Command::new(gitea_home().join("gitea"));
    command.arg("--config").arg(dir.join("app.ini")).arg("--work-path").arg(dir);
    command.env("HOME", dir.join("home")).env("GIT_CONFIG_NOSYSTEM", "1").current_dir(dir);
    command
}

fn app_ini(dir: &Path, port: u16) -> String {
    let root = dir.display();
    let statics = gitea_home().join("static");
    let user = if crate::process::is_root() { "root".into() } else { std::env::var("USER").unwrap_or_default() };
    format!(
        "RUN_USER = {user}\nI_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true\nRUN_MODE = prod\n\
         [server]\nPROTOCOL = http\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = {port}\nROOT_URL = http://127.0.0.1:{port}/\n\
         STATIC_ROOT_PATH = {statics}\nAPP_DATA_PATH = {root}/data\nDISABLE_SSH = true\nOFFLINE_MODE = true\n\
         LFS_START_SERVER = false\n\
         [database]\nDB_TYPE = sqlite3\nPATH = {root}/gitea.db\n\
         [repository]\nROOT = {root}/repositories\nDEFAULT_BRANCH = main\n\
         [security]\nINSTALL_LOCK = true\nSECRET_KEY = of-the-test\nPASSWORD_COMPLEXITY = off\n\
         [service]\nDISABLE_REGISTRATION = true\n\
         [webhook]\nALLOWED_HOST_LIST = loopback\nDELIVER_TIMEOUT = 10\n\
         [actions]\nENABLED = false\n[packages]\nENABLED = false\n[mailer]\nENABLED = false\n\
         [cron]\nENABLED = false\n[picture]\nDISABLE_GRAVATAR = true\n\
         [log]\nMODE = console\nLEVEL = info\nROOT_PATH = {root}/logs\n",
        statics = statics.display(),
    )
}
