//! A run as data: `(state, event) -> (state, effects)`. No I/O, no clock.
//!
//! Everything that comes out of the sandbox is hostile input. What it can reach is bounded here: memory (a line, the two
//! captures, the questions under way), rows in the store (a cap a run, then frames are counted and dropped), and meaning
//! (only the first result of our agent ends its turn; only answers to questions that the host asked are read; money
//! is not read at all).

mod conclusion;
mod event;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wardian_protocol::control::{
    AgentRequest, ControlAnswer, ControlRequest, ControlResponse, HostRequest, Initialize, PermissionAnswer,
};
use wardian_protocol::frame::SdkMessage;
use wardian_protocol::frame::{ResultMessage, UserMessage};
use wardian_protocol::{AgentFrame, ContentBlock, HostFrame, JsonMap, MessageParam, Role};

use crate::capture::Capture;
use crate::lines::{Line, Lines};
use crate::report::RunStatus;
use crate::translate::verbatim;

pub use conclusion::{Conclusion, Counts};
pub use event::{Effect, Event, Grace, Row, Show, Stream};

/// What is kept of each of a command's output streams for the report, in bytes.
pub const MAX_CAPTURED_BYTES: usize = 1024 * 1024;
/// Rows that one run stores. A long session of an agent has a few thousand; what comes after is counted and dropped,
/// and so is what the caller would have seen of it. Results and questions are still acted on.
pub const MAX_STORED_ROWS: u64 = 20_000;
/// Bytes that one run stores, for the same reason.
pub const MAX_STORED_BYTES: u64 = 64 * 1024 * 1024;
/// Questions of the agent that wait for an answer at one time.
pub const MAX_QUESTIONS: usize = 64;
/// The longest id of a question.
const MAX_QUESTION_ID_BYTES: usize = 256;
/// The id of the host's `initialize`.
const INITIALIZE_ID: &str = "host-initialize";
/// The id of the host's `interrupt`.
const INTERRUPT_ID: &str = "host-interrupt";

/// What the agent is told at the beginning; none for a command.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The prompt.
    pub prompt: String,
    /// The system prompt.
    pub system: Option<String>,
    /// Whether somebody answers questions.
    pub can_ask: bool,
}

/// A run under way.
#[derive(Debug)]
pub struct RunState {
    /// None: a command.
    opening: Option<Opening>,
    lines: Lines,
    stdout: Capture,
    stderr: Capture,
    /// Requests of the host that the agent has not answered.
    awaited: BTreeSet<&'static str>,
    /// Questions of the agent that nobody has answered.
    questions: BTreeSet<String>,
    result: Option<ResultMessage>,
    /// Of a command: the text of its last result frame.
    last_text: Option<String>,
    stopped: Option<RunStatus>,
    /// Why the agent could not begin.
    refused: Option<String>,
    exit_code: Option<i32>,
    counts: Counts,
}

impl RunState {
    /// A run of our agent.
    #[must_use]
    pub fn agent(opening: Opening) -> Self {
        Self::new(Some(opening))
    }

    /// A run of a command.
    #[must_use]
    pub fn command() -> Self {
        Self::new(None)
    }

    fn new(opening: Option<Opening>) -> Self {
        Self {
            opening,
            lines: Lines::default(),
            stdout: Capture::default(),
            stderr: Capture::default(),
            awaited: BTreeSet::new(),
            questions: BTreeSet::new(),
            result: None,
            last_text: None,
            stopped: None,
            refused: None,
            exit_code: None,
            counts: Counts::default(),
        }
    }

