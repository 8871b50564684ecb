//! How the server is: whether it can take changes, and what it finds of its surroundings. Looking is bounded: askers at the
//! same time share one look. Not here: how an outside party is looked at (`driver::health`).

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use pipelines::time::UnixMs;

use super::{App, retention::Swept, room::NoRoom};
use crate::gateway::GatewayStats;

/// A look is not repeated within this time.
const FRESH: Duration = Duration::from_secs(2);
/// With less than so many times what is kept for finishing, the disk is nearly full.
const NEARLY_FULL: u64 = 8;

/// The outcome of a look, the better before the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is well.
    Good,
    /// It works, and should be looked after.
    Warning,
    /// It does not work.
    Bad,
}

impl Verdict {
    /// The word for it in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// What was seen of one thing that the server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of what: `store`, `disk`, `kept`, `engine`, `test_registry`, `production_registry`, `mail`, `gateway`.
    pub name: &'static str,
    /// The outcome.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    /// It is well.
    #[must_use]
    pub fn good(name: &'static str, evidence: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, evidence: evidence.into(), fix: None }
    }

    /// It is not, and this is what to do.
    #[must_use]
    pub fn not_good(name: &'static str, verdict: Verdict, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict, evidence: evidence.into(), fix: Some(fix.into()) }
    }
}

/// What is found, when it is there.
pub type Findings<'a> = Pin<Box<dyn Future<Output = Vec<Finding>> + Send + 'a>>;

/// What the gateway counts, when it is there.
pub type GatewayReading<'a> = Pin<Box<dyn Future<Output = Option<GatewayStats>> + Send + 'a>>;

/// Looks at outside parties. It may take as long as a party is given to answer, never longer; it changes nothing.
pub trait Surroundings: Send + Sync {
    /// Looks at all of them at the same time.
    fn look(&self) -> Findings<'_>;

    /// What the gateway counts; none where it does not answer.
    fn gateway(&self) -> GatewayReading<'_> {
        Box::pin(async { None })
    }
}

/// Who looks, and what was last found.
#[derive(Default)]
pub(super) struct Looks {
    surroundings: OnceLock<Weak<dyn Surroundings>>,
    last: tokio::sync::Mutex<Option<(Instant, Vec<Finding>)>>,
}

impl App {
    /// Says who looks at outside parties. Once; they hold the application, so it does not hold them.
    pub fn surrounded_by(&self, surroundings: &Arc<impl Surroundings + 'static>) {
        let weak = Arc::downgrade(surroundings);
        let weak: Weak<dyn Surroundings> = weak;
        // A second one is a mistake of who builds the server, and the first stays good.
        let _ = self.looks.surroundings.set(weak);
    }

    /// Why changes are refused at present, if they are.
    #[must_use]
    pub fn refusing(&self) -> Option<String> {
        self.store.trouble()
    }

    /// How everything is that the server needs.
    pub async fn health(&self) -> Vec<Finding> {
        self.health_within(FRESH).await
    }

    /// What the gateway counts; none where it does not answer.
    pub(super) async fn gateway_stats(&self) -> Option<GatewayStats> {
        let surroundings = self.looks.surroundings.get().and_then(Weak::upgrade)?;
        surroundings.gateway().await
    }

    /// The same, where a look that is no older than `fresh` will do.
    pub(super) async fn health_within(&self, fresh: Duration) -> Vec<Finding> {
        let mut last = self.looks.last.lock().await;
        if let Some((at, findings)) = &*last
            && at.elapsed() < fresh
        {
            return findings.clone();
        }
        let mut findings = vec![self.store_finding(), self.disk_finding()];
        findings.extend(self.last_swept().map(|swept| kept_finding(&swept, self.now())));
        let surroundings = self.looks.surroundings.get().and_then(Weak::upgrade);
        if let Some(surroundings) = surroundings {
            findings.extend(surroundings.look().await);
        }
        *last = Some((Instant::now(), findings.clone()));
        findings
    }

    fn store_finding(&self) -> Finding {
        match self.refusing() {
            None => Finding::good("store", "changes are taken"),
            Some(trouble) => {
                let fix = "free space under the state folder, or make it writable; nothing has to be restarted";
                Finding::not_good("store", Verdict::Bad, format!("changes are refused: {trouble}"), fix)
            }
        }
    }

    fn disk_finding(&self) -> Finding {
        let free = match rustix::fs::statvfs(&self.config.state_dir) {
            Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
            Err(error) => {
                let evidence = format!("the state folder cannot be looked at: {error}");
                return Finding::not_good("disk", Verdict::Bad, evidence, "look at its mount");
            }
        };
        let evidence = format!("{} MiB free under the state folder", free >> 20);
        let fix = "free space there; nothing has to be restarted";
        let min = self.config.bounds.disk_free_bytes_min;
        match self.room() {
            Err(NoRoom::ReadOnly) => {
                let evidence = "the state folder is read-only: nothing new is accepted";
                Finding::not_good("disk", Verdict::Bad, evidence, "make it writable again; nothing has to be restarted")
            }
            Err(_) => {
                let evidence = format!("{evidence}, and {} MiB are kept: nothing new is accepted", min >> 20);
                Finding::not_good("disk", Verdict::Bad, evidence, fix)
            }
            Ok(()) if free < min.saturating_mul(NEARLY_FULL) => {
                Finding::not_good("disk", Verdict::Warning, evidence, fix)
            }
            Ok(()) => Finding::good("disk", evidence),
        }
    }
}

fn kept_finding(swept: &Swept, now: UnixMs) -> Finding {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let Swept { runs, logs, deliveries, registry_images, engine_images, containers, .. } = swept;
    let evidence = format!(
        "{} runs, {} MiB of logs, a store of {} MiB; {} min ago went {runs} runs, {logs} logs, {deliveries} hooks, \
         {registry_images} images of the test registry, {engine_images} of the engine, {containers} containers",
        swept.runs_kept,
        mib(swept.log_bytes),
        mib(swept.store_bytes),
        now.since_ms(swept.at) / 60_000
    );
    match swept.troubles.first() {
        None => Finding::good("kept", evidence),
        Some(trouble) => {
            let evidence = format!("{evidence}; not everything could be removed: {trouble}");
            let fix = "look there; nothing is lost, it only takes space, and it is tried again";
            Finding::not_good("kept", Verdict::Warning, evidence, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::testing::test_app;

    struct Counting(AtomicUsize);

    impl Surroundings for Counting {
        fn look(&self) -> Findings<'_> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { vec![Finding::good("engine", "it answers")] })
        }
    }

    #[tokio::test]
    async fn askers_at_the_same_time_share_one_look() {
        let stage = test_app();
        let looking = Arc::new(Counting(AtomicUsize::new(0)));
        stage.app.surrounded_by(&looking);
        let (one, other) = tokio::join!(stage.app.health(), stage.app.health());
        assert_eq!((one.len(), &one), (3, &other));
        assert_eq!(looking.0.load(Ordering::Relaxed), 1);
    }
}
