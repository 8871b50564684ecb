//! `docs/openapi.json` against a running server, from outside: every operation is called, each answer is held against its
//! schema, and bad requests get problems, never a 500.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tests::{Hook, Part, Tier, evidence::record, parts::checkout, require};

use crate::{schema::Schemas, server::Server};

const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// What only a release that was built can answer with success: the whole product's tests do it. Here they answer 404.
const NEED_A_RELEASE: [&str; 9] = [
    "GET /api/v1/services/{service}/releases/{number}",
    "POST /api/v1/services/{service}/releases/{number}/approve",
    "POST /api/v1/services/{service}/releases/{number}/ask-again",
    "POST /api/v1/services/{service}/releases/{number}/claim",
    "POST /api/v1/services/{service}/releases/{number}/reject",
    "POST /api/v1/services/{service}/releases/{number}/rollback",
    "POST /api/v1/services/{service}/releases/{number}/unclaim",
    "GET /api/v1/services/{service}/rollouts/{number}",
    "POST /api/v1/services/{service}/rollouts/{number}/act",
];

/// Operations whose answer is no JSON: it has no end, or is a file.
const STREAMS: [&str; 5] = [
    "GET /api/v1/audit/export",
    "POST /api/v1/backup",
    "POST /api/v1/support-bundle",
    "GET /api/v1/events",
    "GET /api/v1/services/{service}/runs/{number}/steps/{step}/log/stream",
];

/// Method, path and description of each operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

/// A path with its parameters filled in.
fn fill(template: &str, service: &str, number: &str) -> String {
    let path = template.replace("{service}", service).replace("{number}", number);
    path.replace("{step}", "build")
        .replace("{account}", "dev")
        .replace("{id}", "nothing")
        .replace("{secret}", "TOKEN")
        .replace("{runner}", "box")
}

#[test]
fn the_description_is_whole() -> Result<()> {
    let document: Value = serde_json::from_str(&fs::read_to_string(checkout().join("docs/openapi.json"))?)?;
    let schemas = document["components"]["schemas"].as_object().context("there are no schemas")?;
    let mut waiting = vec![&document];
    while let Some(value) = waiting.pop() {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            ensure!(Schemas(schemas).resolve(reference).is_some(), "{reference} leads nowhere");
        }
        waiting.extend(value.as_array().into_iter().flatten());
        waiting.extend(value.as_object().into_iter().flat_map(|fields| fields.values()));
    }
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let at = format!("{method} {path}");
        let id = operation["operationId"].as_str().with_context(|| format!("{at} has no operationId"))?;
        ensure!(ids.insert(id.to_owned()), "{id} is the name of two operations");
        ensure!(operation["summary"].as_str().is_some_and(|words| !words.is_empty()), "{at} says not what it does");
        ensure!(operation["responses"]["default"].is_object(), "{at} says not how it fails");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let stated: BTreeSet<_> =
            parameters.iter().filter(|p| p["in"] == "path").filter_map(|p| p["name"].as_str()).collect();
        let used: BTreeSet<_> = path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
        ensure!(stated == used, "{at} has {used:?} and states {stated:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_it_is_described() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let mut server = Server::start().await?;
    let served: Value =
        server.lone.http.get(format!("{}/api/openapi.json", server.lone.url)).send().await?.json().await?;
    ensure!(&served == server.document(), "the server describes itself otherwise than docs/openapi.json");
    let refused = refuses_strangers(&mut server).await?;
    sign_in(&mut server).await?;
    walk(&mut server).await?;
    let all: BTreeSet<_> =
        operations(server.document()).into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let open: BTreeSet<_> = NEED_A_RELEASE.into_iter().chain(STREAMS).map(str::to_owned).collect();
    let unseen: Vec<_> = all.difference(&server.shown).filter(|at| !open.contains(*at)).collect();
    ensure!(unseen.is_empty(), "no answer of these was looked at: {unseen:?}");
    ensure!(open.is_disjoint(&server.shown) && open.is_subset(&all), "the lists above are old");
    record(
        "the API's answers are as its OpenAPI description says",
        Tier::Contract,
        format!("{} of {} operations answered, {refused} refuse strangers", server.shown.len(), all.len()),
    );
    Ok(())
}

