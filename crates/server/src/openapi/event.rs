//! What the document says of events.

use super::shape::{
    Shape, boolean, id, list, list_of, literal, map, named, nullable, number, object, one_of, opaque, tagged,
    text, text_of, time, whole, words,
};
use crate::wire::event::{IMAGE_TYPES, MAX_BLOCKS, MAX_DENY_BYTES, MAX_EVENTS};

/// All that has a name.
pub fn shapes() -> Vec<(&'static str, Shape)> {
    let mut shapes = blocks();
    shapes.extend(posted());
    shapes.extend(told());
    shapes
}

fn blocks() -> Vec<(&'static str, Shape)> {
    let base64 = |types: &[&str]| {
        tagged("base64", [("media_type", words(types)), ("data", text_of(1, usize::MAX >> 1))])
    };
    let plain =
        tagged("text", [("media_type", literal("text/plain")), ("data", text_of(1, usize::MAX >> 1))]);
    vec![
        ("TextBlock", tagged("text", [("text", text_of(1, 1024 * 1024))])),
        ("ImageBlock", tagged("image", [("source", base64(&IMAGE_TYPES))])),
        (
            "DocumentBlock",
            tagged(
                "document",
                [
                    ("source", one_of([base64(&["application/pdf"]), plain])),
                    ("title?", nullable(text())),
                    ("context?", nullable(text())),
                ],
            ),
        ),
        ("MessageBlock", one_of([named("TextBlock"), named("ImageBlock"), named("DocumentBlock")])),
        ("ToolResultBlock", one_of([named("TextBlock"), named("ImageBlock")])),
    ]
}

/// What a client sends.
fn posted() -> Vec<(&'static str, Shape)> {
    let message = || list_of(named("MessageBlock"), 1, MAX_BLOCKS);
    vec![
        ("UserMessageParams", tagged("user.message", [("content", message())])),
        (
            "EventParams",
            one_of([
                named("UserMessageParams"),
                tagged("user.interrupt", [("session_thread_id?", super::shape::null())]),
                tagged(
                    "user.tool_confirmation",
                    [
                        ("tool_use_id", id("sevt")),
                        ("result", literal("allow")),
                        ("deny_message?", super::shape::null()),
                    ],
                ),
                tagged(
                    "user.tool_confirmation",
                    [
                        ("tool_use_id", id("sevt")),
                        ("result", literal("deny")),
                        ("deny_message?", nullable(text_of(0, MAX_DENY_BYTES))),
                    ],
                ),
                tagged(
                    "user.custom_tool_result",
                    [
                        ("custom_tool_use_id", id("sevt")),
                        ("content?", nullable(list_of(named("ToolResultBlock"), 0, MAX_BLOCKS))),
                        ("is_error?", nullable(boolean())),
                    ],
                ),
            ]),
        ),
        ("SendEvents", object([("events", list_of(named("EventParams"), 1, MAX_EVENTS))])),
        ("SentEvents", object([("data", list(named("Event")))])),
    ]
}

/// What a session tells.
fn told() -> Vec<(&'static str, Shape)> {
    let done = || nullable(time());
    let event = |kind: &str| tagged(kind, [("id", id("sevt")), ("processed_at", time())]);
    let permission = || words(&["allow", "ask", "deny"]);
    let results = || list(named("AnyBlock"));
    vec![
        // What a tool gave may be of any kind that the Messages API knows.
        ("AnyBlock", opaque()),
        (
            "UserEvent",
            one_of([
                tagged(
                    "user.message",
                    [("id", id("sevt")), ("content", list(named("MessageBlock"))), ("processed_at", done())],
                ),
                tagged("user.interrupt", [("id", id("sevt")), ("processed_at", done())]),
                tagged(
                    "user.tool_confirmation",
                    [
                        ("id", id("sevt")),
                        ("tool_use_id", id("sevt")),
                        ("result", words(&["allow", "deny"])),
                        ("deny_message?", nullable(text())),
                        ("processed_at", done()),
                    ],
                ),
                tagged(
                    "user.custom_tool_result",
                    [
                        ("id", id("sevt")),
                        ("custom_tool_use_id", id("sevt")),
                        ("content?", list(named("ToolResultBlock"))),
                        ("is_error?", nullable(boolean())),
                        ("processed_at", done()),
                    ],
                ),
            ]),
        ),
        (
            "AgentEvent",
            one_of([
                tagged(
                    "agent.message",
                    [("id", id("sevt")), ("content", list(named("ToldText"))), ("processed_at", time())],
                ),
                event("agent.thinking"),
                tagged(
                    "agent.tool_use",
                    [
                        ("id", id("sevt")),
                        ("name", text()),
                        ("input", opaque()),
                        ("evaluated_permission?", permission()),
                        ("evaluation?", opaque()),
                        ("processed_at", time()),
                    ],
                ),
                tagged(
                    "agent.tool_result",
                    [
                        ("id", id("sevt")),
                        ("tool_use_id", id("sevt")),
                        ("content?", results()),
                        ("is_error?", nullable(boolean())),
                        ("processed_at", time()),
                    ],
                ),
                tagged(
                    "agent.mcp_tool_use",
                    [
                        ("id", id("sevt")),
                        ("mcp_server_name", text()),
                        ("name", text()),
                        ("input", opaque()),
                        ("evaluated_permission?", permission()),
                        ("evaluation?", opaque()),
                        ("processed_at", time()),
                    ],
                ),
                tagged(
                    "agent.mcp_tool_result",
                    [
                        ("id", id("sevt")),
                        ("mcp_tool_use_id", id("sevt")),
                        ("content?", results()),
                        ("is_error?", nullable(boolean())),
                        ("processed_at", time()),
                    ],
                ),
                tagged(
                    "agent.custom_tool_use",
                    [("id", id("sevt")), ("name", text()), ("input", opaque()), ("processed_at", time())],
                ),
                event("agent.thread_context_compacted"),
            ]),
        ),
        ("ToldText", tagged("text", [("text", text())])),
        ("SessionEvent", session_events()),
        (
            "SpanEvent",
            one_of([
                event("span.model_request_start"),
                tagged(
                    "span.model_request_end",
                    [
                        ("id", id("sevt")),
                        ("model_request_start_id", id("sevt")),
                        ("is_error", nullable(boolean())),
                        (
                            "model_usage",
                            object([
                                ("input_tokens", whole(0)),
                                ("output_tokens", whole(0)),
                                ("cache_creation_input_tokens", whole(0)),
                                ("cache_read_input_tokens", whole(0)),
                                ("speed?", nullable(words(&["standard", "fast"]))),
                            ]),
                        ),
                        ("processed_at", time()),
                    ],
                ),
            ]),
        ),
        (
            "Event",
            one_of([named("UserEvent"), named("AgentEvent"), named("SessionEvent"), named("SpanEvent")]),
        ),
        ("EventPage", object([("data", list(named("Event"))), ("next_page", nullable(text()))])),
    ]
}

