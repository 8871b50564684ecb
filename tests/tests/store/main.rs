//! The store's contract, the same for each engine: kill, full disk, read-only file system, memory, size, speed; and
//! the kill of the log files. The engine that is the default must pass; what the others do is recorded.
//!
//! This binary is its own child: it starts itself to have a process to kill. Settings, all by environment:
//! `WINDLASS_STORE_KILLS` (kills per engine, 24), `WINDLASS_STORE_SEED` (repeats a run), `WINDLASS_STORE_ENGINES`
//! (comma-separated, all), `WINDLASS_TEST_REQUIRE=all` (what cannot run fails). Arguments: parts of case names.

mod cases;
mod child;
mod children;
mod kit;
mod log_files;

use std::process::ExitCode;

use server::store::engine::{EngineConfig, EngineKind};

use kit::{Evidence, Outcome, Setting};

type Case = (&'static str, fn(EngineKind, &Setting) -> Outcome);

const CASES: [Case; 8] = [
    ("durable", cases::durable),
    ("kill", cases::kill),
    ("full_tmpfs", cases::full_tmpfs),
    ("full_ext4", cases::full_ext4),
    ("read_only", cases::read_only),
    ("memory", cases::memory),
    ("space", cases::space),
    ("speed", cases::speed),
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
    if !listing {
        println!("seed {} (WINDLASS_STORE_SEED repeats it)", setting.seed);
    }
    let default = EngineConfig::default().kind;
    let mut evidence = Evidence::default();
    for kind in [EngineKind::Redb, EngineKind::Sled] {
        for (name, case) in CASES {
            let full_name = format!("{}::{name}", kit::name(kind));
            if !wanted(&full_name) || !setting.engines.contains(&kind) {
                continue;
            }
            if listing {
                println!("{full_name}: test");
                continue;
            }
            evidence.record(kit::name(kind), name, kind == default, case(kind, &setting));
        }
    }
    if wanted("logs::kill") {
        if listing {
            println!("logs::kill: test");
        } else {
            evidence.record("logs", "kill", true, log_files::kill(&setting));
        }
    }
    if listing || evidence.close(&setting) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
