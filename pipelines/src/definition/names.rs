//! The names of a pipeline file, each a type that cannot hold a wrong one: steps, hosts, paths, addresses.
//! A service's own name is `ids::ServiceName`.
//! Quantities live in `units`, keys and positions elsewhere.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use url::Url;

use super::value::{ValueError, quote};
use crate::ids::ServiceName;

/// A name that is text with a rule: the type, its pattern for editors, its words, and the check.
macro_rules! name_type {
    ($name:ident, $description:literal, $pattern:literal, $check:path) => {
        #[doc = $description]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                $check(text)?;
                Ok($name(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
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
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

/// An RFC 1123 label: `a-z`, `0-9` and inner hyphens.
fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

name_type!(
    StepName,
    "The name of a step: letters, digits, dots, hyphens and underscores, at most 50.",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$",
    check_step_name
);

fn check_step_name(text: &str) -> Result<(), ValueError> {
    const MAX: usize = 50;
    let good = text.len() <= MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if good {
        return Ok(());
    }
    let plain: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).take(MAX).collect();
    let plain = plain.trim_start_matches(['.', '_', '-']);
    let rule = "use letters, digits, dots, hyphens and underscores, at most 50";
    let help = if plain.is_empty() { rule.to_owned() } else { format!("{rule}, such as `{plain}`") };
    Err(ValueError::new(format!("{} is not a step name", quote(text)), help))
}

name_type!(
    HostName,
    "A DNS name in lower case, without scheme, port or path, such as shop.example.com.",
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$",
    check_host_name
);

fn check_host_name(text: &str) -> Result<(), ValueError> {
    let labels = text.len() <= 253 && text.split('.').all(is_dns_label);
    let address = text.split('.').next_back().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if labels && !address {
        return Ok(());
    }
    let help = match Url::parse(text).ok().as_ref().and_then(Url::host_str) {
        Some(host) if check_host_name(host).is_ok() => format!("write only the name: `{host}`"),
        _ => "write a DNS name without scheme, port or path, such as `shop.example.com`".to_owned(),
    };
    Err(ValueError::new(format!("{} is not a host name", quote(text)), help))
}

name_type!(
    ImageName,
    "A container image, such as node:22 or registry.example.com/team/tool@sha256:…",
    r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$",
    check_image_name
);

fn check_image_name(text: &str) -> Result<(), ValueError> {
    const HELP: &str = "write a name and a tag or digest, such as `node:22`";
    let good = text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/:@-".contains(&b));
    let parts = !text.contains("//") && !text.contains("..") && !text.ends_with(['/', ':', '@']);
    if good && parts {
        return Ok(());
    }
    Err(ValueError::new(format!("{} is not an image name", quote(text)), HELP))
}

name_type!(
    RepoPath,
    "A path inside the repository, with forward slashes and without `..`; `.` is its root.",
    r"^[^/\\][^\\]*$",
    check_repo_path
);

fn check_repo_path(text: &str) -> Result<(), ValueError> {
    let help = "write a path relative to the root of the repository, such as `services/web`";
    let reason = if text.is_empty() || text.len() > 255 {
        "is not a path"
    } else if text.starts_with('/') || text.contains('\\') || text.contains(':') {
        "is not a relative path with forward slashes"
    } else if text.split('/').any(|part| part == "..") {
        "leaves the repository"
    } else if text.split('/').any(|part| part == ".git") {
        "is not part of the checkout"
    } else if text.chars().any(char::is_control) {
        "holds control characters"
    } else {
        return Ok(());
    };
    Err(ValueError::new(format!("the path {} {reason}", quote(text)), help))
}

name_type!(
    VariableName,
    "The name of a variable: letters, digits and underscores, not starting with a digit.",
    r"^[A-Za-z_][A-Za-z0-9_]{0,127}$",
    check_variable_name
);

fn check_variable_name(text: &str) -> Result<(), ValueError> {
    let good = text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good {
        return Ok(());
    }
    Err(ValueError::new(
        format!("{} is not the name of a variable", quote(text)),
        "use letters, digits and underscores, and do not start with a digit",
    ))
}

name_type!(
    MailAddress,
    "A mail address, such as qa@example.com, without a display name.",
    r"^[^@\s<>]{1,64}@[A-Za-z0-9.-]+$",
    check_mail_address
);

fn check_mail_address(text: &str) -> Result<(), ValueError> {
    let bad = |help: String| Err(ValueError::new(format!("{} is not a mail address", quote(text)), help));
    if let Some((_, inner)) = text.split_once('<') {
        let inner = inner.trim_end_matches('>');
        if check_mail_address(inner).is_ok() {
            return bad(format!("write only the address: `{inner}`"));
        }
    }
    // RFC 5321 dot-string; quoted local parts and internationalised addresses are left out on purpose.
    const ATOM: &[u8] = b"!#$%&'*+/=?^_`{|}~-";
    let atom = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || ATOM.contains(&b));
    let good = text.rsplit_once('@').is_some_and(|(local, domain)| {
        local.len() <= 64 && local.split('.').all(atom) && check_host_name(&domain.to_ascii_lowercase()).is_ok()
    });
    if good { Ok(()) } else { bad("write an address such as `qa@example.com`".to_owned()) }
}

name_type!(HttpPath, "The path of a URL, starting with a slash; a query is allowed.", r"^/[!-~]*$", check_http_path);

fn check_http_path(text: &str) -> Result<(), ValueError> {
    let good = text.starts_with('/')
        && text.len() <= 1024
        && text.bytes().all(|b| b.is_ascii_graphic())
        && !text.contains('#');
    if good {
        return Ok(());
    }
    Err(ValueError::new(
        format!("{} is not the path of a URL", quote(text)),
        "write a path that starts with a slash, such as `/healthz`",
    ))
}

name_type!(
    Glob,
    "A pattern for names: `*` is anything but a slash, `**` anything, `?` one character, `{a,b}` either.",
    r"^.{1,255}$",
    check_glob
);

fn check_glob(text: &str) -> Result<(), ValueError> {
    matcher(text).map(drop).ok_or_else(|| {
        ValueError::new(
            format!("{} is not a pattern", quote(text)),
            "write a name, or a pattern such as `release/*` or `v*`",
        )
    })
}

fn matcher(text: &str) -> Option<GlobMatcher> {
    if text.is_empty() || text.len() > 255 {
        return None;
    }
    let glob = GlobBuilder::new(text).literal_separator(true).build().ok()?;
    Some(glob.compile_matcher())
}

impl Glob {
    /// Whether the name fits the pattern.
    pub fn matches(&self, name: &str) -> bool {
        // The text was checked when the value was made, so that a missing matcher cannot happen; it matches nothing.
        matcher(&self.0).is_some_and(|matcher| matcher.is_match(name))
    }
}

name_type!(
    Call,
    "Whom the service calls: another service by its name, or https://host for the outside.",
    r"^([a-z]([a-z0-9-]{0,51}[a-z0-9])?|https://[^/]+/?)$",
    check_call
);

fn check_call(text: &str) -> Result<(), ValueError> {
    const HELP: &str = "write the name of a service, such as `payments`, or `https://host` for the outside";
    if !text.contains("://") {
        return text
            .parse::<ServiceName>()
            .map(drop)
            .map_err(|_| ValueError::new(format!("{} is neither a service nor an https address", quote(text)), HELP));
    }
    let url = Url::parse(text).map_err(|_| ValueError::new(format!("{} is not an address", quote(text)), HELP))?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    if url.scheme() != "https" {
        return Err(ValueError::new(
            format!("{} is not an https address", quote(text)),
            format!("write `https://{host}{port}`"),
        ));
    }
    let only_host = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !only_host || host.is_empty() {
        return Err(ValueError::new(
            format!("{} is more than a host", quote(text)),
            format!("write only `https://{host}{port}`"),
        ));
    }
    Ok(())
}

impl RepoPath {
    /// The root of the repository.
    pub fn root() -> Self {
        RepoPath(".".to_owned())
    }
}

impl Call {
    /// The service that is called, if it is one.
    pub fn service(&self) -> Option<&str> {
        (!self.0.contains("://")).then_some(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken<T: FromStr<Err = ValueError>>(texts: &[&str]) {
        for text in texts {
            assert!(text.parse::<T>().is_ok(), "{text:?} was refused");
        }
    }

    fn refused<T: FromStr<Err = ValueError>>(texts: &[&str]) {
        for text in texts {
            assert!(text.parse::<T>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn paths_stay_inside_of_the_repository() {
        taken::<RepoPath>(&[".", "a/b", "./a", "..a", "a..b"]);
        refused::<RepoPath>(&["", "..", "a/../b", "/a", "a\\b", "../a", ".git/config", "a\0b", "C:/x"]);
    }

    #[test]
    fn mail_addresses_are_plain_addresses() {
        taken::<MailAddress>(&["qa@example.com", "a.b+c@x.y", "q@localhost"]);
        refused::<MailAddress>(&[
            "",
            "qa",
            "qa@",
            "@x.y",
            "a b@x.y",
            "a..b@x.y",
            "QA <qa@x.y>",
            "a@x.y,b@x.y",
            "a@-x.y",
            "a@x.y\r\nBcc: z",
        ]);
        let error = "QA <qa@x.y>".parse::<MailAddress>().unwrap_err();
        assert_eq!(error.help(), Some("write only the address: `qa@x.y`"));
    }

    #[test]
    fn hosts_are_names_alone() {
        taken::<HostName>(&["shop.example.com", "localhost", "a-b.c"]);
        refused::<HostName>(&["", "http://a.b", "a.b:80", "a.b/", "*.a.b", "127.0.0.1", "A.b", "a..b"]);
        let error = "https://shop.example.com/x".parse::<HostName>().unwrap_err();
        assert_eq!(error.help(), Some("write only the name: `shop.example.com`"));
    }

    #[test]
    fn globs_keep_to_one_level_unless_doubled() {
        let fits = |glob: &str, name: &str| glob.parse::<Glob>().unwrap().matches(name);
        assert!(fits("v*", "v1.2"));
        assert!(fits("release/*", "release/1"));
        assert!(!fits("release/*", "release/1/2"));
        assert!(fits("release/**", "release/1/2"));
        assert!(!fits("main", "main2"));
        refused::<Glob>(&["", "[", "{a", &"a".repeat(256)]);
    }

    #[test]
    fn calls_are_services_or_https_hosts() {
        taken::<Call>(&["payments", "https://api.example.com", "https://api.example.com:8443"]);
        refused::<Call>(&["http://a.b", "https://a.b/path", "https://u:p@a.b", "Pay ments", "https://", "ftp://a"]);
        assert_eq!("payments".parse::<Call>().unwrap().service(), Some("payments"));
    }

    #[test]
    fn images_and_variables_are_checked() {
        taken::<ImageName>(&["node:22", "127.0.0.1:5000/a/b@sha256:abc", "busybox"]);
        refused::<ImageName>(&["", "-v", "a b", "a//b", "node:", "$(x)"]);
        taken::<VariableName>(&["A", "_a1"]);
        refused::<VariableName>(&["", "1a", "a-b", "a=b"]);
        taken::<StepName>(&["test", "unit.test_1"]);
        refused::<StepName>(&["", "a b", ".x", &"a".repeat(51)]);
        taken::<HttpPath>(&["/", "/healthz?full=1"]);
        refused::<HttpPath>(&["", "healthz", "/a b", "/a\r\nX: y"]);
    }
}
