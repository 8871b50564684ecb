//! Samples of the mails and of the folder that they are written to.

use super::super::mail::{ApprovalMail, Asked, CodeMail, Reminder, ReminderMail};
use super::super::mailbox::{MailLine, MailboxView, OpenMail};
use super::super::text::Lang;
use super::releases::{commits, plan};
use super::{DAY, DIGEST, HOUR, MINUTE, NOW, UNTIL, mail_context, s};

fn asked() -> Asked {
    Asked {
        service: s("checkout"),
        build: 412,
        commit: s("a1b2c3d"),
        version: s("4.8.0"),
        url: s("https://windlass.example.com/a/k7Qm2x"),
        until_ms: UNTIL,
    }
}

pub(in super::super) fn approval_mail() -> ApprovalMail {
    ApprovalMail {
        asked: asked(),
        pushed_by: s("dev-cy"),
        needed: 1,
        test_url: s("https://checkout.test.example.com/"),
        healthy_at_ms: NOW - 47 * MINUTE,
        how_to_test: vec![
            s("Put two things into the basket, sign in, and look at the delivery date."),
            s("The coupon must still be there after you sign in."),
            s("Order with the card 4242, as usual in test."),
        ],
        live_version: Some(s("4.7.1")),
        commits: commits(),
        more_commits: 0,
        steps_passed: 3,
        digest: s(DIGEST),
        open_for_ms: 3 * DAY,
        plan: plan(),
    }
}

pub(in super::super) fn reminder_mail(reminder: Reminder) -> ReminderMail {
    let is_last = reminder == Reminder::LastCall;
    ReminderMail {
        asked: asked(),
        reminder,
        is_deputy: reminder == Reminder::Deputy,
        test_url: s("https://checkout.test.example.com/"),
        claimed_by: is_last.then(|| s("tester-zm")),
        approved_by: if is_last { vec![s("tester-lw")] } else { Vec::new() },
        needed: if is_last { 2 } else { 1 },
    }
}

pub(in super::super) fn code_mail() -> CodeMail {
    CodeMail { asked: asked(), code: s("402913"), valid_ms: 10 * MINUTE }
}

pub(super) fn mailbox(lang: Lang) -> MailboxView {
    let text = approval_mail().render(&mail_context(lang)).map(|mail| mail.text).unwrap_or_default();
    let line = |id: &str, subject: &str, age| MailLine {
        id: s(id),
        subject: s(subject),
        to: s("tester-lw@example.com"),
        at_ms: NOW - age,
    };
    MailboxView {
        mails: vec![
            line("m3", "[checkout] Your code for build 412 (a1b2c3d)", MINUTE),
            line("m2", "[checkout] Please test build 412 (a1b2c3d)", 47 * MINUTE),
            line("m1", "[payments] Please test build 877 (b7d20c4)", 5 * HOUR),
        ],
        open: Some(OpenMail {
            id: s("m2"),
            subject: s("[checkout] Please test build 412 (a1b2c3d)"),
            from: s("Windlass <windlass@example.com>"),
            to: s("tester-lw@example.com"),
            at_ms: NOW - 47 * MINUTE,
            text,
        }),
    }
}
