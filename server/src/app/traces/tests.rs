//! Which spans lives have that end in each way, that the same is told under the same ids whenever it is told, and that nothing
//! is told that a person wrote.

use std::collections::{BTreeMap, BTreeSet};

use pipelines::{
    effect::EffectKind,
    ids::{ReleaseId, RunId, RunnerName, ServiceName},
    journal::Origin,
    plan::{CanaryStep, Strategy},
    protocol::{Blame, Report, RunnerRequest, StepOutcome},
    release::ReleaseEvent,
    rollout::RolloutEvent,
    run::RunEvent,
    time::UnixMs,
    train::Event,
    trigger::{Trigger, TriggerSource},
};

use super::*;
use crate::{
    app::{Role, trains::Outcome},
    config::Config,
    testing::{START_MS, Stage, TESTER, commit, test_app_with},
};

fn with_receiver(config: &mut Config) {
    config.tracing.otlp_endpoint = Some("http://127.0.0.1:4318".into());
    config.bounds.lease_wait_ms = 1;
}

fn stage() -> Stage {
    test_app_with(with_receiver)
}

/// All that is to be told now, which then is told.
fn told(stage: &Stage) -> Vec<Span> {
    let noted = stage.app.traces().take(usize::MAX);
    noted.iter().flat_map(|(run, news)| stage.app.trace_spans(run, news).unwrap()).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    let [one] = found.as_slice() else { panic!("{} spans are called {name:?}: {:?}", found.len(), names(spans)) };
    one
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// Result, the word of what went wrong, and how long it took.
fn ended(span: &Span) -> (&str, Option<&str>, u64) {
    let result = span.text("cicd.pipeline.task.run.result").or(span.text("cicd.pipeline.result")).unwrap_or("none");
    assert_eq!(span.error, span.text("error.type"), "{span:?}");
    (result, span.error, span.end.since_ms(span.start))
}

async fn happens(stage: &Stage, service: &ServiceName, event: Event) {
    stage.app.train_event(service, Origin::server(), event).await.unwrap();
}

async fn taken(stage: &Stage, run: &RunId) -> RunnerName {
    let runner: RunnerName = "runner-1".parse().unwrap();
    stage.asked_for_work(&runner, Vec::new()).await;
    assert!(stage.app.run(run).unwrap().started_at.is_some());
    runner
}

async fn reported(stage: &Stage, run: &RunId, report: Report) {
    let (runner, attempt) = stage.app.run(run).unwrap().holder().map(|(runner, at)| (runner.clone(), at)).unwrap();
    stage.app.agent_request(&runner, RunnerRequest::Report { run: run.clone(), attempt, report }).await.unwrap();
}

fn canary() -> Strategy {
    Strategy::Canary { steps: vec![CanaryStep { weight_percent: 20, hold_ms: 60_000 }] }
}

#[tokio::test]
async fn a_life_from_the_hook_to_live_is_one_trace() {
    let stage = stage();
    let run = stage.pushed("shop").await;
    stage.pass_ms(1_000);
    let release = stage.built(&run, Strategy::Rolling).await;
    stage.pass_ms(2_000);
    stage.tested(&release).await;
    stage.pass_ms(40_000);
    stage.app.trace_mail(&release, "approval", "<1@windlass>", UnixMs(START_MS + 3_500));
    stage.approved(&release).await;
    stage.pass_ms(5_000);
    stage.rolling_out(&release).await;
    stage.pass_ms(3_000);
    stage.in_force(&release.service).await;
    let spans = told(&stage);

    let trace = TraceId::of(stage.app.instance(), &run);
    assert!(spans.iter().all(|span| span.trace == trace), "{spans:?}");
    let ids: BTreeSet<_> = spans.iter().map(|span| span.id).collect();
    assert_eq!(ids.len(), spans.len(), "two spans share an id: {:?}", names(&spans));
    let life = named(&spans, "RUN shop");
    assert_eq!((life.parent, life.kind, ended(life)), (None, Kind::Server, ("success", None, 51_000)));
    assert_eq!(life.text("windlass.outcome"), Some("live"));
    assert_eq!(life.text("vcs.ref.head.name"), Some("main"));
    assert_eq!(life.text("vcs.repository.url.full"), Some("https://git.example.com/shop.git"));
    assert_eq!(life.text("cicd.pipeline.run.url.full"), Some("https://windlass.example.com/services/shop/runs/1"));
    // Each is beneath another one of the trace, and none begins before the life or ends after it.
    for span in &spans {
        let good = span.parent.is_none_or(|parent| ids.contains(&parent)) && span.start >= life.start;
        assert!(good && span.end <= life.end && span.start <= span.end, "{span:?}");
    }
    let build = named(&spans, "BUILD shop");
    assert_eq!(named(&spans, "test").parent, Some(build.id));
    let approval = named(&spans, "approval");
    assert_eq!(named(&spans, "mail").parent, Some(approval.id));
    assert_eq!(approval.text("windlass.approval.outcome"), Some("approved"));
    let rollout = named(&spans, "roll out");
    assert_eq!(named(&spans, "traffic 100 %").parent, Some(rollout.id));
    for (name, took_ms) in [
        ("wait for a runner", 1_000),
        ("deploy to test", 2_000),
        ("approval", 40_000),
        ("promote", 5_000),
        ("roll out", 3_000),
        ("start the revision", 3_000),
    ] {
        let span = named(&spans, name);
        assert_eq!(span.end.since_ms(span.start), took_ms, "{name}");
        assert!(matches!(ended(span).0, "success" | "none"), "{span:?}");
    }
}

#[tokio::test]
async fn each_span_is_told_when_it_is_over_and_not_again() {
    let stage = stage();
    let run = stage.pushed("shop").await;
    assert!(told(&stage).is_empty(), "nothing is over yet");
    stage.pass_ms(10);
    let release = stage.built(&run, Strategy::Rolling).await;
    assert_eq!(names(&told(&stage)), ["wait for a runner", "test", "BUILD shop"]);
    stage.pass_ms(10);
    stage.tested(&release).await;
    assert_eq!(names(&told(&stage)), ["deploy to test"]);
    stage.pass_ms(10);
    stage.approved(&release).await;
    assert_eq!(names(&told(&stage)), ["approval"]);
    stage.pass_ms(10);
    stage.rolling_out(&release).await;
    assert_eq!(names(&told(&stage)), ["promote"]);
    stage.pass_ms(10);
    stage.in_force(&release.service).await;
    assert_eq!(names(&told(&stage)), ["RUN shop", "start the revision", "traffic 100 %", "roll out"]);
    assert_eq!(stage.app.traces().waiting(), 0);
}

#[tokio::test]
async fn a_restart_in_the_middle_loses_nothing_and_what_is_told_again_is_the_same() {
    let stage = stage();
    let release = stage.awaiting("shop").await;
    // Killed before anything was told.
    let stage = stage.with_config(with_receiver);
    assert_eq!(stage.app.traces().waiting(), 0);
    assert_eq!(stage.app.trace_again().unwrap(), 1);
    let first = told(&stage);
    assert_eq!(names(&first), ["wait for a runner", "test", "BUILD shop", "deploy to test"]);
    stage.pass_ms(1_800_000);
    stage.approved(&release).await;
    let second = told(&stage);
    assert_eq!(names(&second), ["approval"]);
    assert_eq!(second[0].trace, first[0].trace);
    // Killed again, after it was told; all of it is asked for.
    let stage = stage.with_config(|config| {
        with_receiver(config);
        config.tracing.again_ms = 3_600_000;
    });
    stage.app.trace_again().unwrap();
    let by_id = |spans: Vec<Span>| spans.into_iter().map(|span| (span.id, span)).collect::<BTreeMap<_, _>>();
    assert_eq!(by_id(told(&stage)), by_id(first.into_iter().chain(second).collect()));
    // What lies further back is not told again.
    let stage = stage.with_config(with_receiver);
    stage.app.trace_again().unwrap();
    assert_eq!(names(&told(&stage)), ["approval"]);
}

#[tokio::test]
async fn two_servers_and_two_runs_never_share_a_trace() {
    let run: RunId = "shop/1".parse().unwrap();
    let next: RunId = "shop/2".parse().unwrap();
    let ids = [TraceId::of("a", &run), TraceId::of("b", &run), TraceId::of("a", &next)];
    assert_eq!(BTreeSet::from(ids).len(), 3);
    assert_eq!(TraceId::of("a", &run), ids[0]);
    assert_ne!(SpanId::of("a", &run, "1 2"), SpanId::of("a 1", &run, "2"));
}

#[tokio::test]
async fn failures_of_the_code_and_of_the_infrastructure_are_told_apart_and_a_cancel_is_none() {
    let stage = stage();
    let mut ends = Vec::new();
    for blame in [Blame::Code, Blame::Infrastructure] {
        let run = stage.pushed("shop").await;
        taken(&stage, &run).await;
        let at = stage.app.now();
        reported(&stage, &run, Report::StepStarted { step: "test".into(), at }).await;
        let outcome = StepOutcome::Failed { blame, exit_code: Some(3), reason: "secret words".into() };
        reported(&stage, &run, Report::StepFinished { step: "test".into(), at, outcome }).await;
        reported(&stage, &run, Report::Failed { blame, reason: "secret words".into() }).await;
        let spans = told(&stage);
        assert_eq!(ended(named(&spans, "test")), ended(named(&spans, "BUILD shop")));
        assert!(named(&spans, "test").attributes.contains(&("process.exit.code", Value::Number(3))));
        ends.push((ended(named(&spans, "RUN shop")).0.to_owned(), named(&spans, "RUN shop").error));
    }
    assert_eq!(ends, [("failure".to_owned(), Some("code")), ("error".to_owned(), Some("infrastructure"))]);
    // Before a runner has it.
    let run = stage.pushed("shop").await;
    stage.app.run_cancel(&run, "secret words".into(), Origin::server()).await.unwrap();
    let spans = told(&stage);
    assert_eq!(ended(named(&spans, "RUN shop")), ("cancellation", None, 0));
    assert_eq!(ended(named(&spans, "wait for a runner")), ("cancellation", None, 0));
    // While a runner has it.
    let run = stage.pushed("shop").await;
    taken(&stage, &run).await;
    stage.pass_ms(10);
    stage.app.run_cancel(&run, "secret words".into(), Origin::server()).await.unwrap();
    stage.pass_ms(10);
    reported(&stage, &run, Report::Cancelled).await;
    assert_eq!(ended(named(&told(&stage), "BUILD shop")), ("cancellation", None, 20));
}

#[tokio::test]
async fn a_run_that_lost_its_runner_has_a_span_for_each_attempt() {
    let stage = stage();
    let run = stage.pushed("shop").await;
    taken(&stage, &run).await;
    stage.pass_ms(60_000);
    let event = RunEvent::RunnerLost { attempt: 1, lost_max: 3, reason: "was not heard of".into() };
    happens(&stage, &run.service, Event::Run { number: 1, event }).await;
    stage.pass_ms(500);
    taken(&stage, &run).await;
    reported(&stage, &run, Report::Failed { blame: Blame::Code, reason: "it broke".into() }).await;
    let spans = told(&stage);
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "BUILD shop").map(ended).collect();
    assert_eq!(attempts, [("error", Some("runner_lost"), 60_000), ("failure", Some("code"), 0)]);
    let waits: Vec<_> =
        spans.iter().filter(|span| span.name == "wait for a runner").map(|span| ended(span).2).collect();
    assert_eq!(waits, [0, 500]);
    assert_eq!(ended(named(&spans, "RUN shop")), ("failure", Some("code"), 60_500));
}

