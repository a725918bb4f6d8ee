//! Tools of MCP servers that somebody else runs: JSON-RPC messages go where a closure takes them.
//!
//! source: the agent protocol reference, section 2.5, and the Model Context Protocol, 2025-11-25.

mod connection;
mod content;
mod host;
mod registry;
mod secrets;
mod sse;
mod stdio;
mod tool;
mod web;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::connection::Listener;
use self::connection::Surroundings;
use self::registry::{Entry, MAX_SERVERS, Registry, State};
use self::tool::McpTool;
use crate::Options;
use crate::tool::Tool;

/// The version of the Model Context Protocol that is spoken.
pub const PROTOCOL: &str = "2025-11-25";
/// The most resources that are listed of one server.
const MAX_RESOURCES: usize = 1024;
/// How long a handshake may take. source: the protocol reference, section 1.9 (`MCP_TIMEOUT`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The most characters of a result that the model gets, unless set: 25,000 tokens of some 4 characters.
/// source: the protocol reference, section 1.9 (`MAX_MCP_OUTPUT_TOKENS`).
pub const MAX_OUTPUT_CHARS: usize = 100_000;

/// Takes a JSON-RPC message to a server in the host's own process and brings the answer, or says why there is none. When
/// nobody waits for the answer any more, its future is dropped.
pub type McpHost = Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// A server of tools. They are offered to the model as `mcp__<server>__<tool>`.
#[derive(Clone, Debug)]
pub struct McpServer {
    /// Its name, in the tools' names and in rules.
    pub name: String,
    /// The way to it.
    pub transport: McpTransport,
    /// Where its definition came from.
    pub source: McpSource,
    /// How long the handshake may take; then the server counts as failed.
    pub connect_timeout: Duration,
    /// How long a call may take; none: as long as it takes, for there may be people behind it.
    pub call_timeout: Option<Duration>,
    /// Whether the model has its tools from the start, though others are only found by ToolSearch.
    pub always_load: bool,
    /// Tools of it, by the server's names, that are asked about before each call whatever rules allow.
    pub ask: Vec<String>,
    /// Tools of it that are taken away.
    pub deny: Vec<String>,
}

impl McpServer {
    /// A server with nothing said about it but the way to it.
    #[must_use]
    pub fn new(name: impl Into<String>, transport: McpTransport) -> Self {
        let source = if transport.is_host() { McpSource::Sdk } else { McpSource::Dynamic };
        Self {
            name: name.into(),
            transport,
            source,
            connect_timeout: CONNECT_TIMEOUT,
            call_timeout: None,
            always_load: false,
            ask: Vec::new(),
            deny: Vec::new(),
        }
    }

    /// Whether this says of a server what the other says: then a connection stays. Two of the host's own of one name
    /// are the same.
    fn is_same(&self, other: &Self) -> bool {
        let same_way = match (&self.transport, &other.transport) {
            (McpTransport::Host { .. }, McpTransport::Host { .. }) => true,
            (
                McpTransport::Stdio { command, args, env },
                McpTransport::Stdio { command: other_command, args: other_args, env: other_env },
            ) => (command, args, env) == (other_command, other_args, other_env),
            (
                McpTransport::Http { url, headers },
                McpTransport::Http { url: other_url, headers: other_headers },
            )
            | (
                McpTransport::Sse { url, headers },
                McpTransport::Sse { url: other_url, headers: other_headers },
            ) => (url, headers) == (other_url, other_headers),
            (
                McpTransport::Host { .. }
                | McpTransport::Stdio { .. }
                | McpTransport::Http { .. }
                | McpTransport::Sse { .. },
                _,
            ) => false,
        };
        self.name == other.name && same_way
    }
}

