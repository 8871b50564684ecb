//! The judge: pure arithmetic over what was measured of the new and the stable revision. PASS, FAIL or INSUFFICIENT;
//! never PASS on no data. Not here: where the figures come from.
//!
//! Comparison with the stable revision over the same time: errors by the one-sided two-proportion z-test with pooled
//! variance; latency by the Mann-Whitney U test on histogram buckets with the tie correction (Mann and Whitney 1947;
//! Lehmann, *Nonparametrics*, 1975, section 1.4), and only if the p95 is worse by a tenth as well, because with many
//! requests a difference that nobody notices is still significant.

use serde::{Deserialize, Serialize};

use crate::plan::{Check, JudgePolicy, Metric};

/// The chance of an unjust FAIL that one comparison takes.
pub const SIGNIFICANCE: f64 = 0.01;
/// How much worse the p95 must be, besides being significantly worse, before latency fails the comparison.
pub const LATENCY_WORSE_FACTOR: f64 = 1.1;
/// How many milliseconds worse it must be, too: less is the noise of a machine that is busy, and no visitor notices it.
pub const LATENCY_WORSE_MIN_MS: f64 = 10.0;

/// What was measured of one revision over one span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RevisionStats {
    /// Answered or failed requests.
    pub requests: u64,
    /// Those answered with 5xx or not at all.
    pub errors: u64,
    /// Latency histogram: upper bound of the bucket in milliseconds (ascending) and requests in it. The last bucket
    /// takes everything above the one before.
    pub latency: Vec<(u64, u64)>,
}

impl RevisionStats {
    /// What came since `earlier`, taken from the same cumulative counters. A counter that went back (the gateway was
    /// started anew) counts from zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if self.requests < earlier.requests || self.errors < earlier.errors {
            return self.clone();
        }
        let before = |bound: u64| earlier.latency.iter().find(|(b, _)| *b == bound).map_or(0, |(_, count)| *count);
        Self {
            requests: self.requests - earlier.requests,
            errors: self.errors - earlier.errors,
            latency: self.latency.iter().map(|(b, count)| (*b, count.saturating_sub(before(*b)))).collect(),
        }
    }

    /// Share of requests that did not fail, in percent; none without requests.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        (self.requests > 0)
            .then(|| 100.0 * (self.requests - self.errors.min(self.requests)) as f64 / self.requests as f64)
    }

    /// The latency below which `share` (0 to 1) of the requests lie, in milliseconds, linear within the bucket.
    #[must_use]
    pub fn latency_ms(&self, share: f64) -> Option<f64> {
        let total: u64 = self.latency.iter().map(|(_, count)| count).sum();
        if total == 0 {
            return None;
        }
        let rank = share * total as f64;
        let (mut below, mut lower) = (0_u64, 0_u64);
        for (upper, count) in &self.latency {
            if *count > 0 && (below + count) as f64 >= rank {
                // The open bucket has no upper end: its lower one is all that is known.
                if *upper == u64::MAX {
                    return Some(lower as f64);
                }
                let inside = ((rank - below as f64) / *count as f64).clamp(0.0, 1.0);
                return Some(lower as f64 + inside * (*upper - lower) as f64);
            }
            below += count;
            lower = *upper;
        }
        Some(lower as f64)
    }

    /// The value of `metric`.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::SuccessRate => self.success_rate(),
            Metric::LatencyP50 => self.latency_ms(0.50),
            Metric::LatencyP95 => self.latency_ms(0.95),
            Metric::LatencyP99 => self.latency_ms(0.99),
        }
    }
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// Good.
    Pass,
    /// Too little data to say.
    Insufficient,
    /// Bad.
    Fail,
}

impl Outcome {
    /// The word for it, in capitals as the pages show it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Insufficient => "INSUFFICIENT",
            Self::Fail => "FAIL",
        }
    }
}

