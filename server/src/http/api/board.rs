//! The board: all services at one glance, and one of them with why it is not live yet; and what still has to be done.

use std::sync::Arc;

use axum::extract::State;

use super::{
    Reply, convert,
    model::{self, Answer, List},
    reply,
};
use crate::{
    app::{App, board::Group},
    http::{
        access::Signed,
        extract::{Ask, OfService},
    },
};

/// Which rows.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BoardQuery {
    /// Only what waits for the caller.
    pub needs_you: bool,
}

/// All services at one glance: what waits for the caller first, then what fails, moves, and rests.
#[utoipa::path(get, path = "/api/v1/board", tag = "board", params(BoardQuery),
    responses((status = 200, body = Answer<List<model::BoardRow>>, description = "a row for each service")))]
pub async fn show_board(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Ask(query): Ask<BoardQuery>,
) -> Reply<List<model::BoardRow>> {
    let mut rows = app.board()?;
    rows.retain(|row| !query.needs_you || row.group(Some(&caller)) == Group::NeedsYou);
    rows.sort_by_key(|row| row.group(Some(&caller)));
    let items = rows.iter().map(|row| convert::board_row(&app, row, &caller)).collect::<Result<_, _>>()?;
    reply(List::all(items))
}

/// One service at one glance, with why it is not live yet.
#[utoipa::path(get, path = "/api/v1/services/{service}/status", tag = "board", params(("service" = String, Path)),
    responses((status = 200, body = Answer<model::BoardRow>, description = "its row")))]
pub async fn show_status(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfService(name): OfService,
) -> Reply<model::BoardRow> {
    reply(convert::board_row(&app, &app.service_row(&name)?, &caller)?)
}
