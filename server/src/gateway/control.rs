//! The control side: HTTP over a Unix socket that only the owner can open. Taking a configuration,
//! reading it and the counters, waiting for a revision to drain.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::keep::{Generation, Keep, KeepError, MAX_CONFIG_BYTES};
use super::listen::{ListenError, Listeners, Listening, Prepared};
use super::stats::GatewayStats;
use super::table::Standing;

const MAX_DRAIN_WAIT_MS: u64 = 3_600_000;

/// What the control side acts on.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) gate: Arc<Gate>,
    /// Held while a configuration is taken and while a successor takes over: one at a time.
    pub(super) duty: Mutex<Duty>,
    pub(super) keep: Keep,
    pub(super) instance: String,
    /// Cancelled when no earlier process serves requests any more.
    pub(super) alone: CancellationToken,
}

/// What only one may change at a time.
#[derive(Debug, Default)]
pub(super) struct Duty {
    pub(super) listeners: Listeners,
    /// A successor took over: configurations are its business.
    pub(super) ended: bool,
}

/// The answer to a configuration that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The generation in force.
    pub generation: u64,
    /// The gateway process.
    pub instance: String,
    /// When it answered, in milliseconds since 1970: no request that began later uses an older
    /// generation.
    pub acknowledged_at_ms: u64,
    /// Where requests are accepted.
    pub listening: Vec<Listening>,
}

/// How the gateway is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The gateway process; another one after each start.
    pub instance: String,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The generation in force; 0 means that it was never configured.
    pub generation: u64,
    /// Where requests are accepted.
    pub listening: Vec<Listening>,
    /// Open client connections.
    pub connections: u64,
    /// Whether an earlier process still serves requests that it took.
    pub predecessor: bool,
}

/// What became of a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The id of the revision.
    pub revision: String,
    /// What became of it.
    pub state: DrainState,
    /// Requests and upgraded connections in flight at the end of the wait.
    pub in_flight: u64,
}

/// What became of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainState {
    /// No request is in flight and no new one can come: its containers may stop.
    Drained,
    /// Requests are still in flight, here or in a process that is about to end.
    InFlight,
    /// The table in force sends requests to it (weight, preview or fallback): nothing was waited for.
    Serving,
}

/// An error as the control side says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One sentence.
    pub error: String,
    /// Everything that is wrong with a refused configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The generation that stays in force.
    #[serde(default)]
    pub generation: u64,
}

/// Why a configuration was not taken. The old one stays in force.
#[derive(Debug, Error)]
pub(super) enum TakeError {
    #[error("generation {offered} is older than {in_force}, which is in force")]
    Stale { offered: u64, in_force: u64 },
    #[error("generation {0} is in force with another content")]
    Differs(u64),
    #[error("the configuration is not valid")]
    Invalid(Vec<String>),
    #[error("a successor has taken over")]
    Succeeded,
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Keep(#[from] KeepError),
}

impl Control {
    /// Takes a configuration. When it returns, it is kept and in force.
    async fn take(&self, offered: Generation) -> Result<(), TakeError> {
        let problems = offered.config.problems();
        if !problems.is_empty() {
            return Err(TakeError::Invalid(problems));
        }
        let mut duty = self.duty.lock().await;
        if duty.ended {
            return Err(TakeError::Succeeded);
        }
        let kept = self.gate.table.kept();
        if offered == kept {
            return Ok(());
        }
        if offered.generation == kept.generation {
            return Err(TakeError::Differs(kept.generation));
        }
        if offered.generation < kept.generation {
            return Err(TakeError::Stale { offered: offered.generation, in_force: kept.generation });
        }
        let prepared = duty.listeners.prepare(&offered.config.listen, Prepared::default())?;
        let keep = self.keep.clone();
        // Kept first: a restart must never serve something older than what was acknowledged.
        let offered = super::blocking(move || keep.store(&offered).map(|()| offered)).await?;
        self.enforce(&mut duty, offered, prepared).await;
        Ok(())
    }

    /// Puts a configuration in force that is checked and kept.
    pub(super) async fn enforce(&self, duty: &mut Duty, kept: Generation, prepared: Prepared) {
        let listen = kept.config.listen.clone();
        self.gate.table.apply(kept);
        self.gate.slots.look_again();
        duty.listeners.commit(&self.gate, &listen, prepared).await;
    }

    async fn listening(&self) -> Vec<Listening> {
        self.duty.lock().await.listeners.listening()
    }

