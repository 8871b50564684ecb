//! How the machines of one service move together, on records in memory. Chance and crashes are the simulator's.

mod approvals;

use super::*;
use crate::{
    approval::{Actor, ApprovalState},
    hold::{HoldBounds, HoldEnd},
    ids::RunId,
    plan::{CanaryStep, Strategy},
    protocol::Report,
    release::ReleaseState,
    rollout::{RolloutState, judge::RevisionStats},
    samples::{HOUR_MS, commit, digest, name, plan, release_id, runner, service, succeeded, trigger},
};

const QA: &str = "qa@example.com";

/// A train with its records and pending effects.
struct Line {
    train: Train,
    runs: BTreeMap<u32, Run>,
    releases: BTreeMap<u32, Release>,
    approvals: BTreeMap<u32, Approval>,
    rollouts: BTreeMap<u32, Rollout>,
    pending: BTreeMap<String, Effect>,
    approvals_broken: bool,
    now: UnixMs,
}

impl Records for Line {
    fn run(&self, id: &RunId) -> Result<Option<Run>, Refusal> {
        Ok(self.runs.get(&id.number).cloned())
    }

    fn release(&self, id: &ReleaseId) -> Result<Option<Release>, Refusal> {
        Ok(self.releases.get(&id.number).cloned())
    }

    fn approval(&self, id: &ReleaseId) -> Result<Option<Approval>, Refusal> {
        if self.approvals_broken {
            return Err(Refusal::Lookup("the disk is gone".into()));
        }
        Ok(self.approvals.get(&id.number).cloned())
    }

    fn rollout(&self, id: &RolloutId) -> Result<Option<Rollout>, Refusal> {
        Ok(self.rollouts.get(&id.number).cloned())
    }
}

fn leased() -> RunEvent {
    RunEvent::Leased { runner: runner("a"), lease_ms: 60_000 }
}

fn reported(report: Report) -> RunEvent {
    RunEvent::Reported { runner: runner("a"), attempt: 1, report }
}

impl Line {
    fn new() -> Self {
        Self {
            train: Train::new(name()),
            runs: BTreeMap::new(),
            releases: BTreeMap::new(),
            approvals: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            pending: BTreeMap::new(),
            approvals_broken: false,
            now: UnixMs(1_000),
        }
    }

    fn try_on(&mut self, event: &Event) -> Result<Vec<Note>, Refusal> {
        let change = decide(&service(), &self.train, self, event, self.now)?;
        self.train = change.train;
        self.runs.extend(change.runs);
        self.releases.extend(change.releases);
        self.approvals.extend(change.approvals);
        self.rollouts.extend(change.rollouts);
        for key in &change.withdraw {
            self.pending.remove(key);
        }
        self.pending.extend(change.ask.into_iter().map(|effect| (effect.key(), effect)));
        Ok(change.notes)
    }

    fn on(&mut self, event: Event) {
        self.try_on(&event).unwrap_or_else(|refusal| panic!("{event:?}: {refusal}"));
    }

    fn refused(&mut self, event: &Event) -> String {
        let before = (self.train.clone(), self.releases.clone(), self.approvals.clone(), self.rollouts.clone());
        let refusal = self.try_on(event).expect_err("it was not refused");
        assert_eq!(before, (self.train.clone(), self.releases.clone(), self.approvals.clone(), self.rollouts.clone()));
        refusal.to_string()
    }

    fn keys(&self) -> Vec<&str> {
        self.pending.keys().map(String::as_str).collect()
    }

    fn is_pending(&self, key: &str) -> bool {
        self.pending.contains_key(key)
    }

    fn done(&mut self, key: &str) {
        assert!(self.pending.remove(key).is_some(), "{key} was not asked for: {:?}", self.keys());
    }

