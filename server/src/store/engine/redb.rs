//! redb as an engine, and how it goes on after a failed write. The file beneath it lives in `redb::file`.
//!
//! redb gives up for good after the first I/O error: reads too fail until the file is opened again. So after one
//! the file is opened again at once, as a **view**: what redb wants to repair goes to memory, so this needs neither
//! room nor a writable file system, and reads go on. A later commit tries the disk with a probe file; only when that
//! can be written is the file itself opened again.
//!
//! Every commit is in two phases (the pages are on disk before the header names them), so a commit that found no
//! room cannot become visible later. Each carries a number; after a failure the view shows which commit the file
//! holds, and so whether the failed one is in it.

mod file;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ::redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use self::file::{Disk, DiskFile, Fault, View};
use super::{Backend, Changes, Direction, EngineError, FlatRange, Record};
use crate::crash;

const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// Number of the last commit.
const SEQUENCE: &str = "sequence";
/// Version of what this module stores.
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;

const FILE_NAME: &str = "store.redb";
/// A new file gets its name only when it is whole.
const NEW_FILE_NAME: &str = "store.redb.new";
const PROBE_NAME: &str = "store.probe";
/// One commit of so many is on disk where flushing is left out.
const UNFLUSHED: u64 = 8;
/// What must be writable, beside four times the commit itself, before a full disk counts as having room again.
const PROBE_BYTES: usize = 256 << 10;
/// A copy is written in steps of about this size.
const BACKUP_STEP_BYTES: usize = 4 << 20;

/// Opens the file for the engine; tests put a failing one in its place.
type OpenDisk = dyn Fn(&Path) -> io::Result<Arc<dyn Disk>> + Send + Sync;

enum State {
    /// The file takes reads and writes.
    Open(Database),
    /// The file is only read; why, and whether a later commit may try again.
    View { db: Database, cause: EngineError },
    /// Not even that.
    Broken(EngineError),
}

pub(super) struct RedbBackend {
    folder: PathBuf,
    cache_bytes: usize,
    open_disk: Box<OpenDisk>,
    state: RwLock<State>,
    sequence: AtomicU64,
    /// The first error that the file met since it was opened: redb itself only says "previous error" later.
    fault: Fault,
    /// Held on the folder, so that it also works where nothing can be created.
    _lock: File,
}

