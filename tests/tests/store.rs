//! The store's contract, the same for each engine: kill, full disk, read-only file system, memory, size, speed; and
//! the kill of the log files. The engine that is the default must pass; what the others do is recorded.
//!
//! This binary is its own child: it starts itself to have a process to kill. Settings, all by environment:
//! `WINDLASS_STORE_KILLS` (kills per engine, 24), `WINDLASS_STORE_SEED` (repeats a run), `WINDLASS_STORE_ENGINES`
//! (comma-separated, all), `WINDLASS_TEST_REQUIRE=all` (what cannot run fails). Arguments: parts of case names.

#[path = "store/cases.rs"]
mod cases;
#[path = "store/child.rs"]
mod child;
#[path = "store/children.rs"]
mod children;
#[path = "store/journal.rs"]
mod journal;
#[path = "store/kit.rs"]
mod kit;
#[path = "store/log_files.rs"]
mod log_files;

use std::process::ExitCode;

use server::store::engine::{EngineConfig, EngineKind};

use kit::{Evidence, Outcome, Setting};

struct Case {
    name: &'static str,
    /// What the default engine shows with it, in words of a user.
    shows: &'static str,
    run: fn(EngineKind, &Setting) -> Outcome,
}

const CASES: [Case; 9] = [
    Case { name: "durable", shows: "what is acknowledged is flushed to the medium", run: cases::durable },
    Case {
        name: "kill",
        shows: "a killed store loses nothing acknowledged and keeps no half change",
        run: cases::kill,
    },
    Case {
        name: "chain",
        shows: "a killed server's audit log is a whole chain with one line for each change",
        run: cases::chain,
    },
    Case {
        name: "full_tmpfs",
        shows: "a full disk stops changes, not reads, until there is room",
        run: cases::full_tmpfs,
    },
    Case { name: "full_ext4", shows: "a full disk with a journal, the same", run: cases::full_ext4 },
    Case { name: "read_only", shows: "a disk that turns read-only stops changes, not reads", run: cases::read_only },
    Case { name: "memory", shows: "200,000 records of 1 KB are kept in bounded memory", run: cases::memory },
    Case { name: "space", shows: "records that change often do not fill the disk", run: cases::space },
    Case { name: "speed", shows: "many changes at once share a flush", run: cases::speed },
];

/// Name, what it shows, and itself.
type LogCase = (&'static str, &'static str, fn(&Setting) -> Outcome);

const LOG_CASES: [LogCase; 2] = [
    ("kill", "a killed server loses no acknowledged log line", log_files::kill),
    ("full", "a full disk stops logs, loses no acknowledged line, and is over when there is room", log_files::full),
];

fn main() -> ExitCode {
    if let Some(task) = children::task() {
        child::run(&task);
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let listing = std::env::args().any(|argument| argument == "--list");
    let setting = Setting::from_environment();
    let default = EngineConfig::default().kind;
    let mut evidence = Evidence::default();
    if !listing {
        println!("seed {} (WINDLASS_STORE_SEED repeats it)", setting.seed);
    }
    for &kind in &setting.engines {
        for case in &CASES {
            let name = format!("{}::{}", kit::name(kind), case.name);
            if !wanted(&name) {
                continue;
            }
            if listing {
                println!("{name}: test");
            } else {
                let shows = (kind == default).then_some(case.shows);
                evidence.record(kit::name(kind), case.name, shows, (case.run)(kind, &setting));
            }
        }
    }
    for (case, shows, run) in LOG_CASES {
        let name = format!("logs::{case}");
        if !wanted(&name) {
            continue;
        }
        if listing {
            println!("{name}: test");
        } else {
            evidence.record("logs", case, Some(shows), run(&setting));
        }
    }
    if listing || evidence.close(&setting, filters.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
