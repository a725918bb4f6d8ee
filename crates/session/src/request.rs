//! What a run is asked to do, and the checks that it passes before anything is made.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use wardian_protocol::control::{CanUseTool, PermissionAnswer};
use wardian_protocol::{KeyId, NanoUsd, OrgId, RequestId, SessionId};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The organisation.
    pub org_id: OrgId,
    /// The user that the caller is bound to. None: it may name any user of the organisation.
    pub user_id: Option<String>,
    /// The API key; none in process.
    pub key_id: Option<KeyId>,
}

/// What a run is asked to do.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The id under which everything about this run is recorded.
    pub request_id: RequestId,
    /// What the agent is told.
    pub prompt: String,
    /// What runs in the sandbox.
    pub runtime: Runtime,
    /// The model, a name or an alias; none: the engine's default.
    pub model: Option<String>,
    /// The system prompt; none: the agent's own.
    pub system: Option<String>,
    /// What the agent may do.
    pub permissions: Permissions,
    /// Files to write into the workspace first.
    pub files: Vec<RunFile>,
    /// The user for whom this is done.
    pub user: Option<String>,
    /// Limits; what is not asked for is the engine's default.
    pub limits: LimitsAsked,
    /// The session to go on with; none: a new one.
    pub session_id: Option<SessionId>,
    /// Where the agent works.
    pub place: Place,
}

impl RunRequest {
    /// A request with the defaults of everything but the prompt.
    #[must_use]
    pub fn new(request_id: RequestId, prompt: impl Into<String>) -> Self {
        Self {
            request_id,
            prompt: prompt.into(),
            runtime: Runtime::Wardian,
            model: None,
            system: None,
            permissions: Permissions::Sandbox,
            files: Vec::new(),
            user: None,
            limits: LimitsAsked::default(),
            session_id: None,
            place: Place::Hosted,
        }
    }
}

/// What runs in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Our own agent.
    Wardian,
    /// Any program, by its arguments; an argument that is exactly `$PROMPT` becomes the prompt.
    Command(Vec<String>),
}

/// What the agent may do in its sandbox.
#[derive(Clone)]
pub enum Permissions {
    /// Everything: the sandbox is the wall.
    Sandbox,
    /// These, in the Agent SDK's rule syntax; the rest is denied.
    Only(Vec<String>),
    /// What needs no asking; for the rest somebody is asked.
    Ask(Arc<dyn PermissionAsker>),
}

impl fmt::Debug for Permissions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox => out.write_str("Sandbox"),
            Self::Only(rules) => out.debug_tuple("Only").field(rules).finish(),
            Self::Ask(_) => out.write_str("Ask(_)"),
        }
    }
}

/// Answers an agent's question whether it may use a tool: a terminal, a window.
pub trait PermissionAsker: Send + Sync {
    /// Answers; the run waits, its clock goes on. Dropped when the question is withdrawn or the run ends.
    fn ask<'a>(&'a self, question: &'a CanUseTool) -> BoxFuture<'a, PermissionAnswer>;
}

/// A file to write into the workspace.
#[derive(Clone, PartialEq, Eq)]
pub struct RunFile {
    /// Its path, relative to the workspace.
    pub path: String,
    /// What is in it.
    pub content: Vec<u8>,
}

impl fmt::Debug for RunFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RunFile({:?}, {} bytes)", self.path, self.content.len())
    }
}

/// Limits as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsAsked {
    /// Rounds between model and tools.
    pub max_turns: Option<u32>,
    /// Money.
    pub max_cost: Option<NanoUsd>,
    /// Wall time.
    pub timeout: Option<Duration>,
}

/// Where the agent works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the session's own folder on this host, `/workspace` inside.
    Hosted,
    /// In a folder of the user, at its own path inside: `wardian run`.
    Local(PathBuf),
}
