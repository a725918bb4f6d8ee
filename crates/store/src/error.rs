//! What can go wrong, by what a caller can do about it.

use std::path::PathBuf;
use std::sync::Arc;

/// Why the store did not do it. Nothing of the call took effect, except as [`Error::Closed`] says.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full. What was acknowledged stays; new work is refused until there is room, then goes on by itself.
    #[error("write to the store: the disk is full")]
    Full,
    /// Another process held the store for longer than the busy timeout.
    #[error("reach the store: another process keeps it busy")]
    Busy,
    /// There is no such thing in this org. A foreign id is answered like this too.
    #[error("find the {what} `{id}`")]
    Unknown {
        /// What was looked for: `org`, `session`, `usage`.
        what: &'static str,
        /// The id that was asked for.
        id: String,
    },
    /// The id is taken.
    #[error("create the {what} `{id}`: it exists already")]
    Exists {
        /// What was to be made.
        what: &'static str,
        /// The id that was asked for.
        id: String,
    },
    /// The session was taken over, or given back, since the writer took it: it may not write to it any more.
    #[error("write to the session: it is another owner's by now")]
    Fenced,
    /// Over a limit of this crate.
    #[error("store the {what}: {size} is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The largest size taken.
        limit: usize,
    },
    /// A value that cannot be kept.
    #[error("store the {what}: {why}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A row of the database is not what this program writes.
    #[error("read row `{id}` of {table}: {why}")]
    Malformed {
        /// The table.
        table: &'static str,
        /// The row's id.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// A row refers to one that is not there, so the database is damaged and is not brought to a new schema.
    #[error("migrate the store: row {row} of {table} refers to one that is missing; restore a backup")]
    Dangling {
        /// The table.
        table: String,
        /// The row's number.
        row: i64,
    },
    /// The database was written by a newer program.
    #[error(
        "open the store: its schema is version {found}, this program knows {known}; use the newer program or restore a backup"
    )]
    TooNew {
        /// The version found.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The file is a database of something else, or no database.
    #[error("open the store: {path} is not a store of wardian")]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder could not be made or opened.
    #[error("open the store at {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The store was closed, or its writer ended, before it answered: the call may or may not have taken effect.
    #[error("reach the store: it is closed")]
    Closed,
    /// Anything else that the database reports.
    #[error("use the database")]
    Database(#[source] Arc<rusqlite::Error>),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        let code = error.sqlite_error().map(|cause| (cause.code, cause.extended_code));
        match code {
            // The shared index of the log cannot grow: this too is a full disk.
            Some((DiskFull, _) | (_, rusqlite::ffi::SQLITE_IOERR_SHMSIZE)) => Self::Full,
            Some((DatabaseBusy | DatabaseLocked, _)) => Self::Busy,
            _ => Self::Database(Arc::new(error)),
        }
    }
}
