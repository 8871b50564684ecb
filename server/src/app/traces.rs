//! What is to be told in traces: one trace for the life of each run and its release, from the hook to live. What is noted
//! here is only of which runs something is to be told, and since when; the spans are made from the records and the journal
//! when somebody is there to take them ([`life`]). So nothing of a trace is kept, a restart loses none of it, and a receiver
//! that is away costs one note per run. Not here: the sending (`driver::traces`).

mod again;
mod ids;
mod life;
mod span;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pipelines::{
    ids::{ReleaseId, RolloutId, RunId, ServiceName},
    time::UnixMs,
    train::Change,
};
use tokio::sync::Notify;

pub use ids::{SpanId, TraceId};
pub use span::{Kind, Link, Span, Value};

use super::{App, AppError};
use crate::config::TracingSettings;

/// Mails of one run that wait to be told; of more, the others are told.
const MAILS_MAX: usize = 200;

/// Of which runs something is to be told.
#[derive(Debug)]
pub struct Traces {
    is_on: bool,
    max: usize,
    noted: Mutex<Noted>,
    changed: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Noted {
    order: VecDeque<RunId>,
    runs: HashMap<RunId, News>,
}

/// What is to be told of one run: what became known since a moment, and mails that went out, of which no record says when.
#[derive(Clone, Debug, Default)]
pub struct News {
    since: UnixMs,
    mails: Vec<Mail>,
}

#[derive(Clone, Debug)]
struct Mail {
    kind: &'static str,
    id: String,
    began: UnixMs,
    ended: UnixMs,
}

impl Traces {
    pub(super) fn new(settings: &TracingSettings) -> Self {
        Self {
            is_on: settings.otlp_endpoint.is_some(),
            max: settings.queue_runs_max,
            noted: Mutex::default(),
            changed: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether anybody takes them.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Runs of which something waits to be told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.noted().runs.len()
    }

    /// How often something was not noted because of as many runs as may something waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until something is to be told.
    pub async fn noted_something(&self) {
        loop {
            // First the ear, then the look: what comes in between is heard.
            let changed = self.changed.notified();
            if self.waiting() > 0 {
                return;
            }
            changed.await;
        }
    }

    /// Takes what waits longest, of so many runs at most.
    #[must_use]
    pub fn take(&self, max: usize) -> Vec<(RunId, News)> {
        let mut noted = self.noted();
        let number = max.min(noted.order.len());
        let first: Vec<RunId> = noted.order.drain(..number).collect();
        first.into_iter().filter_map(|run| noted.runs.remove_entry(&run)).collect()
    }

    /// The runs whose state these changes touch, or that of their release or its rollout: where there is a line for the
    /// journal, there is something to tell.
    pub(super) fn touched(&self, service: &ServiceName, changes: &[Change]) -> Vec<RunId> {
        if !self.is_on {
            return Vec::new();
        }
        let mut numbers = BTreeSet::new();
        for change in changes.iter().filter(|change| !change.notes.is_empty()) {
            numbers.extend(change.runs.keys().chain(change.releases.keys()).chain(change.approvals.keys()));
            numbers.extend(change.rollouts.values().map(|rollout| rollout.release.number));
        }
        numbers.into_iter().map(|number| RunId::new(service.clone(), number)).collect()
    }

    /// Something happened to these runs at this moment. Never waits.
    pub(super) fn note(&self, runs: Vec<RunId>, at: UnixMs) {
        for run in runs {
            self.note_one(run, |news, is_new| {
                if is_new {
                    news.since = at;
                }
                news.since = news.since.min(at);
            });
        }
    }

    fn note_one(&self, run: RunId, tell: impl FnOnce(&mut News, bool)) {
        let mut noted = self.noted();
        if let Some(news) = noted.runs.get_mut(&run) {
            tell(news, false);
            return;
        }
        if noted.runs.len() >= self.max {
            drop(noted);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut news = News::default();
        tell(&mut news, true);
        noted.order.push_back(run.clone());
        noted.runs.insert(run, news);
        drop(noted);
        self.changed.notify_waiters();
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// A mail about a release was taken by the mail server; `id` is its Message-ID.
    pub fn trace_mail(&self, release: &ReleaseId, kind: &'static str, id: &str, began: UnixMs) {
        if !self.traces.is_on {
            return;
        }
        let now = self.now();
        let mail = Mail { kind, id: id.to_owned(), began, ended: now };
        self.traces.note_one(release.run(), |news, is_new| {
            if is_new {
                // Of the records nothing new is to be told.
                news.since = now.plus_ms(1);
            }
            if news.mails.len() < MAILS_MAX {
                news.mails.push(mail);
            }
        });
    }

    /// The spans of a run and its release that are to be told: those that became known since the news began. Reads records
    /// and journal, for up to `tracing.journal_lines_max` lines, so not on a thread that others wait for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn trace_spans(&self, id: &RunId, news: &News) -> Result<Vec<Span>, AppError> {
        let Some(run) = self.store.run(id)? else { return Ok(Vec::new()) };
        let release = self.store.release(&id.release())?;
        let rollouts = match &release {
            Some(_) => self.rollouts_of(id)?,
            None => Vec::new(),
        };
        let moves = self.moves_of(&run)?;
        let service = self.store.service(&id.service)?;
        let life = life::Life {
            instance: &self.instance,
            public_url: &self.config.public_url,
            repository: service.as_ref().map(|service| service.repository_url.as_str()),
            run: &run,
            release: release.as_ref(),
            rollouts: &rollouts,
            moves: &moves,
        };
        let mut spans = life.spans();
        spans.retain(|span| span.known_at >= news.since);
        spans.extend(news.mails.iter().map(|mail| life.mail(mail)));
        Ok(spans)
    }

    /// The rollouts of a run's release, oldest first. Those before its run cannot be its.
    fn rollouts_of(&self, id: &RunId) -> Result<Vec<pipelines::rollout::Rollout>, AppError> {
        let Some(train) = self.store.train(&id.service)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for number in (1..=train.last_rollout).rev().take(life::ROLLOUTS_SEEN_MAX) {
            let Some(rollout) = self.store.rollout(&RolloutId::new(id.service.clone(), number))? else { continue };
            let is_older = rollout.cause == pipelines::rollout::Cause::Promotion && rollout.release.number < id.number;
            if rollout.release.number == id.number {
                found.push(rollout);
            } else if is_older {
                break;
            }
        }
        found.reverse();
        Ok(found)
    }
}
