//! The API through the whole router, on an application in memory.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use pipelines::{
    effect::EffectKind,
    hold::Proposal,
    ids::{Digest, RunId, RunnerName},
    plan::{CanaryStep, Strategy},
    protocol::{Report, RunnerRequest, ServerReply},
    rollout::RolloutEvent,
    run::RunEvent,
    train::Event,
};
use serde_json::{Value, json};

use crate::{
    app::{Role, trains::Outcome},
    http::api::model::{self, Answer, BoardRow, List},
    testing::{Stage, TESTER, test_app, test_app_with},
};

const GET: Method = Method::GET;
const POST: Method = Method::POST;

/// Calls, and wants this status.
async fn want(stage: &Stage, status: u16, call: (Method, &str), token: Option<&str>, body: Option<Value>) -> Value {
    let (method, path) = call;
    let answer = stage.call(method.clone(), path, token, body).await;
    assert_eq!(answer.status.as_u16(), status, "{method} {path}: {:?}", answer.body);
    answer.json()
}

#[tokio::test]
async fn a_program_signs_in_and_its_token_says_who_it_is() {
    let stage = test_app();
    stage.caller(Role::Tester).await;
    let login = json!({"name": "tester", "password": "password of tester"});
    let given = want(&stage, 200, (POST, "/api/v1/login"), None, Some(login)).await;
    assert_eq!((&given["apiVersion"], &given["kind"]), (&json!("windlass/v1"), &json!("LoginToken")));
    let token = given["token"].as_str().unwrap();
    let who = want(&stage, 200, (GET, "/api/v1/whoami"), Some(token), None).await;
    assert_eq!((&who["account"], &who["role"]), (&json!("tester"), &json!("tester")));
    stage.pass_ms(31 * 86_400_000);
    let problem = want(&stage, 401, (GET, "/api/v1/whoami"), Some(token), None).await;
    assert_eq!((&problem["type"], &problem["next"]), (&json!("bad-token"), &json!("windlass login")));
    assert!(problem["request_id"].is_string());
}

#[tokio::test]
async fn passwords_are_not_guessed_and_names_not_found_out() {
    let stage = test_app_with(|config| config.bounds.sign_in_tries_max = 3);
    stage.caller(Role::Tester).await;
    let wrong = |name: &str| json!({"name": name, "password": "a wrong password"});
    let known = want(&stage, 401, (POST, "/api/v1/login"), None, Some(wrong("tester"))).await;
    let unknown = want(&stage, 401, (POST, "/api/v1/login"), None, Some(wrong("nobody"))).await;
    assert_eq!(known["detail"], unknown["detail"]);
    for _ in 0..2 {
        want(&stage, 401, (POST, "/api/v1/login"), None, Some(wrong("tester"))).await;
    }
    let right = json!({"name": "tester", "password": "password of tester"});
    let refused = stage.call(POST, "/api/v1/login", None, Some(right.clone())).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "300");
    stage.pass_ms(300_000);
    want(&stage, 200, (POST, "/api/v1/login"), None, Some(right)).await;
}

#[tokio::test]
async fn a_service_is_registered_changed_and_never_shows_its_secrets() {
    let stage = test_app();
    let token = stage.token(Role::Operator).await;
    let token = Some(token.as_str());
    let secret = "s3cret-of-the-repository";
    let new = json!({"name": "shop", "repository_url": "https://git.example.com/shop.git",
        "credential": {"kind": "token", "user": "ci", "token": secret}, "hook_secret": secret});
    let made = stage.call(POST, "/api/v1/services", token, Some(new.clone())).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert!(!String::from_utf8_lossy(&made.body).contains(secret));
    let made: Answer<model::Service> = serde_json::from_slice(&made.body).unwrap();
    assert_eq!(made.it.hook_url, "https://windlass.example.com/hooks/shop");
    assert!(made.it.credential_set_at_ms.is_some() && made.it.hook_secret_set_at_ms.is_some());
    want(&stage, 409, (POST, "/api/v1/services"), token, Some(new)).await;
    let path = "/api/v1/services/shop";
    let changed = want(&stage, 200, (Method::PATCH, path), token, Some(json!({"release_branch": "stable"}))).await;
    assert_eq!((&changed["release_branch"], &changed["credential"]), (&json!("stable"), &json!("token")));
    let typo = want(&stage, 422, (Method::PATCH, path), token, Some(json!({"hook_secert": "x"}))).await;
    assert!(typo["detail"].as_str().unwrap().contains("hook_secert"));
    want(&stage, 422, (Method::PATCH, path), token, Some(json!({"name": "other"}))).await;
    let odd = json!({"name": "../shop", "repository_url": "https://git.example.com/shop.git"});
    want(&stage, 422, (POST, "/api/v1/services"), token, Some(odd)).await;
    want(&stage, 404, (GET, "/api/v1/services/..%2Fshop"), token, None).await;
    want(&stage, 202, (POST, "/api/v1/services/shop/poll"), token, None).await;
    let all = want(&stage, 200, (GET, "/api/v1/services"), token, None).await;
    assert_eq!((&all["kind"], &all["items"][0]["name"]), (&json!("ServiceList"), &json!("shop")));
}

