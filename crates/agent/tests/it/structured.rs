//! Turns that end with structured output.

use serde_json::{Value, json};
use wardian_agent::{Options, ResultMessage, query};

use crate::support::{call, messages, model, options, result};

fn schema() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false})
}

async fn ends(replies: Value, more: impl FnOnce(Options) -> Options) -> (ResultMessage, usize) {
    let model = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { output_schema: Some(schema()), ..options(&model, folder.path()) };
    let messages = messages(query("hi", more(options))).await;
    (result(&messages).clone(), model.requests().len())
}

fn answer(id: &str, input: Value) -> Value {
    json!({"tool_use": [call(id, "StructuredOutput", input)]})
}

#[tokio::test]
async fn the_answer_ends_the_turn() {
    let (result, calls) = ends(json!([answer("toolu_1", json!({"a": "x"}))]), |options| options).await;
    assert_eq!((result.subtype.as_str(), result.is_error, result.num_turns), ("success", false, 2));
    assert_eq!(result.extra["structured_output"], json!({"a": "x"}));
    assert_eq!(result.result.as_deref(), Some(r#"{"a":"x"}"#));
    assert_eq!((result.stop_reason.as_deref(), calls), (Some("tool_use"), 1));
}

#[tokio::test]
async fn what_does_not_fit_is_tried_five_times() {
    let replies: Vec<Value> =
        (0..9).map(|number| answer(&format!("toolu_{number}"), json!({"a": number}))).collect();
    let (result, calls) = ends(replies.into(), |options| options).await;
    assert_eq!(result.subtype, "error_max_structured_output_retries");
    assert_eq!((result.is_error, result.num_turns, calls), (true, 6, 5));
    assert_eq!(result.terminal_reason.as_deref(), Some("structured_output_retry_exhausted"));
    assert!(
        result.errors[0].contains("5 attempts") && result.errors[0].contains("/a"),
        "{:?}",
        result.errors
    );
    assert!(!result.extra.contains_key("structured_output"));
    let mended = json!([answer("toolu_1", json!({})), answer("toolu_2", json!({"a": "x"}))]);
    let (result, _) = ends(mended, |options| options).await;
    assert_eq!((result.num_turns, &result.extra["structured_output"]), (3, &json!({"a": "x"})));
}

#[tokio::test]
async fn a_model_that_only_talks_is_reminded_once() {
    let (result, calls) = ends(json!([{"text": "no"}, {"text": "still no"}]), |options| options).await;
    assert_eq!((result.subtype.as_str(), result.num_turns, calls), ("success", 2, 2));
    assert_eq!(result.result.as_deref(), Some("still no"));
    assert!(!result.extra.contains_key("structured_output"));
    let one = |options| Options { max_turns: Some(1), ..options };
    let (result, calls) = ends(json!([{"text": "no"}, {"text": "still no"}]), one).await;
    assert_eq!((result.subtype.as_str(), calls), ("success", 1));
}
