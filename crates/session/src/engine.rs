//! The engine: takes runs, gives each what it needs, and takes everything back on every path.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use opentelemetry::trace::SpanContext;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use wardian_gateway::Gateway;
use wardian_protocol::{OrgId, RequestId, SessionId};
use wardian_sandbox::{Launcher, Tier};
use wardian_store::{BeginRun, NewSession, RunOutcomeRecord, SessionRecord, Store};

use crate::config::{EngineConfig, Ownership};
use crate::error::{RunError, StartError};
use crate::feed::Feeds;
use crate::folder::{DataFolder, SessionFolders};
use crate::managed::Actors;
use crate::metrics::Start;
use crate::plan::{self, Plan};
use crate::report::RunReport;
use crate::request::{Caller, RunRequest};
use crate::slots::{Slot, Slots};
use crate::state::Stream;
use crate::watch::{Turn, TurnWatch, current_trace};
use crate::{reconcile, run};

/// How long runs get to clean up after they were cancelled because the engine stops.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// How often, and how far apart, an engine that shares its folder tries to get in: two seconds in all.
const SHARE_TRIES: u32 = 100;
const SHARE_PAUSE: Duration = Duration::from_millis(20);

/// Runs agents and commands in sandboxes. A cheap handle; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// Where a run's events go. The caller bounds it; a full one makes the agent wait. A closed one is fine: nobody listens.
pub type RunSink = mpsc::Sender<RunEvent>;

/// What a caller sees of a run, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEvent {
    /// The run was recorded and its sandbox is up.
    Started {
        /// The session.
        session_id: SessionId,
        /// The run.
        request_id: RequestId,
        /// Where the workspace lies on this host; for its administrator only.
        workspace: std::path::PathBuf,
        /// How much isolation the sandbox has.
        tier: Tier,
    },
    /// A message of the agent, with our ids and the gateway's figures in it.
    Message(Value),
    /// Output of a command.
    Output {
        /// Which stream.
        stream: Stream,
        /// What it wrote.
        text: String,
    },
}

/// Whether the parts of an engine work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// A write is possible.
    pub store: Result<(), String>,
    /// The launcher answers.
    pub sandbox: Result<(), String>,
    /// The gateway is in order.
    pub gateway: Result<(), String>,
}

pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) gateway: Gateway,
    pub(crate) launcher: Launcher,
    pub(crate) folder: DataFolder,
    pub(crate) slots: Arc<Slots>,
    pub(crate) tasks: TaskTracker,
    pub(crate) actors: Actors,
    pub(crate) feeds: Feeds,
    /// No new runs.
    pub(crate) stopping: CancellationToken,
    /// Runs under way end.
    pub(crate) ending: CancellationToken,
    /// Ends of runs that the store did not take, to be tried again.
    unended: Mutex<HashMap<SessionId, Unended>>,
}

#[derive(Clone)]
struct Unended {
    org_id: OrgId,
    request_id: RequestId,
    outcome: RunOutcomeRecord,
}

/// A run that the store has as going on.
pub(crate) struct Begun {
    pub(crate) caller: Caller,
    pub(crate) session_id: SessionId,
    pub(crate) fence: u64,
    pub(crate) user: Option<String>,
    pub(crate) folders: SessionFolders,
    _slot: Slot,
}

impl Engine {
    /// Takes the data folder and puts right what a crash left in it and in the store.
    ///
    /// # Errors
    /// When another engine owns the folder, it cannot be used, or the store fails.
    pub async fn start(
        config: EngineConfig,
        store: Arc<dyn Store>,
        gateway: Gateway,
        launcher: Launcher,
    ) -> Result<Self, StartError> {
        let folder = take_folder(&config, store.as_ref()).await?;
        let slots = Arc::new(Slots::new(config.caps));
        let inner = Inner {
            config,
            store,
            gateway,
            launcher,
            folder,
            slots,
            tasks: TaskTracker::new(),
            actors: Actors::default(),
            feeds: Feeds::default(),
            stopping: CancellationToken::new(),
            ending: CancellationToken::new(),
            unended: Mutex::default(),
        };
        let engine = Self { inner: Arc::new(inner) };
        engine.start_waker();
        Ok(engine)
    }