#[tokio::test]
async fn the_board_follows_a_push_until_it_is_live_and_back() {
    let stage = test_app();
    let admin = stage.token(Role::Admin).await;
    let token = Some(admin.as_str());
    let row = async || -> BoardRow {
        let answer = stage.call(GET, "/api/v1/services/shop/status", token, None).await;
        serde_json::from_slice::<Answer<BoardRow>>(&answer.body).unwrap().it
    };
    let run = stage.pushed("shop").await;
    let queued = row().await;
    assert_eq!((queued.subject.as_str(), queued.why.word.as_str()), ("run", "run_queued"));
    assert_eq!(queued.run.unwrap().queue.unwrap().position, 1);
    let release = stage.built(&run, Strategy::Rolling).await;
    assert_eq!(row().await.why.word, "deploying_to_test");
    stage.tested(&release).await;
    let waiting = row().await;
    assert_eq!((waiting.group.as_str(), waiting.why.word.as_str()), ("needs_you", "awaiting_decision"));
    assert_eq!((waiting.why.person.kind.as_str(), waiting.why.person.names), ("testers", vec![TESTER.to_owned()]));
    let states: Vec<&str> = waiting.stations.iter().map(|station| station.state.as_str()).collect();
    assert_eq!(states, ["done", "done", "done", "done", "waiting", "to_come", "to_come", "to_come"]);

    let digest = waiting.release.unwrap().digest;
    let at = format!("/api/v1/services/shop/releases/{}", release.number);
    let other = json!({"digest": format!("sha256:{}", "0".repeat(64))});
    want(&stage, 409, (POST, &format!("{at}/approve")), token, Some(other)).await;
    want(&stage, 422, (POST, &format!("{at}/reject")), token, Some(json!({"digest": digest}))).await;
    want(&stage, 200, (POST, &format!("{at}/claim")), token, None).await;
    assert_eq!(row().await.why.word, "claimed");
    let approved = want(&stage, 200, (POST, &format!("{at}/approve")), token, Some(json!({"digest": digest}))).await;
    assert_eq!((&approved["state"], &approved["approved_by"]), (&json!("promoting"), &json!("admin")));
    want(&stage, 410, (POST, &format!("{at}/approve")), token, Some(json!({"digest": digest}))).await;
    stage.rolling_out(&release).await;
    let rollout = want(&stage, 200, (GET, "/api/v1/services/shop/rollouts/1"), token, None).await;
    assert_eq!((&rollout["state"], &rollout["release"]), (&json!("shifting"), &json!(release.number)));
    stage.in_force(&release.service).await;
    let live = row().await;
    assert_eq!((live.why.word.as_str(), live.group.as_str()), ("live", "idle"));
    assert_eq!(live.live.unwrap().number, release.number);
}

