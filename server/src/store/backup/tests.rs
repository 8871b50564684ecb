//! A backup comes back as it was; one that was changed, cut or made for something else does not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use flate2::{Compression, GzBuilder};
use pipelines::{journal::Origin, time::UnixMs};
use proptest::prelude::*;

use super::{
    super::{
        NewEntry, Store,
        embedded::EmbeddedStore,
        engine::{self, EngineConfig},
        logs::{LogConfig, LogLine, LogStore, Stream},
    },
    read::{Contents, UNFINISHED, check, restore, verify},
    *,
};

struct Folder {
    _root: tempfile::TempDir,
    state: PathBuf,
    store: EmbeddedStore,
    logs: LogStore,
}

fn entry(n: u64) -> NewEntry {
    NewEntry::new(UnixMs(n), Origin::server(), format!("entry {n}"), "noted").detail("x".repeat(200))
}

fn lines(run: u64) -> Vec<LogLine> {
    (0..50).map(|n| LogLine { time_ms: n, stream: Stream::Out, text: format!("line {n} of {run}") }).collect()
}

async fn folder(entries: u64) -> Folder {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    fs::create_dir(&state).unwrap();
    let store = engine::open(&state.join("store"), &EngineConfig::default()).unwrap();
    let store = EmbeddedStore::open(store).unwrap();
    let logs = LogStore::open(&state.join("logs"), LogConfig::default()).unwrap();
    for n in 1..=entries {
        store.journal_note(entry(n)).await.unwrap();
    }
    for run in 1..=3 {
        logs.append(&format!("shop/{run}"), "a step/../x", 0, &lines(run)).unwrap();
    }
    Folder { _root: root, state, store, logs }
}

impl Folder {
    fn snapshot(&self, key: Option<&str>) -> Snapshot {
        let key = key.map(|key| Key(zeroize::Zeroizing::new(key.to_owned())));
        Snapshot::take(&self.store, &self.state, key, "0.0.0-test", UnixMs(1_795_000_000_000)).unwrap()
    }

