//! Every word that a person reads, in English and simplified Chinese: the two macros that keep both side by side,
//! the clock that sentences tell the time by, and figures. Not here: data (names, commit text, digests), which is never translated.

mod accounts;
mod approvals;
mod audit;
mod figures;
mod load;
mod mail;
mod nouns;
mod rollouts;
mod runners;
mod runs;
mod secrets;
mod sentences;
mod services;

use jiff::tz::TimeZone;

pub use figures::{Count, Millis};

/// A language that every page and mail exists in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Simplified Chinese.
    ZhCn,
}

impl Lang {
    /// Both languages, in the order of the menu.
    pub const ALL: [Self; 2] = [Self::En, Self::ZhCn];

    /// The BCP 47 tag, for `<html lang>`, cookies and settings.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::ZhCn => "zh-CN",
        }
    }

    /// The other language, which the header offers.
    pub const fn other(self) -> Self {
        match self {
            Self::En => Self::ZhCn,
            Self::ZhCn => Self::En,
        }
    }

    /// The language's own name for itself.
    pub const fn own_name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::ZhCn => "中文",
        }
    }

    /// Reads a tag as a cookie or a form holds it; only exact tags count.
    pub fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lang| lang.tag() == tag)
    }

    /// Chooses by an `Accept-Language` header: the known language with the highest weight, English where none is known.
    ///
    /// RFC 9110, section 12.5.4; any `zh` counts as simplified Chinese.
    pub fn from_accept_language(header: &str) -> Self {
        let mut best = (0.0_f32, Self::En);
        for part in header.split(',').take(32) {
            let mut fields = part.split(';');
            let tag = fields.next().unwrap_or_default().trim().to_ascii_lowercase();
            let weight = fields
                .find_map(|field| field.trim().strip_prefix("q="))
                .map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or(0.0));
            let lang = match tag.split('-').next() {
                Some("zh") => Self::ZhCn,
                Some("en") => Self::En,
                _ => continue,
            };
            if weight > best.0 {
                best = (weight, lang);
            }
        }
        best.1
    }
}

/// The moment and the zone that a page or mail tells the time by.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Now, in milliseconds since 1970 UTC.
    pub now_ms: i64,
    /// The zone of every absolute time on the page; the footer names it.
    pub zone: TimeZone,
}

/// The catalogue: one method per string or sentence, each with both languages, so that a missing one does not compile.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    lang: Lang,
    clock: &'a Clock,
}

impl<'a> Text<'a> {
    /// The catalogue of one language, telling the time by one clock.
    pub const fn new(lang: Lang, clock: &'a Clock) -> Self {
        Self { lang, clock }
    }

    /// The language of this catalogue.
    pub const fn lang(&self) -> Lang {
        self.lang
    }

    /// The tag of the language, for `lang` attributes.
    pub const fn tag(&self) -> &'static str {
        self.lang.tag()
    }
}

/// Fixed words: `name: "English", "中文";`.
macro_rules! words {
    ($($name:ident: $en:literal, $zh:literal;)*) => {
        impl crate::http::ui::text::Text<'_> {
            $(
                #[doc = concat!("“", $en, "”")]
                pub fn $name(&self) -> &'static str {
                    match self.lang() {
                        crate::http::ui::text::Lang::En => $en,
                        crate::http::ui::text::Lang::ZhCn => $zh,
                    }
                }
            )*
        }
    };
}

/// Sentences with arguments: `name(t, n: u64) => English expression, Chinese expression;`, `t` being the catalogue.
macro_rules! phrases {
    ($($name:ident($t:ident $(, $arg:ident: $ty:ty)*) => $en:expr, $zh:expr;)*) => {
        impl crate::http::ui::text::Text<'_> {
            $(
                #[doc = concat!("The sentence `", stringify!($name), "`.")]
                pub fn $name(&self $(, $arg: $ty)*) -> String {
                    let $t = self;
                    match $t.lang() {
                        crate::http::ui::text::Lang::En => String::from($en),
                        crate::http::ui::text::Lang::ZhCn => String::from($zh),
                    }
                }
            )*
        }
    };
}
pub(crate) use {phrases, words};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_known_language_wins() {
        assert_eq!(Lang::from_accept_language("zh-CN,zh;q=0.9,en;q=0.8"), Lang::ZhCn);
        assert_eq!(Lang::from_accept_language("de, en;q=0.5, zh-TW;q=0.7"), Lang::ZhCn);
        assert_eq!(Lang::from_accept_language("en-GB"), Lang::En);
        assert_eq!(Lang::from_accept_language("zh;q=0, fr"), Lang::En);
        assert_eq!(Lang::from_accept_language(";;q=x,,"), Lang::En);
    }

    #[test]
    fn a_tag_reads_back() {
        for lang in Lang::ALL {
            assert_eq!(Lang::from_tag(lang.tag()), Some(lang));
            assert_ne!(lang.other(), lang);
        }
        assert_eq!(Lang::from_tag("zh"), None);
    }
}
