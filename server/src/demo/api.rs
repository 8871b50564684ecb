//! The demo's way to Windlass: its public API, by the client of the command line.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{client::Client, credentials::server_url, exit::Exit, failure::Failure, output::Paint};

/// How long anything of the train may take.
const STATION_WITHIN: Duration = Duration::from_secs(300);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A signed-in client.
pub(super) struct Api(Client);

impl Api {
    /// Signs in.
    pub(super) async fn sign_in(base: &str, name: &str, password: &str) -> anyhow::Result<Self> {
        let base = server_url(base).map_err(told)?;
        let stranger = Client::new(base.clone(), None, None).map_err(told)?;
        let login = json!({"name": name, "password": password, "label": "demo"});
        let answer: Value =
            stranger.send("cannot sign in", Method::POST, &path_of("login"), &login).await.map_err(told)?;
        let token = answer["token"].as_str().context("the sign-in gave no token")?.to_owned();
        Ok(Self(Client::new(base, Some(token), None).map_err(told)?))
    }

    /// Reads what must be there.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.look(path).await.map_err(told)
    }

    /// Asks for a change.
    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.0.send(&format!("cannot change {path}"), Method::POST, &path_of(path), &body).await.map_err(told)
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
            match self.look(path).await {
                Ok(value) => {
                    if let Some(found) = wanted(&value)? {
                        return Ok(found);
                    }
                    last = value;
                }
                Err(failure) if failure.exit == Exit::NotFound => {}
                Err(failure) => return Err(told(failure)),
            }
            if tokio::time::Instant::now() > deadline {
                let why = last["why"]["text"].as_str().unwrap_or("it is not there");
                bail!("{what} did not come within {} s: {why}", STATION_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self, path: &str) -> Result<Value, Failure> {
        self.0.get(&format!("cannot read {path}"), &path_of(path), &[]).await
    }
}

fn path_of(path: &str) -> String {
    format!("api/v1/{path}")
}

fn told(failure: Failure) -> anyhow::Error {
    anyhow!(failure.text(Paint::OFF).trim_end().trim_start_matches("error: ").to_owned())
}
