//! What replies say: streams and plain messages, order, matching, defaults.

use serde_json::{Value, json};
use wardian_protocol::Message;

use crate::client::{ask, send, serve};

/// Replies of every kind, each also with odd sizes and wide characters.
fn replies() -> Vec<Value> {
    vec![
        json!({"text": "Hello."}),
        json!({"text": ""}),
        json!({"text": "wörld 🦀🦀🦀 \u{200d} ende\n\n\r\ndata: x", "chunk_bytes": 1}),
        json!({"text": "wörld 🦀🦀🦀", "chunk_bytes": 3}),
        json!({"thinking": "Let me see.", "text": "So.", "tool_use": [{"name": "Bash", "input": {"command": "echo \"hi\"\n", "z": 1, "a": [1.5, null]}}]}),
        json!({"tool_use": [{"name": "A", "id": "toolu_mine"}, {"name": "B", "input": {}}], "pings": 2}),
        json!({"text": "a", "stop_sequence": "END"}),
        json!({"text": "a", "stop_reason": "max_tokens", "model": "claude-other"}),
        json!({"text": "a", "usage": {"input_tokens": 7, "output_tokens": 900, "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3},
            "server_tool_use": {"web_search_requests": 2}, "inference_geo": "us", "speed": "fast", "future_tokens": 4}}),
        json!({"text": "a", "usage": {"output_tokens": 0}}),
        json!({"content": [
            {"type": "redacted_thinking", "data": "abc"},
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
            {"type": "text", "text": "see", "citations": [{"type": "char_location", "cited_text": "x"}, {"type": "y"}]},
            {"type": "block_of_tomorrow", "deep": {"er": [1]}}
        ]}),
        json!({"content": []}),
        json!({"echo": true}),
    ]
}

