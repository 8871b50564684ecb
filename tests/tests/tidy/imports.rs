//! The import table of ARCHITECTURE.md: `pipelines` ← `charts`, `integrations` ← `runner` ← `server`, and inside the
//! server http → app → store, driver → store and integrations.

use std::fs;

use ::tests::parts::checkout;

use crate::source::{Finding, Source};

/// Folder of a crate, its name, the crates of ours that it may import.
const CRATES: [(&str, &str, &[&str]); 8] = [
    ("tests/fuzz/", "fuzz", &[]),
    ("tests/simulation/", "simulation", &["pipelines"]),
    ("server/integrations/", "integrations", &["pipelines"]),
    ("pipelines/", "pipelines", &[]),
    ("charts/", "charts", &["pipelines"]),
    ("runner/", "runner", &["charts", "integrations", "pipelines"]),
    ("server/", "server", &["charts", "integrations", "pipelines"]),
    ("tests/", "tests", &[]),
];

/// A part of the server and what it must not name.
const SERVER: [(&str, &[&str]); 6] = [
    ("http", &["crate::store", "crate::driver", "integrations"]),
    ("app", &["crate::http", "crate::driver", "integrations", "axum"]),
    ("store", &["crate::http", "crate::app", "crate::driver", "integrations", "axum"]),
    ("driver", &["crate::http", "axum"]),
    ("gateway", &["crate::http", "crate::app", "crate::driver", "crate::store"]),
    ("config", &["crate::http", "crate::app", "crate::driver", "crate::store", "axum"]),
];

/// What the sans-IO core must not name: time comes within events, work leaves as effects.
const NO_IO: [&str; 12] = [
    "tokio",
    "reqwest",
    "axum",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
];

/// Findings in one Rust file.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some((folder, name, allowed)) = CRATES.into_iter().find(|(folder, ..)| source.path.starts_with(folder)) else {
        return found;
    };
    let is_main = is_of_binary(&source.path);
    let is_inside = ["tests/tests/", "tests/benches/"].iter().any(|folder| source.path.starts_with(folder));
    let product_may_be_named = folder == "tests/" && is_inside && !is_outside_test(source);
    for (_, other, _) in
        CRATES.into_iter().filter(|(_, other, _)| *other != name && !matches!(*other, "tests" | "fuzz"))
    {
        let may = allowed.contains(&other) || product_may_be_named || (is_main && matches!(other, "runner" | "server"));
        let code = if folder == "tests/" { &source.code } else { source.code_before_tests() };
        let own_module = declares(code, other);
        for at in mentions(code, other).into_iter().filter(|_| !may && !own_module) {
            let advice = if folder == "tests/" {
                "the world and outside tests know only addresses and credentials: move the test to parts or contracts"
            } else {
                "imports go one way (pipelines ← charts, integrations ← runner ← server): move the code, or pass it in"
            };
            found.push(source.at(source.line_of(at), &format!("{name} names {other}: {advice}")));
        }
    }
    found.extend(check_inside(source, "server/src/", &SERVER, "http → app → store; driver → store, integrations"));
    if source.path.starts_with("pipelines/src/") {
        for word in NO_IO {
            for at in words(source.code_before_tests(), word) {
                let advice =
                    format!("pipelines names {word}: it is sans-IO; take the value as an argument or in an event");
                found.push(source.at(source.line_of(at), &advice));
            }
        }
    }
    found
}

/// Findings in the manifests: a dependency that is not declared cannot be imported.
pub(crate) fn check_manifests() -> Vec<Finding> {
    let mut found = Vec::new();
    for (folder, name, allowed) in CRATES {
        let path = format!("{folder}Cargo.toml");
        let manifest = Source::new(&path, fs::read_to_string(checkout().join(&path)).unwrap_or_default());
        let mut section = String::new();
        for (i, line) in manifest.text.lines().enumerate() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_owned();
            }
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let ours = CRATES.iter().any(|(_, other, _)| *other == dependency);
            let composed = name == "server" && dependency == "runner";
            if section == "dependencies" && ours && !allowed.contains(&dependency) && !composed {
                found.push(manifest.at(i + 1, &format!("{name} depends on {dependency}, against the import table")));
            }
        }
    }
    found
}

/// The rooms of the binary `windlass`: it puts everything together, so it may name the library and the runner.
fn is_of_binary(path: &str) -> bool {
    let rooms = ["main", "serve", "cli", "demo"];
    let inside = path.strip_prefix("server/src/").and_then(|rest| rest.split(['/', '.']).next());
    inside.is_some_and(|room| rooms.contains(&room))
}

/// A test that plays a user: it may import nothing of the product.
fn is_outside_test(source: &Source) -> bool {
    source.path == "tests/tests/e2e.rs" || source.path.starts_with("tests/tests/e2e")
}

fn check_inside(source: &Source, root: &str, table: &[(&str, &[&str])], order: &str) -> Vec<Finding> {
    let Some(inside) = source.path.strip_prefix(root) else { return Vec::new() };
    let module = inside.split(['/', '.']).next().unwrap_or_default();
    let forbidden = table.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, forbidden)| forbidden);
    let code = source.code_before_tests();
    let mut found = Vec::new();
    for word in forbidden {
        for at in mentions(code, word) {
            found.push(source.at(source.line_of(at), &format!("{module} names {word}: {order}")));
        }
    }
    // `use crate::{app, store}` names a module without its path.
    for (line, _, text) in
        source.statements("use").into_iter().filter(|(line, ..)| *line <= code.matches('\n').count() + 1)
    {
        let Some(names) = text.strip_prefix("use crate::{") else { continue };
        let first_level = first_level_names(names);
        for word in forbidden.iter().filter_map(|word| word.strip_prefix("crate::")) {
            if first_level.iter().any(|name| name == word) {
                found.push(source.at(line, &format!("{module} names crate::{word}: {order}")));
            }
        }
    }
    found
}

