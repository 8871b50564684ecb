//! The contract, case by case, seen from the parent. What the children do lives in `child`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use server::store::engine::EngineKind;
use tests::SmallDisk;

use crate::child::{WRITERS, data};
use crate::children::{Running, new_task};
use crate::kit::{Outcome, Random, Setting, text};

/// Resident memory of the child after 200,000 records of 1 KB, with the default cache.
const IDLE_BOUND_MB: u64 = 60;
const WRITING_BOUND_MB: u64 = 120;
/// Disk for what is alive, after everything was overwritten 200 times.
const SPACE_BOUND: u64 = 16;

fn temporary() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| error.to_string())
}

/// Each commit has at least one flush that reaches the medium (`fsync` or `fdatasync`). A `sync_file_range` does
/// not: its manual page says that it flushes neither the metadata nor the disk's own cache.
pub(crate) fn durable(kind: EngineKind, _: &Setting) -> Outcome {
    if tests::process::output(Command::new("strace").arg("-V")).is_err() {
        return Outcome::Skip("strace is not installed".into());
    }
    let counted = || -> Result<Value, String> {
        let folder = temporary()?;
        let log = folder.path().join("strace");
        let task = new_task("few", kind, &data(folder.path()), Value::Null);
        let wrapper = ["strace", "-f", "-e", "trace=fsync,fdatasync,sync_file_range", "-o", &text(&log)];
        let mut child = Running::start_under(&wrapper, &task)?;
        let report = child.report()?;
        child.end()?;
        let calls = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let count = |name: &str| calls.lines().filter(|line| line.contains(name)).count();
        Ok(json!({
            "commits": report["commits"], "fsync": count(" fsync("), "fdatasync": count(" fdatasync("),
            "sync_file_range": count(" sync_file_range("),
        }))
    };
    let figures = match counted() {
        Ok(figures) => figures,
        Err(problem) => return Outcome::Fail(problem, Value::Null),
    };
    let flushes = figures["fsync"].as_u64().unwrap_or(0) + figures["fdatasync"].as_u64().unwrap_or(0);
    if flushes >= figures["commits"].as_u64().unwrap_or(u64::MAX) {
        Outcome::Pass(figures)
    } else {
        Outcome::Fail("commits are acknowledged without a flush that reaches the medium".into(), figures)
    }
}

/// SIGKILL at random moments, again and again on the same data.
pub(crate) fn kill(kind: EngineKind, setting: &Setting) -> Outcome {
    killed(kind, setting, ["write", "verify"])
}

/// The same while changes are written with their lines in the audit log.
pub(crate) fn chain(kind: EngineKind, setting: &Setting) -> Outcome {
    killed(kind, setting, ["journal_write", "journal_verify"])
}

fn killed(kind: EngineKind, setting: &Setting, jobs: [&str; 2]) -> Outcome {
    let mut done = 0;
    let mut figures = Value::Null;
    match kill_often(kind, setting, jobs, &mut done, &mut figures) {
        Ok(()) => Outcome::Pass(figures),
        Err(problem) => Outcome::Fail(format!("kill {done}: {problem}"), figures),
    }
}

fn kill_often(
    kind: EngineKind,
    setting: &Setting,
    [write, verify]: [&str; 2],
    done: &mut u64,
    figures: &mut Value,
) -> Result<(), String> {
    let folder = temporary()?;
    let store = data(folder.path());
    let mut random = Random(setting.seed);
    let mut acknowledged = vec![0; usize::try_from(WRITERS).unwrap_or(0)];
    let (mut in_flight, mut slowest_open_ms, mut total) = (0, 0, 0_u64);
    for kill in 1..=setting.kills {
        *done = kill;
        let seed = random.below(u64::MAX);
        let mut child = Running::start(&new_task(write, kind, &store, json!({"seed": seed})))?;
        // One in five dies while it opens; the others after some acknowledged commits.
        let acks = if random.below(5) == 0 { 0 } else { 1 + random.below(200) };
        let mut said = Vec::new();
        while said.len() < usize::try_from(acks).unwrap_or(0) {
            let line = child.line()?.ok_or("the writer ended by itself")?;
            if line.starts_with('{') {
                return Err(format!("the writer gave up: {line}"));
            }
            said.push(line);
        }
        // Not a wait for anything: it moves the kill to another place within a commit.
        std::thread::sleep(Duration::from_micros(random.below(if acks == 0 { 40_000 } else { 8_000 })));
        said.extend(child.kill()?);
        for line in said {
            let mut words = line.split(' ').skip(1).map(str::parse::<u64>);
            if let (Some(Ok(writer)), Some(Ok(number))) = (words.next(), words.next()) {
                acknowledged[usize::try_from(writer).unwrap_or(0)] = number;
                total += 1;
            }
        }
        let mut child = Running::start(&new_task(verify, kind, &store, Value::Null))?;
        child.tell(&json!(acknowledged))?;
        let report = child.report()?;
        child.end()?;
        in_flight += report["in_flight"].as_u64().unwrap_or(0);
        slowest_open_ms = slowest_open_ms.max(report["open_ms"].as_u64().unwrap_or(0));
        // What was in flight and is there counts from here on: it must not be lost later.
        acknowledged = serde_json::from_value(report["last"].clone()).map_err(|error| error.to_string())?;
        *figures = json!({
            "kills": kill, "acknowledged": total, "in_flight_found": in_flight,
            "slowest_open_ms": slowest_open_ms, "records": report["records"],
        });
    }
    if total == 0 { Err("no commit was acknowledged at all".into()) } else { Ok(()) }
}

pub(crate) fn full_tmpfs(kind: EngineKind, _: &Setting) -> Outcome {
    match SmallDisk::tmpfs(24) {
        Ok(disk) => judged(full(kind, &disk)),
        Err(reason) => Outcome::Skip(format!("{reason:#}")),
    }
}

