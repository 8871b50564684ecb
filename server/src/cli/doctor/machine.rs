//! What can be seen on the server's machine, from its configuration file. Everything is looked at, whatever else is wrong.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use integrations::{
    docker::{Engine, EngineConfig},
    registry::{ClientLimits, RegistryError, Repository},
};
use secrecy::SecretString;
use server::{
    config::{Config, RegistrySettings},
    driver::{mail::mailer, outgoing, traffic::gateway_folder},
    gateway::GatewayClient,
};
use url::Url;

use super::{Check, clock, difference_s};
use crate::cli::{client::Client, failure::chain, output::bytes, registry::Side};

/// With less than so many times what is kept for finishing, the disk should be looked at.
const NEARLY_FULL: u64 = 8;
/// A repository that no service can have, because of the `_` in its name; to ask a registry for.
const PROBE: &str = "windlass-doctor_probe";
/// How long one check may take.
const CHECK_MAX: Duration = Duration::from_secs(15);

/// All checks, and the address at which the server says that it is.
pub(super) async fn look(path: &Path) -> (Vec<Check>, Option<String>) {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            let fix = "repair the file, or name another one by --config";
            return (vec![Check::bad("configuration", chain(&error), fix)], None);
        }
    };
    let mut checks = vec![Check::good("configuration", path.display().to_string())];
    checks.extend(state_folder(&config.state_dir, config.bounds.disk_free_bytes_min));
    let (docker, test, production, mail, gateway, git) = tokio::join!(
        in_time("docker", docker(&config)),
        registry("test", &config.registries.test),
        registry("production", &config.registries.production),
        in_time("mail", mail(&config)),
        in_time("gateway", gateway(&config)),
        in_time("git", git()),
    );
    checks.push(docker);
    checks.extend(test);
    checks.extend(production);
    checks.extend([mail, gateway, git]);
    (checks, Some(config.public_url))
}

async fn in_time(name: &str, check: impl Future<Output = Check>) -> Check {
    let late = |_| Check::bad(name, format!("no answer within {} s", CHECK_MAX.as_secs()), "see whether it hangs");
    tokio::time::timeout(CHECK_MAX, check).await.unwrap_or_else(late)
}

fn state_folder(folder: &Path, min_bytes: u64) -> Vec<Check> {
    let shown = folder.display();
    // Before the first start the folder may be missing; then the one that it will be made in counts.
    let there: PathBuf = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned();
    let mut checks = Vec::new();
    if there == folder {
        let mode = std::fs::metadata(folder).map(|metadata| metadata.permissions().mode() & 0o777).unwrap_or(0);
        checks.push(match (tempfile::tempfile_in(folder), mode & 0o077) {
            (Err(error), _) => Check::bad(
                "state folder",
                format!("{shown} cannot be written: {error}"),
                "run doctor as the user of the server, or give that user the folder",
            ),
            (Ok(_), 0) => Check::good("state folder", format!("{shown}, only for its owner")),
            (Ok(_), _) => Check::bad(
                "state folder",
                format!("{shown} is open to other people of this machine (mode {mode:03o}), and it holds the key"),
                format!("chmod 700 {shown}"),
            ),
        });
    } else {
        checks.push(Check::warning("state folder", format!("{shown} is not there yet"), "windlass serve makes it"));
    }
    checks.push(disk(&there, min_bytes));
    checks
}

fn disk(folder: &Path, min_bytes: u64) -> Check {
    let shown = folder.display();
    let found = match rustix::fs::statvfs(folder) {
        Ok(found) => found,
        Err(error) => return Check::bad("disk", format!("{shown} cannot be looked at: {error}"), "look at its mount"),
    };
    if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        let evidence = format!("{shown} is read-only: the server accepts nothing new");
        return Check::bad("disk", evidence, "mount it writable again; nothing has to be restarted");
    }
    let (free, files) = (found.f_bavail.saturating_mul(found.f_frsize), found.f_favail);
    let evidence = format!("{} free under {shown}", bytes(free));
    let fix = format!("free space under {shown}");
    let kept = bytes(min_bytes);
    match free {
        _ if free < min_bytes => {
            Check::bad("disk", format!("{evidence}, {kept} are kept: the server accepts nothing new"), fix)
        }
        _ if free < min_bytes.saturating_mul(NEARLY_FULL) => Check::warning("disk", evidence, fix),
        // Some file systems count no files; they say 0 then.
        _ if (1..10_000).contains(&files) => Check::warning("disk", format!("{evidence}, {files} files left"), fix),
        _ => Check::good("disk", evidence),
    }
}

