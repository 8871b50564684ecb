//! Reads a backup: every digest is compared before anything of it counts. Restoring writes into an empty folder and looks
//! at the whole store afterwards. Not here: writing one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::bufread::GzDecoder;

use super::{
    BUFFER_BYTES, BackupError, FORMAT, HEAD, Hashed, Head, KEY_FILE, LOGS, MANIFEST, STORE_FILE, Written, io_error,
};
use crate::store::{
    NewEntry, StoreError,
    check::Checked,
    embedded::EmbeddedStore,
    engine::{self, EngineConfig},
    logs::{LogConfig, LogStore},
    versions::STORE_VERSION,
};

/// A folder with this file in it holds half a backup; the server does not start in it.
pub const UNFINISHED: &str = "restore-unfinished";
/// The head is small.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// The names of log files have a bound, so a member's name does.
const NAME_BYTES_MAX: usize = 600;
/// Lines of a log that are read at once.
const LINES: usize = 1_000;
/// What comes behind the last member: the end marks of the archive and its padding.
const END_BYTES_MAX: u64 = 64 << 10;

/// What a good backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What it says of itself.
    pub head: Head,
    /// Its files.
    pub written: Written,
    /// The look at the whole store.
    pub checked: Checked,
    /// Runs with a log.
    pub runs: u64,
    /// Lines of all logs.
    pub lines: u64,
}

/// Restores a backup into `folder`, which must be empty or not there. Where it does not succeed, nothing is left in it.
///
/// # Errors
/// [`BackupError`] says what is wrong with the backup or the folder.
pub fn restore(backup: impl Read, folder: &Path) -> Result<Contents, BackupError> {
    let made = make_empty(folder)?;
    let marker = folder.join(UNFINISHED);
    let restored = (|| {
        File::create(&marker).and_then(|file| file.sync_all()).map_err(io_error(marker.display().to_string()))?;
        let (head, written) = unpack(backup, Some(folder))?;
        let (checked, runs, lines) = check_folder(folder)?;
        sync_all(folder)?;
        fs::remove_file(&marker).map_err(io_error(marker.display().to_string()))?;
        File::open(folder).and_then(|dir| dir.sync_all()).map_err(io_error(folder.display().to_string()))?;
        Ok(Contents { head, written, checked, runs, lines })
    })();
    if restored.is_err() {
        empty(folder, made);
    }
    restored
}

/// Looks at a backup as [`restore`] does, in a folder below `scratch` that is removed again.
///
/// # Errors
/// As [`restore`].
pub fn check(backup: impl Read, scratch: &Path) -> Result<Contents, BackupError> {
    let folder = tempfile::Builder::new()
        .prefix("windlass-backup-check-")
        .tempdir_in(scratch)
        .map_err(io_error(scratch.display().to_string()))?;
    restore(backup, &folder.path().join("state"))
}

/// Writes into the journal of a restored folder that it was restored: from here on it goes another way than the server that
/// the backup is of.
///
/// # Errors
/// When the store cannot be opened or written.
pub fn note_restored(folder: &Path, entry: NewEntry) -> Result<(), BackupError> {
    let engine = engine::open(&folder.join("store"), &EngineConfig::default()).map_err(StoreError::from)?;
    Ok(EmbeddedStore::open(engine)?.note_now(entry)?)
}

/// Makes the folder where it is missing; says whether it did.
fn make_empty(folder: &Path) -> Result<bool, BackupError> {
    let failed = |source| io_error(folder.display().to_string())(source);
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(BackupError::NotEmpty(folder.to_owned())),
            None => Ok(false),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
            Ok(true)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Takes away what was written: the folder was empty before.
fn empty(folder: &Path, made: bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = gone {
            tracing::warn!(%error, path = %path.display(), "a half restored file was not removed");
        }
    }
    if made {
        let _ = fs::remove_dir(folder);
    }
}

/// Reads a backup to its end and compares every digest; writes nothing.
///
/// # Errors
/// [`BackupError`] says what is wrong with it.
pub fn verify(backup: impl Read) -> Result<(Head, Written), BackupError> {
    unpack(backup, None)
}

