//! The gateway as a process: killed, told to end, replaced by another, with clients that go on asking. What it does to
//! requests in detail is tested beside its code.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tests::evidence::{Tier, record};
use tests::{Windlass, free_port, http_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// A gateway's folder, its port, and a service behind it.
struct Bench {
    dir: tempfile::TempDir,
    port: u16,
    service: Service,
}

impl Bench {
    /// Starts a gateway and has it route `shop.test` to the service.
    async fn start() -> Result<(Self, Windlass)> {
        Self::start_with(&[]).await
    }

    async fn start_with(environment: &[(&str, &str)]) -> Result<(Self, Windlass)> {
        let bench = Self { dir: tempfile::tempdir()?, port: free_port(), service: Service::start().await? };
        let gateway = bench.gateway_with("first", environment).await?;
        let config = json!({"generation": 1, "config": {
            "version": 1,
            "listen": [format!("127.0.0.1:{}", bench.port)],
            "revisions": {"shop-1": {"backends": [format!("127.0.0.1:{}", bench.service.port)]}},
            "routes": {"shop.test": {"shares": [{"revision": "shop-1", "weight": 10_000}]}},
        }});
        let client = control(&bench.folder())?;
        let taken = client.put("http://gateway/v1/config").json(&config).send().await?;
        ensure!(taken.status() == StatusCode::OK, "{}", taken.text().await?);
        Ok((bench, gateway))
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("gateway")
    }

    /// Starts a gateway process in the folder and waits until the control socket is its own.
    async fn gateway(&self, name: &str) -> Result<Windlass> {
        self.gateway_with(name, &[]).await
    }

    async fn gateway_with(&self, name: &str, environment: &[(&str, &str)]) -> Result<Windlass> {
        let (dir, folder) = (self.dir.path().join(name), self.folder());
        std::fs::create_dir_all(&dir)?;
        let folder_text = folder.to_str().context("the folder is no text")?;
        let mut gateway = Windlass::start(&dir, &["gateway", "--folder", folder_text], environment)?;
        answers(&mut gateway, &folder).await?;
        Ok(gateway)
    }

    async fn ask(&self, path: &str) -> Result<String> {
        ask(&http_client(), self.port, path).await
    }
}

async fn answers(gateway: &mut Windlass, folder: &Path) -> Result<()> {
    let pid = gateway.process().pid();
    let own = || async {
        let answer = control(folder).ok()?.get("http://gateway/v1/healthz").send().await.ok()?;
        let health: Value = answer.json().await.ok()?;
        (health["pid"] == pid).then_some(())
    };
    gateway.process().ready(SOON, own).await
}

fn control(folder: &Path) -> Result<reqwest::Client> {
    // The client sets up the process's cryptography, which every client needs.
    drop(http_client());
    let socket = folder.join("control.sock");
    Ok(reqwest::Client::builder().unix_socket(socket).timeout(SOON).build()?)
}

async fn ask(client: &reqwest::Client, port: u16, path: &str) -> Result<String> {
    let request = client.get(format!("http://127.0.0.1:{port}{path}")).header("host", "shop.test");
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status == StatusCode::OK, "{status}: {text}");
    Ok(text)
}

/// A service that answers "hello", and `/hold` when it is told to.
struct Service {
    port: u16,
    arrived: Arc<Semaphore>,
    release: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Service {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (arrived, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (seen, go) = (Arc::clone(&arrived), Arc::clone(&release));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&seen), Arc::clone(&go)));
            }
        });
        Ok(Self { port, arrived, release, task })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: TcpStream, arrived: Arc<Semaphore>, release: Arc<Semaphore>) -> Result<()> {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(stream.read_buf(&mut head).await? > 0, "the other side closed");
        }
        if head.starts_with(b"GET /hold ") {
            arrived.add_permits(1);
            release.acquire().await?.forget();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await?;
        head.clear();
    }
}

#[tokio::test]
async fn a_killed_gateway_serves_again_without_being_told() -> Result<()> {
    serves_again(&[]).await
}

