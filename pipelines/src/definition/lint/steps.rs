//! The rules of `steps`: each step, unique names, and an order without cycles.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::definition::diagnostic::{Code, Diagnostic, Place};
use crate::definition::model::{Event, OnFailure, SecretUse, Step, When};
use crate::definition::names::{Glob, StepName, VariableName};
use crate::definition::reader::{Fields, Lint, NamedSecret, Shape};
use crate::definition::tree::{Content, Entry, Node};
use crate::definition::units::TimeSpan;
use crate::definition::value::{nearest, quote};

use super::{LATER_STEP, time_span};

const STEPS_MAX: usize = 100;
const COMMANDS_MAX: usize = 500;
const VARIABLES_MAX: usize = 200;
const VARIABLE_MAX_BYTES: usize = 32 * 1024;
const SECRETS_MAX: usize = 50;
const PATTERNS_MAX: usize = 50;

/// Names that the run itself uses for its stations; a step of that name could not be told from them.
const RESERVED: [&str; 3] = ["checkout", "image", "push"];

pub(in crate::definition) const STEP: Shape = Shape {
    what: "a step",
    keys: &["name", "image", "commands", "environment", "secrets", "timeout", "when", "depends_on", "failure"],
    later: &[
        ("retry", LATER_STEP),
        ("cache", "remove it; the workspace is shared by all steps, and image layers are cached"),
        ("artifacts", "remove it; until it works, only the image leaves the run"),
        ("matrix", "remove it; until it works, write one step for each combination"),
        ("services", "remove it; until it works, start what the tests need inside of the step"),
        ("labels", "remove it; write `labels` at the top of the file: all steps of a run are with one runner"),
        ("settings", "remove it; write `commands`"),
        ("volumes", "remove it; steps share the workspace and nothing of the machine"),
        ("privileged", "remove it; steps never run privileged"),
        ("detach", LATER_STEP),
        ("entrypoint", "remove it; the commands are run by `/bin/sh`"),
        ("directory", "remove it; write `cd folder` as the first command"),
        ("pull", "remove it; an image is pulled where it is not there"),
    ],
};
pub(in crate::definition) const SECRET_USE: Shape = Shape {
    what: "a secret",
    keys: &["name", "as"],
    later: &[("value", "remove it; the file is readable by all: set the value with `windlass secret set`")],
};
pub(in crate::definition) const WHEN: Shape = Shape {
    what: "`when`",
    keys: &["event", "branch", "tag"],
    later: &[
        ("path", LATER_STEP),
        ("status", LATER_STEP),
        ("cron", LATER_STEP),
        ("ref", "remove it; write `branch` or `tag`"),
        ("repo", LATER_STEP),
        ("matrix", LATER_STEP),
        ("evaluate", LATER_STEP),
        ("platform", LATER_STEP),
    ],
};

/// What is needed of a step to see whether the order is sound, and the rest where it could be read.
struct Draft {
    name: StepName,
    place: Place,
    depends_on: Vec<StepName>,
    step: Option<Step>,
    /// Where each dependency is written; none where the step waits for the one before it.
    written: Option<Vec<(StepName, Place)>>,
}

pub(super) fn steps(lint: &mut Lint, node: &Node) -> Vec<Step> {
    let items = lint.items(node, "steps", STEPS_MAX);
    let mut drafts: Vec<Draft> = Vec::new();
    let mut broken = false;
    for item in items {
        match step(lint, item) {
            Some(draft) => drafts.push(draft),
            None => broken = true,
        }
    }
    unique_names(lint, &drafts);
    // Where a name could not be read, what waits for it would be blamed for nothing.
    if !broken {
        known_names(lint, &mut drafts);
        no_cycle(lint, &drafts);
    }
    let filled = |draft: Draft| draft.step.map(|step| Step { depends_on: draft.depends_on, ..step });
    drafts.into_iter().filter_map(filled).collect()
}

