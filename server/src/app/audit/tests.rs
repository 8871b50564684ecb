//! Reading with a filter, files that are read again, failed tries to sign in.

use std::io::BufReader;

use pipelines::{journal::Changed, protocol::Secret};
use proptest::prelude::*;

use super::{
    file::{COLUMNS, FileError, Format},
    *,
};
use crate::{
    app::{Role, sessions::SeenFrom},
    testing::{Stage, test_app, test_app_with},
};

fn entry(n: u64, words: &str) -> Entry {
    Entry {
        version: 2,
        seq: 0,
        at: UnixMs(1_795_000_000_000 + n * 1_000),
        service: n.is_multiple_of(2).then(|| "shop".parse().unwrap()),
        origin: Origin::new(words, Channel::ALL[n as usize % 7]).from_place("192.0.2.7").proved_by("token 0123"),
        subject: format!("run shop/{n}"),
        word: "run_cancel_requested".into(),
        change: n.is_multiple_of(3).then(|| ("running".into(), words.into())),
        changed: Changed::of("role", "", words).into_iter().collect(),
        detail: words.into(),
        previous: None,
        digest: None,
    }
}

fn chain(words: &[&str]) -> (Vec<Entry>, Head) {
    let mut head = Head::new(pipelines::ids::Digest::of(b"one store"));
    let entries = words.iter().zip(1..).map(|(words, n)| {
        let mut entry = entry(n, words);
        head.append(&mut entry);
        entry
    });
    (entries.collect(), head)
}

fn written(format: Format, entries: &[Entry], head: &Head) -> String {
    let start = file::start(format, head, true);
    start + &entries.iter().map(|entry| file::entry(format, entry)).collect::<String>()
}

fn verified(text: &str, mark: Option<Mark>) -> Result<Walked, FileError> {
    file::verify(BufReader::new(text.as_bytes()), mark)
}

const HOSTILE: [&str; 10] = [
    "=HYPERLINK(\"http://evil\",\"x\")",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r\n=1",
    "'quoted'",
    "＝1",
    "a,\"b\"\nc",
    "够了",
];

#[test]
fn both_kinds_of_file_are_read_again_as_they_were_written() {
    let (entries, head) = chain(&HOSTILE);
    for format in [Format::Ndjson, Format::Csv] {
        let text = written(format, &entries, &head);
        let walked = verified(&text, Some(head.mark())).unwrap();
        assert_eq!(walked, Walked { entries: 10, mark: Some(head.mark()) }, "{format:?}");
        // A byte that is another somewhere, be it in what is there for people only.
        let mut unseen = Vec::new();
        for at in
            (3..text.len()).filter(|at| text.is_char_boundary(*at) && text.as_bytes()[*at].is_ascii_alphanumeric())
        {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
            let flipped = String::from_utf8(bytes).unwrap();
            if verified(&flipped, Some(head.mark())).is_ok() {
                unseen.push(at);
            }
        }
        assert!(unseen.is_empty(), "{format:?}: a change at {:?} was not seen", &text[unseen[0].saturating_sub(40)..]);
    }
}

#[test]
fn a_file_that_lost_moved_or_gained_a_line_names_it() {
    let (entries, head) = chain(&["a", "b", "c", "d", "e"]);
    for format in [Format::Ndjson, Format::Csv] {
        let with = |change: fn(&mut Vec<Entry>)| {
            let mut changed = entries.clone();
            change(&mut changed);
            verified(&written(format, &changed, &head), Some(head.mark())).unwrap_err().to_string()
        };
        assert!(with(|all| drop(all.remove(2))).starts_with("entry 4 does not follow entry 2"), "{format:?}");
        assert!(with(|all| all.swap(1, 2)).starts_with("entry 3 does not follow entry 1"), "{format:?}");
        assert!(with(|all| all.insert(2, all[1].clone())).starts_with("entry 2 comes after entry 2"), "{format:?}");
        assert!(with(|all| all.truncate(3)).contains("the end was cut off"), "{format:?}");
        let text = written(format, &entries, &head);
        let cut = verified(&text[..text.len() - 9], Some(head.mark())).unwrap_err().to_string();
        assert!(cut.contains("cannot be read") || cut.contains("was changed"), "{format:?}: {cut}");
    }
}

#[test]
fn what_is_no_export_and_what_is_a_part_of_the_log_is_refused() {
    let (entries, head) = chain(&["a", "b"]);
    for foreign in ["", "{}\n", "a,b,c\n1,2,3\n", "{\"windlass_audit_export\":2,\"is_whole\":true}\n", "\u{0}"] {
        assert!(matches!(verified(foreign, None), Err(FileError::Foreign(_))), "{foreign:?}");
    }
    let part = file::start(Format::Ndjson, &head, false) + &file::entry(Format::Ndjson, &entries[1]);
    assert!(matches!(verified(&part, None), Err(FileError::Part)));
}

/// As a spreadsheet reads it: the cells of a row.
fn cells_of(text: &str) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().next().unwrap().unwrap().iter().map(str::to_owned).collect()
}

