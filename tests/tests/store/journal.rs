//! What the child processes of the case `chain` do: changes with their lines in the audit log, and what is left of both
//! after a kill. The parent's part is that of `kill`, in `cases`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use pipelines::journal::{Channel, Origin};
use pipelines::time::UnixMs;
use serde_json::{Value, json};
use server::store::embedded::EmbeddedStore;
use server::store::engine::Engine;
use server::store::{Account, NewEntry, Role, Store, StoreError};

use crate::child::{WRITERS, acknowledged, chain, say};

/// Entries that are read at once.
const CHUNK_ENTRIES: usize = 500;
const CREATED: &str = "account_created";

fn failed(what: &str) -> impl Fn(StoreError) -> String {
    move |error| format!("{what}: {}", chain(&error))
}

/// The names of the accounts of each writer, by number.
type Written = BTreeMap<u64, BTreeSet<u64>>;

fn numbers_of(names: impl Iterator<Item = String>) -> Result<Written, String> {
    let mut written = Written::new();
    for name in names {
        let numbers =
            name.split_once('-').and_then(|(writer, number)| Some((writer.parse().ok()?, number.parse().ok()?)));
        let (writer, number) = numbers.ok_or_else(|| format!("nobody wrote {name:?}"))?;
        if !written.entry(writer).or_default().insert(number) {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(written)
}

fn accounts(store: &EmbeddedStore) -> Result<Written, String> {
    numbers_of(store.accounts().map_err(failed("accounts"))?.into_iter().map(|account| account.name))
}

/// Makes numbered accounts, each with its line, until it is killed; says each number once it is acknowledged.
pub(crate) fn write(engine: &Arc<dyn Engine>) -> Result<Value, String> {
    let store = EmbeddedStore::open(Arc::clone(engine)).map_err(failed("open"))?;
    let there = accounts(&store)?;
    let next = |writer| there.get(&writer).and_then(BTreeSet::last).map_or(1, |last| last + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let writers = (0..WRITERS).map(|writer| write_one(&store, writer, next(writer)));
    let problem = runtime.block_on(join_all(writers)).into_iter().find_map(Result::err);
    Err(problem.unwrap_or_default())
}

async fn write_one(store: &EmbeddedStore, writer: u64, first: u64) -> Result<(), String> {
    for number in first.. {
        let name = format!("{writer}-{number}");
        let account = Account {
            name: name.clone(),
            email: String::new(),
            role: Role::Tester,
            password_hash: String::new(),
            disabled: false,
            created_at: UnixMs(number),
            session_epoch: 0,
        };
        let origin = Origin::new(format!("writer {writer}"), Channel::Machine);
        let entry = NewEntry::new(UnixMs(number), origin, name, CREATED);
        store.account_put(&account, entry).await.map_err(failed("account"))?;
        say(&format!("ack {writer} {number}"));
    }
    Ok(())
}

/// Whether the chain is whole, and holds a line for each account and none besides.
pub(crate) fn verify(engine: &Arc<dyn Engine>) -> Result<Value, String> {
    let acknowledged = acknowledged()?;
    let store = EmbeddedStore::open(Arc::clone(engine)).map_err(failed("open"))?;
    let walked = store.journal_verify(None).map_err(failed("verify"))?;
    let entries = walked.map_err(|misfit| format!("the audit log is not whole: {misfit}"))?.entries;
    let (mut names, mut last) = (Vec::new(), 0);
    loop {
        let chunk = store.journal_after(last, CHUNK_ENTRIES).map_err(failed("journal"))?;
        let Some(newest) = chunk.last() else { break };
        last = newest.seq;
        names.extend(chunk.into_iter().filter(|entry| entry.word == CREATED).map(|entry| entry.subject));
    }
    let (noted, there) = (numbers_of(names.into_iter())?, accounts(&store)?);
    if noted != there {
        let count = |written: &Written| written.values().map(BTreeSet::len).sum::<usize>();
        return Err(format!("{} changes are there, with {} lines: one is there by half", count(&there), count(&noted)));
    }
    let (mut in_flight, mut newest) = (0, Vec::new());
    for (writer, &acknowledged) in (0_u64..).zip(&acknowledged) {
        let numbers = there.get(&writer);
        let found = numbers.and_then(BTreeSet::last).copied().unwrap_or(0);
        if numbers.map_or(0, BTreeSet::len) as u64 != found {
            return Err(format!("writer {writer} has a gap before {found}"));
        }
        if found < acknowledged {
            return Err(format!("writer {writer}: {acknowledged} was acknowledged, {found} is the last there"));
        }
        if found > acknowledged + 1 {
            return Err(format!("writer {writer}: {found} is there, but {acknowledged} was the last acknowledged"));
        }
        in_flight += found - acknowledged;
        newest.push(found);
    }
    Ok(json!({"records": entries, "in_flight": in_flight, "last": newest}))
}
