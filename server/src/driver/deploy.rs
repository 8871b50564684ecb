//! Containers of revisions on the docker target: starts them by digest, sees that they are healthy and run the digest
//! that they should, finds and removes them. A repeat finds what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::SocketAddr,
    time::Duration,
};

use integrations::docker::{
    ContainerSummary, DeployContainer, DockerError, Engine, Health, HealthCheck, Limits, OnDifference, RegistryAuth,
    RestartRule,
};
use pipelines::{
    ids::{Environment, ReleaseId, RevisionId, ServiceName},
    release::{Release, ReleaseEvent, ReleaseState},
    train::Event,
};

use super::{Drivers, Performed, RegistryHandle, TryAgain};
use crate::app::{addresses, trains::Outcome};

const INSTANCE_LABEL: &str = "windlass.instance";
const ENVIRONMENT_LABEL: &str = "windlass.environment";
const SERVICE_LABEL: &str = "windlass.service";
const REVISION_LABEL: &str = "windlass.revision";
const RELEASE_LABEL: &str = "windlass.release";

/// Memory of a container whose chart sets no limit, in bytes.
const MEMORY_BYTES: u64 = 512 << 20;
/// CPU of a container whose chart sets no limit, in thousandths of a core.
const CPU_MILLIS: u32 = 1_000;
/// Processes of a container.
const PIDS: u32 = 512;
/// Good answers in a row that make a container healthy.
const HEALTHY_ANSWERS: u32 = 2;
/// How long a container may take to stop by itself.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Whether a revision came up.
pub(super) enum Started {
    /// All of its containers are healthy and run the right digest.
    Healthy,
    /// Not; what was seen, for the developer.
    Unhealthy(String),
}

/// One running container of a revision.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) environment: String,
    pub(super) revision: String,
    pub(super) address: SocketAddr,
}

impl Drivers {
    /// Tells the containers of this Windlass from those of another one on the same engine.
    fn instance(&self) -> String {
        self.app.instance().to_owned()
    }

    fn labels_of(&self, environment: Environment, service: &ServiceName) -> BTreeMap<String, String> {
        BTreeMap::from([
            (INSTANCE_LABEL.to_owned(), self.instance()),
            (ENVIRONMENT_LABEL.to_owned(), environment.to_string()),
            (SERVICE_LABEL.to_owned(), service.to_string()),
        ])
    }

    fn registry_of(&self, environment: Environment) -> &RegistryHandle {
        match environment {
            Environment::Test => &self.test,
            Environment::Production => &self.production,
        }
    }

    fn container_of(&self, environment: Environment, release: &Release, replica: u32) -> DeployContainer {
        let settings = &self.app.config.registries;
        let (registry, host) = match environment {
            Environment::Test => (&settings.test, &settings.test.host),
            Environment::Production => (&settings.production, &settings.production.host),
        };
        let service = &release.id.service;
        let deploy = &release.plan.deploy;
        let mut labels = self.labels_of(environment, service);
        labels.insert(REVISION_LABEL.into(), release.revision().to_string());
        labels.insert(RELEASE_LABEL.into(), release.id.number.to_string());
        let mut env = deploy.env.clone();
        env.insert("WINDLASS_ENVIRONMENT".into(), environment.to_string());
        env.insert("WINDLASS_SERVICE".into(), service.to_string());
        env.insert("WINDLASS_RELEASE".into(), release.id.number.to_string());
        DeployContainer {
            name: format!("windlass-{}-{environment}-{}-{replica}", self.instance(), release.revision()),
            image: format!("{host}/{}@{}", registry.repository(service), release.digest),
            env,
            port: deploy.port,
            command: deploy.command.clone(),
            limits: Limits {
                memory_bytes: deploy.memory_bytes.unwrap_or(MEMORY_BYTES),
                cpu_millis: deploy.cpu_milli.unwrap_or(CPU_MILLIS),
                pids: PIDS,
            },
            labels,
            restart: RestartRule::UnlessStopped,
            read_only: false,
            network: None,
        }
    }