/// The way to a server.
#[derive(Clone)]
pub enum McpTransport {
    /// A program that is started, and speaks on its standard input and output.
    Stdio {
        /// The program: a name for `PATH`, or a path.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Added to the environment of the tools' processes.
        env: Vec<(String, String)>,
    },
    /// Streamable HTTP.
    Http {
        /// `http://` or `https://`.
        url: String,
        /// Sent with each request.
        headers: Vec<(String, String)>,
    },
    /// HTTP with server-sent events, the older way.
    Sse {
        /// Where the stream is.
        url: String,
        /// Sent with each request.
        headers: Vec<(String, String)>,
    },
    /// In the host's own process.
    Host {
        /// Takes messages to it.
        host: McpHost,
        /// What it answered to `initialize` and `tools/list`, where its host has asked already.
        manifest: Option<McpManifest>,
    },
}

impl McpTransport {
    /// What configurations call it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Stdio { .. } => "stdio",
            Self::Http { .. } => "http",
            Self::Sse { .. } => "sse",
            Self::Host { .. } => "sdk",
        }
    }

    const fn is_host(&self) -> bool {
        matches!(self, Self::Host { .. })
    }
}

/// Shows names and addresses, and of environments and headers, which hold keys, only the names.
impl std::fmt::Debug for McpTransport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names =
            |pairs: &[(String, String)]| pairs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        match self {
            Self::Stdio { command, args, env } => formatter
                .debug_struct("Stdio")
                .field("command", command)
                .field("args", &args.len())
                .field("env", &names(env))
                .finish(),
            Self::Http { url, headers } => {
                formatter.debug_struct("Http").field("url", url).field("headers", &names(headers)).finish()
            }
            Self::Sse { url, headers } => {
                formatter.debug_struct("Sse").field("url", url).field("headers", &names(headers)).finish()
            }
            Self::Host { host: _, manifest } => {
                formatter.debug_struct("Host").field("manifest", &manifest.is_some()).finish_non_exhaustive()
            }
        }
    }
}

/// Where the definition of a server came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McpSource {
    /// The host runs it in its own process.
    Sdk,
    /// The host named it for this session.
    Dynamic,
    /// The project's `.mcp.json`.
    Project,
    /// The user's settings.
    User,
    /// The user's settings for this project.
    Local,
    /// The definition of a subagent.
    Agent,
    /// A plugin's.
    Plugin,
}

impl McpSource {
    /// What hosts are told. source: the types of the TypeScript SDK.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sdk => "sdk",
            Self::Dynamic => "dynamic",
            Self::Project => "project",
            Self::User => "user",
            Self::Local => "local",
            Self::Agent => "agent",
            Self::Plugin => "plugin",
        }
    }
}

/// A server that is left out because its configuration is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpConfigError {
    /// The server.
    pub name: String,
    /// `invalid_config` or `unknown_type`.
    pub kind: &'static str,
    /// What is wrong.
    pub message: String,
}

impl McpConfigError {
    /// As `system/init` has it.
    pub(crate) fn row(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "message": self.message})
    }
}

/// How the model comes by the tools of servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolSearch {
    /// It knows their names, and loads what it needs with ToolSearch.
    On,
    /// It has all of them from the start.
    #[default]
    Off,
    /// It searches once their definitions take more than this part of a model's context window, in percent.
    Auto(u8),
}

/// Where a server's tool comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpToolOrigin {
    /// The server's name.
    pub server: String,
    /// Where its definition came from: trust is keyed on this, not on the name.
    pub source: McpSource,
    /// What people call the tool.
    pub display_name: String,
}

/// What a server asks its user.
#[derive(Clone, Debug, PartialEq)]
pub struct Elicitation {
    /// The server.
    pub server: String,
    /// For the user.
    pub message: String,
    /// The schema of the form; none: the user is to open the URL.
    pub requested_schema: Option<Value>,
    /// What the user is to open.
    pub url: Option<String>,
    /// The server's own id for a question with a URL.
    pub elicitation_id: Option<String>,
}

impl Elicitation {
    /// `form` or `url`.
    #[must_use]
    pub const fn mode(&self) -> &'static str {
        if self.url.is_some() { "url" } else { "form" }
    }
}

/// What came of an [`Elicitation`].
#[derive(Clone, Debug, PartialEq)]
pub enum Elicited {
    /// The user agreed; with what the form holds.
    Accept(Option<Value>),
    /// The user said no.
    Decline,
    /// The user did neither.
    Cancel,
}

