//! Input of a tool, checked against the schema that the model was given.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Failure;

/// Parses a tool's input. All that is wrong with it is said at once, so that the model mends it in one go.
///
/// A number or boolean that came as a string is taken as what it says, which models do now and then. `unlisted` names
/// booleans that are understood but not offered.
pub fn parse_input<T: DeserializeOwned>(
    tool: &str,
    schema: &Value,
    unlisted: &[&str],
    input: Value,
) -> Result<T, Failure> {
    let Value::Object(mut input) = input else {
        return Err(invalid(tool, &["The input must be an object".to_owned()]));
    };
    let issues = check(schema, unlisted, &mut input);
    if !issues.is_empty() {
        return Err(invalid(tool, &issues));
    }
    serde_json::from_value(Value::Object(input)).map_err(|error| invalid(tool, &[error.to_string()]))
}

/// Returns the failure of an input that does not fit.
fn invalid(tool: &str, issues: &[String]) -> Failure {
    Failure::new(format!(
        "<tool_use_error>InputValidationError: {tool} failed due to the following issues:\n{}</tool_use_error>",
        issues.join("\n")
    ))
}

fn check(schema: &Value, unlisted: &[&str], input: &mut Map<String, Value>) -> Vec<String> {
    let mut issues = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if input.get(name).is_none_or(Value::is_null) {
            issues.push(format!("The required parameter `{name}` is missing"));
        }
    }
    // What is optional may be null.
    input.retain(|_, value| !value.is_null());
    for (name, value) in input.iter_mut() {
        let boolean = serde_json::json!({"type": "boolean"});
        match schema["properties"].get(name) {
            Some(property) => issues.extend(check_value(name, property, value)),
            None if unlisted.contains(&name.as_str()) => issues.extend(check_value(name, &boolean, value)),
            None => issues.push(format!("An unexpected parameter `{}` was provided", shown(name))),
        }
    }
    issues
}

fn check_value(name: &str, property: &Value, value: &mut Value) -> Option<String> {
    let expected = property["type"].as_str().unwrap_or("string");
    coerce(expected, value);
    let fits = match expected {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        _ => true,
    };
    if !fits {
        return Some(format!(
            "The parameter `{name}` must be of type `{expected}` but `{}` was provided",
            kind(value)
        ));
    }
    if let Some(minimum) = property["minimum"].as_i64()
        && value.as_i64().is_some_and(|given| given < minimum)
    {
        return Some(format!("The parameter `{name}` must be at least {minimum}"));
    }
    let allowed = property["enum"].as_array()?;
    if allowed.contains(value) {
        return None;
    }
    let names: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
    Some(format!("The parameter `{name}` must be one of: {}", names.join(", ")))
}

fn coerce(expected: &str, value: &mut Value) {
    if expected == "integer"
        && let Some(number) = value.as_f64()
        && number.fract() == 0.0
        && number.abs() < 9e15
        && !value.is_i64()
        && !value.is_u64()
    {
        *value = Value::from(number as i64);
    }
    let Some(text) = value.as_str() else { return };
    let parsed = match expected {
        "integer" => text.trim().parse::<i64>().ok().map(Value::from),
        "boolean" => text.trim().parse::<bool>().ok().map(Value::from),
        _ => None,
    };
    if let Some(parsed) = parsed {
        *value = parsed;
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Cuts what a model made up, so that an error stays short.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Input {
        path: String,
        limit: Option<u64>,
        mode: Option<String>,
        #[serde(default)]
        all: bool,
        #[serde(default)]
        hidden: bool,
    }

    fn parse(input: Value) -> Result<Input, String> {
        let schema = json!({
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "limit": {"type": "integer", "minimum": 1},
                "mode": {"type": "string", "enum": ["a", "b"]},
                "all": {"type": "boolean"},
            },
            "required": ["path"],
        });
        parse_input("Read", &schema, &["hidden"], input).map_err(|failure| failure.0)
    }

    #[test]
    fn all_issues_are_named_at_once() {
        let error = parse(json!({"limit": 0, "mode": "c", "all": 3, "wat": 1})).unwrap_err();
        assert_eq!(
            error,
            "<tool_use_error>InputValidationError: Read failed due to the following issues:\n\
             The required parameter `path` is missing\n\
             The parameter `limit` must be at least 1\n\
             The parameter `mode` must be one of: a, b\n\
             The parameter `all` must be of type `boolean` but `number` was provided\n\
             An unexpected parameter `wat` was provided</tool_use_error>"
        );
    }

    #[test]
    fn wrong_shapes_are_refused() {
        for (input, says) in [
            (json!([]), "The input must be an object"),
            (json!("x"), "The input must be an object"),
            (json!(null), "The input must be an object"),
            (json!({"path": null}), "The required parameter `path` is missing"),
            (json!({"path": 3}), "The parameter `path` must be of type `string` but `number` was provided"),
            (json!({"path": {}}), "The parameter `path` must be of type `string` but `object` was provided"),
            (json!({"path": "x", "limit": 1.5}), "The parameter `limit` must be of type `integer`"),
            (json!({"path": "x", "limit": "many"}), "The parameter `limit` must be of type `integer`"),
            (json!({"path": "x", "limit": -1}), "The parameter `limit` must be at least 1"),
            (
                json!({"path": "x", "limit": []}),
                "The parameter `limit` must be of type `integer` but `array`",
            ),
            (json!({"path": "x", "hidden": "no"}), "The parameter `hidden` must be of type `boolean`"),
        ] {
            let error = parse(input.clone()).unwrap_err();
            assert!(error.contains(says), "{input}: {error}");
        }
    }

    #[test]
    fn numbers_and_booleans_may_come_as_strings() {
        let input =
            parse(json!({"path": "x", "limit": "5", "all": "true", "mode": null, "hidden": true})).unwrap();
        assert_eq!(
            input,
            Input { path: "x".to_owned(), limit: Some(5), mode: None, all: true, hidden: true }
        );
        assert_eq!(parse(json!({"path": "5", "limit": 7.0})).unwrap().limit, Some(7));
    }
}
