//! A backup while the train is under way, and a restore elsewhere: the restored server goes on from that moment, and what
//! was done since is done again safely.

use std::{fs, path::Path, process::Command, sync::PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Tier, Windlass, evidence::record, require};

use crate::{
    sample::Version,
    world::{PARTS, World},
};

const SERVICE: &str = "vault";

/// What the command line said and how it ended.
pub(crate) struct Said {
    pub(crate) good: bool,
    pub(crate) text: String,
}

/// The command line as an operator uses it, signed in.
pub(crate) fn windlass(world: &World, arguments: &[&str]) -> Result<Said> {
    let mut command = Command::new(Windlass::binary()?);
    command.args(arguments).env("WINDLASS_URL", &world.base).env("WINDLASS_TOKEN", world.api.token());
    let done = command.current_dir(world.folder()).output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    Ok(Said { good: done.status.success(), text })
}

/// What people see of the service: its runs, releases and log.
async fn seen(world: &World) -> Result<Value> {
    let of = async |path: &str| world.api.get(&format!("services/{SERVICE}/{path}")).await;
    let (mut runs, mut releases) = (of("runs").await?, of("releases").await?);
    // What is counted from now changes by itself.
    for list in [&mut runs, &mut releases] {
        for item in list["items"].as_array_mut().into_iter().flatten() {
            if let Some(fields) = item.as_object_mut() {
                fields.remove("why");
            }
        }
    }
    let logs = of("runs/1/steps/check/log?limit=1000").await?["lines"].clone();
    Ok(json!({ "runs": runs, "releases": releases, "log": logs }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_way_is_restored_elsewhere_and_the_train_goes_on() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let world = World::start(&[]).await?;
    let service = world.service(SERVICE).await?;
    let rolling = || json!({ "strategy": "rolling" });
    let first = world.deliver(&service, &Version::new(SERVICE, "1", rolling()), 1).await?;
    ensure!(first["state"] == "completed", "the first rollout did not complete: {first}");
    service.push(&Version::new(SERVICE, "2", rolling()))?;
    world.asked(SERVICE, 2).await?;
    let before = seen(&world).await?;
    let journal = world.api.get("audit?limit=100").await?;
    let mark = windlass(&world, &["audit", "head"])?.text;
    let made = windlass(&world, &["backup", "--with-key", "moment.backup"])?;
    ensure!(made.good, "no backup was made: {}", made.text);
    let again = windlass(&world, &["backup", "moment.backup"])?;
    ensure!(!again.good && again.text.contains("there is a file of this name"), "{}", again.text);
    let in_use = windlass(&world, &["backup", "other.backup", "--state-dir", "state"])?;
    ensure!(!in_use.good && in_use.text.contains("leave out --state-dir"), "{}", in_use.text);

    // The world goes on: the second release is live before the server is lost.
    world.approve(SERVICE, 2).await?;
    let second = world.ended_rollout(SERVICE, 2).await?;
    ensure!(second["state"] == "completed", "the second rollout did not complete: {second}");
    let digests = world.digests(SERVICE, 2).await?;
    let later = windlass(&world, &["audit", "head"])?.text;
    world.windlass.lock().unwrap_or_else(PoisonError::into_inner).stop();

    let whole = windlass(&world, &["audit", "verify", "--state-dir", "state", "--head", later.trim()])?;
    ensure!(whole.good && whole.text.contains("the audit log is whole"), "{}", whole.text);
    refuses_what_is_damaged(&world)?;
    let checked = windlass(&world, &["backup", "check", "moment.backup"])?;
    ensure!(checked.good && checked.text.contains("the backup is whole"), "{}", checked.text);
    let restored = windlass(&world, &["restore", "moment.backup", "--state-dir", "elsewhere"])?;
    ensure!(restored.good, "{}", restored.text);
    let occupied = windlass(&world, &["restore", "moment.backup", "--state-dir", "elsewhere"])?;
    ensure!(!occupied.good && occupied.text.contains("is not empty"), "{}", occupied.text);

    let config = world.folder().join("windlass.yaml");
    let mut settings: Value = serde_json::from_str(&fs::read_to_string(&config)?)?;
    settings["state_dir"] = json!(world.folder().join("elsewhere"));
    fs::write(&config, settings.to_string())?;
    world.windlass.lock().unwrap_or_else(PoisonError::into_inner).restart()?;
    let after = seen(&world).await?;
    ensure!(before == after, "before: {before:#}\nafter: {after:#}");
    let newest = journal["items"][0]["seq"].as_u64().context("no audit log")?;
    let now = world.api.get(&format!("audit?limit=100&before={}", newest + 1)).await?;
    ensure!(journal["items"] == now["items"], "entries of the audit log are lost: {journal} {now}");
    let whole = windlass(&world, &["audit", "verify", "--head", mark.trim()])?;
    ensure!(whole.good, "the mark from before the backup: {}", whole.text);
    let lost = windlass(&world, &["audit", "verify", "--head", later.trim()])?;
    ensure!(
        !lost.good && lost.text.contains("cannot vouch for the audit log"),
        "the mark of what is lost: {}",
        lost.text
    );

    // From the moment of the backup on everything is done again: copied, rolled out, with the same digest.
    world.approve(SERVICE, 2).await?;
    let again = world.ended_rollout(SERVICE, 2).await?;
    ensure!(again["state"] == "completed", "the rollout after the restore did not complete: {again}");
    ensure!(world.digests(SERVICE, 2).await? == digests, "another digest is live after the restore");
    let size = fs::metadata(world.folder().join("moment.backup"))?.len();
    record(
        "a backup made under way is restored elsewhere: the train goes on from that moment, a damaged one is refused",
        Tier::Live,
        format!("{newest} entries of the audit log, {} KiB, same digest promoted and rolled out again", size >> 10),
    );
    world.all_held();
    Ok(())
}

fn refuses_what_is_damaged(world: &World) -> Result<()> {
    let whole = fs::read(world.folder().join("moment.backup"))?;
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for (name, bytes, word) in [("flipped", &flipped[..], "damaged"), ("cut", &whole[..whole.len() - 100], "cut")] {
        fs::write(world.folder().join(name), bytes)?;
        let refused = windlass(world, &["restore", name, "--state-dir", "nowhere"])?;
        ensure!(!refused.good && refused.text.contains("the backup is"), "{name} ({word}): {}", refused.text);
        ensure!(!Path::exists(&world.folder().join("nowhere")), "a {name} backup left something behind");
    }
    Ok(())
}
