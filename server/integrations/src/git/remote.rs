//! Asking a server for its refs, and fetching one commit into a mirror. Not here: reading what was fetched.

use std::path::Path;

use git2::{AutotagOption, Direction, FetchOptions, Oid, Reference, Remote, RemoteCallbacks, Repository};
use pipelines::{ids::CommitSha, repository::RepositoryAddress};
use sha2::{Digest as _, Sha256};

use super::{GitOptions, credential::GitCredential, error::GitError, mirror, session::Session};

/// The end of the name under which a server shows what an annotated tag points to.
const PEELED: &str = "^{}";

/// One ref of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRef {
    /// The whole name, such as `refs/heads/main`.
    pub name: String,
    /// What it points to: a commit, or the object of an annotated tag.
    pub sha: CommitSha,
    /// The commit behind an annotated tag.
    pub peeled: Option<CommitSha>,
}

impl RemoteRef {
    /// The commit that it leads to.
    #[must_use]
    pub fn commit(&self) -> &CommitSha {
        self.peeled.as_ref().unwrap_or(&self.sha)
    }

    /// The name of the branch, if it is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }

    /// The name of the tag, if it is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.name.strip_prefix("refs/tags/")
    }
}

/// What a server has.
#[derive(Clone, Debug, Default)]
pub struct RemoteListing {
    /// Branches, tags and whatever else it shows, by name; `HEAD` is not among them.
    pub refs: Vec<RemoteRef>,
    /// The default branch, such as `main`: where `HEAD` points. `None` for an empty repository or a detached `HEAD`.
    pub default_branch: Option<String>,
    /// The line to store and pin, if the host key was trusted on its first use.
    pub learned_host_key: Option<String>,
}

/// How a commit came into the mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// It was there already; the server was not asked.
    pub already_there: bool,
    /// What was received, in bytes.
    pub received_bytes: u64,
    /// Where the ref that was given points now, if the server was asked and has it.
    pub tip: Option<CommitSha>,
    /// The line to store and pin, if the host key was trusted on its first use.
    pub learned_host_key: Option<String>,
}

/// Lists the refs of a repository. Blocking: call it on `spawn_blocking`.
///
/// # Errors
/// All of [`GitError`] that concern addresses, servers and credentials.
pub fn ls_remote(
    url: &RepositoryAddress,
    credential: &GitCredential,
    options: &GitOptions,
) -> Result<RemoteListing, GitError> {
    let session = Session::new(url, credential, options, options.max_refs_bytes, "the list of refs")?;
    let heads = session.run(|| {
        let mut remote = Remote::create_detached(session.remote_url())?;
        let connection = remote.connect_auth(Direction::Fetch, Some(callbacks(&session)), None)?;
        read_heads(connection.list()?)
    })?;
    let mut listing = listing_of(heads).map_err(|word| session.protocol(&word))?;
    listing.learned_host_key = session.learned_host_key();
    Ok(listing)
}

/// Brings one commit with its history into the bare mirror at `mirror_dir`, which is made if it is not there.
/// Blocking: call it on `spawn_blocking`. Several may run on one mirror at once.
///
/// `reference` is where the commit was seen (`refs/heads/main`, `main`, `v1.2`): it is fetched first, then the commit is
/// looked up; a commit that is not on it any more is asked for by its id, and at last all branches and tags are. A commit
/// that the mirror has is never asked for again, so a force push does not stop a run that is repeated.
///
/// That a server hands a commit out does not say that it is on a branch (forges serve commits of forks by id): before
/// something is released, ask [`super::is_ancestor`] with the tip.
///
/// # Errors
/// [`GitError::CommitVanished`] if the server has it no more; all that concern addresses, servers and credentials;
/// [`GitError::TooLarge`] for a pack over the limit.
pub fn fetch_commit(
    mirror_dir: &Path,
    url: &RepositoryAddress,
    credential: &GitCredential,
    reference: Option<&str>,
    commit: &CommitSha,
    options: &GitOptions,
) -> Result<Fetched, GitError> {
    let wanted = mirror::oid(commit)?;
    let repository = mirror::open_or_create(mirror_dir, options)?;
    if repository.find_commit(wanted).is_ok() {
        return Ok(Fetched { already_there: true, ..Fetched::default() });
    }
    let budget = options.max_pack_bytes.saturating_add(options.max_refs_bytes);
    let session = Session::new(url, credential, options, budget, "the fetched pack")?;
    let fetch = Fetch { session: &session, repository: &repository, wanted };

    let mut tip = None;
    let mut found = false;
    for step in [Step::Refs, Step::Id, Step::Everything] {
        let outcome = session.run(|| fetch.attempt(step, reference));
        found = repository.find_commit(wanted).is_ok();
        match outcome {
            Ok(now) => tip = now.or(tip),
            // Servers say "no" to an id in many ways, and some just hang up.
            Err(GitError::Protocol { .. } | GitError::NotFound { .. } | GitError::Unreachable { .. })
                if step == Step::Id => {}
            Err(error) if !found => return Err(error),
            Err(_) => {}
        }
        if found {
            break;
        }
    }
    if !found {
        let reference = reference.map(str::to_owned);
        return Err(GitError::CommitVanished { commit: commit.clone(), reference });
    }
    Ok(Fetched {
        already_there: false,
        received_bytes: session.received_bytes(),
        tip: tip.and_then(|oid| oid.to_string().parse().ok()),
        learned_host_key: session.learned_host_key(),
    })
}

