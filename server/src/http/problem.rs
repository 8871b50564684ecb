//! Errors as the API gives them (RFC 9457, problem+json) and the one place that maps the application's errors to them.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pipelines::{approval::ApprovalRefusal, train::Refusal};
use serde::{Deserialize, Serialize};

use crate::app::{AppError, EngineError, LogError, StoreError};

/// Seconds after which a refused write may be tried again.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What went wrong, for programs and people.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// The kind of problem: a word that stays the same.
    pub r#type: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// What to try next, if there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Under this id the server's log has more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Seconds after which it may be tried again.
    #[serde(skip)]
    #[schema(ignore)]
    pub(super) retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem of this status and kind.
    #[must_use]
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self {
            r#type: kind.to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            next: None,
            request_id: None,
            retry_after_s: None,
        }
    }

    /// With a next action.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Nobody is signed in.
    #[must_use]
    pub fn not_signed_in() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not-signed-in", "sign in, or send a bearer token").next("windlass login")
    }

    /// The role does not reach.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_s.unwrap_or(RETRY_AFTER_SECONDS)));
        }
        response.extensions_mut().insert(self);
        response
    }
}

fn store_problem(error: &StoreError) -> Problem {
    let full =
        |detail: &str, next: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store-refuses", detail).next(next);
    match error {
        StoreError::Engine(EngineError::DiskFull) => full(
            "the disk of the server is full, so nothing new can be accepted; what was acknowledged is safe",
            "free space under the server's state folder; nothing needs to be restarted",
        ),
        StoreError::Engine(EngineError::ReadOnly) => full(
            "the server's state folder is read-only, so nothing new can be accepted; what was acknowledged is safe",
            "make it writable again; nothing needs to be restarted",
        ),
        StoreError::Engine(EngineError::Busy) => full("the server has too much to store just now", "try again shortly"),
        StoreError::Exists(what) => {
            Problem::new(StatusCode::CONFLICT, "exists", format!("{what} exists already")).next("choose another name")
        }
        _ => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "store-failed",
            "the server could not read or write what it keeps",
        )
        .next("look for the request id in the server's log"),
    }
}

impl From<AppError> for Problem {
    fn from(error: AppError) -> Self {
        match &error {
            AppError::NotFound { .. } | AppError::Refused(Refusal::NotFound { .. }) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", error.to_string())
            }
            AppError::Refused(Refusal::Approval(refusal)) => approval_problem(refusal),
            AppError::Refused(Refusal::Lookup(_)) => {
                tracing::error!(error = ?error, "the store could not be read");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store-failed", "the server could not read what it keeps")
            }
            AppError::Refused(_) => Self::new(StatusCode::CONFLICT, "not-now", error.to_string()),
            AppError::Invalid(detail) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail.clone()),
            AppError::Exists(what) => Self::new(StatusCode::CONFLICT, "exists", format!("{what} exists already")),
            AppError::Forbidden(detail) => Self::forbidden(detail.clone()),
            AppError::WrongPassword => Self::new(StatusCode::UNAUTHORIZED, "wrong-password", error.to_string()),
            AppError::TooMany { detail, retry_after_s } => Self {
                retry_after_s: Some(*retry_after_s),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-tries", detail.clone())
                    .next(format!("try again in {retry_after_s} seconds"))
            },
            AppError::Full { detail, of_service, retry_after_s } => {
                let status = if *of_service { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::SERVICE_UNAVAILABLE };
                Self {
                    retry_after_s: Some(*retry_after_s),
                    ..Self::new(status, "too-much-waiting", detail.clone()).next(format!(
                        "try again in {retry_after_s} seconds; what was pushed meanwhile is found by polling"
                    ))
                }
            }
            AppError::NoRoom { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "disk-low",
                format!("{error}; nothing new is accepted until there is room, and what was acknowledged is safe"),
            )
            .next("free space under the server's state folder; nothing needs to be restarted"),
            AppError::Store(source) => {
                tracing::error!(error = ?error, "the store failed");
                store_problem(source)
            }
            AppError::Logs(LogError::DiskFull) => store_problem(&StoreError::Engine(EngineError::DiskFull)),
            AppError::Logs(LogError::ReadOnly) => store_problem(&StoreError::Engine(EngineError::ReadOnly)),
            AppError::Logs(_) | AppError::Keys(_) | AppError::Backup(_) => {
                tracing::error!(error = ?error, "a request failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string())
            }
        }
    }
}

fn approval_problem(refusal: &ApprovalRefusal) -> Problem {
    let detail = refusal.to_string();
    match refusal {
        ApprovalRefusal::NotATester(_) | ApprovalRefusal::OwnCommit(_) => {
            Problem::new(StatusCode::FORBIDDEN, "not-yours", detail)
        }
        ApprovalRefusal::CommentMissing => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail),
        ApprovalRefusal::Locked | ApprovalRefusal::TooManyCodes => {
            Problem::new(StatusCode::LOCKED, "locked", detail).next("ask for a new code, or sign in")
        }
        ApprovalRefusal::NoCode => Problem::new(StatusCode::FORBIDDEN, "no-code", detail),
        ApprovalRefusal::NotOpen(_) | ApprovalRefusal::Late => Problem::new(StatusCode::GONE, "over", detail),
        ApprovalRefusal::StaleDigest
        | ApprovalRefusal::AlreadyApproved { .. }
        | ApprovalRefusal::ClaimedBy(_)
        | ApprovalRefusal::NotClaimed
        | ApprovalRefusal::Illegal { .. } => Problem::new(StatusCode::CONFLICT, "not-now", detail),
    }
}
