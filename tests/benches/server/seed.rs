//! Fills a state folder as a server would have filled it: the application itself, without its drivers, told what a
//! repository, a runner, the engine and people would say. Not here: what is measured.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use pipelines::{
    approval::{Actor, ApprovalEvent},
    effect::{EffectKind, PendingEffect},
    ids::{CommitSha, Digest, ReleaseId, RunnerName, ServiceName},
    journal::Origin,
    plan::DeliveryPlan,
    protocol::{Blame, CommitInfo, Report, Secret, StepOutcome},
    release::ReleaseEvent,
    rollout::{RolloutEvent, judge::RevisionStats},
    run::RunEvent,
    train::Event,
};
use serde_json::json;
use server::{
    app::{
        App, Role,
        deliveries::Listed,
        keys::Keys,
        services::ServiceInput,
        system_clock,
        trains::{Extras, Outcome},
    },
    config::Config,
    store::{
        embedded::EmbeddedStore,
        engine::{self, EngineConfig},
        logs::{LogConfig, LogStore},
    },
};

/// Services that are filled side by side: they share flushes.
const SIDE_BY_SIDE: usize = 32;
/// The account that the benches sign in with.
pub(crate) const ADMIN: (&str, &str) = ("admin", "the password of the benches");
/// The secret of every service's hooks.
pub(crate) const HOOK_SECRET: &str = "the secret of the hooks";

/// How far the releases of a service have come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Far {
    /// Each was live for a while; the last one is.
    Live,
    /// Its runs failed in a step, there is no release.
    RunsFailed,
    /// The testers of its only release are about to be mailed.
    AboutToAsk,
}

