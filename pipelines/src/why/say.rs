//! The reason as one English sentence for API and command line: the cause, then the person and the next action.

use std::fmt;

use super::{FAULT_TRIES_BEFORE_A_PERSON, Fault, Party, Person, Why};
use crate::time::UnixMs;

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Git => "the repository",
            Self::Engine => "the container engine",
            Self::Mail => "the mail server",
            Self::Registries => "a registry",
            Self::Gateway => "the gateway",
            Self::Runner => "the runner",
            Self::Store => "the server's store",
        })
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Author(name) if name.is_empty() => f.write_str("the author"),
            Self::Author(name) | Self::Named(name) => f.write_str(name),
            Self::Testers(names) if names.is_empty() => f.write_str("a tester"),
            Self::Testers(names) => f.write_str(&names.join(" or ")),
            Self::Anyone => f.write_str("anybody"),
            Self::ReleaseManager => f.write_str("a release manager"),
            Self::Operator => f.write_str("an operator"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = self.next();
        let cause = self.cause();
        match (self.person(), next.is_empty()) {
            (_, true) => f.write_str(&cause),
            (Person::Nobody, false) => write!(f, "{cause}; {next}"),
            (person, false) => write!(f, "{cause}; {person} {next}"),
        }
    }
}

impl Why {
    /// What the person of [`Why::person`] does next, or what happens by itself; empty where nothing is to come.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::NothingPushed => "pushes to the release branch to start".into(),
            Self::RunHeld { .. } => "allows or declines it".into(),
            Self::RunDeclined { .. } => "can run it again, and then it is asked anew".into(),
            Self::RunQueued { .. } => "it starts as soon as a runner is free".into(),
            Self::NoRunner { .. } => "starts or registers one; the run then starts by itself".into(),
            Self::RunRunning { .. } => "it goes on by itself".into(),
            Self::RunCancelling { .. } => "it ends when the runner confirms".into(),
            Self::RunCancelled { .. } => "can run it again".into(),
            Self::CodeFailed { .. } => "corrects it and pushes again".into(),
            Self::RunFault { .. } => "looks at the infrastructure; then the run can be run again".into(),
            Self::NoRelease { .. } | Self::Live { .. } | Self::Retired { .. } => String::new(),
            Self::Fault(fault) if fault.tries >= FAULT_TRIES_BEFORE_A_PERSON => {
                format!("has to look; it is tried again at {}", utc(fault.next_at))
            }
            Self::Fault(fault) => format!("it is tried again at {}, nobody needs to act yet", utc(fault.next_at)),
            Self::MailWaits { fault, others, until, .. } => {
                let again = utc(fault.next_at);
                let meanwhile = if others.is_empty() {
                    "signed in, a tester can decide".to_owned()
                } else {
                    format!("{} can decide by {}", others.join(" or "), utc(*until))
                };
                format!("corrects the address or looks at the mail server, it is tried again at {again}; {meanwhile}")
            }
            Self::BehindClaim { by: Some(_), .. } => "decides first".into(),
            Self::BehindClaim { by: None, .. } => "it is next".into(),
            Self::DeployingToTest => "then the testers are mailed".into(),
            Self::UnhealthyInTest { .. } => "corrects it and pushes again".into(),
            Self::AwaitingDecision { short: true, testers, until, .. } if !testers.is_empty() => {
                format!("approves or rejects it by {}, and a release manager too", utc(*until))
            }
            Self::AwaitingDecision { until, .. } | Self::Claimed { until, .. } => {
                format!("approves or rejects it by {}", utc(*until))
            }
            Self::Rejected { .. } => "pushes a correction, which makes a new release".into(),
            Self::Expired { .. } => "can ask the testers again".into(),
            Self::Superseded { .. } => "look at that one".into(),
            Self::Promoting { .. } => "then it is rolled out".into(),
            Self::WaitsForRollout { .. } => "it follows, unless a release manager replaces the running one".into(),
            Self::Starting => "then it gets traffic".into(),
            Self::Rolling { .. } => "each container must be healthy before the next".into(),
            Self::Canary { next_percent, next_at, .. } => {
                let when = next_at.map_or_else(String::new, |at| format!(" at {}", utc(at)));
                match next_percent {
                    Some(percent) => format!("{percent} %{when} if every check passes"),
                    None => format!("all traffic{when} if every check passes"),
                }
            }
            Self::Preview { switches_at: Some(at) } => format!("traffic switches at {}", utc(*at)),
            Self::Preview { switches_at: None } => "traffic switches next".into(),
            Self::Keeping { until } => {
                let when = until.map_or_else(String::new, |at| format!(" until {}", utc(at)));
                format!("the old revision is kept ready{when}")
            }
            Self::TooFewRequests { until: Some(at), .. } => {
                format!("it holds until there are more, and asks a release manager at {}", utc(*at))
            }
            Self::TooFewRequests { until: None, .. } => "promotes one step or aborts".into(),
            Self::Paused { .. } => "resumes or aborts it".into(),
            Self::Draining => "then it is live".into(),
            Self::RollingBack { .. } => "the new revision stops when it is drained".into(),
            Self::RolledBack { .. } => "pushes a correction, which makes a new release".into(),
        }
    }

    fn cause(&self) -> String {
        match self {
            Self::NothingPushed => "nothing was pushed yet".into(),
            Self::RunHeld { reason } => format!("the run is held: {reason}"),
            Self::RunDeclined { reason } => format!("the run was not executed: {reason}"),
            Self::RunQueued { position, of } => format!("its run waits for a runner, {position} of {of}"),
            Self::NoRunner { labels } if labels.is_empty() => "its run waits, and no runner is there".into(),
            Self::NoRunner { labels } => format!("its run waits, and no runner has the labels {labels}"),
            Self::RunRunning { step: Some(step), .. } => format!("its run is at the step {step}"),
            Self::RunRunning { step: None, .. } => "its run is under way".into(),
            Self::RunCancelling { reason } => format!("its run is being stopped{}", said(reason)),
            Self::RunCancelled { by, reason } => {
                format!("{} stopped its run{}", by.as_deref().unwrap_or("somebody"), said(reason))
            }
            Self::CodeFailed { step, exit_code, reason, .. } => {
                let at = step.as_ref().map_or_else(String::new, |step| format!(" at the step {step}"));
                let code = exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                format!("the code failed{at}{code}{}", said(reason))
            }
            Self::RunFault { step, reason } => {
                let at = step.as_ref().map_or_else(String::new, |step| format!(" at the step {step}"));
                format!("the infrastructure failed, not the code{at}{}", said(reason))
            }
            Self::NoRelease { ref_name } => {
                format!("the run makes no release, because {ref_name} is neither the release branch nor a release tag")
            }
            Self::Fault(fault) => format!("the infrastructure is in the way, not the code: {}", fault_text(fault)),
            Self::MailWaits { fault, others, .. } if others.is_empty() => {
                format!("the testers' mail is not sent yet: {}", fault_text(fault))
            }
            Self::MailWaits { fault, to, .. } => {
                format!("the mail to {} is not sent yet: {}", to.join(" and "), fault_text(fault))
            }
            Self::BehindClaim { release, .. } => {
                format!("release {release} has the test environment and is being tested")
            }
            Self::DeployingToTest => "it is being deployed to the test environment".into(),
            Self::UnhealthyInTest { reason, .. } => {
                format!("it did not become healthy in the test environment{}", said(reason))
            }
            Self::AwaitingDecision { need: 0..=1, .. } => "it waits for a decision and nobody has claimed it".into(),
            Self::AwaitingDecision { testers, have, need, .. } => {
                let more = need.saturating_sub(*have);
                let asked = if testers.is_empty() { "nobody".to_owned() } else { testers.join(", ") };
                format!("it waits for {more} more of {need} approvals; asked: {asked}")
            }
            Self::Claimed { by, since, .. } => format!("{by} is testing it since {}", utc(*since)),
            Self::Rejected { by, at, comment } => format!("{by} rejected it at {}{}", utc(*at), said(comment)),
            Self::Expired { at, have: 0, .. } => format!("nobody decided until {}", utc(*at)),
            Self::Expired { at, have, need } => {
                format!("{have} of {need} had approved it when its time ended at {}", utc(*at))
            }
            Self::Superseded { release, by } => {
                let by = by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
                format!("release {release}{by} took its place")
            }
            Self::Promoting { bytes: Some((done, of)) } => {
                format!("it is being copied to the production registry, {done} of {of} bytes are there")
            }
            Self::Promoting { bytes: None } => "it is being copied to the production registry".into(),
            Self::WaitsForRollout { release: Some(release) } => {
                format!("release {release} is rolling out and is never overtaken")
            }
            Self::WaitsForRollout { release: None } => "another rollout runs and is never overtaken".into(),
            Self::Starting => "its containers are starting".into(),
            Self::Rolling { ready, of } => format!("it is rolling out, {ready} of {of} replaced"),
            Self::Canary { percent, step, of, .. } => format!("it has {percent} % of the traffic, step {step} of {of}"),
            Self::Preview { .. } => "its preview is up and it has no traffic yet".into(),
            Self::Keeping { .. } => "all traffic is on it".into(),
            Self::TooFewRequests { have, need, .. } => format!("too few requests to judge it, {have} of {need}"),
            Self::Paused { by } => format!("{by} paused its rollout"),
            Self::Draining => "all traffic is on it and the old revision finishes what it has".into(),
            Self::RollingBack { reason, to } => format!("traffic is going back{}{}", to_release(*to), said(reason)),
            Self::RolledBack { reason, to, at, .. } => {
                format!("traffic went back{} at {}{}", to_release(*to), utc(*at), said(reason))
            }
            Self::Live { since } => format!("it is live since {}", utc(*since)),
            Self::Retired { release } => format!("it was live until release {release} took over"),
        }
    }
}

fn said(reason: &str) -> String {
    if reason.trim().is_empty() { String::new() } else { format!(": {}", reason.trim().trim_end_matches('.')) }
}

fn to_release(to: Option<u32>) -> String {
    to.map_or_else(String::new, |to| format!(" to release {to}"))
}

fn fault_text(fault: &Fault) -> String {
    format!("{} said {:?} at try {}", fault.party, fault.error, fault.tries)
}

/// A moment as people read it who may be in any time zone.
fn utc(at: UnixMs) -> String {
    let moment = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| at.0.to_string(), |moment| moment.strftime("%Y-%m-%d %H:%M UTC").to_string())
}
