//! `windlass rollout` and `windlass promote`: the move of traffic, looked at and steered.

use pipelines::ids::{RolloutId, ServiceName};
use reqwest::Method;
use server::http::api::model::{self, Answer, List, RolloutVerb};

use super::{
    Context,
    client::Client,
    exit::Exit,
    failure::Failure,
    follow::FollowArguments,
    list::{ListArguments, older},
    output::{Paint, ago, clean, fields, moment, now, state, table},
    progress::Progress,
    run::ended_by_person,
};

/// Rollouts: look at, watch and steer the move of traffic
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the rollouts of a service, newest first
    List(ListArguments),
    /// Show a rollout: shares, checks, what is next
    Status(One),
    /// Watch a rollout to its end; the command ends with its result
    Watch {
        #[command(flatten)]
        rollout: One,
        #[command(flatten)]
        follow: FollowArguments,
    },
    Promote(PromoteArguments),
    /// Stand still
    Pause(One),
    /// Go on
    Resume(One),
    /// Give all traffic back to the stable revision
    Abort {
        #[command(flatten)]
        rollout: One,
        /// Why; people see it
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Give the traffic back and let the waiting release take over
    Replace(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The service, for its newest rollout, or SERVICE/NUMBER
    #[arg(value_name = "SERVICE[/NUMBER]", value_parser = which)]
    rollout: Which,
}

/// Move a rollout on to its next step, or all the way
#[derive(Debug, clap::Args)]
pub(crate) struct PromoteArguments {
    #[command(flatten)]
    rollout: One,
    /// All the way
    #[arg(long)]
    fully: bool,
}

/// A rollout as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    NewestOf(ServiceName),
    Numbered(RolloutId),
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NewestOf(service) => service.fmt(f),
            Self::Numbered(id) => id.fmt(f),
        }
    }
}

fn which(text: &str) -> Result<Which, String> {
    if text.contains('/') {
        text.parse().map(Which::Numbered).map_err(|error: pipelines::ids::InvalidId| error.to_string())
    } else {
        text.parse().map(Which::NewestOf).map_err(|error: pipelines::ids::InvalidId| error.to_string())
    }
}

/// Does what the verb says.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    match &arguments.verb {
        Verb::List(asked) => {
            let all = list_of(&client, &asked.service, &asked.query()).await?;
            context.out.answer(&all, list)?;
            Ok(Exit::Ok)
        }
        Verb::Status(one) => {
            let id = find(&client, &one.rollout).await?;
            let what = format!("cannot show rollout {id}");
            let found: Answer<model::Rollout> = client.get(&what, &path(&id, ""), &[]).await?;
            context.out.answer(&found, |paint, found| show(context, paint, found))?;
            Ok(Exit::Ok)
        }
        Verb::Watch { rollout, follow } => {
            let id = find(&client, &rollout.rollout).await?;
            watch(context, &client, &id, follow).await
        }
        Verb::Promote(arguments) => promote_with(context, &client, arguments).await,
        Verb::Pause(one) => steer(context, &client, &one.rollout, RolloutVerb::Pause, "").await,
        Verb::Resume(one) => steer(context, &client, &one.rollout, RolloutVerb::Resume, "").await,
        Verb::Abort { rollout, reason } => steer(context, &client, &rollout.rollout, RolloutVerb::Abort, reason).await,
        Verb::Replace(one) => steer(context, &client, &one.rollout, RolloutVerb::Replace, "").await,
    }
}

/// Promotes.
pub(crate) async fn promote(context: &Context, arguments: &PromoteArguments) -> Result<Exit, Failure> {
    promote_with(context, &context.target.client()?, arguments).await
}

async fn promote_with(context: &Context, client: &Client, arguments: &PromoteArguments) -> Result<Exit, Failure> {
    let verb = if arguments.fully { RolloutVerb::PromoteFully } else { RolloutVerb::Promote };
    steer(context, client, &arguments.rollout.rollout, verb, "").await
}

async fn list_of(
    client: &Client,
    service: &ServiceName,
    query: &[(&str, String)],
) -> Result<Answer<List<model::Rollout>>, Failure> {
    let what = format!("cannot list the rollouts of {service}");
    client.get(&what, &format!("api/v1/services/{service}/rollouts"), query).await
}

/// The rollout that is meant.
async fn find(client: &Client, which: &Which) -> Result<RolloutId, Failure> {
    let service = match which {
        Which::Numbered(id) => return Ok(id.clone()),
        Which::NewestOf(service) => service,
    };
    let newest = list_of(client, service, &[("limit", "1".to_owned())]).await?.it.items.into_iter().next();
    newest.map(|rollout| RolloutId::new(service.clone(), rollout.number)).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("cannot find a rollout of {service}"))
            .why("there was none yet")
            .next(format!("windlass status {service}"))
    })
}