    /// Runs a prompt to its end. Dropping the future cancels the run; it is cleaned up all the same.
    ///
    /// # Errors
    /// See [`RunError`]. How the run itself ended is in the report.
    pub async fn run(
        &self,
        caller: Caller,
        request: RunRequest,
        sink: RunSink,
        cancel: CancellationToken,
    ) -> Result<RunReport, RunError> {
        if self.inner.stopping.is_cancelled() {
            return Err(RunError::Stopping);
        }
        let config = &self.inner.config;
        let plan = plan::check(request, &caller, &config.default_model, &config.defaults, &config.ceilings)
            .map_err(RunError::Invalid)?;
        let cancel = cancel.child_token();
        let guard = cancel.clone().drop_guard();
        let span = tracing::info_span!("run", request_id = %plan.request_id);
        let trace = current_trace();
        let work = Arc::clone(&self.inner).run(caller, plan, trace, sink, cancel).instrument(span);
        let done = self.inner.tasks.spawn(work).await;
        guard.disarm();
        done.unwrap_or(Err(RunError::Internal))
    }

    /// Takes no more runs and turns, waits for those under way, cancels what is left after `drain`, and waits for its end.
    /// Turns that were cut off go on at the next start. Then it lets go of the data folder.
    pub async fn stop(&self, drain: Duration) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(drain, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(runs = self.runs(), "runs are cancelled: the time to finish is over");
            self.inner.ending.cancel();
            if tokio::time::timeout(STOP_GRACE, self.inner.tasks.wait()).await.is_err() {
                tracing::error!(runs = self.runs(), "runs did not clean up in time");
                return;
            }
        }
        self.inner.folder.release();
    }

    /// Whether the parts work. Also tries again to write what the store did not take before.
    pub async fn health(&self) -> Health {
        self.inner.end_unended().await;
        let shown = |error: &dyn std::error::Error| describe(error);
        Health {
            store: self.inner.store.ping().await.map_err(|error| shown(&error)),
            sandbox: self.inner.launcher.health().await.map_err(|error| shown(&error)),
            gateway: self.inner.gateway.health(),
        }
    }

    /// The sandboxes that exist now, by the ids of their runs.
    ///
    /// # Errors
    /// When the launcher does not answer.
    pub async fn sandboxes(&self) -> Result<Vec<String>, wardian_sandbox::Error> {
        self.inner.launcher.list().await
    }

    /// How many runs are under way.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.inner.slots.taken()
    }

    /// Where a hosted session's workspace lies on this host, whether it exists or not.
    #[must_use]
    pub fn workspace(&self, session_id: &SessionId) -> std::path::PathBuf {
        self.inner.folder.session(session_id).workspace
    }

    /// Where the bytes of uploaded files lie, as `<org>/<file>`. What the store has no row of is not there.
    #[must_use]
    pub fn files(&self) -> std::path::PathBuf {
        self.inner.folder.files()
    }

    /// This process, as the store knows it: the owner of its runs and leases.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.inner.config.owner
    }

    /// What the host can do for sandboxes.
    #[must_use]
    pub fn capabilities(&self) -> &wardian_sandbox::Capabilities {
        self.inner.launcher.capabilities()
    }
}

