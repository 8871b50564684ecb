//! A million lines from a container to a reader of the server's stream, and a look at line 900,000.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt as _;
use tests::{
    bench::{Goal, Row, median},
    docker::BASE_IMAGE,
};

use crate::yard::Yard;

const LINES: u64 = 1_000_000;
const LOOKS: usize = 30;

pub(crate) async fn measure(yard: &Yard) -> Result<()> {
    let before = yard.idle().await?;
    let command = format!("seq 1 {LINES}; exit 1");
    let commit = yard.commit(&command, 10_000)?;
    yard.hook(&commit).await?;
    let run = before + 1;
    let took = read(yard, run).await?;
    let alone = docker(yard)?;
    let (ours, theirs) = (LINES as f64 / took, LINES as f64 / alone);
    let name = "log lines through the whole path, beside `docker run` alone";
    Row {
        ratio: Some(((ours / theirs) * 1000.0).round() / 1000.0),
        ..Row::new(name, ours, Some(theirs), "/s", Goal::AtLeast(100_000.0))
    }
    .note();
    let mut took_ms = Vec::new();
    for _ in 0..LOOKS {
        let started = Instant::now();
        let path = format!("runs/{run}/steps/work/log?from=900000&limit=500");
        let log = yard.get(&path).await?.context("there is no log")?.to_string();
        took_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        ensure!(log.contains("900001"), "line 900,000 is not what it was");
    }
    Row::new("open line 900,000 of a million", median(&took_ms), None, "ms", Goal::AtMost(100.0)).note();
    yard.idle().await?;
    Ok(())
}

/// Seconds between the first line and the last, as a reader of the stream gets them.
async fn read(yard: &Yard, run: u64) -> Result<f64> {
    let url = format!("{}/api/v1/services/shop/runs/{run}/steps/work/log/stream", yard.place.url);
    let answer = loop {
        let answer = reqwest::Client::builder().no_proxy().build()?.get(&url).bearer_auth(&yard.token).send().await?;
        if answer.status().is_success() {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let mut stream = answer.bytes_stream();
    let (mut first, mut lines, mut tail) = (None, 0_u64, Vec::new());
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.context("the stream breaks off")?;
        // An event ends with an empty line; `event: line` begins one. A mark may be cut between two reads.
        tail.extend_from_slice(&bytes);
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        let seen = tail[..whole].split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"event: line"));
        lines += seen.count() as u64;
        let ended = tail[..whole].split(|byte| *byte == b'\n').any(|line| line.starts_with(b"event: end"));
        tail.drain(..whole);
        if lines > 0 {
            first.get_or_insert_with(Instant::now);
        }
        if lines >= LINES || ended {
            break;
        }
    }
    ensure!(lines >= LINES, "{lines} lines came of {LINES}; the run: {:?}", yard.get(&format!("runs/{run}")).await?);
    Ok(first.context("no line came")?.elapsed().as_secs_f64())
}

/// Seconds between the first line and the last of the same by `docker run`.
fn docker(yard: &Yard) -> Result<f64> {
    let mut command = yard.engine.command();
    command.args(["run", "--rm", BASE_IMAGE, "seq", "1", &LINES.to_string()]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let (mut first, mut count) = (None, 0_u64);
    for line in BufReader::new(child.stdout.take().context("no output")?).split(b'\n') {
        line?;
        first.get_or_insert_with(Instant::now);
        count += 1;
    }
    child.wait()?;
    ensure!(count == LINES, "{count} lines of {LINES}");
    Ok(first.context("no line came")?.elapsed().as_secs_f64())
}
