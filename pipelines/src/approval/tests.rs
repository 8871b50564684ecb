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
        needed: 1,
        deputies: Vec::new(),
        author_email: DEV.into(),
        allow_self_approval: false,
        state: ApprovalState::Open,
        opened_at: UnixMs(0),
        expires_at: UnixMs(HOUR_MS),
        approved_by: Vec::new(),
        reminded: None,
        deputies_asked_at: None,
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
    let (by, email, comment) = (QA.into(), QA.into(), String::new());
    let decision = Decision { by, email, at: NOW, proof: Proof::SignedIn, comment };
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
const MOVES: [(&str, &str, &str); 12] = [
    ("code", "open", "open"),
    ("wrong code", "open", "open"),
    ("approve", "open", "approved"),
    ("approve signed in", "open", "approved"),
    ("reject", "open", "rejected"),
    ("claim", "open", "open"),
    ("unclaim", "open", "open"),
    ("reminder", "open", "open"),
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
        ("reminder", UnixMs(HOUR_MS / 2), ApprovalEvent::ReminderDue { round: 1 }),
        ("reminder of another round", UnixMs(HOUR_MS / 2), ApprovalEvent::ReminderDue { round: 2 }),
        ("reminder after the end", UnixMs(HOUR_MS), ApprovalEvent::ReminderDue { round: 1 }),
        ("expired", UnixMs(HOUR_MS), ApprovalEvent::Expired { round: 1 }),
        ("expired early", UnixMs(HOUR_MS - 1), ApprovalEvent::Expired { round: 1 }),
        ("expired of another round", UnixMs(HOUR_MS), ApprovalEvent::Expired { round: 2 }),
        ("superseded", NOW, ApprovalEvent::Superseded { by: 3 }),
        ("reopened", NOW, ApprovalEvent::Reopened { expires_at: UnixMs(2 * HOUR_MS) }),
    ];
    let claim = Some(Claim { by: QA.into(), email: QA.into(), at: NOW });
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

// Several approvals, deputies, reminders.

const LEE: &str = "lee@example.com";
const SUB: &str = "sub@example.com";

/// Two of three must approve, one of whom wrote the commit; a deputy stands in.
fn two_of_three() -> Approval {
    let testers = vec![QA.into(), DEV.into(), LEE.into()];
    Approval { testers, needed: 2, deputies: vec![SUB.into()], ..approval() }
}

fn on(approval: &Approval, at_percent: u64, event: &ApprovalEvent) -> Result<Approval, ApprovalRefusal> {
    approval.transition(event, UnixMs(HOUR_MS * at_percent / 100))
}

fn yes(actor: Actor) -> ApprovalEvent {
    decide(actor, 2, true, "")
}

fn reminder() -> ApprovalEvent {
    ApprovalEvent::ReminderDue { round: 1 }
}

#[test]
fn as_many_different_people_as_are_needed_approve_and_each_counts_once() {
    let asked = two_of_three().transition(&code(QA), NOW).unwrap();
    let one = asked.transition(&yes(tester(QA)), NOW).unwrap();
    assert_eq!((one.state.word(), one.have(), one.missing()), ("open", 1, 1));
    let again = one.transition(&code(QA), NOW).unwrap();
    let already = |by: &str| Err(ApprovalRefusal::AlreadyApproved { by: by.into(), missing: 1 });
    // By the link, by an account of the same address, by another account of it.
    assert_eq!(again.transition(&yes(tester(QA)), NOW), already(QA));
    assert_eq!(again.transition(&yes(account("quinn", "Qa@Example.com")), NOW), already("quinn"));
    assert_eq!(one.transition(&yes(account("dev", DEV)), NOW), Err(ApprovalRefusal::OwnCommit("dev".into())));
    assert_eq!(one.undecided(), [LEE]);
    let two = one.transition(&yes(account("boss", "boss@example.com")), NOW).unwrap();
    assert_eq!((two.state.word(), two.have(), two.missing()), ("approved", 2, 0));

    // The other way round; and an account whose address was changed in between is still one person.
    let one = two_of_three().transition(&yes(account("quinn", QA)), NOW).unwrap();
    let coded = one.transition(&code(QA), NOW).unwrap();
    assert_eq!(coded.transition(&yes(tester(QA)), NOW), already(QA));
    assert_eq!(one.transition(&yes(account("quinn", "new@example.com")), NOW), already("quinn"));
}

