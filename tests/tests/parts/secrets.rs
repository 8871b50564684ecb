//! The key of everything that is sealed, rotated by the real program on a real store, and killed at every place where
//! that can be: whatever is left, the server opens every secret, and rotating again comes to the end.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pipelines::{
    ids::{SecretName, ServiceName},
    journal::Origin,
    protocol::{GitAccess, Secret},
};
use serde_json::{Value, json};
use server::{
    app::{
        App,
        keys::Keys,
        rotation::PLACES,
        secrets::{SecretInput, SecretScope},
        services::{NewCredential, ServiceInput},
        system_clock,
    },
    config::Config,
    store::{
        Store,
        embedded::EmbeddedStore,
        engine::{self, EngineConfig},
        logs::{LogConfig, LogStore},
    },
};
use tests::{Tier, Windlass, evidence};

/// More than one transaction holds.
const SECRETS: usize = 120;
const TOKEN: &str = "token-of-the-repository";

/// The folder of a server that does not run.
struct Yard {
    dir: tempfile::TempDir,
}

impl Yard {
    /// A service with credentials, secrets of its own and a shared one.
    async fn new() -> Result<Self> {
        let yard = Self { dir: tempfile::tempdir()? };
        let config = json!({
            "state_dir": yard.state(), "public_url": "http://windlass.example.com",
            "registries": {"test": {"host": "test.example.com"}, "production": {"host": "production.example.com"}},
            "mail": {"from": "Windlass <windlass@example.com>", "folder": yard.dir.path().join("mails")},
        });
        std::fs::write(yard.config(), config.to_string())?;
        let app = yard.open()?;
        let input = ServiceInput {
            repository_url: Some("https://git.example.com/shop.git".into()),
            credential: Some(NewCredential::Token { user: "git".into(), token: Secret::new(TOKEN) }),
            hook_secret: Some(Secret::new("secret-of-the-hooks")),
            ..ServiceInput::default()
        };
        app.service_create(shop()?, input, Origin::server()).await?;
        for number in 0..SECRETS {
            let scope = if number % 2 == 0 { SecretScope::Service { service: shop()? } } else { SecretScope::Shared };
            let input = SecretInput { value: Some(Secret::new(value(number))), services: None };
            app.secret_set(scope, name(number)?, input, Origin::server()).await?;
        }
        Ok(yard)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("windlass.yaml")
    }

    fn key_file(&self) -> PathBuf {
        self.state().join("key")
    }

    fn store(&self) -> Result<EmbeddedStore> {
        std::fs::create_dir_all(self.state())?;
        Ok(EmbeddedStore::open(engine::open(&self.state().join("store"), &EngineConfig::default())?)?)
    }

    /// The application as a server has it that starts now.
    fn open(&self) -> Result<App> {
        let store = Arc::new(self.store()?);
        let logs = Arc::new(LogStore::open(&self.state().join("logs"), LogConfig::default())?);
        let keys = Keys::load(&self.key_file())?;
        Ok(App::new(Config::load(&self.config())?, store, logs, keys, system_clock())?)
    }

    fn rotate(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        let mut command = Command::new(Windlass::binary()?);
        command.args(["secret", "rotate-key", "-o", "json", "--config"]).arg(self.config()).args(arguments);
        for name in ["WINDLASS_KEY", "WINDLASS_OLD_KEYS", "WINDLASS_CRASH", "WINDLASS_CRASH_MARK"] {
            command.env_remove(name);
        }
        Ok(command.envs(environment.iter().copied()).output()?)
    }

