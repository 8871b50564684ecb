//! What can go wrong between us and a git server, a mirror or a tree. Not here: how it is shown to a person.

use std::{error::Error, fmt, io, path::PathBuf};

use pipelines::{ids::CommitSha, protocol::Blame, repository::AddressError};

/// Why an operation on a repository failed. No message carries a credential: what a server said is cut, cleaned of
/// control characters and has the secret taken out before it gets here.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The address of the repository is not one that we follow.
    #[error("the repository's address cannot be followed")]
    Address(#[from] AddressError),
    /// The server asks who we are, and the service has nothing to say.
    #[error("{host} asks for a credential and none is set; add a token or an SSH key to the service")]
    AuthenticationNeeded {
        /// The server, `host:port`.
        host: String,
    },
    /// The server knows who we claim to be and refuses.
    #[error("{host} refused the credential{said}")]
    AuthenticationRefused {
        /// The server, `host:port`.
        host: String,
        /// Its words.
        said: Said,
    },
    /// The credential does not fit the address: a token for ssh, or an SSH key for https.
    #[error("the credential does not fit the address: {why}")]
    WrongCredential {
        /// What to use instead.
        why: &'static str,
    },
    /// The private key cannot be used.
    #[error("the private key cannot be used: {0}")]
    Key(KeyProblem),
    /// There is no such repository, or the credential may not see it.
    #[error("{url} was not found, or the credential may not see it{said}")]
    NotFound {
        /// The repository, without credentials.
        url: String,
        /// The server's words.
        said: Said,
    },
    /// The server no longer hands the commit out: a force push, or a deleted branch.
    #[error("commit {commit} is no longer in the repository{}", .reference.as_ref().map(|name| format!(": {name} was force-pushed or deleted")).unwrap_or_default())]
    CommitVanished {
        /// The commit that was asked for.
        commit: CommitSha,
        /// The ref that it was on.
        reference: Option<String>,
    },
    /// No connection, or it ended too early.
    #[error("{host} could not be reached")]
    Unreachable {
        /// The server, `host:port`.
        host: String,
        /// What happened below.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server answered that it cannot answer now.
    #[error("{host} answered {status}{said}")]
    ServerFailed {
        /// The server, `host:port`.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        said: Said,
    },
    /// Nothing happened for too long.
    #[error("{host} took longer than {waited_ms} ms while {doing}")]
    TimedOut {
        /// The server, `host:port`.
        host: String,
        /// What was going on.
        doing: &'static str,
        /// How long we waited, in milliseconds.
        waited_ms: u64,
    },
    /// The caller said stop.
    #[error("the operation was cancelled")]
    Cancelled,
    /// The server is not the one that was pinned, or none is pinned for it.
    #[error("{host} is not trusted: {why} (it offers {offered})")]
    HostKeyMismatch {
        /// The server, `host:port`.
        host: String,
        /// Type and fingerprint, or the types that the server has.
        offered: String,
        /// What does not fit.
        why: &'static str,
    },
    /// A line of pinned host keys cannot be read.
    #[error("line {line} of the host keys cannot be used: {why}")]
    HostKeyLine {
        /// Counted from 1.
        line: usize,
        /// What is wrong and what to write instead.
        why: &'static str,
    },
    /// The certificate of the server is not trusted.
    #[error("the certificate of {host} is not trusted: {reason}")]
    UntrustedCertificate {
        /// The server, `host:port`.
        host: String,
        /// What the verifier says.
        reason: String,
    },
    /// The certificate authority that was given cannot be read.
    #[error("the certificate authority cannot be used: {why}")]
    CertificateAuthority {
        /// What is wrong.
        why: String,
    },
    /// The server sends us elsewhere, and we do not go.
    #[error("{host} redirects and it was not followed: {why}")]
    Redirect {
        /// The server, `host:port`.
        host: String,
        /// Why not.
        why: String,
    },
    /// A bound was reached.
    #[error("{what} is over the limit of {limit} {unit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound.
        limit: u64,
        /// Its unit.
        unit: &'static str,
    },
    /// The tree of the commit cannot be written without danger.
    #[error("the tree of the commit is refused: {}", list(.problems, *.more))]
    UnsafeTree {
        /// The first problems, each with its path.
        problems: Vec<TreeProblem>,
        /// How many more there are.
        more: usize,
    },
    /// The path in the commit is something else than a file.
    #[error("`{path}` is {what}, not a file")]
    NotAFile {
        /// The path in the tree.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The commit was not fetched into this mirror.
    #[error("commit {commit} is not in the mirror; fetch it first")]
    NotInMirror {
        /// The commit.
        commit: String,
    },
    /// The other side does not speak git's protocol as we know it.
    #[error("{host} did not answer as a git server does{said}")]
    Protocol {
        /// The server, `host:port`.
        host: String,
        /// Its words, or libgit2's.
        said: Said,
    },
    /// The mirror cannot be read or written. It is a cache: deleting its folder loses nothing.
    #[error("the mirror in {} is damaged; it is a cache and may be deleted", .mirror.display())]
    Damaged {
        /// The folder of the mirror.
        mirror: PathBuf,
        /// What libgit2 says.
        #[source]
        source: git2::Error,
    },
    /// A file or folder of ours could not be read or written.
    #[error("{doing} {} failed", .path.display())]
    Io {
        /// What was tried, such as `writing`.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A part of this process that every operation needs could not be made.
    #[error("the git client could not be prepared: {why}")]
    Setup {
        /// What is missing.
        why: String,
    },
}

impl GitError {
    /// Whose failure it is: what was committed, or everything else (servers, credentials, our machine).
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::CommitVanished { .. } | Self::UnsafeTree { .. } | Self::TooLarge { .. } | Self::NotAFile { .. } => {
                Blame::Code
            }
            _ => Blame::Infrastructure,
        }
    }

    /// Whether the same call may succeed later with nothing changed by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::ServerFailed { .. } | Self::TimedOut { .. })
    }

    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    pub(super) fn damaged(mirror: impl Into<PathBuf>) -> impl FnOnce(git2::Error) -> Self {
        let mirror = mirror.into();
        move |source| Self::Damaged { mirror, source }
    }
}

