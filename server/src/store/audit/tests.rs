//! The chain in the store: whole after everything that may happen to a server, and not whole after what may be done to its
//! files.

use std::path::Path;

use pipelines::{journal::Origin, time::UnixMs};
use serde_json::Value;

use super::*;
use crate::store::{
    NewEntry, Store,
    embedded::EmbeddedStore,
    engine::{self, EngineConfig, EngineKind},
};

fn in_memory() -> Arc<dyn Engine> {
    engine::open(Path::new(""), &EngineConfig { kind: EngineKind::Memory, ..EngineConfig::default() }).unwrap()
}

fn noted(n: u64) -> NewEntry {
    NewEntry::new(UnixMs(n), Origin::server(), format!("entry {n}"), "noted").detail("日志 \"x\" \u{1}")
}

async fn store_of(entries: u64) -> (Arc<dyn Engine>, EmbeddedStore) {
    let engine = in_memory();
    let store = EmbeddedStore::open(Arc::clone(&engine)).unwrap();
    for n in 1..=entries {
        store.journal_note(noted(n)).await.unwrap();
    }
    (engine, store)
}

fn verified(store: &EmbeddedStore) -> Result<Walked, Misfit> {
    store.journal_verify(None).unwrap()
}

/// The record of an entry, changed.
fn change(engine: &dyn Engine, seq: u64, change: impl FnOnce(&mut Value)) {
    let bytes = engine.get(JOURNAL, &seq.to_be_bytes()).unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut record["d"]);
    let mut batch = Batch::new();
    batch.put(JOURNAL, seq.to_be_bytes(), record.to_string());
    engine.commit(&batch).unwrap();
}

#[tokio::test]
async fn places_are_counted_without_gaps_and_each_entry_names_the_one_before() {
    let (_, store) = store_of(5).await;
    let entries = store.journal_after(0, 100).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(entries.windows(2).all(|pair| pair[1].previous == pair[0].digest));
    let head = store.journal_head().unwrap();
    assert_eq!((head.seq, head.entries, head.adopted), (5, 5, 0));
    assert_eq!(verified(&store).unwrap().mark, Some(head.mark()));
    let (_, other) = store_of(5).await;
    assert_ne!(head.genesis, other.journal_head().unwrap().genesis, "two stores have two beginnings");
}

#[tokio::test]
async fn a_change_that_is_refused_leaves_no_gap() {
    let (_, store) = store_of(2).await;
    let service = crate::testing::test_app();
    service.pushed("shop").await;
    let taken = service.app.store().service(&"shop".parse().unwrap()).unwrap().unwrap();
    let create = || store.service_create(&taken, &Default::default(), &[], noted(3));
    let (one, other) = tokio::join!(create(), create());
    assert!(one.is_ok() != other.is_ok(), "one of both is refused");
    store.journal_note(noted(4)).await.unwrap();
    assert_eq!(store.journal_head().unwrap().seq, 4);
    assert_eq!(verified(&store).unwrap().entries, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_at_once_make_one_chain() {
    let scratch = tempfile::tempdir().unwrap();
    let engine = engine::open(&scratch.path().join("store"), &EngineConfig::default()).unwrap();
    let store = Arc::new(EmbeddedStore::open(Arc::clone(&engine)).unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for n in 0..25 {
                store.journal_note(noted(writer * 100 + n)).await.unwrap();
            }
        });
    }
    // Walked along while it grows.
    while !writers.is_empty() {
        let store = Arc::clone(&store);
        tokio::task::spawn_blocking(move || verified(&store).unwrap()).await.unwrap();
        tokio::select! { Some(done) = writers.join_next() => done.unwrap() }
    }
    assert_eq!(verified(&store).unwrap().entries, 400);
    drop((store, engine));
    let engine = engine::open(&scratch.path().join("store"), &EngineConfig::default()).unwrap();
    let store = EmbeddedStore::open(engine).unwrap();
    store.journal_note(noted(1_000)).await.unwrap();
    assert_eq!(verified(&store).unwrap().entries, 401);
}

