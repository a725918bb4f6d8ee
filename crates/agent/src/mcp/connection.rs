//! A connection to one server: the handshake, what it offers, calls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest, ClientResult,
    CustomResult, ElicitationCapability, ErrorCode, ErrorData, FormElicitationCapability, Implementation,
    ListResourcesRequest, ListToolsRequest, PaginatedRequestParams, ProtocolVersion, ReadResourceRequest,
    ReadResourceRequestParams, RequestMetaObject, RootsCapabilities, ServerNotification, ServerRequest,
    UrlElicitationCapability,
};
use rmcp::service::{
    ClientInitializeError, NotificationContext, Peer, PeerRequestOptions, RequestContext, RunningService,
    Service, ServiceError,
};
use rmcp::transport::Transport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
};
use serde_json::{Map, Value, json};
use tokio::process::ChildStderr;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::host::HostTransport;
use super::secrets::Secrets;
use super::sse::{NoStream, SseTransport};
use super::stdio::{LastWords, Launch, Program};
use super::web::Web;
use super::wire::{Limited, MAX_MESSAGE_BYTES, raw};
use super::{Elicitation, Elicited, McpServer, McpTransport, OnElicitation, PROTOCOL};
use crate::Options;
use crate::frames::Out;
use crate::hook::{HookEvent, HookOutcome, SessionHooks};
use crate::proxy::Proxies;

/// The most pages of one list.
const MAX_PAGES: usize = 64;
/// How long a server is told that a call of it is off.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);
/// How often a stream that broke off is taken up again, and how soon, each time twice as late: some six seconds together.
const RECONNECTS: usize = 5;
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
/// The longest text, and the largest form, that a server may put to the user.
const MAX_QUESTION_BYTES: usize = 64 * 1024;

/// What connections share.
pub(super) struct Surroundings {
    /// The environment of programs; a server's own goes on top.
    pub(super) env: Arc<Vec<(String, String)>>,
    /// What starts programs in their place, so that they die with us.
    pub(super) launcher: Vec<String>,
    pub(super) on_elicitation: Option<OnElicitation>,
    /// The ways to servers at an address.
    proxies: Proxies,
    /// The most characters of a result that the model gets.
    pub(super) max_output_chars: usize,
    /// The session, while it is up.
    session: Mutex<Option<Listener>>,
}

/// What a session hears of its servers by.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) out: Out,
    pub(crate) hooks: SessionHooks,
}

