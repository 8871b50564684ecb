//! One simulated life of a service: what happens next is chance, in whichever order; the server dies at any moment;
//! after each step the promises are checked. Not here: what the parties do (`world`, `drivers`, `runner`, `people`).

use std::collections::BTreeMap;

use pipelines::{
    approval::ApprovalState,
    effect::{Effect, EffectKind, PendingEffect},
    ids::ServiceName,
    rollout::RolloutEvent,
    service::{CredentialKind, Service},
    time::UnixMs,
    train::{Event, Refusal},
};

use crate::{
    drivers::Act,
    invariants::Memory,
    people::approve,
    rng::Rng,
    runner::Job,
    store::{Input, Store},
    world::{START, World},
};

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation(
    /// In words.
    pub String,
);

/// Where the process dies: as in `server::crash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Before the effect is begun.
    Before,
    /// The world has answered, and nobody has written it down.
    Answered,
    /// In the middle of writing it down.
    Storing,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Before, Self::Answered, Self::Storing];
}

/// What keeps the promises; each can be taken away to see that it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Safeguards {
    /// A mail sent again has the same Message-ID.
    pub same_mail_id: bool,
    /// Whoever acts looks first what is there already.
    pub looks_first: bool,
    /// An outcome counts only for the asking it belongs to.
    pub asked_by: bool,
    /// A revision finishes what it has before it is removed.
    pub drains: bool,
    /// A lane is performed one by one.
    pub lanes: bool,
    /// What follows from an outcome is stored together with its end.
    pub one_transaction: bool,
    /// Whether somebody still is to be reminded is looked at again before the mail goes.
    pub looks_before_reminding: bool,
}

impl Safeguards {
    /// As in the product.
    pub const ALL_ON: Self = Self {
        same_mail_id: true,
        looks_first: true,
        asked_by: true,
        drains: true,
        lanes: true,
        one_transaction: true,
        looks_before_reminding: true,
    };
}

/// An effect that is being performed.
#[derive(Debug)]
pub(crate) struct Performance {
    pub(crate) pending: PendingEffect,
    /// How many of its own steps are done.
    pub(crate) progress: usize,
    pub(crate) answer: Option<Act>,
}

/// What is lost when the server dies.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) performing: BTreeMap<String, Performance>,
    pub(crate) job: Option<Job>,
    /// The release that is shown in test before the store says so.
    pub(crate) early_in_test: Option<u32>,
}

/// What a simulation saw.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Steps taken, each with all promises checked after it.
    pub steps: u64,
    /// Deaths of the server at the places of effects.
    pub kills: BTreeMap<(EffectKind, Point), u64>,
    /// Effects that came to their end.
    pub performed: BTreeMap<EffectKind, u64>,
    /// Acts of people that were taken.
    pub taken: u64,
    /// Acts of people that were refused.
    pub refused: u64,
    /// Rollouts that ended live.
    pub rolled_out: u64,
    /// Rollouts that went back.
    pub rolled_back: u64,
    /// Requests of visitors.
    pub requests: u64,
}

impl Stats {
    /// Adds what another life saw.
    pub fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.taken += other.taken;
        self.refused += other.refused;
        self.rolled_out += other.rolled_out;
        self.rolled_back += other.rolled_back;
        self.requests += other.requests;
        for (point, count) in other.kills {
            *self.kills.entry(point).or_default() += count;
        }
        for (kind, count) in other.performed {
            *self.performed.entry(kind).or_default() += count;
        }
    }
}

/// A life in which a promise was broken.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub violation: Violation,
    /// What happened before, if it was traced.
    pub trace: Vec<String>,
}

/// One life.
pub struct Sim {
    pub(crate) rng: Rng,
    pub(crate) now: UnixMs,
    pub(crate) store: Store,
    pub(crate) world: World,
    pub(crate) process: Process,
    pub(crate) safe: Safeguards,
    /// Whether things fail and die, people press and commits come.
    pub(crate) chaos: bool,
    /// The place at which this life is killed for sure, if it comes by.
    target: (EffectKind, Point),
    /// Whether somebody approves what still waits when the chaos is over; or it expires.
    approves_in_the_end: bool,
    /// Whether a poll has looked since the last hook was.
    polled_last: bool,
    pub(crate) stats: Stats,
    pub(crate) memory: Memory,
    trace: Option<Vec<String>>,
}

