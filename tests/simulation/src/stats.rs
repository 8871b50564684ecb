//! What lives saw, added up.

use std::collections::BTreeMap;

use pipelines::effect::EffectKind;

use crate::{machines::Machine, sim::Point};

/// A state and an event that met in it.
pub type Pair = (Machine, &'static str, &'static str);

/// What a simulation saw.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Steps taken, each with all promises checked after it.
    pub steps: u64,
    /// Deaths of the server at the places of effects.
    pub kills: BTreeMap<(EffectKind, Point), u64>,
    /// Effects that came to their end.
    pub performed: BTreeMap<EffectKind, u64>,
    /// Acts of people that were taken.
    pub taken: u64,
    /// Acts of people that were refused.
    pub refused: u64,
    /// Answers that came a second time.
    pub answered_twice: u64,
    /// What the store did not take because the disk was full.
    pub not_stored: u64,
    /// Steps backwards of the clock.
    pub clock_back: u64,
    /// Runners that were lost with a run.
    pub lost: u64,
    /// Runs that the first runner lacked the labels for.
    pub unfit: u64,
    /// Reports that came when nobody expected them.
    pub reports_refused: u64,
    /// Rollouts that ended live.
    pub rolled_out: u64,
    /// Rollouts that went back.
    pub rolled_back: u64,
    /// Requests of visitors.
    pub requests: u64,
    /// Which event met which state, and how often.
    pub reached: BTreeMap<Pair, u64>,
}

impl Stats {
    /// Adds what another life saw.
    pub fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.taken += other.taken;
        self.refused += other.refused;
        self.answered_twice += other.answered_twice;
        self.not_stored += other.not_stored;
        self.clock_back += other.clock_back;
        self.lost += other.lost;
        self.unfit += other.unfit;
        self.reports_refused += other.reports_refused;
        self.rolled_out += other.rolled_out;
        self.rolled_back += other.rolled_back;
        self.requests += other.requests;
        add_counts(&mut self.kills, other.kills);
        add_counts(&mut self.performed, other.performed);
        add_counts(&mut self.reached, other.reached);
    }
}

pub(crate) fn add_counts<K: Ord>(all: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (key, count) in more {
        *all.entry(key).or_default() += count;
    }
}
