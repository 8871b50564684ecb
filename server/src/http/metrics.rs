//! `/metrics`, for Prometheus: on the server's own address to who may read, and, where one is set, on an address of its own to
//! whoever reaches that. Not here: what is counted (`app::metrics`).

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use super::problem::Problem;
use crate::app::{App, metrics::TEXT_TYPE};

/// Where it is served.
pub const PATH: &str = "/metrics";

/// Everything that is counted.
pub async fn show_metrics(State(app): State<Arc<App>>) -> Response {
    match app.metrics_text().await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_TYPE)], text).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// A router with nothing else, that asks nobody who they are.
pub fn alone(app: Arc<App>) -> Router {
    Router::new().route(PATH, get(show_metrics)).with_state(app)
}
