//! The rules of `production`: the strategy, and which of the other keys it has a use for.

use std::collections::HashMap;

use crate::definition::diagnostic::{Code, Diagnostic};
use crate::definition::model::{CanaryStep, Check, Insufficient, Judge, Production, Strategy};
use crate::definition::reader::{Fields, Lint, Shape, list};
use crate::definition::tree::{Content, Entry, Kind, Node};
use crate::definition::units::{TimeSpan, Weight};
use crate::definition::value::quote;

use super::time_span;

const CANARY_STEPS_MAX: usize = 50;
const CHECKS_MAX: usize = 20;
const MIN_REQUESTS_MAX: i64 = 1_000_000_000;

pub(in crate::definition) const PRODUCTION: Shape = Shape {
    what: "`production`",
    keys: &["strategy", "steps", "checks", "judge", "preview", "keep"],
    later: &[("replicas", "remove it; write `replicas` in `values`"), ("approvals", "remove it; write it in `test`")],
};
pub(in crate::definition) const CANARY_STEP: Shape = Shape {
    what: "a step of `production`",
    keys: &["weight", "hold"],
    later: &[("header", "remove it; until it works, traffic is divided by weight alone")],
};
pub(in crate::definition) const CHECK: Shape = Shape {
    what: "a check",
    keys: &["success_rate", "latency_p50", "latency_p95", "latency_p99"],
    later: &[
        ("query", "remove it; until it works, write `success_rate` or `latency_p99`"),
        ("webhook", "remove it; until it works, write `success_rate` or `latency_p99`"),
        ("manual", "remove it; a rollout can be paused by hand at any time"),
        ("compare", "remove it; write `judge: {compare: true}`, which is the default"),
    ],
};
pub(in crate::definition) const JUDGE: Shape = Shape {
    what: "`judge`",
    keys: &["compare", "min_requests", "insufficient", "insufficient_limit"],
    later: &[("confidence", "remove it; until it works, the judge's own confidence is used")],
};

pub(super) fn production(lint: &mut Lint, entry: &Entry) -> Production {
    const STRATEGIES: [(&str, Strategy); 3] =
        [("canary", Strategy::Canary), ("blue-green", Strategy::BlueGreen), ("rolling", Strategy::Rolling)];
    let mut production = Production::default();
    let Some(fields) = lint.fields(&entry.value, entry.place, &PRODUCTION) else { return production };
    let written = fields.get("strategy");
    if let Some(entry) = written {
        match lint.choice(&entry.value, "strategy", &STRATEGIES) {
            Some(strategy) => production.strategy = strategy,
            // Without a strategy no other key can be judged.
            None => return production,
        }
    }
    useless_keys(lint, &fields, production.strategy, written.is_some());
    if let Some(entry) = fields.get("steps") {
        production.steps = canary_steps(lint, entry);
    } else if production.strategy == Strategy::Canary {
        production.steps = Production::default_steps();
    }
    if let Some(entry) = fields.get("checks") {
        production.checks = checks(lint, entry);
    } else if production.strategy != Strategy::Rolling {
        production.checks = Production::default_checks();
    }
    production.judge = fields.get("judge").map(|entry| judge(lint, entry));
    let week = TimeSpan::from_secs(7 * 24 * 3600);
    production.preview = time_span(lint, &fields, "preview", TimeSpan::from_secs(0)..=week);
    production.keep = time_span(lint, &fields, "keep", TimeSpan::from_secs(0)..=week);
    production
}

fn useless_keys(lint: &mut Lint, fields: &Fields<'_>, strategy: Strategy, written: bool) {
    let (word, useless): (&str, &[(&str, &str)]) = match strategy {
        Strategy::Rolling => (
            "rolling",
            &[
                ("steps", "canary"),
                ("checks", "canary"),
                ("judge", "canary"),
                ("preview", "blue-green"),
                ("keep", "blue-green"),
            ],
        ),
        Strategy::BlueGreen => ("blue-green", &[("steps", "canary")]),
        Strategy::Canary => ("canary", &[("preview", "blue-green"), ("keep", "blue-green")]),
    };
    for (key, fit) in useless {
        let Some(entry) = fields.get(key) else { continue };
        let message = format!("{} has no use with the strategy `{word}`", quote(key));
        let mut diagnostic = Diagnostic::error(Code::Conflict, entry.place, message)
            .help(format!("write `strategy: {fit}`, or remove {}", quote(key)));
        if !written {
            diagnostic = diagnostic.why("`rolling` is the strategy where none is written");
        }
        lint.report(diagnostic);
    }
}

