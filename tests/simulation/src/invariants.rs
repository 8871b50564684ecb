//! The promises, as they can be seen after every step and at rest.

use std::collections::{BTreeMap, BTreeSet};

use pipelines::{
    approval::{Approval, ApprovalState},
    effect::Effect,
    ids::{CommitSha, Environment},
    protocol::Blame,
    release::{Release, ReleaseState},
    rollout::{Cause, Rollout, RolloutState, SAMPLES_MAX},
    run::RunState,
    trigger::{SEEN_COMMITS_MAX, Trigger},
    why::{Person, ReleaseFacts, RunFacts, Why, why_release, why_run},
};

use crate::{
    people::ACCOUNTS,
    promise::{Promise, Violation},
    sim::Sim,
    world::{DEPUTIES, HOLD, RELEASE_REF, TESTERS},
};

/// What was seen after the step before.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    live: Option<u32>,
    claimed: Option<u32>,
    rollouts_seen: u32,
    rolled_out: BTreeSet<u32>,
    /// What was acknowledged: hooks, runs, decisions with whether it was a yes and by whom.
    deliveries: usize,
    runs: u32,
    decided: BTreeMap<u32, (bool, String)>,
}

macro_rules! promise {
    ($promise:ident: $holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(Violation::new(Promise::$promise, format!($($words)+)));
        }
    };
}

fn is_approved_or_later(state: &ReleaseState) -> bool {
    matches!(
        state,
        ReleaseState::Promoting
            | ReleaseState::WaitingForRollout
            | ReleaseState::RollingOut
            | ReleaseState::Live
            | ReleaseState::Retired { .. }
            | ReleaseState::RolledBack { .. }
    )
}

/// Whether it was a yes, and who said it.
fn decision(approval: &Approval) -> Option<(bool, String)> {
    match &approval.state {
        ApprovalState::Approved { decision } => Some((true, decision.by.clone())),
        ApprovalState::Rejected { decision } => Some((false, decision.by.clone())),
        _ => None,
    }
}

impl Sim {
    /// What holds at every moment.
    pub(crate) fn check(&mut self) -> Result<(), Violation> {
        self.check_rollouts()?;
        self.check_gateway()?;
        self.check_containers()?;
        for release in self.store.releases.values().filter(|release| is_approved_or_later(&release.state)) {
            self.check_approval(release)?;
        }
        self.check_strangers()?;
        self.check_images()?;
        self.check_someone_moves_it()?;
        self.check_test_environment()?;
        self.check_live_order()?;
        self.check_acknowledged()?;
        self.check_why()?;
        for (about, ids) in &self.world.mailbox {
            promise!(NothingTwice: ids.len() == 1, "the mail `{about}` came with {} Message-IDs", ids.len());
        }
        for (digest, copies) in &self.world.production_registry {
            promise!(NothingTwice: *copies == 1, "{} was promoted {copies} times", digest.short());
        }
        Ok(())
    }

    fn check_rollouts(&mut self) -> Result<(), Violation> {
        let open: Vec<&Rollout> = self.store.rollouts.values().filter(|rollout| !rollout.state.is_final()).collect();
        promise!(NothingTwice: open.len() <= 1, "{} rollouts at once", open.len());
        let running = open.first().map(|rollout| rollout.id.number);
        promise!(GoesOn: running == self.store.train.rollout, "the train says {:?} runs", self.store.train.rollout);
        while self.memory.rollouts_seen < self.store.train.last_rollout {
            self.memory.rollouts_seen += 1;
            let rollout = &self.store.rollouts[&self.memory.rollouts_seen];
            if rollout.cause == Cause::Promotion {
                let number = rollout.release.number;
                promise!(NothingTwice: self.memory.rolled_out.insert(number), "release {number} was rolled out twice");
            }
        }
        Ok(())
    }

    fn check_gateway(&self) -> Result<(), Violation> {
        let shares = &self.world.table.production;
        let sum: u32 = shares.iter().map(|(_, share)| u32::from(*share)).sum();
        promise!(NoRequestLost: sum == 100 || (sum == 0 && self.store.train.live.is_none()), "the shares sum to {sum}");
        for (revision, _) in
            shares.iter().chain(self.world.table.preview.as_ref().map(|preview| (preview.clone(), 0)).iter())
        {
            let found = self.world.containers.get(&(Environment::Production, revision.clone()));
            promise!(NoRequestLost: found.is_some(), "traffic goes to {revision}, which has no container");
        }
        Ok(())
    }

