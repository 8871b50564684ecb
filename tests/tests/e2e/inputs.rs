//! Bad input as a user meets it: what is wrong is said where it is looked for, and nothing else breaks.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{
    Hook, Refusal, Repo, Tier, docker::BASE_IMAGE, evidence::record, http_client, process::output, require, sign_hook,
};

use crate::{
    api::text,
    sample::Version,
    tester::Tester,
    world::{PARTS, Service, World},
};

const TESTER: &str = "qa@example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_told_where_it_is_looked_for() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let mut world = World::start(&[]).await?;
    // First, because it needs all runners.
    vanished_commit(&world).await?;
    tokio::try_join!(
        broken_file(&world),
        closed_repository(&world),
        red_dockerfile(&world),
        two_pushes(&world),
        names_that_climb(&world),
        bad_hooks(&world),
    )?;
    refusing_mail_server(&mut world).await?;
    links(&world).await?;
    world.all_held();
    Ok(())
}

fn rolling() -> Value {
    json!({ "strategy": "rolling" })
}

/// The lines of a step's log.
async fn log(world: &World, service: &str, run: u32, step: &str) -> Result<Vec<String>> {
    let path = format!("services/{service}/runs/{run}/steps/{step}/log");
    let window = world.api.get(&path).await?;
    let lines = window["lines"].as_array().context("the log has no lines")?;
    Ok(lines.iter().filter_map(|line| line["text"].as_str()).map(str::to_owned).collect())
}

/// Both runners hang on steps that never end, until their time is over. Meanwhile a commit is pushed, and goes from the
/// repository before its run begins.
async fn vanished_commit(world: &World) -> Result<()> {
    let hang = world.service("hang").await?;
    let mut version = Version::new("hang", "1", rolling());
    version.pipeline["steps"] = json!([{ "name": "hang", "image": BASE_IMAGE, "commands": ["echo waiting", "sleep 100000"], "timeout": "12s" }]);
    hang.push(&version)?;
    hang.repo.push(&hang.remote.url_with_credentials, "HEAD:refs/heads/side")?;
    let running = |run: &Value| {
        let steps = run["steps"].as_array()?;
        steps.iter().find(|step| step["name"] == "hang" && step["state"] == "running").map(drop)
    };
    for number in [1, 2] {
        world.api.until(&format!("services/hang/runs/{number}"), "the step that hangs", running).await?;
    }

    let gone = world.service("gone").await?;
    let lost = gone.push(&Version::new("gone", "1", rolling()))?;
    world.api.get("services/gone/runs/1").await?;
    gone.repo.git(&["commit", "--quiet", "--amend", "-m", "another one in its place"])?;
    gone.repo.push(&gone.remote.url_with_credentials, "+HEAD:refs/heads/main")?;
    // The forge announces a push when it is stored already, and looks at the commit before it to do so.
    world.api.get("services/gone/runs/2").await?;
    let bare = world.gitea.dir().join("repositories").join(format!("{}.git", gone.remote.full_name));
    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(&bare).args(arguments));
    git(&["reflog", "expire", "--expire=now", "--all"])?;
    git(&["gc", "--quiet", "--prune=now"])?;
    ensure!(git(&["cat-file", "-e", &lost]).is_err(), "the commit has not gone");
    let run = world.api.get("services/gone/runs/1").await?;
    ensure!(run["state"] == "queued", "the run began too soon to show anything: {run}");

    for number in [1, 2] {
        let run = world.ended_run("hang", number).await?;
        ensure!(run["state"] == "failed" && run["blame"] == "code", "a step that hangs ended as {run}");
        ensure!(text(&run, "reason")?.contains("12 s"), "the reason does not name the limit: {run}");
    }
    record("a step that hangs is stopped when its time is over", Tier::Live, "limit 12 s, the reason names it");
    let run = world.ended_run("gone", 1).await?;
    let reason = text(&run, "reason")?;
    ensure!(run["state"] == "failed" && run["commit"]["sha"] == lost.as_str(), "it did not fail: {run}");
    ensure!(reason.contains(&lost[..8]), "the reason does not name the commit: {reason}");
    let next = world.ended_run("gone", 2).await?;
    ensure!(next["state"] == "succeeded", "the commit in its place did not run: {next}");
    record("a commit that vanished fails its run with a word", Tier::Live, reason);
    Ok(())
}

