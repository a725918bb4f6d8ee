//! Readers of event streams: counted, and bounded so that one session, one organisation or all of them together leave
//! connections for everybody else.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wardian_protocol::{OrgId, SessionId};

use crate::error::Error;

/// When a reader that was turned away may try again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How many readers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderLimits {
    /// Of one session.
    pub per_session: usize,
    /// Of one organisation.
    pub per_org: usize,
    /// Of this server. Each holds a connection.
    pub per_host: usize,
}

impl ReaderLimits {
    /// For a server with so many connections: a quarter of them stays for other requests, one organisation cannot take all
    /// of the rest, nor one session all of its organisation's.
    #[must_use]
    pub const fn of(connections: usize) -> Self {
        let quarter = connections.div_ceil(4);
        Self { per_session: quarter, per_org: 2 * quarter, per_host: 3 * quarter }
    }
}

/// Who reads now.
#[derive(Debug)]
pub struct Readers {
    limits: ReaderLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    orgs: HashMap<OrgId, usize>,
    sessions: HashMap<SessionId, usize>,
}

/// A reader's place; free again when it is dropped.
#[derive(Debug)]
pub struct Reader {
    readers: Arc<Readers>,
    org_id: OrgId,
    session_id: SessionId,
}

impl Readers {
    /// Nobody reads yet.
    pub fn new(limits: ReaderLimits) -> Self {
        Self { limits, counts: Mutex::default() }
    }

    /// Takes a place.
    pub fn take(self: &Arc<Self>, org_id: &OrgId, session_id: &SessionId) -> Result<Reader, Error> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_session = counts.sessions.get(session_id).copied().unwrap_or(0);
        let of_org = counts.orgs.get(org_id).copied().unwrap_or(0);
        let full = [
            (of_session, self.limits.per_session, "session"),
            (of_org, self.limits.per_org, "organisation"),
            (counts.all, self.limits.per_host, "server"),
        ];
        for (found, limit, whose) in full {
            if found >= limit {
                let message = format!("this {whose} has as many readers as it may ({limit})");
                return Err(Error::slow_down(message, RETRY_AFTER));
            }
        }
        counts.all += 1;
        *counts.orgs.entry(org_id.clone()).or_default() += 1;
        *counts.sessions.entry(session_id.clone()).or_default() += 1;
        drop(counts);
        let readers = Arc::clone(self);
        Ok(Reader { readers, org_id: org_id.clone(), session_id: session_id.clone() })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut counts = self.readers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        leave(&mut counts.orgs, &self.org_id);
        leave(&mut counts.sessions, &self.session_id);
    }
}

fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let limits = ReaderLimits { per_session: 2, per_org: 3, per_host: 4 };
        let readers = Arc::new(Readers::new(limits));
        let org = |number: u8| OrgId::from_random([number; 16]);
        let session = |number: u8| SessionId::from_random([number; 16]);
        let refused = |org_number, session_number| {
            let error = readers.take(&org(org_number), &session(session_number)).unwrap_err();
            error.envelope(&wardian_protocol::RequestId::from_random([0; 16])).error.message
        };
        let first = readers.take(&org(1), &session(1)).unwrap();
        let _second = readers.take(&org(1), &session(1)).unwrap();
        assert_eq!(refused(1, 1), "this session has as many readers as it may (2)");
        let _third = readers.take(&org(1), &session(2)).unwrap();
        assert_eq!(refused(1, 3), "this organisation has as many readers as it may (3)");
        let _fourth = readers.take(&org(2), &session(4)).unwrap();
        assert_eq!(refused(3, 5), "this server has as many readers as it may (4)");
        drop(first);
        let _again = readers.take(&org(1), &session(1)).unwrap();
        assert_eq!(readers.counts.lock().unwrap().all, 4);
        drop((_second, _third, _fourth, _again));
        let counts = readers.counts.lock().unwrap();
        assert!(counts.all == 0 && counts.orgs.is_empty() && counts.sessions.is_empty());
    }
}
