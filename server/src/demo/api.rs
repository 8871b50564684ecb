//! The demo's way to Windlass: its public API, as any other program would use it.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};

/// How long anything of the train may take.
const STATION_WITHIN: Duration = Duration::from_secs(300);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A signed-in client.
pub(super) struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// Signs in.
    pub(super) async fn sign_in(base: &str, name: &str, password: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        let mut api = Self { client, base: base.to_owned(), token: String::new() };
        let login = json!({"name": name, "password": password, "label": "demo"});
        let answer = api.ask(Method::POST, "login", Some(login)).await?.context("the sign-in was refused")?;
        api.token = answer["token"].as_str().context("the sign-in gave no token")?.to_owned();
        Ok(api)
    }

    /// Reads what must be there.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await?.with_context(|| format!("{path} is not there"))
    }

    /// Asks for a change.
    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body)).await?.with_context(|| format!("{path} is not there"))
    }

    /// Reads `path` until `wanted` finds in it what it looks for. What is not there yet is waited for.
    pub(super) async fn until<T>(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(&Value) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = tokio::time::Instant::now() + STATION_WITHIN;
        let mut last = Value::Null;
        loop {
            if let Some(value) = self.ask(Method::GET, path, None).await? {
                if let Some(found) = wanted(&value)? {
                    return Ok(found);
                }
                last = value;
            }
            if tokio::time::Instant::now() > deadline {
                let why = last["why"]["text"].as_str().unwrap_or("it is not there");
                bail!("{what} did not come within {} s: {why}", STATION_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Option<Value>> {
        let mut request = self.client.request(method, format!("{}/api/v1/{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        if status == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{path} was answered {status}: {text}");
        }
        Ok(Some(serde_json::from_str(&text)?))
    }
}