    /// Starts (or finds) all containers of a release's revision and waits until they are healthy.
    pub(super) async fn ensure_revision(
        &self,
        environment: Environment,
        release: &Release,
        host: &str,
    ) -> Result<Started, TryAgain> {
        let engine = self.engine().await?;
        let auth = self.registry_of(environment).auth();
        let replicas = match environment {
            Environment::Test => 1,
            Environment::Production => release.plan.deploy.replicas.max(1),
        };
        for replica in 1..=replicas {
            let container = self.container_of(environment, release, replica);
            let deployed = match engine.deploy(&container, OnDifference::Replace, auth.as_ref()).await {
                Ok(deployed) => deployed,
                Err(error) if error.is_infrastructure() => return Err(TryAgain::from_error(&error)),
                Err(error) => return Ok(Started::Unhealthy(TryAgain::from_error(&error).0)),
            };
            let check = HealthCheck {
                container: container.name.clone(),
                address: deployed.address,
                host: host.to_owned(),
                path: release.plan.deploy.health_path.clone(),
                deadline: Duration::from_millis(release.plan.deploy.health_timeout_ms),
                interval: Duration::from_millis(100),
                attempt_timeout: Duration::from_secs(5),
                required_successes: HEALTHY_ANSWERS,
            };
            match engine.wait_healthy(&check).await {
                Ok(Health::Healthy { .. }) => {}
                Ok(other) => return Ok(Started::Unhealthy(other.to_string())),
                Err(error) => return Err(TryAgain::from_error(&error)),
            }
            self.check_digest(engine, &container, auth.as_ref(), release).await?;
        }
        Ok(Started::Healthy)
    }

    /// What runs is what was approved, as the engine says, not as we asked.
    async fn check_digest(
        &self,
        engine: &Engine,
        container: &DeployContainer,
        auth: Option<&RegistryAuth>,
        release: &Release,
    ) -> Result<(), TryAgain> {
        let failed = |error: DockerError| TryAgain::from_error(&error);
        let digest = async || {
            let running = engine.running_digest(&container.name).await.map_err(failed)?;
            Ok::<_, TryAgain>(running.and_then(|running| running.digest))
        };
        let mut running = digest().await?;
        if running.is_none() {
            // The engine forgets an image's digests with its last tag. It names them again when it has compared the
            // manifest of the registry with what it has.
            engine.pull_by_digest(&container.image, auth).await.map_err(failed)?;
            running = digest().await?;
        }
        match running {
            Some(running) if running == release.digest => Ok(()),
            found => Err(TryAgain(format!(
                "container {} runs {}, not {}",
                container.name,
                found.map_or_else(|| "an unknown digest".to_owned(), |digest| digest.to_string()),
                release.digest
            ))),
        }
    }

    /// All running containers of this Windlass.
    pub(super) async fn running(&self) -> Result<Vec<Running>, TryAgain> {
        let labels = BTreeMap::from([(INSTANCE_LABEL.to_owned(), self.instance())]);
        let listed = self.engine().await?.list(&labels).await.map_err(|error| TryAgain::from_error(&error))?;
        let label = |container: &ContainerSummary, name: &str| container.labels.get(name).cloned().unwrap_or_default();
        Ok(listed
            .iter()
            .filter_map(|container| {
                Some(Running {
                    environment: label(container, ENVIRONMENT_LABEL),
                    revision: label(container, REVISION_LABEL),
                    address: container.address?,
                })
            })
            .collect())
    }

    /// Stops and removes the containers of a revision.
    pub(super) async fn remove_revision(
        &self,
        environment: Environment,
        service: &ServiceName,
        revision: &str,
    ) -> Result<(), TryAgain> {
        self.remove_containers(&environment.to_string(), service, revision).await
    }

