//! Values of ours to values of the database, and back with a check of every one.

use std::fmt::Display;

use jiff::Timestamp;
use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, Params, Row};
use serde_json::Value;
use wardian_protocol::id::{Id, Kind};
use wardian_protocol::money::{MAX_USD, NANO_PER_USD};
use wardian_protocol::{NanoUsd, OrgId};

use crate::record::Named;
use crate::{Error, MAX_COUNT};

/// A row being read. Column 0 is the row's id, which errors name.
pub(super) struct Reading<'a> {
    row: &'a Row<'a>,
    table: &'static str,
}

impl<'a> Reading<'a> {
    pub(super) fn new(row: &'a Row<'a>, table: &'static str) -> Self {
        Self { row, table }
    }

    pub(super) fn get<T: FromSql>(&self, column: usize) -> Result<T, Error> {
        self.row.get(column).map_err(|error| self.malformed(column, error))
    }

    pub(super) fn id<K: Kind>(&self, column: usize) -> Result<Id<K>, Error> {
        let text: String = self.get(column)?;
        text.parse().map_err(|error| self.malformed(column, error))
    }

    pub(super) fn optional_id<K: Kind>(&self, column: usize) -> Result<Option<Id<K>>, Error> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| text.parse().map_err(|error| self.malformed(column, error))).transpose()
    }

    pub(super) fn named<T: Named>(&self, column: usize) -> Result<T, Error> {
        let text: String = self.get(column)?;
        T::from_name(&text).map_err(|error| self.malformed(column, error))
    }

    pub(super) fn json(&self, column: usize) -> Result<Value, Error> {
        let text: String = self.get(column)?;
        serde_json::from_str(&text).map_err(|error| self.malformed(column, error))
    }

    /// The bytes of a text; 0 for what is none.
    pub(super) fn size(&self, column: usize) -> usize {
        self.row.get_ref(column).ok().and_then(|value| value.as_bytes().ok()).map_or(0, <[u8]>::len)
    }

    pub(super) fn count(&self, column: usize) -> Result<u64, Error> {
        let number: i64 = self.get(column)?;
        u64::try_from(number).map_err(|error| self.malformed(column, error))
    }

    pub(super) fn money(&self, column: usize) -> Result<NanoUsd, Error> {
        self.get(column).map(NanoUsd)
    }

    pub(super) fn time(&self, column: usize) -> Result<Timestamp, Error> {
        let micros: i64 = self.get(column)?;
        Timestamp::from_microsecond(micros).map_err(|error| self.malformed(column, error))
    }

    pub(super) fn optional_time(&self, column: usize) -> Result<Option<Timestamp>, Error> {
        match self.get::<Option<i64>>(column)? {
            Some(_) => self.time(column).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn malformed(&self, column: usize, why: impl Display) -> Error {
        let id = match self.row.get_ref(0) {
            Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).chars().take(80).collect(),
            Ok(other) => format!("({})", other.data_type()),
            Err(_) => "(none)".to_owned(),
        };
        let name = self.row.as_ref().column_name(column).unwrap_or("(none)");
        Error::Malformed { table: self.table, id, why: format!("{name}: {why}") }
    }
}

/// All rows of an answer, each read by `read`.
pub(super) fn rows<T>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Reading<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&Reading::new(row, table))?);
    }
    Ok(found)
}

/// The first row of an answer, if there is one.
pub(super) fn first<T>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Reading<'_>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(|row| read(&Reading::new(row, table))).transpose()
}

/// A time to the microsecond, which is what is kept.
pub(super) fn micros(at: Timestamp) -> Result<i64, Error> {
    let micros = at.as_microsecond();
    if micros < 0 { Err(Error::Invalid { what: "time", why: "it is before 1970" }) } else { Ok(micros) }
}

/// An amount that makes sense: not negative, and not over what an edge would take.
pub(super) fn nano(amount: NanoUsd) -> Result<i64, Error> {
    if (0..=MAX_USD * NANO_PER_USD).contains(&amount.0) {
        Ok(amount.0)
    } else {
        Err(Error::Invalid { what: "amount", why: "it is negative or over a million dollars" })
    }
}

/// A count, cut at [`MAX_COUNT`]: the figure comes from outside, and losing the record would be worse.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number.min(MAX_COUNT)).expect("MAX_COUNT fits")
}

/// A text within its limit and without NUL, which SQLite's own tools would cut it at.
pub(super) fn text(what: &'static str, text: &str, limit: usize) -> Result<(), Error> {
    if text.len() > limit {
        return Err(Error::TooLarge { what, size: text.len(), limit });
    }
    if text.contains('\0') {
        return Err(Error::Invalid { what, why: "it has a NUL character" });
    }
    Ok(())
}

/// A value as JSON text within its limit.
pub(super) fn json(what: &'static str, value: &Value, limit: usize) -> Result<String, Error> {
    let text = value.to_string();
    let size = text.len();
    if size > limit { Err(Error::TooLarge { what, size, limit }) } else { Ok(text) }
}

/// A text of at least one character.
pub(super) fn name(what: &'static str, value: &str, limit: usize) -> Result<(), Error> {
    if value.is_empty() {
        return Err(Error::Invalid { what, why: "it is empty" });
    }
    text(what, value, limit)
}

/// Inserts a row; a taken id is a typed error.
pub(super) fn insert(
    connection: &Connection,
    what: &'static str,
    id: &str,
    sql: &str,
    params: impl Params,
) -> Result<(), Error> {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    match connection.prepare_cached(sql)?.execute(params) {
        Ok(_) => Ok(()),
        Err(error) => match error.sqlite_error().map(|cause| cause.extended_code) {
            Some(SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE) => {
                Err(Error::Exists { what, id: id.to_owned() })
            }
            _ => Err(error.into()),
        },
    }
}

/// Fails unless the org exists.
pub(super) fn known_org(connection: &Connection, org_id: &OrgId) -> Result<(), Error> {
    let found: Option<i64> =
        first(connection, "orgs", "SELECT 1 FROM orgs WHERE id = ?1", [org_id.as_str()], |row| row.get(0))?;
    found.map(|_| ()).ok_or_else(|| Error::Unknown { what: "org", id: org_id.to_string() })
}

/// A fence as it is kept. One that is too large was never given.
pub(super) fn fence(fence: u64) -> Result<i64, Error> {
    i64::try_from(fence).map_err(|_| Error::Fenced)
}
