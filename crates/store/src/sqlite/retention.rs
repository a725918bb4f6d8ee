//! What is deleted for good: never much in one commit.

use rusqlite::{Connection, params};
use wardian_protocol::{OrgId, SessionId};

use super::row;
use crate::{DELETE_BATCH, Error};

/// Deletes a managed session's row if the fence is right; its log goes with [`sweep`].
pub(super) fn delete_session(
    connection: &Connection,
    org_id: &OrgId,
    id: &SessionId,
    fence: u64,
) -> Result<bool, Error> {
    let named = (org_id.as_str(), id.as_str());
    let sql = "SELECT id, fence = ?3 AND lease_owner IS NOT NULL FROM sessions
               WHERE org_id = ?1 AND id = ?2 AND agent_id IS NOT NULL";
    let params = params![named.0, named.1, row::fence(fence)?];
    match row::first(connection, "sessions", sql, params, |row| row.get::<bool>(1))? {
        None => Ok(false),
        Some(false) => Err(Error::Fenced),
        Some(true) => bury(connection, named).map(|()| true),
    }
}

/// Deletes a session's row, whose log is seen by nobody from then on.
fn bury(connection: &Connection, named: (&str, &str)) -> Result<(), Error> {
    let sql = "DELETE FROM runs WHERE org_id = ?1 AND session_id = ?2";
    connection.prepare_cached(sql)?.execute(named)?;
    let sql = "DELETE FROM session_definitions WHERE org_id = ?1 AND session_id = ?2";
    connection.prepare_cached(sql)?.execute(named)?;
    let sql = "DELETE FROM sessions WHERE org_id = ?1 AND id = ?2";
    connection.prepare_cached(sql)?.execute(named)?;
    let sql = "INSERT INTO deleted_sessions (org_id, id) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(named)?;
    Ok(())
}

/// Deletes some rows of sessions that are gone: `false` if none are left.
pub(super) fn sweep(connection: &Connection) -> Result<bool, Error> {
    let sql = "SELECT id, org_id FROM deleted_sessions LIMIT 1";
    let gone: Option<(String, String)> =
        row::first(connection, "deleted_sessions", sql, [], |row| Ok((row.get(1)?, row.get(0)?)))?;
    let Some((org_id, id)) = gone else { return Ok(false) };
    let named = (org_id.as_str(), id.as_str());
    if delete_log(connection, named, DELETE_BATCH)? < u64::from(DELETE_BATCH) {
        let sql = "DELETE FROM deleted_sessions WHERE org_id = ?1 AND id = ?2";
        connection.prepare_cached(sql)?.execute(named)?;
    }
    Ok(true)
}

/// Deletes rows of a session's log, the oldest first: fewer than `limit` if none are left.
fn delete_log(connection: &Connection, named: (&str, &str), limit: u32) -> Result<u64, Error> {
    let mut deleted = 0;
    for sql in [
        "DELETE FROM events WHERE rowid IN (
             SELECT rowid FROM events WHERE org_id = ?1 AND session_id = ?2 ORDER BY seq LIMIT ?3)",
        "DELETE FROM session_raw WHERE rowid IN (
             SELECT rowid FROM session_raw WHERE org_id = ?1 AND session_id = ?2 ORDER BY number LIMIT ?3)",
    ] {
        let left = u64::from(limit).saturating_sub(deleted);
        let left = i64::try_from(left).expect("a small number");
        let gone = connection.prepare_cached(sql)?.execute(params![named.0, named.1, left])?;
        deleted += gone as u64;
    }
    Ok(deleted)
}
