//! Sessions, their runs and their events.

use rusqlite::{Connection, params};
use serde_json::Value;
use wardian_protocol::{OrgId, RequestId, SessionId};

use super::owner::Owners;
use super::row::{self, Reading};
use crate::record::Named;
use crate::{
    BeginRun, Error, EventRecord, MAX_APPEND_BYTES, MAX_APPEND_EVENTS, MAX_DETAIL_BYTES, MAX_EVENT_BYTES,
    MAX_NAME_BYTES, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, NewEvent, NewSession, RunOutcomeRecord, RunRecord,
    SessionRecord, SessionStatus,
};

pub(super) fn create(connection: &Connection, session: &NewSession) -> Result<(), Error> {
    super::identity::user_of(connection, &session.org_id, session.user_id.as_deref())?;
    row::insert(
        connection,
        "session",
        session.id.as_str(),
        "INSERT INTO sessions (org_id, id, user_id, status, runs, last_seq, created_us, updated_us)
         VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?5)",
        params![
            session.org_id.as_str(),
            session.id.as_str(),
            session.user_id,
            SessionStatus::Idle.name(),
            row::micros(session.created_at)?,
        ],
    )
}

pub(super) fn find(
    connection: &Connection,
    org_id: &OrgId,
    id: &SessionId,
) -> Result<Option<SessionRecord>, Error> {
    let sql = "SELECT id, org_id, user_id, status, runs, active_run, last_seq, created_us, updated_us
               FROM sessions WHERE org_id = ?1 AND id = ?2";
    row::first(connection, "sessions", sql, [org_id.as_str(), id.as_str()], |row| {
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
            managed: None,
        })
    })
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

/// Events checked and written out as JSON, on the caller's thread, so that the writer's has less to do.
pub(super) struct Append {
    events: Vec<(NewEvent, String, i64)>,
    pub(super) bytes: usize,
}

impl Append {
    pub(super) fn new(events: Vec<NewEvent>) -> Result<Self, Error> {
        let size = events.len();
        if size > MAX_APPEND_EVENTS {
            return Err(Error::TooLarge { what: "append, in events", size, limit: MAX_APPEND_EVENTS });
        }
        let mut append = Self { events: Vec::with_capacity(size), bytes: 0 };
        for mut event in events {
            row::name("event kind", &event.kind, MAX_NAME_BYTES)?;
            let at_us = row::micros(event.at)?;
            let payload = event.payload.take().to_string();
            if payload.len() > MAX_EVENT_BYTES {
                return Err(Error::TooLarge { what: "event", size: payload.len(), limit: MAX_EVENT_BYTES });
            }
            append.bytes += payload.len();
            if append.bytes > MAX_APPEND_BYTES {
                return Err(Error::TooLarge { what: "append", size: append.bytes, limit: MAX_APPEND_BYTES });
            }
            append.events.push((event, payload, at_us));
        }
        Ok(append)
    }

    /// How many, for a `last_seq` to grow by.
    pub(super) fn number(&self) -> u32 {
        u32::try_from(self.events.len()).expect("MAX_APPEND_EVENTS at most")
    }

    pub(super) fn run(
        &self,
        connection: &Connection,
        org_id: &OrgId,
        session_id: &SessionId,
        fence: u64,
    ) -> Result<u64, Error> {
        let sql = "UPDATE sessions SET last_seq = last_seq + ?4
                   WHERE org_id = ?1 AND id = ?2 AND fence = ?3 AND agent_id IS NULL RETURNING id, last_seq";
        let session = (org_id.as_str(), session_id.as_str());
        let params = params![session.0, session.1, row::fence(fence)?, self.number()];
        match row::first(connection, "sessions", sql, params, |row| row.count(1))? {
            Some(last) => self.insert(connection, org_id, session_id, last).map(|()| last),
            None => {
                let sql = "SELECT id FROM sessions WHERE org_id = ?1 AND id = ?2 AND agent_id IS NULL";
                let found = row::first(connection, "sessions", sql, [session.0, session.1], |_| Ok(()))?;
                found.map_or_else(
                    || Err(Error::Unknown { what: "session", id: session_id.to_string() }),
                    |()| Err(Error::Fenced),
                )
            }
        }
    }

    /// Writes the rows, of which the last gets this `seq`; the session's row knows it already.
    pub(super) fn insert(
        &self,
        connection: &Connection,
        org_id: &OrgId,
        session_id: &SessionId,
        last: u64,
    ) -> Result<(), Error> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO events (org_id, session_id, seq, first_seq, id, request_id, kind, at_us, payload)
             VALUES (?1, ?2, ?3, coalesce(
                 (SELECT min(seq) FROM events WHERE org_id = ?1 AND session_id = ?2 AND id = ?4), ?3
             ), ?4, ?5, ?6, ?7, ?8)",
        )?;
        let first = (last + 1).saturating_sub(self.number().into());
        for ((event, payload, at_us), seq) in self.events.iter().zip(first..) {
            statement.execute(params![
                org_id.as_str(),
                session_id.as_str(),
                i64::try_from(seq).map_err(|_| Error::Invalid { what: "seq", why: "it is the last" })?,
                event.id.as_str(),
                event.request_id.as_ref().map(RequestId::as_str),
                event.kind,
                at_us,
                payload,
            ])?;
        }
        Ok(())
    }
}

pub(super) fn events(
    connection: &Connection,
    org_id: &OrgId,
    session_id: &SessionId,
    after: u64,
    limit: u32,
) -> Result<Vec<EventRecord>, Error> {
    let Ok(after) = i64::try_from(after) else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT id, seq, request_id, kind, at_us, payload FROM events
         WHERE org_id = ?1 AND session_id = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
    )?;
    let limit = limit.min(MAX_PAGE_EVENTS);
    let mut rows = statement.query(params![org_id.as_str(), session_id.as_str(), after, limit])?;
    let mut page = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let row = Reading::new(row, "events");
        let payload: String = row.get(5)?;
        bytes += payload.len();
        if bytes > MAX_PAGE_BYTES && !page.is_empty() {
            break;
        }
        page.push(read_event(&row, &payload)?);
    }
    Ok(page)
}

fn read_event(row: &Reading<'_>, payload: &str) -> Result<EventRecord, Error> {
    let payload: Value = serde_json::from_str(payload).map_err(|error| row.malformed(5, error))?;
    Ok(EventRecord {
        seq: row.count(1)?,
        id: row.id(0)?,
        request_id: row.optional_id(2)?,
        kind: row.get(3)?,
        payload,
        at: row.time(4)?,
    })
}
