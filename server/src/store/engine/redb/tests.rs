//! redb on a file that fails: every access of a commit is failed in turn.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::file::{Disk, DiskFile};
use super::{FILE_NAME, RedbBackend};
use crate::store::engine::{Batch, Engine, EngineConfig, EngineError, Table, commit::Grouped};

const A: Table = Table::new(1, "a");
const B: Table = Table::new(2, "b");

/// Which changing access fails, and with it all later ones until it is healed.
#[derive(Debug)]
struct Plan {
    accesses: AtomicU64,
    fail_from: AtomicU64,
    error: io::ErrorKind,
    reads_too: AtomicBool,
}

#[derive(Debug)]
struct FailingDisk(DiskFile, Arc<Plan>);

impl FailingDisk {
    fn pass(&self) -> io::Result<()> {
        let number = self.1.accesses.fetch_add(1, Ordering::SeqCst);
        if number >= self.1.fail_from.load(Ordering::SeqCst) { Err(self.1.error.into()) } else { Ok(()) }
    }
}

impl Disk for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.1.reads_too.load(Ordering::SeqCst) {
            return Err(self.1.error.into());
        }
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pass()?;
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.pass()?;
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // A failing write leaves a part of its data.
        self.pass().inspect_err(|_| drop(self.0.write(offset, &data[..data.len() / 2])))?;
        self.0.write(offset, data)
    }
}

fn open(folder: &Path, error: io::ErrorKind) -> (Grouped<RedbBackend>, Arc<Plan>) {
    let plan = Arc::new(Plan {
        accesses: AtomicU64::new(0),
        fail_from: AtomicU64::new(u64::MAX),
        error,
        reads_too: AtomicBool::new(false),
    });
    let disk_plan = Arc::clone(&plan);
    let open_disk = move |path: &Path| -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(FailingDisk(DiskFile::open(path)?, Arc::clone(&disk_plan))))
    };
    let backend = RedbBackend::open_on(folder, 1 << 20, Box::new(open_disk)).unwrap();
    (Grouped::start(backend, &EngineConfig::default()).unwrap(), plan)
}

fn pair(value: u8) -> Batch {
    let mut batch = Batch::new();
    // Large enough to make the file grow.
    batch.put(A, "k", vec![value; 60_000]).put(B, "k", vec![value; 60_000]);
    batch.put(A, [value], vec![value; 200_000]);
    batch
}

/// The value of the pair, which must be the same on both sides.
fn value(engine: &dyn Engine) -> u8 {
    let (a, b) = (engine.get(A, b"k").unwrap().unwrap(), engine.get(B, b"k").unwrap().unwrap());
    assert_eq!(a, b, "a batch is never there by half");
    assert!(a.iter().all(|&byte| byte == a[0]));
    a[0]
}

/// Fails the n-th access of a commit, for every n that a commit has. Returns how many there were.
fn fail_each_access(
    error: io::ErrorKind,
    outcome: impl Fn(u64, &Path, &Grouped<RedbBackend>, &Plan, &EngineError),
) -> u64 {
    for n in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (engine, plan) = open(folder.path(), error);
        engine.commit(&pair(1)).unwrap();
        plan.fail_from.store(plan.accesses.load(Ordering::SeqCst) + n, Ordering::SeqCst);
        match engine.commit(&pair(2)) {
            Ok(()) => return n,
            Err(error) => outcome(n, folder.path(), &engine, &plan, &error),
        }
    }
    unreachable!()
}

