//! `windlass release`, and the verbs for a decision: `approve`, `reject`, `claim`, `unclaim`, `rollback`.

use pipelines::ids::{Digest, ReleaseId, ServiceName};
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
    output::{Paint, ago, clean, fields, moment, now, state, table},
    progress::Progress,
    prompt::{ask_line, confirm, is_interactive},
    run::ended_by_person,
    status::short,
};

/// Releases: list, look at, watch to live traffic
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the releases of a service, newest first
    List(ListArguments),
    /// Show a release: digest, changes, approval, addresses
    Show {
        /// Which: SERVICE/NUMBER
        release: ReleaseId,
    },
    /// Watch a release until it is live or will not be; the command ends with its result
    Watch {
        /// Which: SERVICE/NUMBER
        release: ReleaseId,
        #[command(flatten)]
        follow: FollowArguments,
    },
    /// Ask the testers of an expired release once more
    AskAgain {
        /// Which: SERVICE/NUMBER
        release: ReleaseId,
    },
}

/// Say that a release was tested and may go live
#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArguments {
    /// Which: SERVICE/NUMBER
    release: ReleaseId,
    /// The digest that was tested: instead of the question, for scripts
    #[arg(long)]
    digest: Option<Digest>,
    /// What to say
    #[arg(long, default_value = "")]
    comment: String,
}

/// Say that a release must not go live, and why
#[derive(Debug, clap::Args)]
pub(crate) struct RejectArguments {
    /// Which: SERVICE/NUMBER
    release: ReleaseId,
    /// The digest that was tested: instead of the question, for scripts
    #[arg(long)]
    digest: Option<Digest>,
    /// Why; the author reads it
    #[arg(long)]
    comment: Option<String>,
}

/// One release.
#[derive(Debug, clap::Args)]
pub(crate) struct OneArguments {
    /// Which: SERVICE/NUMBER
    release: ReleaseId,
}

/// Go back to an older release at once, without a build
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArguments {
    /// Which service
    service: ServiceName,
    /// Number of the release to go back to; by default the one that was live before
    number: Option<u32>,
    /// Why; people see it
    #[arg(long)]
    reason: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Does what the verb of `release` says.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    match &arguments.verb {
        Verb::List(asked) => {
            let all = releases(&client, &asked.service, &asked.query()).await?;
            context.out.answer(&all, list)?;
            Ok(Exit::Ok)
        }
        Verb::Show { release } => {
            let found = one(&client, release, "cannot show").await?;
            context.out.answer(&found, |paint, found| show(context, paint, found))?;
            Ok(Exit::Ok)
        }
        Verb::Watch { release, follow } => watch(context, &client, release, follow).await,
        Verb::AskAgain { release } => {
            act(context, &client, release, "ask-again", "cannot ask again for", &json!({})).await
        }
    }
}

/// Approves.
pub(crate) async fn approve(context: &Context, arguments: &ApproveArguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    let id = &arguments.release;
    let digest = tested(context, &client, id, arguments.digest.as_ref(), "Approve").await?;
    let body = model::Decide { digest, comment: arguments.comment.clone() };
    act(context, &client, id, "approve", "cannot approve", &body).await
}

/// Rejects.
pub(crate) async fn reject(context: &Context, arguments: &RejectArguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    let id = &arguments.release;
    let comment = match &arguments.comment {
        Some(comment) => comment.clone(),
        None if is_interactive() => ask_line("Why: ")?,
        None => return Err(Failure::usage(format!("cannot reject {id} without a reason")).next("--comment TEXT")),
    };
    let digest = tested(context, &client, id, arguments.digest.as_ref(), "Reject").await?;
    act(context, &client, id, "reject", "cannot reject", &model::Decide { digest, comment }).await
}

/// Claims: the test environment stays with the release.
pub(crate) async fn claim(context: &Context, arguments: &OneArguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    act(context, &client, &arguments.release, "claim", "cannot claim", &json!({})).await
}

/// Takes a claim back.
pub(crate) async fn unclaim(context: &Context, arguments: &OneArguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    act(context, &client, &arguments.release, "unclaim", "cannot take back the claim of", &json!({})).await
}

