//! Who is let in as a runner, what it is given, and what of it is heard when it has lost its run.

use std::{io::Write, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use pipelines::{
    effect::EffectKind,
    ids::{RunId, RunnerName},
    labels::Labels,
    protocol::{
        Blame, Job, LogLine, LogStream, PROTOCOL_HEADER, PROTOCOL_VERSION, Report, RunnerAbout, RunnerRequest, Secret,
        ServerReply, credential_of,
    },
    run::RunState,
    time::UnixMs,
};
use serde_json::{Value, json};

use crate::{
    app::{Role, RunnerState, runners::NewRunnerToken},
    random,
    testing::{Answer, Stage, test_app_with},
};

fn stage() -> Stage {
    test_app_with(|config| {
        config.runner.parallel_runs = 0;
        config.bounds.lease_wait_ms = 50;
    })
}

fn request(verb: &str, credential: Option<&Secret>, body: Vec<u8>, packed: bool, protocol: u32) -> Request<Body> {
    let mut request = Request::post(format!("/agents/v1/{verb}")).header(PROTOCOL_HEADER, protocol);
    if let Some(credential) = credential {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", credential.expose()));
    }
    if packed {
        request = request.header(header::CONTENT_ENCODING, "gzip");
    }
    request.body(Body::from(body)).unwrap()
}

async fn send(stage: &Stage, verb: &str, credential: Option<&Secret>, message: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(message).unwrap();
    stage.send(request(verb, credential, body, false, PROTOCOL_VERSION)).await
}

fn about(labels: &str) -> RunnerAbout {
    RunnerAbout { version: "0.1.0".into(), labels: labels.parse().unwrap(), capacity: 1 }
}

async fn token(stage: &Stage, uses: u32) -> Secret {
    let caller = stage.caller(Role::Operator).await;
    let new = NewRunnerToken { label: "test".into(), uses, life_ms: None };
    stage.app.runner_token_create(&caller, new).await.unwrap().0
}

fn registration(token: &Secret, name: &str, secret: &str) -> Value {
    json!({ "token": token.expose(), "name": name, "secret": secret, "about": about("") })
}

/// A registered runner.
struct Machine<'a> {
    stage: &'a Stage,
    name: RunnerName,
    credential: Secret,
    about: RunnerAbout,
}

