//! The gateway: what all doors share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wardian_ledger::PriceTable;
use wardian_store::{Store, UsageEnd};

use crate::upstream::Upstream;
use crate::{Door, DoorSpec, Error, GatewayConfig, door};

/// Records that are kept to be settled later. Further ones are settled at their bound by the next start of the server.
const MAX_UNSETTLED: usize = 10_000;

/// Opens doors. Cheap to clone; all clones share the connections to the upstream.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What all doors share.
pub(crate) struct Shared {
    pub config: GatewayConfig,
    pub store: Arc<dyn Store>,
    pub upstream: Upstream,
    pub prices: &'static PriceTable,
    pub health: Health,
}

/// What is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Health {
    deaf_doors: AtomicUsize,
    unsettled: Mutex<Vec<UsageEnd>>,
}

impl Health {
    /// A door's listener failed.
    pub fn deaf(&self) {
        self.deaf_doors.fetch_add(1, Ordering::Relaxed);
    }

    /// A door's listener works again, or is gone.
    pub fn hears(&self) {
        self.deaf_doors.fetch_sub(1, Ordering::Relaxed);
    }

    /// A record could not be settled; it is kept for later.
    pub fn unsettled(&self, end: UsageEnd) {
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        if unsettled.len() < MAX_UNSETTLED {
            unsettled.push(end);
        }
    }

    /// Takes the records that could not be settled, now that the store works again.
    pub fn take_unsettled(&self) -> Vec<UsageEnd> {
        std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count_unsettled(&self) -> usize {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Gateway {
    /// Makes a gateway. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Upstream`] and [`Error::Key`] for a configuration that cannot work.
    pub fn new(config: GatewayConfig, store: Arc<dyn Store>) -> Result<Self, Error> {
        let upstream = Upstream::new(config.clone())?;
        let prices = PriceTable::embedded();
        let shared = Shared { config, store, upstream, prices, health: Health::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether the gateway can do its work, as far as that can be told for free: the listeners of all open doors work, and
    /// every record was settled. (That the upstream can be reached is not tried: it may cost, and it may be away for a
    /// moment without anything being wrong here.)
    ///
    /// # Errors
    /// What does not work, for people.
    pub fn health(&self) -> Result<(), String> {
        let deaf = self.shared.health.deaf_doors.load(Ordering::Relaxed);
        let unsettled = self.shared.health.count_unsettled();
        match (deaf, unsettled) {
            (0, 0) => Ok(()),
            (0, _) => Err(format!("{unsettled} usage records could not be settled")),
            (_, _) => Err(format!("the listeners of {deaf} doors fail")),
        }
    }

    /// Opens a door. Must be called within a tokio runtime, which then carries the door's tasks.
    ///
    /// # Errors
    /// [`Error::Socket`] when the socket cannot be made.
    pub fn open(&self, spec: DoorSpec) -> Result<Door, Error> {
        door::open(Arc::clone(&self.shared), spec)
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Gateway").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