#[tokio::test]
async fn without_a_kept_table_a_killed_gateway_does_not_serve_again() -> Result<()> {
    let end = serves_again(&[("WINDLASS_WITHOUT", "kept-table")]).await;
    ensure!(end.is_err_and(|error| format!("{error:#}").contains("not routed after the restart")), "it served again");
    Ok(())
}

async fn serves_again(environment: &[(&str, &str)]) -> Result<()> {
    let (bench, mut gateway) = Bench::start_with(environment).await?;
    ensure!(bench.ask("/").await? == "hello", "not routed");
    gateway.kill();
    ensure!(bench.ask("/").await.is_err(), "a killed gateway answers");
    gateway.restart()?;
    answers(&mut gateway, &bench.folder()).await?;
    let again = bench.ask("/").await.context("not routed after the restart")?;
    ensure!(again == "hello", "not routed after the restart: {again}");
    Ok(())
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_exits_with_0() -> Result<()> {
    let (bench, mut gateway) = Bench::start().await?;
    let port = bench.port;
    let held = tokio::spawn(async move { ask(&http_client(), port, "/hold").await });
    timeout(SOON, bench.service.arrived.acquire()).await??.forget();
    gateway.process().signal(libc::SIGTERM);
    // It takes nobody any more, and is still there for the one that it has.
    let gone = || async { TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(()) };
    gateway.process().ready(SOON, gone).await?;
    bench.service.release.add_permits(1);
    ensure!(held.await?? == "hello", "the request in flight was lost");
    ensure!(exit_code(&mut gateway).await? == Some(0), "{}", gateway.log());
    Ok(())
}

async fn exit_code(gateway: &mut Windlass) -> Result<Option<i32>> {
    let ended = async {
        loop {
            if let Some(status) = gateway.process().exit_status()? {
                return Ok(status.code());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, ended).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_replaced_under_traffic_without_a_failed_request() -> Result<()> {
    const REPLACEMENTS: usize = 5;
    const BETWEEN: usize = 200;
    let (bench, mut gateway) = Bench::start().await?;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<JoinHandle<Result<()>>> = (0..4)
        .map(|_| {
            let (stop, sent, port) = (Arc::clone(&stop), Arc::clone(&sent), bench.port);
            tokio::spawn(async move {
                let client = http_client();
                while !stop.load(Ordering::SeqCst) {
                    ask(&client, port, "/").await?;
                    sent.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            })
        })
        .collect();
    for number in 0..REPLACEMENTS {
        // Requests before, between and after, however fast the machine is.
        let enough = sent.load(Ordering::SeqCst) + BETWEEN;
        let more = || async { (sent.load(Ordering::SeqCst) >= enough).then_some(()) };
        gateway.process().ready(SOON, more).await?;
        let next = bench.gateway(&format!("next-{number}")).await?;
        let mut old = std::mem::replace(&mut gateway, next);
        ensure!(exit_code(&mut old).await? == Some(0), "{}", old.log());
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await?.context("a request failed")?;
    }
    let sent = sent.load(Ordering::SeqCst);
    ensure!(sent >= REPLACEMENTS * BETWEEN, "only {sent} requests were sent");
    record(
        "the gateway is replaced by another process without a failed request",
        Tier::RealPart,
        format!("{REPLACEMENTS} replacements, {sent} requests, 0 failed"),
    );
    Ok(())
}

#[tokio::test]
async fn a_folder_has_one_gateway_and_what_cannot_start_says_why() -> Result<()> {
    let (bench, mut gateway) = Bench::start().await?;
    // Another folder, the same address: it must not share the port behind anyone's back.
    let kept = std::fs::read(bench.folder().join("gateway.json"))?;
    let other = bench.dir.path().join("other");
    std::fs::create_dir(&other)?;
    std::fs::write(other.join("gateway.json"), kept)?;
    let mut second = Windlass::start(&other, &["gateway", "--folder", "."], &[])?;
    ensure!(exit_code(&mut second).await? == Some(1), "it started");
    let said = second.log();
    ensure!(said.contains(&format!("failed to listen on 127.0.0.1:{}", bench.port)), "{said}");
    ensure!(gateway.process().alive(), "the first one ended");
    ensure!(bench.ask("/").await? == "hello", "not routed");
    Ok(())
}
