//! Talking to the server: every question is asked until it is answered, or the server wants this runner no more. What
//! the answers mean for a run is kept in its [`RunControl`]; the transport is behind [`RunnerLink`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pipelines::ids::RunId;
use pipelines::protocol::{LinkError, Report, RunnerLink, RunnerRequest, ServerReply};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pauses between two tries of a question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

/// Why the server wants this runner no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Dismissed {
    /// It does not know it any more: what it had is given to others, and nothing of it is left here.
    #[error("the server refuses this runner: {0}")]
    Revoked(String),
    /// They do not speak the same version. What it has is left as it is, for the one that is installed next.
    #[error("{0}")]
    Incompatible(String),
}

/// The server, asked until it answers.
#[derive(Debug)]
pub(crate) struct Server<L> {
    link: Arc<L>,
    patience: Patience,
    dismissed: Arc<Mutex<Option<Dismissed>>>,
    /// Ends when the server wants this runner no more.
    pub(crate) end: CancellationToken,
}

impl<L> Clone for Server<L> {
    fn clone(&self) -> Self {
        Self {
            link: self.link.clone(),
            patience: self.patience,
            dismissed: self.dismissed.clone(),
            end: self.end.clone(),
        }
    }
}

impl<L: RunnerLink> Server<L> {
    pub(crate) fn new(link: L, patience: Patience) -> Self {
        Self { link: Arc::new(link), patience, dismissed: Arc::default(), end: CancellationToken::new() }
    }

