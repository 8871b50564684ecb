//! Many lives on all cores, and the story of one that broke a promise.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::{
    safeguards::Safeguards,
    shrink::shrink,
    sim::{Life, Sim},
    stats::Stats,
};

/// The last lines of a story that are told.
const LINES_MAX: usize = 300;

/// Lives all seeds of a range on all cores.
///
/// # Errors
/// The lowest seed that broke a promise.
///
/// # Panics
/// When a life panics: the simulation itself is wrong, or the domain panicked.
pub fn live_many(seeds: Range<u64>, safe: Safeguards) -> Result<Stats, u64> {
    let (next, broken) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let live_some = || {
        let mut seen = Stats::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || broken.load(Ordering::Relaxed) < seed {
                return seen;
            }
            match Sim::live(&Life::whole(seed), safe, false) {
                Ok(stats) => seen.add(stats),
                Err(_) => drop(broken.fetch_min(seed, Ordering::Relaxed)),
            }
        }
    };
    let all = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(live_some)).collect();
        workers.into_iter().fold(Stats::default(), |mut all, worker| {
            all.add(worker.join().expect("a life panicked"));
            all
        })
    });
    match broken.into_inner() {
        u64::MAX => Ok(all),
        seed => Err(seed),
    }
}

/// The story of a broken promise, made short, and how to see it again.
#[must_use]
pub fn story(seed: u64, safe: Safeguards) -> String {
    let Some((life, failure)) = shrink(seed, safe) else { return format!("seed {seed} broke a promise only once") };
    let steps: Vec<String> = life.steps.iter().flatten().map(u32::to_string).collect();
    let from = failure.trace.len().saturating_sub(LINES_MAX);
    format!(
        "{}\n\nbroken: {}\nsee it again: WINDLASS_SIM_SEED={seed} cargo test -p simulation --test lives\nin its shortest \
         form: WINDLASS_SIM_SEED={seed} WINDLASS_SIM_STEPS={} cargo test -p simulation --test lives",
        failure.trace[from..].join("\n"),
        failure.violation,
        steps.join(","),
    )
}
