//! Compaction: the model sums a conversation up, and it goes on from the summary.
//!
//! source: the agent protocol reference, sections 1.3, 1.4 and 2.7, and what the official CLI was seen to do. What was said
//! stays on disk, behind a boundary. A prompt that waits for its answer stays as it is; of a turn under way the summary
//! says how far it has come.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wardian_protocol::{ContentBlock, MessageParam, Role, Usage};

use crate::authorise::lock;
use crate::call::{Called, call_model};
use crate::hook::{HookEvent, SessionHooks};
use crate::models::context_window;
use crate::session::{Session, Setup};
use crate::spending::{Spending, millis};
use crate::switch::LastReply;
use crate::turn::Turn;
use crate::{AutoCompact, UserMessage, random, words};

/// What of a context window is left free before a conversation is compacted: room for a summary, and for a turn's last
/// results. source: the official CLI's thresholds.
const RESERVED_TOKENS: u64 = 33_000;
/// The most tokens of a summary.
const MAX_SUMMARY_TOKENS: u64 = 20_000;
/// How often in a row automatic compaction may fail before it is given up.
const MAX_FAILURES: u32 = 3;
/// How often the older half of a conversation is left out of a summary that would not fit.
const MAX_HALVINGS: u32 = 4;
/// What a token has, roughly, of text.
const BYTES_A_TOKEN: u64 = 4;
/// What an image or a document takes, roughly; their bytes say nothing about it.
const IMAGE_TOKENS: u64 = 1_600;
const DOCUMENT_TOKENS: u64 = 3_000;

/// Why a conversation is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    Manual,
    Auto,
}

impl Trigger {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Auto => "auto",
        }
    }
}

/// Why it was not compacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Uncompacted {
    /// There is nothing to sum up.
    Empty,
    /// The turn was stopped.
    Stopped,
    /// A hook refused, or the model gave no summary.
    Failed(String),
}

/// How full the context window is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fill {
    /// What the API counted of the conversation up to and with the last reply, and how many messages those were.
    counted: Option<(u64, usize)>,
    last: Option<Usage>,
    failures: u32,
    /// How much automatic compaction has taken out.
    pub(crate) dropped: u64,
}

impl Fill {
    /// What the API counted of the last reply, if there was one.
    pub(crate) fn usage(&self) -> Option<Value> {
        let usage = self.last.as_ref()?;
        Some(json!({
            "input_tokens": usage.input_tokens.unwrap_or(0),
            "output_tokens": usage.output_tokens.unwrap_or(0),
            "cache_creation_input_tokens": usage.cache_creation_input_tokens.unwrap_or(0),
            "cache_read_input_tokens": usage.cache_read_input_tokens.unwrap_or(0),
        }))
    }
}

impl Session {
    /// Notes what the API counted. Called when a reply has joined the conversation.
    pub(crate) fn note_fill(&mut self, usage: &Usage) {
        self.fill.counted = Some((context_tokens(usage), self.history.len()));
        self.fill.last = Some(usage.clone());
        if self.setup.out.agent.is_none() {
            let last = LastReply { tokens: context_tokens(usage), at: Instant::now() };
            lock(&self.setup.live).last_reply = Some(last);
        }
    }

    /// How many tokens the next request has, roughly.
    pub(crate) fn estimated_tokens(&self) -> u64 {
        match self.fill.counted {
            Some((tokens, messages)) if messages <= self.history.len() => {
                tokens.saturating_add(estimate(&self.history[messages..]))
            }
            Some(_) | None => self.setup.fixed_tokens().saturating_add(estimate(&self.history)),
        }
    }

    /// Compacts the conversation where its window is nearly full. What goes wrong is said, and the turn goes on.
    pub(crate) async fn compact_if_full(&mut self, turn: &mut Turn, stop: &CancellationToken) {
        let model = turn.current_model(&self.setup);
        let Some(threshold) = self.setup.auto_compact_threshold(&model) else { return };
        if self.estimated_tokens() < threshold || self.fill.failures >= MAX_FAILURES {
            return;
        }
        self.compact_by_itself(turn, stop).await;
    }