    /// Why the server wants this runner no more, if that is so.
    pub(crate) fn dismissed(&self) -> Option<Dismissed> {
        self.dismissed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn dismiss(&self, why: Dismissed) {
        self.dismissed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.end.cancel();
    }

    /// Asks until there is an answer. Drop the future to give up.
    pub(crate) async fn ask(&self, request: RunnerRequest) -> ServerReply {
        self.ask_at(request).await.0
    }

    /// As [`Server::ask`]; says when the question was sent that was answered.
    async fn ask_at(&self, request: RunnerRequest) -> (ServerReply, Instant) {
        let mut pause = self.patience.min;
        loop {
            let sent = Instant::now();
            match self.link.call(request.clone()).await {
                Ok(reply) => return (reply, sent),
                Err(LinkError::NoAnswer(error)) => {
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "the server does not answer");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.patience.max);
                }
                Err(LinkError::Revoked(why)) => {
                    self.dismiss(Dismissed::Revoked(why));
                    return (ServerReply::NotYours, sent);
                }
                Err(LinkError::Incompatible(why)) => {
                    self.dismiss(Dismissed::Incompatible(why));
                    // The agent leaves everything as it is now, and drops this future with the rest.
                    std::future::pending::<()>().await;
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

/// Of the time after which the server gives a run away, the part after which a runner that has heard nothing no longer
/// takes it for its own. The rest is for what is under way.
const SURE_PART: (u32, u32) = (3, 4);

/// The server as far as one run is concerned.
#[derive(Debug)]
pub(crate) struct RunLink<L> {
    pub(crate) server: Server<L>,
    pub(crate) run: RunId,
    pub(crate) attempt: u32,
    pub(crate) control: RunControl,
    /// How long after an answer the run is surely ours.
    sure_for: Duration,
    /// When the last question was sent that was answered.
    answered: Arc<Mutex<Instant>>,
}

impl<L> Clone for RunLink<L> {
    fn clone(&self) -> Self {
        Self {
            server: self.server.clone(),
            run: self.run.clone(),
            attempt: self.attempt,
            control: self.control.clone(),
            sure_for: self.sure_for,
            answered: self.answered.clone(),
        }
    }
}

impl<L: RunnerLink> RunLink<L> {
    pub(crate) fn new(server: Server<L>, run: RunId, attempt: u32, lease: Duration) -> Self {
        let sure_for = lease * SURE_PART.0 / SURE_PART.1;
        let answered = Arc::new(Mutex::new(Instant::now()));
        Self { server, run, attempt, control: RunControl::new(), sure_for, answered }
    }

    /// Asks, and heeds the answer.
    pub(crate) async fn ask(&self, request: RunnerRequest) -> ServerReply {
        let (reply, sent) = self.server.ask_at(request).await;
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        *answered = sent.max(*answered);
        drop(answered);
        self.control.heed(&reply);
        reply
    }

    /// Tells the server; the logs that the report rests on were acknowledged before.
    pub(crate) async fn report(&self, report: Report) {
        self.ask(RunnerRequest::Report { run: self.run.clone(), attempt: self.attempt, report }).await;
    }

    /// Waits until the server says that the run is (not) ours, however long that takes.
    pub(crate) async fn confirm(&self) {
        self.ask(RunnerRequest::Heartbeat { run: self.run.clone(), attempt: self.attempt }).await;
    }

    /// Waits until so much time has passed since the last answer that the server may give the run to somebody else.
    pub(crate) async fn unsure(&self) {
        loop {
            let until = self.sure_until();
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn sure_until(&self) -> Instant {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) + self.sure_for
    }

    /// Asks at intervals whether to go on, until the run is not ours any more.
    pub(crate) async fn heartbeat(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.confirm().await;
            if self.control.lost.is_cancelled() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers until it is cut off.
    #[derive(Debug)]
    struct Cut(Arc<Mutex<Result<ServerReply, LinkError>>>);

    impl RunnerLink for Cut {
        async fn call(&self, _: RunnerRequest) -> Result<ServerReply, LinkError> {
            self.0.lock().expect("no panic").clone()
        }
    }

    /// How long the server lets a runner keep a run without a word.
    const LEASE_MS: u64 = 600;

    fn link() -> (RunLink<Cut>, Arc<Mutex<Result<ServerReply, LinkError>>>) {
        let answer = Arc::new(Mutex::new(Ok(ServerReply::Continue)));
        let patience = Patience { min: Duration::from_millis(100), max: Duration::from_secs(1) };
        let server = Server::new(Cut(answer.clone()), patience);
        (RunLink::new(server, "shop/1".parse().expect("an id"), 1, Duration::from_millis(LEASE_MS)), answer)
    }

    #[tokio::test]
    async fn a_run_is_unsure_before_the_server_may_give_it_away_and_sure_again_after_an_answer() {
        let (link, answer) = link();
        let asked = Instant::now();
        link.confirm().await;
        let (sure, heard) = (link.sure_until(), Instant::now());
        let part = |of: u64| Duration::from_millis(LEASE_MS * of / 100);
        assert!(asked + part(70) < sure && sure < heard + part(90), "{:?} after the question", sure - asked);
        link.unsure().await;
        assert!(Instant::now() >= sure, "it was unsure too early");
        *answer.lock().expect("no panic") = Err(LinkError::NoAnswer("cut".to_owned()));
        tokio::time::timeout(Duration::from_millis(100), link.confirm()).await.expect_err("nobody answers");
        let now = tokio::time::timeout(Duration::from_millis(10), link.unsure()).await;
        now.expect("a try without an answer counts nothing");
    }

    #[tokio::test]
    async fn a_runner_that_is_wanted_no_more_drops_its_runs_and_one_of_another_version_keeps_them() {
        let (revoked, answer) = link();
        *answer.lock().expect("no panic") = Err(LinkError::Revoked("removed".to_owned()));
        revoked.confirm().await;
        assert!(revoked.control.lost.is_cancelled() && revoked.server.end.is_cancelled());
        assert_eq!(revoked.server.dismissed(), Some(Dismissed::Revoked("removed".to_owned())));

        let (other, answer) = link();
        *answer.lock().expect("no panic") = Err(LinkError::Incompatible("upgrade".to_owned()));
        tokio::time::timeout(Duration::from_millis(100), other.confirm()).await.expect_err("no answer");
        assert!(!other.control.lost.is_cancelled() && other.server.end.is_cancelled());
    }
}
