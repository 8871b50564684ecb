//! The logs of a run for its page: which step's lines are shown, a window of them, its errors, a search; and the whole as
//! plain text. Not here: lines as they come (`stream`).

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use pipelines::{ids::RunId, run::Run};

use super::{RunQuery, took};
use crate::{
    app::{
        App, AppError,
        log::LOG_LINES_MAX,
        logs::{NumberedLine, StepLog},
    },
    http::{
        pages::convert::run as convert,
        ui::{
            ansi::Painter,
            log::{LineId, LogGroup, LogHit, LogLine, LogSearch, LogView},
            run::StepState,
        },
    },
};

/// Lines of a step that a page shows at once.
const WINDOW_LINES: u64 = 1_000;
/// Lines before the first error that the window begins with.
const BEFORE_ERROR_LINES: u64 = 100;
/// Lines that tell of an error and that the page knows of.
const ERRORS_MAX: usize = 100;
/// Lines that a search shows.
const HITS_MAX: usize = 200;
/// Characters of a search.
const QUERY_CHARS_MAX: usize = 200;
/// Lines that are searched for to find errors; each is looked at again.
const ERROR_WORDS: [&str; 4] = ["error", "fail", "panic", "fatal"];

/// The logs as the page shows them.
pub(super) async fn log(app: &App, run: &Run, query: &RunQuery) -> Result<LogView, AppError> {
    let logs = app.log_steps(&run.id).await?;
    let mut groups = Vec::with_capacity(logs.len());
    let mut errors = Vec::new();
    for log in &logs {
        let step = index_of(run, &logs, &log.step);
        let record = run.steps.iter().find(|record| record.name == log.step);
        let state = record.map_or(StepState::Passed, |record| convert::step_state(run, record));
        let chosen = match &query.step {
            Some(wanted) => *wanted == log.step,
            None => is_shown(run, &logs, log, state),
        };
        let mut lines = Vec::new();
        if chosen && log.length.lines > 0 {
            let found = match state {
                StepState::Failed | StepState::Fault => error_lines(app, &run.id, &log.step).await?,
                _ => Vec::new(),
            };
            let first = first_shown(query, log, state, found.first().copied());
            lines = window(app, &run.id, log, first, &found).await?;
            errors.extend(found.into_iter().map(|line| LineId { step, line: line + 1 }));
        }
        groups.push(LogGroup {
            step,
            name: log.step.clone(),
            state,
            took_ms: record
                .and_then(|record| convert::step_took_ms(record, app.now()))
                .or_else(|| Some(took(log.first_ms?, log.last_ms?))),
            open: chosen,
            range: (log.length.lines > 0).then_some((1, log.length.lines)),
            lines,
        });
    }
    groups.sort_by_key(|group| group.step);
    errors.sort_unstable();
    Ok(LogView {
        groups,
        total_lines: logs.iter().map(|log| log.length.lines).sum(),
        errors,
        next: super::stream::positions(logs.iter().map(|log| log.length.lines)),
        search: match query.q.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => Some(search(app, run, &logs, text).await?),
            None => None,
        },
        follows: !run.state.is_final(),
        truncated: logs.iter().any(|log| log.length.dropped > 0),
    })
}

/// A step's place in the page. A step that the run's record does not name yet comes after those that it names.
pub(super) fn index_of(run: &Run, logs: &[StepLog], step: &str) -> usize {
    index_of_name(run, logs.iter().position(|log| log.step == step).unwrap_or_default(), step)
}

/// The same of the log that began after `order` others.
pub(super) fn index_of_name(run: &Run, order: usize, step: &str) -> usize {
    run.steps.iter().position(|record| record.name == step).unwrap_or_else(|| run.steps.len() + order)
}

/// Without a choice: what runs or failed, else the last step that wrote something.
fn is_shown(run: &Run, logs: &[StepLog], log: &StepLog, state: StepState) -> bool {
    let is_telling = |state| matches!(state, StepState::Running | StepState::Failed | StepState::Fault);
    if is_telling(state) {
        return true;
    }
    let one_tells = run.steps.iter().any(|record| is_telling(convert::step_state(run, record)));
    !one_tells && logs.last().is_some_and(|last| last.step == log.step)
}

/// The first line of the window, from 0.
fn first_shown(query: &RunQuery, log: &StepLog, state: StepState, first_error: Option<u64>) -> u64 {
    let lines = log.length.lines;
    match (query.step.as_ref().and(query.from), first_error) {
        (Some(from), _) => from.saturating_sub(1).min(lines.saturating_sub(1)),
        (None, _) if lines <= WINDOW_LINES => 0,
        (None, Some(error)) => error.saturating_sub(BEFORE_ERROR_LINES),
        (None, None) if matches!(state, StepState::Running | StepState::Failed | StepState::Fault) => {
            lines - WINDOW_LINES
        }
        (None, None) => 0,
    }
}