/// Two problems at once, with line, column and caret; and text that is no YAML at all.
async fn broken_file(world: &World) -> Result<()> {
    let service = world.service("broken").await?;
    let two = "service: broken\nbase: dockerfile@1\nstepz:\n  - name: a\nproduction:\n  strategy: cannary\n";
    let none = "service: broken\nbase: [dockerfile@1\nsteps: }\n";
    for (number, content) in [(1, two), (2, none)] {
        service.repo.write(".windlass.yaml", content)?;
        service.repo.commit("Dev <dev@example.com>", "Break the pipeline file")?;
        service.repo.push(&service.remote.url_with_credentials, "HEAD:refs/heads/main")?;
        let run = world.ended_run("broken", number).await?;
        ensure!(run["state"] == "failed" && run["blame"] == "code", "a broken file ended as {run}");
        ensure!(text(&run, "reason")?.contains(".windlass.yaml"), "the reason does not name the file: {run}");
    }
    let first = log(world, "broken", 1, "checkout").await?;
    for (place, word) in [(".windlass.yaml:3:1", "steps"), (".windlass.yaml:6:13", "canary")] {
        ensure!(first.iter().any(|line| line.contains(place)), "no problem is at {place}: {first:#?}");
        ensure!(first.iter().any(|line| line.contains(word)), "nothing suggests {word}: {first:#?}");
    }
    ensure!(first.iter().filter(|line| line.contains('^')).count() >= 2, "the carets are missing: {first:#?}");
    let second = log(world, "broken", 2, "checkout").await?;
    ensure!(second.iter().any(|line| line.contains(".windlass.yaml:")), "there is no place: {second:#?}");
    ensure!(second.iter().any(|line| line.contains('^')), "there is no caret: {second:#?}");
    let place = first.iter().find(|line| line.contains(":3:1")).cloned().unwrap_or_default();
    record("a broken pipeline file is shown on the run, with line, column and caret", Tier::Live, place.trim());
    Ok(())
}

/// A repository that asks who comes: the service says so, and runs as soon as it knows a credential.
async fn closed_repository(world: &World) -> Result<()> {
    let remote = world.gitea.create_repo("closed", true).await?;
    let repo = Repo::init()?;
    Version::new("closed", "1", rolling()).commit(&repo)?;
    repo.push(&remote.url_with_credentials, "HEAD:refs/heads/main")?;
    let service = json!({ "name": "closed", "repository_url": remote.url, "poll_interval_ms": 1_000 });
    world.api.post("services", service).await?;
    let fault = |service: &Value| service["poll_fault"]["error"].as_str().map(str::to_owned);
    let said = world.api.until("services/closed", "the fault of the poll", fault).await?;
    ensure!(said.contains("credential"), "it is not said that a credential is missing: {said}");
    let status = world.api.get("services/closed/status").await?;
    let why = text(&status["why"], "text")?;
    ensure!(why.contains("credential"), "the status does not say it: {why}");
    let (user, _) = world.gitea.admin();
    let change = json!({ "credential": { "kind": "token", "user": user, "token": world.gitea.token() } });
    let (status, answer) = world.api.ask(Method::PATCH, "services/closed", Some(&change)).await?;
    ensure!(status.is_success(), "the credential was not taken: {answer}");
    let run = world.ended_run("closed", 1).await?;
    ensure!(run["state"] == "succeeded", "it does not run: {run}");
    let words = said.split_once(' ').map_or(said.as_str(), |(_, words)| words);
    record("a repository that asks for credentials says so, and runs once it has them", Tier::Live, words);
    Ok(())
}

async fn red_dockerfile(world: &World) -> Result<()> {
    let service = world.service("red").await?;
    let mut version = Version::new("red", "1", rolling());
    version.dockerfile = version.dockerfile.replace("USER ", "RUN echo cannot go on && exit 3\nUSER ");
    service.push(&version)?;
    let run = world.ended_run("red", 1).await?;
    ensure!(run["state"] == "failed" && run["blame"] == "code", "a red Dockerfile ended as {run}");
    let steps = run["steps"].as_array().context("there are no steps")?;
    let image = steps.iter().find(|step| step["name"] == "image").context("there is no image step")?;
    ensure!(image["state"] == "failed", "the step is not red: {image}");
    let lines = log(world, "red", 1, "image").await?;
    ensure!(lines.iter().any(|line| line.contains("cannot go on")), "the output is not in the log: {lines:#?}");
    let (status, _) = world.api.ask(Method::GET, "services/red/releases/1", None).await?;
    ensure!(status == StatusCode::NOT_FOUND, "a red run made a release");
    record("a Dockerfile that fails makes a red run and no release", Tier::Live, text(&run, "reason")?);
    Ok(())
}

