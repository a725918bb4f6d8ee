//! Turns and money.

use serde_json::{Value, json};
use wardian_agent::{NanoUsd, Options, PermissionMode, Prompt, query};

use crate::support::{call, messages, model, options, result};

/// A model that runs one more command each time, for 0.4 dollars a reply: 40,000 tokens at 10 dollars a million.
fn expensive(replies: usize) -> Value {
    let reply = |number: usize| {
        json!({
            "tool_use": [call(&format!("toolu_{number}"), "Bash", json!({"command": "echo x >> runs"}))],
            "usage": {"input_tokens": 0, "output_tokens": 40_000},
        })
    };
    json!({"replies": (0..replies).map(reply).collect::<Vec<_>>()})
}

fn bypassing(options: Options) -> Options {
    Options { permission_mode: PermissionMode::BypassPermissions, ..options }
}

#[tokio::test]
async fn the_calls_of_the_last_turn_run() {
    let model = model(&expensive(3)).await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { max_turns: Some(2), ..bypassing(options(&model, folder.path())) };
    let messages = messages(query("hi", options)).await;
    let result = result(&messages);
    assert_eq!(result.subtype, "error_max_turns");
    assert_eq!((result.num_turns, result.is_error, &result.result), (3, true, &None));
    assert_eq!(result.terminal_reason.as_deref(), Some("max_turns"));
    assert_eq!(result.errors, ["Reached maximum number of turns (2)"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("runs")).unwrap(), "x\nx\n");
}

#[tokio::test]
async fn the_call_that_passed_the_budget_does_not_run() {
    let model = model(&expensive(3)).await;
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { max_budget: Some(NanoUsd(500_000_000)), ..bypassing(options(&model, folder.path())) };
    let prompt =
        |text: &str| serde_json::from_value(json!({"message": {"role": "user", "content": text}})).unwrap();
    let messages = messages(query(Prompt::Messages(vec![prompt("one"), prompt("two")]), options)).await;
    let results: Vec<_> = messages
        .iter()
        .filter_map(|message| match message {
            wardian_agent::Message::Result(result) => Some(result),
            _ => None,
        })
        .collect();
    let [first, second] = results[..] else { panic!("{results:?}") };
    assert_eq!(first.subtype, "error_max_budget_usd");
    assert_eq!((first.num_turns, first.total_cost_usd), (2, NanoUsd(800_000_000)));
    assert_eq!(first.errors, ["Reached maximum budget ($0.5)"]);
    assert_eq!(first.model_usage["claude-sonnet-5"].output_tokens, 80_000);
    assert_eq!(std::fs::read_to_string(folder.path().join("runs")).unwrap(), "x\n");
    // What is spent stays spent: the next prompt costs nothing any more.
    assert_eq!((second.subtype.as_str(), second.num_turns), ("error_max_budget_usd", 1));
    assert_eq!(model.requests().len(), 2);
    assert_eq!(result(&messages).total_cost_usd, NanoUsd(800_000_000));
}

#[tokio::test]
async fn cost_adds_up_over_prompts_and_usage_does_not() {
    let model =
        model(&json!({"replies": [{"text": "One."}, {"text": "Two.", "model": "claude-haiku-4-5"}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let prompt =
        |text: &str| serde_json::from_value(json!({"message": {"role": "user", "content": text}})).unwrap();
    let prompts = Prompt::Messages(vec![prompt("one"), prompt("two")]);
    let messages = messages(query(prompts, options(&model, folder.path()))).await;
    let result = result(&messages);
    // 10 in and 5 out: 70,000 nano-dollars on sonnet-5 (2 and 10), 35,000 on haiku-4-5 (1 and 5).
    assert_eq!(result.total_cost_usd, NanoUsd(105_000));
    assert_eq!(result.usage.input_tokens, Some(10));
    let models: Vec<_> =
        result.model_usage.iter().map(|(model, usage)| (model.as_str(), usage.cost_usd.0)).collect();
    assert_eq!(models, [("claude-haiku-4-5", 35_000), ("claude-sonnet-5", 70_000)]);
    assert_eq!(result.extra["result_index"], 1);
}
