//! Reading a whole tree and deciding whether it may be written. Not here: writing it (checkout).

use std::collections::{HashMap, HashSet};

use git2::{ObjectType, Odb, Oid, Repository};

use super::{
    checkout::CheckoutOptions,
    error::{GitError, TreeProblem},
};

/// How many problems are told; the rest is counted.
const PROBLEMS_MAX: usize = 20;
/// The longest name of one entry, in bytes (NAME_MAX of Linux).
const NAME_MAX_BYTES: usize = 255;
/// The longest path, in bytes, which leaves room for the folder that it is written to (PATH_MAX of Linux is 4096).
const PATH_MAX_BYTES: usize = 3072;
/// The most that all paths together may take in memory, in bytes.
const PATHS_MAX_BYTES: usize = 64 << 20;
/// The longest target of a symbolic link, in bytes.
const LINK_MAX_BYTES: usize = 3072;
/// How many symbolic links one path may lead through, as Linux counts them.
const LINK_HOPS_MAX: usize = 40;
/// How a Git LFS pointer begins (its specification, "The Pointer").
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// An LFS pointer is shorter than this, in bytes (the same).
const LFS_POINTER_MAX_BYTES: usize = 1024;

/// A tree that may be written: every entry in the order of the tree, parents before children.
#[derive(Debug, Default)]
pub(super) struct SafeTree {
    pub(super) entries: Vec<(Vec<u8>, Entry)>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) links: u64,
    pub(super) submodules: Vec<String>,
    pub(super) lfs_pointers: u64,
}

/// One entry of a tree that may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Folder,
    File {
        blob: Oid,
        executable: bool,
    },
    Link {
        target: Vec<u8>,
    },
    /// Another repository at a commit: an empty folder here.
    Submodule,
}

/// Reads the tree and refuses it as a whole if any entry is dangerous, with all reasons at once.
pub(super) fn scan(repository: &Repository, root: Oid, options: &CheckoutOptions) -> Result<SafeTree, GitError> {
    let odb = repository.odb().map_err(GitError::damaged(repository.path()))?;
    let mut scan =
        Scan { repository, odb, options, tree: SafeTree::default(), paths_bytes: 0, problems: Vec::new(), more: 0 };
    scan.folder(root, &[], 0)?;
    scan.links();
    if scan.problems.is_empty() {
        Ok(scan.tree)
    } else {
        Err(GitError::UnsafeTree { problems: scan.problems, more: scan.more })
    }
}

struct Scan<'a> {
    repository: &'a Repository,
    odb: Odb<'a>,
    options: &'a CheckoutOptions,
    tree: SafeTree,
    paths_bytes: usize,
    problems: Vec<TreeProblem>,
    more: usize,
}

