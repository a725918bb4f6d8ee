//! Forgetting a user: steps that can be done again, until nothing names the user any more.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, params};
use wardian_protocol::{FileId, OrgId, SessionId};

use super::owner::Owners;
use super::{SqliteStore, retention, row};
use crate::{DELETE_BATCH, Error, ForgetUser, Forgotten, MAX_USER_BYTES};

/// Sessions in one step.
const SESSIONS: u32 = 100;

/// Kept answers that are looked through at once; only one at a time is in memory.
const ANSWERS: u32 = 200;

/// What one step came to.
enum Step {
    /// Some went, and there may be more.
    Some(Forgotten),
    /// Nothing was left, and the user went.
    Done,
    /// A living owner has this session.
    InUse(SessionId),
}

pub(super) async fn forget_user(
    store: &SqliteStore,
    org_id: &OrgId,
    user_id: &str,
) -> Result<ForgetUser, Error> {
    row::text("user", user_id, MAX_USER_BYTES)?;
    let mut forgotten = Forgotten::default();
    let outcome = loop {
        let (owners, org_id, user_id) = (Arc::clone(&store.owners), org_id.clone(), user_id.to_owned());
        let next = move |connection: &Connection| step(connection, &owners, &org_id, &user_id);
        match store.writer.run(next).await? {
            Step::Some(some) => {
                forgotten.sessions.extend(some.sessions);
                forgotten.files.extend(some.files);
                forgotten.keys += some.keys;
            }
            Step::Done => break ForgetUser::Forgotten(forgotten),
            Step::InUse(session) => break ForgetUser::InUse { session, gone: forgotten },
        }
    };
    retention::sweep_all(store).await?;
    if matches!(outcome, ForgetUser::Forgotten(_)) {
        forget_answers(store, org_id).await?;
        store.empty_log().await?;
    }
    Ok(outcome)
}

/// First the keys, so that nothing new comes with them, then the sessions, the files, the name on the usage, and at last the user.
fn step(connection: &Connection, owners: &Owners, org_id: &OrgId, user_id: &str) -> Result<Step, Error> {
    let named = (org_id.as_str(), user_id);
    if let Some(session) = in_use(connection, owners, named)? {
        return Ok(Step::InUse(session));
    }
    let mut some = Forgotten { keys: delete_keys(connection, named)?, ..Forgotten::default() };
    let sql = "SELECT id FROM sessions WHERE org_id = ?1 AND user_id = ?2 LIMIT ?3";
    let params = params![named.0, named.1, SESSIONS];
    some.sessions = row::rows(connection, "sessions", sql, params, |row| row.id(0))?;
    for id in &some.sessions {
        retention::bury(connection, (named.0, id.as_str()))?;
        // What a session made is its user's, whoever it says that it belongs to.
        let sql = "DELETE FROM files WHERE org_id = ?1 AND session_id = ?2 RETURNING id";
        some.files.extend(deleted_files(connection, sql, (named.0, id.as_str()))?);
    }
    let sql = "DELETE FROM files WHERE rowid IN (
                   SELECT rowid FROM files WHERE org_id = ?1 AND user_id = ?2 LIMIT ?3) RETURNING id";
    some.files.extend(deleted_files(connection, sql, params![named.0, named.1, DELETE_BATCH])?);
    let sql = "UPDATE usage SET user_id = NULL WHERE rowid IN (
                   SELECT rowid FROM usage WHERE org_id = ?1 AND user_id = ?2 LIMIT ?3)";
    let usage = connection.prepare_cached(sql)?.execute(params![named.0, named.1, DELETE_BATCH])?;
    if some != Forgotten::default() || usage > 0 {
        return Ok(Step::Some(some));
    }
    connection.prepare_cached("DELETE FROM users WHERE org_id = ?1 AND id = ?2")?.execute(named)?;
    Ok(Step::Done)
}

