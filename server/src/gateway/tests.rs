//! The gateway under real traffic: real sockets, real backends, real clients in one process. What
//! is here is the stage; the plays are in the files below, one per subject.

mod abuse;
mod change;
mod failure;
mod lifecycle;
mod routing;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::*;

/// Nothing here takes longer, unless it hangs.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// A gateway in a folder of its own.
pub(super) struct Stage {
    pub(super) gateway: Option<Gateway>,
    pub(super) client: GatewayClient,
    pub(super) address: SocketAddr,
    pub(super) config: Generation,
    pub(super) folder: tempfile::TempDir,
}

impl Stage {
    /// Starts a gateway; `routes` are (host, [(revision, weight)]), `backends` (revision, addresses).
    pub(super) async fn start(backends: &[(&str, &[SocketAddr])], routes: &[(&str, &[(&str, u32)])]) -> Self {
        Self::start_with(backends, routes, |_| {}).await
    }

    pub(super) async fn start_with(
        backends: &[(&str, &[SocketAddr])],
        routes: &[(&str, &[(&str, u32)])],
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let gateway = Gateway::start(options(folder.path())).await.expect("starts");
        let mut config =
            GatewayConfig { listen: vec!["127.0.0.1:0".parse().expect("an address")], ..GatewayConfig::default() };
        for (id, addresses) in backends {
            let backends = addresses.to_vec();
            config.revisions.insert((*id).to_owned(), RevisionConfig { backends });
        }
        for (host, shares) in routes {
            config.routes.insert((*host).to_owned(), route(shares));
        }
        change(&mut config);
        let config = Generation { generation: 1, config };
        let client = GatewayClient::new(folder.path());
        let in_force = client.put_config(&config).await.expect("is taken");
        Self { gateway: Some(gateway), client, address: in_force.listening[0].local, config, folder }
    }

    /// Puts a changed configuration in force as the next generation.
    pub(super) async fn change(&mut self, change: impl FnOnce(&mut GatewayConfig)) -> InForce {
        self.config.generation += 1;
        change(&mut self.config.config);
        let offered = self.client.put_config(&self.config).await;
        offered.expect("is taken")
    }

    pub(super) async fn split(&mut self, host: &str, shares: &[(&str, u32)]) -> InForce {
        let host = host.to_owned();
        let route = route(shares);
        self.change(|config| _ = config.routes.insert(host, route)).await
    }

    pub(super) async fn stats(&self, host: &str, revision: &str) -> RevisionStats {
        let stats = self.client.stats().await.expect("stats");
        stats.revision(host, revision).expect("is counted").clone()
    }
}

pub(super) fn options(folder: &Path) -> GatewayOptions {
    GatewayOptions { folder: folder.to_owned() }
}

pub(super) fn route(shares: &[(&str, u32)]) -> RouteConfig {
    let shares = shares.iter().map(|(revision, weight)| Share { revision: (*revision).to_owned(), weight: *weight });
    RouteConfig { shares: shares.collect(), fallback: None }
}

pub(super) type Body = BoxBody<Bytes, std::io::Error>;

pub(super) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// A body that is sent as the test says.
pub(super) fn channel() -> (tokio::sync::mpsc::Sender<std::io::Result<Frame<Bytes>>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    (sender, BodyExt::boxed(StreamBody::new(stream)))
}

/// A service's container: a real HTTP server that says who it is.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) inner: Arc<BackendInner>,
    task: JoinHandle<()>,
}

pub(super) struct BackendInner {
    name: String,
    pub(super) served: AtomicUsize,
    /// Requests to `/hold` that arrived.
    pub(super) arrived: Semaphore,
    /// Lets one request to `/hold` go.
    pub(super) release: Semaphore,
    /// Requests to `/hold` that were given up.
    pub(super) given_up: Notify,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    pub(super) async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(BackendInner {
            name: name.to_owned(),
            served: AtomicUsize::new(0),
            arrived: Semaphore::new(0),
            release: Semaphore::new(0),
            given_up: Notify::new(),
        });
        let shared = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = hyper::service::service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(shared.answer(request).await) }
                });
                connections.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades(),
                );
            }
        });
        Self { address, inner, task }
    }

    pub(super) fn served(&self) -> usize {
        self.inner.served.load(Ordering::SeqCst)
    }
}

