//! A small git server for the demo: bare repositories behind `git http-backend`, and a signed hook after each push.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context, bail};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use tokio::{io::AsyncWriteExt, process::Command};

/// Bytes of one push.
const PUSH_BYTES_MAX: usize = 256 << 20;

/// The server.
pub(super) struct GitServer {
    folder: PathBuf,
    address: SocketAddr,
    login: Arc<str>,
    task: tokio::task::JoinHandle<()>,
}

struct Backend {
    folder: PathBuf,
    login: Arc<str>,
}

impl GitServer {
    /// Serves the bare repositories in `folder` to whoever knows user and password.
    pub(super) async fn start(folder: &Path, user: &str, password: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let login: Arc<str> = format!("Basic {}", BASE64.encode(format!("{user}:{password}"))).into();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let backend = Arc::new(Backend { folder: folder.to_owned(), login: Arc::clone(&login) });
        let router = Router::new().fallback(answer).with_state(backend);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { folder: folder.to_owned(), address, login, task })
    }

    /// Makes a bare repository whose pushes tell `hook_url`, signed with `secret`.
    pub(super) async fn create(&self, name: &str, hook_url: &str, secret: &str) -> anyhow::Result<String> {
        let bare = self.folder.join(format!("{name}.git"));
        if !bare.exists() {
            git(&self.folder, &["init", "--quiet", "--bare", "--initial-branch=main", &format!("{name}.git")]).await?;
        }
        git(&bare, &["config", "http.receivepack", "true"]).await?;
        let secret_file = bare.join("hook-secret");
        std::fs::write(&secret_file, secret)?;
        std::fs::set_permissions(&secret_file, std::fs::Permissions::from_mode(0o600))?;
        let windlass = std::env::current_exe()?;
        let hook = bare.join("hooks/post-receive");
        // A push stands also when nobody hears of it: polling finds it.
        std::fs::write(
            &hook,
            format!(
                "#!/bin/sh\n'{}' demo-hook --to '{hook_url}' --secret-file '{}' || true\n",
                windlass.display(),
                secret_file.display()
            ),
        )?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
        Ok(format!("http://{}/{name}.git", self.address))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The header that opens the server.
    pub(super) fn authorization(&self) -> &str {
        &self.login
    }

    /// Ends the server.
    pub(super) fn stop(self) {
        self.task.abort();
    }
}

/// Runs git in a folder, without the user's own configuration.
pub(super) async fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .current_dir(folder)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()
        .await
        .context("git is missing; install it")?;
    if !output.status.success() {
        bail!("git {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn answer(State(backend): State<Arc<Backend>>, request: Request) -> Response<Body> {
    match backend_answer(&backend, request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "the git server failed");
            let mut response = Response::new(Body::from("the git server failed\n"));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// The Common Gateway Interface (RFC 3875), as far as `git http-backend` needs it.
async fn backend_answer(backend: &Backend, request: Request) -> anyhow::Result<Response<Body>> {
    let text = |headers: &HeaderMap, name: header::HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (parts, body) = request.into_parts();
    if text(&parts.headers, header::AUTHORIZATION) != *backend.login {
        let response = Response::builder().status(StatusCode::UNAUTHORIZED);
        return Ok(response.header(header::WWW_AUTHENTICATE, "Basic realm=\"demo\"").body(Body::empty())?);
    }
    let body = to_bytes(body, PUSH_BYTES_MAX).await?;
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &backend.folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "demo")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text(&parts.headers, header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", text(&parts.headers, header::CONTENT_ENCODING))
        .env("GIT_PROTOCOL", parts.headers.get("git-protocol").and_then(|v| v.to_str().ok()).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let feed = tokio::spawn(async move { stdin.write_all(&body).await });
    let output = child.wait_with_output().await?;
    // The program may end before it has read everything.
    let _ = feed.await;
    let head_end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").context("no header")?;
    let head = String::from_utf8_lossy(&output.stdout[..head_end]).into_owned();
    let mut response = Response::builder();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("status") {
            response = response.status(value.split(' ').next().unwrap_or("500").parse::<u16>()?);
        } else {
            response = response.header(name, value);
        }
    }
    Ok(response.body(Body::from(output.stdout[head_end + 4..].to_vec()))?)
}

/// What `post-receive` starts: reads `old new ref` lines and sends a hook in Gitea's form for each.
pub(crate) async fn send_hooks(url: &str, secret_file: &Path) -> anyhow::Result<()> {
    use hmac::{Hmac, KeyInit, Mac};
    let secret = std::fs::read_to_string(secret_file)?;
    let lines = std::io::read_to_string(std::io::stdin())?;
    let client = reqwest::Client::new();
    for line in lines.lines() {
        let [before, after, git_ref] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let here = Path::new(".");
        let show = async |format: &str| git(here, &["show", "-s", &format!("--format={format}"), after]).await;
        let body = serde_json::json!({
            "ref": git_ref,
            "before": before,
            "after": after,
            "head_commit": {
                "id": after,
                "message": show("%s").await.unwrap_or_default(),
                "author": {
                    "name": show("%an").await.unwrap_or_default(),
                    "email": show("%ae").await.unwrap_or_default(),
                },
            },
        })
        .to_string();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.trim().as_bytes())?;
        mac.update(body.as_bytes());
        let answer = client
            .post(url)
            .header("X-Gitea-Event", "push")
            .header("X-Gitea-Delivery", server::random::text(16))
            .header("X-Gitea-Signature", hex::encode(mac.finalize().into_bytes()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .send()
            .await?;
        eprintln!("windlass: the hook was answered {}", answer.status());
    }
    Ok(())
}
