//! An approval: how many of whom must say yes to which digest, until when, and what they said. Links and codes are
//! derived outside from a server key; here is only what makes one valid or not.
//! Not here: who is asked and reminded when ([`people`]), keys, mail, HTTP.

mod people;
mod refusal;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use people::Reminder;
pub use refusal::ApprovalRefusal;

use crate::{
    ids::{Digest, ReleaseId},
    time::UnixMs,
};

/// Wrong codes after which a link is locked until a new code is mailed.
pub const WRONG_CODES_MAX: u32 = 5;
/// How long a mailed code is good, in milliseconds.
pub const CODE_LIFE_MS: u64 = 15 * 60_000;
/// Codes that one tester may ask for within one approval; more needs a signed-in person.
pub const CODES_MAX: u32 = 20;

/// Where an approval stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ApprovalState {
    /// Waits for a decision.
    Open,
    /// As many as are needed said yes.
    Approved {
        /// Who was the last, how.
        decision: Decision,
    },
    /// Somebody said no.
    Rejected {
        /// Who, how.
        decision: Decision,
    },
    /// Nobody decided in time.
    Expired,
    /// A newer release took its place.
    Superseded {
        /// Number of the newer one.
        by: u32,
    },
}

impl ApprovalState {
    /// The word for it in API and errors.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved { .. } => "approved",
            Self::Rejected { .. } => "rejected",
            Self::Expired => "expired",
            Self::Superseded { .. } => "superseded",
        }
    }
}

/// A decision and its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Decision {
    /// Mail address or account name.
    pub by: String,
    /// Mail address of whoever decided: one person counts once, whichever way they came.
    #[serde(default)]
    pub email: String,
    /// When.
    pub at: UnixMs,
    /// How they proved who they are.
    pub proof: Proof,
    /// What they said; a reject has one.
    pub comment: String,
}

/// How a person proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The code mailed to them.
    MailedCode,
    /// They are signed in.
    SignedIn,
}

/// "I am testing this".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Claim {
    /// Who.
    pub by: String,
    /// Their mail address.
    #[serde(default)]
    pub email: String,
    /// Since when.
    pub at: UnixMs,
}

/// What is known of one tester's link: nothing that opens it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LinkRecord {
    /// Number of the last code that was asked for; the code is derived from it.
    pub code_serial: u32,
    /// When that code was asked for.
    pub code_at: UnixMs,
    /// Wrong tries since.
    pub wrong_codes: u32,
    /// Whether that code was used.
    pub code_used: bool,
}

/// Who may decide on which digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Approval {
    /// Of which release.
    pub release: ReleaseId,
    /// Counts how often the testers were asked, from 1; links of an earlier round are dead.
    pub round: u32,
    /// What is decided on.
    pub digest: Digest,
    /// Who may decide, by mail address.
    pub testers: Vec<String>,
    /// How many people must approve.
    #[serde(default = "one")]
    pub needed: u32,
    /// Who is asked when the testers have not decided for long, by mail address.
    #[serde(default)]
    pub deputies: Vec<String>,
    /// Mail address of the commit's author, who may not, unless the service allows it.
    pub author_email: String,
    /// Whether the author may decide.
    pub allow_self_approval: bool,
    /// Where it stands.
    pub state: ApprovalState,
    /// When it was opened.
    pub opened_at: UnixMs,
    /// Until when it can be decided.
    pub expires_at: UnixMs,
    /// Who has approved in this round, each person once.
    #[serde(default)]
    pub approved_by: Vec<Decision>,
    /// The last of the moments for a reminder that came in this round.
    #[serde(default)]
    pub reminded: Option<Reminder>,
    /// When the deputies were asked in this round; from then on they may decide.
    #[serde(default)]
    pub deputies_asked_at: Option<UnixMs>,
    /// Who is testing.
    pub claim: Option<Claim>,
    /// Per tester.
    pub links: BTreeMap<String, LinkRecord>,
}

fn one() -> u32 {
    1
}

/// Who acts on an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "who")]
pub enum Actor {
    /// The tester whose link it is.
    Tester {
        /// Mail address.
        email: String,
    },
    /// Somebody who is signed in and whose role allows it.
    Account {
        /// Account name.
        name: String,
        /// Mail address of the account, for the rule on authors.
        email: String,
    },
}

