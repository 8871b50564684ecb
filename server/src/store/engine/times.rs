//! How long flushes take: counted by the one thread that commits, read by anybody.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, inclusive, in microseconds: from memory to a disk that is at its end.
const BOUNDS_US: [u64; 12] =
    [100, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// Flushes since the engine was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTimes {
    /// Flushes that were made.
    pub commits: u64,
    /// Batches in them.
    pub batches: u64,
    /// Flushes that the disk did not take.
    pub refused: u64,
    /// Upper bounds of the buckets, in microseconds; one more bucket follows.
    pub bounds_us: &'static [u64],
    /// Flushes per bucket, not cumulated, the refused ones too.
    pub buckets: Vec<u64>,
    /// Sum of the times in microseconds.
    pub sum_us: u64,
}

/// The live counters.
#[derive(Debug, Default)]
pub(super) struct Times {
    commits: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Times {
    pub(super) fn flushed(&self, batches: usize, took: Duration, taken: bool) {
        if taken {
            self.commits.fetch_add(1, Relaxed);
            self.batches.fetch_add(batches as u64, Relaxed);
        } else {
            self.refused.fetch_add(1, Relaxed);
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    pub(super) fn read(&self) -> CommitTimes {
        CommitTimes {
            commits: self.commits.load(Relaxed),
            batches: self.batches.load(Relaxed),
            refused: self.refused.load(Relaxed),
            bounds_us: &BOUNDS_US,
            buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_counted_where_its_time_lies_and_a_refused_one_apart() {
        let times = Times::default();
        times.flushed(3, Duration::from_micros(500), true);
        times.flushed(1, Duration::from_secs(9), false);
        let read = times.read();
        assert_eq!((read.commits, read.batches, read.refused, read.sum_us), (1, 3, 1, 9_000_500));
        assert_eq!((read.buckets[1], read.buckets[12]), (1, 1));
    }
}
