//! A release: a digest on its way from the test registry to live traffic.
//! Not here: who may decide (`approval`) and how traffic moves (`rollout`).

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Digest, ReleaseId, RevisionId},
    plan::DeliveryPlan,
    protocol::CommitInfo,
    time::UnixMs,
    train::IllegalTransition,
};

/// Where a release stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ReleaseState {
    /// Waits for the test environment, which a tester has claimed for another release.
    WaitingForTest {
        /// For which.
        behind: u32,
    },
    /// Is being deployed to the test environment.
    DeployingTest,
    /// Did not become healthy in the test environment. The end.
    TestFailed {
        /// What was seen.
        reason: String,
    },
    /// The testers have it.
    AwaitingApproval,
    /// A tester said no. The end.
    Rejected {
        /// Who.
        by: String,
        /// Why.
        comment: String,
    },
    /// Nobody decided in time. A person can ask again.
    Expired,
    /// A newer one took its place. The end.
    Superseded {
        /// Number of the newer one.
        by: u32,
    },
    /// The image is being copied to the production registry.
    Promoting,
    /// The image is there; another rollout runs.
    WaitingForRollout,
    /// Traffic is moving.
    RollingOut,
    /// All traffic is on it.
    Live,
    /// It was live until a newer (or older) one took over.
    Retired {
        /// Number of the one that took over.
        by: u32,
    },
    /// The judge, or a person, moved traffic back.
    RolledBack {
        /// Why.
        reason: String,
    },
}

impl ReleaseState {
    /// The word for it in API and command line.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::WaitingForTest { .. } => "waiting_for_test",
            Self::DeployingTest => "deploying_test",
            Self::TestFailed { .. } => "test_failed",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Rejected { .. } => "rejected",
            Self::Expired => "expired",
            Self::Superseded { .. } => "superseded",
            Self::Promoting => "promoting",
            Self::WaitingForRollout => "waiting_for_rollout",
            Self::RollingOut => "rolling_out",
            Self::Live => "live",
            Self::Retired { .. } => "retired",
            Self::RolledBack { .. } => "rolled_back",
        }
    }

    /// Whether something of it is still to come by itself or by a person's decision.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        matches!(
            self,
            Self::WaitingForTest { .. }
                | Self::DeployingTest
                | Self::AwaitingApproval
                | Self::Promoting
                | Self::WaitingForRollout
                | Self::RollingOut
        )
    }
}

/// A digest on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Release {
    /// Its id; the number is that of the run.
    pub id: ReleaseId,
    /// The digest: the same one in test, production and the running containers.
    pub digest: Digest,
    /// The tag under which it stands in both registries.
    pub tag: String,
    /// How to deliver it.
    pub plan: DeliveryPlan,
    /// The commit.
    pub commit: CommitInfo,
    /// Where it stands.
    pub state: ReleaseState,
    /// When it began.
    pub created_at: UnixMs,
    /// When it came to the present state.
    pub changed_at: UnixMs,
    /// When it was healthy in the test environment.
    pub tested_at: Option<UnixMs>,
    /// When and by whom it was approved.
    pub approved: Option<(UnixMs, String)>,
    /// When its image was verified in the production registry.
    pub promoted_at: Option<UnixMs>,
    /// When all traffic was on it, for the last time.
    pub live_at: Option<UnixMs>,
}

/// What can happen to a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum ReleaseEvent {
    /// The test environment is free for it.
    TestFreed,
    /// It is healthy in the test environment.
    TestHealthy,
    /// It did not become healthy there.
    TestUnhealthy {
        /// What was seen.
        reason: String,
    },
    /// A tester said yes.
    Approved {
        /// Who.
        by: String,
    },
    /// A tester said no.
    Rejected {
        /// Who.
        by: String,
        /// Why.
        comment: String,
    },
    /// The time for the decision is over.
    Expired,
    /// A person asks the testers once more.
    AskedAgain,
    /// A newer release took its place.
    Superseded {
        /// Its number.
        by: u32,
    },
    /// The image is in the production registry, verified.
    Promoted {
        /// The digest read back.
        digest: Digest,
    },
    /// Its rollout began.
    RolloutStarted,
    /// All traffic is on it.
    RolloutCompleted,
    /// Traffic went back.
    RolledBack {
        /// Why.
        reason: String,
    },
    /// Another release is live now.
    Retired {
        /// Its number.
        by: u32,
    },
}

impl ReleaseEvent {
    /// The word for it in journal and errors.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::TestFreed => "release_test_freed",
            Self::TestHealthy => "release_test_healthy",
            Self::TestUnhealthy { .. } => "release_test_unhealthy",
            Self::Approved { .. } => "release_approved",
            Self::Rejected { .. } => "release_rejected",
            Self::Expired => "release_expired",
            Self::AskedAgain => "release_asked_again",
            Self::Superseded { .. } => "release_superseded",
            Self::Promoted { .. } => "release_promoted",
            Self::RolloutStarted => "release_rollout_started",
            Self::RolloutCompleted => "release_live",
            Self::RolledBack { .. } => "release_rolled_back",
            Self::Retired { .. } => "release_retired",
        }
    }
}

impl Release {
    /// The revision under which it runs.
    #[must_use]
    pub fn revision(&self) -> RevisionId {
        self.id.revision(&self.digest)
    }

    /// Whether it once was live and so may be rolled back to.
    #[must_use]
    pub fn was_live(&self) -> bool {
        self.live_at.is_some()
    }

    /// The only place where a release changes.
    ///
    /// # Errors
    /// When the event does not fit the state; also when a promoted digest is not the approved one.
    pub fn transition(&self, event: &ReleaseEvent, at: UnixMs) -> Result<Self, IllegalTransition> {
        use {ReleaseEvent as E, ReleaseState as S};
        let mut next = self.clone();
        next.state = match (&self.state, event) {
            (S::WaitingForTest { .. }, E::TestFreed) => S::DeployingTest,
            (S::DeployingTest, E::TestHealthy) => {
                next.tested_at = Some(at);
                S::AwaitingApproval
            }
            (S::DeployingTest, E::TestUnhealthy { reason }) => S::TestFailed { reason: reason.clone() },
            (S::AwaitingApproval, E::Approved { by }) => {
                next.approved = Some((at, by.clone()));
                S::Promoting
            }
            (S::AwaitingApproval, E::Rejected { by, comment }) => {
                S::Rejected { by: by.clone(), comment: comment.clone() }
            }
            (S::AwaitingApproval, E::Expired) => S::Expired,
            // It has to be deployed again: something else may stand in the test environment by now.
            (S::Expired, E::AskedAgain) => S::DeployingTest,
            (
                S::WaitingForTest { .. } | S::DeployingTest | S::AwaitingApproval | S::Expired | S::WaitingForRollout,
                E::Superseded { by },
            ) => S::Superseded { by: *by },
            (S::Promoting, E::Promoted { digest }) if *digest == self.digest => {
                next.promoted_at = Some(at);
                S::WaitingForRollout
            }
            (S::WaitingForRollout | S::Retired { .. } | S::RolledBack { .. }, E::RolloutStarted) => S::RollingOut,
            (S::RollingOut, E::RolloutCompleted) => {
                next.live_at = Some(at);
                S::Live
            }
            (S::RollingOut | S::Live, E::RolledBack { reason }) => S::RolledBack { reason: reason.clone() },
            (S::Live, E::Retired { by }) => S::Retired { by: *by },
            (state, event) => return Err(IllegalTransition::new(&self.id, state.word(), event.word())),
        };
        next.changed_at = at;
        Ok(next)
    }
}

#[cfg(test)]
mod tests;
