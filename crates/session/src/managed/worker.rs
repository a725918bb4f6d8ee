//! The agent of a managed session: its door, its sandbox, its process, and the pipes between.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::SpanContext;
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wardian_gateway::{Door, DoorSpec, Exchange, Grant};
use wardian_ledger::PriceTable;
use wardian_protocol::{HostFrame, NanoUsd, OrgId, RequestId, SessionId};
use wardian_sandbox::{Exec, Process, Sandbox, Stdio};

use super::{Definition, files};
use crate::drive::{CHUNK_BYTES, read_some, write_some};
use crate::engine::{Inner, describe};
use crate::launch;
use crate::metrics::Metrics;
use crate::tools::Tools;
use crate::translate::{self, Translator};

/// News of model requests that wait; then requests wait.
const EXCHANGES: usize = 64;
/// What waits to be written to the agent; over it, nothing more is read from it.
pub const MAX_OUTGOING_BYTES: usize = 4 * 1024 * 1024;
/// What is kept of the agent's standard error, for the text of an error.
const MAX_STDERR_BYTES: usize = 2000;
/// How long output is awaited from what an agent left behind when it exited.
const DRAIN: Duration = Duration::from_secs(1);
/// How long an agent gets to be gone once it was ended.
const END_GRACE: Duration = Duration::from_secs(5);

/// Whose agent it is.
pub struct Owner<'a> {
    pub org_id: &'a OrgId,
    pub session_id: &'a SessionId,
    pub user: Option<&'a str>,
}

/// A running agent.
pub struct Agent {
    sandbox: Option<Sandbox>,
    _counted: Counted,
    /// What the session had cost before.
    cost_before: NanoUsd,
    door: Option<Door>,
    process: Process,
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    chunk: Vec<u8>,
    errors: Vec<u8>,
    outgoing: Vec<u8>,
    exchanges: mpsc::Receiver<Exchange>,
    /// How it ended, and until when its output is awaited.
    exited: Option<(String, Instant)>,
    pub translator: Translator,
}

/// Why there is no agent.
#[derive(Debug)]
pub enum NotStarted {
    /// The session cannot have one as it is; trying again is no use.
    Refused(String),
    /// Something failed that may work the next time.
    Failed(String),
}

impl From<String> for NotStarted {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl From<files::Error> for NotStarted {
    fn from(error: files::Error) -> Self {
        match error {
            files::Error::Refused(_) => Self::Refused(error.to_string()),
            files::Error::Failed { .. } => Self::Failed(error.to_string()),
        }
    }
}

/// A sandbox that is counted as long as this is there.
struct Counted(Metrics);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sandbox_gone();
    }
}

/// What comes from an agent.
pub enum News {
    /// It wrote so many bytes; [`Agent::heard`] has them.
    Output(Vec<u8>),
    /// The gateway saw a model request begin or end.
    Exchange(Exchange),
    /// It is gone; the text says how.
    Ended(String),
    /// It took input, or wrote what nobody reads.
    Progress,
}

impl Agent {
    /// Makes a sandbox and starts the agent in it, with the orders of its first line.
    pub async fn start(
        engine: &Inner,
        owner: &Owner<'_>,
        definition: &Definition,
        tools: &Tools,
        money: Money,
        resume: Resume,
    ) -> Result<Self, NotStarted> {
        let started = Self::try_start(engine, owner, definition, tools, money, resume).await;
        if let Err(NotStarted::Failed(error)) = &started {
            tracing::error!(session_id = %owner.session_id, error, "an agent could not be started");
        }
        started
    }

