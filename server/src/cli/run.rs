//! `windlass run`: runs of a service, their logs, and watching one to its end.

mod log;

use pipelines::ids::{RunId, ServiceName};
use reqwest::Method;
use serde_json::json;
use server::http::api::model::{self, Answer, List};

use super::{
    Context,
    client::Client,
    exit::Exit,
    failure::Failure,
    follow::FollowArguments,
    list::{ListArguments, older},
    output::{Paint, ago, clean, fields, moment, now, span, state, table},
    progress::Progress,
    release,
    status::short,
};

/// Runs: list, look at, start, stop, watch
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the runs of a service, newest first
    List(ListArguments),
    /// Show a run with its steps
    Show {
        /// Which: SERVICE/NUMBER
        run: RunId,
    },
    Log(log::Arguments),
    /// Run the newest commit of a branch or tag
    Start {
        /// Which service
        service: ServiceName,
        /// Branch or tag; by default the release branch
        #[arg(long = "ref", value_name = "REF")]
        git_ref: Option<String>,
        #[command(flatten)]
        watch: WatchNew,
    },
    /// Stop a run
    Cancel {
        /// Which: SERVICE/NUMBER
        run: RunId,
        /// Why; people see it
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a held run go on: a pull request from a fork
    Allow {
        /// Which: SERVICE/NUMBER
        run: RunId,
        #[command(flatten)]
        watch: WatchNew,
    },
    /// Refuse a held run
    Decline {
        /// Which: SERVICE/NUMBER
        run: RunId,
        /// Why; people see it
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Run the same commit once more
    Rerun {
        /// Which: SERVICE/NUMBER
        run: RunId,
        #[command(flatten)]
        watch: WatchNew,
    },
    /// Watch a run to its end; the command ends with its result
    Watch {
        /// Which: SERVICE/NUMBER
        run: RunId,
        /// Go on with the release that it makes, until that is live
        #[arg(long)]
        until_live: bool,
        #[command(flatten)]
        follow: FollowArguments,
    },
}

#[derive(Debug, clap::Args)]
struct WatchNew {
    /// Watch it to its end
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    follow: FollowArguments,
}

/// Does what the verb says.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    match &arguments.verb {
        Verb::List(asked) => {
            let service = &asked.service;
            let what = format!("cannot list the runs of {service}");
            let path = format!("api/v1/services/{service}/runs");
            let all: Answer<List<model::Run>> = client.get(&what, &path, &asked.query()).await?;
            context.out.answer(&all, list)?;
            Ok(Exit::Ok)
        }
        Verb::Show { run } => {
            let found: Answer<model::Run> = client.get(&format!("cannot show run {run}"), &path(run, ""), &[]).await?;
            context.out.answer(&found, |paint, found| show(context, paint, found))?;
            Ok(Exit::Ok)
        }
        Verb::Log(arguments) => log::run(context, &client, arguments).await,
        Verb::Start { service, git_ref, watch } => {
            let what = format!("cannot start a run of {service}");
            let new = model::NewRun { git_ref: git_ref.clone() };
            let path = format!("api/v1/services/{service}/runs");
            let new: Answer<model::Run> = client.send(&what, Method::POST, &path, &new).await?;
            started(context, &client, new, watch).await
        }
        Verb::Cancel { run, reason } => {
            let what = format!("cannot stop run {run}");
            let body = model::Cancel { reason: reason.clone() };
            let now: Answer<model::Run> = client.send(&what, Method::POST, &path(run, "/cancel"), &body).await?;
            context.out.answer(&now, |paint, now| format!("{} {run}\n", state(paint, &now.state)))?;
            Ok(Exit::Ok)
        }
        Verb::Allow { run, watch } => {
            let what = format!("cannot allow run {run}");
            let now: Answer<model::Run> = client.send(&what, Method::POST, &path(run, "/allow"), &json!({})).await?;
            started(context, &client, now, watch).await
        }
        Verb::Decline { run, reason } => {
            let what = format!("cannot decline run {run}");
            let body = model::Decline { reason: reason.clone() };
            let now: Answer<model::Run> = client.send(&what, Method::POST, &path(run, "/decline"), &body).await?;
            context.out.answer(&now, |paint, now| format!("{} {run}\n", state(paint, &now.state)))?;
            Ok(Exit::Ok)
        }
        Verb::Rerun { run, watch } => {
            let what = format!("cannot repeat run {run}");
            let new: Answer<model::Run> = client.send(&what, Method::POST, &path(run, "/rerun"), &json!({})).await?;
            started(context, &client, new, watch).await
        }
        Verb::Watch { run, until_live, follow } => watch(context, &client, run, *until_live, follow).await,
    }
}

