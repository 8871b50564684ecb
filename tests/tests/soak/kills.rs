//! A real server is killed at random moments while a forge sends hooks and a person makes tokens. What was acknowledged is
//! there at the end, and a hook that is sent again, as forges do when an answer was lost, is the one that was there.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fuzz::Chance;
use serde_json::{Value, json};
use tests::{push_body, soak::Counts};
use tokio::task::JoinSet;

use crate::{
    Setting,
    server::{Door, Server},
};

const FORGES: usize = 3;
/// Between two hooks of a forge: enough of them to be in the middle of one, few enough to list them all.
const BETWEEN: Duration = Duration::from_millis(40);
/// The longest life of a server, in milliseconds.
const LIFE_MS_MAX: usize = 2_500;

/// What was acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// The forge's id of each hook, and ours.
    hooks: Vec<(String, u64)>,
    tokens: Vec<String>,
    sent_again: u64,
}

pub(crate) async fn run(setting: &Setting) -> Result<(String, Counts)> {
    let mut server = Server::start().await?;
    let (acknowledged, over) = (Arc::new(Mutex::new(Acknowledged::default())), Arc::new(AtomicBool::new(false)));
    let mut senders = JoinSet::new();
    for forge in 0..FORGES {
        let (door, head) = (server.door.clone(), server.lone.head.clone());
        let (acknowledged, over) = (Arc::clone(&acknowledged), Arc::clone(&over));
        senders.spawn(async move { send(forge, &door, &head, &acknowledged, &over).await });
    }
    let mut chance = Chance::new(setting.seed);
    let end = Instant::now() + setting.time;
    let mut kills = 0_u64;
    while Instant::now() < end {
        // The moment of the kill is the point of it, so nothing can be waited for.
        let life_ms = u64::try_from(chance.below(LIFE_MS_MAX))?;
        tokio::time::sleep(Duration::from_millis(life_ms)).await;
        server.lone.kill_and_restart().await.with_context(|| format!("after kill {kills}"))?;
        kills += 1;
    }
    over.store(true, Ordering::SeqCst);
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    server.lone.kill_and_restart().await?;
    server.lone.is_well()?;
    let acknowledged = acknowledged.lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
    let mut ours = BTreeSet::new();
    for (id, delivery) in &acknowledged.hooks {
        let answer = server.door.hook("push", id, push_body(&server.lone.head).to_string().into_bytes()).await?;
        let (status, said) = (answer.status(), answer.json::<Value>().await?);
        ensure!(status == 202 && said["repeat"] == true, "the hook {id} was acknowledged and is lost: {status} {said}");
        ensure!(said["delivery"] == *delivery, "the hook {id} was {delivery} and is there as another: {said}");
        ensure!(ours.insert(delivery), "{delivery} is two hooks");
    }
    // Of those on the first page each is there once.
    let listed = server.door.list("/api/v1/services/shop/deliveries").await?;
    let distinct: BTreeSet<_> = listed.iter().filter_map(|delivery| delivery["forge_id"].as_str()).collect();
    ensure!(!listed.is_empty() && distinct.len() == listed.len(), "a hook is listed twice");
    let tokens = server.door.list("/api/v1/tokens").await?;
    for label in &acknowledged.tokens {
        ensure!(tokens.iter().any(|token| token["label"] == label.as_str()), "the token {label} is lost");
    }
    let (hooks, tokens, again) = (acknowledged.hooks.len(), acknowledged.tokens.len(), acknowledged.sent_again);
    ensure!(kills > 0 && hooks > 0 && tokens > 0, "{kills} kills, {hooks} hooks, {tokens} tokens: nothing was shown");
    let figure = format!("{kills} kills, {hooks} hooks ({again} sent again), {tokens} tokens, 0 lost, 0 doubled");
    Ok((figure, Counts { kills, ..Counts::default() }))
}

async fn send(
    forge: usize,
    door: &Door,
    head: &str,
    acknowledged: &Mutex<Acknowledged>,
    over: &AtomicBool,
) -> Result<()> {
    let note = |change: &dyn Fn(&mut Acknowledged)| acknowledged.lock().map(|mut all| change(&mut all)).is_ok();
    for number in 0_u64.. {
        let id = format!("forge-{forge}-{number}");
        let delivery = loop {
            if over.load(Ordering::SeqCst) {
                return Ok(());
            }
            match door.hook("push", &id, push_body(head).to_string().into_bytes()).await {
                // Killed in the middle of the answer, it is as good as none.
                Ok(answer) if answer.status() == 202 => match answer.json::<Value>().await {
                    Ok(said) => break said["delivery"].as_u64().context("an answer without a delivery")?,
                    Err(_) => continue,
                },
                Ok(answer) => bail!("the hook {id} was answered {}", answer.status()),
                // Killed before or after it wrote it down: the forge cannot know.
                Err(_) => {
                    ensure!(note(&|all| all.sent_again += 1), "another sender panicked");
                    tokio::time::sleep(BETWEEN).await;
                }
            }
        };
        ensure!(note(&|all| all.hooks.push((id.clone(), delivery))), "another sender panicked");
        if number % 10 == 0
            && let Ok(made) = door.post("/api/v1/tokens", &json!({ "label": id })).await
            && made.status() == 201
        {
            ensure!(note(&|all| all.tokens.push(id.clone())), "another sender panicked");
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(())
}