impl Surroundings {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            env: Arc::new(options.env.clone()),
            launcher: options.mcp_launcher.clone(),
            on_elicitation: options.on_elicitation.clone(),
            proxies: Proxies::new(options),
            max_output_chars: options.max_mcp_output_chars,
            session: Mutex::new(None),
        }
    }

    /// Sets who hears of the servers; nobody, once the session is over, so that its messages end.
    pub(super) fn set_session(&self, session: Option<Listener>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    fn session(&self) -> Option<Listener> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where programs are started.
    fn cwd(&self) -> PathBuf {
        self.session().map_or_else(|| PathBuf::from("."), |session| session.out.cwd)
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// The server wants to know who asks.
    NeedsAuth,
    Failed(String),
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer<RoleClient>,
    secrets: Secrets,
}

/// What a connection is held by.
pub(super) struct Opened {
    pub(super) running: RunningService<RoleClient, Ears>,
    /// Fires when the server says nothing more.
    pub(super) closed: CancellationToken,
    pub(super) program: Option<Program>,
}

/// Connects to a server. `stderr` takes what a program writes there.
pub(super) async fn open(
    server: &McpServer,
    ears: Ears,
    inbound: mpsc::Receiver<Value>,
    stderr: impl FnOnce(LastWords, ChildStderr),
    stop: CancellationToken,
) -> Result<Opened, Failure> {
    let secrets = Secrets::of(&server.transport);
    let opened = connect(server, ears, inbound, stderr, stop).await;
    opened.map_err(|failure| match failure {
        Failure::NeedsAuth => failure,
        Failure::Failed(text) => Failure::Failed(secrets.hidden(text)),
    })
}

async fn connect(
    server: &McpServer,
    ears: Ears,
    inbound: mpsc::Receiver<Value>,
    stderr: impl FnOnce(LastWords, ChildStderr),
    stop: CancellationToken,
) -> Result<Opened, Failure> {
    let surroundings = Arc::clone(&ears.surroundings);
    let closed = CancellationToken::new();
    let served = Served { ears, closed: closed.clone(), stop };
    let opened = |running, program| Opened { running, closed, program };
    match &server.transport {
        McpTransport::Host { host, manifest } => {
            let transport = HostTransport::new(Arc::clone(host), manifest.clone(), inbound);
            Ok(opened(served.over(transport).await?, None))
        }
        McpTransport::Stdio { command, args, env } => {
            let mut all = surroundings.env.as_ref().clone();
            all.extend(env.iter().cloned());
            let launch = Launch {
                command,
                args,
                env: &all,
                cwd: &surroundings.cwd(),
                launcher: &surroundings.launcher,
            };
            let started = Program::start(&launch);
            let (program, transport, errors) = started
                .map_err(|error| Failure::Failed(format!("it cannot be started: {command}: {error}")))?;
            stderr(program.last_words(), errors);
            match served.over(transport).await {
                Ok(running) => Ok(opened(running, Some(program))),
                Err(failure) => Err(program.explain(failure).await),
            }
        }
        McpTransport::Http { url, headers } => {
            let web = Web::new(url, headers, &surroundings.proxies).map_err(Failure::Failed)?;
            let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
            let mut reconnects = ExponentialBackoff::default();
            (reconnects.max_times, reconnects.base_duration) = (Some(RECONNECTS), RECONNECT_AFTER);
            config.retry_config = Arc::new(reconnects);
            let config =
                config.max_sse_event_size(MAX_MESSAGE_BYTES).max_json_response_size(MAX_MESSAGE_BYTES);
            let transport = StreamableHttpClientTransport::with_client(web, config);
            Ok(opened(served.over(transport).await?, None))
        }
        McpTransport::Sse { url, headers } => {
            let web = Web::new(url, headers, &surroundings.proxies).map_err(Failure::Failed)?;
            let transport = SseTransport::open(web).await.map_err(|failure| match failure {
                NoStream::Unauthorized => Failure::NeedsAuth,
                NoStream::Failed(text) => Failure::Failed(text),
            })?;
            Ok(opened(served.over(transport).await?, None))
        }
    }
}

impl Program {
    /// Puts what a program said at its end to why it cannot be used.
    async fn explain(mut self, failure: Failure) -> Failure {
        let told = match &failure {
            Failure::Failed(text) => text.clone(),
            Failure::NeedsAuth => return failure,
        };
        self.ended().await;
        match self.epitaph() {
            Some(epitaph) => Failure::Failed(format!("{told}; {epitaph}")),
            None => failure,
        }
    }
}

/// Our end of a connection.
struct Served {
    ears: Ears,
    closed: CancellationToken,
    stop: CancellationToken,
}

impl Served {
    async fn over<T: Transport<RoleClient> + 'static>(
        self,
        transport: T,
    ) -> Result<RunningService<RoleClient, Ears>, Failure> {
        let transport = Limited::new(transport, self.closed);
        let served = rmcp::service::serve_client_with_ct(self.ears, transport, self.stop);
        served.await.map_err(unserved)
    }
}

fn unserved(error: ClientInitializeError) -> Failure {
    match error {
        error if error.is_authorization_required() => Failure::NeedsAuth,
        ClientInitializeError::JsonRpcError(data) => Failure::Failed(data.message.into_owned()),
        ClientInitializeError::ConnectionClosed(_) => Failure::Failed("the connection closed".to_owned()),
        ClientInitializeError::TransportError { error, .. } => Failure::Failed(innermost(&error)),
        _ => Failure::Failed("its answer to initialize makes no sense".to_owned()),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) info: Value,
    pub(super) instructions: Option<String>,
    pub(super) has_tools: bool,
    pub(super) has_resources: bool,
}

impl Connection {
    pub(super) fn new(running: &RunningService<RoleClient, Ears>, server: &McpServer) -> Self {
        Self { peer: running.peer().clone(), secrets: Secrets::of(&server.transport) }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.peer.is_transport_closed()
    }

    pub(super) fn about(&self) -> About {
        let Some(peer) = self.peer.peer_info() else { return About::default() };
        About {
            info: peer.server_info.as_ref().map(|info| json!(info)).unwrap_or_default(),
            instructions: peer.instructions.clone().filter(|text| !text.trim().is_empty()),
            has_tools: peer.capabilities.tools.is_some(),
            has_resources: peer.capabilities.resources.is_some(),
        }
    }

    /// All tools, as the server describes them, up to a number.
    pub(super) async fn tools(&self, most: usize) -> Result<Vec<Value>, String> {
        self.list("tools", most, |params| {
            ClientRequest::ListToolsRequest(ListToolsRequest { params, ..ListToolsRequest::default() })
        })
        .await
    }

