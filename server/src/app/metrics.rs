//! What the server counts of itself, for Prometheus: what happens is counted here as it happens, what stands is read when it
//! is asked for ([`scrape`]). Labels come from closed lists, never from refs, names of steps or anything else that somebody
//! writes; only the gateway's counters name services and revisions, and of those only so many. A failure of the user's code
//! and one of the infrastructure are told apart by the label `blame`. docs/operations.md lists all of it.

mod family;
mod scrape;
#[cfg(test)]
mod tests;

use std::time::Duration;

use pipelines::{
    approval::ApprovalState,
    effect::EffectKind,
    protocol::{Blame, StepOutcome},
    release::ReleaseState,
    rollout::{RolloutState, judge},
    run::{Run, RunState},
};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, core::Collector,
    process_collector::ProcessCollector,
};

use super::observed::Observed;

/// The type of the text that is served.
pub const TEXT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Bounds of the buckets for what takes from a moment to an hour, in seconds.
const WORK_S: [f64; 12] = [0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 180.0, 600.0, 1_800.0, 3_600.0];
/// The same for what people take: from a minute to a week.
const PEOPLE_S: [f64; 10] =
    [60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 172_800.0, 259_200.0, 604_800.0];
/// The same for what is either.
const STAY_S: [f64; 10] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 259_200.0];
/// The same for answers to requests.
const ANSWER_S: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Ways in which a run ends, with whose failure it is.
const RUN_RESULTS: [(&str, &str); 6] = [
    ("succeeded", "none"),
    ("passed", "none"),
    ("failed", "code"),
    ("failed", "infrastructure"),
    ("cancelled", "none"),
    ("declined", "none"),
];
/// Parts of a run.
const PHASES: [&str; 4] = ["checkout", "steps", "image", "push"];
/// States that a release comes to.
const RELEASE_STATES: [&str; 13] = [
    "waiting_for_test",
    "deploying_test",
    "test_failed",
    "awaiting_approval",
    "rejected",
    "expired",
    "superseded",
    "promoting",
    "waiting_for_rollout",
    "rolling_out",
    "live",
    "retired",
    "rolled_back",
];
/// What became of spans that were sent: taken, refused.
const SPAN_OUTCOMES: [&str; 2] = ["taken", "refused"];
const STRATEGIES: [&str; 3] = ["rolling", "blue-green", "canary"];

/// What became of an incoming hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookFate {
    /// It was recorded.
    Recorded,
    /// It came before.
    Repeat,
    /// Its signature is wrong, or there is no such service.
    Refused,
    /// It cannot be read.
    Unreadable,
    /// There is no room for it now, or there were too many.
    Shed,
    /// The server failed.
    Failed,
}

impl HookFate {
    const ALL: [Self; 6] = [Self::Recorded, Self::Repeat, Self::Refused, Self::Unreadable, Self::Shed, Self::Failed];

    fn word(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Repeat => "repeat",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Shed => "shed",
            Self::Failed => "failed",
        }
    }
}

/// Which side of the server a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the side that it names")]
pub enum Surface {
    Page,
    Api,
    Hook,
    Link,
    Asset,
    Probe,
    Unknown,
}

impl Surface {
    const ALL: [Self; 7] = [Self::Page, Self::Api, Self::Hook, Self::Link, Self::Asset, Self::Probe, Self::Unknown];

    fn word(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Api => "api",
            Self::Hook => "hook",
            Self::Link => "link",
            Self::Asset => "asset",
            Self::Probe => "probe",
            Self::Unknown => "unknown",
        }
    }
}

/// The counters of one server.
pub struct Metrics {
    registry: Registry,
    runs: IntCounterVec,
    run_queue: Histogram,
    run_time: HistogramVec,
    run_phase: HistogramVec,
    effects: IntCounterVec,
    effect_failures: IntCounterVec,
    effect_time: HistogramVec,
    hooks: IntCounterVec,
    releases: IntCounterVec,
    release_time: Histogram,
    release_state: HistogramVec,
    approvals: IntCounterVec,
    approval_time: Histogram,
    rollouts: IntCounterVec,
    rollout_time: HistogramVec,
    verdicts: IntCounterVec,
    log_lines: IntCounter,
    log_bytes: IntCounter,
    requests: IntCounterVec,
    request_time: HistogramVec,
    spans: IntCounterVec,
}

/// Names and labels are constants: what is wrong with one is wrong at every start, and the first test finds it.
fn sound<T>(made: prometheus::Result<T>) -> T {
    made.unwrap_or_else(|error| panic!("a metric's name or label is not good: {error}"))
}

/// Registers metrics.
struct Maker(Registry);

