//! The client of one registry: its settings, one HTTP exchange with authentication, redirects and retries. The calls of
//! the distribution protocol are in `calls`, tokens in `auth`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::{Body, Response};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use url::Url;

use crate::{outgoing::Outgoing, retry_after::retry_after};

use super::{
    auth::{Auth, Proof},
    error::RegistryError,
    reference::Repository,
    retry::Patience,
};

/// How many redirects of one read are followed.
const REDIRECTS_MAX: usize = 5;
/// How much of an error's body is read, and how much of it is shown.
const ERROR_BODY_MAX_BYTES: u64 = 64 * 1024;
const WORDS_MAX_CHARS: usize = 400;

/// Who we are at a registry.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The name, such as `robot$shop+windlass` on Harbor.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// The bounds of a [`RegistryClient`].
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// How often one call is tried, the first time included.
    pub attempts: u32,
    /// The wait before the second try; it doubles from there, with jitter.
    pub backoff_min_ms: u64,
    /// The longest wait between two tries.
    pub backoff_max_ms: u64,
    /// The longest `Retry-After` that is waited for inside a call; a longer one is given back to the caller.
    pub retry_after_max_ms: u64,
    /// How long a connection may take to come up.
    pub connect_timeout_ms: u64,
    /// How long a registry may take to answer a call that sends no blob.
    pub answer_timeout_ms: u64,
    /// How long a blob's connection may stand still, on either side.
    pub idle_timeout_ms: u64,
    /// How long a registry may take to answer after the last byte of a blob (it hashes and moves it then).
    pub commit_timeout_ms: u64,
    /// The largest manifest, referrers list or tags page, in bytes.
    pub manifest_max_bytes: u64,
    /// How many pages of a list are read.
    pub list_pages_max: usize,
    /// How many blobs move from or to this registry at once, over all promotions that share the client.
    pub parallel_transfers: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            attempts: 5,
            backoff_min_ms: 200,
            backoff_max_ms: 10_000,
            retry_after_max_ms: 60_000,
            connect_timeout_ms: 10_000,
            answer_timeout_ms: 60_000,
            idle_timeout_ms: 60_000,
            commit_timeout_ms: 600_000,
            manifest_max_bytes: 4 * 1024 * 1024,
            list_pages_max: 100,
            parallel_transfers: 6,
        }
    }
}

/// Where a registry is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// `https://host[:port]`, or `http://…` for a registry without TLS. No path.
    pub endpoint: Url,
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Who we are; without them the registry is used anonymously.
    pub credentials: Option<Credentials>,
    /// The bounds.
    pub limits: ClientLimits,
    /// Where the registry may lead, and which addresses are not called.
    pub outgoing: Outgoing,
}

impl RegistryConfig {
    /// An anonymous client of the registry at `endpoint`, with the default bounds.
    #[must_use]
    pub fn new(endpoint: Url) -> Self {
        Self {
            endpoint,
            ca_pem: None,
            credentials: None,
            limits: ClientLimits::default(),
            outgoing: Outgoing::default(),
        }
    }

    /// The same with credentials.
    #[must_use]
    pub fn with_credentials(mut self, username: impl Into<String>, password: SecretString) -> Self {
        self.credentials = Some(Credentials { username: username.into(), password });
        self
    }
}

/// The client of one registry. Clones share connections, tokens and bounds, so there should be one per registry. All
/// calls may run at once; each is retried within [`ClientLimits`] where repeating it is harmless.
#[derive(Clone)]
pub struct RegistryClient {
    pub(super) inner: Arc<Inner>,
}

/// What the clones share.
pub(super) struct Inner {
    pub(super) http: reqwest::Client,
    pub(super) endpoint: Url,
    pub(super) host: String,
    pub(super) auth: Auth,
    pub(super) limits: ClientLimits,
    pub(super) transfers: Arc<Semaphore>,
    pub(super) outgoing: Outgoing,
}

/// What a call may do, in the words of the token specification.
#[derive(Clone, Debug)]
pub(super) enum Access {
    Pull(Repository),
    PullPush(Repository),
    Delete(Repository),
    Mount { from: Repository, to: Repository },
}

/// One exchange with the registry, apart from a streamed body.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) access: Access,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What it is about, for errors: `tag v1 of shop/checkout at host`.
    pub(super) what: String,
}

impl Call {
    pub(super) fn new(method: Method, url: Url, access: Access, what: String) -> Self {
        Self { method, url, access, headers: HeaderMap::new(), body: Bytes::new(), what }
    }
}

impl std::fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryClient").field("endpoint", &self.inner.endpoint.as_str()).finish_non_exhaustive()
    }
}

