//! A model that means harm, or has lost its mind.

use serde_json::{Value, json};
use wardian_agent::{Options, PermissionMode, query};

use crate::support::{call, kinds, messages, model, options, result, tool_results};

async fn run(replies: Value, change: impl FnOnce(&mut Options)) -> Vec<wardian_agent::Message> {
    let model = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    change(&mut options);
    messages(query("hi", options)).await
}

#[tokio::test]
async fn calls_that_make_no_sense_are_answered_and_the_turn_goes_on() {
    let long = "x".repeat(100_000);
    for (name, input, expected) in [
        ("Teleport", json!({}), "There is no tool \"Teleport\""),
        (long.as_str(), json!({}), "There is no tool"),
        ("", json!({}), "There is no tool"),
        ("Read", json!({}), "`file_path` is missing"),
        ("Read", json!({"file_path": 7}), "must be of type string"),
        ("Bash", json!("{\"command\": \"touch ran"), "not valid JSON"),
        ("Bash", json!([1, 2]), "must be of type object"),
        ("Bash", json!(null), "must be of type object"),
    ] {
        let block = json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": input});
        let messages = run(json!([{"content": [block]}, {"text": "Done."}]), |_| ()).await;
        let results = tool_results(&messages);
        assert!(
            results[0].1 && results[0].0.contains(expected),
            "{}: {results:?}",
            &name[..name.len().min(20)]
        );
        assert!(results[0].0.len() < 1000);
        assert_eq!(result(&messages).result.as_deref(), Some("Done."));
    }
}

#[tokio::test]
async fn two_calls_with_one_id_are_both_answered() {
    let calls =
        json!([call("toolu_1", "Glob", json!({"pattern": "*"})), call("toolu_1", "Teleport", json!({}))]);
    let messages = run(json!([{"tool_use": calls}]), |_| ()).await;
    assert_eq!(tool_results(&messages).len(), 2);
}

#[tokio::test]
async fn a_model_that_never_stops_calling_is_bounded() {
    let reply = json!({"tool_use": [{"name": "Glob", "input": {"pattern": "*"}}], "repeat": true});
    let messages = run(json!([reply]), |options| options.max_turns = Some(20)).await;
    assert_eq!((result(&messages).subtype.as_str(), result(&messages).num_turns), ("error_max_turns", 21));
}

#[tokio::test]
async fn ten_megabytes_of_text_come_through() {
    let text = "0123456789".repeat(1_000_000);
    let messages = run(json!([{"text": text, "chunk_bytes": 60_000}]), |_| ()).await;
    assert_eq!(result(&messages).result.as_ref().unwrap().len(), 10_000_000);
}

#[tokio::test]
async fn a_result_too_long_for_the_model_is_cut_and_kept() {
    struct Long;
    impl wardian_agent::Tool for Long {
        fn name(&self) -> &str {
            "long"
        }
        fn description(&self) -> &str {
            "Gives much."
        }
        fn input_schema(&self) -> Value {
            json!({"type": "object"})
        }
        fn call<'a>(
            &'a self,
            _: Value,
            _: &'a wardian_agent::ToolContext,
        ) -> futures_util::future::BoxFuture<'a, wardian_agent::ToolOutput> {
            Box::pin(async { wardian_agent::ToolOutput::ok("é".repeat(1_000_000), json!({})) })
        }
    }
    let kept = tempfile::tempdir().unwrap();
    let replies = json!([{"tool_use": [call("../../toolu", "long", json!({}))]}, {"text": "Done."}]);
    let messages = run(replies, |options| {
        options.custom_tools = vec![std::sync::Arc::new(Long)];
        options.output_dir = Some(kept.path().join("outputs"));
    })
    .await;
    let (text, is_error) = &tool_results(&messages)[0];
    assert!(text.len() < 300_000 && !is_error);
    let file = kept.path().join("outputs/______toolu.txt");
    assert!(text.contains(file.to_str().unwrap()), "{}", &text[text.len() - 200..]);
    assert_eq!(std::fs::metadata(file).unwrap().len(), 2_000_000);
}

#[tokio::test]
async fn a_tool_that_crashes_is_an_error_for_the_model() {
    struct Crash;
    impl wardian_agent::Tool for Crash {
        fn name(&self) -> &str {
            "crash"
        }
        fn description(&self) -> &str {
            "Crashes."
        }
        fn input_schema(&self) -> Value {
            json!({"type": "object"})
        }
        fn call<'a>(
            &'a self,
            _: Value,
            _: &'a wardian_agent::ToolContext,
        ) -> futures_util::future::BoxFuture<'a, wardian_agent::ToolOutput> {
            Box::pin(async { panic!("on purpose") })
        }
    }
    let replies = json!([{"tool_use": [call("toolu_1", "crash", json!({}))]}, {"text": "Done."}]);
    let messages = run(replies, |options| options.custom_tools = vec![std::sync::Arc::new(Crash)]).await;
    assert!(tool_results(&messages)[0].0.contains("crashed"));
    assert_eq!(kinds(&messages).last().unwrap(), "result/success");
}

#[tokio::test]
async fn counts_that_cannot_be_do_not_wrap() {
    let usage = json!({"input_tokens": u64::MAX, "output_tokens": u64::MAX});
    let glob = json!([{"name": "Glob", "input": {"pattern": "*"}}]);
    let replies = json!([{"tool_use": glob, "usage": usage}, {"text": "Done.", "usage": usage}]);
    let messages = run(replies, |_| ()).await;
    assert_eq!(result(&messages).usage.input_tokens, Some(u64::MAX));
    assert!(result(&messages).total_cost_usd.0 > 0);
}
