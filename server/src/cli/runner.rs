//! `windlass runner`: the machines that execute runs, and the tokens that register them.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;
use server::http::api::model::{self, Answer, List};

use super::{
    Context,
    account::in_path,
    exit::Exit,
    failure::Failure,
    follow::duration_ms,
    output::{Paint, clean, moment, now, table},
};

/// The machines that execute runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them, with what they do
    List,
    /// List the runs that wait for one, in the order in which they are given out
    Queue,
    /// Give it nothing new; what it has it finishes
    Drain(One),
    /// Give it work again
    Resume(One),
    /// Let it in no more; its runs are given to others
    Remove(One),
    /// Make a token that registers runners; it is printed this once, alone on standard output
    Token {
        /// What it is called
        #[arg(long, default_value = "")]
        label: String,
        /// How many runners it registers
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it is good, such as 30m; by default as the server is configured
        #[arg(long, value_name = "TIME", value_parser = duration_ms)]
        expires: Option<u64>,
    },
    /// List the tokens that are good, without what opens anything
    Tokens,
    /// Take a token back; the runners that it registered stay
    Revoke {
        /// Its id, as `tokens` shows it
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct One {
    /// Which
    name: String,
}

/// Does what the verb says.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    let (what, method, path, body) = match &arguments.verb {
        Verb::List => {
            let all: Answer<List<model::Runner>> = client.get("cannot list runners", "api/v1/runners", &[]).await?;
            context.out.answer(&all, |paint, all| runners(paint, &all.items, now()))?;
            return Ok(Exit::Ok);
        }
        Verb::Queue => {
            let all: Answer<List<model::WaitingRun>> =
                client.get("cannot list the runs that wait", "api/v1/waiting-runs", &[]).await?;
            context.out.answer(&all, |paint, all| waiting(context, paint, &all.items))?;
            return Ok(Exit::Ok);
        }
        Verb::Token { label, uses, expires } => {
            let body = model::NewRunnerToken { label: label.clone(), uses: *uses, life_ms: *expires };
            let new: Answer<model::RunnerTokenSecret> =
                client.send("cannot make a token", Method::POST, "api/v1/runner-tokens", &body).await?;
            context.out.answer(&new, |_, new| format!("{}\n", new.token.expose()))?;
            let until = moment(new.it.expires_at_ms, &context.zone);
            context.out.note(&format!("it is shown this once and good until {until}; now, on the runner's machine:"));
            context.out.note("  windlass-runner register --server URL --token-file FILE");
            return Ok(Exit::Ok);
        }
        Verb::Tokens => {
            let all: Answer<List<model::RunnerToken>> =
                client.get("cannot list tokens", "api/v1/runner-tokens", &[]).await?;
            context.out.answer(&all, |paint, all| tokens(context, paint, &all.items))?;
            return Ok(Exit::Ok);
        }
        Verb::Drain(one) => ("drain", Method::POST, format!("runners/{}/drain", in_path(&one.name)), &one.name),
        Verb::Resume(one) => ("resume", Method::POST, format!("runners/{}/resume", in_path(&one.name)), &one.name),
        Verb::Remove(one) => ("remove", Method::DELETE, format!("runners/{}", in_path(&one.name)), &one.name),
        Verb::Revoke { id } => ("revoke", Method::DELETE, format!("runner-tokens/{}", in_path(id)), id),
    };
    let what = format!("cannot {what} {body}");
    let done: Answer<model::Done> = client.send(&what, method, &format!("api/v1/{path}"), &json!({})).await?;
    context.out.answer(&done, |paint, done| format!("{} {}\n", paint.good("✓"), clean(&done.done)))?;
    Ok(Exit::Ok)
}

fn labels(all: &BTreeMap<String, String>) -> String {
    all.iter().map(|(name, value)| clean(&format!("{name}={value}"))).collect::<Vec<_>>().join(", ")
}

fn runners(paint: Paint, all: &[model::Runner], now_ms: u64) -> String {
    if all.is_empty() {
        return "there is no runner\n".into();
    }
    let row = |runner: &model::Runner| {
        let state = match (runner.there, runner.state.as_str()) {
            (false, _) => paint.bad("✗ not heard of"),
            (true, "draining") => paint.warn("! draining"),
            (true, _) => paint.good("✓ active"),
        };
        let silent_s = now_ms.saturating_sub(runner.heard_at_ms) / 1_000;
        vec![
            clean(&runner.name),
            state,
            format!("{} of {}", runner.runs.len(), runner.capacity),
            clean(&runner.runs.join(", ")),
            format!("{silent_s} s ago"),
            labels(&runner.labels),
            clean(&runner.version),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(paint, &["NAME", "STATE", "BUSY", "RUNS", "HEARD", "LABELS", "VERSION"], &rows)
}

fn waiting(context: &Context, paint: Paint, all: &[model::WaitingRun]) -> String {
    if all.is_empty() {
        return "no run waits\n".into();
    }
    let row = |run: &model::WaitingRun| {
        vec![
            run.position.to_string(),
            format!("{} {}", clean(&run.service), run.number),
            moment(run.since_ms, &context.zone),
            clean(&run.reason),
        ]
    };
    table(paint, &["PLACE", "RUN", "SINCE", "WHY"], &all.iter().map(row).collect::<Vec<_>>())
}

fn tokens(context: &Context, paint: Paint, all: &[model::RunnerToken]) -> String {
    if all.is_empty() {
        return "there is no token\n".into();
    }
    let row = |token: &model::RunnerToken| {
        vec![
            clean(&token.id),
            clean(&token.label),
            token.uses_left.to_string(),
            clean(&token.created_by),
            moment(token.expires_at_ms, &context.zone),
        ]
    };
    table(paint, &["ID", "LABEL", "USES LEFT", "MADE BY", "GOOD UNTIL"], &all.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_that_is_silent_and_one_that_drains_are_told_apart() {
        let runner = |there, state: &str| model::Runner {
            name: "box\u{1b}[1m".into(),
            state: state.into(),
            embedded: false,
            there,
            heard_at_ms: 1_000,
            version: "1".into(),
            labels: [("os".to_owned(), "linux".to_owned())].into(),
            capacity: 2,
            runs: vec!["shop/7".into()],
            registered_at_ms: 0,
            registered_by: "admin".into(),
        };
        let all = [runner(true, "active"), runner(true, "draining"), runner(false, "draining")];
        let text = runners(Paint::OFF, &all, 4_000);
        for words in ["✓ active", "! draining", "✗ not heard of", "1 of 2", "shop/7", "3 s ago", "os=linux"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