async fn window(app: &App, run: &RunId, log: &StepLog, first: u64, errors: &[u64]) -> Result<Vec<LogLine>, AppError> {
    // Lines that came since the lengths were read belong to the stream of live lines.
    let limit = WINDOW_LINES.min(log.length.lines - first);
    let (lines, _) = app.log_read(run, &log.step, first, usize::try_from(limit).unwrap_or(LOG_LINES_MAX)).await?;
    let mut painter = Painter::new();
    let paint = |line: NumberedLine| {
        let is_error = errors.binary_search(&line.number).is_ok();
        LogLine::new(line.number + 1, &line.line.text, is_error, &mut painter)
    };
    Ok(lines.into_iter().map(paint).collect())
}

/// The lines of a failed step that tell of an error, from 0, the first ones.
async fn error_lines(app: &App, run: &RunId, step: &str) -> Result<Vec<u64>, AppError> {
    let mut errors = Vec::new();
    for word in ERROR_WORDS {
        let found = app.log_search(run, step, word, 0, ERRORS_MAX).await?;
        errors.extend(found.hits.iter().filter(|hit| tells_error(&hit.line.text)).map(|hit| hit.number));
    }
    errors.sort_unstable();
    errors.dedup();
    errors.truncate(ERRORS_MAX);
    Ok(errors)
}

/// Whether a line tells of an error, as compilers, test runners and shells write it; `0 errors` and `error.rs` do not.
fn tells_error(text: &str) -> bool {
    let text = text.to_lowercase();
    let is_bad = |word: &str| matches!(word, "error" | "errors" | "fatal" | "failed" | "failure" | "panicked");
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.iter().enumerate().any(|(i, word)| {
        let is_none =
            i > 0 && matches!(words[i - 1].trim_matches(|c: char| !c.is_alphanumeric()), "0" | "no" | "without");
        !is_none && (is_bad(&bare(word)) || word.contains("error[") || word.contains("error:") || word.contains("err!"))
    })
}

async fn search(app: &App, run: &Run, logs: &[StepLog], text: &str) -> Result<LogSearch, AppError> {
    let query: String = text.chars().take(QUERY_CHARS_MAX).collect();
    let mut hits = Vec::new();
    for log in logs {
        let mut from = Some(0);
        while let (Some(at), true) = (from, hits.len() < HITS_MAX) {
            let found = app.log_search(&run.id, &log.step, &query, at, HITS_MAX - hits.len()).await?;
            let mut painter = Painter::new();
            hits.extend(found.hits.iter().map(|hit| LogHit {
                step: index_of(run, logs, &log.step),
                name: log.step.clone(),
                line: LogLine::new(hit.number + 1, &hit.line.text, false, &mut painter),
            }));
            from = found.next_from;
        }
    }
    Ok(LogSearch { query, total: hits.len() as u64, hits })
}

/// The logs of all steps as plain text, piece by piece.
pub(super) fn whole(app: Arc<App>, run: RunId) -> impl Stream<Item = Result<Bytes, AppError>> + Send {
    /// Where the reading stands: the steps to come, the one that is read, its next line.
    struct Place {
        steps: Option<VecDeque<String>>,
        step: Option<(String, u64)>,
    }
    let start = (app, run, Place { steps: None, step: None });
    stream::try_unfold(start, async |(app, run, mut place)| {
        let steps = match &mut place.steps {
            Some(steps) => steps,
            none => none.insert(app.log_steps(&run).await?.into_iter().map(|log| log.step).collect()),
        };
        let mut text = String::new();
        let (step, from) = match place.step.take() {
            Some(at) => at,
            None => {
                let Some(step) = steps.pop_front() else { return Ok(None) };
                text = format!("== {step}\n");
                (step, 0)
            }
        };
        let (lines, _) = app.log_read(&run, &step, from, LOG_LINES_MAX).await?;
        if let Some(last) = lines.last() {
            place.step = Some((step, last.number + 1));
        }
        for line in &lines {
            text.push_str(&line.line.text);
            text.push('\n');
        }
        Ok(Some((Bytes::from(text), (app, run, place))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_tell_of_an_error_are_known_and_others_are_not() {
        for bad in [
            "error: expected `;`",
            "error[E0308]: mismatched types",
            "src/a.c:3:1: fatal error: x.h: No such file",
            "npm ERR! code 1",
            "1 test failed",
            "FAILED tests/test_a.py::test_x",
            "thread 'main' panicked at src/main.rs:2",
            "\u{1b}[31mError:\u{1b}[0m boom",
        ] {
            assert!(tells_error(bad), "{bad}");
        }
        for good in [
            "0 errors, 0 warnings",
            "test errors::tests::reads ... ok",
            "no failed tests",
            "0 failed",
            "compiling error.rs",
        ] {
            assert!(!tells_error(good), "{good}");
        }
    }
}
