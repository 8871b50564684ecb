//! Rollouts under load that is counted by the client: the judge sends a bad version back, is fair to an equally bad one
//! and passes nothing without traffic; a person switches back at once, and goes back to an old release without a build.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Tier, evidence::record, http_client, require};

use crate::{
    api::{WITHIN, text, wait_for},
    sample::Version,
    visitors::{Visit, failed, now_ms},
    world::{PARTS, World},
};

const PACE: Duration = Duration::from_millis(10);
/// Requests that are counted while a bad canary has its share.
const COUNTED: u64 = 2_000;
const WEIGHT: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_are_judged_by_what_the_visitors_got() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let world = World::start(&[]).await?;
    tokio::try_join!(bad_canary(&world), equally_bad(&world), no_traffic(&world), blue_green(&world))?;
    world.all_held();
    Ok(())
}

fn rolling() -> Value {
    json!({ "strategy": "rolling" })
}

/// A version that answers 20 % errors gets its share of more than 2,000 requests, and goes back by itself.
async fn bad_canary(world: &World) -> Result<()> {
    let service = world.service("bad").await?;
    world.deliver(&service, &Version::new("bad", "1", rolling()), 1).await?;
    let visitors = world.visitors("bad", PACE, 100 / WEIGHT);
    let canary = json!({
        "strategy": "canary",
        "steps": [{ "weight": WEIGHT, "hold": "4s" }, { "weight": 50, "hold": "4s" }],
        "checks": [{ "success_rate": ">= 99%" }],
        // The judge waits until the canary has had its share of all that is to be counted.
        "judge": { "min_requests": (COUNTED + 100) * WEIGHT / 100 },
    });
    let rollout = world.deliver(&service, &Version::new("bad", "2", canary).failing(20), 2).await?;
    let after = visitors.so_far().len();
    visitors.at_least(after + 250).await?;
    let visits = visitors.stop()?;

    ensure!(rollout["state"] == "rolled_back", "the bad canary was not sent back: {rollout}");
    ensure!(text(&rollout, "reason")?.contains("FAIL"), "the judge did not say so: {rollout}");
    let is_canary = |visit: &&Visit| visit.version == "2";
    let first = visits.iter().position(|visit| is_canary(&visit)).context("no request reached the canary")?;
    let last = visits.iter().rposition(|visit| is_canary(&visit)).unwrap_or(first);
    let counted = &visits[first..=last];
    let reached = counted.iter().filter(is_canary).count();
    let share = 100.0 * reached as f64 / counted.len() as f64;
    ensure!(counted.len() as u64 >= COUNTED, "only {} requests while the canary had its share", counted.len());
    ensure!(share <= WEIGHT as f64 + 0.5, "{share} % of {} requests reached the canary", counted.len());
    ensure!(share >= WEIGHT as f64 - 0.5, "{share} % of {} requests reached the canary", counted.len());

    let back_ms = share_at(&rollout, 0).context("there is no time at which traffic was back")?;
    let after: Vec<_> = visits.iter().filter(|visit| visit.at_ms > back_ms).collect();
    ensure!(after.len() >= 250 && after.iter().all(|visit| visit.version == "1"), "the canary got requests afterwards");
    let by_canary = |visit: &Visit| visit.version == "2" && visit.status == Ok(500);
    let others: Vec<_> = failed(&visits).into_iter().filter(|visit| !by_canary(visit)).collect();
    ensure!(others.is_empty(), "{} requests failed that no version failed: {:?}", others.len(), others[0]);
    ensure!(world.running("bad")?.len() == 1, "containers of the bad version are left");
    let live = world.api.get("services/bad/releases/1").await?;
    ensure!(live["state"] == "live", "release 1 is not live any more: {live}");
    record(
        "a canary that answers 20 % errors goes back by itself",
        Tier::Live,
        format!(
            "{reached} of {} requests ({share:.2} %, weight {WEIGHT} %) reached it, 0 of {} afterwards",
            counted.len(),
            after.len()
        ),
    );
    Ok(())
}

/// When a share came into force for the last time.
fn share_at(rollout: &Value, weight_percent: u64) -> Option<u64> {
    let shares = rollout["shares"].as_array()?;
    shares.iter().rev().find(|share| share["weight_percent"] == weight_percent)?["at_ms"].as_u64()
}

