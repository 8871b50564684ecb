//! The server's side of the runner protocol: gives out runs, takes reports and logs. Every message may come twice.
//! Not here: the transport (in memory for the embedded runner).

use std::{collections::BTreeSet, time::Duration};

use pipelines::{
    effect::EffectKind,
    ids::{ReleaseId, RunId, RunnerName},
    journal::{Channel, Origin},
    protocol::{Job, LogLine, LogStream, PROTOCOL_VERSION, RegistryAccess, Report, RunnerRequest, ServerReply},
    run::{RunEvent, RunState},
    train::Event,
};

use super::{App, AppError};
use crate::{
    crash,
    store::{Page, logs},
};

/// The word of the effect that runners perform, for its kill points.
const EXECUTE_RUN: &str = EffectKind::ExecuteRun.word();

impl App {
    /// Answers a runner.
    ///
    /// # Errors
    /// When the store fails: the runner asks again.
    pub async fn agent_request(&self, runner: &RunnerName, request: RunnerRequest) -> Result<ServerReply, AppError> {
        match request {
            RunnerRequest::Lease { protocol, busy_with, .. } => {
                if protocol != PROTOCOL_VERSION {
                    return Err(AppError::Invalid(format!(
                        "the runner speaks protocol {protocol}, this server {PROTOCOL_VERSION}; install the same version"
                    )));
                }
                self.agent_lease(runner, &busy_with.into_iter().collect()).await
            }
            RunnerRequest::Heartbeat { run } => self.agent_standing(runner, &run),
            RunnerRequest::Report { run, report } => self.agent_report(runner, &run, report).await,
            RunnerRequest::Inputs { run, .. } if !self.run(&run)?.trigger.may_push() => Ok(ServerReply::Build),
            RunnerRequest::Inputs { run, inputs } => Ok(match self.store.image_of_inputs(&run.service, &inputs)? {
                Some((built_by, digest)) => ServerReply::Reuse { digest, built_by },
                None => ServerReply::Build,
            }),
            RunnerRequest::Secrets { run, names } => self.agent_secrets(runner, &run, names).await,
            RunnerRequest::LogPosition { run, step } => {
                let logs = self.logs.clone();
                let length = blocking(move || logs.length(&run.to_string(), &step)).await?;
                Ok(ServerReply::LogNext { line: length.next_line })
            }
            RunnerRequest::Log { run, step, first_line, lines } => self.agent_log(&run, step, first_line, lines).await,
        }
    }

    async fn agent_lease(&self, runner: &RunnerName, busy_with: &BTreeSet<RunId>) -> Result<ServerReply, AppError> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(self.config.bounds.lease_wait_ms);
        loop {
            // Registered before looking: a run that comes in between is not missed.
            let signal = self.work_for_runners.notified();
            tokio::pin!(signal);
            signal.as_mut().enable();
            for id in self.queue.runs() {
                if busy_with.contains(&id) {
                    continue;
                }
                if let Some(job) = self.agent_take(runner, &id).await? {
                    return Ok(ServerReply::Job(Box::new(job)));
                }
            }
            if tokio::time::timeout_at(deadline, signal).await.is_err() {
                return Ok(ServerReply::NoJob);
            }
        }
    }

    async fn agent_take(&self, runner: &RunnerName, id: &RunId) -> Result<Option<Job>, AppError> {
        let run = self.run(id)?;
        let is_free = match &run.state {
            // It waits with the others until there is room for what it will write.
            RunState::Queued => self.room().is_ok() && !self.is_quiet(&id.service),
            RunState::Running { runner: other } | RunState::Cancelling { runner: other } => other == runner,
            _ => false,
        };
        if !is_free {
            return Ok(None);
        }
        let event = RunEvent::Leased { runner: runner.clone() };
        let origin = runner_origin(runner);
        crash::point(EXECUTE_RUN, "before");
        match self.train_event(&id.service, origin, Event::Run { number: id.number, event }).await {
            Ok(_) => self.agent_job(id).map(Some),
            // Somebody else was faster, or it was cancelled.
            Err(AppError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
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

    /// Whether the runner is to go on with the run.
    pub(super) fn agent_standing(&self, runner: &RunnerName, id: &RunId) -> Result<ServerReply, AppError> {
        Ok(match self.store.run(id)?.map(|run| (run.state, run.cancel_reason)) {
            Some((RunState::Running { runner: owner }, _)) if owner == *runner => ServerReply::Continue,
            Some((RunState::Cancelling { runner: owner }, reason)) if owner == *runner => {
                ServerReply::Cancel { reason: reason.unwrap_or_default() }
            }
            _ => ServerReply::NotYours,
        })
    }

    async fn agent_report(&self, runner: &RunnerName, id: &RunId, report: Report) -> Result<ServerReply, AppError> {
        let is_last = is_last(&report);
        if is_last {
            crash::point(EXECUTE_RUN, "answered");
        }
        let standing = self.agent_standing(runner, id)?;
        if matches!(standing, ServerReply::NotYours) && !is_last {
            return Ok(standing);
        }
        if let Report::StepFinished { step, .. } = &report {
            let (logs, run, step) = (self.logs.clone(), id.to_string(), step.clone());
            match blocking(move || logs.finish(&run, &step)).await {
                Ok(_) | Err(AppError::Logs(logs::LogError::Finished)) => {}
                Err(error) => return Err(error),
            }
        }
        let event = Event::Run { number: id.number, event: RunEvent::Reported { report } };
        match self.train_event(&id.service, runner_origin(runner), event).await {
            Ok(_) if is_last => Ok(ServerReply::Continue),
            Ok(_) => self.agent_standing(runner, id),
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

/// Whether the run is over with it.
pub(super) fn is_last(report: &Report) -> bool {
    matches!(report, Report::Succeeded { .. } | Report::Passed | Report::Failed { .. } | Report::Cancelled)
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
fn runner_origin(runner: &RunnerName) -> Origin {
    Origin { actor: runner.to_string(), channel: Channel::Runner }
}
