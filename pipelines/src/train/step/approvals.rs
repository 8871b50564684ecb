//! What follows when an approval opens, is decided, waits or ends: mails, timers, and the release that goes on.
//! Not here: what an act does to the approval itself (its own transition).

use std::collections::BTreeMap;

use super::Step;
use crate::{
    approval::{Approval, ApprovalEvent, ApprovalState, Reminder},
    effect::Effect,
    release::{Release, ReleaseEvent},
    train::{IllegalTransition, Refusal},
};

impl Step<'_> {
    pub(super) fn open_approval(&mut self, release: &Release) -> Result<(), Refusal> {
        let number = release.id.number;
        let expires_at = self.at.plus_ms(release.plan.test.expires_ms);
        let approval = match self.records.approval(&release.id)? {
            Some(earlier) => earlier.transition(&ApprovalEvent::Reopened { expires_at }, self.at)?,
            None => Approval {
                release: release.id.clone(),
                round: 1,
                digest: release.digest.clone(),
                testers: release.plan.test.testers.clone(),
                needed: release.plan.test.approvals.max(1),
                deputies: release.plan.test.deputies.clone(),
                author_email: release.commit.author_email.clone(),
                allow_self_approval: self.service.allow_self_approval,
                state: ApprovalState::Open,
                opened_at: self.at,
                expires_at,
                approved_by: Vec::new(),
                reminded: None,
                deputies_asked_at: None,
                claim: None,
                links: BTreeMap::new(),
            },
        };
        self.note(format!("approval {}", release.id), "approval_opened", None, approval.testers.join(", "));
        self.change.ask.extend(approval_effects(&approval));
        self.change.approvals.insert(number, approval);
        Ok(())
    }

    pub(super) fn withdraw_approval_effects(&mut self, approval: &Approval) {
        self.change.withdraw.extend(approval_effects(approval).iter().map(Effect::key));
        let due_at = approval.expires_at;
        let timer = Effect::RemindTesters { release: approval.release.clone(), round: approval.round, due_at };
        self.change.withdraw.push(timer.key());
        self.withdraw_reminders(approval, &Reminder::ALL);
    }

    fn withdraw_reminders(&mut self, approval: &Approval, reminders: &[Reminder]) {
        for person in approval.testers.iter().chain(&approval.deputies) {
            let mails = reminders.iter().map(|reminder| mail_effect(approval, person, Some(*reminder)).key());
            self.change.withdraw.extend(mails);
        }
    }

    /// Mails whom the change from `before` to `next` gives a reason to mail. What an earlier reminder has not sent by
    /// now is not sent any more: nobody gets two at once.
    fn remind(&mut self, before: &Approval, next: &Approval) {
        let is_new = next.reminded != before.reminded;
        if let Some(reminder) = next.reminded.filter(|_| is_new) {
            let earlier: Vec<_> = Reminder::ALL.into_iter().filter(|earlier| *earlier < reminder).collect();
            self.withdraw_reminders(before, &earlier);
            self.change.ask.extend(next.recipients(reminder).iter().map(|it| mail_effect(next, it, Some(reminder))));
            self.change.ask.extend(reminder_effect(next));
        } else if next.deputies_asked_at != before.deputies_asked_at {
            // Their moment came while somebody was testing who has given it back.
            let (reminder, people) = (Some(Reminder::Deputies), next.recipients(Reminder::Deputies));
            self.change.ask.extend(people.iter().map(|it| mail_effect(next, it, reminder)));
        }
    }

    pub(in crate::train) fn on_approval(&mut self, number: u32, event: &ApprovalEvent) -> Result<(), Refusal> {
        let approval = self.approval(number)?;
        if let ApprovalEvent::ReminderDue { round } = event
            && *round == approval.round
            && approval.state == ApprovalState::Open
            && self.at >= approval.expires_at
        {
            // The server was off over the end: whichever timer is looked at first ends it, and nobody is reminded late.
            return self.on_approval(number, &ApprovalEvent::Expired { round: *round });
        }
        if self.is_early(&approval, event) {
            self.change.ask.push(expiry_effect(&approval));
            self.change.ask.extend(reminder_effect(&approval));
            return Ok(());
        }
        let next = approval.transition(event, self.at)?;
        if next == approval {
            return Ok(());
        }
        let detail = match event {
            ApprovalEvent::Decided { actor, comment, .. } => format!("{}: {}", actor.name(), comment.trim()),
            ApprovalEvent::Claimed { actor } | ApprovalEvent::Unclaimed { actor } => actor.name().to_owned(),
            ApprovalEvent::CodeRequested { tester } | ApprovalEvent::WrongCode { tester } => tester.clone(),
            ApprovalEvent::ReminderDue { .. } => next.reminded.map_or("", Reminder::word).to_owned(),
            _ => String::new(),
        };
        let change = Some((approval.state.word(), next.state.word()));
        self.note(format!("approval {}", approval.release), event.word(), change, detail);
        self.change.approvals.insert(number, next.clone());
        self.remind(&approval, &next);
        match event {
            ApprovalEvent::CodeRequested { tester } => {
                self.change.ask.push(Effect::SendCodeMail {
                    release: approval.release.clone(),
                    round: approval.round,
                    tester: tester.clone(),
                    serial: next.link(tester).code_serial,
                });
                Ok(())
            }
            ApprovalEvent::Unclaimed { .. } => self.next_to_test(),
            ApprovalEvent::WrongCode { .. } | ApprovalEvent::Claimed { .. } | ApprovalEvent::ReminderDue { .. } => {
                Ok(())
            }
            // One of several yeses: it goes on waiting.
            ApprovalEvent::Decided { .. } if next.state == ApprovalState::Open => Ok(()),
            ApprovalEvent::Decided { .. } | ApprovalEvent::Expired { .. } => self.end_approval(&approval, &next),
            // These follow from releases and never come alone.
            ApprovalEvent::Superseded { .. } | ApprovalEvent::Reopened { .. } => {
                Err(IllegalTransition::new(&approval.release, approval.state.word(), event.word()).into())
            }
        }
    }

    /// Whether a timer fires before its moment: the clock was set back after it was due. Without a new timer nothing
    /// would ever end this approval.
    fn is_early(&self, approval: &Approval, event: &ApprovalEvent) -> bool {
        let (round, due_at) = match event {
            ApprovalEvent::Expired { round } => (round, Some(approval.expires_at)),
            ApprovalEvent::ReminderDue { round } => (round, approval.next_reminder().map(|(_, at)| at)),
            _ => return false,
        };
        let is_open = *round == approval.round && approval.state == ApprovalState::Open;
        is_open && due_at.is_some_and(|due_at| self.at < due_at)
    }

    fn end_approval(&mut self, approval: &Approval, next: &Approval) -> Result<(), Refusal> {
        self.withdraw_approval_effects(approval);
        let release = self.release(approval.release.number)?;
        match &next.state {
            ApprovalState::Approved { .. } => {
                let names: Vec<&str> = next.approved_by.iter().map(|decision| decision.by.as_str()).collect();
                let by = names.join(", ");
                self.move_release(&release, &ReleaseEvent::Approved { by: by.clone() }, by)?;
                self.change.ask.push(Effect::Promote { release: release.id.clone() });
            }
            ApprovalState::Rejected { decision } => {
                let event = ReleaseEvent::Rejected { by: decision.by.clone(), comment: decision.comment.clone() };
                self.move_release(&release, &event, decision.comment.clone())?;
            }
            _ => {
                self.move_release(&release, &ReleaseEvent::Expired, String::new())?;
            }
        }
        self.next_to_test()
    }
}

/// What an approval asks for when it opens.
fn approval_effects(approval: &Approval) -> Vec<Effect> {
    let mails = approval.testers.iter().map(|tester| mail_effect(approval, tester, None));
    mails.chain(reminder_effect(approval)).chain([expiry_effect(approval)]).collect()
}

fn mail_effect(approval: &Approval, person: &str, reminder: Option<Reminder>) -> Effect {
    let (release, round, tester) = (approval.release.clone(), approval.round, person.to_owned());
    Effect::SendApprovalMail { release, round, tester, reminder }
}

/// One timer for all reminders: when it fires, it is asked for anew with the next moment.
fn reminder_effect(approval: &Approval) -> Option<Effect> {
    let (_, due_at) = approval.next_reminder()?;
    Some(Effect::RemindTesters { release: approval.release.clone(), round: approval.round, due_at })
}

fn expiry_effect(approval: &Approval) -> Effect {
    Effect::ExpireApproval { release: approval.release.clone(), round: approval.round, due_at: approval.expires_at }
}
