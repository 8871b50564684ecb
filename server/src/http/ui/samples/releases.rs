//! Samples of the board, the approval and the rollout.

use super::super::Disabled;
use super::super::approval::{
    ApprovalState, ApprovalView, AskedAs, Asking, Commit, DecideForm, DecideProblem, Diff, DiffKind, Health, Plan,
    TestSite,
};
use super::super::board::{Action, BoardRow, BoardView, Finding, FindingState, FirstSteps, Group, NeedsYouView, Next};
use super::super::mail::Reminder;
use super::super::plot::{Plot, Sample};
use super::super::rollout::{
    CheckNote, CheckRow, RolloutState, RolloutView, Strategy, Verb, VerbButton, Verdict, WeightState, WeightStep,
};
use super::super::services::ServiceForm;
use super::super::train::{StationState, Train, Word};
use super::super::why::{Against, Answer, FailedCheck, Figure, Limit, Measure, Party, Phase, Why};
use super::{DAY, DIGEST, HOUR, MINUTE, NOW, Station, UNTIL, s, still, train};

fn row(service: &str, version: Option<&str>, run: u64, commit: &str, group: Group, train: Train) -> BoardRow {
    BoardRow {
        service: s(service),
        version: version.map(s),
        run,
        commit: s(commit),
        group,
        train,
        why: None,
        action: None,
    }
}

fn go(next: Next, solid: bool) -> Option<Action> {
    Some(Action::Go { next, href: s("/approvals/k7Qm2x"), solid })
}

fn idle(service: &str, version: &str, run: u64, commit: &str, days: i64) -> BoardRow {
    let live = Station::at(StationState::Live, Word::Live, NOW - days * DAY);
    let mut row = row(service, Some(version), run, commit, Group::Idle, train(&[days * DAY; 7], None, live));
    row.action = Some(Action::StartRun);
    row
}

pub(in super::super) fn board() -> BoardView {
    let mut checkout = row("checkout", Some("4.8.0"), 412, "a1b2c3d", Group::NeedsYou, checkout_train(true));
    checkout.why = Some(Why::YouAreTesting { build: 412, since_ms: NOW - 38 * MINUTE, until_ms: UNTIL });
    checkout.action = go(Next::Decide, true);

    let at = [3 * HOUR, 3 * HOUR, 3 * HOUR, 3 * HOUR, HOUR, HOUR];
    let held = Some((StationState::Hold, Word::HeldAt { percent: 10 }, 21 * MINUTE));
    let mut storefront =
        row("storefront", Some("2.31.0"), 1093, "e04b7f9", Group::NeedsYou, train(&at, held, still("2.30.4", 4 * DAY)));
    storefront.why = Some(Why::TooFewRequests { have: 41, need: 200, until_ms: None });
    storefront.action = go(Next::OpenRollout, true);

    let failed = Some((StationState::Fail, Word::StepFailed { step: s("test") }, 6 * MINUTE));
    let mut invoices =
        row("invoices", None, 218, "7be01f4", Group::Failing, train(&[14 * MINUTE], failed, still("2.2.6", 11 * DAY)));
    invoices.why = Some(Why::StepFailed { step: s("test"), exit_code: 1, line: Some(187), told: Some(s("dev-cy")) });
    invoices.action = go(Next::SeeLine(187), false);

    let at = [2 * HOUR, 2 * HOUR, 2 * HOUR, 2 * HOUR, 58 * MINUTE, 57 * MINUTE];
    let back = Some((StationState::Back, Word::RolledBack, 31 * MINUTE));
    let mut search =
        row("search", Some("1.12.0"), 640, "c93d1aa", Group::Failing, train(&at, back, still("1.11.3", 9 * DAY)));
    search.why = Some(rolled_back());
    search.action = go(Next::SeeChecks, false);

    let at = [HOUR, HOUR, HOUR, HOUR, 5 * MINUTE];
    let fault = Some((StationState::Fault, Word::Retrying, 2 * MINUTE));
    let mut notifications = row(
        "notifications",
        Some("0.19.2"),
        355,
        "52ac0de",
        Group::Failing,
        train(&at, fault, still("0.19.1", 2 * DAY)),
    );
    notifications.why = Some(Why::Fault {
        party: Party::ProductionRegistry,
        answer: Answer::Status(503),
        attempt: 4,
        next_in_ms: 40_000,
    });
    notifications.action = go(Next::SeeTries, false);

    let mut payments = row("payments", Some("1.9.0"), 877, "b7d20c4", Group::Moving, payments_train());
    payments.why = Some(canary_why());
    payments.action = go(Next::Watch, false);

    let moving = Some((StationState::Move, Word::StepOf { n: 3, of: 5 }, MINUTE));
    let mut identity =
        row("identity", None, 531, "0f9e6b2", Group::Moving, train(&[2 * MINUTE], moving, still("3.4.0", DAY)));
    identity.why = Some(Why::Running { phase: Phase::Step(s("test")), elapsed_ms: 48_000, usual_ms: Some(2 * MINUTE) });
    identity.action = go(Next::FollowLog, false);

    BoardView {
        rows: vec![
            checkout,
            storefront,
            invoices,
            search,
            notifications,
            payments,
            identity,
            idle("catalog", "7.2.0", 1410, "91f0ab3", 2),
            idle("media", "1.0.14", 203, "d4475e8", 5),
            idle("pricing", "3.3.1", 98, "6a08c71", 20),
        ],
        only: None,
        first: None,
    }
}