/// Two commits of one second, pushed one right after the other: both run, the newer one is asked about.
async fn two_pushes(world: &World) -> Result<()> {
    let service = world.service("hasty").await?;
    let url = &service.remote.url_with_credentials;
    let commit = |name: &str| Version::new("hasty", name, rolling()).commit(&service.repo);
    let commits = [commit("1")?, commit("2")?];
    for commit in &commits {
        service.repo.push(url, &format!("{commit}:refs/heads/main"))?;
    }
    let release = world.asked("hasty", 2).await?;
    ensure!(release["commit"]["sha"] == commits[1].as_str(), "another commit is asked about: {release}");
    let superseded = |release: &Value| (release["state"] == "superseded").then(|| release.clone());
    let older = world.api.until("services/hasty/releases/1", "its place to be taken", superseded).await?;
    ensure!(older["commit"]["sha"] == commits[0].as_str(), "the older release is of another commit: {older}");
    let runs = world.api.get("services/hasty/runs").await?;
    ensure!(runs["items"].as_array().is_some_and(|runs| runs.len() == 2), "not one run for each push: {runs}");
    let deliveries = world.api.get("services/hasty/deliveries").await?;
    let at = |delivery: &Value| delivery["at_ms"].as_u64();
    let times: Vec<_> = deliveries["items"].as_array().into_iter().flatten().filter_map(at).collect();
    let apart = times.iter().max().zip(times.iter().min()).map_or(0, |(last, first)| last - first);
    record(
        "two pushes at once make two runs, and the newer release takes the older one's place",
        Tier::Live,
        format!("{} hooks, {apart} ms apart", times.len()),
    );
    Ok(())
}

/// Names that leave their folder are refused everywhere, and nothing is written anywhere.
async fn names_that_climb(world: &World) -> Result<()> {
    let before = files_around(world)?;
    let names = ["../climbed", "..", "a/../../climbed", "climbed/", "%2e%2e%2fclimbed", "Climbed", ""];
    for name in names {
        let service = json!({ "name": name, "repository_url": "https://git.example.com/climbed.git" });
        let (status, answer) = world.api.ask(Method::POST, "services", Some(&service)).await?;
        ensure!(status.is_client_error(), "{name:?} was answered {status}: {answer}");
    }
    let http = http_client();
    for path in ["hooks/..%2Fclimbed", "hooks/%2e%2e", "hooks/..%5cclimbed"] {
        let answer = http.post(format!("{}/{path}", world.base)).body("{}").send().await?;
        ensure!(answer.status().is_client_error(), "{path} was answered {}", answer.status());
    }
    let path = "services/gone/runs/2/steps/..%2F..%2F..%2Fkey/log";
    let (status, answer) = world.api.ask(Method::GET, path, None).await?;
    let is_empty = answer["lines"].as_array().is_some_and(Vec::is_empty);
    ensure!(status.is_client_error() || is_empty, "{path} was answered {status}: {answer}");
    let file = json!({ "file": ".windlass.yaml", "text": "service: ../climbed\nbase: dockerfile@1\n" });
    let report = world.api.post("lint", file).await?;
    let problem = &report["problems"][0];
    ensure!(report["ok"] == false && problem["line"] == 1, "the name was taken: {report}");
    ensure!(files_around(world)? == before, "something was written");
    record(
        "a service name with ../ is refused and nothing is written",
        Tier::Live,
        format!("{} names, 3 hook addresses, a log, a pipeline file", names.len()),
    );
    Ok(())
}

/// Files beside and right below the server's folder.
fn files_around(world: &World) -> Result<BTreeSet<PathBuf>> {
    let folders = [world.folder().to_owned(), world.folder().join("state")];
    let climbed = world.folder().parent().map(|parent| parent.join("climbed")).into_iter().filter(|path| path.exists());
    let mut found: BTreeSet<_> = climbed.collect();
    for folder in folders {
        for entry in fs::read_dir(folder)? {
            found.insert(entry?.path());
        }
    }
    Ok(found)
}