    /// Takes an event in and returns what is to be done.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut todo = Vec::new();
        match event {
            Event::Begun => self.begin(&mut todo),
            Event::Stdout(chunk) => self.read_stdout(&chunk, &mut todo),
            Event::StdoutEnded => {
                if let Some(line) = self.lines.finish() {
                    self.read_lines(vec![line], &mut todo);
                }
            }
            Event::Stderr(chunk) => self.read_stderr(&chunk, &mut todo),
            Event::Answered { request_id, answer } => self.answer(request_id, &answer, &mut todo),
            Event::TimeUp => self.stop(RunStatus::TimedOut, &mut todo),
            Event::Cancelled => self.stop(RunStatus::Cancelled, &mut todo),
            Event::GraceOver => {
                if self.exit_code.is_none() {
                    todo.push(Effect::Kill);
                }
            }
            Event::Exited(code) => {
                self.exit_code.get_or_insert(code);
                todo.extend(
                    std::mem::take(&mut self.questions)
                        .into_iter()
                        .map(|request_id| Effect::Withdraw { request_id }),
                );
            }
        }
        todo
    }

    /// Whether the run was told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    fn begin(&mut self, todo: &mut Vec<Effect>) {
        let Some(opening) = &self.opening else { return };
        let system_prompt = opening.system.clone().map(|text| vec![text]);
        let initialize =
            HostRequest::Initialize(Box::new(Initialize { system_prompt, ..Initialize::default() }));
        let prompt = UserMessage {
            message: MessageParam::new(Role::User, vec![ContentBlock::text(opening.prompt.clone())]),
            parent_tool_use_id: None,
            tool_use_result: None,
            uuid: None,
            session_id: Some(String::new()),
            extra: verbatim(),
        };
        todo.push(Effect::Write(Box::new(self.request(INITIALIZE_ID, &initialize))));
        todo.push(Effect::Write(Box::new(HostFrame::User(prompt))));
    }

    fn request(&mut self, id: &'static str, request: &HostRequest) -> HostFrame {
        self.awaited.insert(id);
        let request = serde_json::to_value(request).expect("our own requests have string keys only");
        HostFrame::ControlRequest(ControlRequest::new(id, request))
    }

    /// Ends the run early, once: an agent is asked to, a command is not.
    fn stop(&mut self, why: RunStatus, todo: &mut Vec<Effect>) {
        if self.exit_code.is_some() || self.stopped.is_some() {
            return;
        }
        // An agent that said its result and only has not exited yet is done, not stopped.
        if self.result.is_some() {
            return todo.push(Effect::Kill);
        }
        self.stopped = Some(why);
        if self.opening.is_some() {
            let interrupt = self.request(INTERRUPT_ID, &HostRequest::Interrupt {});
            todo.push(Effect::Write(Box::new(interrupt)));
            todo.push(Effect::StartGrace(Grace::Interrupt));
        } else {
            todo.push(Effect::Kill);
        }
    }

    fn read_stdout(&mut self, chunk: &[u8], todo: &mut Vec<Effect>) {
        if self.opening.is_none() {
            self.stdout.push(chunk, MAX_CAPTURED_BYTES);
        }
        let lines = self.lines.push(chunk);
        self.read_lines(lines, todo);
    }

    fn read_lines(&mut self, lines: Vec<Line>, todo: &mut Vec<Effect>) {
        // Output that is no frame is passed on together, up to the next frame.
        let mut output = String::new();
        for line in lines {
            let text = match line {
                Line::Whole(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => text,
                    Err(error) if self.opening.is_none() => {
                        output.push_str(&String::from_utf8_lossy(error.as_bytes()));
                        output.push('\n');
                        continue;
                    }
                    Err(_) => {
                        self.counts.rejected += 1;
                        continue;
                    }
                },
                Line::TooLong { bytes } => {
                    self.counts.rejected += 1;
                    if self.opening.is_none() {
                        output.push_str(&format!("[wardian: a line of {bytes} bytes]\n"));
                    }
                    continue;
                }
            };
            if self.is_full() && !may_matter(&text) {
                self.counts.dropped += 1;
            } else if self.opening.is_some() {
                self.read_frame(&text, todo);
            } else if let Some(message) = message_of_command(&text) {
                self.flush(Stream::Stdout, &mut output, todo);
                self.read_command_message(message, todo);
            } else {
                output.push_str(&text);
                output.push('\n');
            }
        }
        self.flush(Stream::Stdout, &mut output, todo);
    }

    fn read_stderr(&mut self, chunk: &[u8], todo: &mut Vec<Effect>) {
        self.stderr.push(chunk, MAX_CAPTURED_BYTES);
        let mut text = String::from_utf8_lossy(chunk).into_owned();
        self.flush(Stream::Stderr, &mut text, todo);
    }

    fn flush(&mut self, stream: Stream, text: &mut String, todo: &mut Vec<Effect>) {
        if text.is_empty() {
            return;
        }
        let text = std::mem::take(text);
        let kind = match stream {
            Stream::Stdout => "output.stdout",
            Stream::Stderr => "output.stderr",
        };
        if self.store(kind, json!({"text": text}), text.len(), todo) && self.opening.is_none() {
            todo.push(Effect::Show(Show::Output { stream, text }));
        }
    }

    /// Whether the run has stored its share.
    const fn is_full(&self) -> bool {
        self.counts.rows >= MAX_STORED_ROWS || self.counts.bytes >= MAX_STORED_BYTES
    }

    /// Keeps a row, unless the run has stored its share: then it is counted, and false.
    fn store(&mut self, kind: &'static str, payload: Value, bytes: usize, todo: &mut Vec<Effect>) -> bool {
        if self.is_full() {
            self.counts.dropped += 1;
            return false;
        }
        self.counts.rows += 1;
        self.counts.bytes = self.counts.bytes.saturating_add(bytes as u64);
        todo.push(Effect::Store(Row { kind, payload }));
        true
    }

    fn read_frame(&mut self, line: &str, todo: &mut Vec<Effect>) {
        if line.trim().is_empty() {
            return;
        }
        match AgentFrame::parse(line) {
            Err(_) => self.counts.rejected += 1,
            Ok(AgentFrame::Message(SdkMessage::Result(result))) => {
                self.read_result(*result, line.len(), todo)
            }
            Ok(AgentFrame::Message(message)) => {
                let value = message.to_value();
                let row = claimed(&value);
                if self.store(row_kind(&message), row, line.len(), todo) && is_for_callers(&message) {
                    todo.push(Effect::Show(Show::Message(value)));
                }
            }
            Ok(AgentFrame::ControlRequest(request)) => self.read_question(request, line.len(), todo),
            Ok(AgentFrame::ControlResponse(response)) => self.read_answer(&response.response, todo),
            Ok(AgentFrame::ControlCancelRequest(cancel)) => {
                if self.questions.remove(&cancel.request_id) {
                    todo.push(Effect::Withdraw { request_id: cancel.request_id });
                } else {
                    self.counts.unasked += 1;
                }
            }
        }
    }

    /// The first result ends the turn; there was one prompt, so there is no second.
    fn read_result(&mut self, result: ResultMessage, bytes: usize, todo: &mut Vec<Effect>) {
        if self.result.is_some() {
            self.counts.unasked += 1;
            return;
        }
        let value = SdkMessage::Result(Box::new(result.clone())).to_value();
        self.store("frame.result", claimed(&value), bytes, todo);
        todo.push(Effect::Show(Show::FinalMessage(value)));
        todo.push(Effect::CloseInput);
        todo.push(Effect::StartGrace(Grace::Exit));
        self.result = Some(result);
    }

    fn read_question(&mut self, request: ControlRequest, bytes: usize, todo: &mut Vec<Effect>) {
        let id = request.request_id;
        if id.len() > MAX_QUESTION_ID_BYTES {
            self.counts.rejected += 1;
            return;
        }
        let can_ask = self.opening.as_ref().is_some_and(|opening| opening.can_ask);
        let question = match serde_json::from_value::<AgentRequest>(request.request) {
            Ok(AgentRequest::CanUseTool(question)) => question,
            Ok(AgentRequest::HookCallback { .. } | AgentRequest::Other(_)) | Err(_) => {
                let error = "this host offers no such thing";
                return todo.push(Effect::Write(Box::new(HostFrame::ControlResponse(
                    ControlResponse::error(id, error),
                ))));
            }
        };
        let payload = json!({"source": "claimed", "request_id": id, "tool_name": question.tool_name, "input": question.input});
        self.store("permission.asked", payload, bytes, todo);
        if can_ask && self.questions.len() < MAX_QUESTIONS && self.questions.insert(id.clone()) {
            todo.push(Effect::Ask { request_id: id, question: Box::new(question) });
        } else if can_ask && self.questions.contains(&id) {
            self.counts.unasked += 1;
        } else {
            let message = "nobody can be asked here, so the call is denied".to_owned();
            let deny = PermissionAnswer::Deny { message, interrupt: false, extra: JsonMap::new() };
            self.reply(id, &deny, todo);
        }
    }

    fn answer(&mut self, request_id: String, answer: &PermissionAnswer, todo: &mut Vec<Effect>) {
        if self.questions.remove(&request_id) {
            self.reply(request_id, answer, todo);
        }
    }

    fn reply(&mut self, request_id: String, answer: &PermissionAnswer, todo: &mut Vec<Effect>) {
        let behavior = match answer {
            PermissionAnswer::Allow { .. } => "allow",
            PermissionAnswer::Deny { .. } => "deny",
        };
        let payload = json!({"source": "observed", "request_id": request_id, "behavior": behavior});
        self.store("permission.answered", payload, 100, todo);
        let body = serde_json::to_value(answer).expect("our own answers have string keys only");
        todo.push(Effect::Write(Box::new(HostFrame::ControlResponse(ControlResponse::success(
            request_id, body,
        )))));
    }

    fn read_answer(&mut self, answer: &ControlAnswer, todo: &mut Vec<Effect>) {
        if !self.awaited.remove(answer.request_id()) {
            self.counts.unasked += 1;
            return;
        }
        if let ControlAnswer::Error { request_id, error, .. } = answer
            && request_id == INITIALIZE_ID
        {
            self.refused = Some(format!("the agent refused to begin: {error}"));
            todo.push(Effect::Kill);
        }
    }

    fn read_command_message(&mut self, message: SdkMessage, todo: &mut Vec<Effect>) {
        if let SdkMessage::Result(result) = &message
            && let Some(text) = &result.result
        {
            self.last_text = Some(text.clone());
        }
        let value = message.to_value();
        let bytes = value.to_string().len();
        if self.store(row_kind(&message), claimed(&value), bytes, todo) {
            todo.push(Effect::Show(Show::Message(value)));
        }
    }
}

