//! A receiver of OTLP over HTTP that reads with the published messages, and what it may do to a sender: be away, be slow, be
//! full, refuse, take only a part.

use std::{
    collections::{BTreeSet, VecDeque},
    io::Read as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
    trace::v1::{Span as OtlpSpan, span::SpanKind, status::StatusCode as SpanStatus},
};
use pipelines::journal::Origin;
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use super::*;
use crate::{
    config::Config,
    testing::{Stage, test_app_with},
};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the receiver does with a request.
#[derive(Clone, Debug)]
enum Reply {
    /// Takes it.
    Take,
    /// Answers so.
    Status(u16),
    /// Answers so, and asks for a wait in seconds.
    Wait(u16, u32),
    /// Answers after so long.
    Late(Duration),
    /// Takes it, but for so many spans.
    Partly(i64),
}

/// One request as it came.
#[derive(Debug)]
struct Got {
    at: Instant,
    headers: HeaderMap,
    bytes: usize,
    request: ExportTraceServiceRequest,
}

impl Got {
    fn spans(&self) -> impl Iterator<Item = &OtlpSpan> {
        self.request.resource_spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans)
    }

    fn names(&self) -> Vec<&str> {
        self.spans().map(|span| span.name.as_str()).collect()
    }
}

#[derive(Clone)]
struct Desk {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    got: UnboundedSender<Got>,
}

async fn receive(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    let bytes = body.len();
    let mut plain = Vec::new();
    if headers.get("content-encoding").is_some_and(|value| value == "gzip") {
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
    } else {
        plain.extend_from_slice(&body);
    }
    let request = ExportTraceServiceRequest::decode(&plain[..]).unwrap();
    let reply = desk.replies.lock().unwrap().pop_front().unwrap_or(Reply::Take);
    desk.got.send(Got { at: Instant::now(), headers, bytes, request }).unwrap();
    let taken = |partial_success| ExportTraceServiceResponse { partial_success }.encode_to_vec().into_response();
    match reply {
        Reply::Take => taken(None),
        Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::Wait(status, seconds) => {
            (StatusCode::from_u16(status).unwrap(), [("retry-after", seconds.to_string())]).into_response()
        }
        Reply::Late(wait) => {
            tokio::time::sleep(wait).await;
            taken(None)
        }
        Reply::Partly(rejected_spans) => {
            taken(Some(ExportTracePartialSuccess { rejected_spans, error_message: "too old".into() }))
        }
    }
}

/// A receiver, and the server that tells it.
struct Scene {
    stage: Stage,
    got: UnboundedReceiver<Got>,
    shutdown: CancellationToken,
    telling: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

impl Scene {
    async fn begin(replies: &[Reply], change: impl FnOnce(&mut Config)) -> Self {
        Self::begin_after(0, replies, change).await
    }

    /// The receiver breaks off so many connections before it serves.
    async fn begin_after(broken: usize, replies: &[Reply], change: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, got) = unbounded_channel();
        let desk = Desk { replies: Arc::new(Mutex::new(replies.to_vec().into())), got: sender };
        let receiver = tokio::spawn(async move {
            for _ in 0..broken {
                drop(listener.accept().await.unwrap());
            }
            axum::serve(listener, Router::new().route("/otel/v1/traces", post(receive)).with_state(desk))
                .await
                .unwrap();
        });
        let stage = test_app_with(|config| {
            config.tracing.otlp_endpoint = Some(format!("http://{address}/otel/"));
            config.tracing.batch_wait_ms = 1;
            config.tracing.retry_first_ms = 1;
            config.tracing.retry_max_ms = 20;
            config.bounds.lease_wait_ms = 1;
            change(config);
        });
        let shutdown = CancellationToken::new();
        let teller = Teller::new(&stage.app).unwrap().unwrap();
        let telling = tokio::spawn(teller.tell(shutdown.clone()));
        Self { stage, got, shutdown, telling, receiver }
    }

