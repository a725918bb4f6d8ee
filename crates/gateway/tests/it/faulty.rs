//! A store that fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;
use wardian_protocol::{AgentId, EnvironmentId, EventId, FileId, KeyId, OrgId, RequestId, SessionId};
use wardian_store::{
    AgentQuery, AgentRecord, BeginRun, DeleteEnvironment, DeletedSession, DueSession, EnvironmentQuery,
    EnvironmentRecord, Error, EventQuery, EventRecord, EventRow, ExpiredFile, FileQuery, FileRecord,
    ForgetUser, Idempotent, IdempotentRequest, KeyRecord, Lease, NewAgent, NewEnvironment, NewEvent, NewFile,
    NewKey, NewSession, RawRow, RunOutcomeRecord, RunRecord, SessionCommit, SessionQuery, SessionRecord,
    SqliteStore, Store, UpdateAgent, UpdateEnvironment, UsageEnd, UsageQuery, UsageRow, UsageStart,
};

/// Passes everything on, but for what it was told.
pub struct Faulty {
    pub inner: SqliteStore,
    /// So many calls of `open_usage` fail from now on.
    pub failing_opens: AtomicUsize,
    /// So many calls of `settle_usage` fail from now on.
    pub failing_settles: AtomicUsize,
    /// `open_usage` waits for a permit.
    pub gate: Semaphore,
    /// Gets a permit when a call of `open_usage` began.
    pub opening: Semaphore,
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: SqliteStore::open_in_memory().unwrap(),
            failing_opens: AtomicUsize::new(0),
            failing_settles: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            opening: Semaphore::new(0),
        })
    }
}

