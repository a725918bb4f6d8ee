//! The servers of a session: what is connected, and what may be asked of them. A task keeps each connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{About, Connection, Ears, Failure, Opened, Surroundings, open};
use super::host::INBOUND;
use super::tool::McpTool;
use super::{McpServer, McpTransport};

/// The most tools of one server: many times what a model tells apart.
const MAX_TOOLS: usize = 1024;
/// The most servers of one session.
pub(super) const MAX_SERVERS: usize = 128;
/// Between two lists of tools that a server says have changed.
const RELIST_PAUSE: Duration = Duration::from_secs(1);
/// How long a connection may take to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// The servers of a session.
pub(super) struct Registry {
    itself: Weak<Self>,
    entries: Mutex<Vec<Entry>>,
    /// Counts what changes, so that it can be waited for.
    changes: watch::Sender<u64>,
    pub(super) surroundings: Arc<Surroundings>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// A server.
pub(super) struct Entry {
    pub(super) server: McpServer,
    pub(super) state: State,
    pub(super) about: About,
    /// What it offered last: kept while it is lost, for a call connects again.
    pub(super) tools: Vec<Arc<McpTool>>,
    /// Whether it was named by `set_servers`, which also takes such away.
    pub(super) added: bool,
    /// Which connection holds: what an earlier one says is past.
    epoch: u64,
    stop: CancellationToken,
    inbound: Option<mpsc::Sender<Value>>,
}

/// How a server stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    Pending,
    Connected(Arc<Connection>),
    /// It was connected; a call connects again.
    Lost(String),
    Failed(String),
    NeedsAuth,
    Disabled,
}

impl State {
    /// What hosts are told.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Connected(_) => "connected",
            Self::Lost(_) | Self::Failed(_) => "failed",
            Self::NeedsAuth => "needs-auth",
            Self::Disabled => "disabled",
        }
    }

    /// Whether a call may go to it.
    pub(super) const fn is_usable(&self) -> bool {
        matches!(self, Self::Connected(_) | Self::Lost(_))
    }

    /// Why it cannot be used.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Lost(text) | Self::Failed(text) => Some(text),
            Self::NeedsAuth => Some("it wants to know who asks (HTTP 401)"),
            Self::Disabled => Some("it is disabled"),
            Self::Pending | Self::Connected(_) => None,
        }
    }
}

impl Entry {
    fn new(server: McpServer, added: bool) -> Self {
        Self {
            server,
            state: State::Pending,
            about: About::default(),
            tools: Vec::new(),
            added,
            epoch: 0,
            stop: CancellationToken::new(),
            inbound: None,
        }
    }
}

