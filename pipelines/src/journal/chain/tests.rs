//! Whatever is done to a chain afterwards is found, and the first entry that does not fit is named.

use proptest::prelude::*;

use super::*;
use crate::{
    journal::{Changed, Channel, ENTRY_VERSION, Origin},
    time::UnixMs,
};

fn entry(n: u64) -> Entry {
    Entry {
        version: ENTRY_VERSION,
        seq: 0,
        at: UnixMs(1_795_000_000_000 + n),
        service: n.is_multiple_of(2).then(|| "shop".parse().unwrap()),
        origin: Origin::new("mei", Channel::Page).from_place("192.0.2.7").proved_by("session 0123"),
        subject: format!("run shop/{n}"),
        word: "run_cancelled".into(),
        change: Some(("running".into(), "cancelled".into())),
        changed: Changed::of("role", "tester", "admin").into_iter().collect(),
        detail: format!("\"{n}\" is enough,\n够了"),
        previous: None,
        digest: None,
    }
}

fn chain(len: u64) -> (Vec<Entry>, Head) {
    let mut head = Head::new(Digest::of(b"one store"));
    let entries = (1..=len).map(|n| {
        let mut entry = entry(n);
        head.append(&mut entry);
        entry
    });
    (entries.collect(), head)
}

fn walk(entries: &[Entry], head: &Head, mark: Option<&Mark>) -> Result<Walked, Misfit> {
    let mut walk = Walk::new(Some(head.genesis.clone()), mark.cloned());
    entries.iter().try_for_each(|entry| walk.step(entry))?;
    walk.end(Some(head))
}

#[test]
fn what_was_written_fits_and_an_empty_one_too() {
    let (entries, head) = chain(9);
    let walked = walk(&entries, &head, Some(&head.mark())).unwrap();
    assert_eq!(walked, Walked { entries: 9, mark: Some(head.mark()) });
    let (none, empty) = chain(0);
    assert_eq!(walk(&none, &empty, None).unwrap().entries, 0);
    assert_eq!(walk(&none, &empty, Some(&empty.mark())).unwrap().entries, 0);
}

#[test]
fn every_field_of_an_entry_is_in_its_digest() {
    let (entries, head) = chain(3);
    let changes: [fn(&mut Entry); 16] = [
        |it| it.version = 1,
        |it| it.at.0 += 1,
        |it| it.service = None,
        |it| it.origin.actor = "mallory".into(),
        |it| it.origin.channel = Channel::Api,
        |it| it.origin.place = "192.0.2.8".into(),
        |it| it.origin.proof.clear(),
        |it| it.subject.push('1'),
        |it| it.word = "run_allowed".into(),
        |it| it.change = None,
        |it| it.change = Some(("running".into(), "passed".into())),
        |it| it.changed.clear(),
        |it| it.changed[0].before = "developer".into(),
        |it| it.changed[0].after = "operator".into(),
        |it| it.detail = String::new(),
        |it| it.digest = Some(Digest::of(b"made up")),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut changed = entries.clone();
        change(&mut changed[1]);
        assert_eq!(walk(&changed, &head, None), Err(Misfit::Changed { seq: 2 }), "change {number}");
        // Whoever computes the digest anew breaks the link to the next one.
        changed[1].digest = Some(changed[1].own_digest());
        let expected = if number == 15 { Ok(()) } else { Err(Misfit::Gap { seq: 3, previous: 2 }) };
        assert_eq!(walk(&changed, &head, None).map(drop), expected, "change {number}");
    }
}

#[test]
fn what_is_removed_inserted_moved_or_cut_off_is_named() {
    let (entries, head) = chain(6);
    let with = |change: fn(&mut Vec<Entry>)| {
        let mut changed = entries.clone();
        change(&mut changed);
        walk(&changed, &head, None).unwrap_err()
    };
    assert_eq!(with(|all| drop(all.remove(0))), Misfit::Gap { seq: 2, previous: 0 });
    assert_eq!(with(|all| drop(all.remove(2))), Misfit::Gap { seq: 4, previous: 2 });
    assert_eq!(with(|all| all.swap(2, 3)), Misfit::Gap { seq: 4, previous: 2 });
    assert_eq!(with(|all| all.insert(3, all[2].clone())), Misfit::Order { seq: 3, previous: 3 });
    assert_eq!(with(|all| all.truncate(4)), Misfit::End { found: 4, head: 6 });
    assert_eq!(with(Vec::clear), Misfit::End { found: 0, head: 6 });
    assert_eq!(with(|all| all[4].digest = None), Misfit::Unchained { seq: 5 });
}

#[test]
fn the_end_that_is_cut_off_with_its_head_shows_by_a_mark_only() {
    let (entries, head) = chain(6);
    let mut cut = Head::new(head.genesis.clone());
    let kept: Vec<Entry> = entries[..4].to_vec();
    kept.iter().for_each(|entry| cut.adopt(&mut entry.clone()));
    assert!(walk(&kept, &cut, None).is_ok(), "the chain alone does not show it");
    assert_eq!(walk(&kept, &cut, Some(&head.mark())), Err(Misfit::Cut { found: 4, mark: 6 }));
    // And all of it written anew, with something else in it.
    let mut anew = Head::new(head.genesis.clone());
    let forged: Vec<Entry> = (1..=7)
        .map(|n| {
            let mut forged = entry(n + 100);
            anew.append(&mut forged);
            forged
        })
        .collect();
    assert!(walk(&forged, &anew, None).is_ok());
    assert_eq!(walk(&forged, &anew, Some(&head.mark())), Err(Misfit::Another { seq: 6 }));
}

#[test]
fn a_beginning_that_is_cut_off_shows_also_where_the_genesis_was_set_anew() {
    let (entries, head) = chain(6);
    let (gone, kept) = entries.split_at(2);
    let cut = Head { genesis: gone[1].digest.clone().unwrap(), entries: 4, ..head.clone() };
    assert_eq!(walk(kept, &cut, Some(&head.mark())), Err(Misfit::Gap { seq: 3, previous: 0 }));
}

#[test]
fn a_mark_reads_back_and_what_is_none_is_refused() {
    let (_, head) = chain(4);
    let mark = head.mark();
    assert_eq!(mark.to_string().parse::<Mark>().unwrap(), mark);
    for wrong in ["", "4", "4@", "@sha256:0", "x@sha256:aa", &head.digest.to_string()] {
        assert!(wrong.parse::<Mark>().is_err(), "{wrong}");
    }
}

/// What others compute the digest of must never change: an old export is to be verified in ten years.
#[test]
fn the_text_of_an_entry_is_what_it_was() {
    let (entries, _) = chain(1);
    let previous = Digest::of(b"one store");
    let expected = format!(
        r#"["windlass-journal-1","{previous}",2,1,1795000000001,null,"mei","page","192.0.2.7","session 0123","run shop/1","run_cancelled",["running","cancelled"],[["role","tester","admin"]],"\"1\" is enough,\n够了"]"#
    );
    assert_eq!(entries[0].canonical(), expected);
}

proptest! {
    #[test]
    fn two_entries_that_differ_have_different_texts(a in ".{0,8}", b in ".{0,8}", c in ".{0,8}", d in ".{0,8}") {
        let with = |subject: &str, detail: &str| Entry { subject: subject.into(), detail: detail.into(), ..entry(1) };
        prop_assert_eq!(with(&a, &b).canonical() == with(&c, &d).canonical(), (a, b) == (c, d));
    }
}
