//! Server, gateway, container engine, runner and registries die at random moments, alone and two at a time, while releases
//! go their way, visitors come and somebody writes. Each train ends as if nobody had died. Which of them dies when is drawn
//! from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tests::{
    Part, Tier,
    docker::BASE_IMAGE,
    evidence::{record, record_as},
    process::in_own_network,
    require,
    soak::{Counts, Noted},
};

use tokio::sync::MutexGuard;
use tokio_util::sync::CancellationToken;

use crate::{
    api::wait_for,
    clerk,
    crash::{Keeper, approve, one_id_for_each_mail, promoted_once, step_log},
    machine::Runner,
    reaper::{Death, Reaper, Victim},
    sample::Version,
    visitors::{Visit, failed},
    world::{PARTS, Service, World, alone},
};

const SERVICE: &str = "hammer";
const TESTER: &str = "qa@example.com";
const SAMPLE: u32 = 20;
const KILLS: u32 = 200;
/// Kills in one world; the soak goes on after the last whole round.
const ROUND: u32 = 20;
/// What is left out of the server, and what is then said of a round.
const SAFEGUARDS: [(&str, &str); 2] =
    [("flush", "was acknowledged and is lost"), ("drain", "were lost while the gateway lived")];
/// The variable that leaves one out.
const WITHOUT: &str = "WINDLASS_WITHOUT";
/// Rounds that a left-out safeguard may go well by luck.
const LUCKY_MAX: u64 = 4;
/// A label that only the runner on a machine of its own has.
const APART: &str = "apart=true";
/// Lines that the step prints, slowly enough to be killed in between.
const LINES: usize = 20;
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What one or more rounds came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Tally {
    /// Of each of them.
    kills: BTreeMap<Victim, u32>,
    /// How often two died at once.
    pairs: u32,
    /// Releases that went live.
    trains: u32,
    /// Changes that were acknowledged and found again.
    #[serde(default)]
    acknowledged: u64,
    /// Requests of visitors.
    sent: u64,
    /// Not answered well while the gateway lived.
    lost: u64,
    /// Not answered well while the gateway itself was dead.
    apart: u64,
    /// The longest that the gateway was away when it died alone, in milliseconds.
    away_ms: u64,
}

impl Tally {
    fn killed(&self) -> u32 {
        self.kills.values().sum()
    }

    fn add(&mut self, other: &Self) {
        for (victim, kills) in &other.kills {
            *self.kills.entry(*victim).or_default() += kills;
        }
        self.pairs += other.pairs;
        self.trains += other.trains;
        self.acknowledged += other.acknowledged;
        self.sent += other.sent;
        self.lost += other.lost;
        self.apart += other.apart;
        self.away_ms = self.away_ms.max(other.away_ms);
    }