    fn check_containers(&self) -> Result<(), Violation> {
        for ((environment, revision), containers) in &self.world.containers {
            for (replica, made) in &containers.replicas {
                promise!(NothingTwice: *made == 1, "replica {replica} of {revision} was made {made} times");
            }
            let release = self.store.releases.values().find(|release| release.revision() == *revision);
            let Some(release) = release else {
                return Err(Violation::new(Promise::NothingLost, format!("{revision} is nobody's")));
            };
            promise!(Approved: release.digest == containers.digest, "{revision} runs another digest");
            if *environment == Environment::Production {
                promise!(Approved:
                    self.world.production_registry.contains_key(&containers.digest),
                    "{revision} runs what is not in the production registry"
                );
                self.check_approval(release)?;
            }
        }
        Ok(())
    }

    /// As many different people as are needed said yes to this digest, each of whom may, and none of whom wrote it.
    fn check_approval(&self, release: &Release) -> Result<(), Violation> {
        let number = release.id.number;
        let Some(Approval { state: ApprovalState::Approved { .. }, digest, approved_by, deputies_asked_at, .. }) =
            self.store.approvals.get(&number)
        else {
            let words = format!("release {number} is {} and not approved", release.state.word());
            return Err(Violation::new(Promise::Approved, words));
        };
        promise!(Approved: *digest == release.digest, "another digest than that of release {number} was approved");
        let mut people = BTreeSet::new();
        for decision in approved_by {
            let (name, email) = (decision.by.as_str(), decision.email.as_str());
            let may = TESTERS.contains(&name)
                || ACCOUNTS.contains(&name)
                || name == "dev"
                || (DEPUTIES.contains(&name) && deputies_asked_at.is_some());
            promise!(Approved: may, "{name} approved release {number}");
            let is_own = release.commit.author_email == email;
            promise!(Approved: !is_own || self.store.service.allow_self_approval, "{name} approved their own commit");
            people.insert(email);
        }
        let (have, need) = (people.len(), release.plan.test.approvals as usize);
        promise!(Approved: have >= need, "{have} people approved release {number}, which needs {need}");
        promise!(Approved: have == approved_by.len(), "somebody approved release {number} twice");
        Ok(())
    }

    /// What a stranger wrote runs only by a person's word, and never ends in an image.
    fn check_strangers(&self) -> Result<(), Violation> {
        let mut held = Vec::new();
        for run in self.store.runs.values() {
            if matches!(run.state, RunState::Held { .. }) {
                held.push(run.id.number);
                continue;
            }
            if self.world.strangers.contains(&run.trigger.commit) {
                let was_refused = run.started_at.is_none();
                promise!(Approved: run.allowed_by.is_some() || was_refused, "run {} of a stranger was never allowed", run.id);
                promise!(Approved: run.digest().is_none(), "run {} of a stranger pushed an image", run.id);
            }
        }
        promise!(GoesOn: held == self.store.train.held, "{held:?} are held, the train says {:?}", self.store.train.held);
        promise!(Bounded: held.len() <= HOLD.runs_max as usize, "{} runs are held at once", held.len());
        Ok(())
    }

    /// A run that succeeded has the image of the attempt that it was given out in last.
    fn check_images(&self) -> Result<(), Violation> {
        for run in self.store.runs.values() {
            let Some(digest) = run.digest() else { continue };
            let own = self.world.built.get(&(run.id.number, run.attempt));
            promise!(Approved: own == Some(digest), "run {} ended with another attempt's image", run.id);
        }
        Ok(())
    }

