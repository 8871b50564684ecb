//! What the benches share: the load generator, and under which conditions a figure was taken. Benches compare the product
//! with another program in one run on one machine, and claim no time: the ratio is what travels.

use std::{fs, net::TcpStream, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::process::{Process, Stop, output};

const STOP_WITHIN: Duration = Duration::from_secs(5);
const READY_WITHIN: Duration = Duration::from_secs(10);

/// One row of the table of `make bench`, as `target/bench/summary.json` lists them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The product's figure, in `unit`.
    pub ours: f64,
    /// The figure of the program beside it, in `unit`; none where the goal is a figure of its own.
    pub peer: Option<f64>,
    /// The unit of both.
    pub unit: String,
    /// Ours divided by the peer's.
    pub ratio: Option<f64>,
    /// The goal: `<= 0.6 x`, `>= 5000 /s`.
    pub goal: String,
    /// Whether the goal was reached.
    pub met: bool,
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The figure itself, at most.
    AtMost(f64),
    /// The figure itself, at least.
    AtLeast(f64),
    /// Its ratio to the peer's figure, at most.
    RatioAtMost(f64),
    /// Its ratio to the peer's figure, at least.
    RatioAtLeast(f64),
}

impl Row {
    /// A row, judged.
    #[must_use]
    pub fn new(name: &str, ours: f64, peer: Option<f64>, unit: &str, goal: Goal) -> Self {
        let ratio = peer.filter(|peer| *peer > 0.0).map(|peer| ours / peer);
        let (goal, met) = match goal {
            Goal::AtMost(most) => (format!("<= {most} {unit}"), ours <= most),
            Goal::AtLeast(least) => (format!(">= {least} {unit}"), ours >= least),
            Goal::RatioAtMost(most) => (format!("<= {most} x"), ratio.is_some_and(|ratio| ratio <= most)),
            Goal::RatioAtLeast(least) => (format!(">= {least} x"), ratio.is_some_and(|ratio| ratio >= least)),
        };
        Self {
            name: name.into(),
            ours: rounded(ours),
            peer: peer.map(rounded),
            unit: unit.into(),
            ratio: ratio.map(rounded),
            goal,
            met,
        }
    }

    /// Notes it for the table of this run.
    ///
    /// # Panics
    /// When the file of the rows cannot be written.
    pub fn note(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_default());
        crate::evidence::append(&folder().join("rows.jsonl"), self);
    }
}

/// Three significant digits after the point are more than a machine repeats.
fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// The folder of the figures: `bench` in cargo's target folder.
#[must_use]
pub fn folder() -> std::path::PathBuf {
    crate::evidence::target().join("bench")
}

/// The value below which `percent` of the values lie; 0 of none.
#[must_use]
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or(0.0)
}

/// What a reader must know to judge a figure: how the product was built, the cores, and whether others used them.
/// Call it before the work begins.
#[must_use]
pub fn conditions() -> String {
    let build = if cfg!(debug_assertions) { "unoptimised build" } else { "release build" };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|minute| minute.parse().ok()).unwrap_or(0.0);
    let busy =
        if load > 0.5 { format!(", the machine was busy with other things (load {load})") } else { String::new() };
    format!("{build}, {cores} cores{busy}")
}

/// The middle one, or the mean of the two in the middle; 0 of none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => 0.0,
        Some(&value) if sorted.len() % 2 == 1 => value,
        Some(&value) => f64::midpoint(sorted[middle - 1], value),
    }
}

/// What `wrk` measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests per second.
    pub requests_per_s: f64,
    /// 99 of 100 requests were answered within these milliseconds.
    pub p99_ms: f64,
}

/// Asks 127.0.0.1:`port` for `host` over `connections` connections that are kept, as fast as it answers.
///
/// # Errors
/// When `wrk` fails, or a single request was not answered with 2xx.
pub fn load(port: u16, host: &str, connections: u16, seconds: u16) -> Result<Load> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--latency", "-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s")]);
    wrk.args(["-H", &format!("Host: {host}"), &format!("http://127.0.0.1:{port}/")]);
    read_report(&output(&mut wrk)?)
}

fn read_report(report: &str) -> Result<Load> {
    for trouble in ["Socket errors:", "Non-2xx"] {
        ensure!(!report.contains(trouble), "requests failed: {report}");
    }
    let after = |word: &str| {
        let line = report.lines().find_map(|line| line.trim().strip_prefix(word));
        line.map(str::trim).with_context(|| format!("wrk did not say {word}: {report}"))
    };
    Ok(Load { requests_per_s: after("Requests/sec:")?.parse()?, p99_ms: milliseconds(after("99%")?)? })
}

fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("{text} is not a time")
}

/// Starts nginx in `dir` with these lines in its `http` block, and waits until it listens on `port`.
///
/// # Errors
/// When it does not become ready.
pub async fn nginx(dir: &Path, workers: &str, port: u16, http: &str) -> Result<Process> {
    fs::create_dir_all(dir)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
        .concat();
    let user = if crate::process::is_root() { "user root;\n" } else { "" };
    let config = format!(
        "{user}daemon off;\nworker_processes {workers};\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{temporary}{http}}}\n",
        dir = dir.display(),
    );
    fs::write(dir.join("nginx.conf"), config)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log"));
    let mut process = Process::spawn("nginx", command, &dir.join("log"), Stop::Term { within: STOP_WITHIN })?;
    process.ready(READY_WITHIN, || async { TcpStream::connect(("127.0.0.1", port)).ok().map(drop) }).await?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 2 connections\n  Thread Stats   Avg\n  \
        Latency Distribution\n     50%  512.00us\n     99%    1.25ms\n  100 requests in 1.00s, 1MB read\n\
        Requests/sec:  21034.50\nTransfer/sec:      1.00MB\n";

    #[test]
    fn a_report_is_read_and_one_with_failures_refused() {
        assert_eq!(read_report(REPORT).unwrap(), Load { requests_per_s: 21034.5, p99_ms: 1.25 });
        assert!(read_report(&format!("{REPORT}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(read_report("nothing").is_err());
        assert!((milliseconds("250.00us").unwrap() - 0.25).abs() < 1e-9);
        assert!((milliseconds("1.50s").unwrap() - 1500.0).abs() < 1e-9);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }
}
