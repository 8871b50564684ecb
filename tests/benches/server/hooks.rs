//! Signed hooks: how many a second are on disk when they are acknowledged, and how long each waits for that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    bench::{Goal, Row, percentile},
    http_client, push_body, sign_hook,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    running::Place,
    seed::{self, Far, HOOK_SECRET},
};

const SENDERS: usize = 64;
const SERVICES: usize = 64;
const FOR: Duration = Duration::from_secs(8);
const WARM: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 64 << 10;

pub(crate) async fn measure() -> Result<()> {
    // What is measured is the way into the journal: more wait to be looked at than a server would let wait.
    let place = Place::with(|config| {
        config["bounds"] = json!({
            "hooks_waiting_max": 1_000_000, "hooks_waiting_per_service_max": 1_000_000, "effects_waiting_max": 1_000_000,
        });
    })?;
    seed::fill(&place.config, SERVICES, 1, Far::RunsFailed).await?;
    let (mut windlass, _) = place.start().await?;
    let sent = Arc::new(AtomicU64::new(0));
    flood(&place, &sent, WARM).await?;
    let started = Instant::now();
    let waits_ms = flood(&place, &sent, FOR).await?;
    let rate = waits_ms.len() as f64 / started.elapsed().as_secs_f64();
    let p99 = percentile(&waits_ms, 99);
    ensure!(windlass.process().alive(), "the server has ended:\n{}", windlass.log());
    let kept = deliveries(&place).await?;
    ensure!(kept >= sent.load(Ordering::Relaxed), "{kept} hooks are kept of {sent:?} acknowledged ones");
    Row::new("signed hooks journalled, 64 senders", rate, None, "/s", Goal::AtLeast(5_000.0)).note();
    Row::new("signed hooks, answer p99, 64 senders", p99, None, "ms", Goal::AtMost(20.0)).note();
    Ok(())
}

/// All senders send as fast as they are answered; gives how long each hook waited, in milliseconds.
async fn flood(place: &Place, sent: &Arc<AtomicU64>, time: Duration) -> Result<Vec<f64>> {
    let end = Instant::now() + time;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (address, sent) = (place.address.clone(), Arc::clone(sent));
        senders.spawn(async move { send(&address, sender % SERVICES, &sent, end).await });
    }
    let mut waits_ms = Vec::new();
    while let Some(waits) = senders.join_next().await {
        waits_ms.extend(waits??);
    }
    Ok(waits_ms)
}

/// A client of little cost: it shares the machine with what it measures.
async fn send(address: &str, service: usize, sent: &AtomicU64, end: Instant) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // Of the commit that the server knows already: what is measured is the way into the journal, not a build.
    let body = push_body(&format!("{:040x}", 1)).to_string();
    let signature = sign_hook(HOOK_SECRET, body.as_bytes())?;
    let (mut waits_ms, mut answer) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        let id = sent.fetch_add(1, Ordering::Relaxed);
        let request = format!(
            "POST /hooks/svc-{service:04} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             x-gitea-event: push\r\nx-gitea-delivery: bench-{id}\r\nx-gitea-signature: {signature}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let started = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let status = read_answer(&mut stream, &mut answer).await?;
        waits_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        ensure!(status == "202", "a hook was answered {status}: {}", String::from_utf8_lossy(&answer));
    }
    Ok(waits_ms)
}

/// Reads one answer whole; gives its status.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<String> {
    answer.clear();
    loop {
        ensure!(stream.read_buf(answer).await? > 0 && answer.len() < ANSWER_BYTES_MAX, "the answer breaks off");
        let text = String::from_utf8_lossy(answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
        let length =
            lines.find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Ok(status.to_owned());
        }
    }
}

/// How many hooks the server has, by the highest of their numbers.
async fn deliveries(place: &Place) -> Result<u64> {
    let token = place.sign_in().await?;
    let mut highest = 0;
    for service in 0..SERVICES {
        let url = format!("{}/api/v1/services/svc-{service:04}/deliveries?limit=1", place.url);
        let page: Value = http_client().get(url).bearer_auth(&token).send().await?.error_for_status()?.json().await?;
        highest = highest.max(page["items"][0]["id"].as_u64().unwrap_or(0));
    }
    Ok(highest)
}
