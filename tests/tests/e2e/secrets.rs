//! Secrets as an operator sets them and steps use them: a step prints its secrets in every form that programs write, and
//! they are found nowhere: no file of the state folder, no log, no answer of the API, no page, no container, no image.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Tier, docker::BASE_IMAGE, evidence::record, require};

use crate::{
    api::text,
    sample::Version,
    world::{PARTS, World},
};

const SERVICE: &str = "vault";
const TOKEN: &str = "w9/K+tr4\"Zq=u7 Lm2&vX";
const KEY: &str =
    "-----BEGIN KEY-----\nZm9vYmFyYmF6cXV4Zm9vYmFy+/0a\nc2Vjb25kIGxpbmUgb2Yga2V5++/1b\n-----END KEY-----\n";
const SHARED: &str = "shared-5hV8pQ2x";

/// What programs do with a secret. Each command leaves something in the log that must not hold it.
const FORMS: [&str; 16] = [
    "echo \"plain $TOKEN end\"",
    "echo \"plain $TOKEN end\" >&2",
    "printf '%s' \"$TOKEN\" | base64",
    "printf 'x%s' \"$TOKEN\" | base64",
    "printf 'user:%s' \"$TOKEN\" | base64 | tr '+/' '-_'",
    "printf '%s' \"$TOKEN\" | sed 's#%#%25#g; s#/#%2F#g; s#+#%2B#g; s#\"#%22#g; s#=#%3D#g; s# #%20#g; s#&#%26#g'",
    "printf '%s' \"$TOKEN\" | sed 's#/#%2f#g; s#+#%2b#g; s#\"#%22#g; s#=#%3d#g; s# #+#g; s#&#%26#g'",
    "printf '{\"t\":\"%s\"}\\n' \"$(printf '%s' \"$TOKEN\" | sed 's/\"/\\\\\"/g')\"",
    "printf '%s' \"$TOKEN\" | cut -c1-9 | tr -d '\\n'; sleep 2; printf '%s' \"$TOKEN\" | cut -c10-",
    "for i in $(seq 1 21); do printf '%s' \"$TOKEN\" | cut -c$i | tr -d '\\n'; done; echo",
    "printf '%s\\n' \"$TOKEN\" | fold -w 5",
    "printf '%s' \"$SIGNING_KEY\"",
    "printf '%s' \"$SIGNING_KEY\" | base64",
    "printf '%s' \"$SIGNING_KEY\" | tr '\\n' '|'; echo",
    "(set -x; : \"$TOKEN\" \"$SHARED_WORD\") 2>&1",
    "env; printf '%s' \"$TOKEN\" > left-behind",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_reach_the_steps_that_name_them_and_nothing_else() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let world = World::start(&[]).await?;
    let service = world.service(SERVICE).await?;
    set(&world, &format!("services/{SERVICE}/secrets/DEPLOY_TOKEN"), json!({ "value": TOKEN })).await?;
    set(&world, &format!("services/{SERVICE}/secrets/SIGNING_KEY"), json!({ "value": KEY })).await?;
    set(&world, "secrets/SHARED_WORD", json!({ "value": SHARED, "services": [SERVICE] })).await?;
    refusals(&world).await?;

    let mut version = Version::new(SERVICE, "1", json!({ "strategy": "rolling" }));
    version.pipeline["steps"] = json!([
        {
            "name": "show", "image": BASE_IMAGE, "commands": FORMS,
            "environment": { "TOKEN": { "from_secret": "DEPLOY_TOKEN" } },
            "secrets": ["SIGNING_KEY", "SHARED_WORD"],
        },
        { "name": "without", "image": BASE_IMAGE, "commands": [
            "test -z \"$DEPLOY_TOKEN$TOKEN$SIGNING_KEY$SHARED_WORD\"",
            // What another step left in the workspace is hidden as well, and gone before the image is made of it.
            "cat left-behind", "rm left-behind",
        ] },
    ]);
    service.push(&version)?;
    let run = world.ended_run(SERVICE, 1).await?;
    ensure!(run["state"] == "succeeded", "the run did not succeed: {run}");

    let log = lines(&world, 1, "show").await?;
    let masked = log.iter().filter(|line| line.contains("***")).count();
    ensure!(log.iter().any(|line| line == "plain *** end") && masked >= 15, "the step did not print it: {log:#?}");
    let left = lines(&world, 1, "without").await?;
    ensure!(left.iter().any(|line| line.starts_with("***")), "the other step did not print it: {left:#?}");

    last_use(&world).await?;
    let looked = nowhere(&world, &run).await?;
    missing(&world, &service, version).await?;
    record(
        "a secret in 16 forms is found nowhere in plain",
        Tier::Live,
        format!("{looked} files, answers and containers"),
    );
    world.all_held();
    Ok(())
}

