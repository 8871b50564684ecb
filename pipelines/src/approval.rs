//! An approval: who may decide on which digest, until when, and what they decided. Links and codes are derived outside
//! from a server key; here is only what makes one valid or not.
//! Not here: keys, mail, HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ApprovalState {
    /// Waits for a decision.
    Open,
    /// Somebody said yes.
    Approved {
        /// Who, how.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Mail address or account name.
    pub by: String,
    /// When.
    pub at: UnixMs,
    /// How they proved who they are.
    pub proof: Proof,
    /// What they said; a reject has one.
    pub comment: String,
}

/// How a person proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The code mailed to them.
    MailedCode,
    /// They are signed in.
    SignedIn,
}

/// "I am testing this".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who.
    pub by: String,
    /// Since when.
    pub at: UnixMs,
}

/// What is known of one tester's link: nothing that opens it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Of which release.
    pub release: ReleaseId,
    /// Counts how often the testers were asked, from 1; links of an earlier round are dead.
    pub round: u32,
    /// What is decided on.
    pub digest: Digest,
    /// Who may decide, by mail address.
    pub testers: Vec<String>,
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
    /// Who is testing.
    pub claim: Option<Claim>,
    /// Per tester.
    pub links: BTreeMap<String, LinkRecord>,
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

    fn email(&self) -> &str {
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
            Self::Expired { .. } => "approval_expired",
            Self::Superseded { .. } => "approval_superseded",
            Self::Reopened { .. } => "approval_reopened",
        }
    }
}

/// Why a person's act on an approval was refused; the text is shown to them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalRefusal {
    /// It is over.
    #[error("this release is already {0}")]
    NotOpen(&'static str),
    /// The time is over, though the timer has not fired yet.
    #[error("the time for this decision is over; ask for it again")]
    Late,
    /// The page showed another digest.
    #[error("the page showed another image than the one that waits for a decision; load it again")]
    StaleDigest,
    /// Not one of the testers.
    #[error("{0} is not one of the testers of this release")]
    NotATester(String),
    /// The author may not.
    #[error("{0} wrote the commit and may not approve it; another tester has to")]
    OwnCommit(String),
    /// A reject needs a reason.
    #[error("a reject needs a comment that says what is wrong")]
    CommentMissing,
    /// Too many wrong codes.
    #[error("too many wrong codes; ask for a new one")]
    Locked,
    /// No code was asked for, or it is used or too old.
    #[error("there is no valid code; ask for a new one")]
    NoCode,
    /// Too many codes.
    #[error("too many codes were asked for; sign in to decide")]
    TooManyCodes,
    /// Somebody else is testing.
    #[error("{0} is testing this release already")]
    ClaimedBy(String),
    /// There is no claim to take back.
    #[error("nobody has claimed this release")]
    NotClaimed,
    /// An event that does not fit.
    #[error("an approval that is {state} cannot take {event}")]
    Illegal {
        /// The state.
        state: &'static str,
        /// The event.
        event: &'static str,
    },
}

impl Approval {
    /// The link record of a tester; an untouched one if there was nothing yet.
    #[must_use]
    pub fn link(&self, tester: &str) -> LinkRecord {
        self.links.get(tester).cloned().unwrap_or_default()
    }

    /// Whether `tester` is one of those asked, whatever the case of the letters.
    #[must_use]
    pub fn is_tester(&self, email: &str) -> bool {
        self.testers.iter().any(|tester| tester.eq_ignore_ascii_case(email))
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
                if !self.is_tester(tester) {
                    return Err(ApprovalRefusal::NotATester(tester.clone()));
                }
                let link = next.links.entry(tester.clone()).or_default();
                if link.code_serial >= CODES_MAX {
                    return Err(ApprovalRefusal::TooManyCodes);
                }
                *link = LinkRecord { code_serial: link.code_serial + 1, code_at: at, wrong_codes: 0, code_used: false };
            }
            ApprovalEvent::WrongCode { tester } => {
                self.must_be_open(at)?;
                if !self.is_tester(tester) {
                    return Err(ApprovalRefusal::NotATester(tester.clone()));
                }
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
                    Some(claim) if claim.by != actor.name() => {
                        return Err(ApprovalRefusal::ClaimedBy(claim.by.clone()));
                    }
                    Some(_) => {}
                    None => next.claim = Some(Claim { by: actor.name().to_owned(), at }),
                }
            }
            ApprovalEvent::Unclaimed { actor } => {
                self.must_be_open(at)?;
                self.must_be_allowed(actor)?;
                if next.claim.take().is_none() {
                    return Err(ApprovalRefusal::NotClaimed);
                }
            }
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
            Actor::Tester { email } if !self.is_tester(email) => Err(ApprovalRefusal::NotATester(email.clone())),
            _ => Ok(()),
        }
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
        if approve && !self.allow_self_approval && actor.email().eq_ignore_ascii_case(&self.author_email) {
            return Err(ApprovalRefusal::OwnCommit(actor.name().to_owned()));
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
        let decision = Decision { by: actor.name().to_owned(), at, proof, comment: comment.trim().to_owned() };
        self.state = if approve { ApprovalState::Approved { decision } } else { ApprovalState::Rejected { decision } };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
