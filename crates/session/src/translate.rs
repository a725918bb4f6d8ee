//! From an agent's lines to what they mean for its session. No I/O.
//!
//! source: `session-events`, from agent frames to session events. Every line is hostile input: bounded in length, parsed
//! into types, and whatever is not understood goes to the raw log and means nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use wardian_protocol::control::{
    AgentRequest, ControlAnswer, ControlRequest, ControlResponse, HostRequest, Initialize, PermissionAnswer,
};
use wardian_protocol::frame::{AssistantMessage, ResultMessage, SdkMessage, SystemMessage, UserMessage};
use wardian_protocol::stream::{Delta, StreamEvent};
use wardian_protocol::{AgentFrame, ContentBlock, EventId, HostFrame, JsonMap, MessageParam, Role};

use crate::life::{Fact, Stop};
use crate::lines::{Line, Lines};
use crate::tools::{CUSTOM_SERVER, MAX_CALL_ID_BYTES, Tools};

/// The id of the host's `initialize`.
const INITIALIZE_ID: &str = "host-initialize";
/// The id of the host's `interrupt`.
const INTERRUPT_ID: &str = "host-interrupt";
/// Calls of custom tools that wait for their result at one time.
const MAX_CUSTOM_CALLS: usize = 64;
/// Blocks of one reply that are previewed.
const MAX_PREVIEWED: usize = 256;
/// The longest id of a question.
const MAX_QUESTION_ID_BYTES: usize = 256;
/// The longest text of an error that is passed on.
const MAX_ERROR_CHARS: usize = 2000;

/// What a line comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Something for the session.
    Fact(Fact),
    /// An answer that needs nobody's decision.
    Reply(Box<HostFrame>),
    /// A glimpse of an event that is being made.
    Preview {
        /// Of a message; else of thinking.
        is_message: bool,
        /// `event_start` or `event_delta`.
        kind: &'static str,
        /// The whole preview as JSON text.
        data: Arc<str>,
    },
    /// A message with this id was heard, whatever it meant: an agent that is resumed repeats what came after it.
    Frame(String),
    /// A line that means nothing here, for the raw log.
    Raw(String),
    /// The agent did not take its orders; the text says why.
    Refused(String),
}

/// Translates what one process of an agent says.
#[derive(Debug, Default)]
pub struct Translator {
    lines: Lines,
    /// The event ids that were given to blocks of the reply under way, texts and thinking each in their order.
    texts: VecDeque<EventId>,
    thoughts: VecDeque<EventId>,
    /// Of the block with this index.
    previewed: BTreeMap<usize, EventId>,
    /// JSON-RPC ids of the calls of custom tools, by the question.
    custom_calls: BTreeMap<String, Value>,
    /// Lines that were no frame.
    pub rejected: u64,
}

impl Translator {
    /// Takes a piece of the agent's output in.
    pub fn hear(&mut self, chunk: &[u8], tools: &Tools, random: &mut dyn FnMut() -> [u8; 16]) -> Vec<Heard> {
        let mut heard = Vec::new();
        for line in self.lines.push(chunk) {
            let Line::Whole(bytes) = line else {
                self.rejected += 1;
                continue;
            };
            match std::str::from_utf8(&bytes) {
                Ok(line) if line.trim().is_empty() => (),
                Ok(line) => self.hear_line(line, tools, random, &mut heard),
                Err(_) => self.rejected += 1,
            }
        }
        heard
    }

