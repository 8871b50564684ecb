//! The way to a server on another machine: the protocol's messages as JSON over HTTPS, with the credential of this runner.
//! Not here: waiting and asking again (`link`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use integrations::{crash, outgoing::is_loopback};
use pipelines::ids::RunnerName;
use pipelines::protocol::{
    AGENTS_PATH, INCOMPATIBLE_PROBLEM, LinkError, PROTOCOL_HEADER, PROTOCOL_VERSION, REVOKED_PROBLEM, RegisterRequest,
    Registered, RotateRequest, RunnerLink, RunnerRequest, Secret, ServerReply, credential_of,
};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take that is not a question for work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a question for work is left open; the server ends it before.
const LEASE_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of an answer: a job with its mirrors and masks.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Messages above this are packed.
const PACK_BYTES_MIN: usize = 2 << 10;
/// Characters of what a server says that are repeated.
const SAID_CHARS_MAX: usize = 300;

/// Where the server is, and whom to believe.
#[derive(Debug, Clone)]
pub struct ServerAddress {
    /// Its address, as people reach it.
    pub url: Url,
    /// A certificate authority to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Plain HTTP to another machine is allowed.
    pub insecure: bool,
}

/// Why the server cannot be spoken to, or said no.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not one to speak to.
    #[error("use the address {url}: {why}")]
    Address {
        /// Which.
        url: String,
        /// Why, and what to do instead.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("use the file {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("use the file {}: {why}", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No client can be made.
    #[error("set up HTTPS")]
    Client(#[source] reqwest::Error),
    /// The server did not answer as it should.
    #[error(transparent)]
    Answer(#[from] LinkError),
    /// The server said no.
    #[error("{detail}")]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// In its words.
        detail: String,
    },
}

#[derive(Deserialize)]
struct Problem {
    r#type: String,
    detail: String,
    next: Option<String>,
}

/// What a runner knows of itself, in a file that only its owner reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its name at the server.
    pub name: RunnerName,
    /// What it alone knows.
    pub secret: Secret,
}

impl Identity {
    /// Another one of this name.
    #[must_use]
    pub fn new(name: RunnerName) -> Self {
        use base64::Engine as _;
        let mut bytes = [0; 32];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
        let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        Self { name, secret: Secret::new(secret) }
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read, is not one, or others can read it.
    pub fn read(path: &Path) -> Result<Self, HttpError> {
        use std::os::unix::fs::PermissionsExt;
        let failed = |source| HttpError::File { path: path.to_owned(), source };
        let content = |why: &str| HttpError::Content { path: path.to_owned(), why: why.to_owned() };
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(content("others can read it; run chmod 600 on it"));
        }
        let text = std::fs::read(path).map_err(failed)?;
        serde_json::from_slice(&text).map_err(|_| content("it is not a runner's identity; register the runner again"))
    }