    fn word(&self, number: u32) -> &'static str {
        self.releases[&number].state.word()
    }

    /// A push whose run has started.
    fn start(&mut self) -> u32 {
        let number = self.train.last_run + 1;
        self.on(Event::Triggered { trigger: trigger(number), rerun_of: None, hold: HoldBounds::default() });
        self.on(run(number, leased()));
        number
    }

    /// A push to a pull request of a fork.
    fn fork(&mut self, number: u32, pull_request: u64) {
        let git_ref = format!("refs/pull/{pull_request}/head");
        let trigger = Trigger { from_fork: true, git_ref, pull_request: Some(pull_request), ..trigger(number) };
        self.on(Event::Triggered { trigger, rerun_of: None, hold: HoldBounds::default() });
    }

    fn finish(&mut self, number: u32, strategy: Strategy) {
        let plan = Box::new(plan(strategy));
        let prepared = Report::Prepared { steps: vec!["checkout".into()], plan, releases: true };
        for report in [Report::CheckedOut { commit: commit(number) }, prepared, succeeded(number)] {
            self.on(run(number, reported(report)));
        }
    }

    fn push_with(&mut self, strategy: Strategy) -> u32 {
        let number = self.start();
        self.finish(number, strategy);
        number
    }

    fn push(&mut self) -> u32 {
        self.push_with(Strategy::Rolling)
    }

    fn tested(&mut self, number: u32) {
        self.done(&format!("deploy-test/shop/{number}"));
        self.on(release(number, ReleaseEvent::TestHealthy));
    }

    fn promoted(&mut self, number: u32) {
        self.done(&format!("promote/shop/{number}"));
        self.on(release(number, ReleaseEvent::Promoted { digest: digest(number) }));
    }

    fn approved(&mut self, number: u32) {
        self.tested(number);
        self.on(decided(number, true));
    }

    /// Up to the end of what its rollout does by itself.
    fn roll(&mut self) {
        while let Some(number) = self.train.rollout {
            let rollout = &self.rollouts[&number];
            let ack = RolloutEvent::TrafficAcknowledged {
                intent: rollout.intent,
                canary: RevisionStats::default(),
                stable: RevisionStats::default(),
            };
            let next = match rollout.state {
                RolloutState::Starting => RolloutEvent::RevisionHealthy,
                RolloutState::Shifting { .. } | RolloutState::RollingBack { .. } => ack,
                RolloutState::Draining | RolloutState::DrainingBack { .. } => RolloutEvent::Drained,
                _ => return,
            };
            self.on(rollout_on(number, next));
        }
    }

    /// A release that is live.
    fn live(&mut self) -> u32 {
        let number = self.push();
        self.approved(number);
        self.promoted(number);
        self.roll();
        assert_eq!(self.train.live, Some(number));
        number
    }

    /// A release whose canary holds its first share.
    fn holding(&mut self) -> u32 {
        let steps = vec![CanaryStep { weight_percent: 10, hold_ms: 60_000 }];
        let number = self.push_with(Strategy::Canary { steps });
        self.approved(number);
        self.promoted(number);
        self.roll();
        assert_eq!(self.running().state.word(), "holding");
        number
    }

    fn running(&self) -> &Rollout {
        &self.rollouts[&self.train.rollout.expect("no rollout runs")]
    }
}

fn run(number: u32, event: RunEvent) -> Event {
    Event::Run { number, event }
}

fn release(number: u32, event: ReleaseEvent) -> Event {
    Event::Release { number, event }
}

fn approval(number: u32, event: ApprovalEvent) -> Event {
    Event::Approval { number, event }
}

fn rollout_on(number: u32, event: RolloutEvent) -> Event {
    Event::Rollout { number, event }
}

fn boss() -> Actor {
    Actor::Account { name: "boss".into(), email: "boss@example.com".into() }
}

fn decided(number: u32, approve: bool) -> Event {
    let comment = "so be it".into();
    approval(number, ApprovalEvent::Decided { actor: boss(), digest: digest(number), approve, comment })
}

fn claim(number: u32) -> Event {
    approval(number, ApprovalEvent::Claimed { actor: Actor::Tester { email: QA.into() } })
}

fn unclaim(number: u32) -> Event {
    approval(number, ApprovalEvent::Unclaimed { actor: Actor::Tester { email: QA.into() } })
}

fn rollback(to: u32) -> Event {
    Event::Rollback { to, by: "ann".into(), reason: "500s".into() }
}

