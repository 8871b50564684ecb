//! Which spans the life of a run and its release has, as far as it is over. Names and attributes follow OpenTelemetry's
//! semantic conventions for CI/CD, VCS and deployments; what they have no word for begins with `windlass.`. Only words from
//! closed lists, names of services, refs, steps and runners, and ids are told: never what a person wrote, who they are, or
//! what a step said. Pure: everything is handed in.

use pipelines::{
    journal::Entry,
    protocol::{Blame, StepOutcome},
    release::Release,
    rollout::{Cause, Rollout, RolloutState, judge},
    run::{Run, RunState, StepRecord},
    time::UnixMs,
    trigger::TriggerSource,
};

use super::{
    Mail,
    ids::{SpanId, TraceId},
    span::{Kind, Link, Span, Value, bounded},
};

/// Rollouts of a service, newest first, that are looked through for those of a release.
pub(super) const ROLLOUTS_SEEN_MAX: usize = 500;

/// Which machine moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    Run,
    Release,
}

/// One move of a run or its release, as the journal has it.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) of: Machine,
    pub(super) at: UnixMs,
    /// What happened.
    pub(super) word: String,
    /// The state that it left, and the one that it came to; none where a run was made.
    pub(super) change: Option<(String, String)>,
}

impl Move {
    /// What a line of the journal says of a run or its release; none where it is about something else or moves nothing.
    pub(super) fn of(run: &Run, entry: Entry) -> Option<Self> {
        let (what, id) = entry.subject.split_once(' ')?;
        let of = match what {
            "run" => Machine::Run,
            "release" => Machine::Release,
            _ => return None,
        };
        let moves = entry.change.is_some() || entry.word == RUN_CREATED;
        (moves && id == run.id.to_string()).then_some(Self { of, at: entry.at, word: entry.word, change: entry.change })
    }
}

/// The word of a run's first line.
pub(super) const RUN_CREATED: &str = "run_created";

/// A time in one state.
#[derive(Clone, Copy, Debug)]
struct Stay<'a> {
    state: &'a str,
    from: UnixMs,
    to: UnixMs,
    /// The state that came next.
    next: &'a str,
    /// What ended it.
    by: &'a str,
}

/// All that is known of a run and its release.
pub(super) struct Life<'a> {
    pub(super) instance: &'a str,
    pub(super) public_url: &'a str,
    pub(super) repository: Option<&'a str>,
    pub(super) run: &'a Run,
    pub(super) release: Option<&'a Release>,
    pub(super) rollouts: &'a [Rollout],
    /// Oldest first.
    pub(super) moves: &'a [Move],
}

/// How something ended, in the words of the conventions: result, and the word of what went wrong.
type Ended = (&'static str, Option<&'static str>);

