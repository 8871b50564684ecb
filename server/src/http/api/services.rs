//! Services: registering, changing, polling, and what became of their hooks.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use pipelines::{definition, ids::ServiceName};

use super::{
    Paging, Reply, convert,
    model::{self, Answer, Credential, Done, List},
    reply,
};
use crate::{
    app::{
        App, AppError,
        services::{NewCredential, ServiceInput},
    },
    http::{
        access::Signed,
        extract::{Ask, Body, OfService},
        problem::Problem,
    },
};

/// All services, by name.
#[utoipa::path(get, path = "/api/v1/services", tag = "services",
    responses((status = 200, body = Answer<List<model::Service>>, description = "all of them")))]
pub async fn list_services(State(app): State<Arc<App>>) -> Reply<List<model::Service>> {
    let services = app.services()?;
    let items = services.iter().map(|service| convert::service(&app, service)).collect::<Result<_, _>>()?;
    reply(List::all(items))
}

/// Registers a service; its repository is polled at once.
#[utoipa::path(post, path = "/api/v1/services", tag = "services", request_body = model::ServiceInput,
    responses((status = 201, body = Answer<model::Service>, description = "it is registered")))]
pub async fn create_service(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(mut input): Body<model::ServiceInput>,
) -> Result<Response, Problem> {
    let name = input.name.take().ok_or_else(|| AppError::Invalid("the name is missing".into()))?;
    let name: ServiceName = name.parse().map_err(|error| AppError::Invalid(format!("{error}")))?;
    let service = app.service_create(name, domain(input), caller.origin()).await?;
    Ok((StatusCode::CREATED, reply(convert::service(&app, &service)?)).into_response())
}

/// A service.
#[utoipa::path(get, path = "/api/v1/services/{service}", tag = "services", params(("service" = String, Path)),
    responses((status = 200, body = Answer<model::Service>, description = "it")))]
pub async fn show_service(State(app): State<Arc<App>>, OfService(name): OfService) -> Reply<model::Service> {
    reply(convert::service(&app, &app.service(&name)?)?)
}

/// Changes a service; what is left out stays as it is.
#[utoipa::path(patch, path = "/api/v1/services/{service}", tag = "services", params(("service" = String, Path)),
    request_body = model::ServiceInput,
    responses((status = 200, body = Answer<model::Service>, description = "as it is now")))]
pub async fn change_service(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfService(name): OfService,
    Body(input): Body<model::ServiceInput>,
) -> Reply<model::Service> {
    if input.name.as_ref().is_some_and(|given| given != name.as_str()) {
        return Err(AppError::Invalid("a service keeps its name: register another one".into()).into());
    }
    let service = app.service_update(&name, domain(input), caller.origin()).await?;
    reply(convert::service(&app, &service)?)
}

/// Asks the repository now instead of at its time.
#[utoipa::path(post, path = "/api/v1/services/{service}/poll", tag = "services", params(("service" = String, Path)),
    responses((status = 202, body = Answer<Done>, description = "it is asked")))]
pub async fn poll_service(
    State(app): State<Arc<App>>,
    OfService(name): OfService,
) -> Result<(StatusCode, Reply<Done>), Problem> {
    app.service_poll_now(&name)?;
    Ok((StatusCode::ACCEPTED, reply(Done { done: format!("the repository of {name} is asked now") })))
}

/// Hooks of a service, newest first.
#[utoipa::path(get, path = "/api/v1/services/{service}/deliveries", tag = "services",
    params(("service" = String, Path), Paging),
    responses((status = 200, body = Answer<List<model::Delivery>>, description = "with what became of each")))]
pub async fn list_deliveries(
    State(app): State<Arc<App>>,
    OfService(name): OfService,
    Ask(paging): Ask<Paging>,
) -> Reply<List<model::Delivery>> {
    let deliveries = app.deliveries(&name, paging.before, paging.limit())?;
    reply(paging.list(deliveries.iter().map(convert::delivery).collect(), |delivery| delivery.id))
}

/// Checks a pipeline file as a run would.
#[utoipa::path(post, path = "/api/v1/lint", tag = "services", request_body = model::Lint,
    responses((status = 200, body = Answer<model::LintReport>, description = "all that is wrong with it")))]
pub async fn lint_pipeline(Body(lint): Body<model::Lint>) -> Reply<model::LintReport> {
    let (found, problems) = definition::parse(&lint.file, &lint.text);
    let problems = problems
        .into_iter()
        .map(|problem| model::Diagnostic {
            severity: if problem.is_error() { "error" } else { "warning" }.to_owned(),
            code: problem.code.as_str().to_owned(),
            message: problem.message,
            why: problem.why,
            help: problem.help,
            file: problem.file,
            line: problem.line,
            column: problem.column,
        })
        .collect();
    reply(model::LintReport { ok: found.is_some(), problems })
}

fn domain(input: model::ServiceInput) -> ServiceInput {
    ServiceInput {
        repository_url: input.repository_url,
        credential: input.credential.map(|credential| match credential {
            Credential::None => NewCredential::None,
            Credential::Token { user, token } => NewCredential::Token { user, token },
            Credential::SshKey { key } => NewCredential::SshKey(key),
        }),
        hook_secret: input.hook_secret,
        allow_unsigned_hooks: input.allow_unsigned_hooks,
        poll_interval_ms: input.poll_interval_ms,
        release_branch: input.release_branch,
        allow_self_approval: input.allow_self_approval,
        known_hosts: input.known_hosts,
        ca_pem: input.ca_pem,
    }
}