    fn words(&self) -> String {
        let kills: Vec<_> = self.kills.iter().map(|(victim, kills)| format!("{kills} {victim}")).collect();
        format!(
            "{} kills ({}; {} times two at once) over {} releases; {} acknowledged changes, 0 lost; {} requests, {} lost, {} while the gateway was dead; it was back within {} ms",
            self.killed(),
            kills.join(", "),
            self.pairs,
            self.trains,
            self.acknowledged,
            self.sent,
            self.lost,
            self.apart,
            self.away_ms
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_at_whatever_moment_each_train_ends_the_same() -> Result<()> {
    if !require(&PARTS) || !require(&[Part::Root]) {
        return Ok(());
    }
    let _alone = outside().await;
    if !in_own_network("deaths::whoever_dies_at_whatever_moment_each_train_ends_the_same").await? {
        return Ok(());
    }
    let seed = seed();
    println!("deaths: seed {seed} (WINDLASS_SOAK_SEED repeats it)");
    let tally = round(seed, SAMPLE, &[]).await.with_context(|| format!("with seed {seed}"))?;
    record(
        "server, gateway, engine, runner and registries are killed at random moments, and each train ends the same",
        Tier::Live,
        tally.words(),
    );
    Ok(())
}

/// The same, longer; then each safeguard is left out once. Goes on after the last whole round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_deaths() -> Result<()> {
    let Some(folder) = env::var_os("WINDLASS_SOAK_DIR").map(PathBuf::from) else {
        println!("deaths: two hundred are left to make soak PART=deaths");
        return Ok(());
    };
    if !require(&PARTS) || !require(&[Part::Root]) {
        return Ok(());
    }
    let _alone = outside().await;
    if !in_own_network("deaths::two_hundred_deaths").await? {
        return Ok(());
    }
    let file = folder.join("deaths.state");
    let mut state = State::read(&file);
    println!("deaths: seed {} (WINDLASS_SOAK_SEED repeats it), {} kills so far", state.seed, state.tally.killed());
    while state.tally.killed() < state.wanted {
        let seed = state.seed.wrapping_add(u64::from(state.rounds));
        match round(seed, ROUND.min(state.wanted), &[]).await {
            Ok(tally) => {
                println!("deaths: round {} (seed {seed}): {}", state.rounds, tally.words());
                state.tally.add(&tally);
                state.rounds += 1;
                state.keep(&file)?;
            }
            Err(error) => {
                state.note(Some(format!("round {} (seed {seed}): {error:#}", state.rounds)))?;
                return Err(error.context(format!("in round {} with seed {seed}", state.rounds)));
            }
        }
    }
    for (safeguard, reason) in SAFEGUARDS {
        if state.safeguards.get(safeguard) != Some(&true) {
            let has_failed = fails_without(safeguard, reason, state.seed).await?;
            state.safeguards.insert(safeguard.to_owned(), has_failed);
            state.keep(&file)?;
            ensure!(has_failed, "without {safeguard} {LUCKY_MAX} rounds went well");
        }
    }
    record_as(
        "killed 200 times at random moments, alone and two at a time, each train ends the same",
        Tier::Live,
        state.tally.words(),
        "make soak",
    );
    Ok(())
}

/// Whether a round fails for its reason without a safeguard; a moment that shows it may not come in the first.
async fn fails_without(safeguard: &str, reason: &str, seed: u64) -> Result<bool> {
    for lucky in 0..LUCKY_MAX {
        let end = round(seed.wrapping_add(lucky), SAMPLE, &[(WITHOUT, safeguard)]).await;
        match end.map_err(|error| format!("{error:#}")) {
            Ok(tally) => println!("deaths: without {safeguard} a round went well: {}", tally.words()),
            Err(error) if error.contains(reason) => {
                println!("deaths: without {safeguard}, as it must: {error:.300}");
                return Ok(true);
            }
            Err(error) => bail!("without {safeguard} a round failed for another reason than {reason:?}: {error}"),
        }
    }
    Ok(false)
}

/// How far the soak is.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// What it was done with; other sources begin anew.
    sources: String,
    seed: u64,
    /// How many kills it is to be.
    wanted: u32,
    rounds: u32,
    tally: Tally,
    /// Those that were left out, and whether a round failed then.
    safeguards: BTreeMap<String, bool>,
}

impl State {
    fn read(file: &Path) -> Self {
        let sources = env::var("WINDLASS_SOAK_SOURCES").unwrap_or_default();
        let wanted = number("WINDLASS_SOAK_DEATHS").and_then(|number| u32::try_from(number).ok()).unwrap_or(KILLS);
        let kept = fs::read_to_string(file).ok().and_then(|text| serde_json::from_str::<Self>(&text).ok());
        let is_ours = |kept: &Self| kept.sources == sources && kept.wanted == wanted && !kept.is_done();
        kept.filter(is_ours).unwrap_or_else(|| Self {
            sources,
            seed: seed(),
            wanted,
            rounds: 0,
            tally: Tally::default(),
            safeguards: BTreeMap::new(),
        })
    }

    fn is_done(&self) -> bool {
        let is_tried = |(name, _): &(&str, &str)| self.safeguards.contains_key(*name);
        self.tally.killed() >= self.wanted && SAFEGUARDS.iter().all(is_tried)
    }

    fn keep(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_vec_pretty(self)?)?;
        self.note(None)
    }

