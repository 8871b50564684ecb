//! Releases: listing, deciding, claiming, asking again, going back to an older one.

use std::sync::Arc;

use axum::extract::State;
use pipelines::ids::{Digest, ReleaseId};

use super::{
    Paging, Reply, convert,
    model::{self, Answer, List},
    reply,
};
use crate::{
    app::{App, AppError, accounts::Caller, approvals::actor_of},
    http::{
        access::Signed,
        extract::{Ask, Body, OfRelease, OfService},
    },
};

/// Releases of a service, newest first.
#[utoipa::path(get, path = "/api/v1/services/{service}/releases", tag = "releases",
    params(("service" = String, Path), Paging),
    responses((status = 200, body = Answer<List<model::Release>>, description = "a page of them")))]
pub async fn list_releases(
    State(app): State<Arc<App>>,
    OfService(name): OfService,
    Ask(paging): Ask<Paging>,
) -> Reply<List<model::Release>> {
    app.service(&name)?;
    let releases = app.releases(&name, paging.page())?;
    let items = releases.iter().map(|release| convert::release(&app, release)).collect::<Result<Vec<_>, _>>()?;
    reply(paging.list(items, |release| release.number.into()))
}

/// A release.
#[utoipa::path(get, path = "/api/v1/services/{service}/releases/{number}", tag = "releases",
    params(("service" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = Answer<model::Release>, description = "it")))]
pub async fn show_release(State(app): State<Arc<App>>, OfRelease(id): OfRelease) -> Reply<model::Release> {
    now(&app, &id)
}

/// Approves a release. The digest says what was tested: another one than the release's is refused.
#[utoipa::path(post, path = "/api/v1/services/{service}/releases/{number}/approve", tag = "releases",
    params(("service" = String, Path), ("number" = u32, Path)), request_body = model::Decide,
    responses((status = 200, body = Answer<model::Release>, description = "as it is now")))]
pub async fn approve_release(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRelease(id): OfRelease,
    Body(decide): Body<model::Decide>,
) -> Reply<model::Release> {
    decide_on(&app, &caller, &id, decide, true).await
}

/// Rejects a release; the comment says why.
#[utoipa::path(post, path = "/api/v1/services/{service}/releases/{number}/reject", tag = "releases",
    params(("service" = String, Path), ("number" = u32, Path)), request_body = model::Decide,
    responses((status = 200, body = Answer<model::Release>, description = "as it is now")))]
pub async fn reject_release(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRelease(id): OfRelease,
    Body(decide): Body<model::Decide>,
) -> Reply<model::Release> {
    decide_on(&app, &caller, &id, decide, false).await
}

/// "I am testing this": the test environment stays with this release until it is decided or expires.
#[utoipa::path(post, path = "/api/v1/services/{service}/releases/{number}/claim", tag = "releases",
    params(("service" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = Answer<model::Release>, description = "as it is now")))]
pub async fn claim_release(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRelease(id): OfRelease,
) -> Reply<model::Release> {
    app.approval_for_decider(&id, &caller)?;
    app.approval_claim(&id, actor_of(&caller.account), caller.origin()).await?;
    now(&app, &id)
}

/// Takes the claim back.
#[utoipa::path(post, path = "/api/v1/services/{service}/releases/{number}/unclaim", tag = "releases",
    params(("service" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = Answer<model::Release>, description = "as it is now")))]
pub async fn unclaim_release(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRelease(id): OfRelease,
) -> Reply<model::Release> {
    app.approval_for_decider(&id, &caller)?;
    app.approval_unclaim(&id, actor_of(&caller.account), caller.origin()).await?;
    now(&app, &id)
}

/// Asks the testers of an expired release once more.
#[utoipa::path(post, path = "/api/v1/services/{service}/releases/{number}/ask-again", tag = "releases",
    params(("service" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = Answer<model::Release>, description = "as it is now")))]
pub async fn ask_release_again(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRelease(id): OfRelease,
) -> Reply<model::Release> {
    app.release_ask_again(&id, caller.origin()).await?;
    now(&app, &id)
}

/// Goes back to this release, which was live before, without a build.
#[utoipa::path(post, path = "/api/v1/services/{service}/releases/{number}/rollback", tag = "releases",
    params(("service" = String, Path), ("number" = u32, Path)), request_body = model::Rollback,
    responses((status = 200, body = Answer<model::Release>, description = "as it is now")))]
pub async fn roll_back_to_release(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRelease(id): OfRelease,
    Body(rollback): Body<model::Rollback>,
) -> Reply<model::Release> {
    app.release_rollback(&id, rollback.reason, caller.origin()).await?;
    now(&app, &id)
}

fn now(app: &App, id: &ReleaseId) -> Reply<model::Release> {
    reply(convert::release(app, &app.release(id)?)?)
}

async fn decide_on(
    app: &App,
    caller: &Caller,
    id: &ReleaseId,
    decide: model::Decide,
    approve: bool,
) -> Reply<model::Release> {
    app.approval_for_decider(id, caller)?;
    let digest: Digest = decide.digest.parse().map_err(|error| AppError::Invalid(format!("{error}")))?;
    app.approval_decide_signed_in(id, &caller.account, digest, approve, decide.comment, caller.origin()).await?;
    now(app, id)
}
