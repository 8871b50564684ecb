//! Tells traces: takes what is noted, has the spans made, sends them in batches to the receiver, again where the receiver lets
//! it be sent again. Beside everything else: nothing waits for it. Not here: which spans there are (`app::traces`), how
//! they are written down ([`message`]), the one call (`integrations::otlp`).

mod message;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use integrations::otlp::{OtlpClient, OtlpConfig, OtlpError};
use pipelines::{errors::chain, ids::RunId};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{DriverError, outgoing};
use crate::{
    app::{
        App, AppError,
        traces::{News, Span},
    },
    config::ConfigError,
};

/// Runs whose spans are made together.
const RUNS_AT_ONCE: usize = 32;
/// How often the log says at most that the receiver takes nothing.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How long the last batches may take when the server stops.
const LAST: Duration = Duration::from_secs(2);

/// Tells traces to one receiver.
pub struct Teller {
    app: Arc<App>,
    client: OtlpClient,
    said_at: Option<Instant>,
    is_away: bool,
}

impl Teller {
    /// Sets it up; none where no receiver is set. Sends nothing yet.
    ///
    /// # Errors
    /// When a setting is not good or a file cannot be read.
    pub fn new(app: &Arc<App>) -> Result<Option<Self>, DriverError> {
        let settings = &app.config.tracing;
        let Some(endpoint) = settings.endpoint() else { return Ok(None) };
        let headers = settings.headers()?.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect();
        let ca_pem = match &settings.ca_file {
            Some(path) => {
                let failed = |source| ConfigError::Read { path: path.clone(), source };
                Some(std::fs::read(path).map_err(failed)?)
            }
            None => None,
        };
        let client = OtlpClient::new(OtlpConfig {
            endpoint,
            headers,
            ca_pem,
            gzip: settings.gzip,
            answer_ms: settings.answer_ms,
            outgoing: outgoing(&app.config.outgoing)?,
        });
        let client = client.map_err(DriverError::Traces)?;
        Ok(Some(Self { app: Arc::clone(app), client, said_at: None, is_away: false }))
    }

    /// Tells until `shutdown`; what is noted then is told once more, for a moment.
    pub async fn tell(mut self, shutdown: CancellationToken) {
        let app = Arc::clone(&self.app);
        match tokio::task::spawn_blocking(move || app.trace_again()).await {
            Ok(Ok(runs)) => tracing::debug!(runs, "told again in traces"),
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "what the last server told in traces is not known"),
            Err(error) => tracing::warn!(%error, "what the last server told in traces is not known"),
        }
        let gather = Duration::from_millis(self.app.config.tracing.batch_wait_ms);
        loop {
            let is_last = shutdown.is_cancelled();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = async {
                    self.app.traces().noted_something().await;
                    tokio::time::sleep(gather).await;
                } => {}
            }
            self.tell_noted(&shutdown).await;
            if is_last {
                return;
            }
        }
    }

    /// Tells all that is noted.
    async fn tell_noted(&mut self, shutdown: &CancellationToken) {
        let batch_max = self.app.config.tracing.batch_spans_max;
        let mut spans: Vec<Span> = Vec::new();
        loop {
            let noted = self.app.traces().take(RUNS_AT_ONCE);
            let is_all = noted.is_empty();
            spans.extend(self.spans_of(noted).await);
            while spans.len() >= batch_max || (is_all && !spans.is_empty()) {
                let batch: Vec<Span> = spans.drain(..spans.len().min(batch_max)).collect();
                if !self.send(&batch, shutdown).await {
                    return;
                }
            }
            if is_all {
                return;
            }
        }
    }

    async fn spans_of(&mut self, noted: Vec<(RunId, News)>) -> Vec<Span> {
        let app = Arc::clone(&self.app);
        let make = move || {
            let mut spans = Vec::new();
            let mut failed: Option<AppError> = None;
            for (run, news) in &noted {
                match app.trace_spans(run, news) {
                    Ok(made) => spans.extend(made),
                    Err(error) => failed = Some(error),
                }
            }
            (spans, failed)
        };
        match tokio::task::spawn_blocking(make).await {
            Ok((spans, None)) => spans,
            Ok((spans, Some(error))) => {
                self.say(&format!("the store cannot be read: {}", chain(&error)));
                spans
            }
            Err(error) => {
                self.say(&format!("the spans cannot be made: {error}"));
                Vec::new()
            }
        }
    }

    /// Sends one batch until it is taken or refused; false where the server stops before that. What was not sent is told
    /// after the next start.
    async fn send(&mut self, batch: &[Span], shutdown: &CancellationToken) -> bool {
        let settings = self.app.config.tracing.clone();
        let message = message::encoded(self.app.instance(), batch);
        let number = batch.len() as u64;
        let mut wait_ms = settings.retry_first_ms;
        loop {
            let answer = tokio::select! {
                answer = self.client.send(&message) => answer,
                () = cut(shutdown) => return false,
            };
            let (why, after) = match answer {
                Ok(answer) => {
                    let refused = message::refused(&answer).min(number);
                    self.app.metrics().spans(number - refused, refused);
                    if refused > 0 {
                        self.say(&format!("the receiver refused {refused} of {number} spans"));
                    } else if std::mem::take(&mut self.is_away) {
                        tracing::info!("traces are told again");
                    }
                    return true;
                }
                Err(OtlpError::Later { why, after }) => (why, after),
                Err(error) => {
                    self.app.metrics().spans(0, number);
                    self.say(&error.to_string());
                    return true;
                }
            };
            self.is_away = true;
            self.say(&why);
            // Servers that lost the same receiver do not all come back in the same moment.
            let jitter_ms = rand::random_range(0..=wait_ms / 2);
            let wait = after.unwrap_or(Duration::from_millis(wait_ms.saturating_add(jitter_ms)));
            wait_ms = wait_ms.saturating_mul(2).clamp(1, settings.retry_max_ms.max(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return false,
            }
        }
    }

    fn say(&mut self, why: &str) {
        if self.said_at.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            return;
        }
        self.said_at = Some(Instant::now());
        let (waiting, dropped) = (self.app.traces().waiting(), self.app.traces().dropped());
        tracing::warn!(why, waiting, dropped, "traces are not told");
    }
}

/// A moment after the server was asked to stop.
async fn cut(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(LAST).await;
}