/// The ways to a commit, cheapest first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The ref that it was seen on, and any that points to it now.
    Refs,
    /// The commit itself, which not every server allows.
    Id,
    /// All branches and tags.
    Everything,
}

struct Fetch<'a> {
    session: &'a Session,
    repository: &'a Repository,
    wanted: Oid,
}

impl Fetch<'_> {
    /// One connection. Gives where `reference` points on the server.
    fn attempt(&self, step: Step, reference: Option<&str>) -> Result<Option<Oid>, git2::Error> {
        let mut remote = self.repository.remote_anonymous(&self.session.remote_url())?;
        let mut connection = remote.connect_auth(Direction::Fetch, Some(callbacks(self.session)), None)?;
        let heads = read_heads(connection.list()?)?;
        let seen_on = reference.and_then(|reference| find(&heads, reference));
        let chosen: Vec<&Head> = match step {
            Step::Refs => heads
                .iter()
                .filter(|head| seen_on.is_some_and(|seen| seen.name == head.name) || head.oid == self.wanted)
                .collect(),
            Step::Id => Vec::new(),
            Step::Everything => {
                let usual = |name: &str| name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
                heads.iter().filter(|head| usual(&head.name)).collect()
            }
        };
        let chosen: Vec<&Head> = chosen.into_iter().filter(|head| head.is_fetchable()).collect();
        let specs: Vec<String> = match step {
            Step::Id => vec![format!("{}:refs/windlass/asked", self.wanted)],
            _ => chosen.iter().map(|head| head.name.clone()).collect(),
        };
        if !specs.is_empty() {
            let mut options = FetchOptions::new();
            options.remote_callbacks(callbacks(self.session)).download_tags(AutotagOption::None);
            connection.remote().download(&specs, Some(&mut options))?;
            self.remember(&chosen);
        }
        Ok(seen_on.map(|head| head.oid))
    }

    /// Keeps refs to what the mirror has: the next fetch tells the server, and gets only what is new. They are named by
    /// a hash, because a server may have `a` today and `a/b` tomorrow. That one cannot be written costs only time.
    fn remember(&self, heads: &[&Head]) {
        let asked = self.repository.find_commit(self.wanted).is_ok().then(|| (self.wanted.to_string(), self.wanted));
        let tips = heads.iter().map(|head| (head.name.clone(), head.oid));
        for (name, oid) in tips.chain(asked) {
            let name = format!("refs/windlass/seen/{}", hex::encode(Sha256::digest(name)));
            if let Err(error) = self.repository.reference(&name, oid, true, "fetched") {
                tracing::debug!(error = error.message(), "a fetched ref was not kept");
            }
        }
    }
}

struct Head {
    name: String,
    oid: Oid,
    symref: Option<String>,
}

impl Head {
    /// Not `HEAD`, not a peeled tag, and a name that git allows (a server may send anything).
    fn is_fetchable(&self) -> bool {
        self.name.starts_with("refs/") && !self.name.ends_with(PEELED) && Reference::is_valid_name(&self.name)
    }
}

