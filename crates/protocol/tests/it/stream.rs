//! Whole streams, cut streams, hostile streams.

use proptest::prelude::*;
use serde_json::{Value, json};
use wardian_protocol::sse::{SseDecoder, SseEvent};
use wardian_protocol::stream::{Assembler, MAX_REPLY_BYTES, StreamError, StreamEvent};
use wardian_protocol::{ApiErrorKind, ContentBlock, Message};

fn events() -> Vec<Value> {
    vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude-x", "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": 25, "output_tokens": 1}, "container": null}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm, "}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "é."}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "something_new", "with": ["fields"]}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Let me "}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "see 🦀"}}),
        json!({"type": "content_block_delta", "index": 1,
            "delta": {"type": "citations_delta", "citation": {"cited_text": "x"}}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "delta_of_tomorrow", "x": 1}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        json!({"type": "content_block_delta", "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": "{\"file_path\": \"/a"}}),
        json!({"type": "content_block_delta", "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": "\", \"b\": 1}"}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "content_block_start", "index": 3,
            "content_block": {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}}),
        json!({"type": "content_block_delta", "index": 3,
            "delta": {"type": "input_json_delta", "partial_json": "{\"query\": \"q\"}"}}),
        json!({"type": "content_block_stop", "index": 3}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
            "usage": {"input_tokens": null, "output_tokens": 89}}),
        json!({"type": "message_stop"}),
    ]
}

fn text(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("")))
        .collect()
}

fn parse(value: &Value) -> Result<StreamEvent, StreamError> {
    StreamEvent::parse(&SseEvent { event: String::new(), data: value.to_string(), id: None })
}

/// Puts a stream together as a client does, and gives the reply so far, with the outcome.
fn assemble(bytes: &[u8]) -> (Option<Message>, Result<Message, StreamError>) {
    let mut decoder = SseDecoder::default();
    let mut found = Vec::new();
    let mut reply = Assembler::default();
    let fed = decoder.feed(bytes, &mut found);
    found.extend(decoder.finish());
    let pushed = fed.map_err(|error| StreamError::Malformed(error.to_string())).and_then(|()| {
        found.iter().try_for_each(|event| reply.push(&StreamEvent::parse(event)?).map(|_| ()))
    });
    let so_far = reply.so_far().cloned();
    (so_far, pushed.and_then(|()| reply.finish()))
}

fn pushed(events: &[Value]) -> Result<Message, StreamError> {
    assemble(text(events).as_bytes()).1
}

#[test]
fn a_whole_stream_makes_the_reply() {
    let reply = pushed(&events()).unwrap();
    assert_eq!(
        serde_json::to_value(&reply).unwrap(),
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
            "content": [
                {"type": "thinking", "thinking": "Hm, é.", "signature": "c2ln"},
                {"type": "text", "text": "Let me see 🦀", "citations": [{"cited_text": "x"}]},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/a", "b": 1}},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 25, "output_tokens": 89}, "container": null})
    );
}

#[test]
fn completed_blocks_are_told_once_each() {
    let mut reply = Assembler::default();
    let told: Vec<usize> =
        events().iter().filter_map(|event| reply.push(&parse(event).unwrap()).unwrap()).collect();
    assert_eq!(told, [0, 1, 2, 3]);
}

#[test]
fn a_cut_at_any_byte_is_truncated_and_keeps_the_usage_so_far() {
    let whole = text(&events());
    let stop =
        whole.find("data: {\"type\":\"message_stop\"}").unwrap() + "data: {\"type\":\"message_stop\"}".len();
    let start = whole.find("\n\n").unwrap() - 1;
    let end_counts = whole.find("event: message_stop").unwrap() - 3;
    for cut in 0..whole.len() {
        let (so_far, outcome) = assemble(&whole.as_bytes()[..cut]);
        if cut >= stop {
            assert!(outcome.is_ok(), "cut at {cut}");
            continue;
        }
        assert_eq!(outcome, Err(StreamError::Truncated), "cut at {cut}");
        let usage = so_far.map(|message| (message.usage.input_tokens, message.usage.output_tokens));
        let expected = match cut {
            _ if cut > end_counts => Some((Some(25), Some(89))),
            _ if cut > start => Some((Some(25), Some(1))),
            _ => None,
        };
        assert_eq!(usage, expected, "cut at {cut}");
    }
}

#[test]
fn an_error_inside_a_stream_ends_it_and_keeps_the_usage() {
    let all = events();
    for place in 0..all.len() {
        let mut broken = all[..place].to_vec();
        broken.push(json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}));
        broken.extend_from_slice(&all[place..]);
        let (so_far, outcome) = assemble(text(&broken).as_bytes());
        let Err(StreamError::Api(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.kind, error.message.as_str()), (ApiErrorKind::OverloadedError, "Overloaded"));
        assert_eq!(so_far.is_some(), place > 0);
    }
    let unknown = pushed(&[json!({"type": "error", "error": {"type": "quantum_error", "message": "x"}})]);
    assert_eq!(unknown.unwrap_err().to_string(), "get a whole reply: quantum_error: x");
}

