//! Long tests on a real server, run by `make soak`: hooks changed at random, and a server that is killed at random moments
//! while pushes go on. The other parts of the soak are named in scripts/soak.sh; what they note, in `tests::soak`.
//!
//! `WINDLASS_SOAK_MINUTES` (1) is how long all of it takes, `WINDLASS_SOAK_SEED` repeats a run's choices. Arguments: parts
//! of the names of the cases.

#[path = "soak/hooks.rs"]
mod hooks;
#[path = "soak/kills.rs"]
mod kills;
#[path = "soak/server.rs"]
mod server;

use std::{
    env,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use tests::{
    Part, Tier,
    evidence::record_as,
    require,
    soak::{Counts, Noted},
};

/// What a case gets: how long it has, and where its chance begins.
struct Setting {
    time: Duration,
    seed: u64,
}

struct Case {
    name: &'static str,
    /// What it shows, in words of a user.
    shows: &'static str,
    tier: Tier,
    /// Its part of the time, in hundredths.
    share: u32,
    parts: &'static [Part],
    run: fn(&Setting) -> Result<(String, Counts)>,
}

const CASES: [Case; 2] = [
    Case {
        name: "hooks",
        shows: "hooks changed at random are taken or refused, never a crash",
        tier: Tier::Contract,
        share: 35,
        parts: &[Part::Git],
        run: |setting| block_on(hooks::run(setting)),
    },
    Case {
        name: "kills",
        shows: "a server killed at random moments keeps each acknowledged hook and token, and each hook once",
        tier: Tier::Live,
        share: 65,
        parts: &[Part::Git],
        run: |setting| block_on(kills::run(setting)),
    },
];

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new()?.block_on(work)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn note(name: &str, counts: Counts, failure: Option<String>) {
    let failures = failure.into_iter().collect::<Vec<_>>();
    let noted = Noted { part: name.into(), done: failures.is_empty(), counts, failures, ..Noted::default() };
    if let Err(error) = noted.write() {
        println!("soak: {error:#}");
    }
}

fn main() -> ExitCode {
    let filters: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    if env::args().any(|argument| argument == "--list") {
        CASES.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let minutes = number("WINDLASS_SOAK_MINUTES").unwrap_or(1).clamp(1, 7 * 24 * 60);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seed = number("WINDLASS_SOAK_SEED").unwrap_or(now);
    println!("soak: {minutes} minutes, seed {seed} (WINDLASS_SOAK_SEED repeats it)");
    let mut failed = false;
    for case in CASES.iter().filter(|case| wanted(case.name) && require(case.parts)) {
        let time = Duration::from_secs(minutes * 60) * case.share / 100;
        match (case.run)(&Setting { time, seed }) {
            Ok((figure, counts)) => {
                note(case.name, counts, None);
                println!("soak: {}: {figure}", case.name);
                record_as(case.shows, case.tier, figure, "make soak");
            }
            Err(error) => {
                failed = true;
                note(case.name, Counts::default(), Some(format!("{error:#}")));
                println!("soak: {} FAILED: {error:#}", case.name);
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