impl Scan<'_> {
    fn problem(&mut self, path: &[u8], why: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(TreeProblem { path: shown(path), why: why.into() });
        } else {
            self.more += 1;
        }
    }

    fn folder(&mut self, oid: Oid, at: &[u8], depth: u32) -> Result<(), GitError> {
        if self.options.cancel.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        if depth > self.options.max_depth {
            let limit = self.options.max_depth.into();
            return Err(GitError::TooLarge { what: "the depth of folders", limit, unit: "levels" });
        }
        let tree = self.repository.find_tree(oid).map_err(GitError::damaged(self.repository.path()))?;
        let mut names: HashSet<Vec<u8>> = HashSet::with_capacity(tree.len());
        for entry in tree.iter() {
            let name = entry.name_bytes();
            let path = if at.is_empty() { name.to_vec() } else { [at, b"/", name].concat() };
            self.count_path(&path)?;
            if let Some(why) = name_problem(name, &path) {
                self.problem(&path, why);
            } else if !names.insert(name.to_vec()) {
                self.problem(&path, "is in the tree twice");
            } else {
                self.entry(&entry, path, depth)?;
            }
        }
        Ok(())
    }

    fn count_path(&mut self, path: &[u8]) -> Result<(), GitError> {
        self.tree.files += 1;
        if self.tree.files > self.options.max_files {
            return Err(GitError::TooLarge {
                what: "the tree",
                limit: self.options.max_files,
                unit: "files and folders",
            });
        }
        self.paths_bytes = self.paths_bytes.saturating_add(path.len());
        if self.paths_bytes > PATHS_MAX_BYTES {
            return Err(GitError::TooLarge {
                what: "all paths together",
                limit: PATHS_MAX_BYTES as u64,
                unit: "bytes",
            });
        }
        Ok(())
    }

    fn entry(&mut self, entry: &git2::TreeEntry<'_>, path: Vec<u8>, depth: u32) -> Result<(), GitError> {
        let oid = entry.id();
        // The modes that git writes; 100664 is from its first days.
        let kind = match entry.filemode_raw() {
            0o040_000 => {
                self.tree.entries.push((path.clone(), Entry::Folder));
                return self.folder(oid, &path, depth + 1);
            }
            0o160_000 => {
                self.tree.submodules.push(shown(&path));
                Entry::Submodule
            }
            mode @ (0o100_644 | 0o100_664 | 0o100_755 | 0o120_000) => {
                let Some(size) = self.blob_size(oid, &path)? else { return Ok(()) };
                if mode == 0o120_000 {
                    let Some(target) = self.link_target(oid, size, &path)? else { return Ok(()) };
                    self.tree.links += 1;
                    Entry::Link { target }
                } else {
                    self.count_bytes(size)?;
                    self.look_for_lfs(oid, size)?;
                    Entry::File { blob: oid, executable: mode == 0o100_755 }
                }
            }
            mode => {
                self.problem(&path, format!("has the mode {mode:o}, which git does not write"));
                return Ok(());
            }
        };
        self.tree.entries.push((path, kind));
        Ok(())
    }

    fn blob_size(&mut self, oid: Oid, path: &[u8]) -> Result<Option<u64>, GitError> {
        let (size, kind) = self.odb.read_header(oid).map_err(GitError::damaged(self.repository.path()))?;
        if kind == ObjectType::Blob {
            return Ok(Some(size as u64));
        }
        self.problem(path, "is called a file and is none");
        Ok(None)
    }

    fn count_bytes(&mut self, size: u64) -> Result<(), GitError> {
        if size > self.options.max_file_bytes {
            return Err(GitError::TooLarge { what: "a file", limit: self.options.max_file_bytes, unit: "bytes" });
        }
        self.tree.bytes = self.tree.bytes.saturating_add(size);
        if self.tree.bytes > self.options.max_total_bytes {
            return Err(GitError::TooLarge { what: "the tree", limit: self.options.max_total_bytes, unit: "bytes" });
        }
        Ok(())
    }

    fn look_for_lfs(&mut self, oid: Oid, size: u64) -> Result<(), GitError> {
        if (LFS_POINTER.len() as u64..LFS_POINTER_MAX_BYTES as u64).contains(&size) {
            let blob = self.odb.read(oid).map_err(GitError::damaged(self.repository.path()))?;
            self.tree.lfs_pointers += u64::from(blob.data().starts_with(LFS_POINTER));
        }
        Ok(())
    }

    fn link_target(&mut self, oid: Oid, size: u64, path: &[u8]) -> Result<Option<Vec<u8>>, GitError> {
        if size == 0 || size > LINK_MAX_BYTES as u64 {
            self.problem(path, format!("is a symbolic link with a target of {size} bytes"));
            return Ok(None);
        }
        let target = self.odb.read(oid).map_err(GitError::damaged(self.repository.path()))?.data().to_vec();
        if has_control(&target) {
            self.problem(path, "is a symbolic link with control characters in its target");
            return Ok(None);
        }
        Ok(Some(target))
    }

    /// Follows every link through the tree, because a link may leave by way of another one.
    fn links(&mut self) {
        let entries = std::mem::take(&mut self.tree.entries);
        let targets: HashMap<&[u8], &[u8]> = entries
            .iter()
            .filter_map(|(path, entry)| match entry {
                Entry::Link { target } => Some((path.as_slice(), target.as_slice())),
                _ => None,
            })
            .collect();
        for (path, target) in entries.iter().filter_map(|(path, _)| targets.get_key_value(path.as_slice())) {
            if let Some(why) = leads_out(path, &targets) {
                self.problem(path, format!("is a symbolic link to `{}`, {why}", shown(target)));
            }
        }
        drop(targets);
        self.tree.entries = entries;
    }
}

/// Why a link is refused: it leaves the tree, absolutely or by climbing, itself or through other links of the tree.
fn leads_out(link: &[u8], targets: &HashMap<&[u8], &[u8]>) -> Option<&'static str> {
    let mut at: Vec<u8> = parent(link).to_vec();
    // What is still to walk, the next component last.
    let mut ahead: Vec<&[u8]> = Vec::new();
    let mut hops = 0;
    let mut target = *targets.get(link)?;
    loop {
        if target.first() == Some(&b'/') {
            return Some("which is absolute; make it relative");
        }
        hops += 1;
        if hops > LINK_HOPS_MAX || ahead.len() > PATH_MAX_BYTES {
            return Some("which leads through too many other links");
        }
        ahead.extend(target.split(|&byte| byte == b'/').rev());
        let mut next_target = None;
        while let Some(component) = ahead.pop() {
            match component {
                b"" | b"." => {}
                b".." if at.is_empty() => return Some("which leads out of the repository"),
                b".." => at = parent(&at).to_vec(),
                name => {
                    let path = if at.is_empty() { name.to_vec() } else { [at.as_slice(), b"/", name].concat() };
                    if let Some(found) = targets.get(path.as_slice()) {
                        next_target = Some(*found);
                        break;
                    }
                    at = path;
                }
            }
        }
        match next_target {
            Some(next) => target = next,
            None => return None,
        }
    }
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(&[], |slash| &path[..slash])
}