    /// A run that is over, as early as can be: two spans.
    async fn happens(&self, service: &str) {
        let run = self.stage.pushed(service).await;
        self.stage.app.run_cancel(&run, String::new(), Origin::server()).await.unwrap();
    }

    async fn next(&mut self) -> Got {
        tokio::time::timeout(PATIENCE, self.got.recv()).await.expect("the receiver gets nothing").unwrap()
    }

    /// Waits until the counters say so.
    async fn counted(&self, taken: u64, refused: u64) {
        let wanted = [("taken", taken), ("refused", refused)]
            .map(|(outcome, number)| format!("windlass_trace_spans_total{{outcome=\"{outcome}\"}} {number}"));
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.stage.app.metrics_text().await.unwrap();
            if wanted.iter().all(|line| text.lines().any(|one| one == line)) {
                return;
            }
            assert!(Instant::now() < until, "{wanted:?} is not counted: {text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.telling).await.expect("it does not stop").unwrap();
        self.receiver.abort();
    }
}

fn ids(got: &Got) -> BTreeSet<Vec<u8>> {
    got.spans().map(|span| span.span_id.clone()).collect()
}

#[tokio::test]
async fn a_request_reads_back_with_the_published_messages() {
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "x-key: the key of the receiver\n\nx-tenant: shops\n").unwrap();
    let mut scene = Scene::begin(&[], |config| config.tracing.headers_file = Some(headers)).await;
    scene.happens("shop").await;
    let got = scene.next().await;
    assert_eq!(got.headers["content-type"], "application/x-protobuf");
    assert_eq!(got.headers["content-encoding"], "gzip");
    assert_eq!(
        (&got.headers["x-key"], &got.headers["x-tenant"]),
        (&"the key of the receiver".parse().unwrap(), &"shops".parse().unwrap())
    );
    let of = &got.request.resource_spans[0];
    let about: Vec<&str> =
        of.resource.iter().flat_map(|resource| &resource.attributes).map(|one| one.key.as_str()).collect();
    assert_eq!(about, ["service.name", "service.version", "service.instance.id"]);
    let root = got.spans().find(|span| span.name == "RUN shop").unwrap();
    assert_eq!((root.trace_id.len(), root.span_id.len(), root.parent_span_id.len()), (16, 8, 0));
    assert_eq!(root.kind, i32::from(SpanKind::Server));
    assert_eq!(root.start_time_unix_nano, crate::testing::START_MS * 1_000_000);
    assert_eq!(root.status, None, "a cancel is no error");
    scene.counted(got.spans().count() as u64, 0).await;
    scene.end().await;
}

