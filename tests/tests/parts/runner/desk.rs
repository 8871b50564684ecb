//! The server's side of the runner protocol for one runner, in memory. It treats repeats as the server does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use pipelines::ids::{Digest, RunId, SecretName};
use pipelines::protocol::{Job, LinkError, LogLine, Report, RunnerLink, RunnerRequest, Secret, ServerReply};
use pipelines::secret::GivenSecret;
use tokio::sync::Notify;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the desk knows.
#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    runs: BTreeMap<RunId, Entry>,
    images: BTreeMap<String, (RunId, Digest)>,
    secrets: BTreeMap<String, Secret>,
    /// The runs that the runner said it works on when it last asked for work.
    busy: Vec<RunId>,
}

struct Entry {
    job: Job,
    reports: Vec<Report>,
    logs: BTreeMap<String, Vec<LogLine>>,
    gaps: Vec<String>,
    cancelled: Option<String>,
    end: Option<Report>,
}

/// The runner's way to the desk.
pub(super) struct Link(pub(super) Arc<Desk>);

impl RunnerLink for Link {
    async fn call(&self, request: RunnerRequest) -> Result<ServerReply, LinkError> {
        let RunnerRequest::Lease { busy_with, .. } = request else { return Ok(self.0.answer(request)) };
        self.0.lock().busy.clone_from(&busy_with);
        self.0.changed.notify_waiters();
        let deadline = tokio::time::Instant::now() + Duration::from_millis(300);
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let job = self
                .0
                .lock()
                .runs
                .values()
                .find(|entry| entry.end.is_none() && !busy_with.contains(&entry.job.run))
                .map(|entry| entry.job.clone());
            if let Some(job) = job {
                return Ok(ServerReply::Job(Box::new(job)));
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(ServerReply::NoJob);
            }
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job up for the runner.
    pub(super) fn give(&self, job: Job) {
        let (reports, logs, gaps) = (Vec::new(), BTreeMap::new(), Vec::new());
        let entry = Entry { reports, logs, gaps, cancelled: None, end: None, job };
        self.lock().runs.insert(entry.job.run.clone(), entry);
        self.changed.notify_waiters();
    }

    /// Sets a secret, or sets it anew.
    pub(super) fn set_secret(&self, name: &str, value: &str) {
        self.lock().secrets.insert(name.to_owned(), Secret::new(value));
    }

    pub(super) fn cancel(&self, run: &RunId, reason: &str) {
        if let Some(entry) = self.lock().runs.get_mut(run) {
            entry.cancelled = Some(reason.to_owned());
        }
    }

    fn answer(&self, request: RunnerRequest) -> ServerReply {
        let mut state = self.lock();
        let State { runs, images, secrets, .. } = &mut *state;
        let reply = match request {
            RunnerRequest::Lease { .. } => ServerReply::NoJob,
            RunnerRequest::Inputs { inputs, .. } => match images.get(inputs.as_str()) {
                Some((built_by, digest)) => ServerReply::Reuse { built_by: built_by.clone(), digest: digest.clone() },
                None => ServerReply::Build,
            },
            RunnerRequest::Heartbeat { run, .. } => runs.get(&run).map_or(ServerReply::NotYours, Entry::standing),
            RunnerRequest::Report { run, report, .. } => match runs.get_mut(&run) {
                None => ServerReply::NotYours,
                Some(entry) => {
                    if let Report::Succeeded { digest, inputs, .. } = &report {
                        images.entry(inputs.to_string()).or_insert_with(|| (run, digest.clone()));
                    }
                    let succeeded = matches!(report, Report::Succeeded { .. } | Report::Passed);
                    let ended = matches!(report, Report::Failed { .. } | Report::Cancelled | Report::Unfit { .. });
                    if succeeded || ended {
                        entry.end.get_or_insert_with(|| report.clone());
                    }
                    entry.reports.push(report);
                    entry.standing()
                }
            },
            RunnerRequest::Secrets { names, .. } => {
                let given = |name: SecretName| {
                    let value = secrets.get(name.as_str())?.clone();
                    Some(GivenSecret { name, value })
                };
                ServerReply::Secrets { given: names.into_iter().filter_map(given).collect(), withheld: None }
            }
            RunnerRequest::LogPosition { run, step, .. } => {
                let lines = runs.get(&run).and_then(|entry| entry.logs.get(&step)).map_or(0, Vec::len);
                ServerReply::LogNext { line: lines as u64 }
            }
            RunnerRequest::Log { run, step, first_line, lines, .. } => match runs.get_mut(&run) {
                None => ServerReply::NotYours,
                Some(entry) => entry.append(&step, first_line, lines),
            },
        };
        drop(state);
        self.changed.notify_waiters();
        reply
    }

    /// Waits until `found` gives something.
    async fn wait<T>(&self, what: &str, found: impl Fn(&State) -> Option<T>) -> Result<T> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = found(&self.lock()) {
                return Ok(found);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                let state = self.lock();
                let seen: Vec<_> = state.runs.values().map(|entry| (&entry.reports, entry.text())).collect();
                bail!("{what} did not come: {seen:#?}");
            }
        }
    }

    /// The last report of a run.
    pub(super) async fn end_of(&self, run: &RunId) -> Result<Report> {
        self.wait("the end", |state| state.runs.get(run)?.end.clone()).await
    }

    /// Waits until the runner does not work on the run any more.
    pub(super) async fn left(&self, run: &RunId) -> Result<()> {
        // The next question for work after the end says so.
        self.wait("the runner's leave", |state| (!state.busy.contains(run)).then_some(())).await
    }

    /// Waits for a line of a log.
    pub(super) async fn line(&self, run: &RunId, step: &str, text: &str) -> Result<()> {
        self.wait(text, |state| {
            let lines = state.runs.get(run)?.logs.get(step)?;
            lines.iter().any(|line| line.text == text).then_some(())
        })
        .await
    }

    pub(super) fn reports(&self, run: &RunId) -> Vec<Report> {
        self.lock().runs.get(run).map(|entry| entry.reports.clone()).unwrap_or_default()
    }

    pub(super) fn lines(&self, run: &RunId, step: &str) -> Vec<String> {
        let state = self.lock();
        let lines = state.runs.get(run).and_then(|entry| entry.logs.get(step));
        lines.map(|lines| lines.iter().map(|line| line.text.clone()).collect()).unwrap_or_default()
    }

    /// All logs of a run, for a message.
    pub(super) fn log_text(&self, run: &RunId) -> String {
        self.lock().runs.get(run).map(Entry::text).unwrap_or_default()
    }

    /// Requests that would have left a hole in a log.
    pub(super) fn gaps(&self, run: &RunId) -> Vec<String> {
        self.lock().runs.get(run).map(|entry| entry.gaps.clone()).unwrap_or_default()
    }
}

impl Entry {
    fn standing(&self) -> ServerReply {
        match &self.cancelled {
            _ if self.end.is_some() => ServerReply::Continue,
            Some(reason) => ServerReply::Cancel { reason: reason.clone() },
            None => ServerReply::Continue,
        }
    }

    fn append(&mut self, step: &str, first_line: u64, lines: Vec<LogLine>) -> ServerReply {
        let log = self.logs.entry(step.to_owned()).or_default();
        let have = log.len() as u64;
        if first_line > have {
            self.gaps.push(format!("{step}: {first_line} after {have}"));
        } else {
            let known = usize::try_from(have - first_line).unwrap_or(usize::MAX);
            log.extend(lines.into_iter().skip(known));
        }
        ServerReply::LogNext { line: log.len() as u64 }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (step, lines) in &self.logs {
            for line in lines {
                text.push_str(&format!("{step}| {}\n", line.text));
            }
        }
        text
    }
}
