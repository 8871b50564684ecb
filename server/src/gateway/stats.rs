//! What the gateway counts per host and revision, and the snapshot of it that a judge reads.
//! Who increments what is in `proxy`; judging is not done here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the latency buckets in milliseconds, inclusive; one more bucket follows for
/// everything above. Fine around the thresholds that people set (a few ms to a few seconds).
pub const LATENCY_BOUNDS_MS: [u64; 26] = [
    1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500,
    10_000, 30_000, 60_000,
];

const BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;

/// The live counters of one revision under one host.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    errors: AtomicU64,
    by_class: [AtomicU64; 5],
    connect_failures: AtomicU64,
    timeouts: AtomicU64,
    broken_answers: AtomicU64,
    client_aborts: AtomicU64,
    retries: AtomicU64,
    fallbacks_away: AtomicU64,
    in_flight: AtomicU64,
    latency_sum_us: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

/// Why a revision gave no (whole) answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection to any of its backends.
    Connect,
    /// The connection broke before the head of an answer, or what came was not HTTP.
    Broken,
    /// No head of an answer in time.
    Timeout,
}

impl Counters {
    /// The revision answered: one request with this status.
    pub(super) fn answered(&self, status: u16, latency: Duration) {
        self.requests.fetch_add(1, Relaxed);
        if status >= 500 {
            self.errors.fetch_add(1, Relaxed);
        }
        if let Some(class) = self.by_class.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_sum_us.fetch_add(us, Relaxed);
        let ms = us.div_ceil(1_000);
        let bucket = LATENCY_BOUNDS_MS.partition_point(|bound| *bound < ms);
        self.latency[bucket].fetch_add(1, Relaxed);
    }

    /// The revision did not answer: one request, one error, and no latency.
    pub(super) fn failed(&self, failure: Failure) {
        self.requests.fetch_add(1, Relaxed);
        self.errors.fetch_add(1, Relaxed);
        match failure {
            // Counted per connection by `connect_failed`.
            Failure::Connect => {}
            Failure::Broken => _ = self.broken_answers.fetch_add(1, Relaxed),
            Failure::Timeout => _ = self.timeouts.fetch_add(1, Relaxed),
        }
    }

    /// An answer whose head was counted broke off in its body.
    pub(super) fn broke_off(&self, status: u16) {
        self.broken_answers.fetch_add(1, Relaxed);
        if status < 500 {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Relaxed);
    }

    pub(super) fn client_aborted(&self) {
        self.client_aborts.fetch_add(1, Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(super) fn fell_back(&self) {
        self.fallbacks_away.fetch_add(1, Relaxed);
    }

    pub(super) fn flight_began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn flight_ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn snapshot(&self, host: &str, revision: &str, weight: Option<u32>) -> RevisionStats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        RevisionStats {
            host: host.to_owned(),
            revision: revision.to_owned(),
            weight,
            in_flight: read(&self.in_flight),
            requests: read(&self.requests),
            errors: read(&self.errors),
            by_class: self.by_class.each_ref().map(read),
            connect_failures: read(&self.connect_failures),
            timeouts: read(&self.timeouts),
            broken_answers: read(&self.broken_answers),
            client_aborts: read(&self.client_aborts),
            retries: read(&self.retries),
            fallbacks_away: read(&self.fallbacks_away),
            latency_sum_us: read(&self.latency_sum_us),
            latency: self.latency.iter().map(read).collect(),
        }
    }
}

/// One reading of everything that the gateway counts. Counters only grow while `instance` stays
/// the same: subtract two readings ([`RevisionStats::since`]) to get a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStats {
    /// Changes whenever a gateway process starts, and the counters with it.
    pub instance: String,
    /// The generation in force.
    pub generation: u64,
    /// When it came into force, in milliseconds since 1970.
    pub in_force_since_ms: u64,
    /// When this was read, in milliseconds since 1970.
    pub taken_at_ms: u64,
    /// Client connections that are open.
    pub connections: u64,
    /// Requests for a host that no route knows.
    pub unknown_host: u64,
    /// Requests that were answered without choosing a revision: malformed, too large, or for a
    /// service of which nothing is live.
    pub refused: u64,
    /// Upper bounds of the latency buckets, in milliseconds; the last bucket has none.
    pub latency_bounds_ms: Vec<u64>,
    /// Per host and revision, those that lately left the table included.
    pub revisions: Vec<RevisionStats>,
}

impl GatewayStats {
    /// The counters of one revision under one host.
    #[must_use]
    pub fn revision(&self, host: &str, revision: &str) -> Option<&RevisionStats> {
        self.revisions.iter().find(|stats| stats.host == host && stats.revision == revision)
    }
}

