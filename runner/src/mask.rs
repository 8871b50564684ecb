//! Secrets out of the output of steps: as they are, in base64 at any offset, and as URLs carry them; also where a
//! program writes them in parts or breaks them over lines. Which texts are secret is decided by the server.
//!
//! One [`Secrets`] is shared by all steps of a run; each stream has a [`LineMasker`] of its own. Matching goes byte by
//! byte (Aho and Corasick, 1975) and does not see ends of lines; a line is given out when no secret that began in it
//! can still be completed.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use pipelines::protocol::Secret;

/// What stands in the place of a secret, whatever its length.
pub const MASK: &str = "***";
/// Shorter texts are not masked: they are in every second line, and the mask would tell where.
pub const MIN_SECRET_BYTES: usize = 4;
/// Longer lines of a secret are matched in parts.
const MAX_PATTERN_BYTES: usize = 512;
/// The shortest piece of base64 that is matched.
const MIN_ENCODED_BYTES: usize = 6;
/// All secrets of a run together; what is above it is not matched, and the server does not hand out as much.
const MAX_NODES: usize = 1 << 20;
/// Of a secret that was begun and waits for its rest, so much may be shown when the program pauses.
const SHOWN_PREFIX_BYTES: usize = 3;

/// The secrets of a run, ready for matching.
#[derive(Debug, Clone)]
pub struct Secrets {
    nodes: Arc<Vec<Node>>,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by byte.
    next: Vec<(u8, u32)>,
    /// Node of the longest proper suffix that is a beginning of a pattern.
    fail: u32,
    /// Bytes from the root.
    depth: u32,
    /// Longest pattern that ends here, in bytes; 0 for none.
    matched: u32,
}

impl Secrets {
    /// Takes the secrets with all the forms in which they may appear.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut nodes = vec![Node::default()];
        for secret in secrets {
            for pattern in forms(secret.expose()) {
                insert(&mut nodes, &pattern);
            }
        }
        link(&mut nodes);
        Self { nodes: Arc::new(nodes) }
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        child(&self.nodes, node, byte)
    }

    fn step(&self, mut node: u32, byte: u8) -> u32 {
        loop {
            match self.child(node, byte) {
                Some(next) => return next,
                None if node == 0 => return 0,
                None => node = self.nodes[node as usize].fail,
            }
        }
    }

    /// Masks one whole text, such as the reason of a failure.
    pub fn mask(&self, text: &str) -> String {
        let mut masker = LineMasker::new(self.clone(), usize::MAX);
        let mut lines = Vec::new();
        for line in text.split('\n') {
            masker.push(line.as_bytes(), true, (), &mut lines);
        }
        masker.finish(&mut lines);
        lines.into_iter().map(|line| line.text).collect::<Vec<_>>().join("\n")
    }
}

fn child(nodes: &[Node], node: u32, byte: u8) -> Option<u32> {
    let next = &nodes[node as usize].next;
    next.binary_search_by_key(&byte, |entry| entry.0).ok().map(|at| next[at].1)
}

fn insert(nodes: &mut Vec<Node>, pattern: &[u8]) {
    if nodes.len() + pattern.len() > MAX_NODES {
        return;
    }
    let mut node = 0;
    for (depth, byte) in (1..).zip(pattern) {
        node = match child(nodes, node, *byte) {
            Some(next) => next,
            None => {
                let made = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
                nodes.push(Node { depth, ..Node::default() });
                let next = &mut nodes[node as usize].next;
                let at = next.partition_point(|entry| entry.0 < *byte);
                next.insert(at, (*byte, made));
                made
            }
        };
    }
    nodes[node as usize].matched = nodes[node as usize].depth;
}

/// Breadth first, so that a node's suffixes are linked before it.
fn link(nodes: &mut [Node]) {
    let mut queue: VecDeque<u32> = nodes[0].next.iter().map(|entry| entry.1).collect();
    while let Some(node) = queue.pop_front() {
        for (byte, next) in nodes[node as usize].next.clone() {
            queue.push_back(next);
            let mut fail = nodes[node as usize].fail;
            let target = loop {
                match child(nodes, fail, byte) {
                    Some(target) => break target,
                    None if fail == 0 => break 0,
                    None => fail = nodes[fail as usize].fail,
                }
            };
            nodes[next as usize].fail = target;
            let matched = nodes[next as usize].matched.max(nodes[target as usize].matched);
            nodes[next as usize].matched = matched;
        }
    }
}

