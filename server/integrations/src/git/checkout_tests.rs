//! Trees that are written, and trees that must not be: built in a mirror of their own. Not here: fetching.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use git2::{ObjectType, Oid, Repository, Signature, Time};
use pipelines::{ids::CommitSha, protocol::Blame};

use super::{
    CheckoutOptions, GitError, GitOptions, changelog, checkout, diff_stat, file_at, files_under, is_ancestor, mirror,
};

const FILE: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_000;
const FOLDER: u32 = 0o040_000;
const SUBMODULE: u32 = 0o160_000;

struct World {
    folder: tempfile::TempDir,
    repository: Repository,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = mirror::open_or_create(&folder.path().join("mirror.git"), &GitOptions::default()).unwrap();
        Self { folder, repository }
    }

    fn mirror(&self) -> PathBuf {
        self.folder.path().join("mirror.git")
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn blob(&self, content: &[u8]) -> Oid {
        self.repository.blob(content).unwrap()
    }

    /// A tree as bytes, so that nothing checks it.
    fn tree(&self, entries: &[(u32, &[u8], Oid)]) -> Oid {
        let mut bytes = Vec::new();
        for (mode, name, oid) in entries {
            bytes.extend_from_slice(format!("{mode:o} ").as_bytes());
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(oid.as_bytes());
        }
        self.repository.odb().unwrap().write(ObjectType::Tree, &bytes).unwrap()
    }

    fn commit(&self, tree: Oid, message: &str, seconds: i64, parents: &[&CommitSha]) -> CommitSha {
        let person = Signature::new("Ada\u{7} L", "ada@example.com", &Time::new(seconds, 60)).unwrap();
        let tree = self.repository.find_tree(tree).unwrap();
        let parents: Vec<_> = parents
            .iter()
            .map(|parent| self.repository.find_commit(Oid::from_str(parent.as_str()).unwrap()).unwrap())
            .collect();
        let parents: Vec<_> = parents.iter().collect();
        self.repository.commit(None, &person, &person, message, &tree, &parents).unwrap().to_string().parse().unwrap()
    }

    fn checkout(&self, commit: &CommitSha) -> Result<super::CheckoutInfo, GitError> {
        checkout(&self.mirror(), commit, &self.work(), &CheckoutOptions::default())
    }

    /// The reasons for which a tree with these entries is refused; nothing may have been written.
    fn refusal(&self, entries: &[(u32, &[u8], Oid)]) -> String {
        let commit = self.commit(self.tree(entries), "hostile", 1, &[]);
        let error = self.checkout(&commit).expect_err("the tree was taken");
        assert!(matches!(error, GitError::UnsafeTree { .. }), "{error}");
        assert_eq!(error.blame(), Blame::Code);
        assert!(!self.work().exists() || fs::read_dir(self.work()).unwrap().next().is_none(), "something was written");
        error.to_string()
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_checkout_is_the_exact_tree_with_modes_links_and_times() {
    let world = World::new();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let inner =
        world.tree(&[(LINK, b"back", world.blob(b"../crlf.txt")), (EXECUTABLE, b"run.sh", world.blob(b"#!/bin/sh\n"))]);
    let root = world.tree(&[
        (FILE, b".gitattributes", world.blob(b"* text=auto eol=crlf\n*.txt filter=evil\n")),
        (FILE, b"caf\xe9", world.blob(b"latin-1")),
        (FILE, b"crlf.txt", world.blob(b"a\r\nb\n")),
        (FOLDER, b"inner", inner),
        (FILE, b"large.bin", world.blob(pointer)),
        (SUBMODULE, b"vendored", Oid::from_str(&"1".repeat(40)).unwrap()),
    ]);
    let commit = world.commit(root, "first line\n\nmore\u{1b}[31m\n", 1_700_000_000, &[]);
    // A filter and a hook that would run, if configuration or hooks were heeded.
    let marker = world.folder.path().join("ran");
    let command = format!("touch {}", marker.display());
    world.repository.config().unwrap().set_str("filter.evil.smudge", &command).unwrap();
    let hook = world.mirror().join("hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\n{command}\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();

    let info = world.checkout(&commit).unwrap();
    let work = world.work();
    assert_eq!(fs::read(work.join("crlf.txt")).unwrap(), b"a\r\nb\n", "no line ending is changed");
    assert_eq!((mode(&work.join("crlf.txt")), mode(&work.join("inner/run.sh"))), (0o644, 0o755));
    assert_eq!(mode(&work.join("inner")), 0o755);
    assert_eq!(fs::read_link(work.join("inner/back")).unwrap(), Path::new("../crlf.txt"));
    let committed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for path in ["crlf.txt", "inner/run.sh", "inner", "vendored", ""] {
        assert_eq!(fs::metadata(work.join(path)).unwrap().modified().unwrap(), committed, "{path}");
    }
    assert!(!work.join(".git").exists() && !marker.exists());

    assert_eq!((info.sha, info.tree_id), (commit, root.to_string()));
    assert_eq!((info.author.as_str(), info.author_email.as_str()), ("Ada L", "ada@example.com"));
    assert_eq!((info.committed_at.0, info.message.as_str()), (1_700_000_000_000, "first line\n\nmore[31m\n"));
    assert_eq!((info.files, info.links, info.lfs_pointers), (8, 1, 1));
    assert_eq!(info.submodules, ["vendored"]);
}

#[test]
fn trees_that_would_write_elsewhere_are_refused_with_every_reason() {
    let world = World::new();
    let file = world.blob(b"x");
    let link = |target: &str| world.blob(target.as_bytes());
    let said =
        world.refusal(&[(LINK, b"abs", link("/etc/passwd")), (LINK, b"up", link("../../x")), (FILE, b"ok", file)]);
    assert!(said.contains("`abs` is a symbolic link to `/etc/passwd`, which is absolute"), "{said}");
    assert!(said.contains("`up` is a symbolic link to `../../x`, which leads out of the repository"), "{said}");
    assert!(!said.contains("`ok`"), "{said}");

    let chain = world.tree(&[(LINK, b"l", link(".."))]);
    let said = world.refusal(&[(FOLDER, b"a", chain), (LINK, b"via", link("a/l/../x"))]);
    assert!(said.contains("`via`") && !said.contains("`a/l`"), "{said}");

    let climbing = world.tree(&[(FILE, b"x", file)]);
    let said = world.refusal(&[(FOLDER, b"..", climbing), (FILE, b"a/b", file), (FOLDER, b".git", climbing)]);
    for name in ["`..`", "`a/b`", "`.git`"] {
        assert!(said.contains(name), "{name} is not in {said}");
    }
    let said = world.refusal(&[(FILE, b"a\x1b[2Jb", file), (FILE, b"c\nd", file), (LINK, b"l", link("a\nb"))]);
    assert!(
        said.matches("control characters").count() == 3 && !said.contains('\u{1b}') && !said.contains('\n'),
        "{said}"
    );
    // The classic: a link and a folder of the same name, so that the folder's files go through the link.
    let said = world.refusal(&[(LINK, b"d", link("other")), (FOLDER, b"d", climbing)]);
    assert!(said.contains("`d` is in the tree twice"), "{said}");
    let said = world.refusal(&[(0o100_777, b"odd", file), (0o010_644, b"pipe", file)]);
    assert!(said.contains("`odd` has the mode 100777"), "{said}");
    assert!(world.refusal(&[(LINK, b"empty", link(""))]).contains("0 bytes"));

    let many: Vec<Vec<u8>> = (0..50).map(|n| format!("\x07{n:02}").into_bytes()).collect();
    let entries: Vec<_> = many.iter().map(|name| (FILE, name.as_slice(), file)).collect();
    let said = world.refusal(&entries);
    assert!(said.ends_with("and 30 more"), "{said}");
}

#[test]
fn every_bound_of_a_checkout_holds_and_leaves_nothing_behind() {
    let world = World::new();
    let small = world.blob(&[b'x'; 100]);
    let plain = world.commit(world.tree(&[(FILE, b"a", small), (FILE, b"b", small)]), "two", 1, &[]);
    // Ten folders within ten folders, nine deep, in ten objects.
    let mut bomb = world.tree(&[(FILE, b"f", small)]);
    for _ in 0..9 {
        let names: Vec<Vec<u8>> = (0..10).map(|n| vec![b'0' + n]).collect();
        let entries: Vec<_> = names.iter().map(|name| (FOLDER, name.as_slice(), bomb)).collect();
        bomb = world.tree(&entries);
    }
    let bomb = world.commit(bomb, "bomb", 1, &[]);
    let mut deep = small;
    for level in 0..200 {
        deep = world.tree(&[(if level == 0 { FILE } else { FOLDER }, b"d", deep)]);
    }
    let deep = world.commit(deep, "deep", 1, &[]);

    let default = CheckoutOptions::default();
    for (commit, options, what) in [
        (&plain, CheckoutOptions { max_files: 1, ..default.clone() }, "the tree"),
        (&plain, CheckoutOptions { max_total_bytes: 199, ..default.clone() }, "the tree"),
        (&plain, CheckoutOptions { max_file_bytes: 99, ..default.clone() }, "a file"),
        (&bomb, default.clone(), "the tree"),
        (&deep, default.clone(), "the depth of folders"),
    ] {
        let error = checkout(&world.mirror(), commit, &world.work(), &options).unwrap_err();
        assert!(matches!(&error, GitError::TooLarge { what: found, .. } if *found == what), "{error}");
        assert!(!world.work().exists(), "{what}");
    }
    let cancelled = CheckoutOptions::default();
    cancelled.cancel.cancel();
    assert!(matches!(checkout(&world.mirror(), &plain, &world.work(), &cancelled), Err(GitError::Cancelled)));
    let enough = CheckoutOptions { max_files: 2, max_total_bytes: 200, max_file_bytes: 100, ..default };
    checkout(&world.mirror(), &plain, &world.work(), &enough).unwrap();
}

#[test]
fn a_checkout_goes_only_into_an_empty_folder_that_is_not_a_link() {
    let world = World::new();
    let commit = world.commit(world.tree(&[(FILE, b"a", world.blob(b"x"))]), "one", 1, &[]);
    let elsewhere = world.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, world.work()).unwrap();
    assert!(matches!(world.checkout(&commit), Err(GitError::Io { .. })));
    fs::remove_file(world.work()).unwrap();
    fs::create_dir(world.work()).unwrap();
    fs::write(world.work().join("mine"), "kept").unwrap();
    assert!(matches!(world.checkout(&commit), Err(GitError::Io { .. })));
    assert_eq!(fs::read(world.work().join("mine")).unwrap(), b"kept");
    assert!(fs::read_dir(&elsewhere).unwrap().next().is_none());
    fs::remove_file(world.work().join("mine")).unwrap();
    world.checkout(&commit).unwrap();
    // A link that points at the inside stays a link, and what it points to is not touched twice.
    assert_eq!(fs::metadata(world.work().join("a")).unwrap().nlink(), 1);
}

#[test]
fn a_commit_that_was_not_fetched_is_said_to_be_missing() {
    let world = World::new();
    for absent in ["1".repeat(40), "2".repeat(64)] {
        let error = world.checkout(&absent.parse().unwrap()).unwrap_err();
        assert!(matches!(error, GitError::NotInMirror { .. }), "{error}");
    }
    let nowhere = world.folder.path().join("nowhere.git");
    let error = changelog(&nowhere, None, &"1".repeat(40).parse().unwrap(), 1).unwrap_err();
    assert!(matches!(error, GitError::Damaged { .. }), "{error}");
}

#[test]
fn history_is_read_between_commits_and_files_by_path() {
    let world = World::new();
    let file = |text: &str| world.blob(text.as_bytes());
    let folder = world.tree(&[(FILE, b"a.yaml", file("1\n")), (LINK, b"l", file("a.yaml"))]);
    let first =
        world.commit(world.tree(&[(FOLDER, b".windlass", folder), (FILE, b"x", file("1\n2\n"))]), "first", 1, &[]);
    let second = world.commit(
        world.tree(&[(FOLDER, b".windlass", folder), (FILE, b"x", file("1\n3\n4\n"))]),
        "second\n\nbody",
        2,
        &[&first],
    );
    let side = world.commit(world.tree(&[(FILE, b"y", file("y"))]), "side", 3, &[&first]);
    let merge = world.commit(world.tree(&[(FILE, b"y", file("y"))]), "merge", 4, &[&second, &side]);
    let mirror = world.mirror();
    let subjects = |from: Option<&CommitSha>, to: &CommitSha, max: usize| {
        let log = changelog(&mirror, from, to, max).unwrap();
        (log.commits.into_iter().map(|commit| commit.subject).collect::<Vec<_>>().join(" "), log.more)
    };
    assert_eq!(subjects(Some(&first), &merge, 10), ("merge side second".into(), false));
    assert_eq!(subjects(None, &merge, 2), ("merge side".into(), true));
    assert_eq!(subjects(Some(&merge), &first, 10), (String::new(), false), "going back adds nothing");
    assert_eq!(subjects(Some(&second), &side, 10), ("side".into(), false));

    assert!(is_ancestor(&mirror, &first, &merge).unwrap() && is_ancestor(&mirror, &merge, &merge).unwrap());
    assert!(!is_ancestor(&mirror, &side, &second).unwrap());

    assert_eq!(file_at(&mirror, &second, "x", 100).unwrap().as_deref(), Some(b"1\n3\n4\n".as_slice()));
    assert_eq!(file_at(&mirror, &second, ".windlass/a.yaml", 2).unwrap().as_deref(), Some(b"1\n".as_slice()));
    for nothing in ["", "y", "/x", "./x", "../x", "x/", "x/y", ".windlass//a.yaml", "a\0b"] {
        assert_eq!(file_at(&mirror, &second, nothing, 100).unwrap(), None, "{nothing:?}");
    }
    assert!(matches!(file_at(&mirror, &second, "x", 5), Err(GitError::TooLarge { limit: 5, .. })));
    for (path, is) in [(".windlass", "a folder"), (".windlass/l", "a symbolic link")] {
        assert!(matches!(file_at(&mirror, &second, path, 9), Err(GitError::NotAFile { what, .. }) if what == is));
    }
    let paths = |prefix: &str| {
        files_under(&mirror, &second, prefix, 10).unwrap().into_iter().map(|file| file.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(".windlass/"), [".windlass/a.yaml"]);
    assert_eq!(paths(""), [".windlass/a.yaml", "x"]);
    assert!(paths("nothing").is_empty() && paths("x").is_empty());
    assert!(matches!(files_under(&mirror, &second, "", 1), Err(GitError::TooLarge { .. })));

    let stat = diff_stat(&mirror, &first, &second, 10).unwrap();
    assert_eq!((stat.files, stat.insertions, stat.deletions), (1, Some(2), Some(1)));
    assert_eq!(diff_stat(&mirror, &first, &second, 0).unwrap().insertions, None);
}