    /// A rotation that must succeed; gives what it says.
    fn rotates(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Value> {
        let output = self.rotate(arguments, environment)?;
        ensure!(output.status.success(), "the key was not rotated: {output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// That a server that starts now opens everything; how much of it is sealed with its current key.
    fn opens(&self) -> Result<usize> {
        let app = self.open()?;
        let GitAccess::Token { token, .. } = app.service_repository(&app.service(&shop()?)?)?.credential else {
            anyhow::bail!("the service has another credential");
        };
        ensure!(token.expose() == TOKEN, "the credential of the repository is another one");
        ensure!(app.service_hook_secret(&shop()?)?.is_some(), "the secret of the hooks is gone");
        self.opens_with(app.store(), app.keys())
    }

    fn opens_with(&self, store: &dyn Store, keys: &Keys) -> Result<usize> {
        let mut current = 0;
        for (number, name) in (0..SECRETS).map(|number| (number, name(number))) {
            let (name, own) = (name?, number % 2 == 0);
            let scope = if own { SecretScope::Service { service: shop()? } } else { SecretScope::Shared };
            let secret = store.secret(&scope, &name)?.with_context(|| format!("{name} is gone"))?;
            // The place is part of what is sealed: a contract with what is on disk.
            let place = if own { format!("secret/service/shop/{name}") } else { format!("secret/shared//{name}") };
            ensure!(keys.open(&place, &secret.sealed)?.expose() == value(number), "{name} has another value");
            current += usize::from(keys.is_current(&place, &secret.sealed));
        }
        Ok(current)
    }

    fn keys(&self) -> Result<Vec<String>> {
        Ok(std::fs::read_to_string(self.key_file())?.split_whitespace().map(str::to_owned).collect())
    }
}

fn shop() -> Result<ServiceName> {
    Ok("shop".parse()?)
}

fn name(number: usize) -> Result<SecretName> {
    Ok(format!("SECRET_{number}").parse()?)
}

fn value(number: usize) -> String {
    format!("value-number-{number}")
}

fn mode(path: &Path) -> Result<u32> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o777)
}

#[tokio::test]
async fn a_rotation_that_is_killed_anywhere_loses_nothing_and_goes_on() -> Result<()> {
    let yard = Yard::new().await?;
    let instance = yard.open()?.instance().to_owned();
    let mut unfinished = 0;
    for place in PLACES {
        let before = yard.keys()?;
        let mark = yard.dir.path().join(format!("mark-{place}"));
        let mark = mark.to_str().context("the folder is no text")?;
        let point = format!("key-rotation:{place}");
        let output = yard.rotate(&[], &[("WINDLASS_CRASH", &point), ("WINDLASS_CRASH_MARK", mark)])?;
        ensure!(!output.status.success(), "it was not killed at {place}: {output:?}");
        // The server starts on what is left.
        let current = yard.opens().with_context(|| format!("killed at {place}"))?;
        unfinished += usize::from(current < SECRETS && yard.keys()?.len() > before.len());
        let done = yard.rotates(&[], &[]).with_context(|| format!("again after {place}"))?;
        ensure!(yard.opens()? == SECRETS, "not everything is sealed with the new key after {place}");
        let after = yard.keys()?;
        ensure!(after.len() == 2 && after[0] != before[0], "the keys after {place} are not a new and an old one");
        ensure!(mode(&yard.key_file())? == 0o600, "others may read the key");
        if matches!(place, "written" | "half") {
            ensure!(done["resumed"] == true && after[1] == before[0], "it began anew after {place}: {done}");
        }
    }
    ensure!(unfinished >= 2, "no kill left anything unfinished: the test shows nothing");
    // The containers that run are still this server's.
    ensure!(yard.open()?.instance() == instance, "the server takes its containers for another one's");
    let words: Vec<_> = yard.store()?.journal(None, None, 5)?.into_iter().map(|entry| entry.word).collect();
    ensure!(words.iter().any(|word| word == "key_rotated"), "the journal does not say so: {words:?}");
    evidence::record(
        "the key of all secrets is rotated, killed at each place",
        Tier::RealPart,
        format!("{} kills", PLACES.len()),
    );
    Ok(())
}

#[tokio::test]
async fn a_key_is_rotated_only_while_the_server_is_down_and_old_links_end_when_asked() -> Result<()> {
    let yard = Yard::new().await?;
    let before = yard.keys()?;
    let running = yard.open()?;
    let output = yard.rotate(&[], &[])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("stop the server first"), "{output:?}");
    ensure!(yard.keys()? == before, "the key was changed beneath a running server");
    drop(running);
    yard.rotates(&["--end-links"], &[])?;
    let after = yard.keys()?;
    ensure!(after.len() == 1 && after != before, "the old key is still there");
    ensure!(yard.opens()? == SECRETS);
    Ok(())
}

#[tokio::test]
async fn what_does_not_open_stops_a_rotation_before_anything_changes() -> Result<()> {
    let yard = Yard::new().await?;
    std::fs::write(yard.key_file(), STANDARD.encode([9; 32]))?;
    let before = yard.keys()?;
    let output = yard.rotate(&[], &[])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("does not open with the present key"), "{output:?}");
    ensure!(yard.keys()? == before);
    Ok(())
}

#[tokio::test]
async fn a_key_of_the_environment_is_rotated_with_the_one_before_it_beside() -> Result<()> {
    let yard = Yard::new().await?;
    let old = yard.keys()?.remove(0);
    std::fs::remove_file(yard.key_file())?;
    let new = STANDARD.encode([5; 32]);
    let alone = yard.rotate(&[], &[("WINDLASS_KEY", &old)])?;
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    ensure!(!alone.status.success() && said.contains("WINDLASS_OLD_KEYS"), "{alone:?}");
    let done = yard.rotates(&[], &[("WINDLASS_KEY", &new), ("WINDLASS_OLD_KEYS", &old)])?;
    ensure!(done["sealed"] == SECRETS + 2, "{done}");
    ensure!(yard.opens_with(&yard.store()?, &Keys::from_bytes([5; 32]))? == SECRETS);
    ensure!(!yard.key_file().exists(), "a key of the environment was written to disk");
    Ok(())
}