    fn hear_line(
        &mut self,
        line: &str,
        tools: &Tools,
        random: &mut dyn FnMut() -> [u8; 16],
        heard: &mut Vec<Heard>,
    ) {
        let Ok(frame) = AgentFrame::parse(line) else {
            self.rejected += 1;
            return;
        };
        match frame {
            AgentFrame::Message(SdkMessage::System(message)) => system(&message, line, heard),
            AgentFrame::Message(SdkMessage::Assistant(message)) => {
                let uuid = message.uuid.clone();
                self.assistant(*message, random, heard);
                heard.extend(uuid.filter(|uuid| is_uuid(uuid)).map(Heard::Frame));
            }
            AgentFrame::Message(SdkMessage::User(message)) => {
                let uuid = message.uuid.clone();
                user(message, heard);
                heard.extend(uuid.filter(|uuid| is_uuid(uuid)).map(Heard::Frame));
            }
            AgentFrame::Message(SdkMessage::Result(result)) => {
                heard.push(Heard::Fact(Fact::Ended(stop(&result))));
            }
            AgentFrame::Message(SdkMessage::StreamEvent(message)) => {
                if message.parent_tool_use_id.is_none() {
                    self.stream_event(message.event, random, heard);
                }
            }
            AgentFrame::Message(SdkMessage::Other(_)) => heard.push(Heard::Raw(line.to_owned())),
            AgentFrame::ControlRequest(request) => self.question(request, tools, heard),
            AgentFrame::ControlResponse(response) => {
                if let ControlAnswer::Error { request_id, error, .. } = response.response
                    && request_id == INITIALIZE_ID
                {
                    heard.push(Heard::Refused(shorten(&error)));
                }
            }
            AgentFrame::ControlCancelRequest(cancel) => {
                self.custom_calls.remove(&cancel.request_id);
                heard.push(Heard::Fact(Fact::Withdrawn { request_id: cancel.request_id }));
            }
        }
    }

    fn assistant(
        &mut self,
        message: AssistantMessage,
        random: &mut dyn FnMut() -> [u8; 16],
        heard: &mut Vec<Heard>,
    ) {
        // What the agent writes about a failed request is in the turn's error. Subagents are seen by their results.
        if message.error.is_some() || message.parent_tool_use_id.is_some() {
            return;
        }
        let mut id = |given: Option<EventId>| given.unwrap_or_else(|| EventId::from_random(random()));
        for block in message.message.content {
            match block {
                ContentBlock::Text { text, .. } => {
                    let id = id(self.texts.pop_front());
                    heard.push(Heard::Fact(Fact::Text { id, text }));
                }
                ContentBlock::Thinking { .. } => {
                    let id = id(self.thoughts.pop_front());
                    heard.push(Heard::Fact(Fact::Thinking { id }));
                }
                ContentBlock::ToolUse { id: call, name, input, .. } => {
                    heard.push(Heard::Fact(Fact::Call { call, name, input }));
                }
                ContentBlock::ToolResult { .. } => (),
                ContentBlock::Other(block) => {
                    if block["type"] == "redacted_thinking" {
                        heard.push(Heard::Fact(Fact::Thinking { id: id(None) }));
                    }
                }
            }
        }
    }

    fn stream_event(&mut self, event: Value, random: &mut dyn FnMut() -> [u8; 16], heard: &mut Vec<Heard>) {
        let Ok(event) = serde_json::from_value::<StreamEvent>(event) else { return };
        match event {
            StreamEvent::MessageStart { .. } => {
                self.texts.clear();
                self.thoughts.clear();
                self.previewed.clear();
            }
            StreamEvent::ContentBlockStart { index, content_block } => {
                let (kind, is_message) = match content_block {
                    ContentBlock::Text { .. } => ("agent.message", true),
                    ContentBlock::Thinking { .. } => ("agent.thinking", false),
                    ContentBlock::ToolUse { .. }
                    | ContentBlock::ToolResult { .. }
                    | ContentBlock::Other(_) => return,
                };
                if self.texts.len() + self.thoughts.len() >= MAX_PREVIEWED {
                    return;
                }
                let id = EventId::from_random(random());
                let data = json!({"type": "event_start", "event": {"type": kind, "id": id}}).to_string();
                if is_message {
                    self.texts.push_back(id.clone());
                    self.previewed.insert(index, id);
                } else {
                    self.thoughts.push_back(id);
                }
                heard.push(Heard::Preview { is_message, kind: "event_start", data: data.into() });
            }
            StreamEvent::ContentBlockDelta { index, delta: Delta::TextDelta { text } } => {
                if let Some(id) = self.previewed.get(&index) {
                    let content = json!({"type": "text", "text": text});
                    let delta = json!({"type": "content_delta", "content": content, "index": 0});
                    let data = json!({"type": "event_delta", "event_id": id, "delta": delta}).to_string();
                    heard.push(Heard::Preview { is_message: true, kind: "event_delta", data: data.into() });
                }
            }
            StreamEvent::ContentBlockDelta { .. }
            | StreamEvent::ContentBlockStop { .. }
            | StreamEvent::MessageDelta { .. }
            | StreamEvent::MessageStop {}
            | StreamEvent::Ping {}
            | StreamEvent::Error { .. }
            | StreamEvent::Other(_) => (),
        }
    }

