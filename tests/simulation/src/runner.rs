//! Runners: the embedded one dies with the server, the others live on their own. They take runs, as many at once as they
//! may, report, sometimes twice or very late; die alone and take their runs again; are cut off for a while, and do meanwhile
//! what they may do alone. Their disks remember what they pushed.

use pipelines::{
    effect::{Effect, EffectKind},
    ids::{Digest, RunId, RunnerName},
    labels::Labels,
    protocol::{Blame, CommitInfo, Report, StepOutcome},
    run::{Run, RunEvent, RunState},
    time::UnixMs,
    train::Event,
};

use crate::{
    promise::{Promise, Violation},
    sim::{NotStored, Point, Process, Sim},
    store::{Input, Store},
    world::tag_of_attempt,
};

/// The runner within the server.
pub(crate) const EMBEDDED: &str = "embedded";
const RUNNERS: [&str; 3] = [EMBEDDED, "mill", "forge"];
/// After how long a silence a runner counts as lost.
pub(crate) const LOST_MS: u64 = 20_000;
/// Runners that may be lost with one run.
pub(crate) const LOST_MAX: u32 = 3;
/// For how long after an answer a runner takes its run for its own.
const SURE_MS: u64 = LOST_MS * 3 / 4;
/// The step in which the image is pushed.
const PUSH: usize = 4;

/// A run that a runner works on.
#[derive(Debug)]
pub(crate) struct Job {
    run: u32,
    pub(crate) runner: &'static str,
    attempt: u32,
    progress: usize,
    /// When the last question was sent that was answered, on the clock that nobody sets.
    answered: u64,
}

/// What a runner says: who, of which run and attempt.
pub(crate) type Said = (RunnerName, u32, u32, Report);

/// What becomes of a job after one of its steps.
enum Next {
    /// It goes on here.
    At(usize),
    /// It is over, for this runner.
    Over,
}

/// The labels that some commits ask for, and the embedded runner does not have.
pub(crate) fn fast() -> Labels {
    "fast=true".parse().expect("good labels")
}

fn labels_of(runner: &str) -> Labels {
    if runner == EMBEDDED { Labels::default() } else { fast() }
}

fn is_with(run: &Run, runner: &str, attempt: u32) -> bool {
    let is_under_way = matches!(run.state, RunState::Running { .. } | RunState::Cancelling { .. });
    is_under_way && run.holder().is_some_and(|(holder, now)| holder.as_str() == runner && now == attempt)
}

/// Whoever is not cut off gives a sign of life, and drops what is not theirs any more.
pub(crate) fn heartbeats(process: &mut Process, store: &Store, cut: Option<&str>, mono: u64) {
    let Process { jobs, heard, .. } = process;
    jobs.retain_mut(|job| {
        if cut == Some(job.runner) {
            return true;
        }
        let is_own = is_with(&store.runs[&job.run], job.runner, job.attempt);
        if is_own {
            job.answered = mono;
            heard.insert(job.run, (job.attempt, mono));
        }
        is_own
    });
}

impl Sim {
    pub(crate) fn runner_step(&mut self) -> Result<(), Violation> {
        if self.chaos {
            self.cut_off();
        }
        if self.process.jobs.is_empty() || self.rng.chance(20) {
            self.take_run();
            return Ok(());
        }
        let index = self.rng.index(self.process.jobs.len());
        let mut job = self.process.jobs.swap_remove(index);
        if self.chaos && self.rng.chance(2) {
            self.say(|| format!("the runner {} dies alone", job.runner));
            return Ok(());
        }
        if self.cut == Some(job.runner) {
            let progress = self.work_alone(&job)?;
            self.process.jobs.push(Job { progress, ..job });
            return Ok(());
        }
        job.answered = self.mono;
        let deaths = self.deaths;
        let next = self.work(&job)?;
        let died = self.deaths > deaths && job.runner == EMBEDDED;
        if let Next::At(progress) = next
            && !died
        {
            self.process.jobs.push(Job { progress, ..job });
        }
        Ok(())
    }