async fn refuses_strangers(server: &mut Server) -> Result<usize> {
    let mut refused = 0;
    for (method, template, operation) in operations(server.document()) {
        let url = format!("{}{}", server.lone.url, fill(&template, "shop", "1"));
        for token in [None, Some("wl_not-a-token")] {
            let request = server.lone.http.request(method.parse()?, &url).header("content-type", "application/json");
            let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
            let answer = request.body("{}").send().await?;
            let (status, _) =
                server.held(&method, &template, answer).await.with_context(|| format!("{method} {template}"))?;
            let public = operation["x-windlass-access"] == "public" && token.is_none();
            ensure!(public != (status == 401), "{method} {template} answers {status} to a stranger");
        }
        refused += usize::from(operation["x-windlass-access"] != "public");
    }
    Ok(refused)
}

async fn sign_in(server: &mut Server) -> Result<()> {
    let body = json!({"name": "admin", "password": server.lone.password, "label": "contract"});
    let (_, given) = server.call("POST", "/api/v1/login", "/api/v1/login", Some(&body)).await?;
    server.token = given["token"].as_str().context("there is no token")?.to_owned();
    let service =
        json!({"name": "shop", "repository_url": server.lone.repository_url, "hook_secret": "a secret of hooks"});
    want(server, 201, "POST", "/api/v1/services", Some(service)).await?;
    Ok(())
}

/// Calls an operation on the service `shop` and its run 1.
async fn want(server: &mut Server, status: u16, method: &str, template: &str, body: Option<Value>) -> Result<Value> {
    let path = fill(template, "shop", "1");
    let (got, value) = server.call(method, template, &path, body.as_ref()).await?;
    ensure!(got == status, "{method} {path} answered {got}: {value}");
    Ok(value)
}

/// Everything that can be done with a service that has runs, and no engine.
async fn walk(server: &mut Server) -> Result<()> {
    let new =
        json!({"name": "dev", "email": "dev@example.com", "role": "developer", "password": "a long password of dev"});
    want(server, 201, "POST", "/api/v1/accounts", Some(new)).await?;
    want(server, 200, "PATCH", "/api/v1/accounts/{account}", Some(json!({"disabled": true}))).await?;
    let service = json!({"release_branch": "main", "credential": {"kind": "token", "user": "ci", "token": "secret"}});
    want(server, 200, "PATCH", "/api/v1/services/{service}", Some(service)).await?;
    want(server, 202, "POST", "/api/v1/services/{service}/poll", None).await?;
    start_run(server).await?;
    let search = "/api/v1/services/{service}/runs/{number}/log/search";
    server.call("GET", search, &format!("{}?text=hello", fill(search, "shop", "1")), None).await?;
    let bad = json!({"file": ".windlass.yaml", "text": "service: shop\nbse: static-site@1\nsteps: [{name: a}]\n"});
    want(server, 200, "POST", "/api/v1/lint", Some(bad)).await?;
    let good = json!({"file": "f.yaml", "text": "service: shop\nbase: static-site@1\ntest: {testers: [a@b.cc]}\n"});
    want(server, 200, "POST", "/api/v1/lint", Some(good)).await?;
    let token = json!({"label": "for CI", "scope": "developer", "read_only": true});
    want(server, 201, "POST", "/api/v1/tokens", Some(token)).await?;
    for (method, template, _) in operations(server.document()) {
        let at = format!("{method} {template}");
        if method == "GET" && !STREAMS.contains(&at.as_str()) && template != search {
            let status = if NEED_A_RELEASE.contains(&at.as_str()) { 404 } else { 200 };
            want(server, status, "GET", &template, None).await?;
        }
    }
    want(server, 200, "POST", "/api/v1/services/{service}/runs/{number}/cancel", Some(json!({"reason": "a test"})))
        .await?;
    want(server, 201, "POST", "/api/v1/services/{service}/runs/{number}/rerun", None).await?;
    want(server, 200, "GET", "/api/v1/services/{service}/runs/{number}", None).await?;
    let tokens = want(server, 200, "GET", "/api/v1/tokens", None).await?;
    let ci = tokens["items"].as_array().into_iter().flatten().find(|token| token["label"] == "for CI");
    let id = ci.and_then(|token| token["id"].as_str()).context("the token is not listed")?.to_owned();
    let (status, _) = server.call("DELETE", "/api/v1/tokens/{id}", &format!("/api/v1/tokens/{id}"), None).await?;
    ensure!(status == 200, "the token could not be deleted: {status}");
    secrets(server).await?;
    runners(server).await?;
    held_runs(server).await?;
    let form = [("name", "admin"), ("password", server.lone.password.as_str())];
    let signed_in = server.lone.http.post(format!("{}/sign-in", server.lone.url)).form(&form).send().await?;
    ensure!(signed_in.status().is_redirection(), "a browser could not sign in: {}", signed_in.status());
    let sessions = want(server, 200, "GET", "/api/v1/sessions", None).await?;
    let id = sessions["items"][0]["id"].as_str().context("the session is not listed")?.to_owned();
    let (status, _) = server.call("DELETE", "/api/v1/sessions/{id}", &format!("/api/v1/sessions/{id}"), None).await?;
    ensure!(status == 200, "the session could not be ended: {status}");
    Ok(())
}

