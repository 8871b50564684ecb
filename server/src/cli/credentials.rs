//! The tokens of logins, in a file that only its owner can read. `WINDLASS_URL` and `WINDLASS_TOKEN` go before it.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use pipelines::protocol::Secret;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{exit::Exit, failure::Failure};

const VERSION: u32 = 1;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A login on one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    /// The account.
    pub(crate) name: String,
    /// The bearer token.
    pub(crate) token: Secret,
}

/// All logins of a person on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credentials {
    version: u32,
    /// The server of the last login.
    pub(crate) current: Option<String>,
    /// Server → login.
    pub(crate) servers: BTreeMap<String, Login>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { version: VERSION, current: None, servers: BTreeMap::new() }
    }
}

/// Where the file is: `$XDG_CONFIG_HOME/windlass/credentials`, by default under `~/.config`.
pub(crate) fn default_path() -> Result<PathBuf, Failure> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    let config = config.ok_or_else(|| {
        Failure::new(Exit::Login, "cannot find the credentials").why("HOME is not set").next("set WINDLASS_TOKEN")
    })?;
    Ok(config.join("windlass").join("credentials"))
}

impl Credentials {
    /// Reads the file; none where it is missing.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let failed = || Failure::new(Exit::Login, format!("cannot read {}", path.display()));
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed().because(&error)),
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(failed()
                .why("other people of this machine can read it, so its tokens may be known")
                .next(format!("chmod 600 {}", path.display()))
                .next("windlass login"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(failed().why("it is too large"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed().because(&error))?;
        let read: Self = serde_json::from_str(&text).map_err(|error| {
            failed().why(format!("line {}: it is not what windlass login writes", error.line())).next("windlass login")
        })?;
        if read.version > VERSION {
            return Err(failed().why("a newer windlass wrote it").next("use that version"));
        }
        Ok(read)
    }

    /// Writes the file whole, readable by its owner only.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            // A temporary file is made with 0600 from the start.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write()
            .map_err(|error| Failure::new(Exit::Unexpected, format!("cannot write {}", path.display())).because(&error))
    }

    /// Remembers a login and makes its server the current one.
    pub(crate) fn add(&mut self, server: &Url, login: Login) {
        self.servers.insert(key(server), login);
        self.current = Some(key(server));
    }

    /// Forgets a login.
    pub(crate) fn remove(&mut self, server: &Url) -> Option<Login> {
        if self.current.as_deref() == Some(&key(server)) {
            self.current = None;
        }
        self.servers.remove(&key(server))
    }

    /// The login on a server.
    pub(crate) fn of(&self, server: &Url) -> Option<&Login> {
        self.servers.get(&key(server))
    }
}

fn key(server: &Url) -> String {
    server.as_str().trim_end_matches('/').to_owned()
}

/// Reads the address of a server. Without a scheme it is https, but on this machine http.
pub(crate) fn server_url(given: &str) -> Result<Url, Failure> {
    let refused = |why: String| {
        Failure::usage(format!("cannot use `{given}` as a server")).why(why).next("https://windlass.example.com")
    };
    let text = match given.split_once("://") {
        Some(_) => given.to_owned(),
        None if is_local_name(given) => format!("http://{given}"),
        None => format!("https://{given}"),
    };
    let mut url = Url::parse(&text).map_err(|error| refused(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refused("write http:// or https:// and a host".into()));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(refused("a name, password, query or fragment has no place in it".into()));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn is_local_name(given: &str) -> bool {
    let host = given.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.ends_with(".localhost") || name.starts_with("127.") || name == "[::1]"
}

/// Whether what is sent there stays on this machine.
pub(crate) fn is_on_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login { name: "ada".into(), token: Secret::new("wlt_x") }
    }

    #[test]
    fn a_login_is_kept_for_its_owner_only_and_found_by_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/credentials");
        let server = server_url("https://w.example.com").unwrap();
        let mut credentials = Credentials::load(&path).unwrap();
        credentials.add(&server, login());
        credentials.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut read = Credentials::load(&path).unwrap();
        assert_eq!(read.of(&server_url("w.example.com/").unwrap()), Some(&login()));
        assert_eq!(read.of(&server_url("http://w.example.com").unwrap()), None);
        assert_eq!(read.current.as_deref(), Some("https://w.example.com"));
        assert_eq!(read.remove(&server), Some(login()));
        assert_eq!((read.current, read.servers.len()), (None, 0));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        Credentials::default().save(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let failure = Credentials::load(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Login);
        assert!(failure.next[0].starts_with("chmod 600"));
    }

    #[test]
    fn a_broken_file_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        std::fs::write(&path, "{\"version\":1,\"servers\":\"wlt_secret\"}").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let failure = Credentials::load(&path).unwrap_err();
        assert!(!format!("{failure:?}").contains("wlt_secret"));
    }

    #[test]
    fn a_server_is_https_unless_it_is_this_machine() {
        let url = |given| server_url(given).unwrap().to_string();
        assert_eq!(url("w.example.com"), "https://w.example.com/");
        assert_eq!(url("w.example.com/windlass"), "https://w.example.com/windlass/");
        assert_eq!(url("127.0.0.1:8000"), "http://127.0.0.1:8000/");
        assert_eq!(url("localhost:8000"), "http://localhost:8000/");
        for bad in ["ftp://x", "https://", "https://a:b@x", "https://x?y", ""] {
            assert_eq!(server_url(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        assert!(is_on_this_machine(&server_url("http://127.0.0.1:1").unwrap()));
        assert!(!is_on_this_machine(&server_url("http://10.0.0.1:1").unwrap()));
    }
}