    fn note(&self, failure: Option<String>) -> Result<()> {
        let Tally { sent, lost, .. } = self.tally;
        let kills = u64::from(self.tally.killed());
        let counts = Counts { kills, requests_sent: sent, requests_lost: lost, ..Counts::default() };
        let done = self.is_done() && failure.is_none();
        let safeguards = self.safeguards.iter().map(|(name, held)| (format!("deaths/{name}"), *held)).collect();
        Noted { part: "deaths".into(), done, counts, safeguards, failures: failure.into_iter().collect() }.write()
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    number("WINDLASS_SOAK_SEED").unwrap_or(now)
}

/// Outside of the own network nobody else measures meanwhile.
async fn outside() -> Option<MutexGuard<'static, ()>> {
    if env::var_os("WINDLASS_OWN_NETWORK").is_some() { None } else { Some(alone().await) }
}

/// One world in which so many die; trains go on until all have died, and the last one ends in peace.
async fn round(seed: u64, kills: u32, environment: &[(&str, &str)]) -> Result<Tally> {
    let world = Arc::new(World::start_to_die(environment, |_| {}).await?);
    let keeper = Keeper::start(Arc::clone(&world.windlass));
    let service = world.service(SERVICE).await?;
    // The forge sends a hook once, and who should take it may be dead.
    let polls = json!({ "poll_interval_ms": 1_000 });
    world.api.change(&format!("services/{SERVICE}"), polls).await?;
    let runner = Runner::new(&world, &world.base)?.labelled(APART).begin(&world).await?;
    let runner = Arc::new(Mutex::new(runner));
    let visitors = world.visitors(SERVICE, Duration::from_millis(20), 1);
    let reaper = Reaper::start(Arc::clone(&world), Arc::clone(&runner), seed, kills);
    let stop = CancellationToken::new();
    let work = async {
        let mut number = 0;
        while number == 0 || !reaper.is_done() {
            number += 1;
            let lived = train(&world, &service, number, &reaper).await;
            lived.with_context(|| format!("train {number}; {}", reaper.words()))?;
        }
        stop.cancel();
        Ok(number)
    };
    let end = tokio::try_join!(work, clerk::write(&world.api, &stop));
    if end.is_err() {
        let visits = visitors.so_far();
        eprintln!("visits that failed so far: {:#?}", failed(&visits));
        eprintln!("the end of the runner's log:\n{}", runner.lock().unwrap_or_else(PoisonError::into_inner).log_tail());
    }
    let (trains, acknowledged) = end?;
    let deaths = reaper.stop()?;
    let visits = visitors.stop()?;
    keeper.stop()?;
    let tally = Tally { acknowledged, ..tally(&deaths, trains, &visits)? };
    held(&world, trains).await.with_context(|| format!("after {trains} trains; {deaths:?}"))?;
    world.all_held();
    Ok(tally)
}

/// What died, and which requests were lost when.
fn tally(deaths: &[Death], trains: u32, visits: &[Visit]) -> Result<Tally> {
    let mut tally = Tally { trains, sent: u64::try_from(visits.len())?, ..Tally::default() };
    for death in deaths {
        tally.pairs += u32::from(death.victims.len() > 1);
        for victim in &death.victims {
            *tally.kills.entry(*victim).or_default() += 1;
        }
        if death.victims.iter().eq([&Victim::Gateway]) {
            tally.away_ms = tally.away_ms.max(death.over_ms - death.at_ms);
        }
    }
    let of_gateway = |visit: &Visit| {
        let mut dead = deaths.iter().filter(|death| death.victims.contains(&Victim::Gateway));
        dead.any(|death| visit.at_ms <= death.over_ms && visit.done_ms >= death.at_ms)
    };
    let (apart, lost): (Vec<_>, Vec<_>) = failed(visits).into_iter().partition(|visit| of_gateway(visit));
    tally.apart = u64::try_from(apart.len())?;
    tally.lost = u64::try_from(lost.len())?;
    ensure!(
        lost.is_empty(),
        "{} of {} requests were lost while the gateway lived; the first: {:?}; deaths: {deaths:?}",
        lost.len(),
        visits.len(),
        lost[0]
    );
    Ok(tally)
}

