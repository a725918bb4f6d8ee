//! Requests that are answered once.

use rusqlite::{Connection, params};
use wardian_protocol::{KeyId, OrgId};

use super::owner::Owners;
use super::row::{self, Reading};
use crate::{
    Error, Idempotent, IdempotentRequest, MAX_ANSWER_BYTES, MAX_IDEMPOTENCY_KEY_BYTES, MAX_NAME_BYTES,
};

/// A request that came before.
struct Known {
    route: String,
    request_sha256: [u8; 32],
    seed: [u8; 16],
    owner: String,
    answer: Option<(u16, Vec<u8>)>,
}

pub(super) fn begin(
    connection: &Connection,
    owners: &Owners,
    request: &IdempotentRequest,
) -> Result<Idempotent, Error> {
    row::name("idempotency key", &request.key, MAX_IDEMPOTENCY_KEY_BYTES)?;
    row::name("route", &request.route, MAX_NAME_BYTES)?;
    row::known_org(connection, &request.org_id)?;
    let at_us = row::micros(request.at)?;
    let named = (request.org_id.as_str(), request.key_id.as_str(), request.key.as_str());
    let sql = "SELECT key, route, request_sha256, seed, owner, status, body FROM idempotent
               WHERE org_id = ?1 AND key_id = ?2 AND key = ?3";
    let Some(known) = row::first(connection, "idempotent", sql, named, read)? else {
        owners.hold(&request.owner)?;
        let sql = "INSERT INTO idempotent (org_id, key_id, key, route, request_sha256, seed, owner, at_us)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let (sha256, seed) = (request.request_sha256.as_slice(), request.seed.as_slice());
        connection.prepare_cached(sql)?.execute(params![
            named.0,
            named.1,
            named.2,
            request.route,
            sha256,
            seed,
            request.owner,
            at_us,
        ])?;
        return Ok(Idempotent::New { seed: request.seed });
    };
    if known.route != request.route || known.request_sha256 != request.request_sha256 {
        return Ok(Idempotent::Mismatch);
    }
    if let Some((status, body)) = known.answer {
        return Ok(Idempotent::Done { status, body });
    }
    // In one process many requests run at a time, so its own is no sign that it is over.
    if known.owner == request.owner || !owners.is_gone(&known.owner) {
        return Ok(Idempotent::InProgress);
    }
    owners.hold(&request.owner)?;
    let sql = "UPDATE idempotent SET owner = ?4 WHERE org_id = ?1 AND key_id = ?2 AND key = ?3";
    connection.prepare_cached(sql)?.execute(params![named.0, named.1, named.2, request.owner])?;
    Ok(Idempotent::Again { seed: known.seed })
}

fn read(row: &Reading<'_>) -> Result<Known, Error> {
    let status: Option<u16> = row.get(5)?;
    let answer = status.map(|status| Ok::<_, Error>((status, row.get(6)?))).transpose()?;
    Ok(Known {
        route: row.get(1)?,
        request_sha256: row.get(2)?,
        seed: row.get(3)?,
        owner: row.get(4)?,
        answer,
    })
}

/// The answer to a request.
pub(super) struct Answer {
    pub(super) org_id: OrgId,
    pub(super) key_id: KeyId,
    pub(super) key: String,
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) at_us: i64,
}

pub(super) fn finish(connection: &Connection, answer: &Answer) -> Result<bool, Error> {
    let size = answer.body.len();
    if size > MAX_ANSWER_BYTES {
        return Err(Error::TooLarge { what: "answer", size, limit: MAX_ANSWER_BYTES });
    }
    let sql = "UPDATE idempotent SET status = ?4, body = ?5, ended_us = ?6
               WHERE org_id = ?1 AND key_id = ?2 AND key = ?3 AND status IS NULL";
    let finished = connection.prepare_cached(sql)?.execute(params![
        answer.org_id.as_str(),
        answer.key_id.as_str(),
        answer.key,
        answer.status,
        answer.body,
        answer.at_us,
    ])?;
    Ok(finished == 1)
}

pub(super) fn abandon(
    connection: &Connection,
    org_id: &OrgId,
    key_id: &KeyId,
    key: &str,
) -> Result<bool, Error> {
    let sql = "DELETE FROM idempotent WHERE org_id = ?1 AND key_id = ?2 AND key = ?3 AND status IS NULL";
    let params = params![org_id.as_str(), key_id.as_str(), key];
    Ok(connection.prepare_cached(sql)?.execute(params)? == 1)
}

/// Deletes some that came before this time: fewer than `limit` if none are left.
pub(super) fn expire(connection: &Connection, before_us: i64, limit: u32) -> Result<u64, Error> {
    let sql =
        "DELETE FROM idempotent WHERE rowid IN (SELECT rowid FROM idempotent WHERE at_us < ?1 LIMIT ?2)";
    let deleted = connection.prepare_cached(sql)?.execute(params![before_us, limit])?;
    Ok(u64::try_from(deleted).expect("fewer rows than that"))
}
