//! The server is killed at every place of every kind of effect, and in the middle of steps and of an image build, while
//! a release goes its way and visitors come. Nothing that was acknowledged is lost, nothing is done twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Hook, Repo, Tier, Windlass, docker::BASE_IMAGE, evidence::record, http_client, process::output, require};

use crate::{
    api::{WITHIN, text, wait_for},
    sample::Version,
    tester::{Tester, code_in, link_in},
    visitors::failed,
    world::{PARTS, World},
};

const SERVICE: &str = "anvil";
/// The service to which somebody opens a pull request from a fork; nobody says a word to it in time.
const STRANGER: &str = "tongs";
const TESTER: &str = "qa@example.com";
/// Before the effect acts, after the outside party answered, before the outcome is stored.
pub(crate) const PLACES: [&str; 3] = ["before", "answered", "storing"];
/// The file in which the server notes the places at which it died; it runs in the folder of the world.
pub(crate) const MARKS: &str = "deaths";
const LINES: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_killed_at_every_place_and_the_train_goes_on() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let environment = [("WINDLASS_CRASH", "each"), ("WINDLASS_CRASH_MARK", MARKS)];
    let hold = |settings: &mut Value| settings["hold"] = json!({ "expires_ms": 20_000 });
    let world = World::start_with(&environment, hold).await?;
    let keeper = Keeper::start(Arc::clone(&world.windlass));
    let service = world.service(SERVICE).await?;
    // The hook of the push is to find a server.
    died(&world, &places_of("poll-repository")).await?;
    let visitors = world.visitors(SERVICE, Duration::from_millis(20), 1);

    service.push(&slow())?;
    let seen = kill_while_it_runs(&world, &keeper).await?;
    approve(&world, SERVICE, TESTER, 1).await?;
    let first = world.ended_rollout(SERVICE, 1).await?;
    ensure!(first["state"] == "completed", "the first rollout did not complete: {first}");

    let canary = json!({
        "strategy": "canary",
        "steps": [{ "weight": 50, "hold": "2s" }],
        // What is compared on a machine that is killed over and over is not this test's matter.
        "judge": { "min_requests": 20, "compare": false },
    });
    service.push(&version("2", canary))?;
    approve(&world, SERVICE, TESTER, 2).await?;
    let second = world.ended_rollout(SERVICE, 2).await?;
    ensure!(second["state"] == "completed", "the second rollout did not complete: {second}");

    let mut third = version("3", json!({ "strategy": "rolling" }));
    // Long enough that the reminder at half of it is over, with its three deaths, before the end comes with its own.
    third.pipeline["test"]["expires"] = json!("24s");
    service.push(&third)?;
    // The hook of the push was taken: the forge sends it once, and the deaths that now come would lose it.
    world.asked(SERVICE, 3).await?;
    stranger(&world).await?;
    let path = format!("services/{SERVICE}/releases/3");
    let expired = |release: &Value| (release["state"] == "expired").then_some(());
    world.api.until(&path, "the end of the approval's time", expired).await?;

    died(&world, &all_places()?).await?;
    let visits = visitors.stop()?;
    let lives = keeper.stop()?;
    let lost = failed(&visits);
    ensure!(lost.is_empty(), "{} of {} requests were lost; the first: {:?}", lost.len(), visits.len(), lost[0]);
    let declined = world.ended_run(STRANGER, 1).await?;
    ensure!(declined["state"] == "declined", "nobody allowed the stranger's run, and it is {}", declined["state"]);
    nothing_twice(&world).await?;
    adopted(&world, &seen).await?;
    let deaths = deaths(&world).len();
    record(
        "killed at every place of every kind of effect, the train goes on",
        Tier::Live,
        format!(
            "{} kills: {deaths} at {} places of {} kinds of effects, {} by kill -9; one promotion and one rollout each, equal digests; {} requests, 0 lost",
            lives - 1,
            deaths,
            all_places()?.len() / PLACES.len(),
            lives as usize - 1 - deaths,
            visits.len()
        ),
    );
    world.all_held();
    Ok(())
}

