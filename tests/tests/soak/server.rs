//! A real `windlass serve` without an engine, as a forge and a person see it.

use anyhow::Result;
use reqwest::Response;
use serde_json::{Value, json};
use tests::{Hook, LoneServer};

const SECRET: &str = "the secret of the hooks";

/// The server, where the service `shop` is registered.
pub(crate) struct Server {
    pub(crate) lone: LoneServer,
    pub(crate) door: Door,
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
        let lone = LoneServer::start().await?;
        let token = lone.admin_token().await?;
        let door = Door { http: lone.http.clone(), url: lone.url.clone(), token };
        let service = json!({"name": "shop", "repository_url": lone.repository_url, "hook_secret": SECRET});
        door.post("/api/v1/services", &service).await?.error_for_status()?;
        Ok(Self { lone, door })
    }
}

impl Door {
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
        let url = format!("{}/hooks/shop", self.url);
        Ok(Hook { event, id, body }.signed(&self.http, &url, SECRET)?.send().await?)
    }
}

/// What a forge says of a pull request.
pub(crate) fn pull_request(commit: &str) -> Value {
    let side = |name: &str| json!({"ref": name, "sha": commit, "repo": {"full_name": "dev/shop"}});
    json!({"action": "opened", "number": 7, "pull_request": {
        "number": 7, "title": "a basket", "user": {"login": "mei"}, "head": side("basket"), "base": side("main")}})
}
