//! A station of a run while it is at work: its log, its begin and its end as the server sees them.

use pipelines::protocol::{Report, RunnerLink, StepOutcome};
use pipelines::time::UnixMs;

use super::{Halt, Work};
use crate::link::RunLink;
use crate::log::{Numbering, StationLog, now};

/// A station that was begun.
#[derive(Debug)]
pub(super) struct Station<'a, L> {
    link: &'a RunLink<L>,
    name: String,
    pub(super) log: StationLog,
}

impl<'a, L: RunnerLink + 'static> Station<'a, L> {
    /// Begins a station, or takes it up again.
    pub(super) async fn begin(work: &Work<'a, L>, name: &str, numbering: Numbering) -> Self {
        work.link.report(Report::StepStarted { step: name.to_owned(), at: now() }).await;
        let log = StationLog::open(work.link, name, numbering, &work.job.bounds, &work.masks()).await;
        Self { link: work.link, name: name.to_owned(), log }
    }

    /// A line of our own.
    pub(super) async fn say(&mut self, text: &str) {
        self.log.say(text).await;
    }

    /// Ends the station with what its work gave. The log is acknowledged before the end is told.
    pub(super) async fn end<T>(mut self, result: Result<T, Halt>) -> Result<T, Halt> {
        self.log.finish().await;
        let outcome = match &result {
            Ok(_) => StepOutcome::Passed,
            Err(halt) => {
                match halt {
                    Halt::Failed { reason, details, .. } => {
                        self.say(details).await;
                        self.say(reason).await;
                    }
                    Halt::EngineAway { reason } => self.say(reason).await,
                    Halt::Stopped => self.say("stopped").await,
                    // Told where it is found out, behind the station.
                    Halt::Unfit(_) => {}
                }
                halt.outcome()
            }
        };
        self.close(outcome, now()).await;
        result
    }

    /// Ends the station with an outcome.
    pub(super) async fn close(self, mut outcome: StepOutcome, at: UnixMs) {
        if let StepOutcome::Failed { reason, .. } = &mut outcome {
            *reason = self.log.mask(reason);
        }
        self.log.close().await;
        self.link.report(Report::StepFinished { step: self.name, at, outcome }).await;
    }
}
