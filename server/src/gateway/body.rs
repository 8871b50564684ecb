//! Bodies on their way through: streamed frame by frame, counted and timed, never collected.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep};

use super::table::Ticket;
use super::upstream::Lease;

/// Why a body broke off.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    #[error("read the body")]
    Read(#[source] hyper::Error),
    #[error("read a byte of the body in {0:?}")]
    Idle(Duration),
    #[error("take a body of more than {0} bytes")]
    TooLarge(u64),
}

/// What the side that waits for an answer must know of the request's body.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    last_us: AtomicU64,
    ended: AtomicBool,
    fault: AtomicU8,
}

/// What the client did wrong with its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientFault {
    Broken,
    Idle,
    TooLarge,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            last_us: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            fault: AtomicU8::new(0),
        }
    }

    pub(super) fn moved(&self) {
        let us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_us.store(us, Relaxed);
    }

    fn end(&self) {
        self.moved();
        self.ended.store(true, Relaxed);
    }

    /// When the last byte went through.
    pub(super) fn last(&self) -> Instant {
        self.began + Duration::from_micros(self.last_us.load(Relaxed))
    }

    /// Whether the whole request is on its way.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    fn blame(&self, error: &BodyError) {
        let fault = match error {
            BodyError::Read(_) => 1,
            BodyError::Idle(_) => 2,
            BodyError::TooLarge(_) => 3,
        };
        self.fault.store(fault, Relaxed);
    }

    pub(super) fn fault(&self) -> Option<ClientFault> {
        match self.fault.load(Relaxed) {
            0 => None,
            2 => Some(ClientFault::Idle),
            3 => Some(ClientFault::TooLarge),
            _ => Some(ClientFault::Broken),
        }
    }
}

/// Runs out when a body gives nothing for a while.
#[derive(Debug)]
struct IdleTimer {
    span: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl IdleTimer {
    fn new(span: Duration) -> Self {
        Self { span, sleep: None, armed: false }
    }

    fn moved(&mut self) {
        self.armed = false;
    }

    fn poll_waited(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let span = self.span;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(span)));
        if !self.armed {
            sleep.as_mut().reset(Instant::now() + span);
            self.armed = true;
        }
        sleep.as_mut().poll(cx)
    }
}

/// A request's body on its way to a backend.
#[derive(Debug)]
pub(super) enum Outgoing {
    Empty,
    Client(Box<ClientBody>),
}

/// The body that a client sends.
#[derive(Debug)]
pub(super) struct ClientBody {
    inner: Incoming,
    most: u64,
    left: u64,
    idle: IdleTimer,
    progress: Arc<Progress>,
}

impl Outgoing {
    pub(super) fn new(inner: Incoming, most: u64, idle: Duration, progress: Arc<Progress>) -> Self {
        if inner.is_end_stream() {
            progress.end();
            return Self::Empty;
        }
        Self::Client(Box::new(ClientBody { inner, most, left: most, idle: IdleTimer::new(idle), progress }))
    }
}

impl ClientBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.idle.poll_waited(cx));
                return Poll::Ready(Some(Err(BodyError::Idle(self.idle.span))));
            }
        };
        self.idle.moved();
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(length) {
                    Some(left) => {
                        self.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err(BodyError::TooLarge(self.most))),
                }
            }
            Some(Err(error)) => Some(Err(BodyError::Read(error))),
            None => None,
        })
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Client(body) = self.get_mut() else {
            return Poll::Ready(None);
        };
        let next = ready!(body.poll_next(cx));
        match &next {
            Some(Ok(_)) => {
                body.progress.moved();
                if body.inner.is_end_stream() {
                    body.progress.end();
                }
            }
            Some(Err(error)) => body.progress.blame(error),
            None => body.progress.end(),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.inner.size_hint(),
        }
    }
}

/// An answer's body on its way to a client.
#[derive(Debug)]
pub(super) enum Answer {
    /// A page of our own, or nothing.
    Own(Option<Bytes>),
    /// What a backend sends.
    Backend(Box<BackendBody>),
}

/// The body that a backend sends. Holds the request's ticket until its last byte.
#[derive(Debug)]
pub(super) struct BackendBody {
    inner: Incoming,
    status: u16,
    idle: IdleTimer,
    held: Option<(Ticket, Lease)>,
}

impl Answer {
    pub(super) fn new(inner: Incoming, status: u16, idle: Duration, ticket: Ticket, lease: Lease) -> Self {
        if inner.is_end_stream() {
            lease.give_back();
            return Self::Own(None);
        }
        Self::Backend(Box::new(BackendBody { inner, status, idle: IdleTimer::new(idle), held: Some((ticket, lease)) }))
    }
}

impl BackendBody {
    fn ended(&mut self) {
        if let Some((ticket, lease)) = self.held.take() {
            lease.give_back();
            drop(ticket);
        }
    }

    fn broke_off(&mut self) {
        if let Some((ticket, lease)) = self.held.take() {
            ticket.counters.broke_off(self.status);
            // Dropping it closes the connection.
            drop(lease);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = match self.get_mut() {
            Self::Own(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Backend(body) => body,
        };
        let frame = match Pin::new(&mut body.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(body.idle.poll_waited(cx));
                body.broke_off();
                return Poll::Ready(Some(Err(BodyError::Idle(body.idle.span))));
            }
        };
        body.idle.moved();
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                // The last frame may be the last poll: hyper stops when the length is reached.
                if body.inner.is_end_stream() {
                    body.ended();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                body.broke_off();
                Some(Err(BodyError::Read(error)))
            }
            None => {
                body.ended();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Backend(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Backend(body) => body.inner.size_hint(),
        }
    }
}