impl Registry {
    /// The servers, none of them connected. Where two have one name the later counts.
    pub(super) fn new(
        servers: Vec<McpServer>,
        surroundings: Surroundings,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for server in servers {
            entries.retain(|entry| entry.server.name != server.name);
            if entries.len() < MAX_SERVERS {
                entries.push(Entry::new(server, false));
            } else {
                tracing::warn!(server = %server.name, "a tool server is left out: there are too many");
            }
        }
        Arc::new_cyclic(|itself| Self {
            itself: Weak::clone(itself),
            entries: Mutex::new(entries),
            changes: watch::Sender::new(0),
            surroundings: Arc::new(surroundings),
            tasks,
            cancel,
        })
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what has changed so far.
    pub(super) fn version(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Connects all servers.
    pub(super) fn start(&self) {
        for entry in self.entries().iter_mut() {
            self.connect(entry);
        }
    }

    /// Ends all connections; each is closed by its task.
    pub(super) fn stop(&self) {
        self.cancel.cancel();
        self.surroundings.set_session(None);
    }

    /// Waits until no server is about to be connected.
    pub(super) async fn settled(&self) {
        self.until(|entries| !entries.iter().any(|entry| matches!(entry.state, State::Pending))).await;
    }

    /// Waits until one server is not about to be connected.
    pub(super) async fn settled_one(&self, name: &str) {
        let pending = |entry: &Entry| entry.server.name == name && matches!(entry.state, State::Pending);
        self.until(|entries| !entries.iter().any(pending)).await;
    }

    async fn until(&self, is_so: impl Fn(&[Entry]) -> bool) {
        let mut changes = self.changes.subscribe();
        while !is_so(&self.entries()) {
            // It can only fail with the registry itself.
            let _ = changes.changed().await;
        }
    }

    /// Begins a connection in place of what there is.
    pub(super) fn connect(&self, entry: &mut Entry) {
        self.drop_connection(entry, State::Pending);
        let Some(registry) = self.itself.upgrade().filter(|_| !self.cancel.is_cancelled()) else {
            entry.state = State::Failed("the session is over".to_owned());
            return;
        };
        let (sender, inbound) = mpsc::channel(INBOUND);
        entry.inbound = Some(sender);
        let keeper = Keeper { server: entry.server.clone(), epoch: entry.epoch, stop: entry.stop.clone() };
        self.tasks.spawn(keeper.keep(registry, inbound));
        self.changed();
    }

    /// Ends the connection of a server.
    pub(super) fn drop_connection(&self, entry: &mut Entry, state: State) {
        entry.stop.cancel();
        entry.stop = self.cancel.child_token();
        entry.epoch += 1;
        entry.inbound = None;
        entry.state = state;
        self.changed();
    }

    /// Adds a server and connects it.
    pub(super) fn add(&self, server: McpServer) {
        let mut entry = Entry::new(server, true);
        self.connect(&mut entry);
        self.entries().push(entry);
    }

    /// Takes servers away.
    pub(super) fn remove(&self, names: &[String]) {
        let mut entries = self.entries();
        for entry in entries.iter_mut().filter(|entry| names.contains(&entry.server.name)) {
            self.drop_connection(entry, State::Disabled);
        }
        entries.retain(|entry| !names.contains(&entry.server.name));
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// The connection to a server, made again once where it was lost.
    pub(super) async fn connection(&self, name: &str) -> Result<Arc<Connection>, String> {
        let unknown = || format!("there is no server {name:?}");
        let again = {
            let mut entries = self.entries();
            let entry = entries.iter_mut().find(|entry| entry.server.name == name).ok_or_else(unknown)?;
            match &entry.state {
                State::Connected(connection) if !connection.is_closed() => return Ok(Arc::clone(connection)),
                State::Connected(_) | State::Lost(_) => {
                    self.connect(entry);
                    true
                }
                State::Pending => true,
                State::Failed(_) | State::NeedsAuth | State::Disabled => false,
            }
        };
        if again {
            self.settled_one(name).await;
        }
        let entries = self.entries();
        let entry = entries.iter().find(|entry| entry.server.name == name).ok_or_else(unknown)?;
        match &entry.state {
            State::Connected(connection) => Ok(Arc::clone(connection)),
            state => Err(state.failure().unwrap_or("it is about to be connected").to_owned()),
        }
    }

    /// Passes on what one of the host's servers says by itself.
    pub(super) fn deliver(&self, name: &str, message: Value) -> Result<(), String> {
        let entries = self.entries();
        let entry = entries.iter().find(|entry| entry.server.name == name);
        let host = entry.filter(|entry| matches!(entry.server.transport, McpTransport::Host { .. }));
        let inbound = host.and_then(|entry| entry.inbound.as_ref());
        let inbound = inbound.ok_or_else(|| format!("Server not found: {name}"))?;
        inbound.try_send(message).map_err(|_| format!("the server {name:?} says more than can be heard"))
    }

    /// Changes what is known of a server, if the connection still holds that knows it.
    fn learn(&self, keeper: &Keeper, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries();
        let entry = entries.iter_mut().find(|entry| entry.server.name == keeper.server.name);
        if let Some(entry) = entry.filter(|entry| entry.epoch == keeper.epoch) {
            change(entry);
            drop(entries);
            self.changed();
        }
    }
}

/// Keeps one connection from its beginning to its end.
struct Keeper {
    server: McpServer,
    epoch: u64,
    stop: CancellationToken,
}

impl Keeper {
    async fn keep(self, registry: Arc<Registry>, inbound: mpsc::Receiver<Value>) {
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        let changed = Arc::new(Notify::new());
        let beginning = self.begin(&registry, inbound, Arc::clone(&changed), &over);
        let begun = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            begun = timeout(self.server.connect_timeout, beginning) => begun,
        };
        let late = || format!("it did not answer within {} s", self.server.connect_timeout.as_secs_f64());
        let (opened, connection, tools) = match begun.unwrap_or_else(|_| Err(Failure::Failed(late()))) {
            Ok(begun) => begun,
            Err(failure) => return self.failed(&registry, failure),
        };
        let about = connection.about();
        tracing::info!(
            server = %self.server.name, transport = self.server.transport.kind(), tools = tools.len(),
            "a tool server is connected"
        );
        registry.learn(&self, |entry| {
            entry.about = about;
            entry.tools = tools;
            entry.state = State::Connected(Arc::clone(&connection));
        });
        let was_stopped = tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = opened.closed.cancelled() => false,
            () = self.relist(&registry, &connection, &changed) => false,
        };
        let reason = close(opened).await;
        if !was_stopped {
            tracing::warn!(server = %self.server.name, %reason, "a tool server was lost");
            registry.learn(&self, |entry| entry.state = State::Lost(reason));
        }
    }

    fn failed(&self, registry: &Registry, failure: Failure) {
        let state = match failure {
            Failure::NeedsAuth => State::NeedsAuth,
            Failure::Failed(text) => State::Failed(text),
        };
        let reason = state.failure().unwrap_or_default();
        tracing::warn!(server = %self.server.name, %reason, "a tool server cannot be used");
        registry.learn(self, |entry| {
            entry.tools.clear();
            entry.state = state;
        });
    }

    async fn begin(
        &self,
        registry: &Arc<Registry>,
        inbound: mpsc::Receiver<Value>,
        changed: Arc<Notify>,
        over: &CancellationToken,
    ) -> Result<(Opened, Arc<Connection>, Vec<Arc<McpTool>>), Failure> {
        let ears = Ears {
            server: self.server.name.clone(),
            is_host: self.server.transport.is_host(),
            surroundings: Arc::clone(&registry.surroundings),
            changed,
        };
        let listen = |words: super::stdio::LastWords, stderr| {
            let over = over.clone();
            registry.tasks.spawn(async move {
                tokio::select! {
                    () = words.listen(stderr) => (),
                    () = over.cancelled() => (),
                }
            });
        };
        let opened = open(&self.server, ears, inbound, listen, self.stop.child_token()).await?;
        let connection = Arc::new(Connection::new(&opened.running, &self.server));
        let tools = self.list(registry, &connection).await.map_err(Failure::Failed)?;
        Ok((opened, connection, tools))
    }

    async fn list(&self, registry: &Registry, connection: &Connection) -> Result<Vec<Arc<McpTool>>, String> {
        if !connection.about().has_tools {
            return Ok(Vec::new());
        }
        let listed = connection.tools(MAX_TOOLS).await?;
        let read = |tool| McpTool::read(&registry.itself, &self.server, tool).map(Arc::new);
        Ok(listed.iter().filter_map(read).collect())
    }

    /// Lists the tools again whenever the server says that they are others; ends when it does not answer.
    async fn relist(&self, registry: &Registry, connection: &Connection, changed: &Notify) {
        loop {
            changed.notified().await;
            match timeout(self.server.connect_timeout, self.list(registry, connection)).await {
                Ok(Ok(tools)) => registry.learn(self, |entry| entry.tools = tools),
                Ok(Err(error)) => {
                    tracing::warn!(server = %self.server.name, %error, "a list of tools is not to be had");
                }
                Err(_) => return,
            }
            tokio::time::sleep(RELIST_PAUSE).await;
        }
    }
}

/// Closes a connection, ends the program, and says how it ended.
async fn close(opened: Opened) -> String {
    let _ = timeout(CLOSE_PATIENCE, opened.running.cancel()).await;
    let mut reason = "the connection closed".to_owned();
    if let Some(mut program) = opened.program {
        program.ended().await;
        if let Some(epitaph) = program.epitaph() {
            reason = format!("{reason}; {epitaph}");
        }
        program.end().await;
    }
    reason
}

/// What is told to a host of a server.
pub(super) fn status(entry: &Entry) -> Value {
    let server = &entry.server;
    let mut row = json!({
        "name": server.name,
        "status": entry.state.as_str(),
        "config": config(server),
        "transport": server.transport.kind(),
        "scope": server.source.as_str(),
        "source": server.source.as_str(),
    });
    if let Some(failure) = entry.state.failure().filter(|_| entry.state.as_str() == "failed") {
        row["error"] = failure.into();
    }
    if matches!(entry.state, State::Connected(_)) {
        if !entry.about.info.is_null() {
            row["serverInfo"] = entry.about.info.clone();
        }
        row["tools"] = entry.tools.iter().map(|tool| tool.status()).collect();
    }
    row
}

/// A server's configuration without environment and headers, which hold keys.
fn config(server: &McpServer) -> Value {
    match &server.transport {
        McpTransport::Stdio { command, args, env: _ } => {
            json!({"type": "stdio", "command": command, "args": args})
        }
        McpTransport::Http { url, headers: _ } => json!({"type": "http", "url": url}),
        McpTransport::Sse { url, headers: _ } => json!({"type": "sse", "url": url}),
        McpTransport::Host { .. } => json!({"type": "sdk", "name": server.name}),
    }
}
