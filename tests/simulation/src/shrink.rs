//! A life that broke a promise, made short: steps of its chaos are left out as long as the same promise still breaks. Each
//! step has its own chance, so the others do what they did, as far as they still can.

use crate::{
    promise::Promise,
    safeguards::Safeguards,
    sim::{CHAOS_STEPS, Failure, Life, Sim},
};

/// The shortest life that was found in which the promise of `seed`'s life breaks; none when that life is good.
#[must_use]
pub fn shrink(seed: u64, safe: Safeguards) -> Option<(Life, Failure)> {
    let whole = Life::whole(seed);
    let promise = Sim::live(&whole, safe, false).err()?.violation.promise;
    let mut kept: Vec<u32> = (0..CHAOS_STEPS).collect();
    let mut size = kept.len() / 2;
    while size > 0 {
        let mut from = 0;
        let mut left_out = false;
        while from < kept.len() {
            let to = (from + size).min(kept.len());
            let fewer: Vec<u32> = kept[..from].iter().chain(&kept[to..]).copied().collect();
            if breaks(seed, &fewer, safe, promise) {
                kept = fewer;
                left_out = true;
            } else {
                from = to;
            }
        }
        if !left_out || size > 1 {
            size /= 2;
        }
    }
    let life = Life { seed, steps: Some(kept) };
    let failure = Sim::live(&life, safe, true).err()?;
    Some((life, failure))
}

fn breaks(seed: u64, steps: &[u32], safe: Safeguards, promise: Promise) -> bool {
    let life = Life { seed, steps: Some(steps.to_vec()) };
    Sim::live(&life, safe, false).is_err_and(|failure| failure.violation.promise == promise)
}
