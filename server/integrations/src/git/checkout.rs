//! Writing the tree of a commit into a folder, byte for byte. Not here: what a dangerous tree is (tree), fetching.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use git2::Repository;
use pipelines::{ids::CommitSha, time::UnixMs};
use tokio_util::sync::CancellationToken;

use super::{
    error::GitError,
    mirror,
    tree::{self, Entry, SafeTree},
};

/// The longest message that is kept of a commit, in bytes.
const MESSAGE_MAX_BYTES: usize = 4096;
/// The longest name or address that is kept of a person, in characters.
const PERSON_MAX_CHARS: usize = 200;

/// Bounds and cancellation of a checkout.
#[derive(Clone, Debug)]
pub struct CheckoutOptions {
    /// The most files and folders.
    pub max_files: u64,
    /// The most that all files together may take, in bytes.
    pub max_total_bytes: u64,
    /// The most that one file may take, in bytes; one file at a time is held in memory.
    pub max_file_bytes: u64,
    /// How deep folders may nest, in levels.
    pub max_depth: u32,
    /// Stops it between two files. Clones of the options share it.
    pub cancel: CancellationToken,
}

impl Default for CheckoutOptions {
    fn default() -> Self {
        Self {
            max_files: 200_000,
            max_total_bytes: 4 << 30,
            max_file_bytes: 512 << 20,
            max_depth: 100,
            cancel: CancellationToken::new(),
        }
    }
}

/// The commit that was written, and what of it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckoutInfo {
    /// The commit.
    pub sha: CommitSha,
    /// The id of its tree: the same for the same content, whatever the history.
    pub tree_id: String,
    /// Author's name, without control characters.
    pub author: String,
    /// Author's mail address, without control characters.
    pub author_email: String,
    /// When it was written.
    pub authored_at: UnixMs,
    /// When it was committed.
    pub committed_at: UnixMs,
    /// The whole message, cut to 4 KiB.
    pub message: String,
    /// The commits before it.
    pub parents: Vec<CommitSha>,
    /// Files, folders and links that were written.
    pub files: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Symbolic links, all within the tree.
    pub links: u64,
    /// Paths of submodules, which are empty folders here.
    pub submodules: Vec<String>,
    /// Files that are only a pointer of Git LFS; their content was not fetched.
    pub lfs_pointers: u64,
}

/// Writes the tree of `commit` into `work_dir`, which must be empty or not there yet. Blocking.
///
/// What is written is the tree and nothing else: no hooks, no filters or line endings from attributes or configuration,
/// no submodules, no `.git`. Modes are 644, 755 for executables and folders; times are the commit's (but for links), so
/// that the same commit gives the same folder. Symbolic links within the tree are written as links and never followed
/// here; the tree is refused as a whole, before anything is written, if a link is absolute, leads out of it (through other
/// links too) or if a name could mean another place. On any error `work_dir` is empty again.
///
/// # Errors
/// [`GitError::UnsafeTree`] names up to 20 problems; [`GitError::TooLarge`], [`GitError::NotInMirror`],
/// [`GitError::Io`], [`GitError::Damaged`], [`GitError::Cancelled`].
pub fn checkout(
    mirror_dir: &Path,
    commit: &CommitSha,
    work_dir: &Path,
    options: &CheckoutOptions,
) -> Result<CheckoutInfo, GitError> {
    let repository = mirror::open(mirror_dir)?;
    let commit = mirror::commit(&repository, commit)?;
    let tree = tree::scan(&repository, commit.tree_id(), options)?;
    let committed_at = unix_ms(commit.time());
    prepare_folder(work_dir)?;
    if let Err(error) = write(&repository, &tree, work_dir, committed_at, options) {
        if let Err(leftover) = clear(work_dir) {
            tracing::warn!(error = %leftover, path = %work_dir.display(), "a broken checkout was not removed");
        }
        return Err(error);
    }
    describe(&commit, &tree, committed_at)
}

