//! A program's way to Windlass: its HTTP API with a bearer token. A server that is away for a moment is asked again.

use std::{fmt::Write as _, future::Future, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::http_client;
use tokio::time::Instant;

/// How long anything of the train may take on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// A signed-in client.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// Signs in at `base` (`http://host:port`).
    pub(crate) async fn sign_in(base: &str, name: &str, password: &str) -> Result<Self> {
        let mut api = Self { http: http_client(), base: base.to_owned(), token: String::new() };
        let login = json!({ "name": name, "password": password, "label": "outside test" });
        let answer = api.post("login", login).await?;
        api.token = answer["token"].as_str().context("the sign-in gave no token")?.to_owned();
        Ok(api)
    }

    /// One request to the API, whatever comes of it.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}/api/v1/{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        let value = serde_json::from_str(&text).with_context(|| format!("{path} was answered {status}: {text}"))?;
        Ok((status, value))
    }

    /// A page as it is written.
    pub(crate) async fn page(&self, path: &str) -> Result<String> {
        let answer = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token).send().await?;
        ensure!(answer.status().is_success(), "{path} was answered {}", answer.status());
        Ok(answer.text().await?)
    }

    /// Its bearer token, for other programs.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Reads what must be there.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.until(path, "it", |value| Some(value.clone())).await
    }

    /// Asks for a change. When the server dies meanwhile it is asked again; a refusal
    /// because it was done before is as good then.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let mut asked = 0;
        let (answer, seen) = wait_for(WITHIN, || {
            asked += 1;
            let (is_first, body) = (asked == 1, &body);
            async move {
                match self.ask(Method::POST, path, Some(body)).await {
                    Ok((status, value)) => (Some((is_first, status, value)), String::new()),
                    Err(error) => (None, format!("{error:#}")),
                }
            }
        })
        .await;
        let (is_first, status, value) = answer.with_context(|| format!("{path} is not answered: {seen}"))?;
        let is_done = status.is_success() || (!is_first && matches!(status, StatusCode::CONFLICT | StatusCode::GONE));
        ensure!(is_done, "{path} was answered {status}: {value}");
        Ok(value)
    }

    /// Changes what is there, by PATCH; asked again when the server dies meanwhile.
    pub(crate) async fn change(&self, path: &str, body: Value) -> Result<Value> {
        let look = || async {
            match self.ask(Method::PATCH, path, Some(&body)).await {
                Ok(answer) => (Some(answer), String::new()),
                Err(error) => (None, format!("{error:#}")),
            }
        };
        let (answer, seen) = wait_for(WITHIN, look).await;
        let (status, value) = answer.with_context(|| format!("{path} is not answered: {seen}"))?;
        ensure!(status.is_success(), "{path} was answered {status}: {value}");
        Ok(value)
    }

    /// Reads `path` until `wanted` finds in it what it looks for. What is not there yet is waited for.
    pub(crate) async fn until<T>(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let mut last = String::from("nothing was answered");
        let looked = wait_for(WITHIN, || async {
            match self.ask(Method::GET, path, None).await {
                Ok((status, value)) if status.is_success() => {
                    let found = wanted(&value);
                    (found, short(&value))
                }
                Ok((status, value)) => (None, format!("{status} {value}")),
                Err(error) => (None, format!("{error:#}")),
            }
        })
        .await;
        match looked {
            (Some(found), _) => Ok(found),
            (None, seen) => {
                last.clear();
                let _ = write!(last, "{seen}");
                bail!("{what} did not come in {path} within {WITHIN:?}; the last look: {last}")
            }
        }
    }
}

/// Looks until something is found or the time is over; gives the last look too.
pub(crate) async fn wait_for<T, F: Future<Output = (Option<T>, String)>>(
    within: Duration,
    mut look: impl FnMut() -> F,
) -> (Option<T>, String) {
    let deadline = Instant::now() + within;
    loop {
        let (found, seen) = look().await;
        if found.is_some() || Instant::now() >= deadline {
            return (found, seen);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The beginning of an answer: the state and the reason come first enough.
fn short(value: &Value) -> String {
    let (state, why) = (&value["state"], &value["why"]["text"]);
    let whole: String = value.to_string().chars().take(1_500).collect();
    format!("state {state}, why {why}; {whole}")
}

/// A field that must be a text.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("there is no {field} in {value}"))
}