impl Life<'_> {
    /// All spans of what is over, in no order.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        spans.extend(self.root());
        spans.extend(self.hook());
        self.run_spans(&mut spans);
        self.release_spans(&mut spans);
        for rollout in self.rollouts {
            self.rollout_spans(rollout, &mut spans);
        }
        spans
    }

    fn id(&self, thing: &str) -> SpanId {
        SpanId::of(self.instance, &self.run.id, thing)
    }

    /// The whole: every other span is beneath it.
    fn root_id(&self) -> SpanId {
        self.id("life")
    }

    fn span(&self, thing: &str, name: &str, start: UnixMs, end: UnixMs) -> Span {
        Span {
            trace: TraceId::of(self.instance, &self.run.id),
            id: self.id(thing),
            parent: Some(self.root_id()),
            name: bounded(name),
            kind: Kind::Internal,
            start,
            // A clock may have been set back in between.
            end: end.max(start),
            known_at: end,
            attributes: Vec::new(),
            error: None,
            links: Vec::new(),
        }
        .with("cicd.pipeline.name", self.run.id.service.as_str())
        .with("cicd.pipeline.run.id", self.run.id.to_string().as_str())
    }

    /// A task of the pipeline that ended so.
    fn task(&self, span: Span, kind: Option<&'static str>, ended: Ended) -> Span {
        let name = span.name.clone();
        let mut span = span
            .with("cicd.pipeline.task.name", name.as_str())
            .with_some("cicd.pipeline.task.type", kind)
            .with("cicd.pipeline.task.run.result", ended.0)
            .with_some("error.type", ended.1);
        let id = hex::encode(span.id.0);
        span = span.with("cicd.pipeline.task.run.id", id.as_str());
        span.error = ended.1;
        span
    }

    fn stays(&self, of: Machine) -> Vec<Stay<'_>> {
        let moves: Vec<&Move> = self.moves.iter().filter(|one| one.of == of).collect();
        let mut stays = Vec::new();
        for pair in moves.windows(2) {
            let (into, out) = (pair[0], pair[1]);
            let Some((left, next)) = &out.change else { continue };
            // Where a run was made, the next move says which state it had.
            let state = into.change.as_ref().map_or(left.as_str(), |(_, to)| to.as_str());
            stays.push(Stay { state, from: into.at, to: out.at, next, by: &out.word });
        }
        stays
    }

    /// When the whole was over, and how; none while it goes on. What happens to a release afterwards (it retires, it comes
    /// back) belongs to the trace and makes the whole no longer.
    fn over(&self) -> Option<(UnixMs, Ended, &'static str)> {
        if self.release.is_some() {
            let end = |one: &Move| {
                let (_, to) = one.change.as_ref()?;
                let (word, ended) = match to.as_str() {
                    "live" => ("live", ("success", None)),
                    "test_failed" => ("test_failed", ("failure", Some("test_failed"))),
                    "rejected" => ("rejected", ("failure", Some("rejected"))),
                    "rolled_back" => ("rolled_back", ("failure", Some("rolled_back"))),
                    "superseded" => ("superseded", ("cancellation", None)),
                    // Expired: somebody may ask again.
                    _ => return None,
                };
                Some((one.at, ended, word))
            };
            return self.moves.iter().filter(|one| one.of == Machine::Release).find_map(end);
        }
        if self.run.digest().is_some() && self.run.releases() {
            return None;
        }
        Some((self.run.finished_at?, run_ended(&self.run.state)?, self.run.state.word()))
    }

    fn root(&self) -> Option<Span> {
        let (end, ended, word) = self.over()?;
        let run = self.run;
        let service = run.id.service.as_str();
        let start = run.trigger.heard_at.unwrap_or(run.created_at).min(run.created_at);
        let mut span = self.span("life", &format!("RUN {service}"), start, end);
        span.parent = None;
        span.kind = Kind::Server;
        span = span
            .with("cicd.pipeline.action.name", "RUN")
            .with("cicd.pipeline.result", ended.0)
            .with_some("error.type", ended.1)
            .with("windlass.outcome", word)
            .with("windlass.trigger.kind", run.trigger.kind.word())
            .with("windlass.trigger.source", source(run.trigger.source))
            .with(
                "cicd.pipeline.run.url.full",
                format!("{}/services/{service}/runs/{}", self.public_url, run.id.number).as_str(),
            );
        span = self.about_source(span);
        if let Some(release) = self.release {
            span = span
                .with("oci.manifest.digest", release.digest.as_str())
                .with("windlass.release.id", release.id.to_string().as_str());
        }
        span.error = ended.1;
        span.links.extend(self.links());
        Some(span)
    }

    fn about_source(&self, span: Span) -> Span {
        let trigger = &self.run.trigger;
        let kind = match (trigger.branch(), trigger.tag()) {
            (Some(_), _) => Some("branch"),
            (_, Some(_)) => Some("tag"),
            _ => None,
        };
        let change = trigger.pull_request.map(|number| number.to_string());
        span.with("vcs.ref.head.name", trigger.ref_name().as_str())
            .with("vcs.ref.head.revision", trigger.commit.as_str())
            .with_some("vcs.ref.type", kind)
            .with_some("vcs.change.id", change.as_deref())
            .with_some("vcs.repository.url.full", self.repository.and_then(without_login).as_deref())
    }

    fn links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        if let Some(caller) = &self.run.trigger.traceparent {
            let (mut trace, mut span) = ([0; 16], [0; 8]);
            let good = hex::decode_to_slice(caller.trace(), &mut trace).is_ok()
                && hex::decode_to_slice(caller.span(), &mut span).is_ok();
            links.extend(good.then_some(Link { trace: TraceId(trace), span: SpanId(span), what: "caller" }));
        }
        let others = [(&self.run.rerun_of, "rerun_of"), (&self.run.reused_from, "image_of")];
        for (other, what) in others {
            let Some(other) = other else { continue };
            let (trace, span) = (TraceId::of(self.instance, other), SpanId::of(self.instance, other, "life"));
            links.push(Link { trace, span, what });
        }
        links
    }

    /// From the hook to the run: verified, recorded, looked at.
    fn hook(&self) -> Option<Span> {
        let heard = self.run.trigger.heard_at?;
        let mut span = self.span("hook", "hook", heard, self.run.created_at);
        span.kind = Kind::Server;
        Some(span)
    }

    fn run_spans(&self, spans: &mut Vec<Span>) {
        let mut attempt = 0;
        let mut taken: Option<UnixMs> = None;
        for stay in self.stays(Machine::Run) {
            match stay.state {
                "held" | "queued" => {
                    let (thing, name) = match stay.state {
                        "held" => ("held", "wait for a person's word"),
                        _ => ("queued", "wait for a runner"),
                    };
                    let span = self.span(&format!("{thing} {}", stay.from.0), name, stay.from, stay.to);
                    let ended = match stay.next {
                        "declined" => ("skip", None),
                        "cancelled" => ("cancellation", None),
                        _ => ("success", None),
                    };
                    spans.push(self.task(span, None, ended));
                }
                "running" | "cancelling" => {
                    let from = *taken.get_or_insert(stay.from);
                    if matches!(stay.next, "running" | "cancelling") {
                        continue;
                    }
                    taken = None;
                    attempt += 1;
                    self.attempt(attempt, Stay { from, ..stay }, spans);
                }
                _ => {}
            }
        }
    }

    /// One time that a runner had the run. Of those that did not end it, the steps are not known any more.
    fn attempt(&self, number: u32, stay: Stay<'_>, spans: &mut Vec<Span>) {
        let run = self.run;
        let is_last = stay.next != "queued";
        let ended = match stay.by {
            "run_runner_lost" if stay.next != "cancelled" => Some(("error", Some("runner_lost"))),
            // It lacked the labels that the run asks for: another one has them.
            "run_unfit" if !is_last => Some(("cancellation", None)),
            _ => run_ended(&run.state),
        };
        let Some(ended) = ended else { return };
        let service = run.id.service.as_str();
        let thing = format!("attempt {}", stay.from.0);
        let mut span = self.span(&thing, &format!("BUILD {service}"), stay.from, stay.to);
        span = span
            .with("cicd.pipeline.action.name", "BUILD")
            .with("cicd.pipeline.result", ended.0)
            .with_some("error.type", ended.1)
            .with("windlass.attempt", number);
        span.error = ended.1;
        if is_last {
            span = span.with_some("cicd.worker.name", run.runner.as_ref().map(|runner| runner.as_str()));
            span = span.with_some("oci.manifest.digest", run.digest().map(|digest| digest.as_str()));
            let within = (span.id, stay.to);
            spans.extend(run.steps.iter().filter_map(|step| self.step(&thing, within, step)));
        }
        spans.push(span);
    }

    fn step(&self, attempt: &str, (parent, known_at): (SpanId, UnixMs), step: &StepRecord) -> Option<Span> {
        let (Some(started), Some(finished), Some(outcome)) = (step.started_at, step.finished_at, &step.outcome) else {
            return None;
        };
        let (ended, exit_code): (Ended, _) = match outcome {
            StepOutcome::Passed => (("success", None), None),
            StepOutcome::Skipped { .. } => (("skip", None), None),
            StepOutcome::Cancelled => (("cancellation", None), None),
            StepOutcome::Failed { blame, exit_code, .. } => (blamed(*blame), *exit_code),
        };
        let kind = match step.name.as_str() {
            "image" => Some("build"),
            _ => None,
        };
        let span = self.span(&format!("{attempt} step {}", step.name), &step.name, started, finished);
        let mut span = self.task(span, kind, ended);
        (span.parent, span.known_at) = (Some(parent), known_at);
        Some(span.with_some("process.exit.code", exit_code.map(Value::Number)))
    }

    fn release_spans(&self, spans: &mut Vec<Span>) {
        let Some(release) = self.release else { return };
        for stay in self.stays(Machine::Release) {
            let ended = match stay.next {
                "superseded" => ("cancellation", None),
                "expired" => ("timeout", Some("expired")),
                "test_failed" => ("failure", Some("test_failed")),
                "rejected" => ("failure", Some("rejected")),
                _ => ("success", None),
            };
            let (name, kind) = match stay.state {
                "waiting_for_test" => ("wait for the test environment", None),
                "deploying_test" => ("deploy to test", Some("deploy")),
                "awaiting_approval" => ("approval", None),
                "promoting" => ("promote", None),
                "waiting_for_rollout" if stay.from < stay.to => ("wait for the rollout", None),
                _ => continue,
            };
            let span = self.span(&stay_thing(stay.state, stay.from), name, stay.from, stay.to);
            let mut span = self.task(span, kind, ended);
            span = match stay.state {
                "deploying_test" => deployed(span, "test", release.revision().as_str(), ended),
                "awaiting_approval" => span.with(
                    "windlass.approval.outcome",
                    if ended.0 == "success" { "approved" } else { stay.next_word() },
                ),
                "promoting" => span.with("oci.manifest.digest", release.digest.as_str()),
                _ => span,
            };
            spans.push(span);
        }
    }

    /// A mail that the mail server took: of those nothing is in the records.
    pub(super) fn mail(&self, mail: &Mail) -> Span {
        let mut span = self.span(&format!("mail {}", mail.id), "mail", mail.began, mail.ended);
        span.kind = Kind::Client;
        // Beneath the time in which the testers are asked, so far as it has begun.
        let asked = self.moves.iter().rev().find(|one| {
            let to = one.change.as_ref().map(|(_, to)| to.as_str());
            one.of == Machine::Release && to == Some("awaiting_approval") && one.at <= mail.ended
        });
        if let Some(asked) = asked {
            span.parent = Some(self.id(&stay_thing("awaiting_approval", asked.at)));
        }
        self.task(span, None, ("success", None)).with("windlass.mail.kind", mail.kind)
    }

    fn rollout_spans(&self, rollout: &Rollout, spans: &mut Vec<Span>) {
        let thing = format!("rollout {}", rollout.id);
        let within = self.id(&thing);
        let end = rollout.finished_at;
        for (index, (from, percent)) in rollout.shares.iter().enumerate() {
            let next = rollout.shares.get(index + 1).map(|(at, _)| *at);
            let Some(to) = next.or(end) else { continue };
            let name = if index == 0 { "start the revision".to_owned() } else { format!("traffic {percent} %") };
            let judged = rollout.samples.iter().rev().find(|sample| sample.at >= *from && sample.at <= to);
            let verdict = judged.filter(|sample| rollout.stages.get(sample.stage).is_some_and(|stage| stage.judged));
            let mut span = self.span(&format!("{thing} share {index}"), &name, *from, to);
            span.parent = Some(within);
            spans.push(
                span.with("windlass.rollout.weight_percent", u32::from(*percent)).with_some(
                    "windlass.rollout.verdict",
                    verdict.map(|sample| verdict_word(sample.judgement.outcome)),
                ),
            );
        }
        let Some(end) = end else { return };
        let ended = match &rollout.state {
            RolloutState::Completed => ("success", None),
            _ => ("failure", Some("rolled_back")),
        };
        let span = self.span(&thing, "roll out", rollout.started_at, end);
        let span = deployed(self.task(span, Some("deploy"), ended), "production", rollout.revision.as_str(), ended);
        let cause = match rollout.cause {
            Cause::Promotion => "promotion",
            Cause::Rollback { .. } => "rollback",
        };
        spans.push(
            span.with("windlass.rollout.strategy", rollout.plan.strategy.word()).with("windlass.rollout.cause", cause),
        );
    }
}

