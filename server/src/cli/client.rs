//! The client of the HTTP API: addresses, the bearer token, errors as people read them, streams that are resumed.
//! Not here: what the API says (`server::http::api::model`).

use std::{path::PathBuf, time::Duration};

use futures_util::{Stream, StreamExt as _};
use reqwest::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use server::http::problem::Problem;
use url::Url;

use super::{
    credentials::{self, Credentials, is_on_this_machine, server_url},
    exit::Exit,
    failure::{Failure, chain},
    sse,
};

/// The bounds of the client.
#[derive(Clone, Debug)]
pub(crate) struct ClientLimits {
    /// How long a connection may take to come up.
    pub(crate) connect_timeout_ms: u64,
    /// How long an answer may take.
    pub(crate) answer_timeout_ms: u64,
    /// How long a stream may be silent; the server says something every 15 seconds.
    pub(crate) silence_max_ms: u64,
    /// The largest answer.
    pub(crate) answer_max_bytes: usize,
    /// The largest event of a stream.
    pub(crate) event_max_bytes: usize,
    /// How long a lost server is tried again before `watch` gives up.
    pub(crate) lost_max_ms: u64,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            answer_timeout_ms: 60_000,
            silence_max_ms: 60_000,
            answer_max_bytes: 64 << 20,
            event_max_bytes: 1 << 20,
            lost_max_ms: 300_000,
        }
    }
}

/// Where the server is and who we are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    /// As given by `--url` or `WINDLASS_URL`.
    pub(crate) url: Option<String>,
    /// A certificate authority to trust, PEM.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Speaks to one server.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    /// The bounds.
    pub(crate) limits: ClientLimits,
}

impl Target {
    /// The address of the server: the given one, or that of the last login.
    pub(crate) fn server(&self) -> Result<Url, Failure> {
        match &self.url {
            Some(given) => server_url(given),
            None => match Credentials::load(&credentials::default_path()?)?.current {
                Some(current) => server_url(&current),
                None => Err(Failure::new(Exit::Login, "cannot tell which server is meant")
                    .why("there was no login on this machine")
                    .next("windlass login URL")
                    .next("set WINDLASS_URL and WINDLASS_TOKEN")),
            },
        }
    }

    /// A client that is signed in.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let base = self.server()?;
        let from_environment = std::env::var("WINDLASS_TOKEN").ok().filter(|token| !token.is_empty());
        let token = match from_environment {
            Some(token) => token,
            None => {
                let credentials = Credentials::load(&credentials::default_path()?)?;
                let login = credentials.of(&base).ok_or_else(|| {
                    Failure::new(Exit::Login, format!("cannot speak to {base}"))
                        .why("there was no login on this server")
                        .next(format!("windlass login {base}"))
                        .next("set WINDLASS_TOKEN")
                })?;
                login.token.expose().to_owned()
            }
        };
        Client::new(base, Some(token), self.ca_file.as_deref())
    }

    /// A client that is nobody yet.
    pub(crate) fn anonymous(&self) -> Result<Client, Failure> {
        Client::new(self.server()?, None, self.ca_file.as_deref())
    }
}