#[tokio::test]
async fn what_went_wrong_is_a_status_with_a_word() {
    let mut scene = Scene::begin(&[], |config| config.tracing.gzip = false).await;
    let release = scene.stage.awaiting("shop").await;
    let first = scene.next().await;
    assert!(!first.headers.contains_key("content-encoding") && first.bytes > 0);
    scene.stage.pass_ms(3_600_000);
    let event = pipelines::approval::ApprovalEvent::Expired { round: 1 };
    let event = pipelines::train::Event::Approval { number: release.number, event };
    scene.stage.app.train_event(&release.service, Origin::server(), event).await.unwrap();
    let mut got = first;
    while !got.names().contains(&"approval") {
        got = scene.next().await;
    }
    let status = got.spans().find(|span| span.name == "approval").unwrap().status.clone().unwrap();
    assert_eq!((status.code, status.message.as_str()), (SpanStatus::Error.into(), "expired"));
    scene.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_away_gets_all_of_it_when_it_is_back() {
    let mut scene = Scene::begin_after(3, &[], |_| {}).await;
    scene.happens("shop").await;
    let got = scene.next().await;
    assert_eq!(got.names(), ["RUN shop", "wait for a runner"]);
    scene.counted(2, 0).await;
    scene.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_too_slow_gets_the_same_once_more() {
    let late = Reply::Late(PATIENCE);
    let mut scene = Scene::begin(&[late], |config| config.tracing.answer_ms = 300).await;
    scene.happens("shop").await;
    let (first, second) = (scene.next().await, scene.next().await);
    assert_eq!(ids(&first), ids(&second));
    scene.counted(2, 0).await;
    scene.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_full_is_left_alone_for_as_long_as_it_asks() {
    let replies = [Reply::Wait(429, 1), Reply::Status(503), Reply::Status(502), Reply::Status(504)];
    let mut scene = Scene::begin(&replies, |_| {}).await;
    scene.happens("shop").await;
    let (first, second) = (scene.next().await, scene.next().await);
    assert!(second.at.duration_since(first.at) >= Duration::from_secs(1), "it came again too soon");
    assert_eq!(ids(&first), ids(&second));
    for _ in 0..3 {
        assert_eq!(ids(&scene.next().await), ids(&first));
    }
    scene.counted(2, 0).await;
    scene.end().await;
}

#[tokio::test]
async fn what_is_refused_is_never_sent_again() {
    for status in [400, 401, 404, 413, 500, 307] {
        let mut scene = Scene::begin(&[Reply::Status(status)], |_| {}).await;
        scene.happens("shop").await;
        let refused = scene.next().await;
        scene.counted(0, refused.spans().count() as u64).await;
        scene.happens("cart").await;
        let next = scene.next().await;
        assert!(next.names().iter().all(|name| !name.contains("shop")), "{status}: {:?}", next.names());
        assert!(ids(&next).is_disjoint(&ids(&refused)), "{status}");
        scene.end().await;
    }
}

#[tokio::test]
async fn spans_that_the_receiver_leaves_out_are_counted() {
    let mut scene = Scene::begin(&[Reply::Partly(1)], |_| {}).await;
    scene.happens("shop").await;
    assert_eq!(scene.next().await.spans().count(), 2);
    scene.counted(1, 1).await;
    scene.end().await;
}

#[tokio::test]
async fn a_batch_has_so_many_spans_and_no_more() {
    let mut scene = Scene::begin(&[], |config| {
        config.tracing.batch_spans_max = 3;
        config.tracing.batch_wait_ms = 200;
    })
    .await;
    for service in ["shop", "cart", "desk", "door"] {
        scene.happens(service).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 8 {
        let got = scene.next().await;
        assert!((1..=3).contains(&got.spans().count()), "{:?}", got.names());
        seen.extend(ids(&got));
    }
    scene.end().await;
}

#[tokio::test]
async fn while_the_receiver_is_slow_trains_move_and_what_finds_no_room_is_counted() {
    let mut scene = Scene::begin(&[Reply::Late(PATIENCE)], |config| config.tracing.queue_runs_max = 1).await;
    scene.happens("shop").await;
    scene.next().await;
    // The batch is with the receiver, which says nothing: the next run is noted, those after it are not.
    for service in ["cart", "desk", "door"] {
        scene.happens(service).await;
    }
    let traces = scene.stage.app.traces();
    assert_eq!((traces.waiting(), traces.dropped()), (1, 4), "two changes of two runs each found no room");
    // And the server stops all the same.
    scene.end().await;
}

#[tokio::test]
async fn a_stopping_server_tells_what_is_noted() {
    let mut scene = Scene::begin(&[], |config| config.tracing.batch_wait_ms = 3_600_000).await;
    scene.happens("shop").await;
    scene.shutdown.cancel();
    assert_eq!(scene.next().await.names(), ["RUN shop", "wait for a runner"]);
    scene.end().await;
}

#[tokio::test]
async fn a_header_without_a_name_is_refused_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "x-good: yes\nthe key alone\n").unwrap();
    let stage = test_app_with(|config| {
        config.tracing.otlp_endpoint = Some("http://127.0.0.1:4318".into());
        config.tracing.headers_file = Some(headers);
    });
    let Err(error) = Teller::new(&stage.app) else { panic!("it was taken") };
    let text = chain(&error);
    assert!(text.contains("line 2") && !text.contains("the key"), "{text}");
}
