//! What is counted when a train moves, and that nothing that somebody writes becomes a label.

use std::{collections::BTreeSet, sync::Arc};

use axum::http::{Method, StatusCode};
use pipelines::{
    ids::RunnerName,
    protocol::{Blame, Report, RunnerRequest},
};

use crate::{
    app::{
        Role,
        health::{Finding, Findings, GatewayReading, Surroundings},
        retention::Swept,
    },
    gateway::{GatewayStats, LATENCY_BOUNDS_MS, RevisionStats},
    testing::{Stage, test_app, test_app_with},
};

/// The value of a series as it is written.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
    let line = line.unwrap_or_else(|| panic!("there is no {series} in:\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

async fn text(stage: &Stage) -> String {
    stage.app.metrics_text().await.unwrap()
}

async fn failed(stage: &Stage, service: &str, blame: Blame) {
    let run = stage.pushed(service).await;
    let runner: RunnerName = "runner-1".parse().unwrap();
    stage.asked_for_work(&runner, Vec::new()).await;
    let report = RunnerRequest::Report { run, attempt: 1, report: Report::Failed { blame, reason: "it broke".into() } };
    // The answer was lost, so the runner says it again.
    for _ in 0..2 {
        stage.app.agent_request(&runner, report.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn a_train_is_counted_from_the_push_to_live() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    stage.pass_ms(90_000);
    let before = text(&stage).await;
    assert_eq!(value(&before, "windlass_approvals_waiting"), 1.0);
    assert_eq!(value(&before, "windlass_approval_oldest_seconds"), 90.0);
    assert_eq!(value(&before, "windlass_effects_pending{kind=\"send-approval-mail\"}"), 1.0);
    assert_eq!(value(&before, "windlass_effect_oldest_seconds{kind=\"send-approval-mail\"}"), 90.0);
    // Its time is not come: nobody waits for it.
    assert_eq!(value(&before, "windlass_effect_oldest_seconds{kind=\"expire-approval\"}"), 0.0);
    stage.approved(&release).await;
    stage.rolling_out(&release).await;
    assert_eq!(value(&text(&stage).await, "windlass_rollouts_running"), 1.0);
    stage.live("cart").await;
    let after = text(&stage).await;
    for (series, expected) in [
        ("windlass_runs_total{blame=\"none\",result=\"succeeded\"}", 2.0),
        ("windlass_run_queue_seconds_count", 2.0),
        ("windlass_run_phase_seconds_count{phase=\"steps\"}", 2.0),
        ("windlass_releases_total{state=\"awaiting_approval\"}", 2.0),
        ("windlass_releases_total{state=\"live\"}", 1.0),
        ("windlass_release_seconds_count", 1.0),
        ("windlass_approvals_total{outcome=\"approved\"}", 2.0),
        ("windlass_approval_seconds_sum", 90.0),
        ("windlass_rollouts_total{outcome=\"completed\",strategy=\"rolling\"}", 1.0),
        ("windlass_log_lines_received_total", 8.0),
        ("windlass_approvals_waiting", 0.0),
        ("windlass_services", 2.0),
    ] {
        assert_eq!(value(&after, series), expected, "{series}");
    }
}

#[tokio::test]
async fn a_failure_of_the_code_and_one_of_the_infrastructure_are_counted_apart_and_once() {
    let stage = test_app_with(|config| config.bounds.lease_wait_ms = 1);
    failed(&stage, "shop", Blame::Code).await;
    failed(&stage, "shop", Blame::Infrastructure).await;
    failed(&stage, "shop", Blame::Infrastructure).await;
    let text = text(&stage).await;
    assert_eq!(value(&text, "windlass_runs_total{blame=\"code\",result=\"failed\"}"), 1.0);
    assert_eq!(value(&text, "windlass_runs_total{blame=\"infrastructure\",result=\"failed\"}"), 2.0);
}

/// A gateway that shows one revision under two hosts.
struct Previewing;

impl Surroundings for Previewing {
    fn look(&self) -> Findings<'_> {
        Box::pin(async { vec![Finding::good("engine", "it answers")] })
    }

    fn gateway(&self) -> GatewayReading<'_> {
        let revision = |host: &str, id: &str, weight| RevisionStats {
            host: host.into(),
            revision: id.into(),
            weight,
            in_flight: 1,
            requests: 12,
            errors: 2,
            by_class: [0, 10, 0, 0, 1],
            connect_failures: 1,
            timeouts: 0,
            broken_answers: 0,
            client_aborts: 0,
            retries: 0,
            fallbacks_away: 0,
            latency_sum_us: 11_000,
            latency: vec![1; LATENCY_BOUNDS_MS.len() + 1],
        };
        Box::pin(async move {
            Some(GatewayStats {
                instance: "i".into(),
                generation: 3,
                in_force_since_ms: 0,
                taken_at_ms: 0,
                connections: 4,
                unknown_host: 5,
                refused: 6,
                latency_bounds_ms: LATENCY_BOUNDS_MS.to_vec(),
                revisions: vec![
                    revision("preview.example.com", "production:shop-2-abc", None),
                    revision("shop.example.com", "production:shop-2-abc", Some(2_500)),
                    revision("shop.example.com", "production:shop-1-abc", None),
                ],
            })
        })
    }
}

#[tokio::test]
async fn a_revision_under_two_hosts_is_one_series_and_only_so_many_are_told() {
    let stage = test_app_with(|config| config.metrics.revisions_max = 1);
    let gateway = Arc::new(Previewing);
    stage.app.surrounded_by(&gateway);
    let text = text(&stage).await;
    let labels = "environment=\"production\",revision=\"production:shop-2-abc\"";
    let of = |code: &str| format!("windlass_gateway_requests_total{{service=\"shop\",{labels},code=\"{code}\"}}");
    assert_eq!((value(&text, &of("2xx")), value(&text, &of("5xx")), value(&text, &of("none"))), (20.0, 2.0, 2.0));
    let weight = format!("windlass_gateway_weight_ratio{{service=\"shop\",{labels}}}");
    assert_eq!(value(&text, &weight), 0.25);
    assert_eq!(value(&text, "windlass_gateway_revisions_left_out"), 1.0);
    assert!(!text.contains("shop-1-abc"));
    assert_eq!(value(&text, "windlass_health{of=\"engine\"}"), 0.0);
}

#[tokio::test]
async fn each_series_stands_once_with_its_help_and_nothing_that_somebody_writes_is_a_label() {
    let stage = test_app();
    stage.live("shop").await;
    stage.forked("shop", 7).await;
    let token = stage.token(Role::Developer).await;
    for path in ["/api/v1/nothing-here-but-words", "/services/no-such-service", "/metrics"] {
        stage.call(Method::GET, path, Some(&token), None).await;
    }
    let answer = stage.call(Method::GET, "/metrics", Some(&token), None).await;
    assert_eq!(answer.status, StatusCode::OK);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.split_once(' ').is_some_and(|(_, help)| !help.is_empty()), "{line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(series.to_owned()), "twice: {line}");
        }
    }
    for written in ["refs/", "main", "npm", "nothing-here", "no-such", "Mei", "example.com", "stranger"] {
        assert!(!text.contains(written), "{written} is in:\n{text}");
    }
    assert_eq!(value(&text, "windlass_runs{state=\"held\"}"), 1.0);
    assert_eq!(value(&text, "windlass_http_requests_total{code=\"404\",surface=\"api\"}"), 1.0);
}

