//! Prometheus, scraping one server: a process on a port and a folder of its own.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    parts::prometheus_home,
    process::{Process, Stop, free_port, http_client},
};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    url: String,
    http: reqwest::Client,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target` (`host:port`) each second with this token, as the job `windlass`, and loads the
    /// rules of a file; returns when it answers.
    ///
    /// # Errors
    /// When it is missing or does not become ready.
    pub async fn start(target: &str, token: &str, rules: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let credentials = dir.path().join("token");
        fs::write(&credentials, token)?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  \
             - job_name: windlass\n    authorization: {{credentials_file: '{}'}}\n    \
             static_configs: [{{targets: ['{target}']}}]\n",
            rules.display(),
            credentials.display(),
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config)?;
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(prometheus_home().join("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let stop = Stop::Term { within: Duration::from_secs(10) };
        let process = Process::spawn("prometheus", command, &dir.path().join("log"), stop)?;
        let mut prometheus = Self { process, url: format!("http://{address}"), http: http_client(), _dir: dir };
        let ready = format!("{}/-/ready", prometheus.url);
        let http = prometheus.http.clone();
        let answers = || async { http.get(&ready).send().await.ok()?.error_for_status().ok() };
        prometheus.process.ready(READY_WITHIN, answers).await?;
        Ok(prometheus)
    }

    /// What an expression gives now.
    ///
    /// # Errors
    /// When Prometheus does not take it.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let query = [("query", expression)];
        let answer = self.http.get(format!("{}/api/v1/query", self.url)).query(&query).send().await?;
        let answer: Value = answer.json().await?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until an expression gives something, and gives it.
    ///
    /// # Errors
    /// When it does not in time, or Prometheus ends.
    pub async fn until(&mut self, expression: &str) -> Result<Vec<Value>> {
        let (http, url) = (self.http.clone(), format!("{}/api/v1/query", self.url));
        let probe = || async {
            let answer = http.get(&url).query(&[("query", expression)]).send().await.ok()?;
            let answer: Value = answer.json().await.ok()?;
            answer["data"]["result"].as_array().filter(|found| !found.is_empty()).cloned()
        };
        self.process.ready(READY_WITHIN, probe).await.with_context(|| format!("{expression} gives nothing"))
    }
}

/// Runs promtool; gives what it says when it is content.
///
/// # Errors
/// When it is not, with what it says.
pub fn promtool(arguments: &[&str], input: &str, folder: &Path) -> Result<String> {
    use std::io::Write as _;
    let mut command = Command::new(prometheus_home().join("promtool"));
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("promtool takes no input")?;
    let input = input.to_owned();
    // Beside the reading: it may write before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let written = writer.join();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool {}: {said}", arguments.join(" "));
    ensure!(matches!(written, Ok(Ok(()))), "promtool did not read everything");
    Ok(said)
}