/// Why a private key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// RSA: refused, because no RSA implementation for Rust is free of timing leaks (RUSTSEC-2023-0071).
    #[error("RSA keys are not accepted; make an Ed25519 or ECDSA key, such as by `ssh-keygen -t ed25519`")]
    Rsa,
    /// Another kind that ssh no longer uses or that needs a device.
    #[error("its type is not supported; make an Ed25519 or ECDSA key, such as by `ssh-keygen -t ed25519`")]
    Unsupported,
    /// A passphrase is needed.
    #[error("it is encrypted; give its passphrase too")]
    Encrypted,
    /// The passphrase does not open it.
    #[error("the passphrase does not open it")]
    WrongPassphrase,
    /// It is no private key that we can read.
    #[error("it is not a private key in OpenSSH or PEM format; paste the whole file, with its BEGIN and END lines")]
    Unreadable,
}

/// One entry of a tree that is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeProblem {
    /// The path, with what cannot be shown escaped.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

fn list(problems: &[TreeProblem], more: usize) -> String {
    let mut text: Vec<String> = problems.iter().map(|problem| format!("`{}` {}", problem.path, problem.why)).collect();
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    text.join("; ")
}

/// What a server said, cut and cleaned, as it follows a sentence of ours: `: words` or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(String);

/// The longest text of a server that is kept, in characters.
const SAID_MAX_CHARS: usize = 300;

impl Said {
    /// Takes the words of a server. `secrets` are taken out, because a server may repeat what we sent.
    pub(super) fn new(words: &[u8], secrets: &[String]) -> Self {
        let mut text = String::from_utf8_lossy(words).into_owned();
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret.as_str(), "***");
        }
        let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let joined = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        Self(joined.chars().take(SAID_MAX_CHARS).collect())
    }

    /// The words alone; empty if there were none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_said_is_cut_cleaned_and_free_of_the_secret() {
        let said = Said::new(b"remote:\x1b[31m s3cret\r\n  is wrong ", &["s3cret".into()]);
        assert_eq!(said.to_string(), ": remote: [31m *** is wrong");
        assert_eq!(Said::new(&[b'a'; 5000], &[]).as_str().len(), SAID_MAX_CHARS);
        assert_eq!(Said::new(b"", &["".into()]).to_string(), "");
    }
}
