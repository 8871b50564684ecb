//! Sessions through the whole router, by the clock of the test: how they end, that a new key comes with each sign-in and
//! each new password, and what their owner sees and ends.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use pipelines::{journal::Origin, protocol::Secret};

use super::{Stage, signed_in};
use crate::{
    app::Role,
    http::access::{cookie_name, csrf_of},
    testing::{Answer, test_app, test_app_with},
};

async fn is_in(stage: &Stage, cookie: &str) -> bool {
    let request = Request::get("/services").header(header::COOKIE, cookie).body(Body::empty()).unwrap();
    stage.send(request).await.status == StatusCode::OK
}

async fn post(stage: &Stage, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
    let key = cookie.split_once('=').map(|(_, key)| key).unwrap_or_default();
    let body = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("_csrf", &csrf_of(&stage.app, key))
        .extend_pairs(fields)
        .finish();
    let request = Request::post(path).header(header::COOKIE, cookie).header(header::ACCEPT, "text/html");
    stage.send(request.body(Body::from(body)).unwrap()).await
}

/// The cookie that an answer sets, as a browser sends it.
fn given(stage: &Stage, answer: &Answer) -> String {
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with(cookie_name(&stage.app)));
    cookie
}

#[tokio::test]
async fn a_session_that_is_not_used_ends_and_one_that_is_used_ends_too_in_the_end() {
    let stage = test_app_with(|config| {
        config.bounds.session_idle_ms = 1_000;
        config.bounds.session_life_ms = 3_500;
    });
    let (_, idle) = signed_in(&stage, Role::Developer).await;
    let (_, used) = signed_in(&stage, Role::Developer).await;
    for _ in 0..3 {
        stage.pass_ms(1_000);
        assert!(is_in(&stage, &used).await);
    }
    assert!(!is_in(&stage, &idle).await, "it was not used for longer than a session may be idle");
    stage.pass_ms(500);
    assert!(is_in(&stage, &used).await, "the last moment of its life");
    stage.pass_ms(1);
    assert!(!is_in(&stage, &used).await, "it was used all the time, and is too old");
}

#[tokio::test]
async fn the_last_use_is_written_down_and_what_is_over_is_swept() {
    let stage = test_app();
    let idle_ms = stage.app.config.bounds.session_idle_ms;
    signed_in(&stage, Role::Developer).await;
    let (_, used) = signed_in(&stage, Role::Developer).await;
    stage.pass_ms(idle_ms);
    assert!(is_in(&stage, &used).await);
    stage.pass_ms(1);
    assert_eq!(stage.app.store().sessions().unwrap().len(), 2);
    stage.app.sessions_keep().await.unwrap();
    let kept = stage.app.store().sessions().unwrap();
    assert_eq!(kept.len(), 1, "the idle one is swept");
    assert_eq!(kept[0].1.used_at.plus_ms(1), stage.app.now(), "the use is on disk, where a restart finds it");
}

#[tokio::test]
async fn a_new_sign_in_gives_a_new_key_and_the_old_one_is_over() {
    let stage = test_app();
    let (_, old) = signed_in(&stage, Role::Developer).await;
    let (_, elsewhere) = signed_in(&stage, Role::Developer).await;
    let fields = [("name", "developer"), ("password", "password of developer")];
    let new = given(&stage, &post(&stage, "/sign-in", &old, &fields).await);
    assert_ne!(new, old);
    assert!(is_in(&stage, &new).await && is_in(&stage, &elsewhere).await);
    assert!(!is_in(&stage, &old).await, "the key from before the sign-in still opens");
}

