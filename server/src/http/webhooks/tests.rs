//! Hooks through the whole router: payloads in the shape that the forges document, and what attackers send.

mod forges;

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use hmac::{Hmac, KeyInit, Mac};
use pipelines::{
    effect::EffectKind,
    ids::{CommitSha, ServiceName},
    protocol::Secret,
    run::RunState,
    trigger::{TriggerKind, TriggerSource},
};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    app::{Delivery, DeliveryState, HookContent, Role, services::ServiceInput},
    testing::{Answer, Stage, commit, test_app, test_app_with},
};

const SECRET: &str = "hook secret";
const FORGES: [&str; 3] = ["github", "gitea", "forgejo"];

fn shop() -> ServiceName {
    "shop".parse().unwrap()
}

fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// A hook as a forge sends it.
#[derive(Clone)]
struct Hook {
    forge: &'static str,
    service: String,
    event: &'static str,
    id: String,
    body: Vec<u8>,
    content_type: &'static str,
    signature: Option<String>,
}

impl Hook {
    fn new(forge: &'static str, event: &'static str, id: &str, payload: &Value) -> Self {
        let body = payload.to_string().into_bytes();
        let signature = Some(sign(SECRET, &body));
        Self { forge, service: "shop".into(), event, id: id.into(), body, content_type: "application/json", signature }
    }

    async fn send(&self, stage: &Stage) -> Answer {
        let mut request =
            Request::post(format!("/hooks/{}", self.service)).header(header::CONTENT_TYPE, self.content_type);
        let mut add = |name: &str, value: &str| {
            request = std::mem::take(&mut request).header(name, value);
        };
        // Gitea and Forgejo send the headers of those they come from as well.
        let prefixes: &[&str] = match self.forge {
            "github" => &["x-github"],
            "gitea" => &["x-gitea", "x-gogs", "x-github"],
            _ => &["x-forgejo", "x-gitea", "x-gogs", "x-github"],
        };
        for prefix in prefixes {
            add(&format!("{prefix}-event"), self.event);
            if !self.id.is_empty() {
                add(&format!("{prefix}-delivery"), &self.id);
            }
            if let (Some(signature), true) = (&self.signature, *prefix != "x-github") {
                add(&format!("{prefix}-signature"), signature);
            }
        }
        if let Some(signature) = &self.signature {
            add("x-hub-signature-256", &format!("sha256={signature}"));
        }
        stage.send(request.body(Body::from(self.body.clone())).unwrap()).await
    }
}

/// <https://docs.github.com/webhooks/webhook-events-and-payloads#push>; Gitea and Forgejo send the same fields.
fn push(git_ref: &str, after: &str) -> Value {
    let before = if git_ref == "refs/heads/main" { commit(1).to_string() } else { "0".repeat(40) };
    json!({
        "ref": git_ref, "before": before, "after": after, "created": false, "deleted": false, "forced": false,
        "repository": {"full_name": "dev/shop", "clone_url": "https://evil.example.com/shop.git", "default_branch": "main"},
        "pusher": {"name": "mei", "email": "mei@example.com"},
        "head_commit": {"id": after, "message": "Add a basket\n\nIt holds things.",
            "author": {"name": "Mei", "email": "mei@example.com", "username": "mei"}},
    })
}

fn pull_request(action: &str, head: &str) -> Value {
    let repo = |name: &str| json!({"full_name": name});
    json!({"action": action, "number": 7, "pull_request": {
        "number": 7, "title": "A basket", "user": {"login": "mei"},
        "head": {"ref": "basket", "sha": commit(9).to_string(), "repo": repo(head)},
        "base": {"ref": "main", "sha": commit(1).to_string(), "repo": repo("dev/shop")}}})
}

/// A service that knows its secret and has one run of its first commit.
async fn stage() -> Stage {
    let stage = test_app_with(|config| config.bounds.hook_body_bytes_max = 100_000);
    stage.pushed("shop").await;
    stage
}

/// The driver looks at the recorded hooks; gives the newest one.
async fn processed(stage: &Stage) -> Delivery {
    processed_at(stage, &BTreeMap::new()).await
}

