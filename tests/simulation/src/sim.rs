//! One simulated life of some services on one server: what happens next is chance, in whichever order; the server dies at
//! any moment; after each step the promises are checked. Not here: what the parties do (`world`, `drivers`, `runner`,
//! `people`).

use std::{collections::BTreeMap, mem};

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
    promise::{Promise, Violation},
    rng::Rng,
    runner::{EMBEDDED, Job, heartbeats},
    safeguards::Safeguards,
    stats::{Stats, add_counts},
    store::{Input, Store},
    world::{START, World},
};

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

/// Which life is lived.
#[derive(Clone, Debug)]
pub struct Life {
    /// Where its chance begins.
    pub seed: u64,
    /// The steps of its chaos that happen; all, where there are none.
    pub steps: Option<Vec<u32>>,
}

impl Life {
    /// The life of a seed, with nothing left out.
    #[must_use]
    pub fn whole(seed: u64) -> Self {
        Self { seed, steps: None }
    }
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
    /// Answers that come once more: key, asking, answer.
    pub(crate) echoes: Vec<(String, PendingEffect, Act)>,
    /// What people pressed and the server has not looked at yet.
    pub(crate) pressed: Vec<Event>,
    /// Runs that runners work on. Those of a runner on its own go on when the server dies.
    pub(crate) jobs: Vec<Job>,
    /// What it heard of each run last: in which attempt, and when on the clock that nobody sets.
    pub(crate) heard: BTreeMap<u32, (u32, u64)>,
    /// When it started, on that clock.
    pub(crate) started: u64,
    /// The release that is shown in test before the store says so.
    pub(crate) early_in_test: Option<u32>,
}

/// A life in which a promise was broken.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub violation: Violation,
    /// What happened before, if it was traced.
    pub trace: Vec<String>,
}

/// Why an input was not stored.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// The disk is full, or cannot be written.
    Full,
    /// The domain refused it.
    Refused(Refusal),
}

/// A service whose turn it is not.
struct Shop {
    store: Store,
    world: World,
    process: Process,
    memory: Memory,
    polled_last: bool,
}

/// What all services share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Effects that are performed at once.
    effects_max: usize,
    /// Runs that one runner works on at once.
    pub(crate) runs_max: usize,
}

/// One life.
pub struct Sim {
    seed: u64,
    pub(crate) rng: Rng,
    pub(crate) now: UnixMs,
    /// The clock that nobody sets, in milliseconds.
    pub(crate) mono: u64,
    /// The runner that nobody hears.
    pub(crate) cut: Option<&'static str>,
    /// The service whose turn it is.
    pub(crate) store: Store,
    pub(crate) world: World,
    pub(crate) process: Process,
    pub(crate) memory: Memory,
    /// Whether a poll has looked since the last hook was.
    polled_last: bool,
    others: Vec<Shop>,
    pub(crate) bounds: Bounds,
    pub(crate) safe: Safeguards,
    /// Whether things fail and die, people press and commits come.
    pub(crate) chaos: bool,
    /// Whether the disk takes nothing now.
    pub(crate) disk_is_full: bool,
    /// How often the server died.
    pub(crate) deaths: u64,
    /// The place at which this life is killed for sure, if it comes by.
    target: (EffectKind, Point),
    /// Whether somebody approves what still waits when the chaos is over; or it expires.
    approves_in_the_end: bool,
    pub(crate) stats: Stats,
    trace: Option<Vec<String>>,
}

/// Steps of chaos in one life.
pub(crate) const CHAOS_STEPS: u32 = 500;
/// Steps within which everything must come to rest.
const SETTLE_STEPS: u32 = 8_000;
const SERVICES: [&str; 3] = ["shop", "cart", "till"];

pub(crate) fn service(name: &str, allow_self_approval: bool) -> Service {
    let name: ServiceName = name.parse().expect("a good name");
    Service {
        repository_url: format!("https://git.example/{name}.git"),
        name,
        credential: CredentialKind::None,
        known_hosts: Vec::new(),
        ca_pem: None,
        allow_unsigned_hooks: false,
        poll_interval_ms: 60_000,
        release_branch: None,
        default_branch: Some("main".into()),
        allow_self_approval,
        created_at: START,
        created_by: "admin".into(),
    }
}

