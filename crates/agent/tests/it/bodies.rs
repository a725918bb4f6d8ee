//! What users put into requests: a longer context by the model's name, fields of their own.

use serde_json::{Value, json};
use wardian_agent::{ApiConfig, Options, query};
use wardian_model::Server;

use crate::opening::prompts;
use crate::process::{Agent, command};
use crate::support::{call, kinds, messages, model, options, result};

const BETA: &str = "context-1m-2025-08-07";

fn summary() -> Value {
    json!({"text": "<summary>All of it.</summary>"})
}

#[tokio::test]
async fn a_suffix_asks_for_a_long_context_where_the_model_has_none_by_itself() {
    let place = tempfile::tempdir().unwrap();
    let full = json!({"input_tokens": 500_000, "output_tokens": 5});
    for (name, shown, is_asked, compacted) in [
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4-5[1m]", true, 0),
        ("claude-sonnet-4-5", "claude-sonnet-4-5", false, 1),
        ("sonnet[1M]", "claude-sonnet-5-5", false, 0),
    ] {
        let server = model(&json!({"replies": [{"text": "r1", "usage": full}, summary(), summary()]})).await;
        let mut set_up = Options { model: name.to_owned(), ..options(&server, place.path()) };
        set_up.api =
            ApiConfig { headers: vec![("anthropic-beta".to_owned(), "mine".to_owned())], ..set_up.api };
        let given = messages(query(prompts(&["p1", "p2"]), set_up)).await;
        let init = given[0].to_value();
        assert_eq!(init["model"], shown, "{name}");
        for request in server.requests() {
            assert_eq!(request.body["model"], shown.trim_end_matches("[1m]"));
            let betas = if is_asked { format!("mine,{BETA}") } else { "mine".to_owned() };
            assert_eq!(request.header("anthropic-beta"), Some(betas.as_str()), "{name}");
        }
        let used = &result(&given).model_usage[shown];
        let window = if shown == "claude-sonnet-4-5" { 200_000 } else { 1_000_000 };
        assert_eq!((used.context_window, used.extra["costBasis"].as_str()), (window, Some("list")), "{name}");
        assert_eq!(used.extra["canonicalModel"], shown.trim_end_matches("[1m]"));
        let boundaries = kinds(&given).iter().filter(|kind| *kind == "system/compact_boundary").count();
        assert_eq!(boundaries, compacted, "{name}");
    }
}

#[tokio::test]
async fn a_model_is_switched_to_with_its_suffix() {
    let server = model(&json!({"replies": [{"text": "Hi."}, {"text": "Done."}]})).await;
    let place = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, place.path(), &["--setting-sources="]);
    agent.control("1", json!({"subtype": "initialize"})).await;
    agent.control("2", json!({"subtype": "set_model", "model": "claude-sonnet-4-5[1m]"})).await;
    agent.prompt("go").await;
    let frames = agent.until("result/success").await;
    agent.end().await;
    let init = frames.iter().find(|frame| frame["subtype"] == "init").unwrap();
    assert_eq!(init["model"], "claude-sonnet-4-5[1m]");
    for request in server.requests() {
        assert_eq!(request.body["model"], "claude-sonnet-4-5");
        assert!(request.header("anthropic-beta").unwrap().contains(BETA));
    }
    assert_eq!(server.request_count(), 2, "a probe, and the prompt");
}

/// A turn of the program with a tool and a subagent, and this in its environment.
async fn with_extra(extra: &str) -> (Server, String) {
    let look = call(
        "toolu_a",
        "Agent",
        json!({"description": "look", "prompt": "count", "run_in_background": false}),
    );
    let server = model(&json!({"replies": [
        {"match": {"last_text_contains": "go"}, "tool_use": [look]},
        {"match": {"last_text_contains": "count"}, "text": "Four."},
        {"text": "Done."},
    ]}))
    .await;
    let place = tempfile::tempdir().unwrap();
    let args =
        ["--output-format=stream-json", "--verbose", "--input-format=stream-json", "--setting-sources="];
    let mut command = command(&server, place.path(), &args);
    command.env("CLAUDE_CODE_EXTRA_BODY", extra);
    let mut agent = Agent::spawn(command);
    agent.prompt("go").await;
    agent.until("result/success").await;
    let (_, stderr, code) = agent.end().await;
    assert_eq!(code, Some(0), "{stderr}");
    (server, stderr)
}

#[tokio::test]
async fn fields_of_the_users_own_are_in_every_request() {
    let extra = json!({"top_k": 5, "max_tokens": 77, "metadata": {"user_id": "me"}, "stream": false, "betas": ["b-1", 7]});
    let (server, stderr) = with_extra(&extra.to_string()).await;
    assert_eq!((server.request_count(), stderr.as_str()), (3, ""));
    for request in server.requests() {
        let body = &request.body;
        assert_eq!(
            (&body["top_k"], &body["max_tokens"], &body["stream"]),
            (&json!(5), &json!(77), &json!(true))
        );
        assert_eq!((&body["metadata"], &body["betas"]), (&json!({"user_id": "me"}), &Value::Null));
        assert!(request.header("anthropic-beta").unwrap().contains("b-1"));
    }
    // What stays the same is found in the cache.
    let [first, .., last] = server.requests().try_into().map(|requests: [_; 3]| requests).ok().unwrap();
    for field in ["system", "tools", "top_k"] {
        assert_eq!(first.body[field], last.body[field]);
    }
}

#[tokio::test]
async fn what_is_no_object_is_said_and_left_out() {
    for extra in ["not json", "[1]", "\"text\"", "7", "{\"a\":"] {
        let (server, stderr) = with_extra(extra).await;
        assert!(stderr.contains("CLAUDE_CODE_EXTRA_BODY is no JSON object"), "{extra}: {stderr}");
        assert!(!stderr.contains(extra), "it may hold secrets");
        assert_eq!(server.request_count(), 3);
    }
}
