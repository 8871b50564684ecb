//! Backups: one file with everything that cannot be made again, as of one moment: the store, the logs, and the key where it
//! is asked for. A gzipped tar; its last member names the digest of every other one, as `sha256sum` writes it. Written and
//! read as a stream. Not here: who may have one (`http`), reading it again ([`read`]).

pub mod read;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::{Compression, GzBuilder};
use pipelines::time::UnixMs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{NewEntry, StoreError, engine::EngineError, logs::LogError, versions::STORE_VERSION};

/// Version of the file's format.
pub const FORMAT: u32 = 1;
/// The first member: what the file is.
const HEAD: &str = "backup.json";
/// The last member: the digest of every other one.
const MANIFEST: &str = "MANIFEST";
const STORE_FILE: &str = "store/store.redb";
const KEY_FILE: &str = "key";
const LOGS: &str = "logs/";
/// A folder of the state folder with this name holds the copy of the store while it is packed.
const SCRATCH: &str = "backup";
const BUFFER_BYTES: usize = 64 << 10;

/// Why a backup was not made, or one is not good.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Reading or writing failed.
    #[error("{what} cannot be read or written")]
    Io {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store did not give its copy, or what was restored cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A log that was restored cannot be read.
    #[error("the log of run {run} cannot be read")]
    Log {
        /// Of which run.
        run: String,
        /// Why.
        #[source]
        source: LogError,
    },
    /// It is something else.
    #[error("this is no backup of windlass: {0}")]
    Foreign(String),
    /// It ends too early.
    #[error("the backup is cut: it ends in the middle of {0}")]
    Cut(String),
    /// It is not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// A newer Windlass made it.
    #[error("the backup was made by a newer windlass ({0}); restore it with that version")]
    Newer(String),
    /// Nothing is overwritten.
    #[error("{0} is not empty: a backup is restored into a new or an empty folder")]
    NotEmpty(PathBuf),
    /// All of it is as it was written, and still the records do not fit together.
    #[error("the store in the backup is not whole: {}", .0.join("; "))]
    NotWhole(Vec<String>),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> BackupError {
    let what = what.into();
    |source| BackupError::Io { what, source }
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT`] when it was made.
    pub format: u32,
    /// Version of the Windlass that made it.
    pub windlass: String,
    /// Version of the store in it.
    pub store_version: u32,
    /// When it was made.
    pub made_at: UnixMs,
    /// Whether the master key is in it: whoever has the file then opens every secret.
    pub with_key: bool,
}

/// A copy of the store as of one moment, and what else goes into the backup. Its folder goes with it.
#[derive(Debug)]
pub struct Snapshot {
    head: Head,
    key: Option<Key>,
    logs: PathBuf,
    folder: PathBuf,
}

/// The master key as its file holds it; never shown.
pub struct Key(pub zeroize::Zeroizing<String>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // What is left behind goes with the next backup.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Files in it.
    pub files: u64,
    /// Their bytes, before they were packed.
    pub bytes: u64,
}

impl Snapshot {
    /// Copies the store into a folder of `state`, while it is in use. One at a time: what an earlier one left is removed.
    ///
    /// # Errors
    /// Those of copying; nothing is left then.
    pub fn take(
        store: &dyn super::Store,
        state: &Path,
        key: Option<Key>,
        windlass: &str,
        made_at: UnixMs,
    ) -> Result<Self, BackupError> {
        let folder = state.join(SCRATCH);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(folder.display().to_string())(error));
            }
            _ => {}
        }
        let head = Head {
            format: FORMAT,
            windlass: windlass.to_owned(),
            store_version: STORE_VERSION,
            made_at,
            with_key: key.is_some(),
        };
        let snapshot = Self { head, key, logs: state.join("logs"), folder };
        fs::create_dir(&snapshot.folder).map_err(io_error(snapshot.folder.display().to_string()))?;
        store.copy_to(&snapshot.folder.join("store"))?;
        Ok(snapshot)
    }

    /// What it says of itself.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Writes the backup. The logs are read now: they are as far as the copy of the store or farther, which does no harm.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn write(&self, out: impl Write) -> Result<Written, BackupError> {
        let names = self.folder.join("names");
        let mut pack = Pack {
            tar: tar::Builder::new(GzBuilder::new().write(out, Compression::fast())),
            names: BufWriter::new(File::create(&names).map_err(io_error(names.display().to_string()))?),
            made_at: self.head.made_at,
            written: Written::default(),
        };
        let head = serde_json::to_vec(&self.head).map_err(|error| io_error(HEAD)(error.into()))?;
        pack.member(HEAD, head.len() as u64, head.as_slice())?;
        if let Some(Key(key)) = &self.key {
            pack.member(KEY_FILE, key.len() as u64, key.as_bytes())?;
        }
        pack.file(STORE_FILE, &self.folder.join("store/store.redb"))?;
        self.write_logs(&mut pack)?;
        pack.names.flush().map_err(io_error(MANIFEST))?;
        let written = pack.written.clone();
        pack.file(MANIFEST, &names)?;
        let packed = pack.tar.into_inner().and_then(flate2::write::GzEncoder::finish);
        packed.and_then(|mut out| out.flush()).map_err(io_error("the backup"))?;
        Ok(written)
    }

    fn write_logs(&self, pack: &mut Pack<impl Write>) -> Result<(), BackupError> {
        for run in entries(&self.logs)? {
            let folder = self.logs.join(&run);
            for name in entries(&folder)? {
                // The index can be made again from the lines.
                if name.ends_with(".log") || name.ends_with(".count") {
                    pack.file(&format!("{LOGS}{run}/{name}"), &folder.join(&name))?;
                }
            }
        }
        Ok(())
    }
}

/// The names in a folder, in order; one that has just gone has none.
fn entries(folder: &Path) -> Result<Vec<String>, BackupError> {
    let failed = |source| io_error(folder.display().to_string())(source);
    let found = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(failed)?,
    };
    let names = found.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let mut names =
        names.collect::<Result<Vec<_>, _>>().map_err(|source| io_error(folder.display().to_string())(source))?;
    names.sort_unstable();
    Ok(names)
}

/// The file being written.
struct Pack<W: Write> {
    tar: tar::Builder<flate2::write::GzEncoder<W>>,
    names: BufWriter<File>,
    made_at: UnixMs,
    written: Written,
}

impl<W: Write> Pack<W> {
    /// A file as long as it is now; one that has gone is left out.
    fn file(&mut self, name: &str, path: &Path) -> Result<(), BackupError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with(LOGS) => return Ok(()),
            other => other.map_err(io_error(path.display().to_string()))?,
        };
        let bytes = file.metadata().map_err(io_error(path.display().to_string()))?.len();
        // A log whose last write failed is made shorter; what is missing then was never acknowledged.
        let padded = file.chain(io::repeat(0)).take(bytes);
        self.member(name, bytes, padded)
    }

    fn member(&mut self, name: &str, bytes: u64, content: impl Read) -> Result<(), BackupError> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(bytes);
        header.set_mtime(self.made_at.0 / 1_000);
        let mut hashed = Hashed::new(content);
        self.tar.append_data(&mut header, name, &mut hashed).map_err(io_error(name))?;
        writeln!(self.names, "{}  {name}", hashed.hex()).map_err(io_error(MANIFEST))?;
        self.written.files += 1;
        self.written.bytes += bytes;
        Ok(())
    }
}

/// Reads through and computes the digest of what was read.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn hex(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Takes a snapshot of a state folder whose server is stopped, with its key where there is one; first of all it is written
/// into the journal.
///
/// # Errors
/// When the store is in use ([`EngineError::Locked`]) or cannot be read.
pub fn snapshot_of_folder(
    state: &Path,
    key: Option<Key>,
    windlass: &str,
    made_at: UnixMs,
    entry: NewEntry,
) -> Result<Snapshot, BackupError> {
    let folder = state.join("store");
    if !folder.join("store.redb").is_file() {
        let missing = io::Error::new(io::ErrorKind::NotFound, "there is no store in it");
        return Err(io_error(state.display().to_string())(missing));
    }
    let engine = super::engine::open(&folder, &super::engine::EngineConfig::default()).map_err(StoreError::from)?;
    let store = super::embedded::EmbeddedStore::open(Arc::clone(&engine))?;
    store.note_now(entry)?;
    Snapshot::take(&store, state, key, windlass, made_at)
}

/// Whether the error says that a server has the store open.
#[must_use]
pub fn is_in_use(error: &BackupError) -> bool {
    matches!(error, BackupError::Store(StoreError::Engine(EngineError::Locked)))
}
