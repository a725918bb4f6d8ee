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
        #[serde(default)]
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
    /// [`StreamError::Malformed`] when the data is no JSON object.
    pub fn parse(event: &SseEvent) -> Result<Self, StreamError> {
        let value: Value = serde_json::from_str(&event.data)
            .map_err(|error| StreamError::Malformed(format!("event {:?}: {error}", shorten(&event.event))))?;
        match &value {
            Value::Object(_) => {
                serde_json::from_value(value).map_err(|error| StreamError::Malformed(error.to_string()))
            }
            other => Err(StreamError::Malformed(format!("an event is {}", crate::message::json_type(other)))),
        }
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Builds the reply from its events.
#[derive(Debug, Default)]
pub struct Assembler {
    message: Option<Message>,
    /// The JSON text of tool inputs under way, by block index.
    inputs: Vec<(usize, String)>,
    stopped: bool,
}

impl Assembler {
    /// Takes one event in and returns the index of the block that it completed, if it did.
    ///
    /// # Errors
    /// [`StreamError::Api`] for an error event, [`StreamError::Malformed`] for events that make no sense together
    /// (a delta for no block, a tool input that is no JSON).
    pub fn push(&mut self, event: &StreamEvent) -> Result<Option<usize>, StreamError> {
        match event {
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
            StreamEvent::MessageStop {} => self.stopped = true,
            StreamEvent::Error { error } => return Err(StreamError::Api(error.clone())),
            StreamEvent::Ping {} | StreamEvent::Other(_) => (),
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
        if matches!(block, ContentBlock::ToolUse { .. }) || is_server_tool(block) {
            self.inputs.push((index, String::new()));
        }
        Ok(())
    }

    fn grow(&mut self, index: usize, delta: &Delta) -> Result<(), StreamError> {
        let message = self.message.as_mut().ok_or_else(before_start)?;
        let block = message
            .content
            .get_mut(index)
            .ok_or_else(|| StreamError::Malformed(format!("a delta for block {index}, which never began")))?;
        match (block, delta) {
            (ContentBlock::Text { text, .. }, Delta::TextDelta { text: more }) => text.push_str(more),
            (ContentBlock::Thinking { thinking, .. }, Delta::ThinkingDelta { thinking: more }) => {
                thinking.push_str(more);
            }
            (ContentBlock::Thinking { signature, .. }, Delta::SignatureDelta { signature: more }) => {
                signature.push_str(more);
            }
            (_, Delta::InputJsonDelta { partial_json }) => {
                if let Some((_, input)) = self.inputs.iter_mut().find(|(place, _)| *place == index) {
                    input.push_str(partial_json);
                }
            }
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
        let block = message
            .content
            .get_mut(index)
            .ok_or_else(|| StreamError::Malformed(format!("block {index} ends and never began")))?;
        let Some(place) = self.inputs.iter().position(|(place, _)| *place == index) else { return Ok(index) };
        let (_, text) = self.inputs.swap_remove(place);
        if text.trim().is_empty() {
            return Ok(index);
        }
        // Broken JSON from the model is the tool's input error to report, not the end of the reply: keep the text.
        let parsed = serde_json::from_str(&text).unwrap_or(Value::String(text));
        match block {
            ContentBlock::ToolUse { input, .. } => *input = parsed,
            ContentBlock::Other(value) => value["input"] = parsed,
            ContentBlock::Text { .. } | ContentBlock::Thinking { .. } | ContentBlock::ToolResult { .. } => (),
        }
        Ok(index)
    }
}

fn is_server_tool(block: &ContentBlock) -> bool {
    matches!(block, ContentBlock::Other(value) if value["type"] == "server_tool_use" || value["type"] == "mcp_tool_use")
}

fn before_start() -> StreamError {
    StreamError::Malformed("an event came before message_start".to_owned())
}

impl From<ApiErrorBody> for ApiError {
    fn from(error: ApiErrorBody) -> Self {
        Self { envelope: "error".to_owned(), error, request_id: None }
    }
}