fn step(lint: &mut Lint, node: &Node) -> Option<Draft> {
    let fields = lint.fields(node, node.place, &STEP)?;
    let name_entry = lint.required(&fields, "name", STEP.what, "write a name, such as `name: test`");
    let name = name_entry.and_then(|entry| lint.text::<StepName>(&entry.value, "name"));
    if let (Some(name), Some(entry)) = (&name, name_entry)
        && RESERVED.contains(&name.as_str())
    {
        let message = format!("the name {} is the run's own", quote(name.as_str()));
        lint.report(
            Diagnostic::error(Code::DuplicateName, entry.value.place, message)
                .why("a run shows `checkout`, `image` and `push` beside the steps")
                .help("give the step another name"),
        );
    }
    let label = name.as_ref().map_or_else(|| STEP.what.to_owned(), |name| format!("the step {}", quote(name.as_str())));
    let image = lint
        .required(&fields, "image", &label, "write the image in which the commands run, such as `image: node:22`")
        .and_then(|entry| lint.text(&entry.value, "image"));
    let commands = lint
        .required(&fields, "commands", &label, "write what is to be done, such as `commands: [npm ci, npm test]`")
        .map(|entry| commands(lint, entry));
    let mut uses = Vec::new();
    let environment = fields
        .get("environment")
        .map(|entry| {
            reserved_variables(lint, entry);
            lint.variables(&entry.value, "environment", (VARIABLES_MAX, VARIABLE_MAX_BYTES), Some(&mut uses))
        })
        .unwrap_or_default();
    if let Some(entry) = fields.get("secrets") {
        uses.extend(secrets(lint, &entry.value));
    }
    one_secret_per_variable(lint, &uses, &environment);
    let day = TimeSpan::from_secs(24 * 3600);
    let timeout = time_span(lint, &fields, "timeout", TimeSpan::from_secs(1)..=day);
    let when = fields.get("when").and_then(|entry| when(lint, entry));
    let failure = failure(lint, &fields);
    let written = fields.get("depends_on").map(|entry| lint.texts::<StepName>(&entry.value, "depends_on", STEPS_MAX));
    let place = name_entry.map_or(node.place, |entry| entry.value.place);
    let name = name?;
    let step = match (image, commands) {
        (Some(image), Some(commands)) => Some(Step {
            name: name.clone(),
            image,
            commands,
            environment,
            secrets: uses.into_iter().map(|(secret, _)| secret).collect(),
            timeout,
            when,
            depends_on: Vec::new(),
            failure,
        }),
        _ => None,
    };
    Some(Draft { name, place, depends_on: Vec::new(), step, written })
}

fn commands(lint: &mut Lint, entry: &Entry) -> Vec<String> {
    let node = &entry.value;
    if let Content::List(items) = &node.content {
        for item in items {
            // `- echo: done` is what `- echo "a: b"` becomes when its quotes are forgotten.
            if let Content::Map(_) = item.content {
                lint.wrong_type(
                    item,
                    "commands",
                    "a list of texts",
                    "a command that holds `: ` needs quotes around all of it",
                );
                return Vec::new();
            }
        }
    }
    let commands: Vec<(String, Place)> = lint.texts(node, "commands", COMMANDS_MAX);
    if commands.iter().all(|(command, _)| command.trim().is_empty())
        && !matches!(&node.content, Content::List(items) if items.len() != commands.len())
        && !matches!(node.content, Content::Map(_) | Content::Refused)
    {
        lint.report(
            Diagnostic::error(Code::BadValue, entry.place, "the step has nothing to do")
                .help("write at least one command, or remove the step"),
        );
    }
    commands.into_iter().map(|(command, _)| command).collect()
}

/// Names, or names with the variable that is to hold the secret.
fn secrets(lint: &mut Lint, node: &Node) -> Vec<(SecretUse, Place)> {
    let items = match &node.content {
        Content::List(items) if items.len() > SECRETS_MAX => {
            lint.too_many(node, "secrets", SECRETS_MAX);
            return Vec::new();
        }
        Content::List(items) => items.as_slice(),
        Content::Map(_) => {
            let help = "write a list, such as `[DEPLOY_TOKEN, {name: NPM_TOKEN, as: TOKEN}]`";
            lint.wrong_type(node, "secrets", "a list", help);
            return Vec::new();
        }
        Content::Scalar(..) | Content::Refused => std::slice::from_ref(node),
    };
    items.iter().filter_map(|item| secret(lint, item).map(|secret| (secret, item.place))).collect()
}

