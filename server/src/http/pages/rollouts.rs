//! The page of a rollout: what it does, what was measured, and the verbs that steer it.

use axum::{http::StatusCode, response::Response};

use super::{
    Fields, Visit,
    convert::{rollout as convert, train, why::Reader},
    see, show,
};
use crate::{
    app::{AppError, Role, rollouts::RolloutVerb},
    http::{
        extract::OfRollout,
        problem::Problem,
        ui::{links, rollout::RolloutView},
    },
};

/// The page of a rollout.
pub(in crate::http) async fn show_rollout(visit: Visit, OfRollout(id): OfRollout) -> Result<Response, Problem> {
    let app = &visit.app;
    let rollout = app.rollout(&id)?;
    let release = app.release(&rollout.release)?;
    let run = app.run(&release.id.run()).ok();
    let approval = app.approval_maybe(&release.id)?;
    let live = app.release_live(&id.service)?;
    let caller = visit.caller.as_ref();
    let now_ms = visit.ctx.clock.now_ms;
    let reason = app.release_why(&release)?;
    let facts = train::Facts {
        run: run.as_ref(),
        release: Some(&release),
        approval: approval.as_ref(),
        rollout: Some(&rollout),
        live: live.as_ref(),
        fault: matches!(reason, pipelines::why::Why::Fault(_)),
        caller,
        linked: true,
    };
    let reader = Reader { caller, approval: approval.as_ref(), now_ms };
    let waiting = app.train(&id.service)?.rollout_next;
    let gateway = &app.config.gateway;
    let view = RolloutView {
        service: id.service.to_string(),
        number: u64::from(id.number),
        build: u64::from(release.id.number),
        version: super::convert::version(&release),
        from: rollout.stable.as_ref().map(|stable| stable.release.to_string()),
        strategy: super::convert::strategy(&rollout.plan.strategy),
        state: convert::state(&rollout),
        percent: u32::from(rollout.weight_percent),
        step: rollout.stage().map_or(rollout.stages.len(), |stage| stage + 1),
        why: reader.why(release.id.number, &reason),
        train: train::train(&facts),
        steps: convert::steps(&rollout, now_ms),
        preview: convert::preview(&rollout, gateway),
        plots: convert::plots(&rollout),
        checks: convert::checks(&rollout),
        judged_every_ms: convert::judged_every_ms(&rollout),
        judged_since_ms: convert::judged_since_ms(&rollout),
        verbs: convert::verbs(&rollout, waiting, visit.may(Role::ReleaseManager)),
    };
    Ok(show!(visit, view))
}

/// Steers a rollout.
pub(in crate::http) async fn steer_rollout(
    visit: Visit,
    OfRollout(id): OfRollout,
    fields: Fields,
) -> Result<Response, Problem> {
    let verb = match fields.get("verb") {
        "promote" => RolloutVerb::Promote,
        "promote-fully" => RolloutVerb::PromoteFully,
        "pause" => RolloutVerb::Pause,
        "resume" => RolloutVerb::Resume,
        "abort" => RolloutVerb::Abort { reason: String::new() },
        "replace" => RolloutVerb::Replace,
        other => {
            let other: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
            let detail = format!("{other:?} is nothing that can be done to a rollout");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail));
        }
    };
    match visit.app.rollout_act(&id, verb, visit.caller()?.origin()).await {
        // Somebody pressed it on a page of a moment ago: the page of now says why there is no such button.
        Ok(()) | Err(AppError::Refused(_)) => Ok(see(&links::rollout(id.service.as_str(), u64::from(id.number)))),
        Err(error) => Err(error.into()),
    }
}
