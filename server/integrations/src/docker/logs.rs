//! The output of a container, read from the engine's own record, so that it can be read again from any place. Lines are
//! not joined, masked or numbered here.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{ContainerState, DockerError, Engine};

/// Timestamps of the two streams may be out of order by the time that the engine takes to write a message.
const DISORDER_NS: i64 = 1_000_000_000;
/// Messages that are held back while a place is looked for.
const MAX_HELD: usize = 10_000;
/// Messages that are taken together.
const READY_MESSAGES: usize = 128;
/// Pause before the engine is asked again after it hung up.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Which stream a piece was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A place in the output of one container: the message with this time, and of those with the same time the n-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCursor {
    /// When the engine received it, nanoseconds since 1970.
    pub time_ns: i64,
    /// Counts the messages with the same time from 0.
    pub nth: u32,
}

/// A line, or 16 KiB of a longer one, as the engine recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// Its place; give it back to go on behind it.
    pub cursor: LogCursor,
    /// Where it was written to.
    pub stream: LogStream,
    /// The bytes, without the end of the line.
    pub bytes: Bytes,
    /// Whether the line ends here.
    pub ends_line: bool,
}

impl LogPiece {
    /// Milliseconds since 1970.
    pub fn time_ms(&self) -> i64 {
        self.cursor.time_ns / 1_000_000
    }
}

/// How the reading of an output comes on, for whoever waits for its end.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pieces: AtomicU64,
    handing_over: AtomicBool,
}

impl Progress {
    /// Pieces that were handed over.
    pub(super) fn pieces(&self) -> u64 {
        self.pieces.load(Ordering::Relaxed)
    }

