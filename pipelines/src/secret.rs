//! Secrets as steps name them: what may be the value of one, and which texts of it are hidden in logs.
//! Not here: where they are kept and how they are sealed (server), and how a log is masked (runner).

use serde::{Deserialize, Serialize};

use crate::{
    ids::SecretName,
    protocol::{Blame, Secret},
};

/// Shorter texts cannot be hidden: they are in every second line, and the mask would tell where.
pub const HIDDEN_BYTES_MIN: usize = 4;
/// Shorter lines of a value of several lines are not hidden for the same reason: braces, `key: 1`, ends of blocks.
pub const HIDDEN_LINE_BYTES_MIN: usize = 8;

/// Why a text cannot be the value of a secret. The text fits after "failed to set the secret: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitValue {
    /// It is too long.
    #[error("its value has {bytes} bytes, and {max} are allowed (bounds.secret_bytes_max)")]
    TooLong {
        /// What it has.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// It could not be hidden in logs.
    #[error(
        "its value is shorter than {HIDDEN_BYTES_MIN} characters, and so could not be hidden in logs; make a longer one"
    )]
    TooShort,
    /// No line of it could be hidden in logs.
    #[error(
        "none of its lines has {HIDDEN_LINE_BYTES_MIN} characters, and so none could be hidden in logs; \
         join them, or make longer ones"
    )]
    LinesTooShort,
    /// No program can be given it.
    #[error("its value holds a zero byte, which no variable of a process can hold; encode it, for example as base64")]
    ZeroByte,
}

/// Whether `value` can be a secret: it can be handed to a program, and hidden in what that prints.
///
/// # Errors
/// [`UnfitValue`].
pub fn check_value(value: &Secret, max_bytes: usize) -> Result<(), UnfitValue> {
    let text = value.expose();
    if text.len() > max_bytes {
        return Err(UnfitValue::TooLong { bytes: text.len(), max: max_bytes });
    }
    if text.contains('\0') {
        return Err(UnfitValue::ZeroByte);
    }
    if text.trim().len() < HIDDEN_BYTES_MIN {
        return Err(UnfitValue::TooShort);
    }
    if hidden_lines(text).is_empty() {
        return Err(UnfitValue::LinesTooShort);
    }
    Ok(())
}

/// The lines of a value that are hidden wherever they appear. What frames a PEM file is no secret.
#[must_use]
pub fn hidden_lines(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let min = if lines.len() > 1 { HIDDEN_LINE_BYTES_MIN } else { HIDDEN_BYTES_MIN };
    lines.into_iter().filter(|line| line.len() >= min && !line.starts_with("-----")).collect()
}

/// A secret as a run gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenSecret {
    /// Its name.
    pub name: SecretName,
    /// Its value.
    pub value: Secret,
}

/// Why a run gets no secret at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// Whose failure it is.
    pub blame: Blame,
    /// One sentence that fits behind "the step … names the secret …, ": why, and what to do.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), UnfitValue> {
        check_value(&Secret::new(text), 100)
    }

    #[test]
    fn what_could_not_be_hidden_or_handed_over_is_no_secret() {
        assert_eq!(check("abcd"), Ok(()));
        assert_eq!(check(" abc \n"), Err(UnfitValue::TooShort));
        assert_eq!(check(""), Err(UnfitValue::TooShort));
        assert_eq!(check("abcdefg\nhijklmn\n"), Err(UnfitValue::LinesTooShort));
        assert_eq!(check("-----BEGIN-----\nab\n-----END-----"), Err(UnfitValue::LinesTooShort));
        assert_eq!(check("abcdefgh\nx"), Ok(()));
        assert_eq!(check("abcd\0efgh"), Err(UnfitValue::ZeroByte));
        assert_eq!(check(&"x".repeat(101)), Err(UnfitValue::TooLong { bytes: 101, max: 100 }));
    }

    #[test]
    fn only_a_value_of_several_lines_may_have_short_ones() {
        assert_eq!(hidden_lines("abcd\n"), ["abcd"]);
        assert_eq!(hidden_lines("{\n  \"key\": \"value\"\n}\n"), ["\"key\": \"value\""]);
    }
}