/// A board of many rows, of all kinds in turn.
pub(in super::super) fn board_of(rows: usize) -> BoardView {
    let samples = board().rows;
    let rows = samples
        .iter()
        .cycle()
        .take(rows)
        .enumerate()
        .map(|(i, row)| {
            let mut row = row.clone();
            row.service = format!("{}-{i}", row.service);
            row.run += i as u64 * 7;
            row.commit = format!("{:07x}", (i as u64 + 3) * 48_611 % 0xfff_ffff);
            row
        })
        .collect();
    BoardView { rows, only: None, first: None }
}

pub(in super::super) fn needs_you() -> NeedsYouView {
    let rows = board().rows.into_iter().filter(|row| row.group == Group::NeedsYou).collect();
    NeedsYouView { rows }
}

pub(super) fn first_steps() -> BoardView {
    let find = |name: &str, state, evidence: &str| Finding { name: s(name), state, evidence: s(evidence) };
    BoardView {
        rows: Vec::new(),
        only: None,
        first: Some(FirstSteps {
            form: ServiceForm { name: s("checkout"), ..ServiceForm::empty() },
            server: vec![
                find("git", FindingState::Good, "found, 2.39"),
                find("Docker", FindingState::Good, "answers, API 1.41"),
                find("registries", FindingState::Good, "test and production answer, signed in"),
                find("mail", FindingState::Warning, "no SMTP server set; mails wait"),
                find("disk", FindingState::Good, "212 GiB free"),
            ],
        }),
    }
}

pub(super) fn checkout_train(claimed: bool) -> Train {
    let word = if claimed { Word::Yours } else { Word::NeedsYou };
    let age = if claimed { 38 } else { 47 };
    train(
        &[52 * MINUTE, 49 * MINUTE, 48 * MINUTE, 47 * MINUTE],
        Some((StationState::You, word, age * MINUTE)),
        still("4.7.1", 6 * DAY),
    )
}

fn payments_train() -> Train {
    train(
        &[5 * HOUR, 5 * HOUR, 5 * HOUR, 5 * HOUR, 26 * MINUTE, 25 * MINUTE],
        Some((StationState::Move, Word::Canary { percent: 25 }, 2 * MINUTE)),
        still("1.8.2", 13 * DAY),
    )
}

fn canary_why() -> Why {
    Why::Canary { percent: 25, step: 3, of: 6, next_percent: Some(50), next_in_ms: Some(250_000) }
}

fn rolled_back() -> Why {
    Why::RolledBack {
        percent: 25,
        failed: FailedCheck {
            measure: Measure::SuccessRate,
            value: Figure::Percent(97.1),
            against: Against::Limit(Limit { at_least: true, figure: Figure::Percent(99.0) }),
        },
        requests: 1_840,
        to: Some(s("1.11.3")),
        at_ms: NOW - 31 * MINUTE,
    }
}

pub(in super::super) fn commits() -> Vec<Commit> {
    [
        ("a1b2c3d", "Show the delivery date in the basket", "dev-cy"),
        ("77e09b1", "Ask for the phone number only once", "dev-cy"),
        ("4c1d8fe", "Round shipping cost per order, not per line", "manager-en"),
        ("b90a3c2", "Basket: keep the coupon after signing in", "tester-zm"),
        ("0d5e7aa", "Bump the date library to 4.1", "manager-en"),
    ]
    .into_iter()
    .map(|(id, subject, author)| Commit { id: s(id), subject: s(subject), author: s(author) })
    .collect()
}

