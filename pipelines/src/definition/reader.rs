//! Typed reading of the tree: keys of a mapping, texts, numbers, lists, each with the diagnostic that fits when it is not
//! what was asked for. Which keys there are is not known here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::diagnostic::{Code, Diagnostic, Place};
use super::model::SecretUse;
use super::names::VariableName;
use super::tree::{Content, Entry, Kind, Node};
use super::value::{ValueError, nearest, quote};
use crate::ids::{InvalidId, SecretName};

/// The keys of one mapping.
pub(super) struct Shape {
    /// Where it stands, for messages: `` `network` ``, or `the pipeline file`.
    pub(super) what: &'static str,
    /// Keys that work.
    pub(super) keys: &'static [&'static str],
    /// Keys that are planned, and what to do until then.
    pub(super) later: &'static [(&'static str, &'static str)],
}

/// Words of other systems, and ours for them.
const FOREIGN: [(&str, &str); 16] = [
    ("script", "commands"),
    ("run", "commands"),
    ("command", "commands"),
    ("env", "environment"),
    ("variables", "environment"),
    ("needs", "depends_on"),
    ("pipeline", "steps"),
    ("healthcheck", "health"),
    ("health_check", "health"),
    ("approvers", "testers"),
    ("triggers", "on"),
    ("build_args", "args"),
    ("pause", "hold"),
    ("extends", "base"),
    ("source", "name"),
    ("target", "as"),
];

/// The entries of a mapping whose keys are known.
pub(super) struct Fields<'t> {
    /// The key or mark that introduced the mapping.
    pub(super) place: Place,
    entries: Vec<&'t Entry>,
    /// Keys without a value: reported, and so neither missing nor there.
    blank: Vec<&'t str>,
}

impl<'t> Fields<'t> {
    pub(super) fn get(&self, key: &str) -> Option<&'t Entry> {
        self.entries.iter().find(|entry| entry.key == key).copied()
    }

    fn mentions(&self, key: &str) -> bool {
        self.get(key).is_some() || self.blank.contains(&key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.blank.is_empty()
    }
}

/// What was found so far.
pub(super) struct Lint {
    pub(super) found: Vec<Diagnostic>,
}

impl Lint {
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    pub(super) fn bad_value(&mut self, place: Place, error: ValueError) {
        let (message, help) = error.into_parts();
        let mut diagnostic = Diagnostic::error(Code::BadValue, place, message);
        diagnostic.help = help;
        self.report(diagnostic);
    }

    pub(super) fn wrong_type(&mut self, node: &Node, what: &str, expected: &str, help: impl Into<String>) {
        if node.content == Content::Refused {
            return;
        }
        self.report(
            Diagnostic::error(
                Code::WrongType,
                node.place,
                format!("{} must be {expected}, and is {}", quote(what), node.describe()),
            )
            .help(help),
        );
    }

