//! Which revision a request reaches, and what its head looks like on both sides.

use super::*;

#[tokio::test]
async fn each_revision_gets_its_share_of_real_requests_within_one() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let stage =
        Stage::start(&[("a", &[a.address]), ("b", &[b.address])], &[("shop", &[("a", 8_750), ("b", 1_250)])]).await;
    let mut sending = Vec::new();
    for _ in 0..8 {
        let mut client = Client::new(stage.address);
        sending.push(tokio::spawn(async move {
            for _ in 0..100 {
                let heard = client.get("shop", "/").await.expect("an answer");
                assert_eq!(heard.status, StatusCode::OK);
            }
        }));
    }
    for task in sending {
        task.await.expect("no panic");
    }
    assert_eq!((a.served(), b.served()), (700, 100));
    let stats = stage.stats("shop", "b").await;
    assert_eq!((stats.requests, stats.errors, stats.weight), (100, 0, Some(1_250)));
    assert_eq!(stats.latency.iter().sum::<u64>(), 100);
}

#[tokio::test]
async fn the_backends_of_a_revision_take_turns() {
    let (a, b) = (Backend::start("1").await, Backend::start("2").await);
    let stage = Stage::start(&[("a", &[a.address, b.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    for _ in 0..10 {
        client.get("shop", "/").await.expect("an answer");
    }
    assert_eq!((a.served(), b.served()), (5, 5));
}

#[tokio::test]
async fn a_preview_reaches_its_revision_whatever_the_weights_say() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let stage = Stage::start_with(
        &[("a", &[a.address]), ("b", &[b.address])],
        &[("shop", &[("a", 10_000), ("b", 0)])],
        |config| _ = config.previews.insert("next.shop".into(), "b".into()),
    )
    .await;
    let mut client = Client::new(stage.address);
    for _ in 0..5 {
        assert_eq!(client.get("NEXT.shop:81", "/").await.expect("b").text, "b");
        assert_eq!(client.get("shop.", "/").await.expect("a").text, "a");
    }
    assert_eq!(stage.stats("next.shop", "b").await.requests, 5);
    assert_eq!(stage.stats("shop", "b").await.requests, 0);
}

#[tokio::test]
async fn hosts_that_lead_nowhere_get_a_page_that_says_so() {
    let stage = Stage::start(&[], &[("soon.example.com", &[])]).await;
    let mut client = Client::new(stage.address);
    let heard = client.get("other.example.com", "/").await.expect("an answer");
    assert_eq!(heard.status, StatusCode::NOT_FOUND);
    assert!(heard.text.contains("other.example.com"), "{}", heard.text);
    let heard = client.get("soon.example.com", "/").await.expect("an answer");
    assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(heard.headers["x-windlass-gateway"], "nothing-live");
    let heard = raw(stage.address, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.0 400"), "{heard}");
    let stats = stage.client.stats().await.expect("stats");
    assert_eq!((stats.unknown_host, stats.refused), (1, 2));
}

#[tokio::test]
async fn the_backend_learns_who_asked_and_nothing_that_was_for_the_gateway() {
    let a = Backend::start("a").await;
    let stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut request = ask(Method::GET, "shop:8080", "/head?q=1", full(""));
    for (name, value) in [
        ("x-forwarded-for", "6.6.6.6"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("x-request-id", "abc-1"),
    ] {
        let value = value.parse().expect("a value");
        request.headers_mut().insert(name, value);
    }
    let heard = Client::new(stage.address).send(request).await.expect("an answer");
    for line in [
        "host: shop:8080\n",
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: shop:8080\n",
        "x-request-id: abc-1\n",
    ] {
        assert!(heard.text.contains(line), "{line} is missing in {}", heard.text);
    }
    assert!(!heard.text.contains("x-hop") && !heard.text.contains("te:"), "{}", heard.text);
    assert_eq!(heard.headers["x-request-id"], "abc-1");
    assert!(heard.headers.contains_key("x-public") && !heard.headers.contains_key("x-private"));
}

#[tokio::test]
async fn bodies_pass_in_both_directions_while_they_are_being_sent() {
    let a = Backend::start("a").await;
    let stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let (sender, body) = channel();
    let request = ask(Method::POST, "shop", "/echo", body);
    let mut client = Client::new(stage.address);
    sender.send(Ok(Frame::data("one".into()))).await.expect("is taken");
    let answer = timeout(SOON, client.begin(request)).await.expect("in time").expect("an answer");
    let mut answer = answer.into_body();
    // The echo of each piece comes while the request is still open.
    for piece in ["one", "two", "three"] {
        if piece != "one" {
            sender.send(Ok(Frame::data(piece.into()))).await.expect("is taken");
        }
        let frame = timeout(SOON, answer.frame()).await.expect("in time").expect("a frame");
        assert_eq!(frame.expect("no error").into_data().expect("data"), piece);
    }
    drop(sender);
    assert!(timeout(SOON, answer.frame()).await.expect("in time").is_none());
    let large = vec![b'x'; 8 * 1024 * 1024];
    let heard = client.send(ask(Method::PUT, "shop", "/echo", full(large.clone()))).await;
    assert_eq!(heard.expect("an answer").text.len(), large.len());
}

#[tokio::test]
async fn answers_without_a_body_keep_their_meaning() {
    let a = Backend::start("a-name").await;
    let stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut client = Client::new(stage.address);
    for _ in 0..2 {
        let heard = client.send(ask(Method::HEAD, "shop", "/", full(""))).await.expect("an answer");
        assert_eq!((heard.status, heard.text.as_str()), (StatusCode::OK, ""));
        assert_eq!(heard.headers["content-length"], "6");
        let heard = client.get("shop", "/unchanged").await.expect("an answer");
        assert_eq!(heard.status, StatusCode::NOT_MODIFIED);
        assert_eq!(client.get("shop", "/").await.expect("an answer").text, "a-name");
    }
    let heard = raw(stage.address, b"GET /echo HTTP/1.0\r\nhost: shop\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.0 200"), "{heard}");
    assert_eq!(stage.stats("shop", "a").await.in_flight, 0);
}

#[tokio::test]
async fn a_websocket_echoes_and_is_in_flight_until_it_ends() {
    let a = Backend::start("a").await;
    let mut stage = Stage::start(&[("a", &[a.address])], &[("shop", &[("a", 10_000)])]).await;
    let mut stream = TcpStream::connect(stage.address).await.expect("connects");
    let ask = "GET /ws HTTP/1.1\r\nhost: shop\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.expect("writes");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.expect("in time").expect("a byte"));
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    for piece in ["hello", "again"] {
        stream.write_all(piece.as_bytes()).await.expect("writes");
        let mut heard = [0; 5];
        timeout(SOON, stream.read_exact(&mut heard)).await.expect("in time").expect("an echo");
        assert_eq!(heard, piece.as_bytes());
    }
    stage.change(|config| config.routes.clear()).await;
    let drained = stage.client.drain("a", Duration::from_millis(50)).await.expect("drain");
    assert_eq!((drained.state, drained.in_flight), (DrainState::InFlight, 1));
    drop(stream);
    let drained = stage.client.drain("a", SOON).await.expect("drain");
    assert_eq!(drained.state, DrainState::Drained);
}
