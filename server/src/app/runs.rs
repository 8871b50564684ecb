//! Runs as people see and steer them.

use pipelines::{
    ids::{RunId, ServiceName},
    journal::Origin,
    run::{Run, RunEvent},
    train::Event,
    trigger::{TriggerKind, TriggerSource},
};

use super::{App, AppError};
use crate::store::Page;

impl App {
    /// A run.
    ///
    /// # Errors
    /// When there is none with this number.
    pub fn run(&self, id: &RunId) -> Result<Run, AppError> {
        self.store.run(id)?.ok_or_else(|| AppError::NotFound { what: "run", id: id.to_string() })
    }

    /// Runs of a service, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn runs(&self, service: &ServiceName, page: Page) -> Result<Vec<Run>, AppError> {
        Ok(self.store.runs(service, page)?)
    }

    /// The place of a run among those that wait for a runner, from 1; none if it does not wait.
    #[must_use]
    pub fn run_position(&self, id: &RunId) -> Option<usize> {
        let waiting = self.queue.runs();
        let is_queued = |id: &RunId| matches!(self.store.run(id), Ok(Some(run)) if run.started_at.is_none());
        waiting.iter().filter(|other| is_queued(other)).position(|other| other == id).map(|index| index + 1)
    }

    /// Stops a run.
    ///
    /// # Errors
    /// When it is over already.
    pub async fn run_cancel(&self, id: &RunId, reason: String, origin: Origin) -> Result<(), AppError> {
        let event = RunEvent::CancelRequested { reason };
        self.train_event(&id.service, origin, Event::Run { number: id.number, event }).await?;
        Ok(())
    }

    /// Runs the same commit once more. Steps run again; an image of the same inputs is not built again.
    ///
    /// # Errors
    /// When there is no such run, or it comes from a fork.
    pub async fn run_rerun(&self, id: &RunId, origin: Origin) -> Result<RunId, AppError> {
        let run = self.run(id)?;
        if run.trigger.from_fork {
            return Err(AppError::Forbidden("a pull request from a fork is recorded, not run".into()));
        }
        let mut trigger = run.trigger.clone();
        trigger.source = TriggerSource::Person;
        trigger.requested_by = Some(origin.actor.clone());
        if trigger.kind == TriggerKind::Push {
            trigger.kind = TriggerKind::Manual;
        }
        let event = Event::Triggered { trigger, rerun_of: Some(run.id) };
        let applied = self.train_event(&id.service, origin, event).await?;
        applied.runs.into_iter().next().ok_or_else(|| AppError::Invalid("no run was made".into()))
    }
}
