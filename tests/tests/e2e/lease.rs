//! A runner dies for good, and the server dies before, in and after the end of its lease: the run is given out again, once.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Tier, evidence::record, require};

use crate::{
    api::{WITHIN, wait_for},
    crash::{Keeper, MARKS, PLACES, arm, deaths, promoted_once},
    machine::Runner,
    runner::{lines, slow, whole},
    world::{PARTS, World},
};

const SERVICE: &str = "bellows";
/// After so long a silence a runner is lost.
const LOST_MS: u64 = 5_000;
const KIND: &str = "expire-lease";
const PERFORMING: &str = "performing effect=\"expire-lease/bellows/1\"";
const LOST: &str = "the runner is lost";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_while_the_server_dies_around_it() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let environment = [
        ("WINDLASS_CRASH", KIND),
        ("WINDLASS_CRASH_MARK", MARKS),
        ("WINDLASS_LOG", "info,server::driver=debug"),
        ("NO_COLOR", "1"),
    ];
    let world = World::start_with(&environment, |settings| {
        settings["runner"]["parallel_runs"] = json!(0);
        settings["bounds"]["runner_lost_ms"] = json!(LOST_MS);
    })
    .await?;
    arm(&world, KIND, None)?;
    let keeper = Keeper::start(Arc::clone(&world.windlass));
    let service = world.service(SERVICE).await?;
    let mut first = Runner::at_work(&world, &world.base).await?;
    service.push(&slow(SERVICE, "1"))?;
    lines(&world, SERVICE, 1, 10).await?;
    first.kill();

    for place in PLACES {
        die_at_the_end_of_the_lease(&world, place).await?;
    }
    let second = Runner::at_work(&world, &world.base).await?;
    let taken = |run: &Value| (run["attempt"] == 2 && run["state"] == "running").then(|| run["runner"].clone());
    let holder = world.api.until(&format!("services/{SERVICE}/runs/1"), "the second attempt", taken).await?;
    ensure!(holder == second.name, "{holder} has it");
    // It comes back with what nobody expects any more.
    first.start()?;
    whole(&world, SERVICE, 1).await?;
    world.approve(SERVICE, 1).await?;
    let rollout = world.ended_rollout(SERVICE, 1).await?;
    ensure!(rollout["state"] == "completed", "the rollout did not complete: {rollout}");
    promoted_once(&world, SERVICE, 1).await?;
    let run = world.ended_run(SERVICE, 1).await?;
    ensure!(run["attempt"] == 2, "there was another attempt: {run}");
    let kills = keeper.stop()? - 1;
    record(
        "a runner dies for good and the server around the end of its lease: the run is given out again, once",
        Tier::Live,
        format!("{kills} kills of the server, lost after {LOST_MS} ms, attempt 2 in order, one promotion"),
    );
    world.all_held();
    Ok(())
}

/// Lets it die there when the lease really ends. A server that starts gives each runner the whole time once more and so
/// looks twice: at its start, when the runner may still come, and at the end.
async fn die_at_the_end_of_the_lease(world: &World, place: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        ensure!(began.elapsed() < WITHIN, "the lease does not end");
        let (looks, is_lost) = tokio::task::block_in_place(|| die(world, place))?;
        let looked = || async {
            let log = world.windlass.lock().unwrap_or_else(PoisonError::into_inner).log();
            let now = log.matches(PERFORMING).count();
            ((now > looks).then_some(()), format!("{now} looks, {looks} before"))
        };
        let (found, seen) = wait_for(WITHIN, looked).await;
        found.with_context(|| format!("the next life does not look at the lease: {seen}"))?;
        // Before it acts nobody can tell.
        if place == PLACES[0] || is_lost {
            return Ok(());
        }
    }
}

/// Waits for the death at a place; gives how often the lease was looked at until then, and whether the last look was its
/// end.
fn die(world: &World, place: &str) -> Result<(usize, bool)> {
    // While it is held the keeper cannot begin the next life.
    let windlass = world.windlass.lock().unwrap_or_else(PoisonError::into_inner);
    let lost = windlass.log().matches(LOST).count();
    arm(world, KIND, Some(place))?;
    let began = Instant::now();
    while !deaths(world).contains(&format!("{KIND}:{place}")) {
        ensure!(began.elapsed() < WITHIN, "it did not die at {KIND}:{place}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = windlass.log();
    Ok((log.matches(PERFORMING).count(), log.matches(LOST).count() > lost))
}
