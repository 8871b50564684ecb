//! The outside parties of one service, as far as the train can tell them apart: git, the runner's disk, two registries,
//! containers, the gateway with its requests, the testers' mailboxes. They keep what they have when the server dies.
//! What must never happen there is told at once.

use std::collections::{BTreeMap, BTreeSet};

use pipelines::{
    approval::Reminder,
    hold::HoldBounds,
    ids::{CommitSha, Digest, Environment, RevisionId},
    labels::Labels,
    plan::{CanaryStep, Check, DeliveryPlan, DeployPlan, JudgePolicy, Metric, ProductionPlan, Strategy, TestPlan},
    rollout::judge::RevisionStats,
    time::UnixMs,
};

use crate::{
    promise::{Promise, Violation},
    rng::Rng,
    runner::{Said, fast},
};

pub(crate) const TESTERS: [&str; 3] = ["dev@example.com", "lee@example.com", "qa@example.com"];
pub(crate) const DEPUTIES: [&str; 2] = ["sub@example.com", "vic@example.com"];
/// Tight, so that waiting runs are pushed out and expire.
pub(crate) const HOLD: HoldBounds = HoldBounds { runs_max: 2, expires_ms: 60_000 };
pub(crate) const RELEASE_REF: &str = "refs/heads/main";

/// What a commit turns out to be.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) author: &'static str,
    pub(crate) is_red: bool,
    pub(crate) dies_in_test: bool,
    pub(crate) dies_in_production: bool,
    pub(crate) answers_errors: bool,
    pub(crate) labels: Labels,
    pub(crate) plan: DeliveryPlan,
}

impl Commit {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let strategy = match rng.below(4) {
            0 => Strategy::Rolling,
            1 => Strategy::BlueGreen { preview_ms: rng.below(2) * 5_000, keep_ms: rng.below(2) * 8_000 },
            _ => {
                let step = |weight_percent| CanaryStep { weight_percent, hold_ms: 10_000 };
                Strategy::Canary { steps: vec![step(10), step(50)] }
            }
        };
        let check = Check { metric: Metric::SuccessRate, limit: 95.0 };
        let judge = JudgePolicy {
            checks: if rng.chance(50) { vec![check] } else { Vec::new() },
            compare_with_stable: true,
            min_requests: 20,
            insufficient_limit_ms: 10_000,
        };
        let deploy = DeployPlan {
            port: 8080,
            host: None,
            env: BTreeMap::new(),
            health_path: "/".into(),
            health_timeout_ms: 1_000,
            replicas: u32::try_from(1 + rng.below(3)).unwrap_or(1),
            memory_bytes: None,
            cpu_milli: None,
            command: Vec::new(),
        };
        let test = TestPlan {
            testers: TESTERS.map(str::to_owned).to_vec(),
            approvals: match rng.below(10) {
                0..=5 => 1,
                6..=8 => 2,
                _ => 3,
            },
            deputies: if rng.chance(50) { DEPUTIES.map(str::to_owned).to_vec() } else { Vec::new() },
            expires_ms: 1_800_000,
        };
        Self {
            author: if rng.chance(50) { "dev@example.com" } else { "nobody@example.com" },
            is_red: rng.chance(6),
            dies_in_test: rng.chance(6),
            dies_in_production: rng.chance(6),
            answers_errors: rng.chance(15),
            labels: if rng.chance(10) { fast() } else { Labels::default() },
            plan: DeliveryPlan {
                base: "static-site@1.0.0".into(),
                deploy,
                test,
                production: ProductionPlan { strategy, judge },
            },
        }
    }
}

/// The containers of one revision.
#[derive(Clone, Debug)]
pub(crate) struct Containers {
    pub(crate) digest: Digest,
    /// Number of each replica, and how many containers were made for it.
    pub(crate) replicas: BTreeMap<u32, u32>,
}

