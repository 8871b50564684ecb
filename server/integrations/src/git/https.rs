//! Git's smart HTTP protocol (gitprotocol-http) for libgit2, over reqwest. Redirects, refusals and trust are decided
//! here. Not here: the packets themselves, which libgit2 reads and writes.

use std::{
    error::Error,
    io::{self, Read, Write},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::{Buf as _, Bytes};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use pipelines::repository::http_host_and_port;
use reqwest::{
    Certificate, Client, ClientBuilder, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, LOCATION},
    redirect::Policy,
};
use secrecy::ExposeSecret as _;
use url::Url;

use super::{credential::GitCredential, error::GitError, session::Session};

/// Some forges answer git only to a client that calls itself git.
const USER_AGENT: &str = concat!("git/2.0 (windlass ", env!("CARGO_PKG_VERSION"), ")");
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const REQUEST: &str = "application/x-git-upload-pack-request";
const RESULT: &str = "application/x-git-upload-pack-result";
/// How much of an error page is read, in bytes.
const ERROR_BODY_MAX_BYTES: usize = 2048;

/// One remote over http or https.
pub(super) struct HttpTransport {
    shared: Arc<Shared>,
}

struct Shared {
    session: Arc<Session>,
    client: OnceLock<Client>,
    /// Where the repository turned out to be, once it was asked.
    place: Mutex<Option<Place>>,
}

#[derive(Clone)]
struct Place {
    base: Url,
    /// Whether the credential goes there.
    trusted: bool,
}

impl HttpTransport {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { shared: Arc::new(Shared { session, client: OnceLock::new(), place: Mutex::new(None) }) }
    }
}