    /// All resources, as the server describes them, up to a number.
    pub(super) async fn resources(&self, most: usize) -> Result<Vec<Value>, String> {
        self.list("resources", most, |params| {
            ClientRequest::ListResourcesRequest(ListResourcesRequest {
                params,
                ..ListResourcesRequest::default()
            })
        })
        .await
    }

    async fn list(
        &self,
        what: &str,
        most: usize,
        request: impl Fn(Option<PaginatedRequestParams>) -> ClientRequest,
    ) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let params =
                cursor.take().map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
            let mut page = self.ask(request(params), None, &CancellationToken::new()).await?;
            let Some(Value::Array(items)) = page.get_mut(what).map(Value::take) else {
                return Err(format!("its list of {what} is none"));
            };
            all.extend(items);
            cursor = page["nextCursor"].as_str().map(str::to_owned);
            if cursor.is_none() || all.len() >= most {
                break;
            }
        }
        all.truncate(most);
        Ok(all)
    }

    /// Reads a resource: the result as it is.
    pub(super) async fn read(&self, uri: &str, stop: &CancellationToken) -> Result<Value, String> {
        let request = ReadResourceRequest::new(ReadResourceRequestParams::new(uri));
        self.ask(ClientRequest::ReadResourceRequest(request), None, stop).await
    }

    /// Calls a tool: the result as it is.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: Value,
        tool_use_id: Option<&str>,
        stop: &CancellationToken,
    ) -> Result<Value, String> {
        let mut params = CallToolRequestParams::new(tool.to_owned());
        params.arguments = match arguments {
            Value::Object(arguments) => Some(arguments),
            _ => Some(Map::new()),
        };
        let meta = tool_use_id.map(|id| {
            let mut meta = RequestMetaObject::default();
            meta.insert("claudecode/toolUseId".to_owned(), id.into());
            meta
        });
        self.ask(ClientRequest::CallToolRequest(CallToolRequest::new(params)), meta, stop).await
    }

    /// Asks; when `stop` fires the server is told that nobody waits.
    async fn ask(
        &self,
        request: ClientRequest,
        meta: Option<RequestMetaObject>,
        stop: &CancellationToken,
    ) -> Result<Value, String> {
        let mut options = PeerRequestOptions::no_options();
        options.meta = meta;
        let asked = self.peer.send_cancellable_request(request, options).await;
        let told = |error| self.secrets.hidden(reason(&error));
        let mut asked = asked.map_err(told)?;
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                let _ = timeout(CANCEL_PATIENCE, asked.cancel(None)).await;
                Err("nobody waits for it any more".to_owned())
            }
            answer = &mut asked.rx => match answer {
                Ok(Ok(result)) => Ok(raw(result)),
                Ok(Err(error)) => Err(told(error)),
                Err(_) => Err(CLOSED.to_owned()),
            },
        }
    }
}

const CLOSED: &str = "the connection closed";

fn reason(error: &ServiceError) -> String {
    match error {
        ServiceError::McpError(data) => data.message.to_string(),
        ServiceError::TransportClosed => CLOSED.to_owned(),
        ServiceError::TransportSend(error) => innermost(error),
        error => error.to_string(),
    }
}

/// Hears what a server asks and tells.
pub(super) struct Ears {
    pub(super) server: String,
    /// The host's own servers hear of nothing that we can do for them: their host can.
    pub(super) is_host: bool,
    pub(super) surroundings: Arc<Surroundings>,
    /// Its list of tools is another.
    pub(super) changed: Arc<Notify>,
}

