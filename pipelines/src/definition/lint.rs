//! The rules of the top of the file, `on`, `network`, `image`, `values`. Steps, `test` and
//! production have files of their own beside this one.

mod production;
mod steps;
mod test;

use std::collections::HashMap;
use std::str::FromStr;

use super::base::{BaseRef, DOCKERFILE_BASE};
use super::diagnostic::{Code, Diagnostic, Place};
use super::model::{Definition, Health, ImageBuild, Network, On, Production};
use super::names::{Call, Glob};
use super::reader::{Fields, Lint, Shape};
use super::tree::{Content, Entry, Kind, Node};
use super::units::TimeSpan;
use super::value::{ValueError, quote};
use crate::ids::{SERVICE_NAME_MAX_CHARS, ServiceName};
use crate::labels::{LABELS_MAX, Labels};

const BRANCHES_MAX: usize = 50;
const CALLS_MAX: usize = 100;
const ARGS_MAX: usize = 100;
const ARG_MAX_BYTES: usize = 32 * 1024;

const LATER_STEP: &str = "remove it; until it works, a step can do it with its commands";

const FILE: Shape = Shape {
    what: "the pipeline file",
    keys: &["service", "base", "on", "labels", "network", "steps", "image", "values", "test", "production"],
    later: &[
        ("uses", "remove it; until it works, install the middleware yourself and pass its address in `values`"),
        ("storage", "remove it; until it works, only services without storage of their own can be delivered"),
        ("services", "remove it; until it works, start what the tests need inside of a step"),
        ("matrix", "remove it; until it works, write one step for each combination"),
        ("workspace", "remove it; all steps work in the checkout, at `$CI_WORKSPACE`"),
        ("concurrency", "remove it; runs of one service wait for each other where they must"),
        ("retry", "remove it; until it works, run again by hand"),
        ("cache", "remove it; image layers are cached without it"),
        ("artifacts", "remove it; until it works, only the image leaves the run"),
        ("timeout", "remove it; write `timeout` at the steps"),
        ("when", "remove it; write `when` at the steps, and `on` for what makes a release"),
        ("environment", "remove it; write `environment` at the steps"),
        ("secrets", "remove it; write `secrets` at the steps that need them"),
    ],
};
const ON: Shape = Shape {
    what: "`on`",
    keys: &["branches", "tags"],
    later: &[
        ("cron", "remove it; until it works, start runs from outside by the API"),
        ("schedule", "remove it; until it works, start runs from outside by the API"),
        ("pull_requests", "remove it; pull requests always run and never make a release"),
    ],
};
const NETWORK: Shape = Shape { what: "`network`", keys: &["port", "host", "calls", "health"], later: &[] };
const HEALTH: Shape = Shape {
    what: "`health`",
    keys: &["path", "timeout"],
    later: &[
        ("command", "remove it; write a `path` that answers 2xx when the service is well"),
        ("interval", "remove it; the service is asked until it is well or `timeout` is over"),
    ],
};
const IMAGE: Shape = Shape {
    what: "`image`",
    keys: &["context", "dockerfile", "args"],
    later: &[
        ("target", "remove it; the last stage of the Dockerfile is built"),
        ("platforms", "remove it; the image is built for the runner's own platform"),
        (
            "secrets",
            "remove it; whoever pulls the image can read its layers and history, so do what needs a secret in a step: the \
             build finds the files that it leaves",
        ),
    ],
};
/// Every mapping with fixed keys, by its name in the JSON Schema; the test against drift walks it.
#[cfg(test)]
pub(super) const SHAPES: [(&str, &Shape); 12] = [
    ("Definition", &FILE),
    ("On", &ON),
    ("Network", &NETWORK),
    ("Health", &HEALTH),
    ("ImageBuild", &IMAGE),
    ("Test", &test::TEST),
    ("Step", &steps::STEP),
    ("SecretUse", &steps::SECRET_USE),
    ("When", &steps::WHEN),
    ("Production", &production::PRODUCTION),
    ("CanaryStep", &production::CANARY_STEP),
    ("Judge", &production::JUDGE),
];
#[cfg(test)]
pub(super) const CHECK_KEYS: &[&str] = production::CHECK.keys;

