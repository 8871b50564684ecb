//! Which mails about an approval go out when their moment has come, into a folder.

use pipelines::plan::TestPlan;

use super::*;
use crate::{
    app::Role,
    mailbox::{self, FolderMail},
    testing::{Stage, TESTER, test_app},
};

const HOUR_MS: u64 = 3_600_000;
const LEE: &str = "lee@example.com";

/// Says what it is.
struct Words;

impl Words {
    fn letter(text: &str) -> Result<Letter, String> {
        Ok(Letter { subject: "about a release".into(), html: text.into(), text: text.into() })
    }
}

impl Letters for Words {
    fn approval(&self, facts: &Facts) -> Result<Letter, String> {
        Self::letter(&format!("asked {}", facts.url))
    }

    fn reminder(&self, _: &Facts, reminder: Reminder, is_deputy: bool) -> Result<Letter, String> {
        Self::letter(&format!("{} {is_deputy}", reminder.word()))
    }

    fn code(&self, _: &Facts, code: &str, _: u64) -> Result<Letter, String> {
        Self::letter(code)
    }
}

struct Office {
    stage: Stage,
    post: Post,
    folder: tempfile::TempDir,
    id: ReleaseId,
}

impl Office {
    /// A release that two testers must approve, one of whom was mailed.
    async fn open() -> Self {
        let stage = test_app();
        let testers = vec![TESTER.into(), LEE.into()];
        let id =
            stage.awaiting_of("shop", TestPlan { testers, approvals: 2, deputies: vec![], expires_ms: HOUR_MS }).await;
        let folder = tempfile::tempdir().unwrap();
        let mailer = Mailer::folder("windlass@example.com", folder.path()).unwrap();
        let office = Self { stage, post: Post { mailer, letters: Arc::new(Words) }, folder, id };
        office.first().await;
        office.taken(TESTER).await;
        office
    }

    /// The key of the first mail to somebody.
    fn key(&self, person: &str) -> String {
        let (release, tester) = (self.id.clone(), person.to_owned());
        Effect::SendApprovalMail { release, round: 1, tester, reminder: None }.key()
    }

    /// The mail server has taken the first mail to somebody.
    async fn taken(&self, person: &str) {
        let (app, key) = (&self.stage.app, self.key(person));
        let pending = app.queue().get(&key).unwrap();
        app.effect_outcome(&key, &pending, Outcome::done()).await.unwrap();
    }

    async fn first(&self) {
        send_approval_mail(&self.stage.app, &self.post, &self.id, 1, TESTER).await.unwrap();
    }

    async fn reminded(&self, person: &str, reminder: Reminder) {
        send_reminder(&self.stage.app, &self.post, &self.id, 1, person, reminder).await.unwrap();
    }

    fn mails(&self) -> Vec<FolderMail> {
        mailbox::list(self.folder.path()).unwrap()
    }

    fn of(&self, words: &str) -> usize {
        self.mails().iter().filter(|mail| mail.text.contains(words)).count()
    }
}

#[tokio::test]
async fn a_reminder_stands_in_the_thread_of_the_first_mail_and_has_one_id_however_often_it_is_sent() {
    let office = Office::open().await;
    for _ in 0..2 {
        office.reminded(TESTER, Reminder::HalfTime).await;
    }
    let mails = office.mails();
    let root = mails.iter().find(|mail| mail.text.contains("asked")).unwrap();
    let reminders: Vec<_> = mails.iter().filter(|mail| mail.text.contains("half_time false")).collect();
    assert!(!reminders.is_empty());
    for reminder in &reminders {
        assert_eq!(reminder.message_id, reminders[0].message_id);
        assert_ne!(reminder.message_id, root.message_id);
        let raw = std::fs::read_to_string(office.folder.path().join(&reminder.id)).unwrap();
        for header in ["In-Reply-To", "References"] {
            assert!(raw.contains(&format!("{header}: <{}>", root.message_id)), "{raw}");
        }
        assert!(raw.contains("Auto-Submitted: auto-generated") && raw.contains("List-Id: <shop."), "{raw}");
    }
}

#[tokio::test]
async fn nobody_is_reminded_who_has_approved_or_after_the_end() {
    let office = Office::open().await;
    office.stage.pass_ms(HOUR_MS - 1);
    office.reminded(TESTER, Reminder::LastCall).await;
    assert_eq!(office.of("last_call"), 1);
    office.stage.pass_ms(1);
    office.reminded(TESTER, Reminder::LastCall).await;
    assert_eq!(office.of("last_call"), 1, "the time is over, though the timer has not fired yet");

    let office = Office::open().await;
    let origin = office.stage.caller(Role::Tester).await.origin();
    let mut account = office.stage.caller(Role::Tester).await.account;
    account.email = TESTER.to_uppercase();
    let digest = office.stage.app.release(&office.id).unwrap().digest;
    let app = &office.stage.app;
    app.approval_decide_signed_in(&office.id, &account, digest, true, String::new(), origin).await.unwrap();
    let before = office.mails().len();
    office.reminded(TESTER, Reminder::HalfTime).await;
    office.first().await;
    assert_eq!(office.mails().len(), before, "whoever has approved is asked no more");
}

#[tokio::test]
async fn a_reminder_does_not_come_beside_a_first_mail_that_is_still_to_be_sent() {
    let office = Office::open().await;
    office.reminded(LEE, Reminder::HalfTime).await;
    assert_eq!(office.of("half_time"), 0, "the first mail says all that the reminder would");
    office.taken(LEE).await;
    office.reminded(LEE, Reminder::HalfTime).await;
    assert_eq!(office.of("half_time"), 1);
}
