//! Mails to testers: gathers what a letter says, has it written, sends it. What it looks like is given from outside
//! ([`Letters`]), because the pages share its words.

use std::sync::Arc;

use integrations::{
    mail::{Mail, Mailer, Protection, SmtpServer},
    outgoing::Outgoing,
};
use pipelines::{
    approval::{Approval, ApprovalState, CODE_LIFE_MS, Reminder},
    effect::Effect,
    ids::ReleaseId,
    release::Release,
    time::UnixMs,
};
use secrecy::SecretString;

use super::{DriverError, Performed, TryAgain};
use crate::{
    app::{App, addresses, trains::Outcome},
    config::{MailSettings, SmtpTls, read_secret},
    crash,
};

/// A letter, ready to be sent.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Subject.
    pub subject: String,
    /// HTML part.
    pub html: String,
    /// Text part.
    pub text: String,
}

/// What a letter about an approval may say.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `en` or `zh-CN`.
    pub language: String,
    /// Now.
    pub now: UnixMs,
    /// The release.
    pub release: Release,
    /// The approval.
    pub approval: Approval,
    /// The tester's own link.
    pub url: String,
    /// The address in the test environment.
    pub test_url: String,
    /// The release that is live now.
    pub live: Option<Release>,
    /// Steps of the run that passed.
    pub steps_passed: usize,
}

/// Writes letters.
pub trait Letters: Send + Sync {
    /// Asks a tester for a decision.
    ///
    /// # Errors
    /// In words, when it cannot be written.
    fn approval(&self, facts: &Facts) -> Result<Letter, String>;
    /// Reminds somebody who has not decided, or asks a deputy.
    ///
    /// # Errors
    /// In words, when it cannot be written.
    fn reminder(&self, facts: &Facts, reminder: Reminder, is_deputy: bool) -> Result<Letter, String>;
    /// Gives a tester their code.
    ///
    /// # Errors
    /// In words, when it cannot be written.
    fn code(&self, facts: &Facts, code: &str, life_ms: u64) -> Result<Letter, String>;
}

/// The mailer that the settings describe.
///
/// # Errors
/// When a setting is not good or a file cannot be read.
pub fn mailer(settings: &MailSettings, outgoing: Outgoing) -> Result<Mailer, DriverError> {
    if let Some(folder) = &settings.folder {
        return Mailer::folder(&settings.from, folder).map_err(DriverError::Mail);
    }
    let Some(smtp) = &settings.smtp else {
        return Err(DriverError::Mail(integrations::mail::MailError::Settings("neither smtp nor folder".into())));
    };
    let password = smtp.password_file.as_deref().map(read_secret).transpose()?.unwrap_or_default();
    let ca_pem = match &smtp.ca_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|source| crate::config::ConfigError::Read { path: path.clone(), source })?,
        ),
        None => None,
    };
    let server = SmtpServer {
        host: smtp.host.clone(),
        port: smtp.port,
        protection: match smtp.tls {
            SmtpTls::Starttls => Protection::Starttls,
            SmtpTls::Tls => Protection::Tls,
            SmtpTls::None => Protection::None,
        },
        login: smtp.user.clone().map(|user| (user, SecretString::from(password.expose()))),
        ca_pem,
        timeout_ms: smtp.timeout_ms,
        outgoing,
    };
    Mailer::smtp(&settings.from, server).map_err(DriverError::Mail)
}

/// What the mail drivers need.
#[derive(Clone)]
pub struct Post {
    /// Sends.
    pub mailer: Mailer,
    /// Writes.
    pub letters: Arc<dyn Letters>,
}

fn facts(app: &App, release: Release, approval: Approval, tester: &str) -> Result<Facts, TryAgain> {
    let service = &release.id.service;
    let live = app.train(service)?.live.map(|number| app.release(&ReleaseId::new(service.clone(), number)));
    let run = app.run(&release.id.run())?;
    let passed = |outcome: &pipelines::protocol::StepOutcome| *outcome == pipelines::protocol::StepOutcome::Passed;
    Ok(Facts {
        language: app.config.mail.language.clone(),
        now: app.now(),
        url: app.approval_url(&approval, tester),
        test_url: app.config.gateway.address(&addresses::test_host(&app.config.gateway, service)),
        live: live.transpose()?,
        steps_passed: run.steps.iter().filter(|step| step.outcome.as_ref().is_some_and(passed)).count(),
        release,
        approval,
    })
}

