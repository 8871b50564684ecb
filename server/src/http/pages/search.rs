//! What a search found.

use axum::response::Response;
use pipelines::repository::shown;
use serde::Deserialize;

use super::{
    Visit,
    convert::{page_ms, shown_url, version},
    show,
};
use crate::{
    app::{AppError, waiting::Found},
    http::{
        extract::Ask,
        problem::Problem,
        ui::{
            links,
            search::{Hit, HitKind, SearchView},
        },
    },
};

/// Hits that the page shows.
const HITS_MAX: usize = 50;
/// Characters of a search.
const QUERY_CHARS_MAX: usize = 200;

/// What is searched.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SearchQuery {
    /// The words.
    #[serde(default)]
    q: String,
}

/// The hits.
pub(in crate::http) async fn show_search(visit: Visit, Ask(asked): Ask<SearchQuery>) -> Result<Response, Problem> {
    let query: String = asked.q.trim().chars().take(QUERY_CHARS_MAX).collect();
    let (found, more) = visit.app.search(&query, HITS_MAX)?;
    let hits = found.iter().map(|found| hit(&visit, found)).collect::<Result<_, AppError>>()?;
    Ok(show!(visit, SearchView { query, hits, more }))
}

fn hit(visit: &Visit, found: &Found) -> Result<Hit, AppError> {
    Ok(match found {
        Found::Service(name) => Hit {
            kind: HitKind::Service,
            title: name.to_string(),
            detail: shown_url(&shown(&visit.app.service(name)?.repository_url)),
            href: links::service(name.as_str()),
            at_ms: None,
        },
        Found::Run(run) => Hit {
            kind: HitKind::Run,
            title: format!("{} {}", run.id.service, run.id.number),
            detail: format!("{} {}", run.trigger.commit.short(), run.trigger.subject),
            href: links::run(run.id.service.as_str(), u64::from(run.id.number)),
            at_ms: Some(page_ms(run.created_at)),
        },
        Found::Release(release) => Hit {
            kind: HitKind::Release,
            title: format!("{} {}", release.id.service, version(release)),
            detail: release.digest.to_string(),
            href: links::run(release.id.service.as_str(), u64::from(release.id.number)),
            at_ms: Some(page_ms(release.created_at)),
        },
    })
}