/// The same, where the repository has these refs.
async fn processed_at(stage: &Stage, now_at: &BTreeMap<String, CommitSha>) -> Delivery {
    while let Some(pending) = stage.pending(&shop(), EffectKind::ProcessDelivery) {
        let pipelines::effect::Effect::ProcessDelivery { delivery, service } = &pending.effect else { panic!() };
        let outcome = stage.app.delivery_outcome(service, *delivery, now_at).unwrap();
        stage.app.effect_outcome(&pending.effect.key(), &pending, outcome).await.unwrap();
    }
    stage.app.deliveries(&shop(), None, 1).unwrap().remove(0)
}

fn runs(stage: &Stage) -> u32 {
    stage.app.train(&shop()).unwrap().last_run
}

/// Waits until a refused hook is listed, which happens beside its answer.
async fn refusal(stage: &Stage, send: impl Future<Output = Answer>) -> (Answer, String) {
    let mut changes = stage.app.changes();
    let answer = send.await;
    let listed = tokio::time::timeout(std::time::Duration::from_secs(10), changes.recv()).await;
    assert_eq!(listed.expect("it is listed").unwrap().what, "delivery");
    let newest = stage.app.deliveries(&shop(), None, 1).unwrap().remove(0);
    let DeliveryState::Refused { reason } = newest.state else { panic!("{newest:?}") };
    (answer, reason)
}

#[tokio::test]
async fn a_push_of_every_forge_makes_one_run_however_often_it_comes() {
    for forge in FORGES {
        let stage = stage().await;
        let hook = Hook::new(forge, "push", "d-1", &push("refs/heads/main", commit(5).as_str()));
        let first = hook.send(&stage).await;
        assert_eq!((first.status, first.json()["repeat"].clone()), (StatusCode::ACCEPTED, json!(false)), "{forge}");
        let delivery = processed(&stage).await;
        assert_eq!((delivery.forge.as_str(), delivery.state), (forge, DeliveryState::Ran { run: 2 }));
        let again = hook.send(&stage).await;
        assert_eq!(
            (again.status, again.json()),
            (StatusCode::ACCEPTED, json!({"delivery": delivery.id, "repeat": true}))
        );
        // The same commit under another id, as forges send it when somebody presses "redeliver" or for a second hook.
        let other = Hook { id: "d-2".into(), ..hook.clone() };
        assert_eq!(other.send(&stage).await.status, StatusCode::ACCEPTED);
        assert!(matches!(processed(&stage).await.state, DeliveryState::Ignored { .. }));
        assert_eq!(runs(&stage), 2, "{forge}");
        let run = stage.app.run(&"shop/2".parse().unwrap()).unwrap();
        assert_eq!((run.trigger.kind, run.trigger.source), (TriggerKind::Push, TriggerSource::Hook));
        assert_eq!(
            (run.trigger.subject.as_str(), run.trigger.author_email.as_str()),
            ("Add a basket", "mei@example.com")
        );
        assert!(run.may_release);
        // Whatever the payload says of addresses: the registered one is used.
        let service = stage.app.service(&shop()).unwrap();
        assert_eq!(service.repository_url, "https://git.example.com/shop.git");
    }
}

#[tokio::test]
async fn twenty_of_the_same_at_once_are_one() {
    let stage = stage().await;
    let hook = Hook::new("github", "push", "d-1", &push("refs/heads/main", commit(5).as_str()));
    let answers = futures_util::future::join_all((0..20).map(|_| hook.send(&stage))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::ACCEPTED));
    assert_eq!(answers.iter().filter(|answer| answer.json()["repeat"] == false).count(), 1);
    processed(&stage).await;
    assert_eq!((runs(&stage), stage.app.deliveries(&shop(), None, 100).unwrap().len()), (2, 1));
}

