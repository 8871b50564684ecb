//! Which ssh servers are trusted: pinned `known_hosts` lines, or the first key seen. Not here: storing what was learnt.

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, ssh_key};

use super::error::GitError;

/// Which host keys an ssh connection accepts.
#[derive(Clone, Debug, Default)]
pub enum HostKeyPolicy {
    /// Whatever key the server has now. It is returned, and the caller must store it and pin it from then on.
    #[default]
    TrustOnFirstUse,
    /// Only these.
    Pinned(PinnedHostKeys),
}

impl HostKeyPolicy {
    /// The policy for the stored lines: pinned, or the first use where there are none yet.
    ///
    /// A line is one of a `known_hosts` file (`host[,host] type key`, `[host]:port type key`, `@revoked …`) or a bare
    /// `type key`, which holds for any host. RSA lines are read over, because the server is asked for another type.
    ///
    /// # Errors
    /// [`GitError::HostKeyLine`] names the first line that cannot be used.
    pub fn from_lines<L: AsRef<str>>(lines: &[L]) -> Result<Self, GitError> {
        let mut pins = Vec::new();
        for (index, line) in lines.iter().flat_map(|line| line.as_ref().lines()).enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                pins.push(Pin::read(line).map_err(|why| GitError::HostKeyLine { line: index + 1, why })?);
            }
        }
        Ok(if pins.is_empty() { Self::TrustOnFirstUse } else { Self::Pinned(PinnedHostKeys(pins)) })
    }

    /// The types to ask the server for, best first: only those that are pinned, so that a server with several keys
    /// shows the one that we know.
    pub(super) fn algorithms(&self, host: &str, port: u16) -> Vec<Algorithm> {
        match self {
            Self::TrustOnFirstUse => supported(),
            Self::Pinned(pins) => {
                supported().into_iter().filter(|kind| pins.of(host, port).any(|pin| pin.is_for(kind))).collect()
            }
        }
    }

    /// Whether the key is the server's. `Ok` holds the line to store, if it was learnt now.
    pub(super) fn verdict(&self, host: &str, port: u16, offered: &PublicKey) -> Result<Option<String>, &'static str> {
        match self {
            Self::TrustOnFirstUse => {
                let mut key = offered.clone();
                key.set_comment("");
                let text = key.to_openssh().map_err(|_| "its key cannot be written down")?;
                Ok(Some(format!("{} {text}", known_hosts_name(host, port))))
            }
            Self::Pinned(pins) => {
                let same: Vec<&Pin> =
                    pins.of(host, port).filter(|pin| pin.key.key_data() == offered.key_data()).collect();
                if same.iter().any(|pin| pin.revoked) {
                    return Err("its key is marked as revoked");
                }
                if same.is_empty() {
                    return Err("its key is not the pinned one; somebody may be in between, or the server was set up \
                                anew: compare the fingerprint, then pin the new key");
                }
                Ok(None)
            }
        }
    }
}

/// Host keys that were pinned, read from lines.
#[derive(Clone, Debug)]
pub struct PinnedHostKeys(Vec<Pin>);

impl PinnedHostKeys {
    fn of(&self, host: &str, port: u16) -> impl Iterator<Item = &Pin> {
        self.0.iter().filter(move |pin| pin.names(host, port))
    }
}

#[derive(Clone, Debug)]
struct Pin {
    /// Patterns of hosts; empty for a bare key.
    hosts: Vec<String>,
    key: PublicKey,
    revoked: bool,
}

impl Pin {
    fn read(line: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "write `host type key` as ssh-keyscan prints it";
        let (revoked, line) = match line.split_once(char::is_whitespace) {
            Some(("@revoked", rest)) => (true, rest.trim_start()),
            Some(("@cert-authority", _)) => return Err("certificate authorities for hosts are not supported"),
            _ => (false, line),
        };
        let (first, rest) = line.split_once(char::is_whitespace).ok_or(SHAPE)?;
        if first.starts_with("|1|") {
            return Err("hashed host names are not supported; write the name, as ssh-keyscan without -H prints it");
        }
        let bare = PublicKey::from_openssh(line).ok();
        let (hosts, key) = match bare {
            Some(key) => (Vec::new(), key),
            None => {
                let hosts = first.split(',').map(str::to_ascii_lowercase).collect();
                (hosts, PublicKey::from_openssh(rest.trim_start()).map_err(|_| SHAPE)?)
            }
        };
        Ok(Self { hosts, key, revoked })
    }

