//! The trait that everything durable goes through.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use wardian_protocol::{AgentId, EnvironmentId, EventId, FileId, KeyId, OrgId, RequestId, SessionId};

use crate::{
    AgentQuery, AgentRecord, BeginRun, DeleteEnvironment, DeletedSession, DueSession, EnvironmentQuery,
    EnvironmentRecord, Error, EventQuery, EventRecord, EventRow, ExpiredFile, FileQuery, FileRecord,
    ForgetUser, Idempotent, IdempotentRequest, KeyRecord, Lease, NewAgent, NewEnvironment, NewEvent, NewFile,
    NewKey, NewSession, RawRow, RunOutcomeRecord, RunRecord, SessionCommit, SessionQuery, SessionRecord,
    UpdateAgent, UpdateEnvironment, UsageEnd, UsageQuery, UsageRow, UsageStart,
};

/// Everything durable, used as `Arc<dyn Store>`.
///
/// A method that writes has written durably when it returns `Ok`: a crash of the process or the machine right after does
/// not undo it. A future that is dropped before it returned may or may not have taken effect. An id of another org is
/// answered exactly like one that does not exist.
///
/// # Sessions and who may write to them
/// A session is one of *runs* or a *managed* one. A session of runs is taken with [`Store::begin_run`], which fails while a
/// run is going on. A managed one is taken with [`Store::lease_session`], and then all that is written to it goes through
/// [`Store::commit_session`]. Either way the taker gets a **fence**, a number that grows with every taking, and every
/// write carries it: a writer that was taken for dead and replaced is refused with [`Error::Fenced`], whatever it thinks.
///
/// A lease has no term of its own. It lasts until it is given back or its owner is gone, as far as the store can tell: here
/// an owner is a process that holds a lock on a file beside the database, which the kernel lets go of however the process
/// ends. A store that many machines share will tell by the database's clock and a heartbeat. In both an owner is a name that
/// a process makes up anew when it starts.
///
/// # Lists
/// A list gives the rows that fit its query, at most `limit`; fewer mean that there are no more. A page of more than
/// [`crate::MAX_LIST_BYTES`] is refused with [`Error::TooLarge`]: ask for fewer rows.
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

    /// Makes an agent, at version 1.
    async fn create_agent(&self, agent: NewAgent) -> Result<(), Error>;

    /// This version of an agent, or its newest.
    async fn agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        version: Option<u64>,
    ) -> Result<Option<AgentRecord>, Error>;

    /// Makes a new version of an agent, if `expected_version` is the newest or `None`. A definition equal to the newest
    /// makes no version.
    async fn update_agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        expected_version: Option<u64>,
        definition: Value,
        at: Timestamp,
    ) -> Result<UpdateAgent, Error>;

    /// Archives an agent and returns its newest version. One that is archived already stays as it is.
    async fn archive_agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        at: Timestamp,
    ) -> Result<Option<AgentRecord>, Error>;

    /// Agents, each at its newest version.
    async fn agents(&self, org_id: &OrgId, query: AgentQuery) -> Result<Vec<AgentRecord>, Error>;

    /// Versions of an agent, newest first: those below `before`. `None` if there is no such agent.
    async fn agent_versions(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Option<Vec<AgentRecord>>, Error>;

    /// Makes an environment.
    async fn create_environment(&self, environment: NewEnvironment) -> Result<(), Error>;

    /// The environment of this id.
    async fn environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
    ) -> Result<Option<EnvironmentRecord>, Error>;

    /// Replaces the definition of an environment.
    async fn update_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
        definition: Value,
        at: Timestamp,
    ) -> Result<UpdateEnvironment, Error>;

    /// Archives an environment. One that is archived already stays as it is.
    async fn archive_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
        at: Timestamp,
    ) -> Result<Option<EnvironmentRecord>, Error>;

    /// Environments.
    async fn environments(
        &self,
        org_id: &OrgId,
        query: EnvironmentQuery,
    ) -> Result<Vec<EnvironmentRecord>, Error>;

    /// Deletes an environment that no session needs.
    async fn delete_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
    ) -> Result<DeleteEnvironment, Error>;

    /// Makes the row of a file. Its bytes are the caller's to keep; the row is the truth: bytes without a row are nobody's.
    async fn create_file(&self, file: NewFile) -> Result<(), Error>;

    /// The file of this id, also when its time is over.
    async fn file(&self, org_id: &OrgId, id: &FileId) -> Result<Option<FileRecord>, Error>;

    /// Files.
    async fn files(&self, org_id: &OrgId, query: FileQuery) -> Result<Vec<FileRecord>, Error>;

    /// The bytes of all of an org's files together.
    async fn file_bytes(&self, org_id: &OrgId) -> Result<u64, Error>;

    /// Deletes a file's row: `true` if it was there. The caller deletes the bytes after.
    async fn delete_file(&self, org_id: &OrgId, id: &FileId) -> Result<bool, Error>;

    /// Files of all orgs whose time was over at `now`, at most `limit`.
    async fn expired_files(&self, now: Timestamp, limit: u32) -> Result<Vec<ExpiredFile>, Error>;

    /// Makes a session, its user if that is new, and the first events of a managed one, all or nothing. A managed one is
    /// idle and nobody's.
    async fn create_session(&self, session: NewSession) -> Result<(), Error>;

    /// The session of this id.
    async fn session(&self, org_id: &OrgId, id: &SessionId) -> Result<Option<SessionRecord>, Error>;

    /// Managed sessions.
    async fn sessions(&self, org_id: &OrgId, query: SessionQuery) -> Result<Vec<SessionRecord>, Error>;

    /// Takes a managed session, in any status, if nobody has it, or `owner` itself, or an owner that is gone. The holder
    /// before can write no more. `owner` names this process, and no other ever.
    async fn lease_session(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        owner: &str,
        at: Timestamp,
    ) -> Result<Lease, Error>;

    /// Gives a managed session back: `true` if it was held with this fence. Nothing can be written with it any more.
    async fn release_session(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
    ) -> Result<bool, Error>;

    /// Writes to a managed session, all or nothing, and returns the `seq` of its last event.
    async fn commit_session(&self, commit: SessionCommit) -> Result<u64, Error>;

    /// Deletes a session that is held with this fence, by a lease or a run that is under way, with its log: `false` if there is
    /// none in this org. Its usage stays. Its id must not be used again.
    async fn delete_session(&self, org_id: &OrgId, session_id: &SessionId, fence: u64)
    -> Result<bool, Error>;

    /// Managed sessions of all orgs whose `wake_at` is `now` or earlier, the earliest first, held or not.
    async fn due_sessions(&self, now: Timestamp, limit: u32) -> Result<Vec<DueSession>, Error>;

    /// The earliest `wake_at` later than `after`, of all orgs.
    async fn next_wake(&self, after: Timestamp) -> Result<Option<Timestamp>, Error>;

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

    /// Appends events to the log of a session of runs, all or none, and returns the `seq` of the last one. `fence` is that
    /// of the run; before the first run it is 0.
    async fn append_events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
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

    /// Rows of a session's log with a `seq` above `after`, in order, as [`Store::events`] gives them, but unparsed: for
    /// streams.
    async fn event_rows(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRow>, Error>;

    /// Events of a session, each once: at the place of its first row, with the content of its last. A list, see above.
    async fn list_events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        query: EventQuery,
    ) -> Result<Vec<EventRow>, Error>;

    /// The last row of an event.
    async fn event(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &EventId,
    ) -> Result<Option<EventRow>, Error>;

    /// Lines of a managed session's agent that are still there, with a number above `after`, in order; pages end as those of
    /// [`Store::events`] do.
    async fn raw_rows(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RawRow>, Error>;

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

    /// Adds up the usage of each of these sessions, at most [`crate::MAX_PAGE_ROWS`]. A session without any has no row.
    async fn session_usage(
        &self,
        org_id: &OrgId,
        session_ids: &[SessionId],
    ) -> Result<Vec<(SessionId, UsageRow)>, Error>;

    /// Asks what to do about a request with a key, and marks it as being done by its owner if the answer is to do it. Who does
    /// it calls [`Store::finish_idempotent`] or [`Store::abandon_idempotent`] in the end, on every path.
    async fn begin_idempotent(&self, request: IdempotentRequest) -> Result<Idempotent, Error>;

    /// Keeps the answer to a request with a key: `true` if it was being done.
    async fn finish_idempotent(
        &self,
        org_id: &OrgId,
        key_id: &KeyId,
        key: &str,
        status: u16,
        body: Vec<u8>,
        at: Timestamp,
    ) -> Result<bool, Error>;

    /// Forgets a request that was being done and failed, so that the next try is a first one: `true` if it was being done.
    async fn abandon_idempotent(&self, org_id: &OrgId, key_id: &KeyId, key: &str) -> Result<bool, Error>;

    /// Forgets requests of all orgs that came before this time, done or not, and returns how many.
    async fn expire_idempotent(&self, before: Timestamp) -> Result<u64, Error>;

    /// Deletes a user with everything of theirs: sessions with their logs, files, keys, and kept answers about any of them,
    /// whoever asked. Usage stays, without the user's name.
    /// Refused while a living owner, this process too, has a session of the user. Done in steps, each durable; what was cut
    /// off goes on when asked again, and then names only what it deleted itself: what lies on the disk for a session or file
    /// without a row is nobody's.
    async fn forget_user(&self, org_id: &OrgId, user_id: &str) -> Result<ForgetUser, Error>;

    /// Deletes the logs, agents' lines included, of sessions of all orgs that have not changed since before this time and that
    /// no living owner has, about `limit` rows at most, and returns how many: 0 means that none are left. The sessions stay,
    /// and their next event gets the next `seq`.
    async fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;

    /// Deletes managed sessions of all orgs that are archived or terminated, have not changed since before this time, and that
    /// no living owner has: at most `limit`. The caller deletes what lies on the disk for them. Usage stays.
    async fn delete_sessions_before(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeletedSession>, Error>;

    /// Deletes settled records of model requests of all orgs that began before this time, at most `limit`, and returns how
    /// many.
    async fn delete_usage_before(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
}
