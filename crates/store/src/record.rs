//! What is kept: keys, sessions, runs, events.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wardian_protocol::{EventId, KeyId, NanoUsd, OrgId, RequestId, SessionId};

use crate::{ManagedRecord, NewManaged};

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything, keys and budgets included.
    Admin,
    /// Start sessions and runs, and read them.
    Sessions,
    /// Read only.
    Read,
    /// Use the gateway directly.
    Gateway,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// Waits for work.
    Idle,
    /// A run is going on.
    Running,
    /// A run waits for a new sandbox.
    Rescheduling,
    /// Over; takes no more work.
    Terminated,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// To its end; the agent may still report an error of its own.
    Completed,
    /// Something of ours failed.
    Failed,
    /// The caller left or asked for the end.
    Cancelled,
    /// Its time was over.
    TimedOut,
    /// Its money was over.
    BudgetReached,
    /// The server that ran it died.
    Interrupted,
}

/// A text that names no scope, status or the like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read {found:?} as a {what}: expected one of {expected}")]
pub struct UnknownName {
    what: &'static str,
    found: String,
    expected: String,
}

/// Gives each of our enums its names once, for the database, the command line and errors alike.
pub(crate) trait Named: Copy + PartialEq + 'static {
    const WHAT: &'static str;
    const ALL: &'static [(Self, &'static str)];

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(value, _)| *value == self);
        found.map(|(_, name)| *name).expect("every variant is in ALL, which a test checks")
    }

    fn from_name(text: &str) -> Result<Self, UnknownName> {
        match Self::ALL.iter().find(|(_, name)| *name == text) {
            Some((value, _)) => Ok(*value),
            None => {
                let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
                let found = text.chars().take(40).collect();
                Err(UnknownName { what: Self::WHAT, found, expected: names.join(", ") })
            }
        }
    }
}

impl Named for Scope {
    const WHAT: &'static str = "scope";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Admin, "admin"),
        (Self::Sessions, "sessions"),
        (Self::Read, "read"),
        (Self::Gateway, "gateway"),
    ];
}

impl Named for SessionStatus {
    const WHAT: &'static str = "session status";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Idle, "idle"),
        (Self::Running, "running"),
        (Self::Rescheduling, "rescheduling"),
        (Self::Terminated, "terminated"),
    ];
}

impl Named for RunStatus {
    const WHAT: &'static str = "run status";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Completed, "completed"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
        (Self::TimedOut, "timed_out"),
        (Self::BudgetReached, "budget_reached"),
        (Self::Interrupted, "interrupted"),
    ];
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl fmt::Display for SessionStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::from_name(text)
    }
}

/// A key to be made. The store never sees the secret, only its hash.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its public id.
    pub id: KeyId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// A name for people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The user that everything done with it belongs to; made if new.
    pub user_id: Option<String>,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its public id.
    pub id: KeyId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// A name for people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The user that it is bound to.
    pub user_id: Option<String>,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked. A revoked key opens nothing.
    pub revoked_at: Option<Timestamp>,
}

/// A session to be made.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// Its user, set once; made if new.
    pub user_id: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What a managed one has beside; `None` for a session of runs.
    pub managed: Option<NewManaged>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// Its user.
    pub user_id: Option<String>,
    /// Where it is in its life.
    pub status: SessionStatus,
    /// Runs or turns begun so far.
    pub runs: u64,
    /// The run or turn going on.
    pub active_run: Option<RequestId>,
    /// The `seq` of its last event; 0 when there is none.
    pub last_seq: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a run last began or ended, or a managed one last changed.
    pub updated_at: Timestamp,
    /// What a managed one has beside; `None` for a session of runs.
    pub managed: Option<Box<ManagedRecord>>,
}

/// What came of an attempt to begin a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginRun {
    /// The session is running, and the run is its active one.
    Started {
        /// Shows with every append that no other run has begun since.
        fence: u64,
    },
    /// Another run is going on.
    Busy,
    /// No such session in this org, or it is terminated, or a managed one.
    NoSession,
}

/// How a run ended, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcomeRecord {
    /// How it ended.
    pub status: RunStatus,
    /// Whether the result was an error.
    pub is_error: bool,
    /// What it cost, by the gateway's count.
    pub cost: NanoUsd,
    /// Turns taken, as the agent reported them.
    pub num_turns: u64,
    /// Why the model stopped, as the agent reported it.
    pub stop_reason: Option<String>,
    /// The command's exit code, for the runtime `command`.
    pub exit_code: Option<i32>,
    /// More for people: why it failed.
    pub detail: Option<String>,
    /// When it ended.
    pub at: Timestamp,
}

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// Its id: the request that began it.
    pub id: RequestId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// Its session.
    pub session_id: SessionId,
    /// The process that ran it.
    pub owner: String,
    /// When it began.
    pub started_at: Timestamp,
    /// The fence of its session, for who ends it.
    pub fence: u64,
}

/// An event to be appended.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its id; one that the log has already makes a further row of the same event.
    pub id: EventId,
    /// The request that it belongs to.
    pub request_id: Option<RequestId>,
    /// Its type, such as `agent.message`.
    pub kind: String,
    /// The event itself.
    pub payload: Value,
    /// When it happened.
    pub at: Timestamp,
}

/// An event of a session's log.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// Its place in the log: 1, 2, 3, without gaps.
    pub seq: u64,
    /// Its id.
    pub id: EventId,
    /// The request that it belongs to.
    pub request_id: Option<RequestId>,
    /// Its type.
    pub kind: String,
    /// The event itself.
    pub payload: Value,
    /// When it happened.
    pub at: Timestamp,
}
