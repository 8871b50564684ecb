//! A running server without an engine, and calls to it that are held against its description.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Method, Response, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{GitHttp, GitHttpOptions, Repo, Windlass, free_port, http_client};

use crate::schema::Schemas;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A server with an admin's token, the service `shop`, and its repository.
pub(crate) struct Server {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) repository_url: String,
    pub(crate) password: String,
    /// The operations that have been answered with success so far: `GET /api/v1/board`.
    pub(crate) shown: BTreeSet<String>,
    document: Value,
    windlass: Windlass,
    _git: GitHttp,
    _dir: TempDir,
}

impl Server {
    /// Starts it.
    pub(crate) async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let git = GitHttp::start(GitHttpOptions::default()).await?;
        let repo = Repo::init()?;
        repo.write(".windlass.yaml", "service: shop\nbase: static-site@1\ntest: {testers: [qa@example.com]}\n")?;
        repo.commit("dev@example.com", "a shop")?;
        tests::git_http::publish(&repo, &git, "shop.git")?;
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        // No runner: what is asked for stays in the queue, where it is looked at.
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
        let http = http_client();
        let healthy = || async { http.get(format!("{url}/healthz")).send().await.ok() };
        windlass.process().ready(READY_WITHIN, healthy).await?;
        let document = tests::parts::checkout().join("docs/openapi.json");
        let document = serde_json::from_str(&std::fs::read_to_string(document)?)?;
        let repository_url = git.url("shop.git");
        let (token, shown) = (String::new(), BTreeSet::new());
        let (_git, _dir) = (git, dir);
        Ok(Self { http, url, token, repository_url, password, shown, document, windlass, _git, _dir })
    }

    /// The description.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// What the server wrote.
    pub(crate) fn log(&self) -> String {
        self.windlass.log()
    }

    /// Calls an operation of the description and holds the answer against it; gives status and body.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        template: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let request = self.http.request(method.parse::<Method>()?, format!("{}{path}", self.url));
        let request = request.bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(body) } else { request };
        let answer = request.send().await?;
        let said = format!("{method} {path} {}", body.unwrap_or(&Value::Null));
        self.held(method, template, answer).await.with_context(|| said)
    }

    /// Holds an answer against what the description says of its operation.
    pub(crate) async fn held(&mut self, method: &str, template: &str, answer: Response) -> Result<(u16, Value)> {
        let operation = &self.document["paths"][template][method.to_lowercase()];
        ensure!(operation.is_object(), "{method} {template} is not described");
        let status = answer.status();
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().to_owned();
        ensure!(!status.is_server_error(), "{status}: {}\n{}", answer.text().await?, self.log());
        let responses = &operation["responses"];
        let (described, wanted) = match responses.get(status.as_str()) {
            Some(described) => (described, "application/json"),
            None if status.is_client_error() => (&responses["default"], "application/problem+json"),
            None => bail!("{status} is not described"),
        };
        let schema = &described["content"][&kind]["schema"];
        let text = answer.text().await?;
        ensure!(kind == wanted && schema.is_object(), "{status} of {kind:?}, which is not described: {text}");
        let value: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        let schemas = self.document["components"]["schemas"].as_object().context("there are no schemas")?;
        let wrong = Schemas(schemas).check(schema, &value);
        ensure!(wrong.is_empty(), "{status} {text}\nis not as described: {}", wrong.join("; "));
        if status.is_client_error() {
            ensure!(value["status"] == status.as_u16(), "the problem of a {status} says {}", value["status"]);
        } else {
            self.shown.insert(format!("{method} {template}"));
        }
        Ok((status.as_u16(), value))
    }
}
