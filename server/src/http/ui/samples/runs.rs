//! Samples of a run and its log.

use super::super::ansi::Painter;
use super::super::log::{LineId, LogGroup, LogHit, LogLine, LogSearch, LogView};
use super::super::run::{FileProblem, RunState, RunView, StepState, StepView, Trigger};
use super::super::runners::{RunLink, RunnerLine, RunnerState, RunnersView, WaitingLine};
use super::super::why::{Answer, Party, Phase, Why};
use super::super::{Disabled, Press};
use super::{DIGEST, MINUTE, NOW, s};

fn step(name: &str, state: StepState, took_ms: Option<i64>, usual_ms: Option<i64>) -> StepView {
    StepView { name: s(name), state, took_ms, usual_ms }
}

const TEST_LOG: &[(u64, &str)] = &[
    (41, "\u{1b}[34m$\u{1b}[0m npm test"),
    (42, "\u{1b}[2m> invoices@2.3.0 test\u{1b}[0m"),
    (43, "\u{1b}[2m> vitest run --reporter=verbose\u{1b}[0m"),
    (44, " \u{1b}[32m✓\u{1b}[0m src/money/rounding.test.ts \u{1b}[2m(41 tests) 38 ms\u{1b}[0m"),
    (45, " \u{1b}[32m✓\u{1b}[0m src/money/currency.test.ts \u{1b}[2m(27 tests) 22 ms\u{1b}[0m"),
    (
        177,
        " \u{1b}[31m❯\u{1b}[0m src/number/branch.test.ts \u{1b}[2m(24 tests\u{1b}[0m | \u{1b}[31m2 failed\u{1b}[0m\u{1b}[2m)\u{1b}[0m \u{1b}[33m1,204 ms\u{1b}[0m",
    ),
    (178, "   \u{1b}[32m✓\u{1b}[0m gives the first number of a year"),
    (180, "   \u{1b}[31m× starts a row of its own per branch office\u{1b}[0m"),
    (181, "   \u{1b}[31m× survives two writers in the same second\u{1b}[0m"),
    (182, ""),
    (183, "\u{1b}[41m FAILED TESTS \u{1b}[0m 2"),
    (
        185,
        "\u{1b}[41m FAIL \u{1b}[0m src/number/branch.test.ts \u{1b}[2m>\u{1b}[0m starts a row of its own per branch office",
    ),
    (186, "\u{1b}[2m  fixture: two offices, empty year\u{1b}[0m"),
    (187, "\u{1b}[31mAssertionError: expected \u{1b}[32m‘SH-2026-0001’\u{1b}[31m to equal ‘BJ-2026-0001’\u{1b}[0m"),
    (188, ""),
    (189, "\u{1b}[32m- Expected\u{1b}[0m"),
    (190, "\u{1b}[31m+ Received\u{1b}[0m"),
    (195, "\u{1b}[36m❯ src/number/branch.test.ts:\u{1b}[2m88:31\u{1b}[0m"),
    (196, "\u{1b}[2m  86|\u{1b}[0m   const bj = next(office(\u{1b}[33m\"BJ\"\u{1b}[0m), \u{1b}[35m2026\u{1b}[0m)"),
    (201, "\u{1b}[7;31m FAIL \u{1b}[0m src/number/branch.test.ts > survives two writers in the same second"),
    (202, "\u{1b}[31mError: duplicate number SH-2026-0002, written by office BJ and office SH within 4 ms\u{1b}[0m"),
    (206, "      Tests  \u{1b}[31m2 failed\u{1b}[0m | \u{1b}[32m346 passed\u{1b}[0m \u{1b}[2m(348)\u{1b}[0m"),
    (209, "\u{1b}[31mstep test ended with exit code 1\u{1b}[0m"),
];

fn folded(step: usize, name: &str, took_ms: i64, from: u64, to: u64) -> LogGroup {
    LogGroup {
        step,
        name: s(name),
        state: StepState::Passed,
        took_ms: Some(took_ms),
        open: false,
        range: Some((from, to)),
        lines: Vec::new(),
    }
}

fn log() -> LogView {
    let mut painter = Painter::new();
    let lines = TEST_LOG
        .iter()
        .map(|(number, text)| LogLine::new(*number, text, matches!(number, 187 | 202), &mut painter))
        .collect();
    LogView {
        groups: vec![
            folded(0, "checkout", 3_000, 1, 3),
            folded(1, "install", 11_000, 1, 29),
            folded(2, "lint", 8_000, 1, 8),
            LogGroup {
                step: 3,
                name: s("test"),
                state: StepState::Failed,
                took_ms: Some(131_000),
                open: true,
                range: Some((1, 209)),
                lines,
            },
        ],
        total_lines: 249,
        errors: vec![LineId { step: 3, line: 187 }, LineId { step: 3, line: 202 }],
        next: s("3,29,8,209"),
        search: None,
        follows: false,
        truncated: false,
    }
}

