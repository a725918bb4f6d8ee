//! What the document says of the routes that are this server's own.

use super::shape::{
    Shape, boolean, id, list, list_of, literal, map, named, nullable, number, object, one_of, opaque, text,
    text_of, time, whole, words,
};

/// All that has a name.
pub fn shapes() -> Vec<(&'static str, Shape)> {
    vec![
        ("Error", error()),
        ("RunRequest", run_request()),
        ("RunReport", run_report()),
        ("FileChange", object([("path", text()), ("kind", words(&["added", "modified", "deleted"]))])),
        ("TokenCounts", object(tokens())),
        ("UsageRow", usage_row()),
        ("Usage", object([("data", list(named("UsageRow"))), ("group_by", list(group()))])),
        ("RunSession", run_session()),
        (
            "ForgottenUser",
            object([
                ("id", text()),
                ("type", literal("user_forgotten")),
                ("sessions", whole(0)),
                ("files", whole(0)),
                ("keys", whole(0)),
            ]),
        ),
        ("Part", object([("status", words(&["ok", "failed", "unknown"]))])),
        (
            "Readiness",
            object([
                ("status", words(&["ready", "unready"])),
                ("store", named("Part")),
                ("sandbox", named("Part")),
                ("gateway", named("Part")),
                (
                    "canary?",
                    object([("status", words(&["ok", "failed", "unknown"])), ("over_budget", boolean())]),
                ),
            ]),
        ),
        ("Liveness", object([("status", literal("ok"))])),
    ]
}

fn error() -> Shape {
    object([
        ("type", literal("error")),
        ("error", object([("type", text()), ("message", text()), ("details?", opaque())])),
        ("request_id", id("req")),
    ])
}

fn run_request() -> Shape {
    let limits = object([
        ("max_turns?", nullable(whole(1))),
        ("max_cost_usd?", nullable(number())),
        ("timeout_seconds?", nullable(number())),
    ]);
    let path = || text_of(1, 1024);
    let file = one_of([
        object([("path", path()), ("content", text())]),
        object([("path", path()), ("content_base64", text())]),
    ]);
    object([
        ("prompt", text_of(1, 512 * 1024)),
        ("runtime?", nullable(words(&["wardian", "command"]))),
        ("command?", one_of([list_of(text(), 1, 256), super::shape::null()])),
        ("model?", nullable(text_of(1, 128))),
        ("system?", nullable(text())),
        ("allowed_tools?", one_of([list_of(text(), 0, 256), super::shape::null()])),
        ("files?", one_of([list_of(file, 0, 1000), super::shape::null()])),
        ("user?", nullable(text_of(1, 128))),
        ("limits?", nullable(limits)),
        ("session_id?", nullable(id("sesn"))),
        ("stream?", nullable(boolean())),
        ("on_disconnect?", nullable(words(&["cancel", "continue"]))),
    ])
}

fn tokens() -> [(&'static str, Shape); 5] {
    [
        ("input_tokens", whole(0)),
        ("output_tokens", whole(0)),
        ("cache_creation_input_tokens", whole(0)),
        ("cache_read_input_tokens", whole(0)),
        ("web_search_requests", whole(0)),
    ]
}

fn run_report() -> Shape {
    let [input, output, written, read, searches] = tokens();
    let spending =
        object([("requests", whole(0)), input, output, written, read, searches, ("cost_usd", number())]);
    object([
        ("session_id", id("sesn")),
        ("status", words(&["completed", "failed", "max_turns"])),
        ("result", nullable(text())),
        ("is_error", boolean()),
        ("exit_code?", whole(0)),
        ("stdout?", text()),
        ("stderr?", text()),
        ("stop_reason", nullable(text())),
        ("num_turns", whole(0)),
        ("usage", named("TokenCounts")),
        ("model_usage", map(spending)),
        ("cost_usd", number()),
        ("files_changed", list(named("FileChange"))),
        ("request_id", id("req")),
    ])
}

fn group() -> Shape {
    words(&["user", "session", "model", "day"])
}

fn usage_row() -> Shape {
    let [input, output, written, read, searches] = tokens();
    object([
        ("user?", nullable(text())),
        ("session_id?", nullable(id("sesn"))),
        ("model?", nullable(text())),
        ("day?", nullable(text())),
        ("requests", whole(0)),
        input,
        output,
        written,
        read,
        searches,
        (
            "cache_creation",
            object([("ephemeral_5m_input_tokens", whole(0)), ("ephemeral_1h_input_tokens", whole(0))]),
        ),
        ("cost_usd", number()),
        ("open_requests", whole(0)),
        ("reserved_usd", number()),
        ("inexact_requests", whole(0)),
        ("unpriced_requests", whole(0)),
    ])
}

fn run_session() -> Shape {
    object([
        ("id", id("sesn")),
        ("type", literal("session")),
        ("status", words(&["idle", "running", "rescheduling", "terminated"])),
        ("user", nullable(text())),
        ("runs", whole(0)),
        ("active_run", nullable(id("req"))),
        ("last_seq", whole(0)),
        ("created_at", time()),
        ("updated_at", time()),
        ("workspace?", text()),
    ])
}
