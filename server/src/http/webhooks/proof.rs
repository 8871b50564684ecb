//! What a hook proves itself with, checked over the raw bytes in constant time. Not here: in which header it stands.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use pipelines::{protocol::Secret, time::UnixMs};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// How the keys of Standard Webhooks begin.
const KEY_PREFIX: &str = "whsec_";
/// Signatures of one hook that are looked at: there are two while a key is exchanged for another.
const SIGNATURES_MAX: usize = 5;

/// A forge's proof that it sent a hook.
pub(super) enum Proof {
    /// HMAC-SHA256 of the body under the secret, hex.
    Hmac(String),
    /// The secret itself.
    Secret(String),
    /// A signature with a time, as Standard Webhooks lay down.
    Stamped(Stamp),
}

/// The headers of Standard Webhooks.
pub(super) struct Stamp {
    /// `webhook-id`.
    pub(super) id: String,
    /// `webhook-timestamp`: seconds since 1970.
    pub(super) timestamp: String,
    /// `webhook-signature`: `v1,<base64>`, several with spaces between.
    pub(super) signatures: String,
}

/// What a proof is held against.
pub(super) struct Against<'a> {
    /// The service's secret.
    pub(super) secret: Option<&'a Secret>,
    /// The service takes hooks without one.
    pub(super) allow_unsigned: bool,
    /// Now.
    pub(super) now: UnixMs,
    /// How far a hook's time may be from now.
    pub(super) clock_skew_ms: u64,
}

/// Checks a proof. Where it is not good the words begin with `its signature is`, and where there is none they do not.
pub(super) fn verify(against: &Against<'_>, proof: Option<&Proof>, body: &[u8]) -> Result<(), &'static str> {
    match (against.secret, proof) {
        (Some(secret), Some(Proof::Hmac(signature))) => {
            let given = hex::decode(signature).map_err(|_| "its signature is not hex")?;
            is_mac(secret.expose().as_bytes(), &[body], &given)
        }
        (Some(secret), Some(Proof::Secret(given))) => {
            let is_same = bool::from(given.as_bytes().ct_eq(secret.expose().as_bytes()));
            if is_same { Ok(()) } else { Err("its signature is wrong") }
        }
        (Some(secret), Some(Proof::Stamped(stamp))) => verify_stamp(against, secret, stamp, body),
        (Some(_), None) => Err("it carries no signature"),
        (None, _) if against.allow_unsigned => Ok(()),
        (None, _) => Err("the service has no hook secret, and does not take hooks without one"),
    }
}

fn verify_stamp(against: &Against<'_>, secret: &Secret, stamp: &Stamp, body: &[u8]) -> Result<(), &'static str> {
    // A key that is not written so is taken as it is.
    let encoded = secret.expose().strip_prefix(KEY_PREFIX).and_then(|rest| STANDARD.decode(rest).ok());
    let key = encoded.unwrap_or_else(|| secret.expose().as_bytes().to_vec());
    let said = [stamp.id.as_bytes(), b".", stamp.timestamp.as_bytes(), b".", body];
    let versioned = stamp.signatures.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let mut given = versioned.take(SIGNATURES_MAX).filter_map(|one| STANDARD.decode(one).ok());
    if !given.any(|given| is_mac(&key, &said, &given).is_ok()) {
        return Err("its signature is wrong");
    }
    // After the signature, so that nobody without the key learns what the server's clock shows.
    let at_ms = stamp.timestamp.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1_000));
    let at_ms = at_ms.ok_or("its signature is without a time")?;
    if at_ms.abs_diff(against.now.0) > against.clock_skew_ms {
        return Err("its signature is too old, or the clock of the forge or of this server is wrong");
    }
    Ok(())
}

fn is_mac(key: &[u8], parts: &[&[u8]], given: &[u8]) -> Result<(), &'static str> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| "its signature is under no good key")?;
    parts.iter().for_each(|part| mac.update(part));
    mac.verify_slice(given).map_err(|_| "its signature is wrong")
}
