//! Tables and batches: what a commit asks for. How it is applied lives in `commit`.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use super::EngineError;

/// A table: a name for people and a number that is part of every stored key, so it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table {
    number: u8,
    name: &'static str,
}

impl Table {
    /// A table.
    #[must_use]
    pub const fn new(number: u8, name: &'static str) -> Self {
        Table { number, name }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The key in the engine's one key space.
    pub(super) fn flat(self, key: &[u8]) -> Vec<u8> {
        let mut flat = Vec::with_capacity(key.len() + 1);
        flat.push(self.number);
        flat.extend_from_slice(key);
        flat
    }
}

#[derive(Debug, Clone)]
pub(super) struct Expectation {
    pub(super) table: Table,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// A change whose content depends on the state that it is committed on: the next entry of a log that names the one before.
pub trait Link: fmt::Debug + Send + Sync {
    /// The record that it depends on.
    fn head(&self) -> (Table, &[u8]);

    /// What it changes, where the record has this value. Called once for each try to commit, in the order of the commits.
    ///
    /// # Errors
    /// Then nothing of the batch is written.
    fn link(&self, head: Option<&[u8]>) -> Result<Batch, EngineError>;
}

/// Changes over any tables that are applied together or not at all, and the conditions under which.
///
/// The conditions are about the state before the batch. Of several changes to one key the last one counts.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(super) expectations: Vec<Expectation>,
    pub(super) changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) links: Vec<Arc<dyn Link>>,
    bytes: usize,
    pub(super) counters: Vec<Arc<AtomicU64>>,
}

impl Batch {
    /// A batch that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Batch::default()
    }

    /// Stores a value.
    pub fn put(&mut self, table: Table, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> &mut Self {
        let value = value.into();
        self.bytes += key.as_ref().len() + value.len() + 1;
        self.changes.push((table.flat(key.as_ref()), Some(value)));
        self
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, table: Table, key: impl AsRef<[u8]>) -> &mut Self {
        self.bytes += key.as_ref().len() + 1;
        self.changes.push((table.flat(key.as_ref()), None));
        self
    }

    /// Applies the batch only if the key holds exactly this value.
    pub fn expect(&mut self, table: Table, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.expectation(table, key.as_ref(), Some(value.into()))
    }

    /// Applies the batch only if the key is not there.
    pub fn expect_absent(&mut self, table: Table, key: impl AsRef<[u8]>) -> &mut Self {
        self.expectation(table, key.as_ref(), None)
    }

    /// Adds what `link` makes of the state at the commit, behind the other changes; `bytes` is about how large that is.
    pub fn link(&mut self, link: Arc<dyn Link>, bytes: usize) -> &mut Self {
        self.bytes += bytes;
        self.links.push(link);
        self
    }

    fn expectation(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) -> &mut Self {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 1;
        self.expectations.push(Expectation { table, key: key.to_vec(), value });
        self
    }

    /// Counts one up when the batch was written and can be read, before whoever waits for it is answered; also where it is not
    /// known whether it was written.
    pub fn count(&mut self, counter: Arc<AtomicU64>) -> &mut Self {
        self.counters.push(counter);
        self
    }

    /// Its size: keys and values.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it changes nothing and expects nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.expectations.is_empty() && self.links.is_empty()
    }
}
