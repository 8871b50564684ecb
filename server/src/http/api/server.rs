//! The server itself: what it is, how it is, what it still has to do, and the schema of the pipeline file.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use pipelines::definition;

use super::{
    Reply, convert,
    model::{self, Answer, List},
    reply,
};
use crate::{
    app::{App, health::Verdict, room::NoRoom},
    http::problem::Problem,
};

/// The version of this server.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Pending effects that are listed at most.
const PENDING_MAX: usize = 500;

/// What the server is.
#[utoipa::path(get, path = "/api/v1/server", tag = "server",
    responses((status = 200, body = Answer<model::Server>, description = "what a client needs to know of it")))]
pub async fn show_server(State(app): State<Arc<App>>) -> Reply<model::Server> {
    reply(model::Server {
        version: VERSION.to_owned(),
        public_url: app.config.public_url.clone(),
        now_ms: app.now().0,
        test_registry: app.config.registries.test.host.clone(),
        production_registry: app.config.registries.production.host.clone(),
    })
}

/// How the server is, and all that it needs: engine, registries, mail, gateway, disk, store.
#[utoipa::path(get, path = "/api/v1/health", tag = "server",
    responses((status = 200, body = Answer<model::Health>, description = "with the evidence, and the fix where it is not well")))]
pub async fn show_health(State(app): State<Arc<App>>) -> Reply<model::Health> {
    let findings = app.health().await;
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good);
    let findings = findings.into_iter().map(|finding| model::Finding {
        name: finding.name.to_owned(),
        state: finding.verdict.word().to_owned(),
        evidence: finding.evidence,
        fix: finding.fix,
    });
    reply(model::Health {
        state: worst.word().to_owned(),
        version: VERSION.to_owned(),
        now_ms: app.now().0,
        findings: findings.collect(),
    })
}

/// What still has to be done, or is being done; what failed says why and when it is tried again.
#[utoipa::path(get, path = "/api/v1/queue", tag = "server",
    responses((status = 200, body = Answer<List<model::PendingEffect>>, description = "the first 500")))]
pub async fn list_queue(State(app): State<Arc<App>>) -> Reply<List<model::PendingEffect>> {
    let pending = app.queue().all(PENDING_MAX);
    reply(List::all(pending.into_iter().map(|(key, pending)| convert::pending(key, &pending)).collect()))
}

/// Whether requests can be served: for a load balancer or a supervisor. Says nothing that only people signed in may know.
pub async fn show_readiness(State(app): State<Arc<App>>) -> Response {
    let detail = match app.no_room() {
        None => return "ready".into_response(),
        Some(NoRoom::Refused) => "the server reads and does not take changes at present",
        Some(NoRoom::ReadOnly) => "the server's state folder is read-only: it reads and does not take changes",
        Some(NoRoom::Low { .. }) => {
            "the server's disk is nearly full: it finishes what has begun and takes nothing new"
        }
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", detail).into_response()
}

/// The JSON Schema of the pipeline file, for editors.
pub async fn show_schema() -> Json<serde_json::Value> {
    Json(definition::json_schema())
}
