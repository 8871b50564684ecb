//! Effects: pieces of work asked of the world. Each has a key that names what it is for, so that asking twice asks once,
//! and each is safe to perform again. Not here: how they are performed.

use serde::{Deserialize, Serialize};

use crate::{
    approval::Reminder,
    ids::{ReleaseId, RevisionId, RolloutId, RunId, RunnerName, ServiceName},
    time::UnixMs,
};

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty),* $(,)? } = $word:literal),* $(,)?) => {
        /// One piece of work asked of the world.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "snake_case", tag = "effect")]
        pub enum Effect {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: $type),* }),*
        }

        /// The kinds of effects. The kill points of the crash tests are made from [`EffectKind::ALL`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum EffectKind {
            $($(#[$doc])* $name),*
        }

        impl EffectKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word for it in logs, metrics and kill points.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }

        impl Effect {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> EffectKind {
                match self { $(Self::$name { .. } => EffectKind::$name),* }
            }
        }
    };
}

effects! {
    /// A hook was recorded: find out what it asks for.
    ProcessDelivery {
        /// Number of the delivery.
        delivery: u64,
        /// For which service.
        service: ServiceName,
    } = "process-delivery",
    /// Ask the repository where its refs are, and ask again later.
    PollRepository {
        /// Of which service.
        service: ServiceName,
        /// Not before.
        due_at: UnixMs,
    } = "poll-repository",
    /// Look at the commit of a held run: what it would do.
    InspectRun {
        /// Which.
        run: RunId,
    } = "inspect-run",
    /// The time for a word on a held run is over.
    ExpireHold {
        /// Which.
        run: RunId,
        /// Not before.
        due_at: UnixMs,
    } = "expire-hold",
    /// A runner executes the run.
    ExecuteRun {
        /// Which.
        run: RunId,
    } = "execute-run",
    /// Give the run to another runner if nothing is heard of it from the one that has it.
    ExpireLease {
        /// Which run.
        run: RunId,
        /// Who has it.
        runner: RunnerName,
        /// In which attempt.
        attempt: u32,
        /// Not before.
        due_at: UnixMs,
    } = "expire-lease",
    /// Bring the release into the test environment and see that it is healthy.
    DeployTest {
        /// Which.
        release: ReleaseId,
    } = "deploy-test",
    /// Ask a tester for a decision, remind them of it, or ask a deputy.
    SendApprovalMail {
        /// On which release.
        release: ReleaseId,
        /// Which time it is asked.
        round: u32,
        /// Whom.
        tester: String,
        /// Which reminder it is; none: the first mail of the round.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reminder: Option<Reminder>,
    } = "send-approval-mail",
    /// Mail a tester the code they asked for.
    SendCodeMail {
        /// For which release.
        release: ReleaseId,
        /// Of which round.
        round: u32,
        /// Whom.
        tester: String,
        /// Number of the code.
        serial: u32,
    } = "send-code-mail",
    /// The next moment for a reminder comes.
    RemindTesters {
        /// Of which release.
        release: ReleaseId,
        /// Of which round.
        round: u32,
        /// Not before.
        due_at: UnixMs,
    } = "remind-testers",
    /// The time for a decision is over.
    ExpireApproval {
        /// On which release.
        release: ReleaseId,
        /// Of which round.
        round: u32,
        /// Not before.
        due_at: UnixMs,
    } = "expire-approval",
    /// Copy the image to the production registry, by digest.
    Promote {
        /// Of which release.
        release: ReleaseId,
    } = "promote",
    /// Start the containers of a rollout's new revision and see that they are healthy.
    StartRevision {
        /// Which rollout.
        rollout: RolloutId,
    } = "start-revision",
    /// Bring the gateway to what the state wants, and wait for its acknowledgement.
    ApplyTraffic {
        /// For which rollout.
        rollout: RolloutId,
        /// Which of its intents.
        intent: u32,
    } = "apply-traffic",
    /// Read the metrics of a stage.
    Measure {
        /// Of which rollout.
        rollout: RolloutId,
        /// Of which stage.
        stage: usize,
        /// Not before.
        due_at: UnixMs,
    } = "measure",
    /// Let a revision finish what it has, then remove its containers.
    DrainRevision {
        /// For which rollout.
        rollout: RolloutId,
        /// Which revision.
        revision: RevisionId,
    } = "drain-revision",
}

