//! A rollout as its page shows it: stairs, plots, the check table, and the verbs that it allows now.

use pipelines::{
    plan::Metric,
    rollout::{
        ABORTED_BY, MEASURE_EVERY_MAX_MS, MEASURE_EVERY_MIN_MS, Pause, Rollout, RolloutState as State, Sample,
        judge::{CheckResult, Outcome, RevisionStats, SIGNIFICANCE},
    },
};

use super::{
    page_ms, span,
    why::{figure, limit_of, measure},
};
use crate::{
    app::addresses,
    config::GatewaySettings,
    http::ui::{
        Disabled, Role,
        approval::Health,
        plot::{Plot, Sample as Point},
        rollout::{CheckNote, CheckRow, RolloutState, Verb, VerbButton, Verdict, WeightState, WeightStep},
        why::{Figure, Limit, Measure},
    },
};

/// Verdicts that the check table remembers.
const VERDICTS_MAX: usize = 8;
/// The figures that are plotted.
const PLOTTED: [(Metric, Measure); 4] = [
    (Metric::SuccessRate, Measure::SuccessRate),
    (Metric::LatencyP50, Measure::LatencyP50),
    (Metric::LatencyP95, Measure::LatencyP95),
    (Metric::LatencyP99, Measure::LatencyP99),
];

/// Where it stands.
pub(in crate::http::pages) fn state(rollout: &Rollout) -> RolloutState {
    match &rollout.state {
        State::Starting => RolloutState::Starting,
        State::Shifting { .. } | State::Draining | State::Holding { paused: None, .. } => RolloutState::Healthy,
        State::Holding { paused: Some(Pause::Person { .. }), .. } => RolloutState::Paused,
        State::Holding { paused: Some(Pause::Insufficient), .. } => RolloutState::Held,
        State::Completed => RolloutState::Done,
        State::RollingBack { .. } | State::DrainingBack { .. } => RolloutState::RollingBack,
        State::RolledBack { reason } if reason.starts_with(ABORTED_BY) => RolloutState::Aborted,
        State::RolledBack { .. } if rollout.judgement().is_some_and(|it| it.outcome == Outcome::Fail) => {
            RolloutState::RolledBack
        }
        State::RolledBack { .. } => RolloutState::Failed,
    }
}

/// The stage that it is in, fell back from, or has passed as the last one.
fn reached(rollout: &Rollout) -> Option<usize> {
    let highest = rollout.shares.iter().map(|(_, percent)| *percent).max().unwrap_or_default();
    match &rollout.state {
        State::Starting => None,
        State::Shifting { stage } | State::Holding { stage, .. } => Some(*stage),
        State::Draining | State::Completed => Some(rollout.stages.len()),
        State::RollingBack { .. } | State::DrainingBack { .. } | State::RolledBack { .. } => {
            rollout.stages.iter().rposition(|stage| stage.weight_percent > 0 && stage.weight_percent <= highest)
        }
    }
}

/// The stairs of weights.
pub(in crate::http::pages) fn steps(rollout: &Rollout, now_ms: i64) -> Vec<WeightStep> {
    let reached = reached(rollout);
    let goes_back = rollout.wanted_percent() == 0
        && !matches!(rollout.state, State::Starting | State::Shifting { .. })
        && !matches!(rollout.state, State::Holding { .. });
    let one = |(index, stage): (usize, &pipelines::rollout::Stage)| {
        let hold_ms = (stage.hold_ms > 0).then(|| span(stage.hold_ms));
        let state = match reached {
            Some(reached) if index < reached => WeightState::Passed { took_ms: took_ms(rollout, index, now_ms) },
            Some(reached) if index == reached && goes_back => WeightState::BackFrom,
            Some(reached) if index == reached => present(rollout, now_ms),
            _ => WeightState::NotYet { hold_ms },
        };
        WeightStep { percent: u32::from(stage.weight_percent), state }
    };
    rollout.stages.iter().enumerate().map(one).collect()
}

fn present(rollout: &Rollout, now_ms: i64) -> WeightState {
    match &rollout.state {
        State::Holding { paused: None, until, .. } => {
            WeightState::Now { left_ms: Some((page_ms(*until) - now_ms).max(0)) }
        }
        State::Holding { since, .. } => WeightState::Held { since_ms: page_ms(*since) },
        _ => WeightState::Now { left_ms: None },
    }
}

/// How long the share of a stage was in force.
fn took_ms(rollout: &Rollout, index: usize, now_ms: i64) -> i64 {
    let percent = rollout.stages.get(index).map_or(0, |stage| stage.weight_percent);
    let Some(at) = rollout.shares.iter().rposition(|(_, share)| *share == percent) else { return 0 };
    let end = rollout.shares.get(at + 1).map(|(at, _)| *at).or(rollout.finished_at);
    (end.map_or(now_ms, page_ms) - page_ms(rollout.shares[at].0)).max(0)
}

/// The address that shows the new revision before it has traffic. The stages begin only when it is healthy.
pub(in crate::http::pages) fn preview(rollout: &Rollout, gateway: &GatewaySettings) -> Option<(String, Health)> {
    let host = addresses::preview_host(gateway, &rollout.id.service);
    rollout.wants_preview().then(|| (format!("{}/", gateway.address(&host)), Health::Healthy))
}

