//! Runners on machines of their own: processes beside the server, with one container engine, over HTTP through a relay
//! that can be cut.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Tier, docker::BASE_IMAGE, evidence::record, relay::Relay, require};

use crate::{
    api::text,
    machine::{Runner, token},
    sample::Version,
    world::{PARTS, Service, World},
};

/// After so long a silence a runner is lost.
const LOST_MS: u64 = 8_000;
const LINES: usize = 120;

/// A version whose step prints lines for some seconds.
pub(crate) fn slow(service: &str, name: &str) -> Version {
    let mut version = Version::new(service, name, json!({ "strategy": "rolling" }));
    let script = format!(
        "echo \"begin $(cat /proc/sys/kernel/random/uuid)\"; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo \"line $i\"; sleep 0.1; done"
    );
    version.pipeline["steps"] = json!([{ "name": "slow", "image": BASE_IMAGE, "commands": [script] }]);
    version
}

pub(crate) async fn lines(world: &World, service: &str, number: u32, enough: usize) -> Result<Vec<String>> {
    let path = format!("services/{service}/runs/{number}/steps/slow/log?limit=1000");
    let read = |window: &Value| {
        let lines = window["lines"].as_array()?.iter();
        let lines: Vec<String> = lines.filter_map(|line| Some(line["text"].as_str()?.to_owned())).collect();
        (lines.len() >= enough).then_some(lines)
    };
    world.api.until(&path, "the lines of the step", read).await
}

/// Every line once and in order, of one begin.
pub(crate) async fn whole(world: &World, service: &str, number: u32) -> Result<()> {
    let run = world.ended_run(service, number).await?;
    ensure!(run["state"] == "succeeded", "run {number} did not succeed: {run}");
    let all = lines(world, service, number, LINES + 1).await?;
    let printed: Vec<&String> = all.iter().filter(|line| line.starts_with("line ")).collect();
    let wanted: Vec<String> = (1..=LINES).map(|n| format!("line {n}")).collect();
    ensure!(printed.iter().copied().eq(wanted.iter()), "lines are missing or doubled: {all:?}");
    ensure!(all.iter().filter(|line| line.starts_with("begin ")).count() == 1, "it began more than once: {all:?}");
    Ok(())
}

async fn holder(world: &World, service: &str, number: u32) -> Result<(String, u64)> {
    let read = |run: &Value| {
        let holder = run["runner"].as_str()?.to_owned();
        Some((holder, run["attempt"].as_u64()?)).filter(|_| run["state"] == "running")
    };
    world.api.until(&format!("services/{service}/runs/{number}"), "a runner", read).await
}

async fn world() -> Result<World> {
    let own = |settings: &mut Value| {
        settings["runner"]["parallel_runs"] = json!(0);
        settings["bounds"]["runner_lost_ms"] = json!(LOST_MS);
    };
    World::start_with(&[], own).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_of_its_own_outlives_the_server_and_another_takes_over_from_it() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let world = world().await?;
    let service = world.service("yard").await?;
    service.push(&slow("yard", "1"))?;
    let why = |all: &Value| {
        let reason = all["items"][0]["reason"].as_str()?;
        reason.contains("no runner is there").then_some(())
    };
    world.api.until("waiting-runs", "the reason", why).await?;
    let mut first = Runner::at_work(&world, &world.base).await?;
    server_is_killed(&world).await?;
    runner_is_killed(&world, &service, &mut first).await?;
    refused(&world, &mut first).await?;
    world.all_held();
    Ok(())
}

/// The server dies in the middle of a step, twice: the step goes on, and no line of it is lost.
async fn server_is_killed(world: &World) -> Result<()> {
    for enough in [10, 40] {
        lines(world, "yard", 1, enough).await?;
        world.windlass.lock().unwrap_or_else(std::sync::PoisonError::into_inner).restart()?;
    }
    whole(world, "yard", 1).await?;
    let run = world.api.get("services/yard/runs/1").await?;
    ensure!(run["attempt"] == 1, "another attempt was made: {run}");
    record(
        "a step on a runner's own machine goes on while the server dies and starts again",
        Tier::Live,
        format!("2 kills of the server, {LINES} lines in order, 1 begin"),
    );
    Ok(())
}

