//! Many releases and a sweep every second: what is live, may be rolled back to or is on its way stays, everywhere; the rest
//! goes, from the records, the logs, the test registry and the engine. The server is killed in the middle of it.

use std::{collections::BTreeSet, fs, sync::Arc};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Tier, evidence::record, require};

use crate::{
    api::{WITHIN, text, wait_for},
    crash::Keeper,
    sample::Version,
    world::{PARTS, World},
};

const SERVICE: &str = "attic";
const RELEASES: u32 = 6;
const MARKS: &str = "deaths";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_releases_go_and_what_is_needed_stays() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let kills = [("WINDLASS_CRASH", "sweep"), ("WINDLASS_CRASH_MARK", MARKS)];
    let world = World::start_with(&kills, |settings| {
        settings["retention"] = json!({
            "runs_keep": 1, "runs_days": 0, "images_keep": 1, "images_days": 0, "rollback_keep": 2,
            "logs_days": 1, "sweep_every_ms": 1_000,
        });
    })
    .await?;
    let keeper = Keeper::start(Arc::clone(&world.windlass));
    let service = world.service(SERVICE).await?;
    let mut tags = Vec::new();
    for number in 1..=RELEASES {
        let version = Version::new(SERVICE, &number.to_string(), json!({ "strategy": "rolling" }));
        let rollout = world.deliver(&service, &version, number).await?;
        ensure!(rollout["state"] == "completed", "rollout {number} did not complete: {rollout}");
        let release = world.api.get(&format!("services/{SERVICE}/releases/{number}")).await?;
        tags.push(text(&release, "tag")?.to_owned());
    }
    // The last one is live, the two before it can be rolled back to.
    let kept: BTreeSet<String> = tags[tags.len() - 3..].iter().cloned().collect();
    let mut digests = BTreeSet::new();
    for number in [4, 5, 6] {
        let release = world.api.get(&format!("services/{SERVICE}/releases/{number}")).await?;
        digests.insert(text(&release, "digest")?.to_owned());
    }
    let look = || async {
        let runs = numbers(&world, "runs").await.unwrap_or_default();
        let there = world.test.tags(SERVICE).await.unwrap_or_default().into_iter().collect::<BTreeSet<_>>();
        let engine = images(&world).unwrap_or_default();
        let deaths = deaths(&world);
        let is_done = runs == [6, 5, 4] && there == kept && engine == digests && deaths == 3;
        (is_done.then_some(()), format!("runs {runs:?}, tags {there:?}, engine {engine:?}, {deaths} deaths"))
    };
    let (done, seen) = wait_for(WITHIN, look).await;
    done.with_context(|| format!("not everything went, or too much did: {seen}"))?;
    ensure!(numbers(&world, "releases").await? == [6, 5, 4]);
    let logs = fs::read_dir(world.folder().join("state/logs"))?.count();
    ensure!(logs == 3, "there are {logs} logs");
    ensure!(world.production.tags(SERVICE).await?.len() == tags.len(), "the production registry was touched");
    ensure!(world.test.tags("library/busybox").await?.len() == 1, "another repository was touched");
    let digests = world.digests(SERVICE, RELEASES).await?;
    ensure!(digests.test == digests.production && digests.running.iter().eq([&digests.test]), "{digests:?}");
    let journal = world.api.get(&format!("audit?service={SERVICE}&what=release+{SERVICE}%2F1&limit=100")).await?;
    let first = format!("release {SERVICE}/1");
    let entries = journal["items"].as_array().context("no audit log")?;
    ensure!(entries.iter().any(|entry| entry["subject"] == first.as_str()), "the audit log was swept");

    // What is gone cannot be rolled back to; what was kept can, while sweeps go on.
    let reason = json!({ "reason": "prices are wrong" });
    let path = |number: u32| format!("services/{SERVICE}/releases/{number}/rollback");
    let (status, answer) = world.api.ask(Method::POST, &path(1), Some(&reason)).await?;
    ensure!(status == StatusCode::NOT_FOUND, "a rollback to what is gone was answered {status}: {answer}");
    world.api.post(&path(4), reason).await?;
    let is_live = |release: &Value| (release["state"] == "live").then_some(());
    world.api.until(&format!("services/{SERVICE}/releases/4"), "the rollback", is_live).await?;
    let running = world.running(SERVICE)?;
    ensure!(running.len() == 1, "{running:?}");
    let health = world.api.get("health").await?;
    let told = health["findings"].as_array().into_iter().flatten().find(|finding| finding["name"] == "kept");
    let told = told.and_then(|it| it["evidence"].as_str()).context("health does not say what is kept")?.to_owned();
    keeper.stop()?;
    record(
        "old releases go from records, logs, test registry and engine; live, waiting and rollbackable ones stay",
        Tier::Live,
        format!("{RELEASES} releases, 3 kept; killed 3 times within a sweep; a rollback to one of the kept; {told}"),
    );
    world.all_held();
    Ok(())
}

fn deaths(world: &World) -> usize {
    let noted = fs::read_to_string(world.folder().join(MARKS)).unwrap_or_default();
    noted.lines().filter(|line| line.starts_with("sweep:")).count()
}

async fn numbers(world: &World, what: &str) -> Result<Vec<u64>> {
    let (_, listed) = world.api.ask(Method::GET, &format!("services/{SERVICE}/{what}"), None).await?;
    Ok(listed["items"].as_array().context("no list")?.iter().filter_map(|it| it["number"].as_u64()).collect())
}

/// The digests of the service's images that the engine has from either registry.
fn images(world: &World) -> Result<BTreeSet<String>> {
    let mut digests = BTreeSet::new();
    for registry in [&world.test, &world.production] {
        let repository = format!("{}/{SERVICE}", registry.host_port());
        let listed = world.engine.docker(&["image", "ls", "--digests", "--format", "{{.Digest}}", &repository])?;
        digests.extend(listed.lines().filter(|digest| *digest != "<none>").map(str::to_owned));
    }
    Ok(digests)
}
