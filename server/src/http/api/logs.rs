//! The logs of a run's steps: windows of lines, search, and lines as they come. Not here: the logs of the pages, which are
//! painted.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use pipelines::ids::RunId;
use serde::Deserialize;
use tokio::{sync::broadcast, time::Instant};

use super::{
    Reply,
    model::{self, Answer},
    reply,
};
use crate::{
    app::{
        App, AppError, Changed,
        logs::{NumberedLine, Stream},
    },
    http::{
        events::{self, KEEP_ALIVE, Resume, Room, SILENCE},
        extract::{Ask, OfRun, OfStep},
        problem::Problem,
    },
};

/// Lines of a window, where nothing is asked for.
const LINES: usize = 500;
/// Characters of an unknown step's name that are repeated.
const STEP_SHOWN_CHARS: usize = 64;
/// Lines that are read at once for a stream, and bytes: as much is held for each viewer.
const STREAM_LINES: usize = 1_000;
const STREAM_BYTES: usize = 32 << 10;
/// A stream looks again after this time at the latest, whatever it was told.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Which lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WindowQuery {
    /// The first line, from 0.
    pub from: u64,
    /// How many at most, up to 5000; without it 500.
    pub limit: Option<usize>,
}

/// A window of a step's log.
#[utoipa::path(get, path = "/api/v1/services/{service}/runs/{number}/steps/{step}/log", tag = "logs",
    params(("service" = String, Path), ("number" = u32, Path), ("step" = String, Path), WindowQuery),
    responses((status = 200, body = Answer<model::LogWindow>, description = "the lines that are there")))]
pub async fn show_log(
    State(app): State<Arc<App>>,
    OfRun(id): OfRun,
    OfStep(step): OfStep,
    Ask(query): Ask<WindowQuery>,
) -> Reply<model::LogWindow> {
    check_step(&app, &id, &step).await?;
    let is_over = is_over(&app, &id, &step)?;
    let (lines, length) = app.log_read(&id, &step, query.from, query.limit.unwrap_or(LINES).max(1)).await?;
    let next_from = lines.last().map_or(query.from, |line| line.number + 1);
    reply(model::LogWindow {
        lines: lines.into_iter().map(line).collect(),
        next_from,
        length: length.lines,
        dropped: length.dropped,
        finished: is_over || length.finished,
    })
}

/// What to look for.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// The text. Without a capital letter in it, capitals do not matter.
    pub text: String,
    /// Only in this step.
    pub step: Option<String>,
    /// How many lines at most, up to 500; without it 100.
    pub limit: Option<usize>,
}

/// Lines of a run that hold a text.
#[utoipa::path(get, path = "/api/v1/services/{service}/runs/{number}/log/search", tag = "logs",
    params(("service" = String, Path), ("number" = u32, Path), SearchQuery),
    responses((status = 200, body = Answer<model::LogSearch>, description = "they, in order")))]
pub async fn search_log(
    State(app): State<Arc<App>>,
    OfRun(id): OfRun,
    Ask(query): Ask<SearchQuery>,
) -> Reply<model::LogSearch> {
    app.run(&id)?;
    if query.text.is_empty() {
        return Err(AppError::Invalid("the text to look for is missing".into()).into());
    }
    let limit = query.limit.unwrap_or(100).clamp(1, crate::app::log::LOG_HITS_MAX);
    if let Some(step) = &query.step {
        check_step(&app, &id, step).await?;
    }
    let steps = app.log_steps(&id).await?.into_iter().map(|log| log.step);
    let (mut hits, mut complete) = (Vec::new(), true);
    for step in steps.filter(|step| query.step.as_ref().is_none_or(|only| only == step)) {
        if hits.len() >= limit {
            complete = false;
            break;
        }
        let found = app.log_search(&id, &step, &query.text, 0, limit - hits.len()).await?;
        complete &= found.next_from.is_none();
        hits.extend(found.hits.into_iter().map(|it| model::LogHit { step: step.clone(), line: line(it) }));
    }
    reply(model::LogSearch { hits, complete })
}

/// Where a stream of lines begins.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// The first line, from 0.
    pub from: u64,
    /// The last line that came, for programs that cannot send the header `Last-Event-ID`.
    pub last_event_id: Option<String>,
}

/// The lines of a step as they come: events named `line` whose id is the line's number and whose data is a `LogLine`; at
/// the end of the step one named `end`. The header `Last-Event-ID` resumes it without a line lost or doubled.
#[utoipa::path(get, path = "/api/v1/services/{service}/runs/{number}/steps/{step}/log/stream", tag = "logs",
    params(("service" = String, Path), ("number" = u32, Path), ("step" = String, Path), StreamQuery),
    responses((status = 200, description = "a stream of events", body = model::LogLine, content_type = "text/event-stream")))]
