//! The lines that agent and host write to each other: newline-delimited JSON, the Agent SDK's stream protocol.
//!
//! source: the agent protocol reference, sections 1.3 and 2. Fields that this version does not know survive a round
//! trip; messages of an unknown type are kept as they came. Everything from an agent is hostile input.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::control::{ControlCancelRequest, ControlRequest, ControlResponse};
use crate::message::json_type;
use crate::{ContentBlock, JsonMap, NanoUsd, Usage};

/// The longest line that an agent writes, in bytes. The Python SDK ends the session over a longer one.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// The longest line that a host writes, in bytes: a prompt with images and documents as large as the API takes (32 MB a
/// request), and some room around it.
pub const MAX_HOST_LINE_BYTES: usize = 36 * 1024 * 1024;

/// What the agent writes to its standard output, a line each.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentFrame {
    /// A message for the caller of `query`.
    Message(SdkMessage),
    /// The agent asks the host.
    ControlRequest(ControlRequest),
    /// The agent answers the host.
    ControlResponse(ControlResponse),
    /// The agent no longer needs an answer.
    ControlCancelRequest(ControlCancelRequest),
}

/// What the host writes to the agent's standard input, a line each.
#[derive(Clone, Debug, PartialEq)]
pub enum HostFrame {
    /// A prompt: one turn.
    User(UserMessage),
    /// The host asks the agent.
    ControlRequest(ControlRequest),
    /// The host answers the agent.
    ControlResponse(ControlResponse),
    /// The host no longer needs an answer.
    ControlCancelRequest(ControlCancelRequest),
    /// A type that is ignored (`keep_alive`, or one not known), kept as it came.
    Other(Value),
}

/// A message that `query` streams.
#[derive(Clone, Debug, PartialEq)]
pub enum SdkMessage {
    /// News of the session: `init`, `status`, `api_retry`, `permission_denied`, …
    System(SystemMessage),
    /// One content block of the model's reply.
    Assistant(Box<AssistantMessage>),
    /// What was said to the model: tool results, mostly.
    User(UserMessage),
    /// The end of a turn.
    Result(Box<ResultMessage>),
    /// A raw event of the model's stream, when partial messages were asked for.
    StreamEvent(StreamEventMessage),
    /// A type that this version does not know, as it came.
    Other(Value),
}

/// `{"type":"system","subtype":…}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemMessage {
    /// `init`, `status`, `session_state_changed`, …
    pub subtype: String,
    /// Everything else.
    #[serde(flatten)]
    pub fields: JsonMap,
}

/// `{"type":"assistant",…}`: a reply of the model, one content block a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssistantMessage {
    /// The reply, with one block; `stop_reason` is null.
    pub message: crate::Message,
    /// The Agent call under which a subagent said this.
    #[serde(default)]
    pub parent_tool_use_id: Option<String>,
    /// Why the reply failed: `rate_limit`, `billing_error`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The message's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The session's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

impl fmt::Display for AssistantMessage {
    /// Writes the reply's text, nothing for a tool call.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for block in &self.message.content {
            if let ContentBlock::Text { text, .. } = block {
                out.write_str(text)?;
            }
        }
        Ok(())
    }
}

/// `{"type":"user",…}`: a prompt from the host, or tool results from the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserMessage {
    /// What is said.
    pub message: crate::MessageParam,
    /// The Agent call under which this was said.
    #[serde(default)]
    pub parent_tool_use_id: Option<String>,
    /// The structured output of the tool, or `Error: …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_use_result: Option<Value>,
    /// The message's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The session's id; the host sends it empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

impl From<String> for UserMessage {
    /// Makes a prompt of a text.
    fn from(text: String) -> Self {
        Self {
            message: crate::MessageParam::new(crate::Role::User, vec![crate::ContentBlock::text(text)]),
            parent_tool_use_id: None,
            tool_use_result: None,
            uuid: None,
            session_id: None,
            extra: JsonMap::new(),
        }
    }
}

