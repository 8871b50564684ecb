//! The embedded key-value engine beneath the store: its interface, its errors and the choice of one.
//! No nouns here: they live in the store above, which is the only user of this module.

mod batch;
mod commit;
mod memory;
mod redb;
mod sled;
mod times;

use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

pub use batch::{Batch, Link, Table};
pub use commit::Pending;
pub use times::CommitTimes;

use commit::Grouped;

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// A key-value engine with tables, whose commits are atomic over all tables and durable when they return.
///
/// Concurrency: every method may be called from many threads. Commits that wait at the same time are merged and
/// share one flush; each is answered only after the flush that holds it. Reads see committed batches only, whole
/// batches only, and never wait for a commit. The methods block: call them from async code through a blocking
/// task, or use [`Engine::submit`], which does not block.
///
/// After [`EngineError::DiskFull`] or [`EngineError::ReadOnly`] reads go on, and a later commit succeeds once there
/// is room again or the file system is writable again; nothing needs to be reopened.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Applies the batch: all of it or nothing. It is on disk when this returns `Ok`.
    ///
    /// # Errors
    /// [`EngineError::Conflict`], [`EngineError::DiskFull`], [`EngineError::ReadOnly`] and
    /// [`EngineError::TooLarge`] mean that nothing was written. After [`EngineError::Io`] the outcome is not known:
    /// the batch is there whole or not at all, and no further commit is accepted until the engine is opened again.
    fn commit(&self, batch: &Batch) -> Result<(), EngineError>;

    /// As [`Engine::commit`], without blocking: the answer is awaited.
    ///
    /// # Errors
    /// [`EngineError::Busy`] where as many batches wait as the configuration allows.
    fn submit(&self, batch: Batch) -> Result<Pending, EngineError>;

    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`], [`EngineError::Io`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// At most `limit` records of the range, in the direction's order, as of one moment.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`], [`EngineError::Io`].
    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Record>, EngineError>;

    /// Verifies everything that is stored; blocks reads and commits meanwhile.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] says what is wrong.
    fn check(&self) -> Result<(), EngineError>;

    /// Writes a consistent copy, as of one moment, into the folder `to` (which must not hold one yet), while reads
    /// and commits go on. [`open`] opens the copy.
    ///
    /// # Errors
    /// Those of writing; what was written of an unfinished copy is never taken for a whole one.
    fn backup(&self, to: &Path) -> Result<(), EngineError>;

    /// What the engine occupies on disk.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn size_bytes(&self) -> Result<u64, EngineError>;

    /// Why commits are refused at the moment, if the last one was; for a health page.
    fn trouble(&self) -> Option<EngineError>;

    /// How many flushes there were since it was opened, and how long they took.
    fn commit_times(&self) -> CommitTimes;

    /// How many batches wait for the next flush.
    fn waiting(&self) -> BatchesWaiting;
}

/// Batches that wait for a flush.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchesWaiting {
    /// So many wait now.
    pub waiting: usize,
    /// So many may wait.
    pub max: usize,
    /// So many were refused because as many waited, since the engine was opened.
    pub refused: u64,
}

/// What went wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// A precondition of the batch does not hold; nothing was written.
    #[error("the precondition on a key of {table} does not hold")]
    Conflict {
        /// Name of the table.
        table: &'static str,
        /// The key.
        key: Vec<u8>,
    },
    /// There is no room; nothing was written.
    #[error("the disk is full")]
    DiskFull,
    /// The file system does not take writes; nothing was written.
    #[error("the file system is read-only")]
    ReadOnly,
    /// The batch is larger than the configuration allows; nothing was written.
    #[error("a batch of {bytes} bytes is above the bound of {bound_bytes}")]
    TooLarge {
        /// Size of the batch.
        bytes: usize,
        /// The bound.
        bound_bytes: usize,
    },
    /// As many batches wait as the configuration allows; nothing was written.
    #[error("too many changes wait to be stored")]
    Busy,
    /// What is stored cannot be understood.
    #[error("the stored data is damaged: {detail}")]
    Corrupt {
        /// What was found.
        detail: String,
    },
    /// Another process has the store open.
    #[error("another process has the store open")]
    Locked,
    /// Reading or writing failed in another way. After a commit: its outcome is not known.
    #[error("the store cannot be read or written")]
    Io(#[source] Arc<io::Error>),
    /// The engine is shutting down; the outcome of a batch that waited is not known.
    #[error("the store is closed")]
    Closed,
}

