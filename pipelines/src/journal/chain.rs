//! The chain of the journal: each entry names the one before it by its digest, and the head names the last one. Whoever
//! walks from the beginning to the head sees the first entry that was changed, removed, moved or put in between. What it
//! does not show: that its end was cut off and the head set back, or that all of it was written anew. That shows a
//! [`Mark`] that was kept elsewhere.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::ids::{Digest, InvalidId, invalid};

/// Where the chain is now. One for each store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Head {
    /// What the first entry names as its predecessor: random, another one for each store.
    pub genesis: Digest,
    /// The last entry's place; 0: there is none.
    pub seq: u64,
    /// The last entry's digest; without one the genesis.
    pub digest: Digest,
    /// How many entries there are.
    pub entries: u64,
    /// Entries up to this place were there before the chain began: it shows what became of them since then.
    pub adopted: u64,
    /// Older entries are being taken into the chain.
    pub is_adopting: bool,
}

impl Head {
    /// The beginning of a chain.
    #[must_use]
    pub fn new(genesis: Digest) -> Self {
        Self { digest: genesis.clone(), genesis, seq: 0, entries: 0, adopted: 0, is_adopting: false }
    }

    /// Puts `entry` behind the last one: it gets its place, its predecessor and its digest.
    pub fn append(&mut self, entry: &mut Entry) {
        entry.seq = self.seq + 1;
        self.adopt(entry);
    }

    /// The same for an entry that has its place.
    pub fn adopt(&mut self, entry: &mut Entry) {
        entry.previous = Some(self.digest.clone());
        let digest = entry.own_digest();
        entry.digest = Some(digest.clone());
        (self.seq, self.digest) = (entry.seq, digest);
        self.entries += 1;
    }

    /// What an operator keeps elsewhere.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { seq: self.seq, digest: self.digest.clone() }
    }
}

/// A place in the chain with the digest that is there: `412@sha256:…`. Kept elsewhere, it shows later that everything up to
/// it is still there as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The entry's place.
    pub seq: u64,
    /// Its digest.
    pub digest: Digest,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.seq, self.digest)
    }
}

impl FromStr for Mark {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (seq, digest) = text.trim().split_once('@').unwrap_or(("", text));
        let digest: Digest = digest.parse()?;
        let wrong = || invalid("mark", text, "write it as `windlass audit head` prints it: 412@sha256:…");
        Ok(Self { seq: seq.parse().map_err(|_| wrong())?, digest })
    }
}

/// The first thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// An entry is not what it was when it was written.
    #[error("entry {seq} was changed after it was written: its digest is not that of its content")]
    Changed {
        /// Which.
        seq: u64,
    },
    /// An entry does not name the one before it.
    #[error("entry {seq} does not follow {}: one was removed, put in or moved there", after(.previous))]
    Gap {
        /// Which.
        seq: u64,
        /// The one before it; 0: none.
        previous: u64,
    },
    /// An entry stands in another place than its own.
    #[error("entry {seq} comes after entry {previous}: they were moved")]
    Order {
        /// Which.
        seq: u64,
        /// The one before it.
        previous: u64,
    },
    /// An entry is not in the chain.
    #[error("entry {seq} has no digest: it was not written by the server")]
    Unchained {
        /// Which.
        seq: u64,
    },
    /// An entry cannot be read.
    #[error("what follows {} cannot be read: {why}", after(.previous))]
    Unreadable {
        /// The one before it; 0: none.
        previous: u64,
        /// What the reader said.
        why: String,
    },
    /// The last entry is not the one that the head names.
    #[error("the log ends with {}, and its head says {}: the end was cut off or added to", after(.found), after(.head))]
    End {
        /// The last entry; 0: none.
        found: u64,
        /// What the head says.
        head: u64,
    },
    /// The log ends before a mark that was kept.
    #[error("the log ends with {}, and the mark that was kept is of entry {mark}: the end was cut off", after(.found))]
    Cut {
        /// The last entry; 0: none.
        found: u64,
        /// The mark's.
        mark: u64,
    },
    /// Another entry stands where a mark was kept of.
    #[error("entry {seq} is not the one that the mark was kept of: the log was written anew")]
    Another {
        /// Which.
        seq: u64,
    },
}

fn after(seq: &u64) -> String {
    if *seq == 0 { "the beginning".into() } else { format!("entry {seq}") }
}

/// Walks along a chain, entry by entry; holds no more than the last one's digest.
#[derive(Clone, Debug)]
pub struct Walk {
    last: Option<Digest>,
    seq: u64,
    entries: u64,
    mark: Option<Mark>,
    mark_seen: bool,
}

impl Walk {
    /// From the beginning. Without a genesis the first entry is believed about its predecessor. With a mark, the entry
    /// there must be that one.
    #[must_use]
    pub fn new(genesis: Option<Digest>, mark: Option<Mark>) -> Self {
        Self { last: genesis, seq: 0, entries: 0, mark, mark_seen: false }
    }

    /// The place of the last entry; 0: none yet.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The next entry.
    ///
    /// # Errors
    /// What does not fit about it. The walk is over then.
    pub fn step(&mut self, entry: &Entry) -> Result<(), Misfit> {
        let (seq, previous) = (entry.seq, self.seq);
        let (Some(named), Some(digest)) = (&entry.previous, &entry.digest) else {
            return Err(Misfit::Unchained { seq });
        };
        if seq <= previous {
            return Err(Misfit::Order { seq, previous });
        }
        if entry.own_digest() != *digest {
            return Err(Misfit::Changed { seq });
        }
        // Only entries of the first version leave out places. So a beginning that is gone shows too, whatever is said of the
        // genesis.
        let leaves_out = entry.version > 1 && seq != previous + 1;
        if leaves_out || self.last.as_ref().is_some_and(|last| last != named) {
            return Err(Misfit::Gap { seq, previous });
        }
        if let Some(mark) = self.mark.as_ref().filter(|mark| mark.seq <= seq && !self.mark_seen) {
            if mark.seq != seq || mark.digest != *digest {
                return Err(Misfit::Another { seq: mark.seq });
            }
            self.mark_seen = true;
        }
        (self.last, self.seq) = (Some(digest.clone()), seq);
        self.entries += 1;
        Ok(())
    }

    /// The end; `head` is what the store says of it, where it is known.
    ///
    /// # Errors
    /// When it is not the end that there should be.
    pub fn end(self, head: Option<&Head>) -> Result<Walked, Misfit> {
        let found = self.seq;
        if let Some(mark) = self.mark.filter(|mark| mark.seq > 0 && !self.mark_seen) {
            return Err(Misfit::Cut { found, mark: mark.seq });
        }
        if let Some(head) = head {
            let last = self.last.as_ref().unwrap_or(&head.genesis);
            if (found, last, self.entries) != (head.seq, &head.digest, head.entries) {
                return Err(Misfit::End { found, head: head.seq });
            }
        }
        let mark = self.last.map(|digest| Mark { seq: found, digest });
        Ok(Walked { entries: self.entries, mark })
    }
}

/// A chain that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// How many entries it has.
    pub entries: u64,
    /// The last of them; none where there is none.
    pub mark: Option<Mark>,
}

#[cfg(test)]
mod tests;