/// A secret of the service and a shared one: set, and taken away.
async fn secrets(server: &mut Server) -> Result<()> {
    for template in ["/api/v1/services/{service}/secrets/{secret}", "/api/v1/secrets/{secret}"] {
        let value = json!({"value": "a value of a secret"});
        want(server, 200, "PUT", template, Some(value)).await?;
        want(server, 200, "DELETE", template, None).await?;
    }
    Ok(())
}

/// A runner on a machine of its own: its token, itself, and the end of both.
async fn runners(server: &mut Server) -> Result<()> {
    let token = json!({"label": "a machine", "uses": 2});
    let token = want(server, 201, "POST", "/api/v1/runner-tokens", Some(token)).await?;
    let registration = json!({
        "token": token["token"], "name": "box", "secret": BASE64_URL_SAFE_NO_PAD.encode([7_u8; 32]),
        "about": {"version": "0.1.0", "labels": {}, "capacity": 1},
    });
    let request = server.lone.http.post(format!("{}/agents/v1/register", server.lone.url));
    let answer = request.header("windlass-protocol", "2").json(&registration).send().await?;
    ensure!(answer.status().is_success(), "the runner is not registered: {}", answer.text().await?);
    want(server, 200, "POST", "/api/v1/runners/{runner}/drain", None).await?;
    want(server, 200, "POST", "/api/v1/runners/{runner}/resume", None).await?;
    want(server, 200, "DELETE", "/api/v1/runners/{runner}", None).await?;
    let tokens = want(server, 200, "GET", "/api/v1/runner-tokens", None).await?;
    let id = tokens["items"][0]["id"].as_str().context("the token is not listed")?.to_owned();
    let path = format!("/api/v1/runner-tokens/{id}");
    let (status, _) = server.call("DELETE", "/api/v1/runner-tokens/{id}", &path, None).await?;
    ensure!(status == 200, "the token could not be taken back: {status}");
    Ok(())
}

/// Two pull requests of a fork: one is allowed to run, one declined.
async fn held_runs(server: &mut Server) -> Result<()> {
    for (pull_request, verb, body) in [(7, "allow", None), (8, "decline", Some(json!({"reason": "a stranger's"})))] {
        let side = |owner: &str| json!({"ref": "main", "sha": server.lone.head, "repo": {"full_name": format!("{owner}/shop")}});
        let hook = json!({"action": "opened", "number": pull_request, "pull_request": {
            "number": pull_request, "title": "a basket", "user": {"login": "eve"}, "head": side("eve"), "base": side("dev")}});
        let hook = hook.to_string();
        let (id, url) = (format!("fork-{pull_request}"), format!("{}/hooks/shop", server.lone.url));
        let hook = Hook { event: "pull_request", id: &id, body: hook.into_bytes() };
        hook.signed(&server.lone.http, &url, "a secret of hooks")?.send().await?.error_for_status()?;
        let number = held_run(server).await?;
        let template = format!("/api/v1/services/{{service}}/runs/{{number}}/{verb}");
        let path = fill(&template, "shop", &number);
        let (status, value) = server.call("POST", &template, &path, body.as_ref()).await?;
        ensure!(status == 200, "{path} answered {status}: {value}");
    }
    Ok(())
}

