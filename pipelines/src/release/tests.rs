//! Every state of a release against every event.

use super::*;
use crate::{
    plan::Strategy,
    samples::{commit, digest, plan, release_id},
};

fn states() -> Vec<ReleaseState> {
    use ReleaseState as S;
    let why = || "why".to_owned();
    let all = vec![
        S::WaitingForTest { behind: 1 },
        S::DeployingTest,
        S::TestFailed { reason: why() },
        S::AwaitingApproval,
        S::Rejected { by: why(), comment: why() },
        S::Expired,
        S::Superseded { by: 3 },
        S::Promoting,
        S::WaitingForRollout,
        S::RollingOut,
        S::Live,
        S::Retired { by: 3 },
        S::RolledBack { reason: why() },
    ];
    // A new state does not compile until it is listed above too.
    for state in &all {
        match state {
            S::WaitingForTest { .. } | S::DeployingTest | S::TestFailed { .. } | S::AwaitingApproval => {}
            S::Rejected { .. } | S::Expired | S::Superseded { .. } | S::Promoting | S::WaitingForRollout => {}
            S::RollingOut | S::Live | S::Retired { .. } | S::RolledBack { .. } => {}
        }
    }
    all
}

fn events() -> Vec<(&'static str, ReleaseEvent)> {
    use ReleaseEvent as E;
    let why = || "why".to_owned();
    vec![
        ("freed", E::TestFreed),
        ("healthy", E::TestHealthy),
        ("unhealthy", E::TestUnhealthy { reason: why() }),
        ("approved", E::Approved { by: why() }),
        ("rejected", E::Rejected { by: why(), comment: why() }),
        ("expired", E::Expired),
        ("asked again", E::AskedAgain),
        ("superseded", E::Superseded { by: 3 }),
        ("promoted", E::Promoted { digest: digest(2) }),
        ("another promoted", E::Promoted { digest: digest(9) }),
        ("rollout started", E::RolloutStarted),
        ("rollout completed", E::RolloutCompleted),
        ("rolled back", E::RolledBack { reason: why() }),
        ("retired", E::Retired { by: 3 }),
    ]
}

fn release(state: ReleaseState) -> Release {
    Release {
        id: release_id(2),
        digest: digest(2),
        tag: "t2".into(),
        plan: plan(Strategy::Rolling),
        commit: commit(2),
        state,
        created_at: UnixMs(0),
        changed_at: UnixMs(0),
        tested_at: None,
        approved: None,
        promoted_at: None,
        live_at: None,
    }
}

/// State, event, state afterwards; what is not listed is refused.
const MOVES: [(&str, &str, &str); 20] = [
    ("waiting_for_test", "freed", "deploying_test"),
    ("waiting_for_test", "superseded", "superseded"),
    ("deploying_test", "healthy", "awaiting_approval"),
    ("deploying_test", "unhealthy", "test_failed"),
    ("deploying_test", "superseded", "superseded"),
    ("awaiting_approval", "approved", "promoting"),
    ("awaiting_approval", "rejected", "rejected"),
    ("awaiting_approval", "expired", "expired"),
    ("awaiting_approval", "superseded", "superseded"),
    ("expired", "asked again", "deploying_test"),
    ("expired", "superseded", "superseded"),
    ("promoting", "promoted", "waiting_for_rollout"),
    ("waiting_for_rollout", "superseded", "superseded"),
    ("waiting_for_rollout", "rollout started", "rolling_out"),
    ("retired", "rollout started", "rolling_out"),
    ("rolled_back", "rollout started", "rolling_out"),
    ("rolling_out", "rollout completed", "live"),
    ("rolling_out", "rolled back", "rolled_back"),
    ("live", "rolled back", "rolled_back"),
    ("live", "retired", "retired"),
];

#[test]
fn every_event_moves_a_release_as_listed_or_is_refused() {
    for state in states() {
        let release = release(state);
        for (name, event) in events() {
            let from = release.state.word();
            let listed = MOVES.iter().find(|(state, on, _)| *state == from && *on == name).map(|found| found.2);
            let got = release.transition(&event, UnixMs(7)).ok();
            assert_eq!(got.as_ref().map(|next| next.state.word()), listed, "{from} on {name}");
            assert!(got.is_none_or(|next| next.changed_at == UnixMs(7)), "{from} on {name}");
        }
    }
}

#[test]
fn each_station_leaves_its_time() {
    let at = UnixMs(7);
    let step = |state, event| release(state).transition(&event, at).unwrap();
    assert_eq!(step(ReleaseState::DeployingTest, ReleaseEvent::TestHealthy).tested_at, Some(at));
    let approved = step(ReleaseState::AwaitingApproval, ReleaseEvent::Approved { by: "qa".into() });
    assert_eq!(approved.approved, Some((at, "qa".into())));
    assert_eq!(step(ReleaseState::Promoting, ReleaseEvent::Promoted { digest: digest(2) }).promoted_at, Some(at));
    let live = step(ReleaseState::RollingOut, ReleaseEvent::RolloutCompleted);
    assert!(live.was_live() && live.live_at == Some(at));
    assert!(!step(ReleaseState::RollingOut, ReleaseEvent::RolledBack { reason: String::new() }).was_live());
}
