//! What the owner of a door is told about the model requests that go through it.

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{OwnedPermit, Sender};
use wardian_protocol::{NanoUsd, RequestId};
use wardian_store::Tokens;

/// The fewest places of an observer's queue: one for a beginning, one that is kept for its end.
pub const MIN_OBSERVER_PLACES: usize = 2;

/// A step of a model request. Every [`Exchange::Started`] is followed by exactly one [`Exchange::Ended`] with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Its record is open, and it goes upstream next.
    Started {
        /// Our id of it.
        id: RequestId,
        /// The model asked for.
        model: String,
        /// When.
        at: Timestamp,
    },
    /// It is over and settled, however it ended.
    Ended {
        /// Our id of it.
        id: RequestId,
        /// The model that answered; the one asked for, where none did.
        model: String,
        /// The status that the sandbox got; `None` when it left before there was one.
        status: Option<u16>,
        /// Whether it failed, was cut, or was given up before the reply was whole.
        is_error: bool,
        /// Tokens by class.
        tokens: Tokens,
        /// What they cost.
        cost: NanoUsd,
        /// When.
        at: Timestamp,
    },
    /// It was refused before a record of it was opened, so that nothing went upstream. It has no beginning and no end.
    Refused {
        /// Our id of it.
        id: RequestId,
        /// The model asked for.
        model: String,
        /// Why.
        reason: RefusedFor,
        /// When.
        at: Timestamp,
    },
}

/// Why a model request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedFor {
    /// The money does not suffice.
    Budget {
        /// The door's limit.
        limit: NanoUsd,
        /// What was spent through it.
        spent: NanoUsd,
        /// What other requests have reserved.
        reserved: NanoUsd,
        /// The most that this one can cost.
        needed: NanoUsd,
    },
}

/// The sending side.
#[derive(Debug)]
pub struct Observer {
    queue: Sender<Exchange>,
    /// Held by whoever waits for two places at once: two who hold one each would wait for ever.
    turn: Mutex<()>,
}

/// A place that is kept in the queue for an end, so that telling it never waits.
#[derive(Debug)]
pub struct EndPlace(OwnedPermit<Exchange>);

impl Observer {
    /// An observer with this queue of at least [`MIN_OBSERVER_PLACES`].
    pub fn new(queue: Sender<Exchange>) -> Self {
        Self { queue, turn: Mutex::default() }
    }

    /// Tells a beginning, and keeps a place for its end. Waits while the queue is full; `None` when nobody listens any
    /// more. Whoever gives up while waiting has told nothing.
    pub async fn start(&self, started: Exchange) -> Option<EndPlace> {
        let turn = self.turn.lock().await;
        let end = self.queue.clone().reserve_owned().await.ok()?;
        self.queue.reserve().await.ok()?.send(started);
        drop(turn);
        Some(EndPlace(end))
    }

    /// Tells a refusal. Waits while the queue is full.
    pub async fn refuse(&self, refused: Exchange) {
        // Nobody listens any more: then nobody wants to know.
        drop(self.queue.send(refused).await);
    }
}

impl EndPlace {
    /// Tells the end.
    pub fn tell(self, ended: Exchange) {
        self.0.send(ended);
    }
}
