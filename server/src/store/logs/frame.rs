//! How a line lies in the file: length, checksum, number, time, kind, text. Knows no files but to read frames.
//!
//! `len: u32 | crc32: u32 | line: u32 | time_ms: u64 | kind: u8 | text`, little endian; `len` counts from `line` on,
//! which is also what the checksum covers. The number in the frame tells a frame of this place from one that a
//! failed write left behind.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{LogLine, Stream};

const HEAD_BYTES: usize = 8;
const FIXED_BYTES: usize = 13;
const CHUNK_BYTES: usize = 64 << 10;
/// No frame is longer: a length above it is damage, not a reason to ask for memory.
pub(super) const FRAME_BYTES: usize = 16 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Line(Stream),
    /// The line that says that the log is full: always the last line.
    Full,
    /// No line: the step has ended.
    End,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Line(Stream::Out) => 0,
            Kind::Line(Stream::Err) => 1,
            Kind::Line(Stream::Note) => 2,
            Kind::Full => 3,
            Kind::End => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Kind::Line(Stream::Out),
            1 => Kind::Line(Stream::Err),
            2 => Kind::Line(Stream::Note),
            3 => Kind::Full,
            4 => Kind::End,
            _ => return None,
        })
    }
}

/// Appends a frame to a buffer.
pub(super) fn encode(out: &mut Vec<u8>, line: u64, time_ms: u64, kind: Kind, text: &str) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    // The bounds keep both far below 2^32.
    out.extend_from_slice(&u32::try_from(line).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&time_ms.to_le_bytes());
    out.push(kind.byte());
    out.extend_from_slice(text.as_bytes());
    let body = &out[start + HEAD_BYTES..];
    let (len, crc) = (u32::try_from(body.len()).unwrap_or(u32::MAX), checksum(body));
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// What a line's frame occupies.
pub(super) fn frame_bytes(text: &str) -> u64 {
    (HEAD_BYTES + FIXED_BYTES + text.len()) as u64
}

pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A frame that was read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) line: LogLine,
}

/// What comes next in a file.
#[derive(Debug)]
pub(super) enum Next {
    Frame(Frame),
    /// Nothing: the end of what may be read.
    End,
    /// Something that is no frame of this place.
    Damaged,
}

/// Reads frames one after another.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    file: &'a File,
    /// Where the next frame starts.
    pub(super) offset: u64,
    /// Which line it is.
    pub(super) line: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Where the buffer starts in the file.
    buffer_at: u64,
}

impl<'a> Frames<'a> {
    /// Frames from `offset`, where `line` starts, up to `end`.
    pub(super) fn new(file: &'a File, offset: u64, line: u64, end: u64) -> Self {
        Frames { file, offset, line, end, buffer: Vec::new(), buffer_at: offset }
    }

    /// The next frame; the position moves past it only if it is whole.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        if self.offset >= self.end {
            return Ok(Next::End);
        }
        if !self.fill(HEAD_BYTES)? {
            return Ok(Next::Damaged);
        }
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
        let head = self.at(0, HEAD_BYTES);
        let (len, crc) = (number(&head[..4]) as usize, number(&head[4..]));
        if !(FIXED_BYTES..=FRAME_BYTES).contains(&len) || !self.fill(HEAD_BYTES + len)? {
            return Ok(Next::Damaged);
        }
        let body = self.at(HEAD_BYTES, len);
        let (Some(kind), Ok(text)) = (Kind::from_byte(body[12]), std::str::from_utf8(&body[FIXED_BYTES..])) else {
            return Ok(Next::Damaged);
        };
        if checksum(body) != crc || u64::from(number(&body[..4])) != self.line {
            return Ok(Next::Damaged);
        }
        let time_ms = body[4..12].try_into().map_or(0, u64::from_le_bytes);
        let stream = if let Kind::Line(stream) = kind { stream } else { Stream::Note };
        let line = LogLine { time_ms, stream, text: text.to_owned() };
        self.offset += (HEAD_BYTES + len) as u64;
        self.line += u64::from(kind != Kind::End);
        Ok(Next::Frame(Frame { kind, line }))
    }

    /// Makes `count` bytes from the position on available, if the file has them.
    fn fill(&mut self, count: usize) -> io::Result<bool> {
        if self.offset + count as u64 > self.end {
            return Ok(false);
        }
        let have = self.buffer_at + self.buffer.len() as u64;
        if self.offset + count as u64 > have {
            let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
            self.buffer.resize(count.max(CHUNK_BYTES).min(left), 0);
            self.buffer_at = self.offset;
            self.file.read_exact_at(&mut self.buffer, self.offset)?;
        }
        Ok(true)
    }

    fn at(&self, skip: usize, count: usize) -> &[u8] {
        // `fill` has put the position into the buffer.
        let start = usize::try_from(self.offset - self.buffer_at).unwrap_or(usize::MAX) + skip;
        &self.buffer[start..start + count]
    }
}