async fn set(world: &World, path: &str, body: Value) -> Result<()> {
    let (status, answer) = world.api.ask(Method::PUT, path, Some(&body)).await?;
    ensure!(status.is_success(), "{path} was answered {status}: {answer}");
    Ok(())
}

/// What could not be hidden is refused, and the refusal does not repeat it.
async fn refusals(world: &World) -> Result<()> {
    for (value, why) in [("q8Z", "shorter than 4"), ("q8Z\nr7Y\ns6X", "none of its lines")] {
        let path = format!("services/{SERVICE}/secrets/SHORT");
        let (status, answer) = world.api.ask(Method::PUT, &path, Some(&json!({ "value": value }))).await?;
        let detail = text(&answer, "detail")?;
        ensure!(status.as_u16() == 422 && detail.contains(why) && !detail.contains("q8Z"), "{status} {answer}");
    }
    Ok(())
}

async fn last_use(world: &World) -> Result<()> {
    let listed = world.api.get(&format!("services/{SERVICE}/secrets")).await?;
    let items = listed["items"].as_array().context("no list")?;
    ensure!(items.len() == 3, "not three secrets: {listed}");
    for secret in items {
        ensure!(secret["last_run"] == format!("{SERVICE}/1") && secret["set_by"] == "admin", "{secret}");
    }
    Ok(())
}

/// Looks everywhere; gives the number of places.
async fn nowhere(world: &World, run: &Value) -> Result<usize> {
    let mut places = BTreeMap::new();
    files(world.folder(), &mut places)?;
    for path in ["openapi.json", "audit", "board", "queue", "health", "secrets", "accounts", "tokens"] {
        let (_, answer) = world.api.ask(Method::GET, path, None).await?;
        places.insert(format!("/api/v1/{path}"), answer.to_string().into_bytes());
    }
    for step in ["checkout", "show", "without", "image", "push"] {
        let path = format!("services/{SERVICE}/runs/1/steps/{step}/log");
        places.insert(path.clone(), world.api.get(&path).await?.to_string().into_bytes());
    }
    for path in ["", "/releases", "/runs/1", "/secrets", "/status", "/deliveries"] {
        let path = format!("services/{SERVICE}{path}");
        places.insert(path.clone(), world.api.get(&path).await?.to_string().into_bytes());
    }
    for path in [
        "/",
        "/services",
        "/secrets",
        "/services/vault",
        "/services/vault/secrets",
        "/services/vault/runs/1",
        "/audit",
        "/api/v1/audit/export",
    ] {
        places.insert(path.to_owned(), world.api.page(path).await?.into_bytes());
    }
    let page = world.api.page("/services/vault/runs/1/log").await?;
    ensure!(page.contains("plain *** end"), "the page of the log shows something else: {page}");
    places.insert("the log as text".to_owned(), page.into_bytes());
    let all = world.engine.docker(&["ps", "-aq", "--no-trunc"])?;
    for id in all.split_whitespace() {
        // One of another test may go meanwhile.
        let inspected = world.engine.docker(&["inspect", id]).unwrap_or_default();
        places.insert(format!("docker inspect {id}"), inspected.into_bytes());
    }
    // The image as it was pushed: its manifest, and its configuration with the history of its build.
    let digest = text(run, "digest")?;
    let before = places.len();
    files(&world.test.data(), &mut places)?;
    let history = places.values().any(|content| content.windows(9).any(|window| window == b"\"history\""));
    ensure!(places.len() > before && history, "{digest} is not among the registry's files");

    let needles = needles();
    for (place, content) in &places {
        for (name, needle) in &needles {
            let found = content.windows(needle.len()).any(|window| window == needle.as_bytes());
            ensure!(!found, "{name} is in {place}");
        }
    }
    // The search finds what is there.
    let names = places.values().filter(|content| content.windows(12).any(|window| window == b"DEPLOY_TOKEN")).count();
    ensure!(names >= 3, "the name of the secret is in {names} places: the search does not see what is there");
    Ok(places.len())
}