impl Actor {
    /// The name under which the act is recorded.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Tester { email } => email,
            Self::Account { name, .. } => name,
        }
    }

    pub(crate) fn email(&self) -> &str {
        match self {
            Self::Tester { email } | Self::Account { email, .. } => email,
        }
    }
}

/// What can happen to an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum ApprovalEvent {
    /// A tester wants a code mailed.
    CodeRequested {
        /// Mail address.
        tester: String,
    },
    /// A tester typed a wrong code.
    WrongCode {
        /// Mail address.
        tester: String,
    },
    /// Yes or no.
    Decided {
        /// Who.
        actor: Actor,
        /// The digest on the page that they saw.
        digest: Digest,
        /// Yes.
        approve: bool,
        /// What they say.
        comment: String,
    },
    /// "I am testing this".
    Claimed {
        /// Who.
        actor: Actor,
    },
    /// The claim is taken back.
    Unclaimed {
        /// By whom.
        actor: Actor,
    },
    /// A moment came at which those who have not decided are reminded, or the deputies asked.
    ReminderDue {
        /// Of which round the timer was.
        round: u32,
    },
    /// The time is over.
    Expired {
        /// Of which round the timer was.
        round: u32,
    },
    /// A newer release took its place.
    Superseded {
        /// Its number.
        by: u32,
    },
    /// The testers are asked once more.
    Reopened {
        /// Until when.
        expires_at: UnixMs,
    },
}

impl ApprovalEvent {
    /// The word for it in journal and errors.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::CodeRequested { .. } => "approval_code_requested",
            Self::WrongCode { .. } => "approval_wrong_code",
            Self::Decided { approve: true, .. } => "approval_approved",
            Self::Decided { approve: false, .. } => "approval_rejected",
            Self::Claimed { .. } => "approval_claimed",
            Self::Unclaimed { .. } => "approval_unclaimed",
            Self::ReminderDue { .. } => "approval_reminder_due",
            Self::Expired { .. } => "approval_expired",
            Self::Superseded { .. } => "approval_superseded",
            Self::Reopened { .. } => "approval_reopened",
        }
    }
}

impl Approval {
    /// The link record of a tester; an untouched one if there was nothing yet.
    #[must_use]
    pub fn link(&self, tester: &str) -> LinkRecord {
        self.links.get(tester).cloned().unwrap_or_default()
    }

    /// Whether a code can be tried now, and which one it is.
    ///
    /// # Errors
    /// When there is none, it is locked, used or too old.
    pub fn code_to_check(&self, tester: &str, at: UnixMs) -> Result<u32, ApprovalRefusal> {
        let link = self.link(tester);
        if link.wrong_codes >= WRONG_CODES_MAX {
            return Err(ApprovalRefusal::Locked);
        }
        if link.code_serial == 0 || link.code_used || at.since_ms(link.code_at) > CODE_LIFE_MS {
            return Err(ApprovalRefusal::NoCode);
        }
        Ok(link.code_serial)
    }

    fn must_be_open(&self, at: UnixMs) -> Result<(), ApprovalRefusal> {
        match self.state {
            ApprovalState::Open if at >= self.expires_at => Err(ApprovalRefusal::Late),
            ApprovalState::Open => Ok(()),
            ref state => Err(ApprovalRefusal::NotOpen(state.word())),
        }
    }

