//! docs/promises.md: each promise names tests, each of those exists, and each safeguard of the simulation and each patch
//! of tests/off is named with its off-run. Not here: whether the tests fail then (`scripts/off.sh`).

use std::{fs, path::Path, process::Command};

use ::tests::{parts::checkout, process::output};

const PAGE: &str = "docs/promises.md";
const PROMISES: usize = 7;
/// The folder of the patches.
const OFF: &str = "tests/off";

/// What is wrong with the page and the patches.
pub(crate) fn check() -> Vec<String> {
    let page = fs::read_to_string(checkout().join(PAGE)).unwrap_or_default();
    let safeguards = fs::read_to_string(checkout().join("tests/simulation/src/safeguards.rs")).unwrap_or_default();
    let patches = Patch::all();
    let mut wrong = check_page(&page, &safeguards, &patches, &checkout());
    wrong.extend(patches.iter().flat_map(Patch::check_head));
    if output(Command::new("git").arg("--version")).is_ok() {
        wrong.extend(patches.iter().filter_map(Patch::check_diff));
    } else {
        println!("SKIPPED whether the patches of {OFF} apply: git is not installed");
    }
    if patches.is_empty() {
        wrong.push(format!("{OFF} holds no patch"));
    }
    wrong
}

/// What takes one safeguard away.
struct Patch {
    name: String,
    text: String,
}

impl Patch {
    fn all() -> Vec<Self> {
        let files = fs::read_dir(checkout().join(OFF)).into_iter().flatten().flatten().map(|entry| entry.path());
        let patch = |path: &Path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".patch")?.to_owned();
            Some(Self { name, text: fs::read_to_string(path).ok()? })
        };
        let mut all: Vec<Self> = files.filter_map(|path| patch(&path)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The lines `name: …` before the diff.
    fn said(&self, name: &str) -> Vec<&str> {
        let head = self.text.split("\ndiff --git ").next().unwrap_or_default();
        head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
    }

    fn check_head(&self) -> Vec<String> {
        let file = format!("{OFF}/{}.patch", self.name);
        let mut wrong = Vec::new();
        if ["Promise", "Safeguard"].iter().any(|name| self.said(name).len() != 1) {
            wrong.push(format!("{file} needs one line `Promise:` and one `Safeguard:` before its diff"));
        }
        let (tests, runs) = (self.said("Test"), self.said("Run"));
        let is_run = |(test, run): (&&str, &&str)| {
            let name = test.rsplit("::").next().unwrap_or_default();
            run.rsplit([' ', ':']).next() == Some(name)
        };
        if tests.is_empty() || tests.len() != runs.len() || !tests.iter().zip(&runs).all(is_run) {
            wrong.push(format!("{file} needs one line `Run:` for each `Test:`, ending in the name of that test"));
        }
        wrong
    }

    /// Also where the checkout is no repository, or lies in another one.
    fn check_diff(&self) -> Option<String> {
        let file = format!("{OFF}/{}.patch", self.name);
        let mut apply = Command::new("git");
        apply.args(["apply", "--check", "--whitespace=nowarn", &file]).current_dir(checkout());
        if let Some(around) = checkout().parent().filter(|_| !checkout().join(".git").exists()) {
            apply.env("GIT_CEILING_DIRECTORIES", around);
        }
        let error = output(&mut apply).err()?;
        Some(format!("{file} no longer applies: make it anew for what stands there now ({error:#})"))
    }
}

fn check_page(page: &str, safeguards: &str, patches: &[Patch], root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    if sections.len() != PROMISES {
        wrong.push(format!("{} promises stand there, DESIGN.md has {PROMISES}", sections.len()));
    }
    let mut named = Vec::new();
    for section in &sections {
        let title = section.lines().next().unwrap_or_default();
        let promise = title.split('.').next().unwrap_or_default();
        let rows: Vec<Vec<&str>> = section.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells).collect();
        if rows.is_empty() {
            wrong.push(format!("`{title}` names no test"));
        }
        let mut last = "";
        for row in rows {
            let [test, tries, safeguard, off] = row[..] else {
                wrong.push(format!("`{title}` has a row that has not four cells: {row:?}"));
                continue;
            };
            if tries.is_empty() || safeguard.is_empty() || off.is_empty() {
                wrong.push(format!("`{title}` has an empty cell beside {test}"));
            }
            last = if test == "same" { last } else { test };
            if !exists(last, root) {
                wrong.push(format!("{last} does not exist"));
            }
            // A dash, and why, is no off-run.
            for off in off.split(", ").filter(|_| !off.starts_with('-')) {
                let off = off.trim_matches('`');
                match off.strip_prefix("off/") {
                    Some(patch) => named.push((patch, promise, last.trim_matches('`'))),
                    None if safeguards.contains(&format!("    {off} breaks ")) => {}
                    None if exists(off, root) => {}
                    None => {
                        wrong.push(format!("{off} is no safeguard of the simulation, no patch of {OFF} and no test"));
                    }
                }
            }
        }
    }
    for line in safeguards.lines().filter(|line| line.starts_with("    ")) {
        let Some((name, _)) = line.trim().split_once(" breaks \"") else { continue };
        if !page.contains(&format!("| `{name}` |")) {
            wrong.push(format!("the safeguard {name} is not named"));
        }
    }
    wrong.extend(check_patches(&named, patches));
    wrong
}

