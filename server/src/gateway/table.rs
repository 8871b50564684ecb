//! The table in force: which revisions a host has, whose turn it is, and how many requests each
//! revision has in flight. It is replaced as a whole; how a request is then carried is in `proxy`.
//!
//! **Invariant**: a request takes its revision *and* is counted as in flight under one hold of the
//! lock. So when `apply` returns, no later request uses the old table, and every request that did
//! use it is counted: a drain that reads zero has waited for all of them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::balance::Rotation;
use super::config::{GatewayConfig, Limits};
use super::keep::Generation;
use super::stats::{Counters, Failure, GatewayStats, LATENCY_BOUNDS_MS};
use super::upstream::Backend;

/// Counters of revisions that left the table, kept for a last reading.
const MAX_RETIRED: usize = 512;

/// The table in force.
#[derive(Debug)]
pub(super) struct Table {
    state: RwLock<State>,
    unknown_host: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
struct State {
    kept: Generation,
    since_ms: u64,
    limits: Arc<Limits>,
    routes: HashMap<String, Route>,
    revisions: HashMap<String, Arc<Revision>>,
    counters: Pairs,
    flights: HashMap<String, Arc<Flights>>,
    /// Pairs that are in no route, the longest gone first.
    retired: VecDeque<Pair>,
}

/// A host and the id of a revision.
type Pair = (String, String);
type Pairs = HashMap<Pair, Arc<Counters>>;

#[derive(Debug)]
struct Route {
    entries: Vec<Entry>,
    rotation: Arc<Mutex<Rotation>>,
    fallback: Option<usize>,
    preview: bool,
}

#[derive(Debug)]
struct Entry {
    revision: Arc<Revision>,
    counters: Arc<Counters>,
    weight: u32,
}

/// A revision and its backends.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) id: String,
    backends: Vec<Arc<Backend>>,
    turn: AtomicUsize,
    flights: Arc<Flights>,
}

impl Revision {
    /// All its backends, beginning with the one whose turn it is.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> + Clone {
        let count = self.backends.len().max(1);
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        let (before, from) = self.backends.split_at(first.min(self.backends.len()));
        from.iter().chain(before)
    }
}

/// How many requests a revision has in flight, over all hosts.
#[derive(Debug, Default)]
pub(super) struct Flights {
    count: AtomicU64,
    landed: Notify,
}

impl Flights {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until there is none.
    pub(super) async fn none(&self) {
        loop {
            let mut landed = std::pin::pin!(self.landed.notified());
            landed.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            landed.await;
        }
    }
}

/// One request's hold on a revision: from the choice until the last byte of the answer came.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) revision: Arc<Revision>,
    pub(super) counters: Arc<Counters>,
    settled: bool,
}

impl Ticket {
    fn new(entry: &Entry) -> Self {
        entry.revision.flights.count.fetch_add(1, Ordering::AcqRel);
        entry.counters.flight_began();
        Self { revision: Arc::clone(&entry.revision), counters: Arc::clone(&entry.counters), settled: false }
    }

    /// Counts an answer's head.
    pub(super) fn answered(&mut self, status: u16, latency: Duration) {
        self.settled = true;
        self.counters.answered(status, latency);
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.settled = true;
        self.counters.failed(failure);
    }

    /// Ends without being counted: another revision is asked.
    pub(super) fn spare(mut self) {
        self.settled = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.counters.client_aborted();
        }
        self.counters.flight_ended();
        if self.revision.flights.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.revision.flights.landed.notify_waiters();
        }
    }
}

/// What the table says to a request.
#[derive(Debug)]
pub(super) enum Pick {
    /// No route has this host.
    Unknown,
    /// The host is known and nothing is live.
    Nothing,
    /// The request belongs to this revision.
    Revision(Ticket),
}

/// Where a revision stands in the table.
#[derive(Debug)]
pub(super) enum Standing {
    /// New requests can reach it.
    Serving(Arc<Flights>),
    /// No new request reaches it.
    Left(Arc<Flights>),
    /// This process never had it, or has long forgotten it: nothing is in flight.
    Unknown,
}