#[test]
fn one_no_ends_it_also_after_a_yes_of_the_same_person() {
    let one = two_of_three().transition(&yes(account("quinn", QA)), NOW).unwrap();
    let no = decide(account("quinn", QA), 2, false, "I looked again");
    assert_eq!(one.transition(&no, NOW).unwrap().state.word(), "rejected");
    let no = decide(account("dev", DEV), 2, false, "mine is broken");
    assert_eq!(one.transition(&no, NOW).unwrap().state.word(), "rejected");
}

#[test]
fn asking_again_forgets_what_was_approved_and_asked_before() {
    let one = two_of_three().transition(&yes(account("quinn", QA)), NOW).unwrap();
    let late = on(&one, 90, &reminder()).unwrap();
    assert_eq!((late.reminded, late.asked().count()), (Some(Reminder::LastCall), 4));
    let expired = on(&late, 100, &ApprovalEvent::Expired { round: 1 }).unwrap();
    assert_eq!(expired.state, ApprovalState::Expired);
    let again = on(&expired, 200, &ApprovalEvent::Reopened { expires_at: UnixMs(3 * HOUR_MS) }).unwrap();
    assert_eq!((again.round, again.have(), again.reminded, again.asked().count()), (2, 0, None, 3));
    assert_eq!(again.next_reminder(), Some((Reminder::HalfTime, UnixMs(2 * HOUR_MS + HOUR_MS / 2))));
    // The code of the first round is gone with it.
    assert_eq!(on(&again, 201, &yes(tester(QA))), Err(ApprovalRefusal::NoCode));
}

#[test]
fn reminders_come_at_their_moments_and_only_the_newest_of_several() {
    let open = two_of_three();
    let moments = Reminder::ALL.map(|reminder| open.reminder_at(reminder).0 * 100 / HOUR_MS);
    assert_eq!(moments, [50, 75, 90]);
    assert_eq!(on(&open, 49, &reminder()), Ok(open.clone()), "nothing was due");

    let half = on(&open, 50, &reminder()).unwrap();
    assert_eq!((half.reminded, half.deputies_asked_at), (Some(Reminder::HalfTime), None));
    // Not the author, who may not approve, and not the deputy, whose time has not come.
    assert_eq!(half.recipients(Reminder::HalfTime), [QA, LEE]);
    assert_eq!(half.transition(&code(SUB), NOW), Err(ApprovalRefusal::NotATester(SUB.into())));
    assert_eq!(on(&half, 60, &reminder()), Ok(half.clone()), "twice");

    let deputies = on(&half, 76, &reminder()).unwrap();
    assert_eq!(deputies.reminded, Some(Reminder::Deputies));
    assert_eq!(deputies.recipients(Reminder::Deputies), [SUB]);
    assert!(deputies.transition(&code(SUB), UnixMs(HOUR_MS * 77 / 100)).is_ok());

    // The clock jumps from the beginning to the end: one mail each.
    let last = on(&open, 95, &reminder()).unwrap();
    assert_eq!((last.reminded, last.next_reminder()), (Some(Reminder::LastCall), None));
    assert_eq!(last.recipients(Reminder::LastCall), [QA, LEE, SUB]);
    let one = last.transition(&yes(account("quinn", QA)), NOW).unwrap();
    assert_eq!(one.recipients(Reminder::LastCall), [LEE, SUB], "who has approved is not reminded");

    assert!(last.recipients(Reminder::HalfTime).is_empty(), "an earlier one comes too late");
    assert!(on(&deputies, 90, &reminder()).unwrap().recipients(Reminder::Deputies).is_empty());
    let alone = Approval { deputies: Vec::new(), ..two_of_three() };
    assert_eq!(on(&alone, 80, &reminder()).unwrap().reminded, Some(Reminder::HalfTime), "there are no deputies");
    let nobody = Approval { testers: Vec::new(), ..alone };
    assert_eq!(nobody.next_reminder(), None, "nobody could be reminded");
}

