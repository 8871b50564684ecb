//! A proxy in front of a real registry that breaks what it is told to break, asks for tokens where a test needs that,
//! and writes down what it saw.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use url::Url;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is done to a request instead of passing it on.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Answer it with this status, these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// Pass it on, and cut the connection after so many bytes of the answer.
    CutAnswer(usize),
    /// Pass it on, and stop after so many bytes of the answer; [`Proxy::stalled`] hears of it.
    StallAnswer(usize),
    /// Pass it on, and change one bit of the answer.
    FlipBit,
    /// Read so many bytes of the request, and cut the connection.
    CutRequest(usize),
    /// Read so many bytes of the request, let the registry keep them, and cut the connection.
    KeepAndCutRequest(usize),
    /// Pass it on, and cut the connection instead of answering.
    LoseAnswer,
    /// Pass it on without its wish to mount.
    ForgetMount,
}

/// Which requests an [`Act`] meets, and how often.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) method: Method,
    /// A part of the path.
    pub(super) path: String,
    pub(super) times: usize,
    pub(super) act: Act,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether it changes something at the registry.
    pub(super) fn is_write(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD)
    }
}

struct Shared {
    address: SocketAddr,
    upstream: String,
    http: reqwest::Client,
    faults: Mutex<Vec<Fault>>,
    seen: Mutex<Vec<Seen>>,
    /// The newest state of an upload that the client does not know, by the upload's path.
    states: Mutex<HashMap<String, String>>,
    /// User and password of the token service, where there is one.
    tokens: Option<(String, String)>,
    stalled: Notify,
}

/// A running proxy; it ends with the value.
pub(super) struct Proxy {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// A proxy in front of `upstream` (`http://127.0.0.1:PORT`).
    pub(super) async fn start(upstream: &str) -> Self {
        Self::serve(upstream, None).await
    }

    /// One that lets in only who has a token of its own token service.
    pub(super) async fn with_tokens(upstream: &str, user: &str, password: &str) -> Self {
        Self::serve(upstream, Some((user.to_owned(), password.to_owned()))).await
    }

