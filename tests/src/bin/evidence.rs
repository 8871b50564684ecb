//! `evidence check` prints what the last run of the tests has shown and compares it with the table of README.md;
//! `evidence write` puts it into the table. The rules live in `tests::evidence`.

use std::{env, fs, process::ExitCode};

use anyhow::{Context, Result};
use tests::evidence::{Row, differences, last_run, parse_table, replace_table};

fn main() -> ExitCode {
    let verb = env::args().nth(1).unwrap_or_default();
    let done = match verb.as_str() {
        "check" => check(),
        "write" => write().map(|()| true),
        _ => {
            eprintln!("usage: evidence check|write");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("evidence: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the table and the run agree.
fn check() -> Result<bool> {
    let (rows, skipped) = last_run()?;
    print_rows(&rows);
    for skip in &skipped {
        println!("SKIPPED {}: {}", skip.test, skip.reason);
    }
    let whole = env::var("WINDLASS_TEST_REQUIRE").is_ok_and(|word| word == "all");
    let page = tests::parts::checkout().join("README.md");
    let table = match fs::read_to_string(&page) {
        Ok(page) => parse_table(&page)?,
        Err(_) => Vec::new(),
    };
    let found = differences(&table, &rows, whole);
    for difference in &found {
        println!("evidence: {difference}");
    }
    println!("evidence: {} shown, {} skipped, {} differences", rows.len(), skipped.len(), found.len());
    Ok(found.is_empty())
}

/// Rows that ran replace those of the table; rows that did not run stay.
fn write() -> Result<()> {
    let (rows, _) = last_run()?;
    let file = tests::parts::checkout().join("README.md");
    let page = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let mut table = parse_table(&page)?;
    table.retain(|old| rows.iter().all(|row| row.capability != old.capability));
    table.extend(rows);
    fs::write(&file, replace_table(&page, &table)?)?;
    println!("evidence: README.md has {} rows", table.len());
    Ok(())
}

fn print_rows(rows: &[Row]) {
    let width = rows.iter().map(|row| row.capability.chars().count()).max().unwrap_or(0);
    for row in rows {
        println!("{:width$}  {:9}  {}", row.capability, row.tier.to_string(), row.figure);
    }
}
