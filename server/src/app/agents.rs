//! The server's side of the runner protocol: gives out runs, takes reports and logs. Every message may come twice, and from
//! a runner that has lost the run: what it says then is refused. Not here: the transport (in memory for the embedded
//! runner, HTTP for the others), and who is let in (`runners`).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pipelines::{
    effect::{Effect, EffectKind},
    ids::{ReleaseId, RunId, RunnerName},
    journal::{Channel, Origin},
    protocol::{
        Job, LogLine, LogStream, PROTOCOL_VERSION, RegistryAccess, Report, RunnerAbout, RunnerRequest, ServerReply,
    },
    run::{RunEvent, RunState},
    train::Event,
};
use tracing::Instrument;

use super::{
    App, AppError,
    log::log_name,
    trains::{Extras, Outcome},
};
use crate::{
    crash,
    store::{Page, RunnerState, logs},
};

/// The word of the effect that runners perform, for its kill points.
const EXECUTE_RUN: &str = EffectKind::ExecuteRun.word();

/// Why a runner of another protocol version is refused, and what to install where.
#[must_use]
pub fn protocol_mismatch(runner: u32) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let advice = if runner < PROTOCOL_VERSION {
        format!("upgrade windlass-runner to {version}")
    } else {
        format!("upgrade the server, or install windlass-runner {version}")
    };
    format!("the runner speaks protocol {runner} and this server {PROTOCOL_VERSION}: {advice}")
}

impl App {
    /// Answers a runner.
    ///
    /// # Errors
    /// When the store fails: the runner asks again. [`AppError::Forbidden`] for one that was removed.
    pub async fn agent_request(
        self: &Arc<Self>,
        runner: &RunnerName,
        request: RunnerRequest,
    ) -> Result<ServerReply, AppError> {
        self.agent_request_by(runner, runner_origin(runner), request).await
    }

    /// The same for a runner on a machine of its own; `origin` says from where it asks and what it proved itself by.
    ///
    /// # Errors
    /// As above.
    pub async fn agent_request_by(
        self: &Arc<Self>,
        runner: &RunnerName,
        origin: Origin,
        request: RunnerRequest,
    ) -> Result<ServerReply, AppError> {
        let Some((run, attempt)) = request.subject().map(|(run, attempt)| (run.clone(), attempt)) else {
            let RunnerRequest::Lease { protocol, about, busy_with } = request else { return Ok(ServerReply::NoJob) };
            if protocol != PROTOCOL_VERSION {
                return Err(AppError::Invalid(protocol_mismatch(protocol)));
            }
            return self.agent_lease(runner, origin, about, busy_with.into_iter().collect()).await;
        };
        if let RunnerRequest::Report { report, .. } = request {
            return self.agent_report(runner, origin, &run, attempt, report).await;
        }
        let standing = self.agent_standing(runner, &run, attempt)?;
        if matches!(standing, ServerReply::NotYours) {
            return Ok(standing);
        }
        match request {
            RunnerRequest::Lease { .. } | RunnerRequest::Report { .. } | RunnerRequest::Heartbeat { .. } => {
                Ok(standing)
            }
            RunnerRequest::Inputs { .. } if !self.run(&run)?.trigger.may_push() => Ok(ServerReply::Build),
            RunnerRequest::Inputs { inputs, .. } => Ok(match self.store.image_of_inputs(&run.service, &inputs)? {
                Some((built_by, digest)) => ServerReply::Reuse { digest, built_by },
                None => ServerReply::Build,
            }),
            RunnerRequest::Secrets { names, .. } => self.agent_secrets(runner, &run, attempt, names).await,
            RunnerRequest::LogPosition { step, .. } => {
                let (logs, step) = (self.logs.clone(), own_log(&step, attempt)?);
                let length = blocking(move || logs.length(&run.to_string(), &step)).await?;
                Ok(ServerReply::LogNext { line: length.next_line })
            }
            RunnerRequest::Log { step, first_line, lines, .. } => {
                self.agent_log(&run, own_log(&step, attempt)?, first_line, lines).await
            }
        }
    }

