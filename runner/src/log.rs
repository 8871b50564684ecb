//! The log of one station of a run: masked, bounded, numbered, sent in batches and sent again until it is acknowledged.
//! Where lines come from, and where they are kept, is not known here.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pipelines::protocol::{JobBounds, LogLine, LogStream, RunnerLink, RunnerRequest, ServerReply};
use pipelines::time::UnixMs;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::link::RunLink;
use crate::mask::{LineMasker, MaskedLine, Secrets};

/// Longer lines are cut: a browser would not show them, and a masker would hold them in memory.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Lines that may wait for the server; then the source of the lines waits.
const QUEUE_LINES: usize = 4096;
/// A batch is sent when it has so many lines or bytes, or after [`BATCH_DELAY`].
const BATCH_LINES: usize = 2000;
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_DELAY: Duration = Duration::from_millis(150);
/// Lines that wait because one before them may hold the beginning of a secret.
const MAX_HELD_LINES: usize = 500;
/// How often lines are offered to a server that takes none of them.
const REFUSALS_MAX: u32 = 5;
/// Pause after which a line is not held for the rest of a secret any more.
const HOLD: Duration = Duration::from_secs(1);

/// The present, as far as logs and reports tell it.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How the lines of a station are numbered after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// The source gives all lines again from the first, the same ones: those that the server has are left out.
    Replay,
    /// The source starts anew: its lines come behind those that the server has.
    Append,
}

/// The log of one station.
#[derive(Debug)]
pub(crate) struct StationLog {
    queue: mpsc::Sender<LogLine>,
    shipper: JoinHandle<()>,
    stdout: Channel,
    stderr: Channel,
    /// The stream of each line that has ended and was not given out, in the order of their ends. It does not depend on
    /// how long a line was held, so that a replay gives the same numbers.
    order: VecDeque<LogStream>,
    secrets: Secrets,
    lines: u64,
    bytes: u64,
    dropped: u64,
    lines_max: u64,
    bytes_max: u64,
    /// Lines that were given out and are not in the queue.
    given: Vec<LogLine>,
}