fn path(id: &RolloutId, rest: &str) -> String {
    format!("api/v1/services/{}/rollouts/{}{rest}", id.service, id.number)
}

async fn steer(
    context: &Context,
    client: &Client,
    which: &Which,
    verb: RolloutVerb,
    reason: &str,
) -> Result<Exit, Failure> {
    let word = match verb {
        RolloutVerb::Promote | RolloutVerb::PromoteFully => "promote",
        RolloutVerb::Pause => "pause",
        RolloutVerb::Resume => "resume",
        RolloutVerb::Abort => "abort",
        RolloutVerb::Replace => "replace",
    };
    let id = find(client, which).await?;
    let body = model::RolloutAct { verb, reason: reason.to_owned() };
    let what = format!("cannot {word} rollout {id}");
    let now: Result<Answer<model::Rollout>, Failure> =
        client.send(&what, Method::POST, &path(&id, "/act"), &body).await;
    let now = now.map_err(|failure| match failure.exit {
        Exit::Unexpected => failure.next(format!("windlass rollout status {which}")),
        _ => failure,
    })?;
    context.out.answer(&now, |paint, now| format!("{} {id}: {}\n", state(paint, &now.state), clean(&now.why.text)))?;
    Ok(Exit::Ok)
}

async fn watch(
    context: &Context,
    client: &Client,
    id: &RolloutId,
    arguments: &FollowArguments,
) -> Result<Exit, Failure> {
    context.detach(format!("the rollout goes on; look again: windlass rollout watch {id}"));
    let mut follow = arguments.follow(client, &context.out, id.service.as_str());
    let mut progress = Progress::new(&context.out);
    let mut last = String::new();
    loop {
        let what = format!("cannot watch rollout {id}");
        let seen: Answer<model::Rollout> = follow.look(&what, &path(id, ""), &[]).await?;
        let rollout = &seen.it;
        let judged = rollout.judgement.as_ref().map(|judgement| judgement.requests);
        let text = format!("{} {:?} {} {judged:?}", rollout.state, rollout.stage, rollout.weight_percent);
        if text != last {
            progress.aside(|| context.out.event(&seen))?;
            last = text;
        }
        progress.percent(&id.to_string(), &rollout.why.text, rollout.weight_percent);
        let exit = match exit_of(rollout) {
            None if arguments.exit_when_waiting && ended_by_person(&rollout.why) => Some(Exit::WaitingForPerson),
            other => other,
        };
        if let Some(exit) = exit {
            progress.clear();
            context
                .out
                .said(|paint| format!("{} rollout {id}: {}", state(paint, &rollout.state), clean(&rollout.why.text)));
            return Ok(exit);
        }
        follow.changed().await?;
    }
}

/// The exit code for a rollout that is over; none while it runs.
fn exit_of(rollout: &model::Rollout) -> Option<Exit> {
    match rollout.state.as_str() {
        "completed" => Some(Exit::Ok),
        "rolled_back" => Some(Exit::Aborted),
        _ if rollout.finished => Some(Exit::Unexpected),
        _ => None,
    }
}

