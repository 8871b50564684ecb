//! Rollouts: listing, watching, steering.

use std::sync::Arc;

use axum::extract::State;

use super::{
    Paging, Reply, convert,
    model::{self, Answer, List},
    reply,
};
use crate::{
    app::{App, rollouts::RolloutVerb},
    http::{
        access::Signed,
        extract::{Ask, Body, OfRollout, OfService},
    },
};

/// Rollouts of a service, newest first, without their samples.
#[utoipa::path(get, path = "/api/v1/services/{service}/rollouts", tag = "rollouts",
    params(("service" = String, Path), Paging),
    responses((status = 200, body = Answer<List<model::Rollout>>, description = "a page of them")))]
pub async fn list_rollouts(
    State(app): State<Arc<App>>,
    OfService(name): OfService,
    Ask(paging): Ask<Paging>,
) -> Reply<List<model::Rollout>> {
    app.service(&name)?;
    let rollouts = app.rollouts(&name, paging.page())?;
    let items = rollouts.iter().map(|it| convert::rollout(&app, it, false)).collect::<Result<Vec<_>, _>>()?;
    reply(paging.list(items, |rollout| rollout.number.into()))
}

/// A rollout.
#[utoipa::path(get, path = "/api/v1/services/{service}/rollouts/{number}", tag = "rollouts",
    params(("service" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = Answer<model::Rollout>, description = "it")))]
pub async fn show_rollout(State(app): State<Arc<App>>, OfRollout(id): OfRollout) -> Reply<model::Rollout> {
    reply(convert::rollout(&app, &app.rollout(&id)?, true)?)
}

/// Promotes, pauses, resumes, aborts or replaces a running rollout.
#[utoipa::path(post, path = "/api/v1/services/{service}/rollouts/{number}/act", tag = "rollouts",
    params(("service" = String, Path), ("number" = u32, Path)), request_body = model::RolloutAct,
    responses((status = 200, body = Answer<model::Rollout>, description = "as it is now")))]
pub async fn steer_rollout(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfRollout(id): OfRollout,
    Body(act): Body<model::RolloutAct>,
) -> Reply<model::Rollout> {
    let verb = match act.verb {
        model::RolloutVerb::Promote => RolloutVerb::Promote,
        model::RolloutVerb::PromoteFully => RolloutVerb::PromoteFully,
        model::RolloutVerb::Pause => RolloutVerb::Pause,
        model::RolloutVerb::Resume => RolloutVerb::Resume,
        model::RolloutVerb::Abort => RolloutVerb::Abort { reason: act.reason },
        model::RolloutVerb::Replace => RolloutVerb::Replace,
    };
    app.rollout_act(&id, verb, caller.origin()).await?;
    reply(convert::rollout(&app, &app.rollout(&id)?, true)?)
}
