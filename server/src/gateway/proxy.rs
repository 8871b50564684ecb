//! The way of one request: its host, its revision, a backend, the answer. Connections are made in
//! `upstream`, the choice of the revision in `table`.
//!
//! What is tried again, and when: a request of which nothing was sent goes to the revision's next
//! backend and then to the route's fallback, and where all of these refuse connections it waits for them, without an error
//! of the revision; a request that was sent and lost before any byte of its answer goes once more to the same revision if it
//! is idempotent and has no body. Nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, timeout_at};

use super::body::{Answer, ClientFault, Outgoing, Progress};
use super::config::Limits;
use super::gate::Gate;
use super::headers::{self, Host};
use super::pages::{self, Reason};
use super::stats::Failure;
use super::table::{Pick, Ticket};
use super::tunnel;
use super::upstream::{ConnectError, Lease, Reuse};

/// First and longest pause before backends that all refused are tried again.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
const REFUSED_PAUSE_MAX: Duration = Duration::from_millis(200);

/// Answers one request. Never fails: what goes wrong is an answer of our own.
pub(super) async fn serve(gate: Arc<Gate>, peer: SocketAddr, request: Request<Incoming>) -> Response<Answer> {
    let id = headers::request_id(request.headers());
    let accept = accepts(request.headers());
    let host = headers::host_of(&request);
    let name = host.as_ref().map_or_else(String::new, |h| h.name.clone());
    let mut response = match forward(&gate, peer, request, host, &id).await {
        Ok(response) => response,
        Err(reason) => pages::answer(reason, &name, id.to_str().unwrap_or(""), &accept),
    };
    response.headers_mut().insert(headers::REQUEST_ID, id);
    if gate.closing.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// The part of a request's head that a page of our own needs.
fn accepts(headers: &HeaderMap) -> HeaderMap {
    let values = headers.get_all(header::ACCEPT).iter();
    values.map(|v| (header::ACCEPT, v.clone())).collect()
}

async fn forward(
    gate: &Arc<Gate>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
    host: Option<Host>,
    id: &HeaderValue,
) -> Result<Response<Answer>, Reason> {
    let limits = gate.table.limits();
    let refuse = |reason| {
        gate.table.refused();
        Err(reason)
    };
    let Some(host) = host else {
        return refuse(Reason::NoHost);
    };
    if request.method() == Method::CONNECT {
        return refuse(Reason::MethodRefused);
    }
    if request.body().size_hint().lower() > limits.max_request_body_bytes {
        return refuse(Reason::BodyTooLarge);
    }
    let ticket = match gate.table.pick(&host.name) {
        Pick::Unknown => return Err(Reason::UnknownHost),
        Pick::Nothing => return Err(Reason::NothingLive),
        Pick::Revision(ticket) => ticket,
    };
    let protocol = headers::upgrade_of(&request);
    let client = protocol.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let mut fields = head.headers;
    headers::strip_hop_by_hop(&mut fields);
    // hyper has answered the expectation itself by reading the body.
    fields.remove(header::EXPECT);
    headers::forward(&mut fields, peer.ip(), &host, gate.table.trusts(peer.ip()));
    fields.insert(headers::REQUEST_ID, id.clone());
    if let Some(protocol) = protocol {
        let upgrade = HeaderValue::from_static("upgrade");
        fields.insert(header::CONNECTION, upgrade);
        fields.insert(header::UPGRADE, protocol);
    }
    let progress = Arc::new(Progress::new());
    let body = Outgoing::new(body, limits.max_request_body_bytes, limits.body_idle_timeout(), Arc::clone(&progress));
    let exchange = Exchange {
        gate,
        host: &host.name,
        // CONNECT is refused above, so a target has a path, or is the `*` of OPTIONS.
        target: match head.uri.into_parts().path_and_query {
            Some(path) => Uri::from(path),
            None => Uri::from_static("/"),
        },
        resendable: matches!(body, Outgoing::Empty) && head.method.is_idempotent(),
        method: head.method,
        fields,
        progress,
        limits: &limits,
    };
    let received = exchange.run(ticket, body).await?;
    exchange.answer(received, client)
}

/// One request on its way.
struct Exchange<'a> {
    gate: &'a Arc<Gate>,
    host: &'a str,
    method: Method,
    target: Uri,
    fields: HeaderMap,
    resendable: bool,
    progress: Arc<Progress>,
    limits: &'a Limits,
}