impl fmt::Debug for RedbBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedbBackend").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl RedbBackend {
    pub(super) fn open(folder: &Path, cache_bytes: usize) -> Result<Self, EngineError> {
        RedbBackend::open_on(folder, cache_bytes, Box::new(|path| Ok(Arc::new(DiskFile::open(path)?))))
    }

    fn open_on(folder: &Path, cache_bytes: usize, open_disk: Box<OpenDisk>) -> Result<Self, EngineError> {
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
        }
        let lock = lock_folder(folder)?;
        // Left by a kill; that it is there is no harm, and that it cannot be removed none either.
        let _ = fs::remove_file(folder.join(PROBE_NAME));
        let backend = RedbBackend {
            folder: folder.to_owned(),
            cache_bytes,
            open_disk,
            state: RwLock::new(State::Broken(EngineError::Closed)),
            sequence: AtomicU64::new(0),
            fault: Fault::default(),
            _lock: lock,
        };
        if !backend.file().exists() {
            backend.create()?;
        }
        let state = match backend.open_file() {
            Ok(db) => State::Open(db),
            // Without room or on a read-only file system it can still be read.
            Err(cause @ (EngineError::DiskFull | EngineError::ReadOnly)) => {
                State::View { db: backend.open_view()?, cause }
            }
            Err(error) => return Err(error),
        };
        if let State::Open(db) | State::View { db, .. } = &state {
            backend.sequence.store(read_sequence(db)?, Ordering::SeqCst);
        }
        *backend.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(backend)
    }

    fn file(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
    }

    /// Makes an empty database under another name and renames it, so that a kill leaves none or a whole one.
    fn create(&self) -> Result<(), EngineError> {
        create_database(&self.folder, self.cache_bytes, |_| Ok(()))
    }

    fn builder(&self) -> Builder {
        builder(self.cache_bytes)
    }

    fn open_file(&self) -> Result<Database, EngineError> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let disk = (self.open_disk)(&self.file())?;
        self.builder()
            .create_with_backend(file::Backend::new(disk, Arc::clone(&self.fault)))
            .map_err(|error| self.engine_error(error.into()))
    }

    fn open_view(&self) -> Result<Database, EngineError> {
        let file = File::open(self.file())?;
        self.builder().create_with_backend(View::new(file)?).map_err(|error| self.engine_error(error.into()))
    }

    /// Prefers the error that the file met to what redb made of it.
    fn engine_error(&self, error: ::redb::Error) -> EngineError {
        match error {
            ::redb::Error::Io(_) | ::redb::Error::PreviousIo => {
                let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
                match (&*fault, error) {
                    (Some(fault), _) => fault.clone(),
                    (None, ::redb::Error::Io(error)) => error.into(),
                    (None, error) => EngineError::Io(Arc::new(io::Error::other(error.to_string()))),
                }
            }
            other => plain_error(other),
        }
    }

    /// Runs a read; one whose file had failed is run again on a view.
    fn read<T>(&self, run: impl Fn(&Database) -> Result<T, ::redb::Error>) -> Result<T, EngineError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let error = match &*state {
            State::Open(db) => match run(db) {
                Ok(value) => return Ok(value),
                Err(error @ (::redb::Error::Io(_) | ::redb::Error::PreviousIo)) => self.engine_error(error),
                Err(error) => return Err(plain_error(error)),
            },
            State::View { db, .. } => return run(db).map_err(plain_error),
            State::Broken(error) => return Err(error.clone()),
        };
        drop(state);
        self.fall_back(error);
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(db) | State::View { db, .. } => run(db).map_err(plain_error),
            State::Broken(error) => Err(error.clone()),
        }
    }

    /// Leaves the failed file and goes on reading through a view. Says which commit the file holds.
    fn fall_back(&self, cause: EngineError) -> Option<u64> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Open(_)) {
            return None;
        }
        tracing::warn!(%cause, "the store goes on read-only");
        // Closed before it is opened again: what it still holds in memory must not meet the file later.
        *state = State::Broken(cause.clone());
        match self.open_view().and_then(|db| Ok((read_sequence(&db)?, db))) {
            Ok((sequence, db)) => {
                *state = State::View { db, cause };
                Some(sequence)
            }
            Err(error) => {
                *state = State::Broken(error);
                None
            }
        }
    }

    /// Goes back from a view to the file, if it can be written again.
    fn recover(&self, needed_bytes: usize) -> Result<(), EngineError> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(_) => return Ok(()),
            State::View { cause: EngineError::DiskFull | EngineError::ReadOnly, .. } => {}
            // After another error what is in the page cache and what is on disk may differ: only a new start helps.
            State::View { cause, .. } | State::Broken(cause) => return Err(cause.clone()),
        }
        self.probe(needed_bytes)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let db = self.open_file()?;
        *state = State::Open(db);
        tracing::info!("the store takes changes again");
        Ok(())
    }

    fn probe(&self, needed_bytes: usize) -> Result<(), EngineError> {
        let path = self.folder.join(PROBE_NAME);
        let written = (|| {
            let mut probe = File::create(&path)?;
            let zeros = [0; 64 << 10];
            let mut left = PROBE_BYTES + 4 * needed_bytes;
            while left > 0 {
                let step = left.min(zeros.len());
                probe.write_all(&zeros[..step])?;
                left -= step;
            }
            probe.sync_data()
        })();
        if path.exists() {
            fs::remove_file(&path)?;
        }
        Ok(written?)
    }

    fn try_write(&self, changes: &Changes, sequence: u64) -> Result<(), EngineError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(db) => commit(db, changes, sequence).map_err(|error| self.engine_error(error)),
            State::View { cause, .. } | State::Broken(cause) => Err(cause.clone()),
        }
    }
}

impl Backend for RedbBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.read(|db| {
            let table = db.begin_read()?.open_table(RECORDS)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, range: FlatRange, direction: Direction, limit: usize) -> Result<Vec<Record>, EngineError> {
        let range = (range.0.as_ref().map(Vec::as_slice), range.1.as_ref().map(Vec::as_slice));
        self.read(|db| {
            let table = db.begin_read()?.open_table(RECORDS)?;
            let found = table.range::<&[u8]>(range)?.map(|record| {
                record.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(Into::into)
            });
            match direction {
                Direction::Forward => found.take(limit).collect(),
                Direction::Backward => found.rev().take(limit).collect(),
            }
        })
    }

    fn write(&self, changes: &Changes) -> Result<(), EngineError> {
        let bytes = changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        self.recover(bytes)?;
        let sequence = self.sequence.load(Ordering::SeqCst) + 1;
        let error = match self.try_write(changes, sequence) {
            Ok(()) => {
                self.sequence.store(sequence, Ordering::SeqCst);
                return Ok(());
            }
            Err(error) => error,
        };
        match (self.fall_back(error.clone()), error) {
            // The file holds the state before the commit, and two phases keep it so.
            (Some(found), error @ (EngineError::DiskFull | EngineError::ReadOnly)) if found < sequence => Err(error),
            (_, error) => {
                // Perhaps in the file, perhaps only in the page cache: the outcome is not known.
                let error = match error {
                    EngineError::Io(_) | EngineError::Corrupt { .. } => error,
                    other => EngineError::Io(Arc::new(io::Error::other(other))),
                };
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                if let State::View { cause, .. } = &mut *state {
                    *cause = error.clone();
                }
                Err(error)
            }
        }
    }

    fn check(&self) -> Result<(), EngineError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Open(db) | State::View { db, .. } => match db.check_integrity() {
                Ok(true) => Ok(()),
                Ok(false) => Err(EngineError::Corrupt { detail: "redb: pages failed their checksums".into() }),
                Err(error) => Err(self.engine_error(error.into())),
            },
            State::Broken(error) => Err(error.clone()),
        }
    }

    fn backup(&self, to: &Path) -> Result<(), EngineError> {
        fs::create_dir_all(to)?;
        if to.join(FILE_NAME).exists() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the folder already holds a store").into());
        }
        let _lock = lock_folder(to)?;
        let (transaction, sequence) = self.read(|db| Ok((db.begin_read()?, read_sequence_of(&db.begin_read()?)?)))?;
        let records = transaction.open_table(RECORDS).map_err(|error| self.engine_error(error.into()))?;
        create_database(to, self.cache_bytes, |copy| {
            let mut step = Changes::new();
            let mut bytes = 0;
            for record in records.iter()? {
                let (key, value) = record?;
                let (key, value) = (key.value().to_vec(), value.value().to_vec());
                bytes += key.len() + value.len();
                step.insert(key, Some(value));
                if bytes >= BACKUP_STEP_BYTES {
                    commit(copy, &step, sequence)?;
                    step.clear();
                    bytes = 0;
                }
            }
            commit(copy, &step, sequence)
        })
    }

    fn size_bytes(&self) -> Result<u64, EngineError> {
        use std::os::unix::fs::MetadataExt;
        // The file may have holes: what counts is what it occupies.
        Ok(fs::metadata(self.file())?.blocks() * 512)
    }
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

