//! The live events of a run's page: its lines as they come, painted, and that its state has changed. One stream for all
//! steps; its ids say how many lines of each log were sent, so that a page that was away goes on where it was.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use pipelines::{ids::RunId, run::RunState};
use serde::Deserialize;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::log::index_of;
use crate::{
    app::{App, AppError, Changed},
    http::{
        extract::OfRun,
        problem::Problem,
        ui::{ansi::Painter, log::LogLine},
    },
};

/// Lines in one event.
const LINES_PER_EVENT: usize = 200;
/// Events that wait for a slow page; then the stream waits too.
const EVENTS_WAITING: usize = 8;
/// Steps that a position names at most.
const STEPS_MAX: usize = 1_000;
/// Silence after which a comment is sent, so that nothing on the way cuts the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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
    OfRun(id): OfRun,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.run(&id)?;
    let room = app.stream_room().ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "too many pages are being followed just now")
    })?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let from = last.or(query.last_event_id.as_deref()).or(query.from.as_deref()).unwrap_or_default();
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
    let mut follower = Follower { app, id, sent: read_positions(from), painters: HashMap::new(), sender };
    tokio::spawn(async move {
        let _room = room;
        if let Err(error) = follower.follow().await {
            tracing::warn!(run = %follower.id, %error, "a stream of lines ended early");
        }
    });
    let events = ReceiverStream::new(receiver).map(Ok::<Event, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

struct Follower {
    app: Arc<App>,
    id: RunId,
    /// Lines sent of each log, in the order in which the logs began.
    sent: Vec<u64>,
    painters: HashMap<String, Painter>,
    sender: mpsc::Sender<Event>,
}

/// Nobody listens any more.
struct Gone;

impl Follower {
    async fn follow(&mut self) -> Result<(), AppError> {
        // Before the first look: what comes in between is not missed.
        let mut changes = self.app.changes();
        let mut known: Option<(RunState, usize)> = None;
        loop {
            let run = self.app.run(&self.id)?;
            let done = run.steps.iter().filter(|step| step.started_at.is_some()).count()
                + run.steps.iter().filter(|step| step.finished_at.is_some()).count();
            let is_over = run.state.is_final();
            if self.send_lines(&run).await?.is_err() {
                return Ok(());
            }
            let now = Some((run.state, done));
            if known.is_some() && known != now && self.send("changed", self.topic()).await.is_err() {
                return Ok(());
            }
            known = now;
            if is_over {
                let _ = self.send("end", self.topic()).await;
                return Ok(());
            }
            if self.wait(&mut changes).await.is_err() {
                return Ok(());
            }
        }
    }

    fn topic(&self) -> String {
        format!("run:{}:{}", self.id.service, self.id.number)
    }

    async fn wait(&self, changes: &mut tokio::sync::broadcast::Receiver<Changed>) -> Result<(), Gone> {
        let wanted = [format!("run/{}", self.id.number), format!("log/{}", self.id.number)];
        loop {
            tokio::select! {
                () = self.sender.closed() => return Err(Gone),
                changed = changes.recv() => match changed {
                    Ok(changed) if changed.service == self.id.service && wanted.contains(&changed.what) => return Ok(()),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return Ok(()),
                    Err(RecvError::Closed) => return Err(Gone),
                },
            }
        }
    }

    /// Sends all lines that are there and were not sent.
    async fn send_lines(&mut self, run: &pipelines::run::Run) -> Result<Result<(), Gone>, AppError> {
        let logs = self.app.log_steps(&self.id).await?;
        for (order, log) in logs.iter().enumerate() {
            if self.sent.len() <= order {
                self.sent.resize(order + 1, 0);
            }
            let step = index_of(run, &logs, &log.step);
            while self.sent[order] < log.length.lines {
                let (lines, _) = self.app.log_read(&self.id, &log.step, self.sent[order], LINES_PER_EVENT).await?;
                let Some(last) = lines.last().map(|line| line.number) else { break };
                let painter = self.painters.entry(log.step.clone()).or_default();
                let html: String = lines
                    .iter()
                    // Whether a line tells of an error is asked when the step has failed.
                    .map(|line| {
                        LogLine::new(line.number + 1, &line.line.text, false, painter).element(step).to_string()
                    })
                    .collect();
                self.sent[order] = last + 1;
                if self.send("line", html).await.is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        Ok(Ok(()))
    }

    async fn send(&self, kind: &str, data: String) -> Result<(), Gone> {
        let data = data.replace(['\r', '\n'], " ");
        let event = Event::default().event(kind).id(positions(self.sent.iter().copied())).data(data);
        self.sender.send(event).await.map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back_and_nonsense_begins_anew() {
        assert_eq!(read_positions(&positions([3, 29, 0].into_iter())), [3, 29, 0]);
        assert_eq!(read_positions("3,x,4"), [3]);
        assert_eq!(read_positions(""), Vec::<u64>::new());
    }

    #[test]
    fn fuzz_last_event_id() {
        let words = ["18446744073709551616", ",", "-1", "+1", " 1"];
        fuzz::feed("last-event-id", &[b"3,29,8,120", b"0"], &words, |bytes| {
            let read = read_positions(&String::from_utf8_lossy(bytes));
            if read.len() > STEPS_MAX || read_positions(&positions(read.iter().copied())) != read {
                return Err("it reads back as something else".into());
            }
            Ok(format!("{}", read.len().min(9)))
        });
    }
}
