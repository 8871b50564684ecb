//! Taking configurations: under traffic, in the wrong order, malformed, from a caller that dies.

use tokio::net::UnixStream;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_change_under_traffic_without_a_failed_request() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut stage =
        Stage::start(&[("a", &[a.address]), ("b", &[b.address])], &[("shop", &[("a", 10_000), ("b", 0)])]).await;
    let traffic = Traffic::start(stage.address, "shop", 6);
    for weight in [100, 1_000, 5_000, 9_900, 10_000, 0, 2_500, 10_000] {
        stage.split("shop", &[("a", 10_000 - weight), ("b", weight)]).await;
        traffic.more(60).await;
    }
    // b alone: a leaves the table, drains and is stopped, as a rollout does at its end.
    stage
        .change(|config| {
            config.routes.insert("shop".into(), route(&[("b", 10_000)]));
            config.revisions.remove("a");
        })
        .await;
    let drained = stage.client.drain("a", SOON).await.expect("drain");
    assert_eq!(drained.state, DrainState::Drained);
    drop(a);
    traffic.more(200).await;
    let (heard, failed) = traffic.stop().await;
    assert_eq!(failed, Vec::<String>::new());
    assert!(heard.len() > 600 && heard.iter().any(|h| h == "a") && heard.iter().any(|h| h == "b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_after_the_acknowledgement_uses_the_old_table() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut stage =
        Stage::start(&[("a", &[a.address]), ("b", &[b.address])], &[("shop", &[("a", 10_000), ("b", 0)])]).await;
    let mut client = Client::new(stage.address);
    for round in 0..30 {
        let (old, new) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        stage.split("shop", &[(new, 10_000), (old, 0)]).await;
        assert_eq!(client.get("shop", "/").await.expect("an answer").text, new);
    }
}

#[tokio::test]
async fn a_drain_waits_for_what_is_in_flight_and_refuses_what_still_serves() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut stage = Stage::start(&[("a", &[a.address]), ("b", &[b.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    let held = tokio::spawn(async move { client.get("shop", "/hold").await });
    a.inner.arrived.acquire().await.expect("arrives").forget();
    let drained = stage.client.drain("a", SOON).await.expect("drain");
    assert_eq!((drained.state, drained.in_flight), (DrainState::Serving, 1));
    stage
        .change(|config| {
            config.routes.insert("shop".into(), route(&[("b", 10_000)]));
            config.revisions.remove("a");
        })
        .await;
    let drained = stage.client.drain("a", Duration::from_millis(50)).await.expect("drain");
    assert_eq!((drained.state, drained.in_flight), (DrainState::InFlight, 1));
    let waiting = {
        let client = stage.client.clone();
        tokio::spawn(async move { client.drain("a", SOON).await })
    };
    a.inner.release.add_permits(1);
    let drained = waiting.await.expect("no panic").expect("drain");
    assert_eq!((drained.state, drained.in_flight), (DrainState::Drained, 0));
    assert_eq!(held.await.expect("no panic").expect("an answer").text, "released");
    // Its counters can still be read, and a revision that nobody knows has nothing in flight.
    assert_eq!(stage.stats("shop", "a").await.requests, 1);
    assert_eq!(stage.stats("shop", "a").await.weight, None);
    let drained = stage.client.drain("never/there", SOON).await.expect("drain");
    assert_eq!(drained.state, DrainState::Drained);
}

#[tokio::test]
async fn what_is_refused_leaves_the_old_configuration_in_force() {
    let a = Backend::start("a").await;
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let mut stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    stage.change(|_| {}).await;
    let before = stage.client.config().await.expect("config");
    let offer = |change: &dyn Fn(&mut Generation)| {
        let mut offered = stage.config.clone();
        offered.generation += 1;
        change(&mut offered);
        let client = stage.client.clone();
        async move { client.put_config(&offered).await }
    };
    let refused = offer(&|o| {
        o.config.routes.insert("x".into(), route(&[("gone", 5)]));
    })
    .await;
    match refused {
        Err(ClientError::Refused { refusal }) => {
            assert_eq!((refusal.problems.len(), refusal.generation), (2, 2), "{refusal:?}");
        }
        other => panic!("not refused: {other:?}"),
    }
    let address = taken.local_addr().expect("an address");
    let refused = offer(&|o| o.config.listen.push(address)).await;
    let said = refused.expect_err("is refused").to_string();
    assert!(said.contains(&address.to_string()), "{said}");
    for (generation, conflict) in [(1, true), (2, true), (0, true)] {
        let refused = offer(&|o| {
            o.generation = generation;
            o.config.limits.max_attempts = 5;
        })
        .await;
        let is = matches!(refused, Err(ClientError::Conflict { .. }));
        assert_eq!(is, conflict, "{generation}: {refused:?}");
    }
    // The same once more is no error and changes nothing.
    let same = offer(&|o| o.generation = 2).await.expect("is in force");
    assert_eq!(same.generation, 2);
    for body in ["{", "[]", r#"{"generation":9}"#, r#"{"generation":9,"config":{"version":1,"x":0}}"#] {
        let said = control(&stage, body, body.len()).await;
        assert!(said.starts_with("HTTP/1.1 4"), "{body}: {said}");
    }
    assert_eq!(stage.client.config().await.expect("config"), before);
    let heard = Client::new(stage.address).get("shop", "/").await.expect("an answer");
    assert_eq!(heard.text, "a");
}

/// Speaks to the control socket by hand.
async fn control(stage: &Stage, body: &str, length: usize) -> String {
    let path = stage.folder.path().join("control.sock");
    let mut stream = UnixStream::connect(path).await.expect("connects");
    let head = format!(
        "PUT /v1/config HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.expect("writes");
    if body.len() < length {
        return String::new();
    }
    let mut heard = String::new();
    timeout(SOON, stream.read_to_string(&mut heard)).await.expect("in time").expect("reads");
    heard
}

#[tokio::test]
async fn a_caller_that_dies_halfway_changes_nothing() {
    let a = Backend::start("a").await;
    let stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut next = stage.config.clone();
    next.generation = 2;
    next.config.routes.clear();
    let body = serde_json::to_string(&next).expect("serialises");
    // The kernel closes a killed caller's socket just as this does.
    control(&stage, &body[..body.len() - 1], body.len()).await;
    assert_eq!(stage.client.health().await.expect("health").generation, 1);
    let heard = Client::new(stage.address).get("shop", "/").await.expect("an answer");
    assert_eq!(heard.text, "a");
}

#[tokio::test]
async fn a_change_elsewhere_does_not_begin_a_split_anew() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut stage =
        Stage::start(&[("a", &[a.address]), ("b", &[b.address])], &[("shop", &[("a", 9_000), ("b", 1_000)])]).await;
    let mut client = Client::new(stage.address);
    for round in 0..20 {
        client.get("shop", "/").await.expect("an answer");
        let host = format!("other{round}");
        stage.split(&host, &[("a", 10_000)]).await;
    }
    assert_eq!((a.served(), b.served()), (18, 2));
}

#[tokio::test]
async fn an_address_is_opened_and_closed_with_the_configuration() {
    let a = Backend::start("a").await;
    let mut stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let old = stage.address;
    let fresh = nobody().await;
    let in_force = stage.change(|config| config.listen = vec![fresh]).await;
    assert_eq!(in_force.listening, [Listening { wanted: fresh, local: fresh }]);
    let heard = Client::new(fresh).get("shop", "/").await.expect("an answer");
    assert_eq!(heard.text, "a");
    assert!(TcpStream::connect(old).await.is_err());
}