/// A head that came back, and what it came over.
struct Received {
    ticket: Ticket,
    lease: Lease,
    response: Response<Incoming>,
}

/// Why no head came back over a connection.
enum Lost {
    /// Nothing was sent: here is the body again.
    Unsent(Outgoing),
    /// Something was sent, nothing came back.
    Sent,
    /// What came back is not HTTP.
    Malformed,
    /// Nothing came back in time.
    Timeout,
    /// The client's body failed.
    Client(ClientFault),
}

impl Exchange<'_> {
    /// Gets the head of an answer from the revision, or from the fallback.
    async fn run(&self, mut ticket: Ticket, mut body: Outgoing) -> Result<Received, Reason> {
        let (began, mut pause) = (Instant::now(), REFUSED_PAUSE);
        // The revision that was chosen and took nothing, while its fallback is tried.
        let mut chosen: Option<Ticket> = None;
        loop {
            let (failure, reason, unsent) = match self.run_on(&mut ticket, body).await {
                Ok((lease, response)) => {
                    if let Some(mut chosen) = chosen {
                        chosen.failed(Failure::Connect);
                        chosen.counters.fell_back();
                    }
                    return Ok(Received { ticket, lease, response });
                }
                Err(error) => error,
            };
            // At most once: the fallback has no fallback.
            let next = unsent.as_ref().and_then(|_| self.gate.table.fallback(self.host, &ticket.revision.id));
            let may_wait = reason == Reason::Unreachable && began.elapsed() + pause <= self.limits.refused_wait();
            match (unsent, next) {
                (Some(unsent), Some(next)) => {
                    chosen = Some(std::mem::replace(&mut ticket, next));
                    body = unsent;
                }
                // All of them refuse: that is the engine's doing, not that of one revision.
                (Some(unsent), None) if may_wait => {
                    if let Some(chosen) = chosen.take() {
                        std::mem::replace(&mut ticket, chosen).spare();
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(REFUSED_PAUSE_MAX);
                    body = unsent;
                }
                _ => {
                    if let Some(mut chosen) = chosen {
                        chosen.failed(Failure::Connect);
                    }
                    if let Some(failure) = failure {
                        ticket.failed(failure);
                    }
                    return Err(reason);
                }
            }
        }
    }

    /// Gets the head of an answer from this revision, over one connection after the other. An error
    /// says what to count, what to answer, and gives the body back if nothing was sent.
    async fn run_on(
        &self,
        ticket: &mut Ticket,
        mut body: Outgoing,
    ) -> Result<(Lease, Response<Incoming>), (Option<Failure>, Reason, Option<Outgoing>)> {
        let revision = Arc::clone(&ticket.revision);
        let mut backends = revision.backends();
        // Where to go when a sent request is lost and there is no further backend.
        let all = backends.clone();
        let mut backend = backends.next();
        let mut attempts = self.limits.max_attempts;
        let mut reuse = if self.resendable { Reuse::Any } else { Reuse::Recent };
        let mut resent = false;
        let mut reason = Reason::Unreachable;
        while let Some(here) = backend
            && attempts > 0
        {
            attempts -= 1;
            let lease = match here.lease(self.limits, reuse).await {
                Ok(lease) => lease,
                Err(error) => {
                    tracing::debug!(revision = revision.id, backend = %here.address, %error, "no connection");
                    ticket.counters.connect_failed();
                    reason = match error {
                        ConnectError::Timeout(_) => Reason::ConnectTimeout,
                        ConnectError::Refused(_) | ConnectError::Handshake(_) => Reason::Unreachable,
                    };
                    backend = backends.next();
                    if backend.is_some() && attempts > 0 {
                        ticket.counters.retried();
                    }
                    continue;
                }
            };
            let kept = lease.kept;
            match self.send(lease, body).await {
                Ok(received) => return Ok(received),
                Err(Lost::Unsent(unsent)) => {
                    body = unsent;
                    if kept {
                        // It was closed while unused: no attempt at all, and a new one is next.
                        attempts += 1;
                        reuse = Reuse::Never;
                    } else {
                        ticket.counters.connect_failed();
                        backend = backends.next();
                    }
                }
                Err(Lost::Sent) if self.resendable && !resent && attempts > 0 => {
                    resent = true;
                    ticket.counters.retried();
                    reuse = Reuse::Never;
                    body = Outgoing::Empty;
                    // A kept connection most likely was just being closed: the backend is well.
                    if !kept {
                        backend = backends.next().or_else(|| all.clone().next());
                    }
                }
                Err(Lost::Sent | Lost::Malformed) => {
                    return Err((Some(Failure::Broken), Reason::BrokenAnswer, None));
                }
                Err(Lost::Timeout) => {
                    return Err((Some(Failure::Timeout), Reason::AnswerTimeout, None));
                }
                Err(Lost::Client(fault)) => {
                    let reason = match fault {
                        ClientFault::Broken => Reason::ClientBroken,
                        ClientFault::Idle => Reason::ClientStalled,
                        ClientFault::TooLarge => Reason::BodyTooLarge,
                    };
                    // The client's doing: it is counted as its abort when the ticket drops.
                    return Err((None, reason, None));
                }
            }
        }
        Err((Some(Failure::Connect), reason, Some(body)))
    }

    /// Sends the request over one connection and waits for the head of the answer.
    async fn send(&self, mut lease: Lease, body: Outgoing) -> Result<(Lease, Response<Incoming>), Lost> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.fields.clone();
        let mut answer = std::pin::pin!(lease.sender.try_send_request(request));
        let result = loop {
            // Waiting begins with the last byte of the request; while bytes go out, the body has a
            // timer of its own, and a backend that does not take them is bounded by both.
            let span = if self.progress.ended() {
                self.limits.response_header_timeout()
            } else {
                self.limits.response_header_timeout() + self.limits.body_idle_timeout()
            };
            let until = self.progress.last() + span;
            match timeout_at(until, &mut answer).await {
                Ok(result) => break result,
                Err(_) if self.progress.last() + span > Instant::now() => {}
                Err(_) => return Err(Lost::Timeout),
            }
        };
        match result {
            Ok(response) => Ok((lease, response)),
            Err(mut error) => Err(match error.take_message() {
                Some(request) => Lost::Unsent(request.into_body()),
                None => match self.progress.fault() {
                    Some(fault) => Lost::Client(fault),
                    None => {
                        let error = error.into_error();
                        tracing::debug!(%error, host = self.host, "no answer");
                        if error.is_parse() { Lost::Malformed } else { Lost::Sent }
                    }
                },
            }),
        }
    }

    /// Makes the client's answer of the backend's.
    fn answer(&self, received: Received, client: Option<OnUpgrade>) -> Result<Response<Answer>, Reason> {
        let Received { mut ticket, lease, mut response } = received;
        let status = response.status();
        let switched = status == StatusCode::SWITCHING_PROTOCOLS;
        if switched && client.is_none() {
            // It changed to a protocol that nobody asked for.
            ticket.failed(Failure::Broken);
            return Err(Reason::BrokenAnswer);
        }
        ticket.answered(status.as_u16(), self.progress.last().elapsed());
        let protocol = response.headers().get(header::UPGRADE).cloned();
        headers::strip_hop_by_hop(response.headers_mut());
        response.headers_mut().remove(pages::REASON);
        if let Some(client) = client.filter(|_| switched) {
            let upgrade = HeaderValue::from_static("upgrade");
            response.headers_mut().insert(header::CONNECTION, upgrade);
            if let Some(protocol) = protocol {
                response.headers_mut().insert(header::UPGRADE, protocol);
            }
            let backend = hyper::upgrade::on(&mut response);
            let idle = self.limits.tunnel_idle_timeout();
            tunnel::start(self.gate, client, backend, ticket, idle);
            return Ok(response.map(|_| Answer::Own(None)));
        }
        let idle = self.limits.body_idle_timeout();
        let code = status.as_u16();
        Ok(response.map(|body| Answer::new(body, code, idle, ticket, lease)))
    }
}
