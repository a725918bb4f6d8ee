//! The store in one SQLite file.

use std::path::Path;

use async_trait::async_trait;
use jiff::Timestamp;
use wardian_protocol::{KeyId, OrgId, RequestId, SessionId};

use crate::{
    BeginRun, Error, EventRecord, KeyRecord, NewEvent, NewKey, NewSession, RunOutcomeRecord, RunRecord,
    SessionRecord, Store, UsageEnd, UsageQuery, UsageRow, UsageStart,
};

/// The store in one SQLite file, for one machine.
#[derive(Debug)]
pub struct SqliteStore {}

impl SqliteStore {
    /// Opens the store in this file, making it and its folder if they are missing. Blocks for some milliseconds.
    pub fn open(_path: &Path) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// Opens an empty store that lives as long as the value: for tests.
    pub fn open_in_memory() -> Result<Self, Error> {
        Ok(Self {})
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn ping(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }

    async fn ensure_org(&self, _org_id: &OrgId, _name: &str) -> Result<(), Error> {
        Err(Error::Closed)
    }

    async fn default_org(&self) -> Result<OrgId, Error> {
        Err(Error::Closed)
    }

    async fn ensure_user(&self, _org_id: &OrgId, _user_id: &str) -> Result<(), Error> {
        Err(Error::Closed)
    }

    async fn create_key(&self, _key: NewKey) -> Result<(), Error> {
        Err(Error::Closed)
    }

    async fn key(&self, _id: &KeyId) -> Result<Option<KeyRecord>, Error> {
        Err(Error::Closed)
    }

    async fn keys(&self, _org_id: &OrgId) -> Result<Vec<KeyRecord>, Error> {
        Err(Error::Closed)
    }

    async fn revoke_key(&self, _org_id: &OrgId, _id: &KeyId, _at: Timestamp) -> Result<bool, Error> {
        Err(Error::Closed)
    }

    async fn create_session(&self, _session: NewSession) -> Result<(), Error> {
        Err(Error::Closed)
    }

    async fn session(&self, _org_id: &OrgId, _id: &SessionId) -> Result<Option<SessionRecord>, Error> {
        Err(Error::Closed)
    }

    async fn begin_run(
        &self,
        _org_id: &OrgId,
        _session_id: &SessionId,
        _id: &RequestId,
        _owner: &str,
        _at: Timestamp,
    ) -> Result<BeginRun, Error> {
        Err(Error::Closed)
    }

    async fn end_run(
        &self,
        _org_id: &OrgId,
        _session_id: &SessionId,
        _id: &RequestId,
        _outcome: RunOutcomeRecord,
    ) -> Result<bool, Error> {
        Err(Error::Closed)
    }

    async fn interrupted_runs(&self, _owner_not: &str) -> Result<Vec<RunRecord>, Error> {
        Err(Error::Closed)
    }

    async fn append_events(
        &self,
        _org_id: &OrgId,
        _session_id: &SessionId,
        _events: Vec<NewEvent>,
    ) -> Result<u64, Error> {
        Err(Error::Closed)
    }

    async fn events(
        &self,
        _org_id: &OrgId,
        _session_id: &SessionId,
        _after: u64,
        _limit: u32,
    ) -> Result<Vec<EventRecord>, Error> {
        Err(Error::Closed)
    }

    async fn open_usage(&self, _start: UsageStart) -> Result<(), Error> {
        Err(Error::Closed)
    }

    async fn settle_usage(&self, _end: UsageEnd) -> Result<bool, Error> {
        Err(Error::Closed)
    }

    async fn settle_orphans(&self, _owner_not: &str, _at: Timestamp) -> Result<u64, Error> {
        Err(Error::Closed)
    }

    async fn usage(&self, _org_id: &OrgId, _query: UsageQuery) -> Result<Vec<UsageRow>, Error> {
        Err(Error::Closed)
    }
}