#[tokio::test]
async fn a_rollout_is_steered_and_an_older_release_comes_back() {
    let stage = test_app();
    let first = stage.live("shop").await;
    let run = stage.pushed("shop").await;
    let canary = Strategy::Canary { steps: vec![CanaryStep { weight_percent: 10, hold_ms: 60_000 }] };
    let second = stage.built(&run, canary).await;
    stage.tested(&second).await;
    stage.approved(&second).await;
    stage.rolling_out(&second).await;
    stage.in_force(&second.service).await;
    let manager = stage.token(Role::ReleaseManager).await;
    let token = Some(manager.as_str());
    let act = "/api/v1/services/shop/rollouts/2/act";
    let paused = want(&stage, 200, (POST, act), token, Some(json!({"verb": "pause"}))).await;
    assert_eq!((&paused["state"], &paused["paused_by"]), (&json!("paused"), &json!("release_manager")));
    assert_eq!((&paused["weight_percent"], &paused["why"]["word"]), (&json!(10), &json!("paused")));
    want(&stage, 200, (POST, act), token, Some(json!({"verb": "resume"}))).await;
    let aborted = json!({"verb": "abort", "reason": "the basket is empty"});
    let aborted = want(&stage, 200, (POST, act), token, Some(aborted)).await;
    assert_eq!(aborted["reason"], "aborted by release_manager: the basket is empty");
    want(&stage, 409, (POST, act), token, Some(json!({"verb": "promote"}))).await;
    want(&stage, 422, (POST, act), token, Some(json!({"verb": "explode"}))).await;
    stage.in_force(&second.service).await;
    stage.rollout(&second.service, EffectKind::DrainRevision, RolloutEvent::Drained).await;
    let back = async |number: u32, status: u16| {
        let path = format!("/api/v1/services/shop/releases/{number}/rollback");
        want(&stage, status, (POST, &path), token, Some(json!({"reason": "it was better"}))).await
    };
    assert!(back(first.number, 409).await["detail"].is_string(), "it has the traffic already");
    assert!(back(second.number, 409).await["detail"].is_string(), "it was never live");
    let list = stage.call(GET, "/api/v1/services/shop/rollouts?limit=1", token, None).await;
    let list: Answer<List<model::Rollout>> = serde_json::from_slice(&list.body).unwrap();
    assert_eq!((list.it.items[0].number, list.it.next_before), (2, Some(2)));
    let list = want(&stage, 200, (GET, "/api/v1/services/shop/rollouts?before=2"), token, None).await;
    assert_eq!(list["items"][0]["number"], 1);
}

#[tokio::test]
async fn who_is_named_as_a_tester_decides_and_other_developers_do_not() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    let developer = stage.token(Role::Developer).await;
    let at = format!("/api/v1/services/shop/releases/{}", release.number);
    let digest = stage.app.release(&release).unwrap().digest.to_string();
    let decide = json!({"digest": digest});
    want(&stage, 403, (POST, &format!("{at}/approve")), Some(&developer), Some(decide.clone())).await;
    want(&stage, 403, (POST, &format!("{at}/claim")), Some(&developer), None).await;
    let origin = pipelines::journal::Origin::server();
    stage.app.account_update("developer", None, Some(TESTER.into()), None, None, origin).await.unwrap();
    want(&stage, 200, (POST, &format!("{at}/approve")), Some(&developer), Some(decide)).await;
}

