//! Every state of a run against every event.

use super::*;
use crate::samples::{commit, digest, plan, run_id, runner, succeeded, trigger};

const AT: UnixMs = UnixMs(1_000);

fn new_run() -> Run {
    Run::new(run_id(1), trigger(1), true, None, UnixMs(0))
}

fn states() -> Vec<RunState> {
    let all = vec![
        RunState::Held { reason: "fork".into() },
        RunState::Queued,
        RunState::Running { runner: runner("a") },
        RunState::Cancelling { runner: runner("a") },
        RunState::Succeeded { digest: digest(1) },
        RunState::Failed { blame: Blame::Code, reason: "red".into() },
        RunState::Cancelled,
        RunState::Declined { reason: "no".into() },
        RunState::Passed,
    ];
    // A new state does not compile until it is listed above too.
    for state in &all {
        match state {
            RunState::Held { .. }
            | RunState::Queued
            | RunState::Running { .. }
            | RunState::Cancelling { .. }
            | RunState::Succeeded { .. }
            | RunState::Failed { .. }
            | RunState::Cancelled
            | RunState::Declined { .. }
            | RunState::Passed => {}
        }
    }
    all
}

fn leased(name: &str) -> RunEvent {
    RunEvent::Leased { runner: runner(name), lease_ms: 60_000 }
}

fn labels() -> Labels {
    "gpu=true".parse().unwrap()
}

fn events() -> Vec<(&'static str, RunEvent)> {
    let report = |report| RunEvent::Reported { runner: runner("a"), attempt: 0, report };
    let late = |report| RunEvent::Reported { runner: runner("a"), attempt: 7, report };
    let other = |report| RunEvent::Reported { runner: runner("b"), attempt: 0, report };
    let lost = |attempt, lost_max| RunEvent::RunnerLost { attempt, lost_max, reason: "was lost".into() };
    let failed = || Report::Failed { blame: Blame::Code, reason: "red".into() };
    vec![
        ("leased", leased("a")),
        ("leased by b", leased("b")),
        ("cancel", RunEvent::CancelRequested { reason: "no".into() }),
        ("inspected", RunEvent::Inspected { proposal: Box::default() }),
        ("allowed", RunEvent::Allowed { by: "ann".into() }),
        ("declined", RunEvent::Declined { by: "ann".into(), reason: "no".into() }),
        ("hold ended", RunEvent::HoldEnded { end: HoldEnd::Expired }),
        ("passed", report(Report::Passed)),
        ("checked out", report(Report::CheckedOut { commit: commit(1) })),
        (
            "prepared",
            report(Report::Prepared {
                steps: vec!["checkout".into(), "test".into()],
                plan: Box::new(plan(crate::plan::Strategy::Rolling)),
                releases: true,
            }),
        ),
        ("started", report(Report::StepStarted { step: "test".into(), at: AT })),
        ("finished", report(Report::StepFinished { step: "test".into(), at: AT, outcome: StepOutcome::Passed })),
        ("succeeded", report(succeeded(1))),
        ("succeeded otherwise", report(succeeded(2))),
        ("failed", report(failed())),
        ("cancelled", report(Report::Cancelled)),
        ("unfit", report(Report::Unfit { labels: labels() })),
        ("unfit again", report(Report::Unfit { labels: Labels::default() })),
        ("runner lost", lost(0, 3)),
        ("last runner lost", lost(0, 1)),
        ("runner of another attempt lost", lost(7, 3)),
        ("late success", late(succeeded(1))),
        ("late failure", late(failed())),
        ("success of another", other(succeeded(1))),
        ("failure of another", other(failed())),
        ("step of another", other(Report::StepStarted { step: "test".into(), at: AT })),
    ]
}