#[test]
fn events_that_make_no_sense_together_are_refused() {
    let all = events();
    let (start, text_start, text_delta, stop_1) = (&all[0], &all[8], &all[9], &all[13]);
    let text_0 = |event: &Value| {
        let mut event = event.clone();
        event["index"] = json!(0);
        event
    };
    let (begin, more, end) = (text_0(text_start), text_0(text_delta), text_0(stop_1));
    let last = json!({"type": "message_stop"});
    for (hostile, why) in [
        (vec![begin.clone()], "an event came before message_start"),
        (vec![more.clone()], "an event came before message_start"),
        (vec![end.clone()], "an event came before message_start"),
        (vec![all[22].clone()], "an event came before message_start"),
        (vec![last.clone()], "an event came before message_start"),
        (vec![start.clone(), start.clone()], "message_start came twice"),
        (vec![start.clone(), more.clone()], "a delta for block 0, which is not open"),
        (vec![start.clone(), end.clone()], "block 0 ends and is not open"),
        (vec![start.clone(), text_start.clone()], "block 1 begins out of order"),
        (vec![start.clone(), begin.clone(), begin.clone()], "block 0 begins out of order"),
        (
            vec![start.clone(), begin.clone(), end.clone(), more.clone()],
            "a delta for block 0, which is not open",
        ),
        (vec![start.clone(), begin.clone(), end.clone(), end.clone()], "block 0 ends and is not open"),
        (vec![start.clone(), begin, last.clone()], "block 0 did not end before the reply"),
        (vec![start.clone(), last.clone(), last.clone()], "an event came after message_stop"),
        (vec![start.clone(), last, start.clone()], "an event came after message_stop"),
    ] {
        let refused = pushed(&hostile).unwrap_err();
        assert_eq!(refused, StreamError::Malformed(why.to_owned()), "{hostile:?}");
    }
    let far = json!({"type": "content_block_start", "index": u32::MAX, "content_block": {"type": "text", "text": ""}});
    assert!(matches!(pushed(&[start.clone(), far]), Err(StreamError::Malformed(_))));
}

