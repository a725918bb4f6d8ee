//! Events that a client posts: what is taken, checked block by block, and what is refused by name.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use wardian_protocol::EventId;
use wardian_session::{Confirmation, FieldError, UserEvent};

use super::Fields;

/// Events in one request: as many as the stock API takes when a session is made.
pub const MAX_EVENTS: usize = 50;
/// Blocks in one event: more than a person or a tool says at once.
pub const MAX_BLOCKS: usize = 100;
/// Text in one event: about a quarter of a million tokens, more than a model reads at once.
const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Base64 of the images and documents of one event: what the Messages API takes of one image, and room in a stored event.
const MAX_MEDIA_BYTES: usize = 7 * 1024 * 1024;
/// All of one request's text and media: what the store takes at once, with room for escaping.
const MAX_REQUEST_BYTES: usize = 12 * 1024 * 1024;
/// Why a call was denied, as the agent reads it.
pub const MAX_DENY_BYTES: usize = 10_000;
/// Errors of one request that are told; who makes more has another problem.
const MAX_ERRORS: usize = 20;

/// The kinds of images that models read.
pub const IMAGE_TYPES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];
/// What can be posted.
const KNOWN: [&str; 4] =
    ["user.message", "user.interrupt", "user.tool_confirmation", "user.custom_tool_result"];
/// What the stock client can post and this server does not do, with the reason.
const UNSUPPORTED: [(&str, &str); 3] = [
    ("user.define_outcome", "outcomes are not evaluated by this server; say in a message what you expect"),
    ("user.tool_result", "it belongs to self-hosted environments; this server runs the tools itself"),
    ("system.message", "a system prompt cannot be added to a session; it belongs to the agent"),
];

/// All types of events that the API knows, whether a session of this server has them or not.
pub const EVENT_TYPES: [&str; 41] = [
    "user.message",
    "user.interrupt",
    "user.tool_confirmation",
    "user.custom_tool_result",
    "agent.custom_tool_use",
    "agent.message",
    "agent.thinking",
    "agent.mcp_tool_use",
    "agent.mcp_tool_result",
    "agent.tool_use",
    "agent.tool_result",
    "agent.thread_message_received",
    "agent.thread_message_sent",
    "agent.thread_context_compacted",
    "session.error",
    "session.status_rescheduled",
    "session.status_running",
    "session.status_idle",
    "session.status_terminated",
    "session.thread_created",
    "span.outcome_evaluation_start",
    "span.outcome_evaluation_end",
    "span.model_request_start",
    "span.model_request_end",
    "span.outcome_evaluation_ongoing",
    "user.define_outcome",
    "session.thread_status_running",
    "session.thread_status_idle",
    "session.thread_status_terminated",
    "user.tool_result",
    "session.thread_status_rescheduled",
    "session.updated",
    "system.message",
    "session.usage",
    "workflow_run.created",
    "workflow_run.status_running",
    "workflow_run.status_idle",
    "workflow_run.status_ended",
    "workflow_run.error",
    "workflow_run.phase_started",
    "workflow_run.phase_ended",
];

/// Which events are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Those that a session begins with: messages.
    Initial,
    /// All.
    Posted,
}

/// Reads `{"events": […]}`.
pub fn read_send(body: Value) -> Result<Vec<UserEvent>, Vec<FieldError>> {
    let mut errors = Vec::new();
    let list = Fields::of(body, "", &mut errors).and_then(|mut fields| {
        let list = fields.list("events");
        if list.as_ref().is_none_or(Vec::is_empty) {
            fields.error("events", format!("expected 1 to {MAX_EVENTS} events"));
        }
        fields.finish();
        list
    });
    let events = read_events(list.unwrap_or_default(), "events", Taken::Posted, &mut errors);
    if errors.is_empty() { Ok(events) } else { Err(errors) }
}

/// Reads a list of events that stands in the field `name`.
pub fn read_events(
    list: Vec<Value>,
    name: &str,
    taken: Taken,
    errors: &mut Vec<FieldError>,
) -> Vec<UserEvent> {
    if list.len() > MAX_EVENTS {
        let message = format!("{} events; the limit is {MAX_EVENTS} in one request", list.len());
        errors.push(FieldError::new(name, message));
        return Vec::new();
    }
    let mut read = Vec::with_capacity(list.len());
    let mut size = Size::default();
    for (index, value) in list.into_iter().enumerate() {
        if errors.len() >= MAX_ERRORS {
            break;
        }
        let place = format!("{name}[{index}].");
        size.text = 0;
        size.media = 0;
        read.extend(read_event(value, &place, taken, &mut size, errors));
    }
    if size.all > MAX_REQUEST_BYTES {
        let message = format!("{} bytes of text and media; the limit is {MAX_REQUEST_BYTES}", size.all);
        errors.push(FieldError::new(name, message));
    }
    read
}

