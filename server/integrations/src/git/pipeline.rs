//! Finding the pipeline file of a service in a commit. Not here: reading what is in it.

use std::path::Path;

use pipelines::{
    definition::{Diagnostic, PIPELINE_FOLDER, file_for},
    ids::{CommitSha, ServiceName},
};

use super::{
    error::GitError,
    history::{file_at, files_under},
};

/// Pipeline files that are looked at for the right one.
const PIPELINE_FILES_MAX: usize = 1000;
/// The parser's own bound is smaller; this one keeps a hostile file out of memory, in bytes.
const PIPELINE_FILE_MAX_BYTES: u64 = 1 << 20;
/// Where the file may be, or is by mistake.
const AT_THE_TOP: [&str; 4] = [".windlass.yaml", ".windlass.yml", "windlass.yaml", "windlass.yml"];

/// Path and content of a pipeline file, or what is wrong where there is none.
pub type FoundFile = Result<(String, Vec<u8>), Box<Diagnostic>>;

/// Path and content of the pipeline file of `service` in `commit`, or what is wrong where there is none. Blocking.
///
/// # Errors
/// As [`file_at`] and [`files_under`]; a link or a folder of that name is [`GitError::NotAFile`].
pub fn pipeline_file(mirror_dir: &Path, commit: &CommitSha, service: &ServiceName) -> Result<FoundFile, GitError> {
    let mut listing: Vec<String> = Vec::new();
    for name in AT_THE_TOP {
        if file_at(mirror_dir, commit, name, PIPELINE_FILE_MAX_BYTES)?.is_some() {
            listing.push(name.to_owned());
        }
    }
    let folder = files_under(mirror_dir, commit, PIPELINE_FOLDER, PIPELINE_FILES_MAX)?;
    listing.extend(folder.into_iter().map(|file| file.path));
    match file_for(service, listing.iter().map(String::as_str)) {
        Ok(path) => {
            let bytes = file_at(mirror_dir, commit, &path, PIPELINE_FILE_MAX_BYTES)?;
            Ok(Ok((path, bytes.unwrap_or_default())))
        }
        Err(problem) => Ok(Err(problem)),
    }
}