impl Effect {
    /// What it is for. While an effect with this key is pending, asking again replaces it: there is one poll per
    /// service, one traffic intent per rollout, one mail per release, round, tester and
    /// reminder.
    #[must_use]
    pub fn key(&self) -> String {
        let word = self.kind().word();
        match self {
            // Of a fixed length: keys sort as the numbers do, and hooks are looked at in the order in which they came.
            Self::ProcessDelivery { delivery, .. } => format!("{word}/{delivery:020}"),
            Self::PollRepository { service, .. } => format!("{word}/{service}"),
            Self::ExecuteRun { run }
            | Self::ExpireLease { run, .. }
            | Self::InspectRun { run }
            | Self::ExpireHold { run, .. } => format!("{word}/{run}"),
            Self::DeployTest { release } | Self::Promote { release } => format!("{word}/{release}"),
            Self::SendApprovalMail { release, round, tester, reminder: None } => {
                format!("{word}/{release}/{round}/{tester}")
            }
            Self::SendApprovalMail { release, round, tester, reminder: Some(reminder) } => {
                format!("{word}/{release}/{round}/{tester}/{}", reminder.word())
            }
            Self::SendCodeMail { release, round, tester, serial } => {
                format!("{word}/{release}/{round}/{serial}/{tester}")
            }
            Self::RemindTesters { release, round, .. } | Self::ExpireApproval { release, round, .. } => {
                format!("{word}/{release}/{round}")
            }
            Self::StartRevision { rollout } | Self::ApplyTraffic { rollout, .. } => format!("{word}/{rollout}"),
            Self::Measure { rollout, .. } => format!("{word}/{rollout}"),
            Self::DrainRevision { rollout, revision } => format!("{word}/{rollout}/{revision}"),
        }
    }

    /// The lane that it is performed in: two effects of one lane are never performed side by side. An effect that is
    /// withdrawn while it is being performed still acts to its end, so what undoes its work must come after it.
    #[must_use]
    pub fn lane(&self) -> Option<String> {
        let lane = match self {
            // A hook and a poll that see the same commit at once would both make a run of it.
            Self::ProcessDelivery { .. } | Self::PollRepository { .. } => "refs",
            // They fetch into one mirror, and a stranger decides how many there are.
            Self::InspectRun { .. } => "inspect",
            // Each removes what the other has just started.
            Self::DeployTest { .. } => "test",
            // A revision that is still starting when it is drained would leave containers behind.
            Self::StartRevision { .. } | Self::DrainRevision { .. } => "production",
            Self::ExecuteRun { .. }
            | Self::ExpireHold { .. }
            | Self::ExpireLease { .. }
            | Self::SendApprovalMail { .. }
            | Self::SendCodeMail { .. }
            | Self::RemindTesters { .. }
            | Self::ExpireApproval { .. }
            | Self::Promote { .. }
            | Self::ApplyTraffic { .. }
            | Self::Measure { .. } => return None,
        };
        Some(format!("{lane}/{}", self.service()))
    }

    /// When it may be performed at the earliest.
    #[must_use]
    pub fn due_at(&self) -> UnixMs {
        match self {
            Self::PollRepository { due_at, .. }
            | Self::RemindTesters { due_at, .. }
            | Self::ExpireLease { due_at, .. }
            | Self::ExpireApproval { due_at, .. }
            | Self::ExpireHold { due_at, .. }
            | Self::Measure { due_at, .. } => *due_at,
            _ => UnixMs(0),
        }
    }

    /// For which service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        match self {
            Self::ProcessDelivery { service, .. } | Self::PollRepository { service, .. } => service,
            Self::ExecuteRun { run }
            | Self::ExpireLease { run, .. }
            | Self::InspectRun { run }
            | Self::ExpireHold { run, .. } => &run.service,
            Self::DeployTest { release }
            | Self::SendApprovalMail { release, .. }
            | Self::SendCodeMail { release, .. }
            | Self::RemindTesters { release, .. }
            | Self::ExpireApproval { release, .. }
            | Self::Promote { release } => &release.service,
            Self::StartRevision { rollout }
            | Self::ApplyTraffic { rollout, .. }
            | Self::Measure { rollout, .. }
            | Self::DrainRevision { rollout, .. } => &rollout.service,
        }
    }
}

/// An effect that waits or is being performed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PendingEffect {
    /// What to do.
    pub effect: Effect,
    /// Number of the change that asked for it: an outcome counts only for the asking it belongs to.
    pub asked_by: u64,
    /// When it was asked for.
    pub asked_at: UnixMs,
    /// Tries that failed for infrastructure reasons.
    pub failures: u32,
    /// Not before this moment: its own due time, or the next try.
    pub not_before: UnixMs,
    /// What the last failed try said.
    pub last_error: Option<String>,
}

impl PendingEffect {
    /// Whether `other` is the same asking, whatever its tries. The number alone does not say so: one that was given to a
    /// change without a line in the journal is given again after a restart.
    #[must_use]
    pub fn is_same_asking(&self, other: &Self) -> bool {
        (self.asked_by, self.asked_at) == (other.asked_by, other.asked_at) && self.effect == other.effect
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        let words: BTreeSet<&str> = EffectKind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), EffectKind::ALL.len());
    }

    #[test]
    fn a_mail_that_an_older_version_asked_for_keeps_its_key() {
        let text = r#"{"effect":"send_approval_mail","release":"shop/2","round":1,"tester":"a@b.c"}"#;
        let effect: Effect = serde_json::from_str(text).unwrap();
        assert_eq!(effect.key(), "send-approval-mail/shop/2/1/a@b.c");
        assert_eq!(serde_json::to_string(&effect).unwrap(), text);
    }

    #[test]
    fn keys_of_deliveries_sort_as_they_came() {
        let key = |delivery| Effect::ProcessDelivery { delivery, service: "shop".parse().unwrap() }.key();
        assert!([9, 10, 99, 100, u64::MAX].map(key).is_sorted());
    }
}