    /// Whether a piece is there that its receiver has not taken yet.
    pub(super) fn waits_for_receiver(&self) -> bool {
        self.handing_over.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// Hands over all output behind `after` until the container has ended and all of it was read. Lives through
    /// restarts of the engine up to `engine_patience_seconds`; nothing is lost and nothing comes twice.
    ///
    /// # Errors
    /// [`DockerError::ReceiverGone`], or when the engine stays away.
    pub async fn follow_output(
        &self,
        name: &str,
        after: Option<LogCursor>,
        output: &mpsc::Sender<LogPiece>,
    ) -> Result<(), DockerError> {
        self.follow_with(name, after, output, &Progress::default()).await
    }

    /// As [`Engine::follow_output`]; says in `progress` how it comes on.
    pub(super) async fn follow_with(
        &self,
        name: &str,
        after: Option<LogCursor>,
        output: &mpsc::Sender<LogPiece>,
        progress: &Progress,
    ) -> Result<(), DockerError> {
        let mut reader = Reader::behind(after);
        let patience = Duration::from_secs(self.config.engine_patience_seconds);
        let mut trouble_since: Option<Instant> = None;
        loop {
            let place = reader.place;
            let followed = self.read_output(name, true, &mut reader, output, progress).await;
            if reader.place != place {
                trouble_since = None;
            }
            let state = match followed {
                Ok(()) => self.container_state(name).await,
                Err(DockerError::ReceiverGone) => return Err(DockerError::ReceiverGone),
                Err(error) => Err(error),
            };
            let trouble = match state {
                // The engine may end the stream a moment before it has written the last lines.
                Ok(Some(ContainerState::Exited { .. })) => {
                    match self.read_output(name, false, &mut reader, output, progress).await {
                        Err(error) if !matches!(error, DockerError::ReceiverGone) => Some(error),
                        done => return done,
                    }
                }
                Ok(Some(_)) => None,
                Ok(None) => {
                    return Err(DockerError::NotFound {
                        action: "follow the output",
                        message: format!("no such container: {name}"),
                    });
                }
                Err(error) => Some(error),
            };
            let since = *trouble_since.get_or_insert_with(Instant::now);
            match trouble {
                Some(error) if since.elapsed() > patience || error.is_not_found() => {
                    return Err(error);
                }
                _ => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// The last lines of a container's output, oldest first, both streams; each cut at 4 KiB.
    ///
    /// # Errors
    /// When the engine cannot be asked or the container is gone.
    pub async fn output_tail(&self, name: &str, lines: u16) -> Result<Vec<String>, DockerError> {
        const MAX_LINE_BYTES: usize = 4096;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let mut stream = Box::pin(self.docker.logs(name, Some(options)));
        let mut tail = Vec::new();
        while let Some(next) = stream.next().await {
            let message = next.map_err(self.failed("read the output"))?.into_bytes();
            let text = String::from_utf8_lossy(&message[..message.len().min(MAX_LINE_BYTES)]);
            tail.push(text.trim_end_matches(['\n', '\r']).to_owned());
        }
        let extra = tail.len().saturating_sub(usize::from(lines));
        tail.drain(..extra);
        Ok(tail)
    }

    async fn read_output(
        &self,
        name: &str,
        follow: bool,
        reader: &mut Reader,
        output: &mpsc::Sender<LogPiece>,
        progress: &Progress,
    ) -> Result<(), DockerError> {
        reader.begin();
        // What is there already is taken together: a wake-up for each line would cost more than the line.
        let mut stream = Box::pin(self.docker.logs(name, Some(reader.options(follow))).ready_chunks(READY_MESSAGES));
        let mut ready = Vec::new();
        while let Some(messages) = stream.next().await {
            let mut broken = None;
            for message in messages {
                match message {
                    Ok(message) => reader.take(message, &mut ready),
                    Err(error) => broken = Some(self.failed("read the output")(error)),
                }
            }
            hand_over(reader, &mut ready, output, progress).await?;
            broken.map_or(Ok(()), Err)?;
        }
        reader.end(&mut ready);
        hand_over(reader, &mut ready, output, progress).await
    }
}

async fn hand_over(
    reader: &mut Reader,
    ready: &mut Vec<LogPiece>,
    output: &mpsc::Sender<LogPiece>,
    progress: &Progress,
) -> Result<(), DockerError> {
    let mut pieces = ready.drain(..);
    while pieces.len() > 0 {
        let together = pieces.len().min(output.max_capacity());
        progress.handing_over.store(true, Ordering::Relaxed);
        let room = output.reserve_many(together).await;
        progress.handing_over.store(false, Ordering::Relaxed);
        for (room, piece) in room.map_err(|_| DockerError::ReceiverGone)?.zip(&mut pieces) {
            reader.place = Some(piece.cursor);
            room.send(piece);
            progress.pieces.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Finds its place again in a record that is read from an earlier point.
#[derive(Debug)]
struct Reader {
    /// The last piece that was handed over.
    place: Option<LogCursor>,
    /// Whether this reading has come to that place.
    found: bool,
    /// Pieces which look newer than the place while it was not found.
    held: Vec<LogPiece>,
    /// Counts the messages of each recent time in this reading.
    recent: Vec<(i64, u32)>,
}

impl Reader {
    fn behind(place: Option<LogCursor>) -> Self {
        Self { place, found: place.is_none(), held: Vec::new(), recent: Vec::new() }
    }

    /// A new reading starts.
    fn begin(&mut self) {
        self.found = self.place.is_none();
        self.held.clear();
        self.recent.clear();
    }

    fn options(&self, follow: bool) -> LogsOptions {
        let since =
            self.place.map_or(0, |place| i32::try_from((place.time_ns - DISORDER_NS) / 1_000_000_000).unwrap_or(0));
        LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).follow(follow).since(since.max(0)).build()
    }

    fn take(&mut self, message: LogOutput, ready: &mut Vec<LogPiece>) {
        let stream = match message {
            LogOutput::StdErr { .. } => LogStream::Stderr,
            _ => LogStream::Stdout,
        };
        let (time_ns, mut bytes) = split_time(message.into_bytes());
        let time_ns = time_ns.unwrap_or_else(|| self.recent.last().map_or(0, |last| last.0));
        let ends_line = bytes.ends_with(b"\n");
        if ends_line {
            bytes.truncate(bytes.len() - 1);
            if bytes.ends_with(b"\r") {
                bytes.truncate(bytes.len() - 1);
            }
        }
        let piece = LogPiece { cursor: LogCursor { time_ns, nth: self.count(time_ns) }, stream, bytes, ends_line };
        match self.place {
            _ if self.found => ready.push(piece),
            None => ready.push(piece),
            Some(place) if piece.cursor == place => {
                self.found = true;
                self.held.clear();
            }
            Some(place) if time_ns > place.time_ns => {
                // The place is behind us, or was thrown away by the engine's bound.
                let over = time_ns > place.time_ns + DISORDER_NS || self.held.len() >= MAX_HELD;
                self.held.push(piece);
                if over {
                    self.found = true;
                    ready.append(&mut self.held);
                }
            }
            Some(_) => {}
        }
    }

    fn end(&mut self, ready: &mut Vec<LogPiece>) {
        if !self.found {
            ready.append(&mut self.held);
        }
    }

    fn count(&mut self, time_ns: i64) -> u32 {
        if let Some(entry) = self.recent.iter_mut().rev().find(|entry| entry.0 == time_ns) {
            entry.1 += 1;
            return entry.1;
        }
        if self.recent.len() == 64 {
            self.recent.remove(0);
        }
        self.recent.push((time_ns, 0));
        0
    }
}

/// `2026-01-02T03:04:05.000000006Z text` → its time and the text.
fn split_time(message: Bytes) -> (Option<i64>, Bytes) {
    let Some(space) = message.iter().take(64).position(|byte| *byte == b' ') else {
        return (None, message);
    };
    let time = std::str::from_utf8(&message[..space])
        .ok()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    match time {
        Some(time) => (Some(time), message.slice(space + 1..)),
        None => (None, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(time_ns: i64, text: &str, stderr: bool) -> LogOutput {
        let time = jiff::Timestamp::from_nanosecond(i128::from(time_ns)).expect("in range");
        let message = Bytes::from(format!("{time:.9} {text}\n"));
        if stderr { LogOutput::StdErr { message } } else { LogOutput::StdOut { message } }
    }

    fn read(reader: &mut Reader, record: &[LogOutput]) -> Vec<LogPiece> {
        let mut ready = Vec::new();
        reader.begin();
        for entry in record {
            reader.take(entry.clone(), &mut ready);
        }
        reader.end(&mut ready);
        ready
    }

    #[test]
    fn a_place_that_the_engine_dropped_is_passed() {
        let gone = LogCursor { time_ns: 5_000_000_000, nth: 0 };
        let record = [message(5_000_000_500, "a", false), message(5_000_000_600, "b", false)];
        let pieces = read(&mut Reader::behind(Some(gone)), &record);
        assert_eq!(pieces.len(), 2);
    }

    proptest! {
        /// Wherever reading stops, going on from there gives the rest exactly once, in the order of the record, even
        /// where times are equal or out of order.
        #[test]
        fn reading_goes_on_behind_any_place(
            steps in prop::collection::vec((-400_000_000i64..400_000_000, any::<bool>()), 1..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut time = 1_700_000_000_000_000_000i64;
            let mut record = Vec::new();
            for (n, (step, stderr)) in steps.iter().enumerate() {
                // Many equal times, some going back by less than the disorder that is allowed for.
                let at = if step % 3 == 0 { time } else { time + step };
                time += step.abs() / 2;
                record.push(message(at, &n.to_string(), *stderr));
            }
            let all = read(&mut Reader::behind(None), &record);
            prop_assert_eq!(all.len(), record.len());
            let cut = cut.index(all.len());
            let rest = read(&mut Reader::behind(Some(all[cut].cursor)), &record);
            prop_assert_eq!(&rest[..], &all[cut + 1..]);
        }
    }

    #[test]
    fn fuzz_log_of_the_engine() {
        let samples: [&[u8]; 2] = [b"2026-01-02T03:04:05.000000006Z text\n", b"no time here"];
        fuzz::feed("log-of-the-engine", &samples, &["2026-01-02T03:04:05Z ", "Z ", "+00:00 ", "9999-12-31"], |bytes| {
            let given = Bytes::copy_from_slice(bytes);
            let (time, text) = split_time(given.clone());
            if !given.ends_with(&text) || (time.is_none() && text != given) {
                return Err("what is left is not what was there".into());
            }
            let mut reader = Reader::behind(None);
            let pieces = read(
                &mut reader,
                &[LogOutput::StdOut { message: given.clone() }, LogOutput::StdErr { message: given }],
            );
            Ok(format!("{} {}", time.is_some(), pieces.len()))
        });
    }
}