async fn docker(config: &Config) -> Check {
    let mut settings = EngineConfig { request_timeout_seconds: CHECK_MAX.as_secs() - 1, ..EngineConfig::default() };
    if let Some(host) = config.docker_host.clone().or_else(|| std::env::var("DOCKER_HOST").ok()) {
        settings.host = host;
    }
    let host = settings.host.clone();
    let asked = async { Engine::connect(settings).await?.version().await }.await;
    match asked {
        Ok((version, api)) => Check::good("docker", format!("engine {version}, API {api}, at {host}")),
        Err(error) => Check::bad(
            "docker",
            chain(&error),
            "start Docker Engine, add the server's user to the group docker, or set docker_host",
        ),
    }
}

async fn registry(which: &str, settings: &RegistrySettings) -> Vec<Check> {
    let name = format!("{which} registry");
    let mut checks = vec![in_time(&name, registry_login(&name, settings)).await];
    checks.extend(registry_clock(&settings.host, settings.plain_http, settings.ca_file.as_deref()).await);
    checks
}

async fn registry_login(name: &str, settings: &RegistrySettings) -> Check {
    let host = &settings.host;
    let access = match settings.access() {
        Ok(access) => access,
        Err(error) => return Check::bad(name, chain(&error), "correct password_file or ca_file in the configuration"),
    };
    let limits = ClientLimits { attempts: 1, answer_timeout_ms: 10_000, ..ClientLimits::default() };
    let who = access.login.as_ref().map_or_else(|| "anonymously".to_owned(), |(user, _)| format!("as {user}"));
    let side = Side {
        host,
        plain_http: access.plain_http,
        login: access.login.map(|(user, password)| (user, SecretString::from(password.expose()))),
        ca_pem: access.ca_pem.map(String::into_bytes),
        limits,
    };
    let client = match side.client() {
        Ok(client) => client,
        Err(failure) => {
            return Check::bad(name, failure.why.unwrap_or(failure.what), "correct registries in the configuration");
        }
    };
    let probe = match settings.prefix.trim_matches('/') {
        "" => PROBE.to_owned(),
        prefix => format!("{prefix}/{PROBE}"),
    };
    let repository: Repository = match probe.parse() {
        Ok(repository) => repository,
        Err(error) => return Check::bad(name, format!("{error}"), "correct prefix in the configuration"),
    };
    match client.tags(&repository).await {
        // Nothing is there, and we were let in to see that.
        Ok(_) | Err(RegistryError::NotFound { .. }) => Check::good(name, format!("{host} answers, {who}")),
        Err(error @ (RegistryError::Unauthorised { .. } | RegistryError::Blocked { .. })) => {
            Check::bad(name, chain(&error), format!("correct user and password_file of {host}"))
        }
        Err(error) => Check::bad(name, chain(&error), format!("see whether {host} runs, and plain_http and ca_file")),
    }
}

async fn registry_clock(host: &str, plain_http: bool, ca_file: Option<&Path>) -> Option<Check> {
    let scheme = if plain_http { "http" } else { "https" };
    let client = Client::new(Url::parse(&format!("{scheme}://{host}/")).ok()?, None, ca_file).ok()?;
    let (_, headers) = client.get_plain("cannot read the clock", "v2/").await.ok()?;
    let difference = difference_s(headers.get("date")?.to_str().ok()?, jiff::Timestamp::now())?;
    Some(clock("clock".into(), &format!("the registry {host}"), difference))
}

