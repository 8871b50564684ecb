//! The secrets that steps can name: of a service for everybody to see, set and removed by operators; the shared ones for
//! operators. A value that was typed is never written back into a page, also where it was refused.

use axum::{extract::Path, http::StatusCode, response::Response};
use pipelines::{
    ids::{SecretName, ServiceName},
    protocol::Secret,
};

use super::{Fields, Visit, convert::page_ms, see, show};
use crate::{
    app::{
        AppError, Role,
        secrets::{SecretInfo, SecretInput, SecretScope},
    },
    http::{
        extract::{OfSecret, OfService},
        problem::Problem,
        ui::{
            links,
            secrets::{SecretLine, SecretsView},
        },
    },
};

/// Characters of a name that was typed and is shown again.
const TYPED_CHARS_MAX: usize = 100;

fn view(visit: &Visit, scope: &SecretScope) -> Result<SecretsView, Problem> {
    let secrets = match scope {
        SecretScope::Service { service } => visit.app.secrets_of_service(service)?,
        SecretScope::Shared => visit.app.secrets_shared()?,
    };
    Ok(SecretsView {
        service: scope.service().map(ToString::to_string),
        secrets: secrets.into_iter().map(line).collect(),
        can_set: visit.may(Role::Operator),
        name: String::new(),
        services: String::new(),
        problem: None,
    })
}

fn line(secret: SecretInfo) -> SecretLine {
    SecretLine {
        name: secret.name.to_string(),
        is_own: secret.scope.service().is_some(),
        services: secret.services.iter().map(ToString::to_string).collect(),
        set_at_ms: page_ms(secret.set_at),
        set_by: secret.set_by,
        last_use: secret
            .last_use
            .map(|last| (last.run.service.to_string(), u64::from(last.run.number), page_ms(last.at))),
    }
}

/// The secrets that the runs of a service can have.
pub(in crate::http) async fn show_secrets(visit: Visit, OfService(service): OfService) -> Result<Response, Problem> {
    let view = view(&visit, &SecretScope::Service { service })?;
    Ok(show!(visit, view))
}

/// The shared secrets.
pub(in crate::http) async fn show_shared_secrets(visit: Visit) -> Result<Response, Problem> {
    let view = view(&visit, &SecretScope::Shared)?;
    Ok(show!(visit, view))
}

/// Sets a secret of a service.
pub(in crate::http) async fn set_secret(
    visit: Visit,
    OfService(service): OfService,
    fields: Fields,
) -> Result<Response, Problem> {
    set(visit, SecretScope::Service { service }, fields).await
}

/// Sets a shared secret.
pub(in crate::http) async fn set_shared_secret(visit: Visit, fields: Fields) -> Result<Response, Problem> {
    set(visit, SecretScope::Shared, fields).await
}

async fn set(visit: Visit, scope: SecretScope, fields: Fields) -> Result<Response, Problem> {
    let done = match input(&scope, &fields) {
        Ok((name, input)) => visit.app.secret_set(scope.clone(), name, input, visit.caller()?.origin()).await.map(drop),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => Ok(see(&address(&scope))),
        Err(AppError::Invalid(problem)) => refused(&visit, &scope, &fields, problem),
        Err(error @ AppError::NotFound { what: "service", .. }) if scope == SecretScope::Shared => {
            refused(&visit, &scope, &fields, error.to_string())
        }
        Err(error) => Err(error.into()),
    }
}

fn input(scope: &SecretScope, fields: &Fields) -> Result<(SecretName, SecretInput), AppError> {
    let invalid = |error: &dyn std::error::Error| AppError::Invalid(error.to_string());
    let name = fields.trimmed("name").parse::<SecretName>().map_err(|error| invalid(&error))?;
    // A browser ends each line of a text field its own way.
    let mut value = fields.get("value").replace("\r\n", "\n");
    if value.lines().count() <= 1 {
        value.truncate(value.trim_end_matches('\n').len());
    }
    let typed = fields.get("services").split([' ', ',', ';']).filter(|name| !name.is_empty());
    let services: Vec<ServiceName> =
        typed.map(str::parse).collect::<Result<_, _>>().map_err(|error: pipelines::ids::InvalidId| invalid(&error))?;
    let services = (*scope == SecretScope::Shared && !services.is_empty()).then_some(services);
    Ok((name, SecretInput { value: (!value.is_empty()).then(|| Secret::new(value)), services }))
}

fn refused(visit: &Visit, scope: &SecretScope, fields: &Fields, problem: String) -> Result<Response, Problem> {
    let typed = |name| fields.trimmed(name).chars().take(TYPED_CHARS_MAX).collect();
    let view =
        SecretsView { name: typed("name"), services: typed("services"), problem: Some(problem), ..view(visit, scope)? };
    Ok(show!(visit, StatusCode::UNPROCESSABLE_ENTITY, view))
}

/// Removes a secret of a service.
pub(in crate::http) async fn remove_secret(
    visit: Visit,
    OfService(service): OfService,
    OfSecret(name): OfSecret,
) -> Result<Response, Problem> {
    remove(visit, SecretScope::Service { service }, &name).await
}

/// Removes a shared secret.
pub(in crate::http) async fn remove_shared_secret(visit: Visit, Path(name): Path<String>) -> Result<Response, Problem> {
    remove(visit, SecretScope::Shared, &name).await
}

async fn remove(visit: Visit, scope: SecretScope, name: &str) -> Result<Response, Problem> {
    let to = address(&scope);
    let name: SecretName = name.parse().map_err(|error| AppError::Invalid(format!("{error}")))?;
    match visit.app.secret_remove(scope, name, visit.caller()?.origin()).await {
        // Pressed twice: it is gone.
        Ok(()) | Err(AppError::NotFound { what: "secret", .. }) => Ok(see(&to)),
        Err(error) => Err(error.into()),
    }
}

fn address(scope: &SecretScope) -> String {
    scope.service().map_or_else(|| links::SECRETS.to_owned(), |service| links::service_secrets(service.as_str()))
}