    async fn drained(&self, revision: String, wait: Duration) -> Drained {
        let report = |state, in_flight| Drained { revision: revision.clone(), state, in_flight };
        let flights = match self.gate.table.standing(&revision) {
            Standing::Serving(flights) => return report(DrainState::Serving, flights.count()),
            Standing::Left(flights) => Some(flights),
            Standing::Unknown => None,
        };
        let none = async {
            // An earlier process may serve requests of a revision that this one never knew.
            self.alone.cancelled().await;
            if let Some(flights) = &flights {
                flights.none().await;
            }
        };
        let in_time = tokio::time::timeout(wait, none).await.is_ok();
        // It may have been put back while we waited.
        match self.gate.table.standing(&revision) {
            Standing::Serving(flights) => report(DrainState::Serving, flights.count()),
            _ if in_time => report(DrainState::Drained, 0),
            _ => report(DrainState::InFlight, flights.map_or(0, |flights| flights.count())),
        }
    }
}

/// The routes of the control side.
pub(super) fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/v1/config", get(show_config).put(put_config))
        .route("/v1/stats", get(show_stats))
        .route("/v1/healthz", get(show_health))
        .route("/v1/revisions/{id}/drain", get(await_drain))
        .layer(DefaultBodyLimit::max(MAX_CONFIG_BYTES))
        .with_state(control)
}

type Shared = State<Arc<Control>>;

async fn put_config(State(control): Shared, body: Result<Json<Generation>, JsonRejection>) -> Response {
    let refuse = |status, error: String, problems| {
        let generation = control.gate.table.generation();
        let refusal = Refusal { error, problems, generation };
        (status, Json(refusal)).into_response()
    };
    let offered = match body {
        Ok(Json(offered)) => offered,
        Err(rejection) => return refuse(rejection.status(), rejection.body_text(), Vec::new()),
    };
    // In a task of its own: a caller that goes away must not stop it halfway.
    let taking = {
        let control = Arc::clone(&control);
        tokio::spawn(async move { control.take(offered).await })
    };
    let error = match taking.await {
        Ok(Ok(())) => {
            return Json(InForce {
                generation: control.gate.table.generation(),
                instance: control.instance.clone(),
                acknowledged_at_ms: super::now_ms(),
                listening: control.listening().await,
            })
            .into_response();
        }
        Ok(Err(error)) => error,
        Err(error) => {
            tracing::error!(%error, "taking a configuration ended by itself");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return refuse(status, error.to_string(), Vec::new());
        }
    };
    let chain = pipelines::errors::chain(&error);
    match error {
        TakeError::Stale { .. } | TakeError::Differs(_) => refuse(StatusCode::CONFLICT, chain, Vec::new()),
        TakeError::Invalid(problems) => refuse(StatusCode::UNPROCESSABLE_ENTITY, chain, problems),
        TakeError::Listen(_) => refuse(StatusCode::UNPROCESSABLE_ENTITY, chain.clone(), vec![chain]),
        TakeError::Succeeded => refuse(StatusCode::SERVICE_UNAVAILABLE, chain, Vec::new()),
        TakeError::Keep(_) => {
            tracing::error!(error = chain, "a configuration could not be kept");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, chain, Vec::new())
        }
    }
}

async fn show_config(State(control): Shared) -> Json<Generation> {
    Json(control.gate.table.kept())
}

async fn show_stats(State(control): Shared) -> Json<GatewayStats> {
    let connections = control.gate.slots.taken() as u64;
    Json(control.gate.table.stats(&control.instance, connections))
}

async fn show_health(State(control): Shared) -> Json<Health> {
    Json(Health {
        instance: control.instance.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: control.gate.table.generation(),
        listening: control.listening().await,
        connections: control.gate.slots.taken() as u64,
        predecessor: !control.alone.is_cancelled(),
    })
}

#[derive(Debug, Deserialize)]
struct DrainQuery {
    timeout_ms: u64,
}

async fn await_drain(
    State(control): Shared,
    Path(revision): Path<String>,
    query: Result<Query<DrainQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => {
            let wait = Duration::from_millis(query.timeout_ms.min(MAX_DRAIN_WAIT_MS));
            Json(control.drained(revision, wait).await).into_response()
        }
        Err(rejection) => {
            let refusal = Refusal {
                error: rejection.body_text(),
                problems: Vec::new(),
                generation: control.gate.table.generation(),
            };
            (rejection.status(), Json(refusal)).into_response()
        }
    }
}