async fn mail(config: &Config) -> Check {
    let settings = &config.mail;
    let (place, fix) = match (&settings.smtp, &settings.folder) {
        (Some(smtp), _) => {
            let who = smtp.user.as_ref().map_or_else(|| "without a login".to_owned(), |user| format!("as {user}"));
            (format!("{}:{} {who}", smtp.host, smtp.port), "correct mail.smtp: host, port, tls, user, password_file")
        }
        (None, folder) => {
            let folder = folder.as_deref().unwrap_or(Path::new("")).display().to_string();
            (format!("the folder {folder}"), "correct mail.folder, or set mail.smtp")
        }
    };
    let mailer = match outgoing(&config.outgoing).and_then(|outgoing| mailer(settings, outgoing)) {
        Ok(mailer) => mailer,
        Err(error) => return Check::bad("mail", chain(&error), fix),
    };
    match mailer.check().await {
        Ok(()) if settings.smtp.is_none() => Check::warning(
            "mail",
            format!("into {place}: nobody gets a mail"),
            "set mail.smtp; a folder is for trying out",
        ),
        Ok(()) => Check::good("mail", place),
        Err(error) => Check::bad("mail", format!("{place}: {}", chain(&error)), fix),
    }
}

async fn gateway(config: &Config) -> Check {
    let folder = gateway_folder(config);
    match GatewayClient::new(&folder).health().await {
        Ok(health) => Check::good(
            "gateway",
            format!(
                "version {}, process {}, configuration {}, {} connections",
                health.version, health.pid, health.generation, health.connections
            ),
        ),
        Err(error) if config.gateway.supervise => {
            Check::bad("gateway", chain(&error), "start windlass serve, which starts the gateway")
        }
        Err(error) => {
            let fix = format!("start windlass gateway --folder {}", folder.display());
            Check::bad("gateway", chain(&error), fix)
        }
    }
}

async fn git() -> Check {
    match tokio::process::Command::new("git").arg("--version").kill_on_drop(true).output().await {
        Ok(said) if said.status.success() => Check::good("git", String::from_utf8_lossy(&said.stdout).trim()),
        // Windlass reads repositories by itself.
        _ => Check::good("git", "there is no program git here, and none is needed"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn verdict(checks: &[Check], name: &str) -> Verdict {
        checks.iter().find(|check| check.name == name).map(|check| check.verdict).unwrap()
    }

    #[tokio::test]
    async fn everything_is_looked_at_also_when_all_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().display();
        // A port that was just free: nothing answers there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "state_dir: {shown}/state\npublic_url: http://127.0.0.1:{port}\ndocker_host: unix://{shown}/none.sock\n\
             registries:\n  test: {{host: \"127.0.0.1:{port}\", plain_http: true}}\n  production: {{host: \"127.0.0.1:{port}\", \
             prefix: p, plain_http: true}}\nmail: {{from: w@example.com, smtp: {{host: 127.0.0.1, port: {port}, tls: none}}}}\n"
        );
        let path = folder.path().join("windlass.yaml");
        std::fs::write(&path, config).unwrap();
        let (checks, url) = look(&path).await;
        assert_eq!(url, Some(format!("http://127.0.0.1:{port}")));
        for name in ["docker", "test registry", "production registry", "mail", "gateway"] {
            assert_eq!(verdict(&checks, name), Verdict::Bad, "{name}: {checks:?}");
        }
        assert_eq!(verdict(&checks, "configuration"), Verdict::Good);
        assert_eq!(verdict(&checks, "state folder"), Verdict::Warning);
        assert!(checks.iter().all(|check| check.verdict == Verdict::Good || check.fix.is_some()));
    }

    #[tokio::test]
    async fn a_broken_configuration_is_the_only_thing_to_say() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("windlass.yaml");
        std::fs::write(&path, "nonsense: 1\n").unwrap();
        let (checks, url) = look(&path).await;
        assert_eq!((checks.len(), url), (1, None));
        assert_eq!(verdict(&checks, "configuration"), Verdict::Bad);
    }

    #[test]
    fn a_state_folder_that_others_can_open_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(verdict(&state_folder(folder.path(), 0), "state folder"), Verdict::Bad);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(verdict(&state_folder(folder.path(), 0), "state folder"), Verdict::Good);
    }
}