fn path(run: &RunId, rest: &str) -> String {
    format!("api/v1/services/{}/runs/{}{rest}", run.service, run.number)
}

async fn started(
    context: &Context,
    client: &Client,
    new: Answer<model::Run>,
    arguments: &WatchNew,
) -> Result<Exit, Failure> {
    let id = format!("{}/{}", new.it.service, new.it.number);
    if !arguments.watch {
        context.out.answer(&new, |paint, _| format!("{} run {id}\n", paint.good("✓")))?;
        return Ok(Exit::Ok);
    }
    let id = id.parse().map_err(|error| Failure::new(Exit::Unexpected, "cannot watch the new run").because(&error))?;
    watch(context, client, &id, false, &arguments.follow).await
}

async fn watch(
    context: &Context,
    client: &Client,
    run: &RunId,
    until_live: bool,
    arguments: &FollowArguments,
) -> Result<Exit, Failure> {
    context.detach(format!("the run goes on; look again: windlass run watch {run}"));
    let mut follow = arguments.follow(client, &context.out, run.service.as_str());
    let mut progress = Progress::new(&context.out);
    let mut last = String::new();
    let ended = loop {
        let seen: Answer<model::Run> = follow.look(&format!("cannot watch run {run}"), &path(run, ""), &[]).await?;
        let text = output_of(&seen);
        if text != last {
            progress.aside(|| context.out.event(&seen))?;
            last = text;
        }
        draw(&mut progress, context.out.paint_err, &seen.it);
        if seen.it.finished {
            break seen.it;
        }
        if arguments.exit_when_waiting && ended_by_person(&seen.it.why) {
            progress.clear();
            return Ok(Exit::WaitingForPerson);
        }
        follow.changed().await?;
    };
    progress.clear();
    let exit = exit_of(&ended);
    context.out.said(|paint| format!("{} run {run}: {}", state(paint, &ended.state), clean(&ended.why.text)));
    match ended.release {
        Some(number) if exit == Exit::Ok && until_live => {
            let release = pipelines::ids::ReleaseId::new(run.service.clone(), number);
            release::watch(context, client, &release, arguments).await
        }
        _ => Ok(exit),
    }
}

/// What makes two looks different to a reader.
fn output_of(run: &Answer<model::Run>) -> String {
    serde_json::to_string(run).unwrap_or_default()
}

/// Whether nothing happens until a person acts.
pub(super) fn ended_by_person(why: &model::Why) -> bool {
    !matches!(why.person.kind.as_str(), "nobody" | "")
}

/// The exit code for a run that is over.
fn exit_of(run: &model::Run) -> Exit {
    match run.state.as_str() {
        "succeeded" | "passed" => Exit::Ok,
        "cancelled" | "declined" => Exit::Aborted,
        "held" => Exit::WaitingForPerson,
        _ => Exit::RunFailed,
    }
}

