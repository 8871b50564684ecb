//! What the drivers do to the world, in the steps between which something else may happen. As in `server::driver`: they
//! read what is wanted, look what is there, act, and say what happened.

use pipelines::{
    approval::{ApprovalEvent, ApprovalState, Reminder},
    effect::Effect,
    hold::HoldEnd,
    ids::{CommitSha, Digest, Environment, ReleaseId, RevisionId, RolloutId, RunId},
    release::{Release, ReleaseEvent, ReleaseState},
    rollout::{Rollout, RolloutEvent, RolloutState},
    run::RunEvent,
    train::{Event, production_traffic},
    trigger::{HookNews, SeenRef, Trigger, TriggerKind, TriggerSource, hook_news, settled},
};

use crate::{
    promise::{Promise, Violation},
    runner::{LOST_MAX, LOST_MS},
    sim::Sim,
    store::Input,
    world::{HOLD, RELEASE_REF},
};

/// How one step of an effect went.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// There is another step.
    More,
    /// The same step again, later.
    Wait,
    /// It is done.
    Done(Box<Input>),
    /// The world did not let it.
    Retry(&'static str),
}

type Acted = Result<Act, Violation>;

fn done() -> Acted {
    Ok(Act::Done(Box::default()))
}

fn event(event: Event) -> Acted {
    Ok(Act::Done(Box::new(Input::event(event))))
}

fn release_event(id: &ReleaseId, on: ReleaseEvent) -> Acted {
    event(Event::Release { number: id.number, event: on })
}

fn rollout_event(id: &RolloutId, on: RolloutEvent) -> Acted {
    event(Event::Rollout { number: id.number, event: on })
}

pub(crate) fn trigger(git_ref: &str, commit: &CommitSha, source: TriggerSource) -> Trigger {
    Trigger::of_ref(git_ref, commit.clone(), source)
}

fn gone(what: &str, id: &dyn std::fmt::Display) -> Violation {
    Violation::new(Promise::NothingLost, format!("the {what} {id} is lost: an effect is pending for it"))
}

impl Sim {
    pub(crate) fn act(&mut self, effect: &Effect, progress: usize) -> Acted {
        if self.fails() {
            return Ok(Act::Retry("it did not answer"));
        }
        match effect {
            Effect::ProcessDelivery { delivery, .. } => self.process_delivery(*delivery),
            Effect::PollRepository { .. } => self.poll(),
            Effect::InspectRun { run } => {
                let proposal = Box::default();
                event(Event::Run { number: run.number, event: RunEvent::Inspected { proposal } })
            }
            Effect::ExpireHold { run, .. } => {
                let end = HoldEnd::Expired;
                event(Event::Run { number: run.number, event: RunEvent::HoldEnded { end } })
            }
            Effect::ExpireLease { run, attempt, .. } => Ok(self.expire_lease(run, effect, *attempt)),
            Effect::ExecuteRun { run } => Err(Violation::new(Promise::GoesOn, format!("{run} is for the runner"))),
            Effect::DeployTest { release } => self.deploy_test(release, progress),
            Effect::SendApprovalMail { release, round, tester, reminder: None } => {
                self.send_mail(release, *round, &format!("approval {release} {round} {tester}"))
            }
            Effect::SendApprovalMail { release, round, tester, reminder: Some(reminder) } => {
                self.send_reminder(release, *round, tester, *reminder)
            }
            Effect::SendCodeMail { release, round, tester, serial } => {
                self.send_mail(release, *round, &format!("code {release} {round} {tester} {serial}"))
            }
            Effect::RemindTesters { release, round, .. } => {
                event(Event::Approval { number: release.number, event: ApprovalEvent::ReminderDue { round: *round } })
            }
            Effect::ExpireApproval { release, round, .. } => {
                event(Event::Approval { number: release.number, event: ApprovalEvent::Expired { round: *round } })
            }
            Effect::Promote { release } => self.promote(release, progress),
            Effect::StartRevision { rollout } => self.start_revision(rollout, progress),
            Effect::ApplyTraffic { rollout, intent } => self.apply_traffic(rollout, *intent, progress),
            Effect::Measure { rollout, stage, .. } => self.measure(rollout, *stage),
            Effect::DrainRevision { rollout, revision } => self.drain(rollout, revision, progress),
        }
    }

