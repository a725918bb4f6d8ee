//! What is deleted because of its age: in small batches, with a pause after each, so that nobody waits for it.

use std::time::Duration;

use jiff::Timestamp;
use wardian_protocol::{RequestId, SessionId};
use wardian_store::{BeginRun, Error, RunOutcomeRecord, RunStatus};

use crate::engine::{Engine, Inner};
use crate::request::Caller;

/// Rows of logs in one batch; the store commits them in smaller parts, between the writes of others.
const EVENTS: u32 = 10_000;
/// Sessions in one batch. Each has a log and folders that may be large.
const SESSIONS: u32 = 20;
/// Records of model requests in one batch.
const USAGE: u32 = 10_000;
/// After a full batch: the writer and the disk are others' for longer than they were ours.
const PAUSE: Duration = Duration::from_millis(100);

/// How long each class of data is kept; `None` keeps it for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Logs of sessions, from their last change on. The sessions and their folders stay.
    pub events: Option<Duration>,
    /// Managed sessions that are archived or terminated, with their logs and folders, from their last change on.
    pub sessions: Option<Duration>,
    /// Records of model requests, from their start on.
    pub usage: Option<Duration>,
}

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Rows of logs.
    pub events: u64,
    /// Sessions.
    pub sessions: u64,
    /// Records of model requests.
    pub usage: u64,
}

impl Engine {
    /// Deletes what was kept for long enough by the engine's clock, and says so in the log. What a living process has, such as
    /// a session that is running, is not touched. Ends early, with what it did so far, when the engine stops.
    ///
    /// # Errors
    /// When the store fails; asked again, it goes on from there.
    pub async fn expire(&self, retention: &Retention) -> Result<Expired, Error> {
        let mut expired = Expired::default();
        let done = self.inner.expire(retention, &mut expired).await;
        if expired != Expired::default() {
            let Expired { events, sessions, usage } = expired;
            tracing::info!(sessions, events, usage, "what was kept for long enough is deleted");
        }
        done.map(|()| expired)
    }

    /// Deletes a session of runs with its log and folders; what it has cost stays. `false`: there is none, it is managed, or
    /// a run of it is under way.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_runs(&self, caller: &Caller, id: &SessionId) -> Result<bool, Error> {
        let (inner, now) = (&self.inner, self.inner.now());
        // Taken as for a run, so that no other begins.
        let taker = RequestId::from_random(crate::random_bits());
        let begun = inner.store.begin_run(&caller.org_id, id, &taker, &inner.config.owner, now).await?;
        let BeginRun::Started { fence } = begun else { return Ok(false) };
        match inner.store.delete_session(&caller.org_id, id, fence).await {
            Ok(is_deleted) => {
                inner.bury(id).await;
                Ok(is_deleted)
            }
            Err(error) => {
                let outcome = RunOutcomeRecord {
                    status: RunStatus::Cancelled,
                    is_error: false,
                    cost: wardian_protocol::NanoUsd::ZERO,
                    num_turns: 0,
                    stop_reason: None,
                    exit_code: None,
                    detail: None,
                    at: now,
                };
                inner.store.end_run(&caller.org_id, id, &taker, outcome).await?;
                Err(error)
            }
        }
    }
}

impl Inner {
    async fn expire(&self, retention: &Retention, expired: &mut Expired) -> Result<(), Error> {
        if let Some(before) = self.age(retention.sessions) {
            loop {
                let deleted = self.store.delete_sessions_before(before, SESSIONS).await?;
                for session in &deleted {
                    self.bury(&session.session_id).await;
                }
                expired.sessions += deleted.len() as u64;
                if deleted.len() < SESSIONS as usize || !self.breathe().await {
                    break;
                }
            }
        }
        if let Some(before) = self.age(retention.events) {
            loop {
                let deleted = self.store.delete_events_before(before, EVENTS).await?;
                expired.events += deleted;
                if deleted < u64::from(EVENTS) || !self.breathe().await {
                    break;
                }
            }
        }
        if let Some(before) = self.age(retention.usage) {
            loop {
                let deleted = self.store.delete_usage_before(before, USAGE).await?;
                expired.usage += deleted;
                if deleted < u64::from(USAGE) || !self.breathe().await {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The time before which things are too old. None: everything is kept.
    fn age(&self, kept: Option<Duration>) -> Option<Timestamp> {
        // Before 1970 there is nothing.
        let before = self.now().checked_sub(kept?).ok()?;
        (before > Timestamp::UNIX_EPOCH && !self.stopping.is_cancelled()).then_some(before)
    }

    /// Lets others work; `false` when the engine stops.
    async fn breathe(&self) -> bool {
        tokio::select! {
            () = self.stopping.cancelled() => false,
            () = tokio::time::sleep(PAUSE) => true,
        }
    }
}