#[tokio::test]
async fn signing_out_ends_it_on_the_server() {
    let stage = test_app();
    let (_, cookie) = signed_in(&stage, Role::Developer).await;
    let answer = post(&stage, "/sign-out", &cookie, &[]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert!(answer.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert!(!is_in(&stage, &cookie).await);
    assert!(stage.app.store().sessions().unwrap().is_empty());
}

#[tokio::test]
async fn another_role_another_password_and_a_lock_end_all_sessions() {
    let stage = test_app();
    stage.caller(Role::Admin).await;
    let change = async |role, password: Option<&str>, locked| {
        let password = password.map(Secret::new);
        stage.app.account_update("tester", role, None, password, locked, Origin::server()).await.unwrap();
    };
    let (_, cookie) = signed_in(&stage, Role::Tester).await;
    change(None, None, None).await;
    stage
        .app
        .account_update("tester", None, Some("new@example.com".into()), None, None, Origin::server())
        .await
        .unwrap();
    assert!(is_in(&stage, &cookie).await, "another address changes nothing of what they may");
    change(Some(Role::Developer), None, None).await;
    assert!(!is_in(&stage, &cookie).await, "another role");

    let (_, cookie) = signed_in(&stage, Role::Tester).await;
    change(None, Some("another long password"), None).await;
    assert!(!is_in(&stage, &cookie).await, "another password");

    let (_, cookie) = signed_in(&stage, Role::Tester).await;
    change(None, None, Some(true)).await;
    assert!(!is_in(&stage, &cookie).await, "locked");
    change(None, None, Some(false)).await;
    assert!(!is_in(&stage, &cookie).await, "what was locked once does not come back");
}

#[tokio::test]
async fn whoever_changes_their_password_goes_on_with_a_new_key_and_alone() {
    let stage = test_app();
    let (_, cookie) = signed_in(&stage, Role::Developer).await;
    let (_, thief) = signed_in(&stage, Role::Developer).await;
    let fields = [("old", "password of developer"), ("new", "a new and long password")];
    let answer = post(&stage, "/me/password", &cookie, &fields).await;
    assert_eq!(answer.status, StatusCode::OK);
    let new = given(&stage, &answer);
    let form_token = csrf_of(&stage.app, new.split_once('=').unwrap().1);
    assert!(String::from_utf8_lossy(&answer.body).contains(&form_token), "the page's forms belong to the new session");
    assert!(is_in(&stage, &new).await);
    assert!(!is_in(&stage, &cookie).await && !is_in(&stage, &thief).await);
    let wrong = post(&stage, "/me/password", &new, &fields).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!wrong.headers.contains_key(header::SET_COOKIE) && is_in(&stage, &new).await);
}

#[tokio::test]
async fn a_new_password_ends_the_tokens_that_the_old_one_gave_and_where_it_is_wanted_all() {
    let stage = test_app();
    let (_, cookie) = signed_in(&stage, Role::Developer).await;
    let made = stage.token(Role::Developer).await;
    let sign_in = async |password: &str| {
        let login = stage.app.login("192.0.2.1", "developer", Secret::new(password), "a laptop".into()).await;
        login.unwrap().0.expose().to_owned()
    };
    let opens = async |token: &str| stage.call(Method::GET, "/api/v1/whoami", Some(token), None).await.status;
    let (good, bad) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
    let by_password = sign_in("password of developer").await;
    assert_eq!((opens(&made).await, opens(&by_password).await), (good, good));
    let fields = [("old", "password of developer"), ("new", "a new and long password")];
    let cookie = given(&stage, &post(&stage, "/me/password", &cookie, &fields).await);
    assert_eq!((opens(&made).await, opens(&by_password).await), (good, bad));
    let left = stage.app.tokens_of("developer").unwrap();
    assert_eq!(left.len(), 1, "what opens nothing is not listed: {left:?}");

    let by_password = sign_in("a new and long password").await;
    let of_another = stage.token(Role::Tester).await;
    let wrong = [("old", "a guess"), ("new", "another new password"), ("end_tokens", "1")];
    post(&stage, "/me/password", &cookie, &wrong).await;
    assert_eq!((opens(&made).await, opens(&by_password).await), (good, good), "the password was not changed");
    let fields = [("old", "a new and long password"), ("new", "another new password"), ("end_tokens", "1")];
    assert_eq!(post(&stage, "/me/password", &cookie, &fields).await.status, StatusCode::OK);
    assert_eq!((opens(&made).await, opens(&by_password).await, opens(&of_another).await), (bad, bad, good));

    let admin = stage.token(Role::Admin).await;
    let change = serde_json::json!({"end_tokens": true});
    let answer = stage.call(Method::PATCH, "/api/v1/accounts/tester", Some(&admin), Some(change)).await;
    assert_eq!((answer.status, opens(&of_another).await, opens(&admin).await), (good, bad, good));
}

#[tokio::test]
async fn the_sessions_of_an_account_are_bounded() {
    let stage = test_app_with(|config| config.bounds.sessions_per_account_max = 3);
    let (_, of_another) = signed_in(&stage, Role::Admin).await;
    let mut cookies = Vec::new();
    for _ in 0..10 {
        stage.pass_ms(1);
        cookies.push(signed_in(&stage, Role::Developer).await.1);
        // The first one is used all the time: the others make room.
        assert!(is_in(&stage, &cookies[0]).await);
    }
    assert_eq!(stage.app.store().sessions().unwrap().len(), 4);
    let mut good = Vec::new();
    for (at, cookie) in cookies.iter().enumerate() {
        if is_in(&stage, cookie).await {
            good.push(at);
        }
    }
    assert_eq!(good, [0, 8, 9]);
    assert!(is_in(&stage, &of_another).await);
}

#[tokio::test]
async fn everybody_sees_and_ends_their_own_sessions_and_nobody_else_s() {
    let stage = test_app();
    let sign_in = |agent: &str| {
        let body = "name=developer&password=password+of+developer".to_owned();
        let request = Request::post("/sign-in").header(header::USER_AGENT, agent).body(Body::from(body)).unwrap();
        stage.send(request)
    };
    stage.caller(Role::Developer).await;
    let this = given(&stage, &sign_in("Firefox <b>").await);
    let other = given(&stage, &sign_in("Chromium").await);
    let (_, of_admin) = signed_in(&stage, Role::Admin).await;
    let list = async |cookie: &str| {
        let request = Request::get("/api/v1/sessions").header(header::COOKIE, cookie).body(Body::empty()).unwrap();
        stage.send(request).await.json()["items"].as_array().unwrap().clone()
    };
    let listed = list(&this).await;
    assert_eq!(listed.len(), 2);
    let find = |agent: &str| listed.iter().find(|session| session["agent"] == agent).unwrap().clone();
    assert_eq!((&find("Firefox <b>")["current"], &find("Chromium")["current"]), (&true.into(), &false.into()));
    let me = Request::get("/me").header(header::COOKIE, &this).header(header::ACCEPT, "text/html");
    let page = String::from_utf8(stage.send(me.body(Body::empty()).unwrap()).await.body.to_vec()).unwrap();
    let id = find("Chromium")["id"].as_str().unwrap().to_owned();
    assert!(page.contains("Chromium") && page.contains(&format!("/me/sessions/{id}/end")) && !page.contains("<b>\""));
    assert!(!page.contains("Firefox <b>"), "a browser's own words are no markup");
    let this_id = find("Firefox <b>")["id"].as_str().unwrap().to_owned();
    assert!(!page.contains(&format!("/me/sessions/{this_id}/end")), "one signs out of this browser by signing out");

    let admins = list(&of_admin).await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(post(&stage, &format!("/me/sessions/{admins}/end"), &this, &[]).await.status, StatusCode::NOT_FOUND);
    assert!(is_in(&stage, &of_admin).await, "somebody else's session was ended");
    assert_eq!(post(&stage, "/me/sessions/a/end", &this, &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(post(&stage, &format!("/me/sessions/{id}/end"), &this, &[]).await.status, StatusCode::SEE_OTHER);
    assert!(!is_in(&stage, &other).await && is_in(&stage, &this).await);

    let third = given(&stage, &sign_in("curl").await);
    assert_eq!(post(&stage, "/me/sessions/end-others", &this, &[]).await.status, StatusCode::SEE_OTHER);
    assert!(is_in(&stage, &this).await && !is_in(&stage, &third).await && is_in(&stage, &of_admin).await);

    let token = stage.token(Role::Developer).await;
    let ended = stage.call(Method::DELETE, &format!("/api/v1/sessions/{this_id}"), Some(&token), None).await;
    assert_eq!(ended.status, StatusCode::OK);
    assert!(!is_in(&stage, &this).await);
}

#[tokio::test]
async fn a_session_that_is_ended_while_its_use_is_written_down_stays_ended() {
    let stage = test_app();
    let (key, cookie) = signed_in(&stage, Role::Developer).await;
    for _ in 0..20 {
        stage.pass_ms(10);
        assert!(is_in(&stage, &cookie).await);
        stage.app.sessions_keep().await.unwrap();
    }
    stage.pass_ms(10);
    assert!(is_in(&stage, &cookie).await);
    let (kept, ended) = tokio::join!(stage.app.sessions_keep(), stage.app.sign_out(&key, ""));
    assert!(kept.is_ok() && ended.is_ok());
    assert!(!is_in(&stage, &cookie).await);
    stage.app.sessions_keep().await.unwrap();
    assert!(stage.app.store().sessions().unwrap().is_empty());
}