    fn release(&self, id: &ReleaseId) -> Result<Release, Violation> {
        self.store.releases.get(&id.number).cloned().ok_or_else(|| gone("release", id))
    }

    fn rollout(&self, id: &RolloutId) -> Result<Rollout, Violation> {
        self.store.rollouts.get(&id.number).cloned().ok_or_else(|| gone("rollout", id))
    }

    /// As `App::lease_outcome`: only this process knows what it heard, by a clock that nobody sets.
    fn expire_lease(&mut self, run: &RunId, effect: &Effect, attempt: u32) -> Act {
        let heard = self.process.heard.get(&run.number).filter(|(known, _)| *known == attempt);
        let silent_ms = self.mono - heard.map_or(self.process.started, |(_, at)| *at);
        if silent_ms >= LOST_MS {
            self.world.infrastructure_failed.insert(run.number);
            let event = RunEvent::RunnerLost { attempt, lost_max: LOST_MAX, reason: "was not heard of".into() };
            return Act::Done(Box::new(Input::event(Event::Run { number: run.number, event })));
        }
        let mut again = effect.clone();
        if let Effect::ExpireLease { due_at, .. } = &mut again {
            *due_at = self.now.plus_ms(LOST_MS - silent_ms);
        }
        Act::Done(Box::new(Input { ask: vec![again], ..Input::default() }))
    }

    fn process_delivery(&self, id: u64) -> Acted {
        let Some((trigger, from)) = self.store.deliveries.get(&id) else { return done() };
        let seen = self.store.refs.get(&trigger.git_ref);
        let news = if self.safe.remembers_refs { hook_news(seen, trigger, from.as_ref()) } else { HookNews::Next };
        let trigger = match news {
            HookNews::Next => trigger.clone(),
            HookNews::Known => return done(),
            HookNews::Unclear if trigger.kind == TriggerKind::PullRequest => {
                let now_at = self.world.pulls.get(&trigger.git_ref).filter(|_| self.safe.asks_for_pulls);
                let Some(trigger) = settled(seen, trigger, now_at) else { return done() };
                trigger
            }
            HookNews::Unclear => {
                let poll = Effect::PollRepository { service: self.store.service.name.clone(), due_at: self.now };
                return Ok(Act::Done(Box::new(Input { ask: vec![poll], ..Input::default() })));
            }
        };
        let input = Input {
            refs: vec![(trigger.git_ref.clone(), moved(seen, &trigger.commit))],
            events: vec![Event::Triggered { trigger, rerun_of: None, hold: HOLD }],
            ..Input::default()
        };
        Ok(Act::Done(Box::new(input)))
    }

    fn poll(&self) -> Acted {
        let is_first = self.store.refs.is_empty();
        let mut input = Input::default();
        for (git_ref, commit) in self.world.heads.iter().filter(|_| self.safe.polls || is_first) {
            let seen = self.store.refs.get(git_ref);
            if seen.is_some_and(|seen| seen.commit == *commit) {
                continue;
            }
            input.refs.push((git_ref.clone(), moved(seen, commit)));
            if !is_first || git_ref == RELEASE_REF {
                let trigger = trigger(git_ref, commit, TriggerSource::Poll);
                input.events.push(Event::Triggered { trigger, rerun_of: None, hold: HOLD });
            }
        }
        let service = &self.store.service;
        let due_at = self.now.plus_ms(service.poll_interval_ms);
        input.ask.push(Effect::PollRepository { service: service.name.clone(), due_at });
        Ok(Act::Done(Box::new(input)))
    }

