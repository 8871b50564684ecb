//! Talking to the server: every question is asked until it is answered. What the answers mean for a run is kept in its
//! [`RunControl`]; the transport is behind [`RunnerLink`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pipelines::ids::RunId;
use pipelines::protocol::{Report, RunnerLink, RunnerRequest, ServerReply};
use tokio_util::sync::CancellationToken;

/// Pauses between two tries of a question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

/// The server, asked until it answers.
#[derive(Debug)]
pub(crate) struct Server<L> {
    link: Arc<L>,
    patience: Patience,
}

impl<L> Clone for Server<L> {
    fn clone(&self) -> Self {
        Self { link: self.link.clone(), patience: self.patience }
    }
}

impl<L: RunnerLink> Server<L> {
    pub(crate) fn new(link: L, patience: Patience) -> Self {
        Self { link: Arc::new(link), patience }
    }

    /// Asks until there is an answer. Drop the future to give up.
    pub(crate) async fn ask(&self, request: RunnerRequest) -> ServerReply {
        let mut pause = self.patience.min;
        loop {
            match self.link.call(request.clone()).await {
                Ok(reply) => return reply,
                Err(error) => {
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "the server does not answer");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.patience.max);
                }
            }
        }
    }
}

/// Why the work on a run is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// A person stopped it.
    Cancelled(String),
    /// Its time is over.
    TimedOut,
}

/// What the server and the clock say about a run while it is worked on.
#[derive(Debug, Clone)]
pub(crate) struct RunControl {
    /// Stop the work, keep the logs flowing and report the end.
    pub(crate) stop: CancellationToken,
    /// The run is not ours any more: drop everything.
    pub(crate) lost: CancellationToken,
    reason: Arc<Mutex<Option<StopReason>>>,
}

impl RunControl {
    pub(crate) fn new() -> Self {
        Self { stop: CancellationToken::new(), lost: CancellationToken::new(), reason: Arc::default() }
    }

    /// Stops the work; the first reason counts.
    pub(crate) fn stop(&self, why: StopReason) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.stop.cancel();
    }

    pub(crate) fn reason(&self) -> Option<StopReason> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what an answer says about the run as a whole.
    pub(crate) fn heed(&self, reply: &ServerReply) {
        match reply {
            ServerReply::Cancel { reason } => self.stop(StopReason::Cancelled(reason.clone())),
            ServerReply::NotYours => {
                self.lost.cancel();
                self.stop.cancel();
            }
            _ => {}
        }
    }
}

/// The server as far as one run is concerned.
#[derive(Debug)]
pub(crate) struct RunLink<L> {
    pub(crate) server: Server<L>,
    pub(crate) run: RunId,
    pub(crate) control: RunControl,
}

impl<L> Clone for RunLink<L> {
    fn clone(&self) -> Self {
        Self { server: self.server.clone(), run: self.run.clone(), control: self.control.clone() }
    }
}

impl<L: RunnerLink> RunLink<L> {
    /// Asks, and heeds the answer.
    pub(crate) async fn ask(&self, request: RunnerRequest) -> ServerReply {
        let reply = self.server.ask(request).await;
        self.control.heed(&reply);
        reply
    }

    /// Tells the server; the logs that the report rests on were acknowledged before.
    pub(crate) async fn report(&self, report: Report) {
        self.ask(RunnerRequest::Report { run: self.run.clone(), report }).await;
    }

    /// Asks at intervals whether to go on, until the run is not ours any more.
    pub(crate) async fn heartbeat(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.ask(RunnerRequest::Heartbeat { run: self.run.clone() }).await;
            if self.control.lost.is_cancelled() {
                return;
            }
        }
    }
}
