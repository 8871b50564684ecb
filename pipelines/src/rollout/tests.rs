//! Every state of a rollout against every event, and whole rollouts of each strategy.

use super::*;
use crate::{
    ids::RolloutId,
    plan::{CanaryStep, Check, Metric},
    samples::{name, production, release_id, revision},
};

const STEP_MS: u64 = 60_000;

fn canary() -> Strategy {
    let step = |weight_percent| CanaryStep { weight_percent, hold_ms: STEP_MS };
    Strategy::Canary { steps: vec![step(10), step(50)] }
}

fn id() -> RolloutId {
    RolloutId::new(name(), 7)
}

fn begin_with(plan: ProductionPlan, stable: bool, cause: Cause) -> Rollout {
    let stable = stable.then(|| Stable { release: 1, revision: revision(1) });
    let new = NewRollout { id: id(), release: release_id(2), revision: revision(2), stable, cause, plan, replicas: 4 };
    let (rollout, effects) = Rollout::begin(new, UnixMs(0));
    assert_eq!(effects, [Effect::StartRevision { rollout: id() }]);
    rollout
}

fn begin(strategy: Strategy) -> Rollout {
    begin_with(production(strategy), true, Cause::Promotion)
}

fn stats(requests: u64, errors: u64) -> RevisionStats {
    RevisionStats { requests, errors, latency: vec![(10, requests), (u64::MAX, 0)] }
}

fn ack(intent: u32) -> RolloutEvent {
    RolloutEvent::TrafficAcknowledged { intent, canary: stats(0, 0), stable: stats(0, 0) }
}

fn measured(stage: usize, canary: RevisionStats, stable: RevisionStats) -> RolloutEvent {
    RolloutEvent::Measured { stage, canary, stable }
}

fn good(stage: usize) -> RolloutEvent {
    measured(stage, stats(100, 0), stats(900, 0))
}

fn bad(stage: usize) -> RolloutEvent {
    measured(stage, stats(100, 50), stats(900, 0))
}

fn by() -> String {
    "ann".into()
}

fn pause() -> RolloutEvent {
    RolloutEvent::Pause { by: by() }
}

fn resume() -> RolloutEvent {
    RolloutEvent::Resume { by: by() }
}

fn promote(fully: bool) -> RolloutEvent {
    RolloutEvent::Promote { by: by(), fully }
}

fn abort() -> RolloutEvent {
    RolloutEvent::Abort { by: by(), reason: "looks odd".into() }
}

fn go(rollout: &Rollout, event: &RolloutEvent, at_ms: u64) -> Rollout {
    rollout.transition(event, UnixMs(at_ms)).unwrap_or_else(|refusal| panic!("{refusal}")).0
}

/// Healthy, and every traffic intent acknowledged at once, until it holds or ends.
fn settle(mut rollout: Rollout, at_ms: u64) -> Rollout {
    loop {
        let event = match rollout.state {
            RolloutState::Starting => RolloutEvent::RevisionHealthy,
            RolloutState::Shifting { .. } | RolloutState::RollingBack { .. } => ack(rollout.intent),
            RolloutState::Draining | RolloutState::DrainingBack { .. } => RolloutEvent::Drained,
            RolloutState::Holding { .. } | RolloutState::Completed | RolloutState::RolledBack { .. } => return rollout,
        };
        rollout = go(&rollout, &event, at_ms);
    }
}

fn shares(rollout: &Rollout) -> Vec<u8> {
    rollout.shares.iter().map(|(_, percent)| *percent).collect()
}

fn states() -> Vec<(&'static str, RolloutState)> {
    use RolloutState as S;
    let holding = |paused| S::Holding { stage: 1, since: UnixMs(0), until: UnixMs(STEP_MS), paused };
    let why = || "why".to_owned();
    let all = vec![
        ("starting", S::Starting),
        ("shifting", S::Shifting { stage: 1 }),
        ("holding", holding(None)),
        ("paused", holding(Some(Pause::Person { by: by() }))),
        ("starved", holding(Some(Pause::Insufficient))),
        ("draining", S::Draining),
        ("completed", S::Completed),
        ("rolling back", S::RollingBack { reason: why() }),
        ("draining back", S::DrainingBack { reason: why() }),
        ("rolled back", S::RolledBack { reason: why() }),
    ];
    // A new state does not compile until it is listed above too.
    for (_, state) in &all {
        match state {
            S::Starting | S::Shifting { .. } | S::Holding { .. } | S::Draining | S::Completed => {}
            S::RollingBack { .. } | S::DrainingBack { .. } | S::RolledBack { .. } => {}
        }
    }
    all
}

