//! A running server without an engine, and calls to it that are held against its description.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Method, Response, header::CONTENT_TYPE};
use serde_json::Value;
use tests::LoneServer;

use crate::schema::Schemas;

/// A server with an admin's token.
pub(crate) struct Server {
    pub(crate) lone: LoneServer,
    pub(crate) token: String,
    /// The operations that have been answered with success so far: `GET /api/v1/board`.
    pub(crate) shown: BTreeSet<String>,
    document: Value,
}

impl Server {
    /// Starts it.
    pub(crate) async fn start() -> Result<Self> {
        let lone = LoneServer::start().await?;
        let document = tests::parts::checkout().join("docs/openapi.json");
        let document = serde_json::from_str(&std::fs::read_to_string(document)?)?;
        Ok(Self { lone, token: String::new(), shown: BTreeSet::new(), document })
    }

    /// The description.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// What the server wrote.
    pub(crate) fn log(&self) -> String {
        self.lone.windlass.log()
    }

    /// Calls an operation of the description and holds the answer against it; gives status and body.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        template: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let request = self.lone.http.request(method.parse::<Method>()?, format!("{}{path}", self.lone.url));
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
