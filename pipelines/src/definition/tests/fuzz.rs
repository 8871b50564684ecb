//! Text that nobody would write: whatever it is, the reader answers, its places lie in the text, and it can be printed.

use proptest::prelude::*;

use super::{Diagnostic, bad_files, examples, parse, parse_bytes, render};

fn answers(text: &str) {
    let (definition, found) = parse(".windlass.yaml", text);
    assert_eq!(definition.is_some(), !found.iter().any(super::Diagnostic::is_error), "{text:?}");
    let printed = render(&found, text);
    assert!(!printed.contains('\u{1b}'), "a control character came through: {printed:?}");
    let lines = u32::try_from(text.lines().count()).unwrap();
    for diagnostic in &found {
        assert!(diagnostic.line <= lines.max(1), "{diagnostic:?} lies outside of {text:?}");
        assert!(!diagnostic.message.is_empty());
    }
    if let Some(definition) = definition {
        // What was taken can be stored and read again.
        let json = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<super::Definition>(&json).unwrap(), definition);
    }
}

fn corpus() -> Vec<String> {
    examples().into_iter().chain(bad_files()).map(|(_, text)| text).collect()
}

/// Pieces that mean something to YAML or to us.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\n".to_owned()),
        Just(": ".to_owned()),
        Just("- ".to_owned()),
        Just("  ".to_owned()),
        "[\\[\\]{},:?&*!|>'\"%@`#\\t\\r\\\\-]",
        "(service|base|on|steps|values|production|weight|<<|---|\\.\\.\\.|&a|\\*a|!!str|!x|~|null|0x1F|1e999|\\.nan|\\.inf)",
        "\\PC{0,3}",
        any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gets_an_answer(text in "(?s).{0,200}") {
        answers(&text);
    }

    #[test]
    fn any_yaml_like_text_gets_an_answer(pieces in prop::collection::vec(piece(), 0..60)) {
        answers(&pieces.concat());
    }

    #[test]
    fn any_changed_file_gets_an_answer(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..8, piece()), 1..6),
    ) {
        let files = corpus();
        let mut text: Vec<char> = files[which.index(files.len())].chars().collect();
        for (at, removed, added) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            text.splice(start..end, added.chars());
        }
        answers(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_line_may_be_missing_or_twice(which in any::<prop::sample::Index>(), line in any::<prop::sample::Index>(), twice: bool) {
        let files = corpus();
        let mut lines: Vec<&str> = files[which.index(files.len())].lines().collect();
        prop_assume!(!lines.is_empty());
        let index = line.index(lines.len());
        if twice { lines.insert(index, lines[index]); } else { lines.remove(index); }
        answers(&lines.join("\n"));
    }
}

#[test]
fn fuzz_definition() {
    let samples: Vec<String> = examples().into_iter().chain(bad_files()).map(|(_, text)| text).collect();
    let samples: Vec<&[u8]> = samples.iter().map(String::as_bytes).collect();
    let words =
        ["service: ", "base: ", "steps:\n  - ", "production: ", "strategy: canary", "weight: ", "hold: ", "72h"];
    ::fuzz::feed("definition", &samples, &words, |bytes| {
        let (definition, found) = parse_bytes(".windlass.yaml", bytes);
        let errors: Vec<&Diagnostic> = found.iter().filter(|problem| problem.is_error()).collect();
        if definition.is_some() != errors.is_empty() {
            return Err(format!("a definition: {}, and {} errors", definition.is_some(), errors.len()));
        }
        let shown = render(&found, &String::from_utf8_lossy(bytes));
        if shown.is_empty() != found.is_empty() {
            return Err("a problem is not shown".into());
        }
        if shown.chars().any(|c| c.is_control() && c != '\n') {
            return Err("what is shown would be obeyed by a terminal".into());
        }
        let again = parse_bytes(".windlass.yaml", bytes);
        if again.0.is_some() != definition.is_some() || again.1.len() != found.len() {
            return Err("the same file is read in two ways".into());
        }
        Ok(errors.first().map_or_else(|| "taken".into(), |problem| format!("{:?}", problem.code)))
    });
}
