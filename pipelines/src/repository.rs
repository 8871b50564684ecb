//! Addresses of repositories: the one grammar of those that are followed, and how one is shown that is not good.
//! Not here: how a repository is reached, and what opens it.

use std::{fmt, str::FromStr};

use url::Url;

/// The longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 2048;
/// Characters of an address that is not good where it is shown.
const SHOWN_CHARS_MAX: usize = 120;

/// The address of a repository: `https://host/path`, `http://host/path`, `ssh://user@host/path`, `user@host:path`, or a
/// `file://` that was allowed. It holds no secret, so it may be shown.
///
/// Three spellings that git knows are refused, because each stands for something that was meant otherwise more often:
/// - `host:path` without a user. Git then takes the name of whoever runs it, which a server has none of; and
///   `localhost:3000/x` and `https:/host/x` would be read so.
/// - `git+ssh://`, which git calls deprecated (git-fetch, "GIT URLS"): it is `ssh://`.
/// - `https://user@host/path`. What stands there is most often a token, and as a part of the address it would be shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepositoryAddress(Place);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Http(Url),
    Ssh(SshPlace),
    File(Url),
}

/// Where an ssh address leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SshPlace {
    /// Who signs in.
    pub user: String,
    /// The host, an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// As `git-upload-pack` gets it.
    pub path: String,
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

/// Why a text is no address of a repository. It never repeats the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AddressError {
    /// Nothing was given.
    #[error("it is empty; write https://host/path, ssh://user@host/path or user@host:path")]
    Empty,
    /// It is over [`ADDRESS_BYTES_MAX`].
    #[error("it is longer than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
    /// It holds a password, or a user of http in whose place a token may stand.
    #[error("it holds a user or a password; leave them out and give them as the credential of the service")]
    Credential,
    /// A program would take it for an option.
    #[error("it, its host, its user or its path starts with -, which looks like an option")]
    Option,
    /// Characters that no address has.
    #[error("control characters, spaces and \\ are not allowed in it")]
    Characters,
    /// It is none of the notations.
    #[error("it is none; write https://host/path, ssh://user@host/path or user@host:path")]
    Notation,
    /// `host:path`.
    #[error("it names no user before the host; write user@host:path, with most forges git@host:path")]
    NoUser,
    /// A folder of this machine.
    #[error("a folder is not followed; write https://host/path, ssh://user@host/path or user@host:path")]
    Folder,
    /// `name::address`.
    #[error("transport helpers (name::address) are not followed")]
    Helper,
    /// A scheme that is not followed.
    #[error("only https, http and ssh are followed; write git+ssh:// as ssh://")]
    Scheme,
    /// A query or a fragment.
    #[error("? and # do not belong in it")]
    Query,
    /// The host is missing or is no name of one.
    #[error("its host is not a host name")]
    Host,
    /// The user is no name of one.
    #[error("its user is not a user name")]
    User,
    /// Only a host.
    #[error("it names no repository, only a host")]
    NoRepository,
    /// A path that is no text.
    #[error("its path cannot be read")]
    Path,
}

impl RepositoryAddress {
    /// Reads an address and allows `file://` too: for tests, and for an operator who trusts every author of services
    /// with every repository that this process can read.
    ///
    /// # Errors
    /// As for [`str::parse`].
    pub fn parse_allowing_files(text: &str) -> Result<Self, AddressError> {
        parse(text.trim(), true).map(Self)
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

    /// It over http.
    #[must_use]
    pub fn as_http(&self) -> Option<&Url> {
        if let Place::Http(url) = &self.0 { Some(url) } else { None }
    }

    /// It over ssh.
    #[must_use]
    pub fn as_ssh(&self) -> Option<&SshPlace> {
        if let Place::Ssh(place) = &self.0 { Some(place) } else { None }
    }

    /// It as a folder of this machine.
    #[must_use]
    pub fn as_file(&self) -> Option<&Url> {
        if let Place::File(url) = &self.0 { Some(url) } else { None }
    }
}

impl fmt::Display for RepositoryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Http(url) | Place::File(url) => f.write_str(url.as_str()),
            Place::Ssh(place) => f.write_str(&place.shown),
        }
    }
}

impl FromStr for RepositoryAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text.trim(), false).map(Self)
    }
}

/// `host:port` of an http address.
#[must_use]
pub fn http_host_and_port(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

/// An address where it is shown: a good one as it is, any other without what may be a secret, and short.
#[must_use]
pub fn shown(text: &str) -> String {
    let text = text.trim();
    if RepositoryAddress::parse_allowing_files(text).is_ok() {
        return text.to_owned();
    }
    let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + 3));
    // The last `@`, because a password may hold `/`, `?` and `@`; a token may also stand in a query.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}{rest}").chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}