#[tokio::test]
async fn tags_deletions_pings_and_pull_requests_are_what_they_are() {
    let stage = stage().await;
    let send = async |forge, event, id: &str, payload: &Value| {
        let answer = Hook::new(forge, event, id, payload).send(&stage).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{event} {payload}");
        processed(&stage).await.state
    };
    // An annotated tag: `after` is the tag's own id.
    let mut tag = push("refs/tags/v1", &"ab".repeat(20));
    tag["head_commit"]["id"] = json!(commit(5).as_str());
    assert_eq!(send("github", "push", "1", &tag).await, DeliveryState::Ran { run: 2 });
    let run = stage.app.run(&"shop/2".parse().unwrap()).unwrap();
    assert_eq!((run.trigger.kind, run.trigger.commit, run.may_release), (TriggerKind::Tag, commit(5), true));

    let deleted = push("refs/tags/v1", &"0".repeat(40));
    assert!(
        matches!(send("gitea", "push", "2", &deleted).await, DeliveryState::Ignored { reason } if reason.contains("deleted"))
    );
    let ping = json!({"zen": "Keep it logically awesome.", "hook_id": 1});
    assert!(matches!(send("github", "ping", "3", &ping).await, DeliveryState::Ignored { .. }));

    assert_eq!(
        send("forgejo", "pull_request", "4", &pull_request("opened", "dev/shop")).await,
        DeliveryState::Ran { run: 3 }
    );
    let run = stage.app.run(&"shop/3".parse().unwrap()).unwrap();
    assert_eq!((run.state, run.may_release, run.trigger.pull_request), (RunState::Queued, false, Some(7)));
    let labelled = send("gitea", "pull_request", "5", &pull_request("labeled", "dev/shop")).await;
    assert!(matches!(labelled, DeliveryState::Ignored { .. }));

    let stage = self::stage().await;
    for (number, (forge, action)) in [("github", "synchronize"), ("gitea", "synchronized")].into_iter().enumerate() {
        let mut fork = pull_request(action, "stranger/shop");
        fork["pull_request"]["head"]["sha"] = json!(commit(20 + number as u32).as_str());
        assert_eq!(Hook::new(forge, "pull_request", action, &fork).send(&stage).await.status, StatusCode::ACCEPTED);
        processed(&stage).await;
        let run = stage.app.run(&format!("shop/{}", 2 + number).parse().unwrap()).unwrap();
        assert!(run.trigger.from_fork && matches!(run.state, RunState::Held { .. }), "{action}");
    }
}

#[tokio::test]
async fn a_late_hook_of_a_pull_request_runs_nothing_older_than_was_run() {
    let stage = stage().await;
    let send = async |id: &str, number: u32, now_at: u32| {
        let mut payload = pull_request("synchronize", "dev/shop");
        payload["pull_request"]["head"]["sha"] = json!(commit(number).as_str());
        assert_eq!(Hook::new("github", "pull_request", id, &payload).send(&stage).await.status, StatusCode::ACCEPTED);
        let pending = stage.pending(&shop(), EffectKind::ProcessDelivery).unwrap();
        let pipelines::effect::Effect::ProcessDelivery { delivery, service } = &pending.effect else { panic!() };
        let asks = stage.app.delivery_asks(service, *delivery).unwrap();
        let now_at = BTreeMap::from([("refs/pull/7/head".to_owned(), commit(now_at))]);
        (asks, processed_at(&stage, &now_at).await.state)
    };
    assert_eq!(send("1", 11, 11).await, (false, DeliveryState::Ran { run: 2 }));
    let (asks, late) = send("2", 10, 11).await;
    assert!(asks && matches!(&late, DeliveryState::Ignored { reason } if reason.contains("#7 at")), "{late:?}");
    assert_eq!((send("3", 12, 13).await, runs(&stage)), ((true, DeliveryState::Ran { run: 3 }), 3));
    let newest = stage.app.run(&"shop/3".parse().unwrap()).unwrap();
    assert_eq!((newest.trigger.commit, newest.trigger.pull_request), (commit(13), Some(7)));
    let (asks, known) = send("4", 13, 13).await;
    assert!(!asks && matches!(known, DeliveryState::Ignored { .. }), "{known:?}");
}

#[tokio::test]
async fn a_forged_hook_is_refused_and_listed_and_takes_nobody_s_id() {
    let stage = stage().await;
    let hook = Hook::new("github", "push", "d-1", &push("refs/heads/main", commit(5).as_str()));
    let wrong = Hook { signature: Some(sign("a guess", &hook.body)), ..hook.clone() };
    let missing = Hook { signature: None, ..hook.clone() };
    let odd = Hook { signature: Some("zz".into()), ..hook.clone() };
    let cut = Hook { signature: hook.signature.as_ref().map(|it| it[..32].to_owned()), ..hook.clone() };
    let mut changed = hook.clone();
    changed.body.push(b' ');
    for (forged, why) in
        [(wrong, "wrong"), (missing, "no signature"), (odd, "not hex"), (cut, "wrong"), (changed, "wrong")]
    {
        let (answer, reason) = refusal(&stage, forged.send(&stage)).await;
        assert_eq!((answer.status, answer.json()["type"].clone()), (StatusCode::FORBIDDEN, json!("bad-signature")));
        assert!(reason.contains(why), "{reason}");
    }
    // SHA-1 is not looked at.
    let request = Request::post("/hooks/shop")
        .header("x-github-event", "push")
        .header("x-hub-signature", "sha1=0123456789abcdef0123456789abcdef01234567")
        .body(Body::from(hook.body.clone()));
    let (answer, _) = refusal(&stage, stage.send(request.unwrap())).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(hook.send(&stage).await.json()["repeat"], false);
    assert_eq!(processed(&stage).await.state, DeliveryState::Ran { run: 2 });
}

