//! Each part of the world does what the other tests take for granted.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    Browser, BrowserOptions, DockerEngine, Gitea, Part, Refusal, Registry, Repo, Smtp, SmtpOptions, SmtpTls, Sshd,
    docker::BASE_IMAGE, http_client, process::output, process::pid_alive, require, sign_hook,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_image_pushed_to_a_registry_with_a_password_has_its_digest_there_also_after_a_kill() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry]) {
        return Ok(());
    }
    let engine = DockerEngine::shared().await?;
    let mut registry = Registry::start(Some(("robot", "secret"))).await?;
    let digest = engine.push(BASE_IMAGE, &registry, "base/busybox", "1.36").await?;
    ensure!(digest.starts_with("sha256:"), "{digest} is a digest");
    ensure!(registry.digest("base/busybox", &digest).await? == Some(digest.clone()));
    ensure!(registry.digest("base/busybox", "none").await?.is_none());
    ensure!(registry.tags("base/busybox").await? == ["1.36"]);
    let stranger = http_client().get(format!("{}/v2/base/busybox/tags/list", registry.url())).send().await?;
    ensure!(stranger.status() == 401, "a stranger gets {}", stranger.status());

    registry.kill();
    ensure!(registry.digest("base/busybox", "1.36").await.is_err());
    registry.restart().await?;
    ensure!(registry.digest("base/busybox", "1.36").await? == Some(digest));
    Ok(())
}

