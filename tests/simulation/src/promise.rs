//! The promises of DESIGN.md that a simulated life can break. docs/promises.md says what else tries to break them.

/// A promise, or one half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Nothing acknowledged is lost.
    NothingLost,
    /// Nothing is done twice that a person would notice.
    NothingTwice,
    /// No request of the services is lost.
    NoRequestLost,
    /// A restart at any point goes on.
    GoesOn,
    /// The digest the testers approved is the digest in production and in the running containers.
    Approved,
    /// Everything is bounded.
    Bounded,
    /// "Why is it not live yet?" has an answer, with the person and the next action, at every moment.
    Why,
    /// A failure of the user's code and a failure of the infrastructure look different.
    Blame,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NothingLost,
        Self::NothingTwice,
        Self::NoRequestLost,
        Self::GoesOn,
        Self::Approved,
        Self::Bounded,
        Self::Why,
        Self::Blame,
    ];

    /// Its number in DESIGN.md.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::NothingLost | Self::NothingTwice | Self::NoRequestLost | Self::GoesOn => 1,
            Self::Approved => 2,
            Self::Bounded => 5,
            Self::Why => 6,
            Self::Blame => 7,
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// What was seen.
    pub words: String,
}

impl Violation {
    pub(crate) fn new(promise: Promise, words: impl Into<String>) -> Self {
        Self { promise, words: words.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "promise {} ({:?}): {}", self.promise.number(), self.promise, self.words)
    }
}
