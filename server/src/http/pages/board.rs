//! The releases board, and what waits for the person who is signed in.

use axum::response::Response;
use serde::Deserialize;

use super::{Visit, convert::board_row, show};
use crate::{
    app::{App, Role, board::Group as WaitingGroup},
    http::{
        extract::Ask,
        problem::Problem,
        ui::{
            board::{BoardView, Finding, FindingState, FirstSteps, Group, NeedsYouView},
            services::ServiceForm,
        },
    },
};

/// What the board is asked with.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct BoardQuery {
    /// Only this group.
    group: Option<String>,
}

/// The board; on a server without a service the first steps.
pub(in crate::http) async fn show_board(mut visit: Visit, Ask(query): Ask<BoardQuery>) -> Result<Response, Problem> {
    let rows = visit.take_board()?;
    let first = (rows.is_empty() && visit.may(Role::Operator))
        .then(|| FirstSteps { form: ServiceForm::empty(), server: findings(&visit.app) });
    let view = BoardView {
        rows: rows.iter().map(|row| board_row(row, visit.caller.as_ref(), visit.ctx.clock.now_ms)).collect(),
        only: query.group.and_then(|asked| Group::ALL.into_iter().find(|group| group.id() == asked)),
        first,
    };
    Ok(show!(visit, view))
}

/// What waits for the person who is signed in.
pub(in crate::http) async fn show_needs_you(mut visit: Visit) -> Result<Response, Problem> {
    let mut rows = visit.take_board()?;
    let caller = visit.caller()?;
    rows.retain(|row| row.group(Some(caller)) == WaitingGroup::NeedsYou);
    let rows = rows.iter().map(|row| board_row(row, Some(caller), visit.ctx.clock.now_ms)).collect();
    Ok(show!(visit, NeedsYouView { rows }))
}

/// What the server knows of its own surroundings without asking anybody.
fn findings(app: &App) -> Vec<Finding> {
    let finding = |name: &str, state, evidence: String| Finding { name: name.to_owned(), state, evidence };
    let config = &app.config;
    let is_https = config.public_url.starts_with("https://");
    let mut found = vec![
        finding("state", FindingState::Good, config.state_dir.display().to_string()),
        finding(
            "public_url",
            if is_https { FindingState::Good } else { FindingState::Warning },
            if is_https { config.public_url.clone() } else { format!("{}: not encrypted", config.public_url) },
        ),
    ];
    if let Some(folder) = &config.mail.folder {
        let evidence = format!("written to {}, sent to nobody", folder.display());
        found.push(finding("mail", FindingState::Warning, evidence));
    }
    found
}