#[test]
fn a_claim_keeps_reminders_from_the_others_only_where_one_approval_is_missing() {
    let claim = |email: &str| ApprovalEvent::Claimed { actor: tester(email) };
    // Two are missing: whoever tests cannot decide alone.
    let claimed = on(&two_of_three(), 10, &claim(QA)).unwrap();
    assert_eq!(on(&claimed, 50, &reminder()).unwrap().recipients(Reminder::HalfTime), [QA, LEE]);

    let one = on(&two_of_three(), 10, &yes(account("boss", "boss@example.com"))).unwrap();
    let claimed = on(&one, 20, &claim(QA)).unwrap();
    assert_eq!(on(&claimed, 50, &reminder()).unwrap().recipients(Reminder::HalfTime), [QA]);
    let skipped = on(&claimed, 80, &reminder()).unwrap();
    assert_eq!((skipped.reminded, skipped.deputies_asked_at), (Some(Reminder::Deputies), None));
    assert!(skipped.recipients(Reminder::Deputies).is_empty());
    // Given back: the deputies are asked now.
    let free = on(&skipped, 85, &ApprovalEvent::Unclaimed { actor: tester(QA) }).unwrap();
    assert_eq!(free.deputies_asked_at, Some(UnixMs(HOUR_MS * 85 / 100)));
    assert_eq!(free.recipients(Reminder::Deputies), [SUB]);

    // Signed in, the person is known by the address, or by the name.
    let by_account = ApprovalEvent::Claimed { actor: account("quinn", "QA@example.com") };
    assert_eq!(on(&one, 20, &by_account).unwrap().recipients(Reminder::HalfTime), [QA]);
    let by_boss = ApprovalEvent::Claimed { actor: account("other", "other@example.com") };
    assert!(on(&one, 20, &by_boss).unwrap().recipients(Reminder::LastCall).is_empty());
}

#[test]
fn whoever_has_approved_does_not_keep_the_claim_from_the_next() {
    let claim = |email: &str| ApprovalEvent::Claimed { actor: tester(email) };
    let claimed = on(&two_of_three(), 10, &claim(QA)).unwrap();
    assert_eq!(on(&claimed, 11, &claim(LEE)), Err(ApprovalRefusal::ClaimedBy(QA.into())));
    let one = on(&claimed, 12, &yes(account("quinn", QA))).unwrap();
    assert!(one.claim.is_some() && one.covering_claim().is_none(), "the test environment is kept for the others");
    assert_eq!(on(&one, 13, &claim(LEE)).unwrap().claim.unwrap().by, LEE);
}

#[test]
fn too_few_people_are_told() {
    // The author is one of two testers, and both are needed.
    let both = Approval { needed: 2, ..approval() };
    assert!(both.is_short_of_people());
    assert!(!Approval { deputies: vec![SUB.into()], ..both.clone() }.is_short_of_people());
    assert!(!Approval { allow_self_approval: true, ..both }.is_short_of_people());
    assert!(!two_of_three().is_short_of_people());
}

#[test]
fn a_record_of_an_earlier_version_is_read_and_goes_on() {
    let text = r#"{"release":"shop/2","round":1,"digest":"DIGEST","testers":["qa@example.com"],
        "author_email":"dev@example.com","allow_self_approval":false,"state":{"state":"open"},"opened_at":0,
        "expires_at":3600000,"claim":{"by":"qa@example.com","at":5},"links":{}}"#;
    let old: Approval = serde_json::from_str(&text.replace("DIGEST", digest(2).as_str())).unwrap();
    assert_eq!((old.needed, old.have(), old.deputies.len(), old.reminded), (1, 0, 0, None));
    assert_eq!(on(&old, 50, &reminder()).unwrap().recipients(Reminder::HalfTime), [QA]);
    let asked = old.transition(&code(QA), NOW).unwrap();
    assert_eq!(asked.transition(&yes(tester(QA)), NOW).unwrap().state.word(), "approved");
    let decision: Decision =
        serde_json::from_str(r#"{"by":"qa@example.com","at":5,"proof":"mailed_code","comment":""}"#).unwrap();
    assert!(decision.is_by("", "QA@example.com"));
}
