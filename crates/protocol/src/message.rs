//! Messages and content blocks of the Messages API, open to what this version does not know.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{JsonMap, Usage};

/// Who speaks. Mid-conversation `system` messages exist in current traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The caller, and tool results.
    User,
    /// The model.
    Assistant,
    /// Instructions in mid-conversation.
    System,
    /// A role this version does not know.
    #[serde(untagged)]
    Other(String),
}

/// One message of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageParam {
    /// Who speaks.
    pub role: Role,
    /// What is said; a plain string reads as one text block.
    #[serde(deserialize_with = "content_or_text")]
    pub content: Vec<ContentBlock>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

impl MessageParam {
    /// A message without unknown fields.
    #[must_use]
    pub fn new(role: Role, content: Vec<ContentBlock>) -> Self {
        Self { role, content, extra: JsonMap::new() }
    }
}

/// One block of content. A block of a type (or shape) that this version does not know is kept as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentBlock {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// `cache_control`, `citations` and what is not known.
        #[serde(flatten)]
        extra: JsonMap,
    },
    /// The model's thinking; must go back unchanged, signature included.
    Thinking {
        /// The thinking, maybe empty when it is not shown.
        thinking: String,
        /// What proves to the API that it wrote this.
        #[serde(default)]
        signature: String,
        /// What is not known.
        #[serde(flatten)]
        extra: JsonMap,
    },
    /// A tool call by the model.
    ToolUse {
        /// The call's id, `toolu_…`.
        id: String,
        /// The tool.
        name: String,
        /// Its input, field order kept.
        input: Value,
        /// What is not known.
        #[serde(flatten)]
        extra: JsonMap,
    },
    /// The result of a tool call, from the caller.
    ToolResult {
        /// The call that this answers.
        tool_use_id: String,
        /// A string, or a list of blocks; missing when the tool gave nothing.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        content: Value,
        /// Whether the tool failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
        /// `cache_control` and what is not known.
        #[serde(flatten)]
        extra: JsonMap,
    },
    /// Anything else, kept as it came: images, documents, server tools, redacted thinking, types of tomorrow.
    #[serde(untagged)]
    Other(Value),
}

impl ContentBlock {
    /// A plain text block.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), extra: JsonMap::new() }
    }

    /// The result of a tool call as text.
    #[must_use]
    pub fn tool_result(tool_use_id: impl Into<String>, text: impl Into<String>, is_error: bool) -> Self {
        Self::ToolResult {
            tool_use_id: tool_use_id.into(),
            content: Value::String(text.into()),
            is_error: is_error.then_some(true),
            extra: JsonMap::new(),
        }
    }
}

/// A whole reply of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The reply's id, `msg_…`.
    pub id: String,
    /// Always `message`.
    #[serde(rename = "type", default = "message_type")]
    pub kind: String,
    /// Always `assistant`.
    pub role: Role,
    /// The model that answered: what prices go by.
    pub model: String,
    /// What it said.
    pub content: Vec<ContentBlock>,
    /// Why it stopped: `end_turn`, `max_tokens`, `stop_sequence`, `tool_use`, `pause_turn`, `refusal`, …
    #[serde(default)]
    pub stop_reason: Option<String>,
    /// Which stop sequence it met.
    #[serde(default)]
    pub stop_sequence: Option<String>,
    /// Tokens.
    #[serde(default, deserialize_with = "crate::usage::null_is_none")]
    pub usage: Usage,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

fn message_type() -> String {
    "message".to_owned()
}

/// Reads message content: a list of blocks, or a string as one text block.
///
/// # Errors
/// When it is neither.
pub fn content_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ContentBlock>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(vec![ContentBlock::text(text)]),
        blocks @ Value::Array(_) => serde_json::from_value(blocks).map_err(serde::de::Error::custom),
        other => Err(serde::de::Error::custom(format!(
            "expected a string or a list of content blocks, found {}",
            json_type(&other)
        ))),
    }
}

/// The JSON name of a value's type, for error texts.
#[must_use]
pub const fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
