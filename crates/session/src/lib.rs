#![doc = include_str!("../README.md")]

mod capture;
mod config;
mod drive;
mod engine;
mod error;
mod feed;
mod folder;
mod launch;
pub mod life;
mod lines;
mod managed;
mod metrics;
pub mod plan;
mod reconcile;
mod report;
mod request;
mod retention;
mod run;
mod slots;
mod stamp;
pub mod state;
mod tools;
mod translate;
mod watch;

pub use config::{Caps, EngineConfig, Ownership, RunLimits, SessionLimits};
pub use engine::{Engine, Health, RunEvent, RunSink};
pub use error::{FieldError, Full, RunError, StartError};
pub use feed::Follower;
pub use folder::blob_path;
pub use launch::{GATEWAY_PORT, GIVEN, WORKSPACE};
pub use managed::{
    Confirmation, Definition, Followed, MAX_COPY_BYTES, NewManagedSession, Previews, SessionError,
    SessionUpdate, SessionUsage, SessionView, UserEvent,
};
pub use metrics::{Metrics, Start};
pub use report::{FileChange, ModelSpending, RunReport, RunStatus, Spending, TokenCounts};
pub use request::{Caller, LimitsAsked, PermissionAsker, Permissions, Place, RunFile, RunRequest, Runtime};
pub use retention::{Expired, Retention};
pub use run::MAX_FILES_CHANGED;
pub use watch::{Turn, TurnWatch, current_trace};

/// Random bits for an id.
pub(crate) fn random_bits() -> [u8; 16] {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the operating system has random bytes once it has booted");
    bits
}
