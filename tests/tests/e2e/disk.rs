//! The state folder on a small disk of its own, which fills up and breaks under a train: new work is refused with its
//! cause, what is under way waits and goes on, and nothing that was acknowledged is lost.

use std::{fs, os::unix::fs::symlink, sync::PoisonError, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{SmallDisk, Tier, docker::BASE_IMAGE, evidence::record, http_client, process::is_root, require};

use crate::{
    api::{WITHIN, wait_for},
    sample::Version,
    world::{PARTS, World},
};

const SERVICE: &str = "silo";
const DISK_MB: u64 = 192;
/// What is kept for finishing.
const KEPT_BYTES: u64 = 48 << 20;
/// What is left when the disk is nearly full.
const LEFT_BYTES: u64 = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_and_breaks_stops_nothing_for_good() -> Result<()> {
    if !require(&PARTS) || !is_root() {
        return Ok(());
    }
    let disk = SmallDisk::ext4(DISK_MB)?;
    let state = disk.at.join("state");
    fs::create_dir(&state)?;
    let mut linked = Ok(());
    let world = World::start_with(&[], |settings| {
        // By a link within the world's folder: by that folder its gateways are known when they are to be stopped.
        linked = symlink(&state, settings["state_dir"].as_str().unwrap_or_default());
        settings["bounds"]["disk_free_bytes_min"] = json!(KEPT_BYTES);
    })
    .await?;
    linked?;
    let done = scenario(&world, &disk).await;
    // Whatever came of it: the mount goes only when nobody uses it.
    world.windlass.lock().unwrap_or_else(PoisonError::into_inner).stop();
    done?;
    world.all_held();
    Ok(())
}

async fn scenario(world: &World, disk: &SmallDisk) -> Result<()> {
    let service = world.service(SERVICE).await?;
    let body = json!({ "poll_interval_ms": 1_000 });
    let (status, _) = world.api.ask(Method::PATCH, &format!("services/{SERVICE}"), Some(&body)).await?;
    ensure!(status.is_success());
    service.push(&slow("1"))?;
    let path = format!("services/{SERVICE}/runs/1/steps/slow/log?limit=1000");
    world.api.until(&path, "the first lines", |log| (log["lines"].as_array()?.len() > 5).then_some(())).await?;

    // Nearly full: what has begun goes on to its end, nothing new begins.
    disk.fill(LEFT_BYTES)?;
    refuses_new_work(world, "disk-low", "disk").await?;
    service.push(&version("2"))?;
    world.asked(SERVICE, 1).await?;
    ensure!(runs(world).await? == 1, "a run began without room");
    let page = world.api.page("/").await?;
    ensure!(page.contains("nearly full"), "the page does not say it");

    // Full to the last byte: what cannot be stored is not acknowledged.
    disk.fill(0)?;
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for number in 0..40 {
        let token = json!({ "label": format!("full {number}") });
        let (status, answer) = world.api.ask(Method::POST, "tokens", Some(&token)).await?;
        match status {
            StatusCode::CREATED | StatusCode::OK => acknowledged.push(format!("full {number}")),
            StatusCode::SERVICE_UNAVAILABLE => {
                ensure!(answer["next"].as_str().is_some_and(|next| next.contains("free space")), "{answer}");
                refused += 1;
            }
            other => anyhow::bail!("a token was answered {other}: {answer}"),
        }
    }
    ensure!(refused > 0, "a full disk took everything");

    // Room again: nothing is restarted, the hook that was refused is healed by the poll.
    disk.free()?;
    world.approve(SERVICE, 1).await?;
    let first = world.ended_rollout(SERVICE, 1).await?;
    ensure!(first["state"] == "completed", "the rollout did not complete: {first}");
    world.asked(SERVICE, 2).await?;
    whole_log(world).await?;

    // The file system breaks: reads go on, changes are refused, nothing acknowledged is lost.
    disk.abort()?;
    refuses_new_work(world, "store-refuses", "store").await?;
    let release = world.api.get(&format!("services/{SERVICE}/releases/2")).await?;
    ensure!(release["state"] == "awaiting_approval", "it cannot be read: {release}");
    let decision = json!({ "digest": release["digest"], "comment": "" });
    let path = format!("services/{SERVICE}/releases/2/approve");
    let (status, answer) = world.api.ask(Method::POST, &path, Some(&decision)).await?;
    ensure!(status == StatusCode::SERVICE_UNAVAILABLE, "an approval was answered {status}: {answer}");
    ensure!(answer["detail"].as_str().is_some_and(|detail| detail.contains("read-only")), "{answer}");
    {
        let mut windlass = world.windlass.lock().unwrap_or_else(PoisonError::into_inner);
        windlass.stop();
        disk.mount_again()?;
        windlass.restart()?;
    }
    world.approve(SERVICE, 2).await?;
    let second = world.ended_rollout(SERVICE, 2).await?;
    ensure!(second["state"] == "completed", "the rollout did not complete: {second}");
    let tokens = world.api.get("tokens").await?;
    for label in &acknowledged {
        let there = tokens["items"].as_array().into_iter().flatten().any(|token| token["label"] == label.as_str());
        ensure!(there, "the token {label} was acknowledged and is lost");
    }
    record(
        "a full and a broken disk: new work is refused with its cause, what is under way goes on, nothing acknowledged is lost",
        Tier::Live,
        format!(
            "ext4 of {DISK_MB} MB; {refused} of 40 changes refused on the full disk, {} acknowledged and kept; the refused push was found by polling",
            acknowledged.len()
        ),
    );
    Ok(())
}

fn version(name: &str) -> Version {
    Version::new(SERVICE, name, json!({ "strategy": "rolling" }))
}

/// A version whose step takes long enough to be in the middle of.
fn slow(name: &str) -> Version {
    let mut version = version(name);
    let script = "i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo \"line $i\"; sleep 0.1; done";
    version.pipeline["steps"] = json!([{ "name": "slow", "image": BASE_IMAGE, "commands": [script] }]);
    version
}

async fn runs(world: &World) -> Result<usize> {
    let runs = world.api.get(&format!("services/{SERVICE}/runs")).await?;
    Ok(runs["items"].as_array().context("no runs")?.len())
}

/// Runs and services are refused with cause and next action, the server says that it is not ready, and health says why.
async fn refuses_new_work(world: &World, kind: &str, finding: &str) -> Result<()> {
    for (path, body) in [
        (format!("services/{SERVICE}/runs"), json!({ "git_ref": "main" })),
        ("services".to_owned(), json!({ "name": "more", "repository_url": "https://git.example.com/more.git" })),
    ] {
        let (status, answer) = world.api.ask(Method::POST, &path, Some(&body)).await?;
        ensure!(status == StatusCode::SERVICE_UNAVAILABLE, "{path} was answered {status}: {answer}");
        ensure!(answer["type"] == kind && answer["next"].is_string(), "{path} gives neither cause nor next: {answer}");
    }
    let ready = http_client().get(format!("{}/readyz", world.base)).send().await?;
    ensure!(ready.status() == StatusCode::SERVICE_UNAVAILABLE && ready.headers().contains_key("retry-after"));
    let look = || async {
        let health = world.api.get("health").await.unwrap_or_default();
        let found = health["findings"].as_array().into_iter().flatten().find(|it| it["name"] == finding).cloned();
        (found.filter(|disk| disk["state"] == "bad" && disk["fix"].is_string()), health.to_string())
    };
    let (found, seen): (Option<Value>, _) = wait_for(WITHIN.min(Duration::from_secs(20)), look).await;
    found.with_context(|| format!("health does not say it: {seen}")).map(drop)
}

/// Every line of the step that ran while the disk filled up is there, once.
async fn whole_log(world: &World) -> Result<()> {
    let log = world.api.get(&format!("services/{SERVICE}/runs/1/steps/slow/log?limit=1000")).await?;
    let lines: Vec<_> =
        log["lines"].as_array().context("no log")?.iter().filter_map(|it| it["text"].as_str()).collect();
    let printed: Vec<_> = lines.iter().filter(|line| line.starts_with("line ")).collect();
    let wanted: Vec<_> = (1..=80).map(|number| format!("line {number}")).collect();
    ensure!(printed.iter().map(|line| (**line).to_owned()).eq(wanted), "lines are missing or doubled: {lines:?}");
    Ok(())
}
