//! Nothing that opens something is ever written where it can be read: logs at the finest level, what is kept, the journal,
//! pages, answers, addresses.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use pipelines::protocol::Secret;
use reqwest::header;
use serde_json::json;
use server::{app::sessions::SeenFrom, http::router::routes, store::Role};
use tests::{Tier, evidence::record};

use crate::{
    attacks::Attacker,
    stage::{Stage, TESTERS},
};

const GIT_TOKEN: &str = "mark-git-token-7d1f";
const HOOK_SECRET: &str = "mark-hook-secret-93ab";
const PASSWORD: &str = "mark-password-55c0";
const WRONG_PASSWORD: &str = "mark-wrong-password-18ee";
/// The stage's registry password.
const REGISTRY_PASSWORD: &str = "mark-registry-password";

/// Everything that this process logs.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// What was said to whom, to be searched at the end.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    async fn hear(&mut self, what: &str, answer: reqwest::Response) -> Result<String> {
        // A cookie is the reader's own, and so is the link that a redirect leads back to from one of its forms.
        let page = answer.url().path().rsplit_once('/').map(|(page, _)| page.as_bytes().to_vec());
        let is_own = |name: &header::HeaderName, value: &header::HeaderValue| {
            *name == header::SET_COOKIE || *name == header::LOCATION && page.as_deref() == Some(value.as_bytes())
        };
        let headers = answer.headers().iter().filter(|(name, value)| !is_own(name, value));
        let headers: String = headers.map(|(name, value)| format!("{name}: {value:?}\n")).collect();
        let body = answer.text().await?;
        self.0.push((what.to_owned(), format!("{headers}\n{body}")));
        Ok(body)
    }
}

/// Opens everything that there is to open, rightly and wrongly, and gives the secrets that came up.
async fn everything(stage: &Stage, said: &mut Said) -> Result<Vec<(&'static str, String)>> {
    let (app, http, url) = (&stage.app, &stage.http, &stage.url);
    let origin = pipelines::journal::Origin::server();
    let account = app.account_create("root", "root@example.com", Role::Admin, Secret::new(PASSWORD), origin).await?;
    let session = app.session_begin(&account, &SeenFrom::default(), None).await?;
    let login = |password: &str| {
        let body = json!({"name": "root", "password": password, "label": "a test"});
        http.post(format!("{url}/api/v1/login")).json(&body).send()
    };
    let token: serde_json::Value = login(PASSWORD).await?.json().await?;
    let token = token["token"].as_str().context("there is no token")?.to_owned();
    said.hear("a wrong sign-in by the API", login(WRONG_PASSWORD).await?).await?;
    let form = [("name", "root"), ("password", WRONG_PASSWORD), ("next", "/")];
    said.hear("a wrong sign-in by the page", http.post(format!("{url}/sign-in")).form(&form).send().await?).await?;
    let form = [("name", "root"), ("password", PASSWORD), ("next", "/")];
    said.hear("a sign-in by the page", http.post(format!("{url}/sign-in")).form(&form).send().await?).await?;

    let body = json!({
        "name": "sealed", "repository_url": "http://127.0.0.1:1/sealed.git", "hook_secret": HOOK_SECRET,
        "credential": {"kind": "token", "user": "ci", "token": GIT_TOKEN},
    });
    let made = http.post(format!("{url}/api/v1/services")).bearer_auth(&token).json(&body).send().await?;
    ensure!(made.status() == 201, "the service was not made: {}", made.status());
    said.hear("a new service", made).await?;
    for signature in ["00", &hex::encode(HOOK_SECRET)] {
        let hook = http.post(format!("{url}/hooks/sealed")).header("x-gitea-event", "push");
        let hook = hook.header("x-gitea-delivery", "1").header("x-gitea-signature", signature).body("{}");
        said.hear("a refused hook", hook.send().await?).await?;
    }
    // The drivers try to reach repository and engine meanwhile, with what opens them.
    let attacker = Attacker::new(stage);
    let release = stage.awaiting(&stage.service("shop").await?).await?;
    let link = stage.link(&release, TESTERS[0]).await?;
    let csrf = attacker.form_token(&link).await?;
    said.hear("asking for a code", http.post(format!("{link}/code")).form(&[("_csrf", &csrf)]).send().await?).await?;
    let code = stage.code(&release, TESTERS[0]).await?;
    let wrong = [("_csrf", csrf.as_str()), ("decision", "approve"), ("code", "12")];
    http.post(format!("{link}/decide")).form(&wrong).send().await?;
    let digest = app.release(&release)?.digest.to_string();
    let good = [("_csrf", csrf.as_str()), ("decision", "approve"), ("code", &code), ("digest", &digest)];
    ensure!(http.post(format!("{link}/decide")).form(&good).send().await?.status() == 303, "it was not approved");
    let link_token = link.rsplit('/').next().context("the link has a token")?.to_owned();
    for odd in [format!("{link}x"), format!("{link}/none")] {
        said.hear("a wrong link", http.get(&odd).header(header::ACCEPT, "application/json").send().await?).await?;
    }
    Ok(vec![
        ("session", session),
        ("bearer token", token),
        ("approval link", link_token),
        ("form token", csrf),
        ("code", code),
        ("git token", GIT_TOKEN.to_owned()),
        ("hook secret", HOOK_SECRET.to_owned()),
        ("password", PASSWORD.to_owned()),
        ("wrong password", WRONG_PASSWORD.to_owned()),
        ("registry password", REGISTRY_PASSWORD.to_owned()),
    ])
}