impl SmartSubtransport for HttpTransport {
    fn action(&self, _url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let state = match action {
            Service::UploadPackLs => {
                let response = self.shared.advertisement().map_err(|error| self.shared.session.fail_git(error))?;
                State::Answer(response)
            }
            Service::UploadPack => State::Request(Vec::new()),
            Service::ReceivePackLs | Service::ReceivePack => {
                return Err(git2::Error::from_str("this client does not push"));
            }
        };
        Ok(Box::new(HttpStream { shared: Arc::clone(&self.shared), state, rest: Bytes::new() }))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

impl Shared {
    fn client(&self) -> Result<&Client, GitError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let _context = self.session.runtime.enter();
        let client = build_client(&self.session)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// `GET …/info/refs?service=git-upload-pack`, following redirects ourselves.
    fn advertisement(&self) -> Result<Response, GitError> {
        let session = &self.session;
        let base = session.url.as_http().ok_or_else(|| session.protocol("the address is not http"))?;
        let mut at = advertisement_url(base);
        let mut trusted = true;
        for _ in 0..=session.options.max_redirects {
            session.options.outgoing.check_url(&at).map_err(|error| session.unreachable(error))?;
            let request = self.client()?.get(at.clone()).header(ACCEPT, "*/*");
            let response = self.send(request, trusted, "asking for its refs")?;
            if !response.status().is_redirection() {
                let response = self.accepted(response, trusted, ADVERTISEMENT)?;
                let base = repository_of(&at).unwrap_or_else(|| base.clone());
                *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(Place { base, trusted });
                return Ok(response);
            }
            let next = next_stop(&at, &response)
                .map_err(|why| GitError::Redirect { host: http_host_and_port(&at), why: why.into() })?;
            if !session.options.outgoing.may_lead(base, &next) {
                let to = http_host_and_port(&next);
                let why =
                    format!("it leads to {to}, which is not registered; if it is meant, list it under outgoing.hosts");
                return Err(GitError::Redirect { host: http_host_and_port(&at), why });
            }
            // Once gone to another host, the credential does not come back.
            trusted = trusted && same_server(&at, &next);
            at = next;
        }
        let why = format!("it redirects more than {} times", session.options.max_redirects);
        Err(GitError::Redirect { host: session.host(), why })
    }

    /// `POST …/git-upload-pack`.
    fn upload_pack(&self, body: Vec<u8>) -> Result<Response, GitError> {
        let session = &self.session;
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Place { base, trusted } = place.ok_or_else(|| session.protocol("the refs were not asked for"))?;
        let mut at = base;
        at.set_path(&format!("{}/git-upload-pack", at.path().trim_end_matches('/')));
        let request = self.client()?.post(at.clone()).header(CONTENT_TYPE, REQUEST).header(ACCEPT, RESULT).body(body);
        let response = self.send(request, trusted, "asking for a pack")?;
        if response.status().is_redirection() {
            let why = "it sends the pack request elsewhere, after it answered for the refs".to_owned();
            return Err(GitError::Redirect { host: http_host_and_port(&at), why });
        }
        self.accepted(response, trusted, RESULT)
    }

    fn send(&self, request: reqwest::RequestBuilder, trusted: bool, doing: &'static str) -> Result<Response, GitError> {
        let session = &self.session;
        let request = match &session.credential {
            GitCredential::Token { user, secret } if trusted => request.basic_auth(user, Some(secret.expose_secret())),
            _ => request,
        };
        session.wait(doing, session.options.stall_timeout_ms, request.send())?.map_err(|error| explain(session, error))
    }

    /// The response, if it is git's; else what its status means.
    fn accepted(&self, response: Response, trusted: bool, content_type: &str) -> Result<Response, GitError> {
        let session = &self.session;
        let status = response.status();
        let host = http_host_and_port(response.url());
        if status == StatusCode::OK {
            let found = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("nothing");
            let plain = found.split(';').next().unwrap_or_default().trim();
            if plain.eq_ignore_ascii_case(content_type) {
                return Ok(response);
            }
            return Err(session.protocol(&format!("it sent {found} instead of {content_type}")));
        }
        let carried = trusted && matches!(session.credential, GitCredential::Token { .. });
        let said = session.said(&self.error_body(response));
        Err(match status.as_u16() {
            401 | 403 if carried => GitError::AuthenticationRefused { host, said },
            401 | 403 => GitError::AuthenticationNeeded { host },
            404 | 410 => GitError::NotFound { url: session.url.to_string(), said },
            408 | 429 | 500.. => GitError::ServerFailed { host, status: status.as_u16(), said },
            other => session.protocol(&format!("it answered {other} {}", said.as_str())),
        })
    }

    /// The first bytes of an error page, if they are text; a page of HTML says nothing to a person here.
    fn error_body(&self, mut response: Response) -> Vec<u8> {
        let is_text =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
        let mut body = Vec::new();
        while is_text && body.len() < ERROR_BODY_MAX_BYTES {
            let limit_ms = self.session.options.connect_timeout_ms;
            match self.session.wait("reading its answer", limit_ms, response.chunk()) {
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
                // What went wrong is known from the status; its words are only a help.
                _ => break,
            }
        }
        body.truncate(ERROR_BODY_MAX_BYTES);
        body
    }
}

/// A request that is written and then answered, or only an answer.
struct HttpStream {
    shared: Arc<Shared>,
    state: State,
    rest: Bytes,
}

enum State {
    /// What was written so far; sent at the first read.
    Request(Vec<u8>),
    Answer(Response),
    Ended,
}

impl HttpStream {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, GitError> {
        let session = &self.shared.session;
        if let State::Request(body) = &mut self.state {
            let body = std::mem::take(body);
            self.state = State::Ended;
            self.state = State::Answer(self.shared.upload_pack(body)?);
        }
        let State::Answer(response) = &mut self.state else { return Ok(None) };
        let chunk = session
            .wait("reading from it", session.options.stall_timeout_ms, response.chunk())?
            .map_err(|error| explain(session, error))?;
        match &chunk {
            Some(bytes) => session.spend(bytes.len())?,
            None => self.state = State::Ended,
        }
        Ok(chunk)
    }
}

impl Read for HttpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.next_chunk() {
                Ok(Some(chunk)) => self.rest = chunk,
                Ok(None) => return Ok(0),
                Err(error) => return Err(self.shared.session.fail(error)),
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Write for HttpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Request(body) => {
                body.extend_from_slice(data);
                Ok(data.len())
            }
            _ => Err(io::Error::other("the request was sent already")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for HttpStream {
    fn drop(&mut self) {
        // A response in the middle of its body may tell its connection, which wants a runtime around it.
        let _context = self.shared.session.runtime.enter();
        self.state = State::Ended;
    }
}

fn build_client(session: &Session) -> Result<Client, GitError> {
    let authority = match &session.options.ca_pem {
        None => Vec::new(),
        Some(pem) => {
            let found = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|_| GitError::CertificateAuthority { why: "it is not PEM".into() })?;
            if found.is_empty() {
                return Err(GitError::CertificateAuthority { why: "there is no certificate in it".into() });
            }
            found
        }
    };
    let plain = || -> ClientBuilder {
        Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .dns_resolver(session.options.outgoing.clone())
            .connect_timeout(std::time::Duration::from_millis(session.options.connect_timeout_ms))
            .pool_max_idle_per_host(1)
    };
    plain()
        .tls_certs_merge(authority.clone())
        .build()
        // A machine without any certificate of its own still reaches plain http and what the given authority signed.
        .or_else(|_| plain().tls_certs_only(authority).build())
        .map_err(|error| GitError::CertificateAuthority { why: innermost(&error) })
}

fn advertisement_url(base: &Url) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/info/refs", base.path().trim_end_matches('/')));
    url.set_query(Some("service=git-upload-pack"));
    url
}

/// The repository that an advertisement was got from.
fn repository_of(advertisement: &Url) -> Option<Url> {
    let path = advertisement.path().strip_suffix("/info/refs")?;
    let mut base = advertisement.clone();
    base.set_path(path);
    base.set_query(None);
    Some(base)
}

fn next_stop(at: &Url, response: &Response) -> Result<Url, &'static str> {
    let location = response.headers().get(LOCATION).ok_or("it does not say where to")?;
    let location = location.to_str().map_err(|_| "where to cannot be read")?;
    let mut next = at.join(location).map_err(|_| "where to cannot be read")?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err("only http and https are followed");
    }
    if at.scheme() == "https" && next.scheme() == "http" {
        return Err("it leads from https to plain http");
    }
    if repository_of(&next).is_none() || !next.query_pairs().any(|(name, _)| name == "service") {
        return Err("it does not lead to a repository (a sign-in page, perhaps)");
    }
    let cleared = next.set_username("").and_then(|()| next.set_password(None));
    cleared.map_err(|()| "where to cannot be read")?;
    Ok(next)
}

