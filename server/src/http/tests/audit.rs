//! Whoever changes something through a route stands in the audit log with name, way and place, and nothing that they typed
//! in secret does. Generated from the router: a route that changes something needs a line below.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use pipelines::{
    approval::ApprovalEvent,
    effect::EffectKind,
    journal::{Channel, Entry, Origin},
    plan::{CanaryStep, Strategy},
    protocol::{Blame, PROTOCOL_HEADER, PROTOCOL_VERSION, Report, RunnerAbout, RunnerRequest, Secret, ServerReply},
    train::Event,
};
use serde_json::{Value, json};

use super::{Stage, signed_in};
use crate::{
    app::{
        Role,
        runners::NewRunnerToken,
        secrets::{SecretInput, SecretScope},
        sessions::SeenFrom,
        trains::Outcome,
    },
    http::{
        access::{CSRF_FIELD, CSRF_HEADER, csrf_of},
        router::{Endpoint, routes},
    },
    testing::{TESTER, digest, test_app},
};

/// Where the requests come from.
const PLACE: &str = "203.0.113.77";
/// A runner on a machine of its own.
const RUNNER: &str = "crew-1";
/// What is typed in secret.
const TYPED: &str = "typed in secret by somebody";

/// What there has to be before the request.
#[derive(Clone, Copy, Debug)]
enum Ground {
    /// A release that waits for its testers.
    Awaiting,
    /// One that the admin claimed.
    Claimed,
    /// One that the tester of the link claimed.
    ClaimedByLink,
    /// One whose time is over.
    Expired,
    /// Two that went live one after the other.
    LiveTwice,
    /// A canary that moves.
    Moving,
    /// A run that waits for a runner.
    Queued,
    /// A stranger's run, the second one.
    Held,
    /// A run that the runner has.
    Taken,
    /// The runner gets nothing new.
    Drained,
}
use Ground::{Awaiting, Claimed, ClaimedByLink, Drained, Expired, Held, LiveTwice, Moving, Queued, Taken};

