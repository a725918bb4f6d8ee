//! The fields of what is told, and what flags put into requests.

use serde_json::{Value, json};

use crate::process::{Agent, command};
use crate::support::model;

/// The names of an object's fields, sorted.
fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn prompt(text: &str, uuid: &str, more: &Value) -> Value {
    let mut prompt = json!({"type": "user", "session_id": "", "parent_tool_use_id": null, "uuid": uuid,
        "message": {"role": "user", "content": [{"type": "text", "text": text}]}});
    prompt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    prompt
}

fn of_type<'a>(frames: &'a [Value], kind: &str) -> Vec<&'a Value> {
    frames.iter().filter(|frame| frame["type"] == kind).collect()
}

const UUID: &str = "11111111-1111-4111-8111-111111111111";

#[tokio::test]
async fn a_result_has_every_field_that_hosts_read() {
    let server = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--include-partial-messages"]);
    agent.send(prompt("hi", UUID, &json!({}))).await;
    let (frames, _, code) = agent.end().await;
    assert_eq!(code, Some(0));
    let result = of_type(&frames, "result")[0];
    for name in [
        "api_error_status",
        "begun_message_ids",
        "duration_api_ms",
        "duration_ms",
        "fast_mode_state",
        "first_content_frame_ms",
        "first_request_cache_read_input_tokens",
        "first_request_input_tokens",
        "is_error",
        "modelUsage",
        "model_usage_since_last_result",
        "num_turns",
        "permission_denials",
        "queued_turn_count",
        "request_sent_wall_ms",
        "result",
        "result_index",
        "safety_stops",
        "session_id",
        "stop_reason",
        "subagent_stats",
        "subtype",
        "terminal_reason",
        "time_to_request_ms",
        "total_cost_usd",
        "ttft_ms",
        "ttft_stream_ms",
        "type",
        "usage",
        "user_message_uuid",
        "user_message_uuids",
        "uuid",
    ] {
        assert!(result.get(name).is_some(), "{name}: {result}");
    }
    assert_eq!((&result["user_message_uuid"], &result["user_message_uuids"]), (&json!(UUID), &json!([UUID])));
    assert_eq!(
        names(&result["usage"]),
        [
            "cache_creation",
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "fallback_credit",
            "inference_geo",
            "input_tokens",
            "iterations",
            "output_tokens",
            "output_tokens_details",
            "server_tool_use",
            "service_tier",
            "speed",
        ]
    );
    assert_eq!(
        names(&result["modelUsage"]["claude-sonnet-5-5"]),
        [
            "cacheCreationEphemeral1hInputTokens",
            "cacheCreationEphemeral5mInputTokens",
            "cacheCreationInputTokens",
            "cacheReadInputTokens",
            "canonicalModel",
            "contextWindow",
            "costBasis",
            "costUSD",
            "inputTokens",
            "maxOutputTokens",
            "outputTokens",
            "provider",
            "thinkingTokens",
            "webSearchRequests",
        ]
    );
    assert_eq!(result["modelUsage"], result["model_usage_since_last_result"]);
    let assistant = of_type(&frames, "assistant")[0];
    for name in ["request_id", "timestamp", "user_message_uuid", "user_message_uuids", "uuid", "session_id"] {
        assert!(assistant.get(name).is_some(), "{name}: {assistant}");
    }
    let init = frames.iter().find(|frame| frame["subtype"] == "init").unwrap();
    assert_eq!(init["user_message_uuids"], json!([UUID]));
    for name in ["capabilities", "original_cwd", "memory_paths", "fast_mode_state", "terminal_slash_commands"]
    {
        assert!(init.get(name).is_some(), "{name}: {init}");
    }
}

