//! A `windlass serve` as a process; unless told otherwise without an engine, a runner and a gateway.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::{Windlass, free_port, http_client, lone::lone_settings};

use crate::seed::ADMIN;

const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Where a server lives, before and after it runs.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: PathBuf,
    pub(crate) url: String,
    pub(crate) address: String,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        Self::with(|_| {})
    }

    /// With other settings.
    pub(crate) fn with(change: impl FnOnce(&mut Value)) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = format!("127.0.0.1:{}", free_port());
        let url = format!("http://{address}");
        let config = dir.path().join("windlass.yaml");
        let mut settings = lone_settings(dir.path(), &address);
        change(&mut settings);
        std::fs::write(&config, settings.to_string())?;
        Ok(Self { dir, config, url, address })
    }

    /// Starts the server and waits until it is ready; gives how long that took.
    pub(crate) async fn start(&self) -> Result<(Windlass, Duration)> {
        let started = Instant::now();
        let config = self.config.to_str().context("the folder is no text")?;
        let windlass = Windlass::start(self.dir.path(), &["serve", "--config", config], &[])?;
        self.ready().await?;
        Ok((windlass, started.elapsed()))
    }

    /// Waits until the server takes changes.
    pub(crate) async fn ready(&self) -> Result<()> {
        let (http, url) = (http_client(), format!("{}/readyz", self.url));
        let started = Instant::now();
        while !http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            anyhow::ensure!(started.elapsed() < READY_WITHIN, "the server is not ready");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// A token of the administrator.
    pub(crate) async fn sign_in(&self) -> Result<String> {
        let login = json!({"name": ADMIN.0, "password": ADMIN.1});
        let answer = http_client().post(format!("{}/api/v1/login", self.url)).json(&login).send().await?;
        let given: Value = answer.error_for_status()?.json().await?;
        Ok(given["token"].as_str().context("there is no token")?.to_owned())
    }
}

/// Resident memory of a process in MB, as the kernel counts it.
pub(crate) fn resident_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel names no VmRSS")?;
    let kb: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kb / 1024.0)
}
