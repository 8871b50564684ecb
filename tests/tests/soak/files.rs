//! Pipeline files changed at random: whatever comes, the parser answers, in time, with a definition or with a problem that
//! has a place.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::mpsc::{SyncSender, sync_channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use pipelines::definition::{parse_bytes, render};
use tests::{evidence, parts::checkout};

use crate::{Setting, chance::Chance};

/// Far more than any file may take, on any machine.
const ONE_FILE_WITHIN: Duration = Duration::from_secs(30);

enum News {
    /// So many bytes were read; whether they were a good file.
    Read(bool),
    /// What is wrong, with the bytes.
    Wrong(String, Vec<u8>),
}

pub(crate) fn run(setting: &Setting) -> Result<String> {
    let mut samples = Vec::new();
    for entry in fs::read_dir(checkout().join("docs/examples"))? {
        samples.push(fs::read_to_string(entry?.path())?);
    }
    samples.sort();
    let (news, inbox) = sync_channel(64);
    let (time, seed) = (setting.time, setting.seed);
    // A thread of its own, so that a parser that never ends is seen.
    std::thread::spawn(move || read_many(&samples, seed, time, &news));
    let (mut read, mut good) = (0_u64, 0_u64);
    loop {
        match inbox.recv_timeout(ONE_FILE_WITHIN) {
            Ok(News::Read(is_good)) => (read, good) = (read + 1, good + u64::from(is_good)),
            Ok(News::Wrong(what, bytes)) => {
                let kept = keep(&bytes)?;
                bail!("file {read}: {what}; the file is {}", kept.display());
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                bail!("file {read} after seed {seed} is not read within {ONE_FILE_WITHIN:?}")
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    if read == 0 || good == 0 {
        bail!("{read} files were read and {good} were good: nothing was shown");
    }
    Ok(format!("{read} files, {good} of them good"))
}

fn read_many(samples: &[String], seed: u64, time: Duration, news: &SyncSender<News>) {
    let mut chance = Chance::new(seed);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let sample = &samples[chance.below(samples.len())];
        let bytes = chance.change_text(sample);
        let told = match catch_unwind(AssertUnwindSafe(|| read_one(&bytes))) {
            Ok(Ok(is_good)) => News::Read(is_good),
            Ok(Err(what)) => News::Wrong(what, bytes),
            Err(_) => News::Wrong("the parser panicked".into(), bytes),
        };
        if news.send(told).is_err() {
            return;
        }
    }
}

fn read_one(bytes: &[u8]) -> Result<bool, String> {
    let (definition, found) = parse_bytes(".windlass.yaml", bytes);
    let errors = found.iter().filter(|problem| problem.is_error()).count();
    if definition.is_some() == (errors > 0) {
        return Err(format!("a definition: {}, and {errors} errors", definition.is_some()));
    }
    let shown = render(&found, &String::from_utf8_lossy(bytes));
    if shown.is_empty() != found.is_empty() {
        return Err("a problem is not shown".into());
    }
    Ok(definition.is_some())
}

fn keep(bytes: &[u8]) -> Result<PathBuf> {
    let folder = evidence::folder().with_file_name("soak");
    fs::create_dir_all(&folder)?;
    let file = folder.join("bad-file.yaml");
    fs::write(&file, bytes).with_context(|| format!("failed to keep {}", file.display()))?;
    Ok(file)
}
