//! Which base config a service is built on: its name, and the versions of it that will do.
//! The base configs themselves live in the `charts` crate.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::value::{ValueError, quote};

/// The base config whose Dockerfile is the repository's own; the only one for which `image.dockerfile` may be said.
pub const DOCKERFILE_BASE: &str = "dockerfile";

/// The version of a base config: major, minor and patch. Pre-releases have no place in a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Changes when services have to change too.
    pub major: u32,
    /// Changes when something is added.
    pub minor: u32,
    /// Changes when something is repaired.
    pub patch: u32,
}

impl FromStr for Version {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match numbers(text).as_deref() {
            Some([major, minor, patch]) => Ok(Version { major: *major, minor: *minor, patch: *patch }),
            _ => Err(ValueError::new(
                format!("{} is not a version", quote(text)),
                "write major, minor and patch, such as `1.0.0`",
            )),
        }
    }
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    if text.len() > 32 {
        return None;
    }
    text.split('.')
        .map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let canonical = part == "0" || !part.starts_with('0');
            if digits && canonical { part.parse().ok() } else { None }
        })
        .collect()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl TryFrom<String> for Version {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

/// A base config of the catalog, such as `static-site`, `static-site@1`, `static-site@1.2` or `static-site@1.2.3`.
///
/// Of the versions that fit, the newest is taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseRef {
    name: String,
    /// One number, two or three; none for any version.
    wanted: Vec<u32>,
}

impl BaseRef {
    /// The name of the base config.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a version is one that will do.
    pub fn accepts(&self, version: Version) -> bool {
        let have = [version.major, version.minor, version.patch];
        self.wanted.iter().zip(have).all(|(wanted, have)| *wanted == have)
    }
}

impl FromStr for BaseRef {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let body = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let name_good = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= 53
            && name.bytes().all(body)
            && !name.ends_with('-');
        let wanted = match version {
            None => Some(Vec::new()),
            Some(version) => numbers(version).filter(|parts| parts.len() <= 3),
        };
        match wanted {
            Some(wanted) if name_good => Ok(BaseRef { name: name.to_owned(), wanted }),
            Some(_) => Err(ValueError::new(
                format!("{} is not the name of a base config", quote(name)),
                "write a name of the catalog, such as `static-site@1` or `dockerfile@1`",
            )),
            None => Err(ValueError::new(
                format!("{} is not a version of a base config", quote(version.unwrap_or_default())),
                format!(
                    "write a major version or an exact one: `{0}@1` or `{0}@1.0.0`",
                    if name_good { name } else { "static-site" }
                ),
            )),
        }
    }
}

impl fmt::Display for BaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (index, number) in self.wanted.iter().enumerate() {
            write!(f, "{}{number}", if index == 0 { '@' } else { '.' })?;
        }
        Ok(())
    }
}

impl TryFrom<String> for BaseRef {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<BaseRef> for String {
    fn from(base: BaseRef) -> String {
        base.to_string()
    }
}

impl JsonSchema for BaseRef {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "BaseRef".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^[a-z][a-z0-9-]*(@[0-9]+(\.[0-9]+){0,2})?$",
            "description": "A base config of the catalog and, after @, a major or exact version.",
            "examples": ["static-site@1", "dockerfile@1.0.0"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_fits_by_major_or_exactly() {
        let version = "1.2.3".parse::<Version>().unwrap();
        let accepts = |text: &str| text.parse::<BaseRef>().unwrap().accepts(version);
        for good in ["static-site", "static-site@1", "static-site@1.2", "static-site@1.2.3"] {
            assert!(accepts(good), "{good}");
            assert_eq!(good.parse::<BaseRef>().unwrap().to_string(), good);
        }
        for other in ["static-site@2", "static-site@1.3", "static-site@1.2.4"] {
            assert!(!accepts(other), "{other}");
        }
    }

    #[test]
    fn wrong_bases_are_refused() {
        for bad in ["", "@1", "A@1", "a@", "a@v1", "a@1.2.3.4", "../a", "a@01", "a@1@2", "a@99999999999"] {
            assert!(bad.parse::<BaseRef>().is_err(), "{bad} was taken");
        }
        assert!("1.2".parse::<Version>().is_err());
    }
}
