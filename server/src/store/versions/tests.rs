//! Stores of every version open, migrations go on after a kill, and no record changes its shape unseen.

mod fixture;

use std::{
    collections::BTreeMap,
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use flate2::read::GzDecoder;
use pipelines::{
    approval::Approval,
    effect::PendingEffect,
    ids::{Digest, RunId},
    journal::{Entry, chain::Head},
    release::Release,
    rollout::Rollout,
    run::Run,
    service::Service,
    train::Train,
};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{
    super::{
        Account, Delivery, DeliveryId, NamedSecret, RunnerRecord, RunnerToken, SealedSecrets, SecretUse, SeenRef,
        Session, Store, StoreError, Token,
        embedded::EmbeddedStore,
        engine::{
            self, Batch, BatchesWaiting, CommitTimes, Engine, EngineConfig, EngineError, EngineKind, Pending, Record,
        },
        tables::{self, META},
    },
    *,
};

/// The last version that people have: its records no longer change. A newer one may change until it is released, as long
/// as what was written by it meanwhile still reads.
const RELEASED_VERSION: u32 = 1;
/// Tables that the first version did not have.
const SINCE_VERSION_2: [Table; 6] = [
    tables::JOURNAL_HEAD,
    tables::NAMED_SECRETS,
    tables::SECRET_USES,
    tables::SERVER,
    tables::RUNNERS,
    tables::RUNNER_TOKENS,
];

fn fixture_store(version: u32, folder: &Path) -> Arc<dyn Engine> {
    let path = fixture::folder().join(format!("v{version}.redb.gz"));
    let packed = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("store.redb"), bytes).unwrap();
    engine::open(folder, &EngineConfig::default()).unwrap()
}

fn in_memory() -> Arc<dyn Engine> {
    engine::open(Path::new(""), &EngineConfig { kind: EngineKind::Memory, ..EngineConfig::default() }).unwrap()
}

#[test]
fn a_store_of_every_earlier_version_opens_whole_and_loses_nothing() {
    for version in 1..=STORE_VERSION {
        let scratch = tempfile::tempdir().unwrap();
        let engine = fixture_store(version, &scratch.path().join("store"));
        assert_eq!(version_of(&*engine).unwrap(), Some(version));
        let before = fixture::all_records(&*engine);
        let store = EmbeddedStore::open(Arc::clone(&engine)).unwrap();
        assert_eq!(version_of(&*engine).unwrap(), Some(STORE_VERSION));
        let checked = store.check().unwrap();
        assert_eq!(checked.problems, Vec::<String>::new(), "version {version}");
        let came_later = |table: &Table| version == 1 && SINCE_VERSION_2.contains(table);
        for table in tables::RECORDS.iter().filter(|table| !came_later(table)) {
            assert!(checked.records.contains_key(table.name()), "version {version}: {} is empty", table.name());
        }
        assert!(checked.total() >= before.iter().filter(|(number, ..)| *number > 1).count() as u64);
        // What is not a record of this test's making: the people and the train as they were.
        assert_eq!(store.services().unwrap().len(), 5);
        assert_eq!(store.train(&"shop".parse().unwrap()).unwrap().unwrap().live, Some(1));
        assert_eq!(store.account("tester").unwrap().unwrap().email, "tester@example.com");
    }
}

#[tokio::test]
async fn what_is_written_now_is_whole_and_says_its_version() {
    let stage = fixture::full_stage().await;
    let store = EmbeddedStore::open(Arc::clone(stage.engine())).unwrap();
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
    for (number, key, value) in fixture::all_records(&**stage.engine()) {
        if tables::RECORDS.iter().any(|table| *table == Table::new(number, table.name())) {
            let record: Value = serde_json::from_slice(&value).unwrap();
            assert_eq!(record["v"], STORE_VERSION, "{number} {:?}", String::from_utf8_lossy(&key));
        }
    }
}

#[test]
fn a_newer_store_is_refused_and_not_touched() {
    let engine = in_memory();
    let mut batch = Batch::new();
    batch.put(META, VERSION_KEY, (STORE_VERSION + 1).to_string()).put(tables::TRAINS, b"shop", b"of the future");
    engine.commit(&batch).unwrap();
    let before = fixture::all_records(&*engine);
    let refused = EmbeddedStore::open(Arc::clone(&engine)).unwrap_err();
    assert!(
        matches!(refused, StoreError::Newer { found, known } if found == STORE_VERSION + 1 && known == STORE_VERSION)
    );
    assert!(refused.to_string().contains("start the newer windlass again"), "{refused}");
    assert_eq!(fixture::all_records(&*engine), before);
}