    fn question(&mut self, request: ControlRequest, tools: &Tools, heard: &mut Vec<Heard>) {
        let id = request.request_id;
        if id.len() > MAX_QUESTION_ID_BYTES {
            self.rejected += 1;
            return;
        }
        match serde_json::from_value::<AgentRequest>(request.request) {
            Ok(AgentRequest::CanUseTool(question)) => heard.push(Heard::Fact(Fact::Asked {
                request_id: id,
                call: question.tool_use_id,
                input: question.input,
            })),
            Ok(AgentRequest::Other(request)) if request["subtype"] == "mcp_message" => {
                self.tool_server(id, request, tools, heard);
            }
            Ok(AgentRequest::HookCallback { .. } | AgentRequest::Other(_)) | Err(_) => {
                heard.push(reply(ControlResponse::error(id, "this host offers no such thing")));
            }
        }
    }

    /// The host's own server of tools, which has the custom ones.
    fn tool_server(&mut self, id: String, mut request: Value, tools: &Tools, heard: &mut Vec<Heard>) {
        if request["server_name"] != CUSTOM_SERVER {
            return heard.push(reply(ControlResponse::error(id, "this host has no such server")));
        }
        let mut message = request["message"].take();
        let rpc_id = message["id"].take();
        let result = |result: Value| json!({"jsonrpc": "2.0", "id": rpc_id, "result": result});
        let answer = match message["method"].as_str() {
            Some("initialize") => result(json!({
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "wardian", "version": env!("CARGO_PKG_VERSION")},
            })),
            Some("ping") => result(json!({})),
            Some("tools/list") => result(json!({"tools": tools.listed()})),
            Some(method) if method.starts_with("notifications/") => json!({"jsonrpc": "2.0", "result": {}}),
            Some("tools/call") => {
                let call = message["params"]["_meta"]["claudecode/toolUseId"].as_str().unwrap_or_default();
                let call: String = call.chars().take(MAX_CALL_ID_BYTES).collect();
                if self.custom_calls.len() >= MAX_CUSTOM_CALLS {
                    return heard.push(reply(ControlResponse::error(id, "too many calls wait")));
                }
                self.custom_calls.insert(id.clone(), rpc_id);
                let input = match message["params"]["arguments"].take() {
                    Value::Null => json!({}),
                    input => input,
                };
                return heard.push(Heard::Fact(Fact::CustomCalled { request_id: id, call, input }));
            }
            Some(_) | None => {
                json!({"jsonrpc": "2.0", "id": rpc_id, "error": {"code": -32601, "message": "no such method"}})
            }
        };
        heard.push(reply(ControlResponse::success(id, json!({"mcp_response": answer}))));
    }

    /// The frame that gives a custom tool's result, if its call still waits.
    pub fn custom_result(
        &mut self,
        request_id: &str,
        content: &[Value],
        is_error: bool,
    ) -> Option<HostFrame> {
        let rpc_id = self.custom_calls.remove(request_id)?;
        let content: Vec<Value> = content.iter().map(as_tool_content).collect();
        let result = json!({"content": content, "isError": is_error});
        let response = json!({"mcp_response": {"jsonrpc": "2.0", "id": rpc_id, "result": result}});
        Some(HostFrame::ControlResponse(ControlResponse::success(request_id, response)))
    }
}

/// The first frame to an agent.
#[must_use]
pub fn initialize(system: Option<&str>, tools: &Tools) -> HostFrame {
    let mut initialize =
        Initialize { system_prompt: system.map(|text| vec![text.to_owned()]), ..Initialize::default() };
    if tools.has_custom() {
        initialize.extra.insert("sdkMcpServers".to_owned(), json!([CUSTOM_SERVER]));
    }
    request(INITIALIZE_ID, &HostRequest::Initialize(Box::new(initialize)))
}

