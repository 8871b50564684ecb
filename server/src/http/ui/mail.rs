//! The mails: to a tester who is asked, the code that proves who decides, the reminders. HTML with inline style and no
//! image, and plain text, in the tester's language. Not here: addresses, Message-IDs, sending.

use super::RenderError;
use super::approval::{Commit, Plan};
use super::text::{Clock, Lang, Text};

/// What every mail needs besides its own data.
#[derive(Debug, Clone)]
pub struct MailContext {
    /// The reader's language.
    pub lang: Lang,
    /// Now, and the zone of every time in the mail.
    pub clock: Clock,
}

/// A mail, ready to be put into an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The subject.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The text part.
    pub text: String,
}

/// What the mails about one approval have in common; the subject is made of these alone and so stays the same for the
/// life of the approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The service.
    pub service: String,
    /// The build.
    pub build: u64,
    /// The commit, abbreviated.
    pub commit: String,
    /// The version.
    pub version: String,
    /// The approval page, with the reader's own link.
    pub url: String,
    /// When the approval expires.
    pub until_ms: i64,
}

/// Asks a tester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalMail {
    /// The approval.
    pub asked: Asked,
    /// Who pushed it.
    pub pushed_by: String,
    /// How many testers must approve.
    pub needed: u32,
    /// The test environment's address.
    pub test_url: String,
    /// When it was found healthy.
    pub healthy_at_ms: i64,
    /// How to test it, from the pipeline file: data.
    pub how_to_test: Vec<String>,
    /// The version that is live; none before the first.
    pub live_version: Option<String>,
    /// What changed, ten at most.
    pub commits: Vec<Commit>,
    /// How many more commits changed.
    pub more_commits: u64,
    /// How many steps of the run passed.
    pub steps_passed: u64,
    /// The digest that is decided on.
    pub digest: String,
    /// How long the approval is open.
    pub open_for_ms: i64,
    /// How it goes to production.
    pub plan: Plan,
}

/// Why a reminder is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the reason that it names")]
pub enum Reminder {
    HalfTime,
    Deputy,
    LastCall,
}

/// Reminds a tester, or asks a deputy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReminderMail {
    /// The approval.
    pub asked: Asked,
    /// Why.
    pub reminder: Reminder,
    /// It goes to a deputy.
    pub is_deputy: bool,
    /// The test environment's address.
    pub test_url: String,
    /// Who has claimed it.
    pub claimed_by: Option<String>,
    /// Who has approved it.
    pub approved_by: Vec<String>,
    /// How many must approve.
    pub needed: u32,
}

/// Gives a tester the code that proves who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeMail {
    /// The approval.
    pub asked: Asked,
    /// The six digits.
    pub code: String,
    /// How long it is good.
    pub valid_ms: i64,
}

macro_rules! mail {
    ($view:ident, $html:ident, $html_path:tt, $text:ident, $text_path:tt, $subject:ident) => {
        #[derive(askama::Template)]
        #[template(path = $html_path)]
        struct $html<'a> {
            t: Text<'a>,
            v: &'a $view,
            subject: &'a str,
        }

        #[derive(askama::Template)]
        #[template(path = $text_path, escape = "none", whitespace = "preserve")]
        struct $text<'a> {
            t: Text<'a>,
            v: &'a $view,
        }

        impl $view {
            /// Writes the mail.
            ///
            /// # Errors
            /// Where a template fails to write, which it does only when memory ends.
            pub fn render(&self, ctx: &MailContext) -> Result<Mail, RenderError> {
                let t = Text::new(ctx.lang, &ctx.clock);
                let subject = header_text(&t.$subject(&self.asked));
                Ok(Mail {
                    html: askama::Template::render(&$html { t, v: self, subject: &subject })?,
                    text: askama::Template::render(&$text { t, v: self })?,
                    subject,
                })
            }
        }
    };
}

/// A subject is one line: what could end it is left out.
fn header_text(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Data within the text part: one line of it stays one line.
fn line(text: impl AsRef<str>) -> String {
    text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

mail!(ApprovalMail, ApprovalHtml, "mail/approval.html", ApprovalText, "mail/approval.txt", approval_subject);
mail!(ReminderMail, ReminderHtml, "mail/reminder.html", ReminderText, "mail/reminder.txt", approval_subject);
mail!(CodeMail, CodeHtml, "mail/code.html", CodeText, "mail/code.txt", code_subject);
