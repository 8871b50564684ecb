//! Starting, stopping, starting again, and one gateway after another.

use super::*;

#[tokio::test]
async fn a_gateway_that_starts_again_serves_its_last_configuration_by_itself() {
    let a = Backend::start("a").await;
    let address = nobody().await;
    let mut stage = Stage::start_with(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])], |config| {
        config.listen = vec![address]
    })
    .await;
    let first = stage.client.health().await.expect("health");
    stage.gateway.take().expect("runs").stop().await;
    assert!(matches!(stage.client.health().await, Err(ClientError::Unreachable { .. })));
    assert!(Client::new(address).get("shop", "/").await.is_err());
    let again = Gateway::start(options(&path(&stage))).await.expect("starts");
    assert_eq!(Client::new(address).get("shop", "/").await.expect("an answer").text, "a");
    let second = stage.client.health().await.expect("health");
    assert_eq!((second.generation, second.predecessor), (1, false));
    assert_ne!(second.instance, first.instance);
    again.stop().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_set_aside_and_the_gateway_can_be_told_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("gateway.json"), "{\"generation\":").expect("writes");
    let gateway = Gateway::start(options(folder.path())).await.expect("starts");
    let client = GatewayClient::new(folder.path());
    assert_eq!(client.health().await.expect("health").generation, 0);
    assert!(folder.path().join("gateway.unreadable").exists());
    let config = GatewayConfig::default();
    let generation = 1;
    client.put_config(&Generation { generation, config }).await.expect("is taken");
    gateway.stop().await;
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight() {
    let a = Backend::start("a").await;
    let mut stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    let held = tokio::spawn(async move { client.get("shop", "/hold").await });
    a.inner.arrived.acquire().await.expect("arrives").forget();
    let stopping = tokio::spawn(stage.gateway.take().expect("runs").stop());
    // It does not accept any more, and it waits.
    while TcpStream::connect(stage.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished());
    a.inner.release.add_permits(1);
    let heard = held.await.expect("no panic").expect("an answer");
    assert_eq!((heard.text.as_str(), &heard.headers["connection"]), ("released", &"close".parse().expect("a value")));
    timeout(SOON, stopping).await.expect("in time").expect("no panic");
}

#[tokio::test]
async fn stopping_cuts_what_does_not_end_in_time() {
    let a = Backend::start("a").await;
    let mut stage = Stage::start_with(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])], |config| {
        config.limits.drain_timeout_ms = 100;
        config.limits.close_grace_ms = 10;
    })
    .await;
    let mut client = Client::new(stage.address);
    let held = tokio::spawn(async move { client.get("shop", "/hold").await.is_err() });
    a.inner.arrived.acquire().await.expect("arrives").forget();
    timeout(SOON, stage.gateway.take().expect("runs").stop()).await.expect("in time");
    assert!(held.await.expect("no panic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_takes_over_under_traffic_without_a_failed_request() {
    let a = Backend::start("a").await;
    let mut stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let traffic = Traffic::start(stage.address, "shop", 6);
    let folder = path(&stage);
    for _ in 0..5 {
        traffic.more(100).await;
        let before = stage.client.health().await.expect("health");
        let next = Gateway::start(options(&folder)).await.expect("takes over");
        let old = stage.gateway.replace(next).expect("runs");
        timeout(SOON, old.succeeded()).await.expect("knows it");
        old.stop().await;
        let after = stage.client.health().await.expect("health");
        assert_ne!(before.instance, after.instance);
        assert_eq!(before.listening, after.listening);
        assert_eq!(after.generation, 1);
    }
    traffic.more(100).await;
    let (heard, failed) = traffic.stop().await;
    assert_eq!(failed, Vec::<String>::new());
    assert!(heard.len() > 600);
}

#[tokio::test]
async fn a_drain_waits_for_the_predecessor_as_well() {
    let a = Backend::start("a").await;
    let mut stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    let held = tokio::spawn(async move { client.get("shop", "/hold").await });
    a.inner.arrived.acquire().await.expect("arrives").forget();
    let next = Gateway::start(options(&path(&stage))).await.expect("takes over");
    let old = stage.gateway.replace(next).expect("runs");
    let stopping = tokio::spawn(old.stop());
    // The new one answers, never had a request of `a`, and yet `a` is in use.
    stage.change(|config| config.routes.clear()).await;
    assert!(stage.client.health().await.expect("health").predecessor);
    let drained = stage.client.drain("a", Duration::from_millis(100)).await.expect("drain");
    assert_eq!(drained.state, DrainState::InFlight);
    a.inner.release.add_permits(1);
    assert_eq!(held.await.expect("no panic").expect("an answer").text, "released");
    stopping.await.expect("no panic");
    let drained = stage.client.drain("a", SOON).await.expect("drain");
    assert_eq!(drained.state, DrainState::Drained);
    assert!(!stage.client.health().await.expect("health").predecessor);
}

#[tokio::test]
async fn a_successor_that_dies_before_it_is_ready_changes_nothing() {
    let a = Backend::start("a").await;
    let mut stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let socket = path(&stage).join("handover.sock");
    let asked = tokio::task::spawn_blocking(move || Predecessor::ask(&socket));
    drop(asked.await.expect("no panic").expect("sends its sockets"));
    stage.split("other", &[("a", 10_000)]).await;
    let heard = Client::new(stage.address).get("other", "/").await.expect("an answer");
    assert_eq!(heard.text, "a");
}

#[tokio::test]
async fn the_control_sockets_are_for_the_owner_only() {
    let stage = Stage::start(&[], &[]).await;
    for name in ["control.sock", "handover.sock", "gateway.json"] {
        let found = std::fs::metadata(stage.folder.path().join(name)).expect("is there");
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{name}");
    }
}
