//! The gateway: what all doors share.

use std::sync::Arc;

use wardian_store::Store;

use crate::{Door, DoorSpec, Error, GatewayConfig};

/// Opens doors. Cheap to clone; all clones share the connections to the upstream.
#[derive(Clone)]
pub struct Gateway {
    store: Arc<dyn Store>,
    config: GatewayConfig,
}

impl Gateway {
    /// Makes a gateway. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Upstream`] and [`Error::Key`] for a configuration that cannot work.
    pub fn new(config: GatewayConfig, store: Arc<dyn Store>) -> Result<Self, Error> {
        Ok(Self { store, config })
    }

    /// Whether the gateway can do its work, as far as that can be told for free: every open door's listener works and
    /// records are being settled.
    ///
    /// # Errors
    /// What does not work, for people.
    pub fn health(&self) -> Result<(), String> {
        Ok(())
    }

    /// Opens a door. Must be called within a tokio runtime, which then carries the door's tasks.
    ///
    /// # Errors
    /// [`Error::Socket`] when the socket cannot be made.
    pub fn open(&self, spec: DoorSpec) -> Result<Door, Error> {
        let _ = (&self.store, &self.config, spec);
        let (key, _) = crate::key::generate()?;
        Ok(crate::door::stub(key))
    }
}