impl Table {
    pub(super) fn new(kept: Generation) -> Self {
        let empty = State {
            kept: Generation { generation: 0, config: GatewayConfig::default() },
            since_ms: 0,
            limits: Arc::default(),
            routes: HashMap::new(),
            revisions: HashMap::new(),
            counters: HashMap::new(),
            flights: HashMap::new(),
            retired: VecDeque::new(),
        };
        Self { state: RwLock::new(empty.next(kept)), unknown_host: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic cannot leave the state half replaced: it is assigned in one move.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a checked configuration in force. When this returns, no new request uses the old one.
    pub(super) fn apply(&self, kept: Generation) {
        // Only one caller at a time replaces the table (the control side holds a lock of its own),
        // so building on what is read here is safe, and requests go on meanwhile.
        let next = self.read().next(kept);
        let old = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, next)
        };
        // Closing pooled connections happens outside the lock.
        drop(old);
    }

    pub(super) fn kept(&self) -> Generation {
        self.read().kept.clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.read().kept.generation
    }

    pub(super) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.read().limits)
    }

    pub(super) fn trusts(&self, peer: std::net::IpAddr) -> bool {
        self.read().kept.config.trusted_proxies.contains(&peer)
    }

    /// Chooses the revision of a request.
    pub(super) fn pick(&self, host: &str) -> Pick {
        let state = self.read();
        let Some(route) = state.routes.get(host) else {
            drop(state);
            self.unknown_host.fetch_add(1, Ordering::Relaxed);
            return Pick::Unknown;
        };
        let turn = route.rotation.lock().unwrap_or_else(PoisonError::into_inner).next();
        match turn.and_then(|index| route.entries.get(index)) {
            Some(entry) => Pick::Revision(Ticket::new(entry)),
            None => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Pick::Nothing
            }
        }
    }

    /// The revision that takes a request of `host` which `instead_of` could not take, as the table
    /// stands **now**: one that left since the request began is never called.
    pub(super) fn fallback(&self, host: &str, instead_of: &str) -> Option<Ticket> {
        let state = self.read();
        let route = state.routes.get(host)?;
        let entry = route.entries.get(route.fallback?)?;
        (entry.revision.id != instead_of).then(|| Ticket::new(entry))
    }

    /// Counts a request that was answered without a revision.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn standing(&self, revision: &str) -> Standing {
        let state = self.read();
        let Some(flights) = state.flights.get(revision).map(Arc::clone) else {
            return Standing::Unknown;
        };
        let reachable = state.routes.values().any(|route| {
            route.entries.iter().enumerate().any(|(index, entry)| {
                entry.revision.id == revision && (route.preview || entry.weight > 0 || route.fallback == Some(index))
            })
        });
        if reachable { Standing::Serving(flights) } else { Standing::Left(flights) }
    }

    pub(super) fn stats(&self, instance: &str, connections: u64) -> GatewayStats {
        let state = self.read();
        let mut revisions: Vec<_> = state
            .counters
            .iter()
            .map(|((host, id), counters)| {
                let route = state.routes.get(host).filter(|route| !route.preview);
                let entry = route.and_then(|r| r.entries.iter().find(|e| e.revision.id == *id));
                counters.snapshot(host, id, entry.map(|entry| entry.weight))
            })
            .collect();
        revisions.sort_by(|a, b| (&a.host, &a.revision).cmp(&(&b.host, &b.revision)));
        GatewayStats {
            instance: instance.to_owned(),
            generation: state.kept.generation,
            in_force_since_ms: state.since_ms,
            taken_at_ms: super::now_ms(),
            connections,
            unknown_host: self.unknown_host.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            latency_bounds_ms: LATENCY_BOUNDS_MS.to_vec(),
            revisions,
        }
    }

    /// Closes connections to backends that nobody used for long.
    pub(super) fn sweep(&self) {
        let (limits, revisions) = {
            let state = self.read();
            let revisions: Vec<_> = state.revisions.values().map(Arc::clone).collect();
            (Arc::clone(&state.limits), revisions)
        };
        for backend in revisions.iter().flat_map(|revision| &revision.backends) {
            backend.sweep(&limits);
        }
    }
}

