//! What can be guessed is slowed: sign-ins, tokens, links, signatures, mails with codes; by the place that it comes from, which
//! nobody can make up.

use std::net::SocketAddr;

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode, header, request::Builder},
};
use pipelines::ids::ReleaseId;

use super::Stage;
use crate::{
    app::Role,
    config::{Bounds, Config},
    http::access::csrf_of,
    testing::{Answer, TESTER, test_app_with},
};

const PROXY: &str = "10.0.0.1";

fn strict(config: &mut Config) {
    config.bounds = Bounds {
        sign_in_tries_max: 3,
        sign_in_place_tries_max: 5,
        sign_in_name_tries_max: 50,
        sign_in_window_ms: 60_000,
        wrong_proofs_max: 4,
        wrong_proofs_window_ms: 30_000,
        code_mails_max: 2,
        code_mails_window_ms: 60_000,
        ..Bounds::default()
    };
}

fn behind_a_proxy(config: &mut Config) {
    strict(config);
    config.trusted_proxies = vec![format!("{PROXY}/32").parse().unwrap()];
}

async fn from(stage: &Stage, place: &str, request: Builder, body: impl Into<String>) -> Answer {
    let peer: SocketAddr = format!("{place}:4711").parse().unwrap();
    stage.send(request.extension(ConnectInfo(peer)).body(Body::from(body.into())).unwrap()).await
}

async fn sign_in(stage: &Stage, place: &str, name: &str, password: &str, forwarded: Option<&str>) -> Answer {
    let mut request = Request::post("/sign-in").header(header::ACCEPT, "text/html");
    if let Some(forwarded) = forwarded {
        request = request.header("x-forwarded-for", forwarded);
    }
    from(stage, place, request, format!("name={name}&password={password}")).await
}