    /// As [`Drivers::remove_revision`], for an environment as a label names it.
    pub(super) async fn remove_containers(
        &self,
        environment: &str,
        service: &ServiceName,
        revision: &str,
    ) -> Result<(), TryAgain> {
        let labels = BTreeMap::from([
            (INSTANCE_LABEL.to_owned(), self.instance()),
            (ENVIRONMENT_LABEL.to_owned(), environment.to_owned()),
            (SERVICE_LABEL.to_owned(), service.to_string()),
            (REVISION_LABEL.to_owned(), revision.to_owned()),
        ]);
        let engine = self.engine().await?;
        let failed = |error: DockerError| TryAgain::from_error(&error);
        for container in engine.list(&labels).await.map_err(failed)? {
            engine.stop(&container.name, STOP_GRACE).await.map_err(failed)?;
            engine.remove(&container.name).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Environment and revision of every container of a service, running or not.
    pub(super) async fn containers_of(&self, service: &ServiceName) -> Result<BTreeSet<(String, String)>, TryAgain> {
        let labels = BTreeMap::from([
            (INSTANCE_LABEL.to_owned(), self.instance()),
            (SERVICE_LABEL.to_owned(), service.to_string()),
        ]);
        let listed = self.engine().await?.list(&labels).await.map_err(|error| TryAgain::from_error(&error))?;
        let pair = |mut container: ContainerSummary| {
            Some((container.labels.remove(ENVIRONMENT_LABEL)?, container.labels.remove(REVISION_LABEL)?))
        };
        Ok(listed.into_iter().filter_map(pair).collect())
    }

    /// The revisions of a service that have containers in an environment.
    async fn revisions(&self, environment: Environment, service: &ServiceName) -> Result<Vec<String>, TryAgain> {
        let labels = self.labels_of(environment, service);
        let listed = self.engine().await?.list(&labels).await.map_err(|error| TryAgain::from_error(&error))?;
        let mut revisions: Vec<String> =
            listed.into_iter().filter_map(|mut container| container.labels.remove(REVISION_LABEL)).collect();
        revisions.sort();
        revisions.dedup();
        Ok(revisions)
    }

    /// Lets a revision finish what it has, then removes its containers. After the configured time what is still in
    /// flight is cut: a connection that never ends must not keep a container for ever.
    pub(super) async fn drain_and_remove(
        &self,
        environment: Environment,
        service: &ServiceName,
        revision: &str,
    ) -> Result<(), TryAgain> {
        self.traffic.drain(environment, revision).await?;
        self.remove_revision(environment, service, revision).await
    }
}

pub(super) async fn deploy_test(drivers: &Drivers, id: &ReleaseId) -> Performed {
    let app = &drivers.app;
    let release = app.release(id)?;
    if release.state != ReleaseState::DeployingTest {
        return Ok(Outcome::done());
    }
    let event = |event| Outcome::event(Event::Release { number: id.number, event });
    let host = addresses::test_host(&app.config.gateway, &id.service);
    if let Started::Unhealthy(reason) = drivers.ensure_revision(Environment::Test, &release, &host).await? {
        drivers.remove_revision(Environment::Test, &id.service, release.revision().as_str()).await?;
        return Ok(event(ReleaseEvent::TestUnhealthy { reason }));
    }
    // Its address shows it before anybody is told; the one before goes when it has finished what it had.
    drivers.traffic.show_in_test(drivers, &release).await?;
    let old: Vec<String> = drivers.revisions(Environment::Test, &id.service).await?;
    for revision in old.iter().filter(|revision| *revision != release.revision().as_str()) {
        drivers.drain_and_remove(Environment::Test, &id.service, revision).await?;
    }
    Ok(event(ReleaseEvent::TestHealthy))
}

/// The name of a revision in the gateway, where ids are unique over all environments.
#[must_use]
pub(super) fn gateway_id(environment: impl Display, revision: &str) -> String {
    format!("{environment}:{revision}")
}

/// As [`gateway_id`] of a typed revision.
#[must_use]
pub(super) fn production_id(revision: &RevisionId) -> String {
    gateway_id(Environment::Production, revision.as_str())
}
