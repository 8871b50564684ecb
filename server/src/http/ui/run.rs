//! One run: its steps at the left, its log at the right, and first of all whose failure it is. Not here: how the run went.

use pipelines::hold::Proposal;

use super::log::{LineId, LogView};
use super::markup::{icon, icon_in};
use super::text::Text;
use super::train::Train;
use super::why::{Phase, Why};
use super::{Press, Section, links, page};

/// How a step of a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the state that it names")]
pub enum StepState {
    NotReached,
    Waiting,
    Running,
    Passed,
    Reused,
    Skipped,
    Failed,
    Fault,
    Cancelled,
}

impl StepState {
    pub(super) const fn icon(self) -> &'static str {
        match self {
            Self::NotReached | Self::Waiting => "todo",
            Self::Running => "move",
            Self::Passed | Self::Reused => "pass",
            Self::Skipped | Self::Cancelled => "skip",
            Self::Failed => "fail",
            Self::Fault => "fault",
        }
    }

    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Running => "acc",
            Self::Failed => "bad",
            Self::Fault => "warn",
            _ => "dim",
        }
    }
}

/// One step: a step of the file, or checkout, image and push around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// How it went.
    pub state: StepState,
    /// How long it took, or takes so far.
    pub took_ms: Option<i64>,
    /// The median of the last runs.
    pub usual_ms: Option<i64>,
}

/// The state of a run, for its title.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the state that it names")]
pub enum RunState {
    /// Waits for a person's word.
    Held,
    /// It was held and is not executed.
    Declined,
    Queued {
        position: u64,
        of: u64,
    },
    Running {
        phase: Phase,
    },
    Passed,
    /// The code failed.
    Failed {
        phase: Phase,
    },
    FileInvalid,
    CommitGone,
    /// The infrastructure failed.
    Fault {
        phase: Phase,
    },
    Cancelled,
}

/// What started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the trigger that it names")]
pub enum Trigger {
    Push,
    Tag,
    PullRequest,
    Poll,
    Manual,
    Rerun,
}

/// One problem of the pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// File, line and column: `.windlass.yaml:7:3`.
    pub at: String,
    /// What is wrong.
    pub message: String,
    /// The excerpt with its caret, several lines.
    pub excerpt: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

/// What whoever is asked about a held run sees, and may press.
#[derive(Debug, Clone, PartialEq)]
pub struct AskView {
    /// Lets it go on.
    pub allow: Press,
    /// Refuses it; posts `reason`.
    pub decline: Press,
    /// Where the forge shows all that it changes.
    pub compare_href: Option<String>,
    /// What would run; none until its commit was looked at.
    pub proposal: Option<Proposal>,
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunView {
    /// The service.
    pub service: String,
    /// The run's number within the service.
    pub run: u64,
    /// The commit, abbreviated.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// Branch, tag or pull request.
    pub ref_name: String,
    /// Who pushed or started it.
    pub by: String,
    /// What started it.
    pub trigger: Trigger,
    /// When it was asked for.
    pub at_ms: i64,
    /// How long it took, or takes so far; none while it waits.
    pub took_ms: Option<i64>,
    /// Its state.
    pub state: RunState,
    /// Whose failure it is, or what it waits for; none for a run that passed.
    pub why: Option<Why>,
    /// The version that is live and stays so where the run failed.
    pub stays_live: Option<String>,
    /// The question, for a held run.
    pub ask: Option<AskView>,
    /// What the pipeline file has wrong.
    pub problems: Vec<FileProblem>,
    /// The pushed digest of a run that passed.
    pub digest: Option<String>,
    /// Where its release is; none for a run that makes none.
    pub train: Option<Train>,
    /// Its steps, checkout first, push last.
    pub steps: Vec<StepView>,
    /// How many past runs the medians are taken over.
    pub median_over: u64,
    /// Its log.
    pub log: LogView,
    /// Runs all again.
    pub rerun: Press,
    /// Ends it; posts `reason`.
    pub cancel: Press,
}

/// A step's bar, in hundredths of the longest.
pub(super) struct Bar {
    pub(super) width: u32,
    pub(super) tick: Option<u32>,
}

impl RunView {
    fn is_live(&self) -> bool {
        matches!(self.state, RunState::Held | RunState::Queued { .. } | RunState::Running { .. })
    }

    fn bar(&self, step: &StepView) -> Option<Bar> {
        let longest = self.steps.iter().flat_map(|s| [s.took_ms, s.usual_ms]).flatten().max().filter(|ms| *ms > 0)?;
        let part = |ms: i64| u32::try_from(ms.max(0) * 97 / longest).unwrap_or(97).max(2);
        Some(Bar { width: part(step.took_ms?), tick: step.usual_ms.map(part) })
    }

    fn is_current(&self, step: &StepView) -> bool {
        matches!(step.state, StepState::Failed | StepState::Fault | StepState::Running)
    }

    fn note_class(&self) -> &'static str {
        match self.state {
            RunState::Failed { .. } | RunState::FileInvalid | RunState::CommitGone => "bad-row",
            _ => "sheet",
        }
    }

    fn note_icon(&self) -> super::markup::Markup {
        match self.state {
            RunState::Failed { .. } | RunState::FileInvalid | RunState::CommitGone => icon_in("fail", "bad"),
            RunState::Fault { .. } => icon_in("fault", "warn"),
            RunState::Held => icon_in("hold", "warn"),
            RunState::Queued { .. } => icon("wait"),
            RunState::Running { .. } => icon_in("move", "acc"),
            RunState::Cancelled | RunState::Declined => icon("skip"),
            RunState::Passed => icon_in("pass", "ok"),
        }
    }

    fn title(&self, t: &Text<'_>) -> String {
        t.run_title(self.run, &self.state)
    }

    fn note_rest(&self, t: &Text<'_>) -> Option<String> {
        match self.state {
            RunState::Failed { .. } | RunState::FileInvalid | RunState::CommitGone => {
                Some(t.nothing_pushed(self.stays_live.as_deref()))
            }
            _ => None,
        }
    }

    fn is_code_failure(&self) -> bool {
        matches!(self.state, RunState::Failed { .. } | RunState::FileInvalid | RunState::CommitGone)
    }

    fn first_error(&self) -> Option<LineId> {
        self.log.errors.first().copied()
    }

    fn second_error(&self) -> Option<LineId> {
        self.log.errors.get(1).copied()
    }

    fn events(&self) -> String {
        links::run_events(&self.service, self.run, &self.log.next)
    }

    /// The page with a window of a step's log that begins at a line.
    fn window(&self, step: &str, line: u64) -> String {
        links::run_window(&self.service, self.run, step, line)
    }

    fn whole_log(&self) -> String {
        links::run_log(&self.service, self.run)
    }

    fn href(&self) -> String {
        links::run(&self.service, self.run)
    }

    fn topic(&self) -> String {
        format!("run:{}:{}", self.service, self.run)
    }
}

page!(RunView, RunPage, "run.html", Section::Board, |v| v.is_live().then(|| v.events()));
