//! Interrupts, several prompts, and the end of a query.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use wardian_agent::{Error, Message, Options, PermissionMode, Prompt, Query, UserMessage, query};
use wardian_protocol::ContentBlock;

use crate::support::{Waiter, call, kinds, messages, model, options, redacted, result, tool_results};

fn prompt(text: &str, uuid: Option<&str>) -> UserMessage {
    serde_json::from_value(json!({"uuid": uuid, "message": {"role": "user", "content": text}})).unwrap()
}

/// The messages up to the next result.
async fn turn(query: &mut Query) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = query.next().await {
        messages.push(message.unwrap());
        if matches!(messages.last(), Some(Message::Result(_))) {
            break;
        }
    }
    messages
}

#[tokio::test]
async fn an_interrupt_while_the_model_speaks() {
    let model = model(&json!({"replies": [
        {"thinking": "Hm.", "text": "Once upon a time", "chunk_bytes": 100, "hold": true},
        {"text": "Here."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { include_partial_messages: true, ..options(&model, folder.path()) };
    let mut query = query(Prompt::Open, options);
    let handle = query.handle();
    handle.send(prompt("first", None)).await.unwrap();
    let mut first = Vec::new();
    loop {
        let message = query.next().await.unwrap().unwrap();
        let text =
            matches!(&message, Message::StreamEvent(event) if event.event["delta"]["type"] == "text_delta");
        first.push(message);
        if text {
            break;
        }
    }
    assert_eq!(handle.interrupt().await.unwrap().still_queued.len(), 0);
    first.extend(turn(&mut query).await);
    model.wait_for_aborted(1).await;
    let end = first.iter().rposition(|message| matches!(message, Message::StreamEvent(event) if event.event["delta"]["type"] == "text_delta"));
    insta::assert_snapshot!(redacted(&first[end.unwrap() + 1..], folder.path()), @r##"
{"type":"assistant","message":{"id":"…","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"text","text":"Once upon a time"}],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"service_tier":"standard"},"context_management":null},"parent_tool_use_id":null,"uuid":"…","session_id":"…","timestamp":"…","aborted":true,"request_id":"…"}
{"type":"user","message":{"role":"user","content":[{"type":"text","text":"[Request interrupted by user]"}]},"parent_tool_use_id":null,"uuid":"…","session_id":"…","timestamp":"…"}
{"type":"stream_event","event":{"type":"content_block_stop","index":1},"parent_tool_use_id":null,"uuid":"…","session_id":"…","api_message_id":"…"}
{"type":"stream_event","event":{"type":"message_delta","delta":{"container":null,"stop_details":null,"stop_reason":null,"stop_sequence":null},"context_management":null,"usage":{"input_tokens":10,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0},"service_tier":"standard","speed":"standard","inference_geo":"","iterations":[],"output_tokens_details":{"thinking_tokens":0},"fallback_credit":null}},"parent_tool_use_id":null,"uuid":"…","session_id":"…","api_message_id":"…"}
{"type":"stream_event","event":{"type":"message_stop"},"parent_tool_use_id":null,"uuid":"…","session_id":"…","abandoned_blocks":{"api_message_id":"…","from_block_index":2},"api_message_id":"…"}
{"type":"result","subtype":"error_during_execution","is_error":true,"duration_ms":"…","duration_api_ms":"…","num_turns":2,"stop_reason":null,"session_id":"…","total_cost_usd":0.00009,"usage":{"input_tokens":0,"output_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0},"service_tier":"standard","speed":"standard","inference_geo":"","iterations":[],"output_tokens_details":{"thinking_tokens":0},"fallback_credit":null},"modelUsage":{"claude-sonnet-5":{"inputTokens":10,"outputTokens":7,"cacheReadInputTokens":0,"cacheCreationInputTokens":0,"webSearchRequests":0,"costUSD":0.00009,"contextWindow":1000000,"maxOutputTokens":128000,"thinkingTokens":0,"cacheCreationEphemeral5mInputTokens":0,"cacheCreationEphemeral1hInputTokens":0,"canonicalModel":"claude-sonnet-5","provider":"firstParty","costBasis":"list"}},"permission_denials":[],"errors":["[ede_diagnostic] terminal_reason=aborted_streaming stop_reason=null"],"terminal_reason":"aborted_streaming","uuid":"…","begun_message_ids":"…","fast_mode_state":"off","fast_mode_disabled_reason":"unknown","queued_turn_count":0,"result_index":0,"safety_stops":0}
"##);
    // The session goes on, and the model knows what it had said.
    handle.send(prompt("second", None)).await.unwrap();
    handle.end_input().await.unwrap();
    let second = messages(query).await;
    assert_eq!(result(&second).result.as_deref(), Some("Here."));
    let said = model.requests()[1].body["messages"].to_string();
    assert!(said.contains("Once upon a time") && said.contains("first") && said.contains("second"), "{said}");
}

#[tokio::test]
async fn an_interrupt_while_a_tool_runs() {
    let two = json!([call("toolu_1", "wait", json!({})), call("toolu_2", "wait", json!({}))]);
    let model = model(&json!({"replies": [{"tool_use": two}, {"text": "Here."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let waiter = Waiter::new(false);
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    options.custom_tools = vec![waiter.clone()];
    let mut query = query(Prompt::Open, options);
    let handle = query.handle();
    handle.send(prompt("first", None)).await.unwrap();
    handle.send(prompt("second", Some("uuid-2"))).await.unwrap();
    waiter.has_begun(1).await;
    let interrupted = handle.interrupt().await.unwrap();
    assert_eq!(interrupted.still_queued, ["uuid-2"]);
    let first = turn(&mut query).await;
    assert_eq!(kinds(&first)[3..], ["user", "user", "user", "result/error_during_execution"]);
    assert!(tool_results(&first).iter().all(|(_, is_error)| *is_error));
    assert_eq!(result(&first).terminal_reason.as_deref(), Some("aborted_tools"));
    handle.end_input().await.unwrap();
    assert_eq!(result(&messages(query).await).result.as_deref(), Some("Here."), "the prompt that waited ran");
}

#[tokio::test]
async fn an_interrupt_while_somebody_is_asked() {
    let model = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Bash", json!({"command": "touch ran"}))]}, {"text": "Here."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let asked = std::sync::Arc::new(tokio::sync::Notify::new());
    let (was_asked, notify) = (asked.clone(), asked);
    let mut options = options(&model, folder.path());
    options.can_use_tool = Some(std::sync::Arc::new(move |_| {
        notify.notify_one();
        Box::pin(std::future::pending())
    }));
    let mut query = query(Prompt::Open, options);
    let handle = query.handle();
    handle.send(prompt("first", None)).await.unwrap();
    was_asked.notified().await;
    handle.interrupt_all().await.unwrap();
    let first = turn(&mut query).await;
    assert_eq!(result(&first).terminal_reason.as_deref(), Some("aborted_tools"));
    assert!(!folder.path().join("ran").exists());
}

#[tokio::test]
async fn bash_and_what_it_started_end_with_the_interrupt() {
    let command = "echo $$ > pid; mkfifo up; sleep 600 & echo x > up; wait";
    let model =
        model(&json!({"replies": [{"tool_use": [call("toolu_1", "Bash", json!({"command": command}))]}]}))
            .await;
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { permission_mode: PermissionMode::BypassPermissions, ..options(&model, folder.path()) };
    let mut query = query(Prompt::Open, options);
    let handle = query.handle();
    handle.send(prompt("first", None)).await.unwrap();
    let fifo = folder.path().join("up");
    while !fifo.exists() {
        tokio::task::yield_now().await;
    }
    assert_eq!(tokio::fs::read_to_string(&fifo).await.unwrap(), "x\n");
    handle.interrupt().await.unwrap();
    let messages = turn(&mut query).await;
    assert_eq!(result(&messages).terminal_reason.as_deref(), Some("aborted_tools"));
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[tokio::test]
async fn dropping_a_query_stops_the_request_and_the_tools() {
    let model = model(&json!({"replies": [{"text": "hm", "hold": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let held = query("hi", options(&model, folder.path()));
    model.wait_for(1).await;
    drop(held);
    model.wait_for_aborted(1).await;

    let model =
        crate::support::model(&json!({"replies": [{"tool_use": [call("toolu_1", "wait", json!({}))]}]}))
            .await;
    let waiter = Waiter::new(false);
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    options.custom_tools = vec![waiter.clone()];
    let query = query("hi", options);
    let handle = query.handle();
    waiter.has_begun(1).await;
    tokio::time::timeout(Duration::from_secs(5), query.close()).await.expect("the tool was stopped");
    assert_eq!(handle.interrupt().await, Err(Error::Ended));
}

#[tokio::test]
async fn prompts_are_turns_in_order_and_share_a_conversation() {
    let model = model(&json!({"replies": [
        {"text": "One.", "match": {"last_text_contains": "first"}},
        {"text": "Two.", "match": {"last_text_contains": "second"}},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let prompts = Prompt::Messages(vec![prompt("first", None), prompt("second", None)]);
    let messages = messages(query(prompts, options(&model, folder.path()))).await;
    let one = ["system/init", "assistant", "result/success"];
    assert_eq!(kinds(&messages), [one, one].concat());
    assert_eq!(model.requests()[1].body["messages"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn mode_and_model_change_in_mid_session() {
    let model = model(&json!({"replies": [{"text": "One."}, {"text": "Two."}, {"text": "Three."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut query = query(Prompt::Open, options(&model, folder.path()));
    let handle = query.handle();
    assert_eq!(
        handle.set_permission_mode(PermissionMode::BypassPermissions).await,
        Err(Error::BypassNotPermitted)
    );
    handle.set_permission_mode(PermissionMode::Plan).await.unwrap();
    handle.set_model(Some("haiku".to_owned())).await.unwrap();
    handle.send(prompt("first", None)).await.unwrap();
    let Message::System(init) = &turn(&mut query).await[0] else { panic!() };
    assert_eq!(
        (&init.fields["permissionMode"], &init.fields["model"]),
        (&json!("plan"), &json!("claude-haiku-5-5"))
    );
    handle.set_model(None).await.unwrap();
    handle.send(prompt("second", None)).await.unwrap();
    turn(&mut query).await;
    let models: Vec<Value> = model.requests().iter().map(|request| request.body["model"].clone()).collect();
    assert_eq!(models, ["claude-haiku-5-5", "claude-sonnet-5"]);
    handle.end_input().await.unwrap();
    assert_eq!(handle.send(prompt("late", None)).await, Err(Error::Ended));
    assert!(query.next().await.is_none());
}

#[tokio::test]
async fn calls_that_only_read_run_side_by_side_and_others_in_order() {
    for (read_only, at_once) in [(true, 3), (false, 1)] {
        let calls: Vec<Value> =
            (0..3).map(|n| call(&format!("toolu_{n}"), "wait", json!({"n": n}))).collect();
        let model = model(&json!({"replies": [{"tool_use": calls}, {"text": "Done."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let waiter = Waiter::new(read_only);
        let mut options = options(&model, folder.path());
        options.permission_mode = PermissionMode::BypassPermissions;
        options.custom_tools = vec![waiter.clone()];
        let query = query("hi", options);
        waiter.has_begun(at_once).await;
        assert_eq!(waiter.began.available_permits(), 0, "no more than that");
        waiter.go_on.add_permits(3);
        let messages = messages(query).await;
        let ids: Vec<String> = messages
            .iter()
            .filter_map(|message| match message {
                Message::User(user) => user.message.content.first().cloned(),
                _ => None,
            })
            .filter_map(|block| match block {
                ContentBlock::ToolResult { tool_use_id, .. } => Some(tool_use_id),
                _ => None,
            })
            .collect();
        assert_eq!(ids, ["toolu_0", "toolu_1", "toolu_2"]);
    }
}
