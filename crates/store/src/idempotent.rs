//! Requests that are answered once, however often they come.

use jiff::Timestamp;
use wardian_protocol::{KeyId, OrgId};

/// A request with a key of its caller's choice, about to be done.
#[derive(Clone, Debug)]
pub struct IdempotentRequest {
    /// The caller's org.
    pub org_id: OrgId,
    /// The API key that it came with: two keys never meet.
    pub key_id: KeyId,
    /// What is asked for, such as `POST /v1/agents`.
    pub route: String,
    /// The caller's key, at most [`crate::MAX_IDEMPOTENCY_KEY_BYTES`].
    pub key: String,
    /// SHA-256 of the body.
    pub request_sha256: [u8; 32],
    /// Where the ids of what is made come from, so that a second try makes the same.
    pub seed: [u8; 16],
    /// The process that does it.
    pub owner: String,
    /// When it came.
    pub at: Timestamp,
}

/// What to do about a request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idempotent {
    /// Do it: it never came before.
    New {
        /// The seed that was given.
        seed: [u8; 16],
    },
    /// Do it again: the process that did it first is gone, and nobody knows how far it came.
    Again {
        /// The seed of the first try.
        seed: [u8; 16],
    },
    /// It is being done right now.
    InProgress,
    /// It was done; this was the answer.
    Done {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: Vec<u8>,
    },
    /// The key was used for another request.
    Mismatch,
}
