//! sled 0.34 as an engine, kept to be compared by the contract test. It does not pass it: see docs/store.md.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use ::sled::{Config, Db};

use super::{Backend, Changes, Direction, EngineError, FlatRange, Record};

pub(super) struct SledBackend {
    folder: PathBuf,
    cache_bytes: u64,
    /// `None` after a failure from which opening it again did not help yet.
    db: RwLock<Option<Db>>,
}

impl fmt::Debug for SledBackend {
    // sled's own prints every record.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SledBackend").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl SledBackend {
    pub(super) fn open(folder: &Path, cache_bytes: usize) -> Result<Self, EngineError> {
        let cache_bytes = cache_bytes as u64;
        let db = open_db(folder, cache_bytes)?;
        Ok(SledBackend { folder: folder.to_owned(), cache_bytes, db: RwLock::new(Some(db)) })
    }

    /// Runs it on the open database, and opens that again first if a failure had closed it.
    fn with<T>(&self, run: impl FnOnce(&Db) -> ::sled::Result<T>) -> Result<T, EngineError> {
        let open = self.db.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = &*open {
            return run(db).map_err(engine_error);
        }
        drop(open);
        let mut open = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() {
            *open = Some(open_db(&self.folder, self.cache_bytes)?);
        }
        open.as_ref().map_or(Err(EngineError::Closed), |db| run(db).map_err(engine_error))
    }
}

fn open_db(folder: &Path, cache_bytes: u64) -> Result<Db, EngineError> {
    // Flushing by itself would only hide a flush that is missing here.
    Config::new().path(folder).cache_capacity(cache_bytes).flush_every_ms(None).open().map_err(engine_error)
}

impl Backend for SledBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.with(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(&self, range: FlatRange, direction: Direction, limit: usize) -> Result<Vec<Record>, EngineError> {
        self.with(|db| {
            let found = db.range(range);
            let own = |record: ::sled::Result<(::sled::IVec, ::sled::IVec)>| {
                record.map(|(key, value)| (key.to_vec(), value.to_vec()))
            };
            match direction {
                Direction::Forward => found.take(limit).map(own).collect(),
                Direction::Backward => found.rev().take(limit).map(own).collect(),
            }
        })
    }

    fn write(&self, changes: &Changes) -> Result<(), EngineError> {
        let result = self.with(|db| {
            let mut batch = ::sled::Batch::default();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                    None => batch.remove(key.as_slice()),
                }
            }
            db.apply_batch(batch)?;
            db.flush().map(drop)
        });
        if result.is_err() {
            // An error of sled's is final for the open database: it has to be opened again.
            drop(self.db.write().unwrap_or_else(PoisonError::into_inner).take());
        }
        result
    }

    fn check(&self) -> Result<(), EngineError> {
        self.with(|db| db.verify_integrity())
    }

    fn backup(&self, to: &Path) -> Result<(), EngineError> {
        let copy = open_db(to, self.cache_bytes)?;
        self.with(|db| {
            for record in db.iter() {
                let (key, value) = record?;
                copy.insert(key, value)?;
            }
            copy.flush().map(drop)
        })
    }

    fn size_bytes(&self) -> Result<u64, EngineError> {
        self.with(Db::size_on_disk)
    }
}

fn engine_error(error: ::sled::Error) -> EngineError {
    match error {
        ::sled::Error::Io(error) => {
            // sled has no kind for it.
            let locked = error.to_string().contains("could not acquire lock");
            if locked { EngineError::Locked } else { error.into() }
        }
        ::sled::Error::Corruption { at, .. } => EngineError::Corrupt { detail: format!("sled: corruption at {at:?}") },
        other => EngineError::Corrupt { detail: format!("sled: {other}") },
    }
}
