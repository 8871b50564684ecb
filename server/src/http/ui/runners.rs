//! The queue and the runners: what waits and why, who works on what. Not here: where it comes from.

use super::markup::{Markup, icon};
use super::text::Text;
use super::why::{Sentence, Why};
use super::{Press, Section, links, page};

/// A run that is linked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLink {
    /// Its service.
    pub service: String,
    /// Its number.
    pub number: u64,
}

impl RunLink {
    fn href(&self) -> String {
        links::run(&self.service, self.number)
    }
}

/// A run that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingLine {
    /// Which.
    pub run: RunLink,
    /// Its place, from 1.
    pub position: u64,
    /// Since when.
    pub since_ms: i64,
    /// Why.
    pub why: Why,
    /// Runners that were lost with it.
    pub lost: Vec<String>,
}

impl WaitingLine {
    fn sentence(&self, t: &Text<'_>) -> Sentence {
        t.why(&self.why)
    }

    fn cancel(&self) -> String {
        links::run_verb(&self.run.service, self.run.number, "cancel")
    }
}

/// Whether a runner is given work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerState {
    /// It is.
    Active,
    /// It gets nothing new.
    Draining,
    /// It was not heard of lately.
    Silent,
}

/// A runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerLine {
    /// Its name.
    pub name: String,
    /// It is part of the server.
    pub embedded: bool,
    /// Whether it is given work.
    pub state: RunnerState,
    /// When it was last heard of.
    pub heard_at_ms: i64,
    /// Its labels: data.
    pub labels: String,
    /// Runs at the same time.
    pub capacity: u64,
    /// Its version.
    pub version: String,
    /// What it has.
    pub runs: Vec<RunLink>,
    /// `drain` or `resume`, with its button.
    pub steer: (&'static str, Press),
    /// The button that removes it; none for the embedded one.
    pub remove: Option<Press>,
}

impl RunnerLine {
    fn busy(&self) -> u64 {
        self.runs.len() as u64
    }

    fn tone(&self) -> &'static str {
        match self.state {
            RunnerState::Active => "ok",
            RunnerState::Draining => "warn",
            RunnerState::Silent => "bad",
        }
    }

    fn shape(&self) -> Markup {
        icon(match self.state {
            RunnerState::Active => "pass",
            RunnerState::Draining => "hold",
            RunnerState::Silent => "fault",
        })
    }
}

/// The page.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnersView {
    /// Runs that wait, the first ones.
    pub waiting: Vec<WaitingLine>,
    /// How many wait.
    pub waiting_in_all: u64,
    /// The runners, by name.
    pub runners: Vec<RunnerLine>,
    /// The visitor may make a token.
    pub can_register: bool,
    /// The token that was just made, and until when it is good; shown this once.
    pub new_token: Option<(String, i64)>,
    /// The address of this server.
    pub server_url: String,
}

page!(RunnersView, RunnersPage, "runners.html", Section::Runners, |_| Some(links::events(&["board"])));