/// The approval, if it still waits for a decision in this round.
fn open_approval(app: &App, id: &ReleaseId, round: u32) -> Result<Option<Approval>, TryAgain> {
    let approval = app.approval(id)?;
    Ok((approval.round == round && approval.state == ApprovalState::Open).then_some(approval))
}

pub(super) async fn send_approval_mail(app: &App, post: &Post, id: &ReleaseId, round: u32, tester: &str) -> Performed {
    let Some(approval) = open_approval(app, id, round)? else { return Ok(Outcome::done()) };
    // They signed in before the mail server took the mail.
    if approval.has_approved("", tester) {
        return Ok(Outcome::done());
    }
    let facts = facts(app, app.release(id)?, approval, tester)?;
    let letter = post.letters.approval(&facts).map_err(TryAgain)?;
    let mail_id = app.keys().message_id(id, round, tester, "approval");
    // Asked again, the mail stands in the thread of the first time.
    let root = (round > 1).then(|| root_of(app, id, tester));
    send(app, post, Out { id, to: tester, mail_id, in_reply_to: root, kind: "approval" }, letter).await
}

/// The first mail about a release to one person: all later ones refer to it, so that mail programs show one thread.
fn root_of(app: &App, id: &ReleaseId, person: &str) -> String {
    app.keys().message_id(id, 1, person, "approval")
}

pub(super) async fn send_reminder(
    app: &App,
    post: &Post,
    id: &ReleaseId,
    round: u32,
    person: &str,
    reminder: Reminder,
) -> Performed {
    let Some(approval) = open_approval(app, id, round)? else { return Ok(Outcome::done()) };
    // Looked at again here: somebody may have decided or begun to test since the moment came.
    let is_wanted = app.now() < approval.expires_at && approval.recipients(reminder).iter().any(|one| one == person);
    let (release, tester) = (id.clone(), person.to_owned());
    let first = Effect::SendApprovalMail { release, round, tester, reminder: None };
    // Where the mail server has not taken the first mail yet, that one says all that a reminder would.
    if !is_wanted || app.queue().get(&first.key()).is_some() {
        return Ok(Outcome::done());
    }
    let is_deputy = approval.is_deputy(person);
    let facts = facts(app, app.release(id)?, approval, person)?;
    let letter = post.letters.reminder(&facts, reminder, is_deputy).map_err(TryAgain)?;
    let mail_id = app.keys().message_id(id, round, person, reminder.word());
    let in_reply_to = Some(root_of(app, id, person));
    send(app, post, Out { id, to: person, mail_id, in_reply_to, kind: "reminder" }, letter).await
}

pub(super) async fn send_code_mail(
    app: &App,
    post: &Post,
    id: &ReleaseId,
    round: u32,
    tester: &str,
    serial: u32,
) -> Performed {
    let Some(approval) = open_approval(app, id, round)? else { return Ok(Outcome::done()) };
    // A newer code was asked for: this one no longer opens anything.
    if approval.link(tester).code_serial != serial {
        return Ok(Outcome::done());
    }
    let code = app.keys().approval_code(&approval, tester, serial);
    let facts = facts(app, app.release(id)?, approval, tester)?;
    let letter = post.letters.code(&facts, &code, CODE_LIFE_MS).map_err(TryAgain)?;
    let in_reply_to = Some(root_of(app, id, tester));
    let mail_id = app.keys().message_id(id, round, tester, &format!("code {serial}"));
    send(app, post, Out { id, to: tester, mail_id, in_reply_to, kind: "code" }, letter).await
}

/// Where a letter goes.
struct Out<'a> {
    id: &'a ReleaseId,
    to: &'a str,
    mail_id: String,
    in_reply_to: Option<String>,
    kind: &'static str,
}

async fn send(app: &App, post: &Post, out: Out<'_>, letter: Letter) -> Performed {
    let Out { id, to, mail_id, in_reply_to, kind } = out;
    let mail_id = if crash::without("mail-id") { format!("{mail_id}.{}", rand::random::<u64>()) } else { mail_id };
    let began = app.now();
    let mail = Mail {
        id: mail_id,
        in_reply_to,
        list: id.service.to_string(),
        to: to.to_owned(),
        subject: letter.subject,
        html: letter.html,
        text: letter.text,
    };
    // Also what a mail server refuses for good is tried again: a person may mend the address or the server, and until
    // then the page says what it said.
    post.mailer.send(&mail).await.map_err(|error| TryAgain::from_error(&error))?;
    app.trace_mail(id, kind, &mail.id, began);
    Ok(Outcome::done())
}

#[cfg(test)]
mod tests;
