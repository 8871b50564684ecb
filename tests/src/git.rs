//! A git working copy driven through the `git` program, apart from the user's own configuration.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::output;

/// A working copy in a temporary folder.
#[derive(Debug)]
pub struct Repo {
    dir: TempDir,
    home: TempDir,
}

impl Repo {
    /// An empty repository on branch `main`.
    ///
    /// # Errors
    /// When `git` is missing or fails.
    pub fn init() -> Result<Self> {
        let repo = Self::unborn()?;
        repo.git(&["init", "--quiet", "--initial-branch=main", "."])?;
        Ok(repo)
    }

    /// A clone of `url`, which may hold credentials.
    ///
    /// # Errors
    /// When `git` fails.
    pub fn clone_of(url: &str) -> Result<Self> {
        let repo = Self::unborn()?;
        repo.git(&["clone", "--quiet", url, "."])?;
        Ok(repo)
    }

    /// The folder of the working copy.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, with the folders above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let file = self.path().join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, content).with_context(|| format!("failed to write {path}"))
    }

    /// Commits everything as `name <email>` and gives the commit's id. An empty commit is one too.
    ///
    /// # Errors
    /// When `git` fails.
    pub fn commit(&self, author: &str, message: &str) -> Result<String> {
        let (name, email) = split_author(author);
        self.git(&["add", "--all"])?;
        let mut command = self.command();
        command.env("GIT_AUTHOR_NAME", name).env("GIT_AUTHOR_EMAIL", email);
        command.env("GIT_COMMITTER_NAME", name).env("GIT_COMMITTER_EMAIL", email);
        output(command.args(["commit", "--quiet", "--allow-empty", "-m", message]))?;
        self.head()
    }

    /// The id of the current commit.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn head(&self) -> Result<String> {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Pushes `refspec` (`main`, `+main`, `v1.0`, `:gone`) to `url`.
    ///
    /// # Errors
    /// When `git` fails; its message is in the error.
    pub fn push(&self, url: &str, refspec: &str) -> Result<()> {
        self.git(&["push", "--quiet", url, refspec]).map(drop)
    }

    /// A bare copy below `dir`, as a server holds it; gives its path.
    ///
    /// # Errors
    /// When `git` fails.
    pub fn bare_copy(&self, dir: &Path, name: &str) -> Result<std::path::PathBuf> {
        let bare = dir.join(name);
        self.git(&["clone", "--quiet", "--bare", ".", &bare.to_string_lossy()])?;
        Ok(bare)
    }

    /// Runs `git` in the working copy and gives its standard output without the last line end.
    ///
    /// # Errors
    /// When `git` fails.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        Ok(output(self.command().args(arguments))?.trim_end().to_owned())
    }

    /// A `git` command in the working copy, for tests that set environment of their own.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.current_dir(self.path());
        command.env("HOME", self.home.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_AUTHOR_NAME", "Dev").env("GIT_AUTHOR_EMAIL", "dev@example.com");
        command.env("GIT_COMMITTER_NAME", "Dev").env("GIT_COMMITTER_EMAIL", "dev@example.com");
        command
    }

    fn unborn() -> Result<Self> {
        Ok(Self { dir: tempfile::tempdir()?, home: tempfile::tempdir()? })
    }
}

fn split_author(author: &str) -> (&str, &str) {
    match author.split_once('<') {
        Some((name, email)) => (name.trim(), email.trim_end_matches('>').trim()),
        None => (author.trim(), "dev@example.com"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_may_come_with_or_without_an_address() {
        assert_eq!(split_author("Li Wei <li@example.com>"), ("Li Wei", "li@example.com"));
        assert_eq!(split_author("Li Wei"), ("Li Wei", "dev@example.com"));
    }
}
