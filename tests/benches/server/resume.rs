//! Killed with 1,000 trains under way: how soon a new server has done what each of them waits for.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::bench::{Goal, Row};

use crate::{
    running::Place,
    seed::{self, Far},
};

const TRAINS: usize = 1_000;
/// The first server is killed when so many of the mails are out.
const KILL_AT: usize = 50;
const WITHIN: Duration = Duration::from_secs(120);

pub(crate) async fn measure() -> Result<()> {
    let place = Place::new()?;
    seed::fill(&place.config, TRAINS, 1, Far::AboutToAsk).await?;
    let mails = place.dir.path().join("mails");
    let config = place.config.to_str().context("the folder is no text")?;
    let mut windlass = tests::Windlass::start(place.dir.path(), &["serve", "--config", config], &[])?;
    wait(&mails, KILL_AT).await?;
    windlass.kill();
    let before = files(&mails);
    let started = Instant::now();
    windlass.restart()?;
    place.ready().await?;
    let ready = started.elapsed();
    wait(&mails, TRAINS).await?;
    let took = started.elapsed();
    // A mail that was on its way at the kill is there twice, with one Message-ID.
    let ids = message_ids(&mails)?;
    ensure!(ids.len() == TRAINS, "{} mails for {TRAINS} testers", ids.len());
    println!("resume: killed after {before} mails, ready after {ready:?}, everything done after {took:?}");
    let name = "resume after kill -9 with 1,000 trains under way, all work done";
    Row::new(name, took.as_secs_f64(), None, "s", Goal::AtMost(2.0)).note();
    windlass.stop();
    Ok(())
}

async fn wait(mails: &Path, count: usize) -> Result<()> {
    let started = Instant::now();
    while files(mails) < count {
        ensure!(started.elapsed() < WITHIN, "{} mails of {count} within {WITHIN:?}", files(mails));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "eml")).count()
    })
}

fn message_ids(folder: &Path) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "eml") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
        let id = text.lines().find_map(|line| line.strip_prefix("Message-ID:")).context("a mail has no Message-ID")?;
        ids.insert(id.trim().to_owned());
    }
    Ok(ids)
}
