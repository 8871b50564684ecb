//! Without one of its safeguards the product fails the tests that are there for it: that is how we know that they test.
//! Each is run as it is, and again with its safeguard left out; only debug builds have the switch.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Result, bail, ensure};
use serde_json::json;
use tests::{LoneServer, Tier, Windlass, evidence::record, require, soak::Noted};

use crate::{
    crash::{a_mail_has_one_id, a_step_outlives_the_server},
    sample::Version,
    visitors::failed,
    world::{PARTS, World},
};

/// Names in the environment.
const WITHOUT: &str = "WINDLASS_WITHOUT";
const SERVICE: &str = "tuyere";
/// Tokens that are acknowledged before a kill.
const TOKENS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_one_the_same_test_fails() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let mut failed = BTreeMap::new();
    let off = |name| [(WITHOUT, name)];
    a_mail_has_one_id(&[]).await?;
    failed.insert("mail-id", without(a_mail_has_one_id(&off("mail-id")).await, "Message-IDs"));
    a_step_outlives_the_server(&[]).await?;
    failed.insert("adopt", without(a_step_outlives_the_server(&off("adopt")).await, "began more than once"));
    no_request_is_cut(&[]).await?;
    failed.insert("drain", without(no_request_is_cut(&off("drain")).await, "requests were cut"));
    what_is_acknowledged_is_kept(&[]).await?;
    failed.insert("flush", without(what_is_acknowledged_is_kept(&off("flush")).await, "is lost"));
    let safeguards = failed.iter().map(|(name, end)| ((*name).to_owned(), end.is_ok())).collect();
    Noted { part: "safeguards".into(), done: true, safeguards, ..Noted::default() }.write()?;
    for end in failed.values() {
        ensure!(end.is_ok(), "{end:?}");
    }
    record(
        "with a safeguard left out, the test that is there for it fails",
        Tier::Live,
        format!("{} left out, {} tests failed", failed.len(), failed.len()),
    );
    Ok(())
}

/// That it failed, and for the right reason.
fn without(end: Result<()>, reason: &str) -> Result<(), String> {
    match end {
        Ok(()) => Err(format!("it went well; {reason:?} was expected")),
        Err(error) if format!("{error:#}").contains(reason) => Ok(()),
        Err(error) => Err(format!("it failed for another reason than {reason:?}: {error:#}")),
    }
}

/// A revision is replaced while answers are under way that take their time.
async fn no_request_is_cut(environment: &[(&str, &str)]) -> Result<()> {
    let world = World::start(environment).await?;
    let service = world.service(SERVICE).await?;
    let version = |name: &str| Version::new(SERVICE, name, json!({ "strategy": "rolling" })).slow();
    world.deliver(&service, &version("1"), 1).await?;
    let visitors = world.visitors(SERVICE, Duration::from_millis(50), 1);
    world.deliver(&service, &version("2"), 2).await?;
    let visits = visitors.stop()?;
    let cut = failed(&visits);
    world.all_held();
    ensure!(cut.is_empty(), "{} of {} requests were cut; the first: {:?}", cut.len(), visits.len(), cut[0]);
    ensure!(visits.iter().any(|visit| visit.version == "2"), "nobody came to version 2");
    Ok(())
}

/// A server is killed right after it acknowledged.
async fn what_is_acknowledged_is_kept(environment: &[(&str, &str)]) -> Result<()> {
    let mut server = LoneServer::start_as(environment, |_| {}).await?;
    let token = server.admin_token().await?;
    let url = format!("{}/api/v1/tokens", server.url);
    for number in 0..TOKENS {
        let body = json!({ "label": format!("token-{number}") });
        server.http.post(&url).bearer_auth(&token).json(&body).send().await?.error_for_status()?;
    }
    server.kill_and_restart().await?;
    let answer = server.http.get(format!("{url}?limit=100")).bearer_auth(&token).send().await?;
    let said = answer.text().await?;
    for number in 0..TOKENS {
        ensure!(said.contains(&format!("\"token-{number}\"")), "token-{number} was acknowledged and is lost: {said}");
    }
    Ok(())
}

/// The switches are there in what the tests run; `make bench` looks that they are not in a release build.
#[test]
fn the_tested_build_has_the_switches() -> Result<()> {
    let binary = fs::read(Windlass::binary()?)?;
    if !binary.windows(WITHOUT.len()).any(|part| part == WITHOUT.as_bytes()) {
        bail!("the binary is a release build: it cannot be killed at places, and no safeguard can be left out");
    }
    Ok(())
}
