//! A release that waits for its testers, and what one of them was mailed about it.

use anyhow::{Result, ensure};
use pipelines::{
    ids::{ReleaseId, ServiceName},
    release::ReleaseState,
};
use reqwest::StatusCode;

use crate::{
    attacks::Attacker,
    stage::{People, TESTERS},
};

/// Whom most attacks are about.
pub(crate) const QA: &str = TESTERS[0];
/// Longer than codes are counted together.
pub(crate) const CODES_WINDOW_MS: u64 = 10 * 60_000;

/// A release that waits, and what one person was mailed about it.
pub(crate) struct Target {
    pub(crate) release: ReleaseId,
    pub(crate) person: String,
    pub(crate) link: String,
    pub(crate) digest: String,
    pub(crate) csrf: String,
}

impl Target {
    /// A new release of the service, as QA was mailed about it.
    pub(crate) async fn of(attacker: &Attacker<'_>, service: &ServiceName) -> Result<Self> {
        let release = attacker.stage.awaiting(service).await?;
        Self::mailed(attacker, &release, QA).await
    }

    /// A new release of the service for these people, as the first of them was mailed about it.
    pub(crate) async fn for_people(attacker: &Attacker<'_>, service: &ServiceName, people: &People) -> Result<Self> {
        let release = attacker.stage.awaiting_of(service, people).await?;
        Self::mailed(attacker, &release, &people.testers[0]).await
    }

    /// A release, as this person was mailed about it.
    pub(crate) async fn mailed(attacker: &Attacker<'_>, release: &ReleaseId, person: &str) -> Result<Self> {
        let link = attacker.stage.link(release, person).await?;
        let csrf = attacker.form_token(&link).await?;
        let digest = attacker.stage.app.release(release)?.digest.to_string();
        Ok(Self { release: release.clone(), person: person.to_owned(), link, digest, csrf })
    }

    pub(crate) fn verb(&self, verb: &str) -> String {
        format!("{}/{verb}", self.link)
    }

    pub(crate) fn decide(&self) -> String {
        self.verb("decide")
    }

    pub(crate) fn approve<'a>(&'a self, code: &'a str) -> [(&'a str, &'a str); 4] {
        [("_csrf", self.csrf.as_str()), ("digest", self.digest.as_str()), ("decision", "approve"), ("code", code)]
    }

    /// Presses a button that has no fields.
    pub(crate) async fn press(&self, attacker: &Attacker<'_>, verb: &str) -> Result<StatusCode> {
        attacker.post(&self.verb(verb), &[("_csrf", &self.csrf)]).await
    }

    /// Asks for a code and reads it out of the mail.
    pub(crate) async fn code(&self, attacker: &Attacker<'_>) -> Result<String> {
        attacker.stage.pass_ms(CODES_WINDOW_MS);
        let status = self.press(attacker, "code").await?;
        ensure!(status == StatusCode::SEE_OTHER, "asking for a code was answered {status}");
        attacker.stage.code(&self.release, &self.person).await
    }

    /// Approves as the person does: a code is asked for, read and sent.
    pub(crate) async fn approves(&self, attacker: &Attacker<'_>) -> Result<StatusCode> {
        let code = self.code(attacker).await?;
        attacker.post(&self.decide(), &self.approve(&code)).await
    }

    pub(crate) fn waits(&self, attacker: &Attacker<'_>) -> Result<()> {
        let state = attacker.stage.app.release(&self.release)?.state;
        ensure!(state == ReleaseState::AwaitingApproval, "{} is {state:?}", self.release);
        Ok(())
    }

    /// It waits, and this many people have approved.
    pub(crate) fn has(&self, attacker: &Attacker<'_>, have: u32) -> Result<()> {
        let found = attacker.stage.app.approval(&self.release)?.have();
        ensure!(found == have, "{} has {found} approvals, {have} people gave one", self.release);
        self.waits(attacker)
    }
}

pub(crate) fn token_of(link: &str) -> &str {
    link.rsplit('/').next().unwrap_or_default()
}

/// Nothing of it was done.
pub(crate) fn none_passed(statuses: &[StatusCode]) -> Result<()> {
    let passed = statuses.iter().find(|status| !status.is_client_error());
    ensure!(passed.is_none(), "one was answered {passed:?}");
    Ok(())
}