/// One line of the check table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CheckResult {
    /// What was checked: a metric's word, or `errors_vs_stable`, `latency_vs_stable`.
    pub name: String,
    /// The new revision's value: percent or milliseconds.
    pub value: Option<f64>,
    /// The stable revision's value.
    pub stable: Option<f64>,
    /// The limit, for fixed checks.
    pub limit: Option<f64>,
    /// The verdict.
    pub outcome: Outcome,
    /// Chance that a difference of this size is luck, for comparisons.
    pub p_value: Option<f64>,
}

/// All that the judge said at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Judgement {
    /// The worst of the checks.
    pub outcome: Outcome,
    /// Requests to the new revision that it rests on.
    pub requests: u64,
    /// The checks, one by one.
    pub checks: Vec<CheckResult>,
}

impl Judgement {
    /// For a stage that nobody judges.
    #[must_use]
    pub fn not_judged(requests: u64) -> Self {
        Self { outcome: Outcome::Insufficient, requests, checks: Vec::new() }
    }

    /// The failed checks in a few words, or what is missing.
    #[must_use]
    pub fn reason(&self) -> String {
        let words: Vec<String> = self
            .checks
            .iter()
            .filter(|check| check.outcome == self.outcome)
            .map(|check| {
                let value = check.value.map_or_else(|| "no data".to_owned(), |value| format!("{value:.1}"));
                match (check.limit, check.stable) {
                    (Some(limit), _) => format!("{} {value}, limit {limit}", check.name),
                    (None, Some(stable)) => format!("{} {value}, stable {stable:.1}", check.name),
                    (None, None) => format!("{} {value}", check.name),
                }
            })
            .collect();
        format!("{} ({} requests)", words.join("; "), self.requests)
    }
}

/// Judges the new revision.
#[must_use]
pub fn judge(policy: &JudgePolicy, canary: &RevisionStats, stable: &RevisionStats) -> Judgement {
    let enough = canary.requests >= policy.min_requests.max(1);
    let mut checks: Vec<CheckResult> = policy.checks.iter().map(|check| fixed(check, canary, stable, enough)).collect();
    if policy.compare_with_stable {
        let enough_stable = stable.requests >= policy.min_requests.max(1);
        checks.push(compare_errors(canary, stable, enough, enough_stable));
        checks.push(compare_latency(canary, stable, enough, enough_stable));
    }
    // A policy that asks for nothing still never passes without a request.
    let floor = if enough { Outcome::Pass } else { Outcome::Insufficient };
    let outcome = checks.iter().map(|check| check.outcome).max().unwrap_or(floor).max(floor);
    Judgement { outcome, requests: canary.requests, checks }
}

fn fixed(check: &Check, canary: &RevisionStats, stable: &RevisionStats, enough: bool) -> CheckResult {
    let value = canary.value(check.metric);
    let outcome = match value {
        Some(value) if enough && value.is_finite() => {
            let good = match check.metric {
                Metric::SuccessRate => value >= check.limit,
                Metric::LatencyP50 | Metric::LatencyP95 | Metric::LatencyP99 => value <= check.limit,
            };
            if good { Outcome::Pass } else { Outcome::Fail }
        }
        _ => Outcome::Insufficient,
    };
    CheckResult {
        name: check.metric.word().to_owned(),
        value,
        stable: stable.value(check.metric),
        limit: Some(check.limit),
        outcome,
        p_value: None,
    }
}

/// Without enough requests to the stable revision there is nothing to compare with, and the fixed limits decide alone:
/// at 99 % canary a quiet service would otherwise be held for ever.
fn compared(enough: bool, enough_stable: bool, fails: bool) -> Outcome {
    match (enough, enough_stable, fails) {
        (false, ..) => Outcome::Insufficient,
        (true, false, _) => Outcome::Insufficient,
        (true, true, true) => Outcome::Fail,
        (true, true, false) => Outcome::Pass,
    }
}