#[tokio::test]
async fn nobody_learns_by_asking_which_services_there_are() {
    let stage = stage().await;
    let payload = push("refs/heads/main", commit(5).as_str());
    let known = Hook { signature: Some(sign("a guess", b"x")), ..Hook::new("gitea", "push", "d", &payload) };
    let comparable = |answer: Answer| {
        let mut problem = answer.json();
        problem["request_id"] = Value::Null;
        (answer.status, problem)
    };
    for change in
        [|_: &mut Hook| {}, |hook: &mut Hook| hook.body = vec![b' '; 200_000], |hook: &mut Hook| hook.signature = None]
    {
        let mut known = known.clone();
        change(&mut known);
        let expected = comparable(known.send(&stage).await);
        for name in ["other", "..%2Fshop", "Shop", "%00"] {
            let unknown = Hook { service: name.into(), ..known.clone() };
            assert_eq!(comparable(unknown.send(&stage).await), expected, "{name}");
        }
    }
    let bare = async |name: &str| {
        comparable(stage.send(Request::post(format!("/hooks/{name}")).body(Body::from("{}")).unwrap()).await)
    };
    assert_eq!(bare("shop").await, bare("other").await);
}

#[tokio::test]
async fn what_is_too_large_or_no_good_json_is_refused() {
    let stage = stage().await;
    let large = json!({"ref": "refs/heads/main", "after": commit(5).as_str(), "fill": "x".repeat(100_000)});
    let (answer, reason) = refusal(&stage, Hook::new("github", "push", "d-1", &large).send(&stage)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(reason.contains("100000 bytes"), "{reason}");
    let deep = format!("{}1{}", "[".repeat(40_000), "]".repeat(40_000));
    let bodies = ["not json", "", &deep, "[]", r#"{"ref": 7}"#, r#"{"ref": "refs/heads/main", "after": "HEAD"}"#];
    for (number, body) in bodies.into_iter().enumerate() {
        let mut hook = Hook::new("gitea", "push", &format!("bad-{number}"), &json!(null));
        hook.body = body.into();
        hook.signature = Some(sign(SECRET, body.as_bytes()));
        let (answer, _) = refusal(&stage, hook.send(&stage)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", &body[..body.len().min(40)]);
    }
    assert_eq!(runs(&stage), 1);
}

#[tokio::test]
async fn a_form_carries_the_payload_as_well_and_a_hook_without_an_id_is_known_by_its_body() {
    let stage = stage().await;
    let payload = push("refs/heads/main", commit(5).as_str()).to_string();
    let form: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload).finish();
    let mut hook = Hook::new("github", "push", "", &json!(null));
    (hook.body, hook.content_type) = (form.into_bytes(), "application/x-www-form-urlencoded");
    hook.signature = Some(sign(SECRET, &hook.body));
    assert_eq!(hook.send(&stage).await.json()["repeat"], false);
    assert_eq!(processed(&stage).await.state, DeliveryState::Ran { run: 2 });
    assert_eq!(hook.send(&stage).await.json()["repeat"], true);
}

#[tokio::test]
async fn without_a_secret_only_a_service_that_says_so_takes_hooks() {
    let stage = stage().await;
    let origin = stage.caller(Role::Admin).await.origin();
    let input = ServiceInput { hook_secret: Some(Secret::new("")), ..ServiceInput::default() };
    stage.app.service_update(&shop(), input, origin.clone()).await.unwrap();
    let mut hook = Hook::new("github", "push", "d-1", &push("refs/heads/main", commit(5).as_str()));
    hook.signature = None;
    let (answer, reason) = refusal(&stage, hook.send(&stage)).await;
    assert_eq!((answer.status, reason.contains("no hook secret")), (StatusCode::FORBIDDEN, true));
    // An empty key is nobody's signature.
    hook.signature = Some(sign("", &hook.body));
    assert_eq!(refusal(&stage, hook.send(&stage)).await.0.status, StatusCode::FORBIDDEN);
    let input = ServiceInput { allow_unsigned_hooks: Some(true), ..ServiceInput::default() };
    stage.app.service_update(&shop(), input, origin).await.unwrap();
    hook.signature = None;
    assert_eq!(hook.send(&stage).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_list_of_refused_hooks_does_not_grow_without_bound() {
    let stage = test_app_with(|config| config.bounds.refused_hooks_max = 3);
    stage.pushed("shop").await;
    let mut hook = Hook::new("github", "push", "d-1", &push("refs/heads/main", commit(5).as_str()));
    hook.signature = Some(sign("a guess", &hook.body));
    for _ in 0..3 {
        refusal(&stage, hook.send(&stage)).await;
    }
    for _ in 0..20 {
        assert_eq!(hook.send(&stage).await.status, StatusCode::FORBIDDEN);
    }
    tokio::task::yield_now().await;
    assert_eq!(stage.app.deliveries(&shop(), None, 100).unwrap().len(), 3);
    stage.pass_ms(3_600_000);
    refusal(&stage, hook.send(&stage)).await;
}

#[tokio::test]
async fn the_api_shows_what_became_of_each_hook() {
    let stage = stage().await;
    Hook::new("gitea", "push", "d-1", &push("refs/heads/main", commit(5).as_str())).send(&stage).await;
    processed(&stage).await;
    let token = stage.token(Role::Developer).await;
    let path = "/api/v1/services/shop/deliveries";
    let list = stage.call(axum::http::Method::GET, path, Some(&token), None).await.json();
    let first = &list["items"][0];
    assert_eq!((&first["forge"], &first["state"], &first["run"]), (&json!("gitea"), &json!("ran"), &json!(2)));
    let gone = test_app().call(axum::http::Method::GET, path, Some(&token), None).await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_list_of_hooks_goes_on_where_it_stopped() {
    let stage = stage().await;
    for number in 0..5 {
        Hook::new("gitea", "ping", &format!("d-{number}"), &json!({})).send(&stage).await;
    }
    let token = stage.token(Role::Developer).await;
    let page = async |query: &str| {
        let path = format!("/api/v1/services/shop/deliveries?{query}");
        let list = stage.call(axum::http::Method::GET, &path, Some(&token), None).await.json();
        let ids: Vec<String> =
            list["items"].as_array().unwrap().iter().map(|one| one["forge_id"].as_str().unwrap().to_owned()).collect();
        (ids, list["next_before"].as_u64())
    };
    let (first, next) = page("limit=2").await;
    assert_eq!((first, next), (vec!["d-4".to_owned(), "d-3".to_owned()], Some(4)));
    let (second, next) = page("limit=2&before=4").await;
    assert_eq!((second, next), (vec!["d-2".to_owned(), "d-1".to_owned()], Some(2)));
    assert_eq!(page("limit=2&before=2").await, (vec!["d-0".to_owned()], None));
}

/// What every forge makes of any body: nothing that is run stands under another name than a branch, a tag or a pull
/// request, and no text that is kept is long or can move a terminal.
#[test]
fn fuzz_hooks() {
    let push = push("refs/heads/main", commit(1).as_str()).to_string();
    let (tag, pull) =
        (push.replace("refs/heads/main", "refs/tags/v1"), pull_request("opened", commit(2).as_str()).to_string());
    let form = "payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D";
    let change = r#"{"push":{"changes":[{"new":{"type":"branch","name":"main","target":{"hash":"HASH"}}}]},
        "changes":[{"refId":"refs/heads/main","toHash":"HASH","type":"UPDATE"}],"object_kind":"push","checkout_sha":"HASH",
        "ref":"refs/heads/main","after":"HASH","object_attributes":{"iid":7,"action":"open","last_commit":{"id":"HASH"}}}"#;
    let change = change.replace("HASH", commit(3).as_str());
    let samples: [&[u8]; 5] = [push.as_bytes(), tag.as_bytes(), pull.as_bytes(), form.as_bytes(), change.as_bytes()];
    let words = ["refs/heads/", "refs/tags/", "\"after\":", "\"deleted\":true", "synchronize", "\"number\":"];
    let kinds = ["application/json", "application/x-www-form-urlencoded"];
    let events = [
        ("x-gitea-event", "push"),
        ("x-gitea-event", "pull_request"),
        ("x-github-event", "push"),
        ("x-github-event", "other"),
        ("x-gitlab-event", "Push Hook"),
        ("x-gitlab-event", "Merge Request Hook"),
        ("x-event-key", "repo:push"),
        ("x-event-key", "repo:refs_changed"),
        ("x-event-key", "pr:opened"),
    ];
    fuzz::feed("hooks", &samples, &words, |bytes| {
        let mut word = String::new();
        for ((name, event), kind) in events.into_iter().flat_map(|event| kinds.map(|kind| (event, kind))) {
            let mut headers = axum::http::HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().map_err(|_| "no header")?);
            headers.insert(name, event.parse().map_err(|_| "no header")?);
            let Some(envelope) = super::FORGES.iter().find_map(|forge| forge(&headers)) else {
                return Err(format!("no forge sends {name}: {event}"));
            };
            let read = super::read_body(&headers, bytes).and_then(|payload| (envelope.read)(&envelope.event, &payload));
            let texts = texts_of(read, &mut word)?;
            if let Some(text) =
                texts.iter().find(|text| text.chars().count() > 400 || text.chars().any(char::is_control))
            {
                return Err(format!("{text:?} is kept"));
            }
        }
        Ok(word)
    });
}

#[tokio::test]
async fn a_run_remembers_when_its_hook_came_and_the_trace_that_its_sender_named() {
    let stage = stage().await;
    let named = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    // Also what is no traceparent, or two of them, is a good hook.
    for (number, given, kept) in [(2, vec![named], true), (3, vec!["00-nonsense"], false), (4, vec![named; 2], false)] {
        let body = push("refs/heads/side", commit(number).as_str()).to_string().into_bytes();
        let mut request = Request::post("/hooks/shop")
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-github-event", "push")
            .header("x-github-delivery", number.to_string())
            .header("x-hub-signature-256", format!("sha256={}", sign(SECRET, &body)));
        for value in given {
            request = request.header("traceparent", value);
        }
        let came_at = stage.app.now();
        let answer = stage.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        stage.pass_ms(700);
        let Some(HookContent::Trigger { trigger, .. }) = processed(&stage).await.content else { panic!("no trigger") };
        assert_eq!(trigger.heard_at, Some(came_at));
        assert_eq!(trigger.traceparent.as_ref().map(|one| one.as_str()), kept.then_some(named));
    }
    let run = stage.app.run(&pipelines::ids::RunId::new(shop(), 2)).unwrap();
    assert_eq!(run.trigger.traceparent.unwrap().as_str(), named);
    assert_eq!(run.created_at.since_ms(run.trigger.heard_at.unwrap()), 700);
}

/// The texts that are kept of what a hook says, and in `word` what kind of answer it was.
fn texts_of(read: Result<HookContent, String>, word: &mut String) -> Result<Vec<String>, String> {
    Ok(match read {
        Ok(HookContent::Trigger { trigger, .. }) => {
            word.push('t');
            if trigger.kind == TriggerKind::PullRequest && trigger.pull_request.is_none() {
                return Err("a pull request without its number".into());
            }
            let known = ["refs/heads/", "refs/tags/", "refs/pull/", "refs/merge-requests/", "refs/pull-requests/"];
            if !known.iter().any(|begin| trigger.git_ref.starts_with(begin)) {
                return Err(format!("{} is run", trigger.git_ref));
            }
            vec![trigger.git_ref, trigger.subject, trigger.author, trigger.author_email]
        }
        Ok(HookContent::Several { all }) => {
            word.push('s');
            let mut texts = Vec::new();
            for one in all {
                texts.extend(texts_of(Ok(one), word)?);
            }
            texts
        }
        Ok(HookContent::Moved { .. }) => {
            word.push('m');
            Vec::new()
        }
        Ok(HookContent::Deleted { git_ref }) => {
            word.push('d');
            vec![git_ref]
        }
        Ok(HookContent::Nothing { reason }) => {
            word.push('n');
            vec![reason]
        }
        Err(why) => {
            word.extend(why.chars().take(8));
            vec![why]
        }
    })
}
