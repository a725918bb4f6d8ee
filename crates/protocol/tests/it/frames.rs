//! Lines between agent and host.

use proptest::prelude::*;
use serde_json::{Value, json};
use wardian_protocol::frame::{FrameError, MAX_HOST_LINE_BYTES, MAX_LINE_BYTES, SdkMessage};
use wardian_protocol::{AgentFrame, HostFrame, NanoUsd};

/// One whole frame of each known type, in the order of fields in which they are written.
fn agent_frames() -> Vec<Value> {
    let reply = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "hi"}], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 1, "output_tokens": 2, "later": 3}, "context_management": null});
    vec![
        json!({"type": "system", "subtype": "init", "cwd": "/", "tools": ["Bash"], "later": {"x": [1, null]}}),
        json!({"type": "assistant", "message": reply, "parent_tool_use_id": null, "uuid": "u", "session_id": "s",
            "request_id": "req_1", "later": 1}),
        json!({"type": "user", "message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t",
            "content": "x", "later": 1}], "later": 2}, "parent_tool_use_id": "toolu_0", "tool_use_result": "Error: x",
            "uuid": "u", "session_id": "s", "isSynthetic": true}),
        json!({"type": "result", "subtype": "success", "is_error": false, "duration_ms": 5, "duration_api_ms": 4,
            "num_turns": 1, "result": "done", "stop_reason": "end_turn", "session_id": "s", "total_cost_usd": 0.013206,
            "usage": {"input_tokens": 1}, "modelUsage": {"m": {"inputTokens": 1, "outputTokens": 2,
            "cacheReadInputTokens": 0, "cacheCreationInputTokens": 0, "webSearchRequests": 0, "costUSD": 0.013206,
            "contextWindow": 5, "maxOutputTokens": 6, "costBasis": "list"}},
            "permission_denials": [{"tool_name": "Bash", "tool_use_id": "t", "tool_input": {"command": "x"}}],
            "terminal_reason": "completed", "uuid": "u", "result_index": 0, "later": {"a": 1}}),
        json!({"type": "stream_event", "event": {"type": "ping"}, "parent_tool_use_id": null, "uuid": "u",
            "session_id": "s", "ttft_ms": 3}),
        json!({"type": "control_request", "request_id": "r1", "request": {"subtype": "can_use_tool", "later": 1},
            "later": 2}),
        json!({"type": "control_response", "response": {"subtype": "success", "request_id": "r1",
            "response": {"a": 1}, "pending_permission_requests": []}, "later": 2}),
        json!({"type": "control_response", "response": {"subtype": "error", "request_id": "r1", "error": "no",
            "later": 1}}),
        json!({"type": "control_cancel_request", "request_id": "r1", "later": [1]}),
    ]
}

#[test]
fn known_frames_keep_unknown_fields_to_the_letter() {
    for frame in agent_frames() {
        let line = frame.to_string();
        let read = AgentFrame::parse(&line).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), line);
    }
    for kind in ["user", "control_request", "control_response", "control_cancel_request"] {
        for frame in agent_frames().iter().filter(|frame| frame["type"] == kind) {
            let line = frame.to_string();
            assert_eq!(serde_json::to_string(&HostFrame::parse(&line).unwrap()).unwrap(), line);
        }
    }
}

