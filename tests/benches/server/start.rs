//! From the hook to the first line of a step, less what git and Docker take for the same.

use std::{
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    bench::{Goal, Row, median, percentile},
    docker::BASE_IMAGE,
    process::output,
};

use crate::yard::Yard;

const PUSHES: u32 = 40;
/// The first ones bring what a warm runner has.
const WARM: u32 = 3;
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn measure(yard: &Yard) -> Result<()> {
    let mirror = tempfile::tempdir()?;
    output(Command::new("git").args(["init", "--bare", "--quiet"]).arg(mirror.path()))?;
    let (mut whole_ms, mut alone_ms, mut beyond_ms) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=PUSHES + WARM {
        let commit = yard.commit("echo hello; exit 1", number)?;
        let run = yard.idle().await? + 1;
        let started = Instant::now();
        yard.hook(&commit).await?;
        first_line(yard, run).await?;
        let whole = started.elapsed().as_secs_f64() * 1000.0;
        yard.idle().await?;
        let alone = git(yard, &mirror)? + docker(yard, number)?;
        if number > WARM {
            whole_ms.push(whole);
            alone_ms.push(alone);
            beyond_ms.push((whole - alone).max(0.0));
        }
    }
    println!(
        "push to the first line: {:.0} ms, of which git and Docker {:.0} ms",
        median(&whole_ms),
        median(&alone_ms)
    );
    let name = "push to the first log line, p99, beyond git and Docker";
    Row::new(name, percentile(&beyond_ms, 99), None, "ms", Goal::AtMost(100.0)).note();
    Ok(())
}

async fn first_line(yard: &Yard, run: u64) -> Result<()> {
    let started = Instant::now();
    loop {
        let log = yard.get(&format!("runs/{run}/steps/work/log?from=0&limit=5")).await?;
        if log.as_ref().is_some_and(|log| log.to_string().contains("hello")) {
            return Ok(());
        }
        ensure!(
            started.elapsed() < WITHIN,
            "run {run} printed nothing: {log:?} {:?}",
            yard.get(&format!("runs/{run}")).await?
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What git takes to fetch the newest commit into a folder that has the one before; in milliseconds.
fn git(yard: &Yard, mirror: &tempfile::TempDir) -> Result<f64> {
    let started = Instant::now();
    let mut git = Command::new("git");
    git.arg("-C").arg(mirror.path()).args(["fetch", "--quiet", &yard.git.url("shop.git"), "main"]);
    output(&mut git)?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

/// What Docker takes for a network and for a container on it until its first line; in milliseconds.
fn docker(yard: &Yard, number: u32) -> Result<f64> {
    let network = format!("wl-bench-{}-{number}", std::process::id());
    let started = Instant::now();
    yard.engine.docker(&["network", "create", &network])?;
    let mut command = yard.engine.command();
    command.args(["run", "--rm", "--network", &network, BASE_IMAGE, "sh", "-c", "echo hello"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut first = [0; 5];
    child.stdout.take().context("no output")?.read_exact(&mut first)?;
    let took = started.elapsed().as_secs_f64() * 1000.0;
    child.wait()?;
    yard.engine.docker(&["network", "rm", &network])?;
    Ok(took)
}
