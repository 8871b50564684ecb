//! Reading a mirror: what changed between two commits, single files, folders. Not here: fetching, writing trees.

use std::path::Path;

use git2::{Commit, DiffOptions, ObjectType, Repository, Sort};
use pipelines::{ids::CommitSha, time::UnixMs};

use super::{
    checkout::{person, unix_ms},
    error::GitError,
    mirror,
    tree::shown,
};

/// The longest first line that is kept of a commit, in characters.
const SUBJECT_MAX_CHARS: usize = 200;
/// Files above this size count as binary in a statistic of changes, in bytes.
const DIFF_MAX_FILE_BYTES: i64 = 1 << 20;

/// One commit, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitSummary {
    /// The commit.
    pub sha: CommitSha,
    /// The first line of its message.
    pub subject: String,
    /// Author's name.
    pub author: String,
    /// Author's mail address.
    pub author_email: String,
    /// When it was committed.
    pub committed_at: UnixMs,
}

/// The commits between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changelog {
    /// Newest first.
    pub commits: Vec<CommitSummary>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

/// One entry below a folder of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeFile {
    /// Its path in the tree, with `/`.
    pub path: String,
    /// Its size, in bytes.
    pub size_bytes: u64,
}

/// How much changed between two commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffStat {
    /// Files that were added, changed or removed.
    pub files: usize,
    /// Lines that came; `None` if too many files changed to count lines.
    pub insertions: Option<usize>,
    /// Lines that went.
    pub deletions: Option<usize>,
}

/// The commits that `to` has and `from_exclusive` has not, newest first, at most `max`. `None` is the beginning.
/// Empty if `to` is an ancestor of `from_exclusive`, as after going back. Blocking.
///
/// # Errors
/// [`GitError::NotInMirror`] for either commit, [`GitError::Damaged`].
pub fn changelog(
    mirror_dir: &Path,
    from_exclusive: Option<&CommitSha>,
    to: &CommitSha,
    max: usize,
) -> Result<Changelog, GitError> {
    let repository = mirror::open(mirror_dir)?;
    let to = mirror::commit(&repository, to)?.id();
    let from = from_exclusive.map(|from| mirror::commit(&repository, from)).transpose()?.map(|from| from.id());
    let walk = || -> Result<Changelog, git2::Error> {
        let mut walk = repository.revwalk()?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME)?;
        walk.push(to)?;
        if let Some(from) = from {
            walk.hide(from)?;
        }
        let mut changelog = Changelog::default();
        for oid in walk {
            let commit = repository.find_commit(oid?)?;
            if changelog.commits.len() == max {
                changelog.more = true;
                break;
            }
            changelog.commits.extend(summary(&commit));
        }
        Ok(changelog)
    };
    walk().map_err(GitError::damaged(mirror_dir))
}

fn summary(commit: &Commit<'_>) -> Option<CommitSummary> {
    let subject = String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default());
    let author = commit.author();
    Some(CommitSummary {
        sha: commit.id().to_string().parse().ok()?,
        subject: subject.chars().filter(|c| !c.is_control()).take(SUBJECT_MAX_CHARS).collect(),
        author: person(author.name_bytes()),
        author_email: person(author.email_bytes()),
        committed_at: unix_ms(commit.time()),
    })
}

/// Whether `ancestor` is `commit` or in its history: whether a commit is on a branch whose tip is `commit`. Blocking.
///
/// # Errors
/// [`GitError::NotInMirror`] for either commit, [`GitError::Damaged`].
pub fn is_ancestor(mirror_dir: &Path, ancestor: &CommitSha, commit: &CommitSha) -> Result<bool, GitError> {
    let repository = mirror::open(mirror_dir)?;
    let ancestor = mirror::commit(&repository, ancestor)?.id();
    let commit = mirror::commit(&repository, commit)?.id();
    let below = || repository.graph_descendant_of(commit, ancestor).map_err(GitError::damaged(mirror_dir));
    Ok(ancestor == commit || below()?)
}

