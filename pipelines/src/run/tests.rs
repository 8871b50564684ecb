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

fn events() -> Vec<(&'static str, RunEvent)> {
    let report = |report| RunEvent::Reported { report };
    vec![
        ("leased", RunEvent::Leased { runner: runner("a") }),
        ("leased by b", RunEvent::Leased { runner: runner("b") }),
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
        ("failed", report(Report::Failed { blame: Blame::Code, reason: "red".into() })),
        ("cancelled", report(Report::Cancelled)),
    ]
}

/// State, event, state afterwards; what is not listed is refused.
const MOVES: [(&str, &str, &str); 36] = [
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
        let run = Run { state, ..new_run() };
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
    let run = new_run().transition(&RunEvent::Leased { runner: runner("a") }, UnixMs(5)).unwrap();
    let others = ["leased by b", "inspected", "allowed", "declined", "hold ended", "passed"];
    for (name, event) in events().iter().filter(|(name, _)| !others.contains(name)) {
        let Ok(once) = run.transition(event, AT) else { panic!("{name} was refused") };
        assert_eq!(once.transition(event, AT).as_ref(), Ok(&once), "{name} twice");
    }
    assert_eq!(run.transition(&RunEvent::Leased { runner: runner("a") }, AT).unwrap().started_at, Some(UnixMs(5)));
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
    let leased = |run: &Run| run.transition(&RunEvent::Leased { runner: runner("a") }, AT).unwrap();
    let said = |run: &Run, report| run.transition(&RunEvent::Reported { report }, AT);
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
    let mut run = new_run().transition(&RunEvent::Leased { runner: runner("a") }, AT).unwrap();
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
