//! The folder of a bare mirror: making, opening, tidying. It is a cache, one per service, and may be deleted at any time.
//! Not here: what is fetched into it.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use git2::{Oid, Repository};
use pipelines::ids::CommitSha;

use super::{GitOptions, error::GitError, session};

/// How long after the longest possible fetch a half-written pack is surely nobody's.
const LEFTOVER_GRACE: Duration = Duration::from_secs(3600);

/// Opens the mirror, and makes it first if it is not there.
pub(super) fn open_or_create(mirror_dir: &Path, options: &GitOptions) -> Result<Repository, GitError> {
    if !mirror_dir.join("HEAD").exists() {
        create(mirror_dir)?;
    }
    remove_leftovers(mirror_dir, Duration::from_millis(options.total_timeout_ms) + LEFTOVER_GRACE);
    open(mirror_dir)
}

/// Opens a mirror that is there.
pub(super) fn open(mirror_dir: &Path) -> Result<Repository, GitError> {
    session::prepare()?;
    Repository::open_bare(mirror_dir).map_err(GitError::damaged(mirror_dir))
}

/// Makes it beside its place and moves it there, so that a half-made one is never seen; of two at once, one wins.
fn create(mirror_dir: &Path) -> Result<(), GitError> {
    session::prepare()?;
    let parent = mirror_dir.parent().unwrap_or(Path::new("."));
    let name = mirror_dir.file_name().unwrap_or_default().to_string_lossy();
    let making = parent.join(format!(".{name}.making-{:016x}", rand::random::<u64>()));
    fs::create_dir_all(&making).map_err(GitError::io("making", &making))?;
    // Sources may be private.
    fs::set_permissions(&making, fs::Permissions::from_mode(0o700)).map_err(GitError::io("protecting", &making))?;
    let made = Repository::init_bare(&making).map_err(GitError::damaged(&making));
    let moved = made.and_then(|_| match fs::rename(&making, mirror_dir) {
        Err(error) if !mirror_dir.join("HEAD").exists() => Err(GitError::io("making", mirror_dir)(error)),
        _ => Ok(()),
    });
    match fs::remove_dir_all(&making) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::debug!(%error, path = %making.display(), "a half-made mirror was left");
        }
        _ => {}
    }
    moved
}

/// Removes packs that a killed fetch left half-written. What cannot be removed stays for the next time.
fn remove_leftovers(mirror_dir: &Path, older_than: Duration) {
    let Ok(entries) = fs::read_dir(mirror_dir.join("objects/pack")) else { return };
    for entry in entries.flatten() {
        // libgit2 names them so (indexer.c, `git_futils_mktmp`).
        if !entry.file_name().to_string_lossy().starts_with("pack_git2_") {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > older_than)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(%error, path = %entry.path().display(), "a half-written pack was left");
        }
    }
}

/// The id as libgit2 wants it.
pub(super) fn oid(commit: &CommitSha) -> Result<Oid, GitError> {
    // libgit2 was built for SHA-1, as nearly every repository is; one with SHA-256 ids says so here.
    Oid::from_str(commit.as_str()).map_err(|_| GitError::NotInMirror { commit: commit.to_string() })
}

/// The commit, which must have been fetched.
pub(super) fn commit<'r>(repository: &'r Repository, commit: &CommitSha) -> Result<git2::Commit<'r>, GitError> {
    match repository.find_commit(oid(commit)?) {
        Ok(found) => Ok(found),
        Err(error) if error.code() == git2::ErrorCode::NotFound => {
            Err(GitError::NotInMirror { commit: commit.to_string() })
        }
        Err(error) => Err(GitError::damaged(repository.path())(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_made_once_by_many_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = folder.path().join("deep/checkout.git");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| open_or_create(&mirror, &GitOptions::default()).map(drop).unwrap());
            }
        });
        let beside: Vec<_> = fs::read_dir(mirror.parent().unwrap()).unwrap().flatten().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
        assert_eq!(fs::metadata(&mirror).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn half_written_packs_are_removed_only_when_old() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = folder.path().join("m.git");
        drop(open_or_create(&mirror, &GitOptions::default()).unwrap());
        let packs = mirror.join("objects/pack");
        let (old, new) = (packs.join("pack_git2_old"), packs.join("pack_git2_new"));
        fs::write(&new, "x").unwrap();
        let file = fs::File::create(&old).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(1_000_000)).unwrap();
        drop(open_or_create(&mirror, &GitOptions::default()).unwrap());
        assert!(!old.exists() && new.exists());
    }
}