/// The content of one file of a commit; `None` if there is nothing at that path. Symbolic links are not followed. Blocking.
///
/// # Errors
/// [`GitError::NotAFile`] for a folder, a link or a submodule, [`GitError::TooLarge`] over `max_bytes`,
/// [`GitError::NotInMirror`], [`GitError::Damaged`].
pub fn file_at(mirror_dir: &Path, commit: &CommitSha, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, GitError> {
    let repository = mirror::open(mirror_dir)?;
    let tree = mirror::commit(&repository, commit)?.tree().map_err(GitError::damaged(mirror_dir))?;
    // Trees hold plain names only, so `..` and a leading `/` find nothing.
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
        return Ok(None);
    }
    let entry = match tree.get_path(Path::new(path)) {
        Ok(entry) => entry,
        Err(error) if error.code() == git2::ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(GitError::damaged(mirror_dir)(error)),
    };
    let what = match entry.filemode_raw() {
        0o040_000 => Some("a folder"),
        0o120_000 => Some("a symbolic link"),
        0o160_000 => Some("a submodule"),
        _ => None,
    };
    if let Some(what) = what {
        return Err(GitError::NotAFile { path: shown(path.as_bytes()), what });
    }
    let odb = repository.odb().map_err(GitError::damaged(mirror_dir))?;
    let (size, kind) = odb.read_header(entry.id()).map_err(GitError::damaged(mirror_dir))?;
    if kind != ObjectType::Blob {
        return Err(GitError::NotAFile { path: shown(path.as_bytes()), what: "something else" });
    }
    if size as u64 > max_bytes {
        return Err(GitError::TooLarge { what: "the file", limit: max_bytes, unit: "bytes" });
    }
    Ok(Some(odb.read(entry.id()).map_err(GitError::damaged(mirror_dir))?.data().to_vec()))
}

/// The files below `prefix` (a folder; empty for all), by path. Links, submodules and paths that are not UTF-8 are left
/// out. Blocking.
///
/// # Errors
/// [`GitError::TooLarge`] over `max_files`, [`GitError::NotInMirror`], [`GitError::Damaged`].
pub fn files_under(
    mirror_dir: &Path,
    commit: &CommitSha,
    prefix: &str,
    max_files: usize,
) -> Result<Vec<TreeFile>, GitError> {
    let repository = mirror::open(mirror_dir)?;
    let root = mirror::commit(&repository, commit)?.tree().map_err(GitError::damaged(mirror_dir))?;
    let prefix = prefix.trim_matches('/');
    let tree = if prefix.is_empty() {
        root
    } else {
        match root.get_path(Path::new(prefix)).and_then(|entry| repository.find_tree(entry.id())) {
            Ok(tree) => tree,
            Err(error) if error.code() == git2::ErrorCode::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(GitError::damaged(mirror_dir)(error)),
        }
    };
    list_files(&repository, &tree, prefix, max_files)?.ok_or(GitError::TooLarge {
        what: "the folder",
        limit: max_files as u64,
        unit: "files",
    })
}

/// `None` if there are too many. (libgit2's own walk stops at the first folder whose name is not UTF-8.)
fn list_files(
    repository: &Repository,
    tree: &git2::Tree<'_>,
    prefix: &str,
    max_files: usize,
) -> Result<Option<Vec<TreeFile>>, GitError> {
    let damaged = || GitError::damaged(repository.path());
    let odb = repository.odb().map_err(damaged())?;
    let mut files = Vec::new();
    let mut seen = 0_usize;
    let mut ahead = vec![(prefix.to_owned(), tree.id())];
    while let Some((folder, id)) = ahead.pop() {
        let tree = repository.find_tree(id).map_err(damaged())?;
        for entry in tree.iter() {
            // Folders count too: a tree may hold the same folder in itself many times over without a single file.
            seen += 1;
            if seen > max_files.saturating_mul(4) || files.len() > max_files {
                return Ok(None);
            }
            let Ok(name) = entry.name() else { continue };
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            match entry.filemode_raw() {
                0o040_000 => ahead.push((path, entry.id())),
                0o100_644 | 0o100_664 | 0o100_755 => {
                    let (size, _) = odb.read_header(entry.id()).map_err(damaged())?;
                    files.push(TreeFile { path, size_bytes: size as u64 });
                }
                _ => {}
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((files.len() <= max_files).then_some(files))
}

/// How much changed from one commit to another; lines are counted if at most `max_files` changed. Blocking.
///
/// # Errors
/// [`GitError::NotInMirror`] for either commit, [`GitError::Damaged`].
pub fn diff_stat(mirror_dir: &Path, from: &CommitSha, to: &CommitSha, max_files: usize) -> Result<DiffStat, GitError> {
    let repository = mirror::open(mirror_dir)?;
    let (from, to) = (mirror::commit(&repository, from)?, mirror::commit(&repository, to)?);
    let count = || -> Result<DiffStat, git2::Error> {
        let mut options = DiffOptions::new();
        options.max_size(DIFF_MAX_FILE_BYTES).skip_binary_check(false).context_lines(0);
        let diff = repository.diff_tree_to_tree(Some(&from.tree()?), Some(&to.tree()?), Some(&mut options))?;
        let files = diff.deltas().len();
        if files > max_files {
            return Ok(DiffStat { files, insertions: None, deletions: None });
        }
        let stats = diff.stats()?;
        Ok(DiffStat { files, insertions: Some(stats.insertions()), deletions: Some(stats.deletions()) })
    };
    count().map_err(GitError::damaged(mirror_dir))
}
