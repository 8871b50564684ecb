//! How one event moves a train: each machine's own transition, and what follows from it for the others. Everything is
//! gathered in one [`Change`]; nothing is stored here. What follows from approvals stands beside ([`approvals`]).

mod approvals;

use crate::{
    approval::{Approval, ApprovalEvent},
    effect::Effect,
    hold::{HoldBounds, HoldEnd},
    ids::{ReleaseId, RolloutId, RunId, ServiceName},
    protocol::Report,
    release::{Release, ReleaseEvent, ReleaseState},
    rollout::{Cause, NewRollout, Rollout, RolloutEvent, RolloutState, Stable},
    run::{Run, RunEvent, RunState},
    service::Service,
    time::UnixMs,
    train::{Change, IllegalTransition, Note, PendingRollback, Records, Refusal},
    trigger::Trigger,
};

pub(super) struct Step<'a> {
    pub(super) service: &'a Service,
    pub(super) records: &'a dyn Records,
    pub(super) at: UnixMs,
    pub(super) change: Change,
}

macro_rules! record {
    ($self:ident, $map:ident, $read:ident, $what:literal, $id:expr) => {{
        let id = $id;
        match $self.change.$map.get(&id.number) {
            Some(record) => Ok(record.clone()),
            None => $self.records.$read(&id)?.ok_or_else(|| Refusal::NotFound { what: $what, id: id.to_string() }),
        }
    }};
}