/// Whether a line could be a result or a control frame, which are heard even when nothing is stored any more. A flood of
/// anything else is not worth parsing.
fn may_matter(line: &str) -> bool {
    line.contains("\"result\"") || line.contains("\"control_")
}

/// A line of a command's output that reads as a message of the Agent SDK.
fn message_of_command(line: &str) -> Option<SdkMessage> {
    if !line.starts_with('{') {
        return None;
    }
    match AgentFrame::parse(line) {
        Ok(AgentFrame::Message(SdkMessage::Other(_))) | Err(_) => None,
        Ok(AgentFrame::Message(message)) => Some(message),
        Ok(
            AgentFrame::ControlRequest(_)
            | AgentFrame::ControlResponse(_)
            | AgentFrame::ControlCancelRequest(_),
        ) => None,
    }
}

/// What an agent says is a claim; the log says so.
fn claimed(frame: &Value) -> Value {
    json!({"source": "claimed", "frame": frame})
}

const fn row_kind(message: &SdkMessage) -> &'static str {
    match message {
        SdkMessage::System(_) => "frame.system",
        SdkMessage::Assistant(_) => "frame.assistant",
        SdkMessage::User(_) => "frame.user",
        SdkMessage::Result(_) => "frame.result",
        SdkMessage::StreamEvent(_) => "frame.stream_event",
        SdkMessage::Other(_) => "frame.other",
    }
}

/// Some messages are between agent and host only.
fn is_for_callers(message: &SdkMessage) -> bool {
    !matches!(message, SdkMessage::System(system) if system.subtype == "session_state_changed")
}

#[cfg(test)]
mod tests;