fn events() -> Vec<(&'static str, RolloutEvent)> {
    vec![
        ("healthy", RolloutEvent::RevisionHealthy),
        ("unhealthy", RolloutEvent::RevisionUnhealthy { reason: "crashed".into() }),
        ("old ack", ack(4)),
        ("ack", ack(5)),
        ("unknown ack", ack(6)),
        ("good", good(1)),
        ("bad", bad(1)),
        ("bad elsewhere", bad(0)),
        ("drained", RolloutEvent::Drained),
        ("promote", promote(false)),
        ("promote fully", promote(true)),
        ("pause", pause()),
        ("resume", resume()),
        ("abort", abort()),
    ]
}

/// State, event, word of the state afterwards; what is not listed is refused. Old acknowledgements and metrics are
/// taken in every state and change nothing where they do not belong.
const MOVES: [(&str, &str, &str); 29] = [
    ("starting", "healthy", "shifting"),
    ("starting", "unhealthy", "rolling_back"),
    ("starting", "abort", "rolling_back"),
    ("shifting", "ack", "holding"),
    ("shifting", "abort", "rolling_back"),
    ("holding", "good", "shifting"),
    ("holding", "bad", "rolling_back"),
    ("holding", "bad elsewhere", "holding"),
    ("holding", "promote", "shifting"),
    ("holding", "promote fully", "shifting"),
    ("holding", "pause", "paused"),
    ("holding", "abort", "rolling_back"),
    ("paused", "good", "paused"),
    ("paused", "bad", "rolling_back"),
    ("paused", "promote", "shifting"),
    ("paused", "promote fully", "shifting"),
    ("paused", "pause", "paused"),
    ("paused", "resume", "holding"),
    ("paused", "abort", "rolling_back"),
    ("starved", "good", "paused"),
    ("starved", "bad", "rolling_back"),
    ("starved", "promote", "shifting"),
    ("starved", "promote fully", "shifting"),
    ("starved", "pause", "paused"),
    ("starved", "resume", "holding"),
    ("starved", "abort", "rolling_back"),
    ("draining", "drained", "completed"),
    ("rolling back", "ack", "draining_back"),
    ("draining back", "drained", "rolled_back"),
];

#[test]
fn every_event_moves_a_rollout_as_listed_or_is_refused() {
    for (from, state) in states() {
        let rollout = Rollout { state, intent: 5, ..begin(canary()) };
        for (on, event) in events() {
            let listed = MOVES.iter().find(|(state, name, _)| *state == from && *name == on).map(|found| found.2);
            let is_ignored = on == "old ack" || matches!(event, RolloutEvent::Measured { .. });
            let got = rollout.transition(&event, UnixMs(STEP_MS));
            match (listed, got) {
                (Some(word), Ok((next, _))) => assert_eq!(next.state.word(), word, "{from} on {on}"),
                (None, Ok((next, effects))) => {
                    assert!(is_ignored && next == rollout && effects.is_empty(), "{from} on {on} was not refused");
                }
                (listed, Err(_)) => assert!(listed.is_none() && !is_ignored, "{from} on {on} was refused"),
            }
        }
    }
}

