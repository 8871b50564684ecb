//! The pages through the whole router, in memory: every one in both languages, and the link of a mail against scanners,
//! guessers and people who press twice. How pages look is tested in a browser (the crate `tests`).

mod testers;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use pipelines::{
    effect::EffectKind,
    hold::{Proposal, ProposedStep},
    ids::ReleaseId,
    plan::Strategy,
    release::ReleaseState,
    run::RunEvent,
    train::Event,
};

use crate::{
    app::{Role, trains::Outcome},
    http::access::{cookie_name, csrf_of},
    testing::{Answer, Stage, TESTER, test_app},
};

const HOUR_MS: u64 = 3_600_000;

/// The link of the tester's mail, as a path.
fn link(stage: &Stage, release: &ReleaseId) -> String {
    link_of(stage, release, TESTER)
}

/// The link that somebody is mailed.
fn link_of(stage: &Stage, release: &ReleaseId, person: &str) -> String {
    let url = stage.app.approval_url(&stage.app.approval(release).unwrap(), person);
    url[url.find("/approve/").unwrap()..].to_owned()
}

async fn get(stage: &Stage, path: &str) -> Answer {
    let request = Request::get(path).header(header::ACCEPT, "text/html").body(Body::empty()).unwrap();
    stage.send(request).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// A form of the link's page, with the token that the page carries.
fn form(stage: &Stage, link: &str, verb: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let csrf = csrf_of(&stage.app, link.rsplit('/').next().unwrap());
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.append_pair("_csrf", &csrf).extend_pairs(fields);
    Request::post(format!("{link}/{verb}"))
        .header(header::ACCEPT, "text/html")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(body.finish()))
        .unwrap()
}

async fn post(stage: &Stage, link: &str, verb: &str, fields: &[(&str, &str)]) -> Answer {
    stage.send(form(stage, link, verb, fields)).await
}

/// Asks for a code and gives it, as the mail would.
async fn code(stage: &Stage, release: &ReleaseId, link: &str) -> String {
    code_of(stage, release, link, TESTER).await
}

async fn code_of(stage: &Stage, release: &ReleaseId, link: &str, person: &str) -> String {
    assert_eq!(post(stage, link, "code", &[]).await.status, StatusCode::SEE_OTHER);
    let approval = stage.app.approval(release).unwrap();
    let serial = approval.code_to_check(person, stage.app.now()).unwrap();
    stage.app.keys().approval_code(&approval, person, serial)
}

fn state(stage: &Stage, release: &ReleaseId) -> ReleaseState {
    stage.app.release(release).unwrap().state
}

fn digest(stage: &Stage, release: &ReleaseId) -> String {
    stage.app.release(release).unwrap().digest.to_string()
}

#[tokio::test]
async fn every_page_is_written_in_both_languages() {
    let stage = test_app();
    stage.live("shop").await;
    let run = stage.pushed("shop").await;
    let release = stage.built(&run, Strategy::Rolling).await;
    stage.tested(&release).await;
    let held = stage.forked("shop", 7).await;
    let step = ProposedStep { name: "mine".into(), image: "x".into(), commands: vec!["echo <basket>".into()] };
    let (steps, diff) = (vec![step], vec!["+<basket>".into()]);
    let proposal = Box::new(Proposal { steps, diff, file_changed: true, ..Proposal::default() });
    let event = Event::Run { number: held.number, event: RunEvent::Inspected { proposal } };
    stage.perform(&held.service, EffectKind::InspectRun, Outcome::event(event)).await;
    stage.caller(Role::Admin).await;
    let token = stage.token(Role::Admin).await;
    let pages = [
        "/",
        "/needs-you",
        "/search?q=shop",
        "/services",
        "/services/new",
        "/services/shop",
        "/services/shop/edit",
        "/services/shop/runs/1",
        "/services/shop/runs/2",
        "/services/shop/runs/3",
        "/services/shop/approvals/1",
        "/services/shop/approvals/2",
        "/services/shop/rollouts/1",
        "/me",
        "/accounts",
        "/mailbox",
    ];
    for path in pages {
        for (language, fragment) in [("en", false), ("zh-CN", false), ("en", true)] {
            let joint = if path.contains('?') { "&" } else { "?" };
            let address = if fragment { format!("{path}{joint}fragment=main") } else { path.to_owned() };
            let request = Request::get(&address)
                .header(header::ACCEPT, "text/html")
                .header(header::ACCEPT_LANGUAGE, language)
                .header(header::AUTHORIZATION, format!("Bearer {token}"));
            let answer = stage.send(request.body(Body::empty()).unwrap()).await;
            let page = text(&answer);
            assert_eq!(answer.status, StatusCode::OK, "{address}: {page}");
            assert_eq!(page.contains(&format!("<html lang=\"{language}\"")), !fragment, "{address} in {language}");
            assert!(!page.contains("<basket>"), "{address}: the text of a commit is markup");
        }
    }
}

