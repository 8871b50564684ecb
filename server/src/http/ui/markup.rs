//! Markup that was written by us and is not escaped again; text enters it escaped only.

use std::fmt;

use askama::filters::HtmlSafe;

/// HTML that is safe to put into a page as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Markup(String);

impl Markup {
    /// Markup known when the server is built.
    pub(crate) fn known(html: &'static str) -> Self {
        Self(String::from(html))
    }

    /// Appends markup that is known when the server is built.
    pub(crate) fn raw(&mut self, html: &'static str) {
        self.0.push_str(html);
    }

    /// Appends text, escaped for element content and for quoted attributes.
    pub(crate) fn text(&mut self, text: &str) {
        for c in text.chars() {
            self.char(c);
        }
    }

    /// Appends one character, escaped.
    pub(crate) fn char(&mut self, c: char) {
        match c {
            '&' => self.0.push_str("&amp;"),
            '<' => self.0.push_str("&lt;"),
            '>' => self.0.push_str("&gt;"),
            '"' => self.0.push_str("&quot;"),
            '\'' => self.0.push_str("&#39;"),
            c => self.0.push(c),
        }
    }

    /// Appends figures, which cannot hold anything to escape.
    pub(crate) fn figures(&mut self, figures: fmt::Arguments<'_>) {
        self.text(&figures.to_string());
    }

    /// Appends other markup.
    pub(crate) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    /// The markup.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An icon of the sprite that stands in every page, hidden from screen readers because a word stands beside it.
    pub(crate) fn icon(name: &'static str, class: &'static str) -> Self {
        let mut icon = Self::known("<svg class=\"m");
        if !class.is_empty() {
            icon.raw(" ");
            icon.raw(class);
        }
        icon.raw("\" aria-hidden=\"true\"><use href=\"#i-");
        icon.raw(name);
        icon.raw("\"/></svg>");
        icon
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Markup {}

/// An icon, for templates.
pub(crate) fn icon(name: &'static str) -> Markup {
    Markup::icon(name, "")
}

/// An icon with a class, for templates.
pub(crate) fn icon_in(name: &'static str, class: &'static str) -> Markup {
    Markup::icon(name, class)
}
