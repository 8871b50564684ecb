//! `bench` makes the table of what `make bench` has measured: `target/bench/summary.json`, and the same on standard output.
//! Fails where a row is missing; a goal that was not reached is said, not a failure. `bench write` puts the last table into
//! docs/benches.md.

use std::{fs, process::ExitCode};

use anyhow::{Context, Result};
use tests::bench::{Row, folder};

/// Around the table of docs/benches.md.
const START: &str = "<!-- benches -->";
const END: &str = "<!-- /benches -->";

/// What must have a figure: the beginnings of the rows' names.
const WANTED: [&str; 24] = [
    "signed hooks journalled",
    "signed hooks, answer p99",
    "push to the first log line, p99",
    "promotion, empty destination, plain",
    "promotion, one layer new, plain",
    "promotion, nothing new, plain",
    "promotion, empty destination, TLS",
    "promotion, one layer new, TLS",
    "promotion, nothing new, TLS",
    "promotion, empty destination, plain, 20 ms",
    "promotion, one layer new, plain, 20 ms",
    "promotion, nothing new, plain, 20 ms",
    "promotion, empty destination, TLS, 20 ms",
    "promotion, one layer new, TLS, 20 ms",
    "promotion, nothing new, TLS, 20 ms",
    "memory, idle with 10,000 runs",
    "time to ready with 10,000 runs",
    "log lines through the whole path",
    "open line 900,000 of a million",
    "gateway, requests",
    "gateway, p99",
    "board of 500 services, API, p95",
    "board of 500 services, page, p95",
    "resume after kill -9 with 1,000 trains under way",
];

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        None => summary(),
        Some("write") => write().map(|()| true),
        Some(_) => {
            eprintln!("usage: bench [write]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every row has a figure.
fn summary() -> Result<bool> {
    let rows: Vec<Row> = tests::evidence::read(&folder().join("rows.jsonl"))?;
    let file = folder().join("summary.json");
    fs::write(&file, serde_json::to_string_pretty(&rows)?)
        .with_context(|| format!("failed to write {}", file.display()))?;
    println!("{:<58} {:>12} {:>12} {:>8} {:>14}  met", "what", "ours", "peer", "ratio", "goal");
    let optional = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string());
    for row in &rows {
        let met = if row.met { "yes" } else { "NO" };
        let ours = format!("{} {}", row.ours, row.unit);
        println!(
            "{:<58} {ours:>12} {:>12} {:>8} {:>14}  {met}",
            row.name,
            optional(row.peer),
            optional(row.ratio),
            row.goal
        );
    }
    let has_row = |wanted: &str| {
        // Some rows say after a comma how they were measured.
        rows.iter()
            .any(|row| row.name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(", ")))
    };
    let missing = WANTED.iter().filter(|wanted| !has_row(wanted));
    let missing: Vec<_> = missing.inspect(|name| println!("bench: NO FIGURE for {name}")).collect();
    println!(
        "bench: {} rows, {} goals not reached, in {}",
        rows.len(),
        rows.iter().filter(|row| !row.met).count(),
        file.display()
    );
    Ok(missing.is_empty())
}

/// Puts the table of the last whole run into the page.
fn write() -> Result<()> {
    let file = folder().join("summary.json");
    let text =
        fs::read_to_string(&file).with_context(|| format!("failed to read {}; run `make bench`", file.display()))?;
    let rows: Vec<Row> = serde_json::from_str(&text)?;
    let page = tests::parts::checkout().join("docs/benches.md");
    let old = fs::read_to_string(&page).with_context(|| format!("failed to read {}", page.display()))?;
    let (before, rest) = old.split_once(START).with_context(|| format!("the page lacks {START}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("the page lacks {END}"))?;
    let mut table = String::from("| what | ours | peer | ratio | goal | met |\n|---|---|---|---|---|---|\n");
    for row in &rows {
        let Row { name, ours, unit, goal, .. } = row;
        let peer = row.peer.map_or_else(|| "-".to_owned(), |peer| format!("{peer} {unit}"));
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio}×"));
        let met = if row.met { "yes" } else { "**no**" };
        table += &format!("| {name} | {ours} {unit} | {peer} | {ratio} | {goal} | {met} |\n");
    }
    fs::write(&page, format!("{before}{START}\n{table}{END}{after}"))?;
    println!("bench: {} has {} rows", page.display(), rows.len());
    Ok(())
}
