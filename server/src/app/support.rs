//! The support bundle: what somebody who helps has to see of a server, in one file, and nothing that opens anything. It is
//! made of what is no secret to begin with (settings name files and not what is in them, the store's records of credentials
//! are not read), and then looked through for the values of all secrets that the server has. Names of services, people and
//! commits are in it.

use std::{fmt::Write as _, io};

use flate2::{Compression, write::GzEncoder};
use pipelines::{
    effect::PendingEffect,
    protocol::{GitAccess, Secret},
    train::Train,
};
use serde_json::json;

use super::{App, AppError, accounts::Caller};
use crate::{
    config::read_secret,
    store::{NewEntry, SecretScope},
};

/// The file's version.
const BUNDLE_VERSION: u32 = 1;
/// Lines of the journal that are in it.
const ENTRIES_MAX: usize = 500;
/// Pending effects that are in it.
const EFFECTS_MAX: usize = 2_000;
/// Services whose trains are in it.
const SERVICES_MAX: usize = 1_000;
/// What stands where a secret stood. There should never be one.
const HIDDEN: &str = "[secret]";
/// Shorter ones are not looked for: they would be found everywhere.
const SECRET_BYTES_MIN: usize = 4;

impl App {
    /// Makes the bundle, as the bytes of a tar.gz.
    ///
    /// # Errors
    /// When the store cannot be read, or does not take the line that says who made it.
    pub async fn support_bundle(&self, caller: &Caller) -> Result<Vec<u8>, AppError> {
        let (word, subject) = ("support_bundle_made", "server".to_owned());
        let entry = NewEntry::new(self.now(), caller.origin(), subject, word);
        self.store.journal_note(entry).await?;
        let mut files = vec![
            ("README.txt", README.to_owned()),
            ("bundle.json", self.about()),
            ("config.txt", without_logins(&format!("{:#?}\n", self.config))),
            ("metrics.txt", self.metrics_text().await?),
            ("log.txt", self.log_tail.get().map(|tail| tail.text()).unwrap_or_default()),
            ("health.json", self.health_text().await),
            ("effects.json", self.effects_text()),
            ("trains.json", self.trains_text()?),
            ("journal.jsonl", self.journal_text()?),
        ];
        let secrets = self.all_secrets()?;
        for (name, text) in &mut files {
            if secrets.iter().any(|secret| text.contains(secret.as_str())) {
                tracing::error!(
                    file = name,
                    "a secret was found in the support bundle and taken out; please report this"
                );
                *text = secrets.iter().fold(std::mem::take(text), |text, secret| text.replace(secret.as_str(), HIDDEN));
            }
        }
        packed(&files, self.now().0 / 1_000)
            .map_err(|error| AppError::Invalid(format!("the bundle was not packed: {error}")))
    }

    fn about(&self) -> String {
        let times = self.store.commit_times();
        pretty(&json!({
            "bundle_version": BUNDLE_VERSION,
            "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "made_at_ms": self.now().0,
            "instance": self.instance,
            "store": {
                "bytes": self.store.size_bytes().ok(),
                "refuses": self.refusing(),
                "flushes": times.commits,
                "changes": times.batches,
                "refused": times.refused,
                "flush_us": times.sum_us.checked_div(times.commits),
            },
        }))
    }

    async fn health_text(&self) -> String {
        let findings = self.health().await;
        let findings: Vec<_> = findings
            .iter()
            .map(|it| json!({"name": it.name, "state": it.verdict.word(), "evidence": it.evidence, "fix": it.fix}))
            .collect();
        pretty(&json!(findings))
    }

    /// Those with errors first, and of these the ones that wait longest.
    fn effects_text(&self) -> String {
        let mut pending: Vec<(String, PendingEffect)> = self.queue.all(usize::MAX);
        pending.sort_by_key(|(_, pending)| (pending.failures == 0, pending.asked_at));
        let all = pending.len();
        pending.truncate(EFFECTS_MAX);
        let listed: Vec<_> = pending
            .iter()
            .map(|(key, it)| {
                json!({"key": key, "asked_at_ms": it.asked_at.0, "failures": it.failures, "not_before_ms": it.not_before.0,
                    "last_error": it.last_error})
            })
            .collect();
        pretty(&json!({"all": all, "listed": listed}))
    }

    fn trains_text(&self) -> Result<String, AppError> {
        let mut trains: Vec<Train> = Vec::new();
        for service in self.store.services()?.into_iter().take(SERVICES_MAX) {
            trains.extend(self.store.train(&service.name)?);
        }
        Ok(pretty(&json!(trains)))
    }

    fn journal_text(&self) -> Result<String, AppError> {
        let mut text = String::new();
        for entry in self.journal(None, None, ENTRIES_MAX)?.iter().rev() {
            let _ = writeln!(text, "{}", json!(entry));
        }
        Ok(text)
    }

    /// The values of all secrets that the server has. One that does not open is passed over: a bundle is wanted most where
    /// something is broken, and what does not open here is nowhere in the clear.
    fn all_secrets(&self) -> Result<Vec<String>, AppError> {
        let registries = &self.config.registries;
        let smtp = self.config.mail.smtp.as_ref().and_then(|smtp| smtp.password_file.as_deref());
        let mut values: Vec<Secret> = smtp.and_then(|path| read_secret(path).ok()).into_iter().collect();
        for registry in [&registries.test, &registries.production] {
            values.extend(registry.access().ok().and_then(|access| access.login).map(|(_, password)| password));
        }
        let mut scopes = vec![SecretScope::Shared];
        for service in self.store.services()? {
            values.extend(self.service_hook_secret(&service.name).ok().flatten());
            match self.service_repository(&service).map(|repository| repository.credential) {
                Ok(GitAccess::Token { token: secret, .. } | GitAccess::SshKey { key: secret }) => values.push(secret),
                Ok(GitAccess::None) | Err(_) => {}
            }
            scopes.push(SecretScope::Service { service: service.name });
        }
        for scope in &scopes {
            values.extend(self.store.secrets(scope)?.iter().filter_map(|secret| self.secret_value(secret)));
        }
        // Of what has several lines each one counts: in JSON they do not stand as they were.
        let lines = values.iter().flat_map(|value| value.expose().lines()).map(|line| line.trim().to_owned());
        let mut texts: Vec<String> = lines.filter(|line| line.len() >= SECRET_BYTES_MIN).collect();
        // The longer first: one may be part of another.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        texts.dedup();
        Ok(texts)
    }
}

const README: &str = "Support bundle of a Windlass server. bundle.json: what it is. config.txt: its settings (of passwords and keys only the
names of their files). metrics.txt: what it counts. log.txt: the last lines of its log. health.json: how it found its
surroundings. effects.json: what it still has to do, what failed first. trains.json: what moves. journal.jsonl: the last
lines of the journal.

There are names of services, people and commits in it, and mail addresses. There is no password, key, token or link.
";

/// An address in the settings may have been written with user and password before the host.
fn without_logins(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after.find(['/', '"', ' ', '\n']).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(login) => {
                clean.push_str(HIDDEN);
                rest = &after[login..];
            }
            None => rest = after,
        }
    }
    clean + rest
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn packed(files: &[(&str, String)], now_s: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now_s);
        archive.append_data(&mut header, format!("windlass-support/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests;
