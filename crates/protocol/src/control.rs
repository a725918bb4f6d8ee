//! Control frames: requests with an id, and their answers.
//!
//! source: the agent protocol reference, sections 1.2, 2.3, 2.4, 2.5.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::JsonMap;
use crate::hook::HookMatcher;

/// `{"type":"control_request","request_id":…,"request":{"subtype":…}}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlRequest {
    /// Chosen by who asks; the answer carries it.
    pub request_id: String,
    /// What is asked, `subtype` and fields; [`HostRequest`] and [`AgentRequest`] read the known ones.
    pub request: Value,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// `{"type":"control_response","response":{…}}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlResponse {
    /// The answer.
    pub response: ControlAnswer,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// `{"type":"control_cancel_request","request_id":…}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlCancelRequest {
    /// The request that needs no answer any more.
    pub request_id: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// The answer to a control request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "subtype", rename_all = "snake_case")]
pub enum ControlAnswer {
    /// It was done.
    Success {
        /// The request.
        request_id: String,
        /// What it gave; missing reads as null.
        #[serde(default)]
        response: Value,
        /// `pending_permission_requests` and what is not known.
        #[serde(flatten)]
        extra: JsonMap,
    },
    /// It was not.
    Error {
        /// The request.
        request_id: String,
        /// Why.
        #[serde(default)]
        error: String,
        /// What is not known.
        #[serde(flatten)]
        extra: JsonMap,
    },
}

impl ControlRequest {
    /// A request.
    #[must_use]
    pub fn new(request_id: impl Into<String>, request: Value) -> Self {
        Self { request_id: request_id.into(), request, extra: JsonMap::new() }
    }
}

impl ControlCancelRequest {
    /// Takes a request back.
    #[must_use]
    pub fn new(request_id: impl Into<String>) -> Self {
        Self { request_id: request_id.into(), extra: JsonMap::new() }
    }
}

impl ControlAnswer {
    /// The request that this answers.
    #[must_use]
    pub fn request_id(&self) -> &str {
        match self {
            Self::Success { request_id, .. } | Self::Error { request_id, .. } => request_id,
        }
    }
}

impl ControlResponse {
    /// An answer that something was done.
    #[must_use]
    pub fn success(request_id: impl Into<String>, response: Value) -> Self {
        let request_id = request_id.into();
        let response = ControlAnswer::Success { request_id, response, extra: JsonMap::new() };
        Self { response, extra: JsonMap::new() }
    }

    /// An answer that it was not, and why.
    #[must_use]
    pub fn error(request_id: impl Into<String>, error: impl Into<String>) -> Self {
        let (request_id, error) = (request_id.into(), error.into());
        let response = ControlAnswer::Error { request_id, error, extra: JsonMap::new() };
        Self { response, extra: JsonMap::new() }
    }
}

/// What a host may ask an agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "subtype", rename_all = "snake_case")]
pub enum HostRequest {
    /// The first frame: how the session is set up.
    Initialize(Box<Initialize>),
    /// Stop the turn.
    Interrupt {},
    /// From now on, this mode.
    SetPermissionMode {
        /// `default`, `acceptEdits`, …
        mode: String,
    },
    /// From now on, this model.
    SetModel {
        /// None: the one that the session began with.
        #[serde(default)]
        model: Option<String>,
    },
    /// A subtype that this version does not know.
    #[serde(untagged)]
    Other(Value),
}

impl<'de> Deserialize<'de> for HostRequest {
    /// Reads a request. Wrong fields of a known subtype are an error: they do not make it one that is not known.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Mode {
            mode: String,
        }
        #[derive(Deserialize)]
        struct Model {
            model: Option<String>,
        }
        let request = Subtyped::read(deserializer)?;
        match request.subtype.as_deref() {
            Some("initialize") => request.fields().map(Box::new).map(Self::Initialize),
            Some("interrupt") => Ok(Self::Interrupt {}),
            Some("set_permission_mode") => {
                request.fields().map(|Mode { mode }| Self::SetPermissionMode { mode })
            }
            Some("set_model") => request.fields().map(|Model { model }| Self::SetModel { model }),
            Some(_) | None => Ok(Self::Other(request.value)),
        }
    }
}

/// A request before its fields are read.
struct Subtyped {
    subtype: Option<String>,
    value: Value,
}

impl Subtyped {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let subtype = value.get("subtype").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { subtype, value })
    }

    fn fields<T: DeserializeOwned, E: serde::de::Error>(mut self) -> Result<T, E> {
        if let Some(fields) = self.value.as_object_mut() {
            fields.shift_remove("subtype");
        }
        let named = |error| E::custom(format!("{}: {error}", self.subtype.unwrap_or_default()));
        serde_json::from_value(self.value).map_err(named)
    }
}

/// The fields of `initialize`. Python sends `hooks: null`; no field is needed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Initialize {
    /// Callbacks by hook event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<std::collections::BTreeMap<String, Vec<HookMatcher>>>,
    /// The system prompt, a block each; absent: the agent's own preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<Vec<String>>,
    /// Added to the system prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub append_system_prompt: Option<String>,
    /// Everything else, known to later versions.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// What an agent may ask its host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "subtype", rename_all = "snake_case")]
pub enum AgentRequest {
    /// May this tool be used so?
    CanUseTool(CanUseTool),
    /// Run a hook that the host registered.
    HookCallback {
        /// From `initialize`.
        callback_id: String,
        /// The hook's input.
        input: Value,
        /// The call, for tool events.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tool_use_id: Option<String>,
    },
    /// A subtype that this version does not know.
    #[serde(untagged)]
    Other(Value),
}

impl<'de> Deserialize<'de> for AgentRequest {
    /// Reads a request. Wrong fields of a known subtype are an error: they do not make it one that is not known.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Callback {
            callback_id: String,
            #[serde(default)]
            input: Value,
            tool_use_id: Option<String>,
        }
        let request = Subtyped::read(deserializer)?;
        match request.subtype.as_deref() {
            Some("can_use_tool") => request.fields().map(Self::CanUseTool),
            Some("hook_callback") => request.fields().map(|Callback { callback_id, input, tool_use_id }| {
                Self::HookCallback { callback_id, input, tool_use_id }
            }),
            Some(_) | None => Ok(Self::Other(request.value)),
        }
    }
}

/// The question whether a tool may be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CanUseTool {
    /// The tool.
    pub tool_name: String,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What it is to do.
    pub input: Value,
    /// The call.
    pub tool_use_id: String,
    /// What the call does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The path that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_path: Option<String>,
    /// Why it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_reason: Option<String>,
    /// `rule`, `mode`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_reason_type: Option<String>,
    /// `permission_suggestions` and what is not known.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// The host's answer to [`CanUseTool`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "behavior", rename_all = "snake_case")]
pub enum PermissionAnswer {
    /// It may, maybe with another input.
    Allow {
        /// What it is to do instead.
        #[serde(default, rename = "updatedInput", skip_serializing_if = "Option::is_none")]
        updated_input: Option<Value>,
        /// `updatedPermissions`, `toolUseID`.
        #[serde(flatten)]
        extra: JsonMap,
    },
    /// It may not.
    Deny {
        /// The reason, told to the model word for word.
        #[serde(default)]
        message: String,
        /// Whether the turn ends too.
        #[serde(default)]
        interrupt: bool,
        /// `toolUseID`.
        #[serde(flatten)]
        extra: JsonMap,
    },
}
