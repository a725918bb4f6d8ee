//! The same costs computed by `tests/oracle.py`, a second program in another language with other arithmetic.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wardian_ledger::PriceTable;
use wardian_protocol::Message;
use wardian_protocol::sse::SseDecoder;
use wardian_protocol::stream::{Assembler, StreamEvent};

const MODELS: [&str; 8] = [
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-fable-5-2",
    "claude-haiku-4-5-20251001",
    "claude-opus-4-6",
    "claude-mythos-preview",
    "claude-sonnet-77",
];

fn ask(cases: &[Value]) -> Vec<i64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle.py");
    let mut python = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed for the second opinion");
    let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
    let mut stdin = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

/// Usage shapes with counts that make every rounding and tier come up.
fn usages() -> Vec<Value> {
    let mut shapes = vec![json!({}), json!({"output_tokens": 1}), json!({"cache_read_input_tokens": 1})];
    for seed in 1..60_u64 {
        let some = |salt: u64, most: u64| {
            seed.wrapping_mul(6_364_136_223_846_793_005).rotate_left(17) % (most + salt)
        };
        let mut usage = json!({
            "input_tokens": some(1, 70_000), "output_tokens": some(2, 9_000),
            "cache_read_input_tokens": some(3, 90_000), "cache_creation_input_tokens": some(4, 20_000) + some(5, 7_000),
            "output_tokens_details": {"thinking_tokens": 5},
        });
        if seed % 3 == 0 {
            usage["cache_creation"] = json!({"ephemeral_5m_input_tokens": some(4, 20_000),
                "ephemeral_1h_input_tokens": some(5, 7_000)});
        }
        usage["speed"] = [Value::Null, json!("fast"), json!("standard")][seed as usize % 3].clone();
        usage["inference_geo"] = [Value::Null, json!("us"), json!("global")][seed as usize / 3 % 3].clone();
        usage["service_tier"] =
            [json!("standard"), json!("batch"), Value::Null][seed as usize / 9 % 3].clone();
        if seed % 4 == 0 {
            usage["server_tool_use"] = json!({"web_search_requests": seed % 5});
        }
        if seed % 7 == 0 {
            let first = json!({"type": "message", "input_tokens": usage["input_tokens"],
                "output_tokens": usage["output_tokens"], "cache_read_input_tokens": usage["cache_read_input_tokens"],
                "cache_creation_input_tokens": usage["cache_creation_input_tokens"],
                "cache_creation": usage["cache_creation"]});
            usage["iterations"] = json!([first,
                {"type": "advisor_message", "model": "claude-fable-5-2", "input_tokens": 1_001, "output_tokens": 7},
                {"type": "compaction", "input_tokens": 150_000, "output_tokens": 333}]);
        }
        shapes.push(usage);
    }
    shapes
}

#[test]
fn json_replies_cost_the_same() {
    let table = PriceTable::embedded();
    let mut cases = Vec::new();
    let mut ours = Vec::new();
    for model in MODELS {
        for at in ["2026-10-06", "2026-11-22"] {
            for usage in usages() {
                ours.push(table.cost(model, &serde_json::from_value(usage.clone()).unwrap(), at).nano.0);
                cases.push(json!({"model": model, "usage": usage, "at": at}));
            }
        }
    }
    let theirs = ask(&cases);
    assert_eq!(theirs.len(), ours.len());
    for ((case, theirs), ours) in cases.iter().zip(theirs).zip(ours) {
        assert_eq!(ours, theirs, "{case}");
    }
}

/// A streamed reply with that usage at its end, in one of the ways that servers are known to split it up.
fn stream(model: &str, usage: &Value, way: usize) -> String {
    let mut start = usage.clone();
    start["output_tokens"] = json!(1.min(usage["output_tokens"].as_u64().unwrap_or(0)));
    start.as_object_mut().unwrap().remove("iterations");
    let (start, end) = match way {
        // Cumulative: everything twice.
        0 => (start, usage.clone()),
        // The input classes come back as zero, or null, or not at all.
        1 => {
            let mut end = usage.clone();
            end["input_tokens"] = json!(0);
            end["cache_read_input_tokens"] = Value::Null;
            end.as_object_mut().unwrap().remove("cache_creation");
            end.as_object_mut().unwrap().remove("cache_creation_input_tokens");
            (start, end)
        }
        // Usage only at the end.
        _ => (json!({}), usage.clone()),
    };
    let events = [
        (
            "message_start",
            json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
            "role": "assistant", "model": model, "content": [], "usage": start}}),
        ),
        ("ping", json!({"type": "ping"})),
        (
            "content_block_start",
            json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}),
        ),
        (
            "content_block_delta",
            json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": "data: höre\n\ndata: {}"}}),
        ),
        ("content_block_stop", json!({"type": "content_block_stop", "index": 0})),
        (
            "message_delta",
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end}),
        ),
        ("message_stop", json!({"type": "message_stop"})),
    ];
    events.iter().map(|(name, data)| format!("event: {name}\ndata: {data}\n\n")).collect()
}

fn assemble(text: &str, chunk: usize) -> Message {
    let mut decoder = SseDecoder::default();
    let mut events = Vec::new();
    for bytes in text.as_bytes().chunks(chunk) {
        decoder.feed(bytes, &mut events).unwrap();
    }
    let mut reply = Assembler::default();
    for event in &events {
        reply.push(&StreamEvent::parse(event).unwrap()).unwrap();
    }
    reply.finish().unwrap()
}

#[test]
fn streamed_replies_cost_the_same_as_json_ones() {
    let table = PriceTable::embedded();
    let mut cases = Vec::new();
    let mut ours = Vec::new();
    for model in MODELS {
        for (place, usage) in usages().into_iter().enumerate() {
            let text = stream(model, &usage, place % 3);
            let reply = assemble(&text, 1 + place);
            let cost = table.cost(&reply.model, &reply.usage, "2026-11-22");
            let json_cost = table.cost(model, &serde_json::from_value(usage).unwrap(), "2026-11-22");
            assert_eq!(cost, json_cost, "{text}");
            ours.push(cost.nano.0);
            cases.push(json!({"sse": text, "at": "2026-11-22"}));
        }
    }
    for ((case, theirs), ours) in cases.iter().zip(ask(&cases)).zip(ours) {
        assert_eq!(ours, theirs, "{case}");
    }
}