/// What must be nowhere: of base64 what does not depend on the neighbours.
fn needles() -> Vec<(String, String)> {
    let mut needles = vec![
        ("the token".to_owned(), TOKEN.to_owned()),
        ("the beginning of the token".to_owned(), TOKEN[..12].to_owned()),
        ("the end of the token".to_owned(), TOKEN[9..].to_owned()),
        ("the token in a URL".to_owned(), "w9%2FK%2Btr4%22Zq%3Du7".to_owned()),
        ("the token in a form".to_owned(), "w9%2fK%2btr4%22Zq%3du7".to_owned()),
        ("the token in JSON".to_owned(), TOKEN.replace('"', "\\\"")),
        ("the shared word".to_owned(), SHARED.to_owned()),
    ];
    needles.extend(KEY.lines().skip(1).take(2).map(|line| ("a line of the key".to_owned(), line.to_owned())));
    // Wrapped at any column, a piece of the key's base64 stands in one line or the next.
    let whole = STANDARD.encode(KEY);
    let inner = whole.get(28..whole.len().saturating_sub(32)).unwrap_or_default();
    let pieces = inner.as_bytes().chunks_exact(12).map(|piece| String::from_utf8_lossy(piece).into_owned());
    needles.extend(pieces.map(|piece| ("a piece of the key in base64".to_owned(), piece)));
    for secret in [TOKEN, SHARED] {
        for pad in 0..3 {
            let encoded = STANDARD.encode(format!("{}{secret}", &"xxx"[..pad]));
            let inner = encoded[4..encoded.len() - 4].to_owned();
            needles.push((format!("base64 at {pad}"), inner.replace('+', "-").replace('/', "_")));
            needles.push((format!("base64 at {pad}"), inner));
        }
    }
    needles
}

fn files(folder: &Path, places: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // What runs may take its files away meanwhile; a socket has no content.
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            files(&path, places)?;
        } else if about.is_file() {
            places.insert(path.display().to_string(), fs::read(&path).unwrap_or_default());
        }
    }
    Ok(())
}

async fn lines(world: &World, run: u32, step: &str) -> Result<Vec<String>> {
    let window = world.api.get(&format!("services/{SERVICE}/runs/{run}/steps/{step}/log")).await?;
    let lines = window["lines"].as_array().context("the log has no lines")?;
    Ok(lines.iter().filter_map(|line| line["text"].as_str()).map(str::to_owned).collect())
}

/// A step that names a secret that does not exist is not begun, and says what to do.
async fn missing(world: &World, service: &crate::world::Service, mut version: Version) -> Result<()> {
    version.name = "2".to_owned();
    version.pipeline["steps"] =
        json!([{ "name": "deploy", "image": BASE_IMAGE, "commands": ["echo begun"], "secrets": ["NOT_THERE"] }]);
    service.push(&version)?;
    let run = world.ended_run(SERVICE, 2).await?;
    let reason = text(&run, "reason")?;
    ensure!(run["state"] == "failed" && run["blame"] == "code", "a secret is missing, and the run ended as {run}");
    let command = format!("windlass secret set NOT_THERE --service {SERVICE}");
    ensure!(reason.contains("step deploy names the secret NOT_THERE") && reason.contains(&command), "{reason}");
    let log = lines(world, 2, "deploy").await?;
    ensure!(!log.iter().any(|line| line == "begun"), "the step was begun: {log:#?}");
    record("a step without its secret does not begin and says how to set it", Tier::Live, reason);
    Ok(())
}
