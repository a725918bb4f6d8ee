//! Structured output: the turn ends with a value of a given JSON schema, or says that it has none.
//!
//! source: the agent protocol reference, sections 1.6 and 2.7.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use jsonschema::Validator;
use serde_json::Value;

use crate::tool::{Tool, ToolContext, ToolOutput};
use crate::{Error, words};

/// The tool's name.
pub(crate) const NAME: &str = "StructuredOutput";
/// Answers that do not fit the schema, until the turn is given up.
pub(crate) const MAX_ATTEMPTS: u32 = 5;
/// The largest schema taken: it is sent with every request.
const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// Problems of one answer that the model is told at once.
const MAX_PROBLEMS: usize = 8;
/// The longest text of one problem: it may quote the answer.
const MAX_PROBLEM_CHARS: usize = 300;

/// The tool that takes the answer.
pub(crate) struct StructuredOutput {
    schema: Value,
    validator: Validator,
    given: Mutex<Option<Value>>,
}

impl StructuredOutput {
    /// Reads the schema. Nothing is fetched: one that refers to other documents is refused.
    pub(crate) fn new(schema: Value) -> Result<Arc<Self>, Error> {
        let broken = |message: String| Error::OutputSchema { message };
        if !schema.is_object() {
            return Err(broken("it must be an object".to_owned()));
        }
        if schema.to_string().len() > MAX_SCHEMA_BYTES {
            return Err(broken(format!("it is over {MAX_SCHEMA_BYTES} bytes")));
        }
        let validator = jsonschema::validator_for(&schema).map_err(|error| broken(error.to_string()))?;
        Ok(Arc::new(Self { schema, validator, given: Mutex::new(None) }))
    }

    /// Takes the answer that was given, if one was.
    pub(crate) fn take(&self) -> Option<Value> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn problems(&self, answer: &Value) -> Vec<String> {
        let problem = |error: jsonschema::ValidationError<'_>| {
            let text = format!("{}: {error}", error.instance_path());
            text.chars().take(MAX_PROBLEM_CHARS).collect()
        };
        self.validator.iter_errors(answer).take(MAX_PROBLEMS).map(problem).collect()
    }
}

impl fmt::Debug for StructuredOutput {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StructuredOutput").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Tool for StructuredOutput {
    fn name(&self) -> &str {
        NAME
    }

    fn description(&self) -> &str {
        "Gives your final answer as data. Call it once, when the work is done, with an input that fits the schema: \
         nothing that you say instead is read by the program that asked."
    }

    fn input_schema(&self) -> Value {
        self.schema.clone()
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn checks_input(&self) -> bool {
        true
    }

    fn call<'a>(&'a self, input: Value, _context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            let problems = self.problems(&input);
            if !problems.is_empty() {
                return ToolOutput::error(words::unfit_output(&problems));
            }
            *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(input);
            ToolOutput::ok(words::OUTPUT_TAKEN, Value::String(words::OUTPUT_TAKEN.to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn an_answer_fits_or_is_told_why_not() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}, "kind": {"$ref": "#/$defs/kind"}},
            "required": ["n"], "additionalProperties": false, "$defs": {"kind": {"enum": ["a", "b"]}}});
        let tool = StructuredOutput::new(schema).unwrap();
        let context = ToolContext::new("/".into(), "/".into());
        for (answer, problem) in [
            (json!({"n": 0}), "/n"),
            (json!({}), "n"),
            (json!({"n": 1, "kind": "c"}), "/kind"),
            (json!({"n": 1, "x": 1}), "x"),
            (json!("text"), "object"),
            (json!({"n": "9".repeat(1_000_000)}), "/n"),
        ] {
            let output = tool.call(answer, &context).await;
            let text = output.content.as_str().unwrap();
            assert!(output.is_error && text.contains(problem), "{text}");
            assert!(text.len() < 4_000);
            assert_eq!(tool.take(), None);
        }
        assert!(!tool.call(json!({"n": 2, "kind": "a"}), &context).await.is_error);
        assert_eq!(tool.take(), Some(json!({"n": 2, "kind": "a"})));
        assert_eq!(tool.take(), None);
    }

    #[test]
    fn schemas_that_cannot_be_used_are_refused() {
        for schema in [
            json!(true),
            json!([]),
            json!("object"),
            json!({"type": 7}),
            json!({"$ref": "http://127.0.0.1:1/schema.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"properties": {"a": {"pattern": "("}}}),
            json!({"description": "x".repeat(MAX_SCHEMA_BYTES)}),
        ] {
            assert!(StructuredOutput::new(schema.clone()).is_err(), "{}", schema.to_string().len());
        }
    }
}