pub(super) fn plan() -> Plan {
    Plan { strategy: Strategy::Canary, weights: vec![10, 50, 100] }
}

pub(in super::super) fn approval() -> ApprovalView {
    ApprovalView {
        service: s("checkout"),
        build: 412,
        version: s("4.8.0"),
        pushed_by: s("dev-cy"),
        pushed_at_ms: NOW - 52 * MINUTE,
        asked_as: AskedAs::Tester,
        id: s("k7Qm2x"),
        until_ms: UNTIL,
        train: checkout_train(false),
        test: Some(TestSite {
            url: s("https://checkout.test.example.com/"),
            health: Health::Healthy,
            answered: Some((200, 84)),
            checked_at_ms: NOW - 12_000,
            runs_this: true,
        }),
        how_to_test: Vec::new(),
        live_version: Some(s("4.7.1")),
        commits: commits(),
        more_commits: 0,
        steps_passed: 3,
        run_href: None,
        diff: Some(Diff {
            files: 9,
            added: 214,
            removed: 61,
            lines: vec![
                (DiffKind::Heading, s("src/basket/delivery.ts")),
                (DiffKind::Same, s("   const lines = basket.lines.map(priced)")),
                (DiffKind::Removed, s("-  return { lines, total: sum(lines) }")),
                (DiffKind::Added, s("+  const delivery = earliest(basket.address, now())")),
                (DiffKind::Added, s("+  return { lines, total: sum(lines), delivery }")),
                (DiffKind::Same, s(" }")),
            ],
            cut: true,
        }),
        digest: s(DIGEST),
        state: ApprovalState::Open,
        needed: 1,
        approved_by: Vec::new(),
        undecided: vec![s("tester-lw@example.com"), s("tester-zm@example.com")],
        next_reminder: Some((Reminder::HalfTime, NOW + 35 * HOUR)),
        undelivered: Vec::new(),
        you: Some(s("tester-lw@example.com")),
        plan: plan(),
        asking: None,
        form: Some(DecideForm {
            base: s("/a/k7Qm2x"),
            needs_code: true,
            code_sent_at_ms: None,
            code_valid_ms: 10 * MINUTE,
            code_tries: 5,
            problem: None,
            comment: String::new(),
            approve: None,
        }),
        request_id: None,
    }
}

pub(super) fn approval_states() -> Vec<(&'static str, ApprovalView)> {
    let at_ms = NOW - 11 * MINUTE;
    let zm = || s("tester-zm");
    let states = [
        ("open", ApprovalState::Open),
        ("yours", ApprovalState::YouAreTesting { since_ms: NOW - 38 * MINUTE }),
        ("others", ApprovalState::SomeoneIsTesting { who: zm(), since_ms: NOW - 29 * MINUTE }),
        ("approved", ApprovalState::Approved { by: vec![s("tester-lw")], at_ms, href: s("/") }),
        (
            "rejected",
            ApprovalState::Rejected { by: zm(), at_ms, comment: s("The date is missing for parcels to Hainan") },
        ),
        ("expired", ApprovalState::Expired { at_ms, have: 1, need: 2 }),
        ("superseded", ApprovalState::Superseded { build: 413, by: s("manager-en"), at_ms, href: Some(s("/a/x")) }),
        ("not-yours", ApprovalState::NotYours { mailed_to: s("tester-lw"), who_can: vec![s("tester-lw"), zm()] }),
        ("locked", ApprovalState::Locked),
        ("stale", ApprovalState::Stale),
    ];
    let mut views: Vec<_> =
        states.into_iter().map(|(name, state)| (name, ApprovalView { state, ..approval() })).collect();
    let mut wrong = approval();
    wrong.request_id = Some(s("01J6-8XQ2"));
    if let Some(form) = &mut wrong.form {
        form.problem = Some(DecideProblem::WrongCode { tries_left: 3 });
        form.comment = s("Looks <good>");
        form.code_sent_at_ms = Some(NOW - 3 * MINUTE);
        form.approve = Some(Disabled::OwnCommit);
    }
    let mut second = approval();
    (second.needed, second.approved_by) = (2, vec![(s("tester-zm"), NOW - 11 * MINUTE)]);
    second.undelivered = vec![(s("tester-lw@example.com"), s("550 <no> such user"))];
    let station = Station::at(StationState::You, Word::NeedsYouToo { have: 1, need: 2 }, NOW - 47 * MINUTE);
    second.train.stations[4] = station;
    views.push(("second", second.clone()));
    if let Some(form) = &mut second.form {
        form.approve = Some(Disabled::ApprovedAlready);
        form.problem = Some(DecideProblem::AlreadyApproved { missing: 1 });
    }
    (second.asked_as, second.next_reminder) = (AskedAs::Deputy, Some((Reminder::Deputy, NOW + HOUR)));
    second.train.stations[4] =
        Station::at(StationState::Wait, Word::ApprovedOf { have: 1, need: 2 }, NOW - 47 * MINUTE);
    views.push(("approved-already", second.clone()));
    (second.form, second.next_reminder) = (None, Some((Reminder::LastCall, NOW + HOUR)));
    views.push(("onlooker", second));
    let at_ms = NOW - 11 * MINUTE;
    let over = ApprovalView { state: ApprovalState::Expired { at_ms, have: 0, need: 1 }, form: None, ..approval() };
    views.push(("asked-again", ApprovalView { asking: Some(Asking::UnderWay), ..over.clone() }));
    views.push(("asked-too-often", ApprovalView { asking: Some(Asking::SignIn), ..over }));
    wrong.more_commits = 7;
    wrong.how_to_test = vec![s("Put two things into the basket, sign in."), s("Look at the delivery date.")];
    views.push(("wrong-code", wrong));
    views
}