/// Stable and canary fail alike: the comparison finds no difference. Then back to the old release, which is built
/// already.
async fn equally_bad(world: &World) -> Result<()> {
    let service = world.service("even").await?;
    world.deliver(&service, &Version::new("even", "1", rolling()).failing(20), 1).await?;
    let visitors = world.visitors("even", PACE * 3, 2);
    let canary = json!({
        "strategy": "canary",
        "steps": [{ "weight": 50, "hold": "6s" }],
        "checks": [{ "success_rate": ">= 50%" }],
        "judge": { "min_requests": 100 },
    });
    let rollout = world.deliver(&service, &Version::new("even", "2", canary).failing(20), 2).await?;
    ensure!(rollout["state"] == "completed", "an equally bad canary was sent back: {rollout}");
    let judgement = &rollout["judgement"];
    ensure!(judgement["outcome"] == "PASS", "the last word of the judge was another one: {judgement}");
    let compared = judgement["checks"].as_array().into_iter().flatten().find(|it| it["name"] == "errors_vs_stable");
    let compared = compared.context("the judge did not compare with the stable revision")?;
    let (canary, stable) = (compared["value"].as_f64(), compared["stable"].as_f64());
    ensure!(canary.is_some_and(|it| it > 10.0) && stable.is_some_and(|it| it > 10.0), "they did not fail: {compared}");
    record(
        "an equally bad stable and canary do not fail the comparison",
        Tier::Live,
        format!(
            "canary {:.1} % errors, stable {:.1} %, over {} requests: PASS",
            canary.unwrap_or_default(),
            stable.unwrap_or_default(),
            judgement["requests"]
        ),
    );
    without_a_build(world).await?;
    let visits = visitors.stop()?;
    let broken = visits.iter().find(|visit| visit.status != Ok(200) && visit.status != Ok(500));
    ensure!(broken.is_none(), "a request was lost: {broken:?}");
    Ok(())
}

async fn without_a_build(world: &World) -> Result<()> {
    let before = pushes(world, "even");
    let began = Instant::now();
    let done = world.api.post("services/even/releases/1/rollback", json!({ "reason": "the old one, please" })).await?;
    let back = |release: &Value| (release["state"] == "live").then_some(());
    world.api.until("services/even/releases/1", "the old release", back).await?;
    let took = began.elapsed();
    let rollout = world.ended_rollout("even", 1).await?;
    ensure!(
        rollout["cause"] == "rollback" && rollout["state"] == "completed",
        "it went another way: {rollout}; {done}"
    );
    let runs = world.api.get("services/even/runs").await?;
    ensure!(runs["items"].as_array().is_some_and(|runs| runs.len() == 2), "something was run for it: {runs}");
    ensure!(pushes(world, "even") == before, "something was pushed for it");
    let digests = world.digests("even", 1).await?;
    ensure!(digests.running.iter().eq([&digests.production]), "another digest runs: {digests:?}");
    record(
        "a rollback to an older release builds nothing",
        Tier::Live,
        format!("live again after {:.1} s, no run, no push, its digest runs", took.as_secs_f64()),
    );
    Ok(())
}

/// How many manifests and blobs were written for a service.
fn pushes(world: &World, service: &str) -> usize {
    let of_service = |line: &&str| line.contains(&format!("/v2/{service}/")) && line.contains("\"PUT ");
    world.test.log().lines().chain(world.production.log().lines()).filter(of_service).count()
}

/// Nobody visits it: it is held, and then a person is asked; it never passes.
async fn no_traffic(world: &World) -> Result<()> {
    let service = world.service("quiet").await?;
    world.deliver(&service, &Version::new("quiet", "1", rolling()), 1).await?;
    let canary = json!({
        "strategy": "canary",
        "steps": [{ "weight": 20, "hold": "1s" }, { "weight": 50, "hold": "1s" }],
        "judge": { "min_requests": 10, "insufficient_limit": "2s" },
    });
    service.push(&Version::new("quiet", "2", canary))?;
    world.approve("quiet", 2).await?;
    let path = format!("services/quiet/rollouts/{}", world.rollout_of("quiet", 2).await?);
    let paused = |rollout: &Value| (rollout["state"] == "paused").then(|| rollout.clone());
    let rollout = world.api.until(&path, "the pause", paused).await?;
    ensure!(rollout["paused"] == "insufficient" && rollout["weight_percent"] == 20, "it went on: {rollout}");
    ensure!(rollout["judgement"]["outcome"] == "INSUFFICIENT", "the judge said more than it knew: {rollout}");
    let release = world.api.get("services/quiet/releases/2").await?;
    ensure!(release["state"] == "rolling_out", "it went on: {release}");
    let act = json!({ "verb": "abort", "reason": "nobody comes" });
    world.api.post(&format!("{path}/act"), act).await?;
    let rollout = world.ended_rollout("quiet", 2).await?;
    ensure!(rollout["state"] == "rolled_back", "it was not aborted: {rollout}");
    let said = text(&release["why"], "text")?;
    record("a canary without traffic is held, not passed", Tier::Live, format!("at 20 %: {said}"));
    Ok(())
}

