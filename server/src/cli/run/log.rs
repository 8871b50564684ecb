//! `windlass run log`: the lines that the steps printed, from any line on, also while they are printed.

use std::collections::HashSet;

use pipelines::ids::RunId;
use serde::Serialize;
use server::http::api::model::{self, Answer};

use super::path;
use crate::cli::{
    Context,
    client::Client,
    exit::Exit,
    failure::Failure,
    follow::{Follow, FollowArguments},
    output::{clean, clean_log, print},
};

/// Lines asked for at once.
const LINES: u64 = 1_000;

/// Print the log of a run, or of one of its steps
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which: SERVICE/NUMBER
    run: RunId,
    /// Only this step
    step: Option<String>,
    /// Go on while new lines come
    #[arg(short, long)]
    follow: bool,
    /// From this line of the step on, counted from 0
    #[arg(long, default_value_t = 0, requires = "step", value_name = "LINE")]
    from: u64,
    #[command(flatten)]
    until: FollowArguments,
}

/// A line as programs read it.
#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    #[serde(flatten)]
    line: &'a model::LogLine,
}

/// Prints the lines. Ends with 0; the run's own result is for `run watch`.
pub(super) async fn run(context: &Context, client: &Client, arguments: &Arguments) -> Result<Exit, Failure> {
    let id = &arguments.run;
    if arguments.follow {
        context.detach(format!("the run goes on; look again: windlass run log {id} -f"));
    }
    let mut follow = arguments.until.follow(client, &context.out, id.service.as_str());
    let mut read: HashSet<String> = HashSet::new();
    loop {
        let run: Answer<model::Run> = follow.look(&format!("cannot read the log of {id}"), &path(id, ""), &[]).await?;
        let run = run.it;
        let goes_on = arguments.follow && !run.finished;
        if let Some(wanted) = &arguments.step
            && !goes_on
            && !run.steps.iter().any(|step| step.name == *wanted)
        {
            return Err(no_such_step(&run, wanted));
        }
        let wanted = |step: &&model::Step| arguments.step.as_ref().is_none_or(|wanted| step.name == *wanted);
        for step in run.steps.iter().filter(wanted).filter(|step| step.started_at_ms.is_some()) {
            if read.insert(step.name.clone()) {
                if arguments.step.is_none() && !context.out.is_json() {
                    print(&format!("{}\n", context.out.paint.bold(&format!("── {}", clean(&step.name)))))?;
                }
                read_step(context, &mut follow, id, &step.name, arguments).await?;
            }
        }
        if !goes_on || arguments.step.as_ref().is_some_and(|step| read.contains(step)) {
            return Ok(Exit::Ok);
        }
        follow.changed().await?;
    }
}

/// Prints a step's lines: those that are there, and with `--follow` those that come, to the step's end.
async fn read_step(
    context: &Context,
    follow: &mut Follow,
    run: &RunId,
    step: &str,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let encoded: String = url::form_urlencoded::byte_serialize(step.as_bytes()).collect();
    let path = path(run, &format!("/steps/{}/log", encoded.replace('+', "%20")));
    let what = format!("cannot read the log of {run}, step {step}");
    let mut from = arguments.from;
    loop {
        let query = [("from", from.to_string()), ("limit", LINES.to_string())];
        let window: Answer<model::LogWindow> = follow.look(&what, &path, &query).await?;
        let window = window.it;
        window.lines.iter().try_for_each(|line| show(context, step, line))?;
        let went_on = window.next_from > from;
        from = window.next_from;
        if went_on && from < window.length {
            continue;
        }
        if window.finished && window.dropped > 0 {
            context.out.note(&format!("{} more lines were not kept: the log is full", window.dropped));
        }
        if window.finished || !arguments.follow {
            return Ok(());
        }
        let stream = format!("{path}/stream");
        follow
            .stream(&what, &stream, &[("from", from.to_string())], |event| {
                if event.event == "line" {
                    let line: model::LogLine = serde_json::from_str(&event.data)
                        .map_err(|error| Failure::new(Exit::Unexpected, what.clone()).because(&error))?;
                    show(context, step, &line)?;
                    from = line.number + 1;
                }
                Ok(event.event == "end")
            })
            .await?;
    }
}

fn show(context: &Context, step: &str, line: &model::LogLine) -> Result<(), Failure> {
    if context.out.is_json() {
        return context.out.line("LogLine", &Line { step, line });
    }
    print(&format!("{}\n", clean_log(&line.text, context.out.paint)))
}

fn no_such_step(run: &model::Run, wanted: &str) -> Failure {
    let names: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
    let failure = Failure::new(Exit::NotFound, format!("cannot read the log of the step {wanted}"));
    let failure = failure.why(format!("the run has these steps: {}", names.join(", ")));
    match pipelines::definition::nearest(wanted, names.iter().copied()) {
        Some(meant) => failure.next(format!("windlass run log {}/{} {meant}", run.service, run.number)),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::a_run;
    use super::*;

    #[test]
    fn a_step_that_is_not_there_is_guessed() {
        let failure = no_such_step(&a_run("failed"), "tets");
        assert_eq!((failure.exit, failure.next[0].as_str()), (Exit::NotFound, "windlass run log shop/7 test"));
    }
}