#[test]
fn one_release_goes_all_the_way_and_asks_for_each_station_once() {
    let mut line = Line::new();
    let number = line.start();
    assert_eq!(line.keys(), ["execute-run/shop/1", "expire-lease/shop/1"]);
    line.finish(number, Strategy::Rolling);
    assert_eq!(line.keys(), ["deploy-test/shop/1"]);
    line.tested(number);
    let mails = ["send-approval-mail/shop/1/1/dev@example.com", "send-approval-mail/shop/1/1/qa@example.com"];
    assert_eq!(line.keys(), [&["expire-approval/shop/1/1", "remind-testers/shop/1/1"], &mails[..]].concat());
    line.on(decided(number, true));
    // Who has not been asked by mail yet need not be asked any more.
    assert_eq!(line.keys(), ["promote/shop/1"]);
    line.promoted(number);
    assert_eq!(line.keys(), ["start-revision/shop/1"]);
    line.roll();
    assert_eq!((line.word(1), line.train.live, line.train.rollout), ("live", Some(1), None));
    let second = line.live();
    assert_eq!((line.word(1), line.word(second)), ("retired", "live"));
}

#[test]
fn only_the_release_branch_and_tags_make_a_release() {
    for (git_ref, from_fork, releases) in
        [("refs/heads/main", false, true), ("refs/tags/v1", false, true), ("refs/heads/side", false, false)]
    {
        let mut line = Line::new();
        let trigger = Trigger { git_ref: git_ref.into(), from_fork, ..trigger(1) };
        line.on(Event::Triggered { trigger, rerun_of: None, hold: HoldBounds::default() });
        line.on(run(1, leased()));
        line.finish(1, Strategy::Rolling);
        assert_eq!(line.releases.contains_key(&1), releases, "{git_ref}");
    }
    let mut line = Line::new();
    line.fork(1, 7);
    assert_eq!(line.keys(), ["expire-hold/shop/1", "inspect-run/shop/1"]);
}

#[test]
fn a_pull_request_of_a_fork_runs_only_when_a_person_allows_it_and_makes_no_release() {
    let mut line = Line::new();
    line.fork(1, 7);
    assert!(line.refused(&run(1, leased())).contains("held"));
    line.on(run(1, RunEvent::Allowed { by: "ann".into() }));
    assert_eq!((line.keys(), line.train.held.as_slice()), (vec!["execute-run/shop/1"], [].as_slice()));
    line.on(run(1, leased()));
    let plan = Box::new(plan(Strategy::Rolling));
    line.on(run(1, reported(Report::Prepared { steps: vec![], plan, releases: true })));
    line.refused(&run(1, reported(succeeded(1))));
    line.on(run(1, reported(Report::Passed)));
    assert!(line.pending.is_empty() && line.releases.is_empty());
}

#[test]
fn a_held_run_ends_when_it_is_declined_its_time_is_over_its_pull_request_moves_or_too_many_wait() {
    let state = |line: &Line, number: u32| line.runs[&number].state.word();
    let mut line = Line::new();
    line.fork(1, 7);
    line.fork(2, 8);
    // The same pull request once more; an allowed run of it goes on.
    line.fork(3, 7);
    assert_eq!((state(&line, 1), state(&line, 2), state(&line, 3)), ("declined", "held", "held"));
    line.on(run(2, RunEvent::Declined { by: "ann".into(), reason: "odd".into() }));
    line.on(run(3, RunEvent::HoldEnded { end: HoldEnd::Expired }));
    assert!(line.pending.is_empty() && line.train.held.is_empty());
    let max = HoldBounds::default().runs_max;
    for number in 4..=4 + max {
        line.fork(number, u64::from(number));
    }
    assert_eq!((state(&line, 4), state(&line, 5)), ("declined", "held"));
    assert_eq!(line.train.held.len(), max as usize);
    line.refused(&run(4, RunEvent::Allowed { by: "ann".into() }));
}