/// The new version is seen under the preview address alone, takes all traffic, and gives it back at once.
async fn blue_green(world: &World) -> Result<()> {
    let service = world.service("blue").await?;
    world.deliver(&service, &Version::new("blue", "1", rolling()), 1).await?;
    let visitors = world.visitors("blue", PACE * 3, 1);
    let blue_green = json!({ "strategy": "blue-green", "preview": "10m", "keep": "10m" });
    service.push(&Version::new("blue", "2", blue_green))?;
    world.approve("blue", 2).await?;
    let path = format!("services/blue/rollouts/{}", world.rollout_of("blue", 2).await?);
    let stage = |wanted: u64| {
        move |rollout: &Value| (rollout["state"] == "holding" && rollout["stage"] == wanted).then(|| rollout.clone())
    };
    let rollout = world.api.until(&path, "the preview", stage(0)).await?;
    let preview = text(&rollout, "preview_url")?;
    let host = preview.split("//").nth(1).and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
    ensure!(host.ends_with(".preview.localhost"), "{preview} is no preview address");
    ensure!(version_at(world, host).await? == "2", "the preview address shows another version");
    ensure!(version_at(world, "blue.localhost").await? == "1", "production shows the preview");

    world.api.post(&format!("{path}/act"), json!({ "verb": "promote" })).await?;
    let rollout = world.api.until(&path, "the switch", stage(1)).await?;
    let switched_ms = share_at(&rollout, 100).context("there is no time of the switch")?;
    ensure!(version_at(world, "blue.localhost").await? == "2", "production shows the old version");
    let (aborted_ms, began) = (now_ms(), Instant::now());
    world.api.post(&format!("{path}/act"), json!({ "verb": "abort", "reason": "the old one was better" })).await?;
    let look = || async {
        let seen = version_at(world, "blue.localhost").await.unwrap_or_default();
        ((seen == "1").then_some(()), seen)
    };
    wait_for(WITHIN, look).await.0.context("the old version did not come back")?;
    let took = began.elapsed();
    let rollout = world.ended_rollout("blue", 2).await?;
    ensure!(rollout["state"] == "rolled_back", "it was not aborted: {rollout}");
    let back_ms = share_at(&rollout, 0).context("there is no time at which traffic was back")?;
    let visits = visitors.stop()?;

    let lost = failed(&visits);
    ensure!(lost.is_empty(), "{} requests failed; the first: {:?}", lost.len(), lost[0]);
    let version = |visit: &Visit| visit.version.clone();
    let early = visits.iter().filter(|visit| visit.done_ms < switched_ms - 1_000).map(version).any(|it| it != "1");
    let during = visits.iter().filter(|visit| visit.at_ms > switched_ms && visit.done_ms < aborted_ms);
    let late = visits.iter().filter(|visit| visit.at_ms > back_ms).map(version).any(|it| it != "1");
    ensure!(!early && !late, "the new version answered before its time, or after it");
    ensure!(during.clone().all(|visit| visit.version == "2"), "the switch was not whole");
    ensure!(took < Duration::from_secs(5), "going back took {took:?}");
    record(
        "blue-green: a preview address, one switch, and back at once",
        Tier::Live,
        format!("back {} ms after the abort; {} requests, 0 failed", took.as_millis(), visits.len()),
    );
    Ok(())
}

/// Which version answers under a host.
async fn version_at(world: &World, host: &str) -> Result<String> {
    let answer = http_client().get(&world.gateway).header("host", host).send().await?;
    let version = answer.headers().get("x-version").context("no version answered")?;
    Ok(version.to_str()?.to_owned())
}
