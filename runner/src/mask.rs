//! Secrets out of the output of steps, in every form that [`forms`] knows; also where a program writes them in parts or
//! breaks them over lines. Which texts are secret is decided by the server.
//!
//! One [`Secrets`] is shared by all steps of a run; each stream has a [`LineMasker`] of its own. Matching goes byte by
//! byte (Aho and Corasick, 1975) and does not see ends of lines; a line is given out when no secret that began in it
//! can still be completed.

mod forms;

use std::collections::VecDeque;
use std::sync::Arc;

use pipelines::protocol::Secret;

use forms::forms;

/// What stands in the place of a secret, whatever its length.
pub const MASK: &str = "***";
/// All secrets of a run together, in nodes of 20 bytes: some 50 of them for each byte of a secret at worst.
const MAX_NODES: usize = 1 << 22;
/// Of a secret that was begun and waits for its rest, so much may be shown when the program pauses.
const SHOWN_PREFIX_BYTES: usize = 3;
/// No node.
const NONE: u32 = u32::MAX;

/// The secrets are too large to be hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secrets of the run are too large together to be hidden in its logs; name fewer or shorter ones")]
pub struct TooLarge;

/// The secrets of a run, ready for matching.
#[derive(Debug, Clone)]
pub struct Secrets {
    trie: Arc<Trie>,
}

/// A node; its children are a chain of siblings, for nearly all nodes have one child, and none is worth an allocation.
#[derive(Debug, Clone, Copy)]
struct Node {
    first_child: u32,
    sibling: u32,
    /// Node of the longest proper suffix that is a beginning of a pattern.
    fail: u32,
    /// Bytes from the root.
    depth: u16,
    /// Longest pattern that ends here, in bytes; 0 for none.
    matched: u16,
    byte: u8,
}

#[derive(Debug)]
struct Trie {
    nodes: Vec<Node>,
    /// The children of the root: every byte of a log that is no secret comes by here.
    root: [u32; 256],
}

impl Secrets {
    /// Takes the secrets with all the forms in which they may appear.
    ///
    /// # Errors
    /// Where they are too large: nothing is hidden in part without a word.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Result<Self, TooLarge> {
        let mut trie = Trie { nodes: Vec::new(), root: [NONE; 256] };
        trie.add_node(0, 0);
        for secret in secrets {
            for pattern in forms(secret.expose()) {
                trie.insert(&pattern)?;
            }
        }
        trie.link();
        trie.nodes.shrink_to_fit();
        Ok(Self { trie: Arc::new(trie) })
    }

    fn node(&self, node: u32) -> &Node {
        &self.trie.nodes[node as usize]
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

impl Trie {
    fn add_node(&mut self, byte: u8, depth: u16) -> u32 {
        let made = u32::try_from(self.nodes.len()).unwrap_or(NONE);
        self.nodes.push(Node { first_child: NONE, sibling: NONE, fail: 0, depth, matched: 0, byte });
        made
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        if node == 0 {
            return Some(self.root[usize::from(byte)]).filter(|child| *child != NONE);
        }
        let mut child = self.nodes[node as usize].first_child;
        while child != NONE {
            let found = &self.nodes[child as usize];
            if found.byte == byte {
                return Some(child);
            }
            child = found.sibling;
        }
        None
    }

    fn insert(&mut self, pattern: &[u8]) -> Result<(), TooLarge> {
        if self.nodes.len() + pattern.len() > MAX_NODES {
            return Err(TooLarge);
        }
        let length = u16::try_from(pattern.len()).map_err(|_| TooLarge)?;
        let mut node = 0;
        for (depth, byte) in (1..=length).zip(pattern) {
            node = match self.child(node, *byte) {
                Some(next) => next,
                None => {
                    let made = self.add_node(*byte, depth);
                    self.nodes[made as usize].sibling = self.nodes[node as usize].first_child;
                    self.nodes[node as usize].first_child = made;
                    if node == 0 {
                        self.root[usize::from(*byte)] = made;
                    }
                    made
                }
            };
        }
        self.nodes[node as usize].matched = length;
        Ok(())
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

    /// Breadth first, so that a node's suffixes are linked before it.
    fn link(&mut self) {
        let mut queue = VecDeque::from([0]);
        while let Some(node) = queue.pop_front() {
            let mut next = self.nodes[node as usize].first_child;
            while next != NONE {
                queue.push_back(next);
                let Node { byte, sibling, matched, .. } = self.nodes[next as usize];
                let target = if node == 0 { 0 } else { self.step(self.nodes[node as usize].fail, byte) };
                let longer = matched.max(self.nodes[target as usize].matched);
                self.nodes[next as usize].fail = target;
                self.nodes[next as usize].matched = longer;
                next = sibling;
            }
        }
    }
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
            self.node = self.secrets.trie.step(self.node, *byte);
            let matched = self.secrets.node(self.node).matched;
            if matched > 0 {
                self.mark(usize::from(matched), 0);
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
        usize::from(self.secrets.node(self.node).depth)
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
mod tests;