/// What one event has, and all of them together.
#[derive(Debug, Default)]
struct Size {
    text: usize,
    media: usize,
    all: usize,
}

fn read_event(
    value: Value,
    place: &str,
    taken: Taken,
    size: &mut Size,
    errors: &mut Vec<FieldError>,
) -> Option<UserEvent> {
    let mut content_errors = Vec::new();
    let mut fields = Fields::of(value, place, errors)?;
    let kind = fields.string("type");
    let event = match kind.as_deref() {
        Some("user.message") => {
            let blocks = fields.list("content");
            if blocks.as_ref().is_none_or(Vec::is_empty) {
                fields.error("content", "expected a list of at least one block");
            }
            let content =
                read_blocks(blocks.unwrap_or_default(), place, Blocks::Message, size, &mut content_errors);
            Some(UserEvent::Message { content })
        }
        Some(kind) if taken == Taken::Initial && KNOWN.contains(&kind) => {
            fields.error("type", "a session begins with events of type `user.message` only");
            return None;
        }
        Some("user.interrupt") => {
            if fields.value("session_thread_id").is_some() {
                fields.error("session_thread_id", "threads are not supported; leave it out");
            }
            Some(UserEvent::Interrupt)
        }
        Some("user.tool_confirmation") => read_confirmation(&mut fields),
        Some("user.custom_tool_result") => {
            let id = event_id(&mut fields, "custom_tool_use_id");
            let blocks = fields.list("content").unwrap_or_default();
            let is_error = fields.boolean("is_error").unwrap_or(false);
            let content = read_blocks(blocks, place, Blocks::ToolResult, size, &mut content_errors);
            id.map(|custom_tool_use_id| UserEvent::CustomToolResult { custom_tool_use_id, content, is_error })
        }
        other => {
            fields.error("type", wrong_type(other));
            return None;
        }
    };
    fields.finish();
    errors.append(&mut content_errors);
    event
}

fn wrong_type(found: Option<&str>) -> String {
    let known = KNOWN.map(|known| format!("`{known}`")).join(", ");
    let Some(found) = found else { return format!("expected one of {known}") };
    match UNSUPPORTED.iter().find(|(kind, _)| *kind == found) {
        Some((kind, why)) => format!("`{kind}` is not supported: {why}"),
        None => {
            let shown: String = found.chars().take(40).collect();
            format!("{shown:?}: expected one of {known}")
        }
    }
}

fn event_id(fields: &mut Fields<'_>, name: &'static str) -> Option<EventId> {
    const EXPECTED: &str = "the id of the event with the call, `sevt_…`";
    match fields.value(name) {
        None => fields.error(name, format!("expected {EXPECTED}")),
        Some(value) => {
            let id = value.as_str().and_then(|text| text.parse().ok());
            if id.is_none() {
                fields.error(name, format!("expected {EXPECTED}"));
            }
            return id;
        }
    }
    None
}

fn read_confirmation(fields: &mut Fields<'_>) -> Option<UserEvent> {
    let id = event_id(fields, "tool_use_id");
    let allow = fields.word("result", &[("allow", true), ("deny", false)]);
    let message = fields.string("deny_message");
    if allow.is_none() && !fields.failed("result") {
        fields.error("result", "expected `allow` or `deny`");
    }
    if message.as_ref().is_some_and(|message| message.len() > MAX_DENY_BYTES) {
        fields.error("deny_message", format!("over {MAX_DENY_BYTES} bytes"));
    }
    if allow == Some(true) && message.is_some() {
        fields.error("deny_message", "only a denial has one");
    }
    let result = if allow? { Confirmation::Allow } else { Confirmation::Deny { message } };
    Some(UserEvent::ToolConfirmation { tool_use_id: id?, result })
}

/// Where blocks stand: a message takes documents, a tool's result goes through a protocol that has text and images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    Message,
    ToolResult,
}

