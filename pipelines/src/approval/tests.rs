//! Every state of an approval against every event, and people who try to get around it.

use super::*;
use crate::samples::{HOUR_MS, digest, release_id};

const QA: &str = "qa@example.com";
const DEV: &str = "dev@example.com";
const NOW: UnixMs = UnixMs(1_000);

fn approval() -> Approval {
    Approval {
        release: release_id(2),
        round: 1,
        digest: digest(2),
        testers: vec![QA.into(), DEV.into()],
        author_email: DEV.into(),
        allow_self_approval: false,
        state: ApprovalState::Open,
        opened_at: UnixMs(0),
        expires_at: UnixMs(HOUR_MS),
        claim: None,
        links: BTreeMap::new(),
    }
}

fn with_code() -> Approval {
    approval().transition(&code(QA), NOW).unwrap()
}

fn code(tester: &str) -> ApprovalEvent {
    ApprovalEvent::CodeRequested { tester: tester.into() }
}

fn wrong(tester: &str) -> ApprovalEvent {
    ApprovalEvent::WrongCode { tester: tester.into() }
}

fn tester(email: &str) -> Actor {
    Actor::Tester { email: email.into() }
}

fn account(name: &str, email: &str) -> Actor {
    Actor::Account { name: name.into(), email: email.into() }
}

fn decide(actor: Actor, number: u32, approve: bool, comment: &str) -> ApprovalEvent {
    ApprovalEvent::Decided { actor, digest: digest(number), approve, comment: comment.into() }
}

fn states() -> Vec<ApprovalState> {
    use ApprovalState as S;
    let decision = Decision { by: QA.into(), at: NOW, proof: Proof::SignedIn, comment: String::new() };
    let all = vec![
        S::Open,
        S::Approved { decision: decision.clone() },
        S::Rejected { decision },
        S::Expired,
        S::Superseded { by: 3 },
    ];
    // A new state does not compile until it is listed above too.
    for state in &all {
        match state {
            S::Open | S::Approved { .. } | S::Rejected { .. } | S::Expired | S::Superseded { .. } => {}
        }
    }
    all
}

/// Event, state before, state after; what is not listed is refused.
const MOVES: [(&str, &str, &str); 11] = [
    ("code", "open", "open"),
    ("wrong code", "open", "open"),
    ("approve", "open", "approved"),
    ("approve signed in", "open", "approved"),
    ("reject", "open", "rejected"),
    ("claim", "open", "open"),
    ("unclaim", "open", "open"),
    ("expired", "open", "expired"),
    ("superseded", "open", "superseded"),
    ("superseded", "expired", "superseded"),
    ("reopened", "expired", "open"),
];

#[test]
fn every_event_moves_an_approval_as_listed_or_is_refused() {
    let events = [
        ("code", NOW, code(QA)),
        ("wrong code", NOW, wrong(QA)),
        ("approve", NOW, decide(tester(QA), 2, true, "")),
        ("approve signed in", NOW, decide(account("root", "root@example.com"), 2, true, "")),
        ("reject", NOW, decide(tester(QA), 2, false, "broken")),
        ("claim", NOW, ApprovalEvent::Claimed { actor: tester(QA) }),
        ("unclaim", NOW, ApprovalEvent::Unclaimed { actor: tester(DEV) }),
        ("expired", UnixMs(HOUR_MS), ApprovalEvent::Expired { round: 1 }),
        ("expired early", UnixMs(HOUR_MS - 1), ApprovalEvent::Expired { round: 1 }),
        ("expired of another round", UnixMs(HOUR_MS), ApprovalEvent::Expired { round: 2 }),
        ("superseded", NOW, ApprovalEvent::Superseded { by: 3 }),
        ("reopened", NOW, ApprovalEvent::Reopened { expires_at: UnixMs(2 * HOUR_MS) }),
    ];
    let claim = Some(Claim { by: QA.into(), at: NOW });
    for state in states() {
        let approval = Approval { state, claim: claim.clone(), ..with_code() };
        for (name, at, event) in &events {
            let from = approval.state.word();
            let listed = MOVES.iter().find(|(on, state, _)| *state == from && on == name).map(|found| found.2);
            let got = approval.transition(event, *at).ok();
            assert_eq!(got.map(|next| next.state.word()), listed, "{from} on {name}");
        }
    }
}

