//! The log files: bounds, repeats, torn ends, a model. Killing the process: tests/store of the tests crate.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use proptest::prelude::*;

use super::{LogConfig, LogError, LogLine, LogStore, Stream};

fn store(root: &Path, config: LogConfig) -> LogStore {
    LogStore::open(root, config).unwrap()
}

fn line(text: impl Into<String>) -> LogLine {
    LogLine { time_ms: 1_700_000_000_000, stream: Stream::Out, text: text.into() }
}

fn lines(range: std::ops::Range<u64>) -> Vec<LogLine> {
    range.map(|number| LogLine { time_ms: number, ..line(format!("line {number}")) }).collect()
}

fn texts(store: &LogStore, run: &str, step: &str, from: u64, limit: usize) -> Vec<String> {
    store.read(run, step, from, limit).unwrap().into_iter().map(|line| line.line.text).collect()
}

fn file(root: &Path, ending: &str) -> PathBuf {
    fs::read_dir(root.join("r"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|found| found == ending))
        .unwrap()
}

#[test]
fn lines_come_back_by_number_with_their_time_and_stream() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), LogConfig { index_lines: 4, ..LogConfig::default() });
    let length = store.append("r", "build", 0, &lines(0..10)).unwrap();
    assert_eq!((length.lines, length.next_line, length.dropped), (10, 10, 0));
    let odd = LogLine { time_ms: 7, stream: Stream::Err, text: "é\n\tß".into() };
    store.append("r", "build", 10, std::slice::from_ref(&odd)).unwrap();
    assert_eq!(texts(&store, "r", "build", 3, 3), ["line 3", "line 4", "line 5"]);
    let last = store.read("r", "build", 10, 5).unwrap();
    assert_eq!((last[0].number, &last[0].line), (10, &odd));
    assert!(store.read("r", "build", 11, 5).unwrap().is_empty());
    assert!(store.read("r", "none", 0, 5).unwrap().is_empty());
    assert!(store.read("none", "build", 0, 5).unwrap().is_empty());
    assert!(!root.path().join("none").exists(), "reading makes nothing");
}

#[test]
fn a_repeat_is_passed_over_and_a_gap_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), LogConfig::default());
    store.append("r", "s", 0, &lines(0..5)).unwrap();
    assert_eq!(store.append("r", "s", 2, &lines(2..7)).unwrap().next_line, 7);
    assert_eq!(store.append("r", "s", 0, &lines(0..7)).unwrap().next_line, 7);
    assert!(matches!(store.append("r", "s", 8, &lines(8..9)), Err(LogError::Gap { first_line: 8, expected: 7 })));
    assert!(matches!(store.append("r", "s", u64::MAX, &lines(0..2)), Err(LogError::Gap { .. })));
    assert_eq!(texts(&store, "r", "s", 0, 100), (0..7).map(|n| format!("line {n}")).collect::<Vec<_>>());
}

#[test]
fn a_step_that_has_ended_takes_repeats_and_nothing_new() {
    let root = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let store = store(root.path(), LogConfig::default());
        store.append("r", "s", 0, &lines(0..3)).unwrap();
        assert!(store.finish("r", "s").unwrap().finished);
        assert!(store.finish("r", "s").unwrap().finished);
        assert_eq!(store.append("r", "s", 1, &lines(1..3)).unwrap().next_line, 3);
        assert!(matches!(store.append("r", "s", 3, &lines(3..4)), Err(LogError::Finished)));
        assert_eq!(store.length("r", "s").unwrap().lines, 3);
    }
}

