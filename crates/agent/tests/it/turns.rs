//! What a turn gives, message by message, and what the model hears of it.

use serde_json::{Value, json};
use wardian_agent::{Message, PermissionMode, SystemPrompt, ToolSet, query};

use crate::support::{call, kinds, messages, model, options, redacted, result, tool_results};

#[tokio::test]
async fn a_text_turn() {
    let model = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let messages = messages(query("hi", options(&model, folder.path()))).await;
    insta::assert_snapshot!(redacted(&messages, folder.path()), @r##"
{"type":"system","subtype":"init"}
{"type":"assistant","message":{"id":"…","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"text","text":"Hello."}],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"service_tier":"standard"},"context_management":null},"parent_tool_use_id":null,"uuid":"…","session_id":"…","timestamp":"…","request_id":"…"}
{"type":"result","subtype":"success","is_error":false,"duration_ms":"…","duration_api_ms":"…","num_turns":1,"result":"Hello.","stop_reason":"end_turn","session_id":"…","total_cost_usd":0.00007,"usage":{"input_tokens":10,"output_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0},"service_tier":"standard","speed":"standard","inference_geo":"","iterations":[],"output_tokens_details":{"thinking_tokens":0},"fallback_credit":null},"modelUsage":{"claude-sonnet-5":{"inputTokens":10,"outputTokens":5,"cacheReadInputTokens":0,"cacheCreationInputTokens":0,"webSearchRequests":0,"costUSD":0.00007,"contextWindow":1000000,"maxOutputTokens":128000,"thinkingTokens":0,"cacheCreationEphemeral5mInputTokens":0,"cacheCreationEphemeral1hInputTokens":0,"canonicalModel":"claude-sonnet-5","provider":"firstParty","costBasis":"list"}},"permission_denials":[],"terminal_reason":"completed","uuid":"…","api_error_status":null,"ttft_ms":"…","ttft_stream_ms":"…","time_to_request_ms":"…","first_content_frame_ms":"…","fast_mode_state":"off","fast_mode_disabled_reason":"unknown","queued_turn_count":0,"result_index":0,"safety_stops":0}
"##);
    assert_eq!(
        result(&messages).to_owned().total_cost_usd.0,
        70_000,
        "10 tokens in, 5 out: 2 and 10 dollars a million"
    );
    assert_eq!(model.requests().len(), 1, "a hello costs one request");
}

#[tokio::test]
async fn one_tool() {
    let model = model(&json!({"replies": [
        {"thinking": "A command.", "tool_use": [call("toolu_1", "Bash", json!({"command": "echo from-bash"}))]},
        {"text": "Done.", "match": {"tool_result_contains": "from-bash"}},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.allowed_tools = vec!["Bash".to_owned()];
    let messages = messages(query("hi", options)).await;
    insta::assert_snapshot!(redacted(&messages, folder.path()), @r##"
{"type":"system","subtype":"init"}
{"type":"system","subtype":"thinking_tokens","estimated_tokens":3,"estimated_tokens_delta":3,"uuid":"…","session_id":"…"}
{"type":"assistant","message":{"id":"…","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"thinking","thinking":"A command.","signature":"c2NyaXB0ZWQgdGhpbmtpbmcsIHNpZ25lZCBieSBub2JvZHk="}],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"service_tier":"standard"},"context_management":null},"parent_tool_use_id":null,"uuid":"…","session_id":"…","timestamp":"…","request_id":"…","thinking_duration_ms":"…"}
{"type":"assistant","message":{"id":"…","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"tool_use","id":"toolu_1","name":"Bash","input":{"command":"echo from-bash"}}],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"service_tier":"standard"},"context_management":null},"parent_tool_use_id":null,"uuid":"…","session_id":"…","timestamp":"…","request_id":"…"}
{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"from-bash","is_error":false}]},"parent_tool_use_id":null,"tool_use_result":{"stdout":"from-bash","stderr":"","interrupted":false,"isImage":false,"noOutputExpected":false},"uuid":"…","session_id":"…","timestamp":"…","tool_result_meta":[{"id":"toolu_1","permission_decision":{"decision":"accept","source":"config","reason_type":"rule"}}]}
{"type":"assistant","message":{"id":"…","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"text","text":"Done."}],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"service_tier":"standard"},"context_management":null},"parent_tool_use_id":null,"uuid":"…","session_id":"…","timestamp":"…","request_id":"…"}
{"type":"result","subtype":"success","is_error":false,"duration_ms":"…","duration_api_ms":"…","num_turns":2,"result":"Done.","stop_reason":"end_turn","session_id":"…","total_cost_usd":0.00014,"usage":{"input_tokens":20,"output_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0},"service_tier":"standard","speed":"standard","inference_geo":"","iterations":[],"output_tokens_details":{"thinking_tokens":0},"fallback_credit":null},"modelUsage":{"claude-sonnet-5":{"inputTokens":20,"outputTokens":10,"cacheReadInputTokens":0,"cacheCreationInputTokens":0,"webSearchRequests":0,"costUSD":0.00014,"contextWindow":1000000,"maxOutputTokens":128000,"thinkingTokens":0,"cacheCreationEphemeral5mInputTokens":0,"cacheCreationEphemeral1hInputTokens":0,"canonicalModel":"claude-sonnet-5","provider":"firstParty","costBasis":"list"}},"permission_denials":[],"terminal_reason":"completed","uuid":"…","api_error_status":null,"ttft_ms":"…","ttft_stream_ms":"…","time_to_request_ms":"…","first_content_frame_ms":"…","fast_mode_state":"off","fast_mode_disabled_reason":"unknown","queued_turn_count":0,"result_index":0,"safety_stops":0}
"##);
}

#[tokio::test]
async fn three_calls_at_once_are_four_turns() {
    let read = |id: &str| call(id, "Read", json!({"file_path": "a.txt"}));
    let model = model(&json!({"replies": [
        {"tool_use": [read("toolu_1"), read("toolu_2"), read("toolu_3")]},
        {"text": "Read."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "content\n").unwrap();
    let messages = messages(query("hi", options(&model, folder.path()))).await;
    let expected = ["system/init", "assistant", "assistant", "assistant", "user", "user", "user"];
    assert_eq!(kinds(&messages)[..7], expected);
    assert_eq!(result(&messages).num_turns, 4);
    // To the API they are one message, in the order of the calls.
    let request = &model.requests()[1].body;
    let ids: Vec<_> =
        request["messages"][2]["content"].as_array().unwrap().iter().map(|r| &r["tool_use_id"]).collect();
    assert_eq!(ids, ["toolu_1", "toolu_2", "toolu_3"]);
}

#[tokio::test]
async fn partial_messages_follow_the_stream() {
    let model = model(&json!({"replies": [{"text": "Hello.", "chunk_bytes": 3, "pings": 1}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.include_partial_messages = true;
    options.session_state_events = true;
    let messages = messages(query("hi", options)).await;
    insta::assert_snapshot!(kinds(&messages).join(" "), @r##"system/session_state_changed system/init system/status message_start content_block_start content_block_delta content_block_delta assistant content_block_stop message_delta message_stop result/success system/session_state_changed"##);
}

#[tokio::test]
async fn what_is_sent_stays_as_it_was_and_its_end_is_marked() {
    let bash = |id: &str| call(id, "Bash", json!({"command": "echo x", "description": "prints"}));
    let model = model(&json!({"replies": [
        {"thinking": "Hm.", "text": "First.", "tool_use": [bash("toolu_1")]},
        {"tool_use": [bash("toolu_2"), bash("toolu_3")]},
        {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    options.system_prompt = SystemPrompt::Preset;
    options.append_system_prompt = Some("And more.".to_owned());
    messages(query("hi", options)).await;
    let bodies: Vec<Value> = model.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 3);
    for pair in bodies.windows(2) {
        let (earlier, later) = (unmarked(pair[0].clone()), unmarked(pair[1].clone()));
        let prefix = |body: &Value| serde_json::to_string(&(&body["tools"], &body["system"])).unwrap();
        assert_eq!(prefix(&earlier), prefix(&later));
        let sent = earlier["messages"].as_array().unwrap();
        let again = &later["messages"].as_array().unwrap()[..sent.len()];
        assert_eq!(serde_json::to_string(sent).unwrap(), serde_json::to_string(again).unwrap());
    }
    let marks: Vec<Vec<String>> = bodies.iter().map(|body| marked_places(body, String::new())).collect();
    insta::assert_snapshot!(marks.iter().map(|marks| marks.join(" ")).collect::<Vec<_>>().join("\n"), @r##"
.system[0] .system[2] .messages[0].content[0]
.system[0] .system[2] .messages[0].content[0] .messages[2].content[0]
.system[0] .system[2] .messages[2].content[0] .messages[4].content[1]
"##);
}

fn unmarked(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.shift_remove("cache_control");
            map.values_mut().for_each(|value| *value = unmarked(value.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| *value = unmarked(value.take())),
        _ => (),
    }
    value
}

fn marked_places(value: &Value, place: String) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let here = map.contains_key("cache_control").then(|| place.clone());
            let below = map.iter().flat_map(|(name, value)| marked_places(value, format!("{place}.{name}")));
            here.into_iter().chain(below).collect()
        }
        Value::Array(items) => {
            let below = items.iter().enumerate();
            below.flat_map(|(index, value)| marked_places(value, format!("{place}[{index}]"))).collect()
        }
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn without_a_system_prompt_the_tools_are_marked_and_a_prompts_own_marks_go() {
    let model = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let prompt = json!({"message": {"role": "user", "content": [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]}});
    let prompt = wardian_agent::Prompt::Messages(vec![serde_json::from_value(prompt).unwrap()]);
    messages(query(prompt, options(&model, folder.path()))).await;
    let body = &model.requests()[0].body;
    let tools = body["tools"].as_array().unwrap().len();
    let expected = [format!(".tools[{}]", tools - 1), ".messages[0].content[1]".to_owned()];
    assert_eq!(marked_places(body, String::new()), expected);
    assert_eq!(body["messages"][0]["content"][1]["cache_control"], json!({"type": "ephemeral"}));
}

#[tokio::test]
async fn requests_say_what_the_options_say() {
    let model = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.tools = ToolSet::Only(vec!["Read".to_owned(), "Grep".to_owned()]);
    options.disallowed_tools = vec!["Grep".to_owned()];
    options.thinking = wardian_agent::Thinking::Budget(2000);
    options.effort = Some("high".to_owned());
    options.max_output_tokens = Some(5000);
    options.session_id = Some("11111111-2222-3333-4444-555555555555".to_owned());
    options.api.headers = vec![("anthropic-beta".to_owned(), "a,b".to_owned())];
    messages(query("hi", options)).await;
    let request = &model.requests()[0];
    let tools: Vec<_> = request.body["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(tools, ["Read"]);
    assert_eq!(request.body["thinking"], json!({"type": "enabled", "budget_tokens": 2000}));
    assert_eq!(request.body["output_config"], json!({"effort": "high"}));
    assert_eq!(request.body["max_tokens"], 5000);
    assert_eq!(request.body["model"], "claude-sonnet-5");
    let user_id: Value = serde_json::from_str(request.body["metadata"]["user_id"].as_str().unwrap()).unwrap();
    assert_eq!(user_id["session_id"], "11111111-2222-3333-4444-555555555555");
    assert_eq!(request.header("anthropic-beta"), Some("a,b"));
    assert_eq!(request.header("anthropic-version"), Some("2023-06-01"));
    assert!(request.header("user-agent").unwrap().starts_with("wardian-agent/"));
    assert_eq!((request.path.as_str(), request.query.as_str()), ("/v1/messages", ""));
}

#[tokio::test]
async fn over_a_unix_socket() {
    let model = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Glob", json!({"pattern": "*"}))]},
        {"text": "Hello."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let addr = model.addr();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    let relay = tokio::spawn(async move {
        // One connection serves both requests.
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(addr).await.unwrap();
        tokio::io::copy_bidirectional(&mut near, &mut far).await.unwrap();
    });
    let mut options = options(&model, folder.path());
    options.api.endpoint =
        wardian_agent::Endpoint::Unix { path: socket, base_url: "http://localhost/".to_owned() };
    let messages = messages(query("hi", options)).await;
    assert_eq!(result(&messages).result.as_deref(), Some("Hello."));
    relay.await.unwrap();
}

#[tokio::test]
async fn replies_that_end_oddly_are_gone_on_from() {
    let model = model(&json!({"replies": [
        {"text": "One ", "stop_reason": "max_tokens"},
        {"text": "two ", "stop_reason": "pause_turn"},
        {"text": "three."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let messages = messages(query("hi", options(&model, folder.path()))).await;
    let result = result(&messages);
    assert_eq!((result.num_turns, result.result.as_deref()), (2, Some("three.")));
    assert_eq!(result.usage.output_tokens, Some(15), "every reply counts");
    let roles = |index: usize| {
        let body = model.requests()[index].body.clone();
        body["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["role"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(roles(1), ["user", "assistant", "user"], "cut: the model is asked to go on");
    assert_eq!(roles(2), ["user", "assistant", "user", "assistant"], "paused: sent again as it is");
}

#[tokio::test]
async fn a_call_cut_in_its_middle_is_not_run() {
    let model = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Bash", json!({"command": "touch ran"}))], "stop_reason": "max_tokens"},
        {"text": "Understood."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    let messages = messages(query("hi", options)).await;
    assert!(tool_results(&messages)[0].1);
    assert!(!folder.path().join("ran").exists());
    assert_eq!(result(&messages).subtype, "success");
}

#[tokio::test]
async fn a_refusal_is_asked_about_once_and_is_forgotten() {
    let refusal = |text: &str| json!({"text": text, "stop_reason": "refusal"});
    let replies = json!([refusal("bad one"), refusal("bad two"), {"text": "Sure."}]);
    let model = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let prompt =
        |text: &str| serde_json::from_value(json!({"message": {"role": "user", "content": text}})).unwrap();
    let prompts = wardian_agent::Prompt::Messages(vec![prompt("bad"), prompt("good")]);
    let messages = messages(query(prompts, options(&model, folder.path()))).await;
    let expected = [
        "system/init",
        "assistant",
        "system/informational",
        "user",
        "assistant",
        "system/model_refusal_no_fallback",
        "assistant",
        "result/success",
    ];
    assert_eq!(kinds(&messages)[..8], expected);
    let Message::Result(first) = &messages[7] else { panic!() };
    assert_eq!((first.is_error, first.num_turns), (true, 2));
    assert_eq!(first.extra["safety_stops"], 2);
    assert!(!result(&messages).is_error);
    for request in &model.requests()[1..] {
        let said = request.body["messages"].clone();
        assert_eq!(said.as_array().unwrap().len(), 1, "{said}");
        assert!(!said.to_string().contains("bad one"), "{said}");
    }
}
