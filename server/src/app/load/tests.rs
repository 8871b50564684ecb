//! What is beyond a bound is refused with words and a time, leaves others alone, and is found all the same.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode, header},
};
use futures_util::stream;
use hmac::{Hmac, KeyInit as _, Mac as _};
use pipelines::effect::EffectKind;
use serde_json::json;
use sha2::Sha256;

use super::*;
use crate::{
    app::{Role, deliveries::Listed, services::ServiceInput, trains::Outcome},
    config::Config,
    testing::{Answer, Stage, commit, test_app, test_app_with},
};

const SECRET: &str = "hook secret";

fn name(service: &str) -> ServiceName {
    service.parse().unwrap()
}

/// A signed push to `main`, the n-th of its kind.
async fn push(stage: &Stage, service: &str, number: u32) -> Answer {
    let commit = commit(number).to_string();
    let body = json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": commit, "created": false, "deleted": false,
        "forced": false, "repository": {"full_name": "dev/shop"}, "pusher": {"name": "mei"},
        "head_commit": {"id": commit, "message": "a basket", "author": {"name": "Mei"}},
    });
    hook(stage, service, &number.to_string(), Body::from(body.to_string()), &body.to_string()).await
}

async fn hook(stage: &Stage, service: &str, id: &str, body: Body, signed: &str) -> Answer {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let request = Request::post(format!("/hooks/{service}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-gitea-event", "push")
        .header("x-gitea-delivery", id)
        .header("x-gitea-signature", hex::encode(mac.finalize().into_bytes()));
    stage.send(request.body(body).unwrap()).await
}

fn queue(stage: &Stage, kind: QueueKind) -> Queue {
    stage.app.queues().into_iter().find(|queue| queue.kind == kind).unwrap()
}

fn wait_s(answer: &Answer) -> u32 {
    answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap()
}

#[test]
fn every_bound_is_in_the_configuration_and_every_word_is_its_own() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let has = |of: &str, key: &str| schema["$defs"][of]["properties"].get(key).is_some();
    let mut words: Vec<&str> = QueueKind::ALL.iter().map(|kind| kind.word()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), QueueKind::ALL.len());
    let services = test_app().app.queues().into_iter().filter_map(|queue| queue.of_service).map(|of| of.key);
    for key in QueueKind::ALL.iter().map(|kind| kind.key()).chain(services) {
        let (section, key) = key.split_once('.').unwrap();
        let of = match section {
            "bounds" => "Bounds",
            "tracing" => "TracingSettings",
            _ => "GatewaySettings",
        };
        assert!(has(of, key), "{section}.{key}");
    }
}

#[tokio::test]
async fn a_service_with_as_many_hooks_as_may_wait_is_told_to_wait_and_the_others_are_not() {
    let stage = test_app_with(|config| config.bounds.hooks_waiting_per_service_max = 3);
    stage.pushed("shop").await;
    stage.pushed("quiet").await;
    for number in 10..13 {
        assert_eq!(push(&stage, "shop", number).await.status, StatusCode::ACCEPTED);
    }
    let refused = push(&stage, "shop", 13).await;
    assert_eq!((refused.status, wait_s(&refused)), (StatusCode::TOO_MANY_REQUESTS, RETRY_AFTER_S));
    assert_eq!(refused.json()["type"], "too-much-waiting");
    assert_eq!(push(&stage, "quiet", 14).await.status, StatusCode::ACCEPTED);
    // Who cannot sign learns nothing of it.
    let unsigned = hook(&stage, "shop", "15", Body::from("{}"), "something else").await;
    assert_eq!(unsigned.status, StatusCode::FORBIDDEN);

    let hooks = queue(&stage, QueueKind::Hooks);
    assert_eq!((hooks.length, hooks.refused), (4, 1));
    assert_eq!(hooks.of_service.unwrap().fullest, Some((name("shop"), 3)));
    let token = stage.token(Role::Developer).await;
    let listed = stage.call(Method::GET, "/api/v1/load", Some(&token), None).await.json();
    let hooks = listed["items"].as_array().unwrap().iter().find(|it| it["name"] == "hooks").unwrap().clone();
    assert_eq!((&hooks["length"], &hooks["refused"], &hooks["of_service"]["bound"]), (&json!(4), &json!(1), &json!(3)));
}

/// A body that notes whether anybody reads it.
fn watched(text: &'static str) -> (Body, Arc<AtomicBool>) {
    let read = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&read);
    let body = Body::from_stream(stream::once(async move {
        seen.store(true, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from(text))
    }));
    (body, read)
}

#[tokio::test]
async fn a_server_with_as_many_hooks_as_may_wait_reads_no_more_of_them() {
    let stage = test_app_with(|config| config.bounds.hooks_waiting_max = 1);
    stage.pushed("shop").await;
    let (body, read) = watched("{}");
    hook(&stage, "shop", "9", body, "wrong").await;
    assert!(read.load(Ordering::Relaxed), "with room it is read");
    assert_eq!(push(&stage, "shop", 10).await.status, StatusCode::ACCEPTED);
    let (body, read) = watched("{}");
    let refused = hook(&stage, "shop", "11", body, "{}").await;
    assert_eq!((refused.status, wait_s(&refused)), (StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER_S));
    assert!(!read.load(Ordering::Relaxed));
    assert_eq!(queue(&stage, QueueKind::Hooks).refused, 1);
}