fn secret(lint: &mut Lint, node: &Node) -> Option<SecretUse> {
    let Content::Map(_) = node.content else {
        let NamedSecret(name) = lint.text(node, "secrets")?;
        return Some(SecretUse { name, variable: None });
    };
    let fields = lint.fields(node, node.place, &SECRET_USE)?;
    let name = lint.required(&fields, "name", SECRET_USE.what, "write the name under which it is set on the server");
    let name = name.and_then(|entry| lint.text::<NamedSecret>(&entry.value, "name"));
    let variable = fields.get("as").and_then(|entry| {
        let variable: VariableName = lint.text(&entry.value, "as")?;
        is_free(lint, variable.as_str(), entry.value.place).then_some(variable)
    });
    name.map(|NamedSecret(name)| SecretUse { name, variable })
}

fn one_secret_per_variable(lint: &mut Lint, uses: &[(SecretUse, Place)], environment: &BTreeMap<VariableName, String>) {
    let mut seen: HashMap<&str, (u32, &SecretUse)> = HashMap::new();
    for (secret, place) in uses {
        let variable = secret.variable();
        let message = match seen.get(variable) {
            Some((_, other)) if other.name == secret.name => {
                format!("the secret {} is written twice", quote(secret.name.as_str()))
            }
            Some((_, other)) => format!(
                "{} would hold two secrets, {} and {}",
                quote(variable),
                quote(other.name.as_str()),
                quote(secret.name.as_str())
            ),
            None if environment.keys().any(|name| name.as_str() == variable) => {
                let message = format!("{} is a secret and stands in `environment` too", quote(variable));
                lint.report(
                    Diagnostic::error(Code::Conflict, *place, message)
                        .help("remove one of them, or name another variable with `as`"),
                );
                continue;
            }
            None => {
                seen.insert(variable, (place.line, secret));
                continue;
            }
        };
        let line = seen.get(variable).map_or(place.line, |(line, _)| *line);
        lint.report(
            Diagnostic::error(Code::DuplicateName, *place, message)
                .why(format!("the other one stands on line {line}"))
                .help("remove one of them, or name another variable with `as`"),
        );
    }
}

fn reserved_variables(lint: &mut Lint, entry: &Entry) {
    let Content::Map(variables) = &entry.value.content else { return };
    for variable in variables {
        is_free(lint, &variable.key, variable.place);
    }
}

fn is_free(lint: &mut Lint, variable: &str, place: Place) -> bool {
    let is_reserved = variable == "CI" || variable.starts_with("CI_");
    if is_reserved {
        let message = format!("{} is set by Windlass", quote(variable));
        lint.report(
            Diagnostic::error(Code::Conflict, place, message).help("choose a name that does not start with `CI_`"),
        );
    }
    !is_reserved
}

fn when(lint: &mut Lint, entry: &Entry) -> Option<When> {
    if let Content::List(_) = entry.value.content {
        let message = "a list of conditions is not supported yet";
        lint.report(
            Diagnostic::error(Code::NotSupportedYet, entry.value.place, message)
                .help("write one mapping; each of its keys takes a list: `when: {event: [push, tag]}`"),
        );
        return None;
    }
    let fields = lint.fields(&entry.value, entry.place, &WHEN)?;
    let event = fields.get("event").map(|entry| events(lint, &entry.value));
    let mut globs = |key: &str| -> Option<Vec<Glob>> {
        let node = &fields.get(key)?.value;
        Some(lint.texts(node, key, PATTERNS_MAX).into_iter().map(|(glob, _)| glob).collect())
    };
    Some(When { event, branch: globs("branch"), tag: globs("tag") })
}

