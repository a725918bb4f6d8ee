//! The usage records and their sums.

use rusqlite::types::ToSql;
use rusqlite::{Connection, params};
use wardian_protocol::{OrgId, SessionId};

use super::owner::Owners;
use super::row::{self, Reading};
use crate::record::Named;
use crate::{
    Error, GroupBy, MAX_NAME_BYTES, MAX_PAGE_ROWS, MAX_USAGE_ROWS, MAX_USER_BYTES, Settled, Tokens, UsageEnd,
    UsageQuery, UsageRow, UsageStart,
};

pub(super) fn open(connection: &Connection, owners: &Owners, start: &UsageStart) -> Result<(), Error> {
    row::name("model", &start.model, MAX_NAME_BYTES)?;
    row::text("user", start.user_id.as_deref().unwrap_or_default(), MAX_USER_BYTES)?;
    row::known_org(connection, &start.org_id)?;
    owners.hold(&start.owner)?;
    row::insert(
        connection,
        "usage",
        start.id.as_str(),
        "INSERT INTO usage (org_id, id, user_id, session_id, run_id, owner, model, bound_nano, started_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            start.org_id.as_str(),
            start.id.as_str(),
            start.user_id,
            start.session_id.as_str(),
            start.run_id.as_str(),
            start.owner,
            start.model,
            row::nano(start.bound)?,
            row::micros(start.at)?,
        ],
    )
}

pub(super) fn settle(connection: &Connection, end: &UsageEnd) -> Result<bool, Error> {
    row::text("model", end.model.as_deref().unwrap_or_default(), MAX_NAME_BYTES)?;
    row::text("upstream id", end.upstream_id.as_deref().unwrap_or_default(), MAX_NAME_BYTES)?;
    row::text("price version", &end.price_version, MAX_NAME_BYTES)?;
    let settled = connection
        .prepare_cached(
            "UPDATE usage SET settled = ?3, ended_us = ?4, answered_model = ?5, upstream_id = ?6, status = ?7,
                 input_tokens = ?8, output_tokens = ?9, cache_read_tokens = ?10, cache_write_5m_tokens = ?11,
                 cache_write_1h_tokens = ?12, web_search_requests = ?13, cost_nano = ?14, price_version = ?15,
                 unpriced = ?16
             WHERE org_id = ?1 AND id = ?2 AND settled IS NULL",
        )?
        .execute(params![
            end.org_id.as_str(),
            end.id.as_str(),
            end.settled.name(),
            row::micros(end.at)?,
            end.model,
            end.upstream_id,
            end.status,
            row::count(end.tokens.input_tokens),
            row::count(end.tokens.output_tokens),
            row::count(end.tokens.cache_read_tokens),
            row::count(end.tokens.cache_write_5m_tokens),
            row::count(end.tokens.cache_write_1h_tokens),
            row::count(end.tokens.web_search_requests),
            row::nano(end.cost)?,
            end.price_version,
            end.unpriced,
        ])?;
    if settled == 1 {
        return Ok(true);
    }
    let sql = "SELECT id FROM usage WHERE org_id = ?1 AND id = ?2";
    let known: Option<String> =
        row::first(connection, "usage", sql, [end.org_id.as_str(), end.id.as_str()], |row| row.get(0))?;
    known.map(|_| false).ok_or_else(|| Error::Unknown { what: "usage", id: end.id.to_string() })
}

pub(super) fn settle_orphans(
    connection: &Connection,
    owners: &Owners,
    owner_not: &str,
    at_us: i64,
) -> Result<u64, Error> {
    let sql = "SELECT DISTINCT owner FROM usage WHERE settled IS NULL AND owner <> ?1";
    let others: Vec<String> = row::rows(connection, "usage", sql, [owner_not], |row| row.get(0))?;
    let mut charged = 0;
    for owner in others.iter().filter(|owner| owners.is_gone(owner)) {
        charged += connection
            .prepare_cached(
                "UPDATE usage SET settled = ?2, ended_us = ?3, cost_nano = bound_nano
                 WHERE owner = ?1 AND settled IS NULL",
            )?
            .execute(params![owner, Settled::AtBound.name(), at_us])?;
    }
    Ok(u64::try_from(charged).expect("fewer rows than that"))
}

