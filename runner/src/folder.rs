//! The folder of one run on the runner's disk: the workspace, and notes that outlive a restart of the runner. What the
//! notes mean is the job's business; everything here is gone once the server has confirmed the end of the run.

use std::io;
use std::path::{Path, PathBuf};

use pipelines::ids::RunId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::remove_tree;

/// The folder of one run.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// The folder of `run` below the runner's own; nothing is made yet.
    pub(crate) fn of(state_dir: &Path, run: &RunId) -> Self {
        // The name of a service is a DNS label: it cannot leave the folder.
        Self { root: runs_dir(state_dir).join(run.service.as_str()).join(run.number.to_string()) }
    }

    /// The workspace that all steps share.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    /// Makes the folder.
    pub(crate) fn make(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.root)
    }

    /// A note, if it was taken.
    pub(crate) fn note<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match std::fs::read(self.root.join(name)) {
            // A note that cannot be read is one that was not taken: what it stands for is done again.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a note, whole or not at all.
    pub(crate) fn take_note<T: Serialize>(&self, name: &str, note: &T) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        serde_json::to_writer(&mut file, note)?;
        file.as_file().sync_data()?;
        file.persist(self.root.join(name)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes everything. A folder that is not there is fine.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.root)?;
        // The service's folder goes with its last run.
        if let Some(service) = self.root.parent() {
            std::fs::remove_dir(service).ok();
        }
        Ok(())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }
}

/// The runs that have a folder below the runner's own.
pub(crate) fn runs_on_disk(state_dir: &Path) -> Vec<RunId> {
    let mut runs = Vec::new();
    for service in std::fs::read_dir(runs_dir(state_dir)).into_iter().flatten().flatten() {
        for run in std::fs::read_dir(service.path()).into_iter().flatten().flatten() {
            let name = format!("{}/{}", service.file_name().to_string_lossy(), run.file_name().to_string_lossy());
            runs.extend(name.parse::<RunId>());
        }
    }
    runs
}

fn runs_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_the_runner_and_go_with_the_run() {
        let dir = tempfile::tempdir().expect("a folder");
        let run: RunId = "shop/7".parse().expect("an id");
        let folder = RunFolder::of(dir.path(), &run);
        folder.make().expect("made");
        assert_eq!(folder.note::<u32>("n").expect("readable"), None);
        folder.take_note("n", &5).expect("taken");
        assert_eq!(RunFolder::of(dir.path(), &run).note::<u32>("n").expect("readable"), Some(5));
        std::fs::write(folder.path().join("n"), "{torn").expect("written");
        assert_eq!(folder.note::<u32>("n").expect("readable"), None);
        assert_eq!(runs_on_disk(dir.path()), [run]);
        folder.remove().expect("removed");
        folder.remove().expect("removed twice");
        assert!(runs_on_disk(dir.path()).is_empty());
        assert!(!dir.path().join("runs/shop").exists());
    }
}