fn list(paint: Paint, all: &List<model::Rollout>) -> String {
    if all.items.is_empty() {
        return "there was no rollout yet\n".into();
    }
    let row = |rollout: &model::Rollout| {
        vec![
            rollout.number.to_string(),
            rollout.release.to_string(),
            clean(&rollout.strategy),
            state(paint, &rollout.state),
            format!("{} %", rollout.weight_percent),
            ago(rollout.started_at_ms, now()),
            rollout.reason.as_deref().map(clean).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = all.items.iter().map(row).collect();
    table(paint, &["ROLLOUT", "RELEASE", "STRATEGY", "STATE", "SHARE", "BEGAN", ""], &rows) + &older(paint, all)
}

fn show(context: &Context, paint: Paint, rollout: &model::Rollout) -> String {
    let at = |at: Option<u64>| at.map(|at| moment(at, &context.zone)).unwrap_or_default();
    let step = rollout.stage.map(|stage| format!("{} of {}", stage + 1, rollout.stages.len())).unwrap_or_default();
    let until = rollout.stage_until_ms.map(|until| ago(until, now())).unwrap_or_default();
    let stable = rollout.stable_release.map(|stable| stable.to_string());
    let paused = match (rollout.paused.as_deref(), &rollout.paused_by) {
        (Some("insufficient"), _) => paint.warn("too few requests to judge"),
        (Some(_), Some(by)) => format!("by {}", clean(by)),
        _ => String::new(),
    };
    let mut text = fields(
        paint,
        &[
            ("rollout", paint.bold(&format!("{}/{}", clean(&rollout.service), rollout.number))),
            ("state", state(paint, &rollout.state)),
            ("why", clean(&rollout.why.text)),
            ("release", rollout.release.to_string()),
            ("stable", stable.unwrap_or_else(|| "none".into())),
            ("strategy", clean(&rollout.strategy)),
            ("traffic", bar(paint, rollout.weight_percent)),
            ("steps", stages(paint, rollout)),
            ("step", step),
            ("step is over", until),
            ("paused", paused),
            ("went back", rollout.reason.as_deref().map(clean).unwrap_or_default()),
            ("preview", rollout.preview_url.as_deref().map(clean).unwrap_or_default()),
            ("began", at(Some(rollout.started_at_ms))),
            ("ended", at(rollout.finished_at_ms)),
        ],
    );
    if let Some(judgement) = &rollout.judgement {
        let verdict = verdict(paint, &judgement.outcome);
        text.push_str(&format!("\n{verdict} on {} requests\n", judgement.requests));
        let number = |value: Option<f64>| value.map(|value| format!("{value:.1}")).unwrap_or_else(|| "-".into());
        let row = |check: &model::Check| {
            vec![
                clean(&check.name),
                number(check.value),
                number(check.stable),
                number(check.limit),
                self::verdict(paint, &check.outcome),
            ]
        };
        let rows: Vec<_> = judgement.checks.iter().map(row).collect();
        text.push_str(&table(paint, &["CHECK", "NEW", "STABLE", "LIMIT", "VERDICT"], &rows));
    }
    text
}

fn verdict(paint: Paint, outcome: &str) -> String {
    match outcome {
        "PASS" => paint.good("✓ pass"),
        "FAIL" => paint.bad("✗ fail"),
        "INSUFFICIENT" => paint.warn("! too few requests"),
        other => clean(other),
    }
}

/// The share of the new revision as a bar of 20.
fn bar(paint: Paint, percent: u8) -> String {
    let full = usize::from(percent.min(100)) / 5;
    format!("{}{} {percent} %", paint.moving(&"━".repeat(full)), paint.dim(&"─".repeat(20 - full)))
}

/// `10 % → [50 %] → 100 %`.
fn stages(paint: Paint, rollout: &model::Rollout) -> String {
    let one = |(index, stage): (usize, &model::Stage)| {
        let text = format!("{} %", stage.weight_percent);
        if rollout.stage == Some(index) { paint.bold(&format!("[{text}]")) } else { text }
    };
    rollout.stages.iter().enumerate().map(one).collect::<Vec<_>>().join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(state: &str) -> model::Rollout {
        serde_json::from_value(serde_json::json!({
            "service": "shop", "number": 2, "release": 7, "revision": "r7", "stable_release": 5, "cause": "promotion",
            "requested_by": null, "strategy": "canary", "stage": 1, "state": state, "finished": false, "reason": null,
            "stages": [{"weight_percent": 10, "hold_ms": 1, "judged": true}, {"weight_percent": 50, "hold_ms": 1, "judged": true},
                       {"weight_percent": 100, "hold_ms": 0, "judged": false}],
            "paused": null, "paused_by": null, "weight_percent": 50, "started_at_ms": 1_000, "stage_until_ms": null,
            "finished_at_ms": null, "can_abort": true, "shares": [], "preview_url": null,
            "judgement": {"outcome": "FAIL", "requests": 212, "checks": [
                {"name": "success_rate", "outcome": "FAIL", "value": 98.1, "stable": null, "limit": 99.0, "p_value": null}]},
            "why": {"word": "canary", "text": "canary 50 %, step 2 of 3", "next": "wait",
                    "person": {"kind": "nobody", "names": []}, "until_ms": null, "fault": null},
        }))
        .unwrap()
    }

    #[test]
    fn a_rollout_is_named_by_its_service_or_its_number() {
        assert_eq!(which("shop").unwrap(), Which::NewestOf("shop".parse().unwrap()));
        assert_eq!(which("shop/3").unwrap(), Which::Numbered("shop/3".parse().unwrap()));
        assert!(which("Shop").is_err() && which("shop/x").is_err() && which("../x").is_err());
    }

    #[test]
    fn a_watched_rollout_ends_with_its_result() {
        assert_eq!(exit_of(&rollout("completed")), Some(Exit::Ok));
        assert_eq!(exit_of(&rollout("rolled_back")), Some(Exit::Aborted));
        assert_eq!(exit_of(&rollout("holding")), None);
    }

    #[test]
    fn a_rollout_is_shown_with_its_checks() {
        let text = show(&Context::for_tests(), Paint::OFF, &rollout("holding"));
        insta::assert_snapshot!(text, @r"
        rollout       shop/2
        state         ● holding
        why           canary 50 %, step 2 of 3
        release       7
        stable        5
        strategy      canary
        traffic       ━━━━━━━━━━────────── 50 %
        steps         10 % → [50 %] → 100 %
        step          2 of 3
        began         1970-01-01 00:00 UTC

        ✗ fail on 212 requests
        CHECK         NEW   STABLE  LIMIT  VERDICT
        success_rate  98.1  -       99.0   ✗ fail
        ");
    }
}