    /// The network between the server and one of the runners is cut, or whole again.
    fn cut_off(&mut self) {
        let pushes = self.process.jobs.iter().find(|job| job.progress == PUSH && job.runner != EMBEDDED);
        match self.cut {
            Some(runner) if self.rng.chance(5) => {
                self.cut = None;
                self.say(|| format!("the runner {runner} is heard again"));
            }
            // Most is at stake when somebody is about to push.
            None if self.rng.chance(if pushes.is_some() { 10 } else { 1 }) => {
                let runner = pushes.map_or(RUNNERS[1 + self.rng.index(2)], |job| job.runner);
                self.cut = Some(runner);
                self.say(|| format!("the runner {runner} is cut off"));
            }
            _ => {}
        }
    }

    /// What a runner does while nobody hears it: a push, as long as the run is surely its own; and it says that it is done,
    /// which may arrive when nobody expects it any more.
    fn work_alone(&mut self, job: &Job) -> Result<usize, Violation> {
        let is_strangers = self.store.runs[&job.run].trigger.from_fork;
        if job.progress == PUSH && !is_strangers && self.rng.chance(20) {
            let is_sure = self.mono - job.answered < SURE_MS || !self.safe.sure;
            if is_sure {
                self.push_image(job)?;
                return Ok(PUSH + 1);
            }
        }
        if job.progress == PUSH + 1 {
            let digest = self.world.push_image(job.run, job.attempt);
            let runner = job.runner.parse().expect("a good name");
            self.world.late.push((runner, job.run, job.attempt, done(job, digest)));
            return Ok(PUSH + 2);
        }
        Ok(job.progress)
    }

    fn push_image(&mut self, job: &Job) -> Result<(), Violation> {
        let run = &self.store.runs[&job.run];
        let is_others = matches!(run.state, RunState::Running { .. }) && !is_with(run, job.runner, job.attempt);
        if is_others {
            let words = format!("{} pushes run {}, which {:?} has", job.runner, job.run, run.holder());
            return Err(Violation::new(Promise::NothingTwice, words));
        }
        self.world.push_image(job.run, job.attempt);
        Ok(())
    }

    fn work(&mut self, job: &Job) -> Result<Next, Violation> {
        let run = &self.store.runs[&job.run];
        if !is_with(run, job.runner, job.attempt) {
            // Not ours any more.
            return Ok(Next::Over);
        }
        self.process.heard.insert(job.run, (job.attempt, self.mono));
        let run = &self.store.runs[&job.run];
        let is_cancelling = matches!(run.state, RunState::Cancelling { .. });
        let sha = run.trigger.commit.clone();
        let commit = self.world.commit(&sha)?.clone();
        if is_cancelling && self.rng.chance(70) {
            return Ok(self.last_report(job, Report::Cancelled));
        }
        if job.progress == PUSH && self.chaos && self.rng.chance(3) {
            self.world.infrastructure_failed.insert(job.run);
            let report = Report::Failed { blame: Blame::Infrastructure, reason: "the disk is full".into() };
            return Ok(self.last_report(job, report));
        }
        if !is_cancelling && self.chaos && self.rng.chance(1) {
            self.world.infrastructure_failed.insert(job.run);
            return Ok(self.last_report(job, Report::Cancelled));
        }
        let step = || "test".to_owned();
        let at = self.now;
        let report = match job.progress {
            0 => Report::CheckedOut {
                commit: CommitInfo {
                    sha,
                    message: "change".into(),
                    author: "Dev".into(),
                    author_email: commit.author.into(),
                    committed_at: UnixMs(0),
                    changes: Vec::new(),
                },
            },
            1 if !commit.labels.fit(&labels_of(job.runner)) => {
                return Ok(self.last_report(job, Report::Unfit { labels: commit.labels }));
            }
            1 => Report::Prepared { steps: vec![step()], plan: Box::new(commit.plan), releases: true },
            2 => Report::StepStarted { step: step(), at },
            3 if commit.is_red => {
                return Ok(self.last_report(job, Report::Failed { blame: Blame::Code, reason: "red".into() }));
            }
            3 => Report::StepFinished { step: step(), at, outcome: StepOutcome::Passed },
            PUSH if run.trigger.from_fork => {
                *self.stats.performed.entry(EffectKind::ExecuteRun).or_default() += 1;
                return Ok(self.last_report(job, Report::Passed));
            }
            PUSH => {
                self.push_image(job)?;
                self.point(EffectKind::ExecuteRun, Point::Answered);
                return Ok(Next::At(PUSH + 1));
            }
            _ => return Ok(self.succeed(job)),
        };
        let is_stored = self.report(job, &report);
        Ok(Next::At(job.progress + usize::from(is_stored)))
    }

