//! The logs of sessions.

use std::sync::Arc;

use rusqlite::{Connection, params};
use wardian_protocol::{EventId, OrgId, RequestId, SessionId};

use super::query::Query;
use super::row::{self, Reading};
use crate::{
    Error, EventQuery, EventRecord, EventRow, MAX_APPEND_BYTES, MAX_APPEND_EVENTS, MAX_EVENT_BYTES,
    MAX_NAME_BYTES, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, NewEvent, Order, RawRow,
};

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

    /// Appends to a session of runs.
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
        if let Some(last) = row::first(connection, "sessions", sql, params, |row| row.count(1))? {
            return self.insert(connection, org_id, session_id, last).map(|()| last);
        }
        let sql = "SELECT id FROM sessions WHERE org_id = ?1 AND id = ?2 AND agent_id IS NULL";
        match row::first(connection, "sessions", sql, session, |_| Ok(()))? {
            Some(()) => Err(Error::Fenced),
            None => Err(Error::Unknown { what: "session", id: session_id.to_string() }),
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

/// Rows of a log above a number. A session that is gone may still have some, which nobody sees.
pub(super) const PAGE: &str = "SELECT id, seq, first_seq, kind, at_us, payload, request_id FROM events
    WHERE org_id = ?1 AND session_id = ?2 AND seq > ?3
        AND EXISTS (SELECT 1 FROM sessions WHERE org_id = ?1 AND id = ?2)
    ORDER BY seq LIMIT ?4";

pub(super) const RAW_PAGE: &str = "SELECT number, line FROM session_raw
    WHERE org_id = ?1 AND session_id = ?2 AND number > ?3
        AND EXISTS (SELECT 1 FROM sessions WHERE org_id = ?1 AND id = ?2)
    ORDER BY number LIMIT ?4";

/// Where a page of a log begins, and how long it may be.
#[derive(Clone)]
pub(super) struct LogPage {
    pub(super) org_id: OrgId,
    pub(super) session_id: SessionId,
    pub(super) after: u64,
    pub(super) limit: u32,
}

impl LogPage {
    /// Reads rows until the page has enough bytes in this column; at least one.
    fn page<T>(
        &self,
        connection: &Connection,
        table: &'static str,
        sql: &str,
        sized: usize,
        read: impl Fn(&Reading<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let Ok(after) = i64::try_from(self.after) else { return Ok(Vec::new()) };
        let mut statement = connection.prepare_cached(sql)?;
        let limit = self.limit.min(MAX_PAGE_EVENTS);
        let params = params![self.org_id.as_str(), self.session_id.as_str(), after, limit];
        let mut rows = statement.query(params)?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let row = Reading::new(row, table);
            bytes += row.size(sized);
            if bytes > MAX_PAGE_BYTES && !page.is_empty() {
                break;
            }
            page.push(read(&row)?);
        }
        Ok(page)
    }

    pub(super) fn records(&self, connection: &Connection) -> Result<Vec<EventRecord>, Error> {
        self.page(connection, "events", PAGE, 5, |row| {
            Ok(EventRecord {
                seq: row.count(1)?,
                id: row.id(0)?,
                request_id: row.optional_id(6)?,
                kind: row.get(3)?,
                payload: row.json(5)?,
                at: row.time(4)?,
            })
        })
    }

    pub(super) fn rows(&self, connection: &Connection) -> Result<Vec<EventRow>, Error> {
        self.page(connection, "events", PAGE, 5, read)
    }

    pub(super) fn raw(&self, connection: &Connection) -> Result<Vec<RawRow>, Error> {
        self.page(connection, "session_raw", RAW_PAGE, 1, |row| {
            Ok(RawRow { number: row.count(0)?, line: row.get(1)? })
        })
    }
}

pub(super) fn list(
    connection: &Connection,
    org_id: &OrgId,
    session_id: &SessionId,
    asked: &EventQuery,
) -> Result<Vec<EventRow>, Error> {
    list_query(org_id, session_id, asked)?.rows(connection, "events", &[5], read)
}

/// First rows say which events there are and where, last rows what they are by now.
const LIST: &str = "SELECT latest.id, latest.seq, latest.first_seq, latest.kind, latest.at_us, latest.payload
    FROM events AS earliest CROSS JOIN events AS latest
    ON latest.org_id = earliest.org_id AND latest.session_id = earliest.session_id AND latest.seq = (
        SELECT max(seq) FROM events
        WHERE org_id = earliest.org_id AND session_id = earliest.session_id AND id = earliest.id
    )
    WHERE earliest.seq = earliest.first_seq
        AND EXISTS (SELECT 1 FROM sessions WHERE org_id = earliest.org_id AND id = earliest.session_id)
        AND earliest.org_id = ?";

pub(super) fn list_query(org_id: &OrgId, session_id: &SessionId, asked: &EventQuery) -> Result<Query, Error> {
    let (size, limit) = (asked.types.len(), MAX_APPEND_EVENTS);
    if size > limit {
        return Err(Error::TooLarge { what: "list of event types", size, limit });
    }
    let (beyond, way) = match asked.order {
        Order::Asc => (">", "ASC"),
        Order::Desc => ("<", "DESC"),
    };
    let mut query = Query::new(LIST, org_id);
    query.when("earliest.session_id = ?", Some(session_id.to_string()));
    query.one_of("earliest.kind", asked.types.iter().map(String::as_str));
    query.created("earliest.at_us", &asked.created);
    let after = asked.after.map(|after| i64::try_from(after).unwrap_or(i64::MAX));
    query.when(&format!("earliest.seq {beyond} ?"), after);
    query.end(&format!("ORDER BY earliest.seq {way}"), asked.limit.min(MAX_PAGE_EVENTS));
    Ok(query)
}

pub(super) fn find(
    connection: &Connection,
    org_id: &OrgId,
    session_id: &SessionId,
    id: &EventId,
) -> Result<Option<EventRow>, Error> {
    let sql = "SELECT id, seq, first_seq, kind, at_us, payload FROM events
               WHERE org_id = ?1 AND session_id = ?2 AND id = ?3
                   AND EXISTS (SELECT 1 FROM sessions WHERE org_id = ?1 AND id = ?2)
               ORDER BY seq DESC LIMIT 1";
    row::first(connection, "events", sql, [org_id.as_str(), session_id.as_str(), id.as_str()], read)
}

fn read(row: &Reading<'_>) -> Result<EventRow, Error> {
    let text = |column| row.get::<String>(column).map(Arc::<str>::from);
    Ok(EventRow {
        seq: row.count(1)?,
        first_seq: row.count(2)?,
        id: row.id(0)?,
        kind: text(3)?,
        at: row.time(4)?,
        payload: text(5)?,
    })
}
