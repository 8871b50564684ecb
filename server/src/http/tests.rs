//! What holds for every route: who may call it, that reading changes nothing, and that the description of the API is true.

use std::{collections::BTreeSet, path::Path, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::Value;

use super::{
    access::{Access, cookie_name, csrf_of, session_cookie},
    openapi,
    router::{Endpoint, routes},
};
use crate::{
    app::Role,
    testing::{Stage, TESTER, test_app},
};

/// Set to write `docs/openapi.json` anew: `WINDLASS_WRITE_DOCS=1 cargo test -p server openapi`.
const WRITE_VARIABLE: &str = "WINDLASS_WRITE_DOCS";

/// A path of the table with something that is there in the place of its parameters.
fn filled(stage: &Stage, path: &str) -> String {
    let id = "shop/1".parse().unwrap();
    let token = stage.app.approval(&id).map(|approval| stage.app.approval_url(&approval, TESTER)).unwrap_or_default();
    let token = token.rsplit('/').next().unwrap_or_default();
    let part = |name: &str| match name {
        "{service}" => "shop".to_owned(),
        "{number}" | "{build}" | "{release}" | "{run}" | "{rollout}" => "1".to_owned(),
        "{step}" => "test".to_owned(),
        "{account}" => "developer".to_owned(),
        "{token}" => token.to_owned(),
        name if name.starts_with('{') => "a".to_owned(),
        other => other.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn request(stage: &Stage, endpoint: &Endpoint, token: Option<&str>) -> Request<Body> {
    let method = Method::from_bytes(endpoint.method.as_bytes()).unwrap();
    let mut request = Request::builder().method(method).uri(filled(stage, &endpoint.path));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_route_lets_in_whom_it_says_and_nobody_else() {
    let stage = test_app();
    stage.awaiting("shop").await;
    for role in Role::ALL {
        stage.caller(role).await;
    }
    for endpoint in routes(stage.app.clone()).table {
        let what = format!("{} {}", endpoint.method, endpoint.path);
        let nobody = stage.open(request(&stage, &endpoint, None)).await;
        let turned_away = nobody.status() == StatusCode::UNAUTHORIZED
            || nobody.headers().get(header::LOCATION).is_some_and(|to| to.as_bytes().starts_with(b"/sign-in"));
        assert_eq!(turned_away, matches!(endpoint.access, Access::Role(_)), "{what} as nobody: {}", nobody.status());
        let Access::Role(needed) = endpoint.access else { continue };
        for role in Role::ALL {
            let token = stage.token(role).await;
            let answer = stage.send_head(request(&stage, &endpoint, Some(&token))).await;
            let is_refused = answer.0 == StatusCode::FORBIDDEN && answer.1.contains("this needs the role");
            assert_eq!(is_refused, role < needed, "{what} as {}: {} {}", role.word(), answer.0, answer.1);
            assert_ne!(answer.0, StatusCode::UNAUTHORIZED, "{what} as {}", role.word());
        }
        if endpoint.method != "GET" {
            let caller = stage.caller(Role::Admin).await;
            let reader = stage.app.token_create(&caller, "reader".into(), Role::Admin, true, None).await.unwrap();
            let answer = stage.send_head(request(&stage, &endpoint, Some(reader.expose()))).await;
            assert!(answer.1.contains("this token only reads"), "{what} with a token that reads: {}", answer.0);
        }
    }
}

#[tokio::test]
async fn a_change_by_cookie_needs_the_form_s_token_and_comes_from_our_own_page() {
    let stage = test_app();
    stage.caller(Role::Admin).await;
    let password = pipelines::protocol::Secret::new("password of admin");
    let (key, _) = stage.app.sign_in("admin", password).await.unwrap();
    assert!(session_cookie(&stage.app, Some(&key)).contains("HttpOnly; SameSite=Lax"));
    let cookie = format!("{}={key}", cookie_name(&stage.app));
    let send = async |csrf: Option<&str>, headers: &[(&str, &str)]| {
        let mut request = Request::post("/api/v1/lint").header(header::COOKIE, &cookie);
        request = request.header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(csrf) = csrf {
            request = request.header("x-csrf-token", csrf);
        }
        let answer = stage.send(request.body(Body::from(r#"{"file": "a", "text": ""}"#)).unwrap()).await;
        (answer.status.as_u16(), answer.json()["type"].as_str().unwrap_or_default().to_owned())
    };
    let good = csrf_of(&stage.app, &key);
    let of_another = csrf_of(&stage.app, "another session");
    assert_eq!(send(Some(&good), &[]).await.0, 200);
    assert_eq!(send(Some(&good), &[("origin", "https://windlass.example.com")]).await.0, 200);
    assert_eq!(send(None, &[]).await, (403, "bad-form".into()));
    assert_eq!(send(Some(&of_another), &[]).await, (403, "bad-form".into()));
    assert_eq!(send(Some(&good), &[("sec-fetch-site", "cross-site")]).await, (403, "other-site".into()));
    assert_eq!(send(Some(&good), &[("origin", "https://evil.example.com")]).await, (403, "other-site".into()));
}

#[tokio::test]
async fn reading_changes_nothing() {
    let stage = test_app();
    stage.live("shop").await;
    let second = stage.pushed("shop").await;
    let second = stage.built(&second, pipelines::plan::Strategy::Rolling).await;
    stage.tested(&second).await;
    stage.pushed("other").await;
    let token = stage.token(Role::Admin).await;
    let before = stage.dump();
    assert!(before.len() > 20);
    let table = routes(stage.app.clone()).table;
    let reads = table.iter().filter(|endpoint| endpoint.method == "GET");
    for endpoint in reads {
        for method in [Method::GET, Method::HEAD] {
            for token in [Some(token.as_str()), None] {
                let mut request = request(&stage, endpoint, token);
                *request.method_mut() = method.clone();
                let status = stage.open(request).await.status();
                assert!(!status.is_server_error(), "{method} {}: {status}", endpoint.path);
                assert_eq!(stage.dump(), before, "{method} {} changed something", endpoint.path);
            }
        }
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_that_protect_it() {
    let stage = test_app();
    for path in ["/healthz", "/api/v1/board", "/nothing/here"] {
        let answer = stage.call(Method::GET, path, None, None).await;
        for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
            assert_eq!(answer.headers[name], value, "{path}");
        }
        assert!(answer.headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let problem = stage.call(Method::GET, "/nothing/here", None, None).await;
    assert_eq!(problem.headers[header::CONTENT_TYPE], "application/problem+json");
    let method = stage.call(Method::DELETE, "/healthz", None, None).await;
    assert_eq!((method.status, &method.json()["type"]), (StatusCode::METHOD_NOT_ALLOWED, &Value::from("bad-method")));
}

#[tokio::test]
async fn the_description_names_the_routes_that_there_are() {
    let routes = routes(test_app().app.clone());
    let of_api = |endpoint: &&Endpoint| endpoint.path.starts_with("/api/v1/");
    let name = |endpoint: &Endpoint| (endpoint.path.clone(), endpoint.method.to_lowercase());
    let added: BTreeSet<_> = routes.table.iter().filter(of_api).map(name).collect();
    let text: Value = serde_json::from_str(&openapi::text(&routes.description)).unwrap();
    let mut described = BTreeSet::new();
    for (path, item) in text["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert((path.clone(), method.clone()));
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method} {path}");
            assert!(operation["x-windlass-access"].is_string(), "{method} {path}");
            let named: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let in_path: BTreeSet<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(named, in_path, "{method} {path}");
        }
    }
    assert_eq!(added, described);
    assert!(text["openapi"].as_str().unwrap().starts_with("3.1"));
    let refs = text.to_string();
    for (at, _) in refs.match_indices("#/components/schemas/") {
        let name = refs[at + "#/components/schemas/".len()..].split('"').next().unwrap();
        assert!(text["components"]["schemas"][name].is_object(), "the schema {name} is missing");
    }
}

#[tokio::test]
async fn the_openapi_description_in_docs_is_the_served_one() {
    let served = openapi::text(&routes(test_app().app.clone()).description);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == served, "docs/openapi.json is old: {WRITE_VARIABLE}=1 cargo test -p server openapi writes it");
}

#[tokio::test]
async fn a_change_goes_to_its_end_when_the_caller_goes_away() {
    let stage = test_app();
    stage.pushed("shop").await;
    let token = stage.token(Role::Developer).await;
    let mut changes = stage.app.changes();
    let start = Request::post("/api/v1/services/shop/runs")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{}"));
    {
        let begun = std::pin::pin!(stage.open(start.unwrap()));
        assert!(futures_util::poll!(begun).is_pending(), "the answer came before the caller could go away");
    }
    let changed = tokio::time::timeout(Duration::from_secs(10), changes.recv()).await;
    assert_eq!(changed.expect("it is done all the same").unwrap().what, "run/2");
    assert_eq!(stage.app.queue().runs().len(), 2, "and will be performed without a restart");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let stage = crate::testing::test_app_with(|config| config.bounds.request_timeout_ms = 50);
    let token = stage.token(Role::Developer).await;
    let request = Request::post("/api/v1/lint")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()));
    let answer = stage.send(request.unwrap()).await;
    assert_eq!((answer.status, &answer.json()["type"]), (StatusCode::SERVICE_UNAVAILABLE, &Value::from("too-slow")));
}
