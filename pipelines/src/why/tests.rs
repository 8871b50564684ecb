//! Tests of the reasons: every state has one that says who acts and what they do.

use super::*;
use crate::{
    approval::{Actor, Approval, ApprovalEvent, ApprovalState},
    ids::{Digest, ReleaseId, RolloutId},
    plan::{CanaryStep, Check, DeliveryPlan, DeployPlan, JudgePolicy, Metric, ProductionPlan, Strategy, TestPlan},
    protocol::CommitInfo,
    release::{Release, ReleaseState},
    rollout::{Cause, NewRollout, Rollout, RolloutEvent, Stable, judge::RevisionStats},
};

const AT: UnixMs = UnixMs(1_795_000_000_000);
const HOUR_MS: u64 = 3_600_000;

fn release(state: ReleaseState) -> Release {
    let id: ReleaseId = "shop/7".parse().unwrap();
    Release {
        id,
        digest: Digest::of(b"image"),
        tag: "7".into(),
        plan: DeliveryPlan {
            base: "static-site@1".into(),
            deploy: DeployPlan {
                port: 8080,
                host: None,
                env: [].into(),
                health_path: "/".into(),
                health_timeout_ms: 1_000,
                replicas: 2,
                memory_bytes: None,
                cpu_milli: None,
                command: Vec::new(),
            },
            test: TestPlan {
                testers: vec!["qa@example.com".into()],
                approvals: 1,
                deputies: Vec::new(),
                expires_ms: HOUR_MS,
            },
            production: ProductionPlan {
                strategy: Strategy::Canary { steps: vec![CanaryStep { weight_percent: 10, hold_ms: 60_000 }] },
                judge: JudgePolicy {
                    checks: vec![Check { metric: Metric::SuccessRate, limit: 99.0 }],
                    ..JudgePolicy::default()
                },
            },
        },
        commit: CommitInfo {
            sha: "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678".parse().unwrap(),
            message: "change".into(),
            author: "Mei".into(),
            author_email: "mei@example.com".into(),
            committed_at: AT,
            changes: Vec::new(),
        },
        state,
        created_at: AT,
        changed_at: AT,
        tested_at: None,
        approved: None,
        promoted_at: None,
        live_at: None,
    }
}

fn approval(of: &Release) -> Approval {
    Approval {
        release: of.id.clone(),
        round: 1,
        digest: of.digest.clone(),
        testers: of.plan.test.testers.clone(),
        needed: of.plan.test.approvals,
        deputies: of.plan.test.deputies.clone(),
        author_email: of.commit.author_email.clone(),
        allow_self_approval: false,
        state: ApprovalState::Open,
        opened_at: AT,
        expires_at: AT.plus_ms(HOUR_MS),
        approved_by: Vec::new(),
        reminded: None,
        deputies_asked_at: None,
        claim: None,
        links: [].into(),
    }
}

fn facts<'a>(release: &'a Release) -> ReleaseFacts<'a> {
    ReleaseFacts {
        release,
        approval: None,
        rollout: None,
        rolling_out: None,
        behind: None,
        superseded_by: None,
        fault: None,
        unreached: Vec::new(),
        promoted_bytes: None,
        at: AT,
    }
}

fn fault(tries: u32) -> Fault {
    Fault { party: Party::Registries, error: "503".into(), tries, next_at: AT.plus_ms(1_000) }
}

/// A canary whose first share is in force, and the counters at that moment.
fn canary() -> Rollout {
    let release = release(ReleaseState::RollingOut);
    let stable = release.id.revision(&Digest::of(b"old"));
    let (rollout, _) = Rollout::begin(
        NewRollout {
            id: RolloutId::new(release.id.service.clone(), 3),
            release: release.id.clone(),
            revision: release.revision(),
            stable: Some(Stable { release: 6, revision: stable }),
            cause: Cause::Promotion,
            plan: release.plan.production.clone(),
            replicas: 2,
        },
        AT,
    );
    let (rollout, _) = rollout.transition(&RolloutEvent::RevisionHealthy, AT).unwrap();
    let none = RevisionStats::default();
    let acknowledged = RolloutEvent::TrafficAcknowledged { intent: rollout.intent, canary: none.clone(), stable: none };
    rollout.transition(&acknowledged, AT).unwrap().0
}

