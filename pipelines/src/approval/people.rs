//! The people of an approval: who is asked, who has not decided yet, who is reminded when. One person counts once,
//! whether they come by their link or signed in: they are known by their mail address.
//! Not here: what they may do (the transition).

use serde::{Deserialize, Serialize};

use super::{Approval, ApprovalState, Claim, Decision, Proof};
use crate::time::UnixMs;

/// A moment of an approval at which people are mailed once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reminder {
    /// Those who have not decided are reminded.
    HalfTime,
    /// The deputies are asked.
    Deputies,
    /// Testers and deputies are told that the time is nearly over.
    LastCall,
}

impl Reminder {
    /// All of them, in the order in which they come.
    pub const ALL: [Self; 3] = [Self::HalfTime, Self::Deputies, Self::LastCall];

    /// The word for it in keys and API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::HalfTime => "half_time",
            Self::Deputies => "deputies",
            Self::LastCall => "last_call",
        }
    }

    /// How much of the time has passed when it comes, in percent.
    #[must_use]
    pub fn percent(self) -> u64 {
        match self {
            Self::HalfTime => 50,
            Self::Deputies => 75,
            Self::LastCall => 90,
        }
    }
}

/// Whether two mail addresses are one person's, whatever the case of the letters.
fn is_same(one: &str, other: &str) -> bool {
    !one.is_empty() && one.eq_ignore_ascii_case(other)
}

impl Decision {
    /// Whether it is that of the person with this account name or mail address.
    #[must_use]
    pub fn is_by(&self, name: &str, email: &str) -> bool {
        // Records from before addresses were kept: a mailed code was given under the address itself.
        let own = if self.email.is_empty() && self.proof == Proof::MailedCode { &self.by } else { &self.email };
        is_same(own, email) || (self.proof == Proof::SignedIn && self.by == name)
    }
}

impl Approval {
    /// How many approvals are still missing.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.needed.max(1).saturating_sub(self.have())
    }

    /// How many people have approved in this round.
    #[must_use]
    pub fn have(&self) -> u32 {
        u32::try_from(self.approved_by.len()).unwrap_or(u32::MAX)
    }

    /// Whether this address is a tester's.
    #[must_use]
    pub fn is_tester(&self, email: &str) -> bool {
        self.testers.iter().any(|tester| is_same(tester, email))
    }

    /// Whether this address is a deputy's.
    #[must_use]
    pub fn is_deputy(&self, email: &str) -> bool {
        self.deputies.iter().any(|deputy| is_same(deputy, email))
    }

    /// Who has been asked by now: the testers, and the deputies from their moment on.
    pub fn asked(&self) -> impl Iterator<Item = &String> {
        let deputies = if self.deputies_asked_at.is_some() { self.deputies.as_slice() } else { &[] };
        self.testers.iter().chain(deputies)
    }

    /// Whether this address has been asked by now, and so may decide by its link.
    #[must_use]
    pub fn is_asked(&self, email: &str) -> bool {
        self.asked().any(|asked| is_same(asked, email))
    }

    /// Whether whoever has this address may not approve, because they wrote the commit.
    #[must_use]
    pub fn is_barred(&self, email: &str) -> bool {
        !self.allow_self_approval && is_same(&self.author_email, email)
    }

    /// Whether whoever has this account name or mail address has approved in this round.
    #[must_use]
    pub fn has_approved(&self, name: &str, email: &str) -> bool {
        self.approved_by.iter().any(|decision| decision.is_by(name, email))
    }

    /// Those of the asked who may approve and have not.
    #[must_use]
    pub fn undecided(&self) -> Vec<String> {
        let waits = |email: &&String| !self.is_barred(email) && !self.has_approved("", email);
        self.asked().filter(waits).cloned().collect()
    }

    /// Whether testers and deputies together are too few: then only others, signed in, can fill up the number.
    #[must_use]
    pub fn is_short_of_people(&self) -> bool {
        let can = |email: &&String| !self.is_barred(email) && !self.has_approved("", email);
        let left = self.testers.iter().chain(&self.deputies).filter(can).count();
        left < usize::try_from(self.missing()).unwrap_or(usize::MAX)
    }

    /// When a reminder comes, from when the round was opened and when it ends.
    #[must_use]
    pub fn reminder_at(&self, reminder: Reminder) -> UnixMs {
        let span_ms = self.expires_at.since_ms(self.opened_at);
        let percent = reminder.percent();
        // Divided first: a span of any length fits.
        self.opened_at.plus_ms(span_ms / 100 * percent + span_ms % 100 * percent / 100)
    }

    fn reminders(&self) -> impl Iterator<Item = Reminder> {
        let is_wanted = |reminder: &Reminder| match reminder {
            Reminder::Deputies => !self.deputies.is_empty(),
            Reminder::HalfTime | Reminder::LastCall => !self.testers.is_empty() || !self.deputies.is_empty(),
        };
        Reminder::ALL.into_iter().filter(is_wanted)
    }

    /// The next reminder of this round, and when it comes; none when the last one has.
    #[must_use]
    pub fn next_reminder(&self) -> Option<(Reminder, UnixMs)> {
        let next = self.reminders().find(|reminder| Some(*reminder) > self.reminded)?;
        Some((next, self.reminder_at(next)))
    }

    /// The newest reminder whose moment has come.
    pub(super) fn reminder_reached(&self, at: UnixMs) -> Option<Reminder> {
        self.reminders().filter(|reminder| self.reminder_at(*reminder) <= at).last()
    }

    /// The claim of somebody whose approval would be the last one that is missing: nobody else is needed meanwhile.
    #[must_use]
    pub fn covering_claim(&self) -> Option<&Claim> {
        self.claim.as_ref().filter(|_| self.missing() <= 1 && !self.has_claimant_approved())
    }

    pub(super) fn has_claimant_approved(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| self.has_approved(&claim.by, &claim.email))
    }

    /// Asks the deputies, if their moment has come and nobody is testing who can decide alone.
    pub(super) fn admit_deputies(&mut self, at: UnixMs) {
        let is_time = self.reminded >= Some(Reminder::Deputies) && !self.deputies.is_empty();
        if is_time && self.deputies_asked_at.is_none() && self.covering_claim().is_none() {
            self.deputies_asked_at = Some(at);
        }
    }

    /// Whether a later moment has come since: its mails say all that this one's would.
    fn is_overtaken(&self, reminder: Reminder) -> bool {
        // Deputies who were asked after the last call, because somebody tested until then, had no mail yet.
        let asked_late = self.deputies_asked_at.is_some_and(|at| at > self.reminder_at(Reminder::LastCall));
        self.reminded > Some(reminder) && !(reminder == Reminder::Deputies && asked_late)
    }

    /// Who is mailed at a reminder's moment, as the approval is now: never whoever has approved, and where somebody is
    /// testing who can decide alone, they alone.
    #[must_use]
    pub fn recipients(&self, reminder: Reminder) -> Vec<String> {
        if self.state != ApprovalState::Open || self.is_overtaken(reminder) {
            return Vec::new();
        }
        let mut people = self.undecided();
        if reminder == Reminder::Deputies {
            people.retain(|email| self.is_deputy(email));
        }
        if let Some(claim) = self.covering_claim() {
            people.retain(|email| is_same(email, &claim.email) || is_same(email, &claim.by));
        }
        people
    }
}