/// A line that wanders the same way each time: no chance in a sample.
fn wander(from: i64, every: i64, n: i64, middle: f64, swing: f64, seed: f64) -> Vec<Sample> {
    (0..n)
        .map(|i| {
            let x = i as f64 + seed;
            let value = middle + swing * ((x * 1.7).sin() * 0.5 + (x * 0.53).sin() * 0.35 + (x * 3.1).cos() * 0.25);
            Sample { at_ms: from + i * every, value: Some(value), requests: 60 + (i as u64 * 7) % 23 }
        })
        .collect()
}

fn plot(measure: Measure, stable: f64, canary: f64, swing: f64, limit: Limit) -> Plot {
    let start = NOW - 24 * MINUTE;
    let mut plot = Plot {
        measure,
        stable: wander(start, 30_000, 49, stable, swing * 0.7, 0.0),
        canary: wander(start + 150_000, 30_000, 44, canary, swing, 11.0),
        limit: Some(limit),
        marks: vec![(start + 2 * MINUTE, 5), (start + 8 * MINUTE, 10), (start + 22 * MINUTE, 25)],
    };
    plot.canary[20].value = None;
    if measure == Measure::LatencyP99 {
        plot.canary[26].value = Some(576.0);
    }
    plot
}

fn at_most(ms: f64) -> Limit {
    Limit { at_least: false, figure: Figure::Ms(ms) }
}

fn check(measure: Measure, query: &str, canary: Figure, stable: Figure, limit: Limit) -> CheckRow {
    CheckRow {
        measure,
        query: s(query),
        verdict: Verdict::Pass,
        note: None,
        canary: Some(canary),
        stable: Some(stable),
        limit,
        requests: 2_316,
        history: vec![Verdict::Pass; 8],
    }
}

fn checks() -> Vec<CheckRow> {
    let least = Limit { at_least: true, figure: Figure::Percent(99.0) };
    let success = check(Measure::SuccessRate, "success_rate", Figure::Percent(99.64), Figure::Percent(99.71), least);
    let mut errors = check(
        Measure::ErrorsAgainstStable,
        "two proportions",
        Figure::Percent(0.36),
        Figure::Percent(0.29),
        Limit { at_least: true, figure: Figure::Probability(0.05) },
    );
    errors.note = Some(CheckNote::NoDifference { p: 0.53 });
    errors.history[0] = Verdict::Insufficient;
    let p95 = check(Measure::LatencyP95, "latency_p95", Figure::Ms(190.0), Figure::Ms(182.0), at_most(300.0));
    let mut p99 = check(Measure::LatencyP99, "latency_p99", Figure::Ms(334.0), Figure::Ms(318.0), at_most(500.0));
    p99.note = Some(CheckNote::FailedOnce { at_ms: NOW - 12 * MINUTE, in_a_row: 2 });
    p99.history[1] = Verdict::Fail;
    let mut few =
        check(Measure::LatencyAgainstStable, "mann-whitney", Figure::Ms(51.0), Figure::Ms(44.0), at_most(80.0));
    few.verdict = Verdict::Insufficient;
    few.note = Some(CheckNote::TooFew { have: 38, need: 100 });
    few.requests = 38;
    few.history = vec![Verdict::Insufficient; 8];
    vec![success, errors, p95, p99, few]
}

