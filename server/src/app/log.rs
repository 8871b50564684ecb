//! The logs of a run's steps, for reading. Reading makes nothing: not even an empty folder. Each attempt at a run has logs
//! of its own, so that a runner that was lost and comes back writes into nobody else's. Not here: writing them (`agents`).

use std::sync::Arc;

use pipelines::ids::RunId;

use super::{App, AppError};
use crate::store::logs::{Found, Length, LogError, LogStore, NumberedLine, StepLog};

/// Lines that one read gives at most.
pub const LOG_LINES_MAX: usize = 5_000;
/// Lines that one search gives at most.
pub const LOG_HITS_MAX: usize = 500;

/// The name under which the log of a step lies that was written in this attempt. A step's own name has no `+`.
pub(super) fn log_name(step: &str, attempt: u32) -> String {
    if attempt <= 1 { step.to_owned() } else { format!("{step}+{attempt}") }
}

/// The step and the attempt of such a name.
fn of_log_name(name: &str) -> (&str, u32) {
    let parts = name.rsplit_once('+').and_then(|(step, attempt)| Some((step, attempt.parse().ok()?)));
    parts.unwrap_or((name, 1))
}

impl App {
    /// The name of a step's log in the last attempt at its run; `step+1` names an earlier one.
    fn log_of(&self, run: &RunId, step: &str) -> Result<String, AppError> {
        if step.contains('+') {
            let (step, attempt) = of_log_name(step);
            return Ok(log_name(step, attempt));
        }
        let attempt = self.store.run(run)?.map_or(1, |run| run.attempt);
        Ok(log_name(step, attempt))
    }

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
        let last = self.store.run(run)?.map_or(1, |run| run.attempt.max(1));
        let run = run.to_string();
        let mut steps = self.log_work(move |logs| logs.steps(&run)).await?;
        steps.retain(|log| of_log_name(&log.step).1 == last);
        for log in &mut steps {
            log.step = of_log_name(&log.step).0.to_owned();
        }
        Ok(steps)
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
        let (run, step) = (run.to_string(), self.log_of(run, step)?);
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
        let (run, step, text) = (run.to_string(), self.log_of(run, step)?, text.to_owned());
        self.log_work(move |logs| logs.search(&run, &step, &text, from, limit.min(LOG_HITS_MAX))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_each_attempt_has_a_name_of_its_own() {
        assert_eq!([0, 1, 2].map(|attempt| log_name("test", attempt)), ["test", "test", "test+2"]);
        assert_eq!(
            (of_log_name("test"), of_log_name("test+12"), of_log_name("a+b")),
            (("test", 1), ("test", 12), ("a+b", 1))
        );
    }
}