    /// Compacts the conversation whatever its size: the API said that it is too long. False: it is as it was.
    pub(crate) async fn compact_by_itself(&mut self, turn: &mut Turn, stop: &CancellationToken) -> bool {
        match self.compact(turn, Trigger::Auto, None, stop).await {
            Ok(()) => {
                turn.progress.user_messages += 1;
                // One that frees nothing would come again with every reply.
                let threshold = self.setup.auto_compact_threshold(&turn.current_model(&self.setup));
                let is_full = threshold.is_some_and(|threshold| self.estimated_tokens() >= threshold);
                self.fill.failures = if is_full { self.fill.failures + 1 } else { 0 };
                true
            }
            Err(Uncompacted::Failed(_)) => {
                self.fill.failures += 1;
                false
            }
            Err(Uncompacted::Empty | Uncompacted::Stopped) => false,
        }
    }

    /// Sums the conversation up. `instructions`: what the user wants of the summary.
    pub(crate) async fn compact(
        &mut self,
        turn: &Turn,
        trigger: Trigger,
        instructions: Option<&str>,
        stop: &CancellationToken,
    ) -> Result<(), Uncompacted> {
        let (history, waiting) = self.without_waiting_prompt();
        if !history.iter().any(|message| message.role == Role::Assistant) {
            return Err(Uncompacted::Empty);
        }
        let setup = Arc::clone(&self.setup);
        if setup.limits.before_call(self.spent()).is_some() {
            return Err(Uncompacted::Failed(words::NO_MONEY_TO_COMPACT.to_owned()));
        }
        let fields = json!({"trigger": trigger.as_str(), "custom_instructions": instructions});
        let said = setup.hooks.run(HookEvent::PreCompact, trigger.as_str(), fields).await;
        setup.out.system("status", json!({"status": "compacting"})).await;
        let began = Instant::now();
        let summed_up = match said.stop.or(said.block) {
            Some(reason) => Err(Uncompacted::Failed(format!("a hook refused it: {reason}"))),
            None => {
                let mut wanted: Vec<&str> = instructions.into_iter().collect();
                wanted.extend(said.context.iter().map(String::as_str));
                setup.summary(&history, &wanted.join("\n"), &turn.current_model(&setup), stop).await
            }
        };
        let begun = match &summed_up {
            // A subagent's conversation is no session.
            Ok(_) if setup.out.agent.is_none() => {
                setup.hooks.session_started("compact", Some(&turn.current_model(&setup))).await
            }
            Ok(_) | Err(_) => Vec::new(),
        };
        let status = match &summed_up {
            Ok(_) => json!({"status": null, "compact_result": "success"}),
            Err(error) => {
                let message = match error {
                    Uncompacted::Failed(message) => message.as_str(),
                    Uncompacted::Empty => "there is nothing to sum up",
                    Uncompacted::Stopped => "it was stopped",
                };
                json!({"status": null, "compact_result": "failed", "compact_error": message})
            }
        };
        let (trigger_word, took_ms) = (trigger.as_str(), millis(began.elapsed()));
        tracing::info!(trigger = trigger_word, took_ms, done = summed_up.is_ok(), "compaction");
        setup.out.system("status", status).await;
        if trigger == Trigger::Manual {
            self.give_init(turn).await;
        }
        let summary = summed_up?;
        self.go_on_from(&summary, waiting, trigger, began.elapsed()).await;
        self.be_told(begun).await;
        let fields = json!({"trigger": trigger.as_str(), "compact_summary": summary});
        setup.hooks.run(HookEvent::PostCompact, trigger.as_str(), fields).await;
        Ok(())
    }

    /// The conversation without the prompt that waits for its answer, and that prompt.
    fn without_waiting_prompt(&self) -> (Vec<MessageParam>, Option<Waiting>) {
        let mut history = self.history.clone();
        let Some((uuid, start)) = &self.waiting_prompt else { return (history, None) };
        let Some(last) = history.last_mut().filter(|last| last.role == Role::User) else {
            return (history, None);
        };
        let content = last.content.split_off((*start).min(last.content.len()));
        if last.content.is_empty() {
            history.pop();
        }
        (history, Some(Waiting { uuid: uuid.clone(), content }))
    }

