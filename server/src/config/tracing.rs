//! Settings of traces: where they are sent, and the bounds of it. Not here: what a trace holds (`app::traces`).

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{ConfigError, read_text};

/// Bytes of the file of headers.
const HEADERS_BYTES_MAX: usize = 16 << 10;

/// Traces, sent by OTLP over HTTP in protobuf.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TracingSettings {
    /// A receiver of OTLP over HTTP, such as `http://127.0.0.1:4318`; traces go to `v1/traces` beneath it. None: no traces
    /// are made.
    pub otlp_endpoint: Option<String>,
    /// File of headers that go along, one `name: value` per line: what the receiver knows the sender by.
    pub headers_file: Option<PathBuf>,
    /// File of a certificate authority to trust, PEM.
    pub ca_file: Option<PathBuf>,
    /// Send it compressed.
    pub gzip: bool,
    /// Runs and their releases of which something is to be told; what happens to further ones is not told.
    pub queue_runs_max: usize,
    /// Spans in one request.
    pub batch_spans_max: usize,
    /// How long spans are gathered for one request, in milliseconds.
    pub batch_wait_ms: u64,
    /// How long the receiver may take to answer, in milliseconds.
    pub answer_ms: u64,
    /// The first wait before a request that was not taken is sent again, in milliseconds; it doubles.
    pub retry_first_ms: u64,
    /// The longest such wait, in milliseconds, unless the receiver names one.
    pub retry_max_ms: u64,
    /// At the start, what happened within so many milliseconds before the server stopped is told again, as the same spans: it
    /// may have been killed before it told it. 0: nothing is.
    pub again_ms: u64,
    /// Lines of the journal that are read for one trace; of a life with more, the beginning is left out.
    pub journal_lines_max: usize,
}

impl Default for TracingSettings {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            headers_file: None,
            ca_file: None,
            gzip: true,
            queue_runs_max: 10_000,
            batch_spans_max: 512,
            batch_wait_ms: 2_000,
            answer_ms: 10_000,
            retry_first_ms: 1_000,
            retry_max_ms: 60_000,
            again_ms: 600_000,
            journal_lines_max: 20_000,
        }
    }
}

impl TracingSettings {
    /// Where traces go, if they go anywhere.
    #[must_use]
    pub fn endpoint(&self) -> Option<Url> {
        let mut url = Url::parse(self.otlp_endpoint.as_deref()?).ok()?;
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Some(url)
    }

    /// The headers that go along; reads their file.
    ///
    /// # Errors
    /// When it cannot be read or a line is not `name: value`. The line is not in the error: it may hold a key.
    pub fn headers(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let Some(path) = &self.headers_file else { return Ok(Vec::new()) };
        let text = read_text(path)?;
        let wrong = |why: String| ConfigError::Content { path: path.clone(), why };
        if text.len() > HEADERS_BYTES_MAX {
            return Err(wrong(format!("it has more than {HEADERS_BYTES_MAX} bytes")));
        }
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let header = |(index, line): (usize, &str)| match line.split_once(':') {
            Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
            _ => Err(wrong(format!("line {} is not a header; write name: value", index + 1))),
        };
        lines.map(header).collect()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let Some(text) = &self.otlp_endpoint else { return Ok(()) };
        // The address is not repeated: it may have been written with a password.
        let url = Url::parse(text).map_err(|error| format!("tracing.otlp_endpoint: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("tracing.otlp_endpoint: write http:// or https:// and a host".into());
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err("tracing.otlp_endpoint: write the address alone; keys go into tracing.headers_file".into());
        }
        if self.queue_runs_max == 0 || self.batch_spans_max == 0 || self.journal_lines_max == 0 {
            return Err(
                "tracing: queue_runs_max, batch_spans_max and journal_lines_max are 1 or more; leave out otlp_endpoint \
                 where no traces are wanted"
                    .into(),
            );
        }
        Ok(())
    }
}
