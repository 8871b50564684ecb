//! Randomness as text that is typed, pasted or kept: passwords, secrets, tokens. Not here: keys that seal (`app::keys`).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::RngCore as _;

/// Bytes of what opens something by itself and is never typed.
pub const KEY_BYTES: usize = 32;

/// This many random bytes in the letters, digits, `-` and `_` of base64 for URLs.
#[must_use]
pub fn text(random_bytes: usize) -> String {
    let mut bytes = vec![0; random_bytes];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_another_each_time_and_needs_no_escaping() {
        let (one, other) = (text(KEY_BYTES), text(KEY_BYTES));
        assert_ne!(one, other);
        assert_eq!(one.len(), 43);
        assert!(one.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')), "{one}");
    }
}
