//! The simulation of a train (the crate `simulation`), lived ten thousand times on all cores, and each safeguard taken
//! away in turn. `WINDLASS_SIM_SEEDS` is how many lives are lived, `WINDLASS_SIM_SEED` lives one of them and prints what
//! happened. Not here: the million of `make soak`, real parts.

use std::{
    collections::BTreeMap,
    env,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use pipelines::effect::EffectKind;
use simulation::{Point, Safeguards, Sim, Stats};
use tests::evidence::{Tier, record};

/// Lives that are lived unless the environment says otherwise.
const SEEDS: u64 = 10_000;
/// Lives within which a missing safeguard must show.
const SEEDS_WITHOUT: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")))
}

/// The story of a broken promise, and how to see it again.
fn story(seed: u64, safe: Safeguards) -> String {
    let Err(failure) = Sim::live(seed, safe, true) else { return format!("seed {seed} broke a promise only once") };
    let last = failure.trace.len().saturating_sub(200);
    format!(
        "{}\n\nbroken: {}\nsee it again: WINDLASS_SIM_SEED={seed} cargo test -p tests --test simulation -- \
         every_promise_holds",
        failure.trace[last..].join("\n"),
        failure.violation.0
    )
}

/// Lives all seeds on all cores; the lowest seed that broke a promise.
fn live_all(seeds: u64) -> Result<Stats, u64> {
    let (next, broken) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let all = thread::scope(|scope| {
        let live_some = || {
            let mut seen = Stats::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds || broken.load(Ordering::Relaxed) < seed {
                    return seen;
                }
                match Sim::live(seed, Safeguards::ALL_ON, false) {
                    Ok(stats) => seen.add(stats),
                    Err(_) => drop(broken.fetch_min(seed, Ordering::Relaxed)),
                }
            }
        };
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

#[test]
fn every_promise_holds_whatever_happens_and_whenever_the_server_dies() {
    if let Some(seed) = number("WINDLASS_SIM_SEED") {
        assert!(Sim::live(seed, Safeguards::ALL_ON, false).is_ok(), "{}", story(seed, Safeguards::ALL_ON));
        return;
    }
    let seeds = number("WINDLASS_SIM_SEEDS").unwrap_or(SEEDS);
    let all = live_all(seeds).unwrap_or_else(|seed| panic!("{}", story(seed, Safeguards::ALL_ON)));
    let performed: BTreeMap<&str, u64> = all.performed.iter().map(|(kind, count)| (kind.word(), *count)).collect();
    println!("{seeds} lives, {} steps, {} acts of people taken, {} refused", all.steps, all.taken, all.refused);
    println!("{} rolled out, {} rolled back, performed: {performed:?}", all.rolled_out, all.rolled_back);
    let kills: u64 = all.kills.values().sum();
    // A few lives show nothing about coverage.
    if seeds < SEEDS {
        return;
    }
    for kind in EffectKind::ALL {
        for point in Point::ALL {
            assert!(all.kills.contains_key(&(*kind, point)), "never killed at {} {point:?}", kind.word());
        }
        assert!(performed.contains_key(kind.word()), "{} was never performed", kind.word());
    }
    assert!(all.rolled_out > seeds && all.rolled_back > seeds / 4, "too little happened to show anything");
    let (points, kinds) = (all.kills.len(), EffectKind::ALL.len());
    record(
        "a train keeps its promises whatever happens in whichever order and whenever the server dies",
        Tier::Contract,
        format!(
            "{seeds} simulated lives, {} steps, {kills} kills at {points} places of {kinds} kinds of effects, {} rollouts \
             ended live and {} went back",
            all.steps, all.rolled_out, all.rolled_back
        ),
    );
}

#[test]
fn a_seed_gives_the_same_life_again() {
    for seed in 0..20 {
        let lives = [0, 1].map(|_| Sim::live(seed, Safeguards::ALL_ON, false).map(|stats| format!("{stats:?}")).ok());
        assert!(lives[0].is_some() && lives[0] == lives[1], "seed {seed}");
    }
}

/// The simulation can fail: without this safeguard some life breaks a promise, one that `words` tell.
#[track_caller]
fn is_needed(safe: Safeguards, words: &[&str]) {
    let broken = (0..SEEDS_WITHOUT).find_map(|seed| Sim::live(seed, safe, false).err().map(|found| (seed, found)));
    let Some((seed, failure)) = broken else { panic!("{SEEDS_WITHOUT} lives went well without it") };
    let told = &failure.violation.0;
    assert!(words.iter().any(|word| told.contains(word)), "seed {seed} broke another promise: {told}");
}

#[test]
fn without_one_message_id_a_mail_comes_twice() {
    is_needed(Safeguards { same_mail_id: false, ..Safeguards::ALL_ON }, &["Message-IDs"]);
}

#[test]
fn without_looking_first_things_are_done_twice() {
    is_needed(Safeguards { looks_first: false, ..Safeguards::ALL_ON }, &["was made", "was promoted"]);
}

#[test]
fn without_the_number_of_the_asking_an_old_answer_ends_a_new_effect() {
    is_needed(Safeguards { asked_by: false, ..Safeguards::ALL_ON }, &["nothing moves it"]);
}

#[test]
fn without_draining_requests_are_lost() {
    is_needed(Safeguards { drains: false, ..Safeguards::ALL_ON }, &["they are lost"]);
}

#[test]
fn without_lanes_effects_undo_each_other() {
    let words = ["test environment", "two runs", "is shown", "no container"];
    is_needed(Safeguards { lanes: false, ..Safeguards::ALL_ON }, &words);
}

#[test]
fn without_a_look_before_it_a_reminder_comes_after_the_decision() {
    let words = ["reminds of what is decided", "after a later one"];
    is_needed(Safeguards { looks_before_reminding: false, ..Safeguards::ALL_ON }, &words);
}

#[test]
fn without_one_transaction_a_crash_stops_the_train() {
    is_needed(Safeguards { one_transaction: false, ..Safeguards::ALL_ON }, &["nothing moves it", "was run last"]);
}
