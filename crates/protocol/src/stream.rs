//! The events of a streamed Messages reply, and the reply that they make.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api_error::{ApiError, ApiErrorBody};
use crate::sse::SseEvent;
use crate::{ContentBlock, Message, Usage};

/// One event of a streamed reply. A type that this version does not know is kept as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamEvent {
    /// The reply begins; carries the prompt's usage.
    MessageStart {
        /// The reply so far: no content yet.
        message: Message,
    },
    /// A block begins.
    ContentBlockStart {
        /// Its place in the reply.
        index: usize,
        /// The block so far.
        content_block: ContentBlock,
    },
    /// A block grows.
    ContentBlockDelta {
        /// Its place in the reply.
        index: usize,
        /// What is added.
        delta: Delta,
    },
    /// A block is whole.
    ContentBlockStop {
        /// Its place in the reply.
        index: usize,
    },
    /// The reply is about to end.
    MessageDelta {
        /// `stop_reason`, `stop_sequence`.
        delta: Value,
        /// Cumulative counts; [`Usage::merge`] takes them in.
        #[serde(default, deserialize_with = "crate::usage::null_is_none")]
        usage: Usage,
    },
    /// The reply is whole.
    MessageStop {},
    /// Keeps the connection alive.
    Ping {},
    /// The reply failed after it had begun.
    Error {
        /// What went wrong.
        error: ApiErrorBody,
    },
    /// Anything else.
    #[serde(untagged)]
    Other(Value),
}

/// What a block grows by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Delta {
    /// More text.
    TextDelta {
        /// The text.
        text: String,
    },
    /// More of a tool input's JSON text.
    InputJsonDelta {
        /// A piece of JSON, cut anywhere.
        partial_json: String,
    },
    /// More thinking.
    ThinkingDelta {
        /// The thinking.
        thinking: String,
    },
    /// The signature of the thinking.
    SignatureDelta {
        /// The signature.
        signature: String,
    },
    /// Anything else, citations among it.
    #[serde(untagged)]
    Other(Value),
}

/// Why a streamed reply came to nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// An event's data was not the JSON that its type promises.
    #[error("read the model's reply: {0}")]
    Malformed(String),
    /// The API reported an error inside the stream.
    #[error("get a whole reply: {}: {}", .0.kind.as_str(), .0.message)]
    Api(ApiErrorBody),
    /// The stream ended before the reply did.
    #[error("get a whole reply: the stream ended early")]
    Truncated,
}

impl StreamEvent {
    /// Reads one event.
    ///
    /// # Errors
    /// [`StreamError::Malformed`] when the data is no JSON object, or the fields of a known type are wrong: usage that
    /// cannot be read must not pass for an event that has none.
    pub fn parse(event: &SseEvent) -> Result<Self, StreamError> {
        let value: Value = serde_json::from_str(&event.data)
            .map_err(|error| StreamError::Malformed(format!("event {:?}: {error}", shorten(&event.event))))?;
        if !value.is_object() {
            let found = crate::message::json_type(&value);
            return Err(StreamError::Malformed(format!("an event is {found}")));
        }
        let parsed =
            serde_json::from_value(value).map_err(|error| StreamError::Malformed(error.to_string()))?;
        match &parsed {
            Self::Other(value) | Self::ContentBlockDelta { delta: Delta::Other(value), .. } => {
                match flaw(value) {
                    Some(flaw) => Err(StreamError::Malformed(flaw)),
                    None => Ok(parsed),
                }
            }
            _ => Ok(parsed),
        }
    }
}

