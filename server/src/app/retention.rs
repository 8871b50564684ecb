//! Retention: what is kept, and removing the records and logs of the rest. It is a task that comes again, not an effect: it
//! decides nothing about anybody's release, only finds again what nothing refers to any more, so a repeat, a loss or a kill
//! in the middle costs no more than the space until it comes again. What must not race with it is held by the service's
//! lock. The journal is never touched. Not here: which records may go (`pipelines::retention`), and what lies on engine and
//! registry (`driver::sweep`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};

use pipelines::{
    effect::{Effect, EffectKind},
    ids::{Digest, Environment, RunId, ServiceName},
    retention::{Forgettable, Policy, ReleaseFacts, Remembered, RolloutFacts, RunFacts, forgettable},
    time::UnixMs,
};

use super::{App, AppError, DeliveryState, StoreError};
use crate::{
    config::Retention,
    crash,
    store::{Forget, Page},
};

const DAY_MS: u64 = 86_400_000;
/// Records that are read at once.
const PAGE: usize = 200;
/// Records of a service that are forgotten in one transaction.
const FORGET_MAX: usize = 200;

/// What a sweep removed, and what is kept after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// When it ended.
    pub at: UnixMs,
    /// Runs that were forgotten, with their releases and rollouts.
    pub runs: u64,
    /// Hooks that were forgotten.
    pub deliveries: u64,
    /// Logs that were removed.
    pub logs: u64,
    /// Images that were removed from the test registry.
    pub registry_images: u64,
    /// Names of images that were removed from the engine.
    pub engine_images: u64,
    /// Containers that nothing wanted any more.
    pub containers: u64,
    /// Runs that are kept.
    pub runs_kept: u64,
    /// Bytes of the logs that are kept.
    pub log_bytes: u64,
    /// Bytes of the store.
    pub store_bytes: u64,
    /// What could not be removed, and why.
    pub troubles: Vec<String>,
}

/// The images of a service of which some may go.
#[derive(Clone, Debug)]
pub struct Images {
    /// Those in the test registry that may go, with the tags under which they were pushed.
    pub forgettable: BTreeMap<String, Digest>,
    /// All that may go, whatever became of their tags.
    pub doomed: BTreeSet<Digest>,
    /// Those that must stay.
    pub kept: BTreeSet<Digest>,
    /// The tags that must stay.
    pub tags_kept: BTreeSet<String>,
}

/// While it is there, no run of the service is given to a runner.
pub struct Quiet<'a> {
    app: &'a App,
    service: ServiceName,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.app.quiet.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.service);
        self.app.work_for_runners.notify_waiters();
    }
}

fn policy(settings: &Retention) -> Policy {
    Policy {
        runs_keep: settings.runs_keep,
        runs_age_ms: u64::from(settings.runs_days).saturating_mul(DAY_MS),
        images_keep: settings.images_keep,
        images_age_ms: u64::from(settings.images_days).saturating_mul(DAY_MS),
        rollback_keep: settings.rollback_keep,
    }
}

