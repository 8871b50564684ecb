//! Text → a tree of nodes that know where they stand. Bounds and the parts of YAML that are refused live here;
//! what the keys mean does not.
//!
//! The tree is built from saphyr's events rather than from its marked nodes: those expand aliases and keep the last
//! of two equal keys, and both must be seen to be refused.

use std::collections::HashMap;

use saphyr::Scalar as SaphyrScalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::Limits;
use super::diagnostic::{Code, Diagnostic, Place};
use super::value::quote;

/// What a plain scalar resolves to by the YAML 1.2 core schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// A scalar: its text as written, and what that resolves to.
    Scalar(String, Kind),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that was refused and reported; readers pass over it.
    Refused,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(self.content, Content::Scalar(_, Kind::Null))
    }

    /// What the node is, for "expected …, found …".
    pub(super) fn describe(&self) -> &'static str {
        match &self.content {
            Content::Scalar(_, Kind::Null) => "nothing",
            Content::Scalar(_, Kind::Bool(_)) => "true or false",
            Content::Scalar(_, Kind::Int(_) | Kind::Float(_)) => "a number",
            Content::Scalar(_, Kind::Text) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
            Content::Refused => "something that was refused",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

/// Reads the text; no tree where it is not well-formed or past a limit.
pub(super) fn read(text: &str, limits: &Limits) -> (Option<Node>, Vec<Diagnostic>) {
    if let Some(problem) = not_readable(text, limits) {
        return (None, vec![problem]);
    }
    let mut builder = Builder::new(text, limits);
    match builder.run(text) {
        Ok(()) => match builder.root.take() {
            Some(root) if !root.is_null() => (Some(root), builder.found),
            _ => (None, vec![empty()]),
        },
        Err(fatal) => {
            builder.found.push(*fatal);
            (None, builder.found)
        }
    }
}

fn empty() -> Diagnostic {
    let place = Place { line: 1, column: 1, span_len: 1 };
    Diagnostic::error(Code::Empty, place, "the file says nothing")
        .help("write at least `service: <name>` and `base: <base config>`, such as `base: static-site@1`")
}

/// Size and characters, checked before the parser sees the text (it takes a NUL for the end of the file).
fn not_readable(text: &str, limits: &Limits) -> Option<Diagnostic> {
    if text.len() > limits.file_max_bytes {
        let place = Place::default();
        return Some(Diagnostic::error(
            Code::TooLarge,
            place,
            format!("the file has {} bytes, more than the {} that are allowed", text.len(), limits.file_max_bytes),
        ));
    }
    let (mut line, mut column) = (1, 1);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let allowed = match character {
            '\n' | '\t' | '\u{85}' => true,
            '\r' => characters.peek() == Some(&'\n'),
            other => !other.is_control(),
        };
        if !allowed {
            let place = Place { line, column, span_len: 1 };
            let message = match character {
                '\r' => "a carriage return without a line feed".to_owned(),
                other => format!("the character U+{:04X} has no place in YAML", u32::from(other)),
            };
            return Some(
                Diagnostic::error(Code::NotText, place, message)
                    .help("save the file as plain UTF-8 text with line feeds"),
            );
        }
        if character == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    None
}

enum Frame {
    List { place: Place, items: Vec<Node> },
    Map { place: Place, entries: Vec<Entry>, key: Option<Node>, seen: HashMap<String, u32> },
}

struct Builder<'t> {
    limits: &'t Limits,
    line_lens: Vec<u32>,
    lines: Vec<&'t str>,
    frames: Vec<Frame>,
    nodes: usize,
    root: Option<Node>,
    found: Vec<Diagnostic>,
}

