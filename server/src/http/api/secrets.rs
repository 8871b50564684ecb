//! Secrets that steps can name: set, listed, removed. No answer holds a value.

use std::sync::Arc;

use axum::extract::State;
use pipelines::ids::{SecretName, ServiceName};

use super::{
    Reply,
    model::{self, Answer, Done, List},
    reply,
};
use crate::{
    app::{
        App, AppError,
        secrets::{SecretInfo, SecretInput, SecretScope},
    },
    http::{
        access::Signed,
        extract::{Body, OfSecret, OfService},
        problem::Problem,
    },
};

/// The shared secrets, by name.
#[utoipa::path(get, path = "/api/v1/secrets", tag = "secrets",
    responses((status = 200, body = Answer<List<model::NamedSecret>>, description = "all of them, without their values")))]
pub async fn list_shared_secrets(State(app): State<Arc<App>>) -> Reply<List<model::NamedSecret>> {
    reply(List::all(app.secrets_shared()?.into_iter().map(shown).collect()))
}

/// Sets a shared secret, or changes for which services it is; what is left out stays as it is.
#[utoipa::path(put, path = "/api/v1/secrets/{secret}", tag = "secrets", params(("secret" = String, Path)),
    request_body = model::SecretInput,
    responses((status = 200, body = Answer<model::NamedSecret>, description = "it, without its value")))]
pub async fn set_shared_secret(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfSecret(name): OfSecret,
    Body(input): Body<model::SecretInput>,
) -> Reply<model::NamedSecret> {
    let set = app.secret_set(SecretScope::Shared, secret_name(&name)?, domain(input)?, caller.origin()).await?;
    reply(shown(set))
}

/// Removes a shared secret: steps that name it fail from now on.
#[utoipa::path(delete, path = "/api/v1/secrets/{secret}", tag = "secrets", params(("secret" = String, Path)),
    responses((status = 200, body = Answer<Done>, description = "it is gone")))]
pub async fn remove_shared_secret(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfSecret(name): OfSecret,
) -> Reply<Done> {
    app.secret_remove(SecretScope::Shared, secret_name(&name)?, caller.origin()).await?;
    reply(Done { done: format!("the shared secret {name} is removed") })
}

/// The secrets that the runs of a service can have: its own, then the shared ones.
#[utoipa::path(get, path = "/api/v1/services/{service}/secrets", tag = "secrets", params(("service" = String, Path)),
    responses((status = 200, body = Answer<List<model::NamedSecret>>, description = "without their values")))]
pub async fn list_secrets(
    State(app): State<Arc<App>>,
    OfService(service): OfService,
) -> Reply<List<model::NamedSecret>> {
    reply(List::all(app.secrets_of_service(&service)?.into_iter().map(shown).collect()))
}

/// Sets a secret of a service.
#[utoipa::path(put, path = "/api/v1/services/{service}/secrets/{secret}", tag = "secrets",
    params(("service" = String, Path), ("secret" = String, Path)), request_body = model::SecretInput,
    responses((status = 200, body = Answer<model::NamedSecret>, description = "it, without its value")))]
pub async fn set_secret(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfService(service): OfService,
    OfSecret(name): OfSecret,
    Body(input): Body<model::SecretInput>,
) -> Reply<model::NamedSecret> {
    let scope = SecretScope::Service { service };
    reply(shown(app.secret_set(scope, secret_name(&name)?, domain(input)?, caller.origin()).await?))
}

/// Removes a secret of a service: steps that name it fail from now on.
#[utoipa::path(delete, path = "/api/v1/services/{service}/secrets/{secret}", tag = "secrets",
    params(("service" = String, Path), ("secret" = String, Path)),
    responses((status = 200, body = Answer<Done>, description = "it is gone")))]
pub async fn remove_secret(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfService(service): OfService,
    OfSecret(name): OfSecret,
) -> Reply<Done> {
    let done = format!("the secret {name} of {service} is removed");
    app.secret_remove(SecretScope::Service { service }, secret_name(&name)?, caller.origin()).await?;
    reply(Done { done })
}

fn secret_name(given: &str) -> Result<SecretName, Problem> {
    Ok(given.parse().map_err(|error| AppError::Invalid(format!("{error}")))?)
}

fn domain(input: model::SecretInput) -> Result<SecretInput, Problem> {
    let parse = |name: String| name.parse::<ServiceName>().map_err(|error| AppError::Invalid(format!("{error}")));
    let services = input.services.map(|names| names.into_iter().map(parse).collect::<Result<_, _>>()).transpose()?;
    Ok(SecretInput { value: input.value, services })
}

fn shown(secret: SecretInfo) -> model::NamedSecret {
    let SecretInfo { scope, name, services, set_at, set_by, last_use } = secret;
    model::NamedSecret {
        name: name.to_string(),
        service: scope.service().map(ToString::to_string),
        services: services.iter().map(ToString::to_string).collect(),
        set_at_ms: set_at.0,
        set_by,
        last_run: last_use.as_ref().map(|last| last.run.to_string()),
        last_used_at_ms: last_use.map(|last| last.at.0),
    }
}