/// A pull request of a fork waits for a person's word. The pull request is real; that its source is a fork is what the
/// hook says, signed as the forge signs.
async fn stranger(world: &World) -> Result<()> {
    let remote = world.gitea.create_repo(STRANGER, true).await?;
    let repo = Repo::init()?;
    let of_fork = Version::new(STRANGER, "1", json!({ "strategy": "rolling" }));
    of_fork.commit(&repo)?;
    repo.push(&remote.url_with_credentials, "HEAD:refs/heads/main")?;
    let commit = Version { name: "2".to_owned(), ..of_fork }.commit(&repo)?;
    repo.push(&remote.url_with_credentials, "HEAD:refs/heads/basket")?;
    let pull = json!({ "head": "basket", "base": "main", "title": "a basket" });
    let pulls = format!("repos/{}/pulls", remote.full_name);
    // The forge takes note of pushed branches a moment after the push.
    let open = || async {
        let made = world.gitea.api(Method::POST, &pulls, Some(pull.clone())).await;
        let why = made.as_ref().err().map(ToString::to_string).unwrap_or_default();
        (made.ok(), why)
    };
    let (made, why) = wait_for(WITHIN, open).await;
    let made = made.with_context(|| format!("the pull request is not opened: {why}"))?;
    let number = made["number"].as_u64().context("the pull request has no number")?;

    // Its branches make no run.
    let secret = world.register(STRANGER, &remote, "none").await?;
    let side = |owner: &str, branch: &str| json!({ "ref": branch, "sha": commit, "repo": { "full_name": format!("{owner}/{STRANGER}") } });
    let body = json!({ "action": "opened", "number": number, "pull_request": {
        "number": number, "title": "a basket", "user": { "login": "eve" },
        "head": side("eve", "basket"), "base": side("dev", "main"),
    }})
    .to_string();
    let hook = Hook { event: "pull_request", id: "from-a-fork", body: body.into_bytes() };
    let signed = hook.signed(&http_client(), &format!("{}/hooks/{STRANGER}", world.base), &secret)?;
    // A forge sends again what was not taken.
    let send = || async {
        let Some(request) = signed.try_clone() else { return (None, "its body cannot be sent twice".to_owned()) };
        let answer = request.send().await;
        let taken = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
        (taken.then_some(()), format!("{answer:?}"))
    };
    let (taken, answer) = wait_for(WITHIN, send).await;
    taken.with_context(|| format!("the hook is not taken: {answer}"))
}

fn version(name: &str, production: Value) -> Version {
    let mut version = Version::new(SERVICE, name, production);
    version.pipeline["test"] = json!({ "testers": [TESTER] });
    version
}

/// A version whose step and whose build take long enough to be hit.
fn slow() -> Version {
    let mut version = version("1", json!({ "strategy": "rolling" }));
    let script = format!(
        "echo \"begin $(cat /proc/sys/kernel/random/uuid)\"; echo >> .begun; i=0; \
         while [ $i -lt {LINES} ]; do i=$((i+1)); echo \"line $i\"; sleep 0.1; done; \
         echo \"begun $(wc -l < .begun) times\""
    );
    version.pipeline["steps"] = json!([{ "name": "slow", "image": BASE_IMAGE, "commands": [script] }]);
    version.dockerfile = version.dockerfile.replace("USER ", "RUN sleep 4\nUSER ");
    version
}

/// A step of which the server is killed twice goes on in its container.
pub(crate) async fn a_step_outlives_the_server(environment: &[(&str, &str)]) -> Result<()> {
    let world = World::start(environment).await?;
    let keeper = Keeper::start(Arc::clone(&world.windlass));
    let service = world.service(SERVICE).await?;
    service.push(&slow())?;
    let seen = kill_in_the_step(&world, &keeper).await?;
    step_adopted(&world, &seen).await?;
    world.all_held();
    Ok(())
}