    fn take_run(&mut self) {
        let waiting: Vec<RunId> = self
            .store
            .effects
            .values()
            .filter_map(|pending| match &pending.effect {
                Effect::ExecuteRun { run } => Some(run.clone()),
                _ => None,
            })
            .collect();
        let Some(run) = self.rng.pick(&waiting).cloned() else { return };
        let runner = self.rng.pick(&RUNNERS).copied().unwrap_or(EMBEDDED);
        let record = &self.store.runs[&run.number];
        let is_fit = record.state != RunState::Queued || record.labels.fit(&labels_of(runner));
        if self.cut == Some(runner) || !is_fit {
            return;
        }
        let has_it = self.process.jobs.iter().any(|job| job.run == run.number && job.runner == runner);
        if has_it || self.busy(runner) >= self.bounds.runs_max || self.point(EffectKind::ExecuteRun, Point::Before) {
            return;
        }
        let event = RunEvent::Leased { runner: runner.parse().expect("a good name"), lease_ms: LOST_MS };
        if self.apply(&Input::event(Event::Run { number: run.number, event })).is_ok() {
            let attempt = self.store.runs[&run.number].attempt;
            self.say(|| format!("the runner {runner} takes {run} in attempt {attempt}"));
            self.process.heard.insert(run.number, (attempt, self.mono));
            // The answer may be lost: then it is given again.
            if !(self.chaos && self.rng.chance(3)) {
                let answered = self.mono;
                self.process.jobs.push(Job { run: run.number, runner, attempt, progress: 0, answered });
            }
        }
    }

    fn succeed(&mut self, job: &Job) -> Next {
        let digest = self.world.push_image(job.run, job.attempt);
        let is_durable = self.rng.chance(50);
        if !is_durable && self.point(EffectKind::ExecuteRun, Point::Storing) {
            return Next::At(job.progress);
        }
        let next = self.last_report(job, done(job, digest));
        *self.stats.performed.entry(EffectKind::ExecuteRun).or_default() += 1;
        if is_durable {
            self.point(EffectKind::ExecuteRun, Point::Storing);
        }
        next
    }

    fn last_report(&mut self, job: &Job, report: Report) -> Next {
        if self.report(job, &report) { Next::Over } else { Next::At(job.progress) }
    }

    /// The answer may be lost: then the runner says it once more. Says whether the server has it.
    fn report(&mut self, job: &Job, report: &Report) -> bool {
        let said: Said = (job.runner.parse().expect("a good name"), job.run, job.attempt, report.clone());
        let times = if self.rng.chance(10) { 2 } else { 1 };
        (0..times).all(|_| self.hear(&said))
    }

    /// Something that was held up on its way comes.
    pub(crate) fn late_report(&mut self) {
        if self.world.late.is_empty() {
            return;
        }
        let index = self.rng.index(self.world.late.len());
        let said = self.world.late.swap_remove(index);
        self.hear(&said);
    }

    /// Says whether the server could write it down, or has refused it.
    fn hear(&mut self, (runner, number, attempt, report): &Said) -> bool {
        let (mut runner, mut attempt) = (runner.clone(), *attempt);
        if !self.safe.fenced
            && let Some((holder, now)) = self.store.runs[number].holder()
        {
            (runner, attempt) = (holder.clone(), now);
        }
        let event = RunEvent::Reported { runner, attempt, report: report.clone() };
        self.say(|| format!("a runner: run {number} {}", event.word()));
        match self.apply(&Input::event(Event::Run { number: *number, event })) {
            Ok(()) => {}
            Err(NotStored::Full) => return false,
            Err(NotStored::Refused(refusal)) => {
                self.stats.reports_refused += 1;
                self.say(|| format!("the runner is refused: {refusal}"));
            }
        }
        true
    }
}

fn done(job: &Job, digest: Digest) -> Report {
    let inputs = Digest::of(format!("inputs of {}", job.run).as_bytes());
    Report::Succeeded { digest, tag: tag_of_attempt(job.run, job.attempt), reused_from: None, inputs }
}
