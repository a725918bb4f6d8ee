//! Who may use which tool: what the host is asked, and what it may answer.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use wardian_policy::{PermissionMode, ReasonKind, Rule};

/// Is asked about calls that hooks, rules and mode left open. When the turn is interrupted, its future is dropped.
pub type CanUseTool = Arc<dyn Fn(PermissionRequest) -> BoxFuture<'static, Permission> + Send + Sync>;

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

/// Which list of rules is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Calls that go through unasked.
    Allow,
    /// Calls that are asked about.
    Ask,
    /// Calls that are refused.
    Deny,
}

/// A change of the permissions for the rest of the query. Nothing is written to settings files.
#[derive(Clone, Debug)]
pub enum PermissionUpdate {
    /// More rules.
    AddRules(RuleKind, Vec<Rule>),
    /// These rules instead.
    ReplaceRules(RuleKind, Vec<Rule>),
    /// These rules no more.
    RemoveRules(RuleKind, Vec<Rule>),
    /// Another mode.
    SetMode(PermissionMode),
    /// More roots.
    AddDirectories(Vec<PathBuf>),
    /// These roots no more.
    RemoveDirectories(Vec<PathBuf>),
}