/// The names of our metrics in a text, without what histograms add.
fn names(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_word(c)).filter(|word| word.starts_with("windlass_"));
    let bare = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| word.strip_suffix(end));
        ends.unwrap_or(word).to_owned()
    };
    words.map(bare).collect()
}

#[tokio::test]
async fn dashboard_and_alerts_name_metrics_that_there_are() {
    let stage = test_app();
    let gateway = Arc::new(Previewing);
    stage.app.surrounded_by(&gateway);
    stage.live("shop").await;
    stage.app.sweep_ended(Swept::default());
    let served: BTreeSet<String> =
        text(&stage).await.lines().filter(|line| line.starts_with("# TYPE")).flat_map(names).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read("monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(expressions.len() > 40, "{}", expressions.len());
    for named in expressions.into_iter().flat_map(names).chain(names(&read("monitoring/alerts.yml"))) {
        assert!(served.contains(&named), "nobody serves {named}");
    }
    // Whoever looks for a metric finds it in the list, and the list has no others.
    assert_eq!(names(&read("operations.md")), served, "docs/operations.md (left) and /metrics (right)");
}

#[tokio::test]
async fn who_shows_no_token_gets_no_metrics() {
    let stage = test_app();
    let answer = stage.call(Method::GET, "/metrics", None, None).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}
