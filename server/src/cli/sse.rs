//! Server-sent events as they arrive in pieces (WHATWG HTML, "Server-sent events", section 9.2.6). Not here: connections.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its id, with which a stream is resumed.
    pub(crate) id: Option<String>,
    /// Its kind; empty for a plain message.
    pub(crate) event: String,
    /// What it says.
    pub(crate) data: String,
}

/// An event that is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {max_bytes} bytes")]
pub(crate) struct TooLong {
    max_bytes: usize,
}

/// Reads a stream of events piece by piece.
pub(crate) struct Reader {
    line: Vec<u8>,
    pending: Event,
    has_data: bool,
    after_cr: bool,
    max_bytes: usize,
}

impl Reader {
    /// A reader of events of at most so many bytes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { line: Vec::new(), pending: Event::default(), has_data: false, after_cr: false, max_bytes }
    }

    /// Takes a piece and gives the events that are complete by it.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in piece {
            let is_second_of_crlf = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            if is_second_of_crlf {
                continue;
            }
            if !matches!(byte, b'\r' | b'\n') {
                if self.line.len() + self.pending.data.len() >= self.max_bytes {
                    return Err(TooLong { max_bytes: self.max_bytes });
                }
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            events.extend(self.end_line(&String::from_utf8_lossy(&line)));
        }
        Ok(events)
    }

    fn end_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let has_data = std::mem::take(&mut self.has_data);
            let event = std::mem::take(&mut self.pending);
            return has_data.then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.pending.data.push('\n');
                }
                self.pending.data.push_str(value);
                self.has_data = true;
            }
            "event" => value.clone_into(&mut self.pending.event),
            "id" if !value.contains('\0') => self.pending.id = Some(value.to_owned()),
            // A comment keeps the connection open; `retry` is ours to decide.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = ": hello\n\nid: 7\nevent: line\ndata: a\ndata: b\n\ndata:c\r\n\r\nid: 9\n\ndata: cut";

    fn event(id: Option<&str>, event: &str, data: &str) -> Event {
        Event { id: id.map(str::to_owned), event: event.into(), data: data.into() }
    }

    proptest! {
        #[test]
        fn events_are_the_same_however_the_stream_is_cut(cuts in prop::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut reader = Reader::new(1_000);
            let mut events = Vec::new();
            for pair in cuts.windows(2) {
                events.extend(reader.push(&STREAM.as_bytes()[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(events, vec![event(Some("7"), "line", "a\nb"), event(None, "", "c")]);
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = Reader::new(100);
        assert!((0..200).any(|_| reader.push(b"data: xxxxxxxx\n").is_err()));
        assert!(Reader::new(100).push(&[b'x'; 101]).is_err());
    }
}