impl App {
    /// Whether no run of the service may begin just now, because its images are being looked through.
    pub(super) fn is_quiet(&self, service: &ServiceName) -> bool {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner).contains(service)
    }

    /// What the last sweep did.
    #[must_use]
    pub fn last_swept(&self) -> Option<Swept> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A sweep has ended.
    pub fn sweep_ended(&self, swept: Swept) {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = Some(swept);
    }

    /// What may be forgotten of a service, and its runs. Records are read page by page: there may be very many.
    fn forgettable_of(&self, service: &ServiceName) -> Result<(Forgettable, Vec<RunFacts>), AppError> {
        let runs: Vec<RunFacts> = paged(|page| self.store.runs(service, page), |run| (run.id.number, run.into()))?;
        let releases: Vec<ReleaseFacts> =
            paged(|page| self.store.releases(service, page), |release| (release.id.number, release.into()))?;
        let rollouts: Vec<RolloutFacts> =
            paged(|page| self.store.rollouts(service, page), |rollout| (rollout.id.number, rollout.into()))?;
        let pending = self.queue.of_service(service);
        let pending = pending.iter().filter_map(|pending| number_of(&pending.effect)).collect();
        let train = &self.train(service)?;
        let remembered = Remembered { train, runs: &runs, releases: &releases, rollouts: &rollouts, pending: &pending };
        Ok((forgettable(&remembered, &policy(&self.config.retention), self.now()), runs))
    }

    /// Looks which images of a service may go, and sees to it that nobody takes one of them up again: from now on no run is
    /// told that it was built before, and no run begins as long as the answer is held. None while one is running.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub async fn images_to_forget(&self, service: &ServiceName) -> Result<Option<(Images, Quiet<'_>)>, AppError> {
        let lock = self.lock_of(service);
        let _held = lock.lock().await;
        let (found, runs) = self.forgettable_of(service)?;
        if runs.iter().any(|run| run.is_at_work) {
            return Ok(None);
        }
        let mut doomed = BTreeMap::new();
        let mut inputs = Vec::new();
        for run in &runs {
            let Some(digest) = run.digest.as_ref().filter(|digest| found.images.contains(digest)) else { continue };
            doomed.extend(run.tag.clone().map(|tag| (tag, digest.clone())));
            inputs.extend(run.inputs.clone());
        }
        doomed.retain(|tag, _| !found.tags_kept.contains(tag));
        // Only what is there is taken away: most of it was the last time.
        let mut images = Vec::new();
        for inputs in inputs {
            let stored = self.store.image_of_inputs(service, &inputs)?;
            images.extend(stored.filter(|(_, digest)| found.images.contains(digest)).map(|_| inputs));
        }
        for images in images.chunks(FORGET_MAX) {
            let forget = Forget { images: images.to_vec(), ..Forget::of(service.clone()) };
            self.store.forget(forget).await?;
        }
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner).insert(service.clone());
        let quiet = Quiet { app: self, service: service.clone() };
        let images =
            Images { forgettable: doomed, doomed: found.images, kept: found.images_kept, tags_kept: found.tags_kept };
        Ok(Some((images, quiet)))
    }

    /// Forgets records of a service that nothing needs. A run whose image was not looked after (it is not in `images_gone`,
    /// and no other run needs it) stays: as long as it is remembered, it is known which image was its own.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub async fn forget_records(
        &self,
        service: &ServiceName,
        images_gone: &BTreeSet<Digest>,
        swept: &mut Swept,
    ) -> Result<(), AppError> {
        let lock = self.lock_of(service);
        let _held = lock.lock().await;
        let (mut found, runs) = self.forgettable_of(service)?;
        let is_left = |digest: &Digest| !images_gone.contains(digest) && !found.images_kept.contains(digest);
        let left: BTreeSet<u32> =
            runs.iter().filter(|run| run.digest.as_ref().is_some_and(is_left)).map(|run| run.number).collect();
        found.runs.retain(|number| !left.contains(number));
        found.rollouts.retain(|_, release| !left.contains(release));
        let numbers: Vec<u32> = found.runs.iter().copied().collect();
        let rollouts: Vec<u32> = found.rollouts.into_keys().collect();
        // Rollouts first: a release that is there without them is whole, the other way round is not.
        for rollouts in rollouts.chunks(FORGET_MAX) {
            let forget = Forget { rollouts: rollouts.to_vec(), ..Forget::of(service.clone()) };
            self.store.forget(forget).await?;
        }
        crash::point("sweep", "before");
        for numbers in numbers.chunks(FORGET_MAX) {
            let gone = |run: &&RunFacts| numbers.contains(&run.number);
            let images = runs.iter().filter(gone).filter_map(|run| run.inputs.clone()).collect();
            self.store.forget(Forget { runs: numbers.to_vec(), images, ..Forget::of(service.clone()) }).await?;
            crash::point("sweep", "storing");
        }
        swept.runs += numbers.len() as u64;
        swept.runs_kept += (runs.len() - numbers.len()) as u64;
        let settings = &self.config.retention;
        let oldest = self.now().0.saturating_sub(u64::from(settings.deliveries_days).saturating_mul(DAY_MS));
        let deliveries = self.store.deliveries(service, None, usize::MAX)?;
        let over = deliveries.iter().skip(settings.deliveries_keep);
        let over = over.filter(|it| it.at.0 < oldest && !matches!(it.state, DeliveryState::Received));
        let gone: Vec<u64> = over.map(|delivery| delivery.id).collect();
        for deliveries in gone.chunks(FORGET_MAX) {
            self.store.forget(Forget { deliveries: deliveries.to_vec(), ..Forget::of(service.clone()) }).await?;
        }
        swept.deliveries += gone.len() as u64;
        Ok(())
    }

    /// Removes the logs of runs that are forgotten, and the oldest of those that ended, until what is left is within its
    /// age and its space. The logs of what moves or is live stay.
    ///
    /// # Errors
    /// When the store or the log files cannot be read.
    pub fn forget_logs(&self, swept: &mut Swept) -> Result<(), AppError> {
        let settings = &self.config.retention;
        let oldest = self.now().0.saturating_sub(u64::from(settings.logs_days).saturating_mul(DAY_MS));
        let mut kept: Vec<(UnixMs, String, u64)> = Vec::new();
        for name in self.logs.runs()? {
            let Ok(id) = name.parse::<RunId>() else { continue };
            // A run is stored before its first line, so a log without one is left over.
            let Some(run) = self.store.run(&id)? else {
                self.logs.remove(&name)?;
                swept.logs += 1;
                continue;
            };
            let bytes = self.logs.disk_bytes(&name)?;
            swept.log_bytes += bytes;
            let train = self.store.train(&id.service)?;
            let is_live = train.is_some_and(|train| {
                [train.live, train.in_test, train.testing, train.newest_release].contains(&Some(id.number))
            });
            let moves = self.store.release(&id.release())?.is_some_and(|release| release.state.is_under_way());
            if let Some(at) = run.finished_at.filter(|_| run.state.is_final() && !is_live && !moves && bytes > 0) {
                kept.push((at, name, bytes));
            }
        }
        kept.sort();
        for (at, name, bytes) in kept {
            if at.0 >= oldest && swept.log_bytes <= settings.logs_bytes_max {
                break;
            }
            self.logs.remove(&name)?;
            swept.logs += 1;
            swept.log_bytes = swept.log_bytes.saturating_sub(bytes);
        }
        swept.store_bytes = self.store.size_bytes()?;
        Ok(())
    }

    /// Calls `remove` with those of `found` (environment and revision of containers) that nothing wants, while nothing can
    /// begin to want them. Nothing is called while something moves.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn unwanted_containers<F: Future<Output = ()>>(
        &self,
        service: &ServiceName,
        found: BTreeSet<(String, String)>,
        remove: impl FnOnce(Vec<(String, String)>) -> F,
    ) -> Result<(), AppError> {
        let lock = self.lock_of(service);
        let _held = lock.lock().await;
        let train = self.train(service)?;
        let moves = |kind| {
            matches!(
                kind,
                EffectKind::DeployTest
                    | EffectKind::StartRevision
                    | EffectKind::ApplyTraffic
                    | EffectKind::Measure
                    | EffectKind::DrainRevision
            )
        };
        if train.rollout.is_some() || self.queue.of_service(service).iter().any(|it| moves(it.effect.kind())) {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for (environment, number) in [
            (Environment::Production, train.live),
            (Environment::Test, train.in_test),
            (Environment::Test, train.testing),
        ] {
            let Some(number) = number else { continue };
            let release = self.store.release(&pipelines::ids::ReleaseId::new(service.clone(), number))?;
            wanted.extend(release.map(|release| (environment.to_string(), release.revision().to_string())));
        }
        let unwanted: Vec<_> = found.into_iter().filter(|it| !wanted.contains(it)).collect();
        if !unwanted.is_empty() {
            remove(unwanted).await;
        }
        Ok(())
    }
}

/// All of a listing, of each only what has to be known.
fn paged<R, F>(
    list: impl Fn(Page) -> Result<Vec<R>, StoreError>,
    facts: impl Fn(&R) -> (u32, F),
) -> Result<Vec<F>, AppError> {
    let mut all = Vec::new();
    let mut page = Page::newest(PAGE);
    loop {
        let records = list(page)?;
        let is_last = records.len() < PAGE;
        for record in &records {
            let (number, fact) = facts(record);
            page.before = Some(number);
            all.push(fact);
        }
        if is_last {
            return Ok(all);
        }
    }
}

/// The run or release that an effect is about.
fn number_of(effect: &Effect) -> Option<u32> {
    let fields = serde_json::to_value(effect).ok()?;
    let named = ["run", "release"].iter().find_map(|field| fields.get(field).and_then(serde_json::Value::as_str));
    named.and_then(|id| id.rsplit('/').next()?.parse().ok())
}

#[cfg(test)]
mod tests;
