//! What is left out of a build context: the format of `.dockerignore`, as moby's patternmatcher reads it. Files are not
//! read here.

use globset::{GlobBuilder, GlobMatcher};

/// The most patterns of all files together.
const PATTERNS_MAX: usize = 10_000;

/// Patterns in their order: the last that fits a path, or a folder that it lies in, decides.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<(GlobMatcher, bool)>,
}

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the ignore file is not a pattern: {reason}")]
pub struct IgnoreError {
    line: usize,
    reason: String,
}

impl Ignore {
    /// Adds the patterns of a file after those that are there.
    ///
    /// # Errors
    /// Where a line is no pattern.
    pub fn add(&mut self, text: &str) -> Result<(), IgnoreError> {
        for (index, line) in text.lines().enumerate() {
            // A comment only where the line starts with it, as in moby.
            let line = if index == 0 { line.trim_start_matches('\u{feff}') } else { line };
            if line.starts_with('#') {
                continue;
            }
            let (pattern, exception) = match line.trim().strip_prefix('!') {
                Some(pattern) => (pattern.trim(), true),
                None => (line.trim(), false),
            };
            let pattern = clean(pattern);
            if pattern.is_empty() {
                continue;
            }
            let failed = |reason: String| IgnoreError { line: index + 1, reason };
            if self.patterns.len() == PATTERNS_MAX {
                return Err(failed(format!("there are more than {PATTERNS_MAX}")));
            }
            let glob = GlobBuilder::new(&pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| failed(error.kind().to_string()))?;
            self.patterns.push((glob.compile_matcher(), exception));
        }
        Ok(())
    }

    /// Whether a path, relative and with forward slashes, is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for (matcher, exception) in &self.patterns {
            // Only a pattern that would change the answer has to be asked.
            if excluded == *exception && fits(matcher, path) {
                excluded = !exception;
            }
        }
        excluded
    }

    /// Whether nothing in a folder can be left in, so that it need not be read.
    pub fn excludes_all_of(&self, folder: &str) -> bool {
        self.excludes(folder) && !self.patterns.iter().any(|(_, exception)| *exception)
    }
}

fn fits(matcher: &GlobMatcher, path: &str) -> bool {
    matcher.is_match(path) || path.match_indices('/').any(|(at, _)| matcher.is_match(&path[..at]))
}

/// Without `./`, doubled and outer slashes; `..` cannot lead out of the context, as in Go's `filepath.Clean` of a rooted
/// path. Braces mean themselves.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    joined.chars().flat_map(|c| if matches!(c, '{' | '}') { vec!['[', c, ']'] } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(texts: &[&str]) -> Ignore {
        let mut ignore = Ignore::default();
        for text in texts {
            ignore.add(text).unwrap();
        }
        ignore
    }

    fn left(ignore: &Ignore, paths: &[&str]) -> Vec<String> {
        paths.iter().filter(|path| !ignore.excludes(path)).map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn patterns_are_those_of_dockerignore() {
        let text = "# comment\n\n/build/\n*.log\n**/*.tmp\ndocs/*\n!docs/keep.md\n a.txt \nx{1}\n?b\n";
        let ignore = ignore(&[text]);
        let paths = [
            "build/a",
            "src/build",
            "a.log",
            "src/a.log",
            "src/a.tmp",
            "a.tmp",
            "docs/x",
            "docs/keep.md",
            "a.txt",
            "x{1}",
            "x1",
            "ab",
            "abb",
        ];
        assert_eq!(left(&ignore, &paths), ["src/build", "src/a.log", "docs/keep.md", "x1", "abb"]);
    }

    #[test]
    fn the_last_pattern_that_fits_decides_and_the_repositorys_come_last() {
        let both = ignore(&["**/.*\n!**/.well-known\n", "secret\n!.env\n"]);
        let paths = [".git/config", "a/.env", ".env", ".well-known/x", "secret/a", "index.html"];
        assert_eq!(left(&both, &paths), [".env", ".well-known/x", "index.html"]);
        assert!(!both.excludes_all_of(".git"), "an exception may lie in it");
        assert!(ignore(&["node_modules"]).excludes_all_of("node_modules"));
    }

    #[test]
    fn a_pattern_cannot_be_bad_in_silence() {
        let error = Ignore::default().add("ok\n[a\n").unwrap_err();
        assert!(error.to_string().starts_with("line 2 of the ignore file"), "{error}");
        assert!(ignore(&["../../x\n"]).excludes("x"));
        assert!(!ignore(&["..\n/\n.\n!\n"]).excludes("x"));
    }
}
