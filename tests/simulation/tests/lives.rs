//! A few lives, or the one that the environment names: what is tried after each change of the domain, and by mutants.
//! `WINDLASS_SIM_SEED` is the life, `WINDLASS_SIM_STEPS` the steps of its chaos that happen, `WINDLASS_SIM_SEEDS` how many
//! lives are lived. The ten thousand are in `tests/tests/simulation.rs`.

use std::env;

use simulation::{Life, Safeguards, Sim, live_many, story};

/// Enough to come by each kind of effect and each place to die several times.
const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")))
}

#[test]
fn every_promise_holds_in_a_few_lives() {
    let Some(seed) = number("WINDLASS_SIM_SEED") else {
        let seeds = number("WINDLASS_SIM_SEEDS").unwrap_or(SEEDS);
        let lived = live_many(0..seeds, Safeguards::ALL_ON);
        let stats = lived.unwrap_or_else(|seed| panic!("{}", story(seed, Safeguards::ALL_ON)));
        assert!(stats.rolled_out > seeds && stats.rolled_back > seeds / 4, "too little happened to show anything");
        return;
    };
    let Ok(steps) = env::var("WINDLASS_SIM_STEPS") else {
        assert!(
            Sim::live(&Life::whole(seed), Safeguards::ALL_ON, false).is_ok(),
            "{}",
            story(seed, Safeguards::ALL_ON)
        );
        return;
    };
    let steps = steps.split(',').filter(|step| !step.is_empty()).map(|step| step.parse().expect("a step is a number"));
    let life = Life { seed, steps: Some(steps.collect()) };
    if let Err(failure) = Sim::live(&life, Safeguards::ALL_ON, true) {
        panic!("{}\n\nbroken: {}", failure.trace.join("\n"), failure.violation);
    }
}
