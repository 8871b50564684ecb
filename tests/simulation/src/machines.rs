//! Every state of every machine against every event: what becomes of it, worked out by the machines themselves and kept
//! in docs/machines.md, and which of these pairs the simulation must reach. A new state or event does not compile until
//! it is listed here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use pipelines::{
    approval::{Actor, ApprovalEvent, ApprovalState, Decision, Proof},
    hold::HoldEnd,
    ids::{Digest, RunnerName},
    labels::Labels,
    protocol::{Blame, CommitInfo, Report, StepOutcome},
    release::{ReleaseEvent, ReleaseState},
    rollout::{Pause, Rollout, RolloutEvent, RolloutState},
    run::{RunEvent, RunState},
    time::UnixMs,
    train::{Event, Train},
    trigger::{Trigger, TriggerSource},
};

use crate::{
    drivers::trigger,
    rng::Rng,
    runner::fast,
    stage::{NOW, QA, RUNNER, Stage, acknowledged, stats},
    stats::Pair,
    store::Store,
    world::{HOLD, RELEASE_REF, tag_of},
};

/// A machine with states of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// A run.
    Run,
    /// A release.
    Release,
    /// Its approval.
    Approval,
    /// A rollout.
    Rollout,
    /// What holds them together.
    Train,
}

impl Machine {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Run, Self::Release, Self::Approval, Self::Rollout, Self::Train];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Release => "release",
            Self::Approval => "approval",
            Self::Rollout => "rollout",
            Self::Train => "train",
        }
    }
}

/// What becomes of a state when an event comes, over all that the two can hold.
pub type Table = BTreeMap<(&'static str, &'static str), BTreeSet<&'static str>>;

/// It is refused, and nothing has changed.
const REFUSED: &str = "refused";
/// It is taken, and the state is the same.
const STAYS: &str = "stays";

/// Pairs that no life reaches: machine, state, event, why.
pub const UNREACHED: &[(Machine, &str, &str, &str)] = &[];