#[test]
fn a_full_run_says_so_in_a_line_and_then_counts_also_after_a_restart() {
    for config in [
        LogConfig { run_lines: 12, ..LogConfig::default() },
        LogConfig { run_bytes: 12 * 27 + 5, ..LogConfig::default() },
    ] {
        let root = tempfile::tempdir().unwrap();
        {
            let store = store(root.path(), config.clone());
            store.append("r", "a", 0, &lines(0..5)).unwrap();
            let length = store.append("r", "b", 0, &lines(0..10)).unwrap();
            assert_eq!((length.lines, length.next_line, length.dropped), (8, 10, 3), "{config:?}");
            let length = store.append("r", "b", 10, &lines(10..30)).unwrap();
            assert_eq!((length.lines, length.next_line, length.dropped), (8, 30, 23));
        }
        let store = store(root.path(), config);
        let length = store.length("r", "b").unwrap();
        assert_eq!((length.lines, length.next_line, length.dropped), (8, 30, 23));
        assert_eq!(
            store.append("r", "b", 40, &lines(40..41)).unwrap().dropped,
            34,
            "what was counted elsewhere counts"
        );
        let read = store.read("r", "b", 6, 10).unwrap();
        assert_eq!(read[0].line.text, "line 6");
        assert_eq!(read[1].line.stream, Stream::Note);
        assert!(read[1].line.text.starts_with("the log ends here"), "{}", read[1].line.text);
        let length = store.append("r", "c", 0, &lines(0..4)).unwrap();
        assert_eq!((length.lines, length.dropped), (1, 4), "the bound is the run's");
        assert_eq!(store.append("other", "c", 0, &lines(0..4)).unwrap().lines, 4);
    }
}

#[test]
fn a_long_line_is_cut_visibly_and_a_read_is_bounded() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), LogConfig { line_bytes: 11, read_bytes: 60, ..LogConfig::default() });
    store.append("r", "s", 0, &[line("é".repeat(10)), line("b".repeat(11)), line("c"), line("d")]).unwrap();
    assert_eq!(texts(&store, "r", "s", 0, 2), ["ééééé … [10 bytes cut]", "bbbbbbbbbbb"]);
    store.append("r", "t", 0, &(0..20).map(|_| line("0123456789")).collect::<Vec<_>>()).unwrap();
    assert_eq!(texts(&store, "r", "t", 0, 20).len(), 6);
}

#[test]
fn steps_are_listed_as_they_began() {
    let root = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let store = store(root.path(), LogConfig { run_steps: 3, ..LogConfig::default() });
        store.append("r", "z/../z", 0, &lines(0..3)).unwrap();
        store.append("r", "a", 0, &lines(0..1)).unwrap();
        store.finish("r", "empty").unwrap();
        let steps = store.steps("r").unwrap();
        assert_eq!(steps.iter().map(|step| step.step.as_str()).collect::<Vec<_>>(), ["z/../z", "a", "empty"]);
        assert_eq!((steps[0].first_ms, steps[0].last_ms), (Some(0), Some(2)));
        assert_eq!((steps[2].first_ms, steps[2].length.finished), (None, true));
        assert!(matches!(store.append("r", "d", 0, &[]), Err(LogError::TooManySteps { bound: 3 })));
    }
    assert!(matches!(store(root.path(), LogConfig::default()).append("", "s", 0, &[]), Err(LogError::BadName(_))));
}

#[test]
fn a_search_goes_on_where_it_stopped() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), LogConfig { search_lines: 30, index_lines: 8, ..LogConfig::default() });
    let all: Vec<LogLine> =
        (0..100).map(|n| line(if n % 10 == 3 { format!("Error {n}") } else { "ok".into() })).collect();
    store.append("r", "s", 0, &all).unwrap();
    let mut from = Some(0);
    let mut hits = Vec::new();
    let mut pages = 0;
    while let Some(start) = from {
        let found = store.search("r", "s", "error", start, 2).unwrap();
        hits.extend(found.hits.into_iter().map(|hit| hit.number));
        from = found.next_from;
        pages += 1;
    }
    assert_eq!(hits, (0..10).map(|n| n * 10 + 3).collect::<Vec<_>>());
    assert!(pages > 4);
    assert!(store.search("r", "s", "ERROR", 0, 10).unwrap().hits.is_empty(), "capitals are meant");
    assert_eq!(store.search("r", "s", "Error 13", 0, 10).unwrap().hits[0].number, 13);
}

