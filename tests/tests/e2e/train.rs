//! The main job from outside: real pushes become live traffic, by rolling and by canary, with the testers' decisions in
//! between, while visitors are counted. A second service comes over ssh.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Mail, Otlp, Part, Repo, Sshd, Tier, evidence::record, otlp::ToldSpan, require};

use crate::{
    api::text,
    backup::windlass,
    sample::Version,
    tester::Tester,
    visitors::{Visit, failed, longest_gap},
    world::{PARTS, World},
};

const PACE: Duration = Duration::from_millis(10);
const REQUESTS_MIN: usize = 2_000;
const GAP_MAX: Duration = Duration::from_millis(100);
/// Spans are gathered for a moment before they are sent.
const TRACES_WITHIN: Duration = Duration::from_secs(30);
const TESTERS: [&str; 2] = ["qa@example.com", "lee@example.com"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_becomes_live_traffic() -> Result<()> {
    if !require(&PARTS) || !require(&[Part::Sshd]) {
        return Ok(());
    }
    let receiver = Otlp::start().await?;
    let traced = |settings: &mut Value| {
        settings["tracing"] = json!({ "otlp_endpoint": receiver.url, "batch_wait_ms": 200 });
    };
    let world = World::start_with(&[], traced).await?;
    let sshd = Sshd::start().await?;
    tokio::try_join!(shop(&world), depot(&world, &sshd))?;
    every_mail_once(&world)?;
    audited(&world).await?;
    one_trace_each(&world, &receiver).await?;
    world.all_held();
    Ok(())
}

fn with_testers(mut version: Version) -> Version {
    version.pipeline["test"] = json!({ "testers": TESTERS });
    version
}

/// Two commits over HTTP, announced by signed hooks.
async fn shop(world: &World) -> Result<()> {
    let service = world.service("shop").await?;
    let visitors = world.visitors("shop", PACE, 1);
    let began = Instant::now();
    let commit = service.push(&with_testers(Version::new("shop", "1", json!({ "strategy": "rolling" }))))?;
    deliver(world, "shop", 1, &commit).await?;
    let first = began.elapsed();
    let canary = json!({
        "strategy": "canary",
        "steps": [{ "weight": 20, "hold": "3s" }, { "weight": 50, "hold": "3s" }],
        "checks": [{ "success_rate": ">= 99%" }, { "latency_p99": "<= 5s" }],
        "judge": { "min_requests": 20 },
    });
    let began = Instant::now();
    let commit = service.push(&with_testers(Version::new("shop", "2", canary)))?;
    let rollout = deliver(world, "shop", 2, &commit).await?;
    let second = began.elapsed();
    let shares: Vec<_> = rollout["shares"].as_array().into_iter().flatten().map(|it| &it["weight_percent"]).collect();
    ensure!(shares == [0, 20, 50, 100], "the canary went another way: {rollout}");
    // Those that came before anything was live are not counted, and some are to come after the last rollout.
    let (sent, before) = (visitors.so_far(), |visit: &&Visit| visit.own.is_some());
    visitors.at_least((REQUESTS_MIN + sent.iter().filter(before).count()).max(sent.len() + 20)).await?;
    let visits = visitors.stop()?;

    let lost = failed(&visits);
    ensure!(lost.is_empty(), "{} of {} requests failed; the first: {:?}", lost.len(), visits.len(), lost[0]);
    let (gap, next) = longest_gap(&visits).context("nothing was sent")?;
    ensure!(gap < GAP_MAX, "for {gap:?} nothing was sent, of {} requests, before {next:?}", visits.len());
    let by = |version: &str| visits.iter().filter(|visit| visit.version == version).count();
    let (one, two) = (by("1"), by("2"));
    ensure!(
        one + two >= REQUESTS_MIN && one > 0 && two > 0 && visits.last().is_some_and(|visit| visit.version == "2"),
        "{one} to 1, {two} to 2"
    );
    let deliveries = world.api.get("services/shop/deliveries").await?;
    let ran: Vec<_> = deliveries["items"].as_array().into_iter().flatten().filter(|it| it["state"] == "ran").collect();
    ensure!(ran.len() == 2, "the runs were not made by the two hooks: {deliveries}");
    record(
        "a git push becomes live traffic, by rolling and by canary, and no request is lost",
        Tier::Live,
        format!(
            "{} requests ({one} to version 1, {two} to version 2), 0 failed, longest gap {} ms; {:.0} s and {:.0} s from push to live",
            one + two,
            gap.as_millis(),
            first.as_secs_f64(),
            second.as_secs_f64()
        ),
    );
    Ok(())
}

/// One commit that nobody announces, in a repository that opens to a key alone.
async fn depot(world: &World, sshd: &Sshd) -> Result<()> {
    let bare = world.folder().join("depot.git");
    let repo = Repo::init()?;
    repo.git(&["init", "--quiet", "--bare", "--initial-branch=main", &bare.to_string_lossy()])?;
    let service = json!({
        "name": "depot",
        "repository_url": sshd.url(&bare),
        "credential": { "kind": "ssh_key", "key": sshd.client_key()? },
        "known_hosts": [sshd.known_hosts()?.trim()],
        "poll_interval_ms": 1_000,
    });
    let shown = world.api.post("services", service).await?;
    ensure!(!shown.to_string().contains("PRIVATE KEY"), "the key came back: {shown}");
    let version = with_testers(Version::new("depot", "1", json!({ "strategy": "rolling" })));
    let commit = version.commit(&repo)?;
    push_over_ssh(&repo, sshd, &bare, world.folder())?;
    deliver(world, "depot", 1, &commit).await?;
    let run = world.api.get("services/depot/runs/1").await?;
    ensure!(run["trigger_source"] == "poll", "it was found another way: {run}");
    record(
        "a service over ssh, found by polling, goes live",
        Tier::Live,
        format!("commit {} from OpenSSH's server, host key pinned", &commit[..8]),
    );
    Ok(())
}

fn push_over_ssh(repo: &Repo, sshd: &Sshd, bare: &Path, folder: &Path) -> Result<()> {
    let known: PathBuf = folder.join("known_hosts");
    std::fs::write(&known, sshd.known_hosts()?)?;
    let ssh = format!(
        "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile={}",
        sshd.client_key_file().display(),
        known.display()
    );
    let mut push = repo.command();
    push.env("GIT_SSH_COMMAND", ssh).args(["push", "--quiet", &sshd.url(bare), "HEAD:refs/heads/main"]);
    tests::process::output(&mut push).map(drop)
}

/// Follows a release from its push to the end of its rollout; a tester decides.
async fn deliver(world: &World, service: &str, number: u32, commit: &str) -> Result<Value> {
    let release = world.asked(service, number).await?;
    ensure!(release["commit"]["sha"] == commit, "another commit is asked about: {release}");
    let tester = Tester::new(TESTERS[number as usize % 2]);
    let approved = tester.approve(&world.smtp, service, number).await?;
    ensure!(release["digest"] == approved, "the page asks about {approved}, the release is {release}");
    let rollout = world.ended_rollout(service, number).await?;
    ensure!(rollout["state"] == "completed", "the rollout did not complete: {rollout}");
    let digests = world.digests(service, number).await?;
    let equal = digests.test == approved && digests.production == approved && digests.running.iter().eq([&approved]);
    ensure!(equal, "{approved} was approved: {digests:?}");
    let release = world.api.get(&format!("services/{service}/releases/{number}")).await?;
    ensure!(release["state"] == "live", "the release is not live: {release}");
    ensure!(release["approval"]["decision"]["proof"] == "mailed_code", "it was decided another way: {release}");
    record(
        "the digest that a tester approved is in both registries and in the running containers",
        Tier::Live,
        format!("{:.19}… on the page, in two registries and on the engine", text(&release, "digest")?),
    );
    Ok(rollout)
}

/// Each tester is asked once about each release, over TLS, signed in, in two languages' worth of parts.
fn every_mail_once(world: &World) -> Result<()> {
    let mut asked = BTreeMap::new();
    for tester in TESTERS {
        for (service, release) in [("shop", 1), ("shop", 2), ("depot", 1)] {
            let mails = Tester::new(tester).asked(&world.smtp, service, release);
            let [mail] = mails.as_slice() else {
                anyhow::bail!("{tester} was asked {} times about {service} {release}", mails.len());
            };
            ensure!(mail.authenticated && mail.encrypted, "the mail came unprotected");
            ensure!(mail.html.is_some() && mail.text.is_some(), "the mail lacks a part");
            ensure!(is_scanner_safe(mail), "the mail has a header that acts: {:?}", mail.headers);
            let id = mail.header("message-id").context("the mail has no Message-ID")?;
            asked.insert(id.to_owned(), ());
        }
    }
    ensure!(asked.len() == 6, "two mails share a Message-ID");
    record(
        "each tester gets one mail per release, through TLS and a login",
        Tier::Live,
        "6 mails for 3 releases and 2 testers, 6 Message-IDs",
    );
    Ok(())
}

/// The audit log tells the whole train, and whoever asks from outside finds it as it was written; a file of it that was
/// changed is found out.
async fn audited(world: &World) -> Result<()> {
    let log = world.api.get("audit?service=shop&what=release_approved").await?;
    let approved = log["items"].as_array().context("there is no audit log")?;
    let is_told = |entry: &&Value| {
        entry["actor"].as_str().is_some_and(|actor| TESTERS.contains(&actor))
            && entry["channel"] == "mail_link"
            && entry["place"] == "127.0.0.1"
    };
    ensure!(approved.iter().filter(is_told).count() == 2, "two releases were approved by mailed links: {log}");
    let said = |arguments: &[&str]| windlass(world, arguments);
    let mark = said(&["audit", "head"])?.text;
    let (began, whole) = (Instant::now(), said(&["audit", "verify", "--head", mark.trim()])?);
    let took = began.elapsed();
    ensure!(whole.good && whole.text.contains("it holds what the mark"), "{}", whole.text);
    let exported = said(&["audit", "export", "--format", "csv", "--to", "audit.csv"])?;
    ensure!(exported.good, "{}", exported.text);
    ensure!(said(&["audit", "verify", "audit.csv", "--head", mark.trim()])?.good, "the file is not what was written");
    let file = std::fs::read_to_string(world.folder().join("audit.csv"))?;
    let entries = file.lines().filter(|line| line.contains("sha256:")).count();
    std::fs::write(world.folder().join("forged.csv"), file.replacen("release_approved", "release_rejected", 1))?;
    let forged = said(&["audit", "verify", "forged.csv"])?;
    ensure!(!forged.good && forged.text.contains("was changed after it was written"), "{}", forged.text);
    record(
        "the audit log of a whole train is verified from outside; a changed entry is found and named",
        Tier::Live,
        format!("about {entries} entries, {} ms; mark {:.16}…", took.as_millis(), mark.trim()),
    );
    Ok(())
}

/// The life of each release is one trace, from the hook (where there was one) to live, and it agrees with the API.
async fn one_trace_each(world: &World, receiver: &Otlp) -> Result<()> {
    let ids = ["shop/1", "shop/2", "depot/1"];
    let whole = |told: &[ToldSpan], id: &str| {
        told.iter().find(|span| span.parent.is_empty() && span.attribute("cicd.pipeline.run.id") == id).cloned()
    };
    let all = |told: &[ToldSpan]| ids.iter().map(|id| whole(told, id)).collect::<Option<Vec<_>>>();
    let roots = receiver.until("the whole of three lives", TRACES_WITHIN, all).await?;
    let told = receiver.told();
    let traces: BTreeSet<&str> = told.iter().map(|span| span.trace.as_str()).collect();
    ensure!(traces.len() == ids.len(), "{} traces were told", traces.len());
    for root in &roots {
        let id = root.attribute("cicd.pipeline.run.id");
        let spans: BTreeMap<&str, &ToldSpan> =
            told.iter().filter(|span| span.trace == root.trace).map(|span| (span.id.as_str(), span)).collect();
        let count = |name: &str| spans.values().filter(|span| span.name == name).count();
        let hooks = usize::from(id != "depot/1");
        let traffic: &[&str] = if id == "shop/2" { &["traffic 20 %", "traffic 50 %"] } else { &[] };
        let once =
            ["wait for a runner", "checkout", "image", "push", "deploy to test", "approval", "promote", "roll out"];
        for (name, times) in once.iter().chain(traffic).chain(&["traffic 100 %"]).map(|name| (*name, 1)) {
            ensure!(count(name) == times, "{id}: {} spans are called {name}", count(name));
        }
        ensure!(count("hook") == hooks, "{id}: {} hooks", count("hook"));
        // Two testers are asked, and one of them for a code.
        ensure!(count("mail") == TESTERS.len() + 1, "{id}: {} mails", count("mail"));
        for span in spans.values() {
            let is_within =
                span.start_ns >= root.start_ns && span.start_ns <= span.end_ns && span.end_ns <= root.end_ns;
            let has_parent = span.parent.is_empty() || spans.contains_key(span.parent.as_str());
            ensure!(is_within && has_parent && span.error.is_none(), "{id}: {span:?}");
        }
        let (service, number) = id.split_once('/').context("no id")?;
        let release = world.api.get(&format!("services/{service}/releases/{number}")).await?;
        ensure!(root.attribute("cicd.pipeline.result") == "success", "{root:?}");
        ensure!(root.attribute("oci.manifest.digest") == text(&release, "digest")?, "{root:?}");
        ensure!(root.attribute("vcs.ref.head.revision") == text(&release["commit"], "sha")?, "{root:?}");
    }
    let text = format!("{told:?}");
    for word in TESTERS.iter().chain(&["@example.com", "/approve/", "password", "secret-of-"]) {
        ensure!(!text.contains(word), "{word} was told in a trace");
    }
    let longest = roots.iter().map(|root| (root.end_ns - root.start_ns) / 1_000_000_000).max().unwrap_or_default();
    record(
        "the life of each release is one trace by OTLP, from the hook to live",
        Tier::Live,
        format!("{} spans in {} traces, the longest of {longest} s", told.len(), traces.len()),
    );
    Ok(())
}

/// No header of the mail lets a program act by itself (RFC 8058).
fn is_scanner_safe(mail: &Mail) -> bool {
    mail.header("list-unsubscribe-post").is_none()
}
