//! The trait that everything durable goes through.

use async_trait::async_trait;
use jiff::Timestamp;
use wardian_protocol::{KeyId, OrgId, RequestId, SessionId};

use crate::{
    BeginRun, Error, EventRecord, KeyRecord, NewEvent, NewKey, NewSession, RunOutcomeRecord, RunRecord,
    SessionRecord, UsageEnd, UsageQuery, UsageRow, UsageStart,
};

/// Everything durable, used as `Arc<dyn Store>`.
///
/// A method that writes has written durably when it returns `Ok`: a crash of the process or the machine right after does
/// not undo it. A future that is dropped before it returned may or may not have taken effect. An id of another org is
/// answered exactly like one that does not exist.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes something of no meaning: `Ok` proves that a write is possible now.
    async fn ping(&self) -> Result<(), Error>;

    /// Makes an org if there is none of this id; an existing one keeps its name.
    async fn ensure_org(&self, org_id: &OrgId, name: &str) -> Result<(), Error>;

    /// The org that is there from the start.
    async fn default_org(&self) -> Result<OrgId, Error>;

    /// Makes a user if there is none of this id. The id is the caller's own name for the user, at most
    /// [`crate::MAX_USER_BYTES`] long.
    async fn ensure_user(&self, org_id: &OrgId, user_id: &str) -> Result<(), Error>;

    /// Makes a key, and its user if that is new.
    async fn create_key(&self, key: NewKey) -> Result<(), Error>;

    /// The key of this id, revoked or not. Asks for no org, since the key is what says which org is asking.
    async fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, Error>;

    /// All keys of an org, oldest first, revoked ones included.
    async fn keys(&self, org_id: &OrgId) -> Result<Vec<KeyRecord>, Error>;

    /// Revokes a key: `true` if it was in force until now.
    async fn revoke_key(&self, org_id: &OrgId, id: &KeyId, at: Timestamp) -> Result<bool, Error>;

    /// Makes a session, and its user if that is new.
    async fn create_session(&self, session: NewSession) -> Result<(), Error>;

    /// The session of this id.
    async fn session(&self, org_id: &OrgId, id: &SessionId) -> Result<Option<SessionRecord>, Error>;

    /// Takes the session for a run, if no other run has it. `owner` names this process, and no other ever.
    async fn begin_run(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &RequestId,
        owner: &str,
        at: Timestamp,
    ) -> Result<BeginRun, Error>;

    /// Ends a run and gives its session back: `true` if it was going on until now. The first end stays.
    async fn end_run(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &RequestId,
        outcome: RunOutcomeRecord,
    ) -> Result<bool, Error>;

    /// Runs of all orgs that have not ended and whose owner, another than this one, is gone. The caller ends them.
    async fn interrupted_runs(&self, owner_not: &str) -> Result<Vec<RunRecord>, Error>;

    /// Appends events to a session's log, all or none, and returns the `seq` of the last one.
    async fn append_events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        events: Vec<NewEvent>,
    ) -> Result<u64, Error>;

    /// Events with a `seq` above `after`, in order: at most `limit`, and fewer where they are large (see
    /// [`crate::MAX_PAGE_BYTES`]). An empty page means that there is no more now.
    async fn events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRecord>, Error>;

    /// Opens the record of a model request. Only after this returned may a byte go upstream.
    async fn open_usage(&self, start: UsageStart) -> Result<(), Error>;

    /// Settles the record of a model request: `true` if it was open until now. The first settlement stays, so doing it
    /// again changes nothing.
    async fn settle_usage(&self, end: UsageEnd) -> Result<bool, Error>;

    /// Charges the open records whose owner, another than this one, is gone: at their bound, marked
    /// [`crate::Settled::AtBound`]. Returns how many.
    async fn settle_orphans(&self, owner_not: &str, at: Timestamp) -> Result<u64, Error>;

    /// Adds up usage.
    async fn usage(&self, org_id: &OrgId, query: UsageQuery) -> Result<Vec<UsageRow>, Error>;
}
