//! The body of a model request. What one request says, the next one says again byte for byte before it adds to it:
//! prompt caches live on that.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use wardian_protocol::{ContentBlock, JsonMap, MessageParam, Role};

use crate::Thinking;
use crate::authorise::lock;
use crate::models::{self, LONG_BETA};
use crate::prompt::DYNAMIC_BOUNDARY;
use crate::session::Setup;

/// The least that may be thought, where a budget is set. source: the Messages API.
const MIN_THINKING_TOKENS: u64 = 1_024;

/// A request as it goes out.
#[derive(Clone, Debug)]
pub(crate) struct ModelRequest {
    pub(crate) body: Bytes,
    /// The model that is asked, by its name with its suffix.
    pub(crate) model: String,
}

impl ModelRequest {
    /// The headers of this request, besides those of all.
    pub(crate) fn headers(&self, all: &HeaderMap) -> HeaderMap {
        let mut headers = all.clone();
        if models::is_long(&self.model) {
            headers.insert(BETA_HEADER, HeaderValue::from_static(LONG_BETA));
        }
        headers
    }
}

/// Opens what the API does not do for everybody.
pub(crate) const BETA_HEADER: &str = "anthropic-beta";

/// Takes what a user wants in each request into a body, in the place of what is there. Replies are read as streams.
pub(crate) fn extend(body: &mut Value, extra: &JsonMap) {
    for (name, value) in extra.iter().filter(|(name, _)| *name != "stream") {
        body[name] = value.clone();
    }
}

/// What a request is made of.
#[derive(Clone, Copy, Debug)]
struct Parts<'a> {
    model: &'a str,
    max_tokens: u64,
    system: &'a [String],
    tools: &'a [Value],
    history: &'a [MessageParam],
    thinking: Thinking,
    thinking_display: Option<&'a str>,
    effort: Option<&'a str>,
    task_budget: Option<u64>,
    session_id: &'a str,
    /// What the user wants in each request.
    extra: &'a JsonMap,
}

/// Writes the body.
fn body(parts: &Parts<'_>) -> Bytes {
    let mut tools = parts.tools.to_vec();
    if parts.system.is_empty()
        // The API takes no breakpoint on what is loaded later, and what is loaded later comes after it anyway.
        && let Some(Value::Object(last)) = tools.iter_mut().rfind(|tool| tool["defer_loading"] != true)
    {
        last.insert("cache_control".to_owned(), breakpoint());
    }
    let body = Body {
        model: models::api_name(parts.model),
        max_tokens: parts.max_tokens,
        stream: true,
        system: system(parts.system),
        tools,
        thinking: thinking(parts),
        output_config: output_config(parts),
        metadata: json!({"user_id": json!({"session_id": parts.session_id}).to_string()}),
        messages: Messages(parts.history),
    };
    let written = if parts.extra.is_empty() {
        serde_json::to_vec(&body)
    } else {
        serde_json::to_value(&body).and_then(|mut body| {
            extend(&mut body, parts.extra);
            serde_json::to_vec(&body)
        })
    };
    written.expect("values and strings serialise, and memory does not fail").into()
}

impl Setup {
    /// The next request of a conversation.
    pub(crate) fn request(&self, model: &str, max_tokens: u64, history: &[MessageParam]) -> ModelRequest {
        let (thinking, effort) = {
            let live = lock(&self.live);
            // A subagent has its own.
            let effort = live.effort.clone().filter(|_| self.out.agent.is_none());
            (live.thinking.unwrap_or(self.thinking), effort.or_else(|| self.effort.clone()))
        };
        let body = body(&Parts {
            model,
            max_tokens,
            system: &self.system,
            tools: &self.definitions,
            history,
            thinking,
            thinking_display: self.thinking_display.as_deref(),
            effort: effort.as_deref(),
            task_budget: self.task_budget,
            session_id: &self.out.session_id,
            extra: &self.extra_body,
        });
        ModelRequest { body, model: model.to_owned() }
    }
}