fn measured(rollout: &Rollout, requests: u64, errors: u64, at: UnixMs) -> Rollout {
    let canary = RevisionStats { requests, errors, latency: vec![(10, requests)] };
    let stable = RevisionStats { requests: 1_000, errors: 0, latency: vec![(10, 1_000)] };
    rollout.transition(&RolloutEvent::Measured { stage: 0, canary, stable }, at).unwrap().0
}

#[test]
fn every_state_of_a_release_has_a_sentence_with_a_next_action_until_it_is_over() {
    let states = [
        ReleaseState::WaitingForTest { behind: 6 },
        ReleaseState::DeployingTest,
        ReleaseState::TestFailed { reason: "no answer".into() },
        ReleaseState::AwaitingApproval,
        ReleaseState::Rejected { by: "qa@example.com".into(), comment: "wrong price".into() },
        ReleaseState::Expired,
        ReleaseState::Superseded { by: 8 },
        ReleaseState::Promoting,
        ReleaseState::WaitingForRollout,
        ReleaseState::RollingOut,
        ReleaseState::Live,
        ReleaseState::Retired { by: 8 },
        ReleaseState::RolledBack { reason: "aborted by mei: too slow".into() },
    ];
    for state in states {
        let release = release(state);
        let why = why_release(&facts(&release));
        let text = why.to_string();
        assert!(text.len() > 10 && !text.ends_with('.'), "{text}");
        let is_over = matches!(release.state, ReleaseState::Live | ReleaseState::Retired { .. });
        assert_eq!(why.next().is_empty(), is_over, "{text}");
    }
}

#[test]
fn the_person_and_the_time_are_named() {
    let release = release(ReleaseState::AwaitingApproval);
    let open = approval(&release);
    let why = why_release(&ReleaseFacts { approval: Some(&open), ..facts(&release) });
    assert_eq!(why.person(), Person::Testers(vec!["qa@example.com".into()]));
    assert_eq!(why.until(), Some(AT.plus_ms(HOUR_MS)));
    assert!(why.to_string().contains("qa@example.com approves or rejects it by 2026-11-18"), "{why}");

    let claim = ApprovalEvent::Claimed { actor: Actor::Tester { email: "qa@example.com".into() } };
    let claimed = open.transition(&claim, AT).unwrap();
    let why = why_release(&ReleaseFacts { approval: Some(&claimed), ..facts(&release) });
    assert_eq!(why.person(), Person::Named("qa@example.com".into()));

    let waiting = self::release(ReleaseState::WaitingForTest { behind: 6 });
    let why = why_release(&ReleaseFacts { behind: Some(&claimed), ..facts(&waiting) });
    assert_eq!(why.to_string(), "release 6 has the test environment and is being tested; qa@example.com decides first");
}

#[test]
fn infrastructure_is_told_apart_and_needs_a_person_only_when_it_lasts() {
    let release = release(ReleaseState::Promoting);
    let why = why_release(&ReleaseFacts { fault: Some(fault(1)), ..facts(&release) });
    assert_eq!((why.word(), why.person()), ("fault", Person::Nobody));
    assert!(why.to_string().contains("not the code"), "{why}");
    let why = why_release(&ReleaseFacts { fault: Some(fault(FAULT_TRIES_BEFORE_A_PERSON)), ..facts(&release) });
    assert_eq!(why.person(), Person::Operator);

    let asked = self::release(ReleaseState::AwaitingApproval);
    let open = approval(&asked);
    let facts = ReleaseFacts { approval: Some(&open), fault: Some(fault(2)), ..facts(&asked) };
    assert_eq!(why_release(&facts).word(), "mail_waits");
}

