//! The server's keys: a master key in a file of mode 0600 (or from the environment), from which everything else is
//! derived: the key that seals secrets, the key of approval links, of codes, of CSRF tokens. Nothing derived is stored.
//! Behind it may stand keys of before its last rotation: they open what is not sealed anew yet, and links and codes that
//! were mailed before. Not here: accounts and passwords; how a key is rotated (`rotation`).

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
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
/// Environment variable that may hold the keys before it, newest first, separated by spaces.
pub const OLD_KEYS_VARIABLE: &str = "WINDLASS_OLD_KEYS";
const KEY_BYTES: usize = 32;
/// More keys than a rotation that was broken off can leave are no key file of ours.
const KEYS_MAX: usize = 4;

type Master = Zeroizing<[u8; KEY_BYTES]>;

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
    #[error("a key in {0} is not 32 bytes of base64")]
    Malformed(String),
    /// A sealed text does not open with this key.
    #[error("a stored secret does not open with this key; was the key file exchanged?")]
    DoesNotOpen,
}

/// The server's keys.
pub struct Keys {
    current: Master,
    /// Newest first.
    old: Vec<Master>,
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
        Self { current: Zeroizing::new(master), old: Vec::new() }
    }

    /// Whether the keys come from the environment, and so no file holds them.
    #[must_use]
    pub fn are_in_environment() -> bool {
        std::env::var_os(KEY_VARIABLE).is_some()
    }

    /// The key from the environment, or from the file at `path`, which is made where it is missing.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        if let Ok(text) = std::env::var(KEY_VARIABLE).map(Zeroizing::new) {
            let old = Zeroizing::new(std::env::var(OLD_KEYS_VARIABLE).unwrap_or_default());
            let all = Zeroizing::new(format!("{} {}", *text, *old));
            return Self::parse(&all, &format!("{KEY_VARIABLE} or {OLD_KEYS_VARIABLE}"));
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
        let malformed = || KeyError::Malformed(place.to_owned());
        let key = |word: &str| {
            let bytes = BASE64.decode(word).map(Zeroizing::new).ok();
            bytes.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok()).map(Zeroizing::new)
        };
        let keys: Option<Vec<Master>> = text.split_whitespace().map(key).collect();
        let mut keys = keys.filter(|keys| keys.len() <= KEYS_MAX).ok_or_else(malformed)?.into_iter();
        Ok(Self { current: keys.next().ok_or_else(malformed)?, old: keys.collect() })
    }

    /// The keys as their file holds them, the current one first: for that file, and for a backup that is asked to hold
    /// them.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity((self.old.len() + 1) * (KEY_BYTES * 2)));
        for key in self.all() {
            BASE64.encode_string(key, &mut text);
            text.push('\n');
        }
        text
    }

    fn make(path: &Path) -> io::Result<Self> {
        let made = Self::from_bytes(new_key());
        made.write(path)?;
        Ok(made)
    }

    /// Writes the keys into the file at `path`, the current one first: whole or not at all, for its owner alone.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        // Under its name only when it is whole and on disk: a kill here must not leave half a key.
        let half = path.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(self.to_text().as_bytes())?;
        // Root may rotate the key of a server that runs as somebody else.
        if let Ok(before) = fs::metadata(path) {
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&half, path)?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// A new key in front of these.
    #[must_use]
    pub fn rotated(&self) -> Self {
        Self { current: Zeroizing::new(new_key()), old: self.all().cloned().collect() }
    }

    /// These keys with at most so many old ones.
    #[must_use]
    pub fn with_old(&self, count: usize) -> Self {
        Self { current: self.current.clone(), old: self.old.iter().take(count).cloned().collect() }
    }

    /// How many old keys there are.
    #[must_use]
    pub fn old_count(&self) -> usize {
        self.old.len()
    }

    /// All keys, the current one first.
    fn all(&self) -> impl Iterator<Item = &Master> {
        std::iter::once(&self.current).chain(&self.old)
    }

    /// HMAC-SHA256 of `parts` for one purpose. Each part carries its length, so that no two lists read the same.
    #[must_use]
    pub fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        mac_of(&self.current, purpose, parts)
    }

    /// The same with the oldest key: for what is only told apart by it, and had better not change with the key.
    #[must_use]
    pub fn oldest_mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        mac_of(self.old.last().unwrap_or(&self.current), purpose, parts)
    }

    /// Seals a text; `place` binds it to where it is stored, so that it cannot be moved to another service.
    ///
    /// # Errors
    /// Never for texts below 256 GiB.
    pub fn seal(&self, place: &str, text: &Secret, at: UnixMs) -> Result<Sealed, KeyError> {
        let mut nonce = [0; 24];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: text.expose().as_bytes(), aad: place.as_bytes() };
        let sealed =
            seal_key(&self.current).encrypt(&XNonce::from(nonce), payload).map_err(|_| KeyError::DoesNotOpen)?;
        Ok(Sealed { nonce: BASE64.encode(nonce), text: BASE64.encode(sealed), set_at: at })
    }

    /// Opens what [`Keys::seal`] sealed for the same place.
    ///
    /// # Errors
    /// When it was sealed with none of the keys, for another place, or was changed.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Secret, KeyError> {
        self.all().find_map(|key| open_with(key, place, sealed)).ok_or(KeyError::DoesNotOpen)
    }

    /// Whether [`Keys::seal`] would use the key that this was sealed with.
    #[must_use]
    pub fn is_current(&self, place: &str, sealed: &Sealed) -> bool {
        open_with(&self.current, place, sealed).is_some()
    }

    /// The token of a tester's link: bound to release, round, digest and tester; mailed again it is the same, until the key
    /// is rotated.
    #[must_use]
    pub fn approval_token(&self, approval: &Approval, tester: &str) -> String {
        token_with(&self.current, approval, tester)
    }

    /// The tester of `approval` whose link carries `token`, found in constant time per tester and key.
    #[must_use]
    pub fn tester_of_token(&self, approval: &Approval, token: &str) -> Option<String> {
        let is_theirs = |tester: &str| {
            self.all().any(|key| token_with(key, approval, tester).as_bytes().ct_eq(token.as_bytes()).into())
        };
        approval.asked().find(|tester| is_theirs(tester)).cloned()
    }

    /// The 6-digit code number `serial` of a tester.
    #[must_use]
    pub fn approval_code(&self, approval: &Approval, tester: &str, serial: u32) -> String {
        code_with(&self.current, approval, tester, serial)
    }

    /// Whether `given` is that code, in constant time; spaces that mail programs add do not count.
    #[must_use]
    pub fn is_approval_code(&self, approval: &Approval, tester: &str, serial: u32, given: &str) -> bool {
        let given: String = given.chars().filter(|c| !c.is_whitespace()).collect();
        self.all().any(|key| code_with(key, approval, tester, serial).as_bytes().ct_eq(given.as_bytes()).into())
    }

    /// The left part of the Message-ID of a mail: the same however often it is sent.
    #[must_use]
    pub fn message_id(&self, release: &ReleaseId, round: u32, tester: &str, what: &str) -> String {
        let mac = self.oldest_mac(
            "message id",
            &[release.to_string().as_bytes(), &round.to_be_bytes(), tester.as_bytes(), what.as_bytes()],
        );
        format!("{}.{}.{}", release.service, release.number, hex::encode(&mac[..12]))
    }
}

