//! Ids of traces and spans: derived from what they are about and from the server's identity, so that the same thing has the
//! same id whenever it is told, and two servers never share one. Not here: what has a span (`life`).

use std::fmt;

use pipelines::ids::RunId;
use sha2::{Digest as _, Sha256};

/// The id of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl TraceId {
    /// The trace of a run and of the release that it makes.
    #[must_use]
    pub fn of(instance: &str, run: &RunId) -> Self {
        Self(derived("trace", instance, &run.to_string(), ""))
    }
}

impl SpanId {
    /// The span of one thing in the life of a run and its release.
    #[must_use]
    pub fn of(instance: &str, run: &RunId, thing: &str) -> Self {
        Self(derived("span", instance, &run.to_string(), thing))
    }
}

/// Each part goes in with its length, so that no two lists of parts look the same.
fn derived<const N: usize>(kind: &str, instance: &str, run: &str, thing: &str) -> [u8; N] {
    let mut hasher = Sha256::new();
    for part in ["windlass", kind, instance, run, thing] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let mut id = [0; N];
    id.copy_from_slice(&hasher.finalize()[..N]);
    // All zeros is no id.
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}
