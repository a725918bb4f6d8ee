//! Hook inputs and outputs.
//!
//! source: the agent protocol reference, section 1.4.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::JsonMap;

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

/// The input of a `PreToolUse` hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreToolUseInput {
    /// Always `PreToolUse`.
    pub hook_event_name: String,
    /// The session.
    pub session_id: String,
    /// Where the session's transcript is, or would be.
    pub transcript_path: String,
    /// The working directory.
    pub cwd: String,
    /// `default`, `acceptEdits`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<String>,
    /// The tool.
    pub tool_name: String,
    /// What it is to do.
    pub tool_input: Value,
    /// The call.
    pub tool_use_id: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
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
    /// What the event's own kind of hook may say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_specific_output: Option<PreToolUseOutput>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// What a `PreToolUse` hook may say of the call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PreToolUseOutput {
    /// The event's name again.
    pub hook_event_name: String,
    /// Allow, deny, ask or defer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_decision: Option<PermissionDecision>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_decision_reason: Option<String>,
    /// What the tool is to do instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_input: Option<Value>,
    /// Told to the model besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_context: Option<String>,
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