pub(in super::super) fn rollout() -> RolloutView {
    let least = Limit { at_least: true, figure: Figure::Percent(99.0) };
    let step = |percent, state| WeightStep { percent, state };
    let hold_ms = Some(10 * MINUTE);
    RolloutView {
        service: s("payments"),
        number: 31,
        build: 877,
        version: s("1.9.0"),
        from: Some(s("1.8.2")),
        strategy: Strategy::Canary,
        state: RolloutState::Healthy,
        percent: 25,
        step: 3,
        why: canary_why(),
        train: payments_train(),
        steps: vec![
            step(5, WeightState::Passed { took_ms: 6 * MINUTE }),
            step(10, WeightState::Passed { took_ms: 14 * MINUTE }),
            step(25, WeightState::Now { left_ms: Some(250_000) }),
            step(50, WeightState::NotYet { hold_ms }),
            step(75, WeightState::NotYet { hold_ms }),
            step(100, WeightState::NotYet { hold_ms: None }),
        ],
        preview: None,
        plots: vec![
            plot(Measure::SuccessRate, 99.72, 99.61, 0.14, least),
            plot(Measure::LatencyP50, 44.0, 48.0, 4.0, at_most(80.0)),
            plot(Measure::LatencyP95, 180.0, 190.0, 16.0, at_most(300.0)),
            plot(Measure::LatencyP99, 315.0, 330.0, 28.0, at_most(500.0)),
        ],
        checks: checks(),
        judged_every_ms: 2 * MINUTE,
        judged_since_ms: Some(NOW - 2 * MINUTE),
        verbs: vec![
            VerbButton { verb: Verb::Promote { to_percent: 50 }, disabled: None },
            VerbButton { verb: Verb::PromoteFully, disabled: None },
            VerbButton { verb: Verb::Pause { at_percent: 25 }, disabled: None },
            VerbButton { verb: Verb::Abort { to: Some(s("1.8.2")) }, disabled: None },
        ],
    }
}

pub(super) fn rollout_states() -> Vec<(&'static str, RolloutView)> {
    let mut held = rollout();
    (held.state, held.percent, held.step) = (RolloutState::Held, 10, 2);
    held.why = Why::TooFewRequests { have: 41, need: 200, until_ms: Some(NOW + 4 * HOUR) };
    held.steps[1].state = WeightState::Held { since_ms: NOW - 21 * MINUTE };
    held.steps[2].state = WeightState::NotYet { hold_ms: None };
    let mut paused = rollout();
    paused.state = RolloutState::Paused;
    paused.why = Why::Paused { by: s("tester-zm") };
    paused.verbs[0].disabled = Some(Disabled::PausedResumeFirst);
    paused.verbs[2] = VerbButton { verb: Verb::Resume, disabled: None };
    let mut back = rollout();
    back.state = RolloutState::RolledBack;
    back.why = rolled_back();
    back.steps[2].state = WeightState::BackFrom;
    back.verbs = vec![VerbButton { verb: Verb::TryAgain, disabled: None }];
    let mut rolling = rollout();
    (rolling.strategy, rolling.step, rolling.plots, rolling.checks) = (Strategy::Rolling, 1, Vec::new(), Vec::new());
    rolling.steps.truncate(2);
    rolling.why = Why::Rolling { ready: 1, of: 2 };
    let mut blue = rollout();
    (blue.strategy, blue.steps, blue.from) = (Strategy::BlueGreen, Vec::new(), None);
    blue.preview = Some((s("http://payments-preview.test.localhost:8080/"), Health::Healthy));
    blue.why = Why::Preview { switches_in_ms: Some(2 * MINUTE) };
    for plot in &mut blue.plots {
        plot.stable.clear();
        plot.canary.clear();
    }
    vec![
        ("canary", rollout()),
        ("held", held),
        ("paused", paused),
        ("back", back),
        ("rolling", rolling),
        ("blue-green", blue),
    ]
}