#[tokio::test]
async fn a_held_run_that_is_declined_was_skipped_and_one_that_is_allowed_waits_twice() {
    let stage = stage();
    let other = stage.pushed("shop").await;
    stage.app.run_cancel(&other, String::new(), Origin::server()).await.unwrap();
    told(&stage);
    let held = stage.forked("shop", 7).await;
    stage.pass_ms(1_000);
    stage.app.run_decline(&held, "secret words".into(), Origin::server()).await.unwrap();
    let spans = told(&stage);
    assert_eq!(ended(named(&spans, "RUN shop")), ("skip", None, 1_000));
    assert_eq!(named(&spans, "RUN shop").text("vcs.change.id"), Some("7"));
    let held = stage.forked("shop", 8).await;
    stage.pass_ms(1_000);
    stage.app.run_allow(&held, Origin::server()).await.unwrap();
    stage.pass_ms(300);
    taken(&stage, &held).await;
    let spans = told(&stage);
    assert_eq!(ended(named(&spans, "wait for a person's word")).2, 1_000);
    assert_eq!(ended(named(&spans, "wait for a runner")).2, 300);
}

#[tokio::test]
async fn a_release_that_does_not_go_live_says_why_in_a_word() {
    let stage = stage();
    let release = stage.awaiting("shop").await;
    stage.pass_ms(10);
    let newer = stage.awaiting("shop").await;
    let spans = told(&stage);
    let superseded = named(&spans, "RUN shop");
    assert_eq!(superseded.trace, TraceId::of(stage.app.instance(), &release.run()));
    assert_eq!((ended(superseded).0, superseded.text("windlass.outcome")), ("cancellation", Some("superseded")));
    let caller = stage.caller(Role::Admin).await;
    let digest = stage.app.release(&newer).unwrap().digest;
    let said = "secret words".to_owned();
    let origin = caller.origin();
    stage.app.approval_decide_signed_in(&newer, &caller.account, digest, false, said, origin).await.unwrap();
    let spans = told(&stage);
    assert_eq!(ended(named(&spans, "approval")).1, Some("rejected"));
    assert_eq!(ended(named(&spans, "RUN shop")).1, Some("rejected"));
    let run = stage.pushed("shop").await;
    let sick = stage.built(&run, Strategy::Rolling).await;
    let event = ReleaseEvent::TestUnhealthy { reason: "secret words".into() };
    let event = Event::Release { number: sick.number, event };
    stage.perform(&sick.service, EffectKind::DeployTest, Outcome::event(event)).await;
    let spans = told(&stage);
    assert_eq!(named(&spans, "deploy to test").text("deployment.status"), Some("failed"));
    assert_eq!(ended(named(&spans, "RUN shop")).1, Some("test_failed"));
}

