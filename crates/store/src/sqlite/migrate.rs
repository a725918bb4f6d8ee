//! Brings a database to the schema of this program.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::Error;

/// Marks a database file as ours: "Ward" in ASCII.
const APPLICATION_ID: i64 = 0x5761_7264;

/// All migrations, oldest first. Append only: number n brings version n - 1 to n.
const MIGRATIONS: &[&str] =
    &[include_str!("../../migrations/0001_first.sql"), include_str!("../../migrations/0002_sessions.sql")];

/// Applies what is missing, all in one transaction, so that two processes that open at once do it once.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    if version(connection, path)? == known() {
        return Ok(());
    }
    // A migration that rebuilds a table must not have the rows go that refer to it. Within a transaction it could not be
    // turned off; what refers to nothing afterwards is found before the commit.
    connection.pragma_update(None, "foreign_keys", false)?;
    let applied = apply(connection, path);
    connection.pragma_update(None, "foreign_keys", true)?;
    applied
}

fn apply(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Asked again: another process may have come first.
    let found = version(&transaction, path)?;
    let done = usize::try_from(found).expect("a version between 0 and the number of migrations");
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration)?;
    }
    let dangling = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let dangling: Option<(String, Option<i64>)> =
        transaction.query_row("PRAGMA foreign_key_check", [], dangling).optional()?;
    if let Some((table, row)) = dangling {
        return Err(Error::Dangling { table, row: row.unwrap_or_default() });
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known())?;
    transaction.commit()?;
    tracing::info!(from = found, to = known(), "migrated the store");
    Ok(())
}

/// The version found, which this program can bring up to date: between 0 (an empty file) and [`known`].
fn version(connection: &Connection, path: &Path) -> Result<i64, Error> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let not_ours = || Error::NotAStore { path: path.to_owned() };
    let application = pragma("application_id")?;
    let found = pragma("user_version")?;
    if application == APPLICATION_ID {
        return match found {
            1.. if found > known() => Err(Error::TooNew { found, known: known() }),
            1.. => Ok(found),
            _ => Err(not_ours()),
        };
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application == 0 && found == 0 && tables == 0 { Ok(0) } else { Err(not_ours()) }
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("a handful of migrations")
}
