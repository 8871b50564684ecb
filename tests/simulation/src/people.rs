//! People: who pushes, tests, decides, steers; also twice, too late, and those who may not.

use pipelines::{
    approval::{Actor, ApprovalEvent},
    ids::Digest,
    release::Release,
    rollout::RolloutEvent,
    run::RunEvent,
    train::Event,
    trigger::{Trigger, TriggerKind, TriggerSource},
};

use crate::{
    drivers::trigger,
    machines,
    promise::{Promise, Violation},
    sim::Sim,
    store::Store,
    world::{DEPUTIES, HOLD, RELEASE_REF, TESTERS},
};

/// Accounts of those who may decide; `qa` is a tester too, who also comes by the link.
pub(crate) const ACCOUNTS: [&str; 4] = ["ann", "boss", "max", "qa"];

fn account(name: &str) -> Actor {
    Actor::Account { name: name.into(), email: format!("{name}@example.com") }
}

/// Somebody who may and has not yet says yes to what they see.
pub(crate) fn approve(store: &Store, number: u32) -> Event {
    let digest = store.releases.get(&number).map(|release| release.digest.clone());
    let digest = digest.unwrap_or_else(|| Digest::of(b"another page"));
    let approval = store.approvals.get(&number);
    let has_approved =
        |name: &str| approval.is_some_and(|found| found.has_approved(name, &format!("{name}@example.com")));
    let actor = account(ACCOUNTS.into_iter().find(|name| !has_approved(name)).unwrap_or("boss"));
    Event::Approval { number, event: ApprovalEvent::Decided { actor, digest, approve: true, comment: String::new() } }
}

impl Sim {
    /// A commit is pushed; its hook may come twice, or never.
    pub(crate) fn push(&mut self) {
        let git_ref = if self.rng.chance(85) { RELEASE_REF } else { "refs/heads/side" };
        if self.rng.chance(10) {
            self.push_from_fork();
        }
        let from = self.world.heads.get(git_ref).cloned();
        let Some(commit) = self.world.push(git_ref, &mut self.rng) else { return };
        self.say(|| format!("{} is pushed to {git_ref}", commit.short()));
        let times = match self.rng.below(10) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        for _ in 0..times {
            // The forge is told so, and does not say it again.
            if self.disk_is_full {
                self.stats.not_stored += 1;
                continue;
            }
            let hook = trigger(git_ref, &commit, TriggerSource::Hook);
            self.store.record_delivery(hook, from.clone(), self.now);
        }
    }

    /// A stranger opens a pull request, or pushes to one.
    fn push_from_fork(&mut self) {
        let number = 1 + self.rng.below(4);
        let git_ref = format!("refs/pull/{number}/head");
        let Some(commit) = self.world.commit_from_fork(&git_ref, &mut self.rng) else { return };
        self.say(|| format!("{} is pushed to pull request {number} of a fork", commit.short()));
        let trigger = Trigger {
            kind: TriggerKind::PullRequest,
            pull_request: Some(number),
            from_fork: self.safe.asks_first,
            ..trigger(&git_ref, &commit, TriggerSource::Hook)
        };
        let times = if self.rng.chance(10) { 2 } else { 1 };
        for _ in 0..times {
            if !self.disk_is_full {
                self.store.record_delivery(trigger.clone(), None, self.now);
            }
        }
    }

    /// A release manager has a word on a held run, or on one that is not held any more.
    fn hold_act(&mut self) -> Event {
        let held = self.rng.pick(&self.store.train.held).copied();
        let number = held.filter(|_| self.rng.chance(90)).unwrap_or_else(|| self.some_number());
        let by = "boss".to_owned();
        let event = match self.rng.below(3) {
            0 => RunEvent::Declined { by, reason: "odd".into() },
            _ => RunEvent::Allowed { by },
        };
        Event::Run { number, event }
    }

    /// Somebody does something.
    pub(crate) fn press(&mut self) {
        let waits =
            |number| self.store.releases.get(&number).is_some_and(|found| found.state.word() == "awaiting_approval");
        let waiting = self.store.train.testing.filter(|number| waits(*number));
        let event = match (waiting, self.store.train.rollout) {
            // Mostly people do what there is to do.
            (Some(number), _) if self.rng.chance(30) => approve(&self.store, number),
            (Some(_), _) if self.rng.chance(50) => self.approval_act(),
            (_, Some(_)) if self.rng.chance(40) => self.rollout_act(),
            _ => match self.rng.below(30) {
                0..=2 => Event::Rollback { to: self.some_former(), by: "ann".into(), reason: "500s".into() },
                3..=5 => Event::Replace { by: "ann".into() },
                6..=9 => Event::AskAgain { number: self.some_number(), by: "ann".into() },
                10 => {
                    let reason = "not this one".to_owned();
                    Event::Run { number: self.some_number(), event: RunEvent::CancelRequested { reason } }
                }
                11 => self.run_again(),
                18..=20 => self.hold_act(),
                12..=14 => self.rollout_act(),
                15..=17 => self.approval_act(),
                _ => return,
            },
        };
        match self.rng.below(20) {
            // Twice.
            0..=3 => {
                self.person(&event);
                self.person(&event);
            }
            // From a page that was loaded a while ago.
            4..=6 => self.process.pressed.push(event),
            // While somebody else does something.
            7..=9 => {
                let other = match self.rng.below(3) {
                    0 => self.rollout_act(),
                    1 => Event::Rollback { to: self.some_number(), by: "boss".into(), reason: "errors".into() },
                    _ => self.approval_act(),
                };
                self.at_once(&event, &other);
            }
            _ => self.person(&event),
        }
    }

