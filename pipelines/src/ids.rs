//! Names and numbers of things, each a type of its own, checked where they enter.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a name or number was refused; the text fits after "failed to read …: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {what}: {why}")]
pub struct InvalidId {
    /// What it should have been, such as `service name`.
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub given: String,
    /// What is wrong and what to write instead.
    pub why: String,
}

pub(crate) fn invalid(what: &'static str, given: &str, why: impl Into<String>) -> InvalidId {
    InvalidId { what, given: given.chars().flat_map(char::escape_default).take(80).collect(), why: why.into() }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// The text of it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

text_id! {
    /// The name of a service: a DNS label of at most 53 characters (the length that Helm allows a release name),
    /// because it becomes a host name, a container name and a repository name.
    ServiceName
}

/// The longest service name, in characters.
pub const SERVICE_NAME_MAX_CHARS: usize = 53;

impl FromStr for ServiceName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let what = "service name";
        if text.is_empty() {
            return Err(invalid(what, text, "it is empty"));
        }
        if text.len() > SERVICE_NAME_MAX_CHARS {
            return Err(invalid(what, text, format!("it is longer than {SERVICE_NAME_MAX_CHARS} characters")));
        }
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(invalid(what, text, format!("`{}` is not allowed; use a-z, 0-9 and -", bad.escape_default())));
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) || text.ends_with('-') {
            return Err(invalid(what, text, "it must start with a letter and not end in -"));
        }
        Ok(Self(text.to_owned()))
    }
}

text_id! {
    /// The digest of a manifest or blob: `sha256:` and 64 lower-case hex digits.
    Digest
}

impl Digest {
    /// The first 12 hex digits, as people and container names show it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes))))
    }
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(invalid("digest", text, "write sha256: and 64 lower-case hex digits")),
        }
    }
}

text_id! {
    /// A commit: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
    CommitSha
}

impl CommitSha {
    /// The first 7 hex digits, as people write it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..7]
    }

    /// Whether it is git's null id, which a forge sends for "no such commit".
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
}

impl FromStr for CommitSha {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let is_hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if matches!(text.len(), 40 | 64) && is_hex {
            Ok(Self(text.to_owned()))
        } else {
            Err(invalid("commit", text, "write all 40 (or 64) lower-case hex digits of it"))
        }
    }
}

text_id! {
    /// The name of a secret, such as `DEPLOY_TOKEN`: it can also be the name of the variable that holds it.
    SecretName
}

/// The longest name of a secret, in characters.
pub const SECRET_NAME_MAX_CHARS: usize = 100;

impl FromStr for SecretName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let what = "name of a secret";
        if text.len() > SECRET_NAME_MAX_CHARS {
            return Err(invalid(what, text, format!("it is longer than {SECRET_NAME_MAX_CHARS} characters")));
        }
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(invalid(what, text, "use letters, digits and underscores, and do not start with a digit"));
        }
        if text == "CI" || text.starts_with("CI_") {
            return Err(invalid(what, text, "Windlass itself sets variables of such names; choose another one"));
        }
        Ok(Self(text.to_owned()))
    }
}

text_id! {
    /// The name of a runner: 1 to 64 characters of a-z, 0-9, `-` and `.`.
    RunnerName
}

impl FromStr for RunnerName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(invalid("runner name", text, "use 1 to 64 of a-z, 0-9, - and ."))
        }
    }
}

text_id! {
    /// A span of somebody else's trace, as the header `traceparent` names it (W3C Trace Context, version 00).
    TraceParent
}

impl TraceParent {
    /// The trace, as 32 hex digits.
    #[must_use]
    pub fn trace(&self) -> &str {
        &self.0[3..35]
    }

    /// The span in it, as 16 hex digits.
    #[must_use]
    pub fn span(&self) -> &str {
        &self.0[36..52]
    }
}

impl FromStr for TraceParent {
    type Err = InvalidId;