macro_rules! variants {
    ($(#[$doc:meta])* fn $name:ident($($given:ident: $type:ty),*) -> $of:ty {
        $($pattern:pat => [$($sample:expr),+ $(,)?]),+ $(,)?
    }) => {
        $(#[$doc])*
        fn $name($($given: $type),*) -> Vec<$of> {
            // What is not listed does not compile.
            let _ = |value: &$of| match value {
                $($pattern => ()),+
            };
            vec![$($($sample),+),+]
        }
    };
}

fn runner(name: &str) -> RunnerName {
    name.parse().expect("a good name")
}

fn why() -> String {
    "why".into()
}

fn digest() -> Digest {
    Digest::of(b"image")
}

variants! {
    fn run_states() -> RunState {
        RunState::Held { .. } => [RunState::Held { reason: why() }],
        RunState::Queued => [RunState::Queued],
        RunState::Running { .. } => [RunState::Running { runner: runner(RUNNER) }],
        RunState::Cancelling { .. } => [RunState::Cancelling { runner: runner(RUNNER) }],
        RunState::Succeeded { .. } => [RunState::Succeeded { digest: digest() }],
        RunState::Failed { .. } => [RunState::Failed { blame: Blame::Code, reason: why() }],
        RunState::Cancelled => [RunState::Cancelled],
        RunState::Declined { .. } => [RunState::Declined { reason: why() }],
        RunState::Passed => [RunState::Passed],
    }
}

variants! {
    fn reports(plan: &Report) -> Report {
        Report::CheckedOut { .. } => [Report::CheckedOut { commit: commit() }],
        Report::Prepared { .. } => [plan.clone()],
        Report::StepStarted { .. } => [Report::StepStarted { step: "test".into(), at: NOW }],
        Report::StepFinished { .. } =>
            [Report::StepFinished { step: "test".into(), at: NOW, outcome: StepOutcome::Passed }],
        Report::Succeeded { .. } => [succeeded(digest()), succeeded(Digest::of(b"another image"))],
        Report::Failed { .. } => [Report::Failed { blame: Blame::Infrastructure, reason: why() }],
        Report::Cancelled => [Report::Cancelled],
        Report::Passed => [Report::Passed],
        Report::Unfit { .. } => [Report::Unfit { labels: fast() }, Report::Unfit { labels: Labels::default() }],
    }
}

variants! {
    fn run_events(plan: &Report) -> RunEvent {
        RunEvent::Leased { .. } => [leased(RUNNER), leased("nobody")],
        RunEvent::Reported { .. } => [reported(plan.clone())],
        RunEvent::RunnerLost { .. } => [lost(1, 3), lost(1, 1), lost(7, 3)],
        RunEvent::CancelRequested { .. } => [RunEvent::CancelRequested { reason: why() }],
        RunEvent::Inspected { .. } => [RunEvent::Inspected { proposal: Box::default() }],
        RunEvent::Allowed { .. } => [RunEvent::Allowed { by: why() }],
        RunEvent::Declined { .. } => [RunEvent::Declined { by: why(), reason: why() }],
        RunEvent::HoldEnded { .. } => [RunEvent::HoldEnded { end: HoldEnd::Expired }],
    }
}

fn leased(name: &str) -> RunEvent {
    RunEvent::Leased { runner: runner(name), lease_ms: 60_000 }
}

fn reported(report: Report) -> RunEvent {
    RunEvent::Reported { runner: runner(RUNNER), attempt: 1, report }
}

fn lost(attempt: u32, lost_max: u32) -> RunEvent {
    RunEvent::RunnerLost { attempt, lost_max, reason: why() }
}

/// As the list above, with each report.
fn all_run_events(plan: &Report) -> Vec<RunEvent> {
    let reported = reports(plan).into_iter().map(reported);
    run_events(plan).into_iter().chain(reported).collect()
}

variants! {
    fn release_states() -> ReleaseState {
        ReleaseState::WaitingForTest { .. } => [ReleaseState::WaitingForTest { behind: 1 }],
        ReleaseState::DeployingTest => [ReleaseState::DeployingTest],
        ReleaseState::TestFailed { .. } => [ReleaseState::TestFailed { reason: why() }],
        ReleaseState::AwaitingApproval => [ReleaseState::AwaitingApproval],
        ReleaseState::Rejected { .. } => [ReleaseState::Rejected { by: why(), comment: why() }],
        ReleaseState::Expired => [ReleaseState::Expired],
        ReleaseState::Superseded { .. } => [ReleaseState::Superseded { by: 9 }],
        ReleaseState::Promoting => [ReleaseState::Promoting],
        ReleaseState::WaitingForRollout => [ReleaseState::WaitingForRollout],
        ReleaseState::RollingOut => [ReleaseState::RollingOut],
        ReleaseState::Live => [ReleaseState::Live],
        ReleaseState::Retired { .. } => [ReleaseState::Retired { by: 9 }],
        ReleaseState::RolledBack { .. } => [ReleaseState::RolledBack { reason: why() }],
    }
}

variants! {
    fn release_events(digest: &Digest) -> ReleaseEvent {
        ReleaseEvent::TestFreed => [ReleaseEvent::TestFreed],
        ReleaseEvent::TestHealthy => [ReleaseEvent::TestHealthy],
        ReleaseEvent::TestUnhealthy { .. } => [ReleaseEvent::TestUnhealthy { reason: why() }],
        ReleaseEvent::Approved { .. } => [ReleaseEvent::Approved { by: why() }],
        ReleaseEvent::Rejected { .. } => [ReleaseEvent::Rejected { by: why(), comment: why() }],
        ReleaseEvent::Expired => [ReleaseEvent::Expired],
        ReleaseEvent::AskedAgain => [ReleaseEvent::AskedAgain],
        ReleaseEvent::Superseded { .. } => [ReleaseEvent::Superseded { by: 9 }],
        ReleaseEvent::Promoted { .. } =>
            [ReleaseEvent::Promoted { digest: digest.clone() }, ReleaseEvent::Promoted { digest: Digest::of(b"?") }],
        ReleaseEvent::RolloutStarted => [ReleaseEvent::RolloutStarted],
        ReleaseEvent::RolloutCompleted => [ReleaseEvent::RolloutCompleted],
        ReleaseEvent::RolledBack { .. } => [ReleaseEvent::RolledBack { reason: why() }],
        ReleaseEvent::Retired { .. } => [ReleaseEvent::Retired { by: 9 }],
    }
}

variants! {
    fn approval_states() -> ApprovalState {
        ApprovalState::Open => [ApprovalState::Open],
        ApprovalState::Approved { .. } => [ApprovalState::Approved { decision: decision() }],
        ApprovalState::Rejected { .. } => [ApprovalState::Rejected { decision: decision() }],
        ApprovalState::Expired => [ApprovalState::Expired],
        ApprovalState::Superseded { .. } => [ApprovalState::Superseded { by: 9 }],
    }
}

variants! {
    fn approval_events(digest: &Digest) -> ApprovalEvent {
        ApprovalEvent::CodeRequested { .. } => [
            ApprovalEvent::CodeRequested { tester: QA.into() },
            ApprovalEvent::CodeRequested { tester: "eve@example.com".into() },
        ],
        ApprovalEvent::WrongCode { .. } => [ApprovalEvent::WrongCode { tester: QA.into() }],
        ApprovalEvent::Decided { .. } => [
            decided(qa(), digest, true),
            decided(qa(), digest, false),
            decided(boss(), &Digest::of(b"another page"), true),
            decided(boss(), &Digest::of(b"another page"), false),
        ],
        ApprovalEvent::Claimed { .. } => [ApprovalEvent::Claimed { actor: qa() }],
        ApprovalEvent::Unclaimed { .. } => [ApprovalEvent::Unclaimed { actor: qa() }],
        ApprovalEvent::ReminderDue { .. } =>
            [ApprovalEvent::ReminderDue { round: 1 }, ApprovalEvent::ReminderDue { round: 7 }],
        ApprovalEvent::Expired { .. } => [ApprovalEvent::Expired { round: 1 }, ApprovalEvent::Expired { round: 7 }],
        ApprovalEvent::Superseded { .. } => [ApprovalEvent::Superseded { by: 9 }],
        ApprovalEvent::Reopened { .. } => [ApprovalEvent::Reopened { expires_at: NOW.plus_ms(1) }],
    }
}

variants! {
    fn rollout_states() -> RolloutState {
        RolloutState::Starting => [RolloutState::Starting],
        RolloutState::Shifting { .. } => [RolloutState::Shifting { stage: 0 }, RolloutState::Shifting { stage: 2 }],
        RolloutState::Holding { .. } => [
            holding(0, None),
            holding(2, None),
            holding(0, Some(Pause::Insufficient)),
            holding(0, Some(Pause::Person { by: why() })),
            holding(2, Some(Pause::Person { by: why() })),
        ],
        RolloutState::Draining => [RolloutState::Draining],
        RolloutState::Completed => [RolloutState::Completed],
        RolloutState::RollingBack { .. } => [RolloutState::RollingBack { reason: why() }],
        RolloutState::DrainingBack { .. } => [RolloutState::DrainingBack { reason: why() }],
        RolloutState::RolledBack { .. } => [RolloutState::RolledBack { reason: why() }],
    }
}

variants! {
    fn rollout_events(intent: u32) -> RolloutEvent {
        RolloutEvent::RevisionHealthy => [RolloutEvent::RevisionHealthy],
        RolloutEvent::RevisionUnhealthy { .. } => [RolloutEvent::RevisionUnhealthy { reason: why() }],
        RolloutEvent::TrafficAcknowledged { .. } =>
            [acknowledged(intent), acknowledged(intent.saturating_sub(1)), acknowledged(intent + 1)],
        RolloutEvent::Measured { .. } => [
            RolloutEvent::Measured { stage: 0, canary: stats(1_000, 0), stable: stats(1_000, 0) },
            RolloutEvent::Measured { stage: 0, canary: stats(1_000, 900), stable: stats(1_000, 0) },
            RolloutEvent::Measured { stage: 0, canary: stats(0, 0), stable: stats(0, 0) },
            RolloutEvent::Measured { stage: 2, canary: stats(1_000, 0), stable: stats(1_000, 0) },
        ],
        RolloutEvent::Drained => [RolloutEvent::Drained],
        RolloutEvent::Promote { .. } =>
            [RolloutEvent::Promote { by: why(), fully: false }, RolloutEvent::Promote { by: why(), fully: true }],
        RolloutEvent::Pause { .. } => [RolloutEvent::Pause { by: why() }],
        RolloutEvent::Resume { .. } => [RolloutEvent::Resume { by: why() }],
        RolloutEvent::Abort { .. } => [RolloutEvent::Abort { by: why(), reason: why() }],
    }
}

/// Whether the train alone makes this event, so that one that comes from outside is refused whatever the state is.
pub(crate) fn never_comes_alone(event: &Event) -> bool {
    match event {
        Event::Release { event, .. } => match event {
            ReleaseEvent::TestHealthy | ReleaseEvent::TestUnhealthy { .. } | ReleaseEvent::Promoted { .. } => false,
            ReleaseEvent::TestFreed
            | ReleaseEvent::Approved { .. }
            | ReleaseEvent::Rejected { .. }
            | ReleaseEvent::Expired
            | ReleaseEvent::AskedAgain
            | ReleaseEvent::Superseded { .. }
            | ReleaseEvent::RolloutStarted
            | ReleaseEvent::RolloutCompleted
            | ReleaseEvent::RolledBack { .. }
            | ReleaseEvent::Retired { .. } => true,
        },
        Event::Approval { event, .. } => {
            matches!(event, ApprovalEvent::Superseded { .. } | ApprovalEvent::Reopened { .. })
        }
        _ => false,
    }
}

/// Every event for some machine of the store, but those that fit and so are somebody's to say.
pub(crate) fn stray_events(store: &Store, rng: &mut Rng) -> Vec<Event> {
    fn nth<'a, T>(records: &'a BTreeMap<u32, T>, rng: &mut Rng) -> Option<(u32, &'a T)> {
        let index = rng.index(records.len());
        records.iter().nth(index).map(|(number, record)| (*number, record))
    }
    let strays = match rng.below(4) {
        0 => nth(&store.runs, rng).zip(store.runs.values().find_map(|run| run.plan.clone())).map(
            |((number, run), plan)| {
                let plan = Report::Prepared { steps: Vec::new(), plan: Box::new(plan), releases: true };
                let fits = |event: &RunEvent| run.transition(event, NOW).is_ok_and(|next| next != *run);
                let events = all_run_events(&plan).into_iter().filter(|event| !fits(event));
                events.map(|event| Event::Run { number, event }).collect()
            },
        ),
        1 => nth(&store.releases, rng).map(|(number, release)| {
            let fits = |event: &Event| match event {
                Event::Release { event, .. } => release.transition(event, NOW).is_ok(),
                _ => false,
            };
            let events = release_events(&release.digest).into_iter().map(|event| Event::Release { number, event });
            events.filter(|event| never_comes_alone(event) || !fits(event)).collect()
        }),
        2 => nth(&store.approvals, rng).map(|(number, approval)| {
            approval_events(&approval.digest).into_iter().map(|event| Event::Approval { number, event }).collect()
        }),
        _ => nth(&store.rollouts, rng).map(|(number, rollout)| {
            let fits = |event: &RolloutEvent| rollout.transition(event, NOW).is_ok_and(|(next, _)| next != *rollout);
            let events = rollout_events(rollout.intent).into_iter().filter(|event| !fits(event));
            events.map(|event| Event::Rollout { number, event }).collect()
        }),
    };
    strays.unwrap_or_default()
}

