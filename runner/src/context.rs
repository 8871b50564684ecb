//! What the builder sees of the workspace: a tar stream that is made while it is sent, without what the ignore files
//! leave out.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use charts::ignore::Ignore;
use futures_util::Stream;
use tokio::sync::mpsc;

/// Parts of the stream that may wait for the engine.
const QUEUE_CHUNKS: usize = 16;
const CHUNK_BYTES: usize = 64 * 1024;

/// A folder with files of our own laid over it.
#[derive(Debug, Clone)]
pub(crate) struct BuildContext {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// Name in the context → content, instead of what the folder has there.
    pub(crate) over: Vec<(String, Vec<u8>)>,
    /// What is left out.
    pub(crate) ignore: Ignore,
    /// Bytes in all.
    pub(crate) max_bytes: u64,
    /// Files in all.
    pub(crate) max_files: u64,
}

impl BuildContext {
    /// The context as a tar stream. Links are written as links and never followed; devices and sockets are left out.
    /// Dropping the stream ends the work.
    pub(crate) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
        tokio::task::spawn_blocking(move || {
            let writer = ChunkWriter { chunk: Vec::with_capacity(CHUNK_BYTES), sender: sender.clone() };
            if let Err(error) = self.write(writer) {
                // The receiver is gone when nobody builds any more.
                sender.blocking_send(Err(error)).ok();
            }
        });
        futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        })
    }

    fn write(self, writer: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(writer);
        let mut budget = Budget { bytes: self.max_bytes, files: self.max_files };
        for (name, content) in &self.over {
            budget.take(content.len() as u64)?;
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content.as_slice())?;
        }
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(self.folder.join(&folder))? {
                names.push(entry?.file_name());
            }
            names.sort();
            for name in names {
                let path = folder.join(name);
                if self.over.iter().any(|(over, _)| Path::new(over) == path) {
                    continue;
                }
                let metadata = std::fs::symlink_metadata(self.folder.join(&path))?;
                // A later pattern may take back a file of a folder that is left out.
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                if path.to_str().is_some_and(|path| self.ignore.excludes(path)) {
                    continue;
                }
                self.append(&mut tar, &path, &metadata, &mut budget)?;
            }
        }
        tar.into_inner()?.flush()
    }

    fn append(
        &self,
        tar: &mut tar::Builder<impl Write>,
        path: &Path,
        metadata: &Metadata,
        budget: &mut Budget,
    ) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(metadata.permissions().mode() & 0o777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        if metadata.is_dir() {
            budget.take(0)?;
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, path, io::empty())
        } else if metadata.is_symlink() {
            budget.take(0)?;
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, std::fs::read_link(self.folder.join(path))?)
        } else if metadata.is_file() {
            budget.take(metadata.len())?;
            header.set_size(metadata.len());
            let file = open_plain(&self.folder.join(path))?;
            // A step that still writes would break the archive: the size is what it was a moment ago.
            let exact = io::Read::take(file, metadata.len());
            tar.append_data(&mut header, path, exact)
        } else {
            Ok(())
        }
    }
}

/// Opens a file and no link to one.
fn open_plain(path: &Path) -> io::Result<std::fs::File> {
    let file = std::fs::File::open(path)?;
    let (there, opened) = (std::fs::symlink_metadata(path)?, file.metadata()?);
    if there.dev() == opened.dev() && there.ino() == opened.ino() {
        return Ok(file);
    }
    Err(io::Error::other(format!("{} changed while it was read", path.display())))
}

struct Budget {
    bytes: u64,
    files: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> io::Result<()> {
        match (self.bytes.checked_sub(bytes), self.files.checked_sub(1)) {
            (Some(bytes), Some(files)) => {
                (self.bytes, self.files) = (bytes, files);
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the build context has more files or bytes than the limits of the run allow",
            )),
        }
    }
}

struct ChunkWriter {
    chunk: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// `path` inside `root`, with links followed; none when it leads out of it or is not there.
pub(crate) fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let root = root.canonicalize().ok()?;
    let found = root.join(path).canonicalize().ok()?;
    found.starts_with(&root).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn the_context_holds_the_folder_with_our_files_over_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        std::fs::create_dir(root.join("src")).expect("made");
        std::fs::write(root.join("src/big"), vec![b'x'; 200_000]).expect("written");
        std::fs::write(root.join("Dockerfile"), "theirs").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).expect("linked");
        std::fs::create_dir(root.join("node_modules")).expect("made");
        std::fs::write(root.join("node_modules/left-out"), "x").expect("written");
        std::fs::write(root.join("node_modules/kept"), "x").expect("written");
        let mut ignore = Ignore::default();
        ignore.add("node_modules\n!node_modules/kept\n").expect("patterns");
        let context = BuildContext {
            folder: root.to_owned(),
            over: vec![("Dockerfile".to_owned(), b"ours".to_vec())],
            ignore,
            max_bytes: 1 << 20,
            max_files: 10,
        };
        let chunks: Vec<Bytes> = context.clone().stream().try_collect().await.expect("a stream");
        let bytes = chunks.concat();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = BTreeMap::new();
        for entry in archive.entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).expect("readable");
            let link = entry.link_name().expect("a name").map(|path| path.display().to_string());
            seen.insert(entry.path().expect("a path").display().to_string(), (text.len(), link));
        }
        assert_eq!(seen["Dockerfile"], (4, None));
        assert_eq!(seen["src/big"], (200_000, None));
        assert_eq!(seen["link"], (0, Some("/etc/passwd".to_owned())));
        assert_eq!(seen["node_modules/kept"], (1, None));
        assert!(!seen.contains_key("node_modules/left-out"));
        assert_eq!(seen.len(), 5);
        let small = BuildContext { max_bytes: 1000, ..context };
        let error = small.stream().try_collect::<Vec<_>>().await.expect_err("too large");
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }

    #[test]
    fn a_path_does_not_lead_out_of_the_workspace() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("a")).expect("made");
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).expect("linked");
        assert!(inside(dir.path(), "a").is_some());
        assert!(inside(dir.path(), ".").is_some());
        assert!(inside(dir.path(), "out").is_none());
        assert!(inside(dir.path(), "out/passwd").is_none());
        assert!(inside(dir.path(), "../x").is_none());
    }
}
