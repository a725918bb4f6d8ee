//! What is deleted for good.

use wardian_protocol::{FileId, OrgId, SessionId};

/// What came of an attempt to forget a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForgetUser {
    /// Nothing in the store names the user any more.
    Forgotten(Forgotten),
    /// An owner that lives has this session of the user. What else the user had may be gone already; ask again.
    InUse {
        /// The session.
        session: SessionId,
        /// What went before it was met.
        gone: Forgotten,
    },
}

/// What went with a user. The caller deletes what lies on the disk for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Sessions, with their logs.
    pub sessions: Vec<SessionId>,
    /// Files.
    pub files: Vec<FileId>,
    /// API keys that were bound to the user.
    pub keys: u64,
}

/// A session that was deleted because of its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedSession {
    /// Its org.
    pub org_id: OrgId,
    /// The session.
    pub session_id: SessionId,
}

/// A file whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredFile {
    /// Its org.
    pub org_id: OrgId,
    /// The file.
    pub file_id: FileId,
}
