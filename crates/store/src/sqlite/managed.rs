//! Managed sessions: taking one, writing to it, giving it back.

use jiff::Timestamp;
use rusqlite::{Connection, params};
use wardian_protocol::{OrgId, RequestId, SessionId};

use super::event::Append;
use super::owner::Owners;
use super::query::Query;
use super::row;
use super::session;
use crate::record::Named;
use crate::{
    DueSession, Error, Lease, MAX_DEFINITION_BYTES, MAX_PAGE_ROWS, MAX_RAW_BYTES, MAX_RAW_ROWS,
    MAX_STATE_BYTES, MAX_USER_BYTES, NewManaged, NewSession, SessionCommit, SessionQuery, SessionRecord,
    SessionStatus,
};

/// A session checked and written out as JSON, on the caller's thread.
pub(super) struct Create {
    session: NewSession,
    managed: Option<(NewManaged, String, String, Append)>,
    pub(super) bytes: usize,
}

impl Create {
    pub(super) fn new(mut session: NewSession) -> Result<Self, Error> {
        let Some(mut managed) = session.managed.take() else {
            return Ok(Self { session, managed: None, bytes: 0 });
        };
        let append = Append::new(std::mem::take(&mut managed.events))?;
        let definition = row::json("definition", &managed.definition.take(), MAX_DEFINITION_BYTES)?;
        let state = row::json("state", &managed.state.take(), MAX_STATE_BYTES)?;
        let bytes = append.bytes + definition.len() + state.len();
        Ok(Self { session, managed: Some((managed, definition, state, append)), bytes })
    }

    pub(super) fn run(&self, connection: &Connection) -> Result<(), Error> {
        let NewSession { id, org_id, user_id, created_at, managed: _ } = &self.session;
        super::identity::user_of(connection, org_id, user_id.as_deref())?;
        let sql = "SELECT id FROM deleted_sessions WHERE org_id = ?1 AND id = ?2";
        if row::first(connection, "deleted_sessions", sql, [org_id.as_str(), id.as_str()], |_| Ok(()))?
            .is_some()
        {
            return Err(Error::Exists { what: "session", id: id.to_string() });
        }
        let created_us = row::micros(*created_at)?;
        let of_managed = |managed: &NewManaged| {
            Ok::<_, Error>((
                i64::try_from(managed.agent_version)
                    .map_err(|_| Error::Invalid { what: "agent version", why: "it is too large" })?,
                managed.wake_at.map(row::micros).transpose()?,
            ))
        };
        let managed = self.managed.as_ref();
        let (version, wake_us) = managed.map(|(managed, ..)| of_managed(managed)).transpose()?.unzip();
        row::insert(
            connection,
            "session",
            id.as_str(),
            "INSERT INTO sessions (org_id, id, user_id, status, runs, last_seq, created_us, updated_us,
                 agent_id, agent_version, environment_id, wake_us, state)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                org_id.as_str(),
                id.as_str(),
                user_id,
                SessionStatus::Idle.name(),
                managed.map_or(0, |(.., append)| append.number()),
                created_us,
                managed.map(|(managed, ..)| managed.agent_id.as_str()),
                version,
                managed.map(|(managed, ..)| managed.environment_id.as_str()),
                wake_us.flatten(),
                managed.map(|(_, _, state, _)| state.as_str()),
            ],
        )?;
        let Some((_, definition, _, append)) = managed else { return Ok(()) };
        let sql = "INSERT INTO session_definitions (org_id, session_id, definition) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute([org_id.as_str(), id.as_str(), definition])?;
        append.insert(connection, org_id, id, append.number().into())
    }
}

pub(super) fn list(
    connection: &Connection,
    org_id: &OrgId,
    asked: &SessionQuery,
) -> Result<Vec<SessionRecord>, Error> {
    row::text("user", asked.user_id.as_deref().unwrap_or_default(), MAX_USER_BYTES)?;
    list_query(org_id, asked).rows(
        connection,
        "sessions",
        &[session::STATE, session::DEFINITION],
        session::read,
    )
}

pub(super) fn list_query(org_id: &OrgId, asked: &SessionQuery) -> Query {
    let mut query = Query::new(session::SESSIONS, org_id);
    query.only("agent_id IS NOT NULL");
    query.when("agent_id = ?", asked.agent_id.as_ref().map(ToString::to_string));
    let version = asked.agent_version.map(|version| i64::try_from(version).unwrap_or(i64::MAX));
    query.when("agent_version = ?", version);
    query.one_of("status", asked.statuses.iter().map(|status| status.name()));
    query.when("user_id = ?", asked.user_id.clone());
    if !asked.include_archived {
        query.only("archived_us IS NULL");
    }
    query.created("created_us", &asked.created);
    query.page("created_us", "id", &asked.page);
    query
}

