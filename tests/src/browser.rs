//! Chromium through chromedriver: a small WebDriver client with what page tests need, and axe-core.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    parts::axe_script,
    process::{Process, Stop, free_port, http_client, is_root},
};

const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(50);
/// The key of an element's reference, fixed by the WebDriver specification, section 12.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How the browser looks at pages. Everything can be changed later.
#[derive(Clone, Debug)]
pub struct BrowserOptions {
    /// Whether pages may run scripts.
    pub javascript: bool,
    /// `prefers-color-scheme: dark`.
    pub dark: bool,
    /// What `Accept-Language` says.
    pub language: String,
    /// Width of the page in CSS pixels.
    pub width_px: u32,
    /// Height of the visible part in CSS pixels.
    pub height_px: u32,
}

impl Default for BrowserOptions {
    fn default() -> Self {
        Self { javascript: true, dark: false, language: "en".into(), width_px: 1280, height_px: 800 }
    }
}

/// What axe-core found wrong.
#[derive(Clone, Debug, Deserialize)]
pub struct Violation {
    /// The rule: `color-contrast`.
    pub id: String,
    /// `minor` to `critical`.
    pub impact: Option<String>,
    /// The rule in words.
    pub help: String,
    /// The elements.
    pub nodes: Vec<ViolationNode>,
}

/// An element that breaks a rule.
#[derive(Clone, Debug, Deserialize)]
pub struct ViolationNode {
    /// Its mark-up.
    pub html: String,
    /// What to do about it.
    #[serde(rename = "failureSummary")]
    pub summary: Option<String>,
}

/// A browser with one window. Scripts of the test run also where pages may not.
#[derive(Debug)]
pub struct Browser {
    // Before the folder of the profile, so that it ends before the folder goes.
    _driver: Process,
    profile: TempDir,
    session: String,
    http: reqwest::Client,
}

