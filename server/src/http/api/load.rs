//! What waits on the server, how much may, and what was refused because as much waited.

use std::sync::Arc;

use axum::extract::State;

use super::{
    Reply, convert,
    model::{self, Answer, List},
    reply,
};
use crate::app::App;

/// Everything that is bounded, as it is now: connections, streams, hooks, runs, effects, changes of the store, bytes.
#[utoipa::path(get, path = "/api/v1/load", tag = "server",
    responses((status = 200, body = Answer<List<model::Queue>>, description = "each with its bound and what was refused")))]
pub async fn list_queues(State(app): State<Arc<App>>) -> Reply<List<model::Queue>> {
    reply(List::all(app.queues().into_iter().map(convert::queue).collect()))
}
