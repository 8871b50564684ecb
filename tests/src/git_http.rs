//! A git server over HTTP: `git http-backend` behind a small server of its own, with a password, TLS, and faults that a
//! test asks for. Repositories are bare folders below one root. Gitea, which is more than git, lives in its own file.

use std::{
    convert::Infallible,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};
use tokio_rustls::TlsAcceptor;

use crate::smtp::make_certificate;

/// What a server answers instead of git.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status with these headers and this text.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// So many bytes of git's answer, then a cut connection.
    CutAfter(usize),
    /// Headers, and then nothing for as long as the client waits.
    Stall,
}

/// Decides by method and path (with the query) whether a request meets a fault.
pub type Faults = Arc<dyn Fn(&str, &str) -> Option<Fault> + Send + Sync>;

/// How the server is set up.
#[derive(Clone, Default)]
pub struct GitHttpOptions {
    /// User and password; everybody else gets 401. Without it all may read and push.
    pub login: Option<(String, String)>,
    /// Speak HTTPS, with a certificate by an authority of its own ([`GitHttp::ca_pem`]).
    pub tls: bool,
    /// What goes wrong.
    pub faults: Option<Faults>,
}

impl fmt::Debug for GitHttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHttpOptions").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRequest {
    /// `GET /x.git/info/refs?service=git-upload-pack`.
    pub line: String,
    /// Its `Authorization` header.
    pub authorization: Option<String>,
}

/// A running server; it ends with its value. It lives on the runtime of the test: one that blocks on it (`git push`) needs
/// `flavor = "multi_thread"`.
#[derive(Debug)]
pub struct GitHttp {
    dir: TempDir,
    address: SocketAddr,
    tls: bool,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl GitHttp {
    /// Serves the repositories below [`Self::root`], which is empty at first.
    ///
    /// # Errors
    /// When the certificate cannot be made or no port be had.
    pub async fn start(options: GitHttpOptions) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("repositories"))?;
        fs::create_dir(dir.path().join("home"))?;
        let acceptor = if options.tls { Some(acceptor(dir.path())?) } else { None };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tls = options.tls;
        let server = Arc::new(Server {
            root: dir.path().join("repositories"),
            home: dir.path().join("home"),
            options,
            seen: Arc::clone(&seen),
        });
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (server, acceptor) = (Arc::clone(&server), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        // A client that does not trust the certificate goes away; that is its test.
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => server.connection(stream).await,
                            Err(error) => tracing::debug!(%error, "a TLS client went away"),
                        },
                        None => server.connection(stream).await,
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { dir, address, tls, seen, accepting })
    }

    /// The folder of the repositories.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("repositories")
    }

    /// The address of a repository below the root.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("{}://{}/{name}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// The authority that signed the certificate, PEM.
    ///
    /// # Errors
    /// When the server speaks plain HTTP.
    pub fn ca_pem(&self) -> Result<String> {
        fs::read_to_string(self.dir.path().join("ca.pem")).context("failed to read the authority: TLS is not on")
    }

    /// The requests so far, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<SeenRequest> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for GitHttp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn acceptor(dir: &Path) -> Result<TlsAcceptor> {
    make_certificate(dir)?;
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem"))?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

struct Server {
    root: PathBuf,
    home: PathBuf,
    options: GitHttpOptions,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
}

impl Server {
    async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: Arc<Self>, stream: S) {
        let service = service_fn(|request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(error, "a connection ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.respond(request).await.unwrap_or_else(|error| plain(500, &[], &format!("{error:#}")))
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let authorization = header(AUTHORIZATION);
        let line = format!("{} {}", request.method(), request.uri().path_and_query().map_or("/", |path| path.as_str()));
        let seen = SeenRequest { line: line.clone(), authorization: authorization.clone() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);

        let (method, target) = line.split_once(' ').unwrap_or_default();
        let fault = self.options.faults.as_ref().and_then(|faults| faults(method, target));
        match &fault {
            Some(Fault::Answer(status, headers, text)) => return Ok(plain(*status, headers, text)),
            Some(Fault::Stall) => return Ok(stalled()),
            Some(Fault::CutAfter(_)) | None => {}
        }
        if let Some((user, password)) = &self.options.login {
            let wanted = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            if authorization.as_deref() != Some(wanted.as_str()) {
                let asks = (WWW_AUTHENTICATE.as_str(), "Basic realm=\"git\"".to_owned());
                return Ok(plain(401, &[asks], "who are you?"));
            }
        }
        let response = self.backend(request).await?;
        Ok(match fault {
            Some(Fault::CutAfter(bytes)) => cut(response, bytes),
            _ => response.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync()),
        })
    }

    /// Runs `git http-backend` as a CGI program (RFC 3875).
    async fn backend(&self, request: Request<Incoming>) -> Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let user = self.options.login.as_ref().map_or("anyone", |(user, _)| user.as_str());
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("HOME", &self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_PROTOCOL", header("git-protocol"))
            .env("REMOTE_USER", user)
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("REQUEST_METHOD", parts.method.as_str())
            .env("PATH_INFO", parts.uri.path())
            .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start git http-backend")?;
        let mut stdin = child.stdin.take().context("the backend has no standard input")?;
        // Both at once: a long answer may begin before a long request was read.
        let (written, output) = tokio::join!(
            async move { stdin.write_all(&body).await.and(stdin.shutdown().await) },
            child.wait_with_output()
        );
        if let Err(error) = written {
            tracing::debug!(%error, "the backend did not read its whole request");
        }
        let output = output?;
        tracing::debug!(stderr = %String::from_utf8_lossy(&output.stderr), "git http-backend ended");
        let output = output.stdout;
        let end = output.windows(4).position(|window| window == b"\r\n\r\n").context("the backend sent no headers")?;
        let mut response = Response::builder();
        for line in std::str::from_utf8(&output[..end])?.lines() {
            let (name, value) = line.split_once(':').context("the backend sent a broken header")?;
            response = if name.eq_ignore_ascii_case("status") {
                response.status(value.trim().split(' ').next().unwrap_or_default().parse::<u16>()?)
            } else {
                response.header(name, value.trim())
            };
        }
        Ok(response.body(Bytes::from(output).slice(end + 4..))?)
    }
}

fn plain(status: u16, headers: &[(&str, String)], text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::builder().status(status);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        response = response.header(CONTENT_TYPE, "text/plain; charset=utf-8");
    }
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(body).unwrap_or_else(|_| {
        let mut broken = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
        *broken.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        broken
    })
}

/// The answer's headers with its whole length, a part of its body, then an error, which makes hyper cut the connection.
fn cut(response: Response<Bytes>, after: usize) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    let first = Ok(Frame::data(body.slice(..after.min(body.len()))));
    let then = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let frames = futures_util::stream::iter([first, then]);
    Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())
}

fn stalled() -> Response<Body> {
    let frames = futures_util::stream::pending::<std::io::Result<Frame<Bytes>>>();
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let kind = hyper::header::HeaderValue::from_static("application/x-git-upload-pack-advertisement");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Puts a bare copy of a working copy below the root of a server.
///
/// # Errors
/// When `git` fails.
pub fn publish(repo: &crate::Repo, server: &GitHttp, name: &str) -> Result<PathBuf> {
    ensure!(!name.contains(".."), "a repository lies below the root");
    repo.bare_copy(&server.root(), name)
}