pub(super) fn lease(
    connection: &Connection,
    owners: &Owners,
    (org_id, id): (&OrgId, &SessionId),
    owner: &str,
    at_us: i64,
) -> Result<Lease, Error> {
    let named = (org_id.as_str(), id.as_str());
    let sql = "SELECT id, lease_owner FROM sessions WHERE org_id = ?1 AND id = ?2 AND agent_id IS NOT NULL";
    let holder: Option<Option<String>> = row::first(connection, "sessions", sql, named, |row| row.get(1))?;
    let Some(holder) = holder else { return Ok(Lease::Missing) };
    if holder.is_some_and(|holder| holder != owner && !owners.is_gone(&holder)) {
        return Ok(Lease::Held);
    }
    owners.hold(owner)?;
    let sql = "UPDATE sessions SET fence = fence + 1, lease_owner = ?3, leased_us = ?4
               WHERE org_id = ?1 AND id = ?2 RETURNING id, fence";
    let params = params![named.0, named.1, owner, at_us];
    let fence = row::first(connection, "sessions", sql, params, |row| row.count(1))?;
    let record = session::find(connection, org_id, id)?;
    Ok(fence.zip(record).map_or(Lease::Missing, |(fence, record)| Lease::Taken { fence, record }))
}

pub(super) fn release(
    connection: &Connection,
    org_id: &OrgId,
    id: &SessionId,
    fence: u64,
) -> Result<bool, Error> {
    let Ok(fence) = i64::try_from(fence) else { return Ok(false) };
    let sql = "UPDATE sessions SET lease_owner = NULL, leased_us = NULL
               WHERE org_id = ?1 AND id = ?2 AND fence = ?3 AND lease_owner IS NOT NULL";
    let params = params![org_id.as_str(), id.as_str(), fence];
    Ok(connection.prepare_cached(sql)?.execute(params)? == 1)
}

/// A commit checked and written out as JSON, on the caller's thread.
pub(super) struct Commit {
    commit: SessionCommit,
    append: Append,
    state: String,
    definition: Option<String>,
    /// The oldest of its lines that are not even written, since what comes after is all that is kept.
    skipped: usize,
    pub(super) bytes: usize,
}

impl Commit {
    pub(super) fn new(mut commit: SessionCommit) -> Result<Self, Error> {
        let append = Append::new(std::mem::take(&mut commit.events))?;
        let skipped = skipped(&commit.raw);
        let mut bytes = append.bytes + commit.raw[skipped..].iter().map(String::len).sum::<usize>();
        let (mut state, mut definition) = (String::new(), None);
        if let Some(change) = &mut commit.change {
            state = row::json("state", &change.state.take(), MAX_STATE_BYTES)?;
            let json = |value| row::json("definition", &value, MAX_DEFINITION_BYTES);
            definition = change.definition.take().map(json).transpose()?;
            bytes += state.len() + definition.as_ref().map_or(0, String::len);
        }
        Ok(Self { commit, append, state, definition, skipped, bytes })
    }

    pub(super) fn run(&self, connection: &Connection) -> Result<u64, Error> {
        let SessionCommit { org_id, session_id, fence, .. } = &self.commit;
        let named = (org_id.as_str(), session_id.as_str());
        let Some(last) = self.advance(connection, row::fence(*fence)?)? else {
            let sql = "SELECT id FROM sessions WHERE org_id = ?1 AND id = ?2 AND agent_id IS NOT NULL";
            return match row::first(connection, "sessions", sql, named, |_| Ok(()))? {
                Some(()) => Err(Error::Fenced),
                None => Err(Error::Unknown { what: "session", id: session_id.to_string() }),
            };
        };
        if let Some(definition) = &self.definition {
            let sql = "UPDATE session_definitions SET definition = ?3 WHERE org_id = ?1 AND session_id = ?2";
            connection.prepare_cached(sql)?.execute([named.0, named.1, definition])?;
        }
        self.append.insert(connection, org_id, session_id, last)?;
        self.keep_raw(connection)?;
        Ok(last)
    }

    /// Changes the session's row if the fence is right, and says its new `last_seq`.
    fn advance(&self, connection: &Connection, fence: i64) -> Result<Option<u64>, Error> {
        let SessionCommit { org_id, session_id, change, .. } = &self.commit;
        let named = (org_id.as_str(), session_id.as_str());
        let Some(change) = change else {
            let sql = "UPDATE sessions SET last_seq = last_seq + ?4
                       WHERE org_id = ?1 AND id = ?2 AND fence = ?3 AND lease_owner IS NOT NULL
                           AND agent_id IS NOT NULL
                       RETURNING id, last_seq";
            let params = params![named.0, named.1, fence, self.append.number()];
            return row::first(connection, "sessions", sql, params, |row| row.count(1));
        };
        let sql = "UPDATE sessions SET last_seq = last_seq + ?4, status = ?5,
                       runs = runs + (?6 IS NOT NULL AND ?6 IS NOT active_run), active_run = ?6, state = ?7,
                       wake_us = ?8, archived_us = coalesce(archived_us, ?9), updated_us = ?10
                   WHERE org_id = ?1 AND id = ?2 AND fence = ?3 AND lease_owner IS NOT NULL
                       AND agent_id IS NOT NULL
                   RETURNING id, last_seq";
        let params = params![
            named.0,
            named.1,
            fence,
            self.append.number(),
            change.status.name(),
            change.active_run.as_ref().map(RequestId::as_str),
            self.state,
            change.wake_at.map(row::micros).transpose()?,
            change.archived_at.map(row::micros).transpose()?,
            row::micros(change.at)?,
        ];
        row::first(connection, "sessions", sql, params, |row| row.count(1))
    }

