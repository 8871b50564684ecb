//! What stands when the metrics are asked for: what is pending, waits and runs, the store, the disk, the gateway. Reading
//! only, and bounded: so many runs and revisions are looked at, and the gateway has so long to answer.

use std::collections::BTreeMap;

use pipelines::{
    approval::ApprovalState,
    effect::{Effect, EffectKind},
    ids::{ReleaseId, RunId},
    time::UnixMs,
};
use prometheus::{TextEncoder, proto::MetricFamily};

use super::{family::Family, seconds};
use crate::{
    app::{App, AppError, health::Verdict, load::QueueKind},
    gateway::{GatewayStats, RevisionStats},
    store::CommitTimes,
};

/// Runs that wait or run and are looked at; of more, only how many there are is known.
const RUNS_SEEN_MAX: usize = 5_000;
/// The classes of answers, as the gateway counts them.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// The bounds of the gateway's buckets that are served, in milliseconds: each one makes a series for every revision.
const LATENCY_SERVED_MS: [u64; 12] = [5, 10, 20, 50, 100, 200, 300, 500, 1_000, 2_000, 5_000, 10_000];

impl App {
    /// Everything that the server counts and that stands, in Prometheus's text format.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn metrics_text(&self) -> Result<String, AppError> {
        let mut families = self.metrics.registry.gather();
        let standing = [
            about(),
            self.effects_families(),
            self.trains_families()?,
            self.store_families()?,
            self.bounds_families(),
            self.health_family().await,
            self.gateway_families().await,
        ];
        families.extend(standing.into_iter().flatten());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        TextEncoder::new()
            .encode_to_string(&families)
            .map_err(|error| AppError::Invalid(format!("the metrics cannot be written: {error}")))
    }

    fn effects_families(&self) -> Vec<MetricFamily> {
        #[derive(Clone, Copy, Default)]
        struct Pending {
            all: usize,
            failing: usize,
            waits_ms: u64,
        }
        let now = self.now();
        let mut kinds: BTreeMap<EffectKind, Pending> =
            EffectKind::ALL.iter().map(|kind| (*kind, Pending::default())).collect();
        self.queue.each(|pending| {
            let kind = kinds.entry(pending.effect.kind()).or_default();
            kind.all += 1;
            kind.failing += usize::from(pending.failures > 0);
            // What is asked for a later time waits from then on, and what failed since it was first due.
            kind.waits_ms = kind.waits_ms.max(now.since_ms(pending.asked_at.max(pending.effect.due_at())));
        });
        let mut all = Family::gauge("effects_pending", "Effects that are asked for and not done.");
        let mut failing = Family::gauge("effects_failing", "Of these, those whose last try failed.");
        let mut oldest = Family::gauge("effect_oldest_seconds", "For how long the one that waits longest is due.");
        for (kind, pending) in kinds {
            let labels = [("kind", kind.word())];
            all.value(&labels, count(pending.all));
            failing.value(&labels, count(pending.failing));
            oldest.value(&labels, seconds(pending.waits_ms));
        }
        done([all, failing, oldest])
    }

    fn trains_families(&self) -> Result<Vec<MetricFamily>, AppError> {
        let now = self.now();
        let mut states: BTreeMap<&str, usize> =
            ["held", "queued", "running", "cancelling"].into_iter().map(|state| (state, 0)).collect();
        let mut queued_since: Option<UnixMs> = None;
        let work = self.queue.work();
        for id in work.held.keys().chain(&work.waiting).take(RUNS_SEEN_MAX) {
            let Some(run) = self.store.run(id)? else { continue };
            *states.entry(run.state.word()).or_default() += 1;
            if run.state.word() == "queued" {
                queued_since = Some(queued_since.map_or(run.created_at, |since| since.min(run.created_at)));
            }
        }
        let (mut services, mut rollouts, mut held_since) = (0, 0, None::<UnixMs>);
        for service in self.store.services()? {
            services += 1;
            let Some(train) = self.store.train(&service.name)? else { continue };
            rollouts += usize::from(train.rollout.is_some());
            *states.entry("held").or_default() += train.held.len();
            if let Some(first) = train.held.first()
                && let Some(run) = self.store.run(&RunId::new(service.name, *first))?
            {
                held_since = Some(held_since.map_or(run.created_at, |since| since.min(run.created_at)));
            }
        }
        let (waiting, oldest_ms) = self.approvals_waiting(now)?;
        let mut runs = Family::gauge("runs", "Runs that are not over, by state.");
        for (state, number) in states {
            runs.value(&[("state", state)], count(number));
        }
        let age = |since: Option<UnixMs>| since.map_or(0.0, |since| seconds(now.since_ms(since)));
        Ok(done([
            runs,
            Family::gauge("services", "Registered services.").with(&[], count(services)),
            Family::gauge("rollouts_running", "Rollouts that are not over.").with(&[], count(rollouts)),
            Family::gauge("run_queue_oldest_seconds", "For how long the oldest run waits for a runner.")
                .with(&[], age(queued_since)),
            Family::gauge("run_held_oldest_seconds", "For how long the oldest held run waits for a person's word.")
                .with(&[], age(held_since)),
            Family::gauge("approvals_waiting", "Releases that wait for their testers.").with(&[], count(waiting)),
            Family::gauge("approval_oldest_seconds", "For how long the oldest of them waits.")
                .with(&[], seconds(oldest_ms)),
        ]))
    }

    /// How many approvals are open, and for how long the oldest is. Each open one has a pending end.
    fn approvals_waiting(&self, now: UnixMs) -> Result<(usize, u64), AppError> {
        let mut releases: Vec<ReleaseId> = Vec::new();
        self.queue.each(|pending| {
            if let Effect::ExpireApproval { release, .. } = &pending.effect {
                releases.push(release.clone());
            }
        });
        let (mut waiting, mut oldest_ms) = (0, 0);
        for release in &releases {
            let open = self.store.approval(release)?.filter(|approval| approval.state == ApprovalState::Open);
            waiting += usize::from(open.is_some());
            oldest_ms = oldest_ms.max(open.map_or(0, |approval| now.since_ms(approval.opened_at)));
        }
        Ok((waiting, oldest_ms))
    }

    fn store_families(&self) -> Result<Vec<MetricFamily>, AppError> {
        let CommitTimes { commits, batches, refused, bounds_us, buckets, sum_us } = self.store.commit_times();
        let bounds: Vec<f64> = bounds_us.iter().map(|us| micros(*us)).collect();
        let mut commit = Family::histogram("store_commit_seconds", "Time of one flush of the store.");
        commit.buckets(&[], &bounds, &buckets, micros(sum_us));
        let refusing = f64::from(u8::from(self.refusing().is_some()));
        let mut families = done([
            commit,
            Family::gauge("store_bytes", "What the store takes on disk.").with(&[], large(self.store.size_bytes()?)),
            Family::gauge("store_refusing", "1 while the store refuses changes.").with(&[], refusing),
            Family::counter("store_commits_total", "Flushes of the store.").with(&[], large(commits)),
            Family::counter("store_changes_total", "Changes in these flushes.").with(&[], large(batches)),
            Family::counter("store_refused_total", "Flushes that the disk did not take.").with(&[], large(refused)),
        ]);
        if let Ok(found) = rustix::fs::statvfs(&self.config.state_dir) {
            let free = large(found.f_bavail.saturating_mul(found.f_frsize));
            families
                .extend(Family::gauge("disk_free_bytes", "Free bytes under the state folder.").with(&[], free).done());
        }
        if let Some(swept) = self.last_swept() {
            let age = seconds(self.now().since_ms(swept.at));
            families.extend(done([
                Family::gauge("logs_kept_bytes", "Bytes of the kept logs, at the last sweep.")
                    .with(&[], large(swept.log_bytes)),
                Family::gauge("sweep_age_seconds", "Time since the last sweep.").with(&[], age),
            ]));
        }
        Ok(families)
    }

    fn bounds_families(&self) -> Vec<MetricFamily> {
        let bounds = &self.config.bounds;
        let mut length = Family::gauge("queue_length", "How much there is of each bounded thing.");
        let mut bound = Family::gauge("queue_bound", "How much there may be of it.");
        let mut refused =
            Family::counter("queue_refused_total", "How often something was refused because as much was there.");
        let mut streams = (0, 0);
        for queue in self.queues() {
            let of = [("queue", queue.kind.word())];
            length.value(&of, large(queue.length));
            bound.value(&of, large(queue.bound));
            refused.value(&of, large(queue.refused));
            if queue.kind == QueueKind::Streams {
                streams = (queue.length, queue.bound);
            }
        }
        done([
            length,
            bound,
            refused,
            Family::gauge("streams_open", "Open streams of events and log lines.").with(&[], large(streams.0)),
            Family::gauge("streams_max", "How many may be open.").with(&[], large(streams.1)),
            Family::gauge("effects_parallel_max", "Effects that are performed at the same time at most.")
                .with(&[], count(bounds.effects_parallel_max)),
            Family::gauge("disk_free_min_bytes", "With less free, nothing new begins.")
                .with(&[], large(bounds.disk_free_bytes_min)),
        ])
    }

    /// Outside parties are not asked at each scrape: they would have more work with it than with the deliveries.
    async fn health_family(&self) -> Vec<MetricFamily> {
        let fresh = std::time::Duration::from_millis(self.config.metrics.health_every_ms);
        let mut family = Family::gauge(
            "health",
            "What the server found of itself and its surroundings: 0 good, 1 to be looked after, 2 does not work.",
        );
        for finding in self.health_within(fresh).await {
            let value = match finding.verdict {
                Verdict::Good => 0.0,
                Verdict::Warning => 1.0,
                Verdict::Bad => 2.0,
            };
            family.value(&[("of", finding.name)], value);
        }
        family.done().into_iter().collect()
    }

    async fn gateway_families(&self) -> Vec<MetricFamily> {
        let up = |value| Family::gauge("gateway_up", "1 while the gateway answers.").with(&[], value);
        match self.gateway_stats().await {
            None => done([up(0.0)]),
            Some(stats) => {
                let mut families = gateway_families(&stats, self.config.metrics.revisions_max);
                families.extend(up(1.0).done());
                families
            }
        }
    }
}