#[tokio::test]
async fn bodies_of_hooks_are_bounded_in_bytes_and_time() {
    let stage = test_app_with(|config| {
        config.bounds.hook_bytes_in_flight_max = 100;
        config.bounds.hook_body_bytes_max = 1_000;
        config.bounds.hook_body_ms = 50;
    });
    stage.pushed("shop").await;
    let large = "x".repeat(200);
    assert_eq!(
        hook(&stage, "shop", "1", Body::from(large.clone()), &large).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(queue(&stage, QueueKind::HookBytes).refused, 1);
    assert_eq!(queue(&stage, QueueKind::HookBytes).length, 0, "what was not taken is given back");
    let larger = "x".repeat(2_000);
    assert_eq!(hook(&stage, "shop", "2", Body::from(larger), "").await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(hook(&stage, "shop", "3", never, "").await.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(
        hook(&stage, "shop", "4", Body::from("{}"), "{}").await.status,
        StatusCode::BAD_REQUEST,
        "a small one is read"
    );
}

#[tokio::test]
async fn what_a_refused_hook_told_is_asked_for_soon() {
    let stage = test_app_with(|config| config.bounds.hooks_waiting_per_service_max = 0);
    stage.pushed("shop").await;
    let input = ServiceInput { poll_interval_ms: Some(0), ..ServiceInput::default() };
    stage.pushed("unpolled").await;
    stage.app.service_update(&name("unpolled"), input, pipelines::journal::Origin::server()).await.unwrap();
    let outcome = stage.app.poll_outcome(&name("unpolled"), &listed([]), None).unwrap();
    if stage.pending(&name("unpolled"), EffectKind::PollRepository).is_some() {
        stage.perform(&name("unpolled"), EffectKind::PollRepository, outcome).await;
    }
    assert!(stage.pending(&name("unpolled"), EffectKind::PollRepository).is_none());
    stage.pass_ms(1_000);
    let now = stage.app.now();
    for service in ["shop", "unpolled"] {
        assert!(stage.pending(&name(service), EffectKind::PollRepository).is_none_or(|poll| poll.not_before > now));
        assert_eq!(push(&stage, service, 10).await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    stage.app.heal_once().await.unwrap();
    for service in ["shop", "unpolled"] {
        assert_eq!(stage.pending(&name(service), EffectKind::PollRepository).unwrap().not_before, now, "{service}");
    }
    // One that is being performed may have looked before the push: it is asked for again afterwards.
    let (leased, _) = stage.app.queue().lease_due(now, 10);
    assert_eq!(leased.len(), 2);
    push(&stage, "shop", 11).await;
    stage.app.heal_once().await.unwrap();
    for (key, _) in &leased {
        stage.app.queue().release(key);
    }
    let found = stage.app.poll_outcome(&name("shop"), &listed([("main", 11)]), None).unwrap();
    stage.perform(&name("shop"), EffectKind::PollRepository, found).await;
    assert!(stage.pending(&name("shop"), EffectKind::PollRepository).unwrap().not_before > now);
    stage.app.heal_once().await.unwrap();
    assert_eq!(stage.pending(&name("shop"), EffectKind::PollRepository).unwrap().not_before, now);
}

fn listed<const N: usize>(branches: [(&str, u32); N]) -> Listed {
    let refs = branches.map(|(branch, number)| (format!("refs/heads/{branch}"), commit(number)));
    Listed { refs: refs.into(), default_branch: Some("main".into()) }
}

#[tokio::test]
async fn a_poll_makes_as_many_runs_as_may_wait_the_release_branch_first_and_the_next_one_the_others() {
    let stage = test_app_with(|config| config.bounds.runs_waiting_per_service_max = 4);
    let run = stage.pushed("shop").await;
    let all = || listed([("a", 2), ("b", 3), ("c", 4), ("d", 5), ("main", 6)]);
    let outcome = stage.app.poll_outcome(&run.service, &all(), None).unwrap();
    stage.perform(&run.service, EffectKind::PollRepository, outcome).await;
    assert_eq!(queue(&stage, QueueKind::Runs).length, 4);
    let seen = |stage: &Stage| -> Vec<String> {
        let refs = stage.app.store().refs(&name("shop")).unwrap();
        refs.into_iter().filter(|(_, seen)| seen.commit != commit(1)).map(|(name, _)| name).collect()
    };
    assert_eq!(seen(&stage), ["refs/heads/a", "refs/heads/b", "refs/heads/main"]);
    // As many as may wait: nothing more is looked at, and a person is told.
    let token = stage.token(Role::Developer).await;
    let asked =
        stage.call(Method::POST, "/api/v1/services/shop/runs", Some(&token), Some(json!({"git_ref": "main"}))).await;
    assert_eq!(asked.status, StatusCode::TOO_MANY_REQUESTS);
    let again = stage.call(Method::POST, "/api/v1/services/shop/runs/1/rerun", Some(&token), Some(json!({}))).await;
    assert_eq!(again.status, StatusCode::TOO_MANY_REQUESTS);
    for number in 1..=4 {
        let path = format!("/api/v1/services/shop/runs/{number}/cancel");
        let ended = stage.call(Method::POST, &path, Some(&token), Some(json!({"reason": "enough"}))).await;
        assert_eq!(ended.status, StatusCode::OK, "{:?}", ended.body);
    }
    let outcome = stage.app.poll_outcome(&run.service, &all(), None).unwrap();
    stage.perform(&run.service, EffectKind::PollRepository, outcome).await;
    assert_eq!(seen(&stage).len(), 5);
}

#[tokio::test]
async fn where_as_much_work_waits_as_may_nothing_new_begins() {
    let stage = test_app();
    stage.pushed("shop").await;
    let stage = stage.with_config(|config| config.bounds.effects_waiting_max = 2);
    assert_eq!(push(&stage, "shop", 10).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(matches!(stage.app.room_for_runs(&name("shop")), Err(AppError::Full { of_service: false, .. })));
    let outcome = stage.app.poll_outcome(&name("shop"), &listed([("main", 1)]), None).unwrap();
    assert!(matches!(outcome, Outcome::Done(events, _) if events.is_empty()));
    let token = stage.token(Role::Operator).await;
    let service = json!({"name": "new", "repository_url": "https://git.example.com/new.git"});
    let made = stage.call(Method::POST, "/api/v1/services", Some(&token), Some(service)).await;
    assert_eq!(made.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(queue(&stage, QueueKind::Effects).refused, 3);
}

#[tokio::test]
async fn log_lines_beyond_the_bound_wait_until_others_are_written() {
    let stage = test_app_with(|config| config.bounds.log_bytes_in_flight_max = 100);
    let load = stage.app.load();
    let first = load.log_bytes(80).await.unwrap();
    assert_eq!(queue(&stage, QueueKind::LogBytes).length, 80);
    let mut second = std::pin::pin!(load.log_bytes(1_000));
    let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_pending())).await;
    assert!(waits);
    drop(first);
    let second = second.await.unwrap();
    assert_eq!(queue(&stage, QueueKind::LogBytes).length, 100, "what is larger than all the room goes alone");
    drop(second);
}

#[tokio::test]
async fn open_streams_are_counted_and_those_that_were_refused() {
    let stage = test_app_with(|config| config.bounds.streams_max = 1);
    let open = stage.app.load().stream().unwrap();
    assert!(stage.app.load().stream().is_none());
    let streams = queue(&stage, QueueKind::Streams);
    assert_eq!((streams.length, streams.bound, streams.refused), (1, 1, 1));
    drop(open);
    assert_eq!(queue(&stage, QueueKind::Streams).length, 0);
}

#[tokio::test]
async fn hooks_that_ask_for_nothing_end_with_the_one_before_them_and_the_first_that_asks_is_looked_at_by_itself() {
    let stage = test_app();
    stage.pushed("shop").await;
    stage.pushed("other").await;
    // The first five tell of a commit that is known; the sixth of a new one; the seventh of that one again.
    for (number, pushed) in [1, 1, 1, 1, 1, 9, 9].into_iter().enumerate() {
        let body = json!({
            "ref": "refs/heads/main", "before": commit(1).to_string(), "after": commit(pushed).to_string(),
            "created": false, "deleted": false, "forced": false, "repository": {"full_name": "dev/shop"},
            "head_commit": {"id": commit(pushed).to_string(), "message": "a basket", "author": {"name": "Mei"}},
        })
        .to_string();
        let id = format!("hook-{number}");
        assert_eq!(hook(&stage, "shop", &id, Body::from(body.clone()), &body).await.status, StatusCode::ACCEPTED);
    }
    push(&stage, "other", 1).await;
    let first_of = |stage: &Stage| {
        let pending = stage.pending(&name("shop"), EffectKind::ProcessDelivery)?;
        let pipelines::effect::Effect::ProcessDelivery { delivery, .. } = pending.effect else { return None };
        Some(delivery)
    };
    let mut looks = Vec::new();
    while let Some(delivery) = first_of(&stage) {
        let outcome = stage.app.delivery_outcome(&name("shop"), delivery, &BTreeMap::new()).unwrap();
        stage.perform(&name("shop"), EffectKind::ProcessDelivery, outcome).await;
        looks.push((delivery, stage.app.queue().waiting_of(&name("shop")).hooks));
    }
    assert_eq!(looks, [(1, 2), (6, 0)]);
    assert_eq!(stage.app.queue().waiting_of(&name("other")).hooks, 1);
    let states = stage.app.deliveries(&name("shop"), None, 10).unwrap().into_iter().rev();
    let states: Vec<String> = states.map(|delivery| format!("{:?}", delivery.state)).collect();
    let ignored = |state: &String| state.contains("was seen before");
    assert!(states[..5].iter().all(ignored) && states[5] == "Ran { run: 2 }" && ignored(&states[6]), "{states:#?}");
    assert_eq!(stage.app.train(&name("shop")).unwrap().last_run, 2);
}
