//! What a run takes of the disk: measuring a folder that strangers fill, and removing it whatever its shape. Not here:
//! what becomes of a run that takes too much.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Levels of folders that are looked into; what lies deeper is refused, and moved up before it is removed.
const DEPTH_MAX: usize = 128;
/// Bytes of a block in `st_blocks`, whatever the file system (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// What a folder takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// On the disk; a sparse file counts with what it has.
    pub(crate) bytes: u64,
    /// Files, folders and links.
    pub(crate) files: u64,
    /// Whether folders nest deeper than is looked into.
    pub(crate) too_deep: bool,
}

/// Measures what lies below `root`; stops looking past `files_max`. Links are not followed. What vanishes meanwhile is not
/// missed. Blocking.
pub(crate) fn usage(root: &Path, files_max: u64) -> Usage {
    let mut usage = Usage::default();
    let mut ahead = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = ahead.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            usage.files += 1;
            // A file with two names is counted twice: that errs on the safe side.
            usage.bytes = usage.bytes.saturating_add(found.blocks().saturating_mul(BLOCK_BYTES));
            if usage.files > files_max {
                return usage;
            }
            if !found.is_dir() {
                continue;
            }
            if depth + 1 < DEPTH_MAX {
                ahead.push((entry.path(), depth + 1));
            } else {
                usage.too_deep = true;
            }
        }
    }
    usage
}

/// Removes a folder with all that is in it. The standard library goes down one open folder per level, and a step can nest
/// folders deeper than this process may open files or than paths may be long: what lies deep is moved up first. Nobody
/// else may write there any more. Blocking.
///
/// # Errors
/// What the system says. A folder that is not there is fine.
pub(crate) fn remove_tree(root: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    let mut ahead: Vec<(PathBuf, usize)> = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = ahead.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth == 0 => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            if depth + 1 < DEPTH_MAX {
                ahead.push((entry.path(), depth + 1));
            } else {
                let place = free_name(root, &mut moved);
                fs::rename(entry.path(), &place)?;
                ahead.push((place, 1));
            }
        }
    }
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A name in `root` that nothing has.
fn free_name(root: &Path, moved: &mut u64) -> PathBuf {
    loop {
        *moved += 1;
        let place = root.join(format!(".deep-{moved}"));
        if fs::symlink_metadata(&place).is_err() {
            return place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nests folders deeper than a path may be long, as a step can.
    fn nest(root: &Path, levels: usize) {
        let mut at = root.join("a");
        fs::create_dir(&at).expect("made");
        for level in 0..levels {
            // Built from below: the whole so far moves into a new folder, so that no path grows long.
            let outer = root.join(format!("b{level}"));
            fs::create_dir(&outer).expect("made");
            fs::rename(&at, outer.join("d")).expect("moved");
            at = outer;
        }
    }

    #[test]
    fn folders_that_nest_deeper_than_a_path_may_be_are_measured_and_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("run");
        fs::create_dir(&root).expect("made");
        nest(&root, 6_000);
        fs::create_dir(root.join(".deep-1")).expect("a name that is taken");
        let outside = dir.path().join("canary");
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("kept"), "x").expect("written");
        std::os::unix::fs::symlink(&outside, root.join("out")).expect("linked");
        let found = usage(&root, u64::MAX);
        assert!(found.too_deep && found.files >= DEPTH_MAX as u64, "{found:?}");
        remove_tree(&root).expect("removed");
        remove_tree(&root).expect("removed twice");
        assert!(!root.exists() && outside.join("kept").exists());
    }

    #[test]
    fn what_is_on_the_disk_counts_and_not_what_a_file_says_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("full"), vec![1; 300_000]).expect("written");
        fs::File::create(dir.path().join("sparse")).and_then(|file| file.set_len(1 << 40)).expect("made");
        let found = usage(dir.path(), u64::MAX);
        assert!((300_000..3_000_000).contains(&found.bytes) && found.files == 2, "{found:?}");
        for n in 0..50 {
            fs::write(dir.path().join(n.to_string()), "").expect("written");
        }
        assert_eq!(usage(dir.path(), 10).files, 11, "it stops looking");
    }
}