/// `named` are the patches of the page, each with its promise and its test.
fn check_patches(named: &[(&str, &str, &str)], patches: &[Patch]) -> Vec<String> {
    let is_there = |(patch, promise, test): &(&str, &str, &str)| {
        let patch = patches.iter().find(|one| one.name == *patch);
        patch.is_some_and(|patch| patch.said("Test").contains(test) && patch.said("Promise").contains(promise))
    };
    let gone = named.iter().filter(|row| !is_there(row));
    let mut wrong: Vec<String> = gone
        .map(|(patch, promise, test)| format!("{OFF}/{patch}.patch is not of promise {promise} and {test}"))
        .collect();
    for patch in patches {
        let tests = patch.said("Test");
        let missing = tests.iter().filter(|test| !named.iter().any(|row| row.0 == patch.name && row.2 == **test));
        wrong.extend(missing.map(|test| format!("`off/{}` is not named beside {test}", patch.name)));
    }
    wrong
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// Whether the file of `path::name` has such a function.
fn exists(test: &str, root: &Path) -> bool {
    let Some((path, name)) = test.trim_matches('`').rsplit_once("::") else { return false };
    let text = fs::read_to_string(root.join(path)).unwrap_or_default();
    text.contains(&format!("fn {name}("))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str = "tests/tests/tidy/promises.rs::check";

    fn page(off: &str) -> String {
        let head = "| test | tries | safeguard | off-run |\n|---|---|---|---|\n";
        let row = format!("| `{TEST}` | x | y | {off} |\n");
        format!("# P\n{}", format!("\n## 1. p\n\n{head}{row}").repeat(PROMISES))
    }

    fn wrong(page: &str, safeguards: &str, patches: &[Patch]) -> usize {
        check_page(page, safeguards, patches, &checkout()).len()
    }

    #[test]
    fn a_test_that_is_gone_and_a_safeguard_that_is_not_named_are_found() {
        let safeguards = "    drains breaks \"x\",\n";
        let good = page("`drains`");
        assert_eq!(wrong(&good, safeguards, &[]), 0);
        assert_eq!(wrong(&good.replace("::check", "::gone"), safeguards, &[]), PROMISES);
        assert_eq!(wrong(&good, "    drains breaks \"x\",\n    lanes breaks \"y\",\n", &[]), 1);
        assert_eq!(wrong(&good.replacen("## 1", "# 1", 1), safeguards, &[]), 1);
        assert!(wrong(&good.replace("`drains`", "`others`"), safeguards, &[]) > 0);
    }

    #[test]
    fn a_patch_stands_beside_its_test_and_says_what_it_is() {
        let patch = |promise: &str, test: &str, run: &str| {
            let head = format!("Promise: {promise}\nSafeguard: s\nTest: {test}\nRun: {run}\n");
            [Patch { name: "one".into(), text: format!("{head}\ndiff --git a/x b/x\n") }]
        };
        let run = "-p tests --test tidy promises::check";
        let good = patch("1", TEST, run);
        let named = page("`off/one`");
        assert_eq!(wrong(&named, "", &good), 0);
        assert_eq!(wrong(&page("-"), "", &good), 1, "it is not named");
        assert_eq!(wrong(&named, "", &[]), PROMISES, "it is not there");
        assert_eq!(wrong(&named, "", &patch("2", TEST, run)), PROMISES, "it is of another promise");
        assert!(wrong(&named, "", &patch("1", "tests/tests/tidy/promises.rs::exists", run)) > PROMISES);
        assert_eq!(good[0].check_head(), Vec::<String>::new());
        assert_eq!(patch("1", TEST, "-p tests --test tidy promises::others")[0].check_head().len(), 1);
        assert!(good[0].check_diff().is_some(), "there is no such file");
    }
}
