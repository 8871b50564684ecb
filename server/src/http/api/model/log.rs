//! Logs of steps, and events.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A window of a step's log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogWindow {
    /// The lines, in order.
    pub lines: Vec<LogLine>,
    /// What to give as `from` for the lines after these.
    pub next_from: u64,
    /// Lines that can be read at present.
    pub length: u64,
    /// Lines that were counted and not kept, because the log is full.
    pub dropped: u64,
    /// Whether the step has ended: no new line will come.
    pub finished: bool,
}

/// A line of a log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its number within the step, from 0.
    pub number: u64,
    /// When it was printed, in milliseconds since 1970.
    pub at_ms: u64,
    /// `out`, `err`, or `note` (Windlass itself).
    pub stream: String,
    /// Its text; may hold ANSI colours.
    pub text: String,
}

/// Lines that hold a text.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogSearch {
    /// They.
    pub hits: Vec<LogHit>,
    /// Whether these are all: the bound on lines or hits was not reached.
    pub complete: bool,
}

/// A line that holds the text.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogHit {
    /// In which step.
    pub step: String,
    /// The line.
    #[serde(flatten)]
    pub line: LogLine,
}

/// Something has changed: read it again. The data of an event of `/api/v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Of which service; none where everything is to be read again.
    pub service: Option<String>,
    /// What: `run/412`, `release/412`, `rollout/7`, `log/412`, `service`, `delivery`, `effect`, `mail`; `everything`
    /// where it is not known what was missed.
    pub what: String,
}
