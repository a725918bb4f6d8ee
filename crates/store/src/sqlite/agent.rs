//! Agents and their versions.

use rusqlite::{Connection, params};
use serde_json::Value;
use wardian_protocol::{AgentId, OrgId};

use super::query::Query;
use super::row::{self, Reading};
use crate::{
    AgentQuery, AgentRecord, Error, MAX_AGENT_VERSIONS, MAX_DEFINITION_BYTES, MAX_PAGE_ROWS, NewAgent,
    UpdateAgent,
};

/// A version with its agent; the condition on the org is still to come.
const VERSIONS: &str = "SELECT agents.id AS id, agent_versions.version AS version, definition,
        agents.created_us AS created_us, agent_versions.created_us AS updated_us, archived_us
    FROM agents CROSS JOIN agent_versions
    ON agent_versions.org_id = agents.org_id AND agent_versions.agent_id = agents.id
    WHERE agents.org_id = ?";

/// The column of the definition.
const DEFINITION: usize = 2;

pub(super) fn create(connection: &Connection, agent: &NewAgent) -> Result<(), Error> {
    let definition = row::json("agent", &agent.definition, MAX_DEFINITION_BYTES)?;
    let created_us = row::micros(agent.created_at)?;
    row::known_org(connection, &agent.org_id)?;
    row::insert(
        connection,
        "agent",
        agent.id.as_str(),
        "INSERT INTO agents (org_id, id, version, created_us) VALUES (?1, ?2, 1, ?3)",
        params![agent.org_id.as_str(), agent.id.as_str(), created_us],
    )?;
    insert_version(connection, &agent.org_id, &agent.id, 1, created_us, &definition)
}

fn insert_version(
    connection: &Connection,
    org_id: &OrgId,
    id: &AgentId,
    version: i64,
    at_us: i64,
    definition: &str,
) -> Result<(), Error> {
    let sql = "INSERT INTO agent_versions (org_id, agent_id, version, created_us, definition)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let params = params![org_id.as_str(), id.as_str(), version, at_us, definition];
    connection.prepare_cached(sql)?.execute(params)?;
    Ok(())
}

pub(super) fn find(
    connection: &Connection,
    org_id: &OrgId,
    id: &AgentId,
    version: Option<u64>,
) -> Result<Option<AgentRecord>, Error> {
    // A version that is too large for the database is none.
    let version = version.map(i64::try_from).transpose();
    let Ok(version) = version else { return Ok(None) };
    let mut query = Query::new(VERSIONS, org_id);
    query.when("agents.id = ?", Some(id.to_string()));
    query.when("agent_versions.version = ?", version);
    if version.is_none() {
        query.only("agent_versions.version = agents.version");
    }
    Ok(query.rows(connection, "agents", &[], read)?.pop())
}

pub(super) fn update(
    connection: &Connection,
    org_id: &OrgId,
    id: &AgentId,
    expected_version: Option<u64>,
    definition: &Value,
    at_us: i64,
) -> Result<UpdateAgent, Error> {
    let Some(newest) = find(connection, org_id, id, None)? else { return Ok(UpdateAgent::Missing) };
    if newest.archived_at.is_some() {
        return Ok(UpdateAgent::Archived);
    }
    if expected_version.is_some_and(|expected| expected != newest.version) {
        return Ok(UpdateAgent::WrongVersion { current: newest.version });
    }
    let text = row::json("agent", definition, MAX_DEFINITION_BYTES)?;
    if newest.definition == *definition {
        return Ok(UpdateAgent::Updated(newest));
    }
    if newest.version >= MAX_AGENT_VERSIONS {
        let limit = usize::try_from(MAX_AGENT_VERSIONS).expect("it is not that large");
        return Err(Error::TooLarge { what: "versions of the agent", size: limit + 1, limit });
    }
    let version = i64::try_from(newest.version + 1).expect("MAX_AGENT_VERSIONS at most");
    insert_version(connection, org_id, id, version, at_us, &text)?;
    let sql = "UPDATE agents SET version = ?3 WHERE org_id = ?1 AND id = ?2";
    connection.prepare_cached(sql)?.execute(params![org_id.as_str(), id.as_str(), version])?;
    let updated = find(connection, org_id, id, None)?;
    Ok(updated.map_or(UpdateAgent::Missing, UpdateAgent::Updated))
}

pub(super) fn archive(
    connection: &Connection,
    org_id: &OrgId,
    id: &AgentId,
    at_us: i64,
) -> Result<Option<AgentRecord>, Error> {
    let sql = "UPDATE agents SET archived_us = ?3 WHERE org_id = ?1 AND id = ?2 AND archived_us IS NULL";
    connection.prepare_cached(sql)?.execute(params![org_id.as_str(), id.as_str(), at_us])?;
    find(connection, org_id, id, None)
}

pub(super) fn list(
    connection: &Connection,
    org_id: &OrgId,
    asked: &AgentQuery,
) -> Result<Vec<AgentRecord>, Error> {
    list_query(org_id, asked).rows(connection, "agents", &[DEFINITION], read)
}

pub(super) fn list_query(org_id: &OrgId, asked: &AgentQuery) -> Query {
    let mut query = Query::new(VERSIONS, org_id);
    query.only("agent_versions.version = agents.version");
    if !asked.include_archived {
        query.only("archived_us IS NULL");
    }
    query.created("agents.created_us", &asked.created);
    query.page("agents.created_us", "agents.id", &asked.page);
    query
}

pub(super) fn versions(
    connection: &Connection,
    org_id: &OrgId,
    id: &AgentId,
    before: Option<u64>,
    limit: u32,
) -> Result<Option<Vec<AgentRecord>>, Error> {
    let mut query = Query::new(VERSIONS, org_id);
    query.when("agents.id = ?", Some(id.to_string()));
    query.when("agent_versions.version < ?", before.map(|before| i64::try_from(before).unwrap_or(i64::MAX)));
    query.end("ORDER BY agent_versions.version DESC", limit.min(MAX_PAGE_ROWS));
    let versions = query.rows(connection, "agents", &[DEFINITION], read)?;
    if versions.is_empty() && find(connection, org_id, id, None)?.is_none() {
        return Ok(None);
    }
    Ok(Some(versions))
}

fn read(row: &Reading<'_>) -> Result<AgentRecord, Error> {
    Ok(AgentRecord {
        id: row.id(0)?,
        version: row.count(1)?,
        definition: row.json(DEFINITION)?,
        created_at: row.time(3)?,
        updated_at: row.time(4)?,
        archived_at: row.optional_time(5)?,
    })
}