    /// The entries of a mapping; unknown, planned and valueless keys are reported.
    pub(super) fn fields<'t>(&mut self, node: &'t Node, place: Place, shape: &Shape) -> Option<Fields<'t>> {
        let Content::Map(entries) = &node.content else {
            if node.content != Content::Refused {
                let message = format!("{} must be a mapping, and is {}", shape.what, node.describe());
                self.report(
                    Diagnostic::error(Code::WrongType, node.place, message)
                        .help(format!("write keys and values; the keys are {}", list(shape.keys))),
                );
            }
            return None;
        };
        let mut fields = Fields { place, entries: Vec::new(), blank: Vec::new() };
        for entry in entries {
            if !shape.keys.contains(&entry.key.as_str()) {
                self.unknown_key(entry, shape);
            } else if entry.value.is_null() {
                fields.blank.push(&entry.key);
                self.report(
                    Diagnostic::error(Code::MissingKey, entry.place, format!("{} has no value", quote(&entry.key)))
                        .help("write a value, or remove the key to get the default"),
                );
            } else {
                fields.entries.push(entry);
            }
        }
        Some(fields)
    }

    fn unknown_key(&mut self, entry: &Entry, shape: &Shape) {
        let key = entry.key.as_str();
        if let Some((_, instead)) = shape.later.iter().find(|(name, _)| *name == key) {
            self.report(
                Diagnostic::error(Code::NotSupportedYet, entry.place, format!("{} is not supported yet", quote(key)))
                    .why("a key that has no effect would promise what is not done")
                    .help(*instead),
            );
            return;
        }
        let foreign = FOREIGN.iter().find(|(name, ours)| *name == key && shape.keys.contains(ours));
        let meant = foreign.map(|(_, ours)| *ours).or_else(|| nearest(key, shape.keys.iter().copied()));
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the keys here are {}", list(shape.keys)),
        };
        let message = format!("unknown key {} in {}", quote(key), shape.what);
        self.report(Diagnostic::error(Code::UnknownKey, entry.place, message).help(help));
    }

    /// Reports a key that must be there; says so once.
    pub(super) fn required<'t>(&mut self, fields: &Fields<'t>, key: &str, what: &str, help: &str) -> Option<&'t Entry> {
        if !fields.mentions(key) {
            let message = format!("{what} has no {}", quote(key));
            self.report(Diagnostic::error(Code::MissingKey, fields.place, message).help(help));
        }
        fields.get(key)
    }

    /// A text with a rule.
    pub(super) fn text<T: FromStr>(&mut self, node: &Node, what: &str) -> Option<T>
    where
        T::Err: Into<ValueError>,
    {
        let Content::Scalar(text, kind) = &node.content else {
            self.wrong_type(node, what, "text", "write one value");
            return None;
        };
        // The rule is asked first: what it says of `120` helps more than "must be text".
        let parsed = match text.parse::<T>() {
            Ok(value) => value,
            Err(error) => {
                self.bad_value(node.place, error.into());
                return None;
            }
        };
        if *kind != Kind::Text {
            let message = format!("{} must be text, and is {}", quote(what), node.describe());
            self.report(
                Diagnostic::error(Code::WrongType, node.place, message)
                    .why("without quotes YAML reads this as something else than text")
                    .help(format!("put it in quotes: `\"{text}\"`")),
            );
            return None;
        }
        Some(parsed)
    }

    /// One text, or a list of them.
    pub(super) fn texts<T: FromStr>(&mut self, node: &Node, what: &str, max: usize) -> Vec<(T, Place)>
    where
        T::Err: Into<ValueError>,
    {
        match &node.content {
            Content::List(items) => {
                if items.len() > max {
                    self.too_many(node, what, max);
                    return Vec::new();
                }
                items.iter().filter_map(|item| self.text(item, what).map(|value| (value, item.place))).collect()
            }
            Content::Scalar(..) => self.text(node, what).map(|value| (value, node.place)).into_iter().collect(),
            Content::Map(_) => {
                self.wrong_type(node, what, "a list of texts", "write a list, such as `[one, two]`");
                Vec::new()
            }
            Content::Refused => Vec::new(),
        }
    }

    pub(super) fn too_many(&mut self, node: &Node, what: &str, max: usize) {
        let message = format!("{} has more than {max} entries", quote(what));
        self.report(Diagnostic::error(Code::TooLarge, node.place, message));
    }

    /// A whole number in a range.
    pub(super) fn integer(&mut self, node: &Node, what: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let help = format!("write a whole number from {} to {}", range.start(), range.end());
        match &node.content {
            Content::Scalar(_, Kind::Int(value)) if range.contains(value) => Some(*value),
            Content::Scalar(text, Kind::Int(_)) => {
                let message = format!("{} is {}, which is out of range", quote(what), quote(text));
                self.report(Diagnostic::error(Code::BadValue, node.place, message).help(help));
                None
            }
            Content::Scalar(text, Kind::Text) => {
                // `10%` and `"10"` are what people write most.
                let number = text.trim_end_matches('%').trim().parse::<i64>().ok().filter(|n| range.contains(n));
                let help = number.map_or(help, |number| format!("write only the number: `{number}`"));
                self.wrong_type(node, what, "a whole number", help);
                None
            }
            _ => {
                self.wrong_type(node, what, "a whole number", help);
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Content::Scalar(_, Kind::Bool(value)) = &node.content {
            return Some(*value);
        }
        self.wrong_type(node, what, "true or false", "write `true` or `false`");
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let Content::Scalar(text, _) = &node.content else {
            self.wrong_type(node, what, "one word", format!("write one of {}", list(&words)));
            return None;
        };
        let found = choices.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        if found.is_none() {
            let help = match nearest(text, words.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write one of {}", list(&words)),
            };
            let message = format!("{} is no {}", quote(text), quote(what));
            self.report(Diagnostic::error(Code::BadValue, node.place, message).help(help));
        }
        found
    }

    /// A list of anything; a single mapping is told to be one.
    pub(super) fn items<'t>(&mut self, node: &'t Node, what: &str, max: usize) -> &'t [Node] {
        match &node.content {
            Content::List(items) if items.len() > max => self.too_many(node, what, max),
            Content::List(items) => return items,
            _ => self.wrong_type(node, what, "a list", "put `- ` before each entry"),
        }
        &[]
    }

    /// Variables and their values: numbers and booleans are taken as they are written. What comes `from_secret` goes to
    /// `secrets`; without that it is refused.
    pub(super) fn variables(
        &mut self,
        node: &Node,
        what: &str,
        (max, value_max_bytes): (usize, usize),
        mut secrets: Option<&mut Vec<(SecretUse, Place)>>,
    ) -> BTreeMap<VariableName, String> {
        let mut variables = BTreeMap::new();
        let Content::Map(entries) = &node.content else {
            self.wrong_type(node, what, "a mapping", "write names and values, such as `{MODE: fast}`");
            return variables;
        };
        if entries.len() > max {
            self.too_many(node, what, max);
            return variables;
        }
        for entry in entries {
            let name = match entry.key.parse::<VariableName>() {
                Ok(name) => name,
                Err(error) => {
                    self.bad_value(entry.place, error);
                    continue;
                }
            };
            match &entry.value.content {
                Content::Scalar(_, Kind::Null) => self.report(
                    Diagnostic::error(Code::MissingKey, entry.place, format!("{} has no value", quote(&entry.key)))
                        .help("write a value, or `\"\"` for an empty one"),
                ),
                Content::Scalar(text, _) if text.len() > value_max_bytes => self.report(Diagnostic::error(
                    Code::TooLarge,
                    entry.value.place,
                    format!("the value of {} is longer than {value_max_bytes} bytes", quote(&entry.key)),
                )),
                Content::Scalar(text, _) => {
                    variables.insert(name, text.clone());
                }
                Content::Map(inner) if inner.iter().any(|inner| inner.key == "from_secret") => match &mut secrets {
                    Some(secrets) => {
                        let found = from_secret(self, &entry.value, name);
                        secrets.extend(found.map(|found| (found, entry.place)));
                    }
                    None => self.report(
                        Diagnostic::error(Code::BadValue, entry.value.place, "a build argument cannot be a secret")
                            .why("whoever pulls the image can read its arguments and all of its layers")
                            .help("do what needs the secret in a step; the build finds the files that it leaves"),
                    ),
                },
                _ => self.wrong_type(&entry.value, &entry.key, "text", "write one value"),
            }
        }
        variables
    }
}

const FROM_SECRET: Shape = Shape { what: "a value", keys: &["from_secret"], later: &[] };

fn from_secret(lint: &mut Lint, node: &Node, variable: VariableName) -> Option<SecretUse> {
    let fields = lint.fields(node, node.place, &FROM_SECRET)?;
    let NamedSecret(name) = lint.text(&fields.get("from_secret")?.value, "from_secret")?;
    Some(SecretUse { name, variable: Some(variable) })
}

/// A secret's name, with words for a place in a file; the rule itself is that of the id.
pub(super) struct NamedSecret(pub(super) SecretName);

impl FromStr for NamedSecret {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(NamedSecret).map_err(|error: InvalidId| {
            ValueError::new(format!("{} is not the name of a secret", quote(text)), error.why)
        })
    }
}

/// The words in backquotes, with commas.
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