fn new_key() -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    rand::rng().fill_bytes(&mut key);
    key
}

fn mac_of(key: &Master, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let key: &[u8] = &**key;
    // HMAC takes keys of any length: this cannot fail for 32 bytes.
    let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key) else { return [0; 32] };
    for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn seal_key(key: &Master) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&mac_of(key, "seal", &[]).into())
}

fn open_with(key: &Master, place: &str, sealed: &Sealed) -> Option<Secret> {
    let nonce = <[u8; 24]>::try_from(BASE64.decode(&sealed.nonce).ok()?).ok()?;
    let text = BASE64.decode(&sealed.text).ok()?;
    let payload = Payload { msg: text.as_slice(), aad: place.as_bytes() };
    let opened = seal_key(key).decrypt(&XNonce::from(nonce), payload).ok()?;
    String::from_utf8(opened).map(Secret::new).ok()
}

fn token_with(key: &Master, approval: &Approval, tester: &str) -> String {
    let parts = approval_parts(approval, tester);
    URL_SAFE_NO_PAD.encode(mac_of(key, "approval link", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

fn code_with(key: &Master, approval: &Approval, tester: &str, serial: u32) -> String {
    let mut parts = approval_parts(approval, tester);
    parts.push(serial.to_be_bytes().to_vec());
    let mac = mac_of(key, "approval code", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let number = u64::from_be_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], mac[6], mac[7]]);
    format!("{:06}", number % 1_000_000)
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
    fn an_old_key_opens_what_it_sealed_and_seals_nothing() {
        let (folder, secret) = (tempfile::tempdir().unwrap(), Secret::new("t0ken"));
        let path = folder.path().join("key");
        let before = Keys::load(&path).unwrap();
        let sealed = before.seal("place", &secret, UnixMs(1)).unwrap();
        before.rotated().write(&path).unwrap();
        let after = Keys::load(&path).unwrap();
        assert_eq!(after.old_count(), 1);
        assert_eq!(after.open("place", &sealed).unwrap(), secret);
        assert!(!after.is_current("place", &sealed));
        let anew = after.seal("place", &secret, UnixMs(1)).unwrap();
        assert!(after.is_current("place", &anew) && before.open("place", &anew).is_err());
        assert!(after.with_old(0).open("place", &sealed).is_err());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_was_mailed_before_a_rotation_is_good_until_the_old_key_goes() {
        let stage = crate::testing::test_app();
        let release = stage.awaiting("shop").await;
        let approval = stage.app.store().approval(&release).unwrap().unwrap();
        let before = Keys::from_bytes([7; 32]);
        let (after, tester) = (before.rotated(), approval.testers[0].clone());
        let link = before.approval_token(&approval, &tester);
        let codes: Vec<_> = (0..9).map(|serial| before.approval_code(&approval, &tester, serial)).collect();
        let good = |keys: &Keys| {
            codes
                .iter()
                .zip(0..)
                .filter(|(code, serial)| keys.is_approval_code(&approval, &tester, *serial, code))
                .count()
        };
        assert_eq!(after.tester_of_token(&approval, &link).as_ref(), Some(&tester));
        assert_eq!(good(&after), codes.len());
        assert_ne!(after.approval_token(&approval, &tester), link);
        let alone = after.with_old(0);
        assert_eq!(alone.tester_of_token(&approval, &link), None);
        assert!(good(&alone) < codes.len());
        let of = |keys: &Keys| keys.message_id(&release, 1, &tester, "approval");
        assert_eq!(of(&before), of(&after), "a mail that is sent again is the same mail");
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let keys = Keys::from_bytes([7; 32]);
        assert_ne!(keys.mac("p", &[b"ab", b"c"]), keys.mac("p", &[b"a", b"bc"]));
    }
}
