//! The journal's chain in the store: the next entry gets its place and its predecessor's digest in the very commit that
//! writes it, older entries are taken in once, and the whole of it is walked along. What a chain is lives in
//! `pipelines::journal::chain`.

use std::sync::Arc;

use pipelines::{
    ids::Digest,
    journal::{
        Entry,
        chain::{Head, Mark, Misfit, Walk, Walked},
    },
};
use rand::RngCore as _;

use super::{
    StoreError,
    embedded::{pack, under, unpack},
    engine::{Batch, Direction, Engine, EngineError, KeyRange, Link, Table},
    tables::{JOURNAL, JOURNAL_BY_SERVICE, JOURNAL_HEAD},
};

const HEAD_KEY: &[u8] = b"head";
/// Entries that are held at once.
const CHUNK_ENTRIES: usize = 200;
/// About what an entry takes beside its words: names of fields, digests, the head.
const ENTRY_BYTES: usize = 1_200;

/// An entry on its way into the chain.
#[derive(Debug)]
struct Next(Entry);

impl Link for Next {
    fn head(&self) -> (Table, &[u8]) {
        (JOURNAL_HEAD, HEAD_KEY)
    }

    fn link(&self, head: Option<&[u8]>) -> Result<Batch, EngineError> {
        let damaged = |error: StoreError| EngineError::Corrupt { detail: error.to_string() };
        let Some(head) = head else {
            return Err(EngineError::Corrupt { detail: "the head of the journal is missing".into() });
        };
        let mut head: Head = unpack(JOURNAL_HEAD, head).map_err(damaged)?;
        let mut entry = self.0.clone();
        head.append(&mut entry);
        let mut batch = Batch::new();
        put_entry(&mut batch, &entry).map_err(damaged)?;
        batch.put(JOURNAL_HEAD, HEAD_KEY, pack(JOURNAL_HEAD, &head).map_err(damaged)?);
        Ok(batch)
    }
}

fn put_entry(batch: &mut Batch, entry: &Entry) -> Result<(), StoreError> {
    let key = entry.seq.to_be_bytes();
    batch.put(JOURNAL, key, pack(JOURNAL, entry)?);
    if let Some(service) = &entry.service {
        batch.put(JOURNAL_BY_SERVICE, under(service, &key), Vec::new());
    }
    Ok(())
}

/// Adds an entry to the batch; it gets its place when the batch is committed.
pub(super) fn append(batch: &mut Batch, entry: Entry) {
    let words = entry.subject.len() + entry.detail.len() + entry.origin.actor.len();
    let fields: usize = entry.changed.iter().map(|it| it.field.len() + it.before.len() + it.after.len() + 40).sum();
    // A control character takes six bytes as JSON.
    let bytes = ENTRY_BYTES + 6 * (words + fields);
    batch.link(Arc::new(Next(entry)), bytes);
}

/// Where the chain is.
pub(super) fn head(engine: &dyn Engine) -> Result<Option<Head>, StoreError> {
    engine.get(JOURNAL_HEAD, HEAD_KEY)?.map(|bytes| unpack(JOURNAL_HEAD, &bytes)).transpose()
}

/// Begins the chain of a store that has none: entries that are there already are taken in, in the order of their places.
/// Killed in between, it goes on with the next start.
pub(super) fn begin(engine: &dyn Engine) -> Result<Head, StoreError> {
    let mut head = match head(engine)? {
        Some(head) if !head.is_adopting => return Ok(head),
        Some(head) => head,
        None => Head { is_adopting: true, ..Head::new(genesis()) },
    };
    loop {
        let range = KeyRange::all().after(&head.seq.to_be_bytes());
        let records = engine.scan(JOURNAL, &range, Direction::Forward, CHUNK_ENTRIES)?;
        let mut batch = Batch::new();
        for (key, bytes) in &records {
            let mut entry: Entry = unpack(JOURNAL, bytes)?;
            if key.as_slice() != entry.seq.to_be_bytes() {
                let why = format!("entry {} lies under another place than its own", entry.seq);
                return Err(StoreError::Record { table: JOURNAL.name(), why });
            }
            if entry.digest.is_some() {
                // The head was lost. Another chain over the same entries would hide what else is.
                let why = "it is missing, though there are entries that it named: restore a backup".to_owned();
                return Err(StoreError::Record { table: JOURNAL_HEAD.name(), why });
            }
            head.adopt(&mut entry);
            put_entry(&mut batch, &entry)?;
        }
        head.is_adopting = !records.is_empty();
        head.adopted = head.seq;
        batch.put(JOURNAL_HEAD, HEAD_KEY, pack(JOURNAL_HEAD, &head)?);
        engine.commit(&batch)?;
        if !head.is_adopting {
            return Ok(head);
        }
    }
}

fn genesis() -> Digest {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    Digest::of(&bytes)
}

/// Walks along the whole chain up to where it is now; holds a bounded part of it in memory. Changes nothing. Entries that
/// are written meanwhile are not looked at.
///
/// # Errors
/// When the store cannot be read; what does not fit is in the answer.
pub(super) fn verify(engine: &dyn Engine, mark: Option<Mark>) -> Result<Result<Walked, Misfit>, StoreError> {
    let Some(head) = head(engine)? else {
        return Ok(Err(Misfit::Unreadable { previous: 0, why: "the head of the journal is missing".into() }));
    };
    let mut walk = Walk::new(Some(head.genesis.clone()), mark);
    let mut last = None;
    loop {
        let range = last.as_deref().map_or_else(KeyRange::all, |last| KeyRange::all().after(last));
        let records = engine.scan(JOURNAL, &range, Direction::Forward, CHUNK_ENTRIES)?;
        let Some((key, _)) = records.last() else { return Ok(walk.end(Some(&head))) };
        last = Some(key.clone());
        for (key, bytes) in &records {
            let unreadable = |why: String| Misfit::Unreadable { previous: walk.seq(), why };
            let entry = match unpack::<Entry>(JOURNAL, bytes) {
                Ok(entry) => entry,
                Err(error) => return Ok(Err(unreadable(error.to_string()))),
            };
            if key.as_slice() != entry.seq.to_be_bytes() {
                return Ok(Err(unreadable(format!("entry {} lies under another place", entry.seq))));
            }
            if walk.seq() == head.seq && is_newer(engine, &head)? {
                return Ok(walk.end(Some(&head)));
            }
            if let Err(misfit) = walk.step(&entry) {
                return Ok(Err(misfit));
            }
        }
    }
}

/// Whether entries were written since `seen` was read: then what lies behind it is theirs.
fn is_newer(engine: &dyn Engine, seen: &Head) -> Result<bool, StoreError> {
    Ok(head(engine)?.is_some_and(|now| now.seq > seen.seq && now.genesis == seen.genesis))
}

#[cfg(test)]
mod tests;
