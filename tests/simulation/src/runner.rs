//! Runners: the embedded one dies with the server, the other lives on its own. They take runs, as many at once as they may,
//! report, sometimes twice; die alone, and take their runs again. Their disks remember what they pushed.

use pipelines::{
    effect::{Effect, EffectKind},
    ids::{Digest, RunId},
    protocol::{Blame, CommitInfo, Report, StepOutcome},
    run::{RunEvent, RunState},
    time::UnixMs,
    train::Event,
};

use crate::{
    promise::Violation,
    sim::{NotStored, Point, Sim},
    store::Input,
    world::tag_of,
};

/// The runner within the server.
pub(crate) const EMBEDDED: &str = "embedded";
const RUNNERS: [&str; 2] = [EMBEDDED, "mill"];

/// A run that a runner works on.
#[derive(Debug)]
pub(crate) struct Job {
    run: u32,
    pub(crate) runner: &'static str,
    progress: usize,
}

/// What becomes of a job after one of its steps.
enum Next {
    /// It goes on here.
    At(usize),
    /// It is over, for this runner.
    Over,
}

impl Sim {
    pub(crate) fn runner_step(&mut self) -> Result<(), Violation> {
        if self.process.jobs.is_empty() || self.rng.chance(20) {
            self.take_run();
            return Ok(());
        }
        let index = self.rng.index(self.process.jobs.len());
        let job = self.process.jobs.swap_remove(index);
        if self.chaos && self.rng.chance(2) {
            self.say(|| format!("the runner {} dies alone", job.runner));
            return Ok(());
        }
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

    fn work(&mut self, job: &Job) -> Result<Next, Violation> {
        let run = &self.store.runs[&job.run];
        let is_cancelling = match &run.state {
            RunState::Running { runner } if runner.as_str() == job.runner => false,
            RunState::Cancelling { runner } if runner.as_str() == job.runner => true,
            // Not ours any more.
            _ => return Ok(Next::Over),
        };
        let sha = run.trigger.commit.clone();
        let commit = self.world.commit(&sha)?.clone();
        if is_cancelling && self.rng.chance(70) {
            return Ok(self.last_report(job, Report::Cancelled));
        }
        if job.progress == 4 && self.chaos && self.rng.chance(3) {
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
            1 => Report::Prepared { steps: vec![step()], plan: Box::new(commit.plan), releases: true },
            2 => Report::StepStarted { step: step(), at },
            3 if commit.is_red => {
                return Ok(self.last_report(job, Report::Failed { blame: Blame::Code, reason: "red".into() }));
            }
            3 => Report::StepFinished { step: step(), at, outcome: StepOutcome::Passed },
            4 if run.trigger.from_fork => {
                *self.stats.performed.entry(EffectKind::ExecuteRun).or_default() += 1;
                return Ok(self.last_report(job, Report::Passed));
            }
            4 => {
                self.world.push_image(job.run);
                self.point(EffectKind::ExecuteRun, Point::Answered);
                return Ok(Next::At(5));
            }
            _ => return Ok(self.succeed(job)),
        };
        let is_stored = self.report(job.run, &report);
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
        let has_it = self.process.jobs.iter().any(|job| job.run == run.number && job.runner == runner);
        if has_it || self.busy(runner) >= self.bounds.runs_max || self.point(EffectKind::ExecuteRun, Point::Before) {
            return;
        }
        let event = RunEvent::Leased { runner: runner.parse().expect("a good name") };
        if self.apply(&Input::event(Event::Run { number: run.number, event })).is_ok() {
            self.say(|| format!("the runner {runner} takes {run}"));
            self.process.jobs.push(Job { run: run.number, runner, progress: 0 });
        }
    }

    fn succeed(&mut self, job: &Job) -> Next {
        let run = job.run;
        let digest = self.world.push_image(run);
        let inputs = Digest::of(format!("inputs of {run}").as_bytes());
        let is_durable = self.rng.chance(50);
        if !is_durable && self.point(EffectKind::ExecuteRun, Point::Storing) {
            return Next::At(job.progress);
        }
        let next = self.last_report(job, Report::Succeeded { digest, tag: tag_of(run), reused_from: None, inputs });
        *self.stats.performed.entry(EffectKind::ExecuteRun).or_default() += 1;
        if is_durable {
            self.point(EffectKind::ExecuteRun, Point::Storing);
        }
        next
    }

    fn last_report(&mut self, job: &Job, report: Report) -> Next {
        if self.report(job.run, &report) { Next::Over } else { Next::At(job.progress) }
    }

    /// The answer may be lost: then the runner says it once more. Says whether the server has it.
    fn report(&mut self, number: u32, report: &Report) -> bool {
        let times = if self.rng.chance(10) { 2 } else { 1 };
        for _ in 0..times {
            let event = Event::Run { number, event: RunEvent::Reported { report: report.clone() } };
            self.say(|| format!("a runner: {}", event_word(&event)));
            match self.apply(&Input::event(event)) {
                Ok(()) => {}
                Err(NotStored::Full) => return false,
                Err(NotStored::Refused(refusal)) => self.say(|| format!("the runner is refused: {refusal}")),
            }
        }
        true
    }
}

fn event_word(event: &Event) -> String {
    match event {
        Event::Run { number, event } => format!("run {number} {}", event.word()),
        other => format!("{other:?}"),
    }
}
