//! The reason of the domain as the pages' sentence: for the person who reads it ("you" where it is them).

use pipelines::{
    approval::Approval,
    plan::Metric,
    why::{BackCause, FAULT_TRIES_BEFORE_A_PERSON, FailedCheck, Fault, Party as DomainParty, Why as DomainWhy},
};

use super::{is_mine, may_decide, page_ms, span};
use crate::{
    app::accounts::Caller,
    http::ui::why::{Against, Answer, FailedCheck as PageCheck, Figure, Limit, Measure, Party, Phase, Why},
};

/// Who reads a reason, and when.
#[derive(Clone, Copy)]
pub(in crate::http::pages) struct Reader<'a> {
    /// Who.
    pub caller: Option<&'a Caller>,
    /// The approval of the release that it is about.
    pub approval: Option<&'a Approval>,
    /// When.
    pub now_ms: i64,
}

impl Reader<'_> {
    /// The sentence of the run or release with this number.
    pub(in crate::http::pages) fn why(&self, number: u32, why: &DomainWhy) -> Why {
        let build = u64::from(number);
        let until_ms = |at: pipelines::time::UnixMs| page_ms(at);
        let in_ms = |at: pipelines::time::UnixMs| (page_ms(at) - self.now_ms).max(0);
        let release = |number: u32| number.to_string();
        match why.clone() {
            DomainWhy::NothingPushed => Why::NothingPushed,
            DomainWhy::RunHeld { reason } => Why::RunHeld { reason },
            DomainWhy::RunDeclined { reason } => Why::RunDeclined { reason: plain(&reason) },
            DomainWhy::RunQueued { position, of } => {
                Why::Queued { position: position as u64, of: of as u64, behind: None }
            }
            DomainWhy::NoRunner { labels } => Why::NoRunner { labels: labels.to_string() },
            DomainWhy::RunRunning { step, since, usual_ms } => Why::Running {
                phase: phase(step.as_deref()),
                elapsed_ms: (self.now_ms - page_ms(since)).max(0),
                usual_ms: usual_ms.map(span),
            },
            DomainWhy::RunCancelling { reason } => Why::Cancelling { reason },
            DomainWhy::RunCancelled { by, reason } => Why::RunCancelled { by, reason },
            DomainWhy::CodeFailed { step: Some(step), exit_code: Some(exit_code), .. } if step != "image" => {
                Why::StepFailed { step, exit_code, line: None, told: None }
            }
            DomainWhy::CodeFailed { step, reason, .. } => Why::CodeFailed { step, reason: plain(&reason) },
            DomainWhy::RunFault { step, reason } => Why::RunFault { step, reason: plain(&reason) },
            DomainWhy::NoRelease { ref_name } => Why::NoRelease { ref_name },
            DomainWhy::Fault(fault) => self.fault(&fault),
            DomainWhy::MailWaits { fault, to, others, .. } => {
                Why::MailWaits { to, others, answer: Answer::Said(fault.error), next_in_ms: in_ms(fault.next_at) }
            }
            DomainWhy::BehindClaim { release, by, until } => {
                Why::BehindClaim { build: u64::from(release), who: by, until_ms: until.map(until_ms) }
            }
            DomainWhy::DeployingToTest => Why::DeployingToTest { build },
            DomainWhy::UnhealthyInTest { reason, .. } => Why::UnhealthyInTest { detail: plain(&reason), told: None },
            DomainWhy::AwaitingDecision { testers, have, need, short, until } => {
                let until_ms = until_ms(until);
                match may_decide(self.approval, self.caller) {
                    true => Why::YouMayDecide { build, have, need, until_ms },
                    false if need > 1 => Why::MoreApprovals { have, need, testers, short, until_ms },
                    false => Why::TestersMayDecide { testers, short, until_ms },
                }
            }
            DomainWhy::Claimed { by, since, until } => {
                let (since_ms, until_ms) = (page_ms(since), page_ms(until));
                if self.caller.is_some_and(|caller| is_mine(&by, caller)) {
                    Why::YouAreTesting { build, since_ms, until_ms }
                } else {
                    Why::SomeoneIsTesting { who: by, since_ms, until_ms }
                }
            }
            DomainWhy::Rejected { by, at, comment } => Why::Rejected { by, at_ms: page_ms(at), comment },
            DomainWhy::Expired { at, have, need } => Why::Expired { at_ms: page_ms(at), have, need },
            DomainWhy::Superseded { release, by } => Why::Superseded { build: u64::from(release), by },
            DomainWhy::Promoting { bytes } => Why::Promoting { bytes },
            DomainWhy::WaitsForRollout { release: other } => Why::WaitsForRollout { version: other.map(release) },
            DomainWhy::Starting => Why::Starting,
            DomainWhy::Rolling { ready, of } => Why::Rolling { ready, of },
            DomainWhy::Canary { percent, step, of, next_percent, next_at } => Why::Canary {
                percent: u32::from(percent),
                step,
                of,
                next_percent: next_percent.map(u32::from),
                next_in_ms: next_at.map(in_ms),
            },
            DomainWhy::Preview { switches_at } => Why::Preview { switches_in_ms: switches_at.map(in_ms) },
            DomainWhy::Keeping { until } => Why::Keeping { until_ms: until.map(until_ms) },
            DomainWhy::TooFewRequests { have, need, until } => {
                Why::TooFewRequests { have, need, until_ms: until.map(until_ms) }
            }
            DomainWhy::Paused { by } => Why::Paused { by },
            DomainWhy::Draining => Why::Draining,
            DomainWhy::RollingBack { to, .. } => Why::RollingBack { to: to.map(release) },
            DomainWhy::RolledBack { reason, cause, to, at } => {
                rolled_back(&reason, cause, to.map(release), page_ms(at))
            }
            DomainWhy::Live { since } => Why::Live { version: release(number), since_ms: page_ms(since) },
            DomainWhy::Retired { release: other } => Why::Retired { version: release(other) },
        }
    }

    fn fault(&self, fault: &Fault) -> Why {
        let party = party(fault.party);
        let answer = Answer::Said(fault.error.clone());
        let next_in_ms = (page_ms(fault.next_at) - self.now_ms).max(0);
        if fault.tries >= FAULT_TRIES_BEFORE_A_PERSON {
            Why::FaultLasts { party, answer, attempts: fault.tries, next_in_ms }
        } else {
            Why::Fault { party, answer, attempt: fault.tries + 1, next_in_ms }
        }
    }
}