/// A push that goes live; in turn by rolling and by canary, and where the runner takes it that is a process of its own.
async fn train(world: &World, service: &Service, number: u32, reaper: &Reaper) -> Result<()> {
    let canary = json!({
        "strategy": "canary",
        "steps": [{ "weight": 50, "hold": "1s" }],
        "judge": { "min_requests": 10, "compare": false },
        // An engine that is back opens one port after the other: for a moment a new version refuses while the one before
        // answers. Visitors lose nothing by it, and what they lose is counted here, not by the judge.
        "checks": [{ "success_rate": ">= 50%" }],
    });
    let production = if number.is_multiple_of(2) { canary } else { json!({ "strategy": "rolling" }) };
    let mut version = Version::new(SERVICE, &number.to_string(), production);
    version.pipeline["test"] = json!({ "testers": [TESTER] });
    if number % 3 != 2 {
        version.pipeline["labels"] = json!({ "apart": "true" });
    }
    // Answers are under way when the next one takes its place.
    version = if number.is_multiple_of(2) { version.slow() } else { version };
    let count = format!(
        "echo >> .begun; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo \"line $i\"; sleep 0.1; done; \
         echo \"begun $(wc -l < .begun) times\""
    );
    version.pipeline["steps"] = json!([{ "name": "count", "image": BASE_IMAGE, "commands": [count] }]);
    service.push(&version)?;
    world.asked(SERVICE, number).await?;
    approve(world, SERVICE, TESTER, number).await?;
    let rollout = world.ended_rollout(SERVICE, number).await?;
    ensure!(rollout["state"] == "completed", "the rollout did not complete: {rollout}");
    promoted_once(world, SERVICE, number).await?;
    whole_log(world, number, &reaper.so_far()).await
}

/// Each line of the step once and in order, and the step began once. An engine that dies loses what a container prints
/// from then until its own next life has found the container, and all of it when the container has ended by then: such a
/// log may lack lines, but it has none twice and none in another order.
async fn whole_log(world: &World, number: u32, deaths: &[Death]) -> Result<()> {
    let run = world.ended_run(SERVICE, number).await?;
    let (began, ended) =
        (run["started_at_ms"].as_u64().unwrap_or(0), run["finished_at_ms"].as_u64().unwrap_or(u64::MAX));
    let of_engine = |death: &&Death| death.victims.contains(&Victim::Engine);
    let lost_by_engine = deaths.iter().filter(of_engine).any(|death| death.at_ms <= ended && death.over_ms >= began);
    let log = step_log(world, SERVICE, number, "count", |_| true).await?;
    let printed: Vec<_> = log.values().filter(|line| line.starts_with("line ")).cloned().collect();
    let mut wanted: Vec<_> = (1..=LINES).map(|number| format!("line {number}")).collect();
    if lost_by_engine {
        wanted.retain(|line| printed.contains(line));
    }
    ensure!(printed == wanted, "lines of run {number} are missing or doubled: {log:?}");
    let begun: Vec<_> = log.values().filter(|line| line.starts_with("begun ")).collect();
    let once = begun == ["begun 1 times"] || (begun.is_empty() && lost_by_engine);
    ensure!(once, "the step of run {number} began again: {log:?}");
    Ok(())
}

/// One rollout for each release, equal digests, one Message-ID for each mail, no container too many.
async fn held(world: &World, trains: u32) -> Result<()> {
    let count = |list: &Value| list["items"].as_array().map_or(0, Vec::len);
    for what in ["rollouts", "runs", "releases"] {
        let list = world.api.get(&format!("services/{SERVICE}/{what}?limit=100")).await?;
        ensure!(count(&list) == trains as usize, "{} {what} of {trains} pushes: {list}", count(&list));
    }
    for number in 1..=trains {
        let digests = world.released(SERVICE, number).await?;
        ensure!(digests.0 == digests.1, "release {number} is another in production: {digests:?}");
    }
    let digests = world.digests(SERVICE, trains).await?;
    let equal = digests.test == digests.production && digests.running.iter().eq([&digests.test]);
    ensure!(equal, "the digests differ: {digests:?}");
    one_id_for_each_mail(world, SERVICE, TESTER, trains)?;
    // What a dead server left behind is swept when the next one has nothing to do.
    let look = || async {
        let names: BTreeSet<_> = world.container_names().unwrap_or_default().into_iter().collect();
        ((names.len() == 2).then_some(()), format!("{names:?}"))
    };
    let (found, names) = wait_for(SETTLED_WITHIN, look).await;
    found.with_context(|| format!("there are other containers than two: {names}"))
}
