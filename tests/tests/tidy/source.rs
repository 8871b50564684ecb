//! The files of the project as the tidy checks read them: text, and the same text with comments and strings blanked.

use std::{fmt, fs, path::Path};

use tests::parts::checkout;

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 4] = ["target", ".git", "node_modules", "vendor"];

/// A text file of the project. `code` and `comments` have the same length and the same lines as `text`.
pub(crate) struct Source {
    /// Path below the checkout, with `/`.
    pub(crate) path: String,
    /// The whole file.
    pub(crate) text: String,
    /// Without comments and without the content of strings; the whole text where it is not Rust.
    pub(crate) code: String,
    /// Only the comments; the whole text where it is not Rust.
    pub(crate) comments: String,
}

/// Something to put right.
pub(crate) struct Finding {
    path: String,
    line: usize,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

/// All text files of the project.
pub(crate) fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&checkout(), "", &mut found);
    assert!(found.len() > 10, "the checkout was not found");
    found
}

impl Source {
    /// Reads a text.
    pub(crate) fn new(path: &str, text: String) -> Self {
        let (code, comments) = if path.ends_with(".rs") { split(&text) } else { (text.clone(), text.clone()) };
        Self { path: path.to_owned(), text, code, comments }
    }

    /// A finding in this file.
    pub(crate) fn at(&self, line: usize, advice: &str) -> Finding {
        Finding { path: self.path.clone(), line, advice: advice.to_owned() }
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it holds words for people in another language, or text from elsewhere.
    pub(crate) fn is_translation(&self) -> bool {
        let place =
            |folder: &str| self.path.contains(&format!("/{folder}/")) || self.path.ends_with(&format!("/{folder}.rs"));
        place("text") || place("i18n") || self.path.to_ascii_lowercase().contains("zh") || self.path.ends_with(".lock")
    }

    /// Whether it is a test as a whole.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }

    /// The text up to the tests at the end of the file.
    pub(crate) fn before_tests(&self) -> &str {
        &self.text[..self.tests_at()]
    }

    /// The code up to the tests at the end of the file.
    pub(crate) fn code_before_tests(&self) -> &str {
        &self.code[..self.tests_at()]
    }

    /// The line, from 1, of a byte.
    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// Statements that begin with a word: line, what stands before it in its line, text up to the semicolon.
    pub(crate) fn statements(&self, word: &str) -> Vec<(usize, &str, &str)> {
        let starts = self.code.match_indices(&format!("{word} ")).map(|(at, _)| at).collect::<Vec<_>>();
        let mut found = Vec::new();
        for at in starts {
            let line_start = self.code[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let before = &self.code[line_start..at];
            // `use` begins a statement alone or after a visibility; it also ends words, such as the name of an enum.
            let after_visibility = before.trim_start().starts_with("pub") && before.ends_with(' ');
            if before.trim().is_empty() || after_visibility {
                let end = self.code[at..].find(';').map_or(self.code.len(), |end| at + end);
                found.push((self.line_of(at), before, &self.code[at..end]));
            }
        }
        found
    }

    fn tests_at(&self) -> usize {
        if self.is_test() {
            return 0;
        }
        self.code.find("#[cfg(test)]\nmod ").unwrap_or(self.code.len())
    }
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(&entry.path(), &format!("{path}/"), found);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            found.push(Source::new(&path, text));
        }
    }
}

/// Where the reader stands in a Rust file.
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

/// The code with comments and strings blanked, and the comments with everything else blanked.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut code, mut comments) = (blank(bytes), blank(bytes));
    let mut state = State::Code;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let step;
        (state, step) = match state {
            State::Code if rest.starts_with(b"//") => (State::LineComment, 0),
            State::Code if rest.starts_with(b"/*") => (State::BlockComment(0), 0),
            State::Code if rest[0] == b'"' => {
                code[at] = b'"';
                (State::Text, 1)
            }
            State::Code if raw_string(bytes, at).is_some() => {
                let hashes = raw_string(bytes, at).unwrap_or_default();
                (State::RawText(hashes), hashes + 2)
            }
            State::Code => {
                let step = char_literal(rest).unwrap_or(1);
                code[at..at + step].copy_from_slice(&rest[..step]);
                (State::Code, step)
            }
            State::LineComment if rest[0] == b'\n' => (State::Code, 0),
            State::LineComment => {
                comments[at] = rest[0];
                (State::LineComment, 1)
            }
            State::BlockComment(depth) => {
                let (depth, step) = match rest {
                    [b'/', b'*', ..] => (depth + 1, 2),
                    [b'*', b'/', ..] => (depth - 1, 2),
                    _ => (depth, 1),
                };
                comments[at..at + step].copy_from_slice(&rest[..step]);
                (if depth == 0 { State::Code } else { State::BlockComment(depth) }, step)
            }
            State::Text if rest[0] == b'\\' => (State::Text, 2),
            State::Text if rest[0] == b'"' => {
                code[at] = b'"';
                (State::Code, 1)
            }
            State::Text => (State::Text, 1),
            State::RawText(hashes)
                if rest[0] == b'"' && rest[1..].iter().take(hashes).filter(|b| **b == b'#').count() == hashes =>
            {
                (State::Code, hashes + 1)
            }
            State::RawText(hashes) => (State::RawText(hashes), 1),
        };
        at += step;
    }
    (String::from_utf8_lossy(&code).into_owned(), String::from_utf8_lossy(&comments).into_owned())
}

/// Spaces with the same line ends: every place keeps its line and its offset.
fn blank(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|&byte| if byte == b'\n' { byte } else { b' ' }).collect()
}

/// The number of hashes when a raw string begins at its `r`.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b';
    if bytes[at] != b'r' || in_word {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// The length of a character literal; a lifetime is none.
fn char_literal(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'\'', b'\\', _, ..] => rest[3..].iter().take(10).position(|byte| *byte == b'\'').map(|end| end + 4),
        [b'\'', _, ..] => rest[2..].iter().take(4).position(|byte| *byte == b'\'').map(|end| end + 3),
        _ => None,
    }
    .filter(|length| {
        std::str::from_utf8(&rest[1..length - 1]).is_ok_and(|t| t.starts_with('\\') || t.chars().count() == 1)
    })
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "let a = \"// no \\\" todo!\"; // todo! one\nlet b = r#\"todo! \"x\" \"#; /* todo! /* x */ */ let c = '\"';\nf::<'a>('\\'', '字'); todo!()";
    let source = Source::new("x.rs", text.to_owned());
    assert_eq!(source.code.len(), text.len());
    assert_eq!(source.code.lines().count(), 3);
    assert_eq!(source.code.matches("todo!").count(), 1);
    assert!(source.code.contains("let c = '\"';") && source.code.contains("'字'"));
    assert_eq!(source.comments.matches("todo!").count(), 2);
    assert!(!source.comments.contains("let"));
}

#[test]
fn a_statement_is_found_with_its_visibility_and_line() {
    let source = Source::new("x.rs", "//! x\npub(crate) use a::{\n    b,\n    *,\n};\nlet reuse = 1;\n".into());
    let found = source.statements("use");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0, found[0].1.trim()), (2, "pub(crate)"));
    assert!(found[0].2.contains('*'));
}
