//! Visitors of the demo's service: requests through the gateway at a steady pace, each counted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

/// Time between two requests.
const PACE: Duration = Duration::from_millis(10);
/// A request that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Characters that are kept of what a failed request said.
const FAILURE_CHARS_MAX: usize = 300;
/// The header by which the gateway marks an answer of its own.
const OWN_ANSWER: &str = "x-windlass-gateway";

/// What came of the requests.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Requests {
    /// All requests.
    pub(crate) sent: u64,
    /// Those that were not answered well after the first release was live.
    pub(crate) failed: u64,
    /// Those of `sent` that the gateway answered itself before the first release was live: nothing was there to fail.
    pub(crate) before_first_release: u64,
    /// The longest time between the starts of two requests, in milliseconds.
    pub(crate) longest_gap_ms: u64,
    /// What the first failed one said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_failure: Option<String>,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    failed: AtomicU64,
    before: AtomicU64,
    gap_ms: AtomicU64,
    was_live: AtomicBool,
    first_failure: Mutex<Option<String>>,
}

/// Visitors under way.
pub(crate) struct Visitors {
    counters: Arc<Counters>,
    stop: tokio_util::sync::CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Visitors {
    /// Sends a request to `url` (an address of the gateway, with the service's host in `host`) at each beat, whether or
    /// not earlier ones are answered, until stopped.
    pub(crate) fn start(url: String, host: String) -> anyhow::Result<Self> {
        let client =
            reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()?;
        let counters = Arc::new(Counters::default());
        let stop = tokio_util::sync::CancellationToken::new();
        let (shared, stopped) = (Arc::clone(&counters), stop.clone());
        // A thread of their own: visitors come at their pace, whatever else the demo has to do.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("visitors".into()).spawn(move || {
            runtime.block_on(visit_until(stopped, client, url, host, shared));
        })?;
        Ok(Self { counters, stop, thread })
    }

    /// Waits until so many requests were answered or failed.
    pub(crate) async fn sent_at_least(&self, wanted: u64) {
        while self.counters.sent.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(PACE).await;
        }
    }

    /// Stops and counts.
    pub(crate) async fn stop(self) -> Requests {
        self.stop.cancel();
        let thread = self.thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        let counters = self.counters;
        Requests {
            sent: counters.sent.load(Ordering::SeqCst),
            failed: counters.failed.load(Ordering::SeqCst),
            before_first_release: counters.before.load(Ordering::SeqCst),
            longest_gap_ms: counters.gap_ms.load(Ordering::SeqCst),
            first_failure: counters.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

async fn visit_until(
    stopped: tokio_util::sync::CancellationToken,
    client: reqwest::Client,
    url: String,
    host: String,
    counters: Arc<Counters>,
) {
    let mut beat = tokio::time::interval(PACE);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut visits = tokio::task::JoinSet::new();
    let mut last: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stopped.cancelled() => break,
            _ = beat.tick() => {}
        }
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            let gap_ms = u64::try_from((now - last).as_millis()).unwrap_or(u64::MAX);
            counters.gap_ms.fetch_max(gap_ms, Ordering::Relaxed);
        }
        let (client, url, host, counters) = (client.clone(), url.clone(), host.clone(), Arc::clone(&counters));
        visits.spawn(async move { visit(&client, &url, &host, &counters).await });
        while visits.try_join_next().is_some() {}
    }
    while visits.join_next().await.is_some() {}
}

async fn visit(client: &reqwest::Client, url: &str, host: &str, counters: &Counters) {
    let was_live = counters.was_live.load(Ordering::SeqCst);
    let answer = client.get(url).header(reqwest::header::HOST, host).send().await;
    let answer = match answer {
        Ok(answer) => {
            let (status, own) = (answer.status(), answer.headers().contains_key(OWN_ANSWER));
            answer.text().await.map(|text| (status, own, text))
        }
        Err(error) => Err(error),
    };
    counters.sent.fetch_add(1, Ordering::SeqCst);
    let failure = match answer {
        Ok((status, ..)) if status.is_success() => {
            counters.was_live.store(true, Ordering::SeqCst);
            None
        }
        Ok((_, true, _)) if !was_live => {
            counters.before.fetch_add(1, Ordering::SeqCst);
            None
        }
        Ok((status, _, text)) => {
            Some(format!("answered {status}: {}", text.chars().take(FAILURE_CHARS_MAX).collect::<String>()))
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(failure) = failure {
        counters.failed.fetch_add(1, Ordering::SeqCst);
        counters.first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}
