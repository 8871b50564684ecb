//! Versions of the store: which one lies on disk, and how an older one becomes the present one. `docs/store.md` says how a
//! version is added. Not here: the engine's own file format, which has a version of its own.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    StoreError,
    engine::{Batch, Direction, Engine, KeyRange, Table},
    tables::META,
};

/// The version that is written now. Each record carries the version that it was written with.
pub const STORE_VERSION: u32 = 2;

const VERSION_KEY: &[u8] = b"version";
/// How far a migration is, while one is under way.
const PROGRESS_KEY: &[u8] = b"migration";
/// Records that are read at once while they are migrated.
const CHUNK_RECORDS: usize = 200;
/// A transaction of a migration is closed when it is larger.
const CHUNK_BYTES: usize = 1 << 20;

/// What becomes of one record.
#[cfg_attr(not(test), expect(dead_code, reason = "no migration so far changes a record; the tests' ones do"))]
enum Migrated {
    /// It reads as it is.
    Same,
    /// It is this now.
    To(Value),
    /// It is not needed any more.
    Gone,
}

/// One step from a version to the next.
struct Migration {
    /// The tables whose records change.
    tables: &'static [Table],
    /// Changes one record. Each record comes once, also when the migration is interrupted.
    record: fn(table: Table, record: Value) -> Result<Migrated, String>,
}

/// The n-th one leads from version n to n + 1.
const MIGRATIONS: [Migration; STORE_VERSION as usize - 1] = [
    // Version 2 says which version the store has. The records are as they were.
    Migration { tables: &[], record: |_, _| Ok(Migrated::Same) },
];

#[derive(Serialize, Deserialize)]
struct Progress {
    /// To which version.
    to: u32,
    /// Which of the migration's tables.
    table: usize,
    /// The last key of it that is done.
    after: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    v: u32,
    d: Value,
}

/// The version of what lies on `engine`; none where nothing does.
///
/// # Errors
/// When it cannot be read.
pub fn version_of(engine: &dyn Engine) -> Result<Option<u32>, StoreError> {
    if let Some(version) = meta::<u32>(engine, VERSION_KEY)? {
        return Ok(Some(version));
    }
    for number in 0..=u8::MAX {
        if !engine.scan(Table::new(number, "any"), &KeyRange::all(), Direction::Forward, 1)?.is_empty() {
            // The first version did not say so.
            return Ok(Some(1));
        }
    }
    Ok(None)
}

/// Brings the store to the present version. Killed in between, it goes on with the next start.
///
/// # Errors
/// [`StoreError::Newer`], and then nothing was changed; [`StoreError::Migration`].
pub(super) fn bring_up(engine: &dyn Engine) -> Result<(), StoreError> {
    bring_up_by(engine, &MIGRATIONS)
}

fn bring_up_by(engine: &dyn Engine, migrations: &[Migration]) -> Result<(), StoreError> {
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX).saturating_add(1);
    let found = match version_of(engine)? {
        Some(found) if found > known => return Err(StoreError::Newer { found, known }),
        Some(found) => found,
        None => {
            let mut batch = Batch::new();
            batch.put(META, VERSION_KEY, json(&known)?);
            return Ok(engine.commit(&batch)?);
        }
    };
    for (from, migration) in (1_u32..).zip(migrations).skip_while(|(from, _)| *from < found) {
        let to = from + 1;
        let failed = |source| StoreError::Migration { from, to, source: Box::new(source) };
        let changed = migrate(engine, migration, to).map_err(failed)?;
        tracing::info!(from, to, changed, "the store was brought to a new version");
    }
    Ok(())
}

/// One step, in as many transactions as it needs; each says how far it is. Gives the number of changed records.
fn migrate(engine: &dyn Engine, migration: &Migration, to: u32) -> Result<u64, StoreError> {
    let progress = meta::<Progress>(engine, PROGRESS_KEY)?.filter(|progress| progress.to == to);
    let (first, mut after) = progress.map_or((0, Vec::new()), |progress| (progress.table, progress.after));
    let mut changed = 0;
    let mut batch = Batch::new();
    for (index, table) in migration.tables.iter().copied().enumerate().skip(first) {
        let mut range = KeyRange::all();
        if !after.is_empty() {
            range = range.after(&after);
        }
        loop {
            let records = engine.scan(table, &range, Direction::Forward, CHUNK_RECORDS)?;
            let Some((last, _)) = records.last() else { break };
            after.clone_from(last);
            for (key, bytes) in &records {
                changed += u64::from(migrate_record(&mut batch, migration, to, table, key, bytes)?);
                if batch.size_bytes() > CHUNK_BYTES {
                    let progress = Progress { to, table: index, after: key.clone() };
                    batch.put(META, PROGRESS_KEY, json(&progress)?);
                    engine.commit(&std::mem::take(&mut batch))?;
                }
            }
            range = KeyRange::all().after(&after);
        }
        after = Vec::new();
    }
    batch.put(META, VERSION_KEY, json(&to)?).delete(META, PROGRESS_KEY);
    engine.commit(&batch)?;
    Ok(changed)
}

fn migrate_record(
    batch: &mut Batch,
    migration: &Migration,
    to: u32,
    table: Table,
    key: &[u8],
    bytes: &[u8],
) -> Result<bool, StoreError> {
    let wrong = |why: String| StoreError::Record { table: table.name(), why };
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    match (migration.record)(table, envelope.d).map_err(wrong)? {
        Migrated::Same => return Ok(false),
        Migrated::To(record) => drop(batch.put(table, key, json(&Envelope { v: to, d: record })?)),
        Migrated::Gone => drop(batch.delete(table, key)),
    }
    Ok(true)
}

fn meta<T: serde::de::DeserializeOwned>(engine: &dyn Engine, key: &[u8]) -> Result<Option<T>, StoreError> {
    let wrong = |error: serde_json::Error| StoreError::Record { table: META.name(), why: error.to_string() };
    engine.get(META, key)?.map(|bytes| serde_json::from_slice(&bytes).map_err(wrong)).transpose()
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Record { table: META.name(), why: error.to_string() })
}
