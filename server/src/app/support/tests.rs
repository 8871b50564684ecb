//! No secret that the server knows is in the bundle, and what helps is.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use axum::http::{Method, StatusCode};
use pipelines::{effect::EffectKind, ids::ServiceName};
use serde_json::json;

use super::*;
use crate::{
    app::{Role, log_tail::LogTail, trains::Outcome},
    testing::{Stage, test_app_with},
};

/// Each secret of the test holds it.
const MARK: &str = "m4rked";

async fn with_secrets() -> (Stage, tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, format!("{MARK} registry\n")).unwrap();
    let stage = test_app_with(|config| {
        config.registries.test.user = Some("robot".into());
        config.registries.test.password_file = Some(password.clone());
        config.docker_host = Some(format!("tcp://robot:{MARK}@engine.example.com:2376"));
    });
    let token = stage.token(Role::Admin).await;
    let service = json!({"name": "shop", "repository_url": "https://git.example.com/shop.git",
        "credential": {"kind": "token", "user": "robot", "token": format!("{MARK} token")},
        "hook_secret": format!("{MARK} hook")});
    let made = stage.call(Method::POST, "/api/v1/services", Some(&token), Some(service)).await;
    assert!(made.status.is_success(), "{:?}", made.body);
    for (path, value) in [("services/shop/secrets/KEY", "own"), ("secrets/SHARED", "shared")] {
        let value = json!({"value": format!("first line of it\n{MARK} {value}")});
        let set = stage.call(Method::PUT, &format!("/api/v1/{path}"), Some(&token), Some(value)).await;
        assert!(set.status.is_success(), "{path}: {:?}", set.body);
    }
    (stage, folder, token)
}

fn unpacked(bytes: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
    let entries = archive.entries().unwrap();
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    };
    entries.map(read).collect()
}

#[tokio::test]
async fn no_secret_is_in_the_bundle_even_where_one_got_into_the_log() {
    let (stage, _folder, token) = with_secrets().await;
    let tail = Arc::new(LogTail::default());
    for secret in ["registry", "token", "hook", "own", "shared"] {
        writeln!(&*tail, "by mistake: {MARK} {secret}").unwrap();
    }
    writeln!(&*tail, "as it should be").unwrap();
    stage.app.logs_into(tail);
    // A try that failed, with a secret in its error.
    let service: ServiceName = "shop".parse().unwrap();
    let failed = Outcome::Retry(format!("the host refused {MARK} token"));
    stage.perform(&service, EffectKind::PollRepository, failed).await;

    let answer = stage.call(Method::POST, "/api/v1/support-bundle", Some(&token), None).await;
    assert_eq!(answer.status, StatusCode::OK);
    let files = unpacked(&answer.body);
    let text = |name: &str| {
        let found = files.iter().find(|(path, _)| path == &format!("windlass-support/{name}"));
        found.map(|(_, text)| text.as_str()).unwrap_or_else(|| panic!("no {name}"))
    };
    for (name, text) in &files {
        assert!(!text.contains(MARK), "{name}:\n{text}");
        assert!(!text.contains(&token), "{name}");
    }
    assert!(text("log.txt").contains("as it should be") && text("log.txt").contains(HIDDEN));
    assert!(text("effects.json").contains("the host refused [secret]"));
    assert!(text("config.txt").contains("tcp://[secret]@engine.example.com"));
    assert!(text("metrics.txt").contains("windlass_effects_pending"));
    assert!(text("trains.json").contains("shop") && text("journal.jsonl").contains("support_bundle_made"));
    assert!(text("health.json").contains("disk") && text("bundle.json").contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_login_in_an_address_goes_and_nothing_else() {
    for (given, wanted) in [
        ("a https://u:p@h/x b", "a https://[secret]@h/x b"),
        ("\"tcp://p@h:1\" mail@h", "\"tcp://[secret]@h:1\" mail@h"),
        ("https://h/a@b https://u@h", "https://h/a@b https://[secret]@h"),
        ("nothing", "nothing"),
    ] {
        assert_eq!(without_logins(given), wanted);
    }
}
