//! What every engine promises, small and fast. Kill, full disk, memory: tests/store.rs of the tests crate.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Batch, Direction, Engine, EngineConfig, EngineError, EngineKind, KeyRange, Table, open};

const A: Table = Table::new(1, "a");
const B: Table = Table::new(2, "b");
const LAST: Table = Table::new(255, "last");
const KINDS: [EngineKind; 3] = [EngineKind::Redb, EngineKind::Sled, EngineKind::Memory];

fn config(kind: EngineKind) -> EngineConfig {
    EngineConfig { kind, ..EngineConfig::default() }
}

fn on_each(test: impl Fn(&dyn Engine)) {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        test(&*open(folder.path(), &config(kind)).unwrap());
    }
}

fn keys(engine: &dyn Engine, table: Table, range: &KeyRange, direction: Direction, limit: usize) -> Vec<String> {
    let records = engine.scan(table, range, direction, limit).unwrap();
    records.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

#[test]
fn a_batch_changes_several_tables_at_once() {
    on_each(|engine| {
        engine.commit(Batch::new().put(A, "k", "1").put(B, "k", "2")).unwrap();
        engine.commit(Batch::new().put(A, "k", "3").delete(B, "k").delete(B, "none")).unwrap();
        assert_eq!(engine.get(A, b"k").unwrap().unwrap(), b"3");
        assert_eq!(engine.get(B, b"k").unwrap(), None);
        engine.check().unwrap();
    });
}

#[test]
fn a_violated_precondition_writes_nothing() {
    on_each(|engine| {
        engine.commit(Batch::new().expect_absent(A, "k").put(A, "k", "1")).unwrap();
        for batch in [
            Batch::new().expect_absent(A, "k").put(A, "k", "2").put(B, "x", "2"),
            Batch::new().expect(A, "k", "0").put(B, "x", "2"),
            Batch::new().expect(A, "none", "0").put(B, "x", "2"),
        ] {
            let error = engine.commit(batch).unwrap_err();
            assert!(matches!(error, EngineError::Conflict { table: "a", .. }), "{error:?}");
        }
        assert_eq!(engine.get(B, b"x").unwrap(), None);
        engine.commit(Batch::new().expect(A, "k", "1").put(A, "k", "2")).unwrap();
        assert_eq!(engine.get(A, b"k").unwrap().unwrap(), b"2");
        assert!(engine.trouble().is_none(), "a conflict is no trouble of the disk");
    });
}

#[test]
fn of_many_threads_that_race_for_a_key_each_step_has_one_winner() {
    on_each(|engine| {
        engine.commit(Batch::new().put(A, "n", 0_u64.to_be_bytes())).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                scope.spawn(move || {
                    for turn in 0..5 {
                        loop {
                            let old = engine.get(A, b"n").unwrap().unwrap();
                            let next = u64::from_be_bytes(old.clone().try_into().unwrap()) + 1;
                            let mut batch = Batch::new();
                            batch.expect(A, "n", old).put(A, "n", next.to_be_bytes());
                            batch.expect_absent(B, next.to_be_bytes());
                            batch.put(B, next.to_be_bytes(), format!("{thread} {turn}"));
                            match engine.commit(&batch) {
                                Ok(()) => break,
                                Err(EngineError::Conflict { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(engine.get(A, b"n").unwrap().unwrap(), 40_u64.to_be_bytes());
        assert_eq!(engine.scan(B, &KeyRange::all(), Direction::Forward, 100).unwrap().len(), 40);
    });
}

#[test]
fn scans_keep_to_their_table_range_direction_and_limit() {
    on_each(|engine| {
        let mut batch = Batch::new();
        for key in ["a", "b", "b/1", "b/2", "b0", "c"] {
            batch.put(A, key, "x").put(B, format!("other {key}"), "y");
        }
        batch.put(LAST, "z", "1").put(A, [b'd', 0xff, 0xff], "x").put(A, [b'e'], "x");
        engine.commit(&batch).unwrap();
        use Direction::{Backward, Forward};
        assert_eq!(keys(engine, A, &KeyRange::prefix(b"b/"), Forward, 10), ["b/1", "b/2"]);
        assert_eq!(keys(engine, A, &KeyRange::prefix(b"b"), Backward, 3), ["b0", "b/2", "b/1"]);
        assert_eq!(keys(engine, A, &KeyRange::prefix(b"b").after(b"b/1"), Forward, 10), ["b/2", "b0"]);
        assert_eq!(keys(engine, A, &KeyRange::prefix(b"b").before(b"b/2"), Backward, 1), ["b/1"]);
        assert_eq!(
            keys(engine, A, &KeyRange::between(Bound::Excluded(b"b"), Bound::Included(b"b0")), Forward, 10),
            ["b/1", "b/2", "b0"]
        );
        assert!(
            keys(engine, A, &KeyRange::between(Bound::Included(b"c"), Bound::Excluded(b"a")), Forward, 10).is_empty()
        );
        assert_eq!(keys(engine, LAST, &KeyRange::all(), Backward, 10), ["z"]);
        assert_eq!(engine.scan(A, &KeyRange::prefix(&[b'd', 0xff]), Forward, 10).unwrap().len(), 1);
        assert_eq!(engine.scan(A, &KeyRange::all(), Forward, 100).unwrap().len(), 8);
    });
}

#[test]
fn a_batch_above_the_bound_is_refused_and_a_full_queue_says_busy() {
    let engine =
        open(std::path::Path::new(""), &EngineConfig { batch_bytes: 100, ..config(EngineKind::Memory) }).unwrap();
    let error = engine.commit(Batch::new().put(A, "k", vec![0; 100])).unwrap_err();
    assert!(matches!(error, EngineError::TooLarge { bytes: 102, bound_bytes: 100 }), "{error:?}");

    // A write that is held back: the queue fills behind it.
    #[derive(Debug)]
    struct Held(std::sync::Mutex<std::sync::mpsc::Receiver<()>>, std::sync::mpsc::SyncSender<()>);
    impl super::Backend for Held {
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
            Ok(None)
        }
        fn scan(&self, _: super::FlatRange, _: Direction, _: usize) -> Result<Vec<super::Record>, EngineError> {
            Ok(Vec::new())
        }
        fn write(&self, _: &super::Changes) -> Result<(), EngineError> {
            self.1.send(()).unwrap();
            self.0.lock().unwrap().recv().map_err(|_| EngineError::Closed)
        }
        fn check(&self) -> Result<(), EngineError> {
            Ok(())
        }
        fn backup(&self, _: &std::path::Path) -> Result<(), EngineError> {
            Ok(())
        }
        fn size_bytes(&self) -> Result<u64, EngineError> {
            Ok(0)
        }
    }
    let (release, held) = std::sync::mpsc::sync_channel(10);
    let (started, writing) = std::sync::mpsc::sync_channel(10);
    let config = EngineConfig { queue_batches: 2, ..EngineConfig::default() };
    let engine = super::commit::Grouped::start(Held(std::sync::Mutex::new(held), started), &config).unwrap();
    let submit = || {
        let mut batch = Batch::new();
        batch.put(A, "k", "v");
        engine.submit(batch)
    };
    let first = submit().unwrap();
    writing.recv().unwrap();
    let (second, third) = (submit().unwrap(), submit().unwrap());
    assert!(matches!(submit(), Err(EngineError::Busy)));
    assert_eq!(engine.waiting(), super::BatchesWaiting { waiting: 2, max: 2, refused: 1 });
    release.send(()).unwrap();
    release.send(()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for pending in [first, second, third] {
        runtime.block_on(pending).unwrap();
    }
    writing.recv().unwrap();
    assert!(writing.try_recv().is_err(), "the second and the third share one write");
}

#[test]
fn a_copy_is_of_one_moment_and_opens() {
    for kind in [EngineKind::Redb, EngineKind::Sled] {
        let folder = tempfile::tempdir().unwrap();
        let engine = open(&folder.path().join("data"), &config(kind)).unwrap();
        for n in 0..200_u32 {
            engine.commit(Batch::new().put(A, n.to_be_bytes(), vec![7; 500]).put(B, "last", n.to_be_bytes())).unwrap();
        }
        let copy = folder.path().join("copy");
        engine.backup(&copy).unwrap();
        engine.commit(Batch::new().delete(A, 0_u32.to_be_bytes())).unwrap();
        let copy = open(&copy, &config(kind)).unwrap();
        assert_eq!(copy.scan(A, &KeyRange::all(), Direction::Forward, 1000).unwrap().len(), 200, "{kind:?}");
        assert_eq!(copy.get(B, b"last").unwrap().unwrap(), 199_u32.to_be_bytes());
        copy.check().unwrap();
        assert!(copy.size_bytes().unwrap() >= 100_000);
        if kind == EngineKind::Redb {
            assert!(engine.backup(&folder.path().join("copy")).is_err(), "a copy is never overwritten");
        }
    }
}

#[test]
fn only_one_process_opens_a_store() {
    for kind in [EngineKind::Redb, EngineKind::Sled] {
        let folder = tempfile::tempdir().unwrap();
        let engine = open(folder.path(), &config(kind)).unwrap();
        assert!(matches!(open(folder.path(), &config(kind)), Err(EngineError::Locked)), "{kind:?}");
        drop(engine);
        // sled gives its lock back some time later.
        if kind == EngineKind::Redb {
            open(folder.path(), &config(kind)).unwrap();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(bool, u8, u8),
    Delete(bool, u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), 0..20_u8, any::<u8>()).prop_map(|(table, key, value)| Step::Put(table, key, value)),
        4 => (any::<bool>(), 0..20_u8).prop_map(|(table, key)| Step::Delete(table, key)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn an_engine_behaves_as_a_map_for_each_table(steps in proptest::collection::vec(step(), 1..30)) {
        for kind in [EngineKind::Redb, EngineKind::Sled] {
            let folder = tempfile::tempdir().unwrap();
            let mut engine: Option<Arc<dyn Engine>> = Some(open(folder.path(), &config(kind)).unwrap());
            let mut model = [BTreeMap::new(), BTreeMap::new()];
            for step in &steps {
                match *step {
                    Step::Put(table, key, value) => {
                        let at = if table { B } else { A };
                        engine.as_ref().unwrap().commit(Batch::new().put(at, [key], [value])).unwrap();
                        model[usize::from(table)].insert(vec![key], vec![value]);
                    }
                    Step::Delete(table, key) => {
                        let at = if table { B } else { A };
                        engine.as_ref().unwrap().commit(Batch::new().delete(at, [key])).unwrap();
                        model[usize::from(table)].remove([key].as_slice());
                    }
                    // sled gives its lock back some time after it is closed, so opening it again at once may fail.
                    Step::Reopen if kind == EngineKind::Sled => {}
                    Step::Reopen => {
                        engine = None;
                        prop_assert!(engine.is_none());
                        let again = open(folder.path(), &config(kind));
                        prop_assert!(again.is_ok(), "{:?}: {:?}", kind, again.err());
                        engine = again.ok();
                    }
                }
            }
            for (table, model) in [A, B].into_iter().zip(model) {
                let found = engine.as_ref().unwrap().scan(table, &KeyRange::all(), Direction::Forward, 1000).unwrap();
                prop_assert_eq!(found, model.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
