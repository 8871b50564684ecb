//! Several testers, reminders, deputies and the end of their time, with the mails and timers that follow.

use super::*;
use crate::approval::Reminder;

const LEE: &str = "lee@example.com";
const SUB: &str = "sub@example.com";
const TIMER: &str = "remind-testers/shop/1/1";

/// A release that waits: two of three testers must approve, one of whom wrote the commit, and a deputy stands in.
fn waiting() -> Line {
    let mut line = Line::new();
    let first = line.push();
    let test = &mut line.releases.get_mut(&first).unwrap().plan.test;
    test.testers.push(LEE.into());
    (test.approvals, test.deputies) = (2, vec![SUB.into()]);
    line.tested(first);
    line
}

fn mail(person: &str, reminder: Reminder) -> String {
    format!("send-approval-mail/shop/1/1/{person}/{}", reminder.word())
}

impl Line {
    fn at_percent(&mut self, percent: u64) {
        self.now = UnixMs(1_000 + HOUR_MS * percent / 100);
    }

    /// The timer fires.
    fn reminded(&mut self, percent: u64) {
        self.at_percent(percent);
        self.done(TIMER);
        self.on(approval(1, ApprovalEvent::ReminderDue { round: 1 }));
    }

    fn says(&mut self, name: &str, email: &str, approve: bool) {
        let actor = Actor::Account { name: name.into(), email: email.into() };
        let event = ApprovalEvent::Decided { actor, digest: digest(1), approve, comment: "so be it".into() };
        self.on(approval(1, event));
    }

    fn reminders(&self) -> Vec<&str> {
        let is_reminder = |key: &&str| key.starts_with("send-approval-mail/") && key.matches('/').count() == 5;
        self.keys().into_iter().filter(is_reminder).collect()
    }

    fn due_percent(&self) -> Option<u64> {
        self.pending.get(TIMER).map(|timer| timer.due_at().since_ms(UnixMs(1_000)) * 100 / HOUR_MS)
    }
}

#[test]
fn a_release_is_promoted_by_the_last_of_the_approvals_that_it_needs() {
    let mut line = waiting();
    line.says("quinn", QA, true);
    assert_eq!((line.word(1), line.is_pending("promote/shop/1")), ("awaiting_approval", false));
    line.says("lee", LEE, true);
    assert_eq!(line.word(1), "promoting");
    assert_eq!(line.keys(), ["promote/shop/1"], "nobody is mailed any more");
    assert_eq!(line.releases[&1].approved, Some((line.now, "quinn, lee".into())));
}

#[test]
fn one_no_ends_what_others_have_approved() {
    let mut line = waiting();
    line.says("quinn", QA, true);
    line.says("lee", LEE, false);
    assert_eq!((line.word(1), line.keys().len()), ("rejected", 0));
}

#[test]
fn each_reminder_is_mailed_at_its_moment_and_asks_for_the_next() {
    let mut line = waiting();
    assert_eq!((line.due_percent(), line.reminders().len()), (Some(50), 0));
    line.reminded(50);
    assert_eq!(line.reminders(), [mail(LEE, Reminder::HalfTime), mail(QA, Reminder::HalfTime)]);
    assert_eq!(line.due_percent(), Some(75));
    // The mail server was away: what is not sent by the next moment is not sent.
    line.reminded(75);
    assert_eq!(line.reminders(), [mail(SUB, Reminder::Deputies)]);
    line.says("quinn", QA, true);
    line.reminded(90);
    assert_eq!(line.reminders(), [mail(LEE, Reminder::LastCall), mail(SUB, Reminder::LastCall)]);
    assert_eq!(line.due_percent(), None);
    line.at_percent(100);
    line.on(approval(1, ApprovalEvent::Expired { round: 1 }));
    assert_eq!((line.word(1), line.keys().len()), ("expired", 0));
}

#[test]
fn after_a_jump_of_the_clock_only_the_newest_reminder_is_mailed() {
    let mut line = waiting();
    line.reminded(95);
    let last = |person| mail(person, Reminder::LastCall);
    assert_eq!(line.reminders(), [last(LEE), last(QA), last(SUB)]);
    assert_eq!(line.due_percent(), None);
}

#[test]
fn a_server_that_was_off_over_the_end_reminds_nobody() {
    let mut line = waiting();
    line.reminded(100);
    assert_eq!((line.word(1), line.keys().len()), ("expired", 0));
}

#[test]
fn a_reminder_that_fires_early_is_set_again() {
    let mut line = waiting();
    line.now = UnixMs(0);
    line.done(TIMER);
    line.on(approval(1, ApprovalEvent::ReminderDue { round: 1 }));
    assert_eq!((line.due_percent(), line.reminders().len()), (Some(50), 0));
    // Also where the end was looked at too early, and the reminder before.
    line.done(TIMER);
    line.on(approval(1, ApprovalEvent::Expired { round: 1 }));
    assert_eq!(line.due_percent(), Some(50));
}

#[test]
fn deputies_whose_moment_came_during_a_claim_are_asked_when_it_is_given_back() {
    let mut line = waiting();
    line.says("boss", "boss@example.com", true);
    line.on(claim(1));
    line.reminded(80);
    assert_eq!(line.reminders(), [""; 0]);
    line.on(unclaim(1));
    assert_eq!(line.reminders(), [mail(SUB, Reminder::Deputies)]);
}

#[test]
fn a_release_that_takes_its_place_ends_its_reminders() {
    let mut line = waiting();
    line.reminded(75);
    line.push();
    assert_eq!((line.word(1), line.keys()), ("superseded", vec!["deploy-test/shop/2"]));
}
