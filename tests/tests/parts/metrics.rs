//! `/metrics` as the real Prometheus reads it, with the rules and the dashboard of docs/monitoring.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    LoneServer, Part, Prometheus,
    evidence::{self, Tier},
    parts::checkout,
    prometheus::promtool,
    require,
};

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_the_server_with_a_token_that_reads_and_takes_rules_and_dashboard() -> Result<()> {
    if !require(&[Part::Prometheus]) {
        return Ok(());
    }
    let monitoring = checkout().join("docs/monitoring");
    promtool(&["check", "rules", "alerts.yml"], "", &monitoring)?;
    promtool(&["test", "rules", "alerts_test.yml"], "", &monitoring)?;

    let server = LoneServer::start().await?;
    let admin = server.admin_token().await?;
    let wanted = json!({"label": "prometheus", "scope": "developer", "read_only": true});
    let made = server.http.post(format!("{}/api/v1/tokens", server.url)).bearer_auth(&admin).json(&wanted);
    let made: Value = made.send().await?.error_for_status()?.json().await?;
    let token = made["token"].as_str().context("no token")?;
    let metrics = format!("{}/metrics", server.url);
    let text = server.http.get(&metrics).bearer_auth(token).send().await?.error_for_status()?.text().await?;
    promtool(&["check", "metrics"], &text, &monitoring)?;
    let stranger = server.http.get(&metrics).send().await?;
    ensure!(stranger.status() == 401, "a stranger got {}", stranger.status());

    let target = server.url.trim_start_matches("http://");
    let mut prometheus = Prometheus::start(target, token, &monitoring.join("alerts.yml")).await?;
    prometheus.until("up{job=\"windlass\"} == 1").await?;
    prometheus.until("windlass_build_info").await?;
    prometheus.until("process_resident_memory_bytes > 1e6").await?;
    prometheus.until("windlass_http_requests_total{surface=\"probe\",code=\"200\"} > 1").await?;
    // There is no gateway: the rule sees it.
    prometheus.until("ALERTS{alertname=\"WindlassGatewayDown\"}").await?;

    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(monitoring.join("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut asked = 0;
    for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
        let expression = target["expr"].as_str().context("no expression")?;
        prometheus.query(&expression.replace("$instance", ".*")).await?;
        asked += 1;
    }
    ensure!(asked > 40, "only {asked} expressions");
    let figure = format!("{asked} expressions of the dashboard");
    evidence::record("Prometheus scrapes the server and takes its alert rules", Tier::RealPart, figure);
    Ok(())
}
