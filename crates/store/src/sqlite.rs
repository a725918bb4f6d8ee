//! The store in one SQLite file.

mod agent;
mod api;
mod environment;
mod event;
mod file;
mod forget;
mod idempotent;
mod identity;
mod managed;
mod migrate;
mod owner;
mod query;
mod reader;
mod retention;
mod row;
mod session;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::owner::Owners;
use self::reader::Readers;
use self::writer::Writer;
use crate::Error;

/// How long to wait for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection: more than there are.
const STATEMENTS: usize = 128;

/// Pages of the file that the writer keeps in memory, in KiB. Ids come in no order, so each event touches another page of their
/// index; with SQLite's own 2 MiB these are read again and again.
const WRITER_CACHE_KIB: i64 = 16 << 10;

/// Pages of the log after which they are moved to the database: 16 MiB, four times SQLite's own number. A page that many
/// commits changed is moved once.
const LOG_PAGES: i64 = 4000;

/// What waits to be written, in KiB: twice the largest append.
const QUEUED_KIB: u32 = 32 << 10;

/// What a probe writes: enough that it needs pages of its own.
const PROBE_BYTES: u32 = 16 << 10;

/// The store in one SQLite file, for one machine. Other processes may have the same file open.
///
/// Times are kept to the microsecond; what is finer is cut off.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    /// `None` in memory, where the writer answers questions too.
    readers: Option<Readers>,
    owners: Arc<Owners>,
    queued_kib: Semaphore,
}

impl SqliteStore {
    /// Opens the store in this file; makes it, for its user alone, if it is missing, and its folder too. Blocks for some
    /// milliseconds.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Open { path: path.to_owned(), source: Arc::new(source) };
        make_private(path).map_err(failed)?;
        let mut connection = connect(path)?;
        migrate::migrate(&mut connection, path)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES, |_| Ok(()))?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            tracing::warn!(
                mode,
                "the file system has no shared memory for a log: reads and writes will wait for each other"
            );
        }
        let owners = Owners::new(Some(path.to_owned()));
        Self::new(connection, Some(Readers::new(path.to_owned())), owners).map_err(failed)
    }

    /// Opens an empty store that lives as long as the value: for tests.
    pub fn open_in_memory() -> Result<Self, Error> {
        let path = Path::new(":memory:");
        let mut connection = connect(path)?;
        migrate::migrate(&mut connection, path)?;
        Self::new(connection, None, Owners::new(None))
            .map_err(|source| Error::Open { path: path.to_owned(), source: Arc::new(source) })
    }

    /// Has `watcher` told of each commit: how long it took, the wait for the disk included, and how many writes were in it.
    /// Can be set once. It is called on the writer's thread, so it must be quick.
    pub fn watch_commits(&self, watcher: impl Fn(Duration, usize) + Send + Sync + 'static) {
        self.writer.watch.set(Box::new(watcher));
    }

    fn new(connection: Connection, readers: Option<Readers>, owners: Owners) -> io::Result<Self> {
        let (owners, queued_kib) = (Arc::new(owners), Semaphore::new(QUEUED_KIB as usize));
        Ok(Self { writer: Writer::start(connection)?, readers, owners, queued_kib })
    }

    async fn read<T, F>(&self, mut question: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    {
        match &self.readers {
            Some(readers) => readers.run(move |connection| question(connection)).await,
            None => self.writer.run(question).await,
        }
    }

    /// Moves what is in the log to the database and empties it, as far as nobody reads there just now: what was deleted is then
    /// in no file any more.
    async fn empty_log(&self) -> Result<(), Error> {
        let Some(readers) = &self.readers else { return Ok(()) };
        let emptied = readers.run(|connection| {
            connection.pragma_update(None, "query_only", false)?;
            let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
            connection.pragma_update(None, "query_only", true)?;
            Ok::<i64, Error>(emptied?)
        });
        if emptied.await? != 0 {
            tracing::warn!(
                "the store's log is in use and still has deleted rows in it; they go as it is written on"
            );
        }
        Ok(())
    }

    /// Waits until so much may wait to be written.
    async fn room(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Error> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(QUEUED_KIB);
        self.queued_kib.acquire_many(kib).await.map_err(|_| Error::Closed)
    }
}

/// Writes new pages and gives the last probe's back, so that it fails as soon as other work would.
fn probe(connection: &Connection) -> Result<(), Error> {
    let sql = "INSERT INTO probes (filler) VALUES (zeroblob(?1))";
    connection.prepare_cached(sql)?.execute([PROBE_BYTES])?;
    let sql = "DELETE FROM probes WHERE id < ?1";
    connection.prepare_cached(sql)?.execute([connection.last_insert_rowid()])?;
    Ok(())
}

fn connect(path: &Path) -> Result<Connection, Error> {
    prepare(path).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::NotAStore { path: path.to_owned() },
        _ => Error::from(error),
    })
}

fn prepare(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Else a statement that has an index with a condition to choose from is planned anew for each set of values.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The first that looks into the file.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // What is deleted is to be gone from the file, not only from the tables.
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    Ok(connection)
}

/// Makes the file with mode 0600, and missing folders with 0700. SQLite gives its other files the mode of this one.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}
