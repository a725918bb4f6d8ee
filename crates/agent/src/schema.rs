//! Checks a tool's input against its schema: the part of JSON Schema that tools are described in. A keyword that is
//! not known here is not checked; the tool reads its input itself.

use serde_json::Value;
use wardian_protocol::message::json_type;

/// Problems told at once.
const MAX_PROBLEMS: usize = 8;
/// How deep a schema is followed.
const MAX_DEPTH: usize = 16;

/// Lists what is wrong with an input, in words that the model can act on. Empty: nothing.
pub(crate) fn problems(schema: &Value, input: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check(schema, input, "", 0, &mut problems);
    problems.truncate(MAX_PROBLEMS);
    problems
}

fn check(schema: &Value, value: &Value, path: &str, depth: usize, problems: &mut Vec<String>) {
    if depth > MAX_DEPTH || problems.len() > MAX_PROBLEMS {
        return;
    }
    if let Some(problem) = wrong_type(schema, value).or_else(|| out_of_range(schema, value)) {
        problems.push(format!("`{}` {problem}", if path.is_empty() { "input" } else { path }));
        return;
    }
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                if let Some(name) = name.as_str().filter(|name| !fields.contains_key(*name)) {
                    problems.push(format!("`{}` is missing", join(path, name)));
                }
            }
            for (name, field) in fields {
                match properties.and_then(|properties| properties.get(name)) {
                    Some(schema) => check(schema, field, &join(path, name), depth + 1, problems),
                    None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                        let name: String = name.chars().take(60).collect();
                        problems.push(format!("`{}` is not known", join(path, &name)));
                    }
                    None => (),
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    check(schema, item, &format!("{path}[{index}]"), depth + 1, problems);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

fn wrong_type(schema: &Value, value: &Value) -> Option<String> {
    let names: Vec<&str> = match schema.get("type")? {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    let fits = |name: &&str| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => true,
    };
    if names.iter().any(fits) {
        return None;
    }
    Some(format!("must be of type {}, and is {}", names.join(" or "), json_type(value)))
}

fn out_of_range(schema: &Value, value: &Value) -> Option<String> {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return Some(format!("must be one of {}", allowed.join(", ")));
    }
    if let Some(items) = value.as_array() {
        return wrong_count(schema, items);
    }
    let number = value.as_f64()?;
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    if let Some(least) = bound("minimum").filter(|least| number < *least) {
        return Some(format!("must be at least {least}"));
    }
    bound("maximum").filter(|most| number > *most).map(|most| format!("must be at most {most}"))
}

fn wrong_count(schema: &Value, items: &[Value]) -> Option<String> {
    let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(least) = bound("minItems").filter(|least| count < *least) {
        return Some(format!("must have at least {least}, and has {count}"));
    }
    bound("maxItems")
        .filter(|most| count > *most)
        .map(|most| format!("must have at most {most}, and has {count}"))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn inputs_against_a_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 10},
                "mode": {"enum": ["a", "b"]},
                "list": {"type": "array", "items": {"type": "object", "required": ["x"]}},
                "any": {"type": ["string", "null"]},
            },
            "required": ["path"],
            "additionalProperties": false,
        });
        for (input, expected) in [
            (json!({"path": "x"}), vec![]),
            (json!({"path": "x", "limit": 3.0, "any": null, "mode": "a"}), vec![]),
            (json!({}), vec!["`path` is missing"]),
            (json!("text"), vec!["`input` must be of type object, and is a string"]),
            (json!(null), vec!["`input` must be of type object, and is null"]),
            (json!({"path": 1}), vec!["`path` must be of type string, and is a number"]),
            (json!({"path": "x", "limit": 0}), vec!["`limit` must be at least 1"]),
            (json!({"path": "x", "limit": 11}), vec!["`limit` must be at most 10"]),
            (json!({"path": "x", "limit": 1.5}), vec!["`limit` must be of type integer, and is a number"]),
            (json!({"path": "x", "mode": "c"}), vec!["`mode` must be one of \"a\", \"b\""]),
            (json!({"path": "x", "what": 1}), vec!["`what` is not known"]),
            (json!({"path": "x", "list": [{"x": 1}, {}]}), vec!["`list[1].x` is missing"]),
        ] {
            assert_eq!(problems(&schema, &input), expected, "{input}");
        }
    }

    #[test]
    fn hostile_schemas_and_inputs_are_bounded() {
        let schema = json!({"type": "array", "items": {"type": "string"}});
        assert_eq!(problems(&schema, &json!(vec![1; 100_000])).len(), MAX_PROBLEMS);
        for schema in [json!(null), json!({"type": 7, "required": "x", "properties": []}), json!(true)] {
            assert!(problems(&schema, &json!({"a": 1})).is_empty(), "{schema}");
        }
    }
}