impl Sim {
    /// Lives one life.
    ///
    /// # Errors
    /// [`Failure`] when a promise was broken.
    pub fn live(life: &Life, safe: Safeguards, traced: bool) -> Result<Stats, Failure> {
        let mut sim = Self::new(life.seed, safe, traced);
        match sim.run(life.steps.as_deref()) {
            Ok(()) => Ok(sim.all_stats()),
            Err(violation) => Err(Failure { violation, trace: sim.trace.unwrap_or_default() }),
        }
    }

    fn new(seed: u64, safe: Safeguards, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let points = EffectKind::ALL.len() as u64 * 3;
        let index = usize::try_from(seed % points).unwrap_or(0);
        let target = (EffectKind::ALL[index / 3], Point::ALL[index % 3]);
        let count = match rng.below(10) {
            0 => 3,
            1 | 2 => 2,
            _ => 1,
        };
        let mut shops = Vec::new();
        for name in &SERVICES[..count] {
            let mut world = World::default();
            world.service = (*name).to_owned();
            shops.push(Shop {
                store: Store::new(service(name, rng.chance(25)), safe.flushes),
                world,
                process: Process::default(),
                memory: Memory::default(),
                polled_last: false,
            });
        }
        let bounds = Bounds { effects_max: 1 + rng.index(12), runs_max: 1 + rng.index(2) };
        let first = shops.remove(0);
        Self {
            seed,
            rng,
            now: START,
            mono: 0,
            cut: None,
            store: first.store,
            world: first.world,
            process: first.process,
            memory: first.memory,
            polled_last: false,
            others: shops,
            bounds,
            safe,
            chaos: true,
            disk_is_full: false,
            deaths: 0,
            target,
            approves_in_the_end: seed.is_multiple_of(2),
            stats: Stats::default(),
            trace: traced.then(Vec::new),
        }
    }

    fn all_stats(self) -> Stats {
        let mut stats = self.stats;
        let others = self.others.into_iter().map(|shop| (shop.store, shop.world));
        for (store, world) in [(self.store, self.world)].into_iter().chain(others) {
            stats.requests += world.requests;
            add_counts(&mut stats.reached, store.reached);
        }
        stats
    }

    /// It is another service's turn: whose, is chance.
    fn turn(&mut self) {
        let index = self.rng.index(self.others.len() + 1);
        self.turn_to(index);
    }

    fn turn_to(&mut self, index: usize) {
        if let Some(other) = self.others.get_mut(index) {
            mem::swap(&mut self.store, &mut other.store);
            mem::swap(&mut self.world, &mut other.world);
            mem::swap(&mut self.process, &mut other.process);
            mem::swap(&mut self.memory, &mut other.memory);
            mem::swap(&mut self.polled_last, &mut other.polled_last);
        }
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        [&self.process].into_iter().chain(self.others.iter().map(|other| &other.process))
    }

