//! What opens a repository, and reading private keys. Not here: where credentials are stored.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pipelines::repository::{GitTransport, RepositoryAddress};
use russh::keys::{Algorithm, Error as KeysError, PrivateKey, decode_secret_key, ssh_key};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::error::{GitError, KeyProblem};

/// What opens a repository. `Debug` does not show secrets.
#[derive(Clone, Debug, Default)]
pub enum GitCredential {
    /// Nothing is needed.
    #[default]
    None,
    /// A user with a password or token, by HTTP's basic authentication.
    Token {
        /// The user; many forges take any.
        user: String,
        /// The password or token.
        secret: SecretString,
    },
    /// A private key for ssh: Ed25519 or ECDSA.
    SshKey {
        /// The key as `ssh-keygen` writes it (PKCS#8 PEM is read too). It stays in memory.
        private_key_openssh: SecretString,
        /// What opens it, if it is encrypted.
        passphrase: Option<SecretString>,
    },
}

impl GitCredential {
    /// Says early, when a service is registered, what would fail at the first fetch: an RSA key, a key that cannot be
    /// read, a token for ssh. Opening an encrypted key costs some tenths of a second; call it where blocking is fine.
    ///
    /// # Errors
    /// [`GitError::Key`] and [`GitError::WrongCredential`].
    pub fn check(&self, url: &RepositoryAddress) -> Result<(), GitError> {
        match (self, url.transport()) {
            (Self::SshKey { .. }, GitTransport::Ssh) => self.private_key().map(drop),
            (Self::SshKey { .. }, _) => Err(GitError::WrongCredential {
                why: "an SSH key opens ssh addresses only; use a token, or the ssh address",
            }),
            (Self::Token { .. }, GitTransport::Ssh) => {
                Err(GitError::WrongCredential { why: "an ssh address needs an SSH key, not a token" })
            }
            _ => Ok(()),
        }
    }

    /// The key, opened; `None` where there is no key.
    pub(super) fn private_key(&self) -> Result<Option<Arc<PrivateKey>>, GitError> {
        let Self::SshKey { private_key_openssh, passphrase } = self else { return Ok(None) };
        let passphrase = passphrase.as_ref().map(|text| text.expose_secret());
        read_key(private_key_openssh.expose_secret(), passphrase).map(|key| Some(Arc::new(key))).map_err(GitError::Key)
    }

    /// What must not appear in a message, should a server repeat what it got.
    pub(super) fn secrets(&self) -> Vec<String> {
        let Self::Token { user, secret } = self else { return Vec::new() };
        let secret = secret.expose_secret();
        vec![STANDARD.encode(format!("{user}:{secret}")), secret.to_owned()]
    }
}

fn read_key(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, KeyProblem> {
    let text = text.trim();
    if is_rsa(text) {
        return Err(KeyProblem::Rsa);
    }
    let key = decode_secret_key(text, passphrase).map_err(|error| match (error, passphrase) {
        (KeysError::KeyIsEncrypted, _) => KeyProblem::Encrypted,
        (KeysError::SshKey(ssh_key::Error::AlgorithmUnsupported { .. } | ssh_key::Error::AlgorithmUnknown), _) => {
            KeyProblem::Unsupported
        }
        _ if passphrase.is_some() => KeyProblem::WrongPassphrase,
        _ if text.contains("-----BEGIN ENCRYPTED ") => KeyProblem::Encrypted,
        _ => KeyProblem::Unreadable,
    })?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(key),
        Algorithm::Rsa { .. } => Err(KeyProblem::Rsa),
        _ => Err(KeyProblem::Unsupported),
    }
}

/// Whether the key says of itself that it is RSA, encrypted or not. OpenSSH's format (PROTOCOL.key) has the public key
/// in clear, PKCS#8 the object identifier of rsaEncryption (RFC 8017, appendix A.1).
fn is_rsa(text: &str) -> bool {
    if text.contains("-----BEGIN RSA PRIVATE KEY-----") {
        return true;
    }
    if text.starts_with("PuTTY-User-Key-File-") {
        return text.lines().next().is_some_and(|line| line.trim_end().ends_with("ssh-rsa"));
    }
    let body: String = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let Ok(bytes) = STANDARD.decode(&*Zeroizing::new(body)).map(Zeroizing::new) else { return false };
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    holds(b"\0\0\0\x07ssh-rsa") || holds(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01])
}