    /// Whatever is under way has an effect, or something before it, that will move it.
    fn check_someone_moves_it(&self) -> Result<(), Violation> {
        let train = &self.store.train;
        let asked = |effect: Effect| self.store.effects.contains_key(&effect.key());
        for run in self.store.runs.values().filter(|run| !run.state.is_final()) {
            let run_id = run.id.clone();
            let next = match run.state {
                RunState::Held { .. } => Effect::ExpireHold { run: run_id, due_at: self.now },
                _ => Effect::ExecuteRun { run: run_id },
            };
            promise!(GoesOn: asked(next), "nobody executes or asks about run {}", run.id);
            let has_runner = matches!(run.state, RunState::Running { .. } | RunState::Cancelling { .. });
            let Some((runner, attempt)) = run.holder().filter(|_| has_runner) else { continue };
            let (run, runner, due_at) = (run.id.clone(), runner.clone(), self.now);
            let watch = Effect::ExpireLease { run: run.clone(), runner, attempt, due_at };
            promise!(GoesOn: asked(watch), "run {run} has a runner, and nobody watches it");
        }
        for release in self.store.releases.values() {
            let (id, number) = (release.id.clone(), release.id.number);
            let moves = match &release.state {
                ReleaseState::WaitingForTest { .. } => train.test_next == Some(number),
                ReleaseState::DeployingTest => asked(Effect::DeployTest { release: id }),
                ReleaseState::AwaitingApproval => self.store.approvals.get(&number).is_some_and(|approval| {
                    let (release, round, due_at) = (id.clone(), approval.round, approval.expires_at);
                    let reminds = approval.next_reminder().is_none()
                        || asked(Effect::RemindTesters { release: id, round, due_at });
                    reminds && asked(Effect::ExpireApproval { release, round, due_at })
                }),
                ReleaseState::Promoting => asked(Effect::Promote { release: id }),
                ReleaseState::WaitingForRollout => train.rollout_next == Some(number) && train.rollout.is_some(),
                ReleaseState::RollingOut => self.store.running().is_some_and(|rollout| rollout.release == id),
                ReleaseState::Live => train.live == Some(number),
                _ => true,
            };
            promise!(GoesOn: moves, "release {number} is {} and nothing moves it", release.state.word());
        }
        promise!(GoesOn: train.rollback_next.is_none() || train.rollout.is_some(), "a rollback waits for nothing");
        let Some(rollout) = self.store.running() else { return Ok(()) };
        let id = rollout.id.clone();
        let moves = match &rollout.state {
            RolloutState::Starting => asked(Effect::StartRevision { rollout: id }),
            RolloutState::Shifting { .. } | RolloutState::RollingBack { .. } => {
                asked(Effect::ApplyTraffic { rollout: id, intent: 0 })
            }
            RolloutState::Holding { stage, .. } => {
                asked(Effect::Measure { rollout: id, stage: *stage, due_at: self.now })
            }
            RolloutState::Draining => rollout
                .stable
                .as_ref()
                .is_some_and(|stable| asked(Effect::DrainRevision { rollout: id, revision: stable.revision.clone() })),
            RolloutState::DrainingBack { .. } => {
                asked(Effect::DrainRevision { rollout: id, revision: rollout.revision.clone() })
            }
            RolloutState::Completed | RolloutState::RolledBack { .. } => true,
        };
        promise!(GoesOn: moves, "rollout {} is {} and nothing moves it", rollout.id, rollout.state.word());
        Ok(())
    }

    /// What testers are asked about is what they find, and a claim keeps it there.
    fn check_test_environment(&mut self) -> Result<(), Violation> {
        let open: Vec<&Release> =
            self.store.releases.values().filter(|release| release.state == ReleaseState::AwaitingApproval).collect();
        promise!(NothingTwice: open.len() <= 1, "{} releases are in the test environment at once", open.len());
        if let Some(release) = open.first() {
            let revision = release.revision();
            let is_there = self.world.containers.contains_key(&(Environment::Test, revision.clone()));
            promise!(GoesOn: is_there, "{revision} waits for a decision and is not in the test environment");
            let shown = &self.world.table.test;
            promise!(GoesOn: *shown == Some(revision.clone()), "{revision} waits for a decision, {shown:?} is shown");
        }
        if let Some(number) = self.memory.claimed.take() {
            let release = &self.store.releases[&number];
            let approval = &self.store.approvals[&number];
            let was_pushed_aside = matches!(release.state, ReleaseState::Superseded { .. });
            let gave_it_up = approval.claim.is_none() || self.now >= approval.expires_at;
            promise!(NothingLost: !was_pushed_aside || gave_it_up, "release {number} was claimed and pushed aside");
        }
        let claimed = open.first().map(|release| release.id.number);
        let is_claimed = |number: &u32| self.store.approvals.get(number).is_some_and(|found| found.claim.is_some());
        self.memory.claimed = claimed.filter(is_claimed);
        Ok(())
    }

    fn check_live_order(&mut self) -> Result<(), Violation> {
        let live = self.store.train.live;
        if live == self.memory.live {
            return Ok(());
        }
        promise!(NothingLost: live.is_some(), "nothing is live any more");
        let ended = self.store.rollouts.values().rev().find(|rollout| rollout.state == RolloutState::Completed);
        let by_rollback = ended.is_some_and(|rollout| matches!(rollout.cause, Cause::Rollback { .. }));
        promise!(NothingTwice: by_rollback || live > self.memory.live, "{live:?} went live after {:?}", self.memory.live);
        self.memory.live = live;
        Ok(())
    }

