//! Moments and spans as the domain sees them: milliseconds, handed in from outside. No clock lives here.

use serde::{Deserialize, Serialize};

/// A moment in UTC, in milliseconds since 1970-01-01.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// This moment moved on by `span_ms`, saturating.
    #[must_use]
    pub fn plus_ms(self, span_ms: u64) -> Self {
        Self(self.0.saturating_add(span_ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 if `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Reads a duration as people write it in a pipeline file: `500ms`, `30s`, `2m`, `72h`, `7d`, or parts joined (`1h30m`).
///
/// # Errors
/// Says what is wrong with the text, in words that fit after "failed to read a duration: ".
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("it is empty; write for example 30s, 2m or 72h".into());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(format!("`{text}` does not start with a number; write for example 30s, 2m or 72h"));
        }
        let number: u64 = rest[..digits].parse().map_err(|_| format!("`{text}` is too long a number"))?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return Err(format!("`{text}` has no unit; write for example {number}s, {number}m or {number}h")),
            other => return Err(format!("`{other}` is not a unit; use ms, s, m, h or d")),
        };
        rest = &rest[letters..];
        total = number
            .checked_mul(unit_ms)
            .and_then(|span| total.checked_add(span))
            .ok_or_else(|| format!("`{text}` is too long a time"))?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration_ms("500ms"), Ok(500));
        assert_eq!(parse_duration_ms("2m"), Ok(120_000));
        assert_eq!(parse_duration_ms("1h30m"), Ok(5_400_000));
        assert_eq!(parse_duration_ms("72h"), Ok(259_200_000));
    }

    #[test]
    fn a_bad_duration_says_what_is_wrong() {
        assert!(parse_duration_ms("").unwrap_err().contains("empty"));
        assert!(parse_duration_ms("10").unwrap_err().contains("no unit"));
        assert!(parse_duration_ms("m").unwrap_err().contains("number"));
        assert!(parse_duration_ms("3w").unwrap_err().contains("not a unit"));
        assert!(parse_duration_ms("99999999999999999999d").is_err());
    }
}
