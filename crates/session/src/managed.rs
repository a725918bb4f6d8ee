//! Managed sessions: what a caller may ask of one, and what it is shown.

mod actor;
mod engine;
mod files;
mod worker;

pub(crate) use engine::Actors;
pub use files::MAX_COPY_BYTES;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wardian_protocol::{AgentId, EnvironmentId, EventId, NanoUsd, OrgId, ResourceId, SessionId};
use wardian_store::{SessionStatus, Tokens};

use crate::error::{FieldError, Full};

/// What a session was made with; what of it may change says [`SessionUpdate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The agent as it was when the session was made: the `agent` object of the API, `version` included.
    pub agent: Value,
    /// The environment's `config`, as effective on this server.
    pub environment: Value,
    /// A title for people.
    pub title: Option<String>,
    /// The caller's own pairs.
    pub metadata: BTreeMap<String, String>,
    /// The most that the session may cost; none: the server's own cap alone.
    pub budget: Option<NanoUsd>,
    /// The `resources` objects of the API.
    pub resources: Vec<Value>,
    /// Always empty today.
    pub vault_ids: Vec<String>,
}

/// A session to be made. Ids come from the caller, so that a repeated request makes the same session.
#[derive(Clone, Debug)]
pub struct NewManagedSession {
    /// Its id.
    pub id: SessionId,
    /// Its user, set once.
    pub user: Option<String>,
    /// The agent that it was made from.
    pub agent_id: AgentId,
    /// Which version of it.
    pub agent_version: u64,
    /// The environment that it runs in.
    pub environment_id: EnvironmentId,
    /// Everything else.
    pub definition: Definition,
    /// Events to begin with, in order.
    pub initial_events: Vec<(EventId, UserEvent)>,
}

/// What a client says to a session. Shapes are checked already, meaning is not.
#[derive(Clone, Debug, PartialEq)]
pub enum UserEvent {
    /// `user.message`
    Message {
        /// Content blocks, as the Messages API takes them.
        content: Vec<Value>,
    },
    /// `user.interrupt`
    Interrupt,
    /// `user.tool_confirmation`
    ToolConfirmation {
        /// The `agent.tool_use` event.
        tool_use_id: EventId,
        /// Whether it may run.
        result: Confirmation,
    },
    /// `user.custom_tool_result`
    CustomToolResult {
        /// The `agent.custom_tool_use` event.
        custom_tool_use_id: EventId,
        /// What the tool gave: content blocks.
        content: Vec<Value>,
        /// Whether it failed.
        is_error: bool,
    },
}

/// Whether a call may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Confirmation {
    /// It may, once.
    Allow,
    /// It may not.
    Deny {
        /// Why, told to the model.
        message: Option<String>,
    },
}

/// A session as its owner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// Its org.
    pub org_id: OrgId,
    /// Its user.
    pub user: Option<String>,
    /// Where it is in its life.
    pub status: SessionStatus,
    /// The agent that it was made from.
    pub agent_id: AgentId,
    /// Which version of it.
    pub agent_version: u64,
    /// The environment that it runs in.
    pub environment_id: EnvironmentId,
    /// What it was made with.
    pub definition: Definition,
    /// What it has used so far.
    pub usage: SessionUsage,
    /// The `seq` of its last event.
    pub last_seq: u64,
    /// Its place in the queue of turns that wait, 1 for the next; none when nothing waits.
    pub queue_position: Option<usize>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
}

/// What a session has used, counted by the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SessionUsage {
    /// Tokens by class.
    pub tokens: Tokens,
    /// What they cost at list prices.
    pub cost: NanoUsd,
    /// How long turns have run, added up.
    pub active: Duration,
}

/// What is to change; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionUpdate {
    /// The title; inner `None` removes it.
    pub title: Option<Option<String>>,
    /// Pairs to set, and with `None` to remove.
    pub metadata: BTreeMap<String, Option<String>>,
    /// The budget; inner `None` removes it.
    pub budget: Option<Option<NanoUsd>>,
    /// The agent's resolved `tools`.
    pub agent_tools: Option<Value>,
    /// Resources to add.
    pub add_resources: Vec<Value>,
    /// A resource to remove.
    pub remove_resource: Option<ResourceId>,
}

/// Why a session did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No such session, or somebody else's: the same answer.
    #[error("find the session")]
    NotFound,
    /// A session of this id exists; not this caller's doing.
    #[error("make the session: its id is taken")]
    Exists,
    /// The request is wrong; every field that is.
    #[error("accept the request: {}", crate::error::list(.0))]
    Invalid(Vec<FieldError>),
    /// Not in the state that the session is in.
    #[error("change the session: {0}")]
    Conflict(String),
    /// All places and the queue before them are taken.
    #[error("queue a turn: {0}")]
    Full(Full),
    /// The server is stopping.
    #[error("use the session: the server is stopping")]
    Stopping,
    /// Another server has the session now.
    #[error("use the session: another server runs it")]
    Elsewhere,
    /// The store failed; nothing that was acknowledged is lost.
    #[error("store what happened")]
    Store(#[source] wardian_store::Error),
    /// A bug.
    #[error("use the session: an internal error")]
    Internal,
}

/// Which previews a follower wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Previews {
    /// Of `agent.message`: its start and every piece of text.
    pub message: bool,
    /// Of `agent.thinking`: its start only.
    pub thinking: bool,
}

/// What a follower of a session gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// A row of the log.
    Event {
        /// Its place, gapless.
        seq: u64,
        /// Its type.
        kind: std::sync::Arc<str>,
        /// The whole event as JSON text.
        data: std::sync::Arc<str>,
    },
    /// A preview of an event that is being made; never stored.
    Preview {
        /// `event_start` or `event_delta`.
        kind: &'static str,
        /// The whole preview as JSON text.
        data: std::sync::Arc<str>,
    },
}
