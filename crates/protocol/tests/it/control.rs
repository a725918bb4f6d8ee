//! Control requests, their answers, and hooks, in the shapes that both official SDKs write.
//!
//! source: the agent protocol reference, sections 2.3 to 2.5.

use serde_json::{Value, json};
use wardian_protocol::control::{
    AgentRequest, ControlAnswer, ControlCancelRequest, ControlRequest, ControlResponse, HostRequest,
    PermissionAnswer,
};
use wardian_protocol::hook::{HookInput, HookOutput, PermissionDecision};
use wardian_protocol::{AgentFrame, HostFrame};

fn host(request: Value) -> HostRequest {
    let line = json!({"type": "control_request", "request_id": "r", "request": request}).to_string();
    let Ok(HostFrame::ControlRequest(frame)) = HostFrame::parse(&line) else { panic!("{line}") };
    serde_json::from_value(frame.request).unwrap()
}

#[test]
fn initialize_of_typescript_and_of_python() {
    let HostRequest::Initialize(typescript) = host(json!({
        "subtype": "initialize",
        "hooks": {"PreToolUse": [{"matcher": "Bash|Edit", "hookCallbackIds": ["hook_0", "hook_1"], "timeout": 60,
            "onFailure": "block"}, {"hookCallbackIds": ["hook_2"]}]},
        "systemPrompt": [""], "appendSystemPrompt": "more", "promptSuggestions": false, "agents": {"a": {}}
    })) else {
        panic!()
    };
    let matchers = &typescript.hooks.as_ref().unwrap()["PreToolUse"];
    assert_eq!(matchers[0].matcher.as_deref(), Some("Bash|Edit"));
    assert_eq!(matchers[0].hook_callback_ids, ["hook_0", "hook_1"]);
    assert_eq!((matchers[0].timeout, matchers[0].on_failure.as_deref()), (Some(60.0), Some("block")));
    assert_eq!((matchers[1].matcher.as_deref(), matchers[1].timeout), (None, None));
    assert_eq!(typescript.system_prompt.as_deref(), Some(&[String::new()][..]));
    assert_eq!(typescript.append_system_prompt.as_deref(), Some("more"));
    assert_eq!(typescript.extra["agents"], json!({"a": {}}));

    let HostRequest::Initialize(python) = host(json!({"subtype": "initialize", "hooks": null})) else {
        panic!()
    };
    assert!(python.hooks.is_none() && python.system_prompt.is_none() && python.extra.is_empty());
    let HostRequest::Initialize(python) = host(json!({"subtype": "initialize", "hooks":
        {"PreToolUse": [{"matcher": null, "hookCallbackIds": ["hook_0"]}]}, "agents": null}))
    else {
        panic!()
    };
    assert_eq!(python.hooks.unwrap()["PreToolUse"][0].matcher, None);
    let HostRequest::Initialize(bare) = host(json!({"subtype": "initialize"})) else { panic!() };
    assert_eq!(
        serde_json::to_value(HostRequest::Initialize(bare)).unwrap(),
        json!({"subtype": "initialize"})
    );
}

#[test]
fn what_else_a_host_asks() {
    assert_eq!(host(json!({"subtype": "interrupt"})), HostRequest::Interrupt {});
    assert_eq!(host(json!({"subtype": "interrupt", "cancel_queued": true})), HostRequest::Interrupt {});
    assert_eq!(
        host(json!({"subtype": "set_permission_mode", "mode": "plan"})),
        HostRequest::SetPermissionMode { mode: "plan".to_owned() }
    );
    assert_eq!(host(json!({"subtype": "set_model"})), HostRequest::SetModel { model: None });
    assert_eq!(host(json!({"subtype": "set_model", "model": null})), HostRequest::SetModel { model: None });
    for other in [json!({"subtype": "mcp_status"}), json!({"subtype": 5}), json!({}), json!("x"), json!(null)]
    {
        assert_eq!(host(other.clone()), HostRequest::Other(other));
    }
    for (wrong, says) in [
        (json!({"subtype": "initialize", "hooks": 5}), "initialize: "),
        (json!({"subtype": "initialize", "systemPrompt": "one string"}), "initialize: "),
        (json!({"subtype": "initialize", "hooks": {"X": [{"hookCallbackIds": "hook_0"}]}}), "initialize: "),
        (json!({"subtype": "set_permission_mode"}), "set_permission_mode: missing field `mode`"),
        (json!({"subtype": "set_model", "model": 5}), "set_model: "),
    ] {
        let error = serde_json::from_value::<HostRequest>(wrong.clone()).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error:?} for {wrong}");
    }
}