/// Whether the pair of a stray event counts as reached by it: not where the machine alone would take it.
pub(crate) fn is_refused_by_machine(store: &Store, event: &Event) -> bool {
    match event {
        Event::Release { number, event } => {
            store.releases.get(number).is_some_and(|release| release.transition(event, NOW).is_err())
        }
        Event::Approval { number, event } => {
            store.approvals.get(number).is_some_and(|approval| approval.transition(event, NOW).is_err())
        }
        _ => true,
    }
}

fn commit() -> CommitInfo {
    CommitInfo {
        sha: format!("{:040x}", 1).parse().expect("a good commit"),
        message: "change".into(),
        author: "Dev".into(),
        author_email: "dev@example.com".into(),
        committed_at: UnixMs(0),
        changes: Vec::new(),
    }
}

fn succeeded(digest: Digest) -> Report {
    Report::Succeeded { inputs: digest.clone(), digest, tag: tag_of(1), reused_from: None }
}

fn decision() -> Decision {
    Decision { by: QA.into(), email: QA.into(), at: NOW, proof: Proof::SignedIn, comment: why() }
}

fn qa() -> Actor {
    Actor::Tester { email: QA.into() }
}

fn boss() -> Actor {
    Actor::Account { name: "boss".into(), email: "boss@example.com".into() }
}

