//! The group commit: one thread merges the batches that wait, flushes once, and answers each after the flush.
//! Knows no engine in particular; preconditions are decided here, so they mean the same on each.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::times::{CommitTimes, Times};
use super::{
    Backend, Batch, BatchesWaiting, Changes, Direction, Engine, EngineConfig, EngineError, KeyRange, Record, Table,
};

/// The answer to a submitted batch, to be awaited. Dropping it does not take the batch back.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<(), EngineError>>);

impl Future for Pending {
    type Output = Result<(), EngineError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(EngineError::Closed)))
    }
}

#[derive(Debug)]
enum Answer {
    Blocking(SyncSender<Result<(), EngineError>>),
    Awaited(oneshot::Sender<Result<(), EngineError>>),
}

impl Answer {
    fn give(self, result: Result<(), EngineError>) {
        // Whoever asked may have gone; the commit stands all the same.
        match self {
            Answer::Blocking(sender) => drop(sender.send(result)),
            Answer::Awaited(sender) => drop(sender.send(result)),
        }
    }
}

#[derive(Debug)]
struct Job {
    batch: Batch,
    answer: Answer,
}

/// An engine: a backend behind the group commit.
#[derive(Debug)]
pub(super) struct Grouped<B> {
    backend: Arc<B>,
    queue: Option<SyncSender<Job>>,
    committer: Option<JoinHandle<()>>,
    trouble: Arc<Mutex<Option<EngineError>>>,
    times: Arc<Times>,
    batch_bytes: usize,
    queue_batches: usize,
    waiting: Arc<AtomicUsize>,
    refused: AtomicU64,
}

impl<B: Backend> Grouped<B> {
    pub(super) fn start(backend: B, config: &EngineConfig) -> Result<Self, EngineError> {
        let backend = Arc::new(backend);
        let trouble = Arc::new(Mutex::new(None));
        let times = Arc::new(Times::default());
        let (queue, jobs) = sync_channel(config.queue_batches);
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut committer = Committer {
            backend: Arc::clone(&backend),
            jobs,
            carried: None,
            waiting: Arc::clone(&waiting),
            trouble: Arc::clone(&trouble),
            times: Arc::clone(&times),
            group_batches: config.group_batches,
            group_bytes: config.group_bytes,
        };
        let committer = std::thread::Builder::new().name("store-commit".into()).spawn(move || committer.run())?;
        Ok(Grouped {
            backend,
            queue: Some(queue),
            committer: Some(committer),
            trouble,
            times,
            batch_bytes: config.batch_bytes,
            queue_batches: config.queue_batches,
            waiting,
            refused: AtomicU64::new(0),
        })
    }

    fn accept(&self, batch: &Batch) -> Result<&SyncSender<Job>, EngineError> {
        if batch.size_bytes() > self.batch_bytes {
            return Err(EngineError::TooLarge { bytes: batch.size_bytes(), bound_bytes: self.batch_bytes });
        }
        self.queue.as_ref().ok_or(EngineError::Closed)
    }
}

impl<B> Drop for Grouped<B> {
    fn drop(&mut self) {
        // The thread ends when the queue is closed and empty: what waits is still written.
        self.queue = None;
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the thread that commits to the store had panicked");
        }
    }
}

impl<B: Backend> Engine for Grouped<B> {
    fn commit(&self, batch: &Batch) -> Result<(), EngineError> {
        let queue = self.accept(batch)?;
        let (sender, answer) = sync_channel(1);
        let job = Job { batch: batch.clone(), answer: Answer::Blocking(sender) };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        queue.send(job).map_err(|_| EngineError::Closed)?;
        answer.recv().unwrap_or(Err(EngineError::Closed))
    }

