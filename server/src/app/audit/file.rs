//! An export of the audit log as a file: lines of JSON or CSV, written and read again entry by entry. A cell that a
//! spreadsheet would take for a formula is written as text, and read as what it was. Not here: which entries are exported.

use std::io::{BufRead, Read};

use pipelines::{
    ids::Digest,
    journal::{
        Changed, Channel, Entry, Origin,
        chain::{Head, Mark, Misfit, Walk, Walked},
    },
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

use super::moment_of;

/// Version of the file's first line.
pub const FORMAT: u32 = 1;
/// Bytes of one line of JSON; an entry is far smaller.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How a cell begins that a spreadsheet takes for a formula, also in full width; and the mark of what is text all the same.
const FORMULA: [char; 12] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠', '\''];

/// The columns of the CSV.
pub const COLUMNS: [&str; 17] = [
    "seq", "at", "actor", "channel", "place", "proof", "service", "subject", "word", "before", "after", "detail",
    "at_ms", "version", "changes", "previous", "digest",
];

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line of JSON for each entry, and one before them that says what it is.
    Ndjson,
    /// Comma-separated, for spreadsheets (RFC 4180).
    Csv,
}

/// The first line of an export in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// [`FORMAT`].
    pub windlass_audit_export: u32,
    /// Whether it has every entry. A part of the log is no chain.
    pub is_whole: bool,
    /// What the first entry names as its predecessor.
    pub genesis: Digest,
    /// The last entry when the export began.
    pub head: String,
    /// How many entries there were.
    pub entries: u64,
}

/// Why a file cannot be read as an export.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("the file cannot be read")]
    Io(#[from] std::io::Error),
    /// It is not an export.
    #[error("this is no export of the audit log: {0}")]
    Foreign(String),
    /// It is a part of the log.
    #[error("the export holds a part of the log only, and only the whole of it is a chain: export it without a filter")]
    Part,
    /// Something does not fit.
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

/// What stands before the entries.
#[must_use]
pub fn start(format: Format, head: &Head, is_whole: bool) -> String {
    match format {
        // The mark at the beginning has spreadsheets read it as UTF-8.
        Format::Csv => format!("\u{feff}{}", row(COLUMNS.map(str::to_owned))),
        Format::Ndjson => {
            let (genesis, entries) = (head.genesis.clone(), head.entries);
            let head = head.mark().to_string();
            line(&Start { windlass_audit_export: FORMAT, is_whole, genesis, head, entries })
        }
    }
}

/// An entry as it is written.
#[must_use]
pub fn entry(format: Format, entry: &Entry) -> String {
    match format {
        Format::Ndjson => line(entry),
        Format::Csv => row(cells(entry)),
    }
}

fn line(of: &impl Serialize) -> String {
    // Texts and numbers: nothing of it can fail.
    let mut line = serde_json::to_string(of).unwrap_or_default();
    line.push('\n');
    line
}

/// What changed, exactly.
#[derive(Default, Serialize, Deserialize)]
struct Changes {
    state: Option<(String, String)>,
    fields: Vec<(String, String, String)>,
}

fn cells(entry: &Entry) -> [String; 17] {
    let origin = &entry.origin;
    let (before, after) = before_and_after(entry);
    let fields = entry.changed.iter().map(|it| (it.field.clone(), it.before.clone(), it.after.clone()));
    let changes = Changes { state: entry.change.clone(), fields: fields.collect() };
    let digest = |digest: &Option<Digest>| digest.as_ref().map(ToString::to_string).unwrap_or_default();
    [
        entry.seq.to_string(),
        moment_of(entry.at),
        origin.actor.clone(),
        origin.channel.word().to_owned(),
        origin.place.clone(),
        origin.proof.clone(),
        entry.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        entry.subject.clone(),
        entry.word.clone(),
        before,
        after,
        entry.detail.clone(),
        entry.at.0.to_string(),
        entry.version.to_string(),
        serde_json::to_string(&changes).unwrap_or_default(),
        digest(&entry.previous),
        digest(&entry.digest),
    ]
}

/// What was and what is, for people: the state, or each field by its name.
#[must_use]
pub fn before_and_after(entry: &Entry) -> (String, String) {
    let fields = |value: fn(&Changed) -> &String| -> String {
        let named = entry.changed.iter().filter(|it| !value(it).is_empty());
        named.map(|it| format!("{}: {}", it.field, value(it))).collect::<Vec<_>>().join("; ")
    };
    match &entry.change {
        Some((before, after)) => (before.clone(), after.clone()),
        None => (fields(|it| &it.before), fields(|it| &it.after)),
    }
}

fn row(cells: [String; 17]) -> String {
    let mut row = String::new();
    for (number, cell) in cells.into_iter().enumerate() {
        if number > 0 {
            row.push(',');
        }
        let is_formula = cell.starts_with(FORMULA);
        if is_formula || cell.contains(['"', ',', '\r', '\n']) {
            row.push('"');
            row.push_str(if is_formula { "'" } else { "" });
            row.push_str(&cell.replace('"', "\"\""));
            row.push('"');
        } else {
            row.push_str(&cell);
        }
    }
    row.push_str("\r\n");
    row
}

/// Reads an export and walks along its chain; holds one entry in memory. With the mark that was kept, its entry must be
/// there.
///
/// # Errors
/// [`FileError`]; the first entry that does not fit.
pub fn verify(input: impl BufRead, mark: Option<Mark>) -> Result<Walked, FileError> {
    let mut input = input;
    let is_json = input.fill_buf()?.first() == Some(&b'{');
    if is_json { verify_json(input, mark) } else { verify_csv(input, mark) }
}

fn verify_json(mut input: impl BufRead, mark: Option<Mark>) -> Result<Walked, FileError> {
    let mut text = Vec::new();
    let mut next = |walk: Option<&Walk>| -> Result<Option<Vec<u8>>, FileError> {
        text.clear();
        Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        match text.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(text.clone())),
            Some(_) => {
                let why = "its last line is cut off, or too long".to_owned();
                Err(Misfit::Unreadable { previous: walk.map_or(0, Walk::seq), why }.into())
            }
        }
    };
    let first = next(None)?.unwrap_or_default();
    let start: Start = serde_json::from_slice(&first).map_err(|error| FileError::Foreign(error.to_string()))?;
    if start.windlass_audit_export != FORMAT {
        let found = start.windlass_audit_export;
        return Err(FileError::Foreign(format!("its format is {found}, and this windlass reads {FORMAT}")));
    }
    if !start.is_whole {
        return Err(FileError::Part);
    }
    let foreign = |error: pipelines::ids::InvalidId| FileError::Foreign(error.to_string());
    let Mark { seq, digest } = start.head.parse().map_err(foreign)?;
    let head = Head { seq, digest, entries: start.entries, ..Head::new(start.genesis) };
    let mut walk = Walk::new(Some(head.genesis.clone()), mark);
    while let Some(line) = next(Some(&walk))? {
        let unreadable = |why: String| Misfit::Unreadable { previous: walk.seq(), why };
        let entry: Entry = serde_json::from_slice(&line).map_err(|error| unreadable(error.to_string()))?;
        // Nothing stands there besides what is in the digest.
        if line != self::line(&entry).as_bytes() {
            return Err(unreadable(format!("entry {} is not as it is exported", entry.seq)).into());
        }
        walk.step(&entry)?;
    }
    Ok(walk.end(Some(&head))?)
}