fn name_problem(name: &[u8], path: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("has an empty name"),
        b"." | b".." => Some("has a name that means another folder"),
        _ if name.contains(&b'/') => Some("has a / inside of its name"),
        // In every spelling that a file system which ignores case or trailing characters would take for `.git`.
        _ if is_dot_git(name) => Some("has the name that git keeps for itself"),
        _ if has_control(name) => Some("has control characters in its name"),
        _ if name.len() > NAME_MAX_BYTES => Some("has a name longer than 255 bytes"),
        _ if path.len() > PATH_MAX_BYTES => Some("has a path longer than 3072 bytes"),
        _ => None,
    }
}

fn is_dot_git(name: &[u8]) -> bool {
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    name[..end].eq_ignore_ascii_case(b".git") || name.eq_ignore_ascii_case(b"git~1")
}

fn has_control(bytes: &[u8]) -> bool {
    // Names that are not UTF-8 are written as they are; only what could be a control character there is refused.
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().any(char::is_control),
        Err(_) => bytes.iter().any(u8::is_ascii_control),
    }
}

/// A path as a person may see it: escaped, and cut.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars().take(200).flat_map(|c| c.escape_debug().collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links<'a>(pairs: &[(&'a str, &'a str)]) -> HashMap<&'a [u8], &'a [u8]> {
        pairs.iter().map(|(path, target)| (path.as_bytes(), target.as_bytes())).collect()
    }

    #[test]
    fn links_inside_of_the_tree_are_fine() {
        let targets = links(&[("a", "b/c"), ("b/d", "../a"), ("x/y/z", "../../b"), ("gone", "nowhere"), ("self", ".")]);
        for link in targets.keys() {
            assert_eq!(leads_out(link, &targets), None, "{}", shown(link));
        }
    }

    #[test]
    fn links_out_of_the_tree_are_found_also_through_other_links() {
        let targets = links(&[
            ("absolute", "/etc/passwd"),
            ("climbing", "../x"),
            ("deep/climbing", "a/../../../x"),
            ("a/b/c/up", "../../.."),
            ("sneaky", "a/b/c/up/../x"),
            ("through", "absolute/y"),
            ("loop", "loop"),
        ]);
        for link in ["absolute", "climbing", "deep/climbing", "sneaky", "through", "loop"] {
            assert!(leads_out(link.as_bytes(), &targets).is_some(), "{link}");
        }
        assert_eq!(leads_out(b"a/b/c/up", &targets), None, "the root itself is inside");
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            ".git",
            ".GIT",
            ".git.",
            ".git ",
            ".git . .",
            "git~1",
            "a/b",
            "a\nb",
            "a\u{1b}[31m",
            "\u{85}",
        ] {
            assert!(name_problem(bad.as_bytes(), bad.as_bytes()).is_some(), "{bad:?}");
        }
        for fine in [".gitignore", ".github", "git", "...", "a b", "é", "-rf"] {
            assert_eq!(name_problem(fine.as_bytes(), fine.as_bytes()), None, "{fine:?}");
        }
        assert_eq!(name_problem(b"caf\xe9", b"caf\xe9"), None);
        assert!(name_problem(b"caf\xe9\x07", b"").is_some());
    }

    proptest! {
        /// Oracle: the kernel. Links are made for real under a root, and what a link reaches there is compared.
        #[test]
        fn a_link_that_is_taken_never_reaches_outside(
            targets in proptest::collection::vec("(\\.\\./|a/|b/|l0/|l1/|l2/|\\./){0,5}(a|b|l0|l1|l2|\\.\\.)", 3)
        ) {
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().canonicalize().unwrap().join("1/2/3/4/5/6/7/8/root");
            std::fs::create_dir_all(root.join("a/b/a")).unwrap();
            std::fs::create_dir_all(root.join("b/a")).unwrap();
            let places = ["l0", "a/l1", "a/b/l2"];
            for (place, target) in places.iter().zip(&targets) {
                std::os::unix::fs::symlink(target, root.join(place)).unwrap();
            }
            let map: HashMap<&[u8], &[u8]> =
                places.iter().zip(&targets).map(|(place, target)| (place.as_bytes(), target.as_bytes())).collect();
            for place in places {
                if let (None, Ok(reached)) = (leads_out(place.as_bytes(), &map), root.join(place).canonicalize()) {
                    prop_assert!(reached.starts_with(&root), "{place} of {targets:?} reaches {}", reached.display());
                }
            }
        }
    }
}
