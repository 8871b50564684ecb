//! Rollouts as people see and steer them.

use pipelines::{
    ids::{RolloutId, ServiceName},
    journal::Origin,
    rollout::{Rollout, RolloutEvent},
    train::Event,
};

use super::{App, AppError};
use crate::store::Page;

/// What a person can do to a running rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutVerb {
    /// On to the next stage.
    Promote,
    /// All the way.
    PromoteFully,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Traffic back.
    Abort {
        /// Why.
        reason: String,
    },
    /// Traffic back, and the waiting release takes over.
    Replace,
}

impl App {
    /// A rollout.
    ///
    /// # Errors
    /// When there is none with this number.
    pub fn rollout(&self, id: &RolloutId) -> Result<Rollout, AppError> {
        self.store.rollout(id)?.ok_or_else(|| AppError::NotFound { what: "rollout", id: id.to_string() })
    }

    /// Rollouts of a service, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn rollouts(&self, service: &ServiceName, page: Page) -> Result<Vec<Rollout>, AppError> {
        Ok(self.store.rollouts(service, page)?)
    }

    /// The rollout that runs on a service.
    ///
    /// # Errors
    /// When none does.
    pub fn rollout_running(&self, service: &ServiceName) -> Result<Rollout, AppError> {
        let number = self.train(service)?.rollout;
        let number =
            number.ok_or_else(|| AppError::NotFound { what: "running rollout of", id: service.to_string() })?;
        self.rollout(&RolloutId::new(service.clone(), number))
    }

    /// Does what a person wants of the rollout.
    ///
    /// # Errors
    /// When the domain refuses: it is over, or in a state that does not allow it.
    pub async fn rollout_act(&self, id: &RolloutId, verb: RolloutVerb, origin: Origin) -> Result<(), AppError> {
        let by = origin.actor.clone();
        let event = match verb {
            RolloutVerb::Promote => RolloutEvent::Promote { by, fully: false },
            RolloutVerb::PromoteFully => RolloutEvent::Promote { by, fully: true },
            RolloutVerb::Pause => RolloutEvent::Pause { by },
            RolloutVerb::Resume => RolloutEvent::Resume { by },
            RolloutVerb::Abort { reason } => RolloutEvent::Abort { by, reason },
            RolloutVerb::Replace => {
                self.train_event(&id.service, origin, Event::Replace { by }).await?;
                return Ok(());
            }
        };
        self.train_event(&id.service, origin, Event::Rollout { number: id.number, event }).await?;
        Ok(())
    }
}
