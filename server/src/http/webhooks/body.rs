//! The body of a hook: read piece by piece within its bounds of bytes and time, and within the bytes that all hooks together
//! may take while they come.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody},
    http::StatusCode,
};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::{app::App, http::problem::Problem};

/// A body that was read, and its place among those that are in memory.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLarge,
    Broken,
    Slow,
    /// The server has too much of others in memory.
    Full,
}

impl Unread {
    /// What the sender is told.
    pub(super) fn problem(self, app: &App) -> Problem {
        let bounds = &app.config.bounds;
        match self {
            Self::TooLarge => {
                let detail = format!("the hook's body is larger than {} bytes", bounds.hook_body_bytes_max);
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
            }
            Self::Broken => Problem::new(StatusCode::BAD_REQUEST, "broken-off", "the hook's body broke off"),
            Self::Slow => {
                let detail = format!("the hook's body took longer than {} ms to come", bounds.hook_body_ms);
                Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail)
            }
            Self::Full => {
                let detail = "as many bytes of hooks are being received as the server's configuration allows";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-much-waiting", detail)
                    .next("try again later; what was pushed meanwhile is found by polling")
            }
        }
    }
}

/// Reads a body whole.
pub(super) async fn read(app: &App, body: Body) -> Result<Held, Unread> {
    let max = app.config.bounds.hook_body_bytes_max;
    // What says that it is too large is not kept at all.
    if body.size_hint().lower() > max as u64 {
        return Err(Unread::TooLarge);
    }
    let time = Duration::from_millis(app.config.bounds.hook_body_ms);
    tokio::time::timeout(time, collect(app, body, max)).await.map_err(|_| Unread::Slow)?
}

async fn collect(app: &App, mut body: Body, max: usize) -> Result<Held, Unread> {
    let (mut pieces, mut bytes): (Vec<Bytes>, usize) = (Vec::new(), 0);
    let mut room: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        bytes += piece.len();
        if bytes > max {
            return Err(Unread::TooLarge);
        }
        let more = app.load().hook_bytes(piece.len()).ok_or(Unread::Full)?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        pieces.push(piece);
    }
    let bytes = if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() };
    Ok(Held { bytes, _room: room })
}