    async fn try_start(
        engine: &Inner,
        owner: &Owner<'_>,
        definition: &Definition,
        tools: &Tools,
        money: Money,
        resume: Resume,
    ) -> Result<Self, NotStarted> {
        let id = RequestId::from_random(crate::random_bits());
        let folders = engine.folder.session(owner.session_id);
        let tenant = Some(launch::tenant_of(owner.org_id, owner.user, owner.session_id));
        for folder in [&folders.workspace, &folders.home] {
            let made = engine.launcher.make_volume(folder, tenant.as_deref());
            made.map_err(|error| format!("make the session's folders: {}", describe(&error)))?;
        }
        files::bring(engine, owner.org_id, owner.session_id, definition).await?;
        let (observer, exchanges) = mpsc::channel(EXCHANGES);
        let socket = engine.folder.door(&id);
        let grant = Grant {
            org_id: owner.org_id.clone(),
            user_id: owner.user.map(str::to_owned),
            session_id: owner.session_id.clone(),
            run_id: id.clone(),
            max_cost: Some(money.room()),
            models: None,
        };
        let spec = DoorSpec { socket: socket.clone(), grant, observer: Some(observer) };
        let door = engine.gateway.open(spec).map_err(|error| describe(&error))?;
        let mut spec = launch::hosted_spec(&engine.config, &folders, socket);
        spec.tenant = tenant;
        let (metrics, asked) = (&engine.config.metrics, Instant::now());
        let sandbox = engine.launcher.create(id.as_str(), &spec).await;
        let sandbox = sandbox.map_err(|error| {
            metrics.sandbox_failed();
            format!("make the sandbox: {}", describe(&error))
        })?;
        metrics.sandbox_started(asked.elapsed());
        let counted = Counted(metrics.clone());
        let key = door.virtual_key().expose_secret();
        let exec = exec(engine, owner, definition, tools, money, &resume, key);
        let mut process =
            sandbox.exec(exec).await.map_err(|error| format!("start the agent: {}", describe(&error)))?;
        let mut agent = Self {
            stdin: process.stdin.take(),
            stdout: process.stdout.take(),
            stderr: process.stderr.take(),
            sandbox: Some(sandbox),
            _counted: counted,
            cost_before: money.spent,
            door: Some(door),
            process,
            chunk: vec![0; CHUNK_BYTES],
            errors: Vec::new(),
            outgoing: Vec::new(),
            exchanges,
            exited: None,
            translator: Translator::default(),
        };
        agent.write(&translate::initialize(definition.agent["system"].as_str(), tools));
        Ok(agent)
    }

    /// Waits for what comes next. May be dropped and called again.
    pub async fn next(&mut self) -> News {
        let is_read = self.stdout.is_none();
        let may_read = self.outgoing.len() < MAX_OUTGOING_BYTES;
        tokio::select! {
            biased;
            Some(exchange) = self.exchanges.recv() => News::Exchange(exchange),
            () = write_some(&mut self.stdin, &mut self.outgoing) => News::Progress,
            read = read_some(&mut self.stdout, &mut self.chunk), if may_read => match read {
                0 => {
                    self.stdout = None;
                    News::Progress
                }
                bytes => News::Output(self.chunk[..bytes].to_vec()),
            },
            read = read_stderr(&mut self.stderr, &mut self.errors) => {
                if read == 0 {
                    self.stderr = None;
                }
                News::Progress
            }
            exit = self.process.wait(), if self.exited.is_none() => {
                let how = match exit {
                    Ok(exit) => format!("the agent ended with {}", exit.shell_code()),
                    Err(error) => format!("the sandbox is gone: {}", describe(&error)),
                };
                // What it wrote before is read first; what it left behind may hold the pipe open for ever.
                self.exited = Some((how, Instant::now() + DRAIN));
                News::Progress
            }
            how = drained(&self.exited, is_read) => {
                News::Ended(format!("{how}{}", self.last_words()))
            }
        }
    }

    /// Writes a frame; the agent takes it when it can.
    pub fn write(&mut self, frame: &HostFrame) {
        if self.stdin.is_some() {
            self.outgoing.extend(frame.to_value().to_string().into_bytes());
            self.outgoing.push(b'\n');
        }
    }

    /// Sets the span that those of its model requests stand below.
    pub fn set_trace(&self, parent: SpanContext) {
        if let Some(door) = &self.door {
            door.set_trace(parent);
        }
    }

    /// Changes the most that the session may cost. It is counted from what the session had cost when this agent was
    /// started: what it costs since then is the door's to know, before anybody else.
    pub fn set_limit(&self, limit: NanoUsd) {
        if let Some(door) = &self.door {
            door.set_max_cost(Some(limit.saturating_sub(self.cost_before).max(NanoUsd::ZERO)));
        }
    }

