//! A run's log as the page shows it: folded by step, in a window of lines. Not here: where the lines are stored, searched
//! and streamed from.

use super::ansi::Painter;
use super::markup::Markup;
use super::run::StepState;
use super::text::Text;

/// A line's place in the page: its anchor is `L3.187`, of the step with index 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineId {
    /// The step's index in the run.
    pub step: usize,
    /// Its number in the step's log, from 1.
    pub line: u64,
}

impl std::fmt::Display for LineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.step, self.line)
    }
}

/// One line, painted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number in the step's log, from 1.
    pub number: u64,
    /// Its text, escaped and coloured.
    pub html: Markup,
    /// It tells of an error.
    pub error: bool,
}

impl LogLine {
    /// Paints a line as it was stored (masked already).
    pub fn new(number: u64, text: &str, error: bool, painter: &mut Painter) -> Self {
        Self { number, html: painter.line(text), error }
    }

    /// The line's element, without a line end: also the data of a live `line` event. `step` is the index of its step.
    pub fn element(&self, step: usize) -> Markup {
        let id = LineId { step, line: self.number };
        let mut p = Markup::known("<p id=\"L");
        p.figures(format_args!("{id}"));
        p.raw("\" data-in=\"step-");
        p.figures(format_args!("{step}"));
        p.raw(if self.error { "\" class=\"err\"><a href=\"#L" } else { "\"><a href=\"#L" });
        p.figures(format_args!("{id}"));
        p.raw("\">");
        p.figures(format_args!("{}", self.number));
        p.raw("</a><span>");
        p.append(&self.html);
        p.raw("</span></p>");
        p
    }
}

/// Says that lines of a step are left out, and leads to them: the data of a live `line` event for a page that is far behind.
pub fn gap(step: usize, lines: u64, href: &str, t: &Text<'_>) -> Markup {
    let mut p = Markup::known("<p data-in=\"step-");
    p.figures(format_args!("{step}"));
    p.raw("\"><a href=\"");
    p.text(href);
    p.raw("\">…</a><span class=\"dim\">");
    p.text(&t.lines_left_out(lines));
    p.raw("</span></p>");
    p
}

/// The lines of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroup {
    /// The step's index in the run, which its element's id holds.
    pub step: usize,
    /// The step's name.
    pub name: String,
    /// How it went.
    pub state: StepState,
    /// How long it took, or takes so far.
    pub took_ms: Option<i64>,
    /// Unfolded: the step that failed or runs.
    pub open: bool,
    /// The first and last line of the step's log; none where it wrote nothing.
    pub range: Option<(u64, u64)>,
    /// The lines within the window; fewer than the range where the window ends.
    pub lines: Vec<LogLine>,
}

impl LogGroup {
    /// Lines of this step that stand before the window.
    pub(super) fn before(&self) -> Option<(u64, u64)> {
        let (first, last) = self.range?;
        match self.lines.first() {
            Some(line) if line.number > first => Some((first, line.number - 1)),
            Some(_) => None,
            None => Some((first, last)),
        }
    }

    /// Lines of this step that stand after the window.
    pub(super) fn after(&self) -> Option<(u64, u64)> {
        let (_, last) = self.range?;
        self.lines.last().filter(|line| line.number < last).map(|line| (line.number + 1, last))
    }
}

/// What a search of the whole log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSearch {
    /// What was asked.
    pub query: String,
    /// The lines that hold it, the first ones where there are more.
    pub hits: Vec<LogHit>,
    /// How many lines hold it.
    pub total: u64,
}

/// A line that a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHit {
    /// The step's index.
    pub step: usize,
    /// The step's name.
    pub name: String,
    /// The line.
    pub line: LogLine,
}

/// A run's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogView {
    /// The steps that have begun, in their order.
    pub groups: Vec<LogGroup>,
    /// How many lines the logs of all steps have.
    pub total_lines: u64,
    /// The lines that tell of an error, in the page's order; the first ones where there are many.
    pub errors: Vec<LineId>,
    /// How many lines of each log the page has, in the order in which the logs began: from there live lines go on.
    pub next: String,
    /// The last search, if one was asked.
    pub search: Option<LogSearch>,
    /// The log grows: the page follows its end.
    pub follows: bool,
    /// Lines were dropped because the log reached its bound.
    pub truncated: bool,
}