/// An engine that dies after so many commits.
#[derive(Debug)]
struct Mortal {
    engine: Arc<dyn Engine>,
    commits_left: AtomicU32,
}

impl Engine for Mortal {
    fn commit(&self, batch: &Batch) -> Result<(), EngineError> {
        let left = self.commits_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map_err(|_| EngineError::DiskFull)?;
        self.engine.commit(batch)
    }
    fn submit(&self, _: Batch) -> Result<Pending, EngineError> {
        Err(EngineError::Closed)
    }
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.engine.get(table, key)
    }
    fn scan(&self, table: Table, range: &KeyRange, to: Direction, limit: usize) -> Result<Vec<Record>, EngineError> {
        self.engine.scan(table, range, to, limit)
    }
    fn check(&self) -> Result<(), EngineError> {
        self.engine.check()
    }
    fn backup(&self, to: &Path) -> Result<(), EngineError> {
        self.engine.backup(to)
    }
    fn size_bytes(&self) -> Result<u64, EngineError> {
        self.engine.size_bytes()
    }
    fn waiting(&self) -> BatchesWaiting {
        self.engine.waiting()
    }
    fn trouble(&self) -> Option<EngineError> {
        None
    }
    fn commit_times(&self) -> CommitTimes {
        self.engine.commit_times()
    }
}

const COUNTED: [Table; 2] = [tables::RUNS, tables::REFS];

/// Not safe to do twice, so that doing it twice is seen.
const COUNTING: [Migration; 2] = [
    Migration { tables: &[], record: |_, _| Ok(Migrated::Same) },
    Migration {
        tables: &COUNTED,
        record: |_, mut record| {
            if record["n"] == 13 {
                return Ok(Migrated::Gone);
            }
            if record["n"] == 14 {
                return Ok(Migrated::Same);
            }
            record["times"] = json!(record["times"].as_u64().unwrap_or(0) + 1);
            Ok(Migrated::To(record))
        },
    },
];