/// Asks the user for a server.
pub type OnElicitation = Arc<dyn Fn(Elicitation) -> BoxFuture<'static, Elicited> + Send + Sync>;

/// Results of a handshake.
#[derive(Clone, Debug, PartialEq)]
pub struct McpManifest {
    /// Of `initialize`.
    pub initialize: Value,
    /// Of the first `tools/list`.
    pub tools: Option<Value>,
}

/// The servers of a session: how they stand, and what may be asked of them beside the model. Made by
/// [`crate::query()`].
#[derive(Clone)]
pub struct Mcp(Arc<Registry>);

impl Mcp {
    /// The servers of these options, none of them connected.
    pub(crate) fn new(options: &mut Options, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        let surroundings = Surroundings::new(options);
        let servers = std::mem::take(&mut options.mcp_servers);
        Self(Registry::new(servers, surroundings, tasks, cancel))
    }

    /// Begins to connect, for a session.
    pub(crate) fn start(&self, session: Listener) {
        self.0.surroundings.set_session(Some(session));
        self.0.start();
    }

    /// Ends all connections when it is dropped.
    pub(crate) fn guard(&self) -> impl Drop + use<> {
        Guard(Self::clone(self))
    }

    /// Waits until no server is about to be connected.
    pub(crate) async fn settled(&self) {
        self.0.settled().await;
    }

    /// Counts the changes of servers and their tools.
    pub(crate) fn version(&self) -> u64 {
        self.0.version()
    }

