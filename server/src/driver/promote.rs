//! Copies an image graph from the test to the production registry, by digest; the tag last, then verified.

use integrations::registry::{PromoteOptions, PromoteProgress, Promotion, promote as copy_graph};
use pipelines::{
    ids::ReleaseId,
    release::{ReleaseEvent, ReleaseState},
    train::Event,
};
use tokio::sync::watch;

use super::{Drivers, Performed, TryAgain};
use crate::app::trains::Outcome;

pub(super) async fn promote(drivers: &Drivers, id: &ReleaseId) -> Performed {
    let app = &drivers.app;
    let release = app.release(id)?;
    if release.state != ReleaseState::Promoting {
        return Ok(Outcome::done());
    }
    let settings = &app.config.registries;
    let bad_name = |error: integrations::registry::InvalidReference| TryAgain::from_error(&error);
    let promotion = Promotion {
        source: drivers.test.client.clone(),
        source_repository: settings.test.repository(&id.service).parse().map_err(bad_name)?,
        digest: release.digest.clone(),
        destination: drivers.production.client.clone(),
        destination_repository: settings.production.repository(&id.service).parse().map_err(bad_name)?,
        tag: release.tag.parse().map_err(bad_name)?,
    };
    let options = PromoteOptions { parallel: app.config.bounds.promotion_parallel_max, ..PromoteOptions::default() };
    let (progress, seen) = watch::channel(PromoteProgress::default());
    let told = tell_progress(drivers, id, seen);
    let result = tokio::select! {
        result = copy_graph(&promotion, &options, &progress) => result,
        () = told => return Err(TryAgain("the promotion's progress ended early".into())),
    };
    app.promotion_forget(id);
    // Whatever is wrong with a registry, people mend it there and the copy goes on: nothing is to be decided anew.
    let promoted = result.map_err(|error| TryAgain::from_error(&error))?;
    tracing::info!(release = %id, digest = %promoted.digest, counts = ?promoted.counts, "promoted");
    let event = ReleaseEvent::Promoted { digest: promoted.digest };
    Ok(Outcome::event(Event::Release { number: id.number, event }))
}

/// Hands the progress on to the pages, for as long as it is polled.
async fn tell_progress(drivers: &Drivers, id: &ReleaseId, mut seen: watch::Receiver<PromoteProgress>) {
    while seen.changed().await.is_ok() {
        let now = seen.borrow_and_update().clone();
        let done = now.bytes_copied + now.bytes_mounted + now.bytes_skipped;
        drivers.app.promotion_progress(id, done, now.bytes_total);
    }
    std::future::pending().await
}
