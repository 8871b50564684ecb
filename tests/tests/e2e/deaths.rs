//! Server, gateway, container engine and registries die at random moments, alone and two at a time, while releases go
//! their way and visitors come. Each train ends as if nobody had died. Which of them dies when is drawn from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
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

use crate::{
    api::wait_for,
    crash::{Keeper, approve, one_id_for_each_mail, promoted_once, step_log},
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
        self.sent += other.sent;
        self.lost += other.lost;
        self.apart += other.apart;
        self.away_ms = self.away_ms.max(other.away_ms);
    }

    fn words(&self) -> String {
        let kills: Vec<_> = self.kills.iter().map(|(victim, kills)| format!("{kills} {victim}")).collect();
        format!(
            "{} kills ({}; {} times two at once) over {} releases; {} requests, {} lost, {} while the gateway was dead; it was back within {} ms",
            self.killed(),
            kills.join(", "),
            self.pairs,
            self.trains,
            self.sent,
            self.lost,
            self.apart,
            self.away_ms
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_at_whatever_moment_each_train_ends_the_same() -> Result<()> {
    if !is_soak() || !require(&PARTS) || !require(&[Part::Root]) {
        return Ok(());
    }
    let _alone = outside().await;
    if !in_own_network("deaths::whoever_dies_at_whatever_moment_each_train_ends_the_same").await? {
        return Ok(());
    }
    let seed = seed();
    println!("deaths: seed {seed} (WINDLASS_SOAK_SEED repeats it)");
    let tally = round(seed, SAMPLE).await.with_context(|| format!("with seed {seed}"))?;
    record(
        "server, gateway, engine and registries are killed at random moments, and each train ends the same",
        Tier::Live,
        tally.words(),
    );
    Ok(())
}

/// The same, longer; goes on after the last whole round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_deaths() -> Result<()> {
    if !is_soak() || !require(&PARTS) || !require(&[Part::Root]) {
        return Ok(());
    }
    let _alone = outside().await;
    if !in_own_network("deaths::two_hundred_deaths").await? {
        return Ok(());
    }
    let folder = PathBuf::from(env::var_os("WINDLASS_SOAK_DIR").context("WINDLASS_SOAK_DIR is not set: make soak")?);
    let file = folder.join("deaths.state");
    let mut state = State::read(&file);
    println!("deaths: seed {} (WINDLASS_SOAK_SEED repeats it), {} kills so far", state.seed, state.tally.killed());
    while state.tally.killed() < KILLS {
        let seed = state.seed.wrapping_add(u64::from(state.rounds));
        match round(seed, ROUND).await {
            Ok(tally) => {
                println!("deaths: round {} (seed {seed}): {}", state.rounds, tally.words());
                state.tally.add(&tally);
                state.rounds += 1;
                fs::write(&file, serde_json::to_vec_pretty(&state)?)?;
                note(&state.tally, None)?;
            }
            Err(error) => {
                note(&state.tally, Some(format!("round {} (seed {seed}): {error:#}", state.rounds)))?;
                return Err(error.context(format!("in round {} with seed {seed}", state.rounds)));
            }
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

fn note(tally: &Tally, failure: Option<String>) -> Result<()> {
    let kills = u64::from(tally.killed());
    let counts = Counts { kills, requests_sent: tally.sent, requests_lost: tally.lost, ..Counts::default() };
    let done = kills >= u64::from(KILLS) && failure.is_none();
    let failures = failure.into_iter().collect();
    Noted { part: "deaths".into(), done, counts, failures, ..Noted::default() }.write()
}

/// How far the soak is.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// What it was done with; other sources begin anew.
    sources: String,
    seed: u64,
    rounds: u32,
    tally: Tally,
}

impl State {
    fn read(file: &std::path::Path) -> Self {
        let sources = env::var("WINDLASS_SOAK_SOURCES").unwrap_or_default();
        let kept = fs::read_to_string(file).ok().and_then(|text| serde_json::from_str::<Self>(&text).ok());
        kept.filter(|kept| kept.sources == sources && kept.tally.killed() < KILLS).unwrap_or_else(|| Self {
            sources,
            seed: seed(),
            rounds: 0,
            tally: Tally::default(),
        })
    }
}

/// These take long and belong to `make soak`. The short one is to be a part of `make test` as soon as it is reliable: an
/// engine that dies may lose what a container prints, and takes with it what else it had in hand.
fn is_soak() -> bool {
    let is_soak = env::var_os("WINDLASS_SOAK_DIR").is_some();
    if !is_soak {
        println!("deaths: left to make soak PART=deaths");
    }
    is_soak
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    env::var("WINDLASS_SOAK_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(now)
}

/// Outside of the own network nobody else measures meanwhile.
async fn outside() -> Option<MutexGuard<'static, ()>> {
    if env::var_os("WINDLASS_OWN_NETWORK").is_some() { None } else { Some(alone().await) }
}

/// One world in which so many die; trains go on until all have died, and the last one ends in peace.
async fn round(seed: u64, kills: u32) -> Result<Tally> {
    let world = Arc::new(World::start_to_die(&[], |_| {}).await?);
    let keeper = Keeper::start(Arc::clone(&world.windlass));
    let service = world.service(SERVICE).await?;
    // The forge sends a hook once, and who should take it may be dead.
    let polls = json!({ "poll_interval_ms": 1_000 });
    world.api.change(&format!("services/{SERVICE}"), polls).await?;
    let visitors = world.visitors(SERVICE, Duration::from_millis(20), 1);
    let reaper = Reaper::start(Arc::clone(&world), seed, kills);
    let mut trains = 0;
    while trains == 0 || !reaper.is_done() {
        trains += 1;
        let lived = train(&world, &service, trains, &reaper).await;
        lived.with_context(|| format!("train {trains}; {}", reaper.words()))?;
    }
    let deaths = reaper.stop()?;
    let visits = visitors.stop()?;
    keeper.stop()?;
    let tally = tally(&deaths, trains, &visits)?;
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

/// A push that goes live; in turn by rolling and by canary.
async fn train(world: &World, service: &Service, number: u32, reaper: &Reaper) -> Result<()> {
    let canary = json!({
        "strategy": "canary",
        "steps": [{ "weight": 50, "hold": "1s" }],
        "judge": { "min_requests": 10, "compare": false },
    });
    let production = if number.is_multiple_of(2) { canary } else { json!({ "strategy": "rolling" }) };
    let mut version = Version::new(SERVICE, &number.to_string(), production);
    version.pipeline["test"] = json!({ "testers": [TESTER] });
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