impl Stay<'_> {
    /// The word of the state that came next, from the closed list.
    fn next_word(&self) -> &'static str {
        match self.next {
            "rejected" => "rejected",
            "expired" => "expired",
            _ => "superseded",
        }
    }
}

fn stay_thing(state: &str, from: UnixMs) -> String {
    format!("{state} {}", from.0)
}

fn deployed(span: Span, environment: &'static str, revision: &str, ended: Ended) -> Span {
    let status = if ended.0 == "success" { "succeeded" } else { "failed" };
    span.with("deployment.environment.name", environment)
        .with("deployment.name", revision)
        .with("deployment.status", status)
}

fn blamed(blame: Blame) -> Ended {
    match blame {
        Blame::Code => ("failure", Some("code")),
        Blame::Infrastructure => ("error", Some("infrastructure")),
    }
}

/// None while it goes on.
fn run_ended(state: &RunState) -> Option<Ended> {
    Some(match state {
        RunState::Succeeded { .. } | RunState::Passed => ("success", None),
        RunState::Failed { blame, .. } => blamed(*blame),
        RunState::Cancelled => ("cancellation", None),
        RunState::Declined { .. } => ("skip", None),
        RunState::Held { .. } | RunState::Queued | RunState::Running { .. } | RunState::Cancelling { .. } => {
            return None;
        }
    })
}

fn source(source: TriggerSource) -> &'static str {
    match source {
        TriggerSource::Hook => "hook",
        TriggerSource::Poll => "poll",
        TriggerSource::Person => "person",
    }
}

fn verdict_word(outcome: judge::Outcome) -> &'static str {
    match outcome {
        judge::Outcome::Pass => "pass",
        judge::Outcome::Insufficient => "insufficient",
        judge::Outcome::Fail => "fail",
    }
}

/// A repository's address without what somebody may have written before its host or after its path.
pub(super) fn without_login(address: &str) -> Option<String> {
    let Ok(mut url) = url::Url::parse(address) else {
        // `git@host:path`: the user of ssh is no secret, and there is no place for a password.
        return (!address.contains("://")).then(|| address.to_owned());
    };
    url.set_password(None).ok()?;
    if url.scheme() != "ssh" {
        url.set_username("").ok()?;
    }
    (url.query().is_none() && url.fragment().is_none()).then(|| url.to_string())
}
