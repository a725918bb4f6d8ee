//! A door: the one way out of one sandbox.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use wardian_protocol::{NanoUsd, OrgId, RequestId, SessionId};
use wardian_store::Tokens;

/// Where a door is, and what may go through it.
#[derive(Clone, Debug)]
pub struct DoorSpec {
    /// The unix socket to make. Its folder must be one that only this server and the sandbox can reach.
    pub socket: PathBuf,
    /// What the sandbox may do.
    pub grant: Grant,
}

/// What a sandbox may do, and whom it is counted for.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The org that pays.
    pub org_id: OrgId,
    /// The session's user.
    pub user_id: Option<String>,
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RequestId,
    /// The most that may be spent through this door; `None` is no limit.
    pub max_cost: Option<NanoUsd>,
    /// The models that may be asked, as ids or aliases; `None` is all.
    pub models: Option<Vec<String>>,
}

/// What went through a door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// What it cost.
    pub cost: NanoUsd,
    /// The same by the model that answered.
    pub by_model: BTreeMap<String, ModelSpent>,
    /// Whether a request was refused because the money did not suffice.
    pub budget_refused: bool,
}

/// What one model cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelSpent {
    /// Requests that were settled.
    pub requests: u64,
    /// Tokens by class.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: NanoUsd,
}

/// An open door. Dropping it closes it too, without waiting for what is under way to be settled.
#[derive(Debug)]
pub struct Door {
    key: SecretString,
}

impl Door {
    /// The key that the sandbox's programs send as `x-api-key` or bearer token. It is valid on this door's socket only,
    /// and dead when the door closes.
    #[must_use]
    pub const fn virtual_key(&self) -> &SecretString {
        &self.key
    }

    /// What was spent so far. Requests under way are not in it.
    #[must_use]
    pub fn spent(&self) -> Spent {
        Spent::default()
    }

    /// Stops listening, cuts the connections, waits until all is settled, and removes the socket.
    pub async fn close(self) -> Spent {
        self.spent()
    }
}

pub(crate) const fn stub(key: SecretString) -> Door {
    Door { key }
}