fn decided(actor: Actor, digest: &Digest, approve: bool) -> ApprovalEvent {
    ApprovalEvent::Decided { actor, digest: digest.clone(), approve, comment: why() }
}

fn holding(stage: usize, paused: Option<Pause>) -> RolloutState {
    RolloutState::Holding { stage, since: NOW, until: NOW.plus_ms(10_000), paused }
}

// The train.

/// Where a train stands: what has the traffic, what moves, and whether something waits for the end of that.
const TRAIN_WORDS: [&str; 7] = [
    "nothing_live",
    "first_rolling_out",
    "live",
    "rolling_out",
    "rolling_out_and_one_waits",
    "going_back",
    "going_back_and_one_waits",
];

/// Which of [`TRAIN_WORDS`] it is, with the rollout that runs.
pub(crate) fn train_word(train: &Train, rollout: Option<&Rollout>) -> &'static str {
    let waits = train.rollout_next.is_some() || train.rollback_next.is_some();
    let back = rollout.is_some_and(|rollout| {
        matches!(rollout.state, RolloutState::RollingBack { .. } | RolloutState::DrainingBack { .. })
    });
    let index = match (train.live, rollout.is_some(), back, waits) {
        (None, false, ..) => 0,
        (None, true, false, false) => 1,
        (Some(_), false, ..) => 2,
        (Some(_), true, false, false) => 3,
        (_, true, false, true) => 4,
        (_, true, true, false) => 5,
        (_, true, true, true) => 6,
    };
    TRAIN_WORDS[index]
}

