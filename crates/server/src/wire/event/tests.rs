use serde_json::json;

use super::*;

const ID: &str = "sevt_070w3ge1r70w3ge1r70w3ge1r7";

fn errors_of(body: Value) -> Vec<String> {
    match read_send(body) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn error_of(event: Value) -> String {
    let mut errors = errors_of(json!({"events": [event]}));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn each_kind_is_read() {
    let text = json!({"type": "text", "text": "hi"});
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAE="}});
    let pdf = json!({
        "type": "document", "title": "t", "context": null,
        "source": {"type": "base64", "media_type": "application/pdf", "data": "AAE="},
    });
    let plain =
        json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}});
    let content = json!([text, image, pdf, plain]);
    let body = json!({"events": [
        {"type": "user.message", "content": content},
        {"type": "user.interrupt", "session_thread_id": null},
        {"type": "user.tool_confirmation", "tool_use_id": ID, "result": "allow", "deny_message": null},
        {"type": "user.tool_confirmation", "tool_use_id": ID, "result": "deny", "deny_message": "no"},
        {"type": "user.custom_tool_result", "custom_tool_use_id": ID, "content": [text, image], "is_error": true},
        {"type": "user.custom_tool_result", "custom_tool_use_id": ID},
    ]});
    let id: EventId = ID.parse().unwrap();
    let blocks = |value: &Value| value.as_array().cloned().unwrap();
    assert_eq!(
        read_send(body).unwrap(),
        [
            UserEvent::Message { content: blocks(&content) },
            UserEvent::Interrupt,
            UserEvent::ToolConfirmation { tool_use_id: id.clone(), result: Confirmation::Allow },
            UserEvent::ToolConfirmation {
                tool_use_id: id.clone(),
                result: Confirmation::Deny { message: Some("no".to_owned()) },
            },
            UserEvent::CustomToolResult {
                custom_tool_use_id: id.clone(),
                content: blocks(&json!([text, image])),
                is_error: true,
            },
            UserEvent::CustomToolResult { custom_tool_use_id: id, content: Vec::new(), is_error: false },
        ]
    );
}

#[test]
fn what_is_not_supported_is_named_with_its_reason() {
    for (event, reason) in [
        (
            json!({"type": "user.define_outcome", "description": "x", "rubric": {}}),
            "events[0].type: `user.define_outcome` is not supported: outcomes are not evaluated",
        ),
        (
            json!({"type": "user.tool_result", "tool_use_id": ID}),
            "events[0].type: `user.tool_result` is not supported: it belongs to self-hosted environments",
        ),
        (
            json!({"type": "system.message", "content": []}),
            "events[0].type: `system.message` is not supported: a system prompt cannot be added",
        ),
        (
            json!({"type": "agent.message"}),
            "events[0].type: \"agent.message\": expected one of `user.message`",
        ),
        (json!({}), "events[0].type: expected one of `user.message`"),
        (
            json!({"type": "user.interrupt", "session_thread_id": "sthr_1"}),
            "events[0].session_thread_id: threads are not supported",
        ),
    ] {
        let error = error_of(event);
        assert!(error.starts_with(reason), "{error}");
    }
}

#[test]
fn sources_that_would_have_to_be_fetched_are_refused() {
    let block = |block: Value| error_of(json!({"type": "user.message", "content": [block]}));
    for kind in ["image", "document"] {
        for source in
            [json!({"type": "url", "url": "http://x"}), json!({"type": "file", "file_id": "file_1"})]
        {
            let error = block(json!({"type": kind, "source": source}));
            assert!(error.starts_with("events[0].content[0].source.type: sources of type"), "{error}");
        }
    }
    let source = |media: &str, data: &str| json!({"type": "base64", "media_type": media, "data": data});
    for (source, message) in [
        (source("image/tiff", "AAE="), "events[0].content[0].source.media_type: expected one of image/jpeg"),
        (source("image/png", "%%"), "events[0].content[0].source.data: expected base64"),
        (source("image/png", ""), "events[0].content[0].source.data: expected base64"),
        (json!("x"), "events[0].content[0].source: expected an object"),
    ] {
        let error = block(json!({"type": "image", "source": source}));
        assert!(error.starts_with(message), "{error}");
    }
    assert!(block(json!({"type": "redacted"})).contains("cannot be sent"));
    assert!(block(json!({"type": "text", "text": ""})).contains("not empty"));
    assert!(block(json!({"type": "text", "text": "x", "cache_control": {}})).contains("unknown field"));
}

#[test]
fn confirmations_and_results_name_one_call() {
    for (event, message) in [
        (json!({"type": "user.tool_confirmation", "result": "allow"}), "tool_use_id: expected the id"),
        (
            json!({"type": "user.tool_confirmation", "tool_use_id": "toolu_1", "result": "allow"}),
            "tool_use_id: expected the id",
        ),
        (json!({"type": "user.tool_confirmation", "tool_use_id": ID}), "result: expected `allow` or `deny`"),
        (
            json!({"type": "user.tool_confirmation", "tool_use_id": ID, "result": "maybe"}),
            "result: \"maybe\": expected `allow` or `deny`",
        ),
        (
            json!({"type": "user.tool_confirmation", "tool_use_id": ID, "result": "allow", "deny_message": "x"}),
            "deny_message: only a denial",
        ),
        (
            json!({"type": "user.tool_confirmation", "tool_use_id": ID, "result": "deny", "deny_message": "x".repeat(10_001)}),
            "deny_message: over 10000 bytes",
        ),
        (json!({"type": "user.custom_tool_result", "custom_tool_use_id": 7}), "custom_tool_use_id: expected"),
        (
            json!({"type": "user.custom_tool_result", "custom_tool_use_id": ID, "content": [{"type": "document", "source": {}}]}),
            "content[0].type: blocks of type `document` are not supported here",
        ),
    ] {
        let error = error_of(event.clone());
        assert!(error.starts_with(&format!("events[0].{message}")), "{event}: {error}");
    }
}

#[test]
fn numbers_and_sizes_are_bounded() {
    let message = |text: &str| json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
    assert_eq!(errors_of(json!({"events": []})), ["events: expected 1 to 50 events"]);
    assert_eq!(errors_of(json!({})), ["events: expected 1 to 50 events"]);
    assert_eq!(
        errors_of(json!({"events": vec![message("x"); 51]})),
        ["events: 51 events; the limit is 50 in one request"]
    );
    assert_eq!(errors_of(json!({"events": [message("x")], "evnts": 1})).len(), 1);
    let long = error_of(message(&"x".repeat(MAX_TEXT_BYTES + 1)));
    assert_eq!(long, "events[0].content: 1048577 bytes of text; the limit is 1048576");
    let many = errors_of(json!({"events": vec![message(&"x".repeat(MAX_TEXT_BYTES)); 13]}));
    assert_eq!(many, ["events: 13631488 bytes of text and media; the limit is 12582912"]);
    let blocks = error_of(json!({"type": "user.message", "content": vec![json!({}); 101]}));
    assert_eq!(blocks, "events[0].content: 101 blocks; the limit is 100");
    assert!(errors_of(json!({"events": vec![json!(7); 50]})).len() <= MAX_ERRORS);
    assert_eq!(
        error_of(json!({"type": "user.message"})),
        "events[0].content: expected a list of at least one block"
    );
}

#[test]
fn a_session_begins_with_messages_only() {
    let mut errors = Vec::new();
    read_events(vec![json!({"type": "user.interrupt"})], "initial_events", Taken::Initial, &mut errors);
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["initial_events[0].type: a session begins with events of type `user.message` only"]);
}
