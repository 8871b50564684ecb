//! The logs of a run's steps, for reading. Reading makes nothing: not even an empty folder. Not here: writing them
//! (`agents`).

use std::sync::Arc;

use pipelines::ids::RunId;

use super::{App, AppError};
use crate::store::logs::{Found, Length, LogError, LogStore, NumberedLine, StepLog};

/// Lines that one read gives at most.
pub const LOG_LINES_MAX: usize = 5_000;
/// Lines that one search gives at most.
pub const LOG_HITS_MAX: usize = 500;

impl App {
    async fn log_work<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<LogStore>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, AppError> {
        let logs = Arc::clone(&self.logs);
        match tokio::task::spawn_blocking(move || work(logs)).await {
            Ok(answer) => Ok(answer?),
            Err(error) => Err(AppError::Invalid(format!("reading the log ended early: {error}"))),
        }
    }

    /// The steps of a run that have a log, in the order in which they began.
    ///
    /// # Errors
    /// When the log cannot be read; so for the others.
    pub async fn log_steps(&self, run: &RunId) -> Result<Vec<StepLog>, AppError> {
        let run = run.to_string();
        self.log_work(move |logs| logs.steps(&run)).await
    }

    /// At most `limit` lines (and [`LOG_LINES_MAX`]) of a step from the line `from` on, and how far its log is.
    ///
    /// # Errors
    /// As above.
    pub async fn log_read(
        &self,
        run: &RunId,
        step: &str,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<NumberedLine>, Length), AppError> {
        let (run, step) = (run.to_string(), step.to_owned());
        self.log_work(move |logs| {
            // The length first: lines that come in between are then known to be more, and not taken for the end.
            let length = logs.length(&run, &step)?;
            Ok((logs.read(&run, &step, from, limit.min(LOG_LINES_MAX))?, length))
        })
        .await
    }

    /// As [`App::log_read`] without the length, fewer lines where they are more than `bytes_max` bytes (one always): for whoever
    /// holds them for long.
    ///
    /// # Errors
    /// As above.
    pub async fn log_read_some(
        &self,
        run: &RunId,
        step: &str,
        from: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<NumberedLine>, AppError> {
        let (run, step) = (run.to_string(), step.to_owned());
        self.log_work(move |logs| logs.read_some(&run, &step, from, limit.min(LOG_LINES_MAX), bytes_max)).await
    }

    /// How far the logs of a run's steps are, in the order in which they began.
    ///
    /// # Errors
    /// As above.
    pub async fn log_lengths(&self, run: &RunId) -> Result<Vec<(String, Length)>, AppError> {
        let run = run.to_string();
        self.log_work(move |logs| logs.lengths(&run)).await
    }

    /// Lines of a step from `from` on that hold `text`.
    ///
    /// # Errors
    /// As above.
    pub async fn log_search(
        &self,
        run: &RunId,
        step: &str,
        text: &str,
        from: u64,
        limit: usize,
    ) -> Result<Found, AppError> {
        let (run, step, text) = (run.to_string(), step.to_owned(), text.to_owned());
        self.log_work(move |logs| logs.search(&run, &step, &text, from, limit.min(LOG_HITS_MAX))).await
    }
}