#[test]
fn a_full_disk_at_any_access_loses_nothing_and_is_over_when_there_is_room() {
    let last = std::sync::Mutex::new(false);
    let accesses = fail_each_access(io::ErrorKind::StorageFull, |n, folder, engine, plan, error| {
        match error {
            EngineError::DiskFull => {
                assert!(!*last.lock().unwrap(), "access {n} is before the switch to the new state");
                assert_eq!(value(engine), 1, "access {n}");
                assert!(matches!(engine.commit(&pair(3)), Err(EngineError::DiskFull)), "access {n}, still full");
                assert!(matches!(engine.trouble(), Some(EngineError::DiskFull)));
                assert_eq!(value(engine), 1, "access {n}");
                plan.fail_from.store(u64::MAX, Ordering::SeqCst);
                engine.commit(&pair(4)).unwrap();
                assert!(engine.trouble().is_none());
                assert_eq!(value(engine), 4);
                engine.check().unwrap();
            }
            // The switch, or the flush behind it, failed: honest, not known.
            EngineError::Io(_) => {
                *last.lock().unwrap() = true;
                assert!([1, 2].contains(&value(engine)));
                plan.fail_from.store(u64::MAX, Ordering::SeqCst);
                assert!(matches!(engine.commit(&pair(4)), Err(EngineError::Io(_))));
            }
            other => panic!("access {n}: {other:?}"),
        }
        assert!(folder.join(FILE_NAME).exists());
    });
    assert!(accesses > 8, "the commit has {accesses} accesses: too few to be a test");
}

#[test]
fn after_any_failure_the_file_opens_with_all_that_was_acknowledged() {
    for error in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other] {
        fail_each_access(error, |n, folder, engine, _, error| {
            let seen = value(engine);
            assert!(seen == 1 || matches!(error, EngineError::Io(_)), "access {n}: {error:?}");
            // As a kill would: the file as it is now.
            let copy = tempfile::tempdir().unwrap();
            std::fs::copy(folder.join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
            let (again, _) = open(copy.path(), io::ErrorKind::Other);
            assert_eq!(value(&again), seen, "access {n}");
            again.check().unwrap();
            again.commit(&pair(5)).unwrap();
        });
    }
}

#[test]
fn an_unknown_error_ends_commits_but_not_reads() {
    fail_each_access(io::ErrorKind::Other, |n, _, engine, plan, error| {
        assert!(matches!(error, EngineError::Io(_)), "access {n}: {error:?}");
        assert!([1, 2].contains(&value(engine)));
        plan.fail_from.store(u64::MAX, Ordering::SeqCst);
        assert!(matches!(engine.commit(&pair(3)), Err(EngineError::Io(_))), "access {n}");
        assert!([1, 2].contains(&value(engine)));
    });
}

#[test]
fn a_read_only_file_system_is_named_and_over_when_it_is_writable() {
    fail_each_access(io::ErrorKind::ReadOnlyFilesystem, |n, _, engine, plan, error| {
        if let EngineError::ReadOnly = error {
            assert!(matches!(engine.commit(&pair(3)), Err(EngineError::ReadOnly)), "access {n}");
            assert_eq!(value(engine), 1);
            plan.fail_from.store(u64::MAX, Ordering::SeqCst);
            engine.commit(&pair(4)).unwrap();
            assert_eq!(value(engine), 4);
        }
    });
}

#[test]
fn a_failing_read_is_answered_from_a_view() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (engine, _) = open(folder.path(), io::ErrorKind::Other);
        engine.commit(&pair(1)).unwrap();
        // More than the cache holds.
        for n in 10..30 {
            engine.commit(Batch::new().put(A, [n], vec![n; 200_000])).unwrap();
        }
    }
    let (engine, plan) = open(folder.path(), io::ErrorKind::Other);
    plan.reads_too.store(true, Ordering::SeqCst);
    for n in 10..30 {
        assert_eq!(engine.get(A, &[n]).unwrap().unwrap(), vec![n; 200_000]);
    }
    assert_eq!(value(&engine), 1);
    plan.reads_too.store(false, Ordering::SeqCst);
    let after = engine.commit(&pair(2));
    assert!(matches!(after, Err(EngineError::Io(_))), "a disk that failed a read takes no commits: {after:?}");
}

#[test]
fn a_file_of_another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE_NAME), vec![7; 100_000]).unwrap();
    assert!(RedbBackend::open(folder.path(), 1 << 20).is_err());
}

#[test]
fn an_unfinished_new_file_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(super::NEW_FILE_NAME), b"half").unwrap();
    let (engine, _) = open(folder.path(), io::ErrorKind::Other);
    engine.commit(&pair(1)).unwrap();
    assert_eq!(value(&engine), 1);
}