pub(in super::super) fn run() -> RunView {
    RunView {
        service: s("invoices"),
        run: 218,
        commit: s("7be01f4"),
        subject: s("Invoice numbers per branch office"),
        ref_name: s("main"),
        by: s("dev-cy"),
        trigger: Trigger::Push,
        at_ms: NOW - 14 * MINUTE,
        took_ms: Some(153_000),
        state: RunState::Failed { phase: Phase::Step(s("test")) },
        why: Some(Why::StepFailed { step: s("test"), exit_code: 1, line: None, told: Some(s("dev-cy")) }),
        stays_live: Some(s("2.2.6")),
        ask: None,
        problems: Vec::new(),
        digest: None,
        train: None,
        steps: vec![
            step("checkout", StepState::Passed, Some(3_000), Some(3_000)),
            step("install", StepState::Passed, Some(11_000), Some(12_000)),
            step("lint", StepState::Passed, Some(8_000), Some(8_000)),
            step("test", StepState::Failed, Some(131_000), Some(118_000)),
            step("image", StepState::NotReached, None, Some(40_000)),
            step("push", StepState::NotReached, None, None),
        ],
        median_over: 20,
        log: log(),
        rerun: Press::to("/services/invoices/runs/218/rerun"),
        cancel: Press::to("/services/invoices/runs/218/cancel")
            .unless(Some(Disabled::RunEnded { at_ms: NOW - 6 * MINUTE })),
    }
}

pub(super) fn other_states() -> Vec<(&'static str, RunView)> {
    let rerun = Press::to("/").unless(Some(Disabled::RunNotEnded));
    let mut queued = run();
    queued.state = RunState::Queued { position: 2, of: 5 };
    queued.why = Some(Why::Queued { position: 2, of: 5, behind: Some((s("checkout"), 411)) });
    queued.took_ms = None;
    queued.steps.iter_mut().for_each(|step| (step.state, step.took_ms) = (StepState::Waiting, None));
    queued.log = LogView { follows: true, ..LogView::default() };
    queued.cancel = Press::to("/services/invoices/runs/218/cancel");
    queued.rerun = rerun.clone();

    let mut running = run();
    running.state = RunState::Running { phase: Phase::Step(s("test")) };
    running.why = Some(Why::Running { phase: Phase::Step(s("test")), elapsed_ms: 48_000, usual_ms: Some(118_000) });
    running.steps[3] = step("test", StepState::Running, Some(48_000), Some(118_000));
    running.log.follows = true;
    running.log.groups[3].state = StepState::Running;
    running.log.errors.clear();
    running.cancel = Press::to("/services/invoices/runs/218/cancel");
    running.rerun = rerun;

    let mut passed = run();
    passed.state = RunState::Passed;
    passed.why = None;
    passed.digest = Some(s(DIGEST));
    passed.train = Some(super::releases::checkout_train(false));
    passed
        .steps
        .iter_mut()
        .for_each(|step| (step.state, step.took_ms) = (StepState::Passed, step.took_ms.or(Some(9_000))));
    passed.log.groups[3].state = StepState::Passed;
    passed.log.errors.clear();
    let mut painter = Painter::new();
    let hit =
        LogHit { step: 3, name: s("test"), line: LogLine::new(178, "gives the first number", false, &mut painter) };
    passed.log.search = Some(LogSearch { query: s("<first>"), hits: vec![hit], total: 1 });
    passed.log.truncated = true;

    let mut fault = run();
    fault.state = RunState::Fault { phase: Phase::Image };
    fault.why =
        Some(Why::Fault { party: Party::Runner, answer: Answer::LostHeartbeat, attempt: 2, next_in_ms: 30_000 });
    fault.steps[3].state = StepState::Fault;
    fault.log.groups[3].state = StepState::Fault;

    let mut invalid = run();
    invalid.state = RunState::FileInvalid;
    invalid.why = Some(Why::FileInvalid { file: s(".windlass.yaml"), problems: 1 });
    invalid.log = LogView::default();
    invalid.problems = vec![FileProblem {
        at: s(".windlass.yaml:7:3"),
        message: s("unknown key `brances`"),
        excerpt: s("7 |   brances: [main]\n  |   ^^^^^^^"),
        suggestion: Some(s("branches: [main]")),
    }];
    vec![("queued", queued), ("running", running), ("passed", passed), ("fault", fault), ("invalid", invalid)]
}

/// A queue with a run that no runner can take, and runners of every state.
pub(super) fn runners() -> RunnersView {
    let run = |service: &str, number| RunLink { service: s(service), number };
    let line = |name: &str, state, embedded| RunnerLine {
        name: s(name),
        embedded,
        state,
        heard_at_ms: NOW - 4_000,
        labels: s("arch=amd64, os=linux"),
        capacity: 2,
        version: s("0.1.0"),
        runs: vec![run("checkout", 412)],
        steer: ("drain", Press::to("/runners/x/drain")),
        remove: (!embedded).then(|| Press::to("/runners/x/remove")),
    };
    RunnersView {
        waiting: vec![
            WaitingLine {
                run: run("payments", 88),
                position: 1,
                since_ms: NOW - 90_000,
                why: Why::Queued { position: 1, of: 2, behind: None },
                lost: vec![s("box-3")],
            },
            WaitingLine {
                run: run("vision", 9),
                position: 2,
                since_ms: NOW - 600_000,
                why: Why::NoRunner { labels: s("gpu=true") },
                lost: Vec::new(),
            },
        ],
        waiting_in_all: 2,
        runners: vec![
            line("box-1", RunnerState::Active, false),
            line("box-2", RunnerState::Draining, false),
            line("box-3", RunnerState::Silent, false),
            line("embedded", RunnerState::Active, true),
        ],
        can_register: true,
        new_token: None,
        server_url: s("https://windlass.example.com"),
    }
}