    /// What the servers offer, by the servers' names, in their order.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        let offer = |entry: &Entry| Offer {
            server: entry.server.name.clone(),
            display_name: entry.about.info["title"]
                .as_str()
                .or(entry.about.info["name"].as_str())
                .unwrap_or(&entry.server.name)
                .to_owned(),
            source: entry.server.source,
            instructions: entry.about.instructions.clone(),
            has_resources: entry.about.has_resources,
            ask: entry.server.ask.clone(),
            deny: entry.server.deny.clone(),
            tools: entry.tools.iter().map(OfferedTool::of).collect(),
        };
        self.0.entries().iter().filter(|entry| !matches!(entry.state, State::Disabled)).map(offer).collect()
    }

    /// A row for each server, as `system/init` has it.
    pub(crate) fn init_rows(&self) -> Vec<Value> {
        let row = |entry: &Entry| {
            json!({
                "name": entry.server.name,
                "status": entry.state.as_str(),
                "source": entry.server.source.as_str(),
            })
        };
        self.0.entries().iter().map(row).collect()
    }

    /// How each server stands, in the shape of `mcp_status`.
    #[must_use]
    pub fn statuses(&self) -> Vec<Value> {
        self.0.entries().iter().map(registry::status).collect()
    }

    /// Connects a server again.
    ///
    /// # Errors
    /// A text: there is no such server, it is disabled, or it cannot be connected.
    pub async fn reconnect(&self, server: &str) -> Result<(), String> {
        self.begin(server, |state| match state {
            State::Disabled => Err(format!("the server {server:?} is disabled")),
            State::Pending | State::Connected(_) | State::Lost(_) | State::Failed(_) | State::NeedsAuth => {
                Ok(())
            }
        })?;
        self.0.settled_one(server).await;
        let entries = self.0.entries();
        let failure =
            entries.iter().find(|entry| entry.server.name == server).and_then(|entry| entry.state.failure());
        failure.map_or(Ok(()), |failure| Err(format!("the server {server:?} cannot be connected: {failure}")))
    }

    /// Takes a server out of use, or back into it.
    ///
    /// # Errors
    /// A text: there is no such server.
    pub async fn toggle(&self, server: &str, enabled: bool) -> Result<(), String> {
        if enabled {
            self.begin(server, |_| Ok(()))?;
            self.0.settled_one(server).await;
            return Ok(());
        }
        let mut entries = self.0.entries();
        let entry = entries.iter_mut().find(|entry| entry.server.name == server);
        self.0.drop_connection(entry.ok_or_else(|| unknown(server))?, State::Disabled);
        Ok(())
    }

    fn begin(&self, server: &str, may: impl FnOnce(&State) -> Result<(), String>) -> Result<(), String> {
        let mut entries = self.0.entries();
        let entry =
            entries.iter_mut().find(|entry| entry.server.name == server).ok_or_else(|| unknown(server))?;
        may(&entry.state)?;
        self.0.connect(entry);
        Ok(())
    }

    /// Puts these servers in the place of those that an earlier call named, and of the host's own. What stays as it
    /// was is left alone.
    pub async fn set_servers(&self, servers: Vec<McpServer>) -> McpChanges {
        let (kept, removed): (Vec<String>, Vec<String>) = {
            let entries = self.0.entries();
            let replaced = entries.iter().filter(|entry| {
                entry.added
                    || entry.server.transport.is_host()
                    || servers.iter().any(|server| server.name == entry.server.name)
            });
            let stays = |entry: &&Entry| servers.iter().any(|server| server.is_same(&entry.server));
            let (kept, removed): (Vec<_>, Vec<_>) = replaced.partition(stays);
            let names =
                |entries: Vec<&Entry>| entries.iter().map(|entry| entry.server.name.clone()).collect();
            (names(kept), names(removed))
        };
        self.0.remove(&removed);
        let mut changes = McpChanges { removed, ..McpChanges::default() };
        for server in servers {
            if kept.contains(&server.name) {
                continue;
            }
            if self.0.entries().len() >= MAX_SERVERS {
                changes.errors.push((server.name, format!("there are more than {MAX_SERVERS} servers")));
                continue;
            }
            changes.added.push(server.name.clone());
            self.0.add(server);
        }
        for name in &changes.added {
            self.0.settled_one(name).await;
            let entries = self.0.entries();
            let entry = entries.iter().find(|entry| entry.server.name == *name);
            if let Some(failure) = entry.and_then(|entry| entry.state.failure()) {
                changes.errors.push((name.clone(), failure.to_owned()));
            }
        }
        changes
    }

    /// Reads a resource of a server: the result of `resources/read`.
    ///
    /// # Errors
    /// A text: there is no such server, it cannot be reached, or it refuses.
    pub async fn read_resource(&self, server: &str, uri: &str) -> Result<Value, String> {
        self.read_resource_until(server, uri, &CancellationToken::new()).await
    }

    pub(crate) async fn read_resource_until(
        &self,
        server: &str,
        uri: &str,
        stop: &CancellationToken,
    ) -> Result<Value, String> {
        if self.0.entries().iter().all(|entry| entry.server.name != server) {
            return Err(unknown(server));
        }
        self.0.connection(server).await?.read(uri, stop).await
    }

    /// The servers that say that they have resources.
    pub(crate) fn with_resources(&self) -> Vec<String> {
        let entries = self.0.entries();
        let has = entries.iter().filter(|entry| entry.about.has_resources && entry.state.is_usable());
        has.map(|entry| entry.server.name.clone()).collect()
    }

    /// Whether there is such a server; else what the model is told.
    pub(crate) fn known(&self, server: &str) -> Result<(), String> {
        let entries = self.0.entries();
        if entries.iter().any(|entry| entry.server.name == server) {
            return Ok(());
        }
        let names: Vec<&str> = entries.iter().map(|entry| entry.server.name.as_str()).collect();
        let server: String = server.chars().take(80).collect();
        Err(format!("There is no server {server:?}. The servers are: {}.", names.join(", ")))
    }

    /// The resources of a server, as it describes them.
    pub(crate) async fn resources(&self, server: &str) -> Result<Vec<Value>, String> {
        self.0.connection(server).await?.resources(MAX_RESOURCES).await
    }

    /// Calls a tool, by the name that the model has for it, without asking anybody: the result of `tools/call`.
    ///
    /// # Errors
    /// A text: there is no such tool, it is the host's own, or its server cannot be reached or refuses.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Value, String> {
        let (server, own_name, is_host) = self.find(tool)?;
        if is_host {
            return Err(format!("the server {server:?} is the host's own: it is called there"));
        }
        self.call_of(&server, own_name, tool, arguments).await
    }

    /// The same for the tool of any server, also the host's own, once the server is connected.
    ///
    /// # Errors
    /// A text: there is no such tool, or the call failed.
    pub async fn ask(&self, tool: &str, arguments: Value) -> Result<Value, String> {
        let (server, ..) = self.find(tool)?;
        self.0.settled_one(&server).await;
        let (server, own_name, _) = self.find(tool)?;
        self.call_of(&server, own_name, tool, arguments).await
    }

    /// The server of a tool, what it calls the tool, if it has it, and whether it is the host's own.
    fn find(&self, tool: &str) -> Result<(String, Option<String>, bool), String> {
        let entries = self.0.entries();
        let holds = |entry: &&Entry| tool.starts_with(&format!("mcp__{}__", plain(&entry.server.name)));
        let named = tool.strip_prefix("mcp__").and_then(|rest| rest.split("__").next()).unwrap_or(tool);
        let entry = entries.iter().find(holds).ok_or_else(|| format!("MCP server not connected: {named}"))?;
        let own_name = entry.tools.iter().find(|known| known.name() == tool);
        let own_name = own_name.map(|known| known.own_name().to_owned());
        Ok((entry.server.name.clone(), own_name, entry.server.transport.is_host()))
    }

    async fn call_of(
        &self,
        server: &str,
        own_name: Option<String>,
        tool: &str,
        arguments: Value,
    ) -> Result<Value, String> {
        let connection = self.0.connection(server).await?;
        let own_name = own_name.ok_or_else(|| format!("the server {server:?} has no tool {tool:?}"))?;
        connection.call(&own_name, arguments, None, &CancellationToken::new()).await
    }

    /// Passes on what one of the host's own servers says by itself.
    ///
    /// # Errors
    /// A text: there is no such server, or it says more than can be heard.
    pub fn deliver(&self, server: &str, message: Value) -> Result<(), String> {
        self.0.deliver(server, message)
    }
}

