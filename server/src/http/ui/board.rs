//! The releases board, and "needs you", which shows the same rows. Not here: how a row's group and reason are found.

use super::markup::icon;
use super::services::ServiceForm;
use super::text::Text;
use super::train::Train;
use super::why::{Sentence, Why};
use super::{Section, links, page};

/// The groups of the board, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the heading that it names")]
pub enum Group {
    NeedsYou,
    Failing,
    Moving,
    Idle,
}

impl Group {
    /// Every group, in the order of the board.
    pub const ALL: [Self; 4] = [Self::NeedsYou, Self::Failing, Self::Moving, Self::Idle];

    /// The id of the group's heading, and its name in `?group=`.
    pub const fn id(self) -> &'static str {
        match self {
            Self::NeedsYou => "needs-you",
            Self::Failing => "failing",
            Self::Moving => "moving",
            Self::Idle => "idle",
        }
    }

    fn name(self, t: &Text<'_>) -> &'static str {
        match self {
            Self::NeedsYou => t.needs_you(),
            Self::Failing => t.failing(),
            Self::Moving => t.moving(),
            Self::Idle => t.idle(),
        }
    }
}

/// What a row offers next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the verb that it names")]
pub enum Next {
    Decide,
    OpenRollout,
    SeeLine(u64),
    SeeLog,
    SeeProblems,
    SeeChecks,
    SeeTries,
    SeeRelease,
    Watch,
    FollowLog,
    AskAgain,
}

/// The one action of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A link to the page where it is done; solid where this person is waited for.
    Go {
        /// What is done there.
        next: Next,
        /// The page.
        href: String,
        /// This person is waited for.
        solid: bool,
    },
    /// Starts a run of an idle service.
    StartRun,
}

/// One service's newest release or run.
#[derive(Debug, Clone, PartialEq)]
pub struct BoardRow {
    /// The service's name.
    pub service: String,
    /// The version of the release; none for a run that has made none.
    pub version: Option<String>,
    /// The number of the run, which is the number of its build.
    pub run: u64,
    /// The commit, abbreviated; empty before the first push.
    pub commit: String,
    /// Where the row stands.
    pub group: Group,
    /// The stations.
    pub train: Train,
    /// Why it is not live yet; none where it is.
    pub why: Option<Why>,
    /// What is next.
    pub action: Option<Action>,
}

impl BoardRow {
    fn href(&self) -> String {
        links::service(&self.service)
    }

    fn why_text(&self, t: &Text<'_>) -> Option<Sentence> {
        self.why.as_ref().map(|why| t.why(why))
    }

    fn run_href(&self) -> String {
        links::service_run(&self.service)
    }
}

/// The board: every service that this person may see, sorted by group, then as the caller gives them.
#[derive(Debug, Clone, PartialEq)]
pub struct BoardView {
    /// All rows, also those that the chosen group hides (they are counted).
    pub rows: Vec<BoardRow>,
    /// The group that alone is shown.
    pub only: Option<Group>,
    /// Shown where there is no service yet.
    pub first: Option<FirstSteps>,
}

/// What a fresh server shows instead of an empty board.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstSteps {
    /// The form for the first service.
    pub form: ServiceForm,
    /// What the server found of its surroundings.
    pub server: Vec<Finding>,
}

/// One line of what `windlass doctor` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Whether it is well.
    pub state: FindingState,
    /// The evidence, as the doctor says it.
    pub evidence: String,
}

/// The outcome of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the outcome that it names")]
pub enum FindingState {
    Good,
    Warning,
    Bad,
}

impl FindingState {
    const fn icon(self) -> &'static str {
        match self {
            Self::Good => "pass",
            Self::Warning => "fault",
            Self::Bad => "fail",
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warn",
            Self::Bad => "bad",
        }
    }
}

impl BoardView {
    fn groups(&self) -> Vec<(Group, Vec<&BoardRow>)> {
        Group::ALL
            .into_iter()
            .filter(|group| self.only.is_none_or(|only| only == *group))
            .map(|group| (group, self.rows.iter().filter(|row| row.group == group).collect::<Vec<_>>()))
            .filter(|(_, rows)| !rows.is_empty())
            .collect()
    }

    fn tabs(&self) -> Vec<(Group, usize)> {
        Group::ALL.into_iter().map(|group| (group, self.rows.iter().filter(|row| row.group == group).count())).collect()
    }

    fn is_only(&self, group: &Group) -> bool {
        self.only == Some(*group)
    }
}

page!(BoardView, BoardPage, "board.html", Section::Board, |_| Some(links::events(&["board"])));

/// What waits for the person who is signed in.
#[derive(Debug, Clone, PartialEq)]
pub struct NeedsYouView {
    /// Their rows, the most urgent first.
    pub rows: Vec<BoardRow>,
}

page!(NeedsYouView, NeedsYouPage, "needs_you.html", Section::None, |_| Some(links::events(&["board"])));
