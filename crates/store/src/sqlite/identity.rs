//! Orgs, users, keys.

use rusqlite::{Connection, params};
use wardian_protocol::{KeyId, OrgId};

use super::row::{self, Reading};
use crate::record::Named;
use crate::{Error, KeyRecord, MAX_KEYS, MAX_NAME_BYTES, MAX_USER_BYTES, NewKey, Scope};

pub(super) fn ensure_org(connection: &Connection, id: &OrgId, name: &str) -> Result<(), Error> {
    row::name("name", name, MAX_NAME_BYTES)?;
    let sql = "INSERT INTO orgs (id, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    connection.prepare_cached(sql)?.execute([id.as_str(), name])?;
    Ok(())
}

pub(super) fn ensure_user(connection: &Connection, org_id: &OrgId, id: &str) -> Result<(), Error> {
    row::name("user", id, MAX_USER_BYTES)?;
    row::known_org(connection, org_id)?;
    let sql = "INSERT INTO users (org_id, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    connection.prepare_cached(sql)?.execute([org_id.as_str(), id])?;
    Ok(())
}

/// The user of a new row: made if new, and the org is known in any case.
pub(super) fn user_of(connection: &Connection, org_id: &OrgId, user_id: Option<&str>) -> Result<(), Error> {
    match user_id {
        Some(user_id) => ensure_user(connection, org_id, user_id),
        None => row::known_org(connection, org_id),
    }
}

/// The bytes of all files of an org.
pub(super) fn file_bytes(connection: &Connection, org_id: &OrgId) -> Result<u64, Error> {
    let sql = "SELECT ?1, coalesce(sum(size_bytes), 0) FROM files WHERE org_id = ?1";
    let bytes = row::first(connection, "files", sql, [org_id.as_str()], |row| row.count(1))?;
    Ok(bytes.unwrap_or(0))
}

pub(super) fn create_key(connection: &Connection, key: &NewKey) -> Result<(), Error> {
    row::text("name", &key.name, MAX_NAME_BYTES)?;
    user_of(connection, &key.org_id, key.user_id.as_deref())?;
    let sql = "SELECT org_id, count(*) FROM keys WHERE org_id = ?1";
    let keys = row::first(connection, "keys", sql, [key.org_id.as_str()], |row| row.count(1))?.unwrap_or(0);
    if usize::try_from(keys).is_ok_and(|keys| keys >= MAX_KEYS) {
        return Err(Error::TooLarge { what: "keys of the org", size: MAX_KEYS + 1, limit: MAX_KEYS });
    }
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
    row::insert(
        connection,
        "key",
        key.id.as_str(),
        "INSERT INTO keys (id, org_id, name, scopes, user_id, secret_sha256, created_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            key.id.as_str(),
            key.org_id.as_str(),
            key.name,
            scopes.join(","),
            key.user_id,
            key.secret_sha256.as_slice(),
            row::micros(key.created_at)?,
        ],
    )
}

pub(super) fn key(connection: &Connection, id: &KeyId) -> Result<Option<KeyRecord>, Error> {
    let sql = "SELECT id, org_id, name, scopes, user_id, secret_sha256, created_us, revoked_us
               FROM keys WHERE id = ?1";
    row::first(connection, "keys", sql, [id.as_str()], read_key)
}

pub(super) fn keys(connection: &Connection, org_id: &OrgId) -> Result<Vec<KeyRecord>, Error> {
    let sql = "SELECT id, org_id, name, scopes, user_id, secret_sha256, created_us, revoked_us
               FROM keys WHERE org_id = ?1 ORDER BY created_us, id";
    row::rows(connection, "keys", sql, [org_id.as_str()], read_key)
}

pub(super) fn revoke_key(
    connection: &Connection,
    org_id: &OrgId,
    id: &KeyId,
    at_us: i64,
) -> Result<bool, Error> {
    let sql = "UPDATE keys SET revoked_us = ?3 WHERE org_id = ?1 AND id = ?2 AND revoked_us IS NULL";
    let changed = connection.prepare_cached(sql)?.execute(params![org_id.as_str(), id.as_str(), at_us])?;
    Ok(changed == 1)
}

fn read_key(row: &Reading<'_>) -> Result<KeyRecord, Error> {
    let scopes: String = row.get(3)?;
    let scopes = scopes.split(',').filter(|name| !name.is_empty());
    let scopes: Result<Vec<Scope>, _> = scopes.map(Scope::from_name).collect();
    Ok(KeyRecord {
        id: row.id(0)?,
        org_id: row.id(1)?,
        name: row.get(2)?,
        scopes: scopes.map_err(|error| row.malformed(3, error))?,
        user_id: row.get(4)?,
        secret_sha256: row.get(5)?,
        created_at: row.time(6)?,
        revoked_at: row.optional_time(7)?,
    })
}