#[tokio::test]
async fn a_stream_amounts_to_the_plain_message() {
    for reply in replies() {
        let server = serve(&json!({"replies": [reply, reply]})).await;
        let streamed = send(&server, &ask("hi 🦀", true)).await;
        let plain = send(&server, &ask("hi 🦀", false)).await;
        assert!(streamed.complete && plain.complete, "{reply}");
        assert_eq!(streamed.headers["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(plain.headers["content-type"], "application/json");
        let plain: Message = serde_json::from_value(plain.json()).unwrap();
        let mut streamed = streamed.assembled();
        // Ids are unlike by design; the order of usage fields and of the block's may differ, their values may not.
        streamed.id.clone_from(&plain.id);
        let without_ids = |message: &Message| {
            let mut value = serde_json::to_value(message).unwrap();
            let calls = value["content"].as_array_mut().unwrap().iter_mut();
            calls.filter(|block| block["type"] == "tool_use").for_each(|block| block["id"] = Value::Null);
            value
        };
        assert_eq!(without_ids(&streamed), without_ids(&plain), "{reply}");
    }
}

#[tokio::test]
async fn events_come_in_the_order_of_the_api() {
    let reply = json!({"thinking": "t", "text": "x", "tool_use": [{"name": "A"}], "pings": 1});
    let server = serve(&json!({"replies": [reply]})).await;
    let answer = send(&server, &ask("hi", true)).await;
    let names = answer.event_names();
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta", // thinking
            "content_block_delta", // its signature
            "content_block_stop",
            "content_block_start",
            "content_block_delta", // text
            "content_block_stop",
            "content_block_start",
            "content_block_delta", // the empty piece of input that always comes first
            "content_block_delta", // {}
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let data: Vec<Value> =
        answer.events().iter().map(|event| serde_json::from_str(&event.data).unwrap()).collect();
    assert!(data.iter().zip(&names).all(|(data, name)| data["type"] == name.as_str()));
    assert_eq!(data[0]["message"]["usage"]["input_tokens"], 10);
    assert_eq!(data[0]["message"]["usage"]["output_tokens"], 1);
    assert_eq!(data[4]["delta"]["type"], "signature_delta");
    assert_eq!(data[10]["delta"], json!({"type": "input_json_delta", "partial_json": ""}));
    assert_eq!(data[13]["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
    assert_eq!(data[13]["usage"]["output_tokens"], 5);
    assert_eq!(data[13]["usage"]["input_tokens"], 10);
}

#[tokio::test]
async fn chunks_are_as_large_as_asked() {
    for (bytes, longest) in [(1, 1), (2, 2), (16, 16), (1000, 60)] {
        let text = "0123456789".repeat(6);
        let server = serve(&json!({"replies": [{"text": text, "chunk_bytes": bytes}]})).await;
        let answer = send(&server, &ask("hi", true)).await;
        let deltas = answer.events().into_iter().filter(|event| event.event == "content_block_delta");
        let sizes: Vec<usize> = deltas
            .map(|event| {
                serde_json::from_str::<Value>(&event.data).unwrap()["delta"]["text"].as_str().unwrap().len()
            })
            .collect();
        assert_eq!(sizes.iter().sum::<usize>(), 60);
        assert_eq!(sizes.iter().max(), Some(&longest));
        assert_eq!(sizes.len(), 60_usize.div_ceil(longest));
    }
}

#[tokio::test]
async fn a_request_takes_the_first_unused_reply_that_fits() {
    let script = json!({"replies": [
        {"match": {"last_text_contains": "alpha"}, "text": "1"},
        {"match": {"system_contains": "pirate"}, "text": "2"},
        {"match": {"model": "claude-opus-5-5"}, "text": "3"},
        {"match": {"tool_result_contains": "42 passed", "last_text_contains": "test"}, "text": "4"},
        {"match": {"last_text_contains": "alpha"}, "text": "5", "repeat": true},
        {"text": "6"}
    ]});
    let server = serve(&script).await;
    let with = |name: &str, value: Value| {
        let mut body = ask("run the test", false);
        body[name] = value;
        body
    };
    let conversation = json!([
        {"role": "user", "content": "run the test"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "42 passed"}]}]},
        {"role": "system", "content": "reminder"}
    ]);
    for (body, expected) in [
        (ask("alpha", false), "1"),
        (ask("alpha", false), "5"),
        (ask("the alpha dog", false), "5"),
        (with("system", json!("be a pirate")), "2"),
        (with("model", json!("claude-opus-5-5")), "3"),
        (with("messages", conversation), "4"),
        (with("system", json!([{"type": "text", "text": "be a pirate"}])), "6"),
    ] {
        assert_eq!(send(&server, &body).await.json()["content"][0]["text"], expected, "{body}");
    }
    let refused = send(&server, &ask("omega", false)).await;
    assert_eq!(
        refused.problem(),
        "400 invalid_request_error: the script has no reply for this request: 0 of 6 replies are unused and none of \
         them fits; the last user text is \"omega\""
    );
    assert_eq!(server.unused_replies(), 0);
}

#[tokio::test]
async fn echo_repeats_the_newest_user_text() {
    let server = serve(&json!({"replies": [{"echo": true, "repeat": true}]})).await;
    for text in ["one", "two 🦀"] {
        assert_eq!(send(&server, &ask(text, true)).await.assembled().content.len(), 1);
        assert_eq!(send(&server, &ask(text, false)).await.json()["content"][0]["text"], text);
    }
}

#[tokio::test]
async fn ids_are_never_given_twice() {
    let reply = json!({"tool_use": [{"name": "A"}, {"name": "A"}], "repeat": true});
    let server = serve(&json!({"replies": [reply]})).await;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let answer = send(&server, &ask("hi", false)).await;
        let message = answer.json();
        let of = |value: &Value| value["id"].as_str().unwrap().to_owned();
        ids.extend([of(&message), of(&message["content"][0]), of(&message["content"][1])]);
        ids.insert(answer.headers["request-id"].to_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 12);
}

#[tokio::test]
async fn events_of_tomorrow_stand_where_the_script_puts_them() {
    let reply = json!({"text": "a", "extra_events": [
        {"after_events": 1, "event": "progress", "data": {"type": "progress", "percent": 5}},
        {"after_events": 9999, "event": "last_words"}
    ]});
    let server = serve(&json!({"replies": [reply]})).await;
    let answer = send(&server, &ask("hi", true)).await;
    let names = answer.event_names();
    assert_eq!(names[1], "progress");
    assert_eq!(names.last().unwrap(), "last_words");
    assert_eq!(answer.assembled().stop_reason.as_deref(), Some("end_turn"));
}
