//! The pipeline file `.windlass.yaml`: text → [`Definition`] and everything that is wrong with it, at once.
//! Pure: which file is read, and by whom, is not known here. The base configs live in the `charts` crate.

mod base;
mod diagnostic;
mod layout;
mod lint;
mod model;
mod names;
mod plans;
mod reader;
#[cfg(test)]
mod tests;
mod tree;
mod units;
mod value;

pub use base::{BaseRef, DOCKERFILE_BASE, Version};
pub use diagnostic::{Code, Diagnostic, Place, Severity, render};
pub use layout::{PIPELINE_FOLDER, candidates, file_for};
pub use model::{
    CanaryStep, Check, Definition, Event, Health, ImageBuild, Insufficient, Judge, Network, On, OnFailure, Production,
    SecretUse, Step, Strategy, Test, When,
};
pub use names::{Call, Glob, HostName, HttpPath, ImageName, MailAddress, RepoPath, StepName, VariableName};
pub use units::{AtLeast, AtMost, Share, TIME_SPAN_MAX, TimeSpan, Weight};
pub use value::{ValueError, nearest, quote};

use reader::Lint;
use tree::{Content, Node};

/// What a pipeline file may take at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Size of the file, in bytes.
    pub file_max_bytes: usize,
    /// Levels of nesting.
    pub depth_max: usize,
    /// Scalars, lists and mappings together.
    pub nodes_max: usize,
    /// Problems that are reported; the rest is counted.
    pub diagnostics_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { file_max_bytes: 256 * 1024, depth_max: 32, nodes_max: 20_000, diagnostics_max: 100 }
    }
}

/// Reads and checks a pipeline file. The definition is there exactly when no problem is an error; the problems come in the
/// order of the file.
pub fn parse(file_name: &str, text: &str) -> (Option<Definition>, Vec<Diagnostic>) {
    parse_within(file_name, text, &Limits::default())
}

/// As [`parse`], with limits of one's own.
pub fn parse_within(file_name: &str, text: &str, limits: &Limits) -> (Option<Definition>, Vec<Diagnostic>) {
    let (root, found) = tree::read(text, limits);
    let mut lint = Lint { found };
    let definition = root.and_then(|root| lint::definition(&mut lint, &root, file_name));
    let mut found = lint.found;
    found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    let definition = definition.filter(|_| !found.iter().any(Diagnostic::is_error));
    if found.len() > limits.diagnostics_max {
        let more = found.len() - limits.diagnostics_max;
        // Errors before warnings, so that what stops the pipeline is never what is cut.
        found.sort_by_key(|diagnostic| !diagnostic.is_error());
        found.truncate(limits.diagnostics_max);
        let message = format!("{more} more problems are not shown");
        found.push(Diagnostic::error(Code::TooLarge, Place::default(), message).help("repair these first"));
    }
    for diagnostic in &mut found {
        file_name.clone_into(&mut diagnostic.file);
    }
    (definition, found)
}

/// As [`parse`], of a file's bytes.
pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> (Option<Definition>, Vec<Diagnostic>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file_name, text),
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            let place = Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: 1, span_len: 1 };
            let problem = Diagnostic::error(Code::NotText, place, "the file is not UTF-8 text")
                .help("save the file as UTF-8")
                .in_file(file_name);
            (None, vec![problem])
        }
    }
}

/// The place of a value in a file that [`parse`] took, by its keys and list indexes; for problems that only others can
/// know, such as a chart value that the base config refuses. Where the path leads nowhere: the deepest place on its way.
pub fn place_of(text: &str, path: &[&str]) -> Place {
    let (Some(root), _) = tree::read(text, &Limits::default()) else { return Place::default() };
    let mut place = Place { line: 1, column: 1, span_len: 1 };
    let mut node: &Node = &root;
    for part in path {
        let next = match &node.content {
            Content::Map(entries) => {
                entries.iter().find(|entry| entry.key == *part).map(|entry| (entry.place, &entry.value))
            }
            Content::List(items) => {
                part.parse::<usize>().ok().and_then(|index| items.get(index)).map(|item| (item.place, item))
            }
            Content::Scalar(..) | Content::Refused => None,
        };
        let Some((found, inner)) = next else { return place };
        place = found;
        node = inner;
    }
    // A scalar is pointed at itself, what holds more by its key.
    if matches!(node.content, Content::Scalar(..)) { node.place } else { place }
}

/// The JSON Schema of the pipeline file, for editors and for `windlass schema`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Definition).to_value()
}
