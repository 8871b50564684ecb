//! How the command line speaks: data on standard output as text or versioned JSON, everything else on standard error.
//! Not here: progress (`progress`) and errors (`failure`).

use std::io::{self, IsTerminal as _, Write as _};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use server::http::api::model::{API_VERSION, Answer};

use super::failure::Failure;

/// What is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people; it may change with every version.
    Text,
    /// For programs: one versioned document; of `watch`, one per line.
    Json,
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(bool);

impl Paint {
    /// None.
    pub(crate) const OFF: Self = Self(false);
    #[cfg(test)]
    pub(crate) const ON: Self = Self(true);

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Whether there are any.
    pub(crate) fn is_on(self) -> bool {
        self.0
    }

    /// It is well.
    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// It needs a look.
    pub(crate) fn warn(self, text: &str) -> String {
        self.with("33", text)
    }

    /// It failed.
    pub(crate) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// It moves.
    pub(crate) fn moving(self, text: &str) -> String {
        self.with("36", text)
    }

    /// A side matter.
    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// A head.
    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
}

/// Where and how a command prints.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Text or JSON.
    pub(crate) format: Format,
    /// Colours on standard output.
    pub(crate) paint: Paint,
    /// Colours on standard error.
    pub(crate) paint_err: Paint,
    /// Whether standard error is a terminal that can be drawn on.
    pub(crate) is_live: bool,
}

impl Output {
    /// For this process: colours only on a terminal and never with `NO_COLOR`.
    pub(crate) fn of_process(format: Format) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = !set("NO_COLOR") && !dumb;
        Self {
            format,
            paint: Paint(colours && io::stdout().is_terminal()),
            paint_err: Paint(colours && io::stderr().is_terminal()),
            is_live: !dumb && io::stderr().is_terminal(),
        }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints the result: `data` for programs, or what `text` makes of it for people.
    pub(crate) fn result<T: Serialize>(
        &self,
        kind: &str,
        data: &T,
        text: impl FnOnce(Paint) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&text(self.paint)),
            Format::Json => print(&format!("{}\n", document(kind, data, true)?)),
        }
    }

    /// Prints one line of a stream for programs; nothing for people, who have the progress.
    pub(crate) fn line<T: Serialize>(&self, kind: &str, data: &T) -> Result<(), Failure> {
        match self.format {
            Format::Text => Ok(()),
            Format::Json => print(&format!("{}\n", document(kind, data, false)?)),
        }
    }

    /// Prints an answer of the server: as it is for programs, or what `text` makes of it for people.
    pub(crate) fn answer<T: Serialize>(
        &self,
        answer: &Answer<T>,
        text: impl FnOnce(Paint, &T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&text(self.paint, &answer.it)),
            Format::Json => print(&format!("{}\n", json(answer, true)?)),
        }
    }

    /// Prints an answer of the server as one line of a stream for programs; nothing for people.
    pub(crate) fn event<T: Serialize>(&self, answer: &Answer<T>) -> Result<(), Failure> {
        match self.format {
            Format::Text => Ok(()),
            Format::Json => print(&format!("{}\n", json(answer, false)?)),
        }
    }

    /// Says how something ended, to people only: programs have it in the data.
    pub(crate) fn said(&self, text: impl FnOnce(Paint) -> String) {
        if self.format == Format::Text {
            self.note(&text(self.paint_err));
        }
    }

    /// Says something beside the data.
    pub(crate) fn note(&self, text: &str) {
        // Nobody may be there to read it, and then nothing is lost.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// As the API wraps its answers: version and kind beside the thing itself, which therefore is an object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, T> {
    api_version: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    it: &'a T,
}

/// The JSON text of a document.
pub(crate) fn document<T: Serialize>(kind: &str, it: &T, is_pretty: bool) -> Result<String, Failure> {
    json(&Document { api_version: API_VERSION, kind, it }, is_pretty)
}

fn json<T: Serialize>(it: &T, is_pretty: bool) -> Result<String, Failure> {
    let text = if is_pretty { serde_json::to_string_pretty(it) } else { serde_json::to_string(it) };
    text.map_err(|error| Failure::new(super::exit::Exit::Unexpected, "cannot write the result as JSON").because(&error))
}

/// Writes to standard output at once.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::closed()
        } else {
            Failure::new(super::exit::Exit::Unexpected, "cannot write to standard output").because(&error)
        }
    })
}

/// Text from elsewhere, safe to show in one line: control characters are taken out.
pub(crate) fn clean(text: &str) -> String {
    console::strip_ansi_codes(text).chars().filter(|c| !is_unsafe(*c)).collect()
}