/// The seconds of `Retry-After` of a 429.
fn wait_s(answer: &Answer) -> u64 {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn passwords_are_guessed_slowly_by_name_and_by_place() {
    let stage = test_app_with(strict);
    stage.caller(Role::Developer).await;
    let good = "password+of+developer";
    for _ in 0..3 {
        let answer = sign_in(&stage, "192.0.2.1", "developer", "wrong", None).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert!(wait_s(&sign_in(&stage, "192.0.2.1", "developer", good, None).await) <= 60);
    assert_eq!(sign_in(&stage, "192.0.2.2", "developer", good, None).await.status, StatusCode::SEE_OTHER);
    assert_eq!(sign_in(&stage, "192.0.2.1", "other", "wrong", None).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        wait_s(&sign_in(&stage, "192.0.2.1", "third", "wrong", None).await) <= 60,
        "one place tried too many names"
    );
    let api = Request::post("/api/v1/login").header(header::CONTENT_TYPE, "application/json");
    let body = r#"{"name": "developer", "password": "password of developer"}"#;
    assert!(wait_s(&from(&stage, "192.0.2.1", api, body).await) <= 60, "by the API it is the same count");
    stage.pass_ms(60_000);
    assert_eq!(sign_in(&stage, "192.0.2.1", "developer", good, None).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn who_says_to_come_from_elsewhere_is_counted_all_the_same() {
    let stage = test_app_with(strict);
    for number in 0..5 {
        let name = format!("name-{number}");
        sign_in(&stage, "192.0.2.1", &name, "wrong", Some(&format!("198.51.100.{number}"))).await;
    }
    wait_s(&sign_in(&stage, "192.0.2.1", "another", "wrong", Some("198.51.100.99")).await);

    // Behind a proxy that is trusted its word counts, and what the client sent before it does not.
    let stage = test_app_with(behind_a_proxy);
    for number in 0..5 {
        let forwarded = format!("198.51.100.{number}, 192.0.2.1");
        sign_in(&stage, PROXY, &format!("name-{number}"), "wrong", Some(&forwarded)).await;
    }
    wait_s(&sign_in(&stage, PROXY, "another", "wrong", Some("198.51.100.99, 192.0.2.1")).await);
    let neighbour = sign_in(&stage, PROXY, "another", "wrong", Some("192.0.2.2")).await;
    assert_eq!(neighbour.status, StatusCode::UNPROCESSABLE_ENTITY, "another client of the same proxy");
}

#[tokio::test]
async fn wrong_tokens_are_answered_429_and_good_ones_pass() {
    let stage = test_app_with(strict);
    let token = stage.token(Role::Developer).await;
    let ask = async |place: &str, token: &str| {
        let request = Request::get("/api/v1/whoami").header(header::AUTHORIZATION, format!("Bearer {token}"));
        from(&stage, place, request, "").await
    };
    for number in 0..4 {
        assert_eq!(ask("192.0.2.1", &format!("wlt_{number}")).await.status, StatusCode::UNAUTHORIZED);
    }
    assert!(wait_s(&ask("192.0.2.1", "wlt_4").await) <= 30);
    assert_eq!(ask("192.0.2.1", &token).await.status, StatusCode::OK);
    assert_eq!(ask("192.0.2.2", "wlt_5").await.status, StatusCode::UNAUTHORIZED);
    stage.pass_ms(30_000);
    assert_eq!(ask("192.0.2.1", "wlt_6").await.status, StatusCode::UNAUTHORIZED);
}

fn link(stage: &Stage, release: &ReleaseId) -> String {
    let url = stage.app.approval_url(&stage.app.approval(release).unwrap(), TESTER);
    url[url.find("/approve/").unwrap()..].to_owned()
}

#[tokio::test]
async fn wrong_links_are_answered_429_and_good_ones_pass() {
    let stage = test_app_with(strict);
    let good = link(&stage, &stage.awaiting("shop").await);
    for number in 0..4 {
        let answer = from(&stage, "192.0.2.1", Request::get(format!("/approve/shop/1/{number}")), "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    for wrong in ["/approve/shop/1/x", "/approve/nothing/1/x", "/approve/%20/1/x", "/approve/shop/01/x"] {
        assert!(wait_s(&from(&stage, "192.0.2.1", Request::get(wrong), "").await) <= 30, "{wrong}");
    }
    assert_eq!(from(&stage, "192.0.2.1", Request::get(&good), "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn hooks_with_wrong_signatures_are_answered_429_whether_the_service_exists_or_not() {
    let stage = test_app_with(strict);
    stage.pushed("shop").await;
    let hook = async |service: &str, place: &str| {
        let request = Request::post(format!("/hooks/{service}"))
            .header("x-gitea-event", "push")
            .header("x-gitea-delivery", "1")
            .header("x-gitea-signature", "00".repeat(32));
        from(&stage, place, request, "{}").await
    };
    for service in ["shop", "nothing", "shop", "nothing"] {
        assert_eq!(hook(service, "192.0.2.1").await.status, StatusCode::FORBIDDEN);
    }
    let (there, not) = (hook("shop", "192.0.2.1").await, hook("nothing", "192.0.2.1").await);
    assert_eq!(wait_s(&there), wait_s(&not));
    assert_eq!(there.json()["detail"], not.json()["detail"]);
    assert_eq!(hook("shop", "192.0.2.2").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_link_has_few_codes_mailed_at_a_time() {
    let stage = test_app_with(strict);
    let link = link(&stage, &stage.awaiting("shop").await);
    let ask = async || {
        let csrf = csrf_of(&stage.app, link.rsplit('/').next().unwrap());
        from(&stage, "192.0.2.1", Request::post(format!("{link}/code")), format!("_csrf={csrf}")).await
    };
    for _ in 0..2 {
        assert_eq!(ask().await.status, StatusCode::SEE_OTHER);
    }
    assert!(wait_s(&ask().await) <= 60);
    stage.pass_ms(60_000);
    assert_eq!(ask().await.status, StatusCode::SEE_OTHER);
}
