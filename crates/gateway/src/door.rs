//! A door: the one way out of one sandbox.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::SpanContext;
use secrecy::SecretString;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wardian_protocol::{ApiErrorKind, NanoUsd, OrgId, RequestId, SessionId};
use wardian_store::Tokens;

use crate::budget::Budget;
use crate::gateway::Shared;
use crate::key::KeyHash;
use crate::observer::{MIN_OBSERVER_PLACES, Observer};
use crate::reply::Refusal;
use crate::{Error, Exchange, connection, key};

/// The pause after a connection could not be accepted: mostly there are no file descriptors left for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a door is, and what may go through it.
#[derive(Clone, Debug)]
pub struct DoorSpec {
    /// The unix socket to make. Its folder must be one that only this server and the sandbox can reach.
    pub socket: PathBuf,
    /// What the sandbox may do.
    pub grant: Grant,
    /// Who is told of the model requests as they begin and end. A request waits while the queue is full, each under way
    /// keeps one place for its end, and closing the door waits for no place. A receiver that is gone holds up nothing.
    pub observer: Option<mpsc::Sender<Exchange>>,
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
    socket: PathBuf,
    state: Arc<DoorState>,
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
        self.state.budget.spent()
    }

    /// What is reserved for requests under way.
    #[must_use]
    pub fn reserved(&self) -> NanoUsd {
        self.state.budget.reserved()
    }

    /// How many model requests are under way: from their reservation until they are settled in the store.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::SeqCst)
    }

    /// Raises or lowers what may be spent through this door altogether; `None` is no limit. What waits for room tries
    /// again. What is under way goes on, also where it now is over the limit.
    pub fn set_max_cost(&self, max_cost: Option<NanoUsd>) {
        self.state.budget.set_limit(max_cost);
    }

    /// Sets the span that those of the model requests to come stand below: the turn's. Until it is set, each is a trace of
    /// its own.
    pub fn set_trace(&self, parent: SpanContext) {
        *self.state.trace.lock().unwrap_or_else(PoisonError::into_inner) = parent;
    }

    /// Stops listening, cuts the connections, waits until all is settled, and removes the socket.
    pub async fn close(self) -> Spent {
        self.state.shut(&self.socket);
        self.state.tracker.wait().await;
        self.state.budget.spent()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.state.shut(&self.socket);
    }
}

/// What the requests of a door share.
pub(crate) struct DoorState {
    pub shared: Arc<Shared>,
    pub grant: Grant,
    pub key: KeyHash,
    pub budget: Budget,
    pub observer: Option<Observer>,
    pub in_flight: AtomicUsize,
    trace: Mutex<SpanContext>,
    pub tracker: TaskTracker,
    pub runtime: Handle,
    body_memory: Arc<Semaphore>,
    stop: CancellationToken,
}

impl DoorState {
    /// The span that those of model requests stand below.
    pub fn trace(&self) -> SpanContext {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new id for a request.
    pub fn new_id(&self) -> RequestId {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).expect("the system gave random bytes when the door was opened");
        RequestId::from_random(bits)
    }

    /// Runs a task that closing the door waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Waits for memory for a body.
    pub async fn body_memory(&self, kibibytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let permits = u32::try_from(kibibytes).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.body_memory).acquire_many_owned(permits).await;
        memory.map_err(|_| Refusal::new(ApiErrorKind::RateLimitError, "the sandbox is being closed"))
    }

    fn shut(&self, socket: &Path) {
        if !self.stop.is_cancelled() {
            self.stop.cancel();
            // It may have been removed with the sandbox's folder.
            let _: io::Result<()> = std::fs::remove_file(socket);
        }
        self.tracker.close();
    }
}

impl std::fmt::Debug for DoorState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("DoorState").field("grant", &self.grant).finish_non_exhaustive()
    }
}

/// Opens a door.
pub(crate) fn open(shared: Arc<Shared>, spec: DoorSpec) -> Result<Door, Error> {
    let DoorSpec { socket, grant, observer } = spec;
    if observer.as_ref().is_some_and(|queue| queue.max_capacity() < MIN_OBSERVER_PLACES) {
        return Err(Error::Observer);
    }
    let (key, hash) = key::generate()?;
    let listener = bind(&socket).map_err(|source| Error::Socket { path: socket.clone(), source })?;
    let limits = &shared.config.limits;
    let state = Arc::new(DoorState {
        budget: Budget::new(grant.max_cost),
        observer: observer.map(Observer::new),
        in_flight: AtomicUsize::new(0),
        trace: Mutex::new(SpanContext::NONE),
        grant,
        key: hash,
        tracker: TaskTracker::new(),
        runtime: Handle::current(),
        body_memory: Arc::new(Semaphore::new(
            (limits.buffered_bytes / 1024).max(limits.body_bytes / 1024 + 1),
        )),
        stop: CancellationToken::new(),
        shared,
    });
    state.spawn(listen(Arc::clone(&state), listener));
    Ok(Door { key, socket, state })
}

/// Makes the socket. A sandbox may run as another user of the host, so that every user may connect; who gets that far is
/// decided by the folder, and then by the key.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    let listener = match std::os::unix::net::UnixListener::bind(socket) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(socket) => {
            std::fs::remove_file(socket)?;
            std::os::unix::net::UnixListener::bind(socket)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Whether this is a socket whose owner died without removing it. (A file that is no socket refuses connections, too.)
fn is_abandoned(socket: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket());
    is_socket
        && std::os::unix::net::UnixStream::connect(socket)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Accepts connections until the door closes.
async fn listen(door: Arc<DoorState>, listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(door.shared.config.limits.connections));
    let mut deaf = false;
    let accepting = async {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let accepted = listener.accept().await;
            if deaf != accepted.is_err() {
                deaf = accepted.is_err();
                if deaf { door.shared.health.deaf() } else { door.shared.health.hears() }
            }
            match accepted {
                Ok((stream, _)) => {
                    let state = Arc::clone(&door);
                    door.spawn(async move {
                        let stop = state.stop.clone();
                        stop.run_until_cancelled(Box::pin(connection::serve(state, stream))).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::error!(
                        session_id = %door.grant.session_id,
                        error = &error as &dyn std::error::Error,
                        "failed to accept a connection of a sandbox",
                    );
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    door.stop.run_until_cancelled(accepting).await;
    if deaf {
        door.shared.health.hears();
    }
}