#[test]
fn a_canary_says_its_share_then_too_few_requests_then_why_it_went_back() {
    let rolling = release(ReleaseState::RollingOut);
    let rollout = canary();
    let why = why_release(&ReleaseFacts { rollout: Some(&rollout), ..facts(&rolling) });
    assert!(matches!(why, Why::Canary { percent: 10, step: 1, of: 2, next_percent: None, .. }), "{why:?}");

    let later = AT.plus_ms(120_000);
    let thin = measured(&rollout, 3, 0, later);
    let why = why_release(&ReleaseFacts { rollout: Some(&thin), at: later, ..facts(&rolling) });
    assert!(matches!(why, Why::TooFewRequests { have: 3, need: 50, until: Some(_) }), "{why:?}");

    let bad = measured(&rollout, 200, 40, later);
    let why = why_release(&ReleaseFacts { rollout: Some(&bad), at: later, ..facts(&rolling) });
    assert!(matches!(why, Why::RollingBack { to: Some(6), .. }), "{why:?}");

    let none = RevisionStats::default();
    let back = RolloutEvent::TrafficAcknowledged { intent: bad.intent, canary: none.clone(), stable: none };
    let (bad, _) = bad.transition(&back, later).unwrap();
    let (bad, _) = bad.transition(&RolloutEvent::Drained, later).unwrap();
    let gone = release(ReleaseState::RolledBack { reason: "the judge said FAIL".into() });
    let Why::RolledBack { cause: BackCause::Judge { percent, check, requests }, to, .. } =
        why_release(&ReleaseFacts { rollout: Some(&bad), at: later, ..facts(&gone) })
    else {
        panic!("not the judge");
    };
    assert_eq!((percent, requests, to, check.name.as_str()), (10, 200, Some(6), "success_rate"));
}

#[test]
fn who_aborted_a_rollout_is_named() {
    let (aborted, _) =
        canary().transition(&RolloutEvent::Abort { by: "mei".into(), reason: "too slow".into() }, AT).unwrap();
    let reason = match aborted.state {
        crate::rollout::RolloutState::RollingBack { reason } => reason,
        other => panic!("{other:?}"),
    };
    let release = release(ReleaseState::RolledBack { reason });
    let why = why_release(&facts(&release));
    assert!(matches!(why, Why::RolledBack { cause: BackCause::Person { ref by }, .. } if by == "mei"), "{why:?}");
}

#[test]
fn of_several_approvals_it_says_how_many_are_missing_and_who_is_asked() {
    let mut release = release(ReleaseState::AwaitingApproval);
    release.plan.test.testers.extend(["lee@example.com".into(), "mei@example.com".into()]);
    release.plan.test.approvals = 2;
    let by_lee = ApprovalEvent::Decided {
        actor: Actor::Account { name: "lee".into(), email: "lee@example.com".into() },
        digest: release.digest.clone(),
        approve: true,
        comment: String::new(),
    };
    let one = approval(&release).transition(&by_lee, AT).unwrap();
    let why = why_release(&ReleaseFacts { approval: Some(&one), ..facts(&release) });
    // Mei wrote the commit.
    assert!(why.to_string().starts_with("it waits for 1 more of 2 approvals; asked: qa@example.com; qa@example.com"));
    assert_eq!(why.person(), Person::Testers(vec!["qa@example.com".into()]));

    let fault = Fault { party: Party::Mail, error: "550 no such user".into(), tries: 1, next_at: AT.plus_ms(1_000) };
    let unreached = vec!["qa@example.com".into()];
    let open = approval(&release);
    let why = why_release(&ReleaseFacts { approval: Some(&open), fault: Some(fault), unreached, ..facts(&release) });
    let text = why.to_string();
    assert!(text.starts_with("the mail to qa@example.com is not sent yet: the mail server said \"550"), "{text}");
    assert!(text.contains("lee@example.com can decide by"), "{text}");
    assert_eq!(why.person(), Person::Operator);

    release.plan.test.approvals = 3;
    let short = approval(&release);
    let why = why_release(&ReleaseFacts { approval: Some(&short), ..facts(&release) });
    assert!(why.to_string().ends_with("and a release manager too"), "{why}");

    let release = self::release(ReleaseState::Expired);
    let why = why_release(&ReleaseFacts { approval: Some(&one), ..facts(&release) });
    assert!(why.to_string().starts_with("1 of 2 had approved it"), "{why}");
}
