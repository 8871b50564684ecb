//! What the child processes do. They tell each acknowledged commit at once, and their findings as one JSON line.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use server::store::engine::{Batch, Direction, Engine, EngineConfig, EngineError, KeyRange, Record, Table, open};

use crate::kit::{self, Random};
use crate::{journal, log_files};

const LEFT: Table = Table::new(1, "left");
const RIGHT: Table = Table::new(2, "right");
const ACCOUNTS: Table = Table::new(3, "accounts");
const RECENT: Table = Table::new(4, "recent");
const LAST: Table = Table::new(5, "last");

pub(crate) const WRITERS: u64 = 4;
const ACCOUNT_COUNT: u64 = 16;
const START_BALANCE: i64 = 1000;
/// Numbers that stay in `recent`; older ones are deleted.
const RECENT_COUNT: u64 = 20;

/// A line to the parent, past any buffer: it must be out before the next kill.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        // The parent has gone.
        std::process::exit(3);
    }
}

pub(crate) fn run(task: &Value) {
    let folder = PathBuf::from(task["folder"].as_str().unwrap_or_default());
    let job = task["job"].as_str().unwrap_or_default();
    let more = &task["more"];
    if let Some(job) = job.strip_prefix("logs_") {
        return log_files::child(job, &folder, more);
    }
    let kind = task["engine"].as_str().and_then(kit::kind).expect("the parent names an engine");
    let started = Instant::now();
    let engine = match open(&folder, &EngineConfig { kind, ..EngineConfig::default() }) {
        Ok(engine) => engine,
        Err(error) => return say(&json!({"problem": format!("open: {}", chain(&error))}).to_string()),
    };
    let open_ms = millis(started);
    let report = match job {
        "write" => write(&engine, more["seed"].as_u64().unwrap_or(1)),
        "verify" => verify(&*engine),
        "journal_write" => journal::write(&engine),
        "journal_verify" => journal::verify(&engine),
        "few" => few(&*engine),
        "fill_disk" => fill_disk(&engine, more),
        "read_only" => read_only(&*engine, more),
        "keys" => keys(&*engine),
        "fill_memory" => fill_memory(&*engine, more["records"].as_u64().unwrap_or(0)),
        "idle" => idle(&*engine),
        "overwrite" => overwrite(&*engine),
        "speed" => speed(&engine),
        other => Err(format!("no such job: {other}")),
    };
    let report = report.map_or_else(
        |problem| json!({"problem": problem}),
        |mut figures| {
            figures["open_ms"] = json!(open_ms);
            figures
        },
    );
    say(&report.to_string());
    if more["wait"] == true {
        // To be killed as it is, with the engine open.
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// An error with its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

fn failed(what: &str) -> impl Fn(EngineError) -> String {
    let what = what.to_owned();
    move |error| format!("{what}: {}", chain(&error))
}

fn pair_key(writer: u64, number: u64) -> Vec<u8> {
    [writer.to_be_bytes(), number.to_be_bytes()].concat()
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Content that follows from the number, so that a wrong one is noticed.
fn pair_value(writer: u64, number: u64) -> Vec<u8> {
    let mut random = Random(writer << 32 | number);
    let len = 10 + random.below(3000);
    (0..len).map(|_| random.below(256).to_le_bytes()[0]).collect()
}

/// Commits numbered batches over five tables until it is killed; says each number once it is acknowledged.
fn write(engine: &Arc<dyn Engine>, seed: u64) -> Result<Value, String> {
    let mut start = Batch::new();
    for account in 0..ACCOUNT_COUNT {
        start.expect_absent(ACCOUNTS, account.to_be_bytes());
        start.put(ACCOUNTS, account.to_be_bytes(), START_BALANCE.to_be_bytes());
    }
    match engine.commit(&start) {
        Ok(()) | Err(EngineError::Conflict { .. }) => {}
        Err(error) => return Err(failed("first commit")(error)),
    }
    let problem = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write_one(&**engine, writer, Random(seed ^ writer << 40))))
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap_or_else(|_| Err("a writer panicked".into())))
            .find_map(Result::err)
    });
    Err(problem.unwrap_or_default())
}

