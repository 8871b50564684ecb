//! Traces of a real server, killed and started again, as a receiver reads them. The trace of a whole train is in e2e.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    Hook, LoneServer, Otlp,
    evidence::{self, Tier},
    otlp::ToldSpan,
    push_body,
};

const WITHIN: Duration = Duration::from_secs(60);
const SECRET: &str = "secret-of-the-shop";
const CALLER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The spans of the whole, as often as they were told.
fn roots(told: &[ToldSpan]) -> Vec<&ToldSpan> {
    told.iter().filter(|span| span.parent.is_empty()).collect()
}

async fn asked(server: &LoneServer, token: &str, path: &str, body: Value) -> Result<Value> {
    let url = format!("{}/api/v1/{path}", server.url);
    let answer = server.http.post(url).bearer_auth(token).json(&body).send().await?;
    Ok(answer.error_for_status()?.json().await?)
}

/// Waits until there is a run of this number.
async fn run(server: &mut LoneServer, token: &str, number: u32) -> Result<()> {
    let run = format!("{}/api/v1/services/shop/runs/{number}", server.url);
    let http = server.http.clone();
    let made = || async { http.get(&run).bearer_auth(token).send().await.ok()?.error_for_status().ok() };
    server.windlass.process().ready(WITHIN, made).await.map(drop)
}

/// A push is told by a hook, in somebody's trace; its run is stopped before a runner has it. Gives the commit.
async fn life(server: &mut LoneServer, token: &str) -> Result<String> {
    let service = json!({
        "name": "shop", "repository_url": server.repository_url, "hook_secret": SECRET, "poll_interval_ms": 0,
        "release_branch": "main",
    });
    asked(server, token, "services", service).await?;
    // The first poll finds what was there before; the hook tells of what comes next.
    run(server, token, 1).await?;
    let commit = server.push("more")?;
    let mut body = push_body(&commit);
    body["before"] = json!(server.head);
    let hook = Hook { event: "push", id: "1", body: body.to_string().into_bytes() };
    let sent = hook.signed(&server.http, &format!("{}/hooks/shop", server.url), SECRET)?;
    sent.header("traceparent", format!("00-{CALLER}-00f067aa0ba902b7-01")).send().await?.error_for_status()?;
    run(server, token, 2).await?;
    asked(server, token, "services/shop/runs/2/cancel", json!({ "reason": "not wanted" })).await?;
    Ok(commit)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_had_not_told_is_told_and_what_it_had_comes_under_the_same_ids() -> Result<()> {
    let receiver = Otlp::start().await?;
    receiver.close();
    let endpoint = receiver.url.clone();
    let mut server = LoneServer::start_with(|settings| {
        settings["tracing"] = json!({ "otlp_endpoint": endpoint, "batch_wait_ms": 50, "retry_max_ms": 100 });
    })
    .await?;
    let token = server.admin_token().await?;
    let commit = life(&mut server, &token).await?;
    server.windlass.kill();
    ensure!(receiver.told().is_empty(), "a closed receiver took something");
    receiver.open();
    server.kill_and_restart().await?;
    let first = receiver.until("the trace", WITHIN, |told| (!roots(told).is_empty()).then(|| told.to_vec())).await?;
    let root = roots(&first)[0].clone();
    ensure!(root.name == "RUN shop" && root.attribute("windlass.outcome") == "cancelled", "{root:?}");
    ensure!(root.attribute("vcs.ref.head.revision") == commit && root.links == [CALLER], "{root:?}");
    let hook = first.iter().find(|span| span.name == "hook").context("no span of the hook")?;
    ensure!(hook.parent == root.id && hook.start_ns == root.start_ns, "{hook:?}");
    let text = format!("{first:?}");
    ensure!(!text.contains("not wanted") && !text.contains("Mei") && !text.contains('@'), "told too much: {text}");

    server.kill_and_restart().await?;
    let again = |told: &[ToldSpan]| (roots(told).len() > 1).then(|| told.to_vec());
    let both = receiver.until("the trace again", WITHIN, again).await?;
    let mut by_id: BTreeMap<&str, &ToldSpan> = BTreeMap::new();
    for span in &both {
        let known = by_id.entry(&span.id).or_insert(span);
        ensure!(**known == *span, "one id, two spans: {known:?} and {span:?}");
    }
    ensure!(by_id.len() == first.len(), "{} spans, then {}", first.len(), by_id.len());
    server.is_well()?;
    evidence::record(
        "a kill of the server loses no span of a trace, and a span that is told again is the same one",
        Tier::Contract,
        format!("{} spans, told {} times, kill -9 before and after", by_id.len(), both.len()),
    );
    Ok(())
}