/// The counters of one revision under one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionStats {
    /// The host of the route or preview.
    pub host: String,
    /// The id of the revision.
    pub revision: String,
    /// Its weight now in hundredths of a percent; `None` where it is not in a split: a preview, or a
    /// revision that left the table.
    pub weight: Option<u32>,
    /// Requests and upgraded connections that have not ended.
    pub in_flight: u64,
    /// Requests that this revision answered or failed to answer. A request that the client gave up
    /// before the head of the answer is in `client_aborts` only.
    pub requests: u64,
    /// Of these: status 5xx, no connection, no answer in time, or a broken answer.
    pub errors: u64,
    /// Answers by class: 1xx (upgrades), 2xx, 3xx, 4xx, 5xx.
    pub by_class: [u64; 5],
    /// Connections that could not be made, retried or not.
    pub connect_failures: u64,
    /// Requests without the head of an answer in time.
    pub timeouts: u64,
    /// Answers that broke off, before their head or in their body.
    pub broken_answers: u64,
    /// Requests that the client gave up before the head of the answer.
    pub client_aborts: u64,
    /// Further attempts on this revision.
    pub retries: u64,
    /// Requests that this revision could not take and the fallback took; they are in `errors` too.
    pub fallbacks_away: u64,
    /// Sum of the latencies in microseconds.
    pub latency_sum_us: u64,
    /// Answers per latency bucket (not cumulated), from the last byte of the request to the head
    /// of the answer.
    pub latency: Vec<u64>,
}

impl RevisionStats {
    /// Adds what was counted of the same revision under another host.
    pub fn add(&mut self, other: &Self) {
        let add = |sum: &mut [u64], more: &[u64]| sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        self.weight = self.weight.max(other.weight);
        self.in_flight += other.in_flight;
        self.requests += other.requests;
        self.errors += other.errors;
        self.connect_failures += other.connect_failures;
        self.timeouts += other.timeouts;
        self.broken_answers += other.broken_answers;
        self.client_aborts += other.client_aborts;
        self.retries += other.retries;
        self.fallbacks_away += other.fallbacks_away;
        self.latency_sum_us += other.latency_sum_us;
        add(&mut self.by_class, &other.by_class);
        add(&mut self.latency, &other.latency);
    }

    /// What happened between `earlier` and `self`. `None` when they are not two readings of one
    /// counter: another revision, or the gateway was started anew in between.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        if (&self.host, &self.revision) != (&earlier.host, &earlier.revision)
            || self.latency.len() != earlier.latency.len()
        {
            return None;
        }
        let pairs = |now: &[u64], then: &[u64]| -> Option<Vec<u64>> {
            let differences = now.iter().zip(then).map(|(a, b)| a.checked_sub(*b));
            differences.collect()
        };
        Some(Self {
            host: self.host.clone(),
            revision: self.revision.clone(),
            weight: self.weight,
            in_flight: self.in_flight,
            requests: self.requests.checked_sub(earlier.requests)?,
            errors: self.errors.checked_sub(earlier.errors)?,
            by_class: pairs(&self.by_class, &earlier.by_class)?.try_into().ok()?,
            connect_failures: self.connect_failures.checked_sub(earlier.connect_failures)?,
            timeouts: self.timeouts.checked_sub(earlier.timeouts)?,
            broken_answers: self.broken_answers.checked_sub(earlier.broken_answers)?,
            client_aborts: self.client_aborts.checked_sub(earlier.client_aborts)?,
            retries: self.retries.checked_sub(earlier.retries)?,
            fallbacks_away: self.fallbacks_away.checked_sub(earlier.fallbacks_away)?,
            latency_sum_us: self.latency_sum_us.checked_sub(earlier.latency_sum_us)?,
            latency: pairs(&self.latency, &earlier.latency)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let counters = Counters::default();
        for ms in [0, 1, 2, 500, 501, 60_000, 60_001] {
            counters.answered(200, Duration::from_millis(ms));
        }
        let stats = counters.snapshot("h", "r", None);
        let at = |bound: u64| {
            let index = LATENCY_BOUNDS_MS.iter().position(|b| *b == bound);
            stats.latency[index.expect("a bound")]
        };
        assert_eq!((at(1), at(2), at(500), at(750), at(60_000)), (2, 1, 1, 1, 1));
        assert_eq!(stats.latency[LATENCY_BOUNDS_MS.len()], 1);
        assert_eq!(stats.latency.iter().sum::<u64>(), stats.requests);
    }

    #[test]
    fn a_window_is_the_difference_and_a_restart_is_noticed() {
        let counters = Counters::default();
        counters.answered(200, Duration::from_millis(4));
        let before = counters.snapshot("h", "r", Some(1_000));
        counters.answered(503, Duration::from_millis(4));
        counters.failed(Failure::Timeout);
        let after = counters.snapshot("h", "r", Some(1_000));
        let window = after.since(&before).expect("same counter");
        assert_eq!((window.requests, window.errors), (2, 2));
        assert_eq!(window.by_class, [0, 0, 0, 0, 1]);
        assert_eq!(window.timeouts, 1);
        assert_eq!(before.since(&after), None);
    }

    #[test]
    fn an_answer_that_breaks_off_is_one_error_and_not_two() {
        let counters = Counters::default();
        counters.answered(500, Duration::ZERO);
        counters.broke_off(500);
        counters.answered(200, Duration::ZERO);
        counters.broke_off(200);
        let stats = counters.snapshot("h", "r", None);
        assert_eq!((stats.requests, stats.errors, stats.broken_answers), (2, 2, 2));
    }
}
