//! The audit log: who changed what, from where, by which way. Everything in it is data that somebody may have chosen.

use pipelines::journal::Channel;

use super::markup::icon;
use super::text::Text;
use super::{Section, links, page};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// Its place.
    pub seq: u64,
    /// When.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// By which way.
    pub by: Channel,
    /// From which address; may be empty.
    pub place: String,
    /// What proved who it was; may be empty.
    pub proof: String,
    /// What happened.
    pub word: String,
    /// What it is about.
    pub subject: String,
    /// Of which service.
    pub service: Option<String>,
    /// What was; may be empty.
    pub before: String,
    /// What is; may be empty.
    pub after: String,
    /// More; may be empty.
    pub detail: String,
}

impl AuditLine {
    fn service_href(&self) -> Option<String> {
        self.service.as_deref().map(links::service)
    }

    fn has_change(&self) -> bool {
        !(self.before.is_empty() && self.after.is_empty())
    }
}

/// When the chain was last walked along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheckLine {
    /// When.
    pub at_ms: i64,
    /// The first thing that does not fit: data.
    pub problem: Option<String>,
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditView {
    /// The entries, newest first.
    pub entries: Vec<AuditLine>,
    /// The page of older ones.
    pub older: Option<String>,
    /// The first page, where this is another one.
    pub newest: Option<String>,
    /// The same as CSV.
    pub csv: String,
    /// How many entries were looked at.
    pub looked_at: u64,
    /// The form's fields as they were typed.
    pub who: String,
    /// So.
    pub what: String,
    /// So.
    pub service: String,
    /// So.
    pub channel: Option<Channel>,
    /// So.
    pub from: String,
    /// So.
    pub until: String,
    /// Why the filter cannot be used: data, as the API says it.
    pub problem: Option<String>,
    /// Only what is about services is shown to this person.
    pub only_services: bool,
    /// Where the chain is.
    pub mark: String,
    /// What the last walk along it found.
    pub checked: Option<AuditCheckLine>,
}

impl AuditView {
    /// Whether something is typed into the form, well or not.
    fn is_filtered(&self) -> bool {
        let fields = [&self.who, &self.what, &self.service, &self.from, &self.until];
        fields.iter().any(|field| !field.is_empty()) || self.channel.is_some() || self.problem.is_some()
    }

    fn ways(&self, t: &Text<'_>) -> Vec<(&'static str, &'static str, bool)> {
        Channel::ALL.into_iter().map(|way| (way.word(), t.by_way(&way), self.channel == Some(way))).collect()
    }
}

page!(AuditView, AuditPage, "audit.html", Section::Audit, |_| None);
