//! The rules of the house that can be checked by reading its files: who imports whom, how a file begins, what never
//! occurs. Each finding says where, and what to do. Lints that rustc and clippy know are theirs.

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/promises.rs"]
mod promises;
#[path = "tidy/source.rs"]
mod source;

use std::{env, path::Path};

use source::{Finding, sources};
use tests::parts::checkout;

const MAX_LINES: usize = 700;

#[test]
fn who_imports_whom() {
    report(sources().iter().filter(|s| s.is_rust()).flat_map(imports::check).chain(imports::check_manifests()));
}

#[test]
fn a_rust_file_says_what_lives_in_it_and_stays_short() {
    report(sources().iter().filter(|s| s.is_rust()).flat_map(|s| {
        let mut found = Vec::new();
        if !s.text.starts_with("//! ") {
            found.push(s.at(1, "begin the file with `//!` and say what lives here and what does not"));
        }
        if s.path.ends_with("/mod.rs") {
            found.push(s.at(1, "name it after its folder: `foo.rs` beside `foo/`"));
        }
        let lines = s.text.lines().count();
        if lines > MAX_LINES {
            found.push(s.at(lines, &format!("has {lines} lines, more than {MAX_LINES}: cut it along a noun")));
        }
        found
    }));
}

#[test]
fn words_that_never_stand_in_code() {
    let never = [
        ("todo!", "write it, or return an error that says what is not done"),
        ("unimplemented!", "write it, or return an error that says what is not done"),
        ("dbg!", "use tracing, or delete it"),
        ("#[ignore", "make the test run, or `require` the part that it needs"),
        ("#[allow(", "use `#[expect(lint, reason = \"…\")]`"),
        ("#![allow(", "use `#![expect(lint, reason = \"…\")]`"),
        ("println!(\"cargo:warning", "fail, or be silent"),
    ];
    report(sources().iter().filter(|s| s.is_rust()).flat_map(|s| {
        let lines = s.code.lines().enumerate();
        let hits = lines.flat_map(|(i, line)| never.iter().filter(move |(w, _)| line.contains(w)).map(move |n| (i, n)));
        hits.map(|(i, (word, advice))| s.at(i + 1, &format!("`{word}` stands here: {advice}"))).collect::<Vec<_>>()
    }));
}

#[test]
fn no_glob_is_re_exported() {
    report(sources().iter().filter(|s| s.is_rust()).flat_map(|s| {
        let uses =
            s.statements("use").into_iter().filter(|(_, before, text)| before.contains("pub") && text.contains('*'));
        uses.map(|(line, ..)| s.at(line, "a glob is re-exported: name what is public")).collect::<Vec<_>>()
    }));
}

#[test]
fn an_expectation_says_why() {
    report(sources().iter().filter(|s| s.is_rust()).flat_map(|s| {
        let starts = s.code.match_indices("#[expect(").chain(s.code.match_indices("#![expect("));
        let bare = starts.filter(|(at, _)| {
            let end = s.code[*at..].find(")]").map_or(s.code.len(), |end| at + end);
            !s.code[*at..end].contains("reason")
        });
        bare.map(|(at, _)| s.at(s.line_of(at), "add `reason = \"…\"` to the expectation")).collect::<Vec<_>>()
    }));
}

/// What the developer's machine looks like is no part of the project.
#[test]
fn nothing_of_this_machine_stands_in_a_file() {
    let mut words: Vec<(String, &str)> = vec![(format!("{}/", checkout().display()), "a path of this checkout")];
    if let Ok(home) = env::var("HOME") {
        words.push((format!("{home}/"), "a path of this home folder"));
    }
    words.push((["", "Users", ""].join("/"), "a path of somebody's home folder"));
    for host in mirror_hosts() {
        words.push((host, "a package registry that only this machine uses"));
    }
    report(sources().iter().flat_map(|s| {
        let lines = s.text.lines().enumerate();
        let hits = lines.flat_map(|(i, line)| words.iter().filter(move |(w, _)| line.contains(w)).map(move |w| (i, w)));
        hits.map(|(i, (word, what))| s.at(i + 1, &format!("`{word}` is {what}: remove it"))).collect::<Vec<_>>()
    }));
}

#[test]
fn every_locked_crate_comes_from_the_public_index() {
    report(sources().iter().filter(|s| s.path == "Cargo.lock").flat_map(|s| {
        let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        let others = s.text.lines().enumerate().filter(|(_, line)| line.starts_with("source = ") && *line != public);
        others.map(|(i, _)| s.at(i + 1, "this crate comes from elsewhere: lock it from crates.io")).collect::<Vec<_>>()
    }));
}

/// Words for people are translated in one place; comments are for all developers.
#[test]
fn source_is_english_but_for_translations_and_tests() {
    report(sources().iter().filter(|s| !s.is_translation() && (s.is_rust() || !s.is_test())).flat_map(|s| {
        let checked = if s.is_test() { s.comments.as_str() } else { s.before_tests() };
        // A link to a translation is called by what its readers call their language.
        let line =
            checked.lines().position(|line| !line.contains("(README.zh-CN.md)") && line.chars().any(is_other_script));
        line.map(|line| s.at(line + 1, "move the words into `text/` or `i18n/`, write comments in English"))
    }));
}

#[test]
fn links_of_the_pages_lead_somewhere() {
    report(sources().iter().filter(|s| s.path.ends_with(".md")).flat_map(|s| {
        let folder = Path::new(&s.path).parent().unwrap_or(Path::new(""));
        let links = s.text.match_indices("](").filter_map(|(at, _)| {
            let target = s.text[at + 2..].split([')', ' ', '#', '\n']).next()?;
            let local = !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
            (local && !checkout().join(folder).join(target).exists()).then(|| (s.line_of(at), target.to_owned()))
        });
        links
            .map(|(line, target)| s.at(line, &format!("the link leads to `{target}`, which is not there")))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn every_promise_names_tests_that_exist() {
    let wrong = promises::check();
    assert!(wrong.is_empty(), "docs/promises.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_house_has_its_files() {
    for file in ["Cargo.toml", "Cargo.lock", "LICENSE", "Makefile", "deny.toml", ".ci/run"] {
        assert!(checkout().join(file).is_file(), "{file} is missing");
    }
}

fn is_other_script(c: char) -> bool {
    matches!(c, '\u{400}'..='\u{52f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}')
}

/// The hosts of this machine's own package mirrors: they stand in its environment, not in the project.
fn mirror_hosts() -> Vec<String> {
    const PUBLIC: [&str; 6] =
        ["proxy.golang.org", "pypi.org", "registry.npmjs.org", "index.crates.io", "github.com", "static.rust-lang.org"];
    let is_mirror = |name: &str| {
        let name = name.to_ascii_uppercase();
        ["GOPROXY", "PIP_INDEX_URL", "NPM_CONFIG_REGISTRY", "RUSTUP_DIST_SERVER"].contains(&name.as_str())
            || name.starts_with("CARGO_SOURCE_")
            || name.starts_with("CARGO_REGISTRIES_")
    };
    let values = env::vars().filter(|(name, _)| is_mirror(name)).map(|(_, value)| value);
    values
        .flat_map(|value| value.split(['/', ',', '|', '@']).map(str::to_owned).collect::<Vec<_>>())
        .filter(|host| host.contains('.') && !PUBLIC.contains(&host.as_str()))
        .collect()
}

#[track_caller]
fn report(findings: impl IntoIterator<Item = Finding>) {
    let found: Vec<String> = findings.into_iter().map(|finding| finding.to_string()).collect();
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}