#[tokio::test]
async fn whoever_follows_is_woken_and_reads_again() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path(), LogConfig { idle_runs: 0, ..LogConfig::default() });
    let mut changes = store.follow("r").unwrap();
    store.append("r", "s", 0, &lines(0..2)).unwrap();
    store.append("other", "s", 0, &lines(0..2)).unwrap();
    changes.changed().await.unwrap();
    assert_eq!(store.length("r", "s").unwrap().lines, 2);
    store.append("r", "s", 2, &lines(2..3)).unwrap();
    changes.changed().await.unwrap();
    assert_eq!(texts(&store, "r", "s", 2, 10), ["line 2"]);
}

#[test]
fn a_torn_end_of_any_length_is_passed_over_and_written_anew() {
    let root = tempfile::tempdir().unwrap();
    let config = LogConfig { index_lines: 4, ..LogConfig::default() };
    store(root.path(), config.clone()).append("r", "s", 0, &lines(0..9)).unwrap();
    let log = file(root.path(), "log");
    let whole = fs::read(&log).unwrap();
    for keep in (0..=whole.len()).rev() {
        fs::write(&log, &whole[..keep]).unwrap();
        // Alternately a cut, and a cut with something else behind it.
        if keep % 2 == 1 {
            OpenOptions::new().append(true).open(&log).unwrap().write_all(&[0; 40]).unwrap();
        }
        let store = store(root.path(), config.clone());
        let have = store.length("r", "s").unwrap().next_line;
        assert_eq!(have, (keep / 27) as u64, "{keep} bytes");
        store.append("r", "s", have, &lines(have..11)).unwrap();
        assert_eq!(texts(&store, "r", "s", 0, 100), lines(0..11).into_iter().map(|line| line.text).collect::<Vec<_>>());
        drop(store);
        let store = self::store(root.path(), config.clone());
        assert_eq!(texts(&store, "r", "s", 8, 100), ["line 8", "line 9", "line 10"]);
    }
}

#[test]
fn an_index_that_is_lost_or_wrong_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let config = LogConfig { index_lines: 4, ..LogConfig::default() };
    store(root.path(), config.clone()).append("r", "s", 0, &lines(0..50)).unwrap();
    let index = file(root.path(), "idx");
    let right = fs::read(&index).unwrap();
    assert_eq!(right.len(), 13 * 8);
    let mut wrong_last = right.clone();
    wrong_last[12 * 8] ^= 1;
    let mut zeros = right.clone();
    zeros[40..].fill(0);
    for content in
        [Vec::new(), right[..45].to_vec(), wrong_last, zeros, vec![0xff; 80], [right.clone(), vec![9; 16]].concat()]
    {
        fs::write(&index, &content).unwrap();
        let store = store(root.path(), config.clone());
        assert_eq!(texts(&store, "r", "s", 46, 100), ["line 46", "line 47", "line 48", "line 49"]);
        assert_eq!(texts(&store, "r", "s", 21, 1), ["line 21"]);
        assert_eq!(fs::read(&index).unwrap(), right);
    }
}

#[test]
fn damage_in_the_middle_is_reported_and_not_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let config = LogConfig { index_lines: 4, ..LogConfig::default() };
    store(root.path(), config.clone()).append("r", "s", 0, &lines(0..9)).unwrap();
    let log = file(root.path(), "log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[27 * 2 + 24] ^= 1;
    fs::write(&log, bytes).unwrap();
    let store = store(root.path(), config);
    assert!(matches!(store.read("r", "s", 0, 10), Err(LogError::Damaged { line: 2 })));
    assert_eq!(texts(&store, "r", "s", 4, 10).len(), 5);
}