    /// Writes it, whole or not at all, for its owner alone.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), HttpError> {
        let failed = |source| HttpError::File { path: path.to_owned(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        file.write_all(&text).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// The server over HTTP.
#[derive(Debug)]
pub struct HttpServer {
    client: Client,
    base: Url,
}

impl HttpServer {
    /// The server at an address.
    ///
    /// # Errors
    /// When the address is not one to speak to, or the certificate cannot be read.
    pub fn new(address: &ServerAddress) -> Result<Self, HttpError> {
        let wrong = |why: &str| {
            // Whatever somebody wrote before the host may be a password.
            let mut shown = address.url.clone();
            let hidden = shown.set_username("").and_then(|()| shown.set_password(None));
            let url = if hidden.is_ok() { shown.to_string() } else { address.url.scheme().to_owned() };
            HttpError::Address { url, why: why.to_owned() }
        };
        if address.url.host().is_none() {
            return Err(wrong("it has no host"));
        }
        match address.url.scheme() {
            "https" => {}
            "http" if is_loopback(&address.url) || address.insecure => {}
            "http" => return Err(wrong("everybody on the way would read the secrets of the runs; write https://")),
            _ => return Err(wrong("write https:// and a host")),
        }
        if !address.url.username().is_empty() || address.url.password().is_some() {
            return Err(wrong("leave out the user and the password"));
        }
        let builder = || {
            let http = Client::builder()
                .user_agent(concat!("windlass-runner/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                // A redirect would carry secrets to whoever it names.
                .redirect(reqwest::redirect::Policy::none());
            if is_loopback(&address.url) { http.no_proxy() } else { http }
        };
        let mut client = builder();
        if let Some(path) = &address.ca_file {
            let pem = std::fs::read(path).map_err(|source| HttpError::File { path: path.clone(), source })?;
            let all = reqwest::Certificate::from_pem_bundle(&pem).map_err(HttpError::Client)?;
            if all.is_empty() {
                return Err(HttpError::Content { path: path.clone(), why: "it holds no certificate".into() });
            }
            client = client.tls_certs_only(all);
        }
        let mut base = address.url.clone();
        base.set_query(None);
        base.set_fragment(None);
        let client = match client.build() {
            // A machine without certificates of authorities can still speak to a server without TLS.
            Err(_) if address.url.scheme() == "http" => builder().tls_certs_only([]).build(),
            other => other,
        };
        Ok(Self { client: client.map_err(HttpError::Client)?, base })
    }

    fn address(&self, verb: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{AGENTS_PATH}/{verb}", self.base.path().trim_end_matches('/')));
        url
    }

    async fn send<T: DeserializeOwned>(
        &self,
        verb: &str,
        credential: Option<&Secret>,
        message: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, HttpError> {
        let lost = |why: String| HttpError::Answer(LinkError::NoAnswer(why));
        let text = serde_json::to_vec(message).map_err(|error| lost(error.to_string()))?;
        let mut request = self
            .client
            .post(self.address(verb))
            .timeout(timeout)
            .header(PROTOCOL_HEADER, PROTOCOL_VERSION)
            .header(CONTENT_TYPE, "application/json");
        if let Some(credential) = credential {
            request = request.header(AUTHORIZATION, format!("Bearer {}", credential.expose()));
        }
        request = if text.len() >= PACK_BYTES_MIN {
            request.header(CONTENT_ENCODING, "gzip").body(packed(&text).map_err(|error| lost(error.to_string()))?)
        } else {
            request.body(text)
        };
        // Without the address: it is known, and the error is told with it elsewhere.
        let told = |error: reqwest::Error| lost(pipelines::errors::chain(&error.without_url()));
        let mut response = request.send().await.map_err(told)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(lost(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes")));
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| lost(format!("the answer cannot be read: {error}")));
        }
        Err(refusal(status, &body))
    }

    /// Registers this runner.
    ///
    /// # Errors
    /// When the server does not answer or says no.
    pub async fn register(&self, request: &RegisterRequest) -> Result<Registered, HttpError> {
        self.send("register", None, request, ANSWER_TIMEOUT).await
    }

    /// Has the server take another secret of this runner.
    ///
    /// # Errors
    /// As above.
    pub async fn rotate(&self, present: &Identity, secret: Secret) -> Result<Registered, HttpError> {
        let credential = credential_of(&present.name, &present.secret);
        self.send("rotate", Some(&credential), &RotateRequest { secret }, ANSWER_TIMEOUT).await
    }
}

/// What a refusal means. Only our own server's word sends a runner away: a proxy between may say what it likes.
fn refusal(status: StatusCode, body: &[u8]) -> HttpError {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        return LinkError::NoAnswer(format!("the server answered with status {}", status.as_u16())).into();
    };
    let mut said: String = problem.detail.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect();
    if let Some(next) = &problem.next {
        said.push_str("; ");
        said.extend(next.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX));
    }
    match problem.r#type.as_str() {
        REVOKED_PROBLEM if status == StatusCode::UNAUTHORIZED => LinkError::Revoked(said).into(),
        INCOMPATIBLE_PROBLEM => LinkError::Incompatible(said).into(),
        _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => LinkError::NoAnswer(said).into(),
        _ => HttpError::Refused { status: status.as_u16(), detail: said },
    }
}

fn packed(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

/// Where another secret of the runner with this identity lies, until the server has taken it.
#[must_use]
pub fn next_file(file: &Path) -> PathBuf {
    file.with_extension("next")
}

/// The link of a registered runner.
#[derive(Debug)]
pub struct HttpLink {
    server: HttpServer,
    file: PathBuf,
    identity: Mutex<Identity>,
}

impl HttpLink {
    /// The link to `server` of the runner whose identity is in `file`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(server: HttpServer, file: PathBuf) -> Result<Self, HttpError> {
        let identity = Mutex::new(Identity::read(&file)?);
        Ok(Self { server, file, identity })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> RunnerName {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).name.clone()
    }

    fn credential(&self) -> Secret {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        credential_of(&identity.name, &identity.secret)
    }

    /// Other secrets of this runner that its files hold: one that somebody gives it while this process runs lies beside
    /// its identity until the server has it.
    fn others(&self) -> Vec<Identity> {
        let known = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found =
            [self.file.clone(), next_file(&self.file)].into_iter().filter_map(|file| Identity::read(&file).ok());
        found.filter(|found| found.name == known.name && found.secret != known.secret).collect()
    }

    async fn try_call(&self, request: &RunnerRequest) -> Result<ServerReply, LinkError> {
        let kind = match request {
            RunnerRequest::Lease { .. } => "runner-lease",
            RunnerRequest::Report { .. } => "runner-report",
            RunnerRequest::Log { .. } => "runner-log",
            _ => "runner-question",
        };
        crash::point(kind, "before");
        let answer = self.ask(request).await;
        if answer.is_ok() {
            crash::point(kind, "answered");
        }
        answer
    }

    async fn ask(&self, request: &RunnerRequest) -> Result<ServerReply, LinkError> {
        let (verb, timeout) = match request {
            RunnerRequest::Lease { .. } => ("lease", LEASE_TIMEOUT),
            _ => ("call", ANSWER_TIMEOUT),
        };
        match self.server.send(verb, Some(&self.credential()), request, timeout).await {
            Ok(reply) => Ok(reply),
            Err(HttpError::Answer(error)) => Err(error),
            // It may be mended on the server's side; a run must not be given up for it here.
            Err(other) => Err(LinkError::NoAnswer(other.to_string())),
        }
    }
}

impl RunnerLink for HttpLink {
    async fn call(&self, request: RunnerRequest) -> Result<ServerReply, LinkError> {
        let mut answer = self.try_call(&request).await;
        if matches!(answer, Err(LinkError::Revoked(_))) {
            for other in self.others() {
                *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = other;
                answer = self.try_call(&request).await;
                if !matches!(answer, Err(LinkError::Revoked(_))) {
                    break;
                }
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str, insecure: bool) -> ServerAddress {
        ServerAddress { url: url.parse().expect("a URL"), ca_file: None, insecure }
    }

    #[test]
    fn secrets_do_not_travel_in_the_open() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (url, insecure, good) in [
            ("https://windlass.example.com", false, true),
            ("http://windlass.example.com", false, false),
            ("http://windlass.example.com", true, true),
            ("http://127.0.0.1:8000", false, true),
            ("http://[::1]:8000", false, true),
            ("http://localhost:8000", false, true),
            ("http://127.0.0.1.example.com", false, false),
            ("ftp://127.0.0.1", true, false),
            ("https://user:password@windlass.example.com", false, false),
        ] {
            assert_eq!(HttpServer::new(&address(url, insecure)).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn an_address_below_a_path_keeps_it() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = HttpServer::new(&address("http://localhost/windlass/?x=1", false)).expect("a server");
        assert_eq!(server.address("lease").as_str(), "http://localhost/windlass/agents/v1/lease");
    }

    #[test]
    fn only_our_own_server_sends_a_runner_away() {
        let problem = |kind: &str| format!(r#"{{"type": "{kind}", "detail": "so it is", "status": 0, "title": ""}}"#);
        let told = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            match refusal(status, body.as_bytes()) {
                HttpError::Answer(LinkError::Revoked(_)) => "revoked",
                HttpError::Answer(LinkError::Incompatible(_)) => "incompatible",
                HttpError::Answer(LinkError::NoAnswer(_)) => "ask again",
                _ => "refused",
            }
        };
        assert_eq!(told(401, "<html>who are you?</html>"), "ask again");
        assert_eq!(told(401, &problem(REVOKED_PROBLEM)), "revoked");
        assert_eq!(told(426, &problem(INCOMPATIBLE_PROBLEM)), "incompatible");
        assert_eq!(told(503, &problem("store-refuses")), "ask again");
        assert_eq!(told(429, &problem("too-many-tries")), "ask again");
        assert_eq!(told(403, &problem("forbidden")), "refused");
    }

    #[test]
    fn an_identity_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("deep/identity.json");
        let identity = Identity::new("box-1".parse().expect("a name"));
        identity.write(&path).expect("written");
        assert_eq!(Identity::read(&path).expect("read").secret, identity.secret);
        assert!(!format!("{identity:?}").contains(identity.secret.expose()));
        assert_eq!(identity.secret.expose().len(), 43);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(Identity::read(&path).expect_err("refused").to_string().contains("chmod 600"));
    }
}