/// What is wrong with a value of a known type that was not read as one. Types that are not known have no flaw.
fn flaw(value: &Value) -> Option<String> {
    let kind = value.get("type")?.as_str()?;
    let field = |name: &str| value.get(name).cloned().unwrap_or_default();
    let error = match kind {
        "message_start" => serde_json::from_value::<Message>(field("message")).err(),
        "message_delta" => serde_json::from_value::<Usage>(field("usage")).err(),
        "error" => serde_json::from_value::<ApiErrorBody>(field("error")).err(),
        "content_block_start" | "content_block_delta" | "content_block_stop" => {
            serde_json::from_value::<usize>(field("index")).err()
        }
        "message_stop" | "ping" | "text_delta" | "input_json_delta" | "thinking_delta"
        | "signature_delta" => None,
        _ => return None,
    };
    let why = error.map_or_else(|| "a field is wrong".to_owned(), |error| error.to_string());
    Some(format!("{kind}: {why}"))
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The longest reply that is put together, in bytes of its deltas. Models write 128,000 tokens at most.
pub const MAX_REPLY_BYTES: usize = 32 * 1024 * 1024;

/// Builds the reply from its events.
#[derive(Debug, Default)]
pub struct Assembler {
    message: Option<Message>,
    /// The blocks under way: their index and, of tool calls, the JSON text of the input so far.
    open: Vec<(usize, String)>,
    bytes: usize,
    stopped: bool,
}

impl Assembler {
    /// Takes one event in and returns the index of the block that it completed, if it did.
    ///
    /// # Errors
    /// [`StreamError::Api`] for an error event, [`StreamError::Malformed`] for events that make no sense together
    /// (a delta for no block, a block that ends twice, a second beginning, anything after the end) and for a reply over
    /// [`MAX_REPLY_BYTES`]. What was taken in before is still there.
    pub fn push(&mut self, event: &StreamEvent) -> Result<Option<usize>, StreamError> {
        match event {
            StreamEvent::Ping {} | StreamEvent::Other(_) => return Ok(None),
            StreamEvent::Error { error } => return Err(StreamError::Api(error.clone())),
            _ if self.stopped => return Err(malformed("an event came after message_stop")),
            StreamEvent::MessageStart { .. } if self.message.is_some() => {
                return Err(malformed("message_start came twice"));
            }
            StreamEvent::MessageStart { message } => self.message = Some(message.clone()),
            StreamEvent::ContentBlockStart { index, content_block } => self.start(*index, content_block)?,
            StreamEvent::ContentBlockDelta { index, delta } => self.grow(*index, delta)?,
            StreamEvent::ContentBlockStop { index } => return self.complete(*index).map(Some),
            StreamEvent::MessageDelta { delta, usage } => {
                let message = self.message.as_mut().ok_or_else(before_start)?;
                message.usage.merge(usage);
                if let Some(reason) = delta.get("stop_reason").and_then(Value::as_str) {
                    message.stop_reason = Some(reason.to_owned());
                }
                if let Some(sequence) = delta.get("stop_sequence").and_then(Value::as_str) {
                    message.stop_sequence = Some(sequence.to_owned());
                }
            }
            StreamEvent::MessageStop {} => {
                let _ = self.message.as_ref().ok_or_else(before_start)?;
                if let Some((index, _)) = self.open.first() {
                    return Err(malformed(format!("block {index} did not end before the reply")));
                }
                self.stopped = true;
            }
        }
        Ok(None)
    }

    /// The reply so far, usage included, even when the stream was cut.
    #[must_use]
    pub const fn so_far(&self) -> Option<&Message> {
        self.message.as_ref()
    }

    /// The whole reply.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] when `message_stop` never came.
    pub fn finish(self) -> Result<Message, StreamError> {
        self.message.filter(|_| self.stopped).ok_or(StreamError::Truncated)
    }

    fn start(&mut self, index: usize, block: &ContentBlock) -> Result<(), StreamError> {
        let message = self.message.as_mut().ok_or_else(before_start)?;
        if index != message.content.len() {
            return Err(StreamError::Malformed(format!("block {index} begins out of order")));
        }
        message.content.push(block.clone());
        self.open.push((index, String::new()));
        Ok(())
    }

    fn grow(&mut self, index: usize, delta: &Delta) -> Result<(), StreamError> {
        let message = self.message.as_mut().ok_or_else(before_start)?;
        let open = self.open.iter_mut().find(|(place, _)| *place == index);
        let (Some((_, input)), Some(block)) = (open, message.content.get_mut(index)) else {
            return Err(malformed(format!("a delta for block {index}, which is not open")));
        };
        self.bytes = self.bytes.saturating_add(delta.bytes());
        if self.bytes > MAX_REPLY_BYTES {
            return Err(malformed(format!("the reply is over {MAX_REPLY_BYTES} bytes")));
        }
        match (block, delta) {
            (ContentBlock::Text { text, .. }, Delta::TextDelta { text: more }) => text.push_str(more),
            (ContentBlock::Thinking { thinking, .. }, Delta::ThinkingDelta { thinking: more }) => {
                thinking.push_str(more);
            }
            (ContentBlock::Thinking { signature, .. }, Delta::SignatureDelta { signature: more }) => {
                signature.push_str(more);
            }
            (_, Delta::InputJsonDelta { partial_json }) => input.push_str(partial_json),
            (ContentBlock::Text { extra, .. }, Delta::Other(value)) if value["type"] == "citations_delta" => {
                let citations = extra.entry("citations").or_insert_with(|| Value::Array(Vec::new()));
                if !citations.is_array() {
                    *citations = Value::Array(Vec::new());
                }
                if let (Some(list), Some(citation)) = (citations.as_array_mut(), value.get("citation")) {
                    list.push(citation.clone());
                }
            }
            // A delta of a type, or for a block, that this version does not know.
            _ => (),
        }
        Ok(())
    }

    fn complete(&mut self, index: usize) -> Result<usize, StreamError> {
        let message = self.message.as_mut().ok_or_else(before_start)?;
        let open = self.open.iter().position(|(place, _)| *place == index);
        let (Some(place), Some(block)) = (open, message.content.get_mut(index)) else {
            return Err(malformed(format!("block {index} ends and is not open")));
        };
        let (_, text) = self.open.swap_remove(place);
        if text.trim().is_empty() {
            return Ok(index);
        }
        // Broken JSON from the model is the tool's input error to report, not the end of the reply: keep the text.
        let parsed = serde_json::from_str(&text).unwrap_or(Value::String(text));
        match block {
            ContentBlock::ToolUse { input, .. } => *input = parsed,
            ContentBlock::Other(value) if is_server_tool(value) => value["input"] = parsed,
            ContentBlock::Other(_)
            | ContentBlock::Text { .. }
            | ContentBlock::Thinking { .. }
            | ContentBlock::ToolResult { .. } => (),
        }
        Ok(index)
    }
}

impl Delta {
    fn bytes(&self) -> usize {
        match self {
            Self::TextDelta { text } => text.len(),
            Self::InputJsonDelta { partial_json } => partial_json.len(),
            Self::ThinkingDelta { thinking } => thinking.len(),
            Self::SignatureDelta { signature } => signature.len(),
            // Citations: short, and more in memory than on the wire.
            Self::Other(_) => 1_024,
        }
    }
}

/// A call of a tool that the API runs itself: an object, of a type that this version does not read.
fn is_server_tool(block: &Value) -> bool {
    block["type"] == "server_tool_use" || block["type"] == "mcp_tool_use"
}

fn malformed(what: impl Into<String>) -> StreamError {
    StreamError::Malformed(what.into())
}

fn before_start() -> StreamError {
    malformed("an event came before message_start")
}

impl From<ApiErrorBody> for ApiError {
    fn from(error: ApiErrorBody) -> Self {
        Self { envelope: "error".to_owned(), error, request_id: None }
    }
}
