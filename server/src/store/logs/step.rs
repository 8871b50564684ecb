//! The log of one step: one file that only grows, its index, and the flush that those who wait share.
//!
//! Three states of the file's end: what is written (`Writer`), what is flushed (`Flush::done`, acknowledged), and
//! what readers see (`Visible`, the same as flushed). A flush that fails takes the written part back to the flushed
//! one, so nothing that was refused is there later.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use super::frame::{Frames, Kind, Next, checksum, encode, frame_bytes};
use super::run::Used;
use super::{Found, Length, LogConfig, LogError, LogLine, NumberedLine};

#[derive(Debug)]
pub(super) struct Step {
    stem: PathBuf,
    config: LogConfig,
    file: File,
    used: Arc<Mutex<Used>>,
    writer: Mutex<Writer>,
    flush: Mutex<Flush>,
    flushed: Condvar,
    visible: RwLock<Visible>,
}

/// How far a file is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    bytes: u64,
    lines: u64,
    /// The line that the sender sends next: ahead of `lines` once the log is full.
    next_line: u64,
    full: bool,
    finished: bool,
}

impl Position {
    fn length(self) -> Length {
        // The line that says that the log is full is none of the sender's.
        let kept = self.lines - u64::from(self.full);
        Length { lines: self.lines, next_line: self.next_line, dropped: self.next_line - kept, finished: self.finished }
    }
}

#[derive(Debug)]
struct Writer {
    at: Position,
    /// Where every n-th line starts, of those written and not yet flushed.
    new_index: Vec<u64>,
    /// The file may be longer than `at` says: cut it before anything is written.
    longer: bool,
    /// Counts the flushes that failed: what was written before one is gone.
    failures: u64,
}

#[derive(Debug)]
struct Flush {
    done: Position,
    running: bool,
    failures: u64,
    last_error: Option<LogError>,
}

#[derive(Debug)]
struct Visible {
    at: Position,
    index: Vec<u64>,
}

