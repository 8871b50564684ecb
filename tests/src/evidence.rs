//! What the tests have shown: one JSON line per proof below `target/evidence/`, and the table of README.md that must
//! say the same. The command that compares them is `src/bin/evidence.rs`.

use std::{
    collections::BTreeMap,
    env,
    fmt::{self, Display},
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::parts::Skipped;

const START: &str = "<!-- evidence:start -->";
const END: &str = "<!-- evidence:end -->";

/// How near to the real thing a proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Pure code.
    Unit,
    /// Against a document or a fake of the outside party.
    Contract,
    /// Against the outside party's own program, on this machine.
    RealPart,
    /// The whole product against real parts, from outside.
    Live,
}

impl Tier {
    const ALL: [Tier; 4] = [Tier::Unit, Tier::Contract, Tier::RealPart, Tier::Live];

    fn word(self) -> &'static str {
        match self {
            Tier::Unit => "unit",
            Tier::Contract => "contract",
            Tier::RealPart => "real part",
            Tier::Live => "live",
        }
    }
}

impl Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What is shown, in words of a user; the key of the table.
    pub capability: String,
    /// How near to the real thing.
    pub tier: Tier,
    /// What was measured; varies from run to run and is not compared.
    pub figure: String,
    /// The command that shows it.
    pub command: String,
}

/// Notes that the running test has shown `capability`. Call it after the last assertion.
///
/// # Panics
/// When the folder of the evidence cannot be written: the proof would be lost unseen.
pub fn record(capability: &str, tier: Tier, figure: impl Display) {
    record_as(capability, tier, figure, &command_of_running_test());
}

/// As [`record`], for what is not a test: `command` is what a reader types to see it (`make bench`).
///
/// # Panics
/// When the folder of the evidence cannot be written.
pub fn record_as(capability: &str, tier: Tier, figure: impl Display, command: &str) {
    let row = Row { capability: capability.into(), tier, figure: figure.to_string(), command: command.into() };
    append(&folder().join("rows.jsonl"), &row);
}

/// The folder of the evidence: `WINDLASS_EVIDENCE_DIR`, or `evidence` in cargo's target folder.
#[must_use]
pub fn folder() -> PathBuf {
    if let Some(dir) = env::var_os("WINDLASS_EVIDENCE_DIR") {
        return dir.into();
    }
    target().join("evidence")
}

/// Cargo's target folder, that of the running program.
#[must_use]
pub fn target() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let target = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    target.map_or_else(|| crate::parts::checkout().join("target"), Path::to_owned)
}

/// All lines of a file of the evidence; none when it does not exist.
///
/// # Errors
/// When a line is not what it should be.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<Vec<T>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(file)?;
    let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("in {}: {line}", file.display()));
    text.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// The rows and the skipped tests of the last run.
///
/// # Errors
/// When a line is not what it should be, or one capability was shown at two tiers.
pub fn last_run() -> Result<(Vec<Row>, Vec<Skipped>)> {
    let rows = read::<Row>(&folder().join("rows.jsonl"))?;
    let mut skipped = read::<Skipped>(&folder().join("skipped.jsonl"))?;
    skipped.sort_by(|a, b| a.test.cmp(&b.test));
    skipped.dedup();
    Ok((one_per_capability(rows)?, skipped))
}

/// The table between the markers of a Markdown page.
///
/// # Errors
/// When the markers are missing or a line between them is not a row.
pub fn parse_table(page: &str) -> Result<Vec<Row>> {
    let (_, rest) = page.split_once(START).with_context(|| format!("the page lacks {START}"))?;
    let (table, _) = rest.split_once(END).with_context(|| format!("the page lacks {END}"))?;
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(parse_row).collect()
}

