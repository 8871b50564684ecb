//! The control side as its caller sees it: typed calls over the gateway's Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::control::{Drained, Health, InForce, Refusal};
use super::keep::Generation;
use super::stats::GatewayStats;

/// Time for a call that waits for nothing. Taking a configuration flushes a file.
const CALL: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Calls the gateway. Cheap to make and to clone; each call has a connection of its own, so a
/// gateway that was replaced is found by the next call. All calls may be repeated.
#[derive(Debug, Clone)]
pub struct GatewayClient {
    socket: PathBuf,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No gateway answers at the socket. Whether a configuration was taken is not known; offer it
    /// again.
    #[error("reach the gateway at {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer generation, or another content under the same number, is in force.
    #[error("have the gateway take a generation: {}", refusal.error)]
    Conflict {
        /// What the gateway said.
        refusal: Refusal,
    },
    /// The gateway refused; what was in force stays. Repeating it does not help.
    #[error("have the gateway take it: {}{}", refusal.error, listed(&refusal.problems))]
    Refused {
        /// What the gateway said.
        refusal: Refusal,
    },
    /// The gateway could not do it now; what was in force stays.
    #[error("have the gateway do it now: {}", refusal.error)]
    Failed {
        /// What the gateway said.
        refusal: Refusal,
    },
    /// What came back is not what a gateway of this version says.
    #[error("understand the gateway's answer")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn listed(problems: &[String]) -> String {
    problems.iter().map(|p| format!("; {p}")).collect()
}

impl GatewayClient {
    /// A client of the gateway whose folder this is (`GatewayOptions::folder`).
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { socket: super::control_socket(folder) }
    }

    /// Has a configuration taken. When this returns, every new request follows it, and it survives
    /// a restart of the gateway.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] for an older generation, [`ClientError::Refused`] for an invalid one.
    pub async fn put_config(&self, generation: &Generation) -> Result<InForce, ClientError> {
        self.call(Method::PUT, "/v1/config", Some(generation), CALL).await
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// When the gateway cannot be reached.
    pub async fn config(&self) -> Result<Generation, ClientError> {
        self.read("/v1/config").await
    }

    /// The counters.
    ///
    /// # Errors
    /// When the gateway cannot be reached.
    pub async fn stats(&self) -> Result<GatewayStats, ClientError> {
        self.read("/v1/stats").await
    }

    /// How the gateway is.
    ///
    /// # Errors
    /// When the gateway cannot be reached.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.read("/v1/healthz").await
    }

    /// Waits for the end of the gateway, however it comes: the kernel closes what a dead process had open.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn ended(&self) -> std::io::Result<()> {
        // Nothing is asked on this connection, so nothing is answered.
        UnixStream::connect(&self.socket).await?.read_u8().await.map(drop).or(Ok(()))
    }

    /// Waits until no request of a revision that left the table is in flight, or until `wait` is
    /// over; see [`Drained::state`] for which.
    ///
    /// # Errors
    /// When the gateway cannot be reached.
    pub async fn drain(&self, revision: &str, wait: Duration) -> Result<Drained, ClientError> {
        let id: String = url::form_urlencoded::byte_serialize(revision.as_bytes()).collect();
        let path = format!("/v1/revisions/{id}/drain?timeout_ms={}", wait.as_millis());
        self.call::<(), _>(Method::GET, &path, None, wait + CALL).await
    }

    async fn read<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.call::<(), A>(Method::GET, path, None, CALL).await
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Q>,
        within: Duration,
    ) -> Result<A, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| ClientError::Answer(e.into()))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "gateway")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| ClientError::Answer(e.into()))?;
        let unreachable = |source| ClientError::Unreachable { socket: self.socket.clone(), source };
        let (status, bytes) = tokio::time::timeout(within, self.exchange(request))
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| ClientError::Answer(e.into()));
        }
        let refusal: Refusal = serde_json::from_slice(&bytes).map_err(|e| ClientError::Answer(e.into()))?;
        Err(match status {
            StatusCode::CONFLICT => ClientError::Conflict { refusal },
            status if status.is_client_error() => ClientError::Refused { refusal },
            _ => ClientError::Failed { refusal },
        })
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
            Ok((status, body.collect().await?.to_bytes()))
        };
        // The connection is driven here, and so ends with the call.
        let (mut connection, mut exchange) = (std::pin::pin!(connection), std::pin::pin!(exchange));
        tokio::select! {
            result = &mut exchange => result,
            ended = &mut connection => {
                ended?;
                exchange.await
            }
        }
    }
}
