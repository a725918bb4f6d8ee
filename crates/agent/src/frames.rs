//! Makes the messages that a query gives, in the shapes of the agent protocol reference, sections 1.3 and 2.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use wardian_policy::Reason;
use wardian_protocol::frame::{StreamEventMessage, SystemMessage};
use wardian_protocol::{ContentBlock, JsonMap, MessageParam, Role, Usage};

use crate::random::uuid;
use crate::task::{Task, Tasks};
use crate::transcript::Journal;
use crate::{AssistantMessage, Error, Message, UserMessage, words};

/// The version of the official CLI whose protocol this engine speaks; the SDKs refuse to use what is older.
pub const PROTOCOL_VERSION: &str = "2.1.330";

/// Where the messages go, each with its id, the session's, and the time.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) sender: mpsc::Sender<Result<Message, Error>>,
    pub(crate) session_id: String,
    pub(crate) clock: fn() -> jiff::Timestamp,
    /// The session's working directory.
    pub(crate) cwd: PathBuf,
    /// Where what is said is kept before it is shown.
    pub(crate) journal: Option<Arc<Journal>>,
    /// The subagent that speaks; none: the main thread.
    pub(crate) agent: Option<Arc<AgentTag>>,
}

/// Which subagent a message is of.
#[derive(Debug)]
pub(crate) struct AgentTag {
    pub(crate) agent_id: String,
    pub(crate) agent_type: String,
    /// The call that began it.
    pub(crate) parent_tool_use_id: String,
    pub(crate) description: String,
    /// 1 for one that the main thread began.
    pub(crate) depth: usize,
    /// Whether the host asked for its texts too.
    pub(crate) forwards_text: bool,
    /// Calls that it made.
    pub(crate) tool_uses: AtomicU64,
    /// What the last reply with a call used.
    pub(crate) last_tokens: AtomicU64,
    pub(crate) task: Task,
    pub(crate) tasks: Tasks,
}

impl AgentTag {
    /// Whether its messages are shown: those of subagents of subagents are not. source: the reference CLI.
    const fn is_shown(&self) -> bool {
        self.depth == 1
    }

    /// Whether a block of its replies is shown: in the foreground only its calls are, unless the host wants all.
    fn shows(&self, message: &AssistantMessage) -> bool {
        let is_call = |block: &ContentBlock| matches!(block, ContentBlock::ToolUse { .. });
        self.is_shown()
            && (self.forwards_text
                || self.task.is_backgrounded()
                || message.message.content.iter().any(is_call))
    }

