//! `windlass backup` and `windlass restore`: everything that a server keeps, in one file and back.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    path::{Path, PathBuf},
};

use jiff::tz::TimeZone;
use serde_json::json;
use server::{
    app::{audit::machine_origin, keys::KEY_VARIABLE, system_clock},
    http::api::model,
    store::{
        NewEntry,
        backup::{
            self, BackupError, Head, Key, Written, is_in_use,
            read::{self, Contents},
        },
    },
};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::{
    Context,
    exit::Exit,
    failure::Failure,
    output::{bytes, fields, moment},
};

/// Make a copy of everything that the server keeps, in one file, while it runs; or look at one
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    /// The file to write; it must not be there yet
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// With the master key: whoever has the file then opens every secret
    #[arg(long)]
    with_key: bool,
    /// Of a server that is stopped: its state folder, on this machine
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Look whether a backup is whole: every digest, every record, every line of the logs
    Check {
        /// The backup
        file: PathBuf,
        /// Folder to unpack it in for the look; by default the one for temporary files
        #[arg(long, value_name = "DIR")]
        scratch: Option<PathBuf>,
    },
}

/// Bring a backup back into a new or empty state folder, and look at all of it
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArguments {
    /// The backup
    file: PathBuf,
    /// The state folder: it must be empty, or not be there
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
}

/// Makes one, or looks at one.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    match (&arguments.verb, &arguments.file) {
        (Some(Verb::Check { file, scratch }), _) => check(context, file, scratch.as_deref()),
        (None, Some(file)) => make(context, arguments, file).await,
        (None, None) => Err(Failure::usage("cannot make a backup without the name of a file")),
    }
}

async fn make(context: &Context, arguments: &Arguments, path: &Path) -> Result<Exit, Failure> {
    let what = format!("cannot write the backup {}", path.display());
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Unexpected, what.clone()).because(error);
    if path.exists() {
        return Err(Failure::usage(what).why("there is a file of this name").next("name another file"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under its name only when it is whole.
    let mut file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    match &arguments.state_dir {
        Some(state) => {
            let key = if arguments.with_key { Some(key_of(state, &what)?) } else { None };
            let (version, now) = (env!("CARGO_PKG_VERSION"), system_clock()());
            let word = if arguments.with_key { "backup_made_with_key" } else { "backup_made" };
            let entry = NewEntry::new(now, machine_origin(), "server", word);
            let snapshot = backup::snapshot_of_folder(state, key, version, now, entry)
                .map_err(|error| of_folder(&what, &error))?;
            snapshot.write(&mut file).map_err(|error| failed(&error))?;
        }
        None => {
            let client = context.target.client()?;
            let input = model::BackupInput { with_key: arguments.with_key };
            let take = |piece: &[u8]| file.write_all(piece).map_err(|error| failed(&error));
            client.download(&what, "api/v1/backup", &input, take).await?;
        }
    }
    // What was written is read again: a backup that is not good should not be found out when it is needed.
    file.rewind().map_err(|error| failed(&error))?;
    let (head, written) = read::verify(file.as_file()).map_err(|error| of_backup(&what, &error))?;
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    let size = file.as_file().metadata().map(|meta| meta.len()).map_err(|error| failed(&error))?;
    file.persist_noclobber(path).map_err(|error| failed(&error.error))?;
    let data = json!({
        "file": path, "bytes": size, "files": written.files, "made_at_ms": head.made_at.0,
        "store_version": head.store_version, "with_key": head.with_key,
    });
    context.out.result("Backup", &data, |paint| {
        let told = told(context, &head, &written);
        fields(paint, &[vec![("file", path.display().to_string()), ("size", bytes(size))], told].concat())
    })?;
    if !head.with_key {
        context
            .out
            .said(|_| "the key is not in it: keep a copy of the file `key` of the state folder elsewhere".into());
    }
    Ok(Exit::Ok)
}

/// The key of a server that is stopped, from where the server takes it.
fn key_of(state: &Path, what: &str) -> Result<Key, Failure> {
    let text = match std::env::var(KEY_VARIABLE) {
        Ok(text) => text,
        Err(_) => {
            let path = state.join("key");
            std::fs::read_to_string(&path)
                .map_err(|error| Failure::new(Exit::Usage, what).why(format!("{}: {error}", path.display())))?
        }
    };
    Ok(Key(Zeroizing::new(text)))
}

fn told(context: &Context, head: &Head, written: &Written) -> Vec<(&'static str, String)> {
    let key = if head.with_key { "in it: guard the file as the key itself" } else { "not in it" };
    vec![
        ("made", moment(head.made_at.0, &context.zone)),
        ("by", format!("windlass {}, store version {}", head.windlass, head.store_version)),
        ("holds", format!("{} files, {}", written.files, bytes(written.bytes))),
        ("key", key.to_owned()),
    ]
}

fn of_folder(what: &str, error: &BackupError) -> Failure {
    let failure = Failure::new(Exit::Unexpected, what).because(error);
    if is_in_use(error) {
        return failure.next("leave out --state-dir: the server that runs makes the backup itself");
    }
    failure
}

fn of_backup(what: &str, error: &BackupError) -> Failure {
    let failure = Failure::new(Exit::Unexpected, what).because(error);
    match error {
        BackupError::NotEmpty(_) => Failure { exit: Exit::Usage, ..failure }.next("name a new folder"),
        BackupError::Newer(_) => failure.next("install that version"),
        BackupError::Cut(_) | BackupError::Damaged(_) | BackupError::NotWhole(_) | BackupError::Foreign(_) => {
            failure.next("use another backup; nothing was written")
        }
        BackupError::Io { .. } | BackupError::Store(_) | BackupError::Log { .. } => failure,
    }
}

fn open(path: &Path, what: &str) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::usage(what).why(format!("{}: {error}", path.display())))
}