#[tokio::test]
async fn an_expired_release_is_not_over_until_it_is_live_or_superseded() {
    let stage = stage();
    let release = stage.awaiting("shop").await;
    told(&stage);
    stage.pass_ms(3_600_000);
    let (number, expired) = (release.number, pipelines::approval::ApprovalEvent::Expired { round: 1 });
    happens(&stage, &release.service, Event::Approval { number, event: expired }).await;
    let spans = told(&stage);
    assert_eq!(names(&spans), ["approval"]);
    assert_eq!(ended(&spans[0]), ("timeout", Some("expired"), 3_600_000));
    stage.pass_ms(1_000);
    happens(&stage, &release.service, Event::AskAgain { number, by: "admin".into() }).await;
    stage.pass_ms(1_000);
    stage.tested(&release).await;
    stage.approved(&release).await;
    stage.rolling_out(&release).await;
    stage.in_force(&release.service).await;
    let spans = told(&stage);
    assert_eq!(ended(named(&spans, "RUN shop")), ("success", None, 3_602_000));
    assert_eq!(ended(named(&spans, "deploy to test")).2, 1_000);
}

#[tokio::test]
async fn a_rollout_that_went_back_has_its_stages_and_an_error() {
    let stage = stage();
    let first = stage.live("shop").await;
    told(&stage);
    let run = stage.pushed("shop").await;
    let release = stage.built(&run, canary()).await;
    stage.tested(&release).await;
    stage.approved(&release).await;
    stage.rolling_out(&release).await;
    stage.pass_ms(1_000);
    stage.in_force(&release.service).await;
    assert_eq!(names(&told(&stage)).last(), Some(&"start the revision"), "a stage is told when it is over");
    stage.pass_ms(30_000);
    let number = stage.app.rollout_running(&release.service).unwrap().id.number;
    let event = RolloutEvent::Abort { by: "Mei".into(), reason: "secret words".into() };
    happens(&stage, &release.service, Event::Rollout { number, event }).await;
    stage.pass_ms(200);
    stage.in_force(&release.service).await;
    stage.rollout(&release.service, EffectKind::DrainRevision, RolloutEvent::Drained).await;
    let spans = told(&stage);
    assert_eq!(ended(named(&spans, "roll out")), ("failure", Some("rolled_back"), 31_200));
    assert_eq!(ended(named(&spans, "traffic 20 %")).2, 30_200);
    assert_eq!(ended(named(&spans, "RUN shop")).1, Some("rolled_back"));
    assert_eq!(named(&spans, "roll out").text("deployment.status"), Some("failed"));

    // A person wants the one before back: it belongs to that one's trace, whose life was over long ago.
    let run = stage.pushed("shop").await;
    let third = stage.built(&run, Strategy::Rolling).await;
    stage.tested(&third).await;
    stage.approved(&third).await;
    stage.rolling_out(&third).await;
    while stage.app.train(&third.service).unwrap().rollout.is_some() {
        match stage.pending(&third.service, EffectKind::ApplyTraffic) {
            Some(_) => stage.in_force(&third.service).await,
            None => stage.rollout(&third.service, EffectKind::DrainRevision, RolloutEvent::Drained).await,
        }
    }
    told(&stage);
    stage.pass_ms(1_000);
    let back = Event::Rollback { to: first.number, by: "Mei".into(), reason: "secret words".into() };
    happens(&stage, &first.service, back).await;
    stage.rollout(&first.service, EffectKind::StartRevision, RolloutEvent::RevisionHealthy).await;
    stage.in_force(&first.service).await;
    stage.rollout(&first.service, EffectKind::DrainRevision, RolloutEvent::Drained).await;
    let spans = told(&stage);
    let rollback = named(&spans, "roll out");
    assert_eq!(rollback.trace, TraceId::of(stage.app.instance(), &first.run()));
    assert_eq!(rollback.text("windlass.rollout.cause"), Some("rollback"));
    assert!(!names(&spans).contains(&"RUN shop"), "no life is told twice: {:?}", names(&spans));
}