#[test]
fn what_an_agent_asks() {
    let question = json!({"subtype": "can_use_tool", "tool_name": "Bash", "display_name": "Bash",
        "input": {"z": 1, "command": "ls"}, "tool_use_id": "toolu_1", "description": "lists",
        "blocked_path": "/etc", "decision_reason": "it is outside", "decision_reason_type": "workingDir",
        "permission_suggestions": [{"type": "setMode"}], "title": "x"});
    let read: AgentRequest = serde_json::from_value(question.clone()).unwrap();
    let AgentRequest::CanUseTool(asked) = &read else { panic!("{read:?}") };
    assert_eq!((asked.tool_name.as_str(), asked.blocked_path.as_deref()), ("Bash", Some("/etc")));
    assert_eq!(serde_json::to_string(&read).unwrap(), question.to_string());

    let callback = json!({"subtype": "hook_callback", "callback_id": "hook_0", "input": {"hook_event_name": "Stop"},
        "tool_use_id": "toolu_1"});
    let read: AgentRequest = serde_json::from_value(callback.clone()).unwrap();
    assert!(matches!(&read, AgentRequest::HookCallback { callback_id, .. } if callback_id == "hook_0"));
    assert_eq!(serde_json::to_value(&read).unwrap(), callback);

    let other = json!({"subtype": "mcp_message", "server_name": "lab", "message": {"jsonrpc": "2.0"}});
    assert_eq!(serde_json::from_value::<AgentRequest>(other.clone()).unwrap(), AgentRequest::Other(other));
    for (wrong, says) in [
        (json!({"subtype": "can_use_tool"}), "can_use_tool: missing field `tool_name`"),
        (
            json!({"subtype": "can_use_tool", "tool_name": 5, "input": {}, "tool_use_id": "t"}),
            "can_use_tool: ",
        ),
        (json!({"subtype": "hook_callback", "input": {}}), "hook_callback: missing field `callback_id`"),
    ] {
        let error = serde_json::from_value::<AgentRequest>(wrong.clone()).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error:?} for {wrong}");
    }
}

