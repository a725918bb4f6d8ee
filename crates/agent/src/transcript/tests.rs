//! What is read back of files that were cut, mixed up, or made by somebody else.

use proptest::prelude::*;
use serde_json::{Value, json};
use wardian_protocol::{ContentBlock, MessageParam, NanoUsd, Role};

use super::read::{calls, parse};
use super::{Found, OpenReply};

fn line(kind: &str, fields: Value) -> String {
    let mut line = json!({"type": kind, "wardianVersion": "0"});
    line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    format!("{line}\n")
}

fn prompt(text: &str) -> String {
    line("user", json!({"uuid": text, "isPrompt": true, "message": {"role": "user", "content": text}}))
}

fn said(reply: &str, block: Value) -> String {
    let message = json!({"id": reply, "role": "assistant", "model": "m", "content": [block]});
    line("assistant", json!({"uuid": format!("{reply}-a"), "message": message}))
}

fn text(reply: &str) -> String {
    said(reply, json!({"type": "text", "text": reply}))
}

fn tool_use(reply: &str, id: &str) -> String {
    said(reply, json!({"type": "tool_use", "id": id, "name": "Bash", "input": {"id": id}}))
}

fn result(id: &str) -> String {
    let content = json!([{"type": "tool_result", "tool_use_id": id, "content": id}]);
    line("user", json!({"uuid": format!("{id}-r"), "message": {"role": "user", "content": content}}))
}

fn started(id: &str) -> String {
    line("system", json!({"subtype": "wardian_tool_started", "toolUseId": id}))
}

fn reply_ended(kept: bool) -> String {
    let end = json!({"subtype": "wardian_reply_ended", "kept": kept, "stopReason": "x", "totalCostUsd": 0.5,
        "modelUsage": {"m": {"inputTokens": 3, "costUSD": 0.5}}});
    line("system", end)
}

fn turn_ended() -> String {
    let result = json!({"type": "result", "subtype": "success", "is_error": false, "result": "Done."});
    line("system", json!({"subtype": "wardian_turn_ended", "result": result}))
}

fn found(lines: &[String]) -> Found {
    parse(lines.concat().as_bytes(), None).unwrap()
}

/// The conversation as it would go on: its open calls answered, and another prompt.
fn continued(found: Found) -> Vec<MessageParam> {
    let mut messages = found.history;
    let mut next = Vec::new();
    if let Some(OpenReply { content, mut answered, .. }) = found.open {
        let ids: Vec<String> = calls(&content).map(str::to_owned).collect();
        messages.push(MessageParam::new(Role::Assistant, content));
        next.extend(ids.iter().map(|id| {
            answered.remove(id).unwrap_or_else(|| ContentBlock::tool_result(id.clone(), "settled", true))
        }));
        assert!(answered.is_empty(), "{answered:?}");
    }
    next.push(ContentBlock::text("go on"));
    match messages.last_mut() {
        Some(last) if last.role == Role::User => last.content.extend(next),
        _ => messages.push(MessageParam::new(Role::User, next)),
    }
    messages
}

/// What the API would refuse.
fn problem(messages: &[MessageParam]) -> Option<String> {
    for (index, message) in messages.iter().enumerate() {
        // Replies may follow each other: the API pauses one and goes on with the next.
        if message.content.is_empty() || (index == 0 && message.role != Role::User) {
            return Some(format!("message {index} is {message:?}"));
        }
        let mut called: Vec<&str> =
            index.checked_sub(1).map(|last| calls(&messages[last].content).collect()).unwrap_or_default();
        let mut answered = Vec::new();
        for (position, block) in message.content.iter().enumerate() {
            if let ContentBlock::ToolResult { tool_use_id, .. } = block {
                if position != answered.len() {
                    return Some(format!("message {index}: results come first"));
                }
                answered.push(tool_use_id.as_str());
            }
        }
        called.sort_unstable();
        answered.sort_unstable();
        if called != answered {
            return Some(format!("message {index}: called {called:?}, answered {answered:?}"));
        }
    }
    None
}

