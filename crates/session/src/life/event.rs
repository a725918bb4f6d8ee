//! The rows of a session's log: complete events of the Managed Agents API.

use jiff::Timestamp;
use serde_json::{Value, json};
use wardian_protocol::{EventId, JsonMap, NanoUsd};

use super::{Context, Output, Rules, Usage};

/// A row: an event as a client sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The event.
    pub id: EventId,
    /// Its type.
    pub kind: &'static str,
    /// All of it.
    pub payload: Value,
}

impl Row {
    /// An event that is processed now.
    pub(super) fn processed(id: EventId, kind: &'static str, now: Timestamp, fields: Value) -> Self {
        Self::new(id, kind, json!(now), fields)
    }

    /// An event that was accepted and waits.
    pub(super) fn accepted(id: EventId, kind: &'static str, fields: Value) -> Self {
        Self::new(id, kind, Value::Null, fields)
    }

    fn new(id: EventId, kind: &'static str, processed_at: Value, fields: Value) -> Self {
        let mut payload = JsonMap::new();
        payload.insert("id".to_owned(), id.as_str().into());
        payload.insert("type".to_owned(), kind.into());
        if let Value::Object(fields) = fields {
            payload.extend(fields);
        }
        payload.insert("processed_at".to_owned(), processed_at);
        Self { id, kind, payload: Value::Object(payload) }
    }
}

impl Output {
    /// Adds an event that happens now.
    pub(super) fn event(&mut self, kind: &'static str, fields: Value, context: &mut Context<'_>) {
        let id = context.event_id();
        self.rows.push(Row::processed(id, kind, context.now, fields));
    }

    /// Adds a `session.error`.
    pub(super) fn error(&mut self, kind: &str, message: &str, retry_status: &str, context: &mut Context<'_>) {
        let error = json!({"type": kind, "message": message, "retry_status": {"type": retry_status}});
        self.event("session.error", json!({"error": error}), context);
    }
}

/// The fields of `session.usage`.
pub(super) fn usage(usage: &Usage, rules: &Rules) -> Value {
    let tokens = &usage.tokens;
    let snapshot = json!({
        "input_tokens": tokens.input_tokens,
        "output_tokens": tokens.output_tokens,
        "cache_read_input_tokens": tokens.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h_tokens,
        },
        "server_tool_use": {"web_search_requests": tokens.web_search_requests, "web_fetch_requests": 0},
        "list_cost": money(NanoUsd(usage.cost_nano)),
        "active_seconds": seconds(usage.active_ms),
    });
    json!({"usage": snapshot, "budget": rules.budget.map(budget)})
}

/// A budget as the API spells it.
#[must_use]
pub fn budget(limit: NanoUsd) -> Value {
    json!({"type": "limit", "max_list_cost": money(limit)})
}

/// An amount as the API spells it: cents as a decimal text.
#[must_use]
pub fn money(amount: NanoUsd) -> Value {
    json!({"amount": cents(amount), "currency": "USD"})
}

/// Nano-dollars as cents, exactly.
fn cents(amount: NanoUsd) -> String {
    const NANO_PER_CENT: i64 = 10_000_000;
    let (whole, part) = (amount.0 / NANO_PER_CENT, amount.0 % NANO_PER_CENT);
    if part == 0 {
        return whole.to_string();
    }
    let digits = format!("{part:07}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// Milliseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a duration for people: exact up to 285,000 years")]
pub(super) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// The content of a tool result as a list of blocks of the API; what it does not know becomes text.
pub(super) fn content(content: Value) -> Vec<Value> {
    match content {
        Value::Null => Vec::new(),
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        Value::Array(blocks) => blocks.into_iter().map(block).collect(),
        other => vec![json!({"type": "text", "text": other.to_string()})],
    }
}

fn block(block: Value) -> Value {
    match block.get("type").and_then(Value::as_str) {
        Some("text" | "image" | "document" | "search_result") => block,
        _ => json!({"type": "text", "text": block.to_string()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_cents_to_the_last_digit() {
        for (nano, expected) in
            [(0, "0"), (10_000_000, "1"), (1_250_000_000, "125"), (22_611_500, "2.26115"), (1, "0.0000001")]
        {
            assert_eq!(money(NanoUsd(nano)), json!({"amount": expected, "currency": "USD"}));
        }
    }

    #[test]
    fn results_are_blocks_that_a_client_knows() {
        assert_eq!(content(json!("done")), [json!({"type": "text", "text": "done"})]);
        assert_eq!(content(Value::Null), [] as [Value; 0]);
        let odd = json!([{"type": "tool_reference", "x": 1}, 7]);
        assert_eq!(
            content(odd),
            [
                json!({"type": "text", "text": "{\"type\":\"tool_reference\",\"x\":1}"}),
                json!({"type": "text", "text": "7"})
            ]
        );
    }
}