fn compare_errors(canary: &RevisionStats, stable: &RevisionStats, enough: bool, enough_stable: bool) -> CheckResult {
    let p_value = (canary.requests > 0 && stable.requests > 0).then(|| {
        let (n1, n2) = (canary.requests as f64, stable.requests as f64);
        let (p1, p2) = (canary.errors as f64 / n1, stable.errors as f64 / n2);
        let pooled = (canary.errors + stable.errors) as f64 / (n1 + n2);
        let deviation = (pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2)).sqrt();
        if deviation == 0.0 { 1.0 } else { upper_tail((p1 - p2) / deviation) }
    });
    let fails = p_value.is_some_and(|p| p < SIGNIFICANCE);
    CheckResult {
        name: "errors_vs_stable".into(),
        value: canary.success_rate().map(|rate| 100.0 - rate),
        stable: stable.success_rate().map(|rate| 100.0 - rate),
        limit: None,
        outcome: compared(enough, enough_stable, fails),
        p_value,
    }
}

fn compare_latency(canary: &RevisionStats, stable: &RevisionStats, enough: bool, enough_stable: bool) -> CheckResult {
    let (value, other) = (canary.latency_ms(0.95), stable.latency_ms(0.95));
    let p_value = mann_whitney(&canary.latency, &stable.latency);
    let is_worse =
        |value: f64, other: f64| value > other * LATENCY_WORSE_FACTOR && value - other >= LATENCY_WORSE_MIN_MS;
    let worse = matches!((value, other), (Some(value), Some(other)) if is_worse(value, other));
    let fails = worse && p_value.is_some_and(|p| p < SIGNIFICANCE);
    CheckResult {
        name: "latency_vs_stable".into(),
        value,
        stable: other,
        limit: None,
        outcome: compared(enough, enough_stable, fails),
        p_value,
    }
}

/// One-sided p-value for "the first sample is slower", from two histograms with the same buckets.
fn mann_whitney(slow: &[(u64, u64)], fast: &[(u64, u64)]) -> Option<f64> {
    let mut bounds: Vec<u64> = slow.iter().chain(fast).map(|(bound, _)| *bound).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let count = |histogram: &[(u64, u64)], bound: u64| {
        histogram.iter().filter(|(b, _)| *b == bound).map(|(_, count)| *count).sum::<u64>() as f64
    };
    let (mut u, mut fast_below, mut ties) = (0.0_f64, 0.0_f64, 0.0_f64);
    let (mut n1, mut n2) = (0.0_f64, 0.0_f64);
    for bound in bounds {
        let (a, b) = (count(slow, bound), count(fast, bound));
        // Every slow one beats all fast ones of lower buckets, and half of those in its own.
        u += a * (fast_below + b / 2.0);
        fast_below += b;
        n1 += a;
        n2 += b;
        ties += (a + b).powi(3) - (a + b);
    }
    if n1 == 0.0 || n2 == 0.0 {
        return None;
    }
    let n = n1 + n2;
    let variance = n1 * n2 / 12.0 * ((n + 1.0) - ties / (n * (n - 1.0)));
    Some(if variance <= 0.0 { 1.0 } else { upper_tail((u - n1 * n2 / 2.0) / variance.sqrt()) })
}