impl Step {
    /// A new, empty one.
    pub(super) fn create(stem: &Path, config: LogConfig, used: Arc<Mutex<Used>>) -> Result<Self, LogError> {
        let path = with_ending(stem, "log");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Step::at(stem, config, file, used, Position::default(), Vec::new(), false))
    }

    /// One that is there. What a kill left unfinished at its end is passed over, and cut by the next write.
    pub(super) fn open(stem: &Path, config: LogConfig, used: Arc<Mutex<Used>>) -> Result<Self, LogError> {
        let path = with_ending(stem, "log");
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&path)?,
            other => other?,
        };
        let (at, index, longer) = recover(stem, &file, &config)?;
        Ok(Step::at(stem, config, file, used, at, index, longer))
    }

    fn at(
        stem: &Path,
        config: LogConfig,
        file: File,
        used: Arc<Mutex<Used>>,
        at: Position,
        index: Vec<u64>,
        longer: bool,
    ) -> Self {
        Step {
            stem: stem.to_owned(),
            config,
            file,
            used,
            writer: Mutex::new(Writer { at, new_index: Vec::new(), longer, failures: 0 }),
            flush: Mutex::new(Flush { done: at, running: false, failures: 0, last_error: None }),
            flushed: Condvar::new(),
            visible: RwLock::new(Visible { at, index }),
        }
    }

    pub(super) fn length(&self) -> Length {
        self.visible.read().unwrap_or_else(PoisonError::into_inner).at.length()
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.visible.read().unwrap_or_else(PoisonError::into_inner).at.bytes
    }

    pub(super) fn is_full(&self) -> bool {
        self.visible.read().unwrap_or_else(PoisonError::into_inner).at.full
    }

    pub(super) fn append(&self, first_line: u64, lines: &[LogLine]) -> Result<Length, LogError> {
        let mut writer = self.writer();
        let end_line = first_line.saturating_add(lines.len() as u64);
        let mut at = writer.at;
        let known = usize::try_from(at.next_line.saturating_sub(first_line)).unwrap_or(usize::MAX);
        let new = lines.get(known..).unwrap_or_default();
        if !new.is_empty() {
            if at.finished {
                return Err(LogError::Finished);
            }
            // Of a full log the lines are only counted, and their numbers say how many there were.
            if first_line > at.next_line && !at.full {
                return Err(LogError::Gap { first_line, expected: at.next_line });
            }
            self.write(&mut writer, &mut at, new, end_line)?;
        }
        // Also where nothing is new: what is known may not be flushed yet.
        self.wait_for_flush(writer)
    }

    pub(super) fn finish(&self) -> Result<Length, LogError> {
        let mut writer = self.writer();
        if !writer.at.finished {
            let mut at = writer.at;
            at.finished = true;
            let mut buffer = Vec::new();
            encode(&mut buffer, at.lines, 0, Kind::End, "");
            at.bytes += buffer.len() as u64;
            self.write_out(&mut writer, &buffer)?;
            writer.at = at;
        }
        self.wait_for_flush(writer)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the new lines, as far as the bounds of the run allow.
    fn write(&self, writer: &mut Writer, at: &mut Position, new: &[LogLine], end_line: u64) -> Result<(), LogError> {
        let mut buffer = Vec::new();
        let mut index = Vec::new();
        let (mut taken_bytes, mut taken_lines) = (0, 0);
        let mut put = |at: &mut Position, time_ms, kind, text: &str| {
            if at.lines.is_multiple_of(u64::from(self.config.index_lines)) {
                index.push(at.bytes);
            }
            let before = buffer.len();
            encode(&mut buffer, at.lines, time_ms, kind, text);
            at.bytes += (buffer.len() - before) as u64;
            at.lines += 1;
        };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let was_full = used.is_full();
        for line in new {
            if at.full {
                break;
            }
            let text = cut(&line.text, self.config.line_bytes);
            let bytes = frame_bytes(&text);
            if used.take(bytes, &self.config) {
                (taken_bytes, taken_lines) = (taken_bytes + bytes, taken_lines + 1);
                put(at, line.time_ms, Kind::Line(line.stream), &text);
            } else {
                at.full = true;
                put(at, line.time_ms, Kind::Full, &self.full_text());
            }
        }
        drop(used);
        at.next_line = end_line.max(at.next_line);
        if let Err(error) = self.write_out(writer, &buffer) {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.give_back(taken_bytes, taken_lines, was_full);
            return Err(error);
        }
        writer.at = *at;
        writer.new_index.extend(index);
        Ok(())
    }

    fn full_text(&self) -> String {
        format!(
            "the log ends here: a run may store {} lines and {} bytes; what follows is counted, not kept",
            self.config.run_lines, self.config.run_bytes
        )
    }

    /// Writes at the end, or leaves the end where it was.
    fn write_out(&self, writer: &mut Writer, buffer: &[u8]) -> Result<(), LogError> {
        if writer.longer {
            self.file.set_len(writer.at.bytes)?;
            writer.longer = false;
        }
        self.file.write_all_at(buffer, writer.at.bytes).inspect_err(|_| {
            writer.longer = self.file.set_len(writer.at.bytes).is_err();
        })?;
        Ok(())
    }

    /// Returns once all that is written now is on disk. One of those who wait flushes for all of them.
    fn wait_for_flush(&self, writer: MutexGuard<'_, Writer>) -> Result<Length, LogError> {
        let (target, failures) = (writer.at, writer.failures);
        drop(writer);
        let mut flush = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if flush.failures > failures {
                let unknown = || LogError::Io(Arc::new(io::Error::other("a flush failed")));
                return Err(flush.last_error.clone().unwrap_or_else(unknown));
            }
            let done = flush.done;
            if done.bytes >= target.bytes && done.next_line >= target.next_line {
                return Ok(done.length());
            }
            if flush.running {
                flush = self.flushed.wait(flush).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            flush.running = true;
            let done = flush.done;
            drop(flush);
            let result = self.flush_to_disk(done);
            flush = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
            flush.running = false;
            match result {
                Ok(done) => flush.done = done,
                Err(error) => {
                    flush.failures += 1;
                    flush.last_error = Some(error);
                }
            }
            self.flushed.notify_all();
        }
    }

    /// Flushes what is written by now; only one thread at a time. After a failure the file is as far as `done`.
    fn flush_to_disk(&self, done: Position) -> Result<Position, LogError> {
        let (at, new_index) = {
            let mut writer = self.writer();
            (writer.at, std::mem::take(&mut writer.new_index))
        };
        let flushed = (|| {
            self.file.sync_data()?;
            if at.full && at.next_line != done.next_line { self.write_count(at.next_line) } else { Ok(()) }
        })();
        if let Err(error) = flushed {
            let mut writer = self.writer();
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let full = used.is_full();
            used.give_back(writer.at.bytes - done.bytes, writer.at.lines - done.lines, full);
            drop(used);
            writer.at = done;
            writer.new_index.clear();
            writer.longer = true;
            writer.failures += 1;
            return Err(error.into());
        }
        let mut visible = self.visible.write().unwrap_or_else(PoisonError::into_inner);
        visible.at = at;
        visible.index.extend(&new_index);
        let index_lines = visible.index.len();
        drop(visible);
        if !new_index.is_empty() {
            // It can be made again from the lines, so a failure costs time at the next start and nothing else.
            let first = (index_lines - new_index.len()) as u64;
            if let Err(error) = self.write_index(first, &new_index) {
                tracing::warn!(%error, file = %self.stem.display(), "the index of a log could not be written");
            }
        }
        Ok(at)
    }

    fn write_index(&self, first: u64, entries: &[u64]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(with_ending(&self.stem, "idx"))?;
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        file.write_all_at(&bytes, first * 8)
    }

    /// Sixteen bytes in one place: a kill leaves the old or the new ones.
    fn write_count(&self, next_line: u64) -> io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(with_ending(&self.stem, "count"))?;
        let mut bytes = next_line.to_le_bytes().to_vec();
        bytes.extend(checksum(&next_line.to_le_bytes()).to_le_bytes());
        file.write_all_at(&bytes, 0)?;
        file.sync_data()
    }

    /// Frames from the line `from` on, as far as readers may see, and how far that is.
    fn frames(&self, from: u64) -> Result<Option<(Frames<'_>, u64)>, LogError> {
        let visible = self.visible.read().unwrap_or_else(PoisonError::into_inner);
        if from >= visible.at.lines {
            return Ok(None);
        }
        let (entry, skip) = (from / u64::from(self.config.index_lines), from % u64::from(self.config.index_lines));
        let offset = usize::try_from(entry).ok().and_then(|entry| visible.index.get(entry).copied());
        let (bytes, lines) = (visible.at.bytes, visible.at.lines);
        drop(visible);
        let mut frames = Frames::new(&self.file, offset.ok_or(LogError::Damaged { line: from })?, from - skip, bytes);
        for _ in 0..skip {
            next_line(&mut frames)?;
        }
        Ok(Some((frames, lines)))
    }

    pub(super) fn read(&self, from: u64, limit: usize, bytes_max: usize) -> Result<Vec<NumberedLine>, LogError> {
        let Some((mut frames, end)) = self.frames(from)? else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        let mut bytes = 0;
        while lines.len() < limit && frames.line < end && (lines.is_empty() || bytes < bytes_max) {
            let number = frames.line;
            let line = next_line(&mut frames)?;
            bytes += line.text.len();
            lines.push(NumberedLine { number, line });
        }
        Ok(lines)
    }

    pub(super) fn search(&self, text: &str, from: u64, max_hits: usize) -> Result<Found, LogError> {
        let mut found = Found { hits: Vec::new(), next_from: None };
        let Some((mut frames, end)) = self.frames(from)? else { return Ok(found) };
        let exact = text.bytes().any(|byte| byte.is_ascii_uppercase());
        let stop = end.min(from.saturating_add(self.config.search_lines));
        while frames.line < stop && found.hits.len() < max_hits {
            let number = frames.line;
            let line = next_line(&mut frames)?;
            let hit = if exact { line.text.contains(text) } else { line.text.to_ascii_lowercase().contains(text) };
            if hit {
                found.hits.push(NumberedLine { number, line });
            }
        }
        found.next_from = (frames.line < end).then_some(frames.line);
        Ok(found)
    }
}