/// The head that a person means: a whole name, else a branch, else a tag.
fn find<'a>(heads: &'a [Head], reference: &str) -> Option<&'a Head> {
    let named = |name: &str| heads.iter().find(|head| head.name == name);
    if reference.starts_with("refs/") {
        return named(reference);
    }
    named(&format!("refs/heads/{reference}")).or_else(|| named(&format!("refs/tags/{reference}")))
}

fn callbacks(session: &Session) -> RemoteCallbacks<'_> {
    let mut callbacks = RemoteCallbacks::new();
    callbacks.transfer_progress(move |progress| session.goes_on(progress.received_bytes()));
    callbacks.sideband_progress(move |_| session.goes_on(0));
    callbacks
}

fn read_heads(heads: &[git2::RemoteHead<'_>]) -> Result<Vec<Head>, git2::Error> {
    // git2 panics on names that are not UTF-8, which a server may send; nothing is half-done here when it does.
    let read = std::panic::AssertUnwindSafe(|| {
        heads
            .iter()
            .map(|head| Head {
                name: head.name().to_owned(),
                oid: head.oid(),
                symref: head.symref_target().map(str::to_owned),
            })
            .collect()
    });
    std::panic::catch_unwind(read)
        .map_err(|_| git2::Error::from_str("remote error: a ref has a name that is not UTF-8"))
}

fn listing_of(heads: Vec<Head>) -> Result<RemoteListing, String> {
    let sha = |oid: Oid| oid.to_string().parse::<CommitSha>().map_err(|error| error.to_string());
    let mut listing = RemoteListing::default();
    let mut head_at = None;
    for head in &heads {
        if head.name == "HEAD" {
            let branch = head.symref.as_deref().and_then(|target| target.strip_prefix("refs/heads/"));
            listing.default_branch = branch.map(str::to_owned);
            head_at = Some(head.oid);
        } else if let Some(tag) = head.name.strip_suffix(PEELED) {
            // It follows its tag directly (gitprotocol-pack, "Reference Discovery").
            if let Some(last) = listing.refs.last_mut().filter(|last| last.name == tag) {
                last.peeled = Some(sha(head.oid)?);
            }
        } else {
            listing.refs.push(RemoteRef { name: head.name.clone(), sha: sha(head.oid)?, peeled: None });
        }
    }
    listing.refs.sort_by(|a, b| a.name.cmp(&b.name));
    if listing.default_branch.is_none() {
        listing.default_branch = head_at.and_then(|oid| guessed_default(&heads, oid));
    }
    Ok(listing)
}

/// Old servers do not say where `HEAD` points: the usual names first, then any branch with the same commit.
fn guessed_default(heads: &[Head], at: Oid) -> Option<String> {
    let branches =
        || heads.iter().filter(|head| head.oid == at).filter_map(|head| head.name.strip_prefix("refs/heads/"));
    let usual = ["main", "master"].into_iter().find(|usual| branches().any(|branch| branch == *usual));
    usual.or_else(|| branches().next()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str, digit: char, symref: Option<&str>) -> Head {
        let oid = Oid::from_str(&digit.to_string().repeat(40)).unwrap();
        Head { name: name.into(), oid, symref: symref.map(str::to_owned) }
    }

    #[test]
    fn tags_are_peeled_and_head_names_the_default_branch() {
        let heads = vec![
            head("HEAD", 'a', Some("refs/heads/trunk")),
            head("refs/heads/trunk", 'a', None),
            head("refs/tags/v1", 'b', None),
            head("refs/tags/v1^{}", 'a', None),
            head("refs/tags/v0", 'c', None),
        ];
        let listing = listing_of(heads).unwrap();
        assert_eq!(listing.default_branch.as_deref(), Some("trunk"));
        let names: Vec<&str> = listing.refs.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["refs/heads/trunk", "refs/tags/v0", "refs/tags/v1"]);
        assert_eq!(listing.refs[2].commit().as_str(), "a".repeat(40));
        assert_eq!(listing.refs[1].commit().as_str(), "c".repeat(40));
    }

    #[test]
    fn the_default_branch_is_guessed_where_a_server_does_not_say() {
        let heads = |symref| {
            vec![head("HEAD", 'a', symref), head("refs/heads/a", 'a', None), head("refs/heads/main", 'a', None)]
        };
        assert_eq!(listing_of(heads(None)).unwrap().default_branch.as_deref(), Some("main"));
        assert_eq!(listing_of(Vec::new()).unwrap().default_branch, None);
    }
}