impl std::fmt::Debug for Mcp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Mcp").field(&self.init_rows()).finish()
    }
}

struct Guard(Mcp);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.stop();
    }
}

/// What [`Mcp::set_servers`] changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct McpChanges {
    /// The servers that are new, by name.
    pub added: Vec<String>,
    /// The servers that are gone.
    pub removed: Vec<String>,
    /// The servers that cannot be used, and why.
    pub errors: Vec<(String, String)>,
}

/// What a server offers.
pub(crate) struct Offer {
    pub(crate) server: String,
    /// What people call it.
    pub(crate) display_name: String,
    pub(crate) source: McpSource,
    pub(crate) instructions: Option<String>,
    pub(crate) has_resources: bool,
    /// Tools that are asked about before each call, by the server's names.
    pub(crate) ask: Vec<String>,
    /// Tools that are taken away, by the server's names.
    pub(crate) deny: Vec<String>,
    pub(crate) tools: Vec<OfferedTool>,
}

/// A tool of a server.
pub(crate) struct OfferedTool {
    pub(crate) tool: Arc<dyn Tool>,
    pub(crate) own_name: String,
    pub(crate) title: Option<String>,
    /// Whether the model has it from the start.
    pub(crate) always_load: bool,
}

impl OfferedTool {
    fn of(tool: &Arc<McpTool>) -> Self {
        Self {
            own_name: tool.own_name().to_owned(),
            title: tool.title().map(str::to_owned),
            always_load: tool.always_load(),
            tool: Arc::clone(tool) as Arc<dyn Tool>,
        }
    }
}

/// Programs compare these words.
fn unknown(server: &str) -> String {
    format!("Server not found: {server}")
}

/// What a server's tool is called by the model, and in rules.
#[must_use]
pub fn tool_name(server: &str, tool: &str) -> String {
    format!("mcp__{}__{}", plain(server), plain(tool))
}

/// A name as the API takes it.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    name.chars().map(plain).collect()
}
