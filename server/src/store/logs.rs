//! The log files: what runs print, outside the key-value store. Append-only files for each run and step, indexed by
//! line, bounded. Masking and the runner's own bounds are not here: what arrives is stored as it is.
//!
//! Folder: `<run>/<number>-<step>.log` (the lines), `.idx` (where every n-th line starts; can be made again from the
//! lines), `.count` (how far a log that is full has counted). Names are escaped, so no run or step reaches outside.
//!
//! A line is acknowledged once it is on disk; those who wait at the same time share one flush. Readers see
//! acknowledged lines only. A step has one sender, which numbers its lines from 0 and may send any of them again.

mod frame;
mod names;
mod run;
mod step;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use run::Run;

/// The bounds of the log files.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Bytes that a run may store; beyond it lines are counted only.
    pub run_bytes: u64,
    /// Lines that a run may store; beyond it they are counted only.
    pub run_lines: u64,
    /// Steps of a run.
    pub run_steps: usize,
    /// A longer line is cut, visibly.
    pub line_bytes: usize,
    /// Every n-th line is in the index: reading one reads n lines at most.
    pub index_lines: u32,
    /// What one read returns at most (one line always).
    pub read_bytes: usize,
    /// Lines that one search looks at.
    pub search_lines: u64,
    /// Runs that are kept open while nobody uses or follows them.
    pub idle_runs: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            run_bytes: 256 << 20,
            run_lines: 2_000_000,
            run_steps: 500,
            line_bytes: 64 << 10,
            index_lines: 256,
            read_bytes: 4 << 20,
            search_lines: 500_000,
            idle_runs: 64,
        }
    }
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Windlass itself.
    Note,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was printed, milliseconds since 1970.
    pub time_ms: u64,
    /// Where it came from.
    pub stream: Stream,
    /// Its text, without the end of the line.
    pub text: String,
}

/// A line and its number within the step, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedLine {
    /// The number.
    pub number: u64,
    /// The line.
    pub line: LogLine,
}

/// How far a step's log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Length {
    /// Lines that can be read (with the one that says that the log is full).
    pub lines: u64,
    /// Number of the line that the sender sends next; everything below is acknowledged.
    pub next_line: u64,
    /// Acknowledged lines that were counted and not kept, because the log is full.
    pub dropped: u64,
    /// Whether the step has ended: no new line will come.
    pub finished: bool,
}

/// A step of a run, in the order in which their first lines came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLog {
    /// The step.
    pub step: String,
    /// How far it is.
    pub length: Length,
    /// Time of its first line.
    pub first_ms: Option<u64>,
    /// Time of its last line.
    pub last_ms: Option<u64>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The lines that hold the text.
    pub hits: Vec<NumberedLine>,
    /// Where to go on; `None` at the end of the log.
    pub next_from: Option<u64>,
}

/// What went wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// Lines before these have not come; nothing was stored.
    #[error("line {first_line} does not follow: line {expected} is next")]
    Gap {
        /// The first line that was sent.
        first_line: u64,
        /// The line to send.
        expected: u64,
    },
    /// The step has ended; nothing was stored.
    #[error("the step has ended")]
    Finished,
    /// The name of a run or step is empty or too long.
    #[error("{0:?} is no name of a run or step")]
    BadName(String),
    /// The run has as many steps as the configuration allows.
    #[error("a run has at most {bound} steps")]
    TooManySteps {
        /// The bound.
        bound: usize,
    },
    /// There is no room; nothing was acknowledged.
    #[error("the disk is full")]
    DiskFull,
    /// The file system does not take writes; nothing was acknowledged.
    #[error("the file system is read-only")]
    ReadOnly,
    /// A stored line cannot be understood.
    #[error("the log is damaged at line {line}")]
    Damaged {
        /// The line.
        line: u64,
    },
    /// Reading or writing failed in another way; nothing was acknowledged.
    #[error("the log cannot be read or written")]
    Io(#[source] Arc<io::Error>),
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::DiskFull,
            io::ErrorKind::ReadOnlyFilesystem => LogError::ReadOnly,
            _ => LogError::Io(Arc::new(error)),
        }
    }
}

/// The log files of all runs. Methods may be called from many threads, and block: use a blocking task in async code.
#[derive(Debug)]
pub struct LogStore {
    root: PathBuf,
    config: LogConfig,
    runs: Mutex<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    open: HashMap<String, (Arc<Run>, u64)>,
    uses: u64,
}

