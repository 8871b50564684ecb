//! A rollout: what it does, what comes next and when, its weights, its measures against stable, its checks. Not here: the judge.

use super::approval::Health;
use super::markup::{Markup, icon, icon_in};
use super::plot::Plot;
use super::text::Text;
use super::train::Train;
use super::why::{Figure, Limit, Measure, Why};
use super::{Disabled, Section, links, page};

/// How a release takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the strategy that it names")]
pub enum Strategy {
    Canary,
    BlueGreen,
    Rolling,
}

/// The state of a rollout, for its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the state that it names")]
pub enum RolloutState {
    Starting,
    Healthy,
    Held,
    Paused,
    RollingBack,
    RolledBack,
    Aborted,
    Failed,
    Done,
}

/// One step of the staircase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightStep {
    /// The weight of the new version.
    pub percent: u32,
    /// Where the step stands.
    pub state: WeightState,
}

/// Where a step of the staircase stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the state that it names; spans in ms")]
pub enum WeightState {
    Passed { took_ms: i64 },
    Now { left_ms: Option<i64> },
    Held { since_ms: i64 },
    NotYet { hold_ms: Option<i64> },
    BackFrom,
}

/// What the judge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the verdict that it names")]
pub enum Verdict {
    Pass,
    Fail,
    Insufficient,
}

impl Verdict {
    fn name(self, t: &Text<'_>) -> &'static str {
        match self {
            Self::Pass => t.pass(),
            Self::Fail => t.fail(),
            Self::Insufficient => t.insufficient(),
        }
    }

    const fn icon(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Insufficient => "few",
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Pass => "ok",
            Self::Fail => "bad",
            Self::Insufficient => "warn",
        }
    }
}

/// One check of the judge.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRow {
    /// What it measures.
    pub measure: Measure,
    /// As the pipeline file names it, or the name of the test.
    pub query: String,
    /// The last verdict.
    pub verdict: Verdict,
    /// What the verdict rests on, where it is not plain.
    pub note: Option<CheckNote>,
    /// The new version's figure; none without data.
    pub canary: Option<Figure>,
    /// The stable version's.
    pub stable: Option<Figure>,
    /// The limit.
    pub limit: Limit,
    /// How many requests of the new version it rests on.
    pub requests: u64,
    /// The last verdicts, oldest first.
    pub history: Vec<Verdict>,
}

/// What a verdict rests on.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are the figures of the note")]
pub enum CheckNote {
    TooFew { have: u64, need: u64 },
    NoDifference { p: f64 },
    Difference { p: f64 },
    FailedOnce { at_ms: i64, in_a_row: u32 },
    NoData,
}

/// What a person can do to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the consequence that the button says")]
pub enum Verb {
    Promote { to_percent: u32 },
    PromoteFully,
    Pause { at_percent: u32 },
    Resume,
    Abort { to: Option<String> },
    Replace { by: String },
    TryAgain,
}

impl Verb {
    /// The value of the form's `verb`.
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Promote { .. } => "promote",
            Self::PromoteFully => "promote-fully",
            Self::Pause { .. } => "pause",
            Self::Resume => "resume",
            Self::Abort { .. } => "abort",
            Self::Replace { .. } => "replace",
            Self::TryAgain => "try-again",
        }
    }

    const fn is_abort(&self) -> bool {
        matches!(self, Self::Abort { .. } | Self::Replace { .. })
    }
}