impl BackendInner {
    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        self.served.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/hold" => {
                let mut given_up = GivenUp(Some(Arc::clone(&self)));
                self.arrived.add_permits(1);
                self.release.acquire().await.expect("is open").forget();
                given_up.0 = None;
                Response::new(full("released"))
            }
            "/echo" => Response::new(request.into_body().map_err(std::io::Error::other).boxed()),
            "/head" => {
                let fields = request.headers().iter();
                let text: String = fields.map(|(n, v)| format!("{n}: {}\n", v.to_str().unwrap_or("?"))).collect();
                let mut response = Response::new(full(text));
                let headers = response.headers_mut();
                headers.insert("connection", "x-private".parse().expect("a value"));
                headers.insert("x-private", "1".parse().expect("a value"));
                headers.insert("x-public", "1".parse().expect("a value"));
                response
            }
            "/fail" => {
                let mut response = Response::new(full("no"));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
            "/unchanged" => {
                let mut response = Response::new(full(""));
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            "/endless" => {
                let (sender, body) = channel();
                let frame = || Ok(Frame::data(Bytes::from_static(&[b'x'; 65_536])));
                let sending = async move { while sender.send(frame()).await.is_ok() {} };
                tokio::spawn(sending);
                Response::new(body)
            }
            "/cut" => {
                let (sender, body) = channel();
                tokio::spawn(async move {
                    let _ = sender.send(Ok(Frame::data("begin".into()))).await;
                    let _ = sender.send(Err(std::io::Error::other("cut"))).await;
                });
                Response::new(body)
            }
            "/ws" => {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(upgrade.await.expect("upgrades"));
                    let mut buffer = [0; 1024];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                });
                Response::builder()
                    .status(StatusCode::SWITCHING_PROTOCOLS)
                    .header("connection", "upgrade")
                    .header("upgrade", "websocket")
                    .body(full(""))
                    .expect("a response")
            }
            _ => Response::new(full(self.name.clone())),
        }
    }
}

/// Tells when a held request's future is dropped before its end.
struct GivenUp(Option<Arc<BackendInner>>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            inner.given_up.notify_one();
        }
    }
}

/// A client with one kept connection, which it makes anew when it was told to.
pub(super) struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Body>>,
}

#[derive(Debug)]
pub(super) struct Heard {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    pub(super) async fn begin(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(mut sender) => {
                sender.ready().await?;
                sender
            }
            None => {
                let stream = TcpStream::connect(self.address).await?;
                let io = TokioIo::new(stream);
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                tokio::spawn(connection.with_upgrades());
                sender
            }
        };
        let response = sender.send_request(request).await?;
        let close = response.headers().get("connection");
        if close.is_none_or(|value| value != "close") {
            self.sender = Some(sender);
        }
        Ok(response)
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Heard, Box<dyn std::error::Error + Send + Sync>> {
        let response = timeout(SOON, self.begin(request)).await??;
        let (head, body) = response.into_parts();
        let bytes = timeout(SOON, body.collect()).await??.to_bytes();
        Ok(Heard { status: head.status, headers: head.headers, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    pub(super) async fn get(
        &mut self,
        host: &str,
        path: &str,
    ) -> Result<Heard, Box<dyn std::error::Error + Send + Sync>> {
        self.send(ask(Method::GET, host, path, full(""))).await
    }
}

pub(super) fn ask(method: Method, host: &str, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).header("host", host).body(body).expect("a request")
}

/// Sends raw bytes on a connection of its own and reads until the other side closes.
pub(super) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(bytes).await.expect("writes");
    read_all(&mut stream).await
}

pub(super) async fn read_all(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    // A reset after the answer is an end as well.
    let _ = timeout(SOON, stream.read_to_end(&mut heard)).await.expect("is closed in time");
    String::from_utf8_lossy(&heard).into_owned()
}

/// A backend that answers each connection as `answer` says, over the raw bytes of one request's head.
pub(super) async fn raw_backend(
    answer: impl Fn(usize, String) -> Option<String> + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        let mut count = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            let mut buffer = [0; 4096];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(length @ 1..) => head.extend_from_slice(&buffer[..length]),
                    _ => break,
                }
            }
            if let Some(text) = answer(count, String::from_utf8_lossy(&head).into_owned()) {
                let _ = stream.write_all(text.as_bytes()).await;
            }
            count += 1;
        }
    });
    (address, task)
}

/// An address on which nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    listener.local_addr().expect("an address")
}

/// Clients that ask all the time, and what they got: (answers by body, failures).
pub(super) struct Traffic {
    stop: CancellationToken,
    clients: Vec<JoinHandle<(Vec<String>, Vec<String>)>>,
    pub(super) asked: Arc<AtomicUsize>,
}

impl Traffic {
    pub(super) fn start(address: SocketAddr, host: &'static str, clients: usize) -> Self {
        let stop = CancellationToken::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients).map(|_| {
            let (stop, asked) = (stop.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut client = Client::new(address);
                let (mut heard, mut failed) = (Vec::new(), Vec::new());
                while !stop.is_cancelled() {
                    match client.get(host, "/").await {
                        Ok(answer) if answer.status == StatusCode::OK => heard.push(answer.text),
                        Ok(answer) => failed.push(format!("{answer:?}")),
                        Err(error) => failed.push(error.to_string()),
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                }
                (heard, failed)
            })
        });
        Self { clients: clients.collect(), stop, asked }
    }

    /// Waits until so many more requests were answered.
    pub(super) async fn more(&self, count: usize) {
        let until = self.asked.load(Ordering::SeqCst) + count;
        let enough = async {
            while self.asked.load(Ordering::SeqCst) < until {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, enough).await.expect("traffic goes on");
    }

    pub(super) async fn stop(self) -> (Vec<String>, Vec<String>) {
        self.stop.cancel();
        let (mut heard, mut failed) = (Vec::new(), Vec::new());
        for client in self.clients {
            let (h, f) = client.await.expect("no panic");
            heard.extend(h);
            failed.extend(f);
        }
        (heard, failed)
    }
}

/// The folder's path, for a second gateway in it.
pub(super) fn path(stage: &Stage) -> PathBuf {
    stage.folder.path().to_owned()
}
