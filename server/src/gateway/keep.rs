//! The configuration on disk: written so that a kill at any point leaves the old one or the new
//! one, read at start. Whether it may be taken is decided in `config`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::config::GatewayConfig;
use crate::crash;

/// The most bytes of a configuration, on disk and in a request.
pub(super) const MAX_CONFIG_BYTES: usize = 8 * 1024 * 1024;

/// A configuration and its number, as it is kept and as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Grows with each change; the sender chooses it.
    pub generation: u64,
    /// The configuration.
    pub config: GatewayConfig,
}

/// Why a kept configuration could not be written or read.
#[derive(Debug, Error)]
pub enum KeepError {
    /// The file system refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What is in the file is no configuration.
    #[error("understand {}: {problem}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The file in which the configuration in force is kept.
#[derive(Debug, Clone)]
pub(super) struct Keep {
    path: PathBuf,
}

impl Keep {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes it durably: when this returns, a restart reads it. Blocks.
    pub(super) fn store(&self, generation: &Generation) -> Result<(), KeepError> {
        if crash::without("kept-table") {
            return Ok(());
        }
        let fresh = self.path.with_extension("new");
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| KeepError::Io { action, path, source }
        };
        let bytes =
            serde_json::to_vec_pretty(generation).map_err(io::Error::other).map_err(failed("serialise", &fresh))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed("create", &fresh))?;
        file.write_all(&bytes).map_err(failed("write", &fresh))?;
        file.sync_all().map_err(failed("flush", &fresh))?;
        std::fs::rename(&fresh, &self.path).map_err(failed("replace", &self.path))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("flush", folder))
    }

    /// Reads it back; `None` when there is none yet. Blocks.
    pub(super) fn load(&self) -> Result<Option<Generation>, KeepError> {
        let failed = |source| KeepError::Io { action: "read", path: self.path.clone(), source };
        let unreadable = |problem: String| KeepError::Unreadable { path: self.path.clone(), problem };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_CONFIG_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(unreadable(format!("longer than {MAX_CONFIG_BYTES} bytes")));
        }
        let kept: Generation = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let problems = kept.config.problems();
        if problems.is_empty() { Ok(Some(kept)) } else { Err(unreadable(problems.join("; "))) }
    }

    /// Moves a file that `load` does not understand out of the way and says where to. Blocks.
    pub(super) fn set_aside(&self) -> Result<PathBuf, KeepError> {
        let aside = self.path.with_extension("unreadable");
        std::fs::rename(&self.path, &aside).map_err(|source| KeepError::Io {
            action: "set aside",
            path: self.path.clone(),
            source,
        })?;
        Ok(aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_read_back_and_a_half_written_successor_does_not_matter() {
        let folder = tempfile::tempdir().expect("a folder");
        let keep = Keep::new(folder.path().join("gateway.json"));
        assert_eq!(keep.load().expect("nothing is fine"), None);
        let kept = Generation { generation: 7, config: GatewayConfig::default() };
        keep.store(&kept).expect("stores");
        std::fs::write(folder.path().join("gateway.new"), b"{\"gener").expect("writes");
        assert_eq!(keep.load().expect("loads"), Some(kept));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_can_be_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let keep = Keep::new(folder.path().join("gateway.json"));
        std::fs::write(folder.path().join("gateway.json"), b"{\"gener").expect("writes");
        assert!(matches!(keep.load(), Err(KeepError::Unreadable { .. })));
        keep.set_aside().expect("moves it");
        assert_eq!(keep.load().expect("nothing is fine"), None);
    }

    #[test]
    fn a_full_disk_keeps_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let keep = Keep::new(folder.path().join("gateway.json"));
        let mut kept = Generation { generation: 1, config: GatewayConfig::default() };
        keep.store(&kept).expect("stores");
        // The device that is always full stands in for the successor's file.
        std::os::unix::fs::symlink("/dev/full", folder.path().join("gateway.new")).expect("links");
        kept.generation = 2;
        assert!(keep.store(&kept).is_err());
        assert_eq!(keep.load().expect("loads").map(|k| k.generation), Some(1));
    }

    #[test]
    fn fuzz_gateway_configuration() {
        let kept = Generation { generation: 7, config: GatewayConfig::default() };
        let sample = serde_json::to_vec(&kept).expect("it can be written");
        fuzz::feed(
            "gateway-configuration",
            &[&sample],
            &["127.0.0.1:1", "\"routes\":", "18446744073709551615"],
            |bytes| match serde_json::from_slice::<Generation>(bytes) {
                Ok(read) => {
                    let problems = read.config.problems();
                    let again = serde_json::to_vec(&read).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
                    if again.as_ref() != Some(&read) {
                        return Err("it reads back as something else".into());
                    }
                    Ok(problems.first().map_or("taken", |problem| problem.get(..16).unwrap_or("?")).to_owned())
                }
                Err(error) => Ok(error.to_string().chars().take(24).collect()),
            },
        );
    }
}
