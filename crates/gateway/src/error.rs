//! Why a gateway or a door could not be made.

use std::path::PathBuf;

/// What a caller of this crate can act on. What goes wrong with one request is answered to the sandbox, not to the
/// caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base address of the upstream cannot be used.
    #[error("use {uri:?} as the upstream: {why}")]
    Upstream {
        /// The address, without user and password.
        uri: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The key has characters that cannot stand in a header. The key itself is not shown.
    #[error("use the upstream's API key: it is empty or has characters that an HTTP header cannot carry")]
    Key,
    /// The door's socket could not be made.
    #[error("listen on {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The queue of the door's observer has too few places.
    #[error("use a queue of one place for what a door tells: it takes {}", crate::MIN_OBSERVER_PLACES)]
    Observer,
    /// The operating system gave no random bytes.
    #[error("get random bytes for a virtual key")]
    Random(#[source] getrandom::Error),
}