/// The word for an event that is the train's own.
pub(crate) fn train_event_word(event: &Event) -> Option<&'static str> {
    match event {
        Event::Triggered { .. } => Some("triggered"),
        Event::Rollback { .. } => Some("rollback"),
        Event::Replace { .. } => Some("replace"),
        Event::AskAgain { .. } => Some("ask_again"),
        Event::Run { .. } | Event::Release { .. } | Event::Approval { .. } | Event::Rollout { .. } => None,
    }
}

fn train_events(store: &Store) -> Vec<Event> {
    let by = || "ann".to_owned();
    let sha = commit().sha;
    let mut events = vec![
        Event::Triggered { trigger: trigger(RELEASE_REF, &sha, TriggerSource::Hook), rerun_of: None, hold: HOLD },
        Event::Replace { by: by() },
    ];
    for number in 1..=store.train.last_run + 1 {
        events.push(Event::Rollback { to: number, by: by(), reason: why() });
        events.push(Event::AskAgain { number, by: by() });
    }
    events
}

fn trains() -> Vec<Stage> {
    let live = || Stage::new().live();
    let twice = || live().release().rollout(RolloutEvent::RevisionHealthy).acknowledge();
    let fully = RolloutEvent::Promote { by: why(), fully: true };
    let second = || twice().rollout(fully.clone()).acknowledge().rollout(RolloutEvent::Drained);
    let abort = || RolloutEvent::Abort { by: why(), reason: why() };
    let expired = |stage: Stage| stage.push().lease().build().deploy().expire();
    vec![
        Stage::new(),
        expired(Stage::new()),
        Stage::new().release(),
        expired(Stage::new().release()),
        Stage::new().release().release(),
        live(),
        second(),
        expired(second()),
        live().release(),
        second().release(),
        expired(second().release()),
        live().release().release(),
        second().release().release(),
        expired(second().release().release()),
        second().release().rollout(abort()),
        expired(second().release().rollout(abort())),
        second().release().release().rollout(abort()),
        expired(second().release().release().rollout(abort())),
    ]
}

