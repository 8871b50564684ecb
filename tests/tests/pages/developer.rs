//! A developer beside a running `windlass demo`: pushes commits, asks the API, reads the mails of the folder.

use std::{fs, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{DockerEngine, Hook, Repo, Windlass, http_client};
use url::Url;

const SOON: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a stranger calls their pull request.
pub(crate) const STRANGERS_TITLE: &str = "Mine bitcoin";

/// The demo and what was done with it.
pub(crate) struct Developer {
    pub(crate) base: String,
    pub(crate) password: String,
    /// A run whose step failed.
    pub(crate) bad_run: u64,
    /// The run of a stranger's commit, of the service `stranger`, that waits for a person's word.
    pub(crate) held_run: u64,
    /// A release that waits for a decision.
    pub(crate) open_release: u64,
    /// The path of the link in the mail of that release.
    pub(crate) link_path: String,
    token: String,
    repo: Repo,
    // Ends before its folder goes: it finds its gateway by a socket in there.
    _demo: Windlass,
    folder: TempDir,
}

impl Developer {
    /// Starts the demo, waits until both of its releases are live, and pushes what makes the other pages worth a look: a
    /// canary that holds, a run that fails, a release that waits.
    pub(crate) async fn start() -> Result<Self> {
        let engine = DockerEngine::shared().await?;
        let folder = tempfile::tempdir()?;
        let work = folder.path().join("demo");
        let arguments = ["demo", "--folder", work.to_str().context("a path in UTF-8")?];
        let mut demo = Windlass::start(folder.path(), &arguments, &[("DOCKER_HOST", engine.host())])?;
        let open = demo.printed("Windlass is open at", Duration::from_secs(180)).await?;
        let (base, rest) = open.split_once(' ').context("an address")?;
        let password = rest.rsplit(' ').next().context("a password")?.to_owned();
        let clone = demo.printed("git clone", SOON).await?;
        let base = base.to_owned();

        let login = json!({"name": "admin", "password": password, "label": "developer"});
        let answer = http_client().post(format!("{base}/api/v1/login")).json(&login).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let token = answer["token"].as_str().context("a token")?.to_owned();
        let mut developer = Self {
            base,
            password,
            bad_run: 4,
            held_run: 1,
            open_release: 0,
            link_path: String::new(),
            token,
            repo: Repo::clone_of(&clone)?,
            _demo: demo,
            folder,
        };
        developer.fill().await?;
        developer.secrets().await?;
        developer.stranger(&clone).await?;
        Ok(developer)
    }

    async fn fill(&mut self) -> Result<()> {
        let pipeline = |step: &str, production: Value| {
            json!({
                "service": "shop",
                "base": "static-site@1",
                "network": {"port": 8080},
                "steps": [{"name": "check", "image": "busybox:1.36", "commands": [step]}],
                "test": {"testers": ["tester@example.com"], "approvals": 1, "expires": "72h"},
                "production": production,
            })
            .to_string()
        };
        let hold = json!({"strategy": "canary", "steps": [{"weight": 30, "hold": "2h"}],
            "checks": [{"success_rate": ">= 99%"}], "judge": {"min_requests": 20}});
        self.repo.write(".windlass.yaml", pipeline("seq 1 400", hold.clone()))?;
        self.push("Holds at 30 %").await?;
        let waiting = self.newest_open_release().await?;
        let digest = self.get(&format!("services/shop/releases/{waiting}")).await?["digest"].clone();
        self.post(&format!("services/shop/releases/{waiting}/approve"), json!({"digest": digest})).await?;
        self.until("services/shop/rollouts/3", |rollout| rollout["state"] == "holding").await?;

        self.repo.write(".windlass.yaml", pipeline("echo before; false", hold.clone()))?;
        self.push("Fails its step").await?;
        self.until(&format!("services/shop/runs/{}", self.bad_run), |run| run["finished"] == true).await?;

        self.repo.write(".windlass.yaml", pipeline("true", hold))?;
        self.push("Waits for its tester").await?;
        self.open_release = self.newest_open_release().await?;
        self.link_path = self.link_of(self.open_release).await?;
        Ok(())
    }

    async fn secrets(&self) -> Result<()> {
        let value = json!({"value": "a value that nobody sees again"});
        self.send(Method::PUT, "services/shop/secrets/DEPLOY_KEY", value.clone()).await?;
        self.send(Method::PUT, "secrets/REGISTRY_MIRROR", value).await?;
        Ok(())
    }

    /// A fork's pull request to another service of the same repository.
    async fn stranger(&self, clone: &str) -> Result<()> {
        let address = Url::parse(clone)?;
        let mut bare = address.clone();
        let cannot = |()| anyhow!("the demo's address takes no user");
        bare.set_username("").map_err(cannot)?;
        bare.set_password(None).map_err(cannot)?;
        let login = json!({"kind": "token", "user": address.username(), "token": address.password()});
        let service = json!({
            "name": "stranger", "repository_url": bare, "credential": login, "hook_secret": "stranger's hooks",
            // Its branches make no run.
            "release_branch": "none", "poll_interval_ms": 0,
        });
        self.post("services", service).await?;
        let commit = self.repo.head()?;
        let side = |name: &str| json!({"ref": "main", "sha": commit, "repo": {"full_name": name}});
        let body = json!({"action": "opened", "number": 7, "pull_request": {
            "number": 7, "title": STRANGERS_TITLE, "user": {"login": "eve"},
            "head": side("eve/shop"), "base": side("dev/shop")}});
        let hook = Hook { event: "pull_request", id: "from-a-fork", body: body.to_string().into_bytes() };
        let url = format!("{}/hooks/stranger", self.base);
        hook.signed(&http_client(), &url, "stranger's hooks")?.send().await?.error_for_status()?;
        let path = format!("services/stranger/runs/{}", self.held_run);
        self.until(&path, |run| run["state"] == "held" && run["proposal"].is_object()).await.map(drop)
    }

    /// Pushes a commit; its hash.
    pub(crate) async fn push(&self, subject: &str) -> Result<String> {
        self.repo.write("note", subject)?;
        let sha = self.repo.commit("Ada <ada@example.com>", subject)?;
        self.repo.git(&["push", "--quiet", "origin", "HEAD:main"])?;
        Ok(sha)
    }

    /// The release of the last commit, once it waits for a decision.
    pub(crate) async fn newest_open_release(&self) -> Result<u64> {
        let sha = self.repo.head()?;
        let of_head = |list: &Value| {
            let mut items = list["items"].as_array().into_iter().flatten();
            items.find(|one| one["commit"]["sha"] == sha.as_str() && one["state"] == "awaiting_approval").cloned()
        };
        let list = self.until("services/shop/releases", |list| of_head(list).is_some()).await?;
        of_head(&list).and_then(|release| release["number"].as_u64()).context("a number")
    }

    /// Waits until a release is decided.
    pub(crate) async fn decided(&self, number: u64) -> Result<()> {
        let path = format!("services/shop/releases/{number}");
        self.until(&path, |release| release["state"] != "awaiting_approval").await.map(drop)
    }

    /// Whether a release was approved by its tester, by a mailed code.
    pub(crate) async fn approved_once(&self, number: u64) -> Result<()> {
        let release = self.get(&format!("services/shop/releases/{number}")).await?;
        let decision = &release["approval"]["decision"];
        ensure!(decision["by"] == "tester@example.com", "it was decided by {decision}");
        Ok(())
    }

    /// The path of the link that the mail of a release holds.
    pub(crate) async fn link_of(&self, number: u64) -> Result<String> {
        let part = format!("/approve/shop/{number}/");
        let line = self.mail_line(number, |line| line.starts_with("http") && line.contains(&part)).await?;
        Ok(line[line.find("/approve/").context("a path")?..].to_owned())
    }

    /// The code that was mailed for a release.
    pub(crate) async fn code_of(&self, number: u64) -> Result<String> {
        self.mail_line(number, |line| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit())).await
    }

    /// A line of the text part of a mail about a release, newest first, once there is one.
    async fn mail_line(&self, number: u64, wanted: impl Fn(&str) -> bool) -> Result<String> {
        // The file's name ends in the Message-ID, which begins with service and release.
        let about = format!("-shop.{number}.");
        let folder = self.folder.path().join("demo/mails");
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let mut names: Vec<_> = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
            names.retain(|file| file.to_string_lossy().contains(&about));
            names.sort();
            for file in names.iter().rev() {
                let text = text_part(&fs::read_to_string(file).unwrap_or_default());
                if let Some(line) = text.lines().map(str::trim).find(|line| wanted(line)) {
                    return Ok(line.to_owned());
                }
            }
            ensure!(tokio::time::Instant::now() < deadline, "no such mail came");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let url = format!("{}/api/v1/{path}", self.base);
        let answer = http_client().get(url).bearer_auth(&self.token).send().await?;
        Ok(answer.json().await?)
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.send(Method::POST, path, body).await
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        let url = format!("{}/api/v1/{path}", self.base);
        let answer = http_client().request(method, url).bearer_auth(&self.token).json(&body).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let value = self.get(path).await?;
            if wanted(&value) {
                return Ok(value);
            }
            ensure!(tokio::time::Instant::now() < deadline, "{path} stayed at {value}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The text part of a mail, whatever its transfer encoding.
fn text_part(mail: &str) -> String {
    let mail = mail.replace("\r\n", "\n");
    let Some(at) = mail.find("text/plain") else { return String::new() };
    let part = &mail[at..];
    let Some((head, body)) = part.split_once("\n\n") else { return String::new() };
    let body = body.split("\n--").next().unwrap_or_default();
    if head.contains("base64") {
        let packed: String = body.split_whitespace().collect();
        return String::from_utf8(BASE64_STANDARD.decode(packed).unwrap_or_default()).unwrap_or_default();
    }
    // Quoted-printable: only what links and codes need.
    body.replace("=\n", "").replace("=3D", "=")
}