/// Every page and answer that an admin can read, of the routes without an end. Not the folder of mails, which shows what
/// was mailed; nor the page behind the link, whose own forms lead to it.
async fn read_all(stage: &Stage, token: &str, said: &mut Said) -> Result<usize> {
    let is_read = |path: &str| {
        let is_endless = path.ends_with("stream") || path.ends_with("events");
        !is_endless && !path.starts_with("/mailbox") && !path.starts_with("/approve/")
    };
    let table = routes(Arc::clone(&stage.app)).table;
    let mut read = 0;
    for endpoint in table.iter().filter(|endpoint| endpoint.method == "GET" && is_read(&endpoint.path)) {
        for service in ["shop", "sealed"] {
            let path = endpoint.path.replace("{service}", service).replace("{number}", "1").replace("{step}", "test");
            let path = path.replace("{account}", "root").replace("{id}", "none");
            for kind in ["text/html", "application/json"] {
                let request = stage.http.get(format!("{}{path}", stage.url)).bearer_auth(token);
                said.hear(&path, request.header(header::ACCEPT, kind).send().await?).await?;
                read += 1;
            }
        }
    }
    Ok(read)
}

/// Whether the secret is in there; as a part of a longer word or number it is something else.
fn holds(content: &[u8], secret: &str) -> bool {
    let is_word = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
    let is_short = secret.len() <= 6;
    content.windows(secret.len()).enumerate().filter(|(_, window)| *window == secret.as_bytes()).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| content.get(before));
        !is_short || (!is_word(before) && !is_word(content.get(at + secret.len())))
    })
}

fn files(stage: &Stage) -> Result<Vec<(String, Vec<u8>)>> {
    let (mut found, mut folders) = (Vec::new(), vec![stage.folder().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            // What was mailed holds link and code, and the file of a password holds it: that is what they are for.
            if path.ends_with("mail") || path.ends_with("registry") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.display().to_string(), std::fs::read(&path)?));
            }
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_opens_something_is_written_down() -> Result<()> {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        // A time of day can end in the digits of a code.
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    // Of the whole process: other threads serve. Other tests may run beside this one; what they log is searched too.
    tracing::subscriber::set_global_default(subscriber).context("somebody else logs in this process")?;
    let stage = Stage::start(|_| {}).await?;
    let mut said = Said::default();
    let secrets = everything(&stage, &mut said).await?;
    let token = &secrets[1].1;
    let read = read_all(&stage, token, &mut said).await?;
    let entries = stage.app.journal(None, None, 1_000)?;
    ensure!(entries.len() > 5, "the journal has {} entries", entries.len());
    said.0.push(("the journal".into(), format!("{entries:?}")));
    said.0.push(("the queue".into(), format!("{:?}", stage.app.queue().all(1_000))));
    let log = logged.text();
    ensure!(log.contains("TRACE") && log.lines().count() > 500, "the log has {} lines", log.lines().count());
    for part in ["hyper", "performing"] {
        ensure!(log.contains(part), "nothing of {part} is in the log");
    }
    for (name, secret) in &secrets {
        let line = log.lines().find(|line| holds(line.as_bytes(), secret));
        ensure!(line.is_none(), "the {name} is in the log: {line:?}");
        for (path, content) in files(&stage)? {
            ensure!(!holds(&content, secret), "the {name} is in {path}");
        }
        for (what, text) in &said.0 {
            // The page that makes a form carries its token; nobody else's page does.
            ensure!(!holds(text.as_bytes(), secret), "the {name} is in {what}: {text}");
        }
    }
    let figure = format!("{} secrets, {} lines of log, {read} pages and answers", secrets.len(), log.lines().count());
    record("no secret, token or link in log, journal, page or answer", Tier::Contract, figure);
    stage.stop().await;
    Ok(())
}