/// Hooks that are forged, unsigned, too large or come again make no run.
async fn bad_hooks(world: &World) -> Result<()> {
    let service = world.service("hooked").await?;
    let commit = service.push(&Version::new("hooked", "1", rolling()))?;
    world.ended_run("hooked", 1).await?;
    let push = |commit: &str| {
        let head = json!({ "id": commit, "message": "x", "author": { "name": "x", "email": "x@example.com" } });
        json!({ "ref": "refs/heads/main", "after": commit, "head_commit": head }).to_string()
    };
    let new = push("1234567890123456789012345678901234567890");
    let signature = sign_hook(&service.secret, new.as_bytes())?;
    let large = " ".repeat(6 << 20);
    let large_signature = sign_hook(&service.secret, large.as_bytes())?;
    let wrong = sign_hook("another secret", new.as_bytes())?;
    let cases = [
        ("forged", &new, Some(&wrong), StatusCode::FORBIDDEN),
        ("unsigned", &new, None, StatusCode::FORBIDDEN),
        ("signed over other bytes", &push(&commit), Some(&signature), StatusCode::FORBIDDEN),
        ("too large", &large, Some(&large_signature), StatusCode::PAYLOAD_TOO_LARGE),
    ];
    for (what, body, signature, wanted) in cases {
        let status = hook(world, &service, &format!("bad-{what}"), body, signature.map(String::as_str)).await?;
        ensure!(status == wanted, "a hook that is {what} was answered {status}");
    }
    let known = push(&commit);
    let signature = sign_hook(&service.secret, known.as_bytes())?;
    for _ in 0..3 {
        let status = hook(world, &service, "replayed", &known, Some(&signature)).await?;
        ensure!(status == StatusCode::ACCEPTED, "a replayed hook was answered {status}");
    }
    let replayed = |deliveries: &Value| {
        let all = deliveries["items"].as_array()?;
        let one = all.iter().find(|it| it["forge_id"] == "replayed" && it["state"] != "received")?;
        (one["repeats"] == 2).then(|| one.clone())
    };
    let delivery = world.api.until("services/hooked/deliveries", "the replayed delivery", replayed).await?;
    ensure!(delivery["state"] == "ignored", "the replayed hook did something: {delivery}");
    let runs = world.api.get("services/hooked/runs").await?;
    ensure!(runs["items"].as_array().is_some_and(|runs| runs.len() == 1), "a bad hook made a run: {runs}");
    record(
        "forged, unsigned, oversized and replayed hooks make no run",
        Tier::Live,
        "7 of them: 403, 403, 403, 413, 3 × 202",
    );
    Ok(())
}

async fn hook(world: &World, service: &Service, id: &str, body: &str, signature: Option<&str>) -> Result<StatusCode> {
    let url = format!("{}/hooks/{}", world.base, service.name);
    let hook = Hook { event: "push", id, body: body.to_owned().into_bytes() };
    Ok(hook.request(&http_client(), &url, signature).send().await?.status())
}

/// The mail waits and is tried again, the API says so, and it comes when the server takes mails again.
async fn refusing_mail_server(world: &mut World) -> Result<()> {
    world.smtp.refuse(Some(Refusal::AtMail("451 4.3.0 the queue is full".into()))).await?;
    let service = world.service("post").await?;
    service.push(&with_tester("post", "1"))?;
    world.asked("post", 1).await?;
    let waits = |release: &Value| {
        let (why, fault) = (&release["why"], &release["why"]["fault"]);
        let is_it = why["word"] == "mail_waits" && fault["tries"].as_u64().is_some_and(|tries| tries >= 2);
        is_it.then(|| why.clone())
    };
    let why = world.api.until("services/post/releases/1", "the word on the mail", waits).await?;
    let said = text(&why["fault"], "error")?;
    ensure!(said.contains("the queue is full"), "the API does not give the mail server's words: {why}");
    let tester = Tester::new(TESTER);
    ensure!(tester.asked(&world.smtp, "post", 1).is_empty(), "a refused mail came");
    world.smtp.refuse(None).await?;
    tester.link(&world.smtp, "post", 1).await?;
    let asks = |release: &Value| (release["why"]["word"] == "awaiting_decision").then_some(());
    world.api.until("services/post/releases/1", "the question", asks).await?;
    ensure!(tester.asked(&world.smtp, "post", 1).len() == 1, "the mail came more than once");
    record("a mail that is refused waits, is tried again, and the release says so", Tier::Live, said);
    Ok(())
}

fn with_tester(service: &str, name: &str) -> Version {
    let mut version = Version::new(service, name, rolling());
    version.pipeline["test"] = json!({ "testers": [TESTER] });
    version
}

