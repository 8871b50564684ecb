//! One service: what is live in each environment, its releases and how to go back, its hook and what became of each delivery.

use super::approval::Health;
use super::board::Action;
use super::markup::icon;
use super::rollout::Strategy;
use super::text::Text;
use super::train::Train;
use super::why::{Sentence, Why};
use super::{Disabled, Section, links, page};

/// The release or run that is on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Current {
    /// Its version; none for a run without a release.
    pub version: Option<String>,
    /// The run's number.
    pub run: u64,
    /// The commit, abbreviated.
    pub commit: String,
    /// Where it is.
    pub train: Train,
    /// Why it is not live yet.
    pub why: Option<Why>,
    /// What is next.
    pub action: Option<Action>,
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentView {
    /// Its name: data, `test` and `production` at least.
    pub name: String,
    /// The version there; none before the first.
    pub version: Option<String>,
    /// It is production: its version is live.
    pub is_production: bool,
    /// Its health.
    pub health: Health,
    /// Its address.
    pub url: Option<String>,
    /// The digest that runs.
    pub digest: Option<String>,
    /// Since when.
    pub since_ms: Option<i64>,
    /// Who has claimed it.
    pub claimed_by: Option<String>,
    /// Where it runs: data, `docker, machine a`.
    pub runs_on: String,
    /// How many containers it has.
    pub containers: u32,
}

impl EnvironmentView {
    fn host(&self) -> &str {
        self.url.as_deref().map_or("", |url| {
            let url = url.trim_end_matches('/');
            url.split_once("://").map_or(url, |(_, host)| host)
        })
    }
}

/// How a release ended, or that it has not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the outcome that it names; times in ms")]
pub enum ReleaseOutcome {
    OnItsWay,
    Live,
    Done { lived_ms: i64 },
    RolledBack { percent: u32 },
    Aborted,
    Rejected { by: String },
    Expired,
    Superseded { by_version: String },
    Failed,
}

impl ReleaseOutcome {
    const fn icon(&self) -> (&'static str, &'static str) {
        match self {
            Self::OnItsWay => ("move", "acc"),
            Self::Live => ("live", "ok"),
            Self::Done { .. } => ("done", "dim"),
            Self::RolledBack { .. } | Self::Aborted => ("back", "warn"),
            Self::Rejected { .. } | Self::Failed => ("fail", "bad"),
            Self::Expired => ("hold", "warn"),
            Self::Superseded { .. } => ("skip", "dim"),
        }
    }
}

/// One release of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseLine {
    /// Its version.
    pub version: String,
    /// Its build.
    pub build: u64,
    /// The commit, abbreviated.
    pub commit: String,
    /// What changed: the first line of the newest commit.
    pub change: String,
    /// Who approved it.
    pub approved_by: Vec<String>,
    /// Its digest.
    pub digest: String,
    /// How it rolled out, and in how many steps.
    pub strategy: Option<(Strategy, usize)>,
    /// How it ended.
    pub outcome: ReleaseOutcome,
    /// When it went live, or ended.
    pub at_ms: i64,
    /// Why it cannot be rolled back to; none where it can.
    pub rollback: Option<Disabled>,
}

/// What became of a hook's delivery, or of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the outcome that it names")]
pub enum Became {
    Received,
    Run { run: u64, release: bool },
    Repeat,
    Ignored { reason: Ignored },
    Refused { reason: String },
    Failed { answer: String },
}

/// Why a delivery made no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the reason that it names")]
pub enum Ignored {
    Ping,
    RefDeleted,
    ForkPullRequest,
    KnownCommit,
    Asked,
    OtherEvent,
}

/// A hook's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the state that it names")]
pub enum Signature {
    Right,
    Wrong,
    None,
}

/// One delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryLine {
    /// The forge's name of the event: data.
    pub event: String,
    /// Branch, tag or pull request; empty where it has none.
    pub ref_name: String,
    /// The commit, abbreviated; empty where it has none.
    pub commit: String,
    /// What became of it.
    pub became: Became,
    /// Its signature.
    pub signature: Signature,
    /// When it came.
    pub at_ms: i64,
}