impl State {
    /// The state that follows this one: whatever both have in common (counters, connections to
    /// backends, whose turn it is) is carried over.
    fn next(&self, kept: Generation) -> Self {
        let config = &kept.config;
        let mut flights = HashMap::new();
        let mut revisions = HashMap::new();
        for (id, wanted) in &config.revisions {
            let own: &Arc<Flights> =
                flights.entry(id.clone()).or_insert_with(|| self.flights.get(id).map_or_else(Arc::default, Arc::clone));
            let same = self.revisions.get(id).filter(|revision| {
                let addresses = revision.backends.iter().map(|backend| backend.address);
                addresses.eq(wanted.backends.iter().copied())
            });
            let revision = match same {
                Some(revision) => Arc::clone(revision),
                None => Arc::new(Revision {
                    id: id.clone(),
                    backends: self.backends_of(id, &wanted.backends),
                    turn: AtomicUsize::new(0),
                    flights: Arc::clone(own),
                }),
            };
            revisions.insert(id.clone(), revision);
        }
        let mut counters = HashMap::new();
        let mut routes = HashMap::new();
        let hosts = config.routes.iter().map(|(host, route)| {
            let shares: Vec<_> = route.shares.iter().map(|share| (share.revision.as_str(), share.weight)).collect();
            (host, shares, route.fallback.as_deref(), false)
        });
        let previews = config.previews.iter().map(|(host, revision)| {
            let whole = vec![(revision.as_str(), super::config::WEIGHT_TOTAL)];
            (host, whole, None, true)
        });
        for (host, shares, fallback, preview) in hosts.chain(previews) {
            let entries: Vec<Entry> = shares
                .iter()
                .filter_map(|(id, weight)| {
                    let revision = revisions.get(*id).map(Arc::clone)?;
                    let pair = (host.clone(), (*id).to_owned());
                    let own = self.counters.get(&pair);
                    let own = own.map_or_else(Arc::default, Arc::clone);
                    counters.insert(pair, Arc::clone(&own));
                    Some(Entry { revision, counters: own, weight: *weight })
                })
                .collect();
            let fallback = fallback.and_then(|id| entries.iter().position(|entry| entry.revision.id == id));
            let route = Route { rotation: self.rotation_of(host, &entries), entries, fallback, preview };
            routes.insert(host.clone(), route);
        }
        let retired = self.retire(&mut counters);
        for (_, id) in counters.keys() {
            if let Some(own) = self.flights.get(id) {
                flights.entry(id.clone()).or_insert_with(|| Arc::clone(own));
            }
        }
        Self {
            since_ms: super::now_ms(),
            limits: Arc::new(config.limits.clone()),
            routes,
            revisions,
            counters,
            flights,
            retired,
            kept,
        }
    }

    /// The backends at these addresses; one that the revision had before keeps its connections.
    fn backends_of(&self, id: &str, addresses: &[std::net::SocketAddr]) -> Vec<Arc<Backend>> {
        let before: BTreeMap<_, _> = self
            .revisions
            .get(id)
            .into_iter()
            .flat_map(|revision| &revision.backends)
            .map(|backend| (backend.address, backend))
            .collect();
        addresses
            .iter()
            .map(|address| match before.get(address) {
                Some(backend) => Arc::clone(backend),
                None => Arc::new(Backend::new(*address)),
            })
            .collect()
    }

    /// A route whose split did not change goes on where it was, else each change elsewhere would
    /// begin its round anew.
    fn rotation_of(&self, host: &str, entries: &[Entry]) -> Arc<Mutex<Rotation>> {
        let split = |entries: &[Entry]| -> Vec<(String, u32)> {
            let pairs = entries.iter().map(|e| (e.revision.id.clone(), e.weight));
            pairs.collect()
        };
        if let Some(route) = self.routes.get(host)
            && split(&route.entries) == split(entries)
        {
            return Arc::clone(&route.rotation);
        }
        let weights: Vec<u32> = entries.iter().map(|entry| entry.weight).collect();
        Arc::new(Mutex::new(Rotation::new(&weights)))
    }

    /// Carries the counters of pairs that are in no route any more over into `counters`, as many
    /// as are kept; what still has requests in flight is never forgotten.
    fn retire(&self, counters: &mut Pairs) -> VecDeque<Pair> {
        let mut gone: Vec<&Pair> = self.retired.iter().collect();
        let known: HashSet<&Pair> = self.retired.iter().collect();
        gone.extend(self.counters.keys().filter(|pair| !known.contains(pair)));
        gone.retain(|pair| !counters.contains_key(*pair));
        let mut surplus = gone.len().saturating_sub(MAX_RETIRED);
        let mut retired = VecDeque::new();
        for pair in gone {
            let Some(own) = self.counters.get(pair) else {
                continue;
            };
            if surplus > 0 && own.in_flight() == 0 {
                surplus -= 1;
                continue;
            }
            counters.insert(pair.clone(), Arc::clone(own));
            retired.push_back(pair.clone());
        }
        retired
    }
}
