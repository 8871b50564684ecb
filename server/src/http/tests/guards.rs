//! What stands around every route: the form's token and the site of whoever changes something by cookie, and the headers of
//! every answer.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use serde_json::Value;

use super::{Stage, filled, signed_in};
use crate::{
    app::Role,
    http::{
        access::{Access, CSRF_FIELD, CSRF_HEADER, csrf_of, session_cookie},
        router::{Endpoint, routes},
    },
    testing::{test_app, test_app_with},
};

fn changing(stage: &Stage, is_wanted: impl Fn(Access) -> bool) -> Vec<Endpoint> {
    let table = routes(Arc::clone(&stage.app)).table;
    table.into_iter().filter(|endpoint| endpoint.method != "GET" && is_wanted(endpoint.access)).collect()
}

fn change(stage: &Stage, endpoint: &Endpoint) -> axum::http::request::Builder {
    let method = Method::from_bytes(endpoint.method.as_bytes()).unwrap();
    Request::builder().method(method).uri(filled(stage, &endpoint.path))
}

/// Status and kind of the problem, where it is one.
async fn said(stage: &Stage, request: Request<Body>) -> (StatusCode, String) {
    let (status, body) = stage.send_head(request).await;
    let kind = serde_json::from_str::<Value>(&body).ok().and_then(|it| it["type"].as_str().map(str::to_owned));
    (status, kind.unwrap_or_default())
}

#[tokio::test]
async fn every_change_by_cookie_needs_the_token_of_its_own_session() {
    let stage = test_app();
    stage.awaiting("shop").await;
    let (key, cookie) = signed_in(&stage, Role::Admin).await;
    let (other, _) = signed_in(&stage, Role::Admin).await;
    let own = csrf_of(&stage.app, &key);
    let mut flipped = own.clone().into_bytes();
    flipped[0] = if flipped[0] == b'A' { b'B' } else { b'A' };
    let wrong = [
        None,
        Some(String::new()),
        Some("wrong".to_owned()),
        Some(own[1..].to_owned()),
        Some(String::from_utf8(flipped).unwrap()),
        Some(csrf_of(&stage.app, &other)),
        Some(key.clone()),
    ];
    let before = stage.dump();
    let endpoints = changing(&stage, |access| matches!(access, Access::Role(_)));
    assert!(endpoints.len() > 20);
    let refused = (StatusCode::FORBIDDEN, "bad-form".to_owned());
    for endpoint in &endpoints {
        let what = format!("{} {}", endpoint.method, endpoint.path);
        for given in &wrong {
            let by_field = given.as_ref().map(|given| {
                url::form_urlencoded::Serializer::new(String::new()).append_pair(CSRF_FIELD, given).finish()
            });
            let plain = change(&stage, endpoint).header(header::COOKIE, &cookie);
            let request = plain.body(Body::from(by_field.unwrap_or_default())).unwrap();
            assert_eq!(said(&stage, request).await, refused, "{what} with {given:?} in the form");
            let Some(given) = given else { continue };
            let request = change(&stage, endpoint).header(header::COOKIE, &cookie).header(CSRF_HEADER, given);
            let request = request.body(Body::from("{}")).unwrap();
            assert_eq!(said(&stage, request).await, refused, "{what} with {given:?} in the header");
        }
    }
    assert_eq!(stage.dump(), before, "a refused form changed something");
    for endpoint in &endpoints {
        let (key, cookie) = signed_in(&stage, Role::Admin).await;
        let request = change(&stage, endpoint).header(header::COOKIE, cookie);
        let request = request.header(CSRF_HEADER, csrf_of(&stage.app, &key)).body(Body::from("{}")).unwrap();
        assert_ne!(said(&stage, request).await.1, "bad-form", "{} {}", endpoint.method, endpoint.path);
    }
}