impl RegistryClient {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] where the endpoint is not a plain `http(s)://host[:port]` or the certificates cannot
    /// be read.
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let settings = |why: String| RegistryError::Settings { why };
        let RegistryConfig { endpoint, ca_pem, credentials, limits, outgoing } = config;
        let Some(name) = endpoint.host_str() else {
            return Err(settings("the endpoint has no host".to_owned()));
        };
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(settings("the endpoint must start with https:// or http://".to_owned()));
        }
        if !matches!(endpoint.path(), "" | "/") || endpoint.query().is_some() || !endpoint.username().is_empty() {
            return Err(settings("the endpoint must be https://host[:port] and nothing more".to_owned()));
        }
        let host = endpoint.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let http = outgoing.http_client(&endpoint, ca_pem.as_deref(), |builder| {
            // Several blobs at a time: over one connection of HTTP/2 they would share a window that registries keep small
            // (1 MB in Go's server), which over 20 ms is a tenth of what a connection for each brings.
            builder.http1_only().connect_timeout(Duration::from_millis(limits.connect_timeout_ms))
        });
        let http = http.map_err(settings)?;
        let transfers = Arc::new(Semaphore::new(limits.parallel_transfers.max(1)));
        let auth = Auth::new(credentials);
        Ok(Self { inner: Arc::new(Inner { http, endpoint, host, auth, limits, transfers, outgoing }) })
    }

    /// The host and port, as they stand in a [`super::Reference`].
    #[must_use]
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    /// Whether both speak to the same registry, so that blobs can be mounted.
    #[must_use]
    pub fn is_same_registry(&self, other: &Self) -> bool {
        self.inner.endpoint.origin() == other.inner.endpoint.origin()
    }

    /// The address of a path below `/v2/`.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.inner.endpoint.clone();
        url.set_path(&format!("/v2/{path}"));
        url
    }

    /// Sends a call, again where that is harmless and useful, and gives a successful answer.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, RegistryError> {
        let mut patience = Patience::new(&self.inner.limits);
        loop {
            match self.inner.attempt(call).await {
                Ok(response) => return Ok(response),
                Err(error) => patience.wait(error).await?,
            }
        }
    }

    /// Sends a call whose body is a stream: once, and without a limit of time, which the sender of the stream keeps.
    pub(super) async fn send_stream(&self, call: &Call, body: Body) -> Result<Response, RegistryError> {
        let proof = self.inner.proof(&call.access).await?;
        let response = self.inner.execute(call, Some(body), &proof, None).await?;
        self.inner.checked(response, &call.what).await
    }

    /// Sends a call and reads its whole answer, which is bounded; a cut in the middle of it is retried too.
    pub(super) async fn send_and_read(&self, call: &Call) -> Result<(HeaderMap, Url, Bytes), RegistryError> {
        let mut patience = Patience::new(&self.inner.limits);
        loop {
            let answer = async {
                let response = self.inner.attempt(call).await?;
                let (headers, url) = (response.headers().clone(), response.url().clone());
                let bytes = self.inner.read(response, self.inner.limits.manifest_max_bytes, &call.what).await?;
                Ok((headers, url, bytes))
            };
            match answer.await {
                Ok(answer) => return Ok(answer),
                Err(error) => patience.wait(error).await?,
            }
        }
    }
}