/// Goes back to an older release.
pub(crate) async fn rollback(context: &Context, arguments: &RollbackArguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    let service = &arguments.service;
    let number = match arguments.number {
        Some(number) => number,
        None => {
            let all = releases(&client, service, &[("limit", "100".to_owned())]).await?;
            before_live(&all.it.items).ok_or_else(|| {
                Failure::new(Exit::NotFound, format!("cannot roll back {service}"))
                    .why("no other release of it was live before")
                    .next(format!("windlass release list {service}"))
            })?
        }
    };
    let id = ReleaseId::new(service.clone(), number);
    if !arguments.yes && is_interactive() {
        let target = one(&client, &id, "cannot roll back to").await?.it;
        let live = target.live_at_ms.map(|at| format!(", live {}", ago(at, now()))).unwrap_or_default();
        let subject = clean(&target.commit.subject);
        let question = format!("Go back to {id} ({} {subject}{live})?", short(&target.commit.sha));
        if !confirm(&question)? {
            return Err(not_wanted(format!("did not roll back {service}")));
        }
    }
    let body = model::Rollback { reason: arguments.reason.clone() };
    act(context, &client, &id, "rollback", "cannot roll back to", &body).await
}

/// The release that had the traffic before the one that has it.
fn before_live(releases: &[model::Release]) -> Option<u32> {
    let retired = releases.iter().filter(|release| release.state == "retired");
    retired.max_by_key(|release| release.live_at_ms).map(|release| release.number)
}

fn not_wanted(what: String) -> Failure {
    Failure::new(Exit::Aborted, what).why("the answer was no")
}

/// The digest that is decided on: the given one, or the one that is shown and agreed to.
async fn tested(
    context: &Context,
    client: &Client,
    id: &ReleaseId,
    given: Option<&Digest>,
    verb: &str,
) -> Result<String, Failure> {
    if let Some(digest) = given {
        return Ok(digest.to_string());
    }
    let release = one(client, id, "cannot read").await?.it;
    if !is_interactive() {
        return Err(Failure::usage(format!("cannot decide on {id} without a terminal"))
            .why("a script has to say which digest was tested")
            .next(format!("--digest {}", clean(&release.digest))));
    }
    context.out.note(show(context, context.out.paint_err, &release).trim_end());
    if confirm(&format!("{verb} this digest?"))? {
        Ok(release.digest)
    } else {
        Err(not_wanted(format!("did not decide on {id}")))
    }
}

fn path(id: &ReleaseId, rest: &str) -> String {
    format!("api/v1/services/{}/releases/{}{rest}", id.service, id.number)
}

async fn one(client: &Client, id: &ReleaseId, what: &str) -> Result<Answer<model::Release>, Failure> {
    client.get(&format!("{what} release {id}"), &path(id, ""), &[]).await
}

async fn releases(
    client: &Client,
    service: &ServiceName,
    query: &[(&str, String)],
) -> Result<Answer<List<model::Release>>, Failure> {
    let what = format!("cannot list the releases of {service}");
    client.get(&what, &format!("api/v1/services/{service}/releases"), query).await
}

async fn act<B: serde::Serialize>(
    context: &Context,
    client: &Client,
    id: &ReleaseId,
    verb: &str,
    what: &str,
    body: &B,
) -> Result<Exit, Failure> {
    let path = path(id, &format!("/{verb}"));
    let now: Answer<model::Release> = client.send(&format!("{what} {id}"), Method::POST, &path, body).await?;
    context.out.answer(&now, |paint, now| format!("{} {id}: {}\n", state(paint, &now.state), clean(&now.why.text)))?;
    Ok(Exit::Ok)
}

/// Watches a release to its end.
pub(crate) async fn watch(
    context: &Context,
    client: &Client,
    id: &ReleaseId,
    arguments: &FollowArguments,
) -> Result<Exit, Failure> {
    context.detach(format!("the release goes on; look again: windlass release watch {id}"));
    let mut follow = arguments.follow(client, &context.out, id.service.as_str());
    let mut progress = Progress::new(&context.out);
    let mut last = String::new();
    loop {
        let what = format!("cannot watch release {id}");
        let seen: Answer<model::Release> = follow.look(&what, &path(id, ""), &[]).await?;
        let text = format!("{} {}", seen.it.state, seen.it.why.text);
        if text != last {
            progress.aside(|| context.out.event(&seen))?;
            last = text;
        }
        progress.moves(&id.to_string(), &seen.it.why.text);
        let exit = match exit_of(&seen.it) {
            None if arguments.exit_when_waiting && ended_by_person(&seen.it.why) => Some(Exit::WaitingForPerson),
            other => other,
        };
        if let Some(exit) = exit {
            progress.clear();
            let release = &seen.it;
            context
                .out
                .said(|paint| format!("{} release {id}: {}", state(paint, &release.state), clean(&release.why.text)));
            return Ok(exit);
        }
        follow.changed().await?;
    }
}

