//! The drivers: lease due effects, perform them on the world, record the outcome. A driver observes, compares, acts and
//! looks again, so performing an effect twice does no harm. Not here: what follows from an outcome (the domain).

pub mod deploy;
pub mod gateway;
pub mod health;
pub mod inspect;
pub mod mail;
pub mod poll;
pub mod promote;
pub mod rollout;
pub mod sweep;
pub mod traces;
pub mod traffic;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use integrations::{
    docker::{Engine, EngineConfig, RegistryAuth},
    outgoing::Outgoing,
    registry::{ClientLimits, Credentials, RegistryClient, RegistryConfig},
};
use pipelines::{
    approval::ApprovalEvent,
    effect::{Effect, PendingEffect},
    errors::chain,
    hold::HoldEnd,
    protocol::{OutgoingRules, RegistryAccess},
    run::RunEvent,
    train::Event,
};
use secrecy::SecretString;
use tokio::sync::OnceCell;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{App, AppError, trains::Outcome},
    config::ConfigError,
    crash,
    driver::traffic::Traffic,
};

/// The longest wait before an outcome that found no room is stored again, in milliseconds.
const OUTCOME_WAIT_MAX_MS: u64 = 2_000;

/// Why the drivers could not start.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A setting is not good.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A registry's settings are not good.
    #[error("use the registry {host}")]
    Registry {
        /// Which.
        host: String,
        /// Why.
        #[source]
        source: integrations::registry::RegistryError,
    },
    /// The settings of traces are not good.
    #[error("set up traces")]
    Traces(#[source] integrations::otlp::OtlpError),
    /// The mail settings are not good.
    #[error("set up mail")]
    Mail(#[source] integrations::mail::MailError),
}

/// One try at an effect failed for a reason of the world; it is tried again. The text is shown to people.
#[derive(Debug)]
pub struct TryAgain(pub String);

impl TryAgain {
    /// The error with its causes, in one line.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        Self(chain(error))
    }
}

impl From<AppError> for TryAgain {
    fn from(error: AppError) -> Self {
        Self::from_error(&error)
    }
}

/// What a performed effect gives.
pub type Performed = Result<Outcome, TryAgain>;

/// The rules of the configuration for outgoing calls.
///
/// # Errors
/// When one is not good.
pub fn outgoing(rules: &OutgoingRules) -> Result<Outgoing, DriverError> {
    let wrong = |why| ConfigError::Content { path: "outgoing".into(), why };
    Outgoing::new(rules).map_err(|error| wrong(error.to_string()).into())
}

/// A registry that images are read from or written to.
pub(crate) struct RegistryHandle {
    pub(crate) client: RegistryClient,
    pub(crate) access: RegistryAccess,
}

impl RegistryHandle {
    fn new(access: RegistryAccess, outgoing: Outgoing) -> Result<Self, DriverError> {
        let failed = |source| DriverError::Registry { host: access.host.clone(), source };
        let scheme = if access.plain_http { "http" } else { "https" };
        let endpoint = url::Url::parse(&format!("{scheme}://{}", access.host)).map_err(|error| {
            ConfigError::Content { path: "registries".into(), why: format!("{} is not a host: {error}", access.host) }
        })?;
        let config = RegistryConfig {
            endpoint,
            ca_pem: access.ca_pem.clone().map(String::into_bytes),
            credentials: access.login.as_ref().map(|(user, password)| Credentials {
                username: user.clone(),
                password: SecretString::from(password.expose()),
            }),
            limits: ClientLimits::default(),
            outgoing,
        };
        Ok(Self { client: RegistryClient::new(config).map_err(failed)?, access })
    }

    pub(crate) fn auth(&self) -> Option<RegistryAuth> {
        self.access.login.as_ref().map(|(user, password)| RegistryAuth {
            host: self.access.host.clone(),
            username: user.clone(),
            password: SecretString::from(password.expose()),
        })
    }
}

/// The drivers and what they reach the world with.
pub struct Drivers {
    pub(crate) app: Arc<App>,
    engine: OnceCell<Engine>,
    engine_config: EngineConfig,
    pub(crate) test: RegistryHandle,
    pub(crate) production: RegistryHandle,
    pub(crate) post: mail::Post,
    pub(crate) traffic: Traffic,
}

impl Drivers {
    /// Sets them up; reaches for nothing yet.
    ///
    /// # Errors
    /// When a setting is not good.
    pub fn new(app: Arc<App>, letters: Arc<dyn mail::Letters>) -> Result<Self, DriverError> {
        let mut engine_config = EngineConfig::default();
        if let Some(host) = app.config.docker_host.clone().or_else(|| std::env::var("DOCKER_HOST").ok()) {
            engine_config.host = host;
        }
        let outgoing = outgoing(&app.config.outgoing)?;
        let test = RegistryHandle::new(app.config.registries.test.access()?, outgoing.clone())?;
        let production = RegistryHandle::new(app.config.registries.production.access()?, outgoing.clone())?;
        let post = mail::Post { mailer: mail::mailer(&app.config.mail, outgoing)?, letters };
        let traffic = Traffic::new(&app.config);
        Ok(Self { app, engine: OnceCell::new(), engine_config, test, production, post, traffic })
    }

