//! Tools of MCP servers that somebody else runs: JSON-RPC messages go where a closure takes them.
//!
//! source: the agent protocol reference, section 2.5, and the Model Context Protocol, 2025-11-25.

mod content;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::tool::{Tool, ToolContext, ToolOutput};
use crate::words;

/// The version of the Model Context Protocol that is spoken.
pub const PROTOCOL: &str = "2025-11-25";
/// The most tools of one server: many times what a model tells apart.
const MAX_TOOLS: usize = 1024;
/// The most pages of one list of tools.
const MAX_PAGES: usize = 64;
/// The longest name of a tool. source: the Messages API.
const MAX_NAME: usize = 128;
/// What is told to the model of one tool at the most, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 16 * 1024;
/// How long a handshake may take. source: the protocol reference, section 1.9 (`MCP_TIMEOUT`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The most characters of a result that the model gets, unless set: 25,000 tokens of some 4 characters.
/// source: the protocol reference, section 1.9 (`MAX_MCP_OUTPUT_TOKENS`).
pub const MAX_OUTPUT_CHARS: usize = 100_000;
/// The largest input schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 256 * 1024;

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
        }
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

/// What became of a server.
pub(crate) struct Connected {
    pub(crate) name: String,
    /// Why it has no tools, if it failed.
    pub(crate) failure: Option<String>,
    pub(crate) tools: Vec<Arc<dyn Tool>>,
}

/// Asks all servers for their tools, side by side.
pub(crate) async fn connect(servers: Vec<McpServer>) -> Vec<Connected> {
    join_all(servers.into_iter().map(McpServer::connect)).await
}

impl McpServer {
    async fn connect(self) -> Connected {
        let patience = self.connect_timeout;
        let name = self.name.clone();
        let McpTransport::Host { host, manifest } = self.transport else {
            let failure = format!("the transport '{}' is not supported yet", self.transport.kind());
            return Connected { name, failure: Some(failure), tools: Vec::new() };
        };
        let server = Arc::new(Server {
            name: self.name,
            transport: host,
            last_id: AtomicU64::new(0),
            call_timeout: self.call_timeout,
        });
        let listed = match timeout(patience, server.list(manifest)).await {
            Ok(listed) => listed,
            Err(_) => Err(format!("it did not answer within {} s", patience.as_secs())),
        };
        match listed {
            Ok(tools) => Connected { name, failure: None, tools },
            Err(failure) => {
                tracing::warn!(server = %name, %failure, "a server of tools cannot be used");
                Connected { name, failure: Some(failure), tools: Vec::new() }
            }
        }
    }
}

struct Server {
    name: String,
    transport: McpHost,
    last_id: AtomicU64,
    call_timeout: Option<Duration>,
}

impl Server {
    async fn list(self: &Arc<Self>, manifest: Option<McpManifest>) -> Result<Vec<Arc<dyn Tool>>, String> {
        let known = manifest.filter(|manifest| manifest.initialize["protocolVersion"] == PROTOCOL);
        let (about, mut first) = match known {
            Some(manifest) => (manifest.initialize, manifest.tools),
            None => (self.shake_hands().await?, None),
        };
        if about["capabilities"].get("tools").is_none_or(Value::is_null) {
            return Ok(Vec::new());
        }
        let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let page = match first.take() {
                Some(page) => page,
                None => {
                    let parameters =
                        cursor.take().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
                    self.request("tools/list", parameters).await?
                }
            };
            let listed = page["tools"].as_array().ok_or("its list of tools is none")?;
            tools.extend(
                listed
                    .iter()
                    .filter_map(|tool| McpTool::read(self, tool))
                    .map(|tool| -> Arc<dyn Tool> { Arc::new(tool) }),
            );
            cursor = page.get("nextCursor").filter(|cursor| cursor.is_string()).cloned();
            if cursor.is_none() || tools.len() >= MAX_TOOLS {
                break;
            }
        }
        tools.truncate(MAX_TOOLS);
        Ok(tools)
    }

    async fn shake_hands(&self) -> Result<Value, String> {
        let parameters = json!({
            "protocolVersion": PROTOCOL,
            "capabilities": {},
            "clientInfo": {"name": "wardian-agent", "version": env!("CARGO_PKG_VERSION")},
        });
        let about = self.request("initialize", parameters).await?;
        if !about.is_object() {
            return Err("its answer to initialize makes no sense".to_owned());
        }
        let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        (self.transport)(done).await?;
        Ok(about)
    }

    async fn request(&self, method: &str, parameters: Value) -> Result<Value, String> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        self.ask(id, method, parameters).await
    }

    async fn ask(&self, id: u64, method: &str, parameters: Value) -> Result<Value, String> {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters});
        let mut answer = (self.transport)(message).await?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            let text = error["message"].as_str().unwrap_or("it gave no reason");
            return Err(text.chars().take(2_000).collect());
        }
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err("its answer makes no sense".to_owned()),
        }
    }
}

struct McpTool {
    server: Arc<Server>,
    /// What the model calls it.
    name: String,
    /// What the server calls it.
    own_name: String,
    description: String,
    schema: Value,
    is_read_only: bool,
}

impl McpTool {
    /// Reads an entry of a list; one that cannot be offered is left out.
    fn read(server: &Arc<Server>, tool: &Value) -> Option<Self> {
        let own_name = tool["name"].as_str()?.to_owned();
        let name = tool_name(&server.name, &own_name);
        let schema = match &tool["inputSchema"] {
            Value::Object(schema) => {
                let mut schema = schema.clone();
                // The API takes no other.
                schema.insert("type".to_owned(), "object".into());
                Value::Object(schema)
            }
            _ => json!({"type": "object"}),
        };
        if own_name.is_empty() || name.len() > MAX_NAME || schema.to_string().len() > MAX_SCHEMA_BYTES {
            tracing::warn!(server = %server.name, tool = %name, "a tool cannot be offered: its name or schema is too long");
            return None;
        }
        let mut description = tool["description"].as_str().unwrap_or_default().to_owned();
        description.truncate(description.floor_char_boundary(MAX_DESCRIPTION_BYTES));
        let is_read_only = tool["annotations"]["readOnlyHint"] == true;
        Some(Self { server: Arc::clone(server), name, own_name, description, schema, is_read_only })
    }

    async fn run(&self, input: Value, context: &ToolContext) -> ToolOutput {
        let id = self.server.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let parameters = json!({
            "name": self.own_name,
            "arguments": input,
            "_meta": {"claudecode/toolUseId": context.tool_use_id, "progressToken": id},
        });
        let answer = self.server.ask(id, "tools/call", parameters);
        let late = async {
            match self.server.call_timeout {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => ToolOutput::error(words::STOPPED),
            answer = answer => match answer {
                Ok(result) => content::output(result),
                Err(error) => ToolOutput::error(words::server_failed(&self.server.name, &error)),
            },
            () = late => ToolOutput::error(words::server_late(&self.server.name, self.server.call_timeout)),
        }
    }
}

impl Tool for McpTool {
    fn name(&self) -> &str {
        &self.name
    }
    fn description(&self) -> &str {
        &self.description
    }
    fn input_schema(&self) -> Value {
        self.schema.clone()
    }
    fn is_read_only(&self) -> bool {
        self.is_read_only
    }
    fn runs_alongside(&self) -> bool {
        true
    }
    fn is_repeatable(&self) -> bool {
        true
    }
    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(self.run(input, context))
    }
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
