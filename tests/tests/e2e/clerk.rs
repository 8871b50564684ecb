//! Somebody who writes all the while, one thing after the other, and looks whether what was acknowledged is there still
//! when the server has died in between.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, WITHIN, text, wait_for};

/// Time between two requests.
const PACE: Duration = Duration::from_millis(100);

/// Makes tokens and takes them back, until `stop`; gives how many changes were acknowledged.
///
/// # Errors
/// When one that was acknowledged is lost.
pub(crate) async fn write(api: &Api, stop: &CancellationToken) -> Result<u64> {
    let mut beat = tokio::time::interval(PACE);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut acknowledged, mut number) = (0, 0_u64);
    while !stop.is_cancelled() {
        number += 1;
        let label = format!("clerk-{number}");
        beat.tick().await;
        // What is not answered may be stored or not.
        match api.ask(Method::POST, "tokens", Some(&json!({ "label": label }))).await {
            Ok((status, _)) if status.is_success() => acknowledged += 1,
            _ => continue,
        }
        beat.tick().await;
        let id = id_of(api, &label).await?.with_context(|| format!("{label} was acknowledged and is lost"))?;
        beat.tick().await;
        take_back(api, &id).await?;
        acknowledged += 1;
        beat.tick().await;
        ensure!(id_of(api, &label).await?.is_none(), "the end of {label} was acknowledged and is lost");
    }
    Ok(acknowledged)
}

async fn id_of(api: &Api, label: &str) -> Result<Option<String>> {
    let tokens = api.get("tokens").await?;
    let items = tokens["items"].as_array().context("there are no items")?;
    let found = items.iter().find(|token| token["label"] == label);
    found.map(|token| Ok(text(token, "id")?.to_owned())).transpose()
}

/// Until it is answered; it may have been done when the answer was lost.
async fn take_back(api: &Api, id: &str) -> Result<()> {
    let path = format!("tokens/{id}");
    let take = || async {
        match api.ask(Method::DELETE, &path, None).await {
            Ok((status, _)) if status.is_success() || status == StatusCode::NOT_FOUND => (Some(()), String::new()),
            other => (None, format!("{other:?}")),
        }
    };
    let (taken, seen) = wait_for(WITHIN, take).await;
    taken.with_context(|| format!("{path} is not answered: {seen}"))
}
