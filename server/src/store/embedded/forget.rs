//! Records that are not needed any more go, in one change. Not here: which ones (`app::retention`).

use pipelines::ids::{Digest, RunId};

use super::{
    super::{
        engine::Batch,
        tables::{
            APPROVALS, DELIVERIES, DELIVERIES_BY_FORGE_ID, DELIVERIES_BY_SERVICE, IMAGES, RELEASES, ROLLOUTS, RUNS,
        },
    },
    DeliveryId, EmbeddedStore, Forget, Store, StoreError, numbered, under,
};

impl EmbeddedStore {
    pub(super) fn forget_batch(&self, forget: &Forget) -> Result<Batch, StoreError> {
        let Forget { service, runs, rollouts, images, deliveries } = forget;
        let mut batch = Batch::new();
        batch.count(self.generations.of(service));
        for inputs in images {
            let key = under(service, inputs.as_str().as_bytes());
            let known = self.get::<(RunId, Digest)>(IMAGES, &key)?;
            // With runs: those of these runs. Alone: whichever run built it.
            if known.is_some_and(|(run, _)| runs.is_empty() || runs.contains(&run.number)) {
                batch.delete(IMAGES, key);
            }
        }
        for number in runs {
            for table in [RUNS, RELEASES, APPROVALS] {
                batch.delete(table, numbered(service, *number));
            }
        }
        for number in rollouts {
            batch.delete(ROLLOUTS, numbered(service, *number));
        }
        for id in deliveries {
            let Some(delivery) = self.delivery(*id)? else { continue };
            let forge_key = under(service, format!("{}\0{}", delivery.forge, delivery.forge_id).as_bytes());
            if self.get::<DeliveryId>(DELIVERIES_BY_FORGE_ID, &forge_key)? == Some(*id) {
                batch.delete(DELIVERIES_BY_FORGE_ID, forge_key);
            }
            batch.delete(DELIVERIES_BY_SERVICE, under(service, &id.to_be_bytes()));
            batch.delete(DELIVERIES, id.to_be_bytes());
        }
        Ok(batch)
    }
}
