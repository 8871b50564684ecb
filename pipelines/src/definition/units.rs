//! The quantities of a pipeline file: durations, shares, weights and the thresholds made of them.
//! Each is written as text (`2m`, `99.5%`, `>= 99%`) and travels as that text. No keys and no positions here.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::value::{ValueError, quote};
use crate::time::parse_duration_ms;

/// Gives a value that is written as text its serde and schema forms.
macro_rules! written_as_text {
    ($name:ident, $pattern:literal, $description:literal, $example:literal) => {
        impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "description": $description,
                    "examples": [$example],
                })
            }
        }
    };
}

/// The longest duration that a pipeline file may name: a year.
pub const TIME_SPAN_MAX: TimeSpan = TimeSpan::from_secs(365 * 24 * 3600);

/// The units of a printed duration, the largest first. Days are not used: `72h` reads as it was written.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration with its unit, such as `500ms`, `30s`, `2m`, `72h`, `3d` or `1h30m`; kept in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeSpan {
    millis: u64,
}

written_as_text!(
    TimeSpan,
    r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
    "A duration: a number and a unit (ms, s, m, h, d), such as 30s, 2m, 72h or 1h30m.",
    "2m"
);

impl TimeSpan {
    /// A duration of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        TimeSpan { millis: secs * 1_000 }
    }

    /// A duration of milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        TimeSpan { millis }
    }

    /// The duration in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    /// The duration as the standard library has it.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.millis)
    }
}

impl FromStr for TimeSpan {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const HELP: &str = "write a number and a unit, such as `30s`, `2m`, `72h` or `1h30m`";
        if text.len() > 32 || text.contains(char::is_whitespace) {
            return Err(ValueError::new(format!("{} is not a duration", quote(text)), HELP));
        }
        let millis = parse_duration_ms(text).map_err(|reason| {
            let (message, help) = reason.split_once("; ").unwrap_or((&reason, HELP));
            ValueError::new(message, help)
        })?;
        if millis > TIME_SPAN_MAX.millis {
            return Err(ValueError::new(format!("the duration {} is longer than a year", quote(text)), HELP));
        }
        Ok(TimeSpan { millis })
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        for (unit, size) in &UNITS {
            if rest >= *size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

/// A share of the whole, such as `99%` or `99.95%`; kept in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    ppm: u32,
}

written_as_text!(
    Share,
    r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%$",
    "A share of the whole, such as 99% or 99.95%.",
    "99%"
);

impl Share {
    /// A share of whole percents; more than 100 is taken as 100.
    pub const fn from_percent(percent: u32) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Share { ppm: percent * 10_000 }
    }

    /// The share in parts per million: 99 % is 990 000.
    pub const fn as_ppm(self) -> u32 {
        self.ppm
    }

    /// The share as a number from 0 to 1.
    pub fn as_fraction(self) -> f64 {
        f64::from(self.ppm) / 1_000_000.0
    }
}

impl FromStr for Share {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some(number) = text.strip_suffix('%') else {
            let help = match text.parse::<f64>() {
                Ok(number) if number > 0.0 && number <= 1.0 => {
                    format!("write `{}%`", number * 100.0)
                }
                Ok(number) if number > 1.0 && number <= 100.0 => format!("write `{number}%`"),
                _ => "write a number from 0 to 100 and `%`, such as `99.5%`".to_owned(),
            };
            return Err(ValueError::new(format!("{} is not a percentage", quote(text)), help));
        };
        let number = number.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.len() > 3 || fraction.len() > 4 {
            return Err(ValueError::new(
                format!("{} is not a percentage", quote(text)),
                "write a number from 0 to 100, with at most four decimals, and `%`, such as `99.5%`",
            ));
        }
        let parsed = whole.parse::<u32>().ok().zip(format!("{fraction:0<4}").parse::<u32>().ok());
        match parsed.map(|(whole, fraction)| whole * 10_000 + fraction) {
            Some(ppm) if ppm <= 1_000_000 => Ok(Share { ppm }),
            _ => Err(ValueError::new(
                format!("{} is more than the whole", quote(text)),
                "write a percentage from 0 to 100",
            )),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.ppm / 10_000, self.ppm % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let decimals = format!("{rest:04}");
        write!(f, "{whole}.{}%", decimals.trim_end_matches('0'))
    }
}

/// A lower limit on a share: `>= 99%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AtLeast(pub Share);

written_as_text!(
    AtLeast,
    r"^>= *[0-9]{1,3}(\.[0-9]{1,4})?%$",
    "At least this share, such as \">= 99%\". Quote it: an unquoted > means something else in YAML.",
    ">= 99%"
);