#[tokio::test]
async fn whatever_is_done_to_the_records_is_found_and_named() {
    type Deed = fn(&dyn Engine);
    let cases: [(&str, Deed, &str); 8] = [
        ("a word is another", |engine| change(engine, 4, |it| it["word"] = "nothing".into()), "entry 4 was changed"),
        ("a place is another", |engine| change(engine, 4, |it| it["origin"]["place"] = "::1".into()), "entry 4 was"),
        (
            "one is gone",
            |engine| {
                let mut batch = Batch::new();
                batch.delete(JOURNAL, 3_u64.to_be_bytes());
                engine.commit(&batch).unwrap();
            },
            "entry 4 does not follow entry 2",
        ),
        (
            "two have changed places",
            |engine| {
                let at = |seq: u64| engine.get(JOURNAL, &seq.to_be_bytes()).unwrap().unwrap();
                let mut batch = Batch::new();
                batch.put(JOURNAL, 2_u64.to_be_bytes(), at(3)).put(JOURNAL, 3_u64.to_be_bytes(), at(2));
                engine.commit(&batch).unwrap();
            },
            "what follows entry 1 cannot be read: entry 3 lies under another place",
        ),
        (
            "the end is cut off",
            |engine| {
                let mut batch = Batch::new();
                batch.delete(JOURNAL, 6_u64.to_be_bytes());
                engine.commit(&batch).unwrap();
            },
            "the log ends with entry 5, and its head says entry 6",
        ),
        (
            "one is added that follows the last",
            |engine| {
                let mut head = head(engine).unwrap().unwrap();
                let mut forged: Entry =
                    unpack(JOURNAL, &engine.get(JOURNAL, &6_u64.to_be_bytes()).unwrap().unwrap()).unwrap();
                head.append(&mut forged);
                let mut batch = Batch::new();
                put_entry(&mut batch, &forged).unwrap();
                engine.commit(&batch).unwrap();
            },
            "the log ends with entry 7, and its head says entry 6",
        ),
        (
            "a byte is another",
            |engine| {
                let mut bytes = engine.get(JOURNAL, &5_u64.to_be_bytes()).unwrap().unwrap();
                let at = bytes.windows(5).position(|part| part == b"noted").unwrap();
                bytes[at] ^= 1;
                let mut batch = Batch::new();
                batch.put(JOURNAL, 5_u64.to_be_bytes(), bytes);
                engine.commit(&batch).unwrap();
            },
            "entry 5 was changed",
        ),
        (
            "the head is gone",
            |engine| {
                let mut batch = Batch::new();
                batch.delete(JOURNAL_HEAD, HEAD_KEY);
                engine.commit(&batch).unwrap();
            },
            "the head of the journal is missing",
        ),
    ];
    for (name, deed, expected) in cases {
        let (engine, store) = store_of(6).await;
        deed(&*engine);
        let Err(misfit) = verified(&store) else { panic!("{name}: the chain fits") };
        let said = misfit.to_string();
        assert!(said.contains(expected), "{name}: {said}");
        let checked = store.check().unwrap();
        assert!(checked.problems.iter().any(|problem| problem.contains(expected)), "{name}: {:?}", checked.problems);
    }
}

#[tokio::test]
async fn without_a_head_nothing_is_written_and_a_new_start_does_not_hide_it() {
    let (engine, store) = store_of(3).await;
    let mut batch = Batch::new();
    batch.delete(JOURNAL_HEAD, HEAD_KEY);
    engine.commit(&batch).unwrap();
    assert!(store.journal_note(noted(4)).await.is_err());
    drop(store);
    assert!(EmbeddedStore::open(engine).is_err(), "entries that are in a chain are not taken into another one");
}

/// A store as the versions before wrote it: entries without digests, with gaps between their places.
fn older_store(entries: u64) -> Arc<dyn Engine> {
    let engine = in_memory();
    let mut batch = Batch::new();
    for seq in (1..=entries).map(|n| n * 3) {
        let record = serde_json::json!({"v": 2, "d": {
            "version": 1, "seq": seq, "at": seq, "service": null, "origin": {"actor": "windlass", "channel": "server"},
            "subject": "server", "word": "noted", "change": null, "detail": "before the chain",
        }});
        batch.put(JOURNAL, seq.to_be_bytes(), record.to_string());
    }
    engine.commit(&batch).unwrap();
    engine
}

