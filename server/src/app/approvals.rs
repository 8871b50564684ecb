//! Approvals: the link in a mail, the code, the decision. Reading changes nothing; every act is an event of the domain.

use pipelines::{
    approval::{Actor, Approval, ApprovalEvent, ApprovalRefusal},
    ids::{Digest, ReleaseId},
    journal::{Channel, Origin},
    train::Event,
};

use super::{App, AppError, accounts::Caller, board::is_decider};
use crate::store::Account;

/// Characters of a comment.
const COMMENT_CHARS_MAX: usize = 4_000;

impl App {
    /// The approval of a release.
    ///
    /// # Errors
    /// When it has none.
    pub fn approval(&self, id: &ReleaseId) -> Result<Approval, AppError> {
        self.store.approval(id)?.ok_or_else(|| AppError::NotFound { what: "approval of release", id: id.to_string() })
    }

    /// The approval of a release, if it has come so far.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn approval_maybe(&self, id: &ReleaseId) -> Result<Option<Approval>, AppError> {
        Ok(self.store.approval(id)?)
    }

    /// The approval of a release, for one who decides on it: a tester by role, or one whom the pipeline file names.
    /// The role of the routes is the lowest, because the pipeline file may name anybody.
    ///
    /// # Errors
    /// Also when `caller` is not one of those.
    pub fn approval_for_decider(&self, id: &ReleaseId, caller: &Caller) -> Result<Approval, AppError> {
        self.release(id)?;
        let approval = self.approval(id)?;
        if is_decider(&approval, caller) {
            return Ok(approval);
        }
        Err(AppError::Forbidden("only a tester decides on a release: by role, or named in the pipeline file".into()))
    }

    /// The address of a tester's page.
    #[must_use]
    pub fn approval_url(&self, approval: &Approval, tester: &str) -> String {
        let ReleaseId { service, number } = &approval.release;
        let token = self.keys.approval_token(approval, tester);
        format!("{}/approve/{service}/{number}/{token}", self.config.public_url)
    }

    /// The tester whose link it is. A wrong link and a release that does not exist look the same.
    ///
    /// # Errors
    /// When it is nobody's.
    pub fn approval_of_link(&self, id: &ReleaseId, token: &str) -> Result<(Approval, String), AppError> {
        let unknown = || AppError::NotFound { what: "approval link for", id: id.to_string() };
        let approval = self.store.approval(id)?.ok_or_else(unknown)?;
        let tester = self.keys.tester_of_token(&approval, token).ok_or_else(unknown)?;
        Ok((approval, tester))
    }

    /// Mails the tester a code.
    ///
    /// # Errors
    /// When the approval is over or too many codes were asked for.
    pub async fn approval_request_code(&self, id: &ReleaseId, tester: &str, remote: &str) -> Result<(), AppError> {
        self.throttles.code_mail(id, tester, self.now())?;
        let event = ApprovalEvent::CodeRequested { tester: tester.to_owned() };
        self.approval_event(id, event, link_origin(tester, remote)).await
    }

    /// A tester decides with their link and the code that was mailed to them, from this address.
    ///
    /// # Errors
    /// When the code is wrong (which is counted), the digest is not the one that waits, or the domain refuses.
    pub async fn approval_decide_by_code(
        &self,
        id: &ReleaseId,
        (tester, remote): (&str, &str),
        code: &str,
        digest: Digest,
        approve: bool,
        comment: String,
    ) -> Result<(), AppError> {
        // Counted before it is compared, under the service's lock: guesses sent at once count one by one.
        let tester = tester.to_owned();
        let origin = link_origin(&tester, remote);
        let mut wrong = false;
        let applied = self
            .train_input(&id.service, origin, |store| {
                let approval = store
                    .approval(id)?
                    .ok_or_else(|| AppError::NotFound { what: "approval of release", id: id.to_string() })?;
                let serial = approval.code_to_check(&tester, self.now()).map_err(|refusal| match &approval.state {
                    // That it is over says more than that the code is used.
                    pipelines::approval::ApprovalState::Open => AppError::Refused(refusal.into()),
                    state => AppError::Refused(ApprovalRefusal::NotOpen(state.word()).into()),
                })?;
                let event = if self.keys.is_approval_code(&approval, &tester, serial, code) {
                    ApprovalEvent::Decided {
                        actor: Actor::Tester { email: tester.clone() },
                        digest,
                        approve,
                        comment: bounded(comment),
                    }
                } else {
                    wrong = true;
                    ApprovalEvent::WrongCode { tester: tester.clone() }
                };
                Ok((vec![Event::Approval { number: id.number, event }], super::trains::Extras::default()))
            })
            .await;
        applied?;
        if wrong {
            return Err(AppError::Invalid("the code is wrong".into()));
        }
        Ok(())
    }

    /// Somebody who is signed in decides.
    ///
    /// # Errors
    /// When the domain refuses.
    pub async fn approval_decide_signed_in(
        &self,
        id: &ReleaseId,
        account: &Account,
        digest: Digest,
        approve: bool,
        comment: String,
        origin: Origin,
    ) -> Result<(), AppError> {
        let event = ApprovalEvent::Decided { actor: actor_of(account), digest, approve, comment: bounded(comment) };
        self.approval_event(id, event, origin).await
    }

    /// "I am testing this": the test environment stays with this release.
    ///
    /// # Errors
    /// When somebody else claimed it, or it is over.
    pub async fn approval_claim(&self, id: &ReleaseId, actor: Actor, origin: Origin) -> Result<(), AppError> {
        self.approval_event(id, ApprovalEvent::Claimed { actor }, origin).await
    }

    /// Takes the claim back.
    ///
    /// # Errors
    /// When there is none, or it is over.
    pub async fn approval_unclaim(&self, id: &ReleaseId, actor: Actor, origin: Origin) -> Result<(), AppError> {
        self.approval_event(id, ApprovalEvent::Unclaimed { actor }, origin).await
    }

    /// Asks the testers of an expired release once more, by one's own link: for that no code is mailed, because nothing is
    /// decided by it. What is pressed by a program that opens links is bounded by how often it goes.
    ///
    /// # Errors
    /// When it has not expired, a newer one is there, or it was done too often.
    pub async fn approval_ask_again_by_link(&self, id: &ReleaseId, tester: &str, remote: &str) -> Result<(), AppError> {
        if !self.may_ask_by_link(&self.approval(id)?) {
            let detail = "the testers of this release were asked often enough from its mails; sign in to ask again";
            return Err(AppError::Forbidden(detail.into()));
        }
        self.release_ask_again(id, link_origin(tester, remote)).await
    }

    /// Whether the testers may be asked again by a link: each asking is a round.
    #[must_use]
    pub fn may_ask_by_link(&self, approval: &Approval) -> bool {
        approval.round <= self.config.bounds.asks_by_link_max
    }

    async fn approval_event(&self, id: &ReleaseId, event: ApprovalEvent, origin: Origin) -> Result<(), AppError> {
        self.train_event(&id.service, origin, Event::Approval { number: id.number, event }).await?;
        Ok(())
    }
}

/// The actor that a signed-in account is.
#[must_use]
pub fn actor_of(account: &Account) -> Actor {
    Actor::Account { name: account.name.clone(), email: account.email.clone() }
}

/// The origin of what a tester does by their link.
#[must_use]
pub fn link_origin(tester: &str, remote: &str) -> Origin {
    Origin::new(tester, Channel::MailLink).from_place(remote).proved_by("mailed link")
}

fn bounded(comment: String) -> String {
    comment.chars().take(COMMENT_CHARS_MAX).collect()
}