#[test]
fn a_claimed_release_keeps_the_environment_and_only_the_newest_waits() {
    for how in ["approved", "rejected", "expired", "unclaimed"] {
        let mut line = Line::new();
        let first = line.push();
        line.tested(first);
        line.on(claim(first));
        let (second, third) = (line.push(), line.push());
        assert_eq!(line.word(first), "awaiting_approval");
        assert_eq!(line.releases[&second].state, ReleaseState::Superseded { by: third });
        assert_eq!(line.releases[&third].state, ReleaseState::WaitingForTest { behind: first });
        assert!(!line.keys().iter().any(|key| key.starts_with("deploy-test")));
        match how {
            "approved" => line.on(decided(first, true)),
            "rejected" => line.on(decided(first, false)),
            "unclaimed" => line.on(unclaim(first)),
            _ => {
                line.now = UnixMs(1_000 + HOUR_MS);
                line.on(approval(first, ApprovalEvent::Expired { round: 1 }));
            }
        }
        // What nobody holds any more gives way to what waited.
        let expected = match how {
            "approved" => "promoting",
            "rejected" => "rejected",
            _ => "superseded",
        };
        assert_eq!((line.word(first), line.word(third)), (expected, "deploying_test"), "{how}");
        assert!(line.is_pending("deploy-test/shop/3") && !line.is_pending("expire-approval/shop/1/1"), "{how}");
        assert_eq!((line.train.testing, line.train.test_next), (Some(third), None));
    }
}

#[test]
fn an_unclaimed_release_is_superseded_wherever_it_stands_before_its_decision() {
    for station in ["deploying", "awaiting", "expired", "deploying again"] {
        let mut line = Line::new();
        let first = line.push();
        if station != "deploying" {
            line.tested(first);
        }
        if matches!(station, "expired" | "deploying again") {
            line.now = line.now.plus_ms(HOUR_MS);
            line.on(approval(first, ApprovalEvent::Expired { round: 1 }));
        }
        if station == "deploying again" {
            line.on(Event::AskAgain { number: first, by: "ann".into() });
        }
        let second = line.push();
        assert_eq!(line.releases[&first].state, ReleaseState::Superseded { by: second }, "{station}");
        let state = line.approvals.get(&first).map(|approval| approval.state.clone());
        assert_eq!(state, (station != "deploying").then_some(ApprovalState::Superseded { by: second }), "{station}");
        assert_eq!(line.keys(), ["deploy-test/shop/2"], "{station}");
    }
}

#[test]
fn a_store_that_cannot_be_read_leaves_no_half_superseded_release() {
    let mut line = Line::new();
    let first = line.push();
    line.tested(first);
    line.now = line.now.plus_ms(HOUR_MS);
    line.on(approval(first, ApprovalEvent::Expired { round: 1 }));
    let second = line.start();
    let prepared = Report::Prepared { steps: vec![], plan: Box::new(plan(Strategy::Rolling)), releases: true };
    for report in [Report::CheckedOut { commit: commit(second) }, prepared] {
        line.on(run(second, reported(report)));
    }
    line.approvals_broken = true;
    let why = line.refused(&run(second, reported(succeeded(second))));
    assert!(why.contains("could not be read"), "{why}");
}

#[test]
fn an_older_run_that_ends_later_pushes_nothing_aside() {
    let mut line = Line::new();
    let (old, new) = (line.start(), line.start());
    line.finish(new, Strategy::Rolling);
    line.finish(old, Strategy::Rolling);
    assert_eq!(line.releases[&old].state, ReleaseState::Superseded { by: new });
    assert_eq!((line.word(new), line.train.testing), ("deploying_test", Some(new)));
}

#[test]
fn a_release_that_does_not_come_up_in_test_frees_the_environment() {
    let mut line = Line::new();
    let first = line.push();
    line.done("deploy-test/shop/1");
    line.on(release(first, ReleaseEvent::TestUnhealthy { reason: "no answer".into() }));
    assert_eq!((line.word(first), line.train.in_test), ("test_failed", None));
    let second = line.push();
    assert_eq!((line.word(first), line.word(second)), ("test_failed", "deploying_test"));
}

