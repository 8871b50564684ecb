//! What is left of a request's body when its answer is known: read and thrown away, within bounds.
//!
//! A client that is still sending when the connection is closed hears that its connection broke, not the answer (RFC 9112,
//! section 9.6). A forge would then say "broken pipe" where the server said that the hook is too large.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, header},
};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};

use crate::config::Bounds;

/// The request with a body of which the rest is let come, however early its handler is done with it.
pub(super) fn with_leftover(request: Request<Incoming>, bounds: &Bounds) -> Request<Body> {
    // Who waits to be asked for the body reads the answer first (`expect: 100-continue`).
    if request.headers().contains_key(header::EXPECT) {
        return request.map(Body::new);
    }
    let (bytes_max, time) = (bounds.leftover_bytes_max, Duration::from_millis(bounds.leftover_ms));
    request.map(|body| Body::new(Leftover { body: Some(body), bytes_max, time }))
}

/// A body whose rest is read when it is dropped.
struct Leftover {
    /// Until it is dropped.
    body: Option<Incoming>,
    bytes_max: u64,
    time: Duration,
}

impl HttpBody for Leftover {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        // The end of what is larger than is read anyhow would not be reached.
        let worth = |body: &Incoming| !body.is_end_stream() && body.size_hint().lower() <= self.bytes_max;
        let Some(mut body) = self.body.take().filter(worth) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut left = self.bytes_max;
        runtime.spawn(tokio::time::timeout(self.time, async move {
            while let Some(Ok(frame)) = body.frame().await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let Some(less) = left.checked_sub(bytes as u64) else { return };
                left = less;
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };
    use tokio_util::sync::CancellationToken;

    use crate::{
        http::{connections::serve, router::router},
        testing::test_app_with,
    };

    /// More than the kernel holds for both ends: the sender is not done before somebody reads.
    const SENT: usize = 24 << 20;

    /// Sends a hook that is too large, and gives what is answered; an error where the connection broke.
    async fn send(stream: &mut TcpStream) -> io::Result<String> {
        let head =
            format!("POST /hooks/shop HTTP/1.1\r\nhost: x\r\nx-gitea-event: push\r\ncontent-length: {SENT}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        for _ in 0..SENT >> 20 {
            stream.write_all(&vec![b' '; 1 << 20]).await?;
        }
        let mut heard = Vec::new();
        while !heard.ends_with(b"}") {
            if stream.read_buf(&mut heard).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }

    /// Sends two of them on one connection to a server that reads so much of what it has answered.
    async fn send_two(leftover_bytes_max: usize) -> io::Result<[String; 2]> {
        let stage = test_app_with(|config| config.bounds.leftover_bytes_max = leftover_bytes_max as u64);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(stage.app.clone(), router(stage.app.clone()), listener, shutdown.clone()));
        let mut stream = TcpStream::connect(address).await?;
        let heard = async { Ok([send(&mut stream).await?, send(&mut stream).await?]) }.await;
        drop(stream);
        shutdown.cancel();
        serving.await?;
        heard
    }

    #[tokio::test]
    async fn a_sender_of_too_much_hears_so_and_may_go_on() {
        for heard in send_two(SENT).await.unwrap() {
            assert!(heard.starts_with("HTTP/1.1 413") && heard.contains("\"too-large\""), "{heard}");
        }
    }

    #[tokio::test]
    async fn what_is_left_is_not_read_beyond_the_bound() {
        send_two(SENT - 1).await.unwrap_err();
    }
}
