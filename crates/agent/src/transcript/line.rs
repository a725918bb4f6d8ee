//! The lines of a transcript: how they are written, and what of them is read back.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use wardian_protocol::{ContentBlock, JsonMap, MessageParam, NanoUsd, Role, frame::ModelUsage};

use super::Unkept;
use crate::compact::{Boundary, summary_frame};
use crate::frames::{Out, PROTOCOL_VERSION};
use crate::meter::Meter;
use crate::random::uuid;
use crate::{AssistantMessage, Message, SystemMessage, UserMessage};

/// Before a call is executed.
pub(super) const TOOL_STARTED: &str = "wardian_tool_started";
/// When a reply is over: whether it stays in the conversation, and what all has cost.
pub(super) const REPLY_ENDED: &str = "wardian_reply_ended";
/// When a turn is over.
pub(super) const TURN_ENDED: &str = "wardian_turn_ended";
/// Before the first message of a host that took the conversation up at an earlier one.
pub(super) const REWOUND: &str = "wardian_rewound";
/// Where Bash is, and which files were read.
pub(super) const TOOL_STATE: &str = "wardian_tool_state";
/// The system prompt that is to stay.
pub(super) const SYSTEM_PROMPT: &str = "wardian_system_prompt";
/// Where a summary takes the place of all before.
pub(super) const COMPACT_BOUNDARY: &str = "compact_boundary";
/// Structured outputs over this many bytes are left out: they are for who watched, and nothing reads them again.
const MAX_STRUCTURED_BYTES: usize = 64 * 1024;

/// So much of a prompt names a session.
const MAX_LAST_PROMPT_CHARS: usize = 200;

/// What is read of a line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'a> {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) subtype: Option<String>,
    pub(super) uuid: Option<String>,
    #[serde(default, borrow)]
    pub(super) message: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) is_sidechain: bool,
    #[serde(default)]
    pub(super) is_prompt: bool,
    /// Only our own lines have it.
    #[serde(default)]
    pub(super) wardian_version: Option<String>,
    pub(super) tool_use_id: Option<String>,
    #[serde(default)]
    pub(super) kept: bool,
    pub(super) stop_reason: Option<String>,
    pub(super) total_cost_usd: Option<Value>,
    pub(super) model_usage: Option<Map<String, Value>>,
    pub(super) result: Option<Value>,
    pub(super) session_id: Option<String>,
    pub(super) timestamp: Option<String>,
    pub(super) error: Option<String>,
    #[serde(default, borrow)]
    pub(super) tool_use_result: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) tool_result_meta: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) is_meta: bool,
    #[serde(default)]
    pub(super) is_compact_summary: bool,
    /// The SDKs' helpers copied it from another session, without what only we need.
    pub(super) forked_from: Option<IgnoredAny>,
    pub(super) compact_metadata: Option<CompactMetadata>,
    pub(super) to: Option<String>,
    pub(super) system: Option<Vec<String>>,
    pub(super) state: Option<Value>,
    /// As the official CLI spells it.
    #[serde(rename = "totalCostUSD")]
    pub(super) total_cost: Option<Value>,
}

/// What is read of a `compact_boundary`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CompactMetadata {
    pub(super) preserved_messages: Option<Preserved>,
}

/// The messages that stay as they are beside the summary.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Preserved {
    pub(super) uuids: Vec<String>,
}

impl Line<'_> {
    /// Whether this program wrote it, and with it all that belongs to it.
    pub(super) const fn is_ours(&self) -> bool {
        self.wardian_version.is_some() && self.forked_from.is_none()
    }

    /// What all has cost by then, and by which model.
    pub(super) fn costs(&self) -> Option<(NanoUsd, BTreeMap<String, ModelUsage>)> {
        let total = amount(self.total_cost_usd.as_ref().or(self.total_cost.as_ref())?)?;
        let of_model = |(model, used): (&String, &Value)| Some((model.clone(), usage(used)?));
        Some((total, self.model_usage.as_ref()?.iter().filter_map(of_model).collect()))
    }

    /// Whether it is a prompt, whoever wrote it.
    pub(super) fn begins_turn(&self) -> bool {
        let answers = self.tool_use_result.is_some()
            || self.message.is_some_and(|message| message.get().contains("\"tool_result\""));
        self.kind == "user" && (self.is_prompt || !self.is_ours() && !self.is_meta && !answers)
    }

    /// The message as it was given; `None` for what was not given: prompts, and what hooks say to the model.
    pub(super) fn frame(&self) -> Option<Value> {
        if self.is_prompt || self.is_meta {
            return None;
        }
        let message: Value = serde_json::from_str(self.message?.get()).ok()?;
        let mut frame = json!({
            "type": self.kind,
            "message": message,
            "parent_tool_use_id": null,
            "uuid": self.uuid,
            "session_id": self.session_id,
            "timestamp": self.timestamp,
            "isReplay": true,
        });
        if let Some(error) = &self.error {
            frame["error"] = error.clone().into();
        }
        if let Some(structured) = self.tool_use_result {
            frame["tool_use_result"] = serde_json::from_str(structured.get()).ok()?;
        }
        if let Some(meta) = self.tool_result_meta {
            frame["tool_result_meta"] = serde_json::from_str(meta.get()).ok()?;
        }
        Some(frame)
    }
}