    /// Ends it and waits until nothing of it is left and all its requests are settled; returns what the gateway said of
    /// them last.
    pub async fn end(mut self) -> Vec<Exchange> {
        if let Some(sandbox) = self.sandbox.take() {
            let destroyed = tokio::time::timeout(END_GRACE, sandbox.destroy()).await;
            match destroyed {
                Ok(Ok(())) => (),
                Ok(Err(error)) => {
                    tracing::error!(
                        error = describe(&error),
                        "a sandbox was not destroyed; the launcher sweeps it"
                    );
                }
                Err(_) => tracing::error!("a sandbox was not destroyed in time; the launcher sweeps it"),
            }
        }
        let mut last = Vec::new();
        if let Some(door) = self.door.take() {
            let closing = door.close();
            tokio::pin!(closing);
            // Heard while it closes, since requests that end wait to be heard.
            loop {
                tokio::select! {
                    biased;
                    Some(exchange) = self.exchanges.recv() => last.push(exchange),
                    _ = &mut closing => break,
                }
            }
        }
        while let Ok(exchange) = self.exchanges.try_recv() {
            last.push(exchange);
        }
        last
    }

    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.errors);
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!(": {text}") }
    }
}

/// What a session may cost, and has.
#[derive(Clone, Copy, Debug)]
pub struct Money {
    /// The most.
    pub limit: NanoUsd,
    /// So far.
    pub spent: NanoUsd,
}

impl Money {
    /// What is left.
    fn room(self) -> NanoUsd {
        self.limit.saturating_sub(self.spent).max(NanoUsd::ZERO)
    }
}

/// How an agent begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// With a new conversation.
    No,
    /// With the one that the session had; it repeats what it said after the message with this id.
    After(Option<String>),
}

fn exec(
    engine: &Inner,
    owner: &Owner<'_>,
    definition: &Definition,
    tools: &Tools,
    money: Money,
    resume: &Resume,
    key: &str,
) -> Exec {
    let model = definition.agent["model"]["id"].as_str().unwrap_or(&engine.config.default_model);
    let model = PriceTable::embedded().resolve_alias(model);
    let id = conversation_id(owner.session_id);
    let mut argv = vec![
        launch::agent_program(),
        "--output-format=stream-json".to_owned(),
        "--input-format=stream-json".to_owned(),
        "--setting-sources=".to_owned(),
        "--verbose".to_owned(),
        "--include-partial-messages".to_owned(),
        format!("--model={model}"),
        format!("--max-turns={}", engine.config.sessions.max_turns),
        format!("--max-budget-usd={}", money.room().to_string().trim_start_matches('$')),
        match resume {
            Resume::After(_) => format!("--resume={id}"),
            Resume::No => format!("--session-id={id}"),
        },
    ];
    argv.extend(tools.arguments());
    let mut exec = Exec::new(argv);
    exec.env = launch::base_environment(key);
    // From the first start on: an agent that is told so leaves what it waits for as it is when the host goes.
    exec.env.push(("CLAUDE_CODE_RESUME_INTERRUPTED_TURN".to_owned(), "1".to_owned()));
    if let Resume::After(Some(uuid)) = resume {
        exec.env.push(("WARDIAN_REPLAY_AFTER".to_owned(), uuid.clone()));
    }
    exec.stdin = Stdio::Piped;
    exec
}

/// The id of a session's conversation in the agent's transcripts: a UUID that the session's id gives.
fn conversation_id(session: &SessionId) -> String {
    uuid(session.as_str())
}

/// A UUID (version 8: of our own making) that a text gives.
pub fn uuid(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Waits until an agent that has exited has nothing more to say.
async fn drained(exited: &Option<(String, Instant)>, is_read: bool) -> String {
    match exited {
        None => std::future::pending().await,
        Some((how, until)) => {
            if !is_read {
                tokio::time::sleep_until(*until).await;
            }
            how.clone()
        }
    }
}

async fn read_stderr(pipe: &mut Option<pipe::Receiver>, kept: &mut Vec<u8>) -> usize {
    let mut chunk = [0; 4096];
    let read = read_some(pipe, &mut chunk).await;
    kept.extend_from_slice(&chunk[..read]);
    let over = kept.len().saturating_sub(MAX_STDERR_BYTES);
    kept.drain(..over);
    read
}

/// The tools and rules of a definition.
pub fn tools(definition: &Definition) -> Arc<Tools> {
    Arc::new(Tools::read(definition.agent.get("tools").unwrap_or(&Value::Null)))
}
