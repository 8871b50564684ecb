//! Releases as people see and steer them, and the sentence that says why one is not live yet.

use std::sync::PoisonError;

use pipelines::{
    effect::Effect,
    ids::{ReleaseId, ServiceName},
    journal::Origin,
    release::{Release, ReleaseState},
    train::Event,
};

use super::{App, AppError};
use crate::store::Page;

impl App {
    /// A release.
    ///
    /// # Errors
    /// When there is none with this number.
    pub fn release(&self, id: &ReleaseId) -> Result<Release, AppError> {
        self.store.release(id)?.ok_or_else(|| AppError::NotFound { what: "release", id: id.to_string() })
    }

    /// Releases of a service, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn releases(&self, service: &ServiceName, page: Page) -> Result<Vec<Release>, AppError> {
        Ok(self.store.releases(service, page)?)
    }

    /// Goes back to a release that was live before, without a build.
    ///
    /// # Errors
    /// When it was never live, or is live.
    pub async fn release_rollback(&self, id: &ReleaseId, reason: String, origin: Origin) -> Result<(), AppError> {
        let event = Event::Rollback { to: id.number, by: origin.actor.clone(), reason };
        self.train_event(&id.service, origin, event).await?;
        Ok(())
    }

    /// Asks the testers of an expired release once more.
    ///
    /// # Errors
    /// When it has not expired, or a newer one is there.
    pub async fn release_ask_again(&self, id: &ReleaseId, origin: Origin) -> Result<(), AppError> {
        let event = Event::AskAgain { number: id.number, by: origin.actor.clone() };
        self.train_event(&id.service, origin, event).await?;
        Ok(())
    }

    /// Notes how far a promotion is: bytes done, bytes in all. Only in memory: the registry itself knows what is there.
    pub fn promotion_progress(&self, id: &ReleaseId, done_bytes: u64, total_bytes: u64) {
        let mut promotions = self.promotions.lock().unwrap_or_else(PoisonError::into_inner);
        promotions.insert(id.clone(), (done_bytes, total_bytes));
    }

    /// The promotion is over.
    pub fn promotion_forget(&self, id: &ReleaseId) {
        self.promotions.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// How far the promotion of a release is: bytes done, bytes in all.
    #[must_use]
    pub fn promotion_of(&self, id: &ReleaseId) -> Option<(u64, u64)> {
        self.promotions.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// What keeps a release from going on for infrastructure reasons: the last error of the effect that it waits for,
    /// and when that is tried again.
    #[must_use]
    pub fn release_trouble(&self, release: &Release) -> Option<(String, pipelines::time::UnixMs)> {
        let id = release.id.clone();
        match release.state {
            ReleaseState::DeployingTest => self.effect_trouble(&Effect::DeployTest { release: id }),
            ReleaseState::Promoting => self.effect_trouble(&Effect::Promote { release: id }),
            ReleaseState::AwaitingApproval => {
                let approval = self.store.approval(&id).ok().flatten()?;
                approval.testers.iter().find_map(|tester| {
                    self.effect_trouble(&Effect::SendApprovalMail {
                        release: id.clone(),
                        round: approval.round,
                        tester: tester.clone(),
                    })
                })
            }
            ReleaseState::RollingOut => self
                .queue
                .of_service(&id.service)
                .into_iter()
                .find(|pending| {
                    matches!(
                        pending.effect,
                        Effect::StartRevision { .. }
                            | Effect::ApplyTraffic { .. }
                            | Effect::Measure { .. }
                            | Effect::DrainRevision { .. }
                    ) && pending.last_error.is_some()
                })
                .and_then(|pending| pending.last_error.map(|error| (error, pending.not_before))),
            _ => None,
        }
    }
}