impl Out {
    /// Keeps a reply's block. An error: it was not kept, and must not be shown.
    pub(crate) async fn keep_assistant(&self, message: &AssistantMessage) -> Result<(), Unkept> {
        let mut fields = when(&message.extra);
        if let Some(id) = message.extra.get("request_id") {
            fields.insert("requestId".to_owned(), id.clone());
        }
        if let Some(error) = &message.error {
            fields.insert("isApiErrorMessage".to_owned(), true.into());
            fields.insert("error".to_owned(), error.clone().into());
        }
        self.keep("assistant", message.uuid.as_deref().unwrap_or_default(), &message.message, fields).await
    }

    /// Keeps what was said to the model.
    pub(crate) async fn keep_user(&self, message: &UserMessage, is_meta: bool) -> Result<(), Unkept> {
        let mut fields = when(&message.extra);
        if is_meta {
            fields.insert("isMeta".to_owned(), true.into());
        }
        if let Some(structured) = &message.tool_use_result
            && structured.to_string().len() <= MAX_STRUCTURED_BYTES
        {
            fields.insert("toolUseResult".to_owned(), structured.clone());
        }
        if let Some(meta) = message.extra.get("tool_result_meta") {
            fields.insert("toolResultMeta".to_owned(), meta.clone());
        }
        self.keep("user", message.uuid.as_deref().unwrap_or_default(), &message.message, fields).await
    }

    /// Keeps a prompt, under the id that its sender gave it.
    pub(crate) async fn keep_prompt(
        &self,
        uuid: &str,
        message: &MessageParam,
        mode: &str,
    ) -> Result<(), Unkept> {
        let mut fields = Map::new();
        fields.insert("permissionMode".to_owned(), mode.into());
        fields.insert("isPrompt".to_owned(), true.into());
        self.keep("user", uuid, message, fields).await?;
        let Some(journal) = &self.journal else { return Ok(()) };
        // The SDKs' helpers name sessions by it.
        let text: String = first_text(&message.content).chars().take(MAX_LAST_PROMPT_CHARS).collect();
        let line = json!({"type": "last-prompt", "lastPrompt": text, "leafUuid": uuid, "sessionId": self.session_id});
        journal.append(&line).await
    }

    /// Keeps a command that was typed, under the id that its sender gave it.
    pub(crate) async fn keep_command(
        &self,
        uuid: &str,
        message: &MessageParam,
        mode: &str,
    ) -> Result<(), Unkept> {
        let mut fields = Map::new();
        fields.insert("permissionMode".to_owned(), mode.into());
        fields.insert("isPrompt".to_owned(), true.into());
        self.keep("user", uuid, message, fields).await
    }

    /// Keeps what a command came to.
    pub(crate) async fn keep_said(&self, uuid: &str, content: Vec<ContentBlock>) -> Result<(), Unkept> {
        self.keep("user", uuid, &MessageParam::new(Role::User, content), Map::new()).await
    }

    /// Keeps a boundary and the summary behind it, and gives both.
    pub(crate) async fn compacted(&self, boundary: &Boundary, summary: String) {
        let timestamp = self.timestamp();
        let mut frame = json!({"uuid": boundary.uuid, "session_id": self.session_id,
            "compact_metadata": boundary.metadata()});
        let mut message = summary_frame(&boundary.summary, &self.session_id, summary);
        message.extra.insert("timestamp".to_owned(), timestamp.clone().into());
        message.extra.insert("isSynthetic".to_owned(), true.into());
        if let Some(journal) = &self.journal {
            let before = journal.follow(&boundary.uuid);
            frame["logical_parent_uuid"] = json!(before);
            let line = json!({
                "parentUuid": null,
                "logicalParentUuid": before,
                "isSidechain": false,
                "type": "system",
                "subtype": COMPACT_BOUNDARY,
                "content": "Conversation compacted",
                "isMeta": false,
                "level": "info",
                "compactMetadata": boundary.kept_metadata(),
                "cwd": self.cwd,
                "sessionId": self.session_id,
                "version": PROTOCOL_VERSION,
                "uuid": boundary.uuid,
                "timestamp": timestamp,
                "wardianVersion": env!("CARGO_PKG_VERSION"),
            });
            let mut fields = when(&message.extra);
            fields.insert("isCompactSummary".to_owned(), true.into());
            fields.insert("isVisibleInTranscriptOnly".to_owned(), true.into());
            if journal.append(&line).await.is_err()
                || self.keep("user", &boundary.summary, &message.message, fields).await.is_err()
            {
                return;
            }
        }
        let fields = frame.as_object().cloned().unwrap_or_default();
        self.send(Message::System(SystemMessage { subtype: COMPACT_BOUNDARY.to_owned(), fields })).await;
        self.send(Message::User(message)).await;
    }

