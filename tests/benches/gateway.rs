//! The gateway beside nginx: both as a reverse proxy before the same backend, asked by the same `wrk`, in turns.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    Part, Process, Tier, Windlass,
    bench::{Goal, Load, Row, conditions, load, median, nginx},
    evidence::record_as,
    free_port, http_client, require,
};

const ROUNDS: usize = 5;
const SECONDS: u16 = 4;
const CONNECTIONS: u16 = 32;
const HOST: &str = "shop.test";
const SOON: Duration = Duration::from_secs(20);
/// Connections that nginx keeps to the backend, as the gateway does.
const KEPT: u16 = 64;

#[tokio::main]
async fn main() -> Result<()> {
    if !require(&[Part::Bench]) {
        return Ok(());
    }
    let conditions = conditions();
    let dir = tempfile::tempdir()?;
    let backend = free_port();
    let hello = "default_type text/plain; return 200 hello;";
    let _backend = nginx(
        &dir.path().join("backend"),
        "1",
        backend,
        &format!("keepalive_requests 100000000;\nserver {{ listen 127.0.0.1:{backend}; location / {{ {hello} }} }}\n"),
    )
    .await?;
    let (proxy, _proxy) = proxy(&dir.path().join("proxy"), backend).await?;
    let (gateway, _gateway) = gateway(&dir.path().join("gateway"), backend).await?;
    for port in [proxy, gateway] {
        // Connections, caches and branch predictors of both are warm before anything counts.
        load(port, HOST, CONNECTIONS, 1)?;
    }
    let (mut direct, mut theirs, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        direct.push(load(backend, HOST, CONNECTIONS, 1)?);
        // Neither always has the other's heat before it.
        let turns = if round % 2 == 0 { [proxy, gateway] } else { [gateway, proxy] };
        for port in turns {
            let measured = load(port, HOST, CONNECTIONS, SECONDS)?;
            println!("{}: {measured:?}", if port == proxy { "nginx" } else { "gateway" });
            if port == proxy { theirs.push(measured) } else { ours.push(measured) }
        }
    }
    let middle = |loads: &[Load], of: fn(&Load) -> f64| median(&loads.iter().map(of).collect::<Vec<_>>());
    let rate = |loads| middle(loads, |load| load.requests_per_s);
    let p99_ms = |loads| middle(loads, |load| load.p99_ms);
    let (our_rate, their_rate, our_p99, their_p99) = (rate(&ours), rate(&theirs), p99_ms(&ours), p99_ms(&theirs));
    println!("backend alone: {:.0} requests/s", rate(&direct));
    Row::new("gateway, requests", our_rate, Some(their_rate), "/s", Goal::RatioAtLeast(0.7)).note();
    // As much slower at most as the requests may be fewer.
    Row::new("gateway, p99", our_p99, Some(their_p99), "ms", Goal::RatioAtMost(1.43)).note();
    let figure = format!(
        "{:.2}× its requests/s ({our_rate:.0} to {their_rate:.0}), {:.2}× its p99 ({our_p99:.2} ms to {their_p99:.2} ms); \
         {CONNECTIONS} connections, {ROUNDS} rounds, {conditions}",
        our_rate / their_rate,
        our_p99 / their_p99,
    );
    println!("{figure}");
    record_as("the gateway beside nginx as a reverse proxy", Tier::RealPart, figure, "make bench");
    Ok(())
}

async fn proxy(dir: &Path, backend: u16) -> Result<(u16, Process)> {
    let port = free_port();
    let http = format!(
        "keepalive_requests 100000000;\nupstream shop {{ server 127.0.0.1:{backend}; keepalive {KEPT}; \
         keepalive_requests 100000000; }}\nserver {{ listen 127.0.0.1:{port}; server_name {HOST}; location / {{ \
         proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }} }}\n"
    );
    Ok((port, nginx(dir, "auto", port, &http).await?))
}

async fn gateway(dir: &Path, backend: u16) -> Result<(u16, Windlass)> {
    std::fs::create_dir_all(dir)?;
    let (port, folder) = (free_port(), dir.join("folder"));
    let argument = folder.to_str().context("the folder is no text")?;
    let mut gateway = Windlass::start(dir, &["gateway", "--folder", argument], &[])?;
    // Sets up the process's cryptography, which every client needs.
    drop(http_client());
    let control = reqwest::Client::builder().unix_socket(folder.join("control.sock")).timeout(SOON).build()?;
    let answers = || async { control.get("http://gateway/v1/healthz").send().await.ok()?.json::<Value>().await.ok() };
    gateway.process().ready(SOON, answers).await?;
    let config = json!({"generation": 1, "config": {
        "version": 1,
        "listen": [format!("127.0.0.1:{port}")],
        "revisions": {"shop-1": {"backends": [format!("127.0.0.1:{backend}")]}},
        "routes": {HOST: {"shares": [{"revision": "shop-1", "weight": 10_000}]}},
    }});
    let taken = control.put("http://gateway/v1/config").json(&config).send().await?;
    ensure!(taken.status().is_success(), "{}", taken.text().await?);
    Ok((port, gateway))
}
