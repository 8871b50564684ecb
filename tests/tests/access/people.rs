//! Several people of one release: the same person twice, the author, deputies before their moment and after the decision.

use anyhow::{Result, ensure};
use pipelines::{
    approval::{ApprovalEvent, ApprovalState},
    ids::ServiceName,
    journal::Origin,
    protocol::Secret,
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use server::store::Role;

use crate::{
    attacks::Attacker,
    stage::{People, TESTERS},
    target::{QA, Target, none_passed},
};

const SECOND: &str = TESTERS[1];
const DEPUTY: &str = "deputy@example.com";
const PASSWORD: &str = "a password of some length";

fn people(testers: &[&str], approvals: u32) -> People {
    let testers = testers.iter().map(|one| (*one).to_owned()).collect();
    People { testers, approvals, ..People::default() }
}

/// A token of an account with this mail address.
async fn account(attacker: &Attacker<'_>, name: &str, email: &str) -> Result<String> {
    let stage = attacker.stage;
    stage.app.account_create(name, email, Role::Tester, Secret::new(PASSWORD), Origin::server()).await?;
    let login = stage.app.login("192.0.2.7", name, Secret::new(PASSWORD), "a test".into()).await?;
    Ok(login.0.expose().to_owned())
}

/// Approves by the API, signed in.
async fn approve(attacker: &Attacker<'_>, target: &Target, token: &str) -> Result<StatusCode> {
    let url = attacker.stage.url.clone();
    let path = format!("{url}/api/v1/services/{}/releases/{}/approve", target.release.service, target.release.number);
    let request = attacker.request(&Method::POST, &path).bearer_auth(token).json(&json!({"digest": target.digest}));
    Ok(attacker.send(request).await?.status())
}

/// One person counts once: by the link again, at once, signed in, and listed twice.
pub(crate) async fn one_person_twice(attacker: &Attacker<'_>, service: &ServiceName) -> Result<()> {
    // The pipeline file names one mailbox three ways; to a mail server it is one.
    let listed = people(&[QA, "QA@Example.com", "Qa@example.COM"], 2);
    let target = Target::for_people(attacker, service, &listed).await?;
    let code = target.code(attacker).await?;
    let form = target.approve(&code);
    let same = (0..64).map(|_| attacker.request(&Method::POST, &target.decide()).form(&form)).collect();
    let passed = attacker.all(same).await?.iter().filter(|status| **status == StatusCode::SEE_OTHER).count();
    ensure!(passed == 1, "{passed} of 64 counted");
    target.has(attacker, 1)?;
    none_passed(&[target.approves(attacker).await?])?;
    for other in &listed.testers[1..] {
        let other = Target::mailed(attacker, &target.release, other).await?;
        none_passed(&[other.approves(attacker).await?])?;
        other.has(attacker, 1)?;
    }
    let signed_in = account(attacker, "quinn", "qA@example.com").await?;
    none_passed(&[approve(attacker, &target, &signed_in).await?])?;
    target.has(attacker, 1)?;
    // The door: somebody else.
    let other = account(attacker, "sam", SECOND).await?;
    ensure!(approve(attacker, &target, &other).await? == StatusCode::OK);
    ensure!(!attacker.stage.is_waiting(&target.release)?);
    Ok(())
}

/// Whoever wrote the commit does not approve it: by link, as a deputy, signed in, in capitals.
pub(crate) async fn author(attacker: &Attacker<'_>, service: &ServiceName) -> Result<()> {
    let stage = attacker.stage;
    let author = People { author: QA.to_uppercase(), deputies: vec![DEPUTY.into()], ..people(&[QA, SECOND], 1) };
    let target = Target::for_people(attacker, service, &author).await?;
    none_passed(&[target.approves(attacker).await?])?;
    let code = target.code(attacker).await?;
    let same = (0..64).map(|_| attacker.request(&Method::POST, &target.decide()).form(&target.approve(&code)));
    none_passed(&attacker.all(same.collect()).await?)?;
    let signed_in = account(attacker, "author", "Qa@Example.com").await?;
    none_passed(&[approve(attacker, &target, &signed_in).await?])?;
    target.has(attacker, 0)?;

    let listed = People { author: DEPUTY.to_uppercase(), deputies: vec![DEPUTY.into()], ..people(&[SECOND], 1) };
    let target = Target::for_people(attacker, service, &listed).await?;
    deputies_are_asked(attacker, &target).await?;
    let url = stage.app.approval_url(&stage.app.approval(&target.release)?, DEPUTY);
    let csrf = attacker.form_token(&url).await?;
    let (release, digest) = (target.release.clone(), target.digest.clone());
    let deputy = Target { release, person: DEPUTY.into(), link: url, digest, csrf };
    none_passed(&[deputy.approves(attacker).await?])?;
    target.has(attacker, 0)?;
    ensure!(target.approves(attacker).await? == StatusCode::SEE_OTHER, "the tester cannot approve either");
    Ok(())
}

/// The moment of the deputies comes.
async fn deputies_are_asked(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    let stage = attacker.stage;
    let approval = stage.app.approval(&target.release)?;
    let due_at = approval.reminder_at(pipelines::approval::Reminder::Deputies);
    stage.pass_ms(due_at.since_ms(stage.app.now()) + 1);
    let event = ApprovalEvent::ReminderDue { round: approval.round };
    stage.timer(&target.release, event).await?;
    let asked = stage.app.approval(&target.release)?.deputies_asked_at;
    ensure!(asked.is_some(), "the deputies were not asked");
    Ok(())
}

/// The link of a deputy is none before their moment, and decides nothing after the testers did.
pub(crate) async fn deputy(attacker: &Attacker<'_>, service: &ServiceName) -> Result<()> {
    let stage = attacker.stage;
    let with_deputy = People { deputies: vec![DEPUTY.into()], ..people(&[QA, SECOND], 1) };
    for rejects in [false, true] {
        let target = Target::for_people(attacker, service, &with_deputy).await?;
        let approval = stage.app.approval(&target.release)?;
        let early = stage.app.approval_url(&approval, DEPUTY);
        // The form token is derived from the link, so whoever could make the link could make it too.
        let csrf = server::http::access::csrf_of(&stage.app, crate::target::token_of(&early));
        let deputy =
            Target { person: DEPUTY.into(), link: early, csrf, ..Target::mailed(attacker, &target.release, QA).await? };
        none_passed(&[
            attacker.get(&deputy.link).await?.status(),
            deputy.press(attacker, "code").await?,
            deputy.press(attacker, "claim").await?,
            attacker.post(&deputy.decide(), &deputy.approve("123456")).await?,
        ])?;
        target.has(attacker, 0)?;
        deputies_are_asked(attacker, &target).await?;
        let code = deputy.code(attacker).await?;
        if rejects {
            let testers = target.code(attacker).await?;
            let mut form = target.approve(&testers).to_vec();
            form[2].1 = "reject";
            form.push(("comment", "the date is missing"));
            ensure!(attacker.post(&target.decide(), &form).await? == StatusCode::SEE_OTHER);
        } else {
            ensure!(target.approves(attacker).await? == StatusCode::SEE_OTHER);
        }
        let decided = stage.app.approval(&target.release)?;
        let late = (0..64).map(|_| attacker.request(&Method::POST, &deputy.decide()).form(&deputy.approve(&code)));
        none_passed(&attacker.all(late.collect()).await?)?;
        ensure!(stage.app.approval(&target.release)? == decided, "a deputy changed what was decided");
        let is_rejected = matches!(decided.state, ApprovalState::Rejected { .. });
        ensure!(is_rejected == rejects, "{:?}", decided.state);
    }
    Ok(())
}

/// Two of two who press 64 times at the same moment are two, and one of them alone is one.
pub(crate) async fn at_once(attacker: &Attacker<'_>, service: &ServiceName) -> Result<()> {
    let first = Target::for_people(attacker, service, &people(&[QA, SECOND, DEPUTY], 2)).await?;
    let second = Target::mailed(attacker, &first.release, SECOND).await?;
    let codes = [first.code(attacker).await?, second.code(attacker).await?];
    let mut requests = Vec::new();
    for _ in 0..64 {
        for (target, code) in [(&first, &codes[0]), (&second, &codes[1])] {
            requests.push(attacker.request(&Method::POST, &target.decide()).form(&target.approve(code)));
        }
    }
    let passed = attacker.all(requests).await?.iter().filter(|status| **status == StatusCode::SEE_OTHER).count();
    let approval = attacker.stage.app.approval(&first.release)?;
    ensure!((passed, approval.have()) == (2, 2), "{passed} passed, {} count", approval.have());
    Ok(())
}