fn write_one(engine: &dyn Engine, writer: u64, mut random: Random) -> Result<(), String> {
    let last = engine.get(LAST, &writer.to_be_bytes()).map_err(failed("get"))?;
    let first = last.and_then(|last| number_of(&last)).unwrap_or(0) + 1;
    for number in first.. {
        loop {
            let (from, to) = (random.below(ACCOUNT_COUNT), random.below(ACCOUNT_COUNT));
            let mut batch = Batch::new();
            batch.expect_absent(LEFT, pair_key(writer, number));
            batch.put(LEFT, pair_key(writer, number), pair_value(writer, number));
            batch.put(RIGHT, pair_key(writer, number), pair_value(writer, number));
            batch.put(LAST, writer.to_be_bytes(), number.to_be_bytes());
            batch.put(RECENT, pair_key(writer, number), number.to_be_bytes());
            batch.delete(RECENT, pair_key(writer, number.saturating_sub(RECENT_COUNT)));
            if from != to {
                transfer(engine, &mut batch, from, to)?;
            }
            match engine.commit(&batch) {
                Ok(()) => break,
                // Another writer was at the same account.
                Err(EngineError::Conflict { table: "accounts", .. }) => {}
                Err(error) => return Err(failed("commit")(error)),
            }
        }
        say(&format!("ack {writer} {number}"));
    }
    Ok(())
}

fn transfer(engine: &dyn Engine, batch: &mut Batch, from: u64, to: u64) -> Result<(), String> {
    for (account, amount) in [(from, -7), (to, 7)] {
        let old =
            engine.get(ACCOUNTS, &account.to_be_bytes()).map_err(failed("get"))?.ok_or("an account is missing")?;
        let balance = i64::from_be_bytes(old.clone().try_into().map_err(|_| "a balance of another size")?);
        batch.expect(ACCOUNTS, account.to_be_bytes(), old);
        batch.put(ACCOUNTS, account.to_be_bytes(), (balance + amount).to_be_bytes());
    }
    Ok(())
}

fn all(engine: &dyn Engine, table: Table) -> Result<Vec<Record>, String> {
    engine.scan(table, &KeyRange::all(), Direction::Forward, usize::MAX).map_err(failed("scan"))
}

/// The last number of each writer that was acknowledged, as the parent says it.
pub(crate) fn acknowledged() -> Result<Vec<u64>, String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| error.to_string())?;
    serde_json::from_str(&line).map_err(|error| error.to_string())
}

/// Whether what the writers left is whole, given the last number of each that was acknowledged (on stdin).
fn verify(engine: &dyn Engine) -> Result<Value, String> {
    let acknowledged = acknowledged()?;
    let left = all(engine, LEFT)?;
    if left != all(engine, RIGHT)? {
        return Err("the two sides of the pairs differ: a batch is there by half".into());
    }
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for (key, value) in &left {
        let (writer, number) = key.split_at(8);
        let (writer, number) = (number_of(writer).unwrap_or(0), number_of(number).unwrap_or(0));
        if number != last.get(&writer).copied().unwrap_or(0) + 1 {
            return Err(format!("writer {writer} has a gap before {number}"));
        }
        if *value != pair_value(writer, number) {
            return Err(format!("writer {writer}, number {number}: wrong content"));
        }
        last.insert(writer, number);
    }
    let mut in_flight = 0;
    for (writer, &acknowledged) in (0_u64..).zip(&acknowledged) {
        let found = last.get(&writer).copied().unwrap_or(0);
        if found < acknowledged {
            return Err(format!("writer {writer}: {acknowledged} was acknowledged, {found} is the last there"));
        }
        if found > acknowledged + 1 {
            return Err(format!("writer {writer}: {found} is there, but {acknowledged} was the last acknowledged"));
        }
        in_flight += found - acknowledged;
        let stored = engine.get(LAST, &writer.to_be_bytes()).map_err(failed("get"))?.and_then(|last| number_of(&last));
        if stored.unwrap_or(0) != found {
            return Err(format!("writer {writer}: last says {stored:?}, the pairs say {found}"));
        }
        let recent = engine.scan(RECENT, &KeyRange::prefix(&writer.to_be_bytes()), Direction::Backward, 1000);
        let recent: Vec<u64> =
            recent.map_err(failed("scan"))?.iter().filter_map(|(_, value)| number_of(value)).collect();
        let expected: Vec<u64> = (1..=found).rev().take(usize::try_from(RECENT_COUNT).unwrap_or(0)).collect();
        if recent != expected {
            return Err(format!("writer {writer}: recent is {recent:?}, not {expected:?}"));
        }
    }
    let balances = all(engine, ACCOUNTS)?;
    let sum: i64 =
        balances.iter().filter_map(|(_, value)| Some(i64::from_be_bytes(value.as_slice().try_into().ok()?))).sum();
    if !balances.is_empty() && sum != START_BALANCE * i64::try_from(ACCOUNT_COUNT).unwrap_or(0) {
        return Err(format!("the balances sum up to {sum}: a transfer is there by half"));
    }
    engine.check().map_err(failed("check"))?;
    let last: Vec<u64> = (0..WRITERS).map(|writer| last.get(&writer).copied().unwrap_or(0)).collect();
    Ok(json!({"records": left.len(), "in_flight": in_flight, "last": last}))
}