#[tokio::test]
async fn a_run_is_linked_with_whoever_asked_for_it_and_with_the_one_that_it_repeats() {
    let stage = stage();
    let service = stage.pushed("shop").await.service;
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let trigger = Trigger {
        heard_at: Some(UnixMs(START_MS)),
        traceparent: Some(format!("00-{trace}-{span}-01").parse().unwrap()),
        ..Trigger::of_ref("refs/heads/main", commit(9), TriggerSource::Hook)
    };
    stage.pass_ms(40);
    let event = Event::Triggered { trigger, rerun_of: None, hold: stage.app.config.hold };
    happens(&stage, &service, event).await;
    let run = RunId::new(service, 2);
    stage.app.run_cancel(&run, String::new(), Origin::server()).await.unwrap();
    let again = stage.app.run_rerun(&run, Origin::server(), None).await.unwrap();
    stage.app.run_cancel(&again, String::new(), Origin::server()).await.unwrap();
    let spans = told(&stage);
    let of = |run: &RunId| {
        let trace = TraceId::of(stage.app.instance(), run);
        spans.iter().find(|span| span.trace == trace && span.parent.is_none()).unwrap()
    };
    let (first, second) = (of(&run), of(&again));
    assert_eq!(first.start, UnixMs(START_MS), "it begins with the hook");
    let hook = named(&spans, "hook");
    assert_eq!((hook.trace, hook.kind, ended(hook).2), (first.trace, Kind::Server, 40));
    let [caller] = first.links.as_slice() else { panic!("{:?}", first.links) };
    assert_eq!((format!("{:?}", caller.trace), format!("{:?}", caller.span)), (trace.into(), span.into()));
    let [repeated] = second.links.as_slice() else { panic!("{:?}", second.links) };
    assert_eq!((repeated.trace, repeated.span, repeated.what), (first.trace, first.id, "rerun_of"));
}