pub(crate) fn full_ext4(kind: EngineKind, _: &Setting) -> Outcome {
    match SmallDisk::ext4(32) {
        Ok(disk) => judged(full(kind, &disk)),
        Err(reason) => Outcome::Skip(format!("{reason:#}")),
    }
}

fn full(kind: EngineKind, disk: &SmallDisk) -> Result<Value, String> {
    let ballast = disk.at.join("ballast");
    std::fs::write(&ballast, vec![1; 12 << 20]).map_err(|error| error.to_string())?;
    let more = json!({"ballast": text(&ballast), "wait": true});
    let mut child = Running::start(&new_task("fill_disk", kind, &data(&disk.at), more))?;
    let mut report = child.report()?;
    child.kill()?;
    opened_again(kind, &data(&disk.at), &mut report);
    Ok(report)
}

/// A report that lists problems is a failure with figures.
fn judged(report: Result<Value, String>) -> Outcome {
    match report {
        Ok(report) if report["problems"].as_array().is_some_and(Vec::is_empty) => Outcome::Pass(report),
        Ok(report) => Outcome::Fail("see its problems".into(), report),
        Err(problem) => Outcome::Fail(problem, Value::Null),
    }
}

/// Adds to the report what a new process finds.
fn opened_again(kind: EngineKind, store: &Path, report: &mut Value) {
    let result = all_there(kind, store, report);
    report["acknowledged"] = json!(report["acknowledged"].as_array().map(Vec::len));
    if let (Err(problem), Some(problems)) = (result, report["problems"].as_array_mut()) {
        problems.push(json!(problem));
    }
}

/// Opened in a new process, everything acknowledged is there and nothing else.
fn all_there(kind: EngineKind, store: &Path, report: &Value) -> Result<(), String> {
    let mut child = Running::start(&new_task("keys", kind, store, Value::Null))?;
    let found = child.report().map_err(|problem| format!("opened again: {problem}"))?;
    child.end()?;
    if found["keys"] == report["acknowledged"] {
        Ok(())
    } else {
        let count = |value: &Value| value.as_array().map_or(0, Vec::len);
        Err(format!("opened again: {} there, {} acknowledged", count(&found["keys"]), count(&report["acknowledged"])))
    }
}

pub(crate) fn read_only(kind: EngineKind, _: &Setting) -> Outcome {
    let disk = match SmallDisk::ext4(32) {
        Ok(disk) => disk,
        Err(reason) => return Outcome::Skip(format!("{reason:#}")),
    };
    let checked = || {
        let more = json!({"mount": text(&disk.at), "wait": true});
        let mut child = Running::start(&new_task("read_only", kind, &data(&disk.at), more))?;
        let mut report = child.report()?;
        child.kill()?;
        disk.mount_again().map_err(|error| format!("{error:#}"))?;
        opened_again(kind, &data(&disk.at), &mut report);
        Ok(report)
    };
    judged(checked())
}

pub(crate) fn memory(kind: EngineKind, _: &Setting) -> Outcome {
    let measured = || {
        let folder = temporary()?;
        let records = 200_000;
        let mut child =
            Running::start(&new_task("fill_memory", kind, &data(folder.path()), json!({"records": records})))?;
        let filled = child.report()?;
        child.end()?;
        let mut child = Running::start(&new_task("idle", kind, &data(folder.path()), Value::Null))?;
        let idle = child.report()?;
        child.end()?;
        if idle["found"] != 50_000 {
            return Err(format!("of 50,000 records {} were found", idle["found"]));
        }
        Ok(json!({"records": records, "filled": filled, "idle": idle}))
    };
    let figures: Value = match measured() {
        Ok(figures) => figures,
        Err(problem) => return Outcome::Fail(problem, Value::Null),
    };
    let above = |part: &str, field: &str, bound: u64| figures[part][field].as_u64().is_none_or(|value| value > bound);
    if above("idle", "opened_mb", IDLE_BOUND_MB) || above("idle", "used_mb", IDLE_BOUND_MB) {
        return Outcome::Fail(format!("idle memory is above {IDLE_BOUND_MB} MB"), figures);
    }
    if above("filled", "writing_peak_mb", WRITING_BOUND_MB) || above("idle", "opening_peak_mb", WRITING_BOUND_MB) {
        return Outcome::Fail(format!("peak memory is above {WRITING_BOUND_MB} MB"), figures);
    }
    Outcome::Pass(figures)
}

pub(crate) fn space(kind: EngineKind, _: &Setting) -> Outcome {
    let measured = || {
        let folder = temporary()?;
        let mut child = Running::start(&new_task("overwrite", kind, &data(folder.path()), Value::Null))?;
        let report = child.report()?;
        child.end()?;
        Ok(report)
    };
    let figures: Value = match measured() {
        Ok(figures) => figures,
        Err(problem) => return Outcome::Fail(problem, Value::Null),
    };
    let (disk, live) = (figures["disk_kb"].as_u64().unwrap_or(u64::MAX), figures["live_kb"].as_u64().unwrap_or(0));
    if disk > live.saturating_mul(SPACE_BOUND) {
        Outcome::Fail(format!("it occupies more than {SPACE_BOUND} times what is alive"), figures)
    } else {
        Outcome::Pass(figures)
    }
}

/// Recorded, not judged: machines differ, and engines are compared within one run only.
pub(crate) fn speed(kind: EngineKind, _: &Setting) -> Outcome {
    let measured = || {
        let folder = temporary()?;
        let mut child = Running::start(&new_task("speed", kind, &data(folder.path()), Value::Null))?;
        let report = child.report()?;
        child.end()?;
        Ok(report)
    };
    measured().into()
}
