#![doc = include_str!("../README.md")]

mod admin;
mod agents;
mod auth;
mod blobs;
mod body;
mod canary;
mod config;
mod environments;
mod error;
mod events;
mod files;
mod health;
mod idempotency;
pub mod keys;
mod managed;
mod metrics;
mod multipart;
mod openapi;
mod origin;
mod page;
mod path;
mod query;
mod readers;
mod resources;
mod routes;
mod run;
mod seed;
mod serve;
mod sessions;
mod stream;
mod trace;
mod upkeep;
mod upload;
mod usage;
mod users;
mod wire;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wardian_session::Engine;
use wardian_store::Store;

pub use admin::Admin;
pub use canary::CanaryConfig;
pub use config::{MaxNetworking, ServerConfig};
pub use metrics::Metrics;
pub use readers::ReaderLimits;

/// What every handler has.
struct App {
    config: ServerConfig,
    engine: Engine,
    store: Arc<dyn Store>,
    logins: auth::Logins,
    health: health::LastHealth,
    canary: canary::Canary,
    /// Memory for request bodies.
    memory: Arc<Semaphore>,
    /// Places for uploads.
    uploads: Semaphore,
    blobs: blobs::Blobs,
    /// What goes on without its caller.
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// Readers of event streams.
    readers: Arc<readers::Readers>,
    /// Nothing runs any more: streams end, too.
    ended: CancellationToken,
}

/// Serves the API until `shutdown` is done, then drains: no new connections, runs finish or are cancelled.
///
/// # Errors
/// When the listener has no address, or the folder of uploaded files cannot be read.
pub async fn serve(
    listener: TcpListener,
    mut config: ServerConfig,
    engine: Engine,
    store: Arc<dyn Store>,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
    let admin = config.admin.take();
    let app = Arc::new(App {
        logins: auth::Logins::new(config.failed_logins_per_minute),
        config: config.clone(),
        engine: engine.clone(),
        store,
        health: health::LastHealth::default(),
        canary: canary::Canary::default(),
        memory: Arc::new(Semaphore::new(body::MEMORY_UNITS)),
        uploads: Semaphore::new(upload::MAX_UPLOADS),
        blobs: blobs::Blobs::new(engine.files()),
        tasks: TaskTracker::new(),
        stopping: stopping.clone(),
        readers: Arc::new(readers::Readers::new(config.readers)),
        ended: ended.clone(),
    });
    let named = app.blobs.sweep()?;
    app.tasks.spawn(upkeep::run(Arc::clone(&app), named));
    app.tasks.spawn(upkeep::expire(Arc::clone(&app)));
    if let Some(canary) = &config.canary {
        app.tasks.spawn(canary::keep(Arc::clone(&app), canary.clone()));
    }
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
        ended.cancel();
        connections.close().await;
        app.tasks.close();
        if tokio::time::timeout(serve::CLOSE_GRACE, app.tasks.wait()).await.is_err() {
            tracing::warn!("what was under way without its caller is cut off");
        }
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
