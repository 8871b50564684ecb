//! `windlass support-bundle`: what somebody who helps has to see of a server, in one file.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::json;
use tempfile::NamedTempFile;

use super::{
    Context,
    exit::Exit,
    failure::Failure,
    output::{bytes, fields},
};

/// Write a file for whoever helps: version, settings, metrics, the last lines of the log, health, the queue with its errors
/// and the end of the journal, without any secret
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file to write; it must not be there yet
    #[arg(default_value = "windlass-support.tar.gz")]
    file: PathBuf,
}

/// Has it made, and keeps it.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let path = &arguments.file;
    let what = format!("cannot write the support bundle {}", path.display());
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Unexpected, what.clone()).because(error);
    if path.exists() {
        return Err(Failure::usage(what).why("there is a file of this name").next("name another file"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under its name only when it is whole.
    let mut file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    let client = context.target.client()?;
    let take = |piece: &[u8]| file.write_all(piece).map_err(|error| failed(&error));
    let size = client.download(&what, "api/v1/support-bundle", &json!({}), take).await?;
    file.persist_noclobber(path).map_err(|error| failed(&error.error))?;
    let data = json!({"file": path, "bytes": size});
    context.out.result("SupportBundle", &data, |paint| {
        fields(paint, &[("file", path.display().to_string()), ("size", bytes(size))])
    })?;
    context
        .out
        .said(|_| "names of services, people and commits are in it: look through it before it is sent away".into());
    Ok(Exit::Ok)
}