fn canary_steps(lint: &mut Lint, entry: &Entry) -> Vec<CanaryStep> {
    let mut steps: Vec<CanaryStep> = Vec::new();
    let items = lint.items(&entry.value, "steps", CANARY_STEPS_MAX);
    if items.is_empty() && matches!(entry.value.content, Content::List(_)) {
        lint.report(
            Diagnostic::error(Code::BadValue, entry.place, "a canary without a step is no canary")
                .help("write `steps: [{weight: 10, hold: 2m}]`, or remove the key to get the default"),
        );
    }
    let mut highest = 0;
    for item in items {
        let Some(fields) = lint.fields(item, item.place, &CANARY_STEP) else { continue };
        let hold = time_span(lint, &fields, "hold", TimeSpan::from_secs(1)..=TimeSpan::from_secs(7 * 24 * 3600));
        let Some(entry) = lint.required(&fields, "weight", CANARY_STEP.what, "write a percentage: `weight: 10`") else {
            continue;
        };
        let Some(weight) = weight(lint, &entry.value) else { continue };
        if weight.percent() <= highest {
            let message = format!("the weight {} does not grow: the step before has {highest}", weight.percent());
            lint.report(
                Diagnostic::error(Code::BadValue, entry.value.place, message)
                    .help("write the steps with growing weights, such as 10, 25, 50"),
            );
            continue;
        }
        highest = weight.percent();
        if weight != Weight::FULL {
            steps.push(CanaryStep { weight, hold: hold.unwrap_or(CanaryStep::default_hold()) });
        } else if let Some(hold) = fields.get("hold") {
            lint.report(
                Diagnostic::error(Code::Conflict, hold.place, "a step of 100 % cannot be held")
                    .why("with all traffic on the new version the rollout is over")
                    .help("remove the step: 100 % comes by itself after the last one"),
            );
        } else if items.len() == 1 {
            lint.report(
                Diagnostic::error(Code::BadValue, entry.value.place, "a canary that starts with 100 % is no canary")
                    .help("write a smaller weight first, or `strategy: rolling`"),
            );
        }
    }
    steps
}

fn weight(lint: &mut Lint, node: &Node) -> Option<Weight> {
    if let Content::Scalar(text, Kind::Float(_)) = &node.content {
        let message = format!("the weight {} is not a whole number", quote(text));
        lint.report(
            Diagnostic::error(Code::BadValue, node.place, message).help("write a whole percentage from 1 to 100"),
        );
        return None;
    }
    let percent = lint.integer(node, "weight", 1..=100)?;
    u8::try_from(percent).ok().and_then(|percent| Weight::new(percent).ok())
}

fn checks(lint: &mut Lint, entry: &Entry) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let items = lint.items(&entry.value, "checks", CHECKS_MAX);
    if items.is_empty() && matches!(entry.value.content, Content::List(_)) {
        lint.report(
            Diagnostic::error(Code::BadValue, entry.place, "without a check nothing would be judged")
                .help("write a check, or remove the key to get `success_rate: \">= 99%\"`"),
        );
    }
    for item in items {
        if let Content::Map(entries) = &item.content
            && entries.len() != 1
        {
            let message = format!("a check has one key, and this one has {}", entries.len());
            lint.report(
                Diagnostic::error(Code::WrongType, item.place, message)
                    .help("put `- ` before each check, or braces around each: `[{success_rate: \">= 99%\"}, {…}]`"),
            );
        }
        let Some(fields) = lint.fields(item, item.place, &CHECK) else { continue };
        for key in CHECK.keys {
            let Some(entry) = fields.get(key) else { continue };
            if let Some(line) = seen.insert(key, entry.place.line) {
                let message = format!("{} is checked twice", quote(key));
                lint.report(
                    Diagnostic::error(Code::DuplicateName, entry.place, message)
                        .why(format!("it stands on line {line} already"))
                        .help("keep the stricter one"),
                );
            }
            checks.extend(check(lint, key, &entry.value));
        }
    }
    checks
}

fn check(lint: &mut Lint, key: &str, node: &Node) -> Option<Check> {
    match key {
        "success_rate" => lint.text(node, key).map(Check::SuccessRate),
        "latency_p50" => lint.text(node, key).map(Check::LatencyP50),
        "latency_p95" => lint.text(node, key).map(Check::LatencyP95),
        "latency_p99" => lint.text(node, key).map(Check::LatencyP99),
        _ => None,
    }
}

fn judge(lint: &mut Lint, entry: &Entry) -> Judge {
    let mut judge = Judge::default();
    let Some(fields) = lint.fields(&entry.value, entry.place, &JUDGE) else { return judge };
    if let Some(compare) = fields.get("compare").and_then(|entry| lint.boolean(&entry.value, "compare")) {
        judge.compare = compare;
    }
    let min_requests =
        fields.get("min_requests").and_then(|entry| lint.integer(&entry.value, "min_requests", 1..=MIN_REQUESTS_MAX));
    if let Some(min_requests) = min_requests.and_then(|n| u64::try_from(n).ok()) {
        judge.min_requests = min_requests;
    }
    if let Some(entry) = fields.get("insufficient") {
        judge.insufficient = insufficient(lint, &entry.value);
    }
    let bounds = TimeSpan::from_secs(1)..=TimeSpan::from_secs(7 * 24 * 3600);
    if let Some(limit) = time_span(lint, &fields, "insufficient_limit", bounds) {
        judge.insufficient_limit = limit;
    }
    judge
}

fn insufficient(lint: &mut Lint, node: &Node) -> Insufficient {
    let refused = match &node.content {
        Content::Scalar(text, _) if text == "pass" => {
            Some(Diagnostic::error(Code::BadValue, node.place, "too few requests cannot count as passed"))
        }
        Content::Scalar(text, _) if ["fail", "rollback", "abort"].contains(&text.as_str()) => {
            Some(Diagnostic::error(Code::NotSupportedYet, node.place, format!("{} is not supported yet", quote(text))))
        }
        _ => None,
    };
    if let Some(diagnostic) = refused {
        let words = list(&["hold"]);
        lint.report(diagnostic.help(format!("write {words}: after `insufficient_limit` a person is asked")));
        return Insufficient::default();
    }
    lint.choice(node, "insufficient", &[("hold", Insufficient::Hold)]).unwrap_or_default()
}