    /// Events come to a machine that they do not fit: from a driver that was wrong, or from nobody who may. Nothing may
    /// change by it.
    pub(crate) fn confuse(&mut self) -> Result<(), Violation> {
        for event in machines::stray_events(&self.store, &mut self.rng) {
            if !self.store.would_change(&event, self.now) {
                if machines::is_refused_by_machine(&self.store, &event) {
                    self.store.note_meeting(&event);
                }
            } else if machines::never_comes_alone(&event) {
                return Err(Violation::new(Promise::NothingTwice, format!("{event:?} was taken from nobody")));
            }
        }
        Ok(())
    }

    /// A release that was live once, most often.
    fn some_former(&mut self) -> u32 {
        let former = |release: &&Release| release.was_live() && Some(release.id.number) != self.store.train.live;
        let numbers: Vec<u32> = self.store.releases.values().filter(former).map(|found| found.id.number).collect();
        match self.rng.pick(&numbers) {
            Some(number) if self.rng.chance(80) => *number,
            _ => self.some_number(),
        }
    }

    fn some_number(&mut self) -> u32 {
        let last = u64::from(self.store.train.last_run) + 1;
        u32::try_from(1 + self.rng.below(last)).unwrap_or(1)
    }

    fn run_again(&mut self) -> Event {
        let number = self.some_number();
        match self.store.runs.get(&number) {
            Some(run) => {
                let mut trigger = run.trigger.clone();
                trigger.source = TriggerSource::Person;
                if trigger.kind == TriggerKind::Push {
                    trigger.kind = TriggerKind::Manual;
                }
                trigger.requested_by = Some("ann".into());
                Event::Triggered { trigger, rerun_of: Some(run.id.clone()), hold: HOLD }
            }
            None => Event::Replace { by: "ann".into() },
        }
    }

    fn approval_act(&mut self) -> Event {
        let number = match self.store.train.testing {
            Some(testing) if self.rng.chance(85) => testing,
            _ => self.some_number(),
        };
        // Sometimes a deputy, whose time has come or not.
        let people: &[&str] = if self.rng.chance(20) { &DEPUTIES } else { &TESTERS };
        let tester = self.rng.pick(people).copied().unwrap_or("qa@example.com").to_owned();
        let actor = match self.rng.below(10) {
            0..=4 => Actor::Tester { email: tester.clone() },
            5 => Actor::Tester { email: "eve@example.com".into() },
            6 => Actor::Account { name: "dev".into(), email: "dev@example.com".into() },
            _ => account(self.rng.pick(&ACCOUNTS).copied().unwrap_or("ann")),
        };
        let known = self.store.approvals.get(&number).map(|approval| approval.digest.clone());
        let digest = known.filter(|_| self.rng.chance(90)).unwrap_or_else(|| Digest::of(b"another page"));
        let event = match self.rng.below(10) {
            0 | 1 => ApprovalEvent::CodeRequested { tester },
            2 => ApprovalEvent::WrongCode { tester },
            3 | 4 => ApprovalEvent::Claimed { actor },
            5 if self.rng.chance(50) => ApprovalEvent::Unclaimed { actor },
            _ => {
                let approve = self.rng.chance(85);
                ApprovalEvent::Decided { actor, digest, approve, comment: "so be it".into() }
            }
        };
        Event::Approval { number, event }
    }

    fn rollout_act(&mut self) -> Event {
        let number = match self.store.train.rollout {
            Some(running) if self.rng.chance(90) => running,
            _ => u32::try_from(1 + self.rng.below(6)).unwrap_or(1),
        };
        let by = "ann".to_owned();
        let event = match self.rng.below(10) {
            0..=3 => RolloutEvent::Promote { by, fully: false },
            4 => RolloutEvent::Promote { by, fully: true },
            5 | 6 => RolloutEvent::Pause { by },
            7 | 8 => RolloutEvent::Resume { by },
            _ => RolloutEvent::Abort { by, reason: "looks odd".into() },
        };
        Event::Rollout { number, event }
    }
}