impl Step<'_> {
    fn name(&self) -> ServiceName {
        self.service.name.clone()
    }

    fn release_id(&self, number: u32) -> ReleaseId {
        ReleaseId::new(self.name(), number)
    }

    fn run(&self, number: u32) -> Result<Run, Refusal> {
        record!(self, runs, run, "run", RunId::new(self.name(), number))
    }

    fn release(&self, number: u32) -> Result<Release, Refusal> {
        record!(self, releases, release, "release", self.release_id(number))
    }

    fn approval(&self, number: u32) -> Result<Approval, Refusal> {
        record!(self, approvals, approval, "approval of release", self.release_id(number))
    }

    fn approval_if_any(&self, number: u32) -> Result<Option<Approval>, Refusal> {
        match self.approval(number) {
            Ok(approval) => Ok(Some(approval)),
            Err(Refusal::NotFound { .. }) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    fn rollout(&self, number: u32) -> Result<Rollout, Refusal> {
        record!(self, rollouts, rollout, "rollout", RolloutId::new(self.name(), number))
    }

    fn note(
        &mut self,
        subject: String,
        word: &'static str,
        change: Option<(&'static str, &'static str)>,
        detail: impl Into<String>,
    ) {
        self.change.notes.push(Note { subject, word, change, detail: detail.into() });
    }

    // Runs.

    pub(super) fn triggered(
        &mut self,
        trigger: &Trigger,
        rerun_of: Option<RunId>,
        hold: &HoldBounds,
    ) -> Result<(), Refusal> {
        let number = self.change.train.last_run + 1;
        self.change.train.last_run = number;
        let may_release = trigger.may_release(self.service.effective_release_branch());
        let run = Run::new(RunId::new(self.name(), number), trigger.clone(), may_release, rerun_of, self.at);
        self.change.ask.extend(run.first_effects(hold));
        let detail = format!("{} {} at {}", trigger.kind.word(), trigger.ref_name(), trigger.commit.short());
        self.note(format!("run {}", run.id), "run_created", None, detail);
        if matches!(run.state, RunState::Held { .. }) {
            self.make_room(trigger, number, hold)?;
            self.change.train.held.push(number);
        }
        self.change.runs.insert(number, run);
        Ok(())
    }

    /// A pull request that moved asks anew, and only so many wait.
    fn make_room(&mut self, trigger: &Trigger, number: u32, hold: &HoldBounds) -> Result<(), Refusal> {
        for waiting in self.change.train.held.clone() {
            if self.run(waiting)?.trigger.git_ref == trigger.git_ref {
                self.on_run(waiting, &RunEvent::HoldEnded { end: HoldEnd::Superseded { by: number } })?;
            }
        }
        let max = usize::try_from(hold.runs_max).unwrap_or(usize::MAX).max(1);
        while self.change.train.held.len() >= max {
            let oldest = self.change.train.held[0];
            self.on_run(oldest, &RunEvent::HoldEnded { end: HoldEnd::Crowded })?;
        }
        Ok(())
    }

    /// A held run was allowed, declined or stopped.
    fn end_hold(&mut self, run: &Run) {
        self.change.train.held.retain(|number| *number != run.id.number);
        self.change.withdraw.push(Effect::InspectRun { run: run.id.clone() }.key());
        self.change.withdraw.push(Effect::ExpireHold { run: run.id.clone(), due_at: self.at }.key());
        if run.state == RunState::Queued {
            self.change.ask.push(Effect::ExecuteRun { run: run.id.clone() });
        }
    }

    pub(super) fn on_run(&mut self, number: u32, event: &RunEvent) -> Result<(), Refusal> {
        let run = self.run(number)?;
        let next = run.transition(event, self.at)?;
        // Whoever takes their own run again is watched already.
        if let (RunEvent::Leased { lease_ms, .. }, Some((runner, attempt))) = (event, next.holder())
            && attempt != run.attempt
        {
            let (run, runner, due_at) = (run.id.clone(), runner.clone(), self.at.plus_ms(*lease_ms));
            self.change.ask.push(Effect::ExpireLease { run, runner, attempt, due_at });
        }
        if next == run {
            return Ok(());
        }
        if run.state.word() != next.state.word() {
            let detail = match &next.state {
                RunState::Failed { reason, .. } | RunState::Declined { reason } => reason.clone(),
                RunState::Queued if matches!(run.state, RunState::Held { .. }) => {
                    next.allowed_by.clone().unwrap_or_default()
                }
                RunState::Succeeded { digest } => digest.to_string(),
                RunState::Cancelled | RunState::Cancelling { .. } => next.cancel_reason.clone().unwrap_or_default(),
                RunState::Running { runner } => format!("{runner}, attempt {}", next.attempt),
                RunState::Queued => why_again(&run, event),
                _ => String::new(),
            };
            self.note(format!("run {}", run.id), event.word(), Some((run.state.word(), next.state.word())), detail);
        }
        if matches!(run.state, RunState::Held { .. }) && !matches!(next.state, RunState::Held { .. }) {
            self.end_hold(&next);
        }
        let has_runner = |state: &RunState| matches!(state, RunState::Running { .. } | RunState::Cancelling { .. });
        if let (true, false, Some((runner, attempt))) = (has_runner(&run.state), has_runner(&next.state), run.holder())
        {
            let (run, runner, due_at) = (run.id.clone(), runner.clone(), self.at);
            self.change.withdraw.push(Effect::ExpireLease { run, runner, attempt, due_at }.key());
        }
        if next.state.is_final() && !run.state.is_final() {
            self.change.withdraw.push(Effect::ExecuteRun { run: run.id.clone() }.key());
            if next.digest().is_some() && next.releases() {
                self.begin_release(&next)?;
            }
        }
        self.change.runs.insert(number, next);
        Ok(())
    }

    // The test environment.

    fn begin_release(&mut self, run: &Run) -> Result<(), Refusal> {
        let (Some(digest), Some(plan), Some(commit)) = (run.digest(), &run.plan, &run.commit) else { return Ok(()) };
        let number = run.id.number;
        let newest = self.change.train.newest_release;
        let mut release = Release {
            id: run.id.release(),
            digest: digest.clone(),
            tag: run.tag.clone().unwrap_or_default(),
            plan: plan.clone(),
            commit: commit.clone(),
            state: ReleaseState::DeployingTest,
            created_at: self.at,
            changed_at: self.at,
            tested_at: None,
            approved: None,
            promoted_at: None,
            live_at: None,
        };
        // An older commit whose run took longer must not push a newer one aside.
        if let Some(newer) = newest.filter(|newest| *newest > number) {
            release.state = ReleaseState::Superseded { by: newer };
        } else {
            self.change.train.newest_release = Some(number);
            match self.claimed_release()? {
                Some(claimed) => {
                    release.state = ReleaseState::WaitingForTest { behind: claimed };
                    if let Some(waiting) = self.change.train.test_next.replace(number) {
                        self.supersede(waiting, number)?;
                    }
                }
                None => {
                    self.free_test_for(number)?;
                    self.use_test_for(number);
                }
            }
        }
        self.note(
            format!("release {}", release.id),
            "release_began",
            Some(("", release.state.word())),
            digest.as_str(),
        );
        self.change.releases.insert(number, release);
        Ok(())
    }

    /// The release in the test environment that a tester has claimed and not decided.
    fn claimed_release(&self) -> Result<Option<u32>, Refusal> {
        let Some(testing) = self.change.train.testing else { return Ok(None) };
        if self.release(testing)?.state != ReleaseState::AwaitingApproval {
            return Ok(None);
        }
        Ok(self.approval(testing)?.claim.map(|_| testing))
    }

    /// Supersedes what stands undecided in the test environment.
    fn free_test_for(&mut self, number: u32) -> Result<(), Refusal> {
        let Some(testing) = self.change.train.testing else { return Ok(()) };
        match self.release(testing)?.state {
            ReleaseState::DeployingTest | ReleaseState::AwaitingApproval | ReleaseState::Expired => {
                self.supersede(testing, number)
            }
            _ => Ok(()),
        }
    }

    fn use_test_for(&mut self, number: u32) {
        self.change.train.testing = Some(number);
        self.change.ask.push(Effect::DeployTest { release: self.release_id(number) });
    }

    fn supersede(&mut self, number: u32, by: u32) -> Result<(), Refusal> {
        let release = self.release(number)?;
        let had_approval =
            !matches!(release.state, ReleaseState::WaitingForTest { .. } | ReleaseState::WaitingForRollout);
        self.move_release(&release, &ReleaseEvent::Superseded { by }, format!("by {by}"))?;
        self.change.withdraw.push(Effect::DeployTest { release: self.release_id(number) }.key());
        if had_approval && let Some(approval) = self.approval_if_any(number)? {
            let next = approval.transition(&ApprovalEvent::Superseded { by }, self.at)?;
            self.withdraw_approval_effects(&approval);
            self.change.approvals.insert(number, next);
        }
        Ok(())
    }

    /// After a decision: whoever waits behind the claim is next.
    fn next_to_test(&mut self) -> Result<(), Refusal> {
        if let Some(number) = self.change.train.test_next.take() {
            self.free_test_for(number)?;
            let release = self.release(number)?;
            self.move_release(&release, &ReleaseEvent::TestFreed, String::new())?;
            self.use_test_for(number);
        }
        Ok(())
    }

    // Releases.

    fn move_release(&mut self, release: &Release, event: &ReleaseEvent, detail: String) -> Result<Release, Refusal> {
        let next = release.transition(event, self.at)?;
        let change = Some((release.state.word(), next.state.word()));
        self.note(format!("release {}", release.id), event.word(), change, detail);
        self.change.releases.insert(release.id.number, next.clone());
        Ok(next)
    }

    pub(super) fn on_release(&mut self, number: u32, event: &ReleaseEvent) -> Result<(), Refusal> {
        let release = self.release(number)?;
        match event {
            ReleaseEvent::TestHealthy => {
                self.move_release(&release, event, String::new())?;
                self.change.train.in_test = Some(number);
                self.open_approval(&release)
            }
            ReleaseEvent::TestUnhealthy { reason } => {
                self.move_release(&release, event, reason.clone())?;
                self.next_to_test()
            }
            ReleaseEvent::Promoted { digest } => {
                let next = self.move_release(&release, event, digest.to_string())?;
                self.queue_rollout(&next)
            }
            // These follow from approvals and rollouts and never come alone.
            other => Err(IllegalTransition::new(&release.id, release.state.word(), other.word()).into()),
        }
    }

    pub(super) fn ask_again(&mut self, number: u32, by: &str) -> Result<(), Refusal> {
        let release = self.release(number)?;
        if self.change.train.newest_release != Some(number) {
            return Err(Refusal::NotNow(format!("release {number} is not the newest one; ask for that one")));
        }
        self.move_release(&release, &ReleaseEvent::AskedAgain, format!("by {by}"))?;
        self.use_test_for(number);
        Ok(())
    }

    // Rollouts.

    fn queue_rollout(&mut self, release: &Release) -> Result<(), Refusal> {
        let number = release.id.number;
        let overtaken_by =
            self.change.train.newest_rolled_out.max(self.change.train.rollout_next).filter(|n| *n > number);
        if let Some(by) = overtaken_by {
            return self.supersede(number, by);
        }
        if let Some(waiting) = self.change.train.rollout_next.replace(number) {
            self.supersede(waiting, number)?;
        }
        self.next_rollout()
    }

    /// Starts what waits, if nothing runs. A rollback that a person wants goes before a newer release.
    fn next_rollout(&mut self) -> Result<(), Refusal> {
        if self.change.train.rollout.is_some() {
            return Ok(());
        }
        if let Some(PendingRollback { to, by, reason }) = self.change.train.rollback_next.take() {
            // The rollout that just ended may have brought it back already.
            if self.change.train.live != Some(to) {
                return self.begin_rollout(to, Cause::Rollback { by, reason });
            }
        }
        match self.change.train.rollout_next.take() {
            Some(number) => self.begin_rollout(number, Cause::Promotion),
            None => Ok(()),
        }
    }

    fn begin_rollout(&mut self, number: u32, cause: Cause) -> Result<(), Refusal> {
        let release = self.release(number)?;
        let release = self.move_release(&release, &ReleaseEvent::RolloutStarted, String::new())?;
        let stable = match self.change.train.live {
            Some(live) => Some(Stable { release: live, revision: self.release(live)?.revision() }),
            None => None,
        };
        let rollout_number = self.change.train.last_rollout + 1;
        self.change.train.last_rollout = rollout_number;
        self.change.train.rollout = Some(rollout_number);
        if cause == Cause::Promotion {
            self.change.train.newest_rolled_out = self.change.train.newest_rolled_out.max(Some(number));
        }
        let (rollout, effects) = Rollout::begin(
            NewRollout {
                id: RolloutId::new(self.name(), rollout_number),
                release: release.id.clone(),
                revision: release.revision(),
                stable,
                cause,
                plan: release.plan.production.clone(),
                replicas: release.plan.deploy.replicas,
            },
            self.at,
        );
        let detail = format!("{} of release {}", rollout.plan.strategy.word(), number);
        self.note(format!("rollout {}", rollout.id), "rollout_began", None, detail);
        self.change.ask.extend(effects);
        self.change.rollouts.insert(rollout_number, rollout);
        Ok(())
    }

    pub(super) fn on_rollout(&mut self, number: u32, event: &RolloutEvent) -> Result<(), Refusal> {
        let rollout = self.rollout(number)?;
        let (next, effects) = rollout.transition(event, self.at)?;
        if next == rollout {
            return Ok(());
        }
        self.change.ask.extend(effects);
        // A look at the metrics is in the rollout's samples; the journal has what changed a state.
        let is_quiet = matches!(event, RolloutEvent::Measured { .. }) && rollout.state == next.state;
        if !is_quiet {
            let detail = match (&next.state, event) {
                (RolloutState::RollingBack { reason }, _) => reason.clone(),
                (_, RolloutEvent::Promote { by, .. } | RolloutEvent::Pause { by } | RolloutEvent::Resume { by }) => {
                    by.clone()
                }
                _ => format!("{} %", next.wanted_percent()),
            };
            let change = Some((rollout.state.word(), next.state.word()));
            self.note(format!("rollout {}", rollout.id), event.word(), change, detail);
        }
        if matches!(next.state, RolloutState::RollingBack { .. })
            && !matches!(rollout.state, RolloutState::RollingBack { .. })
        {
            self.change.withdraw.push(Effect::StartRevision { rollout: rollout.id.clone() }.key());
            self.change.withdraw.push(Effect::Measure { rollout: rollout.id.clone(), stage: 0, due_at: self.at }.key());
        }
        self.change.rollouts.insert(number, next.clone());
        if next.state.is_final() && !rollout.state.is_final() {
            self.end_rollout(&next)?;
        }
        Ok(())
    }

    fn end_rollout(&mut self, rollout: &Rollout) -> Result<(), Refusal> {
        let number = rollout.release.number;
        let release = self.release(number)?;
        match &rollout.state {
            RolloutState::RolledBack { reason } => {
                self.move_release(&release, &ReleaseEvent::RolledBack { reason: reason.clone() }, reason.clone())?;
            }
            _ => {
                self.move_release(&release, &ReleaseEvent::RolloutCompleted, String::new())?;
                if let Some(stable) = &rollout.stable {
                    let old = self.release(stable.release)?;
                    let event = match &rollout.cause {
                        Cause::Promotion => ReleaseEvent::Retired { by: number },
                        Cause::Rollback { by, reason } => {
                            ReleaseEvent::RolledBack { reason: format!("{by} went back to release {number}: {reason}") }
                        }
                    };
                    self.move_release(&old, &event, format!("release {number} took over"))?;
                }
                self.change.train.live = Some(number);
            }
        }
        self.change.train.rollout = None;
        self.next_rollout()
    }

    pub(super) fn rollback(&mut self, to: u32, by: &str, reason: &str) -> Result<(), Refusal> {
        let release = self.release(to)?;
        if !release.was_live() {
            return Err(Refusal::NotNow(format!(
                "release {to} was never live; only one that was can be rolled back to"
            )));
        }
        let pending = PendingRollback { to, by: by.to_owned(), reason: reason.trim().to_owned() };
        self.note(format!("release {}", release.id), "release_rollback_requested", None, format!("{by}: {reason}"));
        let Some(running) = self.change.train.rollout else {
            if self.change.train.live == Some(to) {
                return Err(Refusal::NotNow(format!("release {to} is live already")));
            }
            self.change.train.rollback_next = Some(pending);
            return self.next_rollout();
        };
        let rollout = self.rollout(running)?;
        let is_going_back =
            matches!(rollout.state, RolloutState::RollingBack { .. } | RolloutState::DrainingBack { .. });
        if rollout.release.number == to && !is_going_back {
            return Err(Refusal::NotNow(format!("traffic is moving to release {to} already")));
        }
        self.change.train.rollback_next = Some(pending);
        if rollout.can_abort() {
            let event = RolloutEvent::Abort { by: by.to_owned(), reason: format!("rollback to release {to}") };
            return self.on_rollout(running, &event);
        }
        Ok(())
    }

    pub(super) fn replace(&mut self, by: &str) -> Result<(), Refusal> {
        let Some(waiting) = self.change.train.rollout_next else {
            return Err(Refusal::NotNow("no approved release waits for this rollout's end".into()));
        };
        let Some(running) = self.change.train.rollout else {
            return Err(Refusal::NotNow("no rollout is running".into()));
        };
        let reason = format!("replaced by release {waiting}");
        self.on_rollout(running, &RolloutEvent::Abort { by: by.to_owned(), reason })
    }
}

/// Why a run that a runner had waits for one again.
fn why_again(run: &Run, event: &RunEvent) -> String {
    let runner = run.holder().map(|(runner, _)| runner.to_string()).unwrap_or_default();
    match event {
        RunEvent::RunnerLost { reason, .. } => format!("runner {runner} {reason}"),
        RunEvent::Reported { report: Report::Unfit { labels }, .. } => {
            format!("runner {runner} does not have the labels {labels}")
        }
        _ => String::new(),
    }
}