fn draw(progress: &mut Progress, paint: Paint, run: &model::Run) {
    for step in &run.steps {
        let reason = step.reason.as_deref().unwrap_or_default();
        match step.state.as_str() {
            "waiting" => {}
            "running" => progress.moves(&step.name, "running"),
            over => {
                let took = step.started_at_ms.zip(step.finished_at_ms).map(|(from, to)| span(to.saturating_sub(from)));
                let took = took.map(|took| format!(" in {took}")).unwrap_or_default();
                let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                let mark = state(paint, over);
                progress.ends(&step.name, mark.trim(), &format!("{}{why}", took.trim_start()));
            }
        }
    }
    if !run.finished {
        progress.moves(&format!("{}/{}", run.service, run.number), &run.why.text);
    }
}

fn list(paint: Paint, all: &List<model::Run>) -> String {
    if all.items.is_empty() {
        return "there was no run yet\n".into();
    }
    let row = |run: &model::Run| {
        let took = run.started_at_ms.map(|from| span(run.finished_at_ms.unwrap_or_else(now).saturating_sub(from)));
        vec![
            run.number.to_string(),
            state(paint, &run.state),
            short(&run.commit.sha),
            clean(run.git_ref.trim_start_matches("refs/heads/").trim_start_matches("refs/")),
            clean(&run.trigger),
            ago(run.created_at_ms, now()),
            took.unwrap_or_default(),
            clean(&run.commit.subject),
        ]
    };
    let rows: Vec<_> = all.items.iter().map(row).collect();
    table(paint, &["RUN", "STATE", "COMMIT", "REF", "BY", "WHEN", "TOOK", "SUBJECT"], &rows) + &older(paint, all)
}