// The tables.

/// The table of one machine.
#[must_use]
pub fn table(machine: Machine) -> Table {
    let mut table = Table::new();
    let mut note = |state, event, outcome: Option<&'static str>| {
        let word = match outcome {
            None => REFUSED,
            Some(word) if word == state => STAYS,
            Some(word) => word,
        };
        table.entry((state, event)).or_default().insert(word);
    };
    let late = NOW.plus_ms(3_600_000_000);
    match machine {
        Machine::Run => {
            let stage = Stage::new().push().lease().build();
            let run = stage.0.runs[&1].clone();
            let plan = run.plan.clone().expect("a built run has a plan");
            let plan = Report::Prepared { steps: Vec::new(), plan: Box::new(plan), releases: true };
            // What a fork wrote ends otherwise.
            let forked = Trigger { from_fork: true, ..run.trigger.clone() };
            let triggers = [run.trigger.clone(), forked];
            for (state, trigger) in
                run_states().into_iter().flat_map(|state| triggers.iter().map(move |trigger| (state.clone(), trigger)))
            {
                let run = pipelines::run::Run { state, trigger: trigger.clone(), ..run.clone() };
                for event in all_run_events(&plan) {
                    let next = run.transition(&event, NOW).ok();
                    note(run.state.word(), event.word(), next.map(|next| next.state.word()));
                }
            }
        }
        Machine::Release => {
            let stage = Stage::new().push().lease().build();
            for state in release_states() {
                let release = pipelines::release::Release { state, ..stage.0.releases[&1].clone() };
                for event in release_events(&release.digest) {
                    let next = release.transition(&event, NOW).ok();
                    note(release.state.word(), event.word(), next.map(|next| next.state.word()));
                }
            }
        }
        Machine::Approval => {
            let stage = Stage::new().push().lease().build().deploy().code();
            let claimed = ApprovalEvent::Claimed { actor: qa() };
            let with_claim = stage.clone().on(Event::Approval { number: 1, event: claimed });
            let bases = [stage.0.approvals[&1].clone(), with_claim.0.approvals[&1].clone()];
            for (base, state) in
                bases.iter().flat_map(|base| approval_states().into_iter().map(move |state| (base, state)))
            {
                let approval = pipelines::approval::Approval { state, ..base.clone() };
                for (event, at) in [NOW, late]
                    .iter()
                    .flat_map(|at| approval_events(&base.digest).into_iter().map(move |event| (event, *at)))
                {
                    let next = approval.transition(&event, at).ok();
                    note(approval.state.word(), event.word(), next.map(|next| next.state.word()));
                }
            }
        }
        Machine::Rollout => {
            let stage = Stage::new().live().release();
            let base = stage.0.running().expect("a rollout runs").clone();
            for state in rollout_states() {
                let rollout = Rollout { state, intent: 5, ..base.clone() };
                for (event, at) in
                    [NOW, late].iter().flat_map(|at| rollout_events(5).into_iter().map(move |event| (event, *at)))
                {
                    let next = rollout.transition(&event, at).ok();
                    note(rollout.state.word(), event.word(), next.map(|(next, _)| next.state.word()));
                }
            }
        }
        Machine::Train => {
            for stage in trains() {
                let before = train_word(&stage.0.train, stage.0.running());
                for event in train_events(&stage.0) {
                    let Some(word) = train_event_word(&event) else { continue };
                    let mut store = stage.0.clone();
                    let taken = store.apply(NOW, &crate::store::Input::event(event)).ok();
                    note(before, word, taken.map(|()| train_word(&store.train, store.running())));
                }
            }
            assert_eq!(
                table.keys().map(|(state, _)| *state).collect::<BTreeSet<_>>(),
                TRAIN_WORDS.into_iter().collect(),
                "a state of the train has no stage"
            );
        }
    }
    table
}