/// Compares, and unpacks into a folder.
fn unpack(backup: impl Read, folder: Option<&Path>) -> Result<(Head, Written), BackupError> {
    let mut backup = BufReader::with_capacity(BUFFER_BYTES, backup);
    check_magic(&mut backup)?;
    let mut archive = tar::Archive::new(GzDecoder::new(MAGIC.as_slice().chain(backup)));
    // The names with the digests as they are found, to be compared with those in the backup.
    let mut names = BufWriter::new(tempfile::tempfile().map_err(io_error(MANIFEST))?);
    let mut head = None;
    let mut written = Written::default();
    let mut has_ended = false;
    let mut at = "its beginning".to_owned();
    let members = archive.entries().map_err(|error| of_reading(error, &at))?;
    for member in members {
        let member = member.map_err(|error| of_reading(error, &at))?;
        let name = name_of(&member)?;
        at.clone_from(&name);
        if has_ended {
            return Err(BackupError::Damaged(format!("{name} comes behind the end")));
        }
        let bytes = member.size();
        if name == MANIFEST {
            names.flush().and_then(|()| names.get_mut().rewind()).map_err(io_error(MANIFEST))?;
            compare(member, names.get_ref())?;
            has_ended = true;
            continue;
        }
        let mut content = Hashed::new(member);
        match &head {
            None if name == HEAD => head = Some(read_head(&mut content)?),
            None => return Err(BackupError::Foreign(format!("it begins with {name:?}"))),
            Some(_) => write_file(&mut content, folder.map(|folder| folder.join(&name)).as_deref(), &name)?,
        }
        writeln!(names, "{}  {name}", content.hex()).map_err(io_error(MANIFEST))?;
        written.files += 1;
        written.bytes += bytes;
    }
    let head = head.ok_or_else(|| BackupError::Cut(at.clone()))?;
    if !has_ended {
        return Err(BackupError::Cut(at));
    }
    // The checksum of all of it comes at the very end, and nothing behind.
    let mut rest = archive.into_inner();
    let left = io::copy(&mut (&mut rest).take(END_BYTES_MAX), &mut io::sink())
        .map_err(|error| of_reading(error, "its end"))?;
    let behind = io::copy(&mut rest.into_inner().take(1), &mut io::sink()).map_err(io_error("the backup"))?;
    if left >= END_BYTES_MAX || behind > 0 {
        return Err(BackupError::Damaged("something comes behind the end".into()));
    }
    Ok((head, written))
}

/// The first bytes of what we write: a gzip stream without a name or a time. They are in no checksum, so they are compared.
const MAGIC: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];

fn check_magic(backup: &mut impl Read) -> Result<(), BackupError> {
    let mut found = [0; MAGIC.len()];
    match backup.read_exact(&mut found) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(BackupError::Cut("its beginning".into())),
        Err(error) => Err(io_error("the backup")(error)),
        Ok(()) if found == MAGIC => Ok(()),
        Ok(()) => Err(BackupError::Foreign("it does not begin as one".into())),
    }
}

/// What an error while reading means: the file ends, or it is not what was written.
fn of_reading(error: io::Error, at: &str) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Cut(at.to_owned()),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            let words = error.to_string();
            // The reader of the archive says so where a member is shorter than its header promises.
            if words.contains("unexpected EOF") || words.contains("failed to read entire block") {
                BackupError::Cut(at.to_owned())
            } else {
                BackupError::Damaged(format!("{words}, in or behind {at}"))
            }
        }
        _ => io_error("the backup")(error),
    }
}

/// The name of a member: only those that we write, only plain files.
fn name_of(member: &tar::Entry<'_, impl Read>) -> Result<String, BackupError> {
    let name = member.path_bytes();
    let shown: String = String::from_utf8_lossy(&name).chars().take(80).collect();
    let name = String::from_utf8(name.to_vec()).ok().filter(|name| name.len() <= NAME_BYTES_MAX);
    let is_plain = member.header().entry_type() == tar::EntryType::Regular;
    match name.filter(|name| is_plain && is_ours(name)) {
        Some(name) => Ok(name),
        None => Err(BackupError::Damaged(format!("{shown:?} does not belong into a backup"))),
    }
}

fn is_ours(name: &str) -> bool {
    if [HEAD, MANIFEST, STORE_FILE, KEY_FILE].contains(&name) {
        return true;
    }
    let parts: Vec<&str> = name.strip_prefix(LOGS).unwrap_or_default().split('/').collect();
    let [run, file] = parts.as_slice() else { return false };
    let is_escaped = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'%'))
    };
    let stem = file.strip_suffix(".log").or_else(|| file.strip_suffix(".count"));
    is_escaped(run) && stem.is_some_and(is_escaped)
}