impl Maker {
    fn kept<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let made = sound(made);
        sound(self.0.register(Box::new(made.clone())));
        made
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.kept(IntCounter::new(format!("windlass_{name}"), help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.kept(IntCounterVec::new(Opts::new(format!("windlass_{name}"), help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(format!("windlass_{name}"), help).buckets(buckets.to_vec());
        self.kept(Histogram::with_opts(options))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(format!("windlass_{name}"), help).buckets(buckets.to_vec());
        self.kept(HistogramVec::new(options, labels))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let make = Maker(Registry::new());
        sound(make.0.register(Box::new(ProcessCollector::for_self())));
        let metrics = Self {
            runs: make.counters(
                "runs_total",
                "Runs that ended, by result and by whose failure it was.",
                &["result", "blame"],
            ),
            run_queue: make.histogram("run_queue_seconds", "Time that runs waited for a runner.", &WORK_S),
            run_time: make.histograms("run_seconds", "Time that runs took on their runner.", &["result"], &WORK_S),
            run_phase: make.histograms("run_phase_seconds", "Time that the parts of runs took.", &["phase"], &WORK_S),
            effects: make.counters("effects_performed_total", "Effects that were performed.", &["kind"]),
            effect_failures: make.counters(
                "effect_failures_total",
                "Tries at effects that the world did not let; each is tried again.",
                &["kind"],
            ),
            effect_time: make.histograms("effect_seconds", "Time that one try at an effect took.", &["kind"], &WORK_S),
            hooks: make.counters("hooks_total", "Hooks that came in, by what became of them.", &["forge", "outcome"]),
            releases: make.counters("releases_total", "Releases that came to a state.", &["state"]),
            release_time: make.histogram("release_seconds", "Time from the pushed image to live.", &PEOPLE_S),
            release_state: make.histograms(
                "release_state_seconds",
                "Time that releases spent in a state that they left.",
                &["state"],
                &STAY_S,
            ),
            approvals: make.counters("approvals_total", "Approvals that ended, by how.", &["outcome"]),
            approval_time: make.histogram("approval_seconds", "Time that testers took to decide.", &PEOPLE_S),
            rollouts: make.counters("rollouts_total", "Rollouts that ended.", &["strategy", "outcome"]),
            rollout_time: make.histograms("rollout_seconds", "Time that rollouts took.", &["strategy"], &WORK_S),
            verdicts: make.counters(
                "rollout_verdicts_total",
                "Looks of the judge at a stage, by verdict.",
                &["verdict"],
            ),
            log_lines: make.counter(
                "log_lines_received_total",
                "Log lines that runners sent; those that were sent again count again.",
            ),
            log_bytes: make.counter("log_bytes_received_total", "Bytes of these lines."),
            requests: make.counters(
                "http_requests_total",
                "Requests to the server, by what they were for and the status.",
                &["surface", "code"],
            ),
            request_time: make.histograms(
                "http_request_seconds",
                "Time to the head of the answer.",
                &["surface"],
                &ANSWER_S,
            ),
            spans: make.counters(
                "trace_spans_total",
                "Spans that a receiver of traces took, or refused for good.",
                &["outcome"],
            ),
            registry: make.0,
        };
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    /// What can be counted stands at zero from the start: the first failure is then a rise that an alert sees.
    fn begin_at_zero(&self) {
        for (result, blame) in RUN_RESULTS {
            self.runs.with_label_values(&[result, blame]);
            self.run_time.with_label_values(&[result]);
        }
        for phase in PHASES {
            self.run_phase.with_label_values(&[phase]);
        }
        for kind in EffectKind::ALL.iter().map(|kind| kind.word()) {
            self.effects.with_label_values(&[kind]);
            self.effect_failures.with_label_values(&[kind]);
            self.effect_time.with_label_values(&[kind]);
        }
        for fate in HookFate::ALL {
            self.hooks.with_label_values(&["unknown", fate.word()]);
        }
        for state in RELEASE_STATES {
            self.releases.with_label_values(&[state]);
            self.release_state.with_label_values(&[state]);
        }
        for outcome in ["approved", "rejected", "expired", "superseded"] {
            self.approvals.with_label_values(&[outcome]);
        }
        for strategy in STRATEGIES {
            self.rollout_time.with_label_values(&[strategy]);
            for outcome in ["completed", "rolled_back"] {
                self.rollouts.with_label_values(&[strategy, outcome]);
            }
        }
        for outcome in [judge::Outcome::Pass, judge::Outcome::Insufficient, judge::Outcome::Fail] {
            self.verdicts.with_label_values(&[verdict(outcome)]);
        }
        for outcome in SPAN_OUTCOMES {
            self.spans.with_label_values(&[outcome]);
        }
        for surface in Surface::ALL {
            self.requests.with_label_values(&[surface.word(), "200"]);
            self.request_time.with_label_values(&[surface.word()]);
        }
    }

    /// A hook came in; `forge` is one of the forges that are known, or `unknown`.
    pub fn hook(&self, forge: &'static str, fate: HookFate) {
        self.hooks.with_label_values(&[forge, fate.word()]).inc();
    }

    /// A request was answered.
    pub fn request(&self, surface: Surface, status: u16, took: Duration) {
        self.requests.with_label_values(&[surface.word(), &status.to_string()]).inc();
        self.request_time.with_label_values(&[surface.word()]).observe(took.as_secs_f64());
    }

    /// So many spans were taken by the receiver of traces, and so many refused for good.
    pub(crate) fn spans(&self, taken: u64, refused: u64) {
        for (outcome, spans) in SPAN_OUTCOMES.iter().zip([taken, refused]) {
            self.spans.with_label_values(&[outcome]).inc_by(spans);
        }
    }

    /// A driver tried an effect.
    pub(crate) fn effect(&self, kind: EffectKind, took: Duration, performed: bool) {
        let counted = if performed { &self.effects } else { &self.effect_failures };
        counted.with_label_values(&[kind.word()]).inc();
        self.effect_time.with_label_values(&[kind.word()]).observe(took.as_secs_f64());
    }

    /// A runner sent lines.
    pub(super) fn log(&self, lines: usize, bytes: usize) {
        self.log_lines.inc_by(lines as u64);
        self.log_bytes.inc_by(bytes as u64);
    }

    /// A change was stored that does this.
    pub(super) fn observed(&self, observed: &Observed) {
        match observed {
            Observed::RunStarted(run) => {
                // One that a person had to allow waited for them, not for a runner.
                if let (Some(started), None) = (run.started_at, &run.allowed_by) {
                    self.run_queue.observe(seconds(started.since_ms(run.created_at)));
                }
            }
            Observed::RunEnded(run) => self.run_ended(run),
            Observed::ReleaseMoved { before, release } => {
                self.releases.with_label_values(&[release.state.word()]).inc();
                if let Some(before) = before.as_ref().filter(|before| before.state.is_under_way()) {
                    let stayed = seconds(release.changed_at.since_ms(before.changed_at));
                    self.release_state.with_label_values(&[before.state.word()]).observe(stayed);
                }
                if let (ReleaseState::Live, Some(live)) = (&release.state, release.live_at) {
                    self.release_time.observe(seconds(live.since_ms(release.created_at)));
                }
            }
            Observed::ApprovalEnded(approval) => {
                self.approvals.with_label_values(&[approval.state.word()]).inc();
                if let ApprovalState::Approved { decision } | ApprovalState::Rejected { decision } = &approval.state {
                    self.approval_time.observe(seconds(decision.at.since_ms(approval.opened_at)));
                }
            }
            Observed::RolloutEnded(rollout) => {
                let strategy = rollout.plan.strategy.word();
                let outcome = if rollout.state == RolloutState::Completed { "completed" } else { "rolled_back" };
                self.rollouts.with_label_values(&[strategy, outcome]).inc();
                if let Some(finished) = rollout.finished_at {
                    let took = seconds(finished.since_ms(rollout.started_at));
                    self.rollout_time.with_label_values(&[strategy]).observe(took);
                }
            }
            Observed::Judged(outcome) => self.verdicts.with_label_values(&[verdict(*outcome)]).inc(),
        }
    }

    fn run_ended(&self, run: &Run) {
        let blame = match &run.state {
            RunState::Failed { blame: Blame::Code, .. } => "code",
            RunState::Failed { blame: Blame::Infrastructure, .. } => "infrastructure",
            _ => "none",
        };
        let result = run.state.word();
        self.runs.with_label_values(&[result, blame]).inc();
        if let (Some(started), Some(finished)) = (run.started_at, run.finished_at) {
            self.run_time.with_label_values(&[result]).observe(seconds(finished.since_ms(started)));
        }
        let mut steps_ms = None;
        for step in &run.steps {
            let (Some(started), Some(finished)) = (step.started_at, step.finished_at) else { continue };
            if matches!(step.outcome, Some(StepOutcome::Skipped { .. })) {
                continue;
            }
            let took_ms = finished.since_ms(started);
            match PHASES.into_iter().find(|phase| *phase == step.name && *phase != "steps") {
                Some(phase) => self.run_phase.with_label_values(&[phase]).observe(seconds(took_ms)),
                // The user's own, however they are called.
                None => *steps_ms.get_or_insert(0) += took_ms,
            }
        }
        if let Some(took_ms) = steps_ms {
            self.run_phase.with_label_values(&["steps"]).observe(seconds(took_ms));
        }
    }
}

fn verdict(outcome: judge::Outcome) -> &'static str {
    match outcome {
        judge::Outcome::Pass => "pass",
        judge::Outcome::Insufficient => "insufficient",
        judge::Outcome::Fail => "fail",
    }
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^52 ms")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