impl From<io::Error> for EngineError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineError::DiskFull,
            io::ErrorKind::ReadOnlyFilesystem => EngineError::ReadOnly,
            _ => EngineError::Io(Arc::new(error)),
        }
    }
}

/// A range of keys within a table.
#[derive(Debug, Clone)]
pub struct KeyRange {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        KeyRange { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// Keys that start with the prefix.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        KeyRange {
            from: Bound::Included(prefix.to_vec()),
            to: after_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded),
        }
    }

    /// Keys between two bounds.
    #[must_use]
    pub fn between(from: Bound<&[u8]>, to: Bound<&[u8]>) -> Self {
        KeyRange { from: from.map(<[u8]>::to_vec), to: to.map(<[u8]>::to_vec) }
    }

    /// The same range without what lies before `key`, nor `key` itself: how a listing goes on.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        self.from = Bound::Excluded(key.to_vec());
        self
    }

    /// The same range without what lies behind `key`, nor `key` itself.
    #[must_use]
    pub fn before(mut self, key: &[u8]) -> Self {
        self.to = Bound::Excluded(key.to_vec());
        self
    }

    /// Bounds in the engine's one key space, in which a table is a prefix of one byte; `None` for an empty range.
    fn in_table(&self, table: Table) -> Option<FlatRange> {
        let flat = |key: &Vec<u8>| table.flat(key);
        let from = match &self.from {
            Bound::Unbounded => Bound::Included(table.flat(&[])),
            bound => bound.as_ref().map(flat),
        };
        let to = match &self.to {
            Bound::Unbounded => after_prefix(&table.flat(&[])).map_or(Bound::Unbounded, Bound::Excluded),
            bound => bound.as_ref().map(flat),
        };
        let empty = match (&from, &to) {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
            _ => false,
        };
        (!empty).then_some((from, to))
    }
}

type FlatRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The first key behind all keys that start with the prefix, if there is one.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Backward,
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// redb: the default, because it passes the whole contract (docs/store.md has the figures).
    Redb,
    /// sled 0.34: kept to be compared, it does not pass the contract.
    Sled,
    /// Nothing on disk: for simulations and unit tests.
    Memory,
}

/// How an engine is opened, and its bounds.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Which engine.
    pub kind: EngineKind,
    /// Memory that the engine may use to cache pages.
    pub cache_bytes: usize,
    /// Batches that may wait for the next flush; beyond it `commit` blocks and `submit` refuses.
    pub queue_batches: usize,
    /// Batches that share one flush at most.
    pub group_batches: usize,
    /// Bytes that share one flush at most (one batch may always go alone).
    pub group_bytes: usize,
    /// Largest batch that is accepted.
    pub batch_bytes: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            kind: EngineKind::Redb,
            cache_bytes: 16 << 20,
            queue_batches: 1024,
            group_batches: 256,
            group_bytes: 4 << 20,
            batch_bytes: 4 << 20,
        }
    }
}

/// Opens the engine in a folder, which is created where it is missing. One process at a time.
///
/// # Errors
/// [`EngineError::Locked`], [`EngineError::Corrupt`], and those of reading and writing.
pub fn open(folder: &Path, config: &EngineConfig) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match config.kind {
        EngineKind::Redb => Arc::new(Grouped::start(redb::RedbBackend::open(folder, config.cache_bytes)?, config)?),
        EngineKind::Sled => Arc::new(Grouped::start(sled::SledBackend::open(folder, config.cache_bytes)?, config)?),
        EngineKind::Memory => Arc::new(Grouped::start(memory::MemoryBackend::default(), config)?),
    })
}

/// What an engine provides beneath the group commit: one flat, ordered key space.
trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;
    /// At most `limit` records of the range.
    fn scan(&self, range: FlatRange, direction: Direction, limit: usize) -> Result<Vec<Record>, EngineError>;
    /// Applies all changes (`None` deletes) in one atomic step that is durable on return. One caller at a time.
    fn write(&self, changes: &Changes) -> Result<(), EngineError>;
    fn check(&self) -> Result<(), EngineError>;
    fn backup(&self, to: &Path) -> Result<(), EngineError>;
    fn size_bytes(&self) -> Result<u64, EngineError>;
}

type Changes = std::collections::BTreeMap<Vec<u8>, Option<Vec<u8>>>;

#[cfg(test)]
mod tests;
