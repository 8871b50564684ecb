//! The journal, for reading. Not here: writing it, which each change does in its own transaction.

use pipelines::{ids::ServiceName, journal::Entry};

use super::{App, AppError};

impl App {
    /// Entries of a service (or of all), newest first, with a place below `before`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn journal(
        &self,
        service: Option<&ServiceName>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Entry>, AppError> {
        Ok(self.store.journal(service, before, limit)?)
    }
}
