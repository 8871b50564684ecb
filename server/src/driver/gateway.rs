//! Starts the gateway's process and watches it; and keeps containers and table as the store wants them.

use std::{process::Stdio, sync::Arc, time::Duration};

use pipelines::ids::{Environment, ReleaseId};
use tokio::{
    process::{Child, Command},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use super::{Drivers, TryAgain, deploy::Started, traffic::gateway_folder};
use crate::app::addresses;

/// Time between two looks at the gateway.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Time between two comparisons of the world with what is wanted.
const RECONCILE_EVERY: Duration = Duration::from_secs(15);
/// How long a new gateway may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(10);

impl Drivers {
    /// Makes sure that a gateway answers: the one that is there, or a new one.
    ///
    /// # Errors
    /// When none can be started.
    pub async fn ensure_gateway(&self) -> Result<Option<Child>, TryAgain> {
        if let Ok(health) = self.traffic.client().health().await {
            self.app.load().gateway_seen(health.connections);
            return Ok(None);
        }
        let failed = |error: std::io::Error| TryAgain(format!("start the gateway: {error}"));
        let folder = gateway_folder(&self.app.config);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).map_err(failed)?;
        let binary = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(binary);
        command.arg("gateway").arg("--folder").arg(&folder);
        // A group of its own: a Ctrl-C or a kill that is meant for the server must not reach the services' traffic.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log)).process_group(0);
        command.env_remove(crate::crash::POINT_VARIABLE);
        let mut child = command.spawn().map_err(failed)?;
        tracing::info!(pid = child.id(), "started the gateway");
        let deadline = tokio::time::Instant::now() + START_WITHIN;
        while self.traffic.client().health().await.is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                let said = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default().to_owned();
                return Err(TryAgain(format!("the gateway ended with {status}: {last}")));
            }
            if tokio::time::Instant::now() > deadline {
                return Err(TryAgain("the gateway does not answer".into()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(child))
    }

    /// Watches the gateway and compares the world with what is wanted, until `shutdown`. The gateway outlives this
    /// server: it goes on with its last table.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let started = Notify::new();
        tokio::select! {
            () = shutdown.cancelled() => {}
            // Apart from each other: an engine that does not answer must not keep a dead gateway dead.
            () = self.watch_gateway(&started), if self.app.config.gateway.supervise => {}
            () = self.watch_world(&started) => {}
        }
    }

    /// Starts the gateway when it is not there, and again as soon as it ends.
    async fn watch_gateway(&self, started: &Notify) {
        let mut child: Option<Child> = None;
        loop {
            if let Some(running) = &mut child {
                // Takes the exit status, so that no dead process is left behind.
                let _ = running.try_wait();
            }
            match self.ensure_gateway().await {
                Ok(None) => {}
                Ok(new) => {
                    child = new;
                    started.notify_one();
                }
                Err(TryAgain(error)) => tracing::error!(error, "there is no gateway"),
            }
            // One that hangs is found by asking, one that ends at once.
            let pause = tokio::time::sleep(WATCH_EVERY);
            tokio::pin!(pause);
            tokio::select! {
                () = &mut pause => {}
                found = self.traffic.client().ended() => {
                    if found.is_err() {
                        pause.await;
                    }
                }
            }
        }
    }

    async fn watch_world(&self, started: &Notify) {
        let mut reconcile = tokio::time::interval(RECONCILE_EVERY);
        loop {
            tokio::select! {
                _ = reconcile.tick() => {}
                () = started.notified() => {}
            }
            if let Err(TryAgain(error)) = self.reconcile().await {
                tracing::warn!(error, "the world could not be compared with what is wanted");
            }
        }
    }

    /// Brings back containers of live and tested revisions that are gone, and the gateway's table.
    ///
    /// # Errors
    /// When the engine or the gateway cannot be asked.
    pub async fn reconcile(&self) -> Result<(), TryAgain> {
        let app = &self.app;
        let running = self.running().await?;
        for service in app.services()? {
            let train = app.train(&service.name)?;
            // While a rollout moves, its effects have the containers in hand.
            let live = train.live.filter(|_| train.rollout.is_none());
            // The same for a release that is on its way into the test environment.
            let in_test = train.in_test.filter(|number| train.testing == Some(*number));
            for (environment, number) in [(Environment::Production, live), (Environment::Test, in_test)] {
                let Some(number) = number else { continue };
                let release = app.release(&ReleaseId::new(service.name.clone(), number))?;
                let revision = release.revision();
                let wanted = match environment {
                    Environment::Test => 1,
                    Environment::Production => release.plan.deploy.replicas.max(1) as usize,
                };
                let is_mine = |container: &&super::deploy::Running| {
                    container.environment == environment.to_string() && container.revision == revision.as_str()
                };
                if running.iter().filter(is_mine).count() >= wanted {
                    continue;
                }
                tracing::warn!(%revision, %environment, "containers are missing; starting them again");
                let host = addresses::test_host(&app.config.gateway, &service.name);
                match self.ensure_revision(environment, &release, &host).await {
                    Ok(Started::Healthy) => {}
                    Ok(Started::Unhealthy(reason)) => tracing::error!(%revision, reason, "it does not come back"),
                    Err(TryAgain(error)) => tracing::error!(%revision, error, "it does not come back"),
                }
            }
        }
        self.traffic.apply(self).await
    }
}
