//! Names of runs and steps as names of files: every name has one, two names never the same.

use std::fmt::Write;

use super::LogError;

/// File systems take 255; a number and an ending are added.
const ESCAPED_BYTES: usize = 200;

/// The name with everything but letters, digits, `-` and `_` as `%` and two hexadecimal digits.
pub(super) fn escape(name: &str) -> Result<String, LogError> {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02x}");
        }
    }
    if escaped.is_empty() || escaped.len() > ESCAPED_BYTES {
        return Err(LogError::BadName(name.chars().take(80).collect()));
    }
    Ok(escaped)
}

/// The name again, if it is one that [`escape`] made.
pub(super) fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = escaped.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_leave_the_folder_stay_in_it() {
        assert_eq!(escape("../a/b").unwrap(), "%2e%2e%2fa%2fb");
        assert_eq!(escape(".").unwrap(), "%2e");
        assert!(escape("").is_err());
        assert!(escape(&"é".repeat(60)).is_err());
    }

    proptest! {
        #[test]
        fn a_name_comes_back(name in "\\PC{1,16}") {
            prop_assert_eq!(unescape(&escape(&name).unwrap()), Some(name));
        }
    }
}
