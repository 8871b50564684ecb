//! When to try again: growing waits with jitter, the registry's own `Retry-After`, and the end of patience.

use std::time::Duration;

use backon::BackoffBuilder as _;

use super::{client::ClientLimits, error::RegistryError};

/// The tries that are left for one piece of work.
pub(super) struct Patience {
    delays: backon::ExponentialBackoff,
    retry_after_max: Duration,
}

impl Patience {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        let delays = backon::ExponentialBuilder::default()
            .with_jitter()
            .with_factor(2.0)
            .with_min_delay(Duration::from_millis(limits.backoff_min_ms))
            .with_max_delay(Duration::from_millis(limits.backoff_max_ms))
            .with_max_times(limits.attempts.saturating_sub(1) as usize)
            .build();
        Self { delays, retry_after_max: Duration::from_millis(limits.retry_after_max_ms) }
    }

    /// Waits before the next try, or gives the error back where another try is of no use: it is not transient, the
    /// tries are used up, or the registry wants a longer pause than is worth holding a connection for.
    pub(super) async fn wait(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if !error.is_transient() {
            return Err(error);
        }
        let Some(delay) = self.delays.next() else { return Err(error) };
        let asked = error.retry_after().unwrap_or_default();
        if asked > self.retry_after_max {
            return Err(error);
        }
        let delay = delay.max(asked);
        tracing::debug!(delay_ms = delay.as_millis() as u64, %error, "try the registry again");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
