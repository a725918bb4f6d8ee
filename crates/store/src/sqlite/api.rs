//! The store's methods, each of which hands its work to the writer or to a reader.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::Value;
use wardian_protocol::{AgentId, EnvironmentId, EventId, FileId, KeyId, OrgId, RequestId, SessionId};

use super::event::{Append, LogPage};
use super::idempotent::Answer;
use super::managed::{Commit, Create};
use super::session::Begin;
use super::{
    SqliteStore, agent, environment, event, file, forget, idempotent, identity, managed, probe, retention,
    row, session, usage,
};
use crate::{
    AgentQuery, AgentRecord, BeginRun, DELETE_BATCH, DeleteEnvironment, DeletedSession, DueSession,
    EnvironmentQuery, EnvironmentRecord, Error, EventQuery, EventRecord, EventRow, ExpiredFile, FileQuery,
    FileRecord, ForgetUser, Idempotent, IdempotentRequest, KeyRecord, Lease, NewAgent, NewEnvironment,
    NewEvent, NewFile, NewKey, NewSession, RawRow, RunOutcomeRecord, RunRecord, SessionCommit, SessionQuery,
    SessionRecord, Store, UpdateAgent, UpdateEnvironment, UsageEnd, UsageQuery, UsageRow, UsageStart,
};

#[async_trait]
impl Store for SqliteStore {
    async fn ping(&self) -> Result<(), Error> {
        self.writer.run(probe).await
    }

    async fn ensure_org(&self, org_id: &OrgId, name: &str) -> Result<(), Error> {
        let (org_id, name) = (org_id.clone(), name.to_owned());
        self.writer.run(move |connection| identity::ensure_org(connection, &org_id, &name)).await
    }

    async fn default_org(&self) -> Result<OrgId, Error> {
        Ok("org_default".parse().expect("the first migration makes it, with a well-formed id"))
    }

    async fn ensure_user(&self, org_id: &OrgId, user_id: &str) -> Result<(), Error> {
        let (org_id, user_id) = (org_id.clone(), user_id.to_owned());
        self.writer.run(move |connection| identity::ensure_user(connection, &org_id, &user_id)).await
    }

    async fn create_key(&self, key: NewKey) -> Result<(), Error> {
        self.writer.run(move |connection| identity::create_key(connection, &key)).await
    }

    async fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, Error> {
        let id = id.clone();
        self.read(move |connection| identity::key(connection, &id)).await
    }

    async fn keys(&self, org_id: &OrgId) -> Result<Vec<KeyRecord>, Error> {
        let org_id = org_id.clone();
        self.read(move |connection| identity::keys(connection, &org_id)).await
    }

    async fn revoke_key(&self, org_id: &OrgId, id: &KeyId, at: Timestamp) -> Result<bool, Error> {
        let (org_id, id, at_us) = (org_id.clone(), id.clone(), row::micros(at)?);
        self.writer.run(move |connection| identity::revoke_key(connection, &org_id, &id, at_us)).await
    }

    async fn create_session(&self, session: NewSession) -> Result<(), Error> {
        let create = Create::new(session)?;
        let _room = self.room(create.bytes).await?;
        self.writer.run(move |connection| create.run(connection)).await
    }

    async fn session(&self, org_id: &OrgId, id: &SessionId) -> Result<Option<SessionRecord>, Error> {
        let (org_id, id) = (org_id.clone(), id.clone());
        self.read(move |connection| session::find(connection, &org_id, &id)).await
    }

    async fn begin_run(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &RequestId,
        owner: &str,
        at: Timestamp,
    ) -> Result<BeginRun, Error> {
        let owners = Arc::clone(&self.owners);
        let run = Begin {
            org_id: org_id.clone(),
            session_id: session_id.clone(),
            id: id.clone(),
            owner: owner.to_owned(),
            at_us: row::micros(at)?,
        };
        self.writer.run(move |connection| session::begin_run(connection, &owners, &run)).await
    }