impl Inner {
    async fn run(
        self: Arc<Self>,
        caller: Caller,
        plan: Plan,
        trace: SpanContext,
        sink: RunSink,
        cancel: CancellationToken,
    ) -> Result<RunReport, RunError> {
        let begun = self.begin(caller, &plan).await?;
        let turn = Turn { session_id: &begun.session_id, agent: None, parent: trace, start: Start::Cold };
        let watch = TurnWatch::begin(&self.config.metrics, self.config.tracer.as_ref(), turn);
        let mut held = run::Held::new(watch);
        // Whatever happens in here, even a panic, what is held is given back and the run is ended in the store.
        let work = AssertUnwindSafe(run::work(&self, &begun, &plan, &mut held, &sink, &cancel));
        let worked = work.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!("the run panicked");
            Err(RunError::Internal)
        });
        run::finish(&self, &begun, plan, held, worked, &sink, &cancel).await
    }

    /// Finds or makes the session and takes it for this run.
    async fn begin(&self, caller: Caller, plan: &Plan) -> Result<Begun, RunError> {
        self.end_unended().await;
        let known = match &plan.session_id {
            None => None,
            Some(id) => {
                let found = self.store.session(&caller.org_id, id).await.map_err(RunError::Store)?;
                let found = found.filter(|session| may_use(plan.user.as_deref(), &caller, session));
                Some(found.ok_or_else(|| RunError::SessionNotFound(id.clone()))?)
            }
        };
        let user = known.as_ref().map_or_else(|| plan.user.clone(), |session| session.user_id.clone());
        let slot = self
            .slots
            .take(&caller.org_id, user.as_deref(), caller.key_id.as_ref())
            .map_err(RunError::Full)?;
        let session_id = match known {
            Some(session) => session.id,
            None => self.create_session(&caller.org_id, user.clone()).await?,
        };
        let begun = self
            .store
            .begin_run(&caller.org_id, &session_id, &plan.request_id, &self.config.owner, self.now())
            .await
            .map_err(RunError::Store)?;
        match begun {
            BeginRun::Started { fence } => {
                let folders = self.folder.session(&session_id);
                Ok(Begun { caller, session_id, fence, user, folders, _slot: slot })
            }
            BeginRun::Busy => Err(RunError::SessionBusy(session_id)),
            BeginRun::NoSession => Err(RunError::SessionNotFound(session_id)),
        }
    }

    async fn create_session(&self, org_id: &OrgId, user_id: Option<String>) -> Result<SessionId, RunError> {
        let id = SessionId::from_random(crate::random_bits());
        let session = NewSession {
            id: id.clone(),
            org_id: org_id.clone(),
            user_id,
            created_at: self.now(),
            managed: None,
        };
        self.store.create_session(session).await.map_err(RunError::Store)?;
        Ok(id)
    }

    /// Ends a run in the store; what the store does not take now is kept and tried again.
    pub(crate) async fn end(&self, begun: &Begun, request_id: &RequestId, outcome: RunOutcomeRecord) {
        let unended =
            Unended { org_id: begun.caller.org_id.clone(), request_id: request_id.clone(), outcome };
        if let Err(error) = self.try_end(&begun.session_id, &unended).await {
            tracing::error!(
                error = describe(&error),
                "the end of the run could not be stored; it is tried again"
            );
            self.unended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(begun.session_id.clone(), unended);
        }
    }

    async fn end_unended(&self) {
        let unended = self.unended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (session_id, run) in unended {
            if self.try_end(&session_id, &run).await.is_ok() {
                self.unended.lock().unwrap_or_else(PoisonError::into_inner).remove(&session_id);
            }
        }
    }

    async fn try_end(&self, session_id: &SessionId, run: &Unended) -> Result<(), wardian_store::Error> {
        self.store.end_run(&run.org_id, session_id, &run.request_id, run.outcome.clone()).await.map(|_| ())
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        (self.config.clock)()
    }
}

/// Takes the data folder and puts right what is left in it. An engine that shares it is not turned away by one that is
/// doing just that.
async fn take_folder(config: &EngineConfig, store: &dyn Store) -> Result<DataFolder, StartError> {
    let mut tries = match config.ownership {
        Ownership::Sole => 1,
        Ownership::Shared => SHARE_TRIES,
    };
    loop {
        tries -= 1;
        match try_folder(config, store).await {
            Err(StartError::Owned(_)) if tries > 0 => tokio::time::sleep(SHARE_PAUSE).await,
            taken => return taken,
        }
    }
}

async fn try_folder(config: &EngineConfig, store: &dyn Store) -> Result<DataFolder, StartError> {
    let (folder, others) = DataFolder::take(&config.data_dir, config.ownership)?;
    reconcile::reconcile(config, &folder, store, others).await?;
    folder.share(config.ownership)?;
    Ok(folder)
}

/// Whether a run for `asked` by `caller` may go on with the session. Its user was set once, when it was made.
fn may_use(asked: Option<&str>, caller: &Caller, session: &SessionRecord) -> bool {
    // `asked` is the caller's own user where it is bound to one; the plan saw to that.
    debug_assert!(caller.user_id.is_none() || caller.user_id.as_deref() == asked);
    asked.is_none() || asked == session.user_id.as_deref()
}

/// An error with its causes, for logs.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