/// Whether a credential for `at` may go to `next`: the same host and port, or the same host's step up to https.
fn same_server(at: &Url, next: &Url) -> bool {
    let ports = (at.port_or_known_default(), next.port_or_known_default());
    let step_up = at.scheme() == "http" && next.scheme() == "https" && ports == (Some(80), Some(443));
    at.host_str() == next.host_str() && (step_up || at.scheme() == next.scheme() && ports.0 == ports.1)
}

fn explain(session: &Session, error: reqwest::Error) -> GitError {
    // The address is in our own words already, and may have been another one before redirects.
    let error = error.without_url();
    if let Some(reason) = certificate_problem(&error) {
        return GitError::UntrustedCertificate { host: session.host(), reason };
    }
    if error.is_timeout() {
        let waited_ms = session.options.connect_timeout_ms;
        return GitError::TimedOut { host: session.host(), doing: "connecting", waited_ms };
    }
    session.unreachable(error)
}

/// Looks for rustls's verdict inside of a chain of errors. An `io::Error` hides the error that it wraps from `source`.
fn certificate_problem(error: &reqwest::Error) -> Option<String> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(problem)) = error.downcast_ref::<rustls::Error>() {
            return Some(problem.to_string());
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn innermost(error: &dyn Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_stays_with_its_server() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(same_server(&url("https://a/x"), &url("https://a:443/y")));
        assert!(same_server(&url("http://a/x"), &url("https://a/x")));
        assert!(!same_server(&url("https://a/x"), &url("https://b/x")));
        assert!(!same_server(&url("https://a/x"), &url("https://a:8443/x")));
        assert!(!same_server(&url("http://a:8080/x"), &url("https://a:8443/x")));
        assert!(!same_server(&url("https://a/x"), &url("https://a.evil.example/x")));
    }
}
