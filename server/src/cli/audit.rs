//! `windlass audit`: who changed what; and whether the log is still what was written. Verifying happens here, not on the
//! server that is asked: an export is read entry by entry, or the store of a server that is stopped.

use std::{
    fs::File,
    io::{BufReader, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use pipelines::{
    ids::ServiceName,
    journal::{
        Channel,
        chain::{Mark, Misfit, Walked},
    },
};
use serde_json::json;
use server::{
    app::audit::file::{self, FileError},
    http::api::model::{self, Answer},
    store::{self, StoreError, engine::EngineError},
};

use super::{
    Context,
    exit::Exit,
    failure::Failure,
    output::{self, Paint, clean, fields, moment, table},
};

/// See who changed what, and verify that the log of it is what was written
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List entries, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only those with a smaller place
        #[arg(long, value_name = "PLACE")]
        before: Option<u64>,
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
        limit: u8,
    },
    /// Verify the whole chain: of the server, of an exported file, or of the state folder of a server that is stopped
    Verify {
        /// An exported file
        #[arg(conflicts_with = "state_dir")]
        file: Option<PathBuf>,
        /// The state folder, on this machine
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// A mark that was kept: what it was of must still be there, and everything before it as it was
        #[arg(long, value_name = "MARK")]
        head: Option<Mark>,
    },
    /// Write entries, oldest first; without a filter the file can be verified
    Export {
        #[command(flatten)]
        filter: Filter,
        /// How
        #[arg(long, value_enum, default_value = "ndjson")]
        format: FileFormat,
        /// Into this file, which must not be there yet, instead of standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Print the mark of the last entry, to be kept elsewhere
    Head,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FileFormat {
    /// Lines of JSON
    Ndjson,
    /// For spreadsheets
    Csv,
}

/// Which entries.
#[derive(Debug, clap::Args)]
struct Filter {
    /// In the name of who did it, or the start of the address
    #[arg(long)]
    who: Option<String>,
    /// In the word, the subject or the detail
    #[arg(long)]
    what: Option<String>,
    /// Of this service
    #[arg(long)]
    service: Option<ServiceName>,
    /// By this way: page, api, mail_link, hook, runner, server, machine
    #[arg(long, value_parser = channel)]
    channel: Option<Channel>,
    /// Not before this day or moment: 2026-11-23, 2026-11-23T08:00:00Z
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// Before the end of this day, or before this moment
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
}

fn channel(word: &str) -> Result<Channel, String> {
    Channel::from_word(word).ok_or_else(|| format!("use one of {}", Channel::ALL.map(Channel::word).join(", ")))
}

impl Filter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let words = [
            ("who", self.who.clone()),
            ("what", self.what.clone()),
            ("service", self.service.as_ref().map(ToString::to_string)),
            ("channel", self.channel.map(|channel| channel.word().to_owned())),
            ("from", self.from.clone()),
            ("until", self.until.clone()),
        ];
        words.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Does what the verb says.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        Verb::List { filter, before, limit } => {
            let mut query = filter.query();
            query.push(("limit", limit.to_string()));
            query.extend(before.map(|before| ("before", before.to_string())));
            let client = context.target.client()?;
            let log: Answer<model::AuditLog> = client.get("cannot list the audit log", "api/v1/audit", &query).await?;
            context.out.answer(&log, |paint, log| lines(context, paint, log))?;
        }
        Verb::Verify { file, state_dir, head } => {
            let what = "cannot vouch for the audit log";
            let walked = match (file, state_dir) {
                (Some(path), _) => of_file(what, &open(what, path)?, head.clone())?,
                (None, Some(folder)) => of_folder(what, folder, head.clone())?,
                (None, None) => of_server(context, what, head.clone()).await?,
            };
            show(context, &walked, head.as_ref())?;
        }
        Verb::Export { filter, format, to } => export(context, filter, *format, to.as_deref()).await?,
        Verb::Head => head(context).await?,
    }
    Ok(Exit::Ok)
}

fn lines(context: &Context, paint: Paint, log: &model::AuditLog) -> String {
    let row = |entry: &model::AuditEntry| {
        let fields = entry.changed.iter().map(|it| format!("{}: {} → {}", it.field, it.before, it.after));
        let state = entry.before.iter().zip(&entry.after).map(|(before, after)| format!("{before} → {after}"));
        let mut said: Vec<String> = state.chain(fields).collect();
        said.extend(Some(entry.detail.clone()).filter(|detail| !detail.is_empty()));
        vec![
            entry.seq.to_string(),
            moment(entry.at_ms, &context.zone),
            clean(&entry.actor),
            format!("{} {}", entry.channel, clean(&entry.place)).trim_end().to_owned(),
            entry.word.clone(),
            clean(&entry.subject),
            clean(&said.join("; ")),
        ]
    };
    let mut text = if log.items.is_empty() {
        "no entry fits\n".to_owned()
    } else {
        let heads = ["PLACE", "WHEN", "WHO", "HOW, FROM", "WHAT", "OF", "CHANGE"];
        table(paint, &heads, &log.items.iter().map(row).collect::<Vec<_>>())
    };
    if let Some(before) = log.next_before {
        text.push_str(&format!("{}\n", paint.dim(&format!("older ones: --before {before}"))));
    }
    text
}

