//! Small reads for the pages: what is live, and where something is found. Not here: how it is
//! shown.

use pipelines::{
    ids::{ReleaseId, ServiceName},
    release::Release,
    run::Run,
};

use super::{App, AppError};
use crate::store::Page;

/// Runs and releases of each service that a search looks at, the newest ones.
const SEARCHED_PER_SERVICE: usize = 200;
/// Characters of a commit or digest below which a search does not compare it: too many begin with them.
const ID_CHARS_MIN: usize = 4;

/// Something that a search found.
#[derive(Clone, Debug)]
pub enum Found {
    /// A service, by its name or repository.
    Service(ServiceName),
    /// A run, by its number, commit or what its commit says.
    Run(Box<Run>),
    /// A release, by its number, version, commit or digest.
    Release(Box<Release>),
}

impl App {
    /// The release of a service that has the traffic.
    ///
    /// # Errors
    /// When the store cannot be read; so for all here. Also when there is no such service.
    pub fn release_live(&self, service: &ServiceName) -> Result<Option<Release>, AppError> {
        let live = self.train(service)?.live;
        live.map(|number| self.release(&ReleaseId::new(service.clone(), number))).transpose()
    }

    /// Services, releases and runs that `text` names, services first, then the newest; and whether there are more than
    /// `limit`. Only the newest runs and releases of each service are looked at.
    ///
    /// # Errors
    /// As above.
    pub fn search(&self, text: &str, limit: usize) -> Result<(Vec<Found>, bool), AppError> {
        let wanted = text.trim().to_lowercase();
        if wanted.is_empty() {
            return Ok((Vec::new(), false));
        }
        let number = wanted.trim_start_matches('#').parse::<u32>().ok();
        let is_id = |id: &str| wanted.len() >= ID_CHARS_MIN && id.starts_with(&wanted);
        let says = |text: &str| text.to_lowercase().contains(&wanted);
        let (mut services, mut moved) = (Vec::new(), Vec::new());
        for service in self.services()? {
            if says(service.name.as_str()) || says(&service.repository_url) {
                services.push(Found::Service(service.name.clone()));
            }
            for release in self.releases(&service.name, Page::newest(SEARCHED_PER_SERVICE))? {
                let digest = release.digest.as_str();
                let is_digest = is_id(digest) || is_id(digest.trim_start_matches("sha256:"));
                if is_digest || says(&release.tag) || number == Some(release.id.number) {
                    moved.push((release.created_at, Found::Release(Box::new(release))));
                }
            }
            for run in self.runs(&service.name, Page::newest(SEARCHED_PER_SERVICE))? {
                let is_commit = is_id(run.trigger.commit.as_str());
                if is_commit || says(&run.trigger.subject) || number == Some(run.id.number) {
                    moved.push((run.created_at, Found::Run(Box::new(run))));
                }
            }
        }
        moved.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let all = services.len() + moved.len();
        let found = services.into_iter().chain(moved.into_iter().map(|(_, found)| found)).take(limit).collect();
        Ok((found, all > limit))
    }
}