fn show(context: &Context, paint: Paint, run: &model::Run) -> String {
    let at = |at: Option<u64>| at.map(|at| moment(at, &context.zone)).unwrap_or_default();
    let queue = run.queue.as_ref().map(|place| format!("{} of {}", place.position, place.of)).unwrap_or_default();
    let blame = match run.blame.as_deref() {
        Some("infrastructure") => paint.warn("the infrastructure, not the code"),
        Some(_) => "the code".to_owned(),
        None => String::new(),
    };
    let mut text = fields(
        paint,
        &[
            ("run", paint.bold(&format!("{}/{}", clean(&run.service), run.number))),
            ("state", state(paint, &run.state)),
            ("why", clean(&run.why.text)),
            ("at fault", blame),
            ("queue", queue),
            ("commit", format!("{} {}", short(&run.commit.sha), clean(&run.commit.subject))),
            ("author", clean(&run.commit.author)),
            ("ref", clean(&run.git_ref)),
            ("by", format!("{} ({})", clean(&run.trigger), clean(&run.trigger_source))),
            ("asked by", run.requested_by.as_deref().map(clean).unwrap_or_default()),
            ("runner", run.runner.as_deref().map(clean).unwrap_or_default()),
            ("created", at(Some(run.created_at_ms))),
            ("started", at(run.started_at_ms)),
            ("finished", at(run.finished_at_ms)),
            ("digest", run.digest.as_deref().map(clean).unwrap_or_default()),
            (
                "image of",
                run.reused_from.map(|from| format!("run {from}: the inputs are the same")).unwrap_or_default(),
            ),
            ("release", run.release.map(|release| release.to_string()).unwrap_or_default()),
            ("allowed", run.allowed_by.as_deref().map(clean).unwrap_or_default()),
            ("compare", run.comparison_url.as_deref().map(clean).unwrap_or_default()),
        ],
    );
    if let Some(proposal) = run.proposal.as_ref().filter(|_| run.state == "held") {
        text.push_str(&proposed(paint, proposal));
    }
    if !run.steps.is_empty() {
        let row = |step: &model::Step| {
            let took =
                step.started_at_ms.map(|from| span(step.finished_at_ms.unwrap_or_else(now).saturating_sub(from)));
            let code = step.exit_code.filter(|code| *code != 0).map(|code| format!("exit code {code}"));
            let reason = step.reason.as_deref().map(clean).or(code).unwrap_or_default();
            vec![clean(&step.name), state(paint, &step.state), took.unwrap_or_default(), reason]
        };
        text.push('\n');
        text.push_str(&table(paint, &["STEP", "STATE", "TOOK", ""], &run.steps.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

/// What a held run would do: a stranger wrote it.
fn proposed(paint: Paint, proposal: &model::Proposal) -> String {
    let mut text = String::from("\n");
    if let Some(problem) = &proposal.problem {
        text.push_str(&format!("{}\n", paint.warn(&clean(problem))));
    }
    text.push_str(&format!("{} files differ from the release branch\n", proposal.files_changed));
    for step in &proposal.steps {
        text.push_str(&format!("would run {} in {}\n", paint.bold(&clean(&step.name)), clean(&step.image)));
        text.extend(step.commands.iter().map(|command| format!("  {}\n", clean(command))));
    }
    if proposal.file_changed {
        text.push_str(&paint.warn("it changes the pipeline file:"));
        text.push('\n');
        text.extend(proposal.diff.iter().map(|line| format!("  {}\n", clean(line))));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_held_run_would_do_is_shown_and_cannot_steer_the_terminal() {
        let step = model::ProposedStep { name: "test".into(), image: "node:22".into(), commands: vec!["ls".into()] };
        let proposal = model::Proposal {
            pipeline_file: Some(".windlass.yaml".into()),
            file_changed: true,
            diff: vec!["+ \u{1b}[2Jgone".into()],
            steps: vec![step],
            files_changed: 3,
            problem: None,
        };
        let shown = proposed(Paint::OFF, &proposal);
        assert!(shown.contains("would run test in node:22\n  ls\n") && shown.contains("changes the pipeline file"));
        assert!(!shown.contains('\u{1b}'));
    }

    pub(super) fn a_run(state: &str) -> model::Run {
        serde_json::from_value(json!({
            "service": "shop", "number": 7, "state": state, "finished": true, "reason": null, "blame": "code",
            "commit": {"sha": "a1b2c3d4e5", "subject": "Fix the door", "author": "Ada", "author_email": "a@x"},
            "git_ref": "refs/heads/main", "trigger": "push", "trigger_source": "hook", "pull_request": null,
            "requested_by": null, "may_release": true, "created_at_ms": 1, "started_at_ms": 1_000,
            "finished_at_ms": 61_000, "usual_ms": null, "runner": null, "queue": null, "digest": null, "tag": null,
            "reused_from": null, "rerun_of": null, "release": null,
            "steps": [{"name": "test", "state": "failed", "reason": null, "blame": "code", "exit_code": 3,
                       "started_at_ms": 2_000, "finished_at_ms": 4_000}],
            "why": {"word": "code_failed", "text": "the step test failed", "next": "push a fix",
                    "person": {"kind": "author", "names": ["Ada"]}, "until_ms": null, "fault": null},
        }))
        .unwrap()
    }

    #[test]
    fn a_watched_run_ends_with_its_result() {
        let states = ["succeeded", "passed", "failed", "cancelled", "declined", "held"];
        assert_eq!(states.map(|state| exit_of(&a_run(state)).code()), [0, 0, 10, 12, 12, 13]);
    }

    #[test]
    fn a_run_is_shown_with_its_steps_and_whose_fault_it_is() {
        let context = Context::for_tests();
        insta::assert_snapshot!(show(&context, Paint::OFF, &a_run("failed")), @r"
        run       shop/7
        state     ✗ failed
        why       the step test failed
        at fault  the code
        commit    a1b2c3d Fix the door
        author    Ada
        ref       refs/heads/main
        by        push (hook)
        created   1970-01-01 00:00 UTC
        started   1970-01-01 00:00 UTC
        finished  1970-01-01 00:01 UTC

        STEP  STATE     TOOK
        test  ✗ failed  2.0 s  exit code 3
        ");
    }
}
