//! The log files, killed and on a full disk: no acknowledged line is lost, none is there by half or twice.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use server::store::engine::EngineKind;
use server::store::logs::{LogConfig, LogError, LogLine, LogStore, Stream};
use tests::SmallDisk;

use crate::child::{data, report, say};
use crate::children::{Running, new_task};
use crate::kit::{Outcome, Random, Setting};

const SENDERS: u64 = 3;
/// So many that about the last third of the kills meets a full log, which only counts.
const RUN_LINES_PER_KILL: u64 = 1_600;

fn open(folder: &Path, run_lines: u64) -> Result<LogStore, String> {
    let config = LogConfig { run_lines, index_lines: 16, ..LogConfig::default() };
    LogStore::open(folder, config).map_err(|error| error.to_string())
}

fn line(sender: u64, number: u64) -> LogLine {
    let mut random = Random(sender << 32 | number);
    let text = (0..random.below(200)).map(|_| char::from(b'a' + random.below(26).to_le_bytes()[0])).collect();
    LogLine { time_ms: number, stream: if number.is_multiple_of(5) { Stream::Err } else { Stream::Out }, text }
}

pub(crate) fn kill(setting: &Setting) -> Outcome {
    let mut done = 0;
    let mut figures = Value::Null;
    match kill_often(setting, &mut done, &mut figures) {
        Ok(()) => Outcome::Pass(figures),
        Err(problem) => Outcome::Fail(format!("kill {done}: {problem}"), figures),
    }
}

fn kill_often(setting: &Setting, done: &mut u64, figures: &mut Value) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let store = data(folder.path());
    let mut random = Random(setting.seed);
    let run_lines = setting.kills * RUN_LINES_PER_KILL;
    let mut acknowledged = vec![0_u64; usize::try_from(SENDERS).unwrap_or(0)];
    for kill in 1..=setting.kills {
        *done = kill;
        let task = |job| {
            new_task(job, EngineKind::Memory, &store, json!({"seed": setting.seed + kill, "run_lines": run_lines}))
        };
        let mut child = Running::start(&task("logs_write"))?;
        let acks = usize::try_from(random.below(120)).unwrap_or(0);
        let mut said = Vec::new();
        while said.len() < acks {
            let line = child.line()?.ok_or("the writer ended by itself")?;
            if line.starts_with('{') {
                return Err(format!("the writer gave up: {line}"));
            }
            said.push(line);
        }
        // Not a wait for anything: it moves the kill to another place within a write.
        std::thread::sleep(Duration::from_micros(random.below(8_000)));
        said.extend(child.kill()?);
        for line in said {
            let mut words = line.split(' ').skip(1).map(str::parse::<u64>);
            if let (Some(Ok(sender)), Some(Ok(next))) = (words.next(), words.next()) {
                acknowledged[usize::try_from(sender).unwrap_or(0)] = next;
            }
        }
        let mut child = Running::start(&task("logs_verify"))?;
        child.tell(&json!(acknowledged))?;
        let report = child.report()?;
        child.end()?;
        acknowledged = serde_json::from_value(report["next"].clone()).map_err(|error| error.to_string())?;
        *figures =
            json!({"kills": kill, "lines": report["lines"], "dropped": report["dropped"], "next": report["next"]});
    }
    if figures["lines"].as_u64().unwrap_or(0) == 0 { Err("no line was stored at all".into()) } else { Ok(()) }
}

pub(crate) fn full(_: &Setting) -> Outcome {
    match SmallDisk::tmpfs(16) {
        Ok(disk) => fill(&disk.at).into(),
        Err(reason) => Outcome::Skip(format!("{reason:#}")),
    }
}