impl StationLog {
    /// Opens the log where the server left off.
    pub(crate) async fn open<L: RunnerLink + 'static>(
        link: &RunLink<L>,
        step: &str,
        numbering: Numbering,
        bounds: &JobBounds,
        secrets: &Secrets,
    ) -> Self {
        let ask = RunnerRequest::LogPosition { run: link.run.clone(), attempt: link.attempt, step: step.to_owned() };
        let have = match link.ask(ask).await {
            ServerReply::LogNext { line } => line,
            _ => 0,
        };
        let first = match numbering {
            Numbering::Replay => 0,
            Numbering::Append => have,
        };
        let (queue, receiver) = mpsc::channel(QUEUE_LINES);
        let (link, step, unsent) = (link.clone(), step.to_owned(), VecDeque::new());
        let shipper = Shipper { link, step, next: first, have, unsent, refusals: 0 };
        Self {
            queue,
            shipper: tokio::spawn(shipper.run(receiver)),
            stdout: Channel::new(secrets),
            stderr: Channel::new(secrets),
            order: VecDeque::new(),
            secrets: secrets.clone(),
            lines: first,
            bytes: 0,
            dropped: 0,
            lines_max: bounds.log_lines_per_step_max,
            bytes_max: bounds.log_bytes_per_step_max,
            given: Vec::new(),
        }
    }

    /// Writes what a program printed.
    pub(crate) async fn write(&mut self, stream: LogStream, bytes: &[u8], ends_line: bool, at_ms: u64) {
        self.take(stream, bytes, ends_line, at_ms);
        self.flush().await;
    }

    /// Takes what a program printed, to be written by [`StationLog::flush`]: a wake-up for each line would cost more than
    /// the line.
    pub(crate) fn take(&mut self, stream: LogStream, bytes: &[u8], ends_line: bool, at_ms: u64) {
        if self.dropped > 0 {
            // Nothing more is kept: a step that prints without end costs no more than the counting of its lines.
            self.dropped += u64::from(ends_line);
            return;
        }
        self.work(stream, |masker, ready| masker.push(bytes, ends_line, at_ms, ready));
        if self.order.len() > MAX_HELD_LINES {
            self.give_out(LineMasker::pause);
        } else {
            self.give();
        }
    }

    /// Writes what was taken; waits where too much waits for the server.
    pub(crate) async fn flush(&mut self) {
        let mut lines = self.given.drain(..);
        while lines.len() > 0 {
            // The receiver goes away only when the run is not ours any more.
            let Ok(places) = self.queue.reserve_many(lines.len().min(QUEUE_LINES)).await else { return };
            places.zip(&mut lines).for_each(|(place, line)| place.send(line));
        }
    }

    /// A text as it may be shown.
    pub(crate) fn mask(&self, text: &str) -> String {
        self.secrets.mask(text)
    }

    /// Writes lines of our own.
    pub(crate) async fn say(&mut self, text: &str) {
        let text = self.secrets.mask(text);
        for line in text.lines() {
            self.put(LogLine { at: now(), stream: LogStream::System, text: line.to_owned() });
        }
        self.flush().await;
    }

    /// Waits as long as a line may be held back; then gives it out. For ever, when none is.
    pub(crate) async fn idle(&self) {
        if self.stdout.masker.waits() || self.stderr.masker.waits() {
            tokio::time::sleep(HOLD).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// The source pauses: gives out what is held back.
    pub(crate) async fn pause(&mut self) {
        self.give_out(LineMasker::pause);
        self.flush().await;
    }

    /// The source has ended: gives out the rest of its lines. Lines of our own may follow.
    pub(crate) async fn finish(&mut self) {
        self.give_out(LineMasker::finish);
        if self.dropped > 0 {
            let text = format!("{} more lines were not kept", self.dropped);
            self.dropped = 0;
            self.put(LogLine { at: now(), stream: LogStream::System, text });
        }
        self.flush().await;
    }

    /// Waits until the server has acknowledged every line, or the run is not ours any more.
    pub(crate) async fn close(mut self) {
        self.finish().await;
        drop(self.queue);
        if let Err(error) = self.shipper.await
            && error.is_panic()
        {
            tracing::error!(%error, "the log of a step was cut");
        }
    }

    fn channel(&mut self, stream: LogStream) -> &mut Channel {
        match stream {
            LogStream::Stderr => &mut self.stderr,
            LogStream::Stdout | LogStream::System => &mut self.stdout,
        }
    }

    fn work(&mut self, stream: LogStream, work: impl FnOnce(&mut LineMasker<u64>, &mut Vec<MaskedLine<u64>>)) {
        let channel = self.channel(stream);
        let before = channel.masker.ended();
        let mut ready = Vec::new();
        work(&mut channel.masker, &mut ready);
        channel.ready.extend(ready);
        let ended = channel.masker.ended() - before;
        self.order.extend((0..ended).map(|_| stream));
    }

    fn give_out(&mut self, held: impl Fn(&mut LineMasker<u64>, &mut Vec<MaskedLine<u64>>)) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            self.work(stream, &held);
        }
        self.give();
    }

    fn give(&mut self) {
        while let Some(stream) = self.order.front().copied() {
            let Some(line) = self.channel(stream).ready.pop_front() else { return };
            self.order.pop_front();
            self.keep(stream, line);
        }
    }

    /// Keeps the bounds. Our own words come always: they are few, and say how the step ended.
    fn keep(&mut self, stream: LogStream, line: MaskedLine<u64>) {
        let at = UnixMs(line.about);
        let bytes = u64::try_from(line.raw_bytes).unwrap_or(u64::MAX).saturating_add(1);
        if self.dropped > 0 || self.lines >= self.lines_max || self.bytes.saturating_add(bytes) > self.bytes_max {
            if self.dropped == 0 {
                let (lines, bytes) = (self.lines_max, self.bytes_max);
                let text = format!("the log ends here: its limit is {lines} lines and {bytes} bytes; the step goes on");
                self.put(LogLine { at, stream: LogStream::System, text });
            }
            self.dropped += 1;
            return;
        }
        self.bytes += bytes;
        self.put(LogLine { at, stream, text: line.text });
    }

    fn put(&mut self, line: LogLine) {
        self.lines += 1;
        self.given.push(line);
    }
}

/// One stream of the source.
#[derive(Debug)]
struct Channel {
    masker: LineMasker<u64>,
    /// Lines that are masked and wait for those of the other stream that ended before them.
    ready: VecDeque<MaskedLine<u64>>,
}

impl Channel {
    fn new(secrets: &Secrets) -> Self {
        Self { masker: LineMasker::new(secrets.clone(), MAX_LINE_BYTES), ready: VecDeque::new() }
    }
}

/// Sends lines in order, and again until they are acknowledged.
struct Shipper<L> {
    link: RunLink<L>,
    step: String,
    /// Number of the next line that comes out of the queue.
    next: u64,
    /// The next line that the server wants.
    have: u64,
    /// Lines that are not acknowledged, with their numbers in order.
    unsent: VecDeque<(u64, LogLine)>,
    /// How often in a row the server took nothing.
    refusals: u32,
}