/// Links that are fetched, used twice, used late, locked, or of a release whose place was taken decide nothing.
async fn links(world: &World) -> Result<()> {
    let service = world.service("links").await?;
    service.push(&with_tester("links", "1"))?;
    world.asked("links", 1).await?;
    let (tester, http) = (Tester::new(TESTER), http_client());
    let old = tester.link(&world.smtp, "links", 1).await?;
    for method in [Method::GET, Method::HEAD] {
        for _ in 0..3 {
            let answer = http.request(method.clone(), &old).send().await?;
            ensure!(answer.status() == StatusCode::OK, "{method} was answered {}", answer.status());
        }
    }
    for path in ["decide", "code"] {
        let answer = http.get(format!("{old}/{path}")).send().await?;
        ensure!(answer.status().is_client_error(), "GET of the form {path} was answered {}", answer.status());
    }
    is_asked(world, 1).await?;
    ensure!(codes_of(world, &tester) == 0, "reading the page mailed a code");
    let old_page = tester.open(&old).await?;
    let old_code = tester.code(&world.smtp, &old_page).await?;
    // Five wrong codes lock the link, until a new code is asked for.
    let wrong = if old_code == "000000" { "111111" } else { "000000" };
    let mut last = StatusCode::OK;
    for _ in 0..5 {
        last = tester.decide(&old_page, wrong, "approve", "").await?.status();
        ensure!(last.is_client_error(), "a wrong code was answered {last}");
    }
    ensure!(last == StatusCode::LOCKED, "the fifth wrong code was answered {last}");
    let answer = tester.decide(&old_page, &old_code, "approve", "").await?;
    ensure!(answer.status().is_client_error(), "a locked link was answered {}", answer.status());
    is_asked(world, 1).await?;
    let old_code = tester.code(&world.smtp, &old_page).await?;

    service.push(&with_tester("links", "2"))?;
    world.asked("links", 2).await?;
    let answer = tester.decide(&old_page, &old_code, "approve", "").await?;
    ensure!(answer.status().is_client_error(), "a superseded link was answered {}", answer.status());
    let page = tester.open(&tester.link(&world.smtp, "links", 2).await?).await?;
    let code = tester.code(&world.smtp, &page).await?;
    let mut stale = page.clone();
    stale.digest.clone_from(&old_page.digest);
    let answer = tester.decide(&stale, &code, "approve", "").await?;
    ensure!(answer.status().is_client_error(), "a superseded digest was answered {}", answer.status());
    is_asked(world, 2).await?;
    let answer = tester.decide(&page, &code, "reject", "it is blue").await?;
    ensure!(answer.status().is_redirection(), "the decision was answered {}", answer.status());
    let answer = tester.decide(&page, &code, "approve", "").await?;
    ensure!(answer.status().is_client_error(), "a second decision was answered {}", answer.status());
    let release = world.api.get("services/links/releases/2").await?;
    ensure!(release["state"] == "rejected" && release["reason"] == "it is blue", "it did not stay: {release}");

    let mut third = with_tester("links", "3");
    third.pipeline["test"]["expires"] = json!("4s");
    service.push(&third)?;
    world.asked("links", 3).await?;
    let page = tester.open(&tester.link(&world.smtp, "links", 3).await?).await?;
    let code = tester.code(&world.smtp, &page).await?;
    let expired = |release: &Value| (release["state"] == "expired").then_some(());
    world.api.until("services/links/releases/3", "the end of its time", expired).await?;
    let answer = tester.decide(&page, &code, "approve", "").await?;
    ensure!(answer.status().is_client_error(), "a late decision was answered {}", answer.status());
    record(
        "approval links that are fetched, guessed, used twice, late or superseded decide nothing",
        Tier::Live,
        "GET and HEAD change nothing, 5 wrong codes lock, only one decision is taken",
    );
    Ok(())
}

async fn is_asked(world: &World, number: u32) -> Result<()> {
    let release = world.api.get(&format!("services/links/releases/{number}")).await?;
    ensure!(release["state"] == "awaiting_approval", "something was decided: {release}");
    Ok(())
}

fn codes_of(world: &World, tester: &Tester) -> usize {
    let asked = tester.asked(&world.smtp, "links", 1).len();
    let about = |mail: &tests::Mail| mail.header("list-id").is_some_and(|list| list.contains("links"));
    world.smtp.messages().iter().filter(|mail| about(mail)).count().saturating_sub(asked)
}
