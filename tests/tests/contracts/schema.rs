//! Whether a JSON value is as a schema of an OpenAPI 3.1 document says. Knows the keywords that our document uses, and
//! refuses others, so that a new one is not passed over unseen. What the schema does not describe is wrong as well: a
//! validator by the book takes any additional property.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Words about a schema that hold for no value.
const NOTES: [&str; 6] = ["description", "default", "writeOnly", "title", "examples", "$schema"];

/// The schemas of a document.
pub(crate) struct Schemas<'d>(pub(crate) &'d Map<String, Value>);

impl<'d> Schemas<'d> {
    /// All that is wrong with `value`, with the place of each.
    pub(crate) fn check(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        self.visit(schema, value, "answer", true, &mut wrong);
        wrong
    }

    /// The schema behind a reference.
    pub(crate) fn resolve(&self, reference: &str) -> Option<&'d Value> {
        self.0.get(reference.strip_prefix("#/components/schemas/")?)
    }

    /// `whole` says that no other schema describes this value too, as it does within `allOf`.
    fn visit(&self, schema: &Value, value: &Value, at: &str, whole: bool, wrong: &mut Vec<String>) {
        let Value::Object(schema) = schema else {
            if schema != &Value::Bool(true) {
                wrong.push(format!("{at}: nothing is allowed here"));
            }
            return;
        };
        for (keyword, rule) in schema {
            match keyword.as_str() {
                "$ref" => match rule.as_str().and_then(|name| self.resolve(name)) {
                    Some(other) => self.visit(other, value, at, false, wrong),
                    None => wrong.push(format!("{at}: {rule} leads nowhere")),
                },
                "type" if !is_of_type(rule, value) => wrong.push(format!("{at}: {value} is not {rule}")),
                "enum" if !rule.as_array().is_some_and(|values| values.contains(value)) => {
                    wrong.push(format!("{at}: {value} is none of {rule}"));
                }
                "minimum" if value.as_f64() < rule.as_f64() && value.is_number() => {
                    wrong.push(format!("{at}: {value} is less than {rule}"));
                }
                "allOf" => rule.as_array().into_iter().flatten().for_each(|s| self.visit(s, value, at, false, wrong)),
                "oneOf" => self.one_of(rule, value, at, wrong),
                "required" => {
                    let names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                    for name in names.filter(|name| value.is_object() && value.get(name).is_none()) {
                        wrong.push(format!("{at}: {name} is missing"));
                    }
                }
                "properties" => {
                    for (name, property) in rule.as_object().into_iter().flatten() {
                        if let Some(value) = value.get(name) {
                            self.visit(property, value, &format!("{at}.{name}"), true, wrong);
                        }
                    }
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.visit(rule, item, &format!("{at}[{number}]"), true, wrong);
                    }
                }
                "propertyNames" => {
                    for name in value.as_object().into_iter().flat_map(|object| object.keys()) {
                        self.visit(rule, &Value::from(name.as_str()), &format!("{at}: the name {name}"), true, wrong);
                    }
                }
                "additionalProperties" => self.additional(schema, rule, value, at, wrong),
                "type" | "enum" | "minimum" | "format" => {}
                note if NOTES.contains(&note) => {}
                other => wrong.push(format!("{at}: the keyword {other} is not known here: teach it")),
            }
        }
        if let (true, Value::Object(fields), Some(known)) = (whole, value, self.described(schema)) {
            for name in fields.keys().filter(|name| !known.contains(name.as_str())) {
                wrong.push(format!("{at}.{name} is not described"));
            }
        }
    }

    fn one_of(&self, schemas: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let mut tries = Vec::new();
        for schema in schemas.as_array().into_iter().flatten() {
            let mut found = Vec::new();
            self.visit(schema, value, at, true, &mut found);
            tries.push(found);
        }
        match tries.iter().filter(|found| found.is_empty()).count() {
            1 => {}
            0 => wrong.push(format!("{at}: none of the kinds fits: {tries:?}")),
            many => wrong.push(format!("{at}: {many} kinds fit")),
        }
    }

    fn additional(&self, schema: &Map<String, Value>, rule: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let known = schema.get("properties").and_then(Value::as_object);
        let others = value.as_object().into_iter().flatten();
        for (name, value) in others.filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name))) {
            self.visit(rule, value, &format!("{at}.{name}"), true, wrong);
        }
    }

    /// The properties that a schema speaks of; `None` when it speaks of none or is open to others.
    fn described(&self, schema: &Map<String, Value>) -> Option<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let mut waiting = vec![schema];
        while let Some(schema) = waiting.pop() {
            if schema.get("additionalProperties").is_some_and(|rule| rule != &Value::Bool(false)) {
                return None;
            }
            names.extend(schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned());
            let referred = schema.get("$ref").and_then(Value::as_str).and_then(|name| self.resolve(name));
            let parts = ["allOf", "oneOf"].into_iter().filter_map(|word| schema.get(word)?.as_array()).flatten();
            waiting.extend(parts.chain(referred).filter_map(Value::as_object));
        }
        (!names.is_empty()).then_some(names)
    }
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    match rule {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => false,
    }
}

#[test]
fn what_is_wrong_is_found_and_what_is_right_is_not() {
    let document = serde_json::json!({
        "Role": {"type": "string", "enum": ["a", "b"]},
        "One": {"type": "object", "required": ["role"], "properties": {"role": {"$ref": "#/components/schemas/Role"}}},
        "Answer": {"allOf": [
            {"$ref": "#/components/schemas/One"},
            {"type": "object", "properties": {"list": {"type": "array", "items": {"type": ["integer", "null"], "minimum": 1}}}},
        ]},
        "Either": {"oneOf": [{"$ref": "#/components/schemas/One"}, {"type": "null"}]},
        "New": {"type": "string", "pattern": "^a$"},
    });
    let schemas = Schemas(document.as_object().unwrap());
    let found = |name: &str, value: &str| schemas.check(&document[name], &serde_json::from_str(value).unwrap());
    for (name, right) in
        [("Answer", r#"{"role": "a", "list": [1, null]}"#), ("Either", "null"), ("Either", r#"{"role": "b"}"#)]
    {
        assert!(found(name, right).is_empty(), "{name} {right}: {:?}", found(name, right));
    }
    for (name, bad) in [
        ("Answer", r#"{"list": []}"#),
        ("Answer", r#"{"role": "c"}"#),
        ("Answer", r#"{"role": "a", "list": [0]}"#),
        ("Answer", r#"{"role": "a", "list": ["1"]}"#),
        ("Answer", r#"{"role": "a", "more": 1}"#),
        ("Either", "1"),
        ("New", r#""a""#),
    ] {
        assert_eq!(found(name, bad).len(), 1, "{name} {bad}: {:?}", found(name, bad));
    }
}