impl Browser {
    /// Starts chromedriver and a headless Chromium with a fresh profile.
    ///
    /// # Errors
    /// When a program is missing or does not become ready.
    pub async fn start(options: BrowserOptions) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let (http, port, log) = (http_client(), free_port(), profile.path().join("chromedriver.log"));
        // No --allowed-ips: with it, chromedriver listens on every address.
        let mut driver = Process::spawn("chromedriver", driver_command(port, profile.path()), &log, Stop::Kill)?;
        let base = format!("http://127.0.0.1:{port}");
        let status = format!("{base}/status");
        let ready = || async {
            let answer: Value = http.get(&status).send().await.ok()?.json().await.ok()?;
            answer["value"]["ready"].as_bool().filter(|ready| *ready).map(drop)
        };
        driver.ready(READY_WITHIN, ready).await?;
        let answer = call(&http, Method::POST, &format!("{base}/session"), capabilities(profile.path())).await?;
        let id = answer["sessionId"].as_str().context("chromedriver gave no session")?;
        let session = format!("{base}/session/{id}");
        let browser = Self { _driver: driver, profile, session, http };
        browser.set_size(options.width_px, options.height_px).await?;
        browser.set_dark(options.dark).await?;
        browser.set_language(&options.language).await?;
        browser.set_javascript(options.javascript).await?;
        Ok(browser)
    }

    /// Opens an address and waits until the page is loaded.
    ///
    /// # Errors
    /// When nothing answers there.
    pub async fn goto(&self, url: &str) -> Result<()> {
        self.post("url", json!({ "url": url })).await.map(drop)
    }

    /// The address of the page.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn url(&self) -> Result<String> {
        self.get_text("url").await
    }

    /// The title of the page.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn title(&self) -> Result<String> {
        self.get_text("title").await
    }

    /// The mark-up of the page as it is now.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn source(&self) -> Result<String> {
        self.get_text("source").await
    }

    /// How many elements match a CSS selector.
    ///
    /// # Errors
    /// When the selector is wrong.
    pub async fn count(&self, css: &str) -> Result<usize> {
        let found = self.post("elements", json!({ "using": "css selector", "value": css })).await?;
        Ok(found.as_array().map_or(0, Vec::len))
    }

    /// The visible text of the first element that matches.
    ///
    /// # Errors
    /// When none matches.
    pub async fn text(&self, css: &str) -> Result<String> {
        let element = self.element(css).await?;
        self.get_text(&format!("element/{element}/text")).await
    }

    /// An attribute of the first element that matches, or `None` when it lacks it.
    ///
    /// # Errors
    /// When no element matches.
    pub async fn attribute(&self, css: &str, name: &str) -> Result<Option<String>> {
        let element = self.element(css).await?;
        let path = format!("{}/element/{element}/attribute/{name}", self.session);
        let value = call(&self.http, Method::GET, &path, Value::Null).await?;
        Ok(value.as_str().map(str::to_owned))
    }

    /// Clicks the first element that matches, as a person does: it must be visible and not covered.
    ///
    /// # Errors
    /// When there is none or it cannot be clicked.
    pub async fn click(&self, css: &str) -> Result<()> {
        let element = self.element(css).await?;
        self.post(&format!("element/{element}/click"), json!({})).await.map(drop)
    }

    /// Empties the first field that matches and types into it.
    ///
    /// # Errors
    /// When there is none or it takes no text.
    pub async fn type_into(&self, css: &str, text: &str) -> Result<()> {
        let element = self.element(css).await?;
        self.post(&format!("element/{element}/clear"), json!({})).await?;
        self.post(&format!("element/{element}/value"), json!({ "text": text })).await.map(drop)
    }

    /// Waits until an element matches.
    ///
    /// # Errors
    /// When none does in time; the message holds the address of the page.
    pub async fn wait_for(&self, css: &str, within: Duration) -> Result<()> {
        let wait = async {
            while self.count(css).await? == 0 {
                tokio::time::sleep(POLL_EVERY).await;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(within, wait).await {
            Ok(done) => done,
            Err(_) => bail!("nothing matches {css} on {} after {within:?}", self.url().await?),
        }
    }

    /// Runs the body of a function (`return document.title`) with `arguments` and gives what it returns.
    ///
    /// # Errors
    /// When the script throws.
    pub async fn execute(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.post("execute/sync", json!({ "script": script, "args": arguments })).await
    }

    /// Calls the DevTools protocol: `Network.clearBrowserCookies`.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn cdp(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// Writes a PNG of the whole page, also of what lies below the visible part.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn screenshot(&self, file: &Path) -> Result<()> {
        let shot = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.cdp("Page.captureScreenshot", shot).await?;
        let data = BASE64_STANDARD.decode(shot["data"].as_str().context("the browser gave no picture")?)?;
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(file, data).with_context(|| format!("failed to write {}", file.display()))
    }

    /// Sets the size of the visible part in CSS pixels; narrow sizes too, which a window cannot have.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn set_size(&self, width_px: u32, height_px: u32) -> Result<()> {
        let size = json!({ "width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": false });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await.map(drop)
    }

    /// Sets `prefers-color-scheme`.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn set_dark(&self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.cdp("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// Sets `Accept-Language` from the next page on.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn set_language(&self, language: &str) -> Result<()> {
        let agent = self.execute("return navigator.userAgent", &[]).await?;
        let agent = json!({ "userAgent": agent, "acceptLanguage": language });
        self.cdp("Emulation.setUserAgentOverride", agent).await.map(drop)
    }

    /// Lets pages run scripts or not, from the next page on.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn set_javascript(&self, on: bool) -> Result<()> {
        self.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": !on })).await.map(drop)
    }

    /// What the page wrote to the console since the last call, refused resources and broken policies among them.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn console(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", json!({ "type": "browser" })).await?;
        let text = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        Ok(entries.as_array().map(|entries| entries.iter().map(text).collect()).unwrap_or_default())
    }

    /// Checks the page with axe-core, all rules; pages must be allowed to run scripts.
    ///
    /// # Errors
    /// When `make parts` has not brought axe-core or the check cannot run.
    pub async fn axe(&self) -> Result<Vec<Violation>> {
        let script = fs::read_to_string(axe_script()).context("failed to read axe-core: run `make parts`")?;
        // Through DevTools: the page's own content security policy would refuse a script element.
        self.cdp("Runtime.evaluate", json!({ "expression": script })).await?;
        let run = "const done = arguments[0]; \
            axe.run().then(r => done({ found: r.violations }), e => done({ error: String(e) }))";
        let mut answer = self.post("execute/async", json!({ "script": run, "args": [] })).await?;
        if let Some(error) = answer["error"].as_str() {
            bail!("axe-core failed: {error}");
        }
        Ok(serde_json::from_value(answer["found"].take())?)
    }

    /// The folder of its profile; every one of its processes names it.
    #[must_use]
    pub fn profile(&self) -> &Path {
        self.profile.path()
    }

    async fn element(&self, css: &str) -> Result<String> {
        let found = self.post("element", json!({ "using": "css selector", "value": css })).await;
        let found = found.with_context(|| format!("failed to find {css}"))?;
        Ok(found[ELEMENT].as_str().context("chromedriver gave no element")?.to_owned())
    }

    async fn get_text(&self, path: &str) -> Result<String> {
        let value = call(&self.http, Method::GET, &format!("{}/{path}", self.session), Value::Null).await?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        call(&self.http, Method::POST, &format!("{}/{path}", self.session), body).await
    }
}

/// Chromium's processes leave the group of the driver. In a process namespace they end with it, however it ends.
fn driver_command(port: u16, folder: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "chromedriver"]);
        command
    } else {
        Command::new("chromedriver")
    };
    // A killed Chromium leaves its temporary files.
    command.arg(format!("--port={port}")).env("TMPDIR", folder);
    command
}

fn capabilities(profile: &Path) -> Value {
    let profile = format!("--user-data-dir={}", profile.join("profile").display());
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
        "--hide-scrollbars",
        &profile,
    ];
    let options = json!({ "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" } });
    json!({ "capabilities": { "alwaysMatch": options } })
}

async fn call(http: &reqwest::Client, method: Method, url: &str, body: Value) -> Result<Value> {
    let mut request = http.request(method, url);
    if !body.is_null() {
        request = request.json(&body);
    }
    let mut answer: Value = request.send().await?.json().await?;
    let value = answer["value"].take();
    if let Some(error) = value["error"].as_str() {
        bail!("{error}: {}", value["message"].as_str().unwrap_or_default().lines().next().unwrap_or_default());
    }
    Ok(value)
}