/// All pairs of all machines.
#[must_use]
pub fn pairs() -> BTreeSet<Pair> {
    Machine::ALL
        .into_iter()
        .flat_map(|machine| table(machine).into_keys().map(move |(state, event)| (machine, state, event)))
        .collect()
}

/// All tables as docs/machines.md shows them.
#[must_use]
pub fn document() -> String {
    let mut page = String::from(
        "# The machines\n\nWhat becomes of each state on each event, as the machines themselves say; a state with several \
         outcomes depends on\nwhat the event holds. What is not in a table is refused and changes nothing. The simulation \
         reaches every pair, the\nrefused ones too, but for those of the last section. Written by \
         `WINDLASS_BLESS=1 cargo test -p simulation`; do not edit.\n",
    );
    for machine in Machine::ALL {
        let table = table(machine);
        let _ = write!(page, "\n## {}\n\n| state | event | becomes |\n|---|---|---|\n", machine.word());
        let mut refused: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for ((state, event), outcomes) in &table {
            if outcomes.iter().all(|word| *word == REFUSED) {
                refused.entry(state).or_default().push(event);
            } else {
                let words: Vec<&str> = outcomes.iter().copied().collect();
                let _ = writeln!(page, "| {state} | {event} | {} |", words.join(", "));
            }
        }
        page.push_str("\nRefused:\n\n");
        for (state, events) in refused {
            let _ = writeln!(page, "- {state}: {}", events.join(", "));
        }
    }
    page.push_str("\n## Not reached in the simulation\n\n");
    if UNREACHED.is_empty() {
        page.push_str("None.\n");
    }
    for (machine, state, event, why) in UNREACHED {
        let _ = writeln!(page, "- {} {state}, {event}: {why}", machine.word());
    }
    page
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_tables_are_those_of_the_page() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/machines.md");
        if env::var_os("WINDLASS_BLESS").is_some() {
            fs::write(&path, document()).expect("the page can be written");
        }
        let page = fs::read_to_string(&path).expect("docs/machines.md is there");
        let differs = page
            .lines()
            .zip(document().lines().collect::<Vec<_>>())
            .find(|(old, new)| old != new)
            .map(|(old, new)| (old.to_owned(), new.to_owned()));
        assert!(
            page == document(),
            "docs/machines.md says otherwise; first difference: {differs:?}; if it is meant: WINDLASS_BLESS=1 cargo test -p simulation"
        );
    }

    #[test]
    fn what_is_listed_as_not_reached_exists() {
        let pairs = pairs();
        for (machine, state, event, _) in UNREACHED {
            assert!(pairs.contains(&(*machine, *state, *event)), "{machine:?} {state} {event}");
        }
    }
}