#[test]
fn an_older_promotion_that_ends_later_never_overtakes() {
    let mut line = Line::new();
    let old = line.push();
    line.approved(old);
    let new = line.push();
    line.approved(new);
    line.promoted(new);
    line.promoted(old);
    assert_eq!(line.releases[&old].state, ReleaseState::Superseded { by: new });
    line.roll();
    assert_eq!(line.train.live, Some(new));
}

#[test]
fn approved_releases_wait_for_a_running_rollout_and_only_the_newest_is_kept() {
    let mut line = Line::new();
    line.live();
    let moving = line.holding();
    let (second, third) = (line.push(), 4);
    line.approved(second);
    line.promoted(second);
    assert_eq!(line.word(second), "waiting_for_rollout");
    line.push();
    line.approved(third);
    line.promoted(third);
    assert_eq!(line.releases[&second].state, ReleaseState::Superseded { by: third });
    assert!(matches!(line.approvals[&second].state, ApprovalState::Approved { .. }));
    let running = line.train.rollout.unwrap();
    line.on(rollout_on(running, RolloutEvent::Promote { by: "ann".into(), fully: true }));
    line.roll();
    assert_eq!((line.word(moving), line.word(third), line.train.live), ("retired", "live", Some(third)));
}

#[test]
fn replace_sends_the_traffic_back_first() {
    let mut line = Line::new();
    let by = || "ann".to_owned();
    assert!(line.refused(&Event::Replace { by: by() }).contains("waits"));
    let first = line.live();
    let moving = line.holding();
    assert!(line.refused(&Event::Replace { by: by() }).contains("waits"));
    let next = line.push();
    line.approved(next);
    line.promoted(next);
    line.on(Event::Replace { by: by() });
    assert_eq!(line.running().wanted_percent(), 0);
    assert!(line.refused(&Event::Replace { by: by() }).contains("rolling_back"));
    line.roll();
    assert_eq!((line.word(moving), line.word(first), line.word(next)), ("rolled_back", "retired", "live"));
}

#[test]
fn a_rollback_comes_about_in_every_state_of_a_running_rollout() {
    for stop in ["starting", "shifting", "holding", "draining", "rolling_back", "draining_back"] {
        let mut line = Line::new();
        let (oldest, stable) = (line.live(), line.live());
        let moving = line.holding();
        let number = line.train.rollout.unwrap();
        // Taken back to the state in question; its containers and traffic are the simulator's matter.
        let why = || "why".to_owned();
        let state = match stop {
            "starting" => RolloutState::Starting,
            "shifting" => RolloutState::Shifting { stage: 0 },
            "draining" => RolloutState::Draining,
            "rolling_back" => RolloutState::RollingBack { reason: why() },
            "draining_back" => RolloutState::DrainingBack { reason: why() },
            _ => line.running().state.clone(),
        };
        line.rollouts.get_mut(&number).unwrap().state = state;
        line.on(rollback(oldest));
        line.roll();
        assert_eq!(line.train.live, Some(oldest), "{stop}");
        assert_eq!((line.word(oldest), line.word(stable) == "live"), ("live", false), "{stop}");
        assert_ne!(line.word(moving), "rolling_out", "{stop}");
        assert_eq!((line.train.rollback_next.is_none(), line.train.rollout), (true, None), "{stop}");
    }
}

#[test]
fn a_rollback_is_refused_where_it_makes_no_sense_and_wins_over_a_newer_release() {
    let mut line = Line::new();
    let (first, second) = (line.live(), line.live());
    assert!(line.refused(&rollback(second)).contains("live already"));
    assert!(line.refused(&rollback(77)).contains("there is no release"));
    let moving = line.holding();
    assert!(line.refused(&rollback(moving)).contains("never live"));
    let newer = line.push();
    line.approved(newer);
    line.promoted(newer);
    line.on(rollback(first));
    // Back to the stable revision, then to the one that was asked for; the newer one goes on afterwards.
    let order: Vec<u32> = std::iter::from_fn(|| {
        let number = line.train.rollout?;
        while line.train.rollout == Some(number) {
            let rollout = &line.rollouts[&number];
            let next = match rollout.state {
                RolloutState::Starting => RolloutEvent::RevisionHealthy,
                RolloutState::Draining | RolloutState::DrainingBack { .. } => RolloutEvent::Drained,
                _ => RolloutEvent::TrafficAcknowledged {
                    intent: rollout.intent,
                    canary: RevisionStats::default(),
                    stable: RevisionStats::default(),
                },
            };
            line.on(rollout_on(number, next));
        }
        line.train.live
    })
    .collect();
    assert_eq!(order, [second, first, newer]);
}

