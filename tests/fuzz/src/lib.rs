//! Feeds a parser of outside input with what is changed at random. A target is a unit test beside its parser, named
//! `fuzz_…`, so that it reaches what is private, and it asserts more than the absence of a panic.
//!
//! Without a nightly compiler there is no coverage to follow. Instead the target tells in a word what became of an input
//! (`taken`, the kind of an error): an input with a word that was not seen before is kept and changed further.
//!
//! In `make test` each target gets its corpus (`tests/corpus/TARGET`, where what once broke it stays for ever) and a fixed
//! number of changed inputs; with `WINDLASS_FUZZ_SECONDS` as many as fit, by a seed that is printed
//! (`WINDLASS_SOAK_SEED`). What breaks it is cut short and written into the corpus. Not here: the targets.

mod chance;

pub use chance::Chance;

use std::{
    collections::BTreeSet,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// Inputs that a target gets in `make test`.
const INPUTS: u64 = 2_000;
/// Inputs that are kept to be changed further.
const KEPT_MAX: usize = 400;
/// The longest input.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Far more than any input may take, on any machine.
const ONE_INPUT_WITHIN: Duration = Duration::from_secs(30);

/// What became of an input: a word for it, or what is wrong with the parser.
pub type Fed = Result<String, String>;

/// Feeds `eat` with the corpus of `target`, with `samples`, and with these changed at random. `words` are pieces that mean
/// something to the parser.
///
/// # Panics
/// When an input breaks it; the message names the file in which it is kept.
pub fn feed(target: &str, samples: &[&[u8]], words: &[&str], mut eat: impl FnMut(&[u8]) -> Fed) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let watch = Watch::start(target, &corpus);
    let mut try_one = |bytes: &[u8]| {
        watch.begin(bytes);
        let fed = catch_unwind(AssertUnwindSafe(|| eat(bytes))).unwrap_or_else(|_| Err("it panicked".into()));
        watch.end();
        fed
    };
    let mut kept: Vec<Vec<u8>> = samples.iter().map(|sample| sample.to_vec()).collect();
    kept.extend(read_corpus(&corpus));
    assert!(!kept.is_empty(), "{target} has neither a sample nor a corpus");
    let mut seen = BTreeSet::new();
    for bytes in &kept {
        match try_one(bytes) {
            Ok(word) => drop(seen.insert(word)),
            Err(wrong) => broken(target, &corpus, bytes, &wrong, &mut try_one),
        }
    }
    let budget = Budget::from_environment();
    let mut chance = Chance::new(budget.seed);
    let mut inputs = 0;
    while budget.has_room(inputs) {
        inputs += 1;
        let bytes = change(&mut chance, &kept, words);
        match try_one(&bytes) {
            Ok(word) if kept.len() < KEPT_MAX && seen.insert(word.clone()) => kept.push(bytes),
            Ok(_) => {}
            Err(wrong) => broken(target, &corpus, &bytes, &wrong, &mut try_one),
        }
    }
    println!("{target}: {inputs} inputs (seed {}), {} answers: {seen:?}", budget.seed, seen.len());
    assert!(seen.len() > 1, "every input of {target} came to the same: nothing was shown");
    note(target, inputs);
}

/// How much a target gets.
struct Budget {
    seed: u64,
    until: Option<Instant>,
}

impl Budget {
    fn from_environment() -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let until = number("WINDLASS_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let seed = number("WINDLASS_SOAK_SEED").unwrap_or_else(|| if until.is_some() { now() } else { 1 });
        Self { seed, until }
    }

    fn has_room(&self, inputs: u64) -> bool {
        self.until.map_or(inputs < INPUTS, |until| Instant::now() < until)
    }
}

