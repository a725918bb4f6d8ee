#![doc = include_str!("../README.md")]

mod error;
mod limits;
mod record;
mod sqlite;
mod store;
mod usage;

pub use error::Error;
pub use limits::*;
pub use record::{
    BeginRun, EventRecord, KeyRecord, NewEvent, NewKey, NewSession, RunOutcomeRecord, RunRecord, RunStatus,
    Scope, SessionRecord, SessionStatus, UnknownName,
};
pub use sqlite::SqliteStore;
pub use store::Store;
pub use usage::{GroupBy, Settled, Tokens, UsageEnd, UsageQuery, UsageRow, UsageStart};