fn gateway_families(stats: &GatewayStats, revisions_max: usize) -> Vec<MetricFamily> {
    let mut requests =
        Family::counter("gateway_requests_total", "Requests that a revision answered, by class, or failed to answer.");
    let mut failures = Family::counter(
        "gateway_failures_total",
        "Connections that could not be made, answers that did not come in time or broke off.",
    );
    let mut aborts = Family::counter("gateway_client_aborts_total", "Requests that the client gave up.");
    let mut retries = Family::counter("gateway_retries_total", "Further attempts.");
    let mut in_flight = Family::gauge("gateway_in_flight", "Requests that have not ended.");
    let mut weight = Family::gauge("gateway_weight_ratio", "Share of the requests that a revision is to get.");
    let mut latency = Family::histogram("gateway_request_seconds", "Time to the head of the answer.");
    // Those that have requests now before those that had some.
    let mut revisions = by_revision(&stats.revisions);
    revisions.sort_by_key(|revision| revision.weight.is_none());
    for found in revisions.iter().take(revisions_max) {
        let (environment, service) = names(&found.revision);
        let labels = [("service", service), ("environment", environment), ("revision", found.revision.as_str())];
        let [by_service, by_environment, by_revision] = labels;
        let more = |name: &'static str, value: &'static str| [by_service, by_environment, by_revision, (name, value)];
        for (class, number) in CLASSES.into_iter().zip(found.by_class) {
            requests.value(&more("code", class), large(number));
        }
        let answered: u64 = found.by_class.iter().sum();
        requests.value(&more("code", "none"), large(found.requests.saturating_sub(answered)));
        for (cause, number) in
            [("connect", found.connect_failures), ("timeout", found.timeouts), ("broken", found.broken_answers)]
        {
            failures.value(&more("cause", cause), large(number));
        }
        aborts.value(&labels, large(found.client_aborts));
        retries.value(&labels, large(found.retries));
        in_flight.value(&labels, large(found.in_flight));
        if let Some(hundredths) = found.weight {
            weight.value(&labels, f64::from(hundredths) / 10_000.0);
        }
        let counts = merged(&stats.latency_bounds_ms, &found.latency);
        let bounds = LATENCY_SERVED_MS.map(seconds);
        latency.buckets(&labels, &bounds, &counts, micros(found.latency_sum_us));
    }
    let left_out = count(revisions.len().saturating_sub(revisions_max));
    done([
        requests,
        failures,
        aborts,
        retries,
        in_flight,
        weight,
        latency,
        Family::gauge("gateway_connections", "Open connections of clients.").with(&[], large(stats.connections)),
        Family::gauge("gateway_generation", "Generation of the table in force.").with(&[], large(stats.generation)),
        Family::counter("gateway_unknown_host_total", "Requests for a host that no route knows.")
            .with(&[], large(stats.unknown_host)),
        Family::counter("gateway_refused_total", "Requests that were answered without a revision.")
            .with(&[], large(stats.refused)),
        Family::gauge("gateway_revisions_left_out", "Revisions above metrics.revisions_max, of which nothing is told.")
            .with(&[], left_out),
    ])
}