#[tokio::test]
async fn runs_are_listed_started_stopped_and_run_again() {
    let stage = test_app();
    let developer = stage.token(Role::Developer).await;
    let token = Some(developer.as_str());
    let first = stage.pushed("shop").await;
    let at = format!("/api/v1/services/shop/runs/{}", first.number);
    let stopped =
        want(&stage, 200, (POST, &format!("{at}/cancel")), token, Some(json!({"reason": "wrong branch"}))).await;
    assert_eq!((&stopped["state"], &stopped["reason"]), (&json!("cancelled"), &json!("wrong branch")));
    assert!(stopped["why"]["text"].as_str().unwrap().starts_with("developer stopped its run"));
    let again = want(&stage, 201, (POST, &format!("{at}/rerun")), token, None).await;
    assert_eq!((&again["number"], &again["rerun_of"]), (&json!(2), &json!(1)));
    // Who asks may say in which trace they do.
    let named = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (path, body) in [(format!("{at}/rerun"), "null"), ("/api/v1/services/shop/runs".to_owned(), "{}")] {
        let request = Request::post(path).header("authorization", format!("Bearer {developer}"));
        let request = request.header("content-type", "application/json").header("traceparent", named);
        let made = stage.send(request.body(Body::from(body)).unwrap()).await.json();
        let id = RunId::new(first.service.clone(), u32::try_from(made["number"].as_u64().unwrap()).unwrap());
        let trigger = stage.app.run(&id).unwrap().trigger;
        assert_eq!(trigger.traceparent.as_ref().map(|one| one.as_str()), Some(named), "{made}");
        stage.app.run_cancel(&id, String::new(), pipelines::journal::Origin::server()).await.unwrap();
    }
    let manual = want(&stage, 201, (POST, "/api/v1/services/shop/runs"), token, Some(json!({}))).await;
    assert_eq!((&manual["trigger"], &manual["requested_by"]), (&json!("manual"), &json!("developer")));
    want(&stage, 422, (POST, "/api/v1/services/shop/runs"), token, Some(json!({"git_ref": "nowhere"}))).await;
    let list = want(&stage, 200, (GET, "/api/v1/services/shop/runs"), token, None).await;
    let numbers: Vec<u64> = list["items"].as_array().unwrap().iter().map(|it| it["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    for odd in ["007", "0", "99", "x", "-1", "4294967296"] {
        want(&stage, 404, (GET, &format!("/api/v1/services/shop/runs/{odd}")), token, None).await;
    }
}

#[tokio::test]
async fn accounts_tokens_and_the_audit_log() {
    let stage = test_app();
    let admin = stage.token(Role::Admin).await;
    let token = Some(admin.as_str());
    let new = json!({"name": "wei", "role": "developer", "password": "a long password"});
    want(&stage, 201, (POST, "/api/v1/accounts"), token, Some(new)).await;
    let change = json!({"role": "tester", "disabled": true});
    let changed = want(&stage, 200, (Method::PATCH, "/api/v1/accounts/wei"), token, Some(change)).await;
    assert_eq!((&changed["role"], &changed["disabled"]), (&json!("tester"), &json!(true)));
    let last = json!({"disabled": true});
    want(&stage, 422, (Method::PATCH, "/api/v1/accounts/admin"), token, Some(last)).await;
    let reader = json!({"label": "dashboard", "scope": "developer", "read_only": true});
    let reader = want(&stage, 201, (POST, "/api/v1/tokens"), token, Some(reader)).await;
    let reader = reader["token"].as_str().unwrap();
    want(&stage, 200, (GET, "/api/v1/board"), Some(reader), None).await;
    want(&stage, 403, (POST, "/api/v1/tokens"), Some(reader), Some(json!({"label": "more"}))).await;
    want(&stage, 403, (GET, "/api/v1/accounts"), Some(reader), None).await;
    let list = want(&stage, 200, (GET, "/api/v1/tokens"), token, None).await;
    let is_reader = |it: &&Value| it["label"] == "dashboard";
    let id = list["items"].as_array().unwrap().iter().find(is_reader).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(!list.to_string().contains(reader));
    want(&stage, 200, (Method::DELETE, &format!("/api/v1/tokens/{id}")), token, None).await;
    want(&stage, 401, (GET, "/api/v1/board"), Some(reader), None).await;
    let journal = want(&stage, 200, (GET, "/api/v1/audit?limit=1"), token, None).await;
    assert_eq!(
        (&journal["items"][0]["word"], &journal["items"][0]["actor"]),
        (&json!("token_deleted"), &json!("admin"))
    );
    assert!(!want(&stage, 200, (GET, "/api/v1/audit?limit=100"), token, None).await.to_string().contains(reader));
}

#[tokio::test]
async fn a_log_is_read_in_windows_searched_and_streamed_to_its_end() {
    let stage = test_app();
    let run = stage.pushed("shop").await;
    stage.built(&run, Strategy::Rolling).await;
    let developer = stage.token(Role::Developer).await;
    let token = Some(developer.as_str());
    let at = format!("/api/v1/services/shop/runs/{}", run.number);
    let window = want(&stage, 200, (GET, &format!("{at}/steps/test/log?from=1&limit=2")), token, None).await;
    assert_eq!((&window["next_from"], &window["length"], &window["finished"]), (&json!(3), &json!(4), &json!(true)));
    assert_eq!((&window["lines"][0]["number"], &window["lines"][0]["text"]), (&json!(1), &json!("added 3 packages")));
    let found = want(&stage, 200, (GET, &format!("{at}/log/search?text=npm")), token, None).await;
    let numbers: Vec<&Value> = found["hits"].as_array().unwrap().iter().map(|hit| &hit["number"]).collect();
    assert_eq!(numbers, [&json!(0), &json!(2)]);
    assert_eq!((&found["hits"][0]["step"], &found["complete"]), (&json!("test"), &json!(true)));
    want(&stage, 422, (GET, &format!("{at}/log/search")), token, None).await;
    let stream = stage.call(GET, &format!("{at}/steps/test/log/stream?from=2"), token, None).await;
    let text = String::from_utf8(stream.body.to_vec()).unwrap();
    let names: Vec<&str> = text.lines().filter(|line| line.starts_with("event") || line.starts_with("id")).collect();
    assert_eq!(names, ["event: line", "id: 2", "event: line", "id: 3", "event: end"]);
    let resumed = stage.call(GET, &format!("{at}/steps/test/log/stream?last_event_id=2"), token, None).await;
    assert_eq!(String::from_utf8_lossy(&resumed.body).matches("event: line").count(), 1);
    let nothing = stage.call(GET, &format!("{at}/steps/push/log/stream"), token, None).await;
    assert_eq!(String::from_utf8_lossy(&nothing.body).matches("event:").count(), 1);
    want(&stage, 404, (GET, "/api/v1/services/shop/runs/9/steps/test/log"), token, None).await;
    for path in ["steps/tset/log", "steps/tset/log/stream", "log/search?text=npm&step=tset"] {
        let unknown = want(&stage, 404, (GET, &format!("{at}/{path}")), token, None).await;
        assert_eq!(unknown["detail"], "run shop/1 has no step tset");
        assert_eq!(unknown["next"], "its steps are checkout, test, image, push");
    }
}

#[tokio::test]
async fn lines_come_as_they_are_written_and_none_is_lost() {
    use futures_util::StreamExt;
    use tower::ServiceExt;
    let stage = test_app();
    let run = stage.pushed("shop").await;
    let token = stage.token(Role::Developer).await;
    let path = format!("/api/v1/services/shop/runs/{}/steps/test/log/stream", run.number);
    let request = axum::http::Request::get(path).header("authorization", format!("Bearer {token}"));
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = stage.router().oneshot(request).await.unwrap();
    let mut body = answer.into_body().into_data_stream();
    stage.built(&run, Strategy::Rolling).await;
    let mut text = String::new();
    while let Some(piece) = tokio::time::timeout(std::time::Duration::from_secs(10), body.next()).await.unwrap() {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["0", "1", "2", "3"]);
    assert!(text.ends_with("event: end\ndata: {}\n\n"));
}

#[tokio::test]
async fn the_server_says_how_it_is_and_what_it_still_has_to_do() {
    let stage = test_app();
    stage.pushed("shop").await;
    let developer = stage.token(Role::Developer).await;
    let token = Some(developer.as_str());
    let health = want(&stage, 200, (GET, "/api/v1/health"), token, None).await;
    let names: Vec<&Value> = health["findings"].as_array().unwrap().iter().map(|finding| &finding["name"]).collect();
    assert_eq!(names, [&json!("store"), &json!("disk")]);
    let queue = want(&stage, 200, (GET, "/api/v1/queue"), token, None).await;
    let effects: Vec<&Value> = queue["items"].as_array().unwrap().iter().map(|item| &item["effect"]).collect();
    assert_eq!(effects, [&json!("execute-run"), &json!("poll-repository")]);
    assert_eq!(want(&stage, 200, (GET, "/api/v1/server"), token, None).await["kind"], "Server");
    for open in ["/healthz", "/readyz", "/schema/windlass.json", "/api/openapi.json"] {
        assert_eq!(stage.call(GET, open, None, None).await.status, StatusCode::OK, "{open}");
    }
}

#[tokio::test]
async fn a_pull_request_of_a_fork_runs_by_the_word_of_a_release_manager_without_rights_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "registry password").unwrap();
    let stage = test_app_with(|config| {
        config.registries.test.user = Some("robot".into());
        config.registries.test.password_file = Some(password);
    });
    let live = stage.live("shop").await;
    let run = stage.forked("shop", 7).await;
    let at = format!("/api/v1/services/shop/runs/{}", run.number);
    let developer = stage.token(Role::Developer).await;
    let manager = stage.token(Role::ReleaseManager).await;
    for verb in ["allow", "decline"] {
        want(&stage, 403, (POST, &format!("{at}/{verb}")), Some(&developer), Some(json!({}))).await;
        want(&stage, 401, (POST, &format!("{at}/{verb}")), None, Some(json!({}))).await;
    }
    let proposal = Proposal { file_changed: true, diff: vec!["+x".into()], ..Proposal::default() };
    let event = RunEvent::Inspected { proposal: Box::new(proposal) };
    let event = Event::Run { number: run.number, event };
    stage.perform(&run.service, EffectKind::InspectRun, Outcome::event(event)).await;
    let held = want(&stage, 200, (GET, &at), Some(&developer), None).await;
    assert_eq!((&held["state"], &held["finished"], &held["from_fork"]), (&json!("held"), &json!(false), &json!(true)));
    assert_eq!(held["proposal"]["diff"], json!(["+x"]));
    assert!(held["comparison_url"].as_str().unwrap().starts_with("https://git.example.com/shop/compare/main..."));
    let allowed = want(&stage, 200, (POST, &format!("{at}/allow")), Some(&manager), None).await;
    assert_eq!((&allowed["state"], &allowed["allowed_by"]), (&json!("queued"), &json!("release_manager")));
    // Pressed twice.
    want(&stage, 200, (POST, &format!("{at}/allow")), Some(&manager), None).await;

    let runner: RunnerName = "runner-1".parse().unwrap();
    let ask = |request| stage.app.agent_request(&runner, request);
    let ServerReply::Job(job) = stage.asked_for_work(&runner, Vec::new()).await else { panic!("no work") };
    assert!(job.run == run && job.registry.login.is_none() && !job.trigger.may_push());
    // The image of the service was built of the same inputs: a stranger's run gets no image, and leaves none.
    let inputs = Digest::of(b"inputs of shop/1");
    let reuse = ask(RunnerRequest::Inputs { run: run.clone(), attempt: 1, inputs: inputs.clone() }).await.unwrap();
    assert!(matches!(reuse, ServerReply::Build));
    let digest = stage.app.release(&live).unwrap().digest;
    let pushed = Report::Succeeded { digest, tag: "t".into(), reused_from: None, inputs };
    let refused = ask(RunnerRequest::Report { run: run.clone(), attempt: 1, report: pushed }).await.unwrap();
    assert!(matches!(refused, ServerReply::NotYours));
    ask(RunnerRequest::Report { run: run.clone(), attempt: 1, report: Report::Passed }).await.unwrap();
    let passed = want(&stage, 200, (GET, &at), Some(&developer), None).await;
    assert_eq!(
        (&passed["state"], &passed["digest"], &passed["release"]),
        (&json!("passed"), &json!(null), &json!(null))
    );
}