#[test]
fn a_rollback_to_what_is_on_its_way_back_is_not_lost() {
    let mut line = Line::new();
    let (first, second) = (line.live(), line.live());
    line.on(rollback(first));
    assert!(line.refused(&rollback(first)).contains("moving to release 1 already"));
    let running = line.train.rollout.unwrap();
    line.on(rollout_on(running, RolloutEvent::Abort { by: "ann".into(), reason: String::new() }));
    line.on(rollback(first));
    line.roll();
    assert_eq!((line.train.live, line.word(second)), (Some(first), "rolled_back"));
}

#[test]
fn an_expired_release_can_be_asked_for_again_as_long_as_it_is_the_newest() {
    let mut line = Line::new();
    let first = line.push();
    let again = |number| Event::AskAgain { number, by: "ann".into() };
    assert!(line.refused(&again(first)).contains("deploying_test"));
    line.tested(first);
    line.now = line.now.plus_ms(HOUR_MS);
    line.on(approval(first, ApprovalEvent::Expired { round: 1 }));
    line.on(again(first));
    assert!(line.refused(&again(first)).contains("deploying_test"));
    line.tested(first);
    let open = &line.approvals[&first];
    assert_eq!((open.round, open.state.word(), open.expires_at), (2, "open", line.now.plus_ms(HOUR_MS)));
    assert!(line.is_pending("send-approval-mail/shop/1/2/qa@example.com"));
    assert!(line.refused(&approval(first, ApprovalEvent::Expired { round: 1 })).contains("cannot take"));
    let second = line.push();
    line.done("deploy-test/shop/2");
    line.on(release(second, ReleaseEvent::TestUnhealthy { reason: "no".into() }));
    assert!(line.refused(&again(first)).contains("not the newest"));
}

#[test]
fn a_timer_that_fires_early_is_set_again() {
    let mut line = Line::new();
    let first = line.push();
    line.tested(first);
    line.on(claim(first));
    // The clock was set back between the look at it and the event.
    line.done("expire-approval/shop/1/1");
    line.now = UnixMs(0);
    line.on(approval(first, ApprovalEvent::Expired { round: 1 }));
    assert_eq!(line.word(first), "awaiting_approval");
    line.now = UnixMs(1_000 + HOUR_MS);
    line.done("expire-approval/shop/1/1");
    line.on(approval(first, ApprovalEvent::Expired { round: 1 }));
    assert_eq!(line.word(first), "expired");
}

#[test]
fn a_wish_for_a_code_is_mailed_and_a_wrong_one_only_counted() {
    let mut line = Line::new();
    let first = line.push();
    line.tested(first);
    for serial in 1..=2 {
        line.on(approval(first, ApprovalEvent::CodeRequested { tester: QA.into() }));
        assert!(line.is_pending(&format!("send-code-mail/shop/1/1/{serial}/{QA}")));
    }
    let before = line.pending.clone();
    line.on(approval(first, ApprovalEvent::WrongCode { tester: QA.into() }));
    assert_eq!((line.approvals[&first].link(QA).wrong_codes, line.pending), (1, before));
}

#[test]
fn what_follows_from_another_machine_is_refused_when_it_comes_alone() {
    let mut line = Line::new();
    let first = line.push();
    line.tested(first);
    line.now = line.now.plus_ms(HOUR_MS);
    let alone = [
        release(first, ReleaseEvent::TestFreed),
        release(first, ReleaseEvent::Approved { by: "eve".into() }),
        release(first, ReleaseEvent::Superseded { by: 9 }),
        release(first, ReleaseEvent::RolloutStarted),
        release(first, ReleaseEvent::RolloutCompleted),
        release(first, ReleaseEvent::Retired { by: 9 }),
        approval(first, ApprovalEvent::Superseded { by: 9 }),
        approval(first, ApprovalEvent::Reopened { expires_at: UnixMs(9) }),
        run(44, leased()),
        approval(44, ApprovalEvent::Expired { round: 1 }),
        rollout_on(44, RolloutEvent::Drained),
        release(44, ReleaseEvent::TestHealthy),
    ];
    for event in &alone {
        line.refused(event);
    }
}

