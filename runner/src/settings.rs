//! What can be set, by file, environment and command line; the later one counts. Not here: what is done with it.

use std::env::consts::{ARCH, OS};
use std::path::{Path, PathBuf};

use pipelines::ids::RunnerName;
use pipelines::labels::Labels;
use reqwest::Url;
use runner::http::ServerAddress;
use serde::Deserialize;

/// Why the settings are not good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("read the configuration {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("use the configuration {}: {why}", .path.display())]
    Content { path: PathBuf, why: String },
    #[error("use the setting {name}: {why}")]
    Bad { name: &'static str, why: String },
    #[error("register: {file} is the identity of {known}; remove it, or name another with --identity-file")]
    OtherName { file: String, known: String },
}

/// The settings, each where it is given.
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// A YAML file with these settings, `-` written as `_`
    #[arg(long, env = "WINDLASS_RUNNER_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Where the server is: https://host
    #[arg(long, env = "WINDLASS_RUNNER_SERVER", value_name = "URL")]
    server: Option<String>,
    /// Certificate authority to trust instead of the system's, PEM
    #[arg(long, env = "WINDLASS_RUNNER_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Speak plain HTTP also to another machine: everybody on the way reads the secrets of the runs
    #[arg(long)]
    insecure: bool,
    /// File of this runner's identity
    #[arg(long, env = "WINDLASS_RUNNER_IDENTITY_FILE", value_name = "FILE")]
    identity_file: Option<PathBuf>,
    /// Name to register with; by default the machine's
    #[arg(long, env = "WINDLASS_RUNNER_NAME")]
    name: Option<String>,
    /// Labels besides `os` and `arch`, such as gpu=true,zone=north
    #[arg(long, env = "WINDLASS_RUNNER_LABELS", value_name = "LABELS")]
    #[serde(deserialize_with = "labels")]
    labels: Option<Labels>,
    /// Where the container engine listens; by default DOCKER_HOST or the usual socket
    #[arg(long, env = "DOCKER_HOST", value_name = "HOST")]
    docker_host: Option<String>,
    /// Folder for repositories and workspaces; of this runner alone
    #[arg(long, env = "WINDLASS_RUNNER_FOLDER", value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Runs at the same time
    #[arg(long, env = "WINDLASS_RUNNER_PARALLEL_RUNS", value_name = "NUMBER")]
    parallel_runs: Option<u32>,
    /// A folder of base configs besides the built-in ones
    #[arg(long, env = "WINDLASS_RUNNER_CATALOG_DIR", value_name = "FOLDER")]
    catalog_dir: Option<PathBuf>,
}

/// In a file labels are a mapping.
fn labels<'de, D: serde::Deserializer<'de>>(given: D) -> Result<Option<Labels>, D::Error> {
    Labels::deserialize(given).map(Some)
}

/// All settings.
#[derive(Debug)]
pub(crate) struct Whole {
    server: Option<String>,
    ca_file: Option<PathBuf>,
    insecure: bool,
    name: Option<String>,
    pub(crate) identity_file: PathBuf,
    pub(crate) labels: Labels,
    pub(crate) docker_host: Option<String>,
    pub(crate) folder: PathBuf,
    pub(crate) parallel_runs: u32,
    pub(crate) catalog_dir: Option<PathBuf>,
}

const FOLDER: &str = "/var/lib/windlass-runner";
const PARALLEL_RUNS_MAX: u32 = 1_000;

impl Settings {
    /// These settings over those of the file.
    pub(crate) fn whole(self) -> Result<Whole, SettingsError> {
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let folder = self.folder.or(file.folder).unwrap_or_else(|| FOLDER.into());
        let parallel_runs = self.parallel_runs.or(file.parallel_runs).unwrap_or(2);
        if !(1..=PARALLEL_RUNS_MAX).contains(&parallel_runs) {
            let why = format!("write 1 to {PARALLEL_RUNS_MAX}");
            return Err(SettingsError::Bad { name: "parallel_runs", why });
        }
        Ok(Whole {
            server: self.server.or(file.server),
            ca_file: self.ca_file.or(file.ca_file),
            insecure: self.insecure || file.insecure,
            name: self.name.or(file.name),
            identity_file: self.identity_file.or(file.identity_file).unwrap_or_else(|| folder.join("identity.json")),
            labels: self.labels.or(file.labels).unwrap_or_default().with_machine(OS, ARCH),
            docker_host: self.docker_host.or(file.docker_host),
            folder,
            parallel_runs,
            catalog_dir: self.catalog_dir.or(file.catalog_dir),
        })
    }
}

fn read(path: &Path) -> Result<Settings, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    serde_saphyr::from_str(&text)
        .map_err(|error| SettingsError::Content { path: path.to_owned(), why: error.to_string() })
}

impl Whole {
    /// Where the server is.
    pub(crate) fn address(&self) -> Result<ServerAddress, SettingsError> {
        let bad = |why: String| SettingsError::Bad { name: "server", why };
        let text = self.server.as_ref().ok_or_else(|| bad("it is missing; write --server https://host".into()))?;
        let url = text
            .parse::<Url>()
            .map_err(|error| bad(format!("it is no address: {error}; write --server https://host")))?;
        Ok(ServerAddress { url, ca_file: self.ca_file.clone(), insecure: self.insecure })
    }

    /// The name to register with.
    pub(crate) fn name(&self) -> Result<RunnerName, SettingsError> {
        let given = match &self.name {
            Some(name) => name.clone(),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase(),
        };
        given
            .parse()
            .map_err(|error: pipelines::ids::InvalidId| SettingsError::Bad { name: "name", why: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_counts_more_than_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("runner.yaml");
        std::fs::write(&path, "server: https://one\nlabels: {gpu: \"true\"}\nparallel_runs: 4\n").expect("written");
        let settings = Settings { config: Some(path.clone()), parallel_runs: Some(7), ..Settings::default() };
        let whole = settings.whole().expect("good");
        assert_eq!((whole.parallel_runs, whole.address().expect("one").url.as_str()), (7, "https://one/"));
        assert!("gpu=true,os=linux".parse::<Labels>().expect("labels").fit(&whole.labels), "{}", whole.labels);
        std::fs::write(&path, "servre: https://one\n").expect("written");
        let error = Settings { config: Some(path), ..Settings::default() }.whole().expect_err("refused").to_string();
        assert!(error.contains("servre"), "{error}");
    }
}