    fn is_for(&self, kind: &Algorithm) -> bool {
        self.key.algorithm() == *kind
    }

    fn names(&self, host: &str, port: u16) -> bool {
        if self.hosts.is_empty() {
            return true;
        }
        let host = host.to_ascii_lowercase();
        // As OpenSSH does, a line without a port holds for the other ports of that host too.
        let matches =
            |pattern: &str| glob(pattern, &known_hosts_name(&host, port)) || glob(pattern, &host.to_ascii_lowercase());
        let negated = self.hosts.iter().filter_map(|host| host.strip_prefix('!')).any(matches);
        !negated && self.hosts.iter().filter(|host| !host.starts_with('!')).any(|host| matches(host))
    }
}

/// The name under which `known_hosts` has a server.
fn known_hosts_name(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

/// The types that we can verify, best first. RSA is not among them (see [`super::KeyProblem::Rsa`]).
fn supported() -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    vec![Algorithm::Ed25519, ecdsa(EcdsaCurve::NistP256), ecdsa(EcdsaCurve::NistP384), ecdsa(EcdsaCurve::NistP521)]
}

/// Type and fingerprint of a key, as `ssh-keygen -l` shows it.
pub(super) fn described(key: &ssh_key::PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// `*` for any characters and `?` for one, as in `known_hosts`.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The last star takes one character more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    #[test]
    fn a_learnt_line_pins_the_same_key_and_no_other() {
        let line = HostKeyPolicy::TrustOnFirstUse.verdict("git.example.com", 2222, &key(ED)).unwrap().unwrap();
        assert_eq!(line, format!("[git.example.com]:2222 {ED}"));
        let pinned = HostKeyPolicy::from_lines(&[line]).unwrap();
        assert_eq!(pinned.verdict("git.example.com", 2222, &key(ED)), Ok(None));
        assert!(pinned.verdict("git.example.com", 2222, &key(OTHER)).is_err());
        assert!(pinned.verdict("git.example.com", 22, &key(ED)).is_err(), "another port is another server");
        assert_eq!(pinned.algorithms("git.example.com", 2222), [Algorithm::Ed25519]);
        assert!(pinned.algorithms("other.example.com", 2222).is_empty());
    }

    #[test]
    fn lines_have_patterns_negations_and_revocations() {
        let lines =
            ["# comment".to_owned(), format!("*.example.com,!bad.example.com {ED}"), format!("@revoked * {OTHER}")];
        let pinned = HostKeyPolicy::from_lines(&lines).unwrap();
        assert!(pinned.verdict("GIT.example.com", 22, &key(ED)).is_ok());
        assert!(pinned.verdict("bad.example.com", 22, &key(ED)).is_err());
        assert!(pinned.verdict("git.example.com", 22, &key(OTHER)).unwrap_err().contains("revoked"));
        let bare = HostKeyPolicy::from_lines(&[format!("{ED} a comment")]).unwrap();
        assert!(bare.verdict("anything", 22, &key(ED)).is_ok());
    }

    #[test]
    fn lines_that_cannot_be_used_are_named() {
        let error = HostKeyPolicy::from_lines(&[format!("{ED}\n|1|aaaa|bbbb {ED}")]).unwrap_err();
        assert!(matches!(error, GitError::HostKeyLine { line: 2, .. }), "{error}");
        assert!(HostKeyPolicy::from_lines(&["host"]).is_err());
        assert!(HostKeyPolicy::from_lines(&["host ssh-ed25519 nonsense"]).is_err());
        assert!(matches!(HostKeyPolicy::from_lines::<&str>(&[]), Ok(HostKeyPolicy::TrustOnFirstUse)));
    }
}
