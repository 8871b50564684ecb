//! Following runs: who looks at a run for all that follow its page, and the painted lines that they share. A thousand viewers
//! of one log cost one look at its run and one painting of each line. Not here: what one viewer has (`stream`).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use pipelines::{
    ids::RunId,
    run::{Run, RunState},
};
use tokio::sync::{OnceCell, broadcast::error::RecvError, watch};

use super::log::index_of_name;
use crate::{
    app::{App, AppError, Changed},
    http::ui::{ansi::Painter, log::LogLine},
};

/// Lines in one piece of a log.
pub(super) const PIECE_LINES: u64 = 200;
/// Bytes of text after which a piece ends earlier.
const PIECE_BYTES: usize = 32 << 10;
/// What a piece takes beside its data.
const ENTRY_BYTES: usize = 512;
/// The pause between two looks at a run that prints without end: what comes in it is told at once.
const PAUSE: Duration = Duration::from_millis(50);

/// How a run is, for its viewers.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) state: RunState,
    /// Steps that have begun and steps that have ended.
    pub(super) steps: usize,
    pub(super) is_over: bool,
    /// The logs, in the order in which they began.
    pub(super) logs: Vec<SeenLog>,
}

/// How far a step's log is.
#[derive(Debug)]
pub(super) struct SeenLog {
    pub(super) step: String,
    /// Its step's index in the page.
    pub(super) index: usize,
    pub(super) lines: u64,
}

type Look = Option<Arc<Seen>>;

/// Lines of a log, painted: shared by all who see them.
#[derive(Debug)]
pub(super) struct Piece {
    /// As the data of an event.
    pub(super) data: Bytes,
    /// The line after it, from 0.
    pub(super) next: u64,
    /// The colours that it leaves on.
    pub(super) painter: Painter,
}

/// Which lines, and the colours that are on before them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PieceKey {
    pub(super) run: RunId,
    pub(super) step: String,
    pub(super) index: usize,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) painter: Painter,
}

#[derive(Debug, Default)]
struct Pieces {
    by_key: HashMap<PieceKey, Arc<OnceCell<Arc<Piece>>>>,
    in_order: VecDeque<(PieceKey, usize)>,
    bytes: usize,
}

/// Everything that is followed.
#[derive(Debug, Default)]
pub(in crate::http) struct Follows {
    runs: Mutex<HashMap<RunId, watch::Sender<Look>>>,
    pieces: Mutex<Pieces>,
}

impl Follows {
    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, watch::Sender<Look>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the run is, now and whenever it changes. The first who asks has it looked at, for all who come later.
    pub(super) fn run(self: &Arc<Self>, app: &Arc<App>, id: &RunId) -> watch::Receiver<Look> {
        let mut runs = self.runs();
        if let Some(known) = runs.get(id) {
            return known.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        runs.insert(id.clone(), sender.clone());
        let (follows, app, id) = (Arc::clone(self), Arc::clone(app), id.clone());
        tokio::spawn(async move {
            if let Err(error) = follows.look(&app, &id, &sender).await {
                tracing::warn!(run = %id, %error, "the following of a run ended early");
                follows.runs().remove(&id);
            }
        });
        receiver
    }

    /// Looks at the run whenever something of it changes, until nobody follows it.
    async fn look(&self, app: &App, id: &RunId, viewers: &watch::Sender<Look>) -> Result<(), AppError> {
        // Before the first look: what comes in between is not missed.
        let mut changes = app.changes();
        let wanted = [format!("run/{}", id.number), format!("log/{}", id.number)];
        loop {
            let seen = seen(app, id).await?;
            let is_over = seen.is_over;
            viewers.send_replace(Some(Arc::new(seen)));
            let changed = async {
                loop {
                    match changes.recv().await {
                        Ok(Changed { service, what, .. }) if service != id.service || !wanted.contains(&what) => {}
                        Ok(_) | Err(RecvError::Lagged(_)) => return tokio::time::sleep(PAUSE).await,
                        Err(RecvError::Closed) => return std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = changed, if !is_over => {}
                () = viewers.closed() => {
                    let mut runs = self.runs();
                    // Nobody can come while the lock is held.
                    if viewers.receiver_count() == 0 {
                        runs.remove(id);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// A piece of a log, painted by the first who asks for it.
    pub(super) async fn piece(&self, app: &App, key: PieceKey) -> Result<Arc<Piece>, AppError> {
        let cell = Arc::clone(self.pieces().by_key.entry(key.clone()).or_default());
        let painted = cell
            .get_or_try_init(|| async {
                let piece = Arc::new(paint(app, &key).await?);
                self.keep(&key, piece.data.len() + ENTRY_BYTES, app.config.bounds.log_shared_bytes_max);
                Ok::<_, AppError>(piece)
            })
            .await;
        match painted {
            Ok(piece) => Ok(Arc::clone(piece)),
            Err(error) => {
                self.pieces().by_key.remove(&key);
                Err(error)
            }
        }
    }

    /// Notes a piece that was painted; the oldest make room. Who still sends one of those keeps it alive.
    fn keep(&self, key: &PieceKey, bytes: usize, bytes_max: usize) {
        let mut pieces = self.pieces();
        pieces.bytes += bytes;
        pieces.in_order.push_back((key.clone(), bytes));
        while pieces.bytes > bytes_max {
            let Some((oldest, bytes)) = pieces.in_order.pop_front() else { break };
            pieces.by_key.remove(&oldest);
            pieces.bytes -= bytes;
        }
    }

    /// How many runs are looked at, and how many bytes of pieces are kept.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.runs().len(), self.pieces().bytes)
    }
}

async fn seen(app: &App, id: &RunId) -> Result<Seen, AppError> {
    let run = app.run(id)?;
    let logs = app.log_lengths(id).await?;
    let begun = run.steps.iter().filter(|step| step.started_at.is_some()).count();
    let ended = run.steps.iter().filter(|step| step.finished_at.is_some()).count();
    let log = |order: usize, step: &String, lines: u64| SeenLog {
        step: step.clone(),
        index: index_of_name(&run, order, step),
        lines,
    };
    let logs = logs.iter().enumerate().map(|(order, (step, length))| log(order, step, length.lines)).collect();
    let Run { state, .. } = &run;
    Ok(Seen { state: state.clone(), steps: begun + ended, is_over: state.is_final(), logs })
}

async fn paint(app: &App, key: &PieceKey) -> Result<Piece, AppError> {
    let limit = usize::try_from(key.to.saturating_sub(key.from)).unwrap_or(usize::MAX);
    let lines = app.log_read_some(&key.run, &key.step, key.from, limit, PIECE_BYTES).await?;
    let mut painter = key.painter.clone();
    let mut data = String::from("data: ");
    for line in &lines {
        // Whether a line tells of an error is asked when the step has failed.
        let line = LogLine::new(line.number + 1, &line.line.text, false, &mut painter);
        data.push_str(&line.element(key.index).to_string());
    }
    let mut data = data.replace(['\r', '\n'], " ");
    data.push_str("\n\n");
    let next = lines.last().map_or(key.from, |line| line.number + 1);
    Ok(Piece { data: data.into(), next, painter })
}