impl Service<RoleClient> for Ears {
    async fn handle_request(
        &self,
        request: ServerRequest,
        context: RequestContext<RoleClient>,
    ) -> Result<ClientResult, ErrorData> {
        let asked = serde_json::to_value(request).unwrap_or_default();
        let result = match asked["method"].as_str().unwrap_or_default() {
            "ping" => json!({}),
            "roots/list" if !self.is_host => roots(&self.surroundings.cwd()),
            "elicitation/create" if !self.is_host => {
                tokio::select! {
                    biased;
                    () = context.ct.cancelled() => elicited(Elicited::Cancel),
                    answer = self.elicit(&asked["params"]) => elicited(answer),
                }
            }
            method => {
                let text = format!("{method} is not supported");
                return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, text, None));
            }
        };
        Ok(ClientResult::CustomResult(CustomResult(result)))
    }

    async fn handle_notification(
        &self,
        notification: ServerNotification,
        _: NotificationContext<RoleClient>,
    ) -> Result<(), ErrorData> {
        let said = serde_json::to_value(notification).unwrap_or_default();
        match said["method"].as_str().unwrap_or_default() {
            "notifications/tools/list_changed" => self.changed.notify_one(),
            "notifications/elicitation/complete" => {
                if let (Some(session), Some(id)) =
                    (self.surroundings.session(), said["params"]["elicitationId"].as_str())
                {
                    let id: String = id.chars().take(200).collect();
                    let fields = json!({"mcp_server_name": self.server, "elicitation_id": id});
                    session.out.system("elicitation_complete", fields).await;
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        if !self.is_host {
            let mut elicitation = ElicitationCapability::new();
            elicitation.form = Some(FormElicitationCapability::new());
            elicitation.url = Some(UrlElicitationCapability::new());
            capabilities.elicitation = Some(elicitation);
            capabilities.roots = Some(RootsCapabilities::default());
        }
        let ourselves = Implementation::new("wardian-agent", env!("CARGO_PKG_VERSION"));
        let version = serde_json::from_value::<ProtocolVersion>(PROTOCOL.into()).unwrap_or_default();
        ClientConfig::new(capabilities, ourselves).with_protocol_version(version)
    }
}

impl Ears {
    /// Puts a server's question to the user; one that is too large to be put is declined.
    async fn elicit(&self, asked: &Value) -> Elicited {
        if asked.to_string().len() > MAX_QUESTION_BYTES {
            tracing::warn!(server = %self.server, "a server's question is too long to be put");
            return Elicited::Decline;
        }
        let text = |name: &str| asked[name].as_str().map(str::to_owned);
        let question = Elicitation {
            server: self.server.clone(),
            message: text("message").unwrap_or_default(),
            requested_schema: asked.get("requestedSchema").filter(|schema| schema.is_object()).cloned(),
            url: text("url"),
            elicitation_id: text("elicitationId"),
        };
        let hooks = self.surroundings.session().map(|session| session.hooks);
        let Some(hooks) = hooks else { return Elicited::Cancel };
        let answered = hooks.run(HookEvent::Elicitation, &self.server, question_fields(&question)).await;
        let answer = match (said_by(&answered), &self.surroundings.on_elicitation) {
            (Some(answer), _) => answer,
            (None, Some(ask)) => ask(question.clone()).await,
            (None, None) => Elicited::Decline,
        };
        let fields = answer_fields(&question, &answer);
        let corrected = hooks.run(HookEvent::ElicitationResult, &self.server, fields).await;
        said_by(&corrected).unwrap_or(answer)
    }
}

/// What hooks answer in the user's place.
fn said_by(outcome: &HookOutcome) -> Option<Elicited> {
    if outcome.block.is_some() {
        return Some(Elicited::Decline);
    }
    let action = outcome.last(|said| said.action.clone())?;
    Some(match action.as_str() {
        "accept" => Elicited::Accept(outcome.last(|said| said.content.clone())),
        "cancel" => Elicited::Cancel,
        _ => Elicited::Decline,
    })
}

fn question_fields(question: &Elicitation) -> Value {
    let mut fields = json!({
        "mcp_server_name": question.server,
        "message": question.message,
        "mode": question.mode(),
    });
    let more = [
        ("url", question.url.clone().map(Value::String)),
        ("elicitation_id", question.elicitation_id.clone().map(Value::String)),
        ("requested_schema", question.requested_schema.clone()),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            fields[name] = value;
        }
    }
    fields
}

fn answer_fields(question: &Elicitation, answer: &Elicited) -> Value {
    let mut fields = elicited(answer.clone());
    fields["mcp_server_name"] = question.server.clone().into();
    fields["mode"] = question.mode().into();
    if let Some(id) = &question.elicitation_id {
        fields["elicitation_id"] = id.clone().into();
    }
    fields
}

fn elicited(answer: Elicited) -> Value {
    match answer {
        Elicited::Accept(Some(content)) => json!({"action": "accept", "content": content}),
        Elicited::Accept(None) => json!({"action": "accept"}),
        Elicited::Decline => json!({"action": "decline"}),
        Elicited::Cancel => json!({"action": "cancel"}),
    }
}

fn roots(cwd: &Path) -> Value {
    let name = cwd.file_name().map(|name| name.to_string_lossy().into_owned());
    json!({"roots": [{"uri": file_uri(cwd), "name": name}]})
}

/// A path as a URI; what a URI does not take is written in hexadecimal.
fn file_uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte);
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if plain(byte) {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}