impl From<&str> for UserMessage {
    /// Makes a prompt of a text.
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// `{"type":"result",…}`: the end of a turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultMessage {
    /// `success`, `error_max_turns`, `error_max_budget_usd`, `error_during_execution`, …
    pub subtype: String,
    /// Whether the turn failed. An API error is `success` with this set.
    pub is_error: bool,
    /// From prompt to result.
    #[serde(default)]
    pub duration_ms: u64,
    /// Of that, waiting for the model.
    #[serde(default)]
    pub duration_api_ms: u64,
    /// One, and one for each user message that the turn made.
    #[serde(default)]
    pub num_turns: u64,
    /// The last text; absent for the error subtypes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why the model stopped.
    #[serde(default)]
    pub stop_reason: Option<String>,
    /// The session's id.
    #[serde(default)]
    pub session_id: String,
    /// What the process has cost so far, as the agent computes it. A claim: bills come from the gateway.
    #[serde(default, deserialize_with = "claimed_usd")]
    pub total_cost_usd: NanoUsd,
    /// Tokens of this turn's main loop.
    #[serde(default)]
    pub usage: Usage,
    /// Tokens and cost by model, over the process.
    #[serde(default, rename = "modelUsage")]
    pub model_usage: BTreeMap<String, ModelUsage>,
    /// Calls that were refused.
    #[serde(default)]
    pub permission_denials: Vec<PermissionDenial>,
    /// What went wrong, for the error subtypes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// `completed`, `max_turns`, `budget_exhausted`, `api_error`, `aborted_tools`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_reason: Option<String>,
    /// The message's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// Tokens and cost of one model, spelt as the Agent SDK spells them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelUsage {
    /// Plain prompt tokens.
    pub input_tokens: u64,
    /// Reply tokens.
    pub output_tokens: u64,
    /// Prompt tokens read from the cache.
    pub cache_read_input_tokens: u64,
    /// Prompt tokens written to the cache.
    pub cache_creation_input_tokens: u64,
    /// Web searches.
    pub web_search_requests: u64,
    /// What it cost, in dollars on the wire.
    #[serde(rename = "costUSD", deserialize_with = "claimed_usd")]
    pub cost_usd: NanoUsd,
    /// The model's context window in tokens.
    pub context_window: u64,
    /// The most tokens that the model writes.
    pub max_output_tokens: u64,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// A call that was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PermissionDenial {
    /// The tool.
    pub tool_name: String,
    /// The call.
    pub tool_use_id: String,
    /// What it was to do.
    pub tool_input: Value,
}

/// `{"type":"stream_event",…}`: a raw event of the model's stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamEventMessage {
    /// The event, as the API sent it.
    pub event: Value,
    /// The Agent call under which a subagent got this.
    #[serde(default)]
    pub parent_tool_use_id: Option<String>,
    /// The message's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The session's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// Why a line is not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Over [`MAX_LINE_BYTES`] from an agent, [`MAX_HOST_LINE_BYTES`] from a host.
    #[error("read a line of {bytes} bytes: the limit is {limit}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest that is read.
        limit: usize,
    },
    /// Not JSON.
    #[error("read a line of {chars} characters as JSON: {message}")]
    NotJson {
        /// Its length.
        chars: usize,
        /// What the parser said.
        message: String,
    },
    /// JSON, but no object with a `type`.
    #[error("read a line: expected an object with a \"type\", found {found}")]
    NotAnObject {
        /// What it was.
        found: &'static str,
    },
    /// A known type whose fields are wrong.
    #[error("read a {kind:?} line: {message}")]
    Malformed {
        /// The line's type.
        kind: String,
        /// What is wrong.
        message: String,
    },
}

impl AgentFrame {
    /// Reads a line that an agent wrote.
    ///
    /// # Errors
    /// See [`FrameError`]. Messages of an unknown type are no error.
    pub fn parse(line: &str) -> Result<Self, FrameError> {
        let (kind, value) = tagged(line, MAX_LINE_BYTES)?;
        Ok(match kind.as_str() {
            "control_request" => Self::ControlRequest(fields(&kind, value)?),
            "control_response" => Self::ControlResponse(fields(&kind, value)?),
            "control_cancel_request" => Self::ControlCancelRequest(fields(&kind, value)?),
            "system" => Self::Message(SdkMessage::System(fields(&kind, value)?)),
            "assistant" => Self::Message(SdkMessage::Assistant(fields(&kind, value)?)),
            "user" => Self::Message(SdkMessage::User(fields(&kind, value)?)),
            "result" => Self::Message(SdkMessage::Result(fields(&kind, value)?)),
            "stream_event" => Self::Message(SdkMessage::StreamEvent(fields(&kind, value)?)),
            _ => Self::Message(SdkMessage::Other(value)),
        })
    }

