//! What handlers take out of a request, with a [`Problem`] where it is not good: ids in the path, the query, the JSON body.
//! Not here: who the caller is (`access`), from where the request comes (`remote`).

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use pipelines::ids::{ReleaseId, RolloutId, RunId, RunnerName, ServiceName};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::app::AppError;

/// Characters of a wrong id that the answer repeats.
const WRONG_ID_CHARS_MAX: usize = 80;

fn not_found(what: &'static str, given: &str) -> Problem {
    let id = given.chars().filter(|c| !c.is_control()).take(WRONG_ID_CHARS_MAX).collect();
    AppError::NotFound { what, id }.into()
}

async fn part(parts: &mut Parts, name: &str) -> Result<String, Problem> {
    let all = Path::<Vec<(String, String)>>::from_request_parts(parts, &()).await;
    let found = all.ok().and_then(|Path(all)| all.into_iter().find(|(found, _)| found == name));
    found.map(|(_, value)| value).ok_or_else(|| not_found("thing under", parts.uri.path()))
}

/// The service that the path names; a name that no service can have is one that does not exist.
#[derive(Clone, Debug)]
pub struct OfService(pub ServiceName);

impl<S: Sync> FromRequestParts<S> for OfService {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let given = part(parts, "service").await?;
        Self::parse(&given)
    }
}

impl OfService {
    /// The service of this name, as a query names it.
    ///
    /// # Errors
    /// When no service can have it.
    pub fn parse(given: &str) -> Result<Self, Problem> {
        given.parse().map(Self).map_err(|_| not_found("service", given))
    }
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident, $part:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub String);

        impl<S: Sync> FromRequestParts<S> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
                Ok(Self(part(parts, $part).await?))
            }
        }
    )*};
}

named! {
    /// The step that the path names.
    OfStep, "step";
    /// The account that the path names.
    OfAccount, "account";
    /// The token's id that the path names.
    OfToken, "id";
    /// The session's id that the path names.
    OfSession, "id";
    /// The secret's name that the path names.
    OfSecret, "secret";
}

macro_rules! numbered {
    ($($(#[$doc:meta])* $name:ident($id:ident), $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub $id);

        impl<S: Sync> FromRequestParts<S> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
                let OfService(service) = OfService::from_request_parts(parts, state).await?;
                let given = part(parts, "number").await?;
                // Only as it is written by us: `+7` and `007` are other addresses.
                let number = given.parse::<u32>().ok().filter(|number| number.to_string() == given);
                let number = number.ok_or_else(|| not_found($what, &format!("{service}/{given}")))?;
                Ok(Self($id::new(service, number)))
            }
        }
    )*};
}

numbered! {
    /// The run that the path names.
    OfRun(RunId), "run";
    /// The release that the path names.
    OfRelease(ReleaseId), "release";
    /// The rollout that the path names.
    OfRollout(RolloutId), "rollout";
}

/// The runner that the path names; a name that none can have is one that does not exist.
#[derive(Clone, Debug)]
pub struct NamedRunner(pub RunnerName);

impl<S: Sync> FromRequestParts<S> for NamedRunner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let given = part(parts, "runner").await?;
        given.parse().map(Self).map_err(|_| not_found("runner", &given))
    }
}

/// The query.
#[derive(Clone, Copy, Debug)]
pub struct Ask<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Ask<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::new(StatusCode::BAD_REQUEST, "bad-query", rejection.body_text())),
        }
    }
}

/// The body, as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(body_problem(&rejection)),
        }
    }
}

fn body_problem(rejection: &JsonRejection) -> Problem {
    let status = rejection.status();
    let problem = Problem::new(status, "bad-body", rejection.body_text());
    match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => problem.next("send JSON with content-type: application/json"),
        StatusCode::PAYLOAD_TOO_LARGE => problem.next("send less: the server's bound is request_body_bytes_max"),
        _ => problem,
    }
}