fn next_line(frames: &mut Frames<'_>) -> Result<LogLine, LogError> {
    match frames.next()? {
        Next::Frame(frame) if frame.kind != Kind::End => Ok(frame.line),
        _ => Err(LogError::Damaged { line: frames.line }),
    }
}

/// How far the file is, its index, and whether there is more in it that does not count.
fn recover(stem: &Path, file: &File, config: &LogConfig) -> Result<(Position, Vec<u64>, bool), LogError> {
    let file_bytes = file.metadata()?.len();
    let (mut index, stored) = stored_index(stem, file_bytes)?;
    // The last entry that points at the frame it should is where reading starts.
    while let Some(&offset) = index.last() {
        let line = (index.len() as u64 - 1) * u64::from(config.index_lines);
        if matches!(Frames::new(file, offset, line, file_bytes).next()?, Next::Frame(_)) {
            break;
        }
        index.pop();
    }
    let offset = index.pop().unwrap_or(0);
    let line = index.len() as u64 * u64::from(config.index_lines);
    let mut frames = Frames::new(file, offset, line, file_bytes);
    let mut at = Position::default();
    loop {
        let (offset, line) = (frames.offset, frames.line);
        match frames.next()? {
            Next::Frame(frame) if frame.kind == Kind::End => at.finished = true,
            Next::Frame(frame) => {
                at.full |= frame.kind == Kind::Full;
                if line.is_multiple_of(u64::from(config.index_lines)) {
                    index.push(offset);
                }
            }
            Next::End => break,
            Next::Damaged => {
                tracing::warn!(
                    file = %stem.display(), line, bytes = file_bytes - offset,
                    "a log ends in something that is no line; what was acknowledged ends before it"
                );
                break;
            }
        }
    }
    (at.bytes, at.lines) = (frames.offset, frames.line);
    at.next_line = at.lines - u64::from(at.full);
    if at.full {
        at.next_line = stored_count(stem)?.unwrap_or(0).max(at.next_line);
    }
    let bytes: Vec<u8> = index.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    if stored != bytes
        && let Err(error) = fs::write(with_ending(stem, "idx"), bytes)
    {
        tracing::warn!(%error, file = %stem.display(), "the index of a log could not be written");
    }
    Ok((at, index, at.bytes < file_bytes))
}