    /// What a later version adds at the end is left out, as the specification asks.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_id = |part: &str, length: usize| is_hex(part, length) && part.bytes().any(|b| b != b'0');
        let parts: Vec<&str> = text.splitn(5, '-').collect();
        let [version, trace, span, flags, more @ ..] = parts.as_slice() else {
            return Err(invalid("traceparent", text, "write VERSION-TRACE-SPAN-FLAGS in hex digits"));
        };
        let version_fits = is_hex(version, 2) && *version != "ff" && (*version != "00" || more.is_empty());
        if version_fits && is_id(trace, 32) && is_id(span, 16) && is_hex(flags, 2) {
            Ok(Self(format!("00-{trace}-{span}-{flags}")))
        } else {
            Err(invalid("traceparent", text, "write 00-, 32 hex digits, -, 16 hex digits, - and 2 hex digits"))
        }
    }
}

macro_rules! numbered_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name {
            /// The service it belongs to.
            pub service: ServiceName,
            /// Its number within the service, counted from 1.
            pub number: u32,
        }

        impl $name {
            /// The thing with this number of `service`.
            #[must_use]
            pub fn new(service: ServiceName, number: u32) -> Self {
                Self { service, number }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.service, self.number)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let (service, number) =
                    text.rsplit_once('/').ok_or_else(|| invalid($what, text, "write SERVICE/NUMBER"))?;
                let number = number.parse().map_err(|_| invalid($what, text, "the part after / is not a number"))?;
                Ok(Self { service: service.parse()?, number })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

numbered_id! {
    /// One execution of the pipeline: `checkout/412`.
    RunId, "run"
}

numbered_id! {
    /// A digest on its way. It has the number of the run that made it: run 412 makes release 412.
    ReleaseId, "release"
}

numbered_id! {
    /// One move of traffic; rollouts of a service are counted on their own.
    RolloutId, "rollout"
}

impl RunId {
    /// The release that this run makes, if it makes one.
    #[must_use]
    pub fn release(&self) -> ReleaseId {
        ReleaseId::new(self.service.clone(), self.number)
    }
}

impl ReleaseId {
    /// The run that made this release.
    #[must_use]
    pub fn run(&self) -> RunId {
        RunId::new(self.service.clone(), self.number)
    }

    /// The revision under which the release runs: immutable, never repointed.
    #[must_use]
    pub fn revision(&self, digest: &Digest) -> RevisionId {
        RevisionId(format!("{}-{}-{}", self.service, self.number, digest.short()))
    }
}

/// One immutable set of containers of a release: `checkout-412-3f1c9a0b2d4e`. The release number is in it because a
/// reused image with other values is another revision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct RevisionId(String);

impl RevisionId {
    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where something is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Where the testers look at a release.
    Test,
    /// Where the users are.
    Production,
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Test => "test",
            Self::Production => "production",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_cannot_climb_out_of_a_folder() {
        for bad in ["", "../etc", "a/b", "a..b", "A", "-a", "a-", "9a", "a b", "é", &"a".repeat(54)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?} was taken");
        }
        assert_eq!("checkout-2".parse::<ServiceName>().unwrap().as_str(), "checkout-2");
    }

    #[test]
    fn a_bad_name_inside_json_is_refused_too() {
        assert!(serde_json::from_str::<ServiceName>("\"../x\"").is_err());
        assert!(serde_json::from_str::<RunId>("\"../x/1\"").is_err());
    }

    #[test]
    fn digests_and_commits_are_whole_and_lower_case() {
        let digest = Digest::of(b"");
        assert_eq!(digest.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert!("sha256:E3".parse::<Digest>().is_err());
        assert!("a1b2c3d".parse::<CommitSha>().is_err());
        assert!("a".repeat(40).parse::<CommitSha>().is_ok());
    }

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let good: TraceParent = format!("00-{trace}-{span}-01").parse().unwrap();
        assert_eq!((good.trace(), good.span()), (trace, span));
        // A later version may add something at the end.
        let later: TraceParent = format!("cc-{trace}-{span}-01-what-is-new").parse().unwrap();
        assert_eq!(later, good);
        let none = "0".repeat(32);
        for bad in [
            String::new(),
            "00".into(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{none}-{span}-01"),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{span}-0g"),
            format!("00-{trace}é-{span}-01"),
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_numbered_id_reads_back() {
        let run: RunId = "checkout/412".parse().unwrap();
        assert_eq!(run.to_string(), "checkout/412");
        assert_eq!(run.release().revision(&Digest::of(b"")).as_str(), "checkout-412-e3b0c44298fc");
        assert!("checkout".parse::<RunId>().is_err());
    }
}