    fn deploy_test(&mut self, id: &ReleaseId, progress: usize) -> Acted {
        let release = self.release(id)?;
        let revision = release.revision();
        match progress {
            0 if release.state != ReleaseState::DeployingTest => done(),
            0 => {
                let digest = self.image_of(&release);
                self.world.start(Environment::Test, &revision, &digest, 1, self.safe.looks_first)?;
                Ok(Act::More)
            }
            1 if self.world.commit(&release.commit.sha)?.dies_in_test => {
                self.world.remove_one(Environment::Test, &revision)?;
                release_event(id, ReleaseEvent::TestUnhealthy { reason: "it died".into() })
            }
            1 => Ok(Act::More),
            2 => {
                self.process.early_in_test = Some(id.number);
                self.apply_table();
                Ok(Act::More)
            }
            _ => {
                let others: Vec<RevisionId> = self
                    .world
                    .containers
                    .keys()
                    .filter(|(environment, other)| *environment == Environment::Test && *other != revision)
                    .map(|(_, other)| other.clone())
                    .collect();
                for other in &others {
                    self.world.remove_one(Environment::Test, other)?;
                }
                release_event(id, ReleaseEvent::TestHealthy)
            }
        }
    }

    fn send_mail(&mut self, id: &ReleaseId, round: u32, about: &str) -> Acted {
        let is_open = self
            .store
            .approvals
            .get(&id.number)
            .is_some_and(|approval| approval.round == round && approval.state == ApprovalState::Open);
        if !is_open {
            return done();
        }
        let mail_id = if self.safe.same_mail_id {
            format!("<{about}@windlass>")
        } else {
            format!("<{about} {}@windlass>", self.rng.next())
        };
        self.world.mail(about, mail_id);
        // The mail server took it, and its answer was lost.
        if self.fails() { Ok(Act::Retry("the answer was lost")) } else { done() }
    }

    fn send_reminder(&mut self, id: &ReleaseId, round: u32, person: &str, reminder: Reminder) -> Acted {
        let about = format!("{} {id} {round} {person}", reminder.word());
        let approval = self.store.approvals.get(&id.number).filter(|approval| approval.round == round);
        let approval =
            approval.ok_or_else(|| Violation::new(Promise::NothingLost, format!("{about} is for another round")))?;
        let is_in_time = self.now < approval.expires_at;
        let is_wanted = is_in_time && approval.recipients(reminder).iter().any(|one| one == person);
        if !is_wanted && self.safe.looks_before_reminding {
            return done();
        }
        // What nobody may see, whoever looked: told after the decision or the end, or told to who has decided.
        let is_open = approval.state == ApprovalState::Open && is_in_time;
        let is_author = approval.author_email == person && !approval.allow_self_approval;
        let has_approved = approval.approved_by.iter().any(|decision| decision.email == person);
        if !is_open || is_author || has_approved {
            return Err(Violation::new(Promise::NothingTwice, format!("{about} reminds of what is decided")));
        }
        self.world.remind((id.number, round, person), reminder)?;
        self.send_mail(id, round, &about)
    }

    /// What is asked of the test registry.
    fn image_of(&self, release: &Release) -> Digest {
        if self.safe.by_digest {
            return release.digest.clone();
        }
        self.world.tags.get(&release.tag).unwrap_or(&release.digest).clone()
    }

    fn promote(&mut self, id: &ReleaseId, progress: usize) -> Acted {
        let release = self.release(id)?;
        match progress {
            0 if release.state != ReleaseState::Promoting => done(),
            // Blobs; they are skipped where they are there already.
            0 | 1 => Ok(Act::More),
            2 => {
                let digest = self.image_of(&release);
                self.world.promote(&digest, self.safe.looks_first)?;
                Ok(Act::More)
            }
            _ => release_event(id, ReleaseEvent::Promoted { digest: self.image_of(&release) }),
        }
    }

