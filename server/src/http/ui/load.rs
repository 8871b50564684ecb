//! What waits on the server and how much may. Not here: how it is counted.

use super::text::Text;
use super::{Section, page};

/// A bounded thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the thing that it names")]
pub enum Bounded {
    Connections,
    Streams,
    HookBytes,
    Hooks,
    Runs,
    Effects,
    Performing,
    Mails,
    StoreChanges,
    LogBytes,
    GatewayConnections,
    Traces,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRow {
    /// What.
    pub what: Bounded,
    /// How much of it there is.
    pub length: u64,
    /// How much there may be.
    pub bound: u64,
    /// Whether it is counted in bytes.
    pub is_bytes: bool,
    /// How often something was refused because as much was there; none where what comes waits instead.
    pub refused: Option<u64>,
    /// The key of the bound in the configuration.
    pub key: &'static str,
    /// The bound for each service, and the service that has most.
    pub of_service: Option<OfService>,
}

/// The bound for each service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfService {
    /// How much there may be.
    pub bound: u64,
    /// Its key in the configuration.
    pub key: &'static str,
    /// The service that has most, and how much.
    pub fullest: Option<(String, u64)>,
}

impl LoadRow {
    fn figure(&self, n: &u64, t: &Text<'_>) -> String {
        if self.is_bytes { t.bytes(*n) } else { t.number(*n) }
    }

    fn is_full(&self) -> bool {
        let is_full = |length: u64, bound: u64| length >= bound;
        let service = self.of_service.as_ref().and_then(|of| Some((of.fullest.as_ref()?.1, of.bound)));
        is_full(self.length, self.bound) || service.is_some_and(|(length, bound)| is_full(length, bound))
    }
}

/// The page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadView {
    /// The rows.
    pub rows: Vec<LoadRow>,
}

page!(LoadView, LoadPage, "load.html", Section::None, |_| None);