/// The names of `a, b::{c, d}, e::f` on its first level: a, b, e.
fn first_level_names(list: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut depth = 0;
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => {
                if let Some(name) = names.last_mut() {
                    name.push(c);
                }
            }
            _ => {}
        }
    }
    names.iter().filter_map(|name| name.trim().split("::").next().map(|first| first.trim().to_owned())).collect()
}

/// Where `word` stands as the root of a path: `word::x`, `use word;`, `use word as`.
fn mentions(code: &str, word: &str) -> Vec<usize> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = code.as_bytes();
    let hits = code.match_indices(word).map(|(at, _)| at);
    hits.filter(|&at| {
        let rooted = at == 0 || !(is_name(bytes[at - 1]) || bytes[at - 1] == b':' || bytes[at - 1] == b'.');
        let absolute = code[..at].ends_with(" ::");
        let after = &code[at + word.len()..];
        let in_use = code[..at].ends_with("use ") && after.starts_with([';', ' ']);
        let whole_path = word.contains("::") && !after.as_bytes().first().is_some_and(|byte| is_name(*byte));
        (rooted || absolute) && (after.starts_with("::") || in_use || whole_path)
    })
    .collect()
}

/// Where `word` stands as a whole, also at the end of a path.
fn words(code: &str, word: &str) -> Vec<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let hits = code.match_indices(word).map(|(at, _)| at);
    hits.filter(|at| !code[..*at].ends_with(is_name) && !code[at + word.len()..].starts_with(is_name)).collect()
}

/// Whether the file has a module of this name of its own, or imports one from within its crate.
fn declares(code: &str, name: &str) -> bool {
    code.contains(&format!("mod {name};"))
        || code.contains(&format!("mod {name} {{"))
        || ["crate", "self", "super"].iter().any(|root| {
            let start = format!("use {root}::");
            let mut uses = code.match_indices(&start).map(|(at, _)| at);
            uses.any(|at| {
                let end = code[at..].find(';').map_or(code.len(), |end| at + end);
                code[at..end].split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, code: &str) -> Vec<String> {
        check(&Source::new(path, code.to_owned())).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_import_against_the_table_is_found_in_each_spelling() {
        for code in [
            "use runner::Agent;",
            "use ::runner::Agent;",
            "fn f() { runner::start() }",
            "use runner as r;",
            "use runner;",
            "\n\nuse runner::{\n a };",
        ] {
            assert_eq!(found("charts/src/lib.rs", code).len(), 1, "{code}");
            assert_eq!(found("server/src/app/runs.rs", code).len(), 1, "{code}");
        }
        assert!(found("charts/src/lib.rs", "\n\nuse runner::x;")[0].starts_with("charts/src/lib.rs:3: "));
    }

    #[test]
    fn what_only_looks_like_an_import_is_not_found() {
        for code in [
            "// use runner::Agent;",
            "let s = \"runner::x\";",
            "use pipelines::runner::Message;",
            "mod runner;\nfn f() { runner::x() }",
            "use crate::agents::{runner, x};\nfn f() { runner::x() }",
            "fn f(my_runner: u8) {}",
            "#[cfg(test)]\nmod tests {\n use runner::x;\n}",
        ] {
            assert!(found("server/src/app/runs.rs", code).is_empty(), "{code}");
        }
        assert!(found("server/src/main.rs", "use runner::x;").is_empty());
    }

    #[test]
    fn the_server_goes_one_way() {
        assert_eq!(found("server/src/http/api.rs", "use crate::store::Store;").len(), 1);
        assert_eq!(found("server/src/http/api.rs", "use crate::{\n app::runs,\n store::Store,\n};").len(), 1);
        assert_eq!(found("server/src/http/api.rs", "use crate::{app::{store, x}, config};").len(), 0);
        assert_eq!(found("server/src/app.rs", "use axum::Router;").len(), 1);
        assert_eq!(found("server/src/app/runs.rs", "use integrations::docker::Engine;").len(), 1);
        assert_eq!(found("server/src/app/runs.rs", "use crate::store::Store;").len(), 0);
        assert_eq!(found("server/src/store/sled.rs", "use crate::app::App;").len(), 1);
        assert_eq!(found("server/src/driver/mail.rs", "use integrations::mail::Mailer;").len(), 0);
    }

    #[test]
    fn the_core_has_no_clock_and_no_files() {
        assert_eq!(found("pipelines/src/run.rs", "let t = jiff::Timestamp::now();\nstd::fs::read(x);").len(), 2);
        assert_eq!(found("pipelines/src/run.rs", "let t = Timestamp::now();").len(), 1);
        assert_eq!(found("pipelines/src/run.rs", "use tokio::time;").len(), 1);
    }

    #[test]
    fn an_outside_test_imports_only_the_world() {
        assert_eq!(found("tests/tests/e2e/train.rs", "use server::App;").len(), 1);
        assert_eq!(found("tests/tests/e2e/train.rs", "use tests::Gitea;").len(), 0);
        assert_eq!(found("tests/tests/parts/docker.rs", "use integrations::docker::Engine;").len(), 0);
        assert_eq!(found("tests/src/docker.rs", "use integrations::docker::Engine;").len(), 1);
    }
}
