//! Addresses of repositories: which ones we follow, and how they are shown. Not here: how they are reached.

use std::{fmt, str::FromStr};

use url::Url;

use super::error::GitError;

/// The longest address, in bytes.
const URL_MAX_BYTES: usize = 2048;

/// The address of a repository: `https://`, `http://`, `ssh://`, `user@host:path`, or a `file://` that was allowed.
/// It never holds a password, and it is shown without the user of an http address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GitUrl(Place);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Http(Url),
    Ssh(SshPlace),
    File(Url),
}

/// Where an ssh address leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SshPlace {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// As `git-upload-pack` gets it.
    pub(super) path: String,
    /// How it was written.
    shown: String,
}

/// Which way an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GitTransport {
    /// Encrypted HTTP.
    Https,
    /// Plain HTTP: whoever is on the way reads the credential and the source.
    Http,
    /// SSH, in either notation.
    Ssh,
    /// A folder of this machine.
    File,
}

impl GitUrl {
    /// Reads an address and allows `file://` too: for tests, and for an operator who trusts every author of services
    /// with every repository that this process can read.
    ///
    /// # Errors
    /// [`GitError::Url`] as for [`str::parse`].
    pub fn parse_allowing_files(text: &str) -> Result<Self, GitError> {
        parse(text, true)
    }

    /// The way it is reached.
    #[must_use]
    pub fn transport(&self) -> GitTransport {
        match &self.0 {
            Place::Http(url) if url.scheme() == "https" => GitTransport::Https,
            Place::Http(_) => GitTransport::Http,
            Place::Ssh(_) => GitTransport::Ssh,
            Place::File(_) => GitTransport::File,
        }
    }

    /// The host, without a port; empty for `file://`.
    #[must_use]
    pub fn host(&self) -> &str {
        match &self.0 {
            Place::Http(url) | Place::File(url) => url.host_str().unwrap_or_default(),
            Place::Ssh(place) => &place.host,
        }
    }

    /// `host:port`, as errors name it; `this machine` for `file://`.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        match &self.0 {
            Place::Http(url) => http_host_and_port(url),
            Place::Ssh(place) => format!("{}:{}", place.host, place.port),
            Place::File(_) => "this machine".into(),
        }
    }

    /// The last part of the path without `.git`, as a first guess of a name for the service.
    #[must_use]
    pub fn short_name(&self) -> &str {
        let path = match &self.0 {
            Place::Http(url) | Place::File(url) => url.path(),
            Place::Ssh(place) => &place.path,
        };
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        last.strip_suffix(".git").unwrap_or(last)
    }

    pub(super) fn as_http(&self) -> Option<&Url> {
        if let Place::Http(url) = &self.0 { Some(url) } else { None }
    }

    pub(super) fn as_ssh(&self) -> Option<&SshPlace> {
        if let Place::Ssh(place) = &self.0 { Some(place) } else { None }
    }

    pub(super) fn as_file(&self) -> Option<&Url> {
        if let Place::File(url) = &self.0 { Some(url) } else { None }
    }
}

/// `host:port` of an http address.
pub(super) fn http_host_and_port(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Http(url) | Place::File(url) => f.write_str(url.as_str()),
            Place::Ssh(place) => f.write_str(&place.shown),
        }
    }
}

impl FromStr for GitUrl {
    type Err = GitError;

    fn from_str(text: &str) -> Result<Self, GitError> {
        parse(text, false)
    }
}

fn parse(text: &str, files: bool) -> Result<GitUrl, GitError> {
    let text = text.trim();
    parse_place(text, files).map(GitUrl).map_err(|why| GitError::Url { given: shown_safely(text), why })
}

/// What was given, without what stands before an `@` (it may be a password), and short.
fn shown_safely(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    // The last `@`, because a password may hold `/` and `@`.
    let safe = format!("{scheme}{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host));
    safe.chars().take(120).flat_map(char::escape_debug).collect()
}

fn parse_place(text: &str, files: bool) -> Result<Place, &'static str> {
    if text.is_empty() {
        return Err("it is empty; write https://host/path, ssh://user@host/path or user@host:path");
    }
    if text.len() > URL_MAX_BYTES {
        return Err("it is longer than 2048 bytes");
    }
    if text.starts_with('-') {
        return Err("it starts with -, which looks like an option");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("control characters, spaces and \\ are not allowed in it");
    }
    let Some((scheme, _)) = text.split_once("://") else {
        return parse_scp(text);
    };
    let url = Url::parse(text).map_err(|_| "it cannot be read as a URL")?;
    if url.password().is_some() {
        return Err("a password does not belong in it; use the credential of the service");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("? and # do not belong in it");
    }
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => parse_http(url),
        "ssh" | "git+ssh" | "ssh+git" => parse_ssh(&url),
        "file" if files => match url.host_str() {
            None | Some("") => Ok(Place::File(url)),
            Some(_) => Err("a file address names no host; write file:///path"),
        },
        "file" => Err("file addresses are not allowed here"),
        _ => Err("only https, http and ssh are followed"),
    }
}

