//! Hook inputs and outputs.
//!
//! source: the agent protocol reference, section 1.4.

mod answers;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::JsonMap;
use crate::control::PermissionAnswer;

/// Which callbacks run for which tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookMatcher {
    /// A tool name, `A|B`, or a regular expression; absent or empty: every tool.
    pub matcher: Option<String>,
    /// The callbacks, in order.
    pub hook_callback_ids: Vec<String>,
    /// How long a callback may take, in seconds.
    pub timeout: Option<f64>,
    /// `continue` (default) or `block`, when a callback fails.
    pub on_failure: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// What a hook is told: what every event has, and the event's own fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookInput {
    /// The event: `PreToolUse`, …
    pub hook_event_name: String,
    /// The session.
    pub session_id: String,
    /// Where the session's transcript is, or would be.
    pub transcript_path: String,
    /// The working directory.
    pub cwd: String,
    /// The prompt that this belongs to; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<String>,
    /// `default`, `acceptEdits`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<String>,
    /// The subagent in which this happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// What kind of agent it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// The event's own fields.
    #[serde(flatten)]
    pub fields: JsonMap,
    /// The call that this is about, also where the event's fields do not say so.
    #[serde(skip)]
    pub call: Option<String>,
}

impl HookInput {
    /// Returns a field of the event that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// Returns the tool, for events of tools.
    #[must_use]
    pub fn tool_name(&self) -> Option<&str> {
        self.text("tool_name")
    }

    /// Returns the call, for events of tools.
    #[must_use]
    pub fn tool_use_id(&self) -> Option<&str> {
        self.text("tool_use_id")
    }

    /// Returns what the tool is to do, for events of tools.
    #[must_use]
    pub fn tool_input(&self) -> Option<&Value> {
        self.fields.get("tool_input")
    }
}

/// What a hook answers. An empty object means: go on. The Python SDK turns `continue_` and `async_` into these names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookOutput {
    /// False ends the turn.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub go_on: Option<bool>,
    /// Why the turn ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// For the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_message: Option<String>,
    /// The older form: `approve` or `block`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Why, with `decision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The hook goes on by itself; what it says later holds nothing up.
    #[serde(rename = "async", skip_serializing_if = "Option::is_none")]
    pub is_async: Option<bool>,
    /// What the event's own kind of hook may say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_specific_output: Option<HookSpecificOutput>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// What hooks of single events may say. An event takes the fields that are its own, and no others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookSpecificOutput {
    /// The event's name again.
    pub hook_event_name: String,
    /// `PreToolUse`: allow, deny, ask or defer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_decision: Option<PermissionDecision>,
    /// `PreToolUse`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_decision_reason: Option<String>,
    /// `PreToolUse`: what the tool is to do instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_input: Option<Value>,
    /// Told to the model besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_context: Option<String>,
    /// `PostToolUse`: what the tool gave instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_tool_output: Option<Value>,
    /// `PostToolUse`: the same, for tools of MCP servers only.
    #[serde(rename = "updatedMCPToolOutput", skip_serializing_if = "Option::is_none")]
    pub updated_mcp_tool_output: Option<Value>,
    /// `PermissionRequest`: what is answered in the host's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<PermissionAnswer>,
    /// `PermissionDenied`: whether the model may try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<bool>,
    /// `UserPromptSubmit`, `SessionStart`: the session's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_title: Option<String>,
    /// `UserPromptSubmit`: whether a block does not repeat the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppress_original_prompt: Option<bool>,
    /// `SessionStart`: said in the user's place, first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_user_message: Option<String>,
    /// `Elicitation`, `ElicitationResult`: `accept`, `decline` or `cancel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `Elicitation`, `ElicitationResult`: what is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// `MessageDisplay`: shown in place of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_content: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// What a hook decides about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PermissionDecision {
    /// Run it without asking; deny and ask rules still hold.
    Allow,
    /// Refuse it.
    Deny,
    /// Ask the host.
    Ask,
    /// End the turn with the call not run.
    Defer,
}
