//! Which real parts this machine has, and what happens to a test that misses one. How a part is started lives in its
//! own file; how it is installed, in scripts/parts.sh.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    panic::Location,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{docker, evidence, process::is_root};

/// A part that a test may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A Docker Engine: that of `DOCKER_HOST`, or one that the test may start.
    Docker,
    /// The image registry `docker-registry`.
    Registry,
    /// Gitea, built from its Go module.
    Gitea,
    /// The `git` program.
    Git,
    /// An SMTP server (aiosmtpd).
    Smtp,
    /// OpenSSH's server.
    Sshd,
    /// Chromium and chromedriver.
    Chromium,
    /// axe-core, the accessibility checker.
    Axe,
    /// Prometheus and its promtool.
    Prometheus,
    /// What the benches compare with and measure by: nginx, skopeo, wrk.
    Bench,
    /// The rights of root and `dockerd`, for an engine, a bridge or a mount of the test's own.
    Root,
}

impl Part {
    /// What is missing of this part here, or `None` when it is complete.
    #[must_use]
    pub fn lack(self) -> Option<String> {
        match self {
            Part::Docker => docker::lack().or_else(|| lack_file(&busybox_rootfs(), "base")),
            Part::Registry => lack_program("docker-registry").or_else(|| lack_program("htpasswd")),
            Part::Gitea => lack_file(&gitea_home().join("gitea"), "gitea").or_else(|| lack_program("git")),
            Part::Git => lack_program("git"),
            Part::Smtp => lack_file(Path::new("/usr/lib/python3/dist-packages/aiosmtpd"), "debian")
                .or_else(|| lack_program("openssl")),
            Part::Sshd => lack_program("sshd")
                .or_else(|| lack_program("git-shell"))
                .or_else(|| (!is_root()).then(|| "sshd is started as root here, and this is not root".to_owned())),
            Part::Chromium => lack_program("chromium").or_else(|| lack_program("chromedriver")),
            Part::Axe => lack_file(&axe_script(), "axe"),
            Part::Prometheus => lack_file(&prometheus_home().join("promtool"), "prometheus"),
            Part::Bench => ["nginx", "skopeo", "wrk"].into_iter().find_map(|name| {
                program(name).is_none().then(|| format!("{name} is missing: run `scripts/parts.sh bench`"))
            }),
            Part::Root if !is_root() => Some("this test needs root".to_owned()),
            Part::Root => lack_program("dockerd").or_else(|| lack_program("ip")),
        }
    }
}

/// Whether all `parts` are here. When one is missing, says so on standard error, notes the test as skipped in
/// `target/evidence/skipped.jsonl` and gives `false`: the test then returns.
///
/// # Panics
/// When a part is missing and `WINDLASS_TEST_REQUIRE=all` is set.
#[must_use]
#[track_caller]
pub fn require(parts: &[Part]) -> bool {
    let lacks: Vec<String> = parts.iter().filter_map(|part| part.lack()).collect();
    if lacks.is_empty() {
        return true;
    }
    let caller = Location::caller();
    let skipped = Skipped {
        test: evidence::running_test().unwrap_or_else(|| format!("{}:{}", caller.file(), caller.line())),
        reason: lacks.join("; "),
    };
    let all = env::var("WINDLASS_TEST_REQUIRE").is_ok_and(|word| word == "all");
    assert!(!all, "{} misses a part: {}", skipped.test, skipped.reason);
    // Written past the capture of the test harness: a skipped test must not look like one that passed.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {}: {}", skipped.test, skipped.reason);
    evidence::append(&evidence::folder().join("skipped.jsonl"), &skipped);
    false
}

/// A line of `skipped.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Skipped {
    /// The test's name, or its place in the source.
    pub test: String,
    /// What was missing and how to get it.
    pub reason: String,
}

/// Where `make parts` puts what it builds.
#[must_use]
pub fn parts_dir() -> PathBuf {
    match env::var_os("WINDLASS_PARTS_DIR") {
        Some(dir) => dir.into(),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/windlass-parts"),
    }
}

/// The folder of Prometheus's programs.
#[must_use]
pub fn prometheus_home() -> PathBuf {
    parts_dir().join("prometheus/usr/bin")
}

/// The root file system of the base image.
#[must_use]
pub fn busybox_rootfs() -> PathBuf {
    parts_dir().join("busybox/rootfs.tar")
}

/// The folder of Gitea: its binary and its static files.
#[must_use]
pub fn gitea_home() -> PathBuf {
    parts_dir().join(format!("gitea-{}", version("GITEA_VERSION")))
}

/// The script of axe-core.
#[must_use]
pub fn axe_script() -> PathBuf {
    parts_dir().join(format!("axe-core-{}/axe.min.js", version("AXE_VERSION")))
}

/// The path of a program on PATH, or in the folders that only root's PATH holds.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// The root of the checkout.
#[must_use]
pub fn checkout() -> PathBuf {
    // The crate lies one folder below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// The versions are stated once, in the script that builds them.
fn version(name: &str) -> String {
    let script = fs::read_to_string(checkout().join("scripts/parts.sh")).unwrap_or_default();
    let versions: BTreeMap<&str, &str> = script.lines().filter_map(|line| line.split_once('=')).collect();
    versions.get(name).map_or_else(|| "unknown".to_owned(), |version| (*version).to_owned())
}

fn lack_program(name: &str) -> Option<String> {
    program(name).is_none().then(|| format!("the program {name} is missing: run `make parts`"))
}

fn lack_file(path: &Path, part: &str) -> Option<String> {
    (!path.exists()).then(|| format!("{} is missing: run `scripts/parts.sh {part}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_script() {
        assert!(version("GITEA_VERSION").starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(version("NO_SUCH_VERSION"), "unknown");
    }

    #[test]
    fn a_missing_program_is_named_with_the_way_to_get_it() {
        let lack = lack_program("no-such-program-anywhere");
        assert_eq!(lack.as_deref(), Some("the program no-such-program-anywhere is missing: run `make parts`"));
    }
}