    fn backup(&self, key: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        self.snapshot(key).write(&mut out).unwrap();
        out
    }
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_comes_back_as_it_was_with_the_key_only_where_it_was_asked_for() {
    let folder = folder(40).await;
    for key in [None, Some("the key")] {
        let backup = folder.backup(key);
        assert_eq!(files_below(&folder.state), ["logs", "store"], "nothing is left beside");
        let (head, written) = verify(backup.as_slice()).unwrap();
        assert_eq!((head.with_key, head.store_version), (key.is_some(), STORE_VERSION));
        let to = tempfile::tempdir().unwrap();
        let Contents { checked, runs, lines: count, written: restored, .. } =
            restore(backup.as_slice(), &to.path().join("new")).unwrap();
        assert_eq!((checked.records["journal"], runs, count, &restored), (40, 3, 150, &written));
        let names = files_below(&to.path().join("new"));
        assert_eq!(names, if key.is_some() { vec!["key", "logs", "store"] } else { vec!["logs", "store"] });
        assert_eq!(fs::read_to_string(to.path().join("new/key")).ok().as_deref(), key);
        let store = engine::open(&to.path().join("new/store"), &EngineConfig::default()).unwrap();
        let store = EmbeddedStore::open(store).unwrap();
        assert_eq!(store.journal(None, None, 100).unwrap(), folder.store.journal(None, None, 100).unwrap());
        let logs = LogStore::open(&to.path().join("new/logs"), LogConfig::default()).unwrap();
        for run in 1..=3 {
            let read = logs.read(&format!("shop/{run}"), "a step/../x", 0, 100).unwrap();
            assert_eq!(read.into_iter().map(|line| line.line).collect::<Vec<_>>(), lines(run));
        }
    }
}

#[tokio::test]
async fn a_folder_with_something_in_it_is_left_alone_and_a_bad_backup_leaves_nothing() {
    let folder = folder(3).await;
    let backup = folder.backup(None);
    let to = tempfile::tempdir().unwrap();
    fs::write(to.path().join("precious"), "x").unwrap();
    assert!(matches!(restore(backup.as_slice(), to.path()), Err(BackupError::NotEmpty(_))));
    assert_eq!(files_below(to.path()), ["precious"]);
    fs::remove_file(to.path().join("precious")).unwrap();
    let cut = &backup[..backup.len() * 2 / 3];
    assert!(matches!(restore(cut, to.path()), Err(BackupError::Cut(_))));
    assert_eq!(files_below(to.path()), [""; 0]);
    assert!(matches!(restore(cut, &to.path().join("new")), Err(BackupError::Cut(_))));
    assert_eq!(files_below(to.path()), [""; 0]);
    restore(backup.as_slice(), to.path()).unwrap();
    assert!(!to.path().join(UNFINISHED).exists());
}

#[tokio::test]
async fn a_backup_that_is_cut_or_changed_anywhere_is_refused_with_a_word() {
    let folder = folder(10).await;
    let backup = folder.backup(Some("key"));
    let whole = verify(backup.as_slice()).unwrap();
    for keep in (0..backup.len()).step_by(1.max(backup.len() / 400)) {
        let error = verify(&backup[..keep]).expect_err("a cut backup was taken for a whole one");
        assert!(matches!(error, BackupError::Cut(_)), "{keep} of {} bytes: {error}", backup.len());
    }
    let unpacked = |bytes: &[u8]| {
        let mut content = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut content).map(|_| content).ok()
    };
    let content = unpacked(&backup);
    for at in (0..backup.len()).step_by(1.max(backup.len() / 400)).chain(0..20).chain(backup.len() - 20..backup.len()) {
        for bit in [0, 3, 7] {
            let mut changed = backup.clone();
            changed[at] ^= 1 << bit;
            match verify(changed.as_slice()) {
                // Within a run of equal bytes the packed stream can say the same in another way.
                Ok(found) => {
                    assert_eq!(found, whole);
                    assert!(content.is_some() && unpacked(&changed) == content, "bit {bit} of byte {at} was not seen");
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
    let mut longer = backup.clone();
    longer.extend(b"more");
    assert!(matches!(verify(longer.as_slice()), Err(BackupError::Damaged(_))));
    assert!(matches!(verify(&b"PK\x03\x04 something else"[..]), Err(BackupError::Foreign(_))));
}

/// A backup with these members, sealed as one.
fn forged(members: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::fast()));
    let mut names = String::new();
    let mut add = |name: &str, bytes: &[u8], kind| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Past the library's own refusal of such names.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        tar.append(&header, bytes).unwrap();
        names += &format!("{}  {name}\n", hex::encode(Sha256::digest(bytes)));
    };
    for (name, bytes, kind) in members {
        add(name, bytes, *kind);
    }
    let manifest = std::mem::take(&mut names);
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    tar.append_data(&mut header, MANIFEST, manifest.as_bytes()).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

fn head(change: impl FnOnce(&mut Head)) -> Vec<u8> {
    let mut head = Head {
        format: FORMAT,
        windlass: "9.9.9".into(),
        store_version: STORE_VERSION,
        made_at: UnixMs(0),
        with_key: false,
    };
    change(&mut head);
    serde_json::to_vec(&head).unwrap()
}

#[test]
fn a_forged_backup_writes_nothing_outside_and_a_newer_one_is_named_as_such() {
    use tar::EntryType::{Regular, Symlink};
    let good = head(|_| {});
    for (name, kind) in [
        ("../outside", Regular),
        ("/tmp/outside", Regular),
        ("logs/../../outside", Regular),
        ("logs/a/b/c.log", Regular),
        ("logs/a/..log", Regular),
        ("gateway/config", Regular),
        ("logs/link.log", Symlink),
        ("logs/a/x.log", Symlink),
    ] {
        let backup = forged(&[(HEAD, &good, Regular), (name, b"evil", kind)]);
        let to = tempfile::tempdir().unwrap();
        let refused = restore(backup.as_slice(), &to.path().join("deep/er")).unwrap_err();
        assert!(refused.to_string().contains("does not belong into a backup"), "{name}: {refused}");
        assert!(!to.path().join("outside").exists() && !to.path().join("deep/outside").exists());
    }
    let newer = [head(|head| head.format += 1), head(|head| head.store_version += 1)];
    for head in newer {
        let refused = verify(forged(&[(HEAD, &head, Regular)]).as_slice()).unwrap_err();
        assert!(matches!(refused, BackupError::Newer(_)), "{refused}");
    }
    let twice = forged(&[(HEAD, &good, Regular), (KEY_FILE, b"a", Regular), (KEY_FILE, b"b", Regular)]);
    let to = tempfile::tempdir().unwrap();
    assert!(restore(twice.as_slice(), &to.path().join("x")).unwrap_err().to_string().contains("twice"));
    let empty = forged(&[(HEAD, &good, Regular)]);
    assert!(restore(empty.as_slice(), &to.path().join("x")).unwrap_err().to_string().contains("store.redb is missing"));
}

#[tokio::test]
async fn a_store_whose_records_do_not_fit_together_is_not_restored() {
    let stage = crate::testing::test_app();
    stage.live("shop").await;
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    fs::create_dir(&state).unwrap();
    let engine = engine::open(&state.join("store"), &EngineConfig::default()).unwrap();
    let mut batch = engine::Batch::new();
    for number in 0..=u8::MAX {
        let table = engine::Table::new(number, "any");
        let all = engine::KeyRange::all();
        for (key, value) in stage.engine().scan(table, &all, engine::Direction::Forward, usize::MAX).unwrap() {
            // The run of the release that is live.
            if table != engine::Table::new(5, "any") {
                batch.put(table, key, value);
            }
        }
    }
    engine.commit(&batch).unwrap();
    let store = EmbeddedStore::open(engine).unwrap();
    let mut backup = Vec::new();
    Snapshot::take(&store, &state, None, "test", UnixMs(0)).unwrap().write(&mut backup).unwrap();
    verify(backup.as_slice()).unwrap();
    let refused = check(backup.as_slice(), root.path()).unwrap_err();
    assert!(refused.to_string().contains("refers to shop/1 in runs, which is not there"), "{refused}");
    assert_eq!(files_below(root.path()), ["state"]);
}

#[tokio::test]
async fn while_changes_go_on_the_backup_is_one_moment_of_the_store() {
    let folder = Arc::new(folder(200).await);
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, ended) = (Arc::clone(&folder), Arc::clone(&stop));
    let changes = tokio::spawn(async move {
        let mut n = 200;
        while !ended.load(Ordering::SeqCst) {
            n += 1;
            writer.store.journal_note(entry(n)).await.unwrap();
            let line = LogLine { time_ms: n, stream: Stream::Out, text: format!("late {n}") };
            writer.logs.append("shop/1", "late", n - 201, &[line]).unwrap();
        }
        n
    });
    let mut seen = BTreeMap::new();
    for _ in 0..5 {
        let taken = Arc::clone(&folder);
        let backup = tokio::task::spawn_blocking(move || taken.backup(None)).await.unwrap();
        let to = tempfile::tempdir().unwrap();
        let contents = restore(backup.as_slice(), &to.path().join("new")).unwrap();
        let entries = contents.checked.records["journal"];
        // The lines that were acknowledged before the copy of the store was taken are in it.
        assert!(contents.lines >= 150 + entries - 201, "{} lines, {entries} entries", contents.lines);
        seen.insert(entries, ());
    }
    stop.store(true, Ordering::SeqCst);
    let last = changes.await.unwrap();
    assert!(seen.len() > 1 && seen.keys().all(|entries| (200..=last).contains(entries)), "{seen:?} of {last}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), as_ours in any::<bool>()) {
        let mut backup = bytes;
        if as_ours {
            backup.splice(0..0, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff]);
        }
        prop_assert!(verify(backup.as_slice()).is_err());
    }
}