/// State, event, state afterwards; what is not listed is refused.
const MOVES: [(&str, &str, &str); 44] = [
    ("held", "inspected", "held"),
    ("held", "allowed", "queued"),
    ("held", "declined", "declined"),
    ("held", "hold ended", "declined"),
    ("held", "cancel", "cancelled"),
    ("declined", "declined", "declined"),
    ("passed", "passed", "passed"),
    ("queued", "leased", "running"),
    ("queued", "leased by b", "running"),
    ("queued", "cancel", "cancelled"),
    ("running", "leased", "running"),
    ("running", "cancel", "cancelling"),
    ("running", "checked out", "running"),
    ("running", "prepared", "running"),
    ("running", "started", "running"),
    ("running", "finished", "running"),
    ("running", "succeeded", "succeeded"),
    ("running", "succeeded otherwise", "succeeded"),
    ("running", "failed", "failed"),
    ("running", "cancelled", "failed"),
    ("cancelling", "leased", "cancelling"),
    ("cancelling", "cancel", "cancelling"),
    ("cancelling", "checked out", "cancelling"),
    ("cancelling", "prepared", "cancelling"),
    ("cancelling", "started", "cancelling"),
    ("cancelling", "finished", "cancelling"),
    ("cancelling", "succeeded", "succeeded"),
    ("cancelling", "succeeded otherwise", "succeeded"),
    ("cancelling", "failed", "cancelled"),
    ("cancelling", "cancelled", "cancelled"),
    ("running", "unfit", "queued"),
    ("running", "unfit again", "failed"),
    ("running", "runner lost", "queued"),
    ("running", "last runner lost", "failed"),
    ("cancelling", "unfit", "cancelled"),
    ("cancelling", "unfit again", "cancelled"),
    ("cancelling", "runner lost", "cancelled"),
    ("cancelling", "last runner lost", "cancelled"),
    // The runner repeats its last report because the answer was lost.
    ("succeeded", "succeeded", "succeeded"),
    ("failed", "failed", "failed"),
    ("failed", "cancelled", "failed"),
    ("cancelled", "failed", "cancelled"),
    ("cancelled", "cancelled", "cancelled"),
    ("cancelled", "cancel", "cancelled"),
];

#[test]
fn every_event_moves_a_run_as_listed_or_is_refused() {
    for state in states() {
        let run = Run { state, runner: Some(runner("a")), ..new_run() };
        for (name, event) in events() {
            let listed =
                MOVES.iter().find(|(from, on, _)| *from == run.state.word() && *on == name).map(|found| found.2);
            let got = run.transition(&event, AT);
            assert_eq!(got.as_ref().ok().map(|next| next.state.word()), listed, "{} on {name}", run.state.word());
            if let Ok(next) = got
                && run.state.is_final()
            {
                assert_eq!(next, run, "a run that is over changed on {name}");
            }
        }
    }
}

#[test]
fn a_repeat_changes_nothing_and_a_lease_keeps_the_first_start() {
    let run = new_run().transition(&leased("a"), UnixMs(5)).unwrap();
    // What ends the attempt is refused the second time; what is for a run that is held does not fit.
    let others =
        ["lost", "late", "of another", "unfit", "by b", "inspected", "allowed", "declined", "hold ended", "passed"];
    let ends = |name: &str| others.iter().any(|word| name.contains(word));
    let run = Run { attempt: 0, ..run };
    for (name, event) in events().iter().filter(|(name, _)| !ends(name)) {
        let Ok(once) = run.transition(event, AT) else { panic!("{name} was refused") };
        assert_eq!(once.transition(event, AT).as_ref(), Ok(&once), "{name} twice");
    }
    assert_eq!(run.transition(&leased("a"), AT).unwrap().started_at, Some(UnixMs(5)));
}

#[test]
fn a_run_from_a_fork_waits_for_a_person_and_is_only_looked_at() {
    let hold = HoldBounds { runs_max: 1, expires_ms: 50 };
    let held = forked();
    let (inspect, due_at) = (Effect::InspectRun { run: run_id(1) }, UnixMs(50));
    assert_eq!(held.first_effects(&hold), [inspect, Effect::ExpireHold { run: run_id(1), due_at }]);
    assert_eq!((held.state.word(), held.state.is_final()), ("held", false));
    assert_eq!(new_run().first_effects(&hold), [Effect::ExecuteRun { run: run_id(1) }]);
}

fn forked() -> Run {
    Run::new(run_id(1), Trigger { from_fork: true, ..trigger(1) }, false, None, UnixMs(0))
}

#[test]
fn a_run_from_a_fork_never_ends_in_a_digest_and_others_never_without_one() {
    let allowed = forked().transition(&RunEvent::Allowed { by: "ann".into() }, AT).unwrap();
    assert_eq!(allowed.transition(&RunEvent::Allowed { by: "bob".into() }, AT).as_ref(), Ok(&allowed), "pressed twice");
    let leased = |run: &Run| run.transition(&leased("a"), AT).unwrap();
    let said = |run: &Run, report| run.transition(&RunEvent::Reported { runner: runner("a"), attempt: 1, report }, AT);
    let (fork, own) = (leased(&allowed), leased(&new_run()));
    assert_eq!(fork.allowed_by.as_deref(), Some("ann"));
    assert!(said(&fork, succeeded(1)).is_err() && said(&own, Report::Passed).is_err());
    let passed = said(&fork, Report::Passed).unwrap();
    assert_eq!((passed.state.word(), passed.digest(), passed.finished_at), ("passed", None, Some(AT)));
}

