//! Why an act on an approval is refused, in words for the person who acted.

/// Why a person's act on an approval was refused; the text is shown to them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalRefusal {
    /// It is over.
    #[error("this release is already {0}")]
    NotOpen(&'static str),
    /// The time is over, though the timer has not fired yet.
    #[error("the time for this decision is over; ask for it again")]
    Late,
    /// The page showed another digest.
    #[error("the page showed another image than the one that waits for a decision; load it again")]
    StaleDigest,
    /// Not one of the testers.
    #[error("{0} is not one of the testers of this release")]
    NotATester(String),
    /// The author may not.
    #[error("{0} wrote the commit and may not approve it; another tester has to")]
    OwnCommit(String),
    /// One person counts once.
    #[error("{by} has approved it already; it waits for {missing} more, from other people")]
    AlreadyApproved {
        /// Who.
        by: String,
        /// How many approvals are still missing.
        missing: u32,
    },
    /// A reject needs a reason.
    #[error("a reject needs a comment that says what is wrong")]
    CommentMissing,
    /// Too many wrong codes.
    #[error("too many wrong codes; ask for a new one")]
    Locked,
    /// No code was asked for, or it is used or too old.
    #[error("there is no valid code; ask for a new one")]
    NoCode,
    /// Too many codes.
    #[error("too many codes were asked for; sign in to decide")]
    TooManyCodes,
    /// Somebody else is testing.
    #[error("{0} is testing this release already")]
    ClaimedBy(String),
    /// There is no claim to take back.
    #[error("nobody has claimed this release")]
    NotClaimed,
    /// An event that does not fit.
    #[error("an approval that is {state} cannot take {event}")]
    Illegal {
        /// The state.
        state: &'static str,
        /// The event.
        event: &'static str,
    },
}
