//! Releases as people see and steer them, and the sentence that says why one is not live yet.

use std::sync::PoisonError;

use pipelines::{
    ids::{ReleaseId, ServiceName},
    journal::Origin,
    release::Release,
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
}
