//! The embedded runner: takes runs one by one, reports, sometimes twice; dies with the server or alone, and takes its run
//! again. Its disk remembers what it pushed.

use pipelines::{
    effect::{Effect, EffectKind},
    ids::{Digest, RunId, RunnerName},
    protocol::{Blame, CommitInfo, Report, StepOutcome},
    run::{RunEvent, RunState},
    time::UnixMs,
    train::Event,
};

use crate::{
    sim::{Point, Sim, Violation},
    store::Input,
};

/// A run that the runner works on.
#[derive(Debug)]
pub(crate) struct Job {
    run: u32,
    progress: usize,
}

fn runner() -> RunnerName {
    "embedded".parse().expect("a good name")
}

impl Sim {
    pub(crate) fn runner_step(&mut self) -> Result<(), Violation> {
        let Some(job) = self.process.job.take() else {
            self.take_run();
            return Ok(());
        };
        if self.chaos && self.rng.chance(2) {
            self.say(|| "the runner dies alone".into());
            return Ok(());
        }
        let run = &self.store.runs[&job.run];
        let is_cancelling = match &run.state {
            RunState::Running { .. } => false,
            RunState::Cancelling { .. } => true,
            // Not ours any more.
            _ => return Ok(()),
        };
        let commit = self.world.commit(&run.trigger.commit)?.clone();
        let sha = run.trigger.commit.clone();
        if is_cancelling && self.rng.chance(70) {
            self.report(job.run, Report::Cancelled);
            return Ok(());
        }
        if job.progress == 4 && self.chaos && self.rng.chance(3) {
            self.report(job.run, Report::Failed { blame: Blame::Infrastructure, reason: "the disk is full".into() });
            return Ok(());
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
                self.report(job.run, Report::Failed { blame: Blame::Code, reason: "red".into() });
                return Ok(());
            }
            3 => Report::StepFinished { step: step(), at, outcome: StepOutcome::Passed },
            4 => {
                self.world.push_image(job.run);
                if !self.point(EffectKind::ExecuteRun, Point::Answered) {
                    self.process.job = Some(Job { progress: 5, ..job });
                }
                return Ok(());
            }
            _ => {
                self.succeed(job.run);
                return Ok(());
            }
        };
        self.report(job.run, report);
        self.process.job = Some(Job { progress: job.progress + 1, ..job });
        Ok(())
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
        if self.point(EffectKind::ExecuteRun, Point::Before) {
            return;
        }
        let event = Event::Run { number: run.number, event: RunEvent::Leased { runner: runner() } };
        if self.store.apply(self.now, &Input::event(event)).is_ok() {
            self.say(|| format!("the runner takes {run}"));
            self.process.job = Some(Job { run: run.number, progress: 0 });
        }
    }

    fn succeed(&mut self, run: u32) {
        let digest = self.world.push_image(run);
        let inputs = Digest::of(format!("inputs of {run}").as_bytes());
        let is_durable = self.rng.chance(50);
        if !is_durable && self.point(EffectKind::ExecuteRun, Point::Storing) {
            return;
        }
        self.report(run, Report::Succeeded { digest, tag: format!("r{run}"), reused_from: None, inputs });
        *self.stats.performed.entry(EffectKind::ExecuteRun).or_default() += 1;
        if is_durable {
            self.point(EffectKind::ExecuteRun, Point::Storing);
        }
    }

    /// The answer may be lost: then the runner says it once more.
    fn report(&mut self, number: u32, report: Report) {
        let times = if self.rng.chance(10) { 2 } else { 1 };
        for _ in 0..times {
            let event = Event::Run { number, event: RunEvent::Reported { report: report.clone() } };
            self.say(|| format!("the runner: {}", event_word(&event)));
            let taken = self.store.apply(self.now, &Input::event(event));
            if let Err(refusal) = taken {
                self.say(|| format!("the runner is refused: {refusal}"));
            }
        }
    }
}

fn event_word(event: &Event) -> String {
    match event {
        Event::Run { number, event } => format!("run {number} {}", event.word()),
        other => format!("{other:?}"),
    }
}