#[test]
fn answers_about_tools() {
    for (answer, allowed) in [
        (
            json!({"behavior": "allow", "updatedInput": {"command": "ls"}, "toolUseID": "t", "updatedPermissions": []}),
            true,
        ),
        (json!({"behavior": "allow", "updatedInput": null}), true),
        (json!({"behavior": "allow"}), true),
        (json!({"behavior": "deny", "message": "no", "interrupt": true, "toolUseID": "t"}), false),
        (json!({"behavior": "deny"}), false),
    ] {
        let read: PermissionAnswer = serde_json::from_value(answer.clone()).unwrap();
        assert_eq!(matches!(read, PermissionAnswer::Allow { .. }), allowed, "{answer}");
        let again: PermissionAnswer = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }
    let denied = json!({"behavior": "deny", "message": "no", "interrupt": false, "toolUseID": "t"});
    let read: PermissionAnswer = serde_json::from_value(denied.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), denied);
    // What is no clear allow is never one.
    for wrong in [
        json!({}),
        json!({"behavior": "Allow"}),
        json!({"behavior": "maybe"}),
        json!({"behavior": true}),
        json!(null),
        json!("allow"),
        json!([]),
        json!({"behavior": ["allow"]}),
    ] {
        assert!(serde_json::from_value::<PermissionAnswer>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn answers_carry_the_request() {
    let line = |frame: &AgentFrame| serde_json::to_string(frame).unwrap();
    let success = AgentFrame::ControlResponse(ControlResponse::success("r1", json!({"commands": []})));
    assert_eq!(
        line(&success),
        r#"{"type":"control_response","response":{"subtype":"success","request_id":"r1","response":{"commands":[]}}}"#
    );
    let error = AgentFrame::ControlResponse(ControlResponse::error("r2", "unsupported"));
    assert_eq!(
        line(&error),
        r#"{"type":"control_response","response":{"subtype":"error","request_id":"r2","error":"unsupported"}}"#
    );
    assert_eq!(
        line(&AgentFrame::ControlRequest(ControlRequest::new("r3", json!({"subtype": "x"})))),
        r#"{"type":"control_request","request_id":"r3","request":{"subtype":"x"}}"#
    );
    assert_eq!(
        line(&AgentFrame::ControlCancelRequest(ControlCancelRequest::new("r4"))),
        r#"{"type":"control_cancel_request","request_id":"r4"}"#
    );
    // A bare success, as the smallest of foreign agents write it.
    let bare = r#"{"type":"control_response","response":{"subtype":"success","request_id":"r1"}}"#;
    let Ok(AgentFrame::ControlResponse(bare)) = AgentFrame::parse(bare) else { panic!() };
    assert_eq!(bare.response.request_id(), "r1");
    assert!(matches!(bare.response, ControlAnswer::Success { response: Value::Null, .. }));
    for wrong in [
        json!({"subtype": "maybe", "request_id": "r"}),
        json!({"subtype": "success"}),
        json!({"subtype": "success", "request_id": 5}),
        json!({"request_id": "r"}),
    ] {
        let line = json!({"type": "control_response", "response": wrong}).to_string();
        assert!(AgentFrame::parse(&line).is_err() && HostFrame::parse(&line).is_err(), "{line}");
    }
}

#[test]
fn hook_inputs_and_outputs() {
    let input = json!({"hook_event_name": "PreToolUse", "session_id": "s", "transcript_path": "/t", "cwd": "/",
        "prompt_id": "p", "permission_mode": "default", "tool_name": "Bash", "tool_input": {"command": "ls"},
        "tool_use_id": "t"});
    let read: HookInput = serde_json::from_value(input.clone()).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), input.to_string());

    let output = |value: Value| serde_json::from_value::<HookOutput>(value);
    assert_eq!(output(json!({})).unwrap(), HookOutput::default());
    let decided = output(
        json!({"continue": false, "stopReason": "enough", "systemMessage": "m", "suppressOutput": true,
        "hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "deny",
            "permissionDecisionReason": "no", "updatedInput": {"a": 1}, "later": 1}}),
    )
    .unwrap();
    let specific = decided.hook_specific_output.as_ref().unwrap();
    assert_eq!(specific.permission_decision, Some(PermissionDecision::Deny));
    assert_eq!((decided.go_on, decided.stop_reason.as_deref()), (Some(false), Some("enough")));
    assert_eq!(decided.extra["suppressOutput"], json!(true));
    assert_eq!(output(serde_json::to_value(&decided).unwrap()).unwrap(), decided);
    let later = output(json!({"async": true, "asyncTimeout": 5})).unwrap();
    assert_eq!(later.is_async, Some(true));
    assert!(output(json!({"hookSpecificOutput": {"permissionDecision": null}})).is_ok());
    assert!(output(json!({"decision": "block", "reason": "x"})).is_ok());
    // A decision that is none is an error, not a go-ahead.
    for wrong in [
        json!({"hookSpecificOutput": {"permissionDecision": "Allow"}}),
        json!({"hookSpecificOutput": {"permissionDecision": 1}}),
        json!({"continue": "no"}),
        json!({"hookSpecificOutput": []}),
        json!("x"),
        json!({"decision": 5}),
    ] {
        assert!(output(wrong.clone()).is_err(), "{wrong}");
    }
}
