//! What makes a run: which ref moved to which commit, who said so, and whether it may become a release.
//! Not here: how a hook is verified or a ref is listed.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CommitSha, TraceParent},
    time::UnixMs,
};

/// Why a run exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// A branch moved, told by a hook or found by polling.
    Push,
    /// A tag appeared.
    Tag,
    /// A pull request was opened or moved.
    PullRequest,
    /// A person asked.
    Manual,
}

impl TriggerKind {
    /// The word for it, also in `CI_PIPELINE_EVENT`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::PullRequest => "pull_request",
            Self::Manual => "manual",
        }
    }
}

/// How the trigger was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerSource {
    /// A forge's hook.
    Hook,
    /// `ls-remote`.
    Poll,
    /// A person, by page, command line or API.
    Person,
}

/// One reason to run the pipeline at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Trigger {
    /// Why.
    pub kind: TriggerKind,
    /// From where it was learnt.
    pub source: TriggerSource,
    /// The full ref: `refs/heads/main`, `refs/tags/v1`, `refs/pull/7/head`.
    pub git_ref: String,
    /// The exact commit.
    pub commit: CommitSha,
    /// Number of the pull request, if it is one.
    pub pull_request: Option<u64>,
    /// Whether the commit comes from a repository other than the registered one.
    pub from_fork: bool,
    /// First line of the commit message, as far as it is known yet.
    pub subject: String,
    /// The commit's author as far as it is known yet.
    pub author: String,
    /// The author's mail address as far as it is known yet.
    pub author_email: String,
    /// Who asked, for a manual run.
    pub requested_by: Option<String>,
    /// When the hook came in that told it; none where it was learnt another way.
    #[serde(default)]
    pub heard_at: Option<UnixMs>,
    /// The trace of whoever told it or asked for it, where they named one.
    #[serde(default)]
    pub traceparent: Option<TraceParent>,
}

impl Trigger {
    /// That `git_ref` of the registered repository is at `commit`, with nothing more known of it yet.
    #[must_use]
    pub fn of_ref(git_ref: &str, commit: CommitSha, source: TriggerSource) -> Self {
        Self {
            kind: if git_ref.starts_with("refs/tags/") { TriggerKind::Tag } else { TriggerKind::Push },
            source,
            git_ref: git_ref.to_owned(),
            commit,
            pull_request: None,
            from_fork: false,
            subject: String::new(),
            author: String::new(),
            author_email: String::new(),
            requested_by: None,
            heard_at: None,
            traceparent: None,
        }
    }

    /// `main` of `refs/heads/main`.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.git_ref.strip_prefix("refs/heads/")
    }

    /// `v1` of `refs/tags/v1`.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.git_ref.strip_prefix("refs/tags/")
    }

    /// The ref as people say it: branch, tag, or `#7`.
    #[must_use]
    pub fn ref_name(&self) -> String {
        match (self.branch(), self.tag(), self.pull_request) {
            (Some(branch), ..) => branch.to_owned(),
            (_, Some(tag), _) => tag.to_owned(),
            (_, _, Some(number)) => format!("#{number}"),
            _ => self.git_ref.clone(),
        }
    }

    /// Whether the run may be given secrets: only where the commit stands in the registered repository itself, under a
    /// branch or tag, or as a pull request that the forge says does not come from a fork.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        let is_ours = match self.kind {
            TriggerKind::PullRequest => true,
            // Whoever asks for `refs/pull/7/head` by hand does not make it ours.
            TriggerKind::Push | TriggerKind::Tag | TriggerKind::Manual => {
                self.pull_request.is_none() && (self.branch().is_some() || self.tag().is_some())
            }
        };
        is_ours && !self.from_fork
    }

    /// Whether its run may push an image: nothing that a stranger wrote may. Secrets ask for more, see
    /// [`Self::is_trusted`].
    #[must_use]
    pub fn may_push(&self) -> bool {
        !self.from_fork
    }

    /// Whether the registered bounds let this become a release: the release branch, or a tag (which the pipeline file's
    /// `on.tags` must then name). A pull request never does. The pipeline file only narrows this.
    #[must_use]
    pub fn may_release(&self, release_branch: &str) -> bool {
        match self.kind {
            TriggerKind::PullRequest => false,
            TriggerKind::Push | TriggerKind::Tag | TriggerKind::Manual => {
                !self.from_fork && (self.branch() == Some(release_branch) || self.tag().is_some())
            }
        }
    }
}

/// A ref as it was last seen, with the commits that it was seen at before: a hook that comes late is known by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SeenRef {
    /// Where it is.
    pub commit: CommitSha,
    /// Where it was, newest first, at most [`SEEN_COMMITS_MAX`].
    pub before: Vec<CommitSha>,
}

/// Earlier commits that are remembered per ref.
pub const SEEN_COMMITS_MAX: usize = 20;

impl SeenRef {
    /// A ref seen for the first time.
    #[must_use]
    pub fn first(commit: CommitSha) -> Self {
        Self { commit, before: Vec::new() }
    }

    /// The ref after it moved to `commit`.
    #[must_use]
    pub fn moved(&self, commit: CommitSha) -> Self {
        let mut before = vec![self.commit.clone()];
        before.extend(self.before.iter().filter(|old| **old != self.commit).cloned());
        before.truncate(SEEN_COMMITS_MAX);
        Self { commit, before }
    }