fn events(lint: &mut Lint, node: &Node) -> Vec<Event> {
    const EVENTS: [(&str, Event); 4] =
        [("push", Event::Push), ("tag", Event::Tag), ("pull_request", Event::PullRequest), ("manual", Event::Manual)];
    let nodes = match &node.content {
        Content::List(items) if items.len() > PATTERNS_MAX => {
            lint.too_many(node, "event", PATTERNS_MAX);
            return Vec::new();
        }
        Content::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut events = Vec::new();
    for node in nodes {
        if let Content::Scalar(text, _) = &node.content
            && ["cron", "deployment", "release"].contains(&text.as_str())
        {
            let message = format!("the event {} is not supported yet", quote(text));
            lint.report(
                Diagnostic::error(Code::NotSupportedYet, node.place, message)
                    .help("write `push`, `tag`, `pull_request` or `manual`"),
            );
            continue;
        }
        events.extend(lint.choice(node, "event", &EVENTS));
    }
    events
}

fn failure(lint: &mut Lint, fields: &Fields<'_>) -> OnFailure {
    fields
        .get("failure")
        .and_then(|entry| {
            lint.choice(&entry.value, "failure", &[("fail", OnFailure::Fail), ("ignore", OnFailure::Ignore)])
        })
        .unwrap_or_default()
}

fn unique_names(lint: &mut Lint, drafts: &[Draft]) {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for draft in drafts {
        let name = draft.name.as_str();
        if let Some(line) = seen.get(name) {
            lint.report(
                Diagnostic::error(Code::DuplicateName, draft.place, format!("two steps are called {}", quote(name)))
                    .why(format!("the other one stands on line {line}"))
                    .help("give each step a name of its own"),
            );
        } else {
            seen.insert(name, draft.place.line);
        }
    }
}

/// Fills in what each step waits for, and reports names that no step has.
fn known_names(lint: &mut Lint, drafts: &mut [Draft]) {
    let names: Vec<StepName> = drafts.iter().map(|draft| draft.name.clone()).collect();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let Some(written) = &draft.written else {
            let before = index.checked_sub(1).and_then(|before| names.get(before));
            draft.depends_on = before.cloned().into_iter().collect();
            continue;
        };
        for (name, place) in written {
            if names.contains(name) {
                if !draft.depends_on.contains(name) {
                    draft.depends_on.push(name.clone());
                }
                continue;
            }
            let others = names.iter().filter(|other| **other != draft.name).map(StepName::as_str);
            let help = match nearest(name.as_str(), others) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write the name of a step of this file".to_owned(),
            };
            let message = format!("there is no step {}", quote(name.as_str()));
            lint.report(Diagnostic::error(Code::UnknownStep, *place, message).help(help));
        }
    }
}

/// Takes away, again and again, the steps that wait for nothing that is left; what remains waits in a circle.
fn no_cycle(lint: &mut Lint, drafts: &[Draft]) {
    let mut left: Vec<&Draft> = drafts.iter().collect();
    let mut passed: HashSet<&str> = HashSet::new();
    loop {
        let before = left.len();
        left.retain(|draft| {
            let ready = draft.depends_on.iter().all(|name| passed.contains(name.as_str()));
            if ready {
                passed.insert(draft.name.as_str());
            }
            !ready
        });
        if left.is_empty() {
            return;
        }
        if left.len() == before {
            break;
        }
    }
    // Follow what each waits for until a step comes again: from there on it is the circle.
    let by_name: HashMap<&str, &Draft> = left.iter().map(|draft| (draft.name.as_str(), *draft)).collect();
    let mut path: Vec<&Draft> = Vec::new();
    let mut next = left.first().copied();
    while let Some(draft) = next {
        if let Some(start) = path.iter().position(|earlier| earlier.name == draft.name) {
            report_cycle(lint, &path[start..]);
            return;
        }
        path.push(draft);
        next = draft.depends_on.iter().find_map(|name| by_name.get(name.as_str()).copied());
    }
}

fn report_cycle(lint: &mut Lint, circle: &[&Draft]) {
    let Some(first) = circle.first() else { return };
    let place = circle
        .iter()
        .find_map(|draft| draft.written.as_ref().and_then(|written| written.first()))
        .map_or(first.place, |(_, place)| *place);
    let mut names: Vec<String> = circle.iter().map(|draft| quote(draft.name.as_str())).collect();
    names.push(quote(first.name.as_str()));
    let mut diagnostic = if circle.len() == 1 {
        Diagnostic::error(Code::Cycle, place, format!("the step {} waits for itself", names[0]))
    } else {
        Diagnostic::error(Code::Cycle, place, format!("steps wait for each other: {}", names.join(" → ")))
    };
    if let Some(implicit) = circle.iter().find(|draft| draft.written.is_none()) {
        diagnostic = diagnostic.why(format!(
            "{} has no `depends_on`, and so waits for the step written before it",
            quote(implicit.name.as_str())
        ));
    }
    lint.report(diagnostic.help("remove one of these dependencies; `depends_on: []` waits for nothing"));
}
