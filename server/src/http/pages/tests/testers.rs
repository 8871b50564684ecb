//! Several testers: the same person by link and signed in, two who press at once, links and codes of another round, the
//! link of a deputy before and after their moment.

use pipelines::{
    approval::ApprovalEvent, effect::EffectKind, journal::Origin, plan::TestPlan, protocol::Secret, train::Event,
};
use serde_json::json;

use super::*;
use crate::{app::trains::Outcome, testing::test_app_with};

const LEE: &str = "lee@example.com";
const SUB: &str = "sub@example.com";

/// A release that two of two testers must approve; a deputy stands in.
async fn waiting(stage: &Stage) -> ReleaseId {
    let (testers, deputies) = (vec![TESTER.into(), LEE.into()], vec![SUB.into()]);
    stage.awaiting_of("shop", TestPlan { testers, approvals: 2, deputies, expires_ms: HOUR_MS }).await
}

fn approve<'a>(digest: &'a str, code: &'a str) -> [(&'a str, &'a str); 3] {
    [("decision", "approve"), ("digest", digest), ("code", code)]
}

fn have(stage: &Stage, release: &ReleaseId) -> u32 {
    stage.app.approval(release).unwrap().have()
}

/// A token of an account with this mail address.
async fn token_of(stage: &Stage, name: &str, email: &str) -> String {
    let password = Secret::new("a password of some length");
    let account = stage.app.account_create(name, email, Role::Tester, password, Origin::server()).await.unwrap();
    let channel = pipelines::journal::Channel::Api;
    let (remote, proof) = (String::new(), String::new());
    let caller = crate::app::accounts::Caller { role: Role::Tester, account, channel, read_only: false, remote, proof };
    stage.app.token_create(&caller, "test".into(), Role::Tester, false, None).await.unwrap().expose().to_owned()
}

async fn fires(stage: &Stage, release: &ReleaseId, kind: EffectKind, event: ApprovalEvent) {
    let event = Event::Approval { number: release.number, event };
    stage.perform(&release.service, kind, Outcome::event(event)).await;
}

#[tokio::test]
async fn the_same_person_by_link_and_by_account_counts_once() {
    let stage = test_app();
    let release = waiting(&stage).await;
    let digest = digest(&stage, &release);
    let link = link(&stage, &release);
    let right = code(&stage, &release, &link).await;
    assert_eq!(post(&stage, &link, "decide", &approve(&digest, &right)).await.status, StatusCode::SEE_OTHER);
    assert_eq!((state(&stage, &release), have(&stage, &release)), (ReleaseState::AwaitingApproval, 1));

    let body = json!({"digest": digest});
    let path = "/api/v1/services/shop/releases/1";
    let by_account =
        async |token: &str| stage.call(Method::POST, &format!("{path}/approve"), Some(token), Some(body.clone())).await;
    let same = token_of(&stage, "quinn", "QA@Example.com").await;
    let again = by_account(&same).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{:?}", again.body);
    assert!(again.json()["detail"].as_str().unwrap().contains("1 more, from other people"), "{:?}", again.body);
    let again = code(&stage, &release, &link).await;
    let pressed = post(&stage, &link, "decide", &approve(&digest, &again)).await;
    assert_eq!((pressed.status, have(&stage, &release)), (StatusCode::CONFLICT, 1));
    assert!(text(&pressed).contains("You have approved it already"), "{}", text(&pressed));

    let shown = stage.call(Method::GET, path, Some(&same), None).await.json();
    let approval = &shown["approval"];
    assert_eq!((&approval["needed"], &approval["approvals"][0]["by"]), (&json!(2), &json!(TESTER)));
    assert_eq!((&approval["undecided"], &approval["next_reminder"]["kind"]), (&json!([LEE]), &json!("half_time")));
    let why = shown["why"]["text"].as_str().unwrap();
    assert!(why.starts_with("it waits for 1 more of 2 approvals; asked: lee@example.com"), "{why}");

    let other = token_of(&stage, "max", "max@example.com").await;
    assert_eq!(by_account(&other).await.status, StatusCode::OK);
    assert_eq!(state(&stage, &release), ReleaseState::Promoting);
}

#[tokio::test]
async fn two_testers_who_press_ten_times_at_once_count_as_two() {
    let stage = test_app();
    let release = waiting(&stage).await;
    let digest = digest(&stage, &release);
    let mut forms = Vec::new();
    for person in [TESTER, LEE] {
        let link = link_of(&stage, &release, person);
        let code = code_of(&stage, &release, &link, person).await;
        forms.extend((0..10).map(|_| form(&stage, &link, "decide", &approve(&digest, &code))));
    }
    let answers = futures_util::future::join_all(forms.into_iter().map(|form| stage.send(form))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::SEE_OTHER).count(), 2);
    assert_eq!((state(&stage, &release), have(&stage, &release)), (ReleaseState::Promoting, 2));
}