/// The frame that tells an agent to stop its turn.
#[must_use]
pub fn interrupt() -> HostFrame {
    request(INTERRUPT_ID, &HostRequest::Interrupt {})
}

/// A message as a prompt; `uuid` tells the agent whether it has had it before.
#[must_use]
pub fn prompt(content: &[Value], uuid: String) -> HostFrame {
    let content = content.iter().map(|block| {
        serde_json::from_value(block.clone()).unwrap_or_else(|_| ContentBlock::Other(block.clone()))
    });
    HostFrame::User(UserMessage {
        message: MessageParam::new(Role::User, content.collect()),
        parent_tool_use_id: None,
        tool_use_result: None,
        uuid: Some(uuid),
        session_id: Some(String::new()),
        extra: verbatim(),
    })
}

/// Says that a prompt is to be taken as it stands: a message of a session that begins with a slash is no command.
pub(crate) fn verbatim() -> JsonMap {
    JsonMap::from_iter([("client_composed".to_owned(), true.into())])
}

/// The answer to a question whether a call may run.
#[must_use]
pub fn answer(request_id: String, answer: &PermissionAnswer) -> HostFrame {
    let body = serde_json::to_value(answer).expect("our own answers have string keys only");
    HostFrame::ControlResponse(ControlResponse::success(request_id, body))
}

fn request(id: &str, request: &HostRequest) -> HostFrame {
    let request = serde_json::to_value(request).expect("our own requests have string keys only");
    HostFrame::ControlRequest(ControlRequest::new(id, request))
}

fn reply(response: ControlResponse) -> Heard {
    Heard::Reply(Box::new(HostFrame::ControlResponse(response)))
}

fn system(message: &SystemMessage, line: &str, heard: &mut Vec<Heard>) {
    match message.subtype.as_str() {
        "init" => heard.push(Heard::Fact(Fact::Began)),
        "api_retry" => {
            let is_rate_limit = message.fields.get("error_status").is_some_and(|status| *status == 429);
            heard.push(Heard::Fact(Fact::Retrying { is_rate_limit }));
        }
        "compact_boundary" => heard.push(Heard::Fact(Fact::Compacted)),
        "session_state_changed" | "status" => (),
        _ => heard.push(Heard::Raw(line.to_owned())),
    }
}

fn user(message: UserMessage, heard: &mut Vec<Heard>) {
    if message.parent_tool_use_id.is_some() {
        return;
    }
    for block in message.message.content {
        if let ContentBlock::ToolResult { tool_use_id, content, is_error, .. } = block {
            let is_error = is_error.unwrap_or(false);
            heard.push(Heard::Fact(Fact::Outcome { call: tool_use_id, content, is_error }));
        }
    }
}

fn stop(result: &ResultMessage) -> Stop {
    let text = result.result.clone().unwrap_or_else(|| result.errors.join("\n"));
    match result.subtype.as_str() {
        "error_max_turns" => Stop::MaxTurns,
        "error_max_budget_usd" => Stop::Budget,
        "success" if !result.is_error && result.stop_reason.as_deref() == Some("refusal") => {
            Stop::Refusal { explanation: (!text.is_empty()).then(|| shorten(&text)) }
        }
        "success" if !result.is_error => Stop::EndTurn,
        _ if result.stop_reason.as_deref() == Some("refusal") => {
            Stop::Refusal { explanation: (!text.is_empty()).then(|| shorten(&text)) }
        }
        _ => Stop::Failed {
            status: result.extra.get("api_error_status").and_then(Value::as_u64),
            message: shorten(&text),
        },
    }
}

/// A block of the API as a server of tools gives it: texts and images; anything else as text.
fn as_tool_content(block: &Value) -> Value {
    let source = &block["source"];
    match block["type"].as_str() {
        Some("text") => json!({"type": "text", "text": block["text"]}),
        Some("image") if source["type"] == "base64" => {
            json!({"type": "image", "data": source["data"], "mimeType": source["media_type"]})
        }
        Some("document") if source["type"] == "text" => json!({"type": "text", "text": source["data"]}),
        Some(_) | None => json!({"type": "text", "text": block.to_string()}),
    }
}

/// Whether a text can be the id of a message: it is given back to an agent as a word of its environment.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests;