fn parse(text: &str, files: bool) -> Result<Place, AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    if text.starts_with('-') {
        return Err(AddressError::Option);
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(AddressError::Characters);
    }
    let Some((scheme, _)) = text.split_once("://") else {
        return parse_short(text);
    };
    let url = Url::parse(text).map_err(|_| AddressError::Notation)?;
    // As it is kept: what had to be escaped is longer, and must be good when it is read again.
    if url.as_str().len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    let is_http = matches!(url.scheme(), "http" | "https");
    if url.password().is_some() || (is_http && !url.username().is_empty()) {
        return Err(AddressError::Credential);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(AddressError::Query);
    }
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => parse_http(url),
        "ssh" => parse_ssh(&url),
        "file" if files => match url.host_str() {
            None | Some("") => Ok(Place::File(url)),
            Some(_) => Err(AddressError::Host),
        },
        "file" => Err(AddressError::Folder),
        _ => Err(AddressError::Scheme),
    }
}

fn parse_http(url: Url) -> Result<Place, AddressError> {
    if url.host_str().is_none_or(|host| host.is_empty() || host.starts_with('-')) {
        return Err(AddressError::Host);
    }
    if url.path().trim_matches('/').is_empty() {
        return Err(AddressError::NoRepository);
    }
    Ok(Place::Http(url))
}

fn parse_ssh(url: &Url) -> Result<Place, AddressError> {
    let path = percent_decoded(url.path()).ok_or(AddressError::Path)?;
    // `/~/x` and `/~user/x` are relative to a home folder (git-fetch's documentation, "GIT URLS").
    let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
    let user = percent_decoded(url.username()).ok_or(AddressError::User)?;
    // The form with a scheme is never anything else, so the user of nearly all forges may be left out.
    let user = if user.is_empty() { "git" } else { &user };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    ssh_place(user, host, url.port().unwrap_or(22), path, url.to_string())
}

/// `user@host:path`.
fn parse_short(text: &str) -> Result<Place, AddressError> {
    let Some((authority, path)) = text.split_once(':') else {
        return Err(AddressError::Notation);
    };
    if path.starts_with(':') {
        return Err(AddressError::Helper);
    }
    // `user:password@host:path` would be host `user` and a path; nobody means that.
    if path.contains('@') && (!authority.contains('@') || path.split('@').skip(1).any(|after| after.contains(':'))) {
        return Err(AddressError::Credential);
    }
    if authority.contains('/') {
        return Err(AddressError::Folder);
    }
    let (user, host) = authority.rsplit_once('@').ok_or(AddressError::NoUser)?;
    ssh_place(user, host, 22, path.to_owned(), text.to_owned())
}