#[test]
fn the_stages_of_each_strategy() {
    let stage = |weight_percent, hold_ms, judged| Stage { weight_percent, hold_ms, judged };
    let all = stage(100, 0, false);
    let blue_green = |keep_ms| Strategy::BlueGreen { preview_ms: 5, keep_ms };
    let cases = [
        (Strategy::Rolling, 1, vec![all]),
        (Strategy::Rolling, 3, vec![stage(33, 0, false), stage(66, 0, false), all]),
        (Strategy::Rolling, 0, vec![all]),
        (blue_green(0), 2, vec![stage(0, 5, false), all]),
        (blue_green(9), 2, vec![stage(0, 5, false), stage(100, 9, false)]),
        (canary(), 2, vec![stage(10, STEP_MS, true), stage(50, STEP_MS, true), all]),
        (Strategy::Canary { steps: vec![] }, 2, vec![all]),
    ];
    for (strategy, replicas, expected) in cases {
        let plan = production(strategy);
        assert_eq!(stages(&plan, replicas, true), expected, "{:?}", plan.strategy);
        assert_eq!(stages(&plan, replicas, false), [all]);
    }
    assert_eq!(stages(&production(Strategy::Rolling), 10_000, true).len(), 100);
    let mut plan = production(blue_green(9));
    plan.judge.checks.push(Check { metric: Metric::SuccessRate, limit: 99.0 });
    assert!(stages(&plan, 1, true)[1].judged);
}

#[test]
fn rolling_goes_share_by_share_and_never_holds() {
    let done = settle(begin(Strategy::Rolling), 1_000);
    assert_eq!((done.state.word(), shares(&done)), ("completed", vec![0, 25, 50, 75, 100]));
}

#[test]
fn without_a_stable_revision_all_traffic_comes_at_once_and_nothing_is_drained() {
    let first = begin_with(production(canary()), false, Cause::Promotion);
    let shifting = go(&first, &RolloutEvent::RevisionHealthy, 1);
    let (done, effects) = shifting.transition(&ack(1), UnixMs(2)).unwrap();
    assert_eq!((done.state.word(), shares(&done), effects), ("completed", vec![0, 100], vec![]));
}

#[test]
fn a_rollback_goes_in_one_step() {
    let cause = Cause::Rollback { by: by(), reason: "500s".into() };
    let done = settle(begin_with(production(canary()), true, cause), 1);
    assert_eq!((done.state.word(), shares(&done)), ("completed", vec![0, 100]));
}

#[test]
fn blue_green_shows_a_preview_switches_and_keeps_the_old_one() {
    let preview = settle(begin(Strategy::BlueGreen { preview_ms: 60_000, keep_ms: 90_000 }), 0);
    assert!(preview.wants_preview() && preview.wanted_percent() == 0 && preview.can_abort());
    let early = go(&preview, &measured(0, stats(0, 0), stats(0, 0)), 59_999);
    assert_eq!(early.stage(), Some(0));
    let kept = settle(go(&early, &measured(0, stats(0, 0), stats(0, 0)), 60_000), 60_000);
    assert_eq!((kept.state.word(), kept.weight_percent, kept.stage()), ("holding", 100, Some(1)));
    let back = settle(go(&kept, &abort(), 70_000), 70_000);
    assert_eq!((back.state.word(), shares(&back)), ("rolled_back", vec![0, 0, 100, 0]));
    let done = settle(go(&kept, &measured(1, stats(0, 0), stats(0, 0)), 150_000), 150_000);
    assert_eq!(done.state.word(), "completed");
}

#[test]
fn a_canary_passes_its_stages_one_by_one_on_their_own_figures() {
    let first = settle(begin(canary()), 0);
    assert_eq!((first.stage(), first.weight_percent), (Some(0), 10));
    let early = go(&first, &good(0), STEP_MS - 1);
    assert_eq!((early.stage(), early.samples.len()), (Some(0), 1));
    let shifting = go(&early, &good(0), STEP_MS);
    assert_eq!(shifting.state, RolloutState::Shifting { stage: 1 });
    // What was counted before the second share came into force is not judged again.
    let old = RolloutEvent::TrafficAcknowledged { intent: 2, canary: stats(100, 60), stable: stats(900, 0) };
    let second = go(&shifting, &old, STEP_MS);
    let done = settle(go(&second, &measured(1, stats(200, 60), stats(1_800, 0)), 2 * STEP_MS), 2 * STEP_MS);
    assert_eq!((done.state.word(), shares(&done)), ("completed", vec![0, 10, 50, 100]));
}

