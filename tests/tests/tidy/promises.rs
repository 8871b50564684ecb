//! docs/promises.md: each promise names tests, each of those exists, and each safeguard of the simulation is named with
//! its off-run.

use std::{fs, path::Path};

use ::tests::parts::checkout;

const PAGE: &str = "docs/promises.md";
const PROMISES: usize = 7;

/// What is wrong with the page.
pub(crate) fn check() -> Vec<String> {
    let page = fs::read_to_string(checkout().join(PAGE)).unwrap_or_default();
    let safeguards = fs::read_to_string(checkout().join("tests/simulation/src/safeguards.rs")).unwrap_or_default();
    check_page(&page, &safeguards, &checkout())
}

fn check_page(page: &str, safeguards: &str, root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    if sections.len() != PROMISES {
        wrong.push(format!("{} promises stand there, DESIGN.md has {PROMISES}", sections.len()));
    }
    for section in &sections {
        let title = section.lines().next().unwrap_or_default();
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
            if off != "-" && !safeguards.contains(&format!("    {} breaks ", off.trim_matches('`'))) {
                wrong.push(format!("{off} is no safeguard of the simulation"));
            }
        }
    }
    for line in safeguards.lines().filter(|line| line.starts_with("    ")) {
        let Some((name, _)) = line.trim().split_once(" breaks \"") else { continue };
        if !page.contains(&format!("| `{name}` |")) {
            wrong.push(format!("the safeguard {name} is not named"));
        }
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

    #[test]
    fn a_test_that_is_gone_and_a_safeguard_that_is_not_named_are_found() {
        let head = "| test | tries | safeguard | off-run |\n|---|---|---|---|\n";
        let row = "| `tests/tests/tidy/promises.rs::check` | x | y | `drains` |\n";
        let good = format!("# P\n{}", format!("\n## p\n\n{head}{row}").repeat(PROMISES));
        let safeguards = "    drains breaks \"x\",\n";
        let root = checkout();
        assert_eq!(check_page(&good, safeguards, &root), Vec::<String>::new());
        assert_eq!(check_page(&good.replace("::check", "::gone"), safeguards, &root).len(), PROMISES);
        assert_eq!(check_page(&good, "    drains breaks \"x\",\n    lanes breaks \"y\",\n", &root).len(), 1);
        assert_eq!(check_page(&good.replacen("## p", "# p", 1), safeguards, &root).len(), 1);
        assert!(!check_page(&good.replace("`drains`", "`others`"), safeguards, &root).is_empty());
    }
}