#[test]
fn wrong_fields_of_a_known_event_are_no_unknown_event() {
    for (wrong, says) in [
        (json!({"type": "message_start"}), "message_start: "),
        (json!({"type": "message_start", "message": {"id": 5}}), "message_start: "),
        (json!({"type": "message_delta", "delta": {}, "usage": {"output_tokens": -1}}), "message_delta: "),
        (json!({"type": "message_delta", "delta": {}, "usage": {"output_tokens": "5"}}), "message_delta: "),
        (json!({"type": "content_block_start", "index": 0}), "content_block_start: a field is wrong"),
        (json!({"type": "content_block_delta", "index": -1, "delta": {}}), "content_block_delta: "),
        (json!({"type": "content_block_stop"}), "content_block_stop: "),
        (
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}}),
            "text_delta: ",
        ),
        (json!({"type": "error", "error": "x"}), "error: "),
    ] {
        let Err(StreamError::Malformed(message)) = parse(&wrong) else { panic!("{wrong} is read") };
        assert!(message.starts_with(says), "{message:?} for {wrong}");
    }
    for fine in [
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        json!({"type": "message_delta", "delta": {}, "usage": null}),
        json!({"type": "of_tomorrow", "index": "x"}),
        json!({"no": "type"}),
        json!({"type": 5}),
        json!({"type": "message_stop", "more": 1}),
    ] {
        assert!(parse(&fine).is_ok(), "{fine}");
    }
    for no_object in ["5", "[]", "null", "\"x\"", "", "{", "{\"a\":1}}"] {
        let event = SseEvent { event: "e".repeat(1_000), data: no_object.to_owned(), id: None };
        let error = StreamEvent::parse(&event).unwrap_err().to_string();
        assert!(error.starts_with("read the model's reply: ") && error.len() < 300, "{error}");
    }
}

#[test]
fn a_tool_input_that_is_no_json_is_kept_as_text() {
    let all = events();
    let call = |json: &str| {
        let delta = json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": json}});
        let mut begin = all[14].clone();
        begin["index"] = json!(0);
        let reply = pushed(&[
            all[0].clone(),
            begin,
            delta,
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_stop"}),
        ])
        .unwrap();
        let ContentBlock::ToolUse { input, .. } = &reply.content[0] else { panic!("{reply:?}") };
        input.clone()
    };
    assert_eq!(call("{\"a\":1}"), json!({"a": 1}));
    assert_eq!(call(""), json!({}));
    assert_eq!(call("{\"a\":"), json!("{\"a\":"));
    let deep = "[".repeat(10_000);
    assert_eq!(call(&deep), json!(deep));
}

#[test]
fn a_reply_has_a_largest_size() {
    let all = events();
    let mut reply = Assembler::default();
    let mut begin = all[8].clone();
    begin["index"] = json!(0);
    reply.push(&parse(&all[0]).unwrap()).unwrap();
    reply.push(&parse(&begin).unwrap()).unwrap();
    let delta = parse(&json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "text_delta", "text": "x".repeat(1024 * 1024)}}))
    .unwrap();
    for _ in 0..MAX_REPLY_BYTES / (1024 * 1024) {
        reply.push(&delta).unwrap();
    }
    assert!(matches!(reply.push(&delta), Err(StreamError::Malformed(_))));
}

#[test]
fn blocks_and_events_of_tomorrow_go_through_unchanged() {
    for block in [
        json!({"type": "image", "source": {"type": "base64", "data": "AA=="}}),
        json!({"type": "redacted_thinking", "data": "x"}),
        json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}, "z": 1, "a": 2}),
        json!({"type": "text", "text": 5}),
        json!({"type": "tool_use", "id": "t", "name": "N", "input": {"b": 1, "a": [null]}, "caller": {"type": "direct"}}),
        json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}], "is_error": true}),
        json!({"type": "tool_result", "tool_use_id": "t"}),
        json!({"no_type": 1}),
        json!("a string"),
    ] {
        let read: ContentBlock = serde_json::from_value(block.clone()).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), block.to_string());
    }
    for event in events() {
        let read = parse(&event).unwrap();
        let again = parse(&serde_json::to_value(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }
}

proptest! {
    #[test]
    fn no_order_of_events_panics(places in prop::collection::vec(0..24_usize, 0..60), cut in 0..4_000_usize) {
        let all = events();
        let shuffled: Vec<Value> = places.into_iter().map(|place| all[place].clone()).collect();
        let bytes = text(&shuffled);
        let (so_far, outcome) = assemble(bytes.as_bytes());
        prop_assert!(outcome.is_err() || so_far.is_some());
        let _ = assemble(&bytes.as_bytes()[..cut.min(bytes.len())]);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = assemble(&bytes);
        let _ = assemble(&[b"data: ".as_slice(), &bytes, b"\n\n"].concat());
    }
}
