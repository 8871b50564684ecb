//! The part of JSON Schema (draft 7) that values need. A keyword that is not known makes a schema unusable, so that
//! nothing passes because it was not understood.

use pipelines::definition::{nearest, quote};
use serde_json::{Map, Value};

/// Keywords that only describe.
const ANNOTATIONS: [&str; 7] = ["$schema", "$id", "title", "description", "default", "examples", "$comment"];
/// How deep schemas may be nested.
const DEPTH_MAX: usize = 32;

/// What values may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema(Value);

/// One value that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Its keys and list indexes.
    pub path: Vec<String>,
    /// What is wrong, to stand after the value's name.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// Whether the name itself is what is wrong.
    pub unknown: bool,
}

impl Schema {
    /// Takes a schema whose keywords are all known.
    ///
    /// # Errors
    /// Says which keyword is not known, or has a value that makes no sense.
    pub fn new(schema: Value) -> Result<Self, String> {
        known(&schema, 0)?;
        Ok(Schema(schema))
    }

    /// The schema as it was written.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// Everything that does not fit.
    pub fn check(&self, value: &Value) -> Vec<Misfit> {
        let mut found = Vec::new();
        check(&self.0, value, &mut Vec::new(), &mut found);
        found
    }
}

fn known(schema: &Value, depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("is nested deeper than {DEPTH_MAX} levels"));
    }
    let Value::Object(schema) = schema else {
        return if schema.is_boolean() { Ok(()) } else { Err("holds a schema that is no mapping".to_owned()) };
    };
    for (keyword, rule) in schema {
        let fits = match keyword.as_str() {
            "type" => type_names(rule).is_some(),
            "properties" => match rule.as_object() {
                Some(properties) => {
                    properties.values().try_for_each(|inner| known(inner, depth + 1))?;
                    true
                }
                None => false,
            },
            "additionalProperties" | "items" => {
                known(rule, depth + 1)?;
                true
            }
            "required" => rule.as_array().is_some_and(|keys| keys.iter().all(Value::is_string)),
            "enum" => rule.is_array(),
            "minimum" | "maximum" => rule.is_number(),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => rule.is_u64(),
            annotation if ANNOTATIONS.contains(&annotation) => true,
            other => return Err(format!("uses the keyword {}, which is not supported yet", quote(other))),
        };
        if !fits {
            return Err(format!("has a value for {} that makes no sense", quote(keyword)));
        }
    }
    Ok(())
}

fn type_names(rule: &Value) -> Option<Vec<&str>> {
    const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
    let names: Vec<&str> = match rule {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    names.iter().all(|name| TYPES.contains(name)).then_some(names)
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        // Draft 7: a number with a zero fraction is an integer.
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    }
}

fn words(names: &[&str]) -> String {
    let word = |name: &&str| match *name {
        "null" => "nothing",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        _ => "a mapping",
    };
    names.iter().map(word).collect::<Vec<_>>().join(", or ")
}

fn check(schema: &Value, value: &Value, path: &mut Vec<String>, found: &mut Vec<Misfit>) {
    let Value::Object(schema) = schema else {
        if schema == &Value::Bool(false) {
            misfit(path, "is not allowed", "remove it", found);
        }
        return;
    };
    if let Some(names) = schema.get("type").and_then(type_names)
        && !names.iter().any(|name| is_type(value, name))
    {
        let expected = words(&names);
        misfit(path, &format!("must be {expected}"), &help_for_type(&names, value), found);
        return;
    }
    if let Some(Value::Array(allowed)) = schema.get("enum")
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(|value| quote(&plain(value))).collect();
        misfit(path, "is none of the allowed values", &format!("write one of {}", allowed.join(", ")), found);
    }
    bounds(schema, value, path, found);
    match value {
        Value::Object(object) => check_object(schema, object, path, found),
        Value::Array(items) => {
            if let Some(rule) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    check(rule, item, path, found);
                    path.pop();
                }
            }
        }
        _ => {}
    }
}

