//! A run that waits for the word of a person: what it would do, how it may end without one, and the bounds of waiting.
//! Not here: the transition (`run`), and reading the commit (a driver).

use serde::{Deserialize, Serialize};

/// Bounds of runs that wait for a person's word, per service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HoldBounds {
    /// How many may wait; one more declines the oldest.
    pub runs_max: u32,
    /// How long one waits, in milliseconds; then it is declined.
    pub expires_ms: u64,
}

impl Default for HoldBounds {
    fn default() -> Self {
        Self { runs_max: 20, expires_ms: 7 * 24 * 3_600_000 }
    }
}

/// How a held run ends without a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum HoldEnd {
    /// Nobody said a word in time.
    Expired,
    /// The pull request moved: the newer commit asks anew.
    Superseded {
        /// Number of the newer run.
        by: u32,
    },
    /// More runs waited than may.
    Crowded,
}

impl HoldEnd {
    /// The reason as people read it.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Expired => "nobody allowed it in time".into(),
            Self::Superseded { by } => format!("the pull request moved, and run {by} asks anew"),
            Self::Crowded => "too many runs of forks waited; the oldest made room".into(),
        }
    }
}

/// Lines of a difference that are kept.
pub const DIFF_LINES_MAX: usize = 200;
/// Steps that are kept.
pub const STEPS_MAX: usize = 50;
/// Characters of one kept line.
pub const LINE_CHARS_MAX: usize = 300;

/// What a held run would do, as its commit says it. Written by a stranger: texts are bounded and hold no control or
/// direction characters, and are still only text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Proposal {
    /// The pipeline file that the commit has.
    pub pipeline_file: Option<String>,
    /// Whether the release branch has another one, or none.
    pub file_changed: bool,
    /// Lines of the difference between the two files; each begins with `+`, `-` or a space.
    pub diff: Vec<String>,
    /// The steps that would run.
    pub steps: Vec<ProposedStep>,
    /// Files that differ from the release branch.
    pub files_changed: u64,
    /// Why less is known than should be.
    pub problem: Option<String>,
}

/// A step that would run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProposedStep {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its commands.
    pub commands: Vec<String>,
}

/// A stranger's text on one line as people may see it: bounded; control characters and those that turn the direction
/// of writing are escaped.
#[must_use]
pub fn plain_line(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars().take(LINE_CHARS_MAX) {
        if is_unsafe(c) { plain.extend(c.escape_unicode()) } else { plain.push(c) }
    }
    plain
}

/// Control characters but the tab, and what hides or reorders text (Unicode's bidirectional controls, UAX #9, and
/// characters without a width).
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The difference of two texts by lines: what both have at the begin and the end is left out but for three lines around.
#[must_use]
pub fn diff_lines(before: &str, after: &str) -> Vec<String> {
    const AROUND: usize = 3;
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same_head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same_head;
    let same_tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    if same_head == old.len() && same_head == new.len() {
        return Vec::new();
    }
    let line = |mark: char, text: &&str| format!("{mark}{}", plain_line(text));
    let mut lines: Vec<String> =
        old[same_head.saturating_sub(AROUND)..same_head].iter().map(|l| line(' ', l)).collect();
    lines.extend(old[same_head..old.len() - same_tail].iter().map(|l| line('-', l)));
    lines.extend(new[same_head..new.len() - same_tail].iter().map(|l| line('+', l)));
    lines.extend(new[new.len() - same_tail..].iter().take(AROUND).map(|l| line(' ', l)));
    lines
}

/// Cuts lines to what is kept, and says so.
#[must_use]
pub fn bounded_lines(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > DIFF_LINES_MAX {
        let more = lines.len() - DIFF_LINES_MAX;
        lines.truncate(DIFF_LINES_MAX);
        lines.push(format!(" … {more} more lines"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_changed_with_a_little_around() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\ni\n";
        let after = "a\nb\nc\nd\nE\nf\ng\nh\ni\n";
        assert_eq!(diff_lines(before, after), [" b", " c", " d", "-e", "+E", " f", " g", " h"]);
        assert_eq!(diff_lines("", "x\n"), ["+x"]);
        assert_eq!(diff_lines("x\nx\n", "x\n"), [" x", "-x"]);
        assert!(diff_lines(before, before).is_empty());
    }

    #[test]
    fn a_strangers_line_cannot_hide_or_turn_what_it_says() {
        assert_eq!(plain_line("rm \u{202e}x\u{1b}[31m\ty"), "rm \\u{202e}x\\u{1b}[31m\ty");
        assert_eq!(plain_line(&"x".repeat(1_000)).len(), LINE_CHARS_MAX);
        assert_eq!(bounded_lines(vec!["x".into(); 300]).len(), DIFF_LINES_MAX + 1);
    }
}