fn parse_http(mut url: Url) -> Result<Place, &'static str> {
    if url.host_str().is_none_or(str::is_empty) {
        return Err("it names no host");
    }
    if url.path().trim_matches('/').is_empty() {
        return Err("it names no repository, only a host");
    }
    // A user alone, as some forges put into the address to copy, is no credential here; dropping it keeps tokens that
    // were pasted in its place out of every page and log.
    url.set_username("").map_err(|()| "it cannot be read as a URL")?;
    Ok(Place::Http(url))
}

fn parse_ssh(url: &Url) -> Result<Place, &'static str> {
    let path = percent_decoded(url.path()).ok_or("its path cannot be read")?;
    // `/~/x` and `/~user/x` are relative to a home folder (git-fetch's documentation, "GIT URLS").
    let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
    let user = percent_decoded(url.username()).ok_or("its user cannot be read")?;
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    ssh_place(&user, host, url.port().unwrap_or(22), path, url.to_string())
}

fn parse_scp(text: &str) -> Result<Place, &'static str> {
    let Some((authority, path)) = text.split_once(':') else {
        return Err("write https://host/path, ssh://user@host/path or user@host:path");
    };
    if authority.contains('/') {
        return Err("a folder is not allowed here; write https://host/path, ssh://user@host/path or user@host:path");
    }
    if path.starts_with(':') {
        return Err("transport helpers (`name::address`) are not followed");
    }
    // `user:password@host:path` would be host `user` and a path; nobody means that.
    if path.split_once('@').is_some_and(|(_, after)| after.contains(':')) {
        return Err("a password does not belong in it; use the credential of the service");
    }
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    ssh_place(user, host, 22, path.to_owned(), text.to_owned())
}

fn ssh_place(user: &str, host: &str, port: u16, path: String, shown: String) -> Result<Place, &'static str> {
    let user = if user.is_empty() { "git" } else { user };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
        return Err("its host is not a host name");
    }
    if user.starts_with('-') || !user.chars().all(|c| plain(c) && c != ':' || matches!(c, '+' | '@')) {
        return Err("its user is not a user name");
    }
    if path.trim_matches('/').is_empty() {
        return Err("it names no repository, only a host");
    }
    if path.starts_with('-') {
        return Err("its path starts with -, which looks like an option");
    }
    if path.chars().any(char::is_control) {
        return Err("control characters are not allowed in it");
    }
    Ok(Place::Ssh(SshPlace { user: user.to_owned(), host: host.to_owned(), port, path, shown }))
}

/// Percent-decodes; `None` if the result is not UTF-8 or an escape is broken.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_a_user_of_http() {
        let url: GitUrl = " https://someone@git.example.com/shop/checkout.git ".parse().unwrap();
        assert_eq!(url.to_string(), "https://git.example.com/shop/checkout.git");
        assert_eq!((url.host(), url.short_name()), ("git.example.com", "checkout"));
        assert_eq!(url.host_and_port(), "git.example.com:443");
        assert_eq!(url.transport(), GitTransport::Https);

        let url: GitUrl = "git@git.example.com:shop/checkout.git".parse().unwrap();
        let ssh = url.as_ssh().unwrap();
        assert_eq!((ssh.user.as_str(), ssh.port, ssh.path.as_str()), ("git", 22, "shop/checkout.git"));
        assert_eq!(url.to_string(), "git@git.example.com:shop/checkout.git");

        let url: GitUrl = "ssh://deploy@git.example.com:2222/srv/a%20b.git".parse().unwrap();
        let ssh = url.as_ssh().unwrap();
        assert_eq!((ssh.user.as_str(), ssh.port, ssh.path.as_str()), ("deploy", 2222, "/srv/a b.git"));
        let url: GitUrl = "ssh://git.example.com/~me/x.git".parse().unwrap();
        assert_eq!(url.as_ssh().unwrap().path, "~me/x.git");
    }

    #[test]
    fn anything_else_is_refused_without_repeating_a_password() {
        for bad in [
            "",
            "/srv/git/x.git",
            "./x.git",
            "x.git",
            "file:///srv/git/x.git",
            "git://git.example.com/x.git",
            "ext::sh -c id",
            "ext::sh",
            "fd::7",
            "-oProxyCommand=id",
            "--upload-pack=id",
            "-x@host:path",
            "ssh://-oProxyCommand=id/x",
            "host:-oProxyCommand",
            "ssh://host/x\ny",
            "ssh://host/x%0ay",
            "https://host/x\u{7}",
            "https://host",
            "https://host/x?service=1",
            "https://host/x#y",
            "ssh://host/",
            "C:\\repo",
        ] {
            assert!(bad.parse::<GitUrl>().is_err(), "{bad:?} was taken");
        }
        for secret in
            ["https://me:hunter2@host/x", "ssh://me:hunter2@host/x", "me:hunter2@host:x", "https://me:a/hunter2@host/x"]
        {
            let said = secret.parse::<GitUrl>().unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert!(GitUrl::parse_allowing_files("file:///srv/git/x.git").is_ok());
        assert!(GitUrl::parse_allowing_files("file://host/srv/git/x.git").is_err());
    }
}