fn fill(at: &Path) -> Result<Value, String> {
    let ballast = at.join("ballast");
    std::fs::write(&ballast, vec![1; 14 << 20]).map_err(|error| error.to_string())?;
    let open = || LogStore::open(&data(at), LogConfig::default()).map_err(|error| error.to_string());
    let store = open()?;
    let mut next = 0;
    let mut send = |store: &LogStore| {
        let lines: Vec<LogLine> = (next..next + 100).map(|number| line(0, number)).collect();
        let result = store.append("run", "step", next, &lines);
        if let Ok(length) = &result {
            next = length.next_line;
        }
        let length = store.length("run", "step").map_err(|error| error.to_string())?;
        if (length.lines, length.next_line) != (next, next) {
            return Err(format!("{next} lines were acknowledged, {length:?} are there"));
        }
        let from = next.saturating_sub(20);
        let last = store.read("run", "step", from, 100).map_err(|error| error.to_string())?;
        if !last.iter().map(|found| &found.line).eq(&(from..next).map(|number| line(0, number)).collect::<Vec<_>>()) {
            return Err(format!("the lines from {from} on are others"));
        }
        Ok((result, next))
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        match send(&store)?.0 {
            Ok(_) => {}
            Err(LogError::DiskFull) => refused += 1,
            Err(error) => return Err(format!("a full disk is reported as: {error}")),
        }
        if refused == 30 {
            break;
        }
    }
    if refused < 30 {
        return Err("the disk never became full".into());
    }
    std::fs::remove_file(&ballast).map_err(|error| error.to_string())?;
    for _ in 0..20 {
        send(&store)?.0.map_err(|error| format!("after room was made: {error}"))?;
    }
    drop(store);
    let (result, next) = send(&open()?)?;
    result.map_err(|error| format!("opened again: {error}"))?;
    Ok(json!({"lines": next, "refused": refused}))
}

pub(crate) fn child(job: &str, folder: &Path, more: &Value) {
    let run_lines = more["run_lines"].as_u64().unwrap_or(0);
    report(match job {
        "write" => write(folder, run_lines, more["seed"].as_u64().unwrap_or(1)),
        _ => verify(folder, run_lines),
    });
}

fn step(sender: u64) -> String {
    format!("step/{sender}")
}

/// Sends without end; says how far each sender is after each acknowledgement.
fn write(folder: &Path, run_lines: u64, seed: u64) -> Result<Value, String> {
    let store = open(folder, run_lines)?;
    let problem = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let store = &store;
                scope.spawn(move || send(store, sender, Random(seed ^ sender << 40)))
            })
            .collect();
        senders
            .into_iter()
            .map(|sender| sender.join().unwrap_or_else(|_| Err("a sender panicked".into())))
            .find_map(Result::err)
    });
    Err(problem.unwrap_or_default())
}

fn send(store: &LogStore, sender: u64, mut random: Random) -> Result<(), String> {
    let step = step(sender);
    let mut next = store.length("run", &step).map_err(|error| error.to_string())?.next_line;
    loop {
        // Some of what is known already goes again, as after a lost answer.
        let first = next.saturating_sub(random.below(4));
        let lines: Vec<LogLine> = (first..next + 1 + random.below(60)).map(|number| line(sender, number)).collect();
        next = store.append("run", &step, first, &lines).map_err(|error| error.to_string())?.next_line;
        say(&format!("ack {sender} {next}"));
    }
}

/// Whether each sender's lines are there, given how far each was acknowledged (on stdin).
fn verify(folder: &Path, run_lines: u64) -> Result<Value, String> {
    let mut told = String::new();
    std::io::stdin().read_line(&mut told).map_err(|error| error.to_string())?;
    let acknowledged: Vec<u64> = serde_json::from_str(&told).map_err(|error| error.to_string())?;
    let store = open(folder, run_lines)?;
    let (mut total, mut dropped, mut next) = (0, 0, Vec::new());
    for (sender, acknowledged) in (0..SENDERS).zip(acknowledged) {
        let step = step(sender);
        let length = store.length("run", &step).map_err(|error| error.to_string())?;
        if length.next_line < acknowledged {
            return Err(format!("sender {sender}: {acknowledged} was acknowledged, {} is next", length.next_line));
        }
        let kept = length.next_line - length.dropped;
        let mut from = 0;
        while from < kept {
            let lines = store.read("run", &step, from, 5_000).map_err(|error| error.to_string())?;
            if lines.is_empty() {
                return Err(format!("sender {sender}: nothing at {from} of {kept}"));
            }
            for found in lines.iter().filter(|found| found.number < kept) {
                if found.number != from || found.line != line(sender, from) {
                    return Err(format!("sender {sender}: another line at {from}"));
                }
                from += 1;
            }
        }
        total += kept;
        dropped += length.dropped;
        next.push(length.next_line);
    }
    // What had taken room and was killed before it was written is the difference.
    if dropped > 0 && !(run_lines - SENDERS * 64..=run_lines).contains(&total) {
        return Err(format!("lines were dropped at {total}, not at the bound of {run_lines}"));
    }
    Ok(json!({"lines": total, "dropped": dropped, "next": next}))
}
