//! The engine in memory: for simulations and unit tests. Nothing survives the process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use super::{Backend, Changes, Direction, EngineError, FlatRange, Record};

#[derive(Debug, Default)]
pub(super) struct MemoryBackend {
    records: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Backend for MemoryBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.records.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn scan(&self, range: FlatRange, direction: Direction, limit: usize) -> Result<Vec<Record>, EngineError> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let found = records.range(range).map(|(key, value)| (key.clone(), value.clone()));
        Ok(match direction {
            Direction::Forward => found.take(limit).collect(),
            Direction::Backward => found.rev().take(limit).collect(),
        })
    }

    fn write(&self, changes: &Changes) -> Result<(), EngineError> {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            match value {
                Some(value) => drop(records.insert(key.clone(), value.clone())),
                None => drop(records.remove(key)),
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn backup(&self, _to: &Path) -> Result<(), EngineError> {
        Err(EngineError::from(std::io::Error::new(
            std::io::ErrorKind::Unsupported,
            "an engine in memory cannot be copied to disk",
        )))
    }

    fn size_bytes(&self) -> Result<u64, EngineError> {
        Ok(0)
    }
}