    /// What somebody was told stays.
    fn check_acknowledged(&mut self) -> Result<(), Violation> {
        let (deliveries, runs) = (self.store.deliveries.len(), self.store.train.last_run);
        promise!(NothingLost: deliveries >= self.memory.deliveries, "a hook that was acknowledged is lost");
        promise!(NothingLost: runs >= self.memory.runs, "run {} is lost", self.memory.runs);
        (self.memory.deliveries, self.memory.runs) = (deliveries, runs);
        for (number, (yes, by)) in &self.memory.decided {
            let now = self.store.approvals.get(number).and_then(decision);
            promise!(
                NothingLost: now.as_ref().is_some_and(|now| now.0 == *yes && now.1 == *by),
                "the decision of {by} on release {number} was changed to {now:?}"
            );
        }
        for (number, approval) in &self.store.approvals {
            if let Some(made) = decision(approval)
                && !self.memory.decided.contains_key(number)
            {
                self.memory.decided.insert(*number, made);
            }
        }
        Ok(())
    }

    /// Whatever is under way says why it is not live yet, and who acts next, where somebody has to.
    fn check_why(&self) -> Result<(), Violation> {
        for run in self.store.runs.values().filter(|run| !run.state.is_final()) {
            let facts = RunFacts { run, position: None, has_runner: true, usual_ms: None, cancelled_by: None };
            promise!(Why: !why_run(&facts).word().is_empty(), "run {} says nothing", run.id);
        }
        for release in self.store.releases.values().filter(|release| release.state.is_under_way()) {
            let why = self.why(release);
            let (state, word) = (release.state.word(), why.word());
            match &release.state {
                ReleaseState::AwaitingApproval => {
                    let until = self.store.approvals.get(&release.id.number).map(|approval| approval.expires_at);
                    promise!(Why: why.until() == until, "{state} until {until:?}, says {word} until {:?}", why.until());
                    promise!(Why: why.person() != Person::Nobody, "{state} says {word} and names nobody");
                }
                ReleaseState::RollingOut => {
                    let stands = self.store.running().is_some_and(|rollout| rollout.state.word() == "paused");
                    let asks = matches!(why.person(), Person::ReleaseManager);
                    promise!(Why: !stands || asks, "a rollout is paused, and {word} asks {:?}", why.person());
                }
                _ => promise!(Why: word != "live" && word != "retired", "{state} says it is {word}"),
            }
        }
        Ok(())
    }

    fn why(&self, release: &Release) -> Why {
        let number = release.id.number;
        let behind = match release.state {
            ReleaseState::WaitingForTest { behind } => self.store.approvals.get(&behind),
            _ => None,
        };
        why_release(&ReleaseFacts {
            release,
            approval: self.store.approvals.get(&number),
            rollout: self.store.rollouts.values().rev().find(|rollout| rollout.release.number == number),
            rolling_out: self.store.running().map(|rollout| rollout.release.number),
            behind,
            superseded_by: None,
            fault: None,
            unreached: Vec::new(),
            promoted_bytes: None,
            at: self.now,
        })
    }