/// A session of the user that a living owner has, or runs.
fn in_use(connection: &Connection, owners: &Owners, named: (&str, &str)) -> Result<Option<SessionId>, Error> {
    let sql = "SELECT sessions.id, coalesce(lease_owner, owner) FROM sessions
               LEFT JOIN runs ON runs.org_id = sessions.org_id AND runs.id = active_run AND ended_us IS NULL
               WHERE sessions.org_id = ?1 AND user_id = ?2 AND (lease_owner IS NOT NULL OR owner IS NOT NULL)";
    let held: Vec<(SessionId, String)> =
        row::rows(connection, "sessions", sql, named, |row| Ok((row.id(0)?, row.get(1)?)))?;
    Ok(held.into_iter().find(|(_, owner)| owners.lives(owner)).map(|(id, _)| id))
}

/// Deletes the keys that are bound to the user, and the answers that were given to them.
fn delete_keys(connection: &Connection, named: (&str, &str)) -> Result<u64, Error> {
    let sql = "DELETE FROM idempotent WHERE org_id = ?1 AND key_id IN (
                   SELECT id FROM keys WHERE org_id = ?1 AND user_id = ?2)";
    connection.prepare_cached(sql)?.execute(named)?;
    let sql = "DELETE FROM keys WHERE org_id = ?1 AND user_id = ?2";
    let deleted = connection.prepare_cached(sql)?.execute(named)?;
    Ok(u64::try_from(deleted).expect("MAX_KEYS at most"))
}

fn deleted_files(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<FileId>, Error> {
    row::rows(connection, "files", sql, params, |row| row.id(0))
}

/// Deletes kept answers that are about sessions and files that are gone, whoever asked: they have the user's words in them.
async fn forget_answers(store: &SqliteStore, org_id: &OrgId) -> Result<(), Error> {
    let mut last = 0;
    loop {
        let org = org_id.clone();
        let page = store.read(move |connection| answers(connection, &org, last)).await?;
        let Some((rowid, _)) = page.last() else { return Ok(()) };
        last = *rowid;
        let stale: Vec<i64> = page.into_iter().filter(|(_, is_stale)| *is_stale).map(|(id, _)| id).collect();
        if stale.is_empty() {
            continue;
        }
        let delete = move |connection: &Connection| {
            let mut statement = connection.prepare_cached("DELETE FROM idempotent WHERE rowid = ?1")?;
            for rowid in &stale {
                statement.execute([rowid])?;
            }
            Ok(())
        };
        store.writer.run(delete).await?;
    }
}

/// Some kept answers after a row, and of each whether it names a session or a file that is gone.
fn answers(connection: &Connection, org_id: &OrgId, after_row: i64) -> Result<Vec<(i64, bool)>, Error> {
    let sql = "SELECT rowid, route, body FROM idempotent
               WHERE org_id = ?1 AND rowid > ?2 AND body IS NOT NULL ORDER BY rowid LIMIT ?3";
    let params = params![org_id.as_str(), after_row, ANSWERS];
    let found = row::rows(connection, "idempotent", sql, params, |row| {
        let (route, body): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
        let body = String::from_utf8_lossy(&body);
        let named: HashSet<String> = ids_in(&route).chain(ids_in(&body)).map(str::to_owned).collect();
        Ok((row.get(0)?, named))
    })?;
    found
        .into_iter()
        .map(|(rowid, named)| Ok((rowid, names_what_is_gone(connection, org_id, &named)?)))
        .collect()
}

/// What may be ids of sessions and files in a text.
fn ids_in(text: &str) -> impl Iterator<Item = &str> {
    ["sesn_", "file_"].into_iter().flat_map(move |prefix| {
        text.match_indices(prefix).map(move |(start, _)| {
            let word = &text[start..];
            let end = word.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            &word[..end.unwrap_or(word.len())]
        })
    })
}

fn names_what_is_gone(
    connection: &Connection,
    org_id: &OrgId,
    named: &HashSet<String>,
) -> Result<bool, Error> {
    for id in named {
        let (table, sql) = if id.starts_with("sesn_") {
            ("sessions", "SELECT id FROM sessions WHERE org_id = ?1 AND id = ?2")
        } else {
            ("files", "SELECT id FROM files WHERE org_id = ?1 AND id = ?2")
        };
        if row::first(connection, table, sql, (org_id.as_str(), id), |_| Ok(()))?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}