#[tokio::test]
async fn a_scanner_that_opens_the_link_again_and_again_changes_nothing() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    let link = link(&stage, &release);
    let before = stage.dump();
    for method in [Method::GET, Method::HEAD] {
        for _ in 0..50 {
            let request = Request::builder().method(&method).uri(&link).body(Body::empty()).unwrap();
            let answer = stage.send(request).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
            assert_eq!(answer.headers[header::REFERRER_POLICY], "no-referrer");
        }
    }
    for verb in ["decide", "code", "claim", "release"] {
        let pressed = Request::post(format!("{link}/{verb}")).body(Body::from("decision=approve")).unwrap();
        assert_eq!(stage.send(pressed).await.status, StatusCode::FORBIDDEN, "{verb} without the page's token");
        assert_eq!(get(&stage, &format!("{link}/{verb}")).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!(stage.dump(), before);
}

#[tokio::test]
async fn a_decision_needs_the_mailed_code_and_five_wrong_ones_lock_the_link() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    let (link, digest) = (link(&stage, &release), digest(&stage, &release));
    let decide = |code: &str| [("decision", "approve"), ("digest", &digest), ("code", code)].map(own);
    let without = post(&stage, &link, "decide", &borrowed(&decide(""))).await;
    assert_eq!(without.status, StatusCode::UNPROCESSABLE_ENTITY);
    let right = code(&stage, &release, &link).await;
    let wrong = if right == "000000" { "000001" } else { "000000" };
    for _ in 0..4 {
        let answer = post(&stage, &link, "decide", &borrowed(&decide(wrong))).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(post(&stage, &link, "decide", &borrowed(&decide(wrong))).await.status, StatusCode::LOCKED);
    let late = post(&stage, &link, "decide", &borrowed(&decide(&right))).await;
    assert!(late.status.is_client_error(), "the right code opens a locked link: {}", late.status);
    assert_eq!(state(&stage, &release), ReleaseState::AwaitingApproval);

    let right = code(&stage, &release, &link).await;
    assert_eq!(post(&stage, &link, "decide", &borrowed(&decide(&right))).await.status, StatusCode::SEE_OTHER);
    assert_eq!(state(&stage, &release), ReleaseState::Promoting);
    let again = post(&stage, &link, "decide", &borrowed(&decide(&right))).await;
    assert!(again.status.is_client_error(), "a used link decides again: {}", again.status);
    assert!(!text(&get(&stage, &link).await).contains("value=\"approve\""), "a decided release has a button");
}

#[tokio::test]
async fn a_code_sent_twenty_times_at_once_decides_once() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    let (link, digest) = (link(&stage, &release), digest(&stage, &release));
    let code = code(&stage, &release, &link).await;
    let fields = [("decision", "approve"), ("digest", digest.as_str()), ("code", code.as_str())];
    let answers = futures_util::future::join_all((0..20).map(|_| post(&stage, &link, "decide", &fields))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::SEE_OTHER).count(), 1);
    assert_eq!(state(&stage, &release), ReleaseState::Promoting);
}

#[tokio::test]
async fn a_rejection_needs_a_comment_and_keeps_what_was_typed() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    let (link, digest) = (link(&stage, &release), digest(&stage, &release));
    let code = code(&stage, &release, &link).await;
    let reject =
        |comment: &str| [("decision", "reject"), ("digest", &digest), ("code", &code), ("comment", comment)].map(own);
    assert_eq!(post(&stage, &link, "decide", &borrowed(&reject(""))).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let mut wrong = reject("the basket is <empty>");
    wrong[2].1 = "12".into();
    let page = text(&post(&stage, &link, "decide", &borrowed(&wrong)).await);
    assert!(page.contains("the basket is &#60;empty&#62;") || page.contains("the basket is &lt;empty&gt;"), "{page}");
    assert_eq!(post(&stage, &link, "decide", &borrowed(&reject("it is empty"))).await.status, StatusCode::SEE_OTHER);
    assert!(matches!(state(&stage, &release), ReleaseState::Rejected { .. }));
}

#[tokio::test]
async fn a_link_opens_its_own_release_only_and_says_nothing_of_others() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    stage.awaiting("cart").await;
    let link = link(&stage, &release);
    let token = link.rsplit('/').next().unwrap();
    let mut answers = Vec::new();
    for wrong in [
        format!("/approve/cart/1/{token}"),
        format!("/approve/shop/2/{token}"),
        format!("/approve/nothing/1/{token}"),
        format!("/approve/..%2Fshop/1/{token}"),
        "/approve/shop/1/AAAA".to_owned(),
    ] {
        let answer = get(&stage, &wrong).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{wrong}");
        // The id of the request and the paths of the page's own forms differ, what it says does not.
        let page = text(&answer);
        let said = page.split("<main").nth(1).unwrap_or_default().split("<code").next().unwrap_or_default().to_owned();
        answers.push(said);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
}