/// Every form in which a secret is matched. A secret of several lines (a key) is matched line by line.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for line in secret.lines().map(str::trim) {
        // The frame of a PEM file is no secret.
        if line.len() < MIN_SECRET_BYTES || line.starts_with("-----") {
            continue;
        }
        for part in line.as_bytes().chunks(MAX_PATTERN_BYTES) {
            if part.len() < MIN_SECRET_BYTES {
                continue;
            }
            forms.push(part.to_vec());
            for offset in 0..3 {
                forms.extend(encoded(part, offset));
            }
            forms.push(percent(part, false));
            forms.push(percent(part, true));
            forms.push(String::from_utf8_lossy(part).replace('\\', r"\\").replace('"', "\\\"").into_bytes());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// The characters of base64 that come from the secret alone when `offset` bytes stand before it.
fn encoded(part: &[u8], offset: usize) -> Vec<Vec<u8>> {
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

fn percent(part: &[u8], lower: bool) -> Vec<u8> {
    let mut text = String::new();
    for byte in part {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else if lower {
            text.push_str(&format!("%{byte:02x}"));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text.into_bytes()
}

/// Makes lines of a stream and takes the secrets out. `T` is what is known of a line, such as its time.
#[derive(Debug)]
pub struct LineMasker<T> {
    secrets: Secrets,
    max_line_bytes: usize,
    node: u32,
    lines: VecDeque<Line<T>>,
    ended: u64,
}

/// A line without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedLine<T> {
    /// What was said of it when it began.
    pub about: T,
    /// Its text, without the end of the line.
    pub text: String,
    /// Its length before anything was masked: the same whenever the same stream is read again.
    pub raw_bytes: usize,
}

#[derive(Debug)]
struct Line<T> {
    about: T,
    bytes: Vec<u8>,
    /// One for each byte.
    masked: Vec<bool>,
    ended: bool,
}

impl<T: Clone> LineMasker<T> {
    /// A masker for one stream; longer lines are cut.
    pub fn new(secrets: Secrets, max_line_bytes: usize) -> Self {
        Self { secrets, max_line_bytes: max_line_bytes.max(1), node: 0, lines: VecDeque::new(), ended: 0 }
    }

    /// Takes a part of the stream and gives out the lines that are safe.
    pub fn push(&mut self, bytes: &[u8], ends_line: bool, about: T, out: &mut Vec<MaskedLine<T>>) {
        self.open_line(&about);
        for byte in bytes {
            if self.lines.back().is_some_and(|line| line.bytes.len() >= self.max_line_bytes) {
                self.end_line();
                self.open_line(&about);
            }
            if let Some(line) = self.lines.back_mut() {
                line.bytes.push(*byte);
                line.masked.push(false);
            }
            self.node = self.secrets.step(self.node, *byte);
            let matched = self.secrets.nodes[self.node as usize].matched;
            if matched > 0 {
                self.mark(matched as usize, 0);
            }
        }
        if ends_line {
            self.end_line();
        }
        self.give(self.depth(), out);
    }

    /// How many lines have ended so far, whether they were given out or not.
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// Whether lines wait for what comes next. After a pause, [`LineMasker::pause`] gives them out.
    pub fn waits(&self) -> bool {
        self.lines.front().is_some_and(|line| line.ended)
    }

    /// The program pauses: gives out all lines that have ended. What may be the beginning of a secret is masked in them.
    pub fn pause(&mut self, out: &mut Vec<MaskedLine<T>>) {
        let depth = self.depth();
        let open = self.lines.back().filter(|line| !line.ended).map_or(0, |line| line.bytes.len());
        if depth > open + SHOWN_PREFIX_BYTES {
            self.mark(depth - open, open);
        }
        self.give(0, out);
    }

    /// The stream has ended: gives out everything. Bytes behind the last end of a line are a line.
    pub fn finish(&mut self, out: &mut Vec<MaskedLine<T>>) {
        if self.lines.back().is_some_and(|line| line.bytes.is_empty() && !line.ended) {
            self.lines.pop_back();
        }
        self.end_line();
        self.give(0, out);
        self.node = 0;
    }

    /// Bytes at the end of what was seen that may be the beginning of a secret.
    fn depth(&self) -> usize {
        self.secrets.nodes[self.node as usize].depth as usize
    }

    fn open_line(&mut self, about: &T) {
        if self.lines.back().is_none_or(|line| line.ended) {
            let about = about.clone();
            self.lines.push_back(Line { about, bytes: Vec::new(), masked: Vec::new(), ended: false });
        }
    }

    fn end_line(&mut self) {
        if let Some(line) = self.lines.back_mut()
            && !line.ended
        {
            line.ended = true;
            self.ended += 1;
        }
    }

    /// Masks `count` bytes backwards, after the last `skip`, over the ends of lines. Bytes that were given out are gone.
    fn mark(&mut self, mut count: usize, mut skip: usize) {
        for line in self.lines.iter_mut().rev() {
            for masked in line.masked.iter_mut().rev() {
                if skip > 0 {
                    skip -= 1;
                } else if count == 0 {
                    return;
                } else {
                    *masked = true;
                    count -= 1;
                }
            }
        }
    }

    /// Gives out the ended lines that do not reach into the last `held` bytes.
    fn give(&mut self, held: usize, out: &mut Vec<MaskedLine<T>>) {
        let mut behind: usize = self.lines.iter().map(|line| line.bytes.len()).sum();
        while let Some(line) = self.lines.front() {
            behind -= line.bytes.len();
            if !line.ended || behind < held {
                return;
            }
            if let Some(line) = self.lines.pop_front() {
                let text = text_of(&line);
                out.push(MaskedLine { text, raw_bytes: line.bytes.len(), about: line.about });
            }
        }
    }
}

fn text_of<T>(line: &Line<T>) -> String {
    let mut bytes = Vec::with_capacity(line.bytes.len());
    let mut before = false;
    for (byte, masked) in line.bytes.iter().zip(&line.masked) {
        if !masked {
            bytes.push(*byte);
        } else if !before {
            bytes.extend_from_slice(MASK.as_bytes());
        }
        before = *masked;
    }
    let text = String::from_utf8_lossy(&bytes);
    mask_url_password(text.trim_end_matches('\r'))
}

/// `scheme://user:anything@host` → `scheme://user:***@host`, whoever put it there.
fn mask_url_password(text: &str) -> String {
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        rest = tail;
        let end = tail.find(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace() || c == '"' || c == '\'');
        let authority = &tail[..end.unwrap_or(tail.len())];
        let Some((user, _)) = authority.rsplit_once('@').and_then(|(login, _)| login.split_once(':')) else {
            continue;
        };
        let host = authority.rfind('@').unwrap_or(0);
        out.push_str(user);
        out.push(':');
        out.push_str(MASK);
        out.push_str(&authority[host..]);
        rest = &tail[authority.len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secrets(texts: &[&str]) -> Secrets {
        let secrets: Vec<_> = texts.iter().map(|text| Secret::new(*text)).collect();
        Secrets::new(&secrets)
    }

    fn run(secrets: &Secrets, parts: &[(&[u8], bool)]) -> Vec<String> {
        let mut masker = LineMasker::new(secrets.clone(), 100_000);
        let mut out = Vec::new();
        for (bytes, ends) in parts {
            masker.push(bytes, *ends, (), &mut out);
        }
        masker.finish(&mut out);
        out.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_secret_is_masked_in_every_form() {
        let secrets = secrets(&["p@ss w\"rd/1"]);
        let basic = base64::engine::general_purpose::STANDARD.encode("user:p@ss w\"rd/1");
        for (text, expected) in [
            ("x p@ss w\"rd/1 y", "x *** y"),
            ("x p%40ss%20w%22rd%2F1 y", "x *** y"),
            ("x p%40ss%20w%22rd%2f1 y", "x *** y"),
            (r#"{"a":"p@ss w\"rd/1"}"#, r#"{"a":"***"}"#),
        ] {
            assert_eq!(secrets.mask(text), expected);
        }
        let masked = secrets.mask(&format!("Authorization: Basic {basic}"));
        assert!(masked.contains(MASK) && masked.len() < 40, "{masked}");
    }

    #[test]
    fn a_password_in_a_url_is_masked_though_nobody_said_so() {
        let none = secrets(&[]);
        assert_eq!(none.mask("get https://u:pw@host/x?a=b://c"), "get https://u:***@host/x?a=b://c");
        assert_eq!(none.mask("a://b:c@d e://f:g@h"), "a://b:***@d e://f:***@h");
        assert_eq!(none.mask("http://host:80/a@b"), "http://host:80/a@b");
        assert_eq!(none.mask("git@host:a/b"), "git@host:a/b");
    }

    #[test]
    fn a_secret_broken_over_lines_is_masked_in_each() {
        let secrets = secrets(&["0123456789abcdef"]);
        let lines = run(&secrets, &[(b"x 01234567", true), (b"89abc", true), (b"def y", true)]);
        assert_eq!(lines, ["x ***", "***", "*** y"]);
    }

    #[test]
    fn overlapping_and_nested_secrets_leave_nothing() {
        let secrets = secrets(&["abcdef", "cdefgh", "bcde"]);
        assert_eq!(secrets.mask("xabcdefghy abcde"), "x***y a***");
    }

    #[test]
    fn a_line_is_not_held_longer_than_a_pause() {
        let secrets = secrets(&["secret-word"]);
        let mut masker = LineMasker::new(secrets, 1000);
        let mut out = Vec::new();
        masker.push(b"plain", true, 1, &mut out);
        let line = |out: &Vec<MaskedLine<u32>>, n: usize| (out[n].about, out[n].text.clone());
        assert_eq!(line(&out, 0), (1, "plain".to_owned()));
        masker.push(b"it is se", true, 2, &mut out);
        assert!(masker.waits() && out.len() == 1);
        masker.pause(&mut out);
        assert_eq!(line(&out, 1), (2, "it is se".to_owned()), "two letters are no secret yet");
        masker.push(b"cret-word!", true, 3, &mut out);
        assert_eq!(line(&out, 2), (3, "***!".to_owned()), "its rest is masked all the same");
        masker.push(b"secret-w", true, 4, &mut out);
        masker.pause(&mut out);
        assert_eq!(line(&out, 3), (4, "***".to_owned()));
    }

    #[test]
    fn a_key_is_masked_line_by_line_but_not_its_frame() {
        let key = "-----BEGIN KEY-----\nAAAABBBBCCCC\nDDDDEEEEFFFF\n-----END KEY-----\n";
        assert_eq!(secrets(&[key]).mask(key.trim_end()), "-----BEGIN KEY-----\n***\n***\n-----END KEY-----");
    }

    #[test]
    fn long_lines_are_cut_and_a_secret_over_the_cut_is_masked() {
        let mut masker = LineMasker::new(secrets(&["secret"]), 8);
        let mut out = Vec::new();
        masker.push(b"aaaaasecretbbbb", true, (), &mut out);
        let lines: Vec<_> = out.into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["aaaaa***", "***bbbb"]);
    }

    proptest! {
        /// However the stream is cut into writes and lines, and whatever stands around it, neither the secret nor its
        /// base64 is in the output; and what is not secret is all there.
        #[test]
        fn no_cut_lets_a_secret_through(
            secret in "[A-Za-z0-9!+/=_-]{8,40}",
            before in "[a-z ]{0,20}",
            after in "[a-z ]{0,20}",
            encode in any::<bool>(),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..6),
        ) {
            prop_assume!(!before.contains(&secret) && !after.contains(&secret));
            let secrets = secrets(&[&secret]);
            let middle = if encode {
                base64::engine::general_purpose::STANDARD.encode(format!("{before}{secret}{after}"))
            } else {
                secret.clone()
            };
            let text = if encode { middle.clone() } else { format!("{before}{middle}{after}") };
            let mut at: Vec<_> = cuts.iter().map(|(index, ends)| (index.index(text.len() + 1), *ends)).collect();
            at.sort_unstable();
            let mut parts = Vec::new();
            let mut from = 0;
            for (to, ends) in at {
                parts.push((&text.as_bytes()[from..to], ends));
                from = to;
            }
            parts.push((&text.as_bytes()[from..], true));
            let joined = run(&secrets, &parts).concat();
            prop_assert!(!joined.contains(&secret), "{joined}");
            if encode {
                // At most the two characters at each end that are shared with the neighbours are left.
                let inner = encoded(secret.as_bytes(), before.len() % 3);
                for form in inner {
                    prop_assert!(!joined.contains(&String::from_utf8_lossy(&form).into_owned()), "{joined}");
                }
            } else {
                let plain = joined.replace(MASK, "");
                let expected = format!("{before}{after}");
                // The neighbours may by chance continue the secret's own letters; then less is left.
                prop_assert!(plain == expected || expected.len() > plain.len(), "{plain:?} {expected:?}");
            }
        }

        #[test]
        fn text_without_secrets_is_unchanged(lines in prop::collection::vec("[a-z0-9 .-]{0,30}", 1..20)) {
            let secrets = secrets(&["ZZZZ-not-here"]);
            let parts: Vec<_> = lines.iter().map(|line| (line.as_bytes(), true)).collect();
            prop_assert_eq!(run(&secrets, &parts), lines);
        }
    }
}
