//! Why an engine does not start, and why a run does not come to a report.

use std::path::PathBuf;

use wardian_protocol::SessionId;

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another engine owns the folder.
    #[error("own {}: another wardian works there", .0.display())]
    Owned(PathBuf),
    /// A unix socket's path has room for about a hundred bytes.
    #[error("use {} as data folder: its path is too long for the sockets in it, at most {max} bytes", path.display())]
    PathTooLong {
        /// The folder.
        path: PathBuf,
        /// The most bytes that it may have.
        max: usize,
    },
    /// The folder cannot be made or read.
    #[error("prepare {}", path.display())]
    Folder {
        /// What was to be prepared.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The store failed.
    #[error("bring the store back in order after the last stop")]
    Store(#[source] wardian_store::Error),
}

/// Why a run came to no report. A run that failed, ran out of money or time, or was cancelled does have a report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The request is wrong; every field that is.
    #[error("accept the request: {}", list(.0))]
    Invalid(Vec<FieldError>),
    /// No such session, or it belongs to someone else: the same answer.
    #[error("find the session {0}")]
    SessionNotFound(SessionId),
    /// The session has a run already.
    #[error("start a run: session {0} has one under way")]
    SessionBusy(SessionId),
    /// All places are taken.
    #[error("start a run: {0}")]
    Full(Full),
    /// The engine is stopping.
    #[error("start a run: the server is stopping")]
    Stopping,
    /// The sandbox could not be made or failed.
    #[error("run the sandbox")]
    Sandbox(#[source] wardian_sandbox::Error),
    /// The gateway could not open a door.
    #[error("open the gateway")]
    Gateway(#[source] wardian_gateway::Error),
    /// The store failed; nothing that was acknowledged is lost.
    #[error("store what happened")]
    Store(#[source] wardian_store::Error),
    /// A folder or file of the session could not be used.
    #[error("prepare the session's folders")]
    Folder(#[source] std::io::Error),
    /// A bug: the run panicked. It was cleaned up.
    #[error("finish the run: an internal error")]
    Internal,
}

/// Which places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Of the host.
    #[error("this host runs as many as it may ({0})")]
    Host(usize),
    /// Of the org.
    #[error("this organisation runs as many as it may ({0})")]
    Org(usize),
    /// Of the user.
    #[error("this user runs as many as one user may ({0})")]
    User(usize),
    /// Of the key.
    #[error("this key runs as many as one key may ({0})")]
    Key(usize),
    /// The queue of turns that wait for a place.
    #[error("as many turns wait for a place as may ({0})")]
    Queue(usize),
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// The field, as it stands in the request: `files[2].path`.
    pub field: String,
    /// What is expected there.
    pub message: String,
}

impl FieldError {
    /// What is wrong with `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

pub(crate) fn list(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
