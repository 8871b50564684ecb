//! Trains lived at random (the crate `simulation`): ten thousand lives on all cores, and each safeguard taken away in turn.
//! `WINDLASS_SIM_SEEDS` is how many lives are lived. Not here: the million of `make soak`, real parts.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
};

use pipelines::effect::EffectKind;
use simulation::{
    Life, Point, Safeguards, Sim, Stats, live_many,
    machines::{UNREACHED, pairs},
    story,
};
use tests::evidence::{Tier, record};

/// Lives that are lived unless the environment says otherwise.
const SEEDS: u64 = 10_000;
/// Lives within which a missing safeguard must show.
const SEEDS_WITHOUT: u64 = 1_000;

fn seeds() -> u64 {
    let Ok(text) = env::var("WINDLASS_SIM_SEEDS") else { return SEEDS };
    text.parse().unwrap_or_else(|_| panic!("WINDLASS_SIM_SEEDS is {text:?}, not a number"))
}

#[test]
fn every_promise_holds_whatever_happens_and_whenever_the_server_dies() {
    let seeds = seeds();
    let all = live_many(0..seeds, Safeguards::ALL_ON);
    let all = all.unwrap_or_else(|seed| panic!("{}", story(seed, Safeguards::ALL_ON)));
    let performed: BTreeMap<&str, u64> = all.performed.iter().map(|(kind, count)| (kind.word(), *count)).collect();
    let Stats { steps, taken, refused, answered_twice, not_stored, clock_back, rolled_out, rolled_back, .. } = all;
    let Stats { lost, unfit, reports_refused, .. } = all;
    println!("{lost} runners lost with a run, {unfit} runs found unfit, {reports_refused} reports refused");
    println!("{seeds} lives, {steps} steps, {taken} acts of people taken, {refused} refused");
    println!(
        "{answered_twice} answers came twice, {not_stored} writes to a full disk, {clock_back} times the clock back"
    );
    println!("{rolled_out} rolled out, {rolled_back} rolled back, performed: {performed:?}");
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
    assert!(rolled_out > seeds && rolled_back > seeds / 4, "too little happened to show anything");
    assert!(answered_twice > seeds / 10 && not_stored > seeds / 10 && clock_back > seeds / 10, "too little went wrong");
    assert!(lost > seeds / 10 && unfit > seeds / 10 && reports_refused > seeds / 50, "too little happened to runners");
    every_pair_was_reached(&all);
    let kills: u64 = all.kills.values().sum();
    let (points, kinds, pairs) = (all.kills.len(), EffectKind::ALL.len(), all.reached.len());
    record(
        "a train keeps its promises whatever happens in whichever order and whenever the server dies",
        Tier::Contract,
        format!(
            "{seeds} simulated lives, {steps} steps, {kills} kills at {points} places of {kinds} kinds of effects, \
             {pairs} pairs of state and event, {rolled_out} rollouts ended live and {rolled_back} went back"
        ),
    );
}

/// Each event met each state, or the list says why it cannot.
fn every_pair_was_reached(all: &Stats) {
    let listed: BTreeSet<_> = UNREACHED.iter().map(|(machine, state, event, _)| (*machine, *state, *event)).collect();
    let reached: BTreeSet<_> = all.reached.keys().copied().collect();
    let missing: Vec<_> =
        pairs().into_iter().filter(|pair| !reached.contains(pair) && !listed.contains(pair)).collect();
    assert!(missing.is_empty(), "{} pairs were never reached: {missing:#?}", missing.len());
    let stale: Vec<_> = listed.intersection(&reached).collect();
    assert!(stale.is_empty(), "these are reached, and listed as if they could not be: {stale:?}");
}

#[test]
fn a_seed_gives_the_same_life_again() {
    for seed in 0..20 {
        let life = Life::whole(seed);
        let lives = [0, 1].map(|_| Sim::live(&life, Safeguards::ALL_ON, false).map(|stats| format!("{stats:?}")).ok());
        assert!(lives[0].is_some() && lives[0] == lives[1], "seed {seed}");
    }
}

#[test]
fn a_life_that_breaks_a_promise_is_told_in_few_steps() {
    let safe = Safeguards { drains: false, ..Safeguards::ALL_ON };
    let seed = live_many(0..SEEDS_WITHOUT, safe).expect_err("it breaks without draining");
    let (life, failure) = simulation::shrink(seed, safe).expect("the seed breaks a promise");
    let whole = Sim::live(&Life::whole(seed), safe, true).expect_err("it breaks a promise");
    assert_eq!(failure.violation.promise, whole.violation.promise);
    let steps = life.steps.map_or(usize::MAX, |steps| steps.len());
    assert!(steps < 200 && failure.trace.len() < whole.trace.len(), "{steps} steps are left");
}

/// The simulation can fail: without any one of its safeguards some life breaks a promise, one that its words tell.
#[test]
fn without_any_safeguard_a_promise_breaks() {
    let mut told = Vec::new();
    for (name, safe, words) in Safeguards::EACH_OFF {
        let Err(seed) = live_many(0..SEEDS_WITHOUT, *safe) else {
            told.push(format!("{name}: {SEEDS_WITHOUT} lives went well without it"));
            continue;
        };
        let Err(failure) = Sim::live(&Life::whole(seed), *safe, false) else {
            told.push(format!("{name}: seed {seed} broke a promise only once"));
            continue;
        };
        let said = failure.violation.to_string();
        println!("without {name}: seed {seed}: {said}");
        if !words.iter().any(|word| said.contains(word)) {
            told.push(format!("{name}: seed {seed} broke another promise: {said}"));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}