impl<'a> Machine<'a> {
    async fn new(stage: &'a Stage, name: &str, labels: &str) -> Self {
        let (token, secret) = (token(stage, 1).await, random::text(random::KEY_BYTES));
        let answer = send(stage, "register", None, &registration(&token, name, &secret)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let name: RunnerName = name.parse().unwrap();
        let credential = credential_of(&name, &Secret::new(secret));
        Self { stage, name, credential, about: about(labels) }
    }

    async fn say(&self, verb: &str, message: &RunnerRequest) -> Result<ServerReply, StatusCode> {
        let answer = send(self.stage, verb, Some(&self.credential), message).await;
        if answer.status == StatusCode::OK {
            Ok(serde_json::from_slice(&answer.body).unwrap())
        } else {
            Err(answer.status)
        }
    }

    async fn lease(&self, busy_with: &[&RunId]) -> Option<Job> {
        let busy_with = busy_with.iter().map(|run| (*run).clone()).collect();
        let lease = RunnerRequest::Lease { protocol: PROTOCOL_VERSION, about: self.about.clone(), busy_with };
        match self.say("lease", &lease).await.unwrap() {
            ServerReply::Job(job) => Some(*job),
            ServerReply::NoJob => None,
            other => panic!("{other:?}"),
        }
    }

    async fn report(&self, run: &RunId, attempt: u32, report: Report) -> ServerReply {
        self.say("call", &RunnerRequest::Report { run: run.clone(), attempt, report }).await.unwrap()
    }

    async fn log(&self, run: &RunId, attempt: u32, text: &str) -> ServerReply {
        let line = LogLine { at: UnixMs(1), stream: LogStream::Stdout, text: text.into() };
        let (run, step) = (run.clone(), "test".to_owned());
        let log = RunnerRequest::Log { run, attempt, step, first_line: 0, lines: vec![line] };
        self.say("call", &log).await.unwrap()
    }
}

fn failed() -> Report {
    Report::Failed { blame: Blame::Code, reason: "red".into() }
}

/// The time is over within which something of the run should have been heard.
async fn time_is_over(stage: &Stage, run: &RunId) {
    let pending = stage.pending(&run.service, EffectKind::ExpireLease).expect("a watch");
    let pipelines::effect::Effect::ExpireLease { runner, attempt, .. } = &pending.effect else { panic!("{pending:?}") };
    let outcome = stage.app.lease_outcome(run, runner, *attempt);
    stage.perform(&run.service, EffectKind::ExpireLease, outcome).await;
}

#[tokio::test]
async fn a_token_lets_in_as_many_runners_as_it_says_for_as_long_as_it_says() {
    let stage = stage();
    let once = token(&stage, 1).await;
    let secret = random::text(random::KEY_BYTES);
    let first = registration(&once, "box-1", &secret);
    for what in ["first", "a repeat after a lost answer"] {
        assert_eq!(send(&stage, "register", None, &first).await.status, StatusCode::OK, "{what}");
    }
    let other = random::text(random::KEY_BYTES);
    let refused = send(&stage, "register", None, &registration(&once, "box-2", &other)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "it was used: {refused:?}");
    let forged = Secret::new("wlreg_forged");
    let refused = send(&stage, "register", None, &registration(&forged, "box-2", &other)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    let twice = token(&stage, 2).await;
    let taken = send(&stage, "register", None, &registration(&twice, "box-1", &other)).await;
    assert_eq!(taken.status, StatusCode::CONFLICT, "the name is taken");
    for (name, good) in [("box-2", true), ("box-3", true), ("box-4", false)] {
        let secret = random::text(random::KEY_BYTES);
        let answer = send(&stage, "register", None, &registration(&twice, name, &secret)).await;
        assert_eq!(answer.status == StatusCode::OK, good, "{name}");
    }
    let late = token(&stage, 1).await;
    stage.pass_ms(stage.app.config.bounds.runner_token_life_ms);
    let refused = send(&stage, "register", None, &registration(&late, "box-5", &other)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "its time is over");
    assert!(stage.app.runner_tokens().unwrap().is_empty());
    let weak = send(&stage, "register", None, &registration(&late, "box-5", "short")).await;
    assert_eq!(weak.status, StatusCode::UNPROCESSABLE_ENTITY);
    for (key, value) in stage.dump() {
        let text = String::from_utf8_lossy(&value);
        assert!(!text.contains(&secret) && !text.contains(once.expose()), "{key} holds what opens something");
    }
}

#[tokio::test]
async fn guessing_tokens_is_slowed_down() {
    let stage = test_app_with(|config| config.bounds.wrong_proofs_max = 5);
    let guess = registration(&Secret::new("wlreg_guess"), "box-1", &random::text(random::KEY_BYTES));
    for _ in 0..stage.app.config.bounds.wrong_proofs_max {
        assert_eq!(send(&stage, "register", None, &guess).await.status, StatusCode::FORBIDDEN);
    }
    let refused = send(&stage, "register", None, &guess).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn only_a_runner_that_is_known_and_speaks_our_version_is_heard() {
    let stage = stage();
    let runner = Machine::new(&stage, "box-1", "").await;
    let ask = |credential: Option<Secret>, protocol| {
        let message = RunnerRequest::Heartbeat { run: "shop/1".parse().unwrap(), attempt: 1 };
        let body = serde_json::to_vec(&message).unwrap();
        stage.send(request("call", credential.as_ref(), body, false, protocol))
    };
    let own = || Some(runner.credential.clone());
    assert_eq!(ask(own(), PROTOCOL_VERSION).await.status, StatusCode::OK);
    let secret = Secret::new(random::text(random::KEY_BYTES));
    let forged = credential_of(&runner.name, &secret);
    let person = Secret::new(stage.token(Role::Admin).await);
    for credential in [None, Some(forged), Some(person), Some(Secret::new("wlr_"))] {
        let answer = ask(credential, PROTOCOL_VERSION).await;
        assert_eq!((answer.status, answer.json()["type"].as_str()), (StatusCode::UNAUTHORIZED, Some("runner-unknown")));
    }
    let page = stage.call(axum::http::Method::GET, "/api/v1/services", Some(runner.credential.expose()), None).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED, "a runner is no person");

    for (protocol, advice) in [(1, "upgrade windlass-runner"), (9, "upgrade the server")] {
        let answer = ask(own(), protocol).await;
        assert_eq!(answer.status, StatusCode::UPGRADE_REQUIRED);
        assert!(answer.json()["detail"].as_str().unwrap().contains(advice), "{answer:?}");
    }
    let rotated = Secret::new(random::text(random::KEY_BYTES));
    let answer = send(&stage, "rotate", Some(&runner.credential), &json!({ "secret": rotated.expose() })).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(ask(own(), PROTOCOL_VERSION).await.status, StatusCode::UNAUTHORIZED, "the secret before");
    let now = credential_of(&runner.name, &rotated);
    assert_eq!(ask(Some(now.clone()), PROTOCOL_VERSION).await.status, StatusCode::OK);
    let origin = stage.caller(Role::Operator).await.origin();
    stage.app.runner_remove(&runner.name, origin).await.unwrap();
    assert_eq!(ask(Some(now), PROTOCOL_VERSION).await.status, StatusCode::UNAUTHORIZED, "it was removed");
}

#[tokio::test]
async fn a_message_is_bounded_packed_and_unpacked() {
    let stage = test_app_with(|config| config.bounds.runner_message_bytes_max = 10_000);
    let runner = Machine::new(&stage, "box-1", "").await;
    let pack = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let good = serde_json::to_vec(&RunnerRequest::Heartbeat { run: "shop/1".parse().unwrap(), attempt: 1 }).unwrap();
    for (body, packed, status) in [
        (pack(&good), true, StatusCode::OK),
        (pack(&vec![b' '; 10_000_000]), true, StatusCode::PAYLOAD_TOO_LARGE),
        (vec![b' '; 10_001], false, StatusCode::PAYLOAD_TOO_LARGE),
        (b"no gzip".to_vec(), true, StatusCode::BAD_REQUEST),
        (b"{\"ask\": \"heartbeat\"}".to_vec(), false, StatusCode::BAD_REQUEST),
    ] {
        let answer = stage.send(request("call", Some(&runner.credential), body, packed, PROTOCOL_VERSION)).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_no_runner_gets_more_than_it_takes() {
    let stage = stage();
    let first = stage.pushed("shop").await;
    stage.pass_ms(1);
    let second = stage.pushed("cart").await;
    let runner = Machine::new(&stage, "box-1", "").await;
    let job = runner.lease(&[]).await.expect("a run");
    assert_eq!(job.run, first);
    let again = runner.lease(&[]).await.expect("the same run: the answer was lost");
    assert_eq!((again.run, again.attempt), (job.run.clone(), 1));
    assert!(runner.lease(&[&first]).await.is_none(), "it takes one at a time");
    let other = Machine::new(&stage, "box-2", "").await;
    assert_eq!(other.lease(&[]).await.expect("the next one").run, second);
    // Each is told only of what is its own.
    let beat = |run: &RunId| RunnerRequest::Heartbeat { run: run.clone(), attempt: 1 };
    assert!(matches!(other.say("call", &beat(&first)).await, Ok(ServerReply::NotYours)));
    assert!(matches!(runner.say("call", &beat(&first)).await, Ok(ServerReply::Continue)));
    assert!(matches!(other.log(&first, 1, "x").await, ServerReply::NotYours));
    assert!(matches!(other.report(&first, 1, failed()).await, ServerReply::NotYours));
    assert!(matches!(stage.app.run(&first).unwrap().state, RunState::Running { .. }));
}

#[tokio::test]
async fn a_silent_runner_loses_its_run_and_what_it_says_later_harms_nothing() {
    let stage = test_app_with(|config| {
        config.runner.parallel_runs = 0;
        config.bounds.lease_wait_ms = 50;
        config.bounds.runner_lost_ms = 300;
    });
    let run = stage.pushed("shop").await;
    let (one, two) = (Machine::new(&stage, "box-1", "").await, Machine::new(&stage, "box-2", "").await);
    assert_eq!(one.lease(&[]).await.expect("a run").attempt, 1);
    one.log(&run, 1, "by one").await;
    time_is_over(&stage, &run).await;
    assert!(matches!(stage.app.run(&run).unwrap().state, RunState::Running { .. }), "it was heard of");
    tokio::time::sleep(Duration::from_millis(400)).await;
    time_is_over(&stage, &run).await;
    let waiting = stage.app.run(&run).unwrap();
    assert_eq!((waiting.state, waiting.lost), (RunState::Queued, vec![one.name.clone()]));

    assert_eq!(two.lease(&[]).await.expect("the run of the lost one").attempt, 2);
    two.log(&run, 2, "by two").await;
    // It was only cut off, and comes back.
    assert!(matches!(one.log(&run, 1, "late").await, ServerReply::NotYours));
    assert!(matches!(one.report(&run, 1, failed()).await, ServerReply::NotYours));
    assert!(matches!(one.report(&run, 2, failed()).await, ServerReply::NotYours), "another's attempt");
    let (lines, _) = stage.app.log_read(&run, "test", 0, 10).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.line.text.as_str()).collect::<Vec<_>>(), ["by two"]);
    let (lines, _) = stage.app.log_read(&run, "test+1", 0, 10).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.line.text.as_str()).collect::<Vec<_>>(), ["by one"]);
    assert!(matches!(two.report(&run, 2, failed()).await, ServerReply::Continue));
    assert!(matches!(two.report(&run, 2, failed()).await, ServerReply::Continue), "a repeat");
    assert!(stage.pending(&run.service, EffectKind::ExpireLease).is_none());
}

