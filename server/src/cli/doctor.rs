//! `windlass doctor`: looks at what a server needs, with the evidence and the fix for each. On the server's machine it reads
//! the configuration and looks for itself (`machine`); from anywhere it asks the server (`remote`).

mod machine;
mod remote;

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Context,
    client::Target,
    exit::Exit,
    failure::Failure,
    output::{Paint, clean},
};

/// Look at what the server needs: clock, disk, engine, registries, mail, gateway
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The server's configuration; by default /etc/windlass/windlass.yaml where it exists
    #[arg(long, env = "WINDLASS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

const DEFAULT_CONFIG: &str = "/etc/windlass/windlass.yaml";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

/// One check: what was looked at, what was seen, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    evidence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn good(name: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Good, evidence: evidence.into(), fix: None }
    }

    fn warning(name: impl Into<String>, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Warning, evidence: evidence.into(), fix: Some(fix.into()) }
    }

    fn bad(name: impl Into<String>, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Bad, evidence: evidence.into(), fix: Some(fix.into()) }
    }
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// Looks. The command ends with 0, or with 1 where something is bad.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let config = match &arguments.config {
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists()),
    };
    let mut checks = Vec::new();
    let mut public_url = None;
    if let Some(path) = &config {
        let (found, url) = machine::look(path).await;
        checks.extend(found);
        public_url = url;
    }
    // The server of the configuration, unless another one is named; its machine needs no login.
    let url = context.target.url.clone().or(public_url);
    let target = Target { url, ca_file: context.target.ca_file.clone() };
    match target.server() {
        Ok(_) => checks.extend(remote::look(&target, config.is_none()).await),
        Err(_) if config.is_some() => {}
        Err(failure) => return Err(failure.next("windlass doctor --config FILE on the server's machine")),
    }
    let report = Report { ok: checks.iter().all(|check| check.verdict != Verdict::Bad), checks };
    context.out.result("Doctor", &report, |paint| text(paint, &report.checks))?;
    Ok(if report.ok { Exit::Ok } else { Exit::Unexpected })
}

fn text(paint: Paint, checks: &[Check]) -> String {
    let width = checks.iter().map(|check| console::measure_text_width(&check.name)).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Good => paint.good("✓"),
            Verdict::Warning => paint.warn("!"),
            Verdict::Bad => paint.bad("✗"),
        };
        let pad = " ".repeat(width - console::measure_text_width(&check.name));
        text.push_str(&format!("{mark} {}{pad}  {}\n", check.name, clean(&check.evidence)));
        if let Some(fix) = &check.fix {
            text.push_str(&format!("  {}  {} {}\n", " ".repeat(width), paint.dim("fix:"), clean(fix)));
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (warnings, bad) = (count(Verdict::Warning), count(Verdict::Bad));
    let summary = format!("{} checks, {warnings} to look at, {bad} bad", checks.len());
    text.push_str(&format!("{}\n", if bad == 0 { paint.good(&summary) } else { paint.bad(&summary) }));
    text
}

/// The verdict on a clock that differs by so many seconds from another one.
fn clock(name: String, other: &str, difference_s: i64) -> Check {
    let evidence = format!("{} s from the clock of {other}", difference_s.abs());
    let fix = "let both machines set their clocks by NTP (chrony or systemd-timesyncd)";
    match difference_s.abs() {
        // The header has whole seconds, and the answer takes its time.
        0..=3 => Check::good(name, evidence),
        4..=60 => Check::warning(name, evidence, fix),
        _ => Check::bad(name, format!("{evidence}: deadlines and certificates are judged wrongly"), fix),
    }
}

/// How far our clock is before the one that an HTTP `Date` header shows.
fn difference_s(date: &str, now: jiff::Timestamp) -> Option<i64> {
    let date = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(now.as_second() - date.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_gives_evidence_and_fixes() {
        let checks = [
            Check::good("docker", "engine 20.10.24, API 1.41"),
            Check::warning("git", "there is no program git", "apt install git"),
            Check::bad("disk", "1 MiB free under /state", "free space"),
        ];
        insta::assert_snapshot!(text(Paint::OFF, &checks), @r"
        ✓ docker  engine 20.10.24, API 1.41
        ! git     there is no program git
                  fix: apt install git
        ✗ disk    1 MiB free under /state
                  fix: free space
        3 checks, 1 to look at, 1 bad
        ");
    }

    #[test]
    fn clocks_are_compared_by_the_header_of_http() {
        let now: jiff::Timestamp = "1994-11-06T08:49:47Z".parse().unwrap();
        let difference = difference_s("Sun, 06 Nov 1994 08:49:37 GMT", now).unwrap();
        assert_eq!(difference, 10);
        assert_eq!(difference_s("yesterday", now), None);
        let verdicts = [0, -3, 10, 3_600].map(|s| clock("clock".into(), "x", s).verdict);
        assert_eq!(verdicts, [Verdict::Good, Verdict::Good, Verdict::Warning, Verdict::Bad]);
    }
}