#[test]
fn a_run_that_was_held_by_an_earlier_version_can_be_allowed() {
    let mut record = serde_json::to_value(forked()).unwrap();
    let fields = record.as_object_mut().unwrap();
    fields.remove("proposal");
    fields.remove("allowed_by");
    fields.insert("finished_at".into(), 7.into());
    let run: Run = serde_json::from_value(record).unwrap();
    let allowed = run.transition(&RunEvent::Allowed { by: "ann".into() }, AT).unwrap();
    assert_eq!((allowed.state.word(), allowed.finished_at), ("queued", None));
}

#[test]
fn steps_that_ran_when_a_run_ends_badly_are_ended_and_those_that_did_not_are_left() {
    let run = new_run().transition(&leased("a"), AT).unwrap();
    let mut run = Run { attempt: 0, ..run };
    for name in ["prepared", "started", "failed"] {
        let (_, event) = events().into_iter().find(|(found, _)| *found == name).unwrap();
        run = run.transition(&event, UnixMs(2_000)).unwrap();
    }
    let outcomes: Vec<_> = run.steps.iter().map(|step| (step.name.as_str(), step.outcome.clone())).collect();
    assert_eq!(outcomes, [("checkout", None), ("test", Some(StepOutcome::Cancelled))]);
    assert_eq!(run.finished_at, Some(UnixMs(2_000)));
}

#[test]
fn a_run_releases_only_with_the_bounds_the_file_and_a_plan() {
    for (may_release, file_releases, planned) in (0..8).map(|bits: u8| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)) {
        let plan = planned.then(|| plan(crate::plan::Strategy::Rolling));
        let run = Run { may_release, file_releases, plan, ..new_run() };
        assert_eq!(run.releases(), may_release && file_releases && planned);
    }
}

#[test]
fn a_lost_runner_gives_the_run_to_another_and_is_heard_no_more() {
    let first = new_run().transition(&leased("a"), AT).unwrap();
    let lost = |attempt| RunEvent::RunnerLost { attempt, lost_max: 2, reason: "was lost".into() };
    let says = |name: &str, attempt, report| RunEvent::Reported { runner: runner(name), attempt, report };
    let checked_out = first.transition(&says("a", 1, Report::CheckedOut { commit: commit(1) }), AT).unwrap();
    assert!(checked_out.commit.is_some());
    let waiting = checked_out.transition(&lost(1), AT).unwrap();
    assert_eq!((waiting.state.word(), waiting.started_at, waiting.commit.is_none()), ("queued", None, true));
    assert!(waiting.transition(&says("a", 1, succeeded(1)), AT).is_err(), "while it waits");

    let second = waiting.transition(&leased("b"), AT).unwrap();
    assert_eq!((second.attempt, &second.lost), (2, &vec![runner("a")]));
    for late in [says("a", 1, succeeded(1)), says("a", 2, succeeded(1)), says("b", 1, succeeded(1))] {
        assert!(second.transition(&late, AT).is_err(), "{late:?}");
    }
    assert!(second.transition(&lost(1), AT).is_err(), "an old timer ends no new attempt");
    // The same runner may have it again: then it is another attempt.
    let again = waiting.transition(&leased("a"), AT).unwrap();
    assert!(again.transition(&says("a", 1, succeeded(1)), AT).is_err());
    assert!(again.transition(&says("a", 2, succeeded(1)), AT).is_ok());

    let given_up = second.transition(&lost(2), AT).unwrap();
    assert!(matches!(given_up.state, RunState::Failed { blame: Blame::Infrastructure, .. }), "{:?}", given_up.state);
}

#[test]
fn labels_that_a_runner_lacks_bring_the_run_to_another_one_and_only_once() {
    let unfit =
        |attempt| RunEvent::Reported { runner: runner("a"), attempt, report: Report::Unfit { labels: labels() } };
    let run = new_run().transition(&leased("a"), AT).unwrap().transition(&unfit(1), AT).unwrap();
    assert_eq!((run.state.word(), &run.labels, run.lost.len()), ("queued", &labels(), 0));
    let run = run.transition(&leased("a"), AT).unwrap().transition(&unfit(2), AT).unwrap();
    assert!(matches!(run.state, RunState::Failed { blame: Blame::Infrastructure, .. }), "{:?}", run.state);
}

#[test]
fn a_record_from_before_attempts_reads() {
    let mut old = serde_json::to_value(new_run()).unwrap();
    for field in ["attempt", "runner", "lost", "labels"] {
        assert!(old.as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    assert_eq!(serde_json::from_value::<Run>(old).unwrap(), new_run());
}