    /// The engine; connects on first use.
    pub(crate) async fn engine(&self) -> Result<&Engine, TryAgain> {
        let connect = || Engine::connect(self.engine_config.clone());
        self.engine.get_or_try_init(connect).await.map_err(|error| TryAgain::from_error(&error))
    }

    /// Where the engine is and its bounds.
    #[must_use]
    pub fn engine_config(&self) -> &EngineConfig {
        &self.engine_config
    }

    /// Performs effects until `shutdown`; those under way may finish.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let parallel_max = self.app.config.bounds.effects_parallel_max;
        loop {
            let now = self.app.now();
            let free = parallel_max.saturating_sub(tasks.len());
            let (due, next) = self.app.queue().lease_due(now, free);
            for (key, pending) in due {
                let (drivers, shutdown) = (Arc::clone(&self), shutdown.clone());
                tasks.spawn(async move {
                    drivers.perform(&key, &pending, &shutdown).await;
                    drivers.app.queue().release(&key);
                });
            }
            let wait_ms = next.map_or(60_000, |next| next.since_ms(now).clamp(1, 60_000));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.app.queue().changed() => {}
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn perform(&self, key: &str, pending: &PendingEffect, shutdown: &CancellationToken) {
        let kind = pending.effect.kind().word();
        tracing::debug!(effect = key, failures = pending.failures, "performing");
        crash::point(kind, "before");
        let began = Instant::now();
        let outcome = match self.act(&pending.effect).await {
            Ok(outcome) => outcome,
            Err(TryAgain(error)) => Outcome::Retry(error),
        };
        let performed = matches!(outcome, Outcome::Done(..));
        self.app.metrics().effect(pending.effect.kind(), began.elapsed(), performed);
        crash::point(kind, "answered");
        self.store_outcome(key, pending, &outcome, shutdown).await;
    }

    /// Stores an outcome. While the store takes nothing (no room, read-only) it is kept and tried again: an effect that was
    /// performed is not performed anew because its outcome finds no room, or a mail would go out every second.
    async fn store_outcome(&self, key: &str, pending: &PendingEffect, outcome: &Outcome, shutdown: &CancellationToken) {
        let mut wait_ms = self.app.config.bounds.retry_first_ms;
        let mut is_told = false;
        loop {
            let Err(error) = self.app.effect_outcome(key, pending, outcome.clone()).await else { return };
            let passes = error.passes_with_room();
            if !is_told {
                tracing::error!(effect = key, passes, error = %TryAgain::from_error(&error).0, "its outcome was not stored");
                is_told = true;
            }
            tokio::select! {
                // It stays pending, and is performed again after the start.
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            }
            if !passes {
                return;
            }
            wait_ms = wait_ms.saturating_mul(2).min(OUTCOME_WAIT_MAX_MS);
        }
    }

    async fn act(&self, effect: &Effect) -> Performed {
        if matches!(effect, Effect::ProcessDelivery { .. } | Effect::PollRepository { .. }) {
            // Both make new runs. They come again, and find then what they would have found now.
            self.app.room_for_new_work()?;
            self.app.room_for_runs(effect.service())?;
        }
        match effect {
            Effect::ProcessDelivery { delivery, service } => poll::process_delivery(self, service, *delivery).await,
            Effect::PollRepository { service, .. } => poll::poll_repository(self, service).await,
            Effect::InspectRun { run } => inspect::inspect_run(self, run).await,
            Effect::ExpireHold { run, .. } => {
                let event = RunEvent::HoldEnded { end: HoldEnd::Expired };
                Ok(Outcome::event(Event::Run { number: run.number, event }))
            }
            // Runners lease these; see `EffectQueue::lease_due`.
            Effect::ExecuteRun { run } => Err(TryAgain(format!("{run} is for a runner"))),
            Effect::ExpireLease { run, runner, attempt, .. } => Ok(self.app.lease_outcome(run, runner, *attempt)),
            Effect::DeployTest { release } => deploy::deploy_test(self, release).await,
            Effect::SendApprovalMail { release, round, tester, reminder: None } => {
                mail::send_approval_mail(&self.app, &self.post, release, *round, tester).await
            }
            Effect::SendApprovalMail { release, round, tester, reminder: Some(reminder) } => {
                mail::send_reminder(&self.app, &self.post, release, *round, tester, *reminder).await
            }
            Effect::SendCodeMail { release, round, tester, serial } => {
                mail::send_code_mail(&self.app, &self.post, release, *round, tester, *serial).await
            }
            Effect::RemindTesters { release, round, .. } => Ok(Outcome::event(Event::Approval {
                number: release.number,
                event: ApprovalEvent::ReminderDue { round: *round },
            })),
            Effect::ExpireApproval { release, round, .. } => Ok(Outcome::event(Event::Approval {
                number: release.number,
                event: ApprovalEvent::Expired { round: *round },
            })),
            Effect::Promote { release } => promote::promote(self, release).await,
            Effect::StartRevision { rollout } => rollout::start_revision(self, rollout).await,
            Effect::ApplyTraffic { rollout, intent } => rollout::apply_traffic(self, rollout, *intent).await,
            Effect::Measure { rollout, stage, .. } => rollout::measure(self, rollout, *stage).await,
            Effect::DrainRevision { rollout, revision } => rollout::drain_revision(self, rollout, revision).await,
        }
    }
}