fn read_head(content: &mut impl Read) -> Result<Head, BackupError> {
    let mut text = Vec::new();
    content.take(HEAD_BYTES_MAX).read_to_end(&mut text).map_err(|error| of_reading(error, HEAD))?;
    // Of a newer format perhaps nothing else can be understood.
    let wrong = |error: serde_json::Error| BackupError::Damaged(format!("{HEAD}: {error}"));
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(wrong)?;
    let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or_default();
    if format > u64::from(FORMAT) {
        return Err(BackupError::Newer(format!("format {format}, this one reads {FORMAT}")));
    }
    let head: Head = serde_json::from_value(value).map_err(wrong)?;
    if head.store_version > STORE_VERSION {
        let known = format!("store version {}, this one knows {STORE_VERSION}", head.store_version);
        return Err(BackupError::Newer(format!("{}, {known}", head.windlass)));
    }
    Ok(head)
}

fn create(path: &Path) -> Result<File, BackupError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Damaged(format!("{} is in it twice", path.display())),
        _ => io_error(path.display().to_string())(error),
    })
}

/// Reads a member to its end, into a file where one is named.
fn write_file(content: &mut impl Read, path: Option<&Path>, name: &str) -> Result<(), BackupError> {
    if let Some(parent) = path.and_then(Path::parent) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(io_error(parent.display().to_string()))?;
    }
    let mut file = path.map(create).transpose()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match (content.read(&mut buffer).map_err(|error| of_reading(error, name))?, &mut file) {
            (0, _) => return Ok(()),
            (count, Some(file)) => file.write_all(&buffer[..count]).map_err(io_error(name))?,
            (_, None) => {}
        }
    }
}

/// The names and digests in the backup against those that were found.
fn compare(told: impl Read, found: &File) -> Result<(), BackupError> {
    use io::BufRead;
    let mut told = BufReader::new(told).lines();
    for found in BufReader::new(found).lines() {
        let found = found.map_err(io_error(MANIFEST))?;
        let told = told.next().transpose().map_err(|error| of_reading(error, MANIFEST))?;
        if told.as_deref() != Some(found.as_str()) {
            let name = found.split("  ").nth(1).unwrap_or_default();
            return Err(BackupError::Damaged(format!("{name} is not what was written")));
        }
    }
    match told.next() {
        None => Ok(()),
        Some(Ok(line)) => {
            let name = line.split("  ").nth(1).unwrap_or_default().to_owned();
            Err(BackupError::Damaged(format!("{name} is missing")))
        }
        Some(Err(error)) => Err(of_reading(error, MANIFEST)),
    }
}

/// Looks at the whole store and all logs of a folder that no server uses.
fn check_folder(state: &Path) -> Result<(Checked, u64, u64), BackupError> {
    let folder = state.join("store");
    if !state.join(STORE_FILE).is_file() {
        return Err(BackupError::Damaged(format!("{STORE_FILE} is missing")));
    }
    let engine = engine::open(&folder, &EngineConfig::default()).map_err(StoreError::from)?;
    let store = EmbeddedStore::open(Arc::clone(&engine))?;
    let mut checked = store.check()?;
    if checked.problem_count > 0 {
        let more = checked.problem_count - checked.problems.len() as u64;
        if more > 0 {
            checked.problems.push(format!("and {more} more"));
        }
        return Err(BackupError::NotWhole(checked.problems));
    }
    let logs = state.join("logs");
    let failed = |run: &str| {
        let run = run.to_owned();
        move |source| BackupError::Log { run, source }
    };
    let logs = LogStore::open(&logs, LogConfig::default()).map_err(failed(""))?;
    let (mut runs, mut lines) = (0, 0);
    for run in logs.runs().map_err(failed(""))? {
        runs += 1;
        for step in logs.steps(&run).map_err(failed(&run))? {
            let mut from = 0;
            loop {
                let read = logs.read(&run, &step.step, from, LINES).map_err(failed(&run))?;
                let Some(last) = read.last() else { break };
                from = last.number + 1;
                lines += read.len() as u64;
            }
        }
    }
    Ok((checked, runs, lines))
}

/// All files and folders on disk before the mark goes.
fn sync_all(folder: &Path) -> Result<(), BackupError> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| io_error(folder.display().to_string())(source);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(|source| io_error(folder.display().to_string())(source))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                File::open(&path).and_then(|file| file.sync_all()).map_err(io_error(path.display().to_string()))?;
            }
        }
        File::open(&folder)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| io_error(folder.display().to_string())(source))?;
    }
    Ok(())
}