#[tokio::test]
async fn no_change_comes_from_another_site_s_page() {
    let stage = test_app();
    stage.awaiting("shop").await;
    let (key, cookie) = signed_in(&stage, Role::Admin).await;
    let before = stage.dump();
    // Hooks and links of mails come with a proof of their own and without a cookie that counts.
    for endpoint in changing(&stage, |access| access != Access::Proof) {
        for (name, value) in [
            ("origin", "https://evil.example.com"),
            ("origin", "null"),
            ("origin", "http://windlass.example.com"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let request = change(&stage, &endpoint)
                .header(header::COOKIE, &cookie)
                .header(CSRF_HEADER, csrf_of(&stage.app, &key))
                .header(name, value);
            let found = said(&stage, request.body(Body::from("{}")).unwrap()).await;
            let refused = (StatusCode::FORBIDDEN, "other-site".to_owned());
            assert_eq!(found, refused, "{} {} with {name} {value}", endpoint.method, endpoint.path);
        }
    }
    assert_eq!(stage.dump(), before, "another site changed something");
}

fn check_headers(what: &str, headers: &HeaderMap) {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
    let policy = text("content-security-policy");
    for word in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action"] {
        assert!(policy.contains(word), "{what}: {policy} lacks {word}");
    }
    for word in ["unsafe", "*", "data:", "http:", "https:"] {
        assert!(!policy.contains(word), "{what}: {policy} has {word}");
    }
    assert_eq!(text("x-content-type-options"), "nosniff", "{what}");
    assert!(matches!(text("referrer-policy"), "no-referrer" | "same-origin"), "{what}: {}", text("referrer-policy"));
    assert_eq!(text("cross-origin-opener-policy"), "same-origin", "{what}");
    assert!(text("strict-transport-security").starts_with("max-age="), "{what}");
    assert!(!text("x-request-id").is_empty(), "{what}");
    let is_asset = what.contains("/assets/") || what.contains("/schema/") || what.contains("openapi.json");
    assert!(is_asset || text("cache-control") == "no-store", "{what}: {}", text("cache-control"));
    for (name, value) in headers {
        assert!(!value.as_bytes().iter().any(|byte| byte.is_ascii_control()), "{what}: a control character in {name}");
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_that_protect_it() {
    let stage = test_app();
    stage.live("shop").await;
    let token = stage.token(Role::Admin).await;
    for endpoint in routes(Arc::clone(&stage.app)).table {
        for token in [Some(&token), None] {
            let mut request = change(&stage, &endpoint).header(header::ACCEPT, "text/html");
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let answer = stage.open(request.body(Body::empty()).unwrap()).await;
            check_headers(&format!("{} {} {}", endpoint.method, endpoint.path, answer.status()), answer.headers());
        }
    }
    let nowhere = stage.call(Method::GET, "/nothing/here", None, None).await;
    check_headers("nothing", &nowhere.headers);
    assert_eq!(nowhere.headers[header::CONTENT_TYPE], "application/problem+json");
    let method = stage.call(Method::DELETE, "/healthz", None, None).await;
    assert_eq!((method.status, &method.json()["type"]), (StatusCode::METHOD_NOT_ALLOWED, &Value::from("bad-method")));
}

#[tokio::test]
async fn over_plain_http_nothing_is_said_that_only_https_can_keep() {
    let stage = test_app_with(|config| config.public_url = "http://windlass.example.com".into());
    let answer = stage.call(Method::GET, "/healthz", None, None).await;
    assert!(!answer.headers.contains_key("strict-transport-security"));
    let cookie = session_cookie(&stage.app, Some("key"));
    assert!(cookie.starts_with("windlass=key; ") && !cookie.contains("Secure"), "{cookie}");
    let stage = test_app();
    let cookie = session_cookie(&stage.app, Some("key"));
    assert!(cookie.starts_with("__Host-windlass=key; Path=/; "), "{cookie}");
    for word in ["; HttpOnly", "; SameSite=Lax", "; Secure"] {
        assert!(cookie.contains(word), "{cookie} lacks {word}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
}