/// What the gateway does now; it is kept when the server dies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) production: Vec<(RevisionId, u8)>,
    pub(crate) preview: Option<RevisionId>,
    pub(crate) test: Option<RevisionId>,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    /// The name of the service whose world it is.
    pub(crate) service: String,
    commits: BTreeMap<CommitSha, Commit>,
    /// The commit at which each ref is.
    pub(crate) heads: BTreeMap<String, CommitSha>,
    /// The same of pull requests, which nobody polls.
    pub(crate) pulls: BTreeMap<String, CommitSha>,
    /// What runners built and pushed, by run and attempt: their disks know it after a crash.
    pub(crate) built: BTreeMap<(u32, u32), Digest>,
    /// What runners said and nobody has heard yet.
    pub(crate) late: Vec<Said>,
    pub(crate) test_registry: BTreeSet<Digest>,
    /// Where each tag of the test registry points: anybody who may push can move one.
    pub(crate) tags: BTreeMap<String, Digest>,
    /// Runs that failed for a reason of the infrastructure.
    pub(crate) infrastructure_failed: BTreeSet<u32>,
    /// With the number of times that the image was copied whole.
    pub(crate) production_registry: BTreeMap<Digest, u32>,
    pub(crate) containers: BTreeMap<(Environment, RevisionId), Containers>,
    pub(crate) table: Table,
    pub(crate) in_flight: BTreeMap<RevisionId, u64>,
    pub(crate) stats: BTreeMap<RevisionId, RevisionStats>,
    /// Revisions that answer errors.
    bad: BTreeSet<RevisionId>,
    /// Message-IDs by what the mail is about.
    pub(crate) mailbox: BTreeMap<String, BTreeSet<String>>,
    /// The reminder that came last to somebody, by release, round and person.
    reminded: BTreeMap<(u32, u32, String), Reminder>,
    /// Commits of forks.
    pub(crate) strangers: BTreeSet<CommitSha>,
    pub(crate) requests: u64,
    /// Whoever visits has gone for a while.
    pub(crate) is_quiet: bool,
}

impl World {
    pub(crate) fn push(&mut self, git_ref: &str, rng: &mut Rng) -> Option<CommitSha> {
        let sha: CommitSha = format!("{:040x}", self.commits.len() + 1).parse().ok()?;
        self.commits.insert(sha.clone(), Commit::new(rng));
        self.heads.insert(git_ref.to_owned(), sha.clone());
        Some(sha)
    }

    /// A stranger's commit, at which no branch of the repository is.
    pub(crate) fn commit_from_fork(&mut self, git_ref: &str, rng: &mut Rng) -> Option<CommitSha> {
        let sha: CommitSha = format!("{:040x}", self.commits.len() + 1).parse().ok()?;
        self.commits.insert(sha.clone(), Commit::new(rng));
        self.strangers.insert(sha.clone());
        self.pulls.insert(git_ref.to_owned(), sha.clone());
        Some(sha)
    }

    pub(crate) fn commit(&self, sha: &CommitSha) -> Result<&Commit, Violation> {
        self.commits.get(sha).ok_or_else(|| Violation::new(Promise::NothingLost, format!("there is no commit {sha}")))
    }

    /// Builds and pushes the image of a run, unless its runner did before it died. No two builds give the same image.
    pub(crate) fn push_image(&mut self, run: u32, attempt: u32) -> Digest {
        let name = format!("image of {} {}", self.service, tag_of_attempt(run, attempt));
        let digest = self.built.entry((run, attempt)).or_insert_with(|| Digest::of(name.as_bytes())).clone();
        if self.test_registry.insert(digest.clone()) {
            self.tags.insert(tag_of_attempt(run, attempt), digest.clone());
        }
        digest
    }

    /// Somebody pushes another image under a tag that is there.
    pub(crate) fn move_tag(&mut self, rng: &mut Rng) -> Option<String> {
        let index = rng.index(self.tags.len());
        let (tag, digest) = self.tags.iter_mut().nth(index)?;
        *digest = Digest::of(format!("another {} {tag}", self.service).as_bytes());
        self.test_registry.insert(digest.clone());
        Some(tag.clone())
    }

    pub(crate) fn promote(&mut self, digest: &Digest, looks_first: bool) -> Result<(), Violation> {
        if !self.test_registry.contains(digest) {
            let words = format!("{} is promoted and not in the test registry", digest.short());
            return Err(Violation::new(Promise::Approved, words));
        }
        let copies = self.production_registry.entry(digest.clone()).or_default();
        if *copies == 0 || !looks_first {
            *copies += 1;
        }
        Ok(())
    }