/// A mail whose server dies before it notes that it went is sent again, with the same Message-ID.
pub(crate) async fn a_mail_has_one_id(environment: &[(&str, &str)]) -> Result<()> {
    let kind = "send-approval-mail";
    let kills = [("WINDLASS_CRASH", kind), ("WINDLASS_CRASH_MARK", MARKS)];
    let world = World::start(&[environment, &kills].concat()).await?;
    let _keeper = Keeper::start(Arc::clone(&world.windlass));
    let service = world.service(SERVICE).await?;
    service.push(&version("1", json!({ "strategy": "rolling" })))?;
    world.asked(SERVICE, 1).await?;
    died(&world, &places_of(kind)).await?;
    // The third life sends what the second one did not note.
    let sent = || async {
        let count = world.smtp.messages().len();
        ((count > 2).then_some(()), format!("{count} deliveries"))
    };
    let (found, seen) = wait_for(WITHIN, sent).await;
    found.with_context(|| format!("the mail was not sent again: {seen}"))?;
    one_id_for_each_mail(&world, SERVICE, TESTER, 1)?;
    world.all_held();
    Ok(())
}

/// Starts the server again whenever it is dead, as an operating system's service manager does.
#[derive(Debug)]
pub(crate) struct Keeper {
    windlass: Arc<Mutex<Windlass>>,
    lives: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Keeper {
    pub(crate) fn start(windlass: Arc<Mutex<Windlass>>) -> Self {
        let (lives, stop) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicBool::new(false)));
        let (kept, count, ended) = (Arc::clone(&windlass), Arc::clone(&lives), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                let mut windlass = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if !windlass.process().alive() {
                    windlass.restart()?;
                    count.fetch_add(1, Ordering::SeqCst);
                }
                drop(windlass);
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        Self { windlass, lives, stop, thread: Some(thread) }
    }

    fn kill(&self) {
        self.windlass.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    /// How many lives the server had.
    pub(crate) fn stop(mut self) -> Result<u32> {
        self.end()?;
        Ok(self.lives.load(Ordering::SeqCst))
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow::anyhow!("the keeper panicked"))?
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // A failed test has something better to say.
        let _ = self.end();
    }
}

fn places_of(kind: &str) -> BTreeSet<String> {
    PLACES.iter().map(|place| format!("{kind}:{place}")).collect()
}

/// Every place of every kind but one, by the server's own words: one that is new is killed too.
fn all_places() -> Result<BTreeSet<String>> {
    let kinds = output(Command::new(Windlass::binary()?).arg("effects"))?;
    ensure!(kinds.lines().count() > 5, "the server names too few kinds of effects: {kinds}");
    // A lease ends where a runner is gone for good, which here it never is: see `lease`.
    Ok(kinds.lines().filter(|kind| *kind != "expire-lease").flat_map(places_of).collect())
}

/// Lets it die at this place of a kind alone, or at none of them.
pub(crate) fn arm(world: &World, kind: &str, place: Option<&str>) -> Result<()> {
    let marks: String =
        PLACES.iter().filter(|other| place != Some(other)).map(|other| format!("{kind}:{other}\n")).collect();
    // Never half: the server reads it at any moment.
    let whole = world.folder().join("deaths.new");
    fs::write(&whole, marks)?;
    Ok(fs::rename(whole, world.folder().join(MARKS))?)
}

/// Where it died so far.
pub(crate) fn deaths(world: &World) -> BTreeSet<String> {
    let noted = fs::read_to_string(world.folder().join(MARKS)).unwrap_or_default();
    noted.lines().map(str::to_owned).collect()
}

/// Waits until it died at all of these places.
async fn died(world: &World, places: &BTreeSet<String>) -> Result<()> {
    let look = || async {
        let left: Vec<_> = places.difference(&deaths(world)).cloned().collect();
        (left.is_empty().then_some(()), left.join(", "))
    };
    let (found, left) = wait_for(WITHIN, look).await;
    found.with_context(|| format!("the train did not come to these places: {left}"))
}

/// Kills twice while the step runs; gives the lines of it that were shown before.
async fn kill_in_the_step(world: &World, keeper: &Keeper) -> Result<BTreeMap<u64, String>> {
    let mut seen = BTreeMap::new();
    for enough in [LINES / 6, LINES / 2] {
        let log = log_with(world, "slow", |lines| lines.len() >= enough).await?;
        keeper.kill();
        seen.extend(log);
    }
    Ok(seen)
}

