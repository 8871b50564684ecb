//! The live events of a run's page: its lines as they come, painted, and that its state has changed. One stream for all
//! steps; its ids say how many lines of each log were sent, so that a page that was away goes on where it was. Not here:
//! looking at the run, and painting (`follow`).

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use jiff::tz::TimeZone;
use pipelines::{ids::RunId, run::RunState};
use serde::Deserialize;
use tokio::sync::watch;

use super::follow::{Follows, PIECE_LINES, PieceKey, Seen, SeenLog};
use crate::{
    app::{App, AppError},
    http::{
        events::{KEEP_ALIVE, Room},
        extract::OfRun,
        pages::{convert::page_ms, visit::language},
        problem::Problem,
        ui::{
            ansi::Painter,
            links,
            log::gap,
            text::{Clock, Lang, Text},
        },
    },
};

/// Steps that a position names at most.
const STEPS_MAX: usize = 1_000;
/// A page that is too far behind goes on so many lines before the end.
const TAIL_LINES: u64 = 1_000;
/// A comment, so that nothing on the way cuts the stream and the other end knows us alive.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Where a page goes on.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct StreamQuery {
    from: Option<String>,
    last_event_id: Option<String>,
}

/// How many lines of each log a page has: `3,29,8,120`.
pub(super) fn positions(lines: impl Iterator<Item = u64>) -> String {
    lines.map(|lines| lines.to_string()).collect::<Vec<_>>().join(",")
}

fn read_positions(text: &str) -> Vec<u64> {
    text.split(',').take(STEPS_MAX).map_while(|lines| lines.parse().ok()).collect()
}

/// The stream.
pub(in crate::http) async fn stream_run(
    State(app): State<Arc<App>>,
    Extension(follows): Extension<Arc<Follows>>,
    OfRun(id): OfRun,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.run(&id)?;
    let room = Room::take(&app)?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let from = last.or(query.last_event_id.as_deref()).or(query.from.as_deref()).unwrap_or_default();
    let viewer = Viewer {
        run: follows.run(&app, &id),
        lang: language(&headers),
        clock: Clock { now_ms: page_ms(app.now()), zone: TimeZone::system() },
        app,
        follows,
        id,
        room,
        sent: read_positions(from),
        painters: HashMap::new(),
        known: None,
        is_over: false,
    };
    let events = stream::unfold(viewer, Viewer::next);
    let pieces = futures_util::StreamExt::flat_map(events, |pieces| {
        stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would keep the events until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One page that follows a run. It is asked for the next event when the one before was taken, so a slow one holds one.
struct Viewer {
    app: Arc<App>,
    follows: Arc<Follows>,
    id: RunId,
    lang: Lang,
    clock: Clock,
    room: Room,
    run: watch::Receiver<Option<Arc<Seen>>>,
    /// Lines sent of each log, in the order in which the logs began.
    sent: Vec<u64>,
    painters: HashMap<usize, Painter>,
    known: Option<(RunState, usize)>,
    is_over: bool,
}

impl Viewer {
    async fn next(mut self) -> Option<(Vec<Bytes>, Self)> {
        while !self.is_over {
            let seen = self.run.borrow_and_update().clone();
            if let Some(seen) = seen {
                match self.tell(&seen).await {
                    Ok(Some(event)) => return Some((event, self)),
                    Ok(None) => {}
                    Err(error) => {
                        // The page connects again and gets the error as an answer.
                        tracing::warn!(run = %self.id, %error, "a stream of lines ended early");
                        return None;
                    }
                }
            }
            let changed = tokio::time::timeout(KEEP_ALIVE, self.run.changed());
            match self.room.within(changed).await? {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => return Some((vec![COMMENT], self)),
            }
        }
        None
    }

    /// The next event that the page does not know; none: it knows all.
    async fn tell(&mut self, seen: &Seen) -> Result<Option<Vec<Bytes>>, AppError> {
        for (order, log) in seen.logs.iter().enumerate() {
            if self.sent.len() <= order {
                self.sent.resize(order + 1, 0);
            }
            if self.sent[order] < log.lines {
                return self.lines(order, log).await.map(Some);
            }
        }
        let now = (seen.state.clone(), seen.steps);
        let before = self.known.replace(now.clone());
        if before.is_some_and(|before| before != now) {
            return Ok(Some(self.event("changed", &self.topic())));
        }
        if seen.is_over {
            self.is_over = true;
            return Ok(Some(self.event("end", &self.topic())));
        }
        Ok(None)
    }

    /// The next lines of a log; of a page that is too far behind, a word about how many it is not sent.
    async fn lines(&mut self, order: usize, log: &SeenLog) -> Result<Vec<Bytes>, AppError> {
        let from = self.sent[order];
        if log.lines - from > self.app.config.bounds.log_behind_lines_max {
            let next = (log.lines.saturating_sub(TAIL_LINES) / PIECE_LINES * PIECE_LINES).max(from);
            self.sent[order] = next;
            self.painters.remove(&order);
            let window = links::run_window(self.id.service.as_str(), u64::from(self.id.number), &log.step, from + 1);
            return Ok(self
                .event("line", &gap(log.index, next - from, &window, &Text::new(self.lang, &self.clock)).to_string()));
        }
        // Pieces end at the same lines for everybody, so that they are shared.
        let to = ((from / PIECE_LINES + 1) * PIECE_LINES).min(log.lines);
        let painter = self.painters.remove(&order).unwrap_or_default();
        let (run, step, index) = (self.id.clone(), log.step.clone(), log.index);
        let piece = self.follows.piece(&self.app, PieceKey { run, step, index, from, to, painter }).await?;
        // A log that has fewer lines than it said is gone.
        self.sent[order] = if piece.next > from { piece.next } else { log.lines };
        self.painters.insert(order, piece.painter.clone());
        Ok(vec![self.head("line"), piece.data.clone()])
    }

    fn topic(&self) -> String {
        format!("run:{}:{}", self.id.service, self.id.number)
    }

    fn head(&self, kind: &str) -> Bytes {
        format!("event: {kind}\nid: {}\n", positions(self.sent.iter().copied())).into()
    }

    /// A small event.
    fn event(&self, kind: &str, data: &str) -> Vec<Bytes> {
        vec![self.head(kind), format!("data: {data}\n\n").into()]
    }
}
#[cfg(test)]
mod tests;