fn ssh_place(user: &str, host: &str, port: u16, path: String, shown: String) -> Result<Place, AddressError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if [user, host, &path].iter().any(|part| part.starts_with('-')) {
        return Err(AddressError::Option);
    }
    if host.is_empty() || !host.chars().all(plain) {
        return Err(AddressError::Host);
    }
    if user.is_empty() || !user.chars().all(|c| plain(c) && c != ':' || matches!(c, '+' | '@')) {
        return Err(AddressError::User);
    }
    if path.trim_matches('/').is_empty() {
        return Err(AddressError::NoRepository);
    }
    if path.chars().any(char::is_control) {
        return Err(AddressError::Characters);
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

    fn read(text: &str) -> RepositoryAddress {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read() {
        let address = read(" https://git.example.com/shop/checkout.git ");
        assert_eq!(address.to_string(), "https://git.example.com/shop/checkout.git");
        assert_eq!((address.host(), address.short_name()), ("git.example.com", "checkout"));
        assert_eq!(address.host_and_port(), "git.example.com:443");
        assert_eq!(address.transport(), GitTransport::Https);
        assert_eq!(read("http://h:3000/a@b/c").transport(), GitTransport::Http);

        let address = read("git@git.example.com:shop/checkout.git");
        let ssh = address.as_ssh().unwrap();
        assert_eq!((ssh.user.as_str(), ssh.port, ssh.path.as_str()), ("git", 22, "shop/checkout.git"));
        assert_eq!(address.to_string(), "git@git.example.com:shop/checkout.git");

        let address = read("ssh://deploy@git.example.com:2222/srv/a%20b.git");
        let ssh = address.as_ssh().unwrap();
        assert_eq!((ssh.user.as_str(), ssh.port, ssh.path.as_str()), ("deploy", 2222, "/srv/a b.git"));
        assert_eq!(read("ssh://git.example.com/~me/x.git").as_ssh().unwrap().path, "~me/x.git");
        assert_eq!(read("ssh://git.example.com/x.git").as_ssh().unwrap().user, "git");
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        use AddressError::{
            Characters, Empty, Folder, Helper, Host, NoRepository, NoUser, Notation, Option, Query, Scheme,
        };
        for (bad, why) in [
            ("", Empty),
            ("nonsense", Notation),
            ("x.git", Notation),
            ("/srv/git/x.git", Notation),
            ("./a:b", Folder),
            ("a/b@c:d", Folder),
            ("file:///srv/git/x.git", Folder),
            ("git://git.example.com/x.git", Scheme),
            ("ftp://h/a", Scheme),
            ("git+ssh://git@host/x", Scheme),
            ("ssh+git://git@host/x", Scheme),
            ("ext::sh", Helper),
            ("fd::7", Helper),
            ("ext::sh -c id", Characters),
            ("C:\\repo", Characters),
            ("ssh://host/x\ny", Characters),
            ("ssh://host/x%0ay", Characters),
            ("https://host/x\u{7}", Characters),
            ("-oProxyCommand=id", Option),
            ("-x@host:path", Option),
            ("git@host:-oProxyCommand", Option),
            ("ssh://-oProxyCommand=id/x", Option),
            ("host:path", NoUser),
            ("localhost:3000/x", NoUser),
            ("https:/host/x", NoUser),
            ("@host:path", AddressError::User),
            ("git@:path", Host),
            ("https://", Notation),
            ("https://host", NoRepository),
            ("https://host/", NoRepository),
            ("ssh://host/", NoRepository),
            ("git@host:/", NoRepository),
            ("https://host/x?service=1", Query),
            ("https://host/x#y", Query),
        ] {
            assert_eq!(bad.parse::<RepositoryAddress>(), Err(why), "{bad:?}");
        }
        let long = format!("https://host/{}", "x".repeat(ADDRESS_BYTES_MAX));
        assert_eq!(long.parse::<RepositoryAddress>(), Err(AddressError::TooLong));
        assert!(RepositoryAddress::parse_allowing_files("file:///srv/git/x.git").is_ok());
        assert!(RepositoryAddress::parse_allowing_files("file://host/srv/git/x.git").is_err());
    }

    #[test]
    fn what_may_be_a_credential_is_refused_and_never_shown() {
        for secret in [
            "https://me:hunter2@host/x",
            "https://hunter2@host/x",
            "HTTPS://hunter2@host/x",
            "https://:hunter2@host/x",
            "ssh://me:hunter2@host/x",
            "me:hunter2@host:x",
            "me:hunter2@host/x",
            "me@corp:hunter2@host:x",
        ] {
            assert_eq!(secret.parse::<RepositoryAddress>(), Err(AddressError::Credential), "{secret}");
            assert!(!shown(secret).contains("hunter2"), "{secret}: {}", shown(secret));
        }
        for secret in ["https://me:a/hunter2@host/x", "https://host/x?token=hunter2", "ftp://me:hunter2?@host/x"] {
            assert!(secret.parse::<RepositoryAddress>().is_err(), "{secret}");
            assert!(!shown(secret).contains("hunter2"), "{secret}: {}", shown(secret));
        }
        assert_eq!(shown("git@host:a"), "git@host:a");
        assert_eq!(shown("https://host/a@b"), "https://host/a@b");
    }

    #[test]
    fn fuzz_repository_address() {
        let samples: [&[u8]; 6] = [
            b"https://git.example.com/dev/shop.git",
            b"ssh://git@git.example.com:2222/~dev/shop",
            b"git@git.example.com:dev/shop.git",
            b"https://me:hunter2@git.example.com/x?token=hunter2",
            b"file:///srv/git/shop.git",
            b"http://[::1]:3000/x",
        ];
        let words = ["@", "://", ":", "[::1]", "hunter2@", "%2F", "-oProxyCommand=x", "ext::sh -c x", "git+ssh://"];
        ::fuzz::feed("repository-address", &samples, &words, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let seen = shown(&text);
            match text.parse::<RepositoryAddress>() {
                Ok(address) => {
                    let written = address.to_string();
                    if written.parse() != Ok(address.clone()) {
                        return Err(format!("`{written}` reads back as something else"));
                    }
                    if address.host().starts_with('-') || written.starts_with('-') {
                        return Err(format!("`{written}` could be taken for an option"));
                    }
                    let is_plain = |c: char| !c.is_control() && !c.is_whitespace();
                    if !written.chars().all(is_plain) || written.len() > 4 * ADDRESS_BYTES_MAX {
                        return Err(format!("`{written}` is more than an address"));
                    }
                    Ok(format!("{:?}", address.transport()))
                }
                Err(error) => {
                    let words = error.to_string();
                    if words.contains("hunter2") {
                        return Err(format!("the error holds a secret: {words}"));
                    }
                    let is_file = RepositoryAddress::parse_allowing_files(&text).is_ok();
                    if !is_file && (seen.chars().count() > SHOWN_CHARS_MAX || seen.chars().any(char::is_control)) {
                        return Err(format!("it is shown as {seen:?}"));
                    }
                    Ok(format!("{error:?}"))
                }
            }
        });
    }
}
