//! The connections to the server: as many at the same time as the configuration allows, cut where nothing comes or nothing is
//! taken for too long. Not here: what is answered (`router`).

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::leftover::with_leftover;
use crate::{app::App, gateway::stall::WriteStall};

/// Bytes that a connection reads ahead, for the head of a request, and that it holds for an other end that takes them slowly:
/// of each of a thousand viewers.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes that the kernel holds for such an end; left to itself it takes megabytes for each.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Requests at the same time on one connection of HTTP/2.
const HTTP2_STREAMS_MAX: u32 = 100;
/// The pause after `accept` failed for want of memory or descriptors: nothing tells when there is some again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How long requests under way may take when the server ends. Streams never end by themselves: they are cut then.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Answers what comes to `listener` until `shutdown`; requests under way may finish.
pub async fn serve(app: Arc<App>, router: Router, listener: TcpListener, shutdown: CancellationToken) {
    let (open, cut) = (TaskTracker::new(), CancellationToken::new());
    // What is accepted inherits it.
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES) {
        tracing::warn!(%error, "the kernel chooses how much it holds for slow connections");
    }
    loop {
        let room = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            room = app.load().connection() => room,
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection { app: Arc::clone(&app), router: router.clone(), peer };
                let (leaving, cut) = (shutdown.clone(), cut.clone());
                open.spawn(async move {
                    let _room = room;
                    connection.serve(stream, leaving, cut).await;
                });
            }
            Err(error) => {
                drop(room);
                tracing::warn!(%error, "accepting a connection failed");
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    open.close();
    if tokio::time::timeout(END_WITHIN, open.wait()).await.is_err() {
        cut.cancel();
        open.wait().await;
    }
}

struct Connection {
    app: Arc<App>,
    router: Router,
    peer: SocketAddr,
}

impl Connection {
    async fn serve(self, stream: TcpStream, leaving: CancellationToken, cut: CancellationToken) {
        let bounds = &self.app.config.bounds;
        // A socket that refuses the option is about to fail anyway, and says so then.
        let _ = stream.set_nodelay(true);
        let stream = WriteStall::new(stream, Duration::from_millis(bounds.stream_stall_ms));
        let (app, peer, router) = (Arc::clone(&self.app), self.peer, self.router);
        let service = service_fn(move |request: Request<Incoming>| {
            let router = router.clone();
            let mut request = with_leftover(request, &app.config.bounds);
            async move {
                request.extensions_mut().insert(ConnectInfo(peer));
                router.oneshot(request).await.map_err(|error: Infallible| error)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        let idle = Duration::from_millis(bounds.connection_idle_ms);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(BUFFER_BYTES);
        let mut http2 = builder.http2();
        http2.timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS_MAX);
        http2.keep_alive_interval(Some(idle)).max_send_buf_size(BUFFER_BYTES);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = leaving.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    result = connection.as_mut() => result,
                    () = cut.cancelled() => return,
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(error, %peer, "a connection ended");
        }
    }
}