impl Inner {
    /// One try of a call: with the proof that the registry is known to want, then once more with what it asks for.
    async fn attempt(&self, call: &Call) -> Result<Response, RegistryError> {
        let mut proof = self.proof(&call.access).await?;
        let patience = Some(Duration::from_millis(self.limits.answer_timeout_ms));
        loop {
            let response = self.execute(call, None, &proof, patience).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return self.checked(response, &call.what).await;
            }
            match self.answer_challenge(response.headers(), &call.access, &proof).await? {
                Some(better) => proof = better,
                None => return self.checked(response, &call.what).await,
            }
        }
    }

    /// One exchange, with redirects of reads followed. Our proof goes to the registry's own origin and nowhere else.
    pub(super) async fn execute(
        &self,
        call: &Call,
        mut stream: Option<Body>,
        proof: &Proof,
        patience: Option<Duration>,
    ) -> Result<Response, RegistryError> {
        let is_read = matches!(call.method, Method::GET | Method::HEAD);
        let mut url = call.url.clone();
        let is_blob = is_read && url.path().contains("/blobs/");
        for _ in 0..=REDIRECTS_MAX {
            // Blobs lie where the registry keeps them; they are known by their digest, and no proof goes along.
            if !is_blob {
                self.may_lead(&url, &call.what)?;
            }
            self.outgoing.check_url(&url).map_err(|error| RegistryError::Settings { why: error.to_string() })?;
            let mut request = self.http.request(call.method.clone(), url.clone()).headers(call.headers.clone());
            if let Some(header) = proof.header().filter(|_| url.origin() == self.endpoint.origin()) {
                request = request.header(header::AUTHORIZATION, header);
            }
            request = match stream.take() {
                Some(body) => request.body(body),
                None if is_read => request,
                None => request.body(call.body.clone()),
            };
            let sent = async { request.send().await.map_err(|error| RegistryError::transport(&call.what, error)) };
            let response = match patience {
                Some(limit) => within(limit, &call.what, sent).await?,
                None => sent.await?,
            };
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            match location {
                Some(location) if is_read && response.status().is_redirection() => {
                    let next = url.join(location).map_err(|_| RegistryError::protocol(&call.what, "a bad redirect"))?;
                    if !matches!(next.scheme(), "http" | "https")
                        || (url.scheme() == "https" && next.scheme() == "http")
                    {
                        return Err(RegistryError::protocol(&call.what, "a redirect away from https"));
                    }
                    url = next;
                }
                _ => return Ok(response),
            }
        }
        Err(RegistryError::protocol(&call.what, "too many redirects"))
    }

    /// Whether the registry may send a call, a token's or its own, to `to`.
    pub(super) fn may_lead(&self, to: &Url, what: &str) -> Result<(), RegistryError> {
        if self.outgoing.may_lead(&self.endpoint, to) {
            return Ok(());
        }
        let host = to.host_str().unwrap_or_default();
        let why = format!("it leads to {host}, which is not registered; if it is meant, list it under outgoing.hosts");
        Err(RegistryError::protocol(what, why))
    }

    /// The answer if it is a success, the error that it means otherwise.
    pub(super) async fn checked(&self, response: Response, what: &str) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers(), SystemTime::now());
        // The words are a help for a person; where they cannot be read, the status still says enough.
        let body = self.read(response, ERROR_BODY_MAX_BYTES, what).await.unwrap_or_default();
        Err(RegistryError::of_status(what, status.as_u16(), retry_after, words(&body)))
    }

    /// Reads a body of at most `limit_bytes`.
    pub(super) async fn read(
        &self,
        mut response: Response,
        limit_bytes: u64,
        what: &str,
    ) -> Result<Bytes, RegistryError> {
        let too_large = || RegistryError::TooLarge { what: what.to_owned(), limit_bytes };
        if response.content_length().is_some_and(|length| length > limit_bytes) {
            return Err(too_large());
        }
        let mut bytes = BytesMut::new();
        let idle = Duration::from_millis(self.limits.idle_timeout_ms);
        loop {
            let chunk = async { response.chunk().await.map_err(|error| RegistryError::transport(what, error)) };
            match within(idle, what, chunk).await? {
                Some(chunk) if (bytes.len() + chunk.len()) as u64 > limit_bytes => return Err(too_large()),
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => return Ok(bytes.freeze()),
            }
        }
    }
}

/// Runs `work` for at most `limit`; a stall is the same as a cut connection.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(RegistryError::unreachable(what, format!("nothing came for {} ms", limit.as_millis()))),
    }
}

/// The registry's own words: the codes and messages of the specification's error object, or the text as it is.
fn words(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Answer {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Answer>(body) {
        Ok(answer) => {
            let entry = |e: Entry| format!("{} {}", e.code, e.message).trim().to_owned();
            answer.errors.into_iter().take(5).map(entry).collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX_CHARS).collect::<String>();
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_registry_are_cleaned_and_cut() {
        assert_eq!(words(br#"{"errors":[{"code":"DENIED","message":"tag is immutable"}]}"#), "DENIED tag is immutable");
        assert_eq!(words(b"nope\x1b[31m\n"), "nope [31m");
        assert_eq!(words("é".repeat(9_000).as_bytes()).chars().count(), WORDS_MAX_CHARS);
        assert_eq!(words(b""), "");
    }

    #[test]
    fn an_endpoint_with_more_than_a_host_is_refused() {
        for bad in ["https://h/path", "https://h/?q=1", "ftp://h/", "https://user:pw@h/"] {
            let config = RegistryConfig::new(bad.parse().unwrap());
            assert!(matches!(RegistryClient::new(config), Err(RegistryError::Settings { .. })), "{bad}");
        }
        let client = RegistryClient::new(RegistryConfig::new("http://127.0.0.1:5000".parse().unwrap())).unwrap();
        assert_eq!(client.host(), "127.0.0.1:5000");
    }
}
