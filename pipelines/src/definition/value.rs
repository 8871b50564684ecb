//! What is wrong with one value, and how a user's text is quoted in a message.
//! Where the value stands is added by the reader.

/// Why a text is not a value of the kind that was asked for, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    message: String,
    help: Option<String>,
}

impl ValueError {
    /// What is wrong with a value, and what to write instead.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        ValueError { message: message.into(), help: Some(help.into()) }
    }

    /// What to write instead.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    pub(crate) fn into_parts(self) -> (String, Option<String>) {
        (self.message, self.help)
    }
}

impl From<std::convert::Infallible> for ValueError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// The most characters of a user's text that a message repeats.
const QUOTE_MAX_CHARS: usize = 60;

/// The text in backquotes, cut to a bearable length and without characters that could disturb a terminal or a page.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("`");
    for (index, character) in text.chars().enumerate() {
        if index == QUOTE_MAX_CHARS {
            quoted.push('…');
            break;
        }
        quoted.push(visible(character));
    }
    quoted.push('`');
    quoted
}

/// The character itself, or a stand-in where it has no place in a line of a message.
pub(super) fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        // Bidirectional overrides and isolates could make a message read as something else.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => '\u{fffd}',
        // Line and paragraph separators break a line in some viewers.
        '\u{2028}' | '\u{2029}' | '\u{feff}' => '\u{fffd}',
        other if other.is_control() => '\u{fffd}',
        other => other,
    }
}

/// The candidate that the user most probably meant, if one is near enough.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Distance is quadratic in the length, and no name of ours is that long.
    const WORD_MAX_BYTES: usize = 64;
    if word.len() > WORD_MAX_BYTES {
        return None;
    }
    let word = word.to_lowercase().replace(['-', ' '], "_");
    candidates
        .into_iter()
        .map(|candidate| {
            let plain = candidate.to_lowercase().replace(['-', ' '], "_");
            (strsim::damerau_levenshtein(&word, &plain), candidate)
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_short_and_harmless() {
        assert_eq!(quote("a\u{1b}[31mb\nc"), "`a\u{fffd}[31mb\u{fffd}c`");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), QUOTE_MAX_CHARS + 3);
        assert_eq!(quote("ok\u{202e}evil"), "`ok\u{fffd}evil`");
    }

    #[test]
    fn nearest_finds_typos_and_nothing_far() {
        let keys = ["service", "base", "network", "on"];
        assert_eq!(nearest("servce", keys), Some("service"));
        assert_eq!(nearest("Service", keys), Some("service"));
        assert_eq!(nearest("netwrok", keys), Some("network"));
        assert_eq!(nearest("qqq", keys), None);
        assert_eq!(nearest("blue_green", ["blue-green"]), Some("blue-green"));
    }
}
