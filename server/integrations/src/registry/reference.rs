//! Names of images: `host[:port]/repository` with a tag, a digest or both. No defaults are guessed here: a name without
//! a host or without tag and digest is refused, because a promotion must not depend on what somebody meant.

use std::{fmt, str::FromStr};

use pipelines::ids::Digest;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {what}: {why}")]
pub struct InvalidReference {
    what: &'static str,
    given: String,
    why: &'static str,
}

fn invalid(what: &'static str, given: &str, why: &'static str) -> InvalidReference {
    InvalidReference { what, given: given.chars().flat_map(char::escape_default).take(120).collect(), why }
}

/// A repository of a registry, such as `shop/checkout`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

impl Repository {
    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Repository {
    type Err = InvalidReference;

    /// The grammar of the distribution specification, section "Pulling manifests".
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        const WHAT: &str = "a repository";
        if text.is_empty() || text.len() > 255 {
            return Err(invalid(WHAT, text, "it must have 1 to 255 characters"));
        }
        for part in text.split('/') {
            let ends_well = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            if !ends_well(part.chars().next()) || !ends_well(part.chars().next_back()) {
                return Err(invalid(WHAT, text, "each part between slashes must start and end with a-z or 0-9"));
            }
            let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
            for separator in separators.filter(|s| !s.is_empty()) {
                if !matches!(separator, "." | "_" | "__") && separator.bytes().any(|b| b != b'-') {
                    return Err(invalid(WHAT, text, "use a-z and 0-9, with `.`, `_`, `__` or `-` between them"));
                }
            }
        }
        Ok(Self(text.to_owned()))
    }
}

/// A tag of a repository, such as `v1.4`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag under which cosign keeps what belongs to `digest`, or (with an empty suffix) the tag of the referrers
    /// fallback of the distribution specification.
    pub(super) fn attached(digest: &Digest, suffix: &str) -> Self {
        Self(format!("{}{suffix}", digest.as_str().replace(':', "-")))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let fits = (1..=128).contains(&text.len())
            && text.bytes().next().is_some_and(is_word)
            && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(invalid("a tag", text, "use 1 to 128 letters, digits, `_`, `.` and `-`, not starting with `.` or `-`"))
        }
    }
}

/// The full name of an image: `registry.example.com:5000/shop/checkout:v1@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The host, with its port if it has one.
    pub host: String,
    /// The repository.
    pub repository: Repository,
    /// The tag, if it has one.
    pub tag: Option<Tag>,
    /// The digest, if it has one; it wins over the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// The name of `digest` in a repository.
    #[must_use]
    pub fn by_digest(host: impl Into<String>, repository: Repository, digest: Digest) -> Self {
        Self { host: host.into(), repository, tag: None, digest: Some(digest) }
    }

    /// The name of `tag` in a repository.
    #[must_use]
    pub fn by_tag(host: impl Into<String>, repository: Repository, tag: Tag) -> Self {
        Self { host: host.into(), repository, tag: Some(tag), digest: None }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        const WHAT: &str = "an image reference";
        let (host, rest) =
            text.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost").ok_or_else(
                || invalid(WHAT, text, "write the registry first, such as registry.example.com/shop/app:v1"),
            )?;
        check_host(host).map_err(|why| invalid(WHAT, text, why))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse::<Digest>();
                (rest, Some(digest.map_err(|_| invalid(WHAT, text, "the digest must be sha256: and 64 hex digits"))?))
            }
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse()?)),
            None => (rest, None),
        };
        if tag.is_none() && digest.is_none() {
            return Err(invalid(WHAT, text, "it has neither a tag nor a digest"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.parse()?, tag, digest })
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the port of the registry is not a number");
    }
    let is_ipv6 = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .is_some_and(|n| n.parse::<std::net::Ipv6Addr>().is_ok());
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    if is_ipv6 || is_name { Ok(()) } else { Err("the name of the registry is not a host name") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reference_reads_back_as_it_was_written() {
        let digest = Digest::of(b"x");
        for text in [
            "localhost/app:v1".to_owned(),
            "127.0.0.1:5000/shop/check-out:v1.2_3".to_owned(),
            "[::1]:5000/a/b__c:latest".to_owned(),
            format!("registry.example.com/a@{digest}"),
            format!("registry.example.com:443/a/b/c:tag@{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_reference_that_would_need_a_guess_is_refused() {
        for text in [
            "node:22",
            "library/node:22",
            "localhost:5000/app",
            "r.example.com/../x:v1",
            "r.example.com/a//b:v1",
            "r.example.com/A:v1",
            "r.example.com/a:",
            "r.example.com/a:-x",
            "r.example.com/a@sha256:12",
            "r.example.com:port/a:v1",
            "user@r.example.com/a:v1",
            "r.example.com/a?x=1:v1",
            "",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn a_repository_that_is_taken_stays_inside_its_path(text in "[a-z0-9./_?#%-]{1,20}") {
            if text.parse::<Repository>().is_ok() {
                let url = url::Url::parse(&format!("http://h/v2/{text}/tags")).unwrap();
                prop_assert_eq!(url.path(), format!("/v2/{text}/tags"));
                prop_assert!(url.query().is_none());
            }
        }
    }

    #[test]
    fn fuzz_image_reference() {
        let digest = format!("registry.example.com/a@{}", Digest::of(b"x"));
        let samples: [&[u8]; 3] =
            [b"registry.example.com:5000/shop/check-out:v1.2_3", b"[::1]:5000/a/b__c:latest", digest.as_bytes()];
        fuzz::feed("image-reference", &samples, &["@sha256:", ":", "/", "localhost/", "[::1]", "__", ".."], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match text.parse::<Reference>() {
                Ok(reference) => {
                    if reference.to_string().parse::<Reference>().ok().as_ref() != Some(&reference) {
                        return Err(format!("{reference} reads back as something else"));
                    }
                    let path = reference.repository.as_str();
                    if path.split('/').any(|part| part.is_empty() || part == "..") || path.contains(['?', '#', '%']) {
                        return Err(format!("{path} is more than a repository"));
                    }
                    Ok(format!("taken {} {}", reference.tag.is_some(), reference.digest.is_some()))
                }
                Err(error) => match error.to_string().len() {
                    0..=600 => Ok(error.to_string().chars().rev().take(24).collect()),
                    length => Err(format!("the error has {length} bytes")),
                },
            }
        });
    }
}