/// The part of a run that a step stands for.
pub(in crate::http::pages) fn phase(step: Option<&str>) -> Phase {
    match step {
        None | Some("checkout") => Phase::Checkout,
        Some("image") => Phase::Image,
        Some("push") => Phase::Push,
        Some(step) => Phase::Step(step.to_owned()),
    }
}

/// A reason to stand before a full stop.
fn plain(reason: &str) -> String {
    reason.trim().trim_end_matches('.').to_owned()
}

fn party(party: DomainParty) -> Party {
    match party {
        DomainParty::Git => Party::Git,
        DomainParty::Engine => Party::Engine,
        DomainParty::Mail => Party::Mail,
        DomainParty::Registries => Party::Registries,
        DomainParty::Gateway => Party::Gateway,
        DomainParty::Runner => Party::Runner,
        DomainParty::Store => Party::Store,
    }
}

fn rolled_back(reason: &str, cause: BackCause, to: Option<String>, at_ms: i64) -> Why {
    match cause {
        BackCause::Person { by } => Why::Aborted { by, to, at_ms },
        BackCause::Judge { percent, check, requests } => match failed(&check) {
            Some(failed) => Why::RolledBack { percent: u32::from(percent), failed, requests, to, at_ms },
            None => Why::RolloutFailed { detail: plain(reason), to, at_ms },
        },
        BackCause::Other => Why::RolloutFailed { detail: plain(reason), to, at_ms },
    }
}

fn failed(check: &FailedCheck) -> Option<PageCheck> {
    let measure = measure(&check.name)?;
    let value = figure(measure, check.value?);
    let against = match (check.limit, check.stable) {
        (Some(limit), _) => Against::Limit(limit_of(measure, limit)),
        (None, Some(stable)) => Against::Stable(figure(measure, stable)),
        (None, None) => return None,
    };
    Some(PageCheck { measure, value, against })
}

/// What a check of the judge measures, by its name.
pub(in crate::http::pages) fn measure(name: &str) -> Option<Measure> {
    Some(match name {
        "errors_vs_stable" => Measure::ErrorsAgainstStable,
        "latency_vs_stable" => Measure::LatencyAgainstStable,
        name if name == Metric::SuccessRate.word() => Measure::SuccessRate,
        name if name == Metric::LatencyP50.word() => Measure::LatencyP50,
        name if name == Metric::LatencyP95.word() => Measure::LatencyP95,
        name if name == Metric::LatencyP99.word() => Measure::LatencyP99,
        _ => return None,
    })
}

/// A figure in the unit of its measure.
pub(in crate::http::pages) fn figure(measure: Measure, value: f64) -> Figure {
    match measure {
        Measure::SuccessRate | Measure::ErrorsAgainstStable => Figure::Percent(value),
        _ => Figure::Ms(value),
    }
}

/// A fixed limit of a measure.
pub(in crate::http::pages) fn limit_of(measure: Measure, limit: f64) -> Limit {
    Limit { at_least: measure == Measure::SuccessRate, figure: figure(measure, limit) }
}
