//! A store that fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use wardian_protocol::{KeyId, OrgId, RequestId, SessionId};
use wardian_store::{
    BeginRun, Error, EventRecord, KeyRecord, NewEvent, NewKey, NewSession, RunOutcomeRecord, RunRecord,
    SessionRecord, SqliteStore, Store, UsageEnd, UsageQuery, UsageRow, UsageStart,
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
        events: Vec<NewEvent>,
    ) -> Result<u64, Error> {
        self.inner.append_events(org_id, session_id, events).await
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
}
