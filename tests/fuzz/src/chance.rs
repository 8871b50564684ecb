//! Chance from a seed, and what it does to texts and JSON values.

use serde_json::{Value, json};

/// Pieces that parsers stumble over.
const PIECES: [&str; 40] = [
    "\0",
    "\u{feff}",
    "\u{2028}",
    "\u{202e}",
    "\u{10ffff}",
    "é",
    "😀",
    "\t",
    "\r",
    "\r\n",
    "---\n",
    "...\n",
    "&a [*a]",
    "*a",
    "<<: *a",
    "!!binary x",
    "!<tag:x>",
    "? ",
    ": ",
    "- - - - ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "1e999",
    "-9223372036854775809",
    "0x",
    "~",
    "%YAML 9.9\n",
    "${X:-$(y)}",
    "%00",
    "%2e%2e%2f",
    "../",
    "//",
    "\u{1b}[31m",
    "<script>",
];

/// Numbers that look like chance and are the same for the same seed (splitmix64).
pub struct Chance(u64);

impl Chance {
    /// Begins with a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next of them.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % bound).unwrap_or(0)
    }

    /// One of some things.
    pub fn one_of<'t, T: ?Sized>(&mut self, things: &'t [&'t T]) -> &'t T {
        things[self.below(things.len())]
    }

    /// The text with some changes to its bytes and lines.
    pub fn change_text(&mut self, text: &str) -> Vec<u8> {
        self.change_bytes(text.as_bytes(), &[])
    }

    fn piece<'t>(&mut self, words: &[&'t str]) -> &'t str {
        if words.is_empty() || self.below(3) == 0 { self.one_of(&PIECES) } else { words[self.below(words.len())] }
    }

    /// The bytes with some changes; `words` are pieces that mean something to whoever reads them.
    pub fn change_bytes(&mut self, text: &[u8], words: &[&str]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        for _ in 0..=self.below(6) {
            let (from, to) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            match self.below(8) {
                0 => bytes.truncate(to),
                1 => drop(bytes.drain(from..to.min(from + 20))),
                2 => {
                    let piece = self.piece(words);
                    bytes.splice(from..from, piece.bytes());
                }
                3 => {
                    let piece = self.piece(words).repeat(1 + self.below(200));
                    bytes.splice(from..to.min(from + 5), piece.bytes());
                }
                4 => {
                    let again = bytes[from..to].to_vec();
                    bytes.splice(to..to, again);
                }
                5 if from < bytes.len() => bytes[from] ^= 1 << self.below(8),
                _ => bytes = self.change_lines(&bytes, words),
            }
            bytes.truncate(1 << 20);
        }
        bytes
    }

    fn change_lines(&mut self, bytes: &[u8], words: &[&str]) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let (one, other) = (self.below(lines.len()), self.below(lines.len()));
        match self.below(5) {
            0 => drop(lines.remove(one)),
            1 => lines.swap(one, other),
            2 => lines.insert(other, lines[one].clone()),
            3 => lines[one].splice(0..0, b"  ".iter().copied()).for_each(drop),
            _ => {
                // Another value under the same key.
                let colon = lines[one].iter().position(|byte| *byte == b':').map_or(0, |at| at + 1);
                lines[one].truncate(colon);
                let piece = self.piece(words);
                lines[one].extend(b" ".iter().chain(piece.as_bytes()));
            }
        }
        lines.join(&b'\n')
    }

    /// Changes one value somewhere inside.
    pub fn change_json(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) if !fields.is_empty() && self.below(4) > 0 => {
                let keys: Vec<String> = fields.keys().cloned().collect();
                let key = &keys[self.below(keys.len())];
                match self.below(8) {
                    0 => drop(fields.remove(key)),
                    1 => {
                        let taken = fields.remove(key).unwrap_or_default();
                        fields.insert(self.one_of(&PIECES).to_owned(), taken);
                    }
                    _ => self.change_json(&mut fields[key.as_str()]),
                }
            }
            Value::Array(items) if !items.is_empty() && self.below(4) > 0 => {
                let at = self.below(items.len());
                self.change_json(&mut items[at]);
            }
            Value::String(text) if self.below(2) == 0 => {
                *text = String::from_utf8_lossy(&self.change_text(text)).into_owned();
            }
            other => *other = self.odd(),
        }
    }

    fn odd(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(u64::MAX),
            4 => json!(1e308),
            5 => json!(""),
            6 => json!([]),
            7 => json!({}),
            8 => json!("x".repeat(1 + self.below(50_000))),
            9 => (0..self.below(200)).fold(json!(0), |inner, _| json!([inner])),
            10 => json!(format!("{:040x}", self.number())),
            _ => json!(self.one_of(&PIECES)),
        }
    }
}