    async fn go_on_from(
        &mut self,
        summary: &str,
        waiting: Option<Waiting>,
        trigger: Trigger,
        took: Duration,
    ) {
        let before = self.estimated_tokens();
        let is_under_way = waiting.is_none() && trigger == Trigger::Auto;
        let text = words::summed_up(summary, is_under_way);
        self.history = vec![MessageParam::new(Role::User, vec![ContentBlock::text(text.clone())])];
        self.fill.counted = None;
        let kept: Vec<String> = waiting.iter().map(|waiting| waiting.uuid.clone()).collect();
        if let Some(Waiting { content, .. }) = waiting {
            self.hear(content);
        }
        let after = self.setup.fixed_tokens().saturating_add(estimate(&self.history));
        self.fill.dropped = self.fill.dropped.saturating_add(before.saturating_sub(after));
        let boundary = Boundary {
            uuid: random::uuid(),
            summary: random::uuid(),
            trigger: trigger.as_str(),
            before,
            after,
            took,
            kept,
        };
        self.setup.out.compacted(&boundary, text).await;
        self.say_opening("compact").await;
        if self.setup.opening.keeps_system_prompt {
            self.setup.out.keep_system_prompt(&self.setup.system).await;
        }
    }
}

/// A prompt that waits for its answer.
struct Waiting {
    uuid: String,
    content: Vec<ContentBlock>,
}

/// Where a summary took the place of what was said.
pub(crate) struct Boundary {
    pub(crate) uuid: String,
    /// The uuid of the summary.
    pub(crate) summary: String,
    trigger: &'static str,
    before: u64,
    after: u64,
    took: Duration,
    /// The messages that stay as they are.
    kept: Vec<String>,
}

