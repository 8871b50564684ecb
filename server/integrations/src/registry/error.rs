//! What can go wrong with a registry, sorted by what one does about it. No retrying here.

use std::time::Duration;

use pipelines::ids::Digest;

/// The error beneath an unreachable registry.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a call to a registry failed. `what` names the thing and the registry; `words` are the registry's own, cut and
/// cleaned, and empty where it said nothing.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The repository, manifest, blob or tag is not there.
    #[error("{what} is not there{}", colon(.words))]
    NotFound {
        /// What was asked for.
        what: String,
        /// What the registry said.
        words: String,
    },
    /// The credentials are missing, wrong, or not enough. Never retried anonymously.
    #[error("{what}: the registry does not accept the credentials{}", colon(.words))]
    Unauthorised {
        /// What was asked for.
        what: String,
        /// What the registry said.
        words: String,
    },
    /// A rule of the registry stands in the way (403 or 412): a missing right, a scan or signature gate, an immutable
    /// tag. Trying again does not help; a person has to look.
    #[error("{what}: the registry blocks it ({status}){}", colon(.words))]
    Blocked {
        /// What was asked for.
        what: String,
        /// 403 or 412.
        status: u16,
        /// What the registry said.
        words: String,
    },
    /// The registry refuses the request itself (any other 4xx).
    #[error("{what}: the registry refuses it ({status}){}", colon(.words))]
    Rejected {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        words: String,
    },
    /// Too many requests, also after the client's own retries.
    #[error("{what}: the registry limits the rate{}", colon(.words))]
    RateLimited {
        /// What was asked for.
        what: String,
        /// When the registry wants to be asked again, counted from its answer.
        retry_after: Option<Duration>,
        /// What the registry said.
        words: String,
    },
    /// The registry answers with a failure of its own (5xx), also after retries.
    #[error("{what}: the registry fails ({status}){}", colon(.words))]
    Failing {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// When the registry wants to be asked again.
        retry_after: Option<Duration>,
        /// What the registry said.
        words: String,
    },
    /// No answer: no connection, a cut one, or one on which nothing moves any more.
    #[error("{what}: the registry cannot be reached")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// What the connection said.
        #[source]
        source: Cause,
    },
    /// The bytes are not those of the digest (or not as many as promised). Nothing that is corrupt is ever tagged.
    #[error("{what} is corrupt: expected {expected}, got {found}")]
    Corrupt {
        /// What was read.
        what: String,
        /// The digest or size that was promised.
        expected: String,
        /// The digest or size that came.
        found: String,
    },
    /// An answer is larger than the bound of the client.
    #[error("{what} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// The bound.
        limit_bytes: u64,
    },
    /// The answer breaks the protocol.
    #[error("{what}: the registry breaks the protocol: {why}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The client cannot be made from these settings.
    #[error("the settings of the registry are wrong: {why}")]
    Settings {
        /// What is wrong.
        why: String,
    },
}

impl RegistryError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Failing { .. } | Self::Unreachable { .. })
    }

    /// Whether the thing asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// When the registry wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Failing { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// A cut or stalled connection.
    pub(super) fn unreachable(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Unreachable { what: what.into(), source: source.into() }
    }

    /// The error of the HTTP client. Its URL is dropped, because an upload's address is a secret of the session.
    pub(super) fn transport(what: impl Into<String>, error: reqwest::Error) -> Self {
        Self::unreachable(what, error.without_url())
    }

    /// An answer that breaks the protocol.
    pub(super) fn protocol(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Protocol { what: what.into(), why: why.into() }
    }

    /// The meaning of an HTTP status that is not a success.
    pub(super) fn of_status(what: &str, status: u16, retry_after: Option<Duration>, words: String) -> Self {
        let what = what.to_owned();
        match status {
            401 => Self::Unauthorised { what, words },
            403 | 412 => Self::Blocked { what, status, words },
            404 => Self::NotFound { what, words },
            429 => Self::RateLimited { what, retry_after, words },
            408 | 500.. => Self::Failing { what, status, retry_after, words },
            300..=399 => Self::protocol(what, format!("a redirect ({status}) that cannot be followed")),
            _ => Self::Rejected { what, status, words },
        }
    }
}

fn colon(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

/// Why a promotion failed, and on which side.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// The source registry could not give the image.
    #[error("read the image from the source registry")]
    Source(#[source] RegistryError),
    /// The destination registry could not take the image.
    #[error("write the image to the destination registry")]
    Destination(#[source] RegistryError),
    /// The image is of a kind that is not copied.
    #[error("manifest {digest} cannot be promoted: {why}")]
    Unsupported {
        /// The manifest.
        digest: Digest,
        /// What is wrong with it.
        why: String,
    },
    /// The image graph passes a bound of [`super::PromoteOptions`].
    #[error("the image has more than {limit} {of}")]
    TooLarge {
        /// What there is too much of, and the unit.
        of: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The destination of a copy is not one that can be written.
    #[error("{reference} cannot be the destination: {why}")]
    BadDestination {
        /// The destination.
        reference: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The process ends in the middle of it.
    #[error("the promotion was interrupted")]
    Interrupted,
    /// After the tag was written, the destination shows another digest under it.
    #[error("tag {tag} shows {found} at the destination, not {expected}")]
    TagDiffers {
        /// The tag.
        tag: String,
        /// The promoted digest.
        expected: Digest,
        /// What the destination shows.
        found: Digest,
    },
}

impl PromoteError {
    /// The error of the registry beneath, if one of them caused it.
    #[must_use]
    pub fn registry(&self) -> Option<&RegistryError> {
        match self {
            Self::Source(error) | Self::Destination(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the same promotion may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.registry().is_some_and(RegistryError::is_transient)
    }
}