#[test]
fn a_decision_is_refused_with_the_reason() {
    use ApprovalRefusal as R;
    let late = UnixMs(HOUR_MS);
    let cases = [
        (decide(tester(QA), 9, true, ""), NOW, R::StaleDigest),
        (decide(tester("eve@example.com"), 2, true, ""), NOW, R::NotATester("eve@example.com".into())),
        (decide(tester(DEV), 2, true, ""), NOW, R::OwnCommit(DEV.into())),
        (decide(tester("DEV@example.com"), 2, true, ""), NOW, R::OwnCommit("DEV@example.com".into())),
        (decide(account("dev", "Dev@Example.com"), 2, true, ""), NOW, R::OwnCommit("dev".into())),
        (decide(tester(QA), 2, false, "  "), NOW, R::CommentMissing),
        (decide(tester(QA), 2, true, ""), late, R::Late),
        (decide(account("root", "r@example.com"), 2, true, ""), late, R::Late),
        (decide(tester(QA), 2, true, ""), NOW.plus_ms(CODE_LIFE_MS + 1), R::NoCode),
        // The author has no code, and a reject by them harms nobody.
        (decide(tester(DEV), 2, false, "mine is broken"), NOW, R::NoCode),
        (code(QA), late, R::Late),
        (code("eve@example.com"), NOW, R::NotATester("eve@example.com".into())),
        (wrong("eve@example.com"), NOW, R::NotATester("eve@example.com".into())),
        (ApprovalEvent::Claimed { actor: tester("eve@example.com") }, NOW, R::NotATester("eve@example.com".into())),
        (ApprovalEvent::Claimed { actor: tester(QA) }, late, R::Late),
        (ApprovalEvent::Unclaimed { actor: tester(QA) }, NOW, R::NotClaimed),
    ];
    for (event, at, refusal) in cases {
        assert_eq!(with_code().transition(&event, at), Err(refusal), "{event:?} at {at:?}");
    }
    let on_time = NOW.plus_ms(CODE_LIFE_MS);
    assert!(with_code().transition(&decide(tester(QA), 2, true, ""), on_time).is_ok());
    let allowed = Approval { allow_self_approval: true, ..approval() }.transition(&code(DEV), NOW).unwrap();
    assert!(allowed.transition(&decide(tester(DEV), 2, true, ""), NOW).is_ok());
    let author_rejects = decide(account("dev", DEV), 2, false, "broken");
    assert!(approval().transition(&author_rejects, NOW).is_ok());
}

#[test]
fn wrong_codes_lock_the_link_until_a_new_code_and_codes_run_out() {
    let mut approval = approval();
    for asked in 1..=CODES_MAX {
        approval = approval.transition(&code(QA), NOW).unwrap();
        for tried in 0..WRONG_CODES_MAX {
            assert_eq!(approval.code_to_check(QA, NOW), Ok(asked), "after {tried} wrong codes");
            approval = approval.transition(&wrong(QA), NOW).unwrap();
        }
        assert_eq!(approval.code_to_check(QA, NOW), Err(ApprovalRefusal::Locked));
        let decide = decide(tester(QA), 2, true, "");
        assert_eq!(approval.transition(&decide, NOW), Err(ApprovalRefusal::Locked));
    }
    assert_eq!(approval.transition(&code(QA), NOW), Err(ApprovalRefusal::TooManyCodes));
    // Another tester's link and a signed-in person are not locked by it.
    assert!(approval.transition(&code(DEV), NOW).is_ok());
    assert!(approval.transition(&decide(account("root", "r@example.com"), 2, true, ""), NOW).is_ok());
}

#[test]
fn a_code_is_good_once_and_for_its_time_only() {
    let approval = with_code();
    assert_eq!(super::tests::approval().code_to_check(QA, NOW), Err(ApprovalRefusal::NoCode));
    assert_eq!(approval.code_to_check(QA, NOW.plus_ms(CODE_LIFE_MS)), Ok(1));
    assert_eq!(approval.code_to_check(QA, NOW.plus_ms(CODE_LIFE_MS + 1)), Err(ApprovalRefusal::NoCode));
    let decided = approval.transition(&decide(tester(QA), 2, true, " fine "), NOW).unwrap();
    assert_eq!(decided.code_to_check(QA, NOW), Err(ApprovalRefusal::NoCode));
    let ApprovalState::Approved { decision } = &decided.state else { panic!("{:?}", decided.state) };
    assert_eq!((decision.by.as_str(), decision.proof, decision.comment.as_str()), (QA, Proof::MailedCode, "fine"));
    let again = decided.transition(&decide(tester(QA), 2, true, ""), NOW);
    assert_eq!(again, Err(ApprovalRefusal::NotOpen("approved")));
}

#[test]
fn a_claim_is_one_persons_and_asking_again_forgets_all_of_the_last_round() {
    let claim = |who| ApprovalEvent::Claimed { actor: tester(who) };
    let claimed = with_code().transition(&claim(QA), NOW).unwrap();
    assert_eq!(claimed.transition(&claim(QA), UnixMs(9_000)), Ok(claimed.clone()));
    assert_eq!(claimed.transition(&claim(DEV), NOW), Err(ApprovalRefusal::ClaimedBy(QA.into())));
    let expired = claimed.transition(&ApprovalEvent::Expired { round: 1 }, UnixMs(HOUR_MS)).unwrap();
    let expires_at = UnixMs(3 * HOUR_MS);
    let again = expired.transition(&ApprovalEvent::Reopened { expires_at }, UnixMs(2 * HOUR_MS)).unwrap();
    assert_eq!((again.round, &again.claim, again.links.len(), again.expires_at), (2, &None, 0, expires_at));
    assert!(again.transition(&ApprovalEvent::Expired { round: 1 }, expires_at).is_err());
}