/// The number of the run that waits for a person's word, as soon as there is one.
async fn held_run(server: &mut Server) -> Result<String> {
    let runs = "/api/v1/services/{service}/runs";
    let given_up = Instant::now() + SEEN_WITHIN;
    loop {
        let (_, page) = server.call("GET", runs, &fill(runs, "shop", "1"), None).await?;
        let held = page["items"].as_array().into_iter().flatten().find(|run| run["state"] == "held");
        if let Some(number) = held.and_then(|run| run["number"].as_u64()) {
            return Ok(number.to_string());
        }
        ensure!(Instant::now() < given_up, "no run is held: {page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for a run until the server has seen the repository's branch.
async fn start_run(server: &mut Server) -> Result<()> {
    let runs = "/api/v1/services/{service}/runs";
    let path = fill(runs, "shop", "1");
    let given_up = Instant::now() + SEEN_WITHIN;
    loop {
        let (status, value) = server.call("POST", runs, &path, Some(&json!({}))).await?;
        if status == 201 {
            return Ok(());
        }
        ensure!(status == 422 && Instant::now() < given_up, "no run: {status} {value}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_problems_and_never_a_500() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let mut server = Server::start().await?;
    sign_in(&mut server).await?;
    // There are an account and a run to be had, so that a path does not end every try.
    walk(&mut server).await?;
    let mut sent = 0_usize;
    for (method, template, operation) in operations(server.document()) {
        if STREAMS.contains(&format!("{method} {template}").as_str()) {
            continue;
        }
        let long = "x".repeat(5000);
        for part in ["..%2f..%2fetc", "%00", "%ff%fe", "a%20b", "%E4%BD%A0", "-1", "99999999999999999999", &long] {
            let path = template.replace(['{', '}'], "\u{1}");
            let path: String =
                path.split('\u{1}').enumerate().map(|(i, text)| if i % 2 == 1 { part } else { text }).collect();
            if path != template {
                sent += 1;
                server.call(&method, &template, &path, Some(&json!({}))).await?;
            }
        }
        let path = fill(&template, "shop", "1");
        for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query") {
            for value in ["", "-1", "1e9", "99999999999999999999", "%ff", "%00", "true%26", &long] {
                sent += 1;
                let name = parameter["name"].as_str().context("a parameter has no name")?;
                server.call(&method, &template, &format!("{path}?{name}={value}"), None).await?;
            }
        }
        for body in bad_bodies(server.document(), &operation) {
            sent += 1;
            let request = server.lone.http.request(method.parse()?, format!("{}{path}", server.lone.url));
            let request = request.bearer_auth(&server.token).header("content-type", "application/json");
            let answer = request.body(body.clone()).send().await?;
            let short: String = body.chars().take(300).collect();
            server.held(&method, &template, answer).await.with_context(|| format!("{method} {path} {short}"))?;
        }
    }
    ensure!(sent > 500, "only {sent} requests were sent");
    let log = server.log();
    ensure!(!log.contains("panicked"), "{log}");
    record("bad requests to the API get a problem, never a 500", Tier::Contract, format!("{sent} requests"));
    Ok(())
}

/// Bodies that an operation does not expect: broken, of another shape, with fields of other types, too many, too long.
fn bad_bodies(document: &Value, operation: &Value) -> Vec<String> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) else { return Vec::new() };
    let fields = document["components"]["schemas"][name]["properties"].as_object().cloned().unwrap_or_default();
    let mut bodies: Vec<String> =
        ["", "{", "null", "[]", "\"text\"", "{\"a\":1}", "{\"\\ud800\":1}", "\u{0}"].map(str::to_owned).to_vec();
    bodies.push("[".repeat(10_000));
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}\u{202e}"),
        json!("x".repeat(100_000)),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"kind": "none"}),
    ];
    for field in fields.keys() {
        bodies.extend(odd.iter().map(|value| json!({ field: value }).to_string()));
        let all = fields.keys().map(|name| (name.clone(), json!("x")));
        let mut all: serde_json::Map<_, _> = all.collect();
        all.remove(field);
        bodies.push(Value::Object(all.clone()).to_string());
        all.insert("not_described".into(), json!(1));
        bodies.push(Value::Object(all).to_string());
    }
    bodies
}
