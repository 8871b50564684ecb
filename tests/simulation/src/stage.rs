//! A train moved by hand, without chance: every effect is performed at once and goes well. From here come the records of
//! the tables in [`crate::machines`], so that nothing builds a record by its fields. Not here: what goes wrong.

use pipelines::{
    approval::{Actor, ApprovalEvent},
    plan::{CanaryStep, DeliveryPlan, JudgePolicy, Strategy},
    protocol::{CommitInfo, Report},
    release::ReleaseEvent,
    rollout::{RolloutEvent, judge::RevisionStats},
    run::RunEvent,
    time::UnixMs,
    train::Event,
    trigger::TriggerSource,
};

use crate::{
    drivers::trigger,
    sim::service,
    store::{Input, Store},
    world::{Commit, HOLD, RELEASE_REF, TESTERS, tag_of},
};

/// The runner of the stage.
pub(crate) const RUNNER: &str = "embedded";
/// When everything on the stage happens.
pub(crate) const NOW: UnixMs = UnixMs(2_000_000_000);
/// Who decides.
pub(crate) const QA: &str = TESTERS[2];

/// A train and where it stands.
#[derive(Clone)]
pub(crate) struct Stage(pub(crate) Store);

impl Stage {
    pub(crate) fn new() -> Self {
        Self(Store::new(service("shop", false), true))
    }

    /// Applies an event that fits.
    #[track_caller]
    pub(crate) fn on(mut self, event: Event) -> Self {
        let words = format!("{event:?}");
        if let Err(refusal) = self.0.apply(NOW, &Input::event(event)) {
            panic!("the stage is wrong: {words}: {refusal}");
        }
        self
    }

    /// A commit is pushed; its run waits.
    pub(crate) fn push(self) -> Self {
        let sha = format!("{:040x}", self.0.train.last_run + 1).parse().expect("a good commit");
        self.on(Event::Triggered {
            trigger: trigger(RELEASE_REF, &sha, TriggerSource::Hook),
            rerun_of: None,
            hold: HOLD,
        })
    }

    fn run_event(self, event: RunEvent) -> Self {
        let number = self.0.train.last_run;
        self.on(Event::Run { number, event })
    }

    /// The last run is taken.
    pub(crate) fn lease(self) -> Self {
        self.run_event(RunEvent::Leased { runner: RUNNER.parse().expect("a good name"), lease_ms: 60_000 })
    }

    /// The last run succeeds, and its release begins.
    pub(crate) fn build(self) -> Self {
        let (number, sha) = (self.0.train.last_run, self.0.runs[&self.0.train.last_run].trigger.commit.clone());
        let commit = CommitInfo {
            sha,
            message: "change".into(),
            author: "Dev".into(),
            author_email: "dev@example.com".into(),
            committed_at: UnixMs(0),
            changes: Vec::new(),
        };
        let digest = pipelines::ids::Digest::of(format!("image {number}").as_bytes());
        let reports = [
            Report::CheckedOut { commit },
            Report::Prepared { steps: vec!["test".into()], plan: Box::new(plan()), releases: true },
            Report::Succeeded { inputs: digest.clone(), digest, tag: tag_of(number), reused_from: None },
        ];
        let said = |report| RunEvent::Reported { runner: RUNNER.parse().expect("a good name"), attempt: 1, report };
        reports.into_iter().fold(self, |stage, report| stage.run_event(said(report)))
    }

    /// The newest release is healthy in test.
    pub(crate) fn deploy(self) -> Self {
        let number = self.0.train.testing.expect("a release is tested");
        self.on(Event::Release { number, event: ReleaseEvent::TestHealthy })
    }

    /// Nobody decides on the release that is tested.
    pub(crate) fn expire(mut self) -> Self {
        let number = self.0.train.testing.expect("a release is tested");
        let at = self.0.approvals[&number].expires_at;
        let event = ApprovalEvent::Expired { round: self.0.approvals[&number].round };
        let taken = self.0.apply(at, &Input::event(Event::Approval { number, event }));
        assert!(taken.is_ok(), "the stage is wrong: it does not expire");
        self
    }

    /// A tester has a code for the release that is tested.
    pub(crate) fn code(self) -> Self {
        let number = self.0.train.testing.expect("a release is tested");
        self.on(Event::Approval { number, event: ApprovalEvent::CodeRequested { tester: QA.into() } })
    }

    /// The release that is tested is approved and copied.
    pub(crate) fn approve(self) -> Self {
        let number = self.0.train.testing.expect("a release is tested");
        let digest = self.0.releases[&number].digest.clone();
        let actor = Actor::Account { name: "boss".into(), email: "boss@example.com".into() };
        let decided = ApprovalEvent::Decided { actor, digest: digest.clone(), approve: true, comment: String::new() };
        self.on(Event::Approval { number, event: decided })
            .on(Event::Release { number, event: ReleaseEvent::Promoted { digest } })
    }

    /// From a push to the begin of the rollout, or to the wait for one.
    pub(crate) fn release(self) -> Self {
        self.push().lease().build().deploy().approve()
    }

    /// The rollout that runs gets an event.
    pub(crate) fn rollout(self, event: RolloutEvent) -> Self {
        let number = self.0.train.rollout.expect("a rollout runs");
        self.on(Event::Rollout { number, event })
    }

    /// The intent that the rollout waits for is in force.
    pub(crate) fn acknowledge(self) -> Self {
        let intent = self.0.running().expect("a rollout runs").intent;
        self.rollout(acknowledged(intent))
    }

    /// The first release goes live: nothing is held, nothing drained.
    pub(crate) fn live(self) -> Self {
        self.release().rollout(RolloutEvent::RevisionHealthy).acknowledge()
    }
}

/// An acknowledgement.
pub(crate) fn acknowledged(intent: u32) -> RolloutEvent {
    RolloutEvent::TrafficAcknowledged { intent, canary: RevisionStats::default(), stable: RevisionStats::default() }
}

/// What some requests come to.
pub(crate) fn stats(requests: u64, errors: u64) -> RevisionStats {
    RevisionStats { requests, errors, latency: vec![(10, requests), (u64::MAX, 0)] }
}

fn plan() -> DeliveryPlan {
    let mut plan = Commit::new(&mut crate::rng::Rng::new(0)).plan;
    let step = |weight_percent| CanaryStep { weight_percent, hold_ms: 10_000 };
    plan.test.approvals = 1;
    plan.production.strategy = Strategy::Canary { steps: vec![step(10), step(50)] };
    plan.production.judge =
        JudgePolicy { checks: Vec::new(), compare_with_stable: true, min_requests: 20, insufficient_limit_ms: 10_000 };
    plan
}
