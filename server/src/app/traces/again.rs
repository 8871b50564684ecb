//! Reads the journal for traces: the moves of one run and its release, and at the start the runs to which something happened
//! shortly before the server stopped. Not here: the spans (`life`).

use std::collections::BTreeSet;

use pipelines::{ids::RunId, journal::Entry, run::Run};

use super::{
    super::{App, AppError},
    life::{Move, RUN_CREATED},
};

/// Lines that are read at once.
const PAGE_LINES: usize = 500;

impl App {
    /// The moves of a run and its release, oldest first.
    pub(super) fn moves_of(&self, run: &Run) -> Result<Vec<Move>, AppError> {
        let mut moves = Vec::new();
        let mut before = None;
        let mut left = self.config.tracing.journal_lines_max;
        'reading: while left > 0 {
            let page = self.store.journal(Some(&run.id.service), before, left.min(PAGE_LINES))?;
            let Some(oldest) = page.last().map(|entry| entry.seq) else { break };
            (before, left) = (Some(oldest), left.saturating_sub(page.len()));
            for entry in page {
                let found = Move::of(run, entry);
                let is_first = found.as_ref().is_some_and(|found| found.word == RUN_CREATED);
                moves.extend(found);
                if is_first {
                    break 'reading;
                }
            }
        }
        moves.reverse();
        Ok(moves)
    }

    /// Notes all runs to which something happened within `tracing.again_ms` before the last thing that happened at all; gives
    /// how many. What the server told before it stopped is told again, as the same spans; what it did not, for the first time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn trace_again(&self) -> Result<usize, AppError> {
        let settings = &self.config.tracing;
        let Some(last) = self.store.journal(None, None, 1)?.pop() else { return Ok(0) };
        if settings.again_ms == 0 {
            return Ok(0);
        }
        let since = pipelines::time::UnixMs(last.at.0.saturating_sub(settings.again_ms));
        let (mut runs, mut before, mut left) = (BTreeSet::new(), None, settings.journal_lines_max);
        'reading: while left > 0 {
            let page = self.store.journal(None, before, left.min(PAGE_LINES))?;
            let Some(oldest) = page.last().map(|entry| entry.seq) else { break };
            (before, left) = (Some(oldest), left.saturating_sub(page.len()));
            for entry in page {
                if entry.at < since {
                    break 'reading;
                }
                runs.extend(self.run_of(&entry)?);
            }
        }
        let number = runs.len();
        self.traces.note(runs.into_iter().collect(), since);
        Ok(number)
    }

    /// The run that a line of the journal is about, or whose release it is about.
    fn run_of(&self, entry: &Entry) -> Result<Option<RunId>, AppError> {
        let Some((what, id)) = entry.subject.split_once(' ') else { return Ok(None) };
        Ok(match what {
            "run" | "release" => id.parse().ok(),
            "rollout" => match id.parse() {
                Ok(id) => self.store.rollout(&id)?.map(|rollout| rollout.release.run()),
                Err(_) => None,
            },
            _ => None,
        })
    }
}