fn help_for_type(names: &[&str], value: &Value) -> String {
    match value {
        Value::Number(_) | Value::Bool(_) if names.contains(&"string") => format!("put it in quotes: `\"{value}\"`"),
        Value::String(text) if names.iter().any(|name| matches!(*name, "integer" | "number" | "boolean")) => {
            match serde_json::from_str::<Value>(text) {
                Ok(inner) if names.iter().any(|name| is_type(&inner, name)) => format!("remove the quotes: `{inner}`"),
                _ => format!("write {}", words(names)),
            }
        }
        _ => format!("write {}", words(names)),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn misfit(path: &[String], message: &str, help: &str, found: &mut Vec<Misfit>) {
    found.push(Misfit { path: path.to_vec(), message: message.to_owned(), help: help.to_owned(), unknown: false });
}

fn bounds(schema: &Map<String, Value>, value: &Value, path: &[String], found: &mut Vec<Misfit>) {
    let size = match value {
        Value::String(text) => Some(("minLength", "maxLength", text.chars().count(), "characters")),
        Value::Array(items) => Some(("minItems", "maxItems", items.len(), "entries")),
        Value::Object(entries) => Some(("minProperties", "maxProperties", entries.len(), "entries")),
        _ => None,
    };
    if let Some((min, max, size, unit)) = size {
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let size = size as u64;
        if let Some(min) = limit(min).filter(|min| size < *min) {
            misfit(path, "is too short", &format!("write at least {min} {unit}"), found);
        }
        if let Some(max) = limit(max).filter(|max| size > *max) {
            misfit(path, "is too long", &format!("write at most {max} {unit}"), found);
        }
    }
    if let Some(number) = value.as_f64() {
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        if let Some(min) = limit("minimum").filter(|min| number < *min) {
            misfit(path, "is too small", &format!("write at least {min}"), found);
        }
        if let Some(max) = limit("maximum").filter(|max| number > *max) {
            misfit(path, "is too large", &format!("write at most {max}"), found);
        }
    }
}

fn check_object(
    schema: &Map<String, Value>,
    object: &Map<String, Value>,
    path: &mut Vec<String>,
    found: &mut Vec<Misfit>,
) {
    let empty = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    for (key, inner) in object {
        path.push(key.clone());
        match (properties.get(key), schema.get("additionalProperties")) {
            (Some(rule), _) => check(rule, inner, path, found),
            (None, Some(Value::Bool(false))) => {
                let names: Vec<&str> = properties.keys().map(String::as_str).collect();
                let help = match nearest(key, names.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => {
                        format!("the values here are {}", names.iter().map(|n| quote(n)).collect::<Vec<_>>().join(", "))
                    }
                };
                let message = "is not a value of the chart".to_owned();
                found.push(Misfit { path: path.clone(), message, help, unknown: true });
            }
            (None, Some(rule)) => check(rule, inner, path, found),
            (None, None) => {}
        }
        path.pop();
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for key in required.filter(|key| !object.contains_key(*key)) {
        path.push(key.to_owned());
        misfit(path, "is missing", "write a value for it", found);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(schema: Value, value: Value) -> Vec<(String, String, String)> {
        let schema = Schema::new(schema).unwrap();
        schema.check(&value).into_iter().map(|m| (m.path.join("."), m.message, m.help)).collect()
    }

    #[test]
    fn everything_that_does_not_fit_is_told_at_once() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 3 },
                "replicas": { "type": "integer", "minimum": 1, "maximum": 3 },
                "list": { "type": "array", "items": { "type": "string" }, "minItems": 1 },
                "mode": { "enum": ["fast", "slow"] },
                "env": { "type": "object", "additionalProperties": { "type": ["string", "number"] } }
            }
        });
        assert!(problems(schema.clone(), json!({ "name": "a", "replicas": 2.0, "env": { "A": 1 } })).is_empty());
        let found = problems(
            schema,
            json!({ "replica": 1, "replicas": "2", "list": ["a", 1], "mode": "fsat", "env": { "A": true } }),
        );
        let paths: Vec<&str> = found.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(paths, ["env.A", "list.1", "mode", "replica", "replicas", "name"]);
        assert_eq!(found[1].2, "put it in quotes: `\"1\"`");
        assert_eq!(found[2].2, "write one of `fast`, `slow`");
        assert_eq!(found[3].2, "did you mean `replicas`?");
        assert_eq!(found[4].2, "remove the quotes: `2`");
    }

    #[test]
    fn bounds_are_kept_on_both_sides() {
        let one = |rule: Value, value: Value| problems(rule, value).len();
        assert_eq!(one(json!({ "minimum": 1, "maximum": 3 }), json!(0)), 1);
        assert_eq!(one(json!({ "minimum": 1, "maximum": 3 }), json!(3)), 0);
        assert_eq!(one(json!({ "minimum": 1, "maximum": 3 }), json!(3.5)), 1);
        assert_eq!(one(json!({ "minLength": 2 }), json!("你")), 1);
        assert_eq!(one(json!({ "maxItems": 1 }), json!([1, 2])), 1);
        assert_eq!(one(json!(false), json!(1)), 1);
        assert_eq!(one(json!(true), json!(1)), 0);
    }

    #[test]
    fn a_schema_that_is_not_understood_is_refused() {
        for (schema, part) in [
            (json!({ "pattern": "a" }), "`pattern`"),
            (json!({ "properties": { "a": { "oneOf": [] } } }), "`oneOf`"),
            (json!({ "type": "text" }), "`type`"),
            (json!({ "minimum": "1" }), "`minimum`"),
            (json!({ "items": 1 }), "no mapping"),
            (json!([]), "no mapping"),
        ] {
            let error = Schema::new(schema).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
