//! The simulation's part of `make soak`: so many lives, on all cores, in pieces whose end is noted, so that it can be
//! stopped and goes on where it was; and each safeguard taken away once. What is noted counts for these sources of domain
//! and simulation alone. Arguments: how many lives, and the folder for what is noted (see `tests::soak`).

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use simulation::{Safeguards, live_many, story};

/// Lives after which it is noted that they were lived.
const PIECE: u64 = 5_000;
/// Lives within which a missing safeguard must show.
const WITHOUT_MAX: u64 = 10_000;

/// What is noted; the fields but the last two are those of every part of the soak.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Noted {
    part: String,
    done: bool,
    counts: Counts,
    safeguards: BTreeMap<String, bool>,
    failures: Vec<String>,
    source: String,
    steps: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counts {
    seeds: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lives: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(wanted), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: lives HOW_MANY FOLDER".into());
    };
    let (wanted, folder) = (wanted.parse::<u64>()?, PathBuf::from(folder));
    fs::create_dir_all(&folder)?;
    let file = folder.join("simulation.json");
    let source = source_digest()?;
    let earlier = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Noted>(&bytes).ok());
    let mut noted = earlier.filter(|noted| noted.source == source && noted.failures.is_empty()).unwrap_or_default();
    (noted.part, noted.source) = ("simulation".into(), source);
    println!("lives: {} of {wanted} are lived already", noted.counts.seeds.min(wanted));
    while noted.counts.seeds < wanted && noted.failures.is_empty() {
        let from = noted.counts.seeds;
        let to = (from + PIECE).min(wanted);
        match live_many(from..to, Safeguards::ALL_ON) {
            Ok(stats) => (noted.counts.seeds, noted.steps) = (to, noted.steps + stats.steps),
            Err(seed) => {
                let told = story(seed, Safeguards::ALL_ON);
                fs::write(folder.join(format!("simulation-seed-{seed}.txt")), &told)?;
                println!("{told}");
                noted.failures.push(format!("seed {seed} broke a promise, see simulation-seed-{seed}.txt"));
            }
        }
        noted.done = false;
        write(&file, &noted)?;
        if to % (20 * PIECE) == 0 || to == wanted {
            println!("lives: {to} lived, {} steps", noted.steps);
        }
    }
    for (name, safe, _) in Safeguards::EACH_OFF {
        if noted.safeguards.get(*name) != Some(&true) {
            noted.safeguards.insert((*name).to_owned(), live_many(0..WITHOUT_MAX, *safe).is_err());
        }
    }
    noted.done = noted.failures.is_empty() && noted.counts.seeds >= wanted;
    write(&file, &noted)?;
    Ok(noted.done && noted.safeguards.values().all(|failed| *failed))
}

/// Whole or not at all: it may be stopped at any moment.
fn write(file: &Path, noted: &Noted) -> Result<(), Box<dyn Error>> {
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(noted)?)?;
    Ok(fs::rename(&new, file)?)
}

/// The digest of all that decides what a life is.
fn source_digest() -> Result<String, Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in [here.join("src"), here.join("../../pipelines/src")] {
        collect(&folder, &mut files)?;
    }
    files.push(here.join("../../Cargo.lock"));
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(file.to_string_lossy().len().to_be_bytes());
        hasher.update(fs::read(&file)?);
    }
    Ok(hex::encode(hasher.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