#[test]
fn no_cell_is_a_formula() {
    for words in HOSTILE {
        let (entries, _) = chain(&[words]);
        let cells = cells_of(&file::entry(Format::Csv, &entries[0]));
        assert_eq!(cells.len(), COLUMNS.len());
        for cell in &cells {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']), "{cell:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_words_are_the_csv_is_read_again_as_it_was(words in "\\PC{0,12}", more in "[=+@'\",\r\n\t -]{0,6}") {
        let (entries, head) = chain(&[&words, &more, &format!("{more}{words}")]);
        prop_assert!(verified(&written(Format::Csv, &entries, &head), Some(head.mark())).is_ok());
    }
}

async fn page(stage: &Stage, filter: AuditFilter, before: Option<u64>, limit: usize) -> AuditPage {
    stage.app.audit_page(filter, before, limit).await.unwrap()
}

#[tokio::test]
async fn a_filter_finds_what_it_says_and_pages_lose_nothing() {
    let stage = test_app();
    stage.live("shop").await;
    stage.pushed("cart").await;
    let all = page(&stage, AuditFilter::default(), None, 10_000).await;
    assert_eq!((all.next_before, all.looked_at), (None, all.entries.len()));
    let newest = all.entries[0].at;
    let filters = [
        AuditFilter { who: Some("ADM".into()), ..AuditFilter::default() },
        AuditFilter { what: Some("Release".into()), ..AuditFilter::default() },
        AuditFilter { service: Some("cart".parse().unwrap()), ..AuditFilter::default() },
        AuditFilter { channel: Some(Channel::Runner), ..AuditFilter::default() },
        AuditFilter { of_services: true, ..AuditFilter::default() },
        AuditFilter { until: Some(newest), ..AuditFilter::default() },
        AuditFilter { from: Some(newest), ..AuditFilter::default() },
    ];
    for filter in filters {
        let wanted: Vec<u64> = all.entries.iter().filter(|entry| filter.lets(entry)).map(|entry| entry.seq).collect();
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let part = page(&stage, filter.clone(), before, 2).await;
            found.extend(part.entries.iter().map(|entry| entry.seq));
            before = part.next_before;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted, "{filter:?}");
        if filter.until.is_none() {
            assert!(!wanted.is_empty() && wanted.len() < all.entries.len() || filter.from.is_some(), "{filter:?}");
        }
    }
}

#[tokio::test]
async fn a_page_looks_at_so_many_entries_and_says_where_it_goes_on() {
    let stage = test_app_with(|config| config.bounds.audit_scan_entries_max = 7);
    stage.live("shop").await;
    let nothing = AuditFilter { who: Some("nobody at all".into()), ..AuditFilter::default() };
    let head = stage.app.audit_head().unwrap().seq;
    let part = page(&stage, nothing.clone(), None, 10).await;
    assert_eq!((part.entries.len(), part.looked_at, part.next_before), (0, 7, Some(head - 6)));
    let mut before = part.next_before;
    let mut pages = 1;
    while before.is_some() {
        before = page(&stage, nothing.clone(), before, 10).await.next_before;
        pages += 1;
    }
    assert_eq!(pages, head.div_ceil(7));
}

#[tokio::test]
async fn an_export_is_the_log_as_it_was_when_it_began() {
    let stage = test_app();
    stage.live("shop").await;
    let head = stage.app.audit_head().unwrap();
    stage.pushed("cart").await;
    let (mut entries, mut after) = (Vec::new(), Some(0));
    while let Some(from) = after {
        let (part, next) = stage.app.audit_export(AuditFilter::default(), from, head.seq).await.unwrap();
        entries.extend(part);
        after = next;
    }
    assert_eq!(verified(&written(Format::Ndjson, &entries, &head), None).unwrap().entries, head.entries);
}

fn failed(stage: &Stage) -> Vec<Entry> {
    let entries = stage.app.store().journal(None, None, 1_000).unwrap();
    entries.into_iter().filter(|entry| entry.word == "sign_in_failed").collect()
}

#[tokio::test]
async fn failed_tries_to_sign_in_are_written_down_but_not_without_end_and_never_what_was_typed() {
    let stage = test_app_with(|config| {
        config.bounds.audit_failed_sign_ins_max = 3;
        config.bounds.sign_in_tries_max = 100;
    });
    stage.caller(Role::Developer).await;
    let from = SeenFrom { remote: "192.0.2.7".into(), agent: "a browser".into() };
    let try_as = async |name: &str| {
        let tried = stage.app.sign_in_from(&from, None, name, Secret::new("guessed in vain")).await;
        assert!(matches!(tried, Err(AppError::WrongPassword)));
    };
    try_as("developer").await;
    // Whoever is in a hurry types the password where the name belongs.
    try_as("hunter2-hunter2").await;
    let entries = failed(&stage);
    let seen: Vec<_> = entries.iter().map(|it| (it.origin.actor.as_str(), it.origin.place.as_str())).collect();
    assert_eq!(seen, [(NOBODY, "192.0.2.7"), ("developer", "192.0.2.7")]);
    for entry in stage.app.store().journal(None, None, 1_000).unwrap() {
        assert!(!entry.canonical().contains("hunter2") && !entry.canonical().contains("guessed in vain"));
    }
    for _ in 0..4 {
        try_as("developer").await;
    }
    assert_eq!(failed(&stage).len(), 3, "so many an hour");
    stage.pass_ms(FAILED_WINDOW_MS);
    try_as("developer").await;
    assert_eq!(failed(&stage)[0].detail, "3 more before it were not written");
}

#[tokio::test]
async fn the_daily_look_says_whether_the_log_is_whole() {
    let stage = test_app();
    stage.live("shop").await;
    assert!(stage.app.audit_checked().is_none());
    let mark = stage.app.audit_head().unwrap().mark();
    assert_eq!(stage.app.audit_check(None).await.unwrap().result.unwrap().mark, Some(mark.clone()));
    let other = Mark { seq: mark.seq, digest: pipelines::ids::Digest::of(b"another") };
    let check = stage.app.audit_check(Some(other)).await.unwrap();
    assert_eq!(check.result, Err(Misfit::Another { seq: mark.seq }));
    assert_eq!(stage.app.audit_checked().unwrap().result, check.result);
}
