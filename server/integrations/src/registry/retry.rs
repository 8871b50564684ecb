//! When to try again: growing waits with jitter, the registry's own `Retry-After`, and the end of patience.

use std::time::{Duration, SystemTime};

use backon::BackoffBuilder as _;
use http::HeaderMap;

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

/// `Retry-After` in either of its forms (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(SystemTime::from(at).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_420);
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(read("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}
