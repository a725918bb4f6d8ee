#![doc = include_str!("../README.md")]

mod error;
mod idempotent;
mod limits;
mod managed;
mod page;
mod record;
mod resource;
mod retention;
mod sqlite;
mod store;
mod usage;

pub use error::Error;
pub use idempotent::{Idempotent, IdempotentRequest};
pub use limits::*;
pub use managed::{
    DueSession, EventQuery, EventRow, Lease, ManagedRecord, NewManaged, RawRow, SessionChange, SessionCommit,
    SessionQuery,
};
pub use page::{CreatedRange, Order, Page, Position};
pub use record::{
    BeginRun, EventRecord, KeyRecord, NewEvent, NewKey, NewSession, RunOutcomeRecord, RunRecord, RunStatus,
    Scope, SessionRecord, SessionStatus, UnknownName,
};
pub use resource::{
    AgentQuery, AgentRecord, DeleteEnvironment, EnvironmentQuery, EnvironmentRecord, FileQuery, FileRecord,
    NewAgent, NewEnvironment, NewFile, UpdateAgent, UpdateEnvironment,
};
pub use retention::{DeletedSession, ExpiredFile, ForgetUser, Forgotten};
pub use sqlite::SqliteStore;
pub use store::Store;
pub use usage::{GroupBy, Settled, Tokens, UsageEnd, UsageQuery, UsageRow, UsageStart};