    /// Whether it was seen at `commit`, now or before.
    #[must_use]
    pub fn knows(&self, commit: &CommitSha) -> bool {
        self.commit == *commit || self.before.contains(commit)
    }
}

/// What a hook about a ref is worth, held against what was seen of the ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookNews {
    /// It tells of the next move, which makes a run.
    Next,
    /// The ref was seen at this commit before.
    Known,
    /// The ref was seen elsewhere than where the hook says that it left from: the hook is late, and a poll or another
    /// hook was faster; or one before it was lost. Which of the two, only the repository knows. A poll asks it for
    /// branches; for a pull request, see [`settled`].
    Unclear,
}

/// Holds the hook of `trigger`, which says that the ref was at `from`, against where the ref was last seen. Hooks come
/// late, twice and out of order, so that the commit of one may be older than what was seen.
#[must_use]
pub fn hook_news(seen: Option<&SeenRef>, trigger: &Trigger, from: Option<&CommitSha>) -> HookNews {
    match (seen, trigger.kind) {
        (None, _) => HookNews::Next,
        (Some(seen), _) if seen.knows(&trigger.commit) => HookNews::Known,
        (Some(seen), TriggerKind::Push | TriggerKind::PullRequest) if from != Some(&seen.commit) => HookNews::Unclear,
        _ => HookNews::Next,
    }
}

/// What an unclear hook of a pull request makes a run of, now that the repository has its ref at `at`; nothing where that
/// was seen before. Whose the commit is stays what the forge said in the hook: a pull request does not change sides. A
/// forge that shows no such ref is taken at its word.
#[must_use]
pub fn settled(seen: Option<&SeenRef>, trigger: &Trigger, at: Option<&CommitSha>) -> Option<Trigger> {
    match at {
        None => Some(trigger.clone()),
        Some(at) if seen.is_some_and(|seen| seen.knows(at)) => None,
        Some(at) => Some(Trigger { commit: at.clone(), ..trigger.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_news_only_where_it_goes_on_from_what_was_seen() {
        let [old, new, newer] = [1, 2, 3].map(|number| format!("{number:040x}").parse::<CommitSha>().unwrap());
        let push = |commit: &CommitSha| Trigger { commit: commit.clone(), ..crate::samples::trigger(1) };
        assert_eq!(push(&old).kind, TriggerKind::Push);
        let first = SeenRef::first(old.clone());
        assert_eq!(hook_news(None, &push(&new), None), HookNews::Next);
        assert_eq!(hook_news(Some(&first), &push(&new), Some(&old)), HookNews::Next);
        assert_eq!(hook_news(Some(&first), &push(&old), None), HookNews::Known);
        // A poll has seen the newest already; the hook between comes late.
        let polled = first.moved(newer.clone());
        assert_eq!(hook_news(Some(&polled), &push(&new), Some(&old)), HookNews::Unclear);
        assert_eq!(hook_news(Some(&polled), &push(&newer), Some(&new)), HookNews::Known);
        // The hook before it was lost.
        assert_eq!(hook_news(Some(&first), &push(&newer), Some(&new)), HookNews::Unclear);
        assert_eq!(hook_news(Some(&first), &push(&newer), None), HookNews::Unclear);
        // An annotated tag's hook names other objects.
        let tag = Trigger { kind: TriggerKind::Tag, ..push(&newer) };
        assert_eq!(hook_news(Some(&first), &tag, Some(&new)), HookNews::Next);
    }

    #[test]
    fn a_ref_remembers_the_newest_commits_and_no_more_than_so_many() {
        let commit = |number: usize| format!("{number:040x}").parse::<CommitSha>().unwrap();
        let last = 3 * SEEN_COMMITS_MAX;
        let seen = (2..=last).fold(SeenRef::first(commit(1)), |seen, number| seen.moved(commit(number)));
        let newest: Vec<_> = (last - SEEN_COMMITS_MAX..last).rev().map(commit).collect();
        assert_eq!(seen, SeenRef { commit: commit(last), before: newest });
    }

    #[test]
    fn a_late_hook_of_a_pull_request_runs_nothing_older_than_what_the_repository_has() {
        let [old, new, newer] = [1, 2, 3].map(|number| format!("{number:040x}").parse::<CommitSha>().unwrap());
        let pull = |commit: &CommitSha| Trigger {
            kind: TriggerKind::PullRequest,
            commit: commit.clone(),
            from_fork: true,
            ..crate::samples::trigger(1)
        };
        let seen = SeenRef::first(new.clone());
        assert_eq!(hook_news(None, &pull(&new), None), HookNews::Next);
        assert_eq!(hook_news(Some(&seen), &pull(&new), None), HookNews::Known);
        // A forge does not say where a pull request was before.
        assert_eq!(hook_news(Some(&seen), &pull(&old), None), HookNews::Unclear);
        let settled = |commit, at| settled(Some(&seen), &pull(commit), at);
        assert_eq!(settled(&old, Some(&new)), None, "the hook was late");
        assert_eq!(settled(&newer, Some(&newer)), Some(pull(&newer)));
        assert_eq!(
            settled(&old, Some(&newer)),
            Some(pull(&newer)),
            "the newest hook was lost, and it is still a fork's"
        );
        assert_eq!(settled(&newer, None), Some(pull(&newer)), "the forge does not show the ref");
    }
}
