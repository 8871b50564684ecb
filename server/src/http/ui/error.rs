//! A request that failed: the cause, the request's id, the next action. Not here: what failed.

use super::markup::icon;
use super::{Section, page};

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the cause that it names")]
pub enum ErrorKind {
    NotFound,
    Forbidden,
    /// The form is older than the session, or from elsewhere.
    StaleForm,
    /// The state has moved on since the page was shown.
    Conflict,
    TooLarge,
    TooManyRequests,
    BadRequest,
    Internal,
    Unavailable,
}

impl ErrorKind {
    /// It is ours or the machine's, not the person's.
    const fn is_fault(self) -> bool {
        matches!(self, Self::Internal | Self::Unavailable)
    }
}

/// An error's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorView {
    /// Why.
    pub kind: ErrorKind,
    /// The HTTP status.
    pub status: u16,
    /// The cause in the words of the part that failed, if it may be shown: data.
    pub detail: Option<String>,
    /// The request's id, which the log has too.
    pub request_id: String,
}

page!(ErrorView, ErrorPage, "error.html", Section::None, |_| None);
