//! Performs what a rollout asks: starts its revision, has the gateway take its shares, reads the counters, lets the old
//! revision finish and removes it.

use pipelines::{
    ids::{Environment, RevisionId, RolloutId},
    rollout::{Rollout, RolloutEvent, RolloutState},
    train::Event,
};

use super::{
    Drivers, Performed, TryAgain,
    deploy::{Started, production_id},
};
use crate::app::{addresses, trains::Outcome};

fn outcome(id: &RolloutId, event: RolloutEvent) -> Outcome {
    Outcome::event(Event::Rollout { number: id.number, event })
}

impl Drivers {
    fn production_host_of(&self, rollout: &Rollout) -> Result<String, TryAgain> {
        let release = self.app.release(&rollout.release)?;
        Ok(addresses::production_host(&self.app.config.gateway, &rollout.id.service, &release.plan.deploy))
    }

    /// The counters of the new and the stable revision.
    async fn counters(&self, rollout: &Rollout) -> Result<[pipelines::rollout::judge::RevisionStats; 2], TryAgain> {
        let host = self.production_host_of(rollout)?;
        let stable = rollout.stable.as_ref().map(|stable| production_id(&stable.revision));
        self.traffic.stats(&host, [Some(&production_id(&rollout.revision)), stable.as_deref()]).await
    }
}

pub(super) async fn start_revision(drivers: &Drivers, id: &RolloutId) -> Performed {
    let rollout = drivers.app.rollout(id)?;
    if rollout.state != RolloutState::Starting {
        return Ok(Outcome::done());
    }
    let release = drivers.app.release(&rollout.release)?;
    let host = drivers.production_host_of(&rollout)?;
    let event = match drivers.ensure_revision(Environment::Production, &release, &host).await? {
        Started::Healthy => RolloutEvent::RevisionHealthy,
        Started::Unhealthy(reason) => RolloutEvent::RevisionUnhealthy { reason },
    };
    Ok(outcome(id, event))
}

pub(super) async fn apply_traffic(drivers: &Drivers, id: &RolloutId, intent: u32) -> Performed {
    let rollout = drivers.app.rollout(id)?;
    if rollout.intent != intent {
        return Ok(Outcome::done());
    }
    drivers.traffic.apply(drivers).await?;
    let [canary, stable] = drivers.counters(&rollout).await?;
    Ok(outcome(id, RolloutEvent::TrafficAcknowledged { intent, canary, stable }))
}

pub(super) async fn measure(drivers: &Drivers, id: &RolloutId, stage: usize) -> Performed {
    let rollout = drivers.app.rollout(id)?;
    let [canary, stable] = drivers.counters(&rollout).await?;
    Ok(outcome(id, RolloutEvent::Measured { stage, canary, stable }))
}

pub(super) async fn drain_revision(drivers: &Drivers, id: &RolloutId, revision: &RevisionId) -> Performed {
    // The table may have been written by an earlier life of this server: make sure before anything stops.
    drivers.traffic.apply(drivers).await?;
    drivers.drain_and_remove(Environment::Production, &id.service, revision.as_str()).await?;
    Ok(outcome(id, RolloutEvent::Drained))
}