#[test]
fn a_line_far_behind_is_found_without_reading_what_is_before() {
    let root = tempfile::tempdir().unwrap();
    let total = 1_000_000;
    {
        let store = store(root.path(), LogConfig::default());
        for first in (0..total).step_by(20_000) {
            store.append("r", "s", first, &lines(first..first + 20_000)).unwrap();
        }
    }
    let store = store(root.path(), LogConfig::default());
    let started = Instant::now();
    assert_eq!(texts(&store, "r", "s", 900_000, 2), ["line 900000", "line 900001"]);
    let first_ms = started.elapsed().as_millis();
    // Not a bound of time: what was read from disk is what one index step holds, whatever the machine.
    let log = fs::metadata(file(root.path(), "log")).unwrap().len();
    println!("opened and read line 900,000 of {total} ({log} bytes) in {first_ms} ms");
    let damaged = OpenOptions::new().write(true).open(file(root.path(), "log")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&damaged, &[0xff; 1 << 20], log / 2).unwrap();
    drop(store);
    let store = self::store(root.path(), LogConfig::default());
    assert_eq!(texts(&store, "r", "s", 900_000, 1), ["line 900000"], "the middle of the file was not looked at");
}

#[test]
fn many_senders_at_once_keep_their_order() {
    let root = tempfile::tempdir().unwrap();
    let config = LogConfig { idle_runs: 1, ..LogConfig::default() };
    let store = store(root.path(), config);
    std::thread::scope(|scope| {
        for sender in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                let (run, step) = (format!("run {}", sender / 2), format!("step {sender}"));
                for first in (0..60).step_by(3) {
                    assert_eq!(
                        store.append(&run, &step, first, &lines(first..first + 3)).unwrap().next_line,
                        first + 3
                    );
                }
            });
        }
    });
    for sender in 0..8 {
        let found = texts(&store, &format!("run {}", sender / 2), &format!("step {sender}"), 0, 100);
        assert_eq!(found, lines(0..60).into_iter().map(|line| line.text).collect::<Vec<_>>());
    }
    store.remove("run 0").unwrap();
    store.remove("run 0").unwrap();
    assert_eq!(store.length("run 0", "step 0").unwrap().lines, 0);
}

#[derive(Debug, Clone)]
enum Step {
    Append { back: u64, texts: Vec<String> },
    Finish,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4_u64, proptest::collection::vec("\\PC{0,40}", 0..8)).prop_map(|(back, texts)| Step::Append { back, texts }),
        1 => Just(Step::Finish),
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_log_behaves_as_a_list(steps in proptest::collection::vec(step(), 1..20), index_lines in 1..6_u32) {
        let root = tempfile::tempdir().unwrap();
        let config = LogConfig { index_lines, run_lines: 40, ..LogConfig::default() };
        let mut store = LogStore::open(root.path(), config.clone()).unwrap();
        let mut model: Vec<String> = Vec::new();
        let mut finished = false;
        for step in steps {
            match step {
                Step::Append { back, texts } => {
                    let first = (model.len() as u64).saturating_sub(back);
                    let sent: Vec<LogLine> = texts.iter().map(line).collect();
                    let new = texts.get(model.len() - usize::try_from(first).unwrap()..).unwrap_or_default();
                    let result = store.append("r", "s", first, &sent);
                    if finished && !new.is_empty() {
                        prop_assert!(matches!(result, Err(LogError::Finished)));
                    } else {
                        model.extend_from_slice(new);
                        prop_assert_eq!(result.unwrap().next_line, model.len() as u64);
                    }
                }
                Step::Finish => {
                    store.finish("r", "s").unwrap();
                    finished = true;
                }
                Step::Reopen => store = LogStore::open(root.path(), config.clone()).unwrap(),
            }
        }
        let length = store.length("r", "s").unwrap();
        let kept = model.len().min(40);
        prop_assert_eq!(length.next_line, model.len() as u64);
        prop_assert_eq!(length.dropped, (model.len() - kept) as u64);
        prop_assert_eq!(length.finished, finished);
        for (from, text) in model.iter().enumerate().take(kept) {
            prop_assert_eq!(&texts(&store, "r", "s", from as u64, 3)[0], text);
        }
        let all = texts(&store, "r", "s", 0, 100);
        prop_assert_eq!(&all[..kept], &model[..kept]);
        prop_assert_eq!(all.len(), kept + usize::from(model.len() > 40));
    }
}