    pub(crate) fn start(
        &mut self,
        environment: Environment,
        revision: &RevisionId,
        digest: &Digest,
        replica: u32,
        looks_first: bool,
    ) -> Result<(), Violation> {
        let is_there = match environment {
            Environment::Test => self.test_registry.contains(digest),
            Environment::Production => self.production_registry.contains_key(digest),
        };
        if !is_there {
            let words = format!("{revision} starts in {environment} before its image is in the registry");
            return Err(Violation::new(Promise::Approved, words));
        }
        let containers = self
            .containers
            .entry((environment, revision.clone()))
            .or_insert_with(|| Containers { digest: digest.clone(), replicas: BTreeMap::new() });
        let made = containers.replicas.entry(replica).or_default();
        if *made == 0 || !looks_first {
            *made += 1;
        }
        Ok(())
    }

    /// Removes one container of a revision; says whether it was the last.
    pub(crate) fn remove_one(&mut self, environment: Environment, revision: &RevisionId) -> Result<bool, Violation> {
        if environment == Environment::Production && self.in_flight.get(revision).is_some_and(|count| *count > 0) {
            let words = format!("{revision} is removed while it answers requests: they are lost");
            return Err(Violation::new(Promise::NoRequestLost, words));
        }
        let key = (environment, revision.clone());
        let Some(containers) = self.containers.get_mut(&key) else { return Ok(true) };
        containers.replicas.pop_last();
        let is_gone = containers.replicas.is_empty();
        if is_gone {
            self.containers.remove(&key);
        }
        Ok(is_gone)
    }

    pub(crate) fn is_serving(&self, revision: &RevisionId) -> bool {
        let has_share = self.table.production.iter().any(|(other, share)| other == revision && *share > 0);
        has_share || self.table.preview.as_ref() == Some(revision)
    }

    pub(crate) fn note_character(&mut self, revision: &RevisionId, sha: &CommitSha) -> Result<(), Violation> {
        if self.commit(sha)?.answers_errors {
            self.bad.insert(revision.clone());
        }
        Ok(())
    }

    pub(crate) fn stats_of(&self, revision: &RevisionId) -> RevisionStats {
        self.stats.get(revision).cloned().unwrap_or_default()
    }

    /// Some requests come, and some that were under way end.
    pub(crate) fn traffic(&mut self, requests: u64, rng: &mut Rng) -> Result<(), Violation> {
        for count in self.in_flight.values_mut() {
            // Some take long: a download, a page that stays open.
            if rng.chance(20) {
                *count = rng.below(*count);
            }
        }
        self.in_flight.retain(|_, count| *count > 0);
        if self.is_quiet {
            return Ok(());
        }
        for (revision, share) in &self.table.production {
            let count = requests * u64::from(*share) / 100;
            if count == 0 {
                continue;
            }
            if !self.containers.contains_key(&(Environment::Production, revision.clone())) {
                let words = format!("{count} requests to {revision}, which has no container, are lost");
                return Err(Violation::new(Promise::NoRequestLost, words));
            }
            let errors = if self.bad.contains(revision) { count.div_ceil(4) } else { 0 };
            let stats = self.stats.entry(revision.clone()).or_default();
            stats.requests += count;
            stats.errors += errors;
            stats.latency = vec![(10, stats.requests), (u64::MAX, 0)];
            *self.in_flight.entry(revision.clone()).or_default() += rng.below(3);
            self.requests += count;
        }
        Ok(())
    }

    /// A reminder comes; the same one may come again, with the same Message-ID, an earlier one never.
    pub(crate) fn remind(&mut self, about: (u32, u32, &str), reminder: Reminder) -> Result<(), Violation> {
        let (release, round, person) = about;
        let last = self.reminded.insert((release, round, person.to_owned()), reminder);
        if last > Some(reminder) {
            let words = format!("{person} gets {} for {release} after a later one", reminder.word());
            return Err(Violation::new(Promise::NothingTwice, words));
        }
        Ok(())
    }

    pub(crate) fn mail(&mut self, about: &str, message_id: String) {
        self.mailbox.entry(about.to_owned()).or_default().insert(message_id);
    }
}

/// When every simulation begins.
pub(crate) const START: UnixMs = UnixMs(1_000_000_000);

/// The tag under which the image of a run is pushed.
pub(crate) fn tag_of(run: u32) -> String {
    format!("r{run}")
}

/// Each attempt has a tag of its own: nobody moves another's.
pub(crate) fn tag_of_attempt(run: u32, attempt: u32) -> String {
    if attempt <= 1 { tag_of(run) } else { format!("{}-{attempt}", tag_of(run)) }
}
