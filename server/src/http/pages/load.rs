//! What waits on the server, and how much may.

use axum::response::Response;

use super::{Visit, show};
use crate::{
    app::load::{Over, Queue, QueueKind},
    http::{
        problem::Problem,
        ui::load::{Bounded, LoadRow, LoadView, OfService},
    },
};

/// The page.
pub(in crate::http) async fn show_load(visit: Visit) -> Result<Response, Problem> {
    let rows = visit.app.queues().into_iter().map(row).collect();
    Ok(show!(visit, LoadView { rows }))
}

fn row(queue: Queue) -> LoadRow {
    LoadRow {
        what: match queue.kind {
            QueueKind::Connections => Bounded::Connections,
            QueueKind::Streams => Bounded::Streams,
            QueueKind::HookBytes => Bounded::HookBytes,
            QueueKind::Hooks => Bounded::Hooks,
            QueueKind::Runs => Bounded::Runs,
            QueueKind::Effects => Bounded::Effects,
            QueueKind::Performing => Bounded::Performing,
            QueueKind::Mails => Bounded::Mails,
            QueueKind::StoreChanges => Bounded::StoreChanges,
            QueueKind::LogBytes => Bounded::LogBytes,
            QueueKind::GatewayConnections => Bounded::GatewayConnections,
            QueueKind::Traces => Bounded::Traces,
        },
        length: queue.length,
        bound: queue.bound,
        is_bytes: queue.kind.is_bytes(),
        refused: (queue.kind.over() == Over::Refused).then_some(queue.refused),
        key: queue.kind.key(),
        of_service: queue.of_service.map(|of| OfService {
            bound: of.bound,
            key: of.key,
            fullest: of.fullest.map(|(name, length)| (name.to_string(), length)),
        }),
    }
}
