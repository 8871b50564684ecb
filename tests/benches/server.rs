//! The server as a process: hooks, memory, time to ready, the board, going on after a kill; and with an engine the way of a
//! push to its first log line, and of many lines to their reader.

#[path = "server/hooks.rs"]
mod hooks;
#[path = "server/lines.rs"]
mod lines;
#[path = "server/reading.rs"]
mod reading;
#[path = "server/resume.rs"]
mod resume;
#[path = "server/running.rs"]
mod running;
#[path = "server/seed.rs"]
mod seed;
#[path = "server/start.rs"]
mod start;
#[path = "server/yard.rs"]
mod yard;

use anyhow::Result;
use tests::{Part, bench::conditions, require};

/// Runs the parts that are named on the command line, or all.
#[tokio::main]
async fn main() -> Result<()> {
    println!("{}", conditions());
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    // Sets up the process's cryptography, which every client needs.
    drop(tests::http_client());
    if wanted("idle") {
        reading::idle().await?;
    }
    if wanted("hooks") {
        hooks::measure().await?;
    }
    if wanted("resume") {
        resume::measure().await?;
    }
    if wanted("board") {
        reading::board().await?;
    }
    if (wanted("start") || wanted("lines")) && require(&[Part::Docker, Part::Registry, Part::Git]) {
        let yard = yard::Yard::start().await?;
        if wanted("start") {
            start::measure(&yard).await?;
        }
        if wanted("lines") {
            lines::measure(&yard).await?;
        }
    }
    Ok(())
}
