//! Turns a reply into a message, and a message into the events of a stream. Pure.

use serde_json::{Value, json};

use crate::conversation::last_user_text;
use crate::script::{Answer, Object, Reply};

/// The usage fields that the API knows only when the reply is complete.
const KNOWN_AT_THE_END: [&str; 4] =
    ["output_tokens", "output_tokens_details", "server_tool_use", "iterations"];

/// One event, as it goes over the wire.
#[derive(Debug)]
pub(crate) struct Event {
    pub bytes: String,
    /// A delta of a block: what the delay between chunks comes before.
    pub is_delta: bool,
    /// What ends a block or the message: `hold` stops before the last block's.
    pub is_stop: bool,
}

/// Makes the ids of one server: unique, and the same from run to run.
#[derive(Debug, Default)]
pub(crate) struct Ids(std::sync::atomic::AtomicU64);

impl Ids {
    pub(crate) fn next(&self, prefix: &str) -> String {
        let number = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        format!("{prefix}_{number:024}")
    }
}

/// The whole message of a reply, as the API answers without `stream`.
pub(crate) fn message(reply: &Reply, body: &Value, ids: &Ids) -> Value {
    let mut content = match &reply.answer {
        Answer::Content(blocks) => blocks.clone(),
        Answer::Echo => vec![json!({"type": "text", "text": last_user_text(body).unwrap_or_default()})],
        Answer::Error(_) | Answer::Drop => Vec::new(),
    };
    for block in &mut content {
        if block["type"] == "tool_use" && block["id"].is_null() {
            block["id"] = Value::String(ids.next("toolu"));
        }
    }
    let calls_a_tool = content.iter().any(|block| block["type"] == "tool_use");
    let stop_reason = match (&reply.stop_reason, &reply.stop_sequence) {
        (Some(reason), _) => reason.as_str(),
        (None, Some(_)) => "stop_sequence",
        (None, None) if calls_a_tool => "tool_use",
        (None, None) => "end_turn",
    };
    json!({
        "id": ids.next("msg"),
        "type": "message",
        "role": "assistant",
        "model": reply.model.as_deref().or_else(|| body["model"].as_str()).unwrap_or_default(),
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": reply.stop_sequence,
        "usage": reply.usage,
    })
}

/// The events of the same message as a stream.
pub(crate) fn events(reply: &Reply, message: &Value) -> Vec<Event> {
    let mut events = vec![start(reply, message)];
    let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, block) in blocks.iter().enumerate() {
        block_events(index, block, reply.chunk_bytes, &mut events);
        if index == 0 {
            // The API sends its first ping after the first block's start.
            events.splice(2..2, std::iter::repeat_with(ping).take(reply.pings));
        }
    }
    if blocks.is_empty() {
        events.extend(std::iter::repeat_with(ping).take(reply.pings));
    }
    let delta = json!({"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]});
    // Cumulative: the numbers of `message_start` come again, and stand in their place.
    let usage: Object = reply
        .usage
        .iter()
        .filter(|(name, _)| *name != "service_tier")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    events.push(event(json!({"type": "message_delta", "delta": delta, "usage": usage}), false, true));
    events.push(event(json!({"type": "message_stop"}), false, true));
    for extra in &reply.extra_events {
        let place = extra.after_events.min(events.len());
        let bytes = format!("event: {}\ndata: {}\n\n", extra.event, extra.data);
        events.insert(place, Event { bytes, is_delta: false, is_stop: false });
    }
    events
}

/// The event that ends a stream with an error.
pub(crate) fn error_event(kind: &str, message: &str, request_id: &str) -> Event {
    let error = json!({"type": kind, "message": message});
    event(json!({"type": "error", "error": error, "request_id": request_id}), false, true)
}

fn start(reply: &Reply, message: &Value) -> Event {
    let mut begun = message.clone();
    begun["content"] = json!([]);
    begun["stop_reason"] = Value::Null;
    begun["stop_sequence"] = Value::Null;
    let mut usage: Object = reply.usage.clone();
    usage.retain(|name, _| !KNOWN_AT_THE_END.contains(&name.as_str()));
    let output = reply.usage.get("output_tokens").and_then(Value::as_u64).unwrap_or(1);
    usage.insert("output_tokens".to_owned(), json!(output.min(1)));
    begun["usage"] = Value::Object(usage);
    event(json!({"type": "message_start", "message": begun}), false, false)
}

fn block_events(index: usize, block: &Value, chunk_bytes: usize, events: &mut Vec<Event>) {
    let kind = block["type"].as_str().unwrap_or_default();
    let mut begun = block.clone();
    let mut deltas = Vec::new();
    let mut grow = |delta: &str, field: &str, text: &Value| {
        let text = text.as_str().unwrap_or_default();
        deltas.extend(chunks(text, chunk_bytes).map(|chunk| json!({"type": delta, field: chunk})));
    };
    match kind {
        "text" => {
            begun["text"] = json!("");
            grow("text_delta", "text", &block["text"]);
            if let Some(citations) = block["citations"].as_array() {
                begun["citations"] = json!([]);
                deltas
                    .extend(citations.iter().map(|one| json!({"type": "citations_delta", "citation": one})));
            }
        }
        "thinking" => {
            begun["thinking"] = json!("");
            begun["signature"] = json!("");
            grow("thinking_delta", "thinking", &block["thinking"]);
            if let Some(signature) = block["signature"].as_str().filter(|signature| !signature.is_empty()) {
                deltas.push(json!({"type": "signature_delta", "signature": signature}));
            }
        }
        "tool_use" | "server_tool_use" | "mcp_tool_use" => {
            begun["input"] = json!({});
            // The API's first piece of an input is always empty.
            let input = block["input"].to_string();
            let pieces = std::iter::once("").chain(chunks(&input, chunk_bytes));
            deltas.extend(pieces.map(|piece| json!({"type": "input_json_delta", "partial_json": piece})));
        }
        // Blocks that come whole: redacted thinking, results of server tools, types of tomorrow.
        _ => (),
    }
    events.push(event(
        json!({"type": "content_block_start", "index": index, "content_block": begun}),
        false,
        false,
    ));
    for delta in deltas {
        events.push(event(
            json!({"type": "content_block_delta", "index": index, "delta": delta}),
            true,
            false,
        ));
    }
    events.push(event(json!({"type": "content_block_stop", "index": index}), false, true));
}

fn ping() -> Event {
    event(json!({"type": "ping"}), false, false)
}

fn event(data: Value, is_delta: bool, is_stop: bool) -> Event {
    let name = data["type"].as_str().unwrap_or_default();
    Event { bytes: format!("event: {name}\ndata: {data}\n\n"), is_delta, is_stop }
}

/// Cuts a text into chunks of at most `bytes`, never inside a character (a wider character is a chunk of its own).
fn chunks(text: &str, bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.floor_char_boundary(bytes);
        if end == 0 {
            end = rest.ceil_char_boundary(1);
        }
        let (chunk, left) = rest.split_at(end);
        rest = left;
        Some(chunk)
    })
}
