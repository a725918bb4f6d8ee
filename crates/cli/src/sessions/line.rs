//! A line for an event. Agents and clients wrote the texts: they neither steer the terminal nor break the line.

use jiff::Timestamp;
use serde_json::Value;
use wardian_store::EventRow;

use crate::show::{brief, printable};

/// The longest text in a cell of a table.
const CELL_CHARS: usize = 40;

/// The longest text in a line.
const TEXT_CHARS: usize = 200;

/// When, where, what, and what about.
pub fn of(row: &EventRow, event: &Value) -> String {
    let about = about(event);
    let line = format!("{}  {:>6}  {:<28}  {about}", time(row.at), row.seq, row.kind);
    line.trim_end().to_owned()
}

/// A moment, to the second.
pub fn time(at: Timestamp) -> String {
    let text = at.to_string();
    let second = text.split(['.', 'Z']).next().unwrap_or_default();
    format!("{second}Z")
}

/// A text as it fits into a cell.
pub fn short(text: &str) -> String {
    cut(text, CELL_CHARS)
}

fn cut(text: &str, most: usize) -> String {
    let line = printable(text).replace('\n', " ⏎ ").replace('\t', " ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most).chain(['…']).collect()
}

/// What an event is about: what is said, which tool with what, why it stopped, what went wrong, what it cost.
fn about(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let said = event["content"].as_array().into_iter().flatten().filter_map(|block| block["text"].as_str());
    let said: Vec<&str> = said.collect();
    let mut parts = Vec::new();
    parts.extend(text("/name").map(|name| cut(name, CELL_CHARS)));
    if event["input"].is_object() {
        parts.push(brief(&event["input"]));
    }
    if event["is_error"] == true {
        parts.push("failed".to_owned());
    }
    parts.extend(text("/stop_reason/type").or_else(|| text("/result")).map(|why| cut(why, CELL_CHARS)));
    parts.extend(text("/error/type").map(|kind| cut(kind, CELL_CHARS)));
    parts.extend(text("/error/message").map(|message| cut(message, TEXT_CHARS)));
    parts.extend(event.pointer("/model_usage/output_tokens").map(|tokens| format!("{tokens} tokens out")));
    if !said.is_empty() {
        parts.push(cut(&said.join("\n"), TEXT_CHARS));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use wardian_protocol::EventId;

    use super::*;

    fn line(event: &Value) -> String {
        let row = EventRow {
            seq: 7,
            first_seq: 7,
            id: EventId::from_random([1; 16]),
            kind: Arc::from("agent.message"),
            at: Timestamp::from_millisecond(1_764_000_000_123).unwrap(),
            payload: Arc::from(""),
        };
        of(&row, event)
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let said = line(&json!({"content": [{"type": "text", "text": "Hello.\nYou."}]}));
        assert_eq!(said, "2025-11-24T16:00:00Z       7  agent.message                 Hello. ⏎ You.");
        let call = line(&json!({"name": "bash", "input": {"command": "ls"}}));
        assert!(call.ends_with("bash  ls"), "{call}");
        for (event, end) in [
            (json!({"is_error": true}), "failed"),
            (json!({"stop_reason": {"type": "end_turn"}}), "end_turn"),
            (json!({"error": {"type": "billing_error", "message": "no money"}}), "billing_error  no money"),
            (json!({"model_usage": {"output_tokens": 5}}), "5 tokens out"),
            (json!({"name": "x".repeat(10_000), "content": [{"text": "y".repeat(10_000)}]}), "…"),
            (json!(null), "agent.message"),
            (json!([1]), "agent.message"),
            (json!({"content": "text", "input": 3, "error": [], "name": {}}), "agent.message"),
        ] {
            let line = line(&event);
            assert!(line.ends_with(end) && line.chars().count() < 500, "{end}: {line}");
        }
        let hostile =
            line(&json!({"content": [{"text": "\u{1b}[2J\r\u{9b}31m\u{7}"}], "name": "\u{1b}]0;x\n"}));
        assert!(!hostile.contains(char::is_control), "{hostile:?}");
    }
}