/// What is sent to a route.
enum Sent {
    Json(Value),
    Form(Vec<(&'static str, String)>),
    /// By the runner, or one that is to be.
    Agent(Value),
    /// Nothing is written down; the reason.
    Nothing(&'static str),
}

fn form<const N: usize>(fields: [(&'static str, &str); N]) -> Sent {
    Sent::Form(fields.map(|(name, value)| (name, value.to_owned())).into())
}

/// The route: where it leads, what is there, what is sent. `{own}` is the id of a token or session of the caller.
fn case(name: &str) -> Option<(String, Ground, Sent)> {
    let digest = digest(1).to_string();
    let password = "password of admin";
    let (path, ground, sent) = match name {
        "POST /api/v1/services" => {
            let new =
                json!({"name": "fresh", "repository_url": "https://git.example.com/fresh.git", "hook_secret": TYPED});
            ("/api/v1/services", Queued, Sent::Json(new))
        }
        "PATCH /api/v1/services/{service}" => {
            ("/api/v1/services/shop", Queued, Sent::Json(json!({"allow_self_approval": true, "hook_secret": TYPED})))
        }
        "POST /api/v1/services/{service}/poll" => {
            ("", Queued, Sent::Nothing("it asks the repository earlier; what is found is written"))
        }
        "PUT /api/v1/services/{service}/secrets/{secret}" => {
            ("/api/v1/services/shop/secrets/NEW", Queued, Sent::Json(json!({"value": TYPED})))
        }
        "DELETE /api/v1/services/{service}/secrets/{secret}" => {
            ("/api/v1/services/shop/secrets/OLD", Queued, Sent::Json(json!({})))
        }
        "PUT /api/v1/secrets/{secret}" => ("/api/v1/secrets/NEW", Queued, Sent::Json(json!({"value": TYPED}))),
        "DELETE /api/v1/secrets/{secret}" => ("/api/v1/secrets/OLD", Queued, Sent::Json(json!({}))),
        "POST /api/v1/lint" => ("", Queued, Sent::Nothing("it only reads")),
        "POST /api/v1/services/{service}/runs" => ("/api/v1/services/shop/runs", Queued, Sent::Json(json!({}))),
        "POST /api/v1/services/{service}/runs/{number}/cancel" => {
            ("/api/v1/services/shop/runs/1/cancel", Queued, Sent::Json(json!({"reason": "enough"})))
        }
        "POST /api/v1/services/{service}/runs/{number}/rerun" => {
            ("/api/v1/services/shop/runs/1/rerun", Awaiting, Sent::Json(json!({})))
        }
        "POST /api/v1/services/{service}/runs/{number}/allow" => {
            ("/api/v1/services/shop/runs/2/allow", Held, Sent::Json(json!({})))
        }
        "POST /api/v1/services/{service}/runs/{number}/decline" => {
            ("/api/v1/services/shop/runs/2/decline", Held, Sent::Json(json!({"reason": "no"})))
        }
        "POST /api/v1/services/{service}/releases/{number}/approve" => {
            ("/api/v1/services/shop/releases/1/approve", Awaiting, Sent::Json(json!({"digest": digest})))
        }
        "POST /api/v1/services/{service}/releases/{number}/reject" => {
            let decide = json!({"digest": digest, "comment": "no"});
            ("/api/v1/services/shop/releases/1/reject", Awaiting, Sent::Json(decide))
        }
        "POST /api/v1/services/{service}/releases/{number}/claim" => {
            ("/api/v1/services/shop/releases/1/claim", Awaiting, Sent::Json(json!({})))
        }
        "POST /api/v1/services/{service}/releases/{number}/unclaim" => {
            ("/api/v1/services/shop/releases/1/unclaim", Claimed, Sent::Json(json!({})))
        }
        "POST /api/v1/services/{service}/releases/{number}/ask-again" => {
            ("/api/v1/services/shop/releases/1/ask-again", Expired, Sent::Json(json!({})))
        }
        "POST /api/v1/services/{service}/releases/{number}/rollback" => {
            ("/api/v1/services/shop/releases/1/rollback", LiveTwice, Sent::Json(json!({"reason": "prices"})))
        }
        "POST /api/v1/services/{service}/rollouts/{number}/act" => {
            ("/api/v1/services/shop/rollouts/2/act", Moving, Sent::Json(json!({"verb": "pause"})))
        }
        "POST /api/v1/login" => ("/api/v1/login", Queued, Sent::Json(json!({"name": "admin", "password": password}))),
        "POST /api/v1/accounts" => {
            let new = json!({"name": "wei", "role": "developer", "password": TYPED});
            ("/api/v1/accounts", Queued, Sent::Json(new))
        }
        "PATCH /api/v1/accounts/{account}" => {
            ("/api/v1/accounts/developer", Queued, Sent::Json(json!({"role": "tester", "password": TYPED})))
        }
        "POST /api/v1/tokens" => ("/api/v1/tokens", Queued, Sent::Json(json!({"label": "dashboard"}))),
        "DELETE /api/v1/tokens/{id}" => ("/api/v1/tokens/{own}", Queued, Sent::Json(json!({}))),
        "DELETE /api/v1/sessions/{id}" => ("/api/v1/sessions/{own}", Queued, Sent::Json(json!({}))),
        "POST /api/v1/backup" => ("/api/v1/backup", Queued, Sent::Json(json!({"with_key": true}))),
        "POST /api/v1/support-bundle" => ("/api/v1/support-bundle", Queued, Sent::Json(json!({}))),
        "POST /hooks/{service}" => {
            ("", Queued, Sent::Nothing("it is listed with its address; the run that it makes is written under it"))
        }
        "POST /settings/language" | "POST /settings/theme" => {
            ("", Queued, Sent::Nothing("it is a cookie and nothing else"))
        }
        "POST /approve/{service}/{number}/{token}/{verb}" => ("{link}/release", ClaimedByLink, form([])),
        "POST /sign-in" => ("/sign-in", Queued, form([("name", "admin"), ("password", password)])),
        "POST /sign-out" => ("/sign-out", Queued, form([])),
        "POST /services" => {
            let fields = [
                ("repository", "https://git.example.com/fresh.git"),
                ("name", "fresh"),
                ("credential", "none"),
                ("poll_s", "60"),
            ];
            ("/services", Queued, form(fields))
        }
        "POST /services/{service}/edit" => {
            let fields =
                [("repository", "https://git.example.com/other.git"), ("credential", "none"), ("poll_s", "60")];
            ("/services/shop/edit", Queued, form(fields))
        }
        "POST /services/{service}/secrets" => {
            ("/services/shop/secrets", Queued, form([("name", "NEW"), ("value", TYPED)]))
        }
        "POST /services/{service}/secrets/{secret}/remove" => ("/services/shop/secrets/OLD/remove", Queued, form([])),
        "POST /secrets" => ("/secrets", Queued, form([("name", "NEW"), ("value", TYPED)])),
        "POST /secrets/{secret}/remove" => ("/secrets/OLD/remove", Queued, form([])),
        "POST /services/{service}/runs" => ("/services/shop/runs", Queued, form([])),
        "POST /services/{service}/rollback" => {
            ("/services/shop/rollback", LiveTwice, form([("to", "1"), ("reason", "prices")]))
        }
        "POST /services/{service}/runs/{number}/rerun" => ("/services/shop/runs/1/rerun", Awaiting, form([])),
        "POST /services/{service}/runs/{number}/cancel" => {
            ("/services/shop/runs/1/cancel", Queued, form([("reason", "enough")]))
        }
        "POST /services/{service}/runs/{number}/allow" => ("/services/shop/runs/2/allow", Held, form([])),
        "POST /services/{service}/runs/{number}/decline" => {
            ("/services/shop/runs/2/decline", Held, form([("reason", "no")]))
        }
        "POST /services/{service}/approvals/{number}/{verb}" => {
            ("/services/shop/approvals/1/claim", Awaiting, form([]))
        }
        "POST /services/{service}/rollouts/{number}" => {
            ("/services/shop/rollouts/2", Moving, form([("verb", "pause")]))
        }
        "POST /me/tokens" => ("/me/tokens", Queued, form([("name", "dashboard"), ("scope", "developer")])),
        "POST /me/tokens/{id}/revoke" => ("/me/tokens/{own}/revoke", Queued, form([])),
        "POST /me/password" => ("/me/password", Queued, form([("old", password), ("new", TYPED), ("again", TYPED)])),
        "POST /me/sessions/end-others" => ("/me/sessions/end-others", Queued, form([])),
        "POST /me/sessions/{id}/end" => ("/me/sessions/{own}/end", Queued, form([])),
        "POST /accounts" => ("/accounts", Queued, form([("name", "wei"), ("role", "developer")])),
        "POST /accounts/{account}" => ("/accounts/developer", Queued, form([("verb", "new-password")])),
        "POST /agents/v1/register" => {
            let secret = crate::random::text(crate::random::KEY_BYTES);
            let new = json!({"token": "{registration}", "name": "crew-2", "secret": secret, "about": about()});
            ("/agents/v1/register", Queued, Sent::Agent(new))
        }
        "POST /agents/v1/rotate" => {
            let secret = crate::random::text(crate::random::KEY_BYTES);
            ("/agents/v1/rotate", Queued, Sent::Agent(json!({ "secret": secret })))
        }
        "POST /agents/v1/lease" => ("/agents/v1/lease", Queued, Sent::Agent(json!(lease()))),
        "POST /agents/v1/call" => {
            let report = Report::Failed { blame: Blame::Code, reason: "red".into() };
            let told = RunnerRequest::Report { run: "shop/1".parse().unwrap(), attempt: 1, report };
            ("/agents/v1/call", Taken, Sent::Agent(json!(told)))
        }
        "POST /api/v1/runners/{runner}/drain" => ("/api/v1/runners/crew-1/drain", Queued, Sent::Json(json!({}))),
        "POST /api/v1/runners/{runner}/resume" => ("/api/v1/runners/crew-1/resume", Drained, Sent::Json(json!({}))),
        "DELETE /api/v1/runners/{runner}" => ("/api/v1/runners/crew-1", Queued, Sent::Json(json!({}))),
        "DELETE /api/v1/runner-tokens/{id}" => ("/api/v1/runner-tokens/{own}", Queued, Sent::Json(json!({}))),
        "POST /runners/{runner}/{verb}" => ("/runners/crew-1/drain", Queued, form([])),
        "POST /api/v1/runner-tokens" => ("/api/v1/runner-tokens", Queued, Sent::Json(json!({"label": "crew"}))),
        "POST /runners/tokens" => ("/runners/tokens", Queued, form([("label", "crew")])),
        _ => return None,
    };
    Some((path.to_owned(), ground, sent))
}

fn about() -> RunnerAbout {
    RunnerAbout { capacity: 1, ..RunnerAbout::default() }
}

fn lease() -> RunnerRequest {
    RunnerRequest::Lease { protocol: PROTOCOL_VERSION, about: about(), busy_with: Vec::new() }
}

/// The stage, and what the runner opens doors with.
async fn prepared(ground: Ground) -> (Stage, Secret) {
    let stage = test_app();
    let admin = stage.caller(Role::Admin).await;
    stage.caller(Role::Developer).await;
    let credential = stage.registered_runner(RUNNER).await;
    let runner = RUNNER.parse().unwrap();
    match ground {
        Queued => drop(stage.pushed("shop").await),
        Taken => {
            stage.pushed("shop").await;
            let given = stage.app.agent_request(&runner, lease()).await.unwrap();
            assert!(matches!(given, ServerReply::Job(_)), "{given:?}");
        }
        Drained => {
            stage.pushed("shop").await;
            stage.app.runner_drain(&runner, true, Origin::server()).await.unwrap();
        }
        Held => {
            stage.pushed("shop").await;
            stage.forked("shop", 7).await;
        }
        Awaiting => drop(stage.awaiting("shop").await),
        Claimed => {
            let release = stage.awaiting("shop").await;
            let actor = crate::app::approvals::actor_of(&admin.account);
            stage.app.approval_claim(&release, actor, Origin::server()).await.unwrap();
        }
        ClaimedByLink => {
            let release = stage.awaiting("shop").await;
            let actor = pipelines::approval::Actor::Tester { email: TESTER.into() };
            stage.app.approval_claim(&release, actor, Origin::server()).await.unwrap();
        }
        Expired => {
            let release = stage.awaiting("shop").await;
            stage.pass_ms(100 * 3_600_000);
            let event = Event::Approval { number: release.number, event: ApprovalEvent::Expired { round: 1 } };
            stage.perform(&release.service, EffectKind::ExpireApproval, Outcome::event(event)).await;
        }
        LiveTwice => {
            stage.live("shop").await;
            stage.live("shop").await;
        }
        Moving => {
            stage.live("shop").await;
            let run = stage.pushed("shop").await;
            let steps = vec![CanaryStep { weight_percent: 10, hold_ms: 120_000 }];
            let release = stage.built(&run, Strategy::Canary { steps }).await;
            stage.tested(&release).await;
            stage.approved(&release).await;
            stage.rolling_out(&release).await;
            stage.in_force(&release.service).await;
        }
    }
    for scope in [SecretScope::Shared, SecretScope::Service { service: "shop".parse().unwrap() }] {
        let input = SecretInput { value: Some(Secret::new("the value of an old secret")), services: None };
        stage.app.secret_set(scope, "OLD".parse().unwrap(), input, Origin::server()).await.unwrap();
    }
    (stage, credential)
}

/// The request of an admin, or of whoever the route is for; who that is and by which way; and what must not be written.
async fn asked(
    stage: &Stage,
    credential: &Secret,
    (method, path): (&str, &str),
    sent: &Sent,
) -> (Request<Body>, (String, Channel), Vec<String>) {
    let admin = stage.caller(Role::Admin).await;
    let (key, cookie) = signed_in(stage, Role::Admin).await;
    let other = stage.app.session_begin(&admin.account, &SeenFrom::default(), None).await.unwrap();
    let token = stage.token(Role::Admin).await;
    let csrf = csrf_of(&stage.app, &key);
    let once = NewRunnerToken { label: "crew".into(), uses: 1, life_ms: None };
    let (registration, _) = stage.app.runner_token_create(&admin, once).await.unwrap();
    let own = if path.contains("runner-token") {
        stage.app.runner_tokens().unwrap().into_iter().next().map(|(id, _)| id)
    } else if path.contains("session") {
        let sessions = stage.app.sessions_of(&admin, Some(&key)).unwrap();
        sessions.into_iter().find(|session| !session.is_this).map(|session| session.id)
    } else {
        stage.app.tokens_of("admin").unwrap().into_iter().next().map(|(id, _)| id)
    };
    let mut path = path.replace("{own}", &own.unwrap());
    let mut actor = ("admin".to_owned(), Channel::Page);
    let mut secrets = vec![TYPED.to_owned(), key, other, token.clone(), csrf.clone(), "password of admin".into()];
    secrets.extend([credential, &registration].map(|secret| secret.expose().to_owned()));
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
    let body = match sent {
        Sent::Json(body) => {
            actor.1 = Channel::Api;
            request = request.header(header::CONTENT_TYPE, "application/json");
            if path != "/api/v1/login" {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            body.to_string()
        }
        Sent::Form(fields) => {
            let mut body = url::form_urlencoded::Serializer::new(String::new());
            body.extend_pairs(fields);
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            if path.starts_with("{link}") {
                let approval = stage.app.approval(&"shop/1".parse().unwrap()).unwrap();
                let link = stage.app.approval_url(&approval, TESTER);
                let link = link.split_once("example.com").unwrap().1.to_owned();
                let secret = link.rsplit('/').next().unwrap().to_owned();
                body.append_pair(CSRF_FIELD, &csrf_of(&stage.app, &secret));
                path = path.replace("{link}", &link);
                secrets.push(secret);
                actor = (TESTER.to_owned(), Channel::MailLink);
            } else {
                request = request.header(header::COOKIE, cookie).header(CSRF_HEADER, csrf);
            }
            body.finish()
        }
        Sent::Agent(body) => {
            let is_new = path == "/agents/v1/register";
            actor = (if is_new { "crew-2" } else { RUNNER }.to_owned(), Channel::Runner);
            request = request.header(PROTOCOL_HEADER, PROTOCOL_VERSION);
            if !is_new {
                request = request.header(header::AUTHORIZATION, format!("Bearer {}", credential.expose()));
            }
            secrets.extend(body["secret"].as_str().map(str::to_owned));
            body.to_string().replace("{registration}", registration.expose())
        }
        Sent::Nothing(_) => String::new(),
    };
    let mut request = request.uri(path).body(Body::from(body)).unwrap();
    let peer: SocketAddr = format!("{PLACE}:4711").parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    (request, actor, secrets)
}

fn since(stage: &Stage, seq: u64) -> Vec<Entry> {
    stage.app.store().journal_after(seq, 1_000).unwrap()
}

/// The cookie that an answer sets, which is a key too.
fn given(headers: &HeaderMap) -> Option<String> {
    let cookie = headers.get(header::SET_COOKIE)?.to_str().ok()?;
    let value = cookie.split(';').next()?.split_once('=')?.1;
    (value.len() > 20).then(|| value.to_owned())
}

#[tokio::test]
async fn every_route_that_changes_something_says_in_the_audit_log_who_by_which_way_and_from_where() {
    let table = routes(Arc::clone(&test_app().app)).table;
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for Endpoint { path, method, .. } in table.iter().filter(|endpoint| endpoint.method != "GET") {
        let name = format!("{method} {path}");
        let Some((path, ground, sent)) = case(&name) else {
            wrong.push(format!(
                "{name} has no line in server/src/http/tests/audit.rs: say how it is called, or why nothing is written"
            ));
            continue;
        };
        if let Sent::Nothing(reason) = &sent {
            assert!(!reason.is_empty());
            continue;
        }
        let (stage, credential) = prepared(ground).await;
        let (request, (actor, channel), mut secrets) = asked(&stage, &credential, (method, &path), &sent).await;
        let before = stage.app.audit_head().unwrap().seq;
        let answer = stage.send(request).await;
        // The store of these tests lies in memory, and there is no file to copy: but it was asked for.
        let good =
            answer.status.is_success() || answer.status == StatusCode::SEE_OTHER || name == "POST /api/v1/backup";
        if !good {
            wrong.push(format!("{name}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)));
            continue;
        }
        secrets.extend(given(&answer.headers));
        let entries = since(&stage, before);
        tried += 1;
        let by = |entry: &&Entry| entry.origin.actor == actor && entry.origin.channel == channel;
        let own: Vec<&Entry> = entries.iter().filter(by).collect();
        if !own.iter().any(|entry| entry.origin.place == PLACE && !entry.origin.proof.is_empty()) {
            wrong.push(format!("{name}: nothing by {actor}, {channel:?}, from {PLACE} in {entries:#?}"));
        }
        for entry in &entries {
            let text = entry.canonical();
            if let Some(secret) = secrets.iter().find(|secret| text.contains(secret.as_str())) {
                wrong.push(format!("{name}: {secret:?} is in {text}"));
            }
        }
        assert!(stage.app.audit_check(None).await.unwrap().result.is_ok());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried > 40, "only {tried} routes were tried");
}

async fn get(stage: &Stage, path: &str, role: Role) -> crate::testing::Answer {
    let token = stage.token(role).await;
    stage.call(Method::GET, path, Some(&token), None).await
}

#[tokio::test]
async fn who_is_no_operator_reads_what_is_about_services() {
    let stage = test_app();
    stage.awaiting("shop").await;
    let entries = async |path: &str, role| get(&stage, path, role).await.json()["items"].as_array().unwrap().clone();
    let all = entries("/api/v1/audit?limit=100", Role::Operator).await;
    assert!(all.iter().any(|entry| entry["word"] == "account_created"));
    let some = entries("/api/v1/audit?limit=100", Role::ReleaseManager).await;
    assert!(!some.is_empty() && some.iter().all(|entry| entry["service"] == "shop"));
    assert_eq!(get(&stage, "/api/v1/audit", Role::Tester).await.status, StatusCode::FORBIDDEN);
    let part = get(&stage, "/api/v1/audit/export", Role::ReleaseManager).await;
    assert!(!String::from_utf8_lossy(&part.body).contains("account_created"));
    assert!(String::from_utf8_lossy(&part.body).starts_with("{\"windlass_audit_export\":1,\"is_whole\":false"));
    for bad in ["channel=x", "from=yesterday", "until=2026-13-01", "service=No%20Name", "nothing=1", "limit=x"] {
        let status = get(&stage, &format!("/api/v1/audit?{bad}"), Role::Operator).await.status;
        assert!(status == StatusCode::BAD_REQUEST || status == StatusCode::NOT_FOUND, "{bad}: {status}");
    }
    for bad in ["format=xml", "limit=3"] {
        let status = get(&stage, &format!("/api/v1/audit/export?{bad}"), Role::Operator).await.status;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn the_log_is_exported_whole_in_both_formats_and_verified() {
    let stage = test_app();
    stage.live("shop").await;
    let mark = stage.app.audit_head().unwrap().mark();
    stage.token(Role::Operator).await;
    for (format, kind) in [("ndjson", "application/x-ndjson"), ("csv", "text/csv; charset=utf-8")] {
        let answer = get(&stage, &format!("/api/v1/audit/export?format={format}"), Role::Operator).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], kind);
        let walked = crate::app::audit::file::verify(&answer.body[..], Some(mark.clone())).unwrap();
        assert!(walked.entries > mark.seq, "{format}: the token is in it too");
    }
    let head = get(&stage, "/api/v1/audit/head", Role::ReleaseManager).await.json();
    assert_eq!(head["mark"], stage.app.audit_head().unwrap().mark().to_string());
}

#[tokio::test]
async fn the_page_shows_filters_and_pages_in_both_languages_without_a_script() {
    let stage = test_app();
    stage.live("shop").await;
    let page = async |path: &str, language: &str| {
        let (_, cookie) = signed_in(&stage, Role::Operator).await;
        let request = Request::get(path).header(header::COOKIE, cookie).header(header::ACCEPT_LANGUAGE, language);
        let answer = stage.send(request.header(header::ACCEPT, "text/html").body(Body::empty()).unwrap()).await;
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    };
    let (status, en) = page("/audit", "en").await;
    assert_eq!(status, StatusCode::OK);
    assert!(en.contains("<h1>Audit</h1>") && en.contains("release approved") && en.contains("session began"));
    let (_, zh) = page("/audit", "zh-CN").await;
    assert!(zh.contains("<h1>审计</h1>"));
    let (_, filtered) = page("/audit?who=runner-1&what=&channel=runner&from=&until=", "en").await;
    assert!(filtered.contains("run leased") && !filtered.contains("session began"), "{filtered}");
    assert!(filtered.contains("href=\"/api/v1/audit/export?who=runner-1&#38;channel=runner&#38;format=csv\""));
    let (status, bad) = page("/audit?from=yesterday&who=%3Cscript%3Ezz", "en").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(bad.contains("from is a day or a moment") && !bad.contains("<script>zz"));
    // Entries beyond the first page.
    for n in 0..60 {
        stage.caller(Role::Admin).await;
        let caller = stage.caller(Role::Admin).await;
        stage.app.token_create(&caller, format!("token {n}"), Role::Developer, true, None).await.unwrap();
    }
    let (_, first) = page("/audit?what=token", "en").await;
    let older = first.split("rel=\"next\" href=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let (_, second) = page(&older.replace("&#38;", "&"), "en").await;
    assert!(first.contains("token 59") && !first.contains(": token 9<") && second.contains(": token 9<"), "{second}");
    assert!(second.contains("href=\"/audit?what=token\""), "back to the newest");
}
