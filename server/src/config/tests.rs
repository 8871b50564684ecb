//! Bad configurations are refused with words that help, and docs/config.md says what the code says.

use std::{fmt::Write as _, path::PathBuf};

use serde_json::Value;

use super::*;

const START: &str = "<!-- keys:start -->\n";
const END: &str = "<!-- keys:end -->";

const LEAST: &str = "state_dir: /var/lib/windlass
public_url: http://localhost:8000
registries: {test: {host: t}, production: {host: p}}
mail: {from: w@example.com, folder: /tmp/mails}
";

fn read(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("windlass.yaml");
    std::fs::write(&file, text).expect("written");
    Config::load(&file)
}

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md")
}

/// One row per key of `schema`, those of the objects in it beneath their path.
fn rows(root: &Value, schema: &Value, path: &str, table: &mut String) {
    let mut schema = schema;
    if let Some(any) = schema["anyOf"].as_array() {
        schema = &any[0];
    }
    let text = |value: &Value| {
        value["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let resolve = |schema: &Value| match schema["$ref"].as_str() {
        Some(to) => root.pointer(to.trim_start_matches('#')).cloned().unwrap_or_default(),
        None => schema.clone(),
    };
    let found = resolve(schema);
    let items = resolve(&found["items"]);
    let (found, path) =
        if items["properties"].is_object() { (items, format!("{path}[]")) } else { (found, path.to_owned()) };
    let Some(properties) = found["properties"].as_object() else { return };
    let needed: Vec<&str> = found["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, property) in properties {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = match &property["default"] {
            Value::Null if needed.contains(&name.as_str()) => "required".to_owned(),
            Value::Null | Value::Object(_) => String::new(),
            Value::Array(list) if list.is_empty() => String::new(),
            value => format!("`{value}`"),
        };
        writeln!(table, "| `{key}` | {default} | {} |", text(property)).expect("a string takes it");
        rows(root, property, &key, table);
    }
}

#[test]
fn the_documentation_lists_every_key() {
    let schema = schemars::schema_for!(Config).to_value();
    let mut table = String::from("| key | default | what it is |\n|---|---|---|\n");
    rows(&schema, &schema, "", &mut table);
    let page = std::fs::read_to_string(docs()).expect("docs/config.md");
    let (before, rest) = page.split_once(START).expect("the start marker");
    let (listed, after) = rest.split_once(END).expect("the end marker");
    if std::env::var_os("WINDLASS_WRITE_DOCS").is_some() {
        std::fs::write(docs(), format!("{before}{START}{table}{END}{after}")).expect("written");
        return;
    }
    assert_eq!(listed, table, "docs/config.md is old: WINDLASS_WRITE_DOCS=1 cargo test -p server --lib config");
}

#[test]
fn the_example_of_the_documentation_is_good() {
    let page = std::fs::read_to_string(docs()).expect("docs/config.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let config = read(example).expect("a good configuration");
    assert_eq!(config.registries.test.host, "registry-test.example.com");
}

#[test]
fn the_least_configuration_is_enough() {
    let config = read(LEAST).expect("a good configuration");
    assert_eq!(config.listen.port(), 8000);
    assert!(config.gateway.supervise);
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (mistake, word) in [
        ("listne: 127.0.0.1:1", "listne"),
        ("gateway: {lisen: 127.0.0.1:1}", "lisen"),
        ("job: {step_timout_ms: 1}", "step_timout_ms"),
        ("gateway: {public_scheme: ftp}", "public_scheme"),
        ("listen: nowhere", "listen"),
    ] {
        let error = read(&format!("{LEAST}{mistake}\n")).expect_err(mistake).to_string();
        assert!(error.contains(word) && error.contains("windlass.yaml"), "{mistake}: {error}");
    }
    let twice = LEAST.replace("host: p", "host: t");
    assert!(read(&twice).expect_err("one registry twice").to_string().contains("must differ"));
    let neither = LEAST.replace(", folder: /tmp/mails", "");
    assert!(read(&neither).expect_err("no way for mails").to_string().contains("smtp or folder"));
}

#[test]
fn fuzz_configuration() {
    let text = "state_dir: /srv/windlass\npublic_url: https://windlass.example.com/\nregistries:\n  test: {host: test.example.com}\n  \
                production: {host: production.example.com}\nmail: {from: w@example.com, folder: /srv/mail}\nbounds: {hook_body_bytes_max: 10}\n";
    let words =
        ["public_url: ", "mail: ", "smtp: ", "bounds: ", "gateway: ", "runner: ", "parallel_runs: ", "&a [*a, *a]"];
    fuzz::feed("configuration", &[text.as_bytes()], &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match Config::parse(&text) {
            Ok(config) if config.public_url.ends_with('/') => Err("the public address ends in a slash".into()),
            Ok(_) => Ok("taken".into()),
            Err(why) if why.is_empty() => Err("it is refused without a word".into()),
            Err(why) => Ok(why.chars().filter(|c| !c.is_ascii_digit()).take(20).collect()),
        }
    });
}

#[test]
fn an_address_of_a_receiver_of_traces_is_whole_and_holds_no_key() {
    let with = |settings: &str| read(&format!("{LEAST}tracing: {{{settings}}}\n"));
    let good = |address: &str| with(&format!("otlp_endpoint: '{address}'")).expect(address).tracing.endpoint();
    for address in ["http://127.0.0.1:4318", "http://127.0.0.1:4318/"] {
        assert_eq!(good(address).expect("an address").as_str(), "http://127.0.0.1:4318/v1/traces");
    }
    let beneath = good("https://otel.example.com/in/").expect("an address");
    assert_eq!(beneath.as_str(), "https://otel.example.com/in/v1/traces");
    assert_eq!(read(LEAST).expect("good").tracing.endpoint(), None);
    for address in
        ["otel:4318", "ftp://otel", "https://me:hunter2@otel", "https://otel/?key=hunter2", "https://otel/#hunter2"]
    {
        let error = with(&format!("otlp_endpoint: '{address}'")).expect_err(address).to_string();
        assert!(error.contains("tracing.otlp_endpoint") && !error.contains("hunter2"), "{error}");
    }
    let error = with("otlp_endpoint: 'http://otel', queue_runs_max: 0").expect_err("no room").to_string();
    assert!(error.contains("queue_runs_max"), "{error}");
}
