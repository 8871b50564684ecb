//! What is wrong with a pipeline file, where, and what to write instead; and how that is printed.
//! The rules themselves live with the keys that they are about.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::visible;

/// Whether a problem stops the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and something in it is probably not meant.
    Warning,
}

/// The kind of a problem; stable, so that tools can look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The file is not UTF-8 text, or holds characters that YAML forbids.
    NotText,
    /// The file is larger, deeper or has more nodes than the limits allow.
    TooLarge,
    /// The file is not well-formed YAML.
    Syntax,
    /// The file is well-formed, but uses a part of YAML that has no place here (aliases, tags, several documents).
    YamlFeature,
    /// The file says nothing.
    Empty,
    /// A key is written twice in one mapping.
    DuplicateKey,
    /// A key that is not known.
    UnknownKey,
    /// A key or value that is planned and does not work yet.
    NotSupportedYet,
    /// A key that must be there is not.
    MissingKey,
    /// A list where text belongs, and the like.
    WrongType,
    /// A value of the right type that is not allowed.
    BadValue,
    /// Two entries with the same name.
    DuplicateName,
    /// A reference to a step that does not exist.
    UnknownStep,
    /// Steps that wait for each other.
    Cycle,
    /// Two keys that contradict each other.
    Conflict,
    /// The repository has no pipeline file for the service, or one with the wrong name.
    NoFile,
    /// No base config of the catalog has this name and version.
    UnknownBase,
    /// A chart value that the base config does not know or does not allow.
    ChartValue,
}

impl Code {
    /// The code as it is printed and serialised.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::NotText => "not-text",
            Code::TooLarge => "too-large",
            Code::Syntax => "syntax",
            Code::YamlFeature => "yaml-feature",
            Code::Empty => "empty",
            Code::DuplicateKey => "duplicate-key",
            Code::UnknownKey => "unknown-key",
            Code::NotSupportedYet => "not-supported-yet",
            Code::MissingKey => "missing-key",
            Code::WrongType => "wrong-type",
            Code::BadValue => "bad-value",
            Code::DuplicateName => "duplicate-name",
            Code::UnknownStep => "unknown-step",
            Code::Cycle => "cycle",
            Code::Conflict => "conflict",
            Code::NoFile => "no-file",
            Code::UnknownBase => "unknown-base",
            Code::ChartValue => "chart-value",
        }
    }
}

/// A place in a file. Lines and columns start at 1 and count characters; a line of 0 means the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The line, from 1; 0 for the whole file.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// How many characters are meant, all on that line.
    pub span_len: u32,
}

/// One problem of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// Whether it stops the pipeline.
    pub severity: Severity,
    /// The kind of the problem.
    pub code: Code,
    /// What is wrong, in one line.
    pub message: String,
    /// Why that is a problem, where the message does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The path of the file in the repository.
    pub file: String,
    /// The line, from 1; 0 for the whole file.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// How many characters are meant, all on that line.
    pub span_len: u32,
}

impl Diagnostic {
    /// An error at a place; the file is filled in by whoever collects it.
    pub fn error(code: Code, place: Place, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Error,
            code,
            message: message.into(),
            why: None,
            help: None,
            file: String::new(),
            line: place.line,
            column: place.column,
            span_len: place.span_len,
        }
    }

    /// A warning at a place.
    pub fn warning(code: Code, place: Place, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, place, message) }
    }

    /// Adds why it is a problem.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says which file it is about.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = file.into();
        self
    }

    /// Whether it stops the pipeline.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// How much of a long source line is shown around the caret, in characters.
const EXCERPT_MAX_CHARS: usize = 120;

/// Prints the problems as plain text: position, the line, a caret, why, and what to write instead.
///
/// The text is stable and safe to show: characters of the source that could disturb a terminal are replaced.
pub fn render(diagnostics: &[Diagnostic], source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut out = String::new();
    for diagnostic in diagnostics {
        render_one(&mut out, diagnostic, &lines);
        out.push('\n');
    }
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = diagnostics.len() - errors;
    if let Some(summary) = summary(errors, warnings) {
        out.push_str(&summary);
        out.push('\n');
    }
    out
}