#[tokio::test]
async fn links_codes_and_approvals_of_a_round_are_void_in_the_next() {
    let stage = test_app();
    let release = waiting(&stage).await;
    let digest = digest(&stage, &release);
    let first_link = link(&stage, &release);
    let lee = link_of(&stage, &release, LEE);
    let lees = code_of(&stage, &release, &lee, LEE).await;
    assert_eq!(post(&stage, &lee, "decide", &approve(&digest, &lees)).await.status, StatusCode::SEE_OTHER);
    let first_code = code(&stage, &release, &first_link).await;

    stage.pass_ms(HOUR_MS);
    fires(&stage, &release, EffectKind::ExpireApproval, ApprovalEvent::Expired { round: 1 }).await;
    assert_eq!(state(&stage, &release), ReleaseState::Expired);
    assert!(text(&get(&stage, &first_link).await).contains("with 1 of 2 approvals"));
    stage.app.release_ask_again(&release, Origin::server()).await.unwrap();
    stage.tested(&release).await;
    assert_eq!((stage.app.approval(&release).unwrap().round, have(&stage, &release)), (2, 0));

    assert_eq!(get(&stage, &first_link).await.status, StatusCode::NOT_FOUND);
    let pressed = post(&stage, &first_link, "decide", &approve(&digest, &first_code)).await;
    assert_eq!(pressed.status, StatusCode::NOT_FOUND);
    let link = link(&stage, &release);
    assert_ne!(link, first_link);
    let early = post(&stage, &link, "decide", &approve(&digest, &first_code)).await;
    assert_eq!(early.status, StatusCode::FORBIDDEN, "a code of the round before");
    let right = code(&stage, &release, &link).await;
    if right != first_code {
        let wrong = post(&stage, &link, "decide", &approve(&digest, &first_code)).await;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(have(&stage, &release), 0);
    assert_eq!(post(&stage, &link, "decide", &approve(&digest, &right)).await.status, StatusCode::SEE_OTHER);
    assert_eq!(have(&stage, &release), 1);
}

#[tokio::test]
async fn the_link_of_an_expired_release_asks_again_as_often_as_it_may() {
    let stage = test_app_with(|config| config.bounds.asks_by_link_max = 1);
    let release = waiting(&stage).await;
    let expire = async |round| {
        stage.pass_ms(HOUR_MS);
        fires(&stage, &release, EffectKind::ExpireApproval, ApprovalEvent::Expired { round }).await;
    };
    let first = link(&stage, &release);
    assert!(!text(&get(&stage, &first).await).contains("/ask-again"), "it is not over yet");
    assert_eq!(post(&stage, &first, "ask-again", &[]).await.status, StatusCode::CONFLICT);
    expire(1).await;
    assert!(text(&get(&stage, &first).await).contains("/ask-again"));
    let elsewhere = Request::post(format!("{first}/ask-again")).body(Body::from("_csrf=x")).unwrap();
    assert_eq!(stage.send(elsewhere).await.status, StatusCode::FORBIDDEN);
    assert_eq!(state(&stage, &release), ReleaseState::Expired);

    assert_eq!(post(&stage, &first, "ask-again", &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(state(&stage, &release), ReleaseState::DeployingTest);
    let page = text(&get(&stage, &first).await);
    assert!(page.contains("It was asked again") && !page.contains("/ask-again"), "{page}");
    assert_eq!(post(&stage, &first, "ask-again", &[]).await.status, StatusCode::CONFLICT, "pressed twice");
    stage.tested(&release).await;
    assert_eq!(get(&stage, &first).await.status, StatusCode::NOT_FOUND, "a newer mail replaced it");
    let entries = stage.app.store().journal(Some(&release.service), None, 100).unwrap();
    let asked = entries.iter().find(|entry| entry.word == "release_asked_again").unwrap();
    assert_eq!((asked.origin.actor.as_str(), asked.origin.channel), (TESTER, pipelines::journal::Channel::MailLink));

    expire(2).await;
    let second = link(&stage, &release);
    let page = text(&get(&stage, &second).await);
    assert!(page.contains("Sign in to ask again") && !page.contains("/ask-again"), "{page}");
    assert_eq!(post(&stage, &second, "ask-again", &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(state(&stage, &release), ReleaseState::Expired);
}

#[tokio::test]
async fn the_link_of_a_deputy_opens_from_their_moment_on() {
    let stage = test_app();
    let release = waiting(&stage).await;
    let link = link_of(&stage, &release, SUB);
    assert_eq!(get(&stage, &link).await.status, StatusCode::NOT_FOUND);
    stage.pass_ms(HOUR_MS / 100 * 76);
    fires(&stage, &release, EffectKind::RemindTesters, ApprovalEvent::ReminderDue { round: 1 }).await;
    let page = get(&stage, &link).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(text(&page).contains("stand in for the testers"), "{}", text(&page));
    let digest = digest(&stage, &release);
    let right = code_of(&stage, &release, &link, SUB).await;
    assert_eq!(post(&stage, &link, "decide", &approve(&digest, &right)).await.status, StatusCode::SEE_OTHER);
    assert_eq!(have(&stage, &release), 1);
}
