//! What keeps the promises; each can be taken away to see that it is needed, and that the simulation sees it.

macro_rules! safeguards {
    ($($(#[doc = $doc:literal])* $name:ident breaks $($word:literal)|+),* $(,)?) => {
        /// What keeps the promises.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Safeguards {
            $($(#[doc = $doc])* pub $name: bool),*
        }

        impl Safeguards {
            /// As in the product.
            pub const ALL_ON: Self = Self { $($name: true),* };

            /// Each safeguard: its name, all the others, and words of which one tells what breaks without it.
            pub const EACH_OFF: &'static [(&'static str, Self, &'static [&'static str])] =
                &[$((stringify!($name), Self { $name: false, ..Self::ALL_ON }, &[$($word),+])),*];
        }
    };
}

safeguards! {
    /// A mail sent again has the same Message-ID.
    same_mail_id breaks "Message-IDs",
    /// Whoever acts looks first what is there already.
    looks_first breaks "was made" | "was promoted",
    /// An outcome counts only for the asking it belongs to.
    asked_by breaks "two runs" | "nothing moves it" | "was made" | "nobody executes",
    /// A revision finishes what it has before it is removed.
    drains breaks "they are lost",
    /// A lane is performed one by one.
    lanes breaks "test environment" | "two runs" | "which is newer" | "is shown" | "no container" | "was run last",
    /// What follows from an outcome is stored together with its end.
    one_transaction breaks "nothing moves it" | "was run last" | "nobody watches it",
    /// Whether somebody still is to be reminded is looked at again before the mail goes.
    looks_before_reminding breaks "reminds of what is decided" | "after a later one",
    /// What is acknowledged is on the disk.
    flushes breaks "is lost" | "nobody's" | "was changed" | "the gateway" | "nothing moves it" | "no container",
    /// The events of one service are decided one after the other.
    one_at_a_time breaks "not approved" | "was changed" | "nothing moves it" | "the train says" | "rolled out twice",
    /// Images are named by digest, never by tag.
    by_digest breaks "another digest" | "nothing moves it" | "before its image",
    /// A ref remembers where it was: a hook that comes late or twice is known.
    remembers_refs breaks "two runs",
    /// The repository is asked where a pull request is, when a hook of it may be late.
    asks_for_pulls breaks "which is newer",
    /// What a runner says counts only in the attempt that it has.
    fenced breaks "another attempt's image",
    /// A runner that heard nothing for long pushes nothing.
    sure breaks "pushes run",
    /// The repository is polled: a hook that was lost is made up for.
    polls breaks "was run last",
    /// A hook says that a commit comes from a fork, and so a person is asked.
    asks_first breaks "of a stranger",
}
