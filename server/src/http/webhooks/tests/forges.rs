//! Hooks of GitLab and of both Bitbuckets: bodies in the shape that the forges document, cut down to what is read and what
//! could be mistaken for it.

use axum::{body::Body, http::Request, http::StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use pipelines::{
    effect::{Effect, EffectKind},
    protocol::Secret,
    run::{Run, RunState},
    trigger::{TriggerKind, TriggerSource},
};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{SECRET, commit, processed, refusal, runs, shop, sign, stage};
use crate::{
    app::{DeliveryState, Role, services::ServiceInput},
    testing::{Answer, Stage},
};

const NULL: &str = "0000000000000000000000000000000000000000";

async fn send(stage: &Stage, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let request = Request::post("/hooks/shop").header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    stage.send(request.body(Body::from(body.to_vec())).unwrap()).await
}

async fn gitlab(stage: &Stage, event: &str, id: &str, payload: &Value) -> Answer {
    let headers = [("x-gitlab-event", event), ("x-gitlab-token", SECRET), ("idempotency-key", id)];
    send(stage, &headers, payload.to_string().as_bytes()).await
}

/// A hook of Bitbucket: of the Cloud or of the Data Center, by the header that carries its id.
async fn bitbucket(stage: &Stage, event: &str, (header, id): (&str, &str), payload: &Value) -> Answer {
    let body = payload.to_string();
    let signature = format!("sha256={}", sign(SECRET, body.as_bytes()));
    let headers = [("x-event-key", event), (header, id), ("x-hub-signature", signature.as_str())];
    send(stage, &headers, body.as_bytes()).await
}

const CLOUD: &str = "x-request-uuid";
const DATA_CENTER: &str = "x-request-id";

/// What became of an accepted hook.
async fn became(stage: &Stage, answer: Answer) -> DeliveryState {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
    processed(stage).await.state
}

fn run(stage: &Stage, number: u32) -> Run {
    stage.app.run(&format!("shop/{number}").parse().unwrap()).unwrap()
}

fn ignored(state: DeliveryState, why: &str) {
    let DeliveryState::Ignored { reason } = state else { panic!("{state:?}") };
    assert!(reason.contains(why), "{reason}");
}

/// <https://docs.gitlab.com/user/project/integrations/webhook_events/#push-events>
fn gitlab_push(git_ref: &str, before: &str, after: &str, checkout: Option<&str>) -> Value {
    let kind = if git_ref.starts_with("refs/tags/") { "tag_push" } else { "push" };
    let one = |id: &str, message: &str| json!({"id": id, "message": message, "title": message, "author": {"name": "Mei", "email": "mei@example.com"}});
    json!({
        "object_kind": kind, "event_name": kind, "before": before, "after": after, "ref": git_ref,
        "checkout_sha": checkout, "user_username": "mei", "user_email": "", "project_id": 15,
        "project": {"path_with_namespace": "dev/shop", "git_http_url": "https://evil.example.com/shop.git"},
        "commits": [one(commit(90).as_str(), "An older one"), one(checkout.unwrap_or(NULL), "Add a basket\n\nIt holds things.")],
        "total_commits_count": 2,
    })
}

/// <https://docs.gitlab.com/user/project/integrations/webhook_events/#merge-request-events>
fn merge_request(action: &str, source_project: u64, oldrev: Option<&str>) -> Value {
    let mut attributes = json!({
        "id": 99, "iid": 7, "action": action, "title": "A basket", "source_branch": "basket", "target_branch": "main",
        "source_project_id": source_project, "target_project_id": 15,
        "last_commit": {"id": commit(9).as_str(), "author": {"name": "Mei", "email": "mei@example.com"}},
    });
    if let Some(oldrev) = oldrev {
        attributes["oldrev"] = json!(oldrev);
    }
    json!({"object_kind": "merge_request", "user": {"username": "mei"}, "object_attributes": attributes})
}

#[tokio::test]
async fn gitlab_pushes_tags_and_merge_requests_are_what_they_are() {
    let stage = stage().await;
    let (old, new) = (commit(1).to_string(), commit(5).to_string());
    let push = gitlab_push("refs/heads/main", &old, &new, Some(&new));
    assert_eq!(became(&stage, gitlab(&stage, "Push Hook", "1", &push).await).await, DeliveryState::Ran { run: 2 });
    let trigger = run(&stage, 2).trigger;
    assert_eq!((trigger.kind, trigger.source, trigger.commit), (TriggerKind::Push, TriggerSource::Hook, commit(5)));
    assert_eq!((trigger.subject.as_str(), trigger.author_email.as_str()), ("Add a basket", "mei@example.com"));
    assert_eq!(gitlab(&stage, "Push Hook", "1", &push).await.json()["repeat"], true);
    // An annotated tag: `after` is the tag's own id.
    let tag = gitlab_push("refs/tags/v1", NULL, &"ab".repeat(20), Some(commit(6).as_str()));
    let state = became(&stage, gitlab(&stage, "Tag Push Hook", "2", &tag).await).await;
    assert_eq!((state, run(&stage, 3).trigger.kind), (DeliveryState::Ran { run: 3 }, TriggerKind::Tag));
    assert_eq!(run(&stage, 3).trigger.commit, commit(6));
    let gone = gitlab_push("refs/tags/v1", &"ab".repeat(20), NULL, None);
    ignored(became(&stage, gitlab(&stage, "Tag Push Hook", "3", &gone).await).await, "deleted");

    let opened = merge_request("open", 15, None);
    let state = became(&stage, gitlab(&stage, "Merge Request Hook", "4", &opened).await).await;
    assert_eq!(state, DeliveryState::Ran { run: 4 });
    let own = run(&stage, 4);
    assert_eq!((own.trigger.git_ref.as_str(), own.trigger.pull_request), ("refs/merge-requests/7/head", Some(7)));
    assert_eq!((own.may_release, own.trigger.from_fork), (false, false));
    let labelled = merge_request("update", 15, None);
    ignored(became(&stage, gitlab(&stage, "Merge Request Hook", "5", &labelled).await).await, "no new commit");
    let mut pushed = merge_request("update", 16, Some(commit(9).as_str()));
    pushed["object_attributes"]["last_commit"]["id"] = json!(commit(10).as_str());
    became(&stage, gitlab(&stage, "Merge Request Hook", "6", &pushed).await).await;
    assert!(run(&stage, 5).trigger.from_fork && run(&stage, 5).state != RunState::Queued);
    ignored(
        became(&stage, gitlab(&stage, "Pipeline Hook", "7", &json!({"object_kind": "pipeline"})).await).await,
        "no run",
    );
}

/// What GitLab sends with a signing token: <https://www.standardwebhooks.com>.
fn stamped(key: &[u8], id: &str, at_s: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(format!("{id}.{at_s}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn a_signing_token_of_gitlab_counts_for_its_time_and_its_delivery_only() {
    let stage = stage().await;
    let key = [9; 32];
    let secret = Secret::new(format!("whsec_{}", STANDARD.encode(key)));
    let input = ServiceInput { hook_secret: Some(secret.clone()), ..ServiceInput::default() };
    stage.app.service_update(&shop(), input, stage.caller(Role::Admin).await.origin()).await.unwrap();
    let new = commit(5).to_string();
    let body = gitlab_push("refs/heads/main", commit(1).as_str(), &new, Some(&new)).to_string();
    let now_s = stage.app.now().0 / 1_000;
    let sent = async |id: &str, at_s: u64, signature: &str| {
        let at = at_s.to_string();
        let headers = [
            ("x-gitlab-event", "Push Hook"),
            ("webhook-id", id),
            ("webhook-timestamp", at.as_str()),
            ("webhook-signature", signature),
        ];
        send(&stage, &headers, body.as_bytes()).await
    };
    let good = stamped(&key, "d-1", now_s, &body);
    let old = stamped(&key, "d-1", now_s - 301, &body);
    let early = stamped(&key, "d-1", now_s + 301, &body);
    for (id, at_s, signature, why) in [
        ("d-2", now_s, good.as_str(), "wrong"),
        ("d-1", now_s + 1, good.as_str(), "wrong"),
        ("d-1", now_s, &stamped(&[8; 32], "d-1", now_s, &body), "wrong"),
        ("d-1", now_s, good.strip_prefix("v1,").unwrap(), "wrong"),
        ("d-1", now_s, "", "wrong"),
        ("d-1", now_s - 301, &old, "too old"),
        ("d-1", now_s + 301, &early, "too old"),
    ] {
        let (answer, reason) = refusal(&stage, sent(id, at_s, signature)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{reason}");
        assert!(reason.starts_with("its signature is") && reason.contains(why), "{reason}");
    }
    // The secret itself beside a wrong signature opens nothing.
    let headers =
        [("x-gitlab-event", "Push Hook"), ("webhook-signature", "v1,AAAA"), ("x-gitlab-token", secret.expose())];
    let (answer, _) = refusal(&stage, send(&stage, &headers, body.as_bytes())).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    // While a key is exchanged there are two.
    let both = format!("v1,{} {good}", STANDARD.encode([1; 32]));
    assert_eq!(became(&stage, sent("d-1", now_s, &both).await).await, DeliveryState::Ran { run: 2 });
    assert_eq!(sent("d-1", now_s, &good).await.json()["repeat"], true);
}

#[tokio::test]
async fn a_wrong_secret_of_gitlab_is_refused() {
    let stage = stage().await;
    let body = gitlab_push("refs/heads/main", NULL, commit(5).as_str(), Some(commit(5).as_str())).to_string();
    for (token, why) in [(Some("hook secre"), "wrong"), (Some(""), "wrong"), (None, "no signature")] {
        let headers: Vec<_> =
            [("x-gitlab-event", "Push Hook")].into_iter().chain(token.map(|token| ("x-gitlab-token", token))).collect();
        let (answer, reason) = refusal(&stage, send(&stage, &headers, body.as_bytes())).await;
        assert_eq!((answer.status, reason.contains(why)), (StatusCode::FORBIDDEN, true), "{reason}");
    }
    assert_eq!(runs(&stage), 1);
}

/// <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/#Push>
fn cloud_side(kind: &str, name: &str, commit: &str) -> Value {
    json!({"type": kind, "name": name, "target": {"type": "commit", "hash": commit, "message": "Add a basket\n",
        "author": {"raw": "Mei <mei@example.com>", "user": {"display_name": "Mei"}}}})
}

#[tokio::test]
async fn a_push_to_bitbucket_cloud_may_move_several_refs_at_once() {
    let stage = stage().await;
    let branch = |name: &str, number: u32| cloud_side("branch", name, commit(number).as_str());
    let changes = json!([
        {"old": branch("main", 1), "new": branch("main", 5), "created": false, "closed": false, "forced": false},
        {"old": null, "new": cloud_side("tag", "v1", commit(6).as_str()), "created": true, "closed": false},
        {"old": branch("gone", 7), "new": null, "closed": true},
    ]);
    let push = json!({"push": {"changes": changes}, "repository": {"full_name": "dev/shop"}});
    let state = became(&stage, bitbucket(&stage, "repo:push", (CLOUD, "u-1"), &push).await).await;
    assert_eq!((state, runs(&stage)), (DeliveryState::Ran { run: 2 }, 3));
    let trigger = run(&stage, 2).trigger;
    assert_eq!((trigger.git_ref.as_str(), trigger.commit), ("refs/heads/main", commit(5)));
    assert_eq!(
        (trigger.subject.as_str(), trigger.author.as_str(), trigger.author_email.as_str()),
        ("Add a basket", "Mei", "mei@example.com")
    );
    assert_eq!((run(&stage, 3).trigger.kind, run(&stage, 3).trigger.commit), (TriggerKind::Tag, commit(6)));
    assert_eq!(bitbucket(&stage, "repo:push", (CLOUD, "u-1"), &push).await.json()["repeat"], true);
    let short = json!({"pullrequest": {"id": 7, "source": {"commit": {"hash": "d3022fc0ca3d"}}}});
    let state = became(&stage, bitbucket(&stage, "pullrequest:created", (CLOUD, "u-2"), &short).await).await;
    ignored(state, "no whole commit");
    assert_eq!(runs(&stage), 3);
}

/// <https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html>
fn data_center_push(ref_id: &str, from: &str, to: &str, kind: &str) -> Value {
    json!({"eventKey": "repo:refs_changed", "actor": {"name": "mei"}, "repository": {"slug": "shop"},
        "changes": [{"ref": {"id": ref_id, "type": "BRANCH"}, "refId": ref_id, "fromHash": from, "toHash": to, "type": kind}],
        "toCommit": {"id": to, "message": "Add a basket", "author": {"name": "Mei", "emailAddress": "mei@example.com"}}})
}

#[tokio::test]
async fn bitbucket_data_center_pushes_and_pull_requests_are_what_they_are() {
    let stage = stage().await;
    let hook = async |event: &str, id: &str, payload: &Value| {
        became(&stage, bitbucket(&stage, event, (DATA_CENTER, id), payload).await).await
    };
    let push = data_center_push("refs/heads/main", commit(1).as_str(), commit(5).as_str(), "UPDATE");
    assert_eq!(hook("repo:refs_changed", "1", &push).await, DeliveryState::Ran { run: 2 });
    assert_eq!(run(&stage, 2).trigger.author_email, "mei@example.com");
    let gone = data_center_push("refs/heads/side", commit(5).as_str(), NULL, "DELETE");
    ignored(hook("repo:refs_changed", "2", &gone).await, "deleted");
    // A tag's id may be that of the tag itself: the repository knows the commit.
    let tag = data_center_push("refs/tags/v1", NULL, &"ab".repeat(20), "ADD");
    ignored(hook("repo:refs_changed", "3", &tag).await, "the repository was asked");
    ignored(hook("diagnostics:ping", "4", &json!({"test": true})).await, "no run");
    let side = |id: u64, branch: &str, number: u32| json!({"id": format!("refs/heads/{branch}"), "latestCommit": commit(number).as_str(), "repository": {"id": id, "slug": "shop"}});
    let pull = |from: u64, number: u32| {
        json!({"eventKey": "pr:opened", "pullRequest": {"id": 7, "title": "A basket", "author": {"user": {"name": "mei"}},
            "fromRef": side(from, "basket", number), "toRef": side(15, "main", 1)}})
    };
    assert_eq!(hook("pr:opened", "5", &pull(15, 8)).await, DeliveryState::Ran { run: 3 });
    let own = run(&stage, 3);
    assert_eq!((own.trigger.git_ref.as_str(), own.may_release), ("refs/pull-requests/7/from", false));
    hook("pr:from_ref_updated", "6", &pull(16, 9)).await;
    assert!(run(&stage, 4).trigger.from_fork && run(&stage, 4).state != RunState::Queued);
}

#[tokio::test]
async fn a_hook_that_comes_after_a_poll_saw_a_newer_commit_does_not_run_the_older_one() {
    let stage = stage().await;
    let (old, new, newest) = (commit(1), commit(5), commit(6));
    stage.listed(&shop(), newest.clone()).await;
    assert_eq!((runs(&stage), run(&stage, 2).trigger.commit), (2, newest.clone()));
    let late = gitlab_push("refs/heads/main", old.as_str(), new.as_str(), Some(new.as_str()));
    ignored(became(&stage, gitlab(&stage, "Push Hook", "1", &late).await).await, "the repository was asked");
    let poll = stage.pending(&shop(), EffectKind::PollRepository).unwrap().effect;
    assert!(matches!(poll, Effect::PollRepository { due_at, .. } if due_at <= stage.app.now()), "{poll:?}");
    // What the repository says is what counts: nothing is new, and nothing runs twice.
    stage.listed(&shop(), newest.clone()).await;
    let last = gitlab_push("refs/heads/main", new.as_str(), newest.as_str(), Some(newest.as_str()));
    ignored(became(&stage, gitlab(&stage, "Push Hook", "2", &last).await).await, "seen before");
    assert_eq!(runs(&stage), 2);
    // A hook whose forerunner was lost: the repository is asked, and its answer makes the run.
    let next = gitlab_push("refs/heads/main", commit(7).as_str(), commit(8).as_str(), Some(commit(8).as_str()));
    ignored(became(&stage, gitlab(&stage, "Push Hook", "3", &next).await).await, "the repository was asked");
    stage.listed(&shop(), commit(8)).await;
    assert_eq!((runs(&stage), run(&stage, 3).trigger.commit), (3, commit(8)));
}
