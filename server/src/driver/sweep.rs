//! Sweeps: removes images from the test registry and the engine, containers, records and logs that nothing needs any more.
//! Comes again by itself (see `app::retention`): what a kill or a party that is away leaves behind goes the next time.
//! Images go before the records that name them. The production registry is never touched.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use integrations::registry::{RegistryError, Repository, Tag};
use pipelines::ids::{Digest, ServiceName};
use tokio_util::sync::CancellationToken;

use super::{Drivers, TryAgain};
use crate::{
    app::retention::{Images, Swept},
    crash,
};

/// Troubles that are told of one sweep.
const TROUBLES_MAX: usize = 5;

impl Drivers {
    /// Sweeps again and again until `shutdown`; the first time after the usual pause, for a start has enough to do.
    pub async fn sweep_forever(self: Arc<Self>, shutdown: CancellationToken) {
        let every_ms = self.app.config.retention.sweep_every_ms;
        if every_ms == 0 {
            return;
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(every_ms)) => {}
            }
            // On a full disk nothing can be stored, and that it becomes free is what all wait for: it is tried.
            tokio::select! {
                () = shutdown.cancelled() => return,
                swept = self.sweep() => self.app.sweep_ended(swept),
            }
        }
    }

    /// Sweeps once. What fails is told and left for the next time.
    pub async fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        let services = match self.app.services() {
            Ok(services) => services,
            Err(error) => {
                trouble(&mut swept, TryAgain::from(error).0);
                Vec::new()
            }
        };
        for service in &services {
            self.sweep_service(&service.name, &mut swept).await;
        }
        if let Err(error) = self.app.forget_logs(&mut swept) {
            trouble(&mut swept, TryAgain::from(error).0);
        }
        swept.at = self.app.now();
        tracing::info!(?swept, "swept");
        swept
    }

    async fn sweep_service(&self, service: &ServiceName, swept: &mut Swept) {
        let mut images_gone = BTreeSet::new();
        match self.app.images_to_forget(service).await {
            Ok(Some((images, _quiet))) => {
                match self.sweep_registry(service, &images, swept).await {
                    Ok(()) => images_gone.clone_from(&images.doomed),
                    Err(TryAgain(error)) => trouble(swept, error),
                }
                crash::point("sweep", "answered");
                if let Err(TryAgain(error)) = self.sweep_engine(service, &images, swept).await {
                    trouble(swept, error);
                }
            }
            // A run is at work: its image may be any of them.
            Ok(None) => {}
            Err(error) => trouble(swept, TryAgain::from(error).0),
        }
        if let Err(TryAgain(error)) = self.sweep_containers(service, swept).await {
            trouble(swept, error);
        }
        if let Err(error) = self.app.forget_records(service, &images_gone, swept).await {
            trouble(swept, TryAgain::from(error).0);
        }
    }

    async fn sweep_registry(&self, service: &ServiceName, images: &Images, swept: &mut Swept) -> Result<(), TryAgain> {
        if images.forgettable.is_empty() {
            return Ok(());
        }
        let failed = |error: RegistryError| TryAgain::from_error(&error);
        let name = self.app.config.registries.test.repository(service);
        let repository: Repository = name.parse().map_err(|error| TryAgain::from_error(&error))?;
        let there: BTreeSet<String> = match self.test.client.tags(&repository).await {
            Ok(tags) => tags.into_iter().collect(),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for (tag, digest) in images.forgettable.iter().filter(|(tag, _)| there.contains(*tag)) {
            let shown: Tag = tag.parse().map_err(|error| TryAgain::from_error(&error))?;
            match self.test.client.resolve(&repository, &shown).await {
                // Nobody's but ours, and nothing that is needed.
                Ok(found) if found == *digest && !images.kept.contains(&found) => {}
                Ok(_) => continue,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(failed(error)),
            }
            match self.test.client.delete_manifest(&repository, digest).await {
                Ok(()) => swept.registry_images += 1,
                Err(error) if error.is_not_found() => {}
                Err(error @ RegistryError::Rejected { .. }) => {
                    let error = TryAgain::from_error(&error).0;
                    let told = "allow it there, or remove old images by its own means";
                    trouble(swept, format!("the test registry does not let images be deleted ({error}); {told}"));
                    // That stays so: the records do not wait for it.
                    return Ok(());
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    async fn sweep_engine(&self, service: &ServiceName, images: &Images, swept: &mut Swept) -> Result<(), TryAgain> {
        let registries = &self.app.config.registries;
        let repositories = [&registries.test, &registries.production]
            .map(|registry| format!("{}/{}", registry.host, registry.repository(service)));
        let engine = self.engine().await?;
        let names = engine.image_names().await.map_err(|error| TryAgain::from_error(&error))?;
        for name in names.iter().filter(|name| may_go(name, &repositories, images)) {
            match engine.remove_image(name).await {
                Ok(()) => swept.engine_images += 1,
                // A container uses it: it goes after the container.
                Err(error) => tracing::debug!(name, error = %TryAgain::from_error(&error).0, "an image stays"),
            }
        }
        Ok(())
    }

    async fn sweep_containers(&self, service: &ServiceName, swept: &mut Swept) -> Result<(), TryAgain> {
        let found = self.containers_of(service).await?;
        let mut removed = 0;
        let mut first_error = None;
        let remove = async |unwanted: Vec<(String, String)>| {
            for (environment, revision) in unwanted {
                tracing::info!(%service, environment, revision, "removing containers that nothing wants");
                match self.remove_containers(&environment, service, &revision).await {
                    Ok(()) => removed += 1,
                    Err(error) => first_error = first_error.take().or(Some(error)),
                }
            }
        };
        self.app.unwanted_containers(service, found, remove).await?;
        swept.containers += removed;
        first_error.map_or(Ok(()), Err)
    }
}

/// Whether a name that the engine knows is one of the service's images that nothing needs.
fn may_go(name: &str, repositories: &[String; 2], images: &Images) -> bool {
    if let Some((repository, digest)) = name.split_once('@') {
        let is_kept = digest.parse::<Digest>().is_ok_and(|digest| images.kept.contains(&digest));
        return repositories.iter().any(|ours| ours == repository) && !is_kept;
    }
    let Some((repository, tag)) = name.rsplit_once(':') else { return false };
    repositories.iter().any(|ours| ours == repository) && !images.tags_kept.contains(tag)
}

fn trouble(swept: &mut Swept, error: String) {
    tracing::warn!(error, "a part of a sweep failed");
    if swept.troubles.len() < TROUBLES_MAX && !swept.troubles.contains(&error) {
        swept.troubles.push(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_service_s_own_repositories_go() {
        let kept = Digest::of(b"kept");
        let images = Images {
            forgettable: [].into(),
            doomed: [].into(),
            kept: [kept.clone()].into(),
            tags_kept: ["main-2".to_owned()].into(),
        };
        let repositories = ["t:1/shop".to_owned(), "p:1/live/shop".to_owned()];
        let old = Digest::of(b"old");
        for (name, goes) in [
            (format!("t:1/shop@{old}"), true),
            (format!("t:1/shop@{kept}"), false),
            (format!("p:1/live/shop@{old}"), true),
            (format!("t:1/shop-front@{old}"), false),
            (format!("other:1/shop@{old}"), false),
            ("t:1/shop:main-1".into(), true),
            ("t:1/shop:main-2".into(), false),
            ("t:1/shopping:main-1".into(), false),
            ("t:1/shop".into(), false),
            ("windlass-cache/a-shop:last".into(), false),
        ] {
            assert_eq!(may_go(&name, &repositories, &images), goes, "{name}");
        }
    }
}