impl<L: RunnerLink> Shipper<L> {
    async fn run(mut self, mut queue: mpsc::Receiver<LogLine>) {
        let lost = self.link.control.lost.clone();
        let ship = async {
            while let Some(line) = queue.recv().await {
                self.take(line);
                self.fill(&mut queue).await;
                while !self.unsent.is_empty() {
                    self.send().await;
                }
            }
        };
        tokio::select! {
            () = lost.cancelled() => {}
            () = ship => {}
        }
    }

    fn take(&mut self, line: LogLine) {
        if self.next >= self.have {
            self.unsent.push_back((self.next, line));
        }
        self.next += 1;
    }

    /// Waits a moment for more lines, so that a busy step does not make a request for each.
    async fn fill(&mut self, queue: &mut mpsc::Receiver<LogLine>) {
        let deadline = tokio::time::Instant::now() + BATCH_DELAY;
        let mut bytes = 0;
        while self.unsent.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let line = match queue.try_recv() {
                Ok(line) => line,
                // No time is asked for while there are lines.
                Err(_) => match tokio::time::timeout_at(deadline, queue.recv()).await {
                    Ok(Some(line)) => line,
                    Ok(None) | Err(_) => return,
                },
            };
            bytes += line.text.len();
            self.take(line);
        }
    }

    async fn send(&mut self) {
        let Some(first_line) = self.unsent.front().map(|line| line.0) else { return };
        let lines: Vec<_> = self.unsent.iter().map(|line| line.1.clone()).collect();
        let (run, attempt) = (self.link.run.clone(), self.link.attempt);
        let request = RunnerRequest::Log { run, attempt, step: self.step.clone(), first_line, lines };
        let after = first_line + self.unsent.len() as u64;
        match self.link.ask(request).await {
            ServerReply::LogNext { line } if line < first_line => {
                // It wants lines that it had acknowledged. They are gone here: go on rather than stand still.
                tracing::error!(run = %self.link.run, step = %self.step, wants = line, from = first_line,
                    "the server lost lines of a log");
                self.unsent.clear();
            }
            // The log has ended for the server: a station that is done again after a restart finds it closed.
            ServerReply::LogNext { line } if line == first_line => {
                self.refusals += 1;
                if self.refusals > REFUSALS_MAX {
                    tracing::warn!(run = %self.link.run, step = %self.step, lines = self.unsent.len(),
                        "the server takes no more lines");
                    self.have = after;
                } else {
                    tokio::time::sleep(BATCH_DELAY).await;
                }
            }
            ServerReply::LogNext { line } => {
                self.refusals = 0;
                self.have = line;
            }
            // The run is over for the server, or it only says go on: both mean that the lines were taken.
            _ => self.have = after,
        }
        while self.unsent.front().is_some_and(|line| line.0 < self.have) {
            self.unsent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use pipelines::protocol::{LinkError, Secret};

    use super::*;
    use crate::link::{Patience, Server};

    /// A server that keeps lines, and loses every second answer after or before it stored them.
    #[derive(Debug, Default)]
    struct Flaky {
        lines: Mutex<Vec<String>>,
        calls: Mutex<u32>,
        take_at_most: usize,
    }

    #[derive(Debug)]
    struct Link(Arc<Flaky>);

    impl RunnerLink for Link {
        async fn call(&self, request: RunnerRequest) -> Result<ServerReply, LinkError> {
            let mut calls = self.0.calls.lock().expect("no panic");
            *calls += 1;
            if calls.is_multiple_of(3) {
                return Err(LinkError::NoAnswer("cut before it was read".to_owned()));
            }
            let mut lines = self.0.lines.lock().expect("no panic");
            if let RunnerRequest::Log { first_line, lines: new, .. } = request {
                let have = lines.len();
                let first = usize::try_from(first_line).expect("small");
                assert!(first <= have, "a gap: {first} after {have}");
                let take = new.into_iter().skip(have - first).take(self.0.take_at_most);
                lines.extend(take.map(|line| line.text));
            }
            if calls.is_multiple_of(5) {
                return Err(LinkError::NoAnswer("cut before the answer".to_owned()));
            }
            Ok(ServerReply::LogNext { line: lines.len() as u64 })
        }
    }

    fn link(server: &Arc<Flaky>) -> RunLink<Link> {
        let patience = Patience { min: Duration::from_millis(1), max: Duration::from_millis(2) };
        let server = Server::new(Link(server.clone()), patience);
        RunLink::new(server, "shop/1".parse().expect("an id"), 1, Duration::from_secs(60))
    }

    #[tokio::test]
    async fn every_line_arrives_once_and_in_order_through_a_bad_link_and_a_restart() {
        let server = Arc::new(Flaky { take_at_most: 37, ..Flaky::default() });
        let link = link(&server);
        let secrets = Secrets::new(&[Secret::new("hidden-word")]).expect("it is small");
        let bounds = JobBounds::default();
        for upto in [700, 1000] {
            // The second time all lines come again from the first.
            let mut log = StationLog::open(&link, "test", Numbering::Replay, &bounds, &secrets).await;
            for n in 0..upto {
                log.write(LogStream::Stdout, format!("{n} hidden-").as_bytes(), false, 0).await;
                log.write(LogStream::Stdout, b"word", true, 0).await;
            }
            log.close().await;
        }
        let expected: Vec<_> = (0..1000).map(|n| format!("{n} ***")).collect();
        assert_eq!(*server.lines.lock().expect("no panic"), expected);
        let mut log = StationLog::open(&link, "test", Numbering::Append, &bounds, &secrets).await;
        log.say("and now\nhidden-word").await;
        log.close().await;
        assert_eq!(server.lines.lock().expect("no panic")[1000..], ["and now", "***"]);
    }

    #[tokio::test]
    async fn holding_a_line_back_does_not_change_the_numbers() {
        let bounds = JobBounds::default();
        let secrets = Secrets::new(&[Secret::new("hidden-word")]).expect("it is small");
        let mut logs = Vec::new();
        for pauses in [false, true] {
            let server = Arc::new(Flaky { take_at_most: 100, ..Flaky::default() });
            let link = link(&server);
            let mut log = StationLog::open(&link, "test", Numbering::Replay, &bounds, &secrets).await;
            // The first line may hold the beginning of a secret; the others overtake it only in their own stream.
            for (stream, text) in [
                (LogStream::Stdout, "out h"),
                (LogStream::Stderr, "err 1"),
                (LogStream::Stderr, "err 2"),
                (LogStream::Stdout, "out 2"),
            ] {
                log.write(stream, text.as_bytes(), true, 0).await;
                if pauses {
                    log.pause().await;
                }
            }
            log.close().await;
            logs.push(server.lines.lock().expect("no panic").clone());
        }
        assert_eq!(logs[0], ["out h", "err 1", "err 2", "out 2"]);
        assert_eq!(logs[0], logs[1]);
    }

    #[tokio::test]
    async fn a_log_is_bounded_and_says_so() {
        let server = Arc::new(Flaky { take_at_most: 1000, ..Flaky::default() });
        let link = link(&server);
        let bounds = JobBounds { log_lines_per_step_max: 10, ..JobBounds::default() };
        let mut log =
            StationLog::open(&link, "test", Numbering::Replay, &bounds, &Secrets::new(&[]).expect("there are none"))
                .await;
        for n in 0..50 {
            log.write(LogStream::Stdout, n.to_string().as_bytes(), true, 0).await;
        }
        log.finish().await;
        log.say("the step passed").await;
        log.close().await;
        let lines = server.lines.lock().expect("no panic");
        assert_eq!(lines.len(), 13);
        assert!(lines[10].starts_with("the log ends here"), "{}", lines[10]);
        assert_eq!(lines[11..], ["40 more lines were not kept", "the step passed"]);
    }

    #[tokio::test]
    async fn a_log_that_the_server_has_closed_does_not_hang() {
        let server = Arc::new(Flaky { take_at_most: 0, ..Flaky::default() });
        let link = link(&server);
        let mut log = StationLog::open(
            &link,
            "test",
            Numbering::Append,
            &JobBounds::default(),
            &Secrets::new(&[]).expect("there are none"),
        )
        .await;
        log.say("late").await;
        log.close().await;
        assert!(server.lines.lock().expect("no panic").is_empty());
    }

    #[tokio::test]
    async fn a_log_that_is_not_ours_any_more_does_not_hang() {
        let server = Arc::new(Flaky { take_at_most: 0, ..Flaky::default() });
        let link = link(&server);
        let mut log = StationLog::open(
            &link,
            "test",
            Numbering::Replay,
            &JobBounds::default(),
            &Secrets::new(&[]).expect("there are none"),
        )
        .await;
        log.say("never taken").await;
        link.control.lost.cancel();
        log.close().await;
    }
}