/// The runner dies for good in the middle of a step: another one does the run from the beginning. When it comes back, it
/// leaves nothing behind.
async fn runner_is_killed(world: &World, service: &Service, first: &mut Runner) -> Result<()> {
    service.push(&slow("yard", "2"))?;
    lines(world, "yard", 2, 10).await?;
    first.kill();
    let second = Runner::at_work(world, &world.base).await?;
    let lost = |run: &Value| (run["attempt"] == 2 && run["state"] == "running").then(|| run["runner"].clone());
    let taken = world.api.until("services/yard/runs/2", "the second attempt", lost).await?;
    ensure!(taken == second.name, "{taken} has it");
    // The first one comes back and is told that the run is another one's now.
    first.start()?;
    whole(world, "yard", 2).await?;
    let earlier = world.api.get("services/yard/runs/2/steps/slow%2B1/log?limit=1000").await?;
    ensure!(earlier["lines"].as_array().is_some_and(|lines| lines.len() >= 10), "the lines before are gone: {earlier}");
    let left = || async {
        let names = world.container_names().unwrap_or_default();
        let mine = format!("wl-{}-", first.name);
        let left: Vec<_> = names.into_iter().filter(|name| name.trim_start_matches('/').starts_with(&mine)).collect();
        (left.is_empty().then_some(()), format!("{left:?}"))
    };
    let (gone, seen) = crate::api::wait_for(Duration::from_secs(40), left).await;
    gone.with_context(|| format!("the lost runner left containers behind: {seen}"))?;
    record(
        "a run whose runner dies is done by another one, and the dead one's things go when it is back",
        Tier::Live,
        format!("lost after {LOST_MS} ms, attempt 2 in order, 0 containers left"),
    );
    Ok(())
}

/// A used, a forged and no token; a credential that was taken back.
async fn refused(world: &World, first: &mut Runner) -> Result<()> {
    let other = Runner::new(world, &world.base)?;
    let used = token(world).await?;
    ensure!(other.register(&used)?.0 == Some(0), "a good token was refused");
    let late = Runner::new(world, &world.base)?;
    for bad in [used.as_str(), "wlreg_forged", ""] {
        let (code, said) = late.register(bad)?;
        ensure!(
            code == Some(4) && said.contains("try: ") && (bad.is_empty() || !said.contains(bad)),
            "{code:?}: {said}"
        );
    }
    let path = format!("runners/{}", first.name);
    let (status, answer) = world.api.ask(reqwest::Method::DELETE, &path, None).await?;
    ensure!(status.is_success(), "{status}: {answer}");
    let code = first.ended().await?;
    ensure!(code == Some(4), "a removed runner ended with {code:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_the_network_costs_a_run_only_when_it_is_long() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let world = world().await?;
    let service = world.service("yard").await?;
    let relay = Relay::start(world.base.trim_start_matches("http://")).await?;
    let far = Runner::at_work(&world, &relay.url()).await?;
    service.push(&slow("yard", "1"))?;
    lines(&world, "yard", 1, 10).await?;
    relay.cut();
    tokio::time::sleep(Duration::from_millis(LOST_MS / 3)).await;
    relay.mend();
    whole(&world, "yard", 1).await?;
    ensure!(holder_of_ended(&world, 1).await? == (far.name.clone(), 1), "a short cut cost the run");

    service.push(&slow("yard", "2"))?;
    lines(&world, "yard", 2, 10).await?;
    relay.cut();
    let near = Runner::at_work(&world, &world.base).await?;
    let second = |run: &Value| (run["attempt"] == 2).then_some(());
    world.api.until("services/yard/runs/2", "the second attempt", second).await?;
    ensure!(holder(&world, "yard", 2).await? == (near.name.clone(), 2), "another one has it");
    // The first one's step has gone on all the while; it comes back with lines and an end that nobody wants.
    relay.mend();
    whole(&world, "yard", 2).await?;
    ensure!(holder_of_ended(&world, 2).await? == (near.name.clone(), 2), "the late one ended it");
    let release = world.asked("yard", 2).await?;
    let digest = world.test.digest("yard", text(&release, "tag")?).await?.context("the tag is gone")?;
    ensure!(release["digest"] == digest.as_str(), "the tag was moved: {release}");
    record(
        "a cut between runner and server shorter than the limit costs nothing, a longer one moves the run",
        Tier::Live,
        format!("{} ms and more than {LOST_MS} ms; 1 and 2 attempts; late reports refused", LOST_MS / 3),
    );
    world.all_held();
    Ok(())
}

async fn holder_of_ended(world: &World, number: u32) -> Result<(String, u64)> {
    let run = world.ended_run("yard", number).await?;
    Ok((text(&run, "runner")?.to_owned(), run["attempt"].as_u64().context("no attempt")?))
}