    async fn agent_lease(
        self: &Arc<Self>,
        runner: &RunnerName,
        origin: Origin,
        about: RunnerAbout,
        busy_with: BTreeSet<RunId>,
    ) -> Result<ServerReply, AppError> {
        self.runner_heard(runner, origin.clone(), Some(&about)).await?;
        // A runner waits once: whoever asks again has given up the question before.
        let given_up = self.crew.asks(runner);
        let deadline = tokio::time::Instant::now() + Duration::from_millis(self.config.bounds.lease_wait_ms);
        loop {
            // Registered before looking: a run that comes in between is not missed.
            let signal = self.work_for_runners.notified();
            tokio::pin!(signal);
            signal.as_mut().enable();
            let (app, name, busy, about) = (Arc::clone(self), runner.clone(), busy_with.clone(), about.clone());
            let origin = origin.clone();
            // A task of its own: a runner that hangs up in the middle leaves nothing half done. It asks again, and is
            // given the same run.
            let taken =
                tokio::spawn(async move { app.agent_next(&name, &origin, &about, &busy).await }.in_current_span());
            match taken.await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(job))) => return Ok(ServerReply::Job(Box::new(job))),
                Ok(Err(error)) => return Err(error),
                Err(error) => return Err(AppError::Invalid(format!("giving out a run ended early: {error}"))),
            }
            tokio::select! {
                woken = tokio::time::timeout_at(deadline, signal) => if woken.is_err() {
                    return Ok(ServerReply::NoJob);
                },
                () = given_up.cancelled() => return Ok(ServerReply::NoJob),
            }
        }
    }

    /// A run for this runner, if there is one that it may have.
    async fn agent_next(
        &self,
        runner: &RunnerName,
        origin: &Origin,
        about: &RunnerAbout,
        busy_with: &BTreeSet<RunId>,
    ) -> Result<Option<Job>, AppError> {
        // Two questions of one runner would both see the same free place.
        let turn = self.crew.turn(runner);
        let _held = turn.lock().await;
        let work = self.queue.work();
        let own = || work.held.iter().filter(|(_, holder)| *holder == runner).map(|(run, _)| run);
        for run in own().filter(|run| !busy_with.contains(run)) {
            if let Some(job) = self.agent_take(runner, origin, about, run).await? {
                return Ok(Some(job));
            }
        }
        let record = self.runner(runner)?;
        if record.state != RunnerState::Active || own().count() >= about.capacity as usize {
            return Ok(None);
        }
        for run in work.waiting.iter().filter(|run| !busy_with.contains(run)) {
            if let Some(job) = self.agent_take(runner, origin, about, run).await? {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    async fn agent_take(
        &self,
        runner: &RunnerName,
        origin: &Origin,
        about: &RunnerAbout,
        id: &RunId,
    ) -> Result<Option<Job>, AppError> {
        let run = self.run(id)?;
        let is_free = match &run.state {
            // It waits with the others until there is room for what it will write.
            RunState::Queued => run.labels.fit(&about.labels) && self.room().is_ok() && !self.is_quiet(&id.service),
            RunState::Running { runner: other } | RunState::Cancelling { runner: other } => other == runner,
            _ => false,
        };
        if !is_free {
            return Ok(None);
        }
        let lease_ms = self.config.bounds.runner_lost_ms;
        let event = Event::Run { number: id.number, event: RunEvent::Leased { runner: runner.clone(), lease_ms } };
        let watch = Effect::ExpireLease {
            run: id.clone(),
            runner: runner.clone(),
            attempt: run.attempt,
            due_at: self.now().plus_ms(lease_ms),
        };
        // A server before this one watched nobody.
        let is_unwatched = run.state != RunState::Queued && self.queue.get(&watch.key()).is_none();
        let extras = Extras { ask: if is_unwatched { vec![watch] } else { Vec::new() }, ..Extras::default() };
        crash::point(EXECUTE_RUN, "before");
        match self.train_input(&id.service, origin.clone(), move |_| Ok((vec![event], extras))).await {
            Ok(_) => {
                let job = self.agent_job(id)?;
                self.crew.heard(id, job.attempt);
                Ok(Some(job))
            }
            // Somebody else was faster, or it was cancelled.
            Err(AppError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What follows when the time is over within which something of a run should have been heard. Only this process
    /// knows when that was; whoever was heard of before it started has the whole time once more.
    #[must_use]
    pub fn lease_outcome(&self, run: &RunId, runner: &RunnerName, attempt: u32) -> Outcome {
        let bounds = &self.config.bounds;
        let silent_ms = self.crew.silent_ms(run, attempt);
        if silent_ms < bounds.runner_lost_ms {
            let due_at = self.now().plus_ms(bounds.runner_lost_ms - silent_ms);
            let again = Effect::ExpireLease { run: run.clone(), runner: runner.clone(), attempt, due_at };
            return Outcome::Done(Vec::new(), Box::new(Extras { ask: vec![again], ..Extras::default() }));
        }
        tracing::warn!(%run, %runner, attempt, silent_ms, "the runner is lost");
        self.crew.forget(run);
        let reason = format!("was not heard of for {} s", silent_ms / 1_000);
        let event = RunEvent::RunnerLost { attempt, lost_max: bounds.run_lost_max, reason };
        Outcome::event(Event::Run { number: run.number, event })
    }

    fn agent_job(&self, id: &RunId) -> Result<Job, AppError> {
        let run = self.run(id)?;
        let service = self.service(&id.service)?;
        let repository = self.service_repository(&service)?;
        let registry = self
            .config
            .registries
            .test
            .access()
            .map_err(|error| AppError::Invalid(format!("the test registry's settings are not good: {error}")))?;
        let cache_from = self
            .store
            .runs(&id.service, Page { before: Some(id.number), limit: 20 })?
            .iter()
            .find_map(|earlier| earlier.digest().cloned());
        let mut masks = Vec::new();
        match &repository.credential {
            pipelines::protocol::GitAccess::Token { token, .. } => masks.push(token.clone()),
            pipelines::protocol::GitAccess::SshKey { key } => masks.push(key.clone()),
            pipelines::protocol::GitAccess::None => {}
        }
        masks.extend(registry.login.iter().map(|(_, password)| password.clone()));
        masks.retain(|mask| !mask.expose().is_empty());
        // What a stranger wrote is built with no right to push, and to read no more than anybody may.
        let registry = if run.trigger.may_push() { registry } else { RegistryAccess { login: None, ..registry } };
        let live =
            self.train(&id.service)?.live.map(|number| self.release(&ReleaseId::new(id.service.clone(), number)));
        Ok(Job {
            run: id.clone(),
            attempt: run.attempt,
            lease_ms: self.config.bounds.runner_lost_ms,
            created_at: run.created_at,
            page_url: format!("{}/services/{}/runs/{}", self.config.public_url, id.service, id.number),
            trigger: run.trigger,
            release_branch: service.effective_release_branch().to_owned(),
            repository,
            registry,
            image_repository: self.config.registries.test.repository(&id.service),
            cache_from,
            live_commit: live.transpose()?.map(|live| live.commit.sha),
            mirrors: self.config.mirrors.clone(),
            masks,
            bounds: self.config.job.clone(),
            outgoing: self.outgoing_rules()?,
        })
    }

    /// Whether the runner is to go on with the run. It has been heard of, then.
    pub(super) fn agent_standing(
        &self,
        runner: &RunnerName,
        id: &RunId,
        attempt: u32,
    ) -> Result<ServerReply, AppError> {
        let Some(run) = self.store.run(id)? else { return Ok(ServerReply::NotYours) };
        if run.holder() != Some((runner, attempt)) {
            return Ok(ServerReply::NotYours);
        }
        let reply = match run.state {
            RunState::Running { .. } => ServerReply::Continue,
            RunState::Cancelling { .. } => ServerReply::Cancel { reason: run.cancel_reason.unwrap_or_default() },
            _ => return Ok(ServerReply::NotYours),
        };
        self.crew.heard(id, attempt);
        self.crew.heard_of(runner, self.now());
        Ok(reply)
    }

    async fn agent_report(
        &self,
        runner: &RunnerName,
        origin: Origin,
        id: &RunId,
        attempt: u32,
        report: Report,
    ) -> Result<ServerReply, AppError> {
        let is_last = is_last(&report);
        if is_last {
            crash::point(EXECUTE_RUN, "answered");
        }
        let standing = self.agent_standing(runner, id, attempt)?;
        if matches!(standing, ServerReply::NotYours) && !is_last {
            return Ok(standing);
        }
        if let Report::StepFinished { step, .. } = &report {
            let (logs, run, step) = (self.logs.clone(), id.to_string(), own_log(step, attempt)?);
            match blocking(move || logs.finish(&run, &step)).await {
                Ok(_) | Err(AppError::Logs(logs::LogError::Finished)) => {}
                Err(error) => return Err(error),
            }
        }
        // The domain knows whose the run is when it is the event's turn; a moment ago may be too long ago.
        let event = RunEvent::Reported { runner: runner.clone(), attempt, report };
        let event = Event::Run { number: id.number, event };
        match self.train_event(&id.service, origin, event).await {
            Ok(_) if is_last => {
                self.crew.forget(id);
                Ok(ServerReply::Continue)
            }
            Ok(_) => self.agent_standing(runner, id, attempt),
            Err(AppError::Refused(_)) => Ok(ServerReply::NotYours),
            Err(error) => Err(error),
        }
    }

    async fn agent_log(
        &self,
        id: &RunId,
        step: String,
        first_line: u64,
        lines: Vec<LogLine>,
    ) -> Result<ServerReply, AppError> {
        let bytes = lines.iter().map(|line| line.text.len()).sum();
        let _in_flight = self.load.log_bytes(bytes).await;
        let logs = self.logs.clone();
        let run = id.to_string();
        self.metrics.log(lines.len(), lines.iter().map(|line| line.text.len()).sum());
        let lines: Vec<logs::LogLine> = lines.into_iter().map(stored_line).collect();
        let appended = blocking(move || match logs.append(&run, &step, first_line, &lines) {
            // A repeat of the last lines after the step has ended: they are there.
            Err(logs::LogError::Finished) => logs.length(&run, &step),
            answer => answer,
        });
        match appended.await {
            Ok(length) => {
                self.tell(&id.service, format!("log/{}", id.number));
                Ok(ServerReply::LogNext { line: length.next_line })
            }
            Err(AppError::Logs(logs::LogError::Gap { expected, .. })) => Ok(ServerReply::LogNext { line: expected }),
            Err(error) => Err(error),
        }
    }
}

/// Whether the runner is done with the run with it.
pub(super) fn is_last(report: &Report) -> bool {
    let is_end =
        matches!(report, Report::Succeeded { .. } | Report::Passed | Report::Failed { .. } | Report::Cancelled);
    is_end || matches!(report, Report::Unfit { .. })
}

/// The log of a step of this attempt. A runner names steps, and no other attempt's logs.
fn own_log(step: &str, attempt: u32) -> Result<String, AppError> {
    if step.contains('+') {
        return Err(AppError::Invalid("a step's name has no +".into()));
    }
    Ok(log_name(step, attempt))
}

fn stored_line(line: LogLine) -> logs::LogLine {
    let stream = match line.stream {
        LogStream::Stdout => logs::Stream::Out,
        LogStream::Stderr => logs::Stream::Err,
        LogStream::System => logs::Stream::Note,
    };
    logs::LogLine { time_ms: line.at.0, stream, text: line.text }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, logs::LogError> + Send + 'static,
) -> Result<T, AppError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => Ok(answer?),
        Err(error) => Err(AppError::Invalid(format!("a task of the log store ended early: {error}"))),
    }
}

/// The origin of what a runner does.
pub(super) fn runner_origin(runner: &RunnerName) -> Origin {
    Origin::new(runner.to_string(), Channel::Runner)
}