    /// The only place where an approval changes.
    ///
    /// # Errors
    /// [`ApprovalRefusal`], in words for the person who acted.
    pub fn transition(&self, event: &ApprovalEvent, at: UnixMs) -> Result<Self, ApprovalRefusal> {
        let mut next = self.clone();
        match event {
            ApprovalEvent::CodeRequested { tester } => {
                self.must_be_open(at)?;
                self.must_be_asked(tester)?;
                let link = next.links.entry(tester.clone()).or_default();
                if link.code_serial >= CODES_MAX {
                    return Err(ApprovalRefusal::TooManyCodes);
                }
                *link = LinkRecord { code_serial: link.code_serial + 1, code_at: at, wrong_codes: 0, code_used: false };
            }
            ApprovalEvent::WrongCode { tester } => {
                self.must_be_open(at)?;
                self.must_be_asked(tester)?;
                let link = next.links.entry(tester.clone()).or_default();
                link.wrong_codes = link.wrong_codes.saturating_add(1).min(WRONG_CODES_MAX);
            }
            ApprovalEvent::Decided { actor, digest, approve, comment } => {
                self.must_be_open(at)?;
                next.decide(actor, digest, *approve, comment, at)?;
            }
            ApprovalEvent::Claimed { actor } => {
                self.must_be_open(at)?;
                self.must_be_allowed(actor)?;
                match &self.claim {
                    Some(claim) if claim.by == actor.name() => {}
                    // Whoever has approved is done testing; somebody else may go on.
                    Some(claim) if !self.has_claimant_approved() => {
                        return Err(ApprovalRefusal::ClaimedBy(claim.by.clone()));
                    }
                    _ => {
                        let (by, email) = (actor.name().to_owned(), actor.email().to_owned());
                        next.claim = Some(Claim { by, email, at });
                    }
                }
            }
            ApprovalEvent::Unclaimed { actor } => {
                self.must_be_open(at)?;
                self.must_be_allowed(actor)?;
                if next.claim.take().is_none() {
                    return Err(ApprovalRefusal::NotClaimed);
                }
                next.admit_deputies(at);
            }
            ApprovalEvent::ReminderDue { round } => match self.state {
                ApprovalState::Open if *round == self.round && at < self.expires_at => {
                    next.reminded = self.reminded.max(self.reminder_reached(at));
                    next.admit_deputies(at);
                }
                _ => return Err(self.illegal(event)),
            },
            ApprovalEvent::Expired { round } => match self.state {
                ApprovalState::Open if *round == self.round && at >= self.expires_at => {
                    next.state = ApprovalState::Expired;
                }
                _ => return Err(self.illegal(event)),
            },
            ApprovalEvent::Superseded { by } => match self.state {
                ApprovalState::Open | ApprovalState::Expired => next.state = ApprovalState::Superseded { by: *by },
                _ => return Err(self.illegal(event)),
            },
            ApprovalEvent::Reopened { expires_at } => match self.state {
                ApprovalState::Expired => {
                    next.round += 1;
                    next.state = ApprovalState::Open;
                    next.opened_at = at;
                    next.expires_at = *expires_at;
                    next.approved_by.clear();
                    next.reminded = None;
                    next.deputies_asked_at = None;
                    next.claim = None;
                    next.links.clear();
                }
                _ => return Err(self.illegal(event)),
            },
        }
        Ok(next)
    }

    fn illegal(&self, event: &ApprovalEvent) -> ApprovalRefusal {
        ApprovalRefusal::Illegal { state: self.state.word(), event: event.word() }
    }

    fn must_be_allowed(&self, actor: &Actor) -> Result<(), ApprovalRefusal> {
        match actor {
            Actor::Tester { email } => self.must_be_asked(email),
            Actor::Account { .. } => Ok(()),
        }
    }

    fn must_be_asked(&self, email: &str) -> Result<(), ApprovalRefusal> {
        if self.is_asked(email) { Ok(()) } else { Err(ApprovalRefusal::NotATester(email.to_owned())) }
    }

    fn decide(
        &mut self,
        actor: &Actor,
        digest: &Digest,
        approve: bool,
        comment: &str,
        at: UnixMs,
    ) -> Result<(), ApprovalRefusal> {
        self.must_be_allowed(actor)?;
        if *digest != self.digest {
            return Err(ApprovalRefusal::StaleDigest);
        }
        // A reject by the author harms nobody; an approval would be their own.
        if approve && self.is_barred(actor.email()) {
            return Err(ApprovalRefusal::OwnCommit(actor.name().to_owned()));
        }
        if approve && self.approved_by.iter().any(|decision| decision.is_by(actor.name(), actor.email())) {
            return Err(ApprovalRefusal::AlreadyApproved { by: actor.name().to_owned(), missing: self.missing() });
        }
        if !approve && comment.trim().is_empty() {
            return Err(ApprovalRefusal::CommentMissing);
        }
        let proof = match actor {
            Actor::Tester { email } => {
                self.code_to_check(email, at)?;
                if let Some(link) = self.links.get_mut(email) {
                    link.code_used = true;
                }
                Proof::MailedCode
            }
            Actor::Account { .. } => Proof::SignedIn,
        };
        let (by, email) = (actor.name().to_owned(), actor.email().to_owned());
        let decision = Decision { by, email, at, proof, comment: comment.trim().to_owned() };
        if !approve {
            self.state = ApprovalState::Rejected { decision };
            return Ok(());
        }
        self.approved_by.push(decision.clone());
        if self.missing() == 0 {
            self.state = ApprovalState::Approved { decision };
        } else {
            self.admit_deputies(at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