/// Reads the whole tree. A definition comes out where its required parts could be read, errors elsewhere or not.
pub(super) fn definition(lint: &mut Lint, root: &Node, file_name: &str) -> Option<Definition> {
    let file = lint.fields(root, root.place, &FILE)?;
    let what = FILE.what;
    let service = lint
        .required(&file, "service", what, "write the name under which the service is registered: `service: checkout`")
        .and_then(|entry| service(lint, entry, file_name));
    let base = lint
        .required(&file, "base", what, "write a base config of the catalog, such as `base: static-site@1`")
        .and_then(|entry| lint.text::<BaseRef>(&entry.value, "base"));
    let on = file.get("on").and_then(|entry| on(lint, entry));
    let network = file.get("network").map(|entry| network(lint, entry, service.as_ref())).unwrap_or_default();
    let steps = file.get("steps").map(|entry| steps::steps(lint, &entry.value)).unwrap_or_default();
    let image = file.get("image").map(|entry| image(lint, entry, base.as_ref())).unwrap_or_default();
    let values = file.get("values").map(|entry| values(lint, &entry.value)).unwrap_or_default();
    let test = test::test(lint, file.get("test"), &file);
    let production = match file.get("production") {
        Some(entry) => production::production(lint, entry),
        None => Production::default(),
    };
    let labels = file.get("labels").map(|entry| labels(lint, &entry.value)).unwrap_or_default();
    Some(Definition { service: service?, base: base?, on, labels, network, steps, image, values, test, production })
}

fn labels(lint: &mut Lint, node: &Node) -> Labels {
    let mut labels = Labels::default();
    let Content::Map(entries) = &node.content else {
        lint.wrong_type(node, "labels", "a mapping", "write names and values, such as `{gpu: \"true\"}`");
        return labels;
    };
    if entries.len() > LABELS_MAX {
        lint.too_many(node, "labels", LABELS_MAX);
        return labels;
    }
    for entry in entries {
        let Content::Scalar(text, _) = &entry.value.content else {
            lint.wrong_type(&entry.value, &entry.key, "text", "write one value");
            continue;
        };
        if let Err(error) = labels.insert(&entry.key, text) {
            let place = if error.what == "label value" { entry.value.place } else { entry.place };
            let message = format!("{} is not a {}", quote(&error.given), error.what);
            lint.bad_value(place, ValueError::new(message, error.why));
        }
    }
    labels
}

/// A service's name, with words for a place in a file; the rule itself is that of the id.
struct NamedService(ServiceName);

impl FromStr for NamedService {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(NamedService).map_err(|_| {
            ValueError::new(
                format!("{} is not a service name", quote(text)),
                format!(
                    "use lower-case letters, digits and hyphens, start with a letter, and take at most \
                     {SERVICE_NAME_MAX_CHARS} characters"
                ),
            )
        })
    }
}

fn service(lint: &mut Lint, entry: &Entry, file_name: &str) -> Option<ServiceName> {
    let NamedService(service) = lint.text(&entry.value, "service")?;
    let stem = super::layout::service_of(file_name);
    if let Some(stem) = stem.filter(|stem| *stem != service.as_str()) {
        let message = format!("the file is called {}, and its service {}", quote(stem), quote(service.as_str()));
        lint.report(
            Diagnostic::error(Code::Conflict, entry.value.place, message)
                .why("where a repository holds several services, each is found by the name of its file")
                .help(format!("write `service: {stem}`, or rename the file to `.windlass/{service}.yaml`")),
        );
    }
    Some(service)
}

fn on(lint: &mut Lint, entry: &Entry) -> Option<On> {
    let fields = lint.fields(&entry.value, entry.place, &ON)?;
    if fields.is_empty() {
        lint.report(
            Diagnostic::error(Code::MissingKey, entry.place, "`on` names nothing that makes a release")
                .help("write `branches` or `tags`, or remove `on` to release from the release branch"),
        );
    }
    let mut globs = |key: &str| -> Option<Vec<Glob>> {
        let node = &fields.get(key)?.value;
        Some(lint.texts(node, key, BRANCHES_MAX).into_iter().map(|(glob, _)| glob).collect())
    };
    Some(On { branches: globs("branches"), tags: globs("tags") })
}

fn network(lint: &mut Lint, entry: &Entry, service: Option<&ServiceName>) -> Network {
    let mut network = Network::default();
    let Some(fields) = lint.fields(&entry.value, entry.place, &NETWORK) else { return network };
    network.port = fields
        .get("port")
        .and_then(|entry| lint.integer(&entry.value, "port", 1..=65_535))
        .and_then(|port| u16::try_from(port).ok());
    network.host = fields.get("host").and_then(|entry| lint.text(&entry.value, "host"));
    if let Some(entry) = fields.get("calls") {
        let calls = lint.texts::<Call>(&entry.value, "calls", CALLS_MAX);
        for (call, place) in &calls {
            if call.service().is_some() && call.service() == service.map(ServiceName::as_str) {
                let message = format!("the service {} calls itself", quote(call.as_str()));
                lint.report(Diagnostic::error(Code::Conflict, *place, message).help("remove it"));
            }
        }
        no_duplicates(lint, &calls, "calls");
        network.calls = calls.into_iter().map(|(call, _)| call).collect();
    }
    if let Some(entry) = fields.get("health") {
        network.health = health(lint, entry);
    }
    network
}

