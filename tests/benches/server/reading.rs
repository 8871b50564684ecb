//! A server with much in its store: how soon it is ready, what it holds in memory, how soon it shows the board.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{
    bench::{Goal, Row, median, percentile},
    http_client,
};

use crate::{
    running::{Place, resident_mb},
    seed::{self, ADMIN, Far},
};

/// What is idle has had time to give back what it took to start.
const IDLE_FOR: Duration = Duration::from_secs(5);
const STARTS: usize = 7;
const LOOKS: usize = 40;

/// 10,000 runs.
pub(crate) async fn idle() -> Result<()> {
    let place = Place::new()?;
    seed::fill(&place.config, 100, 100, Far::RunsFailed).await?;
    let (mut ready_ms, mut resident) = (Vec::new(), Vec::new());
    for start in 0..STARTS {
        let (mut windlass, took) = place.start().await?;
        ready_ms.push(took.as_secs_f64() * 1000.0);
        if start == 0 {
            tokio::time::sleep(IDLE_FOR).await;
            resident.push(resident_mb(windlass.process().pid())?);
        }
        windlass.stop();
    }
    let memory = median(&resident);
    Row::new("memory, idle with 10,000 runs", memory, None, "MB", Goal::AtMost(60.0)).note();
    Row::new("time to ready with 10,000 runs", median(&ready_ms), None, "ms", Goal::AtMost(300.0)).note();
    Ok(())
}

/// 500 services, 10,000 releases.
pub(crate) async fn board() -> Result<()> {
    let place = Place::new()?;
    seed::fill(&place.config, 500, 20, Far::Live).await?;
    let (mut windlass, _) = place.start().await?;
    let token = place.sign_in().await?;
    let api = format!("{}/api/v1/board", place.url);
    let by_api = looks(&http_client(), &api, Some(&token), "svc-0499").await?;
    let browser = signed_in(&place).await?;
    let by_page = looks(&browser, &format!("{}/", place.url), None, "svc-0499").await?;
    let memory = resident_mb(windlass.process().pid())?;
    println!("board: API median {:.0} ms, page median {:.0} ms, {memory:.0} MB", median(&by_api), median(&by_page));
    let goal = Goal::AtMost(200.0);
    Row::new("board of 500 services, API, p95", percentile(&by_api, 95), None, "ms", goal).note();
    Row::new("board of 500 services, page, p95", percentile(&by_page, 95), None, "ms", goal).note();
    windlass.stop();
    Ok(())
}

/// Looks again and again; gives how long each look took, in milliseconds. `word` must be in each answer.
async fn looks(http: &reqwest::Client, url: &str, token: Option<&str>, word: &str) -> Result<Vec<f64>> {
    let mut took_ms = Vec::new();
    for _ in 0..LOOKS {
        let started = Instant::now();
        let mut request = http.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let text = request.send().await?.error_for_status()?.text().await?;
        took_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        ensure!(text.contains(word), "{url} does not show {word}");
    }
    Ok(took_ms)
}

/// A browser's client after the sign-in page.
async fn signed_in(place: &Place) -> Result<reqwest::Client> {
    let http = reqwest::Client::builder().no_proxy().cookie_store(true).build()?;
    let form = [("name", ADMIN.0), ("password", ADMIN.1), ("to", "/")];
    let answer = http.post(format!("{}/sign-in", place.url)).form(&form).send().await?;
    answer.error_for_status().context("the sign-in failed")?;
    Ok(http)
}
