//! Several testers with a real mail server: one approves, the other is reminded, a deputy is asked, the time ends; somebody
//! asks again, and both approve. A mail that is refused shows on the release.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tests::{Mail, Refusal, Tier, evidence::record, http_client, require};

use crate::{
    api::{WITHIN, text},
    sample::Version,
    tester::{Tester, link_in},
    world::{PARTS, World},
};

const SERVICE: &str = "crew";
const QA: &str = "qa@example.com";
const LEE: &str = "lee@example.com";
const SUB: &str = "sub@example.com";
/// Long enough for two people to decide on a busy machine; half of it is waited for.
const EXPIRES: &str = "24s";
const MAIL_BYTES_MAX: usize = 60 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_testers_are_asked_reminded_and_asked_again() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let mut world = World::start(&[]).await?;
    let service = world.service(SERVICE).await?;
    service.push(&version("1"))?;
    let (qa, lee) = (Tester::new(QA), Tester::new(LEE));
    world.asked(SERVICE, 1).await?;
    let old_link = qa.link(&world.smtp, SERVICE, 1).await?;
    qa.approve(&world.smtp, SERVICE, 1).await?;
    let one = release(&world, 1).await?;
    ensure!(one["state"] == "awaiting_approval", "one of two approvals was enough: {one}");
    ensure!(one["approval"]["approvals"][0]["by"] == QA, "it does not show who approved: {one}");
    let why = text(&one["why"], "text")?;
    ensure!(why.starts_with("it waits for 1 more of 2 approvals; asked: lee@example.com"), "{why}");

    reminded(&world).await?;
    let expired = |release: &Value| (release["state"] == "expired").then(|| release.clone());
    world.api.until(&path(1), "the end of the time", expired).await?;
    let run = world.api.get(&format!("services/{SERVICE}/runs/1")).await?;
    ensure!(run["state"] == "succeeded", "the end of the time failed the build: {run}");
    let reminders_to_qa = mails_to(&world, QA).into_iter().filter(|mail| is_later(mail) && link_in(mail).is_some());
    ensure!(reminders_to_qa.count() == 0, "somebody who had approved was reminded");

    asked_again(&world, &qa, &lee, &old_link).await?;
    refused(&mut world, &service).await?;
    let mails = world.smtp.messages();
    let ids: BTreeSet<_> = mails.iter().filter_map(|mail| mail.header("message-id")).collect();
    ensure!(ids.len() == mails.len(), "{} mails have {} Message-IDs", mails.len(), ids.len());
    world.all_held();
    Ok(())
}

fn version(name: &str) -> Version {
    let mut version = Version::new(SERVICE, name, json!({ "strategy": "rolling" }));
    version.pipeline["test"] = json!({ "testers": [QA, LEE], "approvals": 2, "expires": EXPIRES, "deputies": [SUB] });
    version
}

fn path(number: u32) -> String {
    format!("services/{SERVICE}/releases/{number}")
}

async fn release(world: &World, number: u32) -> Result<Value> {
    world.api.get(&path(number)).await
}

fn mails_to(world: &World, person: &str) -> Vec<Mail> {
    world.smtp.messages().into_iter().filter(|mail| mail.recipients == [person]).collect()
}

fn is_later(mail: &Mail) -> bool {
    mail.header("in-reply-to").is_some()
}

/// The tester who has not decided is reminded twice, the deputy asked in between.
async fn reminded(world: &World) -> Result<()> {
    let first = |mail: &Mail| mail.recipients == [LEE] && !is_later(mail);
    let first = world.smtp.wait_for(first, WITHIN).await?;
    let root = first.header("message-id").context("no Message-ID")?.to_owned();
    for (person, words) in [(LEE, "still waits"), (SUB, "have not decided"), (LEE, "Last call"), (SUB, "Last call")] {
        let wanted =
            |mail: &Mail| mail.recipients == [person] && mail.text.as_deref().is_some_and(|text| text.contains(words));
        let mail = world.smtp.wait_for(wanted, WITHIN).await?;
        let header = |name: &str| mail.header(name).unwrap_or_default();
        ensure!(mail.subject() == first.subject(), "the subject changed to {:?}", mail.subject());
        ensure!(header("auto-submitted") == "auto-generated", "{:?}", mail.headers);
        ensure!(header("list-id").contains(SERVICE), "{:?}", mail.headers);
        ensure!(mail.raw.len() < MAIL_BYTES_MAX, "a reminder of {} bytes", mail.raw.len());
        let (reply, references) = (header("in-reply-to"), header("references"));
        ensure!(!reply.is_empty() && reply == references, "{:?}", mail.headers);
        ensure!(person != LEE || reply == root, "the reminder is in another thread than {root}: {:?}", mail.headers);
        let text = mail.text.as_deref().unwrap_or_default();
        ensure!(text.contains("1 of 2 approvals are there (qa@example.com)"), "{text}");
        ensure!(text.contains("UTC") || text.contains('+') || text.contains("GMT"), "no zone: {text}");
    }
    let times = mails_to(world, LEE).iter().filter(|mail| is_later(mail)).count();
    ensure!(times == 2, "the tester was reminded {times} times");
    record(
        "those who have not decided are reminded, deputies are asked, and the end approves nothing",
        Tier::Live,
        format!("50, 75 and 90 % of {EXPIRES}: 4 mails in their threads, none to who had approved"),
    );
    Ok(())
}

