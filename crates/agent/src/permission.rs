//! Who may use which tool: what the host is asked, and what it may answer.

mod kept;
mod suggest;
mod update;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use wardian_policy::ReasonKind;
use wardian_protocol::control::PermissionAnswer;

use crate::mcp::McpToolOrigin;

pub(crate) use kept::keep;
pub(crate) use suggest::suggestions;
pub use update::{Destination, PermissionChange, PermissionUpdate, RuleKind, SettingsFiles};

/// Is asked about calls that hooks, rules and mode left open. When the turn is interrupted, its future is dropped.
pub type CanUseTool = Arc<dyn Fn(PermissionRequest) -> BoxFuture<'static, Permission> + Send + Sync>;

/// Makes an async closure what is asked about calls.
///
/// ```
/// use wardian_agent::{Options, Permission, can_use_tool};
///
/// let options = Options {
///     can_use_tool: Some(can_use_tool(|request| async move {
///         match request.tool_name.as_str() {
///             "Write" | "Edit" => Permission::allow(),
///             tool => Permission::deny(format!("{tool} is not for this agent.")),
///         }
///     })),
///     ..Options::default()
/// };
/// ```
pub fn can_use_tool<Ask, Answer>(ask: Ask) -> CanUseTool
where
    Ask: Fn(PermissionRequest) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Permission> + Send + 'static,
{
    Arc::new(move |request| Box::pin(ask(request)))
}

/// A call that somebody must decide about.
#[derive(Clone, Debug, PartialEq)]
pub struct PermissionRequest {
    /// The tool.
    pub tool_name: String,
    /// What it is to do, after hooks.
    pub input: Value,
    /// The call.
    pub tool_use_id: String,
    /// The path that is the reason, where one is.
    pub blocked_path: Option<String>,
    /// Why this is asked, for people.
    pub reason: String,
    /// What made it a question.
    pub reason_kind: ReasonKind,
    /// What an answer may bring so that the like is not asked again.
    pub suggestions: Vec<PermissionUpdate>,
    /// The subagent that asks.
    pub agent_id: Option<String>,
    /// Where the tool comes from, if it is a server's.
    pub mcp_server: Option<McpToolOrigin>,
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Permission {
    /// It runs.
    Allow {
        /// What it is to do instead.
        updated_input: Option<Value>,
        /// What holds from now on.
        updates: Vec<PermissionUpdate>,
    },
    /// It does not run.
    Deny {
        /// The reason, told to the model word for word.
        message: String,
        /// Whether the turn ends too.
        interrupt: bool,
    },
}

impl Permission {
    /// It runs as it is.
    #[must_use]
    pub const fn allow() -> Self {
        Self::Allow { updated_input: None, updates: Vec::new() }
    }

    /// It does not run, and the turn goes on.
    #[must_use]
    pub fn deny(message: impl Into<String>) -> Self {
        Self::Deny { message: message.into(), interrupt: false }
    }
}

impl From<PermissionAnswer> for Permission {
    /// Takes a host's answer over. Changes in it that are not understood change nothing.
    fn from(answer: PermissionAnswer) -> Self {
        match answer {
            PermissionAnswer::Allow { updated_input, extra } => {
                let updates = extra.get("updatedPermissions").and_then(Value::as_array);
                Self::Allow {
                    updated_input: updated_input.filter(Value::is_object),
                    updates: updates.into_iter().flatten().filter_map(PermissionUpdate::read).collect(),
                }
            }
            PermissionAnswer::Deny { message, interrupt, extra: _ } => Self::Deny { message, interrupt },
        }
    }
}
