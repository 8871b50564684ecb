//! The folder that mails are written to instead of being sent (demo). Not here: reading the folder.

use super::markup::Markup;
use super::{Section, page};

/// One mail of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailLine {
    /// Its id in addresses.
    pub id: String,
    /// Its subject.
    pub subject: String,
    /// To whom.
    pub to: String,
    /// When.
    pub at_ms: i64,
}

/// A mail that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenMail {
    /// Its id; the HTML part is at `/mailbox/<id>/html`, under a policy of its own.
    pub id: String,
    /// Its subject.
    pub subject: String,
    /// From whom.
    pub from: String,
    /// To whom.
    pub to: String,
    /// When.
    pub at_ms: i64,
    /// The text part.
    pub text: String,
}

impl OpenMail {
    /// The text with each address that stands alone on its line as a link.
    fn linked(&self) -> Markup {
        let mut m = Markup::default();
        for line in self.text.lines() {
            let word = line.trim();
            if (word.starts_with("https://") || word.starts_with("http://")) && !word.contains(char::is_whitespace) {
                m.raw("<a href=\"");
                m.text(word);
                m.raw("\">");
                m.text(word);
                m.raw("</a>");
            } else {
                m.text(line);
            }
            m.raw("\n");
        }
        m
    }
}

/// The folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxView {
    /// The mails, newest first, bounded.
    pub mails: Vec<MailLine>,
    /// The one that is read.
    pub open: Option<OpenMail>,
}

impl MailboxView {
    fn is_open(&self, mail: &MailLine) -> bool {
        self.open.as_ref().is_some_and(|open| open.id == mail.id)
    }
}

page!(MailboxView, MailboxPage, "mailbox.html", Section::Mailbox, |_| Some(super::links::events(&["mailbox"])));
