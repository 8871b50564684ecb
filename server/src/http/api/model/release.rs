//! Releases and their approvals.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Commit, Fault, Why};

/// A digest on its way from the test registry to live traffic.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// Of which service.
    pub service: String,
    /// Its number there, which is that of its run.
    pub number: u32,
    /// Digest of its image.
    pub digest: String,
    /// Tag of its image.
    pub tag: String,
    /// The base config that it was built with.
    pub base: String,
    /// `waiting_for_test`, `deploying_test`, `test_failed`, `awaiting_approval`, `rejected`, `expired`, `superseded`,
    /// `promoting`, `waiting_for_rollout`, `rolling_out`, `live`, `retired`, `rolled_back`.
    pub state: String,
    /// Whether it is still on its way.
    pub under_way: bool,
    /// What was said when it failed, was rejected or went back.
    pub reason: Option<String>,
    /// The commit.
    pub commit: Commit,
    /// Commits since the live release, newest first, at most 10.
    pub changes: Vec<Change>,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When its state last changed.
    pub changed_at_ms: u64,
    /// When it was healthy in the test environment.
    pub tested_at_ms: Option<u64>,
    /// When it was approved.
    pub approved_at_ms: Option<u64>,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// When the image was verified in the production registry.
    pub promoted_at_ms: Option<u64>,
    /// When it took all traffic.
    pub live_at_ms: Option<u64>,
    /// How it is rolled out: `rolling`, `blue-green`, `canary`.
    pub strategy: String,
    /// Its address in the test environment.
    pub test_url: String,
    /// Its address in production.
    pub production_url: String,
    /// Who decides, until when.
    pub approval: Option<Approval>,
    /// Number of its last rollout.
    pub rollout: Option<u32>,
    /// Why it is not live yet.
    pub why: Why,
}

/// A commit that the release brings.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Its short id.
    pub id: String,
    /// First line of its message.
    pub subject: String,
    /// Its author's name.
    pub author: String,
}

/// Who may decide on a release, until when, and what they decided.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    /// Counted from 1; a release whose approval expired can be asked for again.
    pub round: u32,
    /// The digest that is decided on.
    pub digest: String,
    /// `open`, `approved`, `rejected`, `expired`, `superseded`.
    pub state: String,
    /// Who was asked by mail.
    pub testers: Vec<String>,
    /// How many different people must approve.
    pub needed: u32,
    /// Who has approved so far, each person once.
    pub approvals: Vec<Decision>,
    /// Who is asked when the testers have not decided for long.
    pub deputies: Vec<String>,
    /// When the deputies were asked, in milliseconds since 1970.
    pub deputies_asked_at_ms: Option<u64>,
    /// Those of the asked who may approve and have not.
    pub undecided: Vec<String>,
    /// What is mailed next, and when.
    pub next_reminder: Option<NextReminder>,
    /// Mails that the mail server has not taken yet.
    pub undelivered: Vec<Undelivered>,
    /// Whether the commit's author may decide.
    pub allow_self_approval: bool,
    /// When it was asked for, in milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Until when there is time.
    pub expires_at_ms: u64,
    /// Who is testing it.
    pub claim: Option<Claim>,
    /// What was decided.
    pub decision: Option<Decision>,
    /// Number of the newer release that took its place.
    pub superseded_by: Option<u32>,
    /// The page on which somebody who is signed in decides.
    pub page_url: String,
}

/// The next moment at which people are mailed about an open approval.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NextReminder {
    /// `half_time`: those who have not decided are reminded; `deputies`: they are asked; `last_call`: all of them are told
    /// that the time is nearly over.
    pub kind: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A mail that the mail server has not taken yet.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Undelivered {
    /// Whom it is for.
    pub to: String,
    /// What is wrong, and when it is tried again.
    pub fault: Fault,
}

/// "I am testing this".
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    /// Who.
    pub by: String,
    /// Since when, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A decision and its proof.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// Who.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How they proved who they are: `mailed_code` or `signed_in`.
    pub proof: String,
    /// What they said.
    pub comment: String,
}

/// Approves or rejects a release.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    /// The digest that was tested: another one than the release's is refused.
    pub digest: String,
    /// What to say; a rejection needs it.
    #[serde(default)]
    pub comment: String,
}

/// Goes back to an older release, without a build.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Why.
    pub reason: String,
}
