//! The server's keys: one master key in a file of mode 0600 (or from the environment), from which everything else is
//! derived: the key that seals secrets, the key of approval links, of codes, of CSRF tokens. Nothing derived is stored.
//! Not here: accounts and passwords.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use hmac::{Hmac, Mac};
use pipelines::{approval::Approval, ids::ReleaseId, protocol::Secret, time::UnixMs};
use rand::RngCore;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::store::records::Sealed;

/// Environment variable that may hold the master key, base64, instead of the file.
pub const KEY_VARIABLE: &str = "WINDLASS_KEY";
const KEY_BYTES: usize = 32;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("the key file {path} cannot be read or made")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read the file.
    #[error("the key file {0} can be read by others; run chmod 600 on it")]
    Exposed(PathBuf),
    /// It is not a key.
    #[error("the key in {0} is not 32 bytes of base64")]
    Malformed(String),
    /// A sealed text does not open with this key.
    #[error("a stored secret does not open with this key; was the key file exchanged?")]
    DoesNotOpen,
}

/// The server's keys.
pub struct Keys {
    master: Zeroizing<[u8; KEY_BYTES]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Keys made from `master`.
    #[must_use]
    pub fn from_bytes(master: [u8; KEY_BYTES]) -> Self {
        Self { master: Zeroizing::new(master) }
    }

    /// The key from the environment, or from the file at `path`, which is made where it is missing.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        if let Ok(text) = std::env::var(KEY_VARIABLE) {
            return Self::parse(&text, KEY_VARIABLE);
        }
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Err(KeyError::Exposed(path.to_owned())),
            Ok(_) => {
                let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
                Self::parse(&text, &path.display().to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }

    fn parse(text: &str, place: &str) -> Result<Self, KeyError> {
        let bytes = BASE64.decode(text.trim()).map(Zeroizing::new).ok();
        let master = bytes.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok());
        master.map(Self::from_bytes).ok_or_else(|| KeyError::Malformed(place.to_owned()))
    }

    fn make(path: &Path) -> io::Result<Self> {
        let mut master = [0; KEY_BYTES];
        rand::rng().fill_bytes(&mut master);
        // Under its name only when it is whole and on disk: a kill here must not leave half a key.
        let half = path.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
        file.write_all(Zeroizing::new(BASE64.encode(master)).as_bytes())?;
        file.sync_all()?;
        fs::rename(&half, path)?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(Self::from_bytes(master))
    }

    /// HMAC-SHA256 of `parts` for one purpose. Each part carries its length, so that no two lists read the same.
    #[must_use]
    pub fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let key: &[u8] = &*self.master;
        // HMAC takes keys of any length: this cannot fail for 32 bytes.
        let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key) else { return [0; 32] };
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn seal_key(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.mac("seal", &[]).into())
    }

    /// Seals a text; `place` binds it to where it is stored, so that it cannot be moved to another service.
    ///
    /// # Errors
    /// Never for texts below 256 GiB.
    pub fn seal(&self, place: &str, text: &Secret, at: UnixMs) -> Result<Sealed, KeyError> {
        let mut nonce = [0; 24];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: text.expose().as_bytes(), aad: place.as_bytes() };
        let sealed = self.seal_key().encrypt(&XNonce::from(nonce), payload).map_err(|_| KeyError::DoesNotOpen)?;
        Ok(Sealed { nonce: BASE64.encode(nonce), text: BASE64.encode(sealed), set_at: at })
    }

    /// Opens what [`Keys::seal`] sealed for the same place.
    ///
    /// # Errors
    /// When it was sealed with another key, for another place, or was changed.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Secret, KeyError> {
        let nonce = BASE64.decode(&sealed.nonce).ok().and_then(|bytes| <[u8; 24]>::try_from(bytes).ok());
        let (Some(nonce), Ok(text)) = (nonce, BASE64.decode(&sealed.text)) else { return Err(KeyError::DoesNotOpen) };
        let payload = Payload { msg: text.as_slice(), aad: place.as_bytes() };
        let opened = self.seal_key().decrypt(&XNonce::from(nonce), payload).map_err(|_| KeyError::DoesNotOpen)?;
        String::from_utf8(opened).map(Secret::new).map_err(|_| KeyError::DoesNotOpen)
    }

    /// The token of a tester's link: bound to release, round, digest and tester; mailed again it is the same.
    #[must_use]
    pub fn approval_token(&self, approval: &Approval, tester: &str) -> String {
        let mac =
            self.mac("approval link", &approval_parts(approval, tester).iter().map(Vec::as_slice).collect::<Vec<_>>());
        URL_SAFE_NO_PAD.encode(mac)
    }

    /// The tester of `approval` whose link carries `token`, found in constant time per tester.
    #[must_use]
    pub fn tester_of_token(&self, approval: &Approval, token: &str) -> Option<String> {
        approval
            .asked()
            .find(|tester| self.approval_token(approval, tester).as_bytes().ct_eq(token.as_bytes()).into())
            .cloned()
    }

    /// The 6-digit code number `serial` of a tester.
    #[must_use]
    pub fn approval_code(&self, approval: &Approval, tester: &str, serial: u32) -> String {
        let mut parts = approval_parts(approval, tester);
        parts.push(serial.to_be_bytes().to_vec());
        let mac = self.mac("approval code", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let number = u64::from_be_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], mac[6], mac[7]]);
        format!("{:06}", number % 1_000_000)
    }

    /// Whether `given` is that code, in constant time; spaces that mail programs add do not count.
    #[must_use]
    pub fn is_approval_code(&self, approval: &Approval, tester: &str, serial: u32, given: &str) -> bool {
        let given: String = given.chars().filter(|c| !c.is_whitespace()).collect();
        self.approval_code(approval, tester, serial).as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// The left part of the Message-ID of a mail: the same however often it is sent.
    #[must_use]
    pub fn message_id(&self, release: &ReleaseId, round: u32, tester: &str, what: &str) -> String {
        let mac = self.mac(
            "message id",
            &[release.to_string().as_bytes(), &round.to_be_bytes(), tester.as_bytes(), what.as_bytes()],
        );
        format!("{}.{}.{}", release.service, release.number, hex::encode(&mac[..12]))
    }
}

