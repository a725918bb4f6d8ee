//! Agents with their versions, environments, files.

use jiff::Timestamp;
use serde_json::Value;
use wardian_protocol::{AgentId, EnvironmentId, FileId, OrgId, SessionId};

use crate::{CreatedRange, Page};

/// An agent to be made. Its definition becomes version 1.
#[derive(Clone, Debug)]
pub struct NewAgent {
    /// Its id.
    pub id: AgentId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// What it is, in the caller's own terms; at most [`crate::MAX_DEFINITION_BYTES`] as JSON.
    pub definition: Value,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One version of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRecord {
    /// The agent's id.
    pub id: AgentId,
    /// The version: 1, 2, 3, without gaps.
    pub version: u64,
    /// What this version is.
    pub definition: Value,
    /// When the agent was made.
    pub created_at: Timestamp,
    /// When this version was made.
    pub updated_at: Timestamp,
    /// When the agent was archived.
    pub archived_at: Option<Timestamp>,
}

/// What came of an attempt to make a new version.
#[derive(Clone, Debug, PartialEq)]
pub enum UpdateAgent {
    /// The newest version, made now unless its definition was this one already.
    Updated(AgentRecord),
    /// The newest version is not the one expected.
    WrongVersion {
        /// The newest version.
        current: u64,
    },
    /// It is archived and takes no versions.
    Archived,
    /// No such agent in this org.
    Missing,
}

/// Which agents to list.
#[derive(Clone, Debug)]
pub struct AgentQuery {
    /// Only those made within this range.
    pub created: CreatedRange,
    /// Archived ones too.
    pub include_archived: bool,
    /// Which of them.
    pub page: Page,
}

/// An environment to be made.
#[derive(Clone, Debug)]
pub struct NewEnvironment {
    /// Its id.
    pub id: EnvironmentId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// What it is, in the caller's own terms; at most [`crate::MAX_DEFINITION_BYTES`] as JSON.
    pub definition: Value,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An environment.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvironmentRecord {
    /// Its id.
    pub id: EnvironmentId,
    /// What it is.
    pub definition: Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its definition last changed.
    pub updated_at: Timestamp,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
}

/// What came of an attempt to change an environment.
#[derive(Clone, Debug, PartialEq)]
pub enum UpdateEnvironment {
    /// As it is now.
    Updated(EnvironmentRecord),
    /// It is archived and does not change.
    Archived,
    /// No such environment in this org.
    Missing,
}

/// What came of an attempt to delete an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteEnvironment {
    /// It is gone.
    Deleted,
    /// A session that is neither terminated nor archived names it.
    InUse,
    /// No such environment in this org.
    Missing,
}

/// Which environments to list.
#[derive(Clone, Debug)]
pub struct EnvironmentQuery {
    /// Only those made within this range.
    pub created: CreatedRange,
    /// Archived ones too.
    pub include_archived: bool,
    /// Which of them.
    pub page: Page,
}

/// A file whose bytes are on the disk, durable, before its row is made.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Its id.
    pub id: FileId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// Its user; made if new.
    pub user_id: Option<String>,
    /// The name that it was given.
    pub filename: String,
    /// Its media type.
    pub mime_type: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it may be deleted.
    pub expires_at: Option<Timestamp>,
    /// The session that it is scoped to. The file does not go with the session.
    pub session_id: Option<SessionId>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id.
    pub id: FileId,
    /// The org that it belongs to.
    pub org_id: OrgId,
    /// Its user.
    pub user_id: Option<String>,
    /// The name that it was given.
    pub filename: String,
    /// Its media type.
    pub mime_type: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it may be deleted.
    pub expires_at: Option<Timestamp>,
    /// The session that it is scoped to.
    pub session_id: Option<SessionId>,
}

/// Which files to list.
#[derive(Clone, Debug)]
pub struct FileQuery {
    /// Only these, where it is not empty; at most [`crate::MAX_PAGE_ROWS`].
    pub ids: Vec<FileId>,
    /// Only those scoped to this session.
    pub session_id: Option<SessionId>,
    /// Only this user's.
    pub user_id: Option<String>,
    /// Which of them.
    pub page: Page,
}