fn change(chance: &mut Chance, kept: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let one = &kept[chance.below(kept.len())];
    let mut bytes = match (chance.below(6), serde_json::from_slice::<Value>(one)) {
        (0..=3, Ok(mut value)) => {
            for _ in 0..=chance.below(3) {
                chance.change_json(&mut value);
            }
            value.to_string().into_bytes()
        }
        // The begin of one and the end of another.
        (0, _) => {
            let other = &kept[chance.below(kept.len())];
            let (to, from) = (chance.below(one.len() + 1), chance.below(other.len() + 1));
            [&one[..to], &other[from..]].concat()
        }
        _ => chance.change_bytes(one, words),
    };
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn read_corpus(corpus: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(corpus) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}

/// Cuts the input short, keeps it and says so.
fn broken(target: &str, corpus: &Path, bytes: &[u8], wrong: &str, try_one: &mut impl FnMut(&[u8]) -> Fed) -> ! {
    let mut short = bytes.to_vec();
    let mut size = short.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < short.len() {
            let to = (from + size).min(short.len());
            let fewer = [&short[..from], &short[to..]].concat();
            if try_one(&fewer).is_err() { short = fewer } else { from = to }
        }
        size /= 2;
    }
    let wrong = try_one(&short).err().unwrap_or_else(|| wrong.to_owned());
    let file = keep(corpus, "broken", &short);
    panic!("{target}: {wrong}\nthe input is {}:\n{}", file.display(), String::from_utf8_lossy(&short));
}

fn keep(corpus: &Path, what: &str, bytes: &[u8]) -> PathBuf {
    // FNV-1a: a name, no proof.
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let file = corpus.join(format!("{what}-{hash:016x}"));
    if let Err(error) = fs::create_dir_all(corpus).and_then(|()| fs::write(&file, bytes)) {
        println!("{} could not be written: {error}", file.display());
    }
    file
}

/// For the soak, in the form of `tests::soak`.
fn note(target: &str, inputs: u64) {
    let Some(folder) = env::var_os("WINDLASS_SOAK_DIR").map(PathBuf::from) else { return };
    let part = format!("fuzz-{target}");
    let noted = json!({"part": part, "done": true, "counts": {"bad_inputs": inputs}});
    let file = folder.join(format!("{part}.json"));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, noted.to_string()));
    written.unwrap_or_else(|error| panic!("failed to write {}: {error}", file.display()));
}

/// An input, and since when it is eaten.
type Eaten = Option<(Instant, Vec<u8>)>;

/// What is eaten now, so that a parser that never ends is seen.
struct Watch {
    eaten: Arc<Mutex<Eaten>>,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn start(target: &str, corpus: &Path) -> Self {
        let watch = Self { eaten: Arc::default(), over: Arc::default() };
        let (eaten, over) = (Arc::clone(&watch.eaten), Arc::clone(&watch.over));
        let (target, corpus) = (target.to_owned(), corpus.to_owned());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(200));
                let eaten = eaten.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((since, bytes)) = &*eaten
                    && since.elapsed() > ONE_INPUT_WITHIN
                {
                    let file = keep(&corpus, "slow", bytes);
                    eprintln!("{target} does not end within {ONE_INPUT_WITHIN:?} on {}", file.display());
                    process::abort();
                }
            }
        });
        watch
    }

    fn begin(&self, bytes: &[u8]) {
        *self.eaten.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), bytes.to_vec()));
    }

    fn end(&self) {
        *self.eaten.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_that_breaks_is_found_and_its_input_cut_short() {
        let eat = |bytes: &[u8]| match bytes.windows(2).any(|pair| pair == b"[[") {
            true => Err("two brackets".to_owned()),
            false => Ok(format!("{}", bytes.len() % 5)),
        };
        let told = catch_unwind(AssertUnwindSafe(|| feed("itself", &[b"a [b] [c]"], &["["], eat)));
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/itself");
        let kept = read_corpus(&corpus);
        fs::remove_dir_all(&corpus).expect("the input was kept");
        assert!(told.is_err());
        assert_eq!(kept, [b"[["]);
    }
}
