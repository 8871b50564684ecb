//! Sample values of every page and mail, for the tests and for looking at (`WINDLASS_UI_DIR`). All of it is invented.

mod mails;
mod releases;
mod runs;
mod services;

use jiff::tz::{Offset, TimeZone};

use super::mail::{Mail, MailContext};
use super::text::{Clock, Lang};
use super::train::{Station, StationState, Train, Word};
use super::{PageContext, RenderError, Role, Theme, UserBadge};

pub(super) use mails::{approval_mail, code_mail, reminder_mail};
pub(super) use releases::{approval, board, board_of, needs_you, rollout};
pub(super) use runs::run;

/// Thu 27 Aug 2026, 10:20 at UTC+8.
pub(super) const NOW: i64 = 1_787_797_200_000;
pub(super) const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
/// When the approval of build 412 ends.
pub(super) const UNTIL: i64 = NOW + 3 * DAY - 47 * MINUTE;
pub(super) const DIGEST: &str = "sha256:9f2c41d07be6a85512c0e3f9b4d87a6610fe2a93c7d5148be0a6f31927d4c85e";
/// Commit text as a hostile committer would write it.
pub(super) const HOSTILE: &str = "</bdi><script>alert(1)</script> \"' onload=x \u{202e}fdp.exe & {{ 7*7 }}";

pub(super) fn clock() -> Clock {
    Clock { now_ms: NOW, zone: TimeZone::fixed(Offset::constant(8)) }
}

pub(super) fn context(lang: Lang) -> PageContext {
    PageContext {
        lang,
        theme: Theme::System,
        clock: clock(),
        user: Some(UserBadge { name: String::from("tester-lw"), roles: vec![Role::Tester, Role::ReleaseManager] }),
        csrf: String::from("3c2f\"<sample>"),
        needs_you: 2,
        path: String::from("/"),
        base_url: String::from("https://windlass.example.com"),
        shows_secrets: true,
        shows_accounts: true,
        shows_audit: true,
        shows_mailbox: true,
        no_room: None,
    }
}

pub(super) fn visitor(lang: Lang) -> PageContext {
    PageContext { user: None, needs_you: 0, ..context(lang) }
}

pub(super) fn mail_context(lang: Lang) -> MailContext {
    MailContext { lang, clock: clock() }
}

/// Stations that are done, from the first: a word and an age each.
pub(super) fn train(done: &[i64], now: Option<(StationState, Word, i64)>, live: Station) -> Train {
    const WORDS: [Word; 7] =
        [Word::Pushed, Word::Built, Word::Stored, Word::Healthy, Word::Approved, Word::Promoted, Word::RolledOut];
    let mut train = Train::waiting(live.to("/services/checkout"));
    for (i, (age, word)) in done.iter().zip(WORDS).enumerate() {
        train.stations[i] = Station::at(StationState::Done, word, NOW - age).to("/services/checkout/runs/412");
    }
    if let Some((state, word, age)) = now {
        train.stations[done.len()] = Station::at(state, word, NOW - age).to("/approvals/k7Qm2x");
    }
    train
}

pub(super) fn still(version: &str, age: i64) -> Station {
    Station::at(StationState::Old, Word::Still { version: String::from(version) }, NOW - age)
}

pub(super) fn s(text: &str) -> String {
    String::from(text)
}

type Written = Result<String, RenderError>;

/// Every page in every state, by name; the visitor's pages as a visitor sees them.
pub(super) fn pages(lang: Lang) -> Vec<(String, Written)> {
    let ctx = context(lang);
    let visitor = visitor(lang);
    let mut pages = vec![
        (s("board"), board().render(&ctx)),
        (s("empty"), releases::first_steps().render(&ctx)),
        (s("needs-you"), needs_you().render(&ctx)),
        (s("run"), run().render(&ctx)),
        (s("service"), services::service().render(&ctx)),
        (s("services"), services::services().render(&ctx)),
        (s("service-new"), services::form_with_problems().render(&ctx)),
        (s("registered"), services::registered().render(&ctx)),
        (s("sign-in"), services::sign_in().render(&visitor)),
        (s("runners"), runs::runners().render(&ctx)),
        (s("accounts"), services::accounts().render(&ctx)),
        (s("secrets"), services::secrets().render(&ctx)),
        (s("secrets-shared"), services::shared_secrets().render(&ctx)),
        (s("audit"), services::audit().render(&ctx)),
        (s("audit-empty"), services::audit_empty().render(&ctx)),
        (s("me"), services::me().render(&ctx)),
        (s("mailbox"), mails::mailbox(lang).render(&ctx)),
        (s("search"), services::search().render(&ctx)),
        (s("load"), services::load().render(&ctx)),
        (s("error"), services::error().render(&ctx)),
    ];
    for (name, view) in runs::other_states() {
        pages.push((format!("run-{name}"), view.render(&ctx)));
    }
    for (name, view) in releases::approval_states() {
        pages.push((format!("approval-{name}"), view.render(&visitor)));
    }
    for (name, view) in releases::rollout_states() {
        pages.push((format!("rollout-{name}"), view.render(&ctx)));
    }
    pages
}

/// Every mail, by name.
pub(super) fn mails(lang: Lang) -> Vec<(String, Result<Mail, RenderError>)> {
    use super::mail::Reminder;
    let ctx = mail_context(lang);
    let mut mails = vec![(s("approval"), approval_mail().render(&ctx)), (s("code"), code_mail().render(&ctx))];
    for (name, reminder) in
        [("half-time", Reminder::HalfTime), ("deputy", Reminder::Deputy), ("last-call", Reminder::LastCall)]
    {
        mails.push((format!("reminder-{name}"), reminder_mail(reminder).render(&ctx)));
    }
    mails
}