/// A line of a log, safe to show: colours stay where there are colours, whatever else steers a terminal goes.
pub(crate) fn clean_log(text: &str, paint: Paint) -> String {
    if !paint.is_on() {
        return clean(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut coloured = false;
    for (part, is_code) in console::AnsiCodeIterator::new(text) {
        if !is_code {
            safe.extend(part.chars().filter(|c| !is_unsafe(*c)));
        } else if is_colour(part) {
            safe.push_str(part);
            coloured = true;
        }
    }
    if coloured {
        safe.push_str("\u{1b}[0m");
    }
    safe
}

fn is_colour(code: &str) -> bool {
    let inside = code.strip_prefix("\u{1b}[").and_then(|rest| rest.strip_suffix('m'));
    inside.is_some_and(|inside| inside.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')))
}

/// Control characters, and those that turn the direction of a text around.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A table for people: columns as wide as their widest cell, two spaces between.
pub(crate) fn table(paint: Paint, heads: &[&str], rows: &[Vec<String>]) -> String {
    let width_of = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| console::measure_text_width(cell));
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width_of).collect();
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', 2 + width.saturating_sub(console::measure_text_width(cell))));
        }
        format!("{}\n", text.trim_end())
    };
    let heads: Vec<String> = heads.iter().map(|head| paint.dim(head)).collect();
    let mut text = line(&heads);
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text
}

/// Lines of `name  value`, aligned.
pub(crate) fn fields(paint: Paint, fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let there = fields.iter().filter(|(_, value)| !value.is_empty());
    there.map(|(name, value)| format!("{}  {value}\n", paint.dim(&format!("{name:width$}")))).collect()
}

/// Shape, word and colour of a state.
pub(crate) fn state(paint: Paint, word: &str) -> String {
    let words = clean(&word.replace('_', " "));
    match word {
        "succeeded" | "live" | "completed" | "approved" | "passed" | "cached" | "healthy" => {
            paint.good(&format!("✓ {words}"))
        }
        "failed" | "test_failed" | "rejected" | "rolled_back" | "rolling_back" | "draining_back" | "refused"
        | "timed_out" | "failing" => paint.bad(&format!("✗ {words}")),
        "queued" | "waiting_for_test" | "waiting_for_rollout" | "waiting" | "pending" => {
            paint.dim(&format!("… {words}"))
        }
        "held" | "awaiting_approval" | "open" | "expired" | "paused" | "needs_you" | "insufficient" => {
            paint.warn(&format!("! {words}"))
        }
        "cancelled" | "declined" | "superseded" | "retired" | "skipped" | "ignored" | "idle" | "disabled" => {
            paint.dim(&format!("- {words}"))
        }
        _ => paint.moving(&format!("● {words}")),
    }
}

/// A span as people say it: `4 m 10 s`.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if ms < 1_000 => format!("{ms} ms"),
        (0, 0, 0) if ms < 10_000 => format!("{}.{} s", seconds, ms / 100 % 10),
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => two(minutes, "m", rest, "s"),
        (0, ..) => two(hours, "h", minutes, "m"),
        _ => two(days, "d", hours, "h"),
    }
}

fn two(large: u64, unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {small_unit}") }
}

/// How long ago a moment was, or how long it still takes.
pub(crate) fn ago(at_ms: u64, now_ms: u64) -> String {
    if at_ms > now_ms { format!("in {}", span(at_ms - now_ms)) } else { format!("{} ago", span(now_ms - at_ms)) }
}

/// The time by our clock, in milliseconds since 1970.
pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// A moment in a time zone: `2026-11-23 12:50 CET`.
pub(crate) fn moment(at_ms: u64, zone: &TimeZone) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()).unwrap_or_default()
}

/// An amount of bytes as people say it.
pub(crate) fn bytes(amount: u64) -> String {
    indicatif::HumanBytes(amount).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_also_with_colours_and_wide_characters() {
        let rows = vec![
            vec!["shop".to_owned(), Paint::ON.good("✓ live"), "3".to_owned()],
            vec!["\u{7ed3}\u{8d26}".to_owned(), "x".to_owned(), "12".to_owned()],
        ];
        let text = console::strip_ansi_codes(&table(Paint::ON, &["SERVICE", "STATE", "RELEASE"], &rows)).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "SERVICE  STATE   RELEASE");
        assert_eq!(lines[1], "shop     ✓ live  3");
        assert_eq!(lines[2], "\u{7ed3}\u{8d26}     x       12");
    }

    #[test]
    fn spans_are_said_in_two_units_at_most() {
        let said: Vec<String> = [0, 900, 1_250, 59_000, 250_000, 7_260_000, 180_000_000].map(span).into();
        assert_eq!(said, ["0 ms", "900 ms", "1.2 s", "59 s", "4 m 10 s", "2 h 1 m", "2 d 2 h"]);
    }

    #[test]
    fn a_moment_has_its_time_zone() {
        assert_eq!(moment(1_795_434_600_000, &TimeZone::UTC), "2026-11-23 11:50 UTC");
        assert_eq!(ago(1_000, 61_000), "1 m ago");
        assert_eq!(ago(61_000, 1_000), "in 1 m");
    }

    #[test]
    fn a_log_line_keeps_its_colours_and_nothing_else_that_steers() {
        let line = "\u{1b}[31mred\u{1b}[0m \u{1b}[2J\u{1b}]0;title\u{7}gone\rover";
        assert_eq!(clean_log(line, Paint::ON), "\u{1b}[31mred\u{1b}[0m goneover\u{1b}[0m");
        assert_eq!(clean_log(line, Paint::OFF), "red goneover");
    }

    #[test]
    fn json_is_versioned() {
        let text = document("Version", &serde_json::json!({"version": "1"}), false).unwrap();
        assert_eq!(text, r#"{"apiVersion":"windlass/v1","kind":"Version","version":"1"}"#);
    }
}
