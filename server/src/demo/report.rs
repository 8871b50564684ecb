//! What the demo saw, as the JSON object that it ends with.

use std::time::Instant;

use serde::Serialize;

use super::visitors::Requests;

/// Requests that must have been sent.
const REQUESTS_MIN: u64 = 2_000;
/// The longest time without a request, in milliseconds.
const GAP_MS_MAX: u64 = 100;

/// One part of the way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Station {
    /// Which: `push`, `run`, `test`, `mail`, `approval`, `promotion`, `rollout`.
    pub(crate) name: &'static str,
    /// Of which release.
    pub(crate) release: u32,
    /// How it ended.
    pub(crate) state: String,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// The digest of the last release, as each place names it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Digests {
    /// The test registry, by the release's tag.
    pub(crate) test: String,
    /// The production registry, by the release's tag.
    pub(crate) production: String,
    /// The engine, of every container in production.
    pub(crate) running: String,
}

/// One rollout.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RolloutSeen {
    /// `rolling`, `blue-green` or `canary`.
    pub(crate) strategy: String,
    /// How it ended.
    pub(crate) outcome: String,
    /// The new revision's shares of the traffic, in percent, in their order.
    pub(crate) steps: Vec<u64>,
}

/// All that was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The way of each release.
    pub(crate) stations: Vec<Station>,
    /// Where the last release's digest is.
    pub(crate) digest: Digests,
    /// Mails that asked for an approval.
    pub(crate) mails: usize,
    /// Decisions taken.
    pub(crate) approvals: usize,
    /// The rollouts, in their order.
    pub(crate) rollouts: Vec<RolloutSeen>,
    /// The visitors' requests.
    pub(crate) requests: Requests,
}

impl Report {
    /// Adds a station that began at `since` and ends now.
    pub(crate) fn station(&mut self, name: &'static str, release: u32, state: &str, since: &mut Instant) {
        let seconds = (since.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0;
        tracing::info!(release, state, seconds, "{name}");
        self.stations.push(Station { name, release, state: state.to_owned(), seconds });
        *since = Instant::now();
    }

    /// What did not hold, in words; empty when everything did.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let digest = &self.digest;
        if digest.test.is_empty() || digest.test != digest.production || digest.test != digest.running {
            broken.push(format!(
                "the digests differ: test {}, production {}, running {}",
                digest.test, digest.production, digest.running
            ));
        }
        if self.mails != self.approvals || self.approvals < 2 {
            broken.push(format!(
                "{} mails asked for an approval and {} decisions were taken",
                self.mails, self.approvals
            ));
        }
        let outcomes: Vec<_> =
            self.rollouts.iter().map(|seen| (seen.strategy.as_str(), seen.outcome.as_str())).collect();
        if outcomes != [("rolling", "completed"), ("canary", "completed")] {
            broken.push(format!("the rollouts were {outcomes:?}"));
        }
        let requests = &self.requests;
        if requests.failed > 0 {
            let first = requests.first_failure.as_deref().unwrap_or_default();
            broken.push(format!("{} requests failed; the first: {first}", requests.failed));
        }
        if requests.sent < REQUESTS_MIN {
            broken.push(format!("only {} requests were sent", requests.sent));
        }
        if requests.longest_gap_ms >= GAP_MS_MAX {
            broken.push(format!("for {} ms no request was sent", requests.longest_gap_ms));
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let seen =
            |strategy: &str| RolloutSeen { strategy: strategy.into(), outcome: "completed".into(), steps: vec![100] };
        Report {
            stations: Vec::new(),
            digest: Digests { test: "sha256:a".into(), production: "sha256:a".into(), running: "sha256:a".into() },
            mails: 2,
            approvals: 2,
            rollouts: vec![seen("rolling"), seen("canary")],
            requests: Requests { sent: 2_000, longest_gap_ms: 40, ..Requests::default() },
        }
    }

    #[test]
    fn everything_that_can_break_is_noticed() {
        assert!(good().broken().is_empty());
        let mut spoiled: Vec<Report> = (0..7).map(|_| good()).collect();
        spoiled[0].digest.running = "sha256:b".into();
        spoiled[1].mails = 3;
        spoiled[2].rollouts[1].outcome = "rolled_back".into();
        spoiled[3].requests.failed = 1;
        spoiled[4].requests.sent = 1_999;
        spoiled[5].requests.longest_gap_ms = 100;
        (spoiled[6].mails, spoiled[6].approvals) = (1, 1);
        for (case, report) in spoiled.iter().enumerate() {
            assert_eq!(report.broken().len(), 1, "case {case}: {:?}", report.broken());
        }
    }
}