impl Boundary {
    /// As hosts see it.
    pub(crate) fn metadata(&self) -> Value {
        let mut metadata = json!({
            "trigger": self.trigger,
            "pre_tokens": self.before,
            "post_tokens": self.after,
            "duration_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        });
        if !self.kept.is_empty() {
            metadata["preserved_messages"] = json!({"anchor_uuid": self.summary, "uuids": self.kept});
        }
        metadata
    }

    /// As the transcript has it.
    pub(crate) fn kept_metadata(&self) -> Value {
        let mut metadata = json!({
            "trigger": self.trigger,
            "preTokens": self.before,
            "postTokens": self.after,
            "durationMs": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        });
        if !self.kept.is_empty() {
            metadata["preservedMessages"] =
                json!({"anchorUuid": self.summary, "uuids": self.kept, "allUuids": self.kept});
        }
        metadata
    }
}

impl Setup {
    /// How many tokens a conversation may have before it is compacted by itself; `None`: it never is.
    pub(crate) fn auto_compact_threshold(&self, model: &str) -> Option<u64> {
        let window = self.compact_window(model)?;
        Some(window.saturating_sub(RESERVED_TOKENS).max(window / 2))
    }

    /// The window that compaction goes by.
    fn compact_window(&self, model: &str) -> Option<u64> {
        let known = context_window(model);
        match self.auto_compact {
            AutoCompact::Off => None,
            AutoCompact::ModelWindow => Some(known),
            AutoCompact::Window(tokens) => Some(tokens.min(known)),
        }
    }

    /// What every request has besides the conversation, roughly.
    pub(crate) fn fixed_tokens(&self) -> u64 {
        let system: usize = self.system.iter().map(String::len).sum();
        let tools: usize = self.definitions.iter().map(|tool| tool.to_string().len()).sum();
        tokens(system + tools)
    }

    /// Asks the model for a summary. Nothing of this is shown or kept but what it costs.
    async fn summary(
        &self,
        history: &[MessageParam],
        instructions: &str,
        model: &str,
        stop: &CancellationToken,
    ) -> Result<String, Uncompacted> {
        let quiet = self.quietly();
        let mut history = history;
        for _ in 0..=MAX_HALVINGS {
            let asked = with_request(history, &words::sum_up(instructions));
            let write = |max_tokens| self.request(model, max_tokens, &asked);
            let max_tokens = self.max_tokens(model).min(MAX_SUMMARY_TOKENS);
            match call_model(&quiet, &mut Spending::new(), max_tokens, write, false, stop).await {
                Called::Replied(whole) => return summary_of(&whole.message),
                Called::Failed(failure) if failure.is_too_long() => match newer_half(history) {
                    Some(half) => history = half,
                    None => return Err(Uncompacted::Failed(failure.describe())),
                },
                Called::Broken(_, failure) | Called::Failed(failure) => {
                    return Err(Uncompacted::Failed(failure.describe()));
                }
                Called::Interrupted(_) => return Err(Uncompacted::Stopped),
            }
        }
        Err(Uncompacted::Failed("the conversation is too long to be summed up".to_owned()))
    }

    /// The same set-up with nobody to hear of what it does, and nothing kept of it.
    pub(crate) fn quietly(&self) -> Self {
        let (nobody, _) = mpsc::channel(1);
        let mut quiet = self.clone();
        quiet.out.sender = nobody;
        quiet.out.journal = None;
        quiet.hooks = SessionHooks::none(&quiet.out, &quiet.live);
        quiet.include_partial_messages = false;
        quiet
    }
}

/// What of a window is kept free for compaction.
pub(crate) fn reserved(window: u64) -> u64 {
    window.saturating_sub(window.saturating_sub(RESERVED_TOKENS).max(window / 2))
}

/// The conversation with a request at its end.
pub(crate) fn with_request(history: &[MessageParam], request: &str) -> Vec<MessageParam> {
    let mut asked = history.to_vec();
    let block = ContentBlock::text(request);
    match asked.last_mut() {
        Some(last) if last.role == Role::User => last.content.push(block),
        Some(_) | None => asked.push(MessageParam::new(Role::User, vec![block])),
    }
    asked
}

/// The newer half, from a message of the user's on that answers no calls.
fn newer_half(history: &[MessageParam]) -> Option<&[MessageParam]> {
    let begins = |message: &MessageParam| {
        let answers = |block: &ContentBlock| matches!(block, ContentBlock::ToolResult { .. });
        message.role == Role::User && !message.content.iter().any(answers)
    };
    let middle = history.len() / 2;
    let at = middle.max(1) + history.get(middle.max(1)..)?.iter().position(begins)?;
    Some(&history[at..])
}

/// The text of a summary; models mark it when they think aloud before it. The conversation is given up for it, so what a
/// model says that refuses, or calls a tool instead, is none.
fn summary_of(reply: &wardian_protocol::Message) -> Result<String, Uncompacted> {
    let mut text = String::new();
    for block in &reply.content {
        if let ContentBlock::Text { text: more, .. } = block {
            text.push_str(more);
        }
    }
    let marked =
        text.split_once("<summary>").map(|(_, rest)| rest.split("</summary>").next().unwrap_or(rest));
    let is_said = match reply.stop_reason.as_deref() {
        Some("end_turn" | "stop_sequence" | "max_tokens") | None => true,
        Some("refusal") => return Err(Uncompacted::Failed("the model refused to sum up".to_owned())),
        Some(_) => marked.is_some(),
    };
    let summary = marked.unwrap_or(&text).trim();
    let summary = if is_said { summary } else { "" };
    if summary.is_empty() {
        return Err(Uncompacted::Failed("the model gave no summary".to_owned()));
    }
    Ok(summary.to_owned())
}

/// What a request and its reply had, all classes together.
pub(crate) fn context_tokens(usage: &Usage) -> u64 {
    let parts = [
        usage.input_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
        usage.output_tokens,
    ];
    parts.into_iter().flatten().fold(0, u64::saturating_add)
}

/// How many tokens messages have, roughly.
pub(crate) fn estimate(messages: &[MessageParam]) -> u64 {
    messages.iter().flat_map(|message| &message.content).map(estimate_block).sum()
}

pub(crate) fn estimate_block(block: &ContentBlock) -> u64 {
    match block {
        ContentBlock::Text { text, .. } => tokens(text.len()),
        ContentBlock::ToolUse { name, input, .. } => tokens(name.len() + input.to_string().len()),
        ContentBlock::ToolResult { content: Value::Array(blocks), .. } => {
            blocks.iter().map(estimate_value).sum()
        }
        ContentBlock::ToolResult { content, .. } => tokens(content.as_str().map_or(0, str::len)),
        // Kept by the API while the turn goes on, and left out later.
        ContentBlock::Thinking { .. } => 0,
        ContentBlock::Other(value) => estimate_value(value),
    }
}

fn estimate_value(value: &Value) -> u64 {
    match value["type"].as_str() {
        Some("image") => IMAGE_TOKENS,
        Some("document") => DOCUMENT_TOKENS,
        Some("text") => tokens(value["text"].as_str().map_or(0, str::len)),
        Some(_) | None => tokens(value.to_string().len()),
    }
}

/// The tokens of so many bytes of text.
pub(crate) fn tokens(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_A_TOKEN)
}

/// The frame of a summary.
pub(crate) fn summary_frame(uuid: &str, session_id: &str, text: String) -> UserMessage {
    UserMessage {
        message: MessageParam::new(Role::User, vec![ContentBlock::text(text)]),
        parent_tool_use_id: None,
        tool_use_result: None,
        uuid: Some(uuid.to_owned()),
        session_id: Some(session_id.to_owned()),
        extra: wardian_protocol::JsonMap::new(),
    }
}

impl Turn {
    /// The model that the turn goes to.
    pub(crate) fn current_model(&self, setup: &Setup) -> String {
        self.model.clone().unwrap_or_else(|| setup.model())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: Role, text: &str) -> MessageParam {
        MessageParam::new(role, vec![ContentBlock::text(text)])
    }