/// What each look at the counters added to the one before it.
fn increments(rollout: &Rollout) -> Vec<(i64, RevisionStats, RevisionStats)> {
    let mut before: Option<&Sample> = None;
    let mut all = Vec::with_capacity(rollout.samples.len());
    for sample in &rollout.samples {
        let same = before.filter(|before| before.stage == sample.stage);
        let since =
            |now: &RevisionStats, was: Option<&RevisionStats>| was.map_or_else(|| now.clone(), |was| now.since(was));
        all.push((
            page_ms(sample.at),
            since(&sample.canary, same.map(|it| &it.canary)),
            since(&sample.stable, same.map(|it| &it.stable)),
        ));
        before = Some(sample);
    }
    all
}

/// The plots of what was measured; none where nothing is.
pub(in crate::http::pages) fn plots(rollout: &Rollout) -> Vec<Plot> {
    if !rollout.stages.iter().any(|stage| stage.judged) {
        return Vec::new();
    }
    let increments = increments(rollout);
    let marks: Vec<(i64, u32)> =
        rollout.shares.iter().skip(1).map(|(at, percent)| (page_ms(*at), u32::from(*percent))).collect();
    let plot = |(metric, measured): (Metric, Measure)| {
        let point =
            |at_ms: i64, stats: &RevisionStats| Point { at_ms, value: stats.value(metric), requests: stats.requests };
        let check = rollout.plan.judge.checks.iter().find(|check| check.metric == metric);
        Plot {
            measure: measured,
            canary: increments.iter().map(|(at, canary, _)| point(*at, canary)).collect(),
            stable: increments.iter().map(|(at, _, stable)| point(*at, stable)).collect(),
            limit: check.map(|check| limit_of(measured, check.limit)),
            marks: marks.clone(),
        }
    };
    PLOTTED.into_iter().map(plot).collect()
}

fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Pass => Verdict::Pass,
        Outcome::Fail => Verdict::Fail,
        Outcome::Insufficient => Verdict::Insufficient,
    }
}

/// The check table: what the judge said last, and before.
pub(in crate::http::pages) fn checks(rollout: &Rollout) -> Vec<CheckRow> {
    let Some(judgement) = rollout.judgement() else { return Vec::new() };
    judgement.checks.iter().filter_map(|check| row(rollout, check, judgement.requests)).collect()
}

fn row(rollout: &Rollout, check: &CheckResult, requests: u64) -> Option<CheckRow> {
    let measured = measure(&check.name)?;
    let need = rollout.plan.judge.min_requests;
    let verdicts = rollout.samples.iter().rev().take(VERDICTS_MAX).filter_map(|sample| {
        let said = sample.judgement.checks.iter().find(|said| said.name == check.name)?;
        Some(verdict(said.outcome))
    });
    let mut history: Vec<Verdict> = verdicts.collect();
    history.reverse();
    let note = match (check.outcome, check.p_value) {
        (Outcome::Insufficient, _) if check.value.is_none() => Some(CheckNote::NoData),
        (Outcome::Insufficient, _) => Some(CheckNote::TooFew { have: requests, need }),
        (Outcome::Pass, Some(p)) => Some(CheckNote::NoDifference { p }),
        (Outcome::Fail, Some(p)) => Some(CheckNote::Difference { p }),
        (_, None) => None,
    };
    Some(CheckRow {
        measure: measured,
        query: check.name.clone(),
        verdict: verdict(check.outcome),
        note,
        canary: check.value.map(|value| figure(measured, value)),
        stable: check.stable.map(|value| figure(measured, value)),
        limit: match check.limit {
            Some(limit) => limit_of(measured, limit),
            None => Limit { at_least: true, figure: Figure::Probability(SIGNIFICANCE) },
        },
        requests,
        history,
    })
}

/// The time between two looks at the counters.
pub(in crate::http::pages) fn judged_every_ms(rollout: &Rollout) -> i64 {
    let stage = rollout.stage().or_else(|| rollout.samples.last().map(|sample| sample.stage));
    let hold_ms = stage.and_then(|stage| rollout.stages.get(stage)).map_or(0, |stage| stage.hold_ms);
    span((hold_ms / 4).clamp(MEASURE_EVERY_MIN_MS, MEASURE_EVERY_MAX_MS))
}

/// Since when the present share is judged.
pub(in crate::http::pages) fn judged_since_ms(rollout: &Rollout) -> Option<i64> {
    match &rollout.state {
        State::Holding { since, .. } => Some(page_ms(*since)),
        _ => None,
    }
}

/// What can be done to it now; each that cannot says why.
pub(in crate::http::pages) fn verbs(rollout: &Rollout, waiting: Option<u32>, may: bool) -> Vec<VerbButton> {
    if rollout.state.is_final() || !rollout.can_abort() {
        return Vec::new();
    }
    let button = |verb, disabled: Option<Disabled>| {
        let disabled = if may { disabled } else { Some(Disabled::NotAllowed { role: Role::ReleaseManager }) };
        VerbButton { verb, disabled }
    };
    let mut verbs = Vec::new();
    if let State::Holding { stage, paused, .. } = &rollout.state {
        let is_paused = matches!(paused, Some(Pause::Person { .. }));
        let resume_first = is_paused.then_some(Disabled::PausedResumeFirst);
        if let Some(next) = rollout.stages.get(stage + 1) {
            verbs.push(button(Verb::Promote { to_percent: u32::from(next.weight_percent) }, resume_first));
        }
        verbs.push(button(Verb::PromoteFully, None));
        verbs.push(if is_paused {
            button(Verb::Resume, None)
        } else {
            button(Verb::Pause { at_percent: u32::from(rollout.weight_percent) }, None)
        });
    }
    verbs.push(button(Verb::Abort { to: rollout.stable.as_ref().map(|stable| stable.release.to_string()) }, None));
    if let Some(waiting) = waiting {
        verbs.push(button(Verb::Replace { by: waiting.to_string() }, None));
    }
    verbs
}