fn verify_csv(input: impl Read, mark: Option<Mark>) -> Result<Walked, FileError> {
    let mut reader = csv::ReaderBuilder::new().from_reader(input);
    let columns = reader.headers().map_err(|error| FileError::Foreign(error.to_string()))?;
    if columns.iter().ne(COLUMNS) {
        return Err(FileError::Foreign(format!("its first line is not {}", COLUMNS.join(","))));
    }
    // The file does not say how the store began: the first entry is believed, and a mark shows whether rightly.
    let mut walk = Walk::new(None, mark);
    for record in reader.records() {
        let unreadable = |why: String| Misfit::Unreadable { previous: walk.seq(), why };
        let record = record.map_err(|error| unreadable(error.to_string()))?;
        let entry = entry_of(&record).map_err(unreadable)?;
        walk.step(&entry)?;
    }
    Ok(walk.end(None)?)
}

fn entry_of(record: &csv::StringRecord) -> Result<Entry, String> {
    let cell = |name: &str| -> &str {
        let at = COLUMNS.iter().position(|column| *column == name).unwrap_or(usize::MAX);
        let cell = record.get(at).unwrap_or_default();
        cell.strip_prefix('\'').unwrap_or(cell)
    };
    let number = |name: &str| cell(name).parse::<u64>().map_err(|_| format!("{name} is no number"));
    let digest = |name: &str| cell(name).parse::<Digest>().map(Some).map_err(|error| error.to_string());
    let changes: Changes = serde_json::from_str(cell("changes")).map_err(|error| format!("changes: {error}"))?;
    let channel = Channel::from_word(cell("channel")).ok_or("its channel is not known")?;
    let service = Some(cell("service")).filter(|name| !name.is_empty());
    let fields = changes.fields.into_iter().map(|(field, before, after)| Changed { field, before, after });
    let entry = Entry {
        version: u32::try_from(number("version")?).map_err(|_| "version is too large")?,
        seq: number("seq")?,
        at: UnixMs(number("at_ms")?),
        service: service.map(str::parse).transpose().map_err(|error: pipelines::ids::InvalidId| error.to_string())?,
        origin: Origin::new(cell("actor"), channel).from_place(cell("place")).proved_by(cell("proof")),
        subject: cell("subject").to_owned(),
        word: cell("word").to_owned(),
        change: changes.state,
        changed: fields.collect(),
        detail: cell("detail").to_owned(),
        previous: digest("previous")?,
        digest: digest("digest")?,
    };
    // Nothing stands there besides what is in the digest; neither in the cells that are there for people.
    let written = cells(&entry);
    if COLUMNS.iter().zip(&written).any(|(column, written)| cell(column) != written) {
        return Err(format!("entry {} is not as it is exported", entry.seq));
    }
    Ok(entry)
}
