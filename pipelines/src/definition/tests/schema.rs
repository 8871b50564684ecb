//! The published schema and the reader know the same keys, and the examples fit the schema.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{examples, good};
use crate::definition::{json_schema, lint};

fn properties<'v>(schema: &'v Value, name: &str) -> &'v serde_json::Map<String, Value> {
    let owner = if name == "Definition" { schema } else { &schema["$defs"][name] };
    owner["properties"].as_object().unwrap_or_else(|| panic!("the schema has no mapping {name}"))
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let schema = json_schema();
    for (name, shape) in lint::SHAPES {
        let published: BTreeSet<&str> = properties(&schema, name).keys().map(String::as_str).collect();
        let read: BTreeSet<&str> = shape.keys.iter().copied().collect();
        assert_eq!(published, read, "{name}");
        let later: BTreeSet<&str> = shape.later.iter().map(|(key, _)| *key).collect();
        assert!(later.is_disjoint(&read), "{name} has a key that works and does not");
        let owner = if name == "Definition" { &schema } else { &schema["$defs"][name] };
        assert_eq!(owner["additionalProperties"], Value::Bool(false), "{name} takes unknown keys");
    }
    let mut checks = BTreeSet::new();
    for choice in schema["$defs"]["Check"]["oneOf"].as_array().unwrap() {
        checks.extend(choice["properties"].as_object().unwrap().keys().map(String::as_str));
    }
    assert_eq!(checks, lint::CHECK_KEYS.iter().copied().collect());
}

#[test]
fn no_mapping_of_the_schema_is_unknown_to_the_reader() {
    let schema = json_schema();
    let known: BTreeSet<&str> = lint::SHAPES.iter().map(|(name, _)| *name).chain(["Check"]).collect();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        let mapping = definition.get("properties").is_some() || definition.get("oneOf").is_some();
        assert!(!mapping || known.contains(name.as_str()), "{name} is in the schema alone");
    }
}

#[test]
fn every_key_of_the_schema_is_described() {
    let schema = json_schema();
    for (name, _) in lint::SHAPES {
        for (key, property) in properties(&schema, name) {
            let described = property["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{name}.{key} has no description: {property}");
        }
    }
}

/// The part of JSON Schema that ours uses; an unknown keyword fails the test rather than passing by unseen.
fn fits(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return if schema == &Value::Bool(true) { Ok(()) } else { Err(format!("{at}: nothing fits here")) };
    };
    for (keyword, rule) in schema {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" | "pattern" | "format" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                fits(root, &root["$defs"][name], value, at)?;
            }
            "type" => {
                let types: Vec<&str> = match rule {
                    Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                    single => single.as_str().into_iter().collect(),
                };
                let is = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
                    Value::Number(_) => "number",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let good = types.contains(&is) || (is == "integer" && types.contains(&"number"));
                if !good {
                    return Err(format!("{at}: {is} is not {types:?}"));
                }
            }
            "properties" | "additionalProperties" => {
                let Some(object) = value.as_object() else { continue };
                let known = schema.get("properties").and_then(Value::as_object);
                for (key, inner) in object {
                    let rule = known.and_then(|known| known.get(key)).or(schema.get("additionalProperties"));
                    if let Some(rule) = rule {
                        fits(root, rule, inner, &format!("{at}.{key}"))?;
                    }
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.get(key.as_str().unwrap()).is_none() {
                        return Err(format!("{at} has no {key}"));
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(root, rule, item, &format!("{at}[{index}]"))?;
                }
            }
            "anyOf" | "oneOf" => {
                let count = rule.as_array().unwrap().iter().filter(|r| fits(root, r, value, at).is_ok()).count();
                if count == 0 || (keyword == "oneOf" && count > 1) {
                    return Err(format!("{at}: {count} of the choices fit {value}"));
                }
            }
            "const" if rule != value => return Err(format!("{at}: {value} is not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => return Err(format!("{at}: {value} not in {rule}")),
            "minimum" if value.as_f64() < rule.as_f64() => return Err(format!("{at}: {value} is below {rule}")),
            "maximum" if value.as_f64() > rule.as_f64() => return Err(format!("{at}: {value} is above {rule}")),
            "const" | "enum" | "minimum" | "maximum" => {}
            other => return Err(format!("{at}: the test does not know the keyword {other}")),
        }
    }
    Ok(())
}

#[test]
fn every_example_fits_the_schema() {
    let schema = json_schema();
    for (name, text) in examples() {
        let as_written: Value = as_json(&text);
        fits(&schema, &schema, &as_written, &name).unwrap();
        let with_defaults = serde_json::to_value(good(&text)).unwrap();
        fits(&schema, &schema, &with_defaults, &name).unwrap();
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = json_schema();
    for text in [
        "service: a",
        "service: a\nbase: b\nunknown: 1",
        "service: a\nbase: b\nnetwork: {port: 0}",
        "service: a\nbase: b\nnetwork: {port: 65536}",
        "service: a\nbase: b\nproduction: {strategy: x}",
        "service: a\nbase: b\nproduction: {strategy: canary, steps: [{weight: 101}]}",
        "service: a\nbase: b\nproduction: {strategy: canary, checks: [{success_rate: \">= 9%\", unknown: 1}]}",
        "service: a\nbase: b\nsteps: [{name: a, image: b}]",
        "service: a\nbase: b\ntest: {approvals: 0}",
    ] {
        assert!(super::parse(".windlass.yaml", text).0.is_none(), "the reader takes {text:?}");
        assert!(fits(&schema, &schema, &as_json(text), "file").is_err(), "the schema takes {text:?}");
    }
}

/// The file as an editor sees it: plain data.
fn as_json(text: &str) -> Value {
    use crate::definition::tree::{Content, Kind, Node, read};
    fn convert(node: &Node) -> Value {
        match &node.content {
            Content::Scalar(_, Kind::Null) | Content::Refused => Value::Null,
            Content::Scalar(_, Kind::Bool(value)) => Value::from(*value),
            Content::Scalar(_, Kind::Int(value)) => Value::from(*value),
            Content::Scalar(_, Kind::Float(value)) => Value::from(*value),
            Content::Scalar(text, Kind::Text) => Value::from(text.as_str()),
            Content::List(items) => items.iter().map(convert).collect(),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), convert(&entry.value))).collect())
            }
        }
    }
    convert(&read(text, &crate::definition::Limits::default()).0.unwrap())
}
