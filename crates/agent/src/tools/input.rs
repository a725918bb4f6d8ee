//! Input of a tool, checked against the schema that the model was given.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Failure;
use crate::schema;

/// Parses a tool's input. All that is wrong with it is said at once, so that the model mends it in one go.
///
/// A number or boolean that came as a string is taken as what it says, and null as left out: models do both now and
/// then.
pub fn parse_input<T: DeserializeOwned>(tool: &str, schema: &Value, input: Value) -> Result<T, Failure> {
    let mut input = input;
    if let Value::Object(fields) = &mut input {
        fields.retain(|_, value| !value.is_null());
        coerce(schema, fields);
    }
    let problems = schema::problems(schema, &input);
    if !problems.is_empty() {
        return Err(invalid(tool, &problems));
    }
    serde_json::from_value(input).map_err(|error| invalid(tool, &[error.to_string()]))
}

fn invalid(tool: &str, problems: &[String]) -> Failure {
    Failure(format!(
        "<tool_use_error>InputValidationError: {tool} failed due to the following issues:\n{}</tool_use_error>",
        problems.join("\n")
    ))
}

fn coerce(schema: &Value, fields: &mut Map<String, Value>) {
    for (name, value) in fields {
        let said = match (schema["properties"][name.as_str()]["type"].as_str(), &*value) {
            (Some("integer"), Value::String(text)) => text.trim().parse::<i64>().ok().map(Value::from),
            (Some("integer"), Value::Number(number)) => whole(number.as_f64()),
            (Some("boolean"), Value::String(text)) => text.trim().parse::<bool>().ok().map(Value::from),
            _ => None,
        };
        if let Some(said) = said {
            *value = said;
        }
    }
}

/// `5.0` is an integer to a schema, but not to serde.
fn whole(number: Option<f64>) -> Option<Value> {
    // Up to here every integer has a float of its own.
    let number = number.filter(|number| number.fract() == 0.0 && number.abs() < 9e15)?;
    Some(Value::from(number as i64))
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
            "additionalProperties": false,
        });
        parse_input("Read", &schema, input).map_err(|failure| failure.0)
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let error = parse(json!({"limit": 0, "mode": "c", "all": 3, "wat": 1})).unwrap_err();
        assert_eq!(
            error,
            "<tool_use_error>InputValidationError: Read failed due to the following issues:\n\
             `path` is missing\n\
             `limit` must be at least 1\n\
             `mode` must be one of \"a\", \"b\"\n\
             `all` must be of type boolean, and is a number\n\
             `wat` is not known</tool_use_error>"
        );
    }

    #[test]
    fn wrong_shapes_are_refused() {
        for (input, says) in [
            (json!([]), "`input` must be of type object"),
            (json!("x"), "`input` must be of type object"),
            (json!(null), "`input` must be of type object"),
            (json!({"path": null}), "`path` is missing"),
            (json!({"path": 3}), "`path` must be of type string"),
            (json!({"path": {}}), "`path` must be of type string"),
            (json!({"path": "x", "limit": 1.5}), "`limit` must be of type integer"),
            (json!({"path": "x", "limit": "many"}), "`limit` must be of type integer"),
            (json!({"path": "x", "limit": "-1"}), "`limit` must be at least 1"),
            (json!({"path": "x", "limit": 1e300}), "invalid type"),
            (json!({"path": "x", "all": "yes"}), "`all` must be of type boolean"),
        ] {
            let error = parse(input.clone()).unwrap_err();
            assert!(error.contains(says), "{input}: {error}");
        }
    }

    #[test]
    fn numbers_and_booleans_may_come_as_strings() {
        let input = parse(json!({"path": "5", "limit": " 5", "all": "true", "mode": null})).unwrap();
        assert_eq!(input, Input { path: "5".to_owned(), limit: Some(5), mode: None, all: true });
        assert_eq!(parse(json!({"path": "5", "limit": 7.0})).unwrap().limit, Some(7));
        let huge = parse(json!({"path": "5", "limit": u64::MAX})).unwrap();
        assert_eq!(huge.limit, Some(u64::MAX));
    }
}