    #[test]
    fn summaries_are_what_is_marked_or_all_there_is() {
        let reply = |content: Value, stop_reason: &str| -> wardian_protocol::Message {
            let message = json!({"id": "m", "type": "message", "role": "assistant", "model": "m", "content": content,
                "stop_reason": stop_reason, "stop_sequence": null, "usage": {}});
            serde_json::from_value(message).unwrap()
        };
        let text = |text: &str| json!([{"type": "text", "text": text}]);
        let of = |said: &str| summary_of(&reply(text(said), "end_turn")).ok();
        for (text, expected) in [
            ("Plain.", Some("Plain.")),
            ("<analysis>a</analysis>\n<summary>\nThis.\n</summary> bye", Some("This.")),
            ("<summary>Cut", Some("Cut")),
            ("  ", None),
            ("<summary></summary>", None),
        ] {
            assert_eq!(of(text).as_deref(), expected, "{text}");
        }
        assert!(summary_of(&reply(json!([]), "end_turn")).is_err());
        for (said, stop_reason, expected) in [
            ("I cannot help with that.", "refusal", None),
            ("<summary>I cannot.</summary>", "refusal", None),
            ("Let me look first.", "tool_use", None),
            ("<summary>All.</summary>", "tool_use", Some("All.")),
            ("<summary>Cut", "max_tokens", Some("Cut")),
            ("Hm", "a reason of tomorrow", None),
        ] {
            let summary = summary_of(&reply(text(said), stop_reason)).ok();
            assert_eq!(summary.as_deref(), expected, "{said} {stop_reason}");
        }
    }

    #[test]
    fn half_of_a_conversation_begins_with_the_user_and_answers_nothing() {
        let (user, assistant) = (|text| said(Role::User, text), |text| said(Role::Assistant, text));
        let result = MessageParam::new(Role::User, vec![ContentBlock::tool_result("a", "x", false)]);
        let history = [
            user("1"),
            assistant("2"),
            user("3"),
            assistant("4"),
            result,
            assistant("5"),
            user("6"),
            assistant("7"),
        ];
        let half = newer_half(&history).unwrap();
        assert_eq!(half.len(), 2);
        assert_eq!(newer_half(half), None);
        assert_eq!(newer_half(&[]), None);
    }

    #[test]
    fn windows_leave_room() {
        assert_eq!(reserved(1_000_000), 33_000);
        assert_eq!(reserved(200_000), 33_000);
        assert_eq!(reserved(40_000), 20_000, "never more than half");
    }

    #[test]
    fn images_are_not_counted_by_their_bytes() {
        let image = json!({"type": "image", "source": {"type": "base64", "data": "x".repeat(1_000_000)}});
        let result = ContentBlock::ToolResult {
            tool_use_id: "a".to_owned(),
            content: json!([image, {"type": "text", "text": "x".repeat(400)}]),
            is_error: None,
            extra: wardian_protocol::JsonMap::new(),
        };
        assert_eq!(estimate_block(&result), IMAGE_TOKENS + 100);
        assert_eq!(estimate(&[said(Role::User, "12345")]), 2);
    }
}