/// The page with `rows` between its markers, sorted by capability.
///
/// # Errors
/// When the markers are missing.
pub fn replace_table(page: &str, rows: &[Row]) -> Result<String> {
    let (before, rest) = page.split_once(START).with_context(|| format!("the page lacks {START}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("the page lacks {END}"))?;
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| a.capability.cmp(&b.capability));
    let mut table = String::from("| capability | tier | figure | shown by |\n|---|---|---|---|\n");
    for row in &rows {
        let cells = [&row.capability, row.tier.word(), &row.figure, &format!("`{}`", row.command)];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        table += &format!("| {} |\n", cells.join(" | "));
    }
    Ok(format!("{before}{START}\n{table}{END}{after}"))
}

/// Where the table and the run disagree, in words; empty when they agree. `whole` says that every test ran, so that a
/// row that nothing showed is wrong too; rows of `make bench` and the like are left alone.
#[must_use]
pub fn differences(table: &[Row], run: &[Row], whole: bool) -> Vec<String> {
    let stated: BTreeMap<_, _> = table.iter().map(|row| (row.capability.as_str(), row)).collect();
    let shown: BTreeMap<_, _> = run.iter().map(|row| (row.capability.as_str(), row)).collect();
    let mut differences = Vec::new();
    for (capability, row) in &shown {
        match stated.get(capability) {
            None => differences.push(format!("README.md lacks \"{capability}\" ({}): run `make evidence`", row.tier)),
            Some(old) if old.tier != row.tier => differences.push(format!(
                "README.md says \"{capability}\" is shown at tier {}, but it was shown at tier {}: run `make evidence`",
                old.tier, row.tier
            )),
            Some(_) => {}
        }
    }
    let of_test = |row: &&&Row| row.command.starts_with("cargo test");
    for row in stated.values().filter(of_test).filter(|row| whole && !shown.contains_key(row.capability.as_str())) {
        differences.push(format!("README.md claims \"{}\", but no test showed it: remove the row", row.capability));
    }
    differences
}

/// The name of the running test; `None` outside a test's own thread.
pub(crate) fn running_test() -> Option<String> {
    let thread = std::thread::current();
    thread.name().filter(|name| *name != "main" && !name.starts_with("tokio-")).map(str::to_owned)
}

/// Appends a value as one line in one write, so that tests may run side by side.
///
/// # Panics
/// When the file cannot be written.
pub(crate) fn append(file: &Path, value: &impl Serialize) {
    let write = || -> Result<()> {
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        OpenOptions::new().create(true).append(true).open(file)?.write_all(&line)?;
        Ok(())
    };
    if let Err(error) = write() {
        panic!("failed to write {}: {error:#}", file.display());
    }
}

fn one_per_capability(rows: Vec<Row>) -> Result<Vec<Row>> {
    let mut last = BTreeMap::<String, Row>::new();
    for row in rows {
        if let Some(other) = last.insert(row.capability.clone(), row.clone()) {
            let (name, one, two) = (&row.capability, other.tier, row.tier);
            ensure!(one == two, "\"{name}\" was shown at tier {one} and at tier {two}: give the two different names");
        }
    }
    Ok(last.into_values().collect())
}

fn parse_row(line: &str) -> Result<Row> {
    let marked = line.replace("\\|", "\u{1}");
    let cells: Vec<_> = marked.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect();
    let [capability, tier, figure, command] = cells.as_slice() else {
        anyhow::bail!("a row of the evidence has four cells: {line}");
    };
    let tier = Tier::ALL.into_iter().find(|t| t.word() == tier);
    let tier = tier.with_context(|| format!("a tier is unit, contract, real part or live: {line}"))?;
    let command = command.trim_matches('`').to_owned();
    Ok(Row { capability: capability.clone(), tier, figure: figure.clone(), command })
}

/// Cargo tells a test its package; the name of the binary and of the thread say the rest.
fn command_of_running_test() -> String {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "tests".into());
    let exe = env::current_exe().unwrap_or_default();
    let stem = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let target = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _hash)| name);
    let target = match env::var_os("CARGO_MANIFEST_DIR") {
        Some(dir) if !Path::new(&dir).join(format!("tests/{target}.rs")).exists() => String::new(),
        _ => format!(" --test {target}"),
    };
    let test = running_test().map(|name| format!(" -- {name}")).unwrap_or_default();
    format!("cargo test -p {package}{target}{test}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Title\n<!-- evidence:start -->\nold\n<!-- evidence:end -->\nrest\n";

    fn row(capability: &str, tier: Tier) -> Row {
        Row { capability: capability.into(), tier, figure: "a|b".into(), command: "cargo test -p x".into() }
    }

    #[test]
    fn a_written_table_reads_back_the_same() {
        let rows = [row("b | c", Tier::RealPart), row("a", Tier::Unit)];
        let page = replace_table(PAGE, &rows).unwrap();
        assert!(page.starts_with("# Title\n") && page.ends_with("\nrest\n"));
        assert_eq!(parse_table(&page).unwrap(), [rows[1].clone(), rows[0].clone()]);
        assert_eq!(replace_table(&page, &rows).unwrap(), page);
    }

    #[test]
    fn a_page_without_markers_is_refused() {
        assert!(replace_table("nothing", &[]).is_err());
        assert!(parse_table("nothing").is_err());
    }

    #[test]
    fn a_new_row_another_tier_and_an_unshown_row_are_differences() {
        let table = [row("same", Tier::Unit), row("moved", Tier::Unit), row("gone", Tier::Live)];
        let run = [row("same", Tier::Unit), row("moved", Tier::Live), row("new", Tier::Unit)];
        assert_eq!(differences(&table, &run, false).len(), 2);
        assert_eq!(differences(&table, &run, true).len(), 3);
        assert!(differences(&table, &table, true).is_empty());
    }

    #[test]
    fn an_unshown_row_of_a_bench_is_left_alone() {
        let bench = Row { command: "make bench".into(), ..row("fast", Tier::Live) };
        assert!(differences(&[bench], &[], true).is_empty());
    }

    #[test]
    fn one_capability_at_two_tiers_is_refused() {
        assert!(one_per_capability(vec![row("a", Tier::Unit), row("a", Tier::Live)]).is_err());
        assert_eq!(one_per_capability(vec![row("a", Tier::Unit), row("a", Tier::Unit)]).unwrap().len(), 1);
    }
}