#[test]
fn where_a_turn_stood_is_seen() {
    let whole = [
        prompt("p"),
        text("r1"),
        tool_use("r1", "a"),
        tool_use("r1", "b"),
        reply_ended(true),
        started("a"),
        result("a"),
        started("b"),
        result("b"),
        text("r2"),
        reply_ended(true),
        turn_ended(),
    ];
    // After so many lines: interrupted, calls that are open and had begun, messages before the open reply.
    let open = |begun: &[&'static str], answered: usize| Some((begun.to_vec(), answered));
    for (lines, interrupted, expected, before) in [
        (0, false, None, 0),
        (1, true, None, 1),
        // A text that its reply did not come to the end of is asked for again.
        (2, true, None, 1),
        (3, true, open(&[], 0), 1),
        (5, true, open(&[], 0), 1),
        (6, true, open(&["a"], 0), 1),
        (7, true, open(&["a"], 1), 1),
        (8, true, open(&["a", "b"], 1), 1),
        (9, true, None, 3),
        (10, true, None, 3),
        (11, true, open(&["a", "b"], 0), 3),
        (12, false, None, 4),
    ] {
        let found = found(&whole[..lines]);
        assert_eq!((found.interrupted, found.history.len()), (interrupted, before), "{lines}");
        let is_open = found.open.is_some();
        assert_eq!(is_open, expected.is_some(), "{lines}");
        if let (Some(open), Some((begun, answered))) = (&found.open, expected)
            && calls(&open.content).next().is_some()
        {
            let mut started: Vec<&str> = open.started.iter().map(String::as_str).collect();
            started.sort_unstable();
            assert_eq!((started, open.answered.len()), (begun, answered), "{lines}");
        }
        assert_eq!(found.result.is_some(), lines == 12);
        assert_eq!(problem(&continued(found)), None, "{lines}");
    }
    let found = found(&whole);
    assert_eq!((found.meter.total(), found.prompts), (NanoUsd(500_000_000), vec!["p".to_owned()]));
}

#[test]
fn what_was_forgotten_stays_forgotten() {
    // A reply that failed after a call was shown, one that was refused, and the words of an API error.
    let error = json!({"id": "e", "role": "assistant", "model": "<synthetic>", "content": [{"type": "text", "text": "x"}]});
    let found = found(&[
        prompt("p"),
        tool_use("r1", "a"),
        reply_ended(false),
        line("assistant", json!({"uuid": "e", "message": error})),
        turn_ended(),
        prompt("q"),
        text("r2"),
        reply_ended(true),
        turn_ended(),
    ]);
    assert!(!found.interrupted && found.open.is_none());
    assert_eq!(found.history.len(), 2);
    assert_eq!(found.history[0].content.len(), 2, "the two prompts");
}

#[test]
fn a_turn_that_got_no_answer_can_be_gone_on_with() {
    let failed = |reason: &str| {
        let result =
            json!({"type": "result", "subtype": "success", "is_error": true, "terminal_reason": reason});
        line("system", json!({"subtype": "wardian_turn_ended", "result": result}))
    };
    for (reason, interrupted) in [("api_error", true), ("budget_exhausted", true), ("max_turns", false)] {
        let found = found(&[prompt("p"), failed(reason)]);
        assert_eq!((found.interrupted, found.history.len()), (interrupted, 1), "{reason}");
        assert!(found.result.is_none() || !interrupted);
    }
}

#[test]
fn a_call_that_came_before_with_the_same_id_was_not_begun() {
    let found = found(&[
        prompt("p"),
        tool_use("r1", "a"),
        reply_ended(true),
        started("a"),
        result("a"),
        tool_use("r2", "a"),
        reply_ended(true),
    ]);
    let open = found.open.unwrap();
    assert!(open.started.is_empty() && open.answered.is_empty());
}

#[test]
fn what_others_wrote_is_taken_as_it_stands() {
    let foreign = |line: String| line.replace(",\"wardianVersion\":\"0\"", "");
    let lines = [prompt("p"), text("r1")].map(foreign);
    let found = parse(lines.concat().as_bytes(), None).unwrap();
    assert_eq!((found.interrupted, found.history.len()), (false, 2));
    let lines = [prompt("p"), tool_use("r1", "a")].map(foreign);
    assert!(parse(lines.concat().as_bytes(), None).unwrap().interrupted);
}

fn any_line() -> impl Strategy<Value = String> {
    let id = prop::sample::select(vec!["a", "b", "c"]);
    let reply = prop::sample::select(vec!["r1", "r2", "r3"]);
    prop_oneof![
        id.clone().prop_map(prompt),
        reply.clone().prop_map(text),
        (reply, id.clone()).prop_map(|(reply, id)| tool_use(reply, id)),
        id.clone().prop_map(result),
        id.prop_map(started),
        any::<bool>().prop_map(reply_ended),
        Just(turn_ended()),
        "[ -~]{0,40}\n",
    ]
}

proptest! {
    #[test]
    fn any_lines_in_any_order_make_a_conversation_that_goes_on(lines in prop::collection::vec(any_line(), 0..40)) {
        prop_assert_eq!(problem(&continued(found(&lines))), None);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400), lines in prop::collection::vec(any_line(), 0..8), at in any::<prop::sample::Index>()) {
        let mut text = lines.concat().into_bytes();
        let at = at.index(text.len() + 1);
        text.splice(at..at, bytes);
        prop_assert_eq!(problem(&continued(parse(&text[..], None).unwrap())), None);
    }
}