/// A few commits, one after another, for a tracer to count their flushes.
fn few(engine: &dyn Engine) -> Result<Value, String> {
    for number in 0..20_u64 {
        let mut batch = Batch::new();
        batch.put(LEFT, number.to_be_bytes(), vec![1; 100]);
        engine.commit(&batch).map_err(failed("commit"))?;
    }
    Ok(json!({"commits": 20}))
}

fn pair(key: u64) -> Batch {
    let mut batch = Batch::new();
    let value: Vec<u8> = pair_value(key, key).into_iter().cycle().take(4000).collect();
    batch.put(LEFT, key.to_be_bytes(), value.clone()).put(RIGHT, key.to_be_bytes(), value);
    batch
}

/// What is on both sides; an error where the sides differ.
fn paired(engine: &dyn Engine) -> Result<Vec<u64>, String> {
    let left = all(engine, LEFT)?;
    if left != all(engine, RIGHT)? {
        return Err("the two sides of the pairs differ: a batch is there by half".into());
    }
    Ok(left.iter().filter_map(|(key, _)| number_of(key)).collect())
}

/// Fills a small disk, reads, makes room, goes on: all in this process.
fn fill_disk(engine: &Arc<dyn Engine>, more: &Value) -> Result<Value, String> {
    let next = AtomicU64::new(0);
    let acknowledged = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let attempt = || {
        let key = next.fetch_add(1, Ordering::SeqCst);
        let result = engine.commit(&pair(key));
        if result.is_ok() {
            acknowledged.lock().map_err(|_| "a thread panicked")?.insert(key);
        }
        Ok::<_, String>(result)
    };
    let until_full = || {
        for _ in 0..20_000 {
            match attempt()? {
                Ok(()) => {}
                Err(EngineError::DiskFull) => return Ok(()),
                Err(error) => return Err(format!("a full disk is reported as: {} ({error:?})", chain(&error))),
            }
        }
        Err("the disk never became full".into())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(until_full)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })?;
    let full_after = next.load(Ordering::SeqCst);
    // From here on a problem is noted and the rest is tried all the same: what comes back later is worth knowing.
    let mut problems = Problems::default();
    let agrees = |when: &str| {
        let there = paired(&**engine).map_err(|problem| format!("{when}: {problem}"))?;
        let acknowledged = acknowledged.lock().map_err(|_| "a thread panicked")?;
        let lost = acknowledged.iter().filter(|key| !there.contains(key)).count();
        let refused = there.iter().filter(|key| !acknowledged.contains(key)).count();
        if (lost, refused) == (0, 0) {
            return Ok(());
        }
        Err(format!("{when}: {lost} acknowledged are lost, {refused} refused are there"))
    };
    problems.note(agrees("while the disk is full"));
    let mut refused = 0;
    for _ in 0..30 {
        match attempt()? {
            Ok(()) => {}
            Err(EngineError::DiskFull) => refused += 1,
            Err(error) => problems.note(Err(format!("a full disk is later reported as: {}", chain(&error)))),
        }
        problems.note(agrees("after another try on the full disk"));
    }
    say("full");
    std::fs::remove_file(more["ballast"].as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
    let started = Instant::now();
    for _ in 0..40 {
        problems.note(attempt()?.map_err(failed("commit after room was made")));
    }
    let recovered_ms = millis(started);
    problems.note(agrees("after room was made"));
    problems.note(engine.check().map_err(failed("check")));
    let acknowledged = acknowledged.lock().map_err(|_| "a thread panicked")?;
    Ok(json!({
        "full_after": full_after, "refused": refused, "recovered_ms": recovered_ms,
        "acknowledged": &*acknowledged, "problems": problems.0,
    }))
}

/// What did not hold, each once.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn note(&mut self, result: Result<(), String>) {
        if let Err(problem) = result
            && !self.0.contains(&problem)
            && self.0.len() < 10
        {
            self.0.push(problem);
        }
    }
}

