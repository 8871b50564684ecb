//! Signals that something has changed, with numbers of their own, so that a listener that was away learns what it missed
//! or is told to read everything again. In memory: after a restart everybody reads again. A signal carries no data.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use pipelines::ids::ServiceName;
use tokio::sync::broadcast;

use super::App;

/// Something that a page may show has changed. It carries no data: whoever gets it reads again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Of which service.
    pub service: ServiceName,
    /// What: `run/412`, `release/412`, `rollout/7`, `log/412`, `service`, `delivery`, `effect`, `mail`.
    pub what: String,
    /// Its number since the server started, from 1; a change of a log has that of the change before.
    pub seq: u64,
}

/// What a listener missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// These, in order.
    Changes(Vec<Changed>),
    /// Nobody knows any more: read everything again.
    Everything,
}

/// Signals that a slow listener may miss before it is told to read everything again, and that are remembered.
const BACKLOG: usize = 1_024;

#[derive(Debug)]
pub(super) struct Signals {
    sender: broadcast::Sender<Changed>,
    recent: Mutex<Recent>,
    /// Tells this start of the server from others.
    start: u64,
}

#[derive(Debug, Default)]
struct Recent {
    seq: u64,
    changes: VecDeque<Changed>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, recent: Mutex::default(), start: rand::random() }
    }

    fn send(&self, service: &ServiceName, what: String) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // Logs grow line by line and are followed by their own line numbers: they would push the rest out.
        let is_kept = !what.starts_with("log/");
        recent.seq += u64::from(is_kept);
        let changed = Changed { service: service.clone(), what, seq: recent.seq };
        if is_kept {
            if recent.changes.len() == BACKLOG {
                recent.changes.pop_front();
            }
            recent.changes.push_back(changed.clone());
        }
        // Under the lock, so that listeners get them in the order of their numbers. Nobody listens: nothing to do.
        let _ = self.sender.send(changed);
    }

    fn since(&self, id: &str) -> (Missed, broadcast::Receiver<Changed>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.sender.subscribe();
        let seen = id
            .split_once('-')
            .filter(|(start, _)| u64::from_str_radix(start, 16) == Ok(self.start))
            .and_then(|(_, seq)| seq.parse::<u64>().ok())
            .filter(|seq| *seq <= recent.seq);
        let oldest = recent.changes.front().map_or(recent.seq + 1, |changed| changed.seq);
        let missed = match seen {
            Some(seq) if seq + 1 >= oldest => {
                Missed::Changes(recent.changes.iter().filter(|changed| changed.seq > seq).cloned().collect())
            }
            _ => Missed::Everything,
        };
        (missed, receiver)
    }
}

impl App {
    /// Signals of changes, from now on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.signals.sender.subscribe()
    }

    /// What was missed since the signal with this id, and all that come from now on.
    #[must_use]
    pub fn changes_since(&self, id: &str) -> (Missed, broadcast::Receiver<Changed>) {
        self.signals.since(id)
    }

    /// The id of a signal, for [`App::changes_since`].
    #[must_use]
    pub fn change_id(&self, seq: u64) -> String {
        format!("{:x}-{seq}", self.signals.start)
    }

    /// The number of the last signal.
    #[must_use]
    pub fn change_last(&self) -> u64 {
        self.signals.recent.lock().unwrap_or_else(PoisonError::into_inner).seq
    }

    pub(crate) fn tell(&self, service: &ServiceName, what: String) {
        self.signals.send(service, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(signals: &Signals, what: &str) {
        signals.send(&"shop".parse().unwrap(), what.into());
    }

    fn id(signals: &Signals, seq: u64) -> String {
        format!("{:x}-{seq}", signals.start)
    }

    #[test]
    fn who_was_away_gets_what_they_missed_in_order() {
        let signals = Signals::new();
        for what in ["run/1", "log/1", "release/1", "service"] {
            send(&signals, what);
        }
        let (missed, _) = signals.since(&id(&signals, 1));
        let Missed::Changes(changes) = missed else { panic!("everything") };
        assert_eq!(
            changes.iter().map(|c| (c.what.as_str(), c.seq)).collect::<Vec<_>>(),
            [("release/1", 2), ("service", 3)]
        );
        assert_eq!(signals.since(&id(&signals, 3)).0, Missed::Changes(Vec::new()));
    }

    #[test]
    fn who_was_away_too_long_or_before_a_restart_reads_everything_again() {
        let signals = Signals::new();
        for number in 0..=BACKLOG {
            send(&signals, &format!("run/{number}"));
        }
        assert_eq!(signals.since(&id(&signals, 0)).0, Missed::Everything);
        assert!(matches!(signals.since(&id(&signals, 1)).0, Missed::Changes(c) if c.len() == BACKLOG));
        for strange in ["", "x", "1-1", &id(&signals, 99_999), &id(&Signals::new(), 2)] {
            assert_eq!(signals.since(strange).0, Missed::Everything, "{strange}");
        }
    }

    #[tokio::test]
    async fn nothing_is_lost_between_what_was_missed_and_what_comes() {
        let signals = Signals::new();
        send(&signals, "run/1");
        let (missed, mut receiver) = signals.since(&id(&signals, 0));
        send(&signals, "run/2");
        assert!(matches!(missed, Missed::Changes(c) if c.len() == 1));
        assert_eq!(receiver.recv().await.unwrap().what, "run/2");
    }
}