fn lock_folder(folder: &Path) -> Result<File, EngineError> {
    let lock = File::open(folder)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(EngineError::Locked),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn create_database(
    folder: &Path,
    cache_bytes: usize,
    fill: impl FnOnce(&Database) -> Result<(), ::redb::Error>,
) -> Result<(), EngineError> {
    let new = folder.join(NEW_FILE_NAME);
    if new.exists() {
        fs::remove_file(&new)?;
    }
    let fault = Fault::default();
    let explain = |error: ::redb::Error| {
        fault.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(|| plain_error(error))
    };
    OpenOptions::new().create_new(true).write(true).open(&new)?;
    let disk = file::Backend::new(Arc::new(DiskFile::open(&new)?), Arc::clone(&fault));
    let db = builder(cache_bytes).create_with_backend(disk).map_err(|error| explain(error.into()))?;
    commit(&db, &Changes::new(), 0).and_then(|()| fill(&db)).map_err(explain)?;
    db.close().map_err(|error| explain(error.into()))?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, folder.join(FILE_NAME))?;
    File::open(folder)?.sync_all()?;
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(parent)?.sync_all()?)
}

fn commit(db: &Database, changes: &Changes, sequence: u64) -> Result<(), ::redb::Error> {
    let mut transaction = db.begin_write()?;
    // Also turns two-phase commit on, and makes opening after a kill independent of the size.
    transaction.set_quick_repair(true);
    if crash::without("flush") && !sequence.is_multiple_of(UNFLUSHED) {
        transaction.set_durability(::redb::Durability::None)?;
    }
    {
        let mut records = transaction.open_table(RECORDS)?;
        for (key, value) in changes {
            match value {
                Some(value) => drop(records.insert(key.as_slice(), value.as_slice())?),
                None => drop(records.remove(key.as_slice())?),
            }
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(SEQUENCE, sequence)?;
        meta.insert(FORMAT, FORMAT_VERSION)?;
    }
    Ok(transaction.commit()?)
}

fn read_sequence(db: &Database) -> Result<u64, EngineError> {
    let transaction = db.begin_read().map_err(|error| plain_error(error.into()))?;
    let format = transaction
        .open_table(META)
        .map_err(::redb::Error::from)
        .and_then(|meta| Ok(meta.get(FORMAT)?.map(|format| format.value())))
        .map_err(plain_error)?;
    if format != Some(FORMAT_VERSION) {
        return Err(EngineError::Corrupt { detail: format!("redb: format {format:?} is not known") });
    }
    read_sequence_of(&transaction).map_err(plain_error)
}

fn read_sequence_of(transaction: &::redb::ReadTransaction) -> Result<u64, ::redb::Error> {
    Ok(transaction.open_table(META)?.get(SEQUENCE)?.map_or(0, |sequence| sequence.value()))
}

fn plain_error(error: ::redb::Error) -> EngineError {
    match error {
        ::redb::Error::Io(error) => error.into(),
        ::redb::Error::DatabaseAlreadyOpen => EngineError::Locked,
        ::redb::Error::PreviousIo => EngineError::Io(Arc::new(io::Error::other("an earlier access failed"))),
        other => EngineError::Corrupt { detail: format!("redb: {other}") },
    }
}

#[cfg(test)]
mod tests;