/// Adds up in the database: what comes back is no larger than the answer.
pub(super) fn sum(
    connection: &Connection,
    org_id: &OrgId,
    query: &UsageQuery,
) -> Result<Vec<UsageRow>, Error> {
    let times = (query.from.map(row::micros).transpose()?, query.to.map(row::micros).transpose()?);
    let mut filters = vec![("org_id = ", Some(org_id.as_str()) as Option<&str>)];
    filters.push(("user_id = ", query.user_id.as_deref()));
    filters.push(("session_id = ", query.session_id.as_ref().map(|id| id.as_str())));
    filters.push(("run_id = ", query.run_id.as_ref().map(|id| id.as_str())));
    filters.push(("coalesce(answered_model, model) = ", query.model.as_deref()));
    let texts =
        filters.iter().filter_map(|(sql, value)| value.as_ref().map(|value| (*sql, value as &dyn ToSql)));
    let from = times.0.as_ref().map(|value| ("started_us >= ", value as &dyn ToSql));
    let to = times.1.as_ref().map(|value| ("started_us < ", value as &dyn ToSql));
    let conditions: Vec<_> = texts.chain(from).chain(to).collect();

    let numbered: Vec<_> = conditions.iter().zip(1..).map(|((sql, _), n)| format!("{sql}?{n}")).collect();
    let sql = sum_sql(&numbered.join(" AND "), &query.group_by);
    let values: Vec<_> = conditions.into_iter().map(|(_, value)| value).collect();
    let rows = row::rows(connection, "usage", &sql, values.as_slice(), read_sum)?;
    if rows.len() > MAX_USAGE_ROWS {
        return Err(Error::TooLarge {
            what: "usage answer, in rows",
            size: rows.len(),
            limit: MAX_USAGE_ROWS,
        });
    }
    Ok(rows)
}

/// The sums of each of these sessions.
pub(super) fn of_sessions(
    connection: &Connection,
    org_id: &OrgId,
    ids: &[SessionId],
) -> Result<Vec<(SessionId, UsageRow)>, Error> {
    let (size, limit) = (ids.len(), usize::try_from(MAX_PAGE_ROWS).unwrap_or(usize::MAX));
    if size > limit {
        return Err(Error::TooLarge { what: "list of session ids", size, limit });
    }
    let ids = serde_json::Value::from(ids.iter().map(SessionId::as_str).collect::<Vec<_>>()).to_string();
    let conditions = "org_id = ?1 AND session_id IN (SELECT value FROM json_each(?2))";
    let sql = sum_sql(conditions, &[GroupBy::Session]);
    let rows = row::rows(connection, "usage", &sql, [org_id.as_str(), &ids], read_sum)?;
    Ok(rows.into_iter().filter_map(|row| Some((row.session_id.clone()?, row))).collect())
}

fn sum_sql(conditions: &str, group_by: &[GroupBy]) -> String {
    let key = |by: GroupBy| match by {
        GroupBy::User => "user_id",
        GroupBy::Session => "session_id",
        GroupBy::Model => "coalesce(answered_model, model)",
        GroupBy::Day => "date(started_us / 1000000, 'unixepoch')",
    };
    let column = |by| if group_by.contains(&by) { key(by) } else { "NULL" };
    let keys: Vec<_> = group_by.iter().map(|by| key(*by)).collect();
    let grouped = match keys.as_slice() {
        [] => String::new(),
        keys => format!("GROUP BY {0} ORDER BY {0}", keys.join(", ")),
    };
    format!(
        "SELECT {user}, {session}, {model}, {day},
             count(*),
             count(*) FILTER (WHERE settled IS NULL),
             count(*) FILTER (WHERE settled <> 'exact'),
             coalesce(sum(unpriced), 0),
             coalesce(sum(input_tokens), 0),
             coalesce(sum(output_tokens), 0),
             coalesce(sum(cache_read_tokens), 0),
             coalesce(sum(cache_write_5m_tokens), 0),
             coalesce(sum(cache_write_1h_tokens), 0),
             coalesce(sum(web_search_requests), 0),
             coalesce(sum(cost_nano), 0),
             coalesce(sum(bound_nano) FILTER (WHERE settled IS NULL), 0)
         FROM usage WHERE {conditions} {grouped} LIMIT {limit}",
        user = column(GroupBy::User),
        session = column(GroupBy::Session),
        model = column(GroupBy::Model),
        day = column(GroupBy::Day),
        limit = MAX_USAGE_ROWS + 1,
    )
}

fn read_sum(row: &Reading<'_>) -> Result<UsageRow, Error> {
    let day: Option<String> = row.get(3)?;
    let day = day.map(|day| day.parse().map_err(|error| row.malformed(3, error))).transpose()?;
    Ok(UsageRow {
        user_id: row.get(0)?,
        session_id: row.optional_id(1)?,
        model: row.get(2)?,
        day,
        requests: row.count(4)?,
        open_requests: row.count(5)?,
        inexact_requests: row.count(6)?,
        unpriced_requests: row.count(7)?,
        tokens: Tokens {
            input_tokens: row.count(8)?,
            output_tokens: row.count(9)?,
            cache_read_tokens: row.count(10)?,
            cache_write_5m_tokens: row.count(11)?,
            cache_write_1h_tokens: row.count(12)?,
            web_search_requests: row.count(13)?,
        },
        cost: row.money(14)?,
        reserved: row.money(15)?,
    })
}