fn open(what: &str, path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::usage(what).why(format!("{}: {error}", path.display())))
}

fn of_file(what: &str, file: &File, mark: Option<Mark>) -> Result<Walked, Failure> {
    file::verify(BufReader::new(file), mark).map_err(|error| {
        let failure = Failure::new(Exit::Unexpected, what).because(&error);
        match error {
            FileError::Misfit(_) => failure.next("compare with an older export, or with a backup"),
            FileError::Part | FileError::Foreign(_) => failure.next("windlass audit export"),
            FileError::Io(_) => failure,
        }
    })
}

fn of_folder(what: &str, folder: &Path, mark: Option<Mark>) -> Result<Walked, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Unexpected, what).because(error);
    match store::verify_journal(folder, mark) {
        Ok(Ok(walked)) => Ok(walked),
        Ok(Err(misfit)) => Err(misfits(what, &misfit)),
        Err(error @ StoreError::Engine(EngineError::Locked)) => {
            Err(failed(&error).next("leave out --state-dir: the server that runs is asked then"))
        }
        Err(error) => Err(failed(&error)),
    }
}

fn misfits(what: &str, misfit: &Misfit) -> Failure {
    Failure::new(Exit::Unexpected, what).because(misfit).next("compare with an older export, or with a backup")
}

/// All of it comes here and is verified here: what the server says of itself proves little.
async fn of_server(context: &Context, what: &str, mark: Option<Mark>) -> Result<Walked, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Unexpected, what).because(error);
    let client = context.target.client()?;
    let mut file = tempfile::tempfile().map_err(|error| failed(&error))?;
    let take = |piece: &[u8]| file.write_all(piece).map_err(|error| failed(&error));
    client.fetch(what, "api/v1/audit/export", &[], take).await?;
    file.rewind().map_err(|error| failed(&error))?;
    of_file(what, &file, mark)
}

fn show(context: &Context, walked: &Walked, kept: Option<&Mark>) -> Result<(), Failure> {
    let mark = walked.mark.as_ref().map(ToString::to_string).unwrap_or_default();
    let data = json!({"entries": walked.entries, "mark": mark, "compared_with": kept.map(ToString::to_string)});
    context.out.result("AuditVerified", &data, |paint| {
        let compared = match kept {
            Some(kept) => format!("it holds what the mark of entry {} was kept of", kept.seq),
            None => "with no mark: give one by --head, or its end may have been cut off unseen".to_owned(),
        };
        let said = format!("{} the audit log is whole\n", paint.good("✓"));
        said + &fields(
            paint,
            &[("entries", walked.entries.to_string()), ("compared", compared), ("head", mark.clone())],
        )
    })
}

async fn export(context: &Context, filter: &Filter, format: FileFormat, to: Option<&Path>) -> Result<(), Failure> {
    let what = "cannot export the audit log";
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Unexpected, what).because(error);
    let mut query = filter.query();
    let word = if matches!(format, FileFormat::Csv) { "csv" } else { "ndjson" };
    query.push(("format", word.to_owned()));
    let client = context.target.client()?;
    let Some(path) = to else {
        let mut stdout = std::io::stdout().lock();
        let take = |piece: &[u8]| match stdout.write_all(piece).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::closed()),
            other => other.map_err(|error| failed(&error)),
        };
        client.fetch(what, "api/v1/audit/export", &query, take).await?;
        return Ok(());
    };
    if path.exists() {
        return Err(Failure::usage(what).why(format!("{} is there already", path.display())).next("name another file"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under its name only when it is whole.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    let take = |piece: &[u8]| file.write_all(piece).map_err(|error| failed(&error));
    let bytes = client.fetch(what, "api/v1/audit/export", &query, take).await?;
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    file.persist_noclobber(path).map_err(|error| failed(&error.error))?;
    let data = json!({"file": path, "bytes": bytes, "format": word});
    context.out.result("AuditExport", &data, |paint| {
        fields(paint, &[("file", path.display().to_string()), ("size", output::bytes(bytes))])
    })
}

async fn head(context: &Context) -> Result<(), Failure> {
    let client = context.target.client()?;
    let path = "api/v1/audit/head";
    let head: Answer<model::AuditHead> = client.get("cannot ask for the head of the audit log", path, &[]).await?;
    if let Some(problem) = &head.it.problem {
        context.out.note(&format!("the server found: {}", clean(problem)));
    }
    context.out.answer(&head, |_, head| format!("{}\n", clean(&head.mark)))
}