/// Kills twice while a step runs and once while the image is built; gives the lines of the step that were shown before.
async fn kill_while_it_runs(world: &World, keeper: &Keeper) -> Result<BTreeMap<u64, String>> {
    let seen = kill_in_the_step(world, keeper).await?;
    log_with(world, "image", |lines| lines.values().any(|line| line.contains("sleep 4"))).await?;
    let run = world.api.get(&format!("services/{SERVICE}/runs/1")).await?;
    let image = run["steps"].as_array().into_iter().flatten().find(|step| step["name"] == "image");
    ensure!(image.is_some_and(|step| step["state"] == "running"), "the build was over too soon: {run}");
    keeper.kill();
    Ok(seen)
}

/// Reads a step's log until it holds what is wanted.
async fn log_with(
    world: &World,
    step: &str,
    wanted: impl Fn(&BTreeMap<u64, String>) -> bool,
) -> Result<BTreeMap<u64, String>> {
    step_log(world, SERVICE, 1, step, wanted).await
}

/// Reads a log until it holds what is wanted.
pub(crate) async fn step_log(
    world: &World,
    service: &str,
    run: u32,
    step: &str,
    wanted: impl Fn(&BTreeMap<u64, String>) -> bool,
) -> Result<BTreeMap<u64, String>> {
    let path = format!("services/{service}/runs/{run}/steps/{step}/log?limit=1000");
    let read = |window: &Value| {
        let lines = window["lines"].as_array()?.iter();
        let lines = lines.filter_map(|line| Some((line["number"].as_u64()?, line["text"].as_str()?.to_owned())));
        Some(lines.collect()).filter(&wanted)
    };
    world.api.until(&path, "the log", read).await
}

/// Approves by the page of the mail's link, as often as the server's deaths make it necessary.
pub(crate) async fn approve(world: &World, service: &str, tester: &str, number: u32) -> Result<()> {
    world.asked(service, number).await?;
    let tester = Tester::new(tester);
    let link = tester.link(&world.smtp, service, number).await?;
    let path = format!("services/{service}/releases/{number}");
    let began = Instant::now();
    let mut tried = BTreeSet::new();
    while world.api.get(&path).await?["state"] == "awaiting_approval" {
        ensure!(began.elapsed() < WITHIN, "the decision does not get through");
        let page = tester.open(&link).await?;
        // A code that is asked for while the server dies may be asked for twice; only one of the two mails is then right.
        let untried = tester.codes(&world.smtp, &link).into_iter().rfind(|code| !tried.contains(code));
        let code = match untried {
            Some(code) => code,
            None => tester.code(&world.smtp, &page).await?,
        };
        // Whether it was stored is seen above: the answer may be lost with the server.
        if let Ok(answer) = tester.decide(&page, &code, "approve", "").await
            && answer.status().is_client_error()
        {
            let (release, page) = (world.api.get(&path).await?, answer.text().await?);
            let is_wrong = page.contains("The code is wrong") && tried.insert(code);
            ensure!(is_wrong || release["state"] != "awaiting_approval", "the page refused: {page}");
        }
    }
    Ok(())
}

/// One promotion, one rollout, one digest everywhere, one Message-ID for each mail, no container too many.
async fn nothing_twice(world: &World) -> Result<()> {
    for number in [1, 2] {
        promoted_once(world, SERVICE, number).await?;
    }
    let rollouts = world.api.get(&format!("services/{SERVICE}/rollouts")).await?;
    ensure!(rollouts["items"].as_array().is_some_and(|all| all.len() == 2), "not one rollout each: {rollouts}");
    let runs = world.api.get(&format!("services/{SERVICE}/runs")).await?;
    ensure!(runs["items"].as_array().is_some_and(|all| all.len() == 3), "not one run for each push: {runs}");

    let digests = world.digests(SERVICE, 2).await?;
    let equal = digests.test == digests.production && digests.running.iter().eq([&digests.test]);
    ensure!(equal, "the digests differ: {digests:?}");
    // One in production, and the one that was tested last.
    // What a dead server left behind is swept when the next one has nothing to do.
    let look = || async {
        let names = world.container_names().unwrap_or_default();
        ((names.len() == 2).then_some(()), format!("{names:?}"))
    };
    let (found, names) = wait_for(WITHIN, look).await;
    found.with_context(|| format!("there are other containers than two: {names}"))?;

    let mails = one_id_for_each_mail(world, SERVICE, TESTER, 3)?;
    record(
        "a mail that is sent again after a kill carries the same Message-ID",
        Tier::Live,
        format!("{} deliveries of {mails} mails", world.smtp.messages().len()),
    );
    Ok(())
}