    fn start_revision(&mut self, id: &RolloutId, progress: usize) -> Acted {
        let rollout = self.rollout(id)?;
        let release = self.release(&rollout.release)?;
        let replicas = release.plan.deploy.replicas as usize;
        if progress == 0 {
            return if rollout.state == RolloutState::Starting { Ok(Act::More) } else { done() };
        }
        if let Ok(replica) = u32::try_from(progress)
            && progress <= replicas
        {
            let looks_first = self.safe.looks_first;
            let environment = Environment::Production;
            self.world.start(environment, &rollout.revision, &release.digest, replica, looks_first)?;
            self.world.note_character(&rollout.revision, &release.commit.sha)?;
            return Ok(Act::More);
        }
        if self.world.commit(&release.commit.sha)?.dies_in_production && !release.was_live() {
            return rollout_event(id, RolloutEvent::RevisionUnhealthy { reason: "it died".into() });
        }
        rollout_event(id, RolloutEvent::RevisionHealthy)
    }

    fn apply_traffic(&mut self, id: &RolloutId, intent: u32, progress: usize) -> Acted {
        let rollout = self.rollout(id)?;
        match progress {
            0 if rollout.intent != intent => done(),
            0 => Ok(Act::More),
            1 => {
                self.apply_table();
                Ok(Act::More)
            }
            _ => {
                let (canary, stable) = self.counters(&rollout);
                rollout_event(id, RolloutEvent::TrafficAcknowledged { intent, canary, stable })
            }
        }
    }

    fn measure(&mut self, id: &RolloutId, stage: usize) -> Acted {
        let rollout = self.rollout(id)?;
        let (canary, stable) = self.counters(&rollout);
        rollout_event(id, RolloutEvent::Measured { stage, canary, stable })
    }

    fn drain(&mut self, id: &RolloutId, revision: &RevisionId, progress: usize) -> Acted {
        match progress {
            0 => {
                if self.safe.drains {
                    self.apply_table();
                    if self.world.is_serving(revision) {
                        return Ok(Act::Retry("the gateway still sends requests to it"));
                    }
                }
                Ok(Act::More)
            }
            1 => {
                let busy = self.world.in_flight.get(revision).is_some_and(|count| *count > 0);
                Ok(if busy && self.safe.drains { Act::Wait } else { Act::More })
            }
            _ if self.world.remove_one(Environment::Production, revision)? => rollout_event(id, RolloutEvent::Drained),
            _ => Ok(Act::More),
        }
    }

    fn counters(
        &self,
        rollout: &Rollout,
    ) -> (pipelines::rollout::judge::RevisionStats, pipelines::rollout::judge::RevisionStats) {
        let stable = rollout.stable.as_ref().map(|stable| self.world.stats_of(&stable.revision));
        (self.world.stats_of(&rollout.revision), stable.unwrap_or_default())
    }

    /// Brings the gateway to what the store wants now; in one step, as its one writer does.
    fn apply_table(&mut self) {
        let traffic = production_traffic(self.store.live(), self.store.running());
        let in_test = self.process.early_in_test.max(self.store.train.in_test);
        let test = in_test.and_then(|number| self.store.releases.get(&number)).map(Release::revision);
        let has_container =
            |revision: &RevisionId| self.world.containers.contains_key(&(Environment::Test, revision.clone()));
        let test = test.filter(has_container);
        let table = &mut self.world.table;
        table.production = traffic.shares.into_iter().map(|(_, revision, share)| (revision, share)).collect();
        table.preview = traffic.preview.map(|(_, revision)| revision);
        table.test = test;
    }
}

fn moved(seen: Option<&SeenRef>, commit: &CommitSha) -> SeenRef {
    seen.map_or_else(|| SeenRef::first(commit.clone()), |seen| seen.moved(commit.clone()))
}