    fn submit(&self, batch: Batch) -> Result<Pending, EngineError> {
        let queue = self.accept(&batch)?;
        let (sender, answer) = oneshot::channel();
        // Counted first: the committer may take it out before this thread goes on.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let error = match queue.try_send(Job { batch, answer: Answer::Awaited(sender) }) {
            Ok(()) => return Ok(Pending(answer)),
            Err(TrySendError::Full(_)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                EngineError::Busy
            }
            Err(TrySendError::Disconnected(_)) => EngineError::Closed,
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Err(error)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.backend.get(&table.flat(key))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Record>, EngineError> {
        let Some(range) = range.in_table(table) else { return Ok(Vec::new()) };
        let mut records = self.backend.scan(range, direction, limit)?;
        for (key, _) in &mut records {
            key.remove(0);
        }
        Ok(records)
    }

    fn check(&self) -> Result<(), EngineError> {
        self.backend.check()
    }

    fn backup(&self, to: &Path) -> Result<(), EngineError> {
        self.backend.backup(to)
    }

    fn size_bytes(&self) -> Result<u64, EngineError> {
        self.backend.size_bytes()
    }

    fn trouble(&self) -> Option<EngineError> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn commit_times(&self) -> CommitTimes {
        self.times.read()
    }

    fn waiting(&self) -> BatchesWaiting {
        let waiting = self.waiting.load(Ordering::Relaxed);
        BatchesWaiting { waiting, max: self.queue_batches, refused: self.refused.load(Ordering::Relaxed) }
    }
}

struct Committer<B> {
    backend: Arc<B>,
    jobs: Receiver<Job>,
    /// A job that did not fit into the last group.
    carried: Option<Job>,
    waiting: Arc<AtomicUsize>,
    trouble: Arc<Mutex<Option<EngineError>>>,
    times: Arc<Times>,
    group_batches: usize,
    group_bytes: usize,
}

impl<B: Backend> Committer<B> {
    fn run(&mut self) {
        while let Some(first) = self.carried.take().or_else(|| self.jobs.recv().ok()) {
            let group = self.gather(first);
            self.commit(group);
        }
    }

    /// What waits right now, within the bounds of a group. Nothing is waited for: while one group is flushed, the
    /// next one gathers in the queue by itself.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let mut bytes = first.batch.size_bytes();
        let mut group = vec![first];
        while group.len() < self.group_batches {
            let Ok(job) = self.jobs.try_recv() else { break };
            bytes += job.batch.size_bytes();
            if bytes > self.group_bytes {
                self.carried = Some(job);
                break;
            }
            group.push(job);
        }
        group
    }

    fn commit(&self, group: Vec<Job>) {
        let mut changes = Changes::new();
        let mut answers = Vec::with_capacity(group.len());
        let mut counters = Vec::new();
        for Job { batch, answer } in group {
            let verdict = self.judge(&batch, &changes).and_then(|()| self.linked(&batch, &changes));
            let verdict = verdict.map(|linked| {
                changes.extend(batch.changes);
                changes.extend(linked);
                counters.extend(batch.counters);
            });
            answers.push((answer, verdict));
        }
        self.waiting.fetch_sub(answers.len(), Ordering::Relaxed);
        let began = Instant::now();
        let written = if changes.is_empty() { Ok(()) } else { self.backend.write(&changes) };
        if !changes.is_empty() {
            self.times.flushed(answers.len(), began.elapsed(), written.is_ok());
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = written.as_ref().err().cloned();
        }
        for counter in counters {
            counter.fetch_add(1, Ordering::Release);
        }
        for (answer, verdict) in answers {
            // A verdict may rest on a batch of the same group, so it only stands where the group does.
            answer.give(written.clone().and(verdict));
        }
    }

    /// Whether the preconditions hold in the stored state with the group's earlier batches applied.
    fn judge(&self, batch: &Batch, changes: &Changes) -> Result<(), EngineError> {
        for expected in &batch.expectations {
            let key = expected.table.flat(&expected.key);
            let holds = match changes.get(&key) {
                Some(value) => *value == expected.value,
                None => self.backend.get(&key)? == expected.value,
            };
            if !holds {
                return Err(EngineError::Conflict { table: expected.table.name(), key: expected.key.clone() });
            }
        }
        Ok(())
    }

    /// What the batch's links make of the stored state with the group's earlier batches applied.
    fn linked(&self, batch: &Batch, changes: &Changes) -> Result<Changes, EngineError> {
        let mut linked = Changes::new();
        for link in &batch.links {
            let (table, key) = link.head();
            let key = table.flat(key);
            let made = match linked.get(&key).or_else(|| changes.get(&key)) {
                Some(value) => link.link(value.as_deref())?,
                None => link.link(self.backend.get(&key)?.as_deref())?,
            };
            linked.extend(made.changes);
        }
        Ok(linked)
    }
}