fn thinking(parts: &Parts<'_>) -> Option<Value> {
    let mut thinking = match parts.thinking {
        Thinking::Unset => return None,
        Thinking::Adaptive => json!({"type": "adaptive"}),
        Thinking::Budget(tokens) => {
            // A summary, or what a budget leaves, may have less room than was meant for thinking alone.
            let room = parts.max_tokens.saturating_sub(1);
            if tokens > room && room < MIN_THINKING_TOKENS {
                return Some(json!({"type": "disabled"}));
            }
            json!({"type": "enabled", "budget_tokens": tokens.min(room)})
        }
        Thinking::Disabled => return Some(json!({"type": "disabled"})),
    };
    if let Some(display) = parts.thinking_display {
        thinking["display"] = display.into();
    }
    Some(thinking)
}

fn output_config(parts: &Parts<'_>) -> Option<Value> {
    let mut config = JsonMap::new();
    config.extend(parts.effort.map(|effort| ("effort".to_owned(), effort.into())));
    let budget = parts.task_budget.map(|total| json!({"type": "tokens", "total": total}));
    config.extend(budget.map(|budget| ("task_budget".to_owned(), budget)));
    (!config.is_empty()).then_some(Value::Object(config))
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u64,
    stream: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<Value>,
    metadata: Value,
    messages: Messages<'a>,
}

/// The system prompt with its cache breakpoints: one at the end, and one where what is the same in every session ends.
fn system(texts: &[String]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut is_parted = false;
    for text in texts {
        if text != DYNAMIC_BOUNDARY {
            blocks.push(json!({"type": "text", "text": text}));
        } else if !std::mem::replace(&mut is_parted, true)
            && let Some(last) = blocks.last_mut()
        {
            last["cache_control"] = breakpoint();
        }
    }
    if let Some(last) = blocks.last_mut() {
        last["cache_control"] = breakpoint();
    }
    blocks
}

/// The history with its cache breakpoints: one at the end, and one where the last request ended, so that the cache is
/// found even when a turn added more blocks than the API looks back.
struct Messages<'a>(&'a [MessageParam]);

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut user_messages =
            self.0.iter().enumerate().rev().filter(|(_, message)| message.role == Role::User);
        let marked = [user_messages.next(), user_messages.next()].map(|found| found.map(|(index, _)| index));
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        for (index, message) in self.0.iter().enumerate() {
            if marked.contains(&Some(index)) {
                sequence.serialize_element(&with_breakpoint(message))?;
            } else {
                sequence.serialize_element(message)?;
            }
        }
        sequence.end()
    }
}

fn with_breakpoint(message: &MessageParam) -> MessageParam {
    let mut message = message.clone();
    if let Some(extra) = message.content.last_mut().and_then(extra_of) {
        extra.insert("cache_control".to_owned(), breakpoint());
    }
    message
}

/// Takes out the cache breakpoints of a prompt: the API allows four, and ours must be among them.
pub(crate) fn without_breakpoints(content: &mut [ContentBlock]) {
    for extra in content.iter_mut().filter_map(extra_of) {
        extra.shift_remove("cache_control");
    }
}

fn extra_of(block: &mut ContentBlock) -> Option<&mut JsonMap> {
    match block {
        ContentBlock::Text { extra, .. }
        | ContentBlock::ToolUse { extra, .. }
        | ContentBlock::ToolResult { extra, .. } => Some(extra),
        // The API takes no breakpoint on thinking.
        ContentBlock::Thinking { .. } => None,
        ContentBlock::Other(value) => value.as_object_mut(),
    }
}

fn breakpoint() -> Value {
    json!({"type": "ephemeral"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_thought_than_a_reply_has_room_for() {
        for (budget, max_tokens, expected) in [
            (4_000, 32_000, json!({"type": "enabled", "budget_tokens": 4_000})),
            (31_999, 20_000, json!({"type": "enabled", "budget_tokens": 19_999})),
            (4_000, 1_000, json!({"type": "disabled"})),
            // The API says what is wrong with a wish.
            (500, 32_000, json!({"type": "enabled", "budget_tokens": 500})),
        ] {
            let parts = Parts {
                model: "m",
                max_tokens,
                system: &[],
                tools: &[],
                history: &[],
                thinking: Thinking::Budget(budget),
                thinking_display: None,
                effort: None,
                task_budget: None,
                session_id: "",
                extra: &JsonMap::new(),
            };
            let body: Value = serde_json::from_slice(&body(&parts)).unwrap();
            assert_eq!(body["thinking"], expected, "{budget} {max_tokens}");
        }
    }
}