#[tokio::test]
async fn a_held_run_is_declined_by_a_person_or_by_time_and_asked_about_again() {
    let stage = test_app();
    stage.pushed("shop").await;
    let manager = stage.token(Role::ReleaseManager).await;
    let run = stage.forked("shop", 7).await;
    let at = format!("/api/v1/services/shop/runs/{}", run.number);
    let declined =
        want(&stage, 200, (POST, &format!("{at}/decline")), Some(&manager), Some(json!({"reason": "a miner"}))).await;
    assert_eq!(declined["state"], "declined");
    assert_eq!(declined["reason"], "release_manager declined it: a miner");
    want(&stage, 409, (POST, &format!("{at}/allow")), Some(&manager), None).await;
    let again = want(&stage, 201, (POST, &format!("{at}/rerun")), Some(&manager), None).await;
    assert_eq!((&again["state"], &again["number"]), (&json!("held"), &json!(run.number + 1)));
    // The pull request moves while it waits: the newer commit is the one that is asked about.
    let newer = stage.forked("shop", 7).await;
    let before = format!("/api/v1/services/shop/runs/{}", run.number + 1);
    assert_eq!(want(&stage, 200, (GET, &before), Some(&manager), None).await["state"], "declined");
    assert_eq!(stage.app.train(&newer.service).unwrap().held, [newer.number]);
    assert!(stage.pending(&newer.service, EffectKind::ExpireHold).is_some());
    stage.app.run_cancel(&newer, "enough".into(), pipelines::journal::Origin::server()).await.unwrap();
    assert!(stage.pending(&newer.service, EffectKind::ExpireHold).is_none());
}
