#![doc = include_str!("../README.md")]

mod admin;
mod auth;
mod body;
mod config;
mod error;
mod health;
mod idempotency;
pub mod keys;
mod metrics;
mod origin;
#[cfg_attr(not(test), expect(dead_code, reason = "the lists that use it come next"))]
mod page;
#[expect(dead_code, reason = "the lists that use it come next")]
mod query;
mod routes;
mod run;
#[expect(dead_code, reason = "the routes that make things come next")]
mod seed;
mod serve;
mod sessions;
mod usage;
mod wire;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wardian_session::Engine;
use wardian_store::Store;

pub use admin::Admin;
pub use config::ServerConfig;
pub use metrics::Metrics;

/// What every handler has.
struct App {
    config: ServerConfig,
    engine: Engine,
    store: Arc<dyn Store>,
    logins: auth::Logins,
    health: health::LastHealth,
    /// Memory for request bodies.
    memory: Semaphore,
    /// Runs that go on without their caller.
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// Serves the API until `shutdown` is done, then drains: no new connections, runs finish or are cancelled.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(
    listener: TcpListener,
    mut config: ServerConfig,
    engine: Engine,
    store: Arc<dyn Store>,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let stopping = CancellationToken::new();
    let admin = config.admin.take();
    let app = Arc::new(App {
        logins: auth::Logins::new(config.failed_logins_per_minute),
        config: config.clone(),
        engine: engine.clone(),
        store,
        health: health::LastHealth::default(),
        memory: Semaphore::new(body::MEMORY_UNITS),
        tasks: TaskTracker::new(),
        stopping: stopping.clone(),
    });
    tracing::info!(%address, "serving");
    // Who watches the server sees it drain, too.
    let drained = CancellationToken::new();
    let watched = async {
        let Some(admin) = admin else { return };
        let routes = admin::routes(Arc::clone(&app), &admin);
        serve::accept(admin.listener, &config, routes, drained.clone()).await.close().await;
    };
    let served = async {
        let routes = routes::routes(Arc::clone(&app));
        let accept = serve::accept(Arc::new(listener), &config, routes, stopping.clone());
        tokio::pin!(accept);
        tokio::select! {
            () = shutdown => stopping.cancel(),
            _ = &mut accept => unreachable!("it ends only when told to stop"),
        }
        let connections = accept.await;
        tracing::info!(runs = engine.runs(), "draining");
        engine.stop(config.drain_timeout).await;
        connections.close().await;
        drained.cancel();
    };
    tokio::join!(served, watched);
    tracing::info!("stopped");
    Ok(())
}

/// Random bits for an id or a secret.
pub(crate) fn random_bits<const N: usize>() -> [u8; N] {
    let mut bits = [0; N];
    getrandom::fill(&mut bits).expect("the operating system has random bytes once it has booted");
    bits
}