impl FromStr for AtLeast {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        limit_of(text, ">=", "\">= 99%\"").map(AtLeast)
    }
}

impl fmt::Display for AtLeast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ">= {}", self.0)
    }
}

/// An upper limit on a duration: `<= 500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AtMost(pub TimeSpan);

written_as_text!(
    AtMost,
    r"^<= *[0-9]+(ms|s|m|h)([0-9]+(ms|s|m))*$",
    "At most this duration, such as \"<= 500ms\".",
    "<= 500ms"
);

impl FromStr for AtMost {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        limit_of(text, "<=", "\"<= 500ms\"").map(AtMost)
    }
}

impl fmt::Display for AtMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<= {}", self.0)
    }
}

fn limit_of<T: FromStr<Err = ValueError>>(text: &str, sign: &str, example: &str) -> Result<T, ValueError> {
    if let Some(value) = text.trim().strip_prefix(sign) {
        return value.trim().parse();
    }
    let bare = text.trim().trim_start_matches(['<', '>', '=', ' ']);
    let help = match bare.parse::<T>() {
        Ok(_) => format!("write `\"{sign} {bare}\"`"),
        Err(_) => format!("write `{example}`"),
    };
    Err(ValueError::new(format!("{} is not a limit that starts with `{sign}`", quote(text)), help))
}

/// The share of the traffic that a canary gets, in whole percents from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Weight(u8);

impl Weight {
    /// All traffic.
    pub const FULL: Weight = Weight(100);

    /// A weight of `percent`.
    ///
    /// # Errors
    /// A weight is from 1 to 100.
    pub fn new(percent: u8) -> Result<Self, ValueError> {
        if (1..=100).contains(&percent) {
            Ok(Weight(percent))
        } else {
            Err(ValueError::new(
                format!("a weight of {percent} is out of range"),
                "write a whole number from 1 to 100: the percentage of the traffic",
            ))
        }
    }

    /// The weight in percent.
    pub const fn percent(self) -> u8 {
        self.0
    }
}

impl JsonSchema for Weight {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 100 })
    }
}

impl TryFrom<u8> for Weight {
    type Error = ValueError;
    fn try_from(percent: u8) -> Result<Self, ValueError> {
        Weight::new(percent)
    }
}

impl From<Weight> for u8 {
    fn from(weight: Weight) -> u8 {
        weight.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        let millis = |text: &str| text.parse::<TimeSpan>().map(TimeSpan::as_millis);
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("30s"), Ok(30_000));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("3d"), Ok(259_200_000));
        assert_eq!(millis("0s"), Ok(0));
        for bad in ["", "5", "m", "5 m", "-5m", "1.5h", " 5m", "5x", "400d", "1hh", "٣s"] {
            assert!(millis(bad).is_err(), "{bad} was taken");
        }
        assert!(millis("99999999999999999999s").is_err());
        assert!(millis("18446744073709551615d").is_err());
    }

    #[test]
    fn durations_print_as_they_are_written() {
        for text in ["72h", "1h30m", "2m", "90ms", "1m30s", "0s"] {
            assert_eq!(text.parse::<TimeSpan>().unwrap().to_string(), text);
        }
        assert_eq!("3d".parse::<TimeSpan>().unwrap().to_string(), "72h");
    }

    #[test]
    fn shares_keep_four_decimals() {
        let ppm = |text: &str| text.parse::<Share>().map(Share::as_ppm);
        assert_eq!(ppm("99%"), Ok(990_000));
        assert_eq!(ppm("99.95%"), Ok(999_500));
        assert_eq!(ppm("100%"), Ok(1_000_000));
        assert_eq!(ppm("0.0001%"), Ok(1));
        for bad in ["99", "", "%", "101%", "100.0001%", "-1%", "1e1%", "9.00001%", ".5%", "1.%"] {
            assert!(ppm(bad).is_err(), "{bad} was taken");
        }
        assert_eq!("99.9500%".parse::<Share>().unwrap().to_string(), "99.95%");
        assert_eq!("0.99".parse::<Share>().unwrap_err().help(), Some("write `99%`"));
    }

    #[test]
    fn limits_need_their_sign() {
        assert_eq!(">= 99%".parse::<AtLeast>().unwrap().0.as_ppm(), 990_000);
        assert_eq!("<=500ms".parse::<AtMost>().unwrap().to_string(), "<= 500ms");
        let error = "> 99%".parse::<AtLeast>().unwrap_err();
        assert_eq!(error.help(), Some("write `\">= 99%\"`"));
        assert!(">= 500ms".parse::<AtMost>().is_err());
    }
}