impl LogStore {
    /// Opens the log files in a folder, which is created where it is missing. One process at a time.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(root: &Path, mut config: LogConfig) -> Result<Self, LogError> {
        // What the file's format can hold.
        config.run_lines = config.run_lines.min(u64::from(u32::MAX) - 1_000_000);
        config.line_bytes = config.line_bytes.min(frame::FRAME_BYTES / 2);
        config.index_lines = config.index_lines.max(1);
        if !root.is_dir() {
            fs::create_dir_all(root)?;
        }
        Ok(LogStore { root: root.to_owned(), config, runs: Mutex::default() })
    }

    /// Stores lines, the first of which has the number `first_line`, and says how far the log is. Lines that are
    /// there already are passed over. When it returns, all of them are on disk (or counted, where the log is full).
    ///
    /// # Errors
    /// After any error nothing new counts as acknowledged: send the lines from [`Length::next_line`] on again.
    pub fn append(&self, run: &str, step: &str, first_line: u64, lines: &[LogLine]) -> Result<Length, LogError> {
        let run = self.run(run)?;
        let length = run.step(step)?.append(first_line, lines)?;
        run.signal();
        Ok(length)
    }

    /// Ends the step's log: no further line is accepted. Again is harmless.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(&self, run: &str, step: &str) -> Result<Length, LogError> {
        let run = self.run(run)?;
        let length = run.step(step)?.finish()?;
        run.signal();
        Ok(length)
    }

    /// At most `limit` lines from the line `from` on; fewer where they are many bytes. Empty behind the end.
    ///
    /// # Errors
    /// [`LogError::Damaged`], and those of the file system.
    pub fn read(&self, run: &str, step: &str, from: u64, limit: usize) -> Result<Vec<NumberedLine>, LogError> {
        match self.known_run(run)?.and_then(|run| run.known_step(step)) {
            Some(step) => step.read(from, limit, self.config.read_bytes),
            None => Ok(Vec::new()),
        }
    }

    /// The same, fewer where they are more than `bytes_max` bytes (one line always).
    ///
    /// # Errors
    /// As for [`LogStore::read`].
    pub fn read_some(
        &self,
        run: &str,
        step: &str,
        from: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<NumberedLine>, LogError> {
        match self.known_run(run)?.and_then(|run| run.known_step(step)) {
            Some(step) => step.read(from, limit, bytes_max),
            None => Ok(Vec::new()),
        }
    }

    /// How far the logs of all steps are, in the order in which they began; without reading a line.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lengths(&self, run: &str) -> Result<Vec<(String, Length)>, LogError> {
        Ok(self.known_run(run)?.map(|run| run.lengths()).unwrap_or_default())
    }

    /// How far the step's log is; of an unknown one: nowhere.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn length(&self, run: &str, step: &str) -> Result<Length, LogError> {
        let step = self.known_run(run)?.and_then(|run| run.known_step(step));
        Ok(step.map(|step| step.length()).unwrap_or_default())
    }

    /// The run's steps that have a log, in the order in which they began.
    ///
    /// # Errors
    /// [`LogError::Damaged`], and those of the file system.
    pub fn steps(&self, run: &str) -> Result<Vec<StepLog>, LogError> {
        self.known_run(run)?.map_or(Ok(Vec::new()), |run| run.summaries())
    }

    /// Lines from `from` on that hold the text, at most `max_hits`. Without a capital letter in it, capitals do not
    /// matter (in ASCII). It looks at a bounded number of lines: [`Found::next_from`] goes on.
    ///
    /// # Errors
    /// [`LogError::Damaged`], and those of the file system.
    pub fn search(&self, run: &str, step: &str, text: &str, from: u64, max_hits: usize) -> Result<Found, LogError> {
        match self.known_run(run)?.and_then(|run| run.known_step(step)) {
            Some(step) => step.search(text, from, max_hits),
            None => Ok(Found { hits: Vec::new(), next_from: None }),
        }
    }

    /// A signal that the run's logs have changed. It carries nothing: read again.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn follow(&self, run: &str) -> Result<watch::Receiver<()>, LogError> {
        Ok(self.run(run)?.follow())
    }

    /// The runs that have logs, by name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn runs(&self) -> Result<Vec<String>, LogError> {
        let mut runs = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            runs.extend(names::unescape(&entry?.file_name().to_string_lossy()));
        }
        runs.sort_unstable();
        Ok(runs)
    }

    /// What the run's files occupy, their indexes too; without opening them.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn disk_bytes(&self, run: &str) -> Result<u64, LogError> {
        let mut bytes = 0;
        let found = match fs::read_dir(self.root.join(names::escape(run)?)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        for entry in found {
            bytes += entry?.metadata()?.len();
        }
        Ok(bytes)
    }

    /// What the run's logs occupy.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn size_bytes(&self, run: &str) -> Result<u64, LogError> {
        Ok(self.known_run(run)?.map_or(0, |run| run.size_bytes()))
    }

    /// Removes the run's logs.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self, run: &str) -> Result<(), LogError> {
        let folder = self.root.join(names::escape(run)?);
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open, _)) = runs.open.remove(run) {
            open.signal();
        }
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The run, only if there is something of it.
    fn known_run(&self, key: &str) -> Result<Option<Arc<Run>>, LogError> {
        let folder = self.root.join(names::escape(key)?);
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if !runs.open.contains_key(key) && !folder.is_dir() {
            return Ok(None);
        }
        self.open_run(&mut runs, key, folder).map(Some)
    }

    fn run(&self, key: &str) -> Result<Arc<Run>, LogError> {
        let folder = self.root.join(names::escape(key)?);
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        self.open_run(&mut runs, key, folder)
    }

    fn open_run(&self, runs: &mut Runs, key: &str, folder: PathBuf) -> Result<Arc<Run>, LogError> {
        runs.uses += 1;
        let now = runs.uses;
        if let Some((run, used)) = runs.open.get_mut(key) {
            *used = now;
            return Ok(Arc::clone(run));
        }
        if !folder.is_dir() {
            fs::create_dir(&folder)?;
            File::open(&self.root)?.sync_all()?;
        }
        let run = Arc::new(Run::open(folder, self.config.clone())?);
        runs.open.insert(key.to_owned(), (Arc::clone(&run), now));
        // Only under this lock is a run handed out: one that nobody holds now is held by nobody until it is gone.
        let mut idle: Vec<(u64, String)> = runs
            .open
            .iter()
            .filter(|(_, (run, _))| Arc::strong_count(run) == 1 && !run.is_followed())
            .map(|(key, (_, used))| (*used, key.clone()))
            .collect();
        idle.sort_unstable();
        let surplus = idle.len().saturating_sub(self.config.idle_runs);
        for (_, key) in idle.into_iter().take(surplus) {
            runs.open.remove(&key);
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests;