#[tokio::test]
async fn labels_choose_the_runner_and_a_run_without_one_says_so() {
    let stage = stage();
    let run = stage.pushed("shop").await;
    let plain = Machine::new(&stage, "box-1", "os=linux").await;
    plain.lease(&[]).await.expect("nobody knows its labels yet");
    let labels: Labels = "gpu=true".parse().unwrap();
    assert!(matches!(plain.report(&run, 1, Report::Unfit { labels }).await, ServerReply::Continue));
    assert!(plain.lease(&[]).await.is_none(), "it is not given to it again");
    let waiting = stage.app.runs_waiting(10).unwrap();
    let why = waiting[0].why.to_string();
    assert!(why.contains("no runner has the labels gpu=true"), "{why}");
    let fast = Machine::new(&stage, "box-2", "gpu=true").await;
    assert_eq!(fast.lease(&[]).await.expect("it fits").attempt, 2);
}

#[tokio::test]
async fn a_draining_runner_keeps_what_it_has_and_a_removed_one_loses_it() {
    let stage = stage();
    let first = stage.pushed("shop").await;
    stage.pass_ms(1);
    let second = stage.pushed("cart").await;
    let runner = Machine { about: RunnerAbout { capacity: 2, ..about("") }, ..Machine::new(&stage, "box-1", "").await };
    runner.lease(&[]).await.expect("a run");
    let origin = || stage.caller(Role::Operator);
    stage.app.runner_drain(&runner.name, true, origin().await.origin()).await.unwrap();
    assert!(runner.lease(&[&first]).await.is_none(), "nothing new");
    assert_eq!(runner.lease(&[]).await.expect("its own").run, first);
    stage.app.runner_drain(&runner.name, false, origin().await.origin()).await.unwrap();
    assert_eq!(runner.lease(&[&first]).await.expect("new again").run, second);
    assert_eq!(stage.app.runners().unwrap()[0].runs.len(), 2);

    stage.app.runner_remove(&runner.name, origin().await.origin()).await.unwrap();
    for run in [&first, &second] {
        assert_eq!(stage.app.run(run).unwrap().state, RunState::Queued, "{run}");
    }
    assert!(stage.app.runners().unwrap().is_empty());
    assert_eq!(stage.app.runner(&runner.name).unwrap().state, RunnerState::Gone);
    let lease = RunnerRequest::Lease { protocol: PROTOCOL_VERSION, about: about(""), busy_with: Vec::new() };
    assert_eq!(runner.say("lease", &lease).await.unwrap_err(), StatusCode::UNAUTHORIZED);
    // The name is free again.
    Machine::new(&stage, "box-1", "").await;
}

#[tokio::test]
async fn a_flood_of_questions_for_work_waits_once_and_is_shed() {
    let stage = test_app_with(|config| {
        config.runner.parallel_runs = 0;
        config.bounds.lease_wait_ms = 60_000;
        config.bounds.runner_leases_per_minute_max = 20;
    });
    let runner = Machine::new(&stage, "box-1", "").await;
    let lease = RunnerRequest::Lease { protocol: PROTOCOL_VERSION, about: about(""), busy_with: Vec::new() };
    let mut questions: Vec<_> = (0..20).map(|_| Box::pin(runner.say("lease", &lease))).collect();
    let last = questions.pop().unwrap();
    let mut all = futures_util::future::join_all(questions);
    // All but one are answered at once, though each may wait for a minute.
    let waits = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::select! {
            biased;
            answers = &mut all => answers,
            _ = last => panic!("the last one waits"),
        }
    });
    for answer in waits.await.expect("they do not wait side by side") {
        assert!(matches!(answer, Ok(ServerReply::NoJob)), "{answer:?}");
    }
    assert_eq!(runner.say("lease", &lease).await.unwrap_err(), StatusCode::TOO_MANY_REQUESTS);
}