fn clamp(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl<'t> Builder<'t> {
    fn new(text: &'t str, limits: &'t Limits) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        Builder {
            limits,
            line_lens: lines.iter().map(|line| clamp(line.chars().count())).collect(),
            lines,
            frames: Vec::new(),
            nodes: 0,
            root: None,
            found: Vec::new(),
        }
    }

    fn run(&mut self, text: &str) -> Result<(), Box<Diagnostic>> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|error| Box::new(self.syntax(&error)))?;
            let place = self.place(span);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(Box::new(
                            Diagnostic::error(Code::YamlFeature, place, "the file holds a second YAML document")
                                .help("put each service into a file of its own: `.windlass/<service>.yaml`"),
                        ));
                    }
                }
                Event::Alias(_) => {
                    self.count(place)?;
                    self.found.push(
                        Diagnostic::error(Code::YamlFeature, place, "YAML aliases are not supported")
                            .help("write the value out where it is used"),
                    );
                    self.add(Node { place, content: Content::Refused });
                }
                Event::Scalar(text, style, _, tag) => {
                    self.count(place)?;
                    let content = self.scalar(&text, style, tag.as_deref(), place);
                    self.add(Node { place, content });
                }
                Event::SequenceStart(_, tag) => {
                    self.open(place, tag.as_deref())?;
                    self.frames.push(Frame::List { place, items: Vec::new() });
                }
                Event::MappingStart(_, tag) => {
                    self.open(place, tag.as_deref())?;
                    self.frames.push(Frame::Map { place, entries: Vec::new(), key: None, seen: HashMap::new() });
                }
                Event::SequenceEnd | Event::MappingEnd => match self.frames.pop() {
                    Some(Frame::List { place, items }) => {
                        self.add(Node { place, content: Content::List(items) });
                    }
                    Some(Frame::Map { place, entries, .. }) => {
                        self.add(Node { place, content: Content::Map(entries) });
                    }
                    None => {}
                },
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    fn place(&self, span: Span) -> Place {
        let start = self.position(&span.start);
        let line_end = self.line_lens.get(span.start.line().saturating_sub(1)).copied().unwrap_or(0);
        let end = if span.end.line() == span.start.line() { clamp(span.end.col()) } else { line_end };
        Place { span_len: end.saturating_add(1).saturating_sub(start.column).max(1), ..start }
    }

    /// A mark of the parser as a place in the text: what it puts behind the end of the file stands at the end of the last
    /// line.
    fn position(&self, marker: &Marker) -> Place {
        let last = self.lines.len().saturating_sub(1);
        let index = marker.line().saturating_sub(1);
        let (index, column) = if index > last {
            (last, self.line_lens.get(last).copied().unwrap_or(0).saturating_add(1))
        } else {
            (index, clamp(marker.col()).saturating_add(1))
        };
        Place { line: clamp(index).saturating_add(1), column, span_len: 1 }
    }

    fn count(&mut self, place: Place) -> Result<(), Box<Diagnostic>> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes_max {
            return Err(Box::new(Diagnostic::error(
                Code::TooLarge,
                place,
                format!("the file holds more than {} values", self.limits.nodes_max),
            )));
        }
        Ok(())
    }

    fn open(&mut self, place: Place, tag: Option<&Tag>) -> Result<(), Box<Diagnostic>> {
        self.count(place)?;
        if self.frames.len() >= self.limits.depth_max {
            return Err(Box::new(Diagnostic::error(
                Code::TooLarge,
                place,
                format!("the nesting is deeper than {} levels", self.limits.depth_max),
            )));
        }
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.refuse_tag(tag, place);
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tag: &Tag, place: Place) {
        self.found.push(
            Diagnostic::error(
                Code::YamlFeature,
                place,
                format!("the YAML tag {} is not supported", quote(&tag.to_string())),
            )
            .help("remove the tag, or put the value in quotes if it starts with `!`"),
        );
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Content {
        if let Some(tag) = tag {
            if tag.is_yaml_core_schema() && tag.suffix == "str" {
                return Content::Scalar(text.to_owned(), Kind::Text);
            }
            self.refuse_tag(tag, place);
            return Content::Refused;
        }
        let kind = match SaphyrScalar::parse_from_cow_and_metadata(text.into(), style, None) {
            Some(SaphyrScalar::Null) => Kind::Null,
            Some(SaphyrScalar::Boolean(value)) => Kind::Bool(value),
            Some(SaphyrScalar::Integer(value)) => Kind::Int(value),
            Some(SaphyrScalar::FloatingPoint(value)) => Kind::Float(value.into_inner()),
            Some(SaphyrScalar::String(_)) | None => Kind::Text,
        };
        Content::Scalar(text.to_owned(), kind)
    }

    /// Puts a finished node where it belongs: the root, a list, a key, or the value of the key before it.
    fn add(&mut self, node: Node) {
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, seen, .. }) => {
                let Some(key_node) = key.take() else {
                    *key = Some(node);
                    return;
                };
                let Content::Scalar(name, _) = key_node.content else {
                    if key_node.content != Content::Refused {
                        self.found.push(
                            Diagnostic::error(Code::WrongType, key_node.place, "a key must be text")
                                .help("a value that starts with `{` or `[` needs quotes"),
                        );
                    }
                    return;
                };
                let line = key_node.place.line;
                if let Some(first) = seen.get(&name) {
                    self.found.push(
                        Diagnostic::error(
                            Code::DuplicateKey,
                            key_node.place,
                            format!("the key {} is written twice", quote(&name)),
                        )
                        .why(format!("it stands on line {first} already, and only one can count"))
                        .help("remove one of them, or join their values"),
                    );
                    return;
                }
                seen.insert(name.clone(), line);
                entries.push(Entry { key: name, place: key_node.place, value: node });
            }
        }
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let mut place = self.position(error.marker());
        let index = usize::try_from(place.line).unwrap_or(usize::MAX).saturating_sub(1);
        let line = self.lines.get(index).copied().unwrap_or("");
        let (message, help) = explain(error.info(), line, &mut place);
        let mut diagnostic = Diagnostic::error(Code::Syntax, place, message);
        diagnostic.help = help.map(str::to_owned);
        diagnostic
    }
}

/// A friendlier word for the mistakes that people make most.
fn explain(info: &str, line: &str, place: &mut Place) -> (String, Option<&'static str>) {
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    if let Some(tab) = indent.chars().position(|c| c == '\t') {
        place.column = clamp(tab).saturating_add(1);
        return ("a tab is used for indentation".to_owned(), Some("indent with spaces: YAML does not allow tabs"));
    }
    if let Some(at) = line.find(": >").or_else(|| line.find(":>")) {
        let rest = line[at..].trim_start_matches([':', ' ']);
        if rest.starts_with(">=") || rest.starts_with("> ") || rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            place.column = clamp(line[..line.len() - rest.len()].chars().count()).saturating_add(1);
            place.span_len = 1;
            return (
                "an unquoted `>` starts a block of text".to_owned(),
                Some("put the limit in quotes: `\">= 99%\"`"),
            );
        }
    }
    let help = if info.contains("mapping values are not allowed") {
        Some("check the indentation; a value that holds `: ` needs quotes")
    } else if info.contains("did not find expected key") || info.contains("block mapping") {
        Some("check the indentation: the keys of one mapping start in the same column")
    } else if info.contains("flow") || info.contains("',' or") {
        Some("check that each `[` has its `]`, each `{` its `}`, and that commas stand between")
    } else if info.contains("quoted scalar") {
        Some("check that each quote has its closing quote")
    } else if info.contains("anchor") {
        Some("put a value that starts with `*` or `&` in quotes")
    } else if info.contains("unexpected character") {
        Some("a value that starts with `@`, `` ` `` or `%` needs quotes")
    } else {
        None
    };
    (format!("the file is not valid YAML: {info}"), help)
}
