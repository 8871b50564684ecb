//! What holds for every route: who may call it, that reading changes nothing, and that the description of the API is true.

mod access;
mod audit;
mod guards;
mod limits;
pub(crate) mod markup;
mod sessions;

use std::{collections::BTreeSet, path::Path, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::Value;

use super::{
    access::cookie_name,
    openapi,
    router::{Endpoint, routes},
};
use crate::{
    app::{Role, sessions::SeenFrom},
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

/// A session of the account with this role: its key, and its cookie as a browser sends it.
async fn signed_in(stage: &Stage, role: Role) -> (String, String) {
    let account = stage.caller(role).await.account;
    let key = stage.app.session_begin(&account, &SeenFrom::default(), None).await.unwrap();
    let cookie = format!("{}={key}", cookie_name(&stage.app));
    (key, cookie)
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
    let token = (header::AUTHORIZATION, format!("Bearer {token}"));
    let cookie = (header::COOKIE, signed_in(&stage, Role::Admin).await.1);
    // Long enough that the last use of the session would be worth writing down.
    stage.pass_ms(600_000);
    let before = stage.dump();
    assert!(before.len() > 20);
    let table = routes(stage.app.clone()).table;
    let reads = table.iter().filter(|endpoint| endpoint.method == "GET");
    for endpoint in reads {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            for proof in [Some(&token), Some(&cookie), None] {
                let mut request = Request::builder().method(&method).uri(filled(&stage, &endpoint.path));
                if let Some((name, value)) = proof {
                    request = request.header(name, value);
                }
                let request = request.body(Body::empty()).unwrap();
                let status = stage.open(request).await.status();
                assert!(!status.is_server_error(), "{method} {}: {status}", endpoint.path);
                assert_eq!(stage.dump(), before, "{method} {} changed something", endpoint.path);
            }
        }
    }
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
    assert_eq!(stage.app.queue().work().waiting.len(), 2, "and will be performed without a restart");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let stage = crate::testing::test_app_with(|config| config.bounds.request_timeout_ms = 50);
    let token = stage.token(Role::Developer).await;
    let request = Request::post("/api/v1/lint")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()));
    let answer = tokio::time::timeout(Duration::from_secs(60), stage.send(request.unwrap())).await;
    let answer = answer.expect("the body is waited for without an end");
    assert_eq!((answer.status, &answer.json()["type"]), (StatusCode::SERVICE_UNAVAILABLE, &Value::from("too-slow")));
}

/// Whole requests: cookies, tokens, forms, links of approvals, queries. Whatever comes is answered by somebody who is not
/// at a loss, and nothing of it becomes part of a page.
#[test]
fn fuzz_requests() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stage = test_app();
    let (token, link) = runtime.block_on(async {
        let release = stage.awaiting("shop").await;
        let approval = stage.app.approval(&release).unwrap();
        (stage.token(Role::Admin).await, stage.app.approval_url(&approval, TESTER))
    });
    let link = link.split_once("example.com").map_or("/", |(_, path)| path).to_owned();
    let form = "content-type: application/x-www-form-urlencoded";
    let samples = [
        format!("GET {link}\ncookie: lang=zh-CN; __Host-windlass=abc\n\n"),
        format!("POST {link}/approve\n{form}\n\ncode=123456&comment=%3Cscript%3Ezz&digest=sha256:0"),
        format!(
            "POST /sign-in\n{form}\norigin: https://windlass.example.com\n\nname=admin&password=x&csrf=abc&back=//evil"
        ),
        format!("GET /api/v1/services/shop/runs?limit=2&before=1\nauthorization: Bearer {token}\n\n"),
        format!(
            "POST /api/v1/services\nauthorization: Bearer {token}\ncontent-type: application/json\n\n{{\"name\":\"a\"}}"
        ),
        "GET /services/shop/runs/1/events?from=3,4\nlast-event-id: 3,29\n\n".to_owned(),
        "GET /search?q=%3Cscript%3Ezz\naccept-language: zh\n\n".to_owned(),
        "POST /hooks/shop\nx-gitea-event: push\nx-gitea-signature: 00ff\n\n{}".to_owned(),
    ];
    let samples: Vec<&[u8]> = samples.iter().map(String::as_bytes).collect();
    let words = [
        "cookie: ",
        "authorization: Bearer ",
        "%00",
        "csrf=",
        "&",
        "?from=",
        "../",
        "/a/",
        "<script>zz",
        "%3Cscript%3Ezz",
    ];
    fuzz::feed("requests", &samples, &words, |bytes| {
        let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
            Some(at) => (&bytes[..at], &bytes[at + 2..]),
            None => (bytes, &[][..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let (method, target) = first.split_once(' ').unwrap_or(("GET", &first));
        let mut request = Request::builder().method(method).uri(target);
        for line in lines {
            let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
            request = request.header(name, value.strip_prefix(b": ").unwrap_or_default());
        }
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return Ok("no request".into()) };
        runtime.block_on(async {
            let answer = stage.open(request).await;
            let (status, headers) = (answer.status(), answer.headers().clone());
            if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
                return Err(format!("it is answered {status}"));
            }
            let is_html = |kind: &str| kind.starts_with("text/html");
            let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            if is_html(kind) {
                let page =
                    axum::body::to_bytes(answer.into_body(), 4 << 20).await.map_err(|error| error.to_string())?;
                if String::from_utf8_lossy(&page).contains("<script>zz") {
                    return Err("what was sent is a part of the page".into());
                }
            }
            let to = headers.get(header::LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
            if to.as_deref().is_some_and(|to| to.starts_with("//") || to.contains("://evil")) {
                return Err(format!("it leads to {to:?}"));
            }
            Ok(format!("{status} {}", kind.split(';').next().unwrap_or_default()))
        })
    });
}
