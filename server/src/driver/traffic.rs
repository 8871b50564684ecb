//! What the gateway is to do, made from what the store wants and where containers really are, and handed over with an
//! acknowledgement. One writer at a time; the whole table every time.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pipelines::{
    ids::{Environment, ReleaseId, RolloutId, ServiceName},
    release::Release,
    rollout::judge::RevisionStats,
    train::production_traffic,
};

use super::{
    Drivers, TryAgain,
    deploy::{Running, gateway_id, production_id},
};
use crate::{
    app::{App, addresses},
    config::Config,
    crash,
    gateway::{
        ClientError, DrainState, GatewayClient, GatewayConfig, Generation, Limits, RevisionConfig, RouteConfig, Share,
        WEIGHT_TOTAL,
    },
};

/// Shares in the domain are percent; the gateway counts in hundredths of one.
const PER_PERCENT: u32 = WEIGHT_TOTAL / 100;

/// The writer of the gateway's table.
pub struct Traffic {
    client: GatewayClient,
    drain_timeout: Duration,
    /// Releases that are healthy in the test environment before the store says so.
    in_test: Mutex<HashMap<ServiceName, u32>>,
    writing: tokio::sync::Mutex<()>,
}

impl Traffic {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            client: GatewayClient::new(&gateway_folder(config)),
            drain_timeout: Duration::from_millis(config.gateway.drain_timeout_ms),
            in_test: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn client(&self) -> &GatewayClient {
        &self.client
    }

    /// Brings the gateway to what the store wants now; when this returns, every new request follows it.
    pub(super) async fn apply(&self, drivers: &Drivers) -> Result<(), TryAgain> {
        let _writing = self.writing.lock().await;
        let failed = |error: ClientError| TryAgain::from_error(&error);
        let config = self.wanted(&drivers.app, &drivers.running().await?)?;
        let current = self.client.config().await.map_err(failed)?;
        if current.config == config {
            return Ok(());
        }
        let next = Generation { generation: current.generation + 1, config };
        self.client.put_config(&next).await.map(drop).map_err(failed)
    }

    /// Shows a release under the service's test address.
    pub(super) async fn show_in_test(&self, drivers: &Drivers, release: &Release) -> Result<(), TryAgain> {
        self.note_in_test(release);
        self.apply(drivers).await
    }

    fn note_in_test(&self, release: &Release) {
        let mut in_test = self.in_test.lock().unwrap_or_else(PoisonError::into_inner);
        in_test.insert(release.id.service.clone(), release.id.number);
    }

    fn wanted(&self, app: &App, running: &[Running]) -> Result<GatewayConfig, TryAgain> {
        let mut backends: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
        for container in running {
            let id = gateway_id(&container.environment, &container.revision);
            backends.entry(id).or_default().push(container.address);
        }
        let settings = &app.config.gateway;
        let mut config = GatewayConfig {
            listen: vec![settings.listen],
            limits: Limits {
                drain_timeout_ms: settings.drain_timeout_ms,
                max_connections: settings.connections_max.max(1),
                ..Limits::default()
            },
            ..GatewayConfig::default()
        };
        for service in app.services()? {
            self.add_service(app, &service.name, &backends, &mut config)?;
        }
        Ok(config)
    }