#[tokio::test]
async fn nothing_is_told_that_a_person_wrote_nor_who_they_are() {
    let stage = stage();
    let release = stage.awaiting("shop").await;
    stage.app.trace_mail(&release, "approval", "<1.qa@windlass>", stage.app.now());
    let caller = stage.caller(Role::Admin).await;
    let digest = stage.app.release(&release).unwrap().digest;
    let (said, origin) = ("secret words".to_owned(), caller.origin());
    stage.app.approval_decide_signed_in(&release, &caller.account, digest, true, said, origin).await.unwrap();
    stage.rolling_out(&release).await;
    stage.in_force(&release.service).await;
    let spans = told(&stage);
    assert!(names(&spans).contains(&"mail") && names(&spans).contains(&"RUN shop"));
    let text = format!("{spans:?}");
    for word in ["secret words", "hook secret", TESTER, "@", "Mei", "mei", "admin", "basket", "npm", "/approve/"] {
        assert!(!text.contains(word), "{word:?} is told: {text}");
    }
}

#[test]
fn an_address_of_a_repository_is_told_without_a_login() {
    let shown = |address: &str| life::without_login(address);
    assert_eq!(shown("https://git.example.com/a.git").as_deref(), Some("https://git.example.com/a.git"));
    assert_eq!(shown("https://me:pass@git.example.com/a.git").as_deref(), Some("https://git.example.com/a.git"));
    assert_eq!(shown("https://token@git.example.com/a.git").as_deref(), Some("https://git.example.com/a.git"));
    assert_eq!(shown("ssh://git:pass@git.example.com/a.git").as_deref(), Some("ssh://git@git.example.com/a.git"));
    assert_eq!(shown("git@git.example.com:a.git").as_deref(), Some("git@git.example.com:a.git"));
    assert_eq!(shown("https://git.example.com/a.git?token=x"), None);
}