#[test]
fn a_changed_state_is_noted_and_a_quiet_look_is_not() {
    let mut line = Line::new();
    line.live();
    line.holding();
    let number = line.train.rollout.unwrap();
    let looked =
        RolloutEvent::Measured { stage: 0, canary: RevisionStats::default(), stable: RevisionStats::default() };
    assert_eq!(line.try_on(&rollout_on(number, looked)).unwrap(), []);
    let paused = line.try_on(&rollout_on(number, RolloutEvent::Pause { by: "ann".into() })).unwrap();
    assert_eq!(paused[0].change, Some(("holding", "paused")));
    let repeat = line.try_on(&rollout_on(number, RolloutEvent::Pause { by: "ann".into() })).unwrap();
    assert_eq!(repeat, []);
}

#[test]
fn production_traffic_sums_to_a_hundred_in_every_state() {
    let mut line = Line::new();
    assert_eq!(production_traffic(None, None), ProductionTraffic::default());
    let first = line.live();
    let live = line.releases[&first].clone();
    let moving = line.holding();
    let why = || "why".to_owned();
    let holding = line.running().state.clone();
    let cases = [
        (RolloutState::Starting, vec![(first, 100)]),
        (RolloutState::Shifting { stage: 0 }, vec![(first, 90), (moving, 10)]),
        (holding, vec![(first, 90), (moving, 10)]),
        (RolloutState::Shifting { stage: 1 }, vec![(moving, 100)]),
        (RolloutState::Draining, vec![(moving, 100)]),
        (RolloutState::RollingBack { reason: why() }, vec![(first, 100)]),
        (RolloutState::DrainingBack { reason: why() }, vec![(first, 100)]),
        (RolloutState::RolledBack { reason: why() }, vec![(first, 100)]),
    ];
    for (state, expected) in cases {
        let rollout = Rollout { state, ..line.running().clone() };
        let traffic = production_traffic(Some(&live), Some(&rollout));
        let shares: Vec<(u32, u8)> = traffic.shares.iter().map(|(number, _, share)| (*number, *share)).collect();
        assert_eq!((shares, traffic.preview), (expected, None), "{}", rollout.state.word());
    }
    assert_eq!(release_id(first).revision(&digest(first)), live.revision());
}

#[test]
fn a_run_that_a_runner_has_is_watched_and_one_that_waits_is_not() {
    let mut line = Line::new();
    let number = line.start();
    let (execute, watch) = (format!("execute-run/shop/{number}"), format!("expire-lease/shop/{number}"));
    assert!(line.is_pending(&execute) && line.is_pending(&watch));
    let due_at = |line: &Line| line.pending[&watch].due_at();
    let first = due_at(&line);
    line.now = line.now.plus_ms(1_000);
    // Taken again after a restart: it is watched already.
    line.on(run(number, leased()));
    assert_eq!(due_at(&line), first);
    line.done(&watch);
    line.on(run(number, RunEvent::RunnerLost { attempt: 1, lost_max: 3, reason: "was lost".into() }));
    assert!(line.is_pending(&execute) && !line.is_pending(&watch), "{:?}", line.keys());
    line.on(run(number, leased()));
    assert!(line.is_pending(&watch));
    line.on(run(number, RunEvent::CancelRequested { reason: String::new() }));
    assert!(line.is_pending(&watch), "until the runner confirms");
    let cancelled = RunEvent::Reported { runner: runner("a"), attempt: 2, report: Report::Cancelled };
    line.on(run(number, cancelled));
    assert!(!line.is_pending(&execute) && !line.is_pending(&watch), "{:?}", line.keys());
}