    fn add_service(
        &self,
        app: &App,
        service: &ServiceName,
        backends: &BTreeMap<String, Vec<SocketAddr>>,
        config: &mut GatewayConfig,
    ) -> Result<(), TryAgain> {
        let settings = &app.config.gateway;
        let train = app.train(service)?;
        let release = |number: u32| app.release(&ReleaseId::new(service.clone(), number));

        let early = self.in_test.lock().unwrap_or_else(PoisonError::into_inner).get(service).copied();
        let mut test = RouteConfig::default();
        if let Some(number) = early.max(train.in_test) {
            let id = gateway_id(Environment::Test, release(number)?.revision().as_str());
            add_share(&mut test, config, backends, id, WEIGHT_TOTAL);
        }
        config.routes.insert(addresses::test_host(settings, service), test);

        let live = train.live.map(release).transpose()?;
        let rollout = train.rollout.map(|number| app.rollout(&RolloutId::new(service.clone(), number))).transpose()?;
        let wanted = production_traffic(live.as_ref(), rollout.as_ref());
        let newest = match (&rollout, &live) {
            (Some(rollout), _) => Some(release(rollout.release.number)?),
            (None, live) => live.clone(),
        };
        let Some(newest) = newest else { return Ok(()) };
        let mut production = RouteConfig::default();
        for (_, revision, percent) in &wanted.shares {
            add_share(&mut production, config, backends, production_id(revision), u32::from(*percent) * PER_PERCENT);
        }
        // A revision without a container gets no share; what is left takes all.
        rescale(&mut production.shares);
        if let Some(stable) = rollout.as_ref().and_then(|rollout| rollout.stable.as_ref())
            && production.shares.iter().any(|share| share.revision == production_id(&stable.revision))
        {
            production.fallback = Some(production_id(&stable.revision));
        }
        config.routes.insert(addresses::production_host(settings, service, &newest.plan.deploy), production);
        if let Some((_, revision)) = &wanted.preview {
            let id = production_id(revision);
            if let Some(found) = backends.get(&id) {
                config.revisions.insert(id.clone(), RevisionConfig { backends: found.clone() });
                config.previews.insert(addresses::preview_host(settings, service), id);
            }
        }
        Ok(())
    }

    /// Waits until nothing of a revision is in flight, or the configured time is over.
    pub(super) async fn drain(&self, environment: Environment, revision: &str) -> Result<(), TryAgain> {
        let id = gateway_id(environment, revision);
        if crash::without("drain") {
            return Ok(());
        }
        match self.client.drain(&id, self.drain_timeout).await {
            Ok(drained) if drained.state == DrainState::Serving => {
                Err(TryAgain(format!("the gateway still sends requests to {id}")))
            }
            Ok(drained) => {
                if drained.in_flight > 0 {
                    tracing::warn!(revision = id, in_flight = drained.in_flight, "cut after the drain timeout");
                }
                Ok(())
            }
            Err(error) => Err(TryAgain::from_error(&error)),
        }
    }

    /// The counters of two revisions of a host.
    pub(super) async fn stats(&self, host: &str, revisions: [Option<&str>; 2]) -> Result<[RevisionStats; 2], TryAgain> {
        let stats = self.client.stats().await.map_err(|error| TryAgain::from_error(&error))?;
        let read = |id: Option<&str>| {
            let Some(found) = id.and_then(|id| stats.revision(host, id)) else { return RevisionStats::default() };
            let bounds = stats.latency_bounds_ms.iter().copied().chain([u64::MAX]);
            RevisionStats {
                requests: found.requests,
                errors: found.errors,
                latency: bounds.zip(found.latency.iter().copied()).collect(),
            }
        };
        Ok(revisions.map(read))
    }
}

fn add_share(
    route: &mut RouteConfig,
    config: &mut GatewayConfig,
    backends: &BTreeMap<String, Vec<SocketAddr>>,
    id: String,
    weight: u32,
) {
    if let Some(found) = backends.get(&id) {
        config.revisions.insert(id.clone(), RevisionConfig { backends: found.clone() });
        route.shares.push(Share { revision: id, weight });
    }
}

/// Makes the weights sum to the total again where a share is missing.
fn rescale(shares: &mut [Share]) {
    let sum: u32 = shares.iter().map(|share| share.weight).sum();
    if sum == WEIGHT_TOTAL {
        return;
    }
    if sum == 0 {
        if let Some(first) = shares.first_mut() {
            first.weight = WEIGHT_TOTAL;
        }
        return;
    }
    let mut left = WEIGHT_TOTAL;
    for share in shares.iter_mut() {
        share.weight = share.weight * WEIGHT_TOTAL / sum;
        left -= share.weight;
    }
    if let Some(first) = shares.first_mut() {
        first.weight += left;
    }
}

/// The gateway's folder.
#[must_use]
pub fn gateway_folder(config: &Config) -> std::path::PathBuf {
    config.state_dir.join("gateway")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_always_sum_to_the_total() {
        for weights in [vec![9_000], vec![0], vec![3_333, 3_333], vec![1, 1, 1], vec![9_000, 1_000]] {
            let mut shares: Vec<Share> =
                weights.iter().map(|weight| Share { revision: "a".into(), weight: *weight }).collect();
            rescale(&mut shares);
            assert_eq!(shares.iter().map(|share| share.weight).sum::<u32>(), WEIGHT_TOTAL, "{weights:?}");
        }
    }
}