    /// Tells how far it is, as it makes a call.
    async fn progress(&self, message: &AssistantMessage, cwd: &Path) {
        let call = message.message.content.iter().find_map(|block| match block {
            ContentBlock::ToolUse { name, input, .. } => Some((name, input)),
            ContentBlock::Text { .. }
            | ContentBlock::Thinking { .. }
            | ContentBlock::ToolResult { .. }
            | ContentBlock::Other(_) => None,
        });
        let Some((name, input)) = call else { return };
        let used = &message.message.usage;
        let tokens = [
            used.input_tokens,
            used.output_tokens,
            used.cache_creation_input_tokens,
            used.cache_read_input_tokens,
        ];
        let tokens = tokens.into_iter().flatten().fold(0, u64::saturating_add);
        self.last_tokens.store(tokens, Ordering::Relaxed);
        let usage = json!({
            "total_tokens": tokens,
            "tool_uses": self.tool_uses.fetch_add(1, Ordering::Relaxed) + 1,
            "duration_ms": u64::try_from(self.task.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        let doing = words::doing(name, input, cwd);
        self.tasks.progress(&self.task, &doing, &self.agent_type, usage, ("last_tool_name", name)).await;
    }
}

/// Messages about the session as a whole, which a subagent has none of.
const MAIN_ONLY: &[&str] =
    &["api_retry", "compact_boundary", "init", "session_state_changed", "status", "thinking_tokens"];

impl Out {
    /// Gives a message. Nobody may be listening any more: then the session is being stopped, and this does nothing.
    pub(crate) async fn send(&self, message: Message) {
        let _ = self.sender.send(Ok(message)).await;
    }

    pub(crate) async fn system(&self, subtype: &str, fields: Value) {
        if self.agent.is_some() && MAIN_ONLY.contains(&subtype) {
            return;
        }
        let mut map = JsonMap::new();
        if let Value::Object(fields) = fields {
            map.extend(fields);
        }
        map.insert("uuid".to_owned(), uuid().into());
        map.insert("session_id".to_owned(), self.session_id.clone().into());
        self.send(Message::System(SystemMessage { subtype: subtype.to_owned(), fields: map })).await;
    }

    pub(crate) async fn state(&self, state: &str) {
        self.system("session_state_changed", json!({"state": state, "sdk_host_only": true})).await;
    }

    pub(crate) async fn assistant(&self, message: wardian_protocol::Message, more: JsonMap) {
        self.assistant_shown_as(message, more, None).await;
    }

    /// Gives a text of a reply with another in its place, or not at all if that is empty. What is kept is the reply.
    pub(crate) async fn assistant_shown_as(
        &self,
        message: wardian_protocol::Message,
        more: JsonMap,
        shown: Option<String>,
    ) {
        let mut extra = self.stamped();
        extra.extend(more);
        let error = extra.shift_remove("error").and_then(|error| error.as_str().map(str::to_owned));
        let mut message = AssistantMessage {
            message,
            parent_tool_use_id: self.parent(),
            error,
            uuid: Some(uuid()),
            session_id: Some(self.session_id.clone()),
            extra,
        };
        if self.keep_assistant(&message).await.is_err() {
            return;
        }
        match shown {
            Some(text) if text.is_empty() => return,
            Some(text) => message.message.content = vec![ContentBlock::text(text)],
            None => (),
        }
        let Some(agent) = &self.agent else { return self.send(Message::Assistant(Box::new(message))).await };
        let (is_shown, is_beside) = (agent.shows(&message), agent.task.is_backgrounded());
        if !is_beside {
            agent.progress(&message, &self.cwd).await;
        }
        if is_shown {
            self.send(Message::Assistant(Box::new(message.clone()))).await;
        }
        if is_beside {
            agent.progress(&message, &self.cwd).await;
        }
    }

    /// Says in the model's place what went wrong.
    pub(crate) async fn synthetic(&self, text: &str, stop_reason: &str, more: JsonMap) {
        let message =
            wardian_protocol::Message { stop_sequence: Some(String::new()), ..nobodys(text, stop_reason) };
        self.assistant(message, more).await;
    }

    /// Gives what a command came to as the model's words. It is no part of the conversation.
    pub(crate) async fn local_output(&self, text: &str, more: Value) {
        let mut extra = self.stamped();
        if let Value::Object(more) = more {
            extra.extend(more);
        }
        let message = AssistantMessage {
            message: nobodys(text, "end_turn"),
            parent_tool_use_id: None,
            error: None,
            uuid: Some(uuid()),
            session_id: Some(self.session_id.clone()),
            extra,
        };
        self.send(Message::Assistant(Box::new(message))).await;
    }

    /// Gives what a command came to as what the user sees. It is kept already.
    pub(crate) async fn replayed(&self, content: Vec<ContentBlock>, uuid: &str) {
        let mut extra = self.stamped();
        extra.insert("isReplay".to_owned(), true.into());
        let message = UserMessage {
            message: MessageParam::new(Role::User, content),
            parent_tool_use_id: None,
            tool_use_result: None,
            uuid: Some(uuid.to_owned()),
            session_id: Some(self.session_id.clone()),
            extra,
        };
        self.send(Message::User(message)).await;
    }

    pub(crate) async fn user(
        &self,
        content: Vec<ContentBlock>,
        tool_use_result: Option<Value>,
        synthetic: bool,
    ) {
        self.user_with(content, tool_use_result, synthetic, JsonMap::new()).await;
    }

    /// Gives the result of a call. `meta`: who decided about it.
    pub(crate) async fn tool_result(&self, result: ContentBlock, structured: Value, meta: Option<Value>) {
        let meta = meta.map(|meta| ("tool_result_meta".to_owned(), vec![meta].into()));
        self.user_with(vec![result], Some(structured), false, meta.into_iter().collect()).await;
    }

    /// Gives what is said to the model, with more fields.
    pub(crate) async fn user_with(
        &self,
        content: Vec<ContentBlock>,
        tool_use_result: Option<Value>,
        synthetic: bool,
        more: JsonMap,
    ) {
        let mut extra = self.stamped();
        if synthetic {
            extra.insert("isSynthetic".to_owned(), true.into());
        }
        extra.extend(more);
        let message = UserMessage {
            message: MessageParam::new(Role::User, content),
            parent_tool_use_id: self.parent(),
            tool_use_result,
            uuid: Some(uuid()),
            session_id: Some(self.session_id.clone()),
            extra,
        };
        let is_kept = self.keep_user(&message, synthetic).await.is_ok();
        let mut message = message;
        if self.agent.is_some() {
            // source: the reference CLI: of a subagent's results only what failed is told.
            message.tool_use_result = message.tool_use_result.filter(Value::is_string);
        }
        if is_kept && self.agent.as_ref().is_none_or(|agent| agent.is_shown()) {
            self.send(Message::User(message)).await;
        }
    }

    /// Why nothing can be kept any more, if that is so.
    pub(crate) fn lost(&self) -> Option<String> {
        self.journal.as_ref()?.failure().map(str::to_owned)
    }

    pub(crate) async fn stream_event(&self, event: Value, message_id: Option<&str>, more: JsonMap) {
        if self.agent.is_some() {
            return;
        }
        let mut extra = more;
        if let Some(id) = message_id {
            extra.insert("api_message_id".to_owned(), id.into());
        }
        self.send(Message::StreamEvent(StreamEventMessage {
            event,
            parent_tool_use_id: self.parent(),
            uuid: Some(uuid()),
            session_id: Some(self.session_id.clone()),
            extra,
        }))
        .await;
    }

    pub(crate) async fn permission_denied(&self, tool: &str, id: &str, message: &str, reason: &Reason) {
        let mut fields = json!({"tool_name": tool, "tool_use_id": id, "message": message});
        if let Some(kind) = reason.kind.as_str() {
            fields["decision_reason_type"] = kind.into();
        }
        if reason.kind.needs_words() {
            fields["decision_reason"] = reason.text.as_str().into();
        }
        self.system("permission_denied", fields).await;
    }

    /// Tells that a call of the main thread still runs, for the `count`th time. source: the official CLI, observed.
    pub(crate) async fn still_running(&self, tool: &str, id: &str, count: u32, elapsed: Duration) {
        if self.agent.is_some() {
            return;
        }
        let frame = json!({
            "type": "tool_progress",
            "tool_use_id": format!("{id}-heartbeat-{count}"),
            "tool_name": tool,
            "parent_tool_use_id": id,
            "elapsed_time_seconds": elapsed.as_secs(),
            "heartbeat": true,
            "session_id": self.session_id,
            "uuid": uuid(),
        });
        self.send(Message::Other(frame)).await;
    }

    pub(crate) async fn hook_failed(&self, text: &str) {
        let fields = json!({"content": text, "level": "warning", "tag": "hook_callback_failed"});
        self.system("informational", fields).await;
    }

    fn parent(&self) -> Option<String> {
        self.agent.as_ref().map(|agent| agent.parent_tool_use_id.clone())
    }

    fn stamped(&self) -> JsonMap {
        let mut extra = JsonMap::new();
        extra.insert("timestamp".to_owned(), self.timestamp().into());
        if let Some(agent) = &self.agent {
            extra.insert("agent_id".to_owned(), agent.agent_id.clone().into());
            extra.insert("subagent_type".to_owned(), agent.agent_type.clone().into());
            extra.insert("task_description".to_owned(), agent.description.clone().into());
        }
        extra
    }

    pub(crate) fn timestamp(&self) -> String {
        format!("{:.3}", (self.clock)())
    }
}

/// A reply that no model gave.
fn nobodys(text: &str, stop_reason: &str) -> wardian_protocol::Message {
    wardian_protocol::Message {
        id: uuid(),
        kind: "message".to_owned(),
        role: Role::Assistant,
        model: "<synthetic>".to_owned(),
        content: vec![ContentBlock::text(text)],
        stop_reason: Some(stop_reason.to_owned()),
        stop_sequence: None,
        usage: crate::meter::unused(),
        extra: ["container", "context_management", "diagnostics", "stop_details"]
            .into_iter()
            .map(|name| (name.to_owned(), Value::Null))
            .collect(),
    }
}

/// One block of a reply as a reply of its own.
pub(crate) fn one_block(
    reply: &wardian_protocol::Message,
    block: ContentBlock,
    usage: Usage,
) -> wardian_protocol::Message {
    wardian_protocol::Message {
        id: reply.id.clone(),
        kind: reply.kind.clone(),
        role: Role::Assistant,
        model: reply.model.clone(),
        content: vec![block],
        stop_reason: None,
        stop_sequence: None,
        usage,
        extra: JsonMap::from_iter([("context_management".to_owned(), Value::Null)]),
    }
}

/// A block as it is shown and sent back. The API takes only objects as tool inputs and only short plain tool names, so
/// what the model wrote otherwise is made to fit: else every later request would be refused.
pub(crate) fn presentable(block: &ContentBlock) -> ContentBlock {
    let mut block = block.clone();
    if let ContentBlock::ToolUse { name, input, .. } = &mut block {
        if !input.is_object() {
            *input = Value::Object(JsonMap::new());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > MAX_TOOL_NAME_BYTES || !name.chars().all(plain) {
            let fitting: String = name.chars().filter(|c| plain(*c)).take(MAX_TOOL_NAME_BYTES).collect();
            *name = if fitting.is_empty() { "unnamed".to_owned() } else { fitting };
        }
    }
    block
}

/// source: the Messages API's own limit.
const MAX_TOOL_NAME_BYTES: usize = 128;