/// The file system turns read-only under the open engine.
fn read_only(engine: &dyn Engine, more: &Value) -> Result<Value, String> {
    for key in 0..50 {
        engine.commit(&pair(key)).map_err(failed("commit"))?;
    }
    // As the kernel does it after an error on the medium (ext4, `errors=remount-ro`).
    let mut mount = std::process::Command::new("mount");
    mount.args(["-o", "remount,abort", more["mount"].as_str().unwrap_or_default()]);
    tests::process::output(&mut mount).map_err(|error| format!("{error:#}"))?;
    let mut problems = Problems::default();
    for key in 50..60 {
        problems.note(match engine.commit(&pair(key)) {
            Err(EngineError::ReadOnly) => Ok(()),
            Ok(()) => Err("a commit was acknowledged on a read-only file system".into()),
            Err(error) => Err(format!("a read-only file system is reported as: {}", chain(&error))),
        });
        problems.note(match paired(engine) {
            Ok(there) if there == (0..50).collect::<Vec<_>>() => Ok(()),
            Ok(there) => Err(format!("while read-only {} of 50 pairs are there", there.len())),
            Err(problem) => Err(format!("while read-only: {problem}")),
        });
    }
    Ok(json!({"acknowledged": (0..50).collect::<Vec<u64>>(), "problems": problems.0}))
}

/// What is there, for the parent to compare.
fn keys(engine: &dyn Engine) -> Result<Value, String> {
    let there = paired(engine)?;
    engine.check().map_err(failed("check"))?;
    Ok(json!({"keys": there}))
}

fn memory_kb(field: &str) -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
    line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().map_err(|_| format!("{field} is not a number"))
}

fn fill_memory(engine: &dyn Engine, records: u64) -> Result<Value, String> {
    let started = Instant::now();
    let mut random = Random(7);
    for first in (0..records).step_by(100) {
        let mut batch = Batch::new();
        for key in first..(first + 100).min(records) {
            let value: Vec<u8> = (0..128).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
            batch.put(LEFT, key.to_be_bytes(), value);
        }
        engine.commit(&batch).map_err(failed("commit"))?;
        if first.is_multiple_of(10_000) {
            say("filling");
        }
    }
    let disk_mb = engine.size_bytes().map_err(failed("size"))? >> 20;
    Ok(json!({"writing_peak_mb": memory_kb("VmHWM")? >> 10, "fill_ms": millis(started), "disk_mb": disk_mb}))
}

fn idle(engine: &dyn Engine) -> Result<Value, String> {
    let opened_mb = memory_kb("VmRSS")? >> 10;
    let opening_peak_mb = memory_kb("VmHWM")? >> 10;
    // Some use, so that the cache is counted at its full size.
    let mut random = Random(9);
    let mut found = 0;
    for _ in 0..50_000 {
        found += u64::from(engine.get(LEFT, &random.below(200_000).to_be_bytes()).map_err(failed("get"))?.is_some());
    }
    Ok(
        json!({"opened_mb": opened_mb, "opening_peak_mb": opening_peak_mb, "used_mb": memory_kb("VmRSS")? >> 10, "found": found}),
    )
}

fn overwrite(engine: &dyn Engine) -> Result<Value, String> {
    let mut random = Random(11);
    for round in 0..200_u64 {
        for first in (0..1000_u64).step_by(100) {
            let mut batch = Batch::new();
            for key in first..first + 100 {
                let value: Vec<u8> = (0..128).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
                batch.put(LEFT, key.to_be_bytes(), value);
            }
            engine.commit(&batch).map_err(failed("commit"))?;
        }
        if round % 20 == 0 {
            say("overwriting");
        }
    }
    let bytes = engine.size_bytes().map_err(failed("size"))?;
    Ok(json!({"disk_kb": bytes >> 10, "live_kb": 1000 * (1024 + 8) / 1024}))
}

fn speed(engine: &Arc<dyn Engine>) -> Result<Value, String> {
    let mut figures = json!({});
    for (threads, each) in [(1_u64, 200_u64), (32, 50)] {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn(move || {
                        for number in 0..each {
                            let mut batch = Batch::new();
                            batch.put(LEFT, pair_key(thread, number), vec![3; 512]);
                            batch.put(RIGHT, pair_key(thread, number), vec![4; 64]);
                            engine.commit(&batch).map_err(failed("commit"))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())))
        })?;
        let per_second = u128::from(threads * each) * 1000 / started.elapsed().as_millis().max(1);
        figures[format!("commits_per_second_{threads}_threads")] = json!(u64::try_from(per_second).unwrap_or(u64::MAX));
    }
    Ok(figures)
}

/// Also used by the child of the log files.
pub(crate) fn report(result: Result<Value, String>) {
    say(&result.unwrap_or_else(|problem| json!({"problem": problem})).to_string());
}

/// A folder for the store within another.
pub(crate) fn data(at: &Path) -> PathBuf {
    at.join("data")
}
