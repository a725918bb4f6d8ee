//! Managed sessions: what one is, who has it, and what is written to it.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use wardian_protocol::{AgentId, EnvironmentId, EventId, OrgId, RequestId, SessionId};

use crate::{CreatedRange, NewEvent, Order, Page, SessionRecord, SessionStatus};

/// What makes a new session a managed one. The store does not look for the agent and the environment: the session has a
/// copy of both in its definition.
#[derive(Clone, Debug)]
pub struct NewManaged {
    /// The agent that it was made from.
    pub agent_id: AgentId,
    /// The agent's version.
    pub agent_version: u64,
    /// The environment that it was made from.
    pub environment_id: EnvironmentId,
    /// What it is, in the caller's own terms; at most [`crate::MAX_DEFINITION_BYTES`] as JSON.
    pub definition: Value,
    /// Where its owner stands, in the owner's own terms; at most [`crate::MAX_STATE_BYTES`] as JSON.
    pub state: Value,
    /// The first events of its log.
    pub events: Vec<NewEvent>,
    /// When it wants to be looked at.
    pub wake_at: Option<Timestamp>,
}

/// What a managed session has beside what every session has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedRecord {
    /// The agent that it was made from.
    pub agent_id: AgentId,
    /// The agent's version.
    pub agent_version: u64,
    /// The environment that it was made from.
    pub environment_id: EnvironmentId,
    /// What it is.
    pub definition: Value,
    /// Where its owner stands.
    pub state: Value,
    /// When it wants to be looked at.
    pub wake_at: Option<Timestamp>,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// Who took it last and has not given it back; may be dead.
    pub lease_owner: Option<String>,
    /// How often it was taken: the fence of the newest lease.
    pub fence: u64,
}

/// Which managed sessions to list.
#[derive(Clone, Debug)]
pub struct SessionQuery {
    /// Only those made from this agent.
    pub agent_id: Option<AgentId>,
    /// Only those made from this version of an agent.
    pub agent_version: Option<u64>,
    /// Only those in one of these, where it is not empty.
    pub statuses: Vec<SessionStatus>,
    /// Only those made within this range.
    pub created: CreatedRange,
    /// Archived ones too.
    pub include_archived: bool,
    /// Only this user's.
    pub user_id: Option<String>,
    /// Which of them.
    pub page: Page,
}

/// What came of an attempt to take a managed session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It is the asker's until it gives it back or dies.
    Taken {
        /// Shows with every write that nobody has taken it since.
        fence: u64,
        /// The session as it is now.
        record: SessionRecord,
    },
    /// An owner that lives has it.
    Held,
    /// No such managed session in this org.
    Missing,
}

/// A write to a managed session: all of it or nothing.
#[derive(Clone, Debug)]
pub struct SessionCommit {
    /// The session's org.
    pub org_id: OrgId,
    /// The session.
    pub session_id: SessionId,
    /// The fence of the writer's lease.
    pub fence: u64,
    /// Rows for its log. An event id that the log has already makes a further row of the same event.
    pub events: Vec<NewEvent>,
    /// What changes beside the log.
    pub change: Option<SessionChange>,
    /// Lines of its agent as they came, for whoever has to find out why; only the newest are kept, see
    /// [`crate::MAX_RAW_ROWS`].
    pub raw: Vec<String>,
}

/// What a managed session becomes.
#[derive(Clone, Debug)]
pub struct SessionChange {
    /// Where it is in its life.
    pub status: SessionStatus,
    /// The turn going on; one that was not going on before is counted as a run begun.
    pub active_run: Option<RequestId>,
    /// Where its owner stands, in place of what was there.
    pub state: Value,
    /// When it wants to be looked at, in place of what was there.
    pub wake_at: Option<Timestamp>,
    /// Its definition, if that changes.
    pub definition: Option<Value>,
    /// When it was archived. The first time stays, also where this is `None`.
    pub archived_at: Option<Timestamp>,
    /// When this happened.
    pub at: Timestamp,
}

/// A managed session that wants to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueSession {
    /// Its org.
    pub org_id: OrgId,
    /// The session.
    pub session_id: SessionId,
    /// Since when.
    pub wake_at: Timestamp,
}

/// A row of a session's log with the event as it was stored, unparsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The row's place in the log: 1, 2, 3, without gaps.
    pub seq: u64,
    /// The `seq` of the first row of the same event.
    pub first_seq: u64,
    /// The event's id.
    pub id: EventId,
    /// Its type.
    pub kind: Arc<str>,
    /// When what this row says happened.
    pub at: Timestamp,
    /// The event itself: one JSON text.
    pub payload: Arc<str>,
}

/// Which events to list, each once: at the place of its first row, with the content of its last.
#[derive(Clone, Debug)]
pub struct EventQuery {
    /// Only these types, where it is not empty.
    pub types: Vec<String>,
    /// Only those whose first row is of a time in this range.
    pub created: CreatedRange,
    /// Which way, by the first row's `seq`.
    pub order: Order,
    /// After the event with this `first_seq`, in the order asked for.
    pub after: Option<u64>,
    /// The most rows; more than [`crate::MAX_PAGE_EVENTS`] are taken as that many.
    pub limit: u32,
}

/// A line of an agent, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRow {
    /// Its number: 1, 2, 3, without gaps among those that are still there.
    pub number: u64,
    /// The line.
    pub line: String,
}