fn summary(errors: usize, warnings: usize) -> Option<String> {
    let count = |n: usize, word: &str| match n {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{n} {word}s")),
    };
    let parts: Vec<String> = [count(errors, "error"), count(warnings, "warning")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn render_one(out: &mut String, diagnostic: &Diagnostic, lines: &[&str]) {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{severity}[{}]: {}", diagnostic.code.as_str(), clean(&diagnostic.message));
    let number = diagnostic.line.to_string();
    let margin = " ".repeat(number.len());
    let index = usize::try_from(diagnostic.line).unwrap_or(usize::MAX).checked_sub(1);
    if let Some(index) = index {
        let _ = writeln!(out, "{margin}--> {}:{}:{}", clean(&diagnostic.file), diagnostic.line, diagnostic.column);
        let line = lines.get(index).copied().unwrap_or("");
        let (excerpt, caret) = excerpt(line, diagnostic.column, diagnostic.span_len);
        let _ = writeln!(out, "{margin} |");
        let _ = writeln!(out, "{}", format!("{number} | {excerpt}").trim_end());
        let _ = writeln!(out, "{margin} | {caret}");
    } else if !diagnostic.file.is_empty() {
        let _ = writeln!(out, "{margin}--> {}", clean(&diagnostic.file));
    }
    if diagnostic.why.is_some() || diagnostic.help.is_some() {
        if index.is_some() {
            let _ = writeln!(out, "{margin} |");
        }
        for (word, text) in [("why", &diagnostic.why), ("help", &diagnostic.help)] {
            if let Some(text) = text {
                let _ = writeln!(out, "{margin} = {word}: {}", clean(text));
            }
        }
    }
}

fn clean(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// The part of the line around the span, and the carets that stand under it.
fn excerpt(line: &str, column: u32, span_len: u32) -> (String, String) {
    let characters: Vec<char> = line.chars().map(visible).collect();
    let to_index = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let start = to_index(column).saturating_sub(1).min(characters.len());
    let end = start.saturating_add(to_index(span_len).max(1)).min(characters.len().max(start + 1));
    let from = if characters.len() <= EXCERPT_MAX_CHARS { 0 } else { start.saturating_sub(EXCERPT_MAX_CHARS / 3) };
    let to = characters.len().min(from + EXCERPT_MAX_CHARS);
    let mut shown = String::new();
    let mut caret = String::new();
    if from > 0 {
        shown.push('…');
        caret.push(' ');
    }
    shown.extend(&characters[from..to]);
    if to < characters.len() {
        shown.push('…');
    }
    let width = |from: usize, to: usize| -> usize {
        (from..to).map(|index| characters.get(index).map_or(1, |c| columns(*c))).sum()
    };
    caret.push_str(&" ".repeat(width(from, start)));
    caret.push_str(&"^".repeat(width(start, end.min(to.max(start + 1)))));
    (shown, caret)
}

/// How many columns of a terminal a character takes (East Asian wide characters take two; Unicode Annex 11, the
/// blocks that occur in practice).
fn columns(character: char) -> usize {
    match u32::from(character) {
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        0x0300..=0x036f | 0x200b..=0x200d => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_code_equals_the_serialised_one() {
        for code in [Code::NotText, Code::YamlFeature, Code::NotSupportedYet, Code::ChartValue] {
            assert_eq!(serde_json::json!(code), serde_json::json!(code.as_str()));
        }
    }

    #[test]
    fn the_caret_stands_under_wide_characters() {
        let (line, caret) = excerpt("service: 结账", 10, 2);
        assert_eq!((line.as_str(), caret.as_str()), ("service: 结账", "         ^^^^"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let line = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let (shown, caret) = excerpt(&line, 501, 4);
        assert!(shown.chars().count() <= EXCERPT_MAX_CHARS + 2);
        let under: String = shown.chars().zip(caret.chars()).filter(|(_, c)| *c == '^').map(|(s, _)| s).collect();
        assert_eq!(under, "HERE");
    }

    #[test]
    fn a_place_outside_of_the_source_does_not_panic() {
        let place = Place { line: u32::MAX, column: u32::MAX, span_len: u32::MAX };
        let text = render(&[Diagnostic::error(Code::Syntax, place, "x").in_file("f")], "a\n");
        assert!(text.contains("f:4294967295:4294967295"));
        let (_, caret) = excerpt("abc", 3, u32::MAX);
        assert_eq!(caret, "  ^");
    }
}