#[tokio::test]
async fn what_is_noted_is_bounded_and_what_finds_no_room_is_counted() {
    let stage = test_app_with(|config| {
        with_receiver(config);
        config.tracing.queue_runs_max = 2;
    });
    for service in ["shop", "cart", "desk"] {
        let run = stage.pushed(service).await;
        stage.app.run_cancel(&run, String::new(), Origin::server()).await.unwrap();
    }
    assert_eq!((stage.app.traces().waiting(), stage.app.traces().dropped()), (2, 2));
    let text = stage.app.metrics_text().await.unwrap();
    for line in [
        "windlass_queue_refused_total{queue=\"traces\"} 2",
        "windlass_queue_length{queue=\"traces\"} 2",
        "windlass_queue_bound{queue=\"traces\"} 2",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is missing in:\n{text}");
    }
    assert_eq!(
        named(&told(&stage)[..2], "RUN shop").trace,
        TraceId::of(stage.app.instance(), &"shop/1".parse().unwrap())
    );
}

#[tokio::test]
async fn without_a_receiver_nothing_is_noted() {
    let stage = test_app_with(|_| {});
    let release: ReleaseId = stage.live("shop").await;
    stage.app.trace_mail(&release, "approval", "<1@windlass>", stage.app.now());
    assert_eq!((stage.app.traces().waiting(), stage.app.traces().dropped()), (0, 0));
}