/// The exit code for a release that is over; none while it is on its way.
fn exit_of(release: &model::Release) -> Option<Exit> {
    match release.state.as_str() {
        // A retired one was live.
        "live" | "retired" => Some(Exit::Ok),
        "test_failed" => Some(Exit::RunFailed),
        "rejected" | "expired" => Some(Exit::Rejected),
        "superseded" | "rolled_back" => Some(Exit::Aborted),
        _ if !release.under_way => Some(Exit::Unexpected),
        _ => None,
    }
}

fn list(paint: Paint, all: &List<model::Release>) -> String {
    if all.items.is_empty() {
        return "there was no release yet\n".into();
    }
    let row = |release: &model::Release| {
        vec![
            release.number.to_string(),
            state(paint, &release.state),
            short(&release.commit.sha),
            clean(&release.digest).chars().take(19).collect(),
            ago(release.created_at_ms, now()),
            release.approved_by.as_deref().map(clean).unwrap_or_default(),
            clean(&release.commit.subject),
        ]
    };
    let rows: Vec<_> = all.items.iter().map(row).collect();
    table(paint, &["RELEASE", "STATE", "COMMIT", "DIGEST", "MADE", "APPROVED BY", "SUBJECT"], &rows)
        + &older(paint, all)
}

fn show(context: &Context, paint: Paint, release: &model::Release) -> String {
    let at = |at: Option<u64>| at.map(|at| moment(at, &context.zone)).unwrap_or_default();
    let approval = release.approval.as_ref();
    let asked = approval.map(|approval| {
        let until = moment(approval.expires_at_ms, &context.zone);
        let asked = approval.testers.iter().chain(&approval.deputies).take(approval.testers.len() + deputies(approval));
        let asked: Vec<String> = asked.map(|one| clean(one)).collect();
        let have = if approval.needed > 1 {
            format!(", {} of {} approvals", approval.approvals.len(), approval.needed)
        } else {
            String::new()
        };
        format!("{}{have}, until {until}, asked: {}", state(paint, &approval.state), asked.join(", "))
    });
    let approved = approval.filter(|approval| approval.needed > 1).map(|approval| {
        let one = |it: &model::Decision| format!("{} {}", clean(&it.by), moment(it.at_ms, &context.zone));
        approval.approvals.iter().map(one).collect::<Vec<_>>().join(", ")
    });
    let next_mail = approval.and_then(|approval| approval.next_reminder.as_ref()).map(|next| {
        let what = match next.kind.as_str() {
            "half_time" => "a reminder",
            "deputies" => "the deputies are asked",
            "last_call" => "the last call",
            other => other,
        };
        format!("{}, {}", clean(what), moment(next.at_ms, &context.zone))
    });
    let undelivered = approval.map(|approval| {
        let one = |mail: &model::Undelivered| format!("{}: {}", clean(&mail.to), clean(&mail.fault.error));
        approval.undelivered.iter().map(one).collect::<Vec<_>>().join("; ")
    });
    let claim = approval.and_then(|approval| approval.claim.as_ref());
    let claim = claim.map(|claim| format!("{}, {}", clean(&claim.by), ago(claim.at_ms, now())));
    let decision = approval.and_then(|approval| approval.decision.as_ref()).map(|decision| {
        let comment =
            if decision.comment.is_empty() { String::new() } else { format!(": {}", clean(&decision.comment)) };
        format!("{}, {}{comment}", clean(&decision.by), moment(decision.at_ms, &context.zone))
    });
    let mut text = fields(
        paint,
        &[
            ("release", paint.bold(&format!("{}/{}", clean(&release.service), release.number))),
            ("state", state(paint, &release.state)),
            ("why", clean(&release.why.text)),
            ("digest", clean(&release.digest)),
            ("commit", format!("{} {}", short(&release.commit.sha), clean(&release.commit.subject))),
            ("author", clean(&release.commit.author)),
            ("base", clean(&release.base)),
            ("test", clean(&release.test_url)),
            ("production", clean(&release.production_url)),
            ("strategy", clean(&release.strategy)),
            ("approval", asked.unwrap_or_default()),
            ("approvals", approved.unwrap_or_default()),
            ("next mail", next_mail.unwrap_or_default()),
            ("not mailed", undelivered.unwrap_or_default()),
            ("claimed by", claim.unwrap_or_default()),
            ("decided by", decision.unwrap_or_default()),
            ("decide at", approval.map(|approval| clean(&approval.page_url)).unwrap_or_default()),
            ("created", at(Some(release.created_at_ms))),
            ("tested", at(release.tested_at_ms)),
            ("promoted", at(release.promoted_at_ms)),
            ("live", at(release.live_at_ms)),
        ],
    );
    if !release.changes.is_empty() {
        text.push_str(&format!("{}\n", paint.dim("changes since live")));
        for change in &release.changes {
            let author = paint.dim(&clean(&change.author));
            text.push_str(&format!("  {} {} {author}\n", paint.moving(&clean(&change.id)), clean(&change.subject)));
        }
    }
    text
}

