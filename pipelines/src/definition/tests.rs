//! Tests of the pipeline file as a whole: the examples, the printed problems, the published schema, and text that nobody
//! would write. The rules of single values are tested beside them.

mod fuzz;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};

use super::{Code, Definition, Diagnostic, Limits, parse, parse_bytes, parse_within, place_of, render};

fn files(folder: &Path) -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(!paths.is_empty(), "no examples in {}", folder.display());
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn examples() -> Vec<(String, String)> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples"))
}

fn bad_files() -> Vec<(String, String)> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/definition/tests/bad"))
}

fn good(text: &str) -> Definition {
    let (definition, found) = parse(".windlass.yaml", text);
    assert!(found.is_empty(), "{}", render(&found, text));
    definition.unwrap()
}

fn codes(text: &str) -> Vec<Code> {
    parse(".windlass.yaml", text).1.iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn every_example_is_read_without_a_word() {
    for (name, text) in examples() {
        let (definition, found) = parse(".windlass.yaml", &text);
        assert!(found.is_empty(), "{name}:\n{}", render(&found, &text));
        assert!(definition.is_some(), "{name}");
    }
}

#[test]
fn every_bad_file_is_told_all_of_its_problems() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("tests/bad");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, text) in bad_files() {
            let (definition, found) = parse(".windlass.yaml", &text);
            assert_eq!(definition.is_none(), found.iter().any(Diagnostic::is_error), "{name}");
            assert!(!found.is_empty(), "{name}");
            insta::assert_snapshot!(name, render(&found, &text));
        }
    });
}

#[test]
fn a_definition_reads_back_from_its_own_json() {
    for (name, text) in examples() {
        let definition = good(&text);
        let json = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&json).unwrap(), definition, "{name}");
        // JSON is YAML: what is stored is also a pipeline file that means the same.
        assert_eq!(good(&json), definition, "{name}");
    }
}

#[test]
fn what_is_left_out_gets_the_documented_default() {
    let definition = good("service: a\nbase: static-site\ntest: {testers: a@b.c}\n");
    let json = serde_json::to_value(&definition).unwrap();
    let expected = serde_json::json!({
        "service": "a",
        "base": "static-site",
        "network": { "health": { "timeout": "30s" } },
        "steps": [],
        "image": { "context": "." },
        "values": {},
        "test": { "testers": ["a@b.c"], "approvals": 1, "expires": "72h" },
        "production": { "strategy": "rolling" },
    });
    assert_eq!(json, expected);
    let canary = good("service: a\nbase: static-site\ntest: {testers: a@b.c}\nproduction: {strategy: canary}\n");
    let json = serde_json::to_value(&canary.production).unwrap();
    let expected = serde_json::json!({
        "strategy": "canary",
        "steps": [{ "weight": 10, "hold": "2m" }, { "weight": 50, "hold": "5m" }],
        "checks": [{ "success_rate": ">= 99%" }],
    });
    assert_eq!(json, expected);
}

#[test]
fn a_step_waits_for_the_one_before_unless_it_says_otherwise() {
    let text = "service: a\nbase: dockerfile\ntest: {testers: a@b.c}\nsteps:\n\
                - {name: one, image: i, commands: c}\n\
                - {name: two, image: i, commands: c}\n\
                - {name: three, image: i, commands: c, depends_on: []}\n\
                - {name: four, image: i, commands: c, depends_on: [one, three]}\n";
    let depends: Vec<Vec<String>> =
        good(text).steps.iter().map(|step| step.depends_on.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(depends, [vec![], vec!["one"], vec![], vec!["one", "three"]]);
}

#[test]
fn the_file_in_the_folder_is_named_after_its_service() {
    let text = "service: checkout\nbase: dockerfile\ntest: {testers: a@b.c}\n";
    assert!(parse(".windlass/checkout.yaml", text).0.is_some());
    let (definition, found) = parse(".windlass/payments.yaml", text);
    assert!(definition.is_none());
    assert_eq!(found[0].code, Code::Conflict);
    assert_eq!((found[0].line, found[0].column, found[0].span_len), (1, 10, 8));
    assert_eq!(found[0].file, ".windlass/payments.yaml");
}

#[test]
fn a_file_past_a_limit_is_refused_and_not_read() {
    let limits = Limits { file_max_bytes: 100, ..Limits::default() };
    let (definition, found) = parse_within("f", &"#".repeat(101), &limits);
    assert!(definition.is_none() && found[0].code == Code::TooLarge);
    for bomb in ["[".repeat(200), "- ".repeat(200), "{a: ".repeat(200)] {
        assert_eq!(codes(&bomb), [Code::TooLarge], "{}", &bomb[..10]);
    }
    let many = format!("values: [{}]", "1,".repeat(30_000));
    assert_eq!(codes(&many), [Code::TooLarge]);
    let laughs = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n";
    assert!(codes(laughs).contains(&Code::YamlFeature));
}

#[test]
fn many_problems_are_cut_with_a_word() {
    let keys: String = (0..500).map(|n| format!("unknown{n}: 1\n")).collect();
    let (_, found) = parse("f", &keys);
    // 500 unknown keys, two missing ones, and the warning about testers.
    assert_eq!(found.len(), Limits::default().diagnostics_max + 1);
    assert_eq!(found.last().unwrap().message, "403 more problems are not shown");
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_line() {
    let (definition, found) = parse_bytes("f", b"service: a\nbase: \xff\n");
    assert!(definition.is_none());
    assert_eq!((found[0].code, found[0].line), (Code::NotText, 2));
    assert_eq!(codes("service: a\0b\n"), [Code::NotText]);
    assert_eq!(codes("service: a\rbase: b\r"), [Code::NotText]);
    assert!(good("\u{feff}service: a\r\nbase: dockerfile\r\ntest: {testers: a@b.c}\r\n").on.is_none());
}

#[test]
fn a_file_of_marks_alone_says_nothing_and_its_problem_lies_inside() {
    for text in ["---", "--- ", "\n---", "---\n...\n", "# only a comment", "~", "\n\n"] {
        let (definition, found) = parse("f", text);
        assert!(definition.is_none());
        assert_eq!(found.iter().map(|d| d.code).collect::<Vec<_>>(), [Code::Empty], "{text:?}");
        assert_eq!(found[0].line, 1);
    }
    // A value that is missing at the very end stands at the end of the last line.
    let (_, found) = parse("f", "service: a\nbase: b\nsteps:\n-");
    assert!(found.iter().all(|diagnostic| diagnostic.line <= 4), "{found:?}");
}

#[test]
fn a_place_is_found_by_its_path() {
    let text = "service: a\nvalues:\n  env:\n    MODE: fast\n  list: [1, two]\n";
    let at = |path: &[&str]| {
        let place = place_of(text, path);
        (place.line, place.column, place.span_len)
    };
    assert_eq!(at(&["values", "env", "MODE"]), (4, 11, 4));
    assert_eq!(at(&["values", "list", "1"]), (5, 13, 3));
    assert_eq!(at(&["values", "env"]), (3, 3, 3));
    // A path that leads nowhere ends at the last place that is there.
    assert_eq!(at(&["values", "replicas"]), (2, 1, 6));
    assert_eq!(place_of("[", &["a"]).line, 0);
}
