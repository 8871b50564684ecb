//! Visitors of a service: requests through the gateway at a steady pace on a thread of their own, each noted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use tests::{http_client, process::prefer_this_thread};
use tokio_util::sync::CancellationToken;

/// By this header the gateway marks an answer of its own.
const OWN_ANSWER: &str = "x-windlass-gateway";
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Visitors who wait for an answer at the same time. When so many wait, nobody new comes: a machine that is too slow for
/// the pace shows as a gap, not as requests that wait for ever.
const WAITING_MAX: usize = 32;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// When it was sent, in milliseconds since 1970: comparable with what the API says.
    pub(crate) at_ms: u64,
    /// When it was sent, for the time between two.
    sent: Instant,
    /// When the answer was whole.
    pub(crate) done_ms: u64,
    /// HTTP status, or what went wrong on the way.
    pub(crate) status: Result<u16, String>,
    /// The gateway answered itself, for this reason.
    pub(crate) own: Option<String>,
    /// The version that answered.
    pub(crate) version: String,
}

impl Visit {
    /// Whether the answer is a good one.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.status, Ok(status) if (200..400).contains(&status))
    }
}

/// Whom they visit and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// An address of the gateway.
    pub(crate) url: String,
    /// The service's host.
    pub(crate) host: String,
    /// Time between two requests.
    pub(crate) pace: Duration,
    /// Requests in a row that throw the same dice: as many as come to one of the canary, so that each version gets its
    /// share of every throw.
    pub(crate) same_dice: u64,
}

/// Visitors under way.
#[derive(Debug)]
pub(crate) struct Visitors {
    visits: Arc<Mutex<Vec<Visit>>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Visitors {
    /// Sends a request at each beat, whether or not the one before it is answered, until stopped.
    pub(crate) fn start(plan: Plan) -> Self {
        let (visits, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let (notes, stopped) = (Arc::clone(&visits), stop.clone());
        // A thread of its own: what the test does meanwhile must not hold up the beat.
        let thread = std::thread::spawn(move || {
            prefer_this_thread();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(visit_all(plan, notes, stopped));
            Ok(())
        });
        Self { visits, stop, thread: Some(thread) }
    }

    /// What was noted so far.
    pub(crate) fn so_far(&self) -> Vec<Visit> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `wanted` requests are answered or failed.
    pub(crate) async fn at_least(&self, wanted: usize) -> Result<()> {
        let look = || async {
            let count = self.visits.lock().unwrap_or_else(PoisonError::into_inner).len();
            ((count >= wanted).then_some(()), format!("{count} requests"))
        };
        let (found, seen) = crate::api::wait_for(crate::api::WITHIN, look).await;
        found.with_context(|| format!("{wanted} requests were wanted: {seen}"))
    }

    /// Stops, waits for the last answers and gives everything that was noted, in the order in which it was sent.
    pub(crate) fn stop(mut self) -> Result<Vec<Visit>> {
        self.end()?;
        let mut visits = self.so_far();
        visits.sort_by_key(|visit| visit.sent);
        Ok(visits)
    }

    fn end(&mut self) -> Result<()> {
        self.stop.cancel();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow::anyhow!("the visitors' thread panicked"))?
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        // A failed test has something better to say.
        let _ = self.end();
    }
}

async fn visit_all(plan: Plan, notes: Arc<Mutex<Vec<Visit>>>, stopped: CancellationToken) {
    let http = http_client();
    let mut beat = tokio::time::interval(plan.pace);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut under_way = tokio::task::JoinSet::new();
    for number in 0_u64.. {
        tokio::select! {
            () = stopped.cancelled() => break,
            _ = beat.tick() => {}
        }
        while under_way.len() >= WAITING_MAX {
            under_way.join_next().await;
        }
        let dice = number / plan.same_dice.max(1) % 5 * 20;
        let request = http.get(format!("{}?{dice}", plan.url)).header("host", &plan.host).timeout(PATIENCE);
        let notes = Arc::clone(&notes);
        under_way.spawn(async move {
            let visit = visit(request).await;
            notes.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn visit(request: reqwest::RequestBuilder) -> Visit {
    let (sent, at_ms) = (Instant::now(), now_ms());
    let answer = async {
        let answer = request.send().await?;
        let header =
            |name| answer.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let (status, own, version) = (answer.status().as_u16(), header(OWN_ANSWER), header("x-version"));
        answer.bytes().await?;
        Ok::<_, reqwest::Error>((status, own, version.unwrap_or_default()))
    };
    let (status, own, version) = match answer.await {
        Ok((status, own, version)) => (Ok(status), own, version),
        Err(error) => (Err(format!("{:#}", anyhow::Error::from(error))), None, String::new()),
    };
    Visit { at_ms, sent, done_ms: now_ms(), status, own, version }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The longest time between the starts of two requests, and the request after it.
pub(crate) fn longest_gap(visits: &[Visit]) -> Option<(Duration, &Visit)> {
    visits.windows(2).map(|pair| (pair[1].sent.duration_since(pair[0].sent), &pair[1])).max_by_key(|(gap, _)| *gap)
}

/// Those that were not answered well, but for those that the gateway answered itself before anything was live: there
/// was no version that could have failed them.
pub(crate) fn failed(visits: &[Visit]) -> Vec<&Visit> {
    let live = visits.iter().position(Visit::is_good).unwrap_or(visits.len());
    let (before, after) = visits.split_at(live);
    before.iter().filter(|visit| visit.own.is_none()).chain(after.iter().filter(|visit| !visit.is_good())).collect()
}
