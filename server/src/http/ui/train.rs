//! The train of stations that a release rides on: the eight stations, their states, the word under each. Not here: when a
//! station is in which state, which the caller knows.

use super::text::Text;

/// The stations of a release, in their order; a train always has all eight.
pub const STATIONS: usize = 8;

/// The state of a station: one shape, and one colour at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StationState {
    /// Behind us.
    Done,
    /// Not reached.
    Todo,
    /// Being worked on now.
    Move,
    /// Waits for the person who reads the page.
    You,
    /// Waits for somebody else, or in a queue.
    Wait,
    /// Held, paused or expired.
    Hold,
    /// Rolled back or aborted.
    Back,
    /// The code failed.
    Fail,
    /// The infrastructure failed.
    Fault,
    /// This release is live.
    Live,
    /// Another release is live still.
    Old,
}

impl StationState {
    /// The class of the station and the name of its icon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Todo => "todo",
            Self::Move => "move",
            Self::You => "you",
            Self::Wait => "wait",
            Self::Hold => "hold",
            Self::Back => "back",
            Self::Fail => "fail",
            Self::Fault => "fault",
            Self::Live => "live",
            Self::Old => "old",
        }
    }

    const fn is_passing(self) -> bool {
        matches!(self, Self::Done | Self::Todo | Self::Old)
    }
}

/// The word under a station.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the word that it shows; see the catalogue")]
pub enum Word {
    Pushed,
    Tagged,
    PullRequest,
    Started,
    Queued,
    Built,
    Reused,
    CheckingOut,
    StepOf { n: usize, of: usize },
    BuildingImage,
    Pushing,
    StepFailed { step: String },
    ImageFailed,
    FileInvalid,
    CommitGone,
    TimedOut,
    Cancelled,
    Stored,
    Deploying,
    Healthy,
    Unhealthy,
    NeedsYou,
    NeedsYouToo { have: u32, need: u32 },
    ApprovedOf { have: u32, need: u32 },
    Yours,
    WaitsFor { who: String },
    AwaitingTesters,
    Approved,
    Rejected,
    Expired,
    Superseded,
    Copying,
    Promoted,
    WaitsForRollout,
    Canary { percent: u32 },
    Preview,
    Rolling { ready: u32, of: u32 },
    HeldAt { percent: u32 },
    Held,
    Paused,
    RollingBack,
    RolledBack,
    Aborted,
    RolledOut,
    Retrying,
    Unreachable,
    Live,
    Still { version: String },
    NothingLive,
}

/// One station of a train.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Station {
    /// Which shape and colour.
    pub state: StationState,
    /// The word under the shape; none for a station that is not reached.
    pub word: Option<Word>,
    /// Since when, in milliseconds UTC.
    pub since_ms: Option<i64>,
    /// Where the station leads; none where there is no page yet.
    pub href: Option<String>,
}

impl Station {
    /// A station that is not reached.
    pub const fn todo() -> Self {
        Self { state: StationState::Todo, word: None, since_ms: None, href: None }
    }

    /// A station in a state, with its word and age.
    pub const fn at(state: StationState, word: Word, since_ms: i64) -> Self {
        Self { state, word: Some(word), since_ms: Some(since_ms), href: None }
    }

    /// The same station, leading somewhere.
    #[must_use]
    pub fn to(mut self, href: impl Into<String>) -> Self {
        self.href = Some(href.into());
        self
    }
}

/// The way of one release: commit, build, test registry, test environment, approval, production registry, rollout, live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Train {
    /// The stations in their fixed order.
    pub stations: [Station; STATIONS],
}

impl Train {
    /// A train that has not left, with what is live now.
    pub fn waiting(live: Station) -> Self {
        let mut stations = [const { Station::todo() }; STATIONS];
        stations[STATIONS - 1] = live;
        Self { stations }
    }

    /// Where the train is: the last station that is neither behind, nor ahead, nor another release.
    pub fn now(&self) -> Option<usize> {
        self.stations.iter().rposition(|station| !station.state.is_passing())
    }

    pub(super) fn calls<'a>(&'a self, t: &Text<'_>) -> Vec<Call<'a>> {
        let now = self.now();
        self.stations
            .iter()
            .zip(t.stations())
            .enumerate()
            .map(|(i, (station, name))| Call {
                station,
                name,
                now: now == Some(i),
                still: match &station.word {
                    Some(Word::Still { version }) => Some(version.as_str()),
                    _ => None,
                },
                word: station.word.as_ref().map(|word| t.word(word)),
                age: station.since_ms.map(|at| (t.iso(at), t.age(at))),
            })
            .collect()
    }
}

/// A station as the template writes it.
pub(super) struct Call<'a> {
    pub(super) station: &'a Station,
    pub(super) name: &'static str,
    pub(super) now: bool,
    pub(super) still: Option<&'a str>,
    pub(super) word: Option<String>,
    pub(super) age: Option<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_is_where_its_last_unsettled_station_is() {
        let mut train =
            Train::waiting(Station::at(StationState::Old, Word::Still { version: String::from("4.7.1") }, 0));
        assert_eq!(train.now(), None);
        train.stations[0] = Station::at(StationState::Done, Word::Pushed, 0);
        train.stations[1] = Station::at(StationState::Fail, Word::ImageFailed, 0);
        assert_eq!(train.now(), Some(1));
        train.stations[7] = Station::at(StationState::Live, Word::Live, 0);
        assert_eq!(train.now(), Some(7));
    }
}