/// One reading per revision: it may be under the host of production and that of the preview.
fn by_revision(found: &[RevisionStats]) -> Vec<RevisionStats> {
    let mut all: BTreeMap<&str, RevisionStats> = BTreeMap::new();
    for one in found {
        match all.get_mut(one.revision.as_str()) {
            Some(sum) => sum.add(one),
            None => drop(all.insert(&one.revision, one.clone())),
        }
    }
    all.into_values().collect()
}

/// Counts in the buckets that are served, the last one above all of them.
fn merged(bounds_ms: &[u64], counts: &[u64]) -> Vec<u64> {
    let mut merged = vec![0; LATENCY_SERVED_MS.len() + 1];
    for (index, number) in counts.iter().enumerate() {
        let bound = bounds_ms.get(index).copied().unwrap_or(u64::MAX);
        merged[LATENCY_SERVED_MS.partition_point(|served| *served < bound)] += number;
    }
    merged
}

/// Environment and service of a revision as the gateway knows it: `production:checkout-412-3f1c9a0b2d4e`.
fn names(id: &str) -> (&str, &str) {
    let (environment, revision) = id.split_once(':').unwrap_or(("", id));
    (environment, revision.rsplitn(3, '-').nth(2).unwrap_or(revision))
}

fn about() -> Vec<MetricFamily> {
    let labels =
        [("version", env!("CARGO_PKG_VERSION")), ("os", std::env::consts::OS), ("arch", std::env::consts::ARCH)];
    done([Family::gauge("build_info", "Which build this is; always 1.").with(&labels, 1.0)])
}

fn done<const N: usize>(families: [Family; N]) -> Vec<MetricFamily> {
    families.into_iter().filter_map(Family::done).collect()
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point; 2^52 bytes are four petabytes")]
fn large(number: u64) -> f64 {
    number as f64
}

fn count(number: usize) -> f64 {
    large(number as u64)
}

fn micros(us: u64) -> f64 {
    large(us) / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_what_the_gateway_calls_a_revision() {
        assert_eq!(names("production:my-shop-412-3f1c9a0b2d4e"), ("production", "my-shop"));
        assert_eq!(names("test:a-1-x"), ("test", "a"));
        assert_eq!(names("odd"), ("", "odd"));
    }

    #[test]
    fn every_bucket_of_the_gateway_is_counted_where_its_bound_lies() {
        let counts = merged(&[1, 5, 7, 10_000, 30_000], &[1, 2, 4, 8, 16, 32]);
        assert_eq!((counts[0], counts[1], counts[11], counts[12]), (3, 4, 8, 48));
    }
}