    /// At rest every release and run has its last word, and each sentence is one.
    fn check_last_words(&self) -> Result<(), Violation> {
        for release in self.store.releases.values() {
            let (why, state) = (self.why(release), &release.state);
            let sentence = why.to_string();
            promise!(Why: sentence.len() > 3 && !sentence.contains('\n'), "{} says {sentence:?}", state.word());
            let is_live = why.word() == "live";
            promise!(Why: is_live == (*state == ReleaseState::Live), "{} says it is {}", state.word(), why.word());
        }
        for run in self.store.runs.values() {
            let facts = RunFacts { run, position: None, has_runner: true, usual_ms: None, cancelled_by: None };
            let word = why_run(&facts).word();
            let RunState::Failed { blame, reason } = &run.state else { continue };
            let is_red = self.world.commit(&run.trigger.commit)?.is_red;
            let had_trouble = self.world.infrastructure_failed.contains(&run.id.number);
            match blame {
                Blame::Code => {
                    promise!(Blame: is_red && word == "code_failed", "run {} is good, and {word}: {reason}", run.id);
                }
                Blame::Infrastructure => {
                    promise!(Blame: had_trouble && word == "run_fault", "run {} had no trouble: {reason}", run.id);
                }
            }
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), Violation> {
        for rollout in self.store.rollouts.values() {
            let samples = rollout.samples.len();
            promise!(Bounded: samples <= SAMPLES_MAX, "rollout {} keeps {samples} samples", rollout.id);
        }
        for (git_ref, seen) in &self.store.refs {
            let known = seen.before.len();
            promise!(Bounded: known <= SEEN_COMMITS_MAX, "{git_ref} remembers {known} commits");
        }
        Ok(())
    }

    /// What holds when nothing moves any more.
    pub(crate) fn check_rest(&mut self) -> Result<(), Violation> {
        let train = self.store.train.clone();
        for key in self.store.effects.keys() {
            promise!(GoesOn: key.starts_with("poll-repository/"), "{key} is still pending at rest");
        }
        for run in self.store.runs.values() {
            promise!(GoesOn: run.state.is_final(), "run {} is {} at rest", run.id, run.state.word());
        }
        for release in self.store.releases.values() {
            let word = release.state.word();
            promise!(GoesOn: !release.state.is_under_way(), "release {} is {word} at rest", release.id);
        }
        let waiting = (train.rollout, train.rollout_next, train.test_next, &train.rollback_next);
        promise!(GoesOn: waiting == (None, None, None, &None), "the train still waits: {waiting:?}");
        self.check_last_words()?;
        self.check_bounds()?;
        self.check_newest_approved()?;
        self.check_one_run_per_push()?;
        let live = self.store.live().map(Release::revision);
        let running: Vec<_> = self.containers_of(Environment::Production);
        promise!(Approved: running == live.clone().into_iter().collect::<Vec<_>>(), "{live:?} is live, {running:?} run");
        let replicas = self.store.live().map(|release| release.plan.deploy.replicas as usize);
        let found = self.world.containers.iter().find(|((environment, _), _)| *environment == Environment::Production);
        promise!(Approved:
            found.map(|(_, containers)| containers.replicas.len()) == replicas,
            "{replicas:?} replicas are wanted"
        );
        let shares: Vec<_> = live.into_iter().map(|revision| (revision, 100)).collect();
        promise!(NoRequestLost: self.world.table.production == shares, "the gateway has {:?}", self.world.table.production);
        // What was superseded or died on its way into the test environment goes with the next one that gets there.
        for revision in self.containers_of(Environment::Test) {
            let found = self.store.releases.values().find(|release| release.revision() == revision);
            let is_old = found.is_none_or(|release| Some(release.id.number) < train.in_test);
            promise!(Bounded: !is_old, "{revision} is left in the test environment, where {:?} is", train.in_test);
        }
        self.stats.lost += self.store.runs.values().map(|run| run.lost.len() as u64).sum::<u64>();
        self.stats.unfit += self.store.runs.values().filter(|run| !run.labels.is_empty()).count() as u64;
        let ends = |word: &str| self.store.rollouts.values().filter(|found| found.state.word() == word).count() as u64;
        let (live, back) = (ends("completed"), ends("rolled_back"));
        self.stats.rolled_out += live;
        self.stats.rolled_back += back;
        Ok(())
    }

    fn containers_of(&self, environment: Environment) -> Vec<pipelines::ids::RevisionId> {
        let of = self.world.containers.keys().filter(|(found, _)| *found == environment);
        of.map(|(_, revision)| revision.clone()).collect()
    }

    fn check_newest_approved(&self) -> Result<(), Violation> {
        let newest = self.store.releases.values().rev().find(|release| release.approved.is_some());
        let Some(newest) = newest else { return Ok(()) };
        let is_live = newest.state == ReleaseState::Live && self.store.train.live == Some(newest.id.number);
        let went_back = matches!(newest.state, ReleaseState::RolledBack { .. });
        promise!(GoesOn: is_live || went_back, "release {} is the newest approved and {}", newest.id, newest.state.word());
        Ok(())
    }

    /// A commit is run once, and none after a newer one of its branch or pull request, however late its hook comes.
    fn check_one_run_per_push(&self) -> Result<(), Violation> {
        let mut last: BTreeMap<&str, &CommitSha> = BTreeMap::new();
        for run in self.store.runs.values().filter(|run| run.rerun_of.is_none()) {
            let Trigger { git_ref, commit, .. } = &run.trigger;
            let before = last.insert(git_ref, commit);
            promise!(NothingTwice: before != Some(commit), "two runs were made of one push of {commit}");
            let is_newer = before.is_none_or(|before| before.as_str() < commit.as_str());
            promise!(NothingTwice: is_newer, "{commit} was run after {before:?}, which is newer");
        }
        let (head, run) = (self.world.heads.get(RELEASE_REF), last.get(RELEASE_REF).copied());
        promise!(NothingLost: run == head, "{RELEASE_REF} is at {head:?}, and {run:?} was run last");
        Ok(())
    }
}