pub async fn stream_log(
    State(app): State<Arc<App>>,
    Resume(resume): Resume,
    OfRun(id): OfRun,
    OfStep(step): OfStep,
    Ask(query): Ask<StreamQuery>,
) -> Result<Response, Problem> {
    check_step(&app, &id, &step).await?;
    let last: Option<u64> = resume.and_then(|id| id.parse().ok());
    let from = last.map_or(query.from, |last| last.saturating_add(1));
    let room = Room::take(&app)?;
    let receiver = app.changes();
    let lines = Lines { app, id, step, from, room, receiver, is_over: false };
    Ok(events::answer_written(lines, Lines::next))
}

struct Lines {
    app: Arc<App>,
    id: RunId,
    step: String,
    from: u64,
    room: Room,
    receiver: broadcast::Receiver<Changed>,
    is_over: bool,
}

impl Lines {
    async fn next(mut self) -> Option<(String, Self)> {
        if self.is_over {
            return None;
        }
        let silent_until = Instant::now() + KEEP_ALIVE;
        loop {
            match self.read().await {
                Ok((events, is_over)) if is_over || !events.is_empty() => {
                    self.is_over = is_over;
                    return Some((events, self));
                }
                Ok(_) if Instant::now() >= silent_until => return Some((SILENCE.to_owned(), self)),
                Ok(_) => self.changed().await?,
                Err(error) => {
                    // The other end connects again and gets the error as an answer.
                    tracing::warn!(run = %self.id, step = self.step, %error, "a stream of lines ended early");
                    return None;
                }
            }
        }
    }

    /// The lines that are there, and whether they are the last.
    async fn read(&mut self) -> Result<(String, bool), AppError> {
        // Asked before the lines are read: what comes in between is then still waited for.
        let is_over = is_over(&self.app, &self.id, &self.step)?;
        // The length first: lines that come in between are then known to be more, and not taken for the end.
        let (_, length) = self.app.log_read(&self.id, &self.step, self.from, 0).await?;
        let lines = self.app.log_read_some(&self.id, &self.step, self.from, STREAM_LINES, STREAM_BYTES).await?;
        self.from = lines.last().map_or(self.from, |line| line.number + 1);
        let is_over = (is_over || length.finished) && self.from >= length.lines;
        let mut events = String::with_capacity(2 * STREAM_BYTES);
        for it in lines {
            let number = it.number;
            // JSON has no end of a line in it, so it is one line of the event.
            if let Ok(line) = serde_json::to_string(&line(it)) {
                let _ = write!(events, "event: line\nid: {number}\ndata: {line}\n\n");
            }
        }
        if is_over {
            events.push_str("event: end\ndata: {}\n\n");
        }
        Ok((events, is_over))
    }

    /// Waits until there may be more; none at the end of the stream's time.
    async fn changed(&mut self) -> Option<()> {
        let names = [format!("log/{}", self.id.number), format!("run/{}", self.id.number)];
        let (id, receiver) = (&self.id, &mut self.receiver);
        let told = async {
            loop {
                match receiver.recv().await {
                    Ok(changed) if changed.service == id.service && names.contains(&changed.what) => return,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        };
        self.room.within(tokio::time::timeout(LOOK_AGAIN, told)).await.map(|_| ())
    }
}

/// Refuses a step that the run does not have and will not get. Before the pipeline file was read any step may still come.
async fn check_step(app: &App, id: &RunId, step: &str) -> Result<(), Problem> {
    let run = app.run(id)?;
    let earlier = step.rsplit_once('+').and_then(|(_, attempt)| attempt.parse::<u32>().ok());
    if earlier.is_some_and(|attempt| (1..run.attempt).contains(&attempt)) {
        return Ok(());
    }
    if run.steps.iter().any(|record| record.name == step) || (run.plan.is_none() && !run.state.is_final()) {
        return Ok(());
    }
    let mut names: Vec<String> = run.steps.into_iter().map(|record| record.name).collect();
    let logs = app.log_steps(id).await?.into_iter().map(|log| log.step);
    names.extend(logs.filter(|name| !names.contains(name)).collect::<Vec<_>>());
    if names.iter().any(|name| name == step) {
        return Ok(());
    }
    let next = match names.as_slice() {
        [] => "the run ended before its first step began".to_owned(),
        names => format!("its steps are {}", names.join(", ")),
    };
    let step: String = step.chars().take(STEP_SHOWN_CHARS).collect();
    Err(Problem::new(StatusCode::NOT_FOUND, "not-found", format!("run {id} has no step {step}")).next(next))
}

/// Whether no further line of the step will come, by what the run says: a step that was cut off has no end of its own.
fn is_over(app: &App, id: &RunId, step: &str) -> Result<bool, AppError> {
    let run = app.run(id)?;
    let has_ended = run.steps.iter().any(|record| record.name == step && record.outcome.is_some());
    Ok(run.state.is_final() || has_ended)
}

fn line(line: NumberedLine) -> model::LogLine {
    model::LogLine {
        number: line.number,
        at_ms: line.line.time_ms,
        stream: match line.line.stream {
            Stream::Out => "out",
            Stream::Err => "err",
            Stream::Note => "note",
        }
        .to_owned(),
        text: line.line.text,
    }
}