fn health(lint: &mut Lint, entry: &Entry) -> Health {
    let mut health = Health::default();
    let Some(fields) = lint.fields(&entry.value, entry.place, &HEALTH) else { return health };
    health.path = fields.get("path").and_then(|entry| lint.text(&entry.value, "path"));
    let bounds = TimeSpan::from_secs(1)..=TimeSpan::from_secs(3600);
    if let Some(timeout) = time_span(lint, &fields, "timeout", bounds) {
        health.timeout = timeout;
    }
    health
}

fn image(lint: &mut Lint, entry: &Entry, base: Option<&BaseRef>) -> ImageBuild {
    let mut image = ImageBuild::default();
    let Content::Map(_) = entry.value.content else {
        lint.wrong_type(
            &entry.value,
            "image",
            "a mapping",
            "write `context` or `args`; the image's name is made by Windlass",
        );
        return image;
    };
    let Some(fields) = lint.fields(&entry.value, entry.place, &IMAGE) else { return image };
    if let Some(context) = fields.get("context").and_then(|entry| lint.text(&entry.value, "context")) {
        image.context = context;
    }
    if let Some(entry) = fields.get("dockerfile") {
        image.dockerfile = lint.text(&entry.value, "dockerfile");
        if let Some(base) = base.filter(|base| base.name() != DOCKERFILE_BASE) {
            let message = format!("the base config {} brings its own Dockerfile", quote(base.name()));
            lint.report(
                Diagnostic::error(Code::Conflict, entry.place, message)
                    .help("remove `dockerfile`, or write `base: dockerfile@1` to build with the repository's own"),
            );
        }
    }
    if let Some(entry) = fields.get("args") {
        image.args = lint.variables(&entry.value, "args", (ARGS_MAX, ARG_MAX_BYTES), None);
    }
    image
}

fn values(lint: &mut Lint, node: &Node) -> serde_json::Map<String, serde_json::Value> {
    match json(lint, node) {
        serde_json::Value::Object(values) => values,
        _ => {
            lint.wrong_type(node, "values", "a mapping", "write the chart values that differ from the base config's");
            serde_json::Map::new()
        }
    }
}

/// Any value as JSON. The depth was bounded when the tree was read.
fn json(lint: &mut Lint, node: &Node) -> serde_json::Value {
    use serde_json::Value;
    match &node.content {
        Content::Scalar(_, Kind::Null) | Content::Refused => Value::Null,
        Content::Scalar(_, Kind::Bool(value)) => Value::Bool(*value),
        Content::Scalar(_, Kind::Int(value)) => Value::from(*value),
        Content::Scalar(text, Kind::Float(value)) => {
            serde_json::Number::from_f64(*value).map(Value::Number).unwrap_or_else(|| {
                let message = format!("{} is not a number that a chart can hold", quote(text));
                lint.report(
                    Diagnostic::error(Code::BadValue, node.place, message).help("write a finite number, or use quotes"),
                );
                Value::Null
            })
        }
        Content::Scalar(text, Kind::Text) => Value::String(text.clone()),
        Content::List(items) => Value::Array(items.iter().map(|item| json(lint, item)).collect()),
        Content::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), json(lint, &entry.value))).collect())
        }
    }
}

fn no_duplicates<T: ToString>(lint: &mut Lint, values: &[(T, Place)], what: &str) {
    let mut seen: HashMap<String, u32> = HashMap::new();
    for (value, place) in values {
        let text = value.to_string();
        // Mail addresses and hosts are the same in any case; the rest is lower case anyway.
        if let Some(line) = seen.get(&text.to_lowercase()) {
            let message = format!("{} is written twice in {}", quote(&text), quote(what));
            lint.report(
                Diagnostic::error(Code::DuplicateName, *place, message)
                    .why(format!("it stands on line {line} already"))
                    .help("remove one of them"),
            );
        } else {
            seen.insert(text.to_lowercase(), place.line);
        }
    }
}

/// A duration within bounds.
fn time_span(
    lint: &mut Lint,
    fields: &Fields<'_>,
    key: &str,
    bounds: std::ops::RangeInclusive<TimeSpan>,
) -> Option<TimeSpan> {
    let node = &fields.get(key)?.value;
    let span = lint.text::<TimeSpan>(node, key)?;
    if bounds.contains(&span) {
        return Some(span);
    }
    let message = format!("{} is {}, which is out of range", quote(key), quote(&span.to_string()));
    lint.report(Diagnostic::error(Code::BadValue, node.place, message).help(format!(
        "write a duration from {} to {}",
        bounds.start(),
        bounds.end()
    )));
    None
}