#[test]
fn a_migration_that_is_killed_goes_on_and_changes_each_record_once() {
    const RECORDS: u32 = 700;
    let padding = "x".repeat(8 << 10);
    let mut deaths = 0;
    for commits in 0.. {
        let engine = in_memory();
        for table in COUNTED {
            for n in 0..RECORDS {
                let mut batch = Batch::new();
                batch.put(table, n.to_be_bytes(), json!({"v": 1, "d": {"n": n, "padding": padding}}).to_string());
                engine.commit(&batch).unwrap();
            }
        }
        let mortal = Mortal { engine: Arc::clone(&engine), commits_left: AtomicU32::new(commits) };
        let died = match bring_up_by(&mortal, &COUNTING) {
            Ok(()) => false,
            Err(StoreError::Migration { source, .. }) => {
                assert!(matches!(*source, StoreError::Engine(EngineError::DiskFull)));
                assert!(version_of(&*engine).unwrap() < Some(3));
                true
            }
            Err(other) => panic!("{other}"),
        };
        bring_up_by(&*engine, &COUNTING).unwrap();
        assert_eq!(version_of(&*engine).unwrap(), Some(3));
        assert!(engine.get(META, PROGRESS_KEY).unwrap().is_none());
        for (number, _, value) in fixture::all_records(&*engine).into_iter().filter(|(number, ..)| *number > 1) {
            let record: Envelope = serde_json::from_slice(&value).unwrap();
            let wanted = if record.d["n"] == 14 { (1, Value::Null) } else { (3, json!(1)) };
            assert_eq!((record.v, record.d["times"].clone()), wanted, "{number} {} after {commits}", record.d["n"]);
            assert_ne!(record.d["n"], 13);
        }
        if !died {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 10, "only {deaths} transactions: nothing was resumed");
}

#[tokio::test]
async fn a_damaged_record_and_a_lost_one_are_found() {
    let stage = fixture::full_stage().await;
    let engine = stage.engine();
    let store = EmbeddedStore::open(Arc::clone(engine)).unwrap();
    let problems = |batch: Batch| {
        let whole = fixture::all_records(&**engine);
        engine.commit(&batch).unwrap();
        let found = store.check().unwrap().problems;
        let mut repair = Batch::new();
        for (number, key, _) in fixture::all_records(&**engine) {
            repair.delete(Table::new(number, "any"), key);
        }
        for (number, key, value) in whole {
            repair.put(Table::new(number, "any"), key, value);
        }
        engine.commit(&repair).unwrap();
        found
    };
    for table in tables::RECORDS {
        let (key, value) = engine.scan(table, &KeyRange::all(), Direction::Forward, 1).unwrap().remove(0);
        let mut torn = Batch::new();
        torn.put(table, &key, value[..value.len() / 2].to_vec());
        assert!(!problems(torn).is_empty(), "a torn record of {} was not found", table.name());
    }
    // What others refer to.
    for table in [tables::TRAINS, tables::RUNS, tables::RELEASES, tables::ROLLOUTS, tables::ACCOUNTS, tables::JOURNAL] {
        let mut lost = Batch::new();
        for (key, _) in engine.scan(table, &KeyRange::all(), Direction::Forward, usize::MAX).unwrap() {
            lost.delete(table, key);
        }
        assert!(!problems(lost).is_empty(), "that {} are lost was not found", table.name());
    }
    for index in [tables::JOURNAL_BY_SERVICE, tables::DELIVERIES_BY_SERVICE, tables::DELIVERIES_BY_FORGE_ID] {
        let (key, _) = engine.scan(index, &KeyRange::all(), Direction::Forward, 1).unwrap().remove(0);
        let mut lost = Batch::new();
        lost.delete(index, key);
        assert!(!problems(lost).is_empty(), "a hole in {} was not found", index.name());
    }
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
}

/// What each table's records look like, without words for people.
fn shapes() -> Value {
    let mut types = SchemaSettings::default().into_generator();
    let shapes = [
        (tables::SERVICES, types.subschema_for::<Service>()),
        (tables::SECRETS, types.subschema_for::<SealedSecrets>()),
        (tables::TRAINS, types.subschema_for::<Train>()),
        (tables::RUNS, types.subschema_for::<Run>()),
        (tables::RELEASES, types.subschema_for::<Release>()),
        (tables::APPROVALS, types.subschema_for::<Approval>()),
        (tables::ROLLOUTS, types.subschema_for::<Rollout>()),
        (tables::EFFECTS, types.subschema_for::<PendingEffect>()),
        (tables::JOURNAL, types.subschema_for::<Entry>()),
        (tables::JOURNAL_HEAD, types.subschema_for::<Head>()),
        (tables::DELIVERIES, types.subschema_for::<Delivery>()),
        (tables::DELIVERIES_BY_FORGE_ID, types.subschema_for::<DeliveryId>()),
        (tables::IMAGES, types.subschema_for::<(RunId, Digest)>()),
        (tables::REFS, types.subschema_for::<SeenRef>()),
        (tables::ACCOUNTS, types.subschema_for::<Account>()),
        (tables::SESSIONS, types.subschema_for::<Session>()),
        (tables::TOKENS, types.subschema_for::<Token>()),
        (tables::NAMED_SECRETS, types.subschema_for::<NamedSecret>()),
        (tables::SECRET_USES, types.subschema_for::<SecretUse>()),
        (tables::SERVER, types.subschema_for::<String>()),
        (tables::RUNNERS, types.subschema_for::<RunnerRecord>()),
        (tables::RUNNER_TOKENS, types.subschema_for::<RunnerToken>()),
    ];
    let shapes: BTreeMap<_, _> = shapes.map(|(table, schema)| (table.name(), bare(schema.to_value()))).into();
    assert!(tables::RECORDS.iter().all(|table| shapes.contains_key(table.name())), "a table has no shape here");
    json!({"version": STORE_VERSION, "tables": shapes, "types": bare(types.take_definitions(true).into())})
}

fn bare(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let is_word = |name: &str, value: &Value| match name {
                "title" | "description" | "$schema" => value.is_string(),
                "default" => true,
                _ => false,
            };
            let sorted: BTreeMap<String, Value> =
                fields.into_iter().filter(|(name, value)| !is_word(name, value)).map(|(n, v)| (n, bare(v))).collect();
            sorted.into_iter().collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(bare).collect(),
        other => other,
    }
}

#[test]
fn no_record_changes_its_shape_without_a_version() {
    let path = fixture::folder().join("shapes.json");
    let now = format!("{:#}\n", shapes());
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    if known == now {
        return;
    }
    if STORE_VERSION <= RELEASED_VERSION {
        panic!(
            "a record has another shape than version {STORE_VERSION}, which people have: add a version (docs/store.md)"
        );
    }
    if std::env::var("WINDLASS_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, now).unwrap();
        return;
    }
    let differing = known.lines().zip(now.lines()).find(|(known, now)| known != now);
    panic!(
        "a record has another shape than it had; the first difference: {differing:?}. If a store that was written before \
         still reads (a new field has #[serde(default)], nothing was renamed or taken away), write the new shapes with \
         WINDLASS_BLESS=1 cargo test -p server --lib no_record_changes; otherwise add a version (docs/store.md)"
    );
}