impl Client {
    /// A client of the server at `base`.
    pub(crate) fn new(base: Url, token: Option<String>, ca_file: Option<&std::path::Path>) -> Result<Self, Failure> {
        // reqwest is built without a default provider; a second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let limits = ClientLimits::default();
        let certificates = match ca_file {
            Some(path) => {
                let failed = || Failure::usage(format!("cannot read the certificates in {}", path.display()));
                let pem = std::fs::read(path).map_err(|error| failed().because(&error))?;
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed().because(&error))?
            }
            None => Vec::new(),
        };
        let builder = || {
            let http = reqwest::Client::builder()
                .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
                // A token follows no redirect to somewhere else.
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_millis(limits.connect_timeout_ms))
                .read_timeout(Duration::from_millis(limits.silence_max_ms));
            if is_on_this_machine(&base) { http.no_proxy() } else { http }
        };
        let http = match builder().tls_certs_merge(certificates.clone()).build() {
            // A machine without certificates of authorities can still speak to a server without TLS.
            Err(_) if base.scheme() == "http" => builder().tls_certs_only(certificates).build(),
            other => other,
        };
        let http =
            http.map_err(|error| Failure::new(Exit::Unexpected, "cannot make an HTTP client").because(&error))?;
        Ok(Self { http, base, token, limits })
    }

    /// The server's address.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    fn request(&self, what: &str, method: Method, path: &str) -> Result<reqwest::RequestBuilder, Failure> {
        let url = self.base.join(path.trim_start_matches('/'));
        let url = url.map_err(|error| Failure::usage(what).because(&error))?;
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Reads something. `what` says what cannot be done if it fails: `cannot read the run shop/3`.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        let request = self.request(what, Method::GET, path)?.query(query);
        self.answer(what, request).await
    }

    /// Changes something and reads the answer.
    pub(crate) async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        let request = self.request(what, method, path)?.json(body);
        self.answer(what, request).await
    }

    /// Changes something whose answer is a file, however long; hands it over piece by piece. Gives its length.
    pub(crate) async fn download<B: Serialize>(
        &self,
        what: &str,
        path: &str,
        body: &B,
        take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let request = self.request(what, Method::POST, path)?.json(body);
        self.pieces(what, request, take).await
    }

    /// Reads a file, however long; hands it over piece by piece. Gives its length.
    pub(crate) async fn fetch(
        &self,
        what: &str,
        path: &str,
        query: &[(&str, String)],
        take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let request = self.request(what, Method::GET, path)?.query(query);
        self.pieces(what, request, take).await
    }

    async fn pieces(
        &self,
        what: &str,
        request: reqwest::RequestBuilder,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(what, &error))?;
        let mut response = self.successful(what, response).await?;
        let mut bytes = 0;
        while let Some(piece) = response.chunk().await.map_err(|error| self.unreachable(what, &error))? {
            take(&piece)?;
            bytes += piece.len() as u64;
        }
        Ok(bytes)
    }

    async fn answer<T: DeserializeOwned>(&self, what: &str, request: reqwest::RequestBuilder) -> Result<T, Failure> {
        let request = request.timeout(Duration::from_millis(self.limits.answer_timeout_ms));
        let response = request.send().await.map_err(|error| self.unreachable(what, &error))?;
        let response = self.successful(what, response).await?;
        let status = response.status();
        let body = self.body(what, response).await?;
        let text = if body.is_empty() && status == StatusCode::NO_CONTENT { &b"null"[..] } else { &body };
        serde_json::from_slice(text).map_err(|error| self.not_understood(what, &error))
    }

    /// The moment that the server's clock shows, and how long the answer took; by the `Date` header, so to the second.
    pub(crate) async fn get_plain(&self, what: &str, path: &str) -> Result<(StatusCode, header::HeaderMap), Failure> {
        let request = self.request(what, Method::GET, path)?;
        let request = request.timeout(Duration::from_millis(self.limits.connect_timeout_ms));
        let response = request.send().await.map_err(|error| self.unreachable(what, &error))?;
        Ok((response.status(), response.headers().clone()))
    }

    /// Opens a stream of events, after the one with this id.
    pub(crate) async fn events(
        &self,
        what: &str,
        path: &str,
        query: &[(&str, String)],
        last_id: Option<&str>,
    ) -> Result<impl Stream<Item = Result<sse::Event, Failure>> + Unpin + use<>, Failure> {
        let mut request = self.request(what, Method::GET, path)?.query(query);
        request = request.header(header::ACCEPT, "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.map_err(|error| self.unreachable(what, &error))?;
        let response = self.successful(what, response).await?;
        let (what, client) = (what.to_owned(), self.clone());
        let mut reader = sse::Reader::new(self.limits.event_max_bytes);
        let events = response.bytes_stream().map(move |piece| {
            let piece = piece.map_err(|error| client.unreachable(&what, &error))?;
            reader.push(&piece).map_err(|error| client.not_understood(&what, &error))
        });
        let events = events.flat_map(|events| {
            futures_util::stream::iter(match events {
                Ok(events) => events.into_iter().map(Ok).collect(),
                Err(failure) => vec![Err(failure)],
            })
        });
        Ok(Box::pin(events))
    }

    async fn body(&self, what: &str, mut response: reqwest::Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.unreachable(what, &error))? {
            if body.len() + piece.len() > self.limits.answer_max_bytes {
                let why = format!("the answer is longer than {} bytes", self.limits.answer_max_bytes);
                return Err(Failure::new(Exit::Unexpected, what).why(why));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    async fn successful(&self, what: &str, response: reqwest::Response) -> Result<reqwest::Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let location =
            response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = self.body(what, response).await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(of_problem(what, problem)),
            Err(_) => Err(self.of_status(what, status, location)),
        }
    }

    fn of_status(&self, what: &str, status: StatusCode, location: Option<String>) -> Failure {
        let why = match location {
            Some(location) => format!("{} leads to {location}", self.base),
            None => format!("{} answered {status}, which is not how a windlass server answers", self.base),
        };
        Failure::new(exit_of(status), what).why(why).next("check the address: --url, WINDLASS_URL")
    }

    fn unreachable(&self, what: &str, error: &reqwest::Error) -> Failure {
        if error.is_decode() {
            return self.not_understood(what, error);
        }
        // The error of reqwest repeats the address; its causes say why.
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), chain);
        let why = if error.is_timeout() { format!("no answer in time ({why})") } else { why };
        Failure::new(Exit::Unreachable, what)
            .why(format!("{}: {why}", self.base))
            .next("windlass doctor")
            .next("check the address: --url, WINDLASS_URL")
    }

    fn not_understood(&self, what: &str, error: &dyn std::error::Error) -> Failure {
        Failure::new(Exit::Unexpected, what)
            .why(format!("the answer of {} cannot be understood: {error}", self.base))
            .next("use the same version of windlass as the server")
    }
}

