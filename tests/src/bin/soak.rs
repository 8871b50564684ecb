//! `soak FOLDER PART…` adds up what the parts of `make soak` noted in a folder, writes `summary.json` there and prints it.
//! It succeeds when the soak is whole and good; the rules live in `tests::soak`.

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use tests::soak::Summary;

fn main() -> ExitCode {
    match summarise() {
        Ok(problems) if problems.is_empty() => {
            println!("soak: all held");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            problems.iter().for_each(|problem| println!("soak: {problem}"));
            println!("soak: NOT WHOLE OR NOT GOOD");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn summarise() -> Result<Vec<String>> {
    let mut arguments = env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("usage: soak FOLDER PART…")?);
    let wanted: Vec<String> = arguments.collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let mutants = folder.join("../mutants/summary.json");
    let summary = Summary::of(&folder, &mutants, &wanted)?;
    let text = serde_json::to_string(&summary)?;
    fs::write(folder.join("summary.json"), &text)?;
    println!("{text}");
    Ok(summary.problems())
}
