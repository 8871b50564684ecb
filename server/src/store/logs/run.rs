//! The logs of one run: its steps, what they use of the run's bounds together, and who follows them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::step::Step;
use super::{Length, LogConfig, LogError, StepLog, names};

#[derive(Debug)]
pub(super) struct Run {
    folder: PathBuf,
    config: LogConfig,
    used: Arc<Mutex<Used>>,
    steps: Mutex<Steps>,
    signal: watch::Sender<()>,
}

/// What the run's steps have stored.
#[derive(Debug, Default)]
pub(super) struct Used {
    bytes: u64,
    lines: u64,
    /// Set once and for good: a log that has left something out does not go on later.
    full: bool,
}

impl Used {
    /// Takes room for a line, if there is some.
    pub(super) fn take(&mut self, bytes: u64, config: &LogConfig) -> bool {
        if self.full || self.lines + 1 > config.run_lines || self.bytes + bytes > config.run_bytes {
            self.full = true;
            return false;
        }
        self.bytes += bytes;
        self.lines += 1;
        true
    }

    /// Gives room back that was taken for nothing.
    pub(super) fn give_back(&mut self, bytes: u64, lines: u64, full: bool) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.lines = self.lines.saturating_sub(lines);
        self.full = full;
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }
}

#[derive(Debug, Default)]
struct Steps {
    by_name: BTreeMap<String, Arc<Step>>,
    in_order: Vec<String>,
    next_number: u32,
}

impl Run {
    /// Opens what is there.
    pub(super) fn open(folder: PathBuf, config: LogConfig) -> Result<Self, LogError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some((number, step)) = name.strip_suffix(".log").and_then(|stem| stem.split_once('-')) else {
                continue;
            };
            if let (Ok(number), Some(step)) = (number.parse::<u32>(), names::unescape(step)) {
                files.push((number, step));
            }
        }
        files.sort_unstable();
        let used = Arc::new(Mutex::new(Used::default()));
        let mut steps = Steps::default();
        for (number, name) in files {
            let step = Step::open(&stem(&folder, number, &name)?, config.clone(), Arc::clone(&used))?;
            let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
            used.bytes += step.size_bytes();
            used.lines += step.length().lines;
            used.full |= step.is_full();
            drop(used);
            steps.next_number = number + 1;
            steps.in_order.push(name.clone());
            steps.by_name.insert(name, Arc::new(step));
        }
        Ok(Run { folder, config, used, steps: Mutex::new(steps), signal: watch::Sender::new(()) })
    }

    /// The step, made where it is missing.
    pub(super) fn step(&self, name: &str) -> Result<Arc<Step>, LogError> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = steps.by_name.get(name) {
            return Ok(Arc::clone(step));
        }
        if steps.in_order.len() >= self.config.run_steps {
            return Err(LogError::TooManySteps { bound: self.config.run_steps });
        }
        let stem = stem(&self.folder, steps.next_number, name)?;
        let step = Arc::new(Step::create(&stem, self.config.clone(), Arc::clone(&self.used))?);
        fs::File::open(&self.folder)?.sync_all()?;
        steps.next_number += 1;
        steps.in_order.push(name.to_owned());
        steps.by_name.insert(name.to_owned(), Arc::clone(&step));
        Ok(step)
    }

    pub(super) fn known_step(&self, name: &str) -> Option<Arc<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    fn steps_in_order(&self) -> Vec<(String, Arc<Step>)> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |name: &String| Some((name.clone(), Arc::clone(steps.by_name.get(name)?)));
        steps.in_order.iter().filter_map(known).collect()
    }

    pub(super) fn lengths(&self) -> Vec<(String, Length)> {
        self.steps_in_order().into_iter().map(|(name, step)| (name, step.length())).collect()
    }

    pub(super) fn summaries(&self) -> Result<Vec<StepLog>, LogError> {
        self.steps_in_order()
            .into_iter()
            .map(|(name, step)| {
                let length = step.length();
                let time = |line: u64| Ok::<_, LogError>(step.read(line, 1, 0)?.first().map(|line| line.line.time_ms));
                let last_ms = if length.lines == 0 { None } else { time(length.lines - 1)? };
                Ok(StepLog { step: name, length, first_ms: time(0)?, last_ms })
            })
            .collect()
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    pub(super) fn signal(&self) {
        self.signal.send_replace(());
    }

    pub(super) fn follow(&self) -> watch::Receiver<()> {
        self.signal.subscribe()
    }

    pub(super) fn is_followed(&self) -> bool {
        self.signal.receiver_count() > 0
    }
}

/// The path of a step's files without their endings.
fn stem(folder: &std::path::Path, number: u32, name: &str) -> Result<PathBuf, LogError> {
    Ok(folder.join(format!("{number:04}-{}", names::escape(name)?)))
}