impl DeliveryLine {
    const fn icon(&self) -> (&'static str, &'static str) {
        match self.became {
            Became::Received => ("wait", "dim"),
            Became::Run { .. } => ("done", "dim"),
            Became::Repeat | Became::Ignored { .. } => ("skip", "dim"),
            Became::Refused { .. } => ("fail", "bad"),
            Became::Failed { .. } => ("fault", "warn"),
        }
    }
}

/// The hook of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookView {
    /// The address for each forge that is spoken to: forge's name, address.
    pub urls: Vec<(String, String)>,
    /// The secret, only right after it was made.
    pub new_secret: Option<String>,
    /// A hook without a signature is accepted.
    pub allows_unsigned: bool,
    /// How often the repository is polled; none for never.
    pub polled_every_ms: Option<i64>,
    /// When it was last polled.
    pub polled_at_ms: Option<i64>,
    /// What the last poll failed with: data.
    pub poll_error: Option<String>,
    /// The last deliveries, newest first.
    pub deliveries: Vec<DeliveryLine>,
}

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its repository, without credentials.
    pub repository: String,
    /// Its release branch; none for the repository's default.
    pub branch: Option<String>,
    /// Its base config with its version.
    pub base: Option<String>,
    /// What is on its way.
    pub current: Option<Current>,
    /// Its environments.
    pub environments: Vec<EnvironmentView>,
    /// Its releases, newest first, bounded.
    pub releases: Vec<ReleaseLine>,
    /// Its hook.
    pub hook: HookView,
    /// The public half of the SSH key that the repository must know.
    pub ssh_public_key: Option<String>,
    /// The port that it listens on.
    pub port: Option<u16>,
    /// The services that it calls.
    pub calls: Vec<String>,
    /// The services that call it.
    pub called_by: Vec<String>,
    /// Its testers.
    pub testers: Vec<String>,
    /// Who stands in for them.
    pub deputies: Vec<String>,
    /// How many of them must approve.
    pub approvals: u32,
    /// Who promotes and aborts.
    pub managers: Vec<String>,
    /// This person may start runs, edit and roll back.
    pub can_start: bool,
    /// This person may edit it.
    pub can_edit: bool,
}

impl ServiceView {
    fn why(&self, current: &Current, t: &Text<'_>) -> Option<Sentence> {
        current.why.as_ref().map(|why| t.why(why))
    }

    fn run_action(&self) -> String {
        links::service_run(&self.name)
    }

    fn secrets_href(&self) -> String {
        links::service_secrets(&self.name)
    }

    fn edit_href(&self) -> String {
        links::service_edit(&self.name)
    }

    fn rollback_action(&self) -> String {
        links::service_rollback(&self.name)
    }

    fn run_href(&self, run: &u64) -> String {
        links::run(&self.name, *run)
    }

    fn topic(&self) -> String {
        format!("service:{}", self.name)
    }

    fn calls_text(&self, t: &Text<'_>) -> String {
        t.list(&self.calls)
    }

    fn called_by_text(&self, t: &Text<'_>) -> String {
        t.list(&self.called_by)
    }

    fn testers_text(&self, t: &Text<'_>) -> String {
        t.list(&self.testers)
    }

    fn managers_text(&self, t: &Text<'_>) -> String {
        t.list(&self.managers)
    }
}

/// A digest with its two ends, where the line holds no more.
pub(super) fn digest_ends(digest: &str) -> String {
    let last = digest.chars().rev().take(5).collect::<Vec<_>>();
    match digest.split_once(':') {
        Some((kind, hex)) if hex.len() > 20 => {
            format!("{kind}:{}…{}", short_digest(digest), last.into_iter().rev().collect::<String>())
        }
        _ => String::from(digest),
    }
}

/// The beginning of a digest, short enough for a column.
pub(super) fn short_digest(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.chars().take(12).collect()
}

page!(ServiceView, ServicePage, "service.html", Section::Services, |v| Some(links::events(&[&v.topic()])));