fn describe(commit: &git2::Commit<'_>, tree: &SafeTree, committed_at: UnixMs) -> Result<CheckoutInfo, GitError> {
    let author = commit.author();
    let sha = |oid: git2::Oid| {
        oid.to_string().parse::<CommitSha>().map_err(|_| GitError::NotInMirror { commit: oid.to_string() })
    };
    Ok(CheckoutInfo {
        sha: sha(commit.id())?,
        tree_id: commit.tree_id().to_string(),
        author: person(author.name_bytes()),
        author_email: person(author.email_bytes()),
        authored_at: unix_ms(author.when()),
        committed_at,
        message: message(commit.message_bytes()),
        parents: commit.parent_ids().map(sha).collect::<Result<_, _>>()?,
        files: tree.files,
        bytes: tree.bytes,
        links: tree.links,
        submodules: tree.submodules.clone(),
        lfs_pointers: tree.lfs_pointers,
    })
}

fn prepare_folder(work_dir: &Path) -> Result<(), GitError> {
    match fs::symlink_metadata(work_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(work_dir).map_err(GitError::io("making", work_dir))
        }
        Err(error) => Err(GitError::io("reading", work_dir)(error)),
        Ok(metadata) if !metadata.is_dir() => {
            Err(GitError::io("writing to", work_dir)(io::ErrorKind::NotADirectory.into()))
        }
        Ok(_) => {
            let mut entries = fs::read_dir(work_dir).map_err(GitError::io("reading", work_dir))?;
            match entries.next() {
                None => Ok(()),
                Some(_) => Err(GitError::io("writing to", work_dir)(io::ErrorKind::DirectoryNotEmpty.into())),
            }
        }
    }
}

/// Writes files and folders first and links last. Everything is made anew (`mkdir`, `O_EXCL`), so nothing can be written
/// through a link even if the scan had missed one.
fn write(
    repository: &Repository,
    tree: &SafeTree,
    work_dir: &Path,
    committed_at: UnixMs,
    options: &CheckoutOptions,
) -> Result<(), GitError> {
    let odb = repository.odb().map_err(GitError::damaged(repository.path()))?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(committed_at.0);
    let place = |path: &[u8]| -> PathBuf { work_dir.join(OsStr::from_bytes(path)) };
    for (path, entry) in &tree.entries {
        if options.cancel.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        let path = place(path);
        match entry {
            Entry::Folder | Entry::Submodule => {
                fs::DirBuilder::new().mode(0o755).create(&path).map_err(GitError::io("making", &path))?;
            }
            Entry::File { blob, executable } => {
                let blob = odb.read(*blob).map_err(GitError::damaged(repository.path()))?;
                let mode = if *executable { 0o755 } else { 0o644 };
                write_file(&path, blob.data(), mode, time).map_err(GitError::io("writing", &path))?;
            }
            Entry::Link { .. } => {}
        }
    }
    for (path, entry) in &tree.entries {
        if let Entry::Link { target } = entry {
            let path = place(path);
            symlink(OsStr::from_bytes(target), &path).map_err(GitError::io("linking", &path))?;
        }
    }
    // Children first: writing into a folder changes its time.
    for (path, entry) in tree.entries.iter().rev() {
        if matches!(entry, Entry::Folder | Entry::Submodule) {
            let path = place(path);
            finish_folder(&path, time).map_err(GitError::io("finishing", &path))?;
        }
    }
    finish_folder(work_dir, time).map_err(GitError::io("finishing", work_dir))
}

fn write_file(path: &Path, data: &[u8], mode: u32, time: SystemTime) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(data)?;
    // The process's umask does not decide what a commit looks like.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.set_modified(time)
}

fn finish_folder(path: &Path, time: SystemTime) -> io::Result<()> {
    let folder = File::open(path)?;
    folder.set_permissions(Permissions::from_mode(0o755))?;
    folder.set_modified(time)
}

/// Removes what is in the folder, following no links.
fn clear(work_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(work_dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A time of git, which may be before 1970 or absurd, as a moment.
pub(super) fn unix_ms(time: git2::Time) -> UnixMs {
    UnixMs(u64::try_from(time.seconds()).unwrap_or_default().saturating_mul(1000).min(253_402_300_799_000))
}

/// A name or an address as a header or a page may carry it: one line, bounded.
pub(super) fn person(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).take(PERSON_MAX_CHARS).collect::<String>().trim().to_owned()
}

/// A message: lines stay, other control characters go, cut at a character.
fn message(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')) {
        if kept.len() + c.len_utf8() > MESSAGE_MAX_BYTES {
            break;
        }
        kept.push(c);
    }
    kept
}