    /// Adds the agent's lines, and takes the oldest away where there are too many.
    fn keep_raw(&self, connection: &Connection) -> Result<(), Error> {
        let lines = &self.commit.raw;
        if lines.is_empty() {
            return Ok(());
        }
        let named = (self.commit.org_id.as_str(), self.commit.session_id.as_str());
        let sql = "SELECT id, raw_last, raw_bytes FROM sessions WHERE org_id = ?1 AND id = ?2";
        let known = row::first(connection, "sessions", sql, named, |row| Ok((row.count(1)?, row.count(2)?)))?;
        let (mut last, mut bytes) = known.unwrap_or_default();
        if self.skipped > 0 {
            let sql = "DELETE FROM session_raw WHERE org_id = ?1 AND session_id = ?2";
            connection.prepare_cached(sql)?.execute(named)?;
            (last, bytes) = (last + self.skipped as u64, 0);
        }
        let sql = "INSERT INTO session_raw (org_id, session_id, number, line) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = connection.prepare_cached(sql)?;
        for line in &lines[self.skipped..] {
            last += 1;
            bytes += line.len() as u64;
            let number = i64::try_from(last).map_err(|_| Error::Invalid { what: "line", why: "too many" })?;
            insert.execute(params![named.0, named.1, number, line])?;
        }
        bytes = trim_raw(connection, named, last, bytes)?;
        let sql = "UPDATE sessions SET raw_last = ?3, raw_bytes = ?4 WHERE org_id = ?1 AND id = ?2";
        let size = |number| i64::try_from(number).unwrap_or(i64::MAX);
        connection.prepare_cached(sql)?.execute(params![named.0, named.1, size(last), size(bytes)])?;
        Ok(())
    }
}

/// How many of these lines, from the oldest, are over what is kept of a session.
fn skipped(lines: &[String]) -> usize {
    let (mut bytes, mut rows) = (0, 0);
    let fits = |line: &&String| {
        (bytes, rows) = (bytes + line.len() as u64, rows + 1);
        bytes <= MAX_RAW_BYTES && rows <= MAX_RAW_ROWS
    };
    lines.len() - lines.iter().rev().take_while(fits).count()
}

/// Deletes the oldest lines if there are too many, and an eighth more, so that it is not done with every commit. Returns the
/// bytes that are left.
fn trim_raw(connection: &Connection, named: (&str, &str), last: u64, mut bytes: u64) -> Result<u64, Error> {
    let sql = "SELECT coalesce(min(number), 1) FROM session_raw WHERE org_id = ?1 AND session_id = ?2";
    let first = row::first(connection, "session_raw", sql, named, |row| row.count(0))?.unwrap_or(1);
    let mut rows = (last + 1).saturating_sub(first);
    if rows <= MAX_RAW_ROWS && bytes <= MAX_RAW_BYTES {
        return Ok(bytes);
    }
    let sql = "SELECT number, octet_length(line) FROM session_raw WHERE org_id = ?1 AND session_id = ?2
               ORDER BY number";
    let mut statement = connection.prepare_cached(sql)?;
    let mut oldest = statement.query(named)?;
    let mut beyond = 0_i64;
    while rows > MAX_RAW_ROWS / 8 * 7 || bytes > MAX_RAW_BYTES / 8 * 7 {
        let Some(row) = oldest.next()? else { break };
        beyond = row.get(0)?;
        bytes = bytes.saturating_sub(row.get::<_, u32>(1)?.into());
        rows = rows.saturating_sub(1);
    }
    let sql = "DELETE FROM session_raw WHERE org_id = ?1 AND session_id = ?2 AND number <= ?3";
    connection.prepare_cached(sql)?.execute(params![named.0, named.1, beyond])?;
    Ok(bytes)
}

pub(super) fn due(connection: &Connection, now_us: i64, limit: u32) -> Result<Vec<DueSession>, Error> {
    let sql = "SELECT id, org_id, wake_us FROM sessions WHERE wake_us <= ?1
               ORDER BY wake_us, org_id, id LIMIT ?2";
    row::rows(connection, "sessions", sql, params![now_us, limit.min(MAX_PAGE_ROWS)], |row| {
        Ok(DueSession { session_id: row.id(0)?, org_id: row.id(1)?, wake_at: row.time(2)? })
    })
}

pub(super) fn next_wake(connection: &Connection, after_us: i64) -> Result<Option<Timestamp>, Error> {
    let sql = "SELECT id, wake_us FROM sessions WHERE wake_us > ?1 ORDER BY wake_us LIMIT 1";
    row::first(connection, "sessions", sql, [after_us], |row| row.time(1))
}