fn approval_parts(approval: &Approval, tester: &str) -> Vec<Vec<u8>> {
    vec![
        approval.release.to_string().into_bytes(),
        approval.round.to_be_bytes().to_vec(),
        approval.digest.as_str().as_bytes().to_vec(),
        tester.as_bytes().to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_only_in_its_place_and_unchanged() {
        let keys = Keys::from_bytes([7; 32]);
        let sealed = keys.seal("service/a/git", &Secret::new("t0ken"), UnixMs(1)).unwrap();
        assert!(!sealed.text.contains("t0ken"));
        assert_eq!(keys.open("service/a/git", &sealed).unwrap().expose(), "t0ken");
        assert!(keys.open("service/b/git", &sealed).is_err());
        assert!(Keys::from_bytes([8; 32]).open("service/a/git", &sealed).is_err());
        let other = Sealed { text: BASE64.encode(b"something else, and long enough"), ..sealed };
        assert!(keys.open("service/a/git", &other).is_err());
    }

    #[test]
    fn a_key_file_is_made_once_and_refused_when_others_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = Keys::load(&path).unwrap();
        let second = Keys::load(&path).unwrap();
        assert_eq!(first.mac("x", &[]), second.mac("x", &[]));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keys::load(&path), Err(KeyError::Exposed(_))));
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let keys = Keys::from_bytes([7; 32]);
        assert_ne!(keys.mac("p", &[b"ab", b"c"]), keys.mac("p", &[b"a", b"bc"]));
    }
}