/// Steps of chaos in one life.
const CHAOS_STEPS: u64 = 500;
/// Steps within which everything must come to rest.
const SETTLE_STEPS: u64 = 4_000;

impl Sim {
    /// Lives one life.
    ///
    /// # Errors
    /// [`Failure`] when a promise was broken.
    pub fn live(seed: u64, safe: Safeguards, traced: bool) -> Result<Stats, Failure> {
        let mut sim = Self::new(seed, safe, traced);
        match sim.run() {
            Ok(()) => Ok(sim.stats),
            Err(violation) => Err(Failure { violation, trace: sim.trace.unwrap_or_default() }),
        }
    }

    fn new(seed: u64, safe: Safeguards, traced: bool) -> Self {
        let name: ServiceName = "shop".parse().expect("a good name");
        let mut rng = Rng::new(seed);
        let points = EffectKind::ALL.len() as u64 * 3;
        let index = usize::try_from(seed % points).unwrap_or(0);
        let target = (EffectKind::ALL[index / 3], Point::ALL[index % 3]);
        let service = Service {
            name,
            repository_url: "https://git.example/shop.git".into(),
            credential: CredentialKind::None,
            known_hosts: Vec::new(),
            ca_pem: None,
            allow_unsigned_hooks: false,
            poll_interval_ms: 60_000,
            release_branch: None,
            default_branch: Some("main".into()),
            allow_self_approval: rng.chance(25),
            created_at: START,
            created_by: "admin".into(),
        };
        Self {
            rng,
            now: START,
            store: Store::new(service),
            world: World::default(),
            process: Process::default(),
            safe,
            chaos: true,
            target,
            approves_in_the_end: seed.is_multiple_of(2),
            polled_last: false,
            stats: Stats::default(),
            memory: Memory::default(),
            trace: traced.then(Vec::new),
        }
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} {}", self.now.since_ms(START), what()));
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        for _ in 0..CHAOS_STEPS {
            self.chaos_step()?;
            self.after_step()?;
        }
        self.chaos = false;
        self.world.is_quiet = false;
        self.say(|| "the chaos is over".into());
        self.polled_last = false;
        for _ in 0..SETTLE_STEPS {
            if !self.settle_step()? {
                self.stats.requests = self.world.requests;
                return self.check_rest();
            }
            self.after_step()?;
        }
        Err(Violation(format!("nothing rests after {SETTLE_STEPS} steps; pending: {:?}", self.store.effects.keys())))
    }

    fn after_step(&mut self) -> Result<(), Violation> {
        self.stats.steps += 1;
        self.world.traffic(40, &mut self.rng)?;
        self.check()
    }

    fn chaos_step(&mut self) -> Result<(), Violation> {
        self.now = self.now.plus_ms(self.rng.below(400));
        let is_timer = |performance: &Performance| {
            matches!(performance.pending.effect.kind(), EffectKind::ExpireApproval | EffectKind::RemindTesters)
        };
        // By pure chance the clock would hardly ever be set back at the one moment at which it matters.
        if self.process.performing.values().any(is_timer) && self.rng.chance(8) {
            self.jump(true);
        }
        match self.rng.below(100) {
            0 | 1 => {
                self.push();
                Ok(())
            }
            2..=11 => {
                self.press();
                Ok(())
            }
            12..=27 => self.runner_step(),
            28 => {
                let back = self.rng.chance(30);
                self.jump(back);
                Ok(())
            }
            29 => {
                self.world.is_quiet = self.rng.chance(30);
                Ok(())
            }
            30 if self.rng.chance(50) => {
                self.die("at some moment");
                Ok(())
            }
            31..=36 => {
                let (polls_too, expiries_too) = (self.rng.chance(20), self.rng.chance(4));
                // A server that was off over the end finds the reminders due with it.
                let reminders_too = !expiries_too && self.rng.chance(10);
                self.wait_for_next(polls_too, reminders_too, expiries_too);
                Ok(())
            }
            37..=54 => {
                self.lease();
                Ok(())
            }
            _ => self.go_on(),
        }
    }

    /// The clock is set forth or back.
    fn jump(&mut self, back: bool) {
        let far = self.rng.chance(10);
        let span_ms = self.rng.below(if far { 3_600_000 } else { 60_000 });
        self.now = UnixMs(if back { self.now.0.saturating_sub(span_ms).max(START.0) } else { self.now.0 + span_ms });
        self.say(|| format!("the clock jumps {} {span_ms} ms", if back { "back" } else { "forth" }));
    }

    /// Waits until the next effect is due.
    fn wait_for_next(&mut self, polls_too: bool, reminders_too: bool, expiries_too: bool) -> bool {
        let due = self.store.effects.values().filter(|pending| match pending.effect.kind() {
            EffectKind::ExecuteRun => false,
            EffectKind::PollRepository => polls_too,
            EffectKind::RemindTesters => reminders_too,
            EffectKind::ExpireApproval => expiries_too,
            _ => true,
        });
        let Some(next) = due.map(|pending| pending.not_before).filter(|next| *next > self.now).min() else {
            return false;
        };
        self.now = next;
        true
    }

    /// One step without anything going wrong; `false` when all is at rest.
    fn settle_step(&mut self) -> Result<bool, Violation> {
        self.now = self.now.plus_ms(200);
        self.release_manager_helps();
        if !self.process.performing.is_empty() {
            self.go_on()?;
            return Ok(true);
        }
        if self.process.job.is_some() || self.has_work_for_runners() {
            self.runner_step()?;
            return Ok(true);
        }
        if self.lease() {
            return Ok(true);
        }
        // The hook of the last push may have been lost, or an older one came after it: a poll finds where the ref is.
        Ok(self.wait_for_next(!self.polled_last, true, true))
    }

    /// Whoever is asked to decide what stands still, decides; so that whatever is approved can come to its end.
    fn release_manager_helps(&mut self) {
        if let Some(number) = self.store.train.testing
            && self.approves_in_the_end
            && self.store.approvals.get(&number).is_some_and(|found| found.state == ApprovalState::Open)
            && self.now < self.store.approvals[&number].expires_at
        {
            self.person(&approve(&self.store, number));
        }
        let Some(rollout) = self.store.running() else { return };
        if rollout.state.word() == "paused" {
            let number = rollout.id.number;
            let event = RolloutEvent::Promote { by: "ann".into(), fully: false };
            self.person(&Event::Rollout { number, event });
        }
    }

    pub(crate) fn fails(&mut self) -> bool {
        self.chaos && self.rng.chance(8)
    }

    /// Dies here, if it is the place for it.
    pub(crate) fn point(&mut self, kind: EffectKind, point: Point) -> bool {
        let dies = self.chaos && (self.rng.chance(1) || (self.target == (kind, point) && self.rng.chance(40)));
        if dies {
            *self.stats.kills.entry((kind, point)).or_default() += 1;
            self.die(kind.word());
        }
        dies
    }

    fn die(&mut self, place: &str) {
        self.process = Process::default();
        self.store.reopen();
        self.say(|| format!("the server dies ({place}) and starts anew"));
    }

    /// Begins to perform one of the due effects; `false` when none is due.
    fn lease(&mut self) -> bool {
        let lane = |pending: &PendingEffect| pending.effect.lane().filter(|_| self.safe.lanes);
        let taken: Vec<String> =
            self.process.performing.values().filter_map(|performance| lane(&performance.pending)).collect();
        let due: Vec<&String> = self
            .store
            .effects
            .iter()
            .filter(|(key, pending)| {
                pending.effect.kind() != EffectKind::ExecuteRun
                    && pending.not_before <= self.now
                    && !self.process.performing.contains_key(*key)
                    && lane(pending).is_none_or(|lane| !taken.contains(&lane))
            })
            .map(|(key, _)| key)
            .collect();
        let Some(key) = self.rng.pick(&due).map(|key| (*key).clone()) else { return false };
        let pending = self.store.effects[&key].clone();
        match pending.effect.kind() {
            EffectKind::PollRepository => self.polled_last = true,
            EffectKind::ProcessDelivery => self.polled_last = false,
            _ => {}
        }
        if !self.point(pending.effect.kind(), Point::Before) {
            self.say(|| format!("{key} is begun"));
            self.process.performing.insert(key, Performance { pending, progress: 0, answer: None });
        }
        true
    }

    /// One of the effects that are being performed goes on by a step.
    fn go_on(&mut self) -> Result<(), Violation> {
        let keys: Vec<String> = self.process.performing.keys().cloned().collect();
        let Some(key) = self.rng.pick(&keys).cloned() else { return Ok(()) };
        let Some(mut performance) = self.process.performing.remove(&key) else { return Ok(()) };
        let kind = performance.pending.effect.kind();
        if let Some(answer) = performance.answer.take() {
            self.store_answer(&key, &performance.pending, answer);
            return Ok(());
        }
        let effect = performance.pending.effect.clone();
        match self.act(&effect, performance.progress)? {
            Act::More => performance.progress += 1,
            Act::Wait => {}
            answer => {
                if self.point(kind, Point::Answered) {
                    return Ok(());
                }
                performance.answer = Some(answer);
            }
        }
        self.process.performing.insert(key, performance);
        Ok(())
    }

    fn store_answer(&mut self, key: &str, pending: &PendingEffect, answer: Act) {
        let kind = pending.effect.kind();
        // Dying in the middle of the transaction: it is durable or not, and nobody was told.
        let is_durable = self.rng.chance(50);
        if !is_durable && self.point(kind, Point::Storing) {
            return;
        }
        let is_wanted = self.store.effects.get(key).is_some_and(|now| now.asked_by == pending.asked_by);
        if self.safe.asked_by && !is_wanted {
            self.say(|| format!("{key}: no longer wanted"));
            return;
        }
        match answer {
            Act::More | Act::Wait => {}
            Act::Retry(why) => {
                self.say(|| format!("{key}: {why}, will be tried again"));
                self.store.retry(key, pending, why, self.now);
            }
            Act::Done(input) => {
                *self.stats.performed.entry(kind).or_default() += 1;
                self.store_done(key, *input);
            }
        }
        if is_durable {
            self.point(kind, Point::Storing);
        }
    }

    fn store_done(&mut self, key: &str, input: Input) {
        let over = Input { finished: Some(key.to_owned()), ..Input::default() };
        let said = format!("{key}: {:?}", input.events);
        let result = if self.safe.one_transaction {
            self.store.apply(self.now, &Input { finished: Some(key.to_owned()), ..input })
        } else {
            // The end of the effect first: what follows from it is lost with the server.
            let first = self.store.apply(self.now, &over);
            if self.chaos && self.rng.chance(2) {
                self.die("between two transactions");
                return;
            }
            first.and_then(|()| self.store.apply(self.now, &input))
        };
        self.say(|| said);
        if let Err(refusal) = result {
            self.say(|| format!("{key}: came too late: {refusal}"));
            let ended = self.store.apply(self.now, &over);
            debug_assert!(ended.is_ok(), "an input without events is never refused");
        }
    }

    /// What somebody does by page or command line; a refusal is an answer too.
    pub(crate) fn person(&mut self, event: &Event) {
        match self.store.apply(self.now, &Input::event(event.clone())) {
            Ok(()) => self.stats.taken += 1,
            Err(Refusal::Lookup(error)) => unreachable!("the store in memory can always be read: {error}"),
            Err(refusal) => {
                self.stats.refused += 1;
                self.say(|| format!("refused: {refusal}"));
            }
        }
        self.say(|| format!("somebody: {event:?}"));
    }

    pub(crate) fn has_work_for_runners(&self) -> bool {
        self.store.effects.values().any(|pending| matches!(pending.effect, Effect::ExecuteRun { .. }))
    }
}