    /// How many runs of all services `runner` works on.
    pub(crate) fn busy(&self, runner: &str) -> usize {
        self.processes().flat_map(|process| &process.jobs).filter(|job| job.runner == runner).count()
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} {} {}", self.now.since_ms(START), self.world.service, what()));
        }
    }

    fn run(&mut self, steps: Option<&[u32]>) -> Result<(), Violation> {
        for step in 0..CHAOS_STEPS {
            if steps.is_some_and(|steps| steps.binary_search(&step).is_err()) {
                continue;
            }
            self.rng = Rng::of_step(self.seed, step);
            self.turn();
            self.chaos_step()?;
            self.after_step()?;
        }
        self.rng = Rng::of_step(self.seed, CHAOS_STEPS);
        (self.chaos, self.disk_is_full, self.cut) = (false, false, None);
        self.say(|| "the chaos is over".into());
        // What one service holds of the shared bounds, another may wait for.
        for index in 0..=self.others.len() {
            self.finish()?;
            self.turn_to(index);
        }
        for index in 0..=self.others.len() {
            self.settle()?;
            self.turn_to(index);
        }
        Ok(())
    }

    /// Lets what is being performed come to its end.
    fn finish(&mut self) -> Result<(), Violation> {
        for _ in 0..SETTLE_STEPS {
            if !self.process.performing.is_empty() {
                self.go_on()?;
            } else if !self.process.jobs.is_empty() {
                self.runner_step()?;
            } else {
                break;
            }
            self.after_step()?;
        }
        Ok(())
    }

    /// Lets everything that the service has under way come to its end.
    fn settle(&mut self) -> Result<(), Violation> {
        self.world.is_quiet = false;
        self.polled_last = false;
        for _ in 0..SETTLE_STEPS {
            if !self.settle_step()? {
                self.confuse()?;
                return self.check_rest();
            }
            self.after_step()?;
        }
        let pending: Vec<_> = self.store.effects.keys().collect();
        Err(Violation::new(Promise::GoesOn, format!("nothing rests after {SETTLE_STEPS} steps; pending: {pending:?}")))
    }

    fn after_step(&mut self) -> Result<(), Violation> {
        self.stats.steps += 1;
        self.world.traffic(40, &mut self.rng)?;
        let performing: usize = self.processes().map(|process| process.performing.len()).sum();
        if performing > self.bounds.effects_max {
            return Err(Violation::new(Promise::Bounded, format!("{performing} effects are performed at once")));
        }
        self.check()
    }

    fn chaos_step(&mut self) -> Result<(), Violation> {
        let span_ms = self.rng.below(400);
        self.pass(span_ms);
        let is_timer = |performance: &Performance| {
            use EffectKind::{ExpireApproval, ExpireHold, RemindTesters};
            matches!(performance.pending.effect.kind(), ExpireApproval | ExpireHold | RemindTesters)
        };
        // By pure chance the clock would hardly ever be set back at the one moment at which it matters.
        if self.process.performing.values().any(is_timer) && self.rng.chance(8) {
            self.jump(true);
        }
        if self.disk_is_full && self.rng.chance(4) {
            self.disk_is_full = false;
            self.say(|| "there is room on the disk again".into());
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
            56 => {
                self.late_report();
                Ok(())
            }
            28 => {
                let back = self.rng.chance(30);
                self.jump(back);
                Ok(())
            }
            29 => {
                self.world.is_quiet = self.rng.chance(30);
                Ok(())
            }
            30 => {
                match self.rng.below(8) {
                    0..=3 => self.die("at some moment"),
                    4 | 5 => {
                        self.disk_is_full = true;
                        self.say(|| "the disk is full".into());
                    }
                    6 => {
                        let pushed = self.world.move_tag(&mut self.rng);
                        self.say(|| format!("somebody pushes another image under the tag {pushed:?}"));
                    }
                    _ => {}
                }
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
            55 | 62..=64 => self.confuse(),
            57..=60 if !self.process.pressed.is_empty() => {
                let index = self.rng.index(self.process.pressed.len());
                let event = self.process.pressed.swap_remove(index);
                self.person(&event);
                Ok(())
            }
            61 if !self.process.echoes.is_empty() => {
                let index = self.rng.index(self.process.echoes.len());
                let (key, pending, answer) = self.process.echoes.swap_remove(index);
                self.say(|| format!("{key}: the answer comes once more"));
                self.stats.answered_twice += 1;
                self.store_answer(&key, &pending, answer);
                Ok(())
            }
            _ => self.go_on(),
        }
    }

    /// Time passes.
    fn pass(&mut self, span_ms: u64) {
        self.now = self.now.plus_ms(span_ms);
        self.mono += span_ms;
        heartbeats(&mut self.process, &self.store, self.cut, self.mono);
        for other in &mut self.others {
            heartbeats(&mut other.process, &other.store, self.cut, self.mono);
        }
    }

    /// The clock is set forth or back.
    fn jump(&mut self, back: bool) {
        let far = self.rng.chance(10);
        let span_ms = self.rng.below(if far { 3_600_000 } else { 60_000 });
        self.now = UnixMs(if back { self.now.0.saturating_sub(span_ms).max(START.0) } else { self.now.0 + span_ms });
        self.stats.clock_back += u64::from(back);
        self.say(|| format!("the clock jumps {} {span_ms} ms", if back { "back" } else { "forth" }));
    }

    /// Waits until the next effect is due.
    fn wait_for_next(&mut self, polls_too: bool, reminders_too: bool, expiries_too: bool) -> bool {
        let due = self.store.effects.values().filter(|pending| match pending.effect.kind() {
            EffectKind::ExecuteRun => false,
            EffectKind::PollRepository => polls_too,
            EffectKind::RemindTesters => reminders_too,
            EffectKind::ExpireApproval | EffectKind::ExpireHold => expiries_too,
            _ => true,
        });
        let Some(next) = due.map(|pending| pending.not_before).filter(|next| *next > self.now).min() else {
            return false;
        };
        self.pass(next.since_ms(self.now));
        true
    }

    /// One step without anything going wrong; `false` when all is at rest.
    fn settle_step(&mut self) -> Result<bool, Violation> {
        self.pass(200);
        self.release_manager_helps();
        if let Some(event) = self.process.pressed.pop() {
            self.person(&event);
            return Ok(true);
        }
        if !self.process.performing.is_empty() {
            self.go_on()?;
            return Ok(true);
        }
        if !self.process.jobs.is_empty() || self.has_work_for_runners() {
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
        self.deaths += 1;
        let lost = self.rng.chance(50);
        let mono = self.mono;
        let end = |process: &mut Process, store: &mut Store| {
            // A runner on its own lives on, and tells what it did when the server is back.
            let mut jobs = mem::take(&mut process.jobs);
            jobs.retain(|job| job.runner != EMBEDDED);
            *process = Process { jobs, started: mono, ..Process::default() };
            store.reopen(lost);
        };
        end(&mut self.process, &mut self.store);
        for other in &mut self.others {
            end(&mut other.process, &mut other.store);
        }
        self.say(|| format!("the server dies ({place}) and starts anew"));
    }

    /// Begins to perform one of the due effects; `false` when none is due.
    fn lease(&mut self) -> bool {
        if self.processes().map(|process| process.performing.len()).sum::<usize>() >= self.bounds.effects_max {
            return false;
        }
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
        let index = self.rng.index(self.process.performing.len());
        let Some(key) = self.process.performing.keys().nth(index).cloned() else { return Ok(()) };
        let Some(mut performance) = self.process.performing.remove(&key) else { return Ok(()) };
        let kind = performance.pending.effect.kind();
        if let Some(answer) = performance.answer.take() {
            // What was not stored is performed anew; what was may be said once more.
            if self.chaos && !self.disk_is_full && self.rng.chance(10) {
                self.process.echoes.push((key.clone(), performance.pending.clone(), answer.clone()));
            }
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
        let is_wanted = self.store.effects.get(key).is_some_and(|now| now.is_same_asking(pending));
        if self.safe.asked_by && !is_wanted {
            self.say(|| format!("{key}: no longer wanted"));
            return;
        }
        match answer {
            Act::More | Act::Wait => {}
            Act::Retry(_) if self.disk_is_full => self.stats.not_stored += 1,
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
            self.apply(&Input { finished: Some(key.to_owned()), ..input })
        } else {
            // The end of the effect first: what follows from it is lost with the server.
            let first = self.apply(&over);
            if self.chaos && self.rng.chance(2) {
                self.die("between two transactions");
                return;
            }
            first.and_then(|()| self.apply(&input))
        };
        self.say(|| said);
        match result {
            Ok(()) => {}
            Err(NotStored::Full) => self.say(|| format!("{key}: its outcome was not stored, it stays pending")),
            Err(NotStored::Refused(refusal)) => {
                self.say(|| format!("{key}: came too late: {refusal}"));
                let ended = self.apply(&over);
                debug_assert!(ended.is_ok(), "an input without events is never refused");
            }
        }
    }

    /// Stores an input, as far as there is room for it.
    pub(crate) fn apply(&mut self, input: &Input) -> Result<(), NotStored> {
        if self.disk_is_full {
            self.stats.not_stored += 1;
            return Err(NotStored::Full);
        }
        self.store.apply(self.now, input).map_err(NotStored::Refused)
    }

    /// What somebody does by page or command line; a refusal is an answer too.
    pub(crate) fn person(&mut self, event: &Event) {
        match self.apply(&Input::event(event.clone())) {
            Ok(()) => self.stats.taken += 1,
            Err(NotStored::Full) => self.say(|| "nobody can do anything now".into()),
            Err(NotStored::Refused(Refusal::Lookup(error))) => {
                unreachable!("the store in memory can always be read: {error}")
            }
            Err(NotStored::Refused(refusal)) => {
                self.stats.refused += 1;
                self.say(|| format!("refused: {refusal}"));
            }
        }
        self.say(|| format!("somebody: {event:?}"));
    }

    /// Two people do something at the same moment.
    pub(crate) fn at_once(&mut self, one: &Event, other: &Event) {
        if self.safe.one_at_a_time || self.disk_is_full {
            self.person(one);
            self.person(other);
        } else {
            self.say(|| format!("at once: {one:?} and {other:?}"));
            self.store.apply_at_once(self.now, [one, other]);
        }
    }

    pub(crate) fn has_work_for_runners(&self) -> bool {
        self.store.effects.values().any(|pending| matches!(pending.effect, Effect::ExecuteRun { .. }))
    }
}
