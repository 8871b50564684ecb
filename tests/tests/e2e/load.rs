//! Under load: a flood of hooks is turned away with a time to come again, delays nobody else, and loses nothing; a step that
//! prints without end ends, and nobody's memory grows with it.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Hook, LoneServer, Tier, docker::BASE_IMAGE, evidence::record, push_body, require};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    api::{Api, wait_for},
    sample::Version,
    world::{PARTS, World},
};

/// The service whose step prints a GB.
const SERVICE: &str = "torrent";

const SECRET: &str = "the secret of the hooks";
const SENDERS: u64 = 24;
const HOOKS_OF_EACH: u64 = 60;
const WAITING_MAX: u64 = 4;
/// Looks at the repository come only where something asks for them.
const POLL_MS: u64 = 3_600_000;

/// How hooks were answered.
#[derive(Debug, Default)]
struct Answers {
    taken: AtomicU64,
    turned_away: AtomicU64,
}

#[derive(Clone)]
struct Forge {
    http: reqwest::Client,
    url: String,
    answers: Arc<Answers>,
}

impl Forge {
    /// A signed push; says whether it was taken.
    async fn push(&self, service: &str, id: &str, commit: &str) -> Result<bool> {
        let hook = Hook { event: "push", id, body: push_body(commit).to_string().into_bytes() };
        let answer = hook.signed(&self.http, &format!("{}/hooks/{service}", self.url), SECRET)?.send().await?;
        match answer.status().as_u16() {
            202 => {
                self.answers.taken.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            429 => {
                let wait = answer.headers().get("retry-after").context("it does not say when to come again")?;
                ensure!(wait.to_str()?.parse::<u64>()? > 0, "{wait:?}");
                self.answers.turned_away.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            other => bail!("a hook was answered {other}: {}", answer.text().await?),
        }
    }
}

/// The commits of a service's runs.
async fn commits(api: &Api, service: &str) -> Result<Vec<String>> {
    let runs = api.get(&format!("services/{service}/runs?limit=100")).await?;
    let commits = runs["items"].as_array().into_iter().flatten().filter_map(|run| run["commit"]["sha"].as_str());
    Ok(commits.map(str::to_owned).collect())
}

async fn has_run(api: &Api, service: &str, commit: &str, within: Duration) -> Result<()> {
    let look = || async {
        let found = commits(api, service).await.unwrap_or_default();
        (found.iter().any(|it| it == commit).then_some(()), format!("the commits that run are {found:?}"))
    };
    let (found, seen) = wait_for(within, look).await;
    found.with_context(|| format!("{commit} of {service} makes no run: {seen}"))
}

/// Waits until there is nothing of this kind: every hook that was taken is looked at, every stream has ended.
async fn none_left(api: &Api, kind: &str) -> Result<Value> {
    let look = || async {
        let load = api.get("load").await.unwrap_or_default();
        let found = load["items"].as_array().into_iter().flatten().find(|it| it["name"] == kind).cloned();
        let found = found.unwrap_or_default();
        ((found["length"] == 0).then(|| found.clone()), found.to_string())
    };
    let (found, seen) = wait_for(Duration::from_secs(120), look).await;
    found.with_context(|| format!("there still are {kind}: {seen}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_hooks_is_turned_away_delays_no_other_service_and_its_last_commit_runs() -> Result<()> {
    let mut lone = LoneServer::start_with(|config| {
        config["bounds"] = json!({"hooks_waiting_per_service_max": WAITING_MAX, "hook_heal_ms": 300});
    })
    .await?;
    let api = Api::sign_in(&lone.url, "admin", &lone.password).await?;
    for name in ["shop", "quiet"] {
        let service = json!({"name": name, "repository_url": lone.repository_url, "hook_secret": SECRET,
            "poll_interval_ms": POLL_MS});
        api.post("services", service).await?;
        has_run(&api, name, &lone.head, Duration::from_secs(60)).await?;
    }
    let forge = Forge { http: lone.http.clone(), url: lone.url.clone(), answers: Arc::default() };
    // Its own hook never comes: what tells of it is turned away with the others.
    let last = lone.push("the last one")?;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (forge, old) = (forge.clone(), lone.head.clone());
        senders.spawn(async move {
            for number in 0..HOOKS_OF_EACH {
                forge.push("shop", &format!("flood-{sender}-{number}"), &old).await?;
            }
            anyhow::Ok(())
        });
    }
    while forge.answers.turned_away.load(Ordering::Relaxed) == 0 && !senders.is_empty() {
        if let Some(ended) = senders.try_join_next() {
            ended??;
        }
        tokio::task::yield_now().await;
    }
    // In the midst of it another service is served.
    ensure!(forge.push("quiet", "its only one", &last).await?, "the other service's hook was turned away");
    has_run(&api, "quiet", &last, Duration::from_secs(30)).await?;
    let was_flooded = !senders.is_empty();
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    has_run(&api, "shop", &last, Duration::from_secs(60)).await?;
    let (taken, away) =
        (forge.answers.taken.load(Ordering::Relaxed), forge.answers.turned_away.load(Ordering::Relaxed));
    ensure!(taken + away == SENDERS * HOOKS_OF_EACH + 1, "{taken} and {away} answers");
    ensure!(away > 0, "the flood was none");
    let hooks = none_left(&api, "hooks").await?;
    ensure!(hooks["refused"].as_u64() == Some(away), "{away} were turned away: {hooks}");
    ensure!(
        api.page("/load").await?.contains("bounds.hooks_waiting_per_service_max"),
        "the page does not name the bound"
    );
    lone.is_well()?;
    let amid = if was_flooded { "amid it" } else { "after it" };
    let figure = format!("{taken} taken, {away} answered 429; another service's run came {amid}, the last commit ran");
    record("a flood of hooks is shed and healed by polling", Tier::Live, figure);
    Ok(())
}

const VIEWERS: usize = 1_000;
/// Of them so many never take what comes.
const SLOW: usize = 50;
const LINE_BYTES: u64 = 8_000;
/// A little more than a GB.
const LINES: u64 = 135_000;
/// What is kept of it.
const LOG_BYTES: u64 = 2 << 20;
/// The event of the end is within the last bytes of a stream.
const TAIL_BYTES: usize = 256;
/// Bytes that the kernel takes for a viewer that takes none.
const SLOW_BUFFER_BYTES: u32 = 4_096;
/// What the server with its runner may take at the most, unoptimised, while a step prints a GB to a thousand viewers.
const PEAK_MB_MAX: u64 = 400;

/// The most memory that a process had at once.
fn peak_mb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel names no peak")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? / 1024)
}

/// Connects as a page that follows the run; gives its connection when the stream has begun.
async fn follow(world: &World, is_slow: bool) -> Result<TcpStream> {
    let address = world.base.trim_start_matches("http://");
    let socket = TcpSocket::new_v4()?;
    if is_slow {
        socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
    }
    let mut stream = socket.connect(address.parse()?).await?;
    let token = world.api.token();
    let request = format!(
        "GET /services/{SERVICE}/runs/1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    ensure!(&head == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// Reads to the end; says whether the end of the run came, and how many bytes. Cheap: a thousand of these share the machine
/// with what they test.
async fn read(mut stream: TcpStream) -> Result<(bool, u64)> {
    const END: &[u8] = b"event: end";
    let (mut buffer, mut tail, mut bytes) = (vec![0; 64 << 10], Vec::new(), 0);
    loop {
        let read = stream.read(&mut buffer).await?;
        bytes += read as u64;
        tail.extend_from_slice(&buffer[read.saturating_sub(TAIL_BYTES)..read]);
        let ended = tail.windows(END.len()).any(|window| window == END);
        if ended || read == 0 {
            return Ok((ended, bytes));
        }
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_prints_a_gb_to_a_thousand_viewers_ends_and_the_servers_memory_stays() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let world = World::start_with(&[], |config| {
        config["bounds"] = json!({"streams_max": VIEWERS, "stream_stall_ms": 15_000});
        config["job"] = json!({"log_bytes_per_step_max": LOG_BYTES});
    })
    .await?;
    let service = world.service(SERVICE).await?;
    let mut version = Version::new(SERVICE, "1", json!({ "strategy": "rolling" }));
    let print = format!("L=$(head -c {LINE_BYTES} /dev/zero | tr '\\0' x); yes \"$L\" | head -n {LINES}; echo printed");
    version.pipeline["steps"] = json!([
        { "name": "flood", "image": BASE_IMAGE, "commands": [print] },
    ]);
    service.push(&version)?;
    let pid = world.windlass.lock().unwrap_or_else(PoisonError::into_inner).process().pid();
    let (run, seen) = wait_for(Duration::from_secs(60), || async {
        let run = world.api.ask(Method::GET, &format!("services/{SERVICE}/runs/1"), None).await;
        (run.as_ref().ok().filter(|(status, _)| status.is_success()).map(drop), format!("{run:?}"))
    })
    .await;
    run.with_context(|| format!("there is no run: {seen}"))?;
    let (mut readers, mut slow) = (tokio::task::JoinSet::new(), Vec::new());
    for number in 0..VIEWERS {
        let is_slow = number % (VIEWERS / SLOW) == 0;
        let stream = follow(&world, is_slow).await?;
        if is_slow {
            slow.push(stream);
        } else {
            readers.spawn(read(stream));
        }
    }
    let run = world.ended_run(SERVICE, 1).await?;
    ensure!(run["state"] == "succeeded", "the run did not succeed: {run}");
    let mut bytes = 0;
    while let Some(done) = readers.join_next().await {
        let (ended, read) = done??;
        ensure!(ended, "a viewer did not see the end");
        bytes += read;
    }
    let peak = peak_mb(pid)?;
    let log = world.api.get(&format!("services/{SERVICE}/runs/1/steps/flood/log?from=0&limit=5000")).await?;
    let length = log["length"].as_u64().context("no length")?;
    let end = world.api.get(&format!("services/{SERVICE}/runs/1/steps/flood/log?from={}", length - 2)).await?;
    let end = end["lines"].to_string();
    ensure!(end.contains("more lines were not kept"), "the end of the log is {end}");
    ensure!(length < LINES / 10, "{length} lines were kept");
    ensure!(peak <= PEAK_MB_MAX, "the server took {peak} MB");
    // Who takes nothing is cut off: the connection ends before the log does. They begin to take only then.
    none_left(&world.api, "streams").await?;
    for stream in slow {
        let (ended, _) = read(stream).await.unwrap_or_default();
        ensure!(!ended, "a viewer that took nothing for long was served all the same");
    }
    let figure = format!("{peak} MB at the most, {} MB to {VIEWERS} viewers", bytes >> 20);
    record("a step prints 1 GB, 1,000 viewers follow", Tier::Live, figure);
    world.all_held();
    Ok(())
}