#[tokio::test]
async fn a_container_of_the_base_image_serves_pages_and_goes_by_its_label() -> Result<()> {
    if !require(&[Part::Docker]) {
        return Ok(());
    }
    let engine = DockerEngine::shared().await?;
    let label = format!("windlass.test=world-{}", std::process::id());
    let serve = "mkdir /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www";
    let run = ["run", "-d", "--label", &label, "-p", "127.0.0.1::80", BASE_IMAGE, "sh", "-c", serve];
    let container = engine.docker(&run)?;
    let address = engine.docker(&["port", &container, "80/tcp"])?;
    let mut text = String::new();
    for _ in 0..100 {
        if let Ok(answer) = http_client().get(format!("http://{address}/")).send().await {
            text = answer.text().await?;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(text == "hello\n", "the page says {text:?}");
    ensure!(engine.containers(&label)? == [container]);
    engine.remove_labelled(&label)?;
    ensure!(engine.containers(&label)?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_engine_of_its_own_runs_beside_another_and_leaves_nothing() -> Result<()> {
    if !require(&[Part::Docker, Part::Root]) {
        return Ok(());
    }
    let engine = DockerEngine::start().await?;
    engine.load_base_images()?;
    let word = engine.docker(&["run", "--rm", BASE_IMAGE, "echo", "hello"])?;
    ensure!(word == "hello", "the container says {word:?}");
    let socket = engine.host().trim_start_matches("unix://").to_owned();
    engine.docker(&["run", "-d", BASE_IMAGE, "sleep", "600"])?;
    drop(engine);
    ensure!(processes_naming(&socket)?.is_empty(), "the engine still runs");
    ensure!(!Path::new(&socket).exists(), "its folder is still there");
    Ok(())
}

#[tokio::test]
async fn a_push_to_gitea_calls_the_webhook_with_a_signature() -> Result<()> {
    if !require(&[Part::Gitea]) {
        return Ok(());
    }
    let gitea = Gitea::start().await?;
    let repo = gitea.create_repo("checkout", true).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let hook = gitea.create_webhook(&repo, &format!("http://{}/hook", listener.local_addr()?), "s3cret").await?;
    ensure!(hook > 0);

    let work = Repo::init()?;
    work.write("index.html", "one")?;
    let commit = work.commit("Li Wei <li@example.com>", "first")?;
    ensure!(work.push(&repo.url, "main").is_err(), "a private repository takes a push without credentials");
    let push = work.push(&repo.url_with_credentials, "main");
    let delivery = tokio::time::timeout(SOON, receive(&listener)).await??;
    push?;
    let (head, body) = delivery.split_once("\r\n\r\n").unwrap_or_default();
    let head = head.to_ascii_lowercase();
    ensure!(head.contains("x-gitea-event: push"), "{head}");
    ensure!(head.contains(&format!("x-gitea-signature: {}", sign_hook("s3cret", body.as_bytes())?)), "{head}");
    let body: serde_json::Value = serde_json::from_str(body)?;
    ensure!(body["after"] == json!(commit) && body["ref"] == json!("refs/heads/main"));

    let status = json!({ "state": "success", "context": "ci/windlass" });
    let path = format!("repos/{}/statuses/{commit}", repo.full_name);
    gitea.api(reqwest::Method::POST, &path, Some(status)).await?;
    ensure!(gitea.commit_statuses(&repo, &commit).await?.len() == 1);
    let clone = Repo::clone_of(&repo.url_with_credentials)?;
    ensure!(clone.head()? == commit);
    Ok(())
}

#[tokio::test]
async fn a_mail_over_each_kind_of_tls_is_read_part_by_part() -> Result<()> {
    if !require(&[Part::Smtp]) {
        return Ok(());
    }
    for tls in [None, Some(SmtpTls::StartTls), Some(SmtpTls::Implicit)] {
        let auth = Some(("robot".to_owned(), "secret".to_owned()));
        let smtp = Smtp::start(SmtpOptions { auth, tls, thinks_ms: 0 }).await?;
        ensure!(send(&smtp, tls, "robot:wrong", "first").is_err(), "{tls:?}: a wrong password is taken");
        send(&smtp, tls, "robot:secret", "first")?;
        let mail = smtp.wait_for(|mail| mail.subject() == "first", SOON).await?;
        ensure!(mail.recipients == ["qa@example.com"] && mail.envelope_from == "ci@example.com");
        ensure!(mail.text.as_deref() == Some("open http://a.example/x"), "{:?}", mail.text);
        ensure!(mail.html.as_deref() == Some("<p>open</p>"), "{:?}", mail.html);
        ensure!(mail.links() == ["http://a.example/x"]);
        ensure!(mail.authenticated && mail.encrypted == tls.is_some(), "{tls:?}: {mail:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_smtp_server_refuses_when_told_and_takes_mail_again_afterwards() -> Result<()> {
    if !require(&[Part::Smtp]) {
        return Ok(());
    }
    let mut smtp = Smtp::start(SmtpOptions::default()).await?;
    for refusal in [
        Refusal::AtMail("451 4.3.0 later".into()),
        Refusal::AtRecipient("550 5.1.1 unknown".into()),
        Refusal::AtData("452 4.2.2 full".into()),
    ] {
        smtp.refuse(Some(refusal.clone())).await?;
        ensure!(send(&smtp, None, "", "refused").is_err(), "{refusal:?} is a failure for the client");
    }
    ensure!(smtp.messages().is_empty());
    smtp.refuse(Some(Refusal::HangUpAfterData)).await?;
    ensure!(send(&smtp, None, "", "unsure").is_err(), "the client does not know whether the mail was taken");
    smtp.wait_for(|mail| mail.subject() == "unsure", SOON).await?;
    smtp.refuse(None).await?;
    send(&smtp, None, "", "taken")?;
    smtp.wait_for(|mail| mail.subject() == "taken", SOON).await?;
    ensure!(smtp.wait_for(|mail| mail.subject() == "refused", Duration::from_millis(10)).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_repository_is_fetched_over_ssh_and_nothing_else_is_allowed() -> Result<()> {
    if !require(&[Part::Sshd, Part::Git]) {
        return Ok(());
    }
    let sshd = Sshd::start().await?;
    let repo = Repo::init()?;
    repo.write("a", "b")?;
    let commit = repo.commit("Dev", "first")?;
    let dir = tempfile::tempdir()?;
    let bare = repo.bare_copy(dir.path(), "code.git")?;
    let known_hosts = dir.path().join("known_hosts");
    std::fs::write(&known_hosts, sshd.known_hosts()?)?;
    let ssh = format!(
        "ssh -F none -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={} -o StrictHostKeyChecking=yes",
        sshd.client_key_file().display(),
        known_hosts.display()
    );
    let listed = output(repo.command().env("GIT_SSH_COMMAND", &ssh).args(["ls-remote", &sshd.url(&bare), "main"]))?;
    ensure!(listed.starts_with(&commit), "{listed}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{ssh} -p {} root@127.0.0.1 id", sshd.port())]);
    ensure!(output(&mut shell).is_err(), "the key opens a shell");
    Ok(())
}

#[tokio::test]
async fn a_browser_reads_clicks_and_types_in_the_asked_for_light_language_and_size() -> Result<()> {
    if !require(&[Part::Chromium, Part::Axe]) {
        return Ok(());
    }
    let site = Site::start(
        "<!doctype html><html lang=en><title>A page</title>\
         <style>body{color:#000;background:#fff} @media (prefers-color-scheme: dark){body{color:#fff;background:#111}}</style>\
         <main><h1>Hello</h1><form><label>Name <input name=name value=old></label><button>Go</button></form>\
         <p id=tall style='height:3000px'>tall</p></main><script>document.title = 'Scripted'</script>",
    )
    .await?;
    let dark = BrowserOptions { dark: true, language: "zh-CN".into(), width_px: 400, ..BrowserOptions::default() };
    let browser = Browser::start(dark).await?;
    browser.goto(&site.url).await?;
    ensure!(browser.title().await? == "Scripted" && browser.text("h1").await? == "Hello");
    ensure!(browser.count("input").await? == 1 && browser.text("h2").await.is_err());
    let seen = "return [matchMedia('(prefers-color-scheme: dark)').matches, innerWidth]";
    ensure!(browser.execute(seen, &[]).await? == json!([true, 400]));
    ensure!(site.last_request()?.to_lowercase().contains("accept-language: zh-cn"), "{}", site.last_request()?);
    ensure!(browser.axe().await?.is_empty(), "{:?}", browser.axe().await?);
    let shot = tempfile::tempdir()?.path().join("page.png");
    browser.screenshot(&shot).await?;
    let (width, height) = png_size(&shot)?;
    ensure!(width == 400 && height > 3000, "the picture has {width} x {height}");

    browser.type_into("input", "new value").await?;
    browser.click("button").await?;
    browser.wait_for("h1", SOON).await?;
    ensure!(browser.url().await?.ends_with("?name=new+value"), "{}", browser.url().await?);
    browser.set_javascript(false).await?;
    browser.goto(&site.url).await?;
    ensure!(browser.title().await? == "A page", "a page runs scripts where it may not");
    ensure!(browser.text("h1").await? == "Hello");
    ensure!(browser.wait_for("h2", Duration::from_millis(100)).await.is_err());
    Ok(())
}

#[tokio::test]
async fn axe_finds_what_is_wrong_with_a_page() -> Result<()> {
    if !require(&[Part::Chromium, Part::Axe]) {
        return Ok(());
    }
    let site = Site::start("<!doctype html><html><title>x</title><main><h1>H</h1><img src=data:,></main>").await?;
    let browser = Browser::start(BrowserOptions::default()).await?;
    browser.goto(&site.url).await?;
    let found: Vec<_> = browser.axe().await?.into_iter().map(|violation| violation.id).collect();
    ensure!(found.contains(&"html-has-lang".to_owned()) && found.contains(&"image-alt".to_owned()), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn a_dropped_part_leaves_no_process() -> Result<()> {
    if !require(&[Part::Chromium, Part::Smtp]) {
        return Ok(());
    }
    let mut command = Command::new("sleep");
    command.arg("600");
    let dir = tempfile::tempdir()?;
    let process = tests::Process::spawn("sleep", command, &dir.path().join("log"), tests::Stop::Kill)?;
    let pid = process.pid();
    ensure!(pid_alive(pid));
    drop(process);
    ensure!(!pid_alive(pid));

    let browser = Browser::start(BrowserOptions { width_px: 777, ..BrowserOptions::default() }).await?;
    let profile = browser.profile().to_owned();
    let with_profile = || processes_naming(&profile.to_string_lossy());
    ensure!(!with_profile()?.is_empty(), "the browser runs with its profile");
    drop(browser);
    for _ in 0..100 {
        if with_profile()?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{:?} still run after the browser was dropped", with_profile()?)
}

/// The ids of the processes whose command line holds `word`.
fn processes_naming(word: &str) -> Result<Vec<u32>> {
    let pids = std::fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Ok(pids.filter(|pid| String::from_utf8_lossy(&names(pid)).contains(word)).collect())
}

/// A page on a port of its own.
struct Site {
    url: String,
    requests: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Site {
    async fn start(page: &'static str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let requests = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = seen.clone();
                // Each connection on its own: a browser opens some that it does not use.
                tokio::spawn(async move {
                    let mut request = vec![0; 8192];
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    let is_page = !request.starts_with("GET /favicon");
                    if let (true, Ok(mut seen)) = (is_page && length > 0, seen.lock()) {
                        seen.push(request);
                    }
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n";
                    let answer = format!("{head}content-length: {}\r\n\r\n{page}", page.len());
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Ok(Self { url, requests })
    }

    fn last_request(&self) -> Result<String> {
        let requests = self.requests.lock().map_err(|_| anyhow::anyhow!("the site has panicked"))?;
        Ok(requests.last().cloned().unwrap_or_default())
    }
}

/// One HTTP request, answered with 200.
async fn receive(listener: &TcpListener) -> Result<String> {
    let (mut stream, _) = listener.accept().await?;
    let mut data = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&data).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
                return Ok(text);
            }
        }
        let mut more = [0; 4096];
        let count = stream.read(&mut more).await?;
        ensure!(count > 0, "the connection ended within the request");
        data.extend_from_slice(&more[..count]);
    }
}

/// Sends a mail with curl: a client that is not ours.
fn send(smtp: &Smtp, tls: Option<SmtpTls>, user: &str, subject: &str) -> Result<()> {
    let mail = format!(
        "From: ci@example.com\r\nTo: qa@example.com\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
         open http://a.example/x\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>open</p>\r\n--b--\r\n"
    );
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("mail");
    std::fs::write(&file, mail)?;
    let scheme = if tls == Some(SmtpTls::Implicit) { "smtps" } else { "smtp" };
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "10", "--noproxy", "*", "--mail-from", "ci@example.com"]);
    curl.args(["--mail-rcpt", "qa@example.com", "-T"]).arg(&file);
    if !user.is_empty() {
        curl.args(["--user", user]);
    }
    if tls.is_some() {
        curl.arg("--ssl-reqd").arg("--cacert").arg(smtp.ca_file());
    }
    output(curl.arg(format!("{scheme}://127.0.0.1:{}", smtp.port()))).map(drop)
}

/// Width and height of a PNG, which its first chunk states.
fn png_size(file: &Path) -> Result<(u32, u32)> {
    let data = std::fs::read(file)?;
    ensure!(data.len() > 24 && data.starts_with(b"\x89PNG"), "not a PNG");
    let number = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
    Ok((number(16), number(20)))
}