    async fn end_run(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &RequestId,
        outcome: RunOutcomeRecord,
    ) -> Result<bool, Error> {
        let (org_id, session_id, id) = (org_id.clone(), session_id.clone(), id.clone());
        self.writer
            .run(move |connection| session::end_run(connection, &org_id, &session_id, &id, &outcome))
            .await
    }

    async fn interrupted_runs(&self, owner_not: &str) -> Result<Vec<RunRecord>, Error> {
        let (owners, owner_not) = (Arc::clone(&self.owners), owner_not.to_owned());
        self.read(move |connection| session::interrupted_runs(connection, &owners, &owner_not)).await
    }

    async fn append_events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
        events: Vec<NewEvent>,
    ) -> Result<u64, Error> {
        let append = Append::new(events)?;
        let _room = self.room(append.bytes).await?;
        let (org_id, session_id) = (org_id.clone(), session_id.clone());
        self.writer.run(move |connection| append.run(connection, &org_id, &session_id, fence)).await
    }

    async fn events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRecord>, Error> {
        let (org_id, session_id) = (org_id.clone(), session_id.clone());
        let page = LogPage { org_id, session_id, after, limit };
        self.read(move |connection| page.records(connection)).await
    }

    async fn open_usage(&self, start: UsageStart) -> Result<(), Error> {
        let owners = Arc::clone(&self.owners);
        self.writer.run(move |connection| usage::open(connection, &owners, &start)).await
    }

    async fn settle_usage(&self, end: UsageEnd) -> Result<bool, Error> {
        self.writer.run(move |connection| usage::settle(connection, &end)).await
    }

    async fn settle_orphans(&self, owner_not: &str, at: Timestamp) -> Result<u64, Error> {
        let (owners, owner_not, at_us) = (Arc::clone(&self.owners), owner_not.to_owned(), row::micros(at)?);
        self.writer.run(move |connection| usage::settle_orphans(connection, &owners, &owner_not, at_us)).await
    }

    async fn usage(&self, org_id: &OrgId, query: UsageQuery) -> Result<Vec<UsageRow>, Error> {
        let org_id = org_id.clone();
        self.read(move |connection| usage::sum(connection, &org_id, &query)).await
    }

    async fn create_agent(&self, agent: NewAgent) -> Result<(), Error> {
        self.writer.run(move |connection| agent::create(connection, &agent)).await
    }

    async fn agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        version: Option<u64>,
    ) -> Result<Option<AgentRecord>, Error> {
        let (org_id, id) = (org_id.clone(), id.clone());
        self.read(move |connection| agent::find(connection, &org_id, &id, version)).await
    }

    async fn update_agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        expected_version: Option<u64>,
        definition: Value,
        at: Timestamp,
    ) -> Result<UpdateAgent, Error> {
        let (org_id, id, at_us) = (org_id.clone(), id.clone(), row::micros(at)?);
        let update = move |connection: &Connection| {
            agent::update(connection, &org_id, &id, expected_version, &definition, at_us)
        };
        self.writer.run(update).await
    }

    async fn archive_agent(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        at: Timestamp,
    ) -> Result<Option<AgentRecord>, Error> {
        let (org_id, id, at_us) = (org_id.clone(), id.clone(), row::micros(at)?);
        self.writer.run(move |connection| agent::archive(connection, &org_id, &id, at_us)).await
    }

    async fn agents(&self, org_id: &OrgId, query: AgentQuery) -> Result<Vec<AgentRecord>, Error> {
        let org_id = org_id.clone();
        self.read(move |connection| agent::list(connection, &org_id, &query)).await
    }

    async fn agent_versions(
        &self,
        org_id: &OrgId,
        id: &AgentId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Option<Vec<AgentRecord>>, Error> {
        let (org_id, id) = (org_id.clone(), id.clone());
        self.read(move |connection| agent::versions(connection, &org_id, &id, before, limit)).await
    }

    async fn create_environment(&self, environment: NewEnvironment) -> Result<(), Error> {
        self.writer.run(move |connection| environment::create(connection, &environment)).await
    }

    async fn environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
    ) -> Result<Option<EnvironmentRecord>, Error> {
        let (org_id, id) = (org_id.clone(), id.clone());
        self.read(move |connection| environment::find(connection, &org_id, &id)).await
    }

    async fn update_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
        definition: Value,
        at: Timestamp,
    ) -> Result<UpdateEnvironment, Error> {
        let (org_id, id, at_us) = (org_id.clone(), id.clone(), row::micros(at)?);
        self.writer
            .run(move |connection| environment::update(connection, &org_id, &id, &definition, at_us))
            .await
    }

    async fn archive_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
        at: Timestamp,
    ) -> Result<Option<EnvironmentRecord>, Error> {
        let (org_id, id, at_us) = (org_id.clone(), id.clone(), row::micros(at)?);
        self.writer.run(move |connection| environment::archive(connection, &org_id, &id, at_us)).await
    }

    async fn environments(
        &self,
        org_id: &OrgId,
        query: EnvironmentQuery,
    ) -> Result<Vec<EnvironmentRecord>, Error> {
        let org_id = org_id.clone();
        self.read(move |connection| environment::list(connection, &org_id, &query)).await
    }

    async fn delete_environment(
        &self,
        org_id: &OrgId,
        id: &EnvironmentId,
    ) -> Result<DeleteEnvironment, Error> {
        let (org_id, id) = (org_id.clone(), id.clone());
        self.writer.run(move |connection| environment::delete(connection, &org_id, &id)).await
    }

    async fn create_file(&self, file: NewFile) -> Result<(), Error> {
        self.writer.run(move |connection| file::create(connection, &file)).await
    }

    async fn file(&self, org_id: &OrgId, id: &FileId) -> Result<Option<FileRecord>, Error> {
        let (org_id, id) = (org_id.clone(), id.clone());
        self.read(move |connection| file::find(connection, &org_id, &id)).await
    }

    async fn files(&self, org_id: &OrgId, query: FileQuery) -> Result<Vec<FileRecord>, Error> {
        let org_id = org_id.clone();
        self.read(move |connection| file::list(connection, &org_id, &query)).await
    }

    async fn file_bytes(&self, org_id: &OrgId) -> Result<u64, Error> {
        let org_id = org_id.clone();
        self.read(move |connection| identity::file_bytes(connection, &org_id)).await
    }

    async fn delete_file(&self, org_id: &OrgId, id: &FileId) -> Result<bool, Error> {
        let (org_id, id) = (org_id.clone(), id.clone());
        self.writer.run(move |connection| file::delete(connection, &org_id, &id)).await
    }

    async fn expired_files(&self, now: Timestamp, limit: u32) -> Result<Vec<ExpiredFile>, Error> {
        let now_us = row::micros(now)?;
        self.read(move |connection| file::expired(connection, now_us, limit)).await
    }

    async fn sessions(&self, org_id: &OrgId, query: SessionQuery) -> Result<Vec<SessionRecord>, Error> {
        let org_id = org_id.clone();
        self.read(move |connection| managed::list(connection, &org_id, &query)).await
    }

    async fn lease_session(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        owner: &str,
        at: Timestamp,
    ) -> Result<Lease, Error> {
        let (owners, owner, at_us) = (Arc::clone(&self.owners), owner.to_owned(), row::micros(at)?);
        let (org_id, id) = (org_id.clone(), session_id.clone());
        self.writer
            .run(move |connection| managed::lease(connection, &owners, (&org_id, &id), &owner, at_us))
            .await
    }

    async fn release_session(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
    ) -> Result<bool, Error> {
        let (org_id, id) = (org_id.clone(), session_id.clone());
        self.writer.run(move |connection| managed::release(connection, &org_id, &id, fence)).await
    }

    async fn commit_session(&self, commit: SessionCommit) -> Result<u64, Error> {
        let commit = Commit::new(commit)?;
        let _room = self.room(commit.bytes).await?;
        self.writer.run(move |connection| commit.run(connection)).await
    }

    async fn delete_session(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
    ) -> Result<bool, Error> {
        let (org_id, id) = (org_id.clone(), session_id.clone());
        let delete =
            move |connection: &Connection| retention::delete_session(connection, &org_id, &id, fence);
        let deleted = self.writer.run(delete).await?;
        retention::sweep_all(self).await?;
        Ok(deleted)
    }

    async fn due_sessions(&self, now: Timestamp, limit: u32) -> Result<Vec<DueSession>, Error> {
        let now_us = row::micros(now)?;
        self.read(move |connection| managed::due(connection, now_us, limit)).await
    }

    async fn next_wake(&self, after: Timestamp) -> Result<Option<Timestamp>, Error> {
        let after_us = row::micros(after)?;
        self.read(move |connection| managed::next_wake(connection, after_us)).await
    }

    async fn event_rows(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRow>, Error> {
        let (org_id, session_id) = (org_id.clone(), session_id.clone());
        let page = LogPage { org_id, session_id, after, limit };
        self.read(move |connection| page.rows(connection)).await
    }

    async fn list_events(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        query: EventQuery,
    ) -> Result<Vec<EventRow>, Error> {
        let (org_id, id) = (org_id.clone(), session_id.clone());
        self.read(move |connection| event::list(connection, &org_id, &id, &query)).await
    }

    async fn event(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        id: &EventId,
    ) -> Result<Option<EventRow>, Error> {
        let (org_id, session_id, id) = (org_id.clone(), session_id.clone(), id.clone());
        self.read(move |connection| event::find(connection, &org_id, &session_id, &id)).await
    }

    async fn raw_rows(
        &self,
        org_id: &OrgId,
        session_id: &SessionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RawRow>, Error> {
        let (org_id, session_id) = (org_id.clone(), session_id.clone());
        let page = LogPage { org_id, session_id, after, limit };
        self.read(move |connection| page.raw(connection)).await
    }

    async fn session_usage(
        &self,
        org_id: &OrgId,
        session_ids: &[SessionId],
    ) -> Result<Vec<(SessionId, UsageRow)>, Error> {
        let (org_id, ids) = (org_id.clone(), session_ids.to_vec());
        self.read(move |connection| usage::of_sessions(connection, &org_id, &ids)).await
    }

    async fn begin_idempotent(&self, request: IdempotentRequest) -> Result<Idempotent, Error> {
        let owners = Arc::clone(&self.owners);
        self.writer.run(move |connection| idempotent::begin(connection, &owners, &request)).await
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
        let (org_id, key_id, key, at_us) = (org_id.clone(), key_id.clone(), key.to_owned(), row::micros(at)?);
        let answer = Answer { org_id, key_id, key, status, body, at_us };
        let _room = self.room(answer.body.len()).await?;
        self.writer.run(move |connection| idempotent::finish(connection, &answer)).await
    }

    async fn abandon_idempotent(&self, org_id: &OrgId, key_id: &KeyId, key: &str) -> Result<bool, Error> {
        let (org_id, key_id, key) = (org_id.clone(), key_id.clone(), key.to_owned());
        self.writer.run(move |connection| idempotent::abandon(connection, &org_id, &key_id, &key)).await
    }

    async fn expire_idempotent(&self, before: Timestamp) -> Result<u64, Error> {
        let before_us = row::micros(before)?;
        let mut expired = 0;
        loop {
            let some = move |connection: &Connection| idempotent::expire(connection, before_us, DELETE_BATCH);
            let deleted = self.writer.run(some).await?;
            expired += deleted;
            if deleted < u64::from(DELETE_BATCH) {
                return Ok(expired);
            }
        }
    }

    async fn forget_user(&self, org_id: &OrgId, user_id: &str) -> Result<ForgetUser, Error> {
        forget::forget_user(self, org_id, user_id).await
    }

    async fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        retention::delete_events_before(self, row::micros(before)?, limit).await
    }

    async fn delete_sessions_before(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeletedSession>, Error> {
        retention::delete_sessions_before(self, row::micros(before)?, limit).await
    }

    async fn delete_usage_before(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        retention::delete_usage_before(self, row::micros(before)?, limit).await
    }
}
