//! The server: accepts connections and ends in order.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use crate::record::{Recorded, Recorder};
use crate::route::Shared;
use crate::script::Script;
use crate::wire::{CutSwitch, Wire};

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take over its request's head, idle time between two requests included: more than the 90 seconds
/// after which client pools give an idle connection up, so that the server is never the one that closes first.
const HEAD_DEADLINE: Duration = Duration::from_mins(2);
/// How long a connection may take to end after shutdown was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How long to wait when a connection cannot be accepted (no descriptors left) before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The read buffer of a connection; a request's head must fit.
const MAX_BUFFER_BYTES: usize = 256 * 1024;
/// How many requests are kept for tests when nothing else is said.
const KEEP_REQUESTS: usize = 10_000;

/// How a server behaves beside its script. `Debug` does not show the key.
#[derive(Clone)]
pub struct ServerOptions {
    /// The only key that is taken; without it any key is.
    pub expect_key: Option<String>,
    /// The file to which every request is appended as a line of JSON, keys as hashes.
    pub log: Option<PathBuf>,
    /// How many requests to keep in memory, the newest ones.
    pub keep_requests: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { expect_key: None, log: None, keep_requests: KEEP_REQUESTS }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ServerOptions")
            .field("expect_key", &self.expect_key.as_ref().map(|_| "…"))
            .field("log", &self.log)
            .field("keep_requests", &self.keep_requests)
            .finish()
    }
}

/// A running server. Dropping it stops it; [`Server::shutdown`] also waits for the end.
pub struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    _stop: DropGuard,
}

impl fmt::Debug for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Server").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `addr` (port 0: any free one) and answers from then on.
    ///
    /// # Errors
    /// When the address cannot be had or the log cannot be opened.
    pub async fn bind(script: Script, addr: SocketAddr, options: ServerOptions) -> io::Result<Self> {
        let recorder = Recorder::new(options.keep_requests, options.log.as_deref()).await?;
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(script, options.expect_key, recorder));
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, Arc::clone(&shared), tasks.clone()));
        let stop = shared.shutdown.clone().drop_guard();
        Ok(Self { addr, shared, tasks, _stop: stop })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What clients take as their base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The requests so far, oldest first (at most `keep_requests` of them).
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorder.all()
    }

    /// How many requests came so far, forgotten ones included.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.shared.recorder.requests()
    }

    /// Waits for the next request that this method did not give out yet. It comes before its answer does.
    pub async fn next_request(&self) -> Recorded {
        self.shared.recorder.next().await
    }

    /// Waits until `count` requests came in all.
    pub async fn wait_for(&self, count: usize) {
        self.shared.recorder.wait_for(count).await;
    }

    /// How many clients left before their answer was complete.
    #[must_use]
    pub fn aborted(&self) -> usize {
        self.shared.recorder.aborted()
    }

    /// Waits until `count` clients left before their answer was complete.
    pub async fn wait_for_aborted(&self, count: usize) {
        self.shared.recorder.wait_for_aborted(count).await;
    }

    /// How many replies of the script were never given.
    #[must_use]
    pub fn unused_replies(&self) -> usize {
        self.shared.unused()
    }

    /// Stops listening, ends every connection, held ones too, and waits for that.
    pub async fn shutdown(self) {
        self.shared.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            io::Result::Ok((place, stream))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = shared.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((place, stream)) => {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    serve(stream, &shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: &Arc<Shared>) {
    // Small writes go out at once; when that cannot be set the stream is only slower.
    let _ = stream.set_nodelay(true);
    let switch = CutSwitch::default();
    let io = TokioIo::new(Wire::new(stream, switch.clone()));
    let service = service_fn(|request| shared.answer(request, switch.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(SHUTDOWN_GRACE, connection).await {
                Ok(ended) => ended,
                Err(_elapsed) => return,
            }
        }
    };
    if let Err(error) = ended {
        // Clients that leave and scripts that cut end here too: nothing to act on.
        tracing::debug!(%error, "a connection ended early");
    }
}