#[test]
fn a_fail_at_any_stage_rolls_back_also_while_paused() {
    for stage in 0..2 {
        for paused in [false, true] {
            let mut holding = settle(begin(canary()), 0);
            for passed in 0..stage {
                holding = settle(go(&holding, &good(passed), STEP_MS), STEP_MS);
            }
            if paused {
                holding = go(&holding, &pause(), STEP_MS);
            }
            let (back, effects) = holding.transition(&bad(stage), UnixMs(STEP_MS)).unwrap();
            assert_eq!(effects, [Effect::ApplyTraffic { rollout: id(), intent: back.intent }]);
            assert_eq!(back.wanted_percent(), 0);
            let (draining, effects) = back.transition(&ack(back.intent), UnixMs(STEP_MS)).unwrap();
            assert_eq!(effects, [Effect::DrainRevision { rollout: id(), revision: revision(2) }]);
            let end = go(&draining, &RolloutEvent::Drained, STEP_MS);
            let RolloutState::RolledBack { reason } = &end.state else { panic!("{:?}", end.state) };
            assert!(reason.contains("FAIL") && reason.contains("errors_vs_stable"), "{reason}");
        }
    }
}

#[test]
fn a_stage_without_requests_is_held_then_paused_and_only_a_person_goes_on() {
    let quiet = || measured(0, stats(3, 0), stats(900, 0));
    let holding = settle(begin(canary()), 0);
    let waiting = go(&holding, &quiet(), STEP_MS + 59_999);
    assert_eq!(waiting.state.word(), "holding");
    let (paused, effects) = waiting.transition(&quiet(), UnixMs(STEP_MS + 60_000)).unwrap();
    assert!(matches!(paused.state, RolloutState::Holding { paused: Some(Pause::Insufficient), .. }));
    assert_eq!(effects.len(), 1, "it is looked at further");
    assert_eq!(go(&paused, &good(0), 10 * STEP_MS).stage(), Some(0));
    let (resumed, effects) = paused.transition(&resume(), UnixMs(10 * STEP_MS)).unwrap();
    assert!(matches!(resumed.state, RolloutState::Holding { until: UnixMs(660_000), paused: None, .. }));
    assert!(matches!(effects[..], [Effect::Measure { stage: 0, .. }]));
    assert_eq!(go(&resumed, &good(0), 11 * STEP_MS).stage(), Some(1));
    assert_eq!(settle(go(&paused, &promote(true), STEP_MS), STEP_MS).state.word(), "completed");
}

#[test]
fn a_person_can_skip_to_the_end_and_finish_the_last_hold() {
    let first = settle(begin(canary()), 0);
    assert_eq!(go(&first, &promote(false), 5).state, RolloutState::Shifting { stage: 1 });
    assert_eq!(go(&first, &promote(true), 5).state, RolloutState::Shifting { stage: 2 });
    let preview = settle(begin(Strategy::BlueGreen { preview_ms: 60_000, keep_ms: 90_000 }), 0);
    let kept = settle(go(&preview, &promote(false), 5), 5);
    let (draining, effects) = kept.transition(&promote(false), UnixMs(6)).unwrap();
    assert_eq!(draining.state, RolloutState::Draining);
    assert_eq!(effects, [Effect::DrainRevision { rollout: id(), revision: revision(1) }]);
}

#[test]
fn an_abort_makes_older_acknowledgements_worthless() {
    let shifting = go(&begin(canary()), &RolloutEvent::RevisionHealthy, 1);
    let back = go(&shifting, &abort(), 2);
    let stale = go(&back, &ack(shifting.intent), 3);
    assert_eq!(stale, back);
    assert_eq!(go(&stale, &ack(back.intent), 4).state.word(), "draining_back");
}

#[test]
fn samples_are_bounded_and_the_newest_half_is_whole() {
    let mut rollout = go(&settle(begin(canary()), 0), &pause(), 0);
    for at_ms in 1..=3 * SAMPLES_MAX as u64 {
        rollout = go(&rollout, &good(0), at_ms);
        assert!(rollout.samples.len() <= SAMPLES_MAX);
    }
    let times: Vec<u64> = rollout.samples.iter().map(|sample| sample.at.0).collect();
    assert!(times.is_sorted());
    let newest = &times[times.len() - SAMPLES_MAX / 4..];
    assert!(newest.windows(2).all(|pair| pair[1] == pair[0] + 1), "{newest:?}");
}