/// A verb's button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerbButton {
    /// What it does.
    pub verb: Verb,
    /// Why it cannot be pressed now. Abort always can while the rollout runs.
    pub disabled: Option<Disabled>,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutView {
    /// The service.
    pub service: String,
    /// The rollout's number within the service.
    pub number: u64,
    /// The build that takes over.
    pub build: u64,
    /// Its version.
    pub version: String,
    /// The version that it takes over from; none for the first.
    pub from: Option<String>,
    /// How.
    pub strategy: Strategy,
    /// Its state.
    pub state: RolloutState,
    /// The weight now, and the step of how many.
    pub percent: u32,
    /// The step, from 1.
    pub step: usize,
    /// One sentence: what comes next and when, or what happened.
    pub why: Why,
    /// Where the release is.
    pub train: Train,
    /// The steps of a canary; the replaced containers of a rolling update are its steps too.
    pub steps: Vec<WeightStep>,
    /// The preview's address and health, for blue-green.
    pub preview: Option<(String, Health)>,
    /// The plots; none before there is data.
    pub plots: Vec<Plot>,
    /// The checks.
    pub checks: Vec<CheckRow>,
    /// How often the judge looks.
    pub judged_every_ms: i64,
    /// Since when its window runs: the acknowledgement of the last route.
    pub judged_since_ms: Option<i64>,
    /// What can be done.
    pub verbs: Vec<VerbButton>,
}

/// A step as the template writes it.
pub(super) struct Stair {
    pub(super) percent: u32,
    pub(super) top: u32,
    pub(super) class: &'static str,
    pub(super) icon: &'static str,
    pub(super) now: bool,
    pub(super) word: &'static str,
    pub(super) below: String,
}

impl RolloutView {
    fn title(&self, t: &Text<'_>) -> String {
        t.rollout_title(self)
    }

    fn lead(&self, t: &Text<'_>) -> String {
        t.rollout_lead(self)
    }

    fn crumb(&self, t: &Text<'_>) -> String {
        t.rollout_of(&self.version)
    }

    fn action(&self) -> String {
        links::rollout(&self.service, self.number)
    }

    fn stairs(&self, t: &Text<'_>) -> Vec<Stair> {
        let last = self.steps.len().saturating_sub(1);
        self.steps
            .iter()
            .enumerate()
            .map(|(i, step)| {
                let percent = step.percent.min(100);
                let (class, icon, word, below) = match step.state {
                    WeightState::Passed { took_ms } => ("w-done", "done", t.passed(), t.duration(took_ms)),
                    WeightState::Now { left_ms } => {
                        ("w-move", "move", t.healthy(), left_ms.map_or(String::new(), |ms| t.left(ms)))
                    }
                    WeightState::Held { since_ms } => ("w-move", "hold", t.held(), t.age(since_ms)),
                    WeightState::NotYet { .. } if i == last => ("w-todo", "todo", t.not_yet(), t.then_live()),
                    WeightState::NotYet { hold_ms } => {
                        ("w-todo", "todo", t.not_yet(), hold_ms.map_or(String::new(), |ms| t.holds(ms)))
                    }
                    WeightState::BackFrom => ("w-done", "back", t.went_back(), String::new()),
                };
                let now = matches!(step.state, WeightState::Now { .. } | WeightState::Held { .. });
                Stair { percent, top: 100 - percent, class, icon, now, word, below }
            })
            .collect()
    }

    fn success_plots(&self, t: &Text<'_>) -> Vec<Markup> {
        self.plots.iter().filter(|plot| plot.measure == Measure::SuccessRate).map(|plot| plot.markup(t)).collect()
    }

    fn latency_plots(&self, t: &Text<'_>) -> Vec<Markup> {
        self.plots.iter().filter(|plot| plot.measure != Measure::SuccessRate).map(|plot| plot.markup(t)).collect()
    }

    fn topic(&self) -> String {
        format!("rollout:{}:{}", self.service, self.number)
    }

    fn state_icon(&self) -> Option<Markup> {
        Some(match self.state {
            RolloutState::Held | RolloutState::Paused => icon_in("hold", "warn"),
            RolloutState::RollingBack | RolloutState::RolledBack | RolloutState::Aborted => icon_in("back", "warn"),
            RolloutState::Failed => icon_in("fail", "bad"),
            _ => return None,
        })
    }
}

page!(RolloutView, RolloutPage, "rollout.html", Section::Board, |v| Some(links::events(&[&v.topic()])));