fn fails(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl Store for Faulty {
    async fn open_usage(&self, start: UsageStart) -> Result<(), Error> {
        self.opening.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        if fails(&self.failing_opens) {
            return Err(Error::Full);
        }
        self.inner.open_usage(start).await
    }
    async fn settle_usage(&self, end: UsageEnd) -> Result<bool, Error> {
        if fails(&self.failing_settles) {
            return Err(Error::Full);
        }
        self.inner.settle_usage(end).await
    }
    async fn settle_orphans(&self, owner_not: &str, at: Timestamp) -> Result<u64, Error> {
        self.inner.settle_orphans(owner_not, at).await
    }
    async fn usage(&self, org_id: &OrgId, query: UsageQuery) -> Result<Vec<UsageRow>, Error> {
        self.inner.usage(org_id, query).await
    }
    async fn default_org(&self) -> Result<OrgId, Error> {
        self.inner.default_org().await
    }
    async fn ping(&self) -> Result<(), Error> {
        self.inner.ping().await
    }
    async fn ensure_org(&self, org_id: &OrgId, name: &str) -> Result<(), Error> {
        self.inner.ensure_org(org_id, name).await
    }
    async fn ensure_user(&self, org_id: &OrgId, user_id: &str) -> Result<(), Error> {
        self.inner.ensure_user(org_id, user_id).await
    }
    async fn create_key(&self, key: NewKey) -> Result<(), Error> {
        self.inner.create_key(key).await
    }
    async fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, Error> {
        self.inner.key(id).await
    }
    async fn keys(&self, org_id: &OrgId) -> Result<Vec<KeyRecord>, Error> {
        self.inner.keys(org_id).await
    }
    async fn revoke_key(&self, org_id: &OrgId, id: &KeyId, at: Timestamp) -> Result<bool, Error> {
        self.inner.revoke_key(org_id, id, at).await
    }
    async fn create_session(&self, session: NewSession) -> Result<(), Error> {
        self.inner.create_session(session).await
    }
    async fn session(&self, org_id: &OrgId, id: &SessionId) -> Result<Option<SessionRecord>, Error> {
        self.inner.session(org_id, id).await
    }
    async fn begin_run(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &RequestId,
        owner: &str,
        at: Timestamp,
    ) -> Result<BeginRun, Error> {
        self.inner.begin_run(org_id, session_id, id, owner, at).await
    }
    async fn end_run(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &RequestId,
        outcome: RunOutcomeRecord,
    ) -> Result<bool, Error> {
        self.inner.end_run(org_id, session_id, id, outcome).await
    }
    async fn interrupted_runs(&self, owner_not: &str) -> Result<Vec<RunRecord>, Error> {
        self.inner.interrupted_runs(owner_not).await
    }
    async fn append_events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
        events: Vec<NewEvent>,
    ) -> Result<u64, Error> {
        self.inner.append_events(org_id, session_id, fence, events).await
    }
    async fn events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRecord>, Error> {
        self.inner.events(org_id, session_id, after, limit).await
    }
    async fn create_agent(&self, agent: NewAgent) -> Result<(), Error> {
        self.inner.create_agent(agent).await
    }
    async fn agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        version: Option<u64>,
    ) -> Result<Option<AgentRecord>, Error> {
        self.inner.agent(org_id, id, version).await
    }
    async fn update_agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        expected_version: Option<u64>,
        definition: Value,
        at: Timestamp,
    ) -> Result<UpdateAgent, Error> {
        self.inner.update_agent(org_id, id, expected_version, definition, at).await
    }
    async fn archive_agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        at: Timestamp,
    ) -> Result<Option<AgentRecord>, Error> {
        self.inner.archive_agent(org_id, id, at).await
    }
    async fn agents(&self, org_id: &OrgId, query: AgentQuery) -> Result<Vec<AgentRecord>, Error> {
        self.inner.agents(org_id, query).await
    }
    async fn agent_versions(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Option<Vec<AgentRecord>>, Error> {
        self.inner.agent_versions(org_id, id, before, limit).await
    }
    async fn create_environment(&self, environment: NewEnvironment) -> Result<(), Error> {
        self.inner.create_environment(environment).await
    }
    async fn environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
    ) -> Result<Option<EnvironmentRecord>, Error> {
        self.inner.environment(org_id, id).await
    }
    async fn update_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
        definition: Value,
        at: Timestamp,
    ) -> Result<UpdateEnvironment, Error> {
        self.inner.update_environment(org_id, id, definition, at).await
    }
    async fn archive_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
        at: Timestamp,
    ) -> Result<Option<EnvironmentRecord>, Error> {
        self.inner.archive_environment(org_id, id, at).await
    }
    async fn environments(
        &self,
        org_id: &OrgId,
        query: EnvironmentQuery,
    ) -> Result<Vec<EnvironmentRecord>, Error> {
        self.inner.environments(org_id, query).await
    }
    async fn delete_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
    ) -> Result<DeleteEnvironment, Error> {
        self.inner.delete_environment(org_id, id).await
    }
    async fn create_file(&self, file: NewFile) -> Result<(), Error> {
        self.inner.create_file(file).await
    }
    async fn file(&self, org_id: &OrgId, id: &FileId) -> Result<Option<FileRecord>, Error> {
        self.inner.file(org_id, id).await
    }
    async fn files(&self, org_id: &OrgId, query: FileQuery) -> Result<Vec<FileRecord>, Error> {
        self.inner.files(org_id, query).await
    }
    async fn file_bytes(&self, org_id: &OrgId) -> Result<u64, Error> {
        self.inner.file_bytes(org_id).await
    }
    async fn delete_file(&self, org_id: &OrgId, id: &FileId) -> Result<bool, Error> {
        self.inner.delete_file(org_id, id).await
    }
    async fn expired_files(&self, now: Timestamp, limit: u32) -> Result<Vec<ExpiredFile>, Error> {
        self.inner.expired_files(now, limit).await
    }
    async fn sessions(&self, org_id: &OrgId, query: SessionQuery) -> Result<Vec<SessionRecord>, Error> {
        self.inner.sessions(org_id, query).await
    }
    async fn lease_session(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        owner: &str,
        at: Timestamp,
    ) -> Result<Lease, Error> {
        self.inner.lease_session(org_id, session_id, owner, at).await
    }
    async fn release_session(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
    ) -> Result<bool, Error> {
        self.inner.release_session(org_id, session_id, fence).await
    }
    async fn commit_session(&self, commit: SessionCommit) -> Result<u64, Error> {
        self.inner.commit_session(commit).await
    }
    async fn delete_session(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
    ) -> Result<bool, Error> {
        self.inner.delete_session(org_id, session_id, fence).await
    }
    async fn due_sessions(&self, now: Timestamp, limit: u32) -> Result<Vec<DueSession>, Error> {
        self.inner.due_sessions(now, limit).await
    }
    async fn next_wake(&self, after: Timestamp) -> Result<Option<Timestamp>, Error> {
        self.inner.next_wake(after).await
    }
    async fn event_rows(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRow>, Error> {
        self.inner.event_rows(org_id, session_id, after, limit).await
    }
    async fn list_events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        query: EventQuery,
    ) -> Result<Vec<EventRow>, Error> {
        self.inner.list_events(org_id, session_id, query).await
    }
    async fn event(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &EventId,
    ) -> Result<Option<EventRow>, Error> {
        self.inner.event(org_id, session_id, id).await
    }
    async fn raw_rows(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RawRow>, Error> {
        self.inner.raw_rows(org_id, session_id, after, limit).await
    }
    async fn session_usage(
        &self,
        org_id: &OrgId,
        session_ids: &[SessionId],
    ) -> Result<Vec<(SessionId, UsageRow)>, Error> {
        self.inner.session_usage(org_id, session_ids).await
    }
    async fn begin_idempotent(&self, request: IdempotentRequest) -> Result<Idempotent, Error> {
        self.inner.begin_idempotent(request).await
    }
    async fn finish_idempotent(
        &self,
        org_id: &OrgId,
        key_id: &KeyId,
        key: &str,
        status: u16,
        body: Vec<u8>,
        at: Timestamp,
    ) -> Result<bool, Error> {
        self.inner.finish_idempotent(org_id, key_id, key, status, body, at).await
    }
    async fn abandon_idempotent(&self, org_id: &OrgId, key_id: &KeyId, key: &str) -> Result<bool, Error> {
        self.inner.abandon_idempotent(org_id, key_id, key).await
    }
    async fn expire_idempotent(&self, before: Timestamp) -> Result<u64, Error> {
        self.inner.expire_idempotent(before).await
    }
    async fn forget_user(&self, org_id: &OrgId, user_id: &str) -> Result<ForgetUser, Error> {
        self.inner.forget_user(org_id, user_id).await
    }
    async fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.inner.delete_events_before(before, limit).await
    }
    async fn delete_sessions_before(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeletedSession>, Error> {
        self.inner.delete_sessions_before(before, limit).await
    }
    async fn delete_usage_before(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.inner.delete_usage_before(before, limit).await
    }
}
