//! A span as it is told, before it is put into anybody's format. Not here: which there are (`life`).

use pipelines::time::UnixMs;

use super::ids::{SpanId, TraceId};

/// Characters of a name or text; what is longer is cut.
const TEXT_CHARS_MAX: usize = 256;

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody asked for it.
    Server,
    /// It is work of the server itself.
    Internal,
    /// It is a call to somebody else.
    Client,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(bounded(text))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// Another span that has to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its trace.
    pub trace: TraceId,
    /// It.
    pub span: SpanId,
    /// What it is to the span: `windlass.link`.
    pub what: &'static str,
}

/// One thing that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its id.
    pub id: SpanId,
    /// What it is a part of; none: it is the whole.
    pub parent: Option<SpanId>,
    /// Its name.
    pub name: String,
    /// Its side.
    pub kind: Kind,
    /// When it began.
    pub start: UnixMs,
    /// When it ended.
    pub end: UnixMs,
    /// When the server knew of its end: what a runner tells is known later than it happened.
    pub known_at: UnixMs,
    /// What it says, by the names of the semantic conventions.
    pub attributes: Vec<(&'static str, Value)>,
    /// The word of what went wrong.
    pub error: Option<&'static str>,
    /// What it has to do with.
    pub links: Vec<Link>,
}

impl Span {
    /// With an attribute.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// With one, where there is one.
    #[must_use]
    pub(super) fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The text of an attribute.
    #[cfg(test)]
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|(known, value)| match value {
            Value::Text(text) if *known == name => Some(text.as_str()),
            _ => None,
        })
    }
}

/// A text that somebody else may have written, fit to be told.
pub(super) fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}