/// How many deputies have been asked.
fn deputies(approval: &model::Approval) -> usize {
    if approval.deputies_asked_at_ms.is_some() { approval.deputies.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(number: u32, state: &str, live_at_ms: Option<u64>) -> model::Release {
        serde_json::from_value(json!({
            "service": "shop", "number": number, "digest": format!("sha256:{}", "a".repeat(64)), "tag": "t", "base": "b",
            "state": state, "under_way": false, "reason": null,
            "commit": {"sha": "a1b2c3d4e5", "subject": "Fix the door", "author": "Ada", "author_email": "a@x"},
            "changes": [{"id": "a1b2c3d", "subject": "Fix the door", "author": "Ada"}], "created_at_ms": 1, "changed_at_ms": 1, "tested_at_ms": null,
            "approved_at_ms": null, "approved_by": null, "promoted_at_ms": null, "live_at_ms": live_at_ms,
            "strategy": "canary", "test_url": "http://shop.test", "production_url": "http://shop", "rollout": null,
            "approval": {"round": 1, "digest": "d", "state": "open", "testers": ["qa@example.com"], "needed": 1, "approvals": [],
                         "deputies": [], "deputies_asked_at_ms": null, "undecided": ["qa@example.com"],
                         "next_reminder": null, "undelivered": [],
                         "allow_self_approval": false, "opened_at_ms": 1, "expires_at_ms": 60_000,
                         "claim": null, "decision": null, "superseded_by": null, "page_url": "http://w/a"},
            "why": {"word": "x", "text": "two testers have it", "next": "decide",
                    "person": {"kind": "testers", "names": []}, "until_ms": null, "fault": null},
        }))
        .unwrap()
    }

    #[test]
    fn a_watched_release_ends_with_its_result() {
        let exit = |state: &str| exit_of(&release(1, state, None)).map(Exit::code);
        let over = ["live", "retired", "test_failed", "rejected", "expired", "superseded", "rolled_back"].map(exit);
        assert_eq!(over, [Some(0), Some(0), Some(10), Some(11), Some(11), Some(12), Some(12)]);
        let under_way = model::Release { under_way: true, ..release(1, "awaiting_approval", None) };
        assert_eq!(exit_of(&under_way), None);
    }

    #[test]
    fn back_means_to_what_was_live_last() {
        let all = [
            release(5, "live", Some(50)),
            release(4, "rejected", None),
            release(3, "retired", Some(30)),
            // Live again after a rollback, later than 3.
            release(2, "retired", Some(40)),
        ];
        assert_eq!(before_live(&all), Some(2));
        assert_eq!(before_live(&all[..2]), None);
    }

    #[test]
    fn of_several_approvals_it_shows_those_that_are_there_and_what_comes_next() {
        let mut release = release(1, "awaiting_approval", None);
        let approval = release.approval.as_mut().unwrap();
        approval.needed = 2;
        approval.deputies = vec!["sub@example.com".into()];
        let by = json!({"by": "lee", "at_ms": 1, "proof": "signed_in", "comment": ""});
        approval.approvals.push(serde_json::from_value(by).unwrap());
        approval.next_reminder = Some(model::NextReminder { kind: "deputies".into(), at_ms: 1 });
        let fault = model::Fault { party: "mail".into(), error: "550 no such user".into(), tries: 1, next_at_ms: 2 };
        approval.undelivered.push(model::Undelivered { to: "qa@example.com".into(), fault });
        let text = show(&Context::for_tests(), Paint::OFF, &release);
        for line in [
            "! open, 1 of 2 approvals, until 1970-01-01 00:01 UTC, asked: qa@example.com\n",
            "lee 1970-01-01 00:00 UTC\n",
            "the deputies are asked, 1970-01-01 00:00 UTC\n",
            "qa@example.com: 550 no such user\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn what_is_decided_on_is_shown_with_its_digest() {
        let text = show(&Context::for_tests(), Paint::OFF, &release(1, "awaiting_approval", None));
        insta::assert_snapshot!(text, @r"
        release     shop/1
        state       ! awaiting approval
        why         two testers have it
        digest      sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        commit      a1b2c3d Fix the door
        author      Ada
        base        b
        test        http://shop.test
        production  http://shop
        strategy    canary
        approval    ! open, until 1970-01-01 00:01 UTC, asked: qa@example.com
        decide at   http://w/a
        created     1970-01-01 00:00 UTC
        changes since live
          a1b2c3d Fix the door Ada
        ");
    }
}
