//! Environments.

use rusqlite::{Connection, params};
use serde_json::Value;
use wardian_protocol::{EnvironmentId, OrgId};

use super::query::Query;
use super::row::{self, Reading};
use crate::{
    DeleteEnvironment, EnvironmentQuery, EnvironmentRecord, Error, MAX_DEFINITION_BYTES, NewEnvironment,
    UpdateEnvironment,
};

const ENVIRONMENTS: &str = "SELECT id, definition, created_us, updated_us, archived_us
    FROM environments WHERE org_id = ?";

/// The column of the definition.
const DEFINITION: usize = 1;

pub(super) fn create(connection: &Connection, environment: &NewEnvironment) -> Result<(), Error> {
    let definition = row::json("environment", &environment.definition, MAX_DEFINITION_BYTES)?;
    row::known_org(connection, &environment.org_id)?;
    row::insert(
        connection,
        "environment",
        environment.id.as_str(),
        "INSERT INTO environments (org_id, id, created_us, updated_us, definition)
         VALUES (?1, ?2, ?3, ?3, ?4)",
        params![
            environment.org_id.as_str(),
            environment.id.as_str(),
            row::micros(environment.created_at)?,
            definition,
        ],
    )
}

pub(super) fn find(
    connection: &Connection,
    org_id: &OrgId,
    id: &EnvironmentId,
) -> Result<Option<EnvironmentRecord>, Error> {
    let mut query = Query::new(ENVIRONMENTS, org_id);
    query.when("id = ?", Some(id.to_string()));
    Ok(query.rows(connection, "environments", &[], read)?.pop())
}

pub(super) fn update(
    connection: &Connection,
    org_id: &OrgId,
    id: &EnvironmentId,
    definition: &Value,
    at_us: i64,
) -> Result<UpdateEnvironment, Error> {
    let Some(known) = find(connection, org_id, id)? else { return Ok(UpdateEnvironment::Missing) };
    if known.archived_at.is_some() {
        return Ok(UpdateEnvironment::Archived);
    }
    let text = row::json("environment", definition, MAX_DEFINITION_BYTES)?;
    if known.definition == *definition {
        return Ok(UpdateEnvironment::Updated(known));
    }
    let sql = "UPDATE environments SET definition = ?3, updated_us = ?4 WHERE org_id = ?1 AND id = ?2";
    connection.prepare_cached(sql)?.execute(params![org_id.as_str(), id.as_str(), text, at_us])?;
    let updated = find(connection, org_id, id)?;
    Ok(updated.map_or(UpdateEnvironment::Missing, UpdateEnvironment::Updated))
}

pub(super) fn archive(
    connection: &Connection,
    org_id: &OrgId,
    id: &EnvironmentId,
    at_us: i64,
) -> Result<Option<EnvironmentRecord>, Error> {
    let sql =
        "UPDATE environments SET archived_us = ?3 WHERE org_id = ?1 AND id = ?2 AND archived_us IS NULL";
    connection.prepare_cached(sql)?.execute(params![org_id.as_str(), id.as_str(), at_us])?;
    find(connection, org_id, id)
}

pub(super) fn list(
    connection: &Connection,
    org_id: &OrgId,
    asked: &EnvironmentQuery,
) -> Result<Vec<EnvironmentRecord>, Error> {
    list_query(org_id, asked).rows(connection, "environments", &[DEFINITION], read)
}

pub(super) fn list_query(org_id: &OrgId, asked: &EnvironmentQuery) -> Query {
    let mut query = Query::new(ENVIRONMENTS, org_id);
    if !asked.include_archived {
        query.only("archived_us IS NULL");
    }
    query.created("created_us", &asked.created);
    query.page("created_us", "id", &asked.page);
    query
}

pub(super) fn delete(
    connection: &Connection,
    org_id: &OrgId,
    id: &EnvironmentId,
) -> Result<DeleteEnvironment, Error> {
    let named = [org_id.as_str(), id.as_str()];
    let sql = "SELECT id FROM sessions WHERE org_id = ?1 AND environment_id = ?2
               AND status <> 'terminated' AND archived_us IS NULL LIMIT 1";
    if row::first(connection, "sessions", sql, named, |_| Ok(()))?.is_some() {
        // Only an environment of this org is known to be one.
        let found = find(connection, org_id, id)?;
        return Ok(found.map_or(DeleteEnvironment::Missing, |_| DeleteEnvironment::InUse));
    }
    let sql = "DELETE FROM environments WHERE org_id = ?1 AND id = ?2";
    let deleted = connection.prepare_cached(sql)?.execute(named)?;
    Ok(if deleted == 1 { DeleteEnvironment::Deleted } else { DeleteEnvironment::Missing })
}

fn read(row: &Reading<'_>) -> Result<EnvironmentRecord, Error> {
    Ok(EnvironmentRecord {
        id: row.id(0)?,
        definition: row.json(DEFINITION)?,
        created_at: row.time(2)?,
        updated_at: row.time(3)?,
        archived_at: row.optional_time(4)?,
    })
}
