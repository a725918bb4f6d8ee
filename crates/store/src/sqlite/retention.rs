//! What is deleted for good, because it was asked for or is old: never much in one commit.

use rusqlite::{Connection, params};
use wardian_protocol::{OrgId, SessionId};

use super::SqliteStore;
use super::row;
use crate::{DELETE_BATCH, DeletedSession, Error};

/// Deletes a session's row if the fence is right and it is held; its log goes with [`sweep_all`].
pub(super) fn delete_session(
    connection: &Connection,
    org_id: &OrgId,
    id: &SessionId,
    fence: u64,
) -> Result<bool, Error> {
    let named = (org_id.as_str(), id.as_str());
    let sql =
        "SELECT id, fence = ?3 AND (lease_owner IS NOT NULL OR agent_id IS NULL AND active_run IS NOT NULL)
               FROM sessions WHERE org_id = ?1 AND id = ?2 AND (agent_id IS NOT NULL OR active_run IS NOT NULL)";
    let params = params![named.0, named.1, row::fence(fence)?];
    match row::first(connection, "sessions", sql, params, |row| row.get::<bool>(1))? {
        None => Ok(false),
        Some(false) => Err(Error::Fenced),
        Some(true) => bury(connection, named).map(|()| true),
    }
}

/// Deletes a session's row, whose log is seen by nobody from then on.
pub(super) fn bury(connection: &Connection, named: (&str, &str)) -> Result<(), Error> {
    for sql in [
        "DELETE FROM runs WHERE org_id = ?1 AND session_id = ?2",
        "DELETE FROM session_definitions WHERE org_id = ?1 AND session_id = ?2",
        "DELETE FROM sessions WHERE org_id = ?1 AND id = ?2",
        "INSERT INTO deleted_sessions (org_id, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    ] {
        connection.prepare_cached(sql)?.execute(named)?;
    }
    Ok(())
}

/// Deletes what is left of sessions that are gone, also those of a process that died over it. Returns how many rows.
pub(super) async fn sweep_all(store: &SqliteStore) -> Result<u64, Error> {
    let mut swept = 0;
    while let Some(deleted) = store.writer.run(sweep).await? {
        swept += deleted;
    }
    Ok(swept)
}

/// Deletes some rows of a session that is gone: `None` if there is no such session.
fn sweep(connection: &Connection) -> Result<Option<u64>, Error> {
    let sql = "SELECT id, org_id FROM deleted_sessions LIMIT 1";
    let gone: Option<(String, String)> =
        row::first(connection, "deleted_sessions", sql, [], |row| Ok((row.get(1)?, row.get(0)?)))?;
    let Some((org_id, id)) = gone else { return Ok(None) };
    let named = (org_id.as_str(), id.as_str());
    let deleted = delete_log(connection, named, DELETE_BATCH)?;
    if deleted < u64::from(DELETE_BATCH) {
        let sql = "DELETE FROM deleted_sessions WHERE org_id = ?1 AND id = ?2";
        connection.prepare_cached(sql)?.execute(named)?;
    }
    Ok(Some(deleted))
}

/// Deletes rows of a session's log, the oldest first: fewer than `limit` if none are left.
fn delete_log(connection: &Connection, named: (&str, &str), limit: u32) -> Result<u64, Error> {
    let sql = "DELETE FROM events WHERE rowid IN (
                   SELECT rowid FROM events WHERE org_id = ?1 AND session_id = ?2 ORDER BY seq LIMIT ?3)";
    let mut deleted = connection.prepare_cached(sql)?.execute(params![named.0, named.1, limit])?;
    let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(deleted);
    if left > 0 {
        let sql = "DELETE FROM session_raw WHERE rowid IN (
                       SELECT rowid FROM session_raw WHERE org_id = ?1 AND session_id = ?2
                       ORDER BY number LIMIT ?3)";
        let left = i64::try_from(left).expect("a limit at most");
        deleted += connection.prepare_cached(sql)?.execute(params![named.0, named.1, left])?;
    }
    Ok(rows_of(deleted))
}

fn rows_of(deleted: usize) -> u64 {
    u64::try_from(deleted).expect("fewer rows than that")
}

/// A session that may be old enough.
struct Old {
    rowid: i64,
    id: SessionId,
    org_id: OrgId,
    owner: Option<String>,
}

/// A condition on old sessions, beside their age.
const WITH_LOG: &str = "active_run IS NULL AND (
    EXISTS (SELECT 1 FROM events WHERE org_id = sessions.org_id AND session_id = sessions.id)
    OR EXISTS (SELECT 1 FROM session_raw WHERE org_id = sessions.org_id AND session_id = sessions.id))";
const OVER: &str = "agent_id IS NOT NULL AND (archived_us IS NOT NULL OR status = 'terminated')";

