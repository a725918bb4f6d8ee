//! Sessions and their runs.

use rusqlite::{Connection, params};
use wardian_protocol::{AgentId, OrgId, RequestId, SessionId};

use super::owner::Owners;
use super::query::Query;
use super::row::{self, Reading};
use crate::record::Named;
use crate::{
    BeginRun, Error, MAX_DETAIL_BYTES, MAX_NAME_BYTES, ManagedRecord, RunOutcomeRecord, RunRecord,
    SessionRecord, SessionStatus,
};

/// A session with what a managed one has beside; the condition on the org is still to come.
pub(super) const SESSIONS: &str =
    "SELECT sessions.id AS id, sessions.org_id AS org_id, user_id, status, runs, active_run, last_seq,
        created_us, updated_us, agent_id, agent_version, environment_id, wake_us, archived_us, lease_owner, fence,
        state, definition
    FROM sessions LEFT JOIN session_definitions
    ON session_definitions.org_id = sessions.org_id AND session_id = sessions.id
    WHERE sessions.org_id = ?";

/// The columns that may be large.
pub(super) const STATE: usize = 16;
pub(super) const DEFINITION: usize = 17;

pub(super) fn find(
    connection: &Connection,
    org_id: &OrgId,
    id: &SessionId,
) -> Result<Option<SessionRecord>, Error> {
    let mut query = Query::new(SESSIONS, org_id);
    query.when("sessions.id = ?", Some(id.to_string()));
    Ok(query.rows(connection, "sessions", &[], read)?.pop())
}

pub(super) fn read(row: &Reading<'_>) -> Result<SessionRecord, Error> {
    Ok(SessionRecord {
        id: row.id(0)?,
        org_id: row.id(1)?,
        user_id: row.get(2)?,
        status: row.named(3)?,
        runs: row.count(4)?,
        active_run: row.optional_id(5)?,
        last_seq: row.count(6)?,
        created_at: row.time(7)?,
        updated_at: row.time(8)?,
        managed: row.optional_id(9)?.map(|agent_id| read_managed(row, agent_id)).transpose()?,
    })
}

fn read_managed(row: &Reading<'_>, agent_id: AgentId) -> Result<Box<ManagedRecord>, Error> {
    Ok(Box::new(ManagedRecord {
        agent_id,
        agent_version: row.count(10)?,
        environment_id: row.id(11)?,
        wake_at: row.optional_time(12)?,
        archived_at: row.optional_time(13)?,
        lease_owner: row.get(14)?,
        fence: row.count(15)?,
        state: row.json(STATE)?,
        definition: row.json(DEFINITION)?,
    }))
}

/// A run about to begin.
pub(super) struct Begin {
    pub(super) org_id: OrgId,
    pub(super) session_id: SessionId,
    pub(super) id: RequestId,
    pub(super) owner: String,
    pub(super) at_us: i64,
}

pub(super) fn begin_run(connection: &Connection, owners: &Owners, run: &Begin) -> Result<BeginRun, Error> {
    let session = [run.org_id.as_str(), run.session_id.as_str()];
    let sql = "SELECT id, status FROM sessions WHERE org_id = ?1 AND id = ?2 AND agent_id IS NULL";
    let status: Option<SessionStatus> = row::first(connection, "sessions", sql, session, |row| row.named(1))?;
    match status {
        None | Some(SessionStatus::Terminated) => return Ok(BeginRun::NoSession),
        Some(SessionStatus::Running | SessionStatus::Rescheduling) => return Ok(BeginRun::Busy),
        Some(SessionStatus::Idle) => (),
    }
    owners.hold(&run.owner)?;
    row::insert(
        connection,
        "run",
        run.id.as_str(),
        "INSERT INTO runs (org_id, id, session_id, owner, started_us) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![run.org_id.as_str(), run.id.as_str(), run.session_id.as_str(), run.owner, run.at_us],
    )?;
    let sql = "UPDATE sessions SET status = 'running', active_run = ?3, runs = runs + 1, fence = fence + 1,
                   updated_us = ?4
               WHERE org_id = ?1 AND id = ?2 RETURNING id, fence";
    let params = params![session[0], session[1], run.id.as_str(), run.at_us];
    let fence = row::first(connection, "sessions", sql, params, |row| row.count(1))?;
    Ok(fence.map_or(BeginRun::NoSession, |fence| BeginRun::Started { fence }))
}

pub(super) fn end_run(
    connection: &Connection,
    org_id: &OrgId,
    session_id: &SessionId,
    id: &RequestId,
    outcome: &RunOutcomeRecord,
) -> Result<bool, Error> {
    row::text("stop reason", outcome.stop_reason.as_deref().unwrap_or_default(), MAX_NAME_BYTES)?;
    row::text("detail", outcome.detail.as_deref().unwrap_or_default(), MAX_DETAIL_BYTES)?;
    let at_us = row::micros(outcome.at)?;
    let ended = connection
        .prepare_cached(
            "UPDATE runs SET ended_us = ?4, status = ?5, is_error = ?6, cost_nano = ?7, num_turns = ?8,
                 stop_reason = ?9, exit_code = ?10, detail = ?11
             WHERE org_id = ?1 AND session_id = ?2 AND id = ?3 AND ended_us IS NULL",
        )?
        .execute(params![
            org_id.as_str(),
            session_id.as_str(),
            id.as_str(),
            at_us,
            outcome.status.name(),
            outcome.is_error,
            row::nano(outcome.cost)?,
            row::count(outcome.num_turns),
            outcome.stop_reason,
            outcome.exit_code,
            outcome.detail,
        ])?;
    connection
        .prepare_cached(
            "UPDATE sessions SET status = 'idle', active_run = NULL, updated_us = ?4
             WHERE org_id = ?1 AND id = ?2 AND active_run = ?3",
        )?
        .execute(params![org_id.as_str(), session_id.as_str(), id.as_str(), at_us])?;
    Ok(ended == 1)
}

pub(super) fn interrupted_runs(
    connection: &Connection,
    owners: &Owners,
    owner_not: &str,
) -> Result<Vec<RunRecord>, Error> {
    let sql = "SELECT runs.id, runs.org_id, session_id, owner, started_us, coalesce(fence, 0)
               FROM runs LEFT JOIN sessions ON sessions.org_id = runs.org_id AND sessions.id = session_id
               WHERE ended_us IS NULL AND owner <> ?1 ORDER BY started_us, runs.id";
    let mut runs = row::rows(connection, "runs", sql, [owner_not], |row| {
        Ok(RunRecord {
            id: row.id(0)?,
            org_id: row.id(1)?,
            session_id: row.id(2)?,
            owner: row.get(3)?,
            started_at: row.time(4)?,
            fence: row.count(5)?,
        })
    })?;
    runs.retain(|run| owners.is_gone(&run.owner));
    Ok(runs)
}