#[tokio::test]
async fn a_stale_digest_a_late_decision_and_a_superseded_release_are_refused_with_the_reason() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    let link = link(&stage, &release);
    let right = code(&stage, &release, &link).await;
    let other = format!("sha256:{}", "0".repeat(64));
    let stale = [("decision", "approve"), ("digest", other.as_str()), ("code", right.as_str())];
    assert_eq!(post(&stage, &link, "decide", &stale).await.status, StatusCode::CONFLICT);
    assert_eq!(state(&stage, &release), ReleaseState::AwaitingApproval);

    let newer = stage.pushed("shop").await;
    let newer = stage.built(&newer, Strategy::Rolling).await;
    stage.tested(&newer).await;
    let page = text(&get(&stage, &link).await);
    assert!(page.contains("build 2") || page.contains("build&nbsp;2"), "it does not say by which: {page}");
    let digest = digest(&stage, &release);
    let fields = [("decision", "approve"), ("digest", digest.as_str()), ("code", right.as_str())];
    assert!(post(&stage, &link, "decide", &fields).await.status.is_client_error());

    let link = self::link(&stage, &newer);
    let right = code(&stage, &newer, &link).await;
    stage.pass_ms(80 * HOUR_MS);
    let digest = self::digest(&stage, &newer);
    let fields = [("decision", "approve"), ("digest", digest.as_str()), ("code", right.as_str())];
    assert!(post(&stage, &link, "decide", &fields).await.status.is_client_error());
    assert_ne!(state(&stage, &newer), ReleaseState::Promoting);
}

#[tokio::test]
async fn only_deciders_act_on_an_approval() {
    let stage = test_app();
    let release = stage.awaiting("shop").await;
    let digest = digest(&stage, &release);
    let act = async |role: Role, verb: &str| {
        let token = stage.token(role).await;
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("decision", "approve"), ("digest", &digest)])
            .finish();
        let request = Request::post(format!("/services/shop/approvals/1/{verb}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::from(body));
        stage.send(request.unwrap()).await.status
    };
    for verb in ["decide", "claim", "release", "ask-again"] {
        assert_eq!(act(Role::Developer, verb).await, StatusCode::FORBIDDEN, "{verb}");
    }
    assert_eq!(act(Role::Tester, "decide").await, StatusCode::SEE_OTHER);
    assert_eq!(state(&stage, &release), ReleaseState::Promoting);
}

#[tokio::test]
async fn a_form_of_a_page_that_gives_no_referrer_is_taken_from_this_site_only() {
    let stage = test_app();
    for (site, wanted) in [
        (Some("same-origin"), StatusCode::SEE_OTHER),
        (Some("cross-site"), StatusCode::FORBIDDEN),
        (None, StatusCode::FORBIDDEN),
    ] {
        let mut request = Request::post("/settings/theme").header(header::ORIGIN, "null");
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        let answer = stage.send(request.body(Body::from("theme=dark&back=/")).unwrap()).await;
        assert_eq!(answer.status, wanted, "{site:?}");
    }
}

#[tokio::test]
async fn signing_in_gives_a_session_and_a_wrong_password_the_same_page() {
    let stage = test_app();
    stage.caller(Role::Developer).await;
    let sign_in = async |password: &str| {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("name", "developer"), ("password", password), ("next", "/services")])
            .finish();
        let request = Request::post("/sign-in").header(header::ACCEPT, "text/html").body(Body::from(body)).unwrap();
        stage.send(request).await
    };
    let wrong = sign_in("wrong").await;
    assert!(wrong.status.is_client_error() && text(&wrong).contains("value=\"developer\""));
    let right = sign_in("password of developer").await;
    assert_eq!((right.status, right.headers[header::LOCATION].to_str().unwrap()), (StatusCode::SEE_OTHER, "/services"));
    let cookie = right.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with(cookie_name(&stage.app)) && cookie.contains("HttpOnly") && cookie.contains("SameSite"));
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let board = Request::get("/services").header(header::COOKIE, cookie).body(Body::empty()).unwrap();
    assert_eq!(stage.send(board).await.status, StatusCode::OK);
    let nobody = get(&stage, "/services").await;
    assert_eq!(nobody.status, StatusCode::SEE_OTHER);
    assert_eq!(nobody.headers[header::LOCATION], "/sign-in?to=%2Fservices");
}

fn own((name, value): (&'static str, &str)) -> (&'static str, String) {
    (name, value.to_owned())
}

fn borrowed<'a>(fields: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    fields.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test]
async fn a_held_run_asks_release_managers_only() {
    let stage = test_app();
    stage.pushed("shop").await;
    let run = stage.forked("shop", 7).await;
    let page = async |role: Role| {
        let token = stage.token(role).await;
        let request = Request::get(format!("/services/shop/runs/{}", run.number))
            .header(header::ACCEPT, "text/html")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        text(&stage.send(request.body(Body::empty()).unwrap()).await)
    };
    let (allow, decline) = (format!("runs/{}/allow", run.number), format!("runs/{}/decline", run.number));
    let manager = page(Role::ReleaseManager).await;
    assert!(
        manager.contains(&allow) && manager.contains(&decline) && manager.contains("/compare/main..."),
        "{manager}"
    );
    assert!(manager.contains("Its commit is being looked at."), "{manager}");
    let developer = page(Role::Developer).await;
    assert!(developer.contains("What would run") && !developer.contains(&decline), "{developer}");
    assert!(developer.contains("disabled>Allow this run<small>only a release manager can"), "{developer}");
}