    /// Keeps the name that the host gave the session.
    pub(crate) async fn keep_title(&self, title: &str) -> Result<(), Unkept> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let line = json!({"type": "custom-title", "customTitle": title, "sessionId": self.session_id});
        journal.append(&line).await
    }

    /// Notes what tools know.
    pub(super) async fn keep_tool_state(&self, fields: Value) {
        // What was not written is found out at the next turn of the loop.
        let _ = self.note(TOOL_STATE, fields).await;
    }

    /// Notes the system prompt that is to stay.
    pub(crate) async fn keep_system_prompt(&self, system: &[String]) {
        // What was not written is found out at the next turn of the loop.
        let _ = self.note(SYSTEM_PROMPT, json!({"system": system})).await;
    }

    /// Keeps what hooks said to the model.
    pub(crate) async fn keep_context(&self, content: Vec<ContentBlock>) {
        let mut fields = Map::new();
        fields.insert("isMeta".to_owned(), true.into());
        // What was not written is found out at the next turn of the loop.
        let _ = self.keep("user", &uuid(), &MessageParam::new(Role::User, content), fields).await;
    }

    async fn keep(
        &self,
        kind: &str,
        uuid: &str,
        message: &(impl Serialize + Sync),
        more: Map<String, Value>,
    ) -> Result<(), Unkept> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let mut line = json!({
            "parentUuid": journal.follow(uuid),
            "isSidechain": self.agent.is_some(),
            "userType": "external",
            "cwd": self.cwd,
            "sessionId": self.session_id,
            "version": PROTOCOL_VERSION,
            "type": kind,
            "message": message,
            "uuid": uuid,
            "timestamp": self.timestamp(),
            "gitBranch": journal.branch(),
            "wardianVersion": env!("CARGO_PKG_VERSION"),
        });
        if let Some(agent) = &self.agent {
            line["agentId"] = agent.agent_id.clone().into();
        }
        if let Value::Object(fields) = &mut line {
            fields.extend(more);
        }
        journal.append(&line).await
    }

    /// Notes that a call is about to be executed: should the process die, it is not executed again.
    pub(crate) async fn keep_started(&self, tool_use_id: &str) -> Result<(), Unkept> {
        self.note(TOOL_STARTED, json!({"toolUseId": tool_use_id})).await
    }

    /// Notes the end of a reply.
    pub(crate) async fn keep_reply_end(&self, kept: bool, stop_reason: Option<&str>, meter: &Meter) {
        let fields = json!({
            "kept": kept,
            "stopReason": stop_reason,
            "totalCostUsd": meter.total(),
            "modelUsage": meter.by_model(),
        });
        // What was not written is found out at the next turn of the loop.
        let _ = self.note(REPLY_ENDED, fields).await;
    }

    /// Notes the end of a turn.
    pub(crate) async fn keep_turn_end(&self, result: &Message) {
        if self.journal.is_some() {
            // The host is told all the same.
            let _ = self.note(TURN_ENDED, json!({"result": result})).await;
        }
    }

    async fn note(&self, subtype: &str, fields: Value) -> Result<(), Unkept> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let mut line = json!({
            "type": "system",
            "subtype": subtype,
            "sessionId": self.session_id,
            "timestamp": self.timestamp(),
        });
        if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
            line.extend(fields);
        }
        journal.append(&line).await
    }
}

/// An amount of money; the official CLI sums in floating point, which leaves more digits than there are.
fn amount(value: &Value) -> Option<NanoUsd> {
    let exact = serde_json::from_value(value.clone()).ok();
    exact.or_else(|| NanoUsd::from_claimed_usd(value.as_f64()?))
}

fn usage(value: &Value) -> Option<ModelUsage> {
    let mut value = value.clone();
    if let Some(cost) = value.get("costUSD").and_then(amount) {
        value["costUSD"] = json!(cost);
    }
    serde_json::from_value(value).ok()
}

fn first_text(content: &[ContentBlock]) -> &str {
    for block in content {
        if let ContentBlock::Text { text, .. } = block {
            return text;
        }
    }
    ""
}

/// The time that a message was given: the same here as there.
fn when(extra: &JsonMap) -> Map<String, Value> {
    extra.get_key_value("timestamp").map(|(name, at)| (name.clone(), at.clone())).into_iter().collect()
}