fn check(context: &Context, path: &Path, scratch: Option<&Path>) -> Result<Exit, Failure> {
    let what = format!("cannot vouch for the backup {}", path.display());
    let temporary = std::env::temp_dir();
    let checked = read::check(open(path, &what)?, scratch.unwrap_or(&temporary));
    let contents = checked.map_err(|error| of_backup(&what, &error))?;
    show(context, "BackupCheck", "the backup is whole", &contents)
}

/// Restores one.
pub(crate) async fn restore(context: &Context, arguments: &RestoreArguments) -> Result<Exit, Failure> {
    let what = format!("cannot restore {}", arguments.file.display());
    let restored = read::restore(open(&arguments.file, &what)?, &arguments.state_dir);
    let contents = restored.map_err(|error| of_backup(&what, &error))?;
    let detail = format!("from a backup of {}", moment(contents.head.made_at.0, &TimeZone::UTC));
    let entry = NewEntry::new(system_clock()(), machine_origin(), "server", "restored").detail(detail);
    read::note_restored(&arguments.state_dir, entry).map_err(|error| of_backup(&what, &error))?;
    let said = format!("restored into {}", arguments.state_dir.display());
    show(context, "Restored", &said, &contents)?;
    if !contents.head.with_key {
        let key = arguments.state_dir.join("key");
        context.out.said(|_| {
            format!(
                "the key is not in it: before the start, put that of the old server at {} (mode 0600)",
                key.display()
            )
        });
    }
    Ok(Exit::Ok)
}

fn show(context: &Context, kind: &str, said: &str, contents: &Contents) -> Result<Exit, Failure> {
    let data = json!({
        "made_at_ms": contents.head.made_at.0, "store_version": contents.head.store_version,
        "with_key": contents.head.with_key, "files": contents.written.files, "bytes": contents.written.bytes,
        "records": contents.checked.records, "logs": contents.runs, "lines": contents.lines,
    });
    context.out.result(kind, &data, |paint| {
        let mut lines = told(context, &contents.head, &contents.written);
        lines.push(("records", contents.checked.total().to_string()));
        lines.push(("logs", format!("{} of runs, {} lines", contents.runs, contents.lines)));
        format!("{}\n{}", paint.good(said), fields(paint, &lines))
    })?;
    Ok(Exit::Ok)
}