#[test]
fn unknown_types_are_kept_as_they_came() {
    for line in [
        r#"{"type":"keep_alive"}"#,
        r#"{"type":"rate_limit_event","rate_limit_info":{"z":1,"a":[1.5,"x",null]},"a":{}}"#,
        r#"{"z":1,"type":"of tomorrow","a":18446744073709551615}"#,
        r#"{"type":""}"#,
    ] {
        let agent = AgentFrame::parse(line).unwrap();
        assert!(matches!(agent, AgentFrame::Message(SdkMessage::Other(_))), "{agent:?}");
        assert_eq!(serde_json::to_string(&agent).unwrap(), line);
        let host = HostFrame::parse(line).unwrap();
        assert!(matches!(host, HostFrame::Other(_)));
        assert_eq!(serde_json::to_string(&host).unwrap(), line);
    }
    // What only one side writes is unknown to the other.
    assert!(matches!(HostFrame::parse(r#"{"type":"result"}"#), Ok(HostFrame::Other(_))));
}

#[test]
fn little_is_needed() {
    let host = HostFrame::parse(r#"{"type":"user","message":{"role":"user","content":"hi"}}"#).unwrap();
    let HostFrame::User(user) = host else { panic!("{host:?}") };
    assert_eq!(serde_json::to_value(&user.message.content).unwrap(), json!([{"type": "text", "text": "hi"}]));
    let result = AgentFrame::parse(r#"{"type":"result","subtype":"success","is_error":false}"#).unwrap();
    let AgentFrame::Message(SdkMessage::Result(result)) = result else { panic!("{result:?}") };
    assert_eq!((result.total_cost_usd, result.num_turns), (NanoUsd::ZERO, 0));
}

/// Each field of each known frame, with a value of every other JSON type: read, or refused by name. Never a panic, and
/// never taken for a frame of an unknown type.
#[test]
fn wrong_field_types_are_refused_by_the_name_of_the_frame() {
    let wrong = [json!(5), json!("x"), json!([]), json!({}), json!(true), json!(null), json!(-1), json!(1.5)];
    let mut refused = std::collections::BTreeSet::new();
    for frame in agent_frames() {
        let kind = frame["type"].as_str().unwrap().to_owned();
        let fields: Vec<String> =
            frame.as_object().unwrap().keys().filter(|name| *name != "type").cloned().collect();
        for name in fields {
            for value in wrong.iter().cloned().map(Some).chain([None]) {
                let mut frame = frame.clone();
                match value {
                    Some(value) => frame[&name] = value,
                    None => drop(frame.as_object_mut().unwrap().shift_remove(&name)),
                }
                match AgentFrame::parse(&frame.to_string()) {
                    Ok(AgentFrame::Message(SdkMessage::Other(_))) => {
                        panic!("{frame} is taken for an unknown type")
                    }
                    Ok(_) => (),
                    Err(FrameError::Malformed { kind: named, message }) => {
                        assert_eq!(named, kind, "{message}");
                        refused.insert(format!("{kind}.{name}"));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    for field in [
        "system.subtype",
        "assistant.message",
        "user.message",
        "result.subtype",
        "result.is_error",
        "result.total_cost_usd",
        "result.usage",
        "result.modelUsage",
        "result.permission_denials",
        "result.num_turns",
        "control_request.request_id",
        "control_response.response",
        "control_cancel_request.request_id",
        "assistant.uuid",
        "stream_event.session_id",
    ] {
        assert!(refused.contains(field), "{field} takes anything: {refused:?}");
    }
}

#[test]
fn lines_that_are_no_frames() {
    let refused = |line: &str| AgentFrame::parse(line).unwrap_err();
    for (line, found) in [
        ("[]", "a list"),
        ("5", "a number"),
        ("null", "null"),
        ("\"x\"", "a string"),
        ("true", "a boolean"),
        ("{}", "an object without one"),
        ("{\"type\":5}", "an object whose \"type\" is no string"),
        ("{\"type\":null}", "an object whose \"type\" is no string"),
    ] {
        assert_eq!(refused(line), FrameError::NotAnObject { found }, "{line}");
    }
    for line in [
        "",
        " ",
        "{",
        "{\"type\":\"user\"",
        "{'type':'user'}",
        "{\"type\":\"user\"} x",
        "\u{feff}{}",
        "NaN",
        "{\"a\":1e999999}x",
    ] {
        assert!(matches!(refused(line), FrameError::NotJson { .. }), "{line}");
    }
    assert_eq!(refused("{\"type\":\"user\"}").to_string(), "read a \"user\" line: missing field `message`");
    assert!(matches!(HostFrame::parse("{\"type\":\"user\"}"), Err(FrameError::Malformed { .. })));
}

#[test]
fn a_claimed_cost_must_be_an_amount() {
    for claim in ["-1", "1e30", "\"1\"", "null", "[]", "1000001"] {
        let line = format!(
            "{{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"total_cost_usd\":{claim}}}"
        );
        assert!(matches!(AgentFrame::parse(&line), Err(FrameError::Malformed { .. })), "{claim}");
    }
}

#[test]
fn lines_over_the_limit_and_deep_ones_are_errors() {
    let pad = |length: usize| {
        let line = format!("{{\"type\":\"x\",\"pad\":\"{}\"}}", "p".repeat(length));
        line
    };
    let rest = pad(0).len();
    assert!(AgentFrame::parse(&pad(MAX_LINE_BYTES - rest)).is_ok());
    let bytes = MAX_LINE_BYTES + 1;
    let too_long = FrameError::TooLong { bytes, limit: MAX_LINE_BYTES };
    assert_eq!(AgentFrame::parse(&pad(bytes - rest)), Err(too_long));
    let (bytes, limit) = (MAX_HOST_LINE_BYTES + 1, MAX_HOST_LINE_BYTES);
    assert_eq!(HostFrame::parse(&pad(bytes - rest)), Err(FrameError::TooLong { bytes, limit }));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = |depth: usize| {
            format!(
                "{{\"type\":\"system\",\"subtype\":\"x\",\"a\":{}1{}}}",
                open.repeat(depth),
                close.repeat(depth)
            )
        };
        assert!(AgentFrame::parse(&deep(100)).is_ok());
        for depth in [200, 50_000] {
            assert!(matches!(AgentFrame::parse(&deep(depth)), Err(FrameError::NotJson { .. })), "{depth}");
            assert!(matches!(HostFrame::parse(&deep(depth)), Err(FrameError::NotJson { .. })), "{depth}");
        }
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u32>().prop_map(|number| json!(f64::from(number) / 1024.0)),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn unknown_fields_survive(place in 0..9_usize, name in "[a-z]{1,8}_x", value in json_value()) {
        let mut frame = agent_frames()[place].clone();
        frame[&name] = value;
        let line = frame.to_string();
        prop_assert_eq!(serde_json::to_string(&AgentFrame::parse(&line).unwrap()).unwrap(), line);
    }

    #[test]
    fn unknown_messages_survive(kind in "x[a-z_]{0,8}", name in "[a-z]{0,8}", value in json_value()) {
        let line = json!({"type": kind, name: value}).to_string();
        prop_assert_eq!(serde_json::to_string(&AgentFrame::parse(&line).unwrap()).unwrap(), line.clone());
        prop_assert_eq!(serde_json::to_string(&HostFrame::parse(&line).unwrap()).unwrap(), line);
    }

    #[test]
    fn what_is_read_is_written_and_read_the_same(
        place in 0..9_usize, field in 0..20_usize, value in json_value(),
    ) {
        let mut frame = agent_frames()[place].clone();
        let names: Vec<String> = frame.as_object().unwrap().keys().cloned().collect();
        frame[&names[field % names.len()]] = value;
        if let Ok(read) = AgentFrame::parse(&frame.to_string()) {
            prop_assert_eq!(AgentFrame::parse(&read.to_value().to_string()).unwrap(), read);
        }
    }

    #[test]
    fn no_line_panics(line in ".{0,80}") {
        let _ = AgentFrame::parse(&line);
        let _ = HostFrame::parse(&line);
    }
}
