//! A question put together from what was asked for.

use jiff::Timestamp;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params_from_iter};
use wardian_protocol::OrgId;

use super::row::Reading;
use crate::{CreatedRange, Error, MAX_LIST_BYTES, MAX_PAGE_ROWS, Order, Page};

/// A statement and its values, in the order of its question marks.
pub(super) struct Query {
    sql: String,
    values: Vec<SqlValue>,
    backward: bool,
}

impl Query {
    /// Starts with a statement that ends in a condition on the org, `… org_id = ?`.
    pub(super) fn new(select: &str, org_id: &OrgId) -> Self {
        Self { sql: select.to_owned(), values: vec![org_id.to_string().into()], backward: false }
    }

    /// Adds a condition of no value.
    pub(super) fn only(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }

    /// Adds a condition of one value, if there is one: `column = ?`.
    pub(super) fn when<T: Into<SqlValue>>(&mut self, condition: &str, value: Option<T>) {
        if let Some(value) = value {
            self.only(condition);
            self.values.push(value.into());
        }
    }

    /// Adds that the column is one of these, if there are any.
    pub(super) fn one_of<'a>(&mut self, column: &str, values: impl IntoIterator<Item = &'a str>) {
        let values: Vec<_> = values.into_iter().collect();
        if !values.is_empty() {
            let list = serde_json::Value::from(values).to_string();
            self.when(&format!("{column} IN (SELECT value FROM json_each(?))"), Some(list));
        }
    }

    /// Adds bounds on a time. What is finer than a microsecond is cut off in the rows, but not in the question.
    pub(super) fn created(&mut self, column: &str, range: &CreatedRange) {
        let finer = |at: Timestamp| at.as_nanosecond().rem_euclid(1000) != 0;
        let whole = |at: Timestamp| i64::try_from(at.as_nanosecond().div_euclid(1000)).unwrap_or(i64::MAX);
        let next = |at| whole(at).saturating_add(i64::from(finer(at)));
        self.when(&format!("{column} > ?"), range.gt.map(whole));
        self.when(&format!("{column} >= ?"), range.gte.map(next));
        self.when(&format!("{column} < ?"), range.lt.map(next));
        self.when(&format!("{column} <= ?"), range.lte.map(whole));
    }

    /// Ends the statement with a page's place, order and limit.
    pub(super) fn page(&mut self, time: &str, id: &str, page: &Page) {
        let descending = (page.order == Order::Desc) != page.backward;
        let (beyond, way) = if descending { ("<", "DESC") } else { (">", "ASC") };
        if let Some(after) = &page.after {
            self.only(&format!("({time}, {id}) {beyond} (?, ?)"));
            self.values.extend([after.at.as_microsecond().into(), after.id.clone().into()]);
        }
        self.end(&format!("ORDER BY {time} {way}, {id} {way}"), page.limit.min(MAX_PAGE_ROWS));
        self.backward = page.backward;
    }

    /// Ends the statement with an order and a limit.
    pub(super) fn end(&mut self, order: &str, limit: u32) {
        self.sql.push_str(&format!(" {order} LIMIT ?"));
        self.values.push(i64::from(limit).into());
    }

    /// Asks, and reads all rows; `sized` are the columns that may be large.
    pub(super) fn rows<T>(
        self,
        connection: &Connection,
        table: &'static str,
        sized: &[usize],
        read: impl Fn(&Reading<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = connection.prepare_cached(&self.sql)?;
        let mut rows = statement.query(params_from_iter(&self.values))?;
        let (mut found, mut size) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let row = Reading::new(row, table);
            size += sized.iter().map(|column| row.size(*column)).sum::<usize>();
            if size > MAX_LIST_BYTES {
                return Err(Error::TooLarge { what: "page", size, limit: MAX_LIST_BYTES });
            }
            found.push(read(&row)?);
        }
        if self.backward {
            found.reverse();
        }
        Ok(found)
    }

    /// How the database would go about it, for tests.
    #[cfg(test)]
    pub(super) fn plan(&self, connection: &Connection) -> Vec<String> {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", self.sql)).unwrap();
        let plan = statement.query_map(params_from_iter(&self.values), |row| row.get(3)).unwrap();
        plan.map(Result::unwrap).collect()
    }
}