#[tokio::test]
async fn older_entries_are_taken_in_once_also_when_that_is_interrupted() {
    let store = EmbeddedStore::open(older_store(450)).unwrap();
    let head = store.journal_head().unwrap();
    assert_eq!((head.seq, head.entries, head.adopted, head.is_adopting), (1_350, 450, 1_350, false));
    assert_eq!(verified(&store).unwrap().entries, 450);
    store.journal_note(noted(1)).await.unwrap();
    assert_eq!(store.journal_head().unwrap().seq, 1_351);
    // Killed after the first of its transactions: some entries have digests, and the head says how far it is.
    let engine = older_store(450);
    let mut head = Head { is_adopting: true, ..Head::new(genesis()) };
    let mut batch = Batch::new();
    for seq in (1..=200).map(|n| n * 3_u64) {
        let mut entry = unpack(JOURNAL, &engine.get(JOURNAL, &seq.to_be_bytes()).unwrap().unwrap()).unwrap();
        head.adopt(&mut entry);
        put_entry(&mut batch, &entry).unwrap();
    }
    batch.put(JOURNAL_HEAD, HEAD_KEY, pack(JOURNAL_HEAD, &head).unwrap());
    engine.commit(&batch).unwrap();
    let store = EmbeddedStore::open(engine).unwrap();
    assert_eq!(verified(&store).unwrap().entries, 450);
    assert_eq!(store.journal_head().unwrap().genesis, head.genesis);
}

/// Where it is set, the test is alone in its process.
const ALONE: &str = "WINDLASS_AUDIT_TEST_ALONE";

/// In a process of its own: what other tests hold would be counted.
#[test]
fn a_hundred_thousand_entries_are_walked_along_in_bounded_memory() {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(a_hundred_thousand_entries());
    }
    let name = "store::audit::tests::a_hundred_thousand_entries_are_walked_along_in_bounded_memory";
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let done = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
    print!("{said}");
    assert!(done.status.success() && said.contains("100000 entries"), "{said}");
}

/// What they take: the figures of docs/security.md.
async fn a_hundred_thousand_entries() {
    const ENTRIES: u64 = 100_000;
    let scratch = tempfile::tempdir().unwrap();
    let engine = engine::open(&scratch.path().join("store"), &EngineConfig::default()).unwrap();
    let store = EmbeddedStore::open(Arc::clone(&engine)).unwrap();
    let mut waiting = Vec::new();
    for n in 1..=ENTRIES {
        let origin =
            Origin::new("mei", pipelines::journal::Channel::Page).from_place("192.0.2.7").proved_by("session 0123");
        let entry =
            NewEntry::new(UnixMs(1_795_000_000_000 + n), origin, format!("run shop/{n}"), "run_cancel_requested");
        waiting.push(store.journal_note(entry.of_service(Some(&"shop".parse().unwrap())).detail("enough")));
        if waiting.len() == 256 {
            for stored in waiting.drain(..) {
                stored.await.unwrap();
            }
        }
    }
    for stored in waiting {
        stored.await.unwrap();
    }
    let before = resident_kb("VmRSS:");
    let began = std::time::Instant::now();
    assert_eq!(verified(&store).unwrap().entries, ENTRIES);
    let took = began.elapsed();
    let grown_kb = resident_kb("VmRSS:").saturating_sub(before);
    let bytes = store.size_bytes().unwrap() / ENTRIES;
    println!("{ENTRIES} entries: {bytes} bytes each on disk, walked along in {took:?}, {grown_kb} KB more resident");
    // The cache of the store's engine is 16 MB; all entries together would be four times as much.
    assert!(grown_kb < 32 << 10, "{grown_kb} KB more are resident");
    assert!(bytes < 2_000, "{bytes} bytes for each entry");
}

fn resident_kb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