    /// The frame as a JSON value with its `type` first.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Message(message) => message.to_value(),
            Self::ControlRequest(request) => with_type("control_request", request),
            Self::ControlResponse(response) => with_type("control_response", response),
            Self::ControlCancelRequest(cancel) => with_type("control_cancel_request", cancel),
        }
    }
}

impl HostFrame {
    /// Reads a line that a host wrote.
    ///
    /// # Errors
    /// See [`FrameError`]. An unknown type is no error.
    pub fn parse(line: &str) -> Result<Self, FrameError> {
        let (kind, value) = tagged(line, MAX_HOST_LINE_BYTES)?;
        Ok(match kind.as_str() {
            "user" => Self::User(fields(&kind, value)?),
            "control_request" => Self::ControlRequest(fields(&kind, value)?),
            "control_response" => Self::ControlResponse(fields(&kind, value)?),
            "control_cancel_request" => Self::ControlCancelRequest(fields(&kind, value)?),
            _ => Self::Other(value),
        })
    }

    /// The frame as a JSON value with its `type` first.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::User(message) => with_type("user", message),
            Self::ControlRequest(request) => with_type("control_request", request),
            Self::ControlResponse(response) => with_type("control_response", response),
            Self::ControlCancelRequest(cancel) => with_type("control_cancel_request", cancel),
            Self::Other(value) => value.clone(),
        }
    }
}

impl SdkMessage {
    /// The message as a JSON value with its `type` first.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::System(message) => with_type("system", message),
            Self::Assistant(message) => with_type("assistant", message),
            Self::User(message) => with_type("user", message),
            Self::Result(message) => with_type("result", message),
            Self::StreamEvent(message) => with_type("stream_event", message),
            Self::Other(value) => value.clone(),
        }
    }
}

impl Serialize for AgentFrame {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}
impl Serialize for HostFrame {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}
impl Serialize for SdkMessage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

fn tagged(line: &str, limit: usize) -> Result<(String, Value), FrameError> {
    if line.len() > limit {
        return Err(FrameError::TooLong { bytes: line.len(), limit });
    }
    let value: Value = serde_json::from_str(line)
        .map_err(|error| FrameError::NotJson { chars: line.chars().count(), message: error.to_string() })?;
    match value.get("type") {
        Some(Value::String(kind)) => Ok((kind.clone(), value)),
        Some(_) => Err(FrameError::NotAnObject { found: "an object whose \"type\" is no string" }),
        None if value.is_object() => Err(FrameError::NotAnObject { found: "an object without one" }),
        None => Err(FrameError::NotAnObject { found: json_type(&value) }),
    }
}

fn fields<T: for<'de> Deserialize<'de>>(kind: &str, mut value: Value) -> Result<T, FrameError> {
    if let Value::Object(map) = &mut value {
        map.shift_remove("type");
    }
    serde_json::from_value(value)
        .map_err(|error| FrameError::Malformed { kind: kind.to_owned(), message: error.to_string() })
}

fn with_type<T: Serialize>(kind: &str, message: &T) -> Value {
    let mut tagged = JsonMap::new();
    tagged.insert("type".to_owned(), kind.into());
    // Our own types serialise into objects, with string keys only.
    if let Ok(Value::Object(fields)) = serde_json::to_value(message) {
        tagged.extend(fields);
    }
    Value::Object(tagged)
}

/// Reads a claimed number of dollars; what is no amount reads as an error.
fn claimed_usd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NanoUsd, D::Error> {
    NanoUsd::from_claimed_usd(f64::deserialize(deserializer)?)
        .ok_or_else(|| serde::de::Error::custom("expected an amount of dollars"))
}