/// Checks blocks and returns them as they came.
fn read_blocks(
    blocks: Vec<Value>,
    place: &str,
    kind: Blocks,
    size: &mut Size,
    errors: &mut Vec<FieldError>,
) -> Vec<Value> {
    let name = format!("{place}content");
    if blocks.len() > MAX_BLOCKS {
        errors.push(FieldError::new(name, format!("{} blocks; the limit is {MAX_BLOCKS}", blocks.len())));
        return Vec::new();
    }
    for (index, block) in blocks.iter().enumerate() {
        if errors.len() < MAX_ERRORS {
            check_block(block.clone(), &format!("{name}[{index}]."), kind, size, errors);
        }
    }
    for (found, limit, what) in [(size.text, MAX_TEXT_BYTES, "text"), (size.media, MAX_MEDIA_BYTES, "base64")]
    {
        if found > limit {
            errors.push(FieldError::new(
                name.clone(),
                format!("{found} bytes of {what}; the limit is {limit}"),
            ));
        }
    }
    size.all += size.text + size.media;
    blocks
}

fn check_block(value: Value, place: &str, kind: Blocks, size: &mut Size, errors: &mut Vec<FieldError>) {
    let mut source_errors = Vec::new();
    let Some(mut fields) = Fields::of(value, place, errors) else { return };
    match (fields.string("type").as_deref(), kind) {
        (Some("text"), _) => check_text(&mut fields, "text", size),
        (Some("image"), _) => {
            let source = fields.value("source").unwrap_or_default();
            check_source(source, place, &IMAGE_TYPES, size, &mut source_errors);
        }
        (Some("document"), Blocks::Message) => {
            let source = fields.value("source").unwrap_or_default();
            check_source(source, place, &["application/pdf", "text/plain"], size, &mut source_errors);
            for name in ["title", "context"] {
                if let Some(text) = fields.string(name) {
                    size.text += text.len();
                }
            }
        }
        (Some(known @ ("document" | "search_result")), _) => {
            let message = format!("blocks of type `{known}` are not supported here; send text");
            fields.error("type", message);
            return;
        }
        (Some("redacted"), _) => {
            fields.error("type", "`redacted` stands for what is not shown; it cannot be sent");
            return;
        }
        (found, _) => {
            let shown: String = found.unwrap_or_default().chars().take(40).collect();
            let known = if kind == Blocks::Message { "text, image, document" } else { "text, image" };
            fields.error("type", format!("{shown:?}: expected one of {known}"));
            return;
        }
    }
    fields.finish();
    errors.append(&mut source_errors);
}

fn check_text(fields: &mut Fields<'_>, name: &'static str, size: &mut Size) {
    match fields.string(name) {
        Some(text) if !text.is_empty() => size.text += text.len(),
        Some(_) => fields.error(name, "expected a text that is not empty"),
        None if fields.failed(name) => (),
        None => fields.error(name, "expected a text"),
    }
}

/// Checks where an image or a document comes from. Nothing is fetched for a sandbox that has no network.
fn check_source(value: Value, place: &str, types: &[&str], size: &mut Size, errors: &mut Vec<FieldError>) {
    let place = format!("{place}source.");
    let Some(mut fields) = Fields::of(value, &place, errors) else { return };
    match fields.string("type").as_deref() {
        Some("base64") => {
            let media = fields.string("media_type").unwrap_or_default();
            if !types.contains(&media.as_str()) || media == "text/plain" {
                let known: Vec<_> = types.iter().filter(|known| **known != "text/plain").copied().collect();
                fields.error("media_type", format!("expected one of {}", known.join(", ")));
            }
            let data = fields.string("data").unwrap_or_default();
            size.media += data.len();
            if data.is_empty() || BASE64_STANDARD.decode(data.as_bytes()).is_err() {
                fields.error("data", "expected base64 with padding");
            }
        }
        Some("text") if types.contains(&"text/plain") => {
            if fields.string("media_type").as_deref() != Some("text/plain") {
                fields.error("media_type", "expected text/plain");
            }
            check_text(&mut fields, "data", size);
        }
        Some(known @ ("url" | "file")) => {
            let message = format!("sources of type `{known}` are not supported; send the bytes as `base64`");
            fields.error("type", message);
            return;
        }
        found => {
            let shown: String = found.unwrap_or_default().chars().take(40).collect();
            fields.error("type", format!("{shown:?}: expected `base64`"));
            return;
        }
    }
    fields.finish();
}

#[cfg(test)]
mod tests;