/// Fills the state folder that `config` names with services `svc-0000`, … with so many runs each.
pub(crate) async fn fill(config: &Path, services: usize, runs: u32, far: Far) -> Result<()> {
    let config = Config::load(config)?;
    let state = config.state_dir.clone();
    std::fs::create_dir_all(&state)?;
    let keys = Keys::load(&state.join("key"))?;
    let engine = engine::open(&state.join("store"), &EngineConfig::default())?;
    let store = Arc::new(EmbeddedStore::open(engine)?);
    let logs = Arc::new(LogStore::open(&state.join("logs"), LogConfig::default())?);
    let app = Arc::new(App::new(config, store, logs, keys, system_clock())?);
    let password = Secret::new(ADMIN.1);
    app.account_create(ADMIN.0, "admin@example.com", Role::Admin, password, Origin::server()).await?;
    let places = Arc::new(tokio::sync::Semaphore::new(SIDE_BY_SIDE));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..services {
        let (app, places) = (Arc::clone(&app), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire().await?;
            let name = format!("svc-{number:04}").parse()?;
            Filling { app, name }.service(runs, far).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// One service that is being filled.
struct Filling {
    app: Arc<App>,
    name: ServiceName,
}

impl Filling {
    async fn service(&self, runs: u32, far: Far) -> Result<()> {
        let input = ServiceInput {
            repository_url: Some(format!("https://git.example.com/shop/{}.git", self.name)),
            hook_secret: Some(Secret::new(HOOK_SECRET)),
            // Nothing answers at that address.
            poll_interval_ms: Some(0),
            ..ServiceInput::default()
        };
        self.app.service_create(self.name.clone(), input, Origin::server()).await?;
        for number in 1..=runs {
            self.run(number, far).await.with_context(|| format!("failed to fill run {number} of {}", self.name))?;
        }
        Ok(())
    }

    async fn run(&self, number: u32, far: Far) -> Result<()> {
        let commit: CommitSha = format!("{number:040x}").parse()?;
        let refs = [("refs/heads/main".to_owned(), commit.clone())].into();
        let listed = Listed { refs, default_branch: Some("main".into()) };
        let outcome = self.app.poll_outcome(&self.name, &listed, None)?;
        if self.pending(EffectKind::PollRepository).is_some() {
            self.perform(EffectKind::PollRepository, outcome).await?;
        } else if let Outcome::Done(events, extras) = outcome {
            self.input(events, *extras).await?;
        }
        let digest = Digest::of(format!("image {number} of {}", self.name).as_bytes());
        self.input(self.reports(number, commit, &digest, far)?, Extras::default()).await?;
        if matches!(far, Far::RunsFailed) {
            return Ok(());
        }
        self.event(EffectKind::DeployTest, Event::Release { number, event: ReleaseEvent::TestHealthy }).await?;
        if matches!(far, Far::AboutToAsk) {
            ensure!(self.pending(EffectKind::SendApprovalMail).is_some(), "nobody is to be mailed");
            return Ok(());
        }
        let actor = Actor::Account { name: ADMIN.0.into(), email: "admin@example.com".into() };
        let event =
            ApprovalEvent::Decided { actor, digest: digest.clone(), approve: true, comment: "looked at it".into() };
        self.input(vec![Event::Approval { number, event }], Extras::default()).await?;
        self.event(EffectKind::Promote, Event::Release { number, event: ReleaseEvent::Promoted { digest } }).await?;
        self.roll_out().await?;
        while let Some(mail) = self.pending(EffectKind::SendApprovalMail) {
            self.app.effect_outcome(&mail.effect.key(), &mail, Outcome::done()).await?;
        }
        let live = self.app.release(&ReleaseId::new(self.name.clone(), number))?;
        ensure!(self.app.train(&self.name)?.live == Some(number), "release {number} is {}", live.state.word());
        Ok(())
    }

    /// What a runner says of a run.
    fn reports(&self, number: u32, commit: CommitSha, digest: &Digest, far: Far) -> Result<Vec<Event>> {
        let at = self.app.now();
        let runner: RunnerName = "embedded".parse()?;
        let steps: Vec<String> = ["checkout", "test", "image", "push"].map(str::to_owned).into();
        let mut reports = vec![
            Report::CheckedOut {
                commit: CommitInfo {
                    sha: commit,
                    message: format!("Change number {number}\n\nIt makes things better."),
                    author: "Mei".into(),
                    author_email: "mei@example.com".into(),
                    committed_at: at,
                    changes: Vec::new(),
                },
            },
            Report::Prepared { steps, plan: Box::new(plan()?), releases: true },
            Report::StepStarted { step: "test".into(), at },
        ];
        if matches!(far, Far::RunsFailed) {
            let (blame, reason) = (Blame::Code, String::from("step test failed: exit code 1"));
            let outcome = StepOutcome::Failed { blame, exit_code: Some(1), reason: reason.clone() };
            reports.push(Report::StepFinished { step: "test".into(), at, outcome });
            reports.push(Report::Failed { blame, reason });
        } else {
            reports.push(Report::StepFinished { step: "test".into(), at, outcome: StepOutcome::Passed });
            reports.push(Report::Succeeded {
                digest: digest.clone(),
                tag: number.to_string(),
                reused_from: None,
                inputs: Digest::of(format!("inputs of {number} of {}", self.name).as_bytes()),
            });
        }
        let leased = RunEvent::Leased { runner: runner.clone(), lease_ms: 60_000 };
        let said = |report| RunEvent::Reported { runner: runner.clone(), attempt: 1, report };
        let events = std::iter::once(leased).chain(reports.into_iter().map(said));
        Ok(events.map(|event| Event::Run { number, event }).collect())
    }

    /// The running rollout to its end.
    async fn roll_out(&self) -> Result<()> {
        while self.app.train(&self.name)?.rollout.is_some() {
            let rollout = self.app.rollout_running(&self.name)?;
            let number = rollout.id.number;
            let on = |event| Event::Rollout { number, event };
            if self.pending(EffectKind::StartRevision).is_some() {
                self.event(EffectKind::StartRevision, on(RolloutEvent::RevisionHealthy)).await?;
            } else if self.pending(EffectKind::ApplyTraffic).is_some() {
                let (canary, stable) = (RevisionStats::default(), RevisionStats::default());
                let event = RolloutEvent::TrafficAcknowledged { intent: rollout.intent, canary, stable };
                self.event(EffectKind::ApplyTraffic, on(event)).await?;
            } else {
                self.event(EffectKind::DrainRevision, on(RolloutEvent::Drained)).await?;
            }
        }
        Ok(())
    }

    fn pending(&self, kind: EffectKind) -> Option<PendingEffect> {
        self.app.queue().of_service(&self.name).into_iter().find(|pending| pending.effect.kind() == kind)
    }

    async fn event(&self, kind: EffectKind, event: Event) -> Result<()> {
        self.perform(kind, Outcome::event(event)).await
    }

    async fn perform(&self, kind: EffectKind, outcome: Outcome) -> Result<()> {
        let pending = self.pending(kind).with_context(|| format!("no {} is pending", kind.word()))?;
        Ok(self.app.effect_outcome(&pending.effect.key(), &pending, outcome).await?)
    }

    async fn input(&self, events: Vec<Event>, extras: Extras) -> Result<()> {
        self.app.train_input(&self.name, Origin::server(), |_| Ok((events, extras))).await?;
        Ok(())
    }
}

/// What the pipeline file came to.
fn plan() -> Result<DeliveryPlan> {
    Ok(serde_json::from_value(json!({
        "base": "static-site@1",
        "deploy": {
            "port": 8080, "host": null, "env": {}, "health_path": "/", "health_timeout_ms": 1000, "replicas": 1,
            "memory_bytes": null, "cpu_milli": null, "command": [],
        },
        "test": {"testers": ["qa@example.com"], "expires_ms": 259_200_000},
        "production": {
            "strategy": {"kind": "rolling"},
            "judge": {
                "checks": [], "compare_with_stable": true, "min_requests": 50, "insufficient_limit_ms": 1_800_000,
            },
        },
    }))?)
}