/// A new round: old links are dead, both approve at once.
async fn asked_again(world: &World, qa: &Tester, lee: &Tester, old_link: &str) -> Result<()> {
    world.api.post(&format!("{}/ask-again", path(1)), json!({})).await?;
    world.asked(SERVICE, 1).await?;
    let mut pages = Vec::new();
    for (tester, person) in [(qa, QA), (lee, LEE)] {
        let again = |mail: &Mail| {
            mail.recipients == [person]
                && is_later(mail)
                && mail.text.as_deref().is_some_and(|it| it.contains("Please test"))
        };
        let mail = world.smtp.wait_for(again, WITHIN).await?;
        let first = mails_to(world, person).into_iter().find(|mail| !is_later(mail)).context("no first mail")?;
        let (root, reply) = (first.header("message-id"), mail.header("in-reply-to"));
        ensure!(root.is_some() && reply == root, "asked again in another thread: {reply:?}, not {root:?}");
        let link = link_in(&mail).context("no link")?;
        ensure!(link != old_link, "the link of the first round is mailed again");
        let page = tester.open(&link).await?;
        let code = tester.code(&world.smtp, &page).await?;
        pages.push((tester, page, code));
    }
    let dead = http_client().get(old_link).send().await?.status();
    ensure!(dead == StatusCode::NOT_FOUND, "the link of the first round is answered {dead}");
    let decisions = pages.iter().map(|(tester, page, code)| tester.decide(page, code, "approve", ""));
    for answer in futures_util::future::join_all(decisions).await {
        let answer = answer?;
        ensure!(answer.status().is_redirection(), "{}: {}", answer.status(), answer.text().await?);
    }
    let rollout = world.ended_rollout(SERVICE, 1).await?;
    ensure!(rollout["state"] == "completed", "the rollout did not complete: {rollout}");
    let live = release(world, 1).await?;
    let by: BTreeSet<_> =
        live["approval"]["approvals"].as_array().into_iter().flatten().filter_map(|it| it["by"].as_str()).collect();
    ensure!(live["approval"]["round"] == 2 && by.len() == 2, "not two people in the second round: {live}");
    record(
        "two of two testers approve at once after being asked again, each by their own new link",
        Tier::Live,
        "one promotion; the link of the first round is answered 404",
    );
    Ok(())
}

/// A mail that the mail server refuses shows on the release, with the person and what to do.
async fn refused(world: &mut World, service: &crate::world::Service) -> Result<()> {
    let refusal = Refusal::OneRecipient(LEE.into(), "550 5.1.1 no such user".into());
    world.smtp.refuse(Some(refusal)).await?;
    let mut second = version("2");
    second.pipeline["test"]["expires"] = json!("1h");
    service.push(&second)?;
    world.asked(SERVICE, 2).await?;
    let shows = |release: &Value| {
        let mail = release["approval"]["undelivered"].get(0)?;
        let error = mail["fault"]["error"].as_str()?;
        (mail["to"] == LEE && error.contains("no such user")).then(|| release["why"]["text"].clone())
    };
    let why = world.api.until(&path(2), "the refused mail", shows).await?;
    let why = why.as_str().unwrap_or_default();
    let says = [
        "the mail to lee@example.com is not sent yet",
        "an operator corrects the address",
        "qa@example.com can decide",
    ];
    ensure!(says.iter().all(|words| why.contains(words)), "{why}");
    world.smtp.refuse(None).await?;
    let asks = |mail: &Mail| mail.recipients == [LEE] && link_in(mail).is_some_and(|link| link.contains("/crew/2/"));
    world.smtp.wait_for(asks, WITHIN).await?;
    let healed = |release: &Value| release["approval"]["undelivered"].as_array()?.is_empty().then_some(());
    world.api.until(&path(2), "the mail that was taken", healed).await?;
    record("a mail that the mail server refuses shows on the release, and what to do", Tier::Live, why);
    Ok(())
}