#[tokio::test]
async fn what_was_used_since_the_last_result_is_the_difference() {
    let server = model(&json!({"replies": [{"text": "One."}, {"text": "Two."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[]);
    for text in ["first", "second"] {
        agent.prompt(text).await;
        let frames = agent.until("state/idle").await;
        let result = of_type(&frames, "result")[0];
        let since = &result["model_usage_since_last_result"]["claude-sonnet-5-5"];
        assert_eq!((&since["inputTokens"], &since["outputTokens"]), (&json!(10), &json!(5)), "{result}");
        assert_eq!(since["costUSD"], 0.000_07);
        assert_eq!(result["usage"]["input_tokens"], 10, "the main loop of this turn");
        let turns = if text == "first" { 1 } else { 2 };
        assert_eq!(result["modelUsage"]["claude-sonnet-5-5"]["inputTokens"], 10 * turns);
    }
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn without_a_key_nothing_is_asked() {
    let server = model(&json!({"replies": [{"text": "never"}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let args = ["-p", "hi", "--output-format", "stream-json", "--verbose"];
    let output =
        command(&server, folder.path(), &args).env_remove("ANTHROPIC_API_KEY").output().await.unwrap();
    let frames: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(of_type(&frames, "assistant")[0]["error"], "authentication_failed");
    let result = of_type(&frames, "result")[0];
    assert_eq!((&result["subtype"], &result["is_error"]), (&json!("success"), &json!(true)));
    assert_eq!(
        (&result["terminal_reason"], &result["api_error_status"]),
        (&json!("api_error"), &Value::Null)
    );
    assert_eq!(result["result"], "Not logged in · Please run /login");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn another_model_takes_the_place_of_one_that_cannot_be_had() {
    for (status, retries, trigger) in
        [(529, 2, "overloaded"), (500, 0, "server_error"), (404, 0, "model_not_found")]
    {
        let server = model(&json!({"replies": [
            {"match": {"model": "claude-sonnet-5-5"}, "error": {"status": status, "headers": {"retry-after": "0"}}, "repeat": true},
            {"match": {"model": "claude-haiku-5-5"}, "text": "Here.", "repeat": true},
        ]}))
        .await;
        let folder = tempfile::tempdir().unwrap();
        let args = ["--model=claude-sonnet-5-5", "--fallback-model=sonnet,haiku"];
        let mut agent = Agent::start(&server, folder.path(), &args);
        // The first model is tried again with each prompt.
        for turn in 1..=2 {
            agent.prompt("hi").await;
            let frames = agent.until("state/idle").await;
            let told: Vec<_> = frames.iter().filter(|frame| frame["subtype"] == "model_fallback").collect();
            assert_eq!(told.len(), 1, "{status}");
            assert_eq!(told[0]["trigger"], trigger);
            assert_eq!(
                (&told[0]["original_model"], &told[0]["fallback_model"]),
                (&json!("claude-sonnet-5-5"), &json!("claude-haiku-5-5"))
            );
            let retried = frames.iter().filter(|frame| frame["subtype"] == "api_retry").count();
            assert_eq!(retried, retries, "{status}");
            let result = of_type(&frames, "result")[0];
            assert_eq!((&result["result"], &result["is_error"]), (&json!("Here."), &json!(false)));
            assert_eq!(server.requests().len(), turn * (retries + 2), "{status}");
        }
        assert_eq!(agent.end().await.2, Some(0));
    }
    // What another model would refuse too is not given to it.
    let server = model(&json!({"replies": [{"error": {"status": 400}}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--fallback-model=haiku"]);
    agent.prompt("hi").await;
    assert_eq!(agent.end().await.2, Some(1));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn flags_reach_the_request() {
    for (flags, field, expected) in [
        (&["--effort=high"][..], "output_config", json!({"effort": "high"})),
        (
            &["--task-budget=5000", "--effort=low"],
            "output_config",
            json!({"effort": "low", "task_budget": {"type": "tokens", "total": 5000}}),
        ),
        (&["--thinking=adaptive"], "thinking", json!({"type": "adaptive"})),
        (
            &["--thinking=adaptive", "--thinking-display", "omitted"],
            "thinking",
            json!({"type": "adaptive", "display": "omitted"}),
        ),
        (&["--thinking=disabled", "--thinking-display=omitted"], "thinking", json!({"type": "disabled"})),
        (
            &["--max-thinking-tokens", "2000", "--thinking-display=summarized"],
            "thinking",
            json!({"type": "enabled", "budget_tokens": 2000, "display": "summarized"}),
        ),
        (&[], "thinking", Value::Null),
    ] {
        let server = model(&json!({"replies": [{"text": "Hello."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), flags);
        agent.prompt("hi").await;
        assert_eq!(agent.end().await.2, Some(0), "{flags:?}");
        let request = &server.requests()[0];
        assert_eq!(request.body[field], expected, "{flags:?}");
        let betas = request.header("anthropic-beta").unwrap_or_default();
        assert_eq!(
            betas.contains("task-budgets-"),
            flags[..].iter().any(|flag| flag.contains("task-budget"))
        );
    }
}

#[tokio::test]
async fn thinking_can_change_between_turns() {
    let server = model(&json!({"replies": [{"text": "One."}, {"text": "Two."}, {"text": "Three."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--thinking=adaptive"]);
    agent.control("i", json!({"subtype": "initialize"})).await;
    for tokens in [json!(0), json!(3000), Value::Null] {
        let request = json!({"subtype": "set_max_thinking_tokens", "max_thinking_tokens": tokens});
        agent.control("t", request).await;
        agent.prompt("hi").await;
        agent.until("state/idle").await;
    }
    assert_eq!(agent.end().await.2, Some(0));
    let sent: Vec<Value> = server.requests().iter().map(|request| request.body["thinking"].clone()).collect();
    assert_eq!(
        sent,
        [
            json!({"type": "disabled"}),
            json!({"type": "enabled", "budget_tokens": 3000}),
            json!({"type": "adaptive"})
        ]
    );
}

#[tokio::test]
async fn thinking_is_told_as_it_grows() {
    let server = model(&json!({"replies": [{"thinking": "Hmm, a hard question.", "text": "Yes."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[]);
    agent.prompt("hi").await;
    let (frames, _, _) = agent.end().await;
    let told: Vec<_> = frames.iter().filter(|frame| frame["subtype"] == "thinking_tokens").collect();
    assert_eq!(told.len(), 2, "a piece of 16 characters, and the rest");
    let last = told.last().unwrap();
    assert_eq!((&last["estimated_tokens"], &last["estimated_tokens_delta"]), (&json!(6), &json!(2)));
    assert!(of_type(&frames, "assistant")[0]["thinking_duration_ms"].is_u64());
}

#[tokio::test]
async fn prompts_are_given_back_to_who_wants_that() {
    let server = model(&json!({"replies": [{"text": "One."}, {"text": "Two."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--replay-user-messages"]);
    agent.send(prompt("first", UUID, &json!({}))).await;
    agent.until("state/idle").await;
    agent.prompt("second").await;
    let (frames, _, code) = agent.end().await;
    assert_eq!(code, Some(0));
    let given = of_type(&frames, "user");
    assert_eq!(given.len(), 1);
    assert_eq!(
        (&given[0]["isReplay"], &given[0]["message"]["content"][0]["text"]),
        (&json!(true), &json!("second"))
    );
    assert!(
        given[0]["uuid"].is_string()
            && given[0]["session_id"].is_string()
            && given[0]["timestamp"].is_string()
    );
    // Whose request it is stands in a header, too.
    let ids: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.header("x-claude-code-session-id").map(str::to_owned))
        .collect();
    assert_eq!(ids[0], frames[0]["session_id"].as_str().map(str::to_owned));
    assert_eq!(ids[0], ids[1]);
}

/// The program as the SDKs start it: prompts that wait are taken together, and it is told what becomes of them.
fn sdk(server: &wardian_model::Server, cwd: &std::path::Path, flags: &[&str]) -> Agent {
    let stream = ["--output-format", "stream-json", "--verbose", "--input-format", "stream-json"];
    let args: Vec<&str> = stream.iter().chain(flags).copied().collect();
    let mut command = command(server, cwd, &args);
    command.env("CLAUDE_CODE_SDK_READS_SESSION_STATE", "1");
    Agent::spawn(command)
}

fn uuid(n: u8) -> String {
    format!("{n}{n}{n}{n}{n}{n}{n}{n}-1111-4111-8111-111111111111")
}

/// What was told, in order: lives of prompts as `1 queued`, other frames by their kind.
fn story(frames: &[Value]) -> Vec<String> {
    let tell = |frame: &Value| match frame["type"].as_str().unwrap() {
        "command_lifecycle" => {
            format!("{} {}", &frame["command_uuid"].as_str().unwrap()[..1], frame["state"].as_str().unwrap())
        }
        "system" if frame["subtype"] == "session_state_changed" => {
            frame["state"].as_str().unwrap().to_owned()
        }
        "system" => frame["subtype"].as_str().unwrap().to_owned(),
        "control_response" => "answer".to_owned(),
        kind => kind.to_owned(),
    };
    frames.iter().map(tell).collect()
}

#[tokio::test]
async fn prompts_that_wait_are_one_turn() {
    let server = model(&json!({"replies": [{"text": "One.", "hold": true}, {"text": "Two."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = sdk(&server, folder.path(), &["--replay-user-messages"]);
    agent.send(prompt("first", &uuid(1), &json!({}))).await;
    server.wait_for(1).await;
    agent.send(prompt("second", &uuid(2), &json!({}))).await;
    agent.send(prompt("third", &uuid(3), &json!({}))).await;
    agent.send(prompt("fourth", &uuid(4), &json!({}))).await;
    agent.control("c", json!({"subtype": "cancel_async_message", "message_uuid": uuid(3)})).await;
    agent.control("x", json!({"subtype": "cancel_async_message", "message_uuid": uuid(3)})).await;
    agent.control("i", json!({"subtype": "interrupt"})).await;
    let frames = agent.until("state/idle").await;
    let answers = of_type(&frames, "control_response");
    assert_eq!(answers[0]["response"]["response"], json!({"cancelled": true, "message_uuid": uuid(3)}));
    assert_eq!(answers[1]["response"]["response"], json!({"cancelled": false}));
    assert_eq!(answers[2]["response"]["response"], json!({"still_queued": [uuid(2), uuid(4)]}));
    let lives: Vec<String> = story(&frames)
        .into_iter()
        .filter(|told| !matches!(told.as_str(), "answer" | "assistant" | "user"))
        .collect();
    assert_eq!(
        lives,
        [
            "running",
            "1 queued",
            "1 started",
            "init",
            "2 queued",
            "3 queued",
            "4 queued",
            "3 cancelled",
            "result",
            "1 cancelled",
            "2 started",
            "4 started",
            "init",
            "result",
            "2 completed",
            "4 completed",
            "idle",
        ]
    );
    let results = of_type(&frames, "result");
    assert_eq!(results[1]["user_message_uuids"], json!([uuid(2), uuid(4)]));
    assert_eq!(results[1]["user_message_uuid"], json!(uuid(4)));
    let replayed: Vec<&Value> =
        of_type(&frames, "user").into_iter().filter(|frame| frame["isReplay"] == true).collect();
    let uuids: Vec<&str> = replayed.iter().map(|frame| frame["uuid"].as_str().unwrap()).collect();
    assert_eq!(uuids, [uuid(1), uuid(2), uuid(4)]);
    let said = server.requests()[1].body["messages"].to_string();
    assert!(said.contains("second") && said.contains("fourth") && !said.contains("third"), "{said}");
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_prompt_joins_the_turn_under_way_waits_or_ends_it() {
    for (priority, requests, results, terminal) in
        [("next", 2, 1, "completed"), ("later", 3, 2, "completed"), ("now", 2, 2, "aborted_tools")]
    {
        let bash = json!({"name": "Bash", "id": "toolu_1", "input": {"command": "mkfifo up; cat up"}});
        let server =
            model(&json!({"replies": [{"tool_use": [bash]}, {"text": "After."}, {"text": "Then."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = sdk(&server, folder.path(), &["--allowedTools=Bash"]);
        agent.send(prompt("first", &uuid(1), &json!({}))).await;
        let fifo = folder.path().join("up");
        while !fifo.exists() {
            tokio::task::yield_now().await;
        }
        agent.send(prompt("second", &uuid(2), &json!({"priority": priority}))).await;
        let mut frames = agent.until("assistant").await;
        while !story(&frames).contains(&"2 queued".to_owned()) {
            frames.push(agent.next().await.unwrap());
        }
        tokio::fs::write(&fifo, "x").await.unwrap();
        frames.extend(agent.until("state/idle").await);
        assert_eq!(server.requests().len(), requests, "{priority}");
        let given = of_type(&frames, "result");
        assert_eq!(given.len(), results, "{priority}");
        assert_eq!(given[0]["terminal_reason"], terminal, "{priority}");
        assert_eq!((&given[0]["subtype"], &given[0]["is_error"]), (&json!("success"), &json!(false)));
        assert_eq!(given[0]["num_turns"], 2, "{priority}");
        let told = story(&frames);
        let place = |text: &str| told.iter().position(|told| told == text).unwrap();
        assert_eq!(place("2 started") < place("result"), priority == "next", "{told:?}");
        assert!(place("2 started") < place("2 completed"), "{told:?}");
        let said = server.requests()[1].body["messages"].to_string();
        assert_eq!(said.contains("second"), priority != "later", "{said}");
        assert_eq!(agent.end().await.2, Some(0));
    }
}

#[tokio::test]
async fn a_prompt_that_cannot_wait_ends_the_reply_under_way() {
    let server = model(&json!({"replies": [{"text": "Once upon", "hold": true}, {"text": "After."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = sdk(&server, folder.path(), &["--include-partial-messages"]);
    agent.send(prompt("first", &uuid(1), &json!({}))).await;
    let mut frames = Vec::new();
    while frames.last().is_none_or(|frame: &Value| frame["event"]["type"] != "content_block_delta") {
        frames.push(agent.next().await.unwrap());
    }
    agent.send(prompt("second", &uuid(2), &json!({"priority": "now"}))).await;
    frames.extend(agent.until("state/idle").await);
    let results = of_type(&frames, "result");
    assert_eq!(results.len(), 2);
    assert_eq!((&results[0]["result"], &results[0]["is_error"]), (&json!("Once upon"), &json!(false)));
    assert_eq!(results[0]["terminal_reason"], "aborted_streaming");
    assert_eq!(of_type(&frames, "assistant")[0]["aborted"], true);
    assert_eq!(of_type(&frames, "user").len(), 0, "nobody interrupted");
    assert_eq!(results[1]["result"], "After.");
    assert_eq!(agent.end().await.2, Some(0));
}