fn session_events() -> Shape {
    let event = |kind: &str| tagged(kind, [("id", id("sevt")), ("processed_at", time())]);
    let plain = |kind: &str| tagged(kind, []);
    one_of([
        event("session.status_running"),
        tagged(
            "session.status_idle",
            [
                ("id", id("sevt")),
                (
                    "stop_reason",
                    one_of([
                        plain("end_turn"),
                        tagged("requires_action", [("event_ids", list(id("sevt")))]),
                        plain("retries_exhausted"),
                        plain("budget_reached"),
                        plain("refusal"),
                    ]),
                ),
                (
                    "stop_details",
                    nullable(tagged(
                        "refusal",
                        [("category", nullable(text())), ("explanation", nullable(text()))],
                    )),
                ),
                ("processed_at", time()),
            ],
        ),
        event("session.status_rescheduled"),
        event("session.status_terminated"),
        event("session.deleted"),
        tagged(
            "session.error",
            [
                ("id", id("sevt")),
                (
                    "error",
                    object([
                        ("type", text()),
                        ("message", text()),
                        ("retry_status", object([("type", words(&["retrying", "exhausted", "terminal"]))])),
                    ]),
                ),
                ("processed_at", time()),
            ],
        ),
        tagged(
            "session.updated",
            [
                ("id", id("sevt")),
                ("agent?", nullable(named("SessionAgent"))),
                ("budget?", nullable(named("Budget"))),
                ("metadata?", map(text())),
                ("title?", nullable(text())),
                ("processed_at", time()),
            ],
        ),
        tagged(
            "session.usage",
            [
                ("id", id("sevt")),
                ("usage", named("SessionUsage")),
                ("budget?", nullable(named("Budget"))),
                ("processed_at", time()),
            ],
        ),
    ])
}

/// What the document says of the money and tokens of a session.
pub fn usage_shapes() -> Vec<(&'static str, Shape)> {
    vec![
        (
            "Amount",
            object([
                ("amount", super::shape::pattern("^(0|[1-9][0-9]{0,15})$")),
                ("currency", literal("USD")),
            ]),
        ),
        (
            "Budget",
            tagged(
                "limit",
                [(
                    "max_list_cost",
                    object([
                        ("amount", super::shape::pattern("^([1-9][0-9]{0,7}|100000000)$")),
                        ("currency", literal("USD")),
                    ]),
                )],
            ),
        ),
        (
            "SessionUsage",
            object([
                ("input_tokens?", whole(0)),
                ("output_tokens?", whole(0)),
                ("cache_read_input_tokens?", whole(0)),
                (
                    "cache_creation?",
                    object([
                        ("ephemeral_5m_input_tokens", whole(0)),
                        ("ephemeral_1h_input_tokens", whole(0)),
                    ]),
                ),
                ("active_seconds?", number()),
                ("list_cost?", named("Amount")),
                (
                    "server_tool_use?",
                    object([("web_search_requests", whole(0)), ("web_fetch_requests", whole(0))]),
                ),
            ]),
        ),
    ]
}