/// P(Z > z) of the standard normal distribution, by the rational approximation 26.2.17 of Abramowitz and Stegun,
/// *Handbook of Mathematical Functions* (error below 7.5e-8).
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let poly =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (density * poly).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(requests: u64, errors: u64) -> RevisionStats {
        RevisionStats { requests, errors, latency: vec![(10, requests), (100, 0), (u64::MAX, 0)] }
    }

    fn policy(checks: Vec<Check>) -> JudgePolicy {
        JudgePolicy { checks, min_requests: 50, ..JudgePolicy::default() }
    }

    fn success(limit: f64) -> Check {
        Check { metric: Metric::SuccessRate, limit }
    }

    #[test]
    fn the_normal_tail_agrees_with_the_tables() {
        for (z, p) in [(0.0, 0.5), (1.0, 0.158_655), (1.96, 0.024_998), (2.326, 0.010_010), (-1.0, 0.841_345)] {
            assert!((upper_tail(z) - p).abs() < 1e-5, "{z}: {}", upper_tail(z));
        }
    }

    #[test]
    fn no_request_is_never_a_pass() {
        for checks in [vec![], vec![success(99.0)]] {
            for compare_with_stable in [false, true] {
                let policy = JudgePolicy { compare_with_stable, ..policy(checks.clone()) };
                assert_eq!(judge(&policy, &stats(0, 0), &stats(1_000, 0)).outcome, Outcome::Insufficient);
            }
        }
    }

    #[test]
    fn a_hundred_percent_errors_is_not_read_as_no_traffic() {
        assert_eq!(judge(&policy(vec![success(99.0)]), &stats(60, 60), &stats(600, 0)).outcome, Outcome::Fail);
    }

    #[test]
    fn a_fifth_of_errors_fails_against_a_good_stable() {
        let judgement = judge(&policy(vec![]), &stats(100, 20), &stats(900, 0));
        assert_eq!(judgement.outcome, Outcome::Fail);
        assert!(judgement.reason().contains("errors_vs_stable 20.0, stable 0.0"), "{}", judgement.reason());
    }

    #[test]
    fn equally_bad_revisions_do_not_fail_the_comparison() {
        assert_eq!(judge(&policy(vec![]), &stats(100, 20), &stats(900, 180)).outcome, Outcome::Pass);
    }

    #[test]
    fn too_few_requests_decide_nothing_however_bad() {
        assert_eq!(judge(&policy(vec![success(99.0)]), &stats(49, 49), &stats(900, 0)).outcome, Outcome::Insufficient);
    }

    #[test]
    fn a_difference_that_nobody_notices_is_none_however_sure_it_is() {
        let of = |latency: [u64; 3], scale: u64| RevisionStats {
            requests: latency.iter().sum(),
            errors: 0,
            latency: [5, 10, 15].into_iter().zip(latency).map(|(bound, count)| (bound * scale, count)).collect(),
        };
        let (slow, fast) = ([2, 10, 14], [20, 6, 0]);
        let outcome = |scale| compare_latency(&of(slow, scale), &of(fast, scale), true, true);
        let (near, far) = (outcome(1), outcome(10));
        assert!(near.p_value == far.p_value && near.p_value.is_some_and(|p| p < SIGNIFICANCE));
        assert_eq!((near.outcome, far.outcome), (Outcome::Pass, Outcome::Fail));
    }

    #[test]
    fn a_slower_revision_fails_and_an_equal_one_does_not() {
        let fast = RevisionStats { requests: 1_000, errors: 0, latency: vec![(10, 900), (100, 100), (1_000, 0)] };
        let slow = RevisionStats { requests: 200, errors: 0, latency: vec![(10, 20), (100, 100), (1_000, 80)] };
        assert_eq!(judge(&policy(vec![]), &slow, &fast).outcome, Outcome::Fail);
        let equal = RevisionStats { requests: 200, errors: 0, latency: vec![(10, 180), (100, 20), (1_000, 0)] };
        assert_eq!(judge(&policy(vec![]), &equal, &fast).outcome, Outcome::Pass);
    }

    #[test]
    fn percentiles_interpolate_and_the_open_bucket_gives_its_lower_end() {
        let stats = RevisionStats { requests: 100, errors: 0, latency: vec![(10, 50), (20, 40), (u64::MAX, 10)] };
        assert_eq!(stats.latency_ms(0.5), Some(10.0));
        assert_eq!(stats.latency_ms(0.9), Some(20.0));
        assert_eq!(stats.latency_ms(0.99), Some(20.0));
        assert_eq!(RevisionStats::default().latency_ms(0.5), None);
    }

    #[test]
    fn counters_that_went_back_count_from_zero() {
        assert_eq!(stats(5, 1).since(&stats(100, 2)).requests, 5);
        assert_eq!(stats(105, 3).since(&stats(100, 2)), stats(5, 1));
    }
}