/// Some old sessions, in the order of their rows. Looks at each row, since an index by the time of the last change would have
/// to be written with every commit, and this is asked once in a while.
fn old(connection: &Connection, condition: &str, before_us: i64, after_row: i64) -> Result<Vec<Old>, Error> {
    let sql = format!(
        "SELECT id, org_id, lease_owner, rowid FROM sessions
         WHERE rowid > ?2 AND updated_us < ?1 AND {condition} ORDER BY rowid LIMIT 100"
    );
    row::rows(connection, "sessions", &sql, params![before_us, after_row], |row| {
        Ok(Old { id: row.id(0)?, org_id: row.id(1)?, owner: row.get(2)?, rowid: row.get(3)? })
    })
}

/// Whether an old session still is, and nobody has taken it since.
fn still_old(connection: &Connection, old: &Old, condition: &str, before_us: i64) -> Result<bool, Error> {
    let sql = format!(
        "SELECT id FROM sessions
         WHERE org_id = ?1 AND id = ?2 AND lease_owner IS ?3 AND updated_us < ?4 AND {condition}"
    );
    let params = params![old.org_id.as_str(), old.id.as_str(), old.owner, before_us];
    Ok(row::first(connection, "sessions", &sql, params, |_| Ok(()))?.is_some())
}

/// Old sessions that no living owner has, one page after the other.
struct OldSessions<'a> {
    store: &'a SqliteStore,
    condition: &'static str,
    before_us: i64,
    last_row: i64,
}

impl<'a> OldSessions<'a> {
    fn new(store: &'a SqliteStore, condition: &'static str, before_us: i64) -> Self {
        Self { store, condition, before_us, last_row: 0 }
    }

    /// The next of them; `None` after the last.
    async fn next(&mut self) -> Result<Option<Vec<Old>>, Error> {
        let (condition, before_us, last_row) = (self.condition, self.before_us, self.last_row);
        let mut page =
            self.store.read(move |connection| old(connection, condition, before_us, last_row)).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.last_row = last.rowid;
        page.retain(|old| old.owner.as_ref().is_none_or(|owner| !self.store.owners.lives(owner)));
        Ok(Some(page))
    }
}

pub(super) async fn delete_events_before(
    store: &SqliteStore,
    before_us: i64,
    limit: u32,
) -> Result<u64, Error> {
    let mut deleted = sweep_all(store).await?;
    let mut sessions = OldSessions::new(store, WITH_LOG, before_us);
    while let Some(page) = sessions.next().await? {
        for old in page {
            let old = std::sync::Arc::new(old);
            loop {
                let left = u64::from(limit).saturating_sub(deleted);
                let batch = u32::try_from(left).unwrap_or(u32::MAX).min(DELETE_BATCH);
                if batch == 0 {
                    return Ok(deleted);
                }
                let old = std::sync::Arc::clone(&old);
                let some = move |connection: &Connection| {
                    if !still_old(connection, &old, WITH_LOG, before_us)? {
                        return Ok(0);
                    }
                    delete_log(connection, (old.org_id.as_str(), old.id.as_str()), batch)
                };
                let gone = store.writer.run(some).await?;
                deleted += gone;
                if gone < u64::from(batch) {
                    break;
                }
            }
        }
    }
    Ok(deleted)
}

pub(super) async fn delete_sessions_before(
    store: &SqliteStore,
    before_us: i64,
    limit: u32,
) -> Result<Vec<DeletedSession>, Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut deleted = Vec::new();
    let mut sessions = OldSessions::new(store, OVER, before_us);
    while let Some(page) = sessions.next().await? {
        for old in page {
            if deleted.len() >= limit {
                break;
            }
            let gone = DeletedSession { org_id: old.org_id.clone(), session_id: old.id.clone() };
            let one = move |connection: &Connection| {
                let still = still_old(connection, &old, OVER, before_us)?;
                if still {
                    bury(connection, (old.org_id.as_str(), old.id.as_str()))?;
                }
                Ok(still)
            };
            if store.writer.run(one).await? {
                deleted.push(gone);
            }
        }
        if deleted.len() >= limit {
            break;
        }
    }
    sweep_all(store).await?;
    Ok(deleted)
}

pub(super) async fn delete_usage_before(
    store: &SqliteStore,
    before_us: i64,
    limit: u32,
) -> Result<u64, Error> {
    let mut deleted = 0;
    loop {
        let left = u64::from(limit).saturating_sub(deleted);
        let batch = u32::try_from(left).unwrap_or(u32::MAX).min(DELETE_BATCH);
        let some = move |connection: &Connection| {
            let sql = "DELETE FROM usage WHERE rowid IN (
                           SELECT usage.rowid FROM orgs CROSS JOIN usage ON usage.org_id = orgs.id
                           WHERE started_us < ?1 AND settled IS NOT NULL LIMIT ?2)";
            Ok(connection.prepare_cached(sql)?.execute(params![before_us, batch])?)
        };
        let gone = rows_of(store.writer.run(some).await?);
        deleted += gone;
        if gone < u64::from(batch) || deleted >= u64::from(limit) {
            return Ok(deleted);
        }
    }
}
