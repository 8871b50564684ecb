//! A receiver of traces by OTLP over HTTP, in the test's own process: it reads with the published messages and keeps what it
//! was told. Not here: a receiver of somebody else's.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::Read as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header::CONTENT_ENCODING, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode as SpanStatus},
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle};

const POLL_EVERY: Duration = Duration::from_millis(20);

/// A span as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldSpan {
    /// Its trace, in hex digits.
    pub trace: String,
    /// Its id, in hex digits.
    pub id: String,
    /// What it is a part of, in hex digits; empty: it is the whole.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// When it began, in nanoseconds.
    pub start_ns: u64,
    /// When it ended, in nanoseconds.
    pub end_ns: u64,
    /// Its attributes, numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Traces that it is linked to, in hex digits.
    pub links: Vec<String>,
}

impl ToldSpan {
    /// An attribute; empty where there is none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// A running receiver; it ends with its value.
#[derive(Debug)]
pub struct Otlp {
    /// Where it is: what `tracing.otlp_endpoint` takes.
    pub url: String,
    desk: Arc<Desk>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Desk {
    told: Mutex<Vec<ToldSpan>>,
    is_closed: AtomicBool,
}

impl Otlp {
    /// Starts it.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let desk = Arc::new(Desk::default());
        let at = Arc::clone(&desk);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = Arc::clone(&at);
                tokio::spawn(async move {
                    let service = service_fn(move |request| take(Arc::clone(&desk), request));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A sender that goes away is no concern of the receiver.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { url, desk, accepting })
    }

    /// From now on it takes nothing and answers 503.
    pub fn close(&self) {
        self.desk.is_closed.store(true, Ordering::SeqCst);
    }

    /// It takes what comes again.
    pub fn open(&self) {
        self.desk.is_closed.store(false, Ordering::SeqCst);
    }

    /// All spans that were told so far, in the order in which they came; those that were told twice are there twice.
    #[must_use]
    pub fn told(&self) -> Vec<ToldSpan> {
        self.desk.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until what was told so far gives something.
    ///
    /// # Errors
    /// When it does not in time; the message names the spans that came.
    pub async fn until<T>(&self, what: &str, within: Duration, find: impl Fn(&[ToldSpan]) -> Option<T>) -> Result<T> {
        let until = Instant::now() + within;
        loop {
            let told = self.told();
            if let Some(found) = find(&told) {
                return Ok(found);
            }
            if Instant::now() > until {
                let names: Vec<&str> = told.iter().map(|span| span.name.as_str()).collect();
                bail!("{what} did not come within {within:?}; what came: {names:?}");
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn take(desk: Arc<Desk>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_traces = request.uri().path() == "/v1/traces";
    let is_zipped = request.headers().get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::default());
    match read(&body, is_zipped) {
        _ if desk.is_closed.load(Ordering::SeqCst) => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        Ok(read) if is_traces => {
            let spans = read.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
            desk.told.lock().unwrap_or_else(PoisonError::into_inner).extend(spans.map(told));
        }
        _ => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

fn read(body: &[u8], is_zipped: bool) -> Result<ExportTraceServiceRequest> {
    let mut plain = Vec::new();
    if is_zipped {
        flate2::read::GzDecoder::new(body).read_to_end(&mut plain)?;
    } else {
        plain.extend_from_slice(body);
    }
    Ok(ExportTraceServiceRequest::decode(&plain[..])?)
}

fn told(span: Span) -> ToldSpan {
    let failed = span.status.filter(|status| status.code == i32::from(SpanStatus::Error));
    let attributes = span.attributes.into_iter().map(|one| (one.key, text(one.value))).collect();
    ToldSpan {
        trace: hex::encode(&span.trace_id),
        id: hex::encode(&span.span_id),
        parent: hex::encode(&span.parent_span_id),
        name: span.name,
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        attributes,
        error: failed.map(|status| status.message),
        links: span.links.iter().map(|link| hex::encode(&link.trace_id)).collect(),
    }
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}
