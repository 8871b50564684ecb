//! Backends that are dead, silent or broken: what is tried again, what is answered, what is counted.

use super::*;

#[tokio::test]
async fn a_dead_backend_costs_no_request_while_the_revision_has_another() {
    let a = Backend::start("a").await;
    let dead = nobody().await;
    let stage = Stage::start(&[("a", &[dead, a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    for _ in 0..10 {
        // Nothing was sent to the dead one, so a POST may go on to the other just as well.
        let heard = client.send(ask(Method::POST, "shop", "/echo", full("x"))).await;
        assert_eq!(heard.expect("an answer").text, "x");
    }
    let stats = stage.stats("shop", "a").await;
    assert_eq!((stats.requests, stats.errors), (10, 0));
    assert_eq!((stats.connect_failures, stats.retries), (5, 5));
}

#[tokio::test]
async fn the_fallback_takes_what_a_dead_revision_cannot_and_the_error_is_counted() {
    let a = Backend::start("a").await;
    let dead = nobody().await;
    let mut stage =
        Stage::start(&[("a", &[a.address]), ("b", &[dead])], &[("shop", &[("a", 5_000), ("b", 5_000)])]).await;
    stage.change(|config| config.limits.refused_wait_ms = 0).await;
    let mut client = Client::new(stage.address);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let heard = client.get("shop", "/").await.expect("an answer");
        if heard.status != StatusCode::OK {
            assert_eq!(heard.headers["x-windlass-gateway"], "unreachable");
        }
        statuses.push(heard.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
    stage
        .change(|config| {
            let route = config.routes.get_mut("shop").expect("a route");
            route.fallback = Some("a".into());
        })
        .await;
    for _ in 0..4 {
        let heard = client.send(ask(Method::POST, "shop", "/echo", full("x"))).await;
        assert_eq!(heard.expect("an answer").text, "x");
    }
    let stats = stage.stats("shop", "b").await;
    assert_eq!((stats.requests, stats.errors, stats.fallbacks_away), (4, 4, 2));
    assert_eq!(stage.stats("shop", "a").await.errors, 0);
}

#[tokio::test]
async fn a_request_waits_for_a_backend_that_is_about_to_listen_again() {
    let address = nobody().await;
    let stage = Stage::start(&[("a", &[address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    let asked = tokio::spawn(async move { client.send(ask(Method::POST, "shop", "/", full("x"))).await });
    while stage.stats("shop", "a").await.connect_failures < 2 {
        tokio::task::yield_now().await;
    }
    let listener = TcpListener::bind(address).await.expect("binds");
    let (mut stream, _) = listener.accept().await.expect("the request comes");
    let _ = stream.read(&mut [0; 4096]).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("it listens");
    assert_eq!(asked.await.expect("no panic").expect("an answer").text, "ok");
    let stats = stage.stats("shop", "a").await;
    assert_eq!((stats.requests, stats.errors), (1, 0));
}

#[tokio::test]
async fn a_revision_that_refuses_as_its_fallback_does_is_not_blamed() {
    let addresses = [nobody().await, nobody().await];
    let backends: [(&str, &[SocketAddr]); 2] = [("new", &addresses[..1]), ("stable", &addresses[1..])];
    let stage = Stage::start_with(&backends, &[("shop", &[("new", 10_000), ("stable", 0)])], |config| {
        config.routes.get_mut("shop").expect("a route").fallback = Some("stable".into());
    })
    .await;
    let mut client = Client::new(stage.address);
    let asked = tokio::spawn(async move { client.send(ask(Method::POST, "shop", "/", full("x"))).await });
    while stage.stats("shop", "stable").await.connect_failures < 2 {
        tokio::task::yield_now().await;
    }
    let listener = TcpListener::bind(addresses[0]).await.expect("binds");
    let (mut stream, _) = listener.accept().await.expect("the request comes");
    let _ = stream.read(&mut [0; 4096]).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("it listens");
    assert_eq!(asked.await.expect("no panic").expect("an answer").text, "ok");
    let (new, stable) = (stage.stats("shop", "new").await, stage.stats("shop", "stable").await);
    assert_eq!((new.requests, new.errors, new.fallbacks_away), (1, 0, 0));
    assert_eq!((stable.requests, stable.errors, stable.client_aborts), (0, 0, 0));
}

#[tokio::test]
async fn a_lost_get_is_sent_once_more_and_a_lost_post_is_not() {
    let good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let (address, task) = raw_backend(move |number, _| {
        count.fetch_add(1, Ordering::SeqCst);
        // Every other connection is closed after the request was read.
        (number % 2 == 1).then(|| good.to_owned())
    })
    .await;
    let stage = Stage::start(&[("a", &[address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    let heard = client.get("shop", "/").await.expect("an answer");
    assert_eq!((heard.status, heard.text.as_str()), (StatusCode::OK, "ok"));
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    let heard = client.send(ask(Method::POST, "shop", "/", full("x"))).await.expect("an answer");
    assert_eq!(heard.status, StatusCode::BAD_GATEWAY);
    assert_eq!(heard.headers["x-windlass-gateway"], "broken-answer");
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    let stats = stage.stats("shop", "a").await;
    assert_eq!((stats.requests, stats.errors, stats.broken_answers), (2, 1, 1));
    task.abort();
}

#[tokio::test]
async fn a_get_that_is_lost_twice_is_answered_502() {
    let (address, task) = raw_backend(|_, _| None).await;
    let stage = Stage::start(&[("a", &[address])], &[("shop", &[("a", 10_000)])]).await;
    let heard = Client::new(stage.address).get("shop", "/").await.expect("an answer");
    assert_eq!(heard.status, StatusCode::BAD_GATEWAY);
    task.abort();
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_not_asked_for_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let (address, task) = raw_backend(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Some("SSH-2.0-OpenSSH\r\n\r\n".to_owned())
    })
    .await;
    let stage = Stage::start(&[("a", &[address])], &[("shop", &[("a", 10_000)])]).await;
    let heard = Client::new(stage.address).get("shop", "/").await.expect("an answer");
    assert_eq!(heard.status, StatusCode::BAD_GATEWAY);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    task.abort();
}

#[tokio::test]
async fn connections_that_a_backend_closes_unasked_lose_no_get() {
    // It says nothing of closing, and closes after each answer.
    let (address, task) = raw_backend(|_, _| Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned())).await;
    let stage = Stage::start(&[("a", &[address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    for _ in 0..200 {
        let heard = client.get("shop", "/").await.expect("an answer");
        assert_eq!(heard.status, StatusCode::OK);
    }
    assert_eq!(stage.stats("shop", "a").await.errors, 0);
    task.abort();
}

#[tokio::test]
async fn a_silent_backend_is_answered_504_in_time() {
    let a = Backend::start("a").await;
    let stage = Stage::start_with(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])], |config| {
        config.limits.response_header_timeout_ms = 100
    })
    .await;
    let heard = Client::new(stage.address).get("shop", "/hold").await.expect("an answer");
    assert_eq!(heard.status, StatusCode::GATEWAY_TIMEOUT);
    timeout(SOON, a.inner.given_up.notified()).await.expect("the backend is let go");
    let stats = stage.stats("shop", "a").await;
    assert_eq!((stats.errors, stats.timeouts, stats.in_flight), (1, 1, 0));
    assert_eq!(a.served(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_and_is_an_error() {
    let a = Backend::start("a").await;
    let stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    assert!(client.get("shop", "/cut").await.is_err());
    let heard = Client::new(stage.address).get("shop", "/fail").await.expect("an answer");
    assert_eq!((heard.status.as_u16(), heard.text.as_str()), (500, "no"));
    let stats = stage.stats("shop", "a").await;
    assert_eq!((stats.requests, stats.errors, stats.broken_answers), (2, 2, 1));
    assert_eq!(stats.by_class, [0, 1, 0, 0, 1]);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_along() {
    let a = Backend::start("a").await;
    let stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut stream = TcpStream::connect(stage.address).await.expect("connects");
    stream.write_all(b"GET /hold HTTP/1.1\r\nhost: shop\r\n\r\n").await.expect("writes");
    a.inner.arrived.acquire().await.expect("arrives").forget();
    drop(stream);
    timeout(SOON, a.inner.given_up.notified()).await.expect("the backend is let go");
    let stats = stage.stats("shop", "a").await;
    assert_eq!((stats.requests, stats.errors), (0, 0));
    assert_eq!((stats.client_aborts, stats.in_flight), (1, 0));
}