    async fn serve(upstream: &str, tokens: Option<(String, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            upstream: upstream.to_owned(),
            http: tests::http_client(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            states: Mutex::default(),
            tokens,
            stalled: Notify::new(),
        });
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        let service = service_fn(move |request| Arc::clone(&shared).answer(request));
                        // A connection that a fault cuts ends in an error; that is its purpose.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            }
        });
        Self { shared, task }
    }

    pub(super) fn url(&self) -> Url {
        format!("http://{}", self.shared.address).parse().unwrap()
    }

    pub(super) fn fault(&self, method: Method, path: impl Into<String>, times: usize, act: Act) {
        self.shared.faults.lock().unwrap().push(Fault { method, path: path.into(), times, act });
    }

    /// How many faults have not happened as often as they should have.
    pub(super) fn faults_left(&self) -> usize {
        self.shared.faults.lock().unwrap().len()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Resolves once a [`Act::StallAnswer`] has stopped.
    pub(super) async fn stalled(&self) {
        self.shared.stalled.notified().await;
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        self.seen.lock().unwrap().push(Seen {
            method: parts.method.clone(),
            path: format!("{path}?{query}"),
            headers: parts.headers.clone(),
        });
        if let Some(answer) = self.guard(&parts.method, &path, &query, &parts.headers) {
            return Ok(answer);
        }
        let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>();
        match self.take_fault(&parts.method, &path) {
            Some(Act::Answer(status, headers, text)) => Ok(answer(status, &headers, text)),
            Some(Act::CutRequest(bytes)) => {
                take(body, bytes).await;
                Err(io::Error::other("cut"))
            }
            Some(Act::KeepAndCutRequest(bytes)) => {
                let kept = take(body, bytes).await;
                let pairs = pairs.into_iter().filter(|(key, _)| key != "digest").collect();
                let mut headers = HeaderMap::new();
                headers.extend(
                    parts.headers.get(header::AUTHORIZATION).map(|proof| (header::AUTHORIZATION, proof.clone())),
                );
                let patch = self.upstream(&Method::PATCH, &path, pairs, &headers);
                let stored = patch.body(kept).send().await.map_err(io::Error::other)?;
                assert_eq!(stored.status(), StatusCode::ACCEPTED, "the registry did not keep the piece");
                let location: Url = stored.headers()[header::LOCATION].to_str().unwrap().parse().unwrap();
                let state = location.query_pairs().find(|(key, _)| key == "_state").unwrap().1.into_owned();
                self.states.lock().unwrap().insert(path, state);
                Err(io::Error::other("cut"))
            }
            act => {
                let pairs = pairs.into_iter().filter(|(key, _)| {
                    !matches!(act, Some(Act::ForgetMount)) || !matches!(key.as_str(), "mount" | "from")
                });
                let mut upstream = self.upstream(&parts.method, &path, pairs.collect(), &parts.headers);
                if parts.headers.contains_key(header::CONTENT_LENGTH) {
                    upstream = upstream.body(reqwest::Body::wrap_stream(body.into_data_stream()));
                }
                let response = upstream.send().await.map_err(io::Error::other)?;
                if matches!(act, Some(Act::LoseAnswer)) {
                    return Err(io::Error::other("cut"));
                }
                let mut head = Response::builder().status(response.status());
                for (name, value) in response.headers() {
                    if !matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING) {
                        head = head.header(name, value);
                    }
                }
                let bytes = response.bytes_stream().map_err(io::Error::other);
                Ok(head.body(self.broken(bytes, act)).unwrap())
            }
        }
    }

    fn upstream(
        &self,
        method: &Method,
        path: &str,
        mut pairs: Vec<(String, String)>,
        headers: &HeaderMap,
    ) -> reqwest::RequestBuilder {
        if let Some(state) = self.states.lock().unwrap().get(path) {
            for (_, value) in pairs.iter_mut().filter(|(key, _)| key == "_state") {
                value.clone_from(state);
            }
        }
        let mut url: Url = format!("{}{path}", self.upstream).parse().unwrap();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        let mut headers = headers.clone();
        if self.tokens.is_some() {
            headers.remove(header::AUTHORIZATION);
        }
        // The registry writes the addresses of uploads with the host that it is called by.
        headers.insert(header::HOST, self.address.to_string().parse().unwrap());
        self.http.request(method.clone(), url).headers(headers)
    }

    fn take_fault(&self, method: &Method, path: &str) -> Option<Act> {
        let mut faults = self.faults.lock().unwrap();
        let at = faults.iter().position(|fault| fault.method == *method && path.contains(&fault.path))?;
        let act = faults[at].act.clone();
        faults[at].times -= 1;
        if faults[at].times == 0 {
            faults.remove(at);
        }
        Some(act)
    }

    fn broken(
        self: &Arc<Self>,
        bytes: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
        act: Option<Act>,
    ) -> Body {
        let shared = Arc::clone(self);
        match act {
            Some(Act::CutAnswer(limit)) => {
                boxed(first(bytes, limit).chain(stream::once(async { Err(io::Error::other("cut")) })))
            }
            Some(Act::StallAnswer(limit)) => {
                let stall = stream::once(async move {
                    shared.stalled.notify_one();
                    std::future::pending().await
                });
                boxed(first(bytes, limit).chain(stall))
            }
            Some(Act::FlipBit) => {
                let mut is_done = false;
                boxed(bytes.map_ok(move |piece| {
                    let mut piece = piece.to_vec();
                    if !std::mem::replace(&mut is_done, true) {
                        let middle = piece.len() / 2;
                        piece[middle] ^= 1;
                    }
                    Bytes::from(piece)
                }))
            }
            _ => boxed(bytes),
        }
    }

    /// The token service and the gate that asks for its tokens. A token is the scopes that it is for.
    fn guard(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        let (user, password) = self.tokens.as_ref()?;
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let all = |name: &str| {
            let values = pairs.iter().filter(|(key, _)| key == name);
            values.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        if path == "/token" {
            use base64::Engine as _;
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            if sent != format!("Basic {basic}") {
                return Some(answer(401, &[], "wrong password"));
            }
            let token = hex::encode(all("scope").join(" "));
            let body = serde_json::json!({"token": token, "expires_in": 300}).to_string();
            return Some(Response::new(boxed(stream::once(async { Ok(Bytes::from(body)) }))));
        }
        let token = hex::decode(sent.strip_prefix("Bearer ").unwrap_or_default()).unwrap_or_default();
        let granted = String::from_utf8(token).unwrap_or_default();
        let repository = path.trim_start_matches("/v2/");
        let repository = ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
            .iter()
            .find_map(|word| repository.split_once(word))
            .map_or("", |(name, _)| name);
        let action = if matches!(*method, Method::GET | Method::HEAD) { "pull" } else { "push" };
        let has = |repository: &str, action: &str| {
            granted
                .split(' ')
                .filter_map(|scope| scope.strip_prefix(&format!("repository:{repository}:")))
                .any(|actions| actions.split(',').any(|granted| granted == action))
        };
        let is_let_in = !granted.is_empty()
            && (repository.is_empty() || has(repository, action))
            && all("from").iter().all(|from| has(from, "pull"));
        if is_let_in {
            return None;
        }
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"registry\"", self.address);
        Some(answer(401, &[("www-authenticate", challenge)], ""))
    }
}

fn answer(status: u16, headers: &[(&'static str, String)], text: &'static str) -> Response<Body> {
    let mut head = Response::builder().status(status);
    for (name, value) in headers {
        head = head.header(*name, value);
    }
    let never = |never: Infallible| match never {};
    head.body(Full::new(Bytes::from(text)).map_err(never).boxed_unsync()).unwrap()
}

fn boxed(bytes: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static) -> Body {
    StreamBody::new(bytes.map_ok(Frame::data)).boxed_unsync()
}

/// The first bytes of a stream.
fn first(
    bytes: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
    limit: usize,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static {
    let mut left = limit;
    bytes
        .map_ok(move |piece| {
            let piece = piece.slice(..piece.len().min(left));
            left -= piece.len();
            piece
        })
        .take_while(|piece| std::future::ready(piece.as_ref().is_ok_and(|piece| !piece.is_empty())))
}

/// The first bytes of a request.
async fn take(body: Incoming, limit: usize) -> Bytes {
    let mut kept = Vec::new();
    let mut pieces = body.into_data_stream();
    while kept.len() < limit
        && let Some(Ok(piece)) = pieces.next().await
    {
        kept.extend_from_slice(&piece[..piece.len().min(limit - kept.len())]);
    }
    kept.into()
}
