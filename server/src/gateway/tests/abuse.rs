//! Clients that mean harm or are merely slow: every bound holds, and nothing is smuggled past.

use super::*;

async fn stage(backend: SocketAddr, change: impl FnOnce(&mut Limits)) -> Stage {
    Stage::start_with(&[("a", &[backend])], &[("shop", &[("a", 10_000)])], |config| change(&mut config.limits)).await
}

#[tokio::test]
async fn ambiguous_lengths_never_reach_a_backend_as_such() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let (address, task) = raw_backend(move |_, head| {
        log.lock().expect("no panic").push(head.to_ascii_lowercase());
        Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".to_owned())
    })
    .await;
    let stage = stage(address, |_| {}).await;
    for fields in [
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 1, 2\r\n",
        "content-length: +1\r\n",
        "content-length: -1\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "x: 1\r\n folded: 1\r\n",
    ] {
        let ask = format!("POST / HTTP/1.1\r\nhost: shop\r\n{fields}\r\nx");
        let heard = raw(stage.address, ask.as_bytes()).await;
        assert!(heard.starts_with("HTTP/1.1 400"), "{fields}: {heard}");
    }
    for fields in
        ["content-length: 6\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 6\r\n"]
    {
        seen.lock().expect("no panic").clear();
        let ask =
            format!("POST / HTTP/1.1\r\nhost: shop\r\n{fields}\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nhost: shop\r\n\r\n");
        let heard = raw(stage.address, ask.as_bytes()).await;
        // The chunks count, the length is dropped, and nothing after them is read as a request.
        assert_eq!(heard.matches("HTTP/1.1").count(), 1, "{heard}");
        let seen = seen.lock().expect("no panic");
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(!seen[0].contains("content-length: 6") && !seen[0].contains("/admin"), "{seen:?}");
    }
    task.abort();
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let a = Backend::start("a").await;
    let stage = stage(a.address, |limits| limits.max_header_bytes = 8_192).await;
    let ask = format!("GET / HTTP/1.1\r\nhost: shop\r\nx: {}\r\n\r\n", "y".repeat(9_000));
    let heard = raw(stage.address, ask.as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 431"), "{heard}");
    let many: String = (0..101).map(|n| format!("x{n}: 1\r\n")).collect();
    let ask = format!("GET / HTTP/1.1\r\nhost: shop\r\n{many}\r\n");
    let heard = raw(stage.address, ask.as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 431"), "{heard}");
    assert_eq!(a.served(), 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let a = Backend::start("a").await;
    let stage = stage(a.address, |limits| limits.max_request_body_bytes = 1_000).await;
    let mut client = Client::new(stage.address);
    let large = || Bytes::from(vec![b'x'; 1_001]);
    let heard = client.send(ask(Method::POST, "shop", "/", full(large()))).await.expect("an answer");
    assert_eq!(heard.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(a.served(), 0);
    // Without a length it is cut off at the bound; the backend's answer must not look whole.
    let (sender, body) = channel();
    let sending = tokio::spawn(async move {
        for _ in 0..2 {
            if sender.send(Ok(Frame::data(large()))).await.is_err() {
                return;
            }
        }
    });
    let heard = Client::new(stage.address).send(ask(Method::POST, "shop", "/hold", body)).await;
    assert!(heard.is_err() || heard.is_ok_and(|h| h.status == StatusCode::PAYLOAD_TOO_LARGE));
    sending.await.expect("no panic");
    assert_eq!(stage.stats("shop", "a").await.errors, 0);
    let fits = Bytes::from(vec![b'x'; 1_000]);
    let heard = Client::new(stage.address).send(ask(Method::POST, "shop", "/echo", full(fits))).await;
    assert_eq!(heard.expect("an answer").text.len(), 1_000);
}

#[tokio::test]
async fn a_client_that_sends_its_head_slowly_is_let_go() {
    let a = Backend::start("a").await;
    let stage = stage(a.address, |limits| limits.header_read_timeout_ms = 100).await;
    let heard = raw(stage.address, b"GET / HTTP/1.1\r\nhost:").await;
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 408"), "{heard}");
    // So is a kept connection that is not used.
    let heard = raw(stage.address, b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert!(heard.ends_with('a'), "{heard}");
    assert_eq!(a.served(), 1);
}

#[tokio::test]
async fn a_client_that_stops_sending_its_body_is_answered_408_and_blamed() {
    let a = Backend::start("a").await;
    let stage = stage(a.address, |limits| limits.body_idle_timeout_ms = 100).await;
    let ask = b"POST /hold HTTP/1.1\r\nhost: shop\r\ncontent-length: 10\r\n\r\nhalf";
    let heard = raw(stage.address, ask).await;
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
    let stats = stage.stats("shop", "a").await;
    assert_eq!((stats.errors, stats.client_aborts, stats.in_flight), (0, 1, 0));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go_and_does_not_hold_the_drain() {
    let a = Backend::start("a").await;
    let mut stage = stage(a.address, |limits| limits.client_write_timeout_ms = 200).await;
    let mut stream = TcpStream::connect(stage.address).await.expect("connects");
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: shop\r\n\r\n").await.expect("writes");
    timeout(SOON, stream.readable()).await.expect("in time").expect("an answer begins");
    stage.change(|config| config.routes.clear()).await;
    let drained = stage.client.drain("a", SOON).await.expect("drain");
    assert_eq!(drained.state, DrainState::Drained);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_and_are_served_when_there_is_room() {
    let a = Backend::start("a").await;
    let mut stage = stage(a.address, |limits| limits.max_connections = 2).await;
    let mut first = Client::new(stage.address);
    let mut second = Client::new(stage.address);
    first.get("shop", "/").await.expect("an answer");
    second.get("shop", "/").await.expect("an answer");
    let address = stage.address;
    let third = tokio::spawn(async move { Client::new(address).get("shop", "/").await });
    // While both are open the third is in the kernel's queue: these go by it.
    for _ in 0..50 {
        first.get("shop", "/").await.expect("an answer");
    }
    assert!(!third.is_finished());
    drop(first);
    assert_eq!(third.await.expect("no panic").expect("an answer").text, "a");
    stage.change(|config| config.limits.max_connections = 10).await;
    let mut more: Vec<Client> = (0..5).map(|_| Client::new(address)).collect();
    for client in &mut more {
        assert_eq!(client.get("shop", "/").await.expect("an answer").text, "a");
    }
}

#[tokio::test]
async fn connect_and_ways_to_http2_are_not_offered() {
    let a = Backend::start("a").await;
    let stage = stage(a.address, |_| {}).await;
    let heard = raw(stage.address, b"CONNECT shop:80 HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 405"), "{heard}");
    let mut request = ask(Method::GET, "shop", "/head", full(""));
    for (name, value) in
        [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")]
    {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let heard = Client::new(stage.address).send(request).await.expect("an answer");
    assert_eq!(heard.status, StatusCode::OK);
    assert!(!heard.text.contains("upgrade") && !heard.text.contains("http2"), "{}", heard.text);
}
