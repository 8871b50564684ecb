//! The forms in which a secret may appear in the output of a program: as it is, in base64 at any offset, and as URLs,
//! JSON and a shell write it. Not here: how they are found in a stream.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use pipelines::secret::{HIDDEN_BYTES_MIN, hidden_lines};

/// Longer lines of a secret are matched in parts.
const MAX_PART_BYTES: usize = 512;
/// The shortest piece of base64 that is matched: what comes of the shortest secret at the worst offset.
const MIN_ENCODED_BYTES: usize = 4;

/// Characters besides letters and digits that an encoder of URLs leaves as they are, and what it makes of a space.
const URL_ENCODERS: [(&[u8], &str); 7] = [
    // RFC 3986, section 2.3.
    (b"-._~", "%20"),
    // Python's `quote`, and whatever encodes a path.
    (b"-._~/", "%20"),
    // `encodeURIComponent`.
    (b"-._~!*'()", "%20"),
    // `encodeURI`.
    (b"-._~!*'();,/?:@&=+$#", "%20"),
    // A user or password in a URL: RFC 3986, section 3.2.1.
    (b"-._~!*'();,&=+$", "%20"),
    // A form: URL Standard, section 5.2; and Python's `quote_plus`.
    (b"-._*", "+"),
    (b"-._~", "+"),
];

/// Every form in which a secret is matched. A secret of several lines (a key) is matched line by line, and in base64 also
/// as a whole.
pub(super) fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for line in hidden_lines(secret) {
        for part in parts(line) {
            forms.push(part.as_bytes().to_vec());
            base64_forms(part, &mut forms);
            for (kept, space) in URL_ENCODERS {
                forms.push(percent(part, kept, space, false));
                forms.push(percent(part, kept, space, true));
            }
            json_forms(part, &mut forms);
            forms.push(part.replace('\'', r"'\''").into_bytes());
        }
    }
    if secret.trim().contains('\n') {
        parts(secret).into_iter().for_each(|part| base64_forms(part, &mut forms));
    }
    forms.sort();
    forms.dedup();
    forms
}

/// A long text in parts of about the same length, none of them too short to be matched.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while rest.len() > MAX_PART_BYTES + HIDDEN_BYTES_MIN {
        let mut end = MAX_PART_BYTES;
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, tail) = rest.split_at(end);
        parts.push(part);
        rest = tail;
    }
    parts.push(rest);
    parts
}

fn base64_forms(part: &str, forms: &mut Vec<Vec<u8>>) {
    for offset in 0..3 {
        for text in encoded(part.as_bytes(), offset) {
            // Base64 within a URL or a form.
            if text.iter().any(|byte| matches!(byte, b'+' | b'/')) {
                let text = String::from_utf8_lossy(&text);
                forms.extend([false, true].map(|lower| percent(&text, b"-_", "%20", lower)));
            }
            forms.push(text);
        }
    }
}

/// The characters of base64 that come from the secret alone when `offset` bytes stand before it.
pub(super) fn encoded(part: &[u8], offset: usize) -> Vec<Vec<u8>> {
    let mut bytes = vec![0; offset];
    bytes.extend_from_slice(part);
    let from = (8 * offset).div_ceil(6);
    let to = 8 * bytes.len() / 6;
    [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)]
        .into_iter()
        .filter_map(|text| text.as_bytes().get(from..to).map(<[u8]>::to_vec))
        .filter(|text| text.len() >= MIN_ENCODED_BYTES)
        .collect()
}

fn percent(part: &str, kept: &[u8], space: &str, lower: bool) -> Vec<u8> {
    let mut text = String::new();
    for byte in part.bytes() {
        let written = match byte {
            b' ' => text.write_str(space),
            _ if byte.is_ascii_alphanumeric() || kept.contains(&byte) => text.write_char(char::from(byte)),
            _ if lower => write!(text, "%{byte:02x}"),
            _ => write!(text, "%{byte:02X}"),
        };
        // Writing into memory does not fail.
        written.ok();
    }
    text.into_bytes()
}

/// How a writer of JSON treats what need not be escaped.
#[derive(Clone, Copy, Default)]
struct Json {
    /// `/` becomes `\/` (PHP).
    slashes: bool,
    /// Everything but ASCII becomes `\uXXXX` (Python, PHP).
    ascii: bool,
    /// `<`, `>` and `&` become `\u003c` and so on (Go).
    html: bool,
}

fn json_forms(part: &str, forms: &mut Vec<Vec<u8>>) {
    let plain = Json::default();
    let writers = [
        plain,
        Json { ascii: true, ..plain },
        Json { slashes: true, ..plain },
        Json { slashes: true, ascii: true, ..plain },
        Json { html: true, ..plain },
    ];
    forms.extend(writers.map(|writer| json(part, writer)));
}

fn json(part: &str, writer: Json) -> Vec<u8> {
    let mut text = String::new();
    for c in part.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '/' if writer.slashes => text.push_str("\\/"),
            '<' | '>' | '&' if writer.html => escape(&mut text, c),
            _ if c.is_control() && c.is_ascii() && c != '\u{7f}' => escape(&mut text, c),
            _ if writer.ascii && !c.is_ascii() => escape(&mut text, c),
            _ => text.push(c),
        }
    }
    text.into_bytes()
}

fn escape(text: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing into memory does not fail.
        write!(text, "\\u{unit:04x}").ok();
    }
}