/// The exit code for an HTTP status.
pub(crate) fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED => Exit::Login,
        StatusCode::FORBIDDEN => Exit::Forbidden,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::GONE => Exit::Rejected,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Exit::Usage,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Exit::Unreachable,
        _ => Exit::Unexpected,
    }
}

fn of_problem(what: &str, problem: Problem) -> Failure {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut failure = Failure::new(exit_of(status), what).why(problem.detail);
    failure.next.extend(problem.next);
    failure.request_id = problem.request_id;
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_the_server_is_told_with_its_next_action_and_id() {
        let problem = r#"{"type":"not-now","title":"Conflict","status":409,"detail":"shop/3 is superseded by shop/4",
            "next":"windlass status shop","request_id":"r-1"}"#;
        let failure = of_problem("cannot approve shop/3", serde_json::from_str(problem).unwrap());
        insta::assert_snapshot!(failure.text(super::super::output::Paint::OFF), @r"
        error: cannot approve shop/3
          why: shop/3 is superseded by shop/4
          try: windlass status shop
           id: r-1
        ");
    }

    #[test]
    fn statuses_end_with_their_codes() {
        let codes = [401, 403, 404, 410, 409, 422, 503, 500];
        let exits = codes.map(|code| exit_of(StatusCode::from_u16(code).unwrap()).code());
        assert_eq!(exits, [4, 5, 6, 11, 1, 2, 15, 1]);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        // A port that was just free.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let base = server_url(&format!("http://127.0.0.1:{port}")).unwrap();
        let client = Client::new(base, None, None).unwrap();
        let failure = client.get::<serde_json::Value>("cannot read it", "/healthz", &[]).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable, "{failure:?}");
    }
}