/// The index as far as it can be true (it starts at 0, grows, and stays within the file), and what is stored of it.
fn stored_index(stem: &Path, file_bytes: u64) -> Result<(Vec<u64>, Vec<u8>), LogError> {
    let bytes = if_there(fs::read(with_ending(stem, "idx")))?.unwrap_or_default();
    let mut index: Vec<u64> = Vec::new();
    for entry in bytes.chunks_exact(8) {
        let offset = entry.try_into().map_or(0, u64::from_le_bytes);
        let expected = match index.last() {
            None => offset == 0,
            Some(&last) => offset > last,
        };
        if !expected || offset >= file_bytes {
            break;
        }
        index.push(offset);
    }
    Ok((index, bytes))
}

fn stored_count(stem: &Path) -> Result<Option<u64>, LogError> {
    let bytes = if_there(fs::read(with_ending(stem, "count")))?.unwrap_or_default();
    let (Some(count), Some(crc)) = (bytes.get(..8), bytes.get(8..12)) else { return Ok(None) };
    let valid = crc == checksum(count).to_le_bytes();
    Ok(count.try_into().ok().filter(|_| valid).map(u64::from_le_bytes))
}

fn if_there(read: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// The text, or as much of it as a line may have.
fn cut(text: &str, bound_bytes: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= bound_bytes {
        return text.into();
    }
    let kept = &text[..text.floor_char_boundary(bound_bytes)];
    format!("{kept} … [{} bytes cut]", text.len() - kept.len()).into()
}