/// The audit log says so.
pub(crate) async fn promoted_once(world: &World, service: &str, number: u32) -> Result<()> {
    let subject = format!("release {service}/{number}");
    let journal =
        world.api.get(&format!("audit?service={service}&what=release+{service}%2F{number}&limit=100")).await?;
    let entries = journal["items"].as_array().context("there is no audit log")?;
    let of_release = entries.iter().filter(|entry| entry["subject"] == subject.as_str());
    let left = of_release.filter(|entry| entry["before"] == "promoting" && entry["after"] != "promoting");
    ensure!(left.clone().count() == 1, "{subject} was promoted {} times: {journal}", left.count());
    Ok(())
}

/// Each mail has one Message-ID, however often it was sent, and the tester was asked once about each release. Gives how
/// many different mails there are.
pub(crate) fn one_id_for_each_mail(world: &World, service: &str, tester: &str, releases: u32) -> Result<usize> {
    // What a mail is about is its code, or else its link and its first line: a reminder has another than the first mail.
    let mut ids = BTreeMap::<String, BTreeSet<String>>::new();
    for mail in world.smtp.messages() {
        let about = code_in(&mail).or_else(|| link_in(&mail)).context("a mail has neither link nor code")?;
        let about =
            format!("{about} {}", mail.text.as_deref().and_then(|text| text.lines().next()).unwrap_or_default());
        let id = mail.header("message-id").context("a mail has no Message-ID")?;
        ids.entry(about).or_default().insert(id.to_owned());
    }
    if let Some((about, ids)) = ids.iter().find(|(_, ids)| ids.len() != 1) {
        bail!("the mail about {about} has {} Message-IDs", ids.len());
    }
    let asked: BTreeSet<_> = (1..=releases)
        .flat_map(|number| Tester::new(tester).asked(&world.smtp, service, number))
        .filter_map(|mail| mail.header("message-id").map(str::to_owned))
        .collect();
    ensure!(asked.len() == releases as usize, "{releases} releases were asked about with {} Message-IDs", asked.len());
    Ok(ids.len())
}

/// The step went on in its container, and its log is whole.
async fn step_adopted(world: &World, seen: &BTreeMap<u64, String>) -> Result<()> {
    let log = log_with(world, "slow", |lines| lines.values().any(|line| line.starts_with("begun "))).await?;
    for (number, line) in seen {
        ensure!(log.get(number) == Some(line), "line {number} was {line:?} and is {:?}", log.get(number));
    }
    let begun = log.values().filter(|line| line.starts_with("begin ")).count();
    let once = begun == 1 && log.values().any(|line| line == "begun 1 times");
    ensure!(once, "the step began more than once: {log:?}");
    let printed: Vec<_> = log.values().filter(|line| line.starts_with("line ")).cloned().collect();
    let wanted: Vec<_> = (1..=LINES).map(|number| format!("line {number}")).collect();
    ensure!(printed == wanted, "lines are missing or doubled: {printed:?}");
    Ok(())
}

/// The step was adopted, and the build was visibly started again.
async fn adopted(world: &World, seen: &BTreeMap<u64, String>) -> Result<()> {
    step_adopted(world, seen).await?;
    let image = log_with(world, "image", |lines| !lines.is_empty()).await?;
    let again = image.values().find(|line| line.contains("started again"));
    let again = again.with_context(|| format!("the log of the build does not say that it began again: {image:?}"))?;
    let run = world.api.get(&format!("services/{SERVICE}/runs/1")).await?;
    ensure!(text(&run, "state")? == "succeeded", "the run failed: {run}");
    record(
        "a running step is adopted after kill -9, no line of its log is lost, a build is started again",
        Tier::Live,
        format!("{LINES} lines in order over 2 kills, {} of them shown before; the build says: {again}", seen.len()),
    );
    Ok(())
}
