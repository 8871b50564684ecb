//! The last lines of the server's own log, in memory, for the support bundle. Bounded in bytes: the oldest go first. Not here:
//! what is logged, and the logs of steps (`log`).

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
};

/// Bytes that are kept until the configuration says how many.
const BYTES_AT_START: usize = 256 << 10;

#[derive(Debug)]
struct Kept {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
}

impl Kept {
    fn trim(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(line) = self.lines.pop_front() else { return };
            self.bytes -= line.len();
        }
    }
}

/// The last lines. Whoever logs writes each line whole, by one call.
#[derive(Debug)]
pub struct LogTail(Mutex<Kept>);

impl Default for LogTail {
    fn default() -> Self {
        Self(Mutex::new(Kept { lines: VecDeque::new(), bytes: 0, bytes_max: BYTES_AT_START }))
    }
}

impl LogTail {
    /// From now on so many bytes are kept.
    pub fn bound(&self, bytes_max: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes_max = bytes_max;
        kept.trim();
    }

    /// What is kept, the oldest line first.
    #[must_use]
    pub fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().map(|line| String::from_utf8_lossy(line)).collect()
    }
}

impl io::Write for &LogTail {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.len();
        kept.lines.push_back(line.to_vec());
        kept.trim();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_oldest_lines_go_when_there_are_too_many() {
        let tail = LogTail::default();
        tail.bound(12);
        for line in ["one\n", "two\n", "three\n"] {
            (&tail).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(tail.text(), "two\nthree\n");
        // One that is too long for all of it leaves nothing.
        (&tail).write_all(&[b'x'; 13]).unwrap();
        assert_eq!(tail.text(), "");
    }
}
