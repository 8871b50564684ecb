//! Labels: what a run asks of a runner, and what a runner has. Not here: who is given which run.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::{InvalidId, invalid};

/// Labels of one run or runner.
pub const LABELS_MAX: usize = 20;
/// Characters of a label's name or value.
pub const LABEL_CHARS_MAX: usize = 63;
/// The value of a runner's label that fits every value.
pub const ANY: &str = "*";

/// Names with values, such as `os: linux`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
#[schemars(with = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name and value of each, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether a runner that has `labels` may take what asks for these.
    #[must_use]
    pub fn fit(&self, labels: &Self) -> bool {
        self.0.iter().all(|(name, value)| labels.0.get(name).is_some_and(|has| has == value || has == ANY))
    }

    /// These with `os` and `arch` of the machine, where they are not written. `arch` is named as images name it.
    #[must_use]
    pub fn with_machine(mut self, os: &str, arch: &str) -> Self {
        let arch = match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        for (name, value) in [("os", os), ("arch", arch)] {
            if !self.0.contains_key(name) {
                // More labels than may be: then those that were written count.
                self.insert(name, value).ok();
            }
        }
        self
    }

    /// Adds a label, in the place of one with the same name.
    ///
    /// # Errors
    /// When the name or the value is not one, or there are too many.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), InvalidId> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if !(1..=LABEL_CHARS_MAX).contains(&name.len()) || !name.chars().all(is_name) {
            return Err(invalid("label name", name, "use 1 to 63 of a-z, A-Z, 0-9, - _ . and /"));
        }
        let is_value = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '=' | '"' | '\'' | '<' | '>');
        if !(1..=LABEL_CHARS_MAX).contains(&value.len()) || !value.chars().all(is_value) {
            return Err(invalid(
                "label value",
                value,
                "use 1 to 63 visible ASCII characters without , = < > and quotes",
            ));
        }
        if self.0.len() >= LABELS_MAX && !self.0.contains_key(name) {
            return Err(invalid("label", name, format!("there are {LABELS_MAX} labels already")));
        }
        self.0.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = InvalidId;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, InvalidId> {
        let mut labels = Self::default();
        for (name, value) in &map {
            labels.insert(name, value)?;
        }
        Ok(labels)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl FromStr for Labels {
    type Err = InvalidId;

    /// Reads `name=value, name=value`.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut labels = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| invalid("label", pair, "write NAME=VALUE"))?;
            labels.insert(name.trim(), value.trim())?;
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.parse().unwrap()
    }

    #[test]
    fn a_run_fits_a_runner_that_has_each_of_its_labels() {
        let runner = labels("os=linux, gpu=true, zone=*");
        for (asks, fits) in [
            ("", true),
            ("gpu=true", true),
            ("gpu=true,os=linux", true),
            ("zone=north", true),
            ("gpu=false", false),
            ("arch=arm64", false),
            ("gpu=true,arch=arm64", false),
        ] {
            assert_eq!(labels(asks).fit(&runner), fits, "{asks}");
        }
        assert!(!labels("gpu=true").fit(&Labels::default()));
    }

    #[test]
    fn what_is_no_label_is_refused_also_inside_of_json() {
        for bad in ["gpu", "=x", "a=", "a b=c", "a=b=c", "é=x", "a=\u{7f}", "a=<b>"] {
            assert!(bad.parse::<Labels>().is_err(), "{bad} was taken");
        }
        assert!(serde_json::from_str::<Labels>(r#"{"a": ""}"#).is_err());
        let many: String = (0..=LABELS_MAX).map(|n| format!("l{n}=x,")).collect();
        assert!(many.parse::<Labels>().is_err());
        assert_eq!(labels("b=2,a=1").to_string(), "a=1, b=2");
    }
}
